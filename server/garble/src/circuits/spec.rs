//! Which circuit stands behind which layer, and who feeds its input words.

use super::{input, relu};
use crate::gates::Count;
use crate::program::{Compiler, Mask, Program, Source};

/// A non-linear step of the protocol, as public to all servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// The device's input under new masks.
    Input {
        /// Bits of one input value.
        bits: usize,
        /// Width `κ` of the new masks.
        mask_width: usize,
    },
    /// ReLU behind a linear layer.
    Relu {
        /// Width `k` of the layer's ring.
        width: usize,
        /// Bits dropped before the ReLU.
        shift: usize,
        /// Width `κ` of the new masks.
        mask_width: usize,
        /// Servers whose word is known online, in increasing order.
        holders: Vec<usize>,
    },
}

/// A circuit compiled for one cluster and one evaluator.
///
/// Input words stand in this order. [`Spec::Input`]: the folded word (online, everyone masks it),
/// the evaluator's `ρ` (choice), the mask of every garbler in increasing order (ahead).
/// [`Spec::Relu`]: the word of every server in increasing order, then the mask of every garbler.
/// A server's word is, for a garbler, ahead or (a holder) online; for the evaluator, choice or (a
/// holder) `ρ`, choice, followed by the public correction, online.
#[derive(Clone, Debug)]
pub struct Circuit {
    /// The flat program.
    pub program: Program,
    /// The evaluator's index in the cluster.
    pub evaluator: usize,
    /// Number of servers.
    pub servers: usize,
}

impl Circuit {
    /// Compiles a step for `servers` servers of which `evaluator` evaluates.
    pub fn compile(spec: &Spec, servers: usize, evaluator: usize) -> Circuit {
        let mut compiler = Compiler::default();
        let garblers = servers - 1;
        let position = |server: usize| if server < evaluator { server } else { server - 1 };
        let outputs = match spec {
            Spec::Input { bits, mask_width } => {
                let folded = compiler.word(Source::Online(Mask::All), *bits);
                let random = compiler.word(Source::Choice, *bits);
                let masks: Vec<_> =
                    (0..garblers).map(|g| compiler.word(Source::Ahead(g), *mask_width)).collect();
                input(&mut compiler, &folded, &random, &masks)
            }
            Spec::Relu { width, shift, mask_width, holders } => {
                let (mut ahead, mut online) = (Vec::new(), Vec::new());
                for server in 0..servers {
                    match (holders.contains(&server), server == evaluator) {
                        (false, true) => ahead.push(compiler.word(Source::Choice, *width)),
                        (false, false) => {
                            ahead.push(compiler.word(Source::Ahead(position(server)), *width));
                        }
                        (true, false) => {
                            let source = Source::Online(Mask::One(position(server)));
                            online.push(compiler.word(source, *width));
                        }
                        (true, true) => {
                            let random = compiler.word(Source::Choice, *width);
                            let correction = compiler.word(Source::Online(Mask::None), *width);
                            online.push(super::word::xor(&mut compiler, &random, &correction));
                        }
                    }
                }
                let masks: Vec<_> =
                    (0..garblers).map(|g| compiler.word(Source::Ahead(g), *mask_width)).collect();
                ahead.append(&mut online);
                relu(&mut compiler, &ahead, &masks, *shift)
            }
        };
        Circuit { program: compiler.finish(&outputs), evaluator, servers }
    }

    /// AND gates of one lane of a step, without compiling it.
    pub fn and_gates(spec: &Spec, servers: usize) -> usize {
        let mut count = Count::default();
        let garblers = servers.saturating_sub(1);
        match spec {
            Spec::Input { bits, mask_width } => {
                let masks = vec![vec![(); *mask_width]; garblers];
                input(&mut count, &vec![(); *bits], &vec![(); *bits], &masks);
            }
            Spec::Relu { width, shift, mask_width, .. } => {
                let masks = vec![vec![(); *mask_width]; garblers];
                relu(&mut count, &vec![vec![(); *width]; servers], &masks, *shift);
            }
        }
        count.ands
    }

    /// Number of garblers.
    pub fn garblers(&self) -> usize {
        self.servers - 1
    }

    /// A server's position among the garblers, in increasing order; none for the evaluator.
    pub fn position(&self, server: usize) -> Option<usize> {
        match server.cmp(&self.evaluator) {
            std::cmp::Ordering::Less => Some(server),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(server - 1),
        }
    }

    /// The server at a garbler's position.
    pub fn server(&self, position: usize) -> usize {
        if position < self.evaluator { position } else { position + 1 }
    }
}
