//! Names of layers: each its own, for placements go by them. What a later pass makes of a layer, a copy with other factors,
//! keeps its name, so that two of the same name are copies of one.

use std::collections::{HashMap, HashSet};

use crate::real::{Real, RealOp};

/// The names that are given.
#[derive(Default)]
pub(super) struct Names {
    given: HashSet<String>,
    /// By name: the number that the next of this name may have.
    next: HashMap<String, usize>,
}

impl Names {
    /// The name, with a number behind it if it is given already.
    pub fn own(&mut self, name: String) -> String {
        if self.given.insert(name.clone()) {
            return name;
        }
        let next = self.next.entry(name.clone()).or_insert(2);
        loop {
            let numbered = format!("{name} {next}");
            *next += 1;
            if self.given.insert(numbered.clone()) {
                return numbered;
            }
        }
    }
}

/// Gives every layer a name of its own: nodes of a file need not have different ones, and some become several layers.
pub(super) fn run(mut real: Real) -> (Real, Names) {
    let mut names = Names::default();
    let layers = |real: &Real| -> Vec<usize> {
        let linear = |number: &usize| matches!(real.nodes[*number].op, RealOp::Linear(_));
        (0..real.nodes.len()).filter(linear).collect()
    };
    let mut again = Vec::new();
    for number in layers(&real) {
        // A name that the file has is not given to another layer.
        if !names.given.insert(real.nodes[number].origin.name.clone()) {
            again.push(number);
        }
    }
    for number in again {
        let name = &mut real.nodes[number].origin.name;
        *name = names.own(std::mem::take(name));
    }
    (real, names)
}
