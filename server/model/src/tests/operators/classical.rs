//! What scikit-learn's converter writes: affine operators of ONNX's classical machine learning, and what stands behind them.

use super::{close, file, integers, options, refused, run, tensor, with};
use crate::graph::Last;
use crate::onnx::{AttributeProto, NodeProto, attribute_type};
use crate::read;
use crate::tests::onnx::{float, int, ints, text};

fn floats(name: &str, values: &[f32]) -> AttributeProto {
    let (name, kind) = (name.to_owned(), attribute_type::FLOATS);
    AttributeProto { name, floats: values.to_vec(), r#type: kind, ..Default::default() }
}

fn classical(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[AttributeProto]) -> NodeProto {
    NodeProto { domain: "ai.onnx.ml".to_owned(), ..with(op, inputs, outputs, attributes) }
}

fn classifier(end: &str, labels: &[i64], coefficients: &[f32], intercepts: &[f32]) -> NodeProto {
    let attributes = [
        floats("coefficients", coefficients),
        floats("intercepts", intercepts),
        ints("classlabels_ints", labels),
        int("multi_class", 1),
        text("post_transform", end),
    ];
    classical("LinearClassifier", &["z"], &["label", "scores"], &attributes)
}

fn scaled() -> NodeProto {
    classical("Scaler", &["x"], &["z"], &[floats("offset", &[1.0, -2.0]), floats("scale", &[0.5, 4.0])])
}

/// `StandardScaler`, `LogisticRegression` and their label and probabilities, as they are exported without options.
#[test]
fn a_classifier_of_three_classes() {
    let weights = [1.0, 2.0, -1.0, 0.5, 0.0, 3.0];
    let nodes = |labels: &[i64]| {
        vec![
            scaled(),
            classifier("SOFTMAX", labels, &weights, &[0.25, 0.0, -1.0]),
            classical("Normalizer", &["scores"], &["p"], &[text("norm", "L1")]),
            classical("ZipMap", &["p"], &["probabilities"], &[ints("classlabels_int64s", labels)]),
            with("Cast", &["label"], &["y"], &[int("to", 7)]),
        ]
    };
    let made = file(13, &[2], nodes(&[0, 1, 2]), vec![], &["y", "probabilities"]);
    let (answers, real) = run(&made, &[3.0, -1.0]);
    let z = [1.0, 4.0];
    let expected = [z[0] + 2.0 * z[1] + 0.25, -z[0] + 0.5 * z[1], 3.0 * z[1] - 1.0];
    close(&answers[0], &expected, "scores of the label");
    close(&answers[1], &expected, "scores");
    assert_eq!(real.outputs.iter().map(|o| o.last).collect::<Vec<_>>(), [Last::ArgMax, Last::Softmax]);
    // Labels that are no numbers from 0, if anybody wants them.
    assert!(refused(13, &[2], nodes(&[3, 5, 7]), vec![]).contains("probabilities"));
    assert!(read(&file(13, &[2], nodes(&[3, 5, 7]), vec![], &["probabilities"]), &options()).is_ok());
}

/// What the device does over all values is not that over some of them.
#[test]
fn some_of_a_softmaxs_results_are_refused() {
    let weights = [1.0, 2.0, -1.0, 0.5, 0.0, 3.0];
    for (end, from) in [("SOFTMAX", "scores"), ("SOFTMAX", "label"), ("LOGISTIC", "label")] {
        let nodes = vec![
            scaled(),
            classifier(end, &[0, 1, 2], &weights, &[0.0; 3]),
            classical("ArrayFeatureExtractor", &[from, "i"], &["y"], &[]),
        ];
        let told = refused(13, &[2], nodes, vec![integers("i", &[0])]);
        assert!(told.contains("y (ArrayFeatureExtractor)"), "{end} {from}: {told}");
    }
    let nodes = vec![
        with("Softmax", &["x"], &["s"], &[]),
        with("Reshape", &["s", "shape"], &["r"], &[]),
        classical("Normalizer", &["r"], &["y"], &[text("norm", "L1")]),
    ];
    assert!(refused(13, &[3], nodes, vec![integers("shape", &[3, 1])]).contains("y (Normalizer)"));
}

/// Two sigmoids that add up to 1.
#[test]
fn a_classifier_of_two_classes() {
    let nodes = |coefficients: &[f32], intercepts: &[f32]| {
        vec![
            scaled(),
            classifier("LOGISTIC", &[0, 1], coefficients, intercepts),
            classical("Normalizer", &["scores"], &["y"], &[text("norm", "L1")]),
        ]
    };
    let made = file(13, &[2], nodes(&[-1.0, -2.0, 1.0, 2.0], &[-0.5, 0.5]), vec![], &["y"]);
    let (answers, real) = run(&made, &[3.0, -1.0]);
    close(&answers[0], &[-4.75, 4.75], "half of the scores");
    assert_eq!(real.outputs[0].last, Last::Softmax);
    // Those of others do not.
    for (coefficients, intercepts) in
        [([-1.0, -2.0, 1.0, 2.5], [-0.5, 0.5]), ([-1.0, -2.0, 1.0, 2.0], [-0.5, 0.0])]
    {
        assert!(refused(13, &[2], nodes(&coefficients, &intercepts), vec![]).contains("y (Normalizer)"));
    }
}

#[test]
fn regressors_and_chosen_features() {
    let regressor = |coefficients: &[f32], targets: i64| {
        let attributes = [
            floats("coefficients", coefficients),
            floats("intercepts", &[1.0, 2.0]),
            int("targets", targets),
        ];
        classical("LinearRegressor", &["f"], &["y"], &attributes)
    };
    let nodes = |regressor| vec![classical("ArrayFeatureExtractor", &["x", "i"], &["f"], &[]), regressor];
    let made =
        file(13, &[3], nodes(regressor(&[1.0, 2.0, -1.0, 0.5], 2)), vec![integers("i", &[2, 0])], &["y"]);
    close(&run(&made, &[4.0, 100.0, 10.0]).0[0], &[19.0, -6.0], "regressor");
    refused(13, &[3], nodes(regressor(&[1.0, 2.0, -1.0], 2)), vec![integers("i", &[2, 0])]);
    refused(13, &[3], nodes(regressor(&[1.0, 2.0, -1.0, 0.5], -1)), vec![integers("i", &[2, 0])]);
    refused(13, &[3], nodes(regressor(&[1.0, 2.0, -1.0, 0.5], 2)), vec![integers("i", &[3, 0])]);
    refused(13, &[2, 3], nodes(regressor(&[1.0, 2.0, -1.0, 0.5], 2)), vec![integers("i", &[2, 0])]);
}

/// Labels are looked up by the index of the largest.
#[test]
fn labels_that_count_from_zero_are_indices() {
    let nodes = vec![
        with("ArgMax", &["x"], &["i"], &[int("axis", 1)]),
        classical("ArrayFeatureExtractor", &["labels", "i"], &["l"], &[]),
        with("Reshape", &["l", "shape"], &["r"], &[]),
        with("Cast", &["r"], &["y"], &[int("to", 7)]),
    ];
    let constants = |labels: &[i64]| vec![integers("labels", labels), integers("shape", &[-1])];
    let (_, real) = run(&file(13, &[3], nodes.clone(), constants(&[0, 1, 2]), &["y"]), &[0.0; 3]);
    assert_eq!(real.outputs[0].last, Last::ArgMax);
    for labels in [&[1, 2, 3][..], &[0, 1]] {
        assert!(refused(13, &[3], nodes.clone(), constants(labels)).contains("--classes"));
    }
}

#[test]
fn what_is_not_linear_is_refused() {
    let text = refused(13, &[3], vec![classical("TreeEnsembleClassifier", &["x"], &["y"], &[])], vec![]);
    assert!(text.contains("classical") && text.contains("y (TreeEnsembleClassifier)"), "{text}");
    let text = refused(13, &[3], vec![classical("Normalizer", &["x"], &["y"], &[])], vec![]);
    assert!(text.contains("divides"), "{text}");
    let wrong = classical("Scaler", &["x"], &["y"], &[floats("scale", &[f32::NAN])]);
    assert!(refused(13, &[3], vec![wrong], vec![]).contains("finite"));
    // Not an operator of ONNX's own.
    refused(13, &[3], vec![with("Scaler", &["x"], &["y"], &[])], vec![tensor("unused", &[1], &[0.0])]);
}

/// `SimpleImputer` in front: inputs are numbers, so that there is nothing to replace.
#[test]
fn what_is_no_number_is_no_input() {
    let nodes = |replaced: f32| {
        let attributes =
            [floats("imputed_value_floats", &[7.0, 8.0]), float("replaced_value_float", replaced)];
        vec![classical("Imputer", &["x"], &["i"], &attributes), with("Neg", &["i"], &["y"], &[])]
    };
    let (found, _) = run(&file(13, &[2], nodes(f32::NAN), vec![], &["y"]), &[3.0, -1.0]);
    close(&found[0], &[-3.0, 1.0], "imputed");
    assert!(refused(13, &[2], nodes(3.0), vec![]).contains("i (Imputer)"));
}
