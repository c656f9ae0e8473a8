//! Real clients that speak HTTP/2, through the real binary: curl, nghttp, h2load, and over TLS a browser and a WebSocket
//! library. `./test` installs them.

use crate::authority::{Authority, Pair};
use crate::clients::{PYTHON, browse, curl, curl_says, echo, nobody, serve};
use crate::world::{Gate, Provider, Sluice, wait_until};
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// A listener in the clear and one with TLS; the places `{web}` and `{secure}`.
const YAML: &str = "
listeners:
  - { name: web, bind: \"{web}\" }
  - { name: secure, bind: \"{secure}\", tls: { certificates: [{certificate}] } }
providers: { alpha: { url: \"http://{alpha}\" }, echo: { url: \"http://{echo}\" } }
pools: { main: { providers: [alpha] }, sockets: { providers: [echo] } }
routes:
  - { name: all, match: { path: \"/*\" }, pool: main }
  - { name: sockets, match: { path: /ws }, pool: sockets }
";

/// The binary before a provider in HTTP/1, with a certificate for `localhost`.
struct World {
    sluice: Sluice,
    _alpha: Provider,
    secure: SocketAddr,
    authority: Authority,
}

fn start(echo: SocketAddr) -> World {
    let authority = Authority::new();
    let pair: Pair = authority.sign("localhost", &["localhost", "127.0.0.1"]);
    let gate = Gate::default();
    let alpha = Provider::scripted(move |peer| while serve(peer, &gate) {});
    let secure = crate::world::free_address();
    let yaml = YAML.replace("{certificate}", &pair.yaml());
    let places = [("alpha", alpha.address()), ("echo", echo), ("secure", secure)];
    World { sluice: Sluice::spawn(&yaml, &places), _alpha: alpha, secure, authority }
}

/// Runs a program that is expected to succeed; everything that it prints.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program} does not start ({error}): ./test installs it"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

#[test]
fn curl_speaks_http2_by_prior_knowledge_and_is_not_upgraded_to_it() {
    let world = start(nobody());
    let url = |path: &str| format!("http://{}{path}", world.sluice.web());
    let version = ["--write-out", " %{http_version}"];
    let ask = |how: &str, more: &[&str], input: &[u8]| curl_says(&[&[how], &version[..], more].concat(), input);
    let known = "--http2-prior-knowledge";
    assert_eq!(ask(known, &[&url("/a")], b""), "hello 2");
    // An upgrade is asked for, and not granted: the answer comes in HTTP/1.1.
    assert_eq!(ask("--http2", &[&url("/a")], b""), "hello 1.1");
    let body = vec![b'x'; 300_000];
    assert_eq!(ask("--http2", &["--data-binary", "@-", &url("/a")], &body)[..11], *"300000 none");

    let head = ask(known, &["--head", &url("/a")], b"");
    assert!(head.starts_with("HTTP/2 200 \r\n") && head.contains("content-length: 12345\r\n"), "{head}");
    let posted = ask(known, &["--data-binary", "@-", &url("/a")], &body);
    assert!(posted.starts_with("300000 none ") && posted.ends_with(" 2"), "{posted}");
    let uploaded = ask(known, &["--upload-file", "-", &url("/a")], &body);
    assert!(uploaded.starts_with("300000 chunked ") && uploaded.ends_with(" 2"), "{uploaded}");
    let traced =
        curl(&[known, "--verbose", "--header", "Expect: 100-continue", "--data-binary", "@-", &url("/a")], &body);
    let trace = String::from_utf8_lossy(&traced.stderr);
    assert!(trace.contains("< HTTP/2 100"), "{trace}");
    let folder = tempfile::tempdir().expect("a folder");
    let down = folder.path().join("down").display().to_string();
    curl(&[known, "--output", &down, &url("/file")], b"");
    assert_eq!(fs::read(&down).expect("curl wrote it"), crate::clients::file());
}

#[test]
fn curl_agrees_on_http2_over_tls() {
    let world = start(nobody());
    let ca = world.authority.path().display().to_string();
    let url = format!("https://localhost:{}/a", world.secure.port());
    let ask = |how: &str| curl_says(&[how, "--cacert", &ca, "--write-out", " %{http_version}", &url], b"");
    assert_eq!(ask("--http2"), "hello 2");
    assert_eq!(ask("--http1.1"), "hello 1.1");
}

#[test]
fn h2load_finds_no_failed_request_at_100_streams_on_each_of_10_connections() {
    let world = start(nobody());
    let urls = [format!("http://{}/a", world.sluice.web()), format!("https://localhost:{}/a", world.secure.port())];
    for url in &urls {
        let said = run("h2load", &["--requests=4000", "--clients=10", "--max-concurrent-streams=100", url]);
        let counted = "requests: 4000 total, 4000 started, 4000 done, 4000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(said.contains(counted) && said.contains("status codes: 4000 2xx"), "{said}");
    }
    wait_until("nothing is under way", || world.sluice.metric("sluice_requests_in_flight", &[]) < 1.0);
    let answered = world.sluice.metric("sluice_requests_total", &[("route", "all"), ("status_class", "2xx")]);
    assert!((answered - 8000.0).abs() < 0.1, "{answered}");
}

#[test]
fn nghttp_sends_trailers_padding_and_long_heads() {
    let world = start(nobody());
    let url = format!("http://{}/a", world.sluice.web());
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    fs::write(&data, "x".repeat(100_000)).expect("a file");
    let long = format!("x-long: {}", "y".repeat(20_000));
    let how = ["--verbose", "--padding=32", "--continuation", "--trailer=x-sum: 1", "--header", &long, "--data", &data];
    let said = run("nghttp", &[&how[..], &[&url]].concat());
    assert!(said.contains(":status: 200") && said.contains("100000 none "), "{}", said.replace(['y', '-'], ""));
}

#[test]
fn a_websocket_library_talks_over_tls() {
    let (_server, echo) = echo();
    let world = start(echo);
    let (url, ca) = (format!("wss://localhost:{}/ws", world.secure.port()), world.authority.path());
    let said = run(PYTHON, &["-c", TALK, &url, &ca.display().to_string()]);
    assert_eq!(said, "closed 1000\n");
}

#[test]
fn a_browser_speaks_http2_over_tls_also_for_its_websocket() {
    let (_server, echo) = echo();
    let world = start(echo);
    // The authority is nobody's whom a browser knows.
    let said = browse(&format!("https://127.0.0.1:{}/page", world.secure.port()), &["--ignore-certificate-errors"]);
    assert_eq!(said.last().map(String::as_str), Some("end"), "{said:?}");
    assert!(said.contains(&"protocol h2".to_owned()), "{said:?}");
    assert!(said.contains(&"socket hello".to_owned()) && said.contains(&"closed 1000 true".to_owned()), "{said:?}");
    // Had it opened a connection of its own for the WebSocket, that would have been one in HTTP/1.
    let lines = world.sluice.log();
    let socket = lines.iter().find(|line| line["route"] == "sockets").expect("a WebSocket");
    assert_eq!((&socket["protocol"], &socket["status"]), (&"HTTP/2.0".into(), &101.into()), "{socket}");
}

const TALK: &str = "
import asyncio, os, ssl, sys, websockets

async def main():
    trust = ssl.create_default_context(cafile=sys.argv[2])
    async with websockets.connect(sys.argv[1], ssl=trust, proxy=None) as socket:
        for number in range(50):
            data = os.urandom(1000 * number)
            await socket.send(data)
            assert await socket.recv() == data
    print('closed', socket.close_code)

asyncio.run(main())
";
