//! A node of the file, and what its inputs stand for.

use std::borrow::Cow;

use super::context::{Secret, Value};
use super::proto::{NodeProto, printable};
use super::tensor::Tensor;
use crate::Error;
use crate::real::Origin;

/// A node of the file and what it reads.
pub(crate) struct Call<'a> {
    pub node: &'a NodeProto,
    pub origin: Origin,
    pub opset: i64,
    /// Nothing for an input that is left out.
    pub inputs: Vec<Option<Value>>,
}

impl Call<'_> {
    /// An error about this node: what is wrong, why and what could replace it.
    pub(crate) fn error(&self, what: impl Into<String>) -> Error {
        self.origin.error(what)
    }

    /// The error that nothing which the operator reads depends on the input.
    pub(crate) fn of_constants(&self) -> Error {
        self.error("this operator is not supported on constants: replace it by its result, say with onnxsim")
    }

    /// Refuses attributes of other names: they may change what the operator means.
    pub(crate) fn only(&self, names: &[&str]) -> Result<(), Error> {
        match self.node.attribute.iter().find(|a| !names.contains(&a.name.as_str())) {
            Some(a) => Err(self.error(format!(
                "attribute {} is not supported, for it may change the meaning ({} are): export without it",
                printable(&a.name),
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            ))),
            None => Ok(()),
        }
    }

    /// An input, if it is not left out.
    pub(crate) fn input(&self, index: usize) -> Option<&Value> {
        self.inputs.get(index)?.as_ref()
    }

    /// An input that depends on the network's and is a real number.
    pub(crate) fn secret(&self, index: usize) -> Result<&Secret, Error> {
        let secret = self.any_secret(index)?;
        match secret.quantised {
            None => Ok(secret),
            Some(_) => Err(self.error(
                "its input is quantised (QuantizeLinear), and this operator is supported on real numbers only: put \
                 DequantizeLinear in front, or export the network before it was quantised",
            )),
        }
    }

    /// An input that depends on the network's, quantised or not.
    pub(crate) fn any_secret(&self, index: usize) -> Result<&Secret, Error> {
        match self.input(index) {
            Some(Value::Secret(secret)) => Ok(secret),
            Some(Value::Constant(_)) => Err(self.error(format!(
                "its input {index} is a constant, and must come from the network's input: replace the node by its \
                 result, say with onnxsim"
            ))),
            None => Err(self.node.lacks(&format!("input {index}"))),
        }
    }

    /// An input that is known, if it is not left out; `what` is what it is for.
    pub(crate) fn constant(&self, index: usize, what: &str) -> Result<Option<&Tensor>, Error> {
        match self.input(index) {
            None => Ok(None),
            Some(Value::Constant(tensor)) => Ok(Some(tensor)),
            Some(Value::Secret(_)) => Err(self.error(format!(
                "its {what} depend on the network's input, and must be constant, for products of two secret values \
                 and choices by secret values are not supported: use constant {what}"
            ))),
        }
    }

    /// Finite numbers of a known input.
    pub(crate) fn numbers<'t>(&self, tensor: &'t Tensor) -> Result<Cow<'t, [f64]>, Error> {
        tensor.weights().map_err(|what| self.error(what))
    }

    /// Every known input in its place, as folding and moving take them.
    pub(crate) fn constants(&self) -> Vec<Option<&Tensor>> {
        let inputs = self.inputs.iter();
        inputs
            .map(|value| match value {
                Some(Value::Constant(tensor)) => Some(tensor.as_ref()),
                _ => None,
            })
            .collect()
    }
}
