//! Sluice beside Debian's nginx and HAProxy, and Varnish where a cache answers, in one run: `cargo bench --bench proxy`.
//! `benches/README.md` says how to read it.
//!
//! Each contender has one worker on one core; the upstream and the load generator share another. Rounds are interleaved,
//! so that a ratio compares neighbours in time. All traffic stays on loopback, and everything that was started is stopped.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark reports to its terminal")]

mod certificates;
mod checks;
mod client;
mod configuration;
mod contenders;
mod idle;
mod instructions;
mod load;
mod process;
mod progress;
mod report;
mod rounds;
mod spread;
mod storm;
mod table;
mod tools;
mod upstream;
mod websocket;
mod wire;
mod workloads;

use certificates::Key;
use clap::Parser;
use contenders::{Contender, Kind, Running, Settings, Setup};
use idle::Idle;
use process::Cores;
use progress::Progress;
use report::Report;
use rounds::{Driver, Plan, Timing};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use storm::Storm;
use upstream::Upstream;
use workloads::{Choice, Face, Workload};

/// What a step comes to; an error is a sentence for the person at the terminal.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Measures Sluice beside nginx and HAProxy on this machine.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench --bench proxy --")]
struct Arguments {
    /// Timed rounds of each workload; 0 leaves the timing out
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds of one round
    #[arg(long, value_name = "S")]
    seconds: Option<u32>,
    /// Fewer and shorter rounds: to see that it works, not to publish
    #[arg(long)]
    quick: bool,
    /// Only these workloads, each a name or the beginning of several: h1, h2, tls, 1k, stream, tls-rsa, ...
    #[arg(long, visible_alias = "only", value_name = "A,B", value_delimiter = ',')]
    workloads: Vec<Choice>,
    /// Also count user instructions per request (valgrind)
    #[arg(long)]
    instructions: bool,
    /// Also measure the memory of idle connections
    #[arg(long)]
    idle: bool,
    /// How many idle connections
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "idle")]
    idle_connections: usize,
    /// Also measure the latency of established TLS connections while many clients shake hands
    #[arg(long)]
    storm: bool,
    #[command(flatten)]
    settings: Settings,
    /// The Sluice binary; by default the one cargo built beside this benchmark
    #[arg(long, value_name = "PATH")]
    sluice: Option<PathBuf>,
    /// Print the tables as Markdown
    #[arg(long)]
    markdown: bool,
    /// Draw the ratios against nginx into this file
    #[arg(long, value_name = "PATH")]
    svg: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// One run of the benchmark.
struct Bench {
    arguments: Arguments,
    stage: Stage,
    contenders: Vec<Contender>,
    /// What a contender failed to start for; it is not tried again.
    unable: BTreeSet<(Kind, Face)>,
    progress: Progress,
    report: Report,
}

/// What all contenders are given. The upstream ends before its folder goes.
struct Stage {
    upstream: Upstream,
    scratch: tempfile::TempDir,
    memory: tempfile::TempDir,
    cores: Cores,
    settings: Settings,
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let result = match words.get(1) {
        Some(word) if word == upstream::ARGUMENT => {
            upstream::serve(&words.get(2).map(PathBuf::from).unwrap_or_default())
        }
        Some(word) if word == load::ARGUMENT => load::make(&words[2..]),
        _ => run(Arguments::parse()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if process::abandoned() => ExitCode::from(process::INTERRUPTED),
        Err(error) => {
            eprintln!("\nproxy benchmark: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Outcome<()> {
    if !arguments.bench {
        // `cargo test --all-targets` runs benchmarks too, without this argument, and must not measure for minutes.
        println!("nothing measured: run `cargo bench --bench proxy` (or pass --bench)");
        return Ok(());
    }
    let mut bench = Bench::prepare(arguments)?;
    bench.time_all();
    bench.count_all();
    bench.hold_all();
    bench.storm_all();
    if process::abandoned() {
        return Err("interrupted".into());
    }
    bench.show()
}

// === impl Bench ===

impl Bench {
    fn prepare(arguments: Arguments) -> Outcome<Bench> {
        let files = tools::raise_open_files();
        let stage = Stage::set(arguments.settings)?;
        let mut report = Report::empty(arguments.plan());
        if let Err(error) = arguments.install_programs() {
            // What cannot be had is left out, or ends the run with a message of its own, below.
            report.warnings.push(error.to_string());
        }
        if !stage.cores.apart() {
            report.warnings.push("there is one core only; a contender shares it with its load".to_owned());
        }
        if arguments.idle && files < (arguments.idle_connections + CONNECTIONS) as u64 {
            report.warnings.push(format!("only {files} files may be open; raise `ulimit -n` or run as root"));
        }
        let (contenders, unable) = (Vec::new(), BTreeSet::new());
        let mut bench = Bench { arguments, stage, contenders, unable, progress: Progress::new(), report };
        bench.find_contenders()?;
        bench.report.facts = tools::facts(&bench.contenders);
        bench.report.facts.push(("settings", bench.arguments.settings.describe()));
        Ok(bench)
    }

    /// Those whose programs run; whether they do the job, is seen when they are started for it.
    fn find_contenders(&mut self) -> Outcome<()> {
        let faces = self.arguments.workloads_by_face();
        for kind in Kind::ALL.into_iter().filter(|kind| faces.keys().any(|face| kind.has(*face))) {
            let program = match kind {
                Kind::Sluice => Ok(self.arguments.sluice_program()),
                Kind::Nginx => tools::need("nginx"),
                Kind::Varnish => tools::need("varnishd"),
                Kind::Haproxy => tools::need("haproxy"),
            };
            match program.and_then(|program| Contender::find(kind, &program)) {
                Ok(contender) => self.contenders.push(contender),
                Err(error) => self.report.warnings.push(format!("{} took no part: {error}", kind.name())),
            }
        }
        if self.contenders.is_empty() {
            return Err(self.report.warnings.join("\n").into());
        }
        Ok(())
    }

    /// Starts every contender with this face; one that fails is left out of what is measured with it, and that is told.
    fn start_all(&mut self, face: Face) -> Vec<Running> {
        let mut running = Vec::new();
        for contender in &self.contenders {
            let name = contender.kind.name();
            if !contender.kind.has(face) || self.unable.contains(&(contender.kind, face)) {
                continue;
            }
            self.progress.step(&format!("starting {name} for {}", face.name()));
            match contender.start(&self.stage.setup(face)) {
                Ok(one) => running.push(one),
                Err(error) => {
                    self.progress.note(&format!("{name} is left out of {}: {error}", face.name()));
                    let reason = first_line(&*error);
                    self.report.warnings.push(format!("{name} took no part in {}: {reason}", face.name()));
                    self.unable.insert((contender.kind, face));
                }
            }
        }
        running
    }

    /// The timed rounds. Contenders that are not asked wait in the kernel and cost nothing.
    fn time_all(&mut self) {
        let plan = self.report.plan;
        if plan.rounds == 0 {
            return;
        }
        for (face, workloads) in self.arguments.workloads_by_face() {
            let running = self.start_all(face);
            for workload in workloads {
                if process::abandoned() {
                    return;
                }
                let driver = self.stage.driver();
                let timing = Timing::take(workload, &running, driver, plan, &mut self.progress);
                self.report.warnings.extend(timing.warnings());
                self.report.timings.push(timing);
            }
        }
    }

    /// User instructions of every workload.
    fn count_all(&mut self) {
        if !self.arguments.instructions {
            return;
        }
        if self.report.plan.rounds == 0 {
            // Who cannot do it is found out sooner without valgrind.
            for face in self.arguments.workloads_by_face().into_keys() {
                self.start_all(face);
            }
        }
        for workload in self.arguments.workloads() {
            let mut counts = BTreeMap::new();
            for contender in &self.contenders {
                if !contender.kind.has(workload.face) || self.unable.contains(&(contender.kind, workload.face)) {
                    continue;
                }
                let setup = self.stage.setup(workload.face);
                match instructions::per_request(contender, workload, &setup, &mut self.progress) {
                    Ok(count) => drop(counts.insert(contender.kind, count)),
                    Err(error) => {
                        let (name, title, reason) = (contender.kind.name(), workload.title, first_line(&*error));
                        self.report.warnings.push(format!("{name}, {title}: no instructions counted: {reason}"));
                    }
                }
            }
            self.report.instructions.push((workload, counts));
        }
    }

    /// Idle connections, one contender at a time.
    fn hold_all(&mut self) {
        if !self.arguments.idle {
            return;
        }
        let connections = self.arguments.idle_connections;
        for contender in self.contenders.iter().filter(|contender| contender.kind.has(Face::Http1)) {
            match Idle::take(contender, &self.stage.setup(Face::Http1), connections, &mut self.progress) {
                Ok(idle) => self.report.idle.push(idle),
                Err(error) => {
                    let name = contender.kind.name();
                    self.report
                        .warnings
                        .push(format!("{name}: {connections} idle connections could not be held: {error}"));
                }
            }
        }
    }

    /// Handshake storms, in interleaved rounds.
    fn storm_all(&mut self) {
        if !self.arguments.storm {
            return;
        }
        let running = self.start_all(Face::Tls(Key::P256));
        let driver = self.stage.driver();
        let plan = Plan { rounds: self.report.plan.rounds.clamp(1, MOST_STORMS), ..self.report.plan };
        self.report.storm = Storm::take(&running, driver, plan, &mut self.progress);
        self.report.warnings.append(&mut self.report.storm.warnings);
    }

    /// That hits were hits: a round or a count in which the upstream was asked has no figures.
    fn tell_hits(&mut self) {
        let hits: f64 = self.report.timings.iter().map(Timing::hits).sum();
        if hits > 0.0 {
            let said = format!("{} answers in timed rounds, of which the upstream saw none", table::thousands(hits));
            self.report.facts.push(("cache hits", said));
        }
    }

    fn show(&mut self) -> Outcome<()> {
        self.tell_hits();
        self.progress.clear();
        if self.arguments.markdown {
            print!("{}", self.report.page().markdown());
        } else {
            print!("{}", self.report.page().plain(table::colour_wanted()));
        }
        if let Some(place) = &self.arguments.svg {
            std::fs::write(place, self.report.svg())
                .map_err(|error| format!("cannot write the picture to {}: {error}", place.display()))?;
        }
        Ok(())
    }
}

// === impl Stage ===

impl Stage {
    fn set(settings: Settings) -> Outcome<Stage> {
        let scratch = tempfile::Builder::new().prefix("sluice-bench-").tempdir()?;
        process::clean_up_on_signals(scratch.path())?;
        let in_memory = if Path::new(MEMORY).is_dir() { Path::new(MEMORY) } else { scratch.path() };
        let memory = tempfile::Builder::new().prefix("sluice-bench-").tempdir_in(in_memory)?;
        process::remove_on_signals(memory.path());
        let cores = Cores::pick()?;
        certificates::write(scratch.path())?;
        let upstream = Upstream::start(scratch.path(), cores.driver)?;
        Ok(Stage { upstream, scratch, memory, cores, settings })
    }

    fn driver(&self) -> Driver<'_> {
        Driver::new(self.scratch.path(), self.upstream.address, self.cores)
    }

    fn setup(&self, face: Face) -> Setup<'_> {
        Setup {
            face,
            scratch: self.scratch.path(),
            memory: self.memory.path(),
            upstream: self.upstream.address,
            cores: self.cores.contender.to_string(),
            workers: 1,
            settings: self.settings,
            connections: CONNECTIONS,
            under: Vec::new(),
        }
    }
}

// === impl Arguments ===

impl Arguments {
    fn plan(&self) -> Plan {
        let (rounds, seconds) = if self.quick { (6, 1) } else { (15, 2) };
        Plan { rounds: self.rounds.unwrap_or(rounds), seconds: self.seconds.unwrap_or(seconds).max(1) }
    }

    fn workloads(&self) -> Vec<&'static Workload> {
        Choice::all_of(&self.workloads)
    }

    fn workloads_by_face(&self) -> BTreeMap<Face, Vec<&'static Workload>> {
        let mut faces = BTreeMap::<_, Vec<_>>::new();
        for workload in self.workloads() {
            faces.entry(workload.face).or_default().push(workload);
        }
        faces
    }

    /// What this run needs beside itself, from Debian.
    fn install_programs(&self) -> Outcome<()> {
        let wrk = self.rounds != Some(0) && self.workloads().iter().any(|workload| workload.by_wrk());
        let mut wanted = vec!["nginx", "haproxy"];
        let cache = self.workloads().iter().any(|workload| Kind::Varnish.has(workload.face));
        wanted.extend(cache.then_some("varnish"));
        wanted.extend(wrk.then_some("wrk"));
        wanted.extend(self.instructions.then_some("valgrind"));
        tools::install_missing(&wanted)
    }

    /// What was named, or what cargo built beside this benchmark.
    fn sluice_program(&self) -> PathBuf {
        let built = option_env!("CARGO_BIN_EXE_sluice").unwrap_or("sluice");
        let named = self.sluice.clone().unwrap_or_else(|| built.into());
        // Contenders run in folders of their own, where a relative path leads nowhere.
        std::path::absolute(&named).ok().filter(|path| path.is_file()).unwrap_or(named)
    }
}

/// The rest of what an error says was shown when it happened.
fn first_line(error: &dyn std::error::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Rounds of storms; each takes several times as long as others.
const MOST_STORMS: usize = 10;

/// Where Linux keeps files in memory.
const MEMORY: &str = "/dev/shm";

/// More connections than any workload opens, on both sides of a contender.
const CONNECTIONS: usize = 1024;
