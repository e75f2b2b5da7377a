//! What an integer of every value is worth, and the integer graph that follows.
//!
//! A value's *scale* `σ` is what one of its integers is worth: `real = integer · σ`. A layer can make any scale, for its
//! weights are rounded to multiples of `σ_out / σ_in`; a ReLU multiplies its by a power of two, by its shift; a sum of
//! several values needs their scales to be integers apart. So divisors of means, factors of normalisation and the like
//! cost nothing and are exact: they become part of a scale. Where values of different origin meet in a sum (a residual
//! connection), the layers before it make scales that fit, and only what no layer makes is approximated by integers.
//!
//! Two numbers of bits decide how fine everything is: the largest weight of a layer has `weight` bits and a sign, and the
//! largest activation that a layer reads `activation` bits.

use super::Goal;
use super::moments::Moments;
use super::rounding::{Read, rounded};
use super::units::{common, integer, power_below};
use super::wishes::{Wish, wishes};
use crate::graph::{Gather, Graph, Last, Node, Op, Output, Run, Term, ValueId};
use crate::real::{Linear, Origin, Real, RealOp, RealTerm};
use crate::width::{Reach, reach, signed_width};
use crate::{Error, FixedLayer, FixedModel, InputSpec, Known, WidthRule};

/// Most fractional bits of an answer.
const FRACTION: i32 = 31;
/// Bits that the biases of a layer may take, apart from the sign: a layer whose weights are so small beside them that their
/// own bits would need more is coarser. It leaves the sums three bits for all else.
const BIAS_BITS: i32 = 28;
/// Bits that the largest sum of a layer may take, apart from its sign and as far as the calibration saw it: where more bits
/// are tried than rings have room for, that layer alone is coarser, unless the bits are given.
const SUM_BITS: i32 = 29;

/// How fine a model's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// Bits of the largest weight of a layer, apart from its sign.
    pub weight: u32,
    /// Bits of the largest activation that a layer reads.
    pub activation: u32,
}

/// Least and largest of a value over the calibration's inputs.
pub type Interval = (f64, f64);

/// How weights are rounded.
pub(super) struct Rounding<'a> {
    /// What is known of the layers' inputs.
    pub moments: &'a Moments,
    /// By node, the gains of the channels that a layer reads.
    pub gains: Vec<Vec<f64>>,
}

/// A value of the integer graph and what its integers are worth.
#[derive(Clone, Copy)]
struct Scaled {
    value: ValueId,
    scale: f64,
}

/// The integer graph of a network whose input is `input`, with all widths 32. `ranges` is by value; `rounding` tells what
/// weights are rounded for, if not to nearest. Of the goal its widths count ([`WidthRule::Worst`]:
/// shifts are right for all inputs), and whether bits are given.
///
/// # Errors
/// [`Error::Node`] for a layer whose numbers are beyond all integers, [`Error::Width`] for a shift whose are.
pub fn build(
    real: &Real,
    input: &InputSpec,
    ranges: &[Interval],
    precision: Precision,
    goal: &Goal,
    rounding: Option<&Rounding<'_>>,
) -> Result<Built, Error> {
    let mut build = Build {
        real,
        rounding,
        ranges,
        precision,
        rule: goal.width,
        exact: goal.weight_bits.is_some(),
        wishes: wishes(real, ranges, precision),
        made: vec![None; real.nodes.len() + 1],
        graph: Graph {
            name: real.name.clone(),
            input: input.clone(),
            nodes: Vec::new(),
            outputs: Vec::new(),
        },
        layers: Vec::new(),
        compensated: Vec::new(),
        known: Known::default(),
        reaches: Vec::new(),
    };
    build.made[0] = Some(Scaled { value: 0, scale: 1.0 });
    for number in 0..real.nodes.len() {
        build.node(number)?;
    }
    let outputs = build.answer()?;
    let mut scales = vec![None; build.graph.nodes.len() + 1];
    for made in build.made.iter().flatten() {
        scales[made.value] = Some(made.scale);
    }
    if let (Some(last), Some(output)) = (scales.last_mut(), outputs.first()) {
        *last = Some(output.scale);
    }
    let graph = Graph { outputs, ..build.graph };
    let model = FixedModel { graph, layers: build.layers, known: build.known };
    model.check()?;
    Ok(Built { model, scales, compensated: build.compensated })
}

/// An integer network.
pub struct Built {
    /// With all widths 32.
    pub model: FixedModel,
    /// What an integer of each of its values is worth, where that is known.
    pub scales: Vec<Option<f64>>,
    /// By layer, whether its weights were rounded for what it makes.
    pub compensated: Vec<bool>,
}

pub(super) struct Build<'a> {
    real: &'a Real,
    rounding: Option<&'a Rounding<'a>>,
    ranges: &'a [Interval],
    precision: Precision,
    wishes: Vec<Wish>,
    /// By value of the network; none for a layer that nothing has read yet.
    made: Vec<Option<Scaled>>,
    rule: WidthRule,
    /// Whether weights have their bits whatever their sums need.
    exact: bool,
    /// What was made so far.
    graph: Graph,
    layers: Vec<FixedLayer>,
    compensated: Vec<bool>,
    known: Known,
    /// What the first values can be, for any input: as far as it was asked for.
    reaches: Vec<Reach>,
}

impl Build<'_> {
    /// Remembers what a value can be, which no arithmetic of ranges would find out.
    pub(super) fn know(&mut self, value: ValueId, least: i64, most: i64) {
        self.known.ranges.insert(value, (least, most));
    }

    pub(super) fn push(&mut self, origin: &Origin, op: Op) -> ValueId {
        self.graph.nodes.push(Node { name: origin.name.clone(), width: 32, op });
        self.graph.nodes.len()
    }

    /// What a value can be, for any input, in rings that hold it.
    fn reach(&mut self, value: ValueId) -> Reach {
        let secret = |node: &&Node| matches!(node.op, Op::Secret { .. });
        if self.reaches.is_empty() {
            self.reaches.push((0, self.graph.input.largest().into()));
        }
        let known = self.reaches.len() - 1;
        let mut layer = self.graph.nodes.iter().take(known).filter(secret).count();
        for node in self.graph.nodes.iter().take(value).skip(known) {
            let weights = self.layers.get(layer);
            layer += usize::from(secret(&node));
            let range =
                self.known.ranges.get(&self.reaches.len()).map(|&(low, high)| (low.into(), high.into()));
            self.reaches.push(range.unwrap_or_else(|| reach(&node.op, weights, None, &self.reaches)));
        }
        self.reaches.get(value).copied().unwrap_or((0, 0))
    }

    fn node(&mut self, number: usize) -> Result<(), Error> {
        let node = &self.real.nodes[number];
        let made = match &node.op {
            // Its scale follows from what reads it first.
            RealOp::Linear(_) => return Ok(()),
            RealOp::Scale { .. } => {
                return Err(node
                    .origin
                    .error("it is left where layers should have taken it up: report this file"));
            }
            RealOp::Public { terms, offset, len } => {
                self.sum(&node.origin, terms, *offset, *len, number + 1)?
            }
            RealOp::Relu { input } => {
                let from = self.ready(*input, self.wishes[number + 1].scale)?;
                let shift = self.shift(from.scale, number + 1);
                let alone = self.read_once(*input);
                let value = self.rounded(&node.origin, from.value, shift, 0, alone)?;
                Scaled {
                    value: self.push(&node.origin, Op::Relu { input: value, shift }),
                    scale: from.scale * 2f64.powi(shift as i32),
                }
            }
            RealOp::Round { input } => {
                let from = self.ready(*input, self.wishes[number + 1].scale)?;
                let shift = self.shift(from.scale, number + 1);
                let scale = from.scale * 2f64.powi(shift as i32);
                let constant = self.lift(from, shift, *input, &node.origin)?;
                let large = || node.origin.error("its values are beyond all integers: choose fewer bits");
                let lifted = integer(constant * 2f64.powi(shift as i32)).ok_or_else(large)?;
                let value = self.rounded(&node.origin, from.value, shift, lifted, false)?;
                let relu = self.push(&node.origin, Op::Relu { input: value, shift });
                self.known.lifted.insert(relu);
                let constant = integer(-constant).ok_or_else(large)?;
                let value = if constant == 0 {
                    relu
                } else {
                    let terms = vec![Term { value: relu, factor: 1, gather: Gather::All }];
                    let len = self.real.len(number + 1);
                    self.push(&node.origin, Op::Public { terms, constant, len })
                };
                Scaled { value, scale }
            }
        };
        self.made[number + 1] = Some(made);
        Ok(())
    }

    /// By how many units a value is lifted to be shifted, a floor shift of any value: not negative with a public constant
    /// added, which is taken off again. Twice what the calibration saw of it, for inputs beyond, or as much as any input
    /// needs, if that is less or is asked for.
    fn lift(&mut self, from: Scaled, shift: u32, input: ValueId, origin: &Origin) -> Result<f64, Error> {
        let low = self.ranges.get(input).map_or(0.0, |range| range.0);
        let units = (-low * 2.0 / (from.scale * 2f64.powi(shift as i32))).max(0.0).ceil();
        let seen = if units > 0.0 { 2.0 * power_below(units) } else { 0.0 };
        let (low, high) = self.reach(from.value);
        let worst = (-low).max(0) as f64 / 2f64.powi(shift as i32);
        let constant = if self.rule == WidthRule::Worst { worst.ceil() } else { seen.min(worst.ceil()) };
        if self.rule == WidthRule::Worst && integer(constant * 2f64.powi(shift as i32)).is_none() {
            // The constant itself may be what has no room.
            let needed = signed_width(low, high).max(33);
            return Err(Error::Width { layer: origin.name.clone(), needed });
        }
        Ok(constant)
    }

    /// Whether nothing but one node reads a value, by this name or another.
    fn read_once(&self, value: ValueId) -> bool {
        let node = value.checked_sub(1).and_then(|number| self.real.nodes.get(number));
        let same = |other: ValueId| match (self.made[value], self.made[other]) {
            (Some(a), Some(b)) => a.value == b.value,
            _ => false,
        };
        self.wishes[value].readers == 1
            && match node.map(|node| &node.op) {
                Some(RealOp::Public { terms, .. }) => match &terms[..] {
                    [term] if same(term.value) => self.read_once(term.value),
                    _ => true,
                },
                _ => true,
            }
    }

    /// Bits that a ReLU drops, for the scale that its readers wish.
    fn shift(&self, scale: f64, value: ValueId) -> u32 {
        let wish = self.wishes[value].scale.unwrap_or(scale);
        // A little more than a power of two is meant where divisions were rounded.
        ((wish / scale).log2() + 1e-9).floor().clamp(0.0, 29.0) as u32
    }

    /// A value with half a unit of the shift added, and `constant`: rounding to nearest. `alone` if nothing else reads
    /// it.
    fn rounded(
        &mut self,
        origin: &Origin,
        value: ValueId,
        shift: u32,
        constant: i32,
        alone: bool,
    ) -> Result<ValueId, Error> {
        let half = if shift > 0 { 1i32 << (shift - 1) } else { 0 };
        let large = || origin.error("its values are beyond all integers: choose fewer bits");
        let constant = constant.checked_add(half).ok_or_else(large)?;
        if constant == 0 {
            return Ok(value);
        }
        let before = self.graph.nodes.iter().take(value);
        let layer = before.filter(|node| matches!(node.op, Op::Secret { .. })).count();
        let last =
            value.checked_sub(1).and_then(|node| self.graph.nodes.get_mut(node)).map(|node| &mut node.op);
        match last {
            Some(Op::Secret { .. }) if alone => {
                let bias = layer.checked_sub(1).and_then(|layer| self.layers.get_mut(layer));
                bias.into_iter().flat_map(|layer| &mut layer.bias).for_each(|b| *b += i64::from(constant));
                self.reaches.truncate(value);
                Ok(value)
            }
            Some(Op::Public { constant: there, .. }) if alone => {
                *there = there.checked_add(constant).ok_or_else(large)?;
                self.reaches.truncate(value);
                Ok(value)
            }
            _ => {
                let len = self.graph.len(value);
                let terms = vec![Term { value, factor: 1, gather: Gather::All }];
                Ok(self.push(origin, Op::Public { terms, constant, len }))
            }
        }
    }

    /// The coarsest scale of a layer that keeps its weights' bits, a power of two. Biases beside which all that the
    /// weights make is small have [`BIAS_BITS`] at most, and the weights what is left.
    fn fine(&self, layer: &Linear, value: ValueId) -> Result<f64, Error> {
        let input = self.made[layer.input].map_or(1.0, |made| made.scale);
        let largest = layer.weights.iter().fold(0f64, |most, w| most.max(w.abs()));
        let bias = layer.bias.iter().fold(0f64, |most, b| most.max(b.abs()));
        // A layer of zeros is as fine as its biases.
        let unit = match largest * input {
            0.0 if bias == 0.0 => return Ok(power_below(2f64.powi(1 - self.precision.weight as i32))),
            0.0 => bias * 2f64.powi(-16),
            weight => weight,
        };
        let fine = power_below(unit * 2f64.powi(1 - self.precision.weight as i32));
        let (low, high) = self.ranges.get(layer.input).copied().unwrap_or((0.0, 0.0));
        let rows = layer.weights.chunks_exact(layer.geometry.fan_in().max(1));
        let sum = rows.map(|row| row.iter().map(|w| w.abs()).sum()).fold(0f64, f64::max);
        let dwarfed = bias > sum * low.abs().max(high.abs());
        let fine = if dwarfed { fine.max(2.0 * power_below(bias * 2f64.powi(-BIAS_BITS))) } else { fine };
        Ok(fine.max(self.coarse(value)))
    }

    /// The finest scale with which a value's numbers fit their ring, a power of two. The answers share one ring and scale.
    fn coarse(&self, value: ValueId) -> f64 {
        if self.exact {
            return 0.0;
        }
        let size =
            |value: ValueId| self.ranges.get(value).map_or(0.0, |(low, high)| low.abs().max(high.abs()));
        let outputs = || self.real.outputs.iter().map(|output| output.value);
        let largest = if outputs().any(|output| output == value) {
            outputs().map(size).fold(0.0, f64::max)
        } else {
            size(value)
        };
        if largest > 0.0 { 2.0 * power_below(largest * 2f64.powi(-SUM_BITS)) } else { 0.0 }
    }

    /// A value with its scale. A layer that nothing has read so far gets one that is not coarser than `wish`.
    fn ready(&mut self, value: ValueId, wish: Option<f64>) -> Result<Scaled, Error> {
        match self.made[value] {
            Some(made) => Ok(made),
            None => {
                let layer = self.free(value).ok_or_else(missing)?;
                let fine = self.fine(layer, value)?;
                let scale = wish.map_or(fine, |wish| fine.min(power_below(wish)));
                self.layer(value, scale)
            }
        }
    }

    /// The layer that makes a value, if it has no scale yet.
    fn free(&self, value: ValueId) -> Option<&Linear> {
        let node = self.real.nodes.get(value.checked_sub(1)?)?;
        match &node.op {
            RealOp::Linear(layer) if self.made[value].is_none() => Some(layer),
            _ => None,
        }
    }

    /// Rounds a layer to a scale.
    fn layer(&mut self, value: ValueId, scale: f64) -> Result<Scaled, Error> {
        let real = self.real;
        let node = value.checked_sub(1).and_then(|number| real.nodes.get(number)).ok_or_else(missing)?;
        let RealOp::Linear(layer) = &node.op else { return Err(missing()) };
        let input = self.made[layer.input].ok_or_else(missing)?;
        let round = |value: f64, bits: i32| {
            let rounded = value.round_ties_even();
            (rounded.abs() < 2f64.powi(bits)).then_some(rounded as i64)
        };
        let large = || node.origin.error("its numbers are beyond all integers: choose fewer bits");
        let factor = input.scale / scale;
        let target = || layer.weights.iter().map(|w| w * factor);
        let mut bias: Vec<f64> = layer.bias.iter().map(|b| b / scale).collect();
        let read = self.rounding.and_then(|rounding| {
            let inputs = rounding.moments.of(value - 1)?;
            let gains = rounding.gains.get(value - 1).map_or(&[][..], Vec::as_slice);
            Some(Read { inputs, gains, scale: input.scale })
        });
        let better = read.and_then(|read| rounded(layer, &target().collect::<Vec<_>>(), &read));
        self.compensated.push(better.is_some());
        let integer = |w: f64| round(w, 31).map(|w| w as i32);
        let weights: Option<Vec<i32>> = match better {
            Some(better) => {
                bias.iter_mut().zip(better.bias).for_each(|(bias, more)| *bias += more);
                better.weights.into_iter().map(integer).collect()
            }
            // The largest layers are not copied.
            None => target().map(integer).collect(),
        };
        let weights = weights.ok_or_else(large)?;
        let bias = bias.iter().map(|&b| round(b, 40)).collect::<Option<_>>().ok_or_else(large)?;
        self.layers.push(FixedLayer { weights, bias });
        let op = Op::Secret { input: input.value, geometry: layer.geometry.clone() };
        let made = Scaled { value: self.push(&node.origin, op), scale };
        self.made[value] = Some(made);
        Ok(made)
    }

    /// A public sum.
    fn sum(
        &mut self,
        origin: &Origin,
        terms: &[RealTerm],
        offset: f64,
        len: usize,
        value: ValueId,
    ) -> Result<Scaled, Error> {
        let wish = self.wishes[value];
        let large = || origin.error("its values are beyond all integers: choose fewer bits");
        // What reads the sum alone may tell how fine its layers must be.
        let finest = |build: &Self| {
            let free = terms.iter().filter_map(|term| Some((term, build.free(term.value)?)));
            let mut scales = Vec::new();
            for (term, layer) in free {
                scales.push(build.fine(layer, term.value)? * power_below(term.factor.abs().max(1e-30)));
            }
            Ok::<_, Error>(scales.into_iter().reduce(f64::min))
        };
        let free = finest(self)?;
        let fixed: Vec<f64> = terms
            .iter()
            .filter_map(|term| Some(term.factor.abs() * self.made[term.value]?.scale))
            .filter(|&worth| worth > 0.0)
            .collect();
        let mut scale = match (fixed.is_empty(), free) {
            (true, free) => {
                let fine = free.unwrap_or(1.0).max(self.coarse(value));
                wish.scale.map_or(fine, |wish| fine.min(power_below(wish)))
            }
            (false, None) => common(&fixed, wish.power),
            (false, Some(free)) => {
                let common = common(&fixed, wish.power);
                common * 2f64.powi((free / common).log2().floor().min(0.0) as i32)
            }
        };
        if !(scale.is_finite() && scale > 0.0) {
            scale = 1.0;
        }
        let mut made = Vec::with_capacity(terms.len());
        for term in terms {
            let worth = term.factor.abs();
            let from = match self.made[term.value] {
                Some(made) => made,
                None if worth > 0.0 => self.layer(term.value, scale / worth)?,
                None => self.ready(term.value, None)?,
            };
            let factor = integer((term.factor * from.scale / scale).round()).ok_or_else(large)?;
            made.push(Term { value: from.value, factor, gather: term.gather.clone() });
        }
        let constant = integer((offset / scale).round()).ok_or_else(large)?;
        // A relabelling of nothing needs no node.
        if let [Term { value, factor: 1, gather: Gather::All }] = made[..]
            && constant == 0
        {
            return Ok(Scaled { value, scale });
        }
        Ok(Scaled { value: self.push(origin, Op::Public { terms: made, constant, len }), scale })
    }

    /// The outputs one after the other as the last value, all at one scale: a power of two, at most 1.
    fn answer(&mut self) -> Result<Vec<Output>, Error> {
        let real = self.real;
        let mut scaled = Vec::with_capacity(real.outputs.len());
        for output in &real.outputs {
            scaled.push(match self.free(output.value) {
                Some(layer) => {
                    let fine = self.fine(layer, output.value)?.clamp(2f64.powi(-FRACTION), 1.0);
                    self.layer(output.value, fine)?
                }
                None => self.ready(output.value, None)?,
            });
        }
        // Of an index integers are left, whatever the scale of what it is found in.
        let mut lens: Vec<usize> = real.outputs.iter().map(|output| real.len(output.value)).collect();
        let mut shapes: Vec<Vec<usize>> = real.outputs.iter().map(|output| output.shape.clone()).collect();
        for (((output, made), len), shape) in
            real.outputs.iter().zip(&mut scaled).zip(&mut lens).zip(&mut shapes)
        {
            if output.last == Last::Index {
                let axis = shape.iter().rposition(|&size| size > 1);
                let count = axis.map_or(1, |axis| shape.remove(axis));
                let origin = Origin { name: output.name.clone(), op: "ArgMax".to_owned() };
                *len /= count;
                let value = self.index_of_largest(&origin, made.value, *len, count);
                // The only index of one value is 0.
                let value = if count > 1 { value } else { self.zero(&origin, value, *len) };
                *made = Scaled { value, scale: 1.0 };
            }
        }
        let total: usize = lens.iter().sum();
        let scales: Vec<f64> = scaled.iter().map(|made| made.scale).collect();
        let scale = common(&scales, true).clamp(2f64.powi(-FRACTION), 1.0);
        let (mut before, mut terms, mut outputs) = (0, Vec::new(), Vec::new());
        for (((output, made), len), shape) in real.outputs.iter().zip(scaled).zip(lens).zip(shapes) {
            let own = Run::Values { start: 0, step: 1, count: len as u32 };
            let zeros = [before, total - before - len].map(|count| Run::Zeros(count as u32));
            let runs = [zeros[0], own, zeros[1]].into_iter().filter(|run| run.count() > 0).collect();
            let gather = if len == total { Gather::All } else { Gather::Runs(runs) };
            before += len;
            let large = || Error::Shape("an answer of too many bits".to_owned());
            let factor = integer((made.scale / scale).round()).ok_or_else(large)?;
            terms.push(Term { value: made.value, factor, gather });
            outputs.push(Output { name: output.name.clone(), shape, scale, last: output.last });
        }
        let alone = matches!(&terms[..], [Term { value, factor: 1, .. }] if *value == self.graph.nodes.len() && *value > 0);
        if !alone {
            self.concatenate(terms, total);
        }
        Ok(outputs)
    }

    /// Zeros, of any value.
    fn zero(&mut self, origin: &Origin, value: ValueId, len: usize) -> ValueId {
        let gather = Gather::Runs(vec![Run::Zeros(len as u32)]);
        let terms = vec![Term { value, factor: 1, gather }];
        let zero = self.push(origin, Op::Public { terms, constant: 0, len });
        self.know(zero, 0, 0);
        zero
    }

    fn concatenate(&mut self, terms: Vec<Term>, len: usize) {
        let origin = Origin { name: "answer".to_owned(), op: String::new() };
        self.push(&origin, Op::Public { terms, constant: 0, len });
    }
}

fn missing() -> Error {
    Error::Shape("a network that reads what it has not made".to_owned())
}
