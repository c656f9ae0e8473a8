//! Streams: every piece goes on when it comes, either way, and a reload or a pause changes nothing under way.
//!
//! Each step here waits for the step before it to have come through, so a piece that was held back would stop the test.

use crate::world::{BEFORE, Gateway, Provider, Wire, text};

/// A stream of chunks between a client and a provider, both by hand.
fn open(alpha: &Provider) -> (Gateway, Wire, Wire) {
    let gateway = Gateway::before(alpha);
    let mut client = gateway.connect();
    client.send("GET /events HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n");
    let mut provider = alpha.accept();
    provider.request().expect("the request comes through");
    provider.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(client.head().value("content-type"), Some("text/event-stream"));
    (gateway, client, provider)
}

#[test]
fn every_event_comes_when_it_is_sent_and_reloads_change_nothing() {
    let alpha = Provider::by_hand();
    let (gateway, mut client, mut provider) = open(&alpha);
    for number in 0..50 {
        let event = format!("data: {number}\n\n");
        provider.send_chunk(&event);
        assert_eq!(client.chunk().map(|chunk| text(&chunk)), Some(text(event.as_bytes())));
        if number % 10 == 0 {
            // Even the route it came by, and its provider, may go.
            gateway.rewrite(&BEFORE.replace("/*", &format!("/elsewhere-{number}")).replace("{alpha}", "127.0.0.1:9"));
            gateway.reload().unwrap_or_else(|rejected| panic!("{}", rejected.rendered));
        }
    }
    provider.send("0\r\n\r\n");
    assert_eq!(client.chunk(), None);
    assert_eq!(client.trailers(), []);
}

#[test]
fn the_smallest_piece_is_not_held_back() {
    let alpha = Provider::by_hand();
    let (_gateway, mut client, mut provider) = open(&alpha);
    for byte in ["a", "b", "c"] {
        provider.send_chunk(byte);
        assert_eq!(client.chunk(), Some(byte.as_bytes().to_vec()));
    }
    // Also where a chunk itself comes in pieces.
    provider.send("3\r\nx");
    assert_eq!(client.chunk(), Some(b"x".to_vec()));
    provider.send("yz\r\n");
    assert_eq!(client.chunk(), Some(b"yz".to_vec()));
}

#[test]
fn an_answer_of_known_length_is_not_held_back_either() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut provider = alpha.accept();
    provider.request().expect("the request comes through");
    provider.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab");
    assert_eq!(client.head().value("content-length"), Some("4"));
    client.expect("ab");
    provider.send("c");
    client.expect("c");
    provider.send("d");
    client.expect("d");
}

#[test]
fn a_request_body_goes_on_piece_by_piece_while_its_answer_comes() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send("POST /duplex HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut provider = alpha.accept();
    assert_eq!(provider.head().value("transfer-encoding"), Some("chunked"));
    provider.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    for number in 0..20 {
        let (question, answer) = (format!("question {number}"), format!("answer {number}"));
        client.send_chunk(&question);
        assert_eq!(provider.chunk(), Some(question.into_bytes()));
        provider.send_chunk(&answer);
        assert_eq!(client.chunk(), Some(answer.into_bytes()));
    }
    client.send("0\r\n\r\n");
    assert_eq!((provider.chunk(), provider.trailers()), (None, Vec::new()));
    provider.send("0\r\n\r\n");
    assert_eq!((client.chunk(), client.trailers()), (None, Vec::new()));
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways_and_outlives_its_route() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send("GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    let mut provider = alpha.accept();
    provider.request().expect("the request comes through");
    provider.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert_eq!(client.head().status(), 101);
    for number in 0_u32..20 {
        client.send(number.to_be_bytes());
        provider.expect(number.to_be_bytes());
        // The provider speaks without being asked, too.
        provider.send([number.to_be_bytes(), (number * 2).to_be_bytes()].concat());
        client.expect(number.to_be_bytes());
        client.expect((number * 2).to_be_bytes());
        if number == 10 {
            gateway.rewrite(&BEFORE.replace("/*", "/elsewhere").replace("{alpha}", "127.0.0.1:9"));
            gateway.reload().unwrap_or_else(|rejected| panic!("{}", rejected.rendered));
        }
    }
    client.half_close();
    provider.closes();
    provider.half_close();
    client.closes();
}

#[test]
fn a_stream_that_breaks_off_ends_visibly() {
    let alpha = Provider::by_hand();
    let (_gateway, mut client, mut provider) = open(&alpha);
    provider.send_chunk("one");
    assert_eq!(client.chunk(), Some(b"one".to_vec()));
    drop(provider);
    // No last chunk: whoever reads it knows that something is missing.
    assert_eq!(text(&client.rest()), "");
}
