//! Choosing a network's numbers: as few bits as keep its answers.
//!
//! The scales follow from two numbers of bits (`scales.rs`), the widths from calibration or from the worst case
//! (`width`). Both numbers of bits are searched for, and whether channels are equalised (`equalise.rs`): the fewest AND
//! gates with which the integer network's answers are the float network's on inputs that were held back from calibration.
//! Weights are rounded for what their layers make of the calibration's inputs (`rounding.rs`).
//! What is reported is measured again, with the numbers that were chosen, on all inputs that the float network ran on: so
//! many as its work allows, evenly.

mod coarser;
mod compare;
mod equalise;
mod largest;
mod moments;
mod rounding;
mod scales;
mod search;
mod units;
mod wishes;

use std::cell::Cell;
use std::collections::HashSet;

use crate::graph::Last;
use crate::real::{Origin, Real, RealNode, RealOp, RealOutput};
use crate::{Calibration, Error, FixedModel, InputSpec, WidthRule};
pub use coarser::fewest_input_bits;
pub use compare::{Comparison, Fidelity, compare};
use compare::{Truth, beside};
use equalise::Channels;
use moments::Moments;
use scales::Built;
pub use scales::{Interval, Precision};
use search::{Search, Variant, is_too_fine};

/// Products and additions that the float network may take for its ranges, in all.
const FLOAT_WORK: usize = 12_000_000_000;
/// The same for one choice of bits.
const TRIAL_WORK: usize = 1_500_000_000;
/// The same for the last calibration.
const FINAL_WORK: usize = 20_000_000_000;
/// One of so many inputs is held back from calibration, while the bits are searched for.
const HELD_BACK: usize = 4;
/// What a search by some inputs asks for, in parts of the error that all may have.
const MARGIN: f64 = 0.7;
/// Largest number of an answer.
const LARGEST_ANSWER: f64 = (1u32 << 30) as f64;
/// How often bits are added where all inputs show what some did not.
const MORE: usize = 4;

/// Inputs of any number, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    /// As devices send them ([`InputSpec`]).
    pub bytes: &'a [u8],
    /// The real numbers that they were made from, where values stand for such ([`crate::Reals`]): the float network sees
    /// these, so that what is lost by rounding and cutting counts.
    pub reals: Option<&'a [f64]>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    bytes: &'a [u8],
    reals: Option<&'a [f64]>,
}

/// Bytes that are all there is.
impl<'a, B: AsRef<[u8]> + ?Sized> From<&'a B> for Samples<'a> {
    fn from(bytes: &'a B) -> Samples<'a> {
        Samples { bytes: bytes.as_ref(), reals: None }
    }
}

/// Bytes that are all there is.
impl<'a> From<&'a [u8]> for Sample<'a> {
    fn from(bytes: &'a [u8]) -> Sample<'a> {
        Sample { bytes, reals: None }
    }
}

impl<'a> Samples<'a> {
    /// One by one.
    ///
    /// # Errors
    /// [`Error::Input`] if that is not one or more whole ones, with as many real numbers as values.
    pub fn each(self, spec: &InputSpec) -> Result<Vec<Sample<'a>>, Error> {
        let bytes = spec.inputs(self.bytes)?;
        let Some(reals) = self.reals else { return Ok(bytes.map(Sample::from).collect()) };
        if reals.len() != bytes.len() * spec.len() {
            return Err(Error::Input(format!(
                "{} real numbers for {} inputs of {} values: give one for each",
                reals.len(),
                bytes.len(),
                spec.len()
            )));
        }
        let reals = reals.chunks_exact(spec.len().max(1));
        Ok(bytes.zip(reals).map(|(bytes, reals)| Sample { bytes, reals: Some(reals) }).collect())
    }
}

impl<'a> Sample<'a> {
    /// As devices send it.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What the float network sees, in units of input values.
    fn seen(&self, spec: &InputSpec) -> Vec<f64> {
        match self.reals {
            Some(reals) => spec.unrounded(reals),
            None => spec.values(self.bytes).map(f64::from).collect(),
        }
    }
}

/// Which of a network's layers one server has in clear, by their names in the order of the integer network.
pub type Clear<'a> = &'a dyn Fn(&[&str]) -> Vec<bool>;

/// None of them: all are shared.
pub fn all_shared(layers: &[&str]) -> Vec<bool> {
    vec![false; layers.len()]
}

/// How many inputs judge a network's numbers, at most.
pub fn judges(real: &Real) -> usize {
    (FLOAT_WORK / work(real)).max(4)
}

/// What a run of the network takes: products and additions.
fn work(real: &Real) -> usize {
    real.additions().saturating_add(real.macs()).max(1)
}

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
    /// What an integer of each value is worth, where that is known: of channels whose gain is 1, if they were equalised.
    pub scales: Vec<Option<f64>>,
    /// By layer, whether its weights were rounded for what it makes of inputs like the calibration's, and not each to
    /// nearest.
    pub compensated: Vec<bool>,
    /// How fine its numbers are.
    pub precision: Precision,
    /// How well it answers, over the inputs that the float network ran on: those that chose its bits and those held back
    /// then.
    pub fidelity: Fidelity,
    /// Whether that is what was asked for.
    pub reached: bool,
}

impl Chosen {
    /// Whether it is better than another one, over the same inputs: what was asked for, then nearer to the float network.
    fn is_better(&self, other: &Chosen) -> bool {
        match (self.reached, other.reached) {
            (a, b) if a != b => a,
            _ => self.fidelity.nearness(&other.fidelity).is_lt(),
        }
    }
}

/// Chooses the numbers of a network for inputs like `samples`. Layers that are
/// `clear` have weights that do not depend on those of others.
///
/// # Errors
/// [`Error::Input`] if that is not one or more whole inputs, [`Error::Width`] if no choice of bits fits 32-bit rings,
/// [`Error::Node`] for numbers beyond all integers.
pub fn choose<'a>(
    real: &Real,
    input: &InputSpec,
    samples: impl Into<Samples<'a>>,
    goal: &Goal,
    clear: Clear<'_>,
) -> Result<Chosen, Error> {
    let all = samples.into().each(input)?;
    let work = work(real);
    let in_clear = in_clear(real, input, clear);
    let channels = Channels::new(real, &in_clear);
    let (truth, groups) = Truth::new(real, input, &spread(&all, judges(real)), &channels)?;
    representable(real, &truth)?;
    let variants = Variant::all(real, &channels, &groups);
    let everything: Vec<usize> = (0..truth.samples.len()).collect();
    let trial = spread(&everything, (TRIAL_WORK / work).max(4));
    let held = |i: &usize| trial.len() < 2 * HELD_BACK || i % HELD_BACK == HELD_BACK - 1;
    let calibrating = |i: &usize| trial.len() < 2 * HELD_BACK || i % HELD_BACK != HELD_BACK - 1;
    let of = |chosen: &dyn Fn(&usize) -> bool| -> Vec<usize> {
        trial.iter().enumerate().filter(|(i, _)| chosen(i)).map(|(_, &at)| at).collect()
    };
    let (calibrating, held) = (of(&calibrating), of(&held));
    // How weights are rounded must not know what judges the bits.
    let seen = spread(&everything, Moments::inputs(work));
    let which = |judge: bool| -> Vec<Sample<'_>> {
        let own = seen.iter().enumerate().filter(|(i, _)| (i % HELD_BACK == HELD_BACK - 1) == judge);
        let own = own.filter(|(_, at)| judge || held.binary_search(at).is_err());
        own.map(|(_, &at)| truth.samples[at]).collect()
    };
    let moments = Moments::new(real, input, &which(false), &which(true), &in_clear)?;
    let joined: Vec<u8> = calibrating.iter().flat_map(|&at| truth.samples[at].bytes).copied().collect();
    // What is judged by a few inputs must leave room for the others.
    let part = if held.len() < everything.len() { MARGIN } else { 1.0 };
    let stricter = Goal { error: goal.error * part, ..goal.clone() };
    let search = Search {
        real,
        channels: &channels,
        moments: &moments,
        input,
        variants: &variants,
        truth: &truth,
        goal: &stricter,
        joined,
        held,
        trials: Cell::new(0),
    };
    let found = search.best()?;

    // Once more, on everything that the float network ran on.
    let last = spread(&all, (FINAL_WORK / work).max(10));
    let joined: Vec<u8> = last.iter().flat_map(|sample| sample.bytes).copied().collect();
    let finish = |(variant, precision): (usize, Precision)| {
        let variant = variants.get(variant).ok_or_else(|| Error::Shape("no numbers to try".to_owned()))?;
        let rounding = variant.rounding(real, &channels, &moments);
        let real = variant.network(real, &channels);
        let Built { mut model, scales, compensated } =
            scales::build(&real, input, &variant.ranges, precision, goal, Some(&rounding))?;
        let calibration = model.calibrate(&joined, goal.width)?;
        let fidelity = beside(&model, &truth, &everything, goal.error)?.fidelity;
        let reached = fidelity.reaches(goal);
        Ok::<_, Error>(Chosen { model, calibration, scales, compensated, precision, fidelity, reached })
    };
    let enough = |chosen: &Chosen| chosen.reached && chosen.fidelity.has_few_ties();
    let mut best: Option<((usize, Precision), Chosen)> = None;
    let mut failure = None;
    for &at in &found {
        match finish(at) {
            Ok(other) if best.as_ref().is_none_or(|(_, best)| other.is_better(best)) => {
                best = Some((at, other))
            }
            Ok(_) => {}
            Err(error) if is_too_fine(&error) => failure = failure.or(Some(error)),
            Err(error) => return Err(error),
        }
        if best.as_ref().is_some_and(|(_, best)| enough(best)) {
            break;
        }
    }
    let Some((mut at, mut chosen)) = best else {
        return Err(failure.unwrap_or_else(|| Error::Shape("no numbers to try".to_owned())));
    };
    for _ in 0..MORE {
        if enough(&chosen) {
            break;
        }
        // One more bit of one, or of both that are not given, as long as it helps.
        let mut finer: Option<((usize, Precision), Chosen)> = None;
        for step in [(1, 0), (0, 1), (1, 1)] {
            let Some(precision) = search.moved(at.1, step) else { continue };
            match finish((at.0, precision)) {
                Ok(other) if other.is_better(finer.as_ref().map_or(&chosen, |(_, best)| best)) => {
                    finer = Some(((at.0, precision), other));
                }
                Ok(_) => {}
                Err(error) if is_too_fine(&error) => {}
                Err(error) => return Err(error),
            }
            if finer.as_ref().is_some_and(|(_, finer)| enough(finer)) {
                break;
            }
        }
        match finer {
            Some(finer) => (at, chosen) = finer,
            None => break,
        }
    }
    Ok(chosen)
}

/// Refuses answers whose integers no ring holds, for an integer of them is worth 1 at most.
fn representable(real: &Real, truth: &Truth<'_>) -> Result<(), Error> {
    let beyond =
        |(output, largest): &(&RealOutput, &f64)| output.last != Last::Index && **largest > LARGEST_ANSWER;
    match real.outputs.iter().zip(&truth.largest).find(beyond) {
        None => Ok(()),
        Some((output, largest)) => {
            let origin = Origin { name: output.name.clone(), op: "output".to_owned() };
            Err(origin.error(format!(
                "its numbers are up to {largest:.1e}, and answers up to {LARGEST_ANSWER:.1e} are possible: check the \
                 normalisation (--scale, --mean, --std) and the weights, or divide it by a constant in the network"
            )))
        }
    }
}

/// By node, whether it is a layer that one server has in clear. Copies of a layer have its name, and are where it is.
fn in_clear(real: &Real, input: &InputSpec, clear: Clear<'_>) -> Vec<bool> {
    // The order of layers is the same whatever the numbers are.
    let (coarse, ranges) = (Precision { weight: 3, activation: 3 }, vec![(0.0, 0.0); real.nodes.len() + 1]);
    let layer = |node: &RealNode| matches!(node.op, RealOp::Linear(_));
    let Ok(Built { model, .. }) = scales::build(real, input, &ranges, coarse, &Goal::default(), None) else {
        // Then none is equalised.
        return real.nodes.iter().map(layer).collect();
    };
    let names: Vec<&str> = model.graph.layers().map(|layer| layer.name).collect();
    let clear: HashSet<&str> =
        names.iter().zip(clear(&names)).filter(|(_, clear)| *clear).map(|(name, _)| *name).collect();
    real.nodes.iter().map(|node| layer(node) && clear.contains(node.origin.name.as_str())).collect()
}

/// At most `count` of them, evenly.
pub fn spread<T: Clone>(all: &[T], count: usize) -> Vec<T> {
    let count = count.min(all.len()).max(1);
    (0..count).filter_map(|i| all.get(i * all.len() / count).cloned()).collect()
}
