//! A node's attributes, checked for their types, and errors that name the node.

use super::proto::{AttributeProto, NodeProto, TensorProto, attribute_type, printable};
use crate::Error;
use crate::real::Origin;

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
