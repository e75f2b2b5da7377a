//! What every server knows of a model: shapes, widths, shifts and who holds which weights.

use serde::{Deserialize, Serialize};

use crate::{Error, Geometry};

/// Largest number of layers a model may have.
pub const MAX_LAYERS: usize = 1024;
/// Largest number of servers.
pub const MAX_SERVERS: usize = 8;
/// Largest number of weights and biases (one for each output value) of all layers together; bounds the
/// memory that a file can ask for.
pub const MAX_VALUES: usize = 1 << 25;

/// The input the device sends: `shape` values of `bits` bits (unsigned).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Shape without the batch axis, row-major.
    pub shape: Vec<usize>,
    /// Bits of one value: 8 for bytes.
    pub bits: u32,
    /// Smallest and largest value of the inputs that calibrated the widths, if any did. Values beyond may make
    /// accumulators wrap around, so devices are told.
    pub calibrated: Option<[u8; 2]>,
}

impl InputSpec {
    /// An input that no calibration has seen.
    pub fn new(shape: Vec<usize>, bits: u32) -> InputSpec {
        InputSpec { shape, bits, calibrated: None }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What follows a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// Arithmetic shift right by `shift` bits (floor), then ReLU.
    Relu {
        /// Bits dropped; `shift < width`.
        shift: u32,
    },
    /// The model's answer: the accumulator as it is, `fraction` of its bits behind the point.
    Output {
        /// Fractional bits of a logit.
        fraction: u32,
    },
}

/// Who has a layer's weights (`protocol.md` section 1).
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

/// One linear layer and what follows it, as public to all servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Name of the ONNX node it came from.
    pub name: String,
    /// Shape of the affine map.
    pub geometry: Geometry,
    /// Ring width `k_l` in bits, at most 32: the accumulator lives mod `2^width`.
    pub width: u32,
    /// What follows.
    pub activation: Activation,
    /// Who has the weights.
    pub placement: Placement,
}

/// Everything about a model that all its servers know. Layer `i` consumes activation `i`;
/// activation 0 is the device's input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Architecture {
    /// Name for people.
    pub name: String,
    /// The device's input.
    pub input: InputSpec,
    /// The layers in order; the last has [`Activation::Output`], all others [`Activation::Relu`].
    pub layers: Vec<Layer>,
    /// Number of servers.
    pub servers: usize,
}

impl Architecture {
    /// Width `κ` of activation `i`'s mask: what its only consumer, layer `i`, needs.
    pub fn mask_width(&self, activation: usize) -> u32 {
        self.layers.get(activation).map_or(0, |l| l.width)
    }

    /// Number of values in the answer.
    pub fn classes(&self) -> usize {
        self.layers.last().map_or(0, |l| l.geometry.outputs())
    }

    /// Width in bits of one logit.
    pub fn output_width(&self) -> u32 {
        self.layers.last().map_or(0, |l| l.width)
    }

    /// Fractional bits of a logit.
    pub fn output_fraction(&self) -> u32 {
        match self.layers.last().map(|l| l.activation) {
            Some(Activation::Output { fraction }) => fraction,
            _ => 0,
        }
    }

    /// Number of ReLUs.
    pub fn relus(&self) -> usize {
        self.layers
            .iter()
            .filter(|l| matches!(l.activation, Activation::Relu { .. }))
            .map(|l| l.geometry.outputs())
            .sum()
    }

    /// Checks everything the protocol relies on. Call it on what comes from a file.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |what: String| Err(Error::Shape(what));
        if !(2..=MAX_SERVERS).contains(&self.servers) {
            return bad(format!("{} servers; from 2 to {MAX_SERVERS} are possible", self.servers));
        }
        if self.layers.is_empty() || self.layers.len() > MAX_LAYERS {
            return bad(format!("{} layers; from 1 to {MAX_LAYERS} are possible", self.layers.len()));
        }
        if self.input.shape.len() > 4 || !(1..=8).contains(&self.input.bits) {
            return bad("input of more than four axes, or not of 1 to 8 bits".to_owned());
        }
        if self
            .input
            .calibrated
            .is_some_and(|[least, most]| least > most || u32::from(most) >> self.input.bits != 0)
        {
            return bad("calibrated input range that no inputs can have".to_owned());
        }
        let mut values = self
            .input
            .shape
            .iter()
            .try_fold(1usize, |a, &d| a.checked_mul(d))
            .filter(|&v| v <= crate::geometry::MAX_TENSOR)
            .ok_or_else(|| Error::Shape("input too large".to_owned()))?;
        let last = self.layers.len() - 1;
        let mut total = 0usize;
        for (i, layer) in self.layers.iter().enumerate() {
            let name = &layer.name;
            layer.geometry.check()?;
            if layer.geometry.inputs() != values {
                return bad(format!("layer {name}: {} inputs, got {values}", layer.geometry.inputs()));
            }
            values = layer.geometry.outputs();
            total = total.saturating_add(layer.geometry.weights()).saturating_add(values);
            if total > MAX_VALUES {
                return bad(format!("more than {MAX_VALUES} weights and biases"));
            }
            if !(2..=32).contains(&layer.width) {
                return bad(format!("layer {name}: width {} is not from 2 to 32", layer.width));
            }
            if i == 0 && layer.width < self.input.bits {
                return bad(format!("layer {name}: narrower than the input"));
            }
            match layer.activation {
                Activation::Relu { shift } if i < last && shift < layer.width - 1 => {}
                Activation::Output { fraction } if i == last && fraction <= 64 => {}
                _ => return bad(format!("layer {name}: misplaced activation or too large a shift")),
            }
            let holders = layer.placement.holders();
            let ordered = holders.windows(2).all(|w| w[0] < w[1]);
            let enough = matches!(layer.placement, Placement::Held(_)) || holders.len() >= 2;
            if !ordered || !enough || holders.iter().any(|&h| h >= self.servers) {
                return bad(format!("layer {name}: impossible placement"));
            }
        }
        Ok(())
    }
}
