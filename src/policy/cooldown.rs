//! How long a provider wants to be left alone, and until when it is.
//!
//! Providers say it in many dialects. Two kinds are told apart: fields that ask for a wait (`Retry-After`,
//! `retry-after-ms`), which are heard with a 429 and a 503, and fields that tell when a limit is reset (`RateLimit`,
//! `x-ratelimit-reset` and their kin), which supply the wait of a 429 only: on other answers they come as news. Where several
//! limits are told, the wait is for the last of those that are used up; where none is, for the first of all.
//!
//! A number is read by its magnitude: nobody asks for a wait of thirty years, so from a thousand million on it is a date, in
//! seconds or in milliseconds since 1970. Nothing that a provider writes can do more than set a wait, and every wait is capped
//! by the caller (`limits.max_cooldown`).

use crate::instant::Instant;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Until when one provider is left alone. It never shortens.
///
/// Without a hint the wait is a second, and doubles to a minute each time the provider rejects again once it is over, until
/// it succeeds. What is rejected or succeeds meanwhile was sent before, and says nothing new: a hundred requests that are
/// rejected together are one rejection.
#[derive(Debug)]
pub struct Cooldown {
    base: Instant,
    /// A [`Phase`], in one word so that threads agree without a lock.
    word: AtomicU64,
}

/// What a [`Cooldown`] knows.
#[derive(Clone, Copy)]
struct Phase {
    /// Microseconds since the base, at most [`UNTIL_MAX`]; 0 before the first.
    until: u64,
    /// Rejections since the last success, as far as they matter.
    streak: u32,
}

/// Limits that were told, and when they are reset.
#[derive(Default)]
struct Resets {
    /// The longest wait for one that is used up, or may be.
    used_up: Option<Duration>,
    /// The shortest wait for one that is not.
    left: Option<Duration>,
}

// === impl Cooldown ===

impl Cooldown {
    /// None so far. `base` is any instant before those it will be told about.
    #[must_use]
    pub fn new(base: Instant) -> Self {
        Cooldown { base, word: AtomicU64::new(0) }
    }

    /// The provider has rejected an attempt, with what [`hint`] found; until when it is left alone now, which is at most `max`
    /// away unless it was further away already.
    ///
    /// A hint of nothing is none: its clock differs from ours, or a fraction was rounded down; who rejects and means "at
    /// once" would be asked as fast as it can answer.
    pub fn rejected(&self, hint: Option<Duration>, max: Duration, now: Instant) -> Instant {
        let at = self.since_base(now);
        let hint = hint.filter(|hint| !hint.is_zero());
        let step = |word: u64| {
            let phase = Phase::unpack(word);
            let is_over = phase.until <= at;
            let streak = if is_over { (phase.streak + 1).min(STREAK_MAX) } else { phase.streak };
            let wait = match hint {
                Some(hint) => hint.min(max),
                None if is_over => unhinted(streak).min(max),
                None => Duration::ZERO,
            };
            let until = phase.until.max(at.saturating_add(microseconds(wait))).min(UNTIL_MAX);
            Phase { until, streak }.pack()
        };
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let next = step(seen);
            // The word guards nothing but itself, so no ordering with other memory is needed.
            match self.word.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return self.instant(Phase::unpack(next).until),
                Err(other) => seen = other,
            }
        }
    }

    /// An attempt has succeeded.
    pub fn succeeded(&self, now: Instant) {
        let seen = self.word.load(Ordering::Relaxed);
        let phase = Phase::unpack(seen);
        if phase.streak > 0 && phase.until <= self.since_base(now) {
            let next = Phase { streak: 0, ..phase }.pack();
            // Where another thread was faster, its news is the newer one.
            self.word.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
    }

    /// Until when the provider is left alone, if it is.
    #[must_use]
    pub fn until(&self, now: Instant) -> Option<Instant> {
        // As instants: `now` in whole microseconds would be up to one too late.
        let until = self.instant(Phase::unpack(self.word.load(Ordering::Relaxed)).until);
        (until > now).then_some(until)
    }

    fn since_base(&self, now: Instant) -> u64 {
        microseconds(now.saturating_duration_since(self.base))
    }

    fn instant(&self, microseconds: u64) -> Instant {
        self.base + Duration::from_micros(microseconds)
    }
}

// === impl Phase ===

impl Phase {
    fn pack(self) -> u64 {
        self.until << STREAK_BITS | u64::from(self.streak)
    }

    fn unpack(word: u64) -> Self {
        Phase { until: word >> STREAK_BITS, streak: (word & ((1 << STREAK_BITS) - 1)) as u32 }
    }
}

// === impl Resets ===

impl Resets {
    /// One limit: what is left of it, if that is known, and the wait until it is reset.
    fn add(&mut self, remaining: Option<f64>, wait: Option<Duration>) {
        let Some(wait) = wait else { return };
        if remaining.is_some_and(|remaining| remaining > 0.0) {
            self.left = Some(self.left.map_or(wait, |other| other.min(wait)));
        } else {
            self.used_up = self.used_up.max(Some(wait));
        }
    }
}

/// The wait for which a provider asks in an answer with this status, if it does. `field` gives the first value of a field by
/// its name in lower case; `wall` is what time people have.
///
/// A moment that has passed is a wait of nothing; a number too large to be one is a wait beyond any cap.
#[must_use]
pub fn hint<'v>(status: u16, field: impl Fn(&'static [u8]) -> Option<&'v [u8]>, wall: SystemTime) -> Option<Duration> {
    let text = |name: &'static str| str::from_utf8(field(name.as_bytes())?).ok().map(str::trim_ascii);
    if status != 429 && status != 503 {
        return None;
    }
    let asked = text("retry-after-ms")
        .and_then(number)
        .map(|milliseconds| seconds(milliseconds / 1e3))
        .or_else(|| wait(text("retry-after")?, wall));
    if asked.is_some() || status == 503 {
        return asked;
    }
    let mut resets = Resets::default();
    if let Some(limits) = text("ratelimit") {
        read_limits(limits, wall, &mut resets);
    }
    for (remaining, reset) in RESETS {
        let Some(reset) = text(reset) else { continue };
        resets.add(text(remaining).and_then(number), wait(reset, wall));
    }
    resets.used_up.or(resets.left)
}

/// Reads `"policy";r=0;t=30, …` (draft-ietf-httpapi-ratelimit-headers, 08 and later) and `limit=9, remaining=0, reset=30`
/// (before it): a part that is no parameter of interest begins the next limit, if there is one at all.
fn read_limits(value: &str, wall: SystemTime, resets: &mut Resets) {
    let (mut remaining, mut reset) = (None, None);
    let mut is_quoted = false;
    let parts = value.split(|letter: char| {
        is_quoted ^= letter == '"';
        !is_quoted && matches!(letter, ';' | ',')
    });
    for part in parts {
        match part.trim_ascii().split_once('=') {
            Some(("r" | "remaining", value)) => remaining = number(value),
            Some(("t" | "reset", value)) => reset = wait(value, wall),
            Some((name, _)) if !name.starts_with('"') => {}
            _ => resets.add(remaining.take(), reset.take()),
        }
    }
    resets.add(remaining, reset);
}

/// A wait as seconds, as a date (in any form of HTTP, or since 1970), or as a duration like `1m30s`.
fn wait(text: &str, wall: SystemTime) -> Option<Duration> {
    let until = |moment: f64| seconds(moment - since_1970(wall));
    match number(text) {
        Some(milliseconds) if milliseconds >= EPOCH_MS_MIN => Some(until(milliseconds / 1e3)),
        Some(moment) if moment >= EPOCH_MIN => Some(until(moment)),
        Some(span) => Some(seconds(span)),
        None => duration(text).map(seconds).or_else(|| date(text, wall).map(until)),
    }
}

/// Seconds of `1m30s`, `250ms`, `6m0s`, `1.5s`: numbers with units, one after the other.
fn duration(text: &str) -> Option<f64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let unit_at = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (amount, after) = rest.split_at(unit_at);
        let next_at = after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(next_at);
        total += number(amount)? * UNITS.iter().find(|(name, _)| *name == unit)?.1;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

/// Seconds since 1970 of the three forms of RFC 9110, section 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`,
/// `Sunday, 06-Nov-94 08:49:37 GMT`, `Sun Nov  6 08:49:37 1994`. The day's name is not checked.
fn date(text: &str, wall: SystemTime) -> Option<f64> {
    let mut words = text.split([' ', ',', '-']).filter(|word| !word.is_empty());
    let mut next = || words.next().unwrap_or_default();
    let ([_, day, month, year, time, "GMT", ""] | [_, month, day, time, year, "", ""]) = [(); 7].map(|()| next())
    else {
        return None;
    };
    let (month, _) = (1..).zip(MONTHS).find(|(_, name)| *name == month)?;
    let [hour, minute, second] = *time.split(':').map(|part| digits(part, 2)).collect::<Option<Vec<i16>>>()? else {
        return None;
    };
    let year = if year.len() == 2 { full_year(digits(year, 2)?, wall)? } else { digits(year, 4)? };
    let (day, hour, minute) = (digits(day, 2)? as i8, hour as i8, minute as i8);
    // A leap second is counted as the one before it.
    let date = DateTime::new(year, month, day, hour, minute, second.min(59) as i8, 0).ok()?;
    Some(Offset::UTC.to_timestamp(date).ok()?.as_second() as f64)
}

/// The year that ends in these two digits: of this century, or of the last one if it were more than fifty years ahead.
fn full_year(digits: i16, wall: SystemTime) -> Option<i16> {
    let this = Offset::UTC.to_datetime(Timestamp::try_from(wall).ok()?).year();
    let year = this - this % 100 + digits;
    Some(if year > this + 50 { year - 100 } else { year })
}

/// A number of at most `max` digits and nothing else; at most four.
fn digits(text: &str, max: usize) -> Option<i16> {
    let are_digits = text.len() <= max && text.bytes().all(|byte| byte.is_ascii_digit());
    if are_digits { text.parse().ok() } else { None }
}

/// Digits, and perhaps a fraction: no sign, no exponent, no word.
fn number(text: &str) -> Option<f64> {
    let is_number = text.starts_with(|letter: char| letter.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_number { text.parse().ok() } else { None }
}

/// A wait of so many seconds; nothing if they are over, and the longest wait if there are too many.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}

fn since_1970(wall: SystemTime) -> f64 {
    wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The wait of a provider that says none, from the first time on.
fn unhinted(streak: u32) -> Duration {
    (UNHINTED * 2_u32.pow(streak.clamp(1, STREAK_MAX) - 1)).min(UNHINTED_MAX)
}

/// Rounded up, as many as fit.
fn microseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// What is left of a limit and when it is reset: the older drafts, and what was there before any.
const RESETS: [(&str, &str); 6] = [
    ("ratelimit-remaining", "ratelimit-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset-after"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("x-rate-limit-remaining", "x-rate-limit-reset"),
];
/// Units of durations, as Go writes them and people do, in seconds.
const UNITS: [(&str, f64); 8] =
    [("d", 86_400.0), ("h", 3_600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9)];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// From here on a number is seconds since 1970 (September 2001), not a wait (31 years).
const EPOCH_MIN: f64 = 1e9;
/// From here on it is milliseconds (March 1973), not seconds (the year 5138).
const EPOCH_MS_MIN: f64 = 1e11;
/// The first wait of a provider that says none.
const UNHINTED: Duration = Duration::from_secs(1);
/// The longest.
const UNHINTED_MAX: Duration = Duration::from_secs(60);
/// Further doublings change nothing: 2^6 s is beyond a minute.
const STREAK_MAX: u32 = 7;
const STREAK_BITS: u32 = 3;
/// What the rest of the word holds: 73,000 years in microseconds.
const UNTIL_MAX: u64 = u64::MAX >> STREAK_BITS;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// 2026-11-21 14:00:00 UTC.
    const WALL: u64 = 1_795_269_600;
    const MAX: Duration = Duration::from_secs(300);
    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn asked(status: u16, fields: &[(&str, &str)]) -> Option<Duration> {
        let field = |name: &[u8]| fields.iter().find(|(other, _)| other.as_bytes() == name).map(|(_, v)| v.as_bytes());
        hint(status, field, at(WALL))
    }

    fn milliseconds(status: u16, fields: &[(&str, &str)]) -> Option<u128> {
        asked(status, fields).map(|wait| wait.as_millis())
    }

    #[test]
    fn a_cooldown_lasts_to_its_last_nanosecond() {
        let start = clock::now();
        let cooldown = Cooldown::new(start);
        let until = cooldown.rejected(Some(SECOND), MAX, start);
        assert_eq!(
            cooldown.until(until.checked_sub(Duration::from_nanos(1)).expect("later than the beginning")),
            Some(until)
        );
        assert_eq!(cooldown.until(until), None);
    }

    #[test]
    fn a_wait_is_asked_for_in_seconds_in_milliseconds_or_until_a_date() {
        for (value, seconds) in [
            ("0", 0),
            ("120", 120),
            (" 7 ", 7),
            ("1m30s", 90),
            ("Sat, 21 Nov 2026 14:00:30 GMT", 30),
            ("Saturday, 21-Nov-26 14:01:00 GMT", 60),
            ("Sat Nov 21 14:00:09 2026", 9),
            ("Tue Dec  1 14:00:00 2026", 10 * 86_400),
            ("Sat, 21 Nov 2026 13:59:59 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
            ("Sat, 21 Nov 2026 14:00:60 GMT", 59),
            ("1795269605", 5),
        ] {
            for status in [429, 503] {
                assert_eq!(asked(status, &[("retry-after", value)]), Some(Duration::from_secs(seconds)), "{value}");
            }
        }
        assert_eq!(milliseconds(429, &[("retry-after", "1.5")]), Some(1_500));
        assert_eq!(milliseconds(503, &[("retry-after-ms", "250"), ("retry-after", "1")]), Some(250));
        assert_eq!(milliseconds(503, &[("retry-after-ms", "soon"), ("retry-after", "1")]), Some(1_000));
    }

    #[test]
    fn a_year_of_two_digits_is_at_most_fifty_years_ahead() {
        let wait = |year: &str| asked(429, &[("retry-after", &format!("Sunday, 06-Nov-{year} 08:49:37 GMT"))]);
        assert_eq!(wait("94"), Some(Duration::ZERO));
        assert_eq!(wait("77"), Some(Duration::ZERO));
        assert!(wait("76") > Some(49 * 365 * 86_400 * SECOND));
    }

    #[test]
    fn what_is_no_wait_is_none() {
        for value in [
            "",
            "soon",
            "-1",
            "+1",
            "1e3",
            "inf",
            "NaN",
            "1.2.3",
            ".5",
            "0x10",
            "1,2",
            "1m30",
            "5 s",
            "5w",
            "µ",
            "Sat, 21 Nov 2026 14:00:30",
            "Sat, 21 Nov 2026 14:00:30 CET",
            "Sat, 31 Feb 2026 14:00:30 GMT",
            "Sat, 21 nov 2026 14:00:30 GMT",
            "Sat, 21 Nov 2026 24:00:00 GMT",
            "Sat, 21 Nov 2026 14:00 GMT",
            "Sat, 21 Nov 2026 14:00:30:1 GMT",
            "Sat, 21 Nov 12026 14:00:30 GMT",
            "Sat, 21 Nov 2026 14:00:30 GMT GMT",
            "Sat, 999 Nov 2026 14:00:30 GMT",
        ] {
            assert_eq!(asked(429, &[("retry-after", value)]), None, "{value}");
            assert_eq!(asked(429, &[("x-ratelimit-reset", value)]), None, "{value}");
        }
        assert_eq!(hint(503, |_| Some(&b"\xff\xfe"[..]), at(WALL)), None);
    }

    #[test]
    fn what_is_too_large_is_a_wait_beyond_any_cap() {
        let huge = "9".repeat(1_000);
        for value in ["99999999999999999999", &huge, &format!("{huge}d"), &format!("{huge}s{huge}h")] {
            let wait = asked(503, &[("retry-after", value)]);
            assert!(wait > Some(Duration::from_secs(1 << 40)), "{value}: {wait:?}");
        }
    }

    #[test]
    fn resets_are_waits_durations_or_dates_by_their_magnitude() {
        for (name, value, wait) in [
            ("x-ratelimit-reset", "30", 30_000),
            ("x-ratelimit-reset", "999999999", 999_999_999_000),
            ("x-ratelimit-reset", "1795269630", 30_000),
            ("x-ratelimit-reset", "1795269630000", 30_000),
            ("x-ratelimit-reset", "1795269630.5", 30_500),
            ("x-ratelimit-reset", "1795269000", 0),
            ("x-ratelimit-reset-requests", "250ms", 250),
            ("x-ratelimit-reset-requests", "6m0s", 360_000),
            ("x-ratelimit-reset-tokens", "1h2m3.5s", 3_723_500),
            ("x-ratelimit-reset-tokens", "2d", 172_800_000),
            ("x-ratelimit-reset-tokens", "1500000µs", 1_500),
            ("x-ratelimit-reset-after", "0.75", 750),
            ("x-rate-limit-reset", "1795269601", 1_000),
            ("ratelimit-reset", "50", 50_000),
            ("ratelimit", "\"default\";r=0;t=30", 30_000),
            ("ratelimit", "default;t=4", 4_000),
            ("ratelimit", "limit=100, remaining=0, reset=12", 12_000),
        ] {
            assert_eq!(milliseconds(429, &[(name, value)]), Some(wait), "{name}: {value}");
            for status in [200, 403, 500, 503] {
                assert_eq!(milliseconds(status, &[(name, value)]), None, "news with {status}");
            }
        }
        assert_eq!(milliseconds(429, &[("ratelimit-reset", "50"), ("retry-after", "2")]), Some(2_000));
        assert_eq!(milliseconds(500, &[("retry-after", "2")]), None);
    }

    #[test]
    fn of_several_limits_the_last_that_is_used_up_is_waited_for() {
        let ratelimit = |value| milliseconds(429, &[("ratelimit", value)]);
        assert_eq!(ratelimit(r#""burst";r=0;t=2, "minute";r=0;t=30, "day";r=500;t=36000"#), Some(30_000));
        assert_eq!(ratelimit(r#""burst";r=5;t=2, "day";r=500;t=36000"#), Some(2_000), "none is, so the first of all");
        assert_eq!(ratelimit(r#""a,b;t=99=";t=2;r=0;pk=:dDs=:, "c";r=0"#), Some(2_000), "what is quoted is a name");
        assert_eq!(ratelimit(r#""never closed;r=0;t=30"#), None);
        let openai = [
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ];
        assert_eq!(milliseconds(429, &openai), Some(360_000));
        assert_eq!(milliseconds(429, &openai[..2]), Some(1_000));
    }

    #[test]
    fn without_a_hint_the_wait_doubles_to_a_minute_until_a_success() {
        let start = clock::now();
        let cooldown = Cooldown::new(start);
        let mut now = start;
        let mut reject = |cooldown: &Cooldown| {
            let until = cooldown.rejected(None, MAX, now);
            let wait = until - now;
            assert_eq!(cooldown.until(now), Some(until));
            assert_eq!(cooldown.until(until), None);
            now = until;
            wait.as_secs()
        };
        assert_eq!([(); 9].map(|()| reject(&cooldown)), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        cooldown.succeeded(start + Duration::from_secs(3600));
        now = start + Duration::from_secs(3600);
        let reject = || cooldown.rejected(None, MAX, now) - now;
        assert_eq!(reject(), SECOND);
    }

    #[test]
    fn what_was_sent_before_the_cooldown_says_nothing_new() {
        let start = clock::now();
        let cooldown = Cooldown::new(start);
        let until = cooldown.rejected(None, MAX, start);
        for _ in 0..100 {
            assert_eq!(cooldown.rejected(None, MAX, start + SECOND / 2), until, "rejected together");
        }
        cooldown.succeeded(start + SECOND / 2);
        assert_eq!(cooldown.rejected(None, MAX, until), until + 2 * SECOND, "nor was that a success since");
        let hinted = cooldown.rejected(Some(10 * SECOND), MAX, until);
        assert_eq!(hinted, until + 10 * SECOND, "a longer hint is news");
        assert_eq!(cooldown.rejected(Some(SECOND), MAX, until), hinted, "a shorter one is not");
    }

    #[test]
    fn hints_are_capped_and_a_hint_of_nothing_is_none() {
        let start = clock::now();
        let cooldown = Cooldown::new(start);
        let until = cooldown.rejected(Some(Duration::MAX), MAX, start);
        assert_eq!(until, start + MAX);
        let next = cooldown.rejected(Some(Duration::ZERO), MAX, until);
        assert_eq!(next, until + 2 * SECOND, "the second in a row");
        assert_eq!(cooldown.rejected(None, SECOND, next), next + SECOND, "the cap holds for waits of ours too");
        let far = Cooldown::new(start).rejected(Some(Duration::MAX), Duration::MAX, start);
        assert!(far > start + 1_000_000 * MAX);
    }

    #[test]
    fn threads_that_are_rejected_together_are_one_rejection() {
        let start = clock::now();
        let cooldown = Cooldown::new(start);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        assert_eq!(cooldown.rejected(None, MAX, start), start + SECOND);
                    }
                });
            }
        });
        assert_eq!(cooldown.until(start), Some(start + SECOND));
        assert_eq!(cooldown.rejected(None, MAX, start + SECOND), start + 3 * SECOND);
    }

    fn dialect() -> impl Strategy<Value = String> {
        let word = prop_oneof!["[0-9]{1,30}", "[a-zµ]{1,4}", "[ ,;:=.\"-]", Just("GMT".into()), Just("Nov".into())];
        vec(word, 0..12).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn whatever_a_provider_writes_is_a_wait_or_none(
            values in vec(prop_oneof![any::<String>(), dialect()], 16), status: u16, wall in 0_u64..1 << 40
        ) {
            let mut names = RESETS.iter().flat_map(|(remaining, reset)| [*remaining, *reset]);
            let names: Vec<&str> = ["retry-after", "retry-after-ms", "ratelimit"].into_iter().chain(names.by_ref()).collect();
            let field = |name: &[u8]| {
                let index = names.iter().position(|known| known.as_bytes() == name)?;
                Some(values[index].as_bytes())
            };
            for status in [status, 429, 503] {
                let found = hint(status, field, at(wall));
                prop_assert!(found.is_none() || status == 429 || status == 503);
            }
        }

        #[test]
        fn a_date_is_found_where_it_was_written(now in 0..4_000_000_000_i64, wait in 0..100_000_000_i64) {
            let [today, then] =
                [now, now + wait].map(|second| Offset::UTC.to_datetime(Timestamp::from_second(second).expect("a time")));
            let mut forms = vec!["%a, %d %b %Y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
            // Two digits are always taken for a year of this century or the last.
            if today.year() / 100 == then.year() / 100 {
                forms.push("%A, %d-%b-%y %H:%M:%S GMT");
            }
            for form in forms {
                let text = then.strftime(form).to_string();
                let field = |name: &[u8]| (name == b"retry-after").then_some(text.as_bytes());
                let found = hint(503, field, at(now.unsigned_abs()));
                prop_assert_eq!(found, Some(Duration::from_secs(wait.unsigned_abs())), "{}", text);
            }
        }

        #[test]
        fn a_cooldown_never_shortens(
            steps in vec((0..5_000_u64, 0..4_u8, 0..400_000_u64, 0..400_000_u64), 1..60)
        ) {
            let start = clock::now();
            let cooldown = Cooldown::new(start);
            let (mut now, mut before) = (start, None);
            for (pause, what, hint, max) in steps {
                now += Duration::from_millis(pause);
                let [hint, max] = [hint, max].map(Duration::from_millis);
                match what {
                    0 => cooldown.succeeded(now),
                    1 => prop_assert!(cooldown.rejected(None, max, now) >= now),
                    _ => {
                        let until = cooldown.rejected(Some(hint), max, now);
                        prop_assert!(until <= (now + max + Duration::from_micros(1)).max(before.unwrap_or(now)));
                        prop_assert!(hint.is_zero() || until >= now + hint.min(max));
                    }
                }
                if let Some(before) = before.filter(|before| *before > now) {
                    prop_assert!(cooldown.until(now) >= Some(before));
                }
                before = cooldown.until(now);
            }
        }
    }
}
