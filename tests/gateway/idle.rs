//! Connections that do nothing, and the limit on all of them.

use crate::world::{Extra, Gateway, Provider, Wire};

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn is_answered(client: &mut Wire) {
    client.send(GET);
    assert_eq!(client.answer().text(), "hello");
}

#[test]
fn five_hundred_idle_connections_stop_nobody_and_serve_when_they_wake() {
    let alpha = Provider::answering(HELLO);
    let gateway = Gateway::before(&alpha);
    let mut idle: Vec<Wire> = (0..500).map(|_| gateway.connect()).collect();
    // Half of them have had an answer before.
    idle.iter_mut().step_by(2).for_each(is_answered);
    gateway.wait_for_metric("sluice_connections", &[("listener", "web")], 500.0);
    let mut fresh = gateway.connect();
    for _ in 0..10 {
        is_answered(&mut fresh);
    }
    idle.iter_mut().for_each(is_answered);
    drop(idle);
    gateway.wait_for_metric("sluice_connections", &[("listener", "web")], 1.0);
    is_answered(&mut fresh);
}

#[test]
fn a_connection_over_the_limit_waits_and_is_then_served() {
    let alpha = Provider::answering(HELLO);
    let gateway = Gateway::before_with(&alpha, Extra { listener: "limits: { connections: 2 }", ..Extra::default() });
    let (mut first, mut second) = (gateway.connect(), gateway.connect());
    is_answered(&mut first);
    is_answered(&mut second);
    // The kernel takes it; the gateway does not.
    let mut third = gateway.connect();
    third.send(GET);
    for _ in 0..10 {
        is_answered(&mut first);
    }
    assert!(third.is_silent(), "a third connection was served beside two");
    assert!((gateway.metric("sluice_connections", &[("listener", "web")]) - 2.0).abs() < f64::EPSILON);
    drop(second);
    assert_eq!(third.answer().text(), "hello");
    is_answered(&mut first);
}

#[test]
fn a_limit_that_is_raised_lets_in_who_waits() {
    let alpha = Provider::answering(HELLO);
    let gateway = Gateway::before_with(&alpha, Extra { listener: "limits: { connections: 1 }", ..Extra::default() });
    let mut first = gateway.connect();
    is_answered(&mut first);
    let mut second = gateway.connect();
    second.send(GET);
    is_answered(&mut first);
    assert!(second.is_silent());
    gateway.rewrite(&crate::world::BEFORE.replace("{listener}", ", limits: { connections: 2 }"));
    gateway.reload().unwrap_or_else(|rejected| panic!("{}", rejected.rendered));
    assert_eq!(second.answer().text(), "hello");
    is_answered(&mut first);
}
