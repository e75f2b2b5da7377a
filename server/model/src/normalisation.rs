//! What a network's input is in terms of the device's values.

use ndarray::ArrayD;

use crate::Error;

/// The network's input in terms of the device's values: `(x/scale - mean)/std`.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalisation {
    /// `D`, positive: 255 makes 0 to 1 of a byte.
    pub scale: f64,
    /// For each channel (first axis of the input), one for all, or none for 0.
    pub mean: Vec<f64>,
    /// For each channel, one for all, or none for 1; positive.
    pub std: Vec<f64>,
}

impl Default for Normalisation {
    fn default() -> Self {
        Normalisation { scale: 255.0, mean: Vec::new(), std: Vec::new() }
    }
}

impl Normalisation {
    /// What is multiplied with every value of an input of this shape, and what is added then. `axis` is the one whose
    /// places are channels.
    pub(crate) fn values(&self, shape: &[usize], axis: usize) -> Result<(Vec<f64>, Vec<f64>), Error> {
        let channels = self.channels(shape.get(axis).copied().unwrap_or(1))?;
        let (gains, offsets): (Vec<f64>, Vec<f64>) = channels.into_iter().unzip();
        // Along one axis, the same for all places of the others.
        let spread = |values: Vec<f64>| {
            let mut axes = vec![1; shape.len()];
            if let Some(own) = axes.get_mut(axis) {
                *own = values.len();
            }
            let values = ArrayD::from_shape_vec(axes, values).ok()?;
            Some(values.broadcast(shape)?.iter().copied().collect())
        };
        let misfit = || Error::Options("mean and std do not fit the input's shape".to_owned());
        Ok((spread(gains).ok_or_else(misfit)?, spread(offsets).ok_or_else(misfit)?))
    }

    /// Factor and summand of every channel of the input.
    fn channels(&self, count: usize) -> Result<Vec<(f64, f64)>, Error> {
        let pick = |values: &[f64], c: usize, default: f64| match values {
            [] => Some(default),
            [all] => Some(*all),
            each if each.len() == count => each.get(c).copied(),
            _ => None,
        };
        let positive = |v: f64| v.is_finite() && v > 0.0;
        (0..count)
            .map(|c| match (pick(&self.mean, c, 0.0), pick(&self.std, c, 1.0)) {
                (Some(mean), Some(std)) if mean.is_finite() && positive(std) && positive(self.scale) => {
                    Ok((1.0 / (self.scale * std), -mean / std))
                }
                (None, _) | (_, None) => Err(Error::Options(format!(
                    "mean and std have {} and {} values, and need none, one, or one for each of the {count} channels",
                    self.mean.len(),
                    self.std.len()
                ))),
                _ => Err(Error::Options("scale and std must be positive numbers, and mean a finite one".to_owned())),
            })
            .collect()
    }
}
