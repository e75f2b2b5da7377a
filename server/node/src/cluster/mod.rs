//! Servers doing something together: the gateway orders (`Cluster`), remotes obey (`Worker`).

mod blame;
pub(crate) mod commands;
mod coordinator;
mod front;
pub mod jobs;
mod stock;
mod worker;

pub(crate) use self::blame::Blame;
pub(crate) use self::coordinator::{Cluster, Links};
pub(crate) use self::stock::Ready;
pub(crate) use self::worker::Worker;
