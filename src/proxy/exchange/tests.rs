//! Deadlines, decided for times that these tests make up: bytes really move between sockets, but `note_time` and
//! `next_deadline` are told what time it is, so nothing waits and nothing is flaky.

use super::*;
use crate::http1::head::RequestHead;
use crate::net::inside::{Inside, Taker};
use crate::net::io::Io;
use crate::net::wire::Wire;
use crate::proxy::frame;
use bytes::Bytes;
use std::future::Future;
use std::pin::pin;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// Every limit apart from the others, so that a deadline tells whose it is.
#[derive(Clone, Copy)]
struct Limits {
    timeout: u64,
    stream_timeout: Option<u64>,
    first_byte: u64,
    provider_idle: u64,
    client_idle: u64,
    min_body_rate: u64,
}

/// An exchange that has begun, and the far ends of both its wires.
struct Stage<'a> {
    exchange: Exchange<'a>,
    client: TcpStream,
    provider: TcpStream,
    /// When it began, and the route's time with it.
    start: Instant,
}

const LIMITS: Limits = Limits {
    timeout: 1000,
    stream_timeout: None,
    first_byte: 100,
    provider_idle: 60,
    client_idle: 75,
    min_body_rate: 1024,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends `request` and plays `scene` with the exchange it begins.
async fn play(request: &str, limits: Limits, scene: impl AsyncFnOnce(Stage<'_>)) {
    let (mut client, near_client) = pair().await;
    let (provider, near_provider) = pair().await;
    let (mut up, mut down) = (Wire::to_client(near_client), Wire::to_provider(near_provider));
    client.write_all(request.as_bytes()).await.expect("the gateway reads");
    let len = poll_fn(|cx| up.poll_head(cx, 64 * 1024)).await.expect("a head");
    let (mut head, mut answer, mut scratch) = (RequestHead::default(), ResponseHead::default(), String::new());
    head.parse(up.head(len), 100).expect("a valid head");
    let request = frame::check(&head, &mut scratch).expect("a valid request");
    up.use_head(len);
    up.begin_body(request.length, u64::MAX);
    down.out().extend_from_slice(b"HEAD\r\n\r\n");
    down.begin_answer(request.length);
    let (mut replay, start) = (Replay::default(), clock::now());
    let seconds = Duration::from_secs;
    let terms = Terms {
        request: &request,
        identity: &Identity::new(&head.fields, false, (1, 2)),
        rewrite: &Rewrite::default(),
        provider: "alpha",
        headers: &HeaderRules::default(),
        closing: &AtomicBool::new(false),
        deadline: start + seconds(limits.timeout),
        full: true,
        attempt_deadline: start + seconds(limits.timeout),
        degraded: None,
        seen: None,
        trail: "",
        elsewhere: &|_, _, _| Err(Skip::NotRetryable),
        committed: None,
        opened: None,
        commit: Commit { bytes: 0, within: Duration::ZERO },
        stream_timeout: limits.stream_timeout.map(seconds),
        first_byte: seconds(limits.first_byte),
        provider_idle: seconds(limits.provider_idle),
        client_idle: seconds(limits.client_idle),
        min_body_rate: limits.min_body_rate,
    };
    let exchange = Exchange::new(Side::Http1(&mut up), &mut replay, Side::Http1(&mut down), &mut answer, &terms, start);
    scene(Stage { exchange, client, provider, start }).await;
}

/// A connection: its far end, and the gateway's.
async fn pair() -> (TcpStream, Io) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let far = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
    let (near, _) = listener.accept().await.expect("a connection");
    (far, near.into())
}

impl Stage<'_> {
    /// Goes on under other terms.
    fn change(&mut self, change: impl FnOnce(&mut Terms<'_>)) {
        let mut terms = *self.exchange.terms;
        change(&mut terms);
        self.exchange.terms = Box::leak(Box::new(terms));
    }

    /// Moves bytes until `there` says so.
    async fn until(&mut self, there: impl Fn(&Exchange<'_>) -> bool) {
        let exchange = &mut self.exchange;
        poll_fn(|cx| {
            exchange.move_request(cx).expect("the request moves");
            assert!(!exchange.move_answer(cx).expect("the answer moves"), "the exchange is over");
            if there(exchange) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// What is next, and after how many seconds from the start, at so many seconds from the start.
    fn next(&mut self, second: u64) -> (f64, String) {
        let now = self.start + Duration::from_secs(second);
        self.exchange.note_time(now);
        let (deadline, missed) = self.exchange.next_deadline(now);
        let after = deadline.saturating_duration_since(self.start).as_secs_f64();
        ((after * 10.0).round() / 10.0, format!("{missed:?}"))
    }

    async fn client_sends(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.expect("the gateway reads");
    }

    async fn provider_sends(&mut self, bytes: &[u8]) {
        self.provider.write_all(bytes).await.expect("the gateway reads");
    }
}

fn is(after: f64, missed: &str) -> (f64, String) {
    (after, missed.to_owned())
}

fn post(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

fn sent(exchange: &Exchange<'_>) -> bool {
    exchange.up == Up::Sent
}

fn streams(exchange: &Exchange<'_>) -> bool {
    exchange.phase == Phase::Body { on_client: false }
}

#[tokio::test]
async fn a_provider_has_first_byte_from_when_the_request_was_sent() {
    play(GET, LIMITS, async |mut stage| {
        stage.until(sent).await;
        assert_eq!(stage.next(0), is(100.0, "FirstByte"));
        assert_eq!(stage.next(99), is(100.0, "FirstByte"));
    })
    .await;
}

#[tokio::test]
async fn of_first_byte_and_the_routes_timeout_the_shorter_counts() {
    play(GET, Limits { timeout: 30, ..LIMITS }, async |mut stage| {
        stage.until(sent).await;
        assert_eq!(stage.next(0), is(30.0, "Deadline { full: true }"));
    })
    .await;
}

#[tokio::test]
async fn waiting_for_the_clients_body_counts_neither_for_the_route_nor_for_the_provider() {
    play(&post(40_960), Limits { timeout: 150, ..LIMITS }, async |mut stage| {
        stage.client_sends(&vec![b'x'; 40_000]).await;
        stage.until(|exchange| exchange.up == Up::AwaitClient && exchange.client.body_read() == 40_000).await;
        // 40,000 bytes at 1 KiB a second.
        assert_eq!(stage.next(1), is(40.1, "ClientBodyTooSlow"));
        stage.client_sends(&[b'x'; 960]).await;
        stage.until(sent).await;
        // 30 s were the client's: the provider has its own time from now, and the route 30 s more.
        assert_eq!(stage.next(31), is(131.0, "FirstByte"));
        stage.change(|terms| terms.first_byte = Duration::from_secs(500));
        assert_eq!(stage.next(32), is(180.0, "Deadline { full: true }"));
    })
    .await;
}

#[tokio::test]
async fn a_bodys_rate_is_judged_once_ten_seconds_have_passed() {
    play(&post(100_000), LIMITS, async |mut stage| {
        stage.until(|exchange| exchange.up == Up::AwaitClient).await;
        assert_eq!(stage.next(0), is(10.0, "ClientBodyTooSlow"));
        stage.client_sends(&[b'x'; 5 * 1024]).await;
        stage.until(|exchange| exchange.client.body_read() == 5 * 1024).await;
        assert_eq!(stage.next(9), is(10.0, "ClientBodyTooSlow"));
        stage.client_sends(&vec![b'x'; 20 * 1024]).await;
        stage.until(|exchange| exchange.client.body_read() == 25 * 1024).await;
        assert_eq!(stage.next(9), is(25.0, "ClientBodyTooSlow"));
    })
    .await;
}

#[tokio::test]
async fn a_committed_answer_may_pause_for_the_providers_idle_time() {
    play(GET, Limits { timeout: 5, ..LIMITS }, async |mut stage| {
        stage.provider_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello").await;
        stage.until(streams).await;
        assert_eq!(stage.next(1), is(61.0, "Idle"), "the route's timeout is over once the answer is committed");
        stage.provider_sends(b"more").await;
        stage.until(|exchange| exchange.client.body_written() == 9).await;
        assert_eq!(stage.next(50), is(110.0, "Idle"));
    })
    .await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_gone_after_the_listeners_idle_time() {
    let big = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
    play(GET, LIMITS, async |mut stage| {
        stage.provider_sends(big.as_bytes()).await;
        fill(&mut stage).await;
        assert_eq!(stage.next(5), is(80.0, "ClientGone"));
        assert_eq!(stage.next(70), is(80.0, "ClientGone"));
    })
    .await;
}

#[tokio::test]
async fn a_late_head_leaves_the_body_all_of_its_time() {
    let limits = Limits { stream_timeout: Some(300), ..LIMITS };
    play(GET, limits, async |mut stage| {
        stage.until(sent).await;
        assert_eq!(stage.next(0), is(100.0, "FirstByte"));
        stage.provider_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await;
        stage.until(streams).await;
        assert_eq!(stage.next(90), is(150.0, "Idle"));
        stage.change(|terms| terms.provider_idle = Duration::from_secs(1000));
        assert_eq!(stage.next(91), is(390.0, "StreamTimeout"), "a stream's time begins with its head");
    })
    .await;
}

#[tokio::test]
async fn a_provider_is_not_blamed_for_the_time_a_client_took() {
    play(GET, LIMITS, async |mut stage| {
        stage.provider_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
        // As much as the client's socket takes and a little more, which waits in the gateway.
        let mut total = 0;
        while total == 0 || streams(&stage.exchange) {
            stage.provider_sends(&[b'x'; 4096]).await;
            total += 4096;
            stage.until(|exchange| exchange.client.body_written() == total).await;
        }
        assert_eq!(stage.next(5), is(80.0, "ClientGone"));
        drain(&mut stage).await;
        assert_eq!(stage.next(70), is(130.0, "Idle"));
    })
    .await;
}

#[tokio::test]
async fn without_a_minimum_rate_a_body_may_take_its_time_as_long_as_it_comes() {
    play(&post(100), Limits { min_body_rate: 0, ..LIMITS }, async |mut stage| {
        stage.until(|exchange| exchange.up == Up::AwaitClient).await;
        assert_eq!(stage.next(0), is(75.0, "ClientBodyTooSlow"));
        stage.client_sends(b"x").await;
        stage.until(|exchange| exchange.client.body_read() == 1).await;
        assert_eq!(stage.next(70), is(145.0, "ClientBodyTooSlow"));
    })
    .await;
}

#[tokio::test]
async fn a_client_that_waits_for_a_100_may_wait_for_as_long_as_for_an_answer() {
    let expects = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    play(expects, LIMITS, async |mut stage| {
        stage.until(|exchange| exchange.up == Up::AwaitClient).await;
        assert_eq!(stage.next(0), is(100.0, "ClientBodyTooSlow"));
        stage.provider_sends(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        stage.until(|exchange| exchange.continued).await;
        assert_eq!(stage.next(20), is(30.0, "ClientBodyTooSlow"));
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_may_be_quiet_for_the_providers_idle_time_and_has_no_minimum_rate() {
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    play(upgrade, Limits { timeout: 5, ..LIMITS }, async |mut stage| {
        stage.provider_sends(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n").await;
        stage.until(|exchange| exchange.phase == Phase::Tunnel).await;
        stage.client_sends(b"ping").await;
        stage.until(|exchange| exchange.client.body_read() == 4).await;
        assert_eq!(stage.next(40), is(100.0, "Idle"));
    })
    .await;
}

#[tokio::test]
async fn a_deadline_that_passes_ends_the_exchange() {
    play(GET, LIMITS, async |mut stage| {
        stage.change(|terms| terms.first_byte = Duration::from_millis(20));
        let missed = stage.exchange.run(&mut Timer::default()).await.expect_err("nobody answers");
        assert!(matches!(missed, Broken::FirstByte), "{missed:?}");
    })
    .await;
}

/// Sends of an answer's body until the client's socket is full, and nothing moves any more.
async fn fill(stage: &mut Stage<'_>) {
    let Stage { exchange, provider, .. } = stage;
    let piece = vec![b'x'; 256 * 1024];
    let mut sends = pin!(async { while provider.write_all(&piece).await.is_ok() {} });
    poll_fn(|cx| {
        let _: Poll<()> = sends.as_mut().poll(cx);
        exchange.move_request(cx).expect("the request moves");
        assert!(!exchange.move_answer(cx).expect("the answer moves"), "it is longer");
        if exchange.phase == (Phase::Body { on_client: true }) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Has the client take everything there is.
async fn drain(stage: &mut Stage<'_>) {
    let Stage { exchange, client, .. } = stage;
    let mut nowhere = tokio::io::sink();
    let mut takes = pin!(tokio::io::copy(client, &mut nowhere));
    poll_fn(|cx| {
        let _: Poll<std::io::Result<u64>> = takes.as_mut().poll(cx);
        assert!(!exchange.move_answer(cx).expect("the answer moves"), "it is longer");
        if streams(exchange) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Nobody who takes an answer for others, just now.
#[derive(Debug)]
struct Waits;

impl Taker for Waits {
    fn interim(&mut self, _: u16, _: &[u8]) {}

    fn head(&mut self, _: u16, _: &[u8]) {}

    fn poll_take(&mut self, _: &mut Context<'_>, _: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Pending
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

#[tokio::test]
async fn an_answer_for_many_waits_for_them_as_long_as_they_may_take() {
    play(GET, LIMITS, async |mut stage| {
        stage.until(|exchange| exchange.up == Up::Sent).await;
        stage.exchange.committed = true;
        stage.exchange.phase = Phase::Body { on_client: true };
        assert_eq!(stage.next(1), (76.0, "ClientGone".to_owned()));
        let inside = Box::leak(Box::new(Inside::new(Bytes::new(), Box::new(Waits))));
        stage.exchange.client = Side::Inside(inside);
        assert!(stage.next(100).0 > 1_000_000.0, "each of them has its own time");
    })
    .await;
}
