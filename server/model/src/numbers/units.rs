//! Units of values: powers of two, and what several have in common.

/// The largest power of two that is not above `x`.
pub(super) fn power_below(x: f64) -> f64 {
    2f64.powi(x.log2().floor().clamp(-120.0, 120.0) as i32)
}

/// A number that is an integer already, as one.
pub(super) fn integer(value: f64) -> Option<i32> {
    (value.abs() < 2f64.powi(30)).then_some(value as i32)
}

/// Whether all of `worth` are integer multiples of a power of two, and small ones.
pub(super) fn share_a_power(worth: impl Iterator<Item = f64> + Clone) -> bool {
    let unit = power_below(worth.clone().fold(f64::INFINITY, f64::min)) * 2f64.powi(-6);
    worth.into_iter().all(|worth| (worth / unit).fract() == 0.0)
}

/// A scale of which all of `worth` are integer multiples, exactly where small ones do, else nearly; with `power` a power
/// of two.
pub(super) fn common(worth: &[f64], power: bool) -> f64 {
    let least = worth.iter().copied().fold(f64::INFINITY, f64::min);
    let most = worth.iter().copied().fold(0.0, f64::max);
    let fits = |scale: f64| {
        worth.iter().all(|worth| {
            let times = worth / scale;
            (times - times.round()).abs() < 1e-6 * times && times < 2f64.powi(20)
        })
    };
    let exact = if power {
        let below = power_below(least * 1.000_001);
        (0..=6).map(|shift| below * 2f64.powi(-shift)).find(|&scale| fits(scale))
    } else {
        (1..=36).map(|parts| least / f64::from(parts)).find(|&scale| fits(scale))
    };
    // All within a thousandth of the largest.
    let near = |scale: f64| {
        worth.iter().all(|worth| ((worth / scale).round() * scale - worth).abs() <= most * 0.001)
    };
    let powers = (0..=12).map(|shift| power_below(most * 1.000_001) * 2f64.powi(-shift));
    exact
        .or_else(|| powers.clone().find(|&scale| near(scale)))
        .unwrap_or_else(|| power_below(most) * 2f64.powi(-12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_that_several_have_in_common() {
        assert_eq!(common(&[0.25], true), 0.25);
        assert_eq!(common(&[0.25, 1.0, 8.0], true), 0.25);
        assert_eq!(common(&[0.75, 1.0], true), 0.25);
        assert!((common(&[1.0 / 9.0], false) - 1.0 / 9.0).abs() < 1e-12);
        // Windows of 9, 6 and 4 values.
        assert!((common(&[1.0 / 9.0, 1.0 / 6.0, 0.25], false) - 1.0 / 36.0).abs() < 1e-12);
        // A fifth beside a whole: within a thousandth.
        let scale = common(&[1.0, 0.2], true);
        assert_eq!(scale, 2f64.powi(-8));
        assert!(((0.2 / scale).round() * scale - 0.2).abs() < 0.001);
        assert!(common(&[1.0 / 9.0], true) >= 2f64.powi(-12));
    }
}
