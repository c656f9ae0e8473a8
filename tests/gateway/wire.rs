//! One TCP connection as a test holds it: the client's end, or a provider's. Bytes in, bytes out, and how it ended.
//!
//! Every read waits at most [`PATIENCE`]; then the test fails and shows what had come.

use sluice::clock;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// One end of a connection. Everything read from it is also kept, for [`Wire::received`].
#[derive(Debug)]
pub(crate) struct Wire {
    stream: Arc<TcpStream>,
    unread: Vec<u8>,
    ended: Option<End>,
    received: Arc<Mutex<Vec<u8>>>,
    /// Which of a provider's connections this is, from 0.
    pub(crate) number: usize,
}

/// How the other side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By a FIN: an orderly end of its direction.
    Closed,
    /// By an RST.
    Reset,
}

/// The head of a request or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// The request line or status line.
    pub(crate) line: String,
    /// Fields as written, in order.
    pub(crate) fields: Vec<(String, String)>,
}

/// A whole request or answer, its framing taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its head.
    pub(crate) head: Head,
    /// Its body.
    pub(crate) body: Vec<u8>,
    /// The chunks the body came in; empty where it was not chunked.
    pub(crate) chunks: Vec<Vec<u8>>,
    /// The trailer fields.
    pub(crate) trailers: Vec<(String, String)>,
}

/// Something that one side waits for until the other opens it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

/// For anything to happen; far more than it takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

// === impl Wire ===

impl Wire {
    /// Connects to `address`.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Wire::new(TcpStream::connect_timeout(&address, PATIENCE).expect("the address takes connections"), 0)
    }

    /// Connects to the unix socket at `path`.
    pub(crate) fn at_path(path: &Path) -> Self {
        Wire::on_unix(UnixStream::connect(path).expect("the path takes connections"))
    }

    /// Takes over a unix stream. For reading and writing it is a stream like any other.
    pub(crate) fn on_unix(stream: UnixStream) -> Self {
        Wire::over(OwnedFd::from(stream).into(), 0)
    }

    /// Takes over a stream.
    pub(crate) fn new(stream: TcpStream, number: usize) -> Self {
        stream.set_nodelay(true).expect("a socket option");
        Wire::over(stream, number)
    }

    fn over(stream: TcpStream, number: usize) -> Self {
        stream.set_nonblocking(false).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket option");
        Wire { stream: Arc::new(stream), unread: Vec::new(), ended: None, received: Arc::default(), number }
    }

    /// This end's address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connected socket")
    }

    /// Everything that has been read so far.
    pub(crate) fn received(&self) -> Vec<u8> {
        lock(&self.received).clone()
    }

    /// Where everything that is read is kept.
    pub(crate) fn record(&self) -> Arc<Mutex<Vec<u8>>> {
        Arc::clone(&self.received)
    }

    /// The socket, for as long as this end is there: to end it from elsewhere.
    pub(crate) fn handle(&self) -> Weak<TcpStream> {
        Arc::downgrade(&self.stream)
    }

    // --- writing ---

    /// Sends all of `bytes`.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the peer takes what is sent");
    }

    /// Sends all of `bytes` to a peer that may have gone.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        (&*self.stream).write_all(bytes.as_ref())
    }

    /// How long sending may take from here on, for tests of a peer that takes nothing.
    pub(crate) fn patience(&mut self, span: Duration) {
        self.stream.set_write_timeout(Some(span)).expect("a socket option");
    }

    /// Sends `data` as one chunk.
    pub(crate) fn send_chunk(&mut self, data: &str) {
        self.send(format!("{:x}\r\n{data}\r\n", data.len()));
    }

    /// Ends this end's direction by a FIN.
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the socket is connected");
    }

    /// Ends the connection by an RST.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO)).expect("a socket option");
    }

    // --- reading ---

    /// Reads exactly as many bytes as `expected` has, and they are those.
    pub(crate) fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        while self.unread.len() < expected.len() {
            assert!(self.fill(), "it ended ({:?}) after {:?}", self.ended, text(&self.unread));
        }
        let found: Vec<u8> = self.unread.drain(..expected.len()).collect();
        assert_eq!(text(&found), text(expected));
    }

    /// Reads `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        while self.unread.len() < len {
            assert!(self.fill(), "it ended ({:?}) after {:?}", self.ended, text(&self.unread));
        }
        self.unread.drain(..len).collect()
    }

    /// Fills `buffer` and keeps no record of it, for bodies too large to be kept.
    pub(crate) fn take_into(&mut self, buffer: &mut [u8]) {
        let waiting = self.unread.len().min(buffer.len());
        let (first, rest) = buffer.split_at_mut(waiting);
        first.copy_from_slice(&self.unread[..waiting]);
        self.unread.drain(..waiting);
        (&*self.stream).read_exact(rest).expect("the peer sends all of it");
    }

    /// Reads up to and including `marker`.
    pub(crate) fn until(&mut self, marker: &str) -> String {
        let found = self.try_until(marker);
        found.unwrap_or_else(|| panic!("it ended ({:?}) before {marker:?}: {:?}", self.ended, text(&self.unread)))
    }

    /// Reads a head. Of an answer also an interim one.
    pub(crate) fn head(&mut self) -> Head {
        Head::parse(&self.until("\r\n\r\n"))
    }

    /// Reads one chunk, framing taken off; `None` is the last one, whose trailer section is left unread.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.until("\r\n");
        let digits = line.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{line:?} is no chunk size"));
        if size == 0 {
            return None;
        }
        let data = self.take(size);
        self.expect("\r\n");
        Some(data)
    }

    /// Waits for the first byte of what comes next; false where the peer ended before it.
    pub(crate) fn begins(&mut self) -> bool {
        while self.unread.is_empty() {
            if !self.fill() {
                return false;
            }
        }
        true
    }

    /// Reads a request to its end; `None` where the peer ended without beginning one.
    pub(crate) fn request(&mut self) -> Option<Message> {
        if !self.begins() {
            return None;
        }
        let head = self.head();
        Some(self.body(head, false))
    }

    /// Reads a final answer to its end, interim ones before it dropped.
    pub(crate) fn answer(&mut self) -> Message {
        self.answer_to("GET")
    }

    /// As [`Wire::answer`], for a request with this method.
    pub(crate) fn answer_to(&mut self, method: &str) -> Message {
        loop {
            let head = self.head();
            match head.status() {
                100..=199 => {}
                status => {
                    let bodiless = method == "HEAD" || status == 204 || status == 304;
                    return if bodiless { Message::bodiless(head) } else { self.body(head, true) };
                }
            }
        }
    }

    /// The peer ends the connection and sends nothing before; says how.
    pub(crate) fn end(&mut self) -> End {
        let rest = self.rest();
        assert_eq!(text(&rest), "", "bytes before the end");
        self.ended.unwrap_or_else(|| unreachable!("the rest was read"))
    }

    /// The peer ends the connection by a FIN and sends nothing before.
    pub(crate) fn closes(&mut self) {
        assert_eq!(self.end(), End::Closed);
    }

    /// The peer ends the connection by an RST and sends nothing before.
    pub(crate) fn resets(&mut self) {
        assert_eq!(self.end(), End::Reset);
    }

    /// Reads everything up to the end of the connection; [`Wire::end`] then says how it ended.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.unread)
    }

    /// Nothing waits to be read at this moment. Only meaningful after something that would have come later.
    pub(crate) fn is_silent(&mut self) -> bool {
        if !self.unread.is_empty() || self.ended.is_some() {
            return false;
        }
        self.stream.set_nonblocking(true).expect("a socket option");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket option");
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    fn try_until(&mut self, marker: &str) -> Option<String> {
        let marker = marker.as_bytes();
        loop {
            if let Some(at) = self.unread.windows(marker.len()).position(|window| window == marker) {
                let found: Vec<u8> = self.unread.drain(..at + marker.len()).collect();
                return Some(String::from_utf8_lossy(&found).into_owned());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads what follows a head that was read.
    pub(crate) fn body(&mut self, head: Head, is_answer: bool) -> Message {
        let mut message = Message::bodiless(head);
        if message.head.value("transfer-encoding").is_some() {
            assert_eq!(message.head.value("transfer-encoding"), Some("chunked"));
            assert_eq!(message.head.value("content-length"), None, "a length beside chunks");
            while let Some(chunk) = self.chunk() {
                message.body.extend_from_slice(&chunk);
                message.chunks.push(chunk);
            }
            message.trailers = self.trailers();
        } else if let Some(length) = message.head.value("content-length") {
            let length = length.parse().unwrap_or_else(|_| panic!("{length:?} is no length"));
            message.body = self.take(length);
        } else if is_answer {
            message.body = self.rest();
            assert_eq!(self.ended, Some(End::Closed), "an answer that ends with its connection");
        }
        message
    }

    /// Reads a trailer section and its empty line.
    pub(crate) fn trailers(&mut self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        loop {
            match self.until("\r\n").trim_end() {
                "" => return fields,
                line => fields.push(field(line)),
            }
        }
    }

    /// Reads once; false is the end.
    fn fill(&mut self) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let mut buffer = [0; 16 * 1024];
        match (&*self.stream).read(&mut buffer) {
            Ok(0) => self.ended = Some(End::Closed),
            Ok(n) => {
                self.unread.extend_from_slice(&buffer[..n]);
                lock(&self.received).extend_from_slice(&buffer[..n]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.ended = Some(End::Reset),
            Err(error) => panic!("nothing more came ({error}) after {:?}", text(&lock(&self.received))),
        }
        self.ended.is_none()
    }
}

// === impl Head ===

impl Head {
    fn parse(head: &str) -> Self {
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        Head { line, fields: lines.map(field).collect() }
    }

    /// The status of an answer.
    pub(crate) fn status(&self) -> u16 {
        let status = self.line.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("{:?} is no status line", self.line))
    }

    /// The one value of a field (any case); `None` where there is no such field.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() <= 1, "{name} is there more than once: {values:?}");
        values.first().copied()
    }

    /// Every value of a field (any case), in order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(candidate, _)| candidate.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The names as written, in order.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }
}

// === impl Message ===

impl Message {
    fn bodiless(head: Head) -> Self {
        Message { head, body: Vec::new(), chunks: Vec::new(), trailers: Vec::new() }
    }

    /// The status of an answer.
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    /// The one value of a field (any case).
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.head.value(name)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }
}

// === impl Gate ===

impl Gate {
    /// Lets everyone pass who waits, now and later.
    pub(crate) fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    pub(crate) fn pass(&self) {
        let waited = self.0.1.wait_timeout_while(lock(&self.0.0), PATIENCE, |open| !*open);
        assert!(*waited.unwrap_or_else(PoisonError::into_inner).0, "nobody opened the gate");
    }
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "still waiting: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Lets time pass. Only for tests that are about time passing; whatever can be waited for is waited for.
pub(crate) fn pause(span: Duration) {
    let until = clock::now() + span;
    while clock::now() < until {
        std::thread::park_timeout(until - clock::now());
    }
}

/// The lock of a mutex, also after another test's thread has panicked with it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes as they can be compared and read: text, with what is not printable escaped.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n\n"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => drop(write!(text, "\\x{byte:02x}")),
        }
    }
    text
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} is no field"));
    (name.to_owned(), value.trim().to_owned())
}
