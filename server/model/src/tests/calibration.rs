//! Which widths are chosen, and what is said about the choice.

use super::samples::tiny;
use crate::{Calibration, Error, Executor, FixedModel, InputSpec, SumWidth, WidthRule};

use WidthRule::{Affordable, Calibrated, Worst};

fn widths(model: &FixedModel) -> [u32; 2] {
    [model.graph.width(1), model.graph.width(3)]
}

#[test]
fn widths_are_the_smallest_with_a_margin() {
    // At most 3·255 + 1 = 766: 11 bits signed. Calibrated at 100: 301, 10 bits and one more.
    let mut model = tiny(3, 1, [32, 32]);
    model.use_worst_case_widths().unwrap();
    assert_eq!(widths(&model), [11, 9]);
    model.calibrate(&[1, 100], Calibrated).unwrap();
    assert_eq!(widths(&model), [11, 9]);
    // At 10: 31, 6 bits and one more. The second sum is at most what 7 bits leave of it.
    model.calibrate(&[10], Calibrated).unwrap();
    assert_eq!(widths(&model), [7, 5]);
    model.use_worst_case_widths().unwrap();
    assert_eq!(widths(&model), [11, 9]);
    for rule in [Affordable, Calibrated, Worst] {
        let error = tiny(i32::MAX, 0, [32, 32]).calibrate(&[200], rule).unwrap_err();
        assert!(matches!(error, Error::Width { ref layer, needed: 41 } if layer == "first"), "{error}");
        for samples in [&[][..], &[0; 3][..]] {
            assert_eq!(model.calibrate(samples, rule).is_err(), samples.is_empty());
        }
    }
    assert!(model.execute(&[1, 2]).is_err());
}

#[test]
fn the_worst_case_is_chosen_where_it_costs_two_bits_at_most() {
    let chosen = |weight, sample, rule| {
        let mut model = tiny(weight, 0, [32, 32]);
        let calibration = model.calibrate(&[sample], rule).unwrap();
        let reported: Vec<u32> = calibration.sums.iter().map(|l| l.width).collect();
        assert_eq!(reported, widths(&model));
        (widths(&model), calibration)
    };
    // 1000·255 takes 19 bits. 1000·50 takes 17, with the margin 18; 1000·30 takes 16; 1000·15 takes 15.
    assert_eq!(chosen(1000, 50, Affordable).0[0], 19);
    assert_eq!(chosen(1000, 30, Affordable).0[0], 19);
    assert_eq!(chosen(1000, 15, Affordable).0[0], 16);
    assert_eq!(chosen(1000, 50, Calibrated).0[0], 18);
    assert_eq!(chosen(1000, 15, Worst).0, [19, 17]);
    let (_, calibration) = chosen(1000, 15, Affordable);
    let name = "first".to_owned();
    let first = SumWidth { name, value: 1, used: 15, calibrated: 16, worst: 19, width: 16, clamped: false };
    assert_eq!((&calibration.sums[0], first.headroom(), first.is_safe()), (&first, 1, false));
    // What a first layer of 16 bits passes on takes 14, even where no calibration has gone so far.
    assert_eq!((calibration.sums[1].worst, calibration.sums[1].is_safe()), (14, true));
    // A worst case beyond 32 bits is nothing to choose, and only `Worst` insists on it.
    assert_eq!(chosen(1 << 26, 15, Affordable).0[0], 32);
    let error = tiny(1 << 26, 0, [32, 32]).calibrate(&[15], Worst).unwrap_err();
    assert!(matches!(error, Error::Width { needed: 35, .. }), "{error}");
}

/// No input wraps around where the report says so, and one does where it says that it can.
#[test]
fn the_report_is_true_for_every_input() {
    for weight in [1, -1, 3, 70, 1000, -4096, 1 << 20] {
        for sample in [0, 1, 9, 100, 255] {
            for rule in [Affordable, Calibrated, Worst] {
                let mut model = tiny(weight, 5, [32, 32]);
                let calibration = model.calibrate(&[sample], rule).unwrap();
                let executor = Executor::new(&model).unwrap();
                let wrapped: u64 = (0..=255).map(|x| executor.run(&[x]).unwrap().wrapped).sum();
                let safe = calibration.sums.iter().all(SumWidth::is_safe);
                assert_eq!(safe, wrapped == 0, "{weight} {sample} {rule:?}: {calibration:?}");
                assert_eq!(executor.run(&[sample]).unwrap().wrapped, 0);
            }
        }
    }
}

#[test]
fn the_range_of_the_inputs_is_remembered() {
    let mut model = tiny(3, 1, [32, 32]);
    assert_eq!(model.graph.input, InputSpec::new(vec![1], 8));
    let calibration = model.calibrate(&[7, 3, 200], Worst).unwrap();
    assert_eq!((calibration.range, calibration.inputs, calibration.alike), ([3, 200], 3, false));
    assert_eq!(model.graph.input.calibrated, Some([3, 200]));
    // A calibration that fails leaves the model as it was.
    model.layers[1].weights[0] = i32::MAX;
    let before = widths(&model);
    model.calibrate(&[255], Affordable).unwrap_err();
    assert_eq!((model.graph.input.calibrated, widths(&model)), (Some([3, 200]), before));
    for impossible in [[9, 8], [0, 16]] {
        model.graph.input = InputSpec { calibrated: Some(impossible), bits: 4, ..model.graph.input.clone() };
        assert!(model.execute(&[1]).unwrap_err().to_string().contains("calibrated input range"));
    }
}

#[test]
fn a_poor_calibration_is_told() {
    let warnings = |samples: &[u8], rule| {
        let mut model = tiny(1000, 0, [32, 32]);
        let Calibration { sums, .. } = model.calibrate(samples, rule).unwrap();
        assert_eq!(sums.len(), 2);
        let told = model.calibrate(samples, rule).unwrap().warnings();
        told.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(warnings(&[0], Affordable), "1 input only; constant inputs (every value is 0)");
    assert_eq!(warnings(&[9; 12], Calibrated), "constant inputs (every value is 9)");
    let narrow = "values from 0 to 16, though an input's may be 0 to 255";
    assert_eq!(warnings(&[0, 16].repeat(5), Affordable), narrow);
    assert_eq!(warnings(&[0, 16], Affordable), format!("2 inputs only; {narrow}"));
    assert_eq!(warnings(&[0, 255].repeat(5), Calibrated), "");
    // Where no input at all can wrap around, nothing rests on the calibration.
    assert_eq!(warnings(&[0], Worst), "");
    assert_eq!(warnings(&[200], Affordable), "");
}

#[test]
fn the_same_input_again_and_again_is_told() {
    let mut model = tiny(1000, 0, [32, 32]);
    model.graph.input.shape = vec![2];
    let geometry = crate::Geometry::Dense(crate::Dense { inputs: 2, outputs: 1 });
    model.graph.nodes[0].op = crate::Op::Secret { input: 0, geometry };
    model.layers[0].weights = vec![1000, 3];
    let mut told = |samples: &[u8]| {
        let calibration = model.calibrate(samples, Calibrated).unwrap();
        (calibration.alike, calibration.warnings().iter().any(|w| w.to_string().contains("all the same")))
    };
    assert_eq!(told(&[1, 2].repeat(20)), (true, true));
    assert_eq!(told(&[&[1, 2].repeat(20)[..], &[2, 1]].concat()), (false, false));
    assert_eq!(told(&[1, 2]), (true, false));
}

/// What two ReLUs read has one ring, the wider one's: the worst case behind the other counts with it.
#[test]
fn a_wider_ring_lets_larger_values_through() {
    use super::samples::{node, output};
    use crate::{Dense, FixedLayer, Gather, Geometry, Graph, Op, Term};
    let dense = |input| Op::Secret { input, geometry: Geometry::Dense(Dense { inputs: 1, outputs: 1 }) };
    let term = |value| Term { value, factor: 1, gather: Gather::All };
    let nodes = vec![
        node("first", 32, dense(0)),
        node("narrow", 32, Op::Relu { input: 1, shift: 0 }),
        node("wide", 32, Op::Relu { input: 1, shift: 17 }),
        node("sum", 32, Op::Public { terms: vec![term(2), term(3)], constant: 0, len: 1 }),
    ];
    let graph =
        Graph { name: "two".to_owned(), input: InputSpec::new(vec![1], 8), nodes, outputs: output(1, 0) };
    let layers = vec![FixedLayer { weights: vec![5000], bias: vec![0] }];
    let mut model = FixedModel { graph, layers, known: Default::default() };
    let calibration = model.calibrate(&[1], Calibrated).unwrap();
    // 5000 takes 14 bits, with the margin 15; the shift of 17 makes it 19.
    assert_eq!(model.graph.width(1), 19);
    let answer = calibration.sums.last().unwrap();
    assert!(answer.worst >= 19, "{answer:?}");
    let wrapped = model.execute(&[50]).unwrap().wrapped;
    assert_eq!(answer.is_safe(), wrapped == 0, "{answer:?}");
}

/// A ring that a wide sum needs lets larger values through, which widen the next sum, whose ring is an earlier one: as
/// often as there are such sums.
#[test]
fn rings_are_widened_until_nothing_changes() {
    use super::samples::{node, output};
    use crate::{Dense, FixedLayer, Gather, Geometry, Graph, Op, Term};
    const LINKS: usize = 9;
    let term = |value, factor| Term { value, factor, gather: Gather::All };
    let sum = |terms| Op::Public { terms, constant: 0, len: 1 };
    let mut nodes = Vec::new();
    let mut push = |name: String, op: Op| {
        nodes.push(node(&name, 32, op));
        nodes.len()
    };
    // 8 for what calibrates and 2040 at most, passed on by ReLUs.
    let mut values = Vec::new();
    for link in 0..LINKS {
        let value = push(format!("eight {link}"), sum(vec![term(0, 8)]));
        values.push((value, push(format!("relu {link}"), Op::Relu { input: value, shift: 0 })));
    }
    // The first sum is 100. Each of the others is the ReLU of the one before's value, in a ring that its own value
    // has too.
    let (mut answer, mut sums, mut layers) = (Vec::new(), Vec::new(), Vec::new());
    for (link, &(input, _)) in values.iter().enumerate() {
        let geometry = Geometry::Dense(Dense { inputs: 1, outputs: 1 });
        let constant = push(format!("constant {link}"), Op::Secret { input, geometry });
        layers.push(FixedLayer { weights: vec![0], bias: vec![if link == 0 { 100 } else { 0 }] });
        let before = link.checked_sub(1).map(|before| term(values[before].1, 1));
        let terms = [term(constant, 1)].into_iter().chain(before).collect();
        let value = push(format!("sum {link}"), sum(terms));
        sums.push(value);
        answer.push(term(push(format!("out {link}"), Op::Relu { input: value, shift: 0 }), 1));
    }
    push("answer".to_owned(), sum(answer));
    let graph =
        Graph { name: "chain".to_owned(), input: InputSpec::new(vec![1], 8), nodes, outputs: output(1, 0) };
    let mut model = FixedModel { graph, layers, known: Default::default() };
    let calibration = model.calibrate(&[1], Affordable).unwrap();
    for (link, &value) in sums.iter().enumerate() {
        let sum = calibration.sums.iter().find(|sum| sum.value == value).unwrap();
        // 127 or less are let through, from the first sum to the last.
        assert_eq!((sum.worst, sum.is_safe(), model.graph.width(value)), (8, true, 8), "{link}");
    }
}
