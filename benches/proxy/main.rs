//! Sluice beside Debian's nginx and HAProxy, and Varnish where a cache answers, in one run: `cargo bench --bench proxy`.
//! `benches/README.md` says how to read it.
//!
//! Each contender has one worker on one core; the upstream and the load generator share another. Rounds are interleaved,
//! so that a ratio compares neighbours in time. All traffic stays on loopback, and everything that was started is stopped.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark reports to its terminal")]

mod arguments;
mod bench;
mod certificates;
mod checks;
mod client;
mod configuration;
mod contenders;
mod counted;
mod idle;
mod instructions;
mod latency;
mod load;
mod paced;
mod picture;
mod process;
mod progress;
mod report;
mod rounds;
mod scaling;
mod spread;
mod stage;
mod storm;
mod syscalls;
mod table;
mod targets;
mod tools;
mod upstream;
mod websocket;
mod wire;
mod workloads;

use arguments::Arguments;
use bench::Bench;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// What a step comes to; an error is a sentence for the person at the terminal.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let result = match words.get(1) {
        Some(word) if word == upstream::ARGUMENT => {
            upstream::serve(&words.get(2).map(PathBuf::from).unwrap_or_default())
        }
        Some(word) if word == load::ARGUMENT => load::make(&words[2..]),
        Some(word) if word == paced::ARGUMENT => paced::make(&words[2..]),
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
    Bench::prepare(arguments)?.run()
}
