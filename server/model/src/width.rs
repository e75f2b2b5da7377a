//! The width of every ring (section 2 of PROTOCOL.md): of what ReLUs read and of the answer, from data or from the
//! worst case; of everything else, what its consumers need.

use crate::execute::Range;
use crate::parallel::in_parallel;
use crate::{
    AFFORDABLE_BITS, Calibration, Error, Execution, Executor, FixedLayer, FixedModel, Geometry, Graph, Op,
    SumWidth, Term, WidthRule,
};

/// Least and largest of a value's numbers, for any input.
pub(crate) type Reach = (i128, i128);

/// Smallest two's-complement width that holds everything from `low` to `high`.
pub fn signed_width(low: i128, high: i128) -> u32 {
    // The complement of a negative number has the same leading bits, minus the sign.
    let magnitude = |v: i128| i128::BITS - (v ^ (v >> 127)).leading_zeros();
    magnitude(low).max(magnitude(high)) + 1
}

/// What a layer makes of values from `low` to `high`; 0 is among them, for padding.
fn of_layer(geometry: &Geometry, layer: &FixedLayer, (low, high): Reach) -> Reach {
    let (low, high) = (low.min(0), high.max(0));
    let mut reach = (i128::MAX, i128::MIN);
    let fan_in = geometry.fan_in();
    let positions = geometry.outputs() / (layer.weights.len() / fan_in).max(1);
    for (row, bias) in layer.weights.chunks_exact(fan_in).zip(layer.bias.chunks_exact(positions.max(1))) {
        let sum = |sign: i64| row.iter().map(|&w| (sign * i64::from(w)).max(0) as i128).sum::<i128>();
        let (positive, negative) = (sum(1), sum(-1));
        let (below, above) = bias.iter().fold((i64::MAX, i64::MIN), |(l, h), &b| (l.min(b), h.max(b)));
        reach.0 = reach.0.min(i128::from(below) + positive * low - negative * high);
        reach.1 = reach.1.max(i128::from(above) + positive * high - negative * low);
    }
    reach
}

/// What a sum makes of its values' reaches.
fn of_sum(terms: &[Term], constant: i32, reaches: &[Reach]) -> Reach {
    let mut sum = (i128::from(constant), i128::from(constant));
    for term in terms {
        let (low, high) = reaches.get(term.value).copied().unwrap_or((0, 0));
        let most = term.gather.most_summed() as i128;
        // Zeros may stand among what is gathered, and windows may be cut off.
        let (low, high) = match term.gather {
            crate::Gather::All => (low, high),
            _ => ((low * most).min(0), (high * most).max(0)),
        };
        let factor = i128::from(term.factor);
        let (a, b) = (low * factor, high * factor);
        sum = (sum.0 + a.min(b), sum.1 + a.max(b));
    }
    sum
}

/// What a node makes of the values before it. `layer` is a secret one's, and `ring` the width of what a ReLU reads, if it
/// is known.
pub(crate) fn reach(op: &Op, layer: Option<&FixedLayer>, ring: Option<u32>, reaches: &[Reach]) -> Reach {
    let of = |value: usize| reaches.get(value).copied().unwrap_or((0, 0));
    let (low, high) = match op {
        Op::Secret { input, geometry } => layer.map_or((0, 0), |layer| of_layer(geometry, layer, of(*input))),
        Op::Public { terms, constant, .. } => of_sum(terms, *constant, reaches),
        Op::Relu { input, shift } => {
            let high = ring.map_or(i128::MAX, |width| (1 << (width - 1)) - 1).min(of(*input).1);
            (0, (high >> shift).max(0))
        }
    };
    // What no model can use; it keeps the sums from overflowing.
    let limit = 1i128 << 100;
    (low.max(-limit), high.min(limit))
}

/// Gives a graph widths that were chosen.
fn use_widths(graph: &mut Graph, sums: &[SumWidth]) {
    let mut decided = vec![2; graph.nodes.len() + 1];
    for sum in sums {
        if let Some(width) = decided.get_mut(sum.value) {
            *width = sum.width;
        }
    }
    graph.set_widths(&decided);
}

impl FixedModel {
    /// Chooses every width by `rule` and from data: the smallest in which nothing of these samples wraps around, and
    /// one bit of margin, or the worst case's. `samples` is any number of inputs, one after the other. Remembers their
    /// range in [`crate::InputSpec::calibrated`].
    ///
    /// # Errors
    /// [`Error::Input`] if that is not one or more whole inputs, [`Error::Width`] if a sum needs more than 32 bits.
    /// The model is then as it was.
    pub fn calibrate(&mut self, samples: &[u8], rule: WidthRule) -> Result<Calibration, Error> {
        let inputs: Vec<&[u8]> = self.graph.input.inputs(samples)?.collect();
        let ranges = self.ranges(&inputs)?;
        let sums = self.settled(Some(&ranges), rule)?;
        let values = self.graph.input.values(samples);
        let range = values.fold([u16::MAX, 0], |[l, h], v| [l.min(v), h.max(v)]);
        let calibration = Calibration {
            inputs: inputs.len(),
            alike: inputs.iter().all(|input| input == &inputs[0]),
            range,
            bits: self.graph.input.bits,
            sums,
        };
        self.graph.input.calibrated = Some(range);
        use_widths(&mut self.graph, &calibration.sums);
        Ok(calibration)
    }

    /// Least and largest of every value that a ReLU reads, and of the answer, over these inputs, nothing wrapped around;
    /// by value, 0 among them. Runs on all cores.
    ///
    /// # Errors
    /// [`Error::Shape`] if the model is not consistent, and those of [`Executor::ranges`].
    pub fn ranges(&self, inputs: &[&[u8]]) -> Result<Vec<Range>, Error> {
        let executor = Executor::new(self)?;
        let none = vec![(0i64, 0i64); self.graph.nodes.len() + 1];
        let parts = in_parallel(inputs, |part| {
            let mut ranges = none.clone();
            part.iter().try_for_each(|input| executor.ranges(input, &mut ranges))?;
            Ok(ranges)
        })?;
        Ok(parts.into_iter().fold(none, |mut all, part| {
            all.iter_mut().zip(part).for_each(|(all, own)| *all = (all.0.min(own.0), all.1.max(own.1)));
            all
        }))
    }

    /// Chooses the widths in which nothing can wrap around, whatever the input. By what a shift is lifted was decided when
    /// the model was made.
    ///
    /// # Errors
    /// [`Error::Width`] if a sum needs more than 32 bits, [`Error::Shape`] if the model is not consistent. The widths
    /// are then as they were.
    pub fn use_worst_case_widths(&mut self) -> Result<(), Error> {
        self.check()?;
        let sums = self.settled(None, WidthRule::Worst)?;
        use_widths(&mut self.graph, &sums);
        Ok(())
    }

    /// The widths, and what is said of them, with every ring as wide as it will be: what several nodes read is as wide
    /// as the widest needs, and lets larger values through than the others need. Rings only grow on the way, and have 32
    /// bits at most, so this ends.
    fn settled(&self, ranges: Option<&[Range]>, rule: WidthRule) -> Result<Vec<SumWidth>, Error> {
        let mut graph = self.graph.clone();
        let mut rings = vec![0; self.graph.nodes.len() + 1];
        loop {
            let sums = self.sums(ranges, rule, &rings)?;
            use_widths(&mut graph, &sums);
            if sums.iter().all(|sum| graph.width(sum.value) <= rings[sum.value]) {
                return Ok(sums);
            }
            for (value, ring) in rings.iter_mut().enumerate() {
                *ring = graph.width(value).max(*ring);
            }
        }
    }

    /// The widths of everything that a ReLU reads and of the answer, in their order. `ranges` is what the calibration
    /// saw, and `rings` are the least widths of the rings that ReLUs read, both by value.
    fn sums(&self, ranges: Option<&[Range]>, rule: WidthRule, rings: &[u32]) -> Result<Vec<SumWidth>, Error> {
        let graph = &self.graph;
        let mut reaches: Vec<Reach> = vec![(0, graph.input.largest().into())];
        let mut sums: Vec<SumWidth> = Vec::new();
        let mut decide = |value: usize, shift: u32, reach: Reach, lifted: bool| {
            // Two bits at least after a shift, and a sign for the device's values.
            let least = (shift + 2).max(if value == 0 { graph.input.bits + 1 } else { 2 });
            let bound = signed_width(reach.0, reach.1);
            let ranges = ranges.filter(|_| !self.known.ranges.contains_key(&value));
            let used =
                ranges.and_then(|r| r.get(value)).map_or(bound, |r| signed_width(r.0.into(), r.1.into()));
            // Not even the margin is needed beyond what any input makes.
            let (calibrated, worst) = (bound.min(used + 1).max(least), bound.max(least));
            let width = match rule {
                WidthRule::Worst => worst,
                WidthRule::Affordable if worst <= (calibrated + AFFORDABLE_BITS).min(32) => worst,
                WidthRule::Affordable | WidthRule::Calibrated => calibrated,
            };
            let clamped = lifted && reach.0 < 0;
            let name = graph.maker(value).to_owned();
            if width > 32 {
                return Err(Error::Width { layer: name, needed: width });
            }
            match sums.iter_mut().find(|sum| sum.value == value) {
                // Read by several ReLUs, with different shifts.
                Some(sum) => {
                    sum.calibrated = sum.calibrated.max(calibrated);
                    sum.worst = sum.worst.max(worst);
                    sum.width = sum.width.max(width);
                    sum.clamped |= clamped;
                }
                None => sums.push(SumWidth { name, value, used, calibrated, worst, width, clamped }),
            }
            Ok(width)
        };
        let mut layers = self.layers.iter();
        for node in &graph.nodes {
            let value = reaches.len();
            let (mut layer, mut ring) = (None, None);
            match &node.op {
                Op::Secret { .. } => layer = layers.next(),
                Op::Public { .. } => {}
                Op::Relu { input, shift } => {
                    let read = reaches.get(*input).copied().unwrap_or((0, 0));
                    let width = decide(*input, *shift, read, self.known.lifted.contains(&value))?;
                    ring = Some(width.max(rings.get(*input).copied().unwrap_or(0)));
                }
            }
            let known = self.known.ranges.get(&value).map(|&(low, high)| (low.into(), high.into()));
            reaches.push(known.unwrap_or_else(|| reach(&node.op, layer, ring, &reaches)));
        }
        let reach = reaches.last().copied().unwrap_or((0, 0));
        decide(graph.answer(), 0, reach, false)?;
        Ok(sums)
    }

    /// Runs one input; [`Executor`] is faster for many.
    ///
    /// # Errors
    /// Those of [`Executor::new`] and [`Executor::run`].
    pub fn execute(&self, input: &[u8]) -> Result<Execution, Error> {
        Executor::new(self)?.run(input)
    }
}
