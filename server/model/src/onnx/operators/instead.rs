//! What stands for operators that are refused, where only the cost of all others is asked for: their first input.

use super::super::call::Call;
use super::super::context::{Context, Secret, Value};
use super::super::tensor::broadcast;
use super::apply;
use crate::Error;
use crate::graph::Last;

/// Refused operators whose result has the shape of their input.
const SAME: &[&str] = &[
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BiasGelu",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "CumProd",
    "Elu",
    "Erf",
    "Exp",
    "FastGelu",
    "Floor",
    "Gelu",
    "GroupNormalization",
    "HardSwish",
    "Hardmax",
    "InstanceNormalization",
    "LRN",
    "LayerNormalization",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MeanVarianceNormalization",
    "Mish",
    "QuickGelu",
    "RMSNormalization",
    "Reciprocal",
    "Round",
    "Selu",
    "Shrink",
    "Sign",
    "SimplifiedLayerNormalization",
    "Sin",
    "Sinh",
    "SkipLayerNormalization",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "ThresholdedRelu",
];

/// Refused operators whose result has the shape that their inputs are broadcast to.
const COMMON: &[&str] = &["Div", "Mod", "Mul", "Pow"];

/// The outputs of something of the same shape in place of what was refused, if there is such a thing.
pub(crate) fn stand_in(context: &mut Context, call: &Call<'_>) -> Result<Option<Vec<Value>>, Error> {
    // What is supported at the end alone stands for its input.
    let unfinished = |value: &Value| match value {
        Value::Secret(secret) => Value::Secret(Secret::new(secret.id, secret.shape.clone())),
        constant => constant.clone(),
    };
    let is_last = |value: &Value| matches!(value, Value::Secret(secret) if secret.last != Last::Nothing || secret.quantised.is_some());
    let inputs: Vec<Option<Value>> = call.inputs.iter().map(|value| value.as_ref().map(unfinished)).collect();
    if call.inputs.iter().flatten().any(is_last) {
        let again =
            Call { node: call.node, origin: call.origin.clone(), opset: call.opset, inputs: inputs.clone() };
        if let Ok(made) = apply(context, &again) {
            return Ok(Some(made));
        }
    }
    let secrets = || {
        inputs.iter().flatten().filter_map(|value| match value {
            Value::Secret(secret) => Some(secret),
            Value::Constant(_) => None,
        })
    };
    let name = call.node.op_type.as_str();
    let made = if SAME.contains(&name) {
        secrets().next().cloned()
    } else if COMMON.contains(&name) {
        let mut shapes = inputs.iter().flatten().map(|value| match value {
            Value::Secret(secret) => secret.shape.as_slice(),
            Value::Constant(tensor) => tensor.shape.as_slice(),
        });
        let shape = shapes.try_fold(vec![], |all, shape| broadcast(&all, shape));
        match (secrets().max_by_key(|secret| secret.len()), shape) {
            (Some(largest), Some(shape)) => Some(context.broadcast(&call.origin, largest, &shape)?),
            _ => None,
        }
    } else {
        None
    };
    Ok(made.map(|made| vec![made.into()]))
}
