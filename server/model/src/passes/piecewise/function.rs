//! Continuous functions of one number that are linear between a few points.

/// Most points where a function's slope changes.
const MAX_POINTS: usize = 8;
/// Slopes that differ by less, in parts of the steepest, are the same, and points, in parts of the larger one.
const SAME: f64 = 1e-12;

/// A continuous function that is linear between points.
#[derive(Clone, Debug)]
pub(super) struct Function {
    /// Where the slope changes, in order.
    points: Vec<f64>,
    /// Before the first point, between, and behind the last: one more than points.
    slopes: Vec<f64>,
    /// Its value at the first point, or at 0 if there is none.
    first: f64,
}

/// `factor · max(0, x - at)`, or `factor · max(0, at - x)` where it is turned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ramp {
    pub turned: bool,
    pub at: f64,
    pub factor: f64,
}

impl Function {
    /// `x`.
    pub(super) fn identity() -> Function {
        Function { points: Vec::new(), slopes: vec![1.0], first: 0.0 }
    }

    /// Its value at `x`.
    pub(super) fn at(&self, x: f64) -> f64 {
        let mut from = self.points.first().copied().unwrap_or(0.0);
        let (before, behind) = self.slopes.split_first().unwrap_or((&0.0, &[]));
        if x <= from || behind.is_empty() {
            return self.first + before * (x - from);
        }
        let mut value = self.first;
        let ends = self.points.iter().skip(1).copied().chain([f64::INFINITY]);
        for (slope, end) in behind.iter().zip(ends) {
            let to = end.min(x);
            value += slope * (to - from).max(0.0);
            from = to;
        }
        value
    }

    fn slope(&self, x: f64) -> f64 {
        let before = self.points.iter().filter(|&&point| point < x).count();
        self.slopes.get(before).copied().unwrap_or(0.0)
    }

    /// The function whose value and slope are given and whose slope changes nowhere but at `points`, which may be in any
    /// order. None if there are too many or numbers are beyond all bounds.
    fn new(mut points: Vec<f64>, at: impl Fn(f64) -> f64, slope: impl Fn(f64) -> f64) -> Option<Function> {
        points.sort_by(f64::total_cmp);
        let size = |point: f64| point.abs().max(1.0);
        points.dedup_by(|b, a| (*b - *a).abs() <= SAME * size(*a).max(size(*b)));
        // Most of them may be none, but not so many.
        if points.len() > MAX_POINTS * MAX_POINTS {
            return None;
        }
        let inside = |i: usize| match (i.checked_sub(1).and_then(|i| points.get(i)), points.get(i)) {
            (Some(a), Some(b)) => a + (b - a) / 2.0,
            (Some(a), None) => a + size(*a),
            (None, Some(b)) => b - size(*b),
            (None, None) => 0.0,
        };
        let slopes: Vec<f64> = (0..=points.len()).map(|i| slope(inside(i))).collect();
        let steepest = slopes.iter().fold(0f64, |most, slope| most.max(slope.abs()));
        let mut slopes = slopes.into_iter().map(|s| if s.abs() <= SAME * steepest { 0.0 } else { s });
        let mut made = Function { points: Vec::new(), slopes: vec![slopes.next()?], first: 0.0 };
        for (point, after) in points.into_iter().zip(slopes) {
            if (after - made.slopes.last()?).abs() > SAME * steepest {
                made.points.push(point);
                made.slopes.push(after);
            }
        }
        made.first = at(made.points.first().copied().unwrap_or(0.0));
        let finite =
            made.points.iter().chain(&made.slopes).chain([&made.first]).all(|number| number.is_finite());
        (finite && made.points.len() <= MAX_POINTS).then_some(made)
    }

    /// `offset + Σ factor · function`.
    pub(super) fn sum(parts: &[(f64, &Function)], offset: f64) -> Option<Function> {
        let points = parts.iter().flat_map(|(_, part)| part.points.iter().copied()).collect();
        let value = |x: f64| parts.iter().map(|(factor, part)| factor * part.at(x)).sum::<f64>() + offset;
        let slope = |x: f64| parts.iter().map(|(factor, part)| factor * part.slope(x)).sum();
        Function::new(points, value, slope)
    }

    /// `max(0, function)`.
    pub(super) fn relu(&self) -> Option<Function> {
        let mut points = self.points.clone();
        for (i, &slope) in self.slopes.iter().enumerate().filter(|(_, slope)| **slope != 0.0) {
            let (left, right) = (i.checked_sub(1).and_then(|i| self.points.get(i)), self.points.get(i));
            let anchor = left.or(right).copied().unwrap_or(0.0);
            let zero = anchor - self.at(anchor) / slope;
            if left.is_none_or(|&left| zero >= left) && right.is_none_or(|&right| zero <= right) {
                points.push(zero);
            }
        }
        let slope = |x: f64| if self.at(x) > 0.0 { self.slope(x) } else { 0.0 };
        Function::new(points, |x| self.at(x).max(0.0), slope)
    }

    /// As few ramps as can be, and the constant that is added to their sum.
    pub(super) fn ramps(&self) -> (f64, Vec<Ramp>) {
        let ramp = |turned, at, factor| Ramp { turned, at, factor };
        let slope = |i: usize| self.slopes.get(i).copied().unwrap_or(0.0);
        let changes: Vec<(f64, f64)> =
            self.points.iter().enumerate().map(|(i, &at)| (at, slope(i + 1) - slope(i))).collect();
        if let Some(flat) = self.slopes.iter().position(|&slope| slope == 0.0) {
            let (left, right) = changes.split_at(flat.min(changes.len()));
            let at = left.last().or(right.first()).map_or(0.0, |(at, _)| *at);
            let left = left.iter().map(|&(at, change)| ramp(true, at, change));
            let right = right.iter().map(|&(at, change)| ramp(false, at, change));
            return (self.at(at), left.chain(right).collect());
        }
        // It is flat nowhere: two ramps from the point nearest to zero.
        let near = |a: &usize, b: &usize| changes[*a].0.abs().total_cmp(&changes[*b].0.abs());
        let pivot = (0..changes.len()).min_by(near).unwrap_or(0);
        let at = changes.get(pivot).map_or(0.0, |(at, _)| *at);
        let last = self.slopes.len().saturating_sub(1);
        let both = [ramp(false, at, slope((pivot + 1).min(last))), ramp(true, at, -slope(pivot))];
        let left = changes.iter().take(pivot).map(|&(at, change)| ramp(true, at, change));
        let right = changes.iter().skip(pivot + 1).map(|&(at, change)| ramp(false, at, change));
        (self.at(at), both.into_iter().chain(left).chain(right).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramped(function: &Function, x: f64) -> f64 {
        let (constant, ramps) = function.ramps();
        let of = |ramp: &Ramp| ramp.factor * (if ramp.turned { ramp.at - x } else { x - ramp.at }).max(0.0);
        constant + ramps.iter().map(of).sum::<f64>()
    }

    /// Chains of ReLUs and sums, beside the same computed number by number.
    #[test]
    fn functions_are_what_they_were_made_of() {
        let x = Function::identity();
        let leaky = |f: &Function, slope: f64| {
            let (up, down) = (f.relu().unwrap(), Function::sum(&[(-1.0, f)], 0.0).unwrap().relu().unwrap());
            Function::sum(&[(1.0, &up), (-slope, &down)], 0.0).unwrap()
        };
        let least = |f: &Function, bound: f64| {
            let above = Function::sum(&[(1.0, f)], -bound).unwrap().relu().unwrap();
            Function::sum(&[(1.0, &above)], bound).unwrap()
        };
        let most = |f: &Function, bound: f64| {
            let below = Function::sum(&[(-1.0, f)], bound).unwrap().relu().unwrap();
            Function::sum(&[(-1.0, &below)], bound).unwrap()
        };
        type Cases = [(Function, fn(f64) -> f64, usize); 10];
        let cases: Cases = [
            (x.relu().unwrap(), |x| x.max(0.0), 1),
            (x.relu().unwrap().relu().unwrap(), |x| x.max(0.0), 1),
            (leaky(&x, 0.2), |x| if x > 0.0 { x } else { 0.2 * x }, 2),
            (least(&leaky(&x, 0.2), -0.4), |x| (if x > 0.0 { x } else { 0.2 * x }).max(-0.4), 2),
            (most(&x.relu().unwrap(), 6.0), |x| x.clamp(0.0, 6.0), 2),
            (most(&x.relu().unwrap(), 6.0).relu().unwrap(), |x| x.clamp(0.0, 6.0), 2),
            (least(&most(&x, 1.0), -1.0), |x| x.clamp(-1.0, 1.0), 2),
            (least(&x.relu().unwrap(), -3.0), |x| x.max(0.0), 1),
            (most(&x.relu().unwrap(), -1.0), |_| -1.0, 0),
            // One point far away brings the others no nearer.
            (
                most(&leaky(&least(&most(&x, 1e12), -1.0), 0.5), 6.0),
                |x| if x > 0.0 { x.min(6.0) } else { 0.5 * x.max(-1.0) },
                3,
            ),
        ];
        for (i, (function, expected, count)) in cases.iter().enumerate() {
            assert_eq!(function.ramps().1.len(), *count, "{i}: {function:?}");
            for step in -400..400 {
                let x = f64::from(step) / 40.0;
                assert!((function.at(x) - expected(x)).abs() < 1e-12, "{i}: {x}");
                assert!((ramped(function, x) - expected(x)).abs() < 1e-12, "{i}: {x}, {function:?}");
            }
        }
        assert!((ramped(&Function::identity(), -3.5) + 3.5).abs() < 1e-12);
    }

    #[test]
    fn functions_of_many_points_or_without_bounds_are_none() {
        let mut f = Function::identity();
        let mut made = 0;
        // A saw: twice as many points with every fold.
        let folded = (1..10).try_for_each(|_| {
            let (up, down) = (f.relu()?, Function::sum(&[(-1.0, &f)], 0.0)?.relu()?);
            f = Function::sum(&[(2.0, &up), (2.0, &down)], -1.0)?;
            made += 1;
            Some(())
        });
        assert!(folded.is_none() && made >= 2, "{made}");
        assert!(Function::sum(&[(1e300, &f), (f64::MAX, &f)], f64::MAX).is_none());
    }
}
