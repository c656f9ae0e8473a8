//! What we demand of an `https` provider before we send it anything.
//!
//! Every provider has one [`ClientConfig`], shared by all workers, so that sessions are resumed whichever worker opens the
//! next connection. There is no switch that turns verification off; a private authority is trusted by `tls.ca`, an odd name
//! by `tls.server_name`.

use crate::config::{ProviderCertificate, ProviderTls};
use crate::net::tls::{self, PairError, RootsError};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, SignatureScheme, version};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Why no TLS configuration could be made for a provider.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Neither the provider nor the machine says whom to trust.
    #[error(
        "this machine has no trusted root certificates{detail}; install the package ca-certificates, or set tls.ca of the provider"
    )]
    NoRoots {
        /// What was found instead, starting with a colon; may be empty.
        detail: String,
    },
    /// `tls.ca` cannot be used.
    #[error("tls.ca {0}")]
    Ca(RootsError),
    /// `tls.client` cannot be used.
    #[error("tls.client: {0}")]
    Client(Box<PairError>),
    /// No certificate could ever be valid for this name.
    #[error(
        "{name:?} is neither a DNS name nor an IP address; set tls.server_name to a name of the provider's certificate"
    )]
    Name {
        /// The name as configured.
        name: String,
    },
    /// The library refuses what we ask of it.
    #[error("TLS is not usable: {0}")]
    Library(rustls::Error),
}

/// The configuration for all connections to one provider: TLS 1.2 or later, HTTP/1.1, resumption in memory.
/// Whoever speaks more offers more by ALPN. `host` is for the log.
///
/// # Errors
/// When `tls.ca` cannot be used, or is absent on a machine without root certificates; when `tls.client` cannot be used.
pub fn client_config(settings: &ProviderTls, host: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match &settings.ca {
        Some(pem) => Arc::new(tls::roots(pem).map_err(TlsError::Ca)?),
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(tls::cryptography())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(TlsError::Library)?
        .with_root_certificates(roots);
    let mut config = match &settings.client {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown(own)?))),
        None => {
            builder.with_client_cert_resolver(Arc::new(Nothing { host: host.into(), asked: AtomicBool::new(false) }))
        }
    };
    config.alpn_protocols = tls::alpn(false, true);
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

/// Nothing to show a provider that asks who we are. Many ask and take no for an answer; those that do not mostly close the
/// connection without a word that a client would read in time (TLS 1.3 lets them do so after the handshake), so the reason is
/// told when they ask.
#[derive(Debug)]
struct Nothing {
    host: Box<str>,
    asked: AtomicBool,
}

impl ResolvesClientCert for Nothing {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        if !self.asked.swap(true, Ordering::Relaxed) {
            let host = &*self.host;
            tracing::warn!(
                host,
                "a provider asks for a certificate of ours and there is none; where it resets requests, set its tls.client"
            );
        }
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// What we show a provider that asks who we are.
fn shown(own: &ProviderCertificate) -> Result<CertifiedKey, TlsError> {
    tls::pair(&own.cert_path, &own.cert, &own.key_path, own.key.expose())
        .map_err(|error| TlsError::Client(Box::new(error)))
}

/// The name a provider's certificate must have: `tls.server_name`, else `host` of its URL (a name or an IP literal).
///
/// # Errors
/// When it is neither a DNS name nor an address.
pub fn server_name(tls: &ProviderTls, host: &str) -> Result<ServerName<'static>, TlsError> {
    let name = tls.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name { name: name.to_owned() })
}

/// The machine's roots, read once for all providers. A failure is not kept, so that a reload works once they are installed.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let complaints: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    let roots = found_roots(found.certs, &complaints)?;
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}

/// Old stores hold a few certificates that no longer parse; they are left out, and only an empty result is an error.
fn found_roots(found: Vec<CertificateDer<'static>>, complaints: &[String]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (_, unusable) = roots.add_parsable_certificates(found);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let detail = match (complaints.first(), unusable) {
        (Some(first), _) => format!(": {first}"),
        (None, 0) => String::new(),
        (None, unusable) => format!(": {unusable} were found, but none is usable"),
    };
    Err(TlsError::NoRoots { detail })
}

/// Sessions a provider's configuration remembers for resumption. A provider has one name, and the library keeps eight
/// tickets a name; the rest is room for a `server_name` shared by several. The oldest make way.
const SESSIONS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn with_ca(pem: &str) -> Result<Arc<ClientConfig>, TlsError> {
        client_config(&ProviderTls { ca: Some(pem.as_bytes().into()), ..ProviderTls::default() }, "ca.test")
    }

    fn refusal(pem: &str) -> String {
        with_ca(pem).expect_err("an error").to_string()
    }

    fn certificate() -> rcgen::Certificate {
        let params = CertificateParams::new(vec!["ca.test".to_owned()]).expect("a valid name");
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate")
    }

    #[test]
    fn several_certificates_in_one_file_are_all_roots() {
        let pem = format!("first\n{}second\n{}", certificate().pem(), certificate().pem());
        assert_eq!(tls::roots(pem.as_bytes()).expect("two roots").len(), 2);
    }

    #[test]
    fn a_file_without_a_certificate_is_an_error() {
        let expected = "tls.ca holds no certificate; it needs at least one PEM section \"BEGIN CERTIFICATE\"";
        assert_eq!(refusal(""), expected);
        assert_eq!(refusal(&KeyPair::generate().expect("a key").serialize_pem()), expected);
    }

    #[test]
    fn a_file_that_is_cut_off_is_an_error() {
        let pem = certificate().pem();
        let told = refusal(&pem[..pem.len() / 2]);
        assert!(told.starts_with("tls.ca is not a PEM file: "), "{told}");
    }

    #[test]
    fn a_section_that_is_no_certificate_is_named_by_its_place() {
        let pem = format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", certificate().pem());
        let told = refusal(&pem);
        assert!(told.starts_with("tls.ca cannot be used: certificate 2 in it cannot be a root: "), "{told}");
    }

    #[test]
    fn a_machine_without_roots_is_told_what_to_install() {
        let told = |found, complaints: &[String]| found_roots(found, complaints).expect_err("no roots").to_string();
        let advice = "install the package ca-certificates, or set tls.ca of the provider";
        assert_eq!(told(Vec::new(), &[]), format!("this machine has no trusted root certificates; {advice}"));
        let complaints = ["cannot open /etc/ssl/certs".to_owned(), "second".to_owned()];
        let expected = format!("this machine has no trusted root certificates: cannot open /etc/ssl/certs; {advice}");
        assert_eq!(told(Vec::new(), &complaints), expected);
        let expected =
            format!("this machine has no trusted root certificates: 1 were found, but none is usable; {advice}");
        assert_eq!(told(vec![CertificateDer::from(vec![0; 4])], &[]), expected);
    }

    #[test]
    fn an_unusable_root_of_the_machine_is_left_out_and_the_rest_trusted() {
        let found = vec![CertificateDer::from(vec![0; 4]), certificate().der().clone()];
        assert_eq!(found_roots(found, &["one was unreadable".to_owned()]).expect("one root").len(), 1);
    }

    #[test]
    fn the_name_to_check_is_the_urls_host_unless_one_is_given() {
        let own = ProviderTls::default();
        assert_eq!(server_name(&own, "api.test").expect("a name").to_str(), "api.test");
        assert_eq!(server_name(&own, "::1").expect("an address").to_str(), "::1");
        let given = ProviderTls { server_name: Some("inside.test".to_owned()), ..ProviderTls::default() };
        assert_eq!(server_name(&given, "api.test").expect("a name").to_str(), "inside.test");
        let told = server_name(&own, "no good").expect_err("a blank").to_string();
        assert!(told.starts_with("\"no good\" is neither a DNS name nor an IP address; "), "{told}");
    }
}
