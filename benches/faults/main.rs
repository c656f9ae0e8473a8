//! Sluice beside Debian's nginx, HAProxy and Caddy while providers fail, while too much is asked of them, and while nobody can
//! answer: `cargo bench --bench faults`. `README.md` beside this file says how to read it.
//!
//! Each contender has a core, three providers and clients of its own; all of them go through the same fault at the same
//! time. All traffic stays on loopback, and everything that was started is stopped.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark reports to its terminal")]

mod contenders;
mod ladder;
mod ledger;
mod load;
mod overload;
mod plot;
#[allow(dead_code, reason = "the other benchmark uses the rest of it")]
#[path = "../proxy/process.rs"]
mod process;
#[allow(dead_code, reason = "the other benchmark uses the rest of it")]
#[path = "../proxy/progress.rs"]
mod progress;
mod provider;
mod report;
mod rows;
mod timer;
#[path = "../proxy/table.rs"]
mod table;
#[path = "../proxy/tools.rs"]
mod tools;

use clap::Parser;
use contenders::{Contender, Kind};
use ladder::{Ladder, Moments, Way};
use overload::Overload;
use process::Cores;
use progress::Progress;
use report::Report;
use rows::{Fault, Stage, Timing, Trial};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::task::JoinSet;

/// What a step comes to; an error is a sentence for the person at the terminal.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures Sluice beside nginx, HAProxy and Caddy while providers fail.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench --bench faults --")]
struct Arguments {
    /// Only these
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    only: Vec<Scene>,
    /// Only these methods: get, post
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_value = "get,post")]
    methods: Vec<String>,
    /// Shorter: to see that it works, not to publish
    #[arg(long)]
    quick: bool,
    /// Requests a second while providers fail, for each contender
    #[arg(long, value_name = "N", default_value_t = 200.0)]
    rate: f64,
    /// Seconds of overload (60)
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// The Sluice binary; by default the one cargo built beside this benchmark
    #[arg(long, value_name = "PATH")]
    sluice: Option<PathBuf>,
    /// Print the tables as Markdown
    #[arg(long)]
    markdown: bool,
    /// Draw the faults into this file
    #[arg(long, value_name = "PATH")]
    svg: Option<PathBuf>,
    /// Draw what came of the ladder, second by second, into this file
    #[arg(long, value_name = "PATH")]
    plot: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// What may be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    Fault(Fault),
    Overload,
    Ladder,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        // `cargo test --all-targets` runs benchmarks too, without this argument, and must not measure for minutes.
        println!("nothing measured: run `cargo bench --bench faults` (or pass --bench)");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if process::abandoned() => ExitCode::from(process::INTERRUPTED),
        Err(error) => {
            eprintln!("\nfaults benchmark: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Outcome<()> {
    tools::raise_open_files();
    let scratch = tempfile::Builder::new().prefix("sluice-bench-").tempdir()?;
    process::clean_up_on_signals(scratch.path())?;
    let timing = arguments.timing();
    let stage = Stage { scratch: scratch.path().to_owned(), cores: Cores::pick()?, timing };
    let mut warnings = Vec::new();
    let packages: Vec<&str> = Kind::ALL.iter().filter_map(|kind| kind.package()).collect();
    if let Err(error) = tools::install_missing(&packages) {
        warnings.push(error.to_string());
    }
    if !stage.cores.apart() {
        warnings.push("there is one core only; contenders share it with their load".to_owned());
    }
    let contenders = arguments.find_contenders(&mut warnings);
    let facts = tools::facts(&contenders);
    let mut report = Report { facts, timing, trials: Vec::new(), overloads: Vec::new(), ladders: Vec::new(), warnings };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(arguments.hold_all(&contenders, &stage, &mut report));
    if process::abandoned() {
        return Err("interrupted".into());
    }
    if arguments.markdown {
        print!("{}", report.page().markdown());
    } else {
        print!("{}", report.page().plain(table::colour_wanted()));
    }
    for (place, draw) in [(&arguments.svg, Report::svg as fn(&Report) -> String), (&arguments.plot, plot::svg)] {
        if let Some(place) = place {
            std::fs::write(place, draw(&report))
                .map_err(|error| format!("cannot write the picture to {}: {error}", place.display()))?;
        }
    }
    Ok(())
}

// === impl Arguments ===

impl Arguments {
    fn timing(&self) -> Timing {
        let seconds = |full: u64, quick: u64| Duration::from_secs(if self.quick { quick } else { full });
        Timing {
            rate: self.rate,
            before: seconds(2, 1),
            fault: seconds(6, 3),
            long_outage: seconds(60, 10),
            after: seconds(3, 2),
            moments: Moments::new(self.quick),
        }
    }

    fn has(&self, scene: Scene) -> bool {
        self.only.is_empty() || self.only.contains(&scene)
    }

    /// Those whose programs run.
    fn find_contenders(&self, warnings: &mut Vec<String>) -> Vec<Contender> {
        let mut found = Vec::new();
        for kind in Kind::ALL {
            let program = kind.package().map_or_else(|| Ok(self.sluice_program()), tools::need);
            match program.and_then(|program| Contender::find(kind, &program)) {
                Ok(contender) => found.push(contender),
                Err(error) => warnings.push(format!("{} took no part: {error}", kind.name())),
            }
        }
        found
    }

    /// What was named, or what cargo built beside this benchmark.
    fn sluice_program(&self) -> PathBuf {
        let built = option_env!("CARGO_BIN_EXE_sluice").unwrap_or("sluice");
        let named = self.sluice.clone().unwrap_or_else(|| built.into());
        // Contenders run in folders of their own, where a relative path leads nowhere.
        std::path::absolute(&named).ok().filter(|path| path.is_file()).unwrap_or(named)
    }

    async fn hold_all(&self, contenders: &[Contender], stage: &Stage, report: &mut Report) {
        let mut progress = Progress::new();
        for fault in Fault::ALL.into_iter().filter(|fault| self.has(Scene::Fault(*fault))) {
            for method in METHODS.into_iter().filter(|method| self.methods.contains(&method.to_ascii_lowercase())) {
                if process::abandoned() {
                    return;
                }
                progress.step(&format!("{}, {method}", fault.title(&stage.timing)));
                hold(fault, method, contenders, stage, report).await;
            }
        }
        if self.has(Scene::Overload) {
            let span = Duration::from_secs(self.seconds.unwrap_or(if self.quick { 5 } else { 60 }));
            for contender in contenders.iter().filter(|contender| contender.kind.queues()) {
                progress.step(&format!("overload of {}", contender.kind.name()));
                match Overload::hold(contender, span, &stage.scratch, stage.cores).await {
                    Ok(overload) => report.overloads.push(overload),
                    Err(error) => {
                        report.warnings.push(format!("{} was not overloaded: {error}", contender.kind.name()));
                    }
                }
            }
        }
        for way in Way::ALL.into_iter().filter(|_| self.has(Scene::Ladder)) {
            if process::abandoned() {
                return;
            }
            progress.step(&format!("ladder, {}", way.title()));
            climb(way, contenders, stage, report).await;
        }
        progress.clear();
    }
}

/// One outage for all contenders that have something to fall back on, at once.
async fn climb(way: Way, contenders: &[Contender], stage: &Stage, report: &mut Report) {
    let mut ladders = JoinSet::new();
    for contender in contenders.iter().filter(|contender| contender.kind.keeps()) {
        ladders.spawn(Ladder::hold(contender.clone(), way, stage.clone()));
    }
    let (mut held, mut running) = (Vec::new(), Vec::new());
    while let Some(ended) = ladders.join_next().await {
        match ended.map_err(Into::into).and_then(|ladder| ladder) {
            Ok((ladder, contender)) => {
                held.push(ladder);
                running.push(contender);
            }
            Err(error) => report.warnings.push(format!("ladder, {}: {error}", way.title())),
        }
    }
    held.sort_unstable_by_key(|ladder| ladder.kind);
    report.ladders.append(&mut held);
}

/// One fault for all contenders at once.
async fn hold(fault: Fault, method: &'static str, contenders: &[Contender], stage: &Stage, report: &mut Report) {
    let mut trials = JoinSet::new();
    for contender in contenders {
        trials.spawn(Trial::hold(contender.clone(), fault, method, stage.clone()));
    }
    let (mut held, mut running) = (Vec::new(), Vec::new());
    while let Some(ended) = trials.join_next().await {
        match ended.map_err(Into::into).and_then(|trial| trial) {
            Ok((trial, contender)) => {
                held.push(trial);
                running.push(contender);
            }
            Err(error) => report.warnings.push(format!("{}, {method}: {error}", fault.title(&stage.timing))),
        }
    }
    held.sort_unstable_by_key(|trial| trial.kind);
    for trial in held.iter().filter(|trial| trial.before > 0) {
        let (name, title) = (trial.kind.name(), fault.title(&stage.timing));
        report.warnings.push(format!("{title}, {method}: {} of {name}'s failed before the fault", trial.before));
    }
    report.trials.append(&mut held);
}

// === impl Scene ===

impl std::str::FromStr for Scene {
    type Err = String;

    fn from_str(name: &str) -> Result<Scene, String> {
        if name == "overload" {
            return Ok(Scene::Overload);
        }
        if name == "ladder" {
            return Ok(Scene::Ladder);
        }
        clap::ValueEnum::from_str(name, true).map(Scene::Fault).map_err(|_| {
            let names = Fault::ALL.iter().filter_map(clap::ValueEnum::to_possible_value);
            let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
            format!("there are {}, overload, ladder", names.join(", "))
        })
    }
}

const METHODS: [&str; 2] = ["GET", "POST"];
