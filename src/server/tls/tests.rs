use super::certificates::Certificates;
use super::*;
use crate::config::{Certificate, SecretBytes};
use crate::observe::metrics::Metrics;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::SignatureScheme;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};
use tokio::net::UnixStream;

const ECDSA: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
const RSA: SignatureScheme = SignatureScheme::RSA_PSS_SHA256;

fn configured(file: &str, names: &[&str], key: &KeyPair) -> Certificate {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).expect("valid names").self_signed(key).expect("a certificate");
    Certificate {
        cert_path: PathBuf::from(format!("/etc/{file}.pem")),
        key_path: PathBuf::from(format!("/etc/{file}.key")),
        cert: certificate.pem().into_bytes().into(),
        key: SecretBytes::new(key.serialize_pem().into_bytes()),
    }
}

fn ecdsa(file: &str, names: &[&str]) -> Certificate {
    configured(file, names, &KeyPair::generate().expect("a key"))
}

fn rsa(file: &str, names: &[&str]) -> Certificate {
    configured(file, names, &KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key"))
}

/// The place in `certificates` of what a client is shown.
fn chosen(certificates: &[Certificate], name: Option<&str>, schemes: &[SignatureScheme]) -> usize {
    let read = Certificates::read(certificates).expect("usable certificates");
    let shown = read.choose(name, schemes).cert[0].clone();
    let is_shown = |certificate: &Certificate| {
        let Certificate { cert_path, key_path, cert, key } = certificate;
        tls::pair(cert_path, cert, key_path, key.expose()).expect("a pair").cert[0] == shown
    };
    certificates.iter().position(is_shown).expect("one of them")
}

fn settings(handshakes: usize) -> Arc<ListenerTls> {
    Arc::new(ListenerTls {
        certificates: vec![ecdsa("a", &["a.test"])],
        min_version: TlsVersion::V12,
        client_ca: None,
        handshake_timeout: Duration::from_secs(10),
        handshakes,
    })
}

fn terminator(settings: &Arc<ListenerTls>, before: Option<&Terminator>) -> Terminator {
    let metrics = Metrics::new().listener("web");
    Terminator::build(&Arc::from("web"), settings, Protocols::BOTH, metrics, before).expect("usable settings")
}

#[test]
fn an_exact_name_comes_before_a_wildcard_and_the_first_listed_is_for_all_else() {
    let listed = [
        ecdsa("first", &["first.test", "*.sub.first.test"]),
        ecdsa("wild", &["*.a.test", "a.test"]),
        ecdsa("exact", &["exact.a.test"]),
    ];
    for (name, expected) in [
        (Some("first.test"), 0),
        (Some("x.sub.first.test"), 0),
        (Some("a.test"), 1),
        (Some("x.a.test"), 1),
        (Some("X.A.TEST"), 1),
        (Some("exact.a.test"), 2),
        (Some("x.exact.a.test"), 0),
        (Some("test"), 0),
        (Some(""), 0),
        (None, 0),
    ] {
        assert_eq!(chosen(&listed, name, &[ECDSA]), expected, "{name:?}");
    }
}

#[test]
fn of_two_for_one_name_the_client_gets_the_cheaper_one_that_it_understands() {
    let listed = [rsa("rsa", &["a.test"]), ecdsa("other", &["b.test"]), ecdsa("ecdsa", &["a.test"])];
    for name in [Some("a.test"), None] {
        assert_eq!(chosen(&listed, name, &[RSA, ECDSA]), 2);
        assert_eq!(chosen(&listed, name, &[RSA]), 0);
    }
    // Where no certificate of the name will do, one that the client understands is still better than none.
    assert_eq!(chosen(&listed, Some("b.test"), &[RSA]), 0);
    assert_eq!(chosen(&listed, Some("b.test"), &[]), 0);
}

#[test]
fn each_certificate_of_a_listener_has_a_label_of_its_own() {
    let listed = [
        ecdsa("a", &["a.test", "b.test"]),
        ecdsa("twin", &["a.test"]),
        ecdsa("dir/twin", &["a.test"]),
        ecdsa("address", &["192.0.2.1"]),
    ];
    let read = Certificates::read(&listed).expect("usable certificates");
    let labels: Vec<_> = read.facts().map(|facts| &*facts.label).collect();
    assert_eq!(labels, ["a.test", "twin.pem", "/etc/dir/twin.pem", "address.pem"]);
}

#[test]
fn what_cannot_be_used_is_named_with_its_file() {
    let told = |change: fn(&mut Certificate)| {
        let mut certificate = ecdsa("a", &["a.test"]);
        change(&mut certificate);
        Certificates::read(&[certificate]).expect_err("unusable").to_string()
    };
    assert_eq!(
        told(|certificate| certificate.cert = b"nothing".to_vec().into()),
        "/etc/a.pem holds no certificate; it needs a PEM section \"BEGIN CERTIFICATE\""
    );
    assert_eq!(
        told(|certificate| certificate.key = SecretBytes::new(b"secret".to_vec())),
        "/etc/a.key holds no private key; it needs a PEM section \"BEGIN PRIVATE KEY\" that is not encrypted"
    );
    assert_eq!(
        told(|certificate| certificate.key = ecdsa("b", &["b.test"]).key),
        "the key /etc/a.key does not belong to the certificate /etc/a.pem; name the two files that were made together"
    );
    let cut = told(|certificate| certificate.cert = certificate.cert[..certificate.cert.len() / 2].to_vec().into());
    assert!(cut.starts_with("the certificate /etc/a.pem is not a PEM file: "), "{cut}");
    let cut = told(|certificate| {
        let key = certificate.key.expose();
        certificate.key = SecretBytes::new(key[..key.len() / 2].to_vec());
    });
    assert_eq!(cut, "the key /etc/a.key is not a PEM file");
}

#[test]
fn an_end_is_counted_in_whole_days_and_past_once_it_is_reached() {
    let (now, day) = (UNIX_EPOCH + Duration::from_hours(24 * 400), Duration::from_hours(24));
    assert_eq!(days_left(now + 14 * day, now), Some(14));
    assert_eq!(days_left(now + 14 * day - Duration::from_secs(1), now), Some(13));
    assert_eq!(days_left(now - Duration::from_secs(1), now), None);
}

#[test]
fn keys_of_tickets_and_places_outlive_a_reload_unless_they_must_not() {
    let first = settings(3);
    let before = terminator(&first, None);
    let same = |left: &Terminator, right: &Terminator| {
        let ticketers = Arc::ptr_eq(&left.terms.config.ticketer, &right.terms.config.ticketer);
        (ticketers, Arc::ptr_eq(&left.terms.places, &right.terms.places))
    };
    assert_eq!(same(&before, &terminator(&settings(3), Some(&before))), (true, true));
    assert_eq!(same(&before, &terminator(&settings(4), Some(&before))), (true, false));
    assert_eq!(same(&before, &terminator(&settings(3), None)), (false, false));
    let ca = ecdsa("ca", &["ca.test"]).cert;
    let asking = Arc::new(ListenerTls { client_ca: Some(ca), ..(*first).clone() });
    assert_eq!(same(&before, &terminator(&asking, Some(&before))), (false, true));
}

/// How a handshake ends that has this long, with a client that trusts nobody.
async fn refused(terminator: &Terminator, span: Duration) -> Failure {
    let (client, server) = UnixStream::pair().expect("sockets");
    let config = rustls::ClientConfig::builder_with_provider(tls::cryptography())
        .with_safe_default_protocol_versions()
        .expect("known versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = "a.test".try_into().expect("a name");
    let accepting = terminator.accept(Socket::Unix(server), crate::clock::now() + span);
    let (accepted, _) = tokio::join!(accepting, connector.connect(name, client));
    accepted.expect_err("it is not trusted").failure()
}

#[tokio::test]
async fn a_handshake_beyond_the_bound_waits_for_its_turn_within_its_time() {
    let terminator = terminator(&settings(1), None);
    let place = terminator.terms.places.acquire().await.expect("open");
    assert_eq!(refused(&terminator, Duration::from_millis(300)).await, Failure::Timeout);
    drop(place);
    assert_eq!(refused(&terminator, Duration::from_mins(1)).await, Failure::Alert);
    assert_eq!(terminator.terms.places.available_permits(), 1);
}

#[test]
fn steps_are_computed_behind_the_workers() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let nice = || rustix::process::getpriority_process(None).expect("a thread has one");
    let there = runtime.block_on(signing::compute(move || (std::thread::current().name().map(str::to_owned), nice())));
    assert_eq!(there, (Some("handshake".to_owned()), (nice() + 10).min(19)));
}
