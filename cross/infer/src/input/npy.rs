//! NumPy's `.npy`, format version 1.0, unsigned bytes in C order.

use super::{Samples, Shape, Unusable};

/// First bytes of the file, version 1.0 included; the header's length follows in two bytes.
const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";

/// The samples in an array of the model's shape, or in one with a first axis more, which counts them.
pub fn samples(mut file: Vec<u8>, shape: Shape<'_>) -> Result<Samples, Unusable> {
    let cut = || Unusable::Incomplete("the .npy file ends in its header".to_owned());
    let magic = file.get(..MAGIC.len()).ok_or_else(cut)?;
    if magic != MAGIC {
        return Unusable::wrong("not a .npy file of version 1.0");
    }
    let [low, high] = *file.get(MAGIC.len()..).and_then(<[u8]>::first_chunk).ok_or_else(cut)?;
    let start = MAGIC.len() + 2 + usize::from(u16::from_le_bytes([low, high]));
    let header = file.get(MAGIC.len() + 2..start).ok_or_else(cut)?;
    let axes = std::str::from_utf8(header).ok().and_then(axes).ok_or_else(|| {
        Unusable::Wrong("not an array of unsigned bytes (uint8) in C order".to_owned())
    })?;
    let expected = axes.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent));
    let Some(expected) = expected.filter(|expected| *expected > 0 && fits(&axes, shape)) else {
        return Unusable::wrong(format!("has shape {axes:?}, the model takes {:?}", shape.extents));
    };
    let got = file.len() - start;
    if got != expected {
        let what = format!("has {got} values, its shape says {expected}");
        return Err(if got < expected { Unusable::Incomplete(what) } else { Unusable::Wrong(what) });
    }
    file.drain(..start);
    Ok(Samples { values: file, len: shape.len })
}

/// Whether an array holds samples: one, or as many as its first axis says. A sample has the model's shape, or
/// is flat.
fn fits(axes: &[usize], shape: Shape<'_>) -> bool {
    let is_one = |axes: &[usize]| axes == shape.extents || axes == [shape.len];
    is_one(axes) || axes.split_first().is_some_and(|(_, rest)| is_one(rest))
}

/// The shape in the header, the text of a Python dictionary, if the array is `uint8` in C order.
fn axes(header: &str) -> Option<Vec<usize>> {
    let mut rest = header.trim().strip_prefix('{')?.strip_suffix('}')?.trim_start();
    let (mut bytes, mut ordered, mut shape) = (false, false, None);
    while !rest.is_empty() {
        let (key, after) = rest.strip_prefix('\'')?.split_once('\'')?;
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        rest = match key {
            "descr" => {
                bytes = true;
                value.strip_prefix("'|u1'")?
            }
            "fortran_order" => {
                ordered = true;
                value.strip_prefix("False")?
            }
            "shape" => {
                let (inside, after) = value.strip_prefix('(')?.split_once(')')?;
                let inside = inside.trim().trim_end_matches(',');
                shape = Some(inside.split(',').map(|axis| axis.trim().parse().ok()).collect::<Option<_>>()?);
                after
            }
            _ => return None,
        }
        .trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    shape.filter(|_| bytes && ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape<'_> = Shape { extents: &[1, 2, 3], len: 6 };

    fn file(dictionary: &str, values: &[u8]) -> Vec<u8> {
        let length = u16::try_from(dictionary.len()).unwrap().to_le_bytes();
        [MAGIC.as_slice(), &length, dictionary.as_bytes(), values].concat()
    }

    fn array(shape: &str, values: &[u8]) -> Vec<u8> {
        file(&format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}   \n"), values)
    }

    #[test]
    fn one_sample_or_many() {
        for shape in ["(1, 2, 3)", "(6,)", "(1, 1, 2, 3)", "(1, 6)"] {
            let samples = samples(array(shape, &[1, 2, 3, 4, 5, 6]), SHAPE).unwrap();
            assert_eq!(samples.iter().collect::<Vec<_>>(), [[1, 2, 3, 4, 5, 6]], "{shape}");
        }
        let samples = samples(array("(2, 1, 2, 3)", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]), SHAPE).unwrap();
        assert_eq!(samples.iter().collect::<Vec<_>>(), [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]);
    }

    #[test]
    fn a_file_cut_anywhere_is_incomplete() {
        let whole = array("(2, 6)", &[7; 12]);
        for end in 0..whole.len() {
            let cut = whole.get(..end).unwrap().to_vec();
            assert!(matches!(samples(cut, SHAPE), Err(Unusable::Incomplete(_))), "{end}");
        }
        assert!(samples(whole, SHAPE).is_ok());
    }

    #[test]
    fn other_arrays_are_refused() {
        let wrong = |bytes: Vec<u8>| match samples(bytes, SHAPE) {
            Err(Unusable::Wrong(what)) => what,
            other => panic!("{other:?}"),
        };
        for shape in ["(2, 3)", "(3, 2, 1)", "(7,)", "(0, 6)", "()", "(2, 2, 1, 2, 3)"] {
            wrong(array(shape, &[0; 6]));
        }
        assert!(wrong(array("(12, 1)", &[0; 12])).contains("the model takes [1, 2, 3]"));
        assert!(wrong(array("(6,)", &[0; 7])).contains("7 values"));
        wrong(array("(18446744073709551615, 6)", &[0; 6]));
        wrong(array("(-1, 6)", &[0; 6]));
        wrong(file("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }", &[0; 24]));
        wrong(file("{'descr': '|u1', 'fortran_order': True, 'shape': (6,), }", &[0; 6]));
        wrong(file("{'descr': '|u1', 'shape': (6,), }", &[0; 6]));
        wrong(file("{'descr': '|u1', 'fortran_order': False, 'shape': (6,), 'more': 1, }", &[0; 6]));
        for dictionary in ["", "{", "}", "{'", "{'shape'", "{'shape': (", "{'shape': (6,)", "\u{fffd}"] {
            wrong(file(dictionary, &[0; 6]));
        }
        wrong(file("{'descr': '|u1', 'fortran_order': False, 'shape': (6,)}", &[0; 6]).split_off(1));
    }
}
