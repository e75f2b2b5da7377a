//! What is known of a value's scale before it is made: from what reads it.

use super::scales::{Interval, Precision};
use super::units::{power_below, share_a_power};
use crate::graph::{Gather, ValueId};
use crate::real::{Linear, Real, RealOp, RealTerm};

/// What is known backwards of a value: from what reads it.
#[derive(Clone, Copy, Default)]
pub(super) struct Wish {
    /// The coarsest scale that serves the layers that read it.
    pub scale: Option<f64>,
    /// Whether it meets values of another unit in a sum, so that a power of two serves best.
    pub power: bool,
    /// How many nodes and outputs read it.
    pub readers: usize,
}

/// Bits of an answer beyond those of an activation, where each makes a sum wider.
const ANSWER_BITS: i32 = 4;

/// Values of a sum that are so many that their rounding adds up: a pool over a whole plane, behind which little is left.
const MANY: usize = 16;

fn factors(terms: &[RealTerm]) -> impl Iterator<Item = f64> + Clone + '_ {
    terms.iter().map(|term| term.factor.abs()).filter(|&factor| factor > 0.0)
}

/// What readers wish of every value.
pub(super) fn wishes(real: &Real, ranges: &[Interval], precision: Precision) -> Vec<Wish> {
    let mut wishes = vec![Wish::default(); real.nodes.len() + 1];
    for output in &real.outputs {
        // All of the answer has one scale, a power of two.
        let wish = &mut wishes[output.value];
        wish.readers += 1;
        wish.power = true;
    }
    let finer = |wish: &mut Wish, scale: Option<f64>| {
        wish.scale = match (wish.scale, scale) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    };
    let masked = real.masked();
    let units = units(real);
    for (number, node) in real.nodes.iter().enumerate().rev() {
        let own = wishes[number + 1];
        match &node.op {
            RealOp::Linear(Linear { input, .. }) => {
                let (low, high) = ranges.get(*input).copied().unwrap_or((0.0, 1.0));
                let largest = low.abs().max(high.abs());
                let scale = if largest > 0.0 { 2.0 * power_below(largest * 0.999_999) } else { 1.0 };
                let wish = &mut wishes[*input];
                finer(wish, Some(scale * 2f64.powi(-(precision.activation as i32))));
                wish.readers += 1;
            }
            RealOp::Relu { input } | RealOp::Round { input } => {
                let wish = &mut wishes[*input];
                wish.power |= own.power;
                wish.readers += 1;
            }
            RealOp::Scale { input, .. } => wishes[*input].readers += 1,
            RealOp::Public { terms, .. } => {
                let mut sources: Vec<ValueId> = terms.iter().map(|term| term.value).collect();
                sources.sort_unstable();
                sources.dedup();
                let mut met = sources.iter().filter_map(|&source| units[source]);
                let one = met.next().is_none_or(|first| met.all(|other| other == first));
                for &source in &sources {
                    let wish = &mut wishes[source];
                    wish.readers += 1;
                    wish.power |= !one && units[source].is_some() || (own.power && exact_power(terms));
                }
                if masked[number + 1] {
                    // Of what only the device reads, with factors that no power of two has in common, integers many times as
                    // large are made: what is finer than is worth that goes in front.
                    let rough = own.power && terms.len() > 1 && !share_a_power(factors(terms));
                    let answered = || {
                        let (low, high) = ranges.get(number + 1).copied().unwrap_or((0.0, 1.0));
                        let largest = low.abs().max(high.abs());
                        let bits = precision.activation as i32 + ANSWER_BITS;
                        (rough && largest > 0.0).then(|| 2.0 * power_below(largest) * 2f64.powi(-bits))
                    };
                    let scale = own.scale.or_else(answered);
                    for term in terms {
                        let worth = term.factor.abs().max(1e-30) * roughness(&term.gather);
                        finer(&mut wishes[term.value], scale.map(|scale| scale / worth));
                    }
                }
            }
        }
    }
    wishes
}

/// How many times as rough a sum over a large window is as one of its values, each rounded by itself: the square root of
/// their number, as a power of two. Sums of fewer than [`MANY`] are not made finer: the layers behind them would be wider.
fn roughness(gather: &Gather) -> f64 {
    match gather.most_summed() {
        count if count >= MANY => power_below((count as f64).sqrt()),
        _ => 1.0,
    }
}

/// By value, which unit its scale is a power of two of: 0 for one, or the value that brought the unit in. A layer takes any
/// that its readers like.
fn units(real: &Real) -> Vec<Option<ValueId>> {
    let mut units = vec![Some(0)];
    for (number, node) in real.nodes.iter().enumerate() {
        units.push(match &node.op {
            RealOp::Linear(_) | RealOp::Scale { .. } => None,
            RealOp::Relu { input } | RealOp::Round { input } => units[*input].or(Some(0)),
            RealOp::Public { terms, .. } => {
                let powers = terms.iter().all(|term| term.factor.abs() == power_below(term.factor.abs()));
                let mut read = terms.iter().filter_map(|term| units[term.value]);
                let first = read.next().unwrap_or(0);
                Some(if powers && read.all(|other| other == first) { first } else { number + 1 })
            }
        });
    }
    units
}

/// Whether a node is a single term with a power of two as its factor.
fn exact_power(terms: &[RealTerm]) -> bool {
    matches!(terms, [term] if term.factor != 0.0 && term.factor.abs() == power_below(term.factor.abs()))
}
