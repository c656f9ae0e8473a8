//! A provider that misbehaves on command, and what came of the requests it was sent.

use crate::ledger::{Did, Ledger};
use crate::process::now;
use crate::timer;
use sluice::instant::Instant;
use socket2::SockRef;
use std::future::pending;
use std::io::Result;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a provider does to requests, health checks among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Answers 200 after the service time.
    Well,
    /// Has gone: its connections break, new ones are refused.
    Refuses,
    /// Takes requests and says nothing.
    Hangs,
    /// Breaks the connection once it has the request.
    Resets,
    /// Answers 503 at once.
    Unavailable,
    /// Answers 429 at once, with a Retry-After of one second.
    LimitedWithHint,
    /// Answers 429 at once and says nothing more.
    Limited,
    /// Sends half of its answer and closes the connection.
    Truncates,
    /// Answers as if well, [`SLOWNESS`] times slower.
    Slow,
}

/// A provider while it runs.
#[derive(Debug)]
pub(crate) struct Provider {
    /// Where it listens, while it does.
    pub(crate) address: SocketAddr,
    behaviour: watch::Sender<Behaviour>,
    life: JoinHandle<Result<()>>,
}

/// What a provider's connections share.
#[derive(Debug, Clone)]
struct Desk {
    place: usize,
    behaviour: watch::Receiver<Behaviour>,
    ledger: Arc<Ledger>,
    service: Duration,
}

/// As much of a request as matters here.
struct Request {
    /// The client's number for it; health checks have none.
    number: Option<usize>,
    /// Its bytes, head and body.
    length: usize,
}

// === impl Provider ===

impl Provider {
    /// A well provider on a free port, whose requests take `service`; it is number `place` in the ledger.
    pub(crate) fn start(place: usize, service: Duration, ledger: &Arc<Ledger>) -> Result<Provider> {
        let (behaviour, told) = watch::channel(Behaviour::Well);
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = socket.local_addr()?;
        let desk = Desk { place, behaviour: told, ledger: Arc::clone(ledger), service };
        // It listens from now on, not only when the task is first run.
        let listener = socket.listen(BACKLOG)?;
        Ok(Provider { address, behaviour, life: tokio::spawn(live(address, listener, desk)) })
    }

    /// From now on.
    pub(crate) fn turn(&self, behaviour: Behaviour) {
        self.behaviour.send_replace(behaviour);
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.behaviour.send_replace(Behaviour::Refuses);
        self.life.abort();
    }
}

/// Listens, unless it is to refuse; then its port is kept by a socket that does not listen.
async fn live(address: SocketAddr, mut listener: TcpListener, mut desk: Desk) -> Result<()> {
    loop {
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    // What becomes of a connection is for the contender to deal with.
                    tokio::spawn(converse(accepted?.0, desk.clone()));
                }
                () = desk.refuses() => break,
            }
        }
        drop(listener);
        let socket = bind(address)?;
        // The sender is there as long as this task.
        let _ = desk.behaviour.wait_for(|behaviour| *behaviour != Behaviour::Refuses).await;
        listener = socket.listen(BACKLOG)?;
    }
}

fn bind(address: SocketAddr) -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of its former life still hold the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn converse(mut stream: TcpStream, mut desk: Desk) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(READ);
    loop {
        let request = tokio::select! {
            request = read(&mut stream, &mut buffer) => request?,
            () = desk.refuses() => None,
        };
        let Some(request) = request else { return Ok(()) };
        buffer.drain(..request.length);
        desk.arrived(&request);
        let behaviour = *desk.behaviour.borrow();
        match behaviour {
            Behaviour::Well | Behaviour::Slow => {
                let times = if behaviour == Behaviour::Slow { SLOWNESS } else { 1 };
                let finished = tokio::select! {
                    slept = timer::sleep_until(now() + desk.service * times) => slept.map(|()| true)?,
                    // It was at work, and nobody will hear of it.
                    () = gone(&stream) => false,
                    () = desk.refuses() => false,
                };
                desk.did(&request, if finished { Did::Surely } else { Did::Perhaps });
                if !finished {
                    return Ok(());
                }
                stream.write_all(&answer("200 OK", ANSWER)).await?;
            }
            Behaviour::Hangs => {
                desk.did(&request, Did::Perhaps);
                let over = desk.behaviour.wait_for(|behaviour| *behaviour != Behaviour::Hangs);
                return tokio::select! { _ = over => Ok(()), () = gone(&stream) => Ok(()) };
            }
            Behaviour::Resets => {
                desk.did(&request, Did::Perhaps);
                return SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
            Behaviour::Truncates => {
                desk.did(&request, Did::Perhaps);
                let whole = answer("200 OK", ANSWER);
                return stream.write_all(&whole[..whole.len() - ANSWER / 2]).await;
            }
            Behaviour::Unavailable => stream.write_all(&answer("503 Service Unavailable", 0)).await?,
            Behaviour::Limited => stream.write_all(&answer("429 Too Many Requests", 0)).await?,
            Behaviour::LimitedWithHint => {
                stream.write_all(&answer("429 Too Many Requests\r\nRetry-After: 1", 0)).await?;
            }
            Behaviour::Refuses => return Ok(()),
        }
    }
}

/// Ends when the peer ends the connection. What it sends before that, if anything, is the next request.
async fn gone(stream: &TcpStream) {
    let mut byte = [0];
    match stream.peek(&mut byte).await {
        Ok(0) | Err(_) => {}
        Ok(_) => pending().await,
    }
}

/// The next request, whole; `None` where the connection ends before it.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Request>> {
    loop {
        if let Some(request) = parse(buffer)
            && request.length <= buffer.len()
        {
            return Ok(Some(request));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Contenders always send a Content-Length with a body.
fn parse(buffer: &[u8]) -> Option<Request> {
    let head = memchr::memmem::find(buffer, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]);
    let value = |name: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = fields.find(|(candidate, _)| candidate.eq_ignore_ascii_case(name))?;
        value.trim().parse::<usize>().ok()
    };
    Some(Request { number: value(NUMBER), length: head + value("content-length").unwrap_or(0) })
}

fn answer(status: &str, length: usize) -> Vec<u8> {
    let made = now().saturating_duration_since(*BASE).as_millis();
    let mut bytes =
        format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n{MADE}: {made}\r\nContent-Length: {length}\r\n\r\n");
    bytes.extend(std::iter::repeat_n('x', length));
    bytes.into_bytes()
}

/// The moment that an answer's field [`MADE`] means.
pub(crate) fn made_at(milliseconds: u64) -> Instant {
    *BASE + Duration::from_millis(milliseconds)
}

// === impl Desk ===

impl Desk {
    async fn refuses(&mut self) {
        // An error is that the provider was dropped.
        let _ = self.behaviour.wait_for(|behaviour| *behaviour == Behaviour::Refuses).await;
    }

    fn arrived(&self, request: &Request) {
        if let Some(number) = request.number {
            self.ledger.arrived(self.place, number, now());
        }
    }

    fn did(&self, request: &Request, did: Did) {
        if let Some(number) = request.number {
            self.ledger.did(number, did);
        }
    }
}

/// The field with the client's number for a request.
pub(crate) const NUMBER: &str = "x-number";

/// The field of an answer that says when it was made, in milliseconds from [`BASE`].
pub(crate) const MADE: &str = "x-made";

/// What answers count their time from.
static BASE: LazyLock<Instant> = LazyLock::new(now);

/// Bytes of a whole answer.
pub(crate) const ANSWER: usize = 1024;

/// How much longer a slow provider takes.
const SLOWNESS: u32 = 20;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// First size of a connection's buffer.
const READ: usize = 4096;
