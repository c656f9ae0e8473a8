//! A short load of the demo's own: about twenty requests a second of every kind, sent on time whether or not earlier ones
//! have been answered, as real clients do.
//!
//! Each request has a connection of its own and checks what it gets: a POST's body comes back, a download is whole, events
//! arrive one after the other, a WebSocket echoes.

use super::body::Content;
use super::figures::{Figures, Kind, Seen, Trouble};
use super::providers::{Sample, X_PROVIDER, told};
use super::screen::Screen;
use super::websocket;
use crate::clock;
use crate::instant::Instant;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Sends the load to the gateway at `gateway` for `length`, or until `stop` or until nobody reads the screen; then waits
/// for what is under way, each request within its own time limit.
pub(super) async fn run(
    gateway: SocketAddr,
    length: Duration,
    mut stop: watch::Receiver<bool>,
    screen: &mut Screen,
) -> Figures {
    let mut figures = Figures::new();
    let mut under_way = JoinSet::new();
    let mut random = fastrand::Rng::new();
    let mut due = interval(PACE);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let started = clock::now();
    let mut shown = 0;
    for turn in 0_usize.. {
        let stopped = wait(&mut due, &mut under_way, &mut figures, &mut stop).await;
        let gone = clock::now().saturating_duration_since(started);
        if gone.as_secs() > shown {
            shown = gone.as_secs();
            screen.show(&figures.line(shown));
        }
        if stopped || gone >= length || screen.is_closed() {
            break;
        }
        if under_way.len() < MAX_UNDER_WAY {
            figures.send();
            under_way.spawn(send(gateway, PLAN[turn % PLAN.len()], random.u64(..)));
        } else {
            figures.skip();
        }
    }
    while let Some(ended) = under_way.join_next().await {
        record(&mut figures, ended);
    }
    figures
}

/// Records what ends until the next request is due; `true` if told to stop instead.
async fn wait(
    due: &mut tokio::time::Interval,
    under_way: &mut JoinSet<Seen>,
    figures: &mut Figures,
    stop: &mut watch::Receiver<bool>,
) -> bool {
    loop {
        tokio::select! {
            biased;
            () = told(stop) => return true,
            _ = due.tick() => return false,
            Some(ended) = under_way.join_next() => record(figures, ended),
        }
    }
}

fn record(figures: &mut Figures, ended: Result<Seen, JoinError>) {
    // A task that panicked was no request; none of them can.
    if let Ok(seen) = ended {
        figures.record(&seen);
    }
}

/// One request of `kind`; `salt` makes its content its own.
async fn send(gateway: SocketAddr, kind: Kind, salt: u64) -> Seen {
    let begun = clock::now();
    let mut seen = Seen { kind, status: None, from: None, latency: Duration::ZERO, trouble: None };
    let checked = timeout(TIMEOUT, exchange(gateway, begun, salt, &mut seen)).await;
    seen.trouble = checked.unwrap_or(Err(Trouble::Timeout)).err();
    if seen.status.is_none() {
        seen.latency = clock::now().saturating_duration_since(begun);
    }
    seen
}

async fn exchange(gateway: SocketAddr, begun: Instant, salt: u64, seen: &mut Seen) -> Result<(), Trouble> {
    let stream = TcpStream::connect(gateway).await.map_err(|_| Trouble::Connect)?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Trouble::Broken)?;
    // It ends with the answer: the sender is dropped with this function, and nothing else keeps it open.
    let driver = tokio::spawn(connection.with_upgrades());
    let request = request(seen.kind, gateway, salt)?;
    let response = sender.send_request(request).await.map_err(|_| Trouble::Broken)?;
    seen.latency = clock::now().saturating_duration_since(begun);
    seen.status = Some(response.status().as_u16());
    seen.from = answerer(&response);
    let checked = check(seen.kind, response, salt).await;
    drop(sender);
    driver.abort();
    checked
}

fn request(kind: Kind, gateway: SocketAddr, salt: u64) -> Result<Request<Content>, Trouble> {
    let path = match kind {
        Kind::Get => "/api/hello",
        Kind::Post => "/api/echo",
        Kind::Download => "/api/bytes/262144",
        Kind::Stream => "/live/stream?events=5&every=200",
        Kind::WebSocket => "/live/ws",
        Kind::Spare => "/spare/hello",
    };
    let mut request = Request::builder().uri(path).header(header::HOST, gateway.to_string());
    let mut content = Content::empty();
    if kind == Kind::Post {
        content = Content::of(message(salt));
        request = request.method("POST").header(header::CONTENT_TYPE, "text/plain");
    }
    if kind == Kind::WebSocket {
        request = request
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, key(salt));
    }
    request.body(content).map_err(|_| Trouble::Content)
}

async fn check(kind: Kind, response: Response<Incoming>, salt: u64) -> Result<(), Trouble> {
    if kind == Kind::WebSocket {
        return converse(response, salt).await;
    }
    if !response.status().is_success() {
        // Read it all the same, so that the gateway sees a client that stays to the end.
        read(response.into_body()).await?;
        return Err(Trouble::Status);
    }
    let body = read(response.into_body()).await?;
    let good = match kind {
        Kind::Get | Kind::Spare => body.starts_with(b"{"),
        Kind::Post => String::from_utf8_lossy(&body.bytes).contains(&message(salt)),
        Kind::Download => body.bytes.len() == DOWNLOAD,
        Kind::Stream => body.is_spread() && String::from_utf8_lossy(&body.bytes).matches("event: tick").count() == 5,
        Kind::WebSocket => true,
    };
    if good { Ok(()) } else { Err(Trouble::Content) }
}

/// Agrees on a WebSocket, sends a message, wants it back, and closes.
async fn converse(response: Response<Incoming>, salt: u64) -> Result<(), Trouble> {
    use websocket::{CLOSE, Frame, From, NORMAL};
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Trouble::Status);
    }
    let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT).map(header::HeaderValue::as_bytes);
    if accepted != Some(websocket::accept(key(salt).as_bytes()).as_bytes()) {
        return Err(Trouble::Content);
    }
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.map_err(|_| Trouble::Broken)?);
    let (mask, sent) = ((salt as u32).to_be_bytes(), Frame::text(&message(salt)));
    sent.write(&mut io, Some(mask)).await.map_err(|_| Trouble::Broken)?;
    let echoed = Frame::read(&mut io, From::Server).await.map_err(|_| Trouble::Broken)?;
    Frame::close(NORMAL).write(&mut io, Some(mask)).await.map_err(|_| Trouble::Broken)?;
    let closed = Frame::read(&mut io, From::Server).await.map_err(|_| Trouble::Broken)?;
    if echoed == sent && closed.opcode == CLOSE { Ok(()) } else { Err(Trouble::Content) }
}

fn answerer(response: &Response<Incoming>) -> Option<Sample> {
    let name = response.headers().get(X_PROVIDER)?.as_bytes();
    Sample::ALL.into_iter().find(|sample| sample.name().as_bytes() == name)
}

/// A body that was read, and when its first and last pieces came.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub(super) bytes: Vec<u8>,
    pieces: Option<(Instant, Instant)>,
}

// === impl Whole ===

impl Whole {
    fn starts_with(&self, start: &[u8]) -> bool {
        self.bytes.starts_with(start)
    }

    /// Whether it came over time: five events, 200 ms apart, that arrive at once were held back.
    fn is_spread(&self) -> bool {
        self.pieces.is_some_and(|(first, last)| last.saturating_duration_since(first) >= Duration::from_millis(400))
    }
}

/// Reads a body to its end, up to the length that the load expects of any.
pub(super) async fn read(mut body: Incoming) -> Result<Whole, Trouble> {
    let mut whole = Whole::default();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| Trouble::Broken)?;
        let Some(piece) = frame.data_ref() else { continue };
        if whole.bytes.len() + piece.len() > MAX_BODY {
            return Err(Trouble::Content);
        }
        whole.bytes.extend_from_slice(piece);
        let now = clock::now();
        whole.pieces = Some((whole.pieces.map_or(now, |(first, _)| first), now));
    }
    Ok(whole)
}

fn message(salt: u64) -> String {
    format!("message {salt:016x}")
}

fn key(salt: u64) -> String {
    websocket::base64(&[salt.to_be_bytes(), salt.to_le_bytes()].concat())
}

/// Twenty requests a second.
const PACE: Duration = Duration::from_millis(50);
/// Requests under way at once; one that is due beyond it is counted and not sent.
const MAX_UNDER_WAY: usize = 512;
/// For one request, from the connection to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of an answer; the load asks for none as large.
const MAX_BODY: usize = 1024 * 1024;
const DOWNLOAD: usize = 256 * 1024;
/// What is sent, in turn: one second's worth.
const PLAN: [Kind; 20] = [
    Kind::Get,
    Kind::Post,
    Kind::Get,
    Kind::Spare,
    Kind::Get,
    Kind::Stream,
    Kind::Get,
    Kind::Spare,
    Kind::Post,
    Kind::Get,
    Kind::WebSocket,
    Kind::Get,
    Kind::Get,
    Kind::Spare,
    Kind::Get,
    Kind::Download,
    Kind::Get,
    Kind::Get,
    Kind::Post,
    Kind::Spare,
];
