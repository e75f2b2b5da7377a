//! Files of inputs. What they are is told by their first bytes.

use crate::Result;
use seco_sdk::shape;

/// The inputs in a file, for a model that takes one byte for each element of `shape`. The axes of an array must be the
/// model's ([`shape::inputs`]). An image must have the channels, height and width of the last three; for a model that
/// knows no height and width, a grey one is taken row by row if it has as many pixels.
pub fn inputs(file: &[u8], shape: &[usize]) -> Result<Vec<Vec<u8>>> {
    let len = shape.iter().product::<usize>();
    let inputs = if let Some(array) = file.strip_prefix(b"\x93NUMPY") {
        npy(array, shape)?
    } else if let Some(image) = file.strip_prefix(b"P5") {
        vec![pixels(image, 1, shape)?.to_vec()]
    } else if let Some(image) = file.strip_prefix(b"P6") {
        let pixels = pixels(image, 3, shape)?;
        let mut planes = vec![0; pixels.len()];
        seco_sdk::input::planes_from_rgb(pixels, &mut planes).map_err(|_| "the image ends in mid-pixel")?;
        vec![planes]
    } else {
        vec![file.to_vec()]
    };
    match inputs.iter().find(|input| input.len() != len) {
        Some(wrong) => {
            let axes = axes(shape);
            Err(format!("the model takes {len} bytes ({axes}), this has {}", wrong.len()).into())
        }
        None => Ok(inputs),
    }
}

/// Axes as people write them.
fn axes(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ")
}

/// An array in NumPy's format (numpy.lib.format), behind its magic bytes.
fn npy(file: &[u8], model: &[usize]) -> Result<Vec<Vec<u8>>> {
    let damaged = "the .npy file is damaged: write or copy it again";
    let (version, rest) = file.split_first_chunk::<2>().ok_or(damaged)?;
    let (size, rest) = match version {
        [1, _] => {
            let (size, rest) = rest.split_first_chunk().ok_or(damaged)?;
            (u16::from_le_bytes(*size).into(), rest)
        }
        [2 | 3, _] => {
            let (size, rest) = rest.split_first_chunk().ok_or(damaged)?;
            (usize::try_from(u32::from_le_bytes(*size))?, rest)
        }
        _ => return Err("this version of .npy is not known: write it again with numpy.save".into()),
    };
    let (header, values) = rest.split_at_checked(size).ok_or(damaged)?;
    let header = str::from_utf8(header).map_err(|_| damaged)?;
    let field = |name: &str| header.split_once(name).map(|(_, rest)| rest.trim_start()).ok_or(damaged);
    let kind = field("'descr':")?;
    // A byte has no order, whatever is said about it.
    if !["'|u1'", "'<u1'", "'>u1'", "'=u1'", "'u1'"].iter().any(|byte| kind.starts_with(byte)) {
        let kind: String = kind.chars().take_while(|c| *c != ',' && !c.is_control()).take(20).collect();
        return Err(
            format!("the array is of type {kind}, not uint8: convert it with astype(numpy.uint8)").into()
        );
    }
    if !field("'fortran_order':")?.starts_with("False") {
        return Err("the array is in Fortran's order: write numpy.ascontiguousarray of it".into());
    }
    let (shape, _) = field("'shape':")?.strip_prefix('(').and_then(|s| s.split_once(')')).ok_or(damaged)?;
    let axes = shape.split(',').map(str::trim).filter(|axis| !axis.is_empty());
    let axes: Vec<usize> =
        axes.map(|axis| axis.parse().map_err(|_| damaged)).collect::<std::result::Result<_, _>>()?;
    let total = axes.iter().try_fold(1_usize, |total, axis| total.checked_mul(*axis));
    if total != Some(values.len()) {
        return Err(damaged.into());
    }
    // One input without an axis of samples, or as many as the first axis says.
    if !shape::is_input(model, &axes) && shape::inputs(model, &axes)? == 0 {
        return Err("the array is empty: it has no inputs".into());
    }
    let len = model.iter().product::<usize>().max(1);
    Ok(values.chunks(len).map(<[u8]>::to_vec).collect())
}

/// The pixels of a binary PGM or PPM image (netpbm.sourceforge.net/doc/ppm.html), behind its first two bytes.
fn pixels<'f>(file: &'f [u8], channels: usize, shape: &[usize]) -> Result<&'f [u8]> {
    let mut rest = file;
    let mut numbers = [0_usize; 3];
    for number in &mut numbers {
        // White space, and comments to the end of their line.
        loop {
            match rest.split_first() {
                Some((b'#', after)) => {
                    let end = after.iter().position(|byte| *byte == b'\n').ok_or("the image is damaged")?;
                    rest = after.get(end..).unwrap_or_default();
                }
                Some((byte, after)) if byte.is_ascii_whitespace() => rest = after,
                _ => break,
            }
        }
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (text, after) = rest.split_at(digits);
        *number = str::from_utf8(text)?.parse().map_err(|_| "the image is damaged")?;
        rest = after;
    }
    let [width, height, largest] = numbers;
    if largest != 255 {
        return Err("the image has not 8 bits per channel".into());
    }
    let pixels = rest.split_first().filter(|(byte, _)| byte.is_ascii_whitespace()).map(|(_, rest)| rest);
    let pixels = pixels.ok_or("the image is damaged")?;
    let expected = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(channels));
    if expected != Some(pixels.len()) {
        return Err("the image's size is not what its header says".into());
    }
    let fits = match shape {
        [.., rows, columns] => (*rows, *columns) == (height, width),
        // It does not say in which order it takes colours.
        _ => channels == 1,
    };
    if !fits || pixels.len() != shape.iter().product::<usize>() {
        let (model, picture) = (axes(shape), axes(&[channels, height, width]));
        return Err(format!(
            "the model takes {model}, the image has {picture} (channels, height, width): scale or convert it"
        )
        .into());
    }
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use super::inputs;

    fn array(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(values);
        file
    }

    #[test]
    fn every_format_gives_the_models_bytes() {
        let six = [1, 2, 3, 4, 5, 6];
        assert_eq!(inputs(&six, &[6]).unwrap(), [six]);
        assert_eq!(inputs(b"P5 3\n2 255\n\x01\x02\x03\x04\x05\x06", &[1, 2, 3]).unwrap(), [six]);
        assert_eq!(
            inputs(b"P5\n# a comment\n3 2\n255\n\x01\x02\x03\x04\x05\x06", &[1, 2, 3]).unwrap(),
            [six]
        );
        assert_eq!(inputs(b"P6 2 1 255 \x01\x02\x03\x04\x05\x06", &[3, 1, 2]).unwrap(), [[1, 4, 2, 5, 3, 6]]);
        assert_eq!(inputs(&array("|u1", "(2, 3)", &six), &[2, 3]).unwrap(), [six]);
        assert_eq!(inputs(&array("|u1", "(2, 3)", &six), &[3]).unwrap(), [[1, 2, 3], [4, 5, 6]]);
        // Axes of 1 change nothing, nor does a grey image for a model that takes its pixels in a row.
        for shape in ["(1, 2, 3)", "(2, 3)", "(1, 2, 3, 1)", "(1, 1, 2, 3)", "(6,)", "(1, 6)"] {
            assert_eq!(inputs(&array("<u1", shape, &six), &[1, 2, 3]).unwrap(), [six], "{shape}");
        }
        assert_eq!(inputs(b"P5 3 2 255 \x01\x02\x03\x04\x05\x06", &[6]).unwrap(), [six]);
    }

    #[test]
    fn other_axes_than_the_models_are_refused() {
        let said = |file: &[u8], model: &[usize]| inputs(file, model).unwrap_err().to_string();
        let values = [7; 24];
        for shape in ["(2, 2, 2, 3)", "(2, 3, 4)", "(6, 2, 2)", "(4, 3, 2)", "(12, 2)", "(8, 3)", "(2, 2, 3)"]
        {
            let count = if shape == "(2, 2, 3)" { 12 } else { 24 };
            let told = said(&array("|u1", shape, &values[..count]), &[3, 2, 2]);
            assert!(told.contains("the model takes (N, 3, 2, 2)"), "{shape}: {told}");
        }
        assert!(said(&array("|u1", "(2, 2, 2, 3)", &values), &[3, 2, 2]).contains("transpose(0, 3, 1, 2)"));
        assert!(said(&array("<f4", "(1, 6)", &values), &[6]).contains("'<f4'"));
        assert!(said(&[0; 3], &[1, 2, 2]).contains("4 bytes (1 x 2 x 2), this has 3"));
        let image = said(b"P6 2 1 255 \x01\x02\x03\x04\x05\x06", &[6]);
        assert!(image.contains("the model takes 6, the image has 3 x 1 x 2"), "{image}");
        assert!(said(b"P5 2 3 255 abcdef", &[1, 2, 3]).contains("the image has 1 x 3 x 2"));
    }

    #[test]
    fn wrong_files_are_refused() {
        let six = [1, 2, 3, 4, 5, 6];
        for (file, len) in [
            (b"P5 2 3 255 abcdef".to_vec(), 6),
            (six.to_vec(), 3),
            (array("<f4", "(6,)", &six), 6),
            (array("|u1", "(7,)", &six), 6),
            (array("|u1", "(2, 3)", &six), 9),
            (array("|u1", "(0, 3)", &[]), 3),
            (array("|u1", "(99999999999, 99999999999)", &six), 3),
            (b"P5 3 2 65535 abcdef".to_vec(), 6),
            (b"P5 99999999999999999999 2 255 abcdef".to_vec(), 6),
            (b"P6 3 2 255 abcdef".to_vec(), 6),
            (b"P5 # no end".to_vec(), 6),
        ] {
            assert!(inputs(&file, &[len / 3, 3]).is_err(), "{file:?}");
        }
    }

    #[test]
    fn no_cut_file_is_taken() {
        let files =
            [array("|u1", "(2, 3)", &[1, 2, 3, 4, 5, 6]), b"P6 2 1 255 \x01\x02\x03\x04\x05\x06".to_vec()];
        for file in files {
            for end in 0..file.len() {
                // As raw bytes, a cut file may have just the length of an input.
                if end != 6 {
                    assert!(inputs(&file[..end], &[6]).is_err(), "{end}");
                }
            }
        }
    }
}
