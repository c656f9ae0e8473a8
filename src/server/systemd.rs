//! What a service manager is told: ready, reloading, stopping, who the main process is, and that the workers are alive.
//!
//! Nobody listens unless `NOTIFY_SOCKET` is set; then every call here does nothing.

use crate::clock;
use sd_notify::NotifyState;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
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
    let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
    let text = format!("{}\n", lines.join("\n"));
    if let Err(error) = send(&socket, text.as_bytes()) {
        tracing::warn!(%error, ?states, "the service manager cannot be told; is it there, and does it listen?");
    }
}

/// Sends to `socket`, a path or, after `@`, a name without one. The library's own way waits for ever where a service manager
/// has stopped to read, and with it would the signals and the watchdog.
fn send(socket: &OsStr, text: &[u8]) -> io::Result<()> {
    let to = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let from = UnixDatagram::unbound()?;
    from.set_write_timeout(Some(TELL_TIME))?;
    from.send_to_addr(text, &to)?;
    Ok(())
}

/// How long a service manager may take until it has room for what it is told.
const TELL_TIME: Duration = Duration::from_secs(1);

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
    fn a_service_manager_is_found_by_path_and_by_name_and_one_that_does_not_read_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("sluice-test-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&name).expect("a name");
        let sockets = [
            (UnixDatagram::bind(&path).expect("a socket"), path.into_os_string()),
            (UnixDatagram::bind_addr(&by_name).expect("a socket"), format!("@{name}").into()),
        ];
        for (socket, address) in sockets {
            send(&address, b"READY=1\n").expect("there is room");
            let mut text = [0; 64];
            let len = socket.recv(&mut text).expect("a message");
            assert_eq!(&text[..len], b"READY=1\n");
            let full = (0..10_000).find_map(|_| send(&address, b"WATCHDOG=1\n").err()).expect("it fills up");
            assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_watchdog_that_is_dropped_says_nothing_more() {
        let (tell, told) = channel();
        let tell = move || tell.send(()).unwrap_or_default();
        drop(Watchdog::every(PATIENCE, async || {}, tell).expect("a thread"));
        while told.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Disconnected) {}
    }
}
