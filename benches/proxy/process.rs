//! Processes the benchmark starts: pinned to a core, read through `/proc`, and never left behind.
//!
//! Every child leads a process group of its own, so that a server and its workers are measured and stopped as one. Three
//! things end a group: dropping its handle, a signal to the benchmark (a watcher thread stops all groups), and the death
//! of the benchmark itself (the kernel then sends TERM to the child, asked for by `setpriv`).

use crate::Outcome;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use sluice::instant::Instant;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// What runs where: the contender alone on one core, everything that drives it on another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    /// The contender's core.
    pub(crate) contender: usize,
    /// The core of the upstream and the load generator.
    pub(crate) driver: usize,
}

/// A child and whatever it forked.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    pid: Pid,
    log: PathBuf,
}

/// A pinned program that is talked to, a line at a time, over its standard input and output; it ends with its handle.
#[derive(Debug)]
pub(crate) struct Conversation {
    child: Child,
    pid: Pid,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// What a group has used up and holds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Time on a processor, user and system, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Proportional set size, in KiB: pages shared inside the group are counted once.
    pub(crate) memory_kib: u64,
    /// How often its threads left a processor to wait, or because others wanted it.
    pub(crate) switches: u64,
}

/// What has to be undone if the benchmark is interrupted.
struct Unfinished {
    groups: Vec<Pid>,
    folders: Vec<PathBuf>,
    abandoned: bool,
}

// === impl Cores ===

impl Cores {
    /// The first and the last core this process may use; the same one twice if there is only one.
    pub(crate) fn pick() -> Outcome<Cores> {
        let status = fs::read_to_string("/proc/self/status")?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let allowed = list.map(parse_core_list).unwrap_or_default();
        match (allowed.first(), allowed.last()) {
            (Some(&contender), Some(&driver)) => Ok(Cores { contender, driver }),
            _ => Err("/proc/self/status names no core this process may use".into()),
        }
    }

    /// Whether the contender has its core for itself.
    pub(crate) fn apart(self) -> bool {
        self.contender != self.driver
    }
}

// === impl Group ===

impl Group {
    /// Starts `program` on `cores` (one, or a list as `taskset` takes it) in a group of its own; what it prints goes to `log`.
    pub(crate) fn start<S: AsRef<OsStr>>(
        program: &Path,
        args: &[S],
        cores: impl Display,
        log: &Path,
    ) -> Outcome<Group> {
        let file = File::create(log)?;
        let child = pinned(program, args, &cores)
            .current_dir(log.parent().unwrap_or(Path::new("/")))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("cannot start {} on core {cores}: {error}", program.display()))?;
        let pid = Pid::from_child(&child);
        unfinished(|all| all.groups.push(pid));
        Ok(Group { child, pid, log: log.to_owned() })
    }

    /// Whether the leader still runs.
    pub(crate) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what the group printed, for a message.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        if last.is_empty() { "nothing".to_owned() } else { last }
    }

    /// What all processes of the group have used and hold at this moment.
    pub(crate) fn usage(&self) -> Outcome<Usage> {
        let mut sum = Usage::default();
        for process in members(self.pid)? {
            sum.cpu_ns += cpu_of(&process)?;
            sum.memory_kib += memory_of(&process)?;
            sum.switches += switches_of(&process)?;
        }
        if sum.cpu_ns == 0 {
            return Err(format!("process {} is gone:\n{}", self.pid.as_raw_nonzero(), self.last_words()).into());
        }
        Ok(sum)
    }

    /// Asks the group to end, waits, and insists after a while. The leader's status, if it could be had.
    pub(crate) fn stop(&mut self) -> Option<ExitStatus> {
        // The group may be gone already; then there is nothing to signal.
        let _ = kill_process_group(self.pid, Signal::TERM);
        let status = self.wait(STOP_PATIENCE / 2).or_else(|| {
            let _ = kill_process_group(self.pid, Signal::TERM);
            self.wait(STOP_PATIENCE / 2)
        });
        if status.is_none() || test_kill_process_group(self.pid).is_ok() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        unfinished(|all| all.groups.retain(|pid| *pid != self.pid));
        status.or_else(|| self.child.wait().ok())
    }

    /// Waits for the leader to end by itself.
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if now() < deadline => pause(POLL),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop();
    }
}

// === impl Conversation ===

impl Conversation {
    /// Starts `program` on `core`.
    pub(crate) fn start<S: AsRef<OsStr>>(program: &Path, args: &[S], core: usize) -> Outcome<Conversation> {
        let mut child = pinned(program, args, &core).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let pid = Pid::from_child(&child);
        unfinished(|all| all.groups.push(pid));
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("a child without an output")?);
        Ok(Conversation { child, pid, input, output })
    }

    /// Writes a line to it.
    pub(crate) fn say(&mut self, line: &str) -> Outcome<()> {
        let input = self.input.as_mut().ok_or("a child without an input")?;
        Ok(writeln!(input, "{line}")?)
    }

    /// Waits for its next line.
    pub(crate) fn hear(&mut self) -> Outcome<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("the load ended without a word".into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // It ends when its input does; should it not, it is of no use any more.
        drop(self.input.take());
        let _ = kill_process_group(self.pid, Signal::TERM);
        let _ = self.child.wait();
        unfinished(|all| all.groups.retain(|pid| *pid != self.pid));
    }
}

// === cleaning up ===

/// Stops every group and removes the scratch folder, and those named later, when the benchmark is interrupted, then leaves with [`INTERRUPTED`].
pub(crate) fn clean_up_on_signals(scratch: &Path) -> Outcome<()> {
    remove_on_signals(scratch);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        if runtime.block_on(interrupted()).is_ok() {
            abandon();
            std::process::exit(INTERRUPTED.into());
        }
    });
    Ok(())
}

/// Has a folder removed, too, when the benchmark is interrupted.
pub(crate) fn remove_on_signals(folder: &Path) {
    unfinished(|all| all.folders.push(folder.to_owned()));
}

async fn interrupted() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hup = signal(SignalKind::hangup())?;
    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {}, _ = hup.recv() => {} }
    Ok(())
}

/// Whether a signal is ending the benchmark: what fails from then on, fails because of that.
pub(crate) fn abandoned() -> bool {
    unfinished(|all| all.abandoned)
}

/// Ends what is still running without waiting for good manners.
fn abandon() {
    unfinished(|all| {
        all.abandoned = true;
        for pid in all.groups.drain(..) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        for folder in all.folders.drain(..) {
            let _ = fs::remove_dir_all(folder);
        }
    });
}

fn unfinished<T>(change: impl FnOnce(&mut Unfinished) -> T) -> T {
    change(&mut UNFINISHED.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

// === /proc ===

/// The processes whose group is `group`.
fn members(group: Pid) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Processes come and go while the folder is read; one that left is none of ours.
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        // The name may hold spaces and brackets; what follows its last bracket is: state, parent, group.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        if fields.split_whitespace().nth(2) == Some(&group.as_raw_nonzero().to_string()) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Nanoseconds on a processor, summed over threads. `stat` counts in ticks of 10 ms, which is too coarse for a round.
fn cpu_of(process: &Path) -> Outcome<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(process.join("task"))? {
        let line = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += line.split_whitespace().next().unwrap_or("0").parse::<u64>()?;
    }
    Ok(sum)
}

/// Context switches, summed over threads: each time that a thread goes to sleep is one.
fn switches_of(process: &Path) -> Outcome<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(process.join("task"))? {
        let text = fs::read_to_string(thread?.path().join("status"))?;
        let lines = text.lines().filter_map(|line| line.split_once("ctxt_switches:"));
        sum += lines.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum::<u64>();
    }
    Ok(sum)
}

fn memory_of(process: &Path) -> Outcome<u64> {
    let text = fs::read_to_string(process.join("smaps_rollup"))?;
    let field = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    Ok(field.and_then(|rest| rest.split_whitespace().next()).ok_or("smaps_rollup has no Pss")?.parse()?)
}

// === small things ===

/// A command that runs `program` on `cores` and is told to end if this process does.
pub(crate) fn pinned<S: AsRef<OsStr>>(program: &Path, args: &[S], cores: &impl Display) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "taskset", "--cpu-list", &cores.to_string()]);
    command.arg(program).args(args).process_group(0);
    command
}

/// This program as it was when it started, also if it was built anew since.
pub(crate) fn own_program() -> PathBuf {
    format!("/proc/{}/exe", std::process::id()).into()
}

/// Runs a pinned program to its end and returns what it printed; it is stopped if the benchmark is.
pub(crate) fn run_pinned<S: AsRef<OsStr>>(program: &Path, args: &[S], core: usize) -> Outcome<String> {
    let mut child = pinned(program, args, &core).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let pid = Pid::from_child(&child);
    unfinished(|all| all.groups.push(pid));
    let mut text = String::new();
    let read = child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut text)).transpose();
    let status = child.wait();
    unfinished(|all| all.groups.retain(|other| *other != pid));
    read?;
    let status = status?;
    if !status.success() {
        return Err(format!("{} ended with {status}: {text}", program.display()).into());
    }
    Ok(text)
}

/// `0-2,5` as its members.
fn parse_core_list(list: &str) -> Vec<usize> {
    let range = |part: &str| -> Option<Vec<usize>> {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some((from.parse().ok()?..=to.parse().ok()?).collect())
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

/// The clock of the measurements.
#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time; nothing here is tested without waiting")]
pub(crate) fn now() -> Instant {
    sluice::clock::now()
}

/// Waits without doing anything.
#[allow(clippy::disallowed_methods, reason = "this thread serves nobody, and it must not disturb what is measured")]
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// The exit code after a signal, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// How long a group may take to end after TERM before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at something that will happen soon.
const POLL: Duration = Duration::from_millis(5);

/// Lines of a log shown in a message.
const LAST_LINES: usize = 5;

static UNFINISHED: Mutex<Unfinished> =
    Mutex::new(Unfinished { groups: Vec::new(), folders: Vec::new(), abandoned: false });
