//! `seco-meter-core SERVERS INPUT_BYTES VALUES WIDTH ROUNDS`: the device's work without a socket.

use seco_meter::phase::Heap;
use seco_meter::{Result, arguments, exit, number, socketless};
use std::process::ExitCode;

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<()> {
    let [servers, input, values, width, rounds] =
        arguments(0, ["SERVERS", "INPUT_BYTES", "VALUES", "WIDTH", "ROUNDS"])?;
    let options = socketless::Options {
        servers: number(&servers)?,
        input: number(&input)?,
        values: number(&values)?,
        width: u32::try_from(number(&width)?).unwrap_or(u32::MAX),
        rounds: number(&rounds)?,
    };
    socketless::measure(&options, |work| {
        let info = allocation_counter::measure(work);
        Some(Heap { allocations: info.count_total, bytes: info.bytes_total, peak: info.bytes_max })
    })
}
