//! One side of an HTTP/2 exchange: a stream of a connection that somebody else drives.
//!
//! It offers what a [`super::wire::Wire`] offers, so that an exchange need not know which of them it moves a body to. What
//! the library holds for a stream is bounded both ways: received bytes by the window, which opens only as they are used, and
//! sent bytes by the capacity it grants.

use super::wire::{HeadReadError, ReadError};
use crate::http1::fields::Fields;
use crate::http1::framing::Length;
use crate::http1::head::{HeadError, ResponseHead};
use crate::http2::fault::{Broke, judge};
use crate::http2::{heads, lines};
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Response, StatusCode};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A stream, seen from our end.
#[derive(Debug)]
pub struct Stream {
    /// For the head of an answer that is still to be sent.
    respond: Option<SendResponse<Bytes>>,
    /// For the body; kept when it has ended, to see that the peer gives the stream up.
    send: Option<SendStream<Bytes>>,
    /// More of our body may be sent.
    open: bool,
    receiving: Receiving,
    /// The request that came ended with its head.
    bodiless: bool,
    /// Nothing of our body was sent yet to a provider, who has not seen the stream: no room is granted before it has.
    unopened: bool,
    /// Received and not used yet.
    piece: Bytes,
    trailers: Option<HeaderMap>,
    reading: Reading,
    read_limit: u64,
    /// Where a head is written to before it is sent.
    scratch: Vec<u8>,
    /// An answer of our own, as far as the peer has not taken it.
    waiting: Bytes,
    /// Bytes of body still to be sent, where that is known and no trailers can follow.
    left: Option<u64>,
    /// The key of a WebSocket's opening handshake.
    key: Option<Box<[u8]>>,
    departed: u64,
    /// Bytes of body taken from here.
    pub body_read: u64,
    /// Bytes of body sent from here.
    pub body_written: u64,
    /// Whether anything was sent.
    pub touched: bool,
}

/// Where the peer's direction stands.
#[derive(Debug)]
enum Receiving {
    /// The head of an answer is awaited.
    Head(ResponseFuture),
    /// The body.
    Body(RecvStream),
}

/// How much of the peer's direction is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// None of it: the message has no body.
    Nothing,
    /// To its end; so many bytes, where the head said.
    Body(Option<u64>),
    /// It was read to its end.
    Done,
}

// === impl Stream ===

impl Stream {
    /// A request that came; `ends` where it has no body and no trailers.
    pub fn of_client(respond: SendResponse<Bytes>, body: RecvStream, ends: bool) -> Self {
        Stream { respond: Some(respond), bodiless: ends, ..Stream::new(Receiving::Body(body)) }
    }

    /// A request that was sent; `open` where its body follows. `key` is that of a WebSocket's opening handshake, on which
    /// nothing is sent before it is answered.
    pub fn to_provider(answer: ResponseFuture, body: SendStream<Bytes>, open: bool, key: Option<&[u8]>) -> Self {
        Stream {
            send: Some(body),
            open,
            unopened: open,
            key: key.map(Into::into),
            touched: true,
            ..Stream::new(Receiving::Head(answer))
        }
    }

    fn new(receiving: Receiving) -> Self {
        Stream {
            respond: None,
            send: None,
            open: false,
            receiving,
            bodiless: false,
            unopened: false,
            piece: Bytes::new(),
            trailers: None,
            reading: Reading::Nothing,
            read_limit: u64::MAX,
            scratch: Vec::new(),
            waiting: Bytes::new(),
            left: None,
            key: None,
            departed: 0,
            body_read: 0,
            body_written: 0,
            touched: false,
        }
    }

    // --- reading ---

    /// The head of the next answer: an interim one, or the final one.
    ///
    /// # Errors
    /// See [`HeadReadError`].
    pub fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
        max: usize,
    ) -> Poll<Result<(), HeadReadError>> {
        let Receiving::Head(answer) = &mut self.receiving else {
            return Poll::Ready(Err(HeadReadError::Ended { partial: false }));
        };
        // It tells of the final one as well, and wakes up for either.
        let read = if let Some(interim) = ready!(answer.poll_informational(cx)) {
            let (parts, ()) = interim.map_err(|error| head_error(&error))?.into_parts();
            heads::answer(head, &parts, false, max, None)
        } else {
            let (parts, body) = ready!(Pin::new(answer).poll(cx)).map_err(|error| head_error(&error))?.into_parts();
            let ends = body.is_end_stream();
            self.receiving = Receiving::Body(body);
            heads::answer(head, &parts, ends, max, self.key.as_deref())
        };
        if read.is_err() {
            // What the library lets pass and we do not is as malformed as what it finds (RFC 9113 §8.1.1).
            self.reset(Reason::PROTOCOL_ERROR);
        }
        Poll::Ready(read.map_err(HeadReadError::Malformed))
    }

    /// The body that follows the head has this length, and may be at most `limit` bytes long.
    pub fn begin_body(&mut self, length: Length, limit: u64) {
        self.read_limit = limit;
        self.reading = match length {
            Length::None | Length::Exact(0) => Reading::Nothing,
            Length::Exact(bytes) => Reading::Body(Some(bytes)),
            Length::Chunked | Length::Close => Reading::Body(None),
        };
    }

    /// How many bytes of body are ready to be used; 0 is the end of a complete body.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        while self.piece.is_empty() {
            if !matches!(self.reading, Reading::Body(_)) {
                return Poll::Ready(Ok(0));
            }
            let Receiving::Body(body) = &mut self.receiving else { return Poll::Ready(Err(ReadError::Ended)) };
            if let Some(piece) = ready!(body.poll_data(cx)) {
                self.piece = piece.map_err(|error| read_error(&error))?;
            } else {
                self.trailers = ready!(body.poll_trailers(cx)).map_err(|error| read_error(&error))?;
                self.trailers.as_ref().map_or(Ok(()), heads::are_valid).map_err(ReadError::Framing)?;
                self.reading = Reading::Done;
            }
        }
        let over = self.body_read + self.piece.len() as u64 > self.read_limit;
        Poll::Ready(if over { Err(ReadError::TooLarge) } else { Ok(self.piece.len()) })
    }

    /// Ready once the whole body, which is `len` bytes long by its head, is there. It must fit the window.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn poll_whole(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<Result<(), ReadError>> {
        let Receiving::Body(body) = &mut self.receiving else { return Poll::Ready(Err(ReadError::Ended)) };
        while self.piece.len() < len {
            let Some(piece) = ready!(body.poll_data(cx)) else { return Poll::Ready(Err(ReadError::Ended)) };
            let piece = piece.map_err(|error| read_error(&error))?;
            self.piece = if self.piece.is_empty() { piece } else { [&self.piece[..], &piece].concat().into() };
        }
        Poll::Ready(Ok(()))
    }

    /// Whether nothing follows the head that came.
    pub fn has_heard_all(&self) -> bool {
        self.bodiless
    }

    /// Ready once the peer has sent all of its body: what is left is dropped, up to `max` bytes. False where it did not end
    /// well, or is longer.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, max: u64) -> Poll<bool> {
        if self.reading == Reading::Nothing {
            self.reading = Reading::Body(None);
        }
        // A body that was refused for its length is not refused again.
        self.read_limit = u64::MAX;
        loop {
            match ready!(self.poll_body(cx)) {
                Ok(0) => return Poll::Ready(true),
                Ok(n) if self.body_read + n as u64 <= max => self.use_body(n),
                _ => return Poll::Ready(false),
            }
        }
    }

    /// The bytes of body that [`Stream::poll_body`] announced.
    pub fn body(&self, len: usize) -> &[u8] {
        &self.piece[..len]
    }

    /// The same, without a copy.
    pub fn shared_body(&self, len: usize) -> Bytes {
        self.piece.slice(..len)
    }

    /// Whether nothing follows the bytes that are ready, if `len` of them are used.
    pub fn ends_with(&self, len: usize) -> bool {
        len == self.piece.len() && matches!(&self.receiving, Receiving::Body(body) if body.is_end_stream())
    }

    /// Says that `n` bytes of body were used; the peer may send as many more.
    pub fn use_body(&mut self, n: usize) {
        let _: Bytes = self.piece.split_to(n);
        self.body_read += n as u64;
        if let Receiving::Body(body) = &mut self.receiving {
            // Fails only if more is given back than was taken.
            let _: Result<(), h2::Error> = body.flow_control().release_capacity(n);
        }
    }

    /// Whether the body has been read to its end.
    pub fn body_is_done(&self) -> bool {
        match self.reading {
            Reading::Nothing | Reading::Done => true,
            Reading::Body(_) => self.ends_with(0),
        }
    }

    /// Bytes of body still to come, where its head said.
    pub fn body_remaining(&self) -> Option<u64> {
        match self.reading {
            _ if self.body_is_done() => Some(0),
            Reading::Body(length) => length.map(|length| length.saturating_sub(self.body_read)),
            Reading::Nothing | Reading::Done => Some(0),
        }
    }

    /// The trailers of a complete body, but for those whose names are `withheld`.
    pub fn trailers(&self, withheld: &dyn Fn(&[u8]) -> bool) -> Option<Fields> {
        self.trailers.as_ref().map(|map| heads::trailer_fields(map, withheld))
    }

    /// The same for another stream: those that may pass on. They stay here, since a request may be sent once more.
    pub fn passing_trailers(&self, withheld: &dyn Fn(&[u8]) -> bool) -> Option<HeaderMap> {
        self.trailers.clone().map(|map| heads::passing_trailers(map, withheld))
    }

    /// Ready when the peer has given the stream up, or its connection is gone.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match (&mut self.send, &mut self.respond) {
            (Some(send), _) => send.poll_reset(cx).map(drop),
            (None, Some(respond)) => respond.poll_reset(cx).map(drop),
            (None, None) => Poll::Ready(()),
        }
    }

    /// Bytes pass both ways from here on: a WebSocket was opened.
    pub fn become_tunnel(&mut self) {
        self.reading = Reading::Body(None);
        self.read_limit = u64::MAX;
        self.left = None;
        self.open = self.send.is_some();
    }

    // --- writing ---

    /// Where the field lines of a head are written to; see [`Stream::send_head`].
    pub fn out(&mut self) -> &mut Vec<u8> {
        if self.scratch.capacity() == 0 {
            self.scratch.reserve(HEAD_EXPECTED);
        }
        &mut self.scratch
    }

    /// Sends the answer whose field lines were written, and nothing after it if `ends`. A 101 opens a WebSocket, which
    /// HTTP/2 says with a 200. What a peer that is gone does not take, the next call that moves something tells.
    pub fn send_head(&mut self, status: u16, ends: bool) {
        let (status, opens) = if status == 101 { (200, true) } else { (status, false) };
        let mut answer = self.take_head(status);
        let Some(mut respond) = self.respond.take() else { return };
        if opens {
            heads::drop_upgrade(answer.headers_mut());
        }
        self.touched = true;
        match respond.send_response(answer, ends) {
            Ok(body) => {
                self.send = Some(body);
                self.open = !ends;
            }
            Err(error) => tracing::debug!(%error, "an answer could not be sent"),
        }
    }

    /// Sends the interim answer whose field lines were written.
    pub fn send_interim(&mut self, status: u16) {
        let interim = self.take_head(status);
        if let Some(respond) = &mut self.respond
            && let Err(error) = respond.send_informational(interim)
        {
            tracing::debug!(%error, "an interim answer could not be sent");
        }
    }

    fn take_head(&mut self, status: u16) -> Response<()> {
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *answer.headers_mut() = lines::map(&std::mem::take(&mut self.scratch));
        answer
    }

    /// The body that follows has this length. `trailers`: some may come behind it.
    pub fn begin_answer(&mut self, length: Length, trailers: bool) {
        self.left = match length {
            Length::Exact(bytes) if !trailers => Some(bytes),
            _ => None,
        };
    }

    /// Sends all of `body`, which must not be empty, and ends, as fast as the peer lets us; see [`Stream::poll_flush`].
    pub fn lay_body(&mut self, body: &[u8]) {
        self.waiting = Bytes::copy_from_slice(body);
        self.body_written += body.len() as u64;
    }

    /// Hands over everything that waits.
    ///
    /// # Errors
    /// The stream was given up, or the connection is gone.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let room = ready!(self.poll_room(cx, self.waiting.len()))?;
            let piece = self.waiting.split_to(room);
            let last = self.waiting.is_empty();
            self.departed += room as u64;
            self.send_data(piece, last);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends some of `data` and says how much.
    ///
    /// # Errors
    /// The stream was given up, or the connection is gone.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx, data.len()))?;
        self.send_piece(Bytes::copy_from_slice(&data[..room]), false);
        Poll::Ready(Ok(room))
    }

    /// Sends all of `data`, which is short, once the peer takes any of it: the library holds the rest until then.
    ///
    /// # Errors
    /// The stream was given up, or the connection is gone.
    pub fn poll_send_whole(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<()>> {
        ready!(self.poll_room(cx, data.len()))?;
        self.send_piece(Bytes::copy_from_slice(data), false);
        Poll::Ready(Ok(()))
    }

    /// The same as [`Stream::poll_send`] for bytes that need not be copied. `last`: the body ends with them, if all are taken.
    ///
    /// # Errors
    /// The stream was given up, or the connection is gone.
    pub fn poll_send_shared(&mut self, cx: &mut Context<'_>, mut data: Bytes, last: bool) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx, data.len()))?;
        let all = room == data.len();
        data.truncate(room);
        self.send_piece(data, last && all);
        Poll::Ready(Ok(room))
    }

    /// How many of `wanted` bytes may be sent now, at least one.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let Some(send) = self.send.as_mut().filter(|_| self.open) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if std::mem::take(&mut self.unopened) {
            // Goes with the head, or waits behind it.
            return Poll::Ready(Ok(wanted.min(OPENING_BYTES)));
        }
        let wanted = wanted.min(SEND_BYTES);
        send.reserve_capacity(wanted);
        let mut room = send.capacity();
        while room == 0 {
            room = match ready!(send.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        Poll::Ready(Ok(room.min(wanted)))
    }

    fn send_piece(&mut self, data: Bytes, last: bool) {
        let len = data.len() as u64;
        self.body_written += len;
        self.departed += len;
        let complete = self.left.as_mut().is_some_and(|left| {
            *left = left.saturating_sub(len);
            *left == 0
        });
        self.send_data(data, last || complete);
    }

    fn send_data(&mut self, data: Bytes, last: bool) {
        if let Some(send) = &mut self.send
            && let Err(error) = send.send_data(data, last)
        {
            tracing::debug!(%error, "data could not be sent");
        }
        self.open &= !last;
    }

    /// Ends the body, with trailers where there are some.
    pub fn finish(&mut self, trailers: Option<&Fields>) {
        self.finish_with(trailers.map(heads::trailer_map));
    }

    /// The same with trailers of another stream.
    pub fn finish_with(&mut self, trailers: Option<HeaderMap>) {
        if !self.open {
            return;
        }
        match (trailers.filter(|map| !map.is_empty()), &mut self.send) {
            (Some(map), Some(send)) => {
                if let Err(error) = send.send_trailers(map) {
                    tracing::debug!(%error, "trailers could not be sent");
                }
                self.open = false;
            }
            _ => self.send_data(Bytes::new(), true),
        }
    }

    /// Whether trailers may follow what was sent.
    pub fn may_still_trail(&self) -> bool {
        self.open && self.left.is_none()
    }

    /// Bytes handed over in the stream's whole life: whether the peer takes anything shows in these.
    pub fn departed(&self) -> u64 {
        self.departed
    }

    /// Everything of ours was handed over, the end included.
    pub fn is_complete(&self) -> bool {
        self.send.is_some() && !self.open
    }

    /// Gives the stream up, visibly: what was sent of it is not complete.
    pub fn reset(&mut self, reason: Reason) {
        match (&mut self.send, &mut self.respond) {
            (Some(send), _) => send.send_reset(reason),
            (None, Some(respond)) => respond.send_reset(reason),
            (None, None) => {}
        }
        self.open = false;
    }
}

fn head_error(error: &h2::Error) -> HeadReadError {
    match judge(error) {
        Broke::Refused(_) => HeadReadError::Refused,
        Broke::Protocol(_) => HeadReadError::Malformed(HeadError::Malformed("the answer breaks HTTP/2")),
        // Said about this request, and not the silence of a connection that was dead before: the provider may have acted.
        Broke::Reset(_) => HeadReadError::Ended { partial: true },
        Broke::Lost | Broke::Ours => HeadReadError::Ended { partial: false },
    }
}

fn read_error(error: &h2::Error) -> ReadError {
    match judge(error) {
        Broke::Protocol(_) => ReadError::Framing("the body breaks HTTP/2"),
        Broke::Refused(_) | Broke::Reset(_) | Broke::Lost | Broke::Ours => ReadError::Ended,
    }
}

/// Bytes of a request's body that go to the library with its head, before a provider has granted any room.
const OPENING_BYTES: usize = 16 * 1024;

/// Bytes handed to the library at once. It bounds what a stream that is slow at the other end holds of ours.
pub const SEND_BYTES: usize = 64 * 1024;

/// Room made for the field lines of a head before they are written.
const HEAD_EXPECTED: usize = 512;
