//! The operators of ONNX's classical machine learning (`ai.onnx.ml`) that are affine, and what scikit-learn's converter puts
//! behind them.

use super::super::call::Call;
use super::super::context::{Context, Secret, Value};
use super::super::tensor::Tensor;
use super::{matrix, refused};
use crate::Error;
use crate::graph::Last;

/// A list of numbers that is an attribute, all of them finite.
fn list(call: &Call<'_>, name: &str) -> Result<Vec<f64>, Error> {
    let Some(given) = call.node.floats(name)? else { return Ok(vec![]) };
    match given.iter().all(|number| number.is_finite()) {
        true => Ok(given.iter().map(|&number| f64::from(number)).collect()),
        false => Err(call.error(format!("{name} has values that are not finite: train or export it again"))),
    }
}

/// The one row of features that a node reads.
fn features<'c>(call: &'c Call<'_>) -> Result<(&'c Secret, usize), Error> {
    let x = call.secret(0)?;
    match x.shape.as_slice() {
        [1, count] => Ok((x, *count)),
        shape => Err(call.error(format!(
            "its input has shape {shape:?}, and one row of features is needed: put a Flatten in front"
        ))),
    }
}

/// `(x - offset) · scale`, by feature.
pub(super) fn scaler(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["offset", "scale"])?;
    let (x, count) = features(call)?;
    let by_feature = |name: &str, default: f64| match list(call, name)?.as_slice() {
        [] => Ok(vec![default; count]),
        [one] => Ok(vec![*one; count]),
        given if given.len() == count => Ok(given.to_vec()),
        given => Err(call.node.damaged(format!("{name} has {} numbers for {count} features", given.len()))),
    };
    let (offset, scale) = (by_feature("offset", 0.0)?, by_feature("scale", 1.0)?);
    let added = offset.iter().zip(&scale).map(|(offset, scale)| -offset * scale).collect();
    let id = context.scale(&call.origin, x.id, scale, added)?;
    Ok(vec![x.with(id, x.shape.clone()).into()])
}

/// Puts other numbers in place of what is none, which no input is.
pub(super) fn imputer(_: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[
        "imputed_value_floats",
        "imputed_value_int64s",
        "replaced_value_float",
        "replaced_value_int64",
    ])?;
    match call.node.float("replaced_value_float")?.is_some_and(f64::is_nan) {
        true => Ok(vec![call.secret(0)?.clone().into()]),
        false => Err(call.error(
            "it replaces a number, and which inputs are that is not known here: only what is no number (NaN) is supported, \
             which inputs never are, so replace it where the input is made",
        )),
    }
}

/// `factor · (coefficients · x + intercepts)`, the coefficients row by row.
fn scores(context: &mut Context, call: &Call<'_>, rows: usize, factor: f64) -> Result<Secret, Error> {
    let (x, count) = features(call)?;
    let coefficients = list(call, "coefficients")?;
    let intercepts = list(call, "intercepts")?;
    let fits = coefficients.len() == rows.saturating_mul(count) && [0, rows].contains(&intercepts.len());
    if !fits || rows == 0 {
        return Err(call.node.damaged(format!(
            "it has {} coefficients and {} intercepts for {rows} results of {count} features",
            coefficients.len(),
            intercepts.len()
        )));
    }
    let weights = Value::from(Tensor::floats(vec![rows, count], coefficients));
    let column = Value::from(x.with(x.id, vec![count, 1]));
    let made = matrix::multiply(context, call, &weights, &column, factor)?;
    let id = match intercepts.is_empty() {
        true => made.id,
        false => {
            let offset = intercepts.iter().map(|intercept| factor * intercept).collect();
            context.scale(&call.origin, made.id, vec![1.0; rows], offset)?
        }
    };
    Ok(Secret::new(id, vec![1, rows]))
}

/// What is done to the scores at the end.
fn end<'c>(call: &'c Call<'_>) -> Result<&'c [u8], Error> {
    Ok(call.node.string("post_transform")?.unwrap_or(b"NONE"))
}

fn unknown_end(call: &Call<'_>) -> Error {
    call.error("its post_transform is not supported here: train the model without it, or export up to it")
}

pub(super) fn linear_regressor(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["coefficients", "intercepts", "post_transform", "targets"])?;
    if end(call)? != b"NONE" {
        return Err(unknown_end(call));
    }
    let targets = usize::try_from(call.node.int("targets")?.unwrap_or(1)).unwrap_or(0);
    Ok(vec![scores(context, call, targets, 1.0)?.into()])
}

/// The label, where labels are numbers from 0, and the scores.
pub(super) fn linear_classifier(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[
        "classlabels_ints",
        "classlabels_strings",
        "coefficients",
        "intercepts",
        "multi_class",
        "post_transform",
    ])?;
    let numbers = call.node.ints("classlabels_ints")?.unwrap_or_default();
    let names = call.node.attribute.iter().find(|a| a.name == "classlabels_strings");
    let classes = numbers.len().max(names.map_or(0, |a| a.strings.len()));
    let coefficients = list(call, "coefficients")?;
    // Two classes whose scores are each other's negatives.
    let opposite = classes == 2 && {
        let intercepts = list(call, "intercepts")?;
        let halves = coefficients.split_at(coefficients.len() / 2);
        let are = |(first, second): (&[f64], &[f64])| first.iter().zip(second).all(|(a, b)| *a == -b);
        are(halves) && are(intercepts.split_at(intercepts.len() / 2))
    };
    let (factor, last) = match end(call)? {
        b"NONE" => (1.0, Last::Nothing),
        b"SOFTMAX" => (1.0, Last::Softmax),
        // sigmoid(z) and sigmoid(-z) are the softmax of z/2 and -z/2, whose sum is 1 as a Normalizer wants it.
        b"LOGISTIC" if opposite => (0.5, Last::Softmax),
        b"LOGISTIC" => (1.0, Last::Sigmoid),
        _ => return Err(unknown_end(call)),
    };
    let scores = Secret { last, ..scores(context, call, classes, factor)? };
    let label = call.node.output.first().filter(|name| context.uses.contains_key(*name));
    let label = match label {
        None => scores.clone(),
        Some(_) if numbers.iter().copied().eq(0..classes as i64) => {
            Secret { last: Last::ArgMax, indices: Some(vec![1]), ..scores.clone() }
        }
        Some(_) => return Err(names_of_labels(call)),
    };
    Ok(vec![label.into(), scores.into()])
}

fn names_of_labels(call: &Call<'_>) -> Error {
    call.error(
        "it looks names of labels up, and only numbers from 0 on are supported as labels: keep the probabilities alone \
         (select_model_inputs_outputs of skl2onnx, see server/IMPORT.md), and give the names to seco deployment --classes",
    )
}

/// Probabilities by the names of their classes: the probabilities.
pub(super) fn zip_map(_: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["classlabels_int64s", "classlabels_strings"])?;
    Ok(vec![call.secret(0)?.clone().into()])
}

/// Some of the features; or labels by their numbers, which are these where they count from 0.
pub(super) fn feature_extractor(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&[])?;
    if let (Some(Value::Constant(labels)), Some(Value::Secret(index))) = (call.input(0), call.input(1)) {
        let count = labels.reals().iter().enumerate().all(|(i, &label)| label == i as f64);
        return match (index.last, &index.indices) {
            (Last::ArgMax, Some(shape)) if count && labels.len() == index.len() => {
                let shape = vec![1, shape.iter().product()];
                Ok(vec![Secret { indices: Some(shape), ..index.clone() }.into()])
            }
            _ => Err(names_of_labels(call)),
        };
    }
    let (x, count) = features(call)?;
    // Of a softmax or an index, which the device makes of all values, none is left out.
    if !matches!(x.last, Last::Nothing | Last::Sigmoid | Last::Tanh) {
        return Err(call.error(
            "it takes some results of what is done last over all of them: end the network in front of it and choose where \
             the answer is read",
        ));
    }
    let chosen = call.constant(1, "indices")?.ok_or_else(|| call.node.lacks("indices"))?;
    let place = |&place: &i64| usize::try_from(place).ok().filter(|&place| place < count);
    let places: Option<Vec<usize>> = chosen.integers().and_then(|all| all.iter().map(place).collect());
    let places = places.filter(|places| !places.is_empty());
    let places =
        places.ok_or_else(|| call.node.damaged(format!("an index is none of its {count} features")))?;
    let len = places.len();
    let id = context.gather(&call.origin, x.id, len, places.into_iter().map(Some))?;
    Ok(vec![x.with(id, vec![1, len]).into()])
}

/// Divided by their sum, which probabilities of a softmax are.
pub(super) fn normalizer(_: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["norm"])?;
    let x = call.secret(0)?;
    let sums = call.node.string("norm")?.unwrap_or(b"MAX") == b"L1";
    match x.last {
        Last::Softmax if sums && x.over.is_none() && x.shape.last() == Some(&x.len()) => {
            Ok(vec![x.clone().into()])
        }
        _ => Err(call.error(refused::reason("LpNormalization", ""))),
    }
}
