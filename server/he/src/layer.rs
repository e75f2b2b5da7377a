//! One linear layer on ciphertexts: plan, weights, product, answers, shares.

use std::sync::Arc;

use fhe_math::rq::{Poly, dot_product};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::keys::{PublicKey, SecretShare};
use crate::noise::{check_budget, noise_bound};
use crate::packing::Packing;
use crate::parameters::{DEGREE, LayerShape, Parameters};
use crate::ring::{MAX_PRIMES, residues};
use crate::sample::{Purpose, Smudging, stream};
use crate::{Error, wire};

/// How one layer is packed into ciphertexts, how long its messages are and how wide its smudging noise is.
///
/// Public: it follows from the layer's shape, its width and the parameters. Clones share the same data.
#[derive(Clone)]
pub struct LinearPlan(Arc<Plan>);

struct Plan {
    parameters: Parameters,
    packing: Packing,
    width: u32,
    smudging: Smudging,
    /// Where each output ciphertext's part of an answer begins, and after the last where the answer ends.
    answer_offsets: Vec<usize>,
    inputs: usize,
    outputs: usize,
    weights: usize,
}

impl LinearPlan {
    /// The plan of a layer.
    ///
    /// # Errors
    /// [`Error::NoiseBudget`] if `parameters` were selected without this layer and are too small for it;
    /// [`Error::Model`], [`Error::Width`] or [`Error::Band`] if the layer cannot be served at all.
    pub fn new(parameters: &Parameters, layer: LayerShape) -> Result<Self, Error> {
        let bound = noise_bound(layer, parameters.servers())?;
        check_budget(&bound, parameters.servers(), parameters.set())?;
        let (ring, packing) = (parameters.ring(), Packing::new(layer.geometry)?);
        let mut end = 0;
        let mut answer_offsets = vec![0];
        answer_offsets.extend((0..packing.output_ciphertexts()).map(|k| {
            end += wire::packed_len(packing.output_count(k), ring.prime_bits());
            end
        }));
        Ok(Self(Arc::new(Plan {
            smudging: Smudging::new(&bound, ring.moduli())?,
            width: layer.width,
            inputs: layer.geometry.inputs(),
            outputs: layer.geometry.outputs(),
            weights: layer.geometry.weights(),
            answer_offsets,
            packing,
            parameters: parameters.clone(),
        })))
    }

    /// Number of input values: length of a mask.
    pub fn inputs(&self) -> usize {
        self.0.inputs
    }

    /// Number of output values: length of a share.
    pub fn outputs(&self) -> usize {
        self.0.outputs
    }

    /// Ciphertexts that carry one server's mask.
    pub fn input_ciphertexts(&self) -> usize {
        self.0.packing.input_ciphertexts()
    }

    /// Ciphertexts that carry one holder's outputs.
    pub fn output_ciphertexts(&self) -> usize {
        self.0.packing.output_ciphertexts()
    }

    /// Bytes of one server's encrypted mask (two polynomials for each input ciphertext).
    pub fn encrypted_len(&self) -> usize {
        self.input_ciphertexts() * 2 * self.parameters().polynomial_len()
    }

    /// Bytes of the `c1` polynomials that a holder sends to each other server.
    pub fn c1_len(&self) -> usize {
        self.output_ciphertexts() * self.parameters().polynomial_len()
    }

    /// Bytes of one server's answer: one residue modulo the first prime for each output, and padding.
    pub fn answer_len(&self) -> usize {
        self.0.answer_offsets.last().copied().unwrap_or(0)
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        &self.0.parameters
    }

    pub(crate) fn packing(&self) -> &Packing {
        &self.0.packing
    }
}

/// A holder's weights, or its share of them; wiped on drop. Made once when a model is loaded.
pub struct Weights {
    plan: LinearPlan,
    kept: Kept,
}

enum Kept {
    /// In NTT form: one for each block of output channels and group of input channels.
    Transformed(Vec<Zeroizing<Poly>>),
    /// As they are, to be transformed for each product.
    Words(Zeroizing<Vec<u32>>),
}

impl Weights {
    /// Bytes of a layer's weights in NTT form: 8 for each of `DEGREE` coefficients and each prime, for every block
    /// of output channels and group of input channels.
    pub fn transformed_len(plan: &LinearPlan) -> usize {
        plan.packing().weight_polynomials() * DEGREE * plan.parameters().ring().moduli().len() * 8
    }

    /// Lifts and transforms `weights` (flat; `O I H W` or `outputs x inputs`), given modulo `2^width`, if the result
    /// fits `memory` bytes, which it is taken from. Otherwise they are kept as they are and transformed for each
    /// product, which costs a transform for each polynomial and band of rows.
    ///
    /// They are lifted to `-2^(width-1) .. 2^(width-1)`: sums of shares then agree with the weight modulo
    /// `2^width`, and noise is least.
    ///
    /// # Errors
    /// [`Error::Count`] for a wrong number of weights, [`Error::Weight`] for one of `2^width` or more.
    pub fn new(plan: &LinearPlan, weights: &[u32], memory: &mut usize) -> Result<Self, Error> {
        Error::check_count("weights", weights.len(), plan.0.weights)?;
        // Without an early exit, so that time does not tell where a weight stands out.
        let excess = weights.iter().fold(0, |excess, w| excess | (u64::from(*w) >> plan.0.width));
        if excess != 0 {
            return Err(Error::Weight(plan.0.width));
        }
        let kept = if let Some(left) = memory.checked_sub(Self::transformed_len(plan)) {
            *memory = left;
            let indices = (0..plan.packing().weight_polynomials()).into_par_iter();
            let polynomials = indices.map(|index| transformed(plan, weights, index));
            Kept::Transformed(polynomials.collect::<Result<_, _>>()?)
        } else {
            Kept::Words(Zeroizing::new(weights.to_vec()))
        };
        Ok(Self { plan: plan.clone(), kept })
    }

    /// Step 2: `F·Enc(r) + Enc(0)`, from the encrypted masks of all servers, the holder's own included.
    ///
    /// Returns what the holder keeps and the `c1` polynomials ([`LinearPlan::c1_len`] bytes) that go to every other
    /// server. `seed` is secret, uniform and fresh for every call; the encryption of zero that hides the weights
    /// comes from it.
    ///
    /// # Errors
    /// [`Error::Count`] unless there is one message for each server; [`Error::Length`] or [`Error::Residue`] if one
    /// is malformed; [`Error::Mismatch`] for a key of other parameters.
    pub fn multiply(
        &self,
        key: &PublicKey,
        encrypted: &[impl AsRef<[u8]> + Sync],
        seed: &[u8; 32],
    ) -> Result<(Product, Vec<u8>), Error> {
        let (plan, parameters) = (&self.plan, self.plan.parameters());
        parameters.check_same(key.parameters())?;
        let inputs = sum_masks(plan, encrypted)?;
        let ciphertexts = (0..plan.output_ciphertexts())
            .into_par_iter()
            .map(|index| {
                let mut product = self.product(index, &inputs)?;
                let zero = key.encrypt_coefficients(None, &mut stream(seed, Purpose::Zero, index))?;
                product.iter_mut().zip(&zero).for_each(|(c, z)| *c += z);
                Ok(product)
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let mut message = Vec::with_capacity(plan.c1_len());
        for [_, c1] in &ciphertexts {
            wire::write_polynomial(parameters.ring(), c1, &mut message)?;
        }
        Ok((Product { plan: plan.clone(), ciphertexts }, message))
    }

    /// The weighted sum of input ciphertexts for one output ciphertext. Not re-randomised: `c1` over an input's
    /// `c1` gives the weights, so it must not leave this module.
    fn product(&self, index: usize, inputs: &[[Poly; 2]]) -> Result<[Poly; 2], Error> {
        let (band, block) = self.plan.packing().band_and_block(index);
        let groups = self.plan.packing().groups();
        let inputs = &inputs[band * groups..][..groups];
        let indices = block * groups..(block + 1) * groups;
        let made: Vec<Zeroizing<Poly>>;
        let weights = match &self.kept {
            Kept::Transformed(polynomials) => &polynomials[indices],
            Kept::Words(words) => {
                made =
                    indices.map(|index| transformed(&self.plan, words, index)).collect::<Result<_, _>>()?;
                &made
            }
        };
        let half = |k: usize| dot_product(inputs.iter().map(|c| &c[k]), weights.iter().map(|w| &**w));
        Ok([half(0)?, half(1)?])
    }
}

/// Weight polynomial number `index` in NTT form.
fn transformed(plan: &LinearPlan, weights: &[u32], index: usize) -> Result<Zeroizing<Poly>, Error> {
    let spare = u32::BITS - plan.0.width;
    let lift = |weight: u32| i64::from((weight << spare) as i32 >> spare);
    plan.parameters().ring().small(&plan.packing().weights(index, weights, lift))
}

/// `Σ_j Enc(r^j)`: the input ciphertexts, from every server's message.
fn sum_masks(plan: &LinearPlan, encrypted: &[impl AsRef<[u8]> + Sync]) -> Result<Vec<[Poly; 2]>, Error> {
    const WHAT: &str = "encrypted mask";
    Error::check_count("encrypted masks", encrypted.len(), plan.parameters().servers())?;
    for message in encrypted {
        Error::check_length(WHAT, message.as_ref().len(), plan.encrypted_len())?;
    }
    let (ring, size) = (plan.parameters().ring(), plan.parameters().polynomial_len());
    let sum = |position: usize| {
        let mut parts = encrypted
            .iter()
            .map(|message| wire::read_polynomial(WHAT, ring, &message.as_ref()[position * size..][..size]));
        let mut sum = parts.next().unwrap_or(Err(Error::Servers(0)))?;
        for part in parts {
            sum += &part?;
        }
        Ok::<_, Error>(sum)
    };
    let ciphertexts = 0..plan.input_ciphertexts();
    ciphertexts.into_par_iter().map(|k| Ok([sum(2 * k)?, sum(2 * k + 1)?])).collect()
}

impl SecretShare {
    /// Step 3: this server's answer to a holder, `h_j = sk_j·c1 + e_j - Δ·s^j` at the coefficients that carry
    /// outputs ([`LinearPlan::answer_len`] bytes, modulus-switched).
    ///
    /// `c1s` is the holder's message. `s` is this server's share of the result, one value for each output, drawn
    /// by the caller uniform modulo `2^32` whatever the layer's width (a narrower one would leave the high bits of
    /// `F·r` bare). `seed` is secret, uniform and fresh for every call. **Answer once for each layer and bundle**:
    /// see the head of this crate.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::Residue`] if `c1s` is malformed; [`Error::Count`] for a wrong number of
    /// values in `s`; [`Error::Mismatch`] for another set's plan.
    pub fn answer(
        &self,
        plan: &LinearPlan,
        c1s: &[u8],
        s: &[u32],
        seed: &[u8; 32],
    ) -> Result<Vec<u8>, Error> {
        const WHAT: &str = "product c1";
        self.parameters().check_same(plan.parameters())?;
        Error::check_length(WHAT, c1s.len(), plan.c1_len())?;
        Error::check_count("output shares", s.len(), plan.outputs())?;
        let (ring, smudging) = (plan.parameters().ring(), &plan.0.smudging);
        let parts = c1s.par_chunks(plan.parameters().polynomial_len()).enumerate().map(|(index, bytes)| {
            let product = self.apply(&wire::read_polynomial(WHAT, ring, bytes)?, None);
            let product = residues(&product)?;
            let mut rng = stream(seed, Purpose::Smudging, index);
            let values = plan.packing().outputs(index).map(|(output, coefficient)| {
                let noise = smudging.draw(&mut rng);
                switched(plan, |i| {
                    let m = &ring.moduli()[i];
                    let flooded = m.add(product[i * DEGREE + coefficient], smudging.residue(&noise, i, m));
                    m.sub(flooded, ring.scaled(s[output], i))
                })
            });
            let mut out = Vec::new();
            wire::pack(values, ring.prime_bits(), &mut out);
            Ok(out)
        });
        Ok(parts.collect::<Result<Vec<_>, Error>>()?.concat())
    }
}

/// One number modulo `q`, given residue by residue, switched to the first prime.
fn switched(plan: &LinearPlan, residue: impl Fn(usize) -> u64) -> u64 {
    let ring = plan.parameters().ring();
    let mut x = Zeroizing::new([0; MAX_PRIMES]);
    let x = &mut x[..ring.moduli().len()];
    x.iter_mut().enumerate().for_each(|(i, x)| *x = residue(i));
    ring.switch(x)
}

/// A layer's product ciphertexts, kept by the holder until all answers are in. Holds no plaintext and no weight in
/// clear; used up by [`Product::finish`], because each is answered and decoded once.
pub struct Product {
    plan: LinearPlan,
    ciphertexts: Vec<[Poly; 2]>,
}

impl Product {
    /// Step 4: the holder's share `F·r - Σ_{j≠h} s^j` modulo `2^32`, one value for each output (flat, `C H W`).
    ///
    /// `share` is the holder's own; `answers` are those of all other servers, in any order. A wrong answer from a
    /// peer (not malformed, but for another `c1`) gives a wrong share, which cannot be noticed here.
    ///
    /// # Errors
    /// [`Error::Count`] unless every other server answered; [`Error::Length`] or [`Error::Residue`] if one is
    /// malformed; [`Error::Mismatch`] for a key share of other parameters.
    pub fn finish(
        self,
        share: &SecretShare,
        answers: &[impl AsRef<[u8]> + Sync],
    ) -> Result<Zeroizing<Vec<u32>>, Error> {
        const WHAT: &str = "answer";
        let (plan, parameters) = (&self.plan, self.plan.parameters());
        parameters.check_same(share.parameters())?;
        Error::check_count("answers", answers.len(), parameters.servers() - 1)?;
        for answer in answers {
            Error::check_length(WHAT, answer.as_ref().len(), plan.answer_len())?;
        }
        let ring = parameters.ring();
        let first = &ring.moduli()[0];
        let offsets = plan.0.answer_offsets.par_windows(2);
        let parts = self.ciphertexts.par_iter().zip(offsets).enumerate().map(|(index, ([c0, c1], range))| {
            let count = plan.packing().output_count(index);
            let format = (count, ring.prime_bits(), **first);
            let mut others = Zeroizing::new(Vec::with_capacity(count * answers.len()));
            for answer in answers {
                wire::unpack(WHAT, &answer.as_ref()[range[0]..range[1]], format, &mut others)?;
            }
            let own = share.apply(c1, Some(c0));
            let own = residues(&own)?;
            let values = plan.packing().outputs(index).enumerate().map(|(k, (output, coefficient))| {
                let own = switched(plan, |i| own[i * DEGREE + coefficient]);
                let sum = others.iter().skip(k).step_by(count).fold(own, |sum, &h| first.add(sum, h));
                (output, ring.decode(sum))
            });
            // Never grows, so no copy is left behind.
            let mut part = Zeroizing::new(Vec::with_capacity(count));
            part.extend(values);
            Ok(part)
        });
        let mut out = Zeroizing::new(vec![0; plan.outputs()]);
        for part in parts.collect::<Result<Vec<_>, Error>>()? {
            part.iter().for_each(|&(output, value)| out[output] = value);
        }
        Ok(out)
    }
}

#[cfg(test)]
impl Weights {
    /// The product without its encryption of zero, to show what that hides.
    pub(crate) fn bare_product(
        &self,
        index: usize,
        encrypted: &[impl AsRef<[u8]> + Sync],
    ) -> Result<[Poly; 2], Error> {
        self.product(index, &sum_masks(&self.plan, encrypted)?)
    }
}

#[cfg(test)]
impl Product {
    pub(crate) fn ciphertexts(&self) -> &[[Poly; 2]] {
        &self.ciphertexts
    }
}
