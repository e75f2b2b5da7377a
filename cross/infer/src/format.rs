//! Files of inputs. What they are is told by their first bytes.

use crate::Result;
use seco_sdk::{Model, Quantised, npy};

/// The inputs in a file. Arrays are read as [`npy`] says. An image must have the channels, height and width of the last
/// three axes; for a model that knows no height and width, a grey one is taken row by row if it has as many pixels. Values
/// of more than 8 bits are no pixels: arrays and raw bytes have them, two bytes each, the lower one first.
pub fn inputs(file: &[u8], model: &Model) -> Result<Vec<Quantised>> {
    let shape = model.input_shape.as_slice();
    let len = shape.iter().product::<usize>() * model.value_bytes();
    let inputs = if file.starts_with(npy::MAGIC) {
        npy::Array::read(file)?.inputs(model)?
    } else if model.value_bytes() > 1 {
        // Raw values may begin like an image.
        if file.len() != len && (file.starts_with(b"P5") || file.starts_with(b"P6")) {
            let bits = model.input_bits;
            let problem =
                format!("the image has 8 bits per channel, the model's values have {bits}: give a .npy");
            return Err(problem.into());
        }
        vec![file.to_vec().into()]
    } else if let Some(image) = file.strip_prefix(b"P5") {
        vec![pixels(image, 1, shape)?.to_vec().into()]
    } else if let Some(image) = file.strip_prefix(b"P6") {
        let pixels = pixels(image, 3, shape)?;
        let mut planes = vec![0; pixels.len()];
        seco_sdk::input::planes_from_rgb(pixels, &mut planes).map_err(|_| "the image ends in mid-pixel")?;
        vec![planes.into()]
    } else {
        vec![file.to_vec().into()]
    };
    match inputs.iter().find(|input| input.bytes.len() != len) {
        Some(wrong) => {
            let axes = axes(shape);
            Err(format!("the model takes {len} bytes ({axes}), this has {}", wrong.bytes.len()).into())
        }
        None => Ok(inputs),
    }
}

/// Axes as people write them.
fn axes(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ")
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
    use super::{Model, Quantised};
    use seco_sdk::{Last, ModelId, Output, Quantise};

    fn model(shape: &[usize], bits: u32, quantise: Option<(&[f64], &[f64])>) -> Model {
        let output =
            Output { name: "out".into(), shape: vec![1], scale: 1.0, last: Last::None, classes: Vec::new() };
        Model {
            name: None,
            id: ModelId([0; 32]),
            input_shape: shape.into(),
            input_bits: bits,
            calibrated: None,
            output_width: 8,
            fraction: None,
            quantise: quantise.map(|(scale, offset)| Quantise { scale: scale.into(), offset: offset.into() }),
            outputs: vec![output],
        }
    }

    fn inputs(file: &[u8], shape: &[usize]) -> crate::Result<Vec<Vec<u8>>> {
        let inputs = super::inputs(file, &model(shape, 8, None))?;
        let bytes = |input: Quantised| if input.cut { panic!("cut") } else { input.bytes.to_vec() };
        Ok(inputs.into_iter().map(bytes).collect())
    }

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
        assert!(said(&array("<c8", "(1, 3)", &values), &[3]).contains("'<c8'"));
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
            (array("<f2", "(3,)", &six), 3),
            (array("<f4", "(4611686018427387904,)", &six), 6),
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

    /// Little-endian bytes of numbers.
    fn bytes<const N: usize>(numbers: &[[u8; N]]) -> Vec<u8> {
        numbers.as_flattened().to_vec()
    }

    #[test]
    fn numbers_become_the_models_values() {
        let halves = model(&[2], 4, Some((&[0.5], &[-1.0])));
        let floats = bytes(&[0.0f32, 1.25, -9.0, 6.5].map(f32::to_le_bytes));
        let read = |file: &[u8]| -> Vec<(Vec<u8>, bool)> {
            let inputs = super::inputs(file, &halves).unwrap();
            inputs.into_iter().map(|Quantised { bytes, cut }| (bytes.to_vec(), cut)).collect()
        };
        let expected = [(vec![2, 4], false), (vec![0, 15], true)];
        assert_eq!(read(&array("<f4", "(2, 2)", &floats)), expected);
        let doubles = bytes(&[0.0f64, 1.25, -9.0, 6.5].map(f64::to_le_bytes));
        assert_eq!(read(&array("<f8", "(2, 2)", &doubles)), expected);
        let turned = bytes(&[0.0f64, 1.25, -9.0, 6.5].map(f64::to_be_bytes));
        assert_eq!(read(&array(">f8", "(2, 2)", &turned)), expected);
        // Whole numbers and truth values are numbers too.
        let expected = [(vec![2, 4], false)];
        for (descr, values) in [
            ("<i2", bytes(&[0i16, 1].map(i16::to_le_bytes))),
            ("<i8", bytes(&[0i64, 1].map(i64::to_le_bytes))),
            ("<i4", bytes(&[0i32, 1].map(i32::to_le_bytes))),
            (">u2", bytes(&[0u16, 1].map(u16::to_be_bytes))),
            ("|i1", vec![0, 1]),
            ("|b1", vec![0, 1]),
        ] {
            assert_eq!(read(&array(descr, "(2,)", &values)), expected, "{descr}");
        }
        // Bytes are values as they are.
        assert_eq!(read(&array("|u1", "(2,)", &[0, 1])), [(vec![0, 1], false)]);
    }

    #[test]
    fn numbers_without_a_scale_must_be_values_already() {
        let whole = bytes(&[0i64, 255, 7].map(i64::to_le_bytes));
        assert_eq!(inputs(&array("<i8", "(3,)", &whole), &[3]).unwrap(), [[0, 255, 7]]);
        assert_eq!(inputs(&array("|b1", "(3,)", &[0, 1, 1]), &[3]).unwrap(), [[0, 1, 1]]);
        let floats = bytes(&[0.0f32, 255.0, 7.0].map(f32::to_le_bytes));
        assert_eq!(inputs(&array("<f4", "(3,)", &floats), &[3]).unwrap(), [[0, 255, 7]]);
        for wrong in [0.5, -1.0, 256.0, f32::NAN, f32::INFINITY] {
            let floats = bytes(&[1.0, 2.0, 3.0, 4.0, wrong, 6.0].map(f32::to_le_bytes));
            let said = inputs(&array("<f4", "(2, 3)", &floats), &[3]).unwrap_err().to_string();
            assert!(said.starts_with("input 1: value 1 of the input is no"), "{said}");
        }
        for end in 0..24 {
            assert!(inputs(&array("<f4", "(2, 3)", &vec![0; end]), &[3]).is_err(), "{end}");
        }
    }

    #[test]
    fn values_of_more_bits_have_two_bytes() {
        let wide = model(&[2], 12, Some((&[0.5], &[-1.0])));
        let read = |file: &[u8]| -> crate::Result<Vec<Vec<u8>>> {
            Ok(super::inputs(file, &wide)?.into_iter().map(|input| input.bytes.to_vec()).collect())
        };
        // Values as they are, of one byte or two.
        assert_eq!(read(&array("|u1", "(2, 2)", &[7, 9, 0, 255])).unwrap(), [[7, 0, 9, 0], [0, 0, 255, 0]]);
        assert_eq!(read(&array("<u2", "(1, 2)", &[7, 9, 0, 2])).unwrap(), [[7, 9, 0, 2]]);
        assert_eq!(read(&array(">u2", "(2,)", &[9, 7, 2, 0])).unwrap(), [[7, 9, 0, 2]]);
        assert_eq!(read(&[7, 9, 0, 2]).unwrap(), [[7, 9, 0, 2]]);
        // Numbers: (127 + 1) / 0.5.
        let floats = bytes(&[127.0f32, -1.0].map(f32::to_le_bytes));
        assert_eq!(read(&array("<f4", "(2,)", &floats)).unwrap(), [[0, 1, 0, 0]]);
        // As long as an input, whatever it looks like.
        assert_eq!(read(b"P5\0\x01").unwrap(), [*b"P5\0\x01"]);
        for wrong in [&[7, 9][..], &[7, 9, 0], &[7, 9, 0, 2, 1], &[]] {
            let said = read(wrong).unwrap_err().to_string();
            assert!(said.contains("the model takes 4 bytes (2)"), "{said}");
        }
        let said = read(b"P5 2 1 255 ab").unwrap_err().to_string();
        assert!(said.contains("8 bits per channel, the model's values have 12"), "{said}");
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
