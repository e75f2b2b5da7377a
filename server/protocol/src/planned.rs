//! A server's part of a model with the plan that follows from it: all that the online phase needs besides a bundle.

use std::sync::Arc;

use seco_model::{Architecture, PartyModel};

use crate::error::Error;
use crate::plan::Plan;

/// One server's part of a model, checked and planned. It depends on no key, set-up or connection: an inference runs
/// with it and a bundle as soon as the servers are connected.
pub struct PlannedModel {
    model: Arc<PartyModel>,
    plan: Plan,
}

impl PlannedModel {
    /// Plans a model's circuits.
    ///
    /// # Errors
    /// [`Error::Model`] if the model contradicts itself.
    pub fn new(model: Arc<PartyModel>) -> Result<Arc<PlannedModel>, Error> {
        let architecture = model.architecture();
        architecture.check()?;
        let plan = Plan::new(architecture);
        Ok(Arc::new(PlannedModel { model, plan }))
    }

    /// The server's index in its cluster.
    pub fn index(&self) -> usize {
        self.model.index()
    }

    /// The model's public part.
    pub fn architecture(&self) -> &Architecture {
        self.model.architecture()
    }

    /// The server's part of the model.
    pub fn part(&self) -> &Arc<PartyModel> {
        &self.model
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }
}
