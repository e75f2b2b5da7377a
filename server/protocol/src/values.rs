//! A server's parts of a graph's values while they are in use: kept until they were read as often as they will be, so
//! that a deep model's do not pile up.

use seco_garble::convert::{Lanes, Mask, Share, Words, kind};
use seco_model::graph::{Graph, Op, Term, ValueId};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::flow::{Flow, Source};

/// Words of one kind by value, each until it was read as often as it will be.
pub struct Values<K> {
    words: Vec<Option<Words<K>>>,
    reads: Vec<usize>,
}

const UNKNOWN: Error = Error::Misuse("a value that this server does not have");

impl<K> Values<K> {
    /// None yet, each to be read so often.
    pub fn new(reads: Vec<usize>) -> Values<K> {
        Values { words: reads.iter().map(|_| None).collect(), reads }
    }

    /// Keeps a value, unless nobody reads it.
    pub fn put(&mut self, value: ValueId, words: Words<K>) {
        if self.wanted(value)
            && let Some(place) = self.words.get_mut(value)
        {
            *place = Some(words);
        }
    }

    /// Whether a value will be read.
    pub fn wanted(&self, value: ValueId) -> bool {
        matches!(self.reads.get(value), Some(1..))
    }

    /// Reads a value once.
    pub fn read<T>(&mut self, value: ValueId, read: impl FnOnce(Lanes<'_, K>) -> T) -> Result<T, Error> {
        let words = self.words.get(value).and_then(Option::as_ref).ok_or(UNKNOWN)?;
        let result = read(words.all());
        self.done(value);
        Ok(result)
    }

    /// Reads a value once, to change it.
    pub fn take(&mut self, value: ValueId) -> Result<Words<K>, Error> {
        if self.reads.get(value) == Some(&1) {
            self.done_reading(value);
            return self.words.get_mut(value).and_then(Option::take).ok_or(UNKNOWN);
        }
        self.read(value, |words| words.to_words())
    }

    fn done(&mut self, value: ValueId) {
        if self.done_reading(value)
            && let Some(words) = self.words.get_mut(value)
        {
            *words = None;
        }
    }

    /// Counts a reading; tells whether it was the last.
    fn done_reading(&mut self, value: ValueId) -> bool {
        let Some(reads) = self.reads.get_mut(value) else { return false };
        *reads = reads.saturating_sub(1);
        *reads == 0
    }
}

/// What a server has of a sum, offline or online: this constant, and these terms of what it has of their values.
pub fn sum<'t, K: kind::Bare>(
    len: usize,
    constant: u32,
    terms: impl IntoIterator<Item = &'t Term>,
    mut read: impl FnMut(ValueId, &mut dyn FnMut(Lanes<'_, K>)) -> Result<(), Error>,
) -> Result<Words<K>, Error> {
    let mut sum = Zeroizing::new(vec![constant; len]);
    for Term { value, factor, gather } in terms {
        read(*value, &mut |words| gather.add(factor.cast_unsigned(), words.words(), &mut sum))?;
    }
    Ok(Words::new(sum))
}

/// A server's offline parts, which are shares: of an atom its part of the mask, of a layer its word. Those of sums are
/// computed when they are read, in the order of the graph.
pub struct Offline<'a> {
    graph: &'a Graph,
    flow: &'a Flow,
    /// By atom, and by layer.
    drawn: (&'a [Mask], &'a [Share]),
    sums: Values<kind::Share>,
    /// The node up to which sums were computed.
    next: usize,
}

impl<'a> Offline<'a> {
    /// `masks` are this server's by atom, `words` by layer, as far as they are read; `reads` tells how often
    /// [`Offline::read`] will be called for each value.
    pub fn new(
        (graph, flow): (&'a Graph, &'a Flow),
        masks: &'a [Mask],
        words: &'a [Share],
        reads: impl IntoIterator<Item = ValueId>,
    ) -> Offline<'a> {
        let mut counts = vec![0usize; graph.nodes.len() + 1];
        let count = |counts: &mut Vec<usize>, value: ValueId| {
            if let Some(count) = counts.get_mut(value) {
                *count += 1;
            }
        };
        reads.into_iter().for_each(|value| count(&mut counts, value));
        for (number, node) in graph.nodes.iter().enumerate().rev() {
            if let (Op::Public { terms, .. }, Some(1..)) = (&node.op, counts.get(number + 1)) {
                terms.iter().for_each(|term| count(&mut counts, term.value));
            }
        }
        Offline { graph, flow, drawn: (masks, words), sums: Values::new(counts), next: 0 }
    }

    /// Reads this server's share of a value once.
    pub fn read<T>(
        &mut self,
        value: ValueId,
        read: impl FnOnce(Lanes<'_, kind::Share>) -> T,
    ) -> Result<T, Error> {
        let graph = self.graph;
        for (number, node) in graph.nodes.iter().enumerate().take(value).skip(self.next) {
            self.next = number + 1;
            if let (Op::Public { terms, len, .. }, true) = (&node.op, self.sums.wanted(number + 1)) {
                // The constant is online.
                let sum = sum(*len, 0, terms, |value, add| self.known(value, add))?;
                self.sums.put(number + 1, sum);
            }
        }
        self.known(value, read)
    }

    fn known<T>(
        &mut self,
        value: ValueId,
        read: impl FnOnce(Lanes<'_, kind::Share>) -> T,
    ) -> Result<T, Error> {
        let (masks, words) = self.drawn;
        match self.flow.source(value) {
            Source::Atom(atom) => Ok(read(masks.get(atom).ok_or(UNKNOWN)?.offline())),
            Source::Layer(layer) => Ok(read(words.get(layer).ok_or(UNKNOWN)?.all())),
            Source::Sum => self.sums.read(value, read),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use seco_garble::convert::Online;
    use seco_model::graph::Gather;
    use seco_model::{Architecture, InputSpec, Node};

    use super::*;

    fn kept<K>(values: &Values<K>) -> usize {
        values.words.iter().flatten().count()
    }

    /// `blocks` times a ReLU and two sums, the second of the first and the block's beginning.
    fn deep(blocks: usize) -> Architecture {
        let node = |op| Node { name: "node".to_owned(), width: 16, op };
        let sum = |values: [ValueId; 2]| {
            let terms = values.map(|value| Term { value, factor: 3, gather: Gather::All });
            node(Op::Public { terms: terms.to_vec(), constant: 1, len: 4 })
        };
        let mut nodes = Vec::new();
        for start in (0..blocks).map(|block| 3 * block) {
            nodes.extend([node(Op::Relu { input: start, shift: 0 }), sum([start, start + 1])]);
            nodes.push(sum([start, start + 2]));
        }
        let graph =
            Graph { name: "test".to_owned(), input: InputSpec::new(vec![4], 8), nodes, outputs: Vec::new() };
        Architecture { graph, placements: Vec::new(), servers: 2 }
    }

    /// However deep a model is, only a few of its values are kept, and none when all was read.
    #[test]
    fn values_of_a_deep_model_do_not_pile_up() {
        let architecture = deep(200);
        let graph = &architecture.graph;
        let flow = Flow::new(&architecture);
        let masks: Vec<_> = (0..=200u32).map(|atom| Mask::new(Zeroizing::new(vec![atom; 4]))).collect();
        let read: Vec<ValueId> = graph.activations().map(|relu| relu.input).chain([graph.answer()]).collect();
        let mut offline = Offline::new((graph, &flow), &masks, &[], read.iter().copied());
        for value in read {
            // A sum of sums: each is three times what came before.
            offline
                .read(value, |words| assert!(words.len() == 4 && (value == 0 || words.words()[0] != 0)))
                .unwrap();
            assert!(kept(&offline.sums) <= 2, "{} after value {value}", kept(&offline.sums));
        }
        assert_eq!(kept(&offline.sums), 0);

        let mut known = Values::new(flow.reads(graph, 0));
        let value = || Online::new(Zeroizing::new(vec![0; 4]));
        known.put(0, value());
        for (number, node) in graph.nodes.iter().enumerate() {
            for input in node.inputs().filter(|_| flow.having(number + 1).contains(0)) {
                if !matches!(node.op, Op::Relu { .. }) || flow.openers(input).contains(0) {
                    known.take(input).unwrap();
                }
            }
            known.put(number + 1, value());
            assert!(kept(&known) <= 3, "{} after node {number}", kept(&known));
        }
    }

    #[test]
    fn a_value_is_read_as_often_as_said() {
        let mut values = Values::new(vec![2, 0, 1]);
        for value in 0..3 {
            values.put(value, Online::new(Zeroizing::new(vec![value as u32])));
        }
        assert!(values.read(1, |_| ()).is_err(), "nobody reads it, so it is not kept");
        assert_eq!(values.take(0).unwrap().words(), [0]);
        assert_eq!(values.read(0, |words| words.words().to_vec()).unwrap(), [0]);
        assert!(values.take(0).is_err() && values.read(9, |_| ()).is_err());
        assert_eq!(values.take(2).unwrap().words(), [2]);
        assert!(values.take(2).is_err());
    }
}
