//! Deterministic changes to inputs: the same number makes the same input from the same corpus.

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// Longest input that is made.
const MAX: usize = 1 << 18;
/// Numbers at which lengths and counts are checked.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    i64::MAX as u64,
    u64::MAX,
];
/// Pieces of the texts that are read.
const WORDS: [&str; 12] =
    ["=", "[", "]]", "\"", "\n", "-1", "1e999", "nan", "{}", "'", "\u{fffd}", "99999999999999999999"];

/// Input number `number` of a target: one of the corpus, changed up to eight times.
pub fn input(corpus: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut rng = ChaCha20Rng::seed_from_u64(number);
    let Some(from) = pick(&mut rng, corpus) else { return noise(&mut rng) };
    let mut bytes = from.clone();
    for _ in 0..1 << (rng.next_u32() % 4) {
        change(&mut bytes, corpus, &mut rng);
        bytes.truncate(MAX);
    }
    bytes
}

fn below(rng: &mut ChaCha20Rng, limit: usize) -> usize {
    (rng.next_u64() % limit.max(1) as u64) as usize
}

fn pick<'a, T>(rng: &mut ChaCha20Rng, from: &'a [T]) -> Option<&'a T> {
    from.get(below(rng, from.len()))
}

fn noise(rng: &mut ChaCha20Rng) -> Vec<u8> {
    let mut bytes = vec![0; below(rng, 64)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// A place; in half of the cases near the front, where headers are.
fn place(rng: &mut ChaCha20Rng, len: usize) -> usize {
    let limit = if rng.next_u32().is_multiple_of(2) { len.min(64) } else { len };
    below(rng, limit)
}

fn change(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut ChaCha20Rng) {
    let at = place(rng, bytes.len());
    let put = |bytes: &mut Vec<u8>, new: &[u8]| {
        let end = bytes.len().min(at + new.len());
        bytes.splice(at.min(end)..end, new.iter().copied());
    };
    match rng.next_u32() % 12 {
        0 => bytes.truncate(at),
        1 => bytes.extend(noise(rng)),
        2 | 3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (rng.next_u32() % 8);
            }
        }
        4 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.next_u32() as u8;
            }
        }
        // A number of a fixed length, and one of a length of its own.
        5 => {
            let edge = EDGES[below(rng, EDGES.len())].wrapping_add(below(rng, 3) as u64).wrapping_sub(1);
            put(bytes, &edge.to_le_bytes()[..1 << (rng.next_u32() % 4)]);
        }
        6 => {
            let mut edge = EDGES[below(rng, EDGES.len())];
            let mut varint = Vec::new();
            while edge >= 0x80 {
                varint.push(edge as u8 | 0x80);
                edge >>= 7;
            }
            varint.push(edge as u8);
            put(bytes, &varint);
        }
        7 => {
            let end = bytes.len().min(at + below(rng, 32));
            bytes.drain(at.min(end)..end);
        }
        // Something twice.
        8 => {
            let end = bytes.len().min(at + below(rng, 256));
            let copy = bytes[at.min(end)..end].to_vec();
            bytes.splice(at..at, copy);
        }
        // The end of another.
        9 => {
            if let Some(other) = pick(rng, corpus) {
                let from = place(rng, other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
        10 => {
            let word = WORDS[below(rng, WORDS.len())];
            bytes.splice(at..at, word.bytes());
        }
        _ => {
            let new = noise(rng);
            put(bytes, &new);
        }
    }
}
