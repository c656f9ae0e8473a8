//! What a shared cache makes of heads: whatever they say, it is kept or not, fresh or not, and never both.
//!
//! Input: eight bytes of the seconds since 1970, one of a status, then the fields of a request, of its answer, and of a later
//! answer about that, each as lines `name: value` up to an empty line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::clock;
use sluice::http1::fields::Fields;
use sluice::policy::freshness::ranges::{Portion, portion};
use sluice::policy::freshness::validators::{conditions, is_not_modified, selected, updated};
use sluice::policy::freshness::{Asked, Rules, Terms, Times, Use, invalidation};
use sluice::instant::Instant;
use std::time::{Duration, SystemTime};

fuzz_target!(|input: &[u8]| {
    let Some((seconds, rest)) = input.split_first_chunk::<8>() else { return };
    let Some((&status, lines)) = rest.split_first() else { return };
    // Until the year 36812; a system's clock is not beyond.
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from_be_bytes(*seconds) >> 24);
    let mut heads = lines.split(|byte| *byte == b'\n').peekable();
    let [request, reply, update] = [(); 3].map(|()| fields(&mut heads));
    let start = clock::now();
    let times = Times { requested: start, received: start + Duration::from_millis(u64::from(status) * 7), wall };
    let status = STATUSES[usize::from(status) % STATUSES.len()];
    let asked = Asked::read("GET", &request);
    for rules in [NOTHING, EVERYTHING] {
        let read = Terms::read((&asked, &request), false, (status, &reply), &rules, times);
        assert_eq!(read, Terms::read((&asked, &request), false, (status, &reply), &rules, times), "read otherwise");
        if says(&reply, b"private") || (says(&reply, b"no-store") && !says(&reply, b"must-understand")) {
            assert!(read.is_err(), "what must not be kept is");
        }
        let Ok(terms) = read else { continue };
        judge_time(&terms, times.received);
        judge_fields(&terms, &request, &reply);
        judge_ranges(&terms, &asked, &request, status, wall);
        judge_update(&terms, &reply, &update, wall);
    }
    for target in invalidation::also(&reply, "http", "a.example", "/a/b") {
        assert!(target.starts_with('/') && !target.split(['?']).next().unwrap_or("").contains("/../"), "{target}");
    }
});

/// Fields up to an empty line.
fn fields<'l>(lines: &mut impl Iterator<Item = &'l [u8]>) -> Fields {
    let mut fields = Fields::default();
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some(colon) = line.iter().position(|byte| *byte == b':') {
            fields.push(&line[..colon], line[colon + 1..].trim_ascii());
        }
    }
    fields
}

/// Whether the only `Cache-Control` there is says this plainly, and nothing more specific takes its place.
fn says(reply: &Fields, directive: &[u8]) -> bool {
    let plain = |value: &[u8]| !value.iter().any(|byte| b"\"\\=".contains(byte));
    let has = |value: &[u8]| value.split(|byte| *byte == b',').any(|part| part.trim_ascii() == directive);
    let mut lines = reply.named(b"cache-control");
    let line = lines.next().filter(|_| lines.next().is_none());
    reply.named(b"cdn-cache-control").next().is_none() && line.is_some_and(|line| plain(line) && has(line))
}

fn judge_time(terms: &Terms, received: Instant) {
    let plain = Asked::read("GET", &Fields::default());
    let mut before = (Duration::ZERO, true);
    for after in [0, 1, 59, 3600, 86_400, 1 << 31].map(Duration::from_secs) {
        let now = received + after;
        let age = terms.age(now);
        assert!(age >= before.0 && age >= after, "it grows younger");
        let used = terms.decide(&plain, now);
        let is_fresh = used == Use::Fresh;
        assert!(before.1 || !is_fresh, "it is fresh again");
        assert!(!is_fresh || age < terms.lifetime(), "fresh beyond its lifetime");
        assert_eq!(terms.expired_for(now).is_some(), age >= terms.lifetime());
        if terms.forbids_stale() {
            assert!(!matches!(used, Use::Stale | Use::StaleWhileRevalidate), "stale against the origin's word");
        }
        before = (age, is_fresh);
    }
}

fn judge_fields(terms: &Terms, request: &Fields, reply: &Fields) {
    assert!(terms.vary.matches(request), "it was not chosen for its own request");
    let (kept, own) = (terms.kept(reply), terms.withheld(reply));
    assert!(kept.len() + own.len() <= reply.len());
    for (_, name, _) in own.iter() {
        assert!(kept.named(name).next().is_none(), "kept and withheld");
    }
    for name in [&b"connection"[..], b"transfer-encoding", b"proxy-authorization", b"age"] {
        assert!(kept.named(name).next().is_none() && own.named(name).next().is_none());
    }
}

fn judge_ranges(terms: &Terms, asked: &Asked, request: &Fields, status: u16, wall: SystemTime) {
    for len in [None, Some(0), Some(1), Some(10), Some(u64::MAX)] {
        let of = terms.part.as_ref().map(|part| part.of).or(len);
        let Some(Portion::Ranges(ranges)) = portion(asked, request, (status, terms), len, wall) else { continue };
        assert!(!ranges.is_empty());
        for (place, range) in ranges.iter().enumerate() {
            assert!(range.start < range.end && of.is_some_and(|of| range.end <= of), "{range:?} of {of:?}");
            let apart = |other: &std::ops::Range<u64>| other.end <= range.start || range.end <= other.start;
            assert!(ranges[..place].iter().all(apart), "they overlap");
        }
    }
    let _: bool = is_not_modified(asked, request, status, terms, wall);
}

fn judge_update(terms: &Terms, reply: &Fields, update: &Fields, wall: SystemTime) {
    for place in selected(&[terms, terms], update, wall) {
        assert!(place < 2);
    }
    let kept = terms.kept(reply);
    for (name, value) in conditions(&[(terms, &kept)]) {
        assert!([&b"if-none-match"[..], b"if-modified-since"].contains(&name) && !value.contains(&b'\n'));
    }
    let new = updated(&kept, update);
    for name in [&b"content-length"[..], b"content-encoding", b"content-range"] {
        assert!(new.named(name).eq(kept.named(name)), "what describes the body was changed");
    }
    for (_, name, value) in update.iter() {
        let is_of_the_body = [&b"content-length"[..], b"content-encoding", b"content-range", b"transfer-encoding"]
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other));
        assert!(is_of_the_body || new.named(name).any(|other| other == value), "an update is lost");
    }
}

const STATUSES: [u16; 8] = [200, 204, 206, 301, 304, 404, 503, 599];
const NOTHING: Rules = Rules { ttl: None, stale_while_revalidate: Duration::ZERO, stale_if_error: Duration::ZERO };
const EVERYTHING: Rules = Rules {
    ttl: Some(Duration::from_secs(60)),
    stale_while_revalidate: Duration::from_secs(30),
    stale_if_error: Duration::from_secs(3600),
};
