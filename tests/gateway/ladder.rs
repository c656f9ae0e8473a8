//! A route's pool cannot answer, and its ladder does: which rung, for whom, with what, and what everybody is told.
//!
//! `alpha` is the one provider of the route's own pool `main`, `spare` the one of pool `other`.

use crate::http2::{Client, values};
use crate::world::{Gateway, Message, PREAMBLE, Peer, Provider, Sluice, Wire, page, refusing, text, wait_until};
use serde_json::{Value, json};
use std::net::SocketAddr;

const GET: &str = "GET /items?q=1 HTTP/1.1\r\nHost: a\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const SPARED: &str = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nexpires: never\r\ncontent-length: 5\r\n\r\nspare";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";
const SLOW_DOWN: &str = "HTTP/1.1 429 Too Many\r\ncontent-length: 4\r\n\r\nslow";

const POOL: &str = "pool: other";
const REDUCED: &str = "reduced: { pool: other, set_headers: { x-mode: lite }, path: /lite }";
const STATIC: &str = "static: { status: 203, headers: { content-type: application/json }, body: '{}' }";

const YAML: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
clients: { mobile: { keys: [secret-key] } }
providers: { alpha: { url: \"http://{alpha}\"{provider} }, spare: { url: \"http://{spare}\" } }
pools: { main: { providers: [alpha], queue: { {queue} } }, other: { providers: [spare] } }
routes:
  - name: api
    match: { path: \"/*\" }
    pool: main
    {route}
    degrade: [ {rungs} ]
";

/// Settings of a gateway with a ladder, as YAML flow mappings are written inside; those of the route are lines of it.
#[derive(Debug, Clone, Copy)]
struct With<'a> {
    provider: &'a str,
    queue: &'a str,
    route: &'a str,
    /// Each without its braces.
    rungs: &'a [&'a str],
}

const ONCE: With<'static> = With { provider: "", queue: "timeout: 5s", route: "retry: { attempts: 1 }", rungs: &[] };

/// A request whose own way has ended for one reason.
struct Fallen {
    gateway: Gateway,
    answer: Message,
    /// Who waits in the queue, and the provider that was asked in vain.
    _kept: (Vec<Wire>, Provider),
}

fn yaml(with: With<'_>) -> String {
    let provider = if with.provider.is_empty() { String::new() } else { format!(", {}", with.provider) };
    let rungs: Vec<String> = with.rungs.iter().map(|rung| format!("{{ {rung} }}")).collect();
    let put =
        [("{provider}", &*provider), ("{queue}", with.queue), ("{route}", with.route), ("{rungs}", &rungs.join(", "))];
    put.into_iter().fold(YAML.to_owned(), |text, (place, value)| text.replace(place, value))
}

fn start(alpha: SocketAddr, spare: SocketAddr, with: With<'_>) -> Gateway {
    Gateway::start(&yaml(with), &[("alpha", alpha), ("spare", spare)])
}

/// A gateway with one attempt in its own pool, and these rungs.
fn once(alpha: &Provider, spare: &Provider, rungs: &[&str]) -> Gateway {
    start(alpha.address(), spare.address(), With { rungs, ..ONCE })
}

/// A provider that reads each request and says nothing.
fn mute() -> Provider {
    Provider::scripted(|peer| {
        peer.request();
        peer.wire.rest();
    })
}

/// A provider that reads each request and then goes without an answer.
fn broken() -> Provider {
    Provider::scripted(|peer| drop(peer.request()))
}

fn ask(gateway: &Gateway, request: &str) -> Message {
    let mut client = gateway.connect();
    client.send(request);
    client.answer_to(request.split(' ').next().unwrap_or_default())
}

fn order(admin: SocketAddr, line: &str) -> Value {
    let mut wire = Wire::connect(admin);
    wire.send(format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
    let answer = wire.answer();
    assert_eq!(answer.status(), 200, "{line}: {}", answer.text());
    answer.json()
}

fn waiting(gateway: &Gateway, count: u64) {
    wait_until(&format!("{count} to wait"), || {
        let queue = order(gateway.admin(), "GET /api/v1/queues/main");
        ["high", "normal", "low"].iter().filter_map(|class| queue["depth"][*class].as_u64()).sum::<u64>() == count
    });
}

/// Lets a request fail for this reason, and gives what comes of it.
fn fall(why: &str, rungs: &[&str], spare: SocketAddr, request: &str) -> Fallen {
    let alpha = match why {
        "attempts_exhausted" => Provider::answering(BUSY),
        "deadline" => mute(),
        _ => Provider::answering(OK),
    };
    let with = match why {
        "queue_full" => With { queue: "capacity: 1, timeout: 5s", ..ONCE },
        "queue_timeout" => With { queue: "timeout: 100ms", ..ONCE },
        "deadline" => With { route: "timeout: 300ms", ..ONCE },
        _ => ONCE,
    };
    let gateway = start(alpha.address(), spare, With { rungs, ..with });
    let mut others = Vec::new();
    match why {
        "no_provider" => drop(order(gateway.admin(), "POST /api/v1/providers/alpha/drain")),
        "queue_full" | "queue_timeout" => drop(order(gateway.admin(), "POST /api/v1/queues/main/pause")),
        _ => {}
    }
    if why == "queue_full" {
        let mut other = gateway.connect();
        other.send(GET);
        others.push(other);
        waiting(&gateway, 1);
    }
    let answer = ask(&gateway, request);
    Fallen { gateway, answer, _kept: (others, alpha) }
}

/// What our Proxy-Status tells, without how long anything took.
fn told(answer: &Message) -> String {
    let own = answer.value("proxy-status").unwrap_or_default();
    let words = own.split(' ').filter(|word| !word.trim_end_matches([';', '"']).ends_with("ms"));
    words.collect::<Vec<_>>().join(" ").trim_end_matches('"').to_owned()
}

fn degraded(answer: &Message) -> Option<&str> {
    answer.value("sluice-degraded")
}

fn counted(gateway: &Gateway, rung: &str, count: f64) {
    gateway.wait_for_metric("sluice_degraded_responses_total", &[("route", "api"), ("rung", rung)], count);
}

fn is_over(gateway: &Gateway) {
    gateway.wait_for_metric("sluice_in_flight", &[], 0.0);
    gateway.wait_for_metric("sluice_requests_in_flight", &[], 0.0);
}

// --- which rung ---

#[test]
fn every_rung_answers_whatever_the_reason_and_everyone_is_told() {
    let reasons = ["no_provider", "queue_full", "queue_timeout", "attempts_exhausted", "deadline"];
    for why in reasons {
        for (rung, yaml) in [("pool", POOL), ("reduced", REDUCED), ("static", STATIC)] {
            let asks = rung != "static";
            if asks && why == "deadline" {
                continue;
            }
            let spare = Provider::answering(SPARED);
            let Fallen { gateway, answer, .. } = &fall(why, &[yaml], spare.address(), GET);
            let expected = if asks { (200, "spare") } else { (203, "{}") };
            assert_eq!((answer.status(), &*answer.text()), expected, "{why} {rung}");
            assert_eq!(degraded(answer), Some(rung), "{why}");
            assert_eq!(answer.head.values("cache-control"), ["no-store"], "{why} {rung}");
            assert_eq!(answer.value("expires"), None, "{why} {rung}");
            let told = told(answer);
            let expected = match (why, asks) {
                ("attempts_exhausted", true) => "alpha 503 spare 200".to_owned(),
                (_, true) => format!("main {why}; spare 200"),
                ("attempts_exhausted", false) => "attempts_exhausted: alpha 503".to_owned(),
                ("deadline", false) => "deadline: alpha deadline".to_owned(),
                (_, false) => why.to_owned(),
            };
            assert!(told.ends_with(&format!("details=\"{expected}")), "{why} {rung}: {told}");
            assert_eq!(told.contains("error="), !asks, "{told}");
            counted(gateway, rung, 1.0);
            let log = gateway.wait_for_access_log(1);
            let line = log.iter().find(|line| line["degraded"] == rung).unwrap_or_else(|| panic!("{log:?}"));
            assert_eq!((&line["reason"], &line["status"]), (&json!(why), &json!(answer.status())), "{line}");
            assert_eq!(spare.requests().len(), usize::from(asks));
        }
    }
}

#[test]
fn rungs_are_gone_down_in_the_order_of_the_file_until_one_answers() {
    let (alpha, spare) = (Provider::answering(BUSY), Provider::answering(BUSY));
    let gateway = once(&alpha, &spare, &[POOL, REDUCED, STATIC]);
    let answer = ask(&gateway, GET);
    assert_eq!((answer.status(), degraded(&answer)), (203, Some("static")));
    assert!(told(&answer).ends_with("attempts_exhausted: alpha 503 spare 503 spare 503"), "{}", told(&answer));
    let targets: Vec<String> = spare.requests().iter().map(|request| request.head.line.clone()).collect();
    assert_eq!(targets, ["GET /items?q=1 HTTP/1.1", "GET /lite?q=1 HTTP/1.1"]);
    assert_eq!(spare.requests()[1].value("x-mode"), Some("lite"));
    let line = &gateway.wait_for_access_log(1)[0];
    assert_eq!(line["attempts"].as_array().map(Vec::len), Some(3), "{line}");
    assert_eq!((line["degraded"].as_str(), line["status"].as_u64()), (Some("static"), Some(203)));
    for rung in ["pool", "reduced"] {
        counted(&gateway, rung, 0.0);
    }
    assert!(gateway.metric("sluice_retries_total", &[("route", "api")]) < 0.5, "a rung is no retry");
}

#[test]
fn a_rung_is_for_the_reasons_it_names_and_the_reason_is_the_latest() {
    let first = "static: { body: first }, on: [queue_full, deadline]";
    let second = "static: { body: second }, on: [attempts_exhausted, no_provider]";
    let nobody = refusing();
    for (why, body) in [("queue_full", "first"), ("no_provider", "second"), ("attempts_exhausted", "second")] {
        assert_eq!(fall(why, &[first, second], nobody.1, GET).answer.text(), body, "{why}");
    }
    let refused = fall("queue_timeout", &[first, second], nobody.1, GET).answer;
    assert_eq!((refused.status(), &refused.json()["reason"]), (503, &json!("queue_timeout")));
    // The pool of the first rung answers with a failure, and what was a full queue is a failed attempt by then.
    let spare = Provider::answering(BUSY);
    let on = ["pool: other, on: [queue_full]", second];
    assert_eq!(fall("queue_full", &on, spare.address(), GET).answer.text(), "second");
}

#[test]
fn an_answer_that_is_one_passes_and_only_what_says_that_it_cannot_falls() {
    for (status, falls) in
        [(200, false), (301, false), (404, false), (500, false), (429, true), (502, true), (504, true)]
    {
        let alpha = Provider::answering(format!("HTTP/1.1 {status} So\r\ncontent-length: 2\r\n\r\nso"));
        let spare = Provider::answering(SPARED);
        let answer = ask(&once(&alpha, &spare, &[POOL]), GET);
        assert_eq!((answer.status(), degraded(&answer).is_some()), (if falls { 200 } else { status }, falls));
    }
}

#[test]
fn nobody_waits_for_a_circuit_where_a_rung_is_for_no_provider() {
    let (alpha, spare) = (Provider::answering(BUSY), Provider::answering(SPARED));
    let provider = "circuit_breaker: { failure_threshold: 1, recovery_timeout: 4s }";
    let gateway = start(alpha.address(), spare.address(), With { provider, rungs: &[POOL], ..ONCE });
    for told in ["attempts_exhausted", "no_provider"] {
        assert_eq!(degraded(&ask(&gateway, GET)), Some("pool"));
        wait_until("a line in the log", || gateway.access_log().last().is_some_and(|line| line["reason"] == told));
    }
    assert_eq!(alpha.requests().len(), 1);
    // Nor does a retry that finds nobody; and what the rung does is none.
    let route = "retry: { attempts: 3, backoff: { initial: 1ms } }";
    let gateway = start(alpha.address(), spare.address(), With { provider, route, rungs: &[POOL], ..ONCE });
    assert_eq!(degraded(&ask(&gateway, GET)), Some("pool"));
    assert_eq!((alpha.requests().len(), spare.requests().len()), (2, 3));
    gateway.wait_for_metric("sluice_retries_skipped_total", &[("route", "api"), ("reason", "no_provider")], 1.0);
    assert!(gateway.metric("sluice_retries_total", &[("route", "api")]) < 0.5, "no retry was made");
    assert_eq!(gateway.wait_for_access_log(1)[0]["reason"], "attempts_exhausted");
}

// --- for whom ---

#[test]
fn what_may_have_been_acted_on_goes_to_no_other_pool() {
    let (_held, nobody) = refusing();
    let (busy, slow, broken, ok) =
        (Provider::answering(BUSY), Provider::answering(SLOW_DOWN), broken(), Provider::answering(OK));
    let cases = [
        ("503", busy.address(), "", None),
        ("reset", broken.address(), "", None),
        ("429", slow.address(), "", Some("pool")),
        ("connect", nobody, "", Some("pool")),
        ("drained", ok.address(), "", Some("pool")),
        ("methods", busy.address(), "methods: all", Some("pool")),
        ("refused", busy.address(), "refused: [503]", Some("pool")),
    ];
    for (name, alpha, retry, rung) in cases {
        let spare = Provider::answering(SPARED);
        let more = if retry.is_empty() { String::new() } else { format!(", {retry}") };
        let route = format!("retry: {{ attempts: 1{more} }}");
        let gateway = start(alpha, spare.address(), With { route: &route, rungs: &[POOL], ..ONCE });
        if name == "drained" {
            order(gateway.admin(), "POST /api/v1/providers/alpha/drain");
        }
        let answer = ask(&gateway, POST);
        assert_eq!(degraded(&answer), rung, "{name}");
        let bodies: Vec<String> = spare.requests().iter().map(Message::text).collect();
        assert_eq!(bodies, rung.map_or(Vec::new(), |_| vec!["hello".to_owned()]), "{name}");
        if rung.is_none() {
            assert!(matches!(answer.status(), 503 | 502), "{name}: {}", answer.status());
        }
    }
}

#[test]
fn a_ready_answer_is_for_who_only_reads_unless_the_rung_says_otherwise() {
    let (alpha, spare) = (Provider::answering(BUSY), Provider::answering(OK));
    let (some, all) = (once(&alpha, &spare, &[STATIC]), once(&alpha, &spare, &["static: { body: all }, methods: all"]));
    let answer = ask(&some, POST);
    assert_eq!((answer.status(), &*answer.text(), degraded(&answer)), (503, "busy", None));
    assert_eq!(ask(&all, POST).text(), "all");
    let head = ask(&some, HEAD);
    assert_eq!((head.status(), head.value("content-length"), degraded(&head)), (203, Some("2"), Some("static")));
}

#[test]
fn a_body_is_kept_for_the_rung_below_even_where_its_own_pool_has_one_attempt() {
    let (alpha, spare) = (Provider::answering(BUSY), Provider::answering(SPARED));
    let gateway = once(&alpha, &spare, &[POOL]);
    assert_eq!(degraded(&ask(&gateway, PUT)), Some("pool"));
    assert_eq!((alpha.requests()[0].text(), spare.requests()[0].text()), ("hello".into(), "hello".into()));
    // One that is too long to be kept goes nowhere else, and the client is told.
    let route = "retry: { attempts: 1, replay_bytes: 4 }";
    let gateway = start(alpha.address(), spare.address(), With { route, rungs: &[POOL], ..ONCE });
    let answer = ask(&gateway, PUT);
    assert_eq!((answer.status(), degraded(&answer), spare.requests().len()), (503, None, 1));
}

// --- what a rung may take ---

#[test]
fn the_last_fifth_of_the_time_is_for_the_rungs() {
    let (alpha, spare) = (mute(), Provider::answering(SPARED));
    let route = "timeout: 1s";
    let gateway = start(alpha.address(), spare.address(), With { route, rungs: &[POOL], ..ONCE });
    let answer = ask(&gateway, GET);
    assert_eq!((answer.status(), degraded(&answer)), (200, Some("pool")));
    assert_eq!(gateway.wait_for_access_log(1)[0]["reason"], "attempts_exhausted");
    order(gateway.admin(), "POST /api/v1/queues/main/pause");
    assert_eq!(degraded(&ask(&gateway, GET)), Some("pool"));
    assert_eq!(gateway.wait_for_access_log(2)[1]["reason"], "queue_timeout");
}

#[test]
fn rungs_that_hang_leave_the_next_its_part_and_then_the_time_is_over() {
    let (alpha, spare) = (mute(), mute());
    let with = With { route: "timeout: 1s", rungs: &[POOL, REDUCED, STATIC], ..ONCE };
    let gateway = start(alpha.address(), spare.address(), with);
    let answer = ask(&gateway, GET);
    assert_eq!((answer.status(), spare.requests().len()), (203, 2));
    assert_eq!(gateway.wait_for_access_log(1)[0]["reason"], "deadline");
    let with = With { rungs: &[POOL], ..with };
    let answer = ask(&start(alpha.address(), spare.address(), with), GET);
    assert_eq!((answer.status(), &answer.json()["reason"]), (504, &json!("deadline")));
}

#[test]
fn time_that_no_rung_can_use_is_told_as_the_attempts_end() {
    let (alpha, spare) = (mute(), Provider::answering(SPARED));
    let gateway = start(alpha.address(), spare.address(), With { route: "timeout: 500ms", rungs: &[POOL], ..ONCE });
    let answer = ask(&gateway, POST);
    assert_eq!((answer.status(), &answer.json()["reason"]), (504, &json!("attempts_exhausted")));
    assert_eq!(spare.requests().len(), 0);
}

#[test]
fn a_provider_that_hangs_for_all_of_its_time_fails_though_a_part_is_kept() {
    let (alpha, spare) = (mute(), Provider::answering(SPARED));
    let provider = "circuit_breaker: { failure_threshold: 1 }";
    let with = With { provider, route: "timeout: 500ms", rungs: &[POOL], ..ONCE };
    let gateway = start(alpha.address(), spare.address(), with);
    ask(&gateway, GET);
    gateway.wait_for_metric("sluice_attempts_total", &[("provider", "alpha"), ("outcome", "failure")], 1.0);
}

#[test]
fn each_rung_adds_one_attempt_and_no_client_gets_more_than_it_wants() {
    let (alpha, spare) = (Provider::answering(BUSY), Provider::answering(BUSY));
    let route = "retry: { attempts: 3, backoff: { initial: 1ms } }";
    let rungs = &[POOL, REDUCED][..];
    let asked = |fields: &str| {
        let before = (alpha.requests().len(), spare.requests().len());
        let gateway = start(alpha.address(), spare.address(), With { route, rungs, ..ONCE });
        let answer = ask(&gateway, &format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!((answer.status(), &*answer.text()), (503, "busy"));
        (alpha.requests().len() - before.0, spare.requests().len() - before.1)
    };
    assert_eq!(asked(""), (3, 2));
    let key = "X-API-Key: secret-key\r\n";
    assert_eq!(asked(&format!("{key}Sluice-Attempts: 1\r\n")), (1, 0));
    assert_eq!(asked(&format!("{key}Sluice-Attempts: 4\r\n")), (3, 1));
    assert_eq!(asked(&format!("{key}Sluice-Attempts: 9\r\n")), (3, 2));
}

#[test]
fn asking_the_own_pool_for_less_is_paid_like_a_retry() {
    let lite = "reduced: { path: /lite }";
    let script = |peer: &mut Peer| {
        while let Some(request) = peer.request() {
            peer.wire.send(if request.head.line.contains("/lite") { OK } else { BUSY });
        }
    };
    let (alpha, spare) = (Provider::scripted(script), Provider::answering(OK));
    let answer = ask(&once(&alpha, &spare, &[lite]), GET);
    assert_eq!((answer.status(), degraded(&answer)), (200, Some("reduced")));
    let route = "retry: { attempts: 2, budget: { ratio: 0, min_per_second: 0.1 } }";
    let poor = start(alpha.address(), spare.address(), With { route, rungs: &[lite], ..ONCE });
    let answer = ask(&poor, GET);
    assert_eq!((answer.status(), degraded(&answer)), (503, None));
    poor.wait_for_metric("sluice_retries_skipped_total", &[("route", "api"), ("reason", "budget")], 1.0);
    assert_eq!(alpha.requests().len(), 2 + 2, "the one that it could afford was a retry");
}

// --- what the client gets ---

#[test]
fn where_rungs_fail_too_the_latest_answer_of_a_provider_passes() {
    let (alpha, broken, busy) =
        (Provider::answering(BUSY), broken(), Provider::answering("HTTP/1.1 502 No\r\ncontent-length: 2\r\n\r\nno"));
    let answer = ask(&once(&alpha, &broken, &[POOL]), GET);
    assert_eq!((answer.status(), &*answer.text(), degraded(&answer)), (503, "busy", None));
    assert!(told(&answer).ends_with("details=\"alpha 503 spare reset"), "{}", told(&answer));
    // A rung's answer says whose it is, also where it is a failure.
    for rungs in [&[POOL][..], &[POOL, "reduced: { path: /lite }"]] {
        let gateway = start(
            alpha.address(),
            busy.address(),
            With { rungs, route: "retry: { attempts: 2, budget: { ratio: 0, min_per_second: 0.1 } }", ..ONCE },
        );
        let answer = ask(&gateway, GET);
        assert_eq!((answer.status(), &*answer.text(), degraded(&answer)), (502, "no", Some("pool")), "{rungs:?}");
        assert_eq!(answer.head.values("cache-control"), ["no-store"]);
        counted(&gateway, "pool", 1.0);
    }
}

#[test]
fn without_an_answer_the_client_is_told_what_the_attempts_came_to() {
    let (_held, nobody) = refusing();
    let broken = broken();
    let gateway = start(nobody, broken.address(), With { rungs: &[POOL], ..ONCE });
    let answer = ask(&gateway, GET);
    assert_eq!((answer.status(), &answer.json()["reason"]), (502, &json!("attempts_exhausted")));
    assert!(told(&answer).ends_with("attempts_exhausted: alpha connection_refused spare reset"), "{}", told(&answer));
    // A full queue, and then a pool with nobody in it: what was first in the way is what to wait for.
    let fallen = fall("queue_timeout", &["pool: other, on: [queue_full]"], nobody, GET);
    assert_eq!(fallen.answer.json()["reason"], "queue_timeout");
    assert_eq!(fallen.answer.value("sluice-degraded"), None);
}

#[test]
fn a_rung_streams_as_any_pool_does() {
    let (alpha, spare) = (Provider::answering(BUSY), Provider::by_hand());
    let gateway = once(&alpha, &spare, &[POOL]);
    let mut client = gateway.connect();
    client.send(GET);
    let mut provider = spare.accept();
    provider.request();
    provider.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n");
    assert_eq!(client.head().value("sluice-degraded"), Some("pool"));
    client.expect("3\r\none\r\n");
    provider.send("3\r\ntwo\r\n0\r\n\r\n");
    client.expect("3\r\ntwo\r\n0\r\n\r\n");
    // One that breaks off breaks visibly, and is labelled in the log all the same.
    client.send(GET);
    provider.request();
    provider.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n");
    client.head();
    drop(provider);
    client.expect("3\r\none\r\n");
    client.end();
    assert_eq!(gateway.wait_for_access_log(2)[1]["degraded"], "pool");
    is_over(&gateway);
}

#[test]
fn a_client_that_leaves_on_a_rung_is_let_go_and_nobody_is_to_blame() {
    let (alpha, spare) = (Provider::answering(BUSY), Provider::by_hand());
    let gateway = once(&alpha, &spare, &[POOL, STATIC]);
    let mut client = gateway.connect();
    client.send(GET);
    let mut provider = spare.accept();
    provider.request();
    drop(client);
    provider.closes();
    let line = &gateway.wait_for_access_log(1)[0];
    assert_eq!((line["status"].as_u64(), line["degraded"].is_null()), (Some(499), true), "{line}");
    gateway.wait_for_metric("sluice_attempts_total", &[("provider", "spare"), ("outcome", "client_gone")], 1.0);
    counted(&gateway, "static", 0.0);
    is_over(&gateway);
}

#[test]
fn a_client_of_http2_that_resets_its_stream_on_a_rung_is_let_go_too() {
    let (alpha, spare) = (Provider::answering(BUSY), Provider::by_hand());
    let gateway = once(&alpha, &spare, &[POOL, STATIC]);
    let client = Client::connect(gateway.web());
    let mut call = client.begin(client.request("PUT", "/", &[]), false);
    call.body.send_data("hello".into(), true).expect("an open stream");
    let mut provider = spare.accept();
    provider.request();
    call.body.send_reset(h2::Reason::CANCEL);
    provider.closes();
    assert_eq!(gateway.wait_for_access_log(1)[0]["status"], 499);
    counted(&gateway, "static", 0.0);
    is_over(&gateway);
}

#[test]
fn what_is_not_the_pools_fault_does_not_fall() {
    let (alpha, spare) = (Provider::by_hand(), Provider::answering(SPARED));
    let gateway = once(&alpha, &spare, &[POOL, "static: { body: all }, methods: all"]);
    let answer = ask(&gateway, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n");
    assert_eq!((answer.status(), degraded(&answer)), (400, None));
    order(gateway.admin(), "POST /api/v1/queues/main/pause");
    let mut client = gateway.connect();
    client.send(GET);
    waiting(&gateway, 1);
    let waits = order(gateway.admin(), "GET /api/v1/queues/main/requests");
    order(gateway.admin(), &format!("DELETE /api/v1/queues/main/requests/{}", waits["requests"][0]["id"]));
    let answer = client.answer();
    assert_eq!((&answer.json()["reason"], degraded(&answer)), (&json!("cancelled"), None));
    assert_eq!(spare.connections(), 0);
}

#[test]
fn an_upgrade_may_come_about_on_a_rung() {
    let (alpha, spare) = (Provider::answering(BUSY), Provider::by_hand());
    let gateway = once(&alpha, &spare, &[POOL]);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    let mut provider = spare.accept();
    provider.request();
    provider.send("HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status(), head.value("sluice-degraded")), (101, Some("pool")));
    client.send("ping");
    provider.expect("ping");
    provider.send("pong");
    client.expect("pong");
}

#[test]
fn two_attempts_side_by_side_fall_together() {
    let (alpha, beta, spare) = (Provider::by_hand(), Provider::answering(BUSY), Provider::answering(SPARED));
    let route = "retry: { attempts: 2, hedge: { after: 5ms, budget: 1 } }";
    let yaml = yaml(With { route, rungs: &[POOL], ..ONCE })
        .replace("providers: [alpha]", "providers: [alpha, { name: beta, backup: true }]")
        .replace("providers: { alpha:", "providers: { beta: { url: \"http://{beta}\" }, alpha:");
    let places = [("alpha", alpha.address()), ("beta", beta.address()), ("spare", spare.address())];
    let gateway = Gateway::start(&yaml, &places);
    let mut client = gateway.connect();
    client.send(GET);
    let mut first = alpha.accept();
    first.request();
    beta.wait_for_requests(1);
    gateway.wait_for_metric("sluice_attempts_total", &[("provider", "beta"), ("outcome", "failure")], 1.0);
    first.send(BUSY);
    let answer = client.answer();
    assert_eq!((&*answer.text(), degraded(&answer)), ("spare", Some("pool")));
    assert!(told(&answer).ends_with("beta 503 alpha 503 spare 200"), "{}", told(&answer));
    is_over(&gateway);
}

// --- less ---

const LESS: &str = "reduced: { pool: other, json: { set: { model: small }, remove: [tools] } }";

#[test]
fn a_body_is_reduced_and_the_next_rung_has_the_clients_own_again() {
    let (alpha, spare) = (Provider::answering(BUSY), Provider::answering(BUSY));
    let with = With { route: "retry: { attempts: 1, methods: all }", rungs: &[LESS, POOL], ..ONCE };
    let gateway = start(alpha.address(), spare.address(), with);
    let body = r#"{"model":"large","tools":[],"n":1}"#;
    let length = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    for request in [length, chunked] {
        let before = spare.requests().len();
        assert_eq!(ask(&gateway, &request).status(), 503);
        let bodies: Vec<String> = spare.requests()[before..].iter().map(Message::text).collect();
        assert_eq!(bodies, [r#"{"n":1,"model":"small"}"#, body]);
        assert_eq!(spare.requests()[before].value("content-length"), Some("23"));
    }
}

#[test]
fn a_body_that_cannot_be_reduced_is_left_to_the_next_rung() {
    let (alpha, spare) = (Provider::answering(BUSY), Provider::answering(SPARED));
    let with = With { route: "retry: { attempts: 1, methods: all }", rungs: &[LESS, POOL], ..ONCE };
    let gateway = start(alpha.address(), spare.address(), with);
    assert_eq!(degraded(&ask(&gateway, POST)), Some("pool"));
    assert_eq!(spare.requests()[0].text(), "hello");
    assert_eq!(gateway.wait_for_access_log(1)[0]["reason"], "attempts_exhausted");
}

#[test]
fn a_degraded_route_reads_a_body_before_it_sends_less_also_one_that_has_to_be_asked_for() {
    let (alpha, spare) = (Provider::answering(OK), Provider::answering(SPARED));
    let gateway = once(&alpha, &spare, &[LESS]);
    order(gateway.admin(), "POST /api/v1/degradation/api/force");
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.head().status(), 100);
    client.send("{}");
    let answer = client.answer();
    assert_eq!((answer.status(), degraded(&answer)), (200, Some("reduced")));
    let asked = &spare.requests()[0];
    assert_eq!((asked.text(), asked.value("expect")), (r#"{"model":"small"}"#.to_owned(), None));
    // What cannot be reduced goes the ordinary way.
    let answer = ask(&gateway, POST);
    assert_eq!((answer.status(), degraded(&answer), &*answer.text()), (200, None, "ok"));
    assert_eq!(alpha.requests()[0].text(), "hello");
}

// --- degraded ---

#[test]
fn a_forced_route_begins_on_its_rung_with_the_terms_of_its_pool() {
    let (alpha, spare) = (
        Provider::answering(OK),
        Provider::scripted(|peer| {
            for answer in [BUSY, SPARED] {
                peer.request();
                peer.wire.send(answer);
            }
        }),
    );
    let route = "retry: { attempts: 2, backoff: { initial: 1ms } }";
    let gateway = start(alpha.address(), spare.address(), With { route, rungs: &[POOL, STATIC], ..ONCE });
    order(gateway.admin(), "POST /api/v1/degradation/api/force");
    let answer = ask(&gateway, GET);
    assert_eq!((&*answer.text(), degraded(&answer)), ("spare", Some("pool")));
    assert!(told(&answer).ends_with("details=\"spare 503 spare 200"), "{}", told(&answer));
    assert!(gateway.wait_for_access_log(1)[0]["reason"].is_null(), "it did not fall");
    order(gateway.admin(), "POST /api/v1/degradation/api/force?rung=static");
    let answer = ask(&gateway, GET);
    assert_eq!((answer.status(), degraded(&answer), answer.value("proxy-status")), (203, Some("static"), None));
    assert_eq!(ask(&gateway, POST).text(), "ok", "whom no rung can answer goes the ordinary way");
    order(gateway.admin(), "POST /api/v1/degradation/api/auto");
    let answer = ask(&gateway, GET);
    assert_eq!((&*answer.text(), degraded(&answer), alpha.requests().len()), ("ok", None, 2));
    let past = order(gateway.admin(), "GET /api/v1/degradation/api")["past"][0].clone();
    assert_eq!(past["requests_affected"], 2, "{past}");
}

#[test]
fn a_queue_that_fills_degrades_its_route_before_requests_fail_and_lets_go_of_it() {
    let (alpha, spare) = (Provider::answering(OK), Provider::answering(OK));
    let rung = &format!("{STATIC}, enter: {{ queue: 0.5 }}, leave: {{ queue: 0 }}");
    let with = With { queue: "capacity: 4, reserve_high: 0", rungs: &[rung], ..ONCE };
    let gateway = start(alpha.address(), spare.address(), with);
    order(gateway.admin(), "POST /api/v1/queues/main/pause");
    let mut clients: Vec<Wire> = (0..2).map(|_| gateway.connect()).collect();
    for (client, count) in clients.iter_mut().zip(1..) {
        client.send(GET);
        waiting(&gateway, count);
    }
    // It is looked at every tenth of a second.
    wait_until("the route is degraded", || order(gateway.admin(), "GET /api/v1/degradation/api")["degraded"] == true);
    let answer = ask(&gateway, GET);
    assert_eq!((answer.status(), degraded(&answer), answer.value("proxy-status")), (203, Some("static"), None));
    order(gateway.admin(), "POST /api/v1/queues/main/resume");
    for client in &mut clients {
        assert_eq!(client.answer().text(), "ok");
    }
    wait_until("it is not any more", || order(gateway.admin(), "GET /api/v1/degradation/api")["degraded"] == false);
    assert_eq!(ask(&gateway, GET).text(), "ok");
}

#[test]
fn a_route_whose_requests_fail_begins_on_its_rung_and_still_tries_its_pool_now_and_then() {
    let (alpha, spare) = (Provider::answering("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"), Provider::answering(OK));
    let rung = &format!("{STATIC}, enter: {{ error_rate: 0.5 }}");
    let provider = "circuit_breaker: { failures: [connect] }";
    let gateway = start(alpha.address(), spare.address(), With { provider, rungs: &[rung], ..ONCE });
    let mut client = gateway.connect();
    let mut ask = || {
        client.send(GET);
        client.answer().status()
    };
    wait_until("the route is degraded", || ask() == 203);
    let before = alpha.requests().len();
    let statuses: Vec<u16> = (0..60).map(|_| ask()).collect();
    let tried = alpha.requests().len() - before;
    assert!((1..=6).contains(&tried), "{tried} of 60 tried the pool: {statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 500).count(), tried);
}

#[test]
fn what_an_operator_reads_in_the_log_is_one_line_for_the_beginning_and_one_for_the_end() {
    let alpha = Provider::answering(BUSY);
    let (_held, nobody) = refusing();
    let yaml = format!("{PREAMBLE}{}", yaml(With { rungs: &[STATIC], ..ONCE }));
    let sluice = Sluice::spawn(&yaml, &[("alpha", alpha.address()), ("spare", nobody)]);
    order(sluice.admin(), "POST /api/v1/degradation/api/force");
    for _ in 0..3 {
        let mut client = sluice.connect();
        client.send(GET);
        assert_eq!(client.answer().status(), 203);
    }
    order(sluice.admin(), "POST /api/v1/degradation/api/auto");
    let lines =
        |message: &str| sluice.log().iter().filter(|line| line["message"] == message).cloned().collect::<Vec<_>>();
    wait_until("the recovery in the log", || !lines("a route has recovered").is_empty());
    let (began, ended) = (lines("a route is degraded"), lines("a route has recovered"));
    assert_eq!((began.len(), ended.len()), (1, 1));
    assert_eq!((&ended[0]["route"], &ended[0]["affected"]), (&json!("api"), &json!(3)), "{}", ended[0]);
}

#[test]
fn a_request_that_a_degraded_route_has_no_answer_for_is_counted() {
    let (_held, nobody) = refusing();
    let (alpha, spare) = (Provider::answering(OK), Provider::answering(BUSY));
    for (spare, status, rung) in [(nobody, 502, None), (spare.address(), 503, Some("pool"))] {
        let gateway = start(alpha.address(), spare, With { rungs: &[POOL], ..ONCE });
        order(gateway.admin(), "POST /api/v1/degradation/api/force");
        let answer = ask(&gateway, GET);
        assert_eq!((answer.status(), degraded(&answer)), (status, rung));
        gateway.wait_for_access_log(1);
        order(gateway.admin(), "POST /api/v1/degradation/api/auto");
        let past = order(gateway.admin(), "GET /api/v1/degradation/api")["past"][0].clone();
        assert_eq!((&past["requests_affected"], &past["failed"]), (&json!(1), &json!(1)), "{past}");
    }
}

#[test]
fn requests_that_fall_are_seen_by_whoever_looks() {
    let Fallen { gateway, .. } = &fall("no_provider", &[STATIC], refusing().1, GET);
    let shown = order(gateway.admin(), "GET /api/v1/degradation/api");
    assert_eq!((&shown["degraded"], &shown["rung"]), (&json!(true), &Value::Null), "{shown}");
    assert!(page(gateway.admin(), "/metrics").contains("sluice_degraded{route=\"api\"} 1\n"));
}

// --- beside it ---

#[test]
fn a_request_keeps_the_ladder_it_began_with_while_a_reload_removes_it() {
    let (alpha, spare) = (Provider::by_hand(), Provider::answering(SPARED));
    let gateway = once(&alpha, &spare, &[POOL]);
    let mut client = gateway.connect();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    let other = "  - { name: other, match: { path: /other }, pool: other }\n";
    gateway.rewrite(&yaml(ONCE).replace("    degrade: [  ]\n", other));
    gateway.reload().expect("a good file");
    provider.send(BUSY);
    let answer = client.answer();
    assert_eq!((&*answer.text(), degraded(&answer)), ("spare", Some("pool")));
    client.send(GET);
    provider.request();
    provider.send(BUSY);
    assert_eq!(client.answer().status(), 503);
    is_over(&gateway);
}

#[test]
fn http2_clients_fall_as_all_others_do() {
    let (alpha, spare) = (Provider::answering(BUSY), Provider::answering(SPARED));
    let with = With { route: "retry: { attempts: 1, methods: all }", rungs: &[LESS, STATIC], ..ONCE };
    let gateway = start(alpha.address(), spare.address(), with);
    let client = Client::connect(gateway.web());
    let answer = client.ask("POST", "/", &[], Some(b"{\"model\":1}"));
    assert_eq!((answer.status, values(&answer.fields, "sluice-degraded")), (200, vec!["reduced"]));
    assert_eq!(
        (text(&answer.body), spare.requests()[0].text()),
        ("spare".to_owned(), r#"{"model":"small"}"#.to_owned())
    );
    order(gateway.admin(), "POST /api/v1/providers/spare/drain");
    for method in ["GET", "HEAD"] {
        let answer = client.ask(method, "/", &[], None);
        assert_eq!((answer.status, values(&answer.fields, "sluice-degraded")), (203, vec!["static"]), "{method}");
        assert_eq!(text(&answer.body), if method == "GET" { "{}" } else { "" });
        assert_eq!(values(&answer.fields, "cache-control"), ["no-store"]);
    }
    is_over(&gateway);
}

#[test]
fn a_client_that_has_the_head_of_a_stream_already_gets_what_a_provider_streams_and_nothing_else() {
    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 11\r\n\r\ndata: one\n\n";
    let get = "GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
    for (rungs, expected) in [(&[STATIC, POOL][..], "data: one\n\n"), (&[STATIC], "event: error\n")] {
        let (alpha, spare) = (Provider::answering(OK), Provider::answering(events));
        let queue = "timeout: 600ms, heartbeat: 100ms";
        let gateway = start(alpha.address(), spare.address(), With { queue, rungs, ..ONCE });
        order(gateway.admin(), "POST /api/v1/queues/main/pause");
        let answer = ask(&gateway, get);
        assert!(answer.text().starts_with(": waiting\n\n") && answer.text().contains(expected), "{}", answer.text());
        assert_eq!(spare.requests().len(), rungs.len() - 1);
    }
}
