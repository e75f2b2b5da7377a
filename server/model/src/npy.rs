//! Reading NumPy's `.npy` files, format version 1.0, C order: sets of inputs, labels, expected logits.

use crate::Error;
use crate::onnx::volume;

/// First bytes of the file, version 1.0 included.
const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";
/// Most axes an array may have.
const MAX_AXES: usize = 8;

/// Reads an array of unsigned bytes (`|u1`): its shape and its values, row-major.
///
/// # Errors
/// [`Error::Npy`] if the bytes are no such file, or not one of exactly the size it says.
pub fn read_u8(file: &[u8]) -> Result<(Vec<usize>, Vec<u8>), Error> {
    let (shape, data) = read(file, "|u1", 1)?;
    Ok((shape, data.to_vec()))
}

/// Reads an array of 32-bit floats (`<f4`): its shape and its values, row-major.
///
/// # Errors
/// Those of [`read_u8`].
pub fn read_f32(file: &[u8]) -> Result<(Vec<usize>, Vec<f32>), Error> {
    let (shape, data) = read(file, "<f4", 4)?;
    Ok((shape, data.as_chunks().0.iter().map(|v| f32::from_le_bytes(*v)).collect()))
}

/// The shape and the bytes of an array of elements of `size` bytes.
fn read<'a>(file: &'a [u8], descr: &str, size: usize) -> Result<(Vec<usize>, &'a [u8]), Error> {
    let bad = |what: &str| Error::Npy(what.to_owned());
    let rest = file.strip_prefix(MAGIC).ok_or_else(|| bad("not a .npy file of version 1.0"))?;
    let cut = || bad("truncated");
    let (len, rest) = rest.split_first_chunk().ok_or_else(cut)?;
    let (header, data) = rest.split_at_checked(u16::from_le_bytes(*len).into()).ok_or_else(cut)?;
    let header = core::str::from_utf8(header).map_err(|_| bad("unreadable header"))?;
    let fields = Fields::parse(header).ok_or_else(|| bad("unreadable header"))?;
    if fields.descr != descr {
        return Err(bad(&format!("elements of another type than {descr}")));
    }
    if fields.fortran_order {
        return Err(bad("Fortran order is not supported; C order is"));
    }
    let expected = volume(&fields.shape).and_then(|n| n.checked_mul(size));
    match expected == Some(data.len()) {
        true => Ok((fields.shape, data)),
        false => Err(bad("not as many values as its shape says")),
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
