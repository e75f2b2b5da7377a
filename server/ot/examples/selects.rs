//! The selections by secret bits that are compiled into larger kernels, each on its own, for `server/tests/constant-time`
//! to look at their instructions; and some that jump, by which it sees that it would notice. Run, it compares them.

use std::hint::black_box;

use seco_ot::{Block, Chunk, Engine, FixedKey, Kernel, LANES, Mask};

/// `Block::select` by a bit of a word.
#[inline(never)]
fn select_block(block: Block, word: u64, place: usize) -> Block {
    block.select(Mask::of_bit(word, place))
}

/// The same with a jump.
#[inline(never)]
fn planted_jump(block: Block, word: u64, place: usize) -> Block {
    // What stands in the branch cannot be done without one.
    if word >> (place % 64) & 1 == 1 { black_box(block) } else { Block::ZERO }
}

/// As many rounds as the word has ones at its end: a loop whose jump back is on a bit.
#[inline(never)]
fn planted_loop(word: u64) -> usize {
    let mut place = 0;
    while black_box(word) >> (place % 64) & 1 == 1 && place < 64 {
        place = black_box(place + 1);
    }
    place
}

/// What jumps in a function that this one calls.
#[inline(never)]
fn planted_call(block: Block, word: u64) -> Block {
    planted_jump(block, word, 0) ^ planted_jump(block, word, 1)
}

/// `Engine::select` and `Engine::low_bits` of one vector. Compiled for every engine, as `seco_ot::aes::ENGINE::run`.
struct Select<'a>(&'a Chunk, u8, &'a mut Chunk);

impl Kernel for Select<'_> {
    type Output = u8;

    #[inline(always)]
    fn run<E: Engine>(self, engine: &E) -> u8 {
        let Select(chunk, bits, out) = self;
        let selected = engine.select(bits, engine.load(chunk));
        engine.store(selected, out);
        engine.low_bits(selected)
    }
}

fn main() {
    assert!(planted_loop(7) == 3 && planted_call(Block(1), 1).0 == 1);
    let chunk: Chunk = std::array::from_fn(|lane| Block(0x1234_5678_9abc_def1 << lane | 1));
    for key in [FixedKey::new([0; 16]), FixedKey::portable([0; 16])] {
        for bits in 0..=u8::MAX {
            let mut out = [Block::ZERO; LANES];
            assert!(key.run(Select(&chunk, bits, &mut out)) == bits);
            for (lane, (block, got)) in chunk.iter().zip(out).enumerate() {
                let expected = select_block(*block, bits.into(), lane).0;
                assert!(got.0 == expected && planted_jump(*block, bits.into(), lane).0 == expected);
            }
        }
    }
}
