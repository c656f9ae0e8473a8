//! Real clients through the real binary: curl, wrk, a WebSocket library, a browser.
//!
//! Each program is a Debian package that `./test` installs. Where one is missing its test fails and names the package: a
//! test that passes because it did nothing is worse than none.

use crate::world::{Gate, Peer, Provider, Sluice, wait_until};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

/// One pool for everything, and one for what answers WebSockets.
const YAML: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\" }, echo: { url: \"http://{echo}\" } }
pools: { main: { providers: [alpha] }, sockets: { providers: [echo] } }
routes:
  - { name: all, match: { path: \"/*\" }, pool: main }
  - { name: sockets, match: { path: /ws }, pool: sockets }
";

/// A child of ours, killed when it is dropped.
pub(crate) struct Running(Child);

impl Running {
    /// The process.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.0.try_wait().expect("a child of ours");
            status.is_some()
        });
        status.unwrap_or_else(|| unreachable!("it was waited for"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already needs no ending.
        let _: std::io::Result<()> = self.0.kill();
        let _: std::io::Result<std::process::ExitStatus> = self.0.wait();
    }
}

/// The binary before a provider that does what [`serve`] says.
fn start(echo: SocketAddr) -> (Sluice, Provider) {
    let gate = Gate::default();
    let alpha = Provider::scripted(move |peer| while serve(peer, &gate) {});
    let sluice = Sluice::spawn(YAML, &[("alpha", alpha.address()), ("echo", echo)]);
    (sluice, alpha)
}

/// An address where nobody answers.
pub(crate) fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

/// One request at the provider; whether the connection goes on.
pub(crate) fn serve(peer: &mut Peer, gate: &Gate) -> bool {
    if !peer.wire.begins() {
        return false;
    }
    let head = peer.wire.head();
    if head.value("expect").is_some() {
        peer.wire.send("HTTP/1.1 100 Continue\r\n\r\n");
    }
    let request = peer.wire.body(head, false);
    let mut words = request.head.line.split(' ');
    match (words.next().unwrap_or_default(), words.next().unwrap_or_default()) {
        ("HEAD", _) => peer.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 12345\r\nx-who: alpha\r\n\r\n"),
        ("POST" | "PUT", _) => {
            let coded = request.value("transfer-encoding").unwrap_or("none");
            peer.answer("200 OK", &format!("{} {coded} {}", request.body.len(), sum(&request.body)));
        }
        (_, "/file") => send_file(peer, request.value("range")),
        (_, "/page") => peer.wire.send(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\n\r\n{PAGE}",
            PAGE.len()
        )),
        (_, "/events") => {
            peer.wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
            for number in 1..=3 {
                peer.wire.send_chunk(&format!("data: {number}\n\n"));
            }
            // Not ended here: the browser closes it once it has seen all three.
            return peer.wire.begins();
        }
        (_, "/hold") => {
            gate.pass();
            peer.wire.send("HTTP/1.1 204 No Content\r\n\r\n");
        }
        (_, "/done") => {
            gate.open();
            peer.answer("200 OK", "done");
        }
        _ => peer.answer("200 OK", "hello"),
    }
    true
}

/// The file, or the part of it from where the range begins.
fn send_file(peer: &mut Peer, range: Option<&str>) {
    let file = file();
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let (status, from) = from.map_or(("200 OK", 0), |from| ("206 Partial Content", from));
    let range = format!("content-range: bytes {from}-{}/{}", file.len() - 1, file.len());
    let length = file.len() - from;
    peer.wire.send(format!("HTTP/1.1 {status}\r\n{range}\r\netag: \"one\"\r\ncontent-length: {length}\r\n\r\n"));
    peer.wire.send(&file[from..]);
}

/// Three mebibytes and a bit that are different everywhere.
pub(crate) fn file() -> Vec<u8> {
    (0_u32..800_000).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

/// Enough of a checksum to tell bodies apart.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

/// Starts a program. What is missing where it does not start, `./test` installs.
pub(crate) fn spawn(program: &str, command: &mut Command) -> Running {
    let child = command.spawn();
    Running(child.unwrap_or_else(|error| panic!("{program} does not start ({error}): ./test installs it")))
}

pub(crate) fn curl(arguments: &[&str], input: &[u8]) -> Output {
    let always = ["--silent", "--show-error", "--fail", "--max-time", "20", "--noproxy", "*"];
    let mut command = Command::new("curl");
    command.args(always).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut curl =
        command.spawn().unwrap_or_else(|error| panic!("curl does not start ({error}): install Debian's `curl`"));
    let mut stdin = curl.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // It may not want any of it.
        let _: std::io::Result<()> = stdin.write_all(&input);
    });
    let output = curl.wait_with_output().expect("curl ends");
    feeder.join().expect("curl was fed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

pub(crate) fn curl_says(arguments: &[&str], input: &[u8]) -> String {
    String::from_utf8(curl(arguments, input).stdout).expect("text")
}

#[test]
fn curl_gets_posts_uploads_and_resumes() {
    let (sluice, _alpha) = start(nobody());
    let url = |path: &str| format!("http://{}{path}", sluice.web());
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let file = file();
    fs::write(at("up"), &file).expect("a file");
    let whole = format!("{} none {}", file.len(), sum(&file));

    assert_eq!(curl_says(&[&url("/a")], b""), "hello");
    assert_eq!(curl_says(&["--http1.0", &url("/a")], b""), "hello");
    // Two on one connection.
    assert_eq!(curl_says(&[&url("/a"), &url("/b")], b""), "hellohello");

    let head = curl_says(&["--head", &url("/a")], b"");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("content-length: 12345\r\n"), "{head}");

    let data = format!("@{}", at("up"));
    let posted = curl(&["--verbose", "--header", "Expect: 100-continue", "--data-binary", &data, &url("/a")], b"");
    assert_eq!(String::from_utf8_lossy(&posted.stdout), whole);
    let trace = String::from_utf8_lossy(&posted.stderr);
    assert!(trace.contains("< HTTP/1.1 100 Continue"), "{trace}");

    let chunked = format!("{} chunked {}", file.len(), sum(&file));
    assert_eq!(curl_says(&["--upload-file", "-", &url("/a")], &file), chunked);

    curl(&["--output", &at("down"), &url("/file")], b"");
    assert_eq!(sum(&fs::read(at("down")).expect("curl wrote it")), sum(&file));
    fs::write(at("down"), &file[..1_000_000]).expect("a file");
    curl(&["--continue-at", "-", "--output", &at("down"), &url("/file")], b"");
    assert_eq!(sum(&fs::read(at("down")).expect("curl wrote it")), sum(&file));
}

#[test]
fn wrk_finds_no_error_under_load() {
    let (sluice, _alpha) = start(nobody());
    let url = format!("http://{}/a", sluice.web());
    let output = Command::new("wrk").args(["--threads", "1", "--connections", "16", "--duration", "2s", &url]).output();
    let output = output.unwrap_or_else(|error| panic!("wrk does not start ({error}): install Debian's `wrk`"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let requests = said.lines().find_map(|line| line.trim().split_once(" requests in"));
    let requests: u64 = requests.and_then(|(number, _)| number.parse().ok()).expect("wrk counts requests");
    assert!(requests > 100, "{said}");
    // What it cut off at the end of its time is all that is not a success.
    wait_until("nothing is under way", || sluice.metric("sluice_requests_in_flight", &[("route", "all")]) < 1.0);
    let answered = sluice.metric("sluice_requests_total", &[("route", "all"), ("status_class", "2xx")]);
    let all = sluice.metric("sluice_requests_total", &[("route", "all")]);
    assert!(answered >= requests as f64 && all - answered <= 16.0, "{answered} of {all} for wrk's {requests}");
}

/// A WebSocket server that repeats what it hears, by Python's `websockets`; and its address.
pub(crate) fn echo() -> (Running, SocketAddr) {
    let mut command = Command::new(PYTHON);
    command.args(["-c", ECHO]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = spawn(PYTHON, &mut command);
    let mut line = String::new();
    let stdout = server.0.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("it says its port");
    let port = line.trim().parse().expect("the server says its port");
    (server, SocketAddr::from(([127, 0, 0, 1], port)))
}

#[test]
fn a_websocket_library_talks_and_closes() {
    let (_server, echo) = echo();
    let (sluice, _alpha) = start(echo);
    let url = format!("ws://{}/ws", sluice.web());
    let output = Command::new(PYTHON).args(["-c", TALK, &url]).output().expect("python starts: it ran the server");
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&said), "closed 1000\n");
    wait_until("nothing is under way", || sluice.metric("sluice_requests_in_flight", &[("route", "sockets")]) < 1.0);
    assert!(sluice.metric("sluice_requests_total", &[("route", "sockets"), ("status_class", "1xx")]) > 0.0);
}

/// Has a browser load [`PAGE`] from `url`, with these arguments more; what the page says, a line each.
pub(crate) fn browse(url: &str, more: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let dom = folder.path().join("dom");
    let output = File::create(&dom).expect("a file");
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
        ])
        .args(["--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"])
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .args(["--dump-dom", url])
        .args(more)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::null());
    let mut chromium = spawn("chromium", &mut command);
    let mut status = None;
    for _ in 0..BROWSER_PATIENCE {
        status = chromium.0.try_wait().expect("a child of ours");
        if status.is_some() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let dom = fs::read_to_string(dom).expect("a file");
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {dom}");
    let said = dom.split_once("<pre id=\"said\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let (said, _) = said.unwrap_or_else(|| panic!("no page: {dom}"));
    said.lines().map(str::to_owned).collect()
}

#[test]
fn a_browser_loads_fetches_listens_and_talks() {
    let (_server, echo) = echo();
    let (sluice, _alpha) = start(echo);
    let body = "x".repeat(100_000);
    let expected = [
        "fetch 200 hello".to_owned(),
        format!("post 100000 none {}", sum(body.as_bytes())),
        "event 1".to_owned(),
        "event 2".to_owned(),
        "event 3".to_owned(),
        "socket hello".to_owned(),
        "closed 1000 true".to_owned(),
        "end".to_owned(),
    ];
    let said = browse(&format!("http://{}/page", sluice.web()), &[]);
    let said: Vec<_> = said.into_iter().filter(|line| !line.starts_with("protocol ")).collect();
    assert_eq!(said, expected);
}

/// That of the environment which `./test` makes from `tests/requirements.txt`.
pub(crate) const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python");

const ECHO: &str = "
import asyncio, websockets

async def repeat(socket, *_):
    async for message in socket:
        await socket.send(message)

async def main():
    async with websockets.serve(repeat, '127.0.0.1', 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()

asyncio.run(main())
";

const TALK: &str = "
import asyncio, os, sys, websockets

async def main():
    async with websockets.connect(sys.argv[1]) as socket:
        for number in range(100):
            text, data = f'message {number} ' + 'x' * 100 * number, os.urandom(1000)
            await socket.send(text)
            await socket.send(data)
            assert await socket.recv() == text
            assert await socket.recv() == data
        await asyncio.wait_for(await socket.ping(), 20)
    print('closed', socket.close_code)

asyncio.run(main())
";

/// Its picture is answered only once its script is through, so that the page is loaded, and shown, no earlier.
const PAGE: &str = "<!doctype html>
<title>A page</title>
<img src='/hold' alt=''>
<pre id='said'></pre>
<script>
const say = line => { document.getElementById('said').textContent += line + '\\n'; };
const fetched = async () => {
  const answer = await fetch('/a');
  say('fetch ' + answer.status + ' ' + await answer.text());
  const posted = await fetch('/a', { method: 'POST', body: 'x'.repeat(100000) });
  say('post ' + await posted.text());
  say('protocol ' + performance.getEntriesByType('navigation')[0].nextHopProtocol);
};
const listened = () => new Promise((done, fail) => {
  const source = new EventSource('/events');
  source.onerror = () => fail('events broke');
  source.onmessage = event => {
    say('event ' + event.data);
    if (event.data === '3') { source.close(); done(); }
  };
});
const talked = () => new Promise(done => {
  const socket = new WebSocket(location.protocol.replace('http', 'ws') + '//' + location.host + '/ws');
  socket.onopen = () => socket.send('hello');
  socket.onmessage = event => { say('socket ' + event.data); socket.close(1000); };
  socket.onclose = event => { say('closed ' + event.code + ' ' + event.wasClean); done(); };
});
fetched().then(listened).then(talked).then(() => say('end'), error => say('failed: ' + error)).finally(() => fetch('/done'));
</script>
";

/// Tenths of a second a browser may take; it starts slowly on a busy machine.
const BROWSER_PATIENCE: u32 = 900;
