//! The operators, one file for each family, and the table of them.
//!
//! An operator takes a [`Call`] one of whose inputs depends on the network's and adds steps to the [`Context`]. What it
//! cannot do it refuses in one line: thing, reason, remedy.

mod activation;
mod arithmetic;
mod convolution;
mod last;
mod matrix;
mod maximum;
mod moving;
mod normalisation;
mod pooling;
pub(crate) mod quantised;
mod reduction;
mod refused;
mod resize;
mod window;

use super::call::Call;
use super::context::{Context, Value};
use crate::Error;

/// What does an operator: its outputs in order.
pub(crate) type Operator = fn(&mut Context, &Call<'_>) -> Result<Vec<Value>, Error>;

/// All operators that are supported on values which depend on the input.
const OPERATORS: &[(&str, Operator)] = &[
    ("Abs", activation::abs),
    ("Add", arithmetic::add),
    ("ArgMax", last::arg_max),
    ("AveragePool", pooling::average),
    ("BatchNormalization", normalisation::batch),
    ("Cast", last::cast),
    ("CastLike", last::cast),
    ("Clip", activation::clip),
    ("Concat", moving::concat),
    ("Conv", convolution::conv),
    ("ConvTranspose", convolution::transposed),
    ("DepthToSpace", moving::moved),
    ("DequantizeLinear", quantised::dequantize),
    ("Div", arithmetic::divide),
    ("Dropout", moving::dropout),
    ("Expand", moving::moved),
    ("Flatten", moving::moved),
    ("Gather", moving::moved),
    ("Gemm", matrix::gemm),
    ("GlobalAveragePool", pooling::global_average),
    ("GlobalMaxPool", pooling::global_max),
    ("HardSigmoid", activation::hard_sigmoid),
    ("Identity", moving::identity),
    ("LeakyRelu", activation::leaky_relu),
    ("LogSoftmax", last::log_softmax),
    ("MatMul", matrix::matmul),
    ("Max", activation::max),
    ("MaxPool", pooling::max),
    ("Mean", arithmetic::mean),
    ("Min", activation::min),
    ("Mul", arithmetic::multiply),
    ("Neg", arithmetic::negate),
    ("PRelu", activation::prelu),
    ("Pad", moving::pad),
    ("QLinearConv", quantised::conv),
    ("QLinearMatMul", quantised::matmul),
    ("QuantizeLinear", quantised::quantize),
    ("ReduceMax", reduction::max),
    ("ReduceMean", reduction::mean),
    ("ReduceMin", reduction::min),
    ("ReduceSum", reduction::sum),
    ("Relu", activation::relu),
    ("Reshape", moving::moved),
    ("Resize", resize::resize),
    ("Shape", moving::shape),
    ("Sigmoid", last::sigmoid),
    ("Size", moving::shape),
    ("Slice", moving::moved),
    ("Softmax", last::softmax),
    ("SpaceToDepth", moving::moved),
    ("Split", moving::moved),
    ("Squeeze", moving::moved),
    ("Sub", arithmetic::subtract),
    ("Sum", arithmetic::sum),
    ("Tanh", last::tanh),
    ("Tile", moving::moved),
    ("Transpose", moving::moved),
    ("Unsqueeze", moving::moved),
    ("Upsample", resize::upsample),
];

/// Those that may stand behind what is left out at the end: they only relabel or carry on.
const BEHIND_LAST: &[&str] = &[
    "ArgMax",
    "Cast",
    "CastLike",
    "Dropout",
    "Flatten",
    "Identity",
    "Reshape",
    "Shape",
    "Size",
    "Squeeze",
    "Unsqueeze",
];

/// Does a node.
pub(crate) fn apply(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let name = call.node.op_type.as_str();
    let domain = &call.node.domain;
    let own = super::proto::is_default_domain(domain);
    let operator = OPERATORS.iter().find(|(known, _)| *known == name).filter(|_| own);
    let Some((_, operator)) = operator else {
        return Err(call.error(refused::reason(name, domain)));
    };
    // A product of two secret values is refused for what it is, also where one is a Sigmoid of the other (SiLU).
    let product =
        name == "Mul" && call.inputs.iter().flatten().all(|value| matches!(value, Value::Secret(_)));
    if !product {
        last::check(call, BEHIND_LAST.contains(&name))?;
    }
    operator(context, call)
}
