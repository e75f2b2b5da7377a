//! `seco-meter-private DEPLOYMENT STORE|- REQUESTS PROBES QUIET_MS`: the SDK on a real cluster.

use seco_meter::phase::no_heap_watch;
use seco_meter::{exit, private};
use std::process::ExitCode;

fn main() -> ExitCode {
    exit(private::Options::from_arguments(0).and_then(|options| private::run(&options, no_heap_watch)))
}
