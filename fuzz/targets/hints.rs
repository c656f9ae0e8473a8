//! Hints to wait: whatever a provider writes is a wait or none, and a cooldown made of them never shortens.
//!
//! Input: eight bytes of the seconds since 1970, then lines `name: value`, as in the head of an answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::clock;
use sluice::policy::cooldown::{Cooldown, hint};
use std::time::{Duration, SystemTime};

fuzz_target!(|input: &[u8]| {
    let Some((seconds, lines)) = input.split_first_chunk::<8>() else { return };
    // Until the year 36812; a system's clock is not beyond.
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from_be_bytes(*seconds) >> 24);
    let fields: Vec<(&[u8], &[u8])> = lines
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((&line[..colon], &line[colon + 1..]))
        })
        .collect();
    let field = |name: &[u8]| fields.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
    let asks_for_a_wait = |name: &[u8]| if name.starts_with(b"retry-after") { field(name) } else { None };
    for status in [200, 404, 428, 430, 502, 504] {
        assert_eq!(hint(status, field, wall), None, "a hint with {status}");
    }
    let (limited, busy) = (hint(429, field, wall), hint(503, field, wall));
    assert_eq!(limited, hint(429, field, wall), "another wait the second time");
    assert_eq!(busy, hint(503, asks_for_a_wait, wall), "a limit's reset is no news to a 503");
    if busy.is_some() {
        assert_eq!(limited, busy, "who asks for a wait is heard first");
    }
    judge_cooldown(&[limited, busy, None]);
});

fn judge_cooldown(hints: &[Option<Duration>]) {
    let start = clock::now();
    let cooldown = Cooldown::new(start);
    let mut until = start;
    for (hint, now) in hints.iter().zip([start, start + MAX / 2, start + MAX]) {
        let next = cooldown.rejected(*hint, MAX, now);
        assert!(next >= until, "shorter than before");
        assert!(next <= until.max(now + MAX), "beyond its cap");
        until = next;
    }
}

const MAX: Duration = Duration::from_secs(300);
