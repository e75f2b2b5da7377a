//! Choosing a network's numbers: as few bits as keep its answers.
//!
//! The scales follow from two numbers of bits (`scales.rs`), the widths from calibration or from the worst case
//! (`width`). Both numbers of bits are searched for: the fewest AND gates with which the integer network's answers are
//! the float network's on inputs that were held back from calibration. What is reported is measured again, with the
//! numbers that were chosen, on all inputs that the float network ran on: so many as its work allows, evenly.

mod compare;
mod equalise;
mod largest;
mod scales;
mod units;
mod wishes;

use crate::real::Real;
use crate::{Calibration, Error, FixedModel, InputSpec, WidthRule};
pub use compare::{Comparison, Fidelity, compare};
use compare::{Truth, beside};
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
    /// How well it answers, over the inputs that the float network ran on: those that chose its bits and those held back
    /// then.
    pub fidelity: Fidelity,
    /// Whether that is what was asked for.
    pub reached: bool,
}

/// Chooses the numbers of a network for inputs like `samples`, any number of them one after the other.
///
/// # Errors
/// [`Error::Input`] if that is not one or more whole inputs, [`Error::Width`] if no choice of bits fits 32-bit rings,
/// [`Error::Node`] for numbers beyond all integers.
pub fn choose(real: &Real, input: &InputSpec, samples: &[u8], goal: &Goal) -> Result<Chosen, Error> {
    let all: Vec<&[u8]> = input.inputs(samples)?.collect();
    let macs = real.macs().max(1);
    let spreaded = spread(&all, (FLOAT_WORK / macs).max(4));
    let rule = match std::env::var("EQ").as_deref() { Ok("w") => Some(equalise::Rule::Weights), Ok("v") => Some(equalise::Rule::Values), Ok("b") => Some(equalise::Rule::Both), _ => None };
    let mut own = None;
    if let Some(rule) = rule { let t = std::time::Instant::now(); if let Some(ch) = equalise::Channels::new(real) { own = equalise::equalised(real, &ch, &spread(&all, 16), rule)?; } eprintln!("equalise {:?} {}", t.elapsed(), own.is_some()); }
    let real = own.as_ref().unwrap_or(real);
    let (truth, ranges) = Truth::new(real, &spreaded)?;
    let everything: Vec<usize> = (0..truth.samples.len()).collect();
    let trial = spread(&everything, (TRIAL_WORK / macs).max(4));
    let held = |i: &usize| trial.len() < 2 * HELD_BACK || i % HELD_BACK == HELD_BACK - 1;
    let calibrating = |i: &usize| trial.len() < 2 * HELD_BACK || i % HELD_BACK != HELD_BACK - 1;
    let of = |chosen: &dyn Fn(&usize) -> bool| -> Vec<usize> {
        trial.iter().enumerate().filter(|(i, _)| chosen(i)).map(|(_, &at)| at).collect()
    };
    let (calibrating, held) = (of(&calibrating), of(&held));
    let joined: Vec<u8> = calibrating.iter().flat_map(|&at| truth.samples[at]).copied().collect();
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

    // Once more, on everything that the float network ran on.
    let joined: Vec<u8> = spread(&all, (FINAL_WORK / macs).max(10)).into_iter().flatten().copied().collect();
    let finish = |precision: Precision| {
        let (mut model, scales) = scales::build(real, input, &ranges, precision, goal.width)?;
        let calibration = model.calibrate(&joined, goal.width)?;
        let fidelity = beside(&model, &truth, &everything, goal.error)?.fidelity;
        let reached = fidelity.reaches(goal);
        Ok::<_, Error>(Chosen { model, calibration, scales, precision, fidelity, reached })
    };
    let mut chosen = finish(precision)?;
    for _ in 0..MORE {
        let enough = chosen.reached && chosen.fidelity.has_few_ties();
        if enough || goal.weight_bits.is_some() && goal.activation_bits.is_some() {
            break;
        }
        // One more bit of everything that is not given, as long as it helps.
        precision.weight += u32::from(goal.weight_bits.is_none());
        precision.activation += u32::from(goal.activation_bits.is_none());
        match finish(precision) {
            Ok(finer) if finer.fidelity.nearness(&chosen.fidelity).is_lt() => chosen = finer,
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
            if self.tried.iter().any(|trial| trial.precision == precision) {
                // Both are given.
                break;
            }
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
            let closest = self.tried.iter().min_by(|a, b| a.fidelity.nearness(&b.fidelity));
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
        let (mut model, _) = scales::build(self.real, self.input, self.ranges, precision, self.goal.width)?;
        model.calibrate(&self.joined, self.goal.width)?;
        let fidelity = beside(&model, self.truth, &self.held, self.goal.error)?.fidelity;
        let cost = model.graph.activations().map(|relu| relu.and_gates()).sum();
        let trial = Trial { precision, cost, fidelity };
        self.tried.push(trial);
        Ok(trial)
    }
}
