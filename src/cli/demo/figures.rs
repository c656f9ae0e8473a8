//! What the load saw: counts by kind, status and provider, and latencies; and how people are shown them.
//!
//! Pure: the load records, the screen prints. Sizes do not grow with the number of requests.

use super::providers::Sample;
use std::fmt::Write;
use std::time::Duration;

/// The kinds of traffic the load sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A plain GET.
    Get,
    /// A POST whose body must come back.
    Post,
    /// A body that must arrive whole.
    Download,
    /// Server-sent events that must come one after the other.
    Stream,
    /// A WebSocket message that must come back.
    WebSocket,
    /// A GET for the provider that goes down.
    Spare,
}

/// How one request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// What it was.
    pub(super) kind: Kind,
    /// The answer's status; `None` where no head came.
    pub(super) status: Option<u16>,
    /// Who answered; `None` is the gateway itself.
    pub(super) from: Option<Sample>,
    /// To the head of the answer, or to the failure.
    pub(super) latency: Duration,
    /// Why it did not work, where it did not.
    pub(super) trouble: Option<Trouble>,
}

/// Why a request did not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No connection to the gateway.
    Connect,
    /// The connection broke before or in the answer.
    Broken,
    /// Nothing, or no end, in time.
    Timeout,
    /// A status that is not 2xx (101 for a WebSocket).
    Status,
    /// An answer that is not what was asked for.
    Content,
}

/// Counts so far.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    sent: u64,
    skipped: u64,
    kinds: [Tally; Kind::ALL.len()],
    classes: [u64; CLASSES.len()],
    broken: u64,
    from: [u64; Sample::ALL.len() + 1],
    whole: Latencies,
    recent: Latencies,
}

/// How many of a kind ended, and how many of those worked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    ended: u64,
    worked: u64,
}

/// Latencies by the millisecond, so that quantiles are exact to one.
#[derive(Debug, Clone)]
struct Latencies {
    counts: Box<[u32]>,
    total: u64,
}

// === impl Kind ===

impl Kind {
    /// Every kind, in the order tables show them.
    pub(super) const ALL: [Kind; 6] =
        [Kind::Get, Kind::Post, Kind::Download, Kind::Stream, Kind::WebSocket, Kind::Spare];

    /// What tables call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Get => "GET",
            Kind::Post => "POST, echoed",
            Kind::Download => "256 KiB download",
            Kind::Stream => "event stream",
            Kind::WebSocket => "WebSocket echo",
            Kind::Spare => "GET of /spare",
        }
    }
}

// === impl Figures ===

impl Figures {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Figures {
            sent: 0,
            skipped: 0,
            kinds: Default::default(),
            classes: Default::default(),
            broken: 0,
            from: Default::default(),
            whole: Latencies::new(),
            recent: Latencies::new(),
        }
    }

    /// A request went out.
    pub(super) fn send(&mut self) {
        self.sent += 1;
    }

    /// A request was due, but too many were under way.
    pub(super) fn skip(&mut self) {
        self.skipped += 1;
    }

    /// A request ended.
    pub(super) fn record(&mut self, seen: &Seen) {
        let tally = &mut self.kinds[seen.kind as usize];
        tally.ended += 1;
        tally.worked += u64::from(seen.trouble.is_none());
        match seen.status.and_then(class) {
            Some(class) => self.classes[class] += 1,
            None => self.broken += 1,
        }
        if seen.status.is_some() {
            self.from[seen.from.map_or(Sample::ALL.len(), |sample| sample as usize)] += 1;
            self.whole.record(seen.latency);
            self.recent.record(seen.latency);
        }
    }

    /// Kinds of which not one request worked.
    #[must_use]
    pub(super) fn silent(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| self.kinds[*kind as usize].worked == 0).collect()
    }

    /// One line: counts since the start, latencies since the last line.
    pub(super) fn line(&mut self, second: u64) -> String {
        let mut line = format!("{second:>4}s {:>6} requests ", self.sent);
        for (name, count) in CLASSES.into_iter().zip(self.classes).chain([("broken", self.broken)]) {
            if count > 0 {
                let _ = write!(line, " {name} {count} ");
            }
        }
        let _ = write!(line, " p50 {} ms  p95 {} ms ", self.recent.quantile(0.50), self.recent.quantile(0.95));
        for (name, count) in self.answerers() {
            let _ = write!(line, " {name} {count}");
        }
        self.recent = Latencies::new();
        line
    }

    /// The table at the end.
    pub(super) fn summary(&self) -> String {
        let mut text = format!("{:<18} {:>8} {:>8}\n", "kind of traffic", "ended", "worked");
        for kind in Kind::ALL {
            let Tally { ended, worked } = self.kinds[kind as usize];
            let _ = writeln!(text, "{:<18} {ended:>8} {worked:>8}", kind.name());
        }
        let all = |count: fn(&Tally) -> u64| self.kinds.iter().map(count).sum::<u64>();
        let _ = writeln!(text, "{:<18} {:>8} {:>8}", "all", all(|kind| kind.ended), all(|kind| kind.worked));
        let _ = write!(text, "\nanswered by       ");
        for (name, count) in self.answerers() {
            let _ = write!(text, " {name} {count}");
        }
        let _ = write!(text, "\nto the first byte  p50 {} ms", self.whole.quantile(0.5));
        let _ = writeln!(text, "  p95 {} ms  p99 {} ms", self.whole.quantile(0.95), self.whole.quantile(0.99));
        if self.skipped > 0 {
            let _ = writeln!(text, "not sent           {} (too many were under way)", self.skipped);
        }
        text
    }

    fn answerers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = Sample::ALL.map(Sample::name).into_iter().chain(["sluice"]);
        names.zip(self.from).filter(|(_, count)| *count > 0)
    }
}

// === impl Latencies ===

impl Latencies {
    fn new() -> Self {
        Latencies { counts: vec![0; LONGEST_MS + 1].into(), total: 0 }
    }

    fn record(&mut self, latency: Duration) {
        let ms = usize::try_from(latency.as_millis()).unwrap_or(LONGEST_MS).min(LONGEST_MS);
        self.counts[ms] = self.counts[ms].saturating_add(1);
        self.total += 1;
    }

    /// The smallest number of milliseconds that `share` of the latencies do not exceed; 0 where there are none.
    fn quantile(&self, share: f64) -> usize {
        let rank = (self.total as f64 * share).ceil().max(1.0);
        let mut below = 0.0;
        let place = self.counts.iter().position(|count| {
            below += f64::from(*count);
            below >= rank
        });
        place.unwrap_or(0)
    }
}

/// Where a status is counted.
fn class(status: u16) -> Option<usize> {
    usize::from(status / 100).checked_sub(1).filter(|class| *class < CLASSES.len())
}

/// What [`class`] tells apart.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Longer latencies count as this; no request of the load takes longer.
const LONGEST_MS: usize = 15_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(kind: Kind, status: u16, from: Option<Sample>, ms: u64) -> Seen {
        let trouble = (status >= 300).then_some(Trouble::Status);
        Seen { kind, status: Some(status), from, latency: Duration::from_millis(ms), trouble }
    }

    fn a_few() -> Figures {
        let mut figures = Figures::new();
        for ms in 1..=20 {
            figures.send();
            figures.record(&seen(Kind::Get, 200, Some(Sample::Alpha), ms));
        }
        figures.send();
        figures.record(&seen(Kind::Get, 404, None, 1));
        figures.send();
        let latency = Duration::from_secs(5);
        let trouble = Some(Trouble::Broken);
        figures.record(&Seen { kind: Kind::Spare, status: None, from: None, latency, trouble });
        figures
    }

    #[test]
    fn a_line_names_only_what_happened() {
        let mut figures = a_few();
        let line = figures.line(3);
        assert_eq!(line, "   3s     22 requests  2xx 20  4xx 1  broken 1  p50 10 ms  p95 19 ms  alpha 20 sluice 1");
    }

    #[test]
    fn latencies_of_a_line_are_those_since_the_last_line() {
        let mut figures = a_few();
        figures.line(1);
        figures.record(&seen(Kind::Get, 200, Some(Sample::Beta), 400));
        assert!(figures.line(2).contains("p50 400 ms  p95 400 ms"));
        assert!(figures.line(3).contains("p50 0 ms  p95 0 ms"));
    }

    #[test]
    fn a_kind_is_silent_until_one_request_of_it_worked() {
        let mut figures = a_few();
        figures.record(&seen(Kind::Post, 503, None, 1));
        assert_eq!(figures.silent(), [Kind::Post, Kind::Download, Kind::Stream, Kind::WebSocket, Kind::Spare]);
        for kind in Kind::ALL {
            figures.record(&seen(kind, 200, None, 1));
        }
        assert_eq!(figures.silent(), []);
    }

    #[test]
    fn the_summary_counts_what_ended_and_what_worked() {
        let summary = a_few().summary();
        assert!(summary.contains("GET                      21       20\n"), "{summary}");
        assert!(summary.contains("GET of /spare             1        0\n"), "{summary}");
        assert!(summary.contains("all                      22       20\n"), "{summary}");
        assert!(summary.contains("to the first byte  p50 10 ms  p95 19 ms  p99 20 ms\n"), "{summary}");
    }

    #[test]
    fn a_latency_beyond_the_table_is_kept_at_its_end() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_hours(1));
        assert_eq!(latencies.quantile(1.0), LONGEST_MS);
    }
}
