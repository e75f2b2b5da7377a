//! What can be wrong with a model.

/// What is wrong with a model, its file or its input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shape, width or placement the protocol cannot serve.
    #[error("model shape: {0}")]
    Shape(String),
}
