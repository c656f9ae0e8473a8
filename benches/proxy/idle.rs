//! What ten thousand clients cost that have asked once and stay connected.
//!
//! Every connection makes one request, so it was accepted and has been through the whole machinery; then memory is
//! compared with what it was before, when the contender was warm but had no client. nginx and HAProxy set memory aside
//! at their start for as many connections as their configuration allows, so each contender is also looked at when it is
//! configured for few. Socket buffers are the kernel's and the same for all; they are not in these figures.

use crate::Outcome;
use crate::client::Client;
use crate::contenders::{Contender, Kind, Running, Setup};
use crate::process::pause;
use crate::progress::Progress;
use crate::table::{Table, plain, thousands};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Memory without and with the connections, in KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// Which contender.
    pub(crate) kind: Kind,
    /// Connections held.
    pub(crate) connections: usize,
    /// Warm, and configured for few connections.
    pub(crate) small: u64,
    /// Warm, and configured for all of them.
    pub(crate) before: u64,
    /// With all of them idle.
    pub(crate) with: u64,
    /// What it does while nobody is connected, and while all of them are and say nothing.
    pub(crate) ticking: [Ticking; 2],
}

/// What a contender does while nobody asks anything of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticking {
    /// Microseconds of processor time in a second.
    pub(crate) cpu: f64,
    /// Times a second that one of its threads was woken.
    pub(crate) wakeups: f64,
}

// === impl Idle ===

impl Idle {
    /// Starts `contender` and holds `connections` open.
    pub(crate) fn take(
        contender: &Contender,
        setup: &Setup,
        connections: usize,
        progress: &mut Progress,
    ) -> Outcome<Idle> {
        let small = warm(&contender.start(setup)?)?;
        let running = contender.start(&Setup { connections: setup.connections + connections, ..setup.clone() })?;
        let before = warm(&running)?;
        progress.step(&format!("idle connections: watching {} without any", contender.kind.name()));
        let without = watch(&running)?;
        let mut held = Vec::with_capacity(connections);
        for index in 0..connections {
            if index % 500 == 0 {
                progress.step(&format!("idle connections: {index}/{connections} to {}", contender.kind.name()));
            }
            held.push(open(&running, index).map_err(|error| format!("connection {index}: {error}"))?);
        }
        let with = settled(&running)?;
        progress.step(&format!("idle connections: watching {} with all", contender.kind.name()));
        let ticking = [without, watch(&running)?];
        // The last reading only counts if nobody was sent away in the meantime.
        for index in [0, connections / 2, connections - 1] {
            held[index].ask("GET /1k", b"").map_err(|error| format!("connection {index} was not kept: {error}"))?;
        }
        Ok(Idle { kind: contender.kind, connections, small, before, with, ticking })
    }

    /// Bytes by which each connection made the contender grow.
    pub(crate) fn grown(&self) -> f64 {
        self.each(self.before)
    }

    /// The same with what was set aside for it at the start.
    pub(crate) fn with_set_aside(&self) -> f64 {
        self.each(self.small)
    }

    fn each(&self, from: u64) -> f64 {
        (self.with as f64 - from as f64) * 1024.0 / self.connections as f64
    }
}

/// A connection that has made its one request. Sources differ, so that neither ports nor limits per address run out.
fn open(running: &Running, index: usize) -> Outcome<Client> {
    let source = Ipv4Addr::new(127, 0, 1, (1 + index / CONNECTIONS_PER_SOURCE % 250) as u8);
    let mut client = Client::connect_from(SocketAddr::from((source, 0)), running.address)?;
    let reply = client.ask("GET /1k", b"")?;
    if reply.status == 200 { Ok(client) } else { Err(format!("its request gave {}", reply.status).into()) }
}

/// Memory after some clients came and went: what is allocated once is not put on the first idle connection.
fn warm(running: &Running) -> Outcome<u64> {
    let mut clients = (0..16).map(|index| open(running, index)).collect::<Outcome<Vec<_>>>()?;
    for client in &mut clients {
        for _ in 0..20 {
            client.ask("GET /1k", b"")?;
        }
    }
    drop(clients);
    settled(running)
}

/// What it does for a while by itself. What it still had to do after the last request is over by then.
fn watch(running: &Running) -> Outcome<Ticking> {
    let before = running.group.usage()?;
    pause(Duration::from_secs(WATCHED.into()));
    let after = running.group.usage()?;
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / f64::from(WATCHED);
    let (cpu, wakeups) = (each(before.cpu_ns, after.cpu_ns) / 1000.0, each(before.switches, after.switches));
    Ok(Ticking { cpu, wakeups })
}

/// All of it in one table.
pub(crate) fn table(all: &[Idle]) -> Table {
    let connections = all.first().map_or(0, |idle| idle.connections);
    let title = format!(
        "With {} idle keep-alive connections, each after one request: memory, and what goes on without and with them \
         while nobody asks",
        thousands(connections as f64)
    );
    let mebibytes = |kib: u64| plain(format!("{:.1}", kib as f64 / 1024.0));
    let row = |idle: &Idle| {
        let mut row = vec![plain("idle connections"), plain(idle.kind.name())];
        row.extend([plain(thousands(idle.with_set_aside())), plain(thousands(idle.grown()))]);
        row.extend([mebibytes(idle.small), mebibytes(idle.with)]);
        row.extend(idle.ticking.map(|ticking| plain(thousands(ticking.cpu))));
        row.extend(idle.ticking.map(|ticking| plain(format!("{:.1}", ticking.wakeups))));
        row
    };
    let header = [
        "workload",
        "proxy",
        "bytes each",
        "of it grown",
        "MiB without",
        "MiB with",
        "CPU µs/s without",
        "with",
        "wake-ups/s without",
        "with",
    ];
    Table { title, header: header.map(str::to_owned).into(), rows: all.iter().map(row).collect() }
}

/// Memory once it has stopped moving.
fn settled(running: &Running) -> Outcome<u64> {
    let mut last = running.group.usage()?.memory_kib;
    for _ in 0..20 {
        pause(Duration::from_millis(250));
        let next = running.group.usage()?.memory_kib;
        if next.abs_diff(last) * 1000 <= last {
            return Ok(next);
        }
        last = next;
    }
    Ok(last)
}

/// Seconds that a contender is watched while nobody asks.
const WATCHED: u32 = 10;

/// Below the default limit of connections from one address.
const CONNECTIONS_PER_SOURCE: usize = 500;
