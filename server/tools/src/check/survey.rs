//! What a network that is refused would cost.

use std::fs;

use seco_model::numbers::{Goal, all_shared};
use seco_model::{Imported, Survey, survey};
use seco_sdk::shape;

use crate::Error;
use crate::samples::Inputs;
use crate::split::{SplitOptions, bad, label, reading};

/// Bits of a survey's weights and activations, as the search for numbers tries them first.
const BITS: u32 = 7;

/// A network that `seco split` refuses, as far as it goes, with weights of usual sizes: for what it costs. And what is refused
/// of it, which is nothing where its own numbers are what is wrong.
pub(super) fn survey_of(
    options: &SplitOptions,
    inputs: &mut Inputs,
) -> Result<(Imported, Vec<String>), Error> {
    let (path, goal, bits) = (&options.model, &options.goal, options.input_bits);
    let onnx = fs::read(path).map_err(|e| Error::read(path, e))?;
    let mut reading = reading(options, inputs.unknown());
    let Survey { real, refused } = survey(&onnx, &reading).map_err(|e| bad(path, &e))?;
    drop(onnx);
    let mut real = real.with_usual_weights();
    if options.labels_only {
        label(&mut real)?;
    }
    reading.reals = inputs.fit(&real.input, bits, false)?;
    let wrong = |what: String| Error::Model { path: options.calibrate.clone(), what };
    shape::inputs(&real.input, &inputs.axes).map_err(|mismatch| wrong(mismatch.to_string()))?;
    let goal = Goal {
        weight_bits: goal.weight_bits.or(Some(BITS)),
        activation_bits: goal.activation_bits.or(Some(BITS)),
        ..goal.clone()
    };
    let one = inputs.first(real.input.iter().product());
    let imported = Imported::new(real, &reading, one, &goal, &all_shared);
    let imported = imported.map_err(|e| bad(path, &e))?;
    Ok((imported, refused.iter().map(ToString::to_string).collect()))
}
