//! What was measured, for people and for programs.

use std::time::Duration;

use seco_core::message::{Request, Response};
use seco_core::pack;
use seco_model::Architecture;
use seco_protocol::{Counts, Part};
use serde::Serialize;

use super::party::{Outcome, Spent};
use super::{DEVICE, SERVER, failed};
use crate::Error;

/// All results. Its JSON is an interface to scripts.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `minionn`, `mlp`, or the name of the ONNX file.
    pub model: String,
    /// Number of inferences; what follows is for one of them.
    pub inferences: usize,
    /// AND gates of all circuits.
    pub and_gates: u64,
    /// ReLUs.
    pub relus: u64,
    /// Whether all logits equal the plaintext fixed-point executor's bit for bit.
    pub equal: bool,
    /// Of how many inferences they do.
    pub equal_count: usize,
    /// The party with the input.
    pub device: Device,
    /// The party with the weights.
    pub server: Server,
    /// What SECO's own device exchanges for the same inference.
    pub seco_device: Frames,
}

/// CPU and wall times in seconds, bytes as they leave (up) and reach (down) the device.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    pub setup_cpu_s: f64,
    pub setup_wall_s: f64,
    pub setup_bytes_up: u64,
    pub setup_bytes_down: u64,
    pub preprocessing_cpu_s: f64,
    pub preprocessing_wall_s: f64,
    pub preprocessing_bytes_up: u64,
    pub preprocessing_bytes_down: u64,
    pub online_cpu_s: f64,
    pub online_wall_s: f64,
    pub online_bytes_up: u64,
    pub online_bytes_down: u64,
    pub peak_memory_bytes: u64,
    #[serde(flatten)]
    pub part: Part,
}

/// The same of the server, whose bytes are the device's.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    pub setup_cpu_s: f64,
    pub preprocessing_cpu_s: f64,
    pub online_cpu_s: f64,
    pub peak_memory_bytes: u64,
    #[serde(flatten)]
    pub part: Part,
}

/// Frames of a request on an open session, before QUIC or TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Frames {
    /// Device to gateway.
    pub request_frame_bytes_up: u64,
    /// Gateway to device.
    pub answer_frame_bytes_down: u64,
}

impl Report {
    /// Puts the parties' outcomes together.
    pub fn new(
        model: String,
        architecture: &Architecture,
        Counts { and_gates, relus }: Counts,
        expected: &[Vec<i32>],
        device: &Outcome,
        server: &Outcome,
    ) -> Result<Report, Error> {
        let inferences = device.logits.len();
        let equal_count =
            device.logits.iter().zip(expected).filter(|(got, expected)| got == expected).count();
        let (preprocessing, online) =
            (mean(device.preprocessing, inferences), mean(device.online, inferences));
        Ok(Report {
            model,
            inferences,
            and_gates,
            relus,
            equal: device.logits == expected,
            equal_count,
            device: Device {
                setup_cpu_s: device.setup.cpu.as_secs_f64(),
                setup_wall_s: device.setup.wall.as_secs_f64(),
                setup_bytes_up: device.setup.sent,
                setup_bytes_down: device.setup.received,
                preprocessing_cpu_s: preprocessing.cpu.as_secs_f64(),
                preprocessing_wall_s: preprocessing.wall.as_secs_f64(),
                preprocessing_bytes_up: preprocessing.sent,
                preprocessing_bytes_down: preprocessing.received,
                online_cpu_s: online.cpu.as_secs_f64(),
                online_wall_s: online.wall.as_secs_f64(),
                online_bytes_up: online.sent,
                online_bytes_down: online.received,
                peak_memory_bytes: device.peak_memory,
                part: Part::of(architecture, DEVICE),
            },
            server: Server {
                setup_cpu_s: server.setup.cpu.as_secs_f64(),
                preprocessing_cpu_s: mean(server.preprocessing, inferences).cpu.as_secs_f64(),
                online_cpu_s: mean(server.online, inferences).cpu.as_secs_f64(),
                peak_memory_bytes: server.peak_memory,
                part: Part::of(architecture, SERVER),
            },
            seco_device: Frames::of(architecture)?,
        })
    }

    /// One JSON object on one line.
    pub fn json(&self) -> String {
        // It holds numbers and strings, which cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let Report { device: d, server: s, seco_device: seco, .. } = self;
        let mean = format!("one inference, mean of {}", self.inferences);
        let verdict = if self.equal { "equal, bit for bit" } else { "DIFFERENT" };
        let row = |name: &str, device: String, server: String| [name.to_owned(), device, server];
        let both = |up, down| format!("{} / {}", megabytes(up), megabytes(down));
        let rows = [
            row(&mean, "the device".to_owned(), "the server".to_owned()),
            row("preprocessing: CPU", seconds(d.preprocessing_cpu_s), seconds(s.preprocessing_cpu_s)),
            row("   both parties are done after", seconds(d.preprocessing_wall_s), String::new()),
            row("   up / down", both(d.preprocessing_bytes_up, d.preprocessing_bytes_down), String::new()),
            row("online: CPU", seconds(d.online_cpu_s), seconds(s.online_cpu_s)),
            row("   both parties are done after", seconds(d.online_wall_s), String::new()),
            row("   up / down", both(d.online_bytes_up, d.online_bytes_down), String::new()),
            row("kept in between", megabytes(d.part.storage_bytes), megabytes(s.part.storage_bytes)),
            row(
                "ReLUs evaluated",
                format!("{} of {}", d.part.relus_evaluated, self.relus),
                format!("{} of {}", s.part.relus_evaluated, self.relus),
            ),
            row(
                "AND gates evaluated / garbled",
                format!("{} / {}", d.part.and_gates_evaluated, d.part.and_gates_garbled),
                format!("{} / {}", s.part.and_gates_evaluated, s.part.and_gates_garbled),
            ),
            row("set-up, once: CPU", seconds(d.setup_cpu_s), seconds(s.setup_cpu_s)),
            row("   up / down", both(d.setup_bytes_up, d.setup_bytes_down), String::new()),
            row("peak memory of the process", megabytes(d.peak_memory_bytes), megabytes(s.peak_memory_bytes)),
        ];
        let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2)];
        let mut table = format!(
            "{}: {} AND gates, {} ReLUs; results and plaintext computation: {verdict}\n\n",
            self.model, self.and_gates, self.relus
        );
        for [name, device, server] in &rows {
            let line = format!("{name:<0$}  {device:>1$}  {server:>2$}", widths[0], widths[1], widths[2]);
            table.push_str(line.trim_end());
            table.push('\n');
        }
        table.push_str(&format!(
            "\nA device of SECO's own sends {} bytes for it and receives {}, and does no preprocessing.\n",
            seco.request_frame_bytes_up, seco.answer_frame_bytes_down
        ));
        table
    }
}

impl Frames {
    fn of(architecture: &Architecture) -> Result<Frames, Error> {
        let input = vec![0; architecture.graph.input.byte_len()];
        let answer =
            vec![0; pack::packed_len(architecture.graph.answer_len(), architecture.graph.answer_width())];
        let request = Request::Infer { handle: 0, counter: 0, input: &input };
        let response = Response::Logits { masked: &answer };
        let (mut up, mut down) = (vec![0; request.frame_bound()], vec![0; response.frame_bound()]);
        let what = "the size of a request";
        Ok(Frames {
            request_frame_bytes_up: request.encode_frame(&mut up).map_err(|e| failed(what, e))?.len() as u64,
            answer_frame_bytes_down: response.encode_frame(&mut down).map_err(|e| failed(what, e))?.len()
                as u64,
        })
    }
}

/// The mean of `count` inferences.
fn mean(all: Spent, count: usize) -> Spent {
    let count = count.max(1);
    let time = |t: Duration| t.div_f64(count as f64);
    let bytes = |b: u64| b / count as u64;
    Spent { cpu: time(all.cpu), wall: time(all.wall), sent: bytes(all.sent), received: bytes(all.received) }
}

fn seconds(value: f64) -> String {
    format!("{value:.4} s")
}

/// Of 10^6 bytes.
fn megabytes(count: u64) -> String {
    format!("{:.3} MB", count as f64 / 1e6)
}
