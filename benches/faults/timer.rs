//! Waiting to the microsecond. The runtime's own timer goes by milliseconds and rounds up: a provider that took 20 ms would
//! take anything up to 21, by when in a millisecond its request came, and what a contender loses between two requests could
//! not be told from that.

use crate::process::now;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use sluice::instant::Instant;
use std::io::Result;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Ends at `at`, or at once where that is over.
pub(crate) async fn sleep_until(at: Instant) -> Result<()> {
    let left = at.saturating_duration_since(now());
    if left.is_zero() {
        return Ok(());
    }
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let once = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() },
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
    #[expect(deprecated, reason = "its successor is unsafe for those who do not own the file as this does")]
    let timer = AsyncFd::try_with_interest(timer, Interest::READABLE)?;
    timer.readable().await.map(drop)
}
