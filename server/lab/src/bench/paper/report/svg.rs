//! Drawings: curves over layers, and bars. Each is a file of its own, light and dark by what the reader prefers, and
//! says in words what it shows.

use std::fmt::Write as _;

use seco_tools::check::html::escape;

const WIDTH: f64 = 720.0;
/// Colours, and shapes of points for those who cannot tell colours apart.
const KINDS: usize = 6;

/// By kind: on light and on dark ground.
const COLOURS: [[&str; KINDS]; 2] = [
    ["#2868b8", "#c9621b", "#1d7a46", "#8a4fb5", "#9a7400", "#5d6670"],
    ["#6aa9f0", "#ee9050", "#5cc98b", "#c598ea", "#d9b84a", "#aab2bb"],
];

/// Rules for both grounds.
fn style() -> String {
    let rules = |[ink, soft, grid]: [&str; 3], colours: [&str; KINDS]| {
        let mut rules = format!(".ink{{fill:{ink}}}.soft{{fill:{soft}}}.grid{{stroke:{grid}}}");
        for (kind, colour) in colours.into_iter().enumerate() {
            rules += &format!(".mark.c{kind}{{fill:{colour}}}.line.c{kind}{{stroke:{colour}}}");
        }
        rules
    };
    let [light, dark] = COLOURS;
    let (light, dark) =
        (rules(["#1d2025", "#626a75", "#dfe1e4"], light), rules(["#e8eaed", "#9aa3ad", "#353a41"], dark));
    format!(".line{{fill:none;stroke-width:1.6}}{light}@media(prefers-color-scheme:dark){{{dark}}}")
}

/// A value with how far off others of it are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    pub value: f64,
    pub within: Option<f64>,
}

/// A curve.
pub struct Curve {
    pub name: String,
    /// Colour and shape: 0 to 5.
    pub kind: usize,
    pub points: Vec<(f64, Value)>,
    /// Whether it is one value for all layers: drawn across.
    pub across: bool,
}

/// What is drawn, in words and units.
pub struct Labels<'a> {
    pub title: &'a str,
    pub description: &'a str,
    /// Along the axes.
    pub x: &'a str,
    pub y: &'a str,
}

fn open(height: f64, title: &str, description: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"system-ui,sans-serif\" font-size=\"12\"><title>{}</title><desc>{}</desc><style>{}</style>\n\
         <text class=\"ink\" x=\"12\" y=\"22\" font-size=\"15\" font-weight=\"600\">{}</text>\n",
        escape(title),
        escape(description),
        style(),
        escape(title)
    )
}

fn text(x: f64, y: f64, class: &str, anchor: &str, words: &str) -> String {
    format!(
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n",
        escape(words)
    )
}

/// A point in the shape of its kind.
fn point(kind: usize, x: f64, y: f64) -> String {
    let kind = kind % KINDS;
    let shape = match kind % 3 {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\""),
        1 => format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\"", x - 3.5, y - 3.5),
        _ => format!("<path d=\"M{x:.1} {:.1}l4.5 8h-9z\"", y - 5.0),
    };
    format!("{shape} class=\"mark c{kind}\"/>\n")
}

/// A logarithmic axis that holds all positive values.
struct Log {
    low: f64,
    high: f64,
}

impl Log {
    fn of(values: impl Iterator<Item = f64>) -> Option<Log> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        values.filter(|value| *value > 0.0 && value.is_finite()).for_each(|value| {
            (low, high) = (low.min(value), high.max(value));
        });
        let (low, high) = (low.log10().floor(), high.log10().ceil());
        (low.is_finite() && high.is_finite()).then(|| Log { low, high: high.max(low + 1.0) })
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        ((value.max(f64::MIN_POSITIVE).log10() - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        // Not more than eight of them.
        let step = ((self.high - self.low) / 8.0).ceil().max(1.0) as usize;
        (self.low as i32..=self.high as i32).step_by(step).map(|power| 10f64.powi(power))
    }
}

/// `0.001`, `10`, `20k`, `3M`.
pub fn tick(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{}G", v / 1e9),
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e4 => format!("{}k", v / 1e3),
        v => format!("{v}"),
    }
}

/// Curves with a logarithmic height. Nothing is drawn of values that are zero: the description says so.
pub fn curves(labels: &Labels<'_>, curves: &[Curve]) -> Option<String> {
    let (left, right, top, bottom) = (70.0, 20.0, 40.0, 300.0);
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let ends = |(_, v): &(f64, Value)| [v.value, v.value + v.within.unwrap_or(0.0)];
    let y = Log::of(all().flat_map(ends))?;
    let (mut first, mut last) = (f64::INFINITY, f64::NEG_INFINITY);
    all().for_each(|&(x, _)| (first, last) = (first.min(x), last.max(x)));
    let span = (last - first).max(1.0);
    let place_x = |x: f64| {
        left + 14.0 + (WIDTH - left - right - 28.0) * if last > first { (x - first) / span } else { 0.5 }
    };
    let place_y = |value: f64| bottom - (bottom - top) * y.place(value);
    let rows = curves.len().div_ceil(3) as f64;
    let height = bottom + 48.0 + 18.0 * rows;
    let mut svg = open(height, labels.title, labels.description);
    for value in y.ticks() {
        let at = place_y(value);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{left} {at:.1}H{:.1}\"/>", WIDTH - right);
        svg += &text(left - 8.0, at + 4.0, "soft", "end", &tick(value));
    }
    let mut xs: Vec<f64> = all().map(|&(x, _)| x).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    for &x in &xs {
        svg += &text(place_x(x), bottom + 16.0, "soft", "middle", &tick(x));
    }
    svg += &text((left + WIDTH - right) / 2.0, bottom + 34.0, "soft", "middle", labels.x);
    svg += &text(WIDTH - right, 22.0, "soft", "end", labels.y);
    for (place, curve) in curves.iter().enumerate() {
        let kind = curve.kind % KINDS;
        let shown: Vec<&(f64, Value)> = curve.points.iter().filter(|(_, v)| v.value > 0.0).collect();
        if let (true, Some((_, v))) = (curve.across, shown.first()) {
            let at = place_y(v.value);
            let _ = writeln!(
                svg,
                "<path class=\"line c{kind}\" stroke-dasharray=\"6 4\" d=\"M{left} {at:.1}H{:.1}\"/>",
                WIDTH - right
            );
        } else if shown.len() > 1 {
            let path: Vec<String> =
                shown.iter().map(|(x, v)| format!("{:.1} {:.1}", place_x(*x), place_y(v.value))).collect();
            let _ = writeln!(svg, "<path class=\"line c{kind}\" d=\"M{}\"/>", path.join("L"));
        }
        for (x, v) in shown {
            if let Some(within) = v.within {
                let (low, high) = (place_y((v.value - within).max(v.value / 1e3)), place_y(v.value + within));
                let _ = writeln!(
                    svg,
                    "<path class=\"line c{kind}\" d=\"M{:.1} {low:.1}V{high:.1}\"/>",
                    place_x(*x)
                );
            }
            svg += &point(kind, place_x(*x), place_y(v.value));
        }
        let (column, row) = ((place % 3) as f64, (place / 3) as f64);
        let (x, y) = (left + column * 215.0, bottom + 54.0 + 18.0 * row);
        svg += &point(kind, x, y);
        svg += &text(x + 10.0, y + 4.0, "ink", "start", &curve.name);
    }
    Some(svg + "</svg>")
}

/// A bar.
pub struct Bar {
    pub name: String,
    pub kind: usize,
    pub value: Option<Value>,
    /// What stands at its end.
    pub words: String,
}

/// Groups of bars on one logarithmic scale.
pub fn bars(labels: &Labels<'_>, groups: &[(String, Vec<Bar>)]) -> Option<String> {
    let (left, right, top) = (190.0, 130.0, 44.0);
    let values = groups.iter().flat_map(|(_, bars)| bars).filter_map(|bar| bar.value);
    let scale = Log::of(values.map(|v| v.value))?;
    let height = top + groups.iter().map(|(_, bars)| 30.0 + 20.0 * bars.len() as f64).sum::<f64>() + 24.0;
    let mut svg = open(height, labels.title, labels.description);
    let place = |value: f64| left + (WIDTH - left - right) * scale.place(value);
    for value in scale.ticks() {
        let at = place(value);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {top}V{:.1}\"/>", height - 26.0);
        svg += &text(at, height - 10.0, "soft", "middle", &tick(value));
    }
    let mut y = top;
    for (name, bars) in groups {
        svg += &format!(
            "<text class=\"ink\" x=\"12\" y=\"{:.1}\" font-weight=\"600\">{}</text>\n",
            y + 16.0,
            escape(name)
        );
        y += 24.0;
        for bar in bars {
            svg += &text(left - 8.0, y + 12.0, "ink", "end", &bar.name);
            let end = bar.value.map_or(left, |v| place(v.value));
            let _ = writeln!(
                svg,
                "<rect class=\"mark c{}\" x=\"{left}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"15\"/>",
                bar.kind % KINDS,
                (end - left).max(0.0)
            );
            svg += &text(end + 6.0, y + 12.0, "ink", "start", &bar.words);
            y += 20.0;
        }
        y += 6.0;
    }
    Some(svg + "</svg>")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: Labels<'_> = Labels { title: "A < B", description: "words", x: "layers", y: "s" };

    #[test]
    fn points_lie_where_their_values_are_and_zeros_nowhere() {
        let v = |value| Value { value, within: None };
        let points = vec![(1.0, v(1.0)), (2.0, v(10.0)), (3.0, v(0.0))];
        let curve = Curve { name: "one".to_owned(), kind: 0, points, across: false };
        let svg = curves(&LABELS, &[curve]).unwrap();
        // From one decade to the next: the lowest and the highest place.
        assert!(svg.contains("cy=\"300.0\"") && svg.contains("cy=\"40.0\""), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2 + 1, "two points and the legend");
        assert!(svg.contains("<title>A &lt; B</title>") && svg.contains("<desc>words</desc>"));
        assert!(curves(&LABELS, &[]).is_none());
    }

    #[test]
    fn bars_are_as_long_as_their_logarithm() {
        let bar = |value| Bar { name: "b".to_owned(), kind: 1, value, words: "w".to_owned() };
        let value = |value| Some(Value { value, within: None });
        let bars = bars(
            &LABELS,
            &[("g".to_owned(), vec![bar(value(1.0)), bar(value(10.0)), bar(value(100.0)), bar(None)])],
        );
        let svg = bars.unwrap();
        for width in ["width=\"0.0\"", "width=\"200.0\"", "width=\"400.0\""] {
            assert!(svg.contains(width), "{width}: {svg}");
        }
    }
}
