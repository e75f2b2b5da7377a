//! `seco-meter-heap private|plain …`: either client under a counting allocator.

use seco_meter::phase::Heap;
use seco_meter::{Error, Result, exit, plain, private};
use std::process::ExitCode;

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("private") => private::run(&private::Options::from_arguments(1)?, watch),
        Some("plain") => plain::run(&plain::Options::from_arguments(1)?, watch),
        _ => Err(Error::new("usage", "private|plain ...")),
    }
}

fn watch(work: &mut dyn FnMut()) -> Option<Heap> {
    let info = allocation_counter::measure(work);
    Some(Heap { allocations: info.count_total, bytes: info.bytes_total, peak: info.bytes_max })
}
