use super::*;
use crate::gates::{Clear, Count};
use crate::slices::{from_lanes, to_lanes};

/// Words of 64 lanes for the clear backend.
fn sliced(values: &[u32], width: usize) -> Vec<u64> {
    from_lanes(values, width)
}

fn values(seed: u32, mask: u32) -> Vec<u32> {
    let mut x = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..64)
        .map(|i| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            match i {
                0 => 0,
                1 => mask,
                2 => (mask >> 1) + 1,
                _ => x & mask,
            }
        })
        .collect()
}

fn low(width: usize) -> u32 {
    u32::MAX >> (32 - width)
}

#[test]
fn relu_equals_integer_arithmetic() {
    for (k, shift, kappa, servers) in
        [(20, 8, 20, 2), (22, 8, 26, 3), (26, 10, 16, 4), (32, 8, 32, 3), (5, 3, 9, 2)]
    {
        let shares: Vec<Vec<u32>> = (0..servers).map(|s| values(s + 1, low(k))).collect();
        let masks: Vec<Vec<u32>> = (1..servers).map(|s| values(s + 77, low(kappa))).collect();
        let out = relu(
            &mut Clear,
            &shares.iter().map(|w| sliced(w, k)).collect::<Vec<_>>(),
            &masks.iter().map(|w| sliced(w, kappa)).collect::<Vec<_>>(),
            shift,
        );
        let got = to_lanes(&out, 64);
        for lane in 0..64 {
            let sum = shares.iter().fold(0u32, |a, w| a.wrapping_add(w[lane])) & low(k);
            let signed = ((sum << (32 - k)) as i32) >> (32 - k);
            let activation = (signed >> shift).max(0) as u32;
            let mask = masks.iter().fold(0u32, |a, w| a.wrapping_add(w[lane]));
            assert_eq!(got[lane], activation.wrapping_sub(mask) & low(kappa), "k={k} lane={lane}");
        }
    }
}

#[test]
fn input_equals_integer_arithmetic() {
    for (bits, kappa, servers) in [(8, 22, 3), (8, 9, 2), (8, 32, 4), (4, 20, 2)] {
        let folded = values(5, low(bits));
        let random = values(6, low(bits));
        let masks: Vec<Vec<u32>> = (1..servers).map(|s| values(s + 7, low(kappa))).collect();
        let out = input(
            &mut Clear,
            &sliced(&folded, bits),
            &sliced(&random, bits),
            &masks.iter().map(|w| sliced(w, kappa)).collect::<Vec<_>>(),
        );
        let got = to_lanes(&out, 64);
        for lane in 0..64 {
            let mask = masks.iter().fold(0u32, |a, w| a.wrapping_add(w[lane]));
            assert_eq!(got[lane], (folded[lane] ^ random[lane]).wrapping_sub(mask) & low(kappa));
        }
    }
}

/// The counts of `protocol.md` sections 5 and 8.
#[test]
fn relu_gate_counts() {
    for (servers, k, ands) in
        [(2, 32, 85), (2, 20, 49), (3, 32, 147), (3, 20, 87), (4, 32, 209), (4, 20, 125)]
    {
        let spec = Spec::Relu { width: k, shift: 8, mask_width: k, holders: vec![0] };
        assert_eq!(Circuit::and_gates(&spec, servers), ands);
        for evaluator in 0..servers {
            let circuit = Circuit::compile(&spec, servers, evaluator);
            assert_eq!(circuit.program.ands, ands);
        }
    }
    let mut count = Count::default();
    input(&mut count, &[(); 8], &[(); 8], &[vec![(); 20], vec![(); 20]]);
    assert_eq!(count.ands, 2 * 19);
}

/// The online part is one adder per online holder, the sign mask and one subtraction.
#[test]
fn online_part_is_small() {
    for holders in [vec![0], vec![1, 2]] {
        let online_adders = holders.len();
        let spec = Spec::Relu { width: 20, shift: 8, mask_width: 20, holders };
        for evaluator in 0..3 {
            let program = Circuit::compile(&spec, 3, evaluator).program;
            let online = program.ands - program.prefix_ands;
            assert_eq!(online, online_adders * 19 + 11 + 19, "evaluator {evaluator}");
        }
    }
}

/// Slots are bounded by the circuit's width: a handful of words, not its number of gates.
#[test]
fn slots_depend_on_width() {
    for servers in 2..=4 {
        let spec = Spec::Relu { width: 32, shift: 8, mask_width: 32, holders: vec![0] };
        let program = Circuit::compile(&spec, servers, 1).program;
        assert!(program.slots <= 32 * 6, "{} slots", program.slots);
    }
}
