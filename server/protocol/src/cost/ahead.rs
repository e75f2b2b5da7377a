//! What preprocessing sends and does.

use seco_he::{LinearPlan, Weights};
use seco_model::Architecture;
use seco_ot::message_len;

use super::{Cost, Kind, LayerCost, StepCost, pairs};
use crate::links::bundle_len;
use crate::plan::{Plan, Step};

impl Cost {
    /// Messages and work of the linear layers (module `linear`).
    pub(super) fn linear(&mut self, architecture: &Architecture, plans: &[LinearPlan]) {
        let servers = self.servers;
        for (layer, plan) in architecture.graph.layers().zip(plans) {
            let holders = architecture.holders(layer.index);
            let (inputs, outputs) = (plan.input_ciphertexts(), plan.output_ciphertexts());
            let mut bytes = 0;
            for server in 0..servers {
                self.work[server].encrypted += inputs as u64;
                for &holder in holders.iter().filter(|&&holder| holder != server) {
                    for (kind, from, to, len) in [
                        (Kind::Mask, server, holder, plan.encrypted_len()),
                        (Kind::Product, holder, server, plan.c1_len()),
                        (Kind::Answer, server, holder, plan.answer_len()),
                    ] {
                        self.traffic.add(kind, from, to, len);
                        bytes += len as u64;
                    }
                    self.work[server].answered += outputs as u64;
                }
            }
            for &holder in holders {
                let work = &mut self.work[holder];
                work.added += (inputs * servers) as u64;
                work.products += plan.products() as u64;
                work.made += outputs as u64;
            }
            self.layers.push(LayerCost {
                node: layer.node,
                inputs,
                outputs,
                products: plan.products(),
                bytes,
            });
        }
        for server in 0..servers {
            let holds = |layer: usize| architecture.holders(layer).contains(&server);
            for (layer, kept) in Self::transformed(plans, holds).into_iter().enumerate() {
                let Some(plan) = plans.get(layer).filter(|_| holds(layer)) else { continue };
                if kept {
                    self.weights_bytes[server] += Weights::transformed_len(plan) as u64;
                } else {
                    self.work[server].transforms += plan.weight_polynomials() as u64;
                }
            }
        }
    }

    /// The bundle's own OT extensions, between all servers.
    pub(super) fn extensions(&mut self, ot_parameter: &impl Fn(usize, usize) -> usize) {
        for (from, to) in pairs(self.servers) {
            for len in bundle_len(ot_parameter(from, to)) {
                self.traffic.add(Kind::Extension, from, to, len);
            }
        }
    }

    /// The input's masks.
    pub(super) fn input(&mut self, plan: &Plan, ot_parameter: &impl Fn(usize, usize) -> usize) {
        let shape = plan.input.shape;
        for lanes in plan.input.batches.iter().map(|lanes| lanes.len()) {
            for (later, earlier) in pairs(self.servers).filter(|(later, earlier)| later > earlier) {
                self.choices(later, earlier, shape.correlations(lanes), ot_parameter);
                self.traffic.add(Kind::Conversions, earlier, later, shape.sum_len(lanes));
            }
        }
    }

    /// Correlated OTs; a message without choices is not sent.
    fn choices(
        &mut self,
        chooser: usize,
        other: usize,
        count: usize,
        ot_parameter: &impl Fn(usize, usize) -> usize,
    ) {
        if count == 0 {
            return;
        }
        self.traffic.add(Kind::Choices, chooser, other, message_len(count, ot_parameter(chooser, other)));
    }

    /// A ReLU's circuits and conversions (module `nonlinear`), and what it sends online.
    pub(super) fn step(&mut self, step: &Step, ot_parameter: &impl Fn(usize, usize) -> usize) {
        let before = self.traffic.total(false);
        let (garblers, evaluator) = (step.garblers(), step.evaluator);
        for batch in &step.batches {
            let ands = (batch.program.ands * batch.lanes) as u64;
            self.work[evaluator].evaluated += ands;
            for position in 0..garblers {
                let server = step.server(position);
                self.work[server].garbled += ands;
                self.traffic.add(Kind::Tables, server, evaluator, batch.table_bytes(position));
                self.choices(server, evaluator, batch.stride(), ot_parameter);
                self.choices(evaluator, server, batch.evaluator_correlations(), ot_parameter);
                for other in (0..garblers).filter(|&other| other != position).map(|other| step.server(other))
                {
                    self.choices(server, other, batch.garbler_correlations(), ot_parameter);
                    self.traffic.add(Kind::CrossBits, server, other, batch.bit_bytes());
                    self.traffic.add(Kind::Corrections, server, other, batch.bit_bytes());
                }
            }
            let mut convert = |from: usize, to: usize, len: usize| {
                self.traffic.add(Kind::Conversions, step.server(from), step.server(to), len);
            };
            for joiner in 1..=garblers {
                let len = step.shape.sum_len(joiner, garblers, batch.lanes);
                (0..joiner).for_each(|from| convert(from, joiner, len));
            }
            for joiner in 0..garblers {
                for from in (0..=garblers).filter(|&from| from != joiner) {
                    convert(from, joiner, step.shape.chain_len(from, garblers, batch.lanes));
                }
            }
            if let Some(first) = step.openers.first() {
                for server in (0..self.servers).filter(|&server| !step.openers.contains(server)) {
                    self.traffic.add(Kind::Ahead, server, first, step.opening_len(batch.lanes));
                }
            }
        }

        self.steps.push(StepCost {
            node: step.output - 1,
            relus: step.lanes() as u64,
            and_gates: (step.program.ands * step.lanes()) as u64,
            bytes: self.traffic.total(false) - before,
            online_bytes: 0,
        });
    }
}
