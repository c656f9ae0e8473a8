//! A listening address: its sockets, and the count of what came in through them.

use crate::config::{Bind, Listener};
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
    pub bind: Bind,
    /// Where it really listens.
    pub local: SocketAddr,
    /// It accepts no more. To look costs nothing and disturbs no other core.
    closed: AtomicBool,
    /// Told when that becomes true.
    closing: Notify,
    /// What the file says of it, or said last. A std mutex: taken once a connection.
    settings: Mutex<Settings>,
    open: AtomicUsize,
    /// It was said that the limit is reached; forgotten once a tenth of it is free again.
    full: AtomicBool,
    /// Sockets through which connections may still come in, if only those the kernel has completed already.
    doors: AtomicUsize,
    /// Told whenever there may be more room: a connection ends, the limit changes, the last socket closes.
    room: Notify,
}

/// What a reload can change about a port.
#[derive(Debug, Clone)]
struct Settings {
    listener: Arc<Listener>,
    metrics: ListenerMetrics,
}

/// A port that listens, and a socket of it for each worker.
pub type Opened = (Arc<Port>, Vec<(Door, TcpListener)>);

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
    /// As metrics call it.
    protocol: &'static str,
}

// === impl Port ===

impl Port {
    /// Listens where `listener` says, with one socket for each worker. `beside_ours`: this process listens on that port
    /// number already, on another address; the one may contain the other (`127.0.0.1` and `0.0.0.0`).
    ///
    /// # Errors
    /// The address is in use or not ours.
    pub fn listen(
        listener: &Arc<Listener>,
        workers: usize,
        metrics: ListenerMetrics,
        beside_ours: bool,
    ) -> io::Result<Opened> {
        let Bind::Tcp(bind) = listener.bind else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "unix sockets are not built yet"));
        };
        let first = if beside_ours { listen(bind)? } else { claim(bind)? };
        let local = first.local_addr()?;
        let mut sockets = vec![first];
        for _ in 1..workers {
            sockets.push(listen(local)?);
        }
        let port = Arc::new(Port {
            bind: listener.bind.clone(),
            local,
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            settings: Mutex::new(Settings { listener: Arc::clone(listener), metrics }),
            open: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            doors: AtomicUsize::new(sockets.len()),
            room: Notify::new(),
        });
        let sockets = sockets.into_iter().map(|socket| (Door { port: Arc::clone(&port) }, socket)).collect();
        Ok((port, sockets))
    }

    /// A place for a connection.
    pub fn enter(self: &Arc<Self>) -> Place {
        self.open.fetch_add(1, Ordering::Relaxed);
        let metrics = self.settings().metrics;
        metrics.opened(HTTP1);
        Place { port: Arc::clone(self), metrics, protocol: HTTP1 }
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
    /// The connection turned out to speak this protocol.
    pub fn speaks(&mut self, protocol: &'static str) {
        self.metrics.closed(self.protocol);
        self.metrics.opened(protocol);
        self.protocol = protocol;
    }

    /// Where the connection came in.
    pub fn port(&self) -> &Port {
        &self.port
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let before = self.port.open.fetch_sub(1, Ordering::Relaxed);
        if self.port.full.load(Ordering::Relaxed) && before <= self.port.listener().limits.connections * 9 / 10 {
            self.port.full.store(false, Ordering::Relaxed);
        }
        self.metrics.closed(self.protocol);
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

/// What a connection is taken to speak until it shows otherwise, as metrics call it.
const HTTP1: &str = "http1";

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
        Port::listen(&listener(bind), 2, Metrics::new().listener("web"), beside_ours)
    }

    #[test]
    fn a_port_is_empty_once_every_socket_and_every_connection_is_gone() {
        let (port, mut doors) = open("127.0.0.1:0", false).expect("a free port");
        port.close();
        let mut empty = pin!(port.is_empty());
        let mut is_empty = || empty.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!is_empty(), "the kernel may still have completed a connection");
        doors.pop();
        let place = port.enter();
        doors.pop();
        assert!(!is_empty());
        drop(place);
        assert!(is_empty());
    }

    #[test]
    fn an_address_may_be_exchanged_for_a_wider_one_on_the_same_port() {
        let (port, _doors) = open("127.0.0.1:0", false).expect("a free port");
        let wider = format!("0.0.0.0:{}", port.local.port());
        let refused = open(&wider, false).expect_err("as if another process had it");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(open(&wider, true).is_ok());
    }
}
