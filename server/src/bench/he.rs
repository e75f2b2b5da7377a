//! `seco bench he`: what the steps of one linear layer on ciphertexts cost, all servers in this process, without
//! network (`protocol.md` section 4).

use std::fmt::Write as _;
use std::time::Duration;

use chacha20::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use seco_he::{LayerShape, LinearPlan, Parameters, PublicKey, SecretShare, Weights};
use seco_model::{Conv, Dense, Geometry};
use serde_json::{Value, json};

use super::calibration::Calibration;
use super::process::timed;
use crate::{Error, keys, terminal};

/// What `seco bench he` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Number of servers, of which one holds the weights.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub servers: u8,
    /// Bits of the layers' words.
    #[arg(long, value_name = "K", default_value_t = 20, value_parser = clap::value_parser!(u8).range(9..=32))]
    pub width: u8,
    /// Prints the results as one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// Repeats until this much CPU time has gone into a layer.
const LONG_ENOUGH: Duration = Duration::from_secs(2);

/// CPU time of the steps, all repetitions.
#[derive(Default)]
struct Times {
    weights: Duration,
    encrypt: Duration,
    multiply: Duration,
    answer: Duration,
    finish: Duration,
}

/// Figures of one layer.
struct Figures {
    layer: &'static str,
    modulus_bits: u32,
    ciphertexts_in: usize,
    ciphertexts_out: usize,
    /// In NTT form.
    weights_bytes: usize,
    /// Milliseconds of one server: all weights once, then by ciphertext in, out, out, out.
    ms: [f64; 5],
    /// Of one server's encrypted mask, of the holder's `c1`, of one answer.
    bytes: [usize; 3],
    exact: bool,
}

const STEPS: [&str; 5] = ["weights_ms", "encrypt_ms", "multiply_ms", "answer_ms", "finish_ms"];

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), Error> {
    let calibration = Calibration::measure()?;
    let conv = Conv { input: [16, 12, 12], channels: 16, kernel: [5, 5], stride: [1, 1], pads: [0; 4] };
    let layers = [
        ("conv 16x12x12 to 16, 5x5", Geometry::Conv(conv)),
        ("dense 800 to 500", Geometry::Dense(Dense { inputs: 800, outputs: 500 })),
    ];
    let measured: Result<Vec<Figures>, Error> =
        layers.iter().map(|(name, geometry)| measure(name, geometry, options)).collect();
    let all = measured?;
    let exact = all.iter().all(|figures| figures.exact);
    let text = if options.json {
        json!({
            "servers": options.servers,
            "width": options.width,
            "layers": all.iter().map(Figures::json).collect::<Vec<_>>(),
            "exact": exact,
            "calibration": calibration.json(),
        })
        .to_string()
            + "\n"
    } else {
        let mut text =
            format!("{} servers, words of {} bits, CPU milliseconds\n\n", options.servers, options.width);
        for figures in &all {
            text += &figures.table();
        }
        text + &calibration.table()
    };
    terminal::print(&text);
    if exact {
        return Ok(());
    }
    Err(Error::Demo("results differ from the plaintext computation: please report this".to_owned()))
}

impl Figures {
    fn json(&self) -> Value {
        let mut value = json!({
            "layer": self.layer,
            "modulus_bits": self.modulus_bits,
            "ciphertexts_in": self.ciphertexts_in,
            "ciphertexts_out": self.ciphertexts_out,
            "weights_bytes": self.weights_bytes,
            "bytes_encrypted": self.bytes[0],
            "bytes_c1": self.bytes[1],
            "bytes_answer": self.bytes[2],
            "exact": self.exact,
        });
        for (step, ms) in STEPS.iter().zip(self.ms) {
            value[*step] = ms.into();
        }
        value
    }

    fn table(&self) -> String {
        let [weights, encrypt, multiply, answer, finish] = self.ms;
        let [encrypted, c1, answered] = self.bytes;
        let (inputs, outputs) = (self.ciphertexts_in, self.ciphertexts_out);
        let mut text = format!("{}, modulus of {} bits\n", self.layer, self.modulus_bits);
        for (what, ms, unit) in [
            ("weights to NTT form", weights, format!("once, {} bytes", self.weights_bytes)),
            ("encrypt a mask", encrypt, format!("by ciphertext; {inputs} of them, {encrypted} bytes")),
            (
                "multiply, rerandomise",
                multiply,
                format!("by ciphertext out; {outputs} of them, {c1} bytes to each"),
            ),
            ("decryption share", answer, format!("by ciphertext out; {answered} bytes")),
            ("decode", finish, "by ciphertext out".to_owned()),
        ] {
            let _ = writeln!(text, "  {what:<24}{ms:>9.2}  {unit}");
        }
        text + "\n"
    }
}

fn failed(error: seco_he::Error) -> Error {
    Error::Demo(format!("homomorphic encryption failed: {error}"))
}

fn measure(layer: &'static str, geometry: &Geometry, options: &Options) -> Result<Figures, Error> {
    let mut seed = [0; 32];
    keys::random(&mut seed)?;
    let mut rng = ChaCha20Rng::from_seed(seed);
    let shape = LayerShape { geometry, width: options.width.into() };
    let servers = usize::from(options.servers);
    let parameters = Parameters::select(&[shape], servers).map_err(failed)?;
    let mut fresh = || {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        seed
    };
    let common = fresh();
    let shares: Result<Vec<SecretShare>, _> =
        (0..servers).map(|_| SecretShare::random(&parameters, &fresh())).collect();
    let shares = shares.map_err(failed)?;
    let public: Result<Vec<Vec<u8>>, _> = shares.iter().map(|s| s.public_share(&common, &fresh())).collect();
    let key = PublicKey::combine(&parameters, &common, &public.map_err(failed)?).map_err(failed)?;
    let plan = LinearPlan::new(&parameters, shape).map_err(failed)?;
    let mut words = |count: usize, bits: u32| -> Vec<u32> {
        let mut rng = ChaCha20Rng::from_seed(fresh());
        (0..count).map(|_| rng.next_u32() >> (32 - bits)).collect()
    };
    let weights = words(geometry.weights(), shape.width);

    let (mut times, mut runs, mut exact) = (Times::default(), 0, true);
    while times.multiply + times.answer + times.encrypt < LONG_ENOUGH {
        let masks: Vec<Vec<u32>> = (0..servers).map(|_| words(plan.inputs(), shape.width)).collect();
        // Server 0 holds the weights; the others draw a share of the result.
        let drawn: Vec<Vec<u32>> = (1..servers).map(|_| words(plan.outputs(), 32)).collect();
        let seeds: Vec<[u8; 32]> = (0..2 * servers)
            .map(|_| {
                let mut seed = [0; 32];
                keys::random(&mut seed).map(|()| seed)
            })
            .collect::<Result<_, _>>()?;
        exact &= once(&key, &shares, &plan, shape, &weights, &masks, &drawn, &seeds, &mut times)
            .map_err(failed)?;
        runs += 1;
    }
    let (inputs, outputs) = (plan.input_ciphertexts(), plan.output_ciphertexts());
    let ms = |time: Duration, count: usize| 1e3 * time.as_secs_f64() / f64::from(runs) / count.max(1) as f64;
    Ok(Figures {
        layer,
        modulus_bits: parameters.modulus_bits(),
        ciphertexts_in: inputs,
        ciphertexts_out: outputs,
        weights_bytes: Weights::transformed_len(&plan),
        ms: [
            ms(times.weights, 1),
            ms(times.encrypt, inputs * servers),
            ms(times.multiply, outputs),
            ms(times.answer, outputs * (servers - 1)),
            ms(times.finish, outputs),
        ],
        bytes: [plan.encrypted_len(), plan.c1_len(), plan.answer_len()],
        exact,
    })
}

/// All four steps; whether the shares sum up to the product.
#[allow(clippy::too_many_arguments)]
fn once(
    key: &PublicKey,
    shares: &[SecretShare],
    plan: &LinearPlan,
    shape: LayerShape,
    weights: &[u32],
    masks: &[Vec<u32>],
    drawn: &[Vec<u32>],
    seeds: &[[u8; 32]],
    times: &mut Times,
) -> Result<bool, seco_he::Error> {
    let (encrypting, answering) = seeds.split_at(shares.len());
    let mut memory = usize::MAX;
    let prepared = timed(&mut times.weights, || Weights::new(plan, weights, &mut memory))?;
    let mut encrypted = Vec::new();
    for (mask, seed) in masks.iter().zip(encrypting) {
        encrypted.push(timed(&mut times.encrypt, || key.encrypt(plan, mask, seed))?);
    }
    let (holder, others) = (&shares[0], &shares[1..]);
    let (product, c1s) = timed(&mut times.multiply, || prepared.multiply(key, &encrypted, &answering[0]))?;
    let mut answers = Vec::new();
    for ((share, s), seed) in others.iter().zip(drawn).zip(&answering[1..]) {
        answers.push(timed(&mut times.answer, || share.answer(plan, &c1s, s, seed))?);
    }
    let result = timed(&mut times.finish, || product.finish(holder, &answers))?;

    let add = |sum: Vec<u32>, words: &Vec<u32>| -> Vec<u32> {
        sum.iter().zip(words).map(|(a, b)| a.wrapping_add(*b)).collect()
    };
    let mask = masks.iter().fold(vec![0; plan.inputs()], add);
    let sum = drawn.iter().fold(result.to_vec(), add);
    let mut expected = vec![0; plan.outputs()];
    seco_model::linear(shape.geometry, weights, &mask, &mut expected);
    let unused = 32 - shape.width;
    Ok(sum.iter().zip(&expected).all(|(a, b)| a << unused == b << unused))
}
