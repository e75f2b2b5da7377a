//! Quantised operators of ONNX Runtime (`com.microsoft`), which it writes beside QLinearConv: the operators on the real
//! numbers that they stand for.

use super::super::call::Call;
use super::super::context::{Context, Secret, Value};
use super::super::proto::NodeProto;
use super::super::tensor::Tensor;
use super::moving::joins_few;
use super::quantised::{cut, of_result, of_value, real, weights};
use super::{Operator, activation, arithmetic, last, matrix, moving, pooling};
use crate::Error;

/// Input `at` as real numbers; its scale and zero point follow it.
fn input(context: &mut Context, call: &Call<'_>, at: usize) -> Result<Value, Error> {
    match call.input(at) {
        Some(Value::Secret(x)) => {
            let (said, _) = of_value(call, at + 1, at + 2)?;
            Ok(real(context, call, x, said)?.into())
        }
        // For all places alike, so the axis does not matter.
        Some(Value::Constant(_)) => Ok(weights(call, at, 0)?.0.into()),
        None => Err(call.node.lacks(&format!("input {at}"))),
    }
}

/// What the operator makes of real numbers, quantised as inputs `said` and the one behind it say.
fn on_reals(
    context: &mut Context,
    call: &Call<'_>,
    operator: Operator,
    inputs: Vec<Value>,
    said: usize,
    dropped: &[&str],
) -> Result<Vec<Value>, Error> {
    let mut node = NodeProto::clone(call.node);
    node.attribute.retain(|attribute| !dropped.contains(&attribute.name.as_str()));
    let inputs = inputs.into_iter().map(Some).collect();
    let inner = Call { node: &node, origin: call.origin.clone(), opset: call.opset, inputs };
    let made = operator(context, &inner)?;
    let [Value::Secret(made)] = made.as_slice() else { return Err(call.node.lacks("result")) };
    let (quantised, element) = of_result(call, said, said + 1)?;
    Ok(vec![cut(context, call, made, quantised, element)?.into()])
}

fn sum_or_product(context: &mut Context, call: &Call<'_>, operator: Operator) -> Result<Vec<Value>, Error> {
    let both = vec![input(context, call, 0)?, input(context, call, 3)?];
    on_reals(context, call, operator, both, 6, &[])
}

pub(super) fn add(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    sum_or_product(context, call, arithmetic::add)
}

pub(super) fn multiply(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    sum_or_product(context, call, arithmetic::multiply)
}

fn of_one(context: &mut Context, call: &Call<'_>, operator: Operator) -> Result<Vec<Value>, Error> {
    if call.node.flag("channels_last", false)? {
        return Err(call.error("channels_last = 1 is not supported: export it with channels first"));
    }
    let x = input(context, call, 0)?;
    on_reals(context, call, operator, vec![x], 3, &["channels_last"])
}

pub(super) fn average(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    of_one(context, call, pooling::average)
}

pub(super) fn global_average(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    of_one(context, call, pooling::global_average)
}

pub(super) fn leaky_relu(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    of_one(context, call, activation::leaky_relu)
}

/// At the end, with a DequantizeLinear behind it.
pub(super) fn sigmoid(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let x = input(context, call, 0)?;
    let inner =
        Call { node: call.node, origin: call.origin.clone(), opset: call.opset, inputs: vec![Some(x)] };
    let made = last::sigmoid(context, &inner)?;
    let [Value::Secret(made)] = made.as_slice() else { return Err(call.node.lacks("result")) };
    let (quantised, _) = of_result(call, 3, 4)?;
    Ok(vec![Secret { quantised: Some(quantised), ..made.clone() }.into()])
}

/// Scale and zero point of the result, then each value with its own.
pub(super) fn concat(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let starts = (2..call.inputs.len()).step_by(3);
    joins_few(call, starts.len())?;
    // Before constants become real numbers, which take more memory than the file: one may be named many times.
    let lens = starts.clone().filter_map(|at| call.input(at)).map(Value::len);
    context.fits(&call.origin, &[lens.fold(0, usize::saturating_add)])?;
    let inputs = starts.map(|at| input(context, call, at)).collect::<Result<_, _>>()?;
    on_reals(context, call, moving::concat, inputs, 0, &[])
}

/// `a, a_scale, a_zero, b, b_scale, b_zero, bias, y_scale, y_zero`: a layer; real numbers come out without a y_zero.
pub(super) fn gemm(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let (said, _) = of_value(call, 1, 2)?;
    let by_column = usize::from(!call.node.flag("transB", false)?);
    let (table, scales) = weights(call, 3, by_column)?;
    let alpha = call.node.float("alpha")?.unwrap_or(1.0);
    let mut inputs = vec![input(context, call, 0)?, table.into()];
    if let Some(bias) = call.constant(6, "bias")? {
        let unit = |i: usize| {
            alpha * said.scale * scales.get(if scales.len() == 1 { 0 } else { i }).copied().unwrap_or(0.0)
        };
        let last = bias.shape.last().copied().unwrap_or(1).max(1);
        if scales.len() > 1 && last != scales.len() {
            return Err(
                call.error("its scales differ by column and its bias does not: quantise the network again")
            );
        }
        let values = bias.reals().iter().enumerate().map(|(i, b)| b * unit(i % last)).collect();
        inputs.push(Tensor::floats(bias.shape.clone(), values).into());
    }
    if call.input(8).is_some() {
        return on_reals(context, call, matrix::gemm, inputs, 7, &[]);
    }
    let inputs = inputs.into_iter().map(Some).collect();
    matrix::gemm(context, &Call { node: call.node, origin: call.origin.clone(), opset: call.opset, inputs })
}
