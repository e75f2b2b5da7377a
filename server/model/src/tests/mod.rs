//! Tests of the whole crate.

mod calibration;
mod files;
mod folding;
mod graphs;
mod hostile;
mod parts;
mod products;
mod samples;
mod stored;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// A repeatable generator.
pub fn generator(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// A number from `low` to `high`, both included.
pub fn pick(rng: &mut ChaCha20Rng, low: usize, high: usize) -> usize {
    low + rng.next_u32() as usize % (high - low + 1)
}

/// A weight between -1 and 1.
pub fn weight(rng: &mut ChaCha20Rng) -> f32 {
    (rng.next_u32() as f32 / u32::MAX as f32) * 2.0 - 1.0
}
