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
        self.make_room(max);
        match io.poll_read(cx, &mut self.data[self.end..]) {
            Poll::Ready(Ok(n)) => {
                self.end += n;
                self.filled_up = self.end == self.data.len();
                Poll::Ready(Ok(n))
            }
            other => other,
        }
    }

    /// Gives back what a large body needed, once it is empty.
    pub fn shrink(&mut self) {
        if self.is_empty() && self.data.len() > self.first {
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
        let mut large = unshelve();
        let held = self.end - self.start;
        large[..held].copy_from_slice(&self.data[self.start..self.end]);
        self.data = large;
        self.start = 0;
        self.end = held;
    }

    fn make_room(&mut self, max: usize) {
        if self.data.is_empty() {
            self.data = vec![0; self.first];
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
        if self.data.len() == LARGE {
            shelve(std::mem::take(&mut self.data));
        }
    }
}

thread_local! {
    /// Large buffers of this worker that wait for the next bulk body: taking one costs no allocation and no zeroing.
    static SHELF: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`LARGE`] bytes, whatever is in it.
fn unshelve() -> Vec<u8> {
    SHELF.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; LARGE])
}

/// Keeps a large buffer for the next body; one of another size, or one too many, is freed.
fn shelve(buffer: Vec<u8>) {
    if buffer.len() == LARGE {
        // At a thread's end the shelf may be gone already; then the buffer is just freed.
        let _: Result<(), _> = SHELF.try_with(|shelf| {
            let mut shelf = shelf.borrow_mut();
            if shelf.len() < SHELF_PLACES {
                shelf.push(buffer);
            }
        });
    }
}

/// Large buffers kept by a worker: 4 MiB.
const SHELF_PLACES: usize = 64;

/// The first size of a buffer for requests: almost every head, and small bodies.
pub const FOR_REQUESTS: usize = 4 * 1024;

/// The first size of a buffer for answers: most of them whole.
pub const FOR_ANSWERS: usize = 16 * 1024;

/// The size for bulk: four times fewer system calls, and still small enough for a core's second-level cache.
pub const LARGE: usize = 64 * 1024;
