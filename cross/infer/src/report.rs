//! What is printed on standard output: a line per input.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use seco_sdk::{Cost, Prediction};

use crate::Error;
use crate::options::Options;

/// How much is told.
#[derive(Clone, Copy)]
pub struct Report {
    json: bool,
    logits: bool,
    cost: bool,
}

impl Report {
    pub fn new(options: &Options) -> Self {
        Self { json: options.json, logits: options.logits, cost: options.cost }
    }

    /// Prints a prediction for the sample `index` of the input `name`; no index if it is the only one.
    pub fn prediction(
        self,
        name: &str,
        index: Option<usize>,
        prediction: &Prediction,
        cost: &Cost,
    ) -> Result<(), Error> {
        print(&if self.json { json(name, index, prediction, cost) } else { self.text(name, index, prediction, cost) })
    }

    /// Prints what everything cost, where that was asked for.
    pub fn total(self, cost: &Cost) -> Result<(), Error> {
        if self.cost && !self.json { print(&format!("in all: {}", spent(cost))) } else { Ok(()) }
    }

    fn text(self, name: &str, index: Option<usize>, prediction: &Prediction, cost: &Cost) -> String {
        let mut line = name.to_owned();
        // Writing to a string does not fail.
        let _ = index.map(|index| write!(line, "[{index}]"));
        let _ = write!(line, ": {}", prediction.label);
        if self.logits {
            line.push_str("\n  logits");
            let one = f64::from(prediction.fraction).exp2();
            for logit in &prediction.logits {
                let _ = write!(line, " {:.3}", f64::from(*logit) / one);
            }
        }
        if self.cost {
            let _ = write!(line, "\n  {}", spent(cost));
        }
        line
    }
}

fn spent(cost: &Cost) -> String {
    let cpu = cost.cpu.map(|cpu| format!(", CPU {:.1} ms", cpu.as_secs_f64() * 1000.0)).unwrap_or_default();
    format!(
        "{} bytes up, {} down{cpu}, {:.1} ms",
        cost.bytes_up,
        cost.bytes_down,
        cost.wall.as_secs_f64() * 1000.0
    )
}

fn json(name: &str, index: Option<usize>, prediction: &Prediction, cost: &Cost) -> String {
    let number = |number: Option<u128>| number.map_or("null".to_owned(), |number| number.to_string());
    let logits: Vec<String> = prediction.logits.iter().map(ToString::to_string).collect();
    format!(
        "{{\"input\":{},\"index\":{},\"label\":{},\"logits\":[{}],\"fraction\":{},\"cost\":{{\"bytes_up\":{},\
         \"bytes_down\":{},\"datagrams_up\":{},\"datagrams_down\":{},\"cpu_us\":{},\"wall_us\":{}}}}}",
        quoted(name),
        index.unwrap_or(0),
        prediction.label,
        logits.join(","),
        prediction.fraction,
        cost.bytes_up,
        cost.bytes_down,
        cost.datagrams_up,
        cost.datagrams_down,
        number(cost.cpu.map(|cpu| cpu.as_micros())),
        cost.wall.as_micros(),
    )
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

fn print(line: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    // A reader that follows gets each line at once.
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Error::Output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn example() -> (Prediction, Cost) {
        let mut cost = Cost::default();
        (cost.bytes_up, cost.bytes_down, cost.datagrams_up, cost.datagrams_down) = (885, 119, 2, 1);
        (cost.cpu, cost.wall) = (Some(Duration::from_micros(1500)), Duration::from_millis(20));
        (Prediction { logits: vec![-512, 640], fraction: 8, label: 1 }, cost)
    }

    #[test]
    fn text_tells_what_was_asked_for() {
        let (prediction, cost) = example();
        let short = Report { json: false, logits: false, cost: false };
        assert_eq!(short.text("a.pgm", None, &prediction, &cost), "a.pgm: 1");
        let long = Report { json: false, logits: true, cost: true };
        assert_eq!(
            long.text("a.npy", Some(3), &prediction, &cost),
            "a.npy[3]: 1\n  logits -2.000 2.500\n  885 bytes up, 119 down, CPU 1.5 ms, 20.0 ms"
        );
    }

    #[test]
    fn json_is_one_line_with_names_escaped() {
        let (prediction, mut cost) = example();
        cost.cpu = None;
        assert_eq!(
            json("a\"\\\n\u{e9}.npy", Some(3), &prediction, &cost),
            "{\"input\":\"a\\\"\\\\\\u000a\u{e9}.npy\",\"index\":3,\"label\":1,\"logits\":[-512,640],\"fraction\":8,\
             \"cost\":{\"bytes_up\":885,\"bytes_down\":119,\"datagrams_up\":2,\"datagrams_down\":1,\"cpu_us\":null,\
             \"wall_us\":20000}}"
        );
    }
}
