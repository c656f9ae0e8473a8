//! An attempt fails, and another provider is asked: when that is done, when it must not be, and what everybody is told.
//!
//! `alpha` is always asked first: `beta` is a backup.

use crate::http2::{Client, Http2Provider};
use crate::world::{Extra, Gateway, Message, Peer, Provider, Wire, refusing, text, wait_until};
use h2::Reason;
use std::net::SocketAddr;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";
const SLOW_DOWN: &str = "HTTP/1.1 429 Too Many\r\ncontent-length: 4\r\n\r\nslow";

/// A gateway before two providers, the second of which is asked where the first could not help. More settings are those of
/// the listener, of `alpha` and of the route.
pub(crate) fn two(alpha: SocketAddr, beta: SocketAddr, extra: Extra<'_>) -> Gateway {
    let places = [("{listener}", extra.listener), ("{provider}", extra.provider), ("{route}", extra.route)];
    let put = |text: String, (place, more): (&str, &str)| {
        text.replace(place, &if more.is_empty() { String::new() } else { format!(", {more}") })
    };
    Gateway::start(&places.into_iter().fold(TWO.to_owned(), put), &[("alpha", alpha), ("beta", beta)])
}

/// The same with settings of the route alone.
fn with_route(alpha: &Provider, beta: &Provider, route: &str) -> Gateway {
    two(alpha.address(), beta.address(), Extra { route, ..Extra::default() })
}

/// A provider that reads each request and then goes without an answer.
fn broken() -> Provider {
    Provider::scripted(|peer| drop(peer.request()))
}

/// A provider that reads each request and says nothing.
fn mute() -> Provider {
    Provider::scripted(|peer| {
        peer.request();
        peer.wire.rest();
    })
}

/// The answer to one request.
fn ask(gateway: &Gateway, request: &str) -> Message {
    let mut client = gateway.connect();
    client.send(request);
    client.answer_to(request.split(' ').next().unwrap_or_default())
}

/// What our Proxy-Status tells, without how long anything took.
fn trail(answer: &Message) -> String {
    let own = answer.value("proxy-status").unwrap_or_default();
    let words = own.split(' ').filter(|word| !word.trim_end_matches([';', '"']).ends_with("ms"));
    let mut told = words.collect::<Vec<_>>().join(" ");
    if let Some(start) = told.find("details=\"") {
        told = told.split_off(start + "details=\"".len());
    }
    told.trim_end_matches('"').to_owned()
}

fn retries(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("sluice_retries_total", &[("route", "all"), ("reason", reason)])
}

fn is_skipped(gateway: &Gateway, reason: &str) {
    gateway.wait_for_metric("sluice_retries_skipped_total", &[("route", "all"), ("reason", reason)], 1.0);
}

fn is(count: f64, expected: f64) -> bool {
    (count - expected).abs() < f64::EPSILON
}

// --- when ---

#[test]
fn another_provider_is_asked_after_every_failure_that_a_route_names_and_everyone_is_told() {
    let (_held, nobody) = refusing();
    let answering = |status: u16| Provider::answering(format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n"));
    let (broken, mute) = (broken(), mute());
    let failing: Vec<_> =
        [429, 502, 503, 504].into_iter().map(|status| (status.to_string(), answering(status))).collect();
    let mut cases = vec![
        ("connect", "connection_refused", "failure", nobody),
        ("reset", "reset", "failure", broken.address()),
        ("timeout", "first_byte_timeout", "failure", mute.address()),
    ];
    for (status, provider) in &failing {
        let outcome = if status == "429" { "rejected" } else { "failure" };
        cases.push((status, status, outcome, provider.address()));
    }
    for (reason, word, outcome, alpha) in cases {
        let beta = Provider::answering(OK);
        let extra = Extra { provider: "timeouts: { first_byte: 100ms }", ..Extra::default() };
        let gateway = two(alpha, beta.address(), extra);
        let answer = ask(&gateway, GET);
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"), "{reason}");
        assert_eq!(trail(&answer), format!("alpha {word} beta 200"), "{reason}");
        assert!(is(retries(&gateway, reason), 1.0), "{reason}");
        let line = &gateway.wait_for_access_log(1)[0];
        let attempts = line["attempts"].as_array().expect("a list");
        let told: Vec<_> = attempts.iter().map(|one| (one["provider"].as_str(), one["outcome"].as_str())).collect();
        assert_eq!(told, [(Some("alpha"), Some(outcome)), (Some("beta"), Some("success"))]);
        assert!(line["provider"] == "beta" && line["error"].is_null(), "{line}");
    }
}

#[test]
fn an_answer_that_a_route_does_not_name_passes_at_once() {
    for status in [200, 301, 404, 500] {
        let alpha = Provider::answering(format!("HTTP/1.1 {status} So\r\ncontent-length: 2\r\n\r\nso"));
        let beta = Provider::answering(OK);
        let gateway = with_route(&alpha, &beta, "");
        assert_eq!(ask(&gateway, GET).status(), status);
        assert_eq!(beta.connections(), 0);
    }
}

#[test]
fn what_may_have_been_done_is_done_twice_only_where_the_route_allows_it() {
    let keyed = "POST / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: \"k\"\r\nContent-Length: 5\r\n\r\nhello";
    for (request, rule, goes_on) in [
        (POST, "attempts: 2", false),
        (keyed, "attempts: 2", false),
        (POST, "idempotency_key: true", false),
        (keyed, "idempotency_key: true", true),
        (POST, "methods: all", true),
        (POST, "methods: [POST]", true),
        (PUT, "methods: [POST]", false),
        (PUT, "attempts: 2", true),
        (POST, "refused: [429, 503]", true),
    ] {
        let (alpha, beta) = (Provider::answering(BUSY), Provider::answering(OK));
        let gateway = with_route(&alpha, &beta, &format!("retry: {{ {rule} }}"));
        let answer = ask(&gateway, request);
        if goes_on {
            assert_eq!((answer.text().as_str(), trail(&answer).as_str()), ("ok", "alpha 503 beta 200"), "{rule}");
            assert_eq!(beta.requests()[0].text(), "hello");
        } else {
            assert_eq!(answer.text(), "busy", "{rule}");
            assert_eq!(trail(&answer), "alpha 503 not retried: method", "{rule}");
            is_skipped(&gateway, "method");
            assert_eq!(beta.connections(), 0, "{rule}");
        }
    }
    for alpha in [broken(), mute()] {
        let beta = Provider::answering(OK);
        let extra = Extra { provider: "timeouts: { first_byte: 100ms }", ..Extra::default() };
        let gateway = two(alpha.address(), beta.address(), extra);
        let answer = ask(&gateway, POST);
        assert!([502, 504].contains(&answer.status()) && trail(&answer).ends_with("not retried: method"), "{answer:?}");
        assert_eq!(beta.connections(), 0);
    }
}

#[test]
fn a_429_says_that_nothing_was_done_and_lets_any_method_go_elsewhere() {
    let (alpha, beta) = (Provider::answering(SLOW_DOWN), Provider::answering(OK));
    let gateway = with_route(&alpha, &beta, "");
    assert_eq!(ask(&gateway, POST).text(), "ok");
    assert_eq!(beta.requests()[0].text(), "hello");
}

#[test]
fn what_was_never_sent_goes_elsewhere_whatever_it_is() {
    let (_held, nobody) = refusing();
    let beta = Provider::answering(OK);
    let gateway = two(nobody, beta.address(), Extra::default());
    assert_eq!(ask(&gateway, POST).text(), "ok");
    assert_eq!(beta.requests()[0].text(), "hello");

    let refusing = Http2Provider::scripted(|mut asked| async move { asked.respond.send_reset(Reason::REFUSED_STREAM) });
    let yaml = TWO.replace("http://{alpha}", "h2c://{alpha}").replace("{provider}", "").replace("{route}", "");
    let places = [("alpha", refusing.address()), ("beta", beta.address())];
    let gateway = Gateway::start(&yaml.replace("{listener}", ""), &places);
    let answer = ask(&gateway, POST);
    assert_eq!((answer.text().as_str(), trail(&answer).as_str()), ("ok", "alpha refused beta 200"));
    assert_eq!(beta.requests()[1].text(), "hello");
    assert!(is(retries(&gateway, "refused"), 1.0));
}

#[test]
fn there_are_no_more_attempts_than_the_route_and_its_client_allow() {
    for (attempts, each) in [(1, [1, 0]), (2, [1, 1]), (4, [3, 1])] {
        let (alpha, beta) = (Provider::answering(BUSY), Provider::answering(BUSY));
        let retry = format!("retry: {{ attempts: {attempts} }}");
        let gateway = with_route(&alpha, &beta, &retry);
        assert_eq!(ask(&gateway, GET).status(), 503);
        assert_eq!([alpha.requests().len(), beta.requests().len()], each, "{attempts}");
        is_skipped(&gateway, "attempts");
        assert!(is(retries(&gateway, "503"), f64::from(attempts - 1)));
    }
}

#[test]
fn a_budget_bounds_what_many_failures_cost() {
    let alpha = Provider::answering("HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n");
    let beta = Provider::answering(OK);
    let extra = Extra {
        provider: "circuit_breaker: { failures: [connect] }",
        route: "retry: { budget: { ratio: 0, min_per_second: 1 } }",
        ..Extra::default()
    };
    let gateway = two(alpha.address(), beta.address(), extra);
    let answers: Vec<_> = (0..60).map(|_| ask(&gateway, GET)).collect();
    let helped = answers.iter().filter(|answer| answer.status() == 200).count();
    assert!(helped < 40, "{helped} of 60");
    assert_eq!((beta.requests().len(), alpha.requests().len()), (helped, 60));
    let refused = answers.iter().filter(|answer| trail(answer) == "alpha 502 not retried: budget").count();
    assert_eq!(refused, 60 - helped);
    assert!(is(retries(&gateway, "502"), helped as f64));
    let skipped = gateway.metric("sluice_retries_skipped_total", &[("reason", "budget")]);
    assert!(is(skipped, refused as f64), "{skipped}");
}

#[test]
fn an_attempt_that_takes_too_long_makes_way_for_another() {
    let (alpha, beta) = (mute(), Provider::answering(OK));
    let gateway = with_route(&alpha, &beta, "retry: { attempt_timeout: 100ms }");
    assert_eq!(trail(&ask(&gateway, GET)), "alpha attempt_timeout beta 200");
}

#[test]
fn the_only_provider_is_asked_again_after_a_moment() {
    let alpha = Provider::scripted(|peer| {
        let mut answers = [BUSY, OK].into_iter();
        while peer.request().is_some() {
            peer.wire.send(answers.next().unwrap_or(OK));
        }
    });
    let gateway = Gateway::before(&alpha);
    assert_eq!(trail(&ask(&gateway, GET)), "alpha 503 alpha 200");
}

// --- what is left when nobody helps ---

#[test]
fn the_last_real_answer_passes_with_its_fields_where_nobody_gave_a_better_one() {
    let (_held, nobody) = refusing();
    for (method, body) in [("GET", "busy"), ("HEAD", "")] {
        let alpha = Provider::scripted(|peer| {
            while let Some(request) = peer.request() {
                let body = if request.head.line.starts_with("HEAD") { "" } else { "busy" };
                peer.wire.send(format!("HTTP/1.1 503 Busy\r\nx-why: a reason\r\ncontent-length: 4\r\n\r\n{body}"));
            }
        });
        let gateway = two(alpha.address(), nobody, Extra { route: "retry: { attempts: 2 }", ..Extra::default() });
        let mut client = gateway.connect();
        for _ in 0..2 {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
            let answer = client.answer_to(method);
            assert_eq!((answer.status(), answer.text().as_str()), (503, body));
            assert_eq!((answer.value("x-why"), answer.value("content-length")), (Some("a reason"), Some("4")));
            assert_eq!(trail(&answer), "alpha 503 beta connection_refused");
            assert!(answer.value("proxy-status").is_some_and(|own| own.starts_with("sluice; received-status=503; ")));
        }
        // Over HTTP/2 too.
        let answer = Client::connect(gateway.web()).ask(method, "/", &[], None);
        assert_eq!((answer.status, answer.text().as_str(), answer.value("x-why")), (503, body, Some("a reason")));
    }
}

#[test]
fn an_answer_too_long_to_be_kept_is_replaced_by_a_problem() {
    let (_held, nobody) = refusing();
    let alpha =
        Provider::answering(format!("HTTP/1.1 503 Busy\r\ncontent-length: 20000\r\n\r\n{}", "x".repeat(20_000)));
    let gateway = two(alpha.address(), nobody, Extra { route: "retry: { attempts: 2 }", ..Extra::default() });
    let answer = ask(&gateway, GET);
    assert_eq!((answer.status(), &answer.json()["reason"]), (502, &"attempts_exhausted".into()));
    assert_eq!(trail(&answer), "attempts_exhausted: alpha 503 beta connection_refused");
    // As the last one it passes whole.
    let gateway = two(nobody, alpha.address(), Extra { route: "retry: { attempts: 2 }", ..Extra::default() });
    assert_eq!(ask(&gateway, GET).body.len(), 20_000);
}

#[test]
fn the_status_of_a_problem_is_that_of_the_last_attempt() {
    let (mute, broken) = (mute(), broken());
    for (alpha, beta, status) in [(&mute, &broken, 502), (&broken, &mute, 504)] {
        let route = "retry: { attempts: 2, attempt_timeout: 150ms }";
        let gateway = with_route(alpha, beta, route);
        let answer = ask(&gateway, GET);
        assert_eq!((answer.status(), &answer.json()["reason"]), (status, &"attempts_exhausted".into()));
    }
}

// --- commit ---

#[test]
fn a_small_answer_that_breaks_off_is_had_elsewhere() {
    let cut = || {
        Provider::scripted(|peer| {
            if peer.request().is_some() {
                peer.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
            }
        })
    };
    let (alpha, beta) = (cut(), Provider::answering(OK));
    let gateway = with_route(&alpha, &beta, "retry: { commit: { within: 10s } }");
    let answer = ask(&gateway, GET);
    assert_eq!((answer.text().as_str(), trail(&answer).as_str()), ("ok", "alpha reset beta 200"));
    // Where there is nobody else its client gets a problem, not half an answer.
    let gateway = with_route(&alpha, &beta, "retry: { attempts: 1, commit: { within: 10s } }");
    let answer = ask(&gateway, GET);
    assert_eq!((answer.status(), trail(&answer).as_str()), (502, "attempts_exhausted: alpha reset"));
    let answer = ask(&gateway, POST);
    assert_eq!(answer.status(), 502);
}

#[test]
fn a_long_or_chunked_answer_that_breaks_off_breaks_visibly_and_is_not_had_elsewhere() {
    for head in ["content-length: 100000\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let alpha = Provider::scripted(move |peer| {
            if peer.request().is_some() {
                peer.wire.send(format!("HTTP/1.1 200 OK\r\n{head}"));
            }
        });
        let beta = Provider::answering(OK);
        let gateway = with_route(&alpha, &beta, "");
        let mut client = gateway.connect();
        client.send(GET);
        assert_eq!(client.head().status(), 200);
        assert!(!client.rest().ends_with(b"0\r\n\r\n"));
        assert_eq!(beta.connections(), 0);
    }
}

#[test]
fn a_small_answer_that_comes_slowly_is_sent_on_as_it_comes() {
    let (alpha, beta) = (Provider::by_hand(), Provider::answering(OK));
    let gateway = with_route(&alpha, &beta, "");
    let mut client = gateway.connect();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    provider.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
    client.until("\r\n\r\nhalf");
    provider.send("done");
    client.expect("done");
}

// --- clients that leave, wait or ask for more ---

#[test]
fn a_client_that_leaves_between_attempts_is_gone_and_nobody_is_asked_again() {
    for request in [GET, PUT] {
        let alpha = Provider::answering(BUSY);
        let retry = "timeout: 300s, retry: { backoff: { initial: 100s, max: 100s, jitter: none } }";
        let gateway = Gateway::before_with(&alpha, Extra { route: retry, ..Extra::default() });
        let mut client = gateway.connect();
        client.send(request);
        gateway.wait_for_metric("sluice_attempts_total", &[("provider", "alpha")], 1.0);
        drop(client);
        let line = &gateway.wait_for_access_log(1)[0];
        assert_eq!((&line["status"], &line["error"]), (&499.into(), &"client_gone".into()), "{line}");
        gateway.wait_for_metric("sluice_requests_in_flight", &[], 0.0);
        assert!(is(retries(&gateway, "503"), 0.0), "none was made");
        // In HTTP/2 as well.
        let client = Client::connect(gateway.web());
        let call = client.begin(client.request("GET", "/", &[]), true);
        gateway.wait_for_metric("sluice_attempts_total", &[("provider", "alpha")], 2.0);
        call.cancel();
        assert_eq!(gateway.wait_for_access_log(2)[1]["status"], 499);
        assert_eq!(alpha.requests().len(), 2);
    }
}

#[test]
fn the_log_counts_the_time_in_which_a_client_waited_for_another_attempt_in_vain() {
    let alpha = Provider::answering(BUSY);
    let retry = "retry: { attempts: 2, backoff: { initial: 200ms, multiplier: 1, max: 200ms, jitter: none } }";
    let provider = "circuit_breaker: { failure_threshold: 1, recovery_timeout: 60s }";
    let gateway = Gateway::before_with(&alpha, Extra { provider, route: retry, ..Extra::default() });
    assert_eq!(ask(&gateway, GET).status(), 503);
    let line = &gateway.wait_for_access_log(1)[0];
    assert!(line["seconds"].as_f64() >= Some(0.2), "{line}");
}

#[test]
fn the_log_counts_the_time_in_which_a_client_waited_that_left() {
    let alpha = Provider::answering(OK);
    let gateway = Gateway::before(&alpha);
    let order = |path: &str| {
        let mut wire = Wire::connect(gateway.admin());
        wire.send(format!("POST /api/v1/queues/main/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
        assert_eq!(wire.answer().status(), 200);
    };
    order("pause");
    let mut client = gateway.connect();
    client.send(GET);
    gateway.wait_for_metric("sluice_queue_depth", &[("pool", "main")], 1.0);
    drop(client);
    let line = &gateway.wait_for_access_log(1)[0];
    let seconds = |of: &str| line[of].as_f64().expect("a number");
    assert!(seconds("queue_seconds") > 0.0 && seconds("seconds") >= seconds("queue_seconds"), "{line}");
}

#[test]
fn a_client_that_waits_for_a_100_gets_that_of_the_provider_that_takes_its_body() {
    let alpha = Provider::scripted(|peer| {
        peer.wire.head();
        peer.wire.send(BUSY);
        peer.wire.rest();
    });
    let beta = Provider::scripted(|peer| {
        let head = peer.wire.head();
        assert_eq!(head.value("expect"), Some("100-continue"));
        peer.wire.send("HTTP/1.1 100 Continue\r\n\r\n");
        peer.keep(head);
        peer.wire.send(OK);
    });
    let gateway = with_route(&alpha, &beta, "");
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    assert_eq!(client.answer().text(), "ok");
    assert_eq!(beta.requests()[0].text(), "hello");
}

#[test]
fn a_client_that_waits_for_a_100_and_sends_nothing_is_held_against_no_provider() {
    let waits_too = || {
        Provider::scripted(|peer| {
            peer.wire.head();
            peer.wire.rest();
        })
    };
    let (alpha, beta) = (waits_too(), waits_too());
    for (provider, route) in [("timeouts: { first_byte: 100ms }", ""), ("", "timeout: 100ms")] {
        let gateway = two(alpha.address(), beta.address(), Extra { provider, route, ..Extra::default() });
        let answer = ask(&gateway, "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(answer.status(), if route.is_empty() { 408 } else { 504 });
        let ended = [("provider", "alpha"), ("outcome", "local_refusal")];
        gateway.wait_for_metric("sluice_attempts_total", &ended, 1.0);
        assert_eq!(beta.connections(), 0);
    }
}

#[test]
fn an_upgrade_goes_elsewhere_before_it_is_granted_and_never_after() {
    const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let alpha = Provider::answering(BUSY);
    let beta = Provider::scripted(|peer| {
        if peer.request().is_some() {
            peer.wire.send(SWITCHED);
        }
    });
    let gateway = with_route(&alpha, &beta, "");
    let mut client = gateway.connect();
    client.send(UPGRADE);
    assert_eq!(client.head().status(), 101);
    assert_eq!(text(&client.rest()), "");
    assert_eq!(gateway.wait_for_access_log(1)[0]["attempts"].as_array().map(Vec::len), Some(2));
    assert_eq!((alpha.requests().len(), beta.connections()), (1, 1));
}

/// `beta` is a backup, so that `alpha` is asked first.
const TWO: &str = "
listeners: [ { name: web, bind: \"{web}\"{listener} } ]
providers: { alpha: { url: \"http://{alpha}\"{provider} }, beta: { url: \"http://{beta}\" } }
pools: { main: { providers: [ alpha, { name: beta, backup: true } ] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main{route} } ]
";
