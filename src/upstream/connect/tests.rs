//! Everything here goes through real sockets of the loopback interface. Deadlines that must hold are far away; those
//! that must pass are near.

use super::*;
use crate::config::{ProviderAddress, Scheme};
use crate::upstream::resolve::Lookup;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, SupportedProtocolVersion, version};
use socket2::{Domain, Socket, Type};
use std::sync::Mutex;
use std::sync::mpsc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const AMPLE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(100);

/// A nameserver that has made up its mind.
struct Fixed(Result<Vec<SocketAddr>, &'static str>);

impl Lookup for Fixed {
    fn lookup(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        self.0.clone().map_err(io::Error::other)
    }
}

/// A nameserver that says nothing until the test is over.
struct Silent(Mutex<mpsc::Receiver<()>>);

impl Lookup for Silent {
    fn lookup(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        let _ = self.0.lock().expect("nobody else locks it").recv();
        Err(io::Error::other("the test is over"))
    }
}

fn url(tls: bool, host: &str, port: u16) -> ProviderUrl {
    let scheme = if tls { Scheme::Https } else { Scheme::Http };
    ProviderUrl::new(scheme, ProviderAddress::Tcp { host: host.to_owned(), port }, String::new())
}

fn plain(address: SocketAddr) -> Target {
    Target::new(&url(false, &address.ip().to_string(), address.port()), &ProviderTls::default()).expect("no TLS")
}

/// `http://api.test:80`, which DNS says is at `answer`.
fn named_target(lookup: impl Lookup + 'static) -> Target {
    let resolver = Resolver::with_lookup("api.test", 80, Box::new(lookup));
    Target::with_resolver(&url(false, "api.test", 80), &ProviderTls::default(), resolver).expect("no TLS")
}

async fn within(span: Duration, target: &Target) -> Result<Io, ConnectError> {
    connect(target, &Announce::default(), clock::now() + span).await
}

async fn failure(span: Duration, target: &Target) -> ConnectError {
    within(span, target).await.expect_err("no connection")
}

async fn listening(ip: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((ip, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

fn bound(ip: &str) -> (Socket, SocketAddr) {
    let address: SocketAddr = format!("{ip}:0").parse().expect("an address");
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.bind(&address.into()).expect("a free port");
    let address = socket.local_addr().expect("bound").as_socket().expect("an IP address");
    (socket, address)
}

/// An address where nobody listens, kept from everyone else while the socket lives.
fn refusing() -> (Socket, SocketAddr) {
    bound("127.0.0.1")
}

/// An address that answers nothing: a listener that never accepts, its backlog full.
fn silent() -> (Vec<Socket>, SocketAddr) {
    let (listener, address) = bound("127.0.0.1");
    listener.listen(0).expect("listening");
    let mut sockets = vec![listener];
    for _ in 0..8 {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        filler.set_nonblocking(true).expect("a socket can be non-blocking");
        // "In progress" is the usual answer; those beyond the backlog stay in progress.
        let _ = filler.connect(&address.into());
        sockets.push(filler);
    }
    (sockets, address)
}

async fn read(io: &mut Io, buf: &mut [u8]) -> usize {
    poll_fn(|cx| io.poll_read(cx, buf)).await.expect("readable")
}

#[tokio::test]
async fn a_connection_carries_bytes_at_once_in_both_families() {
    for ip in ["127.0.0.1", "::1"] {
        let (listener, address) = listening(ip).await;
        let mut io = within(AMPLE, &plain(address)).await.expect("a connection");
        assert!(tcp(&io).nodelay().expect("an open socket"), "small writes are not held back");
        let (mut accepted, _) = listener.accept().await.expect("a connection");
        assert_eq!(poll_fn(|cx| io.poll_write(cx, b"ping")).await.expect("writable"), 4);
        let mut ping = [0; 4];
        accepted.read_exact(&mut ping).await.expect("four bytes");
        assert_eq!(&ping, b"ping");
    }
}

#[tokio::test]
async fn where_nobody_listens_the_connection_is_refused_and_the_address_named() {
    let (_held, address) = refusing();
    let error = failure(AMPLE, &plain(address)).await;
    assert_eq!((error.kind(), error.token()), (ConnectErrorKind::Refused, "connection_refused"));
    assert_eq!(error.to_string(), format!("cannot connect to {address}: Connection refused (os error 111)"));
    assert!(!error.is_ours());
}

#[tokio::test]
async fn when_every_address_refuses_the_name_and_an_address_are_told() {
    let ((_a, first), (_b, second)) = (refusing(), refusing());
    let error = failure(AMPLE, &named_target(Fixed(Ok(vec![first, second])))).await;
    assert_eq!(error.kind(), ConnectErrorKind::Refused);
    let expected = format!(
        "cannot connect to api.test:80 at {first} (one of 2 addresses, all failed): Connection refused (os error 111)"
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_refused_address_is_followed_by_the_next_without_waiting_for_the_head_start() {
    let (_held, refused) = refusing();
    let (_listener, good) = listening("127.0.0.1").await;
    let addresses = [refused, good];
    let mut race = Race::new(&addresses, AMPLE * 2);
    let (_, winner) = timeout(AMPLE, race.winner()).await.expect("at once").expect("a connection");
    assert_eq!(winner, good);
}

#[tokio::test]
async fn a_refused_family_falls_over_to_the_other() {
    let (_held, refused) = bound("[::1]");
    let (_listener, good) = listening("127.0.0.1").await;
    let io = within(AMPLE, &named_target(Fixed(Ok(vec![refused, good])))).await.expect("a connection");
    assert_eq!(tcp(&io).peer_addr().expect("connected"), good);
}

#[tokio::test]
async fn an_address_that_says_nothing_costs_only_its_head_start() {
    let (_full, dead) = silent();
    let (_listener, good) = listening("127.0.0.1").await;
    let io = within(AMPLE, &named_target(Fixed(Ok(vec![dead, good])))).await.expect("a connection");
    assert_eq!(tcp(&io).peer_addr().expect("connected"), good);
}

#[tokio::test]
async fn the_first_address_wins_where_it_answers_within_its_head_start() {
    let ((_a, first), (second, late)) = (listening("127.0.0.1").await, listening("127.0.0.1").await);
    let addresses = [first, late];
    let (_, winner) = Race::new(&addresses, AMPLE).winner().await.expect("a connection");
    assert_eq!(winner, first);
    let second = second.into_std().expect("a listener");
    let untouched = second.accept().expect_err("the second address was not tried");
    assert_eq!(untouched.kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn an_address_that_says_nothing_is_given_up_at_the_deadline() {
    let (_full, dead) = silent();
    let error = failure(SOON, &plain(dead)).await;
    assert_eq!((error.kind(), error.token()), (ConnectErrorKind::Timeout, "connection_timeout"));
    assert_eq!(error.to_string(), format!("cannot connect to {dead}: timed out"));
}

#[tokio::test]
async fn at_the_deadline_the_addresses_that_failed_earlier_are_told_too() {
    let ((_held, refused), (_full, dead)) = (refusing(), silent());
    let error = failure(SOON, &named_target(Fixed(Ok(vec![refused, dead])))).await;
    assert_eq!(error.kind(), ConnectErrorKind::Timeout);
    let expected = format!(
        "cannot connect to api.test:80 (no answer from {dead}; {refused}: Connection refused (os error 111)): timed out"
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_name_that_dns_does_not_know_is_a_dns_error() {
    let error = failure(AMPLE, &named_target(Fixed(Err("no such name")))).await;
    assert_eq!((error.kind(), error.token()), (ConnectErrorKind::Resolve, "dns_error"));
    assert_eq!(error.to_string(), "cannot resolve api.test:80: no such name");
}

#[tokio::test]
async fn a_nameserver_that_says_nothing_is_a_dns_timeout() {
    let (_until_the_end, receiver) = mpsc::channel();
    let error = failure(SOON, &named_target(Silent(Mutex::new(receiver)))).await;
    assert_eq!((error.kind(), error.token()), (ConnectErrorKind::Timeout, "dns_timeout"));
    assert_eq!(error.to_string(), "no answer from DNS for api.test:80: timed out");
}

#[tokio::test]
async fn a_deadline_that_has_passed_opens_nothing() {
    let (_full, dead) = silent();
    let error = connect(&plain(dead), &Announce::default(), clock::now()).await.expect_err("no time");
    assert_eq!(error.kind(), ConnectErrorKind::Timeout);
}

#[test]
fn opening_a_connection_takes_little_room_in_the_future_of_whoever_does_it() {
    let (_held, address) = refusing();
    let target = plain(address);
    assert!(size_of_val(&connect(&target, &Announce::default(), clock::now())) <= 64);
}

#[tokio::test]
async fn a_socket_that_met_itself_counts_as_refused() {
    let (socket, address) = refusing();
    socket.connect(&address.into()).expect("TCP allows it");
    socket.set_nonblocking(true).expect("a socket can be non-blocking");
    let stream = TcpStream::from_std(socket.into()).expect("a runtime");
    let error = prepared(stream, address).expect_err("nobody listens there");
    assert_eq!(judge(&error), (ConnectErrorKind::Refused, "connection_refused"));
}

#[test]
fn what_the_kernel_says_has_one_meaning() {
    let table = [
        (rustix::io::Errno::CONNREFUSED, ConnectErrorKind::Refused, "connection_refused"),
        (rustix::io::Errno::TIMEDOUT, ConnectErrorKind::Timeout, "connection_timeout"),
        (rustix::io::Errno::NETUNREACH, ConnectErrorKind::Unreachable, "destination_ip_unroutable"),
        (rustix::io::Errno::HOSTUNREACH, ConnectErrorKind::Unreachable, "destination_ip_unroutable"),
        (rustix::io::Errno::PERM, ConnectErrorKind::Unreachable, "destination_ip_prohibited"),
        (rustix::io::Errno::CONNRESET, ConnectErrorKind::Other, "connection_terminated"),
        (rustix::io::Errno::MFILE, ConnectErrorKind::Other, "proxy_internal_error"),
        (rustix::io::Errno::ADDRNOTAVAIL, ConnectErrorKind::Other, "proxy_internal_error"),
    ];
    for (errno, kind, token) in table {
        assert_eq!(judge(&errno.into()), (kind, token), "{errno:?}");
    }
}

#[tokio::test]
async fn of_several_failures_the_most_telling_is_kept() {
    let address: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    let mut race = Race::new(&[], AMPLE);
    for errno in [rustix::io::Errno::NETUNREACH, rustix::io::Errno::CONNREFUSED, rustix::io::Errno::TIMEDOUT] {
        race.note(address, errno.into());
    }
    let (_, told) = race.failure.expect("three failures");
    assert_eq!(told.kind(), io::ErrorKind::ConnectionRefused);
}

/// A certificate authority of one test.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        Authority::named("Authority of the test")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names to be wrong");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A server's configuration with a certificate for `names`, changed by `change` before it is signed.
    fn server_with(
        &self,
        names: &[&str],
        versions: &[&'static SupportedProtocolVersion],
        change: impl FnOnce(&mut CertificateParams),
    ) -> ServerConfig {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        server_config(&certificate, &key, versions)
    }

    fn server(&self, names: &[&str]) -> ServerConfig {
        self.server_with(names, &[&version::TLS13, &version::TLS12], |_| {})
    }

    fn trusted(&self) -> ProviderTls {
        ProviderTls { ca: Some(self.pem.as_bytes().into()), server_name: None, client: None }
    }
}

fn server_config(
    certificate: &rcgen::Certificate,
    key: &KeyPair,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("known versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("the key fits")
}

/// Serves one byte on every TLS connection, as long as the test runs.
async fn serve(config: ServerConfig) -> SocketAddr {
    let (listener, address) = listening("127.0.0.1").await;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.write_all(b"!").await;
                let _ = stream.read_u8().await;
            }
        }
    });
    address
}

/// `https://HOST` at `address`, whatever DNS would say.
fn secure(host: &str, address: SocketAddr, tls: &ProviderTls) -> Target {
    let resolver = Resolver::with_lookup("api.test", address.port(), Box::new(Fixed(Ok(vec![address]))));
    Target::with_resolver(&url(true, host, address.port()), tls, resolver).expect("a usable configuration")
}

async fn greeting(target: &Target) -> (HandshakeKind, ProtocolVersion) {
    let mut io = within(AMPLE, target).await.expect("a connection");
    let mut byte = [0; 1];
    assert_eq!((read(&mut io, &mut byte).await, byte), (1, *b"!"));
    let Io::TlsClient(stream) = &io else { panic!("not TLS: {io:?}") };
    let session = stream.get_ref().1;
    (session.handshake_kind().expect("a finished handshake"), session.protocol_version().expect("a finished handshake"))
}

#[tokio::test]
async fn a_certificate_of_the_given_authority_is_trusted_and_sessions_are_resumed() {
    let authority = Authority::new();
    let mut server = authority.server(&["api.test"]);
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let target = secure("api.test", serve(server).await, &authority.trusted());
    assert_eq!(greeting(&target).await, (HandshakeKind::Full, ProtocolVersion::TLSv1_3));
    assert_eq!(greeting(&target).await, (HandshakeKind::Resumed, ProtocolVersion::TLSv1_3));
}

#[tokio::test]
async fn http_1_is_what_is_asked_for_where_the_provider_has_more() {
    let authority = Authority::new();
    let mut server = authority.server(&["api.test"]);
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let target = secure("api.test", serve(server).await, &authority.trusted());
    let io = within(AMPLE, &target).await.expect("a connection");
    let Io::TlsClient(stream) = &io else { panic!("not TLS: {io:?}") };
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn a_provider_that_knows_only_tls_1_2_is_good_enough() {
    let authority = Authority::new();
    let server = authority.server_with(&["api.test"], &[&version::TLS12], |_| {});
    let target = secure("api.test", serve(server).await, &authority.trusted());
    assert_eq!(greeting(&target).await, (HandshakeKind::Full, ProtocolVersion::TLSv1_2));
}

#[tokio::test]
async fn a_url_with_an_address_needs_a_certificate_for_that_address() {
    let authority = Authority::new();
    let address = serve(authority.server(&["127.0.0.1"])).await;
    let target = Target::new(&url(true, "127.0.0.1", address.port()), &authority.trusted()).expect("usable");
    assert_eq!(greeting(&target).await.0, HandshakeKind::Full);
}

#[tokio::test]
async fn server_name_replaces_the_urls_host_in_the_check() {
    let authority = Authority::new();
    let address = serve(authority.server(&["inside.test"])).await;
    let tls = ProviderTls { server_name: Some("inside.test".to_owned()), ..authority.trusted() };
    assert_eq!(greeting(&secure("api.test", address, &tls)).await.0, HandshakeKind::Full);
}

async fn certificate_error(target: &Target) -> String {
    let error = failure(AMPLE, target).await;
    assert_eq!((error.kind(), error.token()), (ConnectErrorKind::Tls, "tls_certificate_error"), "{error}");
    assert!(!error.is_ours());
    error.to_string()
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let address = serve(Authority::named("Another authority").server(&["api.test"])).await;
    let told = certificate_error(&secure("api.test", address, &Authority::new().trusted())).await;
    let expected = format!(
        "TLS handshake with api.test:{} at {address}: invalid peer certificate: UnknownIssuer; \
         set tls.ca to the authority that signed the certificate",
        address.port()
    );
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_certificate_of_an_authority_that_only_has_the_same_name_is_refused() {
    let address = serve(Authority::new().server(&["api.test"])).await;
    let told = certificate_error(&secure("api.test", address, &Authority::new().trusted())).await;
    assert!(told.ends_with("BadSignature; set tls.ca to the authority that signed the certificate"), "{told}");
}

#[tokio::test]
async fn an_authoritys_own_certificate_is_refused_as_a_servers_and_the_way_out_told() {
    let mut params = CertificateParams::new(vec!["api.test".to_owned()]).expect("a valid name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let address = serve(server_config(&certificate, &key, &[&version::TLS13])).await;
    let tls = ProviderTls { ca: Some(certificate.pem().as_bytes().into()), server_name: None, client: None };
    let told = certificate_error(&secure("api.test", address, &tls)).await;
    assert!(told.ends_with("cannot be a server's own: make one with basicConstraints=CA:FALSE"), "{told}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let address = serve(authority.server(&["other.test"])).await;
    let told = certificate_error(&secure("api.test", address, &authority.trusted())).await;
    assert!(told.contains("other.test"), "{told}");
    assert!(told.ends_with("; set tls.server_name to a name the certificate has"), "{told}");
}

#[tokio::test]
async fn a_server_name_the_certificate_does_not_have_is_refused_even_if_the_urls_host_is_in_it() {
    let authority = Authority::new();
    let address = serve(authority.server(&["api.test"])).await;
    let tls = ProviderTls { server_name: Some("inside.test".to_owned()), ..authority.trusted() };
    certificate_error(&secure("api.test", address, &tls)).await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let authority = Authority::new();
    let server = authority.server_with(&["api.test"], &[&version::TLS13], |params| {
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    let target = secure("api.test", serve(server).await, &authority.trusted());
    let told = certificate_error(&target).await;
    assert!(told.ends_with("; the provider's certificate has to be renewed"), "{told}");
}

#[tokio::test]
async fn a_provider_without_http_1_sends_an_alert() {
    let authority = Authority::new();
    let mut server = authority.server(&["api.test"]);
    server.alpn_protocols = vec![b"h2".to_vec()];
    let error = failure(AMPLE, &secure("api.test", serve(server).await, &authority.trusted())).await;
    assert_eq!((error.kind(), error.token()), (ConnectErrorKind::Tls, "tls_alert_received"));
}

#[tokio::test]
async fn a_provider_that_speaks_no_tls_is_a_protocol_error_that_asks_about_it() {
    let (listener, address) = listening("127.0.0.1").await;
    let target = secure("api.test", address, &Authority::new().trusted());
    let answer = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.expect("writable");
        stream
    };
    let (error, _stream) = tokio::join!(failure(AMPLE, &target), answer);
    assert_eq!((error.kind(), error.token()), (ConnectErrorKind::Tls, "tls_protocol_error"));
    assert!(error.to_string().ends_with("; does the provider speak TLS on this port?"), "{error}");
}

#[tokio::test]
async fn a_provider_that_hangs_up_during_the_handshake_is_told_as_such() {
    let (listener, address) = listening("127.0.0.1").await;
    let target = secure("api.test", address, &Authority::new().trusted());
    let hang_up = async { drop(listener.accept().await) };
    let (error, ()) = tokio::join!(failure(AMPLE, &target), hang_up);
    assert_eq!((error.kind(), error.token()), (ConnectErrorKind::Tls, "connection_terminated"), "{error}");
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_given_up_at_the_deadline() {
    let (_listener, address) = listening("127.0.0.1").await;
    let error = failure(SOON, &secure("api.test", address, &Authority::new().trusted())).await;
    assert_eq!((error.kind(), error.token()), (ConnectErrorKind::Timeout, "connection_timeout"));
    assert!(error.to_string().starts_with("TLS handshake with api.test:"), "{error}");
}

/// The TCP socket under a connection.
fn tcp(io: &Io) -> &TcpStream {
    match io.socket() {
        crate::net::io::Socket::Tcp(stream) => stream,
        crate::net::io::Socket::Unix(_) => panic!("not TCP: {io:?}"),
    }
}
