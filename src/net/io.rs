//! One byte stream for every kind of connection, polled directly: no lock, no box, no channel on the plain path.

use rustix::event::{PollFd, PollFlags, Timespec};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connected byte stream.
#[derive(Debug)]
pub enum Io {
    /// Cleartext TCP.
    Tcp(TcpStream),
    /// TLS that we opened, to a provider.
    TlsClient(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

// === impl Io ===

impl Io {
    /// The socket underneath.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Io::Tcp(stream) => stream,
            Io::TlsClient(stream) => stream.get_ref().0,
        }
    }

    /// Whether the peer has ended the stream, also where bytes that it sent before are unread: asks the kernel, since reading
    /// would only tell behind them. The end of a peer whose bytes the kernel no longer takes is not known to anyone.
    #[must_use]
    pub fn has_hung_up(&self) -> bool {
        // Errors are reported without being asked for.
        let mut asked = [PollFd::new(self.tcp(), PollFlags::RDHUP)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Where the question fails, a later read will tell.
        rustix::event::poll(&mut asked, Some(&at_once)).is_ok_and(|count| count > 0)
    }

    /// Reads what is there into `buf`; `Ok(0)` is the peer's end of stream.
    ///
    /// # Errors
    /// What the socket says, and for TLS a stream that ended without `close_notify`.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut read = ReadBuf::new(buf);
        let polled = match self {
            Io::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut read),
            Io::TlsClient(stream) => Pin::new(stream.as_mut()).poll_read(cx, &mut read),
        };
        polled.map(|done| done.map(|()| read.filled().len()))
    }

    /// Writes some of `buf` and says how much.
    ///
    /// # Errors
    /// What the socket says.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Io::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::TlsClient(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    /// Writes from several slices at once where the kind of stream can.
    ///
    /// # Errors
    /// What the socket says.
    #[inline]
    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Io::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::TlsClient(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    /// Pushes out what a TLS layer still holds; plain sockets hold nothing.
    ///
    /// # Errors
    /// What the socket says.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Tcp(_) => Poll::Ready(Ok(())),
            Io::TlsClient(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    /// Ends our direction: FIN, after `close_notify` where there is TLS.
    ///
    /// # Errors
    /// What the socket says.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::TlsClient(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
