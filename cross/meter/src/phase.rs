//! Phases: stretches of work that are measured on their own.
//!
//! A phase is enclosed by [`phase_begin`] and [`phase_end`], two empty functions at which callgrind writes out
//! its counters, and by one `write` to standard output on either side, at which the plugin for QEMU notes its
//! counter. What lies between phases is nobody's cost. Every phase prints three lines: that it begins, that it
//! is done, and what this process knows of its cost.

use crate::{Error, Result};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Sent and received in UDP packets since the program started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Bytes to the gateway, QUIC's own included, IP and UDP headers not.
    pub up: u64,
    /// Bytes from the gateway.
    pub down: u64,
    /// Packets to the gateway.
    pub packets_up: u64,
    /// Packets from the gateway.
    pub packets_down: u64,
}

/// What a phase allocated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap {
    /// How many blocks were asked for; growing one counts.
    pub allocations: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Most bytes held at a time, beyond those held at the beginning.
    pub peak: u64,
}

/// Does the work it is given and says what that allocated, where it knows.
pub type HeapWatch = fn(&mut dyn FnMut()) -> Option<Heap>;

/// Leaves the allocator as it is, which is how everything but allocations is measured.
pub fn no_heap_watch(work: &mut dyn FnMut()) -> Option<Heap> {
    work();
    None
}

/// One phase, as its line tells it.
#[derive(Default)]
struct Line {
    wall: Duration,
    cpu: Duration,
    heap: Option<Heap>,
    traffic: Traffic,
}

/// Does `work` as the phase `name`; nothing of it waits for a socket.
///
/// # Errors
/// Those of `work`.
pub fn run<T>(name: &str, heap: HeapWatch, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let mut result = None;
    let line = measure(name, heap, &mut || result = Some(work()))?;
    let result = result.ok_or_else(|| Error::new(name, "did not run"))??;
    end(name, &line)?;
    Ok(result)
}

/// Phases that wait for a gateway.
pub struct Phases {
    runtime: Runtime,
    quiet: Duration,
    heap: HeapWatch,
}

impl Phases {
    /// Phases on a runtime of one thread, as an application would have it. After its work every phase lasts
    /// for `quiet` more: QUIC acknowledges late, and that is part of what a request costs.
    ///
    /// # Errors
    /// Where there is no runtime to be had.
    pub fn new(quiet: Duration, heap: HeapWatch) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { runtime: runtime.map_err(|e| Error::new("runtime", e))?, quiet, heap })
    }

    /// Does `work` as the phase `name`. `traffic` tells from its result what was sent and received so far.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn run<T>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T>>,
        traffic: impl FnOnce(&T) -> Traffic,
    ) -> Result<T> {
        // In its place before the phase begins: moving a large future about is not its cost.
        let mut work = Box::pin(async {
            let start = Instant::now();
            let result = work.await;
            let wall = start.elapsed();
            tokio::time::sleep(self.quiet).await;
            (result, wall)
        });
        let mut result = None;
        let mut line = measure(name, self.heap, &mut || result = Some(self.runtime.block_on(&mut work)))?;
        let (result, wall) = result.ok_or_else(|| Error::new(name, "did not run"))?;
        let result = result?;
        // Without the quiet time.
        (line.wall, line.traffic) = (wall, traffic(&result));
        end(name, &line)?;
        Ok(result)
    }
}

fn measure(name: &str, heap: HeapWatch, work: &mut dyn FnMut()) -> Result<Line> {
    let (mut line, mut printed) = (Line::default(), Ok(()));
    print(&format!("{{\"begin\":\"{name}\"}}\n"))?;
    line.heap = heap(&mut || {
        let (start, cpu) = (Instant::now(), cpu_time());
        phase_begin();
        work();
        phase_end();
        printed = print("{\"done\":true}\n");
        line.cpu = cpu_time().saturating_sub(cpu);
        line.wall = start.elapsed();
    });
    printed.map(|()| line)
}

fn end(name: &str, line: &Line) -> Result<()> {
    let Line { wall, cpu, heap, traffic } = line;
    let mut text = format!(
        "{{\"end\":\"{name}\",\"wall_ns\":{},\"cpu_ns\":{},\"bytes_up\":{},\"bytes_down\":{},\
         \"packets_up\":{},\"packets_down\":{}",
        wall.as_nanos(),
        cpu.as_nanos(),
        traffic.up,
        traffic.down,
        traffic.packets_up,
        traffic.packets_down,
    );
    if let Some(Heap { allocations, bytes, peak }) = heap {
        let heap = format!(",\"allocations\":{allocations},\"heap_bytes\":{bytes},\"heap_peak\":{peak}");
        text.push_str(&heap);
    }
    text.push_str("}\n");
    print(&text)
}

/// Prints the peak of this process's resident memory, where the system tells it (`VmHWM`, in bytes).
///
/// # Errors
/// If standard output is closed.
pub fn print_peak_memory() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = peak.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    print(&format!("{{\"peak_memory_bytes\":{}}}\n", kilobytes.unwrap_or(0) * 1024))
}

/// One `write`, unbuffered: the counter outside sees every line as one call.
fn print(line: &str) -> Result<()> {
    let failed = |e| Error::new("standard output", e);
    let written = rustix::io::write(rustix::stdio::stdout(), line.as_bytes()).map_err(failed)?;
    if written == line.len() { Ok(()) } else { Err(Error::new("standard output", "is full")) }
}

/// Of this process, user and system.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Callgrind writes out its counters here (`--dump-before`).
#[inline(never)]
pub fn phase_begin() {
    black_box("begin");
}

/// The other end. Not the same code as the beginning, or the compiler would make one function of both.
#[inline(never)]
pub fn phase_end() {
    black_box("end");
}
