//! Networks and their inputs: bundled ones, or files of the user.

use std::fs;
use std::path::{Path, PathBuf};

use seco_model::numbers::{Goal, Samples as Given};
use seco_model::{InputSpec, Reals, WidthRule, npy};
use seco_sdk::{Quantise, shape};

use crate::Error;
use crate::split::{SplitOptions, Width};

/// Networks that come with the binary, with 20 digits each.
struct Bundled {
    name: &'static str,
    network: &'static [u8],
    inputs: &'static [u8],
    labels: &'static [u8],
    /// The network sees `byte / scale`.
    scale: f64,
}

/// MiniONN's network (the one of the paper) for MNIST, and a small perceptron for 8x8 digits.
static BUNDLED: [Bundled; 2] = [
    Bundled {
        name: "minionn",
        network: include_bytes!("../../data/minionn-mnist.onnx"),
        inputs: include_bytes!("../../data/minionn-digits-20.npy"),
        labels: include_bytes!("../../data/minionn-labels-20.npy"),
        scale: 255.0,
    },
    Bundled {
        name: "mlp",
        network: include_bytes!("../../data/mlp-digits.onnx"),
        inputs: include_bytes!("../../data/mlp-digits-20.npy"),
        labels: include_bytes!("../../data/mlp-labels-20.npy"),
        scale: 16.0,
    },
];

/// Inferences when `--count` does not say: all bundled samples.
const DEFAULT_COUNT: usize = 20;

/// Which network, and what it is asked about.
#[derive(Clone, Debug, clap::Args)]
pub struct Network {
    /// The network: minionn or mlp, which come with it, or an ONNX file.
    #[arg(long, value_name = "minionn|mlp|FILE.onnx", default_value = "minionn")]
    pub model: PathBuf,
    /// Inputs instead of the bundled ones: uint8, first axis the samples. They also calibrate the
    /// widths of the network's numbers.
    #[arg(long, value_name = "FILE.npy")]
    pub input: Option<PathBuf>,
    /// The network sees each byte divided by this [default: 255, for mlp 16].
    #[arg(long, value_name = "D")]
    pub scale: Option<f64>,
    /// Bits of the layers' sums: what the inputs need, or what any inputs need [default: the former,
    /// or the latter where it costs at most two bits more].
    #[arg(long, value_enum)]
    pub width: Option<Width>,
    /// Then (x - mean) / std: one value for each channel.
    #[arg(long, value_delimiter = ',', requires = "std")]
    pub mean: Vec<f64>,
    /// See --mean.
    #[arg(long, value_delimiter = ',', requires = "mean")]
    pub std: Vec<f64>,
}

/// What the demo predicts from.
pub struct Samples {
    /// Name of the network.
    pub name: String,
    /// Whether it is the network that the paper measured.
    pub paper: bool,
    /// The ONNX file.
    pub network: PathBuf,
    /// The inputs' file, which also calibrates the widths.
    pub input: PathBuf,
    /// The network sees `byte / scale`.
    pub scale: f64,
    /// Which widths the layers get.
    pub width: WidthRule,
    /// Then `(x - mean) / std`, for each channel; empty for none.
    pub mean: Vec<f64>,
    /// See `mean`.
    pub std: Vec<f64>,
    /// Number of inferences.
    pub count: usize,
    /// Shape of one input.
    pub shape: Vec<usize>,
    values: Vec<u8>,
    labels: Option<Vec<u8>>,
}

impl Samples {
    /// Reads what the options name; bundled files go to `folder`, for they are used as files. `labels` are of the
    /// user's inputs; without a `count`, all samples up to 20 are taken.
    pub fn load(
        options: &Network,
        labels: Option<&Path>,
        count: Option<usize>,
        folder: &Path,
    ) -> Result<Samples, Error> {
        let bundled = BUNDLED.iter().find(|b| Path::new(b.name) == options.model);
        let (name, network, scale) = match bundled {
            Some(b) => (b.name.to_owned(), store(folder, "network.onnx", b.network)?, b.scale),
            None if options.model.extension().is_some_and(|e| e == "onnx") => {
                let name = options.model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                (name, options.model.clone(), 255.0)
            }
            None => {
                return Err(Error::Usage(format!(
                    "--model {}: give minionn, mlp, or a file that ends in .onnx",
                    options.model.display()
                )));
            }
        };
        let (input, labels) = match (&options.input, bundled) {
            (Some(input), _) => (input.clone(), labels.map(Path::to_owned)),
            (None, Some(_)) if labels.is_some() => {
                return Err(Error::Usage("--labels needs the --input that they belong to".to_owned()));
            }
            (None, Some(b)) => {
                (store(folder, "input.npy", b.inputs)?, Some(store(folder, "labels.npy", b.labels)?))
            }
            (None, None) => {
                return Err(Error::Usage(format!(
                    "--model {name}: needs --input FILE.npy",
                    name = network.display()
                )));
            }
        };

        let (values, mut shape) = inputs(&input)?;
        let available = shape.remove(0);
        let count = count.unwrap_or(DEFAULT_COUNT.min(available));
        if count == 0 || count > available {
            let what = format!("has {available} samples; --count {count} is not from 1 to {available}");
            return Err(Error::Model { path: input, what });
        }
        let labels = labels.map(|path| read_labels(&path, available)).transpose()?;
        Ok(Samples {
            paper: name == "minionn" && bundled.is_some(),
            name,
            network,
            input,
            scale: options.scale.unwrap_or(scale),
            width: Width::rule(options.width),
            mean: options.mean.clone(),
            std: options.std.clone(),
            count,
            shape,
            values,
            labels,
        })
    }

    /// The split of it among so many servers, into a folder.
    pub fn task(&self, servers: usize, out: PathBuf) -> SplitOptions {
        SplitOptions {
            goal: Goal { width: self.width, ..Goal::default() },
            scale: Some(self.scale),
            mean: self.mean.clone(),
            std: self.std.clone(),
            ..SplitOptions::new(&self.network, &self.input, servers, out)
        }
    }

    /// What is known once the network is read: the shape of its inputs, which these were found to fit, and how many
    /// outputs it has. One is a value, and no label says whether it is right.
    pub fn serve(&mut self, shape: &[usize], outputs: usize) {
        self.shape = shape.to_vec();
        self.labels = self.labels.take().filter(|_| outputs > 1);
    }

    /// One input.
    pub fn get(&self, index: usize) -> &[u8] {
        let size = self.shape.iter().product::<usize>();
        self.values.chunks_exact(size.max(1)).nth(index).unwrap_or_default()
    }

    /// Its label, if known.
    pub fn label(&self, index: usize) -> Option<usize> {
        self.labels.as_ref()?.get(index).copied().map(usize::from)
    }
}

/// Reads inputs of a network: values of all samples, and the array's shape, the first axis counting the samples.
/// Whether the others are the network's is to be seen once that is known.
pub fn inputs(path: &Path) -> Result<(Vec<u8>, Vec<usize>), Error> {
    let (shape, values) = array(path)?;
    if shape.is_empty() || values.is_empty() {
        return Err(Error::Model { path: path.to_owned(), what: no_inputs(&shape) });
    }
    Ok((values, shape))
}

/// Inputs that choose a network's numbers.
pub(crate) struct Inputs {
    path: PathBuf,
    /// The array's shape: the first axis counts them.
    pub axes: Vec<usize>,
    /// All of them as devices send them, two bytes for each value of more than 8 bits ([`seco_model::InputSpec`]).
    bytes: Vec<u8>,
    /// Where they are real numbers, these.
    numbers: Option<Vec<f64>>,
}

impl Inputs {
    /// All of them, once they were [`Inputs::fit`].
    pub fn given(&self) -> Given<'_> {
        Given { bytes: &self.bytes, reals: self.numbers.as_deref() }
    }

    /// The first of them, of so many values.
    pub fn first(&self, len: usize) -> Given<'_> {
        let each = self.bytes.len() / self.axes.first().copied().unwrap_or(1).max(1);
        let reals = self.numbers.as_deref().map(|all| all.get(..len).unwrap_or(all));
        Given { bytes: self.bytes.get(..each).unwrap_or(&self.bytes), reals }
    }

    /// What values stand for before that is known, where they are real numbers.
    pub fn unknown(&self) -> Option<Reals> {
        self.numbers.as_ref().map(|_| Reals { scale: vec![1.0], offset: vec![0.0] })
    }

    /// Whether each place of an input of this shape may have steps of its own.
    pub fn may_differ(shape: &[usize]) -> bool {
        matches!(shape, [2..=FEATURES])
    }

    /// For a network with inputs of this shape, whose values have so many bits: chooses what these stand for, from the
    /// least to the largest of all numbers, or of `each` place by itself. Nothing where inputs are values.
    pub fn fit(&mut self, shape: &[usize], bits: u32, each: bool) -> Result<Option<Reals>, Error> {
        let Some(numbers) = &self.numbers else { return Ok(None) };
        let wrong = |what: String| Error::Model { path: self.path.clone(), what };
        shape::inputs(shape, &self.axes).map_err(|mismatch| wrong(mismatch.to_string()))?;
        let len = shape.iter().product::<usize>().max(1);
        let reals = steps(numbers, if each { len } else { 1 }, bits);
        // As a device does it.
        let device = seco_sdk::Model {
            name: None,
            id: seco_sdk::ModelId([0; 32]),
            input_shape: shape.to_vec(),
            input_bits: bits,
            calibrated: None,
            output_width: 2,
            fraction: None,
            quantise: Some(Quantise { scale: reals.scale.clone(), offset: reals.offset.clone() }),
            outputs: Vec::new(),
        };
        let mut bytes = Vec::with_capacity(numbers.len() * device.value_bytes());
        for input in numbers.chunks(len) {
            bytes.extend_from_slice(&device.quantised(input).map_err(|e| wrong(e.to_string()))?.bytes);
        }
        self.bytes = bytes;
        Ok(Some(reals))
    }
}

/// Steps from the least to the largest number of every `places`-th. Of many places each has seen less than all together, so
/// there is room for more at both ends: what lies there is told (`calibrated`), and not cut.
fn steps(numbers: &[f64], places: usize, bits: u32) -> Reals {
    let mut ranges = vec![(f64::INFINITY, f64::NEG_INFINITY); places];
    for (at, &number) in numbers.iter().enumerate() {
        if let Some((least, most)) = ranges.get_mut(at % places) {
            (*least, *most) = (least.min(number), most.max(number));
        }
    }
    let room = if places > 1 { ROOM } else { 0.0 };
    let count = SplitOptions::scale_of(bits);
    let step = |(least, most): &(f64, f64)| (most - least) * (1.0 + 2.0 * room) / count;
    let smallest = ranges.iter().map(step).filter(|step| step.is_normal()).reduce(f64::min).unwrap_or(0.0);
    let of_place = |range: &(f64, f64)| match (step(range), range.0) {
        (step, least) if step.is_normal() => (step, least - (range.1 - least) * room),
        // What never changes is as good as constant: the value in the middle, and steps so small that all else is beyond
        // the values, which is told; but for what 32-bit floats make of the number.
        (_, number) => {
            let step = (smallest / 1e6).max(number.abs() / 2f64.powi(22) / count).max(f64::MIN_POSITIVE);
            (step, number - step * (count / 2.0).floor())
        }
    };
    let (scale, offset) = ranges.iter().map(of_place).unzip();
    Reals { scale, offset }
}

/// Most features of a row that have steps of their own: the deployment file has them all.
const FEATURES: usize = 1024;
/// Room below the least and above the largest number of each, in parts of what lies between.
const ROOM: f64 = 0.125;

/// What input values stand for, in words; nothing where they are all there is.
pub(crate) fn told(input: &InputSpec) -> Option<String> {
    let (Reals { scale, offset }, bits) = (input.reals.as_ref()?, input.bits);
    let bits = if bits == 1 { "1 bit".to_owned() } else { format!("{bits} bits") };
    Some(match (scale.as_slice(), offset.as_slice()) {
        ([scale], [offset]) => {
            // As many digits as anybody wants to read.
            let most = offset + scale * f64::from(input.largest());
            format!("real numbers from {} to {}, in {bits} on the device", *offset as f32, most as f32)
        }
        (scales, _) => {
            format!("{} real numbers with steps of their own, each in {bits} on the device", scales.len())
        }
    })
}

/// Reads inputs of a network whose values have so many bits: integers (uint8, uint16) are values, other numbers real ones,
/// for which values are chosen by [`Inputs::fit`].
pub(crate) fn values(path: &Path, bits: u32) -> Result<Inputs, Error> {
    let wrong = |what: String| Error::Model { path: path.to_owned(), what };
    let file = fs::read(path).map_err(|e| Error::read(path, e))?;
    let inputs = |axes: Vec<usize>, bytes, numbers| {
        let path = path.to_owned();
        if axes.is_empty() || axes.contains(&0) {
            return Err(wrong(no_inputs(&axes)));
        }
        Ok(Inputs { path, axes, bytes, numbers })
    };
    let array = seco_sdk::npy::Array::read(&file).map_err(|e| wrong(e.to_string()))?;
    if !array.has_values() {
        let numbers = array.reals();
        // The network would see them divided by the largest, or as they are.
        let could_be_values = |number: &f64| (0.0..=u16::MAX.into()).contains(number);
        if array.has_integers() && numbers.iter().all(could_be_values) {
            let kind = if bits > u8::BITS { "uint16" } else { "uint8" };
            return Err(wrong(format!(
                "its integers could be input values (of which the network sees value / D) or numbers as the network sees \
                 them: convert it with astype(numpy.{kind}), if that holds them, or astype(numpy.float32)"
            )));
        }
        // Devices take 32-bit floats.
        if let Some(at) = numbers.iter().position(|&number| !(number as f32).is_finite()) {
            return Err(wrong(format!(
                "number {at} of it is not finite, or no 32-bit float: give typical inputs"
            )));
        }
        if let Some((first, rest)) = numbers.split_first()
            && rest.iter().all(|number| number == first)
        {
            return Err(wrong(format!(
                "all of its numbers are {first}: give inputs that differ as real ones do"
            )));
        }
        return inputs(array.axes().to_vec(), Vec::new(), Some(numbers));
    }
    let (axes, values) = npy::read_integers(&file).map_err(|e| wrong(e.to_string()))?;
    let most = values.iter().copied().max().unwrap_or_default();
    let needed = u16::BITS - most.leading_zeros();
    if needed > bits {
        return Err(wrong(format!(
            "has values up to {most}, which take {needed} bits, and the model's have {bits}: give --input-bits {needed}, or \
             smaller values"
        )));
    }
    let bytes = InputSpec::new(axes.clone(), bits).bytes(values);
    inputs(axes, bytes, None)
}

fn no_inputs(shape: &[usize]) -> String {
    format!(
        "has no inputs, its shape is {shape:?}: the first axis must count the samples, the others be the network's"
    )
}

pub(crate) fn read_labels(path: &Path, samples: usize) -> Result<Vec<u8>, Error> {
    let (shape, values) = array(path)?;
    if shape != [samples] {
        let what = format!("has shape {shape:?}; {samples} inputs need {samples} labels in one axis");
        return Err(Error::Model { path: path.to_owned(), what });
    }
    Ok(values)
}

fn array(path: &Path) -> Result<(Vec<usize>, Vec<u8>), Error> {
    let file = fs::read(path).map_err(|e| Error::read(path, e))?;
    npy::read_u8(&file).map_err(|e| Error::Model { path: path.to_owned(), what: e.to_string() })
}

fn store(folder: &Path, name: &str, content: &[u8]) -> Result<PathBuf, Error> {
    let path = folder.join(name);
    fs::write(&path, content).map_err(|e| Error::write(&path, e))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::steps;

    /// Of one row no feature is seen to change.
    #[test]
    fn one_row_has_steps_too() {
        let row = [0.001, 1000.0, -7.0, 0.0];
        let reals = steps(&row, row.len(), 8);
        for ((number, scale), offset) in row.into_iter().zip(reals.scale).zip(reals.offset) {
            assert!(scale.is_normal() && offset.is_finite(), "{number}: {scale}, {offset}");
            assert!(((number - offset) / scale - 127.0).abs() < 1e-3, "{number}: {scale}, {offset}");
        }
    }
}
