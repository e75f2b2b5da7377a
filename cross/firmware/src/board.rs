//! The emulated board: sensor, gateway and storage are files of the host, read through semihosting.
//!
//! `examples/servers.rs` has written what the sensor sees, what the gateway answers, and every byte that the
//! same application produced on the host. The board replays it, compares, and measures.

use crate::device::{Board, CLASSES, DOWN_LEN, Error, INPUT_LEN, Result};
use crate::stack;
use core::ffi::CStr;
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use seco_core::EXPORTER_LEN;
use semihosting::fs::File;
use semihosting::io::Read;
use semihosting::{println, process};

/// Instructions between two ticks: QEMU counts one nanosecond for each (`-icount shift=0`), and the clock of
/// the board has 25 MHz.
const INSTRUCTIONS_PER_TICK: u32 = 40;

/// Where the timer of 24 bits wraps: steps of up to 671 million instructions are measured.
const TICKS: u32 = 0x00ff_ffff;

/// Then the header of every answer is one byte.
const _: () = assert!(DOWN_LEN < 128);

/// Bytes compared at a time.
const CHUNK: usize = 64;

/// A recording of the host, opened for replay.
pub struct Recording {
    /// Held so that nothing else sets it.
    _timer: SYST,
    input: File,
    up: File,
    down: File,
    logits: File,
    exporter: File,
    compared: usize,
}

impl Recording {
    /// Opens the recording in the emulator's working directory.
    ///
    /// # Errors
    /// [`Error::Board`] if it is not there.
    pub fn open() -> Result<Self> {
        let mut timer = cortex_m::Peripherals::take().ok_or(Error::Board("peripherals"))?.SYST;
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(TICKS);
        timer.clear_current();
        timer.enable_counter();
        let file = |name| File::open(name).map_err(|_| Error::Board("open the recording"));
        Ok(Self {
            _timer: timer,
            input: file(c"input")?,
            up: file(c"up")?,
            down: file(c"down")?,
            logits: file(c"logits")?,
            exporter: file(c"exporter")?,
            compared: 0,
        })
    }

    /// Compares with the recording.
    fn same(&mut self, bytes: &[u8], what: fn(&mut Self) -> &mut File) -> Result<()> {
        let mut expected = [0; CHUNK];
        for chunk in bytes.chunks(CHUNK) {
            let expected = expected.get_mut(..chunk.len()).unwrap_or_default();
            read(what(self), expected)?;
            if *expected != *chunk {
                return Err(Error::Board("other bytes than the host's"));
            }
        }
        self.compared += bytes.len();
        Ok(())
    }

    /// Everything recorded was sent, and nothing else.
    fn end(&mut self) -> Result<()> {
        let Self { up, down, input, logits, exporter, .. } = self;
        for file in [up, down, input, logits, exporter] {
            if !matches!(file.read(&mut [0]), Ok(0)) {
                return Err(Error::Board("the host did more"));
            }
        }
        Ok(())
    }
}

impl Board for Recording {
    fn sense(&mut self, input: &mut [u8; INPUT_LEN]) -> Result<()> {
        read(&mut self.input, input)
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.same(frame, |board| &mut board.up)?;
        println!("sent {} bytes, equal", frame.len());
        Ok(())
    }

    fn receive(&mut self, frame: &mut [u8; DOWN_LEN]) -> Result<usize> {
        let [header, message @ ..] = frame;
        read(&mut self.down, core::slice::from_mut(header))?;
        let len = usize::from(*header);
        read(&mut self.down, message.get_mut(..len).ok_or(Error::Unexpected)?)?;
        Ok(1 + len)
    }

    fn exporter(&mut self) -> Result<[u8; EXPORTER_LEN]> {
        // There is no TLS under the emulator: the host drew it.
        let mut exporter = [0; EXPORTER_LEN];
        read(&mut self.exporter, &mut exporter)?;
        Ok(exporter)
    }

    fn store(&mut self, blob: &[u8]) -> Result<()> {
        // A stored session goes up in the recording as well, in its order.
        self.same(blob, |board| &mut board.up)
    }

    fn show(&mut self, logits: &[i32; CLASSES]) -> Result<()> {
        self.same(logits.map(i32::to_le_bytes).as_flattened(), |board| &mut board.logits)?;
        println!("{CLASSES} logits, equal");
        Ok(())
    }

    #[inline(never)]
    fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> T) -> T {
        stack::paint();
        let start = SYST::get_current();
        let result = work();
        let ticks = start.wrapping_sub(SYST::get_current()) & TICKS;
        let stack = stack::high_water();
        let instructions = ticks * INSTRUCTIONS_PER_TICK;
        println!("{name}: stack {stack} bytes, {instructions} instructions");
        result
    }
}

/// Reads a file of the recording as a whole, and returns the part of `to` that it fills.
///
/// # Errors
/// [`Error::Board`].
pub fn load<'a>(name: &CStr, to: &'a mut [u8]) -> Result<&'a mut [u8]> {
    let mut file = File::open(name).map_err(|_| Error::Board("open the recording"))?;
    let mut len = 0;
    while let Some(rest) = to.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).map_err(|_| Error::Board("read the recording"))? {
            0 => break,
            count => len += count,
        }
    }
    to.get_mut(..len).ok_or(Error::Unexpected)
}

/// Replays the recording and ends the emulation, with code 0 if everything was equal.
pub fn replay(run: impl FnOnce(&mut Recording) -> Result<()>) -> ! {
    let result = Recording::open().and_then(|mut board| {
        run(&mut board)?;
        board.end()?;
        println!("PASS: {} bytes equal to the host's", board.compared);
        Ok(())
    });
    match result {
        Ok(()) => process::exit(0),
        Err(error) => {
            println!("FAIL: {error}");
            process::exit(1)
        }
    }
}

fn read(file: &mut File, to: &mut [u8]) -> Result<()> {
    file.read_exact(to).map_err(|_| Error::Board("the recording ends early"))
}
