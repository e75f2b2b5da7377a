//! Choosing a network's numbers: as few bits as keep its answers.
//!
//! The scales follow from two numbers of bits (`scales.rs`), the widths from calibration or from the worst case
//! (`width`). Both numbers of bits are searched for: the fewest AND gates with which the integer network's answers are
//! the float network's on inputs that were held back from calibration. What is reported is measured again on all inputs
//! with the numbers that were chosen.

mod largest;
mod scales;
mod units;

use crate::graph::Last;
use crate::real::Real;
use crate::{Calibration, Error, Executor, FixedModel, InputSpec, WidthRule};
pub use scales::{Interval, Precision};

/// Multiply-accumulates that the float network may take for its ranges, in all.
const FLOAT_WORK: usize = 6_000_000_000;
/// The same for one choice of bits.
const TRIAL_WORK: usize = 1_500_000_000;
/// The same for the last calibration.
const FINAL_WORK: usize = 20_000_000_000;
/// One of so many inputs is held back from calibration, while the bits are searched for.
const HELD_BACK: usize = 4;
/// What a search by some inputs asks for, in parts of the error that all may have.
const MARGIN: f64 = 0.7;
/// How often bits are added where all inputs show what some did not.
const MORE: usize = 4;
/// Bits that are tried first, for weights and activations alike.
const TRIED: [u32; 8] = [7, 8, 9, 10, 11, 12, 14, 16];

/// What is asked of a model's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// Part of the labels that must be the float network's.
    pub agreement: f64,
    /// Largest difference of an answer from the float network's, in parts of that one's largest.
    pub error: f64,
    /// Bits of the largest weight of a layer; none to search for them.
    pub weight_bits: Option<u32>,
    /// Bits of the largest activation; none to search for them.
    pub activation_bits: Option<u32>,
    /// Which widths sums get.
    pub width: WidthRule,
}

impl Default for Goal {
    /// 99% of the labels and one percent of the largest logit.
    fn default() -> Goal {
        let width = WidthRule::default();
        Goal { agreement: 0.99, error: 0.01, weight_bits: None, activation_bits: None, width }
    }
}

/// How well an integer network's answers are the float network's, over some inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fidelity {
    /// Number of inputs.
    pub inputs: usize,
    /// Inputs of which all labels are the same: the largest of every answer of several values, the sign of one.
    pub same: usize,
    /// Inputs whose labels differ where the float network's best two are further apart than the error asked for.
    pub different: usize,
    /// Largest difference of an answer, in parts of the float network's largest of that output.
    pub error: f64,
    /// Sums that wrapped around.
    pub wrapped: u64,
}

impl Fidelity {
    /// Part of the labels that are the same.
    pub fn agreement(&self) -> f64 {
        if self.inputs == 0 { 1.0 } else { self.same as f64 / self.inputs as f64 }
    }

    /// Whether this is what was asked for. A near tie that falls the other way is no difference here.
    fn reaches(&self, goal: &Goal) -> bool {
        let different = self.different as f64 / self.inputs.max(1) as f64;
        self.error <= goal.error && 1.0 - different >= goal.agreement
    }
}

/// A network with its numbers.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The integer network, all widths chosen.
    pub model: FixedModel,
    /// How its widths were chosen.
    pub calibration: Calibration,
    /// What an integer of each value is worth, where that is known.
    pub scales: Vec<Option<f64>>,
    /// How fine its numbers are.
    pub precision: Precision,
    /// How well it answers, over the inputs that chose its bits and those held back then.
    pub fidelity: Fidelity,
    /// Whether that is what was asked for.
    pub reached: bool,
}

/// The float network's answers to some inputs.
struct Truth<'a> {
    /// The inputs.
    samples: Vec<&'a [u8]>,
    /// By input, by output.
    answers: Vec<Vec<Vec<f64>>>,
    /// Largest magnitude by output.
    largest: Vec<f64>,
}

/// Chooses the numbers of a network for inputs like `samples`, any number of them one after the other.
///
/// # Errors
/// [`Error::Input`] if that is not one or more whole inputs, [`Error::Width`] if no choice of bits fits 32-bit rings,
/// [`Error::Node`] for numbers beyond all integers.
pub fn choose(real: &Real, input: &InputSpec, samples: &[u8], goal: &Goal) -> Result<Chosen, Error> {
    let len = input.len().max(1);
    if samples.is_empty() || !samples.len().is_multiple_of(len) {
        return Err(Error::Input(format!(
            "{} values are not one or more inputs of {len}: give whole ones",
            samples.len()
        )));
    }
    let macs = real.macs().max(1);
    let all: Vec<&[u8]> = samples.chunks_exact(len).collect();
    let measured = spread(&all, (FLOAT_WORK / macs).max(4));
    let (truth, ranges) = truth(real, &measured)?;
    let trial = spread(&(0..truth.samples.len()).collect::<Vec<_>>(), (TRIAL_WORK / macs).max(4));
    let held = |i: &usize| trial.len() < 2 * HELD_BACK || i % HELD_BACK == HELD_BACK - 1;
    let calibrating = |i: &usize| trial.len() < 2 * HELD_BACK || i % HELD_BACK != HELD_BACK - 1;
    let of = |chosen: &dyn Fn(&usize) -> bool| -> Vec<usize> {
        trial.iter().enumerate().filter(|(i, _)| chosen(i)).map(|(_, &at)| at).collect()
    };
    let (calibrating, held) = (of(&calibrating), of(&held));
    let joined: Vec<u8> = calibrating.iter().flat_map(|&at| truth.samples[at]).copied().collect();
    let everything = spread(&(0..truth.samples.len()).collect::<Vec<_>>(), (4 * TRIAL_WORK / macs).max(4));
    // What is judged by a few inputs must leave room for the others.
    let part = if held.len() < everything.len() { MARGIN } else { 1.0 };
    let stricter = Goal { error: goal.error * part, ..goal.clone() };
    let mut search = Search {
        real,
        input,
        ranges: &ranges,
        truth: &truth,
        goal: &stricter,
        joined,
        held,
        tried: Vec::new(),
    };
    let mut precision = search.best()?;

    // Once more, on everything.
    let joined: Vec<u8> = spread(&all, (FINAL_WORK / macs).max(10)).into_iter().flatten().copied().collect();
    let finish = |precision: Precision| {
        let (mut model, scales) = scales::build(real, input, &ranges, precision)?;
        let calibration = model.calibrate(&joined, goal.width)?;
        let fidelity = compare(&model, &truth, &everything, goal.error)?;
        let reached = fidelity.reaches(goal);
        Ok::<_, Error>(Chosen { model, calibration, scales, precision, fidelity, reached })
    };
    let mut chosen = finish(precision)?;
    for _ in 0..MORE {
        if chosen.reached || goal.weight_bits.is_some() && goal.activation_bits.is_some() {
            break;
        }
        // One more bit of everything that is not given, as long as it helps.
        precision.weight += u32::from(goal.weight_bits.is_none());
        precision.activation += u32::from(goal.activation_bits.is_none());
        match finish(precision) {
            Ok(finer) if finer.fidelity.error < chosen.fidelity.error => chosen = finer,
            _ => break,
        }
    }
    Ok(chosen)
}

/// At most `count` of them, evenly.
pub fn spread<T: Clone>(all: &[T], count: usize) -> Vec<T> {
    let count = count.min(all.len()).max(1);
    (0..count).filter_map(|i| all.get(i * all.len() / count).cloned()).collect()
}

/// The float network's answers and every value's range.
fn truth<'a>(real: &Real, samples: &[&'a [u8]]) -> Result<(Truth<'a>, Vec<Interval>), Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(samples.len()).max(1);
    let run = |part: &[&'a [u8]]| {
        let mut ranges = vec![(0.0, 0.0); real.nodes.len() + 1];
        let mut answers = Vec::with_capacity(part.len());
        for sample in part {
            let input: Vec<f64> = sample.iter().map(|&byte| f64::from(byte)).collect();
            answers.push(real.run(&input, |value, numbers| {
                let range: &mut Interval = &mut ranges[value];
                *range = numbers.iter().fold(*range, |(low, high), &x| (low.min(x), high.max(x)));
            })?);
        }
        Ok::<_, Error>((answers, ranges))
    };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let parts = samples.chunks(samples.len().div_ceil(threads));
        let started: Vec<_> = parts.map(|part| scope.spawn(move || run(part))).collect();
        let panicked = || Err(Error::Shape("a thread ended early".to_owned()));
        started.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
    });
    let mut answers = Vec::with_capacity(samples.len());
    let mut ranges = vec![(0.0, 0.0); real.nodes.len() + 1];
    for part in parts {
        let (of_part, of_values): (Vec<Vec<Vec<f64>>>, Vec<Interval>) = part?;
        answers.extend(of_part);
        ranges.iter_mut().zip(of_values).for_each(|(all, own): (&mut Interval, Interval)| {
            *all = (all.0.min(own.0), all.1.max(own.1));
        });
    }
    if answers.iter().flatten().flatten().any(|x| !x.is_finite()) {
        return Err(Error::Input(
            "the network's answers are not numbers: check its normalisation".to_owned(),
        ));
    }
    let mut largest = vec![0f64; real.outputs.len()];
    for answer in &answers {
        largest.iter_mut().zip(answer).for_each(|(most, values)| {
            *most = values.iter().fold(*most, |most, x| most.max(x.abs()));
        });
    }
    Ok((Truth { samples: samples.to_vec(), answers, largest }, ranges))
}

/// What a choice of bits costs and how well it does.
#[derive(Clone, Copy)]
struct Trial {
    precision: Precision,
    /// AND gates.
    cost: u64,
    fidelity: Fidelity,
}

struct Search<'a> {
    real: &'a Real,
    input: &'a InputSpec,
    ranges: &'a [Interval],
    truth: &'a Truth<'a>,
    goal: &'a Goal,
    /// What calibrates.
    joined: Vec<u8>,
    /// What judges, by number.
    held: Vec<usize>,
    tried: Vec<Trial>,
}

impl Search<'_> {
    /// The cheapest bits that reach the goal, or those that come closest.
    fn best(&mut self) -> Result<Precision, Error> {
        let mut failure = None;
        let fixed = |bits: u32, given: Option<u32>| given.unwrap_or(bits);
        let mut reached = None;
        for bits in TRIED {
            let precision = Precision {
                weight: fixed(bits, self.goal.weight_bits),
                activation: fixed(bits, self.goal.activation_bits),
            };
            match self.attempt(precision) {
                Ok(trial) if trial.fidelity.reaches(self.goal) => {
                    reached = Some(trial);
                    break;
                }
                Ok(_) => {}
                // More bits would be wider still.
                Err(error @ Error::Width { .. }) => {
                    failure = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let Some(mut best) = reached else {
            let score = |trial: &Trial| trial.fidelity.different as f64 + trial.fidelity.error.min(1e3);
            let closest = self.tried.iter().min_by(|a, b| score(a).total_cmp(&score(b)));
            return match (closest, failure) {
                (Some(trial), _) => Ok(trial.precision),
                (None, Some(error)) => Err(error),
                (None, None) => Err(Error::Shape("no bits to try".to_owned())),
            };
        };
        // One of the two may do with fewer.
        for (weight, activation) in [(1, 0), (0, 1)] {
            loop {
                let Precision { weight: w, activation: a } = best.precision;
                let fewer = Precision {
                    weight: if self.goal.weight_bits.is_none() { w - weight } else { w },
                    activation: if self.goal.activation_bits.is_none() { a - activation } else { a },
                };
                if fewer == best.precision || fewer.weight < 3 || fewer.activation < 3 {
                    break;
                }
                match self.attempt(fewer) {
                    Ok(trial) if trial.fidelity.reaches(self.goal) && trial.cost <= best.cost => best = trial,
                    _ => break,
                }
            }
        }
        Ok(best.precision)
    }

    fn attempt(&mut self, precision: Precision) -> Result<Trial, Error> {
        let (mut model, _) = scales::build(self.real, self.input, self.ranges, precision)?;
        model.calibrate(&self.joined, self.goal.width)?;
        let fidelity = compare(&model, self.truth, &self.held, self.goal.error)?;
        let of =
            |relu: crate::graph::Activation<'_>| relu.len as u64 * u64::from(relu.width.saturating_sub(1));
        let cost = model.graph.activations().map(of).sum();
        let trial = Trial { precision, cost, fidelity };
        self.tried.push(trial);
        Ok(trial)
    }
}

/// The integer network's answers beside the float network's, for some inputs.
fn compare(model: &FixedModel, truth: &Truth<'_>, which: &[usize], error: f64) -> Result<Fidelity, Error> {
    let executor = Executor::new(model)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(which.len()).max(1);
    let run = |part: &[usize]| {
        let mut fidelity = Fidelity::default();
        for &at in part {
            let execution = executor.run(truth.samples[at])?;
            fidelity.wrapped += execution.wrapped;
            let (mut same, mut different) = (true, false);
            let mut rest = &execution.logits[..];
            for ((output, float), &largest) in
                model.graph.outputs.iter().zip(&truth.answers[at]).zip(&truth.largest)
            {
                let unit = if largest > 0.0 { largest } else { 1.0 };
                if output.last == Last::Index {
                    let rows = output.shape.iter().product::<usize>().max(1);
                    let (own, others) = rest.split_at(rows.min(rest.len()));
                    rest = others;
                    for (row, &index) in float.chunks(float.len().div_ceil(rows).max(1)).zip(own) {
                        // An answer of several outputs has one scale, also where integers are in it.
                        let mine = (f64::from(index) * output.scale).round().max(0.0) as usize;
                        let theirs = first_largest(row);
                        same &= mine == theirs;
                        different |= mine != theirs && margin(row, mine, theirs) > 2.0 * error * unit;
                    }
                    continue;
                }
                let (own, others) = rest.split_at(float.len().min(rest.len()));
                rest = others;
                let own: Vec<f64> = own.iter().map(|&integer| f64::from(integer) * output.scale).collect();
                let worst = own.iter().zip(float).fold(0f64, |worst, (a, b)| worst.max((a - b).abs()));
                fidelity.error = fidelity.error.max(worst / unit);
                let (mine, theirs) = (label(&own), label(float));
                same &= mine == theirs;
                different |= mine != theirs && margin(float, mine, theirs) > 2.0 * error * unit;
            }
            fidelity.same += usize::from(same);
            fidelity.different += usize::from(different);
        }
        fidelity.inputs = part.len();
        Ok::<_, Error>(fidelity)
    };
    let parts: Vec<Result<Fidelity, Error>> = std::thread::scope(|scope| {
        let started: Vec<_> = which
            .chunks(which.len().div_ceil(threads).max(1))
            .map(|part| scope.spawn(move || run(part)))
            .collect();
        let panicked = || Err(Error::Shape("a thread ended early".to_owned()));
        started.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
    });
    parts.into_iter().try_fold(Fidelity::default(), |all, part| {
        let part = part?;
        Ok(Fidelity {
            inputs: all.inputs + part.inputs,
            same: all.same + part.same,
            different: all.different + part.different,
            error: all.error.max(part.error),
            wrapped: all.wrapped + part.wrapped,
        })
    })
}

/// What an answer says: the number of the largest of several values, and of one whether it is positive.
pub fn label(values: &[f64]) -> usize {
    match values {
        [one] => usize::from(*one > 0.0),
        many => first_largest(many),
    }
}

fn first_largest(values: &[f64]) -> usize {
    (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best }).unwrap_or(0)
}

/// How far the float network is from another label.
fn margin(float: &[f64], mine: usize, theirs: usize) -> f64 {
    match float {
        [one] => one.abs(),
        many => many.get(theirs).zip(many.get(mine)).map_or(0.0, |(a, b)| a - b),
    }
}
