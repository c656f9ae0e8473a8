//! Leaving HTTP: a 101 is seen on both sides before any byte passes, and then bytes pass as they are.

use crate::world::{Extra, Gateway, Provider, Wire, text};
use sluice::clock;
use std::time::Duration;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A tunnel: the client's end and the provider's.
fn tunnel(extra: Extra<'_>) -> (Provider, Gateway, Wire, Wire) {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, extra);
    let mut client = gateway.connect();
    client.send(ASK);
    let mut provider = alpha.accept();
    provider.head();
    provider.send(SWITCH);
    assert_eq!(client.head().status(), 101);
    (alpha, gateway, client, provider)
}

#[test]
fn an_upgrade_is_asked_for_and_agreed_on_both_sides_before_bytes_pass() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send(ASK);
    let mut provider = alpha.accept();
    let asked = provider.head();
    assert_eq!((asked.value("connection"), asked.value("upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(asked.value("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    // Bytes that come too early are held until the provider has agreed.
    client.send("early");
    provider.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    assert_eq!(client.head().status(), 103);
    assert!(provider.is_silent(), "nothing passes before the 101");
    provider.send(format!("{SWITCH}first"));
    let agreed = client.head();
    assert_eq!((agreed.status(), agreed.value("upgrade")), (101, Some("websocket")));
    assert_eq!((agreed.value("connection"), agreed.value("via")), (Some("upgrade"), Some("1.1 sluice")));
    assert_eq!(agreed.value("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!((agreed.value("content-length"), agreed.value("transfer-encoding")), (None, None));
    client.expect("first");
    provider.expect("early");
    for number in 0..10 {
        client.send(format!("\x01{number}"));
        provider.expect(format!("\x01{number}"));
        provider.send(format!("\0\r\n\r\n{number}"));
        client.expect(format!("\0\r\n\r\n{number}"));
    }
    drop(client);
    provider.closes();
    drop(provider);
    let line = &gateway.wait_for_access_log(1)[0];
    assert_eq!(line["status"], 101);
}

#[test]
fn either_side_of_a_tunnel_may_end_its_direction_first() {
    let (_alpha, _gateway, mut client, mut provider) = tunnel(Extra::default());
    client.send("bye");
    client.half_close();
    provider.expect("bye");
    provider.closes();
    provider.send("still here");
    client.expect("still here");
    drop(provider);
    client.closes();

    let (_alpha, gateway, mut client, provider) = tunnel(Extra::default());
    drop(provider);
    client.closes();
    drop(client);
    gateway.wait_for_metric("sluice_in_flight", &[("provider", "alpha")], 0.0);
}

#[test]
fn a_tunnel_that_breaks_takes_the_other_side_with_it() {
    let (_alpha, gateway, client, mut provider) = tunnel(Extra::default());
    client.reset();
    provider.end();
    gateway.wait_for_metric("sluice_requests_in_flight", &[], 0.0);
    let (_alpha, gateway, mut client, provider) = tunnel(Extra::default());
    provider.reset();
    client.end();
    gateway.wait_for_metric("sluice_requests_in_flight", &[], 0.0);
}

#[test]
fn a_tunnel_outlives_the_routes_timeout_and_ends_when_it_is_idle() {
    let extra = Extra { provider: "timeouts: { idle: 300ms }", route: "timeout: 100ms", ..Extra::default() };
    let (_alpha, gateway, mut client, mut provider) = tunnel(extra);
    let until = clock::now() + Duration::from_millis(200);
    while clock::now() < until {
        client.send("a");
        provider.expect("a");
    }
    client.end();
    provider.end();
    gateway.wait_for_metric("sluice_in_flight", &[("provider", "alpha")], 0.0);
}

#[test]
fn a_provider_may_decline_an_upgrade() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send(ASK);
    let mut provider = alpha.accept();
    provider.head();
    provider.send("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str(), answer.value("upgrade")), (426, "no", None));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(provider.request().is_some(), "both connections are in step");
}

#[test]
fn a_101_that_nobody_asked_for_is_a_broken_answer() {
    let plain = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (request, answer) in [
        (plain, SWITCH),
        // An Upgrade that Connection does not name is no offer.
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", SWITCH),
        ("GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", SWITCH),
        (ASK, "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        (ASK, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nContent-Length: 9\r\n\r\n"),
        (ASK, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ] {
        let alpha = Provider::by_hand();
        let gateway = Gateway::before_with(&alpha, Extra::ONCE);
        let mut client = gateway.connect();
        client.send(request);
        let mut provider = alpha.accept();
        provider.head();
        provider.send(format!("{answer}tunnelled"));
        let refused = client.answer();
        assert_eq!(refused.status(), 502, "{request}");
        assert_eq!(refused.json()["reason"], "attempts_exhausted");
        assert!(!refused.text().contains("tunnelled"));
        assert_eq!(text(&provider.rest()), "");
    }
}

#[test]
fn http_2_is_not_reached_by_an_upgrade() {
    // Requests inside of it would pass every check of ours unseen.
    for offer in ["h2c", "websocket, H2C", "h2c/1"] {
        let alpha = Provider::by_hand();
        let gateway = Gateway::before_with(&alpha, Extra::ONCE);
        let mut client = gateway.connect();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {offer}\r\n\
             HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
        ));
        let mut provider = alpha.accept();
        let asked = provider.head();
        assert_eq!((asked.value("upgrade"), asked.value("connection")), (None, None), "{offer}");
        provider.send(SWITCH.replace("websocket", "h2c"));
        assert_eq!(client.answer().status(), 502);
    }
}

#[test]
fn a_101_before_the_end_of_the_request_is_a_broken_answer() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 10\r\n\r\nhello",
    );
    let mut provider = alpha.accept();
    provider.head();
    provider.expect("hello");
    provider.send(SWITCH);
    assert_eq!(client.answer().status(), 502);
    assert_eq!(text(&provider.rest()), "");
}
