//! Where and with what something was measured.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::process::Command;

use serde::Serialize;

use crate::Error;

/// The machine and the program.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub processor: Option<String>,
    pub cores: usize,
    pub memory_bytes: Option<u64>,
    pub system: Option<String>,
    /// Work that others had for each core when this began: below 0.2 it was alone.
    pub load_at_start: Option<f64>,
    /// Of the folder that the command was started in, with `+` if files differ from it; `None` outside a repository.
    /// Whether the program was built from it nobody knows: `program` tells programs apart.
    pub folder_commit: Option<String>,
    /// Release of the program.
    pub version: &'static str,
    /// Names the program's own bytes, 16 hexadecimal digits.
    pub program: String,
}

impl Machine {
    /// Looks. What the system does not tell stays empty.
    pub fn look() -> Result<Machine, Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let field = |path: &str, name: &str| {
            let text = fs::read_to_string(path).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
        };
        let kilobytes =
            field("/proc/meminfo", "MemTotal").and_then(|text| text.strip_suffix(" kB")?.parse().ok());
        let load = fs::read_to_string("/proc/loadavg").ok();
        let load = load.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        Ok(Machine {
            processor: field("/proc/cpuinfo", "model name"),
            cores,
            memory_bytes: kilobytes.map(|kilobytes: u64| kilobytes * 1024),
            system: kernel.map(|release| format!("{} {}", std::env::consts::OS, release.trim())),
            load_at_start: load.map(|load| load / cores as f64),
            folder_commit: folder_commit(),
            version: env!("CARGO_PKG_VERSION"),
            program: program()?,
        })
    }

    /// Equal where earlier results may be used again.
    pub fn fingerprint(&self) -> String {
        let Machine { processor, cores, memory_bytes, folder_commit, program, .. } = self;
        format!("{program} {folder_commit:?} {processor:?} {cores} {memory_bytes:?}")
    }

    /// For people.
    pub fn sentence(&self) -> String {
        let processor = self.processor.as_deref().unwrap_or("unknown processor");
        let memory =
            self.memory_bytes.map(|bytes| format!(", {:.0} GB", bytes as f64 / 1e9)).unwrap_or_default();
        format!("{processor}, {} cores{memory}", self.cores)
    }
}

fn folder_commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?.trim().to_owned();
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.trim().is_empty() { commit } else { commit + "+" })
}

/// A hash of the program, against accidents alone.
fn program() -> Result<String, Error> {
    let failed = |e: std::io::Error| Error::Failed(format!("this program cannot be read: {e}"));
    let path = std::env::current_exe().map_err(failed)?;
    let mut hasher = DefaultHasher::new();
    fs::read(path).map_err(failed)?.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}
