//! The product of module `linear`, compiled for the vectors that the processor has: the baseline of x86-64 cannot even
//! multiply 32-bit words in vectors. On other processors the baseline has what is needed.
#![allow(unsafe_code)] // Code for wide vectors may only be called where they were detected.

use crate::Geometry;
use crate::linear::{self, Word};

/// [`linear::multiply`] by the widest vectors there are, or the baseline's if `SECO_PORTABLE=1`.
pub(crate) fn multiply<T: Word>(geometry: &Geometry, weights: &[T], x: &[T], out: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    match x86::best() {
        // SAFETY: the instructions were detected.
        x86::Vectors::Avx512 => return unsafe { x86::avx512(geometry, weights, x, out) },
        // SAFETY: as above.
        x86::Vectors::Avx2 => return unsafe { x86::avx2(geometry, weights, x, out) },
        x86::Vectors::Baseline => {}
    }
    linear::multiply(geometry, weights, x, out);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::sync::OnceLock;

    use super::{Geometry, Word, linear};

    #[derive(Clone, Copy)]
    pub(super) enum Vectors {
        Avx512,
        Avx2,
        Baseline,
    }

    /// Decided once per process.
    pub(super) fn best() -> Vectors {
        static BEST: OnceLock<Vectors> = OnceLock::new();
        *BEST.get_or_init(|| {
            if std::env::var_os("SECO_PORTABLE").is_some_and(|v| v == "1") {
                Vectors::Baseline
            } else if is_x86_feature_detected!("avx512f") {
                Vectors::Avx512
            } else if is_x86_feature_detected!("avx2") {
                Vectors::Avx2
            } else {
                Vectors::Baseline
            }
        })
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512<T: Word>(geometry: &Geometry, weights: &[T], x: &[T], out: &mut [T]) {
        linear::multiply(geometry, weights, x, out);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2<T: Word>(geometry: &Geometry, weights: &[T], x: &[T], out: &mut [T]) {
        linear::multiply(geometry, weights, x, out);
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::{Conv, Dense};

    type Multiply = dyn Fn(&Geometry, &[u32], &[u32], &mut [u32]);

    #[test]
    fn all_vectors_give_the_same() {
        let conv = |input, channels, kernel, stride, pads| {
            Geometry::Conv(Conv { input, channels, kernel, stride, pads, dilation: [1; 2], groups: 1 })
        };
        let dense = |inputs, outputs| Geometry::Dense(Dense { inputs, outputs });
        for geometry in [
            conv([3, 9, 7], 5, [3, 3], [2, 1], [1, 0, 2, 1]),
            conv([1, 5, 5], 1, [5, 5], [1, 1], [0; 4]),
            // More than one panel deep, more than one panel wide, four rows and some.
            conv([60, 8, 8], 11, [3, 3], [1, 1], [1; 4]),
            Geometry::Conv(Conv {
                input: [6, 9, 9],
                channels: 6,
                kernel: [3, 3],
                stride: [2, 1],
                pads: [2; 4],
                dilation: [2, 2],
                groups: 6,
            }),
            dense(1, 1),
            dense(130, 7),
        ] {
            let words = |count: usize, seed: u32| -> Vec<u32> {
                (0..count as u32).map(|i| (i ^ seed).wrapping_mul(0x9e37_79b9).rotate_left(i % 31)).collect()
            };
            let (weights, x) = (words(geometry.weights(), 1), words(geometry.inputs(), 2));
            let run = |multiply: &Multiply| {
                let mut out = vec![7; geometry.outputs()];
                multiply(&geometry, &weights, &x, &mut out);
                out
            };
            let expected = run(&|g, w, x, out| linear::multiply(g, w, x, out));
            assert_eq!(run(&multiply), expected, "{geometry:?}");
            if is_x86_feature_detected!("avx2") {
                // SAFETY: just detected.
                assert_eq!(run(&|g, w, x, out| unsafe { x86::avx2(g, w, x, out) }), expected, "{geometry:?}");
            }
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: just detected.
                assert_eq!(
                    run(&|g, w, x, out| unsafe { x86::avx512(g, w, x, out) }),
                    expected,
                    "{geometry:?}"
                );
            }
        }
    }
}
