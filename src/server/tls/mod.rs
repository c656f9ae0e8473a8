//! TLS of a listener: what it proves, what it demands, and the handshake.
//!
//! A listener's [`Terminator`] is built from its configuration and swapped whole by a reload: handshakes that begin later
//! use the new one, connections that are open keep what they agreed on. What has to outlive a reload is handed from one to
//! the next: the keys of session tickets, and the places of handshakes under way.
//!
//! **Resumption must not walk around client authentication.** A ticket says that its holder was authenticated when it was
//! made; so its keys belong to one address and one set of authorities, and are dropped when `client_ca` changes.
//!
//! There is no early data: it can be replayed, and a gateway does not know which requests that would hurt.

mod certificates;
mod handshake;
mod signing;

pub use certificates::{CertificateError, Facts};
pub use handshake::{Failure, HandshakeError};

use crate::config::{ListenerTls, Protocols, TlsVersion};
use crate::instant::Instant;
use crate::net::io::{Io, Socket};
use crate::net::tls::{self, RootsError};
use crate::observe::metrics::ListenerMetrics;
use certificates::Certificates;
use handshake::Terms;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoClientAuth, NoServerSessionStorage, ProducesTickets, ServerConnection, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::{HandshakeKind, ServerConfig, version};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// TLS of one listener, as one configuration wants it.
#[derive(Debug)]
pub struct Terminator {
    /// Of the listener, for people.
    name: Arc<str>,
    settings: Arc<ListenerTls>,
    terms: Terms,
    certificates: Arc<Certificates>,
    metrics: ListenerMetrics,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Secured {
    /// The stream: always [`Io::TlsServer`].
    pub io: Io,
    /// What is spoken on it.
    pub protocol: Negotiated,
    /// The name the client asked for, in lower case.
    pub server_name: Option<Box<str>>,
}

/// What client and listener agreed to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Negotiated {
    /// HTTP/1.1; also where the client did not say.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Why a listener's TLS cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A certificate or key.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The clients' authorities.
    #[error("tls.client_ca {0}")]
    ClientCa(RootsError),
    /// The library does not take them.
    #[error("tls.client_ca cannot be used: {0}")]
    Verifier(VerifierBuilderError),
    /// The library refuses what we ask of it.
    #[error("TLS is not usable: {0}")]
    Library(rustls::Error),
}

// === impl Terminator ===

impl Terminator {
    /// Builds it; `before` is what the same address had until now.
    ///
    /// # Errors
    /// See [`BuildError`]; the text names the file and what to do.
    pub fn build(
        name: &Arc<str>,
        settings: &Arc<ListenerTls>,
        protocols: Protocols,
        metrics: ListenerMetrics,
        before: Option<&Terminator>,
    ) -> Result<Self, BuildError> {
        let certificates = Arc::new(Certificates::read(&settings.certificates)?);
        let versions: &[_] = match settings.min_version {
            TlsVersion::V12 => &[&version::TLS13, &version::TLS12],
            TlsVersion::V13 => &[&version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(tls::cryptography())
            .with_protocol_versions(versions)
            .map_err(BuildError::Library)?
            .with_client_cert_verifier(verifier(settings)?)
            .with_cert_resolver(Arc::clone(&certificates) as _);
        config.alpn_protocols = tls::alpn(protocols.http2, protocols.http1);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets(settings, before)?;
        config.send_tls13_tickets = TICKETS;
        let terms = Terms {
            config: Arc::new(config),
            places: places(settings, before),
            needs_alpn: !protocols.http1,
            asks_client: settings.client_ca.is_some(),
        };
        Ok(Terminator { name: Arc::clone(name), settings: Arc::clone(settings), terms, certificates, metrics })
    }

    /// Until when a connection accepted at `accepted` has to have its handshake done.
    #[must_use]
    pub fn deadline(&self, accepted: Instant) -> Instant {
        crate::clock::after(accepted, self.settings.handshake_timeout)
    }

    /// Takes a client's connection through the handshake by `deadline`, and counts how that went.
    ///
    /// # Errors
    /// See [`HandshakeError`]. The client has been told; where it spoke HTTP in the clear, the caller may answer it so.
    pub async fn accept(&self, socket: Socket, deadline: Instant) -> Result<Secured, HandshakeError> {
        // A handshake's state is large and soon over: apart, it is not part of every connection's own future.
        let handshake = Box::pin(self.secure(socket));
        let done = tokio::time::timeout_at(deadline.into(), handshake).await;
        let done = done.unwrap_or_else(|_| Err(HandshakeError::of(Failure::Timeout)));
        self.metrics.handshake(match &done {
            Ok((_, HandshakeKind::Resumed)) => RESUMED,
            Ok(_) => FULL,
            Err(error) => error.failure().as_str(),
        });
        done.map(|(secured, _)| secured)
    }

    /// What people want to know of its certificates, in the order of the file.
    pub fn certificates(&self) -> impl Iterator<Item = &Facts> {
        self.certificates.facts()
    }

    /// Shows its certificates in the metrics, and warns of those that end soon.
    pub fn announce(&self, now: SystemTime) {
        let shown: Vec<_> = self.certificates().map(|facts| (&*facts.label, facts.ends)).collect();
        self.metrics.certificates(&shown);
        for Facts { label, path, ends } in self.certificates() {
            let (listener, path) = (&self.name, path.display());
            match days_left(*ends, now) {
                None => {
                    tracing::error!(%listener, certificate = %label, %path, "a certificate has ended and clients refuse it; renew it now");
                }
                Some(days) if days < WARNING_DAYS => {
                    tracing::warn!(%listener, certificate = %label, %path, days, "a certificate ends soon; renew it");
                }
                Some(_) => {}
            }
        }
    }

    async fn secure(&self, socket: Socket) -> Result<(Secured, HandshakeKind), HandshakeError> {
        let (socket, session) = handshake::perform(socket, &self.terms).await?;
        let kind = session.handshake_kind().unwrap_or(HandshakeKind::Full);
        let protocol = if session.alpn_protocol() == Some(tls::H2) { Negotiated::Http2 } else { Negotiated::Http1 };
        let server_name = session.server_name().map(|name| name.to_ascii_lowercase().into());
        // The finished session takes the place of the fresh one that the library would drive itself; all that is left to
        // it is to write the tickets.
        let adopt = |fresh: &mut ServerConnection| *fresh = session;
        let acceptor = TlsAcceptor::from(Arc::clone(&self.terms.config));
        let stream = acceptor.accept_with(socket, adopt).await.map_err(HandshakeError::gone)?;
        Ok((Secured { io: Io::TlsServer(Box::new(stream)), protocol, server_name }, kind))
    }
}

fn verifier(settings: &ListenerTls) -> Result<Arc<dyn ClientCertVerifier>, BuildError> {
    let Some(pem) = &settings.client_ca else { return Ok(Arc::new(NoClientAuth)) };
    let roots = Arc::new(tls::roots(pem).map_err(BuildError::ClientCa)?);
    WebPkiClientVerifier::builder_with_provider(roots, tls::cryptography()).build().map_err(BuildError::Verifier)
}

/// The keys of session tickets; new ones unless the same authorities vouch for clients as before.
fn tickets(settings: &ListenerTls, before: Option<&Terminator>) -> Result<Arc<dyn ProducesTickets>, BuildError> {
    match before.filter(|before| before.settings.client_ca == settings.client_ca) {
        Some(before) => Ok(Arc::clone(&before.terms.config.ticketer)),
        None => Ticketer::new().map_err(BuildError::Library),
    }
}

/// The places of handshakes; the living ones unless there shall be more or fewer. Those under way then end beside.
fn places(settings: &ListenerTls, before: Option<&Terminator>) -> Arc<Semaphore> {
    match before.filter(|before| before.settings.handshakes == settings.handshakes) {
        Some(before) => Arc::clone(&before.terms.places),
        None => Arc::new(Semaphore::new(settings.handshakes.min(Semaphore::MAX_PERMITS))),
    }
}

/// Whole days until then; `None` where that is past.
fn days_left(ends: SystemTime, now: SystemTime) -> Option<u64> {
    ends.duration_since(now).ok().map(|left| left.as_secs() / SECONDS_OF_A_DAY)
}

/// From when on a certificate that ends is warned of: two renewals a week apart may fail before anybody has to hurry.
const WARNING_DAYS: u64 = 14;

const SECONDS_OF_A_DAY: u64 = 24 * 60 * 60;

/// A handshake with everything, as the metric names it.
const FULL: &str = "full";

/// A handshake that resumed a session, as the metric names it.
const RESUMED: &str = "resumed";

/// Tickets after a TLS 1.3 handshake. Each resumes once; a browser opens two connections sooner than one could be renewed.
const TICKETS: usize = 2;

#[cfg(test)]
mod tests;
