//! Sums over the lanes whose bit is set, where the bits are secret: no jump and no address depends on them.

use std::hint::black_box;

use zeroize::Zeroizing;

/// Lanes of a word of a plane.
const LANES: usize = 64;

/// Adds `words` to `sum` in the lanes whose bit in `plane` is set.
pub fn add_where(plane: &[u64], words: &[u32], sum: &mut [u32]) {
    let (whole, rest) = words.as_chunks::<LANES>();
    let (whole_sum, rest_sum) = sum.as_chunks_mut::<LANES>();
    let mut plane = plane.iter();
    for ((words, sum), bits) in whole.iter().zip(whole_sum).zip(&mut plane) {
        add_word(*bits, words, sum);
    }
    if let Some(bits) = plane.next()
        && !rest.is_empty()
    {
        let [mut words, mut all] = [(); 2].map(|()| Zeroizing::new([0; LANES]));
        words.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        all.iter_mut().zip(&*rest_sum).for_each(|(to, from)| *to = *from);
        add_word(*bits, &words, &mut all);
        rest_sum.iter_mut().zip(&*all).for_each(|(to, from)| *to = *from);
    }
}

/// The same for one word of the plane. A function of its own, whose instructions `server/tests/constant-time` looks
/// at; and the compiler knows nothing of the bits.
#[inline(never)]
fn add_word(bits: u64, words: &[u32; LANES], sum: &mut [u32; LANES]) {
    let bits = black_box(bits);
    for lane in 0..LANES {
        let mask = ((bits >> lane) as u32 & 1).wrapping_neg();
        sum[lane] = sum[lane].wrapping_add(words[lane] & mask);
    }
}

/// Lanes whose masks are made together; divides the lanes of a word of a plane.
pub const TOGETHER: usize = 32;

/// Masks of the lanes from `start`, a multiple of [`TOGETHER`], on: all ones where the bit in `plane` is set, zeros where
/// it is not and past its end.
pub fn masks(plane: &[u64], start: usize, out: &mut [u32; TOGETHER]) {
    spread((plane.get(start / LANES).map_or(0, |bits| bits >> (start % LANES))) as u32, out);
}

/// The same for the bits of a word. A function of its own, as [`add_word`]: whoever calls it has masks, and knows
/// nothing of the bits.
#[inline(never)]
fn spread(bits: u32, out: &mut [u32; TOGETHER]) {
    let bits = black_box(bits);
    for (lane, out) in out.iter_mut().enumerate() {
        *out = (bits >> lane & 1).wrapping_neg();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_set_bits_are_ones() {
        let plane = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03];
        for start in (0..160).step_by(TOGETHER) {
            let mut out = [7; TOGETHER];
            masks(&plane, start, &mut out);
            for (lane, mask) in (start..).zip(out) {
                let bit = plane.get(lane / 64).map_or(0, |word| (word >> (lane % 64) & 1) as u32);
                assert_eq!(mask, bit.wrapping_neg(), "{lane}");
            }
        }
    }

    #[test]
    fn lanes_of_set_bits_are_added() {
        for lanes in [1usize, 63, 64, 65, 130, 192] {
            let words: Vec<u32> = (0..lanes as u32).map(|i| i.wrapping_mul(0x9e37_79b9) | 1).collect();
            let plane: Vec<u64> = (0..lanes.div_ceil(64) as u64)
                .map(|i: u64| (i + 3).wrapping_mul(0xd1b5_4a32_d192_ed03))
                .collect();
            let mut sum: Vec<u32> = (0..lanes as u32).collect();
            add_where(&plane, &words, &mut sum);
            for (lane, sum) in sum.into_iter().enumerate() {
                let bit = plane[lane / 64] >> (lane % 64) & 1 == 1;
                let expected = (lane as u32).wrapping_add(if bit { words[lane] } else { 0 });
                assert_eq!(sum, expected, "{lanes}, {lane}");
            }
        }
    }
}
