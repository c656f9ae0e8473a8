//! An authority of our own and what it signs, as files: everything a test of TLS needs to be trusted.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

use crate::world::PATIENCE;

/// An authority with a folder for its files.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate with its key, as files.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// What one visit to a TLS port showed.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) kind: HandshakeKind,
    /// The certificate's names, as far as a test looks for one.
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) answer: String,
}

/// A client's end of a TLS connection.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

// === impl Authority ===

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "An authority of our own");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let folder = TempDir::new().expect("a temporary folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("the folder takes files");
        Authority { issuer, folder }
    }

    /// A certificate of this authority among the files of another.
    pub(crate) fn sign_in(&self, other: &Authority, file: &str) -> Pair {
        let path = |end: &str| other.folder.path().join(format!("{file}.{end}"));
        let (own, pair) = (self.sign(file, &["foreign.test"]), Pair { cert: path("pem"), key: path("key") });
        fs::copy(&own.cert, &pair.cert).expect("the folder takes files");
        fs::copy(&own.key, &pair.key).expect("the folder takes files");
        pair
    }

    /// It alone, as roots.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        roots
    }

    /// Its own certificate, as a file.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for these names, with an ECDSA key, valid for years.
    pub(crate) fn sign(&self, file: &str, names: &[&str]) -> Pair {
        self.sign_with(file, names, &KeyPair::generate().expect("a key"), Duration::from_hours(24 * 1000))
    }

    /// As [`Authority::sign`], with an RSA key of 2048 bits.
    pub(crate) fn sign_rsa(&self, file: &str, names: &[&str]) -> Pair {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
        self.sign_with(file, names, &key, Duration::from_hours(24 * 1000))
    }

    /// As [`Authority::sign`], valid for `left` from now on, or not any more.
    pub(crate) fn sign_until(&self, file: &str, names: &[&str], ends: SystemTime) -> Pair {
        let params = params(names, ends);
        self.write(file, &params, &KeyPair::generate().expect("a key"))
    }

    fn sign_with(&self, file: &str, names: &[&str], key: &KeyPair, left: Duration) -> Pair {
        self.write(file, &params(names, sluice::clock::wall() + left), key)
    }

    fn write(&self, file: &str, params: &CertificateParams, key: &KeyPair) -> Pair {
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate");
        let path = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        let pair = Pair { cert: path("pem"), key: path("key") };
        fs::write(&pair.cert, certificate.pem()).expect("the folder takes files");
        fs::write(&pair.key, key.serialize_pem()).expect("the folder takes files");
        pair
    }

    /// What a client that trusts only this authority demands; it shows `own` where it is asked who it is.
    pub(crate) fn client(&self, own: Option<&Pair>) -> Arc<ClientConfig> {
        self.client_of(own, rustls::DEFAULT_VERSIONS)
    }

    /// As [`Authority::client`], for some versions.
    pub(crate) fn client_of(
        &self,
        own: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("known versions")
            .with_root_certificates(self.roots());
        let mut config = match own {
            Some(pair) => builder.with_client_auth_cert(pair.chain(), pair.key()).expect("a pair"),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(32);
        Arc::new(config)
    }
}

fn params(names: &[&str], ends: SystemTime) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("valid names");
    params.not_before = (SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365 * 40)).into();
    params.not_after = ends.into();
    params
}

// === impl Pair ===

impl Pair {
    /// `{ cert: …, key: … }`, as a file of ours names the two.
    pub(crate) fn yaml(&self) -> String {
        format!("{{ cert: \"{}\", key: \"{}\" }}", self.cert.display(), self.key.display())
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(&self.cert).expect("a file").collect::<Result<_, _>>().expect("certificates")
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key).expect("a key")
    }
}

/// Connects to `address`, asks for `name`, and is through the handshake as far as the client can tell.
pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> io::Result<Tls> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(session, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

/// One request over a connection of its own, to the end of the connection.
pub(crate) fn visit(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> io::Result<Visit> {
    let mut tls = connect(address, config, name)?;
    tls.write_all(format!("GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer)?;
    let kind = tls.conn.handshake_kind().expect("a finished handshake");
    let certificate = tls.conn.peer_certificates().expect("a certificate")[0].clone().into_owned();
    Ok(Visit { kind, certificate, answer: String::from_utf8_lossy(&answer).into_owned() })
}
