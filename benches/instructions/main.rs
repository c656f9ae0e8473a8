//! User instructions of the steps on a request's way, held to what was accepted last:
//! `cargo bench --profile guard --bench instructions`.
//!
//! Time repeats to within a few per cent at best, and not at all on a busy machine; instructions repeat to within a fraction
//! of one. So this can fail a build: `./test` runs it. Each subject runs as a process of its own under valgrind's cachegrind
//! (its cache model off), once for so many turns and once for twice as many. The difference divided by the turns is what one
//! costs; start, stop and setting up drop out.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark reports to its terminal")]

mod accepted;
mod gateway;
mod subjects;

use accepted::{Accepted, Judged};
use clap::Parser;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;
use subjects::Subject;

/// What a request costs depends on the allocator, so it is the binary's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a step comes to; an error is a sentence for the person at the terminal.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Counts the user instructions of the steps on a request's way, and compares them with what was accepted last.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench --profile guard --bench instructions --")]
struct Arguments {
    /// Accept what is counted now as what each step costs
    #[arg(long)]
    accept: bool,
    /// Only do this, so often, without counting: to look into it with valgrind's callgrind
    #[arg(long, value_names = ["SUBJECT", "TURNS"], num_args = 2)]
    run: Option<Vec<String>>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.run {
        Some(run) => subjects::run(&run[0], &run[1]).map(|()| true),
        None => guard(arguments.accept),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Counts everything, prints it beside what was accepted, and says whether it stays within that.
fn guard(accept: bool) -> Outcome<bool> {
    let counted = count_all()?;
    let toolchain = toolchain()?;
    if accept {
        accepted::write(&toolchain, &counted)?;
    }
    let accepted = Accepted::read()?;
    println!("{:<44} {:>12} {:>12} {:>12} {:>8}", "instructions", "counted", "accepted", "ceiling", "");
    let mut over = Vec::new();
    for (name, count) in &counted {
        let judged = accepted.judge(name, *count);
        println!("{name:<44} {count:>12.1} {judged}");
        over.extend(matches!(judged, Judged::Over { .. } | Judged::Unknown).then_some(*name));
    }
    over.extend(accepted.names().filter(|name| !counted.iter().any(|(counted, _)| counted == name)));
    if over.is_empty() {
        return Ok(true);
    }
    let what = over.join("`, `");
    if accepted.toolchain != toolchain {
        println!(
            "\nwarning: `{what}` would not pass, but the ceilings were counted with other tools, so nothing follows.\n  \
             then: {}\n  now:  {toolchain}\nCheck out the commit before, and run this with `-- --accept` there and here to compare.",
            accepted.toolchain
        );
        return Ok(true);
    }
    eprintln!(
        "\nerror: `{what}`: above its ceiling, without one, or not there any more.\n\
         Find out what became dearer:  valgrind --tool=callgrind {} --run '{}' 1000\n\
         Take it out again; or, if it is worth that, accept the new counts and say why in the commit:\n  {ACCEPT}",
        std::env::current_exe()?.display(),
        over[0]
    );
    Ok(false)
}

/// Instructions of one turn of every subject. As many are counted at once as there are cores: a busy machine makes no
/// difference.
fn count_all() -> Outcome<Vec<(&'static str, f64)>> {
    let folder = tempfile::tempdir()?;
    let next = Mutex::new(0..subjects::ALL.len());
    let worker = || {
        let mut counted = Vec::new();
        loop {
            let taken = next.lock().map_err(|_| "another count failed")?.next();
            let Some(index) = taken else { return Ok(counted) };
            counted.push((index, count(&subjects::ALL[index], &folder.path().join(index.to_string()))?));
        }
    };
    let mut all: Vec<(usize, f64)> = thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        let ends = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err("a count panicked".into())));
        ends.collect::<Outcome<Vec<_>>>()
    })?
    .concat();
    all.sort_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(index, count)| (subjects::ALL[index].name, count)).collect())
}

/// Instructions of one turn.
fn count(subject: &Subject, file: &Path) -> Outcome<f64> {
    let once = whole_run(subject, subject.turns, file)?;
    let twice = whole_run(subject, 2 * subject.turns, file)?;
    let more = twice.checked_sub(once).ok_or("twice as many turns took fewer instructions")?;
    Ok(more as f64 / subject.turns as f64)
}

/// Instructions of a process, from its first to its last.
fn whole_run(subject: &Subject, turns: u64, file: &Path) -> Outcome<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", &format!("--cachegrind-out-file={}", file.display())])
        .arg(std::env::current_exe()?)
        .args(["--run", subject.name, &turns.to_string()])
        // What else stands there moves the stack, and with it what copying costs.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .map_err(|error| format!("cannot start valgrind: {error}; install it: apt-get install valgrind"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let own = said.lines().filter(|line| !line.starts_with("==") && !line.starts_with("--"));
        let first = own.take(FIRST_LINES).collect::<Vec<_>>().join("\n");
        return Err(format!("`{}` failed under valgrind:\n{first}", subject.name).into());
    }
    let text = fs::read_to_string(file)?;
    let count = text.lines().find_map(|line| line.strip_prefix("summary:")?.trim().parse().ok());
    Ok(count.ok_or("cachegrind left no summary")?)
}

/// What a count depends on beside the code.
fn toolchain() -> Outcome<String> {
    let says = |program: &str, argument: &str| -> Outcome<String> {
        let output = Command::new(program).arg(argument).output();
        let output = output.map_err(|error| format!("cannot start {program}: {error}; is it installed?"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // The C library and valgrind choose other code where the processor has these.
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let wide = if flags.split_whitespace().any(|flag| flag == "avx2") { "with AVX2" } else { "without AVX2" };
    let (rust, valgrind) = (says("rustc", "--version")?, says("valgrind", "--version")?);
    let library = says("getconf", "GNU_LIBC_VERSION").unwrap_or_else(|_| "another C library".to_owned());
    Ok(format!("{rust}, {valgrind}, {library}, {} {wide}", std::env::consts::ARCH))
}

/// Lines shown of what a run says that fails.
const FIRST_LINES: usize = 10;

/// How counts are accepted.
const ACCEPT: &str = "cargo bench --profile guard --bench instructions -- --accept";
