//! Which certificate a client is shown.

use crate::config;
use crate::net::tls::{self, PairError};
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// The certificates of a listener, found by the name a client asks for.
#[derive(Debug)]
pub(super) struct Certificates {
    listed: Vec<Listed>,
    /// Indices into `listed` by name in lower case, those that sign cheaply first.
    exact: HashMap<Box<str>, Vec<usize>>,
    /// The same by what follows the `*.` of a wildcard.
    wildcard: HashMap<Box<str>, Vec<usize>>,
    /// For clients that ask for no name, or for one that no certificate is for: the first listed, and those for the same
    /// name.
    fallback: Vec<usize>,
}

#[derive(Debug)]
struct Listed {
    key: Arc<CertifiedKey>,
    facts: Facts,
}

/// What people want to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// A short name that no other certificate of its listener has: the first it is for, else its file's.
    pub label: Box<str>,
    /// Where it was read.
    pub path: PathBuf,
    /// When it ends.
    pub ends: SystemTime,
}

/// Why a listener's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file is not what it should be, or two do not belong together.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// The certificate itself cannot be read.
    #[error("the certificate {} cannot be read: {why}; make it anew", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is none.
    #[error("there is no certificate; list at least one under tls.certificates")]
    None,
}

/// What a certificate says.
struct Told {
    /// DNS names in lower case, as written: `example.com`, `*.example.com`.
    names: Vec<Box<str>>,
    ends: SystemTime,
}

// === impl Certificates ===

impl Certificates {
    /// Reads and indexes what is configured.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub(super) fn read(configured: &[config::Certificate]) -> Result<Self, CertificateError> {
        let (mut listed, mut names) = (Vec::<Listed>::new(), Vec::new());
        for certificate in configured {
            let config::Certificate { cert_path, key_path, cert, key } = certificate;
            let key = tls::pair(cert_path, cert, key_path, key.expose())?;
            let told = told(&key).map_err(|why| CertificateError::Unreadable { path: cert_path.clone(), why })?;
            let taken = |label: &str| listed.iter().any(|other| *other.facts.label == *label);
            let label = label(&told.names, cert_path, taken);
            listed
                .push(Listed { key: Arc::new(key), facts: Facts { label, path: cert_path.clone(), ends: told.ends } });
            names.push(told.names);
        }
        if listed.is_empty() {
            return Err(CertificateError::None);
        }
        Ok(Certificates::index(listed, &names))
    }

    fn index(listed: Vec<Listed>, names: &[Vec<Box<str>>]) -> Self {
        let mut certificates =
            Certificates { listed, exact: HashMap::new(), wildcard: HashMap::new(), fallback: Vec::new() };
        // Cheap signatures first: an RSA signature costs the server about twenty times what an ECDSA one does.
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by_key(|index| certificates.listed[*index].signs_with_rsa());
        for index in order {
            for name in &names[index] {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut certificates.wildcard, suffix),
                    None => (&mut certificates.exact, &**name),
                };
                map.entry(name.into()).or_default().push(index);
            }
            let is_twin = names[0].first().is_some_and(|first| names[index].contains(first));
            if index == 0 || is_twin {
                certificates.fallback.push(index);
            }
        }
        certificates
    }

    /// What people want to know of each, in the order of the file.
    pub(super) fn facts(&self) -> impl Iterator<Item = &Facts> {
        self.listed.iter().map(|listed| &listed.facts)
    }

    /// The certificate for a client that asks for `name` and understands `schemes`: an exact name before a wildcard,
    /// a wildcard before the first listed, and among equals the one whose signature the client can check.
    pub(super) fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> &Arc<CertifiedKey> {
        let name = name.map(str::to_ascii_lowercase);
        let exact = name.as_deref().and_then(|name| self.exact.get(name));
        let parent = name.as_deref().and_then(|name| name.split_once('.'));
        let wildcard = parent.and_then(|(_, parent)| self.wildcard.get(parent));
        let candidates = [exact, wildcard, Some(&self.fallback)].into_iter().flatten().flatten();
        let usable = |index: &&usize| self.listed[**index].key.key.choose_scheme(schemes).is_some();
        // Where none is usable the library says so to the client by the right alert.
        let index = candidates.clone().find(usable).copied().unwrap_or(0);
        &self.listed[index].key
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.choose(hello.server_name(), hello.signature_schemes())))
    }
}

// === impl Listed ===

impl Listed {
    fn signs_with_rsa(&self) -> bool {
        self.key.key.algorithm() == rustls::SignatureAlgorithm::RSA
    }
}

/// Reads the certificate of a pair, not its chain.
fn told(pair: &CertifiedKey) -> Result<Told, String> {
    let der = pair.end_entity_cert().map_err(|error| error.to_string())?;
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let ends = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Ok(Told { names: names(&certificate), ends: UNIX_EPOCH + Duration::from_secs(ends) })
}

/// The DNS names it is for; its common name where it has no alternative names at all, as old test certificates have.
fn names(certificate: &X509Certificate<'_>) -> Vec<Box<str>> {
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else {
        let mut common = certificate.subject().iter_common_name();
        let name = common.find_map(|name| name.as_str().ok());
        return name.map(|name| name.to_ascii_lowercase().into()).into_iter().collect();
    };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
        _ => None,
    };
    alternative.value.general_names.iter().filter_map(dns).collect()
}

/// A name for people, unlike those taken: the first it is for, else its file's name, else its path. Two that share even
/// the path are one certificate listed twice.
fn label(names: &[Box<str>], path: &std::path::Path, taken: impl Fn(&str) -> bool) -> Box<str> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let first = names.first().map(ToString::to_string);
    let candidates = first.into_iter().chain([file.into_owned()]);
    candidates.into_iter().find(|label| !taken(label)).unwrap_or_else(|| path.display().to_string()).into()
}
