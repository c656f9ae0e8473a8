//! The load: clients that keep to the rules, and count as a failure everything that the rules do not allow the gateway.

use super::ledger::{Ask, END, LIMIT, Ledger, What};
use super::wires::{GoAways, Http1, Noted, Stream};
use crate::http2::send_all;
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use sluice::clock;
use sluice::instant::Instant;
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How a client reaches the gateway.
#[derive(Clone)]
pub(super) struct Way {
    /// Of the client, for people.
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    /// `None` in the clear.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// The listener is removed and added again.
    pub(super) comes_and_goes: bool,
    pub(super) ledger: Arc<Ledger>,
}

/// What became of a stream.
enum Fate {
    Answered,
    /// The gateway has named it as one that it did not take, or it was never sent.
    NeverTaken,
}

/// What a client of a long stream has read.
struct Reader {
    text: String,
    latest: u64,
    progress: Arc<AtomicU64>,
}

type Outcome<T> = Result<T, String>;

// === impl Way ===

impl Way {
    /// HTTP/1: a connection that is kept for as long as the gateway keeps it.
    pub(super) async fn keep_alive(self) {
        let outcome = async {
            while !self.ledger.is_over() {
                let Some(io) = self.open().await? else { continue };
                let (mut wire, mut quiet_since) = (Http1::new(io), None);
                while self.ask(&mut wire, "", quiet_since).await? && !self.ledger.is_over() {
                    quiet_since = Some(clock::now());
                    breathe().await;
                }
            }
            Ok(())
        };
        self.settle(outcome.await);
    }

    /// HTTP/1: a connection for each request.
    pub(super) async fn anew(self) {
        let outcome = async {
            while !self.ledger.is_over() {
                let Some(io) = self.open().await? else { continue };
                self.ask(&mut Http1::new(io), "connection: close\r\n", None).await?;
                breathe().await;
            }
            Ok(())
        };
        self.settle(outcome.await);
    }

    /// HTTP/2: this many requests at a time on one connection, and another once the gateway asks for that.
    pub(super) async fn streams(self, at_once: usize) {
        let outcome = async {
            while !self.ledger.is_over() {
                let Some(io) = self.open().await? else { continue };
                self.share(io, at_once).await?;
            }
            Ok(())
        };
        self.settle(outcome.await);
    }

    /// Follows a long stream over HTTP/1 until its last event.
    pub(super) async fn follow(self, progress: Arc<AtomicU64>) {
        let outcome = async {
            let io = self.open().await?.ok_or("the listener is gone")?;
            let (mut wire, mut reader) = (Http1::new(io), Reader::new(progress));
            let number = self.ledger.number();
            let head = format!("GET /a/long HTTP/1.1\r\nhost: a.test\r\n{}\r\n", number_fields(number));
            said("sending", wire.send(head.as_bytes()).await)?;
            let head = said("the head", wire.head().await)?.ok_or("it ended before a stream began")?;
            same("status", head.second(), "200")?;
            while let Some(chunk) = said("a stream", wire.chunk().await)? {
                reader.read(&chunk)?;
            }
            reader.ends()?;
            self.ledger.answered(number);
            Ok(())
        };
        self.settle(outcome.await);
    }

    /// Follows two long streams on one connection in HTTP/2.
    pub(super) async fn follow_two(self, progress: [Arc<AtomicU64>; 2]) {
        let outcome = async {
            let io = self.open().await?.ok_or("the listener is gone")?;
            let (sender, connection) = said("SETTINGS", builder().handshake::<_, Bytes>(io).await)?;
            let driver = tokio::spawn(connection);
            let follow = |path, progress| {
                let (way, sender) = (self.clone(), sender.clone());
                async move {
                    let number = way.ledger.number();
                    let mut sender = said("room for a stream", sender.ready().await)?;
                    let request = request("GET", path, number, EMPTY_DIGEST);
                    let (answer, _) = said("sending", sender.send_request(request, true))?;
                    // Whoever holds a sender might ask for more, and the connection would stay.
                    drop(sender);
                    let answer = said("the head", answer.await)?;
                    same("status", answer.status().as_str(), "200")?;
                    let (mut body, mut reader) = (answer.into_body(), Reader::new(progress));
                    while let Some(data) = body.data().await {
                        let data = said("a stream", data)?;
                        said("a stream", body.flow_control().release_capacity(data.len()))?;
                        reader.read(&data)?;
                    }
                    reader.ends()?;
                    way.ledger.answered(number);
                    Outcome::Ok(())
                }
            };
            let [first, second] = progress;
            let both = tokio::join!(follow("/a/long", first), follow("/b/long", second));
            both.0.and(both.1)?;
            drop(sender);
            said("the connection", said("the driver", driver.await)?)
        };
        self.settle(outcome.await);
    }

    fn settle(&self, outcome: Outcome<()>) {
        if let Err(why) = outcome {
            self.ledger.fail(format!("{}: {why}", self.name));
        }
    }

    /// A connection, through its handshake. `None`: the listener was gone.
    async fn open(&self) -> Outcome<Option<Box<dyn Stream>>> {
        let (before, begun) = (self.ledger.goings(), clock::now());
        let socket = in_time("connecting", TcpStream::connect(self.address)).await;
        // By the kernel's rules whoever connects in the very moment a socket closes is reset: it has to have been so late.
        let after = self.ledger.goings();
        let may_be_gone = self.comes_and_goes && (before % 2 == 1 || after != before);
        let socket = match socket {
            Err(_) if may_be_gone => {
                self.ledger.count("refused while the listener was gone");
                breathe().await;
                return Ok(None);
            }
            socket => socket?,
        };
        said("a socket option", socket.set_nodelay(true))?;
        let Some(tls) = &self.tls else { return Ok(Some(Box::new(socket))) };
        let name = ServerName::try_from("a.test").map_err(|error| error.to_string())?;
        let stream = in_time("the TLS handshake", TlsConnector::from(Arc::clone(tls)).connect(name, socket)).await;
        let stream = match stream {
            Err(_) if may_be_gone => {
                self.ledger.count("reset while the listener went");
                return Ok(None);
            }
            stream => stream?,
        };
        self.ledger.took(What::Connection, begun);
        let kind = stream.get_ref().1.handshake_kind();
        self.ledger.count(if kind == Some(HandshakeKind::Resumed) { "resumed" } else { "full" });
        Ok(Some(Box::new(stream)))
    }

    /// One request in HTTP/1, on a connection that was quiet since then; whether it may have another.
    async fn ask(&self, wire: &mut Http1, more: &str, quiet_since: Option<Instant>) -> Outcome<bool> {
        let Ask { number, streams, method, path, digest, body, expected } = self.ledger.ask();
        let begun = clock::now();
        let mut bytes = format!(
            "{method} {path} HTTP/1.1\r\nhost: a.test\r\nx-number: {number}\r\nx-digest: {digest}\r\n{more}content-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend(body);
        let asked = async {
            wire.send(&bytes).await?;
            wire.head().await?.ok_or_else(|| io::Error::other("the connection ended instead"))
        };
        let head = match in_time(&format!("the head of answer {number}"), asked).await {
            // On a machine that let this client sleep for so long, both sides may end it.
            Err(_) if quiet_since.is_some_and(|since| begun - since >= LAST_CALL) => {
                self.ledger.never_taken(number);
                self.ledger.count("slept through the last call");
                return Ok(false);
            }
            head => head?,
        };
        let body = in_time(&format!("answer {number}"), wire.body(&head)).await?;
        same("status", head.second(), "200")?;
        if body != expected {
            return Err(format!("another answer to {number}: {:?}", String::from_utf8_lossy(&body)));
        }
        self.note_answer(number, streams, begun);
        if head.value("connection") == Some("close") {
            in_time("the end of the connection", wire.ends()).await?;
            self.ledger.count("connection: close");
            return Ok(false);
        }
        Ok(true)
    }

    fn note_answer(&self, number: u64, streams: bool, begun: Instant) {
        self.ledger.answered(number);
        self.ledger.count(self.name);
        if !streams {
            self.ledger.took(What::Answer, begun);
        }
    }

    /// Uses one connection for many streams, until the gateway says that it goes.
    async fn share(&self, io: Box<dyn Stream>, at_once: usize) -> Outcome<()> {
        let goaways = GoAways::default();
        let noted = Noted::new(io, goaways.clone());
        let (sender, connection) = in_time("the handshake", builder().handshake::<_, Bytes>(noted)).await?;
        let driver = tokio::spawn(connection);
        let users: Vec<_> = (0..at_once)
            .map(|_| {
                let (way, sender, goaways) = (self.clone(), sender.clone(), goaways.clone());
                tokio::spawn(async move {
                    while let Fate::Answered = way.stream(&sender, &goaways).await? {
                        if way.ledger.is_over() {
                            break;
                        }
                        breathe().await;
                    }
                    Outcome::Ok(())
                })
            })
            .collect();
        drop(sender);
        for user in users {
            user.await.map_err(|error| error.to_string())??;
        }
        let ended = in_time("the end of the connection", driver).await?;
        said("the connection", ended)?;
        match *goaways.all() {
            // This end was the first to leave.
            [] if self.ledger.is_over() => Ok(()),
            // In two steps, so that what was on its way is taken; or this end left after the first.
            [first] | [first, _] if first == EVERY_STREAM => {
                self.ledger.count("went away in HTTP/2");
                Ok(())
            }
            ref other => Err(format!("the connection went away by {other:?}")),
        }
    }

    /// One request in HTTP/2.
    async fn stream(&self, sender: &SendRequest<Bytes>, goaways: &GoAways) -> Outcome<Fate> {
        let mut sender = match in_time("room for a stream", sender.clone().ready()).await {
            Ok(sender) => sender,
            Err(_) if goaways.any() => return Ok(Fate::NeverTaken),
            Err(error) => return Err(error),
        };
        let Ask { number, streams, method, path, digest, body, expected } = self.ledger.ask();
        let begun = clock::now();
        let begins = sender.send_request(request(method, &path, number, &digest), body.is_empty());
        let (answer, mut send) = match begins {
            Ok(begun) => begun,
            Err(_) if goaways.any() => {
                self.ledger.never_taken(number);
                return Ok(Fate::NeverTaken);
            }
            Err(error) => return Err(format!("request {number}: {error}")),
        };
        let stream = answer.stream_id().as_u32();
        let whole = async {
            if !body.is_empty() {
                // What goes wrong here shows in the answer.
                let _ = send_all(&mut send, body.into()).await && send.send_data(Bytes::new(), true).is_ok();
            }
            let answer = answer.await?;
            let status = answer.status();
            let body = crate::http2::drain(&mut answer.into_body()).await?.0;
            Ok::<_, h2::Error>((status, body))
        };
        let answer = tokio::time::timeout(LIMIT, whole).await.map_err(|_| format!("no answer to {number}"))?;
        match answer {
            Ok((status, body)) => {
                same("status", status.as_str(), "200")?;
                if body != expected {
                    return Err(format!("another answer to {number}: {:?}", String::from_utf8_lossy(&body)));
                }
                self.note_answer(number, streams, begun);
                Ok(Fate::Answered)
            }
            Err(_) if goaways.leave_out(stream) => {
                self.ledger.never_taken(number);
                self.ledger.count("beyond the last stream");
                Ok(Fate::NeverTaken)
            }
            Err(error) => Err(format!("request {number}, stream {stream}, after {:?}: {error}", goaways.all())),
        }
    }
}

fn builder() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 18).initial_connection_window_size(1 << 20);
    builder
}

fn request(method: &str, path: &str, number: u64, digest: &str) -> Request<()> {
    let request = Request::builder().method(method).uri(format!("https://a.test{path}"));
    request.header("x-number", number).header("x-digest", digest).body(()).expect("a request")
}

fn number_fields(number: u64) -> String {
    format!("x-number: {number}\r\nx-digest: {EMPTY_DIGEST}\r\n")
}

/// Lets others go first, and the processor have a moment: a load that leaves nothing free shows how busy the machine is, and
/// not much else.
async fn breathe() {
    tokio::time::sleep(BREATH).await;
}

async fn in_time<T, E: Display>(what: &str, future: impl Future<Output = Result<T, E>>) -> Outcome<T> {
    let done = tokio::time::timeout(LIMIT, future).await;
    said(what, done.map_err(|_| format!("still waiting: {what}"))?)
}

fn said<T, E: Display>(what: &str, result: Result<T, E>) -> Outcome<T> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn same(what: &str, found: &str, expected: &str) -> Outcome<()> {
    if found == expected { Ok(()) } else { Err(format!("{what} is {found}, not {expected}")) }
}

// === impl Reader ===

impl Reader {
    fn new(progress: Arc<AtomicU64>) -> Self {
        Reader { text: String::new(), latest: 0, progress }
    }

    /// Takes each event that is whole: the next one, or the last.
    fn read(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.text.push_str(std::str::from_utf8(bytes).map_err(|error| error.to_string())?);
        while let Some(end) = self.text.find("\n\n") {
            let event = self.text[..end].strip_prefix("data: ").and_then(|number| number.parse().ok());
            let event: u64 = event.ok_or_else(|| format!("no event: {:?}", self.text))?;
            if self.latest != 0 && event != END && event != self.latest + 1 {
                return Err(format!("event {event} behind {}", self.latest));
            }
            self.text.drain(..end + 2);
            self.latest = event;
            self.progress.store(event, Ordering::SeqCst);
        }
        Ok(())
    }

    fn ends(&self) -> Outcome<()> {
        let whole = self.text.is_empty() && self.latest == END;
        if whole { Ok(()) } else { Err(format!("a stream ended after {} {:?}", self.latest, self.text)) }
    }
}

/// Between two requests of a client.
const BREATH: Duration = Duration::from_millis(2);

/// How long the gateway waits for one more request before it ends a kept connection (docs/operations.md).
const LAST_CALL: Duration = Duration::from_secs(1);

/// What a first GOAWAY names: all streams that can be.
const EVERY_STREAM: u32 = (1 << 31) - 1;

/// Of no bytes at all.
const EMPTY_DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
