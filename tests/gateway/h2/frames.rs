//! One HTTP/2 connection as a test holds it: frames in, frames out, and what came on each stream.
//!
//! Nothing here judges what is sent: a test says every byte. What comes is read strictly, and each expectation that fails
//! shows every frame that had come.

use super::behind::Behind;
use super::compression::{Decoder, Fields, block};
use crate::wire::{End, Wire, text};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// One end of an HTTP/2 connection, usually the client's.
#[derive(Debug)]
pub(super) struct Frames {
    wire: Wire,
    decoder: Decoder,
    /// The peer's settings, the last value of each.
    settings: BTreeMap<u16, u32>,
    /// How many of our SETTINGS it acknowledged.
    acknowledged: usize,
    streams: BTreeMap<u32, Stream>,
    /// HEADERS whose CONTINUATION is awaited: stream, flags, block.
    partial: Option<(u32, u8, Vec<u8>)>,
    goaway: Vec<Goaway>,
    pongs: Vec<[u8; 8]>,
    ended: Option<End>,
    /// Every frame that came, for the message of a test that fails.
    seen: String,
    pings: u64,
    behind: Option<Arc<Behind>>,
}

/// What came on one stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Stream {
    /// Heads in order: interim ones, the final one, trailers.
    pub(super) heads: Vec<Fields>,
    /// How many heads came before the first DATA.
    before_body: usize,
    /// The bytes of its DATA frames.
    pub(super) body: Vec<u8>,
    /// The lengths of its DATA frames.
    pub(super) chunks: Vec<usize>,
    /// Whether END_STREAM came.
    pub(super) ended: bool,
    /// The code of its RST_STREAM.
    pub(super) reset: Option<u32>,
}

/// A GOAWAY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Goaway {
    /// The last stream that it speaks for.
    pub(super) last: u32,
    /// Why.
    pub(super) code: u32,
}

/// Bytes of a frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).expect("a frame's length has 24 bits").to_be_bytes();
    assert_eq!(length[0], 0, "a frame's length has 24 bits");
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The payload of a SETTINGS frame.
pub(super) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    values.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect()
}

/// The block of a GET for `path`.
pub(super) fn get(path: &str) -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a.example")])
}

/// The block of a POST for `path`.
pub(super) fn post_to(path: &str) -> Vec<u8> {
    block(&[(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a.example")])
}

/// The block of a POST for `/`.
pub(super) fn post() -> Vec<u8> {
    post_to("/")
}

// === impl Frames ===

impl Frames {
    /// A client's connection, its handshake done, to a gateway of its own before a provider that answers everything.
    pub(super) fn start() -> Self {
        Frames::with_settings(&[])
    }

    /// As [`Frames::start`], with these in the client's first SETTINGS.
    pub(super) fn with_settings(values: &[(u16, u32)]) -> Self {
        let mut client = Frames::unsaid();
        client.send(PREFACE);
        client.settings(values);
        client.is_settled();
        client
    }

    /// As [`Frames::start`], with nothing said yet.
    pub(super) fn unsaid() -> Self {
        Frames::before(Behind::start())
    }

    /// As [`Frames::unsaid`], to this gateway.
    pub(super) fn before(behind: Behind) -> Self {
        let behind = Arc::new(behind);
        let mut client = Frames::over(Wire::connect(behind.address()));
        client.behind = Some(behind);
        client
    }

    /// Another connection to the same gateway, its handshake done.
    pub(super) fn another(&self) -> Self {
        let mut client = Frames::connect(self.behind().address());
        client.behind.clone_from(&self.behind);
        client
    }

    /// A client's connection to `address`, its handshake done.
    pub(super) fn connect(address: SocketAddr) -> Self {
        let mut client = Frames::over(Wire::connect(address));
        client.send(PREFACE);
        client.settings(&[]);
        client.is_settled();
        client
    }

    /// A provider's end of a connection that a gateway made, its handshake done, with these in its SETTINGS.
    pub(super) fn accept(wire: Wire, values: &[(u16, u32)]) -> Self {
        let mut provider = Frames::over(wire);
        provider.wire.expect(PREFACE);
        provider.settings(values);
        provider.is_settled();
        provider
    }

    /// A connection that nothing was said on yet.
    pub(super) fn over(wire: Wire) -> Self {
        Frames {
            wire,
            decoder: Decoder::new(),
            settings: BTreeMap::new(),
            acknowledged: 0,
            streams: BTreeMap::new(),
            partial: None,
            goaway: Vec::new(),
            pongs: Vec::new(),
            ended: None,
            seen: String::new(),
            pings: 0,
            behind: None,
        }
    }

    /// What is behind the connection.
    pub(super) fn behind(&self) -> &Behind {
        self.behind.as_ref().expect("it was started with something behind it")
    }

    /// As [`Frames::behind`], for another thread.
    pub(super) fn shared(&self) -> Arc<Behind> {
        Arc::clone(self.behind.as_ref().expect("it was started with something behind it"))
    }

    /// The peer's value of a setting, where it sent one.
    pub(super) fn setting(&self, name: u16) -> Option<u32> {
        self.settings.get(&name).copied()
    }

    /// How large the table of the peer's encoder may be from here on, as our SETTINGS said.
    pub(super) fn allow_table(&mut self, size: usize) {
        self.decoder.allow(size);
    }

    /// What came on a stream so far.
    pub(super) fn stream(&self, stream: u32) -> Stream {
        self.streams.get(&stream).cloned().unwrap_or_default()
    }

    /// The connection itself.
    pub(super) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    // --- writing ---

    /// Sends bytes, also to a peer that has closed already: what it said before is still read.
    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _: std::io::Result<()> = self.wire.try_send(bytes);
    }

    /// Sends a frame.
    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) {
        self.send(frame(kind, flags, stream, payload));
    }

    /// Sends HEADERS with this block; END_HEADERS must be among `flags` where it is the whole block.
    pub(super) fn headers(&mut self, stream: u32, flags: u8, block: impl AsRef<[u8]>) {
        self.frame(HEADERS, flags, stream, block);
    }

    /// Sends a whole request without a body.
    pub(super) fn get(&mut self, stream: u32, path: &str) {
        self.headers(stream, END_STREAM | END_HEADERS, get(path));
    }

    /// Sends a whole request without a body, its fields as given.
    pub(super) fn request(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.headers(stream, END_STREAM | END_HEADERS, block(fields));
    }

    /// Sends a whole GET with one more field.
    pub(super) fn get_with(&mut self, stream: u32, name: &str, value: &str) {
        let block = [get("/"), block(&[(name, value)])].concat();
        self.headers(stream, END_STREAM | END_HEADERS, block);
    }

    /// Sends the head of a POST whose body is to follow.
    pub(super) fn post(&mut self, stream: u32) {
        self.headers(stream, END_HEADERS, post());
    }

    /// Sends the head of a POST whose body is to follow, with one more field.
    pub(super) fn post_with(&mut self, stream: u32, name: &str, value: &str) {
        self.headers(stream, END_HEADERS, [post(), block(&[(name, value)])].concat());
    }

    /// Sends DATA.
    pub(super) fn data(&mut self, stream: u32, flags: u8, bytes: impl AsRef<[u8]>) {
        self.frame(DATA, flags, stream, bytes);
    }

    /// Sends RST_STREAM.
    pub(super) fn reset(&mut self, stream: u32, code: u32) {
        self.frame(RST_STREAM, 0, stream, code.to_be_bytes());
    }

    /// Sends SETTINGS.
    pub(super) fn settings(&mut self, values: &[(u16, u32)]) {
        self.frame(SETTINGS, 0, 0, settings(values));
    }

    /// Sends WINDOW_UPDATE.
    pub(super) fn window(&mut self, stream: u32, increment: u32) {
        self.frame(WINDOW_UPDATE, 0, stream, increment.to_be_bytes());
    }

    /// Sends PRIORITY: exclusive where `on` has its first bit.
    pub(super) fn priority(&mut self, stream: u32, on: u32, weight: u8) {
        self.frame(PRIORITY, 0, stream, [&on.to_be_bytes()[..], &[weight]].concat());
    }

    // --- expecting ---

    /// The connection fails with this code and ends.
    pub(super) fn expect_goaway(&mut self, code: u32) -> Goaway {
        let failed = |goaway: &&Goaway| goaway.code != NO_ERROR;
        while !self.goaway.iter().any(|goaway| failed(&goaway)) {
            assert!(self.read(), "no GOAWAY with {} but {}", name(code), self.seen());
        }
        let goaway = *self.goaway.iter().find(failed).unwrap_or_else(|| unreachable!("it was waited for"));
        assert_eq!(name(goaway.code), name(code), "GOAWAY's code: {}", self.seen());
        self.expect_end();
        goaway
    }

    /// The connection fails, whatever the code, and ends.
    pub(super) fn expect_any_goaway(&mut self) -> Goaway {
        let failed = |goaway: &&Goaway| goaway.code != NO_ERROR;
        while self.read() {}
        *self.goaway.iter().find(failed).unwrap_or_else(|| panic!("no GOAWAY but {}", self.seen()))
    }

    /// The stream fails with this code, and the connection goes on.
    pub(super) fn expect_reset(&mut self, stream: u32, code: u32) {
        while self.stream(stream).reset.is_none() {
            assert!(self.read(), "stream {stream} is not reset with {} but {}", name(code), self.seen());
        }
        let found = self.stream(stream).reset.map(name);
        assert_eq!(found, Some(name(code)), "the code of stream {stream}: {}", self.seen());
        self.lives();
    }

    /// The request of this stream is malformed (§8.1.1) in a way that the library sees: the stream fails, its provider hears
    /// nothing of it, and the connection goes on.
    pub(super) fn expect_malformed(&mut self, stream: u32) {
        self.expect_reset(stream, PROTOCOL_ERROR);
        assert!(self.stream(stream).heads.is_empty(), "an answer to a malformed request: {}", self.seen());
        assert_eq!(self.behind().begun(), 0, "the provider was asked");
    }

    /// The request of this stream is malformed in a way that our own layer sees: it gets a whole answer with this status,
    /// which §8.1.1 permits and which says what is wrong, its provider hears nothing of it, and the connection goes on.
    pub(super) fn is_refused(&mut self, stream: u32, status: u16) {
        let answer = self.expect_answer(stream);
        assert_eq!(answer.status(), status, "{}", answer.text());
        assert_eq!(answer.value("content-type"), Some("application/problem+json"));
        assert_eq!(self.behind().begun(), 0, "the provider was asked");
        self.lives();
    }

    /// A field block cannot be decoded: the connection fails, and the provider hears nothing of the request.
    ///
    /// RFC 9113 §4.3 names COMPRESSION_ERROR. The library does not tell what a decoder finds from what a parser finds and
    /// says PROTOCOL_ERROR to both; what matters, that nobody uses the table any more, is the same.
    pub(super) fn expect_undecodable(&mut self) {
        let begun = self.behind().begun();
        self.expect_goaway(PROTOCOL_ERROR);
        assert_eq!(self.behind().begun(), begun, "the provider was asked");
    }

    /// The stream fails with this code, or the whole connection does: where the RFC permits both.
    pub(super) fn expect_reset_or_goaway(&mut self, stream: u32, code: u32) {
        while self.stream(stream).reset.is_none() && self.goaway.is_empty() {
            assert!(self.read(), "neither a reset nor a GOAWAY with {} but {}", name(code), self.seen());
        }
        if self.stream(stream).reset.is_some() {
            self.expect_reset(stream, code);
        } else {
            self.expect_goaway(code);
        }
    }

    /// The connection ends.
    pub(super) fn expect_end(&mut self) -> End {
        while self.read() {}
        self.ended.unwrap_or_else(|| unreachable!("it was read to its end"))
    }

    /// A whole final answer comes on the stream.
    pub(super) fn expect_answer(&mut self, stream: u32) -> Stream {
        self.wait(&format!("the end of an answer on stream {stream}"), |frames| frames.stream(stream).ended);
        self.stream(stream)
    }

    /// A whole answer with status 200 comes on the stream.
    pub(super) fn is_answered(&mut self, stream: u32) -> Stream {
        let answer = self.expect_answer(stream);
        assert_eq!(answer.status(), 200, "{}", self.seen());
        answer
    }

    /// The connection goes on: a PING comes back, and everything sent before it was taken.
    pub(super) fn lives(&mut self) {
        self.pings += 1;
        let ping = self.pings.to_be_bytes();
        self.frame(PING, 0, 0, ping);
        self.wait("a PING to come back", |frames| frames.pongs.contains(&ping));
        let failed = self.goaway.iter().any(|goaway| goaway.code != NO_ERROR);
        assert!(!failed, "the connection failed: {}", self.seen());
    }

    /// A PING comes back, or the connection has failed.
    pub(super) fn pinged(&mut self) {
        self.pings += 1;
        let ping = self.pings.to_be_bytes();
        self.frame(PING, 0, 0, ping);
        while !self.pongs.contains(&ping) && self.read() {}
    }

    /// Reads what has come, without waiting for more; false is the end of the connection.
    pub(super) fn drain(&mut self) -> bool {
        while self.ended.is_none() && !self.wire.is_silent() {
            self.read();
        }
        self.ended.is_none()
    }

    /// Forgets what came on a stream.
    pub(super) fn forget(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }

    /// The stream is neither answered nor reset yet. Only meaningful after [`Frames::lives`].
    pub(super) fn is_open(&self, stream: u32) -> bool {
        let stream = self.stream(stream);
        !stream.ended && stream.reset.is_none()
    }

    /// The peer's SETTINGS came, and it acknowledged ours.
    pub(super) fn is_settled(&mut self) {
        self.is_acknowledged(1);
        assert!(self.seen.starts_with("SETTINGS"), "SETTINGS come first: {}", self.seen());
    }

    /// It has acknowledged this many SETTINGS of ours in all.
    pub(super) fn is_acknowledged(&mut self, count: usize) {
        self.wait("SETTINGS to be acknowledged", |frames| frames.acknowledged >= count);
        assert_eq!(self.acknowledged, count, "each SETTINGS is acknowledged once: {}", self.seen());
    }

    /// The stream of the request with this number, from 0, once its head has come.
    pub(super) fn requested(&mut self, number: usize) -> u32 {
        self.wait("a request", |frames| frames.streams.len() > number);
        *self.streams.keys().nth(number).unwrap_or_else(|| unreachable!("it was waited for"))
    }

    /// Reads until `condition` holds.
    pub(super) fn wait(&mut self, what: &str, condition: impl Fn(&Frames) -> bool) {
        while !condition(self) {
            assert!(self.read(), "waited for {what}, but {}", self.seen());
        }
    }

    /// How many PINGs came back.
    pub(super) fn pongs(&self) -> &[[u8; 8]] {
        &self.pongs
    }

    /// The GOAWAYs that came.
    pub(super) fn goaways(&self) -> &[Goaway] {
        &self.goaway
    }

    /// What came, to be shown.
    pub(super) fn seen(&self) -> String {
        format!("this came: [{}] and then {:?}", self.seen, self.ended)
    }

    /// Reads one frame; false is the end of the connection.
    pub(super) fn read(&mut self) -> bool {
        if self.ended.is_some() {
            return false;
        }
        if !self.wire.begins() {
            self.ended = Some(self.wire.end());
            return false;
        }
        let head = self.wire.take(9);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.wire.take(usize::try_from(length).expect("24 bits"));
        self.note(kind, flags, stream, &payload);
        self.take(kind, flags, stream, payload);
        true
    }

    fn note(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let kinds = ["DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY"];
        let rest = ["WINDOW_UPDATE", "CONTINUATION"];
        let kind = kinds.iter().chain(&rest).nth(usize::from(kind)).copied().unwrap_or("of an unknown type");
        let shown = &payload[..payload.len().min(48)];
        let gap = if self.seen.is_empty() { "" } else { ", " };
        let bytes = text(shown);
        self.seen.extend([gap, &format!("{kind} flags {flags:#x} stream {stream} "), &bytes]);
        if self.seen.len() > SHOWN {
            // Only ASCII is in there.
            self.seen.replace_range(SHOWN / 4..self.seen.len() - SHOWN / 2, " ... ");
        }
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: Vec<u8>) {
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        assert!(self.partial.is_none() || kind == CONTINUATION, "a field block is cut: {}", self.seen());
        match kind {
            DATA => {
                let entry = self.streams.entry(stream).or_default();
                assert!(!entry.ended && !entry.heads.is_empty(), "DATA of no message: {}", self.seen);
                (entry.before_body, entry.ended) = (entry.heads.len(), flags & END_STREAM != 0);
                entry.chunks.push(payload.len());
                entry.body.extend(payload);
            }
            HEADERS => self.fields(stream, flags, payload),
            CONTINUATION => {
                let (first, start, block) = self.partial.take().expect("a field block that goes on");
                assert_eq!(stream, first, "CONTINUATION of another stream");
                self.fields(stream, start | flags, [block, payload].concat());
            }
            RST_STREAM => self.streams.entry(stream).or_default().reset = Some(number(0)),
            SETTINGS if flags & ACK != 0 => self.acknowledged += 1,
            SETTINGS => {
                let pair = |pair: &[u8]| {
                    let (name, value) = pair.split_at(2);
                    (u16::from_be_bytes([name[0], name[1]]), u32::from_be_bytes(value.try_into().expect("four bytes")))
                };
                self.settings.extend(payload.chunks_exact(6).map(pair));
                self.frame(SETTINGS, ACK, 0, []);
            }
            PING if flags & ACK != 0 => {
                if self.pongs.len() >= PONGS {
                    self.pongs.clear();
                }
                self.pongs.push(payload.try_into().expect("eight bytes"));
            }
            PING => self.frame(PING, ACK, 0, payload),
            GOAWAY => self.goaway.push(Goaway { last: number(0), code: number(4) }),
            _ => {}
        }
    }

    fn fields(&mut self, stream: u32, flags: u8, block: Vec<u8>) {
        if flags & END_HEADERS == 0 {
            self.partial = Some((stream, flags, block));
            return;
        }
        let fields = self.decoder.decode(&block);
        let entry = self.streams.entry(stream).or_default();
        assert!(!entry.ended, "HEADERS behind the end of stream {stream}: {}", self.seen);
        entry.heads.push(fields);
        entry.ended = flags & END_STREAM != 0;
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        if let Some(behind) = &self.behind {
            // Nobody waits any longer for what is held.
            behind.release();
        }
    }
}

// === impl Stream ===

impl Stream {
    /// The fields of the final head.
    pub(super) fn head(&self) -> &Fields {
        let status = |head: &&Fields| head.iter().any(|(name, value)| name == ":status" && !value.starts_with('1'));
        self.heads.iter().find(status).unwrap_or_else(|| panic!("no final head among {:?}", self.heads))
    }

    /// The final status.
    pub(super) fn status(&self) -> u16 {
        self.value(":status").and_then(|status| status.parse().ok()).expect("a status")
    }

    /// The one value of a field of the final head.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let mut values = self.head().iter().filter(|(candidate, _)| candidate == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there more than once: {:?}", self.heads);
        value
    }

    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The fields behind the body.
    pub(super) fn trailers(&self) -> &[(String, String)] {
        let behind = self.heads.len() > self.before_body && self.before_body > 0;
        if behind { self.heads.last().map_or(&[], Vec::as_slice) } else { &[] }
    }
}

/// The name of an error code.
fn name(code: u32) -> String {
    let names = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let known = usize::try_from(code).ok().and_then(|code| names.get(code));
    known.map_or_else(|| format!("{code:#x}"), |name| (*name).to_owned())
}

/// How much is kept of what came, for the message of a test that fails.
const SHOWN: usize = 8 * 1024;

/// How many PINGs that came back are kept.
const PONGS: usize = 1024;

/// What a client says first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Types of frames.
pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const PRIORITY: u8 = 0x2;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PUSH_PROMISE: u8 = 0x5;
pub(super) const PING: u8 = 0x6;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const WINDOW_UPDATE: u8 = 0x8;
pub(super) const CONTINUATION: u8 = 0x9;
pub(super) const PRIORITY_UPDATE: u8 = 0x10;

// Flags.
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const WITH_PRIORITY: u8 = 0x20;

// Error codes.
pub(super) const NO_ERROR: u32 = 0x0;
pub(super) const PROTOCOL_ERROR: u32 = 0x1;
pub(super) const INTERNAL_ERROR: u32 = 0x2;
pub(super) const FLOW_CONTROL_ERROR: u32 = 0x3;
pub(super) const STREAM_CLOSED: u32 = 0x5;
pub(super) const FRAME_SIZE_ERROR: u32 = 0x6;
pub(super) const REFUSED_STREAM: u32 = 0x7;
pub(super) const CANCEL: u32 = 0x8;
pub(super) const COMPRESSION_ERROR: u32 = 0x9;
pub(super) const ENHANCE_YOUR_CALM: u32 = 0xb;

// Settings.
pub(super) const HEADER_TABLE_SIZE: u16 = 0x1;
pub(super) const ENABLE_PUSH: u16 = 0x2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 0x4;
pub(super) const MAX_FRAME_SIZE: u16 = 0x5;
pub(super) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
pub(super) const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// The largest window.
pub(super) const MOST: u32 = 0x7fff_ffff;
