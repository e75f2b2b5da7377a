//! The cases of all languages against the fake client. `server/tests/commands/table.rs` has them against real servers.

use crate::cases::{Entry, Failure, cost, progress};
use seco_sdk::testing::{FakeClient, Reply};
use seco_sdk::{Error, Infer, Last, Model, ModelId, Output, Quantise};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// A reply of the script.
fn reply(entry: &Entry<crate::cases::Reply>) -> Reply {
    let Entry { own: crate::cases::Reply { label, delay_ms, progress: told, cost: spent }, failure } = entry;
    let mut reply = match (label, failure) {
        (Some(label), None) => Reply::label(*label),
        (None, Some(failure)) => Reply::error(Failure::error(failure)),
        _ => panic!("a label or an error"),
    };
    reply = reply.delay(Duration::from_millis(*delay_ms));
    if let Some(texts) = told {
        reply = reply.progress(texts.iter().map(|text| progress(text)));
    }
    match spent {
        Some(numbers) => reply.cost(cost(numbers)),
        None => reply,
    }
}

async fn run(case: &crate::cases::Case, digits: &[Vec<u8>]) {
    let replies = case.replies.iter().map(reply);
    let client = match case.input_bits {
        None => FakeClient::new(replies),
        Some(bits) => {
            let mut model = model(output(&[10], Last::None, &[]));
            (model.input_shape, model.input_bits) = (vec![1, 28, 14], bits);
            (model.calibrated, model.quantise) = (None, None);
            FakeClient::of(&model, replies).unwrap()
        }
    };
    let client = client.keep_sent(case.keep_sent);
    crate::cases::run(&client, case, digits).await;
    assert_eq!(client.replies_left(), 0, "{}", case.name);
}

#[tokio::test]
async fn the_fake_client_passes_all_cases() {
    let (all, digits) = (crate::cases::all(), crate::cases::digits());
    assert!(all.len() > 10);
    for case in &all {
        run(case, &digits).await;
    }
}

/// What a case says wrongly is seen.
#[test]
fn a_wrong_case_fails() {
    let file = |calls: &str| {
        let replies = r#"[{"label": 7, "progress": ["sent"]}, {"error": 5, "retry_after_ms": 9}]"#;
        let case = format!(r#"{{"name": "one", "real": false, "replies": {replies}, "calls": [{calls}]}}"#);
        crate::cases::read(&format!(r#"{{"about": "", "cases": [{case}]}}"#))
    };
    let passes = |calls: &str| {
        let case = file(calls).unwrap().remove(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let run = || runtime.block_on(run(&case, &crate::cases::digits()));
        std::panic::catch_unwind(AssertUnwindSafe(run)).is_ok()
    };
    let good = r#"{"call": "infer", "digit": 0, "label": 7}"#;
    let busy = r#"{"call": "infer", "digit": 0, "error": 5, "retry_after_ms": 9}"#;
    let both = |first: &str, then: &str| format!("{first}, {then}");
    assert!(passes(&both(good, busy)));
    for wrong in [
        r#"{"call": "infer", "digit": 0, "label": 8}"#,
        r#"{"call": "infer", "digit": 0}"#,
        r#"{"call": "infer", "digit": 0, "error": 5}"#,
        r#"{"call": "infer", "digit": 0, "label": 7, "progress": ["running"]}"#,
        r#"{"call": "infer", "digit": 0, "label": 7, "progress_begins": ["sent", "sent"]}"#,
        r#"{"call": "infer_many", "digits": [0], "labels": [8]}"#,
        r#"{"call": "cancel", "digit": 0}, {"call": "last_cost", "is": {"bytes_up": 1}}"#,
    ] {
        assert!(!passes(&both(wrong, busy)), "{wrong}");
    }
    for wrong in [
        r#"{"call": "infer", "digit": 0, "label": 7}"#,
        r#"{"call": "infer", "digit": 0, "error": 4}"#,
        r#"{"call": "infer", "digit": 0, "error": 5, "retry_after_ms": 8}"#,
        r#"{"call": "infer", "digit": 0, "error": 5, "got": 1}"#,
        r#"{"call": "infer_many", "digits": [0], "labels": [7]}"#,
    ] {
        assert!(!passes(&both(good, wrong)), "{wrong}");
    }
    assert!(!passes(good), "a reply is left");
    for wrong in [
        r#"{"call": "model", "values": 9, "input_len": 784}"#,
        r#"{"call": "model", "values": 10, "input_len": 783}"#,
        r#"{"call": "transport", "is": "tcp"}"#,
        r#"{"call": "last_sent", "length": 784}"#,
        r#"{"call": "last_cost", "is": {"bytes_up": 1}}"#,
        r#"{"call": "last_cost"}"#,
        r#"{"call": "total_cost", "at_least": {"bytes_up": 1}}"#,
        r#"{"call": "probe", "up": 1, "down": 1, "error": 10}"#,
        r#"{"call": "probe", "up": 1, "down": 65536}"#,
        r#"{"call": "close_during", "digit": 1}"#,
        r#"{"call": "close", "error": 10}"#,
        r#"{"call": "network_changed", "error": 3}"#,
        r#"{"call": "model", "input_len": 784, "values": 10, "input_bits": 9}"#,
    ] {
        assert!(!passes(&both(wrong, &both(good, busy))), "{wrong}");
    }
    for unknown in [
        r#"{"call": "infer", "digit": 0, "label": 7, "answer": 1}"#,
        r#"{"call": "close", "digit": 0}"#,
        r#"{"call": "invert"}"#,
        r#"{"digit": 0}"#,
        r#"{"call": "infer", "digit": 0, "got": 7}"#,
    ] {
        assert!(file(unknown).is_err(), "{unknown}");
    }
}

fn model(output: Output) -> Model {
    Model {
        name: None,
        id: ModelId([3; 32]),
        input_shape: vec![3],
        input_bits: 8,
        calibrated: Some([1, 200]),
        output_width: 16,
        fraction: None,
        quantise: Some(Quantise { scale: vec![0.5], offset: vec![0.0] }),
        outputs: vec![output],
    }
}

fn output(shape: &[usize], last: Last, classes: &[&str]) -> Output {
    let classes = classes.iter().map(|name| (*name).to_owned()).collect();
    Output { name: "answer".into(), shape: shape.into(), scale: 0.25, last, classes }
}

#[tokio::test]
async fn a_fake_has_the_applications_model() {
    for (output, label) in [
        (output(&[3], Last::Softmax, &["no", "maybe", "yes"]), 2),
        (output(&[1], Last::Sigmoid, &["no", "yes"]), 1),
        (output(&[1], Last::Sigmoid, &["no", "yes"]), 0),
        (output(&[1], Last::Index, &[]), 9),
    ] {
        let model = model(output.clone());
        let client = FakeClient::of(&model, [Reply::label(label)]).unwrap();
        let prediction = client.infer(&[1, 2, 200]).await.unwrap();
        assert_eq!(prediction.label, label, "{output:?}");
        assert_eq!(prediction.class_name(), output.classes.get(label).map(String::as_str));
        assert!(!prediction.outside_calibration);
        assert!(client.infer(&[0, 2, 200]).await.unwrap().outside_calibration);
        assert!(client.infer_reals(&[1.0, 2.0, 128.5]).await.unwrap().outside_calibration, "it is cut");
        assert!(matches!(client.infer_reals(&[1.0, f32::NAN, 1.0]).await, Err(Error::InputValue { .. })));
        assert_eq!(client.outputs().len(), 1);
    }
    let two = model(output(&[2], Last::None, &[]));
    let client = FakeClient::of(&two, [Reply::logits(vec![5, -3]).outside_calibration()]).unwrap();
    let prediction = client.infer(&[1, 2, 3]).await.unwrap();
    assert_eq!((prediction.label, prediction.values()), (0, vec![vec![1.25, -0.75]]));
    assert!(prediction.outside_calibration);
    assert!(FakeClient::of(&Model { output_width: 33, ..two }, []).is_err());
}

/// A script that the model cannot keep is the test's mistake.
#[test]
fn a_wrong_script_fails() {
    for reply in [Reply::label(10), Reply::logits(vec![1; 9])] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let client = FakeClient::new([reply]);
        let ask = || runtime.block_on(client.infer(&[0; 784])).map(drop);
        assert!(std::panic::catch_unwind(AssertUnwindSafe(ask)).is_err());
    }
}

/// More than run at a time, and the slow ones first: every input has its own reply.
#[tokio::test]
async fn many_are_answered_in_their_order() {
    let delay = |label: u64| Duration::from_millis(3 * (10 - label));
    let client = FakeClient::new((0..10).map(|label| Reply::label(label as usize).delay(delay(label))));
    let input = [0; 784];
    let results = client.infer_many(&[input.as_slice(); 10]).await;
    let labels: Vec<_> = results.into_iter().map(|result| result.unwrap().label).collect();
    assert_eq!(labels, (0..10).collect::<Vec<_>>());
}
