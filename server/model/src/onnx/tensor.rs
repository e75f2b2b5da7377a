//! Constants: what is known of a network before its input comes.

use std::borrow::Cow;

use super::places::OUTSIDE;
use super::proto::volume;
use crate::MAX_VALUES;
use crate::geometry::MAX_LAYER_WEIGHTS;

/// Most axes of a constant or value.
pub(crate) const MAX_AXES: usize = 8;

/// Most elements of a constant that a file has, or that one of its nodes fills with a number. What is computed of constants has [`MAX_VALUES`] at most, or as many as the largest that it is computed of.
pub(crate) const MAX_CONSTANT: usize = MAX_LAYER_WEIGHTS;

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    Float16,
    BFloat16,
    Float,
    Double,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Bool,
    Int4,
    Uint4,
    Int2,
    Uint2,
    Float8E4M3Fn,
    Float8E4M3Fnuz,
    Float8E5M2,
    Float8E5M2Fnuz,
    Float4E2M1,
}

impl Element {
    /// The type that has this number in `TensorProto.DataType`, if it is one that is read.
    pub(crate) fn from_onnx(data_type: i32) -> Option<Element> {
        Some(match data_type {
            1 => Element::Float,
            2 => Element::Uint8,
            3 => Element::Int8,
            4 => Element::Uint16,
            5 => Element::Int16,
            6 => Element::Int32,
            7 => Element::Int64,
            9 => Element::Bool,
            10 => Element::Float16,
            11 => Element::Double,
            12 => Element::Uint32,
            13 => Element::Uint64,
            16 => Element::BFloat16,
            17 => Element::Float8E4M3Fn,
            18 => Element::Float8E4M3Fnuz,
            19 => Element::Float8E5M2,
            20 => Element::Float8E5M2Fnuz,
            21 => Element::Uint4,
            22 => Element::Int4,
            23 => Element::Float4E2M1,
            25 => Element::Uint2,
            26 => Element::Int2,
            _ => return None,
        })
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(
            self,
            Element::Float16
                | Element::BFloat16
                | Element::Float
                | Element::Double
                | Element::Float8E4M3Fn
                | Element::Float8E4M3Fnuz
                | Element::Float8E5M2
                | Element::Float8E5M2Fnuz
                | Element::Float4E2M1
        )
    }

    /// Least and greatest integer, of UINT64 as far as an `i64` holds it.
    pub(crate) fn range(self) -> (i64, i64) {
        match self {
            Element::Bool => (0, 1),
            Element::Int8 => (i8::MIN.into(), i8::MAX.into()),
            Element::Int16 => (i16::MIN.into(), i16::MAX.into()),
            Element::Int32 => (i32::MIN.into(), i32::MAX.into()),
            Element::Uint8 => (0, u8::MAX.into()),
            Element::Uint16 => (0, u16::MAX.into()),
            Element::Uint32 => (0, u32::MAX.into()),
            Element::Uint64 => (0, i64::MAX),
            Element::Int4 => (-8, 7),
            Element::Uint4 => (0, 15),
            Element::Int2 => (-2, 1),
            Element::Uint2 => (0, 3),
            _ => (i64::MIN, i64::MAX),
        }
    }

    /// Whether it holds all integers from 0 to this one.
    pub(crate) fn counts_to(self, most: i64) -> bool {
        // Beyond what a float's digits hold every other integer is not one of its numbers.
        let holds = |value: i64| self.nearest(value as f64) == value as f64;
        if self.is_float() { holds(most) && holds(most - 1) } else { most <= self.range().1 }
    }

    /// The value of this type that is nearest to a real number.
    pub(crate) fn nearest(self, value: f64) -> f64 {
        match self {
            Element::Float16 => round_to(value, 11, -14, 65504.0),
            Element::BFloat16 => round_to(value, 8, -126, f32::from_bits(0x7f7f_0000).into()),
            Element::Float => f64::from(value as f32),
            _ => self.nearest_small(value).unwrap_or(value),
        }
    }

    /// An integer as this type keeps it: modulo its range.
    pub(crate) fn wrap(self, value: i64) -> i64 {
        match self {
            Element::Bool => i64::from(value != 0),
            Element::Int8 => i64::from(value as i8),
            Element::Int16 => i64::from(value as i16),
            Element::Int32 => i64::from(value as i32),
            Element::Uint8 => i64::from(value as u8),
            Element::Uint16 => i64::from(value as u16),
            Element::Uint32 => i64::from(value as u32),
            Element::Uint4 => value & 15,
            Element::Uint2 => value & 3,
            // The sign is in the fourth or second bit.
            Element::Int4 => value << 60 >> 60,
            Element::Int2 => value << 62 >> 62,
            _ => value,
        }
    }
}

/// Rounds to a binary floating-point number of `bits` significant bits with least exponent `least`, ties to even.
pub(super) fn round_to(value: f64, bits: i32, least: i32, max: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let exponent = ((value.abs().to_bits() >> 52) as i32 - 1023).max(least);
    let unit = 2f64.powi(exponent - bits + 1);
    let rounded = (value / unit).round_ties_even() * unit;
    if rounded.abs() > max { f64::INFINITY.copysign(value) } else { rounded }
}

/// The number with these FLOAT16 bits.
pub(crate) fn from_half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// A constant's elements, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Float(Vec<f64>),
    /// Also truth values, as 0 and 1.
    Int(Vec<i64>),
}

/// A constant: at most [`MAX_CONSTANT`] elements on at most [`MAX_AXES`] axes, as many as the shape says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub shape: Vec<usize>,
    pub data: Data,
    /// Type of the elements: floats have `Data::Float`, all others `Data::Int`.
    pub element: Element,
}

impl Tensor {
    /// A FLOAT tensor. The shape must fit the values, as in all functions here that make one.
    pub(crate) fn floats(shape: Vec<usize>, values: Vec<f64>) -> Tensor {
        Tensor { shape, data: Data::Float(values), element: Element::Float }
    }

    /// An INT64 tensor.
    pub(crate) fn ints(shape: Vec<usize>, values: Vec<i64>) -> Tensor {
        Tensor { shape, data: Data::Int(values), element: Element::Int64 }
    }

    /// The INT64 tensor that Shape makes of a value with this shape.
    pub(crate) fn of_shape(shape: &[usize]) -> Tensor {
        Tensor::ints(vec![shape.len()], shape.iter().map(|&d| d as i64).collect())
    }

    /// A tensor of any type from reals, each taken to the nearest value of the type (integers: towards zero, modulo).
    pub(crate) fn from_floats(element: Element, shape: Vec<usize>, mut values: Vec<f64>) -> Tensor {
        let data = if element.is_float() {
            values.iter_mut().for_each(|v| *v = element.nearest(*v));
            Data::Float(values)
        } else if element == Element::Bool {
            Data::Int(values.iter().map(|&v| i64::from(v != 0.0)).collect())
        } else {
            Data::Int(values.iter().map(|&v| element.wrap(v as i64)).collect())
        };
        Tensor { shape, data, element }
    }

    /// A tensor of any type from integers.
    pub(crate) fn from_ints(element: Element, shape: Vec<usize>, mut values: Vec<i64>) -> Tensor {
        if element.is_float() {
            return Tensor::from_floats(element, shape, values.iter().map(|&v| v as f64).collect());
        }
        values.iter_mut().for_each(|v| *v = element.wrap(*v));
        Tensor { shape, data: Data::Int(values), element }
    }

    /// The elements in another type: rounded, cut off towards zero, or modulo its range.
    pub(crate) fn cast(&self, to: Element) -> Tensor {
        match &self.data {
            Data::Float(values) => Tensor::from_floats(to, self.shape.clone(), values.clone()),
            Data::Int(values) => Tensor::from_ints(to, self.shape.clone(), values.clone()),
        }
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        match &self.data {
            Data::Float(values) => values.len(),
            Data::Int(values) => values.len(),
        }
    }

    /// Number of axes.
    pub(crate) fn rank(&self) -> usize {
        self.shape.len()
    }

    /// All elements as reals.
    pub(crate) fn reals(&self) -> Cow<'_, [f64]> {
        match &self.data {
            Data::Float(values) => Cow::Borrowed(values),
            Data::Int(values) => Cow::Owned(values.iter().map(|&v| v as f64).collect()),
        }
    }

    /// All elements as finite reals: what a weight must be. The error says what is wrong with "it".
    pub(crate) fn weights(&self) -> Result<Cow<'_, [f64]>, String> {
        let values = self.reals();
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(values),
            false => {
                Err("it has values that are not finite (infinite or no numbers): train or export it again"
                    .to_owned())
            }
        }
    }

    /// All elements, if they are integers.
    pub(crate) fn integers(&self) -> Option<&[i64]> {
        match &self.data {
            Data::Int(values) => Some(values),
            Data::Float(_) => None,
        }
    }

    /// The only element, as a real.
    pub(crate) fn scalar(&self) -> Option<f64> {
        match &self.data {
            Data::Float(values) => values.first().copied().filter(|_| values.len() == 1),
            Data::Int(values) => values.first().map(|&v| v as f64).filter(|_| values.len() == 1),
        }
    }

    /// The same elements in another shape with as many.
    pub(crate) fn reshaped(mut self, shape: Vec<usize>) -> Tensor {
        self.shape = shape;
        self
    }

    /// A tensor of the elements at these places, zero for [`OUTSIDE`].
    pub(crate) fn gather(&self, shape: Vec<usize>, places: impl IntoIterator<Item = usize>) -> Tensor {
        fn pick<T: Copy + Default>(values: &[T], places: impl IntoIterator<Item = usize>) -> Vec<T> {
            let value = |p: usize| {
                if p == OUTSIDE { T::default() } else { values.get(p).copied().unwrap_or_default() }
            };
            places.into_iter().map(value).collect()
        }
        let data = match &self.data {
            Data::Float(values) => Data::Float(pick(values, places)),
            Data::Int(values) => Data::Int(pick(values, places)),
        };
        Tensor { shape, data, element: self.element }
    }

    /// The tensor broadcast to a shape that [`broadcast`] gave for it.
    pub(crate) fn broadcast_to(&self, shape: &[usize]) -> Option<Tensor> {
        let places = broadcast_places(&self.shape, shape)?;
        Some(self.gather(shape.to_vec(), places))
    }
}

/// Number of elements of a shape, if it is one that a computed constant may have. An empty axis does not excuse the others.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    elements_up_to(shape, MAX_VALUES)
}

/// Number of elements of a shape, if it is one that a constant in a file may have.
pub(crate) fn stored_elements(shape: &[usize]) -> Option<usize> {
    elements_up_to(shape, MAX_CONSTANT)
}

/// Number of elements of a shape, if these are at most so many.
pub(crate) fn elements_up_to(shape: &[usize], most: usize) -> Option<usize> {
    let largest = shape.iter().try_fold(1usize, |a, &d| a.checked_mul(d.max(1)))?;
    if largest <= most && shape.len() <= MAX_AXES { volume(shape) } else { None }
}

/// Distances of neighbours along every axis in row-major order.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

/// The shape that two are broadcast to (NumPy's rule), if they can be and it is one that a computed constant may have.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    broadcast_up_to(a, b, MAX_VALUES)
}

/// The shape that two are broadcast to, if they can be and it has at most so many values.
pub(crate) fn broadcast_up_to(a: &[usize], b: &[usize], most: usize) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let axis = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    let shape: Vec<usize> = (0..rank)
        .map(|i| match (axis(a, i), axis(b, i)) {
            (m, n) if m == n => Some(m),
            (1, n) => Some(n),
            (m, 1) => Some(m),
            _ => None,
        })
        .collect::<Option<_>>()?;
    elements_up_to(&shape, most).map(|_| shape)
}

/// For every element of a tensor with shape `to` the place in one with shape `from` that is broadcast to it.
pub(crate) fn broadcast_places(from: &[usize], to: &[usize]) -> Option<Walk> {
    let missing = to.len().checked_sub(from.len())?;
    let mut steps = vec![0; to.len()];
    for ((axis, &size), stride) in from.iter().enumerate().zip(strides(from)) {
        match to[missing + axis] {
            n if n == size => steps[missing + axis] = if size == 1 { 0 } else { stride as isize },
            _ if size == 1 => {}
            _ => return None,
        }
    }
    Some(Walk::new(to, steps, 0))
}

/// Places of a strided view, in the view's row-major order.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    shape: Vec<usize>,
    steps: Vec<isize>,
    at: Vec<usize>,
    place: isize,
    left: usize,
}

impl Walk {
    /// A view with this shape, whose neighbours along every axis are `steps` apart, from place `start` on. Its places must not
    /// be negative.
    pub(crate) fn new(shape: &[usize], steps: Vec<isize>, start: isize) -> Walk {
        let left = volume(shape).unwrap_or(0);
        Walk { shape: shape.to_vec(), at: vec![0; shape.len()], steps, place: start, left }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let place = self.place as usize;
        for axis in (0..self.shape.len()).rev() {
            self.at[axis] += 1;
            self.place += self.steps[axis];
            if self.at[axis] < self.shape[axis] {
                break;
            }
            self.place -= self.steps[axis] * self.shape[axis] as isize;
            self.at[axis] = 0;
        }
        Some(place)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
