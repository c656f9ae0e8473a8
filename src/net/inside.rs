//! A side of an exchange that is no connection: somebody inside this process, who sent a request and takes its answer for
//! others.

use bytes::Bytes;
use std::fmt;
use std::io;
use std::task::{Context, Poll, ready};

/// Who takes an answer.
pub trait Taker: fmt::Debug + Send {
    /// An interim head, as it was written for the version of its request.
    fn interim(&mut self, status: u16, written: &[u8]);

    /// The final head, as it was written for the version of its request.
    fn head(&mut self, status: u16, written: &[u8]);

    /// Some of the body; says how many bytes were taken.
    ///
    /// # Errors
    /// Nobody wants the rest.
    fn poll_take(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>>;

    /// Ready when nobody wants the answer any more.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// A client inside this process. Its request's body is at hand.
#[derive(Debug)]
pub struct Inside {
    taker: Box<dyn Taker>,
    /// What is left of the request's body.
    body: Bytes,
    /// Where a head is written to.
    out: Vec<u8>,
    /// The body of an answer of our own, as far as it was not taken.
    waiting: Bytes,
    /// Bytes of the request's body that were used.
    pub body_read: u64,
    /// Bytes of the answer's body.
    pub body_written: u64,
    departed: u64,
}

// === impl Inside ===

impl Inside {
    /// One that sends `body` and has its answer taken by `taker`.
    pub fn new(body: Bytes, taker: Box<dyn Taker>) -> Self {
        Inside { taker, body, out: Vec::new(), waiting: Bytes::new(), body_read: 0, body_written: 0, departed: 0 }
    }

    /// How many bytes of the request's body are ready.
    pub fn ready(&self) -> usize {
        self.body.len()
    }

    /// The first of them.
    pub fn body(&self, len: usize) -> &[u8] {
        &self.body[..len]
    }

    /// Says that `n` of them were used.
    pub fn use_body(&mut self, n: usize) {
        let _: Bytes = self.body.split_to(n);
        self.body_read += n as u64;
    }

    /// Ready when nobody wants the answer any more.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.taker.poll_gone(cx)
    }

    /// Where a head is written to.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// The final head is written.
    pub fn send_head(&mut self, status: u16) {
        self.departed += self.out.len() as u64;
        self.taker.head(status, &self.out);
        self.out.clear();
    }

    /// The head of an interim answer is written.
    pub fn send_interim(&mut self, status: u16) {
        self.taker.interim(status, &self.out);
        self.out.clear();
    }

    /// The rest of an answer of our own.
    pub fn lay_body(&mut self, body: &[u8]) {
        self.waiting = Bytes::copy_from_slice(body);
    }

    /// Hands some of the body over.
    ///
    /// # Errors
    /// Nobody wants it.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let taken = ready!(self.taker.poll_take(cx, data))?;
        self.body_written += taken as u64;
        self.departed += taken as u64;
        Poll::Ready(Ok(taken))
    }

    /// Hands everything over that waits.
    ///
    /// # Errors
    /// Nobody wants it.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let waiting = self.waiting.clone();
            let taken = ready!(self.poll_send(cx, &waiting))?;
            self.waiting = waiting.slice(taken..);
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes that were handed over: whether anything moves shows in these.
    pub fn departed(&self) -> u64 {
        self.departed
    }
}
