//! Servers doing something together: the gateway orders (`Cluster`), remotes obey (`Worker`).

pub(crate) mod commands;
mod coordinator;
mod front;
pub mod jobs;
mod worker;

pub(crate) use self::coordinator::{Blame, Cluster, Links, Ready};
pub(crate) use self::worker::Worker;
