//! Providers that break HTTP, break off, stay silent or are not there. Before the answer is on its way the client gets a
//! problem that says what was tried; afterwards its stream breaks visibly, never with a clean end.

use crate::world::{End, Extra, Gateway, Message, Provider, Wire, pause, refusing, silent, text};
use sluice::clock;
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A problem of ours for an attempt at `alpha` that came to `word`.
fn is_exhausted(answer: &Message, status: u16, error: &str, word: &str) {
    assert_eq!(answer.status(), status, "{}", answer.text());
    assert_eq!(answer.value("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!((&problem["reason"], &problem["status"]), (&"attempts_exhausted".into(), &status.into()));
    let own = answer.value("proxy-status").expect("a Proxy-Status");
    let trail = format!("sluice; error={error}; details=\"attempts_exhausted: alpha {word} ");
    assert!(own.starts_with(&trail) && own.ends_with("ms\""), "{own}");
    assert!(!answer.text().contains("127.0.0.1") && !own.contains("127.0.0.1"), "addresses are nobody's business");
}

/// The attempt counts as the provider's failure.
fn is_its_failure(gateway: &Gateway) {
    gateway.wait_for_metric("sluice_attempts_total", &[("provider", "alpha"), ("outcome", "failure")], 1.0);
    gateway.wait_for_metric("sluice_in_flight", &[("provider", "alpha")], 0.0);
}

// --- before the answer is on its way ---

#[test]
fn an_answer_that_is_not_http_gets_502_and_its_connection_is_not_used_again() {
    for answer in [
        // Status line
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 999 High\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 000 None\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20x OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
        "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        " HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "\x15\x03\x01\0\x02\x02\x46\r\n\r\n",
        "<html>\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        // Lines and fields
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nX: y\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 0\r\n\r\n",
        // Lengths
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        // More or other than what was announced
        "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\nok",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\noks",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        // Interim answers
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        is_not_http(answer);
    }
    is_not_http(&format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(70_000)));
    is_not_http(&format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(300)));
    is_not_http(&"H".repeat(70_000));
}

fn is_not_http(answer: &str) {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, Extra::ONCE);
    let mut client = gateway.connect();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    // A long one may be cut off by a gateway that has seen enough.
    let _: std::io::Result<()> = provider.try_send(answer);
    let refused = client.answer();
    assert_eq!(refused.status(), 502, "{answer:?}");
    is_exhausted(&refused, 502, "http_protocol_error", "protocol");
    is_its_failure(&gateway);
    assert_eq!(text(&provider.rest()), "");
    // The client's connection is in step, and the next request gets a new one to the provider.
    client.send(GET);
    let mut second = alpha.accept();
    second.request();
    second.send(OK);
    assert_eq!(client.answer().text(), "ok");
}

#[test]
fn an_answer_to_head_that_brings_a_body_is_a_broken_one() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, Extra::ONCE);
    let mut client = gateway.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut provider = alpha.accept();
    provider.request();
    provider.send(OK);
    assert_eq!(client.answer_to("HEAD").status(), 502);
    provider.end();
    is_its_failure(&gateway);
}

#[test]
fn interim_answers_without_end_are_a_broken_answer() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, Extra::ONCE);
    let mut client = gateway.connect();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    provider.send("HTTP/1.1 102 Processing\r\n\r\n".repeat(64));
    client.expect("HTTP/1.1 102 Processing\r\n\r\n".repeat(64));
    provider.send("HTTP/1.1 102 Processing\r\n\r\n");
    is_exhausted(&client.answer(), 502, "http_protocol_error", "protocol");
    provider.closes();
}

#[test]
fn a_connection_that_ends_before_an_answer_gets_502() {
    for part in ["", "H", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        for reset in [false, true] {
            let alpha = Provider::by_hand();
            let gateway = Gateway::before_with(&alpha, Extra::ONCE);
            let mut client = gateway.connect();
            client.send(GET);
            let mut provider = alpha.accept();
            provider.request();
            provider.send(part);
            if part.contains("103") {
                client.until("\r\n\r\n");
            }
            if reset {
                provider.reset();
            } else {
                drop(provider);
            }
            is_exhausted(&client.answer(), 502, "http_response_incomplete", "reset");
            is_its_failure(&gateway);
            assert!(alpha.is_lonely(), "a new connection that breaks is not tried again");
            client.send(GET);
            let mut second = alpha.accept();
            second.request();
            second.send(OK);
            assert_eq!(client.answer().text(), "ok");
        }
    }
}

#[test]
fn a_provider_that_is_not_there_gets_502() {
    let (_held, nobody) = refusing();
    let gateway = Gateway::before_address(nobody, Extra::ONCE);
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        is_exhausted(&client.answer(), 502, "connection_refused", "connection_refused");
    }
    let line = &gateway.wait_for_access_log(2)[1];
    assert_eq!((&line["provider"], &line["reason"]), (&"alpha".into(), &"attempts_exhausted".into()));
    assert!(line["error"].as_str().is_some_and(|error| error.contains("127.0.0.1")), "operators are told: {line}");
}

#[test]
fn a_provider_that_lets_nobody_in_gets_504_after_its_connect_timeout() {
    let (_held, nobody) = silent();
    let gateway = Gateway::before_address(nobody, Extra::once_with("timeouts: { connect: 100ms }"));
    let mut client = gateway.connect();
    client.send(GET);
    is_exhausted(&client.answer(), 504, "connection_timeout", "connection_timeout");
    is_its_failure(&gateway);
}

#[test]
fn a_route_whose_time_is_over_before_a_connection_is_open_gets_504_with_reason_deadline() {
    let (_held, nobody) = silent();
    let gateway = Gateway::before_address(nobody, Extra { route: "timeout: 100ms", ..Extra::default() });
    let mut client = gateway.connect();
    client.send(GET);
    let answer = client.answer();
    assert_eq!((answer.status(), &answer.json()["reason"]), (504, &"deadline".into()));
}

// --- after the answer is on its way ---

/// Commits an answer with `begin`, lets the client see `seen`, then breaks by `break_off`; gives the client's end.
fn broken_stream(request: &str, begin: &str, seen: &str, break_off: impl FnOnce(Wire)) -> (End, String, Gateway) {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, Extra::ONCE);
    let mut client = gateway.connect();
    client.send(request);
    let mut provider = alpha.accept();
    provider.request();
    provider.send(begin);
    assert_eq!(client.head().status(), 200);
    client.expect(seen);
    break_off(provider);
    let rest = text(&client.rest());
    is_its_failure(&gateway);
    gateway.wait_for_metric("sluice_requests_in_flight", &[], 0.0);
    (client.end(), rest, gateway)
}

#[test]
fn a_stream_that_is_cut_off_breaks_visibly() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    for (begin, seen) in [(chunked, "5\r\nhello\r\n"), (sized, "hello")] {
        for by in [drop as fn(Wire), Wire::reset] {
            let (_, rest, _gateway) = broken_stream(GET, begin, seen, by);
            assert_eq!(rest, "", "no last chunk, nothing made up");
        }
    }
    // Half a chunk, half a last chunk, no end of the trailers: none of it is an end.
    for part in ["5\r\nwor", "0\r\n", "0\r\nX: y\r\n", "5\r\nworld"] {
        let (_, rest, _gateway) = broken_stream(GET, chunked, "5\r\nhello\r\n", |mut provider| provider.send(part));
        assert!(!rest.contains("0\\r\\n"), "{part:?} became {rest:?}");
    }
    // An answer that ends with its connection has no other end; a reset is none.
    let close = "HTTP/1.1 200 OK\r\n\r\nhello";
    let (_, rest, _gateway) = broken_stream(GET, close, "5\r\nhello\r\n", Wire::reset);
    assert_eq!(rest, "");
}

#[test]
fn a_stream_that_breaks_its_framing_breaks_visibly() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for part in ["zz\r\n", "5\r\nworld0\r\n\r\n", "5\nworld\r\n0\r\n\r\n", "0\r\nX : y\r\n\r\n", "0\r\n\n"] {
        let (_, rest, gateway) = broken_stream(GET, chunked, "5\r\nhello\r\n", |mut provider| {
            provider.send(part);
            assert_eq!(text(&provider.rest()), "", "the provider is cut off");
        });
        assert!(!rest.contains("0\\r\\n"), "{part:?} became {rest:?}");
        assert!(gateway.wait_for_access_log(1)[0]["error"].is_string());
    }
}

#[test]
fn a_1_0_client_sees_a_break_as_a_reset_since_a_close_would_be_an_end() {
    let request = "GET / HTTP/1.0\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let (end, rest, _gateway) = broken_stream(request, chunked, "hello", drop);
    assert_eq!((end, rest.as_str()), (End::Reset, ""));
    let (end, rest, _gateway) = broken_stream(request, "HTTP/1.1 200 OK\r\n\r\nhello", "hello", Wire::reset);
    assert_eq!((end, rest.as_str()), (End::Reset, ""));
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    let (_, rest, _gateway) = broken_stream(request, sized, "hello", drop);
    assert_eq!(rest, "");
}

#[test]
fn bytes_after_the_end_of_an_answer_reach_nobody() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n\r\n",
    ] {
        client.send(GET);
        let mut provider = alpha.accept();
        provider.request();
        provider.send(answer);
        assert_eq!(client.answer().text(), "ok");
        // Whose they are cannot be known, so the connection is not used again.
        provider.end();
    }
    // Behind the end of a body of known length, seen only once the answer is over.
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    provider.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok");
    client.until("\r\n\r\nok");
    provider.send("okHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged");
    client.expect("ok");
    provider.end();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    provider.send(OK);
    assert_eq!(client.answer().text(), "ok");
}

#[test]
fn an_answer_nobody_asked_for_is_not_given_to_the_next_request() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send(GET);
    let mut first = alpha.accept();
    first.request();
    first.send(OK);
    assert_eq!(client.answer().text(), "ok");
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged");
    client.send(GET);
    let mut second = alpha.accept();
    second.request();
    second.send(OK);
    assert_eq!(client.answer().text(), "ok");
    first.end();
}

// --- dead pooled connections ---

/// A gateway with one pooled connection, and its provider's end.
fn pooled() -> (Provider, Gateway, Wire, Wire) {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, Extra::ONCE);
    let mut client = gateway.connect();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    provider.send(OK);
    assert_eq!(client.answer().text(), "ok");
    (alpha, gateway, client, provider)
}

#[test]
fn a_pooled_connection_that_died_before_the_request_is_replaced_for_any_method() {
    for method in ["GET", "POST"] {
        let (alpha, gateway, mut client, provider) = pooled();
        drop(provider);
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"));
        let mut second = alpha.accept();
        assert_eq!(second.request().expect("a request").text(), "hello");
        second.send(OK);
        assert_eq!(client.answer().text(), "ok");
        gateway.wait_for_metric("sluice_attempts_total", &[("outcome", "success")], 2.0);
        assert!(gateway.metric("sluice_attempts_total", &[("outcome", "failure")]).abs() < f64::EPSILON);
    }
}

#[test]
fn a_get_whose_pooled_connection_dies_under_it_is_sent_again_once_on_a_new_one() {
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let (alpha, gateway, mut client, mut provider) = pooled();
        client.send(format!("{method} /again HTTP/1.1\r\nHost: a\r\n\r\n"));
        let first = provider.request().expect("a request");
        drop(provider);
        let mut second = alpha.accept();
        let again = second.request().expect("the same request");
        assert_eq!(again, first);
        second.send("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(client.answer_to(method).status(), 204);
        gateway.wait_for_metric("sluice_attempts_total", &[("outcome", "success")], 2.0);

        if method == "HEAD" {
            // Its connection rests now, so the next request would open another one.
            continue;
        }
        // The new connection is given no second chance.
        client.send(format!("{method} /twice HTTP/1.1\r\nHost: a\r\n\r\n"));
        second.request();
        drop(second);
        let mut third = alpha.accept();
        third.request();
        drop(third);
        assert_eq!(client.answer_to(method).status(), 502);
        assert!(alpha.is_lonely());
    }
}

#[test]
fn what_may_have_been_done_already_is_not_sent_again() {
    let idempotent_with_body = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PATCH / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        // Its body has been read from the client, and on a last attempt nothing is kept.
        idempotent_with_body,
    ] {
        let (alpha, gateway, mut client, mut provider) = pooled();
        client.send(request);
        provider.request();
        drop(provider);
        is_exhausted(&client.answer(), 502, "http_response_incomplete", "reset");
        assert!(alpha.is_lonely(), "{request}");
        is_its_failure(&gateway);
    }
}

#[test]
fn an_answer_that_has_begun_is_not_asked_for_again() {
    for part in ["H", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let (alpha, _gateway, mut client, mut provider) = pooled();
        client.send(GET);
        provider.request();
        provider.send(part);
        if part.contains("103") {
            client.until("\r\n\r\n");
        }
        drop(provider);
        is_exhausted(&client.answer(), 502, "http_response_incomplete", "reset");
        assert!(alpha.is_lonely());
    }
}

// --- time ---

#[test]
fn a_provider_that_says_nothing_gets_504() {
    let alpha = Provider::by_hand();
    let extra = Extra::once_with("timeouts: { first_byte: 100ms }");
    let gateway = Gateway::before_with(&alpha, extra);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let mut provider = alpha.accept();
    provider.request();
    is_exhausted(&client.answer(), 504, "http_response_timeout", "first_byte_timeout");
    provider.closes();
    is_its_failure(&gateway);
    // Neither is half a head an answer.
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    provider.send("HTTP/1.1 200 OK\r\nX: ");
    is_exhausted(&client.answer(), 504, "http_response_timeout", "first_byte_timeout");
    provider.closes();
}

#[test]
fn a_provider_that_takes_nothing_of_an_upload_gets_504() {
    let alpha = Provider::by_hand();
    let extra = Extra::once_with("timeouts: { idle: 200ms }");
    let gateway = Gateway::before_with(&alpha, extra);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n");
    let _provider = alpha.accept();
    while client.is_silent() && client.try_send([0; 16 * 1024]).is_ok() {}
    let seen = text(&client.rest());
    assert!(seen.starts_with("HTTP/1.1 504 Gateway Timeout\\r\\n") && seen.contains("alpha idle_timeout"), "{seen}");
    is_its_failure(&gateway);
}

#[test]
fn a_stream_that_stalls_is_broken_off() {
    let alpha = Provider::by_hand();
    let extra = Extra { provider: "timeouts: { idle: 150ms }", ..Extra::default() };
    let gateway = Gateway::before_with(&alpha, extra);
    let mut client = gateway.connect();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    provider.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.head();
    let until = clock::now() + Duration::from_millis(300);
    while clock::now() < until {
        provider.send_chunk("on time");
        client.expect("7\r\non time\r\n");
    }
    assert_eq!(text(&client.rest()), "");
    provider.closes();
    is_its_failure(&gateway);
}

#[test]
fn a_route_whose_time_is_over_gets_504_with_reason_deadline() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, Extra { route: "timeout: 100ms", ..Extra::default() });
    let mut client = gateway.connect();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    let answer = client.answer();
    assert_eq!((answer.status(), &answer.json()["reason"]), (504, &"deadline".into()));
    let own = answer.value("proxy-status").unwrap_or_default();
    assert!(own.starts_with("sluice; error=http_response_timeout; details=\"deadline: alpha deadline "), "{own}");
    provider.closes();
    // Of the two times this was the shorter, and the provider had all of it.
    is_its_failure(&gateway);
}

#[test]
fn a_committed_answer_has_all_the_time_it_needs_but_for_stream_timeout() {
    for (route, ends) in [("timeout: 100ms", false), ("timeout: 100ms, stream_timeout: 200ms", true)] {
        let alpha = Provider::by_hand();
        let gateway = Gateway::before_with(&alpha, Extra { route, ..Extra::default() });
        let mut client = gateway.connect();
        client.send(GET);
        let mut provider = alpha.accept();
        provider.request();
        provider.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.head();
        if ends {
            while provider.try_send("1\r\nx\r\n").is_ok() {}
            assert!(!text(&client.rest()).contains("0\\r\\n\n\\r"), "no clean end");
            gateway.wait_for_metric("sluice_attempts_total", &[("outcome", "local_refusal")], 1.0);
        } else {
            let until = clock::now() + Duration::from_millis(300);
            while clock::now() < until {
                provider.send_chunk("x");
                client.expect("1\r\nx\r\n");
            }
            provider.send("0\r\n\r\n");
            client.expect("0\r\n\r\n");
        }
    }
}

#[test]
fn waiting_for_the_clients_own_body_is_no_time_of_the_provider_or_the_route() {
    let alpha = Provider::by_hand();
    let extra =
        Extra { provider: "timeouts: { first_byte: 200ms, idle: 200ms }", route: "timeout: 200ms", ..Extra::default() };
    let gateway = Gateway::before_with(&alpha, extra);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 600\r\n\r\n");
    let mut provider = alpha.accept();
    provider.head();
    // A client that sends a byte now and then, for longer than any of these times.
    for _ in 0..6 {
        pause(Duration::from_millis(100));
        client.send([b'x'; 100]);
        provider.take(100);
    }
    provider.send(OK);
    assert_eq!(client.answer().text(), "ok");
    // Once the body is there, the provider's own time counts in full.
    client.send(GET);
    provider.request();
    is_exhausted_or_over(&client.answer());
}

/// Of two equal times either may pass first.
fn is_exhausted_or_over(answer: &Message) {
    assert_eq!(answer.status(), 504);
    assert!(["attempts_exhausted", "deadline"].contains(&answer.json()["reason"].as_str().unwrap_or_default()));
}
