//! Drawings.

use std::fmt::Write as _;

use super::escape;
use crate::check::layers::Layer;
use crate::check::report::{Confusion, bytes};

/// Width of a drawing, of its names, and height of a row.
const WIDTH: f64 = 960.0;
const NAMES: f64 = 190.0;
const FIGURES: f64 = 90.0;
const ROW: f64 = 20.0;
const TOP: f64 = 26.0;
/// Rows of a drawing; of more, the largest are drawn.
const ROWS: usize = 80;
/// Classes of a drawn confusion; of more, those that differ are listed.
const CLASSES: usize = 24;

fn svg(height: f64, label: &str, content: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{}\">\n{content}</svg>\n",
        escape(label)
    )
}

fn text(x: f64, y: f64, class: &str, anchor: &str, words: &str) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{}</text>\n",
        escape(words)
    )
}

fn bar(x: f64, y: f64, width: f64, class: &str, title: &str) -> String {
    format!(
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.0}\" class=\"{class}\"><title>{}</title></rect>\n",
        width.max(0.0),
        ROW - 6.0,
        escape(title)
    )
}

/// A name that fits.
fn name(name: &str) -> String {
    let all: Vec<char> = name.chars().collect();
    match all.len() {
        0..=26 => name.to_owned(),
        count => {
            let [start, end] = [&all[..10], &all[count - 14..]].map(|part| part.iter().collect::<String>());
            format!("{start}…{end}")
        }
    }
}

/// Rows in their order, of too many those with the most.
fn largest(rows: Vec<&Layer>, of: impl Fn(&Layer) -> u64) -> (Vec<&Layer>, String) {
    if rows.len() <= ROWS {
        return (rows, String::new());
    }
    let mut sizes: Vec<u64> = rows.iter().map(|row| of(row)).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let least = sizes.get(ROWS - 1).copied().unwrap_or(0);
    let more = rows.len();
    let kept: Vec<&Layer> = rows.into_iter().filter(|row| of(row) >= least).take(ROWS).collect();
    let note = format!(
        "<p class=\"note\">{} of {more} rows, those with the most; the table has all.</p>\n",
        kept.len()
    );
    (kept, note)
}

/// Bytes between servers by layer, ahead and online.
pub fn costs(layers: &[Layer]) -> String {
    let all = |layer: &Layer| layer.bytes + layer.online_bytes;
    let (rows, note) = largest(layers.iter().filter(|layer| all(layer) > 0).collect(), all);
    let most = rows.iter().map(|layer| all(layer)).max().unwrap_or(1).max(1) as f64;
    let scale = (WIDTH - NAMES - FIGURES) / most;
    let mut content = String::new();
    let mut x = NAMES;
    for (class, words) in [("one", "linear layer, ahead"), ("two", "ReLU, ahead"), ("three", "online")] {
        content += &bar(x, 4.0, 14.0, class, words);
        content += &text(x + 20.0, 15.0, "soft", "start", words);
        x += 160.0;
    }
    for (i, layer) in rows.iter().enumerate() {
        let y = TOP + i as f64 * ROW;
        let (ahead, online) = (layer.bytes as f64 * scale, layer.online_bytes as f64 * scale);
        let title =
            format!("{}: {} ahead, {} online", layer.name, bytes(layer.bytes), bytes(layer.online_bytes));
        content += &text(NAMES - 8.0, y + 11.0, "", "end", &name(&layer.name));
        content += &bar(NAMES, y, ahead, if layer.kind == "linear" { "one" } else { "two" }, &title);
        content += &bar(NAMES + ahead, y, online, "three", &title);
        content += &text(NAMES + ahead + online + 6.0, y + 11.0, "soft", "start", &bytes(all(layer)));
    }
    let drawn = svg(TOP + rows.len() as f64 * ROW + 4.0, "bytes between servers by layer", &content);
    drawn + "<p class=\"note\">Bytes between all servers, for one inference.</p>\n" + &note
}

/// Bits that values used, of those that there are.
pub fn headroom(layers: &[Layer]) -> String {
    let sums: Vec<&Layer> = layers.iter().filter(|layer| layer.used_bits.is_some()).collect();
    let (rows, note) = largest(sums, |layer| u64::from(layer.used_bits.unwrap_or(0)));
    let scale = (WIDTH - NAMES - FIGURES) / 32.0;
    let height = TOP + rows.len() as f64 * ROW + 4.0;
    let mut content = String::new();
    for bits in (0..=32).step_by(8) {
        let x = NAMES + f64::from(bits) * scale;
        let _ = writeln!(
            content,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.0}\" y2=\"{height:.0}\" class=\"line\"/>",
            TOP - 6.0
        );
        content += &text(x, 13.0, "soft", "middle", &format!("{bits} bits"));
    }
    for (i, layer) in rows.iter().enumerate() {
        let y = TOP + i as f64 * ROW;
        let used = f64::from(layer.used_bits.unwrap_or(0));
        let worst = layer.worst_bits.map_or_else(String::new, |bits| format!(", the worst case {bits}"));
        let title = format!("{}: {used} bits used of {}{worst}", layer.name, layer.width);
        content += &text(NAMES - 8.0, y + 11.0, "", "end", &name(&layer.name));
        content += &bar(NAMES, y, f64::from(layer.width) * scale, "three", &title);
        content += &bar(NAMES, y, used * scale, "one", &title);
        if let Some(worst) = layer.worst_bits {
            let x = NAMES + f64::from(worst.min(32)) * scale;
            let _ = writeln!(
                content,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.0}\" y2=\"{:.0}\" class=\"mark\"/>",
                y - 2.0,
                y + ROW - 4.0
            );
        }
        let spare = layer.headroom_bits.unwrap_or(0);
        let x = NAMES + f64::from(layer.width.max(layer.worst_bits.unwrap_or(0).min(32))) * scale + 6.0;
        content += &text(x, y + 11.0, "soft", "start", &format!("{spare} spare"));
    }
    svg(height, "bits used and there by layer", &content)
        + "<p class=\"note\">Dark: bits that the samples took, the sign among them. Light: bits that there are. The mark is what \
           the worst case of all inputs would take.</p>\n"
        + &note
}

/// Labels of the float network against those of the integer network.
pub fn confusion(confusion: &Confusion) -> String {
    let Confusion { classes, counts } = confusion;
    let label = |class: usize| classes.get(class).cloned().unwrap_or_default();
    if classes.len() > CLASSES {
        let mut pairs: Vec<(usize, usize, usize)> = Vec::new();
        for (float, row) in counts.iter().enumerate() {
            let other = row.iter().enumerate().filter(|&(fixed, &count)| fixed != float && count > 0);
            pairs.extend(other.map(|(fixed, &count)| (count, float, fixed)));
        }
        pairs.sort_unstable_by(|a, b| b.cmp(a));
        if pairs.is_empty() {
            return format!(
                "<p>All samples have the same label in both, of {} classes.</p>\n",
                classes.len()
            );
        }
        let row = |(count, float, fixed): &(usize, usize, usize)| {
            let [float, fixed] = [*float, *fixed].map(|class| escape(&label(class)));
            format!("<tr><td>{float}</td><td class=\"n\">{fixed}</td><td class=\"n\">{count}</td></tr>\n")
        };
        let rows: String = pairs.iter().take(ROWS).map(row).collect();
        return format!(
            "<p>Samples whose labels differ:</p>\n<div class=\"wide\"><table><tr><th>float network</th><th>private</th>\
             <th>samples</th></tr>\n{rows}</table></div>\n"
        );
    }
    let most = counts.iter().flatten().copied().max().unwrap_or(1).max(1) as f64;
    let cell = ((WIDTH - NAMES - FIGURES) / classes.len().max(1) as f64).min(44.0);
    let mut content = text(NAMES, 13.0, "soft", "start", "private network: columns; float network: rows");
    for (float, row) in counts.iter().enumerate() {
        let y = TOP + 18.0 + float as f64 * cell;
        content += &text(NAMES - 8.0, y + cell / 2.0 + 4.0, "", "end", &name(&label(float)));
        let short: String = label(float).chars().take(((cell / 7.0) as usize).max(1)).collect();
        content += &text(NAMES + (float as f64 + 0.5) * cell, TOP + 10.0, "soft", "middle", &short);
        for (fixed, &count) in row.iter().enumerate() {
            let x = NAMES + fixed as f64 * cell;
            let class = if float == fixed { "one" } else { "two" };
            let title = format!("{} became {}: {count}", label(float), label(fixed));
            let opacity = if count == 0 { 0.06 } else { 0.25 + 0.6 * count as f64 / most };
            let _ = writeln!(
                content,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{0:.1}\" height=\"{0:.1}\" class=\"{class}\" \
                 opacity=\"{opacity:.2}\"><title>{1}</title></rect>",
                cell - 2.0,
                escape(&title)
            );
            if count > 0 {
                content +=
                    &text(x + cell / 2.0 - 1.0, y + cell / 2.0 + 3.0, "", "middle", &count.to_string());
            }
        }
    }
    svg(TOP + 22.0 + classes.len() as f64 * cell, "labels of both networks", &content)
}
