//! What a service manager is told: ready, reloading, stopping, who the main process is, and that the workers are alive.
//!
//! Nobody listens unless `NOTIFY_SOCKET` is set; then every call here does nothing.

use crate::clock;
use sd_notify::NotifyState;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Tells the service manager, until it is dropped, that the workers are alive.
#[derive(Debug)]
pub struct Watchdog {
    /// Dropping it ends the thread.
    _stop: Sender<()>,
    _thread: JoinHandle<()>,
}

// === impl Watchdog ===

impl Watchdog {
    /// Starts where the service manager wants to be told (`WATCHDOG_USEC`). `alive` returns when all is well, and not before.
    ///
    /// # Errors
    /// The system refused a thread.
    pub fn start(alive: impl AsyncFn() + Send + 'static) -> io::Result<Option<Watchdog>> {
        sd_notify::watchdog_enabled()
            .map(|within| Watchdog::every(within / 2, alive, || notify(&[NotifyState::Watchdog])))
            .transpose()
    }

    /// Has `tell` called every `span`, as long as `alive` returns.
    fn every(
        span: Duration,
        alive: impl AsyncFn() + Send + 'static,
        tell: impl Fn() + Send + 'static,
    ) -> io::Result<Watchdog> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            loop {
                // Says nothing while a worker hangs. That is what it is for.
                runtime.block_on(alive());
                tell();
                if stopped.recv_timeout(span) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Watchdog { _stop: stop, _thread: thread })
    }
}

/// Serving. `status` is for people.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reading the configuration again; [`ready`] says that this is over, whatever came of it.
pub fn reloading() {
    notify(&[NotifyState::Reloading, NotifyState::MonotonicUsec(clock::monotonic_microseconds())]);
}

/// On the way out.
pub fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// What is going on, for people.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// From now on the process `pid` is the one that counts. It is alive at this moment, and tells so itself from now on.
pub fn main_process(pid: u32, status: &str) {
    notify(&[NotifyState::MainPid(pid), NotifyState::Watchdog, NotifyState::Status(status)]);
}

/// The variables of this process's environment that mean this process only: its successor is to be told without them.
pub fn variables_of_this_process() -> Vec<&'static str> {
    let watched = sd_notify::watchdog_enabled().map(|_| "WATCHDOG_PID");
    watched.into_iter().chain(["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]).collect()
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, ?states, "the service manager cannot be told; is NOTIFY_SOCKET still there?");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Long enough for any machine; only a failure takes so long.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_watchdog_is_told_again_and_again_and_no_more_while_a_worker_hangs() {
        let (tell, told) = channel();
        let hangs = Arc::new(AtomicBool::new(false));
        let (asked, asks) = channel();
        let theirs = Arc::clone(&hangs);
        let alive = async move || {
            let hangs = theirs.load(Ordering::SeqCst);
            asked.send(hangs).expect("the test listens");
            if hangs {
                std::future::pending::<()>().await;
            }
        };
        let tell = move || tell.send(()).unwrap_or_default();
        let watchdog = Watchdog::every(Duration::from_millis(1), alive, tell).expect("a thread");
        for _ in 0..3 {
            told.recv_timeout(PATIENCE).expect("all is well");
        }
        hangs.store(true, Ordering::SeqCst);
        while !asks.recv_timeout(PATIENCE).expect("it goes on asking") {}
        while told.try_recv().is_ok() {}
        assert_eq!(told.recv_timeout(Duration::from_millis(100)), Err(RecvTimeoutError::Timeout));
        drop(watchdog);
    }

    #[test]
    fn a_watchdog_that_is_dropped_says_nothing_more() {
        let (tell, told) = channel();
        let tell = move || tell.send(()).unwrap_or_default();
        drop(Watchdog::every(PATIENCE, async || {}, tell).expect("a thread"));
        while told.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Disconnected) {}
    }
}
