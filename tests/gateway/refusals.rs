//! Every refusal: what the client sends, what it gets, and that the provider sees nothing of it.
//!
//! Each answer is judged whole: status, problem document, `Proxy-Status`, `Connection: close`, and an orderly end of the
//! connection behind it.

use crate::world::{Extra, Gateway, Message, Provider, Wire};

/// Sends `request` and expects a refusal with this status and reason that closes the connection and reaches no provider.
fn is_refused(gateway: &Gateway, alpha: &Provider, request: &[u8], status: u16, reason: &str) -> Message {
    let mut client = gateway.connect();
    client.send(request);
    let answer = refusal(&mut client, status, reason);
    assert!(alpha.is_lonely(), "the provider was asked: {}", crate::world::text(request));
    answer
}

/// Reads a refusal with this status and reason, and the end of the connection.
fn refusal(client: &mut Wire, status: u16, reason: &str) -> Message {
    let answer = client.answer();
    is_problem(&answer, status, reason);
    assert_eq!(answer.value("connection"), Some("close"));
    client.closes();
    answer
}

/// Everything a problem of ours has to have, whatever becomes of the connection.
fn is_problem(answer: &Message, status: u16, reason: &str) {
    assert_eq!(answer.status(), status, "{}", answer.text());
    assert_eq!(answer.value("content-type"), Some("application/problem+json"));
    assert!(answer.value("date").is_some());
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["reason"], reason);
    assert_eq!(problem["type"], format!("urn:sluice:problem:{reason}"));
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    let id = answer.value("x-request-id").expect("a request id");
    assert_eq!(problem["request_id"], id);
    assert_eq!(problem["instance"], format!("urn:sluice:request:{id}"));
    let error = match status {
        404 => "destination_not_found",
        405 | 413 => "http_request_denied",
        _ => "http_request_error",
    };
    let own = answer.value("proxy-status").expect("a Proxy-Status");
    assert!(own.starts_with(&format!("sluice; error={error}; details=\"{reason}")), "{own}");
}

#[test]
fn a_request_that_two_readers_could_read_differently_gets_400_and_a_close() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    for request in AMBIGUOUS {
        is_refused(&gateway, &alpha, request.as_bytes(), 400, "bad_request");
    }
    let log = gateway.wait_for_access_log(AMBIGUOUS.len());
    assert!(log.iter().all(|line| line["status"] == 400 && line["reason"] == "bad_request"));
    let counted = gateway.metric("sluice_requests_total", &[("route", "none"), ("status_class", "4xx")]);
    assert_eq!((log.len(), counted.to_string()), (AMBIGUOUS.len(), AMBIGUOUS.len().to_string()));
    assert_eq!(alpha.connections(), 0);
}

#[test]
fn tls_on_a_cleartext_listener_is_told_so_at_its_first_byte() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let answer = is_refused(&gateway, &alpha, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_request");
    assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("TLS")));
    is_refused(&gateway, &alpha, b"\x16", 400, "bad_request");
    is_refused(&gateway, &alpha, b"\0", 400, "bad_request");
    is_refused(&gateway, &alpha, b"\x80\x80", 400, "bad_request");
}

#[test]
fn connect_and_trace_get_405_with_what_is_allowed() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    for request in [
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let answer = is_refused(&gateway, &alpha, request.as_bytes(), 405, "wrong_method");
        assert_eq!(answer.value("allow"), Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"));
    }
}

#[test]
fn what_follows_a_refused_request_is_never_read_as_another() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let smuggled = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
                    0\r\n\r\nGET /secret HTTP/1.1\r\nHost: a\r\n\r\n";
    is_refused(&gateway, &alpha, smuggled.as_bytes(), 400, "bad_request");
    assert_eq!(gateway.wait_for_access_log(1).len(), 1);
}

#[test]
fn a_head_over_its_limits_gets_431() {
    let alpha = Provider::by_hand();
    let limits = Extra { listener: "limits: { header_bytes: 1KiB, headers: 5 }", ..Extra::default() };
    let gateway = Gateway::before_with(&alpha, limits);
    let head = |len: usize| {
        let rest = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(len - rest))
    };
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    for request in [
        head(1025),
        head(200_000),
        fields(6),
        fields(100),
        // Neither a target nor a line that never ends is waited for.
        format!("GET /{}", "a".repeat(2000)),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(2000)),
    ] {
        is_refused(&gateway, &alpha, request.as_bytes(), 431, "head_too_large");
    }
    for request in [head(1024), fields(5)] {
        let mut client = gateway.connect();
        client.send(request);
        let mut provider = alpha.accept();
        provider.head();
        provider.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        assert_eq!(client.answer().status(), 204);
    }
}

#[test]
fn a_head_that_stays_incomplete_gets_408() {
    let alpha = Provider::by_hand();
    let gateway =
        Gateway::before_with(&alpha, Extra { listener: "limits: { header_timeout: 150ms }", ..Extra::default() });
    is_refused(&gateway, &alpha, b"GET / HTTP/1.1\r\nHost: a\r\n", 408, "head_timeout");
    is_refused(&gateway, &alpha, b"G", 408, "head_timeout");
    // The deadline is for the whole head, however often a byte comes.
    let mut client = gateway.connect();
    let mut drip = std::iter::repeat_n("x", 10_000);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    crate::world::wait_until("the answer comes between two bytes", || {
        !client.is_silent() || client.try_send(drip.next().unwrap_or_default()).is_err()
    });
    refusal(&mut client, 408, "head_timeout");
    // Somebody who says nothing at all is not answered.
    gateway.connect().closes();
}

#[test]
fn a_second_head_has_a_deadline_of_its_own_from_its_first_byte() {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let gateway =
        Gateway::before_with(&alpha, Extra { listener: "limits: { header_timeout: 150ms }", ..Extra::default() });
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
    client.send("GET / HT");
    refusal(&mut client, 408, "head_timeout");
}

#[test]
fn a_body_that_is_announced_too_large_gets_413_and_reaches_no_provider() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, Extra { listener: "limits: { body_bytes: 1KiB }", ..Extra::default() });
    let announced = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n";
    is_refused(&gateway, &alpha, announced.as_bytes(), 413, "body_too_large");
    is_refused(&gateway, &alpha, format!("{announced}{}", "x".repeat(1025)).as_bytes(), 413, "body_too_large");
    let waiting = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\nExpect: 100-continue\r\n\r\n";
    is_refused(&gateway, &alpha, waiting.as_bytes(), 413, "body_too_large");
}

#[test]
fn a_chunked_body_that_grows_too_large_gets_413_and_the_provider_sees_no_end_of_it() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, Extra { listener: "limits: { body_bytes: 1KiB }", ..Extra::default() });
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send_chunk(&"x".repeat(1024));
    let mut provider = alpha.accept();
    provider.head();
    assert_eq!(provider.chunk().map(|chunk| chunk.len()), Some(1024));
    client.send_chunk("y");
    client.send("0\r\n\r\n");
    refusal(&mut client, 413, "body_too_large");
    assert_eq!(provider.rest(), b"");
}

#[test]
fn a_body_at_the_limit_passes() {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let gateway = Gateway::before_with(&alpha, Extra { listener: "limits: { body_bytes: 1KiB }", ..Extra::default() });
    let mut client = gateway.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1024\r\n\r\n{}", "x".repeat(1024)));
    assert_eq!(client.answer().status(), 200);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send_chunk(&"x".repeat(1024));
    client.send("0\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
    assert!(alpha.requests().iter().all(|request| request.body.len() == 1024));
}

#[test]
fn a_chunked_body_that_breaks_gets_400_and_the_provider_sees_no_end_of_it() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    for broken in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5 x\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;\0\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\nX\r\n\r\n",
    ] {
        breaks(&gateway, &alpha, broken);
    }
    breaks(&gateway, &alpha, &format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(300)));
    breaks(&gateway, &alpha, &format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(300)));
    breaks(&gateway, &alpha, &format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "a".repeat(9000)));
    breaks(&gateway, &alpha, &format!("5\r\nhello\r\n0\r\n{}\r\n", "X: y\r\n".repeat(65)));
    gateway.wait_for_metric("sluice_attempts_total", &[("provider", "alpha"), ("outcome", "local_refusal")], 26.0);
    let failures = gateway.metric("sluice_attempts_total", &[("provider", "alpha"), ("outcome", "failure")]);
    assert!(failures.abs() < f64::EPSILON, "the provider is not to blame");
}

/// Sends a chunked request whose body is `broken`: the client gets 400, the provider at most the data before the break.
fn breaks(gateway: &Gateway, alpha: &Provider, broken: &str) {
    let mut client = gateway.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{broken}"));
    let answer = refusal(&mut client, 400, "bad_request");
    let own = answer.value("proxy-status").unwrap_or_default();
    assert!(own.contains("alpha client_body "), "{own}");
    let mut provider = alpha.accept();
    provider.head();
    let body = provider.rest();
    assert!(body.is_empty() || body == b"5\r\nhello\r\n", "{broken:?} became {:?}", crate::world::text(&body));
}

#[test]
fn a_request_that_no_route_takes_keeps_its_connection() {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let yaml = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\" } }
pools: { main: { providers: [alpha] } }
routes: [ { name: api, match: { path: \"/api/*\", methods: [GET, POST] }, pool: main } ]
";
    let gateway = Gateway::start(yaml, &[("alpha", alpha.address())]);
    let mut client = gateway.connect();
    client.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
    is_problem(&client.answer(), 404, "no_route");
    client.send("POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    is_problem(&client.answer(), 404, "no_route");
    client.send("PUT /api/a HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer();
    is_problem(&answer, 405, "wrong_method");
    assert_eq!(answer.value("allow"), Some("GET, HEAD, POST"));
    client.send("GET /api/a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "ok");
    // A body of unknown length could only be dropped by reading it for ever.
    client.send("POST /other HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    is_problem(&client.answer(), 404, "no_route");
    client.closes();
    assert_eq!(alpha.requests().len(), 1);
}

#[test]
fn a_refusal_of_head_has_no_body() {
    let alpha = Provider::by_hand();
    let yaml = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\" } }
pools: { main: { providers: [alpha] } }
routes: [ { name: api, match: { path: /api }, pool: main } ]
";
    let gateway = Gateway::start(yaml, &[("alpha", alpha.address())]);
    let mut client = gateway.connect();
    client.send("HEAD /other HTTP/1.1\r\nHost: a\r\n\r\nHEAD /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.answer_to("HEAD").status(), 404);
    assert_eq!(client.answer_to("HEAD").status(), 404);
    client.closes();
}

/// Requests that are refused whatever the route.
const AMBIGUOUS: &[&str] = &[
    // Host
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "GET / HTTP/1.1\r\nHost:  \r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a:x\r\n\r\n",
    "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
    "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://a/ HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    // Length
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    // Lines
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost: a\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\n",
    "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n",
    "GET / HTTP/1.1\rHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2\r\n\r\n",
    "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\nHost: a\r\n\r\n",
    // Fields
    "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\0: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: \x0b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n",
    "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    "GET / HTTP/1.1\r\nHost: a\r\nX\t: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX(Y): 1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 5\r\n\r\nhello",
    // Request line
    "GET /\r\n\r\n",
    "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "GET / http/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "GET / / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    // Target
    "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET ?a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\"a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /<a> HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a?\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a?\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a% HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /../a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a/../../b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /%2e%2e/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a/..%2fb HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a/..;/b HTTP/1.1\r\nHost: a\r\n\r\n",
];
