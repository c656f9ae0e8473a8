//! A listening address: its sockets, and the count of what came in through them.

use crate::config::Listener;
use crate::observe::metrics::ListenerMetrics;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// An address clients connect to, alive from the reload that adds it to the one that removes it, whatever else changes.
#[derive(Debug)]
pub struct Port {
    /// As configured; with port 0 the kernel chose another, see `local`.
    pub bind: SocketAddr,
    /// Where it really listens.
    pub local: SocketAddr,
    /// It accepts no more. To look costs nothing and disturbs no other core.
    closed: AtomicBool,
    /// Told when that becomes true.
    closing: Notify,
    /// What the file says of it, or said last. A std mutex: taken once a connection.
    settings: Mutex<Settings>,
    open: AtomicUsize,
    /// Sockets somebody accepts from, or is about to.
    sockets: AtomicUsize,
    /// Told whenever there may be more room: a connection ends, the limit changes.
    room: Notify,
}

/// What a reload can change about a port.
#[derive(Debug, Clone)]
struct Settings {
    listener: Arc<Listener>,
    metrics: ListenerMetrics,
}

/// One socket of a port that connections are accepted from. A port is not empty before the last of these is dropped: its
/// backlog may still hold connections.
#[derive(Debug)]
pub struct Accepting(Arc<Port>);

/// One connection's place in the count; given back when dropped.
#[derive(Debug)]
pub struct Place {
    port: Arc<Port>,
    metrics: ListenerMetrics,
}

// === impl Port ===

impl Port {
    /// Listens where `listener` says, with one socket for each worker.
    ///
    /// # Errors
    /// The address is in use or not ours.
    pub fn listen(
        listener: &Arc<Listener>,
        workers: usize,
        metrics: ListenerMetrics,
    ) -> io::Result<(Arc<Port>, Vec<TcpListener>)> {
        let bind = listener.bind;
        let first = claim(bind)?;
        let local = first.local_addr()?;
        let mut sockets = vec![first];
        for _ in 1..workers {
            sockets.push(listen(local)?);
        }
        let port = Port {
            bind,
            local,
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            settings: Mutex::new(Settings { listener: Arc::clone(listener), metrics }),
            open: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            room: Notify::new(),
        };
        Ok((Arc::new(port), sockets))
    }

    /// A place for a connection.
    pub fn enter(self: &Arc<Self>) -> Place {
        self.open.fetch_add(1, Ordering::Relaxed);
        let metrics = self.settings().metrics;
        metrics.opened(PROTOCOL);
        Place { port: Arc::clone(self), metrics }
    }

    /// What the file says of it; what it said last, once it is gone from there.
    pub fn listener(&self) -> Arc<Listener> {
        self.settings().listener
    }

    /// The file says this of it now.
    pub fn follow(&self, listener: &Arc<Listener>, metrics: ListenerMetrics) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) =
            Settings { listener: Arc::clone(listener), metrics };
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

    /// From now on it accepts no more, and answers close their connections.
    pub fn close(&self) {
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

    /// One more socket of it is accepted from, for as long as what this returns lives.
    pub fn accepting(self: &Arc<Self>) -> Accepting {
        self.sockets.fetch_add(1, Ordering::Relaxed);
        Accepting(Arc::clone(self))
    }

    /// Waits until no connection is open, and none can come any more.
    pub async fn is_empty(&self) {
        self.until(|| self.sockets.load(Ordering::Relaxed) == 0 && self.open() == 0).await;
    }
}

// === impl Accepting ===

impl Accepting {
    /// The port.
    pub fn port(&self) -> &Arc<Port> {
        &self.0
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, Ordering::Relaxed);
        self.0.room.notify_waiters();
    }
}

// === impl Place ===

impl Place {
    /// Where the connection came in.
    pub fn port(&self) -> &Port {
        &self.port
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.port.open.fetch_sub(1, Ordering::Relaxed);
        self.metrics.closed(PROTOCOL);
        self.port.room.notify_waiters();
    }
}

/// The first socket of an address. Others of ours may share it; another process's may not: a plain bind finds that out,
/// which `SO_REUSEPORT` alone would silently allow.
fn claim(bind: SocketAddr) -> io::Result<TcpListener> {
    if bind.port() != 0 {
        socket(bind)?.bind(&bind.into())?;
    }
    listen(bind)
}

fn listen(bind: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(bind)?;
    socket.set_reuse_port(true)?;
    socket.bind(&bind.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn socket(bind: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(bind), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if bind.is_ipv6() {
        // `[::]` is IPv6 only, so that it and `0.0.0.0` can both be listed.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Connections the kernel holds for us before they are accepted, for each socket. It caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The protocol as metrics call it.
const PROTOCOL: &str = "http1";
