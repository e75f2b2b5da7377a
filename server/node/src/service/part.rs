//! One server's part of a model, as `seco split` wrote it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use seco_core::{ModelId, ModelInfo};
use seco_model::PartyModel;
use zeroize::Zeroizing;

use crate::{Error, private};

/// Reads one server's part of a model.
pub fn read_part(path: &Path) -> Result<PartyModel, Error> {
    private::close(path)?;
    let read = |e| Error::read(path, e);
    let file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    // As large as it is, for a vector that grows leaves copies of secrets behind; and never without bound.
    let capacity = if size <= PartyModel::MAX_FILE { size as usize + 1 } else { 0 };
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    if size <= PartyModel::MAX_FILE {
        file.take(PartyModel::MAX_FILE + 1).read_to_end(&mut bytes).map_err(read)?;
    }
    let bad = |what: String| Error::Model { path: path.to_owned(), what };
    if size.max(bytes.len() as u64) > PartyModel::MAX_FILE {
        return Err(bad(format!(
            "has more than {} MiB, and no server's model file does: give one that `seco split` wrote",
            PartyModel::MAX_FILE >> 20
        )));
    }
    PartyModel::from_bytes(&bytes).map_err(|e| bad(e.to_string()))
}

/// What devices know of a model.
pub fn model_info(part: &PartyModel) -> ModelInfo {
    let graph = &part.architecture().graph;
    ModelInfo {
        id: ModelId(*part.id()),
        input_len: graph.input.byte_len(),
        values: graph.answer_len(),
        width: graph.answer_width(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is no part may be of any size.
    #[test]
    fn no_more_is_read_than_a_part_can_have() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part.seco");
        let file = File::create(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        let told = |path: &Path| read_part(path).err().unwrap().to_string();
        assert!(told(&path).contains("part.seco: has more than 1152 MiB"), "{}", told(&path));
        file.set_len(100).unwrap();
        assert!(told(&path).contains("not a server's model file"), "{}", told(&path));
    }
}
