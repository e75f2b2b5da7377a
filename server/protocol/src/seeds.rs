//! One seeded generator, handed down: everything a server draws in a job follows from one 32-byte
//! seed, so that a test is repeatable. In production the operating system gives the seed.

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// Independent generators and seeds from one seed.
pub struct Seeds(ChaCha20Rng);

impl Seeds {
    /// From the caller's seed.
    pub fn new(seed: [u8; 32]) -> Seeds {
        Seeds(ChaCha20Rng::from_seed(seed))
    }

    /// A fresh seed.
    pub fn next(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        seed
    }

    /// A fresh generator.
    pub fn rng(&mut self) -> ChaCha20Rng {
        ChaCha20Rng::from_seed(self.next())
    }
}
