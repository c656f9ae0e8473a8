//! System calls per request, by kind, as strace counts them: as for instructions, the difference of two runs.

use crate::Outcome;
use crate::contenders::{Contender, Kind, Setup};
use crate::counted;
use crate::progress::Progress;
use crate::table::{Table, plain};
use crate::tools;
use crate::upstream;
use crate::workloads::Workload;
use std::collections::BTreeMap;
use std::fs;

/// How often each kind of call was made for one request, or for one chunk of a stream.
pub(crate) type Calls = BTreeMap<String, f64>;

/// All that was counted.
pub(crate) type Counts = Vec<(&'static Workload, BTreeMap<Kind, Calls>)>;

/// Workloads whose calls are counted.
pub(crate) const WORKLOADS: [&str; 8] = ["1k", "post", "stream", "conn", "ws", "many", "h2-1k", "tls-1k"];

/// The calls that one request of `workload` takes `contender`.
pub(crate) fn per_request(
    contender: &Contender,
    workload: &'static Workload,
    setup: &Setup,
    progress: &mut Progress,
) -> Outcome<Calls> {
    let (few, many) = workload.counted;
    let mut count = |requests: u32| {
        progress.step(&format!("{} system calls: {} requests to {}", workload.key, requests, contender.kind.name()));
        counted_run(contender, workload, setup, requests)
    };
    let (short, mut long) = (count(few)?, count(many)?);
    for (kind, calls) in short {
        *long.entry(kind).or_default() -= calls;
    }
    let units = f64::from(many - few) * units_of(workload);
    let calls = long.into_iter().map(|(kind, calls)| (kind, calls / units));
    // Less is what a timer or a health check happened to do in one of the runs.
    Ok(calls.filter(|(_, calls)| *calls >= LEAST).collect())
}

/// Calls of one whole run.
fn counted_run(contender: &Contender, workload: &'static Workload, setup: &Setup, requests: u32) -> Outcome<Calls> {
    let place = setup.scratch.join("strace");
    // A count of an earlier run must not be taken for this one's.
    let _ = fs::remove_file(&place);
    let mut under = vec![tools::need("strace")?.display().to_string()];
    under.extend(["-f", "-qq", "-c", "-U", "calls,name", "-o"].map(str::to_owned));
    under.push(place.display().to_string());
    let running = counted::run(contender, workload, setup, under, requests)?;
    let text = fs::read_to_string(&place).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| {
        let (calls, name) = line.trim().split_once(' ')?;
        Some((name.trim().to_owned(), calls.parse().ok()?))
    });
    let calls: Calls = pairs.filter(|(name, _)| name != "total").collect();
    if calls.is_empty() {
        return Err(format!("strace counted nothing; it printed: {}", running.group.last_words()).into());
    }
    Ok(calls)
}

/// All of it in one table.
pub(crate) fn table(counts: &Counts) -> Table {
    let title = "System calls per request (of a stream: per chunk), one connection, counted by strace".to_owned();
    let header = ["workload", "proxy", "calls", "of which"].map(str::to_owned).into();
    let mut rows = Vec::new();
    for (workload, kinds) in counts {
        for (kind, calls) in kinds {
            let mut parts: Vec<(&String, &f64)> = calls.iter().collect();
            parts.sort_by(|one, other| other.1.total_cmp(one.1));
            let parts: Vec<String> = parts.iter().map(|(name, calls)| format!("{name} {calls:.2}")).collect();
            let total = format!("{:.2}", calls.values().sum::<f64>());
            rows.push(vec![plain(workload.title), plain(kind.name()), plain(total), plain(parts.join(", "))]);
        }
    }
    Table { title, header, rows }
}

fn units_of(workload: &Workload) -> f64 {
    if workload.path == upstream::STREAM_PATH { upstream::CHUNKS as f64 } else { 1.0 }
}

/// Calls per request below which they are none of the request's.
const LEAST: f64 = 0.005;
