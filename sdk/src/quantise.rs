//! Real numbers as a model's inputs (`server/PROTOCOL.md`, section 2: the device sends integers).

use crate::{Error, Model, Result};
use serde::Serialize;
use std::iter::repeat_n;
use zeroize::Zeroizing;

/// How a real number becomes an input value: `(number - offset) / scale`, rounded to the nearest integer, halves to the
/// even one, and cut to the values that the model's bits can hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quantise {
    /// What one step of an input value stands for: positive. One for all values, or one per channel: as many as the
    /// input's first axis is long, or its last if the first is not.
    pub scale: Vec<f64>,
    /// The number that an input value of 0 stands for. One, or one per channel.
    pub offset: Vec<f64>,
}

/// Input values made of real numbers.
pub struct Quantised {
    /// As [`Client::infer`](crate::Client::infer) takes them: one byte per value, or two for values of more than 8 bits.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Whether a number was beyond what the model's bits can hold, and had to be cut.
    pub cut: bool,
}

/// Bytes that are input values already.
impl From<Vec<u8>> for Quantised {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.into(), cut: false }
    }
}

/// One number for every value of an input.
#[derive(Clone, Copy)]
struct ByChannel<'a> {
    numbers: &'a [f64],
    /// Values from one channel to the next.
    distance: usize,
}

impl<'a> ByChannel<'a> {
    fn new(numbers: &'a [f64], shape: &[usize]) -> Option<Self> {
        let count = numbers.len();
        let distance = match shape {
            _ if count == 1 => 1,
            [first, rest @ ..] if *first == count => crate::shape::values(rest)?,
            [.., last] if *last == count => 1,
            _ => return None,
        };
        Some(Self { numbers, distance })
    }

    /// That of the first value, of the second, and so on.
    fn by_value(self) -> impl Iterator<Item = f64> {
        self.numbers.iter().flat_map(move |number| repeat_n(*number, self.distance)).cycle()
    }
}

impl Quantise {
    /// What is wrong with it for inputs of `shape`, whose axes are not 0.
    pub(crate) fn problem(&self, shape: &[usize]) -> Option<&'static str> {
        let fit = |numbers| ByChannel::new(numbers, shape).is_some();
        if !fit(&self.scale) || !fit(&self.offset) {
            return Some(
                "scale and offset have one number each, or one per channel: the input's first axis, or its last",
            );
        }
        if !self.scale.iter().all(|scale| *scale > 0.0 && scale.is_finite()) {
            return Some("a scale is not a positive number");
        }
        if !self.offset.iter().all(|offset| offset.is_finite()) {
            return Some("an offset is not a finite number");
        }
        None
    }
}

impl Model {
    /// The input values that `reals` become, in the order of the model's input shape. Without [`Model::quantise`] only
    /// whole numbers that the model's bits hold are taken, as they are.
    ///
    /// # Errors
    /// [`Error::WrongInputSize`]; [`Error::InputValue`] for what is not a number, or not taken. [`Error::Deployment`]
    /// if the model is not one that [`Deployment::validate`](crate::Deployment::validate) passes.
    pub fn quantised<T: Copy + Into<f64>>(&self, reals: &[T]) -> Result<Quantised> {
        self.input_form().quantised(reals)
    }
}

impl crate::shape::InputForm {
    pub fn quantised<T: Copy + Into<f64>>(&self, reals: &[T]) -> Result<Quantised> {
        self.check_len(reals.len())?;
        let unit = [1.0];
        let (scale, offset) =
            self.quantise.as_ref().map_or((&unit[..], &[0.0][..]), |q| (&q.scale, &q.offset));
        let by_channel = |numbers| {
            let wrong = || crate::deployment::problem("quantise", "does not fit the input's shape");
            ByChannel::new(numbers, &self.shape).ok_or_else(wrong)
        };
        let (scale, offset) = (by_channel(scale)?, by_channel(offset)?);
        let most = f64::from(self.largest());
        let wide = self.is_wide();
        let len = reals.len() * crate::shape::value_bytes(self.bits);
        let (mut bytes, mut cut) = (Zeroizing::new(Vec::with_capacity(len)), false);
        let numbers = reals.iter().zip(scale.by_value().zip(offset.by_value()));
        for (index, (real, (scale, offset))) in numbers.enumerate() {
            let real: f64 = (*real).into();
            let steps = (real - offset) / scale;
            let whole = steps.round_ties_even();
            let within = (0.0..=most).contains(&whole);
            if whole.is_nan() {
                return Err(Error::InputValue { index, problem: "is not a number" });
            }
            if self.quantise.is_none() && !(within && whole == steps) {
                let problem = "is no whole number that the model's bits hold, and the deployment file has no \
                               `quantise` of the model that makes it one";
                return Err(Error::InputValue { index, problem });
            }
            cut |= !within;
            let [low, high] = (whole.clamp(0.0, most) as u16).to_le_bytes();
            bytes.push(low);
            if wide {
                bytes.push(high);
            }
        }
        Ok(Quantised { bytes, cut })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::InputForm;

    fn form(shape: &[usize], bits: u32, quantise: Option<(&[f64], &[f64])>) -> InputForm {
        let quantise =
            quantise.map(|(scale, offset)| Quantise { scale: scale.into(), offset: offset.into() });
        InputForm { shape: shape.into(), calibrated: None, bits, quantise }
    }

    fn bytes<T: Copy + Into<f64>>(form: &InputForm, reals: &[T]) -> (Vec<u8>, bool) {
        let Quantised { bytes, cut } = form.quantised(reals).unwrap();
        (bytes.to_vec(), cut)
    }

    #[test]
    fn halves_go_to_the_even_one_and_the_rest_is_cut() {
        let form = form(&[9], 8, Some((&[0.5], &[-1.0])));
        let reals = [-1.0, -0.75, -0.25, 0.25, 0.26, 126.5, 126.7, -1.2, 126.75];
        assert_eq!(bytes(&form, &reals), (vec![0, 0, 2, 2, 3, 255, 255, 0, 255], true));
        assert!(!form.quantised(&[-1.25f32; 9]).unwrap().cut, "a half below 0 is rounded to 0");
        assert!(form.quantised(&[-1.26f32; 9]).unwrap().cut);
        assert!(!form.quantised(&[126.5f32; 9]).unwrap().cut);
        for (far, value) in [(f64::INFINITY, 255), (f64::NEG_INFINITY, 0), (1e300, 255), (f64::MIN, 0)] {
            assert_eq!(bytes(&form, &[far; 9]), (vec![value; 9], true), "{far}");
        }
    }

    #[test]
    fn channels_come_first_or_last() {
        let numbers: (&[f64], &[f64]) = (&[1.0, 2.0, 4.0], &[0.0]);
        assert_eq!(bytes(&form(&[3, 1, 2], 8, Some(numbers)), &[8.0; 6]).0, [8, 8, 4, 4, 2, 2]);
        assert_eq!(bytes(&form(&[2, 1, 3], 8, Some(numbers)), &[8.0; 6]).0, [8, 4, 2, 8, 4, 2]);
        // Both axes match: the first counts.
        assert_eq!(bytes(&form(&[3, 3], 8, Some(numbers)), &[8.0; 9]).0, [8, 8, 8, 4, 4, 4, 2, 2, 2]);
        assert_eq!(bytes(&form(&[3], 8, Some(numbers)), &[8.0; 3]).0, [8, 4, 2]);
        // Scale and offset each for themselves.
        let offsets: (&[f64], &[f64]) = (&[2.0], &[0.0, 2.0, 4.0]);
        assert_eq!(bytes(&form(&[3, 2], 8, Some(offsets)), &[8i16; 6]).0, [4, 4, 3, 3, 2, 2]);
        for (scale, offset) in [(4, 1), (0, 1), (2, 1), (1, 0), (1, 6)] {
            let quantise = Quantise { scale: vec![1.0; scale], offset: vec![0.0; offset] };
            assert!(quantise.problem(&[3, 1, 5]).is_some(), "{scale} {offset}");
            assert!(
                form(&[3, 1, 5], 8, Some((&quantise.scale, &quantise.offset))).quantised(&[0.0; 15]).is_err()
            );
        }
    }

    #[test]
    fn fewer_bits_hold_less() {
        for bits in 1..=8 {
            let most = ((1u32 << bits) - 1) as u8;
            let form = form(&[2], bits, Some((&[1.0], &[0.0])));
            assert_eq!(bytes(&form, &[f64::from(most), 0.0]), (vec![most, 0], false));
            assert_eq!(bytes(&form, &[f64::from(most) + 1.0, 0.0]), (vec![most, 0], true));
        }
    }

    #[test]
    fn more_bits_take_two_bytes() {
        for bits in 9..=16 {
            let most = ((1u32 << bits) - 1) as u16;
            let form = form(&[3], bits, Some((&[0.25], &[-1.0])));
            let words = |values: [u16; 3]| values.map(u16::to_le_bytes).as_flattened().to_vec();
            let largest = f64::from(most) / 4.0 - 1.0;
            assert_eq!(bytes(&form, &[-1.0, 63.125, largest]), (words([0, 256, most]), false));
            assert_eq!(bytes(&form, &[-1.2, -0.75, largest + 0.2]), (words([0, 1, most]), true));
        }
        let without = form(&[2], 16, None);
        assert_eq!(bytes(&without, &[256.0f32, 65535.0]), (vec![0, 1, 255, 255], false));
        let told = without.quantised(&[0.0, 65536.0]);
        assert!(matches!(told, Err(Error::InputValue { index: 1, .. })));
        // Of numbers it says how many, not how many bytes.
        let told = without.quantised(&[0.0; 4]);
        assert!(matches!(told, Err(Error::WrongInputSize { expected: 2, got: 4, .. })));
    }

    #[test]
    fn what_is_no_number_is_refused_and_so_is_what_would_have_to_be_rounded_without_a_scale() {
        let with = form(&[2], 8, Some((&[1.0], &[0.0])));
        let error = with.quantised(&[1.0, f64::NAN]).err().unwrap();
        assert!(matches!(error, Error::InputValue { index: 1, .. }), "{error}");
        assert!(matches!(with.quantised(&[1.0]), Err(Error::WrongInputSize { expected: 2, got: 1, .. })));
        let without = form(&[2], 4, None);
        assert_eq!(bytes(&without, &[0.0f32, 15.0]), (vec![0, 15], false));
        for wrong in [16.0, -1.0, 0.5, -0.25, f64::INFINITY, f64::NAN] {
            let error = without.quantised(&[0.0, wrong]).err().unwrap();
            assert!(matches!(error, Error::InputValue { index: 1, .. }), "{wrong}: {error}");
            assert!(!error.to_string().contains('\n') && !error.is_temporary());
        }
    }
}
