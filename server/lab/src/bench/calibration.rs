//! What this machine can do at most, so that figures of different machines can be compared.

use std::hint::black_box;
use std::time::{Duration, Instant};

use seco_node::keys;
use seco_ot::{Block, FixedKey};
use serde_json::{Value, json};

use crate::Error;

const BLOCKS: usize = 1 << 10;
const BYTES: usize = 1 << 26;
const LONG_ENOUGH: Duration = Duration::from_millis(150);

/// Rates of one thread.
pub struct Calibration {
    /// Fixed-key AES in the first-level cache, the kernel that garbling uses.
    aes_blocks_per_s: f64,
    /// Copying 64 MiB to memory that is there.
    copy_bytes_per_s: f64,
}

impl Calibration {
    /// Takes half a second.
    pub fn measure() -> Result<Self, Error> {
        let mut key = [0; 16];
        keys::random(&mut key)?;
        let hash = FixedKey::new(key);
        let (mut blocks, mut out) = (vec![Block::ZERO; BLOCKS], vec![Block::ZERO; BLOCKS]);
        let aes = rate(|| {
            hash.permute(&blocks, &mut out);
            std::mem::swap(&mut blocks, &mut out);
            black_box(&mut blocks);
            BLOCKS
        });
        let (from, mut to) = (vec![1u8; BYTES], vec![2u8; BYTES]);
        let copy = rate(|| {
            to.copy_from_slice(black_box(&from));
            black_box(&mut to);
            BYTES
        });
        Ok(Self { aes_blocks_per_s: aes, copy_bytes_per_s: copy })
    }

    pub fn json(&self) -> Value {
        json!({ "aes_blocks_per_s": self.aes_blocks_per_s, "copy_bytes_per_s": self.copy_bytes_per_s })
    }

    pub fn table(&self) -> String {
        format!(
            "this machine, one thread: {:.0} M AES blocks per second, copies {:.1} GB per second\n",
            self.aes_blocks_per_s / 1e6,
            self.copy_bytes_per_s / 1e9
        )
    }
}

/// Units per second of what `work` does, which says how many those were.
fn rate(mut work: impl FnMut() -> usize) -> f64 {
    work();
    let (start, mut units) = (Instant::now(), 0);
    while start.elapsed() < LONG_ENOUGH {
        units += work();
    }
    units as f64 / start.elapsed().as_secs_f64()
}
