//! `sluice run`: the gateway until a signal ends it; and the same gateway for `sluice demo`.

use super::demo::{self, DemoOptions, Running};
use crate::gateway::{Gateway, Source};
use crate::server::handover::{HANDOVER_TIME, Predecessor, Program, Successor};
use crate::server::inherited::Inherited;
use crate::server::limits;
use crate::server::systemd::{self, Watchdog};
use crate::watch::Watch;
use std::io::Write;
use std::path::Path;
use std::pin::pin;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Serves until TERM, INT or QUIT, or until another process takes over; then drains. Returns the exit code: 0 after a whole
/// drain, 1 where it could not start or the drain was cut short.
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
    // Before any thread: this takes variables out of the environment.
    let activated = Inherited::activated()?;
    let program = program();
    let files = limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime for signals: {error}"))?;
    // Before anything is up: a signal that nobody handles yet would end the process.
    let signals = runtime.block_on(async { Signals::handle() });
    let mut signals = signals.map_err(|error| format!("signals cannot be handled: {error}"))?;
    let mut inherited = Predecessor::hands_over()?.unwrap_or(activated);
    let gateway = match Gateway::start_with(source.clone(), &mut inherited) {
        Ok(gateway) => gateway,
        Err(error) => {
            let problem = error.to_string();
            inherited.settle().0.inspect(|before| before.failed(&problem));
            return Err(problem);
        }
    };
    gateway.logs().install().map_err(|error| error.to_string())?;
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, pid = std::process::id(), config = %source.path.display(), "sluice is running");
    report(&gateway, files);
    // What was accepted so far is under way by then, so nobody hears of a process that only half serves.
    runtime.block_on(gateway.workers_answer()());
    take_over(&gateway, inherited);
    let watchdog = Watchdog::start(gateway.workers_answer());
    let watchdog = watchdog.unwrap_or_else(|error| {
        tracing::warn!(%error, "no thread for the watchdog: the service manager will restart this process");
        None
    });
    systemd::ready(SERVING);
    let watch = watch(&gateway);
    let mut end = runtime.block_on(live(&gateway, &mut signals, &program));
    drop(watch);
    // The process that took over speaks for itself.
    let watchdog = watchdog.filter(|_| matches!(end, End::Told(_)));
    let whole = runtime.block_on(drain(&gateway, &mut signals, &mut end));
    drop(watchdog);
    gateway.stop();
    if let End::Told(Some(mut child)) = end {
        // It was told to end when this process was, and had as long. Most have ended.
        let _: std::io::Result<()> = child.kill();
    }
    Ok(i32::from(!whole))
}

/// What USR2 starts. Where that cannot be found out, all else works.
fn program() -> std::io::Result<Program> {
    let mut program = Program::of_this_process()?;
    program.without = systemd::variables_of_this_process();
    Ok(program)
}

/// Tells the process before, if there is one, that it may go.
fn take_over(gateway: &Gateway, inherited: Inherited) {
    if let (Some(before), adopted) = inherited.settle() {
        match before.ready(adopted) {
            Ok(()) => tracing::info!(before = %before.pid, "taken over from the process before"),
            Err(error) => tracing::warn!(%error, "the process before did not say that it accepts no more"),
        }
        gateway.own();
    }
}

/// Why a gateway ends.
enum End {
    /// It was told to; a new process, that was on its way and was told as well.
    Told(Option<Child>),
    /// A new process has taken over.
    Replaced,
}

/// Follows signals until the gateway is to end.
async fn live(gateway: &Gateway, signals: &mut Signals, program: &std::io::Result<Program>) -> End {
    loop {
        tokio::select! {
            _ = signals.reload.recv() => reload(gateway),
            _ = signals.reopen.recv() => reopen_logs(gateway),
            _ = signals.replace.recv() => {
                if let Some(end) = replace(gateway, signals, program).await {
                    return end;
                }
            }
            () = signals.ends.next() => return End::Told(None),
        }
    }
}

/// Reads the file again. What came of it is in the log, the metrics and the API.
fn reload(gateway: &Gateway) {
    systemd::reloading();
    let outcome = gateway.reload();
    systemd::ready(if outcome.is_ok() { SERVING } else { "Serving; the latest reload was rejected, see the log" });
}

/// Has a new process take over. `None` where it did not: then everything is as it was.
async fn replace(gateway: &Gateway, signals: &mut Signals, program: &std::io::Result<Program>) -> Option<End> {
    if std::process::id() == 1 {
        tracing::error!(
            "USR2 is refused: this is process 1, and its container would end with it; replace the container instead"
        );
        return None;
    }
    let program = match program {
        Ok(program) => program,
        Err(error) => {
            tracing::error!(%error, "USR2 is refused: at the start it was not to be found out where this program lies; is /proc mounted?");
            return None;
        }
    };
    let started = gateway.share().and_then(|sockets| Ok((sockets, Successor::start(program)?)));
    let (sockets, mut successor) = match started {
        Ok(started) => started,
        Err(error) => {
            stay(gateway, &format!("{} cannot be started: {error}", program.path.display()));
            return None;
        }
    };
    let pid = successor.pid();
    tracing::info!(pid, program = %program.path.display(), "USR2: a new process is started to take over");
    systemd::status(&format!("Serving; process {pid} is about to take over"));
    let mut reload_asked = false;
    let took = {
        // What only one process may hold is let go of here, once there is such a thing.
        let takes = tokio::time::timeout(HANDOVER_TIME, successor.takes_over(sockets, async || {}));
        let mut takes = pin!(takes);
        loop {
            tokio::select! {
                biased;
                took = takes.as_mut() => break Some(took),
                () = signals.ends.next() => break None,
                _ = signals.replace.recv() => {
                    tracing::warn!(pid, "USR2 is refused: a new process is on its way already");
                }
                _ = signals.reopen.recv() => reopen_logs(gateway),
                _ = signals.reload.recv() => {
                    reload_asked = true;
                    systemd::reloading();
                    systemd::ready("Serving; a new process is about to take over and reads the file itself");
                }
            }
        }
    };
    let failed = match took {
        None => return Some(End::Told(Some(successor.interrupt()))),
        Some(Ok(Ok(adopted))) => {
            systemd::main_process(pid, SERVING);
            gateway.hand_over(&adopted);
            tracing::info!(pid, addresses = adopted.len(), "the new process has taken over");
            follow(pid, successor.over().await);
            return Some(End::Replaced);
        }
        Some(Ok(Err(error))) => error.to_string(),
        Some(Err(_)) => format!("it was not ready within {} s", HANDOVER_TIME.as_secs()),
    };
    let how = successor.end().await.map_or_else(|| "it was killed".to_owned(), |status| status.to_string());
    stay(gateway, &format!("process {pid}: {} ({how})", failed.trim_end()));
    if reload_asked {
        reload(gateway);
    }
    None
}

/// Goes on as if nobody had asked for a new process.
fn stay(gateway: &Gateway, why: &str) {
    gateway.keep();
    tracing::error!(
        %why,
        "the new process did not take over, this one goes on serving; mend what it says (`sluice check`), then send USR2 again"
    );
    systemd::status("Serving; the latest hand-over failed, see the log");
}

/// Says so if the new process ends while this one still drains: then nobody takes new clients.
fn follow(pid: u32, mut child: Child) {
    let wait = move || {
        if let Ok(status) = child.wait() {
            tracing::error!(pid, %status, "the process that took over has ended; start the gateway anew");
        }
    };
    // Without a thread nobody says so, and the next look at the service does.
    let _: std::io::Result<_> = std::thread::Builder::new().name("successor".to_owned()).spawn(wait);
}

/// Lets everything under way come to its end; whether it did.
async fn drain(gateway: &Gateway, signals: &mut Signals, end: &mut End) -> bool {
    let grace = gateway.config().shutdown_grace;
    // One that was replaced drains on its own account: a service that is stopped meanwhile tells all its processes at once.
    let mut told = matches!(end, End::Told(_));
    let ends = async {
        if let End::Told(_) = end {
            systemd::stopping(&format!("Draining, for at most {} s", grace.as_secs()));
            gateway.leave();
            let delay = gateway.config().shutdown_delay;
            if !delay.is_zero() {
                tracing::info!(?delay, "not ready any more, and still accepting; a second signal stops at once");
                tokio::time::sleep(delay).await;
            }
        }
        tracing::info!(?grace, "draining; a second signal stops at once");
        let other = async {
            if let End::Told(Some(child)) = end {
                while matches!(child.try_wait(), Ok(None)) {
                    tokio::time::sleep(LOOK_PAUSE).await;
                }
            }
        };
        // A new process that was on its way may have taken clients at the last moment: it has as long.
        tokio::join!(gateway.drain(grace), tokio::time::timeout(grace, other)).0
    };
    let mut ends = pin!(ends);
    loop {
        tokio::select! {
            whole = ends.as_mut() => {
                if whole {
                    tracing::info!("all that was under way has ended; stopping");
                } else {
                    tracing::warn!(connections = gateway.connections(), "the grace is over; what is still under way is cut");
                }
                return whole;
            }
            () = signals.ends.next() => {
                if told {
                    tracing::warn!(connections = gateway.connections(), "a second signal; what is still under way is cut");
                    return false;
                }
                told = true;
                tracing::info!("told to stop, and draining already; a second signal stops at once");
            }
            _ = signals.replace.recv() => tracing::warn!("USR2 is refused: this process is on its way out"),
            _ = signals.reopen.recv() => reopen_logs(gateway),
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

/// What a service manager shows while all is well.
const SERVING: &str = "Serving";

/// Between two looks at whether a process has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

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
