//! Maps of places: which of a value's numbers go where in a sum.

use serde::{Deserialize, Serialize};

use crate::geometry::MAX_TENSOR;

/// Most additions of a map, and of all maps of a graph together.
pub(super) const MAX_STEPS: usize = 1 << 33;

/// Which values go where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gather {
    /// Every value in its place.
    All,
    /// Run by run; all runs together are as long as the result.
    Runs(Vec<Run>),
    /// Sums over windows.
    Window(Window),
}

/// A run of a gathered value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Run {
    /// That many zeros.
    Zeros(u32),
    /// `count` values from `start` on, `step` apart (which may be 0 or negative).
    Values {
        /// The first.
        start: u32,
        /// From one to the next.
        step: i32,
        /// How many.
        count: u32,
    },
}

/// Sums over windows of every channel; what is outside counts as 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Channels, height, width of the value.
    pub input: [usize; 3],
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Distance of the window's places.
    pub dilation: [usize; 2],
    /// Rows above and columns left of the value at which the first window begins.
    pub pads: [usize; 2],
    /// Height and width of the result.
    pub output: [usize; 2],
}

impl Gather {
    /// Additions that it takes for a result of `len` values, or more than can be.
    pub(crate) fn steps(&self, len: usize) -> usize {
        match self {
            Gather::All | Gather::Runs(_) => len,
            Gather::Window(window) => window.steps(),
        }
    }

    /// Checks that it can be applied to `from` values and gives `to`.
    pub(crate) fn check(&self, from: usize, to: usize) -> bool {
        match self {
            Gather::All => from == to,
            Gather::Window(window) => window.check() && window.inputs() == from && window.outputs() == to,
            Gather::Runs(runs) => {
                let mut total = 0usize;
                let fits = runs.iter().all(|run| {
                    total = total.saturating_add(run.count());
                    match *run {
                        Run::Zeros(_) => true,
                        Run::Values { start, step, count } => {
                            let last = i64::from(start) + i64::from(step) * (i64::from(count) - 1);
                            count > 0 && (start as usize) < from && (0..from as i64).contains(&last)
                        }
                    }
                });
                fits && total == to
            }
        }
    }

    /// `out += factor · gather(values)`, wrapping around. Sizes must be those that the graph was checked with.
    pub fn add(&self, factor: u32, values: &[u32], out: &mut [u32]) {
        let add = |out: &mut u32, value: u32| *out = out.wrapping_add(value.wrapping_mul(factor));
        match self {
            Gather::All => out.iter_mut().zip(values).for_each(|(out, &value)| add(out, value)),
            Gather::Runs(_) | Gather::Window(_) => self.each(out.len(), |at, from| {
                if let (Some(out), Some(&value)) = (out.get_mut(at), values.get(from)) {
                    add(out, value);
                }
            }),
        }
    }

    /// Calls `pair` with every place of the result and every place of the value that goes there. Places of the result
    /// that nothing goes to are 0.
    pub fn each(&self, len: usize, mut pair: impl FnMut(usize, usize)) {
        match self {
            Gather::All => (0..len).for_each(|i| pair(i, i)),
            Gather::Runs(runs) => each_run(runs, pair),
            Gather::Window(window) => window.each(pair),
        }
    }

    /// Most places of the value that go into one of the result.
    pub fn most_summed(&self) -> usize {
        match self {
            Gather::All | Gather::Runs(_) => 1,
            Gather::Window(window) => window.kernel[0] * window.kernel[1],
        }
    }

    /// The runs of a map from every place of the result to a place of the value, or to 0.
    pub fn from_places(places: impl IntoIterator<Item = Option<usize>>) -> Gather {
        let mut runs: Vec<Run> = Vec::new();
        for place in places {
            match (runs.last_mut(), place) {
                (Some(Run::Zeros(count)), None) => *count += 1,
                (Some(Run::Values { start, step, count: count @ 1 }), Some(place)) => {
                    let distance = place as i64 - i64::from(*start);
                    (*step, *count) = (distance as i32, 2);
                }
                (Some(Run::Values { start, step, count }), Some(place))
                    if i64::from(*start) + i64::from(*step) * i64::from(*count) == place as i64 =>
                {
                    *count += 1;
                }
                (_, None) => runs.push(Run::Zeros(1)),
                (_, Some(place)) => runs.push(Run::Values { start: place as u32, step: 1, count: 1 }),
            }
        }
        Gather::Runs(runs)
    }
}

fn each_run(runs: &[Run], mut pair: impl FnMut(usize, usize)) {
    let mut at = 0;
    for run in runs {
        if let Run::Values { start, step, count } = *run {
            let mut from = i64::from(start);
            for i in 0..count as usize {
                pair(at + i, from as usize);
                from += i64::from(step);
            }
        }
        at += run.count();
    }
}

impl Run {
    /// Number of values.
    pub fn count(&self) -> usize {
        match *self {
            Run::Zeros(count) | Run::Values { count, .. } => count as usize,
        }
    }
}

impl Window {
    fn check(&self) -> bool {
        let sizes = [&self.input[..], &self.kernel, &self.stride, &self.dilation, &self.output];
        let positive = sizes.iter().all(|sizes| sizes.iter().all(|&size| (1..=MAX_TENSOR).contains(&size)));
        let product = |sizes: &[usize]| sizes.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
        let small = |count: Option<usize>| count.is_some_and(|count| count <= MAX_TENSOR);
        positive
            && self.pads.iter().all(|&pad| pad <= MAX_TENSOR)
            && small(product(&self.input))
            && small(product(&[self.input[0], self.output[0], self.output[1]]))
            && small(product(&[self.output[0], self.output[1], self.kernel[0]]))
            && small(product(&[self.kernel[0], self.kernel[1]]))
            && self.steps() <= MAX_STEPS
    }

    /// Additions that all sums take together, or more than can be.
    fn steps(&self) -> usize {
        let sizes = [self.input[0], self.output[0], self.output[1], self.kernel[0], self.kernel[1]];
        sizes.iter().try_fold(1usize, |all, &size| all.checked_mul(size)).unwrap_or(usize::MAX)
    }

    /// Number of values that it reads.
    pub fn inputs(&self) -> usize {
        self.input.iter().product()
    }

    /// Number of sums.
    pub fn outputs(&self) -> usize {
        self.input[0] * self.output[0] * self.output[1]
    }

    /// Calls `pair` with every sum's place and every place that goes into it.
    pub fn each(&self, mut pair: impl FnMut(usize, usize)) {
        let [channels, height, width] = self.input;
        let [rows, columns] = self.output;
        let place = |axis: usize, at: usize, tap: usize, size: usize| {
            (at * self.stride[axis] + tap * self.dilation[axis])
                .checked_sub(self.pads[axis])
                .filter(|&p| p < size)
        };
        for y in 0..rows {
            for ky in 0..self.kernel[0] {
                let Some(from_y) = place(0, y, ky, height) else { continue };
                for x in 0..columns {
                    for kx in 0..self.kernel[1] {
                        let Some(from_x) = place(1, x, kx, width) else { continue };
                        for c in 0..channels {
                            pair((c * rows + y) * columns + x, (c * height + from_y) * width + from_x);
                        }
                    }
                }
            }
        }
    }
}
