//! What `seco split` tells the model's owner: headroom, poor calibration, inputs of another shape.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files::{network, npy, values};
use seco_lab::onnx::{file, floats, integer, node};
use seco_model::numbers::Goal;
use seco_model::{Executor, WidthRule};
use seco_node::keys;
use seco_tools::split::{self, DeploymentOptions, SplitOptions};
use tempfile::TempDir;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// Standard output, standard error and success of a split in a folder of its own.
fn seco_split(model: &Path, calibrate: &Path, arguments: &[&str]) -> (String, String, bool) {
    let out = TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_seco"))
        .args(["split", "--servers", "3", "--model"])
        .arg(model)
        .arg("--calibrate")
        .arg(calibrate)
        .arg("--out")
        .arg(out.path().join("parts"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.success())
}

/// A network for inputs of shape [3, 6, 8], and an array to calibrate it with.
fn site(shape: &[usize], values: &[u8]) -> (TempDir, PathBuf, PathBuf) {
    let folder = TempDir::new().unwrap();
    let (model, array) = (folder.path().join("model.onnx"), folder.path().join("array.npy"));
    std::fs::write(&model, network([3, 6, 8], 3)).unwrap();
    std::fs::write(&array, npy(shape, values)).unwrap();
    (folder, model, array)
}

#[test]
fn every_sums_headroom_is_told() {
    let (model, digits) = (data("minionn-mnist.onnx"), data("minionn-digits-20.npy"));
    let (told, warnings, good) = seco_split(&model, &digits, &[]);
    assert!(good && warnings.is_empty(), "{warnings}");
    let count = |part: &str| told.lines().filter(|line| line.contains(part)).count();
    assert_eq!((count(" values, "), count("sums of "), count("  headroom ")), (4, 4, 4), "{told}");
    assert!(told.contains("the worst case of 8-bit inputs"), "{told}");
    assert!(told.contains("labels as the float network's for 20 of 20 inputs, logits within 0."), "{told}");
    assert!(told.lines().all(|line| line.len() <= 110), "{told}");

    let widths = |arguments: &[&str]| {
        let fixed = [arguments, &["--weight-bits=9", "--activation-bits=10"]].concat();
        let (told, warnings, good) = seco_split(&model, &digits, &fixed);
        assert!(good && warnings.is_empty(), "{warnings}");
        let bits =
            |line: &str| line.strip_prefix("sums of ")?.split(": ").nth(1)?.split(' ').next()?.parse().ok();
        told.lines().filter_map(bits).collect::<Vec<u32>>()
    };
    let [usual, calibrated, worst] =
        [widths(&[]), widths(&["--width", "calibrated"]), widths(&["--width", "worst"])];
    println!("{usual:?} {calibrated:?} {worst:?}");
    assert!(usual.iter().zip(&calibrated).all(|(u, c)| (*c..=c + 2).contains(u)));
    assert!(usual.iter().zip(&worst).all(|(u, w)| u <= w) && usual[3] < worst[3]);
}

#[test]
fn a_poor_calibration_is_warned_of() {
    let (model, digits) = (data("mlp-digits.onnx"), data("mlp-digits-20.npy"));
    let (_, narrow, good) = seco_split(&model, &digits, &["--scale", "16"]);
    assert!(good && narrow.contains("warning: calibrated on values from 0 to 16"), "{narrow}");
    assert_eq!(narrow.lines().count(), 1, "{narrow}");
    let folder = TempDir::new().unwrap();
    let black = folder.path().join("black.npy");
    std::fs::write(&black, npy(&[1, 64], &[0; 64])).unwrap();
    let (_, told, good) = seco_split(&model, &black, &["--scale=16"]);
    assert!(good && told.contains("1 input only") && told.contains("constant inputs"), "{told}");
    // With the worst case's widths nothing depends on it.
    let (_, told, good) = seco_split(&model, &black, &["--scale=16", "--width=worst"]);
    assert!(good && told.is_empty(), "{told}");
}

#[test]
fn arrays_of_another_shape_are_refused_axis_by_axis() {
    let ten = values(10 * 144, 255);
    for (shape, good) in [
        (&[10, 3, 6, 8][..], true),
        (&[10, 144], true),
        (&[10, 3, 6, 1, 8], true),
        (&[10, 6, 8, 3], false),
        (&[30, 6, 8], false),
        (&[20, 72], false),
        (&[1440], false),
        (&[1, 10, 144], false),
        (&[0, 3, 6, 8], false),
    ] {
        let count: usize = shape.iter().product();
        let (_folder, model, array) = site(shape, &ten[..count]);
        let (_, told, done) = seco_split(&model, &array, &[]);
        assert_eq!(done, good, "{shape:?}: {told}");
        if !good && count > 0 {
            assert!(told.contains("array.npy") && told.contains("the model takes (N, 3, 6, 8)"), "{told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
    }
    let (_folder, model, array) = site(&[10, 6, 8, 3], &ten);
    let (_, told, _) = seco_split(&model, &array, &[]);
    assert!(told.contains("axis 1 is 6 instead of 3, axis 2 is 8 instead of 6, axis 3 is 3"), "{told}");
    assert!(told.contains("transpose(0, 3, 1, 2)"), "{told}");
}

/// Too few bits to be the float network: said, and mended by leaving the choice.
#[test]
fn answers_that_are_not_the_float_networks_are_warned_of() {
    let (_folder, model, array) = site(&[10, 144], &values(1440, 255));
    let (_, told, good) = seco_split(&model, &array, &["--weight-bits=2", "--width=worst"]);
    assert!(good && told.contains("logits within ") && told.contains("--weight-bits"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    let (_, told, good) = seco_split(&model, &array, &["--width=worst"]);
    assert!(good && told.is_empty(), "{told}");
}

/// Labels alone: nothing is said of numbers that nobody gets, and a single number has no label.
#[test]
fn labels_alone_are_judged_as_labels() {
    let (_folder, model, array) = site(&[10, 144], &values(1440, 255));
    let (told, warnings, good) = seco_split(&model, &array, &["--output=label", "--width=worst"]);
    assert!(good && warnings.is_empty(), "{warnings}");
    assert!(told.contains("labels as the float network's for 10 of 10 inputs\n"), "{told}");
    let rough =
        ["--output=label", "--weight-bits=2", "--activation-bits=2", "--agreement=1", "--width=worst"];
    let (told, warnings, good) = seco_split(&model, &array, &rough);
    assert!(good && warnings.contains("labels as the float network's for "), "{warnings}");
    assert!(!told.contains("logits") && !warnings.contains("logits"), "{told} {warnings}");

    let one = model.with_file_name("one.onnx");
    std::fs::write(&one, network([3, 6, 8], 1)).unwrap();
    let (_, told, good) = seco_split(&one, &array, &["--output=label"]);
    assert!(!good && told.contains("--output label: output y is a single number"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    let (_, told, good) = seco_split(&one, &array, &[]);
    assert!(good, "{told}");
}

/// What needs no search for numbers is told before it: with an array that nobody can use, which is read then.
#[test]
fn mistakes_are_told_before_the_work() {
    let (folder, model, array) = site(&[10, 145], &values(1450, 255));
    let placement = folder.path().join("p.toml");
    std::fs::write(&placement, "nothing = \"gateway\"").unwrap();
    let placement = format!("--placement={}", placement.display());
    for (arguments, part) in [
        (&["--agreement=1.01"][..], "--agreement 1.01: give a part from 0 to 1"),
        (&["--agreement=-0.1"], "give a part from 0 to 1"),
        (&["--agreement=NaN"], "give a part from 0 to 1"),
        (&["--shared=gateway"], "--shared: gateway cannot share"),
        (&["--shared=gateway,remote-3"], "there is no server \"remote-3\""),
        (&["--gateway-layers=3"], "the gateway cannot hold 3"),
        (&[&placement], "there is no layer \"nothing\": they are c, y"),
        (&[], "array.npy: the array has shape"),
    ] {
        let (told, errors, good) = seco_split(&model, &array, arguments);
        assert!(!good && told.is_empty() && errors.contains(part), "{part}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    let parts = folder.path().join("parts");
    std::fs::create_dir(&parts).unwrap();
    std::fs::write(parts.join("server-2.seco"), "").unwrap();
    let error = split::split(&SplitOptions::new(&model, &array, 3, &parts)).err().unwrap().to_string();
    assert!(error.contains("server-2.seco: exists already"), "{error}");
}

/// What is wrong with the network is not put down to the inputs.
#[test]
fn the_model_is_blamed_for_what_is_its_own() {
    let (_folder, model, array) = site(&[10, 144], &values(1440, 255));
    let (_, told, good) = seco_split(&model, &array, &["--scale=1e-306"]);
    assert!(!good && told.contains("model.onnx: ") && !told.contains("array.npy"), "{told}");
    assert!(told.contains("are not numbers"), "{told}");
}

/// A sum that no ring holds is refused with the option that helps.
#[test]
fn too_wide_a_sum_names_an_option_that_helps() {
    let (_folder, model, array) = site(&[10, 144], &values(1440, 255));
    let (_, told, good) = seco_split(&model, &array, &["--weight-bits=22", "--activation-bits=22"]);
    assert!(!good && told.contains("32 at most: give fewer --weight-bits or --activation-bits"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    let (_, told, good) = seco_split(&model, &array, &[]);
    assert!(good, "{told}");
}

/// Inputs fifteen times brighter than those that calibrated: the worst case's widths hold them, others do not, and
/// then the deployment file tells the device so.
#[test]
fn what_wraps_around_is_beyond_the_range_that_devices_know() {
    let folder = TempDir::new().unwrap();
    let options = |width, out: &str| SplitOptions {
        goal: Goal { width, ..Goal::default() },
        scale: Some(16.0),
        ..SplitOptions::new(data("mlp-digits.onnx"), data("mlp-digits-20.npy"), 2, folder.path().join(out))
    };
    let (_, digits) = seco_model::npy::read_u8(&std::fs::read(data("mlp-digits-20.npy")).unwrap()).unwrap();
    let bright: Vec<u8> = digits.iter().map(|v| v * 15).collect();
    let wrapped = |width| {
        let imported = split::import(&options(width, "none")).unwrap();
        let executor = Executor::new(&imported.chosen.model).unwrap();
        let run = |inputs: &[u8]| inputs.chunks(64).map(|x| executor.run(x).unwrap().wrapped).sum::<u64>();
        assert_eq!(run(&digits), 0);
        run(&bright)
    };
    assert!(wrapped(WidthRule::Affordable) > 0);
    assert_eq!(wrapped(WidthRule::Worst), 0);

    let keys: Vec<_> = (0..2).map(|i| keys::generate(folder.path(), &format!("s{i}")).unwrap()).collect();
    let made = split::split(&options(WidthRule::Affordable, "parts")).unwrap();
    let out = folder.path().join("deployment.toml");
    let asked = DeploymentOptions::new("192.0.2.7:7443".to_owned(), &keys, made.files[1].clone(), out);
    let written = split::deployment(&asked).unwrap();
    assert_eq!((written.model.calibrated, written.model.input_shape), (Some([0, 16]), vec![64]));
    assert!(bright.iter().any(|v| !(0..=16).contains(v)));
}

/// Gains of channels follow from the weights of all layers about them: a layer that one server has in clear gets none.
#[test]
fn a_layer_in_clear_tells_nothing_of_the_next() {
    const LEN: usize = 16;
    let number = |at: usize| (at * 7919 % 101) as f32 / 101.0 - 0.4;
    // Rows that get smaller and smaller, and columns that make up for it.
    let small = |channel: usize| 2f32.powi(-((channel % 8) as i32));
    let first = (0..LEN * LEN).map(|at| number(at) * small(at / LEN));
    let second = (0..LEN * 10).map(|at| number(at + 3) / small(at % LEN));
    let transposed = integer("transB", 1);
    let nodes = [
        node("Gemm", &["x", "w", "b"], "h", &transposed),
        node("Relu", &["h"], "r", &[]),
        node("Gemm", &["r", "v", "d"], "y", &transposed),
    ];
    let zeros = |name, len| floats(name, &[len], (0..len).map(|_| 0.0));
    let constants =
        [floats("w", &[LEN, LEN], first), zeros("b", LEN), floats("v", &[10, LEN], second), zeros("d", 10)];
    let network = file("made", &nodes.concat(), &constants.concat(), ("x", &[1, LEN]), ("y", &[1, 10]));
    let folder = TempDir::new().unwrap();
    let (model, array) = (folder.path().join("model.onnx"), folder.path().join("array.npy"));
    std::fs::write(&model, network).unwrap();
    std::fs::write(&array, npy(&[40, LEN], &values(40 * LEN, 255))).unwrap();
    let spread = |gateway_layers| {
        let usual = SplitOptions::new(model.clone(), array.clone(), 3, folder.path().join("none"));
        let chosen = split::import(&SplitOptions { gateway_layers, ..usual }).unwrap().chosen;
        let rows = chosen.model.layers[0].weights.chunks(LEN);
        let rows: Vec<u32> = rows.map(|row| row.iter().map(|w| w.unsigned_abs()).max().unwrap()).collect();
        f64::from(*rows.iter().max().unwrap()) / f64::from(*rows.iter().min().unwrap())
    };
    let (shared, clear) = (spread(0), spread(1));
    assert!(shared < 16.0 && clear > 64.0, "{shared} {clear}");
}
