//! The deployment file.

use crate::common::{deployment, output};
use seco_core::ServerOpeningKey;
use seco_sdk::{CertificatePin, Deployment, Error, Last, Quantise, Update};

fn example() -> Deployment {
    let servers: Vec<_> = (1..=3).map(|seed| ServerOpeningKey::from_seed([seed; 32])).collect();
    deployment("192.0.2.7:4433".parse().unwrap(), CertificatePin::of(b"certificate"), &servers)
}

fn quantise(scale: &[f64], offset: &[f64]) -> Option<Quantise> {
    Some(Quantise { scale: scale.into(), offset: offset.into() })
}

fn refused(text: &str) -> (String, String) {
    match Deployment::from_toml(text).expect_err("refused") {
        Error::Deployment { at, problem } => {
            assert!(!problem.contains('\n'), "one line: {problem}");
            (at, problem)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn writes_and_reads_back() {
    let text = example().to_toml().unwrap();
    assert_eq!(Deployment::from_toml(&text).unwrap(), example());
    for line in [
        "version = 3",
        "address = \"192.0.2.7:4433\"",
        "server_name = \"gateway.test\"",
        "input_shape = [1, 28, 28]",
        "calibrated = [0, 254]",
        "[[servers]]",
        "name = \"server 2\"",
        &format!("id = \"{}\"", "07".repeat(32)),
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
    }
    let info = example().model_info().unwrap();
    assert_eq!((info.input_len, info.values, info.width), (784, 10, 22));
}

#[test]
fn the_calibrated_range_may_be_left_out() {
    let text = example().to_toml().unwrap();
    let shorter = text.replace("calibrated = [0, 254]\n", "");
    assert_ne!(shorter, text);
    let mut expected = example();
    expected.model.calibrated = None;
    assert_eq!(Deployment::from_toml(&shorter).unwrap(), expected);
    assert_eq!(expected.to_toml().unwrap(), shorter);
}

/// Every number of an output is read back as it was written, to the last bit.
#[test]
fn outputs_are_written_and_read_back() {
    let mut expected = example();
    let scales =
        [1.0, 0.1, 1.0 / 3.0, 2f64.powi(-16), 5e-324, f64::MAX, f64::EPSILON, 1.234_567_890_123_456_7e-9];
    let lasts =
        [Last::None, Last::Softmax, Last::LogSoftmax, Last::Sigmoid, Last::Tanh, Last::Argmax, Last::Index];
    expected.model.outputs = (0..12)
        .map(|i| {
            let mut output = output(&format!("output {i}"), [&[][..], &[3], &[2, 1, 2]][i % 3]);
            (output.scale, output.last) = (scales[i % 8], lasts[i % lasts.len()]);
            output.classes =
                if i % 3 == 2 { ["é", "\"", "c", "d"].map(String::from).into() } else { Vec::new() };
            output
        })
        .collect();
    let text = expected.to_toml().unwrap();
    assert_eq!(Deployment::from_toml(&text).unwrap(), expected);
    assert_eq!(expected.model_info().unwrap().values, 4 * (1 + 3 + 4));
    // A whole number needs no point, and what a network does last may be left out.
    let text = example().to_toml().unwrap();
    let short = text.replace("scale = 0.1", "scale = 2").replace("last = \"none\"\n", "");
    let output = Deployment::from_toml(&short).unwrap().model.outputs.remove(0);
    assert_eq!((output.scale, output.last, output.classes.len()), (2.0, Last::None, 0));
}

#[test]
fn scales_of_inputs_are_written_and_read_back() {
    let mut expected = example();
    expected.model.input_bits = 5;
    for scale in [&[0.1][..], &[1.0 / 3.0; 28], &[2.5]] {
        expected.model.quantise = quantise(scale, &[-1e-3]);
        let text = expected.to_toml().unwrap();
        assert_eq!(Deployment::from_toml(&text).unwrap(), expected);
    }
    let text = expected.to_toml().unwrap();
    let whole = Deployment::from_toml(&text.replace("scale = [2.5]", "scale = [2]")).unwrap();
    assert_eq!(whole.model.quantise.unwrap().scale, [2.0]);
}

#[test]
fn reads_files() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), example().to_toml().unwrap()).unwrap();
    assert_eq!(Deployment::from_file(file.path()).unwrap(), example());
    let missing = file.path().with_extension("missing");
    let error = Deployment::from_file(&missing).unwrap_err();
    assert!(matches!(&error, Error::File { path, .. } if *path == missing), "{error}");
}

#[test]
fn every_field_is_checked() {
    type Edit = fn(&mut Deployment);
    let cases: [(&str, Edit); 49] = [
        ("version", |d| d.version = 2),
        ("version", |d| d.version = 6),
        ("models[0]", |d| d.version = 5),
        ("model.name", |d| d.model.name = Some("digits".to_owned())),
        ("model.input_bits", |d| d.version = 4),
        ("gateway.server_name", |d| d.gateway.server_name = "not a name".into()),
        ("gateway.pins", |d| d.gateway.pins.clear()),
        ("gateway.pins", |d| d.gateway.pins = vec![d.gateway.pins[0]; 3]),
        ("servers", |d| d.servers.truncate(1)),
        ("servers", |d| d.servers = vec![d.servers[0].clone(); 9]),
        ("servers[1]", |d| d.servers[1].name = " ".into()),
        ("servers[2]", |d| d.servers[2].name = d.servers[0].name.clone()),
        ("servers[2]", |d| d.servers[2].sealing_key = d.servers[0].sealing_key.clone()),
        ("model.input_shape", |d| d.model.input_shape = vec![28, 0]),
        ("model.input_shape", |d| d.model.input_shape = vec![usize::MAX, 2]),
        ("model.input_bits", |d| d.model.input_bits = 9),
        ("model.input_bits", |d| d.model.input_bits = 0),
        ("model.input_bits", |d| (d.version, d.model.input_bits) = (4, 17)),
        ("model.input_bits", |d| (d.version, d.model.input_bits) = (3, 16)),
        ("model.input_shape", |d| {
            (d.version, d.model.input_bits, d.model.input_shape) = (4, 9, vec![(1 << 25) + 1]);
        }),
        ("model.calibrated", |d| d.model.calibrated = Some([9, 8])),
        ("model.calibrated", |d| d.model.calibrated = Some([0, 256])),
        ("model.calibrated", |d| {
            (d.version, d.model.input_bits, d.model.calibrated) = (4, 9, Some([700, 300]));
        }),
        ("model.calibrated", |d| {
            (d.version, d.model.input_bits, d.model.calibrated) = (4, 9, Some([0, 512]));
        }),
        ("model.quantise", |d| d.model.quantise = quantise(&[0.0], &[0.0])),
        ("model.quantise", |d| d.model.quantise = quantise(&[f64::INFINITY], &[0.0])),
        ("model.quantise", |d| d.model.quantise = quantise(&[1.0], &[f64::NAN])),
        ("model.quantise", |d| d.model.quantise = quantise(&[], &[0.0])),
        ("model.quantise", |d| d.model.quantise = quantise(&[1.0], &[])),
        ("model.quantise", |d| d.model.quantise = quantise(&[1.0; 3], &[0.0])),
        ("model.outputs", |d| d.model.outputs.clear()),
        ("model.outputs", |d| d.model.outputs[0].shape = vec![usize::MAX, 2]),
        ("model.outputs", |d| d.model.outputs[0].shape = vec![1 << 20, 2]),
        ("model.outputs", |d| {
            d.model.outputs = ["a", "b"].map(|name| output(name, &[1 << 63])).into();
        }),
        ("model.outputs[0]", |d| d.model.outputs[0].shape = vec![10, 0]),
        ("model.outputs[0]", |d| d.model.outputs[0].name = " ".into()),
        ("model.outputs[0]", |d| d.model.outputs[0].name = "a\nb".into()),
        ("model.outputs[1]", |d| d.model.outputs.push(output("scores", &[1]))),
        ("model.outputs", |d| d.model.outputs = vec![output("scores", &[1]); (1 << 20) + 1]),
        ("model.outputs[0]", |d| d.model.outputs[0].scale = 0.0),
        ("model.outputs[0]", |d| d.model.outputs[0].scale = -0.5),
        ("model.outputs[0]", |d| d.model.outputs[0].scale = f64::NAN),
        ("model.outputs[0]", |d| d.model.outputs[0].scale = f64::INFINITY),
        ("model.outputs[0]", |d| d.model.outputs[0].classes = vec!["a".into(); 9]),
        ("model.outputs[0]", |d| d.model.outputs[0].classes = vec!["a".into(); 11]),
        ("model.outputs[0]", |d| d.model.outputs[0].classes = vec!["\x1b[2J".into(); 10]),
        ("model.outputs[0]", |d| {
            d.model.outputs = vec![output("a", &[1])];
            d.model.outputs[0].classes = vec!["no".into(), "yes".into()];
        }),
        ("model.output_width", |d| d.model.output_width = 1),
        ("model.output_width", |d| d.model.output_width = 33),
    ];
    for (field, edit) in cases {
        let mut deployment = example();
        edit(&mut deployment);
        for result in [deployment.to_toml().map(drop), deployment.validate()] {
            let error = result.unwrap_err();
            assert!(matches!(&error, Error::Deployment { at, .. } if at == field), "{field}: {error}");
        }
    }
}

/// What an application of before reads stays what it was; what it would take for something else it refuses by its version,
/// before it looks at anything else.
#[test]
fn inputs_of_more_bits_have_a_version_of_their_own() {
    for bits in 1..=16 {
        let mut deployment = example();
        let version = if bits <= 8 { 3 } else { 4 };
        assert_eq!(Deployment::version_of(bits), version);
        (deployment.version, deployment.model.input_bits) = (version, bits);
        let each = if bits <= 8 { 1 } else { 2 };
        assert_eq!(deployment.model_info().unwrap().input_len, 784 * each, "{bits}");
        let text = deployment.to_toml().unwrap();
        assert!(text.starts_with(&format!("version = {version}\n")), "{text}");
        assert_eq!(Deployment::from_toml(&text).unwrap(), deployment);
    }
    let mut deployment = example();
    (deployment.version, deployment.model.input_bits) = (4, 12);
    deployment.model.calibrated = Some([7, 4000]);
    let text = deployment.to_toml().unwrap();
    assert!(text.contains("calibrated = [7, 4000]"), "{text}");
    assert_eq!(Deployment::from_toml(&text).unwrap(), deployment);
}

/// What is wrong in a text, `vectors.rs` tells.
#[test]
fn a_text_that_was_cut_anywhere_never_panics() {
    let text = example().to_toml().unwrap();
    for end in (0..text.len()).step_by(7) {
        let _ = Deployment::from_toml(&text[..end]);
    }
    for (table, other) in [("[[servers]]", "[servers]"), ("[[servers]]", "[servers]\n[[servers]]")] {
        refused(&text.replace(table, other));
    }
    assert!(refused(&format!("{text}\n[servers]\n")).0.starts_with("line "));
}

/// Whatever byte of it is another, the next file is none. Whose it must be, and how new, `vectors.rs` tells.
#[test]
fn only_the_owner_replaces_a_file() {
    use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let owner = <[u8; 32]>::try_from(key.der_bytes()).unwrap();
    let file = |serial| {
        let mut deployment = example();
        deployment.update = Some(Update { owner, serial });
        deployment
    };
    let (present, next) = (file(5), file(6));
    let unsigned = next.to_toml().unwrap();
    let text = Deployment::signed(&unsigned, |message| key.sign(message).unwrap().try_into().unwrap());
    assert_eq!(present.successor(&text).unwrap(), next);
    // A signed file is read as any other, by whoever trusts its source.
    assert_eq!(Deployment::from_toml(&text).unwrap(), next);

    for other in [&unsigned, &format!("{text}\n"), "", "signature = \""] {
        let error = present.successor(other).unwrap_err();
        assert!(matches!(&error, Error::Deployment { at, .. } if at == "signature"), "{other:.60}: {error}");
    }
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        if let Ok(altered) = String::from_utf8(bytes) {
            assert!(present.successor(&altered).is_err(), "byte {at}");
        }
    }
}

/// Of several models each can be selected, by its name and by no other, and one must be; a file has a limited number.
#[tokio::test]
async fn of_several_models_one_is_asked() {
    let named = |i: usize| {
        let mut model = example().model;
        (model.name, model.id.0[0]) = (Some(format!("model {i}")), i as u8);
        model
    };
    let of = |models: Vec<seco_sdk::Model>| {
        let mut others = models;
        let (version, model) = (Deployment::VERSION_OF_SEVERAL, others.remove(0));
        Deployment { version, model, others, ..example() }
    };
    let mut several = of((0..Deployment::MAX_MODELS).map(named).collect());
    assert_eq!(Deployment::from_toml(&several.to_toml().unwrap()).unwrap(), several);
    assert!(several.model_names().map(str::to_owned).eq((0..64).map(|i| format!("model {i}"))));
    for i in [0, 1, 63] {
        let selected = several.clone().select(Some(&format!("model {i}"))).unwrap();
        assert_eq!(selected, of(vec![named(i)]), "a deployment of that model alone");
        assert_eq!(Deployment::from_toml(&selected.to_toml().unwrap()).unwrap(), selected);
        assert_eq!(selected.clone().select(None).unwrap(), selected);
    }
    let problem = |result: Result<Deployment, Error>| match result.unwrap_err() {
        Error::Deployment { at, problem } => (at, problem),
        other => panic!("{other}"),
    };
    for unknown in ["", "model", "model 64", "Model 1"] {
        let told = problem(several.clone().select(Some(unknown)));
        assert!(told.0 == "models" && told.1.contains("there are model 0, model 1"), "{told:?}");
    }
    assert!(problem(example().select(Some("model 0"))).1.contains("the only one has no name"));
    // Nothing is chosen for an application that says nothing: after an update it might be another model than before.
    assert!(problem(several.clone().select(None)).1.contains("one is to be chosen: model 0, model 1"));
    let refused = seco_sdk::Client::connect(several.clone()).await.err().unwrap();
    assert!(matches!(&refused, Error::Deployment { at, .. } if at == "models"), "{refused}");

    let at = |deployment: &Deployment| problem(deployment.to_toml().map(|_| example())).0;
    let mut twice = several.clone();
    twice.model = named(1);
    assert_eq!(at(&twice), "models[1]");
    several.others.push(named(64));
    assert_eq!(at(&several), "models");
    several.others.truncate(1);
    several.version = Deployment::VERSION;
    assert_eq!(at(&several), "version");
}
