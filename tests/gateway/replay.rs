//! A body that goes out twice: byte for byte the same, however it came and wherever the first attempt ended. One that is too
//! large to be kept streams, and its client is told why nobody else was asked.

use crate::http2::{Client, Http2Provider};
use crate::retry::two;
use crate::world::{Extra, Gateway, Provider, wait_until};
use std::net::SocketAddr;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";

fn before(alpha: SocketAddr, beta: &Provider, route: &str) -> Gateway {
    two(alpha, beta.address(), Extra { route, ..Extra::default() })
}

/// 200,000 bytes that are nowhere the same.
fn body() -> Vec<u8> {
    (0..50_000_u32).flat_map(u32::to_be_bytes).collect()
}

#[test]
fn a_body_of_known_length_is_sent_again_byte_for_byte() {
    let (alpha, beta, body) = (Provider::answering(BUSY), Provider::answering(OK), body());
    let gateway = before(alpha.address(), &beta, "");
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    client.send(&body);
    assert_eq!(client.answer().text(), "ok");
    assert!(alpha.requests()[0].body == body && beta.requests()[0].body == body);
    assert_eq!(beta.requests()[0].head.value("content-length"), Some("200000"));
    // The client's connection is in step.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "ok");
}

#[test]
fn a_body_in_chunks_is_sent_again_with_its_trailers() {
    let (alpha, beta) = (Provider::answering(BUSY), Provider::answering(OK));
    let gateway = before(alpha.address(), &beta, "");
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n");
    assert_eq!(client.answer().text(), "ok");
    for request in [&alpha.requests()[0], &beta.requests()[0]] {
        assert_eq!(request.text(), "hello world");
        let trailers: Vec<_> =
            request.trailers.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
        assert_eq!(trailers, [("x-sum".to_owned(), "11")]);
    }
}

#[test]
fn a_body_over_http2_is_sent_again_byte_for_byte() {
    let (alpha, beta, body) = (Provider::answering(BUSY), Provider::answering(OK), body());
    let gateway = before(alpha.address(), &beta, "");
    let client = Client::connect(gateway.web());
    assert_eq!(client.ask("PUT", "/", &[], Some(&body)).text(), "ok");
    assert!(alpha.requests()[0].body == body && beta.requests()[0].body == body);
}

#[test]
fn a_body_goes_again_to_a_provider_that_speaks_http2() {
    let (alpha, body) = (Provider::answering(BUSY), body());
    let sum = body.len();
    let beta = Http2Provider::scripted(move |mut asked| async move {
        let told = asked.all().await.expect("a whole request");
        assert_eq!(told.body.len(), sum);
        asked.answer(200, &[], "ok").await;
    });
    let yaml = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\" }, beta: { url: \"h2c://{beta}\" } }
pools: { main: { providers: [ alpha, { name: beta, backup: true } ] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main } ]
";
    let gateway = Gateway::start(yaml, &[("alpha", alpha.address()), ("beta", beta.address())]);
    assert_eq!(Client::connect(gateway.web()).ask("PUT", "/", &[], Some(&body)).text(), "ok");
    assert!(alpha.requests()[0].body == body && beta.requests()[0].body == body);
}

#[test]
fn trailers_over_http2_go_again_to_a_provider_that_speaks_http2() {
    let says = |status| {
        Http2Provider::scripted(move |mut asked| async move {
            asked.all().await.expect("a whole request");
            asked.answer(status, &[], "said").await;
        })
    };
    let (alpha, beta) = (says(503), says(200));
    let yaml = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"h2c://{alpha}\" }, beta: { url: \"h2c://{beta}\" } }
pools: { main: { providers: [ alpha, { name: beta, backup: true } ] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main } ]
";
    let gateway = Gateway::start(yaml, &[("alpha", alpha.address()), ("beta", beta.address())]);
    let client = Client::connect(gateway.web());
    let mut call = client.begin(client.request("PUT", "/", &[]), false);
    call.body.send_data("hello".into(), false).expect("the gateway listens");
    let trailers =
        [("x-sum", "5")].map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
    call.body.send_trailers(trailers.into_iter().collect()).expect("the gateway listens");
    assert_eq!(call.answer().expect("an answer").status, 200);
    for provider in [&alpha, &beta] {
        let told = &provider.requests()[0];
        assert_eq!((&told.body[..], told.trailers.len()), (&b"hello"[..], 1));
        assert_eq!(told.trailers["x-sum"], "5");
    }
}

#[test]
fn a_body_that_was_half_read_when_the_first_attempt_failed_goes_whole_to_the_next() {
    for answers in [true, false] {
        let (alpha, beta) = (Provider::by_hand(), Provider::answering(OK));
        let gateway = before(alpha.address(), &beta, "");
        let mut client = gateway.connect();
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
        let mut first = alpha.accept();
        first.head();
        first.take(5);
        if answers {
            first.send(BUSY);
        }
        first.reset();
        wait_until("the other provider is asked", || beta.connections() == 1);
        client.send("world");
        assert_eq!(client.answer().text(), "ok");
        assert_eq!(beta.requests()[0].text(), "helloworld");
    }
}

#[test]
fn what_comes_of_a_body_while_an_answer_is_withheld_is_not_lost() {
    for _ in 0..10 {
        let (alpha, beta) = (Provider::by_hand(), Provider::answering(OK));
        let gateway = before(alpha.address(), &beta, "retry: { replay_bytes: 5, commit: { within: 10s } }");
        let mut client = gateway.connect();
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
        let mut first = alpha.accept();
        first.head();
        first.take(5);
        first.send("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\n");
        // Takes about as long as the gateway needs to see that head. What comes before that is sent on, and then it is too
        // much to be kept; what comes behind it waits for the next provider.
        gateway.metrics();
        client.send("world");
        first.send("busy");
        let answer = client.answer();
        if answer.text() == "ok" {
            assert_eq!(beta.requests()[0].text(), "helloworld");
        } else {
            let own = answer.value("proxy-status").expect("an attempt has failed");
            assert!(own.contains("not retried: body"), "{own}");
        }
    }
}

#[test]
fn a_body_too_large_to_be_kept_streams_and_the_retry_that_was_not_made_is_told() {
    let (alpha, beta) = (Provider::answering(BUSY), Provider::answering(OK));
    let gateway = before(alpha.address(), &beta, "retry: { replay_bytes: 4 }");
    for (body, passes) in [("4\r\nfour\r\n", true), ("5\r\nhello\r\n", false)] {
        let mut client = gateway.connect();
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(answer.text(), if passes { "ok" } else { "busy" });
        let own = answer.value("proxy-status").expect("an attempt has failed");
        assert_eq!(own.contains("; not retried: body too large to be kept"), !passes, "{own}");
    }
    gateway.wait_for_metric("sluice_retries_skipped_total", &[("route", "all"), ("reason", "body")], 1.0);
    assert_eq!((alpha.requests().len(), beta.requests().len()), (2, 1));
}

#[test]
fn a_large_body_is_not_awaited_before_it_is_sent_on() {
    let (alpha, beta) = (Provider::by_hand(), Provider::answering(OK));
    let gateway = before(alpha.address(), &beta, "");
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\nfirst");
    let mut first = alpha.accept();
    first.head();
    assert_eq!(first.take(5), b"first");
    let rest = vec![b'x'; 4_999_995];
    let sent = rest.clone();
    let sender = std::thread::spawn(move || {
        client.send(sent);
        client
    });
    assert!(first.take(rest.len()) == rest);
    first.send(OK);
    let mut client = sender.join().expect("all of it is taken");
    assert_eq!(client.answer().text(), "ok");
}
