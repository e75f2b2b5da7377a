//! Trees of seeds: all but one of `2^k` from `k` base OTs by a puncturable pseudorandom function (Goldreich,
//! Goldwasser, Micali 1986), as SoftSpokenOT (Roy 2022, eprint 2022/192) sets up, without its check against
//! active adversaries.
//!
//! The tree's owner (receiver of correlated OTs) knows all `2^k` leaves `r_x`. The other side, whose choice
//! bits are the `k` bits `α` of its `Δ`, learns all but `r_α`. At the level of bit `b`, the owner sends the
//! XOR of all nodes with bit `b` clear under the base OT seed for choice 1, that of all nodes with the bit
//! set under the seed for choice 0; the other side thereby learns the one node beside the path to `α`. The
//! first level needs no message: its two nodes are the seeds themselves. A base OT seed is used for one of
//! the two, once.
//!
//! The side that lacks `r_α` numbers nodes by `y = x ^ α`, so the missing one is always number 0 and no
//! memory access depends on `Δ`.

use zeroize::{Zeroize, Zeroizing};

use crate::aes::Prg;
use crate::{Block, Mask};

/// Blocks in the owner's message for one tree of depth `k`.
pub(crate) const fn message_blocks(k: usize) -> usize {
    2 * (k - 1)
}

/// The two children of a node.
fn children(node: Block) -> [Block; 2] {
    let mut pair = [Block::ZERO; 2];
    Prg::new(node).fill(&mut pair);
    pair
}

/// The owner's tree over the base OT pairs of bits `0..k`: its `2^k` leaves by `x`. The message is appended.
pub(crate) fn grow(pairs: &[[Block; 2]], message: &mut Vec<Block>) -> Zeroizing<Vec<Block>> {
    let Some(([zero, one], lower)) = pairs.split_last() else {
        return Zeroizing::default();
    };
    // Choice 0 gets seed 0, which must be the node it is to know: number 1.
    let mut nodes = Zeroizing::new(vec![*one, *zero]);
    for [zero, one] in lower.iter().rev() {
        let next = Zeroizing::new(nodes.iter().flat_map(|node| children(*node)).collect::<Vec<_>>());
        let mut sums = next
            .iter()
            .as_slice()
            .as_chunks()
            .0
            .iter()
            .fold([Block::ZERO; 2], |sum, pair: &[Block; 2]| [sum[0] ^ pair[0], sum[1] ^ pair[1]]);
        message.extend([sums[1] ^ *zero, sums[0] ^ *one]);
        sums.zeroize();
        nodes = next;
    }
    nodes
}

/// The other side's tree over the base OT seeds chosen by the bits `0..k` of `alpha`: its leaves by `y = x ^
/// α`, the first one, which it cannot know, zero. `message` has [`message_blocks`] blocks.
pub(crate) fn grow_punctured(seeds: &[Block], alpha: u8, message: &[Block]) -> Zeroizing<Vec<Block>> {
    let Some((top, lower)) = seeds.split_last() else {
        return Zeroizing::default();
    };
    let mut nodes = Zeroizing::new(vec![Block::ZERO, *top]);
    for ((bit, seed), masked) in lower.iter().enumerate().rev().zip(message.as_chunks::<2>().0) {
        let choice = Mask::of_bit(u64::from(alpha), bit);
        let mut masked = *masked;
        Block::exchange(&mut masked, choice);
        let mut known = masked[0] ^ *seed;
        let mut next = Zeroizing::new(Vec::with_capacity(2 * nodes.len()));
        next.extend([Block::ZERO; 2]);
        for node in &nodes[1..] {
            let mut pair = children(*node);
            Block::exchange(&mut pair, choice);
            known ^= pair[1];
            next.extend(pair);
            pair.zeroize();
        }
        next[1] = known;
        nodes = next;
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn all_leaves_but_one_are_shared() {
        let mut rng = ChaCha20Rng::from_seed([35; 32]);
        for k in [1, 2, 4, 8] {
            let pairs: Vec<_> = (0..k).map(|_| [Block::random(&mut rng), Block::random(&mut rng)]).collect();
            let mut message = Vec::new();
            let leaves = grow(&pairs, &mut message);
            assert_eq!((leaves.len(), message.len()), (1 << k, message_blocks(k)));
            for alpha in 0..1 << k {
                let seeds: Vec<_> = pairs.iter().enumerate().map(|(b, pair)| pair[alpha >> b & 1]).collect();
                let punctured = grow_punctured(&seeds, alpha as u8, &message);
                assert_eq!(punctured.len(), 1 << k);
                assert!(punctured[0].0 == 0);
                assert!((1..1 << k).all(|y| punctured[y].0 == leaves[y ^ alpha].0), "{k} {alpha}");
                assert!(
                    leaves
                        .iter()
                        .all(|leaf| punctured[1..].iter().all(|p| p.0 != leaves[alpha].0) && leaf.0 != 0)
                );
            }
        }
    }
}
