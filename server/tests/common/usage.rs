//! What a running server uses of its machine: Linux says it.

use std::fs;
use std::path::Path;

use super::Server;

/// What a server uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Use {
    pub memory: u64,
    pub handles: u64,
    pub threads: u64,
    pub disk: u64,
}

impl Use {
    pub fn of(server: &Server, state: &Path) -> Self {
        let id = server.process.id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        // Root's alone, for the process is not dumpable; others see how many the system has room for.
        let handles = fs::read_dir(format!("/proc/{id}/fd"));
        let handles = handles.map_or_else(|_| field("FDSize:"), |files| files.count() as u64);
        Self { memory: field("VmRSS:") * 1024, handles, threads: field("Threads:"), disk: size(state) }
    }
}

/// Bytes of all files in a folder. Those that go meanwhile have none.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let each = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    each.sum()
}
