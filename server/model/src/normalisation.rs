//! What a network's input is in terms of the device's values.

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

/// What normalisation does to one channel: `x·gain - offset`.
pub(crate) struct Channel {
    pub gain: f64,
    pub offset: f64,
}

impl Normalisation {
    /// One entry for each channel of the input.
    pub(crate) fn channels(&self, count: usize) -> Result<Vec<Channel>, Error> {
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
                    Ok(Channel { gain: 1.0 / (self.scale * std), offset: mean / std })
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
