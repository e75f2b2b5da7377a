//! What a server keeps on disk: the record of what was used, and bundles.

pub mod ledger;
pub mod spool;
