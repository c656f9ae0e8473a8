//! Clients that wait in a queue for an event stream: the comments they get meanwhile, and what comes after them.
//!
//! The queue is paused, so that requests wait until a test lets them go on.

use crate::http2::Client;
use crate::world::{Gateway, Message, Peer, Provider, Wire, wait_until};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

const COMMENT: &str = ": waiting\n\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json, Text/Event-Stream;q=0.9\r\n\r\n";
const EVENTS: &str = "data: one\n\ndata: two\n\n";
const ACCEPT: (&str, &str) = ("accept", "text/event-stream");

/// A gateway before these providers, whose queue is paused.
fn paused(providers: &[&Provider], queue: &str, route: &str) -> Gateway {
    let names = ["alpha", "beta"];
    let places: Vec<_> = names.into_iter().zip(providers.iter().map(|provider| provider.address())).collect();
    let (urls, members) = match places.len() {
        1 => ("alpha: { url: \"http://{alpha}\" }", "alpha"),
        _ => (
            "alpha: { url: \"http://{alpha}\" }, beta: { url: \"http://{beta}\" }",
            "alpha, { name: beta, backup: true }",
        ),
    };
    let yaml = [("{urls}", urls), ("{members}", members), ("{queue}", queue), ("{route}", route)];
    let yaml = yaml.into_iter().fold(YAML.to_owned(), |text, (place, put)| text.replace(place, put));
    let gateway = Gateway::start(&yaml, &places);
    order(gateway.admin(), "POST /api/v1/queues/main/pause");
    gateway
}

fn ask(admin: SocketAddr, line: &str) -> Value {
    let mut wire = Wire::connect(admin);
    wire.send(format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
    let answer = wire.answer();
    assert_eq!(answer.status(), 200, "{line}: {}", answer.text());
    answer.json()
}

fn order(admin: SocketAddr, line: &str) {
    ask(admin, line);
}

fn resume(gateway: &Gateway) {
    order(gateway.admin(), "POST /api/v1/queues/main/resume");
}

fn waiting(gateway: &Gateway) -> Vec<Value> {
    ask(gateway.admin(), "GET /api/v1/queues/main/requests")["requests"].as_array().expect("a list").clone()
}

/// Takes whoever waits out of the queue.
fn cancel(gateway: &Gateway) {
    wait_until("one waits", || waiting(gateway).len() == 1);
    let id = waiting(gateway)[0]["id"].clone();
    order(gateway.admin(), &format!("DELETE /api/v1/queues/main/requests/{id}"));
}

/// A provider that gives this answer to every request, whole.
fn saying(status: &str, fields: &str, body: &str) -> Provider {
    let head = format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n", body.len());
    Provider::answering(head + body)
}

/// A provider of [`EVENTS`] that come one by one.
fn streaming() -> Provider {
    Provider::scripted(|peer| {
        while peer.request().is_some() {
            peer.wire.send(
                "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
                 HTTP/1.1 203 So\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-own: 1\r\n\
                 transfer-encoding: chunked\r\n\r\n",
            );
            peer.wire.send_chunk("data: one\n\n");
            peer.wire.send_chunk("data: two\n\n");
            peer.wire.send("0\r\n\r\n");
        }
    })
}

/// Sends a request and waits for its second comment.
fn wait_in_line(gateway: &Gateway, request: &str) -> (Wire, Message) {
    let mut client = gateway.connect();
    client.send(request);
    let head = client.head();
    assert_eq!(head.line, "HTTP/1.1 200 OK");
    for _ in 0..2 {
        assert_eq!(text(&client.chunk().expect("not the last")), COMMENT);
    }
    (client, Message { head, body: Vec::new(), chunks: Vec::new(), trailers: Vec::new() })
}

/// Reads the rest of a chunked answer, without the comments in front of it.
fn rest(client: &mut Wire) -> String {
    let mut rest = String::new();
    while let Some(chunk) = client.chunk() {
        rest += &text(&chunk);
    }
    assert!(client.trailers().is_empty());
    without_comments(&rest).to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn without_comments(mut text: &str) -> &str {
    while let Some(rest) = text.strip_prefix(COMMENT) {
        text = rest;
    }
    text
}

/// That these events are one error with this reason; gives its problem.
fn is_error(events: &str, status: u16, reason: &str) -> Value {
    let problem = events.strip_prefix("event: error\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
    let problem = problem.unwrap_or_else(|| panic!("no error: {events:?}"));
    assert!(!problem.contains('\n'), "{problem}");
    let problem: Value = serde_json::from_str(problem).expect("a problem is JSON");
    assert_eq!((&problem["status"], &problem["reason"]), (&status.into(), &reason.into()));
    problem
}

/// What the access log says of the first request: the status, the reason, and how its attempts ended.
fn told(gateway: &Gateway) -> (Value, Value, Vec<Value>) {
    let line = gateway.wait_for_access_log(1)[0].clone();
    let attempts = line["attempts"].as_array().cloned().unwrap_or_default();
    let outcomes = attempts.iter().map(|one| one["outcome"].clone()).collect();
    (line["status"].clone(), line["reason"].clone(), outcomes)
}

// --- what comes ---

#[test]
fn a_client_gets_comments_while_it_waits_and_then_the_stream() {
    let alpha = streaming();
    let gateway = paused(&[&alpha], "", "rewrite: { response_headers: { set: { x-route: mine } } },");
    let get = GET.replace("Accept:", "Accept-Encoding: gzip\r\nAccept:");
    let (mut client, begun) = wait_in_line(&gateway, &get);
    let says = |name| begun.value(name).unwrap_or_default().to_owned();
    let usual = ["content-type", "cache-control", "transfer-encoding", "x-route"].map(says);
    assert_eq!(usual, ["text/event-stream", "no-store", "chunked", "mine"]);
    assert!(!says("x-request-id").is_empty() && !says("date").is_empty(), "{begun:?}");
    assert_eq!(alpha.connections(), 0);
    resume(&gateway);
    assert_eq!(rest(&mut client), EVENTS);
    assert_eq!(told(&gateway), (200.into(), Value::Null, vec!["success".into()]));
    assert_eq!(
        alpha.requests()[0].head.values("accept-encoding"),
        ["identity"],
        "its head would have told of a coding"
    );
    // The connection goes on, and who need not wait gets the provider's own head.
    client.send(&get);
    let answer = client.answer();
    assert_eq!((answer.text().as_str(), answer.value("x-own")), (EVENTS, Some("1")));
    assert_eq!(alpha.requests()[1].head.values("accept-encoding"), ["gzip"]);
    assert_eq!(alpha.connections(), 1);
}

#[test]
fn a_client_in_http2_gets_the_same_whatever_its_window() {
    let alpha = streaming();
    for window in [5, 1 << 20] {
        let gateway = paused(&[&alpha], "", "");
        let client = Client::connect_with(gateway.web(), |settings| {
            settings.initial_window_size(window);
        });
        let body = b"{}";
        let mut call = client.begin(client.request("POST", "/", &[ACCEPT]), false);
        call.body.send_data(body.to_vec().into(), true).expect("it is taken");
        let (head, mut stream) = call.head().expect("a head").into_parts();
        let says = |name: &str| crate::http2::values(&head.headers, name);
        assert_eq!((head.status.as_u16(), says("content-type")), (200, vec!["text/event-stream"]));
        assert_eq!((says("cache-control"), says("x-request-id").len()), (vec!["no-store"], 1));
        let first = crate::http2::wait("a comment", stream.data()).expect("not the end").expect("data");
        assert!(COMMENT.starts_with(&text(&first)), "{first:?}");
        resume(&gateway);
        stream.flow_control().release_capacity(first.len()).expect("it was used");
        let (more, trailers) = crate::http2::wait("the rest", crate::http2::drain(&mut stream)).expect("a clean end");
        let whole = text(&first) + &text(&more);
        assert_eq!((without_comments(&whole), trailers.len()), (EVENTS, 0));
        assert_eq!(told(&gateway), (200.into(), Value::Null, vec!["success".into()]));
        assert_eq!(alpha.requests().last().expect("a request").text(), "{}");
    }
}

#[test]
fn an_answer_that_is_no_event_stream_is_told_as_the_last_event() {
    for (status, fields, outcome) in [
        ("404 Not Found", "content-type: application/json\r\n", "success"),
        ("200 OK", "content-type: application/json\r\n", "success"),
        ("200 OK", "content-type: text/event-stream\r\ncontent-encoding: gzip\r\n", "success"),
        ("503 Busy", "content-type: text/event-stream\r\n", "failure"),
        ("302 Found", "location: /\r\n", "success"),
    ] {
        let alpha = saying(status, fields, "{\"own\":1}");
        let gateway = paused(&[&alpha], "", "retry: { attempts: 1 },");
        let (mut client, _) = wait_in_line(&gateway, GET);
        resume(&gateway);
        let problem = is_error(&rest(&mut client), 502, "no_event_stream");
        assert!(problem["detail"].as_str().expect("a sentence").contains(&status[..3]), "{problem}");
        assert_eq!(told(&gateway), (200.into(), "no_event_stream".into(), vec![outcome.into()]), "{status}");
        // Both connections are still in step.
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().text(), "{\"own\":1}");
        assert_eq!(alpha.connections(), 1);
    }
}

#[test]
fn who_gets_no_provider_is_told_so_as_the_last_event() {
    let alpha = streaming();
    let gateway = paused(&[&alpha], "", "");
    let (mut client, begun) = wait_in_line(&gateway, &GET.replace("Accept:", "Connection: close\r\nAccept:"));
    assert_eq!(begun.value("connection"), Some("close"));
    cancel(&gateway);
    let problem = is_error(&rest(&mut client), 503, "cancelled");
    client.closes();
    assert_eq!(problem["request_id"].as_str(), begun.value("x-request-id"));
    assert_eq!(told(&gateway), (200.into(), "cancelled".into(), vec![]));

    let gateway = paused(&[&alpha], ", timeout: 1s", "");
    let call = Client::connect(gateway.web());
    let answer = call.ask("GET", "/", &[ACCEPT], None);
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with(COMMENT), "{}", answer.text());
    is_error(without_comments(&answer.text()), 503, "queue_timeout");
    assert_eq!(told(&gateway), (200.into(), "queue_timeout".into(), vec![]));
    assert_eq!(alpha.connections(), 0);
}

#[test]
fn another_provider_is_asked_while_only_comments_went_out() {
    let broken = || Provider::scripted(|peer: &mut Peer| drop(peer.request()));
    for alpha in [saying("503 Busy", "", "busy"), broken()] {
        let beta = streaming();
        let gateway = paused(&[&alpha, &beta], "", "");
        let (mut client, _) = wait_in_line(&gateway, GET);
        resume(&gateway);
        assert_eq!(rest(&mut client), EVENTS);
        assert_eq!(told(&gateway), (200.into(), Value::Null, vec!["failure".into(), "success".into()]));
    }
    let (alpha, beta) = (broken(), broken());
    let gateway = paused(&[&alpha, &beta], "", "retry: { attempts: 2 },");
    let (mut client, _) = wait_in_line(&gateway, GET);
    resume(&gateway);
    is_error(&rest(&mut client), 502, "attempts_exhausted");
    assert_eq!(told(&gateway), (200.into(), "attempts_exhausted".into(), vec!["failure".into(); 2]));
}

#[test]
fn an_answer_that_was_kept_before_the_first_comment_is_not_laid_behind_it() {
    let admin = Arc::new(OnceLock::new());
    let pauses = Arc::clone(&admin);
    let alpha = Provider::scripted(move |peer| {
        while peer.request().is_some() {
            order(*pauses.wait(), "POST /api/v1/queues/main/pause");
            peer.answer("503 Busy", "busy");
        }
    });
    let gateway = paused(&[&alpha], "", "retry: { attempts: 2 },");
    admin.set(gateway.admin()).expect("it is set once");
    resume(&gateway);
    let (mut client, _) = wait_in_line(&gateway, GET);
    cancel(&gateway);
    let problem = is_error(&rest(&mut client), 502, "no_event_stream");
    assert!(problem["detail"].as_str().expect("a sentence").contains("503"), "{problem}");
    assert_eq!(told(&gateway), (200.into(), "no_event_stream".into(), vec!["failure".into()]));
}

#[test]
fn a_stream_that_breaks_off_behind_comments_is_not_ended_as_if_it_were_whole() {
    let alpha = Provider::scripted(|peer| {
        peer.request();
        peer.wire.send("HTTP/1.1 203 So\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        peer.wire.send_chunk("data: one\n\n");
    });
    let gateway = paused(&[&alpha], "", "");
    let (mut client, _) = wait_in_line(&gateway, GET);
    resume(&gateway);
    let rest = text(&client.rest());
    assert!(rest.contains("data: one\n\n") && !rest.contains("\r\n0\r\n") && !rest.contains("error"), "{rest:?}");
    assert_eq!(told(&gateway), (200.into(), Value::Null, vec!["failure".into()]));
}

// --- to whom ---

#[test]
fn whoever_asks_for_something_else_waits_for_a_real_answer() {
    let alpha = saying("200 OK", "", "");
    let gateway = paused(&[&alpha], "", "");
    let accept = "Accept: text/event-stream\r\n";
    let requests = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nAccept: */*, text/event-streams\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n{accept}\r\n"),
        format!("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n{accept}\r\n"),
        format!("HEAD / HTTP/1.1\r\nHost: a\r\n{accept}\r\n"),
        format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n{accept}\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: own\r\n{accept}\r\n"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Type: application/grpc\r\n{accept}\r\n"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n{accept}\r\n"),
    ];
    let ask = |request: &String| {
        let mut client = gateway.connect();
        client.send(request);
        client
    };
    let mut clients: Vec<_> = requests.iter().map(ask).collect();
    wait_until("all of them to wait", || waiting(&gateway).len() == requests.len());
    // By its second comment the others would have had their first.
    let (mut last, _) = wait_in_line(&gateway, GET);
    for (client, request) in clients.iter_mut().zip(&requests) {
        assert!(client.is_silent(), "{request}");
    }
    resume(&gateway);
    for (client, request) in clients.iter_mut().zip(&requests) {
        if request.contains("Expect") {
            client.send("{}");
        }
        let answer = client.answer_to(request.split(' ').next().unwrap_or_default());
        assert_eq!((answer.status(), answer.value("content-length")), (200, Some("0")), "{request}");
    }
    is_error(&rest(&mut last), 502, "no_event_stream");
}

#[test]
fn a_client_that_leaves_between_comments_leaves_the_queue() {
    let alpha = streaming();
    let gateway = paused(&[&alpha], "", "");
    let (client, _) = wait_in_line(&gateway, GET);
    client.reset();
    let http2 = Client::connect(gateway.web());
    let mut call = http2.begin(http2.request("GET", "/", &[ACCEPT]), true);
    assert_eq!(call.head().expect("a head").status(), 200);
    call.cancel();
    wait_until("nobody waits", || waiting(&gateway).is_empty());
    resume(&gateway);
    assert_eq!(gateway.wait_for_access_log(2).len(), 2);
    assert_eq!(alpha.connections(), 0);
}

const YAML: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { {urls} }
pools: { main: { providers: [ {members} ], queue: { heartbeat: 10ms{queue} } } }
routes: [ { name: all, match: { path: \"/*\" }, {route} pool: main } ]
";
