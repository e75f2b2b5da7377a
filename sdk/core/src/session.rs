//! The device's state of one session: keys, counter, masking and unmasking (`protocol.md`, sections 3 and 7).
//!
//! A session lives in memory. Whoever loses it, by a restart or a crash, opens a new one with new keys, so no
//! counter is ever repeated under the same keys. To outlive a restart it is saved as a [`blob`]
//! that reserves a block of counters ahead of their use:
//!
//! ```
//! # use seco_core::{Error, MAX_SESSION_BLOB, Session};
//! # fn store(_: &[u8]) {}
//! # fn example(mut session: Session, input: &mut [u8]) -> Result<(), Error> {
//! let mut buffer = [0; MAX_SESSION_BLOB];
//! let (blob, reservation) = session.save(64, &mut buffer)?;
//! store(blob); // in the platform's key store; on failure drop the reservation and try again later
//! session.confirm(reservation)?; // now 64 requests are allowed
//! session.request(input)?;
//! # Ok(())
//! # }
//! ```
//!
//! After a restart the session goes on behind the reserved block, used or not. So a crash costs at most a
//! block of numbers, of which there are 2^64, and never repeats one.

use crate::message::FRAME_OVERHEAD;
use crate::pack::{self, check_len, packed_len};
use crate::seal::{self, Binding, MAX_SEALED, ServerSealingKey, ServerSetId};
use crate::{Error, MAX_SERVERS, ModelId, Request, Result, SessionId, SessionKey, blob};
use core::fmt;
use rand_core::CryptoRng;
use zeroize::Zeroize;

/// What the device knows of a model: its name and the shapes of input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name of the model.
    pub id: ModelId,
    /// Input values, one byte each: `1..=`[`ModelInfo::MAX_INPUT`].
    pub input_len: usize,
    /// Number of logits: `1..=`[`ModelInfo::MAX_CLASSES`].
    pub classes: usize,
    /// `k`: bits per logit, `2..=32`.
    pub width: u32,
    /// How many bits of a logit are a fraction, `0..=31`: its value is `word / 2^fraction`.
    pub fraction: u32,
}

impl ModelInfo {
    /// Longest input, in bytes.
    pub const MAX_INPUT: usize = 1 << 26;

    /// Most classes.
    pub const MAX_CLASSES: usize = 1 << 20;

    /// Checks every field's range.
    ///
    /// # Errors
    /// [`Error::Model`] with the name of the field.
    pub fn validate(&self) -> Result<()> {
        let check = |good, field| if good { Ok(()) } else { Err(Error::Model(field)) };
        check((1..=Self::MAX_INPUT).contains(&self.input_len), "input_len")?;
        check((1..=Self::MAX_CLASSES).contains(&self.classes), "classes")?;
        check((2..=32).contains(&self.width), "width")?;
        check(self.fraction < 32, "fraction")
    }

    /// Bytes of the payload of [`Response::Logits`](crate::Response::Logits).
    #[must_use]
    pub const fn logits_len(&self) -> usize {
        packed_len(self.classes, self.width)
    }

    /// Bits of a label: `ceil(log2 classes)`, and at least one.
    #[must_use]
    pub const fn label_width(&self) -> u32 {
        let bits = usize::BITS - self.classes.saturating_sub(1).leading_zeros();
        if bits == 0 { 1 } else { bits }
    }

    /// Bytes of the longest message that a gateway takes for this model.
    #[must_use]
    pub const fn request_limit(&self) -> usize {
        FRAME_OVERHEAD + if self.input_len > MAX_SEALED { self.input_len } else { MAX_SEALED }
    }

    /// Bytes of the longest message that a device takes for this model.
    #[must_use]
    pub const fn response_limit(&self) -> usize {
        let (logits, probe) = (self.logits_len(), u16::MAX as usize);
        FRAME_OVERHEAD + if logits > probe { logits } else { probe }
    }
}

/// One session: a key for every server and the next counter.
pub struct Session {
    model: ModelInfo,
    binding: Binding,
    keys: heapless::Vec<SessionKey, MAX_SERVERS>,
    /// The next counter to hand out; `None` when all are used.
    next: Option<u64>,
    /// `None` while the session was never saved: then no other can go on where it stopped.
    reserved: Option<Reserved>,
}

/// How far counters are reserved by blobs.
struct Reserved {
    /// Counters below may be handed out: a stored blob counts them as used.
    confirmed: u64,
    /// The highest bound of all blobs. No later blob has a lower one, whichever of them get stored.
    written: u64,
}

/// A block of counters that a blob reserves, and that the session hands out once the blob is stored. From
/// [`Session::save`], for [`Session::confirm`]; dropped if storing fails.
#[derive(Debug)]
#[must_use = "the session hands out no more numbers until the reservation is confirmed"]
pub struct Reservation {
    session: SessionId,
    bound: u64,
}

/// A request under way: its counter, and the right to unmask one answer. Neither `Copy` nor `Clone`, and
/// consumed by unmasking, so that a pad cannot be used twice.
///
/// ```compile_fail,E0382
/// # fn answer_twice(session: &seco_core::Session, pending: seco_core::Pending, masked: &[u8]) {
/// let mut logits = [0; 10];
/// session.unmask_logits(pending, masked, &mut logits);
/// session.unmask_logits(pending, masked, &mut logits); // moved above
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Pending {
    session: SessionId,
    counter: u64,
}

impl Pending {
    /// `c`, for [`Request::Infer`].
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.counter
    }
}

impl Session {
    /// Draws the session's id and one key for each of `servers`, the gateway's first.
    ///
    /// # Errors
    /// [`Error::Model`] or [`Error::Servers`] if the deployment is not usable.
    pub fn new(model: ModelInfo, servers: &[ServerSealingKey], rng: &mut impl CryptoRng) -> Result<Self> {
        model.validate()?;
        let mut session = SessionId([0; 16]);
        rng.fill_bytes(&mut session.0);
        let binding = Binding { session, model: model.id, servers: ServerSetId::new(servers)? };
        let mut keys = heapless::Vec::new();
        for _ in servers {
            keys.push(SessionKey::generate(rng)).map_err(|_| Error::Servers { got: servers.len() })?;
        }
        Ok(Self { model, binding, keys, next: Some(0), reserved: None })
    }

    /// Takes up the session of a stored blob, whose copy in memory is wiped, whatever the result. Its first
    /// counter is the blob's bound, and none is handed out before the session was saved and confirmed anew:
    /// until then [`Session::request`] says [`Error::ReservationUsedUp`].
    ///
    /// No two sessions may live from one blob, nor one beside the session that saved it: they would use the
    /// same pads. See [`blob`] for what the application has to guarantee.
    ///
    /// Whether the session is for the deployment at hand say [`Session::model`] and [`Session::server_set`].
    ///
    /// # Errors
    /// [`Error::SessionBlob`] or [`Error::SessionBlobVersion`]: open a new session.
    pub fn restore(blob: &mut [u8]) -> Result<Self> {
        let contents = blob::read(blob);
        blob.zeroize();
        let blob::Contents { model, binding, bound, keys } = contents?;
        let reserved = Some(Reserved { confirmed: bound, written: bound });
        Ok(Self { model, binding, keys, next: Some(bound), reserved })
    }

    /// Writes the session as a blob of at most [`MAX_SESSION_BLOB`](crate::MAX_SESSION_BLOB) bytes into `out`
    /// and returns it with the reservation of `block` counters from the next one on, or of more if an earlier
    /// blob said so. To be stored durably, then [confirmed](Session::confirm). If storing fails or is not
    /// certain, drop the reservation and save again.
    ///
    /// From the first call on the session hands out reserved counters only. Those of earlier reservations
    /// stay available meanwhile. 2^64 - 1 counters can be reserved in all.
    ///
    /// The blob holds the session keys: wipe `out` once it is stored.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`]; [`Error::Exhausted`] if no counter is left. The session is then as it was.
    pub fn save<'o>(&mut self, block: u64, out: &'o mut [u8]) -> Result<(&'o [u8], Reservation)> {
        let next = self.next.filter(|next| *next < u64::MAX).ok_or(Error::Exhausted)?;
        let written = self.reserved.as_ref().map_or(0, |reserved| reserved.written);
        let bound = next.saturating_add(block).max(written);
        let blob = blob::write(&self.model, &self.binding, bound, &self.keys, out)?;
        let confirmed = self.reserved.as_ref().map_or(next, |reserved| reserved.confirmed);
        self.reserved = Some(Reserved { confirmed, written: bound });
        Ok((blob, Reservation { session: self.id(), bound }))
    }

    /// Makes the counters of `reservation` available. To be called when its blob, or one saved later, is what
    /// [`Session::restore`] would be given after a crash at any time from now on.
    ///
    /// # Errors
    /// [`Error::OtherSession`].
    pub fn confirm(&mut self, reservation: Reservation) -> Result<()> {
        self.check_own(reservation.session)?;
        if let Some(reserved) = &mut self.reserved {
            reserved.confirmed = reserved.confirmed.max(reservation.bound);
        }
        Ok(())
    }

    /// How many requests are possible before the session must be saved again; `None` if it was never saved
    /// and needs no saving.
    #[must_use]
    pub fn reserved(&self) -> Option<u64> {
        let reserved = self.reserved.as_ref()?;
        Some(self.next.map_or(0, |next| reserved.confirmed.saturating_sub(next)))
    }

    /// The session's name.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.binding.session
    }

    /// The model it was made for.
    #[must_use]
    pub const fn model(&self) -> &ModelInfo {
        &self.model
    }

    /// The servers it was made for: [`ServerSetId::new`] of their sealing keys.
    #[must_use]
    pub const fn server_set(&self) -> ServerSetId {
        self.binding.servers
    }

    /// The message that opens the session at the servers, its keys sealed into `buffer`, which needs
    /// `servers.len() · `[`SEALED_LEN`](crate::SEALED_LEN) bytes. `servers` are those given to
    /// [`Session::new`]. May be called again: the keys stay, only their sealing is fresh.
    ///
    /// # Errors
    /// [`Error::OtherServers`] or [`Error::BufferTooSmall`].
    pub fn open_message<'b>(
        &self,
        servers: &[ServerSealingKey],
        rng: &mut impl CryptoRng,
        buffer: &'b mut [u8],
    ) -> Result<Request<'b>> {
        if ServerSetId::new(servers)? != self.binding.servers {
            return Err(Error::OtherServers);
        }
        let sealed = seal::seal_session_keys(&self.keys, servers, &self.binding, rng, buffer)?;
        Ok(Request::Open { session: self.id(), model: self.model.id, sealed })
    }

    /// Takes the next counter `c` and masks `input` in place: `x ^ P_1 ^ … ^ P_n`.
    ///
    /// # Errors
    /// [`Error::WrongLength`]; [`Error::ReservationUsedUp`] in a session that was saved or restored, until
    /// it is saved and confirmed again; [`Error::Exhausted`] after 2^64 requests. `input` is then as it was.
    pub fn request(&mut self, input: &mut [u8]) -> Result<Pending> {
        check_len(self.model.input_len, input.len())?;
        let counter = self.next.ok_or(Error::Exhausted)?;
        if self.reserved.as_ref().is_some_and(|reserved| counter >= reserved.confirmed) {
            // The last number of all is no blob's to reserve.
            return Err(if counter == u64::MAX { Error::Exhausted } else { Error::ReservationUsedUp });
        }
        self.next = counter.checked_add(1);
        for key in &self.keys {
            key.apply_input_pad(counter, input)?;
        }
        Ok(Pending { session: self.id(), counter })
    }

    /// Subtracts every server's output pad mod `2^k` from the packed words of
    /// [`Response::Logits`](crate::Response::Logits) and extends the sign. `out` takes one logit per class.
    ///
    /// # Errors
    /// [`Error::WrongLength`] if `masked` has not [`ModelInfo::logits_len`] bytes or `out` not one word per
    /// class, [`Error::Malformed`] if unused bits are set, [`Error::OtherSession`].
    pub fn unmask_logits(&self, pending: Pending, masked: &[u8], out: &mut [i32]) -> Result<()> {
        self.check_own(pending.session)?;
        check_len(self.model.classes, out.len())?;
        let width = self.model.width;
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

    /// XORs every server's label pad into the word of [`Response::Label`](crate::Response::Label).
    ///
    /// # Errors
    /// [`Error::WrongLength`], [`Error::OtherSession`], or [`Error::Malformed`] if unused bits are set or
    /// there is no such class.
    pub fn unmask_label(&self, pending: Pending, masked: &[u8]) -> Result<usize> {
        self.check_own(pending.session)?;
        let width = self.model.label_width();
        let mut label = [0];
        pack::unpack(masked, width, &mut label)?;
        let [mut label] = label;
        for key in &self.keys {
            label ^= key.label_pad(pending.counter, width)?;
        }
        let label = usize::try_from(label).map_err(|_| Error::Malformed)?;
        if label < self.model.classes { Ok(label) } else { Err(Error::Malformed) }
    }

    fn check_own(&self, session: SessionId) -> Result<()> {
        if session == self.id() { Ok(()) } else { Err(Error::OtherSession) }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:?}, {} servers)", self.id(), self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServerOpeningKey;
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    /// The last counter is used, then the session ends instead of starting over.
    #[test]
    fn counters_run_out() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let servers = [0; 2].map(|_| ServerOpeningKey::generate(&mut rng).sealing_key().unwrap());
        let model = ModelInfo { id: ModelId([7; 32]), input_len: 4, classes: 3, width: 20, fraction: 16 };
        let mut session = Session::new(model, &servers, &mut rng).unwrap();
        session.next = Some(u64::MAX - 1);
        let mut input = [0; 4];
        assert_eq!(session.request(&mut input).unwrap().counter(), u64::MAX - 1);
        assert_eq!(session.request(&mut input).unwrap().counter(), u64::MAX);
        let before = input;
        assert_eq!(session.request(&mut input).unwrap_err(), Error::Exhausted);
        assert_eq!(session.request(&mut input).unwrap_err(), Error::Exhausted);
        assert_eq!(input, before);
    }

    /// A saved session stops one number earlier, and says so instead of asking to be saved for ever.
    #[test]
    fn reservations_run_out() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let servers = [0; 2].map(|_| ServerOpeningKey::generate(&mut rng).sealing_key().unwrap());
        let model = ModelInfo { id: ModelId([7; 32]), input_len: 4, classes: 3, width: 20, fraction: 16 };
        let mut session = Session::new(model, &servers, &mut rng).unwrap();
        let mut buffer = [0; crate::MAX_SESSION_BLOB];
        session.next = Some(u64::MAX - 1);
        let (_, reservation) = session.save(u64::MAX, &mut buffer).unwrap();
        session.confirm(reservation).unwrap();
        assert_eq!(session.reserved(), Some(1));
        let mut input = [0; 4];
        assert_eq!(session.request(&mut input).unwrap().counter(), u64::MAX - 1);
        assert_eq!(session.request(&mut input).unwrap_err(), Error::Exhausted);
        assert_eq!(session.save(1, &mut buffer).unwrap_err(), Error::Exhausted);
        assert_eq!(session.reserved(), Some(0));

        let mut session = Session::new(model, &servers, &mut rng).unwrap();
        session.next = None;
        assert_eq!(session.save(1, &mut buffer).unwrap_err(), Error::Exhausted);
    }
}
