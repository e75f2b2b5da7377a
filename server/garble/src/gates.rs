//! Boolean gates as a trait, in the manner of fancy-garbling's `Fancy`: a circuit is written once
//! and runs over any backend. [`Clear`] computes 64 lanes at a time, [`Count`] counts AND gates,
//! [`crate::program::Compiler`] records the flat program that garbler and evaluator execute.

/// A backend for circuits of XOR, AND and NOT.
pub trait Gates {
    /// A wire. Copying it does not copy work.
    type Wire: Copy;
    /// Exclusive or; free in garbling.
    fn xor(&mut self, a: Self::Wire, b: Self::Wire) -> Self::Wire;
    /// And; the only gate that costs.
    fn and(&mut self, a: Self::Wire, b: Self::Wire) -> Self::Wire;
    /// Negation; free.
    fn not(&mut self, a: Self::Wire) -> Self::Wire;
}

/// Evaluates in clear, 64 lanes in one word.
pub struct Clear;

impl Gates for Clear {
    type Wire = u64;

    fn xor(&mut self, a: u64, b: u64) -> u64 {
        a ^ b
    }

    fn and(&mut self, a: u64, b: u64) -> u64 {
        a & b
    }

    fn not(&mut self, a: u64) -> u64 {
        !a
    }
}

/// Counts gates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// AND gates so far.
    pub ands: usize,
    /// XOR gates so far.
    pub xors: usize,
}

impl Gates for Count {
    type Wire = ();

    fn xor(&mut self, (): (), (): ()) {
        self.xors += 1;
    }

    fn and(&mut self, (): (), (): ()) {
        self.ands += 1;
    }

    fn not(&mut self, (): ()) {}
}
