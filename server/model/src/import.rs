//! From an ONNX file to a fixed-point model.

use crate::chain::{Kind, Linear, Op, Origin, chain};
use crate::compose::{Pool, fold_before};
use crate::onnx::parse;
use crate::quantise::quantise;
use crate::{Error, FixedModel, InputSpec, MAX_LAYERS, MAX_VALUES, Normalisation, Scales};

/// How a model is brought to fixed point.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportOptions {
    /// Fractional bits.
    pub scales: Scales,
    /// How the network wants its input made from the device's values.
    pub normalisation: Normalisation,
    /// Bits of one input value, 1 to 8.
    pub input_bits: u32,
}

impl Default for ImportOptions {
    /// Bytes, divided by 255, at the default scales.
    fn default() -> Self {
        ImportOptions { scales: Scales::default(), normalisation: Normalisation::default(), input_bits: 8 }
    }
}

/// A linear layer with the pooling around it: in front already folded into the weights, behind still to do.
pub(crate) struct Stage {
    pub origin: Origin,
    pub linear: Linear,
    pub pools: Vec<(Origin, Pool)>,
}

/// Imports an ONNX model: a single chain of linear layers (`Conv`, `Gemm`), `Relu` between them, `AveragePool`,
/// `Flatten` and flattening `Reshape`, batch size 1.
///
/// All widths are 32 at first, which is always right but expensive: call [`FixedModel::calibrate`] or
/// [`FixedModel::use_worst_case_widths`] next.
///
/// # Errors
/// [`Error::Onnx`] for bytes that are no such model, [`Error::Node`] for a node that is not supported, naming it,
/// [`Error::Options`] for scales or a normalisation that do not fit the model.
pub fn import(onnx: &[u8], options: &ImportOptions) -> Result<FixedModel, Error> {
    let graph = parse(onnx)?;
    let chain = chain(&graph)?;
    drop(graph);
    let input = InputSpec::new(chain.input, options.input_bits);
    quantise(chain.name, input, stages(chain.ops)?, options)
}

/// Sorts the chain into linear layers with a ReLU between any two, and folds pooling in front of a layer into it.
fn stages(ops: Vec<Op>) -> Result<Vec<Stage>, Error> {
    let mut stages: Vec<Stage> = Vec::new();
    // Whether the last stage still lacks its ReLU.
    let mut open = false;
    let mut front: Vec<(Origin, Pool)> = Vec::new();
    let mut values = 0usize;
    for Op { origin, kind } in ops {
        match (kind, stages.last_mut()) {
            (Kind::Relu, Some(_)) if open => open = false,
            (Kind::Relu, _) => {
                return Err(origin.error(
                    "a ReLU must follow a linear layer (Conv or Gemm), and this one does not: leave it out",
                ));
            }
            (Kind::Pool(pool), Some(stage)) if open => stage.pools.push((origin, pool)),
            (Kind::Pool(pool), _) => front.push((origin, pool)),
            (Kind::Linear(_), _) if open => {
                return Err(origin.error(
                    "two linear layers in a row are not supported: merge them, or put a Relu between",
                ));
            }
            (Kind::Linear(mut linear), _) => {
                while let Some((origin, pool)) = front.pop() {
                    linear = fold_before(linear, &pool).map_err(|e| origin.error(e))?;
                }
                values =
                    values.saturating_add(linear.weights.len()).saturating_add(linear.geometry.outputs());
                if values > MAX_VALUES || stages.len() == MAX_LAYERS {
                    return Err(origin.error(format!(
                        "with it the model is too large, {MAX_LAYERS} layers and {MAX_VALUES} weights and outputs are possible: use a smaller network"
                    )));
                }
                stages.push(Stage { origin, linear, pools: Vec::new() });
                open = true;
            }
        }
    }
    if !open || !front.is_empty() {
        return Err(Error::Onnx(
            "the last layer must be linear (Conv or Gemm), with no Relu behind it: export the network up to its logits"
                .to_owned(),
        ));
    }
    Ok(stages)
}
