//! The device's requests on one connection: counter, masking and unmasking (`server/PROTOCOL.md`, sections 3 and 8).

use crate::message::Request;
use crate::pack::{self, check_len};
use crate::pad::{self, IncarnationKey, TAG_LEN};
use crate::session::Identity;
use crate::{Error, Incarnation, IncarnationId, MAX_SERVERS, ModelInfo, Result, SessionId};
use core::fmt;

/// Numbers, masks and unmasks the requests of one incarnation; from [`Session::start`](crate::Session::start).
/// It ends with its connection. Nothing of it can be stored or copied, so no counter comes back.
pub struct Requester {
    identity: Identity,
    incarnation: Incarnation,
    /// Of `incarnation`; names the pending requests as its own.
    id: IncarnationId,
    keys: heapless::Vec<IncarnationKey, MAX_SERVERS>,
    /// The next counter to hand out; `None` when all are used.
    next: Option<u64>,
}

/// A request under way: its counter, and the right to unmask one answer. Neither `Copy` nor `Clone`, and
/// consumed by unmasking, so that a pad cannot be used twice.
///
/// ```compile_fail,E0382
/// # fn answer_twice(requester: &seco_core::Requester, pending: seco_core::Pending, masked: &[u8]) {
/// let mut logits = [0; 10];
/// requester.unmask_logits(pending, masked, &mut logits);
/// requester.unmask_logits(pending, masked, &mut logits); // moved above
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Pending {
    session: SessionId,
    incarnation: IncarnationId,
    counter: u64,
}

impl Pending {
    /// `c`, for [`Request::Infer`].
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.counter
    }
}

impl Requester {
    pub(crate) fn new(
        identity: Identity,
        incarnation: Incarnation,
        keys: heapless::Vec<IncarnationKey, MAX_SERVERS>,
    ) -> Self {
        Self { identity, incarnation, id: incarnation.id(), keys, next: Some(0) }
    }

    /// The session it is of.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.identity.session
    }

    /// The model it asks.
    #[must_use]
    pub const fn model(&self) -> &ModelInfo {
        &self.identity.model
    }

    /// What its pads are derived from beside the session's keys. Public.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The message that takes the session up on this connection, with a proof for every server written into
    /// `buffer`, which needs [`TAG_LEN`] bytes for each.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`].
    pub fn resume_message<'b>(&self, buffer: &'b mut [u8]) -> Result<Request<'b>> {
        let tags = buffer.get_mut(..self.keys.len() * TAG_LEN).ok_or(Error::BufferTooSmall)?;
        for (to, key) in tags.as_chunks_mut().0.iter_mut().zip(&self.keys) {
            *to = *key.tag();
        }
        Ok(Request::Resume { session: self.session(), nonce: self.incarnation.nonce, tags })
    }

    /// Takes the next counter `c` and masks `input` in place: `x ^ P_0 ^ … ^ P_{n-1}`.
    ///
    /// # Errors
    /// [`Error::WrongLength`]; [`Error::Exhausted`] after 2^64 requests. `input` is then as it was.
    pub fn request(&mut self, input: &mut [u8]) -> Result<Pending> {
        check_len(self.identity.model.input_len, input.len())?;
        let counter = self.next.ok_or(Error::Exhausted)?;
        self.next = counter.checked_add(1);
        pad::apply_input_pads(&self.keys, counter, input)?;
        Ok(Pending { session: self.session(), incarnation: self.id, counter })
    }

    /// Subtracts every server's output pad mod `2^k` from the packed words of
    /// [`Response::Logits`](crate::Response::Logits) and extends the sign. `out` takes one logit per value.
    ///
    /// # Errors
    /// [`Error::WrongLength`] if `masked` has not [`ModelInfo::logits_len`] bytes or `out` not one word per
    /// value, [`Error::Malformed`] if unused bits are set, [`Error::OtherSession`].
    pub fn unmask_logits(&self, pending: Pending, masked: &[u8], out: &mut [i32]) -> Result<()> {
        self.check_own(&pending)?;
        let model = &self.identity.model;
        check_len(model.values, out.len())?;
        let width = model.width;
        pack::unpack_with(masked, width, out, |logit, word| *logit = word.cast_signed())?;
        for key in &self.keys {
            key.for_each_output_word(pending.counter, width, out, |logit, pad| {
                *logit = logit.wrapping_sub(pad.cast_signed());
            })?;
        }
        // Shifting up drops the bits above k, shifting down again copies the sign.
        let unused = u32::BITS - width;
        for logit in out {
            *logit = (*logit << unused) >> unused;
        }
        Ok(())
    }

    fn check_own(&self, pending: &Pending) -> Result<()> {
        let own = pending.session == self.session() && pending.incarnation == self.id;
        if own { Ok(()) } else { Err(Error::OtherSession) }
    }
}

impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Requester({:?}, {:?})", self.session(), self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModelId, ServerOpeningKey, Session};
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    /// The last counter is used, then the incarnation ends instead of starting over.
    #[test]
    fn counters_run_out() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let servers = [0; 2].map(|_| ServerOpeningKey::generate(&mut rng).sealing_key().unwrap());
        let model = ModelInfo { id: ModelId([7; 32]), input_len: 4, values: 3, width: 20 };
        let session = Session::new(model, &servers, 0, &mut rng).unwrap();
        let mut requester = session.start(&[5; 32], &mut rng);
        requester.next = Some(u64::MAX - 1);
        let mut input = [0; 4];
        assert_eq!(requester.request(&mut input).unwrap().counter(), u64::MAX - 1);
        assert_eq!(requester.request(&mut input).unwrap().counter(), u64::MAX);
        let before = input;
        assert_eq!(requester.request(&mut input).unwrap_err(), Error::Exhausted);
        assert_eq!(requester.request(&mut input).unwrap_err(), Error::Exhausted);
        assert_eq!(input, before);
    }
}
