//! Certificates and keys that the configuration names: what is wrong with them, before anybody meets it.
//!
//! A file that TLS could not use is a problem. One that TLS can use and others will refuse, because it has expired, is a
//! note: to refuse it would keep everything else in the configuration from being applied. What stands in a key is never
//! repeated, neither as it is nor in the words of whoever failed to read it.

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// What is wrong with a file, to be said after its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) help: String,
}

/// A certificate and its chain.
pub(super) type Chain = Vec<CertificateDer<'static>>;

/// The certificates of a PEM file; at least one.
pub(super) fn chain(pem: &[u8]) -> Result<Chain, Wrong> {
    let found: Result<Chain, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(chain) if chain.is_empty() => Err(no_certificate(pem)),
        Ok(chain) => Ok(chain),
        Err(_) => Err(wrong("is not a whole PEM file", "copy it again, from each `-----BEGIN` to its `-----END`")),
    }
}

/// The authorities of a PEM file: each of them must be usable, and there must be one.
pub(super) fn authorities(pem: &[u8]) -> Result<Chain, Wrong> {
    let chain = chain(pem).map_err(|told| {
        let help = "it holds a private key; name the certificate of the authority";
        if holds(pem, "PRIVATE KEY-----") { wrong(told.what, help) } else { told }
    })?;
    for (certificate, number) in chain.iter().zip(1..) {
        if let Err(error) = RootCertStore::empty().add(certificate.clone()) {
            let what = format!("cannot be used: certificate {number} in it is no authority ({error})");
            return Err(wrong(what, "keep the certificates of authorities in it, and nothing else"));
        }
    }
    Ok(chain)
}

/// The private key of a PEM file.
pub(super) fn key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, Wrong> {
    if holds(pem, "-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds(pem, "Proc-Type: 4,ENCRYPTED") {
        let help = "nobody is asked for a passphrase: decrypt it with `openssl pkey -in FILE -out NEW`, and let only Sluice read it";
        return Err(wrong("is encrypted", help));
    }
    let Ok(der) = PrivateKeyDer::from_pem_slice(pem) else { return Err(no_key(pem)) };
    any_supported_type(&der).map_err(|_| {
        let help = "use ECDSA on P-256, P-384 or P-521, RSA of 2048 to 8192 bits, or Ed25519";
        wrong("holds a private key that cannot be used", help)
    })
}

/// Whether `key` is the first certificate's. What is wrong is said of the pair, not of a file.
pub(super) fn belongs(chain: &Chain, key: Arc<dyn SigningKey>) -> Result<(), Wrong> {
    let mut pair = CertifiedKey::new(chain.clone(), key);
    match pair.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => return Ok(()),
        Err(Error::InconsistentKeys(_)) => {}
        Err(error) => {
            return Err(wrong(format!("the certificate cannot be used: {error}"), "ask its authority for another one"));
        }
    }
    for number in 2..=chain.len() {
        pair.cert.remove(0);
        if pair.keys_match().is_ok() {
            let help = format!("it belongs to certificate {number} of the file; that one comes first, then its chain");
            return Err(wrong("the key does not belong to the first certificate", help));
        }
    }
    let help = "if one of them was renewed, put the other one beside it; Sluice waits for the pair";
    Err(wrong("the key does not belong to the certificate", help))
}

/// What is out of its time in `chain`, to be said after where it stands.
pub(super) fn out_of_time(chain: &Chain, now: SystemTime) -> Vec<String> {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).cast_signed();
    let mut notes = Vec::new();
    for (certificate, number) in chain.iter().zip(1..) {
        let Some(parsed) = parsed(certificate) else { continue };
        let validity = parsed.validity();
        let which =
            if number == 1 { "the certificate".to_owned() } else { format!("certificate {number} of the file") };
        if now > validity.not_after.timestamp() {
            notes.push(format!("{which} expired on {}", validity.not_after.to_datetime().date()));
        } else if now < validity.not_before.timestamp() {
            notes.push(format!("{which} is not valid before {}", validity.not_before.to_datetime().date()));
        }
    }
    notes
}

/// The names and addresses that the first certificate is for, in lower case, and the kind of its key.
pub(super) fn names(chain: &Chain) -> (Vec<String>, String) {
    let Some(parsed) = chain.first().and_then(parsed) else { return (Vec::new(), String::new()) };
    let mut names = Vec::new();
    if let Ok(Some(alternatives)) = parsed.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => names.extend(address(bytes).map(|ip| ip.to_string())),
                _ => {}
            }
        }
    }
    (names, parsed.public_key().algorithm.algorithm.to_id_string())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed)
}

fn no_certificate(pem: &[u8]) -> Wrong {
    let help = if holds(pem, "PRIVATE KEY-----") {
        "it holds a private key; are `cert` and `key` exchanged?"
    } else if holds(pem, "-----BEGIN CERTIFICATE REQUEST-----") {
        "it holds a request; take the certificate that the authority made of it"
    } else if is_binary(pem) {
        "it is binary; make PEM of it with `openssl x509 -inform der`, or `openssl pkcs12 -nodes`"
    } else {
        "a PEM file begins with `-----BEGIN CERTIFICATE-----`"
    };
    wrong("holds no certificate", help)
}

fn no_key(pem: &[u8]) -> Wrong {
    let help = if holds(pem, "PRIVATE KEY-----") {
        return wrong("is not a whole PEM file", "copy it again, from its `-----BEGIN` to its `-----END`");
    } else if holds(pem, "-----BEGIN CERTIFICATE-----") {
        "it holds a certificate; are `cert` and `key` exchanged?"
    } else if is_binary(pem) {
        "it is binary; make PEM of it with `openssl pkey -inform der`, or `openssl pkcs12 -nodes`"
    } else {
        "a PEM file begins with `-----BEGIN PRIVATE KEY-----`"
    };
    wrong("holds no private key", help)
}

/// Whether it begins as DER does: a sequence.
fn is_binary(pem: &[u8]) -> bool {
    pem.first() == Some(&0x30) && std::str::from_utf8(pem).is_err()
}

fn holds(pem: &[u8], text: &str) -> bool {
    memchr::memmem::find(pem, text.as_bytes()).is_some()
}

fn wrong(what: impl Into<String>, help: impl Into<String>) -> Wrong {
    Wrong { what: what.into(), help: help.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use std::time::Duration;

    fn made(names: &[&str], years: (i32, i32)) -> (String, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().expect("a key");
        (params.self_signed(&key).expect("a certificate").pem(), key)
    }

    fn chain_of(pem: &str) -> Chain {
        chain(pem.as_bytes()).expect("a certificate")
    }

    #[test]
    fn a_pair_belongs_together_and_another_does_not() {
        let (first, own) = made(&["a.test"], (2020, 2030));
        let (second, other) = made(&["b.test"], (2020, 2030));
        let key_of = |pair: &KeyPair| key(pair.serialize_pem().as_bytes()).expect("a key");
        assert_eq!(belongs(&chain_of(&first), key_of(&own)), Ok(()));
        let told = belongs(&chain_of(&first), key_of(&other)).expect_err("another's");
        assert_eq!(told.what, "the key does not belong to the certificate");
        let told = belongs(&chain_of(&format!("{first}{second}")), key_of(&other)).expect_err("the wrong order");
        assert!(told.help.starts_with("it belongs to certificate 2 of the file; "), "{}", told.help);
    }

    #[test]
    fn what_is_out_of_its_time_is_told_by_its_day() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let pem = format!("{}{}", made(&["a.test"], (2001, 2002)).0, made(&["b.test"], (2001, 2100)).0);
        let chain = chain_of(&pem);
        assert_eq!(out_of_time(&chain, at(1_000_000_000)), [""; 0]);
        assert_eq!(out_of_time(&chain, at(1_100_000_000)), ["the certificate expired on 2002-01-01"]);
        let early = [
            "the certificate is not valid before 2001-01-01",
            "certificate 2 of the file is not valid before 2001-01-01",
        ];
        assert_eq!(out_of_time(&chain, at(0)), early);
    }

    #[test]
    fn the_names_of_a_certificate_are_hosts_and_addresses() {
        let (pem, _) = made(&["A.Test", "*.b.test", "192.0.2.1", "2001:db8::1"], (2020, 2030));
        assert_eq!(names(&chain_of(&pem)).0, ["a.test", "*.b.test", "192.0.2.1", "2001:db8::1"]);
    }
}
