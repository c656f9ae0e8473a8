//! A client for what wrk cannot do: HTTP/2, WebSocket, TLS with and without resumption, and a connection per request.
//!
//! What two ends of a TLS connection agree on is left to this client alone, so that every contender does the same work:
//! TLS 1.3, `TLS_AES_128_GCM_SHA256`, X25519, and one signature algorithm for each kind of key.

use crate::Outcome;
use crate::certificates::{Key, NAME};
use crate::client::Reply;
use crate::process::now;
use crate::websocket;
use crate::workloads::{Face, Protocol, Visit, Workload};
use bytes::Bytes;
use http::{Method, Request, Version};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// How to reach a contender for one workload, and what to say there.
pub(crate) struct Dialer {
    address: SocketAddr,
    workload: &'static Workload,
    tls: Option<TlsConnector>,
    opened: Cell<usize>,
}

/// An open connection. Clones of one that speaks HTTP/2 share it.
pub(crate) enum Line {
    Http1(Http1),
    Http2(h2::client::SendRequest<Bytes>),
    WebSocket(Http1),
}

pub(crate) struct Http1 {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
}

/// What a connection runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

/// Believes one certificate, and its owner: what a server does for a handshake does not depend on what its client checks.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
}

// === impl Dialer ===

impl Dialer {
    /// For the contender at `address`; certificates are in `scratch`.
    pub(crate) fn new(workload: &'static Workload, address: SocketAddr, scratch: &Path) -> Outcome<Dialer> {
        let tls = match workload.face {
            Face::Tls(key) => Some(Arc::new(tls_config(workload, key, scratch)?).into()),
            Face::Http1 | Face::Many | Face::Cache | Face::Http2 | Face::Grpc => None,
        };
        Ok(Dialer { address, workload, tls, opened: Cell::new(0) })
    }

    /// Opens a connection. An error if it does not speak what was asked for, or was not resumed where it should be.
    pub(crate) async fn open(&self) -> Outcome<Line> {
        let (line, kind) = self.open_any().await?;
        if self.workload.visit == Visit::Again && kind != Some(HandshakeKind::Resumed) {
            return Err("the handshake was not resumed".into());
        }
        Ok(line)
    }

    /// Opens a connection, resumed or not.
    pub(crate) async fn open_first(&self) -> Outcome<Line> {
        Ok(self.open_any().await?.0)
    }

    async fn open_any(&self) -> Outcome<(Line, Option<HandshakeKind>)> {
        let stream = self.connect().await?;
        let Some(tls) = &self.tls else { return Ok((self.begin(Box::new(stream)).await?, None)) };
        let stream = tls.connect(ServerName::try_from(NAME)?, stream).await?;
        let state = stream.get_ref().1;
        if state.alpn_protocol() != Some(alpn(self.workload.protocol)) {
            return Err(format!("it did not agree by ALPN to {:?}", self.workload.protocol).into());
        }
        let kind = state.handshake_kind();
        Ok((self.begin(Box::new(stream)).await?, kind))
    }

    /// Sources differ, so that ports do not run out where each request has a connection of its own.
    async fn connect(&self) -> Outcome<TcpStream> {
        let index = self.opened.replace(self.opened.get() + 1);
        let socket = TcpSocket::new_v4()?;
        socket.set_nodelay(true)?;
        socket.bind((Ipv4Addr::new(127, 0, 2, (1 + index % 250) as u8), 0).into())?;
        Ok(socket.connect(self.address).await?)
    }

    async fn begin(&self, stream: Box<dyn Stream>) -> Outcome<Line> {
        let http1 = |stream| Http1 { stream, read: Vec::with_capacity(READ) };
        match self.workload.protocol {
            Protocol::Http1 => Ok(Line::Http1(http1(stream))),
            Protocol::WebSocket => {
                let mut line = http1(stream);
                line.upgrade(self.workload.path).await?;
                Ok(Line::WebSocket(line))
            }
            Protocol::Http2 => {
                let (sender, connection) = h2::client::handshake(stream).await?;
                // Its end is seen by whoever asks next.
                tokio::spawn(connection);
                Ok(Line::Http2(sender))
            }
        }
    }

    /// Makes the workload's request and reads the whole answer; anything but the right one is an error.
    pub(crate) async fn ask(&self, line: &mut Line) -> Outcome<Reply> {
        let reply = self.ask_for(line, self.workload.path).await?;
        if reply.status != 200 {
            let text = String::from_utf8_lossy(&reply.body);
            return Err(format!("{} gave {}: {}", self.workload.path, reply.status, text.trim()).into());
        }
        if reply.body.len() != self.workload.answer_bytes {
            let (got, want) = (reply.body.len(), self.workload.answer_bytes);
            return Err(format!("{} brought {got} bytes instead of {want}", self.workload.path).into());
        }
        if self.workload.face == Face::Grpc && reply.field("grpc-status") != Some("0") {
            return Err(format!("{} brought no trailer fields", self.workload.path).into());
        }
        Ok(reply)
    }

    /// Makes the workload's request, but for `path`.
    pub(crate) async fn ask_for(&self, line: &mut Line, path: &str) -> Outcome<Reply> {
        match line {
            Line::Http1(line) => self.ask_http1(line, path).await,
            Line::Http2(sender) => self.ask_http2(sender, path).await,
            Line::WebSocket(line) => line.echo(&vec![b'x'; self.workload.answer_bytes]).await,
        }
    }

    async fn ask_http1(&self, line: &mut Http1, path: &str) -> Outcome<Reply> {
        let last = if self.workload.visit == Visit::Stay { "" } else { "Connection: close\r\n" };
        let (method, body) = (self.workload.method(), self.workload.body());
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {NAME}\r\n{last}{length}\r\n");
        line.stream.write_all(&[head.as_bytes(), &body].concat()).await?;
        line.stream.flush().await?;
        let reply = line.reply().await?;
        if self.workload.visit != Visit::Stay {
            line.read_to_the_end().await?;
        }
        Ok(reply)
    }

    async fn ask_http2(&self, sender: &h2::client::SendRequest<Bytes>, path: &str) -> Outcome<Reply> {
        let (scheme, body) = (self.workload.face.scheme(), self.workload.body());
        let mut request = Request::builder().version(Version::HTTP_2).uri(format!("{scheme}://{NAME}{path}"));
        if self.workload.face == Face::Grpc {
            request = request.method(Method::POST).header("content-type", "application/grpc").header("te", "trailers");
        }
        let mut sender = sender.clone().ready().await?;
        let (response, mut stream) = sender.send_request(request.body(())?, body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(body.into(), true)?;
        }
        read_http2(response).await
    }
}

async fn read_http2(response: h2::client::ResponseFuture) -> Outcome<Reply> {
    let (head, mut body) = response.await?.into_parts();
    let head_came = now();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let mut reply = Reply { status: head.status.as_u16(), fields, body: Vec::new(), body_took: Duration::ZERO };
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        reply.body.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    reply.fields.extend(trailers.iter().map(|(name, value)| (name.to_string(), text(value))));
    reply.body_took = now() - head_came;
    Ok(reply)
}

// === impl Line ===

impl Line {
    /// Another way to ask over the same connection; `None` where only one can ask at a time.
    pub(crate) fn share(&self) -> Option<Line> {
        match self {
            Line::Http1(_) | Line::WebSocket(_) => None,
            Line::Http2(sender) => Some(Line::Http2(sender.clone())),
        }
    }
}

// === impl Http1 ===

impl Http1 {
    /// Makes a WebSocket of it.
    async fn upgrade(&mut self, path: &str) -> Outcome<()> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n{}\r\n", websocket::ASKS);
        self.stream.write_all(head.as_bytes()).await?;
        let head = self.head().await?;
        let text = String::from_utf8_lossy(&self.read[..head]).into_owned();
        self.read.drain(..head);
        if text.contains(" 101 ") { Ok(()) } else { Err(format!("no WebSocket came of it: {text}").into()) }
    }

    /// Sends a message and waits for its echo.
    async fn echo(&mut self, payload: &[u8]) -> Outcome<Reply> {
        self.stream.write_all(&websocket::question(payload)).await?;
        let (body, taken) = loop {
            match websocket::read(&self.read)? {
                Some(whole) => break whole,
                None => self.more().await?,
            }
        };
        self.read.drain(..taken);
        if body != payload {
            return Err("the echo says something else".into());
        }
        Ok(Reply { status: 200, fields: Vec::new(), body, body_took: Duration::ZERO })
    }

    /// Reads until a head is whole; its length.
    async fn head(&mut self) -> Outcome<usize> {
        loop {
            match memchr::memmem::find(&self.read, b"\r\n\r\n") {
                Some(end) => return Ok(end + 4),
                None => self.more().await?,
            }
        }
    }

    /// Reads a reply whose body has a length.
    async fn reply(&mut self) -> Outcome<Reply> {
        let head = self.head().await?;
        let head_came = now();
        let text = String::from_utf8_lossy(&self.read[..head]).into_owned();
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| format!("no status in {text:?}"))?;
        let pairs = text.lines().skip(1).filter_map(|line| line.split_once(':'));
        let fields = pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let mut reply = Reply { status, fields, body: Vec::new(), body_took: Duration::ZERO };
        let length: usize = reply.field("content-length").ok_or("the answer has no length")?.parse()?;
        while self.read.len() < head + length {
            self.more().await?;
        }
        reply.body = self.read[head..head + length].to_vec();
        self.read.drain(..head + length);
        reply.body_took = now() - head_came;
        Ok(reply)
    }

    async fn more(&mut self) -> Outcome<()> {
        if self.stream.read_buf(&mut self.read).await? == 0 {
            return Err("the connection was closed in the middle of an answer".into());
        }
        Ok(())
    }

    /// Waits until the server has closed the connection. How well it says goodbye is not what is measured.
    async fn read_to_the_end(&mut self) -> Outcome<()> {
        match self.stream.read_buf(&mut self.read).await {
            Ok(0) | Err(_) => Ok(()),
            Ok(_) => Err("more came than the answer".into()),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

// === TLS ===

fn tls_config(workload: &Workload, key: Key, scratch: &Path) -> Outcome<ClientConfig> {
    let certificate = CertificateDer::from_pem_file(key.files(scratch).certificate)?;
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { certificate }))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn(workload.protocol).to_vec()];
    config.resumption = match workload.visit {
        Visit::Again => Resumption::in_memory_sessions(8),
        Visit::Stay | Visit::Fresh => Resumption::disabled(),
    };
    Ok(config)
}

fn alpn(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http1 | Protocol::WebSocket => b"http/1.1",
        Protocol::Http2 => b"h2",
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("it shows another certificate than it was given".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256]
    }
}

/// First size of a connection's buffer.
const READ: usize = 16 * 1024;
