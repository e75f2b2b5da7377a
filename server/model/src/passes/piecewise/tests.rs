//! Chains of ReLUs, before and behind the pass.

use super::{Gather, Real, RealNode, RealOp, RealTerm, run};
use crate::graph::{Last, Run};
use crate::passes::dead;
use crate::real::{Linear, Origin, RealOutput};
use crate::{Dense, Geometry};

const LEN: usize = 5;

fn node(op: RealOp) -> RealNode {
    RealNode { origin: Origin { name: "n".to_owned(), op: "Op".to_owned() }, op }
}

fn relu(input: usize) -> RealNode {
    node(RealOp::Relu { input })
}

fn sum(terms: &[(usize, f64)], offset: f64) -> RealNode {
    let term = |&(value, factor): &(usize, f64)| RealTerm { value, factor, gather: Gather::All };
    node(RealOp::Public { terms: terms.iter().map(term).collect(), offset, len: LEN })
}

/// A matrix and these nodes behind it, of which value 1 is what it makes.
fn network(nodes: Vec<RealNode>, outputs: &[usize]) -> Real {
    let weights = (0..LEN * LEN).map(|i| f64::from((i * 7 % 11) as i32 - 5) / 3.0).collect();
    let geometry = Geometry::Dense(Dense { inputs: LEN, outputs: LEN });
    let layer = node(RealOp::Linear(Linear { input: 0, geometry, weights, bias: vec![0.1; LEN] }));
    let output =
        |&value: &usize| RealOutput { name: "y".to_owned(), value, shape: vec![LEN], last: Last::Nothing };
    let nodes = [vec![layer], nodes].concat();
    Real { name: "r".to_owned(), input: vec![LEN], nodes, outputs: outputs.iter().map(output).collect() }
}

fn relus(real: &Real) -> usize {
    real.nodes.iter().filter(|node| matches!(node.op, RealOp::Relu { .. })).count()
}

/// A leaky ReLU of value `x` whose first node makes value `next`, and a bound behind it.
fn leaky_and_bounded(x: usize, next: usize) -> Vec<RealNode> {
    vec![
        relu(x),
        sum(&[(x, -1.0)], 0.0),
        relu(next + 1),
        sum(&[(next, 1.0), (next + 2, -0.2)], 0.0),
        sum(&[(next + 3, 1.0)], 0.4),
        relu(next + 4),
        sum(&[(next + 5, 1.0)], -0.4),
    ]
}

#[test]
fn chains_become_as_few_relus_as_can_be() {
    let bounded = vec![relu(1), sum(&[(2, -1.0)], 1.5), relu(3), sum(&[(4, -1.0)], 1.5), relu(5)];
    let mut two = leaky_and_bounded(1, 2);
    two.push(sum(&[(8, 0.5)], -0.1));
    two.extend(leaky_and_bounded(9, 10));
    let mut moved = leaky_and_bounded(1, 2);
    moved.push(node(RealOp::Public {
        terms: vec![RealTerm {
            value: 8,
            factor: 1.0,
            gather: Gather::Runs(vec![Run::Values { start: LEN as u32 - 1, step: -1, count: LEN as u32 }]),
        }],
        offset: 0.0,
        len: LEN,
    }));
    moved.push(relu(9));
    // Nodes, outputs, and ReLUs before and behind.
    let cases = [
        (vec![relu(1), relu(2), relu(3)], vec![4], 3, 1),
        (leaky_and_bounded(1, 2), vec![8], 3, 2),
        (bounded, vec![6], 3, 2),
        (two, vec![16], 6, 3),
        // Of another place it is another value.
        (moved, vec![10], 4, 3),
        // What others read too is needed all the same.
        (leaky_and_bounded(1, 2), vec![8, 5], 3, 3),
        // A masked value is not lost: this one stays as it is.
        (vec![relu(1), sum(&[(2, 1.0), (1, 1.0)], 0.0)], vec![3], 1, 1),
        (vec![relu(1)], vec![2, 1], 1, 1),
    ];
    for (i, (nodes, outputs, before, behind)) in cases.into_iter().enumerate() {
        let real = network(nodes, &outputs);
        let made = dead::run(run(real.clone()));
        assert_eq!((relus(&real), relus(&made)), (before, behind), "{i}");
        assert_eq!(
            real.outputs.iter().map(|output| real.masked()[output.value]).collect::<Vec<_>>(),
            made.outputs.iter().map(|output| made.masked()[output.value]).collect::<Vec<_>>(),
            "{i}"
        );
        for step in -30..30 {
            let x: Vec<f64> = (0..LEN).map(|at| f64::from(step) / 7.0 + at as f64 / 3.0).collect();
            let answers = |real: &Real| real.run(&x, |_, _| ()).unwrap().concat();
            for (a, b) in answers(&real).iter().zip(answers(&made)) {
                assert!((a - b).abs() < 1e-12, "{i}: {a} {b}");
            }
        }
    }
}
