//! From an ONNX file to a fixed-point model.

use std::path::PathBuf;

use crate::architecture::Reals;
use crate::numbers::{self, Chosen, Goal, Samples};
use crate::real::Real;
use crate::{Error, InputSpec, Normalisation};

/// How a network's file is read.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportOptions {
    /// How the network wants its input made from the device's values.
    pub normalisation: Normalisation,
    /// Bits of one input value, 1 to [`crate::MAX_INPUT_BITS`].
    pub input_bits: u32,
    /// The real numbers that input values stand for, which the normalisation is for then.
    pub reals: Option<Reals>,
    /// Shape of the input without the batch axis, where the file leaves it open.
    pub shape: Option<Vec<usize>>,
    /// Folder of the file, for constants that it keeps in other ones.
    pub folder: Option<PathBuf>,
}

impl Default for ImportOptions {
    /// Bytes, divided by 255.
    fn default() -> Self {
        let normalisation = Normalisation::default();
        ImportOptions { normalisation, input_bits: 8, reals: None, shape: None, folder: None }
    }
}

/// A network, over the reals and in fixed point.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Over the reals, with what was exported rewritten by the passes; its input is the device's integers.
    pub real: Real,
    /// In fixed point.
    pub chosen: Chosen,
}

impl Imported {
    /// Chooses the numbers of a network for inputs like `samples`: any number of them, one after the other. `clear` tells of its layers, by name, which of them one server has in clear.
    ///
    /// # Errors
    /// Those of [`numbers::choose`].
    pub fn new(
        real: Real,
        options: &ImportOptions,
        samples: Samples<'_>,
        goal: &Goal,
        clear: numbers::Clear<'_>,
    ) -> Result<Imported, Error> {
        let reals = options.reals.clone();
        let input = InputSpec { reals, ..InputSpec::new(real.input.clone(), options.input_bits) };
        let chosen = numbers::choose(&real, &input, samples, goal, clear)?;
        Ok(Imported { real, chosen })
    }
}

/// Imports an ONNX network all of whose layers will be shared: [`crate::read`], and [`Imported::new`].
///
/// # Errors
/// [`Error::Onnx`] for bytes that are no such model, [`Error::Node`] for a node that is not supported, naming it,
/// [`Error::Options`] for a normalisation that does not fit the model, and those of [`numbers::choose`].
pub fn import(onnx: &[u8], options: &ImportOptions, samples: &[u8], goal: &Goal) -> Result<Imported, Error> {
    Imported::new(crate::read(onnx, options)?, options, samples.into(), goal, &numbers::all_shared)
}
