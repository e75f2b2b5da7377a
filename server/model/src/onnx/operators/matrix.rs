//! Gemm and MatMul: matrices, and 1x1 convolutions where a matrix is applied to many rows.

use super::super::call::Call;
use super::super::context::{Context, Secret, Value};
use super::super::places;
use super::super::tensor::{Tensor, broadcast_places};
use crate::geometry::{Conv, Dense};
use crate::real::{Linear, Origin};
use crate::{Error, Geometry};

/// `y[b] = A[b] · x[b]`: `batch` matrices of `rows x inner`, row-major, applied to as many of `inner x columns`.
pub(super) struct Product {
    pub batch: usize,
    pub rows: usize,
    pub inner: usize,
    pub columns: usize,
}

impl Product {
    fn geometry(&self) -> Geometry {
        let Product { batch, rows, inner, columns } = *self;
        match (batch, columns) {
            (1, 1) => Geometry::Dense(Dense { inputs: inner, outputs: rows }),
            _ => Geometry::Conv(Conv {
                input: [batch.saturating_mul(inner), 1, columns],
                channels: batch.saturating_mul(rows),
                kernel: [1; 2],
                stride: [1; 2],
                dilation: [1; 2],
                pads: [0; 4],
                groups: batch,
            }),
        }
    }

    /// The layer, without a bias.
    fn layer(
        &self,
        context: &mut Context,
        origin: &Origin,
        input: usize,
        weights: Vec<f64>,
    ) -> Result<usize, Error> {
        let geometry = self.geometry();
        let bias = vec![0.0; geometry.outputs()];
        context.linear(origin, Linear { input, geometry, weights, bias })
    }

    /// The layer of values whose rows are what it calls columns, and whose result's are too.
    fn of_rows(
        &self,
        context: &mut Context,
        origin: &Origin,
        input: usize,
        weights: Vec<f64>,
    ) -> Result<usize, Error> {
        let Product { batch, rows, inner, columns } = *self;
        if columns == 1 {
            return self.layer(context, origin, input, weights);
        }
        let flat = Secret::new(input, vec![batch, columns, inner]);
        let flat = context.transpose(origin, &flat, &[0, 2, 1])?;
        let id = self.layer(context, origin, flat.id, weights)?;
        let made = Secret::new(id, vec![batch, rows, columns]);
        Ok(context.transpose(origin, &made, &[0, 2, 1])?.id)
    }
}

/// `alpha · A · B + beta · C` with either of A and B constant.
pub(super) fn gemm(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["alpha", "beta", "transA", "transB"])?;
    let alpha = call.node.float("alpha")?.unwrap_or(1.0);
    let beta = call.node.float("beta")?.unwrap_or(1.0);
    let turned = [call.node.flag("transA", false)?, call.node.flag("transB", false)?];
    let mut factors = Vec::new();
    // A row of weights for each result, as layers have them: most files do.
    let mut rows = false;
    for (index, turned) in turned.into_iter().enumerate() {
        let factor = factor(call, index)?;
        if shape(&factor).len() != 2 {
            return Err(call.error(format!(
                "its input {index} has shape {:?}, and a matrix is needed: put a Flatten in front",
                shape(&factor)
            )));
        }
        factors.push(match (factor, turned) {
            (factor, false) => factor,
            (weights @ Value::Constant(_), true) if index == 1 => {
                rows = true;
                weights
            }
            (Value::Constant(tensor), true) => {
                let (shape, places) = places::turned(&tensor.shape, &[1, 0]);
                tensor.gather(shape, places).into()
            }
            (Value::Secret(secret), true) => context.transpose(&call.origin, &secret, &[1, 0])?.into(),
        });
    }
    let [a, b] = factors.as_slice() else { return Err(call.node.lacks("factors")) };
    let product = match (a, b) {
        (Value::Secret(x), Value::Constant(weights)) if rows => by_rows(context, call, x, weights, alpha)?,
        _ => multiply(context, call, a, b, alpha)?,
    };
    let Some(c) = call.input(2).filter(|_| beta != 0.0) else { return Ok(vec![product.into()]) };
    let id = match c {
        Value::Constant(c) => {
            let places = broadcast_places(&c.shape, &product.shape)
                .ok_or_else(|| unfit(call, &c.shape, &product.shape))?;
            let values = call.numbers(c)?;
            let offset: Vec<f64> = places.map(|p| beta * values.get(p).copied().unwrap_or(0.0)).collect();
            context.scale(&call.origin, product.id, vec![1.0; offset.len()], offset)?
        }
        Value::Secret(_) => {
            let c = context.broadcast(&call.origin, call.secret(2)?, &product.shape)?;
            context.sum(&call.origin, &[(1.0, product.id), (beta, c.id)], 0.0)?
        }
    };
    Ok(vec![product.with(id, product.shape.clone()).into()])
}

fn unfit(call: &Call<'_>, from: &[usize], to: &[usize]) -> Error {
    call.error(format!(
        "its bias has shape {from:?}, and its result {to:?}: export it with a value for each output"
    ))
}

/// A product with either factor constant.
pub(super) fn matmul(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    Ok(vec![multiply(context, call, &factor(call, 0)?, &factor(call, 1)?, 1.0)?.into()])
}

/// A factor, of real numbers.
fn factor(call: &Call<'_>, index: usize) -> Result<Value, Error> {
    match call.input(index) {
        Some(Value::Secret(_)) => Ok(call.secret(index)?.clone().into()),
        Some(constant) => Ok(constant.clone()),
        None => Err(call.node.lacks(&format!("input {index}"))),
    }
}

fn shape(value: &Value) -> &[usize] {
    match value {
        Value::Constant(tensor) => &tensor.shape,
        Value::Secret(secret) => &secret.shape,
    }
}

/// `factor · A · B` as NumPy's matmul, with one of them constant.
pub(super) fn multiply(
    context: &mut Context,
    call: &Call<'_>,
    a: &Value,
    b: &Value,
    factor: f64,
) -> Result<Secret, Error> {
    match (a, b) {
        (Value::Secret(x), Value::Constant(weights)) => right(context, call, x, weights, factor),
        (Value::Constant(weights), Value::Secret(x)) => left(context, call, weights, x, factor),
        (Value::Secret(_), Value::Secret(_)) => Err(call.error(
            "both its factors depend on the input, and products of two secret values (as in attention) are not \
             supported: use layers with constant weights",
        )),
        _ => Err(call.error("both its factors are constant: replace it by its result, say with onnxsim")),
    }
}

fn mismatch(call: &Call<'_>, a: &[usize], b: &[usize]) -> Error {
    call.error(format!("shapes {a:?} and {b:?} cannot be multiplied: change the layer or its input"))
}

/// The shape in front of the last two axes, and these, a vector being a column or a row.
fn split(shape: &[usize], vector_is_row: bool) -> Option<(&[usize], [usize; 2])> {
    match shape {
        [] => None,
        [n] if vector_is_row => Some((&[], [1, *n])),
        [n] => Some((&[], [*n, 1])),
        [batch @ .., m, n] => Some((batch, [*m, *n])),
    }
}

/// What the two batches are broadcast to, if the constant's is either 1 or that of the value.
fn batches(of_value: &[usize], of_weights: &[usize]) -> Option<(Vec<usize>, usize)> {
    let weights: usize = of_weights.iter().product();
    if weights == 1 {
        // Axes of 1 in front of the value's own.
        let more = of_weights.len().saturating_sub(of_value.len());
        return Some(([vec![1; more], of_value.to_vec()].concat(), 1));
    }
    let value: usize = of_value.iter().product();
    let trimmed = |shape: &[usize]| shape.iter().copied().skip_while(|&n| n == 1).collect::<Vec<_>>();
    (trimmed(of_value) == trimmed(of_weights)).then(|| {
        let longer = if of_value.len() >= of_weights.len() { of_value } else { of_weights };
        (longer.to_vec(), value)
    })
}

/// Whether there are several matrices for one value of two axes at least.
fn several(of_value: &[usize], of_weights: &[usize]) -> bool {
    of_value.iter().all(|&n| n == 1)
        && of_value.len() <= of_weights.len()
        && of_weights.iter().any(|&n| n > 1)
}

/// A constant on the right: every row of the value is multiplied by it.
fn right(
    context: &mut Context,
    call: &Call<'_>,
    x: &Secret,
    weights: &Tensor,
    factor: f64,
) -> Result<Secret, Error> {
    let origin = &call.origin;
    let wrong = || mismatch(call, &x.shape, &weights.shape);
    let (x_batch, [rows, inner]) = split(&x.shape, true).ok_or_else(wrong)?;
    let (w_batch, [w_inner, columns]) = split(&weights.shape, false).ok_or_else(wrong)?;
    if inner != w_inner || inner == 0 {
        return Err(wrong());
    }
    if several(x_batch, w_batch) {
        let wide = [w_batch, &[rows, inner]].concat();
        let wide = context.broadcast(origin, x, &wide)?;
        let mut made = right(context, call, &wide, weights, factor)?;
        if x.shape.len() == 1 {
            // A vector is one row, and that axis goes again.
            made.shape.remove(w_batch.len());
        }
        return Ok(made);
    }
    let (mut shape, batch) = batches(x_batch, w_batch).ok_or_else(|| unbroadcast(call, x, weights))?;
    let rows_in_all = x.len() / inner;
    let product = Product { batch, rows: columns, inner, columns: rows_in_all / batch.max(1) };
    if x.shape.len() > 1 {
        shape.push(rows);
    }
    if weights.shape.len() > 1 {
        shape.push(columns);
    }
    context.room(origin, &product.geometry())?;
    let values = call.numbers(weights)?;
    let mut turned = Vec::with_capacity(values.len());
    for matrix in values.chunks_exact((inner * columns).max(1)) {
        for c in 0..columns {
            turned.extend(matrix.iter().skip(c).step_by(columns).map(|w| w * factor));
        }
    }
    let id = product.of_rows(context, origin, x.id, turned)?;
    Ok(Secret::new(id, shape))
}

/// A matrix of two axes and a constant one, turned, on its right.
fn by_rows(
    context: &mut Context,
    call: &Call<'_>,
    x: &Secret,
    weights: &Tensor,
    factor: f64,
) -> Result<Secret, Error> {
    let (&[columns, inner], &[rows, w_inner]) = (x.shape.as_slice(), weights.shape.as_slice()) else {
        return Err(mismatch(call, &x.shape, &weights.shape));
    };
    if inner != w_inner || inner == 0 {
        return Err(mismatch(call, &x.shape, &[w_inner, rows]));
    }
    let product = Product { batch: 1, rows, inner, columns };
    context.room(&call.origin, &product.geometry())?;
    let values = call.numbers(weights)?.iter().map(|w| w * factor).collect();
    let id = product.of_rows(context, &call.origin, x.id, values)?;
    Ok(Secret::new(id, vec![columns, rows]))
}

/// A constant on the left: every column of the value is multiplied by it.
fn left(
    context: &mut Context,
    call: &Call<'_>,
    weights: &Tensor,
    x: &Secret,
    factor: f64,
) -> Result<Secret, Error> {
    let origin = &call.origin;
    let wrong = || mismatch(call, &weights.shape, &x.shape);
    let (x_batch, [inner, columns]) = split(&x.shape, false).ok_or_else(wrong)?;
    let (w_batch, [rows, w_inner]) = split(&weights.shape, true).ok_or_else(wrong)?;
    if inner != w_inner || inner == 0 {
        return Err(wrong());
    }
    if several(x_batch, w_batch) {
        let wide = [w_batch, &[inner, columns]].concat();
        let column = x.with(x.id, vec![inner, columns]);
        let wide = context.broadcast(origin, if x.shape.len() == 1 { &column } else { x }, &wide)?;
        let mut made = left(context, call, weights, &wide, factor)?;
        if x.shape.len() == 1 {
            // A vector is one column, and that axis goes again.
            made.shape.pop();
        }
        return Ok(made);
    }
    let (mut shape, batch) = batches(x_batch, w_batch).ok_or_else(|| unbroadcast(call, x, weights))?;
    if weights.shape.len() > 1 {
        shape.push(rows);
    }
    if x.shape.len() > 1 {
        shape.push(columns);
    }
    let values: Vec<f64> = call.numbers(weights)?.iter().map(|w| w * factor).collect();
    let in_all: usize = x_batch.iter().product();
    if batch == in_all {
        let product = Product { batch, rows, inner, columns };
        context.room(origin, &product.geometry())?;
        let id = product.layer(context, origin, x.id, values)?;
        return Ok(Secret::new(id, shape));
    }
    // One matrix for all: side by side.
    let product = Product { batch: 1, rows, inner, columns: in_all.saturating_mul(columns) };
    context.room(origin, &product.geometry())?;
    let side = Secret::new(x.id, vec![in_all, inner, columns]);
    let side = context.transpose(origin, &side, &[1, 0, 2])?;
    let id = product.layer(context, origin, side.id, values)?;
    let made = context.transpose(origin, &Secret::new(id, vec![rows, in_all, columns]), &[1, 0, 2])?;
    Ok(Secret::new(made.id, shape))
}

fn unbroadcast(call: &Call<'_>, x: &Secret, weights: &Tensor) -> Error {
    call.error(format!(
        "it multiplies shape {:?} by constants of shape {:?}, whose leading axes must be 1 or the same: use one matrix \
         for all",
        x.shape, weights.shape
    ))
}
