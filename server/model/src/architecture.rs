//! What every server knows of a model: shapes, widths, shifts and who holds which weights.

use serde::{Deserialize, Serialize};

use crate::{Error, Graph};

/// Largest number of layers a model may have.
pub const MAX_LAYERS: usize = 1024;
/// Largest number of servers.
pub const MAX_SERVERS: usize = 8;
/// Largest number of values of an input, and of what is computed of constants; other limits are multiples of it. Bounds
/// the memory that a file of a few bytes can ask for.
pub const MAX_VALUES: usize = 1 << 25;
/// Largest number of weights and biases (one for each output value) of all layers together: what large published networks
/// have (VGG-19 144 million), and room.
pub const MAX_WEIGHTS: usize = 1 << 28;

/// Most bits of an input value.
pub const MAX_INPUT_BITS: u32 = 16;

/// The input the device sends: `shape` values of `bits` bits (unsigned).
///
/// An input is bytes: one for each value of up to 8 bits; two, the lower one first, for each of more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Encoded", into = "Encoded")]
pub struct InputSpec {
    /// Shape without the batch axis, row-major.
    pub shape: Vec<usize>,
    /// Bits of one value, 1 to [`MAX_INPUT_BITS`].
    pub bits: u32,
    /// Smallest and largest value of the inputs that calibrated the widths, if any did. Values beyond may make
    /// accumulators wrap around, so devices are told.
    pub calibrated: Option<[u16; 2]>,
    /// What values stand for, where the network's owner gave real numbers.
    pub reals: Option<Reals>,
}

/// The real numbers that input values stand for: a value `q` of channel `c` for `offset[c] + scale[c] · q`. Both lists have one
/// number for all, or one for each place of the first axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reals {
    /// Positive.
    pub scale: Vec<f64>,
    /// What 0 stands for.
    pub offset: Vec<f64>,
}

// Its numbers are finite (checked), so equality is an equivalence.
impl Eq for Reals {}

impl Reals {
    /// Whether these are numbers for inputs of this shape.
    pub(crate) fn fits(&self, shape: &[usize]) -> bool {
        let channels = shape.first().copied().unwrap_or(1);
        let one_or_each = |list: &[f64]| list.len() == 1 || list.len() == channels;
        let positive = self.scale.iter().all(|scale| scale.is_normal() && *scale > 0.0);
        one_or_each(&self.scale)
            && one_or_each(&self.offset)
            && positive
            && self.offset.iter().all(|offset| offset.is_finite())
    }

    /// Scale and offset of every value of an input of this shape, which they fit.
    pub(crate) fn by_value(&self, shape: &[usize]) -> impl Iterator<Item = (f64, f64)> {
        let len: usize = shape.iter().product();
        let run = len / shape.first().copied().unwrap_or(1).max(1);
        let pick = move |list: &[f64], at: usize| {
            list.get(if list.len() == 1 { 0 } else { at / run.max(1) }).copied().unwrap_or_default()
        };
        (0..len).map(move |at| (pick(&self.scale, at), pick(&self.offset, at)))
    }
}

/// An input as it is encoded. Without real numbers it is what it was before there were any.
#[derive(Serialize, Deserialize)]
struct Encoded {
    shape: Vec<usize>,
    bits: u32,
    rest: Rest,
}

/// Of bytes it is what it was before there were larger values: an `Option` of two bytes.
#[derive(Serialize, Deserialize)]
enum Rest {
    Unknown,
    Bytes([u8; 2]),
    Words([u16; 2]),
    Reals(Option<[u16; 2]>, Reals),
}

impl From<InputSpec> for Encoded {
    fn from(InputSpec { shape, bits, calibrated, reals }: InputSpec) -> Encoded {
        let rest = match (reals, calibrated) {
            (Some(reals), range) => Rest::Reals(range, reals),
            (None, None) => Rest::Unknown,
            (None, Some(range)) => match range.map(u8::try_from) {
                [Ok(least), Ok(most)] => Rest::Bytes([least, most]),
                _ => Rest::Words(range),
            },
        };
        Encoded { shape, bits, rest }
    }
}

impl From<Encoded> for InputSpec {
    fn from(Encoded { shape, bits, rest }: Encoded) -> InputSpec {
        let (calibrated, reals) = match rest {
            Rest::Unknown => (None, None),
            Rest::Bytes(range) => (Some(range.map(u16::from)), None),
            Rest::Words(range) => (Some(range), None),
            Rest::Reals(range, reals) => (range, Some(reals)),
        };
        InputSpec { shape, bits, calibrated, reals }
    }
}

/// Largest value of so many bits, 16 at most.
pub fn largest(bits: u32) -> u16 {
    u16::MAX.checked_shr(u16::BITS.saturating_sub(bits)).unwrap_or_default()
}

impl InputSpec {
    /// An input that no calibration has seen.
    pub fn new(shape: Vec<usize>, bits: u32) -> InputSpec {
        InputSpec { shape, bits, calibrated: None, reals: None }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Largest value.
    pub fn largest(&self) -> u16 {
        largest(self.bits)
    }

    /// Bytes of one value.
    pub fn value_bytes(&self) -> usize {
        if self.bits > u8::BITS { 2 } else { 1 }
    }

    /// Bytes of one input.
    pub fn byte_len(&self) -> usize {
        self.len().saturating_mul(self.value_bytes())
    }

    /// The values that bytes stand for. What is left at the end of them, half a value, is none.
    pub fn values<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = u16> + use<'a> {
        let of = |value: &[u8]| value.iter().rev().fold(0u16, |all, &byte| all << 8 | u16::from(byte));
        bytes.chunks_exact(self.value_bytes()).map(of)
    }

    /// Real numbers in units of input values, not rounded and not cut off: what the network would see of a device whose
    /// values had no end.
    pub(crate) fn unrounded(&self, reals: &[f64]) -> Vec<f64> {
        match &self.reals {
            None => reals.to_vec(),
            Some(by) => {
                let pairs = reals.iter().zip(by.by_value(&self.shape));
                pairs.map(|(real, (scale, offset))| (real - offset) / scale).collect()
            }
        }
    }

    /// The bytes that stand for values, which must not have more bits than they may.
    pub fn bytes(&self, values: impl IntoIterator<Item = u16>) -> Vec<u8> {
        let each = self.value_bytes();
        values.into_iter().flat_map(|value| value.to_le_bytes().into_iter().take(each)).collect()
    }

    /// Cuts `samples`, bytes of one input after the other, into single inputs.
    ///
    /// # Errors
    /// [`Error::Input`] if that is not one or more whole ones.
    pub fn inputs<'a>(&self, samples: &'a [u8]) -> Result<core::slice::ChunksExact<'a, u8>, Error> {
        let len = self.byte_len().max(1);
        if samples.is_empty() || !samples.len().is_multiple_of(len) {
            return Err(Error::Input(format!(
                "{} bytes are not one or more inputs of {len}: give whole ones",
                samples.len()
            )));
        }
        Ok(samples.chunks_exact(len))
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Who has a layer's weights (section 1 of PROTOCOL.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Placement {
    /// One server has them in clear.
    Held(usize),
    /// Additively shared mod `2^width` among these servers, in increasing order, two or more.
    Shared(Vec<usize>),
}

impl Placement {
    /// The servers that multiply in this layer.
    pub fn holders(&self) -> &[usize] {
        match self {
            Placement::Held(h) => core::slice::from_ref(h),
            Placement::Shared(hs) => hs,
        }
    }
}

/// Everything about a model and its split that all its servers know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Architecture {
    /// The model.
    pub graph: Graph,
    /// Who has the weights of each secret layer, in the layers' order.
    pub placements: Vec<Placement>,
    /// Number of servers.
    pub servers: usize,
}

impl Architecture {
    /// The servers that multiply in a secret layer; none for a layer that there is not.
    pub fn holders(&self, layer: usize) -> &[usize] {
        self.placements.get(layer).map_or(&[], Placement::holders)
    }

    /// Checks everything the protocol relies on. Call it on what comes from a file.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn check(&self) -> Result<(), Error> {
        let bad = |what: String| Err(Error::Shape(what));
        if !(2..=MAX_SERVERS).contains(&self.servers) {
            return bad(format!("{} servers; from 2 to {MAX_SERVERS} are possible", self.servers));
        }
        self.graph.check()?;
        let layers = self.graph.layers().count();
        if self.placements.len() != layers {
            return bad(format!("{} placements for {layers} layers", self.placements.len()));
        }
        for (layer, placement) in self.graph.layers().zip(&self.placements) {
            let holders = placement.holders();
            let ordered = holders.windows(2).all(|w| w[0] < w[1]);
            let enough = matches!(placement, Placement::Held(_)) || holders.len() >= 2;
            if !ordered || !enough || holders.iter().any(|&h| h >= self.servers) {
                return bad(format!("layer {}: impossible placement", layer.name));
            }
        }
        Ok(())
    }
}
