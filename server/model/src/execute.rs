//! Running a model in clear, with the integer arithmetic of the private protocol (`protocol.md` section 2): the
//! private result equals this one bit for bit.

use crate::linear::multiply;
use crate::{Activation, Error, FixedLayer, FixedModel};

/// The result of one inference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The last layer's accumulators, in `width` bits two's complement, `fraction` of them behind the point.
    pub logits: Vec<i32>,
    /// How many accumulators of all layers did not fit their width and wrapped around.
    pub wrapped: u64,
}

impl Execution {
    /// Index of the largest logit, the first of several; 0 without any.
    pub fn label(&self) -> usize {
        let first_maximum = |best: usize, i: usize| if self.logits[i] > self.logits[best] { i } else { best };
        (0..self.logits.len()).reduce(first_maximum).unwrap_or(0)
    }
}

/// A model made ready for many inferences.
pub struct Executor<'a> {
    model: &'a FixedModel,
    layers: Vec<Prepared>,
}

/// What is computed once for a layer.
struct Prepared {
    /// Weights mod `2^32`.
    weights: Vec<u32>,
    /// Largest sum of magnitudes of the weights of one output value.
    heaviest: u64,
}

impl<'a> Executor<'a> {
    /// Checks the model and prepares it.
    ///
    /// # Errors
    /// [`Error::Shape`] if the model is not consistent.
    pub fn new(model: &'a FixedModel) -> Result<Executor<'a>, Error> {
        model.check()?;
        let prepare = |layer: &FixedLayer| {
            let rows = layer.weights.chunks_exact(layer.geometry.fan_in());
            let heaviest = rows.map(|row| row.iter().map(|w| u64::from(w.unsigned_abs())).sum()).max();
            Prepared {
                weights: layer.weights.iter().map(|&w| w as u32).collect(),
                heaviest: heaviest.unwrap_or(0),
            }
        };
        Ok(Executor { model, layers: model.layers.iter().map(prepare).collect() })
    }

    /// Runs one input: row-major values of the input's shape.
    ///
    /// # Errors
    /// [`Error::Input`] if their number is wrong or one has too many bits.
    pub fn run(&self, input: &[u8]) -> Result<Execution, Error> {
        let mut x = self.input(input)?;
        let mut result = Execution { logits: Vec::new(), wrapped: 0 };
        for (layer, prepared) in self.model.layers.iter().zip(&self.layers) {
            let mut accumulators = prepared.accumulate(layer, &x).0;
            for accumulator in &mut accumulators {
                let exact = *accumulator;
                *accumulator = wrap(exact, layer.width);
                result.wrapped += u64::from(exact != *accumulator);
            }
            match layer.activation {
                Activation::Relu { shift } => x = relu(&accumulators, shift),
                // A wrapped value has at most 32 bits, so nothing is lost.
                Activation::Output { .. } => result.logits = accumulators.iter().map(|&a| a as i32).collect(),
            }
        }
        Ok(result)
    }

    /// Cuts a set of inputs into single ones.
    pub(crate) fn samples<'b>(&self, samples: &'b [u8]) -> Result<core::slice::ChunksExact<'b, u8>, Error> {
        let len = self.model.input.len().max(1);
        match samples.len() % len {
            0 if !samples.is_empty() => Ok(samples.chunks_exact(len)),
            _ => Err(Error::Input(format!(
                "{} values are not one or more inputs of {len}: give whole ones",
                samples.len()
            ))),
        }
    }

    /// Widens the range of every layer's accumulator by what this input makes of it, nothing wrapped.
    ///
    /// # Errors
    /// [`Error::Input`], and [`Error::Width`] if an accumulator does not fit 31 bits and the margin.
    pub(crate) fn ranges(&self, input: &[u8], ranges: &mut [(i64, i64)]) -> Result<(), Error> {
        let mut x = self.input(input)?;
        for ((layer, prepared), range) in self.model.layers.iter().zip(&self.layers).zip(ranges) {
            let (accumulators, exact) = prepared.accumulate(layer, &x);
            for &accumulator in &accumulators {
                *range = (range.0.min(accumulator), range.1.max(accumulator));
            }
            let largest = range.0.unsigned_abs().max(range.1.unsigned_abs());
            if !exact || largest > 1 << 30 {
                let needed = if exact { u64::BITS - largest.leading_zeros() + 2 } else { u64::BITS };
                return Err(Error::Width { layer: layer.name.clone(), needed });
            }
            if let Activation::Relu { shift } = layer.activation {
                x = relu(&accumulators, shift);
            }
        }
        Ok(())
    }

    fn input(&self, input: &[u8]) -> Result<Vec<u32>, Error> {
        let spec = &self.model.input;
        if input.len() != spec.len() {
            return Err(Error::Input(format!(
                "it has {} values, and the model takes {}",
                input.len(),
                spec.len()
            )));
        }
        if input.iter().any(|&v| u32::from(v) >> spec.bits != 0) {
            return Err(Error::Input(format!(
                "a value does not fit the {} bits of the model's inputs",
                spec.bits
            )));
        }
        Ok(input.iter().map(|&v| v.into()).collect())
    }
}

impl Prepared {
    /// The accumulators of a layer, bias included, and whether they are what they would be without any wrapping. If
    /// not they are still right mod `2^64`.
    fn accumulate(&self, layer: &FixedLayer, x: &[u32]) -> (Vec<i64>, bool) {
        let largest = x.iter().copied().max().unwrap_or(0);
        let bound = u128::from(self.heaviest) * u128::from(largest);
        let mut out = vec![0; layer.geometry.outputs()];
        if bound < 1 << 31 {
            let mut words = vec![0u32; out.len()];
            multiply(&layer.geometry, &self.weights, x, &mut words);
            out.iter_mut().zip(words).for_each(|(o, w)| *o = i64::from(w as i32));
        } else {
            let weights: Vec<i64> = layer.weights.iter().map(|&w| w.into()).collect();
            let x: Vec<i64> = x.iter().map(|&x| x.into()).collect();
            multiply(&layer.geometry, &weights, &x, &mut out);
        }
        let bias = layer.bias.iter().map(|b| u128::from(b.unsigned_abs())).max().unwrap_or(0);
        out.iter_mut().zip(&layer.bias).for_each(|(o, &b)| *o = o.wrapping_add(b));
        (out, bound + bias < 1 << 63)
    }
}

/// `value` mod `2^width` as a two's-complement number of `width` bits, 2 to 32.
fn wrap(value: i64, width: u32) -> i64 {
    let unused = u64::BITS - width;
    (value << unused) >> unused
}

/// Arithmetic shift right, then ReLU. The accumulators fit 32 bits.
fn relu(accumulators: &[i64], shift: u32) -> Vec<u32> {
    accumulators.iter().map(|&a| (a >> shift).max(0) as u32).collect()
}
