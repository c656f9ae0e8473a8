//! Everything here goes through real sockets of the loopback interface. Where a provider has to misbehave it is one that
//! writes frames by hand ([`Wired`]); else it is the library's own server.

use super::*;
use crate::config::{self, ProviderAddress, ProviderTls, ProviderUrl, Scheme};
use crate::upstream::connect::ConnectErrorKind;
use crate::upstream::endpoint::{Endpoint, Hand};
use h2::Reason;
use http::{Method, Response};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;

const AMPLE: Duration = Duration::from_secs(20);
/// What is not to end by time does not while a test waits.
const NEVER: Duration = Duration::from_hours(1);
const SOON: Duration = Duration::from_millis(30);

// Frame types and flags (RFC 9113 §6), settings (§6.5.2), and one answer's head: `:status: 200` of the static table.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_HEADER_LIST_SIZE: u16 = 6;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;
const STATUS_200: u8 = 0x88;

/// A provider that does nothing by itself.
struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

/// One connection of a provider that writes frames by hand.
struct Wired {
    stream: TcpStream,
    /// What the client's first SETTINGS said.
    settings: Vec<(u16, u32)>,
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Port {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        Port { listener, address }
    }

    fn endpoint(&self, terms: Terms) -> Arc<Endpoint> {
        endpoint(self.address, Speaks::Http2, terms)
    }

    async fn stream(&self) -> TcpStream {
        ample(self.listener.accept()).await.expect("a connection").0
    }

    /// A connection up to the client's SETTINGS; ours are still to be sent.
    async fn wired(&self) -> Wired {
        let mut stream = self.stream().await;
        let mut preface = [0; 24];
        ample(stream.read_exact(&mut preface)).await.expect("a preface");
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut wired = Wired { stream, settings: Vec::new() };
        let settings = wired.next().await.expect("SETTINGS");
        assert_eq!(settings.kind, SETTINGS);
        let pair = |pair: &[u8]| {
            (u16::from_be_bytes([pair[0], pair[1]]), u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
        };
        wired.settings = settings.payload.chunks(6).map(pair).collect();
        wired
    }

    /// A connection that is open, with these settings.
    async fn open(&self, settings: &[(u16, u32)]) -> Wired {
        let mut wired = self.wired().await;
        wired.settings(settings).await;
        wired.write(SETTINGS, ACK, 0, &[]).await;
        wired
    }
}

impl Wired {
    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a frame");
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        ample(self.stream.write_all(&frame)).await.expect("a client that reads");
    }

    async fn settings(&mut self, settings: &[(u16, u32)]) {
        let bytes = |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
        let payload: Vec<u8> = settings.iter().flat_map(bytes).collect();
        self.write(SETTINGS, 0, 0, &payload).await;
    }

    async fn answer(&mut self, stream: u32) {
        self.write(HEADERS, END_STREAM | END_HEADERS, stream, &[STATUS_200]).await;
    }

    async fn reset(&mut self, stream: u32, code: Reason) {
        self.write(RST_STREAM, 0, stream, &u32::from(code).to_be_bytes()).await;
    }

    async fn go_away(&mut self, last: u32, code: Reason) {
        let payload = [last.to_be_bytes(), u32::from(code).to_be_bytes()].concat();
        self.write(GOAWAY, 0, 0, &payload).await;
    }

    /// The next frame; `None` once the client has closed.
    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        ample(self.stream.read_exact(&mut head)).await.ok()?;
        let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        ample(self.stream.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of this kind that is no acknowledgement; others are passed over.
    async fn next_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection is open");
            if frame.kind == kind && (kind == HEADERS || frame.flags & ACK == 0) {
                return frame;
            }
        }
    }

    /// Passes over what still comes, up to the end; the code of the client's GOAWAY.
    async fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                code =
                    Some(u32::from_be_bytes([frame.payload[4], frame.payload[5], frame.payload[6], frame.payload[7]]));
            }
        }
        code
    }
}

fn terms() -> Terms {
    Terms { streams: 100, idle: 8, idle_timeout: NEVER, max_age: NEVER, ping: None, ping_answer: AMPLE }
}

fn url(address: SocketAddr, scheme: Scheme) -> ProviderUrl {
    let address = ProviderAddress::Tcp { host: address.ip().to_string(), port: address.port() };
    ProviderUrl::new(scheme, address, String::new())
}

fn connections() -> ProviderConnections {
    ProviderConnections { idle: 8, idle_timeout: NEVER, max_age: NEVER, streams: 100, ping: None }
}

fn endpoint(address: SocketAddr, speaks: Speaks, terms: Terms) -> Arc<Endpoint> {
    let target = Target::new(&url(address, Scheme::H2c), &ProviderTls::default()).expect("no TLS");
    Arc::new(Endpoint::with(Approach::new(target, speaks, terms), &connections(), 1))
}

async fn ample<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(AMPLE, future).await.expect("long before this")
}

async fn open(endpoint: &Endpoint) -> Result<Seat, ConnectError> {
    seated(endpoint.open(0, AMPLE, clock::now() + AMPLE).await)
}

fn seated(hand: Result<Hand, ConnectError>) -> Result<Seat, ConnectError> {
    match hand? {
        Hand::Http2(seat) => Ok(seat),
        Hand::Http1(_) => panic!("a connection that speaks HTTP/1"),
    }
}

fn acquire(endpoint: &Endpoint) -> Option<Seat> {
    endpoint.acquire(0, clock::now()).map(|hand| seated(Ok(hand)).expect("a seat"))
}

/// A seat on a new connection, and its other end.
async fn first(port: &Port, endpoint: &Endpoint, settings: &[(u16, u32)]) -> (Seat, Wired) {
    let (seat, wired) = tokio::join!(open(endpoint), port.open(settings));
    (seat.expect("a seat"), wired)
}

fn get() -> Request<()> {
    Request::builder().uri("http://api.test/").body(()).expect("a request")
}

fn send(seat: &mut Seat) -> ResponseFuture {
    seat.send(get(), true).expect("it is sent").0
}

async fn broken(answer: ResponseFuture) -> Broke {
    judge(&ample(answer).await.expect_err("no answer"))
}

/// Waits until something is so, letting the other tasks run.
async fn until(mut is_so: impl FnMut() -> bool) {
    ample(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

async fn all_tasks_end() {
    until(|| Handle::current().metrics().num_alive_tasks() == 0).await;
}

/// Polls a future once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}

/// The library's own server with this limit of streams; answers everything. Returns how many connections it has seen.
fn serve(port: Port, streams: u32) -> Arc<AtomicUsize> {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = port.listener.accept().await.expect("a connection");
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut server = h2::server::Builder::new();
                server.max_concurrent_streams(streams);
                let mut connection = server.handshake::<_, Bytes>(stream).await.expect("HTTP/2");
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut body = respond.send_response(Response::new(()), false).expect("a head");
                    body.send_data(Bytes::from_static(b"whole"), true).expect("a body");
                }
            });
        }
    });
    seen
}

async fn exchange(endpoint: &Endpoint) -> Vec<u8> {
    let mut seat = open(endpoint).await.expect("a seat");
    let mut body = send(&mut seat).await.expect("an answer").into_body();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        bytes.extend(data.expect("data"));
    }
    bytes
}

async fn exchanges(endpoint: &Arc<Endpoint>, count: usize) {
    let one = || {
        let endpoint = Arc::clone(endpoint);
        tokio::spawn(async move { exchange(&endpoint).await })
    };
    let running: Vec<_> = (0..count).map(|_| one()).collect();
    for exchange in running {
        assert_eq!(ample(exchange).await.expect("no panic"), b"whole");
    }
}

// === Sharing ===

#[tokio::test]
async fn requests_at_once_share_one_connection() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let seen = serve(port, 100);
    exchanges(&endpoint, 60).await;
    exchanges(&endpoint, 60).await;
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_hundred_requests_at_once_open_as_few_connections_as_their_streams_need() {
    let port = Port::new().await;
    // Without idle connections there is none ahead of need.
    let endpoint = port.endpoint(Terms { idle: 0, ..terms() });
    let mut seats: Vec<_> = (0..100).map(|_| Box::pin(open(&endpoint))).collect();
    for seat in &mut seats {
        assert!(poll_once(seat).await.is_pending());
    }
    let seen = serve(port, 10);
    let mut held = Vec::new();
    for seat in seats {
        held.push(ample(seat).await.expect("a seat"));
    }
    assert_eq!(seen.load(Ordering::Relaxed), 10);
}

#[tokio::test]
async fn the_providers_limit_of_streams_is_kept_and_grows_with_its_settings() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (mut seat, mut wired) = first(&port, &endpoint, &[(MAX_CONCURRENT_STREAMS, 1)]).await;
    let answer = send(&mut seat);
    assert_eq!(wired.next_of(HEADERS).await.stream, 1);
    assert!(acquire(&endpoint).is_none(), "the only place is taken");

    // Another connection is asked for, but does not come.
    let mut waiting = Box::pin(open(&endpoint));
    assert!(poll_once(&mut waiting).await.is_pending());
    wired.settings(&[(MAX_CONCURRENT_STREAMS, 2)]).await;
    let mut second = ample(waiting).await.expect("a seat on the same connection");
    let also = send(&mut second);
    assert_eq!(wired.next_of(HEADERS).await.stream, 3);
    assert!(acquire(&endpoint).is_none());

    wired.settings(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
    wired.answer(1).await;
    wired.answer(3).await;
    assert!(ample(answer).await.is_ok() && ample(also).await.is_ok());
    drop((seat, second));
    let held = acquire(&endpoint).expect("a free place");
    assert!(acquire(&endpoint).is_none(), "there are no two any more");
    drop(held);
}

#[tokio::test]
async fn the_configured_limit_counts_where_it_is_lower() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { streams: 2, ..terms() });
    let (first, _wired) = first(&port, &endpoint, &[]).await;
    let second = acquire(&endpoint).expect("a second place");
    assert!(acquire(&endpoint).is_none());
    drop(first);
    assert!(acquire(&endpoint).is_some());
    drop(second);
}

#[tokio::test]
async fn a_provider_that_allows_no_streams_is_an_error() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (seat, _wired) = tokio::join!(open(&endpoint), port.open(&[(MAX_CONCURRENT_STREAMS, 0)]));
    let error = seat.expect_err("no places");
    assert_eq!(error.to_string(), format!("HTTP/2 with {}: its SETTINGS allow no streams", port.address));
    assert_eq!(error.token(), "destination_unavailable");
}

#[tokio::test]
async fn the_next_connection_is_opened_before_it_is_needed() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { streams: 8, ..terms() });
    let (seat, mut wired) = first(&port, &endpoint, &[]).await;
    let mut seats = vec![seat];
    seats.extend((0..5).map(|_| acquire(&endpoint).expect("a place")));
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 1, "two of eight places are enough");
    seats.push(acquire(&endpoint).expect("the seventh place"));
    seats.push(acquire(&endpoint).expect("the eighth place"));
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 2, "one connection is on its way");

    let mut ahead = port.open(&[]).await;
    let mut ninth = None;
    until(|| {
        ninth = acquire(&endpoint);
        ninth.is_some()
    })
    .await;
    let answer = send(ninth.as_mut().expect("a seat"));
    assert_eq!(ahead.next_of(HEADERS).await.stream, 1);
    ahead.answer(1).await;
    assert!(ample(answer).await.is_ok());
    drop((ninth, seats, endpoint));
    assert_eq!(wired.end().await, Some(0));
}

#[tokio::test]
async fn idle_connections_beyond_the_configured_number_close() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { streams: 1, idle: 1, ..terms() });
    let (a, mut one) = first(&port, &endpoint, &[]).await;
    // The first to be opened ahead of need is there as well.
    let (b, mut two) = first(&port, &endpoint, &[]).await;
    drop(a);
    drop(b);
    let closed = tokio::select! {
        code = one.end() => code,
        code = two.end() => code,
    };
    assert_eq!(closed, Some(0));
    assert!(acquire(&endpoint).is_some(), "the other is there still");
}

// === Opening ===

#[tokio::test]
async fn what_is_spoken_is_what_the_file_says() {
    let port = Port::new().await;
    let yaml = format!(
        "version: 1\nlisteners: [{{ name: web, bind: 127.0.0.1:0 }}]\nproviders:\n  alpha: {{ url: \"h2c://{0}\", \
         connections: {{ streams: 2 }} }}\n  beta: {{ url: \"http://{0}\" }}\npools: {{ main: {{ providers: [alpha, \
         beta] }} }}\nroutes: [{{ name: all, match: {{ path: \"/*\" }}, pool: main }}]\n",
        port.address
    );
    let loaded = config::parse("gateway.yaml", yaml.as_bytes(), &config::ProcessEnvironment).expect("a valid file");
    let [alpha, beta] = &loaded.config.providers[..] else { panic!("two providers") };
    let alpha = Endpoint::new(alpha, 1).expect("no TLS");
    let (_seat, _wired) = first(&port, &alpha, &[]).await;
    let _second = acquire(&alpha).expect("a second place");
    assert!(acquire(&alpha).is_none(), "streams: 2");

    let beta = Endpoint::new(beta, 1).expect("no TLS");
    let hand = beta.open(0, AMPLE, clock::now() + AMPLE).await.expect("a connection");
    assert!(matches!(hand, Hand::Http1(_)));
}

#[tokio::test]
async fn everyone_who_waits_for_a_connection_gets_its_error() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(open(&endpoint))).collect();
    for one in &mut waiting {
        assert!(poll_once(one).await.is_pending());
    }
    let stream = port.stream().await;
    drop(stream);
    for one in waiting {
        let error = ample(one).await.expect_err("no connection");
        assert!(error.to_string().starts_with(&format!("HTTP/2 with {}: ", port.address)), "{error}");
        assert_eq!(error.token(), "connection_terminated");
    }
    // And the next one tries again.
    let (_seat, _wired) = first(&port, &endpoint, &[]).await;
}

#[tokio::test]
async fn a_provider_that_speaks_http1_is_found_out_before_a_request_is_sent() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (seat, ()) = tokio::join!(open(&endpoint), async {
        let mut wired = port.wired().await;
        wired.stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.expect("writable");
        while wired.next().await.is_some() {}
    });
    let error = seat.expect_err("no HTTP/2");
    assert_eq!(error.token(), "http_protocol_error");
    let told = error.to_string();
    assert!(
        told.ends_with("; does the provider speak HTTP/2 without TLS? http:// is for those that speak HTTP/1"),
        "{told}"
    );
}

#[tokio::test]
async fn a_deadline_ends_one_wait_and_not_the_opening() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let mut patient = Box::pin(open(&endpoint));
    let hurried = endpoint.open(0, AMPLE, clock::now() + SOON);
    let mut wired = None;
    let error = {
        let mut hurried = Box::pin(hurried);
        assert!(poll_once(&mut hurried).await.is_pending());
        assert!(poll_once(&mut patient).await.is_pending());
        wired.replace(port.wired().await);
        ample(hurried).await.expect_err("too late")
    };
    assert_eq!(error.kind(), ConnectErrorKind::Timeout);
    assert_eq!(error.to_string(), format!("HTTP/2 with {}: timed out", port.address));
    wired.as_mut().expect("a connection").settings(&[]).await;
    ample(patient).await.expect("a seat");
}

#[tokio::test]
async fn an_opening_ends_when_its_patience_does() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (seat, mut wired) = tokio::join!(endpoint.open(0, SOON, clock::now() + AMPLE), port.wired());
    let error = seated(seat).expect_err("no SETTINGS");
    assert_eq!(error.kind(), ConnectErrorKind::Timeout);
    wired.end().await;
    all_tasks_end().await;
}

#[tokio::test]
async fn whoever_leaves_while_a_connection_opens_stops_nobody() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { streams: 1, idle: 0, ..terms() });
    let mut leaves = Box::pin(open(&endpoint));
    let mut stays = Box::pin(open(&endpoint));
    assert!(poll_once(&mut leaves).await.is_pending());
    assert!(poll_once(&mut stays).await.is_pending());
    let mut wired = port.wired().await;
    drop(leaves);
    wired.settings(&[]).await;
    let mut seat = ample(stays).await.expect("the only place");
    let _answer = send(&mut seat);
    assert_eq!(wired.next_of(HEADERS).await.stream, 1);
}

#[tokio::test]
async fn a_place_goes_to_who_waits_also_where_no_idle_connection_is_kept() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { streams: 1, idle: 0, ..terms() });
    let (seat, mut wired) = first(&port, &endpoint, &[]).await;
    let mut waits = Box::pin(open(&endpoint));
    assert!(poll_once(&mut waits).await.is_pending());
    drop(seat);
    let mut seat = ample(waits).await.expect("the place");
    let _answer = send(&mut seat);
    assert_eq!(wired.next_of(HEADERS).await.stream, 1);
}

#[tokio::test]
async fn a_place_given_to_somebody_who_has_left_goes_to_the_next() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { streams: 1, ..terms() });
    let (seat, _wired) = first(&port, &endpoint, &[]).await;
    // Other connections are asked for, but do not come.
    let mut leaves = Box::pin(open(&endpoint));
    let mut stays = Box::pin(open(&endpoint));
    assert!(poll_once(&mut leaves).await.is_pending());
    assert!(poll_once(&mut stays).await.is_pending());
    drop(seat);
    // It is in the hand of the first by now, who does not look.
    assert!(poll_once(&mut stays).await.is_pending());
    drop(leaves);
    assert!(poll_once(&mut stays).await.is_ready());
}

// === What becomes of streams ===

#[tokio::test]
async fn goaway_refuses_the_streams_above_its_last_and_lets_the_others_end() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let mut other = acquire(&endpoint).expect("a place");
    let mut unused = acquire(&endpoint).expect("a place");
    let (below, above) = (send(&mut seat), send(&mut other));
    wired.next_of(HEADERS).await;
    wired.next_of(HEADERS).await;
    wired.go_away(1, Reason::NO_ERROR).await;
    assert_eq!(broken(above).await, Broke::Refused(Reason::NO_ERROR));
    assert_eq!(unused.send(get(), true).expect_err("no new streams"), Broke::Refused(Reason::NO_ERROR));
    assert!(acquire(&endpoint).is_none(), "it takes no new streams");
    wired.answer(1).await;
    assert!(ample(below).await.is_ok());
    drop((seat, other, unused));
    assert_eq!(wired.end().await, Some(0));
}

#[tokio::test]
async fn a_provider_that_only_announces_its_end_gets_no_new_streams_and_ends_those_it_has() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { idle: 0, ..terms() });
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let answer = send(&mut seat);
    wired.next_of(HEADERS).await;
    // The first of the two steps of RFC 9113 §6.8.
    wired.go_away(0x7fff_ffff, Reason::NO_ERROR).await;
    until(|| acquire(&endpoint).is_none()).await;
    wired.go_away(1, Reason::NO_ERROR).await;
    wired.answer(1).await;
    assert!(ample(answer).await.is_ok());
    drop(seat);
    assert_eq!(wired.end().await, Some(0));
}

#[tokio::test]
async fn goaway_with_an_error_refuses_as_well_and_tells_its_code() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let answer = send(&mut seat);
    wired.next_of(HEADERS).await;
    wired.go_away(0, Reason::ENHANCE_YOUR_CALM).await;
    let broke = broken(answer).await;
    assert_eq!(broke, Broke::Refused(Reason::ENHANCE_YOUR_CALM));
    assert!(broke.is_unprocessed());
}

#[tokio::test]
async fn streams_that_goaway_promised_to_answer_are_lost_with_the_connection() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let answer = send(&mut seat);
    wired.next_of(HEADERS).await;
    wired.go_away(1, Reason::NO_ERROR).await;
    drop(wired);
    assert_eq!(broken(answer).await, Broke::Lost);
}

#[tokio::test]
async fn a_reset_tells_its_code_and_refused_stream_is_known_as_safe() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let running = send(&mut seat);
    let codes =
        [Reason::REFUSED_STREAM, Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR, Reason::HTTP_1_1_REQUIRED];
    for (code, stream) in codes.into_iter().zip((3..).step_by(2)) {
        let mut other = acquire(&endpoint).expect("a place");
        let answer = send(&mut other);
        wired.reset(stream, code).await;
        let expected = if code == Reason::REFUSED_STREAM { Broke::Refused(code) } else { Broke::Reset(code) };
        let broke = broken(answer).await;
        assert_eq!((broke, broke.is_unprocessed()), (expected, code == Reason::REFUSED_STREAM));
    }
    wired.answer(1).await;
    assert!(ample(running).await.is_ok(), "the others go on");
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_body_is_no_clean_end() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let answer = send(&mut seat);
    wired.next_of(HEADERS).await;
    wired.write(HEADERS, END_HEADERS, 1, &[STATUS_200]).await;
    wired.write(DATA, 0, 1, b"half").await;
    let mut body = ample(answer).await.expect("a head").into_body();
    assert_eq!(ample(body.data()).await.expect("data").expect("data"), "half");
    wired.reset(1, Reason::NO_ERROR).await;
    let error = ample(body.data()).await.expect("an error").expect_err("an error");
    assert_eq!(judge(&error), Broke::Reset(Reason::NO_ERROR));
}

#[tokio::test]
async fn a_connection_that_ends_or_breaks_loses_its_streams() {
    for resets in [false, true] {
        let port = Port::new().await;
        let endpoint = port.endpoint(Terms { idle: 0, ..terms() });
        let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
        let answer = send(&mut seat);
        wired.next_of(HEADERS).await;
        if resets {
            socket2::SockRef::from(&wired.stream).set_linger(Some(Duration::ZERO)).expect("a socket");
        }
        drop(wired);
        assert_eq!(broken(answer).await, Broke::Lost, "reset: {resets}");
        until(|| acquire(&endpoint).is_none()).await;
        // A request that came too late to be sent is safe.
        assert!(matches!(seat.send(get(), true), Err(Broke::Refused(_))));
        drop(seat);
        all_tasks_end().await;
    }
}

#[tokio::test]
async fn a_malformed_answer_is_the_providers_fault_and_costs_one_stream() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let (malformed, mut other) = (send(&mut seat), acquire(&endpoint).expect("a place"));
    let running = send(&mut other);
    wired.next_of(HEADERS).await;
    // No `:status`, an `accept-charset` of the static table instead.
    wired.write(HEADERS, END_HEADERS, 1, &[0x8f]).await;
    assert_eq!(broken(malformed).await, Broke::Protocol(Reason::PROTOCOL_ERROR));
    assert_eq!(wired.next_of(RST_STREAM).await.stream, 1);
    wired.answer(3).await;
    assert!(ample(running).await.is_ok());
}

#[tokio::test]
async fn an_answer_with_too_large_a_head_is_refused_alone() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let (large, mut other) = (send(&mut seat), acquire(&endpoint).expect("a place"));
    let running = send(&mut other);
    wired.next_of(HEADERS).await;
    // Fields without indexing: a name of one byte, a value of 100.
    let field = [&[0, 1, b'a', 100][..], &[b'b'; 100]].concat();
    let fields = field.repeat(120);
    wired.write(HEADERS, END_STREAM, 1, &[&[STATUS_200][..], &fields].concat()).await;
    for _ in 0..4 {
        wired.write(CONTINUATION, 0, 1, &fields).await;
    }
    wired.write(CONTINUATION, END_HEADERS, 1, &[]).await;
    assert_eq!(broken(large).await, Broke::Protocol(Reason::PROTOCOL_ERROR));
    wired.answer(3).await;
    assert!(ample(running).await.is_ok());
}

#[tokio::test]
async fn a_provider_that_breaks_http2_loses_the_connection() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let answer = send(&mut seat);
    wired.next_of(HEADERS).await;
    wired.write(DATA, 0, 0, b"on no stream").await;
    assert_eq!(broken(answer).await, Broke::Protocol(Reason::PROTOCOL_ERROR));
    assert_eq!(wired.end().await, Some(u32::from(Reason::PROTOCOL_ERROR)));
    until(|| acquire(&endpoint).is_none()).await;
}

#[tokio::test]
async fn a_push_breaks_the_connection() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    assert!(wired.settings.contains(&(ENABLE_PUSH, 0)));
    let answer = send(&mut seat);
    wired.next_of(HEADERS).await;
    wired.write(5, END_HEADERS, 1, &[0, 0, 0, 2, 0x82, 0x84, 0x86]).await;
    assert_eq!(broken(answer).await, Broke::Protocol(Reason::PROTOCOL_ERROR));
}

#[tokio::test]
async fn a_request_that_http2_does_not_allow_is_ours_and_harms_nobody() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let mut request = get();
    request.headers_mut().insert("connection", http::HeaderValue::from_static("close"));
    assert_eq!(seat.send(request, true).expect_err("not in HTTP/2"), Broke::Ours);
    drop(seat);
    let mut seat = acquire(&endpoint).expect("a place");
    let answer = send(&mut seat);
    let stream = wired.next_of(HEADERS).await.stream;
    wired.answer(stream).await;
    assert!(ample(answer).await.is_ok());

    let mut seat = acquire(&endpoint).expect("a place");
    let (answer, mut body) =
        seat.send(Request::post("http://api.test/").body(()).expect("a request"), false).expect("sent");
    body.send_reset(Reason::CANCEL);
    assert_eq!(broken(answer).await, Broke::Ours);
}

#[tokio::test]
async fn a_dropped_stream_is_cancelled_and_its_place_free() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { streams: 1, ..terms() });
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let answer = send(&mut seat);
    wired.next_of(HEADERS).await;
    drop(answer);
    drop(seat);
    let reset = wired.next_of(RST_STREAM).await;
    assert_eq!((reset.stream, &reset.payload[..]), (1, &u32::from(Reason::CANCEL).to_be_bytes()[..]));
    let mut next = acquire(&endpoint).expect("the place");
    let answer = send(&mut next);
    assert_eq!(wired.next_of(HEADERS).await.stream, 3);
    wired.answer(3).await;
    assert!(ample(answer).await.is_ok());
}

#[tokio::test]
async fn late_frames_of_many_cancelled_streams_do_not_cost_the_connection() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let running = send(&mut seat);
    wired.next_of(HEADERS).await;
    for _ in 0..500 {
        let mut leaves = acquire(&endpoint).expect("a place");
        let answer = send(&mut leaves);
        let stream = wired.next_of(HEADERS).await.stream;
        drop((answer, leaves));
        wired.next_of(RST_STREAM).await;
        for _ in 0..4 {
            wired.write(HEADERS, END_HEADERS, stream, &[STATUS_200]).await;
        }
    }
    wired.answer(1).await;
    assert!(ample(running).await.is_ok());
}

// === Bounds ===

#[tokio::test]
async fn what_a_provider_may_send_is_bounded_by_what_it_is_told() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let window = 128 * 1024;
    assert!(wired.settings.contains(&(INITIAL_WINDOW_SIZE, window)), "{:?}", wired.settings);
    assert!(wired.settings.contains(&(MAX_HEADER_LIST_SIZE, 64 * 1024)), "{:?}", wired.settings);
    let update = wired.next_of(WINDOW_UPDATE).await;
    assert_eq!((update.stream, &update.payload[..]), (0, &(100 * window - 65_535).to_be_bytes()[..]));

    let answer = send(&mut seat);
    wired.next_of(HEADERS).await;
    wired.write(HEADERS, END_HEADERS, 1, &[STATUS_200]).await;
    for _ in 0..window / 16_384 {
        wired.write(DATA, 0, 1, &[b'x'; 16_384]).await;
    }
    let mut body = ample(answer).await.expect("a head").into_body();
    wired.write(DATA, 0, 1, b"one too many").await;
    wired.next_of(RST_STREAM).await;
    let mut held = 0;
    let error = loop {
        match ample(body.data()).await.expect("not the end") {
            Ok(data) => held += data.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(judge(&error), Broke::Protocol(Reason::FLOW_CONTROL_ERROR));
    assert!(held <= window as usize, "{held}");
}

#[test]
fn every_stream_has_room_for_all_of_its_own_up_to_the_bound() {
    assert_eq!(driver::connection_window(1), 128 * 1024);
    assert_eq!(driver::connection_window(100), 100 * 128 * 1024);
    assert_eq!(driver::connection_window(usize::MAX), 16 * 1024 * 1024);
}

#[tokio::test]
async fn extended_connect_is_what_the_providers_settings_say() {
    for enabled in [false, true] {
        let port = Port::new().await;
        let endpoint = port.endpoint(terms());
        let (mut seat, mut wired) = first(&port, &endpoint, &[(ENABLE_CONNECT_PROTOCOL, u32::from(enabled))]).await;
        assert_eq!(seat.takes_extended_connect(), enabled);
        if enabled {
            let mut request = get();
            *request.method_mut() = Method::CONNECT;
            request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
            let (answer, _body) = seat.send(request, false).expect("sent");
            wired.next_of(HEADERS).await;
            wired.write(HEADERS, END_HEADERS, 1, &[STATUS_200]).await;
            assert_eq!(ample(answer).await.expect("an answer").status(), 200);
        }
    }
}

// === Time ===

#[tokio::test]
async fn an_idle_connection_is_pinged_and_lives_while_it_answers() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { ping: Some(Duration::from_millis(5)), ..terms() });
    let (seat, mut wired) = first(&port, &endpoint, &[]).await;
    drop(seat);
    for _ in 0..5 {
        let ping = wired.next_of(PING).await;
        wired.write(PING, ACK, 0, &ping.payload).await;
    }
    assert!(acquire(&endpoint).is_some());
}

#[tokio::test]
async fn a_provider_that_answers_no_ping_loses_the_connection() {
    let port = Port::new().await;
    let ping = Some(Duration::from_millis(5));
    let endpoint = port.endpoint(Terms { ping, ping_answer: SOON, idle: 0, ..terms() });
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let answer = send(&mut seat);
    wired.next_of(PING).await;
    assert_eq!(broken(answer).await, Broke::Lost);
    drop(seat);
    wired.end().await;
    assert!(acquire(&endpoint).is_none());
    all_tasks_end().await;
}

#[tokio::test]
async fn a_provider_that_sends_something_else_is_alive_without_a_pong() {
    let port = Port::new().await;
    let ping = Some(Duration::from_millis(5));
    let endpoint = port.endpoint(Terms { ping, ping_answer: Duration::from_secs(5), ..terms() });
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let answer = send(&mut seat);
    wired.next_of(PING).await;
    wired.write(HEADERS, END_HEADERS, 1, &[STATUS_200]).await;
    let mut body = ample(answer).await.expect("a head").into_body();
    for _ in 0..3 {
        wired.write(DATA, 0, 1, b"still here").await;
        assert!(ample(body.data()).await.expect("data").is_ok());
    }
}

#[tokio::test]
async fn a_connection_closes_when_it_has_been_idle_for_its_time() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { idle_timeout: SOON, ..terms() });
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let answer = send(&mut seat);
    wired.next_of(HEADERS).await;
    // Longer than its time, but not idle: another connection of the same kind comes and goes meanwhile.
    let other_port = Port::new().await;
    let other = other_port.endpoint(Terms { idle_timeout: SOON * 2, ..terms() });
    let (brief, mut other_wired) = first(&other_port, &other, &[]).await;
    drop(brief);
    assert_eq!(other_wired.end().await, Some(0));
    wired.answer(1).await;
    assert!(ample(answer).await.is_ok(), "it was in use");
    drop(seat);
    assert_eq!(wired.end().await, Some(0));
    assert!(acquire(&endpoint).is_none());
    all_tasks_end().await;
}

#[tokio::test]
async fn an_old_connection_takes_no_new_streams_and_ends_after_its_last() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { max_age: SOON, idle: 0, ..terms() });
    let (mut seat, mut wired) = first(&port, &endpoint, &[]).await;
    let answer = send(&mut seat);
    wired.next_of(HEADERS).await;
    until(|| acquire(&endpoint).is_none()).await;
    wired.answer(1).await;
    assert!(ample(answer).await.is_ok());
    drop(seat);
    assert_eq!(wired.end().await, Some(0));
    all_tasks_end().await;
}

#[tokio::test]
async fn an_old_connection_that_is_in_use_is_replaced_ahead_of_need() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { max_age: SOON, ..terms() });
    let (_seat, _wired) = first(&port, &endpoint, &[]).await;
    let _next = port.open(&[]).await;
    until(|| acquire(&endpoint).is_some()).await;
}

#[test]
fn connections_opened_together_do_not_end_together() {
    let ages: std::collections::BTreeSet<_> = (0..100).map(|_| driver::younger(Duration::from_secs(1000))).collect();
    assert!(ages.len() > 90);
    assert!(ages.iter().all(|age| (Duration::from_secs(900)..=Duration::from_secs(1000)).contains(age)));
    assert!(driver::younger(Duration::MAX) > Duration::MAX / 2, "for ever stays so");
}

// === The end ===

#[tokio::test]
async fn after_the_endpoint_is_gone_streams_end_in_peace_and_nothing_is_left() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { streams: 2, ..terms() });
    let (mut seat, mut busy) = first(&port, &endpoint, &[]).await;
    let other = acquire(&endpoint).expect("a place");
    let mut idle = port.open(&[]).await;
    until(|| acquire(&endpoint).is_some()).await;
    drop(other);
    let answer = send(&mut seat);
    busy.next_of(HEADERS).await;
    drop(endpoint);
    assert_eq!(idle.end().await, Some(0));
    busy.answer(1).await;
    assert!(ample(answer).await.is_ok());
    drop(seat);
    assert_eq!(busy.end().await, Some(0));
    all_tasks_end().await;
}

#[tokio::test]
async fn a_connection_that_comes_after_the_endpoint_is_gone_closes() {
    let port = Port::new().await;
    let endpoint = port.endpoint(terms());
    let mut waiting = Box::pin(open(&endpoint));
    assert!(poll_once(&mut waiting).await.is_pending());
    let mut wired = port.wired().await;
    drop(waiting);
    drop(endpoint);
    wired.settings(&[]).await;
    assert_eq!(wired.end().await, Some(0));
    all_tasks_end().await;
}

#[tokio::test]
async fn a_connection_ahead_of_need_that_comes_too_late_closes_while_streams_run() {
    let port = Port::new().await;
    let endpoint = port.endpoint(Terms { streams: 1, ..terms() });
    let (mut seat, mut busy) = first(&port, &endpoint, &[]).await;
    assert!(acquire(&endpoint).is_none());
    let mut second = Box::pin(open(&endpoint));
    assert!(poll_once(&mut second).await.is_pending());
    let mut late = port.wired().await;
    drop(second);
    drop(endpoint);
    late.settings(&[]).await;
    assert_eq!(late.end().await, Some(0));
    let answer = send(&mut seat);
    busy.next_of(HEADERS).await;
    busy.answer(1).await;
    assert!(ample(answer).await.is_ok());
}

// === TLS ===

struct Tls {
    port: Port,
    acceptor: TlsAcceptor,
    endpoint: Arc<Endpoint>,
}

/// A provider whose ALPN list this is, for a client that will do with HTTP/1 or not.
async fn tls(server: &[&[u8]], http1: bool) -> Tls {
    let port = Port::new().await;
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a valid name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a valid name");
    leaf.is_ca = IsCa::NoCa;
    let ca = params.self_signed(&key).expect("a certificate");
    let leaf_key = KeyPair::generate().expect("a key");
    let issuer = rcgen::Issuer::from_params(&params, &key);
    let certificate = leaf.signed_by(&leaf_key, &issuer).expect("a certificate");
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .expect("a pair");
    config.alpn_protocols = server.iter().map(|name| name.to_vec()).collect();
    let provider = ProviderTls { ca: Some(ca.pem().as_bytes().into()), ..ProviderTls::default() };
    let offers: &[&[u8]] = if http1 { &[b"h2", b"http/1.1"] } else { &[b"h2"] };
    let target = Target::new(&url(port.address, Scheme::Https), &provider).expect("TLS").offering(offers);
    let approach = Approach::new(target, Speaks::Alpn { http1 }, terms());
    let endpoint = Arc::new(Endpoint::with(approach, &connections(), 1));
    Tls { port, acceptor: TlsAcceptor::from(Arc::new(config)), endpoint }
}

impl Tls {
    /// Takes connections for as long as it lives; counts those that chose HTTP/2, and the others.
    fn serve(self) -> (Arc<Endpoint>, Arc<[AtomicUsize; 2]>) {
        let seen = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let counters = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = self.port.listener.accept().await.expect("a connection");
                let Ok(mut stream) = self.acceptor.accept(stream).await else { continue };
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                counters[usize::from(http2)].fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    if http2 {
                        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                        while let Some(Ok((_, mut respond))) = connection.accept().await {
                            respond.send_response(Response::new(()), true).expect("a head");
                        }
                    } else {
                        let _ = stream.read(&mut [0]).await;
                    }
                });
            }
        });
        (self.endpoint, seen)
    }
}

async fn open_at_once(endpoint: &Arc<Endpoint>, count: usize) -> Vec<Hand> {
    let one = || {
        let endpoint = Arc::clone(endpoint);
        tokio::spawn(async move { endpoint.open(0, AMPLE, clock::now() + AMPLE).await.expect("a connection") })
    };
    let opening: Vec<_> = (0..count).map(|_| one()).collect();
    let mut hands = Vec::new();
    for hand in opening {
        hands.push(ample(hand).await.expect("no panic"));
    }
    hands
}

#[tokio::test]
async fn where_alpn_chooses_http2_the_connection_is_shared_also_the_first_time() {
    let (endpoint, seen) = tls(&[b"h2", b"http/1.1"], true).await.serve();
    let hands = open_at_once(&endpoint, 20).await;
    assert!(hands.iter().all(|hand| matches!(hand, Hand::Http2(_))));
    for hand in hands {
        let Hand::Http2(mut seat) = hand else { unreachable!() };
        assert_eq!(ample(send(&mut seat)).await.expect("an answer").status(), 200);
    }
    assert_eq!((seen[0].load(Ordering::Relaxed), seen[1].load(Ordering::Relaxed)), (0, 1));
}

#[tokio::test]
async fn where_alpn_chooses_http1_everyone_gets_a_connection_of_their_own() {
    for server in [&[&b"http/1.1"[..]][..], &[]] {
        let (endpoint, seen) = tls(server, true).await.serve();
        for round in 1..=2 {
            let hands = open_at_once(&endpoint, 5).await;
            assert!(hands.iter().all(|hand| matches!(hand, Hand::Http1(_))));
            until(|| seen[0].load(Ordering::Relaxed) == 5 * round).await;
        }
        assert_eq!(seen[1].load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn a_connection_for_http1_is_had_beside_the_shared_ones() {
    let (endpoint, seen) = tls(&[b"h2", b"http/1.1"], true).await.serve();
    let _hands = open_at_once(&endpoint, 1).await;
    let own = ample(endpoint.open_http1(&Announce::default(), clock::now() + AMPLE)).await.expect("a connection");
    assert!(!own.wire.io().chose_http2());
    until(|| seen[0].load(Ordering::Relaxed) == 1).await;
    assert_eq!(seen[1].load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_provider_that_must_speak_http2_and_does_not_is_an_error() {
    let (endpoint, _seen) = tls(&[], false).await.serve();
    let error = endpoint.open(0, AMPLE, clock::now() + AMPLE).await.expect_err("no HTTP/2");
    assert_eq!(error.token(), "tls_protocol_error");
    let told = error.to_string();
    assert!(
        told.ends_with(": it does not choose HTTP/2 by ALPN; let protocols of the provider include http1"),
        "{told}"
    );
}
