//! A client that leaves, in every phase: the provider's connection ends at once, and nobody is blamed.

use crate::world::{Extra, Gateway, Provider, Wire, silent, text};
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum Way {
    Close,
    /// As in nginx, a client that half-closes after a whole request is gone.
    HalfClose,
    Reset,
}

const WAYS: [Way; 3] = [Way::Close, Way::HalfClose, Way::Reset];

/// Leaves; what is left of the connection is given back.
fn leave(client: Wire, way: Way) -> Option<Wire> {
    match way {
        Way::Close => drop(client),
        Way::Reset => client.reset(),
        Way::HalfClose => {
            client.half_close();
            return Some(client);
        }
    }
    None
}

/// The attempt ended by the client's leaving, and nothing is left of it.
fn is_accounted(gateway: &Gateway, bytes_out: u64) {
    gateway.wait_for_metric("sluice_attempts_total", &[("provider", "alpha"), ("outcome", "client_gone")], 1.0);
    gateway.wait_for_metric("sluice_in_flight", &[("provider", "alpha")], 0.0);
    gateway.wait_for_metric("sluice_requests_total", &[("route", "all"), ("status_class", "gone")], 1.0);
    gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], 0.0);
    let line = &gateway.wait_for_access_log(1)[0];
    assert_eq!((&line["status"], &line["bytes_out"]), (&499.into(), &bytes_out.into()), "{line}");
}

#[test]
fn a_client_that_leaves_while_the_provider_thinks_cancels_it() {
    for way in WAYS {
        let alpha = Provider::by_hand();
        let gateway = Gateway::before(&alpha);
        let mut client = gateway.connect();
        client.send(GET);
        let mut provider = alpha.accept();
        provider.request();
        let client = leave(client, way);
        provider.closes();
        is_accounted(&gateway, 0);
        if let Some(mut client) = client {
            assert_eq!(text(&client.rest()), "", "somebody who has gone gets no answer");
        }
    }
}

#[test]
fn a_client_that_leaves_during_a_stream_cancels_it() {
    for way in WAYS {
        let alpha = Provider::by_hand();
        let gateway = Gateway::before(&alpha);
        let mut client = gateway.connect();
        client.send(GET);
        let mut provider = alpha.accept();
        provider.request();
        provider.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        client.head();
        client.expect("5\r\nhello\r\n");
        let client = leave(client, way);
        provider.closes();
        is_accounted(&gateway, 5);
        if let Some(mut client) = client {
            assert_eq!(text(&client.rest()), "", "the stream has no clean end");
        }
    }
}

#[test]
fn a_client_that_leaves_while_nothing_of_its_answer_is_taken_cancels_it() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    provider.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.head();
    // Fills every buffer on the way; then the provider stands still.
    let sender = std::thread::spawn(move || {
        let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        while provider.try_send(&piece).is_ok() {}
    });
    crate::world::wait_until("data arrives", || !client.is_silent());
    client.reset();
    sender.join().expect("the provider is cut off");
    gateway.wait_for_metric("sluice_attempts_total", &[("outcome", "client_gone")], 1.0);
    gateway.wait_for_metric("sluice_in_flight", &[("provider", "alpha")], 0.0);
}

#[test]
fn a_client_that_leaves_during_its_upload_cancels_it_and_the_provider_sees_no_end_of_it() {
    for way in WAYS {
        for (framing, sent, seen) in [
            ("Content-Length: 100", "hello", "hello"),
            ("Transfer-Encoding: chunked", "5\r\nhello\r\n", "5\r\nhello\r\n"),
        ] {
            let alpha = Provider::by_hand();
            let gateway = Gateway::before(&alpha);
            let mut client = gateway.connect();
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{sent}"));
            let mut provider = alpha.accept();
            provider.head();
            provider.expect(seen);
            let client = leave(client, way);
            provider.closes();
            is_accounted(&gateway, 0);
            drop(client);
        }
    }
}

#[test]
fn a_client_that_leaves_while_the_provider_takes_nothing_of_its_upload_cancels_it() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n");
    let provider = alpha.accept();
    // Every buffer on the way is full. A FIN would wait behind them, unseen by anyone; a reset does not.
    client.patience(Duration::from_millis(200));
    while client.try_send([0; 16 * 1024]).is_ok() {}
    client.reset();
    gateway.wait_for_metric("sluice_attempts_total", &[("outcome", "client_gone")], 1.0);
    gateway.wait_for_metric("sluice_in_flight", &[("provider", "alpha")], 0.0);
    drop(provider);
}

#[test]
fn a_client_that_leaves_with_many_requests_unread_cancels_the_one_under_way() {
    for way in WAYS {
        let alpha = Provider::by_hand();
        let gateway = Gateway::before(&alpha);
        let mut client = gateway.connect();
        client.send(GET);
        let mut provider = alpha.accept();
        provider.request();
        // More than is kept for later, less than the kernel holds.
        client.send(GET.repeat(1000));
        let left = leave(client, way);
        provider.closes();
        gateway.wait_for_metric("sluice_attempts_total", &[("outcome", "client_gone")], 1.0);
        drop(left);
    }
}

#[test]
fn a_client_that_leaves_while_its_answer_waits_for_more_of_the_request_cancels_it() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let mut provider = alpha.accept();
    provider.head();
    provider.expect("5\r\nhello\r\n");
    provider.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.head();
    client.expect("5\r\nhello\r\n");
    drop(client);
    provider.end();
    is_accounted(&gateway, 5);
}

#[test]
fn a_client_that_leaves_before_a_connection_is_open_needs_none() {
    for way in WAYS {
        let (_held, nobody) = silent();
        let gateway =
            Gateway::before_address(nobody, Extra { provider: "timeouts: { connect: 1h }", ..Extra::default() });
        let mut client = gateway.connect();
        client.send(GET);
        gateway.wait_for_metric("sluice_in_flight", &[("provider", "alpha")], 1.0);
        let left = leave(client, way);
        is_accounted(&gateway, 0);
        drop(left);
    }
}

#[test]
fn requests_that_wait_behind_one_whose_client_has_left_go_nowhere() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send(format!("{GET}GET /late HTTP/1.1\r\nHost: a\r\n\r\n"));
    let mut provider = alpha.accept();
    provider.request();
    client.half_close();
    provider.closes();
    is_accounted(&gateway, 0);
    assert!(alpha.is_lonely());
}

#[test]
fn a_client_that_leaves_between_requests_is_no_request() {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let gateway = Gateway::before(&alpha);
    drop(gateway.connect());
    let mut client = gateway.connect();
    client.send("GET / HT");
    drop(client);
    let mut client = gateway.connect();
    client.send(GET);
    client.answer();
    client.half_close();
    client.closes();
    gateway.wait_for_metric("sluice_connections", &[("listener", "web")], 0.0);
    assert_eq!(gateway.wait_for_access_log(1).len(), 1);
}

#[test]
fn a_client_that_takes_nothing_is_given_up_after_the_idle_time() {
    let alpha = Provider::scripted(|peer| {
        if peer.request().is_some() {
            peer.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while peer.wire.try_send(&piece).is_ok() {}
        }
    });
    let gateway =
        Gateway::before_with(&alpha, Extra { listener: "limits: { idle_timeout: 300ms }", ..Extra::default() });
    let mut client = gateway.connect();
    client.send(GET);
    gateway.wait_for_metric("sluice_attempts_total", &[("outcome", "client_gone")], 1.0);
    gateway.wait_for_metric("sluice_in_flight", &[("provider", "alpha")], 0.0);
    let seen = client.rest();
    assert!(!seen.ends_with(b"0\r\n\r\n"), "the stream has no clean end");
}
