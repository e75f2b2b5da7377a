//! Runs of gathered values, put together without looking at every value.

use crate::graph::{Gather, Run};

/// Number of runs, none for what is no list of them.
pub(crate) fn runs(gather: &Gather) -> usize {
    match gather {
        Gather::Runs(runs) => runs.len(),
        Gather::All | Gather::Window(_) => 0,
    }
}

/// Appends a run, joined to the last if it goes on with it.
pub(crate) fn join(runs: &mut Vec<Run>, run: Run) {
    match (runs.last_mut(), run) {
        (Some(Run::Zeros(count)), Run::Zeros(more)) => *count += more,
        (Some(Run::Values { start, step, count }), Run::Values { start: next, step: by, count: more }) => {
            let distance = i64::from(next) - i64::from(*start);
            // A single value is as far from the next as need be.
            let own = if *count == 1 { distance } else { i64::from(*step) };
            let goes_on = own * i64::from(*count) == distance && (more == 1 || own == i64::from(by));
            match i32::try_from(own).ok().filter(|_| goes_on) {
                Some(own) => (*step, *count) = (own, *count + more),
                None => runs.push(run),
            }
        }
        _ => runs.push(run),
    }
}

/// `outer(inner(·))`, if that has at most `most` runs. `steps` are pieces that may still be looked at.
pub(crate) fn composed(outer: &[Run], inner: &[Run], most: usize, steps: &mut usize) -> Option<Vec<Run>> {
    let mut take = |count: usize| {
        *steps = steps.saturating_sub(count);
        (*steps > 0).then_some(())
    };
    take(outer.len().saturating_add(inner.len()))?;
    // Where every inner run ends.
    let ends: Vec<i64> = inner
        .iter()
        .scan(0, |end, run| {
            *end += run.count() as i64;
            Some(*end)
        })
        .collect();
    let mut made = Vec::new();
    for &run in outer {
        let Run::Values { start, step, count } = run else {
            join(&mut made, run);
            continue;
        };
        let (mut at, step, mut left) = (i64::from(start), i64::from(step), i64::from(count));
        while left > 0 {
            take(1)?;
            let number = ends.partition_point(|&end| end <= at);
            let (piece, end) = (*inner.get(number)?, *ends.get(number)?);
            let begin = end - piece.count() as i64;
            let here = match step {
                0 => left,
                1.. => (end - 1 - at) / step + 1,
                ..0 => (at - begin) / -step + 1,
            };
            let here = here.min(left);
            join(
                &mut made,
                match piece {
                    Run::Zeros(_) => Run::Zeros(here as u32),
                    Run::Values { start, step: by, .. } => Run::Values {
                        start: u32::try_from(i64::from(start) + i64::from(by) * (at - begin)).ok()?,
                        step: if here == 1 { 1 } else { i32::try_from(i64::from(by) * step).ok()? },
                        count: here as u32,
                    },
                },
            );
            if made.len() > most {
                return None;
            }
            at += here * step;
            left -= here;
        }
    }
    (made.len() <= most).then_some(made)
}
