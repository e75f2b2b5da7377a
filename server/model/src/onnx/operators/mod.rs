//! The operators, one file for each family, and the table of them.
//!
//! An operator takes a [`Call`] one of whose inputs depends on the network's and adds steps to the [`Context`]. What it
//! cannot do it refuses in one line: thing, reason, remedy.

mod activation;
mod arithmetic;
mod classical;
mod convolution;
pub(crate) mod last;
mod matrix;
mod maximum;
mod moving;
mod normalisation;
mod pooling;
pub(crate) mod quantised;
mod reduction;
mod refused;
mod resize;
mod runtime;
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
    ("GatherND", moving::moved),
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
    ("Transpose", last::transpose),
    ("Unsqueeze", moving::moved),
    ("Upsample", resize::upsample),
    ("Where", arithmetic::choose),
];

/// Those of ONNX's classical machine learning.
const CLASSICAL: &[(&str, Operator)] = &[
    ("ArrayFeatureExtractor", classical::feature_extractor),
    ("LinearClassifier", classical::linear_classifier),
    ("LinearRegressor", classical::linear_regressor),
    ("Normalizer", classical::normalizer),
    ("Scaler", classical::scaler),
    ("ZipMap", classical::zip_map),
];

/// Those of ONNX Runtime that it writes when it quantises a network.
const RUNTIME: &[(&str, Operator)] = &[
    ("DequantizeLinear", quantised::dequantize),
    ("QGemm", runtime::gemm),
    ("QLinearAdd", runtime::add),
    ("QLinearAveragePool", runtime::average),
    ("QLinearConcat", runtime::concat),
    ("QLinearGlobalAveragePool", runtime::global_average),
    ("QLinearLeakyRelu", runtime::leaky_relu),
    ("QLinearMul", runtime::multiply),
    ("QLinearSigmoid", runtime::sigmoid),
    ("QuantizeLinear", quantised::quantize),
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

/// Those that may stand behind what is left out at the end where that is done value by value: they move values about.
const BEHIND_EACH: &[&str] =
    &["Concat", "DepthToSpace", "Expand", "Gather", "Slice", "SpaceToDepth", "Split", "Tile", "Transpose"];

/// Does a node.
pub(crate) fn apply(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let name = call.node.op_type.as_str();
    let domain = &call.node.domain;
    let own = super::proto::is_default_domain(domain);
    let table = match domain.as_str() {
        _ if own => OPERATORS,
        "ai.onnx.ml" => CLASSICAL,
        "com.microsoft" => RUNTIME,
        _ => &[],
    };
    let operator = table.iter().find(|(known, _)| *known == name);
    let Some((_, operator)) = operator else {
        return Err(call.error(refused::reason(name, domain)));
    };
    if !call.inputs.iter().flatten().any(|value| matches!(value, Value::Secret(_))) {
        return Err(call.error(
            "this operator is not supported on constants: replace it by its result, say with onnxsim",
        ));
    }
    // A product of two secret values is refused for what it is, also where one is a Sigmoid of the other (SiLU).
    let product =
        own && name == "Mul" && call.inputs.iter().flatten().all(|value| matches!(value, Value::Secret(_)));
    if !product {
        let behind = match name {
            // Of a QLinearSigmoid.
            "DequantizeLinear" => last::Behind::Relabels,
            name if !own => classical::behind(name),
            "Sub" => last::Behind::Complement,
            "Transpose" => last::Behind::Turns,
            name if BEHIND_LAST.contains(&name) => last::Behind::Relabels,
            name if BEHIND_EACH.contains(&name) => last::Behind::Moves,
            _ => last::Behind::Computes,
        };
        last::check(call, behind)?;
    }
    operator(context, call)
}
