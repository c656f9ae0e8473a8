//! One timer for one task, armed lazily.
//!
//! A request passes through many deadlines and almost never reaches one. Resetting a runtime timer for each costs more than
//! the deadlines are worth, so this one is only reset when a deadline is *earlier* than what is armed. Where it fires early
//! it is armed again for the deadline that counts by then.

use crate::instant::Instant;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::time::{Sleep, sleep_until};

/// A timer owned by one task.
#[derive(Debug, Default)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: Option<Instant>,
}

// === impl Timer ===

impl Timer {
    /// Ready once `deadline` has passed as of `now`; otherwise the task will be woken by then (or a little earlier, and has
    /// to ask again). `now` must not be older than this poll of the task: an alarm that has gone off since would be waited for.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant, now: Instant) -> Poll<()> {
        if deadline <= now {
            return Poll::Ready(());
        }
        match self.armed {
            Some(armed) if armed <= deadline && armed > now => Poll::Pending,
            _ => self.arm(cx, deadline),
        }
    }

    #[cold]
    fn arm(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                sleep.as_mut().reset(deadline.into());
                sleep
            }
            none => none.insert(Box::pin(sleep_until(deadline.into()))),
        };
        self.armed = Some(deadline);
        // Not a matter of the task's budget: a task that has used it up would be told "not yet" without being noted down for a
        // wake-up, and nobody asks again before `deadline`.
        pin!(tokio::task::unconstrained(sleep.as_mut())).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test]
    async fn a_task_that_has_used_up_its_budget_is_woken_all_the_same() {
        let (mut timer, mut spent) = (Timer::default(), false);
        let deadline = clock::now() + Duration::from_millis(20);
        let passed = poll_fn(|cx| {
            while !spent {
                spent = pin!(tokio::task::coop::consume_budget()).poll(cx).is_pending();
            }
            timer.poll(cx, deadline, clock::now())
        });
        // What ends the wait otherwise is this other timer, which asks once more.
        let waited = tokio::time::timeout(Duration::from_secs(20), passed).await;
        assert!(waited.is_ok() && clock::now() < deadline + Duration::from_secs(10), "the task was not woken");
    }
}
