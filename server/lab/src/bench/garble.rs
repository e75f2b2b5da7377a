//! `seco bench garble`: how many AND gates a garbler garbles and the evaluator evaluates per second of CPU time,
//! the correlations between garblers given, in memory, without network, on one thread.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use chacha20::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use seco_garble::circuits::relu_program;
use seco_garble::slices::{from_lanes, to_lanes};
use seco_garble::{Batch, Evaluator, Garbler, Material};
use seco_node::keys;
use seco_ot::{Bits, Block, Delta, FixedKey, Keys, Macs};
use seco_tools::process::{Took, timed};
use seco_tools::terminal;
use serde_json::json;

use super::{Setting, complete, footer};
use crate::Error;

/// What `seco bench garble` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Servers, of which one evaluates and the others garble, and width.
    #[command(flatten)]
    pub setting: Setting,
    /// Number of ReLUs garbled at a time: few enough that what they need stays in the caches, or more.
    #[arg(long, value_name = "M", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
    /// Prints the results as one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// Repeats until this much CPU time has gone into garbling.
const LONG_ENOUGH: Duration = Duration::from_secs(2);

/// What the parts took, all repetitions and, of a garbler's, all garblers.
#[derive(Default)]
struct Times {
    cross: Took,
    tables: Took,
    evaluate: Took,
    runs: u32,
    /// A result differed from the clear one.
    wrong: bool,
}

/// Bits dropped before the ReLU.
const SHIFT: usize = 8;

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), Error> {
    // One thread: what it takes to move data from core to core depends on the machine. `seco bench relu` uses all.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.map_err(|e| Error::Failed(format!("no thread for the measurement: {e}")))?
        .install(|| measure(options))
}

fn measure(options: &Options) -> Result<(), Error> {
    let servers = usize::from(options.setting.servers);
    let width = usize::from(options.setting.width);
    let program = Arc::new(relu_program(width, SHIFT.min(width - 1)));
    let batch =
        Batch { program, garblers: servers - 1, lanes: options.count as usize, step: 1, first_lane: 0 };
    let mut times = Times::default();
    let mut bytes = 0;
    // One run is not counted: it pages memory in.
    let mut blanks = Blanks::default();
    let mut rng = ChaCha20Rng::from_seed(*keys::secret()?);
    once(&batch, width, &mut rng, &mut Times::default(), &mut blanks).map_err(failed)?;
    while (times.tables + times.cross).cpu < LONG_ENOUGH {
        bytes = once(&batch, width, &mut rng, &mut times, &mut blanks).map_err(failed)?;
    }
    let ands = batch.program.ands * batch.lanes;
    let units = |parties: usize| (ands * parties) as f64 * f64::from(times.runs);
    let garblers = batch.garblers;
    let [tables, tables_wall] = times.tables.rates(units(garblers));
    let [all, all_wall] = (times.tables + times.cross).rates(units(garblers));
    let [evaluate, evaluate_wall] = times.evaluate.rates(units(1));
    let per_and = bytes as f64 / ands as f64;
    let text = if options.json {
        let report = json!({
            "servers": servers,
            "width": width,
            "count": options.count,
            "and_gates": ands,
            "garble_and_per_cpu_s": tables,
            "garble_with_cross_and_per_cpu_s": all,
            "eval_and_per_cpu_s": evaluate,
            "garble_and_per_s": tables_wall,
            "garble_with_cross_and_per_s": all_wall,
            "eval_and_per_s": evaluate_wall,
            "bytes_per_and": per_and,
            "exact": !times.wrong,
        });
        complete(report)?
    } else {
        let mut text = format!(
            "{servers} servers, {} ReLUs of {width} bits: {ands} AND gates, correlations given, one thread\n\n",
            options.count
        );
        for (what, rate, wall) in [
            ("garbling", tables, tables_wall),
            ("garbling with cross terms", all, all_wall),
            ("adding up and evaluating", evaluate, evaluate_wall),
        ] {
            let (rate, wall) = (rate / 1e6, wall / 1e6);
            let _ = writeln!(text, "{what:<28}{rate:>8.2} M AND per CPU-second, {wall:>8.2} M per second");
        }
        let _ = writeln!(text, "{:<28}{per_and:>8.1} bytes per AND, all garblers\n", "tables");
        text + &footer()?
    };
    terminal::print(&text);
    if times.wrong {
        return Err(Error::Failed(
            "results differ from the plaintext computation: please report this".to_owned(),
        ));
    }
    Ok(())
}

fn failed(error: seco_garble::Error) -> Error {
    Error::Failed(format!("garbling failed: {error}"))
}

/// Correlated OTs as the extension would leave them.
fn correlations(choices: &Bits, delta: &Delta, rng: &mut ChaCha20Rng) -> (Macs, Keys) {
    let mut keys = vec![Block::ZERO; choices.len()];
    seco_ot::Prg::new(Block::random(rng)).fill(&mut keys);
    let other = keys.iter().enumerate().map(|(i, key)| *key ^ delta.block().select(choices.mask(i)));
    (Macs::from_blocks(other.collect()), Keys::from_blocks(keys))
}

/// The same MACs again, as the evaluator's seeds give them.
fn again(macs: &Macs) -> Macs {
    Macs::from_blocks(macs.blocks().to_vec())
}

/// Nothing yet between any two of `count` garblers.
fn none<T: Default>(count: usize) -> Vec<Vec<T>> {
    (0..count).map(|_| (0..count).map(|_| T::default()).collect()).collect()
}

/// Memory that runs hand on, as a server's bundles do.
#[derive(Default)]
struct Blanks {
    messages: Vec<Vec<u8>>,
    material: Material,
}

/// A batch from the masks to the answer; gives the bytes of all tables.
fn once(
    batch: &Batch,
    width: usize,
    rng: &mut ChaCha20Rng,
    times: &mut Times,
    blanks: &mut Blanks,
) -> Result<usize, seco_garble::Error> {
    let garblers = batch.garblers;
    let mut key = [0; 16];
    rng.fill_bytes(&mut key);
    let hash = FixedKey::new(key);
    let deltas: Vec<Delta> = (0..garblers).map(|_| Delta::random(rng)).collect();

    let receiving = Evaluator::new(batch.clone(), rng)?;
    let started: Result<Vec<Garbler>, _> =
        (0..garblers).map(|g| Garbler::new(batch.clone(), g, rng)).collect();
    let started = started?;
    // What everyone's bits come to, to compare.
    let mut rho = receiving.random().planes().to_vec();
    let mut masks = vec![0u64; batch.program.outputs.len() * batch.words()];
    for garbler in &started {
        rho.iter_mut().zip(garbler.random().planes()).for_each(|(rho, bits)| *rho ^= bits);
        masks.iter_mut().zip(garbler.output_masks().planes()).for_each(|(mask, bits)| *mask ^= bits);
    }
    let (mut received, mut keys) = (none(garblers), none(garblers));
    for (j, garbler) in started.iter().enumerate() {
        for i in (0..garblers).filter(|&i| i != j) {
            (received[j][i], keys[i][j]) = correlations(&garbler.choices(), &deltas[i], rng);
        }
    }
    let (mut labels, mut crossed, mut bits) = (Vec::new(), Vec::new(), Vec::new());
    for (((garbler, received), keys), delta) in started.into_iter().zip(received).zip(keys).zip(&deltas) {
        let (active, zero) = correlations(&receiving.choices(), delta, rng);
        labels.push(active);
        let correlated = garbler.correlate(received, keys, zero)?;
        let (mut state, _) = timed(&mut times.cross, || correlated.cross(delta, &hash));
        bits.push((0..garblers).map(|i| state.message(i)).collect::<Vec<_>>());
        crossed.push(state);
    }
    let (mut corrected, mut corrections) = (Vec::new(), Vec::new());
    for (g, state) in crossed.into_iter().enumerate() {
        let incoming: Vec<Vec<u8>> =
            bits.iter().map(|from| from.get(g).cloned().unwrap_or_default()).collect();
        let (state, message) = timed(&mut times.cross, || state.correct(&incoming))?;
        corrected.push(state);
        corrections.push(message);
    }
    let mut folding = receiving.receive(labels.iter().map(again).collect())?;
    let (mut online, mut sent, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (g, state) in corrected.into_iter().enumerate() {
        let buffer = blanks.messages.pop().unwrap_or_default();
        let (garbler, _, tables) =
            timed(&mut times.tables, || state.garble(&deltas[g], &corrections, &hash, rng, buffer))?;
        bytes += tables.len();
        folding.tables(g, tables.clone())?;
        sent.push(tables);
        online.push(garbler);
    }
    blanks.messages = sent;
    let blank = std::mem::take(&mut blanks.material);
    let (evaluator, material) = timed(&mut times.evaluate, || folding.fold(&hash, blank))?;
    let m: Vec<u32> = (0..batch.lanes).map(|_| rng.next_u32() >> (32 - width)).collect();
    let public = from_lanes(&m, width);
    let mut messages = Vec::new();
    for (garbler, delta) in online.into_iter().zip(&deltas) {
        let mut message = Vec::new();
        garbler.labels(delta, &public, &hash, &mut message)?;
        messages.push(message);
    }
    let got =
        timed(&mut times.evaluate, || evaluator.evaluate(&material, &public, &messages, &labels, &hash))?;
    times.runs += 1;
    blanks.material = material;

    // `u` is the sign of `z = m - ρ` XOR the top bit of `m`.
    let rho = to_lanes(&rho, batch.lanes);
    let exact = m.iter().zip(&rho).enumerate().all(|(lane, (m, rho))| {
        let bit = |planes: &[u64]| planes.get(lane / 64).map_or(0, |word| (word >> (lane % 64)) as u32 & 1);
        let top = 1 << (width - 1);
        let expected = (m.wrapping_sub(*rho) ^ m) & top != 0;
        (bit(got.masked.planes()) ^ bit(&masks) == 1) == expected
    });
    times.wrong |= !exact || rho.len() != batch.lanes;
    Ok(bytes)
}
