//! User instructions per request, which repeat where time does not.
//!
//! Each contender runs twice as a single process under valgrind's cachegrind (its cache model off: only instructions are
//! counted), once for few requests and once for many, over one connection, one request after the other (HTTP/2: as many
//! at once as the workload says; handshakes: one connection after the other). The difference of the two counts divided
//! by the difference in requests leaves start and stop out.

use crate::Outcome;
use crate::client::Client;
use crate::contenders::{Contender, Running, Setup};
use crate::load::{self, Order};
use crate::process::pause;
use crate::progress::Progress;
use crate::tools;
use crate::workloads::Workload;
use std::fs;
use std::path::Path;
use std::time::Duration;

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
    let place = setup.scratch.join("cachegrind.out");
    // A count of an earlier run must not be taken for this one's.
    let _ = fs::remove_file(&place);
    let under = vec![
        tools::need("valgrind")?.display().to_string(),
        "--tool=cachegrind".into(),
        "--cache-sim=no".into(),
        format!("--cachegrind-out-file={}", place.display()),
    ];
    let mut running = contender.start(&Setup { under, ..setup.clone() })?;
    if workload.by_wrk() {
        ask_many(&running, workload, requests)?;
    } else {
        let order = Order { connections: 1, ..Order::new(workload, running.address, 0, setup.scratch) };
        load::exactly(&order, requests)?;
    }
    // nginx without a master can miss a signal that comes while it is busy closing the last connection.
    pause(SETTLE);
    running.group.stop();
    read_count(&place).map_err(|error| format!("{error}; it printed: {}", running.group.last_words()).into())
}

fn ask_many(running: &Running, workload: &Workload, requests: u32) -> Outcome<()> {
    let mut client = Client::connect(running.address)?;
    let (line, body) = (workload.request_line(), workload.body());
    for _ in 0..requests {
        let reply = client.ask(&line, &body)?;
        if reply.status != 200 {
            return Err(format!("{line} gave {}", reply.status).into());
        }
    }
    Ok(())
}

/// The total that cachegrind wrote when the process ended.
fn read_count(place: &Path) -> Result<u64, String> {
    let text = fs::read_to_string(place).map_err(|error| format!("cachegrind left no count: {error}"))?;
    let total = text.lines().find_map(|line| line.strip_prefix("summary:")?.trim().parse().ok());
    total.ok_or_else(|| "cachegrind left a count without a summary".to_owned())
}

/// Long enough for an instrumented server to have nothing left to do.
const SETTLE: Duration = Duration::from_millis(300);
