//! What Sluice is to reach against each peer, and whether it did.

use crate::contenders::Kind;
use crate::latency::{self, QUANTILES};
use crate::report::{Report, ratio_cell};
use crate::spread::Spread;
use crate::table::{Cell, Table, Tone, plain, thousands};
use crate::workloads::Workload;

/// Processor time of one workload against the peers, at most.
struct Target {
    workload: &'static str,
    nginx: f64,
    haproxy: Option<f64>,
}

/// What was found beside what was wanted.
struct Row {
    what: String,
    peer: &'static str,
    found: Cell,
    wanted: String,
    verdict: Verdict,
}

/// How a target was missed or met.
enum Verdict {
    Met,
    /// The median is there, its interval is not.
    Barely,
    /// The interval is, its median is not.
    BarelyNot,
    Missed,
}

/// All targets of which this run knows something.
pub(crate) fn table(report: &Report) -> Table {
    let mut rows = Vec::new();
    for target in &TARGETS {
        time(report, target, Kind::Nginx, Some(target.nginx), &mut rows);
        time(report, target, Kind::Haproxy, target.haproxy, &mut rows);
    }
    instructions(report, &mut rows);
    added_latency(report, &mut rows);
    memory(report, &mut rows);
    let title = "Targets; met is one where the whole interval is within it".to_owned();
    let header = ["what", "against", "found", "at most", "verdict"].map(str::to_owned).into();
    Table { title, header, rows: rows.into_iter().map(Row::cells).collect() }
}

fn time(report: &Report, target: &Target, peer: Kind, most: Option<f64>, rows: &mut Vec<Row>) {
    let timing = report.timings.iter().find(|timing| timing.workload.key == target.workload);
    let (Some(timing), Some(most)) = (timing, most) else { return };
    let Some(found) = timing.ratio(Kind::Sluice, peer) else { return };
    rows.push(Row {
        what: timing.workload.title.to_owned(),
        peer: peer.name(),
        found: ratio_cell(Some(found)),
        wanted: format!("{most:.2}"),
        verdict: Verdict::of(found, most),
    });
}

fn instructions(report: &Report, rows: &mut Vec<Row>) {
    let is_it = |(workload, _): &&(&Workload, _)| workload.key == COUNTED;
    let counts = report.instructions.iter().find(is_it).map(|(_, counts)| counts);
    let Some(count) = counts.and_then(|counts| counts.get(&Kind::Sluice)) else { return };
    rows.push(Row {
        what: "user instructions, GET, 1 KiB answer".to_owned(),
        peer: "–",
        found: plain(thousands(*count)),
        wanted: thousands(INSTRUCTIONS),
        verdict: Verdict::sure(*count <= INSTRUCTIONS),
    });
}

/// No worse is a difference whose interval reaches zero or lies below.
fn added_latency(report: &Report, rows: &mut Vec<Row>) {
    for (at, (quantile, _)) in QUANTILES.iter().enumerate().take(2) {
        for peer in [Kind::Nginx, Kind::Haproxy] {
            let Some(found) = report.latency.difference(Some(Kind::Sluice), Some(peer), at) else { continue };
            rows.push(Row {
                what: format!("latency at a fixed rate, {quantile}, difference in µs"),
                peer: peer.name(),
                found: latency::difference_cell(found),
                wanted: "no worse".to_owned(),
                verdict: Verdict::sure(found.low <= 0.0),
            });
        }
    }
}

fn memory(report: &Report, rows: &mut Vec<Row>) {
    let each = |kind| report.idle.iter().find(|idle| idle.kind == kind).map(crate::idle::Idle::with_set_aside);
    let Some(ours) = each(Kind::Sluice) else { return };
    for peer in [Kind::Nginx, Kind::Haproxy] {
        let Some(theirs) = each(peer) else { continue };
        rows.push(Row {
            what: "memory of an idle connection".to_owned(),
            peer: peer.name(),
            found: plain(format!("{:.2}", ours / theirs)),
            wanted: "1.00".to_owned(),
            verdict: Verdict::sure(ours <= theirs),
        });
    }
}

// === impl Row ===

impl Row {
    fn cells(self) -> Vec<Cell> {
        let (text, tone) = match self.verdict {
            Verdict::Met => ("met", Tone::Better),
            Verdict::Barely => ("met by the median", Tone::Plain),
            Verdict::BarelyNot => ("missed by the median", Tone::Plain),
            Verdict::Missed => ("not met", Tone::Worse),
        };
        let verdict = Cell { text: text.to_owned(), tone };
        vec![plain(self.what), plain(self.peer), self.found, plain(self.wanted), verdict]
    }
}

// === impl Verdict ===

impl Verdict {
    fn of(found: Spread, most: f64) -> Verdict {
        match found {
            Spread { high, .. } if high <= most => Verdict::Met,
            Spread { median, .. } if median <= most => Verdict::Barely,
            Spread { low, .. } if low <= most => Verdict::BarelyNot,
            _ => Verdict::Missed,
        }
    }

    fn sure(met: bool) -> Verdict {
        if met { Verdict::Met } else { Verdict::Missed }
    }
}

const fn target(workload: &'static str, nginx: f64, haproxy: f64) -> Target {
    Target { workload, nginx, haproxy: Some(haproxy) }
}

/// The most that processor time may be against each peer.
const TARGETS: [Target; 13] = [
    target("1k", 0.90, 0.85),
    target("post", 0.90, 0.85),
    target("100k", 1.05, 0.85),
    target("10m", 1.05, 0.85),
    // HAProxy merges chunks.
    target("stream", 0.90, 1.25),
    target("tls-1k", 0.90, 0.85),
    target("tls-full", 1.0, 1.0),
    target("tls-resumed", 1.0, 1.0),
    target("h2-1k", 0.80, 1.1),
    target("h2-grpc", 0.80, 1.1),
    target("tls-h2-1k", 0.80, 1.1),
    Target { workload: "cache-1k", nginx: 0.90, haproxy: None },
    Target { workload: "cache-304", nginx: 0.90, haproxy: None },
];

/// The workload whose user instructions have a ceiling.
const COUNTED: &str = "1k";

/// And that ceiling.
const INSTRUCTIONS: f64 = 10_000.0;
