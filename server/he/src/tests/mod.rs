//! All servers of a cluster in one process.

mod exact;
mod hostile;
mod noise;

use std::sync::Arc;

use rand_chacha09::ChaCha20Rng;
use rand_chacha09::rand_core::{RngCore, SeedableRng};
use seco_model::{Conv, Dense, Geometry};
use zeroize::Zeroizing;

use crate::{
    Error, KeyDraft, KeySet, KeySetName, LayerShape, LinearPlan, Occasion, Parameters, Product, Weights,
};

const SETUP: [u8; 32] = [0xc0; 32];
const OCCASION: Occasion = Occasion { bundle: [0xb0; 16], layer: 3 };

/// All servers of a cluster.
struct Cluster {
    parameters: Parameters,
    keys: Vec<KeySet>,
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
    let weights = Weights::new(plan, Arc::new(weights.to_vec()), &mut memory)?;
    assert_eq!(memory, usize::MAX - needed);
    weights.transform()?;
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
        Self::with(Parameters::select(layers, servers).unwrap().0)
    }

    fn with(parameters: Parameters) -> Self {
        let keys = Self::keys(&parameters, KeySetName { setup: SETUP, number: 0 });
        Self { parameters, keys }
    }

    fn drafts(parameters: &Parameters, name: KeySetName) -> Vec<KeyDraft> {
        let servers = 0..parameters.servers();
        servers.map(|j| KeyDraft::new(parameters, name, j, &seed(1, j)).unwrap()).collect()
    }

    fn keys(parameters: &Parameters, name: KeySetName) -> Vec<KeySet> {
        let drafts = Self::drafts(parameters, name);
        let openings: Vec<_> = drafts.iter().map(|draft| draft.opening().to_vec()).collect();
        let shares: Vec<_> = drafts.iter().map(|draft| draft.share().to_vec()).collect();
        assert!(shares.iter().all(|share| share.len() == parameters.polynomial_len()));
        for (j, (opening, share)) in openings.iter().zip(&shares).enumerate() {
            drafts[0].check(j, opening, share).unwrap();
        }
        let keys: Vec<_> =
            drafts.into_iter().map(|draft| draft.finish(&openings, &shares).unwrap()).collect();
        assert!(keys.iter().all(|key| key.id() == keys[0].id()));
        keys
    }

    /// The same keys with an empty record.
    fn renew(&mut self) {
        *self = Self::with(self.parameters.clone());
    }

    fn planned(&self, layer: LayerShape) -> Result<LinearPlan, Error> {
        LinearPlan::new(&self.parameters, layer, layer.packing()?)
    }

    fn plan(&self, geometry: &Geometry, width: u32) -> LinearPlan {
        self.planned(LayerShape { geometry, width }).unwrap()
    }

    fn encrypt(&self, plan: &LinearPlan, masks: &[Vec<u32>]) -> Vec<Vec<u8>> {
        let encrypt = |(keys, (j, mask)): (&KeySet, (usize, &Vec<u32>))| {
            keys.encrypt(plan, &OCCASION, mask, &seed(3, j)).unwrap()
        };
        self.keys.iter().zip(masks.iter().enumerate()).map(encrypt).collect()
    }

    fn multiply(&self, weights: &Weights, encrypted: &[Vec<u8>], seed: [u8; 32]) -> (Product, Vec<u8>) {
        weights.multiply(&self.keys[0], &OCCASION, encrypted, &seed).unwrap()
    }

    fn answer(&self, j: usize, plan: &LinearPlan, c1s: &[u8], s: &[u32]) -> Result<Vec<u8>, Error> {
        self.keys[j].answer(plan, &OCCASION, (0, c1s), s, &seed(5, j))
    }

    /// Steps 1 to 4 with uniform masks of `mask_bits`. Once with a key set.
    fn run(&self, plan: &LinearPlan, weights: &Weights, mask_bits: u32) -> Run {
        let n = self.parameters.servers();
        let mut rng = rng(7);
        let masks: Vec<_> = (0..n).map(|_| uniform(&mut rng, plan.inputs(), mask_bits)).collect();
        let encrypted = self.encrypt(plan, &masks);
        assert!(encrypted.iter().all(|message| message.len() == plan.encrypted_len()));
        let (product, c1s) = self.multiply(weights, &encrypted, seed(4, 0));
        assert_eq!(c1s.len(), plan.c1_len());
        let s: Vec<_> = (1..n).map(|_| uniform(&mut rng, plan.outputs(), 32)).collect();
        let answers: Vec<_> = (1..n).map(|j| self.answer(j, plan, &c1s, &s[j - 1]).unwrap()).collect();
        assert!(answers.iter().all(|answer| answer.len() == plan.answer_len()));
        let share = product.finish(&self.keys[0], &answers).unwrap();
        Run { masks, encrypted, c1s, s, answers, share }
    }
}

/// Every layer shape that these tests know, with its width and number of servers.
fn shapes() -> Vec<(Geometry, u32, usize)> {
    // Two strides, oblong kernel.
    let oblong = Conv {
        input: [2, 11, 6],
        channels: 3,
        kernel: [4, 2],
        stride: [3, 2],
        pads: [1, 0, 0, 1],
        dilation: [1; 2],
        groups: 1,
    };
    let grouped = |input: [usize; 3], channels, groups, stride, dilation: [usize; 2]| {
        let kernel = [input[1].min(3), 3];
        let pads = [dilation[0] * (kernel[0] - 1) / 2, dilation[1], 1, dilation[1]];
        Geometry::Conv(Conv { input, channels, kernel, stride: [stride; 2], pads, dilation, groups })
    };
    vec![
        (conv([1, 12, 12], 4, 3, 1, [0; 4]), 20, 2),
        (conv([3, 9, 7], 5, 3, 2, [1, 1, 1, 1]), 24, 3),
        (conv([6, 6, 6], 3, 5, 1, [2, 0, 1, 3]), 26, 3),
        (conv([16, 8, 8], 40, 1, 1, [0; 4]), 26, 3),
        (conv([8, 8, 8], 9, 1, 2, [0; 4]), 18, 4),
        // One channel of output, kernel as large as the input.
        (conv([2, 5, 5], 1, 5, 1, [0; 4]), 32, 2),
        (Geometry::Conv(oblong), 22, 3),
        // Parts of the channels: 64 · 18 · 18 values.
        (conv([64, 18, 18], 6, 3, 1, [0; 4]), 26, 3),
        // Blocks of output channels.
        (conv([4, 16, 16], 33, 3, 1, [1; 4]), 20, 3),
        // Tiles: a plane larger than a polynomial, with stride and padding across the seams.
        (conv([2, 130, 101], 3, 5, 2, [2, 2, 2, 1]), 24, 2),
        (conv([16, 6, 6], 16, 3, 1, [1; 4]), 26, 3),
        (conv([16, 12, 12], 16, 5, 1, [0; 4]), 26, 8),
        (dense(256, 10), 20, 2),
        (dense(1, 1), 1, 2),
        (dense(100, 82), 26, 4),
        (dense(800, 500), 26, 3),
        (dense(9000, 3), 26, 3),
        (dense(300, 40), 32, 3),
        (dense(2, 9000), 12, 2),
        (dense(256, 100), 32, 4),
        (dense(70, 30), 32, 5),
        (dense(70, 30), 20, 6),
        (dense(4000, 500), 32, 3),
        (dense(40, 7), 32, 7),
        (dense(40, 7), 32, 8),
        // Depthwise: many channels in a ciphertext whose outputs share another; two whose outputs do not; with tiles.
        (grouped([40, 14, 14], 40, 40, 1, [1, 1]), 20, 2),
        (grouped([3, 56, 56], 3, 3, 1, [1, 1]), 26, 3),
        (grouped([2, 100, 60], 2, 2, 2, [1, 1]), 32, 3),
        // Several outputs of a channel, groups of several channels.
        (grouped([7, 9, 9], 21, 7, 2, [1, 1]), 24, 2),
        (grouped([24, 10, 10], 16, 4, 1, [1, 1]), 26, 3),
        (grouped([60, 16, 16], 40, 2, 1, [1, 1]), 20, 2),
        // Dilation: with stride, on one axis, so wide that its phases are convolutions of their own.
        (grouped([5, 20, 21], 6, 1, 1, [2, 3]), 26, 3),
        (grouped([4, 25, 19], 4, 2, 2, [3, 2]), 32, 2),
        (grouped([6, 1, 300], 8, 2, 1, [1, 8]), 20, 3),
        (grouped([1, 1, 12_000], 2, 1, 1, [1, 5000]), 20, 2),
        // A strided convolution whose phases become channels; a kernel larger than a polynomial.
        (grouped([2, 150, 150], 6, 1, 2, [1, 1]), 20, 2),
        (conv([1, 100, 95], 2, 94, 1, [0; 4]), 20, 2),
    ]
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
            let ([_, height, width], [_, out_height, out_width]) = (conv.input, conv.output());
            let ([kernel_height, kernel_width], [top, left, ..]) = (conv.kernel, conv.pads);
            let value = |c: usize, y: usize, x: usize| match (y.checked_sub(top), x.checked_sub(left)) {
                (Some(y), Some(x)) if y < height && x < width => r[(c * height + y) * width + x],
                _ => 0,
            };
            let ([stride_y, stride_x], [apart_y, apart_x]) = (conv.stride, conv.dilation);
            let fan_in = conv.group_inputs() * kernel_height * kernel_width;
            let mut out = Vec::new();
            for (channel, row) in weights.chunks(fan_in).enumerate() {
                let first = channel / conv.group_outputs() * conv.group_inputs();
                for y in 0..out_height {
                    for x in 0..out_width {
                        let mut window = (0..fan_in).map(|k| {
                            let (c, i) =
                                (k / (kernel_height * kernel_width), k / kernel_width % kernel_height);
                            let j = k % kernel_width;
                            value(first + c, y * stride_y + i * apart_y, x * stride_x + j * apart_x)
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
    Geometry::Conv(Conv {
        input,
        channels,
        kernel: [kernel; 2],
        stride: [stride; 2],
        pads,
        dilation: [1; 2],
        groups: 1,
    })
}

fn dense(inputs: usize, outputs: usize) -> Geometry {
    Geometry::Dense(Dense { inputs, outputs })
}
