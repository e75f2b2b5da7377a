//! The choice among the ways to cut a layer.

use seco_model::Conv;

use super::axis::{Axis, Form, Tiles, pieces};
use crate::parameters::DEGREE;

/// How a layer is cut; see the text of module `packing`.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// Rows.
    pub(super) y: Tiles,
    /// Columns.
    pub(super) x: Tiles,
    pub(super) sizes: Sizes,
}

/// How the channels are cut. "At most": the last of each may be smaller.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    /// At most so many input channels, split ones counted apart, are in a part of a group's.
    pub(super) part: usize,
    pub(super) parts: usize,
    /// At most so many output channels of a group are in a block.
    pub(super) block: usize,
    pub(super) blocks: usize,
    /// At most so many groups are in a batch.
    pub(super) batch: usize,
    pub(super) batches: usize,
    /// Whether the groups of a batch share output ciphertexts as they do input ciphertexts.
    pub(super) shared: bool,
}

impl Sizes {
    /// At most so many groups are a unit, whose output channels are in the same output ciphertexts.
    pub(super) fn per_unit(&self) -> usize {
        if self.shared { self.batch } else { 1 }
    }

    /// Number of units.
    pub(super) fn units(&self, groups: usize) -> usize {
        groups.div_ceil(self.per_unit())
    }
}

/// The slot of a member of a batch whose outputs share a ciphertext, of its inputs: the member's binary digits, read as
/// ternary ones. No slot is the mean of two others: where `a + b = 2c`, and no digit is 2, no digit of the sum is carried
/// and every digit of `a` and of `b` is that of `c`.
pub(super) fn slot(member: usize) -> usize {
    if member == 0 { 0 } else { member % 2 + 3 * slot(member / 2) }
}

/// Members of a batch with slots so low that the sum of two is less than `slots`.
fn members(slots: usize) -> usize {
    (0..).take_while(|&member| 2 * slot(member) < slots).count()
}

/// The cheapest of those that are found in so many steps, unless it has more than [`MAX_CIPHERTEXTS`]; and the steps that
/// it took.
pub(super) fn cheapest(conv: &Conv, most_steps: usize) -> (Option<Cut>, usize) {
    let [ys, xs] = [0, 1].map(|axis| Form::all(conv, axis));
    let mut search = Search { conv, best: None, left: most_steps };
    for (y_form, x_form) in ys.iter().flat_map(|y| xs.iter().map(move |x| (y, x))) {
        for y in y_form.cuts().take_while(|y| !search.is_lost(y.tiles)).collect::<Vec<_>>() {
            for x in x_form.cuts() {
                let tiles = y.tiles.saturating_mul(x.tiles);
                if search.is_lost(tiles) {
                    break;
                }
                search.channels([y, x], tiles);
            }
        }
    }
    let taken = most_steps - search.left;
    (search.best.map(|(_, [y, x], sizes)| Cut { y: y.owned(), x: x.owned(), sizes }), taken)
}

/// As many ciphertexts as a layer may have, in and out together: some ten gigabytes.
pub(super) const MAX_CIPHERTEXTS: usize = 1 << 16;
/// Steps after which a search takes the best that it has found: counted, so that all servers find the same. Shapes are
/// anybody's; no layer of the networks in `PERFORMANCE.md` takes a 256th of it.
pub(super) const MAX_STEPS: usize = 1 << 22;
/// So many weight polynomials count as a ciphertext.
const POLYNOMIALS: usize = 32;

struct Search<'a> {
    conv: &'a Conv,
    /// Cost of the best: ciphertexts, times `POLYNOMIALS`, and weight polynomials; ciphertexts in.
    best: Option<((usize, usize), [Axis<'a>; 2], Sizes)>,
    /// Partial cuts that may still be looked at.
    left: usize,
}

impl<'a> Search<'a> {
    /// Whether nothing with so many ciphertexts and more can be the best, or is looked for. A step.
    fn is_lost(&mut self, ciphertexts: usize) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return true };
        self.left = left;
        let worse = |cost: usize| ciphertexts.saturating_mul(POLYNOMIALS) >= cost;
        ciphertexts > MAX_CIPHERTEXTS || self.best.as_ref().is_some_and(|(cost, ..)| worse(cost.0))
    }

    /// Tries all ways to cut the channels.
    fn channels(&mut self, axes: [Axis<'a>; 2], tiles: usize) {
        let [y, x] = axes;
        let plane = y.places().saturating_mul(x.places());
        if plane > DEGREE {
            return;
        }
        let (groups, outputs) = (self.conv.groups, self.conv.group_outputs());
        let inputs = self.conv.group_inputs() * y.moves() * x.moves();
        for (parts, part) in pieces(inputs, inputs.div_ceil(DEGREE / plane)) {
            if self.is_lost(tiles.saturating_mul(parts)) {
                break;
            }
            let room = DEGREE / (plane * part);
            for (blocks, block) in pieces(outputs, outputs.div_ceil(room)) {
                if self.is_lost(tiles.saturating_mul(blocks)) {
                    break;
                }
                let slots = room / block;
                for (shared, most) in [(true, members(slots)), (false, slots)] {
                    let batches = groups.div_ceil(most);
                    // Evenly: fewer weights in a polynomial, hence less noise.
                    let batch = groups.div_ceil(batches);
                    let sizes = Sizes { part, parts, block, blocks, batch, batches, shared };
                    let [inputs, outputs] = [batches * parts, sizes.units(groups) * blocks];
                    let ciphertexts = tiles.saturating_mul(inputs + outputs);
                    let cost = (ciphertexts.saturating_mul(POLYNOMIALS) + outputs * parts, tiles * inputs);
                    if ciphertexts <= MAX_CIPHERTEXTS
                        && self.best.as_ref().is_none_or(|(least, ..)| cost < *least)
                    {
                        self.best = Some((cost, axes, sizes));
                    }
                }
                if groups == 1 {
                    // Smaller blocks only make more of them.
                    break;
                }
            }
        }
    }
}
