//! What garblers draw and tell (`protocol.md` section 5).

use super::*;
use crate::batch::TILE;

/// Whole tiles, so that rows of choice bits have no padding.
const LANES: usize = 80 * TILE;

/// Plane number `row` of a garbler's choice bits, of which there are `rows`, stored tile by tile.
fn plane(choices: &[u64], rows: usize, row: usize) -> Vec<u64> {
    let words = TILE / 64;
    choices.chunks(rows * words).flat_map(|tile| tile[row * words..][..words].to_vec()).collect()
}

fn agreement(a: &[u64], b: &[u64]) -> f64 {
    let equal: u32 = a.iter().zip(b).map(|(a, b)| (a ^ b).count_zeros()).sum();
    f64::from(equal) / (a.len() * 64) as f64
}

/// Every choice bit is a fair coin, and no two wires or gates have the same: masks of inputs, masks of
/// ANDs, second choice bits.
#[test]
fn choice_bits_are_fair_and_independent() {
    let hash = FixedKey::new([4; 16]);
    for servers in [3, 4] {
        let shape = ReluShape { width: 6, shift: 2, mask_width: 6 };
        let run = prepare(shape, batch(shape, servers - 1, LANES), 31, &hash);
        let mut planes = Vec::new();
        for choices in &run.choices {
            let rows = run.batch.correlation_rows();
            assert_eq!(choices.len(), rows * LANES / 64);
            planes.extend((0..rows).map(|row| plane(choices, rows, row)));
        }
        assert!(planes.len() > 2 * run.batch.garblers * run.batch.program.ands);
        // Six standard deviations.
        let slack = 6.0 * 0.5 / (LANES as f64).sqrt();
        let zero = vec![0; LANES / 64];
        for (i, plane) in planes.iter().enumerate() {
            for (j, other) in planes[..i].iter().chain([&zero]).enumerate() {
                let rate = agreement(plane, other);
                assert!((rate - 0.5).abs() < slack, "n={servers}: rows {i} and {j} agree in {rate}");
            }
        }
    }
}
