//! A moment of the monotonic clock, as one number.
//!
//! A request meets some forty comparisons, sums and differences of moments: its deadlines, its attempt's, the circuit's, the
//! pace's, what the figures count from. The standard library's `Instant` is two numbers, and a difference of two of them
//! costs some forty instructions; of these it costs one. [`crate::clock`] makes them.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A moment: nanoseconds from a beginning long before this machine's. Never none at all, so that a moment that may be missing
/// takes no more room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

// === impl Instant ===

impl Instant {
    /// The moment so many nanoseconds after the machine began to count.
    pub(crate) fn counted(nanoseconds: u64) -> Self {
        Instant(BEFORE.saturating_add(nanoseconds))
    }

    /// What has passed since `earlier`; nothing if that is later.
    #[inline]
    #[must_use]
    pub fn saturating_duration_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.nanoseconds_since(earlier))
    }

    /// The same, under the name that the standard library has for it.
    #[inline]
    #[must_use]
    pub fn duration_since(self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }

    /// The same in nanoseconds.
    #[inline]
    #[must_use]
    pub fn nanoseconds_since(self, earlier: Instant) -> u64 {
        self.0.get().saturating_sub(earlier.0.get())
    }

    /// The moment `span` later; `None` where that cannot be represented: some four hundred years from now.
    #[inline]
    #[must_use]
    pub fn checked_add(self, span: Duration) -> Option<Instant> {
        self.0.checked_add(nanoseconds(span)?).map(Instant)
    }

    /// The moment `span` earlier; `None` where that cannot be represented: some hundred years ago.
    #[must_use]
    pub fn checked_sub(self, span: Duration) -> Option<Instant> {
        self.0.get().checked_sub(nanoseconds(span)?).and_then(NonZeroU64::new).map(Instant)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// The moment `span` later, or the last there is.
    #[inline]
    fn add(self, span: Duration) -> Instant {
        self.checked_add(span).unwrap_or(Instant(NonZeroU64::MAX))
    }
}

impl AddAssign<Duration> for Instant {
    #[inline]
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    /// The moment `span` earlier, or the first there is.
    #[inline]
    fn sub(self, span: Duration) -> Instant {
        self.checked_sub(span).unwrap_or(Instant(NonZeroU64::MIN))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    /// What has passed since `earlier`; nothing if that is later.
    #[inline]
    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (now, start) = (self.0.get(), BEFORE.get());
        let (after, before) = (now.saturating_sub(start), start.saturating_sub(now));
        let sign = if before > 0 { "-" } else { "" };
        write!(f, "{sign}{:?}", Duration::from_nanos(after + before))
    }
}

#[inline]
fn nanoseconds(span: Duration) -> Option<u64> {
    u64::try_from(span.as_nanos()).ok()
}

/// What lies before the machine's own count, which begins at zero: a hundred and forty-six years, so that a moment before it
/// is a number too.
const BEFORE: NonZeroU64 = NonZeroU64::new(1 << 62).unwrap();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_before_the_machine_began_are_moments_too() {
        let start = Instant::counted(5);
        let earlier = start - Duration::from_hours(24);
        assert!(earlier < start);
        assert_eq!(start - earlier, Duration::from_hours(24));
        assert_eq!(earlier - start, Duration::ZERO);
        assert_eq!(format!("{start:?} {:?}", start - Duration::from_nanos(7)), "5ns -2ns");
    }

    #[test]
    fn a_sum_that_cannot_be_represented_is_told_or_is_the_last_moment() {
        let start = Instant::counted(0);
        assert_eq!(start.checked_add(Duration::MAX), None);
        assert_eq!(start.checked_sub(Duration::MAX), None);
        assert!(start + Duration::MAX > start + Duration::from_hours(24 * 365 * 400));
    }
}
