//! What a network's owner decides, on the command line and as a value.

use std::path::PathBuf;

use seco_model::WidthRule;
use seco_model::numbers::Goal;

use crate::Error;

/// What `--width` insists on. Without it a layer gets the calibrated width, or the worst case's where that costs at
/// most two bits more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Width {
    /// What the calibration needs, and one bit of margin.
    Calibrated,
    /// What any input at all needs.
    Worst,
}

impl Width {
    /// The rule that the option stands for.
    pub fn rule(given: Option<Width>) -> WidthRule {
        match given {
            None => WidthRule::Affordable,
            Some(Width::Calibrated) => WidthRule::Calibrated,
            Some(Width::Worst) => WidthRule::Worst,
        }
    }
}

/// What `--output` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Answer {
    /// All numbers.
    Logits,
    /// The index of the largest.
    Label,
}

/// The options that `seco split` and `seco check` share.
#[derive(Clone, Debug, clap::Args)]
pub struct Choices {
    /// Shape of an input without the batch axis, where the model leaves it open: 3,224,224.
    #[arg(long, value_delimiter = ',', value_name = "D")]
    pub shape: Vec<usize>,
    /// Bits of an input value, 1 to 16: 8 for bytes. With more, devices send two bytes for each, and the inputs here are
    /// uint16 (or uint8). Of inputs that are other numbers (floats, signed integers) devices make values of so many bits.
    #[arg(
        long,
        value_name = "B",
        default_value_t = SplitOptions::INPUT_BITS,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(seco_model::MAX_INPUT_BITS))
    )]
    pub input_bits: u32,
    /// The network sees value / D [default: the largest value, 255 of 8 bits; 1 for real numbers].
    #[arg(long, value_name = "D")]
    pub scale: Option<f64>,
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
    #[arg(long, value_name = "PART", default_value_t = SplitOptions::AGREEMENT)]
    pub agreement: f64,
    /// What devices get: all numbers, or the index of the largest alone.
    #[arg(long, value_enum, default_value_t = Answer::Logits)]
    pub output: Answer,
    /// How many linear layers, from the first, the gateway holds; the others are shared.
    #[arg(long, value_name = "L", default_value_t = SplitOptions::GATEWAY_LAYERS)]
    pub gateway_layers: usize,
    /// Who shares the others: two or more of gateway, remote-1, remote-2, ... [default: all remotes, a single one with
    /// the gateway].
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub shared: Vec<String>,
    /// A TOML file that says who has which layers, where the two options above do not: "conv1" = "gateway" or
    /// "3" = ["remote-1", "remote-2"].
    #[arg(long, value_name = "FILE.toml")]
    pub placement: Option<PathBuf>,
}

/// What `seco split` is asked for.
#[derive(Clone, Debug)]
pub struct SplitOptions {
    /// The ONNX file.
    pub model: PathBuf,
    /// Inputs that calibrate the widths: uint8 or uint16 .npy, or real numbers (floats, signed integers, bool); first axis
    /// the samples.
    pub calibrate: PathBuf,
    /// Bits of an input value.
    pub input_bits: u32,
    /// Bits of the weights and of the activations, and how well answers must agree with the float network's.
    pub goal: Goal,
    /// Shape of an input without the batch axis, where the file leaves it open; empty if it does not.
    pub shape: Vec<usize>,
    /// Number of servers.
    pub servers: usize,
    /// Whether devices get labels alone, and nothing of the logits.
    pub labels_only: bool,
    /// Linear layers held by the gateway.
    pub gateway_layers: usize,
    /// Who shares the others, by name; empty for all remotes (a single one shares with the gateway).
    pub shared: Vec<String>,
    /// A file that says who has which layers; it goes before the two above.
    pub placement: Option<PathBuf>,
    /// The network sees `value / scale`; none for the largest value, and of real numbers for 1.
    pub scale: Option<f64>,
    /// Then `(x - mean) / std`, for each channel; empty for none.
    pub mean: Vec<f64>,
    /// See `mean`.
    pub std: Vec<f64>,
    /// Directory of the results (created when missing).
    pub out: PathBuf,
}

impl SplitOptions {
    /// Bits of an input value, if nothing is said.
    pub const INPUT_BITS: u32 = 8;
    /// Part of the labels that must agree, if nothing is said.
    pub const AGREEMENT: f64 = 0.99;
    /// Layers of the gateway, if nothing is said.
    pub const GATEWAY_LAYERS: usize = 1;

    /// A network, inputs that calibrate it, and a folder for the results, with everything else as it is if nothing is
    /// said.
    pub fn new(
        model: impl Into<PathBuf>,
        calibrate: impl Into<PathBuf>,
        servers: usize,
        out: impl Into<PathBuf>,
    ) -> SplitOptions {
        SplitOptions {
            model: model.into(),
            calibrate: calibrate.into(),
            input_bits: SplitOptions::INPUT_BITS,
            goal: Goal { agreement: SplitOptions::AGREEMENT, ..Goal::default() },
            shape: Vec::new(),
            servers,
            labels_only: false,
            gateway_layers: SplitOptions::GATEWAY_LAYERS,
            shared: Vec::new(),
            placement: None,
            scale: None,
            mean: Vec::new(),
            std: Vec::new(),
            out: out.into(),
        }
    }

    /// What values of so many bits are divided by, if nothing is said: the largest.
    pub fn scale_of(input_bits: u32) -> f64 {
        seco_model::largest(input_bits).into()
    }

    /// The same with what was chosen on the command line.
    pub fn with(self, choices: Choices) -> SplitOptions {
        let Choices { shape, input_bits, scale, mean, std, gateway_layers, shared, placement, .. } = choices;
        let goal = Goal {
            agreement: choices.agreement,
            weight_bits: choices.weight_bits,
            activation_bits: choices.activation_bits,
            width: Width::rule(choices.width),
            ..self.goal
        };
        let labels_only = choices.output == Answer::Label;
        SplitOptions {
            goal,
            input_bits,
            shape,
            labels_only,
            gateway_layers,
            shared,
            placement,
            scale,
            mean,
            std,
            ..self
        }
    }

    /// Refuses what makes no sense for any network.
    pub(super) fn check(&self) -> Result<(), Error> {
        let agreement = self.goal.agreement;
        if !(0.0..=1.0).contains(&agreement) {
            return Err(Error::Usage(format!("--agreement {agreement}: give a part from 0 to 1")));
        }
        Ok(())
    }
}
