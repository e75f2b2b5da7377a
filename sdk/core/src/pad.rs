//! Session keys and the one-time pads they expand to (`protocol.md`, section 3).
//!
//! A pad is the ChaCha12 keystream (RFC 8439 layout: 32-bit block counter, 96-bit nonce) under the session
//! key `K_j` of server `j`, with the nonce `domain tag (4 bytes) || c (8 bytes, little-endian)` for inference
//! number `c`. So pads of different servers, counters and purposes are independent as long as ChaCha12 is a
//! pseudorandom function. Eight rounds are attacked as far as seven; twelve keep a margin and cost the device
//! 40 % less than twenty.
//!
//! A pad hides only while it is used once. The device's [`Session`](crate::Session) never repeats a counter,
//! and every server refuses one that it has seen.

use crate::{Error, Result, pack};
use chacha20::ChaCha12;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use core::fmt;
use rand_core::CryptoRng;
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What a pad is for. The tags are the first four bytes of the nonce, so no purpose shares keystream with
/// another, whatever the servers answer.
#[derive(Clone, Copy)]
enum Domain {
    Input,
    Output,
    Label,
}

impl Domain {
    const fn tag(self) -> [u8; 4] {
        match self {
            Self::Input => *b"SIN1",
            Self::Output => *b"SOU1",
            Self::Label => *b"SLA1",
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

    /// The key's bytes, for sealing and for a server's storage. Secret.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// XORs the input pad `P_j` of inference `counter` into `values`, one byte per value. Applied twice it
    /// cancels; applied to zeros it yields the pad.
    ///
    /// Inputs are bytes, `b = 8` bits per value, whatever range the model uses of it.
    ///
    /// # Errors
    /// [`Error::TooLong`] beyond the 256 GiB of one keystream.
    pub fn apply_input_pad(&self, counter: u64, values: &mut [u8]) -> Result<()> {
        let len = values.len();
        self.keystream(Domain::Input, counter)
            .try_apply_keystream(values)
            .map_err(|_| Error::TooLong { len, limit: MAX_PAD })
    }

    /// Writes the output pad `Q_j` of inference `counter`: word `i` is the `i`-th little-endian 32-bit word of
    /// the keystream, reduced mod `2^width`.
    ///
    /// # Errors
    /// [`Error::Width`] unless `1 <= width <= 32`; [`Error::TooLong`] beyond one keystream.
    pub fn output_pad(&self, counter: u64, width: u32, words: &mut [u32]) -> Result<()> {
        self.for_each_output_word(counter, width, words, |word, pad| *word = pad)
    }

    /// The pad of a label-only answer of inference `counter`: the low `width` bits of one word from a
    /// keystream of its own. Labels are masked by XOR.
    ///
    /// # Errors
    /// [`Error::Width`] unless `1 <= width <= 32`.
    pub fn label_pad(&self, counter: u64, width: u32) -> Result<u32> {
        let mask = pack::mask(width)?;
        let mut word = Zeroizing::new([0; 4]);
        self.keystream(Domain::Label, counter).apply_keystream(word.as_mut_slice());
        Ok(u32::from_le_bytes(*word) & mask)
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
        let mut nonce = [0; 12];
        let (tag, number) = nonce.split_at_mut(4);
        tag.copy_from_slice(&domain.tag());
        number.copy_from_slice(&counter.to_le_bytes());
        ChaCha12::new(&self.0.into(), &nonce.into())
    }
}

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
