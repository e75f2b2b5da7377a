//! Inputs in NumPy's format, for the Python package: told with their type and axes, which bytes alone are not.

use std::sync::Arc;

use seco_sdk::{Model, Quantised, npy};
use zeroize::Zeroizing;

use crate::client::tells;
use crate::error::length;
use crate::runtime::Task;
use crate::{Cancellation, Prediction, ProgressListener, SecoClient, SecoError};

#[uniffi::export]
impl SecoClient {
    /// As `infer`, on the one input in `array`, which is in NumPy's format (`numpy.lib.format`). Bytes (`uint8`) are the
    /// model's values, and so are `uint16` where these have more than 8 bits; other numbers become them as the deployment
    /// file says (`[model.quantise]`), here: what is made of them is wiped, and the application gets no copy.
    ///
    /// # Errors
    /// `WrongInputSize` for other axes than the model's, or for more inputs; `InvalidConfiguration` for a type or a number
    /// that cannot be used; or any other, as `infer`.
    #[uniffi::method(default(listener = None, cancellation = None))]
    pub async fn infer_array(
        &self,
        array: Vec<u8>,
        listener: Option<Arc<dyn ProgressListener>>,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Result<Prediction, SecoError> {
        let model = self.input_model();
        let input = one(inputs(Zeroizing::new(array), model)?, model.input_shape.iter().product())?;
        let client = self.client();
        let request = async move { Ok(client.infer_quantised(&input, tells(listener)).await?.into()) };
        Task::spawn(self.runtime(), cancellation.as_deref(), request).result().await
    }

    /// As `infer_many`, on all inputs in `arrays`: as many in each as its first axis counts, or one without such an axis.
    ///
    /// # Errors
    /// As `infer_array`, before anything is sent, or as `infer_many`.
    #[uniffi::method(default(cancellation = None))]
    pub async fn infer_arrays(
        &self,
        arrays: Vec<Vec<u8>>,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Result<Vec<Prediction>, SecoError> {
        // All are in wiping buffers before the first can fail.
        let arrays: Vec<_> = arrays.into_iter().map(Zeroizing::new).collect();
        let (mut all, mut cut) = (Vec::new(), Vec::new());
        for array in arrays {
            for input in inputs(array, self.input_model())? {
                all.push(input.bytes);
                cut.push(input.cut);
            }
        }
        let client = self.client();
        let asking = async move {
            let results = client.infer_many(&all).await;
            drop(all);
            let told = |(result, cut): (seco_sdk::Result<seco_sdk::Prediction>, bool)| {
                let mut prediction = Prediction::from(result?);
                prediction.outside_calibration |= cut;
                Ok(prediction)
            };
            results.into_iter().zip(cut).map(told).collect()
        };
        Task::spawn(self.runtime(), cancellation.as_deref(), asking).result().await
    }

    /// The extents of an input, without the axis that counts inputs.
    pub fn input_shape(&self) -> Vec<u32> {
        self.input_model().input_shape.iter().copied().map(length).collect()
    }
}

/// The inputs in an array, which is wiped.
fn inputs(file: Zeroizing<Vec<u8>>, model: &Model) -> Result<Vec<Quantised>, SecoError> {
    Ok(npy::Array::read(&file)?.inputs(model)?)
}

/// The only one, of so many values.
fn one(mut inputs: Vec<Quantised>, values: usize) -> Result<Quantised, SecoError> {
    let count = inputs.len();
    match (inputs.pop(), count) {
        (Some(input), 1) => Ok(input),
        _ => Err(SecoError::WrongInputSize {
            expected: length(values),
            got: length(count.saturating_mul(values)),
            reason: format!("infer takes one input, the array has {count}: infer_many takes several"),
        }),
    }
}

impl From<npy::Error> for SecoError {
    fn from(error: npy::Error) -> Self {
        let reason = error.to_string();
        match error {
            npy::Error::Axes(axes) => {
                Self::WrongInputSize { expected: length(axes.expected()), got: length(axes.got()), reason }
            }
            npy::Error::Unusable(_) => Self::InvalidConfiguration { reason },
        }
    }
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
        let mut model = Model {
            name: None,
            id: ModelId([0; 32]),
            input_shape: vec![1, 2, 2],
            input_bits: 8,
            calibrated: None,
            output_width: 8,
            fraction: None,
            quantise: Some(Quantise { scale: vec![0.5], offset: vec![0.0] }),
            outputs: vec![output],
        };
        let all = |file: Vec<u8>| -> Result<Vec<(Vec<u8>, bool)>, SecoError> {
            let inputs = inputs(file.into(), &model)?;
            Ok(inputs.into_iter().map(|input| (input.bytes.to_vec(), input.cut)).collect())
        };
        let read = |descr: &str, shape: &str, values: &[u8]| all(file(descr, shape, values));
        assert_eq!(read("|u1", "(2, 2)", &[1, 2, 3, 4]), Ok(vec![(vec![1, 2, 3, 4], false)]));
        let floats: Vec<u8> = [0.5f32, 1.0, 0.0, 1000.0].into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(read("<f4", "(1, 1, 2, 2)", &floats), Ok(vec![(vec![1, 2, 0, 255], true)]));
        let code = |result: Result<_, SecoError>| result.err().map(|error| error.code());
        let axes = read("|u1", "(2, 3)", &[0; 6]);
        assert!(matches!(axes, Err(SecoError::WrongInputSize { expected: 4, got: 6, .. })));
        assert_eq!(code(axes), Some(2));
        assert_eq!(code(read("|u1", "(0, 2, 2)", &[])), Some(1));
        assert_eq!(code(read("<c8", "(2, 2)", &[0; 32])), Some(1));
        let nan: Vec<u8> = [f32::NAN; 4].into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(code(read("<f4", "(2, 2)", &nan)), Some(1));
        assert_eq!(code(all(Vec::new())), Some(1));
        // Values of more than 8 bits: two bytes each, from integers of one or two or from numbers.
        model.input_bits = 10;
        let read = |descr: &str, values: &[u8]| {
            let inputs = inputs(file(descr, "(2, 2)", values).into(), &model);
            inputs.map(|inputs| inputs.into_iter().map(|input| input.bytes.to_vec()).collect::<Vec<_>>())
        };
        assert_eq!(read("|u1", &[1, 2, 3, 255]), Ok(vec![vec![1, 0, 2, 0, 3, 0, 255, 0]]));
        let words = [1, 0, 2, 3, 4, 0, 255, 3];
        assert_eq!(read("<u2", &words), Ok(vec![words.to_vec()]));
        assert_eq!(read("<f4", &floats), Ok(vec![vec![1, 0, 2, 0, 0, 0, 255, 3]]));
    }

    #[test]
    fn one_input_is_no_more_and_no_fewer() {
        let input = |cut| Quantised { bytes: vec![7; 4].into(), cut };
        assert!(one(vec![input(true)], 4).is_ok_and(|input| input.cut && *input.bytes == [7; 4]));
        let several = one(vec![input(false), input(false), input(false)], 4).err();
        assert!(matches!(several, Some(SecoError::WrongInputSize { expected: 4, got: 12, reason })
            if reason.contains("the array has 3")));
    }
}
