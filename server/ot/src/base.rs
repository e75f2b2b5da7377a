//! Base OT over Ristretto255: the "simplest OT" of Chou and Orlandi (2015, eprint 2015/267), for passive
//! adversaries.
//!
//! The sender draws `a` and offers `A = aG`. For choice bit `c` the receiver draws `b`, replies `B = bG + cA`
//! and holds `H(i, A, B, bA)`; the sender holds `H(i, A, B, aB)` and `H(i, A, B, a(B - A))`, of which that is
//! one. `H` is SHA-256 cut to 128 bits; it binds the position and the transcript. Elements travel in the
//! canonical 32-byte encoding of Ristretto; anything else, and the identity, is refused.

use curve25519_dalek::RistrettoPoint;
use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoBasepointTable};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use subtle::ConditionallySelectable;
use zeroize::{Zeroize, Zeroizing};

use crate::{Bits, Block, Error, Mask, Result};

/// Bytes of an encoded group element.
const POINT: usize = 32;

/// Sender of base OTs, between its offer and the receiver's reply. Its secret is zeroized on drop.
pub struct BaseSender {
    secret: Zeroizing<Scalar>,
    offer: CompressedRistretto,
}

impl BaseSender {
    /// Draws the sender's secret; the 32 bytes are the offer for [`base_receive`].
    pub fn new(rng: &mut impl CryptoRng) -> (Self, Vec<u8>) {
        let secret = random_scalar(rng);
        let offer = RistrettoPoint::mul_base(&secret).compress();
        (Self { secret, offer }, offer.to_bytes().to_vec())
    }

    /// The `count` pairs of seeds, from the receiver's reply of `32 * count` bytes.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::Point`] for a malformed reply.
    pub fn finish(self, reply: &[u8], count: usize) -> Result<Vec<[Block; 2]>> {
        let (encoded, rest) = reply.as_chunks::<POINT>();
        if encoded.len() != count || !rest.is_empty() {
            let expected = count.saturating_mul(POINT);
            return Err(Error::Length { what: "base OT reply", expected, got: reply.len() });
        }
        // a(B - A) = aB - aA, so the second product is shared by all transfers.
        let square = Zeroizing::new(*self.secret * *self.secret);
        let square = Zeroizing::new(RistrettoPoint::mul_base(&square));
        let mut pairs = Zeroizing::new(Vec::with_capacity(count));
        for (i, bytes) in encoded.iter().enumerate() {
            let reply = CompressedRistretto(*bytes);
            let shared = Zeroizing::new(*self.secret * decode(&reply, i)?);
            let other = Zeroizing::new(*shared - *square);
            pairs.push([&shared, &other].map(|point| derive(i, &self.offer, &reply, point)));
        }
        Ok(std::mem::take(&mut *pairs))
    }
}

/// Receiver of base OTs: the seeds chosen by `choices` and the reply for [`BaseSender::finish`].
///
/// # Errors
/// [`Error::Length`] or [`Error::Point`] for a malformed offer.
pub fn base_receive(choices: &Bits, offer: &[u8], rng: &mut impl CryptoRng) -> Result<(Vec<Block>, Vec<u8>)> {
    let Ok(bytes) = <[u8; POINT]>::try_from(offer) else {
        return Err(Error::Length { what: "base OT offer", expected: POINT, got: offer.len() });
    };
    let offer = CompressedRistretto(bytes);
    let point = decode(&offer, 0)?;
    // One table serves all products bA; building it costs as much as a few of them.
    let table = RistrettoBasepointTable::create(&point);
    let mut seeds = Vec::with_capacity(choices.len());
    let mut reply = Vec::with_capacity(choices.len() * POINT);
    for i in 0..choices.len() {
        let secret = random_scalar(rng);
        let mut masked = RistrettoPoint::mul_base(&secret);
        let shifted = masked + point;
        assign_selected(&mut masked, &shifted, choices.mask(i));
        let encoded = masked.compress();
        let shared = Zeroizing::new(&*secret * &table);
        seeds.push(derive(i, &offer, &encoded, &shared));
        reply.extend_from_slice(encoded.as_bytes());
    }
    Ok((seeds, reply))
}

/// `point = other` if the mask is of a one, without a branch. On its own, so that its instructions can be looked at.
#[inline(never)]
fn assign_selected(point: &mut RistrettoPoint, other: &RistrettoPoint, mask: Mask) {
    point.conditional_assign(other, mask.choice());
}

/// Uniform modulo the group order, from 64 bytes.
fn random_scalar(rng: &mut impl CryptoRng) -> Zeroizing<Scalar> {
    let mut wide = Zeroizing::new([0; 64]);
    rng.fill_bytes(wide.as_mut());
    Zeroizing::new(Scalar::from_bytes_mod_order_wide(&wide))
}

fn decode(encoded: &CompressedRistretto, index: usize) -> Result<RistrettoPoint> {
    encoded.decompress().filter(|point| !point.is_identity()).ok_or(Error::Point { index })
}

fn derive(
    index: usize,
    offer: &CompressedRistretto,
    reply: &CompressedRistretto,
    shared: &RistrettoPoint,
) -> Block {
    let shared = Zeroizing::new(shared.compress());
    let mut digest: [u8; 32] = Sha256::new()
        .chain_update(b"seco-ot/base/1")
        .chain_update((index as u64).to_le_bytes())
        .chain_update(offer.as_bytes())
        .chain_update(reply.as_bytes())
        .chain_update(shared.as_bytes())
        .finalize()
        .into();
    let mut seed = [0; 16];
    seed.copy_from_slice(&digest[..16]);
    digest.zeroize();
    Block::from_bytes(seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;
    use subtle::ConstantTimeEq;

    fn equal(a: Block, b: Block) -> bool {
        a.ct_eq(&b).into()
    }

    #[test]
    fn receiver_holds_the_chosen_seeds_only() {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        for count in [0, 1, 128, 200] {
            let choices = Bits::random(count, &mut rng);
            let (sender, offer) = BaseSender::new(&mut rng);
            let (seeds, reply) = base_receive(&choices, &offer, &mut rng).unwrap();
            assert_eq!(reply.len(), 32 * count);
            let pairs = sender.finish(&reply, count).unwrap();
            assert_eq!((pairs.len(), seeds.len()), (count, count));
            for (i, (pair, seed)) in pairs.iter().zip(&seeds).enumerate() {
                let chosen = usize::from(choices.get(i));
                assert!(equal(pair[chosen], *seed) && !equal(pair[1 - chosen], *seed), "{i}");
            }
        }
    }

    #[test]
    fn transcript_is_frozen() {
        let mut rng = ChaCha20Rng::from_seed([8; 32]);
        let choices = Bits::from_bools(&[false, true, true]);
        let (sender, offer) = BaseSender::new(&mut rng);
        let (seeds, reply) = base_receive(&choices, &offer, &mut rng).unwrap();
        let pairs = sender.finish(&reply, 3).unwrap();
        let digest = Sha256::new()
            .chain_update(&offer)
            .chain_update(&reply)
            .chain_update(bytemuck::cast_slice::<_, u8>(&seeds))
            .chain_update(bytemuck::cast_slice::<_, u8>(&pairs))
            .finalize();
        assert_eq!(crate::hex(&digest[..16]), "008600f9b336f9036181f6895f4a965d");
    }

    /// A changed reply or offer gives unrelated seeds: the hash binds the transcript.
    #[test]
    fn tampering_separates_the_seeds() {
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        let choices = Bits::zeros(2);
        let (sender, offer) = BaseSender::new(&mut rng);
        let (seeds, reply) = base_receive(&choices, &offer, &mut rng).unwrap();
        let swapped = [&reply[32..], &reply[..32]].concat();
        let pairs = sender.finish(&swapped, 2).unwrap();
        assert!(pairs.iter().flatten().all(|key| seeds.iter().all(|seed| !equal(*key, *seed))));
    }

    #[test]
    fn malformed_messages_are_refused() {
        let mut rng = ChaCha20Rng::from_seed([10; 32]);
        let choices = Bits::zeros(2);
        let (_, offer) = BaseSender::new(&mut rng);
        let (_, reply) = base_receive(&choices, &offer, &mut rng).unwrap();
        let finish = |reply: &[u8], count| {
            BaseSender::new(&mut ChaCha20Rng::from_seed([11; 32])).0.finish(reply, count).err()
        };
        for wrong in [&reply[..0], &reply[..32], &reply[..63], &[&reply[..], &[0]].concat()] {
            assert!(matches!(finish(wrong, 2), Some(Error::Length { expected: 64, .. })));
        }
        assert!(matches!(finish(&reply, usize::MAX), Some(Error::Length { .. })));

        // The identity; an encoding that is not reduced mod 2^255 - 19; a negative one; one off the curve.
        let identity = [0; 32];
        let mut unreduced = [0xff; 32];
        unreduced[0] = 0xed;
        unreduced[31] = 0x7f;
        let negative = [&[1][..], &[0; 31]].concat();
        let off_curve = [&[2][..], &[0; 31]].concat();
        for bad in [&identity[..], &unreduced, &negative, &off_curve] {
            let mut reply = reply.clone();
            reply[32..].copy_from_slice(bad);
            assert_eq!(finish(&reply, 2), Some(Error::Point { index: 1 }));
            assert_eq!(base_receive(&choices, bad, &mut rng).err(), Some(Error::Point { index: 0 }));
        }
        for wrong in [&offer[..31], &[], &[&offer[..], &[0]].concat()] {
            assert!(matches!(
                base_receive(&choices, wrong, &mut rng),
                Err(Error::Length { expected: 32, .. })
            ));
        }
    }
}
