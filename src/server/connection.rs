//! One client connection, from accept to close.

use super::arrival;
use super::port::Place;
use super::tls::{Negotiated, Terminator};
use super::worker::Worker;
use super::{http1, http2};
use crate::clock;
use crate::config::Listener;
use crate::http1::head::HeadError;
use crate::instant::Instant;
use crate::net::io::{Io, Socket};
use crate::proxy::respond::Refusal;
use crate::proxy::snapshot::Snapshot;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// What a connection knows for as long as it lives.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) place: Place,
    pub(super) worker: Arc<Worker>,
    /// Settings of the listener as they were when it was last there: a removed listener's connections end by these.
    pub(super) listener: Arc<Listener>,
    /// It came through TLS.
    pub(super) tls: bool,
}

/// A connection that is about to send its first head.
pub(super) struct Begun {
    pub(super) connection: Connection,
    pub(super) io: Io,
}

/// Serves one connection to its end.
pub fn serve(socket: Socket, place: Place, worker: Arc<Worker>) -> impl Future<Output = ()> + Send {
    // How a connection begins needs much and is soon over: apart, it is not part of every connection's task. Not an `async
    // fn`: that would keep what it is given beside what becomes of it, for as long as the connection lives.
    let beginning = Box::pin(begin(socket, place, worker));
    async move { http1::serve(beginning.await).await }
}

/// Finds out where a connection comes from and what is spoken on it. One that speaks HTTP/1, or has yet to show that it does
/// not, comes back.
async fn begin(mut socket: Socket, mut place: Place, worker: Arc<Worker>) -> Option<Begun> {
    let listener = place.port().listener();
    if !arrival::admit(&mut socket, &mut place).await {
        return None;
    }
    let connection = Connection { place, worker, listener, tls: false };
    match connection.place.port().terminator() {
        Some(terminator) => secure(connection, socket, terminator).await,
        None => Some(Begun { connection, io: Io::Plain(socket) }),
    }
}

/// Takes a connection through the TLS handshake. Where HTTP/2 was agreed on it is served here; one that is to speak HTTP/1
/// comes back.
async fn secure(mut connection: Connection, socket: Socket, terminator: Arc<Terminator>) -> Option<Begun> {
    let secured = terminator.accept(socket, terminator.deadline(clock::now())).await;
    // Later handshakes may have another one; this connection needs none any more.
    drop(terminator);
    match secured {
        Ok(secured) => {
            connection.tls = true;
            match secured.protocol {
                Negotiated::Http1 => return Some(Begun { connection, io: secured.io }),
                Negotiated::Http2 => {
                    let by = connection.head_by();
                    Box::pin(http2::serve(connection, secured.io, Vec::new(), by)).await;
                }
            }
        }
        Err(error) => {
            error.log(&connection.listener.name, connection.place.origin().address);
            if let Some(socket) = error.into_cleartext() {
                Box::pin(http1::refuse(connection, Io::Plain(socket), SPEAKS_TLS)).await;
            }
        }
    }
    None
}

// === impl Connection ===

impl Connection {
    /// `http` or `https`, as the client used it.
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// When the first head has to be there, from now on.
    pub(super) fn head_by(&self) -> Instant {
        clock::after(clock::now(), self.listener.limits.header_timeout)
    }

    /// Whether the client may begin to speak HTTP/2 without having agreed on it: in the clear. Under TLS it is ALPN that says.
    pub(super) fn takes_preface(&self) -> bool {
        self.listener.protocols.http2 && !self.tls
    }

    /// Takes over the listener's settings from a snapshot that is new to it.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        if let Some(listener) = snapshot.listener(&self.place.port().bind)
            && !Arc::ptr_eq(listener, &self.listener)
        {
            self.listener = Arc::clone(listener);
        }
    }
}

/// What is refused of a head that breaks its protocol, and why.
pub(super) fn refuse_malformed(error: &HeadError) -> (Refusal, &'static str) {
    match *error {
        HeadError::Malformed(why) => (Refusal::BadRequest, why),
        HeadError::TooManyFields => (Refusal::HeadTooLarge, "The request head has too many fields."),
    }
}

/// What a client is told that speaks HTTP in the clear on a port of TLS.
const SPEAKS_TLS: &str = "This port speaks TLS; use https://.";

/// Said of a head beyond `header_bytes`.
pub(super) const HEAD_TOO_LONG: &str = "The request head is longer than this listener takes.";

/// How long a quiet connection stays open once the gateway or its listener is going.
pub(super) const LAST_CALL: Duration = Duration::from_secs(1);

/// For the client to close after our last answer.
pub(super) const PART_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_little_more_than_a_socket() {
        fn size_of_output<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of_output(serve);
        assert!(
            size <= 640,
            "the task of a connection takes {size} bytes; what only a busy one needs belongs into `busy`"
        );
    }
}
