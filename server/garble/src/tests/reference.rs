//! The fast kernels give what the plain formulas give.

use std::collections::VecDeque;

use super::*;
use crate::convert::bit;
use crate::garbler::reference;

#[test]
fn kernels_equal_the_formulas() {
    let hash = FixedKey::new([6; 16]);
    let shape = ReluShape { width: 6, shift: 2, mask_width: 6 };
    for garblers in 1..=3 {
        let lanes = 200;
        let batch = batch(shape, garblers, lanes);
        let program = &batch.program;
        let rng = &mut ChaCha20Rng::seed_from_u64(garblers as u64);
        let deltas: Vec<Delta> = (0..garblers).map(|_| Delta::random(rng)).collect();
        let started: Vec<Garbler> =
            (0..garblers).map(|g| Garbler::new(batch.clone(), g, rng).unwrap()).collect();
        let receiving = Evaluator::new(batch.clone(), rng).unwrap();
        let random = receiving.random().into_planes();
        let (received, keys) = between(&started, &deltas, rng);
        let (labels, zero): (Vec<_>, Vec<_>) =
            deltas.iter().map(|delta| deal(&receiving.choices(), delta, rng)).unzip();
        let ends = received.into_iter().zip(keys).zip(zero);
        let mut crossed: Vec<_> = started
            .into_iter()
            .zip(ends)
            .zip(&deltas)
            .map(|((g, ((r, k), z)), delta)| g.correlate(r, k, z).unwrap().cross(delta, &hash).0)
            .collect();
        let bits: Vec<Vec<Vec<u8>>> =
            crossed.iter_mut().map(|c| (0..garblers).map(|i| c.message(i)).collect()).collect();
        let (corrected, corrections): (Vec<_>, Vec<_>) = crossed
            .into_iter()
            .enumerate()
            .map(|(g, c)| c.correct(&bits.iter().map(|from| from[g].clone()).collect::<Vec<_>>()).unwrap())
            .unzip();

        let looked_at = [0, 1, 63, 64, 127, 128, 199];
        let lane_states: Vec<Vec<_>> = corrected
            .iter()
            .zip(&deltas)
            .map(|(c, delta)| looked_at.iter().map(|&lane| c.lane(lane, delta, &corrections)).collect())
            .collect();
        let mut folding = receiving.receive(labels.iter().map(again).collect()).unwrap();
        let mut messages = Vec::new();
        let mut online = Vec::new();
        for (g, state) in corrected.into_iter().enumerate() {
            let (garbler, _, tables) =
                state.garble(&deltas[g], &corrections, &hash, rng, Vec::new()).unwrap();
            folding.tables(g, tables.clone()).unwrap();
            messages.push(tables);
            online.push(garbler);
        }
        let public: Vec<_> = online.iter().map(OnlineGarbler::zero_labels).collect();
        let m: Vec<u32> = (0..lanes).map(|_| rng.next_u32() & low(6)).collect();
        let planes = from_lanes(&m, 6);
        let (evaluator, material) = folding.fold(&hash, Material::default()).unwrap();
        let sent = active_labels(online, &deltas, &planes, &hash);
        let evaluated = evaluator.evaluate(&material, &planes, &sent, &labels, &hash).unwrap();

        for (at, &lane) in looked_at.iter().enumerate() {
            let mut tables: VecDeque<Vec<[Block; 3]>> =
                vec![vec![[Block::ZERO; 3]; garblers]; program.ands].into();
            let mut permutation = Vec::new();
            for g in 0..garblers {
                let labels: Vec<Block> = public[g].rows().chunks(lanes).map(|row| row[lane]).collect();
                let (rows, _, bits) =
                    lane_states[g][at].garble(program, garblers, &deltas[g], &labels, &hash);
                if g == 0 {
                    permutation = bits;
                }
                for (gate, rows) in rows.chunks(garblers).enumerate() {
                    let mut place = 0;
                    let mut expect = |block: Block| {
                        let tile = lane / 128 * 128;
                        let width = 128.min(lanes - tile);
                        let row = (tile * program.ands + gate * width) * batch.rows_sent();
                        let start = (row + place * width + lane - tile) * 16;
                        assert_eq!(
                            messages[g][start..start + 16],
                            block.to_bytes(),
                            "garbler {g}, gate {gate}"
                        );
                        place += 1;
                    };
                    let target = |i: usize| (i + g) % garblers;
                    rows[0][..2].iter().for_each(|&block| expect(block));
                    let mut others: Vec<usize> = (1..garblers).collect();
                    others.sort_by_key(|&i| target(i));
                    others.iter().for_each(|&i| rows[i].iter().for_each(|&block| expect(block)));
                    for (i, row) in rows.iter().enumerate() {
                        for (sum, block) in tables[gate][target(i)].iter_mut().zip(row) {
                            *sum ^= *block;
                        }
                    }
                }
            }
            let load = |source: Source, rank: usize| match source {
                Source::Random => {
                    let active =
                        labels.iter().map(|labels| labels.blocks()[rank * batch.stride() + lane]).collect();
                    (active, bit(&random[rank * batch.words()..], lane) == 1)
                }
                Source::Public => {
                    let set = bit(&planes[rank * batch.words()..], lane) == 1;
                    let label = |g: usize| {
                        public[g].rows()[rank * lanes + lane] ^ deltas[g].block().select(reference::mask(set))
                    };
                    ((0..garblers).map(label).collect(), set)
                }
            };
            let at = (batch.step, batch.first_lane + lane as u32);
            let masked = reference::evaluate(program, at, tables, &permutation, load, &hash);
            for (output, masked) in masked.into_iter().enumerate() {
                let fast = bit(&evaluated.masked.planes()[output * batch.words()..], lane) == 1;
                assert_eq!(masked, fast, "{garblers} garblers, lane {lane}, output {output}");
            }
        }
    }
}
