//! Functions of a file: a node that calls one is replaced by the function's nodes when the file is read.
//!
//! Each call gets names of its own. What a file may grow by is bounded before anything is copied: a few functions that call
//! each other twice would make a network of any size.

use std::collections::{HashMap, HashSet};
use std::iter::repeat;

use prost::Message;

use super::file::{bad, unknown_opset, version};
use super::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto, is_default_domain, printable};
use crate::Error;

/// Most functions that call each other in a row.
const MAX_DEPTH: usize = 32;
/// Most calls and nodes of functions in their place.
const MAX_MADE: usize = 1 << 16;
/// Most bytes of what is copied.
const MAX_BYTES: usize = 1 << 26;
/// Bytes that a small part takes in memory.
const PART: usize = 64;
/// Most characters of a call that go into the names of its nodes.
const MAX_PREFIX: usize = 100;

/// A graph without calls of functions.
pub(super) struct Inlined {
    pub graph: GraphProto,
    /// By node the version of ONNX's operators.
    pub opsets: Vec<i64>,
}

/// Domain, name and overload.
type Key<'a> = (&'a str, &'a str, &'a str);

fn key<'a>(domain: &'a str, name: &'a str, overload: &'a str) -> Key<'a> {
    (if is_default_domain(domain) { "" } else { domain }, name, overload)
}

/// A function and what is known of it.
#[derive(Clone, Copy)]
struct Body<'a> {
    function: &'a FunctionProto,
    number: usize,
    opset: i64,
    /// Bytes that a call looks at, but for the nodes, of which each counts for itself.
    size: usize,
}

/// The graph with every call of a function replaced by that one's nodes.
///
/// # Errors
/// [`Error::Node`] for a call that does not fit its function, for functions that call themselves, and for more nodes than are
/// read; [`Error::Onnx`] for functions that are defined twice.
pub(super) fn inlined(
    mut graph: GraphProto,
    functions: &[FunctionProto],
    opset: i64,
) -> Result<Inlined, Error> {
    let refers = |node: &&NodeProto| node.attribute.iter().any(|a| !a.ref_attr_name.is_empty());
    if let Some(node) = graph.node.iter().find(refers) {
        return Err(node.damaged("an attribute of it is that of a function, and it is in none"));
    }
    if functions.is_empty() {
        let opsets = vec![opset; graph.node.len()];
        return Ok(Inlined { graph, opsets });
    }
    let mut bodies = HashMap::new();
    for (number, function) in functions.iter().enumerate() {
        let own = version(&function.opset_import).unwrap_or(opset);
        let names = function.attribute_proto.iter().map(|attribute| &attribute.name);
        let names = names.chain(&function.input).chain(&function.output);
        let parts = function.input.len() + function.output.len() + function.attribute_proto.len();
        let size = names.fold(PART * parts, |size, name| size.saturating_add(name.len()));
        let body = Body { function, number, opset: own, size };
        if bodies.insert(key(&function.domain, &function.name, &function.overload), body).is_some() {
            let name = printable(&function.name);
            return Err(bad(format!(
                "its function {name} is defined twice: the file is damaged, so export it again"
            )));
        }
    }
    let nodes = std::mem::take(&mut graph.node);
    let named = nodes.iter().flat_map(|node| node.input.iter().chain(&node.output));
    let constants = graph.initializer.iter().map(|tensor| &tensor.name);
    let ends = graph.input.iter().chain(&graph.output).map(|value| &value.name);
    let taken = named.chain(constants).chain(ends).cloned().collect();
    let mut inliner = Inliner {
        bodies,
        taken,
        numbers: 0,
        made: Vec::new(),
        opsets: Vec::new(),
        open: Vec::new(),
        nodes: MAX_MADE,
        bytes: MAX_BYTES,
    };
    nodes.into_iter().try_for_each(|node| inliner.node(node, opset))?;
    graph.node = inliner.made;
    Ok(Inlined { graph, opsets: inliner.opsets })
}

struct Inliner<'a> {
    bodies: HashMap<Key<'a>, Body<'a>>,
    /// All names of the graph.
    taken: HashSet<String>,
    /// Numbers that were given to make names different.
    numbers: usize,
    made: Vec<NodeProto>,
    opsets: Vec<i64>,
    /// The functions that are being inlined, each called by the one before.
    open: Vec<usize>,
    /// What may still be made and copied.
    nodes: usize,
    bytes: usize,
}

impl<'a> Inliner<'a> {
    /// A node whose names are the graph's, or the nodes of the function that it calls.
    fn node(&mut self, node: NodeProto, opset: i64) -> Result<(), Error> {
        let called = self.bodies.get(&key(&node.domain, &node.op_type, &node.overload)).copied();
        match called {
            Some(body) => self.call(&node, body),
            None => {
                self.made.push(node);
                self.opsets.push(opset);
                Ok(())
            }
        }
    }

    fn call(&mut self, node: &NodeProto, body: Body<'a>) -> Result<(), Error> {
        let Body { function, number, opset, size } = body;
        if self.open.contains(&number) {
            return Err(node.damaged("it calls a function that calls itself"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(node.error(format!(
                "its functions call each other more than {MAX_DEPTH} deep: have them inlined before, with onnx.inliner"
            )));
        }
        if is_of_operators(&node.domain) {
            return Err(node.error(
                "it calls a function that is in a domain of operators, and some runtimes would take an operator of their own \
                 for it: give the function a domain of its own, or have it inlined before, with onnx.inliner",
            ));
        }
        if let Some(found) = unknown_opset(opset) {
            return Err(node.error(format!("it calls a function that cannot be read, {found}")));
        }
        self.take(node, 1 + function.node.len(), size)?;
        if node.input.len() > function.input.len() || node.output.len() > function.output.len() {
            return Err(node.damaged(format!(
                "its function has {} inputs and {} outputs, and {} and {} are given",
                function.input.len(),
                function.output.len(),
                node.input.len(),
                node.output.len()
            )));
        }
        let title = [&node.name, &node.op_type].into_iter().find(|name| !name.is_empty());
        let prefix: String = title.map_or("", |name| name).chars().take(MAX_PREFIX).collect();
        let given: HashMap<&str, &AttributeProto> =
            node.attribute.iter().map(|a| (a.name.as_str(), a)).collect();
        let defaults: HashMap<&str, &AttributeProto> =
            function.attribute_proto.iter().map(|a| (a.name.as_str(), a)).collect();

        // What the function's names are in the graph. An input that is left out has no name there.
        let mut names: HashMap<&str, String> = HashMap::new();
        let actual = node.input.iter().cloned().chain(repeat(String::new()));
        names.extend(function.input.iter().map(String::as_str).zip(actual));
        let mut copies = Vec::new();
        for (formal, actual) in function.output.iter().zip(&node.output).filter(|(_, name)| !name.is_empty())
        {
            match names.get(formal.as_str()) {
                // An input that is an output as well, or one thing twice.
                Some(from) => copies.push((from.clone(), actual.clone())),
                None => drop(names.insert(formal, actual.clone())),
            }
        }
        self.open.push(number);
        for inner in &function.node {
            let input = self.named(node, &prefix, &inner.input, &mut names)?;
            let output = self.named(node, &prefix, &inner.output, &mut names)?;
            let texts =
                inner.name.len() + 2 * inner.op_type.len() + inner.domain.len() + inner.overload.len();
            self.take(node, 0, prefix.len() + texts + size_of::<NodeProto>())?;
            let mut attribute = Vec::with_capacity(inner.attribute.len());
            for own in &inner.attribute {
                self.take(node, 0, own.name.len() + own.ref_attr_name.len() + size_of::<AttributeProto>())?;
                let found = match own.ref_attr_name.as_str() {
                    "" => Some(own),
                    // Given by the call, or as it is otherwise, or left out.
                    name => given.get(name).or_else(|| defaults.get(name)).copied(),
                };
                let Some(found) = found else { continue };
                if own.r#type != 0 && own.r#type != found.r#type {
                    let name = printable(&found.name);
                    return Err(node.damaged(format!("attribute {name} is of the wrong type")));
                }
                self.take(node, 0, taken(found))?;
                attribute.push(AttributeProto {
                    name: own.name.clone(),
                    ref_attr_name: String::new(),
                    ..found.clone()
                });
            }
            let title = [&inner.name, &inner.op_type].into_iter().find(|name| !name.is_empty());
            let made = NodeProto {
                input,
                output,
                attribute,
                name: format!("{prefix}/{}", title.map_or("", |name| name)),
                op_type: inner.op_type.clone(),
                domain: inner.domain.clone(),
                overload: inner.overload.clone(),
            };
            self.node(made, opset)?;
        }
        self.open.pop();
        for (from, to) in copies {
            self.take(node, 1, prefix.len() + from.len() + 2 * to.len() + size_of::<NodeProto>())?;
            self.made.push(NodeProto {
                name: format!("{prefix}/{to}"),
                op_type: "Identity".to_owned(),
                input: vec![from],
                output: vec![to],
                ..Default::default()
            });
            self.opsets.push(opset);
        }
        Ok(())
    }

    /// What names of a function are in the graph; new ones where they are met first.
    fn named(
        &mut self,
        node: &NodeProto,
        prefix: &str,
        own: &'a [String],
        names: &mut HashMap<&'a str, String>,
    ) -> Result<Vec<String>, Error> {
        let mut made = Vec::with_capacity(own.len());
        for name in own {
            if name.is_empty() {
                made.push(String::new());
                continue;
            }
            if !names.contains_key(name.as_str()) {
                let mut fresh = format!("{prefix}/{name}");
                while !self.taken.insert(fresh.clone()) {
                    self.numbers += 1;
                    fresh = format!("{prefix}/{name}/{}", self.numbers);
                }
                self.take(node, 0, 2 * fresh.len() + 4 * PART)?;
                names.insert(name, fresh);
            }
            let name = names.get(name.as_str()).cloned().unwrap_or_default();
            self.take(node, 0, 2 * name.len() + size_of::<String>())?;
            made.push(name);
        }
        Ok(made)
    }

    /// Takes nodes and bytes of those that are left.
    fn take(&mut self, node: &NodeProto, nodes: usize, bytes: usize) -> Result<(), Error> {
        let inline = "use a smaller network, or have them inlined before, with onnx.inliner";
        self.nodes = self.nodes.checked_sub(nodes).ok_or_else(|| {
            node.error(format!(
                "with the functions that it calls the network has more than {MAX_MADE} nodes: {inline}"
            ))
        })?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| {
            node.error(format!(
                "up to it the calls of functions copy more than {MAX_BYTES} bytes, weights in functions once for each call: \
                 {inline}"
            ))
        })?;
        Ok(())
    }
}

/// Whether ONNX or a runtime has operators in a domain.
fn is_of_operators(domain: &str) -> bool {
    is_default_domain(domain)
        || matches!(domain, "com.microsoft" | "org.pytorch.aten")
        || ["ai.onnx.", "com.microsoft.", "com.ms."].iter().any(|start| domain.starts_with(start))
}

/// Bytes that a copy takes, of numbers that are shorter in a file as many as they have in memory.
fn taken(attribute: &AttributeProto) -> usize {
    let tensor = attribute.t.as_ref().map_or(0, |t| {
        t.dims.len()
            + t.int32_data.len()
            + t.int64_data.len()
            + t.uint64_data.len()
            + 8 * t.external_data.len()
    });
    attribute.encoded_len() + 8 * (attribute.ints.len() + 4 * attribute.strings.len() + tensor)
}
