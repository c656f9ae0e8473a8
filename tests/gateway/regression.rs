//! Defects that hostile traffic found, one test each: what was done to the gateway, and what it must do instead.

use crate::world::{Extra, Gateway, Provider, Wire, text};
use sluice::clock;
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Each field of a head was compared with each option, so 64 KiB could cost as much as a hundred thousand requests.
#[test]
fn connection_cannot_name_so_many_fields_that_comparing_them_is_work() {
    let options = |count: usize| vec!["x"; count].join(",");
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, Extra::ONCE);
    for refused in [options(33), ",".repeat(30_000), format!("{}\r\nConnection: {}", options(20), options(20))] {
        let mut client = gateway.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {refused}\r\n\r\n"));
        assert_eq!(client.answer().status(), 400);
        client.closes();
    }
    assert!(alpha.is_lonely());
    let mut client = gateway.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", options(32)));
    let mut provider = alpha.accept();
    provider.request();
    provider.send(format!("HTTP/1.1 200 OK\r\nConnection: {}\r\ncontent-length: 2\r\n\r\nok", options(33)));
    assert_eq!(client.answer().status(), 502);
}

/// Any 1xx passed for the awaited 100, and the client's next request for the body it never sent.
#[test]
fn an_early_hint_does_not_tell_a_client_to_send_its_body() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 30\r\n\r\n");
    let mut provider = alpha.accept();
    provider.head();
    provider.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.value("connection")), (403, Some("close")));
    client.closes();
}

/// With `min_body_rate: 0` the idle time was counted from the first byte of the body, so no upload could outlast it.
#[test]
fn an_upload_without_a_minimum_rate_may_last_as_long_as_it_moves() {
    let alpha = Provider::by_hand();
    let limits = "limits: { min_body_rate: 0, idle_timeout: 400ms }";
    let gateway = Gateway::before_with(&alpha, Extra { listener: limits, ..Extra::default() });
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut provider = alpha.accept();
    provider.head();
    let until = clock::now() + Duration::from_millis(900);
    while clock::now() < until {
        client.send_chunk("x");
        assert_eq!(provider.chunk().as_deref(), Some(&b"x"[..]));
    }
    // Silence is still ended.
    assert_eq!(client.answer().status(), 408);
}

/// A 101 opened a tunnel whatever it switched to, so one that says `h2c` to an offer of `websocket` hid requests in it.
#[test]
fn a_101_to_a_protocol_that_was_not_offered_is_a_broken_answer() {
    for (upgrade, status) in [("h2c", 502), ("websocket, h2c", 502), ("", 502), ("WebSocket", 101)] {
        let alpha = Provider::by_hand();
        let gateway = Gateway::before_with(&alpha, Extra::ONCE);
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        let mut provider = alpha.accept();
        provider.head();
        provider.send(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {upgrade}\r\n\r\n"));
        assert_eq!(client.head().status(), status, "{upgrade:?}");
    }
}

/// Rules for fields knew nothing of trailers, which many servers read as fields.
#[test]
fn what_is_set_or_removed_in_a_head_does_not_come_in_as_a_trailer() {
    let extra = Extra {
        provider: "headers: { set: { x-tenant: ours }, remove: [x-debug] }",
        route: "rewrite: { headers: { set: { x-edge: ours }, remove: [x-role] }, response_headers: { remove: [x-inner] } }",
        ..Extra::default()
    };
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, extra);
    let mut client = gateway.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: x-hop\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Tenant: forged\r\n\
         x-debug: 1\r\nX-EDGE: forged\r\nx-role: admin\r\nX-Hop: 1\r\nX-Sum: 1\r\n\r\n",
    );
    let mut provider = alpha.accept();
    let request = provider.request().expect("a request");
    assert_eq!(request.trailers, [("X-Sum".to_owned(), "1".to_owned())]);
    provider.send(
        "HTTP/1.1 200 OK\r\nConnection: x-hop\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Inner: 1\r\nx-hop: 1\r\nX-Sum: 2\r\n\r\n",
    );
    assert_eq!(client.answer().trailers, [("X-Sum".to_owned(), "2".to_owned())]);
}

/// `X_Tenant` went past a rule for `x-tenant`, and a CGI-style provider read both as one.
#[test]
fn a_rule_for_a_field_holds_for_every_spelling_that_cgi_reads_as_that_field() {
    let extra = Extra {
        provider: "headers: { set: { x-tenant: ours }, remove: [x-debug] }",
        route: "rewrite: { headers: { set: { x_edge: ours }, remove: [x-role] } }",
        ..Extra::default()
    };
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, extra);
    let mut client = gateway.connect();
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nX_Tenant: forged\r\nX.Tenant: forged\r\nx_debug: 1\r\nX-Edge: forged\r\n\
         x!role: admin\r\nX.Forwarded.For: 6.6.6.6\r\nX-Forwarded~Proto: https\r\nTransfer.Encoding: chunked\r\n\
         X_Ten_ant: kept\r\n\r\n",
    );
    let head = alpha.accept().head();
    assert_eq!((head.value("x-tenant"), head.value("x_edge")), (Some("ours"), Some("ours")));
    let odd: Vec<_> = head.names().into_iter().filter(|name| name.contains(['_', '.', '!', '~'])).collect();
    assert_eq!(odd, ["X_Ten_ant", "x_edge"]);
}

/// `/..;/` was refused and `/..%3B/` was not; a server that decodes before it cuts parameters off climbs by either.
#[test]
fn a_dot_segment_with_an_encoded_parameter_is_refused() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    for path in ["/a/..%3b/admin", "/a/..%3Bx=y/admin", "/a%2f..%3b/admin", "/a/%2e%2e%3b/admin"] {
        let mut client = gateway.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.answer().status(), 400, "{path}");
    }
    assert!(alpha.is_lonely());
}

/// A body sent behind the answer to HEAD became the answer to whatever request came next, of whichever client.
#[test]
fn a_body_that_follows_the_answer_to_head_answers_nobody() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send(format!("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n{GET}"));
    let mut first = alpha.accept();
    first.request();
    first.send("HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\n");
    assert_eq!(client.answer_to("HEAD").status(), 200);
    let mut second = alpha.accept();
    assert!(second.request().is_some(), "the next request has a connection of its own");
    first.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
    second.send(OK);
    assert_eq!(client.answer().text(), "ok");
    first.end();
}

#[test]
fn a_connection_that_stayed_silent_after_an_answer_to_head_is_used_again() {
    // Only the first connection may be kept, so that none hides it.
    let alpha = Provider::scripted(|peer| {
        while let Some(request) = peer.request() {
            let number = peer.wire.number;
            let body = if request.head.line.starts_with("HEAD") { String::new() } else { number.to_string() };
            let then = if number == 0 { "keep-alive" } else { "close" };
            let length = number.to_string().len();
            peer.wire.send(format!("HTTP/1.1 200 OK\r\nconnection: {then}\r\ncontent-length: {length}\r\n\r\n{body}"));
        }
    });
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to("HEAD").status(), 200);
    crate::world::wait_until("the first connection is used again", || {
        client.send(GET);
        client.answer().text() == "0"
    });
}

/// Rules for answers held for the final one only, so a 103 could show what they keep inside.
#[test]
fn what_is_removed_from_answers_is_removed_from_interim_ones() {
    let route = "rewrite: { response_headers: { set: { x-frame: deny }, remove: [x-inner] } }";
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, Extra { route, ..Extra::default() });
    let mut client = gateway.connect();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.head();
    provider.send("HTTP/1.1 103 Early Hints\r\nX-Inner: 1\r\nX-Frame: allow\r\nLink: x\r\n\r\n");
    client.expect("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    provider.send(OK);
    assert_eq!(client.answer().value("x-frame"), Some("deny"));
}

/// The last address was taken, which is another proxy's where there are several, and one with a port was not understood.
#[test]
fn the_client_in_the_log_is_the_nearest_address_that_is_no_trusted_proxy() {
    let alpha = Provider::answering(OK);
    let listener = "trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]";
    let gateway = Gateway::before_with(&alpha, Extra { listener, ..Extra::default() });
    let cases = [
        ("6.6.6.6, 192.0.2.1, 10.0.0.1", "192.0.2.1"),
        ("6.6.6.6\r\nX-Forwarded-For: 192.0.2.2", "192.0.2.2"),
        ("192.0.2.3:4711", "192.0.2.3"),
        ("[2001:db8::1]:80, 10.0.0.2", "2001:db8::1"),
        ("[2001:db8::2]", "2001:db8::2"),
        ("10.0.0.3, 10.0.0.4", "10.0.0.3"),
        ("192.0.2.4, unknown, 10.0.0.5", "10.0.0.5"),
        ("192.0.2.5, unknown", "127.0.0.1"),
    ];
    let mut client = gateway.connect();
    for (claimed, _) in cases {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {claimed}\r\n\r\n"));
        assert_eq!(client.answer().status(), 200);
    }
    let log = gateway.wait_for_access_log(cases.len());
    for ((claimed, address), line) in cases.iter().zip(log) {
        assert_eq!(line["client_address"], *address, "{claimed}");
    }
}

/// The client was told why its request is refused, and the log was not.
#[test]
fn the_log_says_what_is_wrong_with_a_refused_request() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send("GET /\"a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status(), 400);
    let line = &gateway.wait_for_access_log(1)[0];
    assert_eq!(line["error"], "the path holds a byte that must be percent-encoded");
}

/// Only their number was bounded, so 4 MiB of them could wait for a client that does not read.
#[test]
fn interim_answers_are_bounded_together() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, Extra::ONCE);
    for (count, status) in [(1, 200), (3, 502)] {
        let mut client = gateway.connect();
        client.send(GET);
        let mut provider = alpha.accept();
        provider.head();
        let interim = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(30_000));
        provider.send(interim.repeat(count));
        provider.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        assert_eq!(client.answer().status(), status, "{count}");
    }
}
