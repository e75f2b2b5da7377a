//! Correlated OT extension: SoftSpokenOT (Roy 2022, eprint 2022/192) for passive adversaries, over the
//! repetition code.
//!
//! Sender and receiver of correlated OTs hold `K_i` and `M_i = K_i ^ c_i Δ`: `Δ` is the sender's, the choice
//! bits `c_i` are the receiver's. With parameter `k`, the bits of `Δ` fall into `128 / k` groups of `k`, each
//! with a tree of `2^k` seeds of which the sender misses number `α`, the bits of the group (module `tree`).
//! With `P_x` the stream of seed `x`, the receiver computes `u = Σ_x P_x` and, for each bit `b` of the group,
//! `v_b = Σ_x x_b P_x`, the sender `w_b = Σ_x (x ^ α)_b P_x = v_b ^ α_b u`, for which it does not need `P_α`.
//! The receiver sends `u ^ c`, and the sender adds `α_b (u ^ c)` to get `v_b ^ α_b c`: row by row the
//! correlation wanted. Turning the 128 rows into columns gives `K_i` and `M_i`. `k = 1` is the protocol of
//! Ishai, Kilian, Nissim and Petrank (2003).
//!
//! Larger `k` sends less (`16 / k` bytes per transfer) and computes more (`2^k / k` blocks of AES per
//! transfer and side).
//!
//! What the peer sees: the sender `u ^ c`, where `u` contains the stream of a seed it lacks; the receiver
//! nothing. Both sides advance one stream position per 128 transfers, whichever call makes them, so calls
//! must come in the same order and of the same sizes on both sides, and no position is ever used twice.

use core::ops::Range;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::aes::{Backend, Keystreams, LANES};
use crate::matrix::{Kernel, Row, Tile, scatter};
use crate::{Bits, Block, Delta, Error, FixedKey, Keys, Macs, Mask, Result, tree};

/// Base OTs that an extension is built on: one for each bit of `Δ`.
const BASE: usize = 128;

/// Bytes of the receiver's message for `count` transfers: `16 / parameter` each, in whole groups of 128.
pub fn message_len(count: usize, parameter: usize) -> usize {
    let trees = BASE.checked_div(parameter).unwrap_or(0);
    count.div_ceil(128).saturating_mul(trees * size_of::<Block>())
}

/// Bytes of the receiver's set-up message, from which the sender grows its seed trees; none for parameter 1.
pub fn setup_len(parameter: usize) -> usize {
    let trees = BASE.checked_div(parameter).unwrap_or(0);
    trees * tree::message_blocks(parameter.max(1)) * size_of::<Block>()
}

/// Receiver of correlated OTs, the side with the choice bits; owner of the seed trees. Secrets are zeroized
/// on drop.
pub struct CotReceiver(Streams);

/// Sender of correlated OTs, the side with `Δ`. Secrets are zeroized on drop.
pub struct CotSender {
    streams: Streams,
    delta: Zeroizing<Block>,
}

/// What both sides have: the streams of the leaves, the position in them, and memory to work in.
struct Streams {
    parameter: usize,
    /// What the streams come from.
    seeds: Zeroizing<Vec<Block>>,
    /// `2^k` a tree; the sender's first one of each tree is a placeholder.
    leaves: Keystreams,
    /// Stream blocks used so far: one for 128 transfers.
    position: u64,
    kernel: Kernel,
    tile: Box<Tile>,
    scratch: Vec<Row>,
}

impl Streams {
    /// From the leaves of all trees.
    fn new(parameter: usize, leaves: &[Block]) -> Self {
        Self {
            parameter,
            seeds: Zeroizing::new(leaves.to_vec()),
            leaves: Keystreams::new(leaves, Backend::best()),
            position: 0,
            kernel: Kernel::best(),
            tile: Box::new([Row::ZERO; BASE]),
            scratch: vec![Row::ZERO; 1 << parameter],
        }
    }

    const fn trees(&self) -> usize {
        BASE / self.parameter
    }

    /// The rows, and bits of `Δ`, that belong to tree number `tree`.
    const fn rows(&self, tree: usize) -> Range<usize> {
        tree * self.parameter..(tree + 1) * self.parameter
    }

    /// Fills the rows of a tree from its streams at the current position and returns the sum of the streams.
    /// The streams below `first` are taken as zero.
    fn fold(&mut self, tree: usize, first: usize) -> Row {
        let n = self.scratch.len();
        self.scratch[..first].fill(Row::ZERO);
        let streams = bytemuck::cast_slice_mut(&mut self.scratch[first..]);
        self.leaves.fill(tree * n + first..(tree + 1) * n, u128::from(self.position), streams);
        let rows = self.rows(tree);
        self.kernel.fold(&mut self.scratch, &mut self.tile[rows]);
        self.scratch[0]
    }

    /// Turns the rows into columns, hands them out, and moves on by the stream blocks used.
    fn emit(&mut self, out: &mut [Block]) {
        self.kernel.transpose(&mut self.tile);
        scatter(&self.tile, out);
        // A stored position is anything; one that is not ours gives noise, and no panic.
        self.position = self.position.wrapping_add(out.len().div_ceil(128) as u64);
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.tile.zeroize();
        self.scratch.zeroize();
    }
}

/// Parameters that there are: those whose groups fill `Δ`.
pub const PARAMETERS: [usize; 4] = [1, 2, 4, 8];

fn check_parameter(parameter: usize) -> Result<()> {
    if PARAMETERS.contains(&parameter) { Ok(()) } else { Err(Error::Parameter(parameter)) }
}

fn check_arguments(what: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::Arguments { what, expected, got }) }
}

fn check_length(what: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::Length { what, expected, got }) }
}

/// The receiver's leaves of all trees, from base OT pairs, and its message.
fn grow(pairs: Vec<[Block; 2]>, parameter: usize) -> Result<(Zeroizing<Vec<Block>>, Vec<u8>)> {
    let pairs = Zeroizing::new(pairs);
    check_parameter(parameter)?;
    check_arguments("base OT pairs", BASE, pairs.len())?;
    let mut message = Vec::with_capacity(BASE / parameter * tree::message_blocks(parameter));
    let mut leaves = Zeroizing::new(Vec::with_capacity((BASE / parameter) << parameter));
    for pairs in pairs.chunks_exact(parameter) {
        leaves.extend_from_slice(&tree::grow(pairs, &mut message));
    }
    Ok((leaves, bytemuck::cast_slice(&message).to_vec()))
}

/// The sender's leaves of all trees, from the base OT seeds that `delta` chose and the receiver's message.
fn grow_punctured(
    delta: &Delta,
    seeds: Vec<Block>,
    parameter: usize,
    setup: &[u8],
) -> Result<Zeroizing<Vec<Block>>> {
    let seeds = Zeroizing::new(seeds);
    check_parameter(parameter)?;
    check_arguments("base OT seeds", BASE, seeds.len())?;
    let each = tree::message_blocks(parameter);
    let trees = BASE / parameter;
    check_length("set-up of OT extension", trees * each * size_of::<Block>(), setup.len())?;
    let setup: Vec<Block> = setup.as_chunks().0.iter().map(|bytes| Block::from_bytes(*bytes)).collect();
    let mut leaves = Zeroizing::new(Vec::with_capacity(trees << parameter));
    for (tree, seeds) in seeds.chunks_exact(parameter).enumerate() {
        let alpha = (delta.block().0 >> (tree * parameter)) as u8;
        let message = &setup[tree * each..(tree + 1) * each];
        leaves.extend_from_slice(&tree::grow_punctured(seeds, alpha, message));
    }
    Ok(leaves)
}

/// The 128 choice bits of each of the tile's matrices, zeros after the last.
fn choice_row(words: &[u64]) -> Row {
    let mut row = Row::ZERO;
    row.words().iter_mut().zip(words).for_each(|(to, from)| *to = *from);
    row
}

/// Hash that turns correlated OTs into random ones. Its key is public and fresh for every call: it comes from
/// the message that both sides have, which is masked with streams never used before.
fn random_ot_hash(message: &[u8]) -> FixedKey {
    let digest: [u8; 32] =
        Sha256::new().chain_update(b"seco-ot/random/1").chain_update(message).finalize().into();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    FixedKey::new(key)
}

/// Tweak of the first transfer at a stream position; the following ones count on.
fn first_tweak(position: u64) -> u128 {
    u128::from(position) * 128
}

impl CotReceiver {
    /// From the 128 pairs of a [`BaseSender`](crate::BaseSender), with `parameter` 1, 2, 4 or 8. The message
    /// is for [`CotSender::new`]: `4096 (1 - 1/parameter)` bytes.
    ///
    /// # Errors
    /// [`Error::Parameter`] or [`Error::Arguments`].
    pub fn new(pairs: Vec<[Block; 2]>, parameter: usize) -> Result<(Self, Vec<u8>)> {
        let (leaves, message) = grow(pairs, parameter)?;
        Ok((Self(Streams::new(parameter, &leaves)), message))
    }

    /// The parameter it was made with.
    pub fn parameter(&self) -> usize {
        self.0.parameter
    }

    /// One correlated OT for every choice bit: `out[i] = M_i`. The message is for [`CotSender::extend`].
    ///
    /// # Errors
    /// [`Error::Arguments`] if `out` and `choices` differ in length.
    pub fn extend(&mut self, choices: &Bits, out: &mut Macs) -> Result<Vec<u8>> {
        check_arguments("correlated OTs", choices.len(), out.len())?;
        let (Self(streams), out) = (self, out.blocks_mut());
        let mut message = Vec::with_capacity(message_len(out.len(), streams.parameter));
        for (words, out) in choices.words().chunks(2 * LANES).zip(out.chunks_mut(128 * LANES)) {
            let choices = Zeroizing::new(choice_row(words));
            for tree in 0..streams.trees() {
                let mut masked = streams.fold(tree, 0);
                masked.xor(*choices);
                message.extend_from_slice(bytemuck::cast_slice(&masked.0[..out.len().div_ceil(128)]));
            }
            streams.emit(out);
        }
        Ok(message)
    }

    /// One random OT for every choice bit: the chosen one of each of the sender's pairs. The message is for
    /// [`CotSender::extend_random`].
    ///
    /// # Errors
    /// Those of [`CotReceiver::extend`].
    pub fn extend_random(&mut self, choices: &Bits) -> Result<(Vec<Block>, Vec<u8>)> {
        let tweak = first_tweak(self.0.position);
        let mut correlated = Macs::zeros(choices.len());
        let message = self.extend(choices, &mut correlated)?;
        let hash = random_ot_hash(&message);
        let mut permuted = Zeroizing::new(vec![Block::ZERO; choices.len()]);
        let mut out = vec![Block::ZERO; choices.len()];
        hash.permute(correlated.blocks(), &mut permuted);
        hash.hash_xor(&permuted, tweak, &mut out);
        Ok((out, message))
    }
}

impl CotSender {
    /// From `Δ`, the 128 seeds that its bits ([`Delta::choices`]) chose in base OTs, and the receiver's
    /// set-up message; `parameter` as the receiver has it.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::Arguments`], or [`Error::Length`] for the peer's message.
    pub fn new(delta: &Delta, seeds: Vec<Block>, parameter: usize, setup: &[u8]) -> Result<Self> {
        let leaves = grow_punctured(delta, seeds, parameter, setup)?;
        Ok(Self { streams: Streams::new(parameter, &leaves), delta: Zeroizing::new(delta.block()) })
    }

    /// The parameter it was made with.
    pub fn parameter(&self) -> usize {
        self.streams.parameter
    }

    /// One correlated OT for every element of `out`, from the receiver's message: `out[i] = K_i = M_i ^ c_i
    /// Δ`.
    ///
    /// # Errors
    /// [`Error::Length`] if the message is not of [`message_len`] bytes; then nothing has changed.
    pub fn extend(&mut self, message: &[u8], out: &mut Keys) -> Result<()> {
        let (Self { streams, delta }, out) = (self, out.blocks_mut());
        check_length("OT extension", message_len(out.len(), streams.parameter), message.len())?;
        let mut message = message.as_chunks().0.iter().map(|bytes| Block::from_bytes(*bytes));
        for out in out.chunks_mut(128 * LANES) {
            for tree in 0..streams.trees() {
                streams.fold(tree, 1);
                let mut masked = Row::ZERO;
                let blocks = message.by_ref().take(out.len().div_ceil(128));
                masked.0.iter_mut().zip(blocks).for_each(|(to, from)| *to = from);
                for bit in streams.rows(tree) {
                    let mask = Mask::of_bit((delta.0 >> bit) as u64, 0);
                    streams.tile[bit].xor_selected(&masked, mask);
                }
            }
            streams.emit(out);
        }
        Ok(())
    }

    /// `count` random OTs, from the receiver's message: pairs of which the receiver has the chosen ones.
    ///
    /// # Errors
    /// [`Error::Length`] if the message is not of [`message_len`] bytes; then nothing has changed.
    pub fn extend_random(&mut self, message: &[u8], count: usize) -> Result<Vec<[Block; 2]>> {
        // Before memory is allocated for as many as the peer claims.
        check_length("OT extension", message_len(count, self.streams.parameter), message.len())?;
        let tweak = first_tweak(self.streams.position);
        let mut correlated = Keys::zeros(count);
        self.extend(message, &mut correlated)?;
        let hash = random_ot_hash(message);
        let mut permuted = Zeroizing::new(vec![Block::ZERO; count]);
        let mut pairs = vec![[Block::ZERO; 2]; count];
        for (side, offset) in [Block::ZERO, *self.delta].into_iter().enumerate() {
            hash.permute_xor(correlated.blocks(), offset, &mut permuted);
            let mut out = Zeroizing::new(vec![Block::ZERO; count]);
            hash.hash_xor(&permuted, tweak, &mut out);
            pairs.iter_mut().zip(out.iter()).for_each(|(pair, out)| pair[side] = *out);
        }
        Ok(pairs)
    }
}

mod ratchet;
mod replay;
#[cfg(test)]
mod tests;

pub use ratchet::{ReceiverSeeds, SenderSeeds, WINDOW};
pub use replay::{Replay, Replaying};
