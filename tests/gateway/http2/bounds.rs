//! Limits and deadlines: what a stream that goes too far is told, and that its connection goes on.

use super::ends::{Client, Http2Provider, send_all, wait};
use super::{before, before_http2};
use crate::world::{Extra, Provider, refusing, wait_until};
use bytes::Bytes;
use h2::Reason;
use std::future::poll_fn;

/// A provider that never answers.
fn mute() -> Http2Provider {
    Http2Provider::scripted(|mut asked| async move {
        match asked.head.uri.path() {
            "/quick" => asked.answer(200, &[], "quick").await,
            "/half" => {
                let mut body = asked.begin(200, &[], false);
                send_all(&mut body, Bytes::from_static(b"half")).await;
                if let Ok(reason) = poll_fn(|cx| body.poll_reset(cx)).await {
                    asked.note(reason);
                }
            }
            "/full" => {
                let mut body = asked.begin(200, &[], false);
                while send_all(&mut body, Bytes::from_static(&[b'x'; 16_384])).await {}
                if let Ok(reason) = poll_fn(|cx| body.poll_reset(cx)).await {
                    asked.note(reason);
                }
            }
            _ => asked.given_up().await,
        }
    })
}

#[test]
fn a_head_that_is_too_large_or_has_too_many_fields_is_refused() {
    let alpha = mute();
    let limits = "limits: { header_bytes: 4KiB, headers: 20 }";
    let gateway = before_http2(alpha.address(), Extra { listener: limits, ..Extra::default() });
    let client = Client::connect(gateway.web());
    let large = "x".repeat(5000);
    client.ask("GET", "/quick", &[("x-large", &large)], None).is_problem(431, "head_too_large");
    let names: Vec<String> = (0..30).map(|number| format!("x-{number}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    client.ask("GET", "/quick", &many, None).is_problem(431, "head_too_large");
    client.ask("POST", "/quick", &many, Some(b"body")).is_problem(431, "head_too_large");
    assert_eq!(client.get("/quick").text(), "quick", "the connection goes on");
    assert_eq!(alpha.begun(), 1);
    let lines = gateway.wait_for_access_log(4);
    assert!(lines[..3].iter().all(|line| line["status"] == 431 && line["reason"] == "head_too_large"), "{lines:?}");
}

#[test]
fn a_head_far_beyond_the_limit_is_refused_as_well() {
    let alpha = mute();
    let limits = "limits: { header_bytes: 4KiB }";
    let gateway = before_http2(alpha.address(), Extra { listener: limits, ..Extra::default() });
    let client = Client::connect(gateway.web());
    let large = "x".repeat(30_000);
    let answer = client.ask("GET", "/quick", &[("x-large", &large)], None);
    assert_eq!(answer.status, 431, "{answer:?}");
    assert_eq!(client.get("/quick").text(), "quick", "the connection goes on");
}

#[test]
fn a_body_that_is_too_large_is_refused_whether_it_says_so_or_not() {
    let h2 = Http2Provider::scripted(|mut asked| async move {
        // It is given up before the end.
        asked.all().await.expect_err("the body is not whole");
        asked.note(Reason::CANCEL);
    });
    let h1 = Provider::scripted(|peer| {
        // It takes what comes, and waits for more.
        while peer.wire.begins() {
            peer.wire.take(1);
        }
    });
    let limits = Extra { listener: "limits: { body_bytes: 100KiB }", ..Extra::default() };
    for gateway in [before_http2(h2.address(), limits), before("http", h1.address(), limits)] {
        let client = Client::connect(gateway.web());
        let body = vec![b'x'; 200 << 10];
        let length = body.len().to_string();
        // A client that sends it all the same may do so, as far as that is worth while.
        let mut call = client.begin(client.request("POST", "/a", &[("content-length", &length)]), false);
        assert!(wait("the body is taken", send_all(&mut call.body, Bytes::from(body.clone()))));
        call.body.send_data(Bytes::new(), true).expect("the stream is not given up");
        call.answer().expect("an answer").is_problem(413, "body_too_large");
        client.ask("POST", "/a", &[], Some(&body)).is_problem(413, "body_too_large");
        // What is far larger than that is neither read to its end nor does it cost the others.
        let huge = vec![b'x'; 4 << 20];
        client.ask("POST", "/a", &[], Some(&huge)).is_problem(413, "body_too_large");
        gateway.wait_for_metric("sluice_requests_total", &[("status_class", "4xx")], 3.0);
    }
    wait_until("the provider sees both given up", || h2.resets().len() == 2);
}

#[test]
fn refusals_are_problems_and_leave_the_connection_open() {
    let yaml = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { gone: { url: \"h2c://{gone}\" }, mute: { url: \"h2c://{mute}\", timeouts: { first_byte: 300ms } } }
pools: { gone: { providers: [gone] }, mute: { providers: [mute] } }
routes:
  - { name: gone, match: { path: /gone }, pool: gone }
  - { name: mute, match: { path: /mute }, pool: mute }
  - { name: late, match: { path: /late }, pool: mute, timeout: 100ms }
  - { name: get, match: { path: /get, methods: [GET] }, respond: { status: 200, body: fine } }
";
    let (_socket, gone) = refusing();
    let mute = mute();
    let gateway = crate::world::Gateway::start(yaml, &[("gone", gone), ("mute", mute.address())]);
    let client = Client::connect(gateway.web());
    client.get("/none").is_problem(404, "no_route");
    let wrong = client.ask("POST", "/get", &[], Some(b"body"));
    wrong.is_problem(405, "wrong_method");
    assert_eq!(wrong.value("allow"), Some("GET, HEAD"));
    client.get("/gone").is_problem(502, "attempts_exhausted");
    client.get("/mute").is_problem(504, "attempts_exhausted");
    client.get("/late").is_problem(504, "deadline");
    wait_until("both were given up at the provider", || mute.resets() == [Reason::CANCEL; 2]);
    let to_head = client.ask("HEAD", "/none", &[], None);
    assert_eq!((to_head.status, to_head.body.len()), (404, 0));
    let here = client.get("/get");
    assert_eq!((here.status, here.text().as_str(), here.value("content-length")), (200, "fine", Some("4")));
    assert!((gateway.metric("sluice_connections", &[("protocol", "http2")]) - 1.0).abs() < 0.1);
}

#[test]
fn a_request_body_that_stops_is_given_up() {
    let alpha = mute();
    let limits = Extra { listener: "limits: { idle_timeout: 400ms }", ..Extra::default() };
    let gateway = before_http2(alpha.address(), limits);
    let client = Client::connect(gateway.web());
    let mut call = client.begin(client.request("POST", "/a", &[("content-length", "100")]), false);
    call.body.send_data(Bytes::from_static(b"half"), false).expect("a stream");
    call.answer().expect("an answer").is_problem(408, "body_timeout");
    wait_until("the provider sees it given up", || alpha.resets() == [Reason::CANCEL]);
    let line = &gateway.wait_for_access_log(1)[0];
    assert_eq!(line["attempts"][0]["outcome"], "local_refusal", "{line}");
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let alpha = mute();
    let limits = Extra { listener: "limits: { idle_timeout: 400ms }", ..Extra::default() };
    let gateway = before_http2(alpha.address(), limits);
    let client = Client::connect_with(gateway.web(), |settings| {
        settings.initial_window_size(1000);
    });
    let mut call = client.begin(client.request("GET", "/full", &[]), true);
    let mut body = call.head().expect("it begins").into_body();
    // Another stream that goes on does not count for this one.
    wait_until("the provider sees it given up", || {
        assert_eq!(client.get("/quick").text(), "quick");
        alpha.resets() == [Reason::CANCEL]
    });
    let error = wait("the break", super::ends::drain(&mut body)).expect_err("it is not whole");
    assert!(error.is_remote() && error.is_reset(), "{error}");
    gateway.wait_for_metric("sluice_requests_total", &[("status_class", "gone")], 1.0);
}

#[test]
fn a_small_answer_that_its_client_does_not_take_is_given_up() {
    let alpha = mute();
    let limits = Extra { listener: "limits: { idle_timeout: 400ms }", ..Extra::default() };
    let gateway = before_http2(alpha.address(), limits);
    let client = Client::connect_with(gateway.web(), |settings| {
        settings.initial_window_size(0);
    });
    let mut call = client.begin(client.request("GET", "/quick", &[]), true);
    let mut taken = call.head().expect("it begins").into_body();
    let mut refused = client.begin(client.request("TRACE", "/quick", &[]), true);
    let mut problem = refused.head().expect("it begins").into_body();
    for body in [&mut taken, &mut problem] {
        let error = wait("the break", super::ends::drain(body)).expect_err("it is not whole");
        assert!(error.is_remote() && error.is_reset(), "{error}");
    }
}

#[test]
fn an_answer_that_stops_is_reset() {
    let alpha = mute();
    let idle = Extra { provider: "timeouts: { idle: 300ms }", ..Extra::default() };
    let gateway = before_http2(alpha.address(), idle);
    let client = Client::connect(gateway.web());
    let error = client.begin(client.request("GET", "/half", &[]), true).broken();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{error}");
    wait_until("the provider sees it given up", || alpha.resets() == [Reason::CANCEL]);
    let line = &gateway.wait_for_access_log(1)[0];
    assert_eq!((&line["status"], &line["attempts"][0]["outcome"]), (&200.into(), &"failure".into()), "{line}");
}

#[test]
fn an_early_answer_reaches_a_client_that_goes_on_sending() {
    let alpha = Http2Provider::scripted(|mut asked| async move {
        asked.answer(429, &[("retry-after", "1")], "enough").await;
    });
    let h1 = Provider::scripted(|peer| {
        if peer.wire.begins() {
            peer.wire.head();
            // It closes: a body that was all taken by then would leave a connection for the next request, and nobody there.
            peer.wire.send("HTTP/1.1 429 Too Many Requests\r\ncontent-length: 6\r\nconnection: close\r\n\r\nenough");
            peer.wire.rest();
        }
    });
    for gateway in [before_http2(alpha.address(), Extra::default()), before("http", h1.address(), Extra::default())] {
        let client = Client::connect(gateway.web());
        let answer = client.ask("POST", "/a", &[], Some(&vec![b'x'; 1 << 20]));
        assert_eq!((answer.status, answer.text().as_str()), (429, "enough"));
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 1 << 20));
        // It may be told before it has sent it all.
        let _: std::io::Result<()> = client.try_send(vec![b'x'; 1 << 20]);
        let answer = client.answer();
        assert_eq!((answer.status(), answer.text().as_str()), (429, "enough"));
    }
}

#[test]
fn a_body_that_comes_too_slowly_is_refused_unless_it_is_that_of_a_call_of_grpc() {
    let alpha = Http2Provider::scripted(|mut asked| async move {
        if asked.all().await.is_ok() {
            asked.answer(200, &[], "in time").await;
        }
    });
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let mut grpc = client.begin(client.request("POST", "/call", &[("content-type", "application/grpc")]), false);
    grpc.body.send_data(Bytes::from_static(b"some"), false).expect("a stream");
    let mut slow = client.begin(client.request("POST", "/slow", &[]), false);
    slow.body.send_data(Bytes::from_static(b"some"), false).expect("a stream");
    // That takes the ten seconds in which a body is not judged yet.
    slow.answer().expect("an answer").is_problem(408, "body_timeout");
    // The call is older than that; where it was refused as well, this is not taken any more.
    grpc.body.send_data(Bytes::from_static(b"more"), true).expect("a stream");
    assert_eq!(grpc.answer().expect("an answer").text(), "in time");
}
