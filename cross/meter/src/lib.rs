//! Measures what a private request costs a device, beside a plain request of the same size.
//!
//! | program | what it does |
//! |---|---|
//! | `seco-meter-private` | `seco-sdk`: opens a session and runs requests on a real cluster |
//! | `seco-meter-plain` | a plain QUIC client, without any of it: the same bytes to and from the same gateway |
//! | `seco-meter-core` | the device's own work without a socket: session, request, and plain framing |
//! | `seco-meter-heap` | the first two, under a counting allocator |
//!
//! Every program does one [`phase`] after the other and prints one line before and one after each, so that
//! an instruction counter outside (callgrind, or QEMU with `qemu/count.c`) can tell them apart. `cross/cost`
//! starts them and writes the report.
#![forbid(unsafe_code)]

pub mod phase;
pub mod plain;
pub mod private;
pub mod socketless;

use std::fmt;

/// Why a measurement failed.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    /// A message for people, with what was being done.
    pub fn new(doing: &str, cause: impl fmt::Display) -> Self {
        Self(format!("{doing}: {cause}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Result of a measurement.
pub type Result<T> = std::result::Result<T, Error>;

/// An input of `len` bytes that looks like nothing in particular.
#[must_use]
pub fn input(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(167) >> 3) as u8).collect()
}

/// The program's arguments after the first `skip`: exactly one per name, in order.
///
/// # Errors
/// With the usage, if their number differs.
pub fn arguments<const N: usize>(skip: usize, names: [&str; N]) -> Result<[String; N]> {
    let given: Vec<String> = std::env::args().skip(1 + skip).collect();
    given.try_into().map_err(|_| Error::new("usage", names.join(" ")))
}

/// Reads a number.
///
/// # Errors
/// With the text that is none.
pub fn number(text: &str) -> Result<usize> {
    text.parse().map_err(|e| Error::new(text, e))
}

/// Runs a program.
#[must_use]
pub fn exit(result: Result<()>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("seco-meter: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
