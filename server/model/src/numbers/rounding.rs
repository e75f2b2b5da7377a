//! Rounding a layer's weights so that what the layer makes changes least, not each weight by itself.
//!
//! With `δ` the rounding errors of a row, the mean square of what they change is `δᵀ·H·δ`, `H` the second moments of the
//! layer's input less its mean (`moments.rs`); what they change in the mean goes into the bias. With `H = R·Rᵀ`, `R` upper
//! triangular, it is the sum over the columns `i` of the squares of `R[i][i]·δ[i] + Σ_{k<i} R[k][i]·δ[k]`. Column after
//! column is rounded to what makes its own square least, given the errors of those before it. That is the update of the
//! optimal brain surgeon (Hassibi and Stork 1993) in the order of GPTQ (Frantar et al. 2022), written without an inverse.
//!
//! The weights are ordinary integers, none larger than the largest that rounding to nearest gives the layer. On inputs
//! that were held back what the layer makes must be nearer than with rounding to nearest, or that it is.

use std::sync::Arc;

use super::moments::{Group, Inputs, plane};
use crate::parallel::each_in_parallel;
use crate::real::Linear;
use crate::{Geometry, wide};

/// Rows that are rounded together: a factor serves them all.
const LANES: usize = 16;

/// Products of a layer that are too few for several threads.
const ALONE: usize = 1 << 21;

/// A number of each of some rows.
type Lanes = [f64; LANES];

/// A layer's rounded weights, and what its biases get more.
pub(super) struct Rounded {
    /// Integers, in the layout of the layer's geometry.
    pub weights: Vec<f64>,
    /// By output value, in units of the layer's scale.
    pub bias: Vec<f64>,
}

/// What a layer reads, in a network whose channels may have gains.
pub(super) struct Read<'a> {
    /// Of the network as it is.
    pub inputs: &'a Inputs,
    /// By channel, how many times as large its numbers are; none for 1.
    pub gains: &'a [f64],
    /// What an integer of it is worth.
    pub scale: f64,
}

/// Rounds weights in units of their scale, `target`. Nothing where rounding to nearest does as well on inputs that were
/// held back, or where something does not fit.
pub(super) fn rounded(layer: &Linear, target: &[f64], read: &Read<'_>) -> Option<Rounded> {
    let geometry = &layer.geometry;
    let columns = geometry.fan_in();
    let taps = match geometry {
        Geometry::Conv(conv) => conv.kernel[0] * conv.kernel[1],
        Geometry::Dense(_) => 1,
    };
    let rows = target.len() / columns.max(1);
    let per_group = rows / read.inputs.groups.len().max(1);
    if per_group == 0 || target.len() != geometry.weights() {
        return None;
    }
    let limit = target.iter().fold(0f64, |most, weight| most.max(weight.round_ties_even().abs()));
    let mut weights = vec![0.0; target.len()];
    let mut errors = vec![0.0; target.len()];
    let size = per_group * columns;
    let of_groups = target.chunks(size).zip(weights.chunks_mut(size)).zip(errors.chunks_mut(size));
    let mut blocks = Vec::new();
    for (number, (((target, weights), errors), group)) in of_groups.zip(&read.inputs.groups).enumerate() {
        let channel = |column: usize| number * columns / taps + column / taps;
        let gain = |column: usize| read.gains.get(channel(column)).copied().unwrap_or(1.0);
        let gains: Arc<[f64]> = (0..columns).map(gain).collect();
        let size = LANES * columns;
        let rows = target.chunks(size).zip(weights.chunks_mut(size)).zip(errors.chunks_mut(size));
        blocks.extend(rows.map(|((target, weights), errors)| {
            let squares = [0.0; 2];
            Block { target, weights, errors, group, gains: Arc::clone(&gains), squares }
        }));
    }
    if target.len().saturating_mul(columns) < ALONE {
        blocks.iter_mut().for_each(|block| block.round(limit));
    } else {
        each_in_parallel(&mut blocks, |_, block| block.round(limit));
    }
    let [before, after] =
        blocks.iter().fold([0.0; 2], |[a, b], block| [a + block.squares[0], b + block.squares[1]]);
    // Not either if they are no numbers.
    let nearer = after < before;
    if !nearer {
        return None;
    }
    let plane = plane(geometry);
    let means = read.inputs.mean.iter().map(|mean| mean / read.scale);
    let image: Vec<f64> = means.flat_map(|mean| std::iter::repeat_n(mean, plane)).collect();
    if image.len() != geometry.inputs() {
        return None;
    }
    let mut bias = vec![0.0; geometry.outputs()];
    wide::multiply(geometry, &errors, &image, &mut bias);
    Some(Rounded { weights, bias })
}

/// Some rows of a group.
struct Block<'a> {
    target: &'a [f64],
    weights: &'a mut [f64],
    /// In units of the network as it is.
    errors: &'a mut [f64],
    group: &'a Group,
    /// By column.
    gains: Arc<[f64]>,
    /// Of what is changed in patches that were held back: by rounding to nearest, and by this.
    squares: [f64; 2],
}

impl Block<'_> {
    fn round(&mut self, limit: f64) {
        let columns = self.gains.len();
        let aim = transposed(self.target, columns);
        let nearest: Vec<Lanes> = aim.iter().map(|aims| aims.map(f64::round_ties_even)).collect();
        let made = compensated(&aim, &self.group.factor, &self.gains, limit);
        let errors = |made: &[Lanes]| -> Vec<Lanes> {
            let all = aim.iter().zip(made).zip(self.gains.iter());
            let of = |((aim, made), gain): ((&Lanes, &Lanes), &f64)| {
                std::array::from_fn(|lane| (aim[lane] - made[lane]) * gain)
            };
            all.map(of).collect()
        };
        let (near, far) = (errors(&nearest), errors(&made));
        self.squares = [squares(&near, &self.group.held), squares(&far, &self.group.less_mean)];
        back(&made, self.weights, columns);
        back(&far, self.errors, columns);
    }
}

/// Rows side by side, column by column; zeros where there are fewer.
fn transposed(rows: &[f64], columns: usize) -> Vec<Lanes> {
    let mut made = vec![[0.0; LANES]; columns];
    for (lane, row) in rows.chunks_exact(columns).enumerate() {
        made.iter_mut().zip(row).for_each(|(lanes, own)| lanes[lane] = *own);
    }
    made
}

/// The inverse of [`transposed`].
fn back(lanes: &[Lanes], rows: &mut [f64], columns: usize) {
    for (lane, row) in rows.chunks_exact_mut(columns).enumerate() {
        row.iter_mut().zip(lanes).for_each(|(own, lanes)| *own = lanes[lane]);
    }
}

/// Rounds column after column, none beyond `limit`. `factor` is that of [`super::moments::Group`], and `gains` are by
/// column.
fn compensated(aim: &[Lanes], factor: &[f64], gains: &[f64], limit: f64) -> Vec<Lanes> {
    let mut errors: Vec<Lanes> = Vec::with_capacity(aim.len());
    let mut made = Vec::with_capacity(aim.len());
    let mut factors = factor;
    for (aim, gain) in aim.iter().zip(gains) {
        let (own, rest) = factors.split_at(errors.len().min(factors.len()));
        factors = rest;
        let mut pull = [0.0; LANES];
        for (error, factor) in errors.iter().zip(own) {
            pull.iter_mut().zip(error).for_each(|(pull, error)| *pull += error * factor);
        }
        let of_lane = |lane: usize| (aim[lane] + pull[lane] / gain).round_ties_even().clamp(-limit, limit);
        let rounded: Lanes = std::array::from_fn(of_lane);
        errors.push(std::array::from_fn(|lane| (aim[lane] - rounded[lane]) * gain));
        made.push(rounded);
    }
    made
}

/// The squares of what errors change in all patches of `columns`, by column and within it by patch.
fn squares(errors: &[Lanes], columns: &[f64]) -> f64 {
    let patches = columns.len() / errors.len().max(1);
    let mut sums = vec![[0.0; LANES]; patches];
    for (errors, column) in errors.iter().zip(columns.chunks_exact(patches.max(1))) {
        for (sums, x) in sums.iter_mut().zip(column) {
            sums.iter_mut().zip(errors).for_each(|(sum, error)| *sum += error * x);
        }
    }
    sums.as_flattened().iter().map(|sum| sum * sum).sum()
}

#[cfg(test)]
mod tests;
