//! One client connection, from accept to close.

use super::arrival;
use super::port::Place;
use super::tls::{Negotiated, Terminator};
use super::worker::Worker;
use super::{http1, http2};
use crate::clock;
use crate::config::Listener;
use crate::http1::head::HeadError;
use crate::net::io::{Io, Socket};
use crate::proxy::respond::Refusal;
use crate::proxy::snapshot::Snapshot;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a connection knows for as long as it lives.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) place: Place,
    pub(super) worker: Arc<Worker>,
    /// Settings of the listener as they were when it was last there: a removed listener's connections end by these.
    pub(super) listener: Arc<Listener>,
    /// `http` or `https`, as the client used it.
    pub(super) scheme: &'static str,
}

/// Serves one connection to its end.
pub fn serve(mut socket: Socket, place: Place, worker: Arc<Worker>) -> impl Future<Output = ()> + Send {
    let listener = place.port().listener();
    // Boxed, and not an `async fn`: each future it goes through would keep room for it, for as long as the connection lives.
    let mut connection = Box::new(Connection { place, worker, listener, scheme: "http" });
    async move {
        if !arrival::admit(&mut socket, &mut connection.place).await {
            return;
        }
        if let Some(terminator) = connection.place.port().terminator() {
            return Box::pin(secure(connection, socket, terminator)).await;
        }
        let by = connection.head_by();
        http1::serve(connection, Io::Plain(socket), by).await;
    }
}

/// Takes a connection through the TLS handshake, then serves what was agreed on.
async fn secure(mut connection: Box<Connection>, socket: Socket, terminator: Arc<Terminator>) {
    let secured = terminator.accept(socket, terminator.deadline(clock::now())).await;
    // Later handshakes may have another one; this connection needs none any more.
    drop(terminator);
    match secured {
        Ok(secured) => {
            connection.scheme = "https";
            let by = connection.head_by();
            match secured.protocol {
                Negotiated::Http1 => http1::serve(connection, secured.io, by).await,
                Negotiated::Http2 => Box::pin(http2::serve(*connection, secured.io, Vec::new(), by)).await,
            }
        }
        Err(error) => {
            error.log(&connection.listener.name, connection.place.origin().address);
            if let Some(socket) = error.into_cleartext() {
                Box::pin(http1::refuse(*connection, Io::Plain(socket), SPEAKS_TLS)).await;
            }
        }
    }
}

// === impl Connection ===

impl Connection {
    /// `http` or `https`, as the client used it.
    pub(super) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// When the first head has to be there, from now on.
    fn head_by(&self) -> Instant {
        clock::after(clock::now(), self.listener.limits.header_timeout)
    }

    /// Whether the client may begin to speak HTTP/2 without having agreed on it: in the clear. Under TLS it is ALPN that says.
    pub(super) fn takes_preface(&self) -> bool {
        self.listener.protocols.http2 && self.scheme == "http"
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
            size <= 512,
            "the task of a connection takes {size} bytes; what only a busy one needs belongs into `busy`"
        );
    }
}
