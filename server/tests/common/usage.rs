//! What a running server uses of its machine: Linux says it.

use std::fs;
use std::path::{Path, PathBuf};

use super::Server;

/// What a server uses, or by how much that may grow.
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

    /// Of each server, with its state.
    pub fn of_all(servers: &[Server], states: &[PathBuf]) -> Vec<Self> {
        servers.iter().zip(states).map(|(server, state)| Self::of(server, state)).collect()
    }
}

/// Fails if a server's use has grown by more than `most`.
pub fn has_not_grown(before: &[Use], after: &[Use], most: Use) {
    assert_eq!(before.len(), after.len());
    for (server, (before, after)) in before.iter().zip(after).enumerate() {
        let each = [
            ("memory", before.memory, after.memory, most.memory),
            ("handles", before.handles, after.handles, most.handles),
            ("threads", before.threads, after.threads, most.threads),
            ("disk", before.disk, after.disk, most.disk),
        ];
        for (what, before, after, most) in each {
            let grown = after.saturating_sub(before);
            assert!(
                grown <= most,
                "server {server}: {what} grew from {before} to {after}, by more than {most}"
            );
        }
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
