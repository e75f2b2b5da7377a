//! Inputs in NumPy's format, for the Python package: told with their type and axes, which bytes alone are not.

use seco_sdk::{Model, npy, shape};
use zeroize::Zeroizing;

use crate::error::length;
use crate::{SecoClient, SecoError};

/// One input of an array.
#[derive(Clone, PartialEq, Eq, uniffi::Record)]
pub struct ArrayInput {
    /// The model's input values, one byte each, as `SecoClient.infer` takes them.
    pub values: Vec<u8>,
    /// Whether a number was beyond what the values can say, and cut: `Prediction.outside_calibration` is to be true then.
    pub cut: bool,
}

#[uniffi::export]
impl SecoClient {
    /// The inputs in `array`, which is in NumPy's format (`numpy.lib.format`): as many as its first axis counts, or one
    /// without such an axis. Bytes (`uint8`) are the model's values; other numbers become them as the deployment file
    /// says (`[model.quantise]`). Computed here and now.
    ///
    /// # Errors
    /// `WrongInputSize` for other axes than the model's; `InvalidConfiguration` for a type or a number that cannot be used.
    pub fn array_inputs(&self, array: Vec<u8>) -> Result<Vec<ArrayInput>, SecoError> {
        inputs(&Zeroizing::new(array), self.input_model())
    }

    /// The extents of an input, without the axis that counts inputs.
    pub fn input_shape(&self) -> Vec<u32> {
        self.input_model().input_shape.iter().copied().map(length).collect()
    }
}

fn inputs(file: &[u8], model: &Model) -> Result<Vec<ArrayInput>, SecoError> {
    let invalid = |error: npy::Error| SecoError::InvalidConfiguration { reason: error.to_string() };
    let array = npy::Array::read(file).map_err(invalid)?;
    let (expected, got) = (model.input_shape.as_slice(), array.axes());
    if !shape::is_input(expected, got)
        && let Err(mismatch) = shape::inputs(expected, got)
    {
        let values =
            |axes: &[usize]| length(axes.iter().fold(1, |product, axis| product.saturating_mul(*axis)));
        let (expected, got) = (values(expected), values(got));
        return Err(SecoError::WrongInputSize { expected, got, reason: mismatch.to_string() });
    }
    let inputs = array.inputs(model).map_err(invalid)?;
    Ok(inputs.into_iter().map(|input| ArrayInput { values: input.bytes.to_vec(), cut: input.cut }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use seco_sdk::{Last, ModelId, Output, Quantise};

    fn file(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(values);
        file
    }

    #[test]
    fn arrays_are_told_by_their_type_and_axes() {
        let last = Last::None;
        let output = Output { name: "out".into(), shape: vec![1], scale: 1.0, last, classes: Vec::new() };
        let model = Model {
            id: ModelId([0; 32]),
            input_shape: vec![1, 2, 2],
            input_bits: 8,
            calibrated: None,
            output_width: 8,
            fraction: None,
            quantise: Some(Quantise { scale: vec![0.5], offset: vec![0.0] }),
            outputs: vec![output],
        };
        let read = |descr: &str, shape: &str, values: &[u8]| inputs(&file(descr, shape, values), &model);
        let bytes = |values: &[[u8; 4]], cut| -> Vec<ArrayInput> {
            values.iter().map(|values| ArrayInput { values: values.to_vec(), cut }).collect()
        };
        assert!(read("|u1", "(2, 2)", &[1, 2, 3, 4]).is_ok_and(|got| got == bytes(&[[1, 2, 3, 4]], false)));
        let floats: Vec<u8> = [0.5f32, 1.0, 0.0, 1000.0].into_iter().flat_map(f32::to_le_bytes).collect();
        assert!(read("<f4", "(1, 1, 2, 2)", &floats).is_ok_and(|got| got == bytes(&[[1, 2, 0, 255]], true)));
        let code = |result: Result<_, SecoError>| result.err().map(|error| error.code());
        assert_eq!(code(read("|u1", "(2, 3)", &[0; 6])), Some(2));
        assert_eq!(code(read("|u1", "(0, 2, 2)", &[])), Some(1));
        assert_eq!(code(read("<c8", "(2, 2)", &[0; 32])), Some(1));
        let nan: Vec<u8> = [f32::NAN; 4].into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(code(read("<f4", "(2, 2)", &nan)), Some(1));
        assert_eq!(code(inputs(b"", &model)), Some(1));
    }
}
