//! Runs under an instrument: a contender from its start to its end, with a number of requests known exactly.

use crate::Outcome;
use crate::client::Client;
use crate::contenders::{Contender, Running, Setup};
use crate::load::{self, Order};
use crate::process::pause;
use crate::upstream;
use crate::workloads::Workload;
use std::time::Duration;

/// Runs `contender` under the program and arguments `under`, for `requests` over one connection, one after the other
/// (HTTP/2: as many at once as the workload says; a connection per request: one after the other). It has ended then.
pub(crate) fn run(
    contender: &Contender,
    workload: &'static Workload,
    setup: &Setup,
    under: Vec<String>,
    requests: u32,
) -> Outcome<Running> {
    let mut running = contender.start(&Setup { under, ..setup.clone() })?;
    let missed = upstream::asked_for_kept(setup.upstream)?;
    if workload.by_wrk() {
        ask_many(&running, workload, requests)?;
    } else {
        let order = Order { connections: 1, ..Order::new(workload, running.address, 0, setup.scratch) };
        load::exactly(&order, requests)?;
    }
    if upstream::asked_for_kept(setup.upstream)? != missed {
        return Err("a request was no hit: the upstream was asked again".into());
    }
    // nginx without a master can miss a signal that comes while it is busy closing the last connection.
    pause(SETTLE);
    running.group.stop();
    Ok(running)
}

fn ask_many(running: &Running, workload: &Workload, requests: u32) -> Outcome<()> {
    let mut client = Client::connect(running.address)?;
    let body = workload.body();
    for at in 0..requests {
        let line = workload.request_line(at as usize);
        let reply = client.ask_with(&line, workload.field, &body)?;
        if reply.status != workload.status {
            return Err(format!("{line} gave {}", reply.status).into());
        }
    }
    Ok(())
}

/// Long enough for an instrumented server to have nothing left to do.
const SETTLE: Duration = Duration::from_millis(300);
