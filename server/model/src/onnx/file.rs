//! An ONNX file: its frame, its constants and its nodes in order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::path::{Path, PathBuf};

use prost::Message;

use super::functions::{Inlined, inlined};
use super::input::{Input, dims, the_input};
use super::proto::{
    FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, printable,
};
use super::proto::{OperatorSetIdProto, is_default_domain};
use super::scan::is_bounded;
use super::tensor::Tensor;
use crate::{Error, MAX_VALUES, MAX_WEIGHTS};

/// Largest ONNX file: that of any message in its format.
pub(crate) const MAX_FILE: usize = i32::MAX as usize;
/// Most values of all constants of a file together that have less than a byte each, as those of small types. With as many
/// more as there are bytes of them, memory stays a small multiple of what is read, and of this.
const MAX_CONSTANTS: usize = 2 * MAX_VALUES;
/// Supported versions of the default operator set.
pub(crate) const OPSETS: core::ops::RangeInclusive<i64> = 7..=28;
/// One of them that common exporters write.
const PROPOSED: i64 = 17;

/// Operators that have graphs of their own.
const WITH_GRAPHS: [&str; 4] = ["If", "Loop", "Scan", "SequenceMap"];

/// A file as it is read.
pub(crate) struct Parsed {
    /// Name of the graph.
    pub name: String,
    /// The nodes that an output depends on, each behind those it reads; those of functions in place of what calls them.
    pub nodes: Vec<NodeProto>,
    /// By node the version of its operators, which may be a function's own.
    pub opsets: Vec<i64>,
    /// The initialisers that these nodes or an output read.
    pub constants: HashMap<String, Tensor>,
    /// The one input that is no constant.
    pub input: Input,
    /// Names of the outputs, at least one, and their shapes as far as the file says; each is made by a node, a constant or
    /// the input.
    pub outputs: Vec<(String, Vec<Option<usize>>)>,
}

pub(super) fn bad(what: impl Into<String>) -> Error {
    Error::Onnx(what.into())
}

/// What the constants of a file have taken so far.
#[derive(Default)]
struct Room {
    values: usize,
    /// In the file itself.
    bytes: usize,
    /// By other file: bytes of all tensors in it, and where the last of them ends. Many may be the same bytes.
    others: HashMap<PathBuf, (usize, usize)>,
}

impl Room {
    fn take(&mut self, len: usize, tensor: &TensorProto) -> Result<(), Error> {
        self.values = self.values.saturating_add(len);
        let bytes = tensor.stored_bytes();
        match tensor.elsewhere() {
            // Whether it has them is seen before any of it is read.
            Some((file, offset)) => {
                let (all, end) = self.others.entry(file).or_default();
                *all = all.saturating_add(bytes);
                *end = offset.saturating_add(bytes).max(*end);
            }
            None => self.bytes = self.bytes.saturating_add(bytes),
        }
        let others = self.others.values().map(|(all, end)| *all.min(end));
        let bytes = others.fold(self.bytes, usize::saturating_add);
        let most = MAX_CONSTANTS.saturating_add(bytes).min(MAX_WEIGHTS);
        match self.values <= most {
            true => Ok(()),
            false => Err(bad(format!(
                "its constants have more than {most} values together, which so many bytes of them may have: use a smaller \
                 network"
            ))),
        }
    }
}

/// Reads a file. `folder` is where tensors may be that are kept in files of their own.
///
/// # Errors
/// [`Error::Onnx`] for what is no ONNX file or a damaged one, too large or of an unknown version, for nodes in a circle, and
/// for other than one input; [`Error::Node`] for a node that reads what nothing makes.
pub(crate) fn parse(bytes: &[u8], folder: Option<&Path>) -> Result<Parsed, Error> {
    let (opset, graph, functions) = decode(bytes)?;
    let Inlined { graph, opsets: versions } = inlined(graph, &functions, opset)?;
    drop(functions);
    let GraphProto { node, name, mut initializer, sparse_initializer, input, output } = graph;
    let makers = makers(&node, &initializer.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), &input)?;
    if output.is_empty() {
        return Err(bad("it has no output: export the network with one"));
    }
    let outputs: Vec<&str> = output.iter().map(|o| o.name.as_str()).collect();
    let live = live(&node, &makers, &outputs, &sparse_initializer_names(&sparse_initializer))?;
    let order = order(&node, &makers, &live.nodes)?;
    let nodes: Vec<&NodeProto> = order.iter().map(|&i| &node[i]).collect();
    let input = the_input(&input, &makers, &live.inputs, &nodes)?;
    drop(nodes);
    drop(makers);

    let mut constants = HashMap::new();
    let mut room = Room::default();
    for i in live.constants {
        let mut tensor = std::mem::take(&mut initializer[i]);
        room.take(tensor.size().map_err(bad)?.1, &tensor)?;
        tensor.fetch(folder).map_err(bad)?;
        let read = tensor.tensor().map_err(bad)?;
        constants.insert(tensor.name, read);
    }
    drop(initializer);
    let mut node: Vec<Option<NodeProto>> = node.into_iter().map(Some).collect();
    let mut nodes = Vec::with_capacity(order.len());
    let opsets = order.iter().map(|&i| versions.get(i).copied().unwrap_or(opset)).collect();
    for mut node in order.into_iter().filter_map(|i| node[i].take()) {
        let origin = node.origin();
        for tensor in node.attribute.iter_mut().filter_map(|a| a.t.as_mut()) {
            room.take(tensor.size().map_err(|e| origin.error(e))?.1, tensor)?;
            tensor.fetch(folder).map_err(|e| origin.error(e))?;
        }
        nodes.push(node);
    }
    let outputs = output
        .into_iter()
        .map(|o| Ok((o.name.clone(), dims(&o)?.unwrap_or_default())))
        .collect::<Result<_, _>>()?;
    Ok(Parsed { name, nodes, opsets, constants, input, outputs })
}

/// Decodes the frame and checks its size and version.
fn decode(bytes: &[u8]) -> Result<(i64, GraphProto, Vec<FunctionProto>), Error> {
    if let Some(found) = other_format(bytes) {
        return Err(bad(found));
    }
    if bytes.len() > MAX_FILE {
        let found = bytes.len();
        return Err(bad(format!(
            "it has {found} bytes, and at most {MAX_FILE} are read: use a smaller network"
        )));
    }
    if !is_bounded(bytes) {
        return Err(bad(
            "it has too many parts to be read, or is damaged: export it again, or use a smaller network",
        ));
    }
    let model = ModelProto::decode(bytes)
        .map_err(|e| bad(format!("this is no ONNX file, or a damaged one: export or copy it again ({e})")))?;
    let ModelProto { graph, opset_import, functions } = model;
    let opset = version(&opset_import).unwrap_or(0);
    if graph.is_none() && opset == 0 {
        return Err(bad("this is no ONNX file, or a damaged one: export or copy it again"));
    }
    if let Some(found) = unknown_opset(opset) {
        return Err(bad(found));
    }
    graph
        .map(|graph| (opset, graph, functions))
        .ok_or_else(|| bad("there is no network in it: export it again"))
}

/// Which version of ONNX's own operators is imported.
pub(super) fn version(imported: &[OperatorSetIdProto]) -> Option<i64> {
    imported.iter().find(|o| is_default_domain(&o.domain)).map(|o| o.version)
}

/// What is said of versions of ONNX's operators that are not known.
pub(super) fn unknown_opset(opset: i64) -> Option<String> {
    if OPSETS.contains(&opset) {
        return None;
    }
    let (first, last) = (OPSETS.start(), OPSETS.end());
    let found = match opset {
        0 => "it names no version of ONNX's operators".to_owned(),
        opset => format!("its operators have version {opset} (opset)"),
    };
    Some(format!(
        "{found}, and {first} to {last} are supported: export it with one of them, in PyTorch opset_version={PROPOSED}"
    ))
}

/// What a file is that is evidently something else, and what to do.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    let starts = |with: &[u8]| bytes.starts_with(with);
    if bytes.is_empty() {
        Some("the file is empty: export or copy it again")
    } else if starts(b"version https://git-lfs") {
        Some("this is not the model but Git's pointer to it (Git LFS): fetch it with `git lfs pull`")
    } else if starts(b"PK\x03\x04") {
        Some("this is a ZIP archive, as PyTorch and Keras save models, and no ONNX file: export it as ONNX")
    } else if starts(b"\x89HDF") {
        Some("this is an HDF5 file, as Keras saves models, and no ONNX file: export it as ONNX")
    } else if bytes.get(4..8) == Some(b"TFL3") {
        Some("this is a TensorFlow Lite model and no ONNX file: export it as ONNX")
    } else if starts(b"ORTM") || bytes.get(4..8) == Some(b"ORTM") {
        Some("this is a model in ONNX Runtime's own format and no ONNX file: export it as ONNX")
    } else if starts(b"\x93NUMPY") {
        Some("this is a NumPy array and no ONNX file: give the model here")
    } else if starts(b"\x80\x02") || starts(b"\x80\x04") || starts(b"\x80\x05") {
        Some(
            "this is a Python pickle, as PyTorch and scikit-learn save models, and no ONNX file: export it as ONNX",
        )
    } else {
        None
    }
}

/// What makes a name.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Maker {
    Node(usize),
    Constant(usize),
    Input(usize),
}

/// What makes every name. A name is made once, but for initialisers, which may be listed among the inputs too.
fn makers<'a>(
    nodes: &'a [NodeProto],
    constants: &[&'a str],
    inputs: &'a [ValueInfoProto],
) -> Result<HashMap<&'a str, Maker>, Error> {
    let made = nodes
        .iter()
        .enumerate()
        .flat_map(|(i, n)| n.output.iter().map(move |o| (o.as_str(), Maker::Node(i))));
    let constants = constants.iter().enumerate().map(|(i, &name)| (name, Maker::Constant(i)));
    let inputs = inputs.iter().enumerate().map(|(i, input)| (input.name.as_str(), Maker::Input(i)));
    let mut makers = HashMap::new();
    for (name, maker) in constants.chain(inputs).chain(made).filter(|(name, _)| !name.is_empty()) {
        match (makers.get(name), maker) {
            (None, _) => drop(makers.insert(name, maker)),
            (Some(Maker::Constant(_)), Maker::Input(_)) => {}
            _ => {
                let name = printable(name);
                return Err(bad(format!(
                    "{name} is made twice in it: the file is damaged, so export it again"
                )));
            }
        }
    }
    Ok(makers)
}

/// What the outputs depend on, in ascending order.
struct Live {
    nodes: Vec<usize>,
    constants: Vec<usize>,
    inputs: Vec<usize>,
}

fn sparse_initializer_names(sparse: &[super::proto::SparseTensorProto]) -> Vec<&str> {
    sparse.iter().filter_map(|s| s.values.as_ref()).map(|v| v.name.as_str()).collect()
}

fn live(
    nodes: &[NodeProto],
    makers: &HashMap<&str, Maker>,
    outputs: &[&str],
    sparse: &[&str],
) -> Result<Live, Error> {
    let mut live = Live { nodes: Vec::new(), constants: Vec::new(), inputs: Vec::new() };
    let mut seen = std::collections::HashSet::new();
    // Names to look at, with the node that reads them.
    let mut open: Vec<(&str, Option<&NodeProto>)> = outputs.iter().map(|&name| (name, None)).collect();
    while let Some((name, reader)) = open.pop() {
        let Some(&maker) = makers.get(name) else {
            let shown = printable(name);
            let what = match sparse.contains(&name) {
                true => format!(
                    "constant {shown} is sparse, and only dense ones are read: save it as a dense one"
                ),
                false => format!("nothing makes {shown}: the file is damaged, so export it again"),
            };
            return Err(reader.map_or_else(|| bad(what.clone()), |node| node.error(what.clone())));
        };
        match maker {
            Maker::Node(i) if seen.insert((0, i)) => {
                live.nodes.push(i);
                let node = &nodes[i];
                // What their graphs read of this one is not looked for.
                if is_default_domain(&node.domain) && WITH_GRAPHS.contains(&node.op_type.as_str()) {
                    return Err(node.error(
                        "branches and loops are not supported, for the steps of a private inference are fixed: export \
                         the network without them, or have them resolved, say by onnxsim",
                    ));
                }
                open.extend(node.input.iter().filter(|n| !n.is_empty()).map(|n| (n.as_str(), Some(node))));
            }
            Maker::Constant(i) if seen.insert((1, i)) => live.constants.push(i),
            Maker::Input(i) if seen.insert((2, i)) => live.inputs.push(i),
            _ => {}
        }
    }
    live.nodes.sort_unstable();
    live.constants.sort_unstable();
    live.inputs.sort_unstable();
    Ok(live)
}

/// The live nodes, each behind those it reads, otherwise as in the file.
fn order(nodes: &[NodeProto], makers: &HashMap<&str, Maker>, live: &[usize]) -> Result<Vec<usize>, Error> {
    let mut readers: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut waits: HashMap<usize, usize> = HashMap::new();
    for &i in live {
        let reads = nodes[i].input.iter().filter_map(|name| match makers.get(name.as_str()) {
            Some(&Maker::Node(maker)) => Some(maker),
            _ => None,
        });
        for maker in reads {
            readers.entry(maker).or_default().push(i);
            *waits.entry(i).or_default() += 1;
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        live.iter().filter(|i| !waits.contains_key(i)).map(|&i| Reverse(i)).collect();
    let mut order = Vec::with_capacity(live.len());
    while let Some(Reverse(i)) = ready.pop() {
        order.push(i);
        for reader in readers.remove(&i).unwrap_or_default() {
            if let Some(count) = waits.get_mut(&reader) {
                *count -= 1;
                if *count == 0 {
                    waits.remove(&reader);
                    ready.push(Reverse(reader));
                }
            }
        }
    }
    match live.iter().find(|i| waits.contains_key(i)) {
        None => Ok(order),
        Some(&i) => {
            Err(nodes[i].error("it depends on its own result: the file is damaged, so export it again"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::StringStringEntryProto;
    use super::{MAX_CONSTANTS, Room, TensorProto};

    /// A tensor of so many bytes in another file.
    fn elsewhere(location: &str, offset: usize, len: usize) -> TensorProto {
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        TensorProto {
            data_location: 1,
            data_type: 3,
            dims: vec![len as i64],
            external_data: vec![entry("location", location.to_owned()), entry("offset", offset.to_string())],
            ..Default::default()
        }
    }

    /// Many tensors may be the same bytes of a file, which make no room for more values than they are.
    #[test]
    fn bytes_of_other_files_count_once() {
        const LEN: usize = 1 << 20;
        let many = |place: &dyn Fn(usize) -> (&'static str, usize)| {
            let mut room = Room::default();
            (0..)
                .take_while(|&i| {
                    let (location, offset) = place(i);
                    room.take(LEN, &elsewhere(location, offset, LEN)).is_ok()
                })
                .take(300)
                .count()
        };
        let most = MAX_CONSTANTS / LEN;
        assert_eq!(many(&|_| ("w", 0)), most + 1);
        assert_eq!(many(&|i| (["w", "./w", ".//w"][i % 3], 0)), most + 1);
        assert_eq!(many(&|i| ("w", 7 * (i % 4) * LEN)), most + 22, "as far as the last one's end");
        assert_eq!(many(&|i| ("w", i * LEN)), crate::MAX_WEIGHTS / LEN);
    }
}
