//! Resize and Upsample by linear interpolation: axis by axis a sum of gathers, one for each weight.
//!
//! Places of the result are exact fractions of the input's, so that places as far from their neighbours have the same weights,
//! and these are integers of a common unit: twice as long an axis takes 1/4 and 3/4. A sum with them is exact in integers, as
//! the divisor of a mean is. Whoever runs the file in single precision rounds the same fractions.

use std::collections::BTreeMap;

use super::super::call::Call;
use super::super::context::{Context, Value};
use crate::Error;
use crate::graph::Run;
use crate::real::RealTerm;

/// Most weights of an axis: each is a term of a sum, and their unit makes the sums as many times larger.
const MAX_WEIGHTS: usize = 128;
/// Most additions of an axis.
const MAX_ADDITIONS: usize = 1 << 28;
/// Most parts that a place may be divided into, and most places of an axis.
const MAX_PARTS: i64 = 1 << 26;

/// The places of an axis that go into one weight, as pairs of a place of the result and one of the input.
struct Taps {
    factor: f64,
    places: Vec<(u32, u32)>,
}

/// The values of a result of other sizes.
pub(super) fn linear(
    context: &mut Context,
    call: &Call<'_>,
    scales: &[f64],
    sizes: &[usize],
    mode: &[u8],
) -> Result<Vec<Value>, Error> {
    let x = call.any_secret(0)?;
    let changed = |&axis: &usize| sizes[axis] != x.shape[axis] || scales[axis] != 1.0;
    // Those that get shorter first, and of what gets longer the last axis first, whose values lie in pieces.
    let (mut order, longer): (Vec<usize>, Vec<usize>) =
        (0..sizes.len()).filter(changed).partition(|&axis| sizes[axis] < x.shape[axis]);
    order.extend(longer.iter().rev());
    let (mut id, mut shape) = (x.id, x.shape.clone());
    for axis in order {
        let (from, to) = (shape[axis], sizes[axis]);
        let taps = taps(call, from, to, scales[axis], mode)?;
        shape[axis] = to;
        let len = context.fits(&call.origin, &shape)?;
        if len.saturating_mul(taps.len()) > MAX_ADDITIONS {
            return Err(too_many(call, from, to));
        }
        // Each value is read once or twice, and some passes look at every term of it.
        context.walk(&call.origin, len.saturating_mul(taps.len()) / 4)?;
        let inner: usize = shape.iter().skip(axis + 1).product();
        let outer = len / to / inner;
        let mut terms = Vec::with_capacity(taps.len());
        for Taps { factor, places } in taps {
            let runs = (0..outer).flat_map(|number| row(&places, number * from, to, inner));
            let gather = context.pieces(&call.origin, runs)?;
            let gather = context.simple(gather, id, len);
            terms.push(RealTerm { value: id, factor, gather });
        }
        id = context.public(&call.origin, terms, 0.0, len)?;
    }
    Ok(vec![x.with(id, shape).into()])
}

/// The runs of one row of `to` places with `inner` values each, whose first place of the input is `first`.
fn row(places: &[(u32, u32)], first: usize, to: usize, inner: usize) -> impl Iterator<Item = Run> + '_ {
    // All fit 32 bits, for a value does.
    let zeros = move |places: usize| Some(Run::Zeros((places * inner) as u32)).filter(|_| places > 0);
    let mut next = 0;
    let places = || places.iter().map(|&(at, from)| (at as usize, from as usize));
    let end = places().next_back().map_or(0, |(at, _)| at + 1);
    let runs = places().flat_map(move |(at, from)| {
        let before = zeros(at - next);
        next = at + 1;
        let start = ((first + from) * inner) as u32;
        before.into_iter().chain([Run::Values { start, step: 1, count: inner as u32 }])
    });
    runs.chain(zeros(to - end))
}

fn too_many(call: &Call<'_>, from: usize, to: usize) -> Error {
    call.error(format!(
        "between {from} and {to} places lie too many different weights of linear interpolation (at most {MAX_WEIGHTS}, and \
         {MAX_ADDITIONS} additions): use a whole factor without align_corners, or mode nearest"
    ))
}

/// The weights of an axis and where each belongs.
fn taps(call: &Call<'_>, from: usize, to: usize, scale: f64, mode: &[u8]) -> Result<Vec<Taps>, Error> {
    let many = || too_many(call, from, to);
    let (p, q) = fraction(scale).ok_or_else(many)?;
    let (length, count) = (from as i64, to as i64);
    if length > MAX_PARTS || count > MAX_PARTS {
        return Err(many());
    }
    let line = line(mode, length, count, (p, q)).ok_or_else(many)?;
    // By weight, in parts of `line.parts`, and once more where both neighbours have the same.
    let mut taps: BTreeMap<(i64, bool), Vec<(u32, u32)>> = BTreeMap::new();
    for at in 0..count {
        let place = line.first + at * line.step;
        let (whole, rest) = (place.div_euclid(line.parts), place.rem_euclid(line.parts));
        // What lies outside is the first or last value, and both neighbours are that one.
        let near = |place: i64| place.clamp(0, length - 1) as u32;
        let pairs = match length {
            1 => [(line.parts, 0), (0, 0)],
            _ => [(line.parts - rest, near(whole)), (rest, near(whole + 1))],
        };
        for (number, (weight, place)) in pairs.into_iter().enumerate() {
            if weight > 0 {
                let twice = number == 1 && 2 * rest == line.parts;
                taps.entry((weight, twice)).or_default().push((at as u32, place));
            }
        }
        if taps.len() > MAX_WEIGHTS {
            return Err(many());
        }
    }
    let tap = |((weight, _), places)| Taps { factor: weight as f64 / line.parts as f64, places };
    Ok(taps.into_iter().map(tap).collect())
}

/// Places of an axis: `(first + at · step) / parts`.
struct Line {
    first: i64,
    step: i64,
    parts: i64,
}

/// Whether a coordinate_transformation_mode is one that is known.
pub(super) fn is_mode(mode: &[u8]) -> bool {
    line(mode, 1, 1, (1, 1)).is_some()
}

/// Which line a coordinate_transformation_mode means for a scale of `p / q`, if it is known.
fn line(mode: &[u8], from: i64, to: i64, (p, q): (i64, i64)) -> Option<Line> {
    let line = |first, step, parts| Some(Line { first, step, parts });
    match mode {
        // (at + 1/2) / scale - 1/2
        b"half_pixel" => line(q - p, 2 * q, 2 * p),
        b"pytorch_half_pixel" if to > 1 => line(q - p, 2 * q, 2 * p),
        // The same around the middle.
        b"half_pixel_symmetric" => line(from * p - to * q + q - p, 2 * q, 2 * p),
        b"align_corners" if to > 1 => line(0, from - 1, to - 1),
        b"pytorch_half_pixel" | b"align_corners" => line(0, 0, 1),
        b"asymmetric" => line(0, q, p),
        b"tf_half_pixel_for_nn" => line(q, 2 * q, 2 * p),
        _ => None,
    }
}

/// The simplest fraction that single precision does not tell from a positive number, if there is one of few parts.
fn fraction(value: f64) -> Option<(i64, i64)> {
    let ([mut p, mut q], [mut before, mut below]) = ([1i64, 0i64], [0i64, 1i64]);
    let mut rest = value;
    for _ in 0..32 {
        let whole = rest.floor();
        if !(0.0..MAX_PARTS as f64).contains(&whole) {
            return None;
        }
        let next = |now: i64, before: i64| {
            now.checked_mul(whole as i64)?.checked_add(before).filter(|&parts| parts <= MAX_PARTS)
        };
        ([p, before], [q, below]) = ([next(p, before)?, p], [next(q, below)?, q]);
        if (p as f64 / q as f64 - value).abs() <= value * 2f64.powi(-24) {
            return Some((p, q)).filter(|_| p > 0);
        }
        rest = 1.0 / (rest - whole);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::fraction;

    #[test]
    fn scales_are_fractions() {
        for (value, expected) in [
            (2.0, (2, 1)),
            (0.5, (1, 2)),
            (f64::from(0.7f32), (7, 10)),
            (f64::from(2.0f32 / 3.0), (2, 3)),
            (224.0 / 57.0, (224, 57)),
            (f64::from(1.1f32), (11, 10)),
        ] {
            assert_eq!(fraction(value), Some(expected), "{value}");
        }
        for value in [1e-30, 1e30, f64::NAN, f64::INFINITY, 0.0, -1.0] {
            assert_eq!(fraction(value), None, "{value}");
        }
    }
}
