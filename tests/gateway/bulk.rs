//! Bodies of five gibibytes, each way, through the real binary, in memory that does not grow with them.
//!
//! Every block of a body begins with its own number, so that a piece that was lost, repeated or moved shows; the bytes
//! between are zeros, so that the test costs less than what it tests.

use crate::world::{BEFORE, Provider, Sluice, Wire};
use std::fs;

/// Memory of the binary, sampled while a body passes.
struct Memory {
    pid: u32,
    before: u64,
    highest: u64,
}

// === impl Memory ===

impl Memory {
    fn of(sluice: &Sluice) -> Self {
        let before = resident(sluice.pid());
        Memory { pid: sluice.pid(), before, highest: before }
    }

    fn sample(&mut self) {
        self.highest = self.highest.max(resident(self.pid));
    }

    fn has_hardly_grown(&self) {
        let grown = self.highest - self.before;
        assert!(grown < GROWTH_MAX, "it grew by {} KiB over {} KiB", grown >> 10, self.before >> 10);
    }
}

/// Resident bytes of a process.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has memory");
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kibibytes << 10
}

/// Sends a body of `blocks` blocks, in chunks of one block where `chunked`.
fn send_body(wire: &mut Wire, blocks: u64, chunked: bool, mut each: impl FnMut()) {
    let (before, after): (&[u8], &[u8]) = if chunked { (b"100000\r\n", b"\r\n") } else { (b"", b"") };
    assert_eq!(BLOCK, 0x0010_0000, "the size that the chunks say");
    let mut piece = [before, &vec![0; BLOCK], after].concat();
    for number in 0..blocks {
        piece[before.len()..before.len() + 8].copy_from_slice(&number.to_be_bytes());
        wire.send(&piece);
        each();
    }
    if chunked {
        wire.send("0\r\n\r\n");
    }
}

/// Reads a body of known length; whether every block was in its place is checked on the way.
fn read_body(wire: &mut Wire, blocks: u64, mut each: impl FnMut()) {
    let mut buffer = vec![0; BLOCK];
    for number in 0..blocks {
        wire.take_into(&mut buffer);
        assert_eq!(buffer[..8], number.to_be_bytes(), "a block is out of place");
        assert!(buffer[BLOCK - 8..] == [0; 8], "a block has something else at its end");
        each();
    }
}

/// A provider that takes a body and says how many blocks it had, or sends one.
fn provider(blocks: u64) -> Provider {
    Provider::scripted(move |peer| {
        while peer.wire.begins() {
            let head = peer.wire.head();
            if head.line.starts_with("PUT") {
                read_body(&mut peer.wire, blocks, || {});
                peer.answer("200 OK", "taken");
            } else if head.line.contains("/chunks") {
                peer.wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
                send_body(&mut peer.wire, blocks / 5, true, || {});
            } else {
                let length = blocks * BLOCK as u64;
                peer.wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"));
                send_body(&mut peer.wire, blocks, false, || {});
            }
        }
    })
}

#[test]
fn five_gibibytes_pass_each_way_in_constant_memory() {
    let blocks = gibibytes() << 10;
    let alpha = provider(blocks);
    let limits = BEFORE.replace("{listener}", ", limits: { body_bytes: 8GiB }");
    let sluice = Sluice::spawn(&limits, &[("alpha", alpha.address())]);
    let length = blocks * BLOCK as u64;
    let mut client = sluice.connect();
    let mut memory = Memory::of(&sluice);

    client.send(format!("PUT /up HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"));
    send_body(&mut client, blocks, false, || memory.sample());
    assert_eq!(client.answer().text(), "taken");

    client.send("GET /down HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.head().value("content-length"), Some(length.to_string().as_str()));
    read_body(&mut client, blocks, || memory.sample());

    // What comes in chunks goes to a client of HTTP/1.0 without them.
    client.send("GET /chunks HTTP/1.0\r\n\r\n");
    assert_eq!(client.head().value("transfer-encoding"), None);
    read_body(&mut client, blocks / 5, || memory.sample());
    client.closes();
    memory.has_hardly_grown();
}

/// As large as `SLUICE_BULK_GIB` says: a slow machine may take less.
fn gibibytes() -> u64 {
    std::env::var("SLUICE_BULK_GIB").ok().map_or(5, |number| number.parse().expect("SLUICE_BULK_GIB is a number"))
}

/// Bytes of a block.
const BLOCK: usize = 1 << 20;

/// How much more memory a body may take, however large it is.
const GROWTH_MAX: u64 = 16 << 20;
