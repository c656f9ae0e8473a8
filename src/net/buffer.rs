//! What was read and not used yet.

use super::io::Io;
use std::io;
use std::task::{Context, Poll};

/// Bytes read from a stream, used from the front. Its memory is bounded by what the caller asks for.
#[derive(Debug, Default)]
pub struct Inbound {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

// === impl Inbound ===

impl Inbound {
    /// What is there.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
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
        let room = self.data.len();
        match io.poll_read(cx, &mut self.data[self.end..]) {
            Poll::Ready(Ok(n)) => {
                self.end += n;
                if self.end == room && self.start == 0 && n >= SMALL / 2 {
                    // A read that filled everything: more is waiting. Larger reads are cheaper a byte.
                    self.data.resize(room.max(LARGE.min(max)), 0);
                }
                Poll::Ready(Ok(n))
            }
            other => other,
        }
    }

    /// Gives memory back once it is empty.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.data = Vec::new();
        }
    }

    /// Gives back what a large body needed, once it is empty.
    pub fn shrink(&mut self) {
        if self.is_empty() && self.data.len() > SMALL {
            self.data = Vec::new();
        }
    }

    fn make_room(&mut self, max: usize) {
        if self.data.is_empty() {
            self.data = vec![0; SMALL.min(max)];
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

/// The first size of a buffer: most heads, and most answers whole.
const SMALL: usize = 16 * 1024;

/// The size for bulk: four times fewer system calls, and still small enough for a core's second-level cache.
pub const LARGE: usize = 64 * 1024;
