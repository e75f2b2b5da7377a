//! What `seco check` is asked for.

use std::path::{Path, PathBuf};

use crate::split::{Answer, Choices, SplitOptions, Width};

/// Sizes of clusters that are always looked at.
const SIZES: [usize; 3] = [2, 3, 4];

/// What `seco check` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The model.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// Typical inputs, uint8 or uint16, or real numbers (floats, signed integers) as the network takes them; first axis the samples: they choose the model's numbers, and are what it is tried on.
    #[arg(long, value_name = "FILE.npy")]
    pub input: PathBuf,
    /// Their labels: uint8, one axis.
    #[arg(long, value_name = "FILE.npy")]
    pub labels: Option<PathBuf>,
    /// Names of the classes, a line each.
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
    /// How it is split.
    #[command(flatten)]
    pub choices: Choices,
    /// Number of servers, the gateway included, of the layers' figures and the command at the end.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub servers: u8,
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
    pub(super) fn task(&self) -> SplitOptions {
        let task = SplitOptions::new(&self.model, &self.input, usize::from(self.servers), "");
        task.with(self.choices.clone())
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
        let Choices {
            shape, input_bits, scale, mean, std, agreement, gateway_layers, shared, placement, ..
        } = &self.choices;
        let list = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        let mut line =
            format!("seco split --model {} --calibrate {}", quoted(&self.model), quoted(&self.input));
        let mut add = |option: &str, value: String| line += &format!(" --{option} {value}");
        if !shape.is_empty() {
            add("shape", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
        }
        if *input_bits != SplitOptions::INPUT_BITS {
            add("input-bits", input_bits.to_string());
        }
        scale.iter().for_each(|scale| add("scale", scale.to_string()));
        if !mean.is_empty() {
            // A list may begin with a minus.
            line += &format!(" --mean={} --std={}", list(mean), list(std));
        }
        let mut add = |option: &str, value: String| line += &format!(" --{option} {value}");
        match self.choices.width {
            None => {}
            Some(Width::Calibrated) => add("width", "calibrated".to_owned()),
            Some(Width::Worst) => add("width", "worst".to_owned()),
        }
        let Choices { weight_bits, activation_bits, .. } = self.choices;
        for (option, bits) in [("weight-bits", weight_bits), ("activation-bits", activation_bits)] {
            bits.iter().for_each(|bits| add(option, bits.to_string()));
        }
        if *agreement != SplitOptions::AGREEMENT {
            add("agreement", agreement.to_string());
        }
        if self.choices.output == Answer::Label {
            add("output", "label".to_owned());
        }
        add("servers", self.servers.to_string());
        if *gateway_layers != SplitOptions::GATEWAY_LAYERS {
            add("gateway-layers", gateway_layers.to_string());
        }
        if !shared.is_empty() {
            add("shared", shared.join(","));
        }
        placement.iter().for_each(|path| add("placement", quoted(path)));
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
