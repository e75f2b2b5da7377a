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
//! is added. Gains are in the weights alone: no server and no plan sees them.

use crate::real::{Linear, Real, RealOp};
use crate::{Error, Geometry};

/// Most numbers of all values together, and most steps of their sums.
const MAX_PLACES: usize = 1 << 24;
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
    /// The same, but no weight becomes larger than its layer's largest.
    Both,
}

/// Which places of a network's values have the same gain.
pub(super) struct Channels {
    /// Where a value's places begin, by value, and the end of the last.
    starts: Vec<usize>,
    /// By place.
    class: Vec<u32>,
    count: usize,
}

/// The class whose gain is 1.
const FIXED: u32 = 0;

impl Channels {
    /// Of a network; none if it is too large.
    pub(super) fn new(real: &Real) -> Option<Channels> {
        let mut starts = vec![0];
        let mut steps = 0usize;
        let mut lens = vec![real.input.iter().product()];
        for node in &real.nodes {
            let len = node.op.len(&lens);
            if let RealOp::Public { terms, .. } = &node.op {
                steps = terms.iter().fold(steps, |all, term| all.saturating_add(term.gather.steps(len)));
            }
            lens.push(len);
        }
        for len in &lens {
            starts.push(starts.last()? + len);
        }
        let total = *starts.last()?;
        if total > MAX_PLACES || steps > MAX_STEPS {
            return None;
        }
        // The last one stands for what is fixed.
        let mut sets = Sets::new(total + 1);
        let fix = |sets: &mut Sets, value: usize| (starts[value]..starts[value + 1]).for_each(|at| sets.join(at, total));
        fix(&mut sets, 0);
        real.outputs.iter().for_each(|output| fix(&mut sets, output.value));
        for (number, node) in real.nodes.iter().enumerate() {
            let own = starts[number + 1];
            match &node.op {
                RealOp::Linear(Linear { input, geometry: Geometry::Conv(conv), .. }) => {
                    let [channels, height, width] = conv.output();
                    sets.join_chunks(own, channels, height * width);
                    let [channels, height, width] = conv.input;
                    sets.join_chunks(starts[*input], channels, height * width);
                }
                RealOp::Linear(_) => {}
                RealOp::Scale { .. } => fix(&mut sets, number + 1),
                RealOp::Relu { input } | RealOp::Round { input } => {
                    (0..lens[number + 1]).for_each(|at| sets.join(own + at, starts[*input] + at));
                }
                RealOp::Public { terms, offset, len } => {
                    for term in terms {
                        term.gather.each(*len, |at, from| sets.join(own + at, starts[term.value] + from));
                    }
                    if *offset != 0.0 {
                        fix(&mut sets, number + 1);
                    }
                }
            }
        }
        let (class, count) = sets.classes(total);
        Some(Channels { starts, class, count })
    }

    /// The class of a number of a value.
    fn of(&self, value: usize, at: usize) -> usize {
        self.starts.get(value).and_then(|start| self.class.get(start + at)).map_or(0, |&class| class as usize)
    }
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

/// The network with its channels equalised; none if there is nothing to do. `samples` are inputs as the network reads them.
///
/// # Errors
/// [`Error::Input`] for inputs that are not the network's, [`Error::Shape`] if its parts do not fit.
pub(super) fn equalised(
    real: &Real,
    channels: &Channels,
    samples: &[&[u8]],
    rule: Rule,
) -> Result<Option<Real>, Error> {
    let bits = match rule {
        Rule::Weights => by_weights(real, channels),
        Rule::Values | Rule::Both => by_values(real, channels, samples, rule)?,
    };
    let bits: Vec<i32> = bits.iter().map(|bits| bits.clamp(-MAX_BITS, MAX_BITS).round() as i32).collect();
    if bits.iter().all(|&bits| bits == 0) {
        return Ok(None);
    }
    let mut made = real.clone();
    for (number, node) in made.nodes.iter_mut().enumerate() {
        if let RealOp::Linear(layer) = &mut node.op {
            let input = layer.input;
            let (rows, columns) = sizes(&layer.geometry);
            let positions = layer.bias.len() / rows.max(1);
            let gain = |value: usize, at: usize, sign: i32| 2f64.powi(sign * bits[channels.of(value, at)]);
            let row: Vec<f64> = (0..rows).map(|row| gain(number + 1, row * positions, 1)).collect();
            let width = layer.geometry.inputs() / columns.max(1);
            let column: Vec<f64> = (0..columns).map(|column| gain(input, column * width, -1)).collect();
            let geometry = layer.geometry.clone();
            each_weight(&geometry, &mut layer.weights, |r, c, weight| *weight *= row[r] * column[c]);
            for (at, bias) in layer.bias.iter_mut().enumerate() {
                *bias *= row[at / positions.max(1)];
            }
        }
    }
    Ok(Some(made))
}

/// Rows, and columns: input channels of a convolution, values of a matrix.
fn sizes(geometry: &Geometry) -> (usize, usize) {
    match geometry {
        Geometry::Dense(dense) => (dense.outputs, dense.inputs),
        Geometry::Conv(conv) => (conv.channels, conv.input[0]),
    }
}

/// Every weight with its row and its column.
fn each_weight(geometry: &Geometry, weights: &mut [f64], mut each: impl FnMut(usize, usize, &mut f64)) {
    match geometry {
        Geometry::Dense(dense) => {
            for (row, weights) in weights.chunks_mut(dense.inputs.max(1)).enumerate() {
                weights.iter_mut().enumerate().for_each(|(column, weight)| each(row, column, weight));
            }
        }
        Geometry::Conv(conv) => {
            let (inputs, places) = (conv.group_inputs(), conv.kernel[0] * conv.kernel[1]);
            for (row, weights) in weights.chunks_mut((inputs * places).max(1)).enumerate() {
                let first = row / conv.group_outputs().max(1) * inputs;
                for (column, weights) in weights.chunks_mut(places.max(1)).enumerate() {
                    weights.iter_mut().for_each(|weight| each(row, first + column, weight));
                }
            }
        }
    }
}

/// Of a network whose gains are `bits`: the largest weight that makes a class, the largest that reads one, and by layer the
/// largest row of each class; all as powers of two.
struct Weights {
    made: Vec<f64>,
    read: Vec<f64>,
    /// By how much the rows of a class may grow until one is its layer's largest.
    room: Vec<f64>,
}

fn weights(real: &Real, channels: &Channels, bits: &[f64]) -> Weights {
    let none = vec![f64::NEG_INFINITY; channels.count];
    let mut all = Weights { made: none.clone(), read: none, room: vec![f64::INFINITY; channels.count] };
    for (number, node) in real.nodes.iter().enumerate() {
        let RealOp::Linear(layer) = &node.op else { continue };
        let (rows, columns) = sizes(&layer.geometry);
        let positions = layer.geometry.outputs() / rows.max(1);
        let width = layer.geometry.inputs() / columns.max(1);
        let row_class: Vec<usize> = (0..rows).map(|row| channels.of(number + 1, row * positions)).collect();
        let column_class: Vec<usize> = (0..columns).map(|column| channels.of(layer.input, column * width)).collect();
        let (mut by_row, mut by_column) = (vec![0f64; rows], vec![0f64; columns]);
        let row_gain: Vec<f64> = row_class.iter().map(|&class| bits[class].exp2()).collect();
        let column_gain: Vec<f64> = column_class.iter().map(|&class| (-bits[class]).exp2()).collect();
        let mut copy = layer.weights.clone();
        each_weight(&layer.geometry, &mut copy, |row, column, weight| {
            let weight = weight.abs() * row_gain[row] * column_gain[column];
            by_row[row] = by_row[row].max(weight);
            by_column[column] = by_column[column].max(weight);
        });
        let largest = by_row.iter().copied().fold(0.0, f64::max).log2();
        for (&class, weight) in row_class.iter().zip(&by_row) {
            all.made[class] = all.made[class].max(weight.log2());
            all.room[class] = all.room[class].min(largest - weight.log2());
        }
        for (&class, weight) in column_class.iter().zip(&by_column) {
            all.read[class] = all.read[class].max(weight.log2());
        }
    }
    all
}

fn by_weights(real: &Real, channels: &Channels) -> Vec<f64> {
    let mut bits = vec![0f64; channels.count];
    for _ in 0..ROUNDS {
        let weights = weights(real, channels, &bits);
        for (class, bits) in bits.iter_mut().enumerate().skip(1) {
            let change = (weights.read[class] - weights.made[class]) / 2.0;
            if change.is_finite() {
                *bits = (*bits + change).clamp(-MAX_BITS, MAX_BITS);
            }
        }
    }
    bits
}

fn by_values(real: &Real, channels: &Channels, samples: &[&[u8]], rule: Rule) -> Result<Vec<f64>, Error> {
    // The largest of every place.
    let mut largest = vec![0f32; channels.class.len()];
    for sample in samples {
        let input: Vec<f64> = sample.iter().map(|&byte| f64::from(byte)).collect();
        real.run(&input, |value, numbers| {
            let start = channels.starts[value];
            for (largest, number) in largest.iter_mut().skip(start).zip(numbers) {
                *largest = largest.max(number.abs() as f32);
            }
        })?;
    }
    let mut bits = vec![f64::INFINITY; channels.count];
    let mut own = vec![0f32; channels.count];
    for ends in channels.starts.windows(2) {
        let &[start, end] = ends else { continue };
        let (class, largest) = (&channels.class[start..end], &largest[start..end]);
        let of_all = largest.iter().copied().fold(0.0, f32::max);
        for (&class, &value) in class.iter().zip(largest) {
            own[class as usize] = own[class as usize].max(value);
        }
        for &class in class {
            // Once for every class: it is taken.
            let of_class = core::mem::take(&mut own[class as usize]);
            if of_class > 0.0 {
                let room = f64::from(of_all / of_class).log2();
                bits[class as usize] = bits[class as usize].min(room);
            }
        }
    }
    if rule == Rule::Both {
        let weights = weights(real, channels, &vec![0.0; channels.count]);
        bits.iter_mut().zip(&weights.room).for_each(|(bits, room)| *bits = bits.min(*room));
    }
    bits[FIXED as usize] = 0.0;
    bits.iter_mut().for_each(|bits| *bits = if bits.is_finite() { bits.floor() } else { 0.0 });
    Ok(bits)
}
