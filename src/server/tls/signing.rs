//! Threads for the costly steps of handshakes, so that requests do not wait behind somebody's signature.
//!
//! A signature takes as long as many requests, with RSA as long as dozens. Done on a worker, sixty-four of them are a pause
//! that every connection of that worker feels. These threads stand back behind the workers: they take what requests leave,
//! and a small share of a machine that is busy to the brim.

use crate::server::limits;
use rustix::process::{getpriority_process, setpriority_process};
use std::future::Future;
use std::panic;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// A step under way. Dropping it takes back a step that has not begun.
pub(super) struct Step<T>(JoinHandle<T>);

/// Computes `work` on one of the threads. The steps begin in the order in which they were given.
pub(super) fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Step<T> {
    Step(threads().spawn_blocking(work))
}

impl<T> Future for Step<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx).map(|joined| match joined {
            Ok(output) => output,
            // The runtime lives as long as the process and nothing but dropping us takes a step back, so this is a panic.
            Err(error) => panic::resume_unwind(error.into_panic()),
        })
    }
}

impl<T> Drop for Step<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One set of threads for the whole process, as there is one set of cores. They end when they have had nothing to do for
/// a while.
fn threads() -> &'static Runtime {
    static THREADS: OnceLock<Runtime> = OnceLock::new();
    THREADS.get_or_init(|| {
        Builder::new_current_thread()
            .max_blocking_threads(limits::cores())
            .thread_name("handshake")
            .on_thread_start(stand_back)
            .build()
            // Without IO and timers a runtime asks the system for nothing.
            .expect("a runtime that is only threads")
    })
}

/// Lowers the priority of the calling thread: on Linux it is each thread's own (`setpriority(2)`, notes).
fn stand_back() {
    let nice = getpriority_process(None).unwrap_or(0);
    // A system that refuses has equal threads: slower under a storm, not broken.
    let _: rustix::io::Result<()> = setpriority_process(None, (nice + NICER).min(19));
}

/// Steps of niceness behind the workers: a thread gets a tenth of a core that a worker wants for itself as well (`sched(7)`).
/// Fewer steps let a storm of handshakes through to requests; more would starve new connections of a busy machine.
const NICER: i32 = 10;
