//! All servers of a cluster in one process.

mod exact;
mod hostile;
mod noise;

use rand_chacha09::ChaCha20Rng;
use rand_chacha09::rand_core::{RngCore, SeedableRng};
use seco_model::{Conv, Dense, Geometry};
use zeroize::Zeroizing;

use crate::{Error, LayerShape, LinearPlan, Parameters, PublicKey, SecretShare, Weights};

const COMMON: [u8; 32] = [0xc0; 32];

struct Cluster {
    parameters: Parameters,
    shares: Vec<SecretShare>,
    key: PublicKey,
}

/// What came out of one run of section 4 for one holder, server 0.
struct Run {
    masks: Vec<Vec<u32>>,
    encrypted: Vec<Vec<u8>>,
    c1s: Vec<u8>,
    /// `s^j` of servers 1, 2, …
    s: Vec<Vec<u32>>,
    answers: Vec<Vec<u8>>,
    share: Zeroizing<Vec<u32>>,
}

/// Weights in NTT form.
fn prepared(plan: &LinearPlan, weights: &[u32]) -> Result<Weights, Error> {
    let (needed, mut memory) = (Weights::transformed_len(plan), usize::MAX);
    let weights = Weights::new(plan, weights, &mut memory)?;
    assert_eq!(memory, usize::MAX - needed);
    Ok(weights)
}

/// A seed for one server's call.
fn seed(label: u8, server: usize) -> [u8; 32] {
    let mut seed = [label; 32];
    seed[0] = server as u8;
    seed
}

fn uniform(rng: &mut ChaCha20Rng, count: usize, bits: u32) -> Vec<u32> {
    (0..count).map(|_| rng.next_u32() >> (32 - bits)).collect()
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

impl Cluster {
    fn new(layers: &[LayerShape], servers: usize) -> Self {
        Self::with(Parameters::select(layers, servers).unwrap())
    }

    fn with(parameters: Parameters) -> Self {
        let servers = 0..parameters.servers();
        let shares: Vec<_> =
            servers.map(|j| SecretShare::random(&parameters, &seed(1, j)).unwrap()).collect();
        let public: Vec<_> = shares
            .iter()
            .enumerate()
            .map(|(j, share)| share.public_share(&COMMON, &seed(2, j)).unwrap())
            .collect();
        assert!(public.iter().all(|share| share.len() == parameters.polynomial_len()));
        let key = PublicKey::combine(&parameters, &COMMON, &public).unwrap();
        Self { parameters, shares, key }
    }

    fn plan(&self, geometry: &Geometry, width: u32) -> LinearPlan {
        LinearPlan::new(&self.parameters, LayerShape { geometry, width }).unwrap()
    }

    fn encrypt(&self, plan: &LinearPlan, masks: &[Vec<u32>]) -> Vec<Vec<u8>> {
        let encrypt = |(j, mask): (usize, &Vec<u32>)| self.key.encrypt(plan, mask, &seed(3, j)).unwrap();
        masks.iter().enumerate().map(encrypt).collect()
    }

    /// Steps 1 to 4 with uniform masks of `mask_bits`.
    fn run(&self, plan: &LinearPlan, weights: &Weights, mask_bits: u32) -> Run {
        let n = self.parameters.servers();
        let mut rng = rng(7);
        let masks: Vec<_> = (0..n).map(|_| uniform(&mut rng, plan.inputs(), mask_bits)).collect();
        let encrypted = self.encrypt(plan, &masks);
        assert!(encrypted.iter().all(|message| message.len() == plan.encrypted_len()));
        let (product, c1s) = weights.multiply(&self.key, &encrypted, &seed(4, 0)).unwrap();
        assert_eq!(c1s.len(), plan.c1_len());
        let s: Vec<_> = (1..n).map(|_| uniform(&mut rng, plan.outputs(), 32)).collect();
        let answer = |j: usize| self.shares[j].answer(plan, &c1s, &s[j - 1], &seed(5, j)).unwrap();
        let answers: Vec<_> = (1..n).map(answer).collect();
        assert!(answers.iter().all(|answer| answer.len() == plan.answer_len()));
        let share = product.finish(&self.shares[0], &answers).unwrap();
        Run { masks, encrypted, c1s, s, answers, share }
    }
}

/// `F·r` modulo `2^32` by the definition, weights lifted from `width` bits.
fn reference(geometry: &Geometry, width: u32, weights: &[u32], r: &[u32]) -> Vec<u32> {
    let lift = |w: u32| (w << (32 - width)) as i32 >> (32 - width);
    let dot = |row: &[u32], r: &mut dyn Iterator<Item = u32>| {
        row.iter().zip(r).fold(0u32, |sum, (&w, r)| sum.wrapping_add((lift(w) as u32).wrapping_mul(r)))
    };
    match geometry {
        Geometry::Dense(Dense { inputs, .. }) => {
            weights.chunks(*inputs).map(|row| dot(row, &mut r.iter().copied())).collect()
        }
        Geometry::Conv(conv) => {
            let ([channels, height, width], [_, out_height, out_width]) = (conv.input, conv.output());
            let ([kernel_height, kernel_width], [top, left, ..]) = (conv.kernel, conv.pads);
            let value = |c: usize, y: usize, x: usize| match (y.checked_sub(top), x.checked_sub(left)) {
                (Some(y), Some(x)) if y < height && x < width => r[(c * height + y) * width + x],
                _ => 0,
            };
            let mut out = Vec::new();
            for row in weights.chunks(channels * kernel_height * kernel_width) {
                for y in 0..out_height {
                    for x in 0..out_width {
                        let mut window = (0..channels * kernel_height * kernel_width).map(|k| {
                            let (c, i) =
                                (k / (kernel_height * kernel_width), k / kernel_width % kernel_height);
                            value(c, y * conv.stride[0] + i, x * conv.stride[1] + k % kernel_width)
                        });
                        out.push(dot(row, &mut window));
                    }
                }
            }
            out
        }
    }
}

/// Sum of vectors modulo `2^32`.
fn sum<'a>(vectors: impl IntoIterator<Item = &'a Vec<u32>>) -> Vec<u32> {
    let mut vectors = vectors.into_iter();
    let first = vectors.next().unwrap().clone();
    vectors.fold(first, |sum, v| sum.iter().zip(v).map(|(a, b)| a.wrapping_add(*b)).collect())
}

fn conv(input: [usize; 3], channels: usize, kernel: usize, stride: usize, pads: [usize; 4]) -> Geometry {
    Geometry::Conv(Conv { input, channels, kernel: [kernel; 2], stride: [stride; 2], pads })
}

fn dense(inputs: usize, outputs: usize) -> Geometry {
    Geometry::Dense(Dense { inputs, outputs })
}
