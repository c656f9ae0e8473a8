//! A second attempt beside a slow one: when it is made, which of the two counts, and that nothing is left of the other.
//!
//! `alpha` is always asked first: `beta` is a backup.

use crate::http2::Http2Provider;
use crate::retry::two;
use crate::world::{Extra, Gate, Gateway, Message, Provider, page, wait_until};
use h2::Reason;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";

/// Every request may be hedged, and is soon.
const SOON: &str = "retry: { hedge: { after: 5ms, budget: 1 } }";

/// The same where two attempts are all there may be.
const TWICE: &str = "retry: { attempts: 2, hedge: { after: 5ms, budget: 1 } }";

fn hedging(alpha: SocketAddr, beta: SocketAddr, route: &str) -> Gateway {
    two(alpha, beta, Extra { route, ..Extra::default() })
}

/// First tries, retries and hedges so far.
fn attempts(gateway: &Gateway) -> [u64; 3] {
    let told: serde_json::Value = serde_json::from_str(&page(gateway.admin(), "/api/v1/retry")).expect("JSON");
    ["first", "retry", "hedge"].map(|purpose| told["attempts"][purpose].as_u64().expect("a count"))
}

fn ended(gateway: &Gateway, provider: &str, outcome: &str, count: f64) {
    let labels = [("provider", provider), ("outcome", outcome)];
    gateway.wait_for_metric("sluice_attempts_total", &labels, count);
}

/// Nothing is under way any more.
fn is_over(gateway: &Gateway) {
    gateway.wait_for_metric("sluice_in_flight", &[], 0.0);
    gateway.wait_for_metric("sluice_requests_in_flight", &[], 0.0);
}

/// The names in our Proxy-Status, each with what came of it.
fn trail(answer: &Message) -> String {
    let told = answer.value("proxy-status").unwrap_or_default().split("details=\"").nth(1).unwrap_or_default();
    let words = told.trim_end_matches('"').split(' ').filter(|word| !word.trim_end_matches(';').ends_with("ms"));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_second_provider_that_is_faster_answers_and_the_first_is_cut_off() {
    let (alpha, beta) = (Provider::by_hand(), Provider::answering(OK));
    let gateway = hedging(alpha.address(), beta.address(), SOON);
    let mut client = gateway.connect();
    client.send(GET);
    let mut slow = alpha.accept();
    slow.request();
    slow.closes();
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    assert_eq!(trail(&answer), "alpha overtaken beta 200");
    ended(&gateway, "alpha", "local_refusal", 1.0);
    ended(&gateway, "beta", "success", 1.0);
    assert_eq!(attempts(&gateway), [1, 0, 1]);
    is_over(&gateway);
    let line = &gateway.wait_for_access_log(1)[0];
    assert_eq!(line["provider"], "beta", "{line}");
}

#[test]
fn a_provider_that_is_overtaken_counts_as_that_slow_at_least() {
    let (alpha, beta) = (Provider::scripted(|peer| while peer.request().is_some() {}), Provider::answering(OK));
    let slow = "circuit_breaker: { slow_call: 10ms, failure_threshold: 2, recovery_timeout: 60s }";
    for (rule, provider, most) in [("balance: peak_ewma", "", 1), ("balance: round_robin", slow, 2)] {
        let yaml = format!(
            "
listeners: [ {{ name: web, bind: \"{{web}}\" }} ]
providers: {{ alpha: {{ url: \"http://{{alpha}}\", {provider} }}, beta: {{ url: \"http://{{beta}}\" }} }}
pools: {{ main: {{ providers: [alpha, beta], {rule} }} }}
routes: [ {{ name: all, match: {{ path: \"/*\" }}, pool: main, retry: {{ hedge: {{ after: 30ms, budget: 1 }} }} }} ]
"
        );
        let gateway = Gateway::start(&yaml, &[("alpha", alpha.address()), ("beta", beta.address())]);
        let before = alpha.requests().len();
        let mut client = gateway.connect();
        for _ in 0..10 {
            client.send(GET);
            assert_eq!(client.answer().status(), 200);
        }
        let asked = alpha.requests().len() - before;
        assert!((1..=most).contains(&asked), "{rule}: alpha was asked {asked} times");
    }
}

#[test]
fn a_first_provider_that_begins_to_answer_ends_the_second_at_once() {
    let (alpha, beta) = (Provider::by_hand(), Provider::by_hand());
    let gateway = hedging(alpha.address(), beta.address(), SOON);
    let mut client = gateway.connect();
    client.send(GET);
    let mut first = alpha.accept();
    first.request();
    let mut second = beta.accept();
    second.request();
    first.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.head();
    client.expect("5\r\nhello\r\n");
    // While the first goes on, for as long as it likes.
    second.closes();
    ended(&gateway, "beta", "local_refusal", 1.0);
    gateway.wait_for_metric("sluice_in_flight", &[("provider", "beta")], 0.0);
    first.send("0\r\n\r\n");
    client.expect("0\r\n\r\n");
    ended(&gateway, "alpha", "success", 1.0);
    is_over(&gateway);
    let line = &gateway.wait_for_access_log(1)[0];
    assert_eq!(line["provider"], "alpha", "{line}");
    assert_eq!(line["attempts"].as_array().expect("a list").len(), 2, "{line}");
}

#[test]
fn a_second_attempt_that_fails_holds_nothing_while_the_first_goes_on() {
    let (alpha, beta) = (Provider::by_hand(), Provider::answering(BUSY));
    let gateway = hedging(alpha.address(), beta.address(), SOON);
    let mut client = gateway.connect();
    client.send(GET);
    let mut first = alpha.accept();
    first.request();
    ended(&gateway, "beta", "failure", 1.0);
    gateway.wait_for_metric("sluice_in_flight", &[("provider", "beta")], 0.0);
    first.send(OK);
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    assert_eq!((attempts(&gateway), beta.requests().len()), ([1, 0, 1], 1));
    is_over(&gateway);
}

#[test]
fn a_second_attempt_whose_time_is_cut_short_by_the_request_is_not_its_providers_failure() {
    let (alpha, beta) = (Provider::by_hand(), Provider::by_hand());
    let route = "timeout: 400ms, retry: { attempts: 2, hedge: { after: 100ms, budget: 1 } }";
    let gateway = hedging(alpha.address(), beta.address(), route);
    let mut client = gateway.connect();
    client.send(GET);
    let (mut first, mut second) = (alpha.accept(), beta.accept());
    first.request();
    second.request();
    drop(first);
    let answer = client.answer();
    assert_eq!((answer.status(), &answer.json()["reason"]), (504, &"deadline".into()));
    ended(&gateway, "alpha", "failure", 1.0);
    ended(&gateway, "beta", "local_refusal", 1.0);
    second.closes();
    is_over(&gateway);
}

#[test]
fn both_may_fail_and_there_are_no_more_attempts_than_there_may_be() {
    // Whichever of the two fails first, and however the first does.
    for (first_to_fail, how) in [("alpha", BUSY), ("alpha", ""), ("beta", BUSY), ("beta", "")] {
        let (alpha, beta) = (Provider::by_hand(), Provider::by_hand());
        let gateway = hedging(alpha.address(), beta.address(), TWICE);
        let mut client = gateway.connect();
        client.send(GET);
        let (mut first, mut second) = (alpha.accept(), beta.accept());
        first.request();
        second.request();
        if first_to_fail == "beta" {
            second.send(BUSY);
            ended(&gateway, "beta", "failure", 1.0);
        }
        first.send(how);
        drop(first);
        if first_to_fail == "alpha" {
            second.send(BUSY);
        }
        let answer = client.answer();
        let status = if first_to_fail == "beta" && how.is_empty() { 502 } else { 503 };
        assert_eq!(answer.status(), status, "{first_to_fail} {how}");
        assert_eq!(attempts(&gateway), [1, 0, 1], "{first_to_fail} {how}");
        ended(&gateway, "alpha", "failure", 1.0);
        ended(&gateway, "beta", "failure", 1.0);
        is_over(&gateway);
    }
}

#[test]
fn a_first_attempt_that_fails_is_followed_by_the_second_that_is_under_way() {
    for how in [BUSY, ""] {
        let (alpha, beta) = (Provider::by_hand(), Provider::by_hand());
        let gateway = hedging(alpha.address(), beta.address(), TWICE);
        let mut client = gateway.connect();
        client.send(GET);
        let (mut first, mut second) = (alpha.accept(), beta.accept());
        first.request();
        second.request();
        first.send(how);
        drop(first);
        if how.is_empty() {
            // It still waits for the second.
            wait_until("the client waits", || client.is_silent());
        }
        second.send(OK);
        let answer = client.answer();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"), "{how}");
        assert_eq!(attempts(&gateway), [1, 0, 1], "{how}");
        ended(&gateway, "beta", "success", 1.0);
        is_over(&gateway);
    }
}

#[test]
fn of_two_that_answer_together_one_answer_arrives() {
    let both = Arc::new(Barrier::new(2));
    let answering = || {
        let both = Arc::clone(&both);
        Provider::scripted(move |peer| {
            while peer.request().is_some() {
                both.wait();
                // One of the two is too late.
                if peer.wire.try_send(OK).is_err() {
                    return;
                }
            }
        })
    };
    let (alpha, beta) = (answering(), answering());
    let gateway = hedging(alpha.address(), beta.address(), SOON);
    let mut client = gateway.connect();
    for _ in 0..ROUNDS {
        client.send(GET);
        let answer = client.answer();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    }
    assert!(client.is_silent());
    is_over(&gateway);
    let rounds = ROUNDS as f64;
    assert_eq!(attempts(&gateway), [ROUNDS, 0, ROUNDS]);
    wait_until("every attempt ended", || {
        let of = |outcome| gateway.metric("sluice_attempts_total", &[("outcome", outcome)]);
        (of("success"), of("local_refusal")) == (rounds, rounds)
    });
}

#[test]
fn what_may_not_be_sent_twice_is_not_and_nobody_waits_to_be_a_second() {
    let (gate, slow) = (Gate::default(), Gate::default());
    let waiting = |gate: &Gate| {
        let gate = gate.clone();
        Provider::scripted(move |peer| {
            while peer.request().is_some() {
                gate.pass();
                peer.answer("200 OK", "done");
            }
        })
    };
    let (alpha, beta, gamma) = (waiting(&slow), waiting(&gate), Provider::answering(OK));
    let places = [("alpha", alpha.address()), ("beta", beta.address()), ("gamma", gamma.address())];
    let gateway = Gateway::start(THREE, &places);
    let send = |line: &str| {
        let mut client = gateway.connect();
        client.send(format!("{line} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        client
    };
    let mut full = send("GET /beta");
    beta.wait_for_requests(1);
    let mut posted = send("POST /post");
    alpha.wait_for_requests(1);
    let mut alone = send("GET /full");
    alpha.wait_for_requests(2);
    // By the time that this one is hedged, the others would have been.
    assert_eq!(send("GET /clock").answer().text(), "ok");
    assert!(gateway.metric("sluice_queue_depth", &[]) < 1.0);
    slow.open();
    assert_eq!((posted.answer().status(), alone.answer().status()), (200, 200));
    gate.open();
    assert_eq!(full.answer().status(), 200);
    assert_eq!((beta.requests().len(), gamma.requests().len()), (1, 1));
    assert_eq!(attempts(&gateway), [4, 0, 1]);
    is_over(&gateway);
}

#[test]
fn their_budget_bounds_hedges() {
    let alpha = Provider::scripted(|peer| {
        while peer.request().is_some() {
            crate::world::pause(std::time::Duration::from_millis(20));
            if peer.wire.try_send(OK).is_err() {
                return;
            }
        }
    });
    let beta = Provider::answering(OK);
    let gateway = hedging(alpha.address(), beta.address(), "retry: { hedge: { after: 1ms, budget: 0.1 } }");
    let begun = sluice::clock::now();
    let mut client = gateway.connect();
    for _ in 0..ROUNDS {
        client.send(GET);
        assert_eq!(client.answer().status(), 200);
    }
    // One to begin with, a tenth of the requests, and one in ten seconds.
    let took = sluice::clock::now().saturating_duration_since(begun);
    let most = 1 + ROUNDS / 10 + took.as_secs() / 10;
    let [first, retries, hedges] = attempts(&gateway);
    assert_eq!((first, retries), (ROUNDS, 0));
    assert!((2..=most).contains(&hedges), "{hedges} of {most}");
}

#[test]
fn the_loser_of_two_over_http2_is_reset() {
    let h2c = |alpha: &Http2Provider, beta: &Http2Provider| {
        Gateway::start(H2C, &[("alpha", alpha.address()), ("beta", beta.address())])
    };
    let mute = || {
        Http2Provider::scripted(|mut asked| async move {
            asked.all().await.expect("a whole request");
            asked.given_up().await;
        })
    };
    let (alpha, beta) = (mute(), Http2Provider::answering("ok"));
    let gateway = h2c(&alpha, &beta);
    let mut client = gateway.connect();
    client.send(GET);
    assert_eq!(client.answer().text(), "ok");
    wait_until("the first is reset", || alpha.resets() == [Reason::CANCEL]);
    assert_eq!((alpha.open(), beta.open()), (1, 1), "connections stay");

    let asked = Arc::new(AtomicUsize::new(0));
    let waits = Arc::clone(&asked);
    let alpha = Http2Provider::scripted(move |mut first| {
        let asked = Arc::clone(&waits);
        async move {
            first.all().await.expect("a whole request");
            while asked.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            first.answer(200, &[], "first").await;
        }
    });
    let beta = Http2Provider::scripted(move |mut second| {
        let asked = Arc::clone(&asked);
        async move {
            second.all().await.expect("a whole request");
            asked.fetch_add(1, Ordering::SeqCst);
            second.given_up().await;
        }
    });
    let gateway = h2c(&alpha, &beta);
    let mut client = gateway.connect();
    client.send(GET);
    assert_eq!(client.answer().text(), "first");
    wait_until("the second is reset", || beta.resets() == [Reason::CANCEL]);
    ended(&gateway, "beta", "local_refusal", 1.0);
    is_over(&gateway);
}

const ROUNDS: u64 = 40;

const THREE: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers:
  alpha: { url: \"http://{alpha}\" }
  beta: { url: \"http://{beta}\", limits: { concurrency: 1 } }
  gamma: { url: \"http://{gamma}\" }
pools:
  main: { providers: [ alpha, { name: beta, backup: true } ] }
  posts: { providers: [ alpha, { name: gamma, backup: true } ] }
  only: { providers: [beta] }
routes:
  - { name: full, match: { path: /full }, pool: main, retry: &hedged { hedge: { after: 5ms, budget: 1 } } }
  - { name: post, match: { path: /post }, pool: posts, retry: *hedged }
  - { name: clock, match: { path: /clock }, pool: posts, retry: *hedged }
  - { name: beta, match: { path: /beta }, pool: only }
";

const H2C: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"h2c://{alpha}\" }, beta: { url: \"h2c://{beta}\" } }
pools: { main: { providers: [ alpha, { name: beta, backup: true } ] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main, retry: { hedge: { after: 5ms, budget: 1 } } } ]
";
