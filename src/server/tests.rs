//! Tests of a panic in a request. In a test build every request passes through [`handle`], which panics where it is asked
//! to; the rest of the way is the real one, sockets included.

use crate::config::ProcessEnvironment;
use crate::gateway::{Gateway, Source};
use crate::net::side::Side;
use crate::proxy::{self, After, Desk, Here};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Handles a request, and panics before or after where the field `x-panic` says so.
pub(super) async fn handle(client: Side<'_>, desk: &mut Desk, here: &Here<'_>) -> After {
    let asked = |desk: &Desk, when: &[u8]| desk.head.fields.named(b"x-panic").any(|value| value == when);
    assert!(!asked(desk, b"before"), "a panic before the answer");
    let after = proxy::handle(client, desk, here).await;
    assert!(!asked(desk, b"after"), "a panic after the answer");
    after
}

/// A gateway of one worker; `/here` is answered by itself, everything else by `provider`.
fn start(folder: &tempfile::TempDir, provider: SocketAddr) -> Gateway {
    let yaml = format!(
        "
version: 1
workers: 1
admin: {{ bind: \"127.0.0.1:0\" }}
reload: {{ watch: false }}
log: {{ format: json, file: \"{}/log\" }}
listeners: [ {{ name: web, bind: \"127.0.0.1:0\" }} ]
providers: {{ alpha: {{ url: \"http://{provider}\" }} }}
pools: {{ main: {{ providers: [alpha] }} }}
routes:
  - {{ name: here, match: {{ path: /here }}, respond: {{ body: fine }} }}
  - {{ name: there, match: {{ path: \"/*\" }}, pool: main }}
",
        folder.path().display()
    );
    let path = folder.path().join("gateway.yaml");
    std::fs::write(&path, yaml).expect("the folder takes files");
    let source = Source { path, environment: Arc::new(ProcessEnvironment) };
    Gateway::start(source).unwrap_or_else(|error| panic!("{error}"))
}

/// Answers one request with `there`.
fn provider() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the gateway connects");
        read_until(&mut stream, b"\r\n\r\n");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nthere").expect("the gateway reads");
    });
    address
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket option");
    stream
}

fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("more comes");
        bytes.push(byte[0]);
    }
    bytes
}

/// Everything that comes back for one request, to the end of its connection.
fn whole(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut bytes = Vec::new();
    // A reset ends it as well as a close; what came before counts.
    let _: std::io::Result<usize> = stream.read_to_end(&mut bytes);
    String::from_utf8(bytes).expect("text")
}

fn panics(gateway: &Gateway) -> String {
    let page = whole(gateway.admin_address(), "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let line = page.lines().find(|line| line.starts_with("sluice_panics_total"));
    line.expect("the family is always there").to_owned()
}

#[test]
fn a_panic_is_answered_and_counted_and_the_worker_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = start(&folder, provider());
    let web = gateway.address("web").expect("a listener");
    assert_eq!(panics(&gateway), "sluice_panics_total 0");
    let mut bystander = connect(web);

    let answer = whole(web, "GET /here HTTP/1.1\r\nhost: a\r\nx-panic: before\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(answer.contains("\r\ncontent-type: application/problem+json\r\n"), "{answer}");
    assert!(answer.contains("\"reason\":\"internal\""), "{answer}");
    assert!(!answer.contains("a panic before"), "the client is told what only the log should say: {answer}");
    assert_eq!(panics(&gateway), "sluice_panics_total 1");

    let to_head = whole(web, "HEAD /here HTTP/1.1\r\nhost: a\r\nx-panic: before\r\n\r\n");
    assert!(
        to_head.starts_with("HTTP/1.1 500 ") && to_head.ends_with("\r\n\r\n"),
        "an answer to HEAD has no body: {to_head}"
    );

    // Neither a connection that was open nor a new one notices, on the same and only worker.
    bystander.write_all(b"GET /here HTTP/1.1\r\nhost: a\r\n\r\n").expect("it reads");
    assert!(read_until(&mut bystander, b"fine").starts_with(b"HTTP/1.1 200 "));
    let next = whole(web, "GET /here HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(next.starts_with("HTTP/1.1 200 ") && next.ends_with("fine"), "{next}");
    gateway.stop();
}

#[test]
fn a_panic_before_anything_was_sent_replaces_the_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = start(&folder, provider());
    let web = gateway.address("web").expect("a listener");
    let answer = whole(web, "GET /here HTTP/1.1\r\nhost: a\r\nx-panic: after\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    gateway.stop();
}

#[test]
fn a_panic_after_the_answer_began_ends_the_connection_and_adds_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = start(&folder, provider());
    let web = gateway.address("web").expect("a listener");
    let answer = whole(web, "GET /there HTTP/1.1\r\nhost: a\r\nx-panic: after\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("there"), "{answer}");
    assert_eq!(panics(&gateway), "sluice_panics_total 1");
    gateway.stop();
}

/// What a request in HTTP/2 comes to: its answer, or the code its stream was reset with.
async fn call(sender: &h2::client::SendRequest<bytes::Bytes>, path: &str, panic: &str) -> Result<String, h2::Reason> {
    let request = http::Request::get(format!("http://a.test{path}")).header("x-panic", panic);
    let mut sender = sender.clone().ready().await.expect("the connection goes on");
    let (answer, _) = sender.send_request(request.body(()).expect("a request"), true).expect("a stream");
    let reset = |error: h2::Error| error.reason().expect("a code");
    let (head, mut body) = answer.await.map_err(reset)?.into_parts();
    let mut text = format!("{} ", head.status.as_u16());
    while let Some(piece) = body.data().await {
        text += std::str::from_utf8(&piece.map_err(reset)?).expect("text");
    }
    Ok(text)
}

#[test]
fn a_panic_stays_in_its_stream() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = start(&folder, provider());
    let web = gateway.address("web").expect("a listener");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(web).await.expect("it listens");
        let (sender, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
        tokio::spawn(connection);
        let before = call(&sender, "/here", "before").await.expect("an answer");
        assert!(before.starts_with("500 ") && before.contains("\"reason\":\"internal\""), "{before}");
        assert!(!before.contains("a panic before"), "the client is told what only the log should say: {before}");
        // The answer was whole when it happened; nothing is added, and nothing taken back.
        assert_eq!(call(&sender, "/there", "after").await.as_deref(), Ok("200 there"));
        // Its neighbours do not notice, on the same connection.
        assert_eq!(call(&sender, "/here", "").await.as_deref(), Ok("200 fine"));
    });
    assert_eq!(panics(&gateway), "sluice_panics_total 2");
    gateway.stop();
}

#[test]
fn the_task_of_an_idle_connection_stays_small() {
    // With what the runtime lays around it that makes 512 bytes; one more word would make it 640, for each of ten thousand.
    let bytes = size_of_val(&super::http1::serve(None));
    assert!(bytes <= 400, "{bytes} bytes");
}
