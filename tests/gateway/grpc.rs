//! gRPC end to end: grpcio as client and as server, the gateway between them speaking HTTP/2 in cleartext on both sides.
//!
//! The two programs are `python/grpc_server.py` and `python/grpc_client.py`; the client says a line for each thing it sees,
//! and the tests compare those.

use crate::clients::{PYTHON, Running, spawn};
use crate::world::{Gateway, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gateway/python/grpc_server.py");
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gateway/python/grpc_client.py");

const YAML: &str = "
listeners: [ { name: web, bind: \"{web}\", limits: { h2_streams: 256 } } ]
providers: { alpha: { url: \"h2c://{alpha}\" } }
pools: { main: { providers: [alpha] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main } ]
";

/// A program that says lines.
struct Saying {
    child: Running,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

// === impl Saying ===

impl Saying {
    fn start(script: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(PYTHON);
        command.arg(script).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(PYTHON, &mut command);
        let stdin = child.child().stdin.take();
        let stdout = child.child().stdout.take().expect("a pipe");
        let (say, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        Saying { child, stdin, lines }
    }

    /// The next line.
    fn line(&self) -> String {
        self.lines.recv_timeout(crate::world::PATIENCE).unwrap_or_else(|error| panic!("it says nothing: {error}"))
    }

    /// Everything it says before it says `last`.
    fn lines_to(&self, last: &str) -> Vec<String> {
        std::iter::repeat_with(|| self.line()).take_while(|line| line != last).collect()
    }

    /// Everything it says until it ends.
    fn rest(mut self) -> Vec<String> {
        let status = self.child.wait();
        assert!(status.success(), "{status}");
        self.lines.iter().collect()
    }
}

/// The gateway before a server.
fn start() -> (Gateway, Saying) {
    let server = Saying::start(SERVER, &[]);
    let port = server.line().parse().expect("the server says its port");
    let gateway = Gateway::start(YAML, &[("alpha", SocketAddr::from(([127, 0, 0, 1], port)))]);
    (gateway, server)
}

fn client(gateway: &Gateway, what: &str) -> Saying {
    Saying::start(CLIENT, &[&gateway.web().to_string(), what])
}

#[test]
fn unary_calls_and_all_three_kinds_of_streams_pass_with_their_metadata() {
    let (gateway, _server) = start();
    assert_eq!(
        client(&gateway, "unary").rest(),
        ["unary b'hello' OK", "metadata first b'\\x00\\xff\\x01' yes b'\\x00\\x01\\xfe'", "empty b''"]
    );
    assert_eq!(
        client(&gateway, "streams").rest(),
        ["collected b'ABCDEFGHIJKLMNOPQRST'", "counted 4950", "talked True"]
    );
    let lines = gateway.wait_for_access_log(5);
    assert!(lines.iter().all(|line| line["protocol"] == "HTTP/2.0" && line["status"] == 200), "{lines:?}");
    gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], 0.0);
}

#[test]
fn errors_pass_in_trailers_and_in_answers_that_are_nothing_else() {
    let (gateway, _server) = start();
    let said = client(&gateway, "errors").rest();
    assert_eq!(said[0], "FAILED_PRECONDITION not now: sorry");
    assert_eq!(said[1], "UNIMPLEMENTED Method not found!");
    assert!(said[2].starts_with("UNKNOWN Exception iterating responses"), "{said:?}");
}

#[test]
fn deadlines_and_cancellations_reach_the_server() {
    let (gateway, server) = start();
    let said = client(&gateway, "deadline").rest();
    let number = said[0].strip_prefix("call ").expect("which of its calls arrived in time");
    assert!(said[1].starts_with("DEADLINE_EXCEEDED"), "{said:?}");
    let heard = server.lines_to(&format!("gone {number}"));
    assert!(heard.contains(&format!("waiting {number} True")), "it knows of the deadline: {heard:?}");
    let said = client(&gateway, "cancel").rest();
    assert_eq!(said, ["cancelled [0, 1, 2] CANCELLED Locally cancelled by application!"]);
    server.lines_to("gone");
    gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], 0.0);
}

#[test]
fn large_messages_and_many_calls_at_once_pass() {
    let (gateway, _server) = start();
    assert_eq!(client(&gateway, "large").rest(), ["large 4194304 True"]);
    assert_eq!(client(&gateway, "many").rest(), ["many True"]);
    let answered = gateway.metric("sluice_requests_total", &[("route", "all"), ("status_class", "2xx")]);
    assert!((answered - 201.0).abs() < 0.1, "{answered}");
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_a_stream_is_unavailable() {
    let (gateway, server) = start();
    let mut client = client(&gateway, "killed");
    assert_eq!(client.line(), "begun 0");
    drop(server);
    wait_until("the stream has ended", || gateway.metric("sluice_requests_in_flight", &[("route", "all")]) < 1.0);
    client.stdin.take().expect("a pipe").write_all(b"\n").expect("the client reads");
    let said = client.rest();
    assert_eq!(said, ["killed UNAVAILABLE", "after UNAVAILABLE"]);
}
