//! Providers as they are outside of the gateway: well, or misbehaving in every way that there is.

use fastrand::Rng;
use sluice::instant::Instant;
use sluice::policy::retry::Ended;
use std::time::Duration;

/// One provider, seen from nowhere.
pub struct Outside {
    pub weather: Weather,
    since: Instant,
    /// The usual time to an answer.
    latency: Duration,
}

/// How a provider behaves for a while.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Well,
    /// Twenty times slower.
    Slow,
    /// Nobody listens there.
    Refuses,
    /// Nobody answers there: connecting takes its time.
    Vanished,
    /// It takes requests and says nothing.
    Hangs,
    Resets,
    /// It refuses streams, and did nothing.
    GoesAway,
    /// It answers with this status and says nothing about waiting.
    Answers(u16),
    /// It answers with this status and one of [`HINTS`].
    Asks(u16, usize),
    /// It is there for so many milliseconds, and gone for as many.
    Flaps(u64),
}

/// What becomes of one attempt, as only the outside knows it.
#[derive(Clone, Copy)]
pub struct Fate {
    pub ended: Ended,
    pub after: Duration,
    /// The provider may have acted on the request.
    pub sent: bool,
    /// A field of the answer.
    pub hint: Option<(&'static str, &'static str)>,
}

// === impl Outside ===

impl Outside {
    pub fn new(latency: Duration, now: Instant) -> Self {
        Outside { weather: Weather::Well, since: now, latency }
    }

    pub fn turn(&mut self, weather: Weather, now: Instant) {
        (self.weather, self.since) = (weather, now);
    }

    /// An attempt reaches it, or does not.
    pub fn meet(&self, rng: &mut Rng, now: Instant) -> Fate {
        let usual = self.latency.mul_f64(if rng.u8(..20) == 0 { 4.0 } else { 0.5 + rng.f64() });
        let soon = Duration::from_micros(rng.u64(50..3_000));
        let answer = |status, after| Fate { ended: Ended::Status(status), after, sent: true, hint: None };
        let unsent = |ended, after| Fate { ended, after, sent: false, hint: None };
        let weather = match self.weather {
            Weather::Flaps(period) => {
                let is_there = now.duration_since(self.since).as_millis() as u64 / period % 2 == 1;
                if is_there { Weather::Well } else { Weather::Refuses }
            }
            other => other,
        };
        match weather {
            Weather::Well => answer(if rng.u8(..50) == 0 { 404 } else { 200 }, usual),
            Weather::Slow => answer(200, usual * 20),
            Weather::Refuses | Weather::Flaps(_) => unsent(Ended::Connect, soon),
            Weather::Vanished => unsent(Ended::Connect, Duration::from_millis(500)),
            Weather::Hangs => Fate { after: Duration::from_hours(1), ..answer(200, usual) },
            Weather::Resets => Fate { ended: Ended::Reset, ..answer(0, soon) },
            Weather::GoesAway => unsent(Ended::Refused, soon),
            Weather::Answers(status) => answer(status, soon),
            Weather::Asks(status, hint) => Fate { hint: Some(HINTS[hint]), ..answer(status, soon) },
        }
    }
}

// === impl Weather ===

impl Weather {
    /// Bad weather of some kind.
    pub fn any(rng: &mut Rng) -> Weather {
        match rng.u8(..12) {
            0 => Weather::Slow,
            1 | 2 => Weather::Refuses,
            3 => Weather::Vanished,
            4 => Weather::Hangs,
            5 => Weather::Resets,
            6 => Weather::GoesAway,
            7 => Weather::Answers(503),
            8 => Weather::Answers(if rng.bool() { 500 } else { 502 }),
            9 => Weather::Answers(429),
            10 => Weather::Asks(if rng.bool() { 429 } else { 503 }, rng.usize(..HINTS.len())),
            _ => Weather::Flaps(rng.u64(50..1_000)),
        }
    }

    /// The word for it in stories.
    pub fn as_str(self) -> &'static str {
        match self {
            Weather::Well => "is well",
            Weather::Slow => "is slow",
            Weather::Refuses => "refuses connections",
            Weather::Vanished => "has vanished",
            Weather::Hangs => "hangs",
            Weather::Resets => "resets connections",
            Weather::GoesAway => "refuses streams",
            Weather::Answers(429) => "answers 429",
            Weather::Answers(_) => "answers 5xx",
            Weather::Asks(..) => "asks for a wait",
            Weather::Flaps(_) => "comes and goes",
        }
    }
}

/// Ways to ask for a wait, and not to.
const HINTS: [(&str, &str); 8] = [
    ("retry-after", "1"),
    ("retry-after", "3600"),
    ("retry-after-ms", "250"),
    ("retry-after", "Sat, 21 Nov 2026 14:00:02 GMT"),
    ("x-ratelimit-reset-requests", "1s500ms"),
    ("ratelimit", "\"burst\";r=0;t=2"),
    ("retry-after", "0"),
    ("retry-after", "whenever"),
];

/// What people's clocks show when a world begins: 2026-11-21 14:00:00 UTC.
pub const WALL: u64 = 1_795_269_600;
