//! Not one request is lost and not one stream is cut, over a hundred reloads and a drain.
//!
//! A request is **answered** when its whole answer came, and it is the right one. It was **never taken** when the connection
//! ended before the first byte of an answer *and* no provider has seen it: HTTP/1 lets either side close a connection that
//! is between two requests, so a client may write into one that is closing, and knows by the missing first byte that it may
//! try again. Everything else is **lost**.
//!
//! On a listener that stays, nothing may be lost and nothing not taken. On one that a reload removes, and while the gateway
//! drains, a request may find its connection closed or refused; it may not be taken and then be dropped. Streams (server-sent
//! events, an upgraded connection) live through all of it, each event seen when it was sent.

use crate::world::{Gateway, Peer, Provider, Wire, free_address, lock, wait_until};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What everyone in the test knows.
#[derive(Debug, Default)]
struct Ledger {
    /// The next request's number.
    next: AtomicU64,
    /// Numbers that reached a provider.
    seen: Mutex<HashSet<u64>>,
    /// Requests with a whole and right answer.
    answered: AtomicU64,
    /// Those among them that came in through the listener that comes and goes.
    answered_at_side: AtomicU64,
    /// Numbers that nobody may have seen, and the listener they went to.
    never_taken: Mutex<Vec<(u64, &'static str)>>,
    /// How many events each stream is to have sent.
    events: Mutex<u64>,
    more_events: Condvar,
    /// The clients are to end once their connection does.
    draining: AtomicBool,
}

/// A client that asks one thing after the other.
struct Steady {
    ledger: Arc<Ledger>,
    listener: &'static str,
    address: SocketAddr,
    /// Whether the listener may be gone for a while.
    comes_and_goes: bool,
    /// The configuration that made the last answer.
    config: u64,
}

/// What became of one request.
enum Fate {
    /// The connection may be used again.
    Answered {
        keep: bool,
    },
    NeverTaken,
}

#[test]
fn a_hundred_reloads_and_a_drain_lose_no_request_and_cut_no_stream() {
    let ledger = Arc::new(Ledger::default());
    let [alpha, moved, beta, gamma] = ["alpha", "moved", "beta", "gamma"].map(|name| provider(name, &ledger));
    let side = free_address();
    let places = [
        ("alpha", alpha.address()),
        ("moved", moved.address()),
        ("beta", beta.address()),
        ("gamma", gamma.address()),
        ("side", side),
    ];
    let gateway = Gateway::start(&yaml(0), &places);
    let mut streams: Vec<Wire> = (0..3).map(|_| open_stream(gateway.web())).collect();
    let mut tunnel = open_tunnel(gateway.web());
    let mut clients = Vec::new();
    for number in 0..6 {
        let comes_and_goes = number % 3 == 2;
        let (listener, address) = if comes_and_goes { ("side", side) } else { ("web", gateway.web()) };
        clients.push(Steady { ledger: Arc::clone(&ledger), listener, address, comes_and_goes, config: 0 }.start());
    }

    for number in 1..=RELOADS {
        gateway.rewrite(&yaml(number));
        gateway.reload().unwrap_or_else(|rejected| panic!("reload {number}: {}", rejected.rendered));
        see_event(&ledger, &mut streams, &mut tunnel, number);
        ledger.wait_for_more(20, &clients);
    }
    let never_taken = lock(&ledger.never_taken).clone();
    assert!(
        never_taken.iter().all(|(_, listener)| *listener == "side"),
        "lost on a listener that stays: {never_taken:?}"
    );

    ledger.draining.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| gateway.drain(Duration::from_mins(1)));
        for client in clients {
            client.join().expect("every answer of this client was right");
        }
        // The streams are all that is left, and go on.
        see_event(&ledger, &mut streams, &mut tunnel, RELOADS + 1);
        assert!(!drained.is_finished(), "the drain did not wait for the streams");
        see_event(&ledger, &mut streams, &mut tunnel, u64::MAX);
        tunnel.half_close();
        tunnel.closes();
        for stream in &mut streams {
            assert_eq!(stream.chunk(), None, "a stream ends by its last chunk");
            assert_eq!(stream.trailers(), []);
            stream.closes();
        }
        assert!(drained.join().expect("the drain ends"), "the drain was not whole");
    });

    let (seen, never_taken) = (lock(&ledger.seen), lock(&ledger.never_taken));
    let taken: Vec<_> = never_taken.iter().filter(|(number, _)| seen.contains(number)).collect();
    assert!(taken.is_empty(), "taken and then dropped: {taken:?}");
    let answered = ledger.answered.load(Ordering::SeqCst);
    let sent = ledger.next.load(Ordering::SeqCst);
    assert_eq!(answered + never_taken.len() as u64, sent, "each request is accounted for");
    assert!(answered > RELOADS * 20, "only {answered} requests: too few to show anything");
    let at_side = ledger.answered_at_side.load(Ordering::SeqCst);
    assert!(at_side > RELOADS, "only {at_side} requests came in through the listener that comes and goes");
    // What found its connection closing is rare; were it common, the closing would be wrong.
    assert!(never_taken.len() <= NEVER_TAKEN_MAX, "{} of {sent} were not taken", never_taken.len());
    // Of what was taken nothing was given up on the way either.
    for outcome in ["failure", "rejected", "local_refusal", "client_gone"] {
        assert!(gateway.metric("sluice_attempts_total", &[("outcome", outcome)]) < 1.0, "attempts: {outcome}");
    }
}

/// The configuration as the reload of this number leaves it: routes, providers, pools, limits and a listener change.
fn yaml(number: u64) -> String {
    let mut yaml = format!(
        "
version: 1
workers: 2
admin: {{ bind: \"{{admin}}\" }}
reload: {{ watch: false }}
log: {{ format: json, file: \"{{dir}}/log\", access: false }}
listeners:
  - name: web
    bind: \"{{web}}\"
    limits: {{ connections: {}, header_timeout: {}s, body_bytes: {}MiB }}
",
        100 + number % 50,
        5 + number % 7,
        1 + number % 3,
    );
    if number % 2 == 1 {
        yaml.push_str("  - { name: side, bind: \"{side}\" }\n");
    }
    let alpha = if number.is_multiple_of(3) { "alpha" } else { "moved" };
    let _ = writeln!(
        yaml,
        "providers:\n  alpha: {{ url: \"http://{{{alpha}}}\" }}\n  beta: {{ url: \"http://{{beta}}\" }}"
    );
    if number.is_multiple_of(4) {
        yaml.push_str("  gamma: { url: \"http://{gamma}\", timeouts: { idle: 30s } }\n");
    }
    let pool = match number % 4 {
        0 => "[gamma, alpha, beta]",
        1 => "[alpha, beta]",
        2 => "[beta]",
        _ => "[beta, alpha]",
    };
    let _ = writeln!(yaml, "pools:\n  main: {{ providers: {pool} }}\nroutes:");
    for extra in 0..number % 5 {
        let _ = writeln!(yaml, "  - {{ name: extra-{extra}, match: {{ path: \"/extra-{extra}/*\" }}, respond: {{}} }}");
    }
    let rewrite = format!("rewrite: {{ response_headers: {{ set: {{ x-config: \"{number}\" }} }} }}");
    let _ = writeln!(yaml, "  - {{ name: all, match: {{ path: \"/*\" }}, pool: main, {rewrite} }}");
    yaml
}

// What the providers do.

fn provider(name: &'static str, ledger: &Arc<Ledger>) -> Provider {
    let ledger = Arc::clone(ledger);
    Provider::scripted(move |peer| {
        while let Some(request) = peer.wire.request() {
            let target = request.head.line.split(' ').nth(1).unwrap_or_default();
            match target {
                "/stream" => return stream(peer, &ledger),
                "/tunnel" => return tunnel(peer),
                _ => {}
            }
            let number: u64 = request.value("x-number").and_then(|number| number.parse().ok()).expect("a number");
            assert!(lock(&ledger.seen).insert(number), "{number} was sent twice");
            let body = format!("{name} {number} {}", String::from_utf8_lossy(&request.body));
            if number.is_multiple_of(2) {
                peer.wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
                peer.wire.send_chunk(&body);
                peer.wire.send("0\r\n\r\n");
            } else {
                peer.answer("200 OK", &body);
            }
        }
    })
}

/// Sends each event once it is due; the one that has no number is the last.
fn stream(peer: &mut Peer, ledger: &Ledger) {
    peer.wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut sent = 0;
    while sent != u64::MAX {
        let due = ledger.more_events.wait_while(lock(&ledger.events), |due| *due == sent);
        sent = *due.unwrap_or_else(PoisonError::into_inner);
        peer.wire.send_chunk(&format!("data: {sent}\n\n"));
    }
    peer.wire.send("0\r\n\r\n");
}

/// Repeats what comes, eight bytes at a time, until the client ends its direction.
fn tunnel(peer: &mut Peer) {
    peer.wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    while peer.wire.begins() {
        let echo = peer.wire.take(8);
        peer.wire.send(echo);
    }
}

// What the clients do.

fn open_stream(web: SocketAddr) -> Wire {
    let mut wire = Wire::connect(web);
    wire.send("GET /stream HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(wire.head().status(), 200);
    wire
}

fn open_tunnel(web: SocketAddr) -> Wire {
    let mut wire = Wire::connect(web);
    wire.send("GET /tunnel HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert_eq!(wire.head().status(), 101);
    wire
}

/// Every stream brings the event of this number, and the tunnel repeats it.
fn see_event(ledger: &Ledger, streams: &mut [Wire], tunnel: &mut Wire, number: u64) {
    *lock(&ledger.events) = number;
    ledger.more_events.notify_all();
    for stream in streams {
        assert_eq!(stream.chunk(), Some(format!("data: {number}\n\n").into_bytes()));
    }
    tunnel.send(number.to_be_bytes());
    tunnel.expect(number.to_be_bytes());
}

// === impl Ledger ===

impl Ledger {
    /// Waits until so many more requests are answered, so that reloads fall between requests and into them.
    fn wait_for_more(&self, more: u64, clients: &[JoinHandle<()>]) {
        let goal = self.answered.load(Ordering::SeqCst) + more;
        wait_until("more answers", || {
            assert!(clients.iter().all(|client| !client.is_finished()), "a client got a wrong answer, or none");
            self.answered.load(Ordering::SeqCst) >= goal
        });
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }
}

// === impl Steady ===

impl Steady {
    fn start(mut self) -> JoinHandle<()> {
        std::thread::spawn(move || while self.serve_a_connection() {})
    }

    /// Uses one connection for as long as it stays open; whether to go on with another.
    fn serve_a_connection(&mut self) -> bool {
        let Ok(stream) = TcpStream::connect(self.address) else {
            assert!(self.comes_and_goes || self.ledger.is_draining(), "{} refuses connections", self.listener);
            std::thread::yield_now();
            return !self.ledger.is_draining();
        };
        let mut wire = Wire::new(stream, 0);
        loop {
            match self.ask(&mut wire) {
                Fate::Answered { keep: true } => {}
                Fate::Answered { keep: false } => {
                    wire.closes();
                    return true;
                }
                Fate::NeverTaken => return true,
            }
        }
    }

    fn ask(&mut self, wire: &mut Wire) -> Fate {
        let number = self.ledger.next.fetch_add(1, Ordering::SeqCst);
        let body = if number.is_multiple_of(3) {
            "x".repeat(usize::try_from(number % 5_000).unwrap_or(0))
        } else {
            String::new()
        };
        let method = if body.is_empty() { "GET" } else { "POST" };
        // A write into a connection that has ended shows when reading.
        let _: std::io::Result<()> = wire.try_send(format!(
            "{method} /a/{number} HTTP/1.1\r\nhost: a\r\nx-number: {number}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        if !wire.begins() {
            lock(&self.ledger.never_taken).push((number, self.listener));
            return Fate::NeverTaken;
        }
        let answer = wire.answer();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let text = answer.text();
        let (from, rest) = text.split_once(' ').expect("a name and a number");
        assert!(["alpha", "moved", "beta", "gamma"].contains(&from), "{from}");
        assert_eq!(rest, format!("{number} {body}"));
        let config = answer.value("x-config").and_then(|config| config.parse().ok()).expect("the route sets it");
        assert!(config >= self.config, "a request saw a configuration older than the one before it");
        self.config = config;
        self.ledger.answered.fetch_add(1, Ordering::SeqCst);
        self.ledger.answered_at_side.fetch_add(u64::from(self.comes_and_goes), Ordering::SeqCst);
        Fate::Answered { keep: answer.value("connection") != Some("close") }
    }
}

/// How often the configuration is replaced.
const RELOADS: u64 = 100;

/// Of all requests, how many may find their connection closing: by the kernel's rules one that connects in the very moment
/// a socket closes is reset. Most runs have none.
const NEVER_TAKEN_MAX: usize = 10;
