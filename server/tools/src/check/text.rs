//! The report for people, in 80 columns.

use std::fmt::Write as _;
use std::path::Path;

use super::layers::Layer;
use super::report::{Report, Row, short};
use crate::terminal::{grouped, percent};

const COLUMNS: usize = 80;
/// Layers that are listed; all are in the other forms.
const LAYERS: usize = 60;

/// All of it. `written` is where the page with pictures is.
pub fn page(report: &Report, written: Option<&Path>) -> String {
    let mut text = String::new();
    verdict(report, &mut text);
    exactness(report, &mut text);
    layers(report, &mut text);
    costs(report, &mut text);
    if let Some(next) = &report.next {
        text += "\nNext\n";
        if !report.works {
            paragraph("First see to the warnings above. Then, or if this is good enough:", "  ", &mut text);
        }
        command(next, &mut text);
    }
    if let Some(path) = written {
        paragraph(&format!("Pictures are in {}.", path.display()), "  ", &mut text);
    }
    text.trim_end().to_owned()
}

/// What a file says, without what a terminal would obey.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Words in lines.
fn paragraph(words: &str, indent: &str, text: &mut String) {
    let mut line = indent.to_owned();
    for word in words.split_whitespace() {
        if line.len() > indent.len() && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            let _ = writeln!(text, "{line}");
            indent.clone_into(&mut line);
        }
        if line.len() > indent.len() {
            line.push(' ');
        }
        line += word;
    }
    let _ = writeln!(text, "{line}");
}

/// A command that can be copied, options kept whole.
fn command(words: &str, text: &mut String) {
    let mut line = String::from(" ");
    for part in words
        .split(" --")
        .enumerate()
        .map(|(i, part)| if i == 0 { part.to_owned() } else { format!("--{part}") })
    {
        if line.len() > 3 && line.chars().count() + part.chars().count() + 3 > COLUMNS {
            let _ = writeln!(text, "{line} \\");
            line = "   ".to_owned();
        }
        line += " ";
        line += &part;
    }
    let _ = writeln!(text, "{line}");
}

/// `count` of something.
pub fn plural(count: u64, one: &str) -> String {
    format!("{} {one}{}", grouped(count), if count == 1 { "" } else { "s" })
}

fn verdict(report: &Report, text: &mut String) {
    let linear = report.layers.iter().filter(|layer| layer.kind == "linear").count() as u64;
    let _ = writeln!(
        text,
        "{}: {}, {}, {} products of weights\n",
        clean(&report.model),
        plural(linear, "linear layer"),
        plural(report.relus, "ReLU"),
        short(report.macs as f64)
    );
    let Some(fidelity) = &report.fidelity else {
        paragraph(&format!("It is refused; {}.", Report::OF_THE_REST), "", text);
        for line in &report.refused {
            paragraph(&format!("refused: {}", clean(line)), "  ", text);
        }
        return;
    };
    let samples = report.input.samples;
    let agrees = format!("its labels are the float network's for {} of {samples} inputs", fidelity.same);
    let confidence = fidelity.confidence();
    let words = match report.works {
        true => format!("It works: the private network computes in integers, and {agrees}; {confidence}."),
        false => {
            format!("It does not work as it should: {agrees}, or it was asked to be nearer; {confidence}.")
        }
    };
    paragraph(&words, "", text);
    for warning in &report.warnings {
        paragraph(&format!("warning: {}", clean(warning)), "  ", text);
    }
}

fn exactness(report: &Report, text: &mut String) {
    let (Some(fidelity), input) = (&report.fidelity, &report.input) else { return };
    let _ = writeln!(text, "\nHow exact, on {} of {} samples", input.samples, input.available);
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<34}{value}");
    };
    line("labels as the float network's", format!("{} ({})", fidelity.same, percent(fidelity.agreement)));
    if let (Some(float), Some(fixed)) = (fidelity.float_accuracy, fidelity.fixed_accuracy) {
        line("right labels, float and private", format!("{} and {}", percent(float), percent(fixed)));
    }
    if let Some(difference) = fidelity.difference() {
        line("largest difference of an answer", format!("{difference} of its largest"));
    }
    let wrapped = if fidelity.wrapped == 0 { "none".to_owned() } else { grouped(fidelity.wrapped) };
    line("sums that wrapped or were cut off", wrapped);
    if let Some(told) = &input.real_numbers {
        line("inputs", told.clone());
    }
    if let Some(needed) = input.needed() {
        line("bits of an input that are needed", needed);
    }
    let precision = &report.precision;
    line(
        "weights, activations",
        format!("{} bits and a sign, {} bits", precision.weight_bits, precision.activation_bits),
    );
    let rounded: Vec<&str> = report.layers.iter().filter_map(|layer| layer.rounding).collect();
    let compensated = rounded.iter().filter(|rounding| **rounding == "compensated").count();
    line("layers rounded for what they make", format!("{compensated} of {}", rounded.len()));
}

fn layers(report: &Report, text: &mut String) {
    let _ = writeln!(text, "\nLayers, with {} servers", report.servers);
    let _ = writeln!(
        text,
        "  {:<18}{:>12}{:>8}{:>6}{:>9}{:>6}{:>8}{:>8}",
        "", "shape", "MACs", "bits", "largest", "spare", "ANDs", "MB"
    );
    let some = |value: Option<String>| value.unwrap_or_default();
    for layer in report.layers.iter().take(LAYERS) {
        let _ = writeln!(
            text,
            "  {:<18}{:>12}{:>8}{:>6}{:>9}{:>6}{:>8}{:>8}",
            name(layer),
            axes(&layer.shape),
            some(layer.macs.map(|macs| short(macs as f64))),
            layer.width,
            some(layer.magnitude().map(|most| short(most as f64))),
            some(layer.headroom_bits.map(|bits| bits.to_string())),
            some(layer.and_gates.map(|ands| short(ands as f64))),
            megabytes(layer.bytes + layer.online_bytes),
        );
    }
    if report.layers.len() > LAYERS {
        let more = report.layers.len() - LAYERS;
        let _ = writeln!(text, "  and {more} more: --json or --report has all");
    }
    let words = "bits: width of the sums; largest: seen of them; spare: bits before they wrap around; MB: between \
                 servers, for one inference. --json has scales and ciphertexts too.";
    paragraph(words, "  ", text);
}

/// A layer's name, shortened in the middle.
fn name(layer: &Layer) -> String {
    let name: Vec<char> = clean(&layer.name).chars().collect();
    if name.len() <= 17 {
        return name.into_iter().collect();
    }
    let (start, end) = (&name[..7], &name[name.len() - 8..]);
    start.iter().chain(&['.', '.']).chain(end).collect()
}

/// `16x24x24`.
pub fn axes(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

fn megabytes(bytes: u64) -> String {
    match bytes as f64 / 1e6 {
        0.0 => String::new(),
        mb if mb < 9.995 => format!("{mb:.2}"),
        mb if mb < 99.95 => format!("{mb:.1}"),
        mb => format!("{mb:.0}"),
    }
}

fn costs(report: &Report, text: &mut String) {
    let _ = writeln!(text, "\nWhat an inference costs");
    let heads = Row {
        what: "servers",
        more: false,
        values: report.totals.iter().map(|totals| totals.servers.to_string()).collect(),
    };
    for Row { what, more, values } in [heads].into_iter().chain(report.costs()) {
        let what = if more { format!("  {what}") } else { what.to_owned() };
        let values: String = values.iter().map(|value| format!("{value:>11}")).collect();
        let _ = writeln!(text, "  {what:<36}{values}");
    }
    let rates = match report.rates.measured {
        true => "what this machine was measured to do just now",
        false => "what another machine does (without --no-bench this one is measured)",
    };
    let words = format!(
        "Bytes and messages are those of the protocol's plan, without QUIC's and IP's headers. Times are estimates from {rates}, for servers like it; LAN: 0.1 ms one way, \
         10 Gbit/s, WAN: 20 ms, 200 Mbit/s. Memory is estimated from what is kept and under way."
    );
    paragraph(&words, "  ", text);
}
