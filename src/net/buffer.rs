//! What was read and not used yet.

use super::io::Io;
use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll};

/// Bytes read from a stream, used from the front. Its memory is bounded by what the caller asks for.
#[derive(Debug)]
pub struct Inbound {
    data: Vec<u8>,
    first: usize,
    /// The last read left no room.
    filled_up: bool,
    start: usize,
    end: usize,
}

// === impl Inbound ===

impl Inbound {
    /// An empty buffer; its memory comes with the first read and is then `first` bytes, until a read shows that more helps.
    pub fn new(first: usize) -> Self {
        Inbound { data: Vec::new(), first, filled_up: false, start: 0, end: 0 }
    }

    /// What is there.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// What is there, and whatever the memory behind it holds.
    #[inline]
    pub fn with_slack(&self) -> &[u8] {
        &self.data[self.start..]
    }

    /// Drops `n` bytes from the front.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        self.start += n.min(self.end - self.start);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Whether nothing is there.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Reads once, making room first, but never holding more than `max` bytes. `Ok(0)` is the end of the stream; a buffer
    /// that already holds `max` bytes reads nothing and stays pending: the caller has to use some first.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_fill(&mut self, io: &mut Io, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<usize>> {
        if self.end - self.start >= max {
            return Poll::Pending;
        }
        if io.poll_read_ready(cx)?.is_pending() {
            return self.wait();
        }
        self.make_room(max);
        match io.poll_read(cx, &mut self.data[self.end..])? {
            Poll::Ready(n) => {
                self.end += n;
                self.filled_up = self.end == self.data.len();
                Poll::Ready(Ok(n))
            }
            Poll::Pending => self.wait(),
        }
    }

    /// While a provider thinks, or pauses in a stream, others read into the same bytes.
    fn wait(&mut self) -> Poll<io::Result<usize>> {
        if self.data.len() == FOR_ANSWERS {
            self.rest();
        }
        Poll::Pending
    }

    /// Gives back what a large body needed, once it is empty.
    pub fn shrink(&mut self) {
        if self.is_empty() && self.data.len() > self.first {
            shelve(std::mem::take(&mut self.data));
        }
    }

    /// Gives back everything, once it is empty: for a while nothing will come.
    pub fn rest(&mut self) {
        if self.is_empty() {
            shelve(std::mem::take(&mut self.data));
        }
    }

    /// Becomes large for a body, if the last read filled everything: then more is waiting, and larger reads are cheaper a
    /// byte. Not for heads: those of many slow clients would hold memory that nothing but their length entitles them to.
    pub fn prepare_for_bulk(&mut self) {
        if self.filled_up && self.data.len() < LARGE {
            self.grow_to_large();
        }
    }

    fn grow_to_large(&mut self) {
        let mut large = unshelve(LARGE);
        let held = self.end - self.start;
        large[..held].copy_from_slice(&self.data[self.start..self.end]);
        self.data = large;
        self.start = 0;
        self.end = held;
    }

    fn make_room(&mut self, max: usize) {
        if self.data.is_empty() {
            self.data = unshelve(self.first);
        } else if self.end == self.data.len() {
            if self.start > 0 {
                self.data.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else {
                let grown = (self.data.len() * 2).min(max.max(self.data.len() + 1));
                self.data.resize(grown, 0);
            }
        }
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        shelve(std::mem::take(&mut self.data));
    }
}

/// Buffers of this worker that wait for the next bytes: taking one costs no allocation and no zeroing, and the one that was
/// used last is still in the core's cache.
#[derive(Debug)]
struct Shelf {
    for_answers: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

thread_local! {
    static SHELF: RefCell<Shelf> = const { RefCell::new(Shelf { for_answers: Vec::new(), large: Vec::new() }) };
}

// === impl Shelf ===

impl Shelf {
    /// Where buffers of this size stand, if they are kept, and how many of them.
    fn place(&mut self, size: usize) -> Option<(&mut Vec<Vec<u8>>, usize)> {
        match size {
            FOR_ANSWERS => Some((&mut self.for_answers, SHELF_BYTES / FOR_ANSWERS)),
            LARGE => Some((&mut self.large, SHELF_BYTES / LARGE)),
            _ => None,
        }
    }
}

/// A buffer of `size` bytes, whatever is in it.
fn unshelve(size: usize) -> Vec<u8> {
    let kept = SHELF.with_borrow_mut(|shelf| shelf.place(size).and_then(|(place, _)| place.pop()));
    kept.unwrap_or_else(|| vec![0; size])
}

/// Keeps a buffer for others; one of a size that nobody asks for, or one too many, is freed.
fn shelve(buffer: Vec<u8>) {
    // At a thread's end the shelf may be gone already; then the buffer is just freed.
    let _: Result<(), _> = SHELF.try_with(|shelf| {
        let mut shelf = shelf.borrow_mut();
        if let Some((place, most)) = shelf.place(buffer.len())
            && place.len() < most
        {
            place.push(buffer);
        }
    });
}

/// Bytes of buffers of each size that a worker keeps.
const SHELF_BYTES: usize = 4 << 20;

/// The first size of a buffer for requests: almost every head, and small bodies.
pub const FOR_REQUESTS: usize = 4 * 1024;

/// The first size of a buffer for answers: most of them whole.
pub const FOR_ANSWERS: usize = 16 * 1024;

/// The size for bulk: four times fewer system calls, and still small enough for a core's second-level cache.
pub const LARGE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    fn shelved() -> usize {
        SHELF.with_borrow(|shelf| shelf.for_answers.len())
    }

    #[tokio::test]
    async fn a_buffer_for_answers_is_held_only_while_something_is_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut provider = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        let mut io = Io::from(listener.accept().await.expect("a connection").0);
        let mut inbound = Inbound::new(FOR_ANSWERS);
        let waits = poll_fn(|cx| Poll::Ready(inbound.poll_fill(&mut io, cx, LARGE).is_pending())).await;
        assert!(waits);
        assert_eq!(shelved(), 1, "nothing came, and others may have it");
        provider.write_all(b"an answer").await.expect("it reads");
        poll_fn(|cx| inbound.poll_fill(&mut io, cx, LARGE)).await.expect("bytes");
        assert_eq!((inbound.filled(), shelved()), (&b"an answer"[..], 0));
        inbound.rest();
        assert_eq!((inbound.filled(), shelved()), (&b"an answer"[..], 0), "unread bytes stay");
        inbound.consume(9);
        inbound.rest();
        assert_eq!(shelved(), 1);
    }

    #[test]
    fn a_shelf_keeps_no_more_than_its_bytes_and_no_other_sizes() {
        for size in [FOR_REQUESTS, FOR_ANSWERS + 1, LARGE, LARGE] {
            shelve(vec![0; size]);
        }
        for _ in 0..=SHELF_BYTES / FOR_ANSWERS {
            shelve(vec![0; FOR_ANSWERS]);
        }
        let kept = SHELF.with_borrow(|shelf| (shelf.for_answers.len(), shelf.large.len()));
        assert_eq!(kept, (SHELF_BYTES / FOR_ANSWERS, 2));
    }
}
