//! Why operators are not supported, and what could replace them.

const CURVE: &str = "it is a curve, and private inference has straight pieces only: train the network with Relu (or \
                     LeakyRelu, HardSigmoid, Clip) in its place";
const LOOKS_BACK: &str = "it multiplies secret values by secret gates, and products of two secret values are not \
                          supported: use convolutions over time, or layers with Relu";
const DIVIDES: &str = "it divides by a spread that is computed from the input, and division by secret values is not \
                       supported: train with BatchNormalization in its place";
const FLOW: &str = "what is computed would depend on the input, and the steps of a private inference are fixed: export \
                    the network without branches and loops";
const COMPARES: &str = "it makes truth values of secret ones, and only ReLU and what is made of it are supported: end \
                        the network in front of it and do the rest where the answer is read";
const COUNTS: &str = "the number or order of its results depends on secret values: end the network in front of it and \
                      do the rest where the answer is read";
const INTEGERS: &str = "it works on quantised integers: export the network before it was quantised, or quantised with \
                        QuantizeLinear and DequantizeLinear (QDQ)";
const PRODUCT: &str = "it multiplies two secret values, and private inference has products with constants only: train \
                       the network without it";

/// Operators and why they are not supported.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &[
            "Elu",
            "Selu",
            "Celu",
            "Softplus",
            "Softsign",
            "Erf",
            "Gelu",
            "Exp",
            "Log",
            "Sqrt",
            "Reciprocal",
            "Sin",
            "Cos",
            "Tan",
            "Asin",
            "Acos",
            "Atan",
            "Sinh",
            "Cosh",
            "Asinh",
            "Acosh",
            "Atanh",
            "Ceil",
            "Floor",
            "Round",
            "Mish",
            "Sign",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "Hardmax",
            "ThresholdedRelu",
        ],
        CURVE,
    ),
    (&["LSTM", "GRU", "RNN"], LOOKS_BACK),
    (
        &[
            "LRN",
            "InstanceNormalization",
            "LayerNormalization",
            "GroupNormalization",
            "LpNormalization",
            "MeanVarianceNormalization",
            "RMSNormalization",
            "SimplifiedLayerNormalization",
        ],
        DIVIDES,
    ),
    (&["If", "Loop", "Scan", "SequenceMap"], FLOW),
    (
        &[
            "Equal",
            "Greater",
            "GreaterOrEqual",
            "Less",
            "LessOrEqual",
            "Not",
            "And",
            "Or",
            "Xor",
            "IsNaN",
            "IsInf",
        ],
        COMPARES,
    ),
    (&["TopK", "NonZero", "NonMaxSuppression", "Unique", "ArgMin"], COUNTS),
    (&["ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QLinearSoftmax", "QAttention"], INTEGERS),
    (
        &[
            "HardSwish",
            "Swish",
            "Pow",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceProd",
            "Einsum",
            "Attention",
            "MultiHeadAttention",
            "CumProd",
            "Det",
        ],
        PRODUCT,
    ),
];

/// Why an operator of a domain is not supported.
pub(super) fn reason(name: &str, domain: &str) -> String {
    let reason = match (REFUSED.iter().find(|(names, _)| names.contains(&name)), domain) {
        (Some((_, reason)), _) => reason,
        (None, "" | "ai.onnx") => {
            "this operator is not supported: export the network without it, or up to it and do the rest where the \
             answer is read"
        }
        (None, "ai.onnx.ml") => {
            "it is of ONNX's classical machine learning, of which only what is linear is supported (Scaler, \
             LinearClassifier, LinearRegressor): use a model with layers, and keep the probabilities alone (server/IMPORT.md)"
        }
        (None, _) => {
            "this operator is not one of ONNX's but of some runtime: export the network before it is optimised for \
             that runtime"
        }
    };
    reason.to_owned()
}
