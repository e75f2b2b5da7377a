//! One server's part of a model, as `seco split` wrote it.

use std::fs;
use std::path::Path;

use seco_core::{ModelId, ModelInfo};
use seco_model::PartyModel;
use zeroize::Zeroizing;

use crate::{Error, private};

/// Reads one server's part of a model.
pub fn read_part(path: &Path) -> Result<PartyModel, Error> {
    private::close(path)?;
    let bytes = Zeroizing::new(fs::read(path).map_err(|e| Error::read(path, e))?);
    PartyModel::from_bytes(&bytes).map_err(|e| Error::Model { path: path.to_owned(), what: e.to_string() })
}

/// What devices know of a model.
pub fn model_info(part: &PartyModel) -> ModelInfo {
    let graph = &part.architecture().graph;
    ModelInfo {
        id: ModelId(*part.id()),
        input_len: graph.input.len(),
        values: graph.answer_len(),
        width: graph.answer_width(),
    }
}
