//! What the noise bound and the smudging noise promise, measured with every key in hand.

use fhe::bfv::{BfvParametersBuilder, Ciphertext, Encoding, Plaintext};
use fhe_math::rq::{Poly, Representation};
use fhe_traits::{DeserializeParametrized, FheEncoder, FheEncrypter};
use num_bigint::BigUint;

use super::*;
use crate::parameters::DEGREE;
use crate::ring::residues;
use crate::{noise_bound, smudging_bound, wire};

/// `c0 + Σ_j sk_j·c1` as integers modulo `q`.
fn decrypted(cluster: &Cluster, [c0, c1]: &[Poly; 2]) -> Vec<BigUint> {
    let mut sum = c0.clone();
    sum.change_representation(Representation::PowerBasis);
    for share in &cluster.shares {
        sum += &*share.apply(c1, None);
    }
    Vec::from(&sum)
}

/// `|x - q·m/t|`, centred modulo `q`, rounded up.
fn distance(x: &BigUint, value: u32, q: &BigUint) -> BigUint {
    let up = ((x + q) - ((q * value) >> 32u32)) % q;
    let down = q - &up + 1u32;
    up.min(down)
}

fn log2(x: &BigUint) -> f64 {
    x.to_string().parse::<f64>().unwrap().log2()
}

#[test]
fn ciphertext_noise_stays_below_its_bound() {
    for (geometry, width, servers) in [
        (conv([16, 6, 6], 16, 3, 1, [1; 4]), 26, 3),
        (dense(256, 100), 26, 3),
        (dense(256, 100), 32, 4),
        (dense(1, 1), 1, 2),
    ] {
        let layer = LayerShape { geometry: &geometry, width };
        let cluster = Cluster::new(&[layer], servers);
        let plan = cluster.plan(&geometry, width);
        // All weights at their extreme, so that only the noise itself is random.
        let values = vec![1 << (width - 1); geometry.weights()];
        let weights = prepared(&plan, &values).unwrap();
        let masks: Vec<_> = (0..servers).map(|k| uniform(&mut rng(k as u64), plan.inputs(), 32)).collect();
        let encrypted = cluster.encrypt(&plan, &masks);
        let (product, _) = weights.multiply(&cluster.key, &encrypted, &[4; 32]).unwrap();
        let expected = reference(&geometry, width, &values, &sum(&masks));
        let q: BigUint = cluster.parameters.set().primes.iter().product();
        let mut worst = BigUint::from(0u32);
        for (k, ciphertext) in product.ciphertexts().iter().enumerate() {
            let x = decrypted(&cluster, ciphertext);
            for (output, coefficient) in plan.packing().outputs(k) {
                worst = worst.max(distance(&x[coefficient], expected[output], &q));
            }
        }
        let bound = noise_bound(layer, servers).unwrap();
        println!(
            "{geometry:?}, {width} bits, n = {servers}: noise 2^{:.1} measured, 2^{:.1} at worst",
            log2(&worst),
            log2(&bound)
        );
        assert!(worst <= bound);
        // The bound is a worst case, not fantasy: random noise of N terms stays near its square root.
        assert!(log2(&bound) - log2(&worst) < 20.0);
    }
}

/// What is left of an answer when all but its noise is taken off, in units of `q/q_1`, centred.
fn answer_noise(cluster: &Cluster, plan: &LinearPlan, c1s: &[u8], s: &[u32], answer: &[u8]) -> Vec<i64> {
    let ring = cluster.parameters.ring();
    let first = *ring.moduli()[0];
    let (mut out, mut start) = (Vec::new(), 0);
    for (k, bytes) in c1s.chunks(cluster.parameters.polynomial_len()).enumerate() {
        let c1 = wire::read_polynomial("c1", ring, bytes).unwrap();
        let product = cluster.shares[1].apply(&c1, None);
        let product = residues(&product).unwrap();
        let count = plan.packing().output_count(k);
        let end = start + wire::packed_len(count, ring.prime_bits());
        let mut values = Vec::new();
        wire::unpack("answer", &answer[start..end], (count, ring.prime_bits(), first), &mut values).unwrap();
        start = end;
        for ((output, coefficient), value) in plan.packing().outputs(k).zip(values) {
            let known: Vec<_> = ring
                .moduli()
                .iter()
                .enumerate()
                .map(|(i, m)| m.sub(product[i * DEGREE + coefficient], ring.scaled(s[output], i)))
                .collect();
            let noise = (value + first - ring.switch(&known)) % first;
            out.push(if noise > first / 2 { noise as i64 - first as i64 } else { noise as i64 });
        }
    }
    out
}

/// Whether noise is as wide as smudging must be, and flat. `bound` in the noise's units.
fn is_smudged(noise: &[i64], bound: i64) -> bool {
    let widest = noise.iter().map(|e| e.abs()).max().unwrap_or(0);
    let mut bins = [0usize; 8];
    for e in noise {
        bins[(((e + bound).max(0) as i128 * 8 / (2 * bound as i128 + 1)) as usize).min(7)] += 1;
    }
    let (mean, slack) = (noise.len() / 8, 5.0 * (noise.len() as f64 / 8.0).sqrt());
    // Switching two numbers costs up to 6 units.
    widest <= bound + 6
        && widest * 100 >= bound * 99
        && bins.iter().all(|&b| (b as f64 - mean as f64).abs() < slack)
}

/// The noise in answers is as wide as `2^84·B`, which a share without smudging would fail.
#[test]
fn answers_are_smudged() {
    let geometry = conv([2, 32, 32], 4, 3, 1, [1; 4]);
    let layer = LayerShape { geometry: &geometry, width: 32 };
    let cluster = Cluster::new(&[layer], 3);
    let plan = cluster.plan(&geometry, 32);
    let weights = prepared(&plan, &uniform(&mut rng(1), geometry.weights(), 32)).unwrap();
    let run = cluster.run(&plan, &weights, 32);
    let set = cluster.parameters.set();
    let scale: BigUint = set.primes.iter().skip(1).product();
    let bound: BigUint = smudging_bound(&noise_bound(layer, 3).unwrap()) / scale;
    let bound = i64::try_from(bound).unwrap();
    assert!(bound > 1 << 12, "too coarse to measure");

    let noise = answer_noise(&cluster, &plan, &run.c1s, &run.s[0], &run.answers[0]);
    assert_eq!(noise.len(), 4096);
    let widest = noise.iter().map(|e| e.abs()).max().unwrap();
    println!("smudging: widest of 4096 is {:.4} of its bound", widest as f64 / bound as f64);
    assert!(is_smudged(&noise, bound));
    // The same share without noise, and with noise half as wide.
    assert!(!is_smudged(&vec![0; noise.len()], bound));
    assert!(!is_smudged(&noise.iter().map(|e| e / 2).collect::<Vec<_>>(), bound));
}

/// With the input's `c1` known, a bare product gives the weights away; with an encryption of zero it does not.
#[test]
fn c1_hides_the_weights() {
    let (geometry, width) = (dense(90, 60), 20);
    let cluster = Cluster::new(&[LayerShape { geometry: &geometry, width }], 2);
    let plan = cluster.plan(&geometry, width);
    let weights = prepared(&plan, &uniform(&mut rng(1), geometry.weights(), width)).unwrap();
    let masks = [1, 2].map(|k| uniform(&mut rng(k), plan.inputs(), 32));
    let encrypted = cluster.encrypt(&plan, &masks);
    let ring = cluster.parameters.ring();

    // Σ Enc(r^j), c1 only: the second polynomial of each message.
    let size = cluster.parameters.polynomial_len();
    let read = |bytes: &[u8]| wire::read_polynomial("c1", ring, bytes).unwrap();
    let input = &read(&encrypted[0][size..]) + &read(&encrypted[1][size..]);
    // Coefficients of c1_out/c1_in that are as small as weights.
    let small = |output: &Poly| {
        let flat = residues(output).unwrap().iter().zip(residues(&input).unwrap());
        let ratio = flat.enumerate().map(|(k, (&c, &r))| {
            let m = &ring.moduli()[k / DEGREE];
            m.mul(c, m.inv(r).unwrap())
        });
        let mut ratio = ring.polynomial(ratio.collect(), Representation::Ntt).unwrap();
        ratio.change_representation(Representation::PowerBasis);
        let m = *ring.moduli()[0];
        residues(&ratio).unwrap()[..DEGREE].iter().filter(|&&x| x.min(m - x) < 1 << width).count()
    };
    assert_eq!(small(&weights.bare_product(0, &encrypted).unwrap()[1]), DEGREE);
    let (_, first) = weights.multiply(&cluster.key, &encrypted, &[4; 32]).unwrap();
    let (_, second) = weights.multiply(&cluster.key, &encrypted, &[5; 32]).unwrap();
    assert_eq!(small(&read(&first)), 0);
    // Nor does the same product of the same ciphertexts look the same twice.
    let (first, second) = (read(&first), read(&second));
    let pairs = residues(&first).unwrap().iter().zip(residues(&second).unwrap());
    assert_eq!(pairs.filter(|(a, b)| a == b).count(), 0);
}

/// The `fhe` crate encrypts under our common key what our shares decrypt: same scheme, same scaling.
#[test]
fn agrees_with_fhe() {
    let geometry = dense(8192, 1);
    let cluster = Cluster::new(&[LayerShape { geometry: &geometry, width: 2 }], 2);
    let set = cluster.parameters.set();
    let parameters = BfvParametersBuilder::new()
        .set_degree(DEGREE)
        .set_plaintext_modulus(1 << 32)
        .set_moduli(set.primes)
        .build_arc()
        .unwrap();
    let [p0, p1] = cluster.key.polynomials();
    let context = parameters.context_at_level(0).unwrap();
    let import = |p: &Poly| {
        let values = residues(p).unwrap().to_vec();
        fhe_math::rq::traits::TryConvertFrom::try_convert_from(values, context, false, Representation::Ntt)
    };
    let import = |p: &Poly| -> Poly { import(p).unwrap() };
    // A public key's protobuf: field 1, length-delimited, is the ciphertext (e - a·s, a).
    let ciphertext = Ciphertext::new(vec![import(p0), import(p1)], &parameters).unwrap();
    let ciphertext = fhe_traits::Serialize::to_bytes(&ciphertext);
    let mut bytes = vec![0x0a];
    let mut length = ciphertext.len();
    while length >= 128 {
        bytes.push(length as u8 | 128);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(ciphertext);
    let key = fhe::bfv::PublicKey::from_bytes(&bytes, &parameters).unwrap();

    let message: Vec<u64> = uniform(&mut rng(4), DEGREE, 32).into_iter().map(u64::from).collect();
    let plaintext = Plaintext::try_encode(&message, Encoding::poly(), &parameters).unwrap();
    let mut seeded = rng(6);
    let theirs = key.try_encrypt(&plaintext, &mut seeded).unwrap();
    let ring = cluster.parameters.ring();
    let import = |p: &Poly| ring.polynomial(residues(p).unwrap().to_vec(), Representation::Ntt).unwrap();
    let theirs = [import(&theirs[0]), import(&theirs[1])];

    let q: BigUint = set.primes.iter().product();
    let x = decrypted(&cluster, &theirs);
    for (x, &value) in x.iter().zip(&message) {
        // Their errors are 20 wide, and so is their u: 20·(20·n·N + n·N + 1).
        assert!(distance(x, value as u32, &q) < BigUint::from(20u32 * (21 * 2 * 8192 + 1)));
    }
}
