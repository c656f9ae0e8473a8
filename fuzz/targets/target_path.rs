//! Request-targets, paths and hosts: what is accepted has one spelling, and that spelling is accepted again as itself.
//!
//! Input: a request-target, and after a newline a Host.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::http1::target::{self, Form, is_path_byte, is_query_byte};
use sluice::proxy::path::normalise;

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (written, rest) = input.split_at(end);
    let host = rest.get(1..).unwrap_or_default();
    for method in ["GET", "OPTIONS", "CONNECT"] {
        judge_target(method, written, host);
    }
    judge_host(host);
    if let Ok(text) = str::from_utf8(written) {
        judge_path(text);
    }
});

fn judge_target(method: &str, written: &[u8], host: &[u8]) {
    let Ok(found) = target::parse(method, written) else { return };
    assert_eq!(found.form == Form::Authority, method == "CONNECT");
    if let Some(query) = found.query {
        assert!(query.bytes().all(is_query_byte));
    }
    if let Some(authority) = found.authority {
        judge_host(authority.as_bytes());
    }
    if let Ok(host) = target::host(host) {
        let _ = found.agrees(&host);
    }
    if found.path != "*" && found.form != Form::Authority {
        assert!(found.path.starts_with('/') && found.path.bytes().all(is_path_byte));
        judge_path(found.path);
    }
}

fn judge_host(written: &[u8]) {
    let Ok(found) = target::host(written) else { return };
    assert!(found.host.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
    let again = target::host(found.host.as_bytes()).expect("a host we spelled is a host");
    assert_eq!((&again.host, again.port), (&found.host, None));
}

fn judge_path(written: &str) {
    let (mut first, mut second) = (String::new(), String::from("left over"));
    let Ok(once) = normalise(written, &mut first) else { return };
    assert_eq!(normalise(once, &mut second), Ok(once), "twice is not once");
    assert!(once.starts_with('/') && !once.contains("//") && once.bytes().all(is_path_byte));
    assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
    assert!(!once.contains("%2E") && !once.contains("%00"));
}
