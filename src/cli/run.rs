//! `sluice run`: the gateway until a signal ends it; and the same gateway for `sluice demo`.

use super::demo::{self, DemoOptions, Running};
use crate::gateway::{Gateway, Source};
use crate::server::limits;
use crate::watch::Watch;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Serves until TERM, INT or QUIT, then drains. Returns the exit code: 0 after a whole drain, 1 where it could not start or
/// the drain was cut short.
pub fn run(source: &Source) -> i32 {
    match serve(source) {
        Ok(code) => code,
        Err(problem) => complain(&problem),
    }
}

/// Runs the demo around a gateway.
pub fn demo(options: &DemoOptions) -> i32 {
    demo::run(options, start_for_demo)
}

fn serve(source: &Source) -> Result<i32, String> {
    let files = limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime for signals: {error}"))?;
    // Before anything is up: a signal that nobody handles yet would end the process.
    let signals = runtime.block_on(async { Signals::handle() });
    let mut signals = signals.map_err(|error| format!("signals cannot be handled: {error}"))?;
    let gateway = Gateway::start(source.clone()).map_err(|error| error.to_string())?;
    gateway.logs().install().map_err(|error| error.to_string())?;
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, pid = std::process::id(), config = %source.path.display(), "sluice is running");
    report(&gateway, files);
    let watch = watch(&gateway);
    let whole = runtime.block_on(live(&gateway, &mut signals));
    drop(watch);
    gateway.stop();
    Ok(i32::from(!whole))
}

/// Follows signals until one of them ends the gateway; whether everything under way came to its end.
async fn live(gateway: &Gateway, signals: &mut Signals) -> bool {
    loop {
        tokio::select! {
            // What came of a reload is in the log, the metrics and the API.
            _ = signals.reload.recv() => drop(gateway.reload()),
            _ = signals.reopen.recv() => reopen_logs(gateway),
            _ = signals.replace.recv() => {
                tracing::warn!("USR2 does nothing yet: handing over to a new process is not built");
            }
            () = signals.ends.next() => break,
        }
    }
    let grace = gateway.config().shutdown_grace;
    tracing::info!(grace = ?grace, "draining; a second signal stops at once");
    tokio::select! {
        whole = gateway.drain(grace) => {
            if whole {
                tracing::info!("all that was under way has ended; stopping");
            } else {
                tracing::warn!(connections = gateway.connections(), "the grace is over; what is still under way is cut");
            }
            whole
        }
        () = signals.ends.next() => {
            tracing::warn!(connections = gateway.connections(), "a second signal; what is still under way is cut");
            false
        }
    }
}

/// The signals a gateway follows.
struct Signals {
    reload: Signal,
    reopen: Signal,
    replace: Signal,
    ends: Ends,
}

/// Those that end it.
struct Ends([Signal; 3]);

// === impl Signals ===

impl Signals {
    /// Takes them over from their default actions.
    fn handle() -> std::io::Result<Self> {
        Ok(Signals {
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            replace: signal(SignalKind::user_defined2())?,
            ends: Ends([
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::quit())?,
            ]),
        })
    }
}

// === impl Ends ===

impl Ends {
    /// Waits for the next of them.
    async fn next(&mut self) {
        let [terminate, interrupt, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

fn reopen_logs(gateway: &Gateway) {
    match gateway.logs().reopen() {
        Ok(()) => tracing::info!("the log file is open anew"),
        Err(error) => tracing::error!(%error, "the log file cannot be opened anew; the old one stays in use"),
    }
}

/// Watches the configuration and the files it names; without a watch, signals and the API still reload.
fn watch(gateway: &Gateway) -> Option<Watch> {
    let reload = gateway.reloader();
    let watch = Watch::start(gateway.files(), gateway.reloader());
    // It may have changed between the start and the watch.
    reload();
    watch.map_err(|error| tracing::warn!(%error, "the configuration is not watched; reload by SIGHUP or the API")).ok()
}

/// What this machine gives us, once, where an operator looks first.
fn report(gateway: &Gateway, files: std::io::Result<limits::OpenFiles>) {
    tracing::info!(listener = "admin", address = %gateway.admin_address(), "listening");
    match files {
        Ok(files) => {
            gateway.set_open_files_limit(files.soft);
            tracing::info!(soft = files.soft, hard = files.hard, was = files.was, "limit of open files");
        }
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
    let memory = limits::memory();
    tracing::info!(limit = memory.limit, source = ?memory.source, cores = limits::cores(), "memory and cores");
}

fn start_for_demo(config: Option<&Path>) -> Result<Running, String> {
    let folder = DemoFolder::with(config)?;
    let source = super::source(folder.path.clone());
    let gateway = Gateway::start(source).map_err(|error| error.to_string())?;
    gateway.logs().install().map_err(|error| error.to_string())?;
    let first = gateway.config().listeners.first().map(|listener| Arc::clone(&listener.name));
    let web = first.and_then(|name| gateway.address(&name)).ok_or("the configuration has no listener")?;
    let admin = gateway.admin_address();
    let log = folder.log.clone();
    let stop = Box::new(move || {
        let grace = gateway.config().shutdown_grace;
        tokio::runtime::Handle::current().block_on(gateway.drain(grace));
        gateway.stop();
        drop(folder);
    });
    Ok(Running { web, admin, log, stop })
}

/// The file the demo runs from. The built-in one is written to a temporary folder, so that it is read the way any file is.
struct DemoFolder {
    path: std::path::PathBuf,
    /// The built-in configuration logs here, since standard output is the demo's own.
    log: Option<std::path::PathBuf>,
}

// === impl DemoFolder ===

impl DemoFolder {
    fn with(config: Option<&Path>) -> Result<Self, String> {
        if let Some(path) = config {
            return Ok(DemoFolder { path: path.to_owned(), log: None });
        }
        let folder = std::env::temp_dir().join(format!("sluice-demo-{}", std::process::id()));
        let path = folder.join("gateway.yaml");
        let log = folder.join("sluice.log");
        std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, logging_to(&log))).map_err(|error| {
            format!("cannot write {}: {error}; set TMPDIR to a folder that can be written", path.display())
        })?;
        Ok(DemoFolder { path, log: Some(log) })
    }
}

impl Drop for DemoFolder {
    fn drop(&mut self) {
        if let (Some(_), Some(folder)) = (&self.log, self.path.parent()) {
            // What is left behind in a temporary folder harms nobody.
            let _: std::io::Result<()> = std::fs::remove_dir_all(folder);
        }
    }
}

/// The built-in configuration, its log in a file.
fn logging_to(file: &Path) -> String {
    let file = file.display().to_string().replace('$', "$$").replace('\'', "''");
    BUILT_IN.replacen("\nlog: { ", &format!("\nlog: {{ file: '{file}', "), 1)
}

fn complain(problem: &str) -> i32 {
    // With standard error gone there is nobody left to tell.
    let _: std::io::Result<()> = writeln!(std::io::stderr(), "sluice: {problem}");
    1
}

/// The documented example, as `sluice demo` runs it.
const BUILT_IN: &str = include_str!("../../gateway.yaml");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, ProcessEnvironment};

    #[test]
    fn the_demo_logs_to_the_file_it_names() {
        let file = Path::new("/tmp/it's $HOME/sluice.log");
        let loaded = config::parse("gateway.yaml", logging_to(file).as_bytes(), &ProcessEnvironment);
        assert_eq!(loaded.expect("the built-in configuration is valid").config.log.file.as_deref(), Some(file));
    }
}
