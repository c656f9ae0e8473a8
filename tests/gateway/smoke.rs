//! The test world works: a gateway in this process and one as a process each pass one request on.

use crate::world::{BEFORE, Gateway, Provider, Sluice};
use rustix::process::Signal;

#[test]
fn a_request_reaches_a_scripted_provider_and_its_answer_comes_back() {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send("GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    assert_eq!(alpha.requests()[0].head.line, "GET /a HTTP/1.1");
    gateway.wait_for_metric("sluice_requests_total", &[("route", "all"), ("status_class", "2xx")], 1.0);
    assert_eq!(gateway.wait_for_access_log(1)[0]["path"], "/a");
}

#[test]
fn the_binary_serves_and_ends_on_term() {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    let mut sluice = Sluice::spawn(BEFORE, &[("alpha", alpha.address())]);
    let mut client = sluice.connect();
    client.send("GET /a HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n");
    assert_eq!(client.answer().text(), "hello");
    client.closes();
    sluice.signal(Signal::TERM);
    assert_eq!(sluice.wait_for_exit(), 0, "{}", sluice.output());
}
