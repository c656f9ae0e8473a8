//! Draining: nothing new begins, what is under way comes to its end, and the gateway waits as long as it was told to.

use crate::world::{BEFORE, Gate, Gateway, Provider, Wire, free_address, page, wait_until};
use std::net::TcpStream;
use std::time::Duration;

/// A provider that answers `/held` once the gate is open, anything else at once.
fn gated(gate: &Gate) -> Provider {
    let gate = gate.clone();
    Provider::scripted(move |peer| {
        while let Some(request) = peer.request() {
            if request.head.line.contains("/held") {
                gate.pass();
            }
            peer.answer("200 OK", "done");
        }
    })
}

fn refuses(gateway: &Gateway) -> bool {
    TcpStream::connect(gateway.web()).is_err()
}

#[test]
fn a_drain_ends_with_the_last_request_under_way_and_takes_nothing_new() {
    let gate = Gate::default();
    let alpha = gated(&gate);
    let gateway = Gateway::before(&alpha);
    let mut held = gateway.connect();
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    alpha.wait_for_requests(1);
    let mut idle = gateway.connect();
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(idle.answer().text(), "done");
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| gateway.drain(Duration::from_mins(1)));
        wait_until("nobody listens", || refuses(&gateway));
        idle.closes();
        assert!(!drained.is_finished() && held.is_silent());
        gate.open();
        let answer = held.answer();
        assert_eq!((answer.value("connection"), answer.text().as_str()), (Some("close"), "done"));
        held.closes();
        assert!(drained.join().expect("the drain ends"));
    });
}

#[test]
fn a_gateway_that_drains_is_alive_and_not_ready() {
    let gate = Gate::default();
    let alpha = gated(&gate);
    let gateway = Gateway::before(&alpha);
    let mut held = gateway.connect();
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    alpha.wait_for_requests(1);
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| gateway.drain(Duration::from_mins(1)));
        wait_until("nobody listens", || refuses(&gateway));
        let mut wire = Wire::connect(gateway.admin());
        wire.send("GET /health/ready?verbose HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let ready = wire.answer();
        assert_eq!(ready.status(), 503);
        assert!(ready.text().contains("draining"), "{}", ready.text());
        page(gateway.admin(), "/livez");
        gate.open();
        assert_eq!(held.answer().status(), 200);
        assert!(drained.join().expect("the drain ends"));
    });
}

#[test]
fn a_client_that_sends_once_more_while_the_gateway_drains_is_answered() {
    let gate = Gate::default();
    let alpha = gated(&gate);
    let gateway = Gateway::before(&alpha);
    let mut held = gateway.connect();
    // The second request waits behind the first when the drain begins.
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    let fresh = gateway.connect();
    alpha.wait_for_requests(1);
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| gateway.drain(Duration::from_mins(1)));
        wait_until("nobody listens", || refuses(&gateway));
        // One that has connected and not sent anything yet.
        let mut fresh = fresh;
        fresh.send("GET /fresh HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = fresh.answer();
        assert_eq!((answer.value("connection"), answer.text().as_str()), (Some("close"), "done"));
        gate.open();
        assert_eq!(held.answer().text(), "done");
        assert!(drained.join().expect("the drain ends"));
    });
}

#[test]
fn a_gateway_that_drains_takes_no_configuration_any_more() {
    let gate = Gate::default();
    let alpha = gated(&gate);
    let side = free_address();
    let gateway = Gateway::start(BEFORE, &[("alpha", alpha.address()), ("side", side)]);
    let mut held = gateway.connect();
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    alpha.wait_for_requests(1);
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| gateway.drain(Duration::from_mins(1)));
        wait_until("nobody listens", || refuses(&gateway));
        gateway.rewrite(&BEFORE.replace("} ]\nproviders", "}, { name: side, bind: \"{side}\" } ]\nproviders"));
        assert_eq!(
            gateway.reload().expect_err("it drains").rendered,
            "the gateway is going and takes no new configuration"
        );
        assert!(TcpStream::connect(side).is_err(), "a listener opened during the drain");
        gate.open();
        assert_eq!(held.answer().text(), "done");
        assert!(drained.join().expect("the drain ends"));
    });
}

#[test]
fn a_drain_that_takes_too_long_is_told_to_be_incomplete() {
    let gate = Gate::default();
    let alpha = gated(&gate);
    let gateway = Gateway::start(BEFORE, &[("alpha", alpha.address())]);
    let mut held = gateway.connect();
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    alpha.wait_for_requests(1);
    assert!(!gateway.drain(Duration::from_millis(50)));
    gateway.stop();
    held.end();
    gate.open();
}
