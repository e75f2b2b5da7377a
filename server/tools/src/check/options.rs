//! What `seco check` is asked for.

use std::path::{Path, PathBuf};

use seco_model::numbers::Goal;

use crate::Error;
use crate::split::{SplitOptions, Width};

/// Sizes of clusters that are always looked at.
const SIZES: [usize; 3] = [2, 3, 4];

/// What `seco check` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The model.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// Typical inputs, uint8, first axis the samples: they choose the model's numbers, and are what it is tried on.
    #[arg(long, value_name = "FILE.npy")]
    pub input: PathBuf,
    /// Their labels: uint8, one axis.
    #[arg(long, value_name = "FILE.npy")]
    pub labels: Option<PathBuf>,
    /// Names of the classes, a line each.
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
    /// Shape of an input without the batch axis, where the model leaves it open: 3,224,224.
    #[arg(long, value_delimiter = ',', value_name = "D")]
    pub shape: Vec<usize>,
    /// The network sees byte / D.
    #[arg(long, value_name = "D", default_value_t = 255.0)]
    pub scale: f64,
    /// Then (x - mean) / std: one value for each channel.
    #[arg(long, value_delimiter = ',', requires = "std")]
    pub mean: Vec<f64>,
    /// See --mean.
    #[arg(long, value_delimiter = ',', requires = "mean")]
    pub std: Vec<f64>,
    /// Bits of the layers' sums: what those inputs need, or what any inputs need [default: the former,
    /// or the latter where it costs at most two bits more].
    #[arg(long, value_enum)]
    pub width: Option<Width>,
    /// Bits of the largest weight of a layer, its sign apart [default: the fewest that agree].
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(2..=22))]
    pub weight_bits: Option<u32>,
    /// Bits of the largest activation [default: the fewest that agree].
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(2..=22))]
    pub activation_bits: Option<u32>,
    /// Part of the labels that must be the float network's; its logits must be within 1% of the largest.
    #[arg(long, value_name = "PART", default_value_t = 0.99)]
    pub agreement: f64,
    /// Number of servers, the gateway included, of the layers' figures and the command at the end.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub servers: u8,
    /// How many linear layers, from the first, the gateway holds; the others are shared.
    #[arg(long, value_name = "L", default_value_t = 1)]
    pub gateway_layers: usize,
    /// Takes CPU times that were measured on another machine instead of measuring this one for some seconds.
    #[arg(long)]
    pub no_bench: bool,
    /// Prints the results as one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
    /// Writes a page with pictures as well, which needs nothing else.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}

impl Options {
    /// The split that this is about.
    pub(super) fn task(&self) -> Result<SplitOptions, Error> {
        if !(0.0..=1.0).contains(&self.agreement) {
            return Err(Error::Usage(format!("--agreement {}: give a part from 0 to 1", self.agreement)));
        }
        Ok(SplitOptions {
            labels_only: false,
            model: self.model.clone(),
            calibrate: self.input.clone(),
            goal: Goal {
                agreement: self.agreement,
                weight_bits: self.weight_bits,
                activation_bits: self.activation_bits,
                width: Width::rule(self.width),
                ..Goal::default()
            },
            shape: self.shape.clone(),
            servers: usize::from(self.servers),
            gateway_layers: self.gateway_layers,
            shared: Vec::new(),
            placement: None,
            scale: self.scale,
            mean: self.mean.clone(),
            std: self.std.clone(),
            out: PathBuf::new(),
        })
    }

    /// Numbers of servers to look at.
    pub(super) fn sizes(&self) -> Vec<usize> {
        let mut sizes = SIZES.to_vec();
        let own = usize::from(self.servers);
        if !sizes.contains(&own) {
            sizes.push(own);
        }
        sizes
    }

    /// The `seco split` that makes what was checked.
    pub(super) fn next(&self) -> String {
        let list = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        let mut line =
            format!("seco split --model {} --calibrate {}", quoted(&self.model), quoted(&self.input));
        let mut add = |option: &str, value: String| line += &format!(" --{option} {value}");
        if !self.shape.is_empty() {
            add("shape", self.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
        }
        if self.scale != 255.0 {
            add("scale", self.scale.to_string());
        }
        if !self.mean.is_empty() {
            // A list may begin with a minus.
            line += &format!(" --mean={} --std={}", list(&self.mean), list(&self.std));
        }
        let mut add = |option: &str, value: String| line += &format!(" --{option} {value}");
        match self.width {
            None => {}
            Some(Width::Calibrated) => add("width", "calibrated".to_owned()),
            Some(Width::Worst) => add("width", "worst".to_owned()),
        }
        for (option, bits) in [("weight-bits", self.weight_bits), ("activation-bits", self.activation_bits)] {
            bits.iter().for_each(|bits| add(option, bits.to_string()));
        }
        if self.agreement != 0.99 {
            add("agreement", self.agreement.to_string());
        }
        add("servers", self.servers.to_string());
        if self.gateway_layers != 1 {
            add("gateway-layers", self.gateway_layers.to_string());
        }
        line + " --out cluster"
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted(Path::new("a/b-1.onnx")), "a/b-1.onnx");
        assert_eq!(quoted(Path::new("it's here")), r"'it'\''s here'");
        assert_eq!(quoted(Path::new("$(x)")), "'$(x)'");
    }
}
