//! PROXY headers: judged the same however many bytes have come, never beyond their bound, and what is announced is read
//! back once it is written by us.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::net::proxy_header::{self, Announce, Announced, HEADER_MAX};

fuzz_target!(|bytes: &[u8]| {
    let whole = proxy_header::parse(bytes);
    let mut first = None;
    for len in 0..=bytes.len().min(HEADER_MAX) {
        let found = proxy_header::parse(&bytes[..len]);
        if found != Ok(None) {
            if let Ok(Some((_, end))) = found {
                assert_eq!(end, len, "known later than with its last byte");
            }
            first = Some(found);
            break;
        }
    }
    match first {
        Some(first) => assert_eq!(first, whole, "judged otherwise with more bytes"),
        None => assert!(bytes.len() < HEADER_MAX, "no judgement within the bound"),
    }
    let Ok(Some((Announced::Client { client, local }, _))) = whole else { return };
    for write in [proxy_header::write_v1, proxy_header::write_v2] {
        let mut out = Vec::new();
        write(&mut out, &Announce { client: Some(client), local: Some(local) });
        let Ok(Some((Announced::Client { client: again, local: at }, len))) = proxy_header::parse(&out) else {
            panic!("we write what we do not read: {out:?}");
        };
        assert_eq!(len, out.len());
        let canonical = |address: std::net::SocketAddr| (address.ip().to_canonical(), address.port());
        assert_eq!((canonical(again), canonical(at)), (canonical(client), canonical(local)));
    }
});
