//! Seeds that outlive their uses: a new extension for every number, from base OTs that were run once.
//!
//! Every leaf is a chain of its own. `SHA-256(tag, leaf)` gives, in its two halves, the leaf's seed for the present
//! number and the leaf of the next one, and the old leaf is overwritten. The receiver does so with all leaves, the
//! sender with those that it has, so that both have the same, and the sender still lacks one of each tree.
//!
//! Numbers may come in any order within [`WINDOW`]: seeds of numbers passed over wait until they are asked for or have
//! fallen behind by more than that, and are wiped then. None is given twice.
//!
//! **What this protects.** Whoever reads this memory after a number was given out and its extension dropped cannot
//! compute that extension's streams, hence neither its choices nor its keys, even with every message recorded.
//! **What stays exposed**: the numbers that are still to come, up to the next base OTs (a chain heals nothing), those
//! passed over that still wait, and the sender's `Δ`, which is the same for all numbers and opens none of them: without
//! the streams it says nothing.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::{CotReceiver, CotSender, Streams, grow, grow_punctured};
use crate::{Block, Delta, Error, Result};

/// How far apart numbers that are in use at the same time may be.
pub const WINDOW: u64 = 16;

/// Receiver's side of the seeds of a link; gives a [`CotReceiver`] for every number. Zeroized on drop.
pub struct ReceiverSeeds {
    parameter: usize,
    ratchet: Ratchet,
}

/// Sender's side of the seeds of a link; gives a [`CotSender`] for every number. Zeroized on drop.
pub struct SenderSeeds {
    parameter: usize,
    delta: Zeroizing<Block>,
    ratchet: Ratchet,
}

impl ReceiverSeeds {
    /// As [`CotReceiver::new`].
    ///
    /// # Errors
    /// Those of [`CotReceiver::new`].
    pub fn new(pairs: Vec<[Block; 2]>, parameter: usize) -> Result<(Self, Vec<u8>)> {
        let (leaves, message) = grow(pairs, parameter)?;
        Ok((Self { parameter, ratchet: Ratchet::new(leaves) }, message))
    }

    /// The extension of number `index`.
    ///
    /// # Errors
    /// [`Error::Index`] for a number that was given before, or out of the [`WINDOW`]; then nothing has changed.
    pub fn take(&mut self, index: u64) -> Result<CotReceiver> {
        Ok(CotReceiver(Streams::new(self.parameter, &self.ratchet.take(index)?)))
    }
}

impl SenderSeeds {
    /// As [`CotSender::new`].
    ///
    /// # Errors
    /// Those of [`CotSender::new`].
    pub fn new(delta: &Delta, seeds: Vec<Block>, parameter: usize, setup: &[u8]) -> Result<Self> {
        let leaves = grow_punctured(delta, seeds, parameter, setup)?;
        Ok(Self { parameter, delta: Zeroizing::new(delta.block()), ratchet: Ratchet::new(leaves) })
    }

    /// The extension of number `index`.
    ///
    /// # Errors
    /// Those of [`ReceiverSeeds::take`].
    pub fn take(&mut self, index: u64) -> Result<CotSender> {
        let streams = Streams::new(self.parameter, &self.ratchet.take(index)?);
        Ok(CotSender { streams, delta: self.delta.clone() })
    }
}

/// The chains of all leaves.
struct Ratchet {
    /// The first number that was not reached yet, to which `leaves` belong.
    next: u64,
    leaves: Zeroizing<Vec<Block>>,
    /// Seeds of numbers that were passed over, oldest first.
    waiting: VecDeque<(u64, Zeroizing<Vec<Block>>)>,
}

impl Ratchet {
    fn new(leaves: Zeroizing<Vec<Block>>) -> Self {
        Self { next: 0, leaves, waiting: VecDeque::new() }
    }

    /// Seeds of number `index`, which this forgets.
    fn take(&mut self, index: u64) -> Result<Zeroizing<Vec<Block>>> {
        let refused = Error::Index { index, next: self.next };
        if index < self.next {
            let place = self.waiting.iter().position(|(waiting, _)| *waiting == index);
            let seeds = place.and_then(|place| self.waiting.remove(place));
            return seeds.map(|(_, seeds)| seeds).ok_or(refused);
        }
        if index - self.next >= WINDOW || index == u64::MAX {
            return Err(refused);
        }
        while self.next < index {
            let seeds = self.step();
            self.waiting.push_back((self.next - 1, seeds));
        }
        let seeds = self.step();
        while self.waiting.front().is_some_and(|(waiting, _)| self.next - waiting > WINDOW) {
            self.waiting.pop_front();
        }
        Ok(seeds)
    }

    /// Seeds of the next number; overwrites the leaves with those of the one after it.
    fn step(&mut self) -> Zeroizing<Vec<Block>> {
        self.next += 1;
        let mut seeds = Zeroizing::new(Vec::with_capacity(self.leaves.len()));
        for leaf in self.leaves.iter_mut() {
            let mut bytes = leaf.to_bytes();
            let mut digest: [u8; 32] =
                Sha256::new().chain_update(b"seco-ot/ratchet/1").chain_update(bytes).finalize().into();
            let [seed, next]: [Block; 2] = bytemuck::cast(digest);
            seeds.push(seed);
            *leaf = next;
            digest.zeroize();
            bytes.zeroize();
        }
        seeds
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::{Bits, Macs, PARAMETERS};

    fn connect(parameter: usize, seed: u8) -> (ReceiverSeeds, SenderSeeds) {
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let delta = Delta::random(&mut rng);
        let pairs: Vec<_> = (0..128).map(|_| [Block::random(&mut rng), Block::random(&mut rng)]).collect();
        let choices = delta.choices();
        let seeds = pairs.iter().enumerate().map(|(i, pair)| pair[usize::from(choices.get(i))]).collect();
        let (receiver, setup) = ReceiverSeeds::new(pairs, parameter).unwrap();
        (receiver, SenderSeeds::new(&delta, seeds, parameter, &setup).unwrap())
    }

    /// Whether both ends of a number fit.
    fn fits(receiver: &mut CotReceiver, sender: &mut CotSender) -> bool {
        let choices = Bits::random(200, &mut ChaCha20Rng::from_seed([9; 32]));
        let (chosen, message) = receiver.extend_random(&choices).unwrap();
        let pairs = sender.extend_random(&message, 200).unwrap();
        chosen.iter().enumerate().all(|(i, chosen)| chosen.0 == pairs[i][usize::from(choices.get(i))].0)
    }

    fn same(a: &[Block], b: &[Block]) -> bool {
        a.iter().zip(b).all(|(a, b)| a.0 == b.0)
    }

    /// Both ends agree, in whatever order each of them takes numbers, and no two numbers have a stream in common.
    #[test]
    fn both_ends_agree_in_any_order() {
        for parameter in PARAMETERS {
            let (mut receiver, mut sender) = connect(parameter, 60);
            let mut receivers: Vec<(u64, CotReceiver)> =
                [3, 0, 2, 1, 4, 19, 5].map(|index| (index, receiver.take(index).unwrap())).into();
            receivers.sort_by_key(|(index, _)| *index);
            for (index, mut receiver) in receivers {
                assert!(fits(&mut receiver, &mut sender.take(index).unwrap()), "{parameter} {index}");
            }
            let mut other = receiver.take(20).unwrap();
            assert!(!fits(&mut other, &mut sender.take(21).unwrap()));

            let (mut receiver, _) = connect(parameter, 61);
            let mut seen = std::collections::HashSet::new();
            for index in 0..3 {
                let mut out = Macs::zeros(128);
                receiver.take(index).unwrap().extend(&Bits::zeros(128), &mut out).unwrap();
                assert!(out.blocks().iter().all(|block| seen.insert(block.0)));
            }
        }
    }

    #[test]
    fn no_number_comes_twice() {
        let (mut receiver, mut sender) = connect(2, 62);
        let refused =
            |result: Option<Error>, index, next| assert_eq!(result, Some(Error::Index { index, next }));
        assert!(receiver.take(2).is_ok() && sender.take(2).is_ok());
        refused(receiver.take(2).err(), 2, 3);
        refused(sender.take(2).err(), 2, 3);
        assert!(receiver.take(0).is_ok());
        refused(receiver.take(0).err(), 0, 3);
        // Too far ahead: refused, and no time or memory spent.
        for index in [3 + WINDOW, u64::MAX] {
            refused(receiver.take(index).err(), index, 3);
        }
        assert_eq!(receiver.ratchet.waiting.len(), 1);
        assert!(receiver.take(2 + WINDOW).is_ok());
        // Number 1 fell out of the window.
        refused(receiver.take(1).err(), 1, 3 + WINDOW);
        assert!(receiver.take(3).is_ok());
        assert!(receiver.ratchet.waiting.len() < WINDOW as usize);
    }

    /// What is left after a number was taken has nothing of it: not its leaves, not its seeds, neither in place nor in
    /// what waits; and the step forward is a one-way function, not a permutation or an offset.
    #[test]
    fn old_state_is_gone() {
        let (mut receiver, mut sender) = connect(2, 63);
        for ratchet in [&mut receiver.ratchet, &mut sender.ratchet] {
            let before = ratchet.leaves.clone();
            let place = ratchet.leaves.as_ptr();
            let seeds = ratchet.take(0).unwrap();
            // Overwritten where it was, so that no freed memory keeps it.
            assert_eq!(ratchet.leaves.as_ptr(), place);
            assert!(ratchet.waiting.is_empty());
            for (i, leaf) in ratchet.leaves.iter().enumerate() {
                let digest: [u8; 32] =
                    Sha256::digest([&b"seco-ot/ratchet/1"[..], &before[i].to_bytes()].concat()).into();
                let [seed, next]: [Block; 2] = bytemuck::cast(digest);
                assert!(seed.0 == seeds[i].0 && next.0 == leaf.0, "{i}");
                assert!(before.iter().chain(seeds.iter()).all(|old| old.0 != leaf.0), "{i}");
            }
            // The state after number 0 cannot give number 0, and gives number 1 as one that never saw 0 would.
            let mut later = Ratchet { next: 1, leaves: ratchet.leaves.clone(), waiting: VecDeque::new() };
            assert!(later.take(0).is_err());
            assert!(same(&later.take(1).unwrap(), &ratchet.take(1).unwrap()));
        }
    }
}
