//! What stands behind the gateway: a provider in HTTP/1 and one in HTTP/2, which note each request they get.

use super::ledger::{END, Ledger, Reply, event_text};
use super::wires::Http1;
use crate::http2::{Http2Provider, drain, runtime, send_all};
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A provider in HTTP/1. It lives as long as the tests do.
pub(super) fn http1(ledger: &Arc<Ledger>) -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket option");
    let address = listener.local_addr().expect("a bound socket");
    let ledger = Arc::clone(ledger);
    runtime().spawn(async move {
        let listener = TcpListener::from_std(listener).expect("a listener");
        while let Ok((socket, _)) = listener.accept().await {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                socket.set_nodelay(true).expect("a socket option");
                if let Err(error) = serve(Http1::new(Box::new(socket)), &ledger).await {
                    ledger.fail(format!("the gateway broke a provider's connection: {error}"));
                }
            });
        }
    });
    address
}

/// Serves a connection until the gateway ends it between two requests.
async fn serve(mut wire: Http1, ledger: &Ledger) -> io::Result<()> {
    while let Some(head) = wire.head().await? {
        let body = wire.body(&head).await?;
        let [number, digest] = ["x-number", "x-digest"].map(|name| head.value(name).unwrap_or_default());
        let mut events = match ledger.receive(head.second(), number, digest, &body) {
            Reply::Whole(answer) => {
                let mut whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len()).into_bytes();
                whole.extend(answer);
                wire.send(&whole).await?;
                continue;
            }
            events => Events::of(events),
        };
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await?;
        while let Some(text) = events.next().await {
            wire.send(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await?;
        }
        wire.send(b"0\r\n\r\n").await?;
    }
    Ok(())
}

/// A provider in HTTP/2.
pub(super) fn http2(ledger: &Arc<Ledger>) -> Http2Provider {
    let ledger = Arc::clone(ledger);
    Http2Provider::scripted(move |mut asked| {
        let ledger = Arc::clone(&ledger);
        async move {
            let body = match drain(&mut asked.body).await {
                Ok((body, _)) => body,
                Err(error) => return ledger.fail(format!("the gateway broke a request to a provider: {error}")),
            };
            let field = |name| asked.head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let reply = ledger.receive(asked.head.uri.path(), field("x-number"), field("x-digest"), &body);
            let mut send = asked.begin(200, &[("content-type", "text/event-stream")], false);
            let whole = match reply {
                Reply::Whole(answer) => send_all(&mut send, answer.into()).await,
                events => {
                    let (mut events, mut whole) = (Events::of(events), true);
                    while let (true, Some(text)) = (whole, events.next().await) {
                        whole = send_all(&mut send, Bytes::from(text)).await;
                    }
                    whole
                }
            };
            if !whole || send.send_data(Bytes::new(), true).is_err() {
                ledger.fail("the gateway did not take a provider's whole answer".to_owned());
            }
        }
    })
}

/// The events of a stream, as they are due.
enum Events {
    Short { sent: u64, last: u64 },
    Long { sent: u64, due: watch::Receiver<u64> },
}

// === impl Events ===

impl Events {
    fn of(reply: Reply) -> Self {
        match reply {
            Reply::Short(last) => Events::Short { sent: 0, last },
            // The first it sends is the latest there is.
            Reply::Long(due) => {
                let sent = due.borrow().saturating_sub(1);
                Events::Long { sent, due }
            }
            Reply::Whole(_) => unreachable!("no stream"),
        }
    }

    async fn next(&mut self) -> Option<String> {
        match self {
            Events::Short { sent, last } => {
                if sent == last {
                    return None;
                }
                tokio::time::sleep(BETWEEN).await;
                *sent += 1;
                Some(event_text(*sent))
            }
            Events::Long { sent, due } => {
                if *sent == END {
                    return None;
                }
                let due = *due.wait_for(|due| *due > *sent).await.ok()?;
                *sent = if due == END { END } else { *sent + 1 };
                Some(event_text(*sent))
            }
        }
    }
}

/// Between two events of a short stream, so that each travels alone.
const BETWEEN: Duration = Duration::from_millis(3);
