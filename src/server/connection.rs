//! One client connection, from accept to close.

use super::http1;
use super::port::Place;
use super::worker::Worker;
use crate::clock;
use crate::config::Listener;
use crate::http1::head::HeadError;
use crate::net::io::Io;
use crate::proxy::respond::Refusal;
use crate::proxy::snapshot::Snapshot;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a connection knows for as long as it lives.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) address: SocketAddr,
    pub(super) place: Place,
    pub(super) worker: Arc<Worker>,
    /// Settings of the listener as they were when it was last there: a removed listener's connections end by these.
    pub(super) listener: Arc<Listener>,
}

/// Serves one connection to its end.
pub async fn serve(io: Io, address: SocketAddr, place: Place, worker: Arc<Worker>) {
    let listener = place.port().listener();
    let by = clock::after(clock::now(), listener.limits.header_timeout);
    let connection = Connection { address, place, worker, listener };
    http1::serve(connection, io, by).await;
}

// === impl Connection ===

impl Connection {
    /// `http` or `https`, as the client used it.
    pub(super) fn scheme(&self) -> &'static str {
        "http"
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

/// How long a quiet connection stays open once the gateway or its listener is going.
pub(super) const LAST_CALL: Duration = Duration::from_secs(1);

/// For the client to close after our last answer.
pub(super) const PART_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_little_more_than_a_socket() {
        fn size_of_output<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of_output(serve);
        assert!(
            size <= 512,
            "the task of a connection takes {size} bytes; what only a busy one needs belongs into `busy`"
        );
    }
}
