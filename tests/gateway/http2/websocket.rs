//! WebSocket over HTTP/2 (RFC 8441): on the client's side, on the provider's, or on both.

use super::ends::{Call, Client, Http2Provider, drain, wait};
use super::{before, before_http2};
use crate::world::{Extra, Provider, Wire, text, wait_until};
use bytes::Bytes;
use h2::ext::Protocol;
use h2::{Reason, RecvStream};
use http::Method;
use sluice::http2::heads::websocket_accept;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A provider that opens each WebSocket on `/ws` and sends back what it hears; `bye` ends its direction.
fn echoing() -> Http2Provider {
    Http2Provider::with(
        |settings| {
            settings.enable_connect_protocol();
        },
        |mut asked| async move {
            let switches = asked.head.extensions.get::<Protocol>().is_some_and(|name| name.as_str() == "websocket");
            if !switches || asked.head.method != Method::CONNECT {
                return asked.answer(200, &[], "plain").await;
            }
            if asked.head.uri.path() != "/ws" {
                return asked.answer(403, &[("x-why", "not here")], "no").await;
            }
            let fields = &asked.head.headers;
            assert_eq!(fields["sec-websocket-version"], "13");
            for absent in ["connection", "upgrade", "sec-websocket-key", "host", "content-length"] {
                assert!(!fields.contains_key(absent), "{fields:?}");
            }
            let mut send = asked.begin(200, &[("sec-websocket-protocol", "chat")], false);
            loop {
                let piece = match asked.body.data().await {
                    Some(Ok(piece)) => piece,
                    Some(Err(error)) => return asked.note(error.reason().unwrap_or(Reason::CONNECT_ERROR)),
                    None => break,
                };
                asked.body.flow_control().release_capacity(piece.len()).expect("it was taken");
                let last = &piece[..] == b"bye";
                send.send_data(piece, last).expect("the gateway listens");
                if last {
                    return;
                }
            }
            send.send_data(Bytes::new(), true).expect("the gateway listens");
        },
    )
}

/// Opens one by an extended CONNECT.
fn open(client: &Client, path: &str) -> Call {
    wait_until("our SETTINGS allow it", || client.may_switch());
    let fields = [("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"), ("origin", "http://one.test")];
    let mut request = client.request("CONNECT", path, &fields);
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    client.begin(request, false)
}

/// Asks for one in HTTP/1.
fn ask(client: &mut Wire, path: &str) {
    client.send(format!(
        "GET {path} HTTP/1.1\r\nhost: one.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-protocol: chat\r\nsec-websocket-key: {KEY}\r\n\r\n"
    ));
}

fn hears(body: &mut RecvStream, expected: &str) {
    let mut heard = Vec::new();
    while heard.len() < expected.len() {
        let piece = wait("bytes", body.data()).expect("it goes on").expect("a piece");
        body.flow_control().release_capacity(piece.len()).expect("it was taken");
        heard.extend_from_slice(&piece);
    }
    assert_eq!(text(&heard), expected);
}

/// The other side ended its direction well, with nothing before.
fn ends(body: &mut RecvStream) {
    let (rest, _) = wait("the end", drain(body)).expect("it is whole");
    assert_eq!(text(&rest), "");
}

#[test]
fn a_websocket_over_a_stream_reaches_a_provider_in_http1() {
    let alpha = Provider::by_hand();
    let gateway = before("http", alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let mut call = open(&client, "/ws?a=b");
    let mut provider = alpha.accept();
    let asked = provider.head();
    assert_eq!(asked.line, "GET /ws?a=b HTTP/1.1");
    assert_eq!((asked.value("connection"), asked.value("upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!((asked.value("sec-websocket-version"), asked.value("origin")), (Some("13"), Some("http://one.test")));
    assert_eq!((asked.value("transfer-encoding"), asked.value("content-length")), (None, None));
    let accept = websocket_accept(asked.value("sec-websocket-key").expect("a key of ours").as_bytes());
    provider.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-protocol: chat\r\nsec-websocket-accept: {accept}\r\n\r\nfirst"
    ));
    let answer = call.head().expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["sec-websocket-protocol"]),
        (200, &"chat".parse().expect("a value"))
    );
    for absent in ["connection", "upgrade", "sec-websocket-accept", "content-length", "transfer-encoding"] {
        assert!(!answer.headers().contains_key(absent), "{answer:?}");
    }
    let mut body = answer.into_body();
    hears(&mut body, "first");
    for number in 0..20 {
        call.body.send_data(format!("up {number}").into(), false).expect("a stream");
        provider.expect(format!("up {number}"));
        provider.send(format!("down {number}"));
        hears(&mut body, &format!("down {number}"));
    }
    drop(provider);
    ends(&mut body);
    let line = &gateway.wait_for_access_log(1)[0];
    assert_eq!((&line["status"], &line["protocol"]), (&101.into(), &"HTTP/2.0".into()), "{line}");
}

#[test]
fn a_websocket_that_its_client_gives_up_closes_the_providers_connection() {
    let alpha = Provider::by_hand();
    let gateway = before("http", alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let mut call = open(&client, "/ws");
    let mut provider = alpha.accept();
    let accept = websocket_accept(provider.head().value("sec-websocket-key").expect("a key of ours").as_bytes());
    let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    provider.send(format!("{head}sec-websocket-accept: {accept}\r\n\r\n"));
    call.head().expect("an answer");
    call.cancel();
    provider.end();
    gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], 0.0);
}

#[test]
fn a_101_that_does_not_answer_our_key_is_refused() {
    let alpha = Provider::by_hand();
    let gateway = before("http", alpha.address(), Extra::ONCE);
    let client = Client::connect(gateway.web());
    let call = open(&client, "/ws");
    let mut provider = alpha.accept();
    provider.head();
    let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    provider.send(format!("{head}sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
    call.answer().expect("an answer").is_problem(502, "attempts_exhausted");
    provider.end();
}

#[test]
fn a_websocket_in_http1_reaches_a_provider_over_a_stream() {
    let alpha = echoing();
    let gateway = before_http2(alpha.address(), Extra::default());
    let mut client = gateway.connect();
    ask(&mut client, "/ws");
    let agreed = client.head();
    assert_eq!((agreed.status(), agreed.value("upgrade")), (101, Some("websocket")));
    assert_eq!((agreed.value("connection"), agreed.value("sec-websocket-protocol")), (Some("upgrade"), Some("chat")));
    assert_eq!(agreed.value("sec-websocket-accept"), Some(websocket_accept(KEY.as_bytes()).as_str()));
    for number in 0..20 {
        client.send(format!("piece {number}"));
        client.expect(format!("piece {number}"));
    }
    client.send("bye");
    client.expect("bye");
    client.closes();
    // The same connection takes others.
    assert_eq!(Client::connect(gateway.web()).get("/a").text(), "plain");
    assert_eq!(alpha.connections(), 1);
}

#[test]
fn a_websocket_passes_where_both_sides_speak_http2() {
    let alpha = echoing();
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let mut call = open(&client, "/ws");
    let answer = call.head().expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["sec-websocket-protocol"]),
        (200, &"chat".parse().expect("a value"))
    );
    let mut body = answer.into_body();
    for number in 0..20 {
        call.body.send_data(format!("piece {number}").into(), false).expect("a stream");
        hears(&mut body, &format!("piece {number}"));
    }
    // The client's end passes, and the provider ends its direction by itself.
    call.body.send_data(Bytes::new(), true).expect("a stream");
    ends(&mut body);
    // Another one is given up.
    let mut call = open(&client, "/ws");
    call.head().expect("an answer");
    call.cancel();
    wait_until("the provider sees it given up", || alpha.resets() == [Reason::CANCEL]);
    gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], 0.0);
}

#[test]
fn a_refusal_of_the_provider_passes() {
    let alpha = echoing();
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let refused = open(&client, "/elsewhere").answer().expect("an answer");
    assert_eq!((refused.status, refused.value("x-why"), refused.text().as_str()), (403, Some("not here"), "no"));
    let mut client = gateway.connect();
    ask(&mut client, "/elsewhere");
    let refused = client.answer();
    assert_eq!((refused.status(), refused.value("x-why"), refused.text().as_str()), (403, Some("not here"), "no"));
    let h1 = Provider::answering("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
    let gateway = before("http", h1.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let refused = open(&client, "/ws").answer().expect("an answer");
    assert_eq!((refused.status, refused.text().as_str()), (403, "no"));
}

#[test]
fn a_provider_that_does_not_offer_it_is_not_asked() {
    let alpha = Http2Provider::answering("plain");
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let refused = open(&client, "/ws").answer().expect("an answer");
    refused.is_problem(502, "attempts_exhausted");
    assert!(refused.value("proxy-status").is_some_and(|told| told.contains("http_upgrade_failed")), "{refused:?}");
    let mut client = gateway.connect();
    ask(&mut client, "/ws");
    let refused = client.answer();
    assert_eq!(refused.status(), 502);
    assert!(refused.value("proxy-status").is_some_and(|told| told.contains("http_upgrade_failed")), "{refused:?}");
    assert_eq!(alpha.begun(), 0);
    assert_eq!(Client::connect(gateway.web()).get("/a").text(), "plain", "its connection is fit for others");
}
