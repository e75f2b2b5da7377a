//! `seco-meter-plain ADDRESS NAME PIN UP DOWN REQUESTS QUIET_MS`: a plain client on the same gateway.

use seco_meter::phase::no_heap_watch;
use seco_meter::{exit, plain};
use std::process::ExitCode;

fn main() -> ExitCode {
    exit(plain::Options::from_arguments(0).and_then(|options| plain::run(&options, no_heap_watch)))
}
