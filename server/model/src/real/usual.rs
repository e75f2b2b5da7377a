//! A network with weights of usual sizes, for what it costs where its own are of no use.

use super::{Real, RealOp};

impl Real {
    /// The network with other weights: small numbers of either sign, in every layer of a size that keeps values as large as
    /// they are. Always the same.
    pub fn with_usual_weights(mut self) -> Real {
        let mut state = 0u64;
        // SplitMix64, whose upper bits are as good as random.
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed >> 32) as f64 / f64::from(1u32 << 31) - 1.0
        };
        for node in &mut self.nodes {
            if let RealOp::Linear(layer) = &mut node.op {
                let most = (6.0 / layer.geometry.fan_in().max(1) as f64).sqrt();
                layer.weights.iter_mut().for_each(|weight| *weight = most * next());
                layer.bias.fill(0.0);
            }
        }
        self
    }
}
