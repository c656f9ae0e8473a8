//! What is kept takes as much memory as it may, and no more, whatever is asked for.

use super::{FRESH, reply};
use crate::bulk::resident;
use crate::world::{BEFORE, Provider, Sluice};
use std::fmt::Write as _;

/// A provider that answers with as many bytes as the path ends with.
fn provider() -> Provider {
    Provider::scripted(|peer| {
        while let Some(request) = peer.request() {
            let path = request.head.line.split(' ').nth(1).unwrap_or_default();
            let len = path.rsplit('/').next().and_then(|len| len.parse().ok()).expect("a length");
            let vary = if len % 3 == 0 { "vary: x-kind\r\n" } else { "" };
            peer.wire.send(reply("200 OK", &format!("{FRESH}{vary}etag: \"{len}\"\r\n"), &"x".repeat(len)));
        }
    })
}

#[test]
fn random_keys_without_end_take_no_more_than_the_bound() {
    let alpha = provider();
    let yaml = BEFORE.replace("{listener}", "").replace("{provider}", "").replace("{route}", ", cache: {}");
    let yaml = format!("{yaml}\nmemory: {{ cache: {BOUND} }}\n");
    let sluice = Sluice::spawn(&yaml, &[("alpha", alpha.address())]);
    let mut client = sluice.connect();
    let mut random = fastrand::Rng::with_seed(9111);
    let (mut full, mut most) = (0, 0.0_f64);
    for batch in 0..batches() {
        let lengths: Vec<usize> = (0..BATCH).map(|_| random.usize(0..2 * TYPICAL)).collect();
        let mut sent = String::new();
        for len in &lengths {
            let (path, kind) = (random.u64(..), random.u8(..));
            let _ = write!(sent, "GET /{path:x}/{len} HTTP/1.1\r\nhost: a\r\nx-kind: {kind}\r\n\r\n");
        }
        client.send(sent);
        for len in &lengths {
            assert_eq!(client.answer().body.len(), *len);
        }
        let bytes = sluice.metric("sluice_cache_bytes", &[]);
        most = most.max(bytes);
        assert!(bytes <= f64::from(BOUND), "{bytes} after {batch} batches");
        // By now it has taken what it may, and what it needs beside.
        if (batch + 1) * BATCH * TYPICAL <= 2 * BOUND as usize {
            full = resident(sluice.pid());
        }
    }
    assert!(most > 0.7 * f64::from(BOUND), "only {most} bytes were used");
    let grown = resident(sluice.pid()).saturating_sub(full);
    assert!(grown < u64::from(BOUND), "it grew by {} KiB over {} KiB", grown >> 10, full >> 10);
}

/// As many as `SLUICE_CACHE_BATCHES` says, of [`BATCH`] requests each: a machine with time may take more.
fn batches() -> usize {
    let told = std::env::var("SLUICE_CACHE_BATCHES").ok();
    told.map_or(100, |number| number.parse().expect("SLUICE_CACHE_BATCHES is a number"))
}

/// Requests that are sent together.
const BATCH: usize = 100;

/// Bytes of a body, on average.
const TYPICAL: usize = 4 << 10;

/// `memory.cache`, in bytes.
const BOUND: u32 = 8 << 20;
