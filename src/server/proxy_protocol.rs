//! Reading a PROXY header from a connection, to its last byte and not one further.

use crate::instant::Instant;
use crate::net::io::Socket;
use crate::net::proxy_header::{self, Announced, HEADER_MAX, Malformed};
use std::io;
use std::time::Duration;
use tokio::time::timeout_at;

/// Why a connection that has to begin with a PROXY header is closed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// What came is none.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// It was not whole in time.
    #[error("the PROXY header did not arrive in time")]
    Late,
    /// The sender left within it.
    #[error("the connection ended within the PROXY header")]
    Cut,
    /// The sender left without a byte, as checks do that only see whether somebody listens. Nothing is wrong.
    #[error("the connection ended before a PROXY header")]
    Nothing,
    /// The socket failed.
    #[error("reading the PROXY header: {0}")]
    Io(#[from] io::Error),
}

/// Reads the header that has to come first on `socket`, by `deadline`. Whatever follows it is still there to be read, be
/// it TLS or HTTP.
///
/// # Errors
/// See [`Refused`]; the connection is to be closed.
pub async fn receive(socket: &mut Socket, deadline: Instant) -> Result<Announced, Refused> {
    timeout_at(deadline.into(), read(socket)).await.unwrap_or(Err(Refused::Late))
}

/// Looks first and takes afterwards. While the header is incomplete all that is there belongs to it and is taken, so that
/// waiting is for new bytes: a socket whose bytes stay in it would always be readable.
async fn read(socket: &Socket) -> Result<Announced, Refused> {
    let mut bytes = [0; HEADER_MAX];
    let mut taken = 0;
    loop {
        // It is at most as long as the buffer, so there is always room for what is missing.
        let seen = taken + socket.peek(&mut bytes[taken..]).await?;
        if seen == taken {
            return Err(if taken == 0 { Refused::Nothing } else { Refused::Cut });
        }
        let found = proxy_header::parse(&bytes[..seen])?;
        let end = found.map_or(seen, |(_, len)| len);
        while taken < end {
            match socket.take(&mut bytes[taken..end]).await? {
                0 => return Err(Refused::Cut),
                n => taken += n,
            }
        }
        if let Some((announced, _)) = found {
            return Ok(announced);
        }
    }
}

/// For a PROXY header to arrive. Balancers send it in the packet after the handshake; three seconds forgive one that was
/// lost on the way.
pub const PROXY_HEADER_TIME: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n";
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\xc8\x22\x01\xbb";

    fn pair() -> (UnixStream, Socket) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        (ours, Socket::Unix(theirs))
    }

    fn soon() -> Instant {
        clock::now() + Duration::from_secs(20)
    }

    fn client() -> Announced {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        Announced::Client { client: address("192.0.2.7:51234"), local: address("198.51.100.1:443") }
    }

    #[tokio::test]
    async fn what_follows_the_header_stays_in_the_socket() {
        for header in [LINE, V2] {
            let (mut sender, mut socket) = pair();
            sender.write_all(&[header, b"\x16\x03\x01 GET /"].concat()).await.expect("room");
            drop(sender);
            assert_eq!(receive(&mut socket, soon()).await.expect("a header"), client());
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).await.expect("the rest");
            assert_eq!(rest, b"\x16\x03\x01 GET /");
        }
    }

    #[tokio::test]
    async fn a_header_may_come_byte_by_byte() {
        for header in [LINE, V2] {
            let (mut sender, mut socket) = pair();
            let all = [header, b"G"].concat();
            let send = async {
                for byte in &all {
                    sender.write_all(&[*byte]).await.expect("room");
                    tokio::task::yield_now().await;
                }
            };
            let (received, ()) = tokio::join!(receive(&mut socket, soon()), send);
            assert_eq!(received.expect("a header"), client());
            let mut next = [0; 2];
            assert_eq!(socket.read(&mut next).await.expect("one byte"), 1);
            assert_eq!(next[0], b'G');
        }
    }

    #[tokio::test]
    async fn an_incomplete_header_waits_for_its_deadline_without_turning() {
        let (mut sender, mut socket) = pair();
        sender.write_all(&LINE[..20]).await.expect("room");
        let mut polls = 0;
        let deadline = clock::now() + Duration::from_millis(100);
        let mut receiving = Box::pin(receive(&mut socket, deadline));
        let received = std::future::poll_fn(|cx| {
            polls += 1;
            receiving.as_mut().poll(cx)
        });
        assert!(matches!(received.await, Err(Refused::Late)));
        assert!(polls < 10, "polled {polls} times");
    }

    #[tokio::test]
    async fn who_leaves_without_a_word_is_told_from_who_leaves_within_the_header() {
        let (sender, mut socket) = pair();
        drop(sender);
        assert!(matches!(receive(&mut socket, soon()).await, Err(Refused::Nothing)));
        let (mut sender, mut socket) = pair();
        sender.write_all(&V2[..17]).await.expect("room");
        drop(sender);
        assert!(matches!(receive(&mut socket, soon()).await, Err(Refused::Cut)));
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_without_waiting_for_more() {
        let (mut sender, mut socket) = pair();
        sender.write_all(b"GET / HTTP/1.1").await.expect("room");
        assert!(matches!(receive(&mut socket, soon()).await, Err(Refused::Malformed(_))));
    }
}
