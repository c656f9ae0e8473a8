//! What people type: one file per command, and the arguments of all of them here.

pub mod check;
pub mod demo;
pub mod explain;
pub mod healthcheck;
pub mod run;
pub mod schema;

use crate::config::ProcessEnvironment;
use crate::gateway::Source;
use clap::{Args, Parser, Subcommand};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// An HTTP front door for services whose providers are slow, rate-limited and sometimes down.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, about, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    file: File,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Which configuration.
#[derive(Debug, Clone, Args)]
struct File {
    /// The configuration file [default: gateway.yaml; of `demo`: one that is built in]
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests (the default)
    Run,
    /// Check the configuration: every problem at once; exit code 1 if there is one
    Check,
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Say what would happen to a request, without sending it
    Explain(explain::Explain),
    /// Try it: three sample providers that misbehave, the gateway, and a short load
    Demo(Demo),
    /// Ask a running gateway whether it is well; exit code 0 if it is
    Healthcheck {
        /// The admin listener
        #[arg(long, value_name = "URL", env = "SLUICE_ADMIN", default_value = "http://127.0.0.1:9900")]
        admin: String,
    },
}

#[derive(Debug, Args)]
struct Demo {
    /// End after this many seconds of load instead of staying up
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Send no load; try it by hand
    #[arg(long)]
    no_load: bool,
}

/// Runs the command that the arguments ask for.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let named = arguments.file.config;
    let path = named.clone().unwrap_or_else(|| PathBuf::from(USUAL_FILE));
    let code = match arguments.command.unwrap_or(Command::Run) {
        Command::Run => run::run(&source(path)),
        Command::Check => check::check(&path, &ProcessEnvironment, &mut io::stdout().lock(), colours()),
        Command::Schema => print(&format!("{:#}\n", schema::schema())),
        Command::Explain(request) => explain::explain(&request, &path, &ProcessEnvironment, &mut io::stdout().lock()),
        Command::Demo(demo) => run::demo(&demo_options(&demo, named)),
        Command::Healthcheck { admin } => healthcheck::healthcheck(&admin),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The file at `path`, with this process's environment.
fn source(path: PathBuf) -> Source {
    Source { path, environment: Arc::new(ProcessEnvironment) }
}

/// The demo has a configuration of its own unless one is named.
fn demo_options(demo: &Demo, config: Option<PathBuf>) -> demo::DemoOptions {
    demo::DemoOptions { config, seconds: demo.seconds, load: !demo.no_load }
}

/// Whether standard output takes colours.
fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes to standard output. A reader that has gone (`| head`) is no error.
fn print(text: &str) -> i32 {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => 1,
        _ => 0,
    }
}

/// The configuration file where none is named.
const USUAL_FILE: &str = "gateway.yaml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_may_be_named_in_every_way_and_place() {
        for line in ["sluice -c a demo", "sluice demo --config a", "sluice demo --config=a", "sluice demo -ca"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).expect("valid arguments");
            assert_eq!(arguments.file.config.as_deref(), Some(std::path::Path::new("a")), "{line}");
        }
    }
}
