//! The random values one server contributes to a bundle: its parts of the masks and its shares of
//! other servers' products. All are drawn first, so that linear and non-linear preprocessing can run
//! side by side.

use rand_core::CryptoRng;
use seco_garble::convert::{Mask, Share};
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
    pub masks: Vec<Mask>,
    /// `s^me` towards every other holder, by layer, in the order of the holders: uniform mod `2^32`
    /// whatever the layer's width (a narrower one would leave high bits of `F·r` bare).
    pub shares: Vec<Vec<(usize, Share)>>,
    /// Sum of the above by layer, mod `2^k`: the server's word in the layer if it holds no weights,
    /// and a part of it if it does.
    pub words: Vec<Share>,
}

impl Draws {
    /// Draws everything.
    pub fn new(architecture: &Architecture, me: usize, rng: &mut impl CryptoRng) -> Draws {
        let graph = &architecture.graph;
        let masks = atoms(graph).map(|(len, width)| Mask::new(uniform(len, width as usize, rng))).collect();
        let mut draws = Draws { masks, shares: Vec::new(), words: Vec::new() };
        for layer in graph.layers() {
            let outputs = layer.geometry.outputs();
            let others = architecture.holders(layer.index).iter().filter(|&&h| h != me);
            let shares: Vec<_> = others.map(|&h| (h, Share::new(uniform(outputs, 32, rng)))).collect();
            let mut word = Share::zeros(outputs);
            shares.iter().for_each(|(_, share)| word.add(1, share));
            word.reduce(layer.width);
            draws.shares.push(shares);
            draws.words.push(word);
        }
        draws
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;
    use seco_model::graph::{Gather, Term};
    use seco_model::{Dense, Geometry, Graph, InputSpec, Node, Op, Placement};

    use super::*;

    /// A narrower mask would leave the top bits of what it hides bare, and every result as it is.
    #[test]
    fn masks_fill_their_width() {
        let node = |width, op| Node { name: "node".to_owned(), width, op };
        let geometry = Geometry::Dense(Dense { inputs: 300, outputs: 300 });
        let term = Term { value: 0, factor: 1, gather: Gather::All };
        let graph = Graph {
            name: "test".to_owned(),
            input: InputSpec::new(vec![300], 8),
            nodes: vec![
                node(11, Op::Relu { input: 0, shift: 0 }),
                node(17, Op::Public { terms: vec![term], constant: 0, len: 300 }),
                node(14, Op::Secret { input: 1, geometry }),
                node(23, Op::Relu { input: 3, shift: 1 }),
            ],
            outputs: Vec::new(),
        };
        let architecture =
            Architecture { graph, placements: vec![Placement::Shared(vec![0, 1])], servers: 3 };
        for me in 0..3 {
            let draws = Draws::new(&architecture, me, &mut ChaCha20Rng::seed_from_u64(me as u64));
            let all = |words: &[u32]| words.iter().fold(0, |all, word| all | word);
            let widths: Vec<u32> =
                draws.masks.iter().map(|mask| 32 - all(mask.words()).leading_zeros()).collect();
            // The input's is what its readers need, the widest of them.
            assert_eq!(widths, [17, 11, 23]);
            for (words, width) in draws.masks.iter().map(Mask::words).zip(widths) {
                assert_eq!(all(words), u32::MAX >> (32 - width), "every bit");
                let top = words.iter().filter(|&word| word >> (width - 1) == 1).count();
                assert!((100..=200).contains(&top), "a fair top bit: {top} of 300");
            }
            for (_, share) in &draws.shares[0] {
                assert_eq!(all(share.words()), u32::MAX);
            }
        }
    }
}
