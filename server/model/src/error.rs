//! What can be wrong with a model.

/// What is wrong with a model, its file or its input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shape, width or placement the protocol cannot serve.
    #[error("model shape: {0}")]
    Shape(String),
    /// The bytes are no ONNX model, or one whose frame (size, opset, input, output) is not supported.
    #[error("ONNX model: {0}")]
    Onnx(String),
    /// A node of the ONNX graph that cannot be imported.
    #[error("ONNX node {name} ({op}): {what}")]
    Node {
        /// Name of the node, or of its output if it has none.
        name: String,
        /// Operator type.
        op: String,
        /// What is wrong, and what would be supported.
        what: String,
    },
    /// Scales or input normalisation that make no sense for this model.
    #[error("import options: {0}")]
    Options(String),
    /// Values that do not fit the widest ring.
    #[error(
        "layer {layer} needs {needed} bits for its sums, and 32 are possible: give weights or activations fewer bits"
    )]
    Width {
        /// Name of the layer.
        layer: String,
        /// Bits its accumulator needs, margin included.
        needed: u32,
    },
    /// An input or calibration set that is not of the model's input shape.
    #[error("model input: {0}")]
    Input(String),
    /// A file that is no readable `.npy` array of the expected type.
    #[error("npy array: {0}")]
    Npy(String),
    /// The bytes do not begin as a server's model file does.
    #[error("this is not a server's model file: give one that `seco split` wrote")]
    NotModelFile,
    /// A server's model file that is cut short or changed.
    #[error("the server's model file is truncated or damaged: copy it again")]
    DamagedModelFile,
    /// A server's model file of an earlier format.
    #[error(
        "the server's model file has format {found}, written by an older version; this one reads {supported}: split the \
         model again, for all servers"
    )]
    OlderModelFile {
        /// Format of the file.
        found: u16,
        /// The format this version reads.
        supported: u16,
    },
    /// A server's model file of a later format.
    #[error(
        "the server's model file has format {found}, written by a newer version; this one reads up to {supported}: \
         install the newer version"
    )]
    NewerModelFile {
        /// Format of the file.
        found: u16,
        /// Newest format this version reads.
        supported: u16,
    },
}
