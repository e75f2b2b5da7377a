//! Bytes from peers and misuse by callers end in errors.

use super::*;

fn setting() -> (Cluster, Geometry) {
    let geometry = dense(200, 90);
    (Cluster::new(&[LayerShape { geometry: &geometry, width: 20 }], 3), geometry)
}

/// A message cut, extended, emptied, and with all ones at either end: 16 bytes always hold a whole residue.
fn mutations(good: &[u8]) -> Vec<Vec<u8>> {
    let (mut low, mut high) = (good.to_vec(), good.to_vec());
    low[..16].fill(0xff);
    high[good.len() - 16..].fill(0xff);
    vec![good[..good.len() - 1].to_vec(), [good, &[0]].concat(), Vec::new(), low, high]
}

fn refused<T>(result: Result<T, Error>, what: &'static str) {
    match result {
        Err(Error::Length { what: named, .. } | Error::Residue(named)) => assert_eq!(named, what),
        Err(other) => panic!("wrong error: {other}"),
        Ok(_) => panic!("a malformed {what} was accepted"),
    }
}

#[test]
fn malformed_messages() {
    let (cluster, geometry) = setting();
    let plan = cluster.plan(&geometry, 20);
    let weights = prepared(&plan, &uniform(&mut rng(1), geometry.weights(), 20)).unwrap();
    let run = cluster.run(&plan, &weights, 32);

    let shares = cluster.shares.iter().map(|s| s.public_share(&COMMON, &[2; 32]).unwrap());
    let shares: Vec<_> = shares.collect();
    for bad in mutations(&shares[1]) {
        let shares = [shares[0].clone(), bad, shares[2].clone()];
        refused(PublicKey::combine(&cluster.parameters, &COMMON, &shares), "public key share");
    }
    for bad in mutations(&run.encrypted[1]) {
        let encrypted = [run.encrypted[0].clone(), bad, run.encrypted[2].clone()];
        refused(weights.multiply(&cluster.key, &encrypted, &[4; 32]), "encrypted mask");
    }
    for bad in mutations(&run.c1s) {
        refused(cluster.shares[1].answer(&plan, &bad, &run.s[0], &[5; 32]), "product c1");
    }
    for bad in mutations(&run.answers[1]) {
        let (product, _) = weights.multiply(&cluster.key, &run.encrypted, &[4; 32]).unwrap();
        refused(product.finish(&cluster.shares[0], &[run.answers[0].clone(), bad]), "answer");
    }
}

/// Random residues cannot be told from good ones: they are accepted, and nothing breaks.
#[test]
fn random_messages() {
    let (cluster, geometry) = setting();
    let plan = cluster.plan(&geometry, 20);
    let weights = prepared(&plan, &uniform(&mut rng(1), geometry.weights(), 20)).unwrap();
    let run = cluster.run(&plan, &weights, 32);
    let random = |bytes: &[u8]| {
        // All but the highest values of a residue are below its prime.
        let (bits, mut values) = (cluster.parameters.set().prime_bits, rng(3));
        let count = bytes.len() * 8 / bits as usize;
        let mut out = Vec::new();
        crate::wire::pack((0..count).map(|_| values.next_u64() >> (65 - bits)), bits, &mut out);
        out.resize(bytes.len(), 0);
        out
    };
    assert!(cluster.shares[1].answer(&plan, &random(&run.c1s), &run.s[0], &[5; 32]).is_ok());
    let encrypted = [random(&run.encrypted[0]), run.encrypted[1].clone(), run.encrypted[2].clone()];
    assert!(weights.multiply(&cluster.key, &encrypted, &[4; 32]).is_ok());
}

#[test]
fn misuse() {
    let (cluster, geometry) = setting();
    let plan = cluster.plan(&geometry, 20);
    let values = uniform(&mut rng(1), geometry.weights(), 20);
    let weights = prepared(&plan, &values).unwrap();
    let run = cluster.run(&plan, &weights, 32);

    assert!(matches!(prepared(&plan, &values[1..]), Err(Error::Count { what: "weights", .. })));
    let mut large = values.clone();
    large[7] = 1 << 20;
    assert!(matches!(prepared(&plan, &large), Err(Error::Weight(20))));
    let short = cluster.key.encrypt(&plan, &run.masks[0][1..], &[3; 32]);
    assert!(matches!(short, Err(Error::Count { what: "mask values", .. })));
    let missing = weights.multiply(&cluster.key, &run.encrypted[1..], &[4; 32]);
    assert!(matches!(missing, Err(Error::Count { what: "encrypted masks", got: 2, expected: 3 })));
    let short = cluster.shares[1].answer(&plan, &run.c1s, &run.s[0][1..], &[5; 32]);
    assert!(matches!(short, Err(Error::Count { what: "output shares", .. })));
    let (product, _) = weights.multiply(&cluster.key, &run.encrypted, &[4; 32]).unwrap();
    let missing = product.finish(&cluster.shares[0], &run.answers[1..]);
    assert!(matches!(missing, Err(Error::Count { what: "answers", got: 1, expected: 2 })));

    // A plan of another set, with polynomials of another length.
    let wide = dense(4000, 500);
    let other = Cluster::new(&[LayerShape { geometry: &wide, width: 32 }], 3);
    let foreign = other.plan(&geometry, 20);
    assert!(matches!(cluster.key.encrypt(&foreign, &run.masks[0], &[3; 32]), Err(Error::Mismatch)));
    let answer = cluster.shares[1].answer(&foreign, &run.c1s, &run.s[0], &[5; 32]);
    assert!(matches!(answer, Err(Error::Mismatch)));
    // A plan for which the set is too small.
    let tight = LinearPlan::new(&cluster.parameters, LayerShape { geometry: &wide, width: 32 });
    assert!(matches!(tight, Err(Error::NoiseBudget { available: 174, .. })));

    let select = |servers, width| Parameters::select(&[LayerShape { geometry: &wide, width }], servers).err();
    assert!(matches!(select(1, 20), Some(Error::Servers(1))));
    assert!(matches!(select(9, 20), Some(Error::Servers(9))));
    for width in [0, 33] {
        let Some(Error::Layer { layer: 0, source }) = select(3, width) else { panic!("width {width}") };
        assert!(matches!(*source, Error::Width(w) if w == width));
    }
}
