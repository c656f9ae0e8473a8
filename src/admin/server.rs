//! The admin listener's sockets: a bounded number of connections, deadlines on both directions, a graceful end.

use super::api;
use super::control::Control;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{sleep, timeout};

/// Serves operators on `listener` until `stop` turns true (or its sender is gone), then lets answers under way end.
///
/// # Errors
/// The runtime refused the listener.
pub async fn serve(
    listener: std::net::TcpListener,
    control: Arc<dyn Control>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let router = api::router(Arc::clone(&control));
    let mut connections = JoinSet::new();
    let mut open = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(ended) = connections.join_next() => note(&ended, &*control),
            stream = accept(&listener) => {
                make_room(&mut open);
                open.push_back(connections.spawn(converse(stream, router.clone(), stop.clone())));
            }
        }
    }
    drop(listener);
    let ends = async { while connections.join_next().await.is_some() {} };
    if timeout(STOP_GRACE, ends).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

/// The next connection.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                // Out of descriptors, mostly: trying again at once would only turn a core.
                tracing::warn!(%error, "the admin listener could not accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Where there are as many connections as there may be, ends the oldest. Letting new ones wait instead would let anybody
/// who can connect, token or not, keep the probes of a supervisor out, which would then restart a healthy gateway.
fn make_room(open: &mut VecDeque<AbortHandle>) {
    if open.len() >= CONNECTIONS_MAX {
        open.retain(|connection| !connection.is_finished());
    }
    while open.len() >= CONNECTIONS_MAX {
        open.pop_front().inspect(AbortHandle::abort);
    }
}

/// One connection, from its first request to its last answer.
async fn converse(stream: TcpStream, router: Router, mut stop: watch::Receiver<bool>) {
    prepare(&stream);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX).max_buf_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection broke");
    }
}

/// A socket that refuses an option still works; it only is a little slower or gives up later.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(WRITE_TIME_MAX));
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say it.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn note(ended: &Result<(), JoinError>, control: &dyn Control) {
    if let Err(error) = ended
        && error.is_panic()
    {
        control.metrics().panicked();
        tracing::error!(%error, "an admin connection met a defect");
    }
}

/// Operators, scrapers and probes are few. A further connection ends the oldest.
pub(super) const CONNECTIONS_MAX: usize = 256;

/// From the end of one request to the complete head of the next. A scraper that pauses longer connects again.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// Bytes of a head; more is 431.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// How long a caller may leave an answer unread before the kernel closes the connection.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// Between two tries to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long answers under way may take when the gateway ends.
const STOP_GRACE: Duration = Duration::from_secs(5);
