//! Scales go into layers: into the one in front, or into those behind, through everything that lets them pass. What no
//! layer takes becomes one of its own.

use super::names::Names;
use crate::graph::{Gather, MAX_NODES, ValueId};
use crate::real::{Linear, MAX_NUMBERS, Origin, Real, RealNode, RealOp, RealTerm};
use crate::{Conv, Error, Geometry, MAX_LAYERS, MAX_VALUES, Window};

/// Most gains and offsets that wait for a layer at a time.
const MAX_PENDING: usize = 4 * MAX_VALUES;

/// Most products for taking offsets through layers.
const MAX_WORK: usize = 1 << 33;

/// `gain · x + offset`, value by value. A gain that is no number is that of a value which is zero, and may be any.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Affine {
    pub gain: Vec<f64>,
    pub offset: Vec<f64>,
}

/// What became of a value.
#[derive(Clone)]
struct Held {
    /// The value in the new network.
    base: ValueId,
    /// What is still to be done to it.
    pending: Option<Affine>,
    /// The value with that done, once it was needed.
    made: Option<ValueId>,
}

/// The network that is being made.
pub(super) struct Scales {
    pub nodes: Vec<RealNode>,
    pub lens: Vec<usize>,
    /// Whether one node reads a value and nothing else does.
    pub single: Vec<bool>,
    held: Vec<Option<Held>>,
    /// Readers of every value of the old network that are still to come.
    left: Vec<usize>,
    uses: Vec<usize>,
    pending: usize,
    /// Products that offsets may still take through layers.
    work: usize,
    /// Numbers of all nodes with the runs of gathers that were copied, and layers; copies count.
    numbers: usize,
    /// Most of them: what a network of few has room for, or a large one's own and some more.
    most: usize,
    layers: usize,
    names: Names,
}

/// The network without scales. `names` are the layers'.
pub(super) fn run(mut real: Real, names: Names) -> Result<Real, Error> {
    let old = core::mem::take(&mut real.nodes);
    let with_nodes = Real { nodes: old, ..real.clone() };
    let uses = super::uses(&with_nodes);
    let len = real.input.iter().product();
    let (numbers, layers) = with_nodes.numbers();
    let mut scales = Scales {
        nodes: Vec::with_capacity(with_nodes.nodes.len()),
        lens: vec![len],
        single: vec![uses.first() == Some(&1)],
        held: vec![None; uses.len()],
        left: uses.clone(),
        uses,
        pending: 0,
        work: MAX_WORK,
        numbers,
        most: MAX_NUMBERS.max(numbers.saturating_add(MAX_VALUES)),
        layers,
        names,
    };
    scales.hold(0, 0, None)?;
    for (number, node) in with_nodes.nodes.into_iter().enumerate() {
        let inputs: Vec<ValueId> = node.op.inputs().collect();
        scales.node(number + 1, node)?;
        for value in inputs {
            scales.read(value);
        }
    }
    for output in &mut real.outputs {
        output.value = scales.ready(output.value)?;
    }
    real.nodes = scales.nodes;
    Ok(real)
}

impl Scales {
    /// Adds a node; `single` if only one will read it.
    pub(super) fn push(&mut self, node: RealNode, single: bool) -> ValueId {
        self.lens.push(node.op.len(&self.lens));
        self.single.push(single);
        self.nodes.push(node);
        self.nodes.len()
    }

    fn hold(&mut self, value: ValueId, base: ValueId, pending: Option<Affine>) -> Result<(), Error> {
        let pending = pending.filter(|pending| !pending.is_nothing());
        self.pending += pending.as_ref().map_or(0, |pending| pending.gain.len());
        if self.pending > MAX_PENDING || self.nodes.len() > MAX_NODES {
            return Err(Error::Shape(
                "a network with too many constants that are added and multiplied: use a smaller one"
                    .to_owned(),
            ));
        }
        if let Some(held) = self.held.get_mut(value) {
            *held = Some(Held { base, pending, made: None });
        }
        Ok(())
    }

    /// Forgets a value when nothing reads it any more.
    fn read(&mut self, value: ValueId) {
        if let Some(left) = self.left.get_mut(value) {
            *left = left.saturating_sub(1);
            if *left == 0
                && let Some(held) = self.held.get_mut(value).and_then(Option::take)
            {
                self.pending -= held.pending.map_or(0, |pending| pending.gain.len());
            }
        }
    }

    fn held(&self, value: ValueId) -> Result<Held, Error> {
        let held = self.held.get(value).cloned().flatten();
        held.ok_or_else(|| Error::Shape("a network that reads what comes later".to_owned()))
    }

    /// What a value is, and what is still to be done to it, or that done already.
    fn waiting(&self, value: ValueId) -> Result<(ValueId, Option<Affine>), Error> {
        let held = self.held(value)?;
        Ok(match held.made {
            Some(made) => (made, None),
            None => (held.base, held.pending),
        })
    }

    fn node(&mut self, value: ValueId, node: RealNode) -> Result<(), Error> {
        let RealNode { origin, op } = node;
        let single = self.uses.get(value) == Some(&1);
        match op {
            RealOp::Linear(layer) => {
                let (base, pending) = self.waiting(layer.input)?;
                let work = layer.geometry.products();
                let taken_up = match pending {
                    Some(pending) if pending.has_offset() && work > self.work => None,
                    Some(pending) => {
                        self.work -= if pending.has_offset() { work } else { 0 };
                        taken_up(&layer, base, &pending)
                    }
                    None => None,
                };
                let layer = match taken_up {
                    Some(layer) => layer,
                    None => Linear { input: self.ready(layer.input)?, ..layer },
                };
                let made = self.push(RealNode { origin, op: RealOp::Linear(layer) }, single);
                self.hold(value, made, None)
            }
            RealOp::Scale { input, gain, offset } => {
                let alone = self.uses.get(input) == Some(&1);
                let (base, pending) = self.waiting(input)?;
                let own = Affine { gain, offset };
                let all = match &pending {
                    Some(first) => first.then(&own),
                    None => own,
                };
                if alone && let Some(plan) = self.plan(base, &all, false, 0) {
                    let made = self.carry_out(plan, false);
                    let made =
                        made.ok_or_else(|| origin.error("its scale does not fit: report this file"))?;
                    if let Some(of_base) = self.single.get_mut(made) {
                        *of_base = single;
                    }
                    return self.hold(value, made, None);
                }
                // Several may read the scaled value, and each then reads the base.
                if let Some(of_base) = self.single.get_mut(base) {
                    *of_base &= single && alone;
                }
                self.hold(value, base, Some(all))
            }
            RealOp::Public { terms, offset, len } => self.sum(value, origin, terms, offset, len, single),
            RealOp::Relu { input } => {
                let (base, pending) = self.waiting(input)?;
                if let Some(pending) = pending.filter(Affine::is_positive_gain) {
                    let made = self.push(RealNode { origin, op: RealOp::Relu { input: base } }, single);
                    return self.hold(value, made, Some(pending));
                }
                let input = self.ready(input)?;
                let made = match self.op(input) {
                    // Twice is once.
                    Some(RealOp::Relu { .. }) => input,
                    _ => self.push(RealNode { origin, op: RealOp::Relu { input } }, single),
                };
                self.hold(value, made, None)
            }
            RealOp::Round { input } => {
                let input = self.ready(input)?;
                let made = self.push(RealNode { origin, op: RealOp::Round { input } }, single);
                self.hold(value, made, None)
            }
        }
    }

    pub(super) fn op(&self, value: ValueId) -> Option<&RealOp> {
        value.checked_sub(1).and_then(|number| self.nodes.get(number)).map(|node| &node.op)
    }

    /// A sum of values that have something to be done to them: what all have in common is done to the sum.
    fn sum(
        &mut self,
        value: ValueId,
        origin: Origin,
        mut terms: Vec<RealTerm>,
        offset: f64,
        len: usize,
        single: bool,
    ) -> Result<(), Error> {
        let sources: Vec<ValueId> = terms.iter().map(|term| term.value).collect();
        let mut waiting = Vec::with_capacity(terms.len());
        for &source in &sources {
            waiting.push(self.waiting(source)?);
        }
        let mut common = None;
        if waiting.iter().any(|(_, pending)| pending.is_some()) {
            common = joint(&terms, &waiting, len);
            if common.is_none() {
                // Gains that differ are done before the sum, offsets behind it.
                for (place, &source) in waiting.iter_mut().zip(&sources) {
                    if place.1.as_ref().is_some_and(|pending| !pending.is_offset()) {
                        *place = (self.ready(source)?, None);
                    }
                }
                common = joint(&terms, &waiting, len);
            }
            if common.is_none() {
                for (place, &source) in waiting.iter_mut().zip(&sources) {
                    *place = (self.ready(source)?, None);
                }
            }
        }
        terms.iter_mut().zip(&waiting).for_each(|(term, (base, _))| term.value = *base);
        let mut offset = offset;
        if let Some(common) = common.as_mut().filter(|common| !common.is_offset()) {
            common.offset.iter_mut().for_each(|own| *own += offset);
            offset = 0.0;
        }
        let op = RealOp::Public { terms, offset, len };
        let made = self.push(RealNode { origin, op }, single);
        self.hold(value, made, common)
    }

    /// A value with nothing left to be done.
    fn ready(&mut self, value: ValueId) -> Result<ValueId, Error> {
        let held = self.held(value)?;
        let Some(pending) = held.pending else { return Ok(held.base) };
        if let Some(made) = held.made {
            return Ok(made);
        }
        // In place, if nobody else reads any of it; then a copy of a layer; then a layer of its own.
        let alone = self.uses.get(value) == Some(&1);
        let in_place = if alone { self.plan(held.base, &pending, false, 0) } else { None };
        let made = match in_place {
            Some(plan) => self.carry_out(plan, false),
            None => {
                let copied = self.plan(held.base, &pending, true, 0);
                let copied = copied.filter(|plan| self.has_room(self.size(plan)));
                copied.and_then(|plan| {
                    self.count_layer(self.size(&plan));
                    self.carry_out(plan, true)
                })
            }
        };
        let made = match made {
            Some(made) => made,
            None => {
                let numbers = 2 * pending.gain.len();
                if !self.has_room(numbers) {
                    return Err(self.op_origin(held.base).error(format!(
                        "with it the network has more than {MAX_LAYERS} layers or {} weights and biases, for a \
                         constant is multiplied where a value has several readers: use a smaller network",
                        self.most
                    )));
                }
                self.count_layer(numbers);
                self.diagonal(held.base, &pending)
            }
        };
        if let Some(Some(held)) = self.held.get_mut(value) {
            held.made = Some(made);
        }
        Ok(made)
    }

    fn has_room(&self, numbers: usize) -> bool {
        self.layers < MAX_LAYERS && self.numbers.saturating_add(numbers) <= self.most
    }

    fn count_layer(&mut self, numbers: usize) {
        self.layers += 1;
        self.numbers += numbers;
    }

    /// A layer that multiplies every value, or every channel, by its gain.
    fn diagonal(&mut self, input: ValueId, affine: &Affine) -> ValueId {
        let (run, weights) = channels::of(&affine.gain);
        let count = weights.len();
        let geometry = Geometry::Conv(Conv {
            input: [count, 1, run],
            channels: count,
            kernel: [1; 2],
            stride: [1; 2],
            dilation: [1; 2],
            pads: [0; 4],
            groups: count,
        });
        let origin = self.op_origin(input);
        let layer = Linear { input, geometry, weights, bias: affine.offset.clone() };
        self.push(RealNode { origin, op: RealOp::Linear(layer) }, false)
    }

    fn op_origin(&mut self, value: ValueId) -> Origin {
        let node = value.checked_sub(1).and_then(|number| self.nodes.get(number));
        let name = node.map_or("input", |node| node.origin.name.as_str());
        Origin { name: self.names.own(format!("{name} scaled")), op: "Mul".to_owned() }
    }
}

/// What a sum's terms have to be done behind it, if there is one map for all.
fn joint(terms: &[RealTerm], waiting: &[(ValueId, Option<Affine>)], len: usize) -> Option<Affine> {
    let mut all = Affine::anything(len);
    for (term, (_, pending)) in terms.iter().zip(waiting) {
        let own = match pending {
            Some(pending) => pending.through(&term.gather, term.factor, len)?,
            None => Affine::of_gather(&term.gather, len),
        };
        for ((gain, offset), (own_gain, own_offset)) in
            all.gain.iter_mut().zip(&mut all.offset).zip(own.gain.iter().zip(&own.offset))
        {
            if gain.is_nan() {
                *gain = *own_gain;
            } else if !own_gain.is_nan() && own_gain != gain {
                return None;
            }
            *offset += own_offset;
        }
    }
    Some(all)
}

/// The layer with an affine map in front of it taken up.
fn taken_up(layer: &Linear, base: ValueId, affine: &Affine) -> Option<Linear> {
    let mut made = Linear { input: base, ..layer.clone() };
    match &layer.geometry {
        Geometry::Dense(dense) => {
            for row in made.weights.chunks_exact_mut(dense.inputs) {
                let gains = row.iter_mut().zip(&affine.gain).filter(|(_, gain)| !gain.is_nan());
                gains.for_each(|(weight, gain)| *weight *= gain);
            }
        }
        Geometry::Conv(conv) => {
            let gains = affine.uniform(conv.input[0])?.gain;
            let positions = gains.len() / conv.input[0].max(1);
            let (per_group, taps) = (conv.group_inputs(), conv.kernel[0] * conv.kernel[1]);
            for (channel, kernel) in made.weights.chunks_exact_mut(per_group * taps).enumerate() {
                let first = channel / conv.group_outputs().max(1) * per_group;
                for (input, taps) in kernel.chunks_exact_mut(taps).enumerate() {
                    let gain = *gains.get((first + input) * positions)?;
                    taps.iter_mut().for_each(|weight| *weight *= gain);
                }
            }
        }
    }
    if affine.has_offset() {
        // The padding is zero behind the offset, so the offset goes the layer's way.
        let more = layer.product(&affine.offset)?;
        made.bias.iter_mut().zip(more).for_each(|(bias, more)| *bias += more);
    }
    Some(made)
}

impl Affine {
    /// Of values that are all zero.
    pub(super) fn anything(len: usize) -> Affine {
        Affine { gain: vec![f64::NAN; len], offset: vec![0.0; len] }
    }

    /// Of a gathered value that nothing is to be done to.
    fn of_gather(gather: &Gather, len: usize) -> Affine {
        let mut made = Affine::anything(len);
        match gather {
            Gather::Runs(_) => gather.each(len, |at, _| made.gain[at] = 1.0),
            Gather::All | Gather::Window(_) => made.gain.fill(1.0),
        }
        made
    }

    /// This, and then another.
    fn then(&self, next: &Affine) -> Affine {
        let gain = self.gain.iter().zip(&next.gain).map(|(first, next)| first * next).collect();
        let offsets = self.offset.iter().zip(&next.gain).zip(&next.offset);
        let offset = offsets
            .map(
                |((first, gain), next)| {
                    if gain.is_nan() || *first == 0.0 { *next } else { first * gain + next }
                },
            )
            .collect();
        Affine { gain, offset }
    }

    fn is_nothing(&self) -> bool {
        self.is_offset() && !self.has_offset()
    }

    fn has_offset(&self) -> bool {
        self.offset.iter().any(|&offset| offset != 0.0)
    }

    /// Whether nothing is multiplied.
    fn is_offset(&self) -> bool {
        self.gain.iter().all(|&gain| gain == 1.0 || gain.is_nan())
    }

    /// Whether a ReLU may be in front of it as well as behind.
    pub(super) fn is_positive_gain(&self) -> bool {
        self.gain.iter().all(|&gain| gain > 0.0 || gain.is_nan()) && !self.has_offset()
    }

    /// The map that is the same behind `factor · gather(x)` as this is in front of it.
    fn through(&self, gather: &Gather, factor: f64, len: usize) -> Option<Affine> {
        let mut made = Affine::anything(len);
        match gather {
            Gather::All => made.gain.clone_from(&self.gain),
            Gather::Runs(_) => gather.each(len, |at, from| made.gain[at] = self.gain[from]),
            Gather::Window(window) => made.gain = through_window(&self.gain, window)?,
        }
        crate::real::add(gather, factor, &self.offset, &mut made.offset);
        Some(made)
    }
}

/// Gains behind sums over windows, each channel's being the same.
fn through_window(gain: &[f64], window: &Window) -> Option<Vec<f64>> {
    let positions = window.output[0] * window.output[1];
    let mut made = Vec::with_capacity(window.outputs());
    for gains in gain.chunks_exact(window.input[1] * window.input[2]) {
        made.extend(core::iter::repeat_n(channels::common(gains)?, positions));
    }
    Some(made)
}

/// Gains by channel.
pub(super) mod channels {
    /// The one gain of a channel, 1 if all are free.
    pub(in super::super) fn common(gains: &[f64]) -> Option<f64> {
        let mut fixed = gains.iter().copied().filter(|gain| !gain.is_nan());
        let first = fixed.next().unwrap_or(1.0);
        fixed.all(|gain| gain == first).then_some(first)
    }

    /// The longest channels that have a gain each, and these.
    pub(super) fn of(gains: &[f64]) -> (usize, Vec<f64>) {
        // Places where the gain changes, as distances between which every channel must end.
        let mut run = gains.len().max(1);
        let mut last = f64::NAN;
        for (place, &gain) in gains.iter().enumerate() {
            if gain.is_nan() {
                continue;
            }
            if !last.is_nan() && gain != last {
                run = divisor(run, place);
            }
            last = gain;
        }
        loop {
            let each: Option<Vec<f64>> = gains.chunks(run).map(common).collect();
            match each {
                Some(each) => return (run, each),
                // Free gains hid where a channel ends.
                None => run = (1..run).rev().find(|&shorter| run.is_multiple_of(shorter)).unwrap_or(1),
            }
        }
    }

    fn divisor(a: usize, b: usize) -> usize {
        if b == 0 { a } else { divisor(b, a % b) }
    }
}
