//! The report as one page with pictures, which needs nothing else: styles and drawings are in it, light and dark.
//!
//! Everything that comes from a file, names above all, is escaped ([`escape`]).

mod pictures;

use std::fmt::Write as _;

use super::report::{Fidelity, Report, Row, bytes, seconds, short};
use super::text::{axes, plural};
use crate::terminal::{grouped, percent};

const STYLE: &str = include_str!("html/style.css");

/// The page.
pub(super) fn page(report: &Report) -> String {
    let title = escape(&report.model);
    let (class, word) = match report.works {
        true => ("good", "works"),
        false if report.fidelity.is_none() => ("bad", "refused"),
        false => ("bad", "needs a look"),
    };
    let mut body = format!(
        "<header><p class=\"kind\">seco check</p><h1>{title} <span class=\"{class}\">{word}</span></h1>\n<p>{}</p>\n",
        escape(&summary(report))
    );
    if !report.refused.is_empty() {
        let _ = writeln!(body, "<p class=\"warning\">It is refused; {}.</p>", Report::OF_THE_REST);
    }
    for warning in report.refused.iter().chain(&report.warnings) {
        let _ = writeln!(body, "<p class=\"warning\">{}</p>", escape(warning));
    }
    body += "</header>\n";
    body += &tiles(report);
    section("Cost by layer", &pictures::costs(&report.layers), &mut body);
    section("Values and headroom", &pictures::headroom(&report.layers), &mut body);
    if let Some(confusion) = &report.confusion {
        section("Labels: float network and private network", &pictures::confusion(confusion), &mut body);
    }
    section("What an inference costs", &totals(report), &mut body);
    section("All layers", &layers(report), &mut body);
    if let Some(next) = &report.next {
        section("Next", &format!("<pre><code>{}</code></pre>", escape(next)), &mut body);
    }
    whole(&format!("{}: seco check", report.model), STYLE, &body)
}

/// A page of `body`, which is HTML, as `title`, which is text. It has its style in itself and loads nothing.
pub fn whole(title: &str, style: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<style>\n{style}</style></head>\n<body><main>\n{body}</main></body></html>\n",
        escape(title)
    )
}

/// Text for the content of an element, or an attribute in double quotes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

fn section(title: &str, content: &str, body: &mut String) {
    let _ = writeln!(body, "<section><h2>{title}</h2>\n{content}</section>");
}

fn summary(report: &Report) -> String {
    let linear = report.layers.iter().filter(|layer| layer.kind == "linear").count() as u64;
    let needed = report.input.needed().map(|needed| format!(" (needed: {needed})")).unwrap_or_default();
    let reals =
        report.input.real_numbers.iter().map(|told| format!(" Inputs are {told}.")).collect::<String>();
    format!(
        "{}: {}, {}, {} products of weights, inputs of {} values of {} bits{needed}. Tried on {} of {} samples.{reals}",
        report.file,
        plural(linear, "linear layer"),
        plural(report.relus, "ReLU"),
        short(report.macs as f64),
        axes(&report.input.shape),
        report.input.bits,
        report.input.samples,
        report.input.available
    )
}

/// The figures that matter most.
fn tiles(report: &Report) -> String {
    let mut tiles = report.fidelity.as_ref().map_or_else(Vec::new, |fidelity| exactness(report, fidelity));
    if let Some(totals) = report.totals.iter().find(|totals| totals.servers == report.servers) {
        let network = |name: &str| totals.networks.iter().find(|network| network.name == name);
        if let (Some(lan), Some(wan)) = (network("lan"), network("wan")) {
            tiles.push((
                seconds(lan.online_s),
                format!("an answer of {} servers, LAN", totals.servers),
                format!(
                    "{} over a WAN; {} between servers",
                    seconds(wan.online_s),
                    bytes(totals.online.bytes)
                ),
            ));
            tiles.push((
                seconds(lan.preprocessing_s),
                "preprocessing of each, LAN".to_owned(),
                format!(
                    "{} over a WAN; {} between servers",
                    seconds(wan.preprocessing_s),
                    bytes(totals.preprocessing.bytes)
                ),
            ));
        }
    }
    let tile = |(figure, what, more): &(String, String, String)| {
        format!(
            "<div><b>{}</b><span>{}</span><small>{}</small></div>\n",
            escape(figure),
            escape(what),
            escape(more)
        )
    };
    format!("<div class=\"tiles\">\n{}</div>\n", tiles.iter().map(tile).collect::<String>())
}

/// How exact it is: a figure, what it is, and more of it.
fn exactness(report: &Report, fidelity: &Fidelity) -> Vec<(String, String, String)> {
    let wrapped = format!("{} sums wrapped around", grouped(fidelity.wrapped));
    let labels = format!("{} of {}; {}", fidelity.same, report.input.samples, fidelity.confidence());
    let mut tiles = vec![(percent(fidelity.agreement), "labels as the float network's".to_owned(), labels)];
    tiles.push(match fidelity.difference() {
        Some(most) => {
            (most, "largest difference of an answer".to_owned(), format!("of the largest answer; {wrapped}"))
        }
        None => {
            (grouped(fidelity.wrapped), "sums that wrapped around".to_owned(), "on these inputs".to_owned())
        }
    });
    if let (Some(float), Some(fixed)) = (fidelity.float_accuracy, fidelity.fixed_accuracy) {
        tiles.push((
            percent(fixed),
            "right labels, private".to_owned(),
            format!("float network: {}", percent(float)),
        ));
    }
    tiles
}

/// Rows of a table: a heading, then by number of servers.
fn totals(report: &Report) -> String {
    let mut table = String::from("<div class=\"wide\"><table><tr><th>servers</th>");
    for totals in &report.totals {
        let _ = write!(table, "<th>{}</th>", totals.servers);
    }
    table += "</tr>\n";
    for Row { what, values, .. } in report.costs() {
        let _ = write!(table, "<tr><td>{what}</td>");
        values.iter().for_each(|value| {
            let _ = write!(table, "<td class=\"n\">{}</td>", escape(value));
        });
        table += "</tr>\n";
    }
    let rates = match report.rates.measured {
        true => "what this machine was measured to do then",
        false => "what another machine does",
    };
    let _ = write!(
        table,
        "</table></div>\n<p class=\"note\">Bytes and messages are those of the protocol's plan, without QUIC's and IP's headers. Times are estimates from \
         {rates}, for servers like it. LAN: 0.1 ms one way and 10 Gbit/s; WAN: 20 ms and 200 Mbit/s. Memory is \
         estimated from what is kept and under way.</p>\n"
    );
    table
}

fn layers(report: &Report) -> String {
    let heads = [
        "layer",
        "kind",
        "shape",
        "MACs",
        "an integer is",
        "bits",
        "least",
        "largest",
        "spare bits",
        "worst case, bits",
        "ReLUs",
        "AND gates",
        "ciphertexts in, out",
        "bytes ahead",
        "online",
    ];
    let mut table = String::from("<div class=\"wide\"><table><tr>");
    heads.iter().for_each(|head| {
        let _ = write!(table, "<th>{head}</th>");
    });
    table += "</tr>\n";
    for layer in &report.layers {
        let some = |value: Option<u64>| value.map(grouped).unwrap_or_default();
        let signed = |value: Option<i64>| {
            value.map_or_else(String::new, |v| {
                format!("{}{}", if v < 0 { "-" } else { "" }, grouped(v.unsigned_abs()))
            })
        };
        let bits = |value: Option<u32>| value.map(|bits| bits.to_string()).unwrap_or_default();
        let ciphertexts = layer.ciphertexts_in.zip(layer.ciphertexts_out);
        let values = [
            axes(&layer.shape),
            some(layer.macs),
            layer.scale.map(|scale| format!("{scale:.3e}")).unwrap_or_default(),
            layer.width.to_string(),
            signed(layer.least),
            signed(layer.largest),
            bits(layer.headroom_bits),
            bits(layer.worst_bits),
            some(layer.relus),
            some(layer.and_gates),
            ciphertexts.map(|(a, b)| format!("{a}, {b}")).unwrap_or_default(),
            grouped(layer.bytes),
            grouped(layer.online_bytes),
        ];
        let _ = write!(table, "<tr><td>{}</td><td>{}</td>", escape(&layer.name), layer.kind);
        values.iter().for_each(|value| {
            let _ = write!(table, "<td class=\"n\">{}</td>", escape(value));
        });
        table += "</tr>\n";
    }
    format!("{table}</table></div>\n<p class=\"note\">With {} servers.</p>\n", report.servers)
}
