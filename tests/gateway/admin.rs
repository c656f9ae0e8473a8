//! What operators' tools and eyes get: metrics that Prometheus's own checker takes, and no secret anywhere.

use crate::world::{BEFORE, Gateway, Provider, Sluice, Wire, wait_until};
use rustix::process::Signal;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// The bodies of a few answers of every kind that have numbers of their own.
fn make_numbers(web: SocketAddr) {
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 200),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", 200),
        ("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\n\r\n", 400),
    ] {
        let mut client = Wire::connect(web);
        client.send(request);
        assert_eq!(client.answer().status(), status, "{request}");
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let alpha = Provider::answering(HELLO);
    let gateway = Gateway::before(&alpha);
    make_numbers(gateway.web());
    gateway.wait_for_metric("sluice_requests_total", &[("route", "all"), ("status_class", "2xx")], 2.0);
    let page = gateway.metrics();
    assert!(page.contains("sluice_request_duration_seconds_bucket"), "{page}");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts: it is in Debian's package `prometheus`");
    promtool.stdin.take().expect("a pipe").write_all(page.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}\n{page}", String::from_utf8_lossy(&said));
}

/// Secrets in every place that takes one, written and from outside.
const SECRETIVE: &str = "
version: 1
workers: 1
admin:
  bind: \"{admin}\"
  tokens:
    - { name: ops, token: \"${CANARY_TOKEN}\", role: operate }
    - { name: eyes, token: canary-written-token, role: read }
reload: { watch: false }
log: { level: trace, format: json, file: \"{dir}/log\" }
listeners: [ { name: web, bind: \"{web}\" } ]
providers:
  alpha:
    url: \"http://{alpha}\"
    headers: { set: { authorization: \"Bearer ${CANARY_KEY}\", x-file: \"${file:{dir}/key}\", x-written: canary-written-key } }
  dead: { url: \"http://127.0.0.1:9\", headers: { set: { authorization: \"Bearer ${CANARY_KEY}\" } } }
pools: { main: { providers: [alpha] }, none: { providers: [dead] } }
routes:
  - { name: all, match: { path: \"/*\" }, pool: main, rewrite: { headers: { set: { x-route: \"${CANARY_KEY}\" } } } }
  - { name: dead, match: { path: \"/dead/*\" }, pool: none }
";

const TOKEN: &str = "canary-outside-token";
const KEY: &str = "canary-outside-key";

fn admin(sluice: &Sluice, token: &str, line: &str, body: &str) -> String {
    let mut wire = Wire::connect(sluice.admin());
    let fields = format!("host: localhost\r\nauthorization: Bearer {token}\r\nconnection: close");
    wire.send(format!("{line} HTTP/1.1\r\n{fields}\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    String::from_utf8(wire.rest()).expect("text")
}

/// What there is to look at.
const PATHS: [&str; 16] = [
    "/",
    "/metrics",
    "/health/ready?verbose",
    "/health/providers",
    "/health/dependencies",
    "/api/v1/config",
    "/api/v1/queues",
    "/api/v1/queues/main",
    "/api/v1/queues/main/requests",
    "/api/v1/circuit-breakers",
    "/api/v1/providers",
    "/api/v1/load-balancing",
    "/api/v1/retry",
    "/api/v1/degradation",
    "/api/v1/cache",
    "/api/v1/overrides",
];

/// Everything the gateway says to operators, in all its moods.
fn everything(sluice: &Sluice) -> String {
    let mut said = String::new();
    for path in PATHS {
        let _ = writeln!(said, "{}", admin(sluice, TOKEN, &format!("GET {path}"), ""));
    }
    let _ = writeln!(said, "{}", admin(sluice, TOKEN, "POST /api/v1/config/reload", ""));
    let _ = writeln!(said, "{}", admin(sluice, "canary-wrong-token", "GET /api/v1/config", ""));
    said
}

fn run(sluice: &Sluice, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(arguments)
        .arg("--config")
        .arg(sluice.path())
        .envs([("CANARY_TOKEN", TOKEN), ("CANARY_KEY", KEY)])
        .output()
        .expect("the binary starts");
    assert!(!(output.stdout.is_empty() && output.stderr.is_empty()), "{arguments:?} says nothing");
    String::from_utf8([output.stdout, output.stderr].concat()).expect("text")
}

#[test]
fn no_secret_shows_in_anything_that_is_said() {
    let alpha = Provider::answering(HELLO);
    // A folder exists only once the binary has one, so the key lies in a folder of its own.
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("key"), "canary-file-key\n").expect("a file");
    let yaml = SECRETIVE.replace("{dir}/key", &folder.path().join("key").display().to_string());
    let variables = [("CANARY_TOKEN", TOKEN), ("CANARY_KEY", KEY)];
    let sluice = Sluice::spawn_with(&yaml, &[("alpha", alpha.address())], &variables);

    let mut said = String::new();
    for path in ["/", "/dead/x"] {
        let mut client = sluice.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: canary-client\r\ncookie: a=canary-cookie\r\nconnection: close\r\n\r\n"));
        said.push_str(&String::from_utf8_lossy(&client.rest()));
    }
    // The secrets are in use: the provider has seen all of them.
    let seen = alpha.requests()[0].head.clone();
    let values = ["authorization", "x-file", "x-written", "x-route"].map(|name| seen.value(name));
    let expected = ["Bearer canary-outside-key", "canary-file-key", "canary-written-key", KEY];
    assert_eq!(values, expected.map(Some));

    said.push_str(&everything(&sluice));
    assert!(said.contains("\"applied\""), "the token lets us see: {said}");
    for command in [&["check"][..], &["explain", "GET", "/a"]] {
        said.push_str(&run(&sluice, command));
    }
    // A secret in the wrong place is a mistake whose message must not repeat it.
    let misplaced = yaml
        .replace("workers: 1", "workers: \"${CANARY_KEY}\"")
        .replace("role: read", "role: \"${CANARY_TOKEN}\"")
        .replace("providers: [dead]", "providers: [\"${CANARY_KEY}\"]");
    sluice.rewrite(&misplaced);
    said.push_str(&everything(&sluice));
    said.push_str(&run(&sluice, &["check"]));
    said.push_str(&admin(&sluice, TOKEN, "POST /api/v1/config/check", &misplaced));
    assert!(said.contains("rejected") && said.contains("workers"), "the mistakes are told: {said}");
    // One that changes is a change whose value is not told.
    sluice.rewrite(
        &yaml.replace("canary-written-key", "canary-other-key").replace("Bearer ${CANARY_KEY}", "${CANARY_TOKEN}"),
    );
    said.push_str(&everything(&sluice));
    assert!(said.contains("authorization"), "the change is told: {said}");
    sluice.signal(Signal::HUP);
    wait_until("the reload is in the log", || {
        sluice.log().iter().filter(|line| line.to_string().contains("applied")).count() >= 2
    });
    said.push_str(&sluice.output());
    said.push_str(&fs::read_to_string(sluice.path().with_file_name("log")).expect("the log"));

    for line in said.lines() {
        assert!(!line.contains("canary-"), "a secret shows: {line}");
    }
}
