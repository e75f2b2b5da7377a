//! One linear layer on ciphertexts: plan, weights, product, answers, shares.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fhe_math::rq::{Poly, Representation, dot_product};
use num_bigint::BigUint;
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
    noise: BigUint,
    smudging: Smudging,
    /// Where each output ciphertext's part of an answer begins, and after the last where the answer ends.
    answer_offsets: Vec<usize>,
    inputs: usize,
    outputs: usize,
    weights: usize,
}

impl LinearPlan {
    /// The plan of a layer with its packing.
    ///
    /// # Errors
    /// [`Error::NoiseBudget`] if `parameters` were selected without this layer and are too small for it.
    pub(crate) fn new(parameters: &Parameters, layer: LayerShape, packing: Packing) -> Result<Self, Error> {
        let (servers, set, ring) = (parameters.servers(), parameters.set(), parameters.ring());
        let noise = noise_bound(packing.weights_per_output(), layer.width, servers, set.primes[2]);
        check_budget(&noise, servers, set)?;
        let mut end = 0;
        let mut answer_offsets = vec![0];
        answer_offsets.extend((0..packing.output_ciphertexts()).map(|k| {
            end += wire::packed_len(packing.output_count(k), ring.answer_bits());
            end
        }));
        Ok(Self(Arc::new(Plan {
            smudging: Smudging::new(&noise, ring.kept().moduli())?,
            noise,
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

    /// Polynomials that carry a holder's weights.
    pub fn weight_polynomials(&self) -> usize {
        self.0.packing.weight_polynomials()
    }

    /// Products of an input ciphertext and a weight polynomial, of one holder.
    pub fn products(&self) -> usize {
        self.output_ciphertexts() * self.0.packing.products_per_output()
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

    /// The worst-case noise `B` of a product ciphertext modulo `q'`, its re-randomisation and the switch included
    /// (section 4 of PROTOCOL.md). [`smudging_bound`](crate::smudging_bound) tells what hides it.
    pub fn noise_bound(&self) -> &BigUint {
        &self.0.noise
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        &self.0.parameters
    }

    pub(crate) fn packing(&self) -> &Packing {
        &self.0.packing
    }
}

/// A layer's weights where they already are. Whoever owns them wipes them.
pub type Words = Arc<dyn AsRef<[u32]> + Send + Sync>;

/// A holder's weights, or its share of them. Made once when a model is loaded; what is made of them is wiped on drop.
///
/// In NTT form, as products need them, weights take some hundred times their own memory. They are brought to it by the
/// first product, kept if there is room, and given up again when no product will be made for some time
/// ([`Weights::forget`]).
pub struct Weights {
    plan: LinearPlan,
    words: Words,
    /// Whether they may be kept in NTT form.
    may_keep: bool,
    kept: Mutex<Option<Transformed>>,
}

/// Weight polynomials in NTT form, in the packing's order.
type Transformed = Arc<Vec<Zeroizing<Poly>>>;

impl Weights {
    /// Bytes of a layer's weights in NTT form: 8 for each of `DEGREE` coefficients and each prime, of every weight
    /// polynomial.
    pub fn transformed_len(plan: &LinearPlan) -> usize {
        plan.packing().weight_polynomials() * DEGREE * plan.parameters().ring().whole().moduli().len() * 8
    }

    /// Whether a layer's weights may be kept in NTT form: if it fits `memory` bytes, which it then is taken from.
    /// Otherwise they are transformed for each call of [`Weights::multiply`].
    pub fn reserve(plan: &LinearPlan, memory: &mut usize) -> bool {
        let left = memory.checked_sub(Self::transformed_len(plan));
        *memory = left.unwrap_or(*memory);
        left.is_some()
    }

    /// Takes `words` (flat; `O I H W` or `outputs x inputs`), given modulo `2^width`, without a copy. Their NTT form takes
    /// its place of `memory` ([`Weights::reserve`]).
    ///
    /// They are lifted to `-2^(width-1) .. 2^(width-1)`: sums of shares then agree with the weight modulo
    /// `2^width`, and noise is least.
    ///
    /// # Errors
    /// [`Error::Count`] for a wrong number of weights, [`Error::Weight`] for one of `2^width` or more.
    pub fn new(plan: &LinearPlan, words: Words, memory: &mut usize) -> Result<Self, Error> {
        let weights = (*words).as_ref();
        Error::check_count("weights", weights.len(), plan.0.weights)?;
        // Without an early exit, so that time does not tell where a weight stands out.
        let excess = weights.iter().fold(0, |excess, w| excess | (u64::from(*w) >> plan.0.width));
        if excess != 0 {
            return Err(Error::Weight(plan.0.width));
        }
        let may_keep = Self::reserve(plan, memory);
        Ok(Self { plan: plan.clone(), words, may_keep, kept: Mutex::default() })
    }

    /// Brings the weights to NTT form if they are to be kept in it and are not yet, so that the next product need not.
    ///
    /// # Errors
    /// None on any input; [`Error::Ring`] tells of a defect.
    pub fn transform(&self) -> Result<(), Error> {
        self.transformed().map(|_| ())
    }

    /// Wipes and frees the NTT form. The next product makes it anew; one that is being made is not disturbed.
    pub fn forget(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> MutexGuard<'_, Option<Transformed>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All polynomials, if they are to be kept.
    fn transformed(&self) -> Result<Option<Transformed>, Error> {
        let kept = self.kept().clone();
        if kept.is_some() || !self.may_keep {
            return Ok(kept);
        }
        // Without the lock: a thread that waits for others may begin another product meanwhile.
        let made = self.polynomials(0..self.plan.packing().weight_polynomials())?;
        Ok(Some(self.kept().get_or_insert_with(|| Arc::new(made)).clone()))
    }

    fn polynomials(&self, indices: Range<usize>) -> Result<Vec<Zeroizing<Poly>>, Error> {
        let (plan, spare) = (&self.plan, u32::BITS - self.plan.0.width);
        let lift = |weight: u32| i64::from((weight << spare) as i32 >> spare);
        let (ring, words) = (plan.parameters().ring().whole(), (*self.words).as_ref());
        let polynomial = |index| ring.transformed(&plan.packing().weights(index, words, lift));
        indices.into_par_iter().map(polynomial).collect()
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
        let transformed = self.transformed()?;
        let (rows, tiles) = (plan.packing().rows(), plan.packing().tiles());
        let row = |row: usize| {
            // Weights that are not kept are transformed once for all tiles.
            let weights = self.row(row, transformed.as_deref())?;
            let product = |tile: usize| {
                let index = tile * rows + row;
                let mut rng = stream(seed, Purpose::Zero, index);
                let mut product = self.rerandomised(index, &inputs, &weights, keys, &mut rng)?;
                for polynomial in &mut product {
                    ring.drop_prime(polynomial)?;
                }
                product[1].change_representation(Representation::Ntt);
                Ok((index, product))
            };
            (0..tiles).into_par_iter().map(product).collect::<Result<Vec<_>, Error>>()
        };
        let products = (0..rows).into_par_iter().map(row).collect::<Result<Vec<_>, Error>>()?;
        let mut products: Vec<_> = products.into_iter().flatten().collect();
        products.sort_unstable_by_key(|(index, _)| *index);
        let ciphertexts: Vec<_> = products.into_iter().map(|(_, product)| product).collect();
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

    /// The weight polynomials, in NTT form, of the output ciphertexts of one row.
    fn row<'a>(
        &self,
        row: usize,
        transformed: Option<&'a Vec<Zeroizing<Poly>>>,
    ) -> Result<Cow<'a, [Zeroizing<Poly>]>, Error> {
        let indices = self.plan.packing().weights_of(row);
        Ok(match transformed {
            Some(polynomials) => Cow::Borrowed(&polynomials[indices]),
            None => Cow::Owned(self.polynomials(indices)?),
        })
    }

    /// One output ciphertext modulo `Q`, with its encryption of zero, as coefficients.
    fn rerandomised(
        &self,
        index: usize,
        inputs: &[[Poly; 2]],
        weights: &[Zeroizing<Poly>],
        keys: &KeySet,
        rng: &mut ChaCha20Rng,
    ) -> Result<[Poly; 2], Error> {
        let mut product = self.product(index, inputs, weights)?;
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
    fn product(
        &self,
        index: usize,
        inputs: &[[Poly; 2]],
        weights: &[Zeroizing<Poly>],
    ) -> Result<[Poly; 2], Error> {
        let inputs = &inputs[self.plan.packing().inputs_of(index)];
        let half = |k: usize| dot_product(inputs.iter().map(|c| &c[k]), weights.iter().map(|w| &**w));
        Ok([half(0)?, half(1)?])
    }
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
    pub(crate) fn kept_polynomials(&self) -> usize {
        self.kept().as_ref().map_or(0, |kept| kept.len())
    }

    /// One output ciphertext modulo `Q` in NTT form, without its encryption of zero, to show what that hides.
    pub(crate) fn bare_product(
        &self,
        index: usize,
        keys: &KeySet,
        occasion: &Occasion,
        encrypted: &[impl AsRef<[u8]> + Sync],
    ) -> Result<[Poly; 2], Error> {
        let row = self.row(index % self.plan.packing().rows(), None)?;
        self.product(index, &self.inputs(keys, occasion, encrypted)?, &row)
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
        let row = self.row(index % self.plan.packing().rows(), None)?;
        self.rerandomised(index, &self.inputs(keys, occasion, encrypted)?, &row, keys, rng)
    }
}

#[cfg(test)]
impl Product {
    pub(crate) fn ciphertexts(&self) -> &[[Poly; 2]] {
        &self.ciphertexts
    }
}
