//! What a reload must not do: leave traces where it is rejected, or call one of our own sockets another process's.

use crate::world::{Gateway, Provider, wait_until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

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
fn a_listener_may_turn_to_every_address_of_its_port() {
    let gateway = Gateway::start(&at("{web}"), &[]);
    let port = gateway.web().port();
    gateway.rewrite(&at(&format!("0.0.0.0:{port}")));
    gateway.reload().unwrap_or_else(|rejected| panic!("{}", rejected.rendered));
    // Until the narrower socket is closed, the kernel prefers it; and what it has not handed over by then is reset.
    wait_until("the wider listener answers", || answers(SocketAddr::from(([127, 0, 0, 1], port))));
}

/// Whether whoever listens there answers a request.
fn answers(address: SocketAddr) -> bool {
    let mut answer = String::new();
    let told = TcpStream::connect(address).and_then(|mut stream| {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    });
    told.is_ok() && answer.ends_with("here")
}
