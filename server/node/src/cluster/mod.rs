//! Servers doing something together: for each model the gateway orders (`Coordinator`), and remotes obey (`Worker`).

mod blame;
pub(crate) mod commands;
mod coordinator;
mod filling;
mod front;
pub mod jobs;
mod leasing;
mod orders;
mod stock;
mod worker;

pub(crate) use self::blame::Blame;
pub(crate) use self::coordinator::{Coordinator, Links};
pub(crate) use self::front::Cluster;
pub(crate) use self::leasing::Lease;
pub(crate) use self::stock::Ready;
pub(crate) use self::worker::{Worker, obey};
