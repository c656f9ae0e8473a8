//! One client connection, from accept to close.

use super::arrival;
use super::http1;
use super::port::Place;
use super::worker::Worker;
use crate::clock;
use crate::config::Listener;
use crate::http1::head::HeadError;
use crate::net::io::{Io, Socket};
use crate::proxy::respond::Refusal;
use crate::proxy::snapshot::Snapshot;
use std::sync::Arc;
use std::time::Duration;

/// What a connection knows for as long as it lives.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) place: Place,
    pub(super) worker: Arc<Worker>,
    /// Settings of the listener as they were when it was last there: a removed listener's connections end by these.
    pub(super) listener: Arc<Listener>,
}

/// Serves one connection to its end.
pub fn serve(mut socket: Socket, place: Place, worker: Arc<Worker>) -> impl Future<Output = ()> + Send {
    let listener = place.port().listener();
    // Boxed, and not an `async fn`: each future it goes through would keep room for it, for as long as the connection lives.
    let mut connection = Box::new(Connection { place, worker, listener });
    async move {
        if arrival::admit(&mut socket, &mut connection.place).await {
            let by = clock::after(clock::now(), connection.listener.limits.header_timeout);
            http1::serve(connection, Io::Plain(socket), by).await;
        }
    }
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
