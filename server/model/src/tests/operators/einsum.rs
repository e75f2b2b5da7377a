//! Einsum beside its definition.

use super::{answer, close, numbers, refused, tensor, with};
use crate::onnx::NodeProto;
use crate::tests::onnx::text;

fn einsum(equation: &str, inputs: &[&str]) -> Vec<NodeProto> {
    vec![with("Einsum", inputs, &["y"], &[text("equation", equation)])]
}

/// The sum over all letters that the result does not have, with all letters written.
fn defined(equation: &str, sizes: &[(char, usize)], inputs: &[&[f64]]) -> Vec<f64> {
    let (left, output) = equation.split_once("->").unwrap();
    let sizes: Vec<(char, usize)> =
        sizes.iter().copied().filter(|(letter, _)| equation.contains(*letter)).collect();
    let parts: Vec<&str> = left.split(',').collect();
    let size = |letter: char| sizes.iter().find(|(l, _)| *l == letter).unwrap().1;
    let place = |letters: &str, at: &[usize]| {
        let index = |letter: char| at[sizes.iter().position(|(l, _)| *l == letter).unwrap()];
        letters.chars().fold(0, |place, letter| place * size(letter) + index(letter))
    };
    let mut result = vec![0.0; output.chars().map(size).product()];
    let all: usize = sizes.iter().map(|(_, size)| size).product();
    for mut number in 0..all {
        let at: Vec<usize> = sizes
            .iter()
            .map(|&(_, size)| {
                let index = number % size;
                number /= size;
                index
            })
            .collect();
        let product: f64 = parts.iter().zip(inputs).map(|(part, input)| input[place(part, &at)]).product();
        result[place(output, &at)] += product;
    }
    result
}

#[test]
fn a_value_and_a_constant_are_a_product() {
    let sizes = [('b', 1), ('t', 3), ('c', 4), ('d', 2)];
    let size = |letters: &str| {
        letters.chars().map(|l| sizes.iter().find(|s| s.0 == l).unwrap().1).collect::<Vec<_>>()
    };
    // The value's letters, the constant's, the result's, and how it is written, with `#` for the value.
    for (x, w, y, written) in [
        ("btc", "cd", "btd", "#,cd->btd"),
        ("btc", "cd", "btd", "...c,cd->...d"),
        ("btc", "dc", "dbt", "btc, dc -> dbt"),
        ("btc", "tcd", "btd", "btc,tcd->btd"),
        ("btc", "tcd", "bd", "btc,tcd->bd"),
        ("btc", "td", "bcd", "btc,td->bcd"),
        ("btc", "d", "bdtc", "btc,d->bdtc"),
        ("btc", "cd", "bd", "btc,cd->bd"),
        ("btc", "cd", "bt", "btc,cd->bt"),
        ("btc", "tc", "btc", "btc,tc->btc"),
        ("btc", "cd", "bdt", "btc,cd"),
        ("btc", "", "bct", "btc->bct"),
        ("btc", "", "bt", "btc->bt"),
    ] {
        let (value, constant) = (numbers(12, 3), numbers(size(w).iter().product(), 4));
        let one = w.is_empty();
        let equation = if one { format!("{x}->{y}") } else { format!("{x},{w}->{y}") };
        let inputs = if one { vec![&value[..]] } else { vec![&value[..], &constant[..]] };
        let wanted = defined(&equation, &sizes, &inputs);
        let names = if one { vec!["x"] } else { vec!["x", "w"] };
        let nodes = einsum(&written.replace('#', x), &names);
        let constants = if one { vec![] } else { vec![tensor("w", &size(w), &constant)] };
        close(&answer(13, &[3, 4], nodes, constants.clone(), &value), &wanted, written);
        if !one && written.contains("->") && !written.contains("...") {
            // The other way round.
            let nodes = einsum(&format!("{w},{x}->{y}"), &["w", "x"]);
            close(&answer(13, &[3, 4], nodes, constants, &value), &wanted, written);
        }
    }
}

#[test]
fn what_it_cannot_do_is_said() {
    let w = || vec![tensor("w", &[4, 2], &numbers(8, 1))];
    for (equation, inputs, part) in [
        ("btc,bsc->bts", &["x", "x"][..], "multiplies two secret values"),
        ("btc,cd,cd->btd", &["x", "w", "w"], "more than two inputs"),
        ("btt,td->btd", &["x", "w"], "same letter twice"),
        ("btc,tc->btc", &["x", "w"], "different sizes"),
        ("btc,cd->bte", &["x", "w"], "does not fit its inputs"),
        ("tc,cd->td", &["x", "w"], "does not fit its inputs"),
        ("btc->btc", &["x", "w"], "does not fit its inputs"),
        ("......,cd->d", &["x", "w"], "does not fit its inputs"),
    ] {
        let text = refused(13, &[3, 4], einsum(equation, inputs), w());
        assert!(text.contains("y (Einsum)") && text.contains(part), "{equation}: {text}");
    }
}
