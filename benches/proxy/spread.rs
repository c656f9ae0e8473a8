//! Medians with an interval that assumes nothing about the shape of the noise.

/// The middle of some figures and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// The median.
    pub(crate) median: f64,
    /// The lower end of the interval.
    pub(crate) low: f64,
    /// The upper end of the interval.
    pub(crate) high: f64,
}

/// Figures needed before the interval means 95 %; with fewer it is their whole range.
pub(crate) const ENOUGH: usize = 6;

// === impl Spread ===

impl Spread {
    /// The median of `figures` and its 95 % interval from order statistics. `None` without figures.
    ///
    /// The true median lies below all of `n` figures with a chance of one in `2^n`, below all but one with `1 + n` in
    /// `2^n`, and so on: the interval leaves out as many figures at each end as 2.5 % allows.
    pub(crate) fn of(mut figures: Vec<f64>) -> Option<Spread> {
        figures.sort_by(f64::total_cmp);
        let count = figures.len();
        let left_out = left_out(count);
        Some(Spread {
            median: median(&figures)?,
            low: *figures.get(left_out)?,
            high: *figures.get(count.checked_sub(1 + left_out)?)?,
        })
    }

    /// The spread of `ours[i] / theirs[i]`.
    pub(crate) fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Spread> {
        Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect())
    }
}

/// The median alone.
pub(crate) fn median_of(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    median(&figures)
}

fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// How many of `count` figures the interval leaves out at each end.
fn left_out(count: usize) -> usize {
    let mut chance = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut below = chance;
    let mut left_out = 0;
    // `below` is the chance that at most `left_out` figures lie below the true median.
    while left_out < count / 2 {
        chance *= (count - left_out) as f64 / (left_out + 1) as f64;
        if below + chance > 0.025 {
            break;
        }
        below += chance;
        left_out += 1;
    }
    left_out
}
