//! Tasks that answer requests of HTTP/2, one after the other.
//!
//! A request of HTTP/2 needs a task, because others of its connection are answered beside it. To make one for each, with its
//! state, its timer and its buffers, costs as much as to parse the request. So a task that has answered one waits for
//! another, of whatever connection of its worker.

use super::http2::Accepted;
use crate::proxy::Desk;
use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

/// Such a task, as whoever has a request for it sees it.
#[derive(Default)]
struct Clerk {
    /// Never contended: all of a worker runs on one thread.
    tray: Mutex<Tray>,
}

#[derive(Default)]
struct Tray {
    request: Option<Accepted>,
    waker: Option<Waker>,
}

/// Has a request answered beside others, by a task of this worker.
pub(super) fn answer(request: Accepted) {
    match free() {
        Some(clerk) => clerk.give(request),
        // Its future is large: boxed, it is moved once on its way to where it runs.
        None => drop(tokio::spawn(Box::pin(serve(request)))),
    }
}

/// A task that waits for a request.
fn free() -> Option<Arc<Clerk>> {
    // One that went down with its runtime is no help.
    FREE.with_borrow_mut(|free| std::iter::from_fn(|| free.pop()).find_map(|clerk| clerk.upgrade()))
}

/// Answers a request, and then others.
async fn serve(first: Accepted) {
    let clerk = Arc::new(Clerk::default());
    let mut desk = Desk::default();
    let mut request = first;
    loop {
        request.answer(&mut desk).await;
        if desk.head.fields.size().max(desk.answer.fields.size()) > DESK_BYTES || !clerk.is_kept() {
            return;
        }
        desk.head.clear();
        desk.answer.clear();
        request = poll_fn(|cx| clerk.poll_request(cx)).await;
    }
}

// === impl Clerk ===

impl Clerk {
    fn give(&self, request: Accepted) {
        let mut tray = self.tray();
        tray.request = Some(request);
        if let Some(waker) = &tray.waker {
            waker.wake_by_ref();
        }
    }

    /// Whether it may wait for another request.
    fn is_kept(self: &Arc<Self>) -> bool {
        FREE.with_borrow_mut(|free| {
            let kept = free.len() < CLERKS_KEPT;
            if kept {
                free.push(Arc::downgrade(self));
            }
            kept
        })
    }

    fn poll_request(&self, cx: &mut Context<'_>) -> Poll<Accepted> {
        let mut tray = self.tray();
        if let Some(request) = tray.request.take() {
            return Poll::Ready(request);
        }
        if !tray.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            tray.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn tray(&self) -> MutexGuard<'_, Tray> {
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// Those of this worker that wait; whoever waits for the shortest time comes first, as its memory is still warm.
    static FREE: RefCell<Vec<Weak<Clerk>>> = const { RefCell::new(Vec::new()) };
}

/// How many each worker keeps.
const CLERKS_KEPT: usize = 64;

/// Bytes of a head; who had to do with a longer one is not kept.
const DESK_BYTES: usize = 8 * 1024;
