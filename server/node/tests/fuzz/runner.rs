//! Runs one target over its corpus and over changed inputs, and watches it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::mutate;

/// One input may take so long, on a machine that has other things to do.
pub const HANG: Duration = Duration::from_secs(30);
/// A sample that is larger is only made, not kept.
const MAX_FILE: usize = 48 << 10;

fn time() -> Duration {
    let seconds = std::env::var("SECO_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let default = if std::env::var_os("SECO_SLOW").is_some() { 60.0 } else { 0.5 };
    Duration::from_secs_f64(seconds.unwrap_or(default))
}

/// Runs one of these targets for the time that is asked for. Panics with what it finds, and leaves that in a file.
pub fn fuzz(targets: &[Target], name: &str) {
    let target = targets.iter().find(|target| target.name == name).unwrap();
    if std::env::var_os("SECO_FUZZ_WRITE").is_some() {
        fs::create_dir_all(target.folder()).unwrap();
        for (number, sample) in (target.samples)().iter().enumerate().filter(|(_, s)| s.len() <= MAX_FILE) {
            fs::write(target.folder().join(format!("good-{number}")), sample).unwrap();
        }
    }
    assert!(!target.corpus().is_empty(), "{name} has no corpus");
    match target.run(time(), HANG) {
        Ok(figures) => println!("{name}: {figures:?}"),
        Err(finding) => {
            let path = scratch().join(format!("{name}-{}", finding.input.len()));
            fs::write(&path, &finding.input).unwrap();
            panic!("{name} {}: {}", finding.what, path.display());
        }
    }
}

/// Decodes bytes; tells whether they were accepted. libFuzzer can call it as it is.
pub type Decode = fn(&[u8]) -> bool;

/// One decoder.
#[derive(Clone, Copy)]
pub struct Target {
    /// Also the corpus's folder.
    pub name: &'static str,
    pub decode: Decode,
    /// Heap that an input may take at a time on the thread that decodes, besides 64 times its length. Threads that the
    /// decoder starts are not counted.
    pub memory: u64,
    /// Inputs that it accepts, as the project's own code writes them.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// An input for which a target panics, takes too much memory or does not come to an end.
#[derive(Debug)]
pub struct Finding {
    pub what: String,
    pub input: Vec<u8>,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Figures {
    pub inputs: u64,
    pub accepted: u64,
    /// Largest heap of one input.
    pub memory: u64,
    pub slowest: Duration,
}

impl Target {
    pub fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(self.name)
    }

    /// The corpus: names and contents.
    pub fn corpus(&self) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let read = |entry: fs::DirEntry| {
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap())
        };
        let mut files: Vec<_> = entries.map(read).collect();
        files.sort();
        files
    }

    /// One input. `trace` is where it is left before it is tried, should it end the process.
    fn one(&self, input: &[u8], figures: &mut Figures, trace: Option<&Path>) -> Result<bool, String> {
        if let Some(trace) = trace {
            fs::write(trace, input).unwrap();
        }
        let started = Instant::now();
        let mut result = None;
        let heap = allocation_counter::measure(|| {
            result = Some(catch_unwind(AssertUnwindSafe(|| (self.decode)(input))));
        });
        let limit = self.memory + 64 * input.len() as u64;
        figures.inputs += 1;
        figures.memory = figures.memory.max(heap.bytes_max);
        figures.slowest = figures.slowest.max(started.elapsed());
        match result {
            Some(Ok(_)) if heap.bytes_max > limit => {
                Err(format!("takes {} bytes of memory for {} of input", heap.bytes_max, input.len()))
            }
            Some(Ok(accepted)) => {
                figures.accepted += u64::from(accepted);
                Ok(accepted)
            }
            _ => Err("panics".to_owned()),
        }
    }

    /// All of the corpus, then changed inputs for a time. An input that takes longer than `hang` ends the run.
    pub fn run(self, time: Duration, hang: Duration) -> Result<Figures, Finding> {
        let corpus = self.corpus();
        let inputs: Arc<Vec<Vec<u8>>> = Arc::new(
            (self.samples)().into_iter().chain(corpus.iter().map(|(_, file)| file.clone())).collect(),
        );
        let trace =
            std::env::var_os("SECO_FUZZ_TRACE").map(|_| scratch().join(format!("{}.last", self.name)));
        let number = Arc::new(AtomicU64::new(0));
        let (work, seen) = (inputs.clone(), number.clone());
        let worker = std::thread::spawn(move || {
            let mut figures = Figures::default();
            let count = work.len() as u64;
            let mut started = None;
            loop {
                let next = seen.load(Ordering::Relaxed);
                // What is prepared once is prepared with the first input.
                if next >= count && *started.get_or_insert_with(Instant::now) + time <= Instant::now() {
                    return Ok(figures);
                }
                let input = nth(&work, next);
                let accepted = self
                    .one(&input, &mut figures, trace.as_deref())
                    .map_err(|what| Finding { what, input })?;
                let named =
                    usize::try_from(next).ok().and_then(|next| next.checked_sub(work.len() - corpus.len()));
                let good =
                    named.and_then(|at| corpus.get(at)).is_none_or(|(name, _)| name.starts_with("good"));
                if next < count && good && !accepted {
                    let what = "refuses what is good".to_owned();
                    return Err(Finding { what, input: nth(&work, next) });
                }
                seen.store(next + 1, Ordering::Relaxed);
            }
        });
        let mut last = (0, Instant::now());
        while !worker.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
            let now = number.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > hang {
                let what = format!("does not end within {hang:?}");
                return Err(Finding { what, input: nth(&inputs, now) });
            }
        }
        worker.join().unwrap()
    }
}

fn nth(corpus: &[Vec<u8>], number: u64) -> Vec<u8> {
    let whole = usize::try_from(number).ok().and_then(|number| corpus.get(number));
    whole.cloned().unwrap_or_else(|| mutate::input(corpus, number))
}

/// Where findings go.
pub fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    fs::create_dir_all(&folder).unwrap();
    folder
}
