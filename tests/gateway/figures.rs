//! What is alive, as operators see it and steer it: queues, circuits, providers, balancing, and their metrics.

use crate::world::{Extra, Gate, Gateway, Provider, Wire, wait_until};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
const BROKEN: &str = "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n";

/// One provider that takes one request at a time.
const NARROW: Extra<'_> = Extra { listener: "", provider: "limits: { concurrency: 1 }", route: "" };

fn ask(admin: SocketAddr, line: &str) -> (u16, Value) {
    let mut wire = Wire::connect(admin);
    wire.send(format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
    let answer = wire.answer();
    (answer.status(), serde_json::from_str(&answer.text()).expect("JSON"))
}

fn look(gateway: &Gateway, path: &str) -> Value {
    let (status, answer) = ask(gateway.admin(), &format!("GET /api/v1/{path}"));
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

fn order(gateway: &Gateway, line: &str) {
    let (status, answer) = ask(gateway.admin(), line);
    assert_eq!(status, 200, "{line}: {answer}");
}

/// Sends a request and leaves its answer to be read.
fn send(gateway: &Gateway, path: &str) -> Wire {
    let mut client = gateway.connect();
    client.send(format!("GET {path}?secret=1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
    client
}

fn status(gateway: &Gateway) -> u16 {
    send(gateway, "/").answer().status()
}

/// Sends a request, and waits until what came of it was told to whom it concerns: a client may have its answer a moment
/// before that.
fn status_settled(gateway: &Gateway) -> u16 {
    let status = status(gateway);
    wait_until("all leases to be given back", || look(gateway, "queues/main")["in_flight"] == 0);
    status
}

/// A metric that counts whole things.
fn metric(gateway: &Gateway, family: &str, labels: &[(&str, &str)]) -> u64 {
    let value = gateway.metric(family, labels).to_string();
    value.parse().unwrap_or_else(|_| panic!("{family}: {value} is no count"))
}

fn wait_for_waiting(gateway: &Gateway, count: usize) {
    wait_until(&format!("{count} to wait"), || look(gateway, "queues/main")["depth"]["normal"] == count);
}

fn held(gate: &Gate) -> Provider {
    let gate = gate.clone();
    Provider::scripted(move |peer| {
        while let Some(_request) = peer.request() {
            gate.pass();
            peer.answer("200 OK", "done");
        }
    })
}

#[test]
fn who_waits_is_seen_counted_and_sent_away() {
    let gate = Gate::default();
    let alpha = held(&gate);
    let gateway = Gateway::before_with(&alpha, NARROW);
    let mut first = send(&gateway, "/first");
    wait_until("it is under way", || look(&gateway, "queues/main")["in_flight"] == 1);
    let mut second = send(&gateway, "/second");
    wait_for_waiting(&gateway, 1);
    let mut third = send(&gateway, "/third");
    wait_for_waiting(&gateway, 2);
    let queue = look(&gateway, "queues/main");
    assert_eq!((&queue["pool"], &queue["capacity"], &queue["paused"]), (&json!("main"), &json!(1000), &json!(false)));
    assert_eq!(queue["clients"], json!([{ "client": "anonymous", "class": "normal", "waiting": 2 }]));
    assert!(queue["oldest_seconds"]["normal"].is_f64() && queue["oldest_seconds"]["high"].is_null(), "{queue}");
    assert_eq!(metric(&gateway, "sluice_queue_depth", &[("pool", "main"), ("class", "normal")]), 2);
    assert_eq!(metric(&gateway, "sluice_queue_capacity", &[("pool", "main")]), 1000);
    let waiting = look(&gateway, "queues/main/requests")["requests"].clone();
    let of =
        |member: &str| waiting.as_array().expect("a list").iter().map(|one| one[member].clone()).collect::<Vec<_>>();
    assert_eq!(of("path"), ["/second", "/third"]);
    assert_eq!((of("method")[0].clone(), of("route")[0].clone()), (json!("GET"), json!("all")));
    order(&gateway, &format!("DELETE /api/v1/queues/main/requests/{}", of("id")[0]));
    assert_eq!(second.answer().status(), 503);
    assert_eq!(look(&gateway, "queues/main")["shed"]["cancelled"], 1);
    let cancelled = [("pool", "main"), ("class", "normal"), ("reason", "cancelled")];
    gateway.wait_for_metric("sluice_queue_shed_total", &cancelled, 1.0);
    gate.open();
    assert_eq!((first.answer().status(), third.answer().status()), (200, 200));
    let queue = look(&gateway, "queues/main");
    assert_eq!((&queue["depth"]["normal"], &queue["dispatched_total"]), (&json!(0), &json!(1)));
    let count = metric(&gateway, "sluice_request_queue_seconds_count", &[("pool", "main"), ("class", "normal")]);
    assert_eq!(count, 2, "the first that did not wait and the third that did");
}

#[test]
fn of_a_path_that_is_as_long_as_a_head_may_be_operators_see_the_beginning() {
    let alpha = Provider::answering(HELLO);
    let gateway = Gateway::before(&alpha);
    order(&gateway, "POST /api/v1/queues/main/pause");
    let _client = send(&gateway, &format!("/{}", "x".repeat(50_000)));
    wait_for_waiting(&gateway, 1);
    let waiting = look(&gateway, "queues/main/requests");
    assert_eq!(waiting["requests"][0]["path"], format!("/{}", "x".repeat(255)));
}

#[test]
fn a_paused_queue_takes_requests_and_hands_out_nothing() {
    let alpha = Provider::answering(HELLO);
    let gateway = Gateway::before(&alpha);
    order(&gateway, "POST /api/v1/queues/main/pause");
    let mut client = send(&gateway, "/");
    wait_for_waiting(&gateway, 1);
    assert_eq!(look(&gateway, "queues")["queues"][0]["paused"], true);
    order(&gateway, "POST /api/v1/queues/main/resume");
    assert_eq!(client.answer().status(), 200);
    assert_eq!(look(&gateway, "queues")["queues"][0]["paused"], false);
}

#[test]
fn a_circuit_shows_why_it_opened_and_can_be_forced_and_left_to_itself() {
    let alpha = Provider::answering(BROKEN);
    let provider = "circuit_breaker: { failure_threshold: 2, recovery_timeout: 60s }";
    let gateway = Gateway::before_with(&alpha, Extra { provider, ..Extra::default() });
    assert_eq!((status_settled(&gateway), status_settled(&gateway)), (500, 500));
    let circuit = look(&gateway, "circuit-breakers/alpha");
    assert_eq!(
        (&circuit["state"], &circuit["forced"], &circuit["failures"]),
        (&json!("open"), &Value::Null, &json!(2))
    );
    assert!(["opened_at", "retry_at", "last_failure_at"].iter().all(|at| circuit[at].is_string()), "{circuit}");
    assert_eq!(circuit["history"][0]["to"], "open");
    let is = |state| metric(&gateway, "sluice_circuit_state", &[("provider", "alpha"), ("state", state)]);
    assert_eq!((is("closed"), is("open"), is("half_open")), (0, 1, 0));
    let opened = [("provider", "alpha"), ("to", "open")];
    assert_eq!(metric(&gateway, "sluice_circuit_transitions_total", &opened), 1);
    assert_eq!(status(&gateway), 503);
    order(&gateway, "POST /api/v1/circuit-breakers/alpha/close");
    assert_eq!(status(&gateway), 500, "the provider is asked again");
    let circuit = look(&gateway, "circuit-breakers")["circuit_breakers"][0].clone();
    assert_eq!((&circuit["state"], &circuit["forced"]), (&json!("closed"), &json!("closed")));
    assert_eq!((is("closed"), is("open")), (1, 0));
    order(&gateway, "POST /api/v1/circuit-breakers/alpha/auto");
    assert_eq!(look(&gateway, "circuit-breakers/alpha")["state"], "open", "as it had left it");
    let balancing = look(&gateway, "load-balancing")["pools"][0]["recommendations"].to_string();
    assert!(balancing.contains("alpha is behind an open circuit"), "{balancing}");
}

#[test]
fn a_drained_provider_ends_what_it_has_and_gets_nothing_new() {
    let gate = Gate::default();
    let alpha = held(&gate);
    let gateway = Gateway::before(&alpha);
    let mut client = send(&gateway, "/");
    wait_until("it is under way", || look(&gateway, "providers/alpha")["in_flight"] == 1);
    order(&gateway, "POST /api/v1/providers/alpha/drain");
    assert_eq!(look(&gateway, "providers/alpha")["draining"], true);
    let (_, health) = ask(gateway.admin(), "GET /health/providers");
    assert_eq!(
        (&health["providers"][0]["healthy"], &health["providers"][0]["available"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(status(&gateway), 503);
    gate.open();
    assert_eq!(client.answer().status(), 200);
    order(&gateway, "POST /api/v1/providers/alpha/undrain");
    assert_eq!(status(&gateway), 200);
    let provider = look(&gateway, "providers/alpha");
    assert_eq!((&provider["draining"], &provider["attempts"]["first"]), (&json!(false), &json!(2)));
}

#[test]
fn shares_are_shown_beside_weights() {
    let (alpha, beta) = (Provider::answering(HELLO), Provider::answering(HELLO));
    let yaml = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers:
  alpha: { url: \"http://{alpha}\", limits: { concurrency: 7, rate: 120000/m } }
  beta: { url: \"http://{beta}\" }
pools: { main: { balance: weighted, providers: [ { name: alpha, weight: 3 }, beta ] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main } ]
";
    let gateway = Gateway::start(yaml, &[("alpha", alpha.address()), ("beta", beta.address())]);
    for _ in 0..8 {
        assert_eq!(status(&gateway), 200);
    }
    let main = look(&gateway, "load-balancing")["pools"][0].clone();
    let part = |member: &str| [0, 1].map(|at| main["providers"][at][member].clone());
    assert_eq!(main["balance"], "weighted");
    assert_eq!(part("share"), [json!(0.75), json!(0.25)]);
    assert_eq!(part("share_by_weight"), [json!(0.75), json!(0.25)]);
    assert_eq!(main["recommendations"], json!([]));
    let limit = |kind| metric(&gateway, "sluice_provider_limit", &[("provider", "alpha"), ("kind", kind)]);
    assert_eq!((limit("concurrency"), limit("rate")), (7, 2000));
    assert_eq!(look(&gateway, "retry")["attempts"], json!({ "first": 8, "retry": 0, "hedge": 0 }));
}

#[test]
fn what_retries_cost_and_what_is_left_for_them_is_shown() {
    let (alpha, beta) =
        (Provider::answering("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"), Provider::answering(HELLO));
    let yaml = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers:
  alpha: { url: \"http://{alpha}\", cost: 2 }
  beta: { url: \"http://{beta}\", cost: 0.5 }
  gamma: { url: \"http://{beta}\" }
pools:
  main: { providers: [ alpha, { name: beta, backup: true } ] }
  other: { providers: [gamma] }
routes:
  - { name: all, match: { path: \"/*\" }, pool: main, retry: { budget: { ratio: 0, min_per_second: 0.1 } } }
  - { name: more, match: { path: \"/more\" }, pool: main, retry: { budget: { ratio: 0, min_per_second: 50 } } }
";
    let gateway = Gateway::start(yaml, &[("alpha", alpha.address()), ("beta", beta.address())]);
    let left = |gateway: &Gateway| look(gateway, "retry")["pools"][0]["budget_remaining"].as_f64().expect("a number");
    let unspent = || gateway.metric("sluice_retry_budget_remaining", &[("pool", "main")]);
    assert_eq!((left(&gateway), unspent()), (1.0, 1.0), "the budget of the route that comes first");
    assert_eq!((status(&gateway), status(&gateway)), (200, 503), "one retry could be afforded");
    assert!(left(&gateway) < 1.0 && unspent() < 1.0);
    let retry = look(&gateway, "retry");
    assert_eq!(retry["attempts"], json!({ "first": 2, "retry": 1, "hedge": 0 }));
    assert_eq!(retry["costs"], json!({ "first": 4.0, "retry": 0.5, "hedge": 0.0 }));
    assert_eq!(retry["pools"][1], json!({ "pool": "other", "budget_remaining": null }), "no route leads there");
    assert!(!gateway.metrics().contains("sluice_retry_budget_remaining{pool=\"other\"}"));
}

#[test]
fn a_retry_that_finds_nobody_to_go_to_costs_nothing() {
    let alpha = Provider::answering(BROKEN);
    let extra = Extra {
        provider: "circuit_breaker: { failure_threshold: 1, recovery_timeout: 60s }",
        route: "retry: { on: [500], budget: { ratio: 0, min_per_second: 0.1 } }",
        ..Extra::default()
    };
    let gateway = Gateway::before_with(&alpha, extra);
    assert_eq!(status(&gateway), 500);
    gateway.wait_for_metric("sluice_retries_skipped_total", &[("reason", "no_provider")], 1.0);
    assert_eq!(look(&gateway, "retry")["pools"][0]["budget_remaining"], 1.0);
}

#[test]
fn members_that_were_discovered_are_seen_and_steered_by_their_providers_name() {
    let alpha = Provider::answering(HELLO);
    let yaml = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://localhost:PORT\", discover: dns } }
pools: { main: { providers: [alpha] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main } ]
";
    let port = alpha.address().port();
    let gateway = Gateway::start(&yaml.replace("PORT", &port.to_string()), &[]);
    let member = format!("alpha@127.0.0.1:{port}");
    let listed = |kind: &str, name: &str| {
        let all = look(&gateway, &kind.replace('_', "-"))[kind].as_array().expect("a list").clone();
        all.iter().any(|one| one[name] == member)
    };
    wait_until("its address to be a member", || listed("providers", "name"));
    assert!(listed("circuit_breakers", "provider"));
    assert_eq!(status_settled(&gateway), 200);
    let attempts = || metric(&gateway, "sluice_attempts_total", &[("provider", &member), ("outcome", "success")]);
    assert_eq!(attempts(), 1);
    let own = "provider=\"alpha\"";
    assert!(!gateway.metrics().contains(own), "it would seem to be unhealthy for good: its members have the series");
    let (status_of_one, refused) = ask(gateway.admin(), &format!("POST /api/v1/circuit-breakers/{member}/open"));
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(status_of_one == 404 && detail.contains("before the `@`"), "{refused}");
    order(&gateway, "POST /api/v1/circuit-breakers/alpha/open");
    assert_eq!(look(&gateway, &format!("circuit-breakers/{member}"))["forced"], "open");
    assert_eq!(status(&gateway), 503);
    order(&gateway, "POST /api/v1/circuit-breakers/alpha/auto");
    order(&gateway, "POST /api/v1/providers/alpha/drain");
    assert_eq!(look(&gateway, &format!("providers/{member}"))["draining"], true);
    assert_eq!(status(&gateway), 503);
    order(&gateway, "POST /api/v1/providers/alpha/undrain");
    gateway.reload().expect("applied");
    assert_eq!(status_settled(&gateway), 200);
    assert_eq!(attempts(), 2, "its series outlived the reload");
    assert!(!gateway.metrics().contains(own));
}

#[test]
fn who_waits_for_a_provider_that_is_drained_is_told_at_once() {
    let gate = Gate::default();
    let alpha = held(&gate);
    let gateway = Gateway::before_with(&alpha, NARROW);
    let mut first = send(&gateway, "/first");
    wait_until("it is under way", || look(&gateway, "queues/main")["in_flight"] == 1);
    let mut second = send(&gateway, "/second");
    wait_for_waiting(&gateway, 1);
    order(&gateway, "POST /api/v1/providers/alpha/drain");
    let answer = second.answer();
    assert_eq!((answer.status(), answer.json()["reason"].clone()), (503, json!("no_provider")), "{}", answer.text());
    gate.open();
    assert_eq!(first.answer().status(), 200);
}

#[test]
fn a_circuit_closes_when_the_head_of_an_answer_is_there_and_not_at_the_end_of_its_stream() {
    let (gate, asked) = (Gate::default(), AtomicUsize::new(0));
    let passing = gate.clone();
    let alpha = Provider::scripted(move |peer| {
        while peer.request().is_some() {
            match asked.fetch_add(1, Ordering::SeqCst) {
                0 => peer.answer("500 Oh", ""),
                1 => {
                    peer.wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
                    peer.wire.send_chunk("first");
                    passing.pass();
                    peer.wire.send("0\r\n\r\n");
                }
                _ => peer.answer("200 OK", "done"),
            }
        }
    });
    let provider = "circuit_breaker: { failure_threshold: 1, recovery_timeout: 10ms, success_threshold: 1 }";
    let gateway = Gateway::before_with(&alpha, Extra { provider, ..Extra::default() });
    assert_eq!(status_settled(&gateway), 500);
    let mut stream = send(&gateway, "/stream");
    assert_eq!((stream.head().status(), stream.chunk()), (200, Some(b"first".to_vec())));
    wait_until("its circuit to close", || look(&gateway, "circuit-breakers/alpha")["state"] == "closed");
    assert_eq!(look(&gateway, "providers/alpha")["in_flight"], 1, "it is under way still");
    assert_eq!(status(&gateway), 200);
    gate.open();
    assert_eq!(stream.chunk(), None);
}
