//! What we demand of an `https` provider before we send it anything.
//!
//! Every provider has one [`ClientConfig`], shared by all workers, so that sessions are resumed whichever worker opens the
//! next connection. The cryptography is named explicitly instead of being installed for the whole process: two libraries
//! that install different ones would otherwise race, and a test could not say which one it tested. There is no switch that
//! turns verification off; a private authority is trusted by `tls.ca`, an odd name by `tls.server_name`.

use crate::config::ProviderTls;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
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
    /// `tls.ca` is not well-formed PEM.
    #[error("tls.ca is not a PEM file: {0}")]
    Pem(pem::Error),
    /// `tls.ca` is PEM, but holds no certificate.
    #[error("tls.ca holds no certificate; it needs at least one PEM section \"BEGIN CERTIFICATE\"")]
    Empty,
    /// A certificate in `tls.ca` cannot be a root.
    #[error("certificate {number} in tls.ca cannot be used as a root: {source}")]
    Root {
        /// Its position in the file, from 1.
        number: usize,
        /// What is wrong with it.
        source: rustls::Error,
    },
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
///
/// # Errors
/// When `tls.ca` cannot be used, or is absent on a machine without root certificates.
pub fn client_config(tls: &ProviderTls) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match &tls.ca {
        Some(pem) => Arc::new(given_roots(pem)?),
        None => system_roots()?,
    };
    let mut config = ClientConfig::builder_with_provider(cryptography())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(TlsError::Library)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

/// The name a provider's certificate must have: `tls.server_name`, else `host` of its URL (a name or an IP literal).
///
/// # Errors
/// When it is neither a DNS name nor an address.
pub fn server_name(tls: &ProviderTls, host: &str) -> Result<ServerName<'static>, TlsError> {
    let name = tls.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name { name: name.to_owned() })
}

fn cryptography() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())))
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

/// What the operator wrote is taken strictly: one bad certificate is an error, not an omission.
fn given_roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate.map_err(TlsError::Pem)?;
        roots.add(certificate).map_err(|source| TlsError::Root { number: index + 1, source })?;
    }
    if roots.is_empty() { Err(TlsError::Empty) } else { Ok(roots) }
}

/// Sessions a provider's configuration remembers for resumption. A provider has one name, and the library keeps eight
/// tickets a name; the rest is room for a `server_name` shared by several. The oldest make way.
const SESSIONS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn with_ca(pem: &str) -> Result<Arc<ClientConfig>, TlsError> {
        client_config(&ProviderTls { ca: Some(pem.as_bytes().into()), server_name: None, client: None })
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
        assert_eq!(given_roots(pem.as_bytes()).expect("two roots").len(), 2);
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
        assert!(told.starts_with("certificate 2 in tls.ca cannot be used as a root: "), "{told}");
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
