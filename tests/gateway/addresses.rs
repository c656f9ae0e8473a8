//! Where clients come from and providers are: unix sockets, PROXY headers in and out, IPv6; how many connections there may
//! be from one address, and how old they may become.

use crate::world::{Extra, Gateway, Provider, Sluice, Wire, wait_until};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A gateway whose listener `web` has these settings beside its name, and whose provider is `alpha`.
fn gateway(listener: &str, alpha: &Provider) -> Gateway {
    try_gateway(listener, alpha).unwrap_or_else(|error| panic!("{error}"))
}

fn try_gateway(listener: &str, alpha: &Provider) -> Result<Gateway, String> {
    let yaml = yaml(listener, "http://{alpha}");
    Gateway::try_start(&yaml, &[("alpha", alpha.address())]).map_err(|error| error.to_string())
}

fn yaml(listener: &str, alpha: &str) -> String {
    format!(
        "
listeners: [ {{ name: web, {listener} }} ]
providers: {{ alpha: {{ url: \"{alpha}\" }} }}
pools: {{ main: {{ providers: [alpha] }} }}
routes: [ {{ name: all, match: {{ path: \"/*\" }}, pool: main }} ]
"
    )
}

/// A folder for sockets, and the path of one in it.
fn socket() -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("s.sock");
    (folder, path)
}

fn at(path: &Path) -> String {
    format!("bind: \"unix:{}\"", path.display())
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).expect("it is there").ino()
}

fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(["-sS", "--max-time", "20"]).args(arguments).output().expect("curl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The one line of the access log after `requests` requests, the last of them.
fn last_line(gateway: &Gateway, requests: usize) -> serde_json::Value {
    gateway.wait_for_access_log(requests).pop().expect("a line")
}

/// A listener that expects PROXY headers from this machine, with more settings.
fn behind_balancer(alpha: &Provider, more: &str) -> Gateway {
    let listener =
        format!("bind: \"127.0.0.1:0\", proxy_protocol: true, trusted_proxies: [127.0.0.1, 10.0.0.0/8]{more}");
    gateway(&listener, alpha)
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [V2, &[command, family], &len, rest].concat()
}

// --- unix sockets ---

#[test]
fn clients_of_a_unix_socket_are_served_by_every_worker_and_have_no_address() {
    let alpha = Provider::answering(OK);
    let (_folder, path) = socket();
    let yaml = crate::world::PREAMBLE.replace("workers: 1", "workers: 3") + &yaml(&at(&path), "http://{alpha}");
    let gateway = Gateway::start(&yaml, &[("alpha", alpha.address())]);
    let unix = path.display().to_string();
    assert_eq!(curl(&["--unix-socket", &unix, "http://localhost/"]), "ok");
    let request = &alpha.requests()[0].head;
    assert_eq!(request.value("x-forwarded-for"), Some("unknown"));
    assert_eq!(request.value("forwarded"), Some("for=unknown;host=\"localhost\";proto=http"));
    assert_eq!(last_line(&gateway, 1)["client_address"], "unix:");

    let mut clients: Vec<Wire> = (0..50).map(|_| Wire::at_path(&path)).collect();
    for client in &mut clients {
        client.send(GET);
    }
    for client in &mut clients {
        assert_eq!(client.answer().text(), "ok");
    }
    gateway.stop();
    assert!(!path.exists(), "the file outlives the gateway");
}

#[test]
fn the_socket_of_a_listener_that_a_reload_keeps_stays_and_that_of_one_it_removes_goes() {
    let alpha = Provider::answering(OK);
    let (_folder, path) = socket();
    let gateway = gateway(&at(&path), &alpha);
    let before = inode(&path);
    let mut client = Wire::at_path(&path);
    client.send(GET);
    assert_eq!(client.answer().text(), "ok");
    gateway.rewrite(&yaml(&format!("{}, limits: {{ headers: 50 }}", at(&path)), "http://{alpha}"));
    gateway.reload().expect("a valid file");
    assert_eq!(inode(&path), before);
    client.send(GET);
    assert_eq!(client.answer().text(), "ok");

    gateway.rewrite(&yaml("bind: \"127.0.0.1:0\"", "http://{alpha}"));
    gateway.reload().expect("a valid file");
    assert!(!path.exists());
    client.send(GET);
    assert_eq!(client.answer().value("connection"), Some("close"), "who is connected is answered a last time");

    gateway.rewrite(&yaml(&at(&path), "http://{alpha}"));
    gateway.reload().expect("a valid file");
    assert_eq!(curl(&["--unix-socket", &path.display().to_string(), "http://localhost/"]), "ok");
}

#[test]
fn a_stale_socket_is_replaced_and_what_lives_or_is_no_socket_is_refused_with_the_next_step() {
    let alpha = Provider::answering(OK);
    let (folder, path) = socket();
    let living = UnixListener::bind(&path).expect("a free path");
    let told = try_gateway(&at(&path), &alpha).expect_err("somebody is there");
    let start = format!("listener `web` cannot listen on unix:{}: ", path.display());
    assert!(told.starts_with(&start) && told.ends_with("stop that one, or choose another `bind`"), "{told}");
    UnixStream::connect(&path).expect("nothing happened to it");
    drop(living);
    let gateway = gateway(&at(&path), &alpha);
    let mut client = Wire::at_path(&path);
    client.send(GET);
    assert_eq!(client.answer().text(), "ok");
    drop(gateway);

    fs::write(&path, "precious").expect("a file");
    let told = try_gateway(&at(&path), &alpha).expect_err("a file is there");
    assert!(told.contains("a file is there that is no socket; it is not removed"), "{told}");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious");
    let nowhere = folder.path().join("nowhere").join("s.sock");
    let told = try_gateway(&at(&nowhere), &alpha).expect_err("no folder");
    assert!(told.ends_with("create its folder, or choose another `bind`"), "{told}");
}

#[test]
fn who_connects_to_a_unix_socket_is_believed_only_where_that_is_written() {
    let alpha = Provider::answering(OK);
    let (_folder, path) = socket();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\nX-Request-Id: theirs\r\n\r\n";
    for (trusted, seen, logged) in
        [("", "unknown", "unix:"), (", trusted_proxies: [unix]", "192.0.2.7, unknown", "192.0.2.7")]
    {
        let gateway = gateway(&format!("{}{trusted}", at(&path)), &alpha);
        let mut client = Wire::at_path(&path);
        client.send(request);
        client.answer();
        let requests = alpha.requests();
        let head = &requests.last().expect("a request").head;
        assert_eq!(head.value("x-forwarded-for"), Some(seen));
        assert_eq!(head.value("x-request-id") == Some("theirs"), !trusted.is_empty());
        assert_eq!(last_line(&gateway, 1)["client_address"], logged);
    }
}

#[test]
fn a_provider_may_be_behind_a_unix_socket() {
    let (_folder, path) = socket();
    let listener = UnixListener::bind(&path).expect("a free path");
    let places = [("x", SocketAddr::from(([127, 0, 0, 1], 1)))];
    let yaml = yaml("bind: \"127.0.0.1:0\"", &format!("http://unix:{}:/v1", path.display()));
    let gateway = Gateway::start(&yaml, &places);
    let mut client = gateway.connect();
    client.send("GET /things HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut provider = Wire::on_unix(listener.accept().expect("the gateway connects").0);
    for _ in 0..2 {
        let request = provider.request().expect("a request");
        assert_eq!(request.head.line, "GET /v1/things HTTP/1.1");
        assert_eq!(request.value("host"), Some("localhost"));
        provider.send(OK);
        assert_eq!(client.answer().text(), "ok");
        client.send("GET /things HTTP/1.1\r\nHost: a\r\n\r\n");
    }
}

#[test]
fn a_unix_socket_that_leads_nowhere_is_told_with_its_path_and_the_next_step() {
    let (_folder, path) = socket();
    let yaml = yaml("bind: \"127.0.0.1:0\"", &format!("http://unix:{}", path.display()));
    let gateway = Gateway::start(&yaml, &[]);
    let mut client = gateway.connect();
    let mut told = |requests| {
        client.send(GET);
        let answer = client.answer();
        assert_eq!(answer.status(), 502, "{}", answer.text());
        assert!(!answer.text().contains("s.sock"), "the client is told where: {}", answer.text());
        last_line(&gateway, requests)["error"].as_str().expect("an error").to_owned()
    };
    let start = format!("cannot connect to unix:{}: ", path.display());
    let missing = told(1);
    assert!(missing.starts_with(&start) && missing.contains("No such file"), "{missing}");
    assert!(missing.ends_with("; start the provider, or correct the path in `url`"), "{missing}");
    drop(UnixListener::bind(&path).expect("a free path"));
    let refused = told(2);
    assert!(refused.contains("Connection refused") && refused.contains("nobody listens on that socket"), "{refused}");
}

// --- PROXY headers of clients ---

#[test]
fn the_client_that_a_balancer_announces_is_the_client_everywhere() {
    let alpha = Provider::answering(OK);
    let gateway = behind_balancer(&alpha, "");
    let inet6 = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[7], &[0; 15], &[1], &[0xc8, 0x22, 1, 0xbb]].concat();
    let headers = [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n".to_vec(), "192.0.2.7", "for=192.0.2.7"),
        (v2(0x21, 0x11, &[192, 0, 2, 8, 198, 51, 100, 1, 0, 1, 0, 2, 4, 0, 1, 0]), "192.0.2.8", "for=192.0.2.8"),
        (v2(0x21, 0x21, &inet6), "2001:db8::7", "for=\"[2001:db8::7]\""),
        // It speaks for itself, as its health checks do.
        (v2(0x20, 0, &[]), "127.0.0.1", "for=127.0.0.1"),
    ];
    for (index, (header, ip, forwarded)) in headers.into_iter().enumerate() {
        let mut client = gateway.connect();
        // In two pieces, the second with the request right behind the header.
        client.send(&header[..13]);
        client.send([&header[13..], GET.as_bytes()].concat());
        assert_eq!(client.answer().text(), "ok");
        client.send(GET);
        assert_eq!(client.answer().text(), "ok");
        for request in &alpha.requests()[2 * index..] {
            assert_eq!(request.value("x-forwarded-for"), Some(ip));
            assert!(request.value("forwarded").expect("a field").starts_with(forwarded));
        }
        assert_eq!(last_line(&gateway, 2 * index + 2)["client_address"], ip);
    }
    let web = format!("http://{}/", gateway.web());
    assert_eq!(curl(&["--haproxy-protocol", &web]), "ok");
    gateway.wait_for_metric("sluice_connections_refused_total", &[], 0.0);
}

#[test]
fn forwarding_fields_are_believed_from_the_announced_address_and_from_nobody_unnamed() {
    let alpha = Provider::answering(OK);
    let gateway = behind_balancer(&alpha, "");
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    let headers = [
        ("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n", "192.0.2.7"),
        ("PROXY TCP4 10.0.0.9 198.51.100.1 1 2\r\n", "6.6.6.6, 10.0.0.9"),
        ("PROXY UNKNOWN\r\n", "127.0.0.1"),
    ];
    for (header, seen) in headers {
        let mut client = gateway.connect();
        client.send(format!("{header}{request}"));
        client.answer();
        assert_eq!(alpha.requests().last().expect("a request").value("x-forwarded-for"), Some(seen));
    }
}

#[test]
fn what_is_no_proxy_header_closes_the_connection_at_once_and_is_counted() {
    let alpha = Provider::answering(OK);
    let gateway = behind_balancer(&alpha, "");
    let broken = [
        GET.as_bytes().to_vec(),
        b"PROXY TCP4 192.0.2.7\r\n".to_vec(),
        v2(0x11, 0x11, &[0; 12]),
        v2(0x21, 0x11, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 3, 0, 4, 0, 0, 0, 1]),
    ];
    for bytes in &broken {
        let mut client = gateway.connect();
        client.send(bytes);
        client.end();
    }
    let refused = [("listener", "web"), ("reason", "proxy_header")];
    gateway.wait_for_metric("sluice_connections_refused_total", &refused, 4.0);
    // Somebody who only looks whether the port is open does nothing wrong.
    drop(gateway.connect());
    let mut client = gateway.connect();
    client.send(format!("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n{GET}"));
    assert_eq!(client.answer().text(), "ok");
    drop(client);
    gateway.wait_for_metric("sluice_connections", &[("listener", "web")], 0.0);
    gateway.wait_for_metric("sluice_connections_refused_total", &refused, 4.0);
    assert_eq!(alpha.requests().len(), 1);
}

#[test]
fn the_log_names_who_is_refused_and_why_once_for_a_flood() {
    let alpha = Provider::answering(OK);
    let listener = "bind: \"{web}\", proxy_protocol: true, trusted_proxies: [127.0.0.1]";
    let gateway = Sluice::spawn(&yaml(listener, "http://{alpha}"), &[("alpha", alpha.address())]);
    let mut first = gateway.connect();
    let from = first.local().to_string();
    first.send(GET);
    first.end();
    for _ in 0..20 {
        let mut client = gateway.connect();
        client.send(GET);
        client.end();
    }
    let refusals = || {
        let lines = gateway.log().into_iter().map(|line| line.to_string());
        lines.filter(|line| line.contains("a connection is refused")).collect::<Vec<_>>()
    };
    wait_until("a line in the log", || !refusals().is_empty());
    let told = refusals();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("the connection does not begin with a PROXY header"), "{told:?}");
    assert!(told[0].contains(&from) && told[0].contains("\"web\""), "{told:?}");
}

#[test]
fn a_proxy_header_that_does_not_come_is_waited_for_a_short_while() {
    let alpha = Provider::answering(OK);
    let gateway = behind_balancer(&alpha, "");
    let mut silent = gateway.connect();
    let mut partial = gateway.connect();
    partial.send("PROXY TCP4 192.0.2.7 ");
    silent.end();
    partial.end();
    gateway.wait_for_metric("sluice_connections_refused_total", &[("reason", "proxy_header")], 2.0);
}

#[test]
fn a_proxy_header_from_somebody_else_is_a_bad_request() {
    let alpha = Provider::answering(OK);
    let gateway = gateway("bind: \"127.0.0.1:0\", proxy_protocol: true, trusted_proxies: [10.0.0.0/8]", &alpha);
    let mut client = gateway.connect();
    client.send(format!("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n{GET}"));
    let refused = client.answer();
    assert_eq!(refused.status(), 400);
    assert!(refused.text().contains("proxy_protocol"), "it says where to look: {}", refused.text());
    let mut client = gateway.connect();
    client.send(v2(0x21, 0x11, &[0; 12]));
    assert_eq!(client.answer().status(), 400);
    let mut direct = gateway.connect();
    direct.send(GET);
    assert_eq!(direct.answer().text(), "ok");
    assert_eq!(alpha.requests().len(), 1);
}

#[test]
fn on_a_unix_socket_every_peer_may_announce() {
    let alpha = Provider::answering(OK);
    let (_folder, path) = socket();
    let gateway = gateway(&format!("{}, proxy_protocol: true", at(&path)), &alpha);
    let mut client = Wire::at_path(&path);
    client.send(format!("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n{GET}"));
    assert_eq!(client.answer().text(), "ok");
    assert_eq!(last_line(&gateway, 1)["client_address"], "192.0.2.7");
    let mut client = Wire::at_path(&path);
    client.send(GET);
    client.end();
    gateway.wait_for_metric("sluice_connections_refused_total", &[("reason", "proxy_header")], 1.0);
}

// --- PROXY headers to providers ---

#[test]
fn a_provider_is_told_the_client_first_on_a_connection_of_its_own() {
    let alpha = Provider::by_hand();
    let extra = Extra { provider: "proxy_protocol: v1", ..Extra::default() };
    let gateway = Gateway::before_with(&alpha, extra);
    for _ in 0..2 {
        let mut client = gateway.connect();
        let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", client.local().port(), gateway.web().port());
        for _ in 0..2 {
            client.send(GET);
            let mut provider = alpha.accept();
            provider.expect(&line);
            provider.request().expect("a request");
            provider.send(OK);
            assert_eq!(client.answer().text(), "ok");
            // Not kept: the next request may be somebody else's.
            provider.closes();
        }
    }
}

#[test]
fn an_announced_client_is_announced_on_in_version_2() {
    let alpha = Provider::by_hand();
    let yaml = "
listeners: [ { name: web, bind: \"127.0.0.1:0\", proxy_protocol: true, trusted_proxies: [127.0.0.1] } ]
providers: { alpha: { url: \"http://{alpha}\", proxy_protocol: v2 } }
pools: { main: { providers: [alpha] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main } ]
";
    let gateway = Gateway::start(yaml, &[("alpha", alpha.address())]);
    let nobody = v2(0x21, 0, &[]);
    let somebody = v2(0x21, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 0xc8, 0x22, 1, 0xbb]);
    for (header, told) in
        [(&b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"[..], somebody), (b"PROXY UNKNOWN\r\n", nobody)]
    {
        let mut client = gateway.connect();
        client.send([header, GET.as_bytes()].concat());
        let mut provider = alpha.accept();
        provider.expect(&told);
        provider.expect("GET / HTTP/1.1\r\n");
    }
}

#[test]
fn a_client_in_http2_is_announced_like_any_other() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, Extra { provider: "proxy_protocol: v1", ..Extra::default() });
    let web = gateway.web();
    let client = std::thread::spawn(move || curl(&["--http2-prior-knowledge", &format!("http://{web}/")]));
    let mut provider = alpha.accept();
    let line = provider.until("\r\n");
    assert!(line.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{line}");
    assert!(line.ends_with(&format!(" {}\r\n", web.port())), "{line}");
    provider.request().expect("a request");
    provider.send(OK);
    assert_eq!(client.join().expect("curl is answered"), "ok");
    provider.closes();
}

// --- IPv6 ---

#[test]
fn everything_speaks_ipv6() {
    let alpha = UpstreamV6::new();
    let places = [("alpha", alpha.0.local_addr().expect("a bound socket"))];
    for bind in ["[::1]:0", "[::]:0"] {
        let listener = format!("bind: \"{bind}\", trusted_proxies: [\"::1\", \"::ffff:10.0.0.0/104\"]");
        let gateway = Gateway::start(&yaml(&listener, "http://{alpha}"), &places);
        let port = gateway.web().port();
        let mut client = Wire::connect(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)));
        client.send("GET / HTTP/1.1\r\nHost: [::1]:80\r\nX-Forwarded-For: 2001:db8::5, ::ffff:10.1.2.3\r\n\r\n");
        let request = alpha.answer();
        assert_eq!(client.answer().text(), "ok");
        assert_eq!(request.value("host"), Some(places[0].1.to_string().as_str()));
        assert_eq!(request.value("x-forwarded-for"), Some("2001:db8::5, ::ffff:10.1.2.3, ::1"));
        let forwarded = request.value("forwarded").expect("a field");
        assert!(forwarded.starts_with("for=\"[2001:db8::5]\", for=10.1.2.3, for=\"[::1]\";host="), "{forwarded}");
        assert_eq!(last_line(&gateway, 1)["client_address"], "2001:db8::5");
    }
}

/// A provider on IPv6's loopback.
struct UpstreamV6(std::net::TcpListener);

impl UpstreamV6 {
    fn new() -> Self {
        UpstreamV6(std::net::TcpListener::bind("[::1]:0").expect("a free port"))
    }

    fn answer(&self) -> crate::world::Message {
        let mut wire = Wire::new(self.0.accept().expect("the gateway connects").0, 0);
        let request = wire.request().expect("a request");
        wire.send(OK);
        request
    }
}

// --- how many, and how old ---

#[test]
fn connections_beyond_those_of_one_address_are_closed_and_counted_until_another_ends() {
    let alpha = Provider::answering(OK);
    let gateway = gateway("bind: \"127.0.0.1:0\", limits: { connections_per_address: 2 }", &alpha);
    let mut open = [gateway.connect(), gateway.connect()];
    for client in &mut open {
        client.send(GET);
        assert_eq!(client.answer().text(), "ok");
    }
    let mut third = gateway.connect();
    third.end();
    let refused = [("listener", "web"), ("reason", "connections_per_address")];
    gateway.wait_for_metric("sluice_connections_refused_total", &refused, 1.0);
    let [first, mut second] = open;
    drop(first);
    gateway.wait_for_metric("sluice_connections", &[("listener", "web")], 1.0);
    let mut third = gateway.connect();
    for client in [&mut second, &mut third] {
        client.send(GET);
        assert_eq!(client.answer().text(), "ok");
    }
    gateway.wait_for_metric("sluice_connections_refused_total", &refused, 1.0);
}

#[test]
fn connections_are_counted_for_the_announced_address_and_not_for_a_trusted_one() {
    let alpha = Provider::answering(OK);
    let gateway = behind_balancer(&alpha, ", limits: { connections_per_address: 1 }");
    let begin = |client: &str| {
        let mut wire = gateway.connect();
        wire.send(format!("PROXY TCP{client} 1 2\r\n{GET}"));
        wire
    };
    let mut open = Vec::new();
    for client in ["4 192.0.2.7 198.51.100.1", "6 2001:db8::1 ::1", "4 10.0.0.1 10.0.0.2", "4 10.0.0.1 10.0.0.2"] {
        let mut wire = begin(client);
        assert_eq!(wire.answer().text(), "ok", "{client}");
        open.push(wire);
    }
    for client in ["4 192.0.2.7 198.51.100.1", "6 2001:db8::ffff ::1"] {
        begin(client).end();
    }
    gateway.wait_for_metric("sluice_connections_refused_total", &[("reason", "connections_per_address")], 2.0);
}

#[test]
fn an_old_connection_is_told_with_its_next_answer_and_an_idle_one_is_closed() {
    let alpha = Provider::answering(OK);
    let gateway = gateway("bind: \"127.0.0.1:0\", limits: { connection_age: 500ms }", &alpha);
    let (mut busy, mut idle) = (gateway.connect(), gateway.connect());
    idle.send(GET);
    assert_eq!(idle.answer().value("connection"), None);
    let mut answers = 0;
    wait_until("an answer that closes the connection", || {
        busy.send(GET);
        let answer = busy.answer();
        assert_eq!(answer.text(), "ok");
        answers += 1;
        answer.value("connection") == Some("close")
    });
    assert!(answers > 1, "told at once");
    busy.closes();
    idle.closes();
}

#[test]
fn an_old_http2_connection_is_told_to_go_away() {
    let alpha = Provider::answering(OK);
    let gateway = gateway("bind: \"127.0.0.1:0\", limits: { connection_age: 300ms }", &alpha);
    let mut client = gateway.connect();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let kind = |client: &mut Wire| {
        let head = client.take(9);
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        client.take(len);
        head[3]
    };
    while kind(&mut client) != 7 {}
}
