//! What is asked for on the command line.

use crate::Outcome;
use crate::contenders::{Kind, Settings};
use crate::rounds::Plan;
use crate::tools;
use crate::workloads::{Choice, Face, Workload};
use clap::Parser;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Measures Sluice beside nginx and HAProxy on this machine.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench --bench proxy --")]
pub(crate) struct Arguments {
    /// Timed rounds of each workload; 0 leaves the timing out
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<usize>,
    /// Seconds of one round
    #[arg(long, value_name = "S")]
    pub(crate) seconds: Option<u32>,
    /// Fewer and shorter rounds: to see that it works, not to publish
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these workloads, each a name or the beginning of several: h1, h2, tls, 1k, stream, tls-rsa, ...
    #[arg(long, visible_alias = "only", value_name = "A,B", value_delimiter = ',')]
    pub(crate) workloads: Vec<Choice>,
    /// Also count user instructions per request (valgrind)
    #[arg(long)]
    pub(crate) instructions: bool,
    /// Also measure the memory of idle connections, and what goes on while nobody asks
    #[arg(long)]
    pub(crate) idle: bool,
    /// Also measure latency at a fixed rate
    #[arg(long)]
    pub(crate) latency: bool,
    /// Also count system calls per request (strace)
    #[arg(long)]
    pub(crate) syscalls: bool,
    /// Also compare one worker with two
    #[arg(long)]
    pub(crate) scaling: bool,
    /// How many idle connections
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "idle")]
    pub(crate) idle_connections: usize,
    /// Also measure the latency of established TLS connections while many clients shake hands
    #[arg(long)]
    pub(crate) storm: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Only Sluice: to give a build with instrumentation something to do, or to see one change
    #[arg(long)]
    pub(crate) alone: bool,
    /// The Sluice binary; by default the one cargo built beside this benchmark
    #[arg(long, value_name = "PATH")]
    pub(crate) sluice: Option<PathBuf>,
    /// Print the tables as Markdown
    #[arg(long)]
    pub(crate) markdown: bool,
    /// Draw the ratios against nginx into this file
    #[arg(long, value_name = "PATH")]
    pub(crate) svg: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

// === impl Arguments ===

impl Arguments {
    /// How the timed rounds are made.
    pub(crate) fn plan(&self) -> Plan {
        let (rounds, seconds) = if self.quick { (6, 1) } else { (15, 2) };
        Plan { rounds: self.rounds.unwrap_or(rounds), seconds: self.seconds.unwrap_or(seconds).max(1) }
    }

    /// What was chosen.
    pub(crate) fn workloads(&self) -> Vec<&'static Workload> {
        Choice::all_of(&self.workloads)
    }

    /// The same, in the order of what contenders are started for.
    pub(crate) fn workloads_by_face(&self) -> BTreeMap<Face, Vec<&'static Workload>> {
        let mut faces = BTreeMap::<_, Vec<_>>::new();
        for workload in self.workloads() {
            faces.entry(workload.face).or_default().push(workload);
        }
        faces
    }

    /// What this run needs beside itself, from Debian.
    pub(crate) fn install_programs(&self) -> Outcome<()> {
        let wrk = self.scaling || self.rounds != Some(0) && self.workloads().iter().any(|workload| workload.by_wrk());
        let mut wanted = Vec::new();
        if !self.alone {
            wanted.extend(["nginx", "haproxy"]);
            let cache = self.workloads().iter().any(|workload| Kind::Varnish.has(workload.face));
            wanted.extend(cache.then_some("varnish"));
        }
        wanted.extend(wrk.then_some("wrk"));
        wanted.extend(self.instructions.then_some("valgrind"));
        wanted.extend(self.syscalls.then_some("strace"));
        tools::install_missing(&wanted)
    }

    /// What was named, or what cargo built beside this benchmark.
    pub(crate) fn sluice_program(&self) -> PathBuf {
        let built = option_env!("CARGO_BIN_EXE_sluice").unwrap_or("sluice");
        let named = self.sluice.clone().unwrap_or_else(|| built.into());
        // Contenders run in folders of their own, where a relative path leads nowhere.
        std::path::absolute(&named).ok().filter(|path| path.is_file()).unwrap_or(named)
    }
}
