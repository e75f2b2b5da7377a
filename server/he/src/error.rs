//! What can go wrong with a linear layer.

/// Why a linear layer failed.
///
/// [`Error::Length`], [`Error::Residue`] and [`Error::Commitment`], alone or in [`Error::Message`], are the peer's
/// doing, [`Error::Model`], [`Error::Width`], [`Error::Ciphertexts`], [`Error::NoiseBudget`] and
/// [`Error::Layer`] are the model's, the others are misuse by the caller. None carries secret content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A message from a peer has the wrong length.
    #[error("{what}: {got} bytes where {expected} are due")]
    Length {
        /// Which message.
        what: &'static str,
        /// Bytes that came.
        got: usize,
        /// Bytes that the layer's shape prescribes.
        expected: usize,
    },
    /// A message from a peer has a residue that is not reduced, or padding bits that are not zero.
    #[error("{0}: not in canonical form")]
    Residue(&'static str),
    /// Which of several peers' messages an error is about.
    #[error("message {position}: {source}")]
    Message {
        /// Index of the message in the order given.
        position: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// A layer's shape is unusable.
    #[error(transparent)]
    Model(#[from] seco_model::Error),
    /// A layer's width is not between 1 and 32 bits.
    #[error("width of {0} bits; from 1 to 32 are possible")]
    Width(u32),
    /// A layer is so large that it would take more ciphertexts.
    #[error("the layer needs more than {0} ciphertexts: make its input, its channels or its kernel smaller")]
    Ciphertexts(usize),
    /// The worst-case noise of a layer, smudging included, does not fit the ciphertext modulus.
    #[error(
        "its worst-case noise needs answers modulo a number of {needed} bits where {available} are there; give it a \
         smaller width or fewer inputs"
    )]
    NoiseBudget {
        /// Bits of the modulus `q'` that the layer needs.
        needed: u64,
        /// Bits of `q'` in the largest set that was allowed.
        available: u64,
    },
    /// Which layer an error is about, counted from 0 in the order given.
    #[error("linear layer {layer}: {source}")]
    Layer {
        /// Index of the layer.
        layer: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// The number of servers is out of range.
    #[error("{0} servers; from 2 to {max} are possible", max = seco_model::MAX_SERVERS)]
    Servers(usize),
    /// A list has the wrong number of items.
    #[error("{got} {what} where {expected} are due")]
    Count {
        /// Items of what.
        what: &'static str,
        /// Items given.
        got: usize,
        /// Items that the layer or the number of servers prescribes.
        expected: usize,
    },
    /// A weight does not fit the layer's width.
    #[error("a weight is not below 2^{0}")]
    Weight(u32),
    /// A server's public share is not the one that it committed to.
    #[error("the public key share is not the one that was committed to")]
    Commitment,
    /// The same thing was asked of a key set twice.
    #[error("a second {0} for the same bundle and layer under one key set")]
    Repeated(&'static str),
    /// A key set has served as much as it may.
    #[error("the key set has served its {limit} {what}; new keys are due")]
    Exhausted {
        /// What is counted.
        what: &'static str,
        /// The most that a key set may serve.
        limit: u64,
    },
    /// Things made under different parameters were used together.
    #[error("keys, plan or product belong to different parameters")]
    Mismatch,
    /// The ring arithmetic refused its own parameters: a defect, not an input.
    #[error("ring arithmetic: {0}")]
    Ring(#[from] fhe_math::Error),
    /// `fhe` refused the parameter set: a defect, not an input.
    #[error("parameter set: {0}")]
    Set(#[from] fhe::Error),
}

impl Error {
    /// Says which peer's message an error is about.
    pub(crate) fn of_message(position: usize) -> impl Fn(Self) -> Self {
        move |source| Self::Message { position, source: Box::new(source) }
    }

    /// `Ok` if a peer's message has the length that is due.
    pub(crate) fn check_length(what: &'static str, got: usize, expected: usize) -> Result<(), Self> {
        if got == expected { Ok(()) } else { Err(Error::Length { what, got, expected }) }
    }

    /// `Ok` if a list has the number of items that are due.
    pub(crate) fn check_count(what: &'static str, got: usize, expected: usize) -> Result<(), Self> {
        if got == expected { Ok(()) } else { Err(Error::Count { what, got, expected }) }
    }
}
