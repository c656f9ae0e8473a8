//! The certificates that all contenders show, made anew for every run.

use crate::Outcome;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use std::fs;
use std::path::{Path, PathBuf};

/// The key of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// ECDSA over P-256.
    P256,
    /// RSA of 2048 bits.
    Rsa,
}

/// Where the files of one certificate are, all in PEM.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The certificate.
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub(crate) both: PathBuf,
}

// === impl Key ===

impl Key {
    const ALL: [Key; 2] = [Key::P256, Key::Rsa];

    /// Where its files are in `scratch`.
    pub(crate) fn files(self, scratch: &Path) -> Files {
        let name = match self {
            Key::P256 => "p256",
            Key::Rsa => "rsa",
        };
        let file = |kind: &str| scratch.join(format!("{name}.{kind}"));
        Files { certificate: file("crt"), key: file("key"), both: file("pem") }
    }

    fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Key::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Key::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        }
    }
}

/// Writes a certificate for [`NAME`] with every key into `scratch`. They sign themselves: whoever connects knows them.
pub(crate) fn write(scratch: &Path) -> Outcome<()> {
    for kind in Key::ALL {
        let key = kind.generate()?;
        let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?.pem();
        let (files, key) = (kind.files(scratch), key.serialize_pem());
        fs::write(&files.certificate, &certificate)?;
        fs::write(&files.key, &key)?;
        fs::write(&files.both, certificate + &key)?;
    }
    Ok(())
}

/// Whom the certificates are for, and whom clients ask for.
pub(crate) const NAME: &str = "localhost";
