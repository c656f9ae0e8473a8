//! What a reload must not do: leave traces where it is rejected, let clients in while the gateway goes, or call one of our
//! own sockets another process's.

use crate::world::{Gate, Gateway, Provider, Wire, free_address, wait_until};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A gateway that sends everything to `alpha`, with this listener called `more` beside its own.
fn with_another(more: SocketAddr) -> String {
    format!(
        "
listeners: [ {{ name: web, bind: \"{{web}}\" }}, {{ name: more, bind: \"{more}\" }} ]
providers: {{ alpha: {{ url: \"http://{{alpha}}\" }}, ghost: {{ url: \"http://{{alpha}}\" }} }}
pools: {{ main: {{ providers: [alpha, ghost] }} }}
routes: [ {{ name: all, match: {{ path: \"/*\" }}, pool: main }} ]
"
    )
}

/// A gateway that answers everyone itself, at `bind`.
fn at(bind: &str) -> String {
    format!(
        "
listeners: [ {{ name: web, bind: \"{bind}\" }} ]
routes: [ {{ name: all, match: {{ path: \"/*\" }}, respond: {{ body: here }} }} ]
"
    )
}

#[test]
fn a_reload_that_is_rejected_leaves_no_series_behind() {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let gateway = Gateway::before(&alpha);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    gateway.rewrite(&with_another(taken.local_addr().expect("bound")));
    let rejected = gateway.reload().expect_err("the address is taken");
    assert!(rejected.rendered.contains("another process has it"), "{}", rejected.rendered);
    assert!(!gateway.metrics().contains("ghost"), "{}", gateway.metrics());
}

#[test]
fn a_gateway_that_drains_takes_no_new_configuration() {
    let gate = Gate::default();
    let held_back = gate.clone();
    let alpha = Provider::scripted(move |peer| {
        while peer.request().is_some() {
            held_back.pass();
            peer.answer("200 OK", "done");
        }
    });
    let gateway = Gateway::before(&alpha);
    let mut held = gateway.connect();
    held.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    alpha.wait_for_requests(1);
    let more = free_address();
    gateway.rewrite(&with_another(more));
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| gateway.drain(Duration::from_secs(60)));
        wait_until("nobody listens", || TcpStream::connect(gateway.web()).is_err());
        let rejected = gateway.reload().expect_err("it is going");
        assert!(rejected.rendered.contains("going"), "{}", rejected.rendered);
        assert!(TcpStream::connect(more).is_err());
        gate.open();
        assert_eq!(held.answer().text(), "done");
        assert!(drained.join().expect("the drain ends"));
    });
}

#[test]
fn a_listener_may_turn_to_every_address_of_its_port() {
    let gateway = Gateway::start(&at("{web}"), &[]);
    let port = gateway.web().port();
    gateway.rewrite(&at(&format!("0.0.0.0:{port}")));
    gateway.reload().unwrap_or_else(|rejected| panic!("{}", rejected.rendered));
    let mut wire = Wire::connect(SocketAddr::from(([127, 0, 0, 1], port)));
    wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(wire.answer().text(), "here");
}
