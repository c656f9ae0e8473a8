//! As much of RFC 6455 as an echo needs: the handshake's answer, frames with a bound, and the echo itself.
//!
//! Frames are echoed one by one, fragments included, so no message is ever put together and the bound on a frame is the
//! bound on memory.

use aws_lc_rs::digest;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// One frame, its payload unmasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// The last of its message?
    pub(super) fin: bool,
    /// What it is: [`TEXT`], [`CLOSE`] and so on.
    pub(super) opcode: u8,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub(super) payload: Vec<u8>,
}

/// Which side a frame comes from: clients mask, servers do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// Masked.
    Client,
    /// Not masked.
    Server,
}

/// Why no frame came.
#[derive(Debug)]
pub(super) enum Broken {
    /// The socket failed or ended.
    Socket,
    /// The peer broke the protocol: close with this code.
    Peer(u16),
}

// === impl Frame ===

impl Frame {
    /// A whole message of text.
    pub(super) fn text(payload: &str) -> Self {
        Frame { fin: true, opcode: TEXT, payload: payload.as_bytes().to_vec() }
    }

    /// A close with a status code.
    pub(super) fn close(code: u16) -> Self {
        Frame { fin: true, opcode: CLOSE, payload: code.to_be_bytes().to_vec() }
    }

    /// Reads one frame from `from`.
    ///
    /// # Errors
    /// A socket that failed or ended, or a frame the peer should not have sent.
    pub(super) async fn read(io: &mut (impl AsyncRead + Unpin), from: From) -> Result<Frame, Broken> {
        let mut head = [0; 2];
        io.read_exact(&mut head).await?;
        let (fin, opcode, masked) = (head[0] & FIN != 0, head[0] & 0x0f, head[1] & MASKED != 0);
        if head[0] & RESERVED != 0 || masked != (from == From::Client) {
            return Err(Broken::Peer(PROTOCOL_ERROR));
        }
        let length = Self::read_length(io, head[1] & !MASKED).await?;
        if opcode >= CLOSE && (!fin || length > MAX_CONTROL) {
            return Err(Broken::Peer(PROTOCOL_ERROR));
        }
        let mut mask = [0; 4];
        if masked {
            io.read_exact(&mut mask).await?;
        }
        let mut payload = vec![0; length];
        io.read_exact(&mut payload).await?;
        apply(mask, &mut payload);
        Ok(Frame { fin, opcode, payload })
    }

    async fn read_length(io: &mut (impl AsyncRead + Unpin), short: u8) -> Result<usize, Broken> {
        let length = match short {
            126 => u64::from(io.read_u16().await?),
            127 => io.read_u64().await?,
            short => u64::from(short),
        };
        usize::try_from(length).ok().filter(|length| *length <= MAX_PAYLOAD).ok_or(Broken::Peer(TOO_BIG))
    }

    /// Writes the frame, masked where `mask` is given, in one write.
    ///
    /// # Errors
    /// What the socket says.
    pub(super) async fn write(&self, io: &mut (impl AsyncWrite + Unpin), mask: Option<[u8; 4]>) -> io::Result<()> {
        io.write_all(&self.encode(mask)).await?;
        io.flush().await
    }

    fn encode(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut bytes = vec![self.opcode | if self.fin { FIN } else { 0 }];
        let flag = if mask.is_some() { MASKED } else { 0 };
        match self.payload.len() {
            length @ 0..=125 => bytes.push(flag + length as u8),
            length @ 126..=0xffff => {
                bytes.push(flag + 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(flag + 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(mask.unwrap_or_default().iter().filter(|_| mask.is_some()));
        let body = bytes.len();
        bytes.extend(&self.payload);
        apply(mask.unwrap_or_default(), &mut bytes[body..]);
        bytes
    }
}

// === impl Broken ===

impl std::convert::From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Broken::Socket
    }
}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`.
pub(super) fn accept(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    base64(context.finish().as_ref())
}

/// Sends every message back as it came, until the client closes, breaks the protocol or says nothing for
/// [`SILENCE`].
pub(super) async fn echo(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    while let Ok(read) = timeout(SILENCE, Frame::read(io, From::Client)).await {
        let reply = match read {
            Err(Broken::Socket) => return,
            Err(Broken::Peer(code)) => Frame::close(code),
            Ok(frame) if frame.opcode == PING => Frame { opcode: PONG, ..frame },
            Ok(frame) if frame.opcode == PONG => continue,
            Ok(frame) if frame.opcode > CLOSE => Frame::close(PROTOCOL_ERROR),
            Ok(frame) => frame,
        };
        let last = reply.opcode == CLOSE;
        if reply.write(io, None).await.is_err() || last {
            return;
        }
    }
}

/// Base64 with padding (RFC 4648, section 4).
pub(super) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let sextet = (bits >> (18 - 6 * place)) & 0x3f;
            text.push(if place <= group.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}

fn apply(mask: [u8; 4], payload: &mut [u8]) {
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// The opcode of a text message.
pub(super) const TEXT: u8 = 0x1;
/// The opcode of a close; it and those above are control frames.
pub(super) const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
/// A larger frame is answered by a close with 1009.
const MAX_PAYLOAD: usize = 64 * 1024;
/// RFC 6455, section 5.5.
const MAX_CONTROL: usize = 125;
/// A tunnel in which the client says nothing for so long is closed.
const SILENCE: Duration = Duration::from_mins(5);
/// A normal end.
pub(super) const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
const TOO_BIG: u16 = 1009;
/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    async fn exchange(sent: &[u8]) -> Vec<u8> {
        let (mut ours, mut theirs) = tokio::io::duplex(256 * 1024);
        ours.write_all(sent).await.expect("the pipe holds it");
        ours.shutdown().await.expect("the pipe closes");
        echo(&mut theirs).await;
        drop(theirs);
        let mut got = Vec::new();
        ours.read_to_end(&mut got).await.expect("the pipe ends");
        got
    }

    #[test]
    fn the_example_key_of_the_rfc_gets_the_answer_of_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn base64_pads_to_groups_of_four() {
        let coded: Vec<_> = ["", "f", "fo", "foo", "foob"].iter().map(|text| base64(text.as_bytes())).collect();
        assert_eq!(coded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }

    #[test]
    fn the_masked_hello_of_the_rfc_is_encoded_byte_for_byte() {
        let bytes = Frame::text("Hello").encode(Some(MASK));
        assert_eq!(bytes, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[tokio::test]
    async fn a_ping_gets_a_pong_a_message_its_echo_and_a_close_ends_it() {
        let mut sent = Frame { fin: true, opcode: PING, payload: b"hi".to_vec() }.encode(Some(MASK));
        sent.extend(Frame::text("Hello").encode(Some(MASK)));
        sent.extend(Frame::close(NORMAL).encode(Some(MASK)));
        sent.extend(Frame::text("too late").encode(Some(MASK)));
        let expected = [&[0x8a, 2][..], b"hi", &[0x81, 5], b"Hello", &[0x88, 2, 0x03, 0xe8]].concat();
        assert_eq!(exchange(&sent).await, expected);
    }

    #[tokio::test]
    async fn a_payload_of_each_length_form_comes_back_whole() {
        for length in [0, 125, 126, 65535, 65536] {
            let frame = Frame { fin: true, opcode: 2, payload: vec![7; length] };
            assert_eq!(exchange(&frame.encode(Some(MASK))).await, frame.encode(None), "length {length}");
        }
    }

    #[tokio::test]
    async fn a_frame_over_the_bound_is_refused_before_its_payload_is_read() {
        let head = [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1];
        assert_eq!(exchange(&head).await, Frame::close(TOO_BIG).encode(None));
    }

    #[tokio::test]
    async fn an_unmasked_frame_a_reserved_bit_and_a_split_ping_are_protocol_errors() {
        for bytes in [&[0x81, 0x01, b'a'][..], &[0xc1, 0x80, 0, 0, 0, 0], &[0x09, 0x80, 0, 0, 0, 0]] {
            assert_eq!(exchange(bytes).await, Frame::close(PROTOCOL_ERROR).encode(None), "{bytes:?}");
        }
    }
}
