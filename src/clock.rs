//! The only reader of time. Everything else is told what time it is, so that decisions can be tested without waiting.

use crate::instant::Instant;
use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// The monotonic clock, for durations and deadlines.
#[inline]
#[must_use]
pub fn now() -> Instant {
    let now = clock_gettime(ClockId::Monotonic);
    Instant::counted(now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned())
}

/// The wall clock, for what people and protocols read: logs, `Date`, certificates.
#[inline]
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The whole seconds of the wall clock since 1970, as of the kernel's last tick: all that a `Date` tells, for less.
#[must_use]
pub fn wall_second() -> u64 {
    u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0)
}

/// The monotonic clock as the system counts it, in microseconds, for another process to compare.
#[must_use]
pub fn monotonic_microseconds() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000
}

/// `instant + span`, or an instant far enough away to mean "never" where the sum cannot be represented.
#[must_use]
pub fn after(instant: Instant, span: Duration) -> Instant {
    instant.checked_add(span).unwrap_or_else(|| far(instant))
}

/// An instant that no request lives to see: thirty years from `now`.
#[must_use]
pub fn far(now: Instant) -> Instant {
    now + Duration::from_hours(30 * 365 * 24)
}

/// For the runtime's timers.
impl From<Instant> for tokio::time::Instant {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
    fn from(instant: Instant) -> Self {
        /// The same moment by our count and the runtime's; ours is not the later, so that no timer is early.
        static SAME: OnceLock<(Instant, tokio::time::Instant)> = OnceLock::new();
        let (ours, theirs) = SAME.get_or_init(|| (now(), tokio::time::Instant::now()));
        if instant >= *ours { *theirs + (instant - *ours) } else { *theirs - (*ours - instant) }
    }
}
