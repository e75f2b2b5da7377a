//! The tweakable circular-correlation-robust hash `H(x, t) = π(π(x) ^ t) ^ π(x)` (Guo, Katz, Wang,
//! Yu 2020, eprint 2019/074) and its tweaks.
//!
//! `π` is AES-128 with a public key that is fresh for every bundle and chunk (multi-instance
//! attacks, eprint 2019/1168). `π(x)` is computed once per label and serves all targets.

use seco_ot::{FixedKey, Kernel, LANES};

/// A tweak's first lane; lane `i` of a slice has the tweak plus `i`. The fields do not overlap and
/// every (domain, step, gate or wire, side, pair, lane) occurs in one place of the program, so no tweak of a
/// bundle repeats: lanes are numbered through a step, gates through a circuit, steps through the
/// model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tweak(u128);

impl Tweak {
    const GARBLE: u128 = 1;
    const CROSS: u128 = 2;
    const CONVERT: u128 = 3;
    const PROJECT: u128 = 4;
    const INPUT: u128 = 5;

    fn new(domain: u128, step: u32, gate: usize, lane: u32, side: u128, pair: u128) -> Tweak {
        Tweak(
            domain << 120
                | u128::from(step & 0xff_ffff) << 88
                | side << 80
                | pair << 64
                | (gate as u128 & 0xffff_ffff) << 32
                | u128::from(lane),
        )
    }

    /// Garbling hash: `side` is 0 for the gate's first input, 1 for the second; `target` the garbler
    /// whose label it hides.
    pub fn garble(step: u32, gate: usize, lane: u32, side: usize, target: usize) -> Tweak {
        Self::new(Self::GARBLE, step, gate, lane, side as u128, target as u128)
    }

    /// Hash of the correlation behind the cross term of an ordered pair of garblers.
    pub fn cross(step: u32, gate: usize, lane: u32, sender: usize, receiver: usize) -> Tweak {
        Self::new(Self::CROSS, step, gate, lane, 0, ((sender << 8) | receiver) as u128)
    }

    /// Hash of the correlation of random wire `wire`, sender and receiver of which are seats (garblers by position,
    /// then the evaluator): words that make a bit's additive shares.
    pub fn convert(step: u32, wire: usize, lane: u32, sender: usize, receiver: usize) -> Tweak {
        Self::new(Self::CONVERT, step, wire, lane, 0, ((sender << 8) | receiver) as u128)
    }

    /// The same for the correlation of the mask of output wire `output`.
    pub fn convert_mask(step: u32, output: usize, lane: u32, sender: usize, receiver: usize) -> Tweak {
        Self::new(Self::CONVERT, step, output, lane, 1, ((sender << 8) | receiver) as u128)
    }

    /// Hash of a label of output wire `output` of one garbler, which hides entries of its projection.
    pub fn project(step: u32, output: usize, lane: u32, garbler: usize) -> Tweak {
        Self::new(Self::PROJECT, step, output, lane, 0, garbler as u128)
    }

    /// Hash of the correlation of bit `bit` of the device's input between two servers.
    pub fn input(bit: usize, lane: u32, sender: usize, receiver: usize) -> Tweak {
        Self::new(Self::INPUT, 0, bit, lane, 0, ((sender << 8) | receiver) as u128)
    }

    /// The 128-bit value for the first lane of vector `chunk`. Its low 32 bits are the lane, so those of the other
    /// lanes do not carry.
    #[inline(always)]
    pub(crate) fn vector(self, chunk: usize) -> u128 {
        self.0 + (chunk * LANES) as u128
    }
}

/// `H` over vectors of lanes. A trait so that a test can record every use.
pub trait Hash: Sync {
    /// Runs a computation that hashes.
    fn run<K: Kernel>(&self, kernel: K) -> K::Output;
}

impl Hash for FixedKey {
    fn run<K: Kernel>(&self, kernel: K) -> K::Output {
        FixedKey::run(self, kernel)
    }
}
