//! The random values one server contributes to a bundle: its parts of the masks and its shares of
//! other servers' products. All are drawn first, so that linear and non-linear preprocessing can run
//! side by side.

use rand_core::CryptoRng;
use seco_model::Architecture;
use zeroize::Zeroizing;

use crate::flow::atoms;

/// Uniform words of `width` bits.
pub fn uniform(count: usize, width: usize, rng: &mut impl CryptoRng) -> Zeroizing<Vec<u32>> {
    let mut words = Zeroizing::new(vec![0u32; count]);
    rng.fill_bytes(bytemuck::cast_slice_mut(&mut words));
    let mask = u32::MAX >> (32 - width.clamp(1, 32));
    words.iter_mut().for_each(|w| *w &= mask);
    words
}

/// One server's draws for one bundle.
pub struct Draws {
    /// `r^me` of every atom (the input, then the ReLUs in order), mod `2^κ`.
    pub masks: Vec<Zeroizing<Vec<u32>>>,
    /// `s^me` towards every other holder, by layer, in the order of the holders: uniform mod `2^32`
    /// whatever the layer's width (a narrower one would leave high bits of `F·r` bare).
    pub shares: Vec<Vec<(usize, Zeroizing<Vec<u32>>)>>,
    /// Sum of the above by layer, mod `2^k`: the server's word in the layer if it holds no weights,
    /// and a part of it if it does.
    pub words: Vec<Zeroizing<Vec<u32>>>,
}

impl Draws {
    /// Draws everything.
    pub fn new(architecture: &Architecture, me: usize, rng: &mut impl CryptoRng) -> Draws {
        let graph = &architecture.graph;
        let masks = atoms(graph).map(|(len, width)| uniform(len, width as usize, rng)).collect();
        let mut draws = Draws { masks, shares: Vec::new(), words: Vec::new() };
        for layer in graph.layers() {
            let outputs = layer.geometry.outputs();
            let others = architecture.holders(layer.index).iter().filter(|&&h| h != me);
            let shares: Vec<_> = others.map(|&h| (h, uniform(outputs, 32, rng))).collect();
            let mask = u32::MAX >> (32 - layer.width.clamp(1, 32));
            let mut word = Zeroizing::new(vec![0u32; outputs]);
            for (_, share) in &shares {
                word.iter_mut().zip(share.iter()).for_each(|(w, s)| *w = w.wrapping_add(*s) & mask);
            }
            draws.shares.push(shares);
            draws.words.push(word);
        }
        draws
    }
}
