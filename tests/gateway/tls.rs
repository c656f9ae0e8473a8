//! TLS on both sides: what clients are shown and asked for, what providers have to prove.

use crate::authority::{Authority, Pair, Tls, connect, visit};
use crate::world::{Gateway, Provider, Sluice, Wire, wait_until};
use rustls::{AlertDescription, ClientConnection, HandshakeKind, version};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// A listener with TLS that answers everything itself.
fn yaml(certificates: &[&Pair], more: &str) -> String {
    let certificates: Vec<_> = certificates.iter().map(|pair| pair.yaml()).collect();
    let certificates = certificates.join(", ");
    format!(
        "listeners: [ {{ name: web, bind: \"{{web}}\", tls: {{ certificates: [{certificates}]{more} }} }} ]
routes: [ {{ name: all, match: {{ path: \"/*\" }}, respond: {{ status: 200, body: \"hello\" }} }} ]
"
    )
}

fn client_ca(authority: &Authority) -> String {
    format!(", client_ca: \"{}\"", authority.path().display())
}

/// The alert that ended it.
#[track_caller]
fn alert<T: std::fmt::Debug>(ended: io::Result<T>) -> AlertDescription {
    let error = ended.expect_err("no handshake");
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert: {error:?}"),
    }
}

/// What a program prints, on both its streams, once it has ended with an empty standard input.
#[track_caller]
fn told(command: &mut Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn curl(address: SocketAddr, authority: &Authority, name: &str, more: &[&str]) -> (bool, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--http1.1", "--max-time", "20", "--cacert"]).arg(authority.path());
    command.args(["--connect-to", &format!("{name}:443:{address}")]).args(more).arg(format!("https://{name}/"));
    told(&mut command)
}

fn openssl(address: SocketAddr, more: &[&str]) -> (bool, String) {
    told(Command::new("openssl").args(["s_client", "-connect", &address.to_string()]).args(more))
}

/// Runs `script` with `ctx`, a client's context that checks nothing, and `connect`, which gives a connection.
fn python(address: SocketAddr, script: &str) -> (bool, String) {
    let before = format!(
        "import socket, ssl
ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
def connect(**more):
    raw = socket.create_connection(('{}', {}), 20)
    return ctx.wrap_socket(raw, server_hostname='a.test', **more)
",
        address.ip(),
        address.port()
    );
    told(Command::new(PYTHON).args(["-c", &(before + script)]))
}

#[test]
fn curl_is_served_over_both_versions() {
    let authority = Authority::new();
    let gateway = Gateway::start(&yaml(&[&authority.sign("a", &["a.test"])], ""), &[]);
    for version in ["1.2", "1.3"] {
        let format = "%{ssl_verify_result} %{http_code} ";
        let more = ["--tls-max", version, &format!("--tlsv{version}"), "--write-out", format];
        assert_eq!(curl(gateway.web(), &authority, "a.test", &more), (true, "hello0 200 ".to_owned()));
    }
    gateway.wait_for_metric("sluice_tls_handshakes_total", &[("listener", "web"), ("result", "full")], 2.0);
}

#[test]
fn curl_agrees_on_http_2_by_alpn() {
    let authority = Authority::new();
    let gateway = Gateway::start(&yaml(&[&authority.sign("a", &["a.test"])], ""), &[]);
    let format = ["--http2", "--write-out", " %{http_version}"];
    assert_eq!(curl(gateway.web(), &authority, "a.test", &format), (true, "hello 2".to_owned()));
}

#[test]
fn the_name_that_is_asked_for_picks_the_certificate() {
    let authority = Authority::new();
    let first = authority.sign("first", &["first.test"]);
    let wild = authority.sign("wild", &["*.wild.test"]);
    let exact = authority.sign("exact", &["exact.wild.test"]);
    let gateway = Gateway::start(&yaml(&[&first, &wild, &exact], ""), &[]);
    let client = authority.client(None);
    for (name, pair) in [("first.test", &first), ("some.wild.test", &wild), ("exact.wild.test", &exact)] {
        let visit = visit(gateway.web(), &client, name).expect("a certificate for it");
        assert_eq!(visit.certificate, pair.chain()[0], "{name}");
        assert!(visit.answer.ends_with("\r\n\r\nhello"), "{}", visit.answer);
    }
    // Whoever asks for another name is shown the first, and judges for itself.
    for name in ["unknown.test", "two.labels.wild.test"] {
        let error = visit(gateway.web(), &client, name).expect_err("the wrong name").to_string();
        assert!(error.contains("first.test"), "{error}");
    }
    let (_, shown) = openssl(gateway.web(), &["-noservername"]);
    assert!(shown.contains("-----BEGIN CERTIFICATE-----"), "{shown}");
}

#[test]
fn an_rsa_certificate_stands_in_where_a_client_knows_no_other() {
    let authority = Authority::new();
    let (rsa, ecdsa) = (authority.sign_rsa("rsa", &["a.test"]), authority.sign("ecdsa", &["a.test"]));
    let gateway = Gateway::start(&yaml(&[&rsa, &ecdsa], ""), &[]);
    for (more, expected) in [
        (&["-tls1_3"][..], "ECDSA"),
        (&["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], "RSA-PSS"),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "RSA-PSS"),
        (&["-tls1_2"], "ECDSA"),
    ] {
        let (_, shown) = openssl(gateway.web(), &[&["-servername", "a.test"], more].concat());
        assert!(shown.contains(&format!("Peer signature type: {expected}")), "{more:?}: {shown}");
    }
}

#[test]
fn a_client_without_a_common_signature_is_refused() {
    let authority = Authority::new();
    let gateway = Gateway::start(&yaml(&[&authority.sign("a", &["a.test"])], ""), &[]);
    let (_, shown) = openssl(gateway.web(), &["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"]);
    assert!(shown.contains("alert handshake failure"), "{shown}");
    gateway.wait_for_metric("sluice_tls_handshakes_total", &[("result", "no_certificate")], 1.0);
}

#[test]
fn a_version_that_is_too_old_is_refused_by_its_name() {
    let authority = Authority::new();
    let pair = authority.sign("a", &["a.test"]);
    let gateway = Gateway::start(&yaml(&[&pair], ""), &[]);
    let old = "
ctx.set_ciphers('ALL:@SECLEVEL=0')
ctx.minimum_version = ctx.maximum_version = ssl.TLSVersion.TLSv1_1
connect()
";
    let (ok, said) = python(gateway.web(), old);
    assert!(!ok && said.contains("TLSV1_ALERT_PROTOCOL_VERSION"), "{said}");
    gateway.rewrite(&yaml(&[&pair], ", min_version: \"1.3\""));
    gateway.reload().expect("a valid file");
    let error = visit(gateway.web(), &authority.client_of(None, &[&version::TLS12]), "a.test");
    assert_eq!(alert(error), AlertDescription::ProtocolVersion);
    assert!(visit(gateway.web(), &authority.client_of(None, &[&version::TLS13]), "a.test").is_ok());
    gateway.wait_for_metric("sluice_tls_handshakes_total", &[("result", "version")], 2.0);
}

#[test]
fn a_client_that_offers_only_other_protocols_is_refused() {
    let authority = Authority::new();
    let pair = authority.sign("a", &["a.test"]);
    let gateway = Gateway::start(&yaml(&[&pair], ""), &[]);
    let offer = "
ctx.set_alpn_protocols(['spdy/3'])
connect()
";
    let (ok, said) = python(gateway.web(), offer);
    assert!(!ok && said.contains("alert no application protocol"), "{said}");
    let http1 = "
ctx.set_alpn_protocols(['spdy/3', 'http/1.1'])
print(connect().selected_alpn_protocol())
";
    assert_eq!(python(gateway.web(), http1), (true, "http/1.1\n".to_owned()));
    gateway.wait_for_metric("sluice_tls_handshakes_total", &[("result", "protocol")], 1.0);
    // Who offers nothing is spoken to in HTTP/1.1; where that is not spoken, there is nothing to speak.
    let yaml = yaml(&[&pair], "").replace("tls: {", "protocols: [http2], tls: {");
    gateway.rewrite(&yaml);
    gateway.reload().expect("a valid file");
    let refused = visit(gateway.web(), &authority.client(None), "a.test");
    assert_eq!(alert(refused), AlertDescription::NoApplicationProtocol);
    gateway.wait_for_metric("sluice_tls_handshakes_total", &[("result", "protocol")], 2.0);
}

#[test]
fn a_client_has_to_show_a_certificate_of_the_authority_that_is_asked_for() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let own = clients.sign("client", &["client.test"]);
    let foreign = Authority::new().sign_in(&authority, "foreign");
    let gateway = Gateway::start(&yaml(&[&authority.sign("a", &["a.test"])], &client_ca(&clients)), &[]);
    for tls in [&version::TLS12, &version::TLS13] {
        let visit = |own| visit(gateway.web(), &authority.client_of(own, &[tls]), "a.test");
        assert!(visit(Some(&own)).expect("welcome").answer.ends_with("hello"));
        assert_eq!(alert(visit(None)), AlertDescription::CertificateRequired);
        assert!(matches!(alert(visit(Some(&foreign))), AlertDescription::UnknownCA | AlertDescription::DecryptError));
    }
    let (ok, said) = curl(gateway.web(), &authority, "a.test", &[]);
    assert!(!ok && said.contains("certificate required"), "{said}");
    let (cert, key) = (own.cert.display().to_string(), own.key.display().to_string());
    assert_eq!(
        curl(gateway.web(), &authority, "a.test", &["--cert", &cert, "--key", &key]),
        (true, "hello".to_owned())
    );
    gateway.wait_for_metric("sluice_tls_handshakes_total", &[("result", "client_certificate")], 5.0);
}

#[test]
fn sessions_are_resumed_also_after_a_reload() {
    let authority = Authority::new();
    let pair = authority.sign("a", &["a.test"]);
    let gateway = Gateway::start(&yaml(&[&pair], ""), &[]);
    for tls in [&version::TLS12, &version::TLS13] {
        let client = authority.client_of(None, &[tls]);
        let kind = || visit(gateway.web(), &client, "a.test").expect("an answer").kind;
        assert_eq!([kind(), kind()], [HandshakeKind::Full, HandshakeKind::Resumed]);
        authority.sign("a", &["a.test"]);
        gateway.reload().expect("a valid file");
        assert_eq!(kind(), HandshakeKind::Resumed);
    }
    let twice = "
first = connect()
first.sendall(b'GET / HTTP/1.1\\r\\nhost: a\\r\\nconnection: close\\r\\n\\r\\n')
while first.recv(9999): pass
print(connect(session=first.session).session_reused)
";
    assert_eq!(python(gateway.web(), twice), (true, "True\n".to_owned()));
    gateway.wait_for_metric("sluice_tls_handshakes_total", &[("result", "resumed")], 5.0);
}

#[test]
fn no_session_walks_around_a_client_authority() {
    let (authority, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let pair = authority.sign("a", &["a.test"]);
    let own = clients.sign("client", &["client.test"]);
    let gateway = Gateway::start(&yaml(&[&pair], ""), &[]);
    for tls in [&version::TLS12, &version::TLS13] {
        let reload = |more: &str| {
            gateway.rewrite(&yaml(&[&pair], more));
            gateway.reload().expect("a valid file");
        };
        reload("");
        // One that was let in when nobody was asked is not let in by its session now.
        let stranger = authority.client_of(None, &[tls]);
        let kind = |client: &_| visit(gateway.web(), client, "a.test").map(|visit| visit.kind);
        assert_eq!(kind(&stranger).expect("nobody is asked"), HandshakeKind::Full);
        reload(&client_ca(&clients));
        assert_eq!(alert(kind(&stranger)), AlertDescription::CertificateRequired);
        // One of the authority that counted is not let in by its session where another counts.
        let known = authority.client_of(Some(&own), &[tls]);
        assert_eq!(kind(&known).expect("known"), HandshakeKind::Full);
        assert_eq!(kind(&known).expect("known"), HandshakeKind::Resumed);
        reload(&client_ca(&others));
        assert!(matches!(alert(kind(&known)), AlertDescription::UnknownCA | AlertDescription::DecryptError));
        // And going back does not bring old sessions back.
        reload(&client_ca(&clients));
        assert_eq!(kind(&known).expect("known"), HandshakeKind::Full);
    }
}

#[test]
fn listeners_do_not_share_sessions() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let pair = authority.sign("a", &["a.test"]);
    let open = yaml(&[&pair], "");
    let closed = format!(
        "  - {{ name: closed, bind: \"127.0.0.2:0\", tls: {{ certificates: [{}]{} }} }}\n",
        pair.yaml(),
        client_ca(&clients)
    );
    let listener = "listeners: [ ";
    let (first, rest) = open.split_once('\n').expect("lines");
    let first = first.trim_start_matches(listener).trim_end_matches(" ]");
    let gateway = Gateway::start(&format!("listeners:\n  - {first}\n{closed}{rest}"), &[]);
    let closed = gateway.running().address("closed").expect("it listens");
    for tls in [&version::TLS12, &version::TLS13] {
        let client = authority.client_of(None, &[tls]);
        visit(gateway.web(), &client, "a.test").expect("an answer");
        assert_eq!(visit(gateway.web(), &client, "a.test").expect("an answer").kind, HandshakeKind::Resumed);
        assert_eq!(alert(visit(closed, &client, "a.test")), AlertDescription::CertificateRequired);
    }
}

/// One request over a connection that goes on.
fn ask(tls: &mut Tls) -> String {
    tls.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("the connection goes on");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nhello") {
        let mut buf = [0; 1024];
        let read = tls.read(&mut buf).expect("the connection goes on");
        assert!(read > 0, "it ended after {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buf[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn certificates_change_under_connections_that_go_on() {
    let authority = Authority::new();
    let pair = authority.sign("a", &["a.test"]);
    let gateway = Gateway::start(&yaml(&[&pair], ""), &[]);
    let mut going_on = connect(gateway.web(), &authority.client(None), "a.test").expect("a connection");
    ask(&mut going_on);
    let shown = || visit(gateway.web(), &authority.client(None), "a.test").expect("an answer").certificate;
    let first = shown();
    assert_eq!(first, pair.chain()[0]);
    let renewed = authority.sign("a", &["a.test"]);
    gateway.reload().expect("a valid file");
    assert_eq!(shown(), renewed.chain()[0]);
    assert_ne!(shown(), first);
    ask(&mut going_on);
    // A pair that is none changes nothing, and is named.
    let key = std::fs::read(&authority.sign("other", &["a.test"]).key).expect("a key");
    std::fs::write(&pair.key, key).expect("the folder takes files");
    let rejected = gateway.reload().expect_err("no pair").rendered;
    assert!(rejected.contains("the key does not belong to the certificate"), "{rejected}");
    assert_eq!(shown(), renewed.chain()[0]);
    ask(&mut going_on);
}

#[test]
fn a_request_right_behind_the_handshake_is_answered() {
    let authority = Authority::new();
    let gateway = Gateway::start(&yaml(&[&authority.sign("a", &["a.test"])], ""), &[]);
    for tls in [&version::TLS12, &version::TLS13] {
        let config = authority.client_of(None, &[tls]);
        let name = "a.test".try_into().expect("a name");
        let mut session = ClientConnection::new(config, name).expect("a client");
        // Kept until the handshake allows it; then it goes out together with its last message.
        session.writer().write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("room");
        let stream = TcpStream::connect(gateway.web()).expect("a connection");
        let mut tls = Tls::new(session, stream);
        let mut answer = String::new();
        tls.read_to_string(&mut answer).expect("an orderly end");
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    }
}

#[test]
fn a_client_that_guessed_the_wrong_group_is_asked_again() {
    let authority = Authority::new();
    let gateway = Gateway::start(&yaml(&[&authority.sign("a", &["a.test"])], ""), &[]);
    let (_, shown) = openssl(gateway.web(), &["-tls1_3", "-groups", "P-521:P-256", "-servername", "a.test"]);
    assert!(shown.contains("Server Temp Key: ECDH, prime256v1"), "{shown}");
    gateway.wait_for_metric("sluice_tls_handshakes_total", &[("result", "full")], 1.0);
}

#[test]
fn a_handshake_that_does_not_come_to_its_end_is_cut() {
    let authority = Authority::new();
    let more = ", handshake_timeout: 100ms";
    let gateway = Gateway::start(&yaml(&[&authority.sign("a", &["a.test"])], more), &[]);
    let mut silent = gateway.connect();
    assert_eq!(silent.rest(), b"");
    // A whole hello, and then nothing.
    let name = "a.test".try_into().expect("a name");
    let mut session = ClientConnection::new(authority.client(None), name).expect("a client");
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("memory takes it");
    let mut half = gateway.connect();
    half.send(&hello);
    assert!(!half.rest().is_empty(), "the server's part came before it was cut");
    gateway.wait_for_metric("sluice_tls_handshakes_total", &[("result", "timeout")], 2.0);
    gateway.wait_for_metric("sluice_connections", &[("listener", "web")], 0.0);
}

#[test]
fn clients_beyond_the_bound_wait_for_their_turn_and_half_open_ones_take_no_place() {
    let authority = Authority::new();
    let gateway = Gateway::start(&yaml(&[&authority.sign_rsa("a", &["a.test"])], ", handshakes: 1"), &[]);
    let name = "a.test".try_into().expect("a name");
    let mut session = ClientConnection::new(authority.client(None), name).expect("a client");
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("memory takes it");
    let mut half_open: Vec<Wire> = (0..8).map(|_| gateway.connect()).collect();
    for wire in &mut half_open {
        wire.send(&hello);
    }
    let client = |_| {
        let (address, config) = (gateway.web(), authority.client(None));
        std::thread::spawn(move || visit(address, &config, "a.test").map(|visit| visit.answer))
    };
    let clients: Vec<_> = (0..16).map(client).collect();
    for client in clients {
        let answer = client.join().expect("no panic").expect("an answer");
        assert!(answer.ends_with("hello"), "{answer}");
    }
    gateway.wait_for_metric("sluice_tls_handshakes_total", &[("result", "full")], 16.0);
}

#[test]
fn http_in_the_clear_is_told_that_this_is_tls() {
    let authority = Authority::new();
    let gateway = Gateway::start(&yaml(&[&authority.sign("a", &["a.test"])], ""), &[]);
    let mut wire = gateway.connect();
    wire.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.json()["detail"], "This port speaks TLS; use https://.");
    wire.closes();
    gateway.wait_for_metric("sluice_tls_handshakes_total", &[("result", "cleartext")], 1.0);
}

#[test]
fn garbage_is_refused_and_leaves_no_connection_behind() {
    let authority = Authority::new();
    let gateway = Gateway::start(&yaml(&[&authority.sign("a", &["a.test"])], ""), &[]);
    let long = [&b"\x16\x03\x01\x40\x00"[..], &[0xaa; 16384]].concat();
    let cases = [
        &b"\x00\x01\x02\x03\x04\x05\x06\x07"[..],
        b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\xff",
        &long,
        b"\x80\x2e\x01\x03\x01",
    ];
    for garbage in cases {
        let mut wire = gateway.connect();
        wire.send(garbage);
        // A fatal alert, or nothing; and in any case the end.
        let rest = wire.rest();
        assert!(rest.is_empty() || rest[0] == 21, "{rest:?}");
    }
    gateway.wait_for_metric("sluice_connections", &[("listener", "web")], 0.0);
    gateway.connect().half_close();
    gateway.wait_for_metric("sluice_tls_handshakes_total", &[("result", "gone")], 1.0);
    assert!(visit(gateway.web(), &authority.client(None), "a.test").is_ok());
}

#[test]
fn the_end_of_each_certificate_is_a_metric_while_it_is_configured() {
    let authority = Authority::new();
    let pair = authority.sign("a", &["a.test", "b.test"]);
    let twin = authority.sign_rsa("twin", &["a.test"]);
    let soon = authority.sign_until("soon", &["soon.test"], sluice::clock::wall() + Duration::from_hours(24 * 3));
    let past = authority.sign_until("past", &["past.test"], sluice::clock::wall() - Duration::from_hours(24));
    let gateway = Gateway::start(&yaml(&[&pair, &twin, &soon, &past], ""), &[]);
    let ends = |label: &str| {
        gateway
            .metric("sluice_tls_certificate_expiry_timestamp_seconds", &[("listener", "web"), ("certificate", label)])
    };
    let now = sluice::clock::wall().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let days = |label: &str| ((ends(label) - now) / 86_400.0).round() as i64;
    assert_eq!(["a.test", "twin.pem", "soon.test", "past.test"].map(days), [1000, 1000, 3, -1]);
    assert!(
        sluice_log(&gateway).iter().any(|line| line.contains("a certificate ends soon") && line.contains("soon.test"))
    );
    assert!(
        sluice_log(&gateway).iter().any(|line| line.contains("a certificate has ended") && line.contains("past.test"))
    );
    gateway.rewrite(&yaml(&[&pair], ""));
    gateway.reload().expect("a valid file");
    assert!(!gateway.metrics().contains("soon.test"));
    assert!((ends("a.test") - now) > 0.0);
}

fn sluice_log(gateway: &Gateway) -> Vec<String> {
    let _ = gateway.access_log();
    let folder = gateway.path();
    let log = folder.parent().expect("a folder").join("log");
    std::fs::read_to_string(log).expect("a log").lines().map(str::to_owned).collect()
}

/// An `https` provider that answers every request with `answer`, and demands certificates of `clients` where there are any.
fn provider(pair: &Pair, clients: Option<&Authority>) -> Provider {
    let config = Arc::new(server(pair, clients));
    Provider::scripted(move |peer| {
        let stream = peer.wire.handle().upgrade().expect("a connection");
        let mut session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a server");
        let mut socket = &*stream;
        let mut stream = rustls::Stream::new(&mut session, &mut socket);
        let mut request = Vec::new();
        let mut buf = [0; 4096];
        loop {
            match stream.read(&mut buf) {
                Ok(read) if read > 0 => request.extend_from_slice(&buf[..read]),
                _ => return,
            }
            if request.ends_with(b"\r\n\r\n") {
                request.clear();
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").is_err() {
                    return;
                }
            }
        }
    })
}

pub(crate) fn server(pair: &Pair, clients: Option<&Authority>) -> rustls::ServerConfig {
    let cryptography = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&cryptography))
        .with_safe_default_protocol_versions()
        .expect("known versions");
    let builder = match clients {
        Some(authority) => {
            let roots = Arc::new(authority.roots());
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, cryptography);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
        None => builder.with_no_client_auth(),
    };
    builder.with_single_cert(pair.chain(), pair.key()).expect("a pair")
}

/// A gateway in front of an `https` provider at `address` that is known by `authority`.
fn before_secure(address: SocketAddr, authority: &Authority, more: &str) -> Gateway {
    Gateway::start(&secure_yaml(address, authority, more), &[])
}

fn secure_yaml(address: SocketAddr, authority: &Authority, more: &str) -> String {
    let mut yaml = String::from("listeners: [ { name: web, bind: \"{web}\" } ]\n");
    let ca = authority.path();
    let tls = format!("{{ ca: \"{}\", server_name: p.test{more} }}", ca.display());
    writeln!(yaml, "providers: {{ p: {{ url: \"https://{address}\", protocols: [http1], tls: {tls} }} }}")
        .expect("memory");
    yaml.push_str(
        "pools: { main: { providers: [p] } }\nroutes: [ { name: all, match: { path: \"/*\" }, pool: main } ]\n",
    );
    yaml
}

#[test]
fn a_provider_that_asks_who_we_are_is_shown_our_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let provider = provider(&authority.sign("p", &["p.test"]), Some(&clients));
    let own = clients.sign("own", &["gateway.test"]);
    let gateway = before_secure(provider.address(), &authority, &format!(", client: {}", own.yaml()));
    let mut wire = gateway.connect();
    wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(wire.answer().text(), "secret");
    // Another certificate is another way to the provider, so the connection that was kept is not used any more.
    let foreign = authority.sign("foreign", &["gateway.test"]);
    for (from, to) in [(&own.cert, &foreign.cert), (&own.key, &foreign.key)] {
        std::fs::copy(to, from).expect("files");
    }
    gateway.reload().expect("a valid file");
    wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(wire.answer().status(), 502);
}

#[test]
fn a_provider_that_asks_who_we_are_in_vain_is_named() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let provider = provider(&authority.sign("p", &["p.test"]), Some(&clients));
    let sluice = Sluice::spawn(&secure_yaml(provider.address(), &authority, ""), &[]);
    let mut wire = sluice.connect();
    for _ in 0..2 {
        wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(wire.answer().status(), 502);
    }
    let said = || sluice.log().iter().filter(|line| line["message"].to_string().contains("set its tls.client")).count();
    wait_until("the log says why", || said() > 0);
    assert_eq!(said(), 1, "once");
}

#[test]
fn a_provider_whose_certificate_has_ended_gets_no_request() {
    let authority = Authority::new();
    let past = authority.sign_until("p", &["p.test"], sluice::clock::wall() - Duration::from_hours(24));
    let provider = provider(&past, None);
    let gateway = before_secure(provider.address(), &authority, "");
    let mut wire = gateway.connect();
    wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(wire.answer().status(), 502);
    let log = gateway.wait_for_access_log(1);
    let error = log[0]["error"].as_str().expect("it says why").to_owned();
    assert!(error.contains("has to be renewed"), "{error}");
}

/// Debian's own.
const PYTHON: &str = "/usr/bin/python3";
