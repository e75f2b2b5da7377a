//! Eight blocks side by side in AVX2's vectors, where the processor has them.
#![allow(unsafe_code, reason = "vector instructions, and vectors read from and written to arrays")]

use super::{Lanes, Stream, WORDS, passed};
use core::arch::asm;
use core::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_or_si256, _mm256_permute2x128_si256,
    _mm256_set1_epi32, _mm256_setr_epi32, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_si256,
    _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
    _mm256_xor_si256,
};

cpufeatures::new!(has_avx2, "avx2");

/// XORs the keystreams of all streams into bytes.
type Summed = fn(&[Stream], &mut [u8]);

/// The code for that, if the processor has AVX2.
pub(super) fn summed() -> Option<Summed> {
    // SAFETY: the processor has AVX2.
    has_avx2::get().then_some(|streams, values| unsafe { with_avx2(streams, values) })
}

#[target_feature(enable = "avx2")]
fn with_avx2(streams: &[Stream], values: &mut [u8]) {
    passed::<Vector, true>(streams, values);
}

/// Which byte comes where, to turn words left by 16 bits, and by 8.
static LEFT_16: Bytes = Bytes([
    2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12,
    13,
]);
static LEFT_8: Bytes = Bytes([
    3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14, 3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13,
    14,
]);

#[repr(align(32))]
struct Bytes([u8; 32]);

/// Moves bytes within halves. By name, for the compiler makes two instructions of one, and keeps registers for the places,
/// of which there are too few.
#[inline]
#[target_feature(enable = "avx2")]
fn moved(x: __m256i, places: &'static Bytes) -> __m256i {
    let out;
    // SAFETY: reads the 32 bytes of `places`, and nothing else but registers.
    unsafe {
        asm!(
            "vpshufb {out}, {x}, ymmword ptr [{places}]",
            out = lateout(ymm_reg) out,
            x = in(ymm_reg) x,
            places = in(reg) places.0.as_ptr(),
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    out
}

/// Eight blocks, a word of each.
#[derive(Clone, Copy)]
struct Vector(__m256i);

// SAFETY, of all below: it is inlined into `with_avx2` and called by nobody else, and all pointers are those of arrays of 32
// bytes.
impl Lanes for Vector {
    const COUNT: usize = 8;

    #[inline(always)]
    fn splat(word: u32) -> Self {
        Self(unsafe { _mm256_set1_epi32(word.cast_signed()) })
    }

    #[inline(always)]
    fn numbers(first: u32) -> Self {
        Self(unsafe {
            _mm256_add_epi32(
                _mm256_set1_epi32(first.cast_signed()),
                _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
            )
        })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(unsafe { _mm256_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }

    #[inline(always)]
    fn mix<const LEFT: u32>(self, other: Self) -> Self {
        Self(unsafe {
            let x = _mm256_xor_si256(self.0, other.0);
            match LEFT {
                16 => moved(x, &LEFT_16),
                8 => moved(x, &LEFT_8),
                12 => _mm256_or_si256(_mm256_slli_epi32::<12>(x), _mm256_srli_epi32::<20>(x)),
                _ => {
                    const { assert!(LEFT == 16 || LEFT == 12 || LEFT == 8 || LEFT == 7) }
                    _mm256_or_si256(_mm256_slli_epi32::<7>(x), _mm256_srli_epi32::<25>(x))
                }
            }
        })
    }

    #[inline(always)]
    fn xor_into(blocks: &[Self; WORDS], to: &mut [u8]) {
        let (to, _) = to.as_chunks_mut::<32>();
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *blocks;
        for (half, words) in [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]].into_iter().enumerate() {
            let rows = unsafe { transposed(words) };
            for (block, row) in rows.into_iter().enumerate() {
                let Some(to) = to.get_mut(2 * block + half) else { continue };
                unsafe {
                    let made = _mm256_xor_si256(_mm256_loadu_si256(to.as_ptr().cast()), row.0);
                    _mm256_storeu_si256(to.as_mut_ptr().cast(), made);
                }
            }
        }
    }
}

/// Rows become columns: eight words of each block.
#[inline(always)]
unsafe fn transposed(words: [Vector; 8]) -> [Vector; 8] {
    let [a, b, c, d, e, f, g, h] = words;
    unsafe {
        let (ab, ab_2) = (_mm256_unpacklo_epi32(a.0, b.0), _mm256_unpackhi_epi32(a.0, b.0));
        let (cd, cd_2) = (_mm256_unpacklo_epi32(c.0, d.0), _mm256_unpackhi_epi32(c.0, d.0));
        let (ef, ef_2) = (_mm256_unpacklo_epi32(e.0, f.0), _mm256_unpackhi_epi32(e.0, f.0));
        let (gh, gh_2) = (_mm256_unpacklo_epi32(g.0, h.0), _mm256_unpackhi_epi32(g.0, h.0));
        // Blocks 0 and 4, 1 and 5, 2 and 6, 3 and 7: the first four words, and the others.
        let first = [
            _mm256_unpacklo_epi64(ab, cd),
            _mm256_unpackhi_epi64(ab, cd),
            _mm256_unpacklo_epi64(ab_2, cd_2),
            _mm256_unpackhi_epi64(ab_2, cd_2),
        ];
        let last = [
            _mm256_unpacklo_epi64(ef, gh),
            _mm256_unpackhi_epi64(ef, gh),
            _mm256_unpacklo_epi64(ef_2, gh_2),
            _mm256_unpackhi_epi64(ef_2, gh_2),
        ];
        [
            Vector(_mm256_permute2x128_si256::<0x20>(first[0], last[0])),
            Vector(_mm256_permute2x128_si256::<0x20>(first[1], last[1])),
            Vector(_mm256_permute2x128_si256::<0x20>(first[2], last[2])),
            Vector(_mm256_permute2x128_si256::<0x20>(first[3], last[3])),
            Vector(_mm256_permute2x128_si256::<0x31>(first[0], last[0])),
            Vector(_mm256_permute2x128_si256::<0x31>(first[1], last[1])),
            Vector(_mm256_permute2x128_si256::<0x31>(first[2], last[2])),
            Vector(_mm256_permute2x128_si256::<0x31>(first[3], last[3])),
        ]
    }
}
