//! What is known of a layer's inputs, for rounding its weights (`rounding.rs`): how they vary together over inputs of the
//! network.
//!
//! Of every layer some positions are looked at, evenly spread over the calibration's inputs: the patch of its input that
//! a position reads, less the mean of each channel (padding stays zero). Their second moments are summed in a fixed order,
//! so that the sums do not depend on how many threads there are. They are summed once: gains of channels (`equalise.rs`)
//! change nothing in them that a factor by column would not.
//!
//! Nothing is known of a layer that one server has in clear and that has other layers in front of it: how its weights are
//! rounded would depend on theirs, which that server may not know. Nor of a layer that is too large, or where too little
//! was seen.

use super::{Sample, spread};
use crate::parallel::{each_in_parallel, in_parallel};
use crate::real::{Linear, Real, RealOp};
use crate::{Error, Geometry, InputSpec};

/// Positions that are looked at, for each column of a layer's matrix.
const POSITIONS: usize = 4;
/// Patches of inputs that were held back which judge a layer's weights, for each group of channels.
const JUDGES: usize = 64;
/// Fewest inputs of the network that tell anything, and fewest that judge.
const FEWEST: [usize; 2] = [8, 2];
/// Inputs that are run first, for the means of channels.
const MEANS: usize = 8;
/// Inputs that are run before what they show is summed.
const BATCH: usize = 8;
/// Inputs that are looked at, of all layers: a quarter of them judge.
const MOST: usize = 4096;
/// Products and additions that the float network may take, in all.
const FLOAT_WORK: usize = 6_000_000_000;
/// Products that second moments and their factors may take, all layers together.
const WORK: usize = 8_000_000_000;
/// Numbers that they may have: 256 MiB.
const NUMBERS: usize = 1 << 25;
/// What is added to each square, in parts of their mean: what was seen is not all, and least so of a column that hardly
/// varied, which otherwise would be used to make up for all others.
const DAMPING: f64 = 0.01;
/// Fraction of the golden ratio: its multiples are spread evenly.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// The inputs of a network's layers.
pub(super) struct Moments {
    /// By node; none where nothing is known.
    layers: Vec<Option<Inputs>>,
}

/// The inputs of one layer.
pub(super) struct Inputs {
    /// Mean by channel of a convolution's input, by value of a matrix's.
    pub mean: Vec<f64>,
    /// By group of channels.
    pub groups: Vec<Group>,
}

/// The inputs of the rows that read the same channels.
pub(super) struct Group {
    /// `R[k][i] / R[i][i]` for the upper triangular `R` with `R·Rᵀ` the second moments: for `i` from 0, all `k < i`.
    pub factor: Vec<f64>,
    /// Patches that were held back, as they are: by column, and within it by patch.
    pub held: Vec<f64>,
    /// The same, less the mean.
    pub less_mean: Vec<f64>,
}

impl Moments {
    /// Of nothing.
    pub(super) fn none() -> Moments {
        Moments { layers: Vec::new() }
    }

    /// What is known of the layer at a node.
    pub(super) fn of(&self, node: usize) -> Option<&Inputs> {
        self.layers.get(node)?.as_ref()
    }

    /// How many inputs of a network there is work for, of which a run takes so much.
    pub(super) fn inputs(work: usize) -> usize {
        (FLOAT_WORK / work.max(1)).min(MOST)
    }

    /// From inputs that calibrate and others that judge, of all layers but those that are
    /// `clear`, by node, and have others in front of them.
    ///
    /// # Errors
    /// Those of [`Real::run`].
    pub(super) fn new(
        real: &Real,
        spec: &InputSpec,
        calibrating: &[Sample<'_>],
        held: &[Sample<'_>],
        clear: &[bool],
    ) -> Result<Moments, Error> {
        if calibrating.len() < FEWEST[0] || held.len() < FEWEST[1] {
            return Ok(Moments::none());
        }
        let held = &spread(held, JUDGES);
        let mut sums = affordable(real, [calibrating.len(), held.len()], clear);
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); real.nodes.len() + 1];
        for (number, node) in real.nodes.iter().enumerate() {
            if let RealOp::Linear(layer) = &node.op
                && sums.get(number).is_some_and(Option::is_some)
                && let Some(readers) = readers.get_mut(layer.input)
            {
                readers.push(number);
            }
        }
        if readers.iter().all(Vec::is_empty) {
            return Ok(Moments::none());
        }
        means(real, spec, calibrating.get(..MEANS).unwrap_or(calibrating), &readers, &mut sums)?;
        let all: Vec<(usize, bool, &Sample<'_>)> = calibrating
            .iter()
            .enumerate()
            .map(|(at, sample)| (at, false, sample))
            .chain(held.iter().enumerate().map(|(at, sample)| (at, true, sample)))
            .collect();
        let counts = [calibrating.len(), held.len()];
        // A few at a time, so that what they show need not be kept.
        for batch in all.chunks(BATCH) {
            let shown = in_parallel(batch, |part| {
                let mut shown = Vec::new();
                for &(at, held, sample) in part {
                    let mut patches: Vec<(usize, Patches)> = Vec::new();
                    real.run(&sample.seen(spec), |value, numbers| {
                        for &number in readers.get(value).into_iter().flatten() {
                            if let (Some(layer), Some(Some(sums))) = (layer(real, number), sums.get(number)) {
                                let found = sums.patches(layer, numbers, at, counts[usize::from(held)], held);
                                patches.push((number, found));
                            }
                        }
                    })?;
                    shown.push((held, patches));
                }
                Ok(shown)
            })?;
            // In the order of the inputs, however many threads there are.
            let shown: Vec<_> = shown.into_iter().flatten().collect();
            each_in_parallel(&mut sums, |number, sums| {
                let Some(sums) = sums else { return };
                for (held, patches) in &shown {
                    let own = patches.iter().filter(|(of, _)| *of == number);
                    own.for_each(|(_, patches)| sums.add(patches, *held));
                }
            });
        }
        let mut layers: Vec<(Option<Sums>, Option<Inputs>)> =
            sums.into_iter().map(|sums| (sums, None)).collect();
        each_in_parallel(&mut layers, |_, (sums, inputs)| *inputs = sums.take().and_then(Sums::inputs));
        Ok(Moments { layers: layers.into_iter().map(|(_, inputs)| inputs).collect() })
    }
}

/// Groups of channels that a layer has.
fn groups(geometry: &Geometry) -> usize {
    match geometry {
        Geometry::Conv(conv) => conv.groups,
        Geometry::Dense(_) => 1,
    }
}

/// The layer at a node.
fn layer(real: &Real, number: usize) -> Option<&Linear> {
    match &real.nodes.get(number)?.op {
        RealOp::Linear(layer) => Some(layer),
        _ => None,
    }
}

/// Places for the second moments of all layers that there is work and room for, the smallest first, which `inputs` are
/// enough for, beside what `judges` show. Not of those that are `clear` and have others in front of them.
fn affordable(real: &Real, [inputs, judges]: [usize; 2], clear: &[bool]) -> Vec<Option<Sums>> {
    let mut sums: Vec<Option<Sums>> = real.nodes.iter().map(|_| None).collect();
    let behind = behind_layers(real);
    let tells = |input: usize| behind.get(input) != Some(&false);
    let mut order: Vec<([usize; 2], usize)> = (0..real.nodes.len())
        .filter_map(|number| {
            let layer = layer(real, number)?;
            let kept = clear.get(number) == Some(&true) && tells(layer.input);
            (!kept).then(|| (costs(&layer.geometry, judges), number))
        })
        .collect();
    order.sort_unstable();
    let (mut work, mut numbers) = (WORK, NUMBERS);
    for ([own_work, own_numbers], number) in order {
        let Some(layer) = layer(real, number) else { continue };
        let patches = positions(&layer.geometry).saturating_mul(inputs);
        if patches >= layer.geometry.fan_in().max(1) && own_work <= work && own_numbers <= numbers {
            (work, numbers) = (work - own_work, numbers - own_numbers);
            if let Some(place) = sums.get_mut(number) {
                *place = Some(Sums::new(layer));
            }
        }
    }
    sums
}

/// By value, whether weights of layers are in it.
fn behind_layers(real: &Real) -> Vec<bool> {
    let mut behind = vec![false];
    for node in &real.nodes {
        let of = |value: usize| behind.get(value) != Some(&false);
        let own = matches!(node.op, RealOp::Linear(_) | RealOp::Scale { .. }) || node.op.inputs().any(of);
        behind.push(own);
    }
    behind
}

/// Products that a layer's second moments take, and numbers, where so many inputs judge.
pub(super) fn costs(geometry: &Geometry, judges: usize) -> [usize; 2] {
    let (columns, groups) = (geometry.fan_in(), groups(geometry));
    // Half of each square is summed; a factor takes a sixth of the cube.
    let work = columns.saturating_mul(columns).saturating_mul(columns).saturating_mul(POSITIONS / 2 + 1);
    let patches = shown(geometry, JUDGES, judges) * judges;
    let numbers = columns.saturating_mul(columns.saturating_mul(2).saturating_add(2 * patches));
    [work, numbers].map(|of_group| of_group.saturating_mul(groups))
}

/// The mean of every channel that a layer reads, over these inputs.
fn means(
    real: &Real,
    spec: &InputSpec,
    samples: &[Sample<'_>],
    readers: &[Vec<usize>],
    sums: &mut [Option<Sums>],
) -> Result<(), Error> {
    let parts = in_parallel(samples, |part| {
        let mut shown = Vec::new();
        for sample in part {
            let mut means: Vec<(usize, Vec<f64>)> = Vec::new();
            real.run(&sample.seen(spec), |value, numbers| {
                for &number in readers.get(value).into_iter().flatten() {
                    let Some(layer) = layer(real, number) else { continue };
                    let plane = plane(&layer.geometry);
                    let of = |channel: &[f64]| channel.iter().sum::<f64>() / plane as f64;
                    means.push((number, numbers.chunks(plane).map(of).collect()));
                }
            })?;
            shown.push(means);
        }
        Ok(shown)
    })?;
    for (number, found) in parts.into_iter().flatten().flatten() {
        if let Some(Some(sums)) = sums.get_mut(number) {
            let parts = sums.mean.iter_mut().zip(found);
            parts.for_each(|(mean, own)| *mean += own / samples.len() as f64);
        }
    }
    Ok(())
}

/// Positions of a layer's output, which each see a patch of its input.
fn positions(geometry: &Geometry) -> usize {
    match geometry {
        Geometry::Conv(conv) => conv.output()[1] * conv.output()[2],
        Geometry::Dense(_) => 1,
    }
}

/// Patches that each of `inputs` shows of a layer, for all of them to show as many as are wanted, or all there are.
fn shown(geometry: &Geometry, wanted: usize, inputs: usize) -> usize {
    wanted.div_ceil(inputs.max(1)).min(positions(geometry))
}

/// Values of a channel of a layer's input.
pub(super) fn plane(geometry: &Geometry) -> usize {
    match geometry {
        Geometry::Conv(conv) => (conv.input[1] * conv.input[2]).max(1),
        Geometry::Dense(_) => 1,
    }
}

/// Patches of one input, group by group: less the mean, and with it; the latter only where they judge.
struct Patches(Vec<(Vec<f64>, Vec<f64>)>);

/// A layer's second moments by group, as far as they are summed, and the patches that judge.
struct Sums {
    columns: usize,
    mean: Vec<f64>,
    groups: Vec<(Vec<f64>, Patch)>,
}

/// Patches, less the mean and with it.
type Patch = (Vec<f64>, Vec<f64>);

impl Sums {
    fn new(layer: &Linear) -> Sums {
        let columns = layer.geometry.fan_in();
        let mean = vec![0.0; layer.geometry.inputs() / plane(&layer.geometry)];
        let groups = vec![(vec![0.0; columns * columns], Patch::default()); groups(&layer.geometry)];
        Sums { columns, mean, groups }
    }

    /// The patches of the `at`th of `count` inputs, at positions spread over the output: at others in each input.
    fn patches(&self, layer: &Linear, numbers: &[f64], at: usize, count: usize, held: bool) -> Patches {
        let Geometry::Conv(conv) = &layer.geometry else {
            let patch = numbers.iter().zip(&self.mean).map(|(x, mean)| x - mean).collect();
            return Patches(vec![(patch, if held { numbers.to_vec() } else { Vec::new() })]);
        };
        let [_, _, width] = conv.output();
        let positions = positions(&layer.geometry);
        let own = shown(&layer.geometry, if held { JUDGES } else { POSITIONS * self.columns }, count);
        let first = (at as f64 * GOLDEN).fract() * (positions / own.max(1)) as f64;
        let places: Vec<usize> =
            (0..own).map(|i| (i * positions / own + first as usize) % positions).collect();
        let plane = plane(&layer.geometry);
        let inputs = conv.group_inputs();
        let of_group = |group: usize| {
            let mut made = Patch::default();
            for &place in &places {
                let (top, left) = (place / width * conv.stride[0], place % width * conv.stride[1]);
                for channel in group * inputs..(group + 1) * inputs {
                    let mean = self.mean.get(channel).copied().unwrap_or(0.0);
                    let values = numbers.get(channel * plane..).unwrap_or(&[]);
                    for tap in 0..conv.kernel[0] * conv.kernel[1] {
                        let y = top + tap / conv.kernel[1] * conv.dilation[0];
                        let x = left + tap % conv.kernel[1] * conv.dilation[1];
                        let y = y.checked_sub(conv.pads[0]).filter(|&y| y < conv.input[1]);
                        let x = x.checked_sub(conv.pads[1]).filter(|&x| x < conv.input[2]);
                        let place = y.zip(x).map(|(y, x)| y * conv.input[2] + x);
                        let value = place.and_then(|place| values.get(place).copied());
                        made.0.push(value.map_or(0.0, |value| value - mean));
                        if held {
                            made.1.push(value.unwrap_or(0.0));
                        }
                    }
                }
            }
            made
        };
        Patches((0..conv.groups).map(of_group).collect())
    }

    fn add(&mut self, patches: &Patches, held: bool) {
        for ((moments, judges), own) in self.groups.iter_mut().zip(&patches.0) {
            if held {
                judges.0.extend(&own.0);
                judges.1.extend(&own.1);
            } else {
                add_squares(moments, &own.0, self.columns);
            }
        }
    }

    fn inputs(self) -> Option<Inputs> {
        let columns = self.columns;
        let of_group = |(moments, (less_mean, held)): (Vec<f64>, Patch)| {
            let factor = factor(moments, columns)?;
            let [held, less_mean] = [held, less_mean].map(|patches| by_column(&patches, columns));
            Some(Group { factor, held, less_mean })
        };
        let groups = self.groups.into_iter().map(of_group).collect::<Option<_>>()?;
        Some(Inputs { mean: self.mean, groups })
    }
}

/// Patches one after the other, by column.
fn by_column(patches: &[f64], columns: usize) -> Vec<f64> {
    let of = |column: usize| patches.iter().skip(column).step_by(columns.max(1)).copied();
    (0..columns).flat_map(of).collect()
}

/// Adds the upper half of every patch's square, four patches at a time.
fn add_squares(moments: &mut [f64], patches: &[f64], columns: usize) {
    let mut fours = patches.chunks_exact(4 * columns);
    for four in fours.by_ref() {
        let (a, rest) = four.split_at(columns);
        let (b, rest) = rest.split_at(columns);
        let (c, d) = rest.split_at(columns);
        for (i, row) in moments.chunks_exact_mut(columns).enumerate() {
            let (wa, wb, wc, wd) = (a[i], b[i], c[i], d[i]);
            let others = a[i..].iter().zip(&b[i..]).zip(c[i..].iter().zip(&d[i..]));
            for (sum, ((a, b), (c, d))) in row[i..].iter_mut().zip(others) {
                *sum += (wa * a + wb * b) + (wc * c + wd * d);
            }
        }
    }
    for patch in fours.remainder().chunks_exact(columns) {
        for (i, row) in moments.chunks_exact_mut(columns).enumerate() {
            let own = patch[i];
            row[i..].iter_mut().zip(&patch[i..]).for_each(|(sum, x)| *sum += own * x);
        }
    }
}

/// The factor of second moments, the upper half of which is given: see [`Group::factor`]. Nothing if they have none.
pub(super) fn factor(mut moments: Vec<f64>, columns: usize) -> Option<Vec<f64>> {
    let squares = || moments.iter().step_by(columns + 1).filter(|square| **square != 0.0);
    let damping = DAMPING * squares().sum::<f64>() / squares().count().max(1) as f64;
    for own in moments.iter_mut().step_by(columns + 1) {
        // What never varies has no part in anything.
        *own = if *own == 0.0 { 1.0 } else { *own + damping };
    }
    let mut made = vec![0.0; columns * columns.saturating_sub(1) / 2];
    // From the last column to the first, of what the later ones have left.
    for i in (0..columns).rev() {
        let pivot = moments[i * columns + i];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return None;
        }
        let column: Vec<f64> = (0..i).map(|k| moments[k * columns + i]).collect();
        let shares = &mut made[i * i.saturating_sub(1) / 2..][..i];
        for (k, (share, own)) in shares.iter_mut().zip(&column).enumerate() {
            *share = own / pivot;
            let row = &mut moments[k * columns + k..k * columns + i];
            row.iter_mut().zip(&column[k..]).for_each(|(sum, other)| *sum -= *share * other);
        }
    }
    Some(made)
}
