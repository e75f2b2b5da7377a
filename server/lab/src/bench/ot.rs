//! `seco bench ot`: correlated oblivious transfers per second of CPU time, both sides together, and bytes for each.

use std::fmt::Write as _;
use std::time::Duration;

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng as _;
use seco_node::keys;
use seco_ot::{BaseSender, Bits, CotReceiver, CotSender, Delta, Keys, Macs, PARAMETERS, base_receive};
use seco_tools::process::{Took, timed};
use seco_tools::terminal;
use serde_json::{Value, json};

use super::{check_parameter, complete, footer};
use crate::Error;

/// What `seco bench ot` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Parameter whose figures stand first in the JSON object; all are measured.
    #[arg(long, value_name = "1|2|4|8", default_value_t = 2)]
    pub parameter: usize,
    /// Number of transfers in one message.
    #[arg(long, value_name = "M", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub count: u32,
    /// Prints the results as one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// Repeats until this much CPU time has gone into a parameter.
const LONG_ENOUGH: Duration = Duration::from_secs(1);

/// Figures of one parameter.
struct Figures {
    parameter: usize,
    /// Both sides, the receiver, the sender: by CPU time, and by the clock.
    rates: [[f64; 2]; 3],
    bytes: f64,
    exact: bool,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), Error> {
    check_parameter(options.parameter, "--parameter")?;
    let measured: Result<Vec<Figures>, Error> =
        PARAMETERS.iter().map(|&parameter| measure(parameter, options.count as usize)).collect();
    let all = measured?;
    let exact = all.iter().all(|figures| figures.exact);
    let text = if options.json {
        let mut report =
            all.iter().find(|f| f.parameter == options.parameter).map_or(Value::Null, Figures::json);
        report["count"] = options.count.into();
        report["all"] = all.iter().map(Figures::json).collect();
        report["exact"] = exact.into();
        complete(report)?
    } else {
        let mut text = format!(
            "{:>9}{:>34}{:>12}{:>12}{:>12}\n",
            "parameter", "M per CPU-second, both sides", "receiver", "sender", "bytes each"
        );
        for f in &all {
            let _ = writeln!(
                text,
                "{:>9}{:>34.1}{:>12.1}{:>12.1}{:>12.2}",
                f.parameter,
                f.rates[0][0] / 1e6,
                f.rates[1][0] / 1e6,
                f.rates[2][0] / 1e6,
                f.bytes
            );
        }
        text + "\n" + &footer()?
    };
    terminal::print(&text);
    if exact {
        Ok(())
    } else {
        Err(Error::Failed("a transfer gave the wrong block: please report this".to_owned()))
    }
}

impl Figures {
    fn json(&self) -> Value {
        let [both, receiver, sender] = self.rates;
        json!({
            "parameter": self.parameter,
            "ot_per_cpu_s": both[0],
            "receiver_ot_per_cpu_s": receiver[0],
            "sender_ot_per_cpu_s": sender[0],
            "ot_per_s": both[1],
            "receiver_ot_per_s": receiver[1],
            "sender_ot_per_s": sender[1],
            "bytes_per_ot": self.bytes,
        })
    }
}

fn measure(parameter: usize, count: usize) -> Result<Figures, Error> {
    let failed = |error: seco_ot::Error| Error::Failed(format!("oblivious transfer failed: {error}"));
    let mut rng = ChaCha20Rng::from_seed(*keys::secret()?);
    let delta = Delta::random(&mut rng);
    let (base, offer) = BaseSender::new(&mut rng);
    let (seeds, reply) = base_receive(&delta.choices(), &offer, &mut rng).map_err(failed)?;
    let pairs = base.finish(&reply, delta.choices().len()).map_err(failed)?;
    let (mut receiver, setup) = CotReceiver::new(pairs, parameter).map_err(failed)?;
    let mut sender = CotSender::new(&delta, seeds, parameter, &setup).map_err(failed)?;

    let choices = Bits::random(count, &mut rng);
    let (mut chosen, mut keys) = (Macs::zeros(count), Keys::zeros(count));
    let [mut receiving, mut sending] = [Took::default(); 2];
    let (mut transfers, mut bytes, mut exact) = (0, 0, true);
    while (receiving + sending).cpu < LONG_ENOUGH {
        let message = timed(&mut receiving, || receiver.extend(&choices, &mut chosen)).map_err(failed)?;
        timed(&mut sending, || sender.extend(&message, &mut keys)).map_err(failed)?;
        (transfers, bytes) = (transfers + count, bytes + message.len());
        let wanted =
            keys.blocks().iter().enumerate().map(|(i, key)| *key ^ delta.block().select(choices.mask(i)));
        exact &= chosen.blocks().iter().zip(wanted).all(|(chosen, wanted)| chosen.0 == wanted.0);
    }
    Ok(Figures {
        parameter,
        rates: [receiving + sending, receiving, sending].map(|took| took.rates(transfers as f64)),
        bytes: bytes as f64 / transfers as f64,
        exact,
    })
}
