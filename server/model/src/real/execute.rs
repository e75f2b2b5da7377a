//! Running a network over the reals.

use super::{Linear, Real, RealOp};
use crate::graph::{Gather, ValueId};
use crate::{Error, wide};

impl Real {
    /// The answers to an input, in the order of `outputs`, without what was left out behind them. `see` gets every value
    /// with its numbers, the input's first.
    ///
    /// # Errors
    /// [`Error::Input`] for an input of another length, [`Error::Shape`] for a network whose parts do not fit.
    pub fn run(&self, input: &[f64], mut see: impl FnMut(ValueId, &[f64])) -> Result<Vec<Vec<f64>>, Error> {
        let len = self.len(0);
        if input.len() != len {
            let found = input.len();
            return Err(Error::Input(format!("{found} values, and {len} are needed: give one whole input")));
        }
        // Values go when nothing reads them any more.
        let mut last = vec![0; self.nodes.len() + 1];
        for (number, node) in self.nodes.iter().enumerate() {
            for value in node.op.inputs() {
                if let Some(last) = last.get_mut(value) {
                    *last = number + 1;
                }
            }
        }
        for output in &self.outputs {
            if let Some(last) = last.get_mut(output.value) {
                *last = usize::MAX;
            }
        }
        let mut values: Vec<Vec<f64>> = vec![Vec::new(); self.nodes.len() + 1];
        see(0, input);
        if let Some(first) = values.first_mut() {
            input.clone_into(first);
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let misfit = || node.origin.error("its input has another length: report this file");
            let read = |value: ValueId, len: usize| {
                values
                    .get(value)
                    .filter(|_| value <= number)
                    .filter(|value| value.len() == len)
                    .ok_or_else(misfit)
            };
            let made = match &node.op {
                RealOp::Linear(linear) => {
                    linear.apply(read(linear.input, linear.geometry.inputs())?).ok_or_else(misfit)?
                }
                RealOp::Scale { input, gain, offset } => {
                    let x = read(*input, gain.len())?;
                    let pairs = gain.iter().zip(offset);
                    x.iter().zip(pairs).map(|(x, (gain, offset))| x * gain + offset).collect()
                }
                RealOp::Public { terms, offset, len } => {
                    let mut sum = vec![*offset; *len];
                    for term in terms {
                        let x = values.get(term.value).filter(|_| term.value <= number).ok_or_else(misfit)?;
                        add(&term.gather, term.factor, x, &mut sum);
                    }
                    sum
                }
                RealOp::Relu { input } => {
                    read(*input, self.len(*input))?.iter().map(|x| x.max(0.0)).collect()
                }
                RealOp::Round { input } => read(*input, self.len(*input))?.clone(),
            };
            see(number + 1, &made);
            if let Some(place) = values.get_mut(number + 1) {
                *place = made;
            }
            for value in node.op.inputs() {
                if last.get(value) == Some(&(number + 1))
                    && let Some(value) = values.get_mut(value)
                {
                    *value = Vec::new();
                }
            }
        }
        let of = |value: ValueId| {
            values.get(value).cloned().ok_or_else(|| Error::Shape("an output that nothing makes".to_owned()))
        };
        self.outputs.iter().map(|output| of(output.value)).collect()
    }
}

impl Linear {
    /// The layer of an input of the right length; nothing if the layer does not fit itself.
    pub(crate) fn apply(&self, x: &[f64]) -> Option<Vec<f64>> {
        let mut out = self.product(x)?;
        if out.len() != self.bias.len() {
            return None;
        }
        out.iter_mut().zip(&self.bias).for_each(|(out, bias)| *out += bias);
        Some(out)
    }

    /// The layer without its bias.
    pub(crate) fn product(&self, x: &[f64]) -> Option<Vec<f64>> {
        let geometry = &self.geometry;
        geometry.check().ok()?;
        if self.weights.len() != geometry.weights() || x.len() != geometry.inputs() {
            return None;
        }
        let mut out = vec![0.0; geometry.outputs()];
        wide::multiply(geometry, &self.weights, x, &mut out);
        Some(out)
    }
}

/// `out += factor · gather(values)`.
pub(crate) fn add(gather: &Gather, factor: f64, values: &[f64], out: &mut [f64]) {
    gather.each(out.len(), |at, from| {
        if let (Some(out), Some(value)) = (out.get_mut(at), values.get(from)) {
            *out += factor * value;
        }
    });
}
