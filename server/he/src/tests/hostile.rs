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

/// The error is about message number `position`, or about a single one.
fn refused<T>(result: Result<T, Error>, position: Option<usize>, what: &'static str) {
    let result = match (result, position) {
        (Err(Error::Message { position: named, source }), Some(position)) => {
            assert_eq!(named, position);
            Err(*source)
        }
        (result, None) => result,
        (_, Some(_)) => panic!("no message is blamed"),
    };
    match result {
        Err(Error::Length { what: named, .. } | Error::Residue(named)) => assert_eq!(named, what),
        Err(other) => panic!("wrong error: {other}"),
        Ok(_) => panic!("a malformed {what} was accepted"),
    }
}

#[test]
fn malformed_messages() {
    let (mut cluster, geometry) = setting();
    let plan = cluster.plan(&geometry, 20);
    let weights = prepared(&plan, &uniform(&mut rng(1), geometry.weights(), 20)).unwrap();
    let run = cluster.run(&plan, &weights, 32);

    let name = KeySetName { setup: SETUP, number: 7 };
    let drafts = Cluster::drafts(&cluster.parameters, name);
    for bad in mutations(drafts[1].share()) {
        match drafts[0].check(1, drafts[1].opening(), &bad) {
            Err(Error::Length { what: "public key share", .. } | Error::Commitment) => {}
            other => panic!("a malformed share: {other:?}"),
        }
        let shares = [drafts[0].share().to_vec(), bad, drafts[2].share().to_vec()];
        let openings = [0, 1, 2].map(|j| drafts[j].opening().to_vec());
        let draft = Cluster::drafts(&cluster.parameters, name).remove(0);
        refused(draft.finish(&openings, &shares), None, "public key share");
    }
    for bad in mutations(drafts[1].opening()) {
        match drafts[0].check(1, &bad, drafts[1].share()) {
            Err(Error::Length { what: "key opening", .. } | Error::Commitment) => {}
            other => panic!("a malformed opening: {other:?}"),
        }
    }
    for bad in mutations(&run.encrypted[1]) {
        let encrypted = [run.encrypted[0].clone(), bad, run.encrypted[2].clone()];
        let made = weights.multiply(&cluster.keys[0], &OCCASION, &encrypted, &[4; 32]);
        refused(made, Some(1), "encrypted mask");
    }
    for bad in mutations(&run.c1s) {
        cluster.renew();
        refused(cluster.answer(1, &plan, &bad, &run.s[0]), Some(0), "product c1");
    }
    for bad in mutations(&run.answers[1]) {
        let (product, _) = cluster.multiply(&weights, &run.encrypted, [4; 32]);
        match product.finish(&cluster.keys[0], &[run.answers[0].clone(), bad]) {
            Err(Error::Message { position: 1, source }) => {
                assert!(matches!(*source, Error::Length { what: "answer", .. } | Error::Residue("answer")));
            }
            // A number modulo a power of two is one whatever its bits: a wrong answer cannot be told.
            Ok(share) => assert_ne!(share, run.share),
            Err(other) => panic!("wrong error: {other}"),
        }
    }
}

/// Random residues cannot be told from good ones: they are accepted, and nothing breaks.
#[test]
fn random_messages() {
    let (mut cluster, geometry) = setting();
    let plan = cluster.plan(&geometry, 20);
    let weights = prepared(&plan, &uniform(&mut rng(1), geometry.weights(), 20)).unwrap();
    let run = cluster.run(&plan, &weights, 32);
    cluster.renew();
    let ring = cluster.parameters.ring();
    let mut values = rng(3);
    // All but the highest values of a residue are below its prime.
    let mut random = |moduli: &[fhe_math::zq::Modulus], polynomials: usize| {
        let mut out = Vec::new();
        for m in (0..polynomials).flat_map(|_| moduli) {
            let bits = crate::parameters::bits(**m);
            crate::wire::pack((0..8192).map(|_| values.next_u64() >> (65 - bits)), bits, &mut out);
        }
        out
    };
    let c1s = random(ring.kept().moduli(), plan.output_ciphertexts());
    let masks = random(ring.whole().moduli(), plan.input_ciphertexts());
    assert!(cluster.answer(1, &plan, &c1s, &run.s[0]).is_ok());
    let encrypted = [masks, run.encrypted[1].clone(), run.encrypted[2].clone()];
    assert!(weights.multiply(&cluster.keys[0], &OCCASION, &encrypted, &[4; 32]).is_ok());
    let answers = [run.answers[0].clone(), (0..plan.answer_len()).map(|k| k as u8).collect()];
    let (product, _) = cluster.multiply(&weights, &run.encrypted, [4; 32]);
    // Random bits in the padding may be refused, nothing else.
    match product.finish(&cluster.keys[0], &answers) {
        Ok(share) => assert_ne!(share, run.share),
        Err(error) => assert!(matches!(error, Error::Message { position: 1, .. })),
    }
}

/// Who sends first cannot be answered with a share chosen after his: the commitment names the server.
#[test]
fn a_share_changed_after_the_commitment_is_refused() {
    let (cluster, _) = setting();
    let name = KeySetName { setup: SETUP, number: 1 };
    let drafts = Cluster::drafts(&cluster.parameters, name);
    for (j, draft) in drafts.iter().enumerate() {
        drafts[0].check(j, draft.opening(), draft.share()).unwrap();
    }
    // A well-formed share of the same server, drawn later; its own opening; and either for another set or server.
    let later = KeyDraft::new(&cluster.parameters, name, 2, &[9; 32]).unwrap();
    let check = |server, opening: &[u8], share: &[u8]| drafts[0].check(server, opening, share);
    assert!(check(2, later.opening(), later.share()).is_ok());
    assert!(matches!(check(2, drafts[2].opening(), later.share()), Err(Error::Commitment)));
    assert!(matches!(check(2, later.opening(), drafts[2].share()), Err(Error::Commitment)));
    assert!(matches!(check(1, drafts[2].opening(), drafts[2].share()), Err(Error::Commitment)));
    let next = KeySetName { number: 2, ..name };
    let other = KeyDraft::new(&cluster.parameters, next, 2, &seed(1, 2)).unwrap();
    assert!(matches!(check(2, other.opening(), other.share()), Err(Error::Commitment)));
    // Same keys, another polynomial.
    assert_ne!(other.share(), drafts[2].share());
}

/// What a key set refuses: a second use of one occasion, more bundles, more coefficients.
#[test]
fn keys_are_used_once_and_wear_out() {
    let (mut cluster, geometry) = setting();
    let plan = cluster.plan(&geometry, 20);
    let weights = prepared(&plan, &uniform(&mut rng(1), geometry.weights(), 20)).unwrap();
    let run = cluster.run(&plan, &weights, 32);
    let keys = &cluster.keys[1];
    let encrypt = |bundle: u8, layer| {
        let occasion = Occasion { bundle: [bundle; 16], layer };
        keys.encrypt(&plan, &occasion, &run.masks[1], &[3; 32]).map(|_| ())
    };
    let again = keys.encrypt(&plan, &OCCASION, &run.masks[1], &seed(3, 1));
    assert!(matches!(again, Err(Error::Repeated("encryption"))), "with the same seed and mask");
    let again = cluster.answer(1, &plan, &run.c1s, &run.s[0]);
    assert!(matches!(again, Err(Error::Repeated("answer"))));
    // Another holder of the same layer, another layer and another bundle are other occasions.
    assert!(keys.answer(&plan, &OCCASION, (2, &run.c1s), &run.s[0], &[6; 32]).is_ok());
    assert!(encrypt(0xb0, 4).is_ok());
    for bundle in 0..63 {
        assert!(encrypt(bundle, 3).is_ok());
    }
    assert!(matches!(encrypt(63, 3), Err(Error::Exhausted { what: "bundles", limit: 64 })));
    assert!(encrypt(62, 5).is_ok(), "a bundle that began may go on");

    cluster.renew();
    let keys = &cluster.keys[1];
    let answer = |layer, coefficients| keys.record_answer(&Occasion { layer, ..OCCASION }, 0, coefficients);
    assert!(answer(1, 1 << 29).is_ok());
    assert!(answer(2, (1 << 29) - plan.outputs()).is_ok());
    assert!(cluster.answer(1, &plan, &run.c1s, &run.s[0]).is_ok(), "the last that fit");
    for more in [1, usize::MAX] {
        assert!(matches!(
            answer(4, more),
            Err(Error::Exhausted { what: "coefficients", limit: 0x4000_0000 })
        ));
    }
}

#[test]
fn misuse() {
    let (mut cluster, geometry) = setting();
    let plan = cluster.plan(&geometry, 20);
    let values = uniform(&mut rng(1), geometry.weights(), 20);
    let weights = prepared(&plan, &values).unwrap();
    let run = cluster.run(&plan, &weights, 32);
    cluster.renew();
    let keys = &cluster.keys[0];

    assert!(matches!(prepared(&plan, &values[1..]), Err(Error::Count { what: "weights", .. })));
    let mut large = values.clone();
    large[7] = 1 << 20;
    assert!(matches!(prepared(&plan, &large), Err(Error::Weight(20))));
    let short = keys.encrypt(&plan, &OCCASION, &run.masks[0][1..], &[3; 32]);
    assert!(matches!(short, Err(Error::Count { what: "mask values", .. })));
    let missing = weights.multiply(keys, &OCCASION, &run.encrypted[1..], &[4; 32]);
    assert!(matches!(missing, Err(Error::Count { what: "encrypted masks", got: 2, expected: 3 })));
    let short = cluster.answer(1, &plan, &run.c1s, &run.s[0][1..]);
    assert!(matches!(short, Err(Error::Count { what: "output shares", .. })));
    let (product, _) = cluster.multiply(&weights, &run.encrypted, [4; 32]);
    let missing = product.finish(keys, &run.answers[1..]);
    assert!(matches!(missing, Err(Error::Count { what: "answers", got: 1, expected: 2 })));
    let draft = Cluster::drafts(&cluster.parameters, KeySetName { setup: SETUP, number: 0 }).remove(0);
    let (opening, share) = (draft.opening().to_vec(), draft.share().to_vec());
    let missing = draft.finish(&[&opening, &opening, &opening], &[&share, &share]);
    assert!(matches!(missing, Err(Error::Count { what: "public key shares", got: 2, expected: 3 })));

    // A plan of another set, with polynomials of another length.
    let wide = dense(4000, 500);
    let other = Cluster::new(&[LayerShape { geometry: &wide, width: 32 }], 3);
    let foreign = other.plan(&geometry, 20);
    assert!(matches!(keys.encrypt(&foreign, &OCCASION, &run.masks[0], &[3; 32]), Err(Error::Mismatch)));
    let answer = cluster.answer(1, &foreign, &run.c1s, &run.s[0]);
    assert!(matches!(answer, Err(Error::Mismatch)));
    let foreign = weights.multiply(&other.keys[0], &OCCASION, &run.encrypted, &[4; 32]);
    assert!(matches!(foreign, Err(Error::Mismatch)));
    // A plan for which the set is too small.
    let tight = cluster.planned(LayerShape { geometry: &wide, width: 32 });
    assert!(matches!(tight, Err(Error::NoiseBudget { available: 118, .. })));

    let select = |servers, width| Parameters::select(&[LayerShape { geometry: &wide, width }], servers).err();
    assert!(matches!(select(1, 20), Some(Error::Servers(1))));
    assert!(matches!(select(9, 20), Some(Error::Servers(9))));
    for width in [0, 33] {
        let Some(Error::Layer { layer: 0, source }) = select(3, width) else { panic!("width {width}") };
        assert!(matches!(*source, Error::Width(w) if w == width));
    }
}
