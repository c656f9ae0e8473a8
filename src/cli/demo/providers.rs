//! Three built-in HTTP providers that behave like the ones Sluice is for: one steady, one slow with a rate limit, one
//! that goes down on a schedule.
//!
//! Each serves the same paths. A first segment it does not know (`/api`, `/spare`) is skipped, so that they can stand
//! behind any prefix:
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 at once, 503 while down; costs no rate |
//! | `/echo` | method, path, headers and body as JSON |
//! | `/stream?events=5&every=1000` | server-sent events, one each `every` milliseconds |
//! | `/ws` | a WebSocket that sends every message back |
//! | `/bytes/{n}` | n bytes |
//! | `/slow/{ms}` | 200 after so many milliseconds |
//! | `/status/{code}` | that status |
//! | anything else | who answered, as JSON; a body is read and counted |
//!
//! What a provider does next is decided in `Mood::next`, which is told the time and draws from a seeded generator; the
//! rest of the file carries it out.

use super::body::{Content, Events};
use super::websocket;
use crate::clock;
use crate::instant::Instant;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// One of the built-in providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// Steady: 5 to 20 ms.
    Alpha,
    /// Slow and rate-limited: 150 to 400 ms, six requests a second.
    Beta,
    /// Quick, but down for 3 s of every 10 s.
    Spare,
}

/// How a provider behaves.
#[derive(Debug, Clone)]
struct Manners {
    latency_ms: RangeInclusive<u64>,
    /// Requests a second, and as many at once; more are answered 429.
    rate: Option<f64>,
    outage: Option<Outage>,
}

/// Down for a while in every round, beginning `after` its start.
#[derive(Debug, Clone, Copy)]
struct Outage {
    every: Duration,
    after: Duration,
    lasts: Duration,
}

/// What changes from request to request.
#[derive(Debug)]
struct Mood {
    manners: Manners,
    random: fastrand::Rng,
    started: Instant,
    tokens: f64,
    filled: Instant,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Answer after so long.
    Answer(Duration),
    /// 429: room again in less than `RETRY_AFTER`.
    Limit,
    /// 503 at once.
    Fail,
    /// Reset the connection.
    Reset,
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Ask {
    Hello,
    Health,
    Echo,
    Stream {
        events: u32,
        every: Duration,
    },
    WebSocket,
    Bytes(u64),
    Slow(Duration),
    Status(StatusCode),
    /// A number that is missing, not a number, or out of range.
    Wrong(&'static str),
}

/// A provider while it runs.
#[derive(Debug)]
struct Provider {
    sample: Sample,
    mood: Mutex<Mood>,
    served: AtomicU64,
}

/// Why a connection ends without an answer.
#[derive(Debug, thiserror::Error)]
enum Abrupt {
    #[error("the schedule says reset")]
    Reset,
    #[error("the request's body broke off")]
    Body,
}

/// Where a connection's upgrade waits until HTTP is done with the socket.
type Upgrade = Mutex<Option<OnUpgrade>>;

// === impl Sample ===

impl Sample {
    /// Every sample provider, in the order tables show them.
    pub const ALL: [Sample; 3] = [Sample::Alpha, Sample::Beta, Sample::Spare];

    /// Its name, in `gateway.yaml` and in the `x-provider` field of its answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Sample::Alpha => "alpha",
            Sample::Beta => "beta",
            Sample::Spare => "spare",
        }
    }

    /// The loopback port that `gateway.yaml` names for it.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Sample::Alpha => 9001,
            Sample::Beta => 9002,
            Sample::Spare => 9003,
        }
    }

    /// One sentence for people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Sample::Alpha => "steady, 5 to 20 ms",
            Sample::Beta => "slow, 150 to 400 ms, and 429 beyond 6 requests a second",
            Sample::Spare => "quick, but down for 3 s of every 10 s: half 503, half reset",
        }
    }

    fn manners(self) -> Manners {
        match self {
            Sample::Alpha => Manners { latency_ms: 5..=20, rate: None, outage: None },
            Sample::Beta => Manners { latency_ms: 150..=400, rate: Some(6.0), outage: None },
            Sample::Spare => Manners {
                latency_ms: 2..=10,
                rate: None,
                outage: Some(Outage {
                    every: Duration::from_secs(10),
                    after: Duration::from_secs(2),
                    lasts: Duration::from_secs(3),
                }),
            },
        }
    }
}

// === impl Outage ===

impl Outage {
    /// Whether it is down, `up` after its start.
    fn is_on(self, up: Duration) -> bool {
        let into = Duration::from_nanos((up.as_nanos() % self.every.as_nanos().max(1)) as u64);
        (self.after..self.after + self.lasts).contains(&into)
    }
}

// === impl Mood ===

impl Mood {
    fn new(manners: Manners, seed: u64, now: Instant) -> Self {
        let tokens = manners.rate.unwrap_or(0.0);
        Mood { manners, random: fastrand::Rng::with_seed(seed), started: now, tokens, filled: now }
    }

    /// What becomes of a request that comes `now`.
    fn next(&mut self, now: Instant) -> Turn {
        if self.is_down(now) {
            return if self.random.bool() { Turn::Fail } else { Turn::Reset };
        }
        if !self.take_token(now) {
            return Turn::Limit;
        }
        Turn::Answer(Duration::from_millis(self.random.u64(self.manners.latency_ms.clone())))
    }

    fn is_down(&self, now: Instant) -> bool {
        self.manners.outage.is_some_and(|outage| outage.is_on(now.saturating_duration_since(self.started)))
    }

    /// Takes one token of the bucket, if there is one.
    fn take_token(&mut self, now: Instant) -> bool {
        let Some(rate) = self.manners.rate else { return true };
        let fresh = now.saturating_duration_since(self.filled).as_secs_f64() * rate;
        self.tokens = (self.tokens + fresh).min(rate);
        self.filled = now;
        let room = self.tokens >= 1.0;
        self.tokens -= if room { 1.0 } else { 0.0 };
        room
    }
}

// === impl Ask ===

impl Ask {
    /// What a path and query ask for; an unknown first segment is skipped.
    fn read(path: &str, query: &str) -> Self {
        let mut segments = path.trim_start_matches('/').splitn(3, '/');
        let first = segments.next().unwrap_or_default();
        let second = segments.next().unwrap_or_default();
        let third = segments.next().unwrap_or_default();
        Self::named(first, second, query).or_else(|| Self::named(second, third, query)).unwrap_or(Ask::Hello)
    }

    fn named(name: &str, argument: &str, query: &str) -> Option<Self> {
        Some(match name {
            "healthz" => Ask::Health,
            "echo" => Ask::Echo,
            "ws" => Ask::WebSocket,
            "stream" => Self::stream(query),
            "bytes" => argument.parse().map_or(Ask::Wrong("/bytes/{n} wants a number of bytes"), Ask::Bytes),
            "slow" => match argument.parse() {
                Ok(ms) if ms <= MAX_SLOW_MS => Ask::Slow(Duration::from_millis(ms)),
                _ => Ask::Wrong("/slow/{ms} wants 0 to 600000 milliseconds"),
            },
            "status" => match argument.parse().map(StatusCode::from_u16) {
                Ok(Ok(status)) if (200..600).contains(&status.as_u16()) => Ask::Status(status),
                _ => Ask::Wrong("/status/{code} wants 200 to 599"),
            },
            _ => return None,
        })
    }

    fn stream(query: &str) -> Self {
        let number = |name: &str, or: u32| match query.split('&').find_map(|pair| pair.strip_prefix(name)) {
            Some(text) => text.parse().ok().filter(|number| (1..=MAX_STREAM).contains(number)),
            None => Some(or),
        };
        match (number("events=", 5), number("every=", 1000)) {
            (Some(events), Some(every)) => Ask::Stream { events, every: Duration::from_millis(every.into()) },
            _ => Ask::Wrong("/stream wants events and every, each from 1 to 86400"),
        }
    }
}

// === impl Provider ===

impl Provider {
    fn new(sample: Sample, now: Instant) -> Self {
        let mood = Mutex::new(Mood::new(sample.manners(), sample.port().into(), now));
        Provider { sample, mood, served: AtomicU64::new(0) }
    }

    /// One request, from its head to the head of its answer.
    async fn answer(&self, request: Request<Incoming>, upgrade: &Upgrade) -> Result<Response<Content>, Abrupt> {
        let ask = Ask::read(request.uri().path(), request.uri().query().unwrap_or_default());
        if ask == Ask::Health {
            return Ok(self.health());
        }
        let turn = self.mood.lock().unwrap_or_else(PoisonError::into_inner).next(clock::now());
        match turn {
            Turn::Reset => Err(Abrupt::Reset),
            Turn::Fail => Ok(self.say(StatusCode::SERVICE_UNAVAILABLE, "down for a moment, as planned")),
            Turn::Limit => {
                let mut answer = self.say(StatusCode::TOO_MANY_REQUESTS, "more requests than this provider takes");
                answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.into());
                Ok(answer)
            }
            Turn::Answer(after) => {
                tokio::time::sleep(after).await;
                self.served.fetch_add(1, Ordering::Relaxed);
                self.fulfil(ask, request, upgrade).await
            }
        }
    }

    async fn fulfil(
        &self,
        ask: Ask,
        request: Request<Incoming>,
        upgrade: &Upgrade,
    ) -> Result<Response<Content>, Abrupt> {
        Ok(match ask {
            Ask::Hello | Ask::Health => self.hello(request).await?,
            Ask::Echo => self.echo(request).await?,
            Ask::Stream { events, every } => self.reply(
                StatusCode::OK,
                "text/event-stream",
                Content::Events(Events::new(self.sample, events, every)),
            ),
            Ask::WebSocket => self.tunnel(request, upgrade),
            Ask::Bytes(count) => self.reply(StatusCode::OK, "application/octet-stream", Content::Filler(count)),
            Ask::Slow(wait) => {
                tokio::time::sleep(wait).await;
                self.hello(request).await?
            }
            Ask::Status(status @ (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)) => self.bare(status),
            Ask::Status(status) => self.say(status, "as asked"),
            Ask::Wrong(what) => self.say(StatusCode::BAD_REQUEST, what),
        })
    }

    fn health(&self) -> Response<Content> {
        let down = self.mood.lock().unwrap_or_else(PoisonError::into_inner).is_down(clock::now());
        if down { self.say(StatusCode::SERVICE_UNAVAILABLE, "down") } else { self.say(StatusCode::OK, "up") }
    }

    async fn hello(&self, request: Request<Incoming>) -> Result<Response<Content>, Abrupt> {
        let (head, body) = request.into_parts();
        let received = read_body(body, |_| true).await?;
        let text = json!({
            "from": self.sample.name(),
            "who": self.sample.describe(),
            "method": head.method.as_str(),
            "path": head.uri.to_string(),
            "answered": self.served.load(Ordering::Relaxed),
            "body_bytes": received,
        });
        Ok(self.json(StatusCode::OK, &text))
    }

    async fn echo(&self, request: Request<Incoming>) -> Result<Response<Content>, Abrupt> {
        let (head, body) = request.into_parts();
        let mut bytes = Vec::new();
        let mut fits = true;
        let received = read_body(body, |piece| {
            fits &= bytes.len() + piece.len() <= MAX_ECHO;
            if fits {
                bytes.extend_from_slice(piece);
            }
            fits
        })
        .await?;
        if !fits {
            return Ok(self.say(StatusCode::PAYLOAD_TOO_LARGE, "/echo takes 1 MiB"));
        }
        let text = json!({
            "from": self.sample.name(),
            "method": head.method.as_str(),
            "path": head.uri.to_string(),
            "headers": fields(&head.headers),
            "body": String::from_utf8_lossy(&bytes),
            "body_bytes": received,
        });
        Ok(self.json(StatusCode::OK, &text))
    }

    /// Agrees to a WebSocket; the echo begins once HTTP has let go of the socket.
    fn tunnel(&self, mut request: Request<Incoming>, upgrade: &Upgrade) -> Response<Content> {
        let Some(key) = websocket_key(request.headers()).map(websocket::accept) else {
            let mut answer = self.say(StatusCode::UPGRADE_REQUIRED, "this path is a WebSocket, version 13");
            answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            return answer;
        };
        *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(hyper::upgrade::on(&mut request));
        let mut answer = self.bare(StatusCode::SWITCHING_PROTOCOLS);
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(key) = HeaderValue::try_from(key) {
            answer.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, key);
        }
        answer
    }

    fn say(&self, status: StatusCode, what: &str) -> Response<Content> {
        self.json(status, &json!({ "from": self.sample.name(), "status": status.as_u16(), "what": what }))
    }

    fn json(&self, status: StatusCode, value: &serde_json::Value) -> Response<Content> {
        self.reply(status, "application/json", Content::of(format!("{value}\n")))
    }

    fn reply(&self, status: StatusCode, kind: &'static str, content: Content) -> Response<Content> {
        let mut answer = self.bare(status);
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        *answer.body_mut() = content;
        answer
    }

    fn bare(&self, status: StatusCode) -> Response<Content> {
        let mut answer = Response::new(Content::empty());
        *answer.status_mut() = status;
        answer.headers_mut().insert(X_PROVIDER, HeaderValue::from_static(self.sample.name()));
        answer
    }
}

/// Serves `sample` on `listener` until `stop` turns true or its sender is gone; connections still open are then closed.
pub async fn serve(sample: Sample, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let provider = Arc::new(Provider::new(sample, clock::now()));
    let mut connections = JoinSet::new();
    loop {
        let room = connections.len() < MAX_CONNECTIONS;
        tokio::select! {
            () = told(&mut stop) => return,
            Some(_) = connections.join_next() => {}
            stream = accept(&listener), if room => {
                connections.spawn(connection(Arc::clone(&provider), stream));
            }
        }
    }
}

/// Returns once `stop` is true or nobody can say so any more.
pub(super) async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Most often out of file descriptors: give others the time to close some.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(provider: Arc<Provider>, stream: TcpStream) {
    // Without it small answers wait for acknowledgements; a socket that refuses still works.
    let _ = stream.set_nodelay(true);
    let upgrade = Upgrade::default();
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service_fn(|request| provider.answer(request, &upgrade)))
        .with_upgrades();
    let ended = (&mut http).await;
    if ended.is_err_and(|error| is_reset(&error)) {
        if let Some(parts) = http.into_parts() {
            // Closing with no linger is what sends RST instead of FIN.
            let _ = parts.io.into_inner().set_zero_linger();
        }
        return;
    }
    drop(http);
    let pending = upgrade.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(pending) = pending
        && let Ok(upgraded) = pending.await
    {
        websocket::echo(&mut TokioIo::new(upgraded)).await;
    }
}

fn is_reset(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    matches!(source, Some(Abrupt::Reset))
}

/// Reads a body to its end and counts its bytes; stops early where `keep` says so.
async fn read_body(mut body: Incoming, mut keep: impl FnMut(&[u8]) -> bool) -> Result<u64, Abrupt> {
    let mut count = 0;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Some(piece) = frame.map_err(|_| Abrupt::Body)?.data_ref() {
            count += piece.len() as u64;
            if !keep(piece) {
                break;
            }
        }
    }
    Ok(count)
}

/// The fields as pairs, in the order hyper hands them out: a JSON object would hide repeats.
fn fields(headers: &HeaderMap) -> Vec<(&str, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

/// The key of a request that asks for a WebSocket of the version everyone speaks.
fn websocket_key(headers: &HeaderMap) -> Option<&[u8]> {
    let is = |name, wanted: &str| {
        headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
    };
    (is(header::UPGRADE, "websocket") && is(header::SEC_WEBSOCKET_VERSION, "13"))
        .then(|| headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes))
        .flatten()
}

/// Names who answered.
pub(super) const X_PROVIDER: HeaderName = HeaderName::from_static("x-provider");
/// Connections a provider serves at once; a further one waits in the kernel's backlog.
const MAX_CONNECTIONS: usize = 1024;
/// For a request's head, and for the next request of a kept connection.
const HEAD_TIMEOUT: Duration = Duration::from_mins(2);
/// Seconds in which every rate here makes room again.
const RETRY_AFTER: u64 = 1;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes that `/echo` sends back; more is 413.
const MAX_ECHO: usize = 1024 * 1024;
const MAX_SLOW_MS: u64 = 600_000;
/// Bound on the number of events and on the milliseconds between them.
const MAX_STREAM: u32 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A provider on a port of its own, stopped when dropped.
    struct World {
        address: SocketAddr,
        _stop: watch::Sender<bool>,
    }

    impl World {
        async fn start(sample: Sample) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("a bound socket");
            let (stop, stopped) = watch::channel(false);
            tokio::spawn(serve(sample, listener, stopped));
            World { address, _stop: stop }
        }

        async fn send(&self, request: &str) -> String {
            send(self.address, request.to_owned()).await
        }

        async fn get(&self, path: &str) -> String {
            send(self.address, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
        }
    }

    /// Sends `request` and reads until the provider closes.
    async fn send(address: SocketAddr, request: String) -> String {
        let mut stream = TcpStream::connect(address).await.expect("the provider listens");
        stream.write_all(request.as_bytes()).await.expect("the request fits the socket's buffer");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer and a clean end");
        String::from_utf8(answer).expect("text")
    }

    fn body(answer: &str) -> serde_json::Value {
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        serde_json::from_str(body).expect("JSON")
    }

    fn mood(sample: Sample) -> (Mood, Instant) {
        let now = clock::now();
        (Mood::new(sample.manners(), 1, now), now)
    }

    #[test]
    fn alpha_always_answers_within_its_range() {
        let (mut mood, now) = mood(Sample::Alpha);
        for _ in 0..1000 {
            let Turn::Answer(after) = mood.next(now) else { panic!("alpha is steady") };
            assert!((5..=20).contains(&after.as_millis()), "{after:?}");
        }
    }

    #[test]
    fn beta_limits_the_seventh_request_of_a_second_and_has_room_again_later() {
        let (mut mood, now) = mood(Sample::Beta);
        let turns: Vec<_> = (0..7).map(|_| mood.next(now)).collect();
        assert!(turns[..6].iter().all(|turn| matches!(turn, Turn::Answer(_))), "{turns:?}");
        assert_eq!(turns[6], Turn::Limit);
        assert!(matches!(mood.next(now + Duration::from_millis(167)), Turn::Answer(_)));
        assert_eq!(mood.next(now + Duration::from_millis(168)), Turn::Limit);
    }

    #[test]
    fn beta_never_saves_up_more_than_one_second_of_room() {
        let (mut mood, now) = mood(Sample::Beta);
        let later = now + Duration::from_hours(1);
        let answered = (0..100).filter(|_| matches!(mood.next(later), Turn::Answer(_))).count();
        assert_eq!(answered, 6);
    }

    #[test]
    fn spare_is_down_for_a_part_of_every_round_and_fails_both_ways() {
        let (mut mood, now) = mood(Sample::Spare);
        let down: Vec<u64> = (0..30).filter(|second| mood.is_down(now + Duration::from_secs(*second))).collect();
        assert_eq!(down, [2, 3, 4, 12, 13, 14, 22, 23, 24]);
        let turns: Vec<_> = (0..200).map(|_| mood.next(now + Duration::from_secs(3))).collect();
        let fails = turns.iter().filter(|turn| **turn == Turn::Fail).count();
        let resets = turns.iter().filter(|turn| **turn == Turn::Reset).count();
        assert_eq!(fails + resets, 200);
        assert!(fails > 50 && resets > 50, "{fails} 503s, {resets} resets");
    }

    #[test]
    fn a_path_is_known_with_and_without_a_prefix() {
        for (path, ask) in [
            ("/", Ask::Hello),
            ("/api", Ask::Hello),
            ("/api/users/17", Ask::Hello),
            ("/echo", Ask::Echo),
            ("/api/echo", Ask::Echo),
            ("/healthz", Ask::Health),
            ("/api/ws", Ask::WebSocket),
            ("/bytes/10", Ask::Bytes(10)),
            ("/spare/bytes/5368709120", Ask::Bytes(5 << 30)),
            ("/slow/5", Ask::Slow(Duration::from_millis(5))),
            ("/api/status/503", Ask::Status(StatusCode::SERVICE_UNAVAILABLE)),
        ] {
            assert_eq!(Ask::read(path, ""), ask, "{path}");
        }
    }

    #[test]
    fn a_number_out_of_range_is_said_so() {
        for path in ["/bytes", "/bytes/-1", "/bytes/x", "/slow/600001", "/status/101", "/status/600", "/status/ok"] {
            assert!(matches!(Ask::read(path, ""), Ask::Wrong(_)), "{path}");
        }
        assert!(matches!(Ask::read("/stream", "events=0"), Ask::Wrong(_)));
        let three = Ask::Stream { events: 3, every: Duration::from_millis(20) };
        assert_eq!(Ask::read("/api/stream", "events=3&every=20"), three);
    }

    #[tokio::test]
    async fn any_path_says_who_answered_and_how_many_bytes_came() {
        let world = World::start(Sample::Alpha).await;
        let answer = world
            .send("POST /api/x?y=1 HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\r\nx-provider: alpha\r\n"), "{answer}");
        let body = body(&answer);
        assert_eq!(
            (&body["from"], &body["path"], &body["body_bytes"]),
            (&json!("alpha"), &json!("/api/x?y=1"), &json!(5))
        );
    }

    #[tokio::test]
    async fn an_echo_returns_method_path_fields_and_body() {
        let world = World::start(Sample::Alpha).await;
        let answer = world
            .send("PUT /echo HTTP/1.1\r\nhost: x\r\na: 1\r\na: 2\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
            .await;
        let body = body(&answer);
        assert_eq!((&body["method"], &body["path"], &body["body"]), (&json!("PUT"), &json!("/echo"), &json!("hi")));
        let fields = body["headers"].as_array().expect("pairs");
        assert!(fields.contains(&json!(["a", "1"])) && fields.contains(&json!(["a", "2"])), "{fields:?}");
    }

    #[tokio::test]
    async fn an_echo_beyond_its_bound_is_413() {
        let world = World::start(Sample::Alpha).await;
        let mut stream = TcpStream::connect(world.address).await.expect("the provider listens");
        let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", MAX_ECHO + 1);
        stream.write_all(head.as_bytes()).await.expect("a head fits");
        stream.write_all(&vec![b'x'; MAX_ECHO + 1]).await.expect("the provider reads that much");
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.expect("a status line");
        assert_eq!(&status, b"HTTP/1.1 413");
    }

    #[tokio::test]
    async fn bytes_are_counted_and_streams_end_whole() {
        let world = World::start(Sample::Alpha).await;
        let answer = world.get("/bytes/200000").await;
        assert!(answer.contains("\r\ncontent-length: 200000\r\n"), "{}", &answer[..200]);
        assert_eq!(answer.split_once("\r\n\r\n").map(|(_, body)| body.len()), Some(200_000));
        let stream = world.get("/stream?events=3&every=1").await;
        assert!(stream.contains("\r\ncontent-type: text/event-stream\r\n"), "{stream}");
        assert_eq!(stream.matches("event: tick").count(), 3);
        assert!(stream.ends_with("\r\n0\r\n\r\n"), "{stream}");
    }

    #[tokio::test]
    async fn a_status_comes_back_as_asked_and_204_has_no_body() {
        let world = World::start(Sample::Alpha).await;
        assert!(world.get("/status/418").await.starts_with("HTTP/1.1 418 "));
        let empty = world.get("/status/204").await;
        assert!(empty.starts_with("HTTP/1.1 204 ") && empty.ends_with("\r\n\r\n"), "{empty}");
    }

    #[tokio::test]
    async fn beyond_its_rate_beta_answers_429_with_retry_after() {
        let world = World::start(Sample::Beta).await;
        let mut tasks = JoinSet::new();
        for _ in 0..20 {
            tasks.spawn(send(world.address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned()));
        }
        let answers = tasks.join_all().await;
        let (limited, answered): (Vec<_>, Vec<_>) =
            answers.iter().partition(|answer| answer.starts_with("HTTP/1.1 429 "));
        // A machine so busy that the requests come late lets a few more through.
        assert!(!limited.is_empty() && answered.len() >= 6, "{answers:?}");
        assert!(answered.iter().all(|answer| answer.starts_with("HTTP/1.1 200 ")), "{answered:?}");
        assert!(limited.iter().all(|answer| answer.contains("\r\nretry-after: 1\r\n")), "{limited:?}");
    }

    #[tokio::test]
    async fn a_planned_reset_is_seen_as_a_reset_and_not_as_an_end() {
        let now = clock::now();
        let second = Duration::from_secs(1);
        let always = Some(Outage { every: second, after: Duration::ZERO, lasts: second });
        let manners = Manners { latency_ms: 0..=0, rate: None, outage: always };
        let mut seen = Vec::new();
        for seed in 0..20 {
            let mood = Mutex::new(Mood::new(manners.clone(), seed, now));
            let provider = Arc::new(Provider { sample: Sample::Spare, mood, served: AtomicU64::new(0) });
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let mut stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
            let (accepted, _) = listener.accept().await.expect("a connection");
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("a head fits");
            connection(provider, accepted).await;
            let mut answer = Vec::new();
            seen.push(match stream.read_to_end(&mut answer).await {
                Ok(_) => String::from_utf8_lossy(&answer[..12]).into_owned(),
                Err(error) => error.kind().to_string(),
            });
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["HTTP/1.1 503", "connection reset"]);
    }

    #[tokio::test]
    async fn a_websocket_is_agreed_to_and_echoes() {
        let world = World::start(Sample::Alpha).await;
        let mut stream = TcpStream::connect(world.address).await.expect("the provider listens");
        let ask = "GET /api/ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(ask.as_bytes()).await.expect("a head fits");
        let hello = websocket::Frame::text("hello");
        hello.write(&mut stream, Some([1, 2, 3, 4])).await.expect("a frame fits");
        websocket::Frame::close(websocket::NORMAL).write(&mut stream, Some([5, 6, 7, 8])).await.expect("a frame fits");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer and a clean end");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
        assert!(text.contains("\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{text}");
        assert!(answer.ends_with(b"\x81\x05hello\x88\x02\x03\xe8"), "{text}");
    }

    #[tokio::test]
    async fn a_plain_get_of_the_websocket_path_is_426() {
        let answer = World::start(Sample::Alpha).await.get("/ws").await;
        assert!(answer.starts_with("HTTP/1.1 426 ") && answer.contains("\r\nupgrade: websocket\r\n"), "{answer}");
    }
}
