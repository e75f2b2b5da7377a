//! What the noise bound and the smudging noise promise, measured with every key in hand.

use fhe::bfv::{BfvParametersBuilder, Ciphertext, Encoding, Plaintext};
use fhe_math::rq::{Poly, Representation};
use fhe_traits::{DeserializeParametrized, FheEncoder, FheEncrypter};
use num_bigint::BigUint;

use super::*;
use crate::layer::flooded;
use crate::parameters::DEGREE;
use crate::ring::residues;
use crate::{smudging_bound, wire};

/// `c0 + Σ_j sk_j·c1` as integers modulo `q'`. `c0` as coefficients, `c1` in NTT form.
fn decrypted(cluster: &Cluster, [c0, c1]: &[Poly; 2]) -> Vec<BigUint> {
    let mut sum = c0.clone();
    for keys in &cluster.keys {
        sum += &*keys.secret().apply(c1);
    }
    Vec::from(&sum)
}

/// `|x - q·m/t|`, centred modulo `q`, rounded up.
fn distance(x: &BigUint, value: u32, q: &BigUint) -> BigUint {
    let up = ((x + q) - ((q * value) >> 32u32)) % q;
    let down = q - &up + 1u32;
    up.min(down)
}

/// `q'`.
fn kept(cluster: &Cluster) -> BigUint {
    cluster.parameters.set().primes[..2].iter().product()
}

fn log2(x: &BigUint) -> f64 {
    x.to_string().parse::<f64>().unwrap().log2()
}

/// The widest noise of a layer's product after the switch, all weights equal to `weight`, and its bound.
fn measured(geometry: &Geometry, width: u32, servers: usize, weight: u32) -> (BigUint, BigUint) {
    let layer = LayerShape { geometry, width };
    let cluster = Cluster::new(&[layer], servers);
    let plan = cluster.plan(geometry, width);
    let values = vec![weight; geometry.weights()];
    let weights = prepared(&plan, &values).unwrap();
    let masks: Vec<_> = (0..servers).map(|k| uniform(&mut rng(k as u64), plan.inputs(), 32)).collect();
    let encrypted = cluster.encrypt(&plan, &masks);
    let (product, _) = cluster.multiply(&weights, &encrypted, [4; 32]);
    let expected = reference(geometry, width, &values, &sum(&masks));
    let mut worst = BigUint::from(0u32);
    for (k, ciphertext) in product.ciphertexts().iter().enumerate() {
        let x = decrypted(&cluster, ciphertext);
        for (output, coefficient) in plan.packing().outputs(k) {
            worst = worst.max(distance(&x[coefficient], expected[output], &kept(&cluster)));
        }
    }
    (worst, plan.noise_bound().clone())
}

/// With all weights at their extreme, so that only the noise itself is random.
#[test]
fn ciphertext_noise_stays_below_its_bound() {
    for (geometry, width, servers) in shapes() {
        let (worst, bound) = measured(&geometry, width, servers, 1 << (width - 1));
        println!(
            "{geometry:?}, {width} bits, n = {servers}: noise 2^{:.1} measured, 2^{:.1} at worst",
            log2(&worst),
            log2(&bound)
        );
        assert!(worst <= bound);
        // The bound is a worst case, not fantasy: random noise of n·N terms stays near its square root, and a
        // layer of one output is one try.
        assert!(log2(&bound) - log2(&worst) < 16.0);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 16, ..Default::default() })]
    #[test]
    fn noise_of_any_layer_stays_below_its_bound(
        kind in 0..3,
        (inputs, outputs) in (1usize..1200, 1usize..600),
        (channels, size, kernels, kernel) in (1usize..20, 5usize..20, 1usize..20, 1usize..6),
        width in 1u32..=32,
        servers in 2usize..=8,
        weight: u32,
    ) {
        let geometry = match kind {
            0 => super::dense(inputs, outputs),
            1 => conv([channels, size, size], kernels, kernel, 1, [0; 4]),
            // As many kernels for each channel of its own.
            _ => Geometry::Conv(Conv {
                input: [channels * kernels, size, size],
                channels: channels * kernels * (1 + outputs % 2),
                kernel: [kernel; 2],
                stride: [1 + inputs % 2; 2],
                pads: [1; 4],
                dilation: [1 + inputs % 3; 2],
                groups: channels * kernels,
            }),
        };
        proptest::prop_assume!(geometry.check().is_ok());
        let (worst, bound) = measured(&geometry, width, servers, weight >> (32 - width));
        proptest::prop_assert!(worst <= bound, "{} > {}", worst, bound);
    }
}

/// The noise before the switch is within its own bound, which the one after it is made of: with weights of 32 bits it
/// is far above what the switch's rounding adds.
#[test]
fn product_noise_stays_below_its_bound() {
    let (geometry, width, servers) = (dense(256, 100), 32, 3);
    let cluster = Cluster::new(&[LayerShape { geometry: &geometry, width }], servers);
    let plan = cluster.plan(&geometry, width);
    let values = vec![1 << 31; geometry.weights()];
    let weights = prepared(&plan, &values).unwrap();
    let masks: Vec<_> = (0..3).map(|k| uniform(&mut rng(k), plan.inputs(), 32)).collect();
    let encrypted = cluster.encrypt(&plan, &masks);
    let expected = reference(&geometry, width, &values, &sum(&masks));
    let whole: BigUint = cluster.parameters.set().primes.iter().product();
    let mut worst = BigUint::from(0u32);
    for k in 0..plan.output_ciphertexts() {
        let [c0, c1] = weights.bare_product(k, &cluster.keys[0], &OCCASION, &encrypted).unwrap();
        // c0 + Σ_j sk_j·c1: `mask` takes the product off.
        let mut sum = Poly::clone(&c0);
        for keys in &cluster.keys {
            keys.secret().mask(&mut sum, -&c1);
        }
        sum.change_representation(Representation::PowerBasis);
        let x: Vec<BigUint> = Vec::from(&sum);
        for (output, coefficient) in plan.packing().outputs(k) {
            worst = worst.max(distance(&x[coefficient], expected[output], &whole));
        }
    }
    let bound = crate::noise::product_bound(plan.packing().weights_per_output(), width, servers) >> 1;
    println!("before the switch: noise 2^{:.1} measured, 2^{:.1} at worst", log2(&worst), log2(&bound));
    assert!(worst <= bound && log2(&bound) - log2(&worst) < 16.0);
    assert!(log2(&worst) > 30.0, "it is the product's noise that was measured");
}

/// A number modulo `q'`, centred, from its residues.
fn centred(cluster: &Cluster, residues: [u64; 2]) -> i128 {
    let [p1, p2, _] = cluster.parameters.set().primes.map(u128::from);
    let m2 = &cluster.parameters.ring().kept().moduli()[1];
    let inverse = m2.inv(m2.reduce(p1 as u64)).unwrap();
    let [x1, x2] = residues;
    let x = u128::from(x1) + p1 * u128::from(m2.mul(m2.sub(x2, m2.reduce(x1)), inverse));
    if x > p1 * p2 / 2 { x as i128 - (p1 * p2) as i128 } else { x as i128 }
}

/// The smudging noise in what server 1 answers, modulo `q'`: what is left when `sk·c1` is taken off.
fn answer_noise(cluster: &Cluster, plan: &LinearPlan, c1s: &[u8], s: &[u32], answer: &[u8]) -> Vec<i128> {
    let ring = cluster.parameters.ring();
    let secret = cluster.keys[1].secret();
    let (mut out, mut start) = (Vec::new(), 0);
    for (k, bytes) in c1s.chunks(wire::polynomial_len(ring.kept())).enumerate() {
        let c1 = wire::read_polynomial("c1", ring.kept(), bytes).unwrap();
        let flooded = flooded(secret, plan, k, &c1, &seed(5, 1)).unwrap();
        // What was sent is these numbers, switched, and the share.
        let count = plan.packing().output_count(k);
        let end = start + wire::packed_len(count, ring.answer_bits());
        let mut sent = Vec::new();
        let format = (count, ring.answer_bits(), 1 << ring.answer_bits());
        wire::unpack("answer", &answer[start..end], format, &mut sent).unwrap();
        start = end;
        let product = secret.apply(&c1);
        let product = residues(&product).unwrap();
        for (((output, coefficient), flooded), sent) in
            plan.packing().outputs(k).zip(flooded.iter()).zip(sent)
        {
            let opened = ring.answer_reduced(sent + ring.answer_scaled(s[output]));
            assert_eq!(opened, ring.switch(*flooded), "what is measured is what is sent");
            let bare = [product[coefficient], product[DEGREE + coefficient]];
            let noise = [0, 1].map(|i| ring.kept().moduli()[i].sub(flooded[i], bare[i]));
            out.push(centred(cluster, noise));
        }
    }
    out
}

/// Whether noise is as wide as smudging must be, and flat.
fn is_smudged(noise: &[i128], bound: i128) -> bool {
    let widest = noise.iter().map(|e| e.abs()).max().unwrap_or(0);
    let mut bins = [0usize; 8];
    for e in noise {
        bins[((e + bound).max(0) / (bound / 4 + 1)).min(7) as usize] += 1;
    }
    let (mean, slack) = (noise.len() / 8, 5.0 * (noise.len() as f64 / 8.0).sqrt());
    widest <= bound
        && widest / 99 >= bound / 100
        && bins.iter().all(|&b| (b as f64 - mean as f64).abs() < slack)
}

/// The noise in answers is as wide as `2^70·B` with `B` the worst case after the switch, which a share without
/// smudging would fail.
#[test]
fn answers_are_smudged() {
    for (width, servers) in [(20, 2), (32, 3), (20, 8)] {
        let geometry = conv([2, 32, 32], 4, 3, 1, [1; 4]);
        let layer = LayerShape { geometry: &geometry, width };
        let cluster = Cluster::new(&[layer], servers);
        let plan = cluster.plan(&geometry, width);
        let weights = prepared(&plan, &uniform(&mut rng(1), geometry.weights(), width)).unwrap();
        let run = cluster.run(&plan, &weights, 32);
        let bound = i128::try_from(smudging_bound(plan.noise_bound())).unwrap();
        // From the specification, not from the code.
        assert!(bound >= (1i128 << 70) * (1 + servers as i128 * 8192) / 2);

        let noise = answer_noise(&cluster, &plan, &run.c1s, &run.s[0], &run.answers[0]);
        assert_eq!(noise.len(), 4096);
        let widest = noise.iter().map(|e| e.abs()).max().unwrap();
        println!("smudging: widest of 4096 is {:.4} of its bound", widest as f64 / bound as f64);
        assert!(is_smudged(&noise, bound));
        // The same share without noise, and with noise half as wide.
        assert!(!is_smudged(&vec![0; noise.len()], bound));
        assert!(!is_smudged(&noise.iter().map(|e| e / 2).collect::<Vec<_>>(), bound));
    }
}

/// With `a` known, a bare product gives the weights away; with an encryption of zero it does not.
#[test]
fn c1_hides_the_weights() {
    let (geometry, width) = (dense(90, 60), 20);
    let cluster = Cluster::new(&[LayerShape { geometry: &geometry, width }], 2);
    let plan = cluster.plan(&geometry, width);
    let values = uniform(&mut rng(1), geometry.weights(), width);
    let weights = prepared(&plan, &values).unwrap();
    let masks = [1, 2].map(|k| uniform(&mut rng(k), plan.inputs(), 32));
    let encrypted = cluster.encrypt(&plan, &masks);
    let ring = cluster.parameters.ring();
    assert_eq!(plan.input_ciphertexts(), 1);
    let a = cluster.keys[1].common(&OCCASION, 0).unwrap();

    // Coefficients of `c1/a` modulo `q'` that are as small as weights. What leaves the holder was divided by `p_3`:
    // without noise, multiplying by it again undoes that up to the rounding, which is noise of its own; so the attack
    // is on the product as it was before the switch, too, when it has the encryption of zero.
    let small = |output: &Poly| {
        let flat = residues(output).unwrap().iter().zip(residues(&a).unwrap());
        let ratio = flat.enumerate().map(|(k, (&c, &r))| {
            let m = &ring.whole().moduli()[k / DEGREE];
            m.mul(c, m.inv(r).unwrap())
        });
        let mut ratio = ring.whole().polynomial(ratio.collect(), Representation::Ntt).unwrap();
        ratio.change_representation(Representation::PowerBasis);
        let m = *ring.whole().moduli()[0];
        residues(&ratio).unwrap()[..DEGREE].iter().filter(|&&x| x.min(m - x) < 1 << width).count()
    };
    let bare = weights.bare_product(0, &cluster.keys[0], &OCCASION, &encrypted).unwrap();
    assert_eq!(small(&bare[1]), DEGREE);
    let seeded = |seed| {
        let mut rng = rng(seed);
        let made =
            weights.rerandomised_product(0, &cluster.keys[0], &OCCASION, &encrypted, &mut rng).unwrap();
        let mut c1 = made[1].clone();
        c1.change_representation(Representation::Ntt);
        c1
    };
    assert_eq!(small(&seeded(1)), 0);

    // What is sent does not look the same twice for the same product of the same ciphertexts, and is nowhere near a
    // bare product that is switched.
    let read = |bytes: &[u8]| wire::read_polynomial("c1", ring.kept(), bytes).unwrap();
    let sent = |seed| read(&cluster.multiply(&weights, &encrypted, [seed; 32]).1);
    let mut switched = bare[1].clone();
    switched.change_representation(Representation::PowerBasis);
    ring.drop_prime(&mut switched).unwrap();
    let sent = [4, 5].map(|seed| {
        let mut c1 = sent(seed);
        c1.change_representation(Representation::PowerBasis);
        c1
    });
    for (a, b) in [(&sent[0], &sent[1]), (&sent[0], &switched), (&sent[1], &switched)] {
        let pairs = residues(a).unwrap().iter().zip(residues(b).unwrap());
        assert_eq!(pairs.filter(|(a, b)| a.abs_diff(**b) < 1 << 32).count(), 0);
    }
}

/// Small coefficients of a polynomial modulo `Q` in NTT form.
fn coefficients(cluster: &Cluster, polynomial: &Poly) -> Vec<i64> {
    let mut polynomial = polynomial.clone();
    polynomial.change_representation(Representation::PowerBasis);
    let m = *cluster.parameters.ring().whole().moduli()[0];
    let row = &residues(&polynomial).unwrap()[..DEGREE];
    row.iter().map(|&x| if x > m / 2 { x as i64 - m as i64 } else { x as i64 }).collect()
}

/// Whether these are errors, the sums of `parts` of the scheme's distribution.
fn are_errors(values: &[i64], parts: usize) -> bool {
    let variance = values.iter().map(|&e| (e * e) as f64).sum::<f64>() / values.len() as f64;
    let expected = 10.5 * parts as f64;
    values.iter().all(|e| e.unsigned_abs() <= 21 * parts as u64) && (variance / expected - 1.0).abs() < 0.08
}

/// An error is in everything that would be a linear equation without it: encrypted masks, the public key, and the
/// `c1` of the encryption of zero.
#[test]
fn nothing_leaves_without_an_error() {
    let (geometry, width) = (dense(90, 60), 20);
    let cluster = Cluster::new(&[LayerShape { geometry: &geometry, width }], 2);
    let plan = cluster.plan(&geometry, width);
    let (ring, keys) = (cluster.parameters.ring(), &cluster.keys[0]);
    let whole = ring.whole();
    let masks = [1, 2].map(|k| uniform(&mut rng(k), plan.inputs(), 32));
    let encrypted = cluster.encrypt(&plan, &masks);
    let a = keys.common(&OCCASION, 0).unwrap();
    let mut errors = Vec::new();
    for ((keys, mask), bytes) in cluster.keys.iter().zip(&masks).zip(&encrypted) {
        // c0 + a·sk - round(Q·r/t).
        let mut rest = wire::read_polynomial("c0", whole, bytes).unwrap();
        keys.secret().mask(&mut rest, -&a);
        rest -= &*ring.encoded(&[0; DEGREE], &plan.packing().input(0, mask)).unwrap();
        errors.push(coefficients(&cluster, &rest));
        assert!(are_errors(&errors[errors.len() - 1], 1));
    }
    assert_ne!(errors[0], errors[1]);
    assert!(!are_errors(&[0; DEGREE], 1) && !are_errors(&[1; DEGREE], 1));

    let [p0, p1] = keys.public().polynomials().map(|p| {
        let mut p = p.clone();
        p.change_representation(Representation::Ntt);
        p
    });
    let mut rest = p0;
    cluster.keys.iter().for_each(|keys| keys.secret().mask(&mut rest, -&p1));
    assert!(are_errors(&coefficients(&cluster, &rest), 2));

    // The same product with and without its encryption of zero, from the same generator.
    let weights = prepared(&plan, &uniform(&mut rng(1), geometry.weights(), width)).unwrap();
    let bare = weights.bare_product(0, keys, &OCCASION, &encrypted).unwrap();
    let made = weights.rerandomised_product(0, keys, &OCCASION, &encrypted, &mut rng(1)).unwrap();
    let zero = keys.public().encrypt_zero(whole, &mut rng(1)).unwrap();
    for ((made, bare), product) in made.iter().zip(&bare).zip(&zero.products) {
        let mut rest = made.clone();
        rest.change_representation(Representation::Ntt);
        rest -= bare;
        rest -= product;
        assert!(are_errors(&coefficients(&cluster, &rest), 1));
    }
}

/// No two ciphertexts of a key set have the same common polynomial, nor do two key sets, nor the public key.
#[test]
fn common_polynomials_never_repeat() {
    let geometry = dense(1, 1);
    let (parameters, _) = Parameters::select(&[LayerShape { geometry: &geometry, width: 1 }], 2).unwrap();
    let mut seen = std::collections::HashSet::new();
    let mut note = |polynomial: &Poly| {
        let values = residues(polynomial).unwrap();
        assert!(seen.insert(values[..4].to_vec()), "a common polynomial came twice");
    };
    for (setup, number) in [([1; 32], 0), ([1; 32], 1), ([2; 32], 0)] {
        let keys = Cluster::keys(&parameters, KeySetName { setup, number }).remove(0);
        let [_, p1] = keys.public().polynomials();
        note(p1);
        for (bundle, layer) in [([0; 16], 0), ([0; 16], 1), ([1; 16], 0), ([1; 16], 256)] {
            (0..3).for_each(|index| note(&keys.common(&Occasion { bundle, layer }, index).unwrap()));
        }
    }
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
        .set_moduli(&set.primes)
        .build_arc()
        .unwrap();
    let [p0, p1] = cluster.keys[0].public().polynomials();
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
    let import = |p: &Poly, form| {
        let mut p = ring.whole().polynomial(residues(p).unwrap().to_vec(), Representation::Ntt).unwrap();
        p.change_representation(Representation::PowerBasis);
        ring.drop_prime(&mut p).unwrap();
        p.change_representation(form);
        p
    };
    let theirs = [import(&theirs[0], Representation::PowerBasis), import(&theirs[1], Representation::Ntt)];

    let x = decrypted(&cluster, &theirs);
    for (x, &value) in x.iter().zip(&message) {
        // Their errors, 20 wide, and so is their u, are nothing after the switch: its own rounding is left.
        assert!(distance(x, value as u32, &kept(&cluster)) < BigUint::from(1u32 + 8192 + 2));
    }
}
