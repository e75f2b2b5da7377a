//! Channel equalisation: channels that go unused in part are made to use all of their range.
//!
//! `max(0, g·x) = g·max(0, x)` for `g > 0`, and sums and gathers do the same. So the rows of a layer that make a channel can
//! be multiplied by `g`, and the columns of the layers that read it divided by `g`, and the network is the same; with `g` a
//! power of two it is the same to the last bit, also in floating point. All weights of a layer and all values have one
//! unit each, so that a layer whose rows differ a hundredfold (depthwise convolutions, folded normalisation) has two digits
//! less for its smallest rows; equalised it has not.
//!
//! Places of values that must have the same gain are found by union: a value and its ReLU, all terms of a sum, all places
//! of a channel that a convolution makes or reads. The gain is 1 for the network's input, its answers, and where a constant
//! is added.
//!
//! Gains are in the weights alone, and no plan has them. But they follow from the weights of all layers that make or read a
//! channel, and whoever sees a layer's weights would see them: so the gain is 1 where one server has such a layer in clear.
//! Shares of weights tell nothing, whatever these are.

use super::Interval;
use crate::Geometry;
use crate::real::{Linear, Real, RealNode, RealOp};

/// Most numbers of all values together, most groups of them, and most steps of sums and layers.
const MAX_PLACES: usize = 1 << 23;
const MAX_GROUPS: usize = 1 << 20;
const MAX_STEPS: usize = 1 << 28;
/// Largest gain and its inverse, in bits.
const MAX_BITS: f64 = 10.0;
/// Rounds in which gains by weights settle.
const ROUNDS: usize = 12;

/// What gains are chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The largest weight that makes a channel is as large as the largest that reads it.
    Weights,
    /// The largest value of a channel is nearly that of the whole value.
    Values,
}

/// Which places of a network's values have the same gain. Those of one value are a group.
pub(super) struct Channels {
    /// Where a value's groups begin, by value, and the end of the last.
    starts: Vec<usize>,
    /// By value, the group of each of its numbers, counted from its first; empty where there is one group.
    groups: Vec<Vec<u32>>,
    /// By group, what it has its gain in common with.
    class: Vec<u32>,
    count: usize,
}

/// The class whose gain is 1.
const FIXED: u32 = 0;

impl Channels {
    /// Of a network, of whose nodes those that are `clear` are layers that one server has in clear: one gain for all if it is
    /// too large.
    pub(super) fn new(real: &Real, clear: &[bool]) -> Channels {
        Channels::found(real, clear).unwrap_or_else(|| Channels::whole(real))
    }

    /// Of a network that is left as it is.
    pub(super) fn whole(real: &Real) -> Channels {
        let values = real.nodes.len() + 1;
        let groups = vec![Vec::new(); values];
        Channels { starts: (0..=values).collect(), groups, class: vec![FIXED; values], count: 1 }
    }

    fn found(real: &Real, clear: &[bool]) -> Option<Channels> {
        let read = real.nodes.iter().map(|node| match &node.op {
            RealOp::Linear(layer) => layer.geometry.inputs(),
            _ => 0,
        });
        let steps = read.fold(real.additions(), usize::saturating_add);
        let mut ends = vec![0usize];
        for len in real.lens() {
            ends.push(ends.last()?.saturating_add(len));
        }
        let total = *ends.last()?;
        if total > MAX_PLACES || steps > MAX_STEPS {
            return None;
        }
        let sets = joined(real, &ends, total, clear);
        let (class, count) = sets.classes(total);
        let mut made = Channels { starts: vec![0], groups: Vec::new(), class: Vec::new(), count };
        let mut group = vec![u32::MAX; count];
        for value in ends.windows(2) {
            let (&[from, to], first) = (value, made.class.len()) else { continue };
            let of_value = class.get(from..to)?;
            let mut groups = Vec::with_capacity(of_value.len());
            for &class in of_value {
                let group = group.get_mut(class as usize)?;
                if *group == u32::MAX {
                    *group = (made.class.len() - first) as u32;
                    made.class.push(class);
                }
                groups.push(*group);
            }
            for &class in made.class.get(first..)? {
                *group.get_mut(class as usize)? = u32::MAX;
            }
            let single = made.class.len() == first + 1;
            if made.class.len() > MAX_GROUPS {
                return None;
            }
            made.groups.push(if single { Vec::new() } else { groups });
            made.starts.push(made.class.len());
        }
        Some(made)
    }

    /// Ranges of no numbers, one for every group.
    pub(super) fn none(&self) -> Vec<Interval> {
        vec![(0.0, 0.0); self.class.len()]
    }

    /// Widens the ranges of a value's groups by its numbers.
    pub(super) fn see(&self, value: usize, numbers: &[f64], ranges: &mut [Interval]) {
        let (Some(groups), Some(&start)) = (self.groups.get(value), self.starts.get(value)) else { return };
        let Some(ranges) = ranges.get_mut(start..) else { return };
        let wider = |(low, high): Interval, x: f64| (low.min(x), high.max(x));
        if groups.is_empty() {
            if let Some(range) = ranges.first_mut() {
                *range = numbers.iter().fold(*range, |range, &x| wider(range, x));
            }
            return;
        }
        for (&group, &x) in groups.iter().zip(numbers) {
            if let Some(range) = ranges.get_mut(group as usize) {
                *range = wider(*range, x);
            }
        }
    }

    /// The range of every value, its groups having those and, where they are given, gains of so many bits by class.
    pub(super) fn ranges(&self, groups: &[Interval], bits: Option<&[i32]>) -> Vec<Interval> {
        let of_group = |at: usize| {
            let (low, high) = groups.get(at).copied().unwrap_or((0.0, 0.0));
            let gain =
                bits.map_or(1.0, |bits| gain(bits, self.class.get(at).map_or(0, |&class| class as usize)));
            (low * gain, high * gain)
        };
        let of_value = |ends: &[usize]| {
            let (from, to) = (ends.first().copied().unwrap_or(0), ends.last().copied().unwrap_or(0));
            (from..to).map(of_group).fold((0f64, 0f64), |(low, high), (l, h)| (low.min(l), high.max(h)))
        };
        self.starts.windows(2).map(of_value).collect()
    }

    /// The class of a number of a value.
    fn of(&self, value: usize, at: usize) -> usize {
        let group = self.groups.get(value).and_then(|groups| groups.get(at)).copied().unwrap_or(0);
        let start = self.starts.get(value).copied().unwrap_or(0);
        self.class.get(start + group as usize).map_or(0, |&class| class as usize)
    }
}

/// `2^bits` of a class.
fn gain(bits: &[i32], class: usize) -> f64 {
    bits.get(class).map_or(1.0, |&bits| f64::from(bits).exp2())
}

/// The places that have the same gain. `ends` are where values begin and end; place `fixed` stands for a gain of 1.
fn joined(real: &Real, ends: &[usize], fixed: usize, clear: &[bool]) -> Sets {
    let mut sets = Sets::new(fixed + 1);
    let place = |value: usize, at: usize| ends.get(value).map_or(fixed, |start| start + at);
    let fix = |sets: &mut Sets, value: usize| {
        (place(value, 0)..place(value + 1, 0)).for_each(|at| sets.join(at, fixed));
    };
    fix(&mut sets, 0);
    real.outputs.iter().for_each(|output| fix(&mut sets, output.value));
    for (number, node) in real.nodes.iter().enumerate() {
        let own = number + 1;
        if clear.get(number) == Some(&true) {
            fix(&mut sets, own);
            node.op.inputs().for_each(|input| fix(&mut sets, input));
        }
        match &node.op {
            RealOp::Linear(Linear { input, geometry: Geometry::Conv(conv), .. }) => {
                let [channels, height, width] = conv.output();
                sets.join_chunks(place(own, 0), channels, height * width);
                let [channels, height, width] = conv.input;
                sets.join_chunks(place(*input, 0), channels, height * width);
            }
            RealOp::Linear(_) => {}
            RealOp::Scale { .. } => fix(&mut sets, own),
            RealOp::Relu { input } | RealOp::Round { input } => {
                let len = place(own + 1, 0) - place(own, 0);
                (0..len).for_each(|at| sets.join(place(own, at), place(*input, at)));
            }
            RealOp::Public { terms, offset, len } => {
                for term in terms {
                    term.gather.each(*len, |at, from| sets.join(place(own, at), place(term.value, from)));
                }
                if *offset != 0.0 {
                    fix(&mut sets, own);
                }
            }
        }
    }
    sets
}

/// Disjoint sets of places.
struct Sets(Vec<u32>);

impl Sets {
    fn new(count: usize) -> Sets {
        Sets((0..count as u32).collect())
    }

    fn root(&mut self, mut at: usize) -> usize {
        while let Some(&up) = self.0.get(at) {
            let up = up as usize;
            if up == at {
                break;
            }
            // Half of the way is cut off.
            let next = self.0.get(up).copied().unwrap_or(up as u32);
            self.0[at] = next;
            at = next as usize;
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        // The later one leads, so that what is fixed does.
        if let Some(place) = self.0.get_mut(a.min(b)) {
            *place = a.max(b) as u32;
        }
    }

    fn join_chunks(&mut self, start: usize, count: usize, size: usize) {
        for chunk in 0..count {
            let first = start + chunk * size;
            (first + 1..first + size).for_each(|at| self.join(first, at));
        }
    }

    /// A number for every set of places below `fixed`, 0 for that which has `fixed` in it.
    fn classes(mut self, fixed: usize) -> (Vec<u32>, usize) {
        let mut number = vec![u32::MAX; self.0.len()];
        let root = self.root(fixed);
        number[root] = FIXED;
        let mut count = 1;
        let class = (0..fixed).map(|at| {
            let root = self.root(at);
            if number[root] == u32::MAX {
                number[root] = count;
                count += 1;
            }
            number[root]
        });
        let class = class.collect();
        (class, count as usize)
    }
}

/// Gains of a network's channels by class, in bits; none if there is nothing to do. `groups` are the ranges of the channels'
/// groups.
pub(super) fn gains(real: &Real, channels: &Channels, groups: &[Interval], rule: Rule) -> Option<Vec<i32>> {
    let bits = match rule {
        Rule::Weights => by_weights(real, channels),
        Rule::Values => by_values(channels, groups),
    };
    let bits: Vec<i32> = bits.iter().map(|bits| bits.clamp(-MAX_BITS, MAX_BITS).round() as i32).collect();
    bits.iter().any(|&bits| bits != 0).then_some(bits)
}

/// The network with these gains.
pub(super) fn equalised(real: &Real, channels: &Channels, bits: &[i32]) -> Real {
    let mut made = real.clone();
    for (number, node) in made.nodes.iter_mut().enumerate() {
        if let RealOp::Linear(layer) = &mut node.op {
            let (row_class, column_class) = classes(channels, layer, number + 1);
            let rows: Vec<f64> = row_class.iter().map(|&class| gain(bits, class)).collect();
            let columns: Vec<f64> = column_class.iter().map(|&class| gain(bits, class)).collect();
            let positions = (layer.bias.len() / rows.len().max(1)).max(1);
            each_weight(&layer.geometry, |at, row, column| {
                if let Some(weight) = layer.weights.get_mut(at) {
                    *weight *= rows[row] / columns[column];
                }
            });
            for (biases, gain) in layer.bias.chunks_mut(positions).zip(&rows) {
                biases.iter_mut().for_each(|bias| *bias *= gain);
            }
        }
    }
    made
}

/// By node, the gains of the channels that a layer reads; none where a node is no layer.
pub(super) fn read_gains(real: &Real, channels: &Channels, bits: &[i32]) -> Vec<Vec<f64>> {
    let of = |(number, node): (usize, &RealNode)| match &node.op {
        RealOp::Linear(layer) => {
            let (_, columns) = classes(channels, layer, number + 1);
            columns.iter().map(|&class| gain(bits, class)).collect()
        }
        _ => Vec::new(),
    };
    real.nodes.iter().enumerate().map(of).collect()
}

/// Classes by row and by column of a layer, which makes value `made`.
fn classes(channels: &Channels, layer: &Linear, made: usize) -> (Vec<usize>, Vec<usize>) {
    let (rows, columns) = sizes(&layer.geometry);
    let (high, wide) = (layer.geometry.outputs() / rows.max(1), layer.geometry.inputs() / columns.max(1));
    let rows = (0..rows).map(|row| channels.of(made, row * high)).collect();
    (rows, (0..columns).map(|column| channels.of(layer.input, column * wide)).collect())
}

/// Rows, and columns: input channels of a convolution, values of a matrix.
fn sizes(geometry: &Geometry) -> (usize, usize) {
    match geometry {
        Geometry::Dense(dense) => (dense.outputs, dense.inputs),
        Geometry::Conv(conv) => (conv.channels, conv.input[0]),
    }
}

/// Every weight's place, row and column.
fn each_weight(geometry: &Geometry, mut each: impl FnMut(usize, usize, usize)) {
    match geometry {
        Geometry::Dense(dense) => {
            for row in 0..dense.outputs {
                (0..dense.inputs).for_each(|column| each(row * dense.inputs + column, row, column));
            }
        }
        Geometry::Conv(conv) => {
            let (inputs, places) = (conv.group_inputs(), conv.kernel[0] * conv.kernel[1]);
            for row in 0..conv.channels {
                let first = row / conv.group_outputs().max(1) * inputs;
                for at in 0..inputs * places {
                    each(row * inputs * places + at, row, first + at / places.max(1));
                }
            }
        }
    }
}

/// Gains with which the largest weight that makes a channel is the largest that reads it, in bits.
fn by_weights(real: &Real, channels: &Channels) -> Vec<f64> {
    let mut bits = vec![0f64; channels.count];
    let layers: Vec<_> = real
        .nodes
        .iter()
        .enumerate()
        .filter_map(|(number, node)| match &node.op {
            RealOp::Linear(layer) => Some((layer, classes(channels, layer, number + 1))),
            _ => None,
        })
        .collect();
    for _ in 0..ROUNDS {
        let (mut made, mut read) = (vec![0f64; channels.count], vec![0f64; channels.count]);
        for (layer, (rows, columns)) in &layers {
            let gains =
                |classes: &[usize]| classes.iter().map(|&class| bits[class].exp2()).collect::<Vec<f64>>();
            let (row_gain, column_gain) = (gains(rows), gains(columns));
            each_weight(&layer.geometry, |at, row, column| {
                let weight = layer.weights.get(at).map_or(0.0, |weight| weight.abs());
                let weight = weight * row_gain[row] / column_gain[column];
                made[rows[row]] = made[rows[row]].max(weight);
                read[columns[column]] = read[columns[column]].max(weight);
            });
        }
        for ((bits, made), read) in bits.iter_mut().zip(made).zip(read).skip(1) {
            let change = (read.log2() - made.log2()) / 2.0;
            if change.is_finite() {
                *bits = (*bits + change).clamp(-MAX_BITS, MAX_BITS);
            }
        }
    }
    bits
}

/// The largest gains with which no channel's largest number becomes more than half of its value's, in bits: some room is left
/// for inputs beyond those that were seen.
fn by_values(channels: &Channels, groups: &[Interval]) -> Vec<f64> {
    let size = |&(low, high): &Interval| high.max(-low);
    let mut bits = vec![f64::INFINITY; channels.count];
    for ends in channels.starts.windows(2) {
        let &[from, to] = ends else { continue };
        let own = groups.get(from..to).unwrap_or(&[]);
        let largest = own.iter().map(size).fold(0.0, f64::max);
        for (group, &class) in own.iter().zip(channels.class.iter().skip(from)) {
            if size(group) > 0.0
                && let Some(bits) = bits.get_mut(class as usize)
            {
                *bits = bits.min((largest / size(group)).log2().floor() - 1.0);
            }
        }
    }
    bits.iter_mut().for_each(|bits| *bits = if bits.is_finite() { bits.max(0.0) } else { 0.0 });
    if let Some(fixed) = bits.first_mut() {
        *fixed = 0.0;
    }
    bits
}

#[cfg(test)]
mod tests;
