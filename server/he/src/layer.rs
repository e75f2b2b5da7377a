//! One linear layer on ciphertexts: plan, weights, product, answers, shares.

use std::sync::Arc;

use fhe_math::rq::{Poly, Representation, dot_product};
use rand_chacha09::ChaCha20Rng;
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::keys::SecretShare;
use crate::noise::{check_budget, noise_bound};
use crate::packing::Packing;
use crate::parameters::{DEGREE, LayerShape, Parameters};
use crate::ring::residues;
use crate::sample::{Purpose, Smudging, stream};
use crate::set::{KeySet, Occasion};
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
    /// [`Error::Model`] or [`Error::Width`] if the layer cannot be served at all.
    pub fn new(parameters: &Parameters, layer: LayerShape) -> Result<Self, Error> {
        let bound = noise_bound(layer, parameters)?;
        check_budget(&bound, parameters.servers(), parameters.set())?;
        let (ring, packing) = (parameters.ring(), Packing::new(layer.geometry)?);
        let mut end = 0;
        let mut answer_offsets = vec![0];
        answer_offsets.extend((0..packing.output_ciphertexts()).map(|k| {
            end += wire::packed_len(packing.output_count(k), ring.answer_bits());
            end
        }));
        Ok(Self(Arc::new(Plan {
            smudging: Smudging::new(&bound, ring.kept().moduli())?,
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

    /// Bytes of one server's encrypted mask: a polynomial modulo `Q` for each input ciphertext.
    pub fn encrypted_len(&self) -> usize {
        self.input_ciphertexts() * self.parameters().polynomial_len()
    }

    /// Bytes of the `c1` polynomials, modulo `q'`, that a holder sends to each other server.
    pub fn c1_len(&self) -> usize {
        self.output_ciphertexts() * wire::polynomial_len(self.parameters().ring().kept())
    }

    /// Bytes of one server's answer: a number of 36 or 37 bits for each output, and padding.
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
    /// In NTT form: in the packing's order.
    Transformed(Vec<Zeroizing<Poly>>),
    /// As they are, to be transformed for each product.
    Words(Zeroizing<Vec<u32>>),
}

impl Weights {
    /// Bytes of a layer's weights in NTT form: 8 for each of `DEGREE` coefficients and each prime, of every weight
    /// polynomial.
    pub fn transformed_len(plan: &LinearPlan) -> usize {
        plan.packing().weight_polynomials() * DEGREE * plan.parameters().ring().whole().moduli().len() * 8
    }

    /// Lifts and transforms `weights` (flat; `O I H W` or `outputs x inputs`), given modulo `2^width`, if the result
    /// fits `memory` bytes, which it is taken from. Otherwise they are kept as they are and transformed for each
    /// product, which costs a transform for each of them.
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

    /// Step 2: `F·Enc(r) + Enc(0)`, from the encrypted masks of all servers, the holder's own included, switched from
    /// `Q` to `q'`.
    ///
    /// Returns what the holder keeps and the `c1` polynomials ([`LinearPlan::c1_len`] bytes) that go to every other
    /// server. `seed` is secret, uniform and fresh for every call; the encryption of zero that hides the weights
    /// comes from it.
    ///
    /// # Errors
    /// [`Error::Count`] unless there is one message for each server; [`Error::Message`] around [`Error::Length`] or
    /// [`Error::Residue`] if one is malformed; [`Error::Mismatch`] for keys of other parameters.
    pub fn multiply(
        &self,
        keys: &KeySet,
        occasion: &Occasion,
        encrypted: &[impl AsRef<[u8]> + Sync],
        seed: &[u8; 32],
    ) -> Result<(Product, Vec<u8>), Error> {
        let (plan, ring) = (&self.plan, self.plan.parameters().ring());
        let inputs = self.inputs(keys, occasion, encrypted)?;
        let ciphertexts = (0..plan.output_ciphertexts())
            .into_par_iter()
            .map(|index| {
                let mut rng = stream(seed, Purpose::Zero, index);
                let mut product = self.rerandomised(index, &inputs, keys, &mut rng)?;
                for polynomial in &mut product {
                    ring.drop_prime(polynomial)?;
                }
                product[1].change_representation(Representation::Ntt);
                Ok(product)
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let mut message = Vec::with_capacity(plan.c1_len());
        for [_, c1] in &ciphertexts {
            wire::write_polynomial(ring.kept(), c1, &mut message)?;
        }
        Ok((Product { plan: plan.clone(), ciphertexts }, message))
    }

    /// The encryptions of `Σ_j r^j`, in NTT form: all servers' parts together, and the common polynomials.
    fn inputs(
        &self,
        keys: &KeySet,
        occasion: &Occasion,
        encrypted: &[impl AsRef<[u8]> + Sync],
    ) -> Result<Vec<[Poly; 2]>, Error> {
        const WHAT: &str = "encrypted mask";
        let (plan, parameters) = (&self.plan, self.plan.parameters());
        parameters.check_same(keys.parameters())?;
        Error::check_count("encrypted masks", encrypted.len(), parameters.servers())?;
        for (position, message) in encrypted.iter().enumerate() {
            Error::check_length(WHAT, message.as_ref().len(), plan.encrypted_len())
                .map_err(Error::of_message(position))?;
        }
        let (basis, size) = (parameters.ring().whole(), parameters.polynomial_len());
        let sum = |index: usize| {
            let mut sum = basis.zero();
            for (position, message) in encrypted.iter().enumerate() {
                let part = &message.as_ref()[index * size..][..size];
                sum += &wire::read_polynomial(WHAT, basis, part).map_err(Error::of_message(position))?;
            }
            Ok::<_, Error>([sum, keys.common(occasion, index)?])
        };
        (0..plan.input_ciphertexts()).into_par_iter().map(sum).collect()
    }

    /// One output ciphertext modulo `Q`, with its encryption of zero, as coefficients.
    fn rerandomised(
        &self,
        index: usize,
        inputs: &[[Poly; 2]],
        keys: &KeySet,
        rng: &mut ChaCha20Rng,
    ) -> Result<[Poly; 2], Error> {
        let mut product = self.product(index, inputs)?;
        let zero = keys.public().encrypt_zero(self.plan.parameters().ring().whole(), rng)?;
        for ((polynomial, randomised), error) in product.iter_mut().zip(&zero.products).zip(&zero.errors) {
            *polynomial += randomised;
            polynomial.change_representation(Representation::PowerBasis);
            *polynomial += &**error;
        }
        Ok(product)
    }

    /// The weighted sum of input ciphertexts for one output ciphertext. Not re-randomised: `c1` over an input's
    /// `c1` gives the weights, so it must not leave this module.
    fn product(&self, index: usize, inputs: &[[Poly; 2]]) -> Result<[Poly; 2], Error> {
        let (inputs_of, indices) = self.plan.packing().product(index);
        let inputs = &inputs[inputs_of];
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
    plan.parameters().ring().whole().transformed(&plan.packing().weights(index, weights, lift))
}

impl KeySet {
    /// Step 3: this server's answer to the product of server `holder`, `h_j = sk_j·c1 + e'_j - (q'/t)·s^j` at the
    /// coefficients that carry outputs, switched to a modulus of 36 or 37 bits ([`LinearPlan::answer_len`] bytes).
    ///
    /// `c1s` is the holder's message. `s` is this server's share of the result, one value for each output, drawn
    /// by the caller uniform modulo `2^32` whatever the layer's width (a narrower one would leave the high bits of
    /// `F·r` bare). `seed` is secret, uniform and fresh for every call.
    ///
    /// # Errors
    /// [`Error::Message`] around [`Error::Length`] or [`Error::Residue`] if `c1s` is malformed; [`Error::Repeated`] for a second answer to the
    /// holder on one occasion, which would average the smudging out; [`Error::Exhausted`] beyond
    /// [`KEY_COEFFICIENTS`](crate::KEY_COEFFICIENTS); [`Error::Count`] for a wrong number of values in `s`;
    /// [`Error::Mismatch`] for another set's plan.
    pub fn answer(
        &self,
        plan: &LinearPlan,
        occasion: &Occasion,
        (holder, c1s): (usize, &[u8]),
        s: &[u32],
        seed: &[u8; 32],
    ) -> Result<Vec<u8>, Error> {
        const WHAT: &str = "product c1";
        self.parameters().check_same(plan.parameters())?;
        Error::check_length(WHAT, c1s.len(), plan.c1_len()).map_err(Error::of_message(0))?;
        Error::check_count("output shares", s.len(), plan.outputs())?;
        self.record_answer(occasion, holder, plan.outputs())?;
        let ring = plan.parameters().ring();
        let parts = c1s.par_chunks(wire::polynomial_len(ring.kept())).enumerate().map(|(index, bytes)| {
            let c1 = wire::read_polynomial(WHAT, ring.kept(), bytes).map_err(Error::of_message(0))?;
            let flooded = flooded(self.secret(), plan, index, &c1, seed)?;
            let outputs = plan.packing().outputs(index).zip(flooded.iter());
            let values = outputs.map(|((output, _), &residues)| {
                ring.answer_reduced(ring.switch(residues).wrapping_sub(ring.answer_scaled(s[output])))
            });
            let mut out = Vec::new();
            wire::pack(values, ring.answer_bits(), &mut out);
            Ok(out)
        });
        Ok(parts.collect::<Result<Vec<_>, Error>>()?.concat())
    }
}

/// `sk_j·c1 + e'_j` modulo both primes of `q'`, for each output of one output ciphertext.
pub(crate) fn flooded(
    secret: &SecretShare,
    plan: &LinearPlan,
    index: usize,
    c1: &Poly,
    seed: &[u8; 32],
) -> Result<Zeroizing<Vec<[u64; 2]>>, Error> {
    let (moduli, smudging) = (plan.parameters().ring().kept().moduli(), &plan.0.smudging);
    let product = secret.apply(c1);
    let product = residues(&product)?;
    let mut rng = stream(seed, Purpose::Smudging, index);
    // Never grows, so no copy is left behind.
    let mut out = Zeroizing::new(Vec::with_capacity(plan.packing().output_count(index)));
    out.extend(plan.packing().outputs(index).map(|(_, coefficient)| {
        let noise = smudging.draw(&mut rng);
        [0, 1].map(|i| {
            let m = &moduli[i];
            m.add(product[i * DEGREE + coefficient], smudging.residue(*noise, i, m))
        })
    }));
    Ok(out)
}

/// A layer's product ciphertexts, kept by the holder until all answers are in. Holds no plaintext and no weight in
/// clear; used up by [`Product::finish`], because each is answered and decoded once.
pub struct Product {
    plan: LinearPlan,
    /// Modulo `q'`: `c0` as coefficients, `c1` in NTT form.
    ciphertexts: Vec<[Poly; 2]>,
}

impl Product {
    /// Step 4: the holder's share `F·r - Σ_{j≠h} s^j` modulo `2^32`, one value for each output (flat, `C H W`).
    ///
    /// `keys` are the holder's; `answers` are those of all other servers, in any order. A wrong answer from a
    /// peer (not malformed, but for another `c1`) gives a wrong share, which cannot be noticed here.
    ///
    /// # Errors
    /// [`Error::Count`] unless every other server answered; [`Error::Message`] around [`Error::Length`] or
    /// [`Error::Residue`] if one is malformed; [`Error::Mismatch`] for keys of other parameters.
    pub fn finish(
        self,
        keys: &KeySet,
        answers: &[impl AsRef<[u8]> + Sync],
    ) -> Result<Zeroizing<Vec<u32>>, Error> {
        const WHAT: &str = "answer";
        let (plan, parameters) = (&self.plan, self.plan.parameters());
        parameters.check_same(keys.parameters())?;
        Error::check_count("answers", answers.len(), parameters.servers() - 1)?;
        for (position, answer) in answers.iter().enumerate() {
            Error::check_length(WHAT, answer.as_ref().len(), plan.answer_len())
                .map_err(Error::of_message(position))?;
        }
        let ring = parameters.ring();
        let offsets = plan.0.answer_offsets.par_windows(2);
        let parts = self.ciphertexts.par_iter().zip(offsets).enumerate().map(|(index, ([c0, c1], range))| {
            let count = plan.packing().output_count(index);
            let format = (count, ring.answer_bits(), 1 << ring.answer_bits());
            let mut others = Zeroizing::new(Vec::with_capacity(count * answers.len()));
            for (position, answer) in answers.iter().enumerate() {
                wire::unpack(WHAT, &answer.as_ref()[range[0]..range[1]], format, &mut others)
                    .map_err(Error::of_message(position))?;
            }
            let mut own = keys.secret().apply(c1);
            *own += c0;
            let own = residues(&own)?;
            let values = plan.packing().outputs(index).enumerate().map(|(k, (output, coefficient))| {
                let own = ring.switch([own[coefficient], own[DEGREE + coefficient]]);
                (output, ring.decode(others.iter().skip(k).step_by(count).fold(own, |sum, h| sum + h)))
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
    /// One output ciphertext modulo `Q` in NTT form, without its encryption of zero, to show what that hides.
    pub(crate) fn bare_product(
        &self,
        index: usize,
        keys: &KeySet,
        occasion: &Occasion,
        encrypted: &[impl AsRef<[u8]> + Sync],
    ) -> Result<[Poly; 2], Error> {
        self.product(index, &self.inputs(keys, occasion, encrypted)?)
    }

    /// One output ciphertext modulo `Q` as coefficients, with its encryption of zero.
    pub(crate) fn rerandomised_product(
        &self,
        index: usize,
        keys: &KeySet,
        occasion: &Occasion,
        encrypted: &[impl AsRef<[u8]> + Sync],
        rng: &mut ChaCha20Rng,
    ) -> Result<[Poly; 2], Error> {
        self.rerandomised(index, &self.inputs(keys, occasion, encrypted)?, keys, rng)
    }
}

#[cfg(test)]
impl Product {
    pub(crate) fn ciphertexts(&self) -> &[[Poly; 2]] {
        &self.ciphertexts
    }
}
