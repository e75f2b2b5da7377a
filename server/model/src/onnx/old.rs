//! Reading of constants and frames for a chain of layers.

use prost::Message;

use super::proto::*;
use crate::{Error, MAX_VALUES};

/// Largest ONNX file: all values a model may have as 32-bit floats, and room for the graph.
pub(crate) const MAX_FILE: usize = 4 * MAX_VALUES + (1 << 20);
/// Most axes a constant may have; the supported operators take up to four.
const MAX_AXES: usize = 8;
/// Supported versions of the default operator set. Within them the supported operators mean the same.
pub(crate) const OPSETS: core::ops::RangeInclusive<i64> = 7..=22;
/// One of them that common exporters write.
const PROPOSED: i64 = 17;

/// Shape and elements of a constant.
pub(crate) type Values<T> = (Vec<usize>, Vec<T>);

/// How the pointer begins that Git keeps in place of a large file.
const GIT_LFS: &[u8] = b"version https://git-lfs";

/// Decodes a file and checks its size and operator set.
pub(crate) fn parse(bytes: &[u8]) -> Result<GraphProto, Error> {
    if bytes.len() > MAX_FILE {
        let found = bytes.len();
        return Err(Error::Onnx(format!(
            "it has {found} bytes, and at most {MAX_FILE} are read: use a smaller network"
        )));
    }
    if bytes.starts_with(GIT_LFS) {
        return Err(Error::Onnx(
            "this is not the model but Git's pointer to it (Git LFS): fetch it with `git lfs pull`"
                .to_owned(),
        ));
    }
    let model = ModelProto::decode(bytes).map_err(|e| {
        Error::Onnx(format!("this is no ONNX file, or a damaged one: export or copy it again ({e})"))
    })?;
    let opset = model.opset_import.iter().find(|o| is_default_domain(&o.domain)).map_or(0, |o| o.version);
    if !OPSETS.contains(&opset) {
        let (first, last) = (OPSETS.start(), OPSETS.end());
        let found = match opset {
            0 => "it names no version of ONNX's operators".to_owned(),
            opset => format!("its operators have version {opset} (opset)"),
        };
        return Err(Error::Onnx(format!(
            "{found}, and {first} to {last} are supported: export it with one of them, in PyTorch opset_version={PROPOSED}"
        )));
    }
    model.graph.ok_or_else(|| Error::Onnx("there is no network in it: export it again".to_owned()))
}

impl TensorProto {
    /// Shape of the constant and its number of elements.
    pub(crate) fn shape(&self) -> Result<(Vec<usize>, usize), String> {
        let name = printable(&self.name);
        let too_large = || {
            format!(
                "constant {name} has shape {:?}, which is impossible or more than {MAX_VALUES} values: use a smaller network",
                self.dims.iter().take(MAX_AXES).collect::<Vec<_>>()
            )
        };
        let dims: Vec<usize> = self
            .dims
            .iter()
            .map(|&d| usize::try_from(d))
            .collect::<Result<_, _>>()
            .map_err(|_| too_large())?;
        let len =
            volume(&dims).filter(|&n| n <= MAX_VALUES && dims.len() <= MAX_AXES).ok_or_else(too_large)?;
        if self.data_location != 0 {
            return Err(format!(
                "constant {name} is kept in another file, and the model must be one file: save it with \
                 onnx.save_model(model, path, save_as_external_data=False)"
            ));
        }
        Ok((dims, len))
    }

    /// The elements of a FLOAT constant, all finite.
    pub(crate) fn floats(&self) -> Result<Values<f64>, String> {
        let name = printable(&self.name);
        let (dims, len) = self.shape()?;
        if self.data_type != FLOAT {
            let found = type_name(self.data_type);
            return Err(format!(
                "constant {name} has values of type {found}, and FLOAT is needed: export in float32"
            ));
        }
        let values: Vec<f64> = if self.raw_data.is_empty() {
            self.float_data.iter().map(|&v| v.into()).collect()
        } else {
            words(&self.raw_data)
                .ok_or_else(|| ragged(&name))?
                .map(|b| f32::from_le_bytes(b).into())
                .collect()
        };
        if values.len() != len {
            return Err(ragged(&name));
        }
        match values.iter().all(|v| v.is_finite()) {
            true => Ok((dims, values)),
            false => Err(format!(
                "constant {name} has values that are not finite (infinite or no numbers): train or export it again"
            )),
        }
    }

    /// The elements of an INT64 constant.
    pub(crate) fn integers(&self) -> Result<Values<i64>, String> {
        let name = printable(&self.name);
        let (dims, len) = self.shape()?;
        if self.data_type != INT64 {
            let found = type_name(self.data_type);
            return Err(format!(
                "constant {name} has values of type {found}, and INT64 is needed: export it again"
            ));
        }
        let values: Vec<i64> = if self.raw_data.is_empty() {
            self.int64_data.clone()
        } else {
            words(&self.raw_data).ok_or_else(|| ragged(&name))?.map(i64::from_le_bytes).collect()
        };
        if values.len() == len { Ok((dims, values)) } else { Err(ragged(&name)) }
    }
}

fn ragged(name: &str) -> String {
    format!(
        "constant {name} does not have as many values as its shape says: the file is damaged, so export it again"
    )
}

/// The bytes in groups of `N`, or nothing if one would be incomplete.
fn words<const N: usize>(bytes: &[u8]) -> Option<impl Iterator<Item = [u8; N]>> {
    let (words, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| words.iter().copied())
}
