//! Streams and connections that break: who leaves is not worked for, what is broken does not look whole, and only what
//! nobody has acted on is sent again.

use super::ends::{Client, Http2Provider, drain, send_all, wait};
use super::{before, before_http2};
use crate::world::{Extra, Gateway, Provider, silent, wait_until};
use bytes::Bytes;
use h2::Reason;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A provider that answers nothing and notes how it is given up; to `/begun` it answers the first half.
fn patient() -> Http2Provider {
    Http2Provider::scripted(|mut asked| async move {
        match asked.head.uri.path() {
            "/quick" => asked.answer(200, &[], "quick").await,
            "/begun" => {
                let mut body = asked.begin(200, &[], false);
                send_all(&mut body, Bytes::from_static(b"half")).await;
                if let Ok(reason) = poll_fn(|cx| body.poll_reset(cx)).await {
                    asked.note(reason);
                }
            }
            _ => asked.given_up().await,
        }
    })
}

#[test]
fn a_stream_that_its_client_gives_up_is_given_up_at_the_provider() {
    let alpha = patient();
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    for (number, path) in ["/never", "/begun"].into_iter().enumerate() {
        for (ends, body) in [(true, &b""[..]), (false, b""), (false, b"some")] {
            let before = alpha.resets().len();
            let mut call = client.begin(client.request("POST", path, &[]), ends);
            if !body.is_empty() {
                assert!(wait("it is taken", send_all(&mut call.body, Bytes::from_static(body))));
            }
            if number == 1 {
                assert_eq!(call.head().expect("it begins").status(), 200);
            } else {
                wait_until("it is at the provider", || alpha.begun() > before);
            }
            call.cancel();
            wait_until("the provider sees it given up", || alpha.resets().len() == before + 1);
        }
    }
    assert_eq!(alpha.resets(), [Reason::CANCEL; 6]);
    assert_eq!(client.get("/quick").text(), "quick", "its neighbours go on");
    assert_eq!((alpha.connections(), alpha.open()), (1, 1), "and so does the connection");
    for line in &gateway.wait_for_access_log(7)[..6] {
        let outcome = &line["attempts"][0]["outcome"];
        assert!(line["status"] == 499 || line["status"] == 200, "{line}");
        assert_eq!(outcome, "client_gone", "{line}");
    }
    gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], 0.0);
}

#[test]
fn a_stream_that_its_client_gives_up_closes_the_connection_to_an_http1_provider() {
    let alpha = Provider::by_hand();
    let gateway = before("http", alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    // Before the answer.
    let call = client.begin(client.request("GET", "/a", &[]), true);
    let mut provider = alpha.accept();
    provider.head();
    call.cancel();
    provider.end();
    // In its middle.
    let mut call = client.begin(client.request("GET", "/a", &[]), true);
    let mut provider = alpha.accept();
    provider.head();
    provider.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    call.head().expect("it begins");
    call.cancel();
    provider.end();
    // In the middle of its own body, of which the provider has taken nothing yet.
    let mut call = client.begin(client.request("POST", "/a", &[("content-length", "100")]), false);
    call.body.send_data(Bytes::from_static(b"half"), false).expect("a stream");
    let mut provider = alpha.accept();
    provider.head();
    provider.expect("half");
    call.cancel();
    provider.end();
    gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], 0.0);
}

#[test]
fn a_request_whose_body_is_broken_off_is_never_whole_at_the_provider() {
    let alpha = patient();
    let h1 = Provider::by_hand();
    let gateway = before("http", h1.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let mut call = client.begin(client.request("POST", "/a", &[]), false);
    call.body.send_data(Bytes::from_static(b"half"), false).expect("a stream");
    let mut provider = h1.accept();
    provider.head();
    provider.expect("4\r\nhalf\r\n");
    call.cancel();
    provider.end();
    // The same from a client in HTTP/1 to a provider in HTTP/2.
    let gateway = before_http2(alpha.address(), Extra::default());
    let mut client = gateway.connect();
    client.send("POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf");
    wait_until("it is at the provider", || alpha.begun() == 1);
    drop(client);
    wait_until("the provider sees it given up", || alpha.resets() == [Reason::CANCEL]);
}

#[test]
fn a_connection_that_is_lost_gives_all_its_streams_up() {
    let alpha = patient();
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let calls: Vec<_> = (0..50).map(|_| client.begin(client.request("GET", "/never", &[]), true)).collect();
    wait_until("all are at the provider", || alpha.begun() == 50);
    client.lose();
    wait_until("the provider sees them given up", || alpha.resets().len() == 50);
    drop(calls);
    gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], 0.0);
    gateway.wait_for_metric("sluice_connections", &[("listener", "web")], 0.0);
    assert_eq!(gateway.wait_for_access_log(50).iter().filter(|line| line["status"] == 499).count(), 50);
    assert_eq!(Client::connect(gateway.web()).get("/quick").text(), "quick");
    assert_eq!(alpha.connections(), 1, "the connection to the provider is nobody's in particular");
}

/// What breaks off in the middle comes to the client as a reset.
fn breaks_off(gateway: &Gateway) {
    let client = Client::connect(gateway.web());
    let mut call = client.begin(client.request("GET", "/breaks", &[]), true);
    let head = call.head().expect("it begins");
    assert_eq!(head.status(), 200);
    let mut body = head.into_body();
    let error = wait("the break", drain(&mut body)).expect_err("it is not whole");
    assert_eq!((error.is_remote(), error.reason()), (true, Some(Reason::INTERNAL_ERROR)), "{error}");
    let mut client = gateway.connect();
    client.send("GET /breaks HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    let rest = client.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", crate::world::text(&rest));
    let lines = gateway.wait_for_access_log(2);
    assert!(lines.iter().all(|line| line["attempts"][0]["outcome"] == "failure"), "{lines:?}");
}

#[test]
fn an_answer_that_breaks_off_is_reset_and_never_ended() {
    for reason in [Reason::NO_ERROR, Reason::CANCEL, Reason::INTERNAL_ERROR] {
        let alpha = Http2Provider::scripted(move |mut asked| async move {
            let mut body = asked.begin(200, &[], false);
            send_all(&mut body, Bytes::from_static(b"half")).await;
            // The library takes back what it has not written yet.
            tokio::time::sleep(Duration::from_millis(100)).await;
            body.send_reset(reason);
        });
        breaks_off(&before_http2(alpha.address(), Extra::default()));
    }
    for head in ["content-length: 100000\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let alpha = Provider::scripted(move |peer| {
            if peer.request().is_some() {
                peer.wire.send(format!("HTTP/1.1 200 OK\r\n{head}"));
            }
        });
        breaks_off(&before("http", alpha.address(), Extra::default()));
    }
}

#[test]
fn an_answer_whose_provider_is_killed_is_reset_and_the_next_is_answered() {
    let alpha = patient();
    let address = alpha.address();
    let gateway = before_http2(address, Extra::default());
    let client = Client::connect(gateway.web());
    let mut call = client.begin(client.request("GET", "/begun", &[]), true);
    let mut body = call.head().expect("it begins").into_body();
    alpha.kill();
    wait("the break", drain(&mut body)).expect_err("it is not whole");
    client.get("/quick").is_problem(502, "attempts_exhausted");
}

/// A provider that gives up what it is asked, by this, but for `/quick`; and how often it was asked.
fn refusing(reason: Reason, times: usize) -> (Http2Provider, Arc<AtomicUsize>) {
    let asked_for = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked_for);
    let alpha = Http2Provider::scripted(move |mut asked| {
        let count = Arc::clone(&count);
        async move {
            if asked.head.uri.path() != "/quick" && count.fetch_add(1, Ordering::SeqCst) < times {
                asked.respond.send_reset(reason);
                return;
            }
            asked.answer(200, &[], "quick").await;
        }
    });
    (alpha, asked_for)
}

#[test]
fn what_a_provider_refused_unprocessed_is_sent_once_more_whatever_it_is() {
    for method in ["GET", "POST", "PATCH"] {
        let (alpha, asked_for) = refusing(Reason::REFUSED_STREAM, 1);
        let gateway = before_http2(alpha.address(), Extra::default());
        let client = Client::connect(gateway.web());
        assert_eq!(client.get("/quick").text(), "quick", "a connection is there");
        assert_eq!(client.ask(method, "/a", &[], None).text(), "quick", "{method}");
        assert_eq!(asked_for.load(Ordering::SeqCst), 2, "{method}");
        let line = &gateway.wait_for_access_log(2)[1];
        assert_eq!(line["attempts"].as_array().map(Vec::len), Some(1), "it is the same attempt: {line}");
        // Only once: who refuses again means it.
        let (alpha, asked_for) = refusing(Reason::REFUSED_STREAM, 9);
        let gateway = before_http2(alpha.address(), Extra::ONCE);
        let client = Client::connect(gateway.web());
        assert_eq!(client.get("/quick").text(), "quick", "a connection is there");
        client.ask(method, "/a", &[], None).is_problem(502, "attempts_exhausted");
        assert_eq!(asked_for.load(Ordering::SeqCst), 2, "{method}");
    }
}

#[test]
fn what_is_refused_on_a_connection_that_was_waited_for_is_sent_once_more_as_well() {
    let (alpha, asked_for) = refusing(Reason::REFUSED_STREAM, 1);
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    assert_eq!(client.ask("POST", "/a", &[], None).text(), "quick");
    assert_eq!(asked_for.load(Ordering::SeqCst), 2);
}

#[test]
fn what_a_provider_gave_up_is_not_sent_again() {
    for reason in [Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::NO_ERROR] {
        for method in ["POST", "GET"] {
            let (alpha, asked_for) = refusing(reason, 1);
            let gateway = before_http2(alpha.address(), Extra::ONCE);
            let client = Client::connect(gateway.web());
            assert_eq!(client.get("/quick").text(), "quick", "a connection is there");
            client.ask(method, "/a", &[], None).is_problem(502, "attempts_exhausted");
            assert_eq!(asked_for.load(Ordering::SeqCst), 1, "{method} {reason:?}: it may have acted on it");
        }
    }
}

#[test]
fn a_body_that_was_sent_is_sent_again_after_a_refusal_as_far_as_it_is_kept() {
    let (alpha, asked_for) = refusing(Reason::REFUSED_STREAM, 1);
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    assert_eq!(client.ask("POST", "/a", &[], Some(&vec![b'x'; 1 << 20])).text(), "quick");
    assert_eq!(asked_for.load(Ordering::SeqCst), 2);

    let (alpha, asked_for) = refusing(Reason::REFUSED_STREAM, 1);
    let gateway = before_http2(alpha.address(), Extra { route: "retry: { replay_bytes: 1KiB }", ..Extra::default() });
    let client = Client::connect(gateway.web());
    assert_eq!(client.get("/quick").text(), "quick", "a connection is there");
    // The provider refuses once it has the head; whether the body was read by then decides, and is not always the same.
    let answer = client.ask("POST", "/a", &[], Some(&vec![b'x'; 1 << 20]));
    let asked = asked_for.load(Ordering::SeqCst);
    assert!((answer.status, asked) == (502, 1) || (answer.status, asked) == (200, 2), "{answer:?} {asked}");
}

#[test]
fn requests_below_a_goaway_are_answered_and_others_go_to_a_new_connection() {
    let alpha = Http2Provider::scripted(|mut asked| async move {
        if asked.head.uri.path() == "/slow" {
            // Longer than the provider takes to say that it leaves.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        asked.all().await.expect("a whole request");
        asked.answer(200, &[], "hello").await;
    });
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let slow: Vec<_> = (0..10).map(|_| client.begin(client.request("POST", "/slow", &[]), true)).collect();
    wait_until("they are at the provider", || alpha.begun() == 10);
    alpha.leave();
    let mut asked = 10;
    while alpha.connections() < 4 {
        assert_eq!(client.ask("POST", "/a", &[], None).text(), "hello");
        asked += 1;
    }
    for call in slow {
        assert_eq!(call.answer().expect("it was processed").text(), "hello");
    }
    assert_eq!(alpha.requests().len(), asked, "each was processed once");
}

#[test]
fn an_answer_of_grpc_that_breaks_off_ends_with_a_status_that_says_so() {
    let alpha = Http2Provider::scripted(|mut asked| async move {
        let mut body = asked.begin(200, &[("content-type", "application/grpc+proto")], false);
        send_all(&mut body, Bytes::from_static(b"half")).await;
        // The client says that it has come.
        assert!(asked.body.data().await.is_some());
        body.send_reset(Reason::INTERNAL_ERROR);
    });
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let mut call = client.begin(client.request("POST", "/call", &[]), false);
    let mut body = call.head().expect("it begins").into_body();
    call.body.send_data(Bytes::from_static(b"go on"), false).expect("a stream");
    let (half, trailers) = wait("its end", drain(&mut body)).expect("gRPC has its own way to say that it failed");
    assert_eq!((&half[..], &trailers["grpc-status"]), (&b"half"[..], &"14".parse().expect("a value")));
    assert!(trailers.contains_key("grpc-message"));
    let line = &gateway.wait_for_access_log(1)[0];
    assert_eq!(line["attempts"][0]["outcome"], "failure", "{line}");
}

#[test]
fn a_stream_given_up_while_its_provider_is_being_reached_ends_at_once() {
    let (_sockets, address) = silent();
    let gateway = before_http2(address, Extra { provider: "timeouts: { connect: 60s }", ..Extra::default() });
    let client = Client::connect(gateway.web());
    let call = client.begin(client.request("GET", "/a", &[]), true);
    gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], 1.0);
    call.cancel();
    gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], 0.0);
    assert_eq!(gateway.wait_for_access_log(1)[0]["status"], 499);
}
