//! A listening address: its sockets, and the count of what came in through them.

use super::addresses::Addresses;
use super::inherited::Sockets;
use super::listening::{self, Listening, SocketFile};
use super::tls::Terminator;
use crate::clock;
use crate::config::{Bind, Listener};
use crate::instant::Instant;
use crate::net::io::{Address, Io};
use crate::observe::metrics::{ConnectionRefused, ListenerMetrics};
use crate::proxy::identity::Origin;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// An address clients connect to, alive from the reload that adds it to the one that removes it, whatever else changes.
#[derive(Debug)]
pub struct Port {
    /// As configured; with port 0 the kernel chose another, see `local`.
    pub bind: Bind,
    /// Where it really listens.
    pub local: Bind,
    /// The file of its socket, where that is at a path and the file is ours to remove.
    file: Option<SocketFile>,
    /// It accepts no more. To look costs nothing and disturbs no other core.
    closed: AtomicBool,
    /// Told when that becomes true.
    closing: Notify,
    /// What the file says of it, or said last. A std mutex: taken once a connection.
    settings: Mutex<Settings>,
    open: AtomicUsize,
    /// The same by address.
    addresses: Addresses,
    /// What was said lately of connections that were refused.
    said: Mutex<Said>,
    /// It was said that the limit is reached; forgotten once a tenth of it is free again.
    full: AtomicBool,
    /// Sockets through which connections may still come in, if only those the kernel has completed already.
    doors: AtomicUsize,
    /// Told whenever there may be more room: a connection ends, the limit changes, the last socket closes.
    room: Notify,
    /// The sockets once more, to be handed to another process; empty once it is closed. A std mutex: taken at either event.
    sockets: Mutex<Vec<OwnedFd>>,
    /// Somebody else holds the sockets too: what waits in them is theirs when this port closes.
    kept: AtomicBool,
    /// A service manager does.
    activated: bool,
}

/// What a reload can change about a port.
#[derive(Debug, Clone)]
struct Settings {
    listener: Arc<Listener>,
    metrics: ListenerMetrics,
    /// Where it speaks TLS.
    terminator: Option<Arc<Terminator>>,
}

/// A port that listens, and its sockets: at least one for each worker.
pub type Opened = (Arc<Port>, Vec<(Door, Listening)>);

/// One listening socket's share of a port; the port is not empty before all of them were dropped.
#[derive(Debug)]
pub struct Door {
    port: Arc<Port>,
}

/// One connection's place in the count; given back when dropped.
#[derive(Debug)]
pub struct Place {
    port: Arc<Port>,
    metrics: ListenerMetrics,
    /// Where the connection comes from: the other end of its socket, until its PROXY header says otherwise.
    origin: Origin,
    /// It is counted among the addresses.
    counted: bool,
    /// It speaks HTTP/2.
    http2: bool,
    /// See [`Place::ends_at`].
    ends_at: Option<Instant>,
}

/// Keeps a flood of refused connections from becoming a flood of log lines.
#[derive(Debug, Default)]
struct Said {
    /// When a line may be written again.
    next: Option<Instant>,
    /// Refused since the last line, without one of their own.
    unsaid: u64,
}

// === impl Port ===

impl Port {
    /// Listens where `listener` says: with one socket for each worker at an address, with one that all share at a path; or on
    /// those `given`, which are open already. `beside_ours`: this process, or the one it replaces, listens on that port number
    /// already, on another address; the one may contain the other (`127.0.0.1` and `0.0.0.0`).
    ///
    /// # Errors
    /// The address is in use or not ours; the path is in use, or what is there is no socket.
    pub fn listen(
        listener: &Arc<Listener>,
        workers: usize,
        metrics: ListenerMetrics,
        beside_ours: bool,
        given: Option<Sockets>,
    ) -> io::Result<Opened> {
        if let Some(given) = given {
            let kept = given.kept;
            let file = match &listener.bind {
                // The process before removes it, or a service manager, until it is said to be ours.
                Bind::Unix(path) if !kept => SocketFile::theirs(path).ok(),
                _ => None,
            };
            return Port::over(listener, listening::adopt(given, workers)?, file, kept, metrics);
        }
        match &listener.bind {
            Bind::Tcp(bind) => {
                let sockets = listening::at_address(*bind, workers, beside_ours)?;
                Port::over(listener, sockets, None, false, metrics)
            }
            Bind::Unix(path) => {
                let (socket, file) = listening::at_path(path)?;
                Port::over(listener, shared(socket, workers)?, Some(file), false, metrics)
            }
        }
    }

    /// A port over sockets that listen already, at least one for each worker. `file` is that of a socket at a path, where it
    /// is ours to remove when the port closes; `activated` says that a service manager holds the sockets too.
    ///
    /// # Errors
    /// A socket that does not know its address; no more descriptors.
    fn over(
        listener: &Arc<Listener>,
        sockets: Vec<Listening>,
        file: Option<SocketFile>,
        activated: bool,
        metrics: ListenerMetrics,
    ) -> io::Result<Opened> {
        let local = match sockets.first() {
            Some(Listening::Tcp(socket)) => Bind::Tcp(socket.local_addr()?),
            Some(Listening::Unix(socket)) => {
                let path = socket.local_addr()?.as_pathname().map(ToOwned::to_owned);
                path.map_or_else(|| listener.bind.clone(), Bind::Unix)
            }
            None => listener.bind.clone(),
        };
        let again = sockets.iter().map(|socket| socket.try_clone().map(OwnedFd::from)).collect::<io::Result<_>>()?;
        let port = Arc::new(Port {
            bind: listener.bind.clone(),
            local,
            file,
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            settings: Mutex::new(Settings { listener: Arc::clone(listener), metrics, terminator: None }),
            open: AtomicUsize::new(0),
            addresses: Addresses::default(),
            said: Mutex::default(),
            full: AtomicBool::new(false),
            doors: AtomicUsize::new(sockets.len()),
            room: Notify::new(),
            sockets: Mutex::new(again),
            kept: AtomicBool::new(activated),
            activated,
        });
        let sockets = sockets.into_iter().map(|socket| (Door { port: Arc::clone(&port) }, socket)).collect();
        Ok((port, sockets))
    }

    /// No other process listens on its sockets any more, so a file of theirs is this one's to remove.
    pub fn take_file(&self) {
        if let Some(file) = &self.file {
            file.take();
        }
    }

    /// A place for a connection that comes from there.
    pub fn enter(self: &Arc<Self>, from: Address) -> Place {
        self.open.fetch_add(1, Ordering::Relaxed);
        let Settings { listener, metrics, .. } = self.settings();
        metrics.opened(protocol(false));
        let age = listener.limits.connection_age;
        let ends_at = age.map(|age| clock::after(clock::now(), spread(age, fastrand::f64())));
        Place { port: Arc::clone(self), metrics, origin: from.into(), counted: false, http2: false, ends_at }
    }

    /// What the file says of it; what it said last, once it is gone from there.
    pub fn listener(&self) -> Arc<Listener> {
        self.settings().listener
    }

    /// What makes its connections secure, where it speaks TLS; handshakes that begin from now on use it.
    pub fn terminator(&self) -> Option<Arc<Terminator>> {
        self.settings().terminator
    }

    /// The file says this of it now.
    pub fn follow(&self, listener: &Arc<Listener>, metrics: ListenerMetrics, terminator: Option<Arc<Terminator>>) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) =
            Settings { listener: Arc::clone(listener), metrics, terminator };
        self.room.notify_waiters();
    }

    fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until fewer connections are open than its limit allows at the time.
    pub async fn has_room(&self) {
        let limit = self.listener().limits.connections;
        if self.open() < limit {
            return;
        }
        // Once each time it fills up, not for each client that waits.
        if !self.full.swap(true, Ordering::Relaxed) {
            let listener = self.listener();
            tracing::warn!(listener = %listener.name, limit, "as many connections are open as the listener takes; others wait");
        }
        self.until(|| self.open() < self.listener().limits.connections).await;
    }

    /// Waits for `condition`, which changes when there is more room.
    async fn until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            let room = self.room.notified();
            if !condition() {
                room.await;
            }
        }
    }

    /// Its sockets, for another process. None of them is left once it is closed.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn share(&self) -> io::Result<Sockets> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let open = sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        Ok(Sockets { open, kept: self.activated })
    }

    /// Another process accepts on its sockets: this one leaves them to it.
    pub fn hand_over(&self) {
        if let Some(file) = &self.file {
            file.leave();
        }
        self.kept.store(true, Ordering::Release);
        self.close();
    }

    /// Whether somebody else goes on accepting on its sockets.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }

    /// From now on it accepts no more, and answers close their connections.
    pub fn close(&self) {
        if let Some(file) = &self.file {
            file.remove();
        }
        // First these: the workers' must be the last ones, to be closed with nobody waiting in them.
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.closed.store(true, Ordering::Release);
        self.closing.notify_waiters();
    }

    /// Turns true when it accepts no more.
    #[inline]
    pub fn closed(&self) -> &AtomicBool {
        &self.closed
    }

    /// Whether it accepts no more.
    #[inline]
    pub fn is_closing(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Resolves when this port closes; it does not if that was before, so look at [`Port::is_closing`] afterwards.
    pub fn closes(&self) -> Notified<'_> {
        self.closing.notified()
    }

    /// Waits until no connection is open, and none can come any more.
    pub async fn is_empty(&self) {
        self.until(|| self.is_over()).await;
    }

    /// Whether no connection is open, and none can come any more.
    pub fn is_over(&self) -> bool {
        // In this order: the last connection of a socket enters before the socket's door is dropped.
        self.doors.load(Ordering::Acquire) == 0 && self.open() == 0
    }
}

// === impl Door ===

impl Door {
    /// What it leads into.
    pub fn port(&self) -> &Arc<Port> {
        &self.port
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.port.doors.fetch_sub(1, Ordering::Release);
        self.port.room.notify_waiters();
    }
}

// === impl Place ===

impl Place {
    /// The connection turned out to speak HTTP/2. It is taken to speak HTTP/1 until then.
    pub fn speaks_http2(&mut self) {
        self.metrics.closed(protocol(self.http2));
        self.http2 = true;
        self.metrics.opened(protocol(self.http2));
    }

    /// Where the connection came in.
    pub fn port(&self) -> &Port {
        &self.port
    }

    /// Where the connection comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Its PROXY header says otherwise. Before it is counted: it counts where it comes from.
    pub fn comes_from(&mut self, origin: Origin) {
        debug_assert!(!self.counted, "it would leave where it never entered");
        self.origin = origin;
    }

    /// Several requests will share the connection: notes our end of it, which none of them will have at hand.
    pub fn is_reached_at(&mut self, io: &Io) {
        if self.origin.local.is_none() {
            self.origin.local = io.socket().local().map(Box::new);
        }
    }

    /// When the connection is old enough to end: with the next answer, or at once where it is idle. Drawn when it began,
    /// so that connections which came together do not leave together.
    #[inline]
    pub fn ends_at(&self) -> Option<Instant> {
        self.ends_at
    }

    /// True once the connection's answers are to close it: its port accepts no more, or it is old enough.
    #[inline]
    pub fn closing(&self) -> &AtomicBool {
        static OLD: AtomicBool = AtomicBool::new(true);
        if self.ends_at.is_some_and(|at| clock::now() >= at) { &OLD } else { &self.port.closed }
    }

    /// Counts the connection for its address; false where as many are open from there as `limit` allows. Unix sockets have
    /// no addresses and are not counted.
    pub fn count(&mut self, limit: usize) -> bool {
        let Some(ip) = self.origin.address.ip() else { return true };
        self.counted = self.port.addresses.enter(ip, limit);
        self.counted
    }

    /// Notes that the connection is refused, in the metric, and in the log where nothing was said for a while.
    pub fn refuse(&self, reason: ConnectionRefused, why: &dyn fmt::Display) {
        self.metrics.refused(reason);
        let due = self.port.said.lock().unwrap_or_else(PoisonError::into_inner).due(clock::now());
        if let Some(unsaid) = due {
            let listener = self.port.listener();
            tracing::warn!(listener = %listener.name, from = %self.origin.address, unsaid, "a connection is refused: {why}");
        }
    }
}

// === impl Said ===

impl Said {
    /// Whether one more refusal is to be logged, and if so how many were not since the last that was.
    fn due(&mut self, now: Instant) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.unsaid += 1;
            return None;
        }
        self.next = Some(clock::after(now, SAID_EVERY));
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let before = self.port.open.fetch_sub(1, Ordering::Relaxed);
        if self.port.full.load(Ordering::Relaxed) && before <= self.port.listener().limits.connections * 9 / 10 {
            self.port.full.store(false, Ordering::Relaxed);
        }
        if let (true, Some(ip)) = (self.counted, self.origin.address.ip()) {
            self.port.addresses.leave(ip);
        }
        self.metrics.closed(protocol(self.http2));
        self.port.room.notify_waiters();
    }
}

/// The one socket of a path for each worker.
fn shared(socket: Listening, workers: usize) -> io::Result<Vec<Listening>> {
    let mut sockets: Vec<_> = (1..workers).map(|_| socket.try_clone()).collect::<io::Result<_>>()?;
    sockets.push(socket);
    Ok(sockets)
}

/// As metrics call it.
fn protocol(http2: bool) -> &'static str {
    if http2 { "http2" } else { "http1" }
}

/// `age`, a tenth more or less; `draw` is from 0 to 1.
fn spread(age: Duration, draw: f64) -> Duration {
    let tenth = age / 10;
    age.saturating_sub(tenth).saturating_add((2 * tenth).mul_f64(draw))
}

/// Between two log lines about refused connections of a port. The metric counts each.
const SAID_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, ProcessEnvironment};
    use crate::observe::metrics::Metrics;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn listener(bind: &str) -> Arc<Listener> {
        let yaml =
            format!("listeners: [{{ name: web, bind: \"{bind}\" }}]\nroutes: [{{ name: all, respond: {{}} }}]\n");
        let loaded = config::parse("gateway.yaml", yaml.as_bytes(), &ProcessEnvironment).expect("a valid file");
        Arc::clone(&loaded.config.listeners[0])
    }

    fn open(bind: &str, beside_ours: bool) -> io::Result<Opened> {
        Port::listen(&listener(bind), 2, Metrics::new().listener("web"), beside_ours, None)
    }

    #[test]
    fn a_port_is_empty_once_every_socket_and_every_connection_is_gone() {
        let (port, mut doors) = open("127.0.0.1:0", false).expect("a free port");
        port.close();
        let mut empty = pin!(port.is_empty());
        let mut is_empty = || empty.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!is_empty(), "the kernel may still have completed a connection");
        doors.pop();
        let place = port.enter(Address::Unix);
        doors.pop();
        assert!(!is_empty());
        drop(place);
        assert!(is_empty());
    }

    #[test]
    fn an_age_is_spread_by_a_tenth_to_both_sides() {
        let age = Duration::from_secs(100);
        assert_eq!(spread(age, 0.0), Duration::from_secs(90));
        assert_eq!(spread(age, 0.5), Duration::from_secs(100));
        assert_eq!(spread(age, 1.0), Duration::from_secs(110));
        assert_eq!(spread(Duration::MAX, 1.0), Duration::MAX);
    }

    #[test]
    fn a_flood_of_refusals_is_one_line_and_a_number() {
        let mut said = Said::default();
        let now = clock::now();
        assert_eq!(said.due(now), Some(0));
        assert_eq!(said.due(now), None);
        assert_eq!(said.due(now + SAID_EVERY.saturating_sub(Duration::from_nanos(1))), None);
        assert_eq!(said.due(now + SAID_EVERY), Some(2));
        assert_eq!(said.due(now + 2 * SAID_EVERY), Some(0));
    }

    #[test]
    fn an_address_may_be_exchanged_for_a_wider_one_on_the_same_port() {
        let (port, _doors) = open("127.0.0.1:0", false).expect("a free port");
        let wider = format!("0.0.0.0:{}", port.local.tcp().expect("an address").port());
        let refused = open(&wider, false).expect_err("as if another process had it");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(open(&wider, true).is_ok());
    }
}
