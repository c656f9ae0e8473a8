//! One byte stream for every kind of connection, polled directly: no lock, no box, no channel on the plain path.

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, SendFlags};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected byte stream.
#[derive(Debug)]
pub enum Io {
    /// Cleartext.
    Plain(Socket),
    /// TLS that a client opened.
    TlsServer(Box<tokio_rustls::server::TlsStream<Socket>>),
    /// TLS that we opened, to a provider.
    TlsClient(Box<tokio_rustls::client::TlsStream<Socket>>),
}

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// To another machine, or this one.
    Tcp(TcpStream),
    /// To another process of this machine.
    Unix(UnixStream),
}

/// Tells when a peer hangs up, also where bytes that it sent before are unread.
///
/// It looks through a descriptor of its own: readiness that it takes back is not taken from whoever reads the socket.
#[derive(Debug)]
pub struct HangUp(Socket);

/// Where the other end of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// At this IP address and port.
    Ip(SocketAddr),
    /// On this machine, behind a unix socket: it has no address that tells clients apart.
    Unix,
}

// === impl Address ===

impl Address {
    /// The IP address, where it has one; IPv4 mapped into IPv6 as IPv4.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Address::Ip(address) => Some(address.ip().to_canonical()),
            Address::Unix => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix => f.write_str("unix:"),
        }
    }
}

// === impl Io ===

impl Io {
    /// The socket underneath.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match self {
            Io::Plain(socket) => socket,
            Io::TlsServer(stream) => stream.get_ref().0,
            Io::TlsClient(stream) => stream.get_ref().0,
        }
    }

    /// Whether something can be read, the end of the stream included; wakes the task when it can. What a TLS session has
    /// decrypted already is there too, and the kernel knows nothing of it.
    ///
    /// # Errors
    /// What the socket says.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_waiting = match self {
            Io::Plain(_) => true,
            Io::TlsServer(stream) => stream.get_ref().1.wants_read(),
            Io::TlsClient(stream) => stream.get_ref().1.wants_read(),
        };
        if is_waiting { self.socket().poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Whether nothing can be read now, not even the end of the stream. Takes a byte where there is one.
    pub fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        if let Io::Plain(socket) = self {
            return socket.try_receive(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        }
        let mut cx = Context::from_waker(Waker::noop());
        // Not a matter of the task's budget: "used up" would look like silence.
        let read = pin!(tokio::task::unconstrained(poll_fn(|cx| self.poll_read(cx, &mut byte)))).poll(&mut cx);
        read.is_pending()
    }

    /// Whether the peer has ended the stream, also where bytes that it sent before are unread: asks the kernel, since reading
    /// would only tell behind them. The end of a peer whose bytes the kernel no longer takes is not known to anyone.
    #[must_use]
    pub fn has_hung_up(&self) -> bool {
        has_hung_up(self.socket())
    }

    /// Whether ALPN chose HTTP/2 (RFC 9113 §3.2); never without TLS.
    #[must_use]
    pub fn chose_http2(&self) -> bool {
        let chosen = match self {
            Io::Plain(_) => None,
            Io::TlsServer(stream) => stream.get_ref().1.alpn_protocol(),
            Io::TlsClient(stream) => stream.get_ref().1.alpn_protocol(),
        };
        chosen == Some(b"h2")
    }

    /// Reads what is there into `buf`; `Ok(0)` is the peer's end of stream.
    ///
    /// # Errors
    /// What the socket says, and for TLS a stream that ended without `close_notify`.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Io::Plain(socket) = self {
            return socket.poll_receive(cx, buf);
        }
        let mut read = ReadBuf::new(buf);
        let polled = Pin::new(self).poll_read_buf(cx, &mut read);
        polled.map(|done| done.map(|()| read.filled().len()))
    }

    /// Writes some of `buf` and says how much.
    ///
    /// # Errors
    /// What the socket says.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Io::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Io::TlsServer(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
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
            Io::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Io::TlsServer(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
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
            Io::Plain(_) => Poll::Ready(Ok(())),
            Io::TlsServer(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Io::TlsClient(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    /// Ends our direction: FIN, after `close_notify` where there is TLS.
    ///
    /// # Errors
    /// What the socket says.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Io::TlsServer(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Io::TlsClient(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }

    #[inline]
    fn poll_read_buf(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Io::TlsServer(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            Io::TlsClient(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

/// For libraries that drive a connection themselves.
impl AsyncRead for Io {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_read_buf(cx, buf)
    }
}

impl AsyncWrite for Io {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Io::poll_write(self.get_mut(), cx, buf)
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Io::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Io::poll_shutdown(self.get_mut(), cx)
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Io::poll_write_vectored(self.get_mut(), cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

// === impl HangUp ===

impl HangUp {
    /// Watches the peer of `socket`.
    ///
    /// # Errors
    /// What the system says, such as that there are no more descriptors.
    pub fn of(socket: &Socket) -> io::Result<Self> {
        let own = socket.as_fd().try_clone_to_owned()?;
        Ok(HangUp(match socket {
            Socket::Tcp(_) => Socket::Tcp(TcpStream::from_std(own.into())?),
            Socket::Unix(_) => Socket::Unix(UnixStream::from_std(own.into())?),
        }))
    }

    /// Ready when the peer has hung up.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // An error here means that the runtime ends.
            if ready!(self.0.poll_read_ready(cx)).is_err() || has_hung_up(&self.0) {
                return Poll::Ready(());
            }
            // More bytes have come, nothing else: the next event is awaited.
            let _: io::Result<()> = self.0.try_read(|| Err(io::ErrorKind::WouldBlock.into()));
        }
    }
}

// === impl Socket ===

impl Socket {
    /// Whether something can be read, the end of the stream included; wakes the task when it can.
    ///
    /// # Errors
    /// What the socket says.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => stream.poll_read_ready(cx),
            Socket::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// The address of the other end, where it has one that tells machines apart.
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(stream) => stream.peer_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// The address of our own end, where it has one.
    pub fn local(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(stream) => stream.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Looks at what has arrived without taking it, waiting until something has; 0 is the peer's end of stream.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(buf, RecvFlags::PEEK).await
    }

    /// Takes what has arrived, waiting until something has; 0 is the peer's end of stream.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn take(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(buf, RecvFlags::empty()).await
    }

    /// Takes what has arrived, or wakes the task when something has; 0 is the peer's end of stream.
    #[inline]
    fn poll_receive(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_receive(buf) {
                // Ready again at once where something has come meanwhile.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_read_ready(cx))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => return Poll::Ready(received),
            }
        }
    }

    /// Takes what has arrived, if anything has; 0 is the peer's end of stream.
    #[inline]
    fn try_receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        let (room, mut received) = (buf.len(), None);
        let done = self.try_read(|| {
            // Straight to the kernel: the C library's calls are points where a thread can be cancelled, and pay for that.
            let (bytes, _) = rustix::net::recv(self, buf, RecvFlags::empty())?;
            received = Some(bytes);
            // What leaves room was all there is: said like this, the next read waits for more instead of finding nothing.
            let is_all = 0 < bytes && bytes < room;
            if is_all { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        received.map_or_else(|| done.map(|()| 0), Ok)
    }

    /// Writes some of `buf`, if the kernel takes any now.
    #[inline]
    fn try_send(&self, buf: &[u8]) -> io::Result<usize> {
        self.try_write(|| Ok(rustix::net::send(self, buf, SendFlags::NOSIGNAL)?))
    }

    async fn receive(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        loop {
            self.readable().await?;
            // Readiness is only a hint, and `try_io` takes it back where it was wrong, so this waits and does not spin.
            let received = self.try_read(|| Ok(rustix::net::recv(self, &mut *buf, flags)?.0));
            match received {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                received => return received,
            }
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.readable().await,
            Socket::Unix(stream) => stream.readable().await,
        }
    }

    /// Reads with a call of its own, if there is something; [`io::ErrorKind::WouldBlock`] means that there is not.
    #[inline]
    fn try_read<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Socket::Tcp(stream) => stream.try_io(Interest::READABLE, read),
            Socket::Unix(stream) => stream.try_io(Interest::READABLE, read),
        }
    }

    /// Writes with a call of its own, if the kernel takes something; [`io::ErrorKind::WouldBlock`] means that it does not.
    #[inline]
    fn try_write<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Socket::Tcp(stream) => stream.try_io(Interest::WRITABLE, write),
            Socket::Unix(stream) => stream.try_io(Interest::WRITABLE, write),
        }
    }

    /// A close from now on resets the connection instead of ending it.
    pub fn reset_on_close(&self) {
        let socket = socket2::SockRef::from(self);
        // If this fails, the peer sees an ordinary close: there is nothing else to be done.
        let _: io::Result<()> = socket.set_linger(Some(Duration::ZERO));
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

impl From<TcpStream> for Io {
    fn from(stream: TcpStream) -> Self {
        Io::Plain(Socket::Tcp(stream))
    }
}

impl From<UnixStream> for Io {
    fn from(stream: UnixStream) -> Self {
        Io::Plain(Socket::Unix(stream))
    }
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        // What is short mostly fits, and then nobody has to be noted down who is woken when it does.
        if buf.len() <= SHORT {
            match socket.try_send(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
        match socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets hold nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

fn has_hung_up(socket: impl AsFd) -> bool {
    // Errors are reported without being asked for.
    let mut asked = [PollFd::new(&socket, PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Where the question fails, a later read will tell.
    rustix::event::poll(&mut asked, Some(&at_once)).is_ok_and(|count| count > 0)
}

/// Bytes that are written without asking first. Of a longer piece often only a part is taken, and the runtime's own way then
/// knows that the rest has to wait.
const SHORT: usize = 16 * 1024;
