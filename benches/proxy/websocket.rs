//! As much of WebSocket (RFC 6455) as an echo of small messages takes; both ends are ours.

use std::io;

/// The client's fields of the handshake, with the key that the RFC has as its example.
pub(crate) const ASKS: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The server's whole answer to that.
pub(crate) const AGREES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A message of at most [`LONGEST`] bytes as a client sends it: masked.
pub(crate) fn question(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![BINARY, MASKED | payload.len() as u8];
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The same as a server sends it.
pub(crate) fn answer(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![BINARY, payload.len() as u8];
    frame.extend(payload);
    frame
}

/// The payload of the frame that `buffer` begins with, and how many bytes it takes; `None` while it is not whole.
pub(crate) fn read(buffer: &[u8]) -> io::Result<Option<(Vec<u8>, usize)>> {
    let [first, second, ..] = *buffer else { return Ok(None) };
    let length = usize::from(second & !MASKED);
    if first != BINARY || length > LONGEST {
        return Err(io::Error::other(format!("a frame begins with {first:#x} {second:#x}")));
    }
    let head = if second & MASKED == 0 { 2 } else { 6 };
    let Some(payload) = buffer.get(head..head + length) else { return Ok(None) };
    let mask = if head == 6 { &buffer[2..6] } else { &[0][..] };
    Ok(Some((payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect(), head + length)))
}

/// The last frame of a binary message.
const BINARY: u8 = 0x82;

/// Set beside the length where a mask follows.
const MASKED: u8 = 0x80;

/// Longer messages have their length written in another way.
const LONGEST: usize = 125;

/// Any mask is as good as another between two ends that trust each other.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
