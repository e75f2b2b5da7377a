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

use std::collections::BTreeMap;

use super::units::{common, integer, power_below};
use crate::graph::{Gather, Graph, Last, Node, Op, Output, Run, Term, ValueId};
use crate::real::{Linear, Origin, Real, RealOp, RealTerm};
use crate::{Error, FixedLayer, FixedModel, InputSpec};

/// Most fractional bits of an answer.
const FRACTION: i32 = 31;

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

/// A value of the integer graph and what its integers are worth.
#[derive(Clone, Copy)]
struct Scaled {
    value: ValueId,
    scale: f64,
}

/// What is known backwards of a value: from what reads it.
#[derive(Clone, Copy, Default)]
struct Wish {
    /// The coarsest scale that serves the layers that read it.
    scale: Option<f64>,
    /// Whether it meets values of another origin in a sum, so that a power of two serves best.
    power: bool,
    /// How many nodes and outputs read it.
    readers: usize,
}

/// The integer graph of a network whose input is `input`, with all widths 32, and what an integer of each of its values
/// is worth, where that is known. `ranges` is by value.
///
/// # Errors
/// [`Error::Node`] for a layer whose numbers are beyond all integers.
pub fn build(
    real: &Real,
    input: &InputSpec,
    ranges: &[Interval],
    precision: Precision,
) -> Result<(FixedModel, Vec<Option<f64>>), Error> {
    let mut build = Build {
        real,
        ranges,
        precision,
        wishes: wishes(real, ranges, precision),
        made: vec![None; real.nodes.len() + 1],
        nodes: Vec::new(),
        layers: Vec::new(),
        known: BTreeMap::new(),
    };
    build.made[0] = Some(Scaled { value: 0, scale: 1.0 });
    for number in 0..real.nodes.len() {
        build.node(number)?;
    }
    let outputs = build.answer()?;
    let mut scales = vec![None; build.nodes.len() + 1];
    for made in build.made.iter().flatten() {
        scales[made.value] = Some(made.scale);
    }
    if let (Some(last), Some(output)) = (scales.last_mut(), outputs.first()) {
        *last = Some(output.scale);
    }
    let graph = Graph { name: real.name.clone(), input: input.clone(), nodes: build.nodes, outputs };
    let model = FixedModel { graph, layers: build.layers, known: build.known };
    model.check()?;
    Ok((model, scales))
}

/// What readers wish of every value.
fn wishes(real: &Real, ranges: &[Interval], precision: Precision) -> Vec<Wish> {
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
                for &source in &sources {
                    let made_by_layer =
                        source.checked_sub(1).is_some_and(|n| matches!(real.nodes[n].op, RealOp::Linear(_)));
                    let wish = &mut wishes[source];
                    wish.readers += 1;
                    wish.power |= (sources.len() > 1 && !made_by_layer) || (own.power && exact_power(terms));
                }
                if masked[number + 1] {
                    for term in terms {
                        finer(
                            &mut wishes[term.value],
                            own.scale.map(|scale| scale / term.factor.abs().max(1e-30)),
                        );
                    }
                }
            }
        }
    }
    wishes
}

/// Whether a node is a single term with a power of two as its factor.
fn exact_power(terms: &[RealTerm]) -> bool {
    matches!(terms, [term] if term.factor != 0.0 && term.factor.abs() == power_below(term.factor.abs()))
}

pub(super) struct Build<'a> {
    real: &'a Real,
    ranges: &'a [Interval],
    precision: Precision,
    wishes: Vec<Wish>,
    /// By value of the network; none for a layer that nothing has read yet.
    made: Vec<Option<Scaled>>,
    nodes: Vec<Node>,
    layers: Vec<FixedLayer>,
    known: BTreeMap<ValueId, (i64, i64)>,
}

impl Build<'_> {
    /// Remembers what a value can be, which no arithmetic of ranges would find out.
    pub(super) fn know(&mut self, value: ValueId, least: i64, most: i64) {
        self.known.insert(value, (least, most));
    }

    pub(super) fn push(&mut self, origin: &Origin, op: Op) -> ValueId {
        self.nodes.push(Node { name: origin.name.clone(), width: 32, op });
        self.nodes.len()
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
                // A floor shift of any value: not negative with a public constant added, and the constant taken off
                // again. Twice what the calibration saw, for inputs beyond it.
                let low = self.ranges.get(*input).map_or(0.0, |range| range.0);
                let units = (-low * 2.0 / scale).max(0.0).ceil();
                let constant = if units > 0.0 { 2.0 * power_below(units) } else { 0.0 };
                let large = || node.origin.error("its values are beyond all integers: choose fewer bits");
                let lifted = integer(constant * 2f64.powi(shift as i32)).ok_or_else(large)?;
                let value = self.rounded(&node.origin, from.value, shift, lifted, false)?;
                let relu = self.push(&node.origin, Op::Relu { input: value, shift });
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
        let layer = self.nodes.iter().take(value).filter(|node| matches!(node.op, Op::Secret { .. })).count();
        let last = value.checked_sub(1).and_then(|node| self.nodes.get_mut(node)).map(|node| &mut node.op);
        match last {
            Some(Op::Secret { .. }) if alone => {
                let bias = layer.checked_sub(1).and_then(|layer| self.layers.get_mut(layer));
                bias.into_iter().flat_map(|layer| &mut layer.bias).for_each(|b| *b += i64::from(constant));
                Ok(value)
            }
            Some(Op::Public { constant: there, .. }) if alone => {
                *there = there.checked_add(constant).ok_or_else(large)?;
                Ok(value)
            }
            _ => {
                let len = self.len(value);
                let terms = vec![Term { value, factor: 1, gather: Gather::All }];
                Ok(self.push(origin, Op::Public { terms, constant, len }))
            }
        }
    }

    /// Length of a value of the integer graph.
    fn len(&self, value: ValueId) -> usize {
        let Some(node) = value.checked_sub(1) else { return self.real.input.iter().product() };
        match &self.nodes[node].op {
            Op::Secret { geometry, .. } => geometry.outputs(),
            Op::Public { len, .. } => *len,
            Op::Relu { input, .. } => self.len(*input),
        }
    }

    /// The coarsest scale of a layer that keeps its weights' bits, a power of two.
    fn fine(&self, layer: &Linear) -> Result<f64, Error> {
        let input = self.made[layer.input].map_or(1.0, |made| made.scale);
        let largest = layer.weights.iter().fold(0f64, |most, w| most.max(w.abs()));
        // A layer of zeros, or of weights that are dwarfed by its biases, is as fine as its biases.
        let bias = layer.bias.iter().fold(0f64, |most, b| most.max(b.abs()));
        let unit = match largest * input {
            0.0 if bias == 0.0 => 1.0,
            0.0 => bias * 2f64.powi(-16),
            weight => weight,
        };
        Ok(power_below(unit * 2f64.powi(1 - self.precision.weight as i32)))
    }

    /// A value with its scale. A layer that nothing has read so far gets one that is not coarser than `wish`.
    fn ready(&mut self, value: ValueId, wish: Option<f64>) -> Result<Scaled, Error> {
        match self.made[value] {
            Some(made) => Ok(made),
            None => {
                let layer = self.free(value).ok_or_else(missing)?;
                let fine = self.fine(layer)?;
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
        let weights = layer.weights.iter().map(|w| round(w * factor, 31).map(|w| w as i32));
        let weights = weights.collect::<Option<_>>().ok_or_else(large)?;
        let bias =
            layer.bias.iter().map(|b| round(b / scale, 40)).collect::<Option<_>>().ok_or_else(large)?;
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
                scales.push(build.fine(layer)? * power_below(term.factor.abs().max(1e-30)));
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
                let fine = free.unwrap_or(1.0);
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
                    let fine = self.fine(layer)?.clamp(2f64.powi(-FRACTION), 1.0);
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
        let alone =
            matches!(&terms[..], [Term { value, factor: 1, .. }] if *value == self.nodes.len() && *value > 0);
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
