//! What one server keeps of a batch between preprocessing and the request (section 7 of PROTOCOL.md).

use seco_garble::convert::projection::Pads;
use seco_garble::convert::relu::ReluShares;
use seco_garble::convert::{Opening, Share};
use seco_garble::{InputBits, OnlineEvaluator, OnlineGarbler};
use seco_ot::Replay;

/// One server's part of a batch of a circuit.
pub struct CircuitPart {
    /// Garbler or evaluator.
    pub role: Role,
    /// What the answer is computed from.
    pub shares: ReluShares,
    /// Where this server has an online part of what is opened: its share of `ρ`, and, at the first such server, what
    /// those without one sent ahead.
    pub opening: Option<Opening>,
}

/// One server's role in a batch.
pub enum Role {
    /// It garbled the batch: the seed of its labels, and pads of its projection.
    Garbler(OnlineGarbler, Pads),
    /// It evaluates the batch, whose tables are in the spool. Its labels of the random wires begin at these positions
    /// of the links, by garbler.
    Evaluator(OnlineEvaluator, Vec<u64>),
}

/// One server's part of a batch of the input.
pub struct InputPart {
    /// Its `d^j`.
    pub mask: InputBits,
    /// Its shares of the XOR of all servers' `d`, by bit.
    pub shares: Vec<Share>,
}

/// The non-linear part of a bundle.
#[derive(Default)]
pub struct Parts {
    /// By batch.
    pub input: Vec<InputPart>,
    /// By step, by batch.
    pub steps: Vec<Vec<CircuitPart>>,
    /// What the evaluator's labels come from, by server; none at this one.
    pub links: Vec<Option<Replay>>,
}
