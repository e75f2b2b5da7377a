//! Products of constant matrices.

use crate::Error;
use crate::onnx::node::Known;
use crate::onnx::places::turned;
use crate::onnx::tensor::{Tensor, broadcast, broadcast_places};

/// Most multiplications of a product: about a second.
const MAX_PRODUCTS: usize = 1 << 30;

/// `[m, k]` times `[k, n]`, added to `sum`.
fn multiply(a: &[f64], b: &[f64], [m, k, n]: [usize; 3], sum: &mut [f64]) {
    for i in 0..m {
        let row = &mut sum[i * n..(i + 1) * n];
        for j in 0..k {
            let factor = a[i * k + j];
            row.iter_mut().zip(&b[j * n..(j + 1) * n]).for_each(|(s, b)| *s += factor * b);
        }
    }
}

fn affordable(known: Known<'_>, sizes: &[usize]) -> Result<(), Error> {
    let products = sizes.iter().try_fold(1usize, |a, &s| a.checked_mul(s));
    match products.is_some_and(|p| p <= MAX_PRODUCTS) {
        true => Ok(()),
        false => Err(known.node.error(
            "a product of constants this large is not made here: simplify the file, say with onnxsim",
        )),
    }
}

/// MatMul, as NumPy defines it.
pub(super) fn mat_mul(known: Known<'_>) -> Result<Tensor, Error> {
    let (a, b) = (known.needed(0, "first factor")?, known.needed(1, "second factor")?);
    let wrong = || known.node.damaged(format!("shapes {:?} and {:?} are multiplied", a.shape, b.shape));
    let (Some(&a_last), Some(&b_last)) = (a.shape.last(), b.shape.last()) else { return Err(wrong()) };
    // A vector is a row in front and a column behind.
    let split = |shape: &[usize], row: bool| match shape {
        [batch @ .., m, n] => (batch.to_vec(), *m, *n),
        _ if row => (vec![], 1, a_last),
        _ => (vec![], b_last, 1),
    };
    let ((a_batch, m, k), (b_batch, b_k, n)) = (split(&a.shape, true), split(&b.shape, false));
    if k != b_k {
        return Err(wrong());
    }
    let batch = broadcast(&a_batch, &b_batch).ok_or_else(wrong)?;
    let count = batch.iter().product::<usize>();
    let (Some(left), Some(right)) = (broadcast_places(&a_batch, &batch), broadcast_places(&b_batch, &batch))
    else {
        return Err(wrong());
    };
    let mut shape = batch;
    shape.extend((a.rank() > 1).then_some(m));
    shape.extend((b.rank() > 1).then_some(n));
    let shape = known.possible(shape)?;
    affordable(known, &[count, m, n, k])?;
    let (x, y) = (a.reals(), b.reals());
    let mut values = vec![0.0; count * m * n];
    if m * n > 0 {
        for ((l, r), sum) in left.zip(right).zip(values.chunks_mut(m * n)) {
            multiply(&x[l * m * k..(l + 1) * m * k], &y[r * k * n..(r + 1) * k * n], [m, k, n], sum);
        }
    }
    Ok(Tensor::from_floats(a.element, shape, values))
}

/// Gemm: `alpha · A · B + beta · C`.
pub(super) fn gemm(known: Known<'_>) -> Result<Tensor, Error> {
    let factor = |index: usize, name: &str, transposed: &str| -> Result<([usize; 2], Vec<f64>), Error> {
        let tensor = known.needed(index, name)?;
        let &[rows, columns] = tensor.shape.as_slice() else {
            return Err(known.node.damaged(format!("its {name} has shape {:?}", tensor.shape)));
        };
        let values = tensor.reals();
        Ok(match known.node.flag(transposed, false)? {
            false => ([rows, columns], values.into_owned()),
            true => {
                let (_, places) = turned(&tensor.shape, &[1, 0]);
                ([columns, rows], places.map(|place| values[place]).collect())
            }
        })
    };
    let ([m, k], a) = factor(0, "first factor", "transA")?;
    let ([b_k, n], b) = factor(1, "second factor", "transB")?;
    if k != b_k {
        return Err(known.node.damaged(format!("shapes {:?} and {:?} are multiplied", [m, k], [b_k, n])));
    }
    let shape = known.possible(vec![m, n])?;
    affordable(known, &[m, n, k])?;
    let mut values = vec![0.0; m * n];
    multiply(&a, &b, [m, k, n], &mut values);
    let (alpha, beta) = (known.node.float("alpha")?.unwrap_or(1.0), known.node.float("beta")?.unwrap_or(1.0));
    values.iter_mut().for_each(|v| *v *= alpha);
    if let Some(c) = known.constant(2)? {
        let places = broadcast_places(&c.shape, &shape);
        let places = places.ok_or_else(|| known.node.damaged(format!("its bias has shape {:?}", c.shape)))?;
        let c = c.reals();
        values.iter_mut().zip(places).for_each(|(v, place)| *v += beta * c[place]);
    }
    let element = known.needed(0, "first factor")?.element;
    Ok(Tensor::from_floats(element, shape, values))
}
