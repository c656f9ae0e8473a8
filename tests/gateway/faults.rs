//! One provider of three goes wrong, or all of them do, or those of another pool. Clients are to notice as little as can
//! be had without doing anything twice: who asks for something safe notices nothing, and what a provider may have done is
//! done by no other.

use crate::world::{Gateway, Message, Peer, Provider, Wire, pause, refusing, wait_until};
use socket2::SockRef;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Three providers in one pool, `alpha` wherever the test wants it.
const THREE: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers:
  alpha: { url: \"http://{alpha}\" }
  beta: { url: \"http://{beta}\" }
  gamma: { url: \"http://{gamma}\" }
pools: { main: { providers: [alpha, beta, gamma] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main, retry: { attempt_timeout: 100ms{retry} } } ]
";

/// The same, where one failure opens a circuit, and a provider has two places.
const DOWN: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers:
  alpha: { url: \"http://{alpha}\", limits: { concurrency: 2 }, circuit_breaker: &circuit { failure_threshold: 1, recovery_timeout: 200ms } }
  beta: { url: \"http://{beta}\", limits: { concurrency: 2 }, circuit_breaker: *circuit }
  gamma: { url: \"http://{gamma}\", limits: { concurrency: 2 }, circuit_breaker: *circuit }
pools: { main: { providers: [alpha, beta, gamma] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main, retry: { attempts: 20 } } ]
";

const POOLS: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers:
  alpha: { url: \"http://{alpha}\" }
  beta: { url: \"http://{beta}\" }
  gamma: { url: \"http://{gamma}\" }
pools: { stuck: { providers: [alpha, beta] }, fine: { providers: [gamma] } }
routes:
  - { name: stuck, match: { path: \"/stuck/*\" }, pool: stuck }
  - { name: fine, match: { path: \"/fine/*\" }, pool: fine }
";

/// What a provider does on each of its connections, and what to call that.
type Script = fn(&mut Peer);

/// Statuses that say: not now. `alpha` has done nothing then.
const REFUSALS: [(&str, Script); 3] = [
    ("429 with Retry-After", |peer| says(peer, "429 Too Many Requests\r\nretry-after: 1")),
    ("429 without", |peer| says(peer, "429 Too Many Requests")),
    ("503", |peer| says(peer, "503 Service Unavailable")),
];

/// Whoever asked cannot know what `alpha` has done then.
const SILENCES: [(&str, Script); 3] = [
    ("hangs", |peer| while peer.request().is_some() {}),
    ("resets after the request", |peer| {
        peer.request();
        reset(peer);
    }),
    ("truncates its answer", |peer| {
        peer.request();
        peer.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nalpha");
    }),
];

/// Each test's requests, by one client, one after the other.
const REQUESTS: usize = 24;

/// A gateway before three providers, of which two are well.
#[derive(Debug)]
struct World {
    gateway: Gateway,
    well: [Provider; 2],
}

fn says(peer: &mut Peer, status: &str) {
    while peer.request().is_some() {
        peer.answer(status, "alpha");
    }
}

/// The connection ends by an RST once its script returns.
fn reset(peer: &mut Peer) {
    let socket = peer.wire.handle().upgrade().expect("it is the script's");
    SockRef::from(&*socket).set_linger(Some(Duration::ZERO)).expect("a socket option");
}

fn well() -> Provider {
    Provider::scripted(|peer| says(peer, "200 OK"))
}

/// The requests that a provider has read whole, by the number that the client gave them.
fn read(provider: &Provider) -> Vec<usize> {
    let number = |request: &Message| request.value("number").and_then(|number| number.parse().ok());
    provider.requests().iter().map(|request| number(request).expect("a number")).collect()
}

/// [`Gateway::metric`] of a counter.
fn count(gateway: &Gateway, family: &str, labels: &[(&str, &str)]) -> usize {
    // The sum of no series at all is a negative zero.
    format!("{:.0}", gateway.metric(family, labels).abs()).parse().expect("counters are not negative")
}

/// Nothing was read twice, by the same provider or by two.
fn no_duplicates(providers: &[&Provider], what: &str) {
    let mut times = BTreeMap::new();
    providers.iter().flat_map(|provider| read(provider)).for_each(|number| *times.entry(number).or_insert(0) += 1);
    let twice: Vec<_> = times.into_iter().filter(|(_, times)| *times > 1).collect();
    assert!(twice.is_empty(), "{what}: read more than once: {twice:?}");
}

// === impl World ===

impl World {
    fn with(alpha: SocketAddr, retry: &str) -> Self {
        World::of(&THREE.replace("{retry}", retry), alpha)
    }

    fn of(yaml: &str, alpha: SocketAddr) -> Self {
        let well = [well(), well()];
        let places = [("alpha", alpha), ("beta", well[0].address()), ("gamma", well[1].address())];
        World { gateway: Gateway::start(yaml, &places), well }
    }

    /// One client sends all of them, and gets these statuses.
    fn ask(&self, method: &str) -> Vec<u16> {
        let mut client = self.gateway.connect();
        (0..REQUESTS).map(|number| send(&mut client, method, "/", number)).collect()
    }

    fn retries(&self) -> usize {
        count(&self.gateway, "sluice_retries_total", &[])
    }
}

fn send(client: &mut Wire, method: &str, path: &str, number: usize) -> u16 {
    begin(client, method, path, number);
    client.answer().status()
}

fn begin(client: &mut Wire, method: &str, path: &str, number: usize) {
    let body = if method == "POST" { "content-length: 4\r\n\r\nbody" } else { "\r\n" };
    client.send(format!("{method} {path} HTTP/1.1\r\nhost: a\r\nnumber: {number}\r\n{body}"));
}

// --- one of three ---

#[test]
fn a_get_succeeds_whatever_one_of_three_providers_does() {
    for (what, script) in REFUSALS.into_iter().chain(SILENCES) {
        let alpha = Provider::scripted(script);
        let world = World::with(alpha.address(), "");
        assert_eq!(world.ask("GET"), [200; REQUESTS], "{what}");
        let asked = read(&alpha).len();
        assert!(asked > 0, "{what}: it was never alpha's turn");
        assert_eq!(world.retries(), asked, "{what}");
    }
}

#[test]
fn a_provider_that_hangs_is_left_alone_also_where_only_the_route_says_for_how_long() {
    let alpha = Provider::scripted(|peer| while peer.request().is_some() {});
    let world =
        World::of(&THREE.replace("retry: { attempt_timeout: 100ms{retry} }", "timeout: 100ms"), alpha.address());
    let statuses = world.ask("GET");
    let asked = read(&alpha).len();
    assert!((1..=5).contains(&asked), "its circuit opens after five: {asked}");
    assert_eq!(statuses.iter().filter(|status| **status != 200).count(), asked);
}

#[test]
fn nobody_notices_a_provider_that_refuses_connections() {
    for method in ["GET", "POST"] {
        let (_socket, alpha) = refusing();
        let world = World::with(alpha, "");
        assert_eq!(world.ask(method), [200; REQUESTS], "{method}");
        assert!(world.retries() > 0, "{method}: it was never alpha's turn");
        no_duplicates(&[&world.well[0], &world.well[1]], method);
    }
}

#[test]
fn what_a_provider_may_have_done_is_done_by_no_other() {
    for (what, script) in SILENCES {
        let alpha = Provider::scripted(script);
        let world = World::with(alpha.address(), "");
        let statuses = world.ask("POST");
        let asked: BTreeSet<usize> = read(&alpha).into_iter().collect();
        assert!(!asked.is_empty(), "{what}: it was never alpha's turn");
        no_duplicates(&[&alpha, &world.well[0], &world.well[1]], what);
        // Its client learns that nobody knows; nobody else does.
        for (number, status) in statuses.into_iter().enumerate() {
            let expected: &[u16] = if asked.contains(&number) { &[502, 504] } else { &[200] };
            assert!(expected.contains(&status), "{what}: {number} got {status}");
        }
        assert_eq!(world.retries(), 0, "{what}");
    }
}

#[test]
fn what_a_provider_may_have_done_is_done_again_where_the_route_says_so() {
    for (what, script) in SILENCES {
        let alpha = Provider::scripted(script);
        let world = World::with(alpha.address(), ", methods: all");
        assert_eq!(world.ask("POST"), [200; REQUESTS], "{what}");
        assert!(!read(&alpha).is_empty(), "{what}: it was never alpha's turn");
    }
}

#[test]
fn what_a_provider_refused_to_do_is_done_by_another() {
    for (what, script) in REFUSALS {
        let alpha = Provider::scripted(script);
        let world = World::with(alpha.address(), ", refused: [429, 503]");
        assert_eq!(world.ask("POST"), [200; REQUESTS], "{what}");
        assert!(!read(&alpha).is_empty(), "{what}: it was never alpha's turn");
        no_duplicates(&[&world.well[0], &world.well[1]], what);
    }
}

#[test]
fn a_503_to_a_post_is_the_answer_unless_the_route_knows_better() {
    let alpha = Provider::scripted(REFUSALS[2].1);
    let world = World::with(alpha.address(), "");
    let statuses = world.ask("POST");
    let asked = read(&alpha);
    assert!(!asked.is_empty(), "it was never alpha's turn");
    for (number, status) in statuses.into_iter().enumerate() {
        assert_eq!(status, if asked.contains(&number) { 503 } else { 200 });
    }
    no_duplicates(&[&alpha, &world.well[0], &world.well[1]], "503");
}

#[test]
fn a_truncated_small_answer_costs_a_retry_and_no_error() {
    // Every second answer, so that no circuit has reason to open.
    let turn = AtomicUsize::new(0);
    let alpha = Provider::scripted(move |peer| {
        while peer.request().is_some() {
            if turn.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                peer.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nalpha");
                return;
            }
            peer.answer("200 OK", "alpha");
        }
    });
    let world = World::with(alpha.address(), "");
    assert_eq!(world.ask("GET"), [200; REQUESTS]);
    let truncated = read(&alpha).len().div_ceil(2);
    assert!(truncated > 1, "alpha was asked {} times", read(&alpha).len());
    assert_eq!(world.retries(), truncated);
    world.gateway.wait_for_metric(
        "sluice_attempts_total",
        &[("provider", "alpha"), ("outcome", "failure")],
        truncated as f64,
    );
}

#[test]
fn a_get_succeeds_while_a_provider_comes_and_goes() {
    // For three requests it answers, for three it breaks the connection, and so on.
    let turn = AtomicUsize::new(0);
    let alpha = Provider::scripted(move |peer| {
        while peer.request().is_some() {
            if turn.fetch_add(1, Ordering::SeqCst) % 6 >= 3 {
                return reset(peer);
            }
            peer.answer("200 OK", "alpha");
        }
    });
    let world = World::with(alpha.address(), "");
    assert_eq!(world.ask("GET"), [200; REQUESTS]);
    assert!(read(&alpha).len() > 3, "alpha was asked {} times", read(&alpha).len());
}

#[test]
fn clients_do_not_notice_a_provider_that_goes_under_load() {
    let alpha = well();
    let world = World::with(alpha.address(), "");
    let (web, over) = (world.gateway.web(), AtomicBool::new(false));
    let answered = AtomicUsize::new(0);
    let bad = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Wire::connect(web);
                while !over.load(Ordering::SeqCst) {
                    let number = answered.fetch_add(1, Ordering::SeqCst);
                    let status = send(&mut client, "GET", "/", number);
                    if status != 200 {
                        bad.lock().expect("nobody panics with it").push((number, status));
                    }
                }
            });
        }
        alpha.wait_for_requests(20);
        // It goes with its connections, some of them in the middle of a request, and listens no more.
        drop(alpha);
        let before = answered.load(Ordering::SeqCst);
        wait_until("requests after it has gone", || answered.load(Ordering::SeqCst) > before + 200);
        over.store(true, Ordering::SeqCst);
    });
    assert_eq!(*bad.lock().expect("nobody panics with it"), []);
}

#[test]
fn a_provider_that_keeps_failing_is_left_alone() {
    for (what, script) in SILENCES.into_iter().chain([REFUSALS[2]]) {
        let alpha = Provider::scripted(script);
        let yaml = THREE.replace("{retry}", "").replace(
            "http://{alpha}\"",
            "http://{alpha}\", circuit_breaker: { \
            failure_threshold: 3, recovery_timeout: 60s, max_recovery_timeout: 60s }",
        );
        let world = World::of(&yaml, alpha.address());
        assert_eq!(world.ask("GET"), [200; REQUESTS], "{what}");
        assert_eq!(read(&alpha).len(), 3, "{what}");
    }
}

#[test]
fn a_provider_that_asks_for_a_pause_is_left_alone() {
    let alpha = Provider::scripted(|peer| says(peer, "429 Too Many Requests\r\nretry-after: 60"));
    let world = World::with(alpha.address(), "");
    assert_eq!(world.ask("POST"), [200; REQUESTS]);
    assert_eq!(read(&alpha).len(), 1);
}

// --- all three ---

#[test]
fn an_outage_of_seconds_costs_nobody_an_error_and_no_provider_more_than_it_can_do() {
    for method in ["GET", "POST"] {
        let sockets: Vec<_> = (0..3).map(|_| refusing()).collect();
        let at = |index: usize| sockets[index].1;
        let places = [("alpha", at(0)), ("beta", at(1)), ("gamma", at(2))];
        let gateway = Gateway::start(DOWN, &places);
        let mut clients: Vec<Wire> = (0..REQUESTS).map(|_| gateway.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            begin(client, method, "/", number);
        }
        wait_until("all of them to wait", || count(&gateway, "sluice_queue_depth", &[]) >= REQUESTS - 3);
        let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let back: Vec<Provider> = sockets
            .into_iter()
            .map(|(socket, _)| {
                let (busy, most) = (Arc::clone(&busy), Arc::clone(&most));
                Provider::scripted_at(socket, move |peer| {
                    while peer.request().is_some() {
                        most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        // Long enough for others to come, were they allowed to.
                        pause(Duration::from_millis(5));
                        busy.fetch_sub(1, Ordering::SeqCst);
                        peer.answer("200 OK", "back");
                    }
                })
            })
            .collect();
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.answer().status(), 200, "{method} {number}");
        }
        no_duplicates(&back.iter().collect::<Vec<_>>(), method);
        assert!(most.load(Ordering::SeqCst) <= 6, "{most:?} at once at three providers with two places each");
    }
}

#[test]
fn an_outage_of_minutes_fails_fast_and_asks_nobody() {
    let sockets: Vec<_> = (0..3).map(|_| refusing()).collect();
    let at = |index: usize| sockets[index].1;
    let places = [("alpha", at(0)), ("beta", at(1)), ("gamma", at(2))];
    let gateway = Gateway::start(&DOWN.replace("recovery_timeout: 200ms", "recovery_timeout: 60s"), &places);
    let mut client = gateway.connect();
    assert_eq!(send(&mut client, "GET", "/", 0), 502, "it finds out that all of them are down");
    let attempts = count(&gateway, "sluice_attempts_total", &[]);
    for number in 1..REQUESTS {
        begin(&mut client, "GET", "/", number);
        let answer = client.answer();
        assert_eq!((answer.status(), answer.json()["reason"].as_str()), (503, Some("no_provider")));
        let wait = answer.value("retry-after").and_then(|wait| wait.parse::<u32>().ok());
        assert!(wait.is_some_and(|wait| (1..=66).contains(&wait)), "{wait:?}");
    }
    assert_eq!(count(&gateway, "sluice_attempts_total", &[]), attempts);
}

// --- another pool ---

#[test]
fn a_pool_whose_providers_hang_takes_nothing_from_another() {
    let hanging = || Provider::scripted(SILENCES[0].1);
    let (alpha, beta, gamma) = (hanging(), hanging(), well());
    let places = [("alpha", alpha.address()), ("beta", beta.address()), ("gamma", gamma.address())];
    let gateway = Gateway::start(POOLS, &places);
    // More than are answered, none of which is: they stay while the rest of the test runs.
    let stuck: Vec<Wire> = (0..200)
        .map(|number| {
            let mut client = gateway.connect();
            client.send(format!("GET /stuck/ HTTP/1.1\r\nhost: a\r\nnumber: {number}\r\n\r\n"));
            client
        })
        .collect();
    wait_until("the stuck pool's requests", || alpha.requests().len() + beta.requests().len() == stuck.len());
    let mut client = gateway.connect();
    for number in 0..200 {
        assert_eq!(send(&mut client, ["GET", "POST"][number % 2], "/fine/", number), 200);
    }
    gateway.wait_for_metric("sluice_requests_total", &[("route", "fine"), ("status_class", "2xx")], 200.0);
    assert_eq!(count(&gateway, "sluice_requests_total", &[("route", "stuck")]), 0, "they still hang");
    no_duplicates(&[&gamma], "the pool that is well");
    drop(stuck);
    gateway.wait_for_metric("sluice_in_flight", &[], 0.0);
}
