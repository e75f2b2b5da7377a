//! What the online phase sends and does, in order (module `online` of the protocol does the same).

use seco_garble::slices::packed_len;
use seco_model::{Architecture, Op};

use super::{Cost, Kind};
use crate::flow::{GATEWAY, Servers, Source};
use crate::online::CONFIRMATION;
use crate::plan::{Plan, Step};

/// Something that happens online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Messages of one kind: every server sends its own, then waits for those to it.
    Exchange {
        /// What they are about.
        kind: Kind,
        /// From, to, bytes.
        messages: Vec<(usize, usize, u64)>,
    },
    /// A holder multiplies with its weights.
    Multiply {
        /// The layer, by number.
        layer: usize,
        /// The server.
        server: usize,
        /// Products of two numbers.
        macs: u64,
    },
    /// A garbler computes what it sends of a ReLU.
    Label {
        /// The ReLU, by number from 0.
        step: usize,
        /// The server.
        server: usize,
        /// Its AND gates.
        ands: u64,
    },
    /// The evaluator evaluates a ReLU.
    Evaluate {
        /// The ReLU, by number from 0.
        step: usize,
        /// The server.
        server: usize,
        /// Its AND gates.
        ands: u64,
    },
}

impl Cost {
    fn exchange(&mut self, kind: Kind, messages: Vec<(usize, usize, usize)>) {
        for &(from, to, bytes) in &messages {
            self.traffic.add(kind, from, to, bytes);
        }
        let messages = messages.into_iter().map(|(from, to, bytes)| (from, to, bytes as u64)).collect();
        self.online.push(Event::Exchange { kind, messages });
    }

    /// Everybody of `from` to everybody of `to`, themselves excepted.
    fn all(from: Servers, to: Servers, bytes: usize) -> Vec<(usize, usize, usize)> {
        let of = |from: usize| to.iter().filter(move |&to| to != from).map(move |to| (from, to, bytes));
        from.iter().flat_map(of).collect()
    }

    /// From the confirmations to the answer.
    pub(super) fn online(&mut self, architecture: &Architecture, plan: &Plan) {
        let everyone: Servers = (0..self.servers).collect();
        let (graph, flow) = (&architecture.graph, &plan.flow);
        self.exchange(Kind::Confirmation, Self::all(everyone, everyone, CONFIRMATION));
        self.exchange(Kind::Input, Self::all(everyone, everyone, plan.input.opening_len()));
        self.exchange(Kind::Input, Self::all(everyone, plan.input.recipients, plan.input.handed_len()));
        let reads: Vec<Vec<usize>> = (0..self.servers).map(|server| flow.reads(graph, server)).collect();
        let mut levels = plan.steps.chunk_by(|a, b| a.depth == b.depth);
        let mut first = 0;
        for nodes in flow.affine(graph) {
            for number in nodes {
                let (Source::Layer(layer), Some(Op::Secret { geometry, .. })) =
                    (flow.source(number + 1), graph.nodes.get(number).map(|node| &node.op))
                else {
                    continue;
                };
                let macs = geometry.products() as u64;
                for server in flow.having(number + 1).iter() {
                    let wanted = reads.get(server).and_then(|reads| reads.get(number + 1));
                    if wanted.is_some_and(|&wanted| wanted > 0) {
                        self.online.push(Event::Multiply { layer, server, macs });
                    }
                }
            }
            let Some(steps) = levels.next() else { break };
            self.level(first, steps);
            first += steps.len();
        }
        let len = packed_len(graph.answer_len(), graph.answer_width());
        self.exchange(Kind::Output, Self::all(everyone, Servers::one(GATEWAY), len));
    }

    /// The ReLUs of one depth, numbered from `first`: all opened, then all evaluated, then all handed on.
    fn level(&mut self, first: usize, steps: &[Step]) {
        let everyone: Servers = (0..self.servers).collect();
        let (mut openings, mut labels, mut activations) = (Vec::new(), Vec::new(), Vec::new());
        let (mut labelled, mut evaluated) = (Vec::new(), Vec::new());
        for (number, step) in (first..).zip(steps) {
            let ands = (step.program.ands * step.lanes()) as u64;
            let opening = Self::all(step.openers, everyone, step.opening_len(step.lanes()));
            let len = step.batches.iter().map(|batch| step.online_len(batch)).sum();
            let garblers = (0..step.garblers()).map(|position| step.server(position));
            labelled.extend(garblers.clone().map(|server| Event::Label { step: number, server, ands }));
            evaluated.push(Event::Evaluate { step: number, server: step.evaluator, ands });
            let sent = garblers.map(|server| (server, step.evaluator, len)).collect::<Vec<_>>();
            let handed = Self::all(Servers::one(step.evaluator), step.recipients, step.handed_len());
            if let Some(cost) = self.steps.get_mut(number) {
                let all = opening.iter().chain(&sent).chain(&handed);
                cost.online_bytes = all.map(|(_, _, bytes)| *bytes as u64).sum();
            }
            openings.extend(opening);
            labels.extend(sent);
            activations.extend(handed);
        }
        self.exchange(Kind::Opening, openings);
        self.online.extend(labelled);
        self.exchange(Kind::Labels, labels);
        self.online.extend(evaluated);
        self.exchange(Kind::Activation, activations);
    }
}

/// When the gateway has the answer: every message takes `latency` and its `transfer` time at the network of its sender
/// and of its receiver, one after the other, those of one exchange after those of the one before; `work` is the time of
/// what a server does by itself. Nobody waits until what it sends has left.
pub(super) fn times(
    events: &[Event],
    servers: usize,
    transfer: impl Fn(u64) -> f64,
    work: impl Fn(&Event) -> f64,
    latency: f64,
) -> f64 {
    // When each server is ready for the next event, and when its network is, out and in.
    let (mut clocks, mut out, mut into) = (vec![0f64; servers], vec![0f64; servers], vec![0f64; servers]);
    for event in events {
        match event {
            Event::Exchange { messages, .. } => {
                let start = clocks.clone();
                for &(from, to, bytes) in messages {
                    let takes = transfer(bytes);
                    let (Some(sent), Some(got)) = (out.get_mut(from), into.get_mut(to)) else { continue };
                    *sent = sent.max(start.get(from).copied().unwrap_or(0.0)) + takes;
                    *got = (*sent + latency).max(*got + takes);
                    if let Some(clock) = clocks.get_mut(to) {
                        *clock = clock.max(*got);
                    }
                }
            }
            Event::Multiply { server, .. } | Event::Label { server, .. } | Event::Evaluate { server, .. } => {
                if let Some(clock) = clocks.get_mut(*server) {
                    *clock += work(event);
                }
            }
        }
    }
    clocks.get(GATEWAY).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(messages: &[(usize, usize, u64)]) -> Event {
        Event::Exchange { kind: Kind::Opening, messages: messages.to_vec() }
    }

    fn end(events: &[Event], work: f64) -> f64 {
        times(events, 3, |bytes| bytes as f64, |_| work, 100.0)
    }

    #[test]
    fn a_network_is_busy_beyond_an_exchange() {
        // Server 1 sends three seconds' worth to 2, then five to the gateway, which waits for both.
        assert_eq!(end(&[exchange(&[(1, 2, 3)]), exchange(&[(1, 0, 5)])], 0.0), 108.0);
        assert_eq!(end(&[exchange(&[(1, 2, 3), (1, 0, 5)])], 0.0), 108.0);
        // Two senders at once share the gateway's.
        assert_eq!(end(&[exchange(&[(1, 0, 3), (2, 0, 5)])], 0.0), 108.0);
        assert_eq!(end(&[exchange(&[(1, 0, 3)]), exchange(&[(2, 0, 5)])], 0.0), 108.0);
        // What is done meanwhile, and what must be waited for.
        let label = Event::Label { step: 0, server: 1, ands: 1 };
        assert_eq!(end(&[exchange(&[(1, 2, 3)]), label.clone(), exchange(&[(1, 0, 5)])], 2.0), 108.0);
        assert_eq!(end(&[exchange(&[(1, 2, 3)]), label, exchange(&[(1, 0, 5)])], 7.0), 112.0);
        assert_eq!(end(&[exchange(&[(2, 1, 3)]), exchange(&[(1, 0, 5)])], 0.0), 208.0);
    }
}
