//! `seco bench he`: what the steps of one linear layer on ciphertexts cost, all servers in this process, without
//! network (section 4 of PROTOCOL.md).

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use chacha20::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use seco_he::{KeyDraft, KeySet, KeySetName, LayerShape, LinearPlan, Occasion, Parameters, Weights};
use seco_model::{Conv, Dense, Geometry};
use seco_node::keys;
use seco_tools::process::{Took, timed};
use seco_tools::terminal;
use serde_json::{Value, json};

use super::{Setting, complete, footer};
use crate::Error;

/// What `seco bench he` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Servers, of which one holds the weights, and width.
    #[command(flatten)]
    pub setting: Setting,
    /// Prints the results as one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// Repeats until this much CPU time has gone into a layer.
const LONG_ENOUGH: Duration = Duration::from_secs(2);

/// What the steps took, all repetitions.
#[derive(Default)]
pub(super) struct Times {
    pub weights: Took,
    pub encrypt: Took,
    pub multiply: Took,
    pub answer: Took,
    pub decode: Took,
}

/// Figures of one layer.
struct Figures {
    layer: &'static str,
    /// Bits of `Q` and of `q'`.
    modulus_bits: [u32; 2],
    ciphertexts_in: usize,
    ciphertexts_out: usize,
    /// In NTT form.
    weights_bytes: usize,
    /// Milliseconds of one server: all weights once, then by ciphertext in, out, out, out.
    /// CPU time, and by the clock.
    ms: [[f64; 2]; 5],
    /// By ciphertext, of one server's encrypted mask and of the holder's `c1`.
    ciphertext_bytes: [usize; 2],
    /// Of one answer.
    answer_bytes: usize,
    exact: bool,
}

const STEPS: [&str; 5] = ["weights", "encrypt", "multiply", "answer", "decode"];

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), Error> {
    let conv = Conv {
        input: [16, 12, 12],
        channels: 16,
        kernel: [5, 5],
        stride: [1, 1],
        pads: [0; 4],
        dilation: [1; 2],
        groups: 1,
    };
    let layers = [
        ("conv 16x12x12 to 16, 5x5", Geometry::Conv(conv)),
        ("dense 800 to 500", Geometry::Dense(Dense { inputs: 800, outputs: 500 })),
    ];
    let measured: Result<Vec<Figures>, Error> =
        layers.iter().map(|(name, geometry)| measure(name, geometry, options.setting)).collect();
    let all = measured?;
    let exact = all.iter().all(|figures| figures.exact);
    let text = if options.json {
        let report = json!({
            "servers": options.setting.servers,
            "width": options.setting.width,
            "layers": all.iter().map(Figures::json).collect::<Vec<_>>(),
            "exact": exact,
        });
        complete(report)?
    } else {
        let mut text = format!(
            "{} servers, words of {} bits, CPU milliseconds\n\n",
            options.setting.servers, options.setting.width
        );
        for figures in &all {
            text += &figures.table();
        }
        text + &footer()?
    };
    terminal::print(&text);
    if exact {
        return Ok(());
    }
    Err(Error::Failed("results differ from the plaintext computation: please report this".to_owned()))
}

impl Figures {
    fn json(&self) -> Value {
        let mut value = json!({
            "layer": self.layer,
            "q_bits": self.modulus_bits[0],
            "q_prime_bits": self.modulus_bits[1],
            "ciphertexts_in": self.ciphertexts_in,
            "ciphertexts_out": self.ciphertexts_out,
            "weights_bytes": self.weights_bytes,
            "bytes_in_per_ciphertext": self.ciphertext_bytes[0],
            "bytes_c1_per_ciphertext": self.ciphertext_bytes[1],
            "bytes_answer": self.answer_bytes,
            "exact": self.exact,
        });
        for (step, [cpu, wall]) in STEPS.iter().zip(self.ms) {
            value[format!("{step}_cpu_ms")] = cpu.into();
            value[format!("{step}_wall_ms")] = wall.into();
        }
        value
    }

    fn table(&self) -> String {
        let [weights, encrypt, multiply, answer, decode] = self.ms.map(|[cpu, _]| cpu);
        let ([bytes_in, bytes_c1], answered) = (self.ciphertext_bytes, self.answer_bytes);
        let (inputs, outputs) = (self.ciphertexts_in, self.ciphertexts_out);
        let [q, q_prime] = self.modulus_bits;
        let mut text = format!("{}, modulus of {q} bits, of {q_prime} after the product\n", self.layer);
        for (what, ms, unit) in [
            ("weights to NTT form", weights, format!("once, {} bytes", self.weights_bytes)),
            ("encrypt a mask", encrypt, format!("by ciphertext; {inputs} of them, {bytes_in} bytes each")),
            (
                "multiply, rerandomise",
                multiply,
                format!("by ciphertext out; {outputs} of them, {bytes_c1} bytes each"),
            ),
            ("decryption share", answer, format!("by ciphertext out; {answered} bytes in all")),
            ("decode", decode, "by ciphertext out".to_owned()),
        ] {
            let _ = writeln!(text, "  {what:<24}{ms:>9.2}  {unit}");
        }
        text + "\n"
    }
}

fn failed(error: seco_he::Error) -> Error {
    Error::Failed(format!("homomorphic encryption failed: {error}"))
}

fn measure(name: &'static str, geometry: &Geometry, setting: Setting) -> Result<Figures, Error> {
    let layer = Layer::new(geometry, setting, ChaCha20Rng::from_seed(*keys::secret()?)).map_err(failed)?;
    let (times, runs, exact) = layer.repeat(LONG_ENOUGH)?;
    let Layer { plan, parameters, servers, .. } = &layer;
    let (inputs, outputs) = (plan.input_ciphertexts(), plan.output_ciphertexts());
    let ms = |took: Took, count: usize| took.milliseconds(f64::from(runs) * count.max(1) as f64);
    Ok(Figures {
        layer: name,
        modulus_bits: [parameters.modulus_bits(), parameters.answered_modulus_bits()],
        ciphertexts_in: inputs,
        ciphertexts_out: outputs,
        weights_bytes: Weights::transformed_len(plan),
        ms: [
            ms(times.weights, 1),
            ms(times.encrypt, inputs * servers),
            ms(times.multiply, outputs),
            ms(times.answer, outputs * (servers - 1)),
            ms(times.decode, outputs),
        ],
        ciphertext_bytes: [plan.encrypted_len() / inputs.max(1), plan.c1_len() / outputs.max(1)],
        answer_bytes: plan.answer_len(),
        exact,
    })
}

/// What the steps of a layer take in so much CPU time, one run of each more before that pages memory in: the plan,
/// times, and how often. For a result that is wrong, an error.
pub(super) fn short(
    geometry: &Geometry,
    setting: Setting,
    long_enough: Duration,
) -> Result<(LinearPlan, Times, u32), Error> {
    let layer = Layer::new(geometry, setting, ChaCha20Rng::from_seed(*keys::secret()?)).map_err(failed)?;
    layer.repeat(Duration::ZERO)?;
    match layer.repeat(long_enough)? {
        (times, runs, true) => Ok((layer.plan, times, runs)),
        _ => {
            Err(Error::Failed("results differ from the plaintext computation: please report this".to_owned()))
        }
    }
}

/// A layer of a cluster.
struct Layer<'a> {
    shape: LayerShape<'a>,
    parameters: Parameters,
    servers: usize,
    plan: LinearPlan,
    weights: Arc<Vec<u32>>,
}

fn seed(rng: &mut ChaCha20Rng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}

fn words(rng: &mut ChaCha20Rng, count: usize, bits: u32) -> Vec<u32> {
    (0..count).map(|_| rng.next_u32() >> (32 - bits)).collect()
}

impl<'a> Layer<'a> {
    fn new(geometry: &'a Geometry, setting: Setting, mut rng: ChaCha20Rng) -> Result<Self, seco_he::Error> {
        let shape = LayerShape { geometry, width: setting.width.into() };
        let (parameters, plans) = Parameters::select(&[shape], setting.servers.into())?;
        let plan = plans.into_iter().next().ok_or(seco_he::Error::Mismatch)?;
        let weights = Arc::new(words(&mut rng, geometry.weights(), shape.width));
        Ok(Self { shape, parameters, servers: setting.servers.into(), plan, weights })
    }

    /// The keys of all servers: new ones for every repetition, since they serve a bundle once.
    fn keys(&self, rng: &mut ChaCha20Rng) -> Result<Vec<KeySet>, seco_he::Error> {
        let name = KeySetName { setup: seed(rng), number: 0 };
        let drafts =
            (0..self.servers).map(|server| KeyDraft::new(&self.parameters, name, server, &seed(rng)));
        let drafts = drafts.collect::<Result<Vec<_>, _>>()?;
        let openings: Vec<_> = drafts.iter().map(|draft| draft.opening().to_vec()).collect();
        let shares: Vec<_> = drafts.iter().map(|draft| draft.share().to_vec()).collect();
        drafts.into_iter().map(|draft| draft.finish(&openings, &shares)).collect()
    }

    /// Repeats all steps for so long, once at least: their times, how often, and whether all was right.
    fn repeat(&self, long_enough: Duration) -> Result<(Times, u32, bool), Error> {
        let (mut times, mut runs, mut exact) = (Times::default(), 0, true);
        let mut rng = ChaCha20Rng::from_seed(*keys::secret()?);
        while runs == 0 || (times.multiply + times.answer + times.encrypt).cpu < long_enough {
            exact &= self.once(&mut rng, &mut times).map_err(failed)?;
            runs += 1;
        }
        Ok((times, runs, exact))
    }

    /// All four steps; whether the shares sum up to the product. Server 0 holds the weights.
    fn once(&self, rng: &mut ChaCha20Rng, times: &mut Times) -> Result<bool, seco_he::Error> {
        let Self { shape, plan, weights, .. } = self;
        let keys = self.keys(rng)?;
        let occasion = Occasion { bundle: [0; 16], layer: 0 };
        let mut memory = usize::MAX;
        let prepared = timed(&mut times.weights, || {
            let weights = Weights::new(plan, weights.clone(), &mut memory)?;
            weights.transform().map(|()| weights)
        })?;
        let (mut mask, mut encrypted) = (vec![0u32; plan.inputs()], Vec::new());
        for server in &keys {
            let (part, seed) = (words(rng, plan.inputs(), shape.width), seed(rng));
            encrypted.push(timed(&mut times.encrypt, || server.encrypt(plan, &occasion, &part, &seed))?);
            add(&mut mask, &part);
        }
        let zero = seed(rng);
        let multiplied =
            timed(&mut times.multiply, || prepared.multiply(&keys[0], &occasion, &encrypted, &zero));
        let (product, c1s) = multiplied?;
        let (mut sum, mut answers) = (vec![0u32; plan.outputs()], Vec::new());
        for server in &keys[1..] {
            // Its share of the result.
            let (drawn, seed) = (words(rng, plan.outputs(), 32), seed(rng));
            let answer = || server.answer(plan, &occasion, (0, &c1s), &drawn, &seed);
            answers.push(timed(&mut times.answer, answer)?);
            add(&mut sum, &drawn);
        }
        let own = timed(&mut times.decode, || product.finish(&keys[0], &answers))?;
        add(&mut sum, &own);
        let mut expected = vec![0; plan.outputs()];
        seco_model::linear(shape.geometry, weights, &mask, &mut expected);
        let unused = 32 - shape.width;
        Ok(sum.iter().zip(&expected).all(|(a, b)| a << unused == b << unused))
    }
}

fn add(sum: &mut [u32], words: &[u32]) {
    sum.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
}
