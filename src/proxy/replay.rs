//! A request's body, kept as far as it may have to be sent again.
//!
//! What is read from the client goes to the provider and, up to a bound, into the [`Replay`]. An attempt after the first
//! begins with what is kept and goes on with what the client still has. Beyond the bound the body streams, and the request
//! can no longer be sent again: [`Replay::is_whole`] says so, and whoever gives a retry up for it tells the client.

use crate::net::pump::Source;
use crate::net::side::Side;
use crate::net::wire::ReadError;
use crate::upstream::buffers::Held;
use std::io;
use std::task::{Context, Poll};

/// What was read of a request's body.
#[derive(Debug, Default)]
pub struct Replay {
    kept: Vec<u8>,
    /// Bytes of it that this attempt has sent.
    sent: usize,
    /// Bytes that may be kept.
    room: usize,
    /// Bytes were read that are not kept.
    leaky: bool,
    /// What is kept, in the account of all that is kept; `None` where nothing is to be.
    held: Option<Held>,
}

/// A request's body on its way to a provider: first what is kept, then what the client still has.
#[derive(Debug)]
pub struct Upload<'a, 'side> {
    client: &'a mut Side<'side>,
    replay: &'a mut Replay,
}

// === impl Replay ===

impl Replay {
    /// Keeps up to `room` bytes, as far as `held` can grow.
    pub fn new(room: usize, held: Option<Held>) -> Self {
        Replay { room, held, ..Replay::default() }
    }

    /// A body that is whole, and sent in the place of the client's; `held` accounts for it.
    pub fn of(body: Vec<u8>, held: Option<Held>) -> Self {
        Replay { room: body.len(), kept: body, held, ..Replay::default() }
    }

    /// Whether everything that was read is kept, so that the request can be sent again.
    pub fn is_whole(&self) -> bool {
        !self.leaky
    }

    /// How many bytes are kept.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// What is kept.
    pub fn bytes(&self) -> &[u8] {
        &self.kept
    }

    /// What is kept, for an attempt beside this one.
    pub fn copy(&self) -> Vec<u8> {
        self.kept.clone()
    }

    /// The next attempt begins.
    pub fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The last attempt begins: what is sent from now on is forgotten.
    pub fn rewind_for_good(&mut self) {
        self.sent = 0;
        self.room = 0;
    }

    /// Reads what has come of the body while nobody takes it, as far as it may be kept. Ready when there is no more to read,
    /// whatever comes; pending when more is awaited. False where there is no memory for what came.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn poll_read_ahead(&mut self, client: &mut Side<'_>, cx: &mut Context<'_>) -> Poll<Result<bool, ReadError>> {
        loop {
            if client.body_is_done() || self.leaky || self.kept.len() >= self.room {
                return Poll::Ready(Ok(true));
            }
            match client.poll_body(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(true)),
                Poll::Ready(Ok(n)) => {
                    let n = n.min(self.room - self.kept.len());
                    if !self.reserve(n) {
                        return Poll::Ready(Ok(false));
                    }
                    self.kept.extend_from_slice(client.body(n));
                    client.use_body(n);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Keeps `data`, which is being sent, if there is room; else nothing is kept any more.
    fn note(&mut self, data: &[u8]) {
        if self.leaky {
            return;
        }
        if data.len() > self.room.saturating_sub(self.kept.len()) || !self.reserve(data.len()) {
            self.leaky = true;
            self.forget();
            return;
        }
        self.kept.extend_from_slice(data);
        self.sent = self.kept.len();
    }

    fn reserve(&mut self, bytes: usize) -> bool {
        self.held.as_mut().is_some_and(|held| held.grow(bytes))
    }

    /// Frees what is kept, once all of it was sent.
    fn forget(&mut self) {
        if self.sent == self.kept.len() {
            self.leaky |= self.sent > 0;
            self.kept = Vec::new();
            self.held = None;
            self.sent = 0;
        }
    }
}

// === impl Upload ===

impl<'a, 'side> Upload<'a, 'side> {
    /// The body that `client` sends, kept by `replay`.
    pub fn new(client: &'a mut Side<'side>, replay: &'a mut Replay) -> Self {
        Upload { client, replay }
    }

    fn kept(&self) -> &[u8] {
        &self.replay.kept[self.replay.sent..]
    }
}

impl Source for Upload<'_, '_> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        match self.kept().len() {
            0 => self.client.poll_body(cx),
            waiting => Poll::Ready(Ok(waiting)),
        }
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, sink: &mut Side<'_>, len: usize) -> Poll<io::Result<usize>> {
        if self.kept().is_empty() {
            self.client.poll_send_to(cx, sink, len)
        } else {
            sink.poll_send(cx, &self.kept()[..len])
        }
    }

    fn use_body(&mut self, n: usize) {
        if self.kept().is_empty() {
            self.replay.note(self.client.body(n));
            self.client.use_body(n);
        } else {
            self.replay.sent += n;
            if self.replay.room == 0 {
                self.replay.forget();
            }
        }
    }

    fn end_at(&mut self, sink: &mut Side<'_>, withheld: &dyn Fn(&[u8]) -> bool) {
        self.client.end_at(sink, withheld);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::framing::Length;
    use crate::net::wire::Wire;
    use crate::upstream::buffers::Buffers;
    use std::future::poll_fn;
    use std::sync::Arc;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    const BODY: &[u8] = b"0123456789";

    /// A client whose body has arrived, and its far end.
    async fn client() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut far = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        let (near, _) = listener.accept().await.expect("a connection");
        far.write_all(BODY).await.expect("the socket takes it");
        let mut wire = Wire::to_client(near.into());
        wire.begin_body(Length::Exact(BODY.len() as u64), u64::MAX);
        (wire, far)
    }

    fn replay(room: usize, memory: usize) -> (Replay, Arc<Buffers>) {
        let buffers = Buffers::new(memory);
        (Replay::new(room, buffers.take(0, &Arc::default())), buffers)
    }

    /// What a provider gets that takes `most` bytes, three at a time.
    async fn send(client: &mut Wire, replay: &mut Replay, most: usize) -> Vec<u8> {
        let mut side = Side::Http1(client);
        let mut upload = Upload::new(&mut side, replay);
        let mut sent = Vec::new();
        while sent.len() < most {
            let n = poll_fn(|cx| upload.poll_body(cx)).await.expect("the client is there");
            let n = n.min(3).min(most - sent.len());
            if n == 0 {
                break;
            }
            let from_client = upload.kept().is_empty();
            sent.extend_from_slice(if from_client { upload.client.body(n) } else { &upload.kept()[..n] });
            upload.use_body(n);
        }
        sent
    }

    async fn read_ahead(client: &mut Wire, replay: &mut Replay) -> bool {
        let mut side = Side::Http1(client);
        poll_fn(|cx| replay.poll_read_ahead(&mut side, cx)).await.expect("the client is there")
    }

    #[tokio::test]
    async fn a_request_that_is_whole_is_sent_again_whole_wherever_the_attempt_before_ended() {
        for room in 0..=BODY.len() {
            for cut in 0..=BODY.len() {
                for waits in [false, true] {
                    let (mut client, _far) = client().await;
                    let (mut replay, _buffers) = replay(room, 1 << 20);
                    if waits {
                        assert!(read_ahead(&mut client, &mut replay).await);
                    }
                    assert_eq!(send(&mut client, &mut replay, cut).await, &BODY[..cut], "{room} {cut} {waits}");
                    assert_eq!(replay.is_whole(), cut <= room, "{room} {cut} {waits}");
                    if replay.is_whole() {
                        replay.rewind();
                        assert_eq!(send(&mut client, &mut replay, usize::MAX).await, BODY, "{room} {cut} {waits}");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn the_last_attempt_sends_everything_and_keeps_nothing() {
        for cut in 0..=BODY.len() {
            let (mut client, _far) = client().await;
            let (mut replay, buffers) = replay(BODY.len(), 1 << 20);
            send(&mut client, &mut replay, cut).await;
            assert_eq!(buffers.used(), cut);
            replay.rewind_for_good();
            assert_eq!(send(&mut client, &mut replay, usize::MAX).await, BODY, "{cut}");
            assert!(!replay.is_whole());
            assert_eq!((replay.kept.capacity(), buffers.used()), (0, 0));
        }
    }

    #[tokio::test]
    async fn a_body_in_the_place_of_the_clients_is_sent_whole() {
        let (mut client, _far) = client().await;
        let (mut read, _buffers) = replay(BODY.len(), 1 << 20);
        poll_fn(|cx| client.poll_body(cx)).await.expect("the client is there");
        while !Side::Http1(&mut client).body_is_done() {
            assert!(read_ahead(&mut client, &mut read).await);
        }
        let mut other = Replay::of(b"other".to_vec(), None);
        for _ in 0..2 {
            other.rewind();
            assert_eq!(send(&mut client, &mut other, usize::MAX).await, b"other");
            assert!(other.is_whole());
        }
        other.rewind_for_good();
        assert_eq!(send(&mut client, &mut other, usize::MAX).await, b"other");
        assert_eq!((other.is_whole(), other.kept.capacity()), (false, 0));
        assert_eq!(read.copy(), BODY, "the next may have the client's again");
    }

    #[tokio::test]
    async fn a_body_streams_where_there_is_no_memory_to_keep_it_and_is_not_read_ahead() {
        let (mut client, _far) = client().await;
        let (mut replay, buffers) = replay(BODY.len(), 8);
        assert!(!read_ahead(&mut client, &mut replay).await);
        assert_eq!(send(&mut client, &mut replay, usize::MAX).await, BODY);
        assert!(!replay.is_whole());
        assert_eq!(buffers.used(), 0);
    }
}
