//! User instructions per request, which repeat where time does not.
//!
//! Each contender runs twice as a single process under valgrind's cachegrind (its cache model off: only instructions are
//! counted), once for few requests and once for many, over one connection, one request after the other (HTTP/2: as many
//! at once as the workload says; handshakes: one connection after the other). The difference of the two counts divided
//! by the difference in requests leaves start and stop out.

use crate::Outcome;
use crate::contenders::{Contender, Setup};
use crate::counted;
use crate::progress::Progress;
use crate::tools;
use crate::workloads::Workload;
use std::fs;
use std::path::Path;

/// Instructions one request of `workload` costs `contender` in user space.
pub(crate) fn per_request(
    contender: &Contender,
    workload: &'static Workload,
    setup: &Setup,
    progress: &mut Progress,
) -> Outcome<f64> {
    let (few, many) = workload.counted;
    let mut count = |requests: u32| {
        progress.step(&format!("{} instructions: {} requests to {}", workload.key, requests, contender.kind.name()));
        counted_run(contender, workload, setup, requests)
    };
    let (short, long) = (count(few)?, count(many)?);
    if long <= short {
        return Err("more requests cost no more instructions; is the program a script that starts another?".into());
    }
    Ok((long - short) as f64 / f64::from(many - few))
}

/// Instructions of one whole run, from the first to the last of the process.
fn counted_run(contender: &Contender, workload: &'static Workload, setup: &Setup, requests: u32) -> Outcome<u64> {
    let folder = setup.scratch.join("cachegrind");
    // A count of an earlier run must not be taken for this one's.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder)?;
    let under = vec![
        tools::need("valgrind")?.display().to_string(),
        "--tool=cachegrind".into(),
        "--cache-sim=no".into(),
        format!("--cachegrind-out-file={}", folder.join("%p").display()),
    ];
    let running = counted::run(contender, workload, setup, under, requests)?;
    read_counts(&folder).map_err(|error| format!("{error}; it printed: {}", running.group.last_words()).into())
}

/// The total of what cachegrind wrote when processes ended: Varnish forks, the others are one process.
fn read_counts(folder: &Path) -> Outcome<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let text = fs::read_to_string(entry?.path())?;
        let count = text.lines().find_map(|line| line.strip_prefix("summary:")?.trim().parse::<u64>().ok());
        total += count.ok_or("cachegrind left a count without a summary")?;
    }
    if total > 0 { Ok(total) } else { Err("cachegrind left no count".into()) }
}
