//! Whether the axes of an array are those of a model's inputs. The number of values alone does not tell: pictures
//! whose channels come last have as many as those whose channels come first.

use crate::{Error, Quantise, Result};
use std::fmt;

/// An array that holds no inputs of the model. Shown, it is one line with both shapes, where they differ and what to
/// do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeMismatch {
    input: Vec<usize>,
    array: Vec<usize>,
}

impl std::error::Error for ShapeMismatch {}

impl ShapeMismatch {
    /// Values of one input.
    #[must_use]
    pub fn expected(&self) -> usize {
        values(&self.input).unwrap_or(usize::MAX)
    }

    /// Values of the array.
    #[must_use]
    pub fn got(&self) -> usize {
        values(&self.array).unwrap_or(usize::MAX)
    }
}

/// The number of inputs in an array of shape `array`, for a model that takes inputs of shape `input` (without a batch
/// axis). The first axis counts the inputs. The others are the model's, but for axes of 1, which change nothing:
/// `[n, 28, 28]` and `[n, 28, 28, 1]` hold inputs of `[1, 28, 28]`. Or there is one other axis, as long as all of the
/// model's together: such values are taken in the model's order, as [`Client::infer`](crate::Client::infer) takes them.
///
/// # Errors
/// [`ShapeMismatch`] for all other arrays.
pub fn inputs(input: &[usize], array: &[usize]) -> std::result::Result<usize, ShapeMismatch> {
    match array.split_first() {
        Some((count, one)) if is_input(input, one) => Ok(*count),
        _ => Err(ShapeMismatch { input: input.into(), array: array.into() }),
    }
}

/// Whether an array of shape `array` is one input of shape `input`, without an axis that counts inputs. The same axes
/// pass as in [`inputs`].
#[must_use]
pub fn is_input(input: &[usize], array: &[usize]) -> bool {
    let long = |axes: &[usize]| axes.iter().copied().filter(|extent| *extent != 1).collect::<Vec<_>>();
    let array = long(array);
    array == long(input) || (array.len() == 1 && array.first().copied() == values(input))
}

/// Number of values in an array of this shape; `None` where no number is so large.
pub(crate) fn values(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent))
}

impl fmt::Display for ShapeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, array } = self;
        write!(
            f,
            "the array has shape ({}), the model takes (N, {}) for N inputs",
            Axes(array, ", "),
            Axes(input, ", ")
        )?;
        if array.len() == input.len() + 1 {
            let others = array.iter().enumerate().skip(1).zip(input);
            for (i, ((axis, got), expected)) in
                others.filter(|((_, got), expected)| got != expected).enumerate()
            {
                let before = if i == 0 { ": " } else { ", " };
                write!(f, "{before}axis {axis} is {got} instead of {expected}")?;
            }
        } else {
            write!(f, ": it has {} axes instead of {}", array.len(), input.len() + 1)?;
        }
        f.write_str(match (array.as_slice(), input.as_slice()) {
            ([_, a, b, c], [x, y, z]) if [a, b, c] == [y, z, x] => {
                "; its channels come last: put them first, in NumPy by array.transpose(0, 3, 1, 2)"
            }
            ([_, a, b, c], [x, y, z]) if [a, b, c] == [z, x, y] => {
                "; its channels come first: put them last, in NumPy by array.transpose(0, 2, 3, 1)"
            }
            _ => "; bring it to these axes, the first counting the inputs",
        })
    }
}

/// Extents with something in between.
pub(crate) struct Axes<'a>(pub &'a [usize], pub &'static str);

impl fmt::Display for Axes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, extent) in self.0.iter().enumerate() {
            let before = if i == 0 { "" } else { self.1 };
            write!(f, "{before}{extent}")?;
        }
        Ok(())
    }
}

/// Bytes of an input value of so many bits; of two the lower one is first.
pub(crate) const fn value_bytes(bits: u32) -> usize {
    if bits > u8::BITS { 2 } else { 1 }
}

/// What a device knows of the values that a model takes.
#[derive(Clone, Debug)]
pub(crate) struct InputForm {
    /// Extents of one input.
    pub shape: Vec<usize>,
    /// Smallest and largest value of the calibration, if known.
    pub calibrated: Option<[u16; 2]>,
    /// Bits of a value, 1 to 16.
    pub bits: u32,
    /// How real numbers become values.
    pub quantise: Option<Quantise>,
}

impl InputForm {
    /// The largest value that the bits hold.
    pub fn largest(&self) -> u16 {
        u16::MAX >> 16u32.saturating_sub(self.bits).min(15)
    }

    /// Whether a value takes two bytes, the lower one first.
    pub const fn is_wide(&self) -> bool {
        value_bytes(self.bits) > 1
    }

    /// # Errors
    /// [`Error::WrongInputSize`].
    pub fn check_len(&self, got: usize) -> Result<()> {
        match values(&self.shape) {
            Some(expected) if got == expected => Ok(()),
            expected => {
                let expected = expected.unwrap_or(usize::MAX);
                Err(Error::WrongInputSize { expected, got, shape: self.shape.clone() })
            }
        }
    }

    /// # Errors
    /// [`Error::WrongInputSize`], [`Error::WrongInputBytes`], or [`Error::InputValue`] for a value of more bits than the
    /// model's.
    pub fn check(&self, input: &[u8]) -> Result<()> {
        let (words, rest) = input.as_chunks();
        if !self.is_wide() {
            self.check_len(input.len())?;
        } else if !rest.is_empty() || self.check_len(words.len()).is_err() {
            return Err(self.wrong_bytes(input.len()));
        }
        let largest = self.largest();
        let wrong = match self.bits {
            // Their bytes hold no more.
            8 | 16 => None,
            9.. => words.iter().position(|word| u16::from_le_bytes(*word) > largest),
            _ => input.iter().position(|value| u16::from(*value) > largest),
        };
        let problem = "has more bits than the model's inputs";
        wrong.map_or(Ok(()), |index| Err(Error::InputValue { index, problem }))
    }

    #[cold]
    fn wrong_bytes(&self, got: usize) -> Error {
        let expected = values(&self.shape).and_then(|values| values.checked_mul(2)).unwrap_or(usize::MAX);
        Error::WrongInputBytes { expected, got, shape: self.shape.clone() }
    }

    /// Whether a value is outside the calibrated range. Takes the same time whatever the values, and no branch: what
    /// is below the smallest becomes large by wrapping around, so one maximum over all values tells.
    pub fn is_left_by(&self, input: &[u8]) -> bool {
        let [least, most] = self.calibrated.unwrap_or([0, u16::MAX]);
        if self.is_wide() {
            let above = input.as_chunks().0.iter().map(|word| u16::from_le_bytes(*word).wrapping_sub(least));
            return above.fold(0, u16::max) > most.wrapping_sub(least);
        }
        let [least, most] = [least, most].map(|value| u8::try_from(value).unwrap_or(u8::MAX));
        // A fixed number of maxima side by side becomes vector instructions wherever there are any.
        const LANES: usize = 32;
        let (blocks, rest) = input.as_chunks::<LANES>();
        let mut furthest = [0u8; LANES];
        for block in blocks {
            for (furthest, value) in furthest.iter_mut().zip(block) {
                *furthest = (*furthest).max(value.wrapping_sub(least));
            }
        }
        let all = furthest.into_iter().chain(rest.iter().map(|value| value.wrapping_sub(least)));
        all.fold(0, u8::max) > most.wrapping_sub(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_compared_one_by_one() {
        for (input, array, count) in [
            (&[3, 8, 8][..], &[5, 3, 8, 8][..], 5),
            (&[3, 8, 8], &[5, 192], 5),
            (&[1, 28, 28], &[20, 28, 28], 20),
            (&[1, 28, 28], &[20, 28, 28, 1], 20),
            (&[1, 28, 28], &[1, 28, 28], 1),
            (&[1, 28, 28], &[7, 784], 7),
            (&[64], &[9, 64], 9),
            (&[64], &[9, 1, 64], 9),
            (&[1], &[4], 4),
            (&[1, 64], &[4, 64], 4),
            (&[64], &[0, 64], 0),
        ] {
            assert_eq!(inputs(input, array), Ok(count), "{input:?} {array:?}");
        }
        for (input, array) in [
            (&[3, 8, 8][..], &[5, 8, 8, 3][..]),
            (&[3, 8, 8], &[15, 8, 8]),
            (&[3, 8, 8], &[3, 8, 8]),
            (&[3, 8, 8], &[960]),
            (&[3, 8, 8], &[5, 64, 3]),
            (&[1, 28, 28], &[784, 20]),
            (&[1, 28, 28], &[28, 28]),
            (&[1, 28, 28], &[20, 14, 56]),
            (&[64], &[9, 8, 8]),
            (&[64], &[18, 32]),
            (&[64], &[64]),
            (&[64], &[]),
            (&[usize::MAX, 2], &[3, 4]),
        ] {
            assert!(inputs(input, array).is_err(), "{input:?} {array:?}");
        }
        assert!(
            is_input(&[3, 8, 8], &[3, 8, 8]) && is_input(&[1, 28, 28], &[28, 28]) && is_input(&[64], &[64])
        );
        assert!(!is_input(&[3, 8, 8], &[8, 8, 3]) && !is_input(&[64], &[8, 8]) && !is_input(&[64], &[]));
    }

    #[test]
    fn a_mismatch_says_both_shapes_and_what_to_do() {
        let said = |input: &[usize], array: &[usize]| inputs(input, array).unwrap_err().to_string();
        assert_eq!(
            said(&[3, 8, 9], &[6, 8, 9, 3]),
            "the array has shape (6, 8, 9, 3), the model takes (N, 3, 8, 9) for N inputs: axis 1 is 8 instead of 3, \
             axis 2 is 9 instead of 8, axis 3 is 3 instead of 9; its channels come last: put them first, in NumPy by \
             array.transpose(0, 3, 1, 2)"
        );
        assert!(said(&[8, 9, 3], &[6, 3, 8, 9]).ends_with("array.transpose(0, 2, 3, 1)"));
        assert_eq!(
            said(&[64], &[8, 8, 8]),
            "the array has shape (8, 8, 8), the model takes (N, 64) for N inputs: it has 3 axes instead of 2; bring \
             it to these axes, the first counting the inputs"
        );
        assert!(said(&[64], &[9, 63]).contains("axis 1 is 63 instead of 64"));
        let values = |input: &[usize], array: &[usize]| {
            let mismatch = inputs(input, array).unwrap_err();
            (mismatch.expected(), mismatch.got())
        };
        assert_eq!(values(&[3, 8, 9], &[2, 8, 9]), (216, 144));
        assert_eq!(values(&[2], &[usize::MAX, 2, 3]), (2, usize::MAX));
    }

    #[test]
    fn extents_beyond_all_numbers_fit_no_input() {
        let form = InputForm { shape: vec![1 << 33, 1 << 33], calibrated: None, bits: 8, quantise: None };
        for got in [0, 4, usize::MAX] {
            assert!(matches!(form.check_len(got), Err(Error::WrongInputSize { expected: usize::MAX, .. })));
        }
    }

    #[test]
    fn one_value_outside_the_range_is_seen_wherever_it_is() {
        let form = |calibrated| InputForm { shape: vec![100], calibrated, bits: 8, quantise: None };
        for range in [[0, 16], [3, 200], [7, 7], [9, 255], [0, 255]] {
            let form = form(Some(range));
            for length in [0, 1, 31, 32, 33, 100] {
                for value in 0..=u8::MAX {
                    let outside = !(range[0]..=range[1]).contains(&value.into());
                    for place in [0, length / 2, length.max(1) - 1] {
                        let mut input = vec![range[1] as u8; length];
                        input.iter_mut().skip(place).take(1).for_each(|v| *v = value);
                        assert_eq!(
                            form.is_left_by(&input),
                            outside && length > 0,
                            "{range:?} {length} {value}"
                        );
                    }
                }
            }
        }
        assert!(!form(None).is_left_by(&[0, 255]));
    }

    #[test]
    fn one_large_value_outside_the_range_is_seen_wherever_it_is() {
        let form = |calibrated| InputForm { shape: vec![100], calibrated, bits: 16, quantise: None };
        for range in [[0, 16], [3, 200], [256, 512], [700, 700], [9, 65535], [0, 65535]] {
            let form = form(Some(range));
            for length in [0, 1, 31, 33, 100] {
                for value in [0, 2, 3, 9, 16, 17, 200, 201, 255, 256, 511, 512, 513, 700, 701, 0xff00, 65535]
                {
                    let outside = !(range[0]..=range[1]).contains(&value);
                    for place in [0, length / 2, length.max(1) - 1] {
                        let mut input = vec![range[1]; length];
                        input.iter_mut().skip(place).take(1).for_each(|v| *v = value);
                        let bytes: Vec<u8> = input.iter().flat_map(|v| v.to_le_bytes()).collect();
                        assert_eq!(
                            form.is_left_by(&bytes),
                            outside && length > 0,
                            "{range:?} {length} {value}"
                        );
                    }
                }
            }
        }
        assert!(!form(None).is_left_by(&[0, 0, 255, 255]));
    }

    #[test]
    fn large_values_are_two_bytes_each_and_have_the_models_bits() {
        for bits in 9..=16 {
            let form = InputForm { shape: vec![3], calibrated: None, bits, quantise: None };
            let largest = ((1u32 << bits) - 1) as u16;
            assert_eq!((form.largest(), form.is_wide()), (largest, true));
            let bytes = |values: [u16; 3]| values.map(u16::to_le_bytes).as_flattened().to_vec();
            form.check(&bytes([0, largest, largest])).unwrap();
            for length in [0, 1, 3, 4, 5, 7, 8, 12] {
                let error = form.check(&vec![0; length]).unwrap_err();
                let Error::WrongInputBytes { expected: 6, got, .. } = error else { panic!("{error}") };
                assert_eq!(got, length);
            }
            if let Some(more) = largest.checked_add(1) {
                let error = form.check(&bytes([0, more, 0])).unwrap_err();
                assert!(matches!(error, Error::InputValue { index: 1, .. }), "{error}");
            }
        }
        let form = InputForm { shape: vec![3, 1], calibrated: None, bits: 12, quantise: None };
        let told = form.check(&[0; 3]).unwrap_err().to_string();
        assert_eq!(
            told,
            "the model takes 6 bytes of input, two for each of 3 x 1 values, got 3: give both of each, the lower first"
        );
        let endless = InputForm { shape: vec![1 << 63, 1], calibrated: None, bits: 9, quantise: None };
        assert!(matches!(endless.check(&[]), Err(Error::WrongInputBytes { expected: usize::MAX, .. })));
    }
}
