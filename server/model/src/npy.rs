//! Reading NumPy's `.npy` files, format versions 1 to 3, C order: sets of inputs, labels, expected logits.

use crate::Error;
use crate::onnx::{printable, volume};

/// First bytes of the file.
const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Most axes an array may have.
const MAX_AXES: usize = 8;

/// Reads an array of unsigned bytes (`uint8`): its shape and its values, row-major.
///
/// # Errors
/// [`Error::Npy`] if the bytes are no such file, or not one of exactly the size it says.
pub fn read_u8(file: &[u8]) -> Result<(Vec<usize>, Vec<u8>), Error> {
    let (shape, data, _) = read(file, &["u1"])?;
    Ok((shape, data.to_vec()))
}

/// Reads an array of unsigned integers of one byte or two (`uint8`, `uint16`): its shape and its values, row-major.
///
/// # Errors
/// Those of [`read_u8`].
pub fn read_integers(file: &[u8]) -> Result<(Vec<usize>, Vec<u16>), Error> {
    let (shape, data, kind) = read(file, &["u1", "u2"])?;
    let values = match kind {
        "u2" => data.as_chunks().0.iter().map(|v| u16::from_le_bytes(*v)).collect(),
        _ => data.iter().map(|&v| v.into()).collect(),
    };
    Ok((shape, values))
}

/// Reads an array of 32-bit floats (`<f4`): its shape and its values, row-major.
///
/// # Errors
/// Those of [`read_u8`].
pub fn read_f32(file: &[u8]) -> Result<(Vec<usize>, Vec<f32>), Error> {
    let (shape, data, _) = read(file, &["f4"])?;
    Ok((shape, data.as_chunks().0.iter().map(|v| f32::from_le_bytes(*v)).collect()))
}

/// The shape, the bytes and the type of an array of elements of one of these types: `u1`, `u2` or `f4`.
fn read<'a>(file: &'a [u8], kinds: &[&'static str]) -> Result<(Vec<usize>, &'a [u8], &'static str), Error> {
    let bad = |what: &str| Error::Npy(what.to_owned());
    let rest =
        file.strip_prefix(MAGIC).ok_or_else(|| bad("this is no .npy file: write one with numpy.save"))?;
    let cut = || bad("it ends too early: it was not written or copied to its end, so do that again");
    let ([version, _], rest) = rest.split_first_chunk().ok_or_else(cut)?;
    let (length, rest) = match version {
        1 => rest.split_first_chunk().map(|(length, rest)| (u16::from_le_bytes(*length).into(), rest)),
        2 | 3 => rest.split_first_chunk().map(|(length, rest)| (u32::from_le_bytes(*length), rest)),
        _ => {
            return Err(Error::Npy(format!(
                "its format has version {version}, and 1 to 3 are read: write it again with numpy.save"
            )));
        }
    }
    .ok_or_else(cut)?;
    let length = usize::try_from(length).map_err(|_| cut())?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
    let fields = core::str::from_utf8(header).ok().and_then(Fields::parse);
    let fields = fields.ok_or_else(|| bad("its header is not NumPy's: write it again with numpy.save"))?;
    let Fields { descr, fortran_order, shape } = fields;
    let (order, found) = match descr.split_at_checked(1) {
        Some((order @ ("|" | "<" | "=" | ">"), found)) => (order, found),
        _ => ("|", descr),
    };
    // A single byte has no order.
    let known = kinds.iter().find(|kind| **kind == found && (order != ">" || **kind == "u1"));
    let Some(&kind) = known else {
        let wanted: Vec<String> = kinds.iter().map(|kind| type_name(kind)).collect();
        let (found, last) = (type_name(descr), wanted.last().map_or("", String::as_str));
        return Err(Error::Npy(format!(
            "its elements are {found}, and {} is needed: convert the array with astype(numpy.{last})",
            wanted.join(" or ")
        )));
    };
    if fortran_order {
        return Err(bad("its values are in Fortran's order: write numpy.ascontiguousarray of the array"));
    }
    let size = match kind {
        "u1" => 1,
        "u2" => 2,
        _ => 4,
    };
    match volume(&shape).and_then(|n| n.checked_mul(size)) {
        Some(expected) if expected == data.len() => Ok((shape, data, kind)),
        _ => Err(Error::Npy(format!(
            "it has {} bytes of values, which is not what its shape {shape:?} needs: write or copy it again",
            data.len()
        ))),
    }
}

/// NumPy's name of a type, for messages: `float32` for `<f4`.
fn type_name(descr: &str) -> String {
    let short = descr.trim_start_matches(['|', '<', '=', '>']);
    let bits = short.get(1..).and_then(|size| size.parse::<u32>().ok()).map(|size| size.saturating_mul(8));
    let order = if descr.starts_with('>') && bits != Some(8) { " in the other byte order" } else { "" };
    match (short.get(..1), bits) {
        (Some("u"), Some(bits)) => format!("uint{bits}{order}"),
        (Some("i"), Some(bits)) => format!("int{bits}{order}"),
        (Some("f"), Some(bits)) => format!("float{bits}{order}"),
        (Some("c"), Some(bits)) => format!("complex{bits}{order}"),
        (Some("b"), _) => "bool".to_owned(),
        _ => format!("of type {:?}", printable(descr)),
    }
}

/// What the header's dictionary says.
struct Fields<'a> {
    descr: &'a str,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl<'a> Fields<'a> {
    /// Reads the Python dictionary that NumPy writes: three entries, in any order.
    fn parse(header: &'a str) -> Option<Fields<'a>> {
        let mut rest = header.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, after) = rest.strip_prefix('\'')?.split_once('\'')?;
            let value = after.trim_start().strip_prefix(':')?.trim_start();
            rest = match key {
                "descr" if descr.is_none() => {
                    let (text, after) = value.strip_prefix('\'')?.split_once('\'')?;
                    descr = Some(text);
                    after
                }
                "fortran_order" if fortran_order.is_none() => {
                    let truth = value.strip_prefix("True");
                    fortran_order = Some(truth.is_some());
                    truth.or_else(|| value.strip_prefix("False"))?
                }
                "shape" if shape.is_none() => {
                    let (axes, after) = value.strip_prefix('(')?.split_once(')')?;
                    shape = Some(Self::axes(axes)?);
                    after
                }
                _ => return None,
            };
            rest = rest.trim_start();
            rest = rest.strip_prefix(',').map_or(rest, str::trim_start);
        }
        Some(Fields { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }

    fn axes(text: &str) -> Option<Vec<usize>> {
        let text = text.trim().trim_end_matches(',');
        if text.is_empty() {
            return Some(Vec::new());
        }
        let axes: Vec<usize> = text.split(',').map(|a| a.trim().parse().ok()).collect::<Option<_>>()?;
        (axes.len() <= MAX_AXES).then_some(axes)
    }
}
