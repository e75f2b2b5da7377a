//! Where the large part of a bundle stays until its inference.

use std::collections::VecDeque;

use seco_garble::Material;

/// The spool cannot be written, or gave back something else than was put there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SpoolError(pub String);

/// Tables of the batches that this server evaluates in one bundle: written in order while
/// the bundle is made, read back in the same order, once, in its inference. Everything else of a
/// bundle is some bytes for each ReLU and stays in memory.
///
/// Dropped, all of it is gone.
pub trait Spool: Send {
    /// Memory that is not needed any more, to be used again; with any content or none.
    fn blank(&mut self) -> Material {
        Material::default()
    }
    /// Appends a batch's material.
    fn put(&mut self, material: Material) -> Result<(), SpoolError>;
    /// The next material in the order in which they were put. After the first `take` nothing is put.
    fn take(&mut self) -> Result<Material, SpoolError>;
    /// A material that was taken and is not needed any more: memory for one of the next.
    fn give_back(&mut self, _material: Material) {}
}

/// A spool in memory.
#[derive(Default)]
pub struct MemorySpool(VecDeque<Material>);

impl Spool for MemorySpool {
    fn put(&mut self, material: Material) -> Result<(), SpoolError> {
        self.0.push_back(material);
        Ok(())
    }

    fn take(&mut self) -> Result<Material, SpoolError> {
        self.0.pop_front().ok_or_else(|| SpoolError("the spool has no more material".to_owned()))
    }
}
