//! Models whose input values have more bits than a byte, on real servers: a device's answer is the plaintext network's, and
//! what is no input is refused with the reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Site, data, digits};
use crate::files::npy_of;
use seco_core::{Request, Response};
use seco_model::PartyModel;
use seco_tools::split::deployment;
use serde_json::Value;
use tempfile::TempDir;

/// The bundled digits with so many bits a pixel, every one a little different.
fn finer(bits: u32) -> Vec<Vec<u16>> {
    let largest = (1u32 << bits) - 1;
    let finer = |(at, v): (usize, &u8)| {
        (u32::from(*v) * largest / 16).saturating_sub(at as u32 * 7919 % (1 + largest / 16)) as u16
    };
    digits().iter().map(|digit| digit.iter().enumerate().map(finer).collect()).collect()
}

fn bytes(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// An array of the inputs, in a file.
fn store(folder: &Path, name: &str, inputs: &[Vec<u16>]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, npy_of("<u2", &[inputs.len(), 64], &bytes(&inputs.concat()))).unwrap();
    path
}

/// Standard output and error, and success.
fn seco(arguments: &[&str]) -> (String, String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_seco")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.success())
}

/// `seco infer` on all of a file.
fn infer(deployment: &Path, input: &Path) -> Result<Vec<Value>, String> {
    let (deployment, input) = (deployment.to_str().unwrap(), input.to_str().unwrap());
    let (told, errors, good) = seco(&["infer", "--json", "--deployment", deployment, "--input", input]);
    if !good {
        return Err(errors);
    }
    let told: Value = serde_json::from_str(&told).unwrap();
    Ok(told["predictions"].as_array().unwrap().clone())
}

fn served(servers: usize, bits: u32) {
    let inputs = finer(bits);
    let calibrating = TempDir::new().unwrap();
    let mut site = Site::with(servers, |options| {
        options.input_bits = bits;
        options.scale = Some(f64::from((1u32 << bits) - 1));
        options.calibrate = store(calibrating.path(), "typical.npy", &inputs);
    });
    assert_eq!((site.model.graph.input.bits, site.info().input_len), (bits, 128));
    let (mut running, address) = site.start_all();
    running[0].wait_bundle();
    let mut options = site.deployment_options(address, "deployment.toml");
    // A real number of 1 is the largest value.
    options.real_scale = vec![1.0 / f64::from((1u32 << bits) - 1)];
    let written = deployment(&options).unwrap();
    assert_eq!((written.version, written.model.input_bits), (4, bits));
    let seen = written.model.calibrated.unwrap();

    // Every answer is the plaintext network's, bit for bit.
    let (folder, file) = (site.folder.path().to_owned(), options.file.out.clone());
    let asked = [&inputs[..4], &[vec![0; 64], vec![((1u32 << bits) - 1) as u16; 64]]].concat();
    let told = infer(&file, &store(&folder, "asked.npy", &asked)).unwrap();
    assert_eq!(told.len(), asked.len());
    for (told, input) in told.iter().zip(&asked) {
        let expected = site.model.execute(&bytes(input)).unwrap().logits;
        assert_eq!(told["logits"], serde_json::json!(expected), "{bits} bits");
        let outside = input.iter().any(|value| !(seen[0]..=seen[1]).contains(value));
        assert_eq!(told["outside_calibration"], outside);
    }
    // Bytes are values too, and real numbers become them.
    let small = folder.join("small.npy");
    std::fs::write(&small, npy_of("|u1", &[1, 64], &[200; 64])).unwrap();
    let expected = serde_json::json!(site.expected(&bytes(&[200; 64])));
    assert_eq!(infer(&file, &small).unwrap()[0]["logits"], expected);
    let reals: Vec<u8> = inputs[0]
        .iter()
        .flat_map(|v| (f64::from(*v) / f64::from((1u32 << bits) - 1)).to_le_bytes())
        .collect();
    std::fs::write(&small, npy_of("<f8", &[1, 64], &reals)).unwrap();
    let expected = serde_json::json!(site.expected(&bytes(&inputs[0])));
    assert_eq!(infer(&file, &small).unwrap()[0]["logits"], expected);
    if bits < 16 {
        let large = store(&folder, "large.npy", &[vec![1 << bits; 64]]);
        let told = infer(&file, &large).unwrap_err();
        assert!(told.contains("value 0 of the input has more bits than the model's inputs"), "{told}");
    }

    // A device of its own, over QUIC: half values, bytes as of a model of bytes, and none.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let device = site.connect(address).await;
        let mut opened = device.open(&site.session(1), &site.sealing_keys()).await.unwrap();
        assert_eq!(
            device.infer(&mut opened, &bytes(&inputs[1])).await.unwrap(),
            site.expected(&bytes(&inputs[1]))
        );
        for (counter, wrong) in (50u64..).zip([0, 1, 64, 127, 129, 256]) {
            let request = Request::Infer { handle: opened.handle, counter, input: &vec![7; wrong] };
            let messages = device.ask(&request).await;
            let refused = format!("{:?}", Response::decode(&messages[0]).unwrap());
            assert!(refused.contains("WrongInputSize { expected: 128 }"), "{wrong}: {refused}");
        }
        assert_eq!(
            device.infer(&mut opened, &bytes(&inputs[2])).await.unwrap(),
            site.expected(&bytes(&inputs[2]))
        );
    });
    for mut server in running {
        server.signal("-TERM");
        server.ended(crate::common::LIMIT);
        assert!(!server.stderr().contains("panicked"));
    }
}

#[test]
fn twelve_bits_are_served() {
    served(3, 12);
}

#[test]
fn sixteen_bits_are_served() {
    served(2, 16);
}

/// From `check` to the parts: the command that it gives has the bits, and files without them are refused.
#[test]
fn check_and_split_take_the_bits() {
    let folder = TempDir::new().unwrap();
    let (model, array) = (data("mlp-digits.onnx"), store(folder.path(), "typical.npy", &finer(12)));
    let (model, array) = (model.to_str().unwrap(), array.to_str().unwrap());
    let check =
        |more: &[&str]| seco(&[&["check", model, "--input", array, "--no-bench", "--json"], more].concat());
    let (told, errors, good) = check(&["--input-bits", "12"]);
    assert!(good, "{errors}");
    let report: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&report["works"], &report["input"]["bits"]), (&true.into(), &12.into()), "{report}");
    // Values are divided by the largest, as nothing else was said.
    let next = report["next"].as_str().unwrap();
    assert!(next.contains(" --input-bits 12 --servers 3 ") && !next.contains("--scale"), "{next}");
    let line = next.replacen("seco", env!("CARGO_BIN_EXE_seco"), 1);
    let output = Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{next}: {}", String::from_utf8_lossy(&output.stderr));
    let part = PartyModel::from_bytes(&std::fs::read(folder.path().join("cluster/server-1.seco")).unwrap());
    assert_eq!(part.unwrap().architecture().graph.input.bits, 12);

    // How many bits it takes is said; so it is for fewer than a byte.
    for more in [&[][..], &["--input-bits", "11"]] {
        let (_, errors, good) = check(more);
        let bits = if more.is_empty() { 8 } else { 11 };
        let part = format!("which take 12 bits, and the model's have {bits}: give --input-bits 12");
        assert!(!good && errors.contains(&part) && errors.trim_end().lines().count() == 1, "{errors}");
    }
    for wrong in ["0", "17", "-1", "x"] {
        let (_, errors, good) = check(&[&format!("--input-bits={wrong}")]);
        assert!(!good && errors.contains("--input-bits"), "{errors}");
    }
    let few = folder.path().join("few.npy");
    let values: Vec<u8> = digits().concat().iter().map(|v| v / 2).collect();
    std::fs::write(&few, npy_of("|u1", &[20, 64], &values)).unwrap();
    let few = few.to_str().unwrap();
    let (told, errors, good) =
        seco(&["check", model, "--input", few, "--no-bench", "--json", "--input-bits=4", "--scale=8"]);
    assert!(good && told.contains("\"works\":true") && told.contains("\"bits\":4"), "{errors} {told}");
}
