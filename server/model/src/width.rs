//! The ring width of every layer (`protocol.md` section 2).

use crate::{
    AFFORDABLE_BITS, Activation, Calibration, Error, Execution, Executor, FixedLayer, FixedModel, InputSpec,
    LayerWidth, WidthRule,
};

/// Smallest two's-complement width that holds everything from `low` to `high`.
fn signed_width(low: i128, high: i128) -> u32 {
    // The complement of a negative number has the same leading bits, minus the sign.
    let magnitude = |v: i128| i128::BITS - (v ^ (v >> 127)).leading_zeros();
    magnitude(low).max(magnitude(high)) + 1
}

fn largest_weight(layer: &FixedLayer) -> u32 {
    layer.weights.iter().map(|w| w.unsigned_abs()).max().unwrap_or(0)
}

/// What a width must be apart from the accumulator: every weight below `2^(k-1)`, at least two bits left after the
/// shift, and the device's values not negative.
fn least_width(layer: &FixedLayer, input: Option<&InputSpec>) -> u32 {
    let weights = u32::BITS - largest_weight(layer).leading_zeros() + 1;
    let shift = match layer.activation {
        Activation::Relu { shift } => shift.saturating_add(2),
        Activation::Output { .. } => 2,
    };
    weights.max(shift).max(input.map_or(2, |i| i.bits + 1))
}

/// The least and the largest that a layer's accumulator can be for inputs from 0 to `largest`; both ranges have 0 in
/// them.
fn reach(layer: &FixedLayer, largest: i128) -> (i128, i128) {
    // Inputs are never negative, so positive weights alone make the largest value.
    let (mut low, mut high) = (0, 0);
    let fan_in = layer.geometry.fan_in();
    let positions = layer.geometry.outputs() / (layer.weights.len() / fan_in);
    for (row, bias) in layer.weights.chunks_exact(fan_in).zip(layer.bias.chunks_exact(positions)) {
        let sum = |sign: i64| row.iter().map(|&w| (sign * i64::from(w)).max(0) as i128).sum::<i128>();
        let (below, above) = bias.iter().fold((i64::MAX, i64::MIN), |(l, h), &b| (l.min(b), h.max(b)));
        low = low.min(i128::from(below) - sum(-1) * largest);
        high = high.max(i128::from(above) + sum(1) * largest);
    }
    (low, high)
}

/// The largest activation behind a layer whose accumulator is at most `high` and has `width` bits.
fn passed_on(layer: &FixedLayer, high: i128, width: u32) -> i128 {
    let high = high.min((1 << (width - 1)) - 1);
    match layer.activation {
        Activation::Relu { shift } => high >> shift,
        Activation::Output { .. } => high,
    }
}

impl FixedModel {
    /// Chooses every width by `rule` and from data: the smallest in which no accumulator of these samples wraps
    /// around, and one bit of margin, or the worst case's. `samples` is any number of inputs, one after the other.
    /// Remembers their range in [`InputSpec::calibrated`].
    ///
    /// # Errors
    /// [`Error::Input`] if that is not one or more whole inputs, [`Error::Width`] if a layer needs more than 32 bits.
    /// The model is then as it was.
    pub fn calibrate(&mut self, samples: &[u8], rule: WidthRule) -> Result<Calibration, Error> {
        let executor = Executor::new(self)?;
        let mut ranges = vec![(0i64, 0i64); self.layers.len()];
        let inputs = executor.samples(samples)?;
        for sample in inputs.clone() {
            executor.ranges(sample, &mut ranges)?;
        }
        let mut largest = (1i128 << self.input.bits) - 1;
        let mut layers = Vec::with_capacity(self.layers.len());
        for (i, (layer, (low, high))) in self.layers.iter().zip(ranges).enumerate() {
            let least = least_width(layer, (i == 0).then_some(&self.input));
            let (worst_low, worst_high) = reach(layer, largest);
            let used = signed_width(low.into(), high.into());
            // Not even the margin is needed beyond what any input makes.
            let bound = signed_width(worst_low, worst_high);
            let (calibrated, worst) = (bound.min(used + 1).max(least), bound.max(least));
            let width = match rule {
                WidthRule::Worst => worst,
                WidthRule::Affordable if worst <= (calibrated + AFFORDABLE_BITS).min(32) => worst,
                WidthRule::Affordable | WidthRule::Calibrated => calibrated,
            };
            if width > 32 {
                return Err(Error::Width { layer: layer.name.clone(), needed: width });
            }
            largest = passed_on(layer, worst_high, width);
            let largest_weight = largest_weight(layer);
            layers.push(LayerWidth {
                name: layer.name.clone(),
                used,
                calibrated,
                worst,
                width,
                largest_weight,
            });
        }
        let range = samples.iter().fold([u8::MAX, 0], |[l, h], &v| [l.min(v), h.max(v)]);
        let mut others = inputs.clone();
        let first = others.next();
        let calibration = Calibration {
            inputs: inputs.len(),
            alike: others.all(|other| Some(other) == first),
            range,
            bits: self.input.bits,
            layers,
        };
        self.input.calibrated = Some(range);
        let widths: Vec<u32> = calibration.layers.iter().map(|l| l.width).collect();
        self.set_widths(&widths);
        Ok(calibration)
    }

    /// The widths in which no accumulator can wrap around, whatever the input.
    ///
    /// # Errors
    /// [`Error::Width`] if a layer needs more than 32 bits, [`Error::Shape`] if the model is not consistent.
    pub fn worst_case_widths(&self) -> Result<Vec<u32>, Error> {
        self.check()?;
        let mut largest = (1i128 << self.input.bits) - 1;
        let each = self.layers.iter().enumerate();
        each.map(|(i, layer)| {
            let (low, high) = reach(layer, largest);
            let width = signed_width(low, high).max(least_width(layer, (i == 0).then_some(&self.input)));
            if width > 32 {
                return Err(Error::Width { layer: layer.name.clone(), needed: width });
            }
            largest = passed_on(layer, high, width);
            Ok(width)
        })
        .collect()
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
