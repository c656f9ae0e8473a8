//! One handshake, from the first byte to the session.
//!
//! The worker reads, writes and parses; what costs (key exchange, signature, a client's certificate) is computed on the
//! threads of [`signing`]. The library's own state machine is driven by hand for that: its connection travels there and
//! back between two reads. A finished one is handed to `tokio-rustls`, with whatever the client sent behind its last
//! message.

use super::signing;
use crate::net::io::{Address, Socket};
use rustls::server::{Accepted, AcceptedAlert, Acceptor, ServerConnection};
use rustls::{AlertDescription, HandshakeKind, PeerIncompatible, ProtocolVersion, ServerConfig};
use std::fmt;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;

/// Why a handshake came to nothing.
#[derive(Debug)]
pub struct HandshakeError {
    failure: Failure,
    source: Option<io::Error>,
    /// The client's connection, where an answer in the clear is what it understands.
    cleartext: Option<Socket>,
}

/// The kinds of failure, as the metric names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// What came is no TLS handshake, or a broken one.
    ClientHello,
    /// It is HTTP in the clear.
    Cleartext,
    /// The client speaks only versions that are too old.
    Version,
    /// The client offers only protocols that the listener does not speak.
    Protocol,
    /// The client can check the signature of none of our certificates.
    NoCertificate,
    /// The client showed no certificate, or one that does not convince.
    ClientCertificate,
    /// The client ended it with an alert: most often it does not trust our certificate.
    Alert,
    /// The client left.
    Gone,
    /// It took too long.
    Timeout,
    /// Anything else.
    Other,
}

/// What all handshakes of a listener share.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) config: Arc<ServerConfig>,
    /// Costly steps under way or waiting at once; whoever comes later waits here, in order, holding no more than a hello.
    pub(super) places: Arc<Semaphore>,
    /// A client that offers no protocol by ALPN is spoken to in HTTP/1.1, which the listener may not speak.
    pub(super) needs_alpn: bool,
    /// A certificate is demanded of clients, and checking it costs.
    pub(super) asks_client: bool,
}

/// The connection, or the alert with which a hello is refused.
type Begun = Result<(ServerConnection, Result<(), rustls::Error>), (rustls::Error, AcceptedAlert)>;

/// Takes `socket` through the handshake.
///
/// # Errors
/// See [`Failure`]. The client was told, where there are words for it.
pub(super) async fn perform(mut socket: Socket, terms: &Terms) -> Result<(Socket, ServerConnection), HandshakeError> {
    match negotiate(&mut socket, terms).await {
        Ok(session) => Ok((socket, session)),
        Err(mut error) if error.failure == Failure::Cleartext => {
            error.cleartext = Some(socket);
            Err(error)
        }
        Err(error) => Err(error),
    }
}

async fn negotiate(socket: &mut Socket, terms: &Terms) -> Result<ServerConnection, HandshakeError> {
    // Whoever says nothing holds no more than a socket.
    poll_fn(|cx| socket.poll_read_ready(cx)).await.map_err(HandshakeError::gone)?;
    let accepted = hello(socket).await?;
    if terms.needs_alpn && accepted.client_hello().alpn().is_none() {
        let alert = &mut &NO_APPLICATION_PROTOCOL[..];
        return Err(refuse(socket, rustls::Error::NoApplicationProtocol, |out| out.write_all(alert)).await);
    }
    let mut session = begin(socket, accepted, terms).await?;
    loop {
        poll_fn(|cx| flush(socket, &mut session, cx)).await.map_err(HandshakeError::gone)?;
        if !session.is_handshaking() {
            return Ok(session);
        }
        match poll_fn(|cx| would_block(session.read_tls(&mut Now { socket, cx }))).await {
            Ok(0) => return Err(HandshakeError::gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(HandshakeError::gone(error)),
        }
        let processed;
        (session, processed) = step(session, terms).await;
        if let Err(error) = processed {
            return Err(refuse(socket, error, |out| while_some(|| session.write_tls(out))).await);
        }
    }
}

/// Reads until the client's hello is complete.
async fn hello(socket: &mut Socket) -> Result<Accepted, HandshakeError> {
    let mut acceptor = Acceptor::default();
    let mut beginning = Beginning::default();
    loop {
        let read = poll_fn(|cx| {
            let mut source = Noting { inner: Now { socket, cx }, beginning: &mut beginning };
            would_block(acceptor.read_tls(&mut source))
        });
        match read.await {
            Ok(0) => return Err(HandshakeError::gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(HandshakeError::gone(error)),
        }
        if beginning.is_cleartext() {
            return Err(HandshakeError::of(Failure::Cleartext));
        }
        if let Some([major, minor]) = beginning.old_version() {
            let alert = [21, major, minor, 0, 2, 2, u8::from(AlertDescription::ProtocolVersion)];
            let error = rustls::Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered);
            return Err(refuse(socket, error, |out| out.write_all(&alert)).await);
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((error, mut alert)) => return Err(refuse(socket, error, |out| alert.write_all(out)).await),
        }
    }
}

/// Answers the hello: the step that costs most.
async fn begin(socket: &mut Socket, accepted: Accepted, terms: &Terms) -> Result<ServerConnection, HandshakeError> {
    let config = Arc::clone(&terms.config);
    let begun: Begun = costly(terms, move || {
        let mut session = accepted.into_connection(config)?;
        // What came behind the hello in one piece.
        let processed = session.process_new_packets().map(drop);
        Ok((session, processed))
    })
    .await;
    match begun {
        Ok((session, Ok(()))) => Ok(session),
        Ok((mut session, Err(error))) => Err(refuse(socket, error, |out| while_some(|| session.write_tls(out))).await),
        Err((error, mut alert)) => Err(refuse(socket, error, |out| alert.write_all(out)).await),
    }
}

/// Takes in what was read; elsewhere, unless it is next to nothing.
async fn step(mut session: ServerConnection, terms: &Terms) -> (ServerConnection, Result<(), rustls::Error>) {
    if is_cheap(&session, terms) {
        let processed = session.process_new_packets().map(drop);
        return (session, processed);
    }
    costly(terms, move || {
        let processed = session.process_new_packets().map(drop);
        (session, processed)
    })
    .await
}

/// Whether what is missing is the client's Finished alone: one keyed hash.
fn is_cheap(session: &ServerConnection, terms: &Terms) -> bool {
    match session.handshake_kind() {
        Some(HandshakeKind::Resumed) => true,
        Some(HandshakeKind::Full) => session.protocol_version() == Some(ProtocolVersion::TLSv1_3) && !terms.asks_client,
        _ => false,
    }
}

async fn costly<T: Send + 'static>(terms: &Terms, work: impl FnOnce() -> T + Send + 'static) -> T {
    // Nobody closes the semaphore; without a place the work would only be unbounded, not wrong.
    let _place = terms.places.acquire().await;
    signing::compute(work).await
}

/// Says `error` to the client by the alert that `write` writes, and lets it arrive.
async fn refuse(
    socket: &mut Socket,
    error: rustls::Error,
    mut write: impl FnMut(&mut Vec<u8>) -> io::Result<()>,
) -> HandshakeError {
    let mut alert = Vec::new();
    // Writing to memory does not fail, and an empty alert is a mere close.
    let _: io::Result<()> = write(&mut alert);
    // It is good manners with a bound: whatever fails here, the handshake has failed already.
    drop(tokio::time::timeout(FAREWELL_TIME, say(socket, &alert)).await);
    HandshakeError::from(error)
}

/// Writes `alert`, ends our direction, then reads and drops what the client still sends: closing a socket with unread bytes
/// sends a reset, which can destroy the alert on its way.
async fn say(socket: &mut Socket, alert: &[u8]) -> io::Result<()> {
    let mut rest = alert;
    while !rest.is_empty() {
        let written = poll_fn(|cx| Pin::new(&mut *socket).poll_write(cx, rest)).await?;
        rest = &rest[written..];
    }
    poll_fn(|cx| Pin::new(&mut *socket).poll_shutdown(cx)).await?;
    let (mut dropped, mut buf) = (0, [0; 1024]);
    while dropped < FAREWELL_BYTES {
        let read = poll_fn(|cx| {
            let mut read = ReadBuf::new(&mut buf);
            Pin::new(&mut *socket).poll_read(cx, &mut read).map_ok(|()| read.filled().len())
        });
        match read.await? {
            0 => break,
            read => dropped += read,
        }
    }
    Ok(())
}

fn flush(socket: &mut Socket, session: &mut ServerConnection, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while session.wants_write() {
        match session.write_tls(&mut Now { socket, cx }) {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    Poll::Ready(Ok(()))
}

fn would_block(done: io::Result<usize>) -> Poll<io::Result<usize>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        done => Poll::Ready(done),
    }
}

fn while_some(mut write: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
    while write()? > 0 {}
    Ok(())
}

/// A socket as the library wants one: it reads and writes at once, or says that it would block; the task is woken then.
struct Now<'a, 'b, 'c> {
    socket: &'a mut Socket,
    cx: &'b mut Context<'c>,
}

/// The first bytes of a connection: the head of a record (RFC 8446 §5.1), and in it that of a hello (§4.1.2).
#[derive(Default)]
struct Beginning {
    bytes: [u8; 11],
    len: usize,
}

/// Notes the beginning of what is read.
struct Noting<'a, R> {
    inner: R,
    beginning: &'a mut Beginning,
}

impl Beginning {
    /// Methods are letters, and no record of TLS begins with one.
    fn is_cleartext(&self) -> bool {
        self.len > 0 && self.bytes[0].is_ascii_alphabetic()
    }

    /// The version of a hello that is older than TLS 1.2. The library would miss something else in it first: such clients
    /// do not say which signatures they know, and the alert would not tell them what is wrong.
    fn old_version(&self) -> Option<[u8; 2]> {
        let [22, _, _, _, _, 1, _, _, _, major, minor] = self.bytes else { return None };
        (self.len == self.bytes.len() && [major, minor] < [3, 3]).then_some([major, minor])
    }
}

impl Read for Now<'_, '_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut read = ReadBuf::new(buf);
        match Pin::new(&mut *self.socket).poll_read(self.cx, &mut read) {
            Poll::Ready(done) => done.map(|()| read.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Now<'_, '_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write(self.cx, buf) {
            Poll::Ready(done) => done,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<R: Read> Read for Noting<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        let Beginning { bytes, len } = self.beginning;
        let more = read.min(bytes.len() - *len);
        bytes[*len..*len + more].copy_from_slice(&buf[..more]);
        *len += more;
        Ok(read)
    }
}

// === impl HandshakeError ===

impl HandshakeError {
    /// What kind of failure it is.
    #[must_use]
    pub fn failure(&self) -> Failure {
        self.failure
    }

    /// Writes it to the log: for everybody where somebody was kept out, else for who looks into one connection.
    pub fn log(&self, listener: &str, client: Address) {
        let failure = self.failure.as_str();
        if self.failure == Failure::ClientCertificate {
            tracing::info!(listener, %client, failure, error = %self, "a client was refused in its TLS handshake");
        } else {
            tracing::debug!(listener, %client, failure, error = %self, "a TLS handshake came to nothing");
        }
    }

    /// The client's connection, where it spoke HTTP in the clear: an answer in the clear is what it understands.
    #[must_use]
    pub fn into_cleartext(self) -> Option<Socket> {
        self.cleartext
    }

    pub(super) fn of(failure: Failure) -> Self {
        HandshakeError { failure, source: None, cleartext: None }
    }

    pub(super) fn gone(source: io::Error) -> Self {
        HandshakeError { failure: Failure::Gone, source: Some(source), cleartext: None }
    }
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> Self {
        HandshakeError { failure: Failure::judge(&error), source: Some(io::Error::other(error)), cleartext: None }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.failure.told())?;
        self.source.as_ref().map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

// === impl Failure ===

impl Failure {
    /// As the metric names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Failure::ClientHello => "client_hello",
            Failure::Cleartext => "cleartext",
            Failure::Version => "version",
            Failure::Protocol => "protocol",
            Failure::NoCertificate => "no_certificate",
            Failure::ClientCertificate => "client_certificate",
            Failure::Alert => "alert",
            Failure::Gone => "gone",
            Failure::Timeout => "timeout",
            Failure::Other => "other",
        }
    }

    fn told(self) -> &'static str {
        match self {
            Failure::ClientHello => "what came is no TLS handshake",
            Failure::Cleartext => "what came is HTTP in the clear, and the listener speaks TLS",
            Failure::Version => "the client speaks only versions of TLS that are too old for tls.min_version",
            Failure::Protocol => "the client speaks none of the listener's protocols",
            Failure::NoCertificate => "the client can use none of the listener's certificates",
            Failure::ClientCertificate => "the client's certificate is missing, not valid, or not one of tls.client_ca",
            Failure::Alert => "the client refused",
            Failure::Gone => "the client left",
            Failure::Timeout => "the handshake did not end within tls.handshake_timeout",
            Failure::Other => "the handshake failed",
        }
    }

    fn judge(error: &rustls::Error) -> Self {
        use PeerIncompatible as Incompatible;
        use rustls::Error as E;
        match error {
            E::InvalidMessage(_) | E::InappropriateMessage { .. } | E::InappropriateHandshakeMessage { .. } => {
                Failure::ClientHello
            }
            E::PeerIncompatible(
                Incompatible::Tls12NotOffered
                | Incompatible::Tls12NotOfferedOrEnabled
                | Incompatible::SupportedVersionsExtensionRequired,
            ) => Failure::Version,
            E::PeerIncompatible(Incompatible::NoSignatureSchemesInCommon) => Failure::NoCertificate,
            E::NoApplicationProtocol => Failure::Protocol,
            E::NoCertificatesPresented | E::InvalidCertificate(_) => Failure::ClientCertificate,
            E::AlertReceived(_) => Failure::Alert,
            _ => Failure::Other,
        }
    }
}

/// A fatal alert of that name (RFC 8446 §6.2), as one record in the clear: what the library would write if it refused.
const NO_APPLICATION_PROTOCOL: [u8; 7] = [21, 3, 3, 0, 2, 2, 120];

/// For the last word to a client to arrive.
const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// Bytes read and dropped meanwhile.
const FAREWELL_BYTES: usize = 64 * 1024;
