//! The upstream all contenders share: the least work an HTTP/1 server can do, so that it is never what is measured.
//! It also speaks HTTP/2 by prior knowledge, with the `h2` crate.
//!
//! The benchmark starts itself again with [`ARGUMENT`] to run it as a process of its own on the driver's core. Answers are
//! bytes made once at the start; a request is read just far enough to find its path and its length.

use crate::Outcome;
use crate::client;
use crate::process::{Group, now, own_program, pause};
use crate::websocket;
use crate::workloads::{MANY_ROUTES, many_prefix};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The hidden argument; the file to write the address to follows it.
pub(crate) const ARGUMENT: &str = "serve-upstream";

/// Answers with the request head as it arrived: how the contenders' forwarding fields are checked.
pub(crate) const HEAD_PATH: &str = "/head";

/// Answers a gRPC call with as many bytes as it brought, and with trailer fields.
pub(crate) const CALL_PATH: &str = "/call";

/// Answers with 1 KiB that may be kept for a day.
pub(crate) const KEPT_PATH: &str = "/kept";

/// Asks whether that is good still. It is.
pub(crate) const KEPT_CONDITION: &str = "If-None-Match: \"kept\"";

/// Answers with how often [`KEPT_PATH`] was asked for.
const COUNT_PATH: &str = "/count";

/// Becomes a WebSocket that sends every message back.
pub(crate) const ECHO_PATH: &str = "/echo";

/// Answers piece by piece.
pub(crate) const STREAM_PATH: &str = "/stream";

/// The upstream while it runs.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _group: Group,
}

/// What is sent for one path.
#[derive(Debug, Clone)]
enum Answer {
    /// Head and body in one piece.
    Whole(Arc<Vec<u8>>),
    /// Pieces written one by one.
    Pieces(Arc<Vec<Vec<u8>>>),
}

/// One request, as far as anybody here cares.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    path: String,
    head: usize,
    body: usize,
}

// === impl Upstream ===

impl Upstream {
    /// Starts this program again as the upstream, on `core`.
    pub(crate) fn start(scratch: &Path, core: usize) -> Outcome<Upstream> {
        let place = scratch.join("upstream.address");
        let args = [ARGUMENT.into(), place.clone().into_os_string()];
        let mut group = Group::start(&own_program(), &args, core, &scratch.join("upstream.log"))?;
        let deadline = now() + Duration::from_secs(10);
        while now() < deadline && group.alive() {
            if let Some(address) = fs::read_to_string(&place).ok().and_then(|text| text.parse().ok()) {
                client::fetch(address, "GET /1k", b"")?;
                return Ok(Upstream { address, _group: group });
            }
            pause(Duration::from_millis(5));
        }
        Err(format!("the benchmark's own upstream did not start: {}", group.last_words()).into())
    }
}

/// How often the upstream at `address` was asked for [`KEPT_PATH`].
pub(crate) fn asked_for_kept(address: SocketAddr) -> Outcome<u64> {
    let reply = client::fetch(address, &format!("GET {COUNT_PATH}"), b"")?;
    Ok(String::from_utf8_lossy(&reply.body).parse()?)
}

/// The upstream's whole life: listens on a free port, writes its address to `place`, serves until it is killed.
pub(crate) fn serve(place: &Path) -> Outcome<()> {
    let answers = Arc::new(answers());
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listeners = listen().await?;
        // Written aside and renamed, so that nobody reads half an address.
        let aside = place.with_extension("new");
        fs::write(&aside, listeners[0].local_addr()?.to_string())?;
        fs::rename(&aside, place)?;
        let mut accepting: JoinSet<std::io::Result<()>> = JoinSet::new();
        for listener in listeners {
            let answers = Arc::clone(&answers);
            accepting.spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await?;
                    // A connection that fails is its peer's business: contenders are stopped while they hold some.
                    tokio::spawn(converse(stream, Arc::clone(&answers)));
                }
            });
        }
        match accepting.join_next().await {
            Some(ended) => Ok(ended??),
            None => Ok(()),
        }
    })
}

/// The `at`-th of the addresses that the upstream has with one `port`.
pub(crate) fn address(port: u16, at: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, 1 + at as u8), port))
}

/// Listens on all its addresses with one port that is free at each.
async fn listen() -> std::io::Result<Vec<TcpListener>> {
    let mut problem = None;
    for _ in 0..PORTS_TRIED {
        let first = TcpListener::bind(address(0, 0)).await?;
        let port = first.local_addr()?.port();
        let mut all = vec![first];
        for at in 1..ADDRESSES {
            match TcpListener::bind(address(port, at)).await {
                Ok(listener) => all.push(listener),
                Err(error) => problem = Some(error),
            }
        }
        if all.len() == ADDRESSES {
            return Ok(all);
        }
    }
    Err(problem.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into()))
}

async fn converse(mut stream: TcpStream, answers: Arc<HashMap<String, Answer>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    if speaks_http2(&stream).await? {
        return converse_http2(stream).await.map_err(std::io::Error::other);
    }
    let mut buffer = Vec::with_capacity(READ);
    loop {
        let Some(request) = parse(&buffer) else {
            if buffer.len() > LONGEST_HEAD || stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let whole = request.head + request.body;
        while buffer.len() < whole {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        if request.path == HEAD_PATH {
            stream.write_all(&whole_answer("200 OK", &buffer[..request.head])).await?;
        } else if request.path == ECHO_PATH {
            stream.write_all(websocket::AGREES.as_bytes()).await?;
            buffer.drain(..whole);
            return echo(stream, buffer).await;
        } else if request.path == COUNT_PATH {
            let count = KEPT_COUNT.load(Ordering::Relaxed).to_string();
            stream.write_all(&whole_answer("200 OK", count.as_bytes())).await?;
        } else {
            KEPT_COUNT.fetch_add((request.path == KEPT_PATH).into(), Ordering::Relaxed);
            send(&mut stream, answers.get(&request.path).unwrap_or(&answers["missing"])).await?;
        }
        buffer.drain(..whole);
    }
}

/// Sends every message back, until the client leaves.
async fn echo(mut stream: TcpStream, mut buffer: Vec<u8>) -> std::io::Result<()> {
    loop {
        while let Some((payload, taken)) = websocket::read(&buffer)? {
            buffer.drain(..taken);
            stream.write_all(&websocket::answer(&payload)).await?;
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Whether the peer begins with HTTP/2's preface, of which three bytes tell.
async fn speaks_http2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut begin = [0; 3];
    // All of it comes in one piece from every contender; asking again at once costs nothing.
    while !matches!(stream.peek(&mut begin).await?, 0 | 3) {}
    Ok(begin == *b"PRI")
}

async fn converse_http2(stream: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(next) = connection.accept().await {
        let (request, respond) = next?;
        // A stream that fails is its peer's business too.
        tokio::spawn(answer_http2(request, respond));
    }
    Ok(())
}

async fn answer_http2(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (head, mut stream) = request.into_parts();
    let mut body = BytesMut::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    if head.uri.path() == HEAD_PATH {
        body.clear();
        for (name, value) in &head.headers {
            body.extend_from_slice(format!("\n{name}: {value:?}").as_bytes());
        }
    }
    let answer = http::Response::builder().header("content-type", "application/grpc").body(());
    let mut send = respond.send_response(answer.unwrap_or_default(), false)?;
    send.send_data(body.freeze(), false)?;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    send.send_trailers(trailers)
}

async fn send(stream: &mut TcpStream, answer: &Answer) -> std::io::Result<()> {
    match answer {
        Answer::Whole(bytes) => stream.write_all(bytes).await,
        Answer::Pieces(pieces) => {
            for piece in pieces.iter() {
                stream.write_all(piece).await?;
                // Pieces written at once would arrive as one; a proxy that keeps up sees each by itself.
                tokio::time::sleep(BETWEEN_PIECES).await;
            }
            Ok(())
        }
    }
}

/// The request at the start of `buffer`, once its head is whole. Contenders always send a Content-Length with a body.
fn parse(buffer: &[u8]) -> Option<Request> {
    let head = memchr::memmem::find(buffer, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]);
    let path = text.split(' ').nth(1)?.to_owned();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Some(Request { path, head, body: length.unwrap_or(0) })
}

// === answers ===

fn answers() -> HashMap<String, Answer> {
    let text = |size| whole_answer("200 OK", &filling(size));
    let whole = |bytes| Answer::Whole(Arc::new(bytes));
    let small = whole(text(1024));
    let mut all: HashMap<String, Answer> =
        (0..MANY_ROUTES).map(|at| (format!("{}/1k", many_prefix(at)), small.clone())).collect();
    all.extend([
        ("/1k".into(), small),
        (HEALTH_PATH.into(), whole(text(2))),
        ("/100k".into(), whole(text(100 * 1024))),
        ("/10m".into(), whole(text(10 * 1024 * 1024))),
        (KEPT_PATH.into(), whole(kept_answer())),
        ("/post".into(), whole(text(16))),
        (STREAM_PATH.into(), Answer::Pieces(Arc::new(stream_pieces()))),
        ("missing".into(), whole(whole_answer("404 Not Found", b"no such path\n"))),
    ]);
    all
}

fn whole_answer(status: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\n{FIELDS}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// What a cache may keep; it is made when the upstream starts.
fn kept_answer() -> Vec<u8> {
    let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT");
    let body = filling(1024);
    let fields = "Content-Type: text/plain\r\nCache-Control: max-age=86400\r\nETag: \"kept\"\r\nContent-Length: 1024";
    let mut bytes = format!("HTTP/1.1 200 OK\r\nDate: {date}\r\n{fields}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

/// The head, then chunks, then the last chunk; each is one write.
fn stream_pieces() -> Vec<Vec<u8>> {
    let head = format!("HTTP/1.1 200 OK\r\n{FIELDS}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let chunk = [format!("{CHUNK:x}\r\n").as_bytes(), &filling(CHUNK), b"\r\n"].concat();
    let mut pieces = vec![head];
    pieces.extend(std::iter::repeat_n(chunk, CHUNKS));
    pieces.push(b"0\r\n\r\n".to_vec());
    pieces
}

fn filling(size: usize) -> Vec<u8> {
    b"0123456789abcdef".iter().copied().cycle().take(size).collect()
}

/// Fields an ordinary service sends.
const FIELDS: &str = "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\n";

/// Where contenders ask whether it is well.
const HEALTH_PATH: &str = "/healthz";

/// Loopback addresses it has, all with the same port; contenders take them for so many providers.
pub(crate) const ADDRESSES: usize = 100;

/// Ports tried until one is free at all addresses; hardly ever more than one is needed.
const PORTS_TRIED: usize = 20;

/// Requests for [`KEPT_PATH`] so far.
static KEPT_COUNT: AtomicU64 = AtomicU64::new(0);

/// Bytes in one chunk of `/stream`.
pub(crate) const CHUNK: usize = 100;

/// Chunks in `/stream`.
pub(crate) const CHUNKS: usize = 50;

/// The least time from the first piece of `/stream` to its last.
pub(crate) const STREAM_TAKES: Duration = BETWEEN_PIECES.saturating_mul(CHUNKS as u32);

/// Between two pieces of `/stream`; the timer's own grain adds up to as much again.
const BETWEEN_PIECES: Duration = Duration::from_millis(1);

/// First size of a connection's buffer.
const READ: usize = 16 * 1024;

/// A head longer than this is not one of ours.
const LONGEST_HEAD: usize = 64 * 1024;
