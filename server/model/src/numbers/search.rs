//! The search for the cheapest numbers that keep a network's answers.

use super::equalise::{Channels, Rule, equalised};
use super::{Fidelity, Goal, Interval, Precision, Truth, beside, scales};
use crate::real::Real;
use crate::{Error, InputSpec};

/// Bits that are tried first, for weights and activations alike.
const TRIED: [u32; 8] = [7, 8, 9, 10, 11, 12, 14, 16];
/// Fewest and most bits of either.
const BITS: core::ops::RangeInclusive<u32> = 3..=20;
/// Where to look for something cheaper next, in bits of weights and activations.
const STEPS: [(i32, i32); 6] = [(-1, 0), (0, -1), (1, -2), (-2, 1), (1, -1), (-1, 1)];
/// How far bits of one are given for bits of the other, where the same number of both is too few or too many.
const FAR: i32 = 6;

/// A network with one choice of its channels' gains.
pub(super) struct Variant<'a> {
    /// The network; none for the one that was given.
    equalised: Option<Real>,
    given: &'a Real,
    /// By value.
    pub ranges: Vec<Interval>,
}

impl<'a> Variant<'a> {
    /// The network as it is and with its channels equalised, `groups` being the ranges of the former's.
    pub(super) fn all(given: &'a Real, channels: &Channels, groups: &[Interval]) -> Vec<Variant<'a>> {
        let mut all = vec![Variant { equalised: None, given, ranges: channels.ranges(groups, None) }];
        for rule in [Rule::Weights, Rule::Values] {
            if let Some((real, ranges)) = equalised(given, channels, groups, rule) {
                all.push(Variant { equalised: Some(real), given, ranges });
            }
        }
        all
    }

    /// The network.
    pub(super) fn real(&self) -> &Real {
        self.equalised.as_ref().unwrap_or(self.given)
    }
}

/// What a choice of numbers costs and how well it does.
#[derive(Clone, Copy)]
struct Trial {
    variant: usize,
    precision: Precision,
    /// AND gates.
    cost: u64,
    fidelity: Fidelity,
}

/// What is searched for, and in what.
pub(super) struct Search<'a> {
    pub input: &'a InputSpec,
    pub variants: &'a [Variant<'a>],
    pub truth: &'a Truth<'a>,
    pub goal: &'a Goal,
    /// What calibrates.
    pub joined: Vec<u8>,
    /// What judges, by number.
    pub held: Vec<usize>,
}

impl Search<'_> {
    /// The cheapest bits that reach the goal, of every variant that is found to, the cheapest first; or those that come
    /// closest.
    pub(super) fn best(&self) -> Result<Vec<(usize, Precision)>, Error> {
        let mut tried = Vec::new();
        let mut failure = None;
        let mut best = None;
        'found: for bits in TRIED {
            for variant in 0..self.variants.len() {
                let precision = self.given(bits, bits);
                match self.attempt(variant, precision, u64::MAX) {
                    Ok(Some(trial)) if trial.fidelity.reaches(self.goal) => {
                        best = Some(trial);
                        break 'found;
                    }
                    Ok(trial) => tried.extend(trial),
                    // More bits would be wider still.
                    Err(error @ Error::Width { .. }) if variant == 0 => {
                        failure = Some(error);
                        break 'found;
                    }
                    Err(Error::Width { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            if self.goal.weight_bits.is_some() && self.goal.activation_bits.is_some() {
                break;
            }
        }
        let closest = |tried: &[Trial]| tried.iter().copied().min_by(|a, b| a.fidelity.nearness(&b.fidelity));
        if best.is_none()
            && let Some(from) = closest(&tried)
        {
            best = self.traded(from, &mut tried)?;
        }
        let Some(best) = best else {
            return match (closest(&tried), failure) {
                (Some(trial), _) => Ok(vec![(trial.variant, trial.precision)]),
                (None, Some(error)) => Err(error),
                (None, None) => Err(Error::Shape("no bits to try".to_owned())),
            };
        };
        let mut found = vec![self.cheaper(best)?];
        for variant in (0..self.variants.len()).filter(|&variant| variant != best.variant) {
            let from =
                found.iter().min_by_key(|trial| trial.cost).map_or(best.precision, |trial| trial.precision);
            // With as many bits it may cost a little more before it costs less.
            match self.attempt(variant, from, u64::MAX) {
                Ok(Some(trial)) if trial.fidelity.reaches(self.goal) => found.push(self.cheaper(trial)?),
                Ok(_) | Err(Error::Width { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by_key(|trial| trial.cost);
        Ok(found.into_iter().map(|trial| (trial.variant, trial.precision)).collect())
    }

    /// The first that reaches the goal with bits of one of the two given for bits of the other, from `from` on.
    fn traded(&self, from: Trial, tried: &mut Vec<Trial>) -> Result<Option<Trial>, Error> {
        for variant in 0..self.variants.len() {
            for sign in [1, -1] {
                for far in 1..=FAR {
                    let Some(precision) = self.moved(from.precision, (sign * far, -sign * far)) else {
                        break;
                    };
                    match self.attempt(variant, precision, u64::MAX) {
                        Ok(Some(trial)) if trial.fidelity.reaches(self.goal) => return Ok(Some(trial)),
                        Ok(trial) => tried.extend(trial),
                        Err(Error::Width { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(None)
    }

    /// From one that reaches the goal to the cheapest that is found step by step.
    fn cheaper(&self, mut best: Trial) -> Result<Trial, Error> {
        'next: loop {
            for step in STEPS {
                let Some(precision) = self.moved(best.precision, step) else { continue };
                match self.attempt(best.variant, precision, best.cost) {
                    Ok(Some(trial)) if trial.fidelity.reaches(self.goal) => {
                        best = trial;
                        continue 'next;
                    }
                    Ok(_) | Err(Error::Width { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(best);
        }
    }

    /// These bits, where none are given.
    fn given(&self, weight: u32, activation: u32) -> Precision {
        let (given_weight, given_activation) = (self.goal.weight_bits, self.goal.activation_bits);
        Precision {
            weight: given_weight.unwrap_or(weight),
            activation: given_activation.unwrap_or(activation),
        }
    }

    /// Bits one step away, if they are others and can be.
    pub(super) fn moved(&self, from: Precision, (weight, activation): (i32, i32)) -> Option<Precision> {
        let step = |bits: u32, step: i32| bits.checked_add_signed(step).filter(|bits| BITS.contains(bits));
        let made = self.given(step(from.weight, weight)?, step(from.activation, activation)?);
        (made != from).then_some(made)
    }

    /// How well numbers do, if they are cheaper than `most`.
    fn attempt(&self, number: usize, precision: Precision, most: u64) -> Result<Option<Trial>, Error> {
        let Some(variant) = self.variants.get(number) else { return Ok(None) };
        let rule = self.goal.width;
        let (mut model, _) = scales::build(variant.real(), self.input, &variant.ranges, precision, rule)?;
        model.calibrate(&self.joined, rule)?;
        let cost = model.graph.activations().map(|relu| relu.and_gates()).sum();
        if cost >= most {
            return Ok(None);
        }
        let fidelity = beside(&model, self.truth, &self.held, self.goal.error)?.fidelity;
        Ok(Some(Trial { variant: number, precision, cost, fidelity }))
    }
}
