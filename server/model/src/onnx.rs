//! The part of ONNX's protobuf schema that the importer reads, and reading of constants.
//!
//! Field numbers are those of `onnx.proto` (ONNX 1.17). Fields that are not listed are skipped by the decoder.

use prost::Message;

use crate::{Error, MAX_VALUES};

/// Largest ONNX file: all values a model may have as 32-bit floats, and room for the graph.
pub(crate) const MAX_FILE: usize = 4 * MAX_VALUES + (1 << 20);
/// Most axes a constant may have; the supported operators take up to four.
const MAX_AXES: usize = 8;
/// Supported versions of the default operator set. Within them the supported operators mean the same.
pub(crate) const OPSETS: core::ops::RangeInclusive<i64> = 7..=22;
/// One of them that common exporters write.
const PROPOSED: i64 = 17;

/// `TensorProto.DataType`: 32-bit float.
pub(crate) const FLOAT: i32 = 1;
/// `TensorProto.DataType`: 64-bit integer.
pub(crate) const INT64: i32 = 7;

/// `AttributeProto.AttributeType`, as far as it is used.
pub(crate) mod attribute_type {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const INT: i32 = 2;
    pub(crate) const STRING: i32 = 3;
    pub(crate) const TENSOR: i32 = 4;
    pub(crate) const INTS: i32 = 7;
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelProto {
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    pub domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttributeProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, tag = "2")]
    pub f: f32,
    #[prost(int64, tag = "3")]
    pub i: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    pub t: Option<TensorProto>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub r#type: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<DimensionProto>,
}

/// One axis: a number, or a name for a size that is only known when the model runs.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DimensionProto {
    #[prost(int64, optional, tag = "1")]
    pub dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub dim_param: Option<String>,
}

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

/// Whether a domain is ONNX's own.
pub(crate) fn is_default_domain(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
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

/// ONNX's name of a type of elements.
pub(crate) fn type_name(data_type: i32) -> String {
    const NAMES: [&str; 17] = [
        "UNDEFINED",
        "FLOAT",
        "UINT8",
        "INT8",
        "UINT16",
        "INT16",
        "INT32",
        "INT64",
        "STRING",
        "BOOL",
        "FLOAT16",
        "DOUBLE",
        "UINT32",
        "UINT64",
        "COMPLEX64",
        "COMPLEX128",
        "BFLOAT16",
    ];
    let name = usize::try_from(data_type).ok().and_then(|i| NAMES.get(i));
    name.map_or_else(|| format!("number {data_type}"), ToString::to_string)
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

/// Product of the axes, unless it overflows.
pub(crate) fn volume(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d))
}

/// A name from a file, fit for a message on a terminal.
pub(crate) fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(100).collect()
}
