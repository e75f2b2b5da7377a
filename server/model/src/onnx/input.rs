//! A network's input: which one it is, its shape and its type.

use std::collections::{HashMap, HashSet};

use super::file::{Maker, bad};
use super::operators;
use super::proto::{NodeProto, ValueInfoProto, printable, type_name};
use super::tensor::{Element, MAX_AXES, elements};
use crate::{Error, MAX_VALUES};

/// The network's input.
pub(crate) struct Input {
    pub name: String,
    /// Sizes of its axes, nothing for one that is open; nothing if the file does not say.
    pub dims: Option<Vec<Option<usize>>>,
    /// The type of its elements and that one's name, if it is one of integers.
    pub integers: Option<(Element, String)>,
}

/// The only input that is no constant.
pub(super) fn the_input(
    inputs: &[ValueInfoProto],
    makers: &HashMap<&str, Maker>,
    live: &[usize],
    nodes: &[&NodeProto],
) -> Result<Input, Error> {
    let open = |i: &usize| makers.get(inputs[*i].name.as_str()) == Some(&Maker::Input(*i));
    // An input that nothing reads does no harm beside one that is read.
    let [input] = live else {
        let names: Vec<usize> =
            if live.is_empty() { (0..inputs.len()).filter(open).collect() } else { live.to_vec() };
        let names: Vec<String> = names.iter().take(8).map(|&i| printable(&inputs[i].name)).collect();
        return Err(bad(match (live.len(), names.as_slice()) {
            (0, []) => "it has no input that is not a constant: export the network with its picture or features as its input"
                .to_owned(),
            (0, names) => format!("no output depends on its input ({}): export the network again", names.join(", ")),
            (count, names) => format!(
                "it has {count} inputs that are no constants ({}), and only one is supported: export the network with its \
                 picture or features as its only input",
                names.join(", ")
            ),
        }));
    };
    let input = &inputs[*input];
    let name = printable(&input.name);
    let tensor = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let tensor = tensor
        .ok_or_else(|| bad(format!("input {name} is not a tensor: export the network with one as input")))?;
    // Bytes and other integers are computed with otherwise than reals, unless they become such at once or it is said which
    // they stand for.
    let found = type_name(tensor.elem_type);
    let element = Element::from_onnx(tensor.elem_type);
    let known = match element {
        // Which byte is true is for a comparison to say.
        Some(Element::Bool) | None => false,
        // Of few numbers, and the input's are not rounded to them.
        Some(element) if element.is_small() => false,
        Some(element) => element.is_float() || are_made_real(&input.name, nodes),
    };
    if !known {
        return Err(bad(format!(
            "input {name} is of type {found}, and FLOAT is needed: export in float32 (devices send bytes all the same)"
        )));
    }
    let integers = element.filter(|element| !element.is_float()).map(|element| (element, found));
    Ok(Input { name: input.name.clone(), dims: dims(input)?, integers })
}

/// Whether whatever reads an input of integers makes real numbers of them, or knows what they stand for, at once or behind
/// operators that only move them. The nodes are in order.
fn are_made_real(input: &str, nodes: &[&NodeProto]) -> bool {
    let mut integers = HashSet::from([input]);
    let is_shape = |node: &NodeProto| matches!(node.op_type.as_str(), "Shape" | "Size");
    nodes.iter().filter(|node| !is_shape(node)).all(|node| {
        let mut read = node.input.iter().enumerate().filter(|(_, name)| integers.contains(name.as_str()));
        let Some((first, _)) = read.next() else { return true };
        if operators::knows_integers(node) {
            return true;
        }
        // What says where to is not what is moved.
        let moved = node.op_type == "Concat" || first == 0 && read.next().is_none();
        // An output that nobody reads has no name, and neither has an input that is left out.
        integers.extend(node.output.iter().map(String::as_str).filter(|name| !name.is_empty()));
        moved && operators::moves_integers(node)
    })
}

/// Shape of an input or output as far as the file says.
pub(super) fn dims(value: &ValueInfoProto) -> Result<Option<Vec<Option<usize>>>, Error> {
    let tensor = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let Some(shape) = tensor.and_then(|t| t.shape.as_ref()) else { return Ok(None) };
    let size = |dim: Option<i64>| match dim {
        // Some exporters write open axes so.
        None | Some(-1 | 0) => Some(None),
        Some(size) => usize::try_from(size).ok().filter(|&s| s <= MAX_VALUES).map(Some),
    };
    let dims: Option<Vec<_>> = shape.dim.iter().map(|d| size(d.dim_value)).collect();
    match dims.filter(|d| d.len() <= MAX_AXES) {
        Some(dims) => Ok(Some(dims)),
        None => {
            let shown: Vec<_> =
                shape.dim.iter().take(MAX_AXES + 1).map(|d| d.dim_value.unwrap_or(-1)).collect();
            Err(bad(format!(
                "{} has shape {shown:?}, which is impossible or more than {MAX_VALUES} values or {MAX_AXES} axes: use a \
                 smaller network",
                printable(&value.name)
            )))
        }
    }
}

impl Input {
    /// Refuses a normalisation that makes of the device's integers, of so many bits, other numbers than an input of
    /// integers can have.
    ///
    /// # Errors
    /// [`Error::Options`].
    pub(crate) fn check_integers(&self, bits: u32, gain: &[f64], offset: &[f64]) -> Result<(), Error> {
        let Some((element, found)) = &self.integers else { return Ok(()) };
        let (low, high) = element.range();
        let largest = 2f64.powi(bits as i32) - 1.0;
        // An input of INT8 has half of what a byte has below zero.
        let below = if high as f64 >= largest { 0.0 } else { high as f64 + 1.0 };
        let remedy = match below {
            0.0 => "--scale 1, without --mean and --std".to_owned(),
            below => format!("--scale 1 --mean {below} --std 1"),
        };
        let refused = |why: String| {
            let name = printable(&self.name);
            Err(Error::Options(format!("input {name} is of integers ({found}), and {why}: give {remedy}")))
        };
        if gain.iter().chain(offset).any(|number| number.fract() != 0.0) {
            return refused("the normalisation would make fractions of them".to_owned());
        }
        let ends = gain.iter().zip(offset).flat_map(|(gain, offset)| [*offset, gain * largest + offset]);
        let (least, most) = ends.fold((0f64, 0f64), |(least, most), end| (least.min(end), most.max(end)));
        match least < low as f64 || most > high as f64 {
            true => refused(format!(
                "the normalisation would make numbers from {least} to {most}, beyond {low} to {high}"
            )),
            false => Ok(()),
        }
    }

    /// The shape with the batch axis of 1 in front. `given` is what the user says of it, with that axis or without, and must
    /// agree with what the file says.
    ///
    /// # Errors
    /// [`Error::Onnx`] for a fixed batch above 1 and for open axes that the user does not give; [`Error::Options`] for a given
    /// shape that does not fit.
    pub(crate) fn shape(&self, given: Option<&[usize]>) -> Result<Vec<usize>, Error> {
        let name = printable(&self.name);
        let shape = match (&self.dims, given) {
            (None, None) => {
                return Err(bad(format!(
                    "input {name} has no shape in the file: give it with --shape, say --shape 3,224,224"
                )));
            }
            (None, Some([1, rest @ ..] | rest)) => [&[1], rest].concat(),
            (Some(dims), given) => self.filled(&name, dims, given)?,
        };
        match elements(&shape) {
            Some(1..) => Ok(shape),
            _ => {
                let shown = &shape[..shape.len().min(MAX_AXES + 1)];
                Err(bad(format!(
                    "input {name} has shape {shown:?}; up to {MAX_VALUES} values on up to {MAX_AXES} axes, none of them \
                     empty, are possible: use smaller inputs"
                )))
            }
        }
    }

    fn filled(
        &self,
        name: &str,
        dims: &[Option<usize>],
        given: Option<&[usize]>,
    ) -> Result<Vec<usize>, Error> {
        // One inference is one sample, so a batch size that is left open is 1.
        let rest = match dims {
            [] => {
                return Err(bad(format!(
                    "input {name} is a single number without axes: export it with a batch axis"
                )));
            }
            [None | Some(1), rest @ ..] => rest,
            [Some(batch), ..] => {
                return Err(bad(format!(
                    "input {name} has batch size {batch}, and the first axis, the batch, must be 1 or left open: export \
                     with one example input"
                )));
            }
        };
        let written = || {
            let axis = |d: &Option<usize>| d.map_or("?".to_owned(), |d| d.to_string());
            rest.iter().map(axis).collect::<Vec<_>>().join(",")
        };
        let Some(given) = given else {
            let fixed: Option<Vec<usize>> = rest.iter().copied().collect();
            let fixed = fixed.ok_or_else(|| {
                let written = written();
                bad(format!(
                    "input {name} has open axes, and only the first, the batch, may be ({written} without it): give them \
                     with --shape"
                ))
            })?;
            return Ok([&[1], fixed.as_slice()].concat());
        };
        let sizes = match given {
            [1, sizes @ ..] if sizes.len() == rest.len() => sizes,
            sizes => sizes,
        };
        let fits =
            sizes.len() == rest.len() && sizes.iter().zip(rest).all(|(&g, d)| d.is_none_or(|d| d == g));
        if !fits {
            let shown = &given[..given.len().min(MAX_AXES + 1)];
            return Err(Error::Options(format!(
                "--shape says {shown:?}, and input {name} has shape {} without the batch: give it axis by axis",
                written()
            )));
        }
        Ok([&[1], sizes].concat())
    }
}
