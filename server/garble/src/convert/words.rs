//! Words of all lanes, typed by what they are.
//!
//! Everything that conversions, circuits and layers hand to each other is a word for every lane, and one word looks like
//! any other. A share added to a masked value that it does not belong to is a wrong answer without a message, and one
//! sent without a mask is the end of a secret. So words have types, and the operations between types are those of the
//! protocol, each with its formula; there are no others:
//!
//! | type | what it is | who has it |
//! |---|---|---|
//! | [`Share`] | `v_j` of a number `v = Σ_j v_j` | its server |
//! | [`Mask`] | `r^j`, drawn by its server | its server |
//! | [`Opening`] | `[ρ]_j`, and at the first opener what others sent ahead | its server |
//! | [`Online`] | a value's online part, as offline parts are [`Share`]s | its server |
//! | [`Part`] | a server's part of one of the next three, under its mask | who is sent it |
//! | [`Masked`] | `x - r` | the recipients of the atom |
//! | [`Opened`] | `m = z + ρ` | all |
//! | [`Answer`] | the answer under all `Q_j` | the gateway and the device |
//! | [`OutputPad`] | `Q_j` | its server, and the device |
//! | [`InputPad`] | `P_j`, the gateway's with the device's masked input | its server, and the device `P_j` |
//! | [`Published`] | `P_j ^ d^j`, and the XOR of all of them | all |
//!
//! What is sent is a [`Part`], or something that is open to whoever gets it: [`Words::encode`] is there for nothing
//! else. What is stored, or goes to arithmetic elsewhere (products on ciphertexts, layers in clear), does so by
//! [`Words::words`] and comes from there by [`Words::new`], for kinds that need it: these are the exits, to be looked at in
//! a review. None has `Debug` or a comparison, and all are zeroized on drop.
//!
//! What compiles, and beside it what must not, the same but for the types:
//!
//! ```
//! use seco_garble::convert::{Opened, Opening, Part, Share};
//! fn right(mut share: Share, other: &Share, opening: &Opening, message: &mut Vec<u8>) -> Option<()> {
//!     share.add(1, other);
//!     let part = share.under([(0..1, opening)])?;
//!     part.encode(20, message);
//!     Some(())
//! }
//! ```
//!
//! ```compile_fail,E0308
//! use seco_garble::convert::{Masked, Share};
//! fn wrong(mut share: Share, other: &Masked) {
//!     share.add(1, other); // A masked value is no share.
//! }
//! ```
//!
//! ```compile_fail,E0599
//! use seco_garble::convert::Share;
//! fn wrong(part: Share, message: &mut Vec<u8>) {
//!     part.encode(20, message); // Nothing hides it.
//! }
//! ```
//!
//! ```compile_fail,E0271
//! use seco_garble::convert::{Mask, Share};
//! fn wrong(share: Share, opening: &Mask) {
//!     let _ = share.under([(0..1, opening)]); // What is opened is under ρ, not under the next mask.
//! }
//! ```
//!
//! ```compile_fail,E0277
//! fn wrong(share: &seco_garble::convert::Share) {
//!     println!("{share:?}");
//! }
//! ```
//!
//! ```compile_fail,E0599
//! fn wrong(pad: seco_garble::convert::OutputPad) {
//!     let _ = pad.clone(); // It is used once.
//! }
//! ```

use std::marker::PhantomData;
use std::ops::Range;

use zeroize::Zeroizing;

use crate::bits::InputBits;
use crate::slices::{from_lanes, pack, packed_len, plane_words, to_lanes, unpack};

/// What words are: markers for [`Words`].
pub mod kind {
    use std::marker::PhantomData;

    /// Of [`Share`](super::Share).
    pub enum Share {}
    /// Of [`Mask`](super::Mask).
    pub enum Mask {}
    /// Of [`Opening`](super::Opening).
    pub enum Opening {}
    /// Of [`Online`](super::Online).
    pub enum Online {}
    /// Of [`Part`](super::Part).
    pub struct Part<V>(PhantomData<V>);
    /// Of [`Masked`](super::Masked).
    pub enum Masked {}
    /// Of [`Opened`](super::Opened).
    pub enum Opened {}
    /// Of [`Answer`](super::Answer).
    pub enum Answer {}
    /// Of [`InputPad`](super::InputPad).
    pub enum InputPad {}
    /// Of [`OutputPad`](super::OutputPad).
    pub enum OutputPad {}
    /// Of [`Published`](super::Published).
    pub enum Published {}
    /// Of the pads of a [projection](crate::convert::projection).
    pub enum ProjectionPads {}
    /// Of the pads of those of its entries that are opened.
    pub enum EntryPads {}
    /// Of its entries before they are under pads.
    pub enum Entries {}

    /// Words that come from elsewhere: from a bundle, from arithmetic that is not here, or drawn.
    pub trait Made {}
    impl<K: Bare> Made for K {}
    impl Made for InputPad {}
    impl Made for OutputPad {}

    /// Words that leave as they are, too: into a bundle, and to arithmetic that is not here.
    pub trait Bare {}
    impl Bare for Share {}
    impl Bare for Mask {}
    impl Bare for Opening {}
    impl Bare for Online {}
    impl Bare for ProjectionPads {}

    /// Words that may be sent: under a mask of the sender's, or open to whoever gets them.
    pub trait Sent {}
    impl<V> Sent for Part<V> {}
    impl Sent for Masked {}
    impl Sent for Published {}
}

/// A word for every lane. Only the low bits that a width names mean anything. Zeroized on drop.
pub struct Words<K> {
    words: Zeroizing<Vec<u32>>,
    kind: PhantomData<K>,
}

/// This server's additive shares `v_j` of a number `v = Σ_j v_j`.
pub type Share = Words<kind::Share>;
/// This server's parts `r^j` of the masks of an atom.
pub type Mask = Words<kind::Mask>;
/// What this server's parts of a value are opened under: `[ρ]_j`, and at the first opener what others sent ahead.
pub type Opening = Words<kind::Opening>;
/// This server's online part of a value.
pub type Online = Words<kind::Online>;
/// One server's part of what all together open: `V` is the sum of all servers' parts.
pub type Part<V> = Words<kind::Part<V>>;
/// An activation under its mask, `x - r`.
pub type Masked = Words<kind::Masked>;
/// A value before a circuit under its mask, `m = z + ρ`.
pub type Opened = Words<kind::Opened>;
/// The answer under all servers' output pads.
pub type Answer = Words<kind::Answer>;
/// A server's pads of the device's input; at the gateway with the device's masked input.
pub type InputPad = Words<kind::InputPad>;
/// A server's pads of the answer, `Q_j`.
pub type OutputPad = Words<kind::OutputPad>;
/// What a server publishes of the input, or all of them together: `o = x ^ d`.
pub type Published = Words<kind::Published>;

/// The words of some lanes.
pub struct Lanes<'a, K> {
    words: &'a [u32],
    kind: PhantomData<K>,
}

impl<K> Clone for Lanes<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Lanes<'_, K> {}

// Of nothing else, for masks and pads are used once.
impl Clone for Share {
    fn clone(&self) -> Self {
        Self::of(self.words.clone())
    }
}

/// Of no lanes.
impl<K> Default for Words<K> {
    fn default() -> Self {
        Self::of(Zeroizing::default())
    }
}

fn add(sum: &mut [u32], words: &[u32]) {
    debug_assert_eq!(sum.len(), words.len());
    sum.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
}

impl<K> Words<K> {
    pub(crate) fn of(words: Zeroizing<Vec<u32>>) -> Self {
        Self { words, kind: PhantomData }
    }

    /// The same words as another kind: only where a formula says that they are.
    fn becomes<L>(self) -> Words<L> {
        Words::of(self.words)
    }

    /// Mod `2^width`, `width` from 1 to 32.
    fn cut(&mut self, width: u32) {
        let mask = u32::MAX >> (32 - width.clamp(1, 32));
        self.words.iter_mut().for_each(|word| *word &= mask);
    }

    /// Another kind, by a formula that combines every lane with one of `other`. None if there is not one for every lane.
    fn with<L>(self, other: &[u32], formula: impl Fn(u32, u32) -> u32) -> Option<Words<L>> {
        let mut made = self.becomes();
        if made.len() != other.len() {
            return None;
        }
        made.words.iter_mut().zip(other).for_each(|(word, other)| *word = formula(*word, *other));
        Some(made)
    }

    pub(crate) fn slice(&self) -> &[u32] {
        &self.words
    }

    pub(crate) fn slice_mut(&mut self) -> &mut [u32] {
        &mut self.words
    }

    /// No words yet, and memory for those of `lanes` lanes: growing would leave copies.
    pub fn with_capacity(lanes: usize) -> Self {
        Self::of(Zeroizing::new(Vec::with_capacity(lanes)))
    }

    /// The words of further lanes.
    pub fn append(&mut self, more: &Self) {
        self.words.extend_from_slice(&more.words);
    }

    /// Number of lanes.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there is no lane.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Those of all lanes.
    pub fn all(&self) -> Lanes<'_, K> {
        Lanes::of(&self.words)
    }

    /// Those of some lanes, if they are there.
    pub fn lanes(&self, lanes: Range<usize>) -> Option<Lanes<'_, K>> {
        self.words.get(lanes).map(Lanes::of)
    }
}

impl<'a, K> Lanes<'a, K> {
    fn of(words: &'a [u32]) -> Self {
        Self { words, kind: PhantomData }
    }

    pub(crate) fn slice(self) -> &'a [u32] {
        self.words
    }

    /// Number of lanes.
    pub fn len(self) -> usize {
        self.words.len()
    }

    /// Whether there is no lane.
    pub fn is_empty(self) -> bool {
        self.words.is_empty()
    }

    /// Those of some of the lanes, if they are there.
    pub fn lanes(self, lanes: Range<usize>) -> Option<Self> {
        self.words.get(lanes).map(Self::of)
    }

    /// A copy to keep or to change.
    pub fn to_words(self) -> Words<K> {
        Words::of(Zeroizing::new(self.words.to_vec()))
    }
}

impl<K: kind::Made> Words<K> {
    /// From words that were drawn, computed elsewhere or stored.
    pub fn new(words: Zeroizing<Vec<u32>>) -> Self {
        Self::of(words)
    }
}

impl<K: kind::Bare> Words<K> {
    /// The words, to be stored or computed with elsewhere.
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}

impl<'a, K: kind::Bare> Lanes<'a, K> {
    /// As [`Words::words`].
    pub fn words(self) -> &'a [u32] {
        self.words
    }
}

impl<K: kind::Sent> Words<K> {
    /// Appends the low `width` bits of every word to a message.
    pub fn encode(&self, width: u32, message: &mut Vec<u8>) {
        pack(self.words.iter().copied(), width, message);
    }

    /// Bytes of that for `lanes` lanes.
    pub fn encoded_len(lanes: usize, width: u32) -> usize {
        packed_len(lanes, width)
    }

    /// From a message of [`Words::encoded_len`] bytes.
    pub fn decode(message: &[u8], width: u32, lanes: usize) -> Self {
        Self::of(Zeroizing::new(unpack(&mut &message[..], width, lanes)))
    }
}

impl Share {
    /// Shares of zero.
    pub fn zeros(lanes: usize) -> Self {
        Self::of(Zeroizing::new(vec![0; lanes]))
    }

    /// `v_j += factor·w_j`: shares of `v + factor·w`.
    pub fn add(&mut self, factor: u32, other: &Share) {
        debug_assert_eq!(self.len(), other.len());
        let pairs = self.words.iter_mut().zip(&*other.words);
        pairs.for_each(|(sum, word)| *sum = sum.wrapping_add(factor.wrapping_mul(*word)));
    }

    /// `v_j mod 2^width`, `width` from 1 to 32.
    pub fn reduce(&mut self, width: u32) {
        self.cut(width);
    }

    /// `x_j - r^j`: this server's part of `x - r`. None if there is not a mask for every lane.
    pub fn less(self, mask: Lanes<'_, kind::Mask>) -> Option<Part<kind::Masked>> {
        self.with(mask.words, u32::wrapping_sub)
    }

    /// `z^j + [ρ]_j`: this server's part of `m`. The openings are those of lanes that follow each other from the first to
    /// the last; none if they are not, for then a lane would be under no mask.
    pub fn under<'a>(
        self,
        openings: impl IntoIterator<Item = (Range<usize>, &'a Opening)>,
    ) -> Option<Part<kind::Opened>> {
        let (mut part, mut next) = (self.becomes(), 0);
        for (lanes, opening) in openings {
            if lanes.start != next || lanes.len() != opening.len() {
                return None;
            }
            next = lanes.end;
            add(part.words.get_mut(lanes)?, &opening.words);
        }
        (next == part.len()).then_some(part)
    }

    /// `y_j + Q_j`: this server's part of the answer. None if there is not a pad for every lane.
    pub fn padded(self, pad: OutputPad) -> Option<Part<kind::Answer>> {
        self.with(&pad.words, u32::wrapping_add)
    }
}

impl Mask {
    /// The offline part of an atom `x = (x - r) + Σ_j r^j`: `r^j` is a share of `r`.
    pub fn offline(&self) -> Lanes<'_, kind::Share> {
        Lanes::of(&self.words)
    }
}

impl Opening {
    /// `[ρ]_j`, from a share of `ρ`.
    pub(crate) fn of_rho(share: Share) -> Self {
        share.becomes()
    }

    /// At the first opener: `+= z^i + [ρ]_i` of a server without an online part.
    pub fn add_ahead(&mut self, part: &Part<kind::Opened>) {
        add(&mut self.words, &part.words);
    }
}

impl Masked {
    /// The online part of an atom is its `x - r`.
    pub fn online(self) -> Online {
        self.becomes()
    }
}

impl Online {
    /// `z^j`, this server's share of a value: its online and its offline part.
    pub fn plus(self, offline: Lanes<'_, kind::Share>) -> Option<Share> {
        self.with(offline.words, u32::wrapping_add)
    }
}

impl<V> Part<V> {
    /// The part of a server that has nothing.
    pub fn none(lanes: usize) -> Self {
        Self::of(Zeroizing::new(vec![0; lanes]))
    }

    /// Adds another server's part.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.words, &other.words);
    }
}

impl Part<kind::Masked> {
    /// `x - r = Σ_j (x_j - r^j)`, once all servers' parts are added up.
    pub fn open(self) -> Masked {
        self.becomes()
    }
}

impl Part<kind::Opened> {
    /// `m = Σ_j (z^j + [ρ]_j)` mod `2^width`, `width` from 1 to 32, once all openers' parts are added up.
    pub fn open(mut self, width: u32) -> Opened {
        self.cut(width);
        self.becomes()
    }
}

impl Part<kind::Answer> {
    /// `Σ_j (y_j + Q_j)` mod `2^width`, `width` from 1 to 32, once all servers' parts are added up.
    pub fn open(mut self, width: u32) -> Answer {
        self.cut(width);
        self.becomes()
    }
}

impl Answer {
    /// The words, for the device.
    pub fn into_words(mut self) -> Vec<u32> {
        std::mem::take(&mut *self.words)
    }
}

impl Lanes<'_, kind::Opened> {
    /// Bit planes of `m`: a circuit's public word.
    pub fn planes(self, width: u32) -> Vec<u64> {
        from_lanes(self.words, width as usize)
    }
}

impl InputPad {
    /// `P_j ^ d^j` of values of `bits` bits. The bits of `d^j` are those of lanes that follow each other from the first to
    /// the last; none if they are not, or if there is not a plane for every bit, for then something would be under no mask.
    pub fn publish<'a>(
        self,
        bits: u32,
        masks: impl IntoIterator<Item = (Range<usize>, &'a InputBits)>,
    ) -> Option<Published> {
        let (mut published, mut next) = (self.becomes(), 0);
        for (lanes, mask) in masks {
            let planes = bits as usize * plane_words(lanes.len());
            if lanes.start != next || mask.planes().len() != planes {
                return None;
            }
            next = lanes.end;
            let mask = Zeroizing::new(to_lanes(mask.planes(), lanes.len()));
            let words = published.words.get_mut(lanes)?;
            words.iter_mut().zip(mask.iter()).for_each(|(word, mask)| *word ^= mask);
        }
        (next == published.len()).then_some(published)
    }
}

impl Published {
    /// `o = XOR_j (P_j ^ d^j)`: takes another server's part.
    pub fn xor(&mut self, other: &Self) {
        debug_assert_eq!(self.len(), other.len());
        self.words.iter_mut().zip(&*other.words).for_each(|(word, other)| *word ^= other);
    }
}

impl Lanes<'_, kind::Published> {
    /// Bit planes of `o`, for [`super::input::share`].
    pub fn planes(self, bits: u32) -> Vec<u64> {
        from_lanes(self.words, bits as usize)
    }
}
