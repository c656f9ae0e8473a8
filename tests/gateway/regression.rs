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
    let gateway = Gateway::before(&alpha);
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
        let gateway = Gateway::before(&alpha);
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        let mut provider = alpha.accept();
        provider.head();
        provider.send(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {upgrade}\r\n\r\n"));
        assert_eq!(client.head().status(), status, "{upgrade:?}");
    }
}
