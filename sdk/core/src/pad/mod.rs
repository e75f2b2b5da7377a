//! Session keys and the one-time pads they expand to (`server/PROTOCOL.md`, section 3).
//!
//! ```text
//! K_{j,I} (32) || tag (16) = SHAKE256("SECO incarnation key v1" || K_j (32) || nonce (16) || exporter (32))
//! pad                      = ChaCha12(K_{j,I}, domain tag (4) || c (8, little-endian))
//! ```
//!
//! `K_j` is the session's key for server `j`; `K_{j,I}` the one of a connection, from the nonce that the
//! device drew for it and the connection's TLS exporter value ([`crate::incarnation`]). The input of SHAKE256
//! has a fixed length, and fits one block of its sponge, so it is a pseudorandom function of `K_j`. The tag
//! proves to server `j` that a device that resumes has `K_j`; it tells nothing of the key beside it.
//!
//! A pad is the ChaCha12 keystream (RFC 8439 layout: 32-bit block counter, 96-bit nonce) for inference number
//! `c`. So pads of different servers, connections, counters and purposes are independent as long as ChaCha12
//! is a pseudorandom function. Eight rounds are attacked as far as seven; twelve keep a margin and cost the
//! device 40 % less than twenty.
//!
//! A pad hides only while it is used once. No two connections share a key, the device's
//! [`Requester`](crate::Requester) never repeats a counter, and every server refuses one that it has seen.

// Faster than the library's kernels (`cross/COST.md`).
#[cfg(any(test, not(target_arch = "x86")))]
mod lanes;

use crate::{Error, Incarnation, Result, pack};
use chacha20::ChaCha12;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use core::fmt;
use rand_core::CryptoRng;
use shake::digest::XofReader as _;
use shake::{ExtendableOutput as _, Shake256, Update as _};
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What a pad is for. The tags are the first four bytes of the nonce, so no purpose shares keystream with
/// another, whatever the servers answer.
#[derive(Clone, Copy)]
enum Domain {
    Input,
    Output,
}

impl Domain {
    const fn tag(self) -> [u8; 4] {
        match self {
            Self::Input => *b"SIN1",
            Self::Output => *b"SOU1",
        }
    }
}

/// `K_j`: the key that the device shares with server `j` for one session. 32 bytes, zeroized on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// Draws a key.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut key = Self([0; 32]);
        rng.fill_bytes(&mut key.0);
        key
    }

    /// Takes a key from storage.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes, for sealing and for storage on the device. Secret.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// `K_{j,I}`: the key of one connection.
    #[must_use]
    pub fn for_connection(&self, incarnation: &Incarnation) -> IncarnationKey {
        let mut hash = Shake256::default();
        hash.update(KEY_LABEL);
        hash.update(&self.0);
        hash.update(&incarnation.nonce);
        hash.update(&incarnation.exporter);
        let mut reader = hash.finalize_xof();
        let mut derived = IncarnationKey { key: [0; 32], tag: [0; TAG_LEN] };
        reader.read(&mut derived.key);
        reader.read(&mut derived.tag);
        derived
    }
}

/// `K_{j,I}`: the key that the device shares with server `j` for one connection, from
/// [`SessionKey::for_connection`]. Zeroized on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct IncarnationKey {
    key: [u8; 32],
    tag: [u8; TAG_LEN],
}

impl IncarnationKey {
    /// What shows server `j` that a device that resumes has `K_j`. It tells nothing of the pads, and serves on
    /// this connection only.
    #[must_use]
    pub const fn tag(&self) -> &[u8; TAG_LEN] {
        &self.tag
    }

    /// Compares a tag that a device sent, in constant time.
    #[must_use]
    pub fn accepts(&self, tag: &[u8; TAG_LEN]) -> bool {
        self.tag.ct_eq(tag).into()
    }

    /// XORs the input pad `P_j` of inference `counter` into `values`, the input's bytes. Applied twice it
    /// cancels; applied to zeros it yields the pad.
    ///
    /// A value is a byte, or two where the model's have more than 8 bits, whatever range the model uses of it: of what
    /// is masked beyond its bits the servers take no notice.
    ///
    /// # Errors
    /// [`Error::TooLong`] beyond the 256 GiB of one keystream.
    pub fn apply_input_pad(&self, counter: u64, values: &mut [u8]) -> Result<()> {
        apply_input_pads(core::slice::from_ref(self), counter, values)
    }

    /// Writes the output pad `Q_j` of inference `counter`: word `i` is the `i`-th little-endian 32-bit word of
    /// the keystream, reduced mod `2^width`.
    ///
    /// # Errors
    /// [`Error::Width`] unless `1 <= width <= 32`; [`Error::TooLong`] beyond one keystream.
    pub fn output_pad(&self, counter: u64, width: u32, words: &mut [u32]) -> Result<()> {
        self.for_each_output_word(counter, width, words, |word, pad| *word = pad)
    }

    /// Hands every item of `items` to `combine` together with its word of the output pad. In chunks of one
    /// cipher block, so that no buffer as long as the output is needed.
    pub(crate) fn for_each_output_word<T>(
        &self,
        counter: u64,
        width: u32,
        items: &mut [T],
        combine: impl Fn(&mut T, u32),
    ) -> Result<()> {
        let mask = pack::mask(width)?;
        let len = items.len().saturating_mul(4);
        let mut stream = self.keystream(Domain::Output, counter);
        let mut block = Zeroizing::new([0u8; 64]);
        for chunk in items.chunks_mut(16) {
            block.zeroize();
            stream
                .try_apply_keystream(block.as_mut_slice())
                .map_err(|_| Error::TooLong { len, limit: MAX_PAD })?;
            for (item, bytes) in chunk.iter_mut().zip(block.as_chunks::<4>().0) {
                combine(item, u32::from_le_bytes(*bytes) & mask);
            }
        }
        Ok(())
    }

    fn keystream(&self, domain: Domain, counter: u64) -> ChaCha12 {
        ChaCha12::new(&self.key.into(), &nonce(domain, counter).into())
    }
}

/// [`IncarnationKey::apply_input_pad`] of all keys.
pub(crate) fn apply_input_pads(keys: &[IncarnationKey], counter: u64, values: &mut [u8]) -> Result<()> {
    let len = values.len();
    if len > MAX_PAD {
        return Err(Error::TooLong { len, limit: MAX_PAD });
    }
    #[cfg(not(target_arch = "x86"))]
    if lanes::apply(keys.iter().map(|key| &key.key), &nonce(Domain::Input, counter), values) {
        return Ok(());
    }
    by_library(keys, counter, values)
}

/// The same on processors for which `lanes` has no code.
fn by_library(keys: &[IncarnationKey], counter: u64, values: &mut [u8]) -> Result<()> {
    for key in keys {
        key.keystream(Domain::Input, counter)
            .try_apply_keystream(values)
            .map_err(|_| Error::TooLong { len: values.len(), limit: MAX_PAD })?;
    }
    Ok(())
}

fn nonce(domain: Domain, counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (tag, number) = nonce.split_at_mut(4);
    tag.copy_from_slice(&domain.tag());
    number.copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// Bytes of the tag that proves a session key to its server.
pub const TAG_LEN: usize = 16;

const KEY_LABEL: &[u8; 23] = b"SECO incarnation key v1";

/// Bytes of one keystream, 2^32 blocks of 64, less one; or all that a shorter `usize` can count.
const MAX_PAD: usize = usize::MAX >> usize::BITS.saturating_sub(38);

impl ConstantTimeEq for SessionKey {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

impl fmt::Debug for IncarnationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IncarnationKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::{IncarnationKey, apply_input_pads, by_library};
    use crate::MAX_SERVERS;

    /// Of one key and of several: on most processors it is not used.
    #[test]
    fn by_the_library_it_is_the_same() {
        let keys: [IncarnationKey; MAX_SERVERS] =
            core::array::from_fn(|i| IncarnationKey { key: [i as u8 + 1; 32], tag: [0; super::TAG_LEN] });
        let given: [u8; 1000] = core::array::from_fn(|i| (i * 13) as u8);
        for len in [0, 1, 63, 64, 65, 512, 777, 1000] {
            for count in [1, 2, MAX_SERVERS] {
                let keys = &keys[..count];
                let (mut one, mut all, mut made) = (given, given, given);
                for key in keys {
                    key.apply_input_pad(7, &mut one[..len]).unwrap();
                }
                apply_input_pads(keys, 7, &mut all[..len]).unwrap();
                by_library(keys, 7, &mut made[..len]).unwrap();
                assert_eq!((made, all), (one, one), "{count} keys, {len} bytes");
            }
        }
    }
}
