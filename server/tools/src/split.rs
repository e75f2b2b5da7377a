//! From an ONNX file to one model file for each server, and the file that a device needs (`deployment`), which may name
//! several models (`join`).

mod deployment;
mod join;
mod options;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng as _;
use seco_model::graph::Last;
use seco_model::numbers::{Chosen, Fidelity, Goal, fewest_input_bits};
use seco_model::real::{Real, RealOp};
use seco_model::{
    Architecture, Graph, ImportOptions, Imported, InputSpec, Normalisation, Placement, Reals, SumWidth,
    Warning, WidthRule,
};
use seco_node::{keys, private};
use seco_sdk::shape;

pub(crate) use self::deployment::class_names;
pub use self::deployment::{DeploymentOptions, FileOptions, check_new, deployment};
pub use self::join::{JoinOptions, Named, join};
pub use self::options::{Answer, Choices, SplitOptions, Width};
use crate::samples::Inputs;
use crate::terminal::percent;
use crate::{Error, check, init, placement, samples};

/// What came out; shown, it lists the layers.
pub struct Split {
    /// `server-0.seco`, `server-1.seco`, ...: secret, each for its server only.
    pub files: Vec<PathBuf>,
    /// What all servers know.
    pub architecture: Architecture,
    /// The whole network, in clear, and how its numbers were chosen.
    pub imported: Imported,
    /// What was asked of them.
    pub goal: Goal,
    /// Name of the model and its split.
    pub model_id: [u8; 32],
}

/// Reads the network and chooses its numbers: the whole model in clear.
pub fn import(options: &SplitOptions) -> Result<Imported, Error> {
    import_of(options, &mut samples::values(&options.calibrate, options.input_bits)?)
}

/// [`import`] with what the file of inputs holds, which is fitted to the network.
pub(crate) fn import_of(options: &SplitOptions, inputs: &mut Inputs) -> Result<Imported, Error> {
    choose(network(options, inputs.unknown())?, options, inputs)
}

/// The network over the reals, whose input values stand for these numbers.
fn network(options: &SplitOptions, reals: Option<Reals>) -> Result<(Real, ImportOptions), Error> {
    let path = &options.model;
    options.check()?;
    let onnx = fs::read(path).map_err(|e| Error::read(path, e))?;
    let reading = reading(options, reals);
    let mut real = seco_model::read(&onnx, &reading).map_err(|e| bad(path, &e))?;
    if options.labels_only {
        label(&mut real)?;
    }
    // Said now, not after the search for numbers.
    let layers = real.nodes.iter().filter(|node| matches!(node.op, RealOp::Linear(_)));
    placement::placements(&layers.map(|node| node.origin.name.as_str()).collect::<Vec<_>>(), options)?;
    Ok((real, reading))
}

/// How a network's file is read, whose input values stand for these numbers.
pub(crate) fn reading(options: &SplitOptions, reals: Option<Reals>) -> ImportOptions {
    let SplitOptions { model: path, input_bits, scale, mean, std, shape: given, .. } = options;
    let largest = SplitOptions::scale_of(*input_bits);
    let scale = scale.unwrap_or(if reals.is_some() { 1.0 } else { largest });
    ImportOptions {
        normalisation: Normalisation { scale, mean: mean.clone(), std: std.clone() },
        input_bits: *input_bits,
        reals,
        shape: (!given.is_empty()).then(|| given.clone()),
        folder: path.parent().map(Path::to_owned),
    }
}

/// The network with its numbers, which these inputs choose.
fn choose(
    (mut real, mut reading): (Real, ImportOptions),
    options: &SplitOptions,
    inputs: &mut Inputs,
) -> Result<Imported, Error> {
    let SplitOptions { model: path, calibrate, goal, .. } = options;
    let (shape, bits) = (real.input.clone(), options.input_bits);
    if let Some(one) = inputs.fit(&shape, bits, false)? {
        // Its layers take in what values stand for. One network at a time: they are large.
        drop(real);
        (real, reading) = network(options, Some(one.clone()))?;
        // Features of other sizes than the others' need steps of their own; where even those are not fine enough one is
        // simpler.
        if Inputs::may_differ(&shape) && !fine_enough(&real, &reading, options, inputs)? {
            drop(real);
            (real, reading) = network(options, inputs.fit(&shape, bits, true)?)?;
            if !fine_enough(&real, &reading, options, inputs)? {
                inputs.fit(&shape, bits, false)?;
                drop(real);
                (real, reading) = network(options, Some(one))?;
            }
        }
    }
    let wrong = |what: String| Error::Model { path: calibrate.clone(), what };
    match shape::inputs(&real.input, &inputs.axes) {
        Ok(0) => return Err(wrong("has no inputs: give some that are typical".to_owned())),
        Ok(_) => {}
        Err(mismatch) => return Err(wrong(mismatch.to_string())),
    }
    // Mistakes were told before; what nobody has a place for is nobody's secret.
    let clear = |layers: &[&str]| match placement::placements(layers, options) {
        Ok(placements) => placements.iter().map(|place| matches!(place, Placement::Held(_))).collect(),
        Err(_) => vec![true; layers.len()],
    };
    Imported::new(real, &reading, inputs.given(), goal, &clear).map_err(|e| match e {
        seco_model::Error::Width { layer, needed } => {
            Error::Model { path: path.clone(), what: too_wide(&layer, needed, goal) }
        }
        e @ seco_model::Error::Input(_) => bad(calibrate, &e),
        e => bad(path, &e),
    })
}

/// Whether the float network's answers stay as near as is asked for when its real numbers are rounded to values.
fn fine_enough(
    real: &Real,
    reading: &ImportOptions,
    options: &SplitOptions,
    inputs: &Inputs,
) -> Result<bool, Error> {
    let bits = options.input_bits;
    let spec = InputSpec { reals: reading.reals.clone(), ..InputSpec::new(real.input.clone(), bits) };
    let samples = inputs.given().each(&spec).map_err(|e| bad(&options.calibrate, &e))?;
    let fewest = fewest_input_bits(real, &spec, &samples, &options.goal, bits..bits + 1);
    Ok(fewest.map_err(|e| bad(&options.model, &e))? == bits)
}

/// Makes labels of all answers.
pub(crate) fn label(real: &mut Real) -> Result<(), Error> {
    for output in &mut real.outputs {
        if output.last != Last::Index && output.shape.iter().all(|&size| size <= 1) {
            return Err(Error::Usage(format!(
                "--output label: output {} is a single number, and its index is always 0: leave it out, and devices get \
                 the number",
                output.name
            )));
        }
        output.last = Last::Index;
    }
    Ok(())
}

/// A sum that no ring is wide enough for, and what its owner can do.
fn too_wide(layer: &str, needed: u32, goal: &Goal) -> String {
    let remedy = match (goal.width, goal.weight_bits, goal.activation_bits) {
        (WidthRule::Worst, ..) => "leave out --width worst",
        (_, None, None) => {
            "give few --weight-bits and --activation-bits, say 5 and 5, or train it with smaller weights"
        }
        _ => "give fewer --weight-bits or --activation-bits",
    };
    format!("layer {layer} needs {needed} bits for its sums, and there are 32 at most: {remedy}")
}

/// Imports, splits and writes. Existing files are not overwritten: every split is another one, and
/// half of an old one is of no use.
pub fn split(options: &SplitOptions) -> Result<Split, Error> {
    new_files(options)?;
    deal(import(options)?, options)
}

/// The files of the parts, none of which exists.
fn new_files(options: &SplitOptions) -> Result<Vec<PathBuf>, Error> {
    let files = init::part_files(&options.out, options.servers)?;
    if let Some(path) = files.iter().find(|p| p.exists()) {
        return Err(Error::Exists { path: path.clone(), remedy: "choose another --out, or remove it" });
    }
    Ok(files)
}

/// Splits a network that was imported and writes its parts.
pub fn deal(imported: Imported, options: &SplitOptions) -> Result<Split, Error> {
    let SplitOptions { servers, out, .. } = options;
    let model = &imported.chosen.model;
    let names: Vec<&str> = model.graph.layers().map(|layer| layer.name).collect();
    let placements = placement::placements(&names, options)?;
    let seed = keys::secret()?;
    let parts = seco_model::split(model, *servers, &placements, &mut ChaCha20Rng::from_seed(*seed))
        .map_err(|e| bad(&options.model, &e))?;

    fs::create_dir_all(out).map_err(|e| Error::write(out, e))?;
    let files = new_files(options)?;
    for (part, path) in parts.iter().zip(&files) {
        let bytes = part.to_bytes().map_err(|e| bad(path, &e))?;
        private::create(path, &bytes, private::SECRET)?;
    }
    let first = parts.first().ok_or_else(|| Error::Usage("--servers must be at least 2".to_owned()))?;
    let (architecture, model_id) = (first.architecture().clone(), *first.id());
    Ok(Split { files, architecture, imported, goal: options.goal.clone(), model_id })
}

impl Split {
    fn chosen(&self) -> &Chosen {
        &self.imported.chosen
    }

    /// What may make answers wrong and how to prevent it, a line each.
    pub fn warnings(&self) -> Vec<String> {
        let chosen = self.chosen();
        warnings(chosen, &chosen.fidelity, chosen.reached, &self.goal)
    }

    /// All of [`Split::warnings`] in one short line, if there are any.
    pub fn warning(&self) -> Option<String> {
        let warnings = self.chosen().calibration.warnings();
        let calibration: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        let mut all = Vec::new();
        if !calibration.is_empty() {
            all.push(format!(
                "calibrated on {}: other inputs may get wrong answers (--width worst rules that out)",
                calibration.join("; ")
            ));
        }
        let Chosen { model, fidelity, reached, .. } = self.chosen();
        all.extend(unfaithful(&model.graph, fidelity, *reached, &self.goal));
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// What may make answers wrong and how to prevent it, a line each: a poor calibration, and answers that are not the
/// float network's as far as `found` says.
pub(crate) fn warnings(chosen: &Chosen, found: &Fidelity, reached: bool, goal: &Goal) -> Vec<String> {
    let line = |warning: &Warning| {
        let remedy = match warning {
            Warning::FewInputs(_) => "give a hundred or so, typical and extreme ones",
            Warning::OneValue(_) | Warning::Alike => "give inputs that differ as real ones do",
            Warning::Narrow { .. } => {
                "values beyond may get wrong answers, of which devices are told (outside_calibration); give inputs with \
                 all values that occur"
            }
        };
        format!("calibrated on {warning}: {remedy}, or --width worst")
    };
    let unfaithful = unfaithful(&chosen.model.graph, found, reached, goal);
    chosen.calibration.warnings().iter().map(line).chain(unfaithful).collect()
}

/// That the answers are not as near to the float network's as was asked for.
fn unfaithful(graph: &Graph, found: &Fidelity, reached: bool, goal: &Goal) -> Option<String> {
    (!reached).then(|| {
        let within = match labels_alone(graph) {
            true => String::new(),
            false => format!(" within {}", percent(goal.error)),
        };
        format!(
            "{}, and {} of the labels{within} were asked for: check the normalisation (--scale, --mean, --std), give \
             more {}--weight-bits and --activation-bits, or ask for less (--agreement)",
            agreement(graph, found),
            percent(goal.agreement),
            // What rounding to these loses counts where they stand for other numbers.
            if graph.input.reals.is_some() { "--input-bits, " } else { "" }
        )
    })
}

/// Whether labels are all that is answered, and nothing that could be more or less near.
pub(crate) fn labels_alone(graph: &Graph) -> bool {
    graph.outputs.iter().all(|output| output.last == Last::Index)
}

/// How near answers are to the float network's, in words.
fn agreement(graph: &Graph, found: &Fidelity) -> String {
    let &Fidelity { inputs, same, error, .. } = found;
    let inputs = if inputs == 1 { "1 input".to_owned() } else { format!("{inputs} inputs") };
    let labels = format!("labels as the float network's for {same} of {inputs}");
    match labels_alone(graph) {
        true => labels,
        false => format!("{labels}, logits within {:.2}% of its largest", error * 100.0),
    }
}

/// How much more than the calibration a sum's width can take.
fn headroom(sum: &SumWidth, input_bits: u32) -> String {
    let bits = |count: u32| if count == 1 { "1 bit".to_owned() } else { format!("{count} bits") };
    let SumWidth { calibrated, worst, width, .. } = sum;
    let over = format!("headroom {} over the calibration", bits(sum.headroom()));
    match sum.is_safe() {
        true if width > calibrated => {
            let more = bits(width - calibrated);
            format!("{over}; chosen for the worst case of {input_bits}-bit inputs, which costs {more}")
        }
        true => format!("{over}; enough for the worst case of {input_bits}-bit inputs"),
        false if sum.clamped && width >= worst => {
            format!("{over}; what goes far below the calibration's least is cut off")
        }
        false => format!("{over}; the worst case of {input_bits}-bit inputs needs {worst} bits"),
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Chosen { precision, calibration, .. } = self.chosen();
        for (layer, placement) in self.architecture.graph.layers().zip(&self.architecture.placements) {
            let holders: Vec<String> = placement.holders().iter().map(ToString::to_string).collect();
            let how = match placement {
                Placement::Held(_) => "held by server",
                Placement::Shared(_) => "shared by servers",
            };
            let (inputs, outputs) = (layer.geometry.inputs(), layer.geometry.outputs());
            writeln!(f, "{}: {inputs} -> {outputs} values, {how} {}", layer.name, holders.join(", "))?;
        }
        for sum in &calibration.sums {
            writeln!(f, "sums of {}: {} bits", sum.name, sum.width)?;
            writeln!(f, "  {}", headroom(sum, calibration.bits))?;
        }
        let (weights, activations) = (precision.weight, precision.activation);
        writeln!(f, "weights of {weights} bits and a sign, activations of {activations} bits")?;
        if let Some(told) = samples::told(&self.architecture.graph.input) {
            writeln!(f, "inputs are {told}")?;
        }
        let Chosen { model, fidelity, .. } = self.chosen();
        writeln!(f, "  {}", agreement(&model.graph, fidelity))?;
        if let Some(cost) = check::short(&self.architecture) {
            writeln!(f, "{cost}")?;
        }
        for (index, file) in self.files.iter().enumerate() {
            writeln!(f, "secret, for server {index} only: {}", file.display())?;
        }
        writeln!(f, "model {}", keys::to_hex(&self.model_id))
    }
}

pub(crate) fn bad(path: &Path, error: &seco_model::Error) -> Error {
    Error::Model { path: path.to_owned(), what: error.to_string() }
}

#[cfg(test)]
mod tests {
    use seco_node::service::part::{model_info, read_part};
    use seco_sdk::{Deployment, Quantise};

    use super::*;

    fn options(out: &Path) -> SplitOptions {
        let data = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("../data").join(name);
        let (model, digits) = (data("mlp-digits.onnx"), data("mlp-digits-20.npy"));
        SplitOptions { scale: Some(16.0), ..SplitOptions::new(model, digits, 3, out.join("model")) }
    }

    #[test]
    fn a_network_becomes_files_and_a_deployment() {
        let dir = tempfile::tempdir().unwrap();
        let made = split(&options(dir.path())).unwrap();
        let parts: Vec<_> = made.files.iter().map(|f| read_part(f).unwrap()).collect();
        for (index, part) in parts.iter().enumerate() {
            assert_eq!((part.index(), part.id()), (index, &made.model_id));
            assert_eq!(part.layer(0).is_some(), index == 0);
            assert_eq!(part.layer(1).is_some(), index != 0);
        }
        let shown = made.to_string();
        assert!(shown.contains("held by server 0") && shown.contains("shared by servers 1, 2"), "{shown}");
        assert!(split(&options(dir.path())).is_err_and(|e| e.to_string().contains("exists already")));

        let keys: Vec<_> = (0..3).map(|i| keys::generate(dir.path(), &format!("s{i}")).unwrap()).collect();
        let mut asked = DeploymentOptions::new(
            "127.0.0.1:7443".to_owned(),
            &keys,
            made.files[1].clone(),
            dir.path().join("deployment.toml"),
        );
        let written = deployment(&asked).unwrap();
        assert_eq!(Deployment::from_file(&asked.file.out).unwrap(), written);
        assert_eq!(written.model_info().unwrap(), model_info(&parts[0]));
        assert_eq!(written.servers[2].name, "s2");
        let told = |asked: &DeploymentOptions| deployment(asked).unwrap_err().to_string();
        assert!(told(&asked).contains("deployment.toml: exists already"), "{}", told(&asked));
        asked.file.force = true;
        for address in ["localhost:7443", "nowhere.invalid:7443", "[2001:db8::7]:7443"] {
            asked.address = address.to_owned();
            assert_eq!(deployment(&asked).unwrap().gateway.address.as_str(), address);
            assert_eq!(Deployment::from_file(&asked.file.out).unwrap().gateway.address.as_str(), address);
        }
        for (address, part) in [
            ("nowhere", "\"nowhere\" is not a host name or IP address and a port"),
            ("nowhere:0", "is not a host name"),
            (":7443", "is not a host name"),
            ("no where:7443", "is not a host name"),
            ("0.0.0.0:7443", "devices can send to"),
            ("[::]:7443", "devices can send to"),
        ] {
            asked.address = address.to_owned();
            assert!(told(&asked).contains(part), "{}", told(&asked));
        }
        asked.address = "127.0.0.1:7443".to_owned();
        for (scale, offset, written) in [
            (&[0.5][..], &[][..], Some((&[0.5][..], &[0.0][..]))),
            (&[0.25], &[-1.5], Some((&[0.25], &[-1.5]))),
            (&[], &[], None),
        ] {
            (asked.real_scale, asked.real_offset) = (scale.to_vec(), offset.to_vec());
            let told = deployment(&asked).unwrap().model.quantise;
            let expected =
                written.map(|(scale, offset)| Quantise { scale: scale.to_vec(), offset: offset.to_vec() });
            assert_eq!(told, expected);
            assert_eq!(Deployment::from_file(&asked.file.out).unwrap().model.quantise, expected);
        }
        let before = fs::read(&asked.file.out).unwrap();
        for (scale, offset, part) in [
            (&[][..], &[1.0][..], "--real-offset needs --real-scale"),
            (&[0.5, 0.5], &[], "scale and offset have one number each, or one per channel"),
            (&[0.0], &[], "a scale is not a positive number"),
            (&[1.0], &[f64::NAN], "an offset is not a finite number"),
        ] {
            (asked.real_scale, asked.real_offset) = (scale.to_vec(), offset.to_vec());
            assert!(told(&asked).contains(part), "{}", told(&asked));
        }
        assert_eq!(fs::read(&asked.file.out).unwrap(), before);
        (asked.real_scale, asked.real_offset) = Default::default();
        asked.sealing_keys.pop();
        assert!(told(&asked).contains("2 --sealing-key"));
    }

    /// An array in NumPy's format.
    fn array(path: &Path, kind: &str, shape: &str, content: &[u8]) {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        fs::write(path, [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), content].concat()).unwrap();
    }

    /// One of 32-bit floats.
    fn floats(path: &Path, shape: &str, numbers: &[f32]) {
        let content: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        array(path, "<f4", shape, &content);
    }

    /// A network's own numbers choose what input values stand for; the parts have it, and devices are told.
    #[test]
    fn real_numbers_are_inputs() {
        let dir = tempfile::tempdir().unwrap();
        let digits = fs::read(options(dir.path()).calibrate).unwrap();
        let (_, digits) = seco_model::npy::read_u8(&digits).unwrap();
        let numbers: Vec<f32> = digits.iter().map(|&value| f32::from(value) / 16.0).collect();
        let path = dir.path().join("floats.npy");
        floats(&path, "(20, 64)", &numbers);
        let asked = SplitOptions { scale: None, calibrate: path.clone(), ..options(dir.path()) };
        let made = split(&asked).unwrap();
        let chosen = made.chosen();
        assert!(chosen.reached && chosen.fidelity.inputs == 20, "{:?}", chosen.fidelity);
        let input = &made.architecture.graph.input;
        let reals = Reals { scale: vec![1.0 / 255.0], offset: vec![0.0] };
        assert_eq!((input.reals.as_ref(), input.bits), (Some(&reals), 8), "one for all is enough");
        assert!(made.to_string().contains("inputs are real numbers from 0 to 1,"), "{made}");
        for file in &made.files {
            assert_eq!(read_part(file).unwrap().architecture().graph.input, *input);
        }

        let keys: Vec<_> = (0..3).map(|i| keys::generate(dir.path(), &format!("s{i}")).unwrap()).collect();
        let mut told = DeploymentOptions::new(
            "127.0.0.1:7443".to_owned(),
            &keys,
            made.files[0].clone(),
            dir.path().join("deployment.toml"),
        );
        let written = deployment(&told).unwrap();
        let Reals { scale, offset } = reals;
        assert_eq!(written.model.quantise, Some(Quantise { scale, offset }));
        // What a device makes of the numbers is what chose the model's.
        let device = written.model.quantised(&numbers[..64]).unwrap();
        assert!(!device.cut && written.model.quantised(&[2.0f32; 64]).unwrap().cut);
        (told.real_scale, told.file.force) = (vec![0.5], true);
        let error = deployment(&told).unwrap_err().to_string();
        assert!(error.contains("says itself what its values stand for"), "{error}");

        // A bit is too little, which is told; the numbers' axes and their being numbers are checked.
        let coarse = import(&SplitOptions { input_bits: 1, ..asked.clone() }).unwrap();
        assert!(!coarse.chosen.reached && coarse.chosen.fidelity.error > 0.01);
        for (shape, spoilt, part) in [
            ("(10, 128)", None, "128 instead of 64"),
            ("(20, 64)", Some(f32::NAN), "number 7 of it is not finite"),
            ("(20, 64)", Some(f32::INFINITY), "number 7 of it is not finite"),
        ] {
            let mut numbers = numbers.clone();
            spoilt.iter().for_each(|spoilt| numbers[7] = *spoilt);
            floats(&path, shape, &numbers);
            let error = import(&asked).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let mut doubles: Vec<f64> = numbers.iter().copied().map(f64::from).collect();
        doubles[7] = 1e39;
        let content: Vec<u8> = doubles.iter().flat_map(|number| number.to_le_bytes()).collect();
        array(&path, "<f8", "(20, 64)", &content);
        let error = import(&asked).unwrap_err().to_string();
        assert!(error.contains("number 7 of it is not finite, or no 32-bit float"), "{error}");
    }

    /// Features in units of their own have steps of their own, and one that never changes is told if it does.
    #[test]
    fn features_of_other_sizes_have_steps_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let digits = fs::read(options(dir.path()).calibrate).unwrap();
        let (_, digits) = seco_model::npy::read_u8(&digits).unwrap();
        let (mean, std): (Vec<f64>, Vec<f64>) =
            (0..64).map(|i| (f64::from(i) - 9.0, 10f64.powi(i % 5 - 2))).unzip();
        let number =
            |(at, &value): (usize, &u8)| (f64::from(value) / 16.0 * std[at % 64] + mean[at % 64]) as f32;
        let numbers: Vec<f32> = digits.iter().enumerate().map(number).collect();
        let path = dir.path().join("floats.npy");
        floats(&path, "(20, 64)", &numbers);
        let asked = SplitOptions {
            scale: None,
            calibrate: path,
            input_bits: 10,
            mean: mean.clone(),
            std: std.clone(),
            ..options(dir.path())
        };
        let made = split(&asked).unwrap();
        assert!(made.chosen().reached, "{:?}", made.chosen().fidelity);
        let Reals { scale, offset } = made.architecture.graph.input.reals.clone().unwrap();
        assert_eq!((scale.len(), offset.len()), (64, 64));
        let mut constant = None;
        for feature in 0..64 {
            let all = || numbers.iter().skip(feature).step_by(64).copied().map(f64::from);
            let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(f64::MIN, f64::max));
            assert!(offset[feature] <= least && offset[feature] + 1023.0 * scale[feature] >= most);
            match most > least {
                true => assert!(scale[feature] * 1023.0 < 1.3 * (most - least), "{feature}"),
                false => constant = Some(feature),
            }
        }
        let constant = constant.unwrap();
        assert!(made.to_string().contains("inputs are 64 real numbers"), "{made}");
        let keys: Vec<_> = (0..3).map(|i| keys::generate(dir.path(), &format!("s{i}")).unwrap()).collect();
        let out = dir.path().join("deployment.toml");
        let told = DeploymentOptions::new("127.0.0.1:7443".to_owned(), &keys, made.files[0].clone(), out);
        let device = deployment(&told).unwrap().model;
        let mut first = numbers[..64].to_vec();
        assert!(!device.quantised(&first).unwrap().cut);
        first[constant] += (0.01 * std[constant]) as f32;
        assert!(device.quantised(&first).unwrap().cut);
    }

    #[test]
    fn headroom_is_told_as_it_is() {
        let sum = |calibrated, worst, width, clamped| {
            let sum =
                SumWidth { name: "a".to_owned(), value: 1, used: 10, calibrated, worst, width, clamped };
            headroom(&sum, 8)
        };
        for (told, expected) in [
            (
                sum(11, 14, 11, false),
                "headroom 1 bit over the calibration; the worst case of 8-bit inputs needs 14 bits",
            ),
            (
                sum(11, 14, 12, true),
                "headroom 2 bits over the calibration; the worst case of 8-bit inputs needs 14 bits",
            ),
            (
                sum(11, 11, 11, false),
                "headroom 1 bit over the calibration; enough for the worst case of 8-bit inputs",
            ),
            (
                sum(11, 13, 13, false),
                "headroom 3 bits over the calibration; chosen for the worst case of 8-bit inputs, which costs 2 bits",
            ),
            (
                sum(11, 13, 13, true),
                "headroom 3 bits over the calibration; what goes far below the calibration's least is cut off",
            ),
        ] {
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn mistakes_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let good = options(dir.path());
        let fails = |change: &dyn Fn(&mut SplitOptions), part: &str| {
            let mut options = good.clone();
            change(&mut options);
            let text = split(&options).err().unwrap().to_string();
            assert!(text.contains(part) && text.lines().count() == 1, "{text}");
        };
        fails(&|o| o.model = o.calibrate.clone(), "mlp-digits-20.npy");
        fails(&|o| o.calibrate = o.model.clone(), "mlp-digits.onnx");
        fails(&|o| o.calibrate = "absent.npy".into(), "absent.npy: cannot be read");
        fails(&|o| o.servers = 1, "servers");
        fails(&|o| o.servers = 9, "servers");
        fails(&|o| o.gateway_layers = 99, "the model has");
        fails(&|o| o.scale = Some(0.0), "mlp-digits.onnx");
    }
}
