//! Einsum of a value and a constant: a product of matrices, with axes in other orders in front of and behind it.

use std::collections::HashMap;

use super::super::call::Call;
use super::super::context::{Context, Secret, Value};
use super::super::tensor::{Tensor, Walk, elements, strides};
use super::{matrix, refused};
use crate::Error;

/// Letters of the axes of every input, and of the result.
type Letters = (Vec<Vec<char>>, Vec<char>);

/// The sum over all letters that the result does not have.
pub(super) fn einsum(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["equation"])?;
    let (inputs, output) = letters(call)?;
    let (x, weights) = match (call.input(0), call.input(1), call.inputs.len()) {
        (Some(Value::Secret(_)), None, 1) => (0, None),
        (Some(Value::Secret(_)), Some(Value::Constant(weights)), 2) => (0, Some((1, weights.as_ref()))),
        (Some(Value::Constant(weights)), Some(Value::Secret(_)), 2) => (1, Some((0, weights.as_ref()))),
        (_, _, 1 | 2) => return Err(call.error(refused::reason("Einsum", ""))),
        _ => {
            return Err(call.error(
                "it has more than two inputs, and one with one constant is supported: write it as several Einsum, or as MatMul",
            ));
        }
    };
    // Of one input it is a product with 1.
    let of_weights = weights.map_or(&[][..], |(index, _)| inputs[index].as_slice());
    let one = Tensor::floats(vec![], vec![1.0]);
    let weights = weights.map_or(&one, |(_, weights)| weights);
    let (x, of_x) = (call.secret(x)?.clone(), inputs[x].as_slice());
    let mut sizes = HashMap::new();
    for (&letter, &size) in of_x.iter().zip(&x.shape).chain(of_weights.iter().zip(&weights.shape)) {
        if *sizes.entry(letter).or_insert(size) != size {
            return Err(call.error(format!(
                "axis {letter} has different sizes in its inputs, of shapes {:?} and {:?}, and only the same are supported: \
                 reshape one",
                x.shape, weights.shape
            )));
        }
    }
    let pick =
        |of: &[char], keep: &dyn Fn(&char) -> bool| of.iter().copied().filter(keep).collect::<Vec<_>>();
    let both = pick(of_x, &|l| of_weights.contains(l) && output.contains(l));
    let own = pick(of_x, &|l| !of_weights.contains(l) && output.contains(l));
    let summed = pick(of_x, &|l| !output.contains(l));
    let others = pick(of_weights, &|l| !of_x.contains(l) && output.contains(l));
    let alone = pick(of_weights, &|l| !of_x.contains(l) && !output.contains(l));
    let len = |of: &[char]| of.iter().map(|letter| sizes[letter]).product::<usize>();
    let [batch, rows, inner, columns] = [&both, &own, &summed, &others].map(|of| len(of));

    // The constant as matrices, one for each of what both have; repeated along what it does not have.
    let order = [&both[..], &summed, &others, &alone].concat();
    let shape: Vec<usize> = order.iter().map(|letter| sizes[letter]).collect();
    let many = elements(&shape[..shape.len().min(8)]).filter(|_| shape.len() <= 8);
    let many = many.ok_or_else(|| {
        call.error(format!("its products have shape {shape:?}, which is too large: use MatMul in its place"))
    })?;
    context.walk(&call.origin, many)?;
    let steps = strides(&weights.shape);
    let step =
        |letter: &char| of_weights.iter().position(|l| l == letter).map_or(0, |axis| steps[axis] as isize);
    let values = call.numbers(weights)?;
    let walk = Walk::new(&shape, order.iter().map(step).collect(), 0);
    let values: Vec<f64> = walk.map(|place| values.get(place).copied().unwrap_or(0.0)).collect();
    let matrices = values.chunks_exact(len(&alone).max(1)).map(|part| part.iter().sum()).collect();
    let matrices = Tensor::floats(vec![batch, inner, columns], matrices);

    let in_front: Vec<usize> = position(&[&both[..], &own, &summed].concat(), of_x);
    let turned = context.transpose(&call.origin, &x, &in_front)?;
    let flat = Secret::new(turned.id, vec![batch, rows, inner]);
    let made = match summed.is_empty() && columns == 1 && of_weights.is_empty() {
        true => flat,
        false => matrix::multiply(context, call, &flat.into(), &Value::from(matrices), 1.0)?,
    };
    let order = [&both[..], &own, &others].concat();
    let shape = order.iter().map(|letter| sizes[letter]).collect();
    let behind = position(&output, &order);
    Ok(vec![context.transpose(&call.origin, &Secret::new(made.id, shape), &behind)?.into()])
}

/// Where these letters are among others.
fn position(letters: &[char], among: &[char]) -> Vec<usize> {
    letters.iter().filter_map(|letter| among.iter().position(|other| other == letter)).collect()
}

/// What the equation says.
fn letters(call: &Call<'_>) -> Result<Letters, Error> {
    let text = call.node.string("equation")?.ok_or_else(|| call.node.lacks("equation"))?;
    let text: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_whitespace()).collect();
    let wrong = || call.node.damaged("its equation does not fit its inputs");
    let (left, right) = text.split_once("->").map_or((text.as_str(), None), |(l, r)| (l, Some(r)));
    let parts: Vec<&str> = left.split(',').collect();
    let ranks = call.inputs.iter().flatten().map(|value| match value {
        Value::Secret(secret) => secret.shape.len(),
        Value::Constant(tensor) => tensor.shape.len(),
    });
    let ranks: Vec<usize> = ranks.collect();
    if parts.len() != ranks.len() {
        return Err(wrong());
    }
    // Three dots stand for axes counted from the last of them: letters that nobody writes.
    let more = |count: usize| (0..count).rev().filter_map(|i| char::from_u32(0xe000 + i as u32));
    let expanded = |part: &str, count: usize| -> Vec<char> {
        match part.split_once("...") {
            Some((front, back)) => front.chars().chain(more(count)).chain(back.chars()).collect(),
            None => part.chars().collect(),
        }
    };
    let (mut inputs, mut most) = (Vec::new(), 0);
    for (part, &rank) in parts.iter().zip(&ranks) {
        let written = part.replace("...", "").chars().count();
        let count = rank.checked_sub(written).ok_or_else(wrong)?;
        if part.contains("...") {
            most = most.max(count);
        }
        let all = expanded(part, count);
        if all.len() != rank {
            return Err(wrong());
        }
        if all.iter().enumerate().any(|(i, letter)| all[..i].contains(letter)) {
            return Err(call.error(
                "an input has the same letter twice, and diagonals are not supported: write it with MatMul",
            ));
        }
        inputs.push(all);
    }
    let output = match right {
        Some(right) => expanded(right, most),
        // Without a result what occurs once, in the order of the alphabet.
        None => {
            let all: Vec<char> = inputs.concat();
            let mut once: Vec<char> = all
                .iter()
                .copied()
                .filter(|l| l.is_alphabetic() && all.iter().filter(|o| *o == l).count() == 1)
                .collect();
            once.sort_unstable();
            more(most).chain(once).collect()
        }
    };
    let unknown = output.iter().enumerate().any(|(i, letter)| {
        output[..i].contains(letter) || !inputs.iter().any(|input| input.contains(letter))
    });
    if unknown { Err(wrong()) } else { Ok((inputs, output)) }
}
