//! ◇ The PROXY protocol's header, versions 1 and 2: what a balancer says first of the connection it passes on.
//!
//! Read strictly, because an address that everyone behind us believes comes from it: one spelling for each thing, nothing
//! longer than the protocol allows, and a checksum that is there has to be right. The source is HAProxy's
//! `doc/proxy-protocol.txt`, whose sections are named below.
//!
//! The crate `proxy-header` does not do: it takes any byte after `PROXY`, signs before ports, lines beyond 107 bytes and
//! wrong checksums. It is what the tests compare with.
//!
//! Bytes in, meaning out: nothing here reads a socket. While [`parse`] wants more, every byte it was shown belongs to the
//! header, so a reader may take them from the socket and never takes one too many.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// The sender speaks for itself, as in its health checks (`LOCAL`).
    Sender,
    /// It passes on a client that it cannot name (`UNKNOWN`, an unspecified family, a unix socket on its machine).
    Unknown,
    /// It passes on this client.
    Client {
        /// Where the client connected from.
        client: SocketAddr,
        /// Where the client connected to.
        local: SocketAddr,
    },
}

/// What we say of a client's connection to those behind us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Announce {
    /// Where the client connected from; `None` where that has no address.
    pub client: Option<SocketAddr>,
    /// Where it connected to.
    pub local: Option<SocketAddr>,
}

/// Why bytes are no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// The header at the beginning of `bytes` and its length; `None` while it may be one and is not complete.
///
/// # Errors
/// [`Malformed`], as soon as no further bytes could make it a header.
pub fn parse(bytes: &[u8]) -> Result<Option<(Announced, usize)>, Malformed> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => parse_v1(bytes),
        Some(_) => parse_v2(bytes),
    }
}

/// Appends a header of version 1 (§2.1).
pub fn write_v1(out: &mut Vec<u8>, announce: &Announce) {
    let line = match announce.pair() {
        None => "PROXY UNKNOWN\r\n".to_owned(),
        Some((client, local)) => {
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", client.ip(), local.ip(), client.port(), local.port())
        }
    };
    out.extend_from_slice(line.as_bytes());
}

/// Appends a header of version 2 (§2.2), without extensions.
pub fn write_v2(out: &mut Vec<u8>, announce: &Announce) {
    out.extend_from_slice(SIGNATURE);
    out.push(VERSION_2 | PROXY);
    let Some((client, local)) = announce.pair() else {
        return out.extend_from_slice(&[UNSPECIFIED, 0, 0]);
    };
    match (client.ip(), local.ip()) {
        (IpAddr::V4(client), IpAddr::V4(local)) => {
            out.extend_from_slice(&[INET | STREAM, 0, INET_BYTES as u8]);
            out.extend_from_slice(&client.octets());
            out.extend_from_slice(&local.octets());
        }
        (client, local) => {
            out.extend_from_slice(&[INET6 | STREAM, 0, INET6_BYTES as u8]);
            out.extend_from_slice(&widened(client).octets());
            out.extend_from_slice(&widened(local).octets());
        }
    }
    out.extend_from_slice(&client.port().to_be_bytes());
    out.extend_from_slice(&local.port().to_be_bytes());
}

// === impl Announce ===

impl Announce {
    /// For a connection that is on nobody's behalf that could be named.
    pub const NOBODY: Announce = Announce { client: None, local: None };

    /// Both addresses in one family, which is all that a header can say; a mixed pair becomes IPv6.
    fn pair(&self) -> Option<(SocketAddr, SocketAddr)> {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let (client, local) = (canonical(self.client?), canonical(self.local?));
        let wide = |address: SocketAddr| SocketAddr::new(widened(address.ip()).into(), address.port());
        Some(if client.is_ipv4() == local.is_ipv4() { (client, local) } else { (wide(client), wide(local)) })
    }
}

fn widened(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Version 1 (§2.1): a line of text.
fn parse_v1(bytes: &[u8]) -> Result<Option<(Announced, usize)>, Malformed> {
    if !agree(bytes, b"PROXY ") {
        return Err(NO_HEADER);
    }
    let shown = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = memchr::memchr2(b'\r', b'\n', shown) else {
        return if shown.len() < V1_MAX { Ok(None) } else { Err(V1_TOO_LONG) };
    };
    match shown.get(end..(end + 2).min(shown.len())) {
        Some(b"\r\n") => {}
        Some(b"\r") if shown.len() < V1_MAX => return Ok(None),
        Some(b"\r") => return Err(V1_TOO_LONG),
        _ => return Err(Malformed("a line of PROXY version 1 ends with CR LF and has neither before")),
    }
    let line = shown[..end].strip_prefix(b"PROXY ").ok_or(NO_HEADER)?;
    Ok(Some((parse_line(line)?, end + 2)))
}

/// What stands between `PROXY ` and the end of the line.
fn parse_line(line: &[u8]) -> Result<Announced, Malformed> {
    // What follows UNKNOWN has to be ignored, whatever it is.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(Announced::Unknown);
    }
    let text = std::str::from_utf8(line).map_err(|_| V1_WORDS)?;
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or(V1_WORDS);
    let (family, client, local) = (word()?, word()?, word()?);
    let (client_port, local_port) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(V1_WORDS);
    }
    let (client, local) = match family {
        "TCP4" => (address::<Ipv4Addr>(client)?, address::<Ipv4Addr>(local)?),
        "TCP6" => (address::<Ipv6Addr>(client)?, address::<Ipv6Addr>(local)?),
        _ => return Err(Malformed("the family of PROXY version 1 is TCP4, TCP6 or UNKNOWN")),
    };
    Ok(Announced::Client { client: SocketAddr::new(client, client_port), local: SocketAddr::new(local, local_port) })
}

fn address<Ip: std::str::FromStr + Into<IpAddr>>(text: &str) -> Result<IpAddr, Malformed> {
    let parsed = text.parse::<Ip>().map_err(|_| Malformed("an address in the PROXY header is none of its family"))?;
    Ok(parsed.into())
}

/// A port has one spelling: digits, no sign, no zero in front.
fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text == "0" || text.starts_with(|first: char| ('1'..='9').contains(&first));
    let parsed = if plain { text.parse().ok() } else { None };
    parsed.ok_or(Malformed("a port in the PROXY header is no number from 0 to 65535"))
}

/// Version 2 (§2.2): 16 bytes, then as many as they say: addresses, then extensions.
fn parse_v2(bytes: &[u8]) -> Result<Option<(Announced, usize)>, Malformed> {
    if !agree(bytes, SIGNATURE) {
        return Err(NO_HEADER);
    }
    let Some(fixed) = bytes.first_chunk::<V2_FIXED>() else { return Ok(None) };
    let &[.., command, family, high, low] = fixed;
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if command & 0xf0 != VERSION_2 || command & 0x0f > PROXY {
        return Err(Malformed("the PROXY header is of no known version or command"));
    }
    if rest > V2_REST_MAX {
        return Err(Malformed("the PROXY header is longer than 2 KiB"));
    }
    let len = V2_FIXED + rest;
    let Some(header) = bytes.get(..len) else { return Ok(None) };
    if command & 0x0f == LOCAL {
        // The rest is to be discarded unseen, its family included.
        return Ok(Some((Announced::Sender, len)));
    }
    let (announced, addresses) = parse_addresses(family, &header[V2_FIXED..])?;
    check_extensions(header, V2_FIXED + addresses)?;
    Ok(Some((announced, len)))
}

/// What the addresses say, and how many bytes they take. Datagrams are taken as well: a balancer that speaks QUIC to its
/// clients announces them so over TCP.
fn parse_addresses(family: u8, rest: &[u8]) -> Result<(Announced, usize), Malformed> {
    let len = match (family & 0xf0, family & 0x0f) {
        (UNSPECIFIED, 0) => return Ok((Announced::Unknown, 0)),
        (INET, STREAM | DATAGRAM) => INET_BYTES,
        (INET6, STREAM | DATAGRAM) => INET6_BYTES,
        (UNIX, STREAM | DATAGRAM) => UNIX_BYTES,
        _ => return Err(Malformed("the PROXY header is for no known family of addresses")),
    };
    let block = rest.get(..len).ok_or(Malformed("the PROXY header is too short for its addresses"))?;
    let announced = match family & 0xf0 {
        INET => pair(block, |ip: [u8; 4]| Ipv4Addr::from(ip).into()),
        INET6 => pair(block, |ip: [u8; 16]| Ipv6Addr::from(ip).into()),
        // Paths on another machine mean nothing on this one.
        _ => Some(Announced::Unknown),
    };
    // The block has the length that the family takes, so there is a pair in it.
    Ok((announced.unwrap_or(Announced::Unknown), len))
}

/// Two addresses, then their ports.
fn pair<const N: usize>(block: &[u8], ip: fn([u8; N]) -> IpAddr) -> Option<Announced> {
    let (client, block) = block.split_first_chunk::<N>()?;
    let (local, block) = block.split_first_chunk::<N>()?;
    let (client_port, block) = block.split_first_chunk::<2>()?;
    let (local_port, _) = block.split_first_chunk::<2>()?;
    let address = |bytes: [u8; N], port: [u8; 2]| SocketAddr::new(ip(bytes), u16::from_be_bytes(port));
    Some(Announced::Client { client: address(*client, *client_port), local: address(*local, *local_port) })
}

/// Extensions (§2.2.1 and after): each has its length; one may be a checksum of the whole header; the others are nothing
/// we need.
fn check_extensions(header: &[u8], mut at: usize) -> Result<(), Malformed> {
    let mut checksum = None;
    while at < header.len() {
        let &[kind, high, low] = header[at..].first_chunk::<3>().ok_or(EXTENSION)?;
        let value = at + 3;
        let end = value + usize::from(u16::from_be_bytes([high, low]));
        let bytes = header.get(value..end).ok_or(EXTENSION)?;
        if kind == CHECKSUM {
            let sum = bytes.try_into().map(u32::from_be_bytes).map_err(|_| WRONG_CHECKSUM)?;
            if checksum.replace((value, sum)).is_some() {
                return Err(WRONG_CHECKSUM);
            }
        }
        at = end;
    }
    match checksum {
        Some((at, sum)) if crc32c(&[&header[..at], &[0; 4], &header[at + 4..]]) != sum => Err(WRONG_CHECKSUM),
        _ => Ok(()),
    }
}

/// CRC-32C (RFC 4960, appendix B), reflected.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let step = |sum: u32, byte: &u8| CRC[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ (sum >> 8);
    !parts.iter().copied().flatten().fold(u32::MAX, step)
}

/// Whether `bytes` may be the beginning of something that begins with `expected`.
fn agree(bytes: &[u8], expected: &[u8]) -> bool {
    bytes.iter().zip(expected).all(|(byte, expected)| byte == expected)
}

/// Bytes of the longest header there is.
pub const HEADER_MAX: usize = V2_FIXED + V2_REST_MAX;

/// Bytes of a line of version 1, its end included (§2.1).
const V1_MAX: usize = 107;

/// Bytes that every header of version 2 begins with.
const V2_FIXED: usize = 16;

/// Bytes after them: 216 are the longest addresses, the rest is for extensions. The field could say 64 KiB; what balancers
/// add (a host name, a TLS session's properties, a name of an endpoint) takes hundreds.
const V2_REST_MAX: usize = 2048;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2: u8 = 0x20;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const UNSPECIFIED: u8 = 0;
const INET: u8 = 0x10;
const INET6: u8 = 0x20;
const UNIX: u8 = 0x30;
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;
const INET_BYTES: usize = 12;
const INET6_BYTES: usize = 36;
const UNIX_BYTES: usize = 216;
const CHECKSUM: u8 = 3;

const NO_HEADER: Malformed = Malformed("the connection does not begin with a PROXY header");
const V1_TOO_LONG: Malformed = Malformed("a line of PROXY version 1 has at most 107 bytes");
const V1_WORDS: Malformed =
    Malformed("PROXY version 1 is a family, two addresses and two ports, one blank between them");
const EXTENSION: Malformed = Malformed("an extension is longer than the PROXY header that holds it");
const WRONG_CHECKSUM: Malformed = Malformed("the PROXY header's checksum is wrong");

/// The remainders of every byte.
const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            remainder = (remainder >> 1) ^ (0x82f6_3b78 * (remainder & 1));
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests;
