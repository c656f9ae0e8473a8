//! What TLS to clients and TLS to providers have in common: the cryptography, and reading certificates and keys.
//!
//! The cryptography is named explicitly instead of being installed for the whole process: two libraries that install
//! different ones would otherwise race, and a test could not say which one it tested.

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Why a PEM text of authorities cannot be used. The text goes on where the name of the setting or the file ended.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// It is not well-formed PEM.
    #[error("is not a PEM file: {0}")]
    Pem(pem::Error),
    /// It is PEM, but holds no certificate.
    #[error("holds no certificate; it needs at least one PEM section \"BEGIN CERTIFICATE\"")]
    Empty,
    /// A certificate in it cannot be a root.
    #[error("cannot be used: certificate {number} in it cannot be a root: {source}")]
    Root {
        /// Its position in the file, from 1.
        number: usize,
        /// What is wrong with it.
        source: rustls::Error,
    },
}

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The certificate's file is not well-formed PEM.
    #[error("the certificate {} is not a PEM file: {source}", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// It is PEM, but holds no certificate.
    #[error("{} holds no certificate; it needs a PEM section \"BEGIN CERTIFICATE\"", .path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The key's file holds no key we can read.
    #[error("{} holds no private key; it needs a PEM section \"BEGIN PRIVATE KEY\" that is not encrypted", .path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key's file is not well-formed PEM.
    #[error("the key {} is not a PEM file", .path.display())]
    Key {
        /// The file. What is wrong with it is not told: it could quote the key.
        path: PathBuf,
    },
    /// Certificate and key are no pair.
    #[error("the key {} does not belong to the certificate {}; name the two files that were made together", .key.display(), .cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The library cannot use one of them.
    #[error("the certificate {} with the key {} cannot be used: {source}", .cert.display(), .key.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// The cryptography of every connection: aws-lc-rs, with the library's choice of suites and groups.
pub fn cryptography() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())))
}

/// The names of protocols for ALPN, the preferred first.
pub fn alpn(http2: bool, http1: bool) -> Vec<Vec<u8>> {
    let h2 = http2.then(|| H2.to_vec());
    let http1 = http1.then(|| b"http/1.1".to_vec());
    h2.into_iter().chain(http1).collect()
}

/// Every certificate of a PEM text as a root. It is taken strictly: one bad certificate is an error, not an omission.
///
/// # Errors
/// See [`RootsError`].
pub fn roots(pem: &[u8]) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate.map_err(RootsError::Pem)?;
        roots.add(certificate).map_err(|source| RootsError::Root { number: index + 1, source })?;
    }
    if roots.is_empty() { Err(RootsError::Empty) } else { Ok(roots) }
}

/// A certificate with its chain and the key that belongs to it, from two PEM texts; the paths are for messages.
///
/// # Errors
/// See [`PairError`].
pub fn pair(cert_path: &Path, cert: &[u8], key_path: &Path, key: &[u8]) -> Result<CertifiedKey, PairError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<_, _>>()
        .map_err(|source| PairError::Certificate { path: cert_path.to_owned(), source })?;
    if chain.is_empty() {
        return Err(PairError::NoCertificate { path: cert_path.to_owned() });
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        pem::Error::NoItemsFound => PairError::NoKey { path: key_path.to_owned() },
        _ => PairError::Key { path: key_path.to_owned() },
    })?;
    CertifiedKey::from_der(chain, key, &cryptography()).map_err(|source| {
        let (cert, key) = (cert_path.to_owned(), key_path.to_owned());
        match source {
            rustls::Error::InconsistentKeys(_) => PairError::Mismatch { cert, key },
            source => PairError::Unusable { cert, key, source },
        }
    })
}

/// HTTP/2 as ALPN names it (RFC 9113 §3.1).
pub const H2: &[u8] = b"h2";
