//! The only reader of time. Everything else is told what time it is, so that decisions can be tested without waiting.

use std::time::{Duration, Instant, SystemTime};

/// The monotonic clock, for durations and deadlines.
#[inline]
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, for what people and protocols read: logs, `Date`, certificates.
#[inline]
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The monotonic clock as the system counts it, in microseconds, for another process to compare.
#[must_use]
pub fn monotonic_microseconds() -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
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
