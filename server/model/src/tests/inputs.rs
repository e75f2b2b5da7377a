//! Inputs of 1 to 16 bits: what their bytes are, which numbers are chosen for them, and what files hold of them.

use super::generator;
use super::samples::{model, tiny};
use crate::graph::Last;
use crate::npy::{read_integers, read_u8};
use crate::numbers::{Goal, Samples, all_shared, compare, fewest_input_bits};
use crate::real::{Linear, Origin, Real, RealNode, RealOp, RealOutput};
use crate::tests::files::npy;
use crate::{
    Dense, Error, Executor, FixedModel, Geometry, ImportOptions, Imported, InputSpec, Normalisation,
    PartyModel, Reals, WidthRule, import, paper_placements, split,
};
use rand_core::Rng;

fn with_bits(mut model: FixedModel, bits: u32) -> FixedModel {
    model.graph.input.bits = bits;
    model
}

#[test]
fn values_are_one_byte_or_two() {
    for bits in 1..=16 {
        let spec = InputSpec::new(vec![2, 3], bits);
        let each = if bits <= 8 { 1 } else { 2 };
        assert_eq!((spec.value_bytes(), spec.byte_len(), spec.len()), (each, 6 * each, 6));
        for wrong in [0, 1, 6 * each - 1, 6 * each + 1, 9 * each] {
            assert!(matches!(spec.inputs(&vec![0; wrong]), Err(Error::Input(_))), "{bits} {wrong}");
        }
        assert_eq!(spec.inputs(&vec![0; 18 * each]).unwrap().len(), 3);
    }
    let values = |bits, bytes: &[u8]| InputSpec::new(vec![2], bits).values(bytes).collect::<Vec<_>>();
    assert_eq!(values(8, &[1, 255]), [1, 255]);
    assert_eq!(values(9, &[1, 255, 0xfe, 0xca]), [0xff01, 0xcafe]);
}

#[test]
fn only_values_of_the_models_bits_are_run() {
    for bits in 1..=16u32 {
        let model = with_bits(tiny(1, 0, [20, 20]), bits);
        let executor = Executor::new(&model).unwrap();
        let largest = (1u32 << bits) - 1;
        let run = |value: u32| executor.run(&value.to_le_bytes()[..model.graph.input.value_bytes()]);
        assert_eq!(run(largest).unwrap().logits, [(largest >> 2) as i32], "{bits}");
        if bits != 8 && bits != 16 {
            let told = run(largest + 1).unwrap_err().to_string();
            assert!(told.contains(&format!("the {bits} bits")), "{told}");
        }
        // Bytes of the other kind, and half a value.
        for wrong in [0, 3 - model.graph.input.value_bytes(), 3] {
            assert!(matches!(executor.run(&vec![0; wrong]), Err(Error::Input(_))), "{bits} {wrong}");
        }
    }
    for bits in [0, 17, 32, u32::MAX] {
        let told = with_bits(tiny(1, 0, [20, 20]), bits).check().unwrap_err().to_string();
        assert!(told.contains("1 to 16 bits"), "{told}");
    }
}

/// As much as a device sends at most, in bytes.
#[test]
fn inputs_of_more_bytes_than_a_request_has_are_refused() {
    let mut model = tiny(1, 0, [20, 20]);
    for (bits, values, fits) in [(8, 1 << 26, true), (9, 1 << 26, false), (16, 1 << 25, true)] {
        model.graph.input = InputSpec::new(vec![values], bits);
        let told = model.check().unwrap_err().to_string();
        // The layer does not fit it, which is found later.
        assert_eq!(!told.contains("too large an input"), fits, "{bits} {values}: {told}");
    }
}

#[test]
fn ranges_and_widths_are_those_of_large_values() {
    let mut model = with_bits(tiny(3, 1, [32, 32]), 12);
    let bytes = |values: &[u16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let calibration = model.calibrate(&bytes(&[300, 7, 4000]), WidthRule::Worst).unwrap();
    assert_eq!((calibration.range, calibration.inputs), ([7, 4000], 3));
    assert_eq!(model.graph.input.calibrated, Some([7, 4000]));
    // 3·4095 + 1 takes 14 bits and a sign.
    assert_eq!(model.graph.width(1), 15);
    let mut model = with_bits(tiny(1 << 18, 0, [32, 32]), 12);
    let warnings = model.calibrate(&bytes(&[300, 7, 256]), WidthRule::Calibrated).unwrap().warnings();
    let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert!(
        told.contains(&"values from 7 to 300, though an input's may be 0 to 4095".to_owned()),
        "{told:?}"
    );
    assert!(matches!(model.calibrate(&[0; 5], WidthRule::Worst), Err(Error::Input(_))), "half a value");
    for (range, good) in [([0, 4095], true), ([0, 4096], false), ([9, 8], false)] {
        model.graph.input.calibrated = Some(range);
        assert_eq!(model.check().is_ok(), good, "{range:?}");
    }
}

/// A real network whose inputs have more bits than a byte: as near to the float network as it is of bytes.
#[test]
fn numbers_are_chosen_for_inputs_of_more_bits() {
    let data = |name: &str| std::fs::read(format!("{}/../data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (network, (_, digits)) = (data("mlp-digits.onnx"), read_u8(&data("mlp-digits-20.npy")).unwrap());
    let mut rng = generator(8);
    for bits in [1, 4, 8, 9, 12, 16] {
        let largest = (1u32 << bits) - 1;
        // 0 to 16 in the file.
        let finer = |v: u8, noise: u32| {
            (u32::from(v) * largest / 16).saturating_sub(noise % (1 + largest / 16)) as u16
        };
        let values: Vec<u16> = digits.iter().map(|&v| finer(v, rng.next_u32())).collect();
        let spec = InputSpec::new(vec![64], bits);
        let bytes = spec.bytes(values.iter().copied());
        assert!(spec.values(&bytes).eq(values), "{bits}");
        let normalisation = Normalisation { scale: f64::from(largest), ..Normalisation::default() };
        let options = ImportOptions { normalisation, input_bits: bits, ..ImportOptions::default() };
        let made = import(&network, &options, &bytes, &Goal::default()).unwrap();
        assert!(made.chosen.reached, "{bits}: {:?}", made.chosen.fidelity);
        let model = &made.chosen.model;
        assert_eq!(model.graph.input.bits, bits);
        let inputs: Vec<&[u8]> = model.graph.input.inputs(&bytes).unwrap().collect();
        let found = compare(&made.real, model, &inputs, 0.01).unwrap().fidelity;
        assert_eq!((found.wrapped, found.inputs), (0, 20), "{bits}");
        assert!(found.error < 0.01, "{bits}: {found:?}");
    }
}

/// What is written of inputs of up to 8 bits is to the last byte what it was before there were others, so that ids and
/// files stay what they are.
#[test]
fn bytes_are_encoded_as_before() {
    #[derive(serde::Serialize)]
    struct Before {
        shape: Vec<usize>,
        bits: u32,
        calibrated: Option<[u8; 2]>,
    }
    for calibrated in [None, Some([0, 254]), Some([3, 200]), Some([255, 255])] {
        let before = Before { shape: vec![1, 28, 300], bits: 8, calibrated };
        let before = postcard::to_stdvec(&before).unwrap();
        let now = InputSpec {
            calibrated: calibrated.map(|r| r.map(u16::from)),
            ..InputSpec::new(vec![1, 28, 300], 8)
        };
        assert_eq!(postcard::to_stdvec(&now).unwrap(), before);
        assert_eq!(postcard::from_bytes::<InputSpec>(&before).unwrap(), now);
    }
    for calibrated in [None, Some([0, 200]), Some([0, 256]), Some([u16::MAX; 2])] {
        let spec = InputSpec { calibrated, ..InputSpec::new(vec![7], 16) };
        assert_eq!(postcard::from_bytes::<InputSpec>(&postcard::to_stdvec(&spec).unwrap()).unwrap(), spec);
    }
}

/// A server that knows bytes alone must not take a larger value for one: the file has a format of its own.
#[test]
fn parts_tell_larger_inputs_by_their_format() {
    let placements = paper_placements(3, 3, 1);
    for (bits, format) in [(1, 3), (8, 3), (9, 4), (16, 4)] {
        let mut model = with_bits(model(), bits);
        model.graph.input.calibrated = Some([0, 1]);
        let parts = split(&model, 3, &placements, &mut generator(1)).unwrap();
        for part in &parts {
            let file = part.to_bytes().unwrap();
            assert_eq!(file[8..10], [format, 0], "{bits}");
            let read = PartyModel::from_bytes(&file).unwrap();
            assert_eq!((read.id(), read.architecture()), (part.id(), part.architecture()));
            // Under the other number, with a checksum that is right.
            let mut other = file[..file.len() - 32].to_vec();
            other[8] = 7 - format;
            let checksum = <sha2::Sha256 as sha2::Digest>::digest(&other);
            other.extend_from_slice(&checksum);
            let told = PartyModel::from_bytes(&other).err().unwrap();
            assert!(matches!(told, Error::Shape(_)), "{told}");
        }
    }
}

#[test]
fn arrays_of_one_byte_or_two_are_read() {
    let array = |descr: &str, data: &[u8]| {
        npy(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}"), data)
    };
    assert_eq!(read_integers(&array("|u1", &[7, 255])).unwrap(), (vec![2], vec![7, 255]));
    assert_eq!(read_integers(&array("<u2", &[7, 1, 255, 255])).unwrap(), (vec![2], vec![263, 65535]));
    let told = |file: &[u8]| read_integers(file).unwrap_err().to_string();
    assert!(told(&array("<u2", &[7, 1, 255])).contains("3 bytes of values"));
    for descr in [">u2", "<i2", "<f4", "<u4"] {
        let told = told(&array(descr, &[0; 4]));
        assert!(told.contains("uint8 or uint16 is needed") && told.contains("numpy.uint16"), "{told}");
    }
    assert!(read_u8(&array("<u2", &[0; 4])).unwrap_err().to_string().contains("and uint8 is needed"));
}

/// What is rounded to `b` bits is off by half a step of `2^b - 1` at most: from that many bits on it is near enough.
#[test]
fn the_bits_that_answers_need_are_told() {
    let geometry = Geometry::Dense(Dense { inputs: 2, outputs: 2 });
    let weights = vec![1.0, 0.0, 0.0, 1.0];
    let op = RealOp::Linear(Linear { input: 0, geometry, weights, bias: vec![0.0; 2] });
    let outputs = |last| vec![RealOutput { name: "y".to_owned(), value: 1, shape: vec![2], last }];
    let nodes = vec![RealNode { origin: Origin::default(), op }];
    let mut real = Real { name: "r".to_owned(), input: vec![2], nodes, outputs: outputs(Last::Nothing) };
    let spec = InputSpec::new(vec![2], 16);
    let mut rng = generator(3);
    let bytes: Vec<u8> = (0..400).map(|_| rng.next_u32() as u8).collect();
    let samples: Vec<&[u8]> = spec.inputs(&bytes).unwrap().collect();
    let needed = |real: &Real, error: f64| {
        let goal = Goal { error, agreement: 1.0, ..Goal::default() };
        fewest_input_bits(real, &spec, &samples, &goal, 8..16).unwrap()
    };
    for (error, bits) in [(1e-2, 8), (1e-4, 13), (1e-5, 16), (0.0, 16)] {
        assert_eq!(needed(&real, error), bits, "{error}");
    }
    // Of labels alone it counts which, near ties apart: numbers whose upper halves are equal.
    real.outputs = outputs(Last::Index);
    assert_eq!(needed(&real, 0.01), 8);
    let bytes: Vec<u8> = (0..100u16).flat_map(|i| [(i % 2) as u8 * 9, 77, 4, 77]).collect();
    let samples: Vec<&[u8]> = spec.inputs(&bytes).unwrap().collect();
    let goal = Goal { error: 0.0, agreement: 0.9, ..Goal::default() };
    let bits = fewest_input_bits(&real, &spec, &samples, &goal, 8..16).unwrap();
    assert!((13..=15).contains(&bits), "{bits}");
}

/// What values stand for is kept with them, in parts of a format of their own; of inputs that are values nothing changes.
#[test]
fn real_numbers_are_kept_with_the_input() {
    let reals = Reals { scale: vec![0.5, 2.0], offset: vec![-1.0] };
    let spec = InputSpec { reals: Some(reals.clone()), ..InputSpec::new(vec![2, 3], 8) };
    for calibrated in [None, Some([0, 255]), Some([3, 300])] {
        let spec = InputSpec { calibrated, ..spec.clone() };
        let written = postcard::to_stdvec(&spec).unwrap();
        assert_eq!(postcard::from_bytes::<InputSpec>(&written).unwrap(), spec);
    }
    assert_eq!(spec.unrounded(&[-1.0, 0.0, 1.0, 9.0, 0.0, -3.0]), [0.0, 2.0, 4.0, 5.0, 0.5, -1.0]);

    let mut model = model();
    let channels = model.graph.input.shape[0];
    model.graph.input.reals = Some(Reals { scale: vec![0.5; channels], offset: vec![-1.0] });
    let parts = split(&model, 3, &paper_placements(3, 3, 1), &mut generator(2)).unwrap();
    let file = parts[1].to_bytes().unwrap();
    assert_eq!(file[8..10], [5, 0]);
    assert_eq!(PartyModel::from_bytes(&file).unwrap().architecture().graph.input, model.graph.input);
    for (scale, offset) in [
        (vec![], vec![0.0]),
        (vec![1.0; 7], vec![0.0]),
        (vec![1.0], vec![0.0; 7]),
        (vec![0.0], vec![0.0]),
        (vec![-1.0], vec![0.0]),
        (vec![f64::NAN], vec![0.0]),
        (vec![1.0], vec![f64::INFINITY]),
    ] {
        model.graph.input.reals = Some(Reals { scale, offset });
        assert!(model.check().is_err(), "{:?}", model.graph.input.reals);
    }
}

/// Numbers are chosen for what the network is asked, not for what is left of it: rounding of the inputs counts.
#[test]
fn what_rounding_of_real_numbers_loses_is_told() {
    let data = |name: &str| std::fs::read(format!("{}/../data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (network, (_, digits)) = (data("mlp-digits.onnx"), read_u8(&data("mlp-digits-20.npy")).unwrap());
    // The network is for 0 to 1; here it is asked in numbers of which no step is a value.
    let numbers: Vec<f64> = digits.iter().map(|&v| f64::from(v) / 16.0 * 0.9 + 0.03).collect();
    for (bits, good) in [(1, false), (4, false), (8, true), (12, true)] {
        let steps = f64::from((1u32 << bits) - 1);
        let reals = Reals { scale: vec![1.0 / steps], offset: vec![0.0] };
        let values = numbers.iter().map(|&v| (v * steps).round() as u16);
        let bytes: Vec<u8> = match bits {
            ..=8 => values.map(|v| v as u8).collect(),
            _ => values.flat_map(u16::to_le_bytes).collect(),
        };
        let normalisation = Normalisation { scale: 1.0, ..Normalisation::default() };
        let options =
            ImportOptions { normalisation, input_bits: bits, reals: Some(reals), ..ImportOptions::default() };
        let real = crate::read(&network, &options).unwrap();
        // The same as with the whole network behind it.
        let plain = crate::read(&network, &ImportOptions { reals: None, ..options.clone() }).unwrap();
        let (value, number) = (steps / 2.0, 0.5);
        let [mine, theirs] =
            [(&real, value), (&plain, number)].map(|(real, x)| real.run(&vec![x; 64], |_, _| ()).unwrap());
        assert!(mine[0].iter().zip(&theirs[0]).all(|(a, b)| (a - b).abs() < 1e-9), "{bits}");

        let samples = Samples { bytes: &bytes, reals: Some(&numbers) };
        let made = Imported::new(real, &options, samples, &Goal::default(), &all_shared).unwrap();
        assert_eq!(made.chosen.reached, good, "{bits}: {:?}", made.chosen.fidelity);
        let spec = &made.chosen.model.graph.input;
        let needed =
            fewest_input_bits(&made.real, spec, &samples.each(spec).unwrap(), &Goal::default(), 1..16)
                .unwrap();
        assert!((5..=8).contains(&needed), "{bits}: {needed}");
        let few = Samples { reals: numbers.get(1..), ..samples };
        assert!(few.each(spec).is_err());
    }
}

#[test]
fn the_largest_value_is_said_once() {
    for bits in 1..=16 {
        assert_eq!(u32::from(crate::largest(bits)), (1 << bits) - 1);
        assert_eq!(InputSpec::new(vec![1], bits).largest(), crate::largest(bits));
    }
    assert_eq!((crate::largest(0), crate::largest(17)), (0, u16::MAX));
}
