//! Inputs in NumPy's format (numpy.lib.format), as tools on a command line read them.

use crate::shape::{self, ShapeMismatch};
use crate::{Model, Quantised};
use std::borrow::Cow;
use std::result::Result as StdResult;
use zeroize::Zeroizing;

/// What begins a file.
pub const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Why an array holds no inputs of the model. Shown, it is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its axes are not the model's.
    #[error(transparent)]
    Axes(#[from] ShapeMismatch),
    /// The file or a number in it cannot be used.
    #[error("{0}")]
    Unusable(Cow<'static, str>),
}

impl From<&'static str> for Error {
    fn from(what: &'static str) -> Self {
        Self::Unusable(what.into())
    }
}

impl From<String> for Error {
    fn from(what: String) -> Self {
        Self::Unusable(what.into())
    }
}

type Result<T> = StdResult<T, Error>;

/// An array as it lies in its file.
pub struct Array<'f> {
    axes: Vec<usize>,
    /// None of bytes, which are input values already.
    element: Option<Element>,
    values: &'f [u8],
}

/// The type of an array's elements.
#[derive(Clone, Copy)]
struct Element {
    /// Bytes of one.
    size: usize,
    /// Its number; from little-endian bytes.
    number: fn(&[u8]) -> f64,
    /// What stands first in the file.
    big_endian: bool,
    /// Whether it is unsigned and of two bytes, as values of more than 8 bits are.
    word: bool,
    /// Whether it is an integer.
    integer: bool,
}

impl Element {
    /// From NumPy's name of a type without its order, say `f4`. `None` for what are no real numbers, and for rare types.
    fn new(kind: &str, big_endian: bool) -> Option<Self> {
        let (size, number): (usize, fn(&[u8]) -> f64) = match kind {
            "b1" => (1, |bytes| f64::from(array::<1>(bytes) != [0])),
            "i1" => (1, |bytes| i8::from_le_bytes(array(bytes)).into()),
            "u2" => (2, |bytes| u16::from_le_bytes(array(bytes)).into()),
            "i2" => (2, |bytes| i16::from_le_bytes(array(bytes)).into()),
            "u4" => (4, |bytes| u32::from_le_bytes(array(bytes)).into()),
            "i4" => (4, |bytes| i32::from_le_bytes(array(bytes)).into()),
            "f4" => (4, |bytes| f32::from_le_bytes(array(bytes)).into()),
            "u8" => (8, |bytes| u64::from_le_bytes(array(bytes)) as f64),
            "i8" => (8, |bytes| i64::from_le_bytes(array(bytes)) as f64),
            "f8" => (8, |bytes| f64::from_le_bytes(array(bytes))),
            _ => return None,
        };
        Some(Self {
            size,
            number,
            big_endian,
            word: kind == "u2",
            integer: matches!(kind.as_bytes(), [b'u' | b'i', ..]),
        })
    }

    fn read(&self, bytes: &[u8]) -> f64 {
        let mut turned = array::<8>(bytes);
        if !self.big_endian {
            return (self.number)(bytes);
        }
        if let Some(turned) = turned.get_mut(..self.size) {
            turned.reverse();
        }
        (self.number)(&turned)
    }
}

/// The first bytes; zeros behind the last.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    array
}

/// An input of values of two bytes.
fn words(values: impl ExactSizeIterator<Item = [u8; 2]>) -> Quantised {
    // At once: growing would leave copies.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * values.len()));
    values.for_each(|value| bytes.extend_from_slice(&value));
    Quantised { bytes, cut: false }
}

impl<'f> Array<'f> {
    /// The array in a file that begins with [`MAGIC`].
    ///
    /// # Errors
    /// [`Error`] for what is no such file, not whole, or of a type or order that is not read.
    pub fn read(file: &'f [u8]) -> Result<Self> {
        let damaged = "the .npy file is damaged: write or copy it again";
        let file = file.strip_prefix(MAGIC).ok_or("this is no .npy file: write one with numpy.save")?;
        let (version, rest) = file.split_first_chunk::<2>().ok_or(damaged)?;
        let (size, rest) = match version {
            [1, _] => {
                let (size, rest) = rest.split_first_chunk().ok_or(damaged)?;
                (u16::from_le_bytes(*size).into(), rest)
            }
            [2 | 3, _] => {
                let (size, rest) = rest.split_first_chunk().ok_or(damaged)?;
                (usize::try_from(u32::from_le_bytes(*size)).map_err(|_| damaged)?, rest)
            }
            _ => return Err("this version of .npy is not known: write it again with numpy.save".into()),
        };
        let (header, values) = rest.split_at_checked(size).ok_or(damaged)?;
        let header = str::from_utf8(header).map_err(|_| damaged)?;
        let field = |name: &str| header.split_once(name).map(|(_, rest)| rest.trim_start()).ok_or(damaged);
        let element = match field("'descr':")?.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
            Some((descr, _)) => {
                let (order, kind) = match descr.split_at_checked(1) {
                    Some((order @ ("|" | "<" | ">" | "="), kind)) => (order, kind),
                    _ => ("|", descr),
                };
                if kind == "u1" { Some(None) } else { Element::new(kind, order == ">").map(Some) }
            }
            None => None,
        };
        let Some(element) = element else {
            let kind = field("'descr':")?.chars().take_while(|c| *c != ',' && !c.is_control()).take(20);
            let kind = kind.collect::<String>();
            return Err(format!(
                "the array is of type {kind}, which is not read: convert it with astype(numpy.float32)"
            )
            .into());
        };
        if !field("'fortran_order':")?.starts_with("False") {
            return Err("the array is in Fortran's order: write numpy.ascontiguousarray of it".into());
        }
        let axes = field("'shape':")?.strip_prefix('(').and_then(|s| s.split_once(')')).ok_or(damaged)?.0;
        let axes = axes.split(',').map(str::trim).filter(|axis| !axis.is_empty());
        let axes =
            axes.map(|axis| axis.parse().map_err(|_| damaged)).collect::<StdResult<Vec<usize>, _>>()?;
        let bytes = |total: usize| total.checked_mul(element.map_or(1, |element: Element| element.size));
        if shape::values(&axes).and_then(bytes) != Some(values.len()) {
            return Err(damaged.into());
        }
        Ok(Self { axes, element, values })
    }

    /// Its numbers, row-major; of bytes these are their values.
    #[must_use]
    pub fn reals(&self) -> Vec<f64> {
        match &self.element {
            None => self.values.iter().map(|&value| value.into()).collect(),
            Some(element) => {
                self.values.chunks_exact(element.size).map(|bytes| element.read(bytes)).collect()
            }
        }
    }

    /// Whether its elements are unsigned integers of one byte or two: input values as they are.
    #[must_use]
    pub fn has_values(&self) -> bool {
        self.element.as_ref().is_none_or(|element| element.word)
    }

    /// Whether [`Array::inputs`] takes its elements for the model's values, whatever real numbers these stand for.
    #[must_use]
    pub fn are_values(&self, model: &Model) -> bool {
        self.element.as_ref().is_none_or(|element| element.word && model.input_form().is_wide())
    }

    /// Whether its elements are integers.
    #[must_use]
    pub fn has_integers(&self) -> bool {
        self.element.as_ref().is_none_or(|element| element.integer)
    }

    /// Its shape.
    #[must_use]
    pub fn axes(&self) -> &[usize] {
        &self.axes
    }

    /// The inputs in it: as many as its first axis counts, or one without such an axis ([`shape::inputs`],
    /// [`shape::is_input`]). Bytes are taken as the model's values, and so are unsigned integers of two bytes by a model
    /// whose values have more than 8 bits; other numbers become them as the deployment file says ([`Model::quantised`]).
    ///
    /// # Errors
    /// [`Error`] where the axes are not the model's, or a number cannot be used.
    pub fn inputs(&self, model: &Model) -> Result<Vec<Quantised>> {
        let shape = model.input_shape.as_slice();
        if !shape::is_input(shape, &self.axes) && shape::inputs(shape, &self.axes)? == 0 {
            return Err("the array is empty: it has no inputs".into());
        }
        // The array's extents are a number, and the model's are among them.
        let len = shape::values(shape).unwrap_or_default().max(1);
        let form = model.input_form();
        let wide = form.is_wide();
        let Some(element) = self.element else {
            let input = |bytes: &[u8]| match wide {
                true => words(bytes.iter().map(|value| [*value, 0])),
                false => bytes.to_vec().into(),
            };
            return Ok(self.values.chunks(len).map(input).collect());
        };
        if wide && element.word {
            let word = |bytes: &[u8]| {
                let [first, second] = array(bytes);
                if element.big_endian { [second, first] } else { [first, second] }
            };
            let input = |bytes: &[u8]| words(bytes.chunks(2).map(word));
            return Ok(self.values.chunks(2 * len).map(input).collect());
        }
        let mut reals = Zeroizing::new(Vec::with_capacity(len));
        let inputs = self.values.chunks(len * element.size).enumerate().map(|(index, input)| {
            reals.clear();
            reals.extend(input.chunks(element.size).map(|bytes| element.read(bytes)));
            form.quantised(&reals).map_err(|error| format!("input {index}: {error}").into())
        });
        inputs.collect()
    }
}
