//! Quantised constants: `real = (integer - zero point) · scale`.

use crate::Error;
use crate::onnx::node::Known;
use crate::onnx::tensor::{Data, Element, Tensor, strides};

/// Scale and zero point of every element of a tensor.
struct Steps<'a> {
    scale: &'a Tensor,
    scales: std::borrow::Cow<'a, [f64]>,
    zeros: Option<std::borrow::Cow<'a, [f64]>>,
    zero_element: Option<Element>,
    /// Place in the scales of element `i`.
    place: Box<dyn Fn(usize) -> usize + 'a>,
}

impl<'a> Steps<'a> {
    /// One for the tensor, one for each place along an axis, or one for each block along it.
    fn new(known: Known<'a>, shape: &'a [usize]) -> Result<Steps<'a>, Error> {
        let scale = known.needed(1, "scale")?;
        let zero = known.constant(2)?;
        let scales = scale.weights().map_err(|e| known.node.error(format!("of the scales: {e}")))?;
        let block = known.node.int("block_size")?.filter(|&b| b != 0);
        let place: Box<dyn Fn(usize) -> usize> = if scale.len() == 1 {
            Box::new(|_| 0)
        } else {
            let axis = known.axis(1, shape.len())?;
            let inner: usize = shape[axis + 1..].iter().product();
            let size = shape[axis];
            match block {
                None if scale.shape == [size] => Box::new(move |i| i / inner % size),
                Some(block) => {
                    let block = usize::try_from(block).unwrap_or(usize::MAX);
                    let mut blocks = shape.to_vec();
                    blocks[axis] = size.div_ceil(block);
                    if scale.shape != blocks {
                        return Err(misfit(known, scale, shape));
                    }
                    let outer = strides(shape)[axis] * size.max(1);
                    let count = blocks[axis];
                    Box::new(move |i| {
                        (i / outer.max(1) * count + i / inner % size / block) * inner + i % inner.max(1)
                    })
                }
                None => return Err(misfit(known, scale, shape)),
            }
        };
        let zeros = match zero {
            None => None,
            // Of floats of eight bits it is one of them.
            Some(zero) if zero.element.is_float() && !zero.element.is_small() => {
                return Err(known.node.damaged("its zero point is not an integer"));
            }
            Some(zero) if zero.len() == scale.len() => {
                Some(zero.weights().map_err(|e| known.node.error(format!("of the zero points: {e}")))?)
            }
            Some(_) => return Err(known.node.damaged("its scale and zero point have different shapes")),
        };
        Ok(Steps { scale, scales, zeros, zero_element: zero.map(|z| z.element), place })
    }

    fn of(&self, i: usize) -> (f64, f64) {
        let place = (self.place)(i);
        (self.scales[place], self.zeros.as_ref().map_or(0.0, |zeros| zeros[place]))
    }
}

fn misfit(known: Known<'_>, scale: &Tensor, shape: &[usize]) -> Error {
    known.node.damaged(format!("scales of shape {:?} are for values of shape {shape:?}", scale.shape))
}

/// The type that the node gives its result, where 0 is none.
fn output_type(known: Known<'_>) -> Result<Option<Element>, Error> {
    match known.node.int("output_dtype")? {
        Some(0) => Ok(None),
        _ => known.element("output_dtype"),
    }
}

/// DequantizeLinear.
pub(super) fn dequantise(known: Known<'_>) -> Result<Tensor, Error> {
    let tensor = known.needed(0, "input")?;
    let steps = Steps::new(known, &tensor.shape)?;
    let value = |(i, &v): (usize, &f64)| {
        let (scale, zero) = steps.of(i);
        (v - zero) * scale
    };
    let values = tensor.reals().iter().enumerate().map(value).collect();
    let element = output_type(known)?.unwrap_or(steps.scale.element);
    Ok(Tensor::from_floats(element, tensor.shape.clone(), values))
}

/// QuantizeLinear.
pub(super) fn quantise(known: Known<'_>) -> Result<Tensor, Error> {
    let tensor = known.needed(0, "input")?;
    let steps = Steps::new(known, &tensor.shape)?;
    let element = steps.zero_element.or(output_type(known)?).unwrap_or(Element::Uint8);
    if element.is_float() {
        return Err(known.node.error("only integers are supported as the quantised type: export it so"));
    }
    let (low, high) = element.range();
    let value = |(i, &v): (usize, &f64)| {
        let (scale, zero) = steps.of(i);
        // In the precision of the scale, in which a half may be one that is none in double precision.
        let steps = steps.scale.element.nearest(v / scale);
        // Towards a bound where it is beyond, 0 where it is no number.
        ((steps.round_ties_even() + zero) as i64).clamp(low, high)
    };
    let values = tensor.reals().iter().enumerate().map(value).collect();
    Ok(Tensor { shape: tensor.shape.clone(), data: Data::Int(values), element })
}
