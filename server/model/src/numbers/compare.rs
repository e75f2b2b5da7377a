//! The integer network's answers beside the float network's.

use std::cmp::Ordering;

use super::equalise::Channels;
use super::{Goal, Interval, Sample};
use crate::execute::first_largest;
use crate::graph::{Last, Output};
use crate::parallel::in_parallel;
use crate::real::Real;
use crate::{Error, Executor, FixedModel, InputSpec};

/// One label of so many may be another where the float network's best two are nearly the same.
const TIES: usize = 20;

/// How well an integer network's answers are the float network's, over some inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fidelity {
    /// Number of inputs.
    pub inputs: usize,
    /// Inputs of which all labels are the same: the largest of every answer of several values, or of each of its rows
    /// where the network ends in a choice by row, and the sign of one.
    pub same: usize,
    /// Inputs whose labels differ where the float network's best two are further apart than the error asked for.
    pub different: usize,
    /// Largest difference of a number of an answer, in parts of the float network's largest of that output; 0 where the
    /// answers are labels alone.
    pub error: f64,
    /// Sums that wrapped around or were cut off.
    pub wrapped: u64,
}

impl Fidelity {
    /// Part of the labels that are the same.
    pub fn agreement(&self) -> f64 {
        if self.inputs == 0 { 1.0 } else { self.same as f64 / self.inputs as f64 }
    }

    /// Whether this is what was asked for. A near tie that falls the other way is no difference here.
    pub fn reaches(&self, goal: &Goal) -> bool {
        let different = self.different as f64 / self.inputs.max(1) as f64;
        self.error <= goal.error && 1.0 - different >= goal.agreement
    }

    /// Whether at most one label in twenty is another, near ties included: a network whose answers are so often near ties
    /// is worth finer numbers.
    pub(super) fn has_few_ties(&self) -> bool {
        self.inputs - self.same <= self.inputs / TIES
    }

    /// Which of two is nearer to the float network, over the same inputs: fewer labels that differ, then smaller an error.
    pub(super) fn nearness(&self, other: &Fidelity) -> Ordering {
        self.different.cmp(&other.different).then(self.error.total_cmp(&other.error))
    }

    /// Both together.
    fn and(self, other: Fidelity) -> Fidelity {
        Fidelity {
            inputs: self.inputs + other.inputs,
            same: self.same + other.same,
            different: self.different + other.different,
            error: self.error.max(other.error),
            wrapped: self.wrapped + other.wrapped,
        }
    }
}

/// What some inputs showed of an integer network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// In numbers.
    pub fidelity: Fidelity,
    /// By input: what the float network's and the integer network's first outputs say.
    pub labels: Vec<[usize; 2]>,
}

/// Runs a network over the reals and in integers on the same inputs, on all cores. Labels that fall the other way differ
/// where the best two are further apart than `error`, in parts of the largest answer.
///
/// # Errors
/// [`Error::Input`] for inputs that are not the model's, [`Error::Options`] for answers that are not numbers,
/// [`Error::Shape`] if the model is not consistent.
pub fn compare<'a, S: Copy + Into<Sample<'a>>>(
    real: &Real,
    model: &FixedModel,
    samples: &[S],
    error: f64,
) -> Result<Comparison, Error> {
    let (truth, _) = Truth::new(real, &model.graph.input, samples, &Channels::whole(real))?;
    let all: Vec<usize> = (0..samples.len()).collect();
    beside(model, &truth, &all, error)
}

/// The float network's answers to some inputs.
pub(super) struct Truth<'a> {
    /// The inputs.
    pub samples: Vec<Sample<'a>>,
    /// By input, by output.
    pub answers: Vec<Vec<Vec<f64>>>,
    /// Largest magnitude by output.
    pub largest: Vec<f64>,
}

impl<'a> Truth<'a> {
    /// Runs the network; gives the range of every group of `channels` too.
    pub fn new<S: Copy + Into<Sample<'a>>>(
        real: &Real,
        spec: &InputSpec,
        samples: &[S],
        channels: &Channels,
    ) -> Result<(Truth<'a>, Vec<Interval>), Error> {
        let samples: Vec<Sample> = samples.iter().map(|&sample| sample.into()).collect();
        let none = channels.none();
        let parts = in_parallel(&samples, |part| {
            let mut ranges = none.clone();
            let mut answers = Vec::with_capacity(part.len());
            for sample in part {
                let input = sample.seen(spec);
                answers.push(real.run(&input, |value, numbers| channels.see(value, numbers, &mut ranges))?);
            }
            Ok((answers, ranges))
        })?;
        let mut answers = Vec::with_capacity(samples.len());
        let mut ranges = none;
        for (of_part, of_groups) in parts {
            answers.extend(of_part);
            ranges.iter_mut().zip(of_groups).for_each(|(all, own)| {
                *all = (all.0.min(own.0), all.1.max(own.1));
            });
        }
        if answers.iter().flatten().flatten().any(|x: &f64| !x.is_finite()) {
            return Err(Error::Options(
                "the network's answers are not numbers: check its normalisation and its weights".to_owned(),
            ));
        }
        let mut largest = vec![0f64; real.outputs.len()];
        for answer in &answers {
            largest.iter_mut().zip(answer).for_each(|(most, values)| {
                *most = values.iter().fold(*most, |most, x| most.max(x.abs()));
            });
        }
        Ok((Truth { samples, answers, largest }, ranges))
    }
}

/// The integer network's answers beside the float network's, for some inputs by number.
pub(super) fn beside(
    model: &FixedModel,
    truth: &Truth<'_>,
    which: &[usize],
    error: f64,
) -> Result<Comparison, Error> {
    let executor = Executor::new(model)?;
    let parts = in_parallel(which, |part| {
        let mut all = Comparison::default();
        for &at in part {
            let execution = executor.run(truth.samples[at].bytes())?;
            let mut of_input = Fidelity { inputs: 1, wrapped: execution.wrapped, ..Fidelity::default() };
            let (mut same, mut different, mut first) = (true, false, None);
            let mut rest = &execution.logits[..];
            for ((output, float), &largest) in
                model.graph.outputs.iter().zip(&truth.answers[at]).zip(&truth.largest)
            {
                let unit = if largest > 0.0 { largest } else { 1.0 };
                let of_output = labels(output, float, &mut rest, unit, &mut of_input.error);
                for (row, [theirs, mine]) in of_output {
                    same &= mine == theirs;
                    different |= mine != theirs && margin(row, mine, theirs) > 2.0 * error * unit;
                    first.get_or_insert([theirs, mine]);
                }
            }
            (of_input.same, of_input.different) = (usize::from(same), usize::from(different));
            all.fidelity = all.fidelity.and(of_input);
            all.labels.push(first.unwrap_or_default());
        }
        Ok(all)
    })?;
    Ok(parts.into_iter().fold(Comparison::default(), |mut all, part| {
        all.labels.extend(part.labels);
        Comparison { fidelity: all.fidelity.and(part.fidelity), ..all }
    }))
}

/// What an output says, by the float network and by the integers, which are taken off `rest`: by row where a label of each
/// is what the network ends in. Of outputs that are not indices the largest difference is kept in `error`, in parts of `unit`.
fn labels<'a>(
    output: &Output,
    float: &'a [f64],
    rest: &mut &[i32],
    unit: f64,
    error: &mut f64,
) -> Vec<(&'a [f64], [usize; 2])> {
    let count = if output.last == Last::Index { output.shape.iter().product() } else { float.len() };
    let (own, others) = rest.split_at(count.min(rest.len()));
    *rest = others;
    let own: Vec<f64> = own.iter().map(|&integer| f64::from(integer) * output.scale).collect();
    if output.last == Last::Index {
        // An answer of several outputs has one scale, also where integers are in it.
        let index = |own: &f64| own.round().max(0.0) as usize;
        let rows = float.chunks(float.len().div_ceil(count.max(1)).max(1)).zip(&own);
        return rows.map(|(row, own)| (row, [first_largest(row), index(own)])).collect();
    }
    let worst = own.iter().zip(float).fold(0f64, |worst, (a, b)| worst.max((a - b).abs()));
    *error = error.max(worst / unit);
    let row = match output.last {
        Last::Softmax | Last::LogSoftmax | Last::ArgMax => output.row(),
        _ => float.len().max(1),
    };
    let rows = float.chunks(row).zip(own.chunks(row));
    rows.map(|(float, own)| (float, [label(float), label(own)])).collect()
}

/// What an answer says: the number of the largest of several values, and of one whether it is positive.
pub(super) fn label(values: &[f64]) -> usize {
    match values {
        [one] => usize::from(*one > 0.0),
        many => first_largest(many),
    }
}

/// How far the float network is from another label.
pub(super) fn margin(float: &[f64], mine: usize, theirs: usize) -> f64 {
    match float {
        [one] => one.abs(),
        many => many.get(theirs).zip(many.get(mine)).map_or(0.0, |(a, b)| a - b),
    }
}
