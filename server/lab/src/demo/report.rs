//! What the demo measured, for people and for programs.

use seco_tools::terminal::grouped;
use serde::Serialize;

/// The SECO paper (Chen and Khisti, arXiv 2404.16232) on the MiniONN network, whole online
/// inference: seconds.
const PAPER_ONLINE_S: f64 = 4.776;
/// The same: megabytes.
const PAPER_ONLINE_MB: f64 = 50.5;

/// All results of a run. Its JSON is the demo's interface to scripts.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `minionn`, `mlp`, or the name of the ONNX file.
    pub model: String,
    /// Number of servers, the gateway included.
    pub servers: usize,
    /// Number of inferences.
    pub count: usize,
    /// Inferences whose logits equal the plaintext fixed-point executor's bit for bit.
    pub equal: usize,
    /// Inferences with the right label, where labels are known.
    pub correct: Option<usize>,
    /// Whether the network has one output, a value: then there are no labels.
    #[serde(skip)]
    pub value: bool,
    /// From the device's request to its answer, milliseconds.
    pub online_ms: Spread,
    /// Seconds that the servers need for one bundle.
    pub preprocessing_s_per_bundle: f64,
    /// UDP payload between device and gateway.
    pub device: DeviceBytes,
    /// UDP payload between servers, all together.
    pub servers_bytes: ServersBytes,
    /// AND gates of one inference.
    pub and_gates: u64,
    /// ReLUs of one inference.
    pub relus: u64,
}

/// Median, smallest and largest of some values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; the mean of both middle ones if their number is even.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of no values it is zero.
    pub fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or_default();
        let last = values.len().saturating_sub(1);
        Spread { median: (at(last / 2) + at(last.div_ceil(2))) / 2.0, min: at(0), max: at(last) }
    }
}

/// What the device's link carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceBytes {
    /// Sent to open a session, beyond the QUIC handshake.
    pub session_bytes_up: u64,
    /// Received for that.
    pub session_bytes_down: u64,
    /// Sent for one request on an open connection, acknowledgements included.
    pub request_bytes_up: u64,
    /// Received for it.
    pub request_bytes_down: u64,
    /// Sent for a cost probe whose payloads have the sizes of the plain input and output.
    pub plain_bytes_up: u64,
    /// Received for it.
    pub plain_bytes_down: u64,
    /// Size of the plain input.
    pub plain_payload_up: u64,
    /// Size of the plain output.
    pub plain_payload_down: u64,
}

/// What the servers send each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServersBytes {
    /// For one bundle.
    pub preprocessing_per_bundle: u64,
    /// For one inference.
    pub online_per_inference: u64,
}

impl Report {
    /// One JSON object on one line.
    pub fn json(&self) -> String {
        // It holds numbers and strings, which cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The table for people. `paper`: the network is the paper's MiniONN.
    pub fn table(&self, paper: bool) -> String {
        let Report { device, servers_bytes, .. } = self;
        let known = |b, text: String| if b { text } else { String::new() };
        let out_of = |n: usize| format!("{n} of {}", self.count);
        let both = |up, down| format!("{} / {}", bytes(up), bytes(down));
        let online = servers_bytes.online_per_inference + device.request_bytes_up + device.request_bytes_down;
        let row = |name: &str, a: String, b: String| [name.to_owned(), a, b];
        let title = |name: &str, a: &str, b: &str| [name.to_owned(), a.to_owned(), b.to_owned()];
        let rest = String::new;

        let mut rows = vec![
            title("RESULTS", "", ""),
            row("equal to the plaintext, bit for bit", out_of(self.equal), rest()),
        ];
        if !self.value {
            rows.push(row("label right", self.correct.map_or("no labels given".to_owned(), out_of), rest()));
        }
        rows.extend([
            title("ONE PREDICTION", "here", if paper { "SECO paper *" } else { "" }),
            row(
                "online: the device waits",
                milliseconds(self.online_ms.median),
                known(paper, milliseconds(1000.0 * PAPER_ONLINE_S)),
            ),
            row(
                "   fastest and slowest",
                format!("{} / {}", milliseconds(self.online_ms.min), milliseconds(self.online_ms.max)),
                rest(),
            ),
            row(
                "online: bytes, all parties",
                bytes(online),
                known(paper, bytes((1e6 * PAPER_ONLINE_MB) as u64)),
            ),
            row(
                "preprocessing, before any request",
                format!("{:.2} s", self.preprocessing_s_per_bundle),
                rest(),
            ),
            row(
                "AND gates / ReLUs",
                format!("{} / {}", grouped(self.and_gates), grouped(self.relus)),
                rest(),
            ),
            title("THE DEVICE SENDS / RECEIVES", "private", "plain"),
            row(
                "one request, QUIC included",
                both(device.request_bytes_up, device.request_bytes_down),
                both(device.plain_bytes_up, device.plain_bytes_down),
            ),
            row("   input / output in it", rest(), both(device.plain_payload_up, device.plain_payload_down)),
            row(
                "opening a session, once",
                both(device.session_bytes_up, device.session_bytes_down),
                "-".to_owned(),
            ),
            title("SERVERS SEND EACH OTHER", "", ""),
            row("preprocessing, per prediction", bytes(servers_bytes.preprocessing_per_bundle), rest()),
            row("online, per prediction", bytes(servers_bytes.online_per_inference), rest()),
        ]);
        let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2)];
        let mut table = String::new();
        for [name, a, b] in rows.drain(..) {
            let heading = name.chars().all(|c| !c.is_lowercase());
            if heading {
                table.push('\n');
            }
            let indent = if heading { "" } else { "  " };
            let first = format!("{indent}{name}");
            let line = format!("{first:<0$}  {a:>1$}  {b:>2$}", widths[0] + 2, widths[1], widths[2]);
            table.push_str(line.trim_end());
            table.push('\n');
        }
        if paper {
            table.push_str(
                "\n* The same network in arXiv 2404.16232: other hardware, four cloud machines over\n  a wide-area \
                 link. Here all parties share one machine; `--net wan` adds the\n  delays of a wide-area link.\n",
            );
        }
        table
    }
}

/// `843 B`, `64.5 MB`.
fn bytes(count: u64) -> String {
    let value = count as f64;
    match count {
        0..10_000 => format!("{} B", grouped(count)),
        10_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

fn milliseconds(value: f64) -> String {
    if value < 1000.0 { format!("{value:.1} ms") } else { format!("{:.3} s", value / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            model: "minionn".to_owned(),
            servers: 3,
            count: 20,
            equal: 20,
            correct: Some(19),
            value: false,
            online_ms: Spread::of(vec![3.0, 1.0, 2.0, 5.5]),
            preprocessing_s_per_bundle: 1.25,
            device: DeviceBytes { request_bytes_up: 843, plain_bytes_up: 839, ..DeviceBytes::default() },
            servers_bytes: ServersBytes {
                preprocessing_per_bundle: 64_512_345,
                online_per_inference: 5_000_000,
            },
            and_gates: 391_220,
            relus: 2660,
        }
    }

    #[test]
    fn json_has_the_promised_fields_and_no_others() {
        let value: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        let keys = |value: &serde_json::Value| {
            let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys.join(" ")
        };
        assert_eq!(
            keys(&value),
            "and_gates correct count device equal model online_ms preprocessing_s_per_bundle relus servers \
             servers_bytes"
        );
        assert_eq!(keys(&value["online_ms"]), "max median min");
        assert_eq!(
            keys(&value["device"]),
            "plain_bytes_down plain_bytes_up plain_payload_down plain_payload_up request_bytes_down \
             request_bytes_up session_bytes_down session_bytes_up"
        );
        assert_eq!(keys(&value["servers_bytes"]), "online_per_inference preprocessing_per_bundle");
        assert_eq!(value["online_ms"]["median"], 2.5);
        let unlabelled = Report { correct: None, ..report() };
        assert!(unlabelled.json().contains("\"correct\":null"));
        assert!(!unlabelled.json().contains('\n'));
    }

    #[test]
    fn a_value_is_not_judged() {
        assert!(report().table(false).contains("label right"));
        let table = Report { value: true, correct: None, ..report() }.table(false);
        assert!(!table.contains("label"), "{table}");
    }

    #[test]
    fn spreads_of_odd_even_and_no_values() {
        assert_eq!(Spread::of(vec![9.0, 1.0, 4.0]), Spread { median: 4.0, min: 1.0, max: 9.0 });
        assert_eq!(Spread::of(vec![2.0]), Spread { median: 2.0, min: 2.0, max: 2.0 });
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }

    #[test]
    fn the_paper_stands_beside_its_own_network_only() {
        let table = report().table(true);
        assert!(table.contains("4.776 s") && table.contains("50.5 MB") && table.contains("other hardware"));
        // Whatever the numbers, it fits a terminal of 80 columns.
        let wide = Report {
            online_ms: Spread::of(vec![999.94, 99_999.0]),
            device: DeviceBytes {
                session_bytes_up: 999_949,
                session_bytes_down: 999_949,
                request_bytes_up: 999_949,
                request_bytes_down: 999_949,
                plain_bytes_up: 999_949,
                plain_bytes_down: 999_949,
                plain_payload_up: 999_949,
                plain_payload_down: 999_949,
            },
            and_gates: 99_999_999,
            relus: 999_999,
            ..report()
        };
        for line in [report().table(true), wide.table(true)].iter().flat_map(|table| table.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let table = report().table(false);
        assert!(!table.contains("paper") && !table.contains("50.5"));
    }

    #[test]
    fn numbers_read_easily() {
        assert_eq!(
            [bytes(843), bytes(9_999), bytes(12_345), bytes(64_512_345)],
            ["843 B", "9,999 B", "12.3 kB", "64.5 MB"]
        );
        assert_eq!(
            [grouped(0), grouped(999), grouped(1000), grouped(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
