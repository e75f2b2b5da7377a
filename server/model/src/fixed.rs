//! A model in fixed point, whole and in clear: what its owner has before splitting it.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use crate::graph::ValueId;
use crate::{Architecture, Error, Graph, Placement};

/// The weights of a secret layer over the integers (section 2 of PROTOCOL.md).
#[derive(Clone, PartialEq, Eq)]
pub struct FixedLayer {
    /// Weights in the layout of the layer's geometry.
    pub weights: Vec<i32>,
    /// One value for each output *value*, at the accumulator's scale.
    pub bias: Vec<i64>,
}

/// A whole model in fixed point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedModel {
    /// What is public of it.
    pub graph: Graph,
    /// The weights of its secret layers, in their order.
    pub layers: Vec<FixedLayer>,
    /// What is known of its values beyond what arithmetic tells.
    pub known: Known,
}

/// What is known of values beyond what arithmetic tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Least and largest of values such as an index. Their widths do not depend on calibration.
    pub ranges: BTreeMap<ValueId, (i64, i64)>,
    /// What ReLUs make that only shift: what they read was lifted above zero, and what is below zero all the same is
    /// cut off, which is as wrong as a sum that wraps around.
    pub lifted: BTreeSet<ValueId>,
}

impl FixedModel {
    /// What all servers know once the layers are placed: one placement for each layer.
    ///
    /// # Errors
    /// [`Error::Shape`] if the model, the placements or their number do not fit together.
    pub fn architecture(&self, servers: usize, placements: &[Placement]) -> Result<Architecture, Error> {
        let architecture =
            Architecture { graph: self.graph.clone(), placements: placements.to_vec(), servers };
        architecture.check()?;
        self.check_weights()?;
        Ok(architecture)
    }

    /// Checks that the model is consistent, before it is placed anywhere.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn check(&self) -> Result<(), Error> {
        self.graph.check()?;
        self.check_weights()
    }

    fn check_weights(&self) -> Result<(), Error> {
        let layers = self.graph.layers().count();
        if self.layers.len() != layers {
            return Err(Error::Shape(format!("weights of {} layers for {layers}", self.layers.len())));
        }
        for (layer, weights) in self.graph.layers().zip(&self.layers) {
            let sizes = (weights.weights.len(), weights.bias.len());
            if sizes != (layer.geometry.weights(), layer.geometry.outputs()) {
                return Err(Error::Shape(format!("layer {}: weights or bias of the wrong size", layer.name)));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FixedLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FixedLayer({} weights, {} biases)", self.weights.len(), self.bias.len())
    }
}
