//! The search for the cheapest numbers that keep a network's answers.

use std::borrow::Cow;
use std::cell::Cell;

use super::equalise::{Channels, Rule, equalised, gains, read_gains};
use super::moments::Moments;
use super::{Fidelity, Goal, Interval, Precision, Truth, beside, scales};
use crate::real::Real;
use crate::{Error, InputSpec};

/// Bits that are tried first, for weights and activations alike.
const TRIED: [u32; 8] = [7, 8, 9, 10, 11, 12, 14, 16];
/// What is tried where rings are too narrow for the first of them.
const FEWER: [u32; 4] = [6, 5, 4, 3];
/// Fewest and most bits of either.
const BITS: core::ops::RangeInclusive<u32> = 3..=20;
/// Where to look for something cheaper next, in bits of weights and activations.
const STEPS: [(i32, i32); 6] = [(-1, 0), (0, -1), (1, -2), (-2, 1), (1, -1), (-1, 1)];
/// How far bits of one are given for bits of the other, where the same number of both is too few or too many.
const FAR: i32 = 6;

/// Most choices that are tried.
const MAX_TRIALS: usize = 80;

/// One choice of a network's gains.
pub(super) struct Variant {
    /// By class of its channels, in bits; none for the network as it is.
    bits: Option<Vec<i32>>,
    /// By value.
    pub ranges: Vec<Interval>,
}

impl Variant {
    /// The network as it is and with its channels equalised, `groups` being the ranges of the former's.
    pub(super) fn all(real: &Real, channels: &Channels, groups: &[Interval]) -> Vec<Variant> {
        let equalised = [Rule::Weights, Rule::Values].map(|rule| gains(real, channels, groups, rule));
        let bits = [None].into_iter().chain(equalised.into_iter().flatten().map(Some));
        bits.map(|bits| Variant { ranges: channels.ranges(groups, bits.as_deref()), bits }).collect()
    }

    /// The network with its gains.
    pub(super) fn network<'a>(&self, real: &'a Real, channels: &Channels) -> Cow<'a, Real> {
        match &self.bits {
            Some(bits) => Cow::Owned(equalised(real, channels, bits)),
            None => Cow::Borrowed(real),
        }
    }

    /// How its weights are rounded.
    pub(super) fn rounding<'a>(
        &self,
        real: &Real,
        channels: &Channels,
        moments: &'a Moments,
    ) -> scales::Rounding<'a> {
        let gains = self.bits.as_ref().map(|bits| read_gains(real, channels, bits)).unwrap_or_default();
        scales::Rounding { moments, gains }
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
    pub real: &'a Real,
    pub channels: &'a Channels,
    pub moments: &'a Moments,
    pub input: &'a InputSpec,
    pub variants: &'a [Variant],
    pub truth: &'a Truth<'a>,
    pub goal: &'a Goal,
    /// What calibrates.
    pub joined: Vec<u8>,
    /// What judges, by number.
    pub held: Vec<usize>,
    /// How many choices were tried.
    pub trials: Cell<usize>,
}

impl Search<'_> {
    /// The cheapest bits that reach the goal, of every variant that is found to, the cheapest first; or those that come
    /// closest.
    ///
    /// # Errors
    /// That of the coarsest numbers, if no others fit either.
    pub(super) fn best(&self) -> Result<Vec<(usize, Precision)>, Error> {
        let mut tried = Vec::new();
        let (mut failure, mut best) = (None, None);
        'found: for bits in TRIED {
            let precision = self.given(bits, bits);
            for variant in 0..self.variants.len() {
                match self.attempt(variant, precision, u64::MAX) {
                    Ok(Some(trial)) if self.reaches(&trial) => {
                        best = Some(trial);
                        break 'found;
                    }
                    Ok(trial) => tried.extend(trial),
                    Err(error) if is_too_fine(&error) => failure = failure.or(Some(error)),
                    Err(error) => return Err(error),
                }
            }
            // More bits would be wider still.
            if failure.is_some() || self.goal.weight_bits.is_some() && self.goal.activation_bits.is_some() {
                break;
            }
        }
        let given = self.goal.weight_bits.is_some() && self.goal.activation_bits.is_some();
        if best.is_none() && tried.is_empty() && !given {
            'fewer: for bits in FEWER {
                for variant in 0..self.variants.len() {
                    if let Some(trial) = self.optional(variant, self.given(bits, bits), u64::MAX)? {
                        best = Some(trial).filter(|trial| self.reaches(trial));
                        tried.push(trial);
                        break 'fewer;
                    }
                }
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
            if let Some(trial) = self.optional(variant, from, u64::MAX)?.filter(|trial| self.reaches(trial)) {
                found.push(self.cheaper(trial)?);
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
                    let trial = self.optional(variant, precision, u64::MAX)?;
                    if trial.as_ref().is_some_and(|trial| self.reaches(trial)) {
                        return Ok(trial);
                    }
                    tried.extend(trial);
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
                // Fewer bits may cost the same before they cost less.
                let most = best.cost + u64::from(step.0 <= 0 && step.1 <= 0);
                let trial = self.optional(best.variant, precision, most)?;
                if let Some(trial) = trial.filter(|trial| self.reaches(trial)) {
                    best = trial;
                    continue 'next;
                }
            }
            return Ok(best);
        }
    }

    /// Whether it is good enough. Gains leave less room for inputs that were not seen: where these wrap around they are too
    /// large.
    fn reaches(&self, trial: &Trial) -> bool {
        trial.fidelity.reaches(self.goal) && (trial.variant == 0 || trial.fidelity.wrapped == 0)
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
        // Those that are given may be any, and stay.
        let step = |bits: u32, step: i32, given: Option<u32>| match given {
            Some(bits) => Some(bits),
            None => bits.checked_add_signed(step).filter(|bits| BITS.contains(bits)),
        };
        let made = Precision {
            weight: step(from.weight, weight, self.goal.weight_bits)?,
            activation: step(from.activation, activation, self.goal.activation_bits)?,
        };
        (made != from).then_some(made)
    }

    /// The same as [`Search::attempt`]; nothing for numbers that do not fit.
    fn optional(&self, number: usize, precision: Precision, most: u64) -> Result<Option<Trial>, Error> {
        match self.attempt(number, precision, most) {
            Err(error) if is_too_fine(&error) => Ok(None),
            made => made,
        }
    }

    /// How well numbers do, if they are cheaper than `most` and not too many were tried.
    fn attempt(&self, number: usize, precision: Precision, most: u64) -> Result<Option<Trial>, Error> {
        let Some(variant) = self.variants.get(number).filter(|_| self.trials.get() < MAX_TRIALS) else {
            return Ok(None);
        };
        self.trials.set(self.trials.get() + 1);
        let real = variant.network(self.real, self.channels);
        let rounding = variant.rounding(self.real, self.channels, self.moments);
        let built = scales::build(&real, self.input, &variant.ranges, precision, self.goal, Some(&rounding))?;
        let mut model = built.model;
        model.calibrate(&self.joined, self.goal.width)?;
        let cost = model.graph.activations().map(|relu| relu.and_gates()).sum();
        if cost >= most {
            return Ok(None);
        }
        let fidelity = beside(&model, self.truth, &self.held, self.goal.error)?.fidelity;
        Ok(Some(Trial { variant: number, precision, cost, fidelity }))
    }
}

/// Whether numbers are too fine for the rings or for integers, so that coarser ones may do.
pub(super) fn is_too_fine(error: &Error) -> bool {
    matches!(error, Error::Width { .. } | Error::Node { .. })
}
