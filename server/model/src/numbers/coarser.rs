//! Whether a network needs its inputs as fine as they are: the float network alone, on inputs of fewer bits.

use std::ops::Range;

use super::compare::{Truth, label, margin};
use super::equalise::Channels;
use super::{Goal, Sample};
use crate::graph::{Last, labelled_row};
use crate::parallel::in_parallel;
use crate::real::{Real, RealOutput};
use crate::{Error, InputSpec, largest};

/// Inputs that decide, at most: each is run once for every number of bits that is tried, which must not take long.
const JUDGES: usize = 100;

/// The fewest bits of an input value, of a range of them, with which the float network's answers are as near to its own as was
/// asked for, on some of these inputs: values are rounded to so many steps from 0 to the largest. That is what a device
/// makes of real numbers, so it tells how many bits these need. The end of the range where none of it does.
///
/// # Errors
/// [`Error::Input`] for inputs that are not the model's, [`Error::Options`] for answers that are not numbers,
/// [`Error::Shape`] for a network whose parts do not fit.
pub fn fewest_input_bits<'a, S: Copy + Into<Sample<'a>>>(
    real: &Real,
    spec: &InputSpec,
    samples: &[S],
    goal: &Goal,
    range: Range<u32>,
) -> Result<u32, Error> {
    let samples: Vec<Sample> = samples.iter().map(|&sample| sample.into()).collect();
    let samples = super::spread(&samples, (super::TRIAL_WORK / super::work(real)).clamp(4, JUDGES));
    let run = |bits: u32, sample: &Sample<'_>| {
        let step = f64::from(spec.largest()) / f64::from(largest(bits).max(1));
        let input: Vec<f64> = sample.seen(spec).into_iter().map(|v| (v / step).round() * step).collect();
        real.run(&input, |_, _| ())
    };
    let (truth, _) = Truth::new(real, spec, &samples, &Channels::whole(real))?;
    let pairs: Vec<_> = truth.samples.iter().zip(&truth.answers).collect();
    for bits in range.clone() {
        let parts = in_parallel(&pairs, |part| {
            let near = |(sample, exact): &(&Sample<'_>, &Vec<Vec<f64>>)| {
                let coarse = run(bits, sample)?;
                let mut near = Near { error: 0.0, same: true };
                for (((output, mine), theirs), largest) in
                    real.outputs.iter().zip(&coarse).zip(exact.iter()).zip(&truth.largest)
                {
                    near.see(output, [mine, theirs], if *largest > 0.0 { *largest } else { 1.0 }, goal.error);
                }
                Ok(near)
            };
            part.iter().map(near).collect::<Result<Vec<_>, Error>>()
        })?;
        let all: Vec<Near> = parts.into_iter().flatten().collect();
        let same = all.iter().filter(|near| near.same).count() as f64;
        let agrees = same >= goal.agreement * all.len() as f64;
        if agrees && all.iter().all(|near| near.error <= goal.error) {
            return Ok(bits);
        }
    }
    Ok(range.end)
}

/// How near the answers to one input are.
struct Near {
    /// Largest difference, in parts of the largest number of its output.
    error: f64,
    /// Whether labels are the same, near ties apart.
    same: bool,
}

impl Near {
    /// Looks at an output: of coarser inputs, and of those that there are.
    fn see(&mut self, output: &RealOutput, [mine, theirs]: [&[f64]; 2], unit: f64, error: f64) {
        if output.last != Last::Index {
            let worst = mine.iter().zip(theirs).fold(0f64, |worst, (a, b)| worst.max((a - b).abs()));
            self.error = self.error.max(worst / unit);
        }
        let row = match output.last {
            Last::Softmax | Last::LogSoftmax | Last::ArgMax | Last::Index => labelled_row(&output.shape),
            _ => theirs.len(),
        };
        for (mine, theirs) in mine.chunks(row.max(1)).zip(theirs.chunks(row.max(1))) {
            let labels = [label(mine), label(theirs)];
            self.same &= labels[0] == labels[1] || margin(theirs, labels[0], labels[1]) <= 2.0 * error * unit;
        }
    }
}
