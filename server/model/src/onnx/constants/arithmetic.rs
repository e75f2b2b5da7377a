//! Arithmetic and comparisons of constants, value by value.

use crate::onnx::node::Known;
use crate::onnx::tensor::{Data, Element, Tensor, broadcast, broadcast_places, broadcast_up_to};
use crate::{Error, MAX_VALUES};

/// Evaluates an operator that works value by value; nothing for other operators.
pub(super) fn evaluate(known: Known<'_>, op: &str) -> Result<Option<Tensor>, Error> {
    if op == "Clip" {
        return clip(known).map(Some);
    }
    if op == "Where" {
        return choose(known).map(Some);
    }
    if let Some((real, integer)) = unary(op) {
        let tensor = known.needed(0, "input")?;
        let shape = tensor.shape.clone();
        return Ok(Some(match &tensor.data {
            Data::Float(values) => {
                Tensor::from_floats(tensor.element, shape, values.iter().map(|&v| real(v)).collect())
            }
            Data::Int(values) => {
                Tensor::from_ints(tensor.element, shape, values.iter().map(|&v| integer(v)).collect())
            }
        }));
    }
    match op {
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" => binary(known, op, 2).map(Some),
        "And" | "Or" | "Xor" | "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => {
            binary(known, op, 2).map(Some)
        }
        "Min" | "Max" => binary(known, op, known.inputs.len()).map(Some),
        "Sum" => binary(known, "Add", known.inputs.len()).map(Some),
        "Mean" => {
            let count = known.inputs.len();
            let mut sum = binary(known, "Add", count)?;
            if let Data::Float(values) = &mut sum.data {
                values.iter_mut().for_each(|v| *v = sum.element.nearest(*v / count as f64));
            }
            Ok(Some(sum))
        }
        _ => Ok(None),
    }
}

/// An operator on a value: on reals and on integers, both before rounding to the type.
type Unary = (fn(f64) -> f64, fn(i64) -> i64);

fn unary(op: &str) -> Option<Unary> {
    Some(match op {
        "Neg" => (|v| -v, i64::wrapping_neg),
        "Abs" => (f64::abs, i64::wrapping_abs),
        "Sign" => (|v| if v == 0.0 { v } else { v.signum() }, i64::signum),
        "Relu" => (|v| v.max(0.0), |v| v.max(0)),
        "Floor" => (f64::floor, |v| v),
        "Ceil" => (f64::ceil, |v| v),
        "Round" => (f64::round_ties_even, |v| v),
        "Sqrt" => (f64::sqrt, |v| (v as f64).sqrt() as i64),
        "Reciprocal" => (f64::recip, |v| (v as f64).recip() as i64),
        "Exp" => (f64::exp, |v| (v as f64).exp() as i64),
        "Log" => (f64::ln, |v| (v as f64).ln() as i64),
        "Tanh" => (f64::tanh, |v| (v as f64).tanh() as i64),
        "Sigmoid" => (|v| 1.0 / (1.0 + (-v).exp()), |_| 0),
        "Not" => (|v| f64::from(u8::from(v == 0.0)), |v| i64::from(v == 0)),
        _ => return None,
    })
}

/// An operator on two values, applied from the left if there are more.
fn binary(known: Known<'_>, op: &str, count: usize) -> Result<Tensor, Error> {
    let mut result = known.needed(0, "first input")?.clone();
    for i in 1..count {
        let other = known.needed(i, "second input")?;
        result = pair(known, op, &result, other)?;
    }
    Ok(result)
}

fn pair(known: Known<'_>, op: &str, a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
    // As large as one of the two it may always be.
    let shape = broadcast_up_to(&a.shape, &b.shape, MAX_VALUES.max(a.len()).max(b.len()));
    let places =
        shape.as_ref().and_then(|s| broadcast_places(&a.shape, s).zip(broadcast_places(&b.shape, s)));
    let (Some(shape), Some((left, right))) = (shape, places) else {
        return Err(known.node.damaged(format!("constants of shapes {:?} and {:?} meet", a.shape, b.shape)));
    };
    let compared = |values| Tensor { shape: shape.clone(), data: Data::Int(values), element: Element::Bool };
    match (&a.data, &b.data) {
        (Data::Int(x), Data::Int(y)) => {
            let places = left.zip(right).map(|(l, r)| (x[l], y[r]));
            if let Some(holds) = comparison::<i64>(op) {
                return Ok(compared(places.map(|(x, y)| i64::from(holds(x, y))).collect()));
            }
            let values: Option<Vec<i64>> = places.map(|(x, y)| integer(known, op, x, y)).collect();
            let values = values.ok_or_else(|| known.node.damaged("an integer is divided by 0"))?;
            Ok(Tensor::from_ints(a.element, shape, values))
        }
        _ => {
            let (x, y) = (a.reals(), b.reals());
            let places = left.zip(right).map(|(l, r)| (x[l], y[r]));
            if let Some(holds) = comparison::<f64>(op) {
                return Ok(compared(places.map(|(x, y)| i64::from(holds(x, y))).collect()));
            }
            // Of two types only the base and the exponent of a power may be.
            let element = if op == "Pow" || a.element.is_float() { a.element } else { b.element };
            Ok(Tensor::from_floats(element, shape, places.map(|(x, y)| real(known, op, x, y)).collect()))
        }
    }
}

/// What comes out as true or false.
fn comparison<T: PartialOrd + PartialEq + Default>(op: &str) -> Option<fn(T, T) -> bool> {
    Some(match op {
        "Equal" => |x, y| x == y,
        "Less" => |x, y| x < y,
        "LessOrEqual" => |x, y| x <= y,
        "Greater" => |x, y| x > y,
        "GreaterOrEqual" => |x, y| x >= y,
        "And" => |x, y| x != T::default() && y != T::default(),
        "Or" => |x, y| x != T::default() || y != T::default(),
        "Xor" => |x, y| (x != T::default()) != (y != T::default()),
        _ => return None,
    })
}

/// Whether a remainder has the sign of the dividend, not of the divisor.
fn like_dividend(known: Known<'_>) -> bool {
    known.node.flag("fmod", false).unwrap_or(false)
}

fn real(known: Known<'_>, op: &str, x: f64, y: f64) -> f64 {
    match op {
        "Add" => x + y,
        "Sub" => x - y,
        "Mul" => x * y,
        "Div" => x / y,
        "Pow" => x.powf(y),
        "Mod" => {
            let rest = x % y;
            if !like_dividend(known) && rest != 0.0 && (rest < 0.0) != (y < 0.0) { rest + y } else { rest }
        }
        "Min" => x.min(y),
        _ => x.max(y),
    }
}

/// Nothing where 0 would divide.
fn integer(known: Known<'_>, op: &str, x: i64, y: i64) -> Option<i64> {
    Some(match op {
        "Add" => x.wrapping_add(y),
        "Sub" => x.wrapping_sub(y),
        "Mul" => x.wrapping_mul(y),
        "Div" if y == 0 => return None,
        "Div" => x.wrapping_div(y),
        "Mod" if y == 0 => return None,
        "Mod" => {
            let rest = x.wrapping_rem(y);
            if !like_dividend(known) && rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest }
        }
        "Pow" => match u32::try_from(y) {
            Ok(y) => x.wrapping_pow(y),
            Err(_) => (x as f64).powf(y as f64) as i64,
        },
        "Min" => x.min(y),
        _ => x.max(y),
    })
}

fn clip(known: Known<'_>) -> Result<Tensor, Error> {
    let tensor = known.needed(0, "input")?;
    let bound = |name: &str, index: usize| match known.opset {
        ..11 => Ok(known.node.float(name)?.map(|v| Tensor::floats(vec![], vec![v]))),
        _ => Ok::<_, Error>(known.constant(index)?.cloned()),
    };
    let mut result = tensor.clone();
    if let Some(low) = bound("min", 1)? {
        result = pair(known, "Max", &result, &low)?;
    }
    if let Some(high) = bound("max", 2)? {
        result = pair(known, "Min", &result, &high)?;
    }
    match result.shape == tensor.shape {
        true => Ok(result.cast(tensor.element)),
        false => Err(known.node.damaged("its bounds are not single numbers")),
    }
}

/// Where.
fn choose(known: Known<'_>) -> Result<Tensor, Error> {
    let (condition, yes, no) =
        (known.needed(0, "condition")?, known.needed(1, "second input")?, known.needed(2, "third input")?);
    let shape = broadcast(&yes.shape, &no.shape).and_then(|s| broadcast(&condition.shape, &s));
    let same = yes.element.is_float() == no.element.is_float();
    let parts = shape.filter(|_| same).and_then(|shape| {
        let condition = condition.broadcast_to(&shape)?;
        Some((condition, yes.broadcast_to(&shape)?, no.broadcast_to(&shape)?, shape))
    });
    let (condition, yes, no, shape) =
        parts.ok_or_else(|| known.node.damaged("the shapes or types of its inputs do not fit each other"))?;
    fn pick<T: Copy>(condition: &[f64], yes: &[T], no: &[T]) -> Vec<T> {
        condition.iter().zip(yes.iter().zip(no)).map(|(&c, (&y, &n))| if c != 0.0 { y } else { n }).collect()
    }
    let condition = condition.reals();
    let data = match (&yes.data, &no.data) {
        (Data::Int(yes), Data::Int(no)) => Data::Int(pick(&condition, yes, no)),
        _ => Data::Float(pick(&condition, &yes.reals(), &no.reals())),
    };
    Ok(Tensor { shape, data, element: yes.element })
}
