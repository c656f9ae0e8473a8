//! What the load reads and writes: HTTP/1 over any stream, and a look at the GOAWAYs that come in over HTTP/2.

use crate::world::lock;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// A connection, secure or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Either end of a connection in HTTP/1.
pub(super) struct Http1 {
    io: Box<dyn Stream>,
    /// Read, and not used yet.
    unread: Vec<u8>,
}

/// A head in HTTP/1.
#[derive(Debug)]
pub(super) struct Head {
    /// In lower case behind its first line.
    text: String,
}

/// A client's stream under HTTP/2, where each GOAWAY is noted as it comes.
pub(super) struct Noted {
    io: Box<dyn Stream>,
    goaways: GoAways,
    /// A frame's header, and of a GOAWAY its payload too, as far as it came.
    frame: Vec<u8>,
    /// Bytes of a payload that are still to pass.
    passing: usize,
}

/// The last stream of each GOAWAY, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct GoAways(Arc<Mutex<Vec<u32>>>);

// === impl Http1 ===

impl Http1 {
    pub(super) fn new(io: Box<dyn Stream>) -> Self {
        Http1 { io, unread: Vec::new() }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// The next head; `None` where the connection ended, in order, before the first byte of one.
    pub(super) async fn head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            if self.more().await? == 0 {
                return if self.unread.is_empty() { Ok(None) } else { Err(self.broke_off()) };
            }
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let (first, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
        Ok(Some(Head { text: format!("{first}\r\n{}", fields.to_ascii_lowercase()) }))
    }

    /// The body behind `head`, whole.
    pub(super) async fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        if head.value("transfer-encoding") == Some("chunked") {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk().await? {
                body.extend(chunk);
            }
            return Ok(body);
        }
        let len = head.value("content-length").map_or(Ok(0), str::parse).map_err(io::Error::other)?;
        self.take(len).await
    }

    /// The next chunk; `None` is the one that ends the body.
    pub(super) async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let end = loop {
            match find(&self.unread, b"\r\n") {
                Some(at) => break at,
                None => self.need_more().await?,
            }
        };
        let line: Vec<u8> = self.unread.drain(..end + 2).collect();
        let line = std::str::from_utf8(&line).map_err(io::Error::other)?;
        let len = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        let mut chunk = self.take(len + 2).await?;
        if chunk.split_off(len) != b"\r\n" {
            return Err(io::Error::other("a chunk is longer than it says"));
        }
        Ok((len > 0).then_some(chunk))
    }

    /// Waits for the orderly end of the connection: under TLS that is a `close_notify`.
    pub(super) async fn ends(&mut self) -> io::Result<()> {
        match self.more().await? {
            0 => Ok(()),
            more => Err(io::Error::other(format!("{more} bytes behind the last answer"))),
        }
    }

    async fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < len {
            self.need_more().await?;
        }
        Ok(self.unread.drain(..len).collect())
    }

    async fn need_more(&mut self) -> io::Result<()> {
        match self.more().await? {
            0 => Err(self.broke_off()),
            _ => Ok(()),
        }
    }

    async fn more(&mut self) -> io::Result<usize> {
        self.io.read_buf(&mut self.unread).await
    }

    fn broke_off(&self) -> io::Error {
        io::Error::other(format!("the connection ended after {:?}", String::from_utf8_lossy(&self.unread)))
    }
}

// === impl Head ===

impl Head {
    /// Of a request: its target. Of an answer: its status.
    pub(super) fn second(&self) -> &str {
        self.text.split([' ', '\r']).nth(1).unwrap_or_default()
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let fields = self.text.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(|(found, _)| *found == name).map(|(_, value)| value).next()
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

// === impl Noted ===

impl Noted {
    pub(super) fn new(io: Box<dyn Stream>, goaways: GoAways) -> Self {
        Noted { io, goaways, frame: Vec::new(), passing: 0 }
    }

    fn look(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.passing > 0 {
                let pass = self.passing.min(bytes.len());
                (self.passing, bytes) = (self.passing - pass, &bytes[pass..]);
                continue;
            }
            self.frame.push(bytes[0]);
            bytes = &bytes[1..];
            if self.frame.len() < FRAME_HEADER {
                continue;
            }
            let len = u32::from_be_bytes([0, self.frame[0], self.frame[1], self.frame[2]]) as usize;
            if self.frame[3] != GOAWAY {
                self.passing = len;
                self.frame.clear();
            } else if self.frame.len() == FRAME_HEADER + len {
                let last = &self.frame[FRAME_HEADER..FRAME_HEADER + 4];
                self.goaways.note(u32::from_be_bytes([last[0] & 0x7f, last[1], last[2], last[3]]));
                self.frame.clear();
            }
        }
    }
}

impl AsyncRead for Noted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.look(&buf.filled()[start..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Noted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

// === impl GoAways ===

impl GoAways {
    fn note(&self, last: u32) {
        lock(&self.0).push(last);
    }

    /// The last streams that were named, in their order.
    pub(super) fn all(&self) -> Vec<u32> {
        lock(&self.0).clone()
    }

    /// Whether the gateway asked to open no more streams.
    pub(super) fn any(&self) -> bool {
        !lock(&self.0).is_empty()
    }

    /// Whether a stream was named as one that nobody took (RFC 9113 §6.8).
    pub(super) fn leave_out(&self, stream: u32) -> bool {
        lock(&self.0).last().is_some_and(|last| stream > *last)
    }
}

/// Bytes of a frame's header (RFC 9113 §4.1).
const FRAME_HEADER: usize = 9;

/// The type of a GOAWAY (RFC 9113 §6.8).
const GOAWAY: u8 = 7;
