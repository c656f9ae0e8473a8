//! The proxies under test: how each is started, and given up on. `configuration.rs` has their configurations, `checks.rs`
//! sees whether they do the job.
//!
//! The job: one worker unless scaling is measured, keep-alive to clients and to the upstream, no access log unless asked
//! for, and the fields that Sluice writes written by everyone (`checks.rs` names them). The
//! upstream is asked what it really received, so a contender that does less than the others is not measured.

use crate::Outcome;
use crate::certificates::{Files, Key};
use crate::checks;
use crate::client;
use crate::configuration;
use crate::process::{Group, now, pause};
use crate::upstream;
use crate::workloads::{Face, Workload};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A proxy that takes part.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    /// Which one.
    pub(crate) kind: Kind,
    /// The program.
    pub(crate) program: PathBuf,
    /// What it says its version is.
    pub(crate) version: String,
}

/// The proxies this benchmark knows. To add one: a variant, its name, its configuration and command line in
/// `configuration.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Ours.
    Sluice,
    /// Debian's nginx.
    Nginx,
    /// Debian's Varnish, for what is answered from a cache.
    Varnish,
    /// Debian's HAProxy.
    Haproxy,
}

/// How contenders are configured.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Settings {
    /// Every contender writes its access log to a file
    #[arg(long)]
    pub(crate) access_log: bool,
    /// nginx and HAProxy only forward: they write none of the fields that Sluice does
    #[arg(long)]
    pub(crate) bare_peers: bool,
    /// nginx reads answers in pieces of 16 KiB, as HAProxy does, instead of its default of 4 KiB
    #[arg(long)]
    pub(crate) large_buffers: bool,
}

/// What a contender is started for.
#[derive(Debug, Clone)]
pub(crate) struct Setup<'a> {
    /// What it shows to clients.
    pub(crate) face: Face,
    /// Files of this run, the certificates among them.
    pub(crate) scratch: &'a Path,
    /// A folder in memory, if there is such a thing.
    pub(crate) memory: &'a Path,
    /// Where requests go; [`Setup::providers`] are the same under several addresses.
    pub(crate) upstream: SocketAddr,
    /// The contender's cores, as `taskset` takes them.
    pub(crate) cores: String,
    /// Its workers, or threads.
    pub(crate) workers: usize,
    /// What was asked for on the command line.
    pub(crate) settings: Settings,
    /// Connections it must be able to hold at once, to both sides.
    pub(crate) connections: usize,
    /// A program and its arguments to run the contender under, as a single process; it may be slow.
    pub(crate) under: Vec<String>,
}

/// A contender that runs and answers.
#[derive(Debug)]
pub(crate) struct Running {
    /// Which one.
    pub(crate) kind: Kind,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its processes.
    pub(crate) group: Group,
}

// === impl Kind ===

impl Kind {
    /// In the order they are shown.
    pub(crate) const ALL: [Kind; 4] = [Kind::Sluice, Kind::Nginx, Kind::Varnish, Kind::Haproxy];

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Sluice => "Sluice",
            Kind::Nginx => "nginx",
            Kind::Varnish => "Varnish",
            Kind::Haproxy => "HAProxy",
        }
    }

    /// Whether it takes part with this face at all.
    pub(crate) fn has(self, face: Face) -> bool {
        self != Kind::Varnish || face == Face::Cache
    }

    /// Those that Sluice is compared with at this face.
    pub(crate) fn peers(face: Face) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| *kind != Kind::Sluice && kind.has(face))
    }

    fn version_argument(self) -> &'static str {
        match self {
            Kind::Sluice => "--version",
            Kind::Nginx | Kind::Haproxy => "-v",
            Kind::Varnish => "-V",
        }
    }
}

// === impl Settings ===

impl Settings {
    /// For the head of a report.
    pub(crate) fn describe(self) -> String {
        let log = if self.access_log { "access log on" } else { "access log off" };
        let fields = if self.bare_peers { ", peers add no fields" } else { "" };
        let buffers = if self.large_buffers { ", nginx with buffers of 16 KiB" } else { "" };
        format!("one worker each, {log}{fields}{buffers}")
    }
}

// === impl Contender ===

impl Contender {
    /// A contender whose program runs, with the version it prints.
    pub(crate) fn find(kind: Kind, program: &Path) -> Outcome<Contender> {
        let output = Command::new(program).arg(kind.version_argument()).output();
        let output = output.map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let words = text.lines().next().unwrap_or("").split([' ', '/', '(', '-']);
        let version = words.filter(|word| !word.is_empty()).find(|word| word.contains('.'));
        let version = version.unwrap_or("of unknown version").trim_start_matches("varnish-").to_owned();
        Ok(Contender { kind, program: program.to_owned(), version })
    }

    /// Starts it and waits until it answers as it should.
    pub(crate) fn start(&self, setup: &Setup) -> Outcome<Running> {
        let address = free_address()?;
        let home = setup.scratch.join(format!("{}-{}", self.kind.name(), address.port()));
        // Whoever had this port before is gone.
        let _ = fs::remove_dir_all(&home);
        fs::create_dir(&home)?;
        let file = home.join(if self.kind == Kind::Sluice { "gateway.yaml" } else { "conf" });
        fs::write(&file, configuration::text(self.kind, setup, &home, address.port())?)?;

        let mut line = setup.under.clone();
        line.push(self.program.display().to_string());
        line.extend(configuration::arguments(self.kind, setup, &file, address));
        let group = Group::start(Path::new(&line[0]), &line[1..], &setup.cores, &home.join("output"))?;
        let mut running = Running { kind: self.kind, address, group };
        let patience = if setup.under.is_empty() { PATIENCE } else { PATIENCE_INSTRUMENTED };
        running.wait_until_it_answers(setup, patience)?;
        let fields = self.kind == Kind::Sluice || !setup.settings.bare_peers;
        for workload in Workload::of(setup.face) {
            let missed = upstream::asked_for_kept(setup.upstream)?;
            checks::check_answer(workload, address, setup.scratch, fields)
                .map_err(|error| format!("{error} ({})\n  it printed:\n{}", workload.title, running.said()))?;
            let asked = upstream::asked_for_kept(setup.upstream)? - missed;
            if asked > 1 || workload.status == 304 && asked > 0 {
                return Err(format!("{}: it asked the upstream again", workload.title).into());
            }
        }
        Ok(running)
    }
}

// === impl Setup ===

impl Setup<'_> {
    /// The certificate to show, where there is one.
    pub(crate) fn files(&self) -> Option<Files> {
        let key: Option<Key> = if let Face::Tls(key) = self.face { Some(key) } else { None };
        key.map(|key| key.files(self.scratch))
    }

    /// From one health check of a provider to the next. Those of a hundred would show in what is counted.
    pub(crate) fn check_interval(&self) -> &'static str {
        if self.face == Face::Many { "60s" } else { "5s" }
    }

    /// Where the providers are: the upstream, under as many addresses as there should be providers.
    pub(crate) fn providers(&self) -> Vec<SocketAddr> {
        let count = if self.face == Face::Many { upstream::ADDRESSES } else { 2 };
        (0..count).map(|at| upstream::address(self.upstream.port(), at)).collect()
    }
}

// === impl Running ===

impl Running {
    fn wait_until_it_answers(&mut self, setup: &Setup, patience: Duration) -> Outcome<()> {
        let deadline = now() + patience;
        loop {
            let tried = match Workload::of(setup.face).next() {
                Some(workload) if !workload.by_wrk() => checks::ask_once(workload, self.address, setup.scratch),
                _ => client::fetch(self.address, "GET /1k", b"").map(drop),
            };
            let Err(problem) = tried else { return Ok(()) };
            let fate = match (self.group.alive(), now() < deadline) {
                (true, true) => {
                    pause(Duration::from_millis(20));
                    continue;
                }
                (true, false) => format!("did not answer within {} s ({problem})", patience.as_secs()),
                (false, _) => format!("ended: {}", self.group.last_words().lines().next().unwrap_or_default()),
            };
            return Err(format!("it {fate}\n  it printed:\n{}", self.said()).into());
        }
    }

    fn said(&self) -> String {
        indent(&self.group.last_words())
    }
}

// === small things ===

/// A loopback address whose port was free a moment ago.
pub(crate) fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// How long a contender may take until its first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same under valgrind.
const PATIENCE_INSTRUMENTED: Duration = Duration::from_mins(2);
