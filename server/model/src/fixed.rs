//! A model in fixed point, whole and in clear: what its owner has before splitting it.

use core::fmt;

use crate::{Activation, Architecture, Error, Geometry, InputSpec, Layer, Placement};

/// One linear layer over the integers and what follows it (`protocol.md` section 2).
#[derive(Clone)]
pub struct FixedLayer {
    /// Name of the ONNX node it came from.
    pub name: String,
    /// Shape of the affine map.
    pub geometry: Geometry,
    /// Weights in the layout of `geometry`; `|w| < 2^(width-1)`.
    pub weights: Vec<i32>,
    /// One value for each output *value*, at the accumulator's scale.
    pub bias: Vec<i64>,
    /// Ring width `k_l` in bits, at most 32.
    pub width: u32,
    /// What follows.
    pub activation: Activation,
}

/// A whole model in fixed point.
#[derive(Clone, Debug)]
pub struct FixedModel {
    /// Name for people; the ONNX graph's name unless it is changed.
    pub name: String,
    /// The device's input.
    pub input: InputSpec,
    /// The layers in order.
    pub layers: Vec<FixedLayer>,
}

impl FixedModel {
    /// What all servers know once the layers are placed: one placement for each layer.
    ///
    /// # Errors
    /// [`Error::Shape`] if the model, the placements or their number do not fit together.
    pub fn architecture(&self, servers: usize, placements: &[Placement]) -> Result<Architecture, Error> {
        if placements.len() != self.layers.len() {
            let (p, l) = (placements.len(), self.layers.len());
            return Err(Error::Shape(format!("{p} placements for {l} layers")));
        }
        let layers = self.layers.iter().zip(placements).map(|(layer, placement)| Layer {
            name: layer.name.clone(),
            geometry: layer.geometry.clone(),
            width: layer.width,
            activation: layer.activation,
            placement: placement.clone(),
        });
        let layers = layers.collect();
        let architecture =
            Architecture { name: self.name.clone(), input: self.input.clone(), layers, servers };
        architecture.check()?;
        for layer in &self.layers {
            let sizes = (layer.weights.len(), layer.bias.len());
            if sizes != (layer.geometry.weights(), layer.geometry.outputs()) {
                return Err(Error::Shape(format!("layer {}: weights or bias of the wrong size", layer.name)));
            }
        }
        Ok(architecture)
    }

    /// Checks that the model is consistent, before it is placed anywhere.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.architecture(2, &vec![Placement::Held(0); self.layers.len()]).map(|_| ())
    }
}

impl fmt::Debug for FixedLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedLayer")
            .field("name", &self.name)
            .field("geometry", &self.geometry)
            .field("width", &self.width)
            .field("activation", &self.activation)
            .finish_non_exhaustive()
    }
}
