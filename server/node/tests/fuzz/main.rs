//! Decoders of bytes from outside, and of files that a server reads, given anything: an error or a value, never a
//! panic, a hang, or memory beyond what the input justifies. What `seco split` reads besides: `server/tools/tests/fuzz`.
//!
//! One function for each decoder ([`targets`]), a corpus for each in `corpus/NAME` (files called `good…` must be
//! accepted), inputs changed deterministically ([`mutate`]), and limits of memory and time ([`runner`]). `cargo test`
//! takes the whole corpus and half a second for each target; a minute with `SECO_SLOW=1`, or `SECO_FUZZ_SECONDS`. A finding
//! is written to `target/tmp/fuzz`; mended, it belongs in the corpus. If an input ends the process (memory that no
//! system has), `SECO_FUZZ_TRACE=1` leaves it there too. `SECO_FUZZ_WRITE=1` writes the samples as `good` files: after a
//! format has changed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod cluster;
mod files;
mod mutate;
mod runner;
mod targets;

use std::fs;
use std::time::Duration;

use runner::{HANG, Target};

macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            runner::fuzz(&targets::ALL, stringify!($name));
        })*

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($name)),*];
            assert!(targets::ALL.iter().all(|target| run.contains(&target.name)) && run.len() == targets::ALL.len());
        }
    };
}

tests! {
    device_messages session_blob versions hello offer order reply set_up step party part_file npy onnx deployment
    update settings token_file tokens_used key_files peers ledger ledger_head bundle_file bundle
}

/// What the corpora take, and that nothing lies there unused.
#[test]
fn corpora() {
    let folder = targets::ALL[0].folder();
    let folders = fs::read_dir(folder.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
    for name in folders {
        assert!(targets::ALL.iter().any(|target| *target.name == *name), "{name:?} is no target");
    }
    let sizes = targets::ALL.iter().flat_map(Target::corpus).map(|(_, file)| file.len());
    assert!(sizes.sum::<usize>() < 1 << 20);
}

/// A length, and so many bytes. With a length that only a change makes there is trouble.
fn planted(bytes: &[u8], trouble: impl Fn()) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return false };
    let length = u32::from_le_bytes(*head) as usize;
    if length > rest.len() && length < 1 << 24 {
        trouble();
    }
    length == rest.len()
}

fn find(decode: runner::Decode) -> String {
    let samples = || vec![[&[5u8, 0, 0, 0][..], b"hello"].concat()];
    let target = Target { name: "planted", decode, memory: 1 << 20, samples };
    let finding = target.run(Duration::from_secs(60), Duration::from_secs(2)).expect_err("it is not found");
    let (head, rest) = finding.input.split_first_chunk::<4>().unwrap();
    assert!(u32::from_le_bytes(*head) as usize > rest.len());
    finding.what
}

#[test]
fn what_is_planted_is_found() {
    assert_eq!(find(|bytes| planted(bytes, || panic!("planted"))), "panics");
    let memory = find(|bytes| planted(bytes, || drop(std::hint::black_box(vec![0u8; 1 << 24]))));
    assert!(memory.starts_with("takes 16777"), "{memory}");
    let hang = find(|bytes| planted(bytes, || std::thread::sleep(Duration::from_secs(600))));
    assert!(hang.starts_with("does not end"), "{hang}");
    let target = Target { name: "planted", decode: |_| true, memory: 0, samples: || vec![vec![1]] };
    assert!(target.run(Duration::from_millis(50), HANG).unwrap().inputs > 100);
}
