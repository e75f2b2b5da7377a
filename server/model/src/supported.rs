//! Networks that the importer cannot take: the cause, named before its consequences, and what to do.

use std::collections::BTreeSet;

use crate::Error;
use crate::chain::{Constants, Origin};
use crate::onnx::{GraphProto, NodeProto, is_default_domain, printable};

/// Operators the importer knows, apart from `Constant`.
const SUPPORTED: [&str; 6] = ["Conv", "Gemm", "AveragePool", "Relu", "Flatten", "Reshape"];

/// What its owner can do about an operator that the importer does not know.
fn remedy(operator: &str) -> &'static str {
    match operator {
        "BatchNormalization" => {
            "fold it into the Conv or Gemm next to it before the export (in PyTorch torch.nn.utils.fusion)"
        }
        "MaxPool" | "GlobalMaxPool" | "GlobalAveragePool" | "ReduceMean" => {
            "use AveragePool with a fixed window"
        }
        "MatMul" => "use a fully connected layer with a bias, which is exported as Gemm",
        "Softmax" | "LogSoftmax" | "Sigmoid" | "ArgMax" => {
            "leave it out if it comes last: the largest output stays the largest"
        }
        "LeakyRelu" | "PRelu" | "Elu" | "Selu" | "Celu" | "Gelu" | "Clip" | "HardSwish" | "HardSigmoid"
        | "Tanh" | "Softplus" | "Mish" => "train the network with Relu instead",
        "Identity" | "Dropout" | "Cast" | "Shape" | "Gather" | "Unsqueeze" | "Squeeze" | "Concat"
        | "Slice" => "export for inference and simplify the file, say with onnxsim",
        _ => "change the network, or simplify the file, say with onnxsim",
    }
}

/// Refuses operators that the importer does not know, all at once, before anything that follows from them.
pub(crate) fn all_supported(graph: &GraphProto) -> Result<(), Error> {
    let known = |n: &NodeProto| SUPPORTED.contains(&n.op_type.as_str()) || n.op_type == "Constant";
    let mut unknown = graph.node.iter().filter(|n| is_default_domain(&n.domain) && !known(n));
    // What follows a cause is often a consequence of it, but constants are copied about in front of everything.
    let constants = |n: &&NodeProto| matches!(n.op_type.as_str(), "Identity" | "Cast" | "Shape" | "Gather");
    let Some(first) = unknown.clone().find(|n| !constants(n)).or_else(|| unknown.clone().next()) else {
        return Ok(());
    };
    let others: BTreeSet<String> =
        unknown.by_ref().filter(|n| n.op_type != first.op_type).map(|n| printable(&n.op_type)).collect();
    let others: Vec<String> = others.into_iter().take(8).collect();
    let others = match others.as_slice() {
        [] => String::new(),
        others => format!(", and neither are {}, which the network has too", others.join(", ")),
    };
    Err(Origin::new(first).error(format!(
        "this operator is not supported ({} are){others}: {}",
        SUPPORTED.join(", "),
        remedy(&first.op_type)
    )))
}

/// Why a node does not go on where the one before it ended.
pub(crate) fn off_the_chain(graph: &GraphProto, node: &NodeProto, constants: &Constants<'_>) -> String {
    let Some(input) = node.input.first() else {
        return "it has no input: the file is damaged, so export it again".to_owned();
    };
    let maker = graph.node.iter().find(|n| n.output.contains(input));
    let from = match maker {
        _ if constants.contains_key(input.as_str()) => {
            return format!(
                "its first input {} is a constant, where the data of the node before is expected: simplify the file, \
                 say with onnxsim",
                printable(input)
            );
        }
        Some(maker) => Origin::new(maker),
        None if graph.input.iter().any(|i| i.name == *input) => {
            Origin { name: printable(input), op: "the network's input".to_owned() }
        }
        None => {
            let name = printable(input);
            return format!("no node makes its input {name}: the file is damaged, so export it again");
        }
    };
    format!(
        "it goes on from {} ({}), which is not the node just before it: the network branches (a skip connection, a \
         second path), and only a single path from input to output is supported; use a network without",
        from.name, from.op
    )
}
