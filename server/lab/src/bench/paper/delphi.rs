//! DELPHI: the user's machine is one of two parties, as `seco bench device` measures it.

use std::path::Path;

use super::figures::{Cost, Sample};
use super::models::Model;
use super::plan::Part;
use super::user_link;
use crate::Error;
use crate::bench::device::{self, Prepared};

/// The parties, over each network in turn.
pub async fn measure(model: &Model, part: &Part, folder: &Path) -> Result<Vec<Sample>, Error> {
    let mut samples = Vec::new();
    for &network in &part.networks {
        let place = folder.join(network.word());
        let split = model.deal_two_party(&place.join("model"))?;
        let first = part.repetition * part.requests;
        let chosen = || (first..first + part.requests).map(|i| i % model.inputs.len().max(1));
        let prepared = Prepared {
            name: model.facts.name.clone(),
            architecture: split.architecture,
            files: split.files,
            inputs: chosen().filter_map(|i| model.inputs.get(i).cloned()).collect(),
            expected: chosen().filter_map(|i| model.expected.get(i).cloned()).collect(),
        };
        let report = device::measure(prepared, &place, user_link(network)).await?;
        let (user, server) = (&report.device, &report.server);
        let bytes = |count: u64| Some(count as f64);
        let (ahead_up, ahead_down) =
            (bytes(user.preprocessing_bytes_up), bytes(user.preprocessing_bytes_down));
        let (up, down) = (bytes(user.online_bytes_up), bytes(user.online_bytes_down));
        let (setup_up, setup_down) = (bytes(user.setup_bytes_up), bytes(user.setup_bytes_down));
        samples.push(Sample {
            network,
            user: Cost {
                online_cpu_s: Some(user.online_cpu_s),
                preprocessing_cpu_s: Some(user.preprocessing_cpu_s),
                online_bytes_up: up,
                online_bytes_down: down,
                preprocessing_bytes_up: ahead_up,
                preprocessing_bytes_down: ahead_down,
                peak_memory_bytes: bytes(user.peak_memory_bytes),
                storage_bytes: bytes(user.part.storage_bytes),
                setup_cpu_s: Some(user.setup_cpu_s),
                setup_bytes_up: setup_up,
                setup_bytes_down: setup_down,
            },
            servers: vec![Cost {
                online_cpu_s: Some(server.online_cpu_s),
                preprocessing_cpu_s: Some(server.preprocessing_cpu_s),
                online_bytes_up: down,
                online_bytes_down: up,
                preprocessing_bytes_up: ahead_down,
                preprocessing_bytes_down: ahead_up,
                peak_memory_bytes: bytes(server.peak_memory_bytes),
                storage_bytes: bytes(server.part.storage_bytes),
                setup_cpu_s: Some(server.setup_cpu_s),
                setup_bytes_up: setup_down,
                setup_bytes_down: setup_up,
            }],
            waiting_s: user.online_wall_s,
            preprocessing_s: Some(user.preprocessing_wall_s),
            setup_s: Some(user.setup_wall_s),
            equal: report.equal_count,
            count: report.inferences,
            load_at_start: None,
        });
    }
    Ok(samples)
}
