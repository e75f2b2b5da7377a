//! What all servers but one can tell together (sections 1, 5 and 6 of PROTOCOL.md).
//!
//! The coalition has every view but the honest server's: deltas, labels, masks, shares, messages. All that labels tell
//! about a wire is its masked value, and all that an opened word tells is the word; the best guess of what lies under
//! a mask is made with the parts of the mask that the coalition has.

use super::*;
use crate::convert::bit;

const TRIALS: usize = 10_000;
const SHAPE: ReluShape = ReluShape { width: 12, shift: 4, mask_width: 12 };

/// How the protocol is broken on purpose.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    Nothing,
    /// The honest server's bits of `ρ` are known (as if it had drawn none).
    Rho,
    /// The honest garbler's projections are sent in clear.
    Projection,
}

/// Rates of right guesses: of bit 0 of `z`, of the sign, of bit 0 of the answer, and of bit 0 of `z >> f` from the
/// entry of a projection that the evaluator should not open. `honest` is a seat.
fn rates(garblers: usize, honest: Option<usize>, broken: Broken) -> [f64; 4] {
    let hash = FixedKey::new([4; 16]);
    let rng = &mut ChaCha20Rng::seed_from_u64(17);
    let mut run = prepare(SHAPE, batch(SHAPE, garblers, TRIALS), 23, &hash);
    if broken == Broken::Projection {
        run.projection
            .iter_mut()
            .enumerate()
            .filter(|&(g, _)| Some(g) == honest)
            .for_each(|(_, p)| p.slice_mut().fill(0));
    }
    let z: Vec<u32> = (0..TRIALS).map(|_| rng.next_u32() & low(SHAPE.width)).collect();
    let r: Vec<Vec<u32>> = (0..=garblers).map(|_| random_words(TRIALS, rng)).collect();
    let coalition = |seat: usize| Some(seat) != honest;
    let words = TRIALS.div_ceil(64);

    let known_rho = |lane: usize| {
        let part = |(seat, planes): (usize, &Vec<u64>)| {
            if coalition(seat) || broken == Broken::Rho { bit(&planes[..words], lane) } else { 0 }
        };
        run.rho.iter().enumerate().map(part).fold(0, |sum, bit| sum ^ bit)
    };
    let known_rho: Vec<u32> = (0..TRIALS).map(known_rho).collect();
    let known_mask = |lane: usize| {
        let garblers = run.masks.iter().enumerate().filter(|&(seat, _)| coalition(seat));
        garblers.map(|(_, planes)| bit(&planes[..words], lane)).fold(0, |sum, bit| sum ^ bit)
    };
    let known_mask: Vec<u32> = (0..TRIALS).map(known_mask).collect();
    let projection: Vec<_> = run.projection.iter().map(|pads| pads.all().to_words()).collect();
    let (shares, batch) = (run.shares.clone(), run.batch.clone());
    let outcome = finish(run, &z, &r, &hash);

    // The evaluator takes the entry with the other sign: its own and the coalition's garblers' terms in clear, the
    // honest garbler's under the pads of the labels that it has.
    let mut flipped = Zeroizing::new(outcome.masked.planes().to_vec());
    flipped[..words].iter_mut().for_each(|word| *word ^= u64::MAX);
    let flipped = MaskedBits::new(flipped);
    let mut difference = vec![0u32; TRIALS];
    for (masked, sign) in [(&outcome.masked, 1u32), (&flipped, 1u32.wrapping_neg())] {
        let entry =
            |lane| (bit(&masked.planes()[..words], lane) + 2 * bit(&masked.planes()[words..], lane)) as usize;
        // The evaluator's own r is in clear too.
        let none = Mask::new(Zeroizing::new(vec![0; TRIALS]));
        let mut sum = shares[garblers].answers_at(outcome.m.all(), masked).less(none.all()).unwrap();
        let chosen = projection::Chosen::new(masked, 2, TRIALS, SHAPE.mask_width);
        for g in 0..garblers {
            let answers = shares[g].answers(outcome.m.all(), mask(&r[g]).all());
            if coalition(g) {
                for (lane, sum) in sum.slice_mut().iter_mut().enumerate() {
                    *sum = sum.wrapping_add(answers.slice()[entry(lane) * TRIALS + lane]);
                }
                continue;
            }
            let mut message = Vec::new();
            projection::close(&answers, &projection[g], TRIALS, SHAPE.mask_width, &mut message);
            let pads = match broken {
                Broken::Projection => projection::EntryPads::of(Zeroizing::new(vec![0; TRIALS])),
                _ => projection::evaluator_pads(&batch, g, &outcome.labels[g], &chosen, &hash),
            };
            projection::open(&message, &chosen, &pads, &mut sum);
        }
        difference.iter_mut().zip(sum.slice()).for_each(|(d, s)| *d = d.wrapping_add(sign.wrapping_mul(*s)));
    }

    let rate = |right: &dyn Fn(usize) -> bool| {
        (0..TRIALS).filter(|&lane| right(lane)).count() as f64 / TRIALS as f64
    };
    let negative = |lane: usize| z[lane] >> (SHAPE.width - 1) & 1;
    let answer = |lane: usize| if negative(lane) == 1 { 0 } else { z[lane] >> SHAPE.shift };
    let known_r = |lane: usize| {
        let parts = r.iter().enumerate().filter(|&(seat, _)| coalition(seat));
        parts.fold(0u32, |sum, (_, r)| sum.wrapping_add(r[lane]))
    };
    [
        rate(&|lane| (outcome.m.slice()[lane] ^ known_rho[lane]) & 1 == z[lane] & 1),
        rate(&|lane| {
            let u = bit(&outcome.masked.planes()[..words], lane) ^ known_mask[lane];
            u ^ (outcome.m.slice()[lane] >> (SHAPE.width - 1) & 1) == negative(lane)
        }),
        rate(&|lane| outcome.value[lane].wrapping_add(known_r(lane)) & 1 == answer(lane) & 1),
        rate(&|lane| difference[lane] & 1 == z[lane] >> SHAPE.shift & 1),
    ]
}

fn is_a_coin_toss(rate: f64) -> bool {
    (0.48..=0.52).contains(&rate)
}

/// All but one garbler, the evaluator among them: everything under a mask stays a coin toss.
#[test]
fn all_but_one_garbler_learn_nothing() {
    for garblers in 1..=3 {
        for honest in 0..garblers {
            let rates = rates(garblers, Some(honest), Broken::Nothing);
            assert!(
                rates.iter().all(|&rate| is_a_coin_toss(rate)),
                "{garblers} garblers, honest {honest}: {rates:?}"
            );
        }
    }
}

/// All garblers, with an honest evaluator: `m` is masked by its `ρ`, `x - r` by its `r`.
#[test]
fn all_garblers_learn_nothing() {
    for garblers in 1..=3 {
        let [value, _, answer, _] = rates(garblers, Some(garblers), Broken::Nothing);
        assert!(is_a_coin_toss(value) && is_a_coin_toss(answer), "{garblers} garblers: {value} {answer}");
    }
}

/// The harness can fail: with nobody honest everything is read; `ρ` without one server's bits gives away the value,
/// and a projection in clear the answer whatever its sign.
#[test]
fn broken_variants_are_read_in_every_trial() {
    for garblers in 1..=3 {
        assert_eq!(rates(garblers, None, Broken::Nothing), [1.0; 4], "all together");
        for honest in 0..=garblers {
            assert_eq!(rates(garblers, Some(honest), Broken::Rho)[0], 1.0, "ρ without one server's bits");
        }
        for honest in 0..garblers {
            assert_eq!(rates(garblers, Some(honest), Broken::Projection)[3], 1.0, "projection in clear");
        }
    }
}
