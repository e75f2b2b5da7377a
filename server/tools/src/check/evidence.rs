//! The float network's and the integer network's answers to the same inputs.

use seco_model::numbers::{Comparison, compare};
use seco_model::{Error, Imported, Range};

/// What some inputs showed.
pub struct Evidence {
    /// The samples, by number.
    pub samples: Vec<usize>,
    /// How near both are, and what their first outputs say by sample.
    pub comparison: Comparison,
    /// By value of the integer network: least and largest of what ReLUs read, and of the answer.
    pub ranges: Vec<Range>,
}

impl Evidence {
    /// Runs both on the samples with these numbers. `error` is what labels of near ties may differ by.
    pub fn gather(
        imported: &Imported,
        values: &[u8],
        samples: &[usize],
        error: f64,
    ) -> Result<Evidence, Error> {
        let model = &imported.chosen.model;
        let all: Vec<&[u8]> = model.graph.input.inputs(values)?.collect();
        let inputs: Vec<&[u8]> = samples.iter().filter_map(|&sample| all.get(sample).copied()).collect();
        Ok(Evidence {
            samples: samples.to_vec(),
            comparison: compare(&imported.real, model, &inputs, error)?,
            ranges: model.ranges(&inputs)?,
        })
    }
}
