//! Known answers, and every backend against the portable one.

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use super::*;

/// Every tail length of a kernel, and several chunks.
const LENGTHS: [usize; 12] = [0, 1, 2, 7, 8, 9, 15, 16, 63, 64, 130, 515];

fn blocks(n: usize, rng: &mut ChaCha20Rng) -> Vec<Block> {
    (0..n).map(|_| Block::random(rng)).collect()
}

fn same(a: &[Block], b: &[Block]) -> bool {
    bytemuck::cast_slice::<_, u8>(a) == bytemuck::cast_slice::<_, u8>(b)
}

fn engines(key: [u8; 16]) -> Vec<(Backend, FixedKey)> {
    Backend::available().into_iter().map(|b| (b, FixedKey(Cipher::new(Block::from_bytes(key), b)))).collect()
}

/// FIPS 197, appendix C.1.
#[test]
fn fips_197() {
    let key: [u8; 16] = core::array::from_fn(|i| i as u8);
    let plain: [u8; 16] = core::array::from_fn(|i| 0x11 * i as u8);
    let cipher = 0x69c4_e0d8_6a7b_0430_d8cd_b780_70b4_c55a_u128.to_be_bytes();
    for (backend, aes) in engines(key) {
        for n in LENGTHS {
            let mut out = vec![Block::ZERO; n];
            aes.permute(&vec![Block::from_bytes(plain); n], &mut out);
            assert!(out.iter().all(|b| b.to_bytes() == cipher), "{backend:?} {n}");
        }
    }
}

/// FIPS 197, appendix A.1: the last round key of the example.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[test]
#[allow(unsafe_code)] // The kernels are called directly, where detected.
fn fips_197_key_schedule() {
    let key = Block::from_bytes(0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128.to_be_bytes());
    #[cfg(target_arch = "x86_64")]
    let keys = aesni::available().then(|| unsafe { aesni::expand(key) });
    #[cfg(target_arch = "aarch64")]
    let keys = armv8::available().then(|| unsafe { armv8::expand(key) });
    if let Some(keys) = keys {
        assert_eq!(keys.0[10].to_bytes(), 0xd014_f9a8_c9ee_2589_e13f_0cc8_b663_0ca6_u128.to_be_bytes());
    }
}

#[test]
fn backends_agree() {
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    let key = Block::random(&mut rng).to_bytes();
    let portable = FixedKey::portable(key);
    for (backend, aes) in engines(key) {
        for n in LENGTHS {
            let (src, acc, offset) = (blocks(n, &mut rng), blocks(n, &mut rng), Block::random(&mut rng));
            let (mut a, mut b) = (acc.clone(), acc.clone());
            portable.permute_xor(&src, offset, &mut a);
            aes.permute_xor(&src, offset, &mut b);
            assert!(same(&a, &b), "permute_xor {backend:?} {n}");

            // Tweaks around both carries, too.
            let random = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
            for tweak in [0, random, u128::from(u64::MAX) - 5, u128::MAX - 9, 7 << 64] {
                let (mut a, mut b) = (acc.clone(), acc.clone());
                portable.hash_xor(&src, tweak, &mut a);
                aes.hash_xor(&src, tweak, &mut b);
                assert!(same(&a, &b), "hash_xor {backend:?} {n} {tweak:x}");
            }
        }
    }
}

/// All functions of an engine on five vectors.
struct Everything<'a> {
    x: &'a [Chunk; 5],
    bits: u8,
    out: Vec<[u8; 16 * LANES]>,
}

impl Kernel for Everything<'_> {
    type Output = Vec<[u8; 16 * LANES]>;

    fn run<E: Engine>(mut self, engine: &E) -> Self::Output {
        let x = self.x.map(|x| engine.load(&x));
        let mut keep = |x: E::Lanes| {
            let (mut bytes, mut chunk) = ([0; 16 * LANES], [Block::ZERO; LANES]);
            engine.store_bytes(engine.load_bytes(&bytemuck::cast(x)), &mut bytes);
            // Aligned as the vector stores want it, and not.
            for at in [0, 1, 8, 16] {
                let mut memory = [[Block::ZERO; LANES]; 2];
                let message: &mut [u8] = bytemuck::cast_slice_mut(&mut memory);
                assert!(message.as_ptr().addr().is_multiple_of(16));
                engine.stream_bytes(x, (&mut message[at..at + 16 * LANES]).try_into().unwrap());
                assert_eq!(message[at..at + 16 * LANES], bytes);
            }
            engine.store(x, &mut chunk);
            assert_eq!(bytemuck::bytes_of(&chunk), bytes);
            self.out.push(bytes);
        };
        keep(engine.splat(self.x[0][3]));
        keep(engine.xor(x[0], x[1]));
        keep(engine.select(self.bits, x[2]));
        keep(engine.splat(Block(engine.low_bits(x[3]).into())));
        keep(engine.count(self.x[4][0].0));
        keep(engine.tweaks(self.x[4][0].0 & !(1 << 63)));
        engine.permute(x).into_iter().for_each(&mut keep);
        engine.permute([x[1]]).into_iter().for_each(&mut keep);
        let p = engine.permute([x[4], x[3], x[2], x[1], x[0]]);
        engine.hash(x, p).into_iter().for_each(keep);
        self.out
    }
}

#[test]
fn engines_agree() {
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let key = Block::random(&mut rng).to_bytes();
    for bits in 0..=255 {
        let x = core::array::from_fn(|_| core::array::from_fn(|_| Block::random(&mut rng)));
        let outputs = |aes: &FixedKey| aes.run(Everything { x: &x, bits, out: Vec::new() });
        let want = outputs(&FixedKey::portable(key));
        let selected = bytemuck::cast::<_, Chunk>(want[2]);
        assert!((0..LANES).all(|i| selected[i].0 == if bits >> i & 1 == 1 { x[2][i].0 } else { 0 }));
        let low = bytemuck::cast::<_, Chunk>(want[3])[0];
        assert!((0..LANES).all(|i| low.0 >> i & 1 == x[3][i].0 & 1));
        for (backend, aes) in engines(key) {
            assert!(outputs(&aes) == want, "{backend:?} {bits}");
        }
    }
}

/// The kernels against the definition, block by block.
#[test]
fn hash_is_as_defined() {
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    let aes = FixedKey::new(Block::random(&mut rng).to_bytes());
    let permute = |x: Block| {
        let mut out = [Block::ZERO];
        aes.permute(&[x], &mut out);
        out[0]
    };
    let x = blocks(21, &mut rng);
    let tweak = u128::from(u64::MAX) - 3;
    let mut p = vec![Block::ZERO; x.len()];
    aes.permute(&x, &mut p);
    let mut hash = vec![Block::ZERO; x.len()];
    aes.hash_xor(&p, tweak, &mut hash);
    for (i, x) in x.iter().enumerate() {
        let want = permute(permute(*x) ^ Block(tweak + i as u128)) ^ permute(*x);
        assert!(same(&[want], &hash[i..=i]), "{i}");
    }
}

#[test]
fn shorter_slice_bounds() {
    let aes = FixedKey::new([6; 16]);
    let (src, mut dst) = ([Block(1); 20], [Block::ZERO; 11]);
    aes.permute(&src, &mut dst);
    aes.hash_xor(&dst, 0, &mut [Block::ZERO; 3]);
    let mut long = [Block(9); 20];
    aes.permute(&src[..10], &mut long);
    assert!(long[10..].iter().all(|b| b.0 == 9));
}

#[test]
fn prg_is_counter_mode_and_frozen() {
    let seed = Block(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
    let mut whole = vec![Block::ZERO; 1000];
    Prg::new(seed).fill(&mut whole);

    let counters: Vec<Block> = (0..1000).map(Block).collect();
    let mut want = vec![Block::ZERO; 1000];
    FixedKey::portable(seed.to_bytes()).permute(&counters, &mut want);
    assert!(same(&whole, &want));

    // However the stream is cut, it is the same stream.
    let (mut prg, mut cut) = (Prg::new(seed), vec![Block::ZERO; 1000]);
    let mut rest = &mut cut[..];
    for n in [1, 7, 8, 9, 0, 130, 845] {
        let (part, tail) = rest.split_at_mut(n);
        prg.fill(part);
        rest = tail;
    }
    assert!(rest.is_empty() && same(&whole, &cut));

    let (mut prg, mut bytes) = (Prg::new(seed), vec![0; 1003]);
    prg.fill_bytes(&mut bytes);
    assert_eq!(bytes, bytemuck::cast_slice::<_, u8>(&whole)[..1003]);
    // 1003 bytes took 63 blocks.
    let mut next = [Block::ZERO];
    prg.fill(&mut next);
    assert!(same(&next, &whole[63..64]));

    let digest = Sha256::digest(bytemuck::cast_slice::<_, u8>(&whole));
    assert_eq!(crate::hex(&digest[..16]), "26d44521bc242317ca9be55fae7a0e49");
}

/// Counter mode under several keys, one or more chunks each.
#[test]
fn keystreams_agree() {
    let mut rng = ChaCha20Rng::from_seed([8; 32]);
    let keys = blocks(9, &mut rng);
    for backend in Backend::available() {
        let streams = Keystreams::new(&keys, backend);
        for (range, each) in [(0..9, 1), (2..5, 1), (4..5, 13), (3..6, 2), (7..7, 0)] {
            let counter = u128::from(rng.next_u64() >> 1) << 64 | 77;
            let mut out = vec![[Block::ZERO; LANES]; range.len() * each];
            streams.fill(range.clone(), counter, &mut out);
            for (i, block) in out.as_flattened().iter().enumerate() {
                let (key, i) = (range.start + i / (LANES * each), i % (LANES * each));
                let mut want = [Block::ZERO];
                FixedKey::portable(keys[key].to_bytes()).permute(&[Block(counter + i as u128)], &mut want);
                assert!(same(&want, &[*block]), "{backend:?} {key} {i}");
            }
        }
    }
}

/// Prints rates of one core; run with `--release -- --nocapture rates`.
#[test]
fn rates() {
    let mut rng = ChaCha20Rng::from_seed([6; 32]);
    let rounds = if cfg!(debug_assertions) { 10 } else { 20_000 };
    for (backend, aes) in engines([7; 16]) {
        for n in [64, 512] {
            let (src, mut dst) = (blocks(n, &mut rng), vec![Block::ZERO; n]);
            let report = |kernel, run: &mut dyn FnMut(u128)| {
                let start = std::time::Instant::now();
                (0..rounds).for_each(&mut *run);
                let rate = rounds as f64 * n as f64 / start.elapsed().as_secs_f64();
                println!("{backend:?}, {n} blocks: {kernel} {:.0} M blocks/s", rate / 1e6);
            };
            report("permute", &mut |i| aes.permute_xor(&src, Block(i), &mut dst));
            report("hash_xor", &mut |i| aes.hash_xor(&src, i << 64, &mut dst));
        }
    }
}
