//! What `seco split` reads of whoever asks it to, given anything, as `server/node/tests/fuzz` does with what servers
//! read; ONNX files and arrays are there.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

#[path = "../../../node/tests/fuzz/mutate.rs"]
mod mutate;
#[path = "../../../node/tests/fuzz/runner.rs"]
mod runner;

use std::path::Path;

use runner::Target;
use seco_tools::placement;

const ALL: [Target; 1] = [Target { name: "placement", decode: place, memory: 8 << 20, samples: placements }];

const LAYERS: [&str; 5] = ["conv1", "conv2", "fc", "conv1", "3"];
const SERVERS: usize = 4;

/// A file that says who has which layer. Whatever is accepted places every layer on servers that there are.
fn place(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let mut placed = seco_model::paper_placements(LAYERS.len(), SERVERS, 1);
    // Copies of one layer are together from the beginning.
    placed[3] = placed[0].clone();
    let accepted =
        placement::by_file(text, Path::new("placement.toml"), &LAYERS, SERVERS, &mut placed).is_ok();
    let is_there = |placement: &seco_model::Placement| match placement {
        seco_model::Placement::Held(server) => *server < SERVERS,
        seco_model::Placement::Shared(servers) => {
            servers.len() > 1 && servers.is_sorted_by(|a, b| a < b) && servers.iter().all(|&s| s < SERVERS)
        }
    };
    assert!(!accepted || placed.iter().all(is_there) && placed[0] == placed[3], "{placed:?}");
    accepted
}

fn placements() -> Vec<Vec<u8>> {
    vec![b"\"conv1\" = \"gateway\"\n\"3\" = [\"remote-1\", \"remote-2\"]\nfc = \"remote-3\"\n".to_vec()]
}

#[test]
fn placement() {
    runner::fuzz(&ALL, "placement");
}
