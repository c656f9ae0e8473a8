//! What a listener bounds: connections, quiet ones, slow bodies.

use crate::world::{Extra, Gateway, Provider, pause};
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_quiet_connection_is_closed_after_the_idle_time_without_a_word() {
    let alpha = Provider::answering(OK);
    for idle in ["100ms", "1200ms"] {
        let limits = format!("limits: {{ idle_timeout: {idle} }}");
        let gateway = Gateway::before_with(&alpha, Extra { listener: &limits, ..Extra::default() });
        let mut client = gateway.connect();
        client.send(GET);
        assert_eq!(client.answer().text(), "ok");
        client.closes();
    }
}

#[test]
fn a_connection_that_was_quiet_for_a_while_is_as_good_as_a_new_one() {
    let alpha = Provider::answering(OK);
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send(GET);
    assert_eq!(client.answer().text(), "ok");
    // Long enough for the gateway to let go of everything but the socket.
    pause(Duration::from_millis(1300));
    for cut in [1, GET.len() - 1] {
        client.send(&GET[..cut]);
        client.send(&GET[cut..]);
        assert_eq!(client.answer().text(), "ok");
    }
    assert_eq!(alpha.connections(), 1);
}

#[test]
fn connections_beyond_the_limit_wait_until_another_ends() {
    let alpha = Provider::answering(OK);
    let gateway = Gateway::before_with(&alpha, Extra { listener: "limits: { connections: 1 }", ..Extra::default() });
    let mut first = gateway.connect();
    first.send(GET);
    assert_eq!(first.answer().text(), "ok");
    let mut second = gateway.connect();
    second.send(GET);
    first.send(GET);
    assert_eq!(first.answer().text(), "ok");
    assert!(second.is_silent());
    assert_eq!(alpha.requests().len(), 2);
    drop(first);
    assert_eq!(second.answer().text(), "ok");
}

#[test]
fn the_providers_of_a_pool_take_turns() {
    let (alpha, beta) = (Provider::answering(OK), Provider::answering(OK));
    let yaml = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\" }, beta: { url: \"http://{beta}\" } }
pools: { main: { providers: [alpha, beta] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main } ]
";
    let gateway = Gateway::start(yaml, &[("alpha", alpha.address()), ("beta", beta.address())]);
    let mut client = gateway.connect();
    for _ in 0..10 {
        client.send(GET);
        assert_eq!(client.answer().text(), "ok");
    }
    assert_eq!((alpha.requests().len(), beta.requests().len()), (5, 5));
}

#[test]
fn a_body_that_comes_too_slowly_gets_408_and_is_nobodys_failure() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello");
    let mut provider = alpha.accept();
    provider.head();
    provider.expect("hello");
    let answer = client.answer();
    assert_eq!((answer.status(), &answer.json()["reason"]), (408, &"body_timeout".into()));
    assert_eq!(answer.value("connection"), Some("close"));
    client.closes();
    provider.closes();
    gateway.wait_for_metric("sluice_attempts_total", &[("provider", "alpha"), ("outcome", "local_refusal")], 1.0);
}

#[test]
fn many_clients_at_once_each_get_their_own_answer() {
    let alpha = Provider::scripted(|peer| {
        while let Some(request) = peer.request() {
            let (name, body) = (request.head.line.replace(' ', "_"), request.body);
            peer.wire.send(format!("HTTP/1.1 200 OK\r\nX-Line: {name}\r\n"));
            if body.len() % 2 == 0 {
                peer.wire.send(format!("Content-Length: {}\r\n\r\n", body.len()));
                peer.wire.send(&body);
            } else {
                peer.wire.send("Transfer-Encoding: chunked\r\n\r\n");
                for piece in body.chunks(1000) {
                    peer.wire.send(format!("{:x}\r\n", piece.len()));
                    peer.wire.send(piece);
                    peer.wire.send("\r\n");
                }
                peer.wire.send("0\r\n\r\n");
            }
        }
    });
    let yaml = format!("{}{}", crate::world::PREAMBLE.replace("workers: 1", "workers: 3"), crate::world::BEFORE);
    let gateway = Gateway::start(&yaml, &[("alpha", alpha.address())]);
    std::thread::scope(|scope| {
        for client in 0..8_usize {
            let mut wire = gateway.connect();
            scope.spawn(move || {
                for number in 0..40_usize {
                    let body = format!("{client}-{number};").repeat((client * 977 + number * 331) % 5000);
                    let head = format!("POST /{client}/{number} HTTP/1.1\r\nHost: a\r\n");
                    if number % 2 == 0 {
                        wire.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
                    } else {
                        wire.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
                        body.as_bytes().chunks(777).for_each(|piece| {
                            wire.send_chunk(&String::from_utf8_lossy(piece));
                        });
                        wire.send("0\r\n\r\n");
                    }
                    let answer = wire.answer();
                    assert_eq!(answer.value("x-line"), Some(format!("POST_/{client}/{number}_HTTP/1.1").as_str()));
                    assert!(answer.text() == body, "{client}/{number} got another body");
                }
            });
        }
    });
    gateway.wait_for_metric("sluice_attempts_total", &[("outcome", "success")], 320.0);
    assert!(alpha.connections() <= 8, "{} connections for 8 clients", alpha.connections());
}
