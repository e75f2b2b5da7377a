//! The operators, one file for each family, and the table of them.
//!
//! An operator takes a [`Call`] one of whose inputs depends on the network's and adds steps to the [`Context`]. What it
//! cannot do it refuses in one line: thing, reason, remedy.

mod activation;
mod arithmetic;
mod classical;
mod convolution;
mod einsum;
mod instead;
mod interpolate;
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
mod scatter;
mod window;

use super::call::Call;
use super::context::{Context, Value};
use super::proto::{NodeProto, is_default_domain};
use crate::Error;
pub(crate) use instead::stand_in;
use last::Behind::{self, Complement, Computes, Moves, Relabels, Stays, Turns};

/// What does an operator: its outputs in order.
pub(crate) type Operator = fn(&mut Context, &Call<'_>) -> Result<Vec<Value>, Error>;

/// An operator's name, what does it, and what that is behind something left out at the end.
type Entry = (&'static str, Operator, Behind);

/// All operators that are supported on values which depend on the input.
const OPERATORS: &[Entry] = &[
    ("Abs", activation::abs, Computes),
    ("Add", arithmetic::add, Computes),
    ("ArgMax", last::arg_max, Relabels),
    ("AveragePool", pooling::average, Computes),
    ("BatchNormalization", normalisation::batch, Computes),
    ("Cast", last::cast, Stays),
    ("CastLike", last::cast, Stays),
    ("CenterCropPad", moving::moved_among_zeros, Computes),
    ("Clip", activation::clip, Computes),
    ("Compress", moving::moved, Moves),
    ("Concat", moving::concat, Moves),
    ("Conv", convolution::conv, Computes),
    ("ConvTranspose", convolution::transposed, Computes),
    ("CumSum", reduction::running, Computes),
    ("DepthToSpace", moving::moved, Moves),
    ("DequantizeLinear", quantised::dequantize, Stays),
    ("Div", arithmetic::divide, Computes),
    ("Dropout", moving::dropout, Stays),
    ("Einsum", einsum::einsum, Computes),
    ("Expand", moving::moved, Moves),
    ("Flatten", moving::moved, Relabels),
    ("Gather", moving::moved, Moves),
    ("GatherElements", moving::moved, Moves),
    ("GatherND", moving::moved, Moves),
    ("Gemm", matrix::gemm, Computes),
    ("GlobalAveragePool", pooling::global_average, Computes),
    ("GlobalLpPool", pooling::all_sizes, Computes),
    ("GlobalMaxPool", pooling::global_max, Computes),
    ("HardSigmoid", activation::hard_sigmoid, Computes),
    ("Identity", moving::identity, Stays),
    ("LeakyRelu", activation::leaky_relu, Computes),
    ("LogSoftmax", last::log_softmax, Computes),
    ("LpPool", pooling::sizes_in_windows, Computes),
    ("MatMul", matrix::matmul, Computes),
    ("Max", activation::max, Computes),
    ("MaxPool", pooling::max, Computes),
    ("Mean", arithmetic::mean, Computes),
    ("Min", activation::min, Computes),
    ("Mul", arithmetic::multiply, Computes),
    ("Neg", arithmetic::negate, Computes),
    ("PRelu", activation::prelu, Computes),
    ("Pad", moving::pad, Computes),
    ("QLinearConv", quantised::conv, Computes),
    ("QLinearMatMul", quantised::matmul, Computes),
    ("QuantizeLinear", quantised::quantize, Stays),
    ("ReduceL1", reduction::sum_of_sizes, Computes),
    ("ReduceMax", reduction::max, Computes),
    ("ReduceMean", reduction::mean, Computes),
    ("ReduceMin", reduction::min, Computes),
    ("ReduceSum", reduction::sum, Computes),
    ("Relu", activation::relu, Computes),
    ("Reshape", moving::moved, Relabels),
    ("Resize", resize::resize, Computes),
    ("ReverseSequence", moving::moved, Moves),
    ("Scatter", scatter::elements, Computes),
    ("ScatterElements", scatter::elements, Computes),
    ("ScatterND", scatter::blocks, Computes),
    ("Shape", moving::shape, Stays),
    ("Shrink", activation::shrink, Computes),
    ("Sigmoid", last::sigmoid, Computes),
    ("Size", moving::shape, Stays),
    ("Slice", moving::moved, Moves),
    ("Softmax", last::softmax, Computes),
    ("SpaceToDepth", moving::moved, Moves),
    ("Split", moving::moved, Moves),
    ("Squeeze", moving::moved, Relabels),
    ("Sub", arithmetic::subtract, Complement),
    ("Sum", arithmetic::sum, Computes),
    ("Tanh", last::tanh, Computes),
    ("Tile", moving::moved, Moves),
    ("Transpose", last::transpose, Turns),
    ("Trilu", moving::moved_among_zeros, Computes),
    ("Unsqueeze", moving::moved, Relabels),
    ("Upsample", resize::upsample, Computes),
    ("Where", arithmetic::choose, Computes),
];

/// Those of ONNX's classical machine learning.
const CLASSICAL: &[Entry] = &[
    ("ArrayFeatureExtractor", classical::feature_extractor, Relabels),
    ("Imputer", classical::imputer, Stays),
    ("LinearClassifier", classical::linear_classifier, Computes),
    ("LinearRegressor", classical::linear_regressor, Computes),
    ("Normalizer", classical::normalizer, Stays),
    ("Scaler", classical::scaler, Computes),
    ("ZipMap", classical::zip_map, Stays),
];

/// Those of ONNX Runtime that it writes when it quantises a network.
const RUNTIME: &[Entry] = &[
    ("DequantizeLinear", quantised::dequantize, Stays),
    ("QGemm", runtime::gemm, Computes),
    ("QLinearAdd", runtime::add, Computes),
    ("QLinearAveragePool", runtime::average, Computes),
    ("QLinearConcat", runtime::concat, Computes),
    ("QLinearGlobalAveragePool", runtime::global_average, Computes),
    ("QLinearLeakyRelu", runtime::leaky_relu, Computes),
    ("QLinearMul", runtime::multiply, Computes),
    ("QLinearSigmoid", runtime::sigmoid, Computes),
    ("QuantizeLinear", quantised::quantize, Stays),
];

/// The table of a domain.
fn table(domain: &str) -> &'static [Entry] {
    match domain {
        _ if is_default_domain(domain) => OPERATORS,
        "ai.onnx.ml" => CLASSICAL,
        "com.microsoft" => RUNTIME,
        _ => &[],
    }
}

fn entry(node: &NodeProto) -> Option<&'static Entry> {
    table(&node.domain).iter().find(|(known, ..)| *known == node.op_type)
}

/// Whether a node makes real numbers of integers, or knows what they stand for.
pub(super) fn knows_integers(node: &NodeProto) -> bool {
    let others = ["Cast", "DequantizeLinear", "LinearClassifier", "LinearRegressor", "QGemm", "Scaler"];
    let name = node.op_type.as_str();
    entry(node).is_some() && (name.starts_with("QLinear") || others.contains(&name))
}

/// Whether a node only moves the values of its first input, integers as well as others; or of all, as a Concat does.
pub(super) fn moves_integers(node: &NodeProto) -> bool {
    match entry(node) {
        // What is like another value is of its kind.
        Some(("CastLike", ..)) => false,
        // Its integers are others.
        Some(("QuantizeLinear", ..)) => false,
        // What lies between integers is none.
        Some(("Resize" | "Upsample", ..)) => matches!(node.string("mode"), Ok(None | Some(b"nearest"))),
        Some(("Pad", ..)) => true,
        Some((.., behind)) => matches!(behind, Stays | Relabels | Turns | Moves),
        None => false,
    }
}

/// Does a node.
pub(crate) fn apply(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    let (name, domain) = (call.node.op_type.as_str(), &call.node.domain);
    let Some(&(_, operator, behind)) = entry(call.node) else {
        return Err(call.error(refused::reason(name, domain)));
    };
    if !call.inputs.iter().flatten().any(|value| matches!(value, Value::Secret(_))) {
        return Err(call.of_constants());
    }
    // A product of two secret values is refused for what it is, also where one is a Sigmoid of the other (SiLU).
    let product = is_default_domain(domain)
        && name == "Mul"
        && call.inputs.iter().flatten().all(|value| matches!(value, Value::Secret(_)));
    if !product {
        last::check(call, behind)?;
    }
    operator(context, call)
}
