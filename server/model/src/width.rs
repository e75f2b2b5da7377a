//! The ring width of every layer (`protocol.md` section 2).

use crate::{Activation, Error, Execution, Executor, FixedLayer, FixedModel, InputSpec};

/// Smallest two's-complement width that holds everything from `low` to `high`.
fn signed_width(low: i128, high: i128) -> u32 {
    // The complement of a negative number has the same leading bits, minus the sign.
    let magnitude = |v: i128| i128::BITS - (v ^ (v >> 127)).leading_zeros();
    magnitude(low).max(magnitude(high)) + 1
}

/// What a width must be apart from the accumulator: every weight below `2^(k-1)`, at least two bits left after the
/// shift, and the device's values not negative.
fn least_width(layer: &FixedLayer, input: Option<&InputSpec>) -> u32 {
    let largest = layer.weights.iter().map(|w| w.unsigned_abs()).max().unwrap_or(0);
    let weights = u32::BITS - largest.leading_zeros() + 1;
    let shift = match layer.activation {
        Activation::Relu { shift } => shift.saturating_add(2),
        Activation::Output { .. } => 2,
    };
    weights.max(shift).max(input.map_or(2, |i| i.bits + 1))
}

impl FixedModel {
    /// Chooses every width from data: the smallest in which no accumulator of these samples wraps around, and one
    /// bit of margin, unless no input at all can need it. `samples` is any number of inputs, one after the other.
    ///
    /// # Errors
    /// [`Error::Input`] if that is not one or more whole inputs, [`Error::Width`] if a layer needs more than 32 bits.
    /// The widths are then as they were.
    pub fn calibrate(&mut self, samples: &[u8]) -> Result<(), Error> {
        let executor = Executor::new(self)?;
        let mut ranges = vec![(0i64, 0i64); self.layers.len()];
        for sample in executor.samples(samples)? {
            executor.ranges(sample, &mut ranges)?;
        }
        let mut needed: Vec<u32> =
            ranges.iter().map(|&(low, high)| signed_width(low.into(), high.into()) + 1).collect();
        for (needed, bound) in needed.iter_mut().zip(self.bounds()) {
            *needed = bound.min(*needed);
        }
        let widths = self.widths(needed)?;
        self.set_widths(&widths);
        Ok(())
    }

    /// The widths in which no accumulator can wrap around, whatever the input.
    ///
    /// # Errors
    /// [`Error::Width`] if a layer needs more than 32 bits, [`Error::Shape`] if the model is not consistent.
    pub fn worst_case_widths(&self) -> Result<Vec<u32>, Error> {
        self.check()?;
        self.widths(self.bounds())
    }

    /// What each accumulator needs at worst, up to the first layer that needs more than 32 bits. The model is
    /// consistent.
    fn bounds(&self) -> Vec<u32> {
        let mut largest = (1i128 << self.input.bits) - 1;
        let mut widths = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            // Inputs are never negative, so positive weights alone make the largest value.
            let (mut low, mut high) = (0, 0);
            let fan_in = layer.geometry.fan_in();
            let positions = layer.geometry.outputs() / (layer.weights.len() / fan_in);
            for (row, bias) in layer.weights.chunks_exact(fan_in).zip(layer.bias.chunks_exact(positions)) {
                let sum = |sign: i64| row.iter().map(|&w| (sign * i64::from(w)).max(0) as i128).sum::<i128>();
                let (below, above) =
                    bias.iter().fold((i64::MAX, i64::MIN), |(l, h), &b| (l.min(b), h.max(b)));
                low = low.min(i128::from(below) - sum(-1) * largest);
                high = high.max(i128::from(above) + sum(1) * largest);
            }
            widths.push(signed_width(low, high));
            match layer.activation {
                Activation::Relu { shift } if widths.last().is_some_and(|&w| w <= 32) => {
                    largest = high >> shift
                }
                _ => break,
            }
        }
        widths
    }

    /// Chooses every width by [`FixedModel::worst_case_widths`].
    ///
    /// # Errors
    /// Those of [`FixedModel::worst_case_widths`]; the widths are then as they were.
    pub fn use_worst_case_widths(&mut self) -> Result<(), Error> {
        let widths = self.worst_case_widths()?;
        self.set_widths(&widths);
        Ok(())
    }

    /// Raises what the accumulators need to what each layer needs anyway.
    fn widths(&self, needed: Vec<u32>) -> Result<Vec<u32>, Error> {
        let each = self.layers.iter().zip(needed).enumerate();
        each.map(|(i, (layer, needed))| {
            let input = (i == 0).then_some(&self.input);
            match needed.max(least_width(layer, input)) {
                width if width <= 32 => Ok(width),
                needed => Err(Error::Width { layer: layer.name.clone(), needed }),
            }
        })
        .collect()
    }

    fn set_widths(&mut self, widths: &[u32]) {
        self.layers.iter_mut().zip(widths).for_each(|(layer, &width)| layer.width = width);
    }

    /// Runs one input; [`Executor`] is faster for many.
    ///
    /// # Errors
    /// Those of [`Executor::new`] and [`Executor::run`].
    pub fn execute(&self, input: &[u8]) -> Result<Execution, Error> {
        Executor::new(self)?.run(input)
    }
}
