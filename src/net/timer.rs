//! One timer for one task, armed lazily.
//!
//! A request passes through many deadlines and almost never reaches one. Resetting a runtime timer for each costs more than
//! the deadlines are worth, so this one is only reset when a deadline is *earlier* than what is armed. Where it fires early
//! it is armed again for the deadline that counts by then.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
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
    /// to ask again).
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
        sleep.as_mut().poll(cx)
    }
}
