//! ReLU with a floor shift: what the servers prepare, and the algebra of its answer.
//!
//! `z = m - ρ` mod `2^k`; the circuit gives `u = ρ_{k-1} ^ b_{k-1}` and the borrow `b_f`. With
//! `t = ¬(m_{k-1} ^ u)` (1 for `z >= 0`), `R = ρ >> f`, `M = m >> f` and
//! `R' = R - 2^{k-f}(1 - m_{k-1})·ρ_{k-1}`, exactly and for every `z`,
//!
//! `max(0, z >> f) = t·(M - R' - b_f)`.
//!
//! With `t = x + (1 - 2x)λ_t` and `b_f = y + (1 - 2y)λ_b` for the masked values `x`, `y`, that is a sum of public
//! terms `x(M - y)` and of terms that are linear in what the servers have shares of: `λ_t`, `λ_b`, `λ_t·λ_b` (among the
//! garblers), `R`, `ρ_{k-1}` and their products with `λ_t` (among all).

use zeroize::Zeroizing;

use super::chain::Chain;
use super::choose::{TOGETHER, masks};
use super::pads::SeatPads;
use super::sum::SumOfBits;
use super::words::{Lanes, kind};
use super::{Opening, Share, Words};
use crate::bits::{LambdaBits, MaskedBits, RhoBits};
use crate::error::Error;
use crate::slices::{packed_len, plane_words};

/// A ReLU's widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReluShape {
    /// Width `k` of its layer's ring, from 2 to 32.
    pub width: u32,
    /// Bits `f` dropped, fewer than `width`.
    pub shift: u32,
    /// Width `κ` of the next mask, from 1 to 32.
    pub mask_width: u32,
}

impl ReluShape {
    /// Whether there is a borrow `b_f`.
    pub fn has_borrow(&self) -> bool {
        self.shift > 0
    }

    /// Whether the answer depends on `ρ_{k-1}`: `κ > k - f`.
    pub fn has_top(&self) -> bool {
        self.mask_width > self.width - self.shift
    }

    /// Outputs of the circuit: `u`, and the borrow.
    pub fn outputs(&self) -> usize {
        1 + usize::from(self.has_borrow())
    }

    /// Entries of a projection: one for each value of the masked outputs.
    pub fn entries(&self) -> usize {
        1 << self.outputs()
    }

    /// Widths mod which the bits of `ρ` are shared: `k - i` for `ρ` and `κ - (i - f)` for `R`, the larger; and for
    /// the top bit `κ` where it is needed by itself.
    pub fn rho_widths(&self) -> Vec<u32> {
        let Self { width, shift, mask_width } = *self;
        let of_bit = |i: u32| {
            let of_rho = width - i;
            let of_shifted = if i < shift { 0 } else { mask_width.saturating_sub(i - shift) };
            let of_top = if i == width - 1 && self.has_top() { mask_width } else { 0 };
            of_rho.max(of_shifted).max(of_top)
        };
        (0..width).map(of_bit).collect()
    }

    /// Numbers in the chain of products with `λ_t`: at the evaluator, which has no share of `λ_b`, and at a garbler.
    fn numbers(&self) -> [usize; 2] {
        let of_all = 1 + usize::from(self.has_top());
        [of_all, of_all + usize::from(self.has_borrow())]
    }

    /// Bytes of the message with which a server lets `joiner` join the sums of bits, for `lanes` lanes and `garblers`
    /// garblers. It goes from every earlier seat.
    pub fn sum_len(&self, joiner: usize, garblers: usize, lanes: usize) -> usize {
        let rho: usize = self.rho_widths().iter().map(|&width| packed_len(lanes, width)).sum();
        let masks = if joiner < garblers { self.outputs() * packed_len(lanes, self.mask_width) } else { 0 };
        rho + masks
    }

    /// Bytes of the message of seat `from` that lets a garbler join the chain of products.
    pub fn chain_len(&self, from: usize, garblers: usize, lanes: usize) -> usize {
        let [evaluator, garbler] = self.numbers();
        Chain::message_len(lanes, self.mask_width, if from < garblers { garbler } else { evaluator })
    }
}

/// Words of the pads of an output's mask: 0 is that of [`SumOfBits`].
const OF_BORROW: usize = 1;
const OF_SHIFTED: usize = 2;
const OF_TOP: usize = 3;
/// All of them, for a test.
#[cfg(test)]
pub(crate) const WORDS_OF_PRODUCTS: [usize; 3] = [OF_BORROW, OF_SHIFTED, OF_TOP];

/// Somebody to exchange messages with: sockets, channels, or a test.
pub trait Exchange {
    /// What can go wrong.
    type Error;
    /// Sends to a seat.
    fn send(&mut self, seat: usize, message: Vec<u8>) -> Result<(), Self::Error>;
    /// Receives from a seat exactly `length` bytes.
    fn recv(&mut self, seat: usize, length: usize) -> Result<Vec<u8>, Self::Error>;
}

/// One server's conversions for a batch of ReLUs, in rounds: [`Conversion::round`] receives what the round before
/// sent, then sends. `2·garblers + 1` rounds from number 1 on; [`Conversion::rho`] is there after round
/// `garblers + 1`.
pub struct Conversion {
    shape: ReluShape,
    garblers: usize,
    seat: usize,
    lanes: usize,
    pads: SeatPads,
    rho: SumOfBits,
    /// Planes of `λ^j` of the outputs; none at the evaluator.
    masks: Zeroizing<Vec<u64>>,
    of_masks: SumOfBits,
    chain: Option<Chain>,
}

impl Conversion {
    /// From this server's bits of `ρ`, a garbler's shares of the outputs' masks, and pads.
    pub fn new(
        shape: ReluShape,
        [garblers, seat, lanes]: [usize; 3],
        rho: RhoBits,
        masks: LambdaBits,
        pads: SeatPads,
    ) -> Result<Self, Error> {
        let (rho, masks) = (rho.into_planes(), masks.into_planes());
        let words = lanes.div_ceil(64);
        let expected = if seat < garblers { shape.outputs() * words } else { 0 };
        if rho.len() != shape.width as usize * words || masks.len() != expected || seat > garblers {
            return Err(Error::Shape("conversion"));
        }
        let widths = vec![shape.mask_width; if seat < garblers { shape.outputs() } else { 0 }];
        Ok(Self {
            rho: SumOfBits::new(rho, shape.rho_widths(), lanes, seat == 0),
            of_masks: SumOfBits::new(masks.clone(), widths, lanes, seat == 0),
            chain: None,
            shape,
            garblers,
            seat,
            lanes,
            pads,
            masks,
        })
    }

    /// The last round, with as many messages as there are rounds before.
    pub fn rounds(garblers: usize) -> usize {
        2 * garblers + 1
    }

    /// One round.
    pub fn round<X: Exchange>(&mut self, round: usize, peers: &mut X) -> Result<(), X::Error> {
        let (g, me) = (self.garblers, self.seat);
        if round == me + 1 && me > 0 {
            self.join_sum(peers)?;
        }
        if round == g + 1 {
            self.start_chain();
        }
        if round == g + 2 + me && me < g {
            self.join_chain(peers)?;
        }
        if (me + 1..=g).contains(&round) {
            let mut message = Vec::with_capacity(self.shape.sum_len(round, g, self.lanes));
            // Nothing else uses these pads, and of all batches under way they are megabytes.
            if let Some(pads) = self.pads.rho_to[round].take() {
                self.rho.send(&pads, &mut message);
            }
            if let (Some(pads), true) = (&self.pads.masks_to[round.min(g)], round < g) {
                self.of_masks.send(pads, &mut message);
            }
            peers.send(round, message)?;
        }
        let joiner = round.wrapping_sub(g + 1);
        if joiner < g && joiner != me {
            let mut message = Vec::with_capacity(self.shape.chain_len(me, g, self.lanes));
            if let (Some(chain), Some(pads)) = (&mut self.chain, &self.pads.masks_to[joiner]) {
                chain.send(pads, &mut message);
            }
            peers.send(joiner, message)?;
        }
        Ok(())
    }

    fn join_sum<X: Exchange>(&mut self, peers: &mut X) -> Result<(), X::Error> {
        let (g, me) = (self.garblers, self.seat);
        let length = self.shape.sum_len(me, g, self.lanes);
        let messages = (0..me).map(|from| peers.recv(from, length)).collect::<Result<Vec<_>, _>>()?;
        let split = self.rho.message_len();
        let rho_from = std::mem::take(&mut self.pads.rho_from);
        let mut rho = Vec::with_capacity(me);
        let mut masks = Vec::with_capacity(me);
        for (from, message) in messages.iter().enumerate() {
            let (first, second) = message.split_at(split.min(message.len()));
            rho.extend(rho_from[from].as_ref().map(|pads| (pads, first)));
            masks.extend(self.pads.masks_from[from].as_ref().map(|pads| (pads, second)));
        }
        self.rho.join(&mut rho);
        if me < g {
            self.of_masks.join(&mut masks);
        }
        Ok(())
    }

    fn start_chain(&mut self) {
        let shape = &self.shape;
        let mut numbers = vec![(OF_SHIFTED, self.shifted())];
        if shape.has_top() {
            numbers.push((OF_TOP, self.top()));
        }
        if let (true, Some(borrow)) = (shape.has_borrow(), self.of_masks.shares().get(1)) {
            numbers.push((OF_BORROW, borrow.clone()));
        }
        let words = self.lanes.div_ceil(64);
        let bits = Zeroizing::new(self.masks.get(..words).map_or_else(|| vec![0; words], <[u64]>::to_vec));
        self.chain = Some(Chain::new(bits, numbers, shape.mask_width, self.lanes));
    }

    fn join_chain<X: Exchange>(&mut self, peers: &mut X) -> Result<(), X::Error> {
        let (g, me, shape) = (self.garblers, self.seat, self.shape);
        let [of_evaluator, of_garbler] = shape.numbers();
        let mut messages = Vec::with_capacity(g);
        for from in (0..=g).filter(|&from| from != me) {
            let message = peers.recv(from, shape.chain_len(from, g, self.lanes))?;
            messages.push((from, message, if from < g { of_garbler } else { of_evaluator }));
        }
        let pads = &self.pads.masks_from;
        let with_pads = messages.iter().filter_map(|(from, message, count)| {
            pads[*from].as_ref().map(|pads| (pads, &message[..], *count))
        });
        let mut from: Vec<_> = with_pads.collect();
        if let Some(chain) = &mut self.chain {
            chain.join(&mut from);
        }
        Ok(())
    }

    /// This server's share of `ρ` mod `2^k`, under which it opens its part of the value.
    pub fn rho(&self) -> Opening {
        let mut sum = Share::zeros(self.lanes);
        self.rho.shares().iter().enumerate().for_each(|(i, share)| sum.add(1 << i, share));
        Opening::of_rho(sum)
    }

    /// Of `R = ρ >> f` mod `2^κ`.
    fn shifted(&self) -> Share {
        let mut sum = Share::zeros(self.lanes);
        let used =
            self.rho.shares().iter().skip(self.shape.shift as usize).take(self.shape.mask_width as usize);
        used.enumerate().for_each(|(i, share)| sum.add(1 << i, share));
        sum
    }

    /// Of `ρ_{k-1}` mod `2^κ`.
    fn top(&self) -> Share {
        self.rho.shares().last().cloned().unwrap_or_default()
    }

    /// Everything that the projection needs, after the last round.
    pub fn finish(self) -> ReluShares {
        let (shape, lanes) = (self.shape, self.lanes);
        let (shifted, top) = (self.shifted(), if shape.has_top() { self.top() } else { Share::zeros(lanes) });
        let mut masks = self.of_masks.shares().iter().cloned();
        let mut next = || masks.next().unwrap_or_else(|| Share::zeros(lanes));
        let (sign, borrow) = (next(), next());
        let mut products = self.chain.map(Chain::finish).unwrap_or_default().into_iter();
        let mut next = |there: bool| {
            let product = if there { products.next() } else { None };
            product.unwrap_or_else(|| Share::zeros(lanes))
        };
        let sign_shifted = next(true);
        let sign_top = next(shape.has_top());
        let sign_borrow = next(shape.has_borrow());
        ReluShares { shape, shares: [sign, borrow, sign_borrow, shifted, top, sign_shifted, sign_top] }
    }
}

/// One server's shares for a batch of ReLUs, mod `2^κ`, by lane.
#[derive(Clone)]
pub struct ReluShares {
    shape: ReluShape,
    /// `λ_t`, `λ_b`, `λ_t λ_b`, `R`, `ρ_{k-1}`, `λ_t R`, `λ_t ρ_{k-1}`.
    shares: [Share; 7],
}

/// Numbers that a [`ReluShares`] has a share of.
pub const SHARES: usize = 7;

impl ReluShares {
    /// From shares in the order of [`ReluShares::shares`].
    pub fn new(shape: ReluShape, shares: [Share; SHARES]) -> Self {
        Self { shape, shares }
    }

    /// Its shape.
    pub fn shape(&self) -> ReluShape {
        self.shape
    }

    /// The shares, to be stored: of `λ_t`, `λ_b`, `λ_t λ_b`, `R`, `ρ_{k-1}`, `λ_t R`, `λ_t ρ_{k-1}`.
    pub fn shares(&self) -> &[Share; SHARES] {
        &self.shares
    }

    /// Shares of the answer for every value of the masked outputs: entry `û + 2b̂`, all lanes, minus `mask`, this server's
    /// part of the next mask: `s(û, b̂) - r^j`. `m` is the opened value. Public terms are not included. A lane whose mask
    /// is missing has no answer: 0 in all entries.
    pub fn answers(&self, m: Lanes<'_, kind::Opened>, mask: Lanes<'_, kind::Mask>) -> Words<kind::Entries> {
        let (m, mask) = (m.slice(), mask.slice());
        let lanes = m.len();
        let mut out = Zeroizing::new(vec![0u32; self.shape.entries() * lanes]);
        let mut answers = Zeroizing::new([[0; TOGETHER]; 4]);
        for (start, m) in starts(m) {
            let shares = self.part(start, m.len());
            let Some(mask) = mask.get(start..start + m.len()) else { break };
            for (i, &m) in m.iter().enumerate() {
                let terms = self.shape.terms(shares.map(|words| words[i]), m);
                for (entry, answers) in answers.iter_mut().enumerate() {
                    let [u, y] = [entry as u32 & 1, entry as u32 >> 1].map(u32::wrapping_neg);
                    answers[i] = terms.share(terms.sign(u), y).wrapping_sub(mask[i]);
                }
            }
            for (out, answers) in out.chunks_mut(lanes).zip(answers.iter()) {
                out[start..start + m.len()].copy_from_slice(&answers[..m.len()]);
            }
        }
        Words::of(out)
    }

    /// The evaluator's share for the masked outputs that it has, with the public terms.
    pub fn answers_at(&self, m: Lanes<'_, kind::Opened>, masked: &MaskedBits) -> Share {
        let (m, masked) = (m.slice(), masked.planes());
        let (u_plane, borrow_plane) = masked.split_at(plane_words(m.len()).min(masked.len()));
        let mut out = Zeroizing::new(vec![0; m.len()]);
        let [mut u, mut borrow, mut answers] = [(); 3].map(|()| Zeroizing::new([0; TOGETHER]));
        for (start, m) in starts(m) {
            let shares = self.part(start, m.len());
            masks(u_plane, start, &mut u);
            masks(borrow_plane, start, &mut borrow);
            for (i, &m) in m.iter().enumerate() {
                let terms = self.shape.terms(shares.map(|words| words[i]), m);
                answers[i] = terms.answer(u[i], borrow[i]);
            }
            out[start..start + m.len()].copy_from_slice(&answers[..m.len()]);
        }
        Share::new(out)
    }

    /// The shares of some lanes.
    fn part(&self, start: usize, count: usize) -> [&[u32]; SHARES] {
        self.shares.each_ref().map(|share| &share.slice()[start..start + count])
    }

    /// The same for one lane.
    #[cfg(test)]
    pub(crate) fn answer_at(&self, lane: usize, m: u32, u: u32, borrow: u32) -> u32 {
        let terms = self.shape.terms(self.shares.each_ref().map(|share| share.slice()[lane]), m);
        terms.answer(u.wrapping_neg(), borrow.wrapping_neg())
    }
}

/// Values in groups that are computed together, with the number of the first: the compiler makes vectors of them.
fn starts(m: &[u32]) -> impl Iterator<Item = (usize, &[u32])> {
    (0..).step_by(TOGETHER).zip(m.chunks(TOGETHER))
}

impl ReluShape {
    /// What a lane's answers are made of, from its shares in the order of [`ReluShares::shares`].
    #[inline(always)]
    fn terms(&self, shares: [u32; SHARES], m: u32) -> Terms {
        let [sign, borrow, sign_borrow, shifted, top, sign_shifted, sign_top] = shares;
        let m_top = (m >> (self.width - 1) & 1).wrapping_neg();
        // 2^{k-f}(1 - m_{k-1}) of a number. For k - f = 32 that is 0 mod 2^32, and `ρ_{k-1}` is not needed.
        let bits = self.width - self.shift;
        let of_top = |word: u32| if bits < 32 { word << bits & !m_top } else { 0 };
        Terms {
            m_top,
            shifted_m: m >> self.shift,
            sign,
            borrow,
            sign_borrow,
            shifted: shifted.wrapping_sub(of_top(top)),
            sign_shifted: sign_shifted.wrapping_sub(of_top(sign_top)),
        }
    }
}

/// What a lane's four answers are made of. Bits are masks here: all ones for 1.
struct Terms {
    m_top: u32,
    shifted_m: u32,
    sign: u32,
    borrow: u32,
    sign_borrow: u32,
    shifted: u32,
    sign_shifted: u32,
}

impl Terms {
    /// `x = t̂` from `û`: `t = ¬(m_{k-1} ^ u)`.
    #[inline(always)]
    fn sign(&self, u: u32) -> u32 {
        !(u ^ self.m_top)
    }

    /// `(1-2x)(λ_t (M - y) - λ_t R' - (1-2y) λ_t λ_b) - x (R' + (1-2y) λ_b)`: with `a` and `b` for the two brackets
    /// `a` or `-a - b`. By masks, for `x` and `y` are the evaluator's alone: it must not jump on them.
    #[inline(always)]
    fn share(&self, x: u32, y: u32) -> u32 {
        let of_borrow = |word: u32| (word ^ y).wrapping_sub(y);
        let a = self
            .sign
            .wrapping_mul(self.shifted_m.wrapping_add(y))
            .wrapping_sub(self.sign_shifted)
            .wrapping_sub(of_borrow(self.sign_borrow));
        let b = self.shifted.wrapping_add(of_borrow(self.borrow));
        a.wrapping_sub(a.wrapping_add(a).wrapping_add(b) & x)
    }

    /// The same with the public terms `x(M - y)`.
    #[inline(always)]
    fn answer(&self, u: u32, y: u32) -> u32 {
        let x = self.sign(u);
        self.share(x, y).wrapping_add(self.shifted_m.wrapping_add(y) & x)
    }
}
