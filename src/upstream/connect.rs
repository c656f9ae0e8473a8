//! Opening connections.
//!
//! Happy Eyeballs (RFC 8305): where a name has several addresses they are tried in turn, each with a head start of
//! 250 ms over the next, and the first that connects wins. A dead address, or a family that leads nowhere, then costs a
//! quarter of a second instead of a whole timeout. Resolution, TCP and the TLS handshake share one deadline.
//!
//! A provider on this machine may be behind a unix socket: there is nothing to resolve and nobody to race then.
//!
//! The race is for TCP only: the handshake begins on the winner. Racing handshakes as well would cost the provider a key
//! exchange for every loser.

use super::resolve::Resolver;
use super::tls::{self, TlsError};
use crate::clock;
use crate::config::{ProviderAddress, ProviderTls, ProviderUrl, ProxyVersion};
use crate::instant::Instant;
use crate::net::io::{Io, Socket};
use crate::net::proxy_header::{self, Announce};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;

/// Where a provider is reached, and how; one per provider, shared by all workers.
#[derive(Debug)]
pub struct Target {
    /// `host:port` or `unix:/path`, for people.
    authority: Box<str>,
    whereabouts: Whereabouts,
    /// The version of the PROXY header that goes first.
    proxy_protocol: Option<ProxyVersion>,
    tls: Option<Secured>,
}

/// How an `https` provider is met.
#[derive(Debug, Clone)]
struct Secured {
    /// Offers by ALPN what the provider may speak.
    config: Arc<ClientConfig>,
    /// Offers HTTP/1 only.
    http1: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// Where a connection leads.
#[derive(Debug)]
enum Whereabouts {
    /// Over the network.
    Network(Resolver),
    /// To a unix socket.
    Path(PathBuf),
}

/// Why a connection could not be opened. Its text names the address and the cause.
#[derive(Debug)]
pub struct ConnectError {
    kind: ConnectErrorKind,
    token: &'static str,
    /// What we were doing, to whom.
    doing: String,
    /// What the operator may do about it, where we know.
    hint: &'static str,
    source: io::Error,
}

/// The kinds of failure, the most telling first: where the addresses of a name fail differently, this order decides which
/// failure is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectErrorKind {
    /// The name has no addresses, or nobody would say.
    Resolve,
    /// TCP was there, TLS was not: bad certificate, wrong protocol, an alert.
    Tls,
    /// Nobody listens.
    Refused,
    /// The deadline passed, or the kernel gave up.
    Timeout,
    /// No route to the address.
    Unreachable,
    /// Anything else; often this machine's own limits.
    Other,
}

/// The addresses of one name on their way to a connection.
struct Race<'a> {
    waiting: std::slice::Iter<'a, SocketAddr>,
    running: Vec<(SocketAddr, Opening)>,
    head_start: Duration,
    /// The most telling failure so far.
    failure: Option<(SocketAddr, io::Error)>,
}

/// What a TLS handshake begins with.
type Handshake<'a> = (&'a Arc<ClientConfig>, &'a ServerName<'static>);

type Opening = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Opens a connection to `target`, ready for a request, by `deadline`. Where the target wants a PROXY header, the
/// connection begins with one that says what `announce` does, and is good for that client only.
///
/// # Errors
/// When no address of it could be connected to in time, or TLS failed.
pub async fn connect(target: &Target, announce: &Announce, deadline: Instant) -> Result<Io, ConnectError> {
    // A handshake's state is large and rarely there: apart, it is not part of every request's own future.
    Box::pin(open(target, announce, target.tls.as_ref().map(|tls| (&tls.config, &tls.name)), deadline)).await
}

/// As [`connect`], for a connection that has to speak HTTP/1: it alone is offered by ALPN.
///
/// # Errors
/// As [`connect`].
pub async fn connect_http1(target: &Target, announce: &Announce, deadline: Instant) -> Result<Io, ConnectError> {
    Box::pin(open(target, announce, target.tls.as_ref().map(|tls| (&tls.http1, &tls.name)), deadline)).await
}

// === impl Target ===

impl Target {
    /// For a provider as configured.
    ///
    /// # Errors
    /// When it is `https` and no TLS configuration can be made.
    pub fn new(url: &ProviderUrl, tls: &ProviderTls) -> Result<Self, TlsError> {
        let whereabouts = match &url.address {
            ProviderAddress::Tcp { host, port } => Whereabouts::Network(Resolver::new(host, *port)),
            ProviderAddress::Unix(path) => Whereabouts::Path(path.clone()),
        };
        Target::at(whereabouts, url, tls)
    }

    /// As [`Target::new`], with a resolver of the caller's.
    ///
    /// # Errors
    /// When it is `https` and no TLS configuration can be made.
    pub fn with_resolver(url: &ProviderUrl, tls: &ProviderTls, resolver: Resolver) -> Result<Self, TlsError> {
        Target::at(Whereabouts::Network(resolver), url, tls)
    }

    fn at(whereabouts: Whereabouts, url: &ProviderUrl, tls: &ProviderTls) -> Result<Self, TlsError> {
        let secured = if url.scheme.is_tls() { Some(Secured::new(tls, url.host())?) } else { None };
        Ok(Target { authority: url.address.to_string().into(), whereabouts, proxy_protocol: None, tls: secured })
    }

    /// The same provider at this one of its addresses: same names, same certificates.
    #[must_use]
    pub(super) fn toward(&self, address: SocketAddr) -> Self {
        Target {
            authority: self.authority.clone(),
            whereabouts: Whereabouts::Network(Resolver::literal(address)),
            proxy_protocol: self.proxy_protocol,
            tls: self.tls.clone(),
        }
    }

    /// Begins each connection with a PROXY header of this version, if any. A new target has none.
    #[must_use]
    pub fn announcing(mut self, version: Option<ProxyVersion>) -> Self {
        self.proxy_protocol = version;
        self
    }

    /// Whether a connection is good only for the client it was opened for.
    pub fn is_private(&self) -> bool {
        self.proxy_protocol.is_some()
    }

    /// Offers these protocols by ALPN, the most wanted first, where there is TLS. HTTP/1.1 alone is what a new target offers.
    #[must_use]
    pub fn offering(mut self, protocols: &[&[u8]]) -> Self {
        if let Some(secured) = &mut self.tls {
            secured.config = offering(&secured.config, protocols);
        }
        self
    }
}

// === impl Secured ===

impl Secured {
    fn new(tls: &ProviderTls, host: &str) -> Result<Self, TlsError> {
        let config = tls::client_config(tls, host)?;
        let http1 = offering(&config, &[b"http/1.1"]);
        Ok(Secured { config, http1, name: tls::server_name(tls, host)? })
    }
}

/// The same configuration with another ALPN list; sessions are shared.
fn offering(config: &ClientConfig, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

// === impl ConnectError ===

impl ConnectError {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> ConnectErrorKind {
        self.kind
    }

    /// The word registered for it in RFC 9209, for `error=` of `Proxy-Status`.
    #[must_use]
    pub fn token(&self) -> &'static str {
        self.token
    }

    /// Whether this machine lacked something (files, ports, memory), so that the provider is not to blame.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.token == "proxy_internal_error"
    }

    /// The same once more, for each of those who waited for the connection.
    pub(super) fn again(&self) -> Self {
        let source = match self.source.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.source.kind(), self.source.to_string()),
        };
        ConnectError { kind: self.kind, token: self.token, doing: self.doing.clone(), hint: self.hint, source }
    }

    /// The connection is there, but HTTP/2 over it is not.
    pub(super) fn http2(target: &Target, token: &'static str, hint: &'static str, source: io::Error) -> Self {
        let doing = format!("HTTP/2 with {}", target.authority);
        ConnectError { kind: ConnectErrorKind::Other, token, doing, hint, source }
    }

    pub(super) fn late_http2(target: &Target) -> Self {
        let doing = format!("HTTP/2 with {}", target.authority);
        ConnectError { kind: ConnectErrorKind::Timeout, token: "connection_timeout", doing, hint: "", source: late() }
    }

    fn late_dns(target: &Target) -> Self {
        let doing = format!("no answer from DNS for {}", target.authority);
        ConnectError { kind: ConnectErrorKind::Timeout, token: "dns_timeout", doing, hint: "", source: late() }
    }

    fn dns(target: &Target, source: io::Error) -> Self {
        let doing = format!("cannot resolve {}", target.authority);
        ConnectError { kind: ConnectErrorKind::Resolve, token: "dns_error", doing, hint: "", source }
    }

    /// Every address failed; `source` is the most telling failure, of `address`.
    fn tcp(target: &Target, address: SocketAddr, tried: usize, source: io::Error) -> Self {
        let (kind, token) = judge(&source);
        let others = if tried > 1 { format!(" (one of {tried} addresses, all failed)") } else { String::new() };
        let doing = format!("cannot connect to {}{others}", named(target, address));
        ConnectError { kind, token, doing, hint: "", source }
    }

    fn late_tcp(target: &Target, silent: &[SocketAddr], failure: Option<(SocketAddr, io::Error)>) -> Self {
        let mut each: Vec<String> = silent.iter().map(|address| format!("no answer from {address}")).collect();
        each.extend(failure.map(|(address, error)| format!("{address}: {error}")));
        let doing = match silent {
            [only] if only.to_string() == *target.authority => format!("cannot connect to {only}"),
            _ => format!("cannot connect to {} ({})", target.authority, each.join("; ")),
        };
        let (kind, token) = (ConnectErrorKind::Timeout, "connection_timeout");
        ConnectError { kind, token, doing, hint: "", source: late() }
    }

    /// The path of a unix socket leads nowhere.
    fn path(target: &Target, source: io::Error) -> Self {
        use io::ErrorKind as E;
        let doing = format!("cannot connect to {}", target.authority);
        let (kind, token, hint) = match source.kind() {
            E::NotFound => {
                let hint = "start the provider, or correct the path in `url`";
                (ConnectErrorKind::Refused, "connection_refused", hint)
            }
            E::ConnectionRefused => {
                let hint = "nobody listens on that socket: start the provider, or correct the path in `url`";
                (ConnectErrorKind::Refused, "connection_refused", hint)
            }
            E::PermissionDenied => {
                let hint = "let the gateway's user write to the socket and search the folders above it";
                (ConnectErrorKind::Unreachable, "destination_unavailable", hint)
            }
            _ => {
                let (kind, token) = judge(&source);
                (kind, token, "")
            }
        };
        ConnectError { kind, token, doing, hint, source }
    }

    fn late_path(target: &Target) -> Self {
        let doing = format!("cannot connect to {}", target.authority);
        let hint = "the provider does not accept what waits in its backlog";
        let (kind, token) = (ConnectErrorKind::Timeout, "connection_timeout");
        ConnectError { kind, token, doing, hint, source: late() }
    }

    fn header(target: &Target, source: io::Error) -> Self {
        let doing = format!("sending a PROXY header to {}", target.authority);
        let (kind, token) = judge(&source);
        ConnectError { kind, token, doing, hint: "", source }
    }

    fn late_tls(target: &Target, address: Option<SocketAddr>) -> Self {
        let doing = format!("TLS handshake with {}", named_if(target, address));
        let (kind, token) = (ConnectErrorKind::Timeout, "connection_timeout");
        ConnectError { kind, token, doing, hint: "", source: late() }
    }

    fn tls(target: &Target, address: Option<SocketAddr>, source: io::Error) -> Self {
        let (token, hint) = judge_tls(&source);
        let doing = format!("TLS handshake with {}", named_if(target, address));
        ConnectError { kind: ConnectErrorKind::Tls, token, doing, hint, source }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.source)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

// === impl Race ===

impl<'a> Race<'a> {
    fn new(addresses: &'a [SocketAddr], head_start: Duration) -> Self {
        Race { waiting: addresses.iter(), running: Vec::new(), head_start, failure: None }
    }

    /// The first connection of any address; `None` when all have failed. Dropping the race closes the losers.
    async fn winner(&mut self) -> Option<(TcpStream, SocketAddr)> {
        while self.start_next() || !self.running.is_empty() {
            // A failure and the end of the head start both lead to the next address.
            match timeout(self.head_start, poll_fn(|cx| self.poll_running(cx))).await {
                Ok((address, Ok(stream))) => return Some((stream, address)),
                Ok((address, Err(error))) => self.note(address, error),
                Err(_) => {}
            }
        }
        None
    }

    fn start_next(&mut self) -> bool {
        let Some(&address) = self.waiting.next() else { return false };
        self.running.push((address, Box::pin(open_one(address))));
        true
    }

    /// At most [`super::resolve`]'s bound of addresses is polled, so asking all of them is cheap.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<(SocketAddr, io::Result<TcpStream>)> {
        for index in 0..self.running.len() {
            if let Poll::Ready(result) = self.running[index].1.as_mut().poll(cx) {
                let (address, _) = self.running.swap_remove(index);
                return Poll::Ready((address, result));
            }
        }
        Poll::Pending
    }

    fn note(&mut self, address: SocketAddr, error: io::Error) {
        let told = self.failure.as_ref().map(|(_, told)| judge(told).0);
        if told.is_none_or(|told| judge(&error).0 < told) {
            self.failure = Some((address, error));
        }
    }

    fn silent(&self) -> Vec<SocketAddr> {
        self.running.iter().map(|(address, _)| *address).collect()
    }
}

async fn open(
    target: &Target,
    announce: &Announce,
    tls: Option<Handshake<'_>>,
    deadline: Instant,
) -> Result<Io, ConnectError> {
    let (mut socket, address) = match &target.whereabouts {
        Whereabouts::Network(resolver) => {
            let addresses = resolve(target, resolver, deadline).await?;
            let (stream, address) = race(target, &addresses, deadline).await?;
            (Socket::Tcp(stream), Some(address))
        }
        Whereabouts::Path(path) => (Socket::Unix(open_path(target, path, deadline).await?), None),
    };
    if let Some(version) = target.proxy_protocol {
        send_header(target, version, announce, &mut socket, deadline).await?;
    }
    let Some((config, name)) = tls else { return Ok(Io::Plain(socket)) };
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name.clone(), socket);
    match timeout_at(deadline.into(), handshake).await {
        Ok(Ok(stream)) => Ok(Io::TlsClient(Box::new(stream))),
        Ok(Err(error)) => Err(ConnectError::tls(target, address, error)),
        Err(_) => Err(ConnectError::late_tls(target, address)),
    }
}

/// Connects to a unix socket. Where its backlog is full the kernel says so at once, and nobody says when there is room, so
/// that has to be asked.
async fn open_path(target: &Target, path: &Path, deadline: Instant) -> Result<UnixStream, ConnectError> {
    let mut pause = BACKLOG_PAUSE;
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(ConnectError::path(target, error)),
        }
        if timeout_at(deadline.into(), tokio::time::sleep(pause)).await.is_err() {
            return Err(ConnectError::late_path(target));
        }
        pause = (2 * pause).min(BACKLOG_PAUSE_MAX);
    }
}

/// Says first on whose behalf the connection is, before TLS.
async fn send_header(
    target: &Target,
    version: ProxyVersion,
    announce: &Announce,
    socket: &mut Socket,
    deadline: Instant,
) -> Result<(), ConnectError> {
    let mut header = Vec::new();
    match version {
        ProxyVersion::V1 => proxy_header::write_v1(&mut header, announce),
        ProxyVersion::V2 => proxy_header::write_v2(&mut header, announce),
    }
    let sent = timeout_at(deadline.into(), socket.write_all(&header)).await;
    sent.unwrap_or_else(|_| Err(late())).map_err(|error| ConnectError::header(target, error))
}

async fn resolve(target: &Target, resolver: &Resolver, deadline: Instant) -> Result<Arc<[SocketAddr]>, ConnectError> {
    match timeout_at(deadline.into(), resolver.resolve(clock::now())).await {
        Ok(found) => found.map_err(|error| ConnectError::dns(target, error)),
        Err(_) => Err(ConnectError::late_dns(target)),
    }
}

async fn race(
    target: &Target,
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let mut race = Race::new(addresses, HEAD_START);
    let won = timeout_at(deadline.into(), race.winner()).await;
    match (won, race.failure.take()) {
        (Ok(Some(won)), _) => Ok(won),
        (Ok(None), Some((address, error))) => Err(ConnectError::tcp(target, address, addresses.len(), error)),
        // A resolver answers with an address or an error; an empty race can only be a name without addresses.
        (Ok(None), None) => Err(ConnectError::dns(target, io::Error::other("the name has no address"))),
        (Err(_), failure) => Err(ConnectError::late_tcp(target, &race.silent(), failure)),
    }
}

async fn open_one(address: SocketAddr) -> io::Result<TcpStream> {
    prepared(TcpStream::connect(address).await?, address)
}

/// Refuses a socket that is connected to itself, and lets the others send small writes at once.
///
/// When nobody listens on a port of this machine, and the kernel happens to pick that very port for our own end, TCP
/// connects the socket with itself; kept open, it would also keep the provider from ever listening there again.
fn prepared(stream: TcpStream, peer: SocketAddr) -> io::Result<TcpStream> {
    if stream.local_addr()? == peer {
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens: the socket met itself"));
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What a failed `connect` means.
fn judge(error: &io::Error) -> (ConnectErrorKind, &'static str) {
    use io::ErrorKind as E;
    match error.kind() {
        E::ConnectionRefused => (ConnectErrorKind::Refused, "connection_refused"),
        E::TimedOut => (ConnectErrorKind::Timeout, "connection_timeout"),
        E::NetworkUnreachable | E::HostUnreachable | E::NetworkDown => {
            (ConnectErrorKind::Unreachable, "destination_ip_unroutable")
        }
        E::PermissionDenied => (ConnectErrorKind::Unreachable, "destination_ip_prohibited"),
        E::ConnectionReset | E::ConnectionAborted => (ConnectErrorKind::Other, "connection_terminated"),
        // What is left is ours: no file descriptor, no port, no memory, no such address family.
        _ => (ConnectErrorKind::Other, "proxy_internal_error"),
    }
}

/// What a failed handshake means, and what may help.
fn judge_tls(error: &io::Error) -> (&'static str, &'static str) {
    let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return ("connection_terminated", "the provider hung up during the handshake");
    };
    match cause {
        rustls::Error::InvalidCertificate(fault) => ("tls_certificate_error", hint(fault)),
        rustls::Error::NoCertificatesPresented => ("tls_certificate_error", ""),
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            ("tls_alert_received", "the provider asks for a certificate of ours: set tls.client")
        }
        rustls::Error::AlertReceived(_) => ("tls_alert_received", ""),
        rustls::Error::InvalidMessage(_) => ("tls_protocol_error", "does the provider speak TLS on this port?"),
        _ => ("tls_protocol_error", ""),
    }
}

fn hint(fault: &CertificateError) -> &'static str {
    use CertificateError as C;
    match fault {
        // A bad signature is how two authorities of the same name differ: one was renewed.
        C::UnknownIssuer | C::BadSignature => "set tls.ca to the authority that signed the certificate",
        C::NotValidForName | C::NotValidForNameContext { .. } => "set tls.server_name to a name the certificate has",
        C::Expired | C::ExpiredContext { .. } => "the provider's certificate has to be renewed",
        C::NotValidYet | C::NotValidYetContext { .. } => "compare this machine's clock with the provider's",
        // The library gives this one no variant of its own. It is what `openssl req -x509` makes by default.
        C::Other(other) if other.0.to_string() == "CaUsedAsEndEntity" => {
            "a certificate that says CA:TRUE cannot be a server's own: make one with basicConstraints=CA:FALSE"
        }
        _ => "",
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "timed out")
}

/// `host:port` and the address behind it, or the address alone where they are the same.
fn named(target: &Target, address: SocketAddr) -> String {
    let address = address.to_string();
    if *target.authority == *address { address } else { format!("{} at {address}", target.authority) }
}

fn named_if(target: &Target, address: Option<SocketAddr>) -> String {
    address.map_or_else(|| target.authority.to_string(), |address| named(target, address))
}

/// Until a full backlog of a unix socket is tried again; doubled each time.
const BACKLOG_PAUSE: Duration = Duration::from_millis(1);

/// At most this long.
const BACKLOG_PAUSE_MAX: Duration = Duration::from_millis(50);

/// The head start of each address over the next: RFC 8305 §8 recommends it.
const HEAD_START: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
