//! The float network's and the integer network's answers to the same inputs.

use seco_model::numbers::{Comparison, Goal, Sample, Samples, compare, fewest_input_bits};
use seco_model::{Error, Imported, MAX_INPUT_BITS, Range};

/// What some inputs showed.
pub struct Evidence {
    /// The samples, by number.
    pub samples: Vec<usize>,
    /// How near both are, and what their first outputs say by sample.
    pub comparison: Comparison,
    /// By value of the integer network: least and largest of what ReLUs read, and of the answer.
    pub ranges: Vec<Range>,
    /// Of values of more than a byte, and of real numbers: how many bits the float network's answers need.
    pub fewest_bits: Option<u32>,
}

impl Evidence {
    /// Runs both on the samples with these numbers. Labels of near ties may differ by the error that is asked for.
    pub fn gather(
        imported: &Imported,
        values: Samples<'_>,
        samples: &[usize],
        goal: &Goal,
    ) -> Result<Evidence, Error> {
        let model = &imported.chosen.model;
        let all = values.each(&model.graph.input)?;
        let inputs: Vec<Sample> = samples.iter().filter_map(|&sample| all.get(sample).copied()).collect();
        let bytes: Vec<&[u8]> = inputs.iter().map(Sample::bytes).collect();
        let (real, spec) = (&imported.real, &model.graph.input);
        // Real numbers may need more than they were given.
        let most = if spec.reals.is_some() { MAX_INPUT_BITS } else { spec.bits };
        let fewest = || fewest_input_bits(real, spec, &inputs, goal, spec.bits.min(u8::BITS)..most);
        Ok(Evidence {
            samples: samples.to_vec(),
            comparison: compare(real, model, &inputs, goal.error)?,
            ranges: model.ranges(&bytes)?,
            fewest_bits: (spec.bits > u8::BITS || spec.reals.is_some()).then(fewest).transpose()?,
        })
    }
}
