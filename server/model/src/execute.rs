//! Running a model in clear, with the integer arithmetic of the private protocol (section 2 of PROTOCOL.md): the
//! private result equals this one bit for bit.

use crate::wide::multiply;
use crate::{Error, FixedLayer, FixedModel, Geometry, Op, Term};

/// The result of one inference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The answer, in its width's two's complement.
    pub logits: Vec<i32>,
    /// How many values did not fit where it matters: at a ReLU or in the answer, where they wrapped around, or below what
    /// a shift was lifted by ([`crate::Known::lifted`]), where they were cut off.
    pub wrapped: u64,
}

impl Execution {
    /// Index of the largest logit, the first of several; 0 without any.
    pub fn label(&self) -> usize {
        first_largest(&self.logits)
    }
}

/// Number of the largest value, the first of several; 0 without any.
pub(crate) fn first_largest<T: PartialOrd>(values: &[T]) -> usize {
    (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best }).unwrap_or(0)
}

/// A model made ready for many inferences.
pub struct Executor<'a> {
    model: &'a FixedModel,
    layers: Vec<Prepared>,
    /// For every value the last node that reads it.
    last_use: Vec<usize>,
}

/// What is computed once for a layer.
struct Prepared {
    /// Weights mod `2^32`.
    weights: Vec<u32>,
    /// Largest sum of magnitudes of the weights of one output value.
    heaviest: u64,
}

/// Least and largest of a value's numbers.
pub type Range = (i64, i64);

impl<'a> Executor<'a> {
    /// Checks the model and prepares it.
    ///
    /// # Errors
    /// [`Error::Shape`] if the model is not consistent.
    pub fn new(model: &'a FixedModel) -> Result<Executor<'a>, Error> {
        model.check()?;
        let prepare = |(geometry, layer): (&Geometry, &FixedLayer)| {
            let rows = layer.weights.chunks_exact(geometry.fan_in());
            let heaviest = rows.map(|row| row.iter().map(|w| u64::from(w.unsigned_abs())).sum()).max();
            Prepared {
                weights: layer.weights.iter().map(|&w| w as u32).collect(),
                heaviest: heaviest.unwrap_or(0),
            }
        };
        let layers =
            model.graph.layers().map(|layer| layer.geometry).zip(&model.layers).map(prepare).collect();
        let mut last_use = vec![0; model.graph.nodes.len() + 1];
        for (number, node) in model.graph.nodes.iter().enumerate() {
            node.inputs().for_each(|value| last_use[value] = number);
        }
        Ok(Executor { model, layers, last_use })
    }

    /// Runs one input: row-major values of the input's shape, as bytes ([`crate::InputSpec`]).
    ///
    /// # Errors
    /// [`Error::Input`] if their number is wrong or one has too many bits.
    pub fn run(&self, input: &[u8]) -> Result<Execution, Error> {
        let mut wrapped = 0;
        let mut answer = self.walk(input, true, |graph_value, lifted, values| {
            let width = self.model.graph.width(graph_value);
            let wrong = |value: i64| wrap(value, width) != value || (lifted && value < 0);
            wrapped += values.iter().filter(|&&value| wrong(value)).count() as u64;
            Ok(())
        })?;
        let width = self.model.graph.answer_width();
        // A wrapped value has at most 32 bits, so nothing is lost.
        let logits = answer.drain(..).map(|value| wrap(value, width) as i32).collect();
        Ok(Execution { logits, wrapped })
    }

    /// Widens the range of every value that a ReLU reads, and of the answer, by what this input makes of it, nothing
    /// wrapped. `ranges` is by value.
    ///
    /// # Errors
    /// [`Error::Input`], and [`Error::Width`] if one does not fit 31 bits and the margin.
    pub fn ranges(&self, input: &[u8], ranges: &mut [Range]) -> Result<(), Error> {
        self.walk(input, false, |value, _, values| {
            let Some(range) = ranges.get_mut(value) else { return Ok(()) };
            let (low, high) = values.iter().fold(*range, |(low, high), &v| (low.min(v), high.max(v)));
            *range = (low, high);
            let largest = low.unsigned_abs().max(high.unsigned_abs());
            if largest > 1 << 30 {
                let needed = u64::BITS - largest.leading_zeros() + 2;
                return Err(Error::Width { layer: self.model.graph.maker(value).to_owned(), needed });
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Walks the graph, with ReLUs that read wrapped values or exact ones. `decision` sees every value, unwrapped, that
    /// a ReLU reads, with whether it was lifted above zero, and the answer, which is returned.
    fn walk(
        &self,
        input: &[u8],
        wrapping: bool,
        mut decision: impl FnMut(usize, bool, &[i64]) -> Result<(), Error>,
    ) -> Result<Vec<i64>, Error> {
        let graph = &self.model.graph;
        let mut values: Vec<Vec<i64>> = vec![Vec::new(); graph.nodes.len() + 1];
        values[0] = self.input(input)?;
        let mut layers = self.layers.iter().zip(&self.model.layers);
        for (number, node) in graph.nodes.iter().enumerate() {
            let result = match &node.op {
                Op::Secret { input, geometry } => {
                    let (prepared, layer) =
                        layers.next().ok_or_else(|| Error::Shape("layers without weights".to_owned()))?;
                    prepared.accumulate(geometry, &layer.bias, &values[*input])
                }
                Op::Public { terms, constant, len } => {
                    let mut sum = vec![i64::from(*constant); *len];
                    for Term { value, factor, gather } in terms {
                        let (factor, from) = (i64::from(*factor), &values[*value]);
                        gather.each(*len, |at, place| {
                            sum[at] = sum[at].wrapping_add(from[place].wrapping_mul(factor));
                        });
                    }
                    sum
                }
                Op::Relu { input, shift } => {
                    let (width, from) = (graph.width(*input), &values[*input]);
                    decision(*input, self.model.known.lifted.contains(&(number + 1)), from)?;
                    let read = |value: i64| if wrapping { wrap(value, width) } else { value };
                    from.iter().map(|&value| (read(value) >> shift).max(0)).collect()
                }
            };
            values[number + 1] = result;
            for value in node.inputs() {
                if self.last_use[value] == number {
                    values[value] = Vec::new();
                }
            }
        }
        let answer = values.pop().unwrap_or_default();
        decision(graph.answer(), false, &answer)?;
        Ok(answer)
    }

    fn input(&self, input: &[u8]) -> Result<Vec<i64>, Error> {
        let spec = &self.model.graph.input;
        if input.len() != spec.byte_len() {
            let (found, wanted, each) = (input.len(), spec.byte_len(), spec.value_bytes());
            return Err(Error::Input(format!(
                "it has {found} bytes, and the model takes {wanted}, {each} for each value"
            )));
        }
        if spec.values(input).any(|v| u32::from(v) >> spec.bits != 0) {
            return Err(Error::Input(format!(
                "a value does not fit the {} bits of the model's inputs",
                spec.bits
            )));
        }
        Ok(spec.values(input).map(i64::from).collect())
    }
}

impl Prepared {
    /// The accumulators of a layer, bias included: exact where they have fewer than 64 bits, else right mod `2^64`.
    fn accumulate(&self, geometry: &Geometry, bias: &[i64], x: &[i64]) -> Vec<i64> {
        let largest = x.iter().map(|x| x.unsigned_abs()).max().unwrap_or(0);
        let bound = u128::from(self.heaviest) * u128::from(largest);
        let mut out = vec![0; geometry.outputs()];
        if bound < 1 << 31 {
            let x: Vec<u32> = x.iter().map(|&x| x as u32).collect();
            let mut words = vec![0u32; out.len()];
            multiply(geometry, &self.weights, &x, &mut words);
            out.iter_mut().zip(words).for_each(|(o, w)| *o = i64::from(w as i32));
        } else {
            let weights: Vec<i64> = self.weights.iter().map(|&w| i64::from(w as i32)).collect();
            multiply(geometry, &weights, x, &mut out);
        }
        out.iter_mut().zip(bias).for_each(|(o, b)| *o = o.wrapping_add(*b));
        out
    }
}

/// `value` in `width` bits two's complement.
pub(crate) fn wrap(value: i64, width: u32) -> i64 {
    let unused = i64::BITS - width.clamp(1, 63);
    value << unused >> unused
}
