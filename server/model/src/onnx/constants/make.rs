//! Constants made of attributes, shapes and other constants.

use crate::geometry::MAX_LAYER_WEIGHTS;
use crate::onnx::attribute_type;
use crate::onnx::context::Filled;
use crate::onnx::node::Known;
use crate::onnx::proto::NodeProto;
use crate::onnx::tensor::{Data, Element, Tensor, elements_up_to, strides};
use crate::{Error, MAX_VALUES};

/// Constant, in all its forms with numbers.
pub(super) fn constant(known: Known<'_>) -> Result<Tensor, Error> {
    let node = known.node;
    let length = |len| known.possible(vec![len]);
    if let Some(tensor) = node.tensor("value")? {
        tensor.tensor().map_err(|e| node.error(e))
    } else if let Some(value) = node.float("value_float")? {
        Ok(Tensor::floats(vec![], vec![value]))
    } else if let Some(values) = node.floats("value_floats")? {
        Ok(Tensor::floats(length(values.len())?, values.iter().map(|&v| v.into()).collect()))
    } else if let Some(value) = node.int("value_int")? {
        Ok(Tensor::ints(vec![], vec![value]))
    } else if let Some(values) = node.ints("value_ints")? {
        Ok(Tensor::ints(length(values.len())?, values.to_vec()))
    } else {
        Err(node.error(
            "it is sparse, of texts or without a value, and only dense numbers are read: export it again",
        ))
    }
}

/// ConstantOfShape.
pub(super) fn filled(known: Known<'_>) -> Result<Tensor, Error> {
    let (sizes, one) = fill(known)?;
    let sizes = known.possible(sizes)?;
    let len = sizes.iter().product();
    Ok(one.gather(sizes, std::iter::repeat_n(0, len)))
}

/// A ConstantOfShape of more values than are computed of constants, if a layer may have as many weights: to be made when it
/// is read.
pub(crate) fn large(known: Known<'_>) -> Result<Option<Filled>, Error> {
    if known.node.op_type != "ConstantOfShape" {
        return Ok(None);
    }
    let (sizes, one) = fill(known)?;
    let len = elements_up_to(&sizes, MAX_LAYER_WEIGHTS).filter(|&len| len > MAX_VALUES);
    Ok(len.map(|len| Filled::new(sizes, len, one)))
}

/// Shape and number of a ConstantOfShape.
fn fill(known: Known<'_>) -> Result<(Vec<usize>, Tensor), Error> {
    let shape = known.integers(0)?.ok_or_else(|| known.node.lacks("shape"))?;
    let sizes: Option<Vec<usize>> = shape.iter().map(|&d| usize::try_from(d).ok()).collect();
    let negative = || known.node.damaged(format!("it is to have shape {:?}", &shape[..shape.len().min(8)]));
    let sizes = sizes.ok_or_else(negative)?;
    let value = known.node.tensor("value")?.map(|t| t.tensor().map_err(|e| known.node.error(e)));
    let value = value.transpose()?.unwrap_or_else(|| Tensor::floats(vec![1], vec![0.0]));
    match value.len() {
        1 => Ok((sizes, value)),
        _ => Err(known.node.damaged("its value is not a single number")),
    }
}

/// Shape or Size of a value with this shape, which need not be a constant.
pub(crate) fn of_shape(node: &NodeProto, shape: &[usize]) -> Result<Tensor, Error> {
    if node.op_type == "Size" {
        return Ok(Tensor::ints(vec![], vec![shape.iter().product::<usize>() as i64]));
    }
    let rank = shape.len() as i64;
    let at = |i: i64| (if i < 0 { i.saturating_add(rank) } else { i }).clamp(0, rank) as usize;
    let (start, end) = (at(node.int("start")?.unwrap_or(0)), at(node.int("end")?.unwrap_or(rank)));
    Ok(Tensor::of_shape(shape.get(start..end).unwrap_or(&[])))
}

/// Range.
pub(super) fn range(known: Known<'_>) -> Result<Tensor, Error> {
    let inputs = [known.needed(0, "start")?, known.needed(1, "limit")?, known.needed(2, "delta")?];
    let element = inputs[0].element;
    let wrong =
        || known.node.damaged("its start, limit and delta are not three numbers with a delta other than 0");
    if let [Data::Int(start), Data::Int(limit), Data::Int(delta)] = inputs.map(|t| &t.data) {
        let (&[start], &[limit], &[delta]) = (start.as_slice(), limit.as_slice(), delta.as_slice()) else {
            return Err(wrong());
        };
        let (from, to, by) = (i128::from(start), i128::from(limit), i128::from(delta));
        let count = match by {
            0 => return Err(wrong()),
            1.. if to > from => (to - from - 1) / by + 1,
            ..0 if from > to => (from - to - 1) / -by + 1,
            _ => 0,
        };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let shape = known.possible(vec![count])?;
        let values = (0..count as i64).map(|i| start.wrapping_add(i.wrapping_mul(delta))).collect();
        return Ok(Tensor::from_ints(element, shape, values));
    }
    let [Some(start), Some(limit), Some(delta)] = inputs.map(Tensor::scalar) else { return Err(wrong()) };
    let count = ((limit - start) / delta).ceil().max(0.0);
    if !count.is_finite() {
        return Err(wrong());
    }
    let shape = known.possible(vec![count as usize])?;
    let values = (0..count as usize).map(|i| start + i as f64 * delta).collect();
    Ok(Tensor::from_floats(element, shape, values))
}

/// NonZero.
pub(super) fn non_zero(known: Known<'_>) -> Result<Tensor, Error> {
    let tensor = known.needed(0, "input")?;
    let places: Vec<usize> =
        tensor.reals().iter().enumerate().filter(|(_, v)| **v != 0.0).map(|(i, _)| i).collect();
    let shape = known.possible(vec![tensor.rank(), places.len()])?;
    let steps = strides(&tensor.shape);
    let along =
        |(&size, &step): (&usize, &usize)| places.iter().map(move |p| (p / step % size) as i64).collect();
    let rows: Vec<Vec<i64>> = tensor.shape.iter().zip(&steps).map(along).collect();
    Ok(Tensor::ints(shape, rows.concat()))
}

/// Concat.
pub(super) fn concat(known: Known<'_>) -> Result<Tensor, Error> {
    let parts: Vec<&Tensor> =
        (0..known.inputs.len()).map(|i| known.needed(i, "input")).collect::<Result<_, _>>()?;
    let first = *parts.first().ok_or_else(|| known.node.lacks("input"))?;
    let axis = known.axis(0, first.rank())?;
    let mut shape = first.shape.clone();
    shape[axis] = 0;
    for part in &parts {
        let fits =
            part.rank() == shape.len() && (0..shape.len()).all(|i| i == axis || part.shape[i] == shape[i]);
        if !fits || part.element.is_float() != first.element.is_float() {
            return Err(known.node.damaged(format!(
                "constants of shapes {:?} and {:?} are to be joined along axis {axis}",
                first.shape, part.shape
            )));
        }
        shape[axis] = shape[axis].saturating_add(part.shape[axis]);
    }
    let shape = known.possible(shape)?;
    let (outer, inner): (usize, usize) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
    fn joined<T: Copy>(parts: &[(&[T], usize)], outer: usize) -> Vec<T> {
        let row =
            |o: usize| parts.iter().flat_map(move |(values, row)| &values[o * row..(o + 1) * row]).copied();
        (0..outer).flat_map(row).collect()
    }
    let row = |part: &Tensor| part.shape[axis] * inner;
    let data = if first.element.is_float() {
        let reals: Vec<_> = parts.iter().map(|p| (p.reals(), row(p))).collect();
        Data::Float(joined(&reals.iter().map(|(v, r)| (v.as_ref(), *r)).collect::<Vec<_>>(), outer))
    } else {
        let integers: Vec<_> = parts.iter().filter_map(|p| Some((p.integers()?, row(p)))).collect();
        Data::Int(joined(&integers, outer))
    };
    Ok(Tensor { shape, data, element: first.element })
}

impl Known<'_> {
    /// The type that an attribute names.
    pub(super) fn element(&self, attribute: &str) -> Result<Option<Element>, Error> {
        let Some(found) = self.node.attribute(attribute, attribute_type::INT)?.map(|a| a.i) else {
            return Ok(None);
        };
        let element = i32::try_from(found).ok().and_then(Element::from_onnx);
        element.map(Some).ok_or_else(|| {
            let name = crate::onnx::type_name(i32::try_from(found).unwrap_or(-1));
            self.node.error(format!("type {name} is not supported: export in float32"))
        })
    }
}
