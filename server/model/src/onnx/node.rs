//! A node's attributes, checked for their types, and errors that name the node.

use super::proto::{AttributeProto, NodeProto, TensorProto, attribute_type, printable};
use super::tensor::{MAX_AXES, Tensor, elements_up_to};
use crate::real::Origin;
use crate::{Error, MAX_VALUES};

impl NodeProto {
    /// What messages call the node.
    pub(crate) fn origin(&self) -> Origin {
        let name = Some(&self.name).filter(|n| !n.is_empty()).or(self.output.first());
        Origin { name: printable(name.map_or("", |n| n)), op: printable(&self.op_type) }
    }

    /// An error about the node: what is wrong, why and what could replace it.
    pub(crate) fn error(&self, what: impl Into<String>) -> Error {
        self.origin().error(what)
    }

    /// The error that an input which the operator needs is left out.
    pub(crate) fn lacks(&self, input: &str) -> Error {
        self.error(format!("it has no {input}: the file is damaged, so export it again"))
    }

    /// The error that `what` contradicts the operator's definition.
    pub(crate) fn damaged(&self, what: impl core::fmt::Display) -> Error {
        self.error(format!("{what}, which is impossible: the file is damaged, so export it again"))
    }

    pub(crate) fn attribute(&self, name: &str, kind: i32) -> Result<Option<&AttributeProto>, Error> {
        match self.attribute.iter().find(|a| a.name == name) {
            Some(a) if a.r#type != kind => {
                Err(self.damaged(format!("attribute {name} is of the wrong type")))
            }
            found => Ok(found),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.attribute.iter().any(|a| a.name == name)
    }

    pub(crate) fn int(&self, name: &str) -> Result<Option<i64>, Error> {
        Ok(self.attribute(name, attribute_type::INT)?.map(|a| a.i))
    }

    /// An integer attribute that means no or yes.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, Error> {
        Ok(self.int(name)?.map_or(default, |i| i != 0))
    }

    pub(crate) fn float(&self, name: &str) -> Result<Option<f64>, Error> {
        Ok(self.attribute(name, attribute_type::FLOAT)?.map(|a| a.f.into()))
    }

    pub(crate) fn ints(&self, name: &str) -> Result<Option<&[i64]>, Error> {
        Ok(self.attribute(name, attribute_type::INTS)?.map(|a| a.ints.as_slice()))
    }

    pub(crate) fn floats(&self, name: &str) -> Result<Option<&[f32]>, Error> {
        Ok(self.attribute(name, attribute_type::FLOATS)?.map(|a| a.floats.as_slice()))
    }

    pub(crate) fn string(&self, name: &str) -> Result<Option<&[u8]>, Error> {
        Ok(self.attribute(name, attribute_type::STRING)?.map(|a| a.s.as_slice()))
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Option<&TensorProto>, Error> {
        Ok(self.attribute(name, attribute_type::TENSOR)?.and_then(|a| a.t.as_ref()))
    }
}

/// An axis counted from the front, of one that may be counted from the back.
pub(crate) fn axis(axis: i64, rank: usize) -> Option<usize> {
    let from_front = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
    usize::try_from(from_front).ok().filter(|&a| a < rank)
}

/// A node and what is known of its inputs.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub node: &'a NodeProto,
    /// One for each of the node's inputs, nothing for one that is left out or no constant.
    pub inputs: &'a [Option<&'a Tensor>],
    pub opset: i64,
}

impl<'a> Known<'a> {
    /// Whether input `index` is given.
    pub(crate) fn given(&self, index: usize) -> bool {
        self.node.input.get(index).is_some_and(|name| !name.is_empty())
    }

    /// The constant that is input `index`; nothing if that input is left out.
    pub(crate) fn constant(&self, index: usize) -> Result<Option<&'a Tensor>, Error> {
        match self.inputs.get(index).copied().flatten() {
            None if self.given(index) => Err(self.node.error(format!(
                "input {} depends on the network's input, and must be a constant: simplify the file, say with onnxsim",
                printable(&self.node.input[index])
            ))),
            found => Ok(found),
        }
    }

    /// A constant that the operator needs, named `what` in messages.
    pub(crate) fn needed(&self, index: usize, what: &str) -> Result<&'a Tensor, Error> {
        self.constant(index)?.ok_or_else(|| self.node.lacks(what))
    }

    /// The integers that are input `index`; nothing if that input is left out.
    pub(crate) fn integers(&self, index: usize) -> Result<Option<&'a [i64]>, Error> {
        let Some(tensor) = self.constant(index)? else { return Ok(None) };
        let name = || format!("input {} is not of integers", printable(&self.node.input[index]));
        tensor.integers().map(Some).ok_or_else(|| self.node.damaged(name()))
    }

    /// Integers that were an attribute before version `since` of the operators and are input `index` from then on.
    pub(crate) fn list(&self, attribute: &str, index: usize, since: i64) -> Result<Option<&'a [i64]>, Error> {
        if self.opset < since {
            return self.node.ints(attribute);
        }
        match self.node.has(attribute) {
            true => Err(self.node.error(format!(
                "attribute {attribute} is an input since version {since} of the operators, and the file has {}: export it \
                 again",
                self.opset
            ))),
            false => self.integers(index),
        }
    }

    /// The axis that attribute `axis` names of `rank` ones.
    pub(crate) fn axis(&self, default: i64, rank: usize) -> Result<usize, Error> {
        let given = self.node.int("axis")?.unwrap_or(default);
        axis(given, rank).ok_or_else(|| self.node.damaged(format!("axis = {given} of {rank} axes")))
    }

    /// Axes in a list as counted from the front, each at most once.
    pub(crate) fn axes(&self, list: &[i64], rank: usize) -> Result<Vec<usize>, Error> {
        let mut seen = vec![false; rank];
        let mut unique = |a: i64| axis(a, rank).filter(|&a| !std::mem::replace(&mut seen[a], true));
        let axes: Option<Vec<usize>> = list.iter().map(|&a| unique(a)).collect();
        axes.ok_or_else(|| {
            let shown = &list[..list.len().min(8)];
            self.node.damaged(format!("it has axes {shown:?} of {rank}"))
        })
    }

    /// The shape, if it is small enough to be made.
    pub(crate) fn possible(&self, shape: Vec<usize>) -> Result<Vec<usize>, Error> {
        // As large as one of the inputs it may always be.
        let known = self.inputs.iter().flatten().map(|tensor| tensor.len());
        if elements_up_to(&shape, known.fold(MAX_VALUES, usize::max)).is_some() {
            return Ok(shape);
        }
        let shown = &shape[..shape.len().min(MAX_AXES + 1)];
        Err(self.node.error(format!(
            "its result has shape {shown:?}, and at most {MAX_VALUES} values on {MAX_AXES} axes are possible: use a smaller \
             network"
        )))
    }
}
