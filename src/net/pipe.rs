//! A pipe of the kernel, through which bytes pass from socket to socket without ever coming here.
//!
//! What is read and written costs two copies of each byte; what is spliced costs none, and a large answer is mostly that.

use super::io::Socket;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, pipe_with, splice};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

/// A pipe that is lent to one body.
#[derive(Debug)]
pub struct Pipe {
    ends: Ends,
    /// Bytes inside.
    held: usize,
    _lent: Lent,
}

/// Both ends of a pipe.
#[derive(Debug)]
struct Ends {
    out: OwnedFd,
    into: OwnedFd,
}

/// Counts a pipe among those that are lent, as long as it lives.
#[derive(Debug)]
struct Lent;

thread_local! {
    /// Empty pipes of this worker.
    static SPARE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
    /// Pipes of this worker that are lent.
    static LENT: Cell<usize> = const { Cell::new(0) };
}

// === impl Pipe ===

impl Pipe {
    /// An empty pipe. `None` where this worker has lent as many as it may, or the system gives no more: then bytes have to be
    /// copied.
    pub fn borrow() -> Option<Self> {
        let lent = Lent::one_more()?;
        let ends = SPARE.with_borrow_mut(Vec::pop).or_else(Ends::open)?;
        Some(Pipe { ends, held: 0, _lent: lent })
    }

    /// Keeps the pipe for another body. One that is dropped instead, or that something is in, is closed.
    pub fn give_back(self) {
        if self.is_empty() {
            SPARE.with_borrow_mut(|spare| spare.extend((spare.len() < MOST_SPARE).then_some(self.ends)));
        }
    }

    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Fills the empty pipe with at most `most` of the bytes that `from` has, and says with how many; 0 is the end of the
    /// stream.
    ///
    /// # Errors
    /// What the socket says, or the kernel of sockets that it cannot splice.
    pub fn poll_fill(&mut self, from: &Socket, cx: &mut Context<'_>, most: u64) -> Poll<io::Result<usize>> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(AT_ONCE);
        loop {
            ready!(from.poll_read_ready(cx))?;
            let filled = from.try_read(|| Ok(splice(from, None, &self.ends.into, None, most, HOW)?));
            match filled {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                filled => {
                    self.held = *filled.as_ref().unwrap_or(&0);
                    return Poll::Ready(filled);
                }
            }
        }
    }

    /// Moves some of what is inside to `to`, and says how much.
    ///
    /// # Errors
    /// What the socket says.
    pub fn poll_drain(&mut self, to: &Socket, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_write_ready(cx))?;
            let moved = to.try_write(|| Ok(splice(&self.ends.out, None, to, None, self.held, HOW)?));
            match moved {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                moved => {
                    self.held -= *moved.as_ref().unwrap_or(&0);
                    return Poll::Ready(moved);
                }
            }
        }
    }
}

// === impl Ends ===

impl Ends {
    fn open() -> Option<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Who has very many is given small ones by the kernel (`pipe-user-pages-soft`), which are slower than copying.
        let is_whole = fcntl_getpipe_size(&into).is_ok_and(|size| size >= AT_ONCE);
        is_whole.then_some(Ends { out, into })
    }
}

// === impl Lent ===

impl Lent {
    fn one_more() -> Option<Self> {
        let lent = LENT.get();
        (lent < MOST_LENT).then(|| LENT.set(lent + 1))?;
        Some(Lent)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // At a thread's end nobody counts any more.
        let _: Result<(), _> = LENT.try_with(|lent| lent.set(lent.get().saturating_sub(1)));
    }
}

/// Neither end waits: the sockets tell when to go on.
const HOW: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// Bytes moved at once: what a pipe holds unless it is asked to grow. Larger ones took fewer calls and no less time.
const AT_ONCE: usize = 64 * 1024;

/// Pipes that a worker lends at a time: each holds two descriptors for as long as its client takes to read.
const MOST_LENT: usize = 128;

/// Empty pipes that a worker keeps.
const MOST_SPARE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::framing::Length;
    use crate::net::io::Io;
    use crate::net::pump::{Flow, Pump};
    use crate::net::side::Side;
    use crate::net::wire::{ReadError, Wire};
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::thread;

    /// A connection: its other end, and ours.
    fn connection() -> (TcpStream, Io) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let far = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (near, _) = listener.accept().expect("a connection");
        near.set_nonblocking(true).expect("a socket");
        (far, Io::from(tokio::net::TcpStream::from_std(near).expect("a runtime")))
    }

    /// Bytes that are different everywhere.
    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at % 251) as u8 ^ (at >> 12) as u8).collect()
    }

    /// A body that is `announced` bytes long and of which `sent` come, moved to a client that begins to read once the sink takes
    /// no more, or all is over: how it ended, and what the client got.
    async fn moved(announced: usize, sent: usize) -> (Flow, Vec<u8>) {
        let ((mut provider, near), (mut client, near_client)) = (connection(), connection());
        let (mut source, mut sink) = (Wire::to_provider(near), Wire::to_client(near_client));
        source.begin_body(Length::Exact(announced as u64), u64::MAX);
        sink.begin_answer(Length::Exact(announced as u64));
        sink.out().extend_from_slice(b"a head\r\n\r\n");
        let sends = thread::spawn(move || {
            provider.write_all(&bytes(sent)).expect("it is read");
            provider.shutdown(Shutdown::Write).expect("it is connected");
            provider
        });
        let (begin, may_begin) = std::sync::mpsc::channel();
        let reads = thread::spawn(move || {
            may_begin.recv().expect("it will be told");
            let mut got = Vec::new();
            client.read_to_end(&mut got).expect("it is sent");
            got
        });
        let mut pump = Pump::default();
        let flow = poll_fn(|cx| {
            let flow = pump.run(&mut Side::Http1(&mut source), &mut Side::Http1(&mut sink), &|_| false, cx);
            match flow {
                Flow::AwaitSource => Poll::Pending,
                Flow::AwaitSink => {
                    begin.send(()).expect("it listens");
                    Poll::Pending
                }
                flow => Poll::Ready(flow),
            }
        })
        .await;
        // Where the client was never needed it has not begun.
        let _: Result<(), _> = begin.send(());
        drop((sink, pump));
        sends.join().expect("it sent everything");
        (flow, reads.join().expect("it read everything"))
    }

    fn after_head(body: &[u8]) -> Vec<u8> {
        [&b"a head\r\n\r\n"[..], body].concat()
    }

    fn spare_and_lent() -> (usize, usize) {
        (SPARE.with_borrow(Vec::len), LENT.get())
    }

    #[tokio::test]
    async fn a_long_body_passes_through_a_pipe_behind_its_head_and_the_pipe_serves_the_next() {
        for _ in 0..2 {
            let (flow, got) = moved(9_000_001, 9_000_001).await;
            assert!(matches!(flow, Flow::Done), "{flow:?}");
            assert!(got == after_head(&bytes(9_000_001)), "{} bytes", got.len());
            assert_eq!(spare_and_lent(), (1, 0));
        }
    }

    #[tokio::test]
    async fn a_short_body_needs_no_pipe() {
        let (flow, got) = moved(60_000, 60_000).await;
        assert!(matches!(flow, Flow::Done) && got == after_head(&bytes(60_000)), "{flow:?}");
        assert_eq!(spare_and_lent(), (0, 0));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_passed_on_as_far_as_it_came() {
        let (flow, got) = moved(9_000_001, 5_000_000).await;
        assert!(matches!(flow, Flow::SourceFailed(ReadError::Ended)), "{flow:?}");
        assert!(got == after_head(&bytes(5_000_000)), "{} bytes", got.len());
        assert_eq!(LENT.get(), 0);
    }

    #[tokio::test]
    async fn where_no_pipe_is_to_be_had_bytes_are_copied() {
        let all: Vec<_> = (0..MOST_LENT).map_while(|_| Pipe::borrow()).collect();
        assert_eq!(all.len(), MOST_LENT);
        assert!(Pipe::borrow().is_none());
        let (flow, got) = moved(9_000_001, 9_000_001).await;
        assert!(matches!(flow, Flow::Done) && got == after_head(&bytes(9_000_001)), "{flow:?}");
        all.into_iter().for_each(Pipe::give_back);
        assert_eq!(spare_and_lent(), (MOST_SPARE, 0));
    }
}
