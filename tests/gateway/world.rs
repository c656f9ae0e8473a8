//! A gateway to test: composed in this process, or the real binary. Each has a folder of its own for its file and its log.
//!
//! A YAML text may hold places, `{name}`, for addresses that are only known when the test runs. [`Gateway::start`] fills
//! in those it is given, and `{dir}`, its folder. A text without `version:` is laid under [`PREAMBLE`].

pub(crate) use crate::provider::{Peer, Provider, refusing, silent};
pub(crate) use crate::wire::{End, Gate, Head, Message, PATIENCE, Wire, lock, pause, text, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use sluice::admin::{Rejected, Reloaded};
use sluice::clock;
use sluice::config::ProcessEnvironment;
use sluice::gateway::{self, Source, StartError};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// A gateway in this process, with one worker unless its file says otherwise. Stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    running: Option<gateway::Gateway>,
    file: ConfigFile,
}

/// The real binary as a process. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Sluice {
    child: Child,
    file: ConfigFile,
    web: SocketAddr,
    admin: SocketAddr,
}

/// More settings for [`BEFORE`], as YAML flow mappings are written inside: `timeouts: { idle: 1s }`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extra<'a> {
    /// Of the listener `web`.
    pub(crate) listener: &'a str,
    /// Of the provider `alpha`.
    pub(crate) provider: &'a str,
    /// Of the route `all`.
    pub(crate) route: &'a str,
}

/// A `gateway.yaml` in a folder of its own.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    folder: TempDir,
    places: Vec<(String, String)>,
}

// === impl Extra ===

impl<'a> Extra<'a> {
    /// One attempt, for tests of what becomes of it.
    pub(crate) const ONCE: Self = Extra { listener: "", provider: "", route: "retry: { attempts: 1 }" };

    /// One attempt, and more settings of the provider.
    pub(crate) fn once_with(provider: &'a str) -> Self {
        Extra { provider, ..Extra::ONCE }
    }
}

// === impl Gateway ===

impl Gateway {
    /// Starts a gateway from `yaml`, with `places` filled in.
    pub(crate) fn start(yaml: &str, places: &[(&str, SocketAddr)]) -> Self {
        Gateway::try_start(yaml, places).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`Gateway::start`], for a file that may be refused.
    pub(crate) fn try_start(yaml: &str, places: &[(&str, SocketAddr)]) -> Result<Self, StartError> {
        let file = ConfigFile::new(places);
        file.write(yaml);
        let source = Source { path: file.path(), environment: Arc::new(ProcessEnvironment) };
        Ok(Gateway { running: Some(gateway::Gateway::start(source)?), file })
    }

    /// A gateway whose only route sends everything to `provider`, called `alpha`, in pool `main`.
    pub(crate) fn before(provider: &Provider) -> Self {
        Gateway::start(BEFORE, &[("alpha", provider.address())])
    }

    /// As [`Gateway::before`], with more settings.
    pub(crate) fn before_with(provider: &Provider, extra: Extra<'_>) -> Self {
        Gateway::before_address(provider.address(), extra)
    }

    /// As [`Gateway::before_with`], for an address where there may be no provider.
    pub(crate) fn before_address(provider: SocketAddr, extra: Extra<'_>) -> Self {
        let yaml = [("{listener}", extra.listener), ("{provider}", extra.provider), ("{route}", extra.route)];
        let put = |text: String, (place, more): (&str, &str)| {
            text.replace(place, &if more.is_empty() { String::new() } else { format!(", {more}") })
        };
        let yaml = yaml.into_iter().fold(BEFORE.to_owned(), put);
        Gateway::start(&yaml, &[("alpha", provider)])
    }

    /// The gateway itself.
    pub(crate) fn running(&self) -> &gateway::Gateway {
        self.running.as_ref().unwrap_or_else(|| unreachable!("only stopping takes it"))
    }

    /// Where the listener `web` listens.
    pub(crate) fn web(&self) -> SocketAddr {
        self.running().address("web").expect("there is a listener `web`")
    }

    /// Where the admin listener listens.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.running().admin_address()
    }

    /// A client's connection to the listener `web`.
    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(self.web())
    }

    /// Its configuration file.
    pub(crate) fn path(&self) -> PathBuf {
        self.file.path()
    }

    /// Writes the file anew, as an editor would: beside it, then renamed. Nothing reloads by itself.
    pub(crate) fn rewrite(&self, yaml: &str) {
        self.file.write(yaml);
    }

    /// Adds places for later texts.
    pub(crate) fn place(&mut self, name: &str, address: SocketAddr) {
        self.file.places.push((name.to_owned(), address.to_string()));
    }

    /// Applies the file as it is now.
    pub(crate) fn reload(&self) -> Result<Reloaded, Rejected> {
        self.running().reload()
    }

    /// The page of metrics.
    pub(crate) fn metrics(&self) -> String {
        page(self.admin(), "/metrics")
    }

    /// The sum of the series of a family that have these labels.
    pub(crate) fn metric(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        metric(&self.metrics(), family, labels)
    }

    /// Waits until [`Gateway::metric`] is `value`: numbers of a request follow a moment after its answer.
    pub(crate) fn wait_for_metric(&self, family: &str, labels: &[(&str, &str)], value: f64) {
        wait_until(&format!("{family}{labels:?} to be {value}"), || {
            (self.metric(family, labels) - value).abs() < f64::EPSILON
        });
    }

    /// The access log's lines so far.
    pub(crate) fn access_log(&self) -> Vec<serde_json::Value> {
        let logs = self.running().logs();
        assert!(logs.flush(clock::now() + PATIENCE), "the log is written");
        access_lines(self.file.folder.path())
    }

    /// Waits until the access log has this many lines, and gives them.
    pub(crate) fn wait_for_access_log(&self, count: usize) -> Vec<serde_json::Value> {
        wait_until("lines in the access log", || self.access_log().len() >= count);
        self.access_log()
    }

    /// Accepts no more and waits for what is under way; whether all of it ended.
    pub(crate) fn drain(&self, grace: Duration) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(self.running().drain(grace))
    }

    /// Ends everything now.
    pub(crate) fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.halt();
    }
}

// === impl Sluice ===

impl Sluice {
    /// Starts `sluice run` with `yaml`, where `{web}` and `{admin}` are addresses of its own, and waits until it is ready.
    pub(crate) fn spawn(yaml: &str, places: &[(&str, SocketAddr)]) -> Self {
        Sluice::spawn_with(yaml, places, &[])
    }

    /// As [`Sluice::spawn`], with more variables in its environment.
    pub(crate) fn spawn_with(yaml: &str, places: &[(&str, SocketAddr)], variables: &[(&str, &str)]) -> Self {
        Sluice::spawn_as(yaml, places, |_| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
            command.envs(variables.iter().copied()).stdin(Stdio::null());
            command
        })
    }

    /// As [`Sluice::spawn`], by a command that is told its folder and, behind its own arguments, gets `--config FILE`.
    pub(crate) fn spawn_as(
        yaml: &str,
        places: &[(&str, SocketAddr)],
        command: impl FnOnce(&ConfigFile) -> Command,
    ) -> Self {
        let (web, admin) = (free_address(), free_address());
        let mut file = ConfigFile::new(places);
        file.places.extend([("web".to_owned(), web.to_string()), ("admin".to_owned(), admin.to_string())]);
        file.write(yaml);
        let output = File::create(file.folder.path().join("output")).expect("the folder takes files");
        let child = command(&file)
            .arg("--config")
            .arg(file.path())
            .current_dir(file.folder.path())
            .stdout(output.try_clone().expect("a descriptor"))
            .stderr(output)
            .spawn()
            .expect("the binary starts");
        let mut sluice = Sluice { child, file, web, admin };
        wait_until("the binary is ready", || sluice.is_ready());
        sluice
    }

    /// Where it takes clients.
    pub(crate) fn web(&self) -> SocketAddr {
        self.web
    }

    /// Where its admin listener listens.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// A client's connection.
    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(self.web)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its configuration file.
    pub(crate) fn path(&self) -> PathBuf {
        self.file.path()
    }

    /// Writes the file anew, as an editor would: beside it, then renamed. The watch, where it is on, sees that.
    pub(crate) fn rewrite(&self, yaml: &str) {
        self.file.write(yaml);
    }

    /// Adds places for later texts.
    pub(crate) fn place(&mut self, name: &str, address: SocketAddr) {
        self.file.places.push((name.to_owned(), address.to_string()));
    }

    /// The process, to be asked what [`Sluice`] does not.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal, such as `Signal::HUP`.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    /// Waits for its end and gives its exit code; -1 where a signal ended it.
    pub(crate) fn wait_for_exit(&mut self) -> i32 {
        let mut code = None;
        wait_until("the binary ends", || {
            code = self.child.try_wait().expect("a child of ours");
            code.is_some()
        });
        code.and_then(|status| status.code()).unwrap_or(-1)
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// The page of metrics.
    pub(crate) fn metrics(&self) -> String {
        page(self.admin, "/metrics")
    }

    /// The sum of the series of a family that have these labels.
    pub(crate) fn metric(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        metric(&self.metrics(), family, labels)
    }

    /// What it has written to its standard streams.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.file.folder.path().join("output")).unwrap_or_default()
    }

    /// The lines of its log file so far, where [`PREAMBLE`]'s is used.
    pub(crate) fn log(&self) -> Vec<serde_json::Value> {
        log_lines(self.file.folder.path())
    }

    fn is_ready(&mut self) -> bool {
        assert!(self.runs(), "the binary ended:\n{}", self.output());
        // Before it listens nobody is there to ask.
        std::net::TcpStream::connect(self.admin).is_ok_and(|stream| {
            let mut wire = Wire::new(stream, 0);
            wire.send("GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            wire.answer().status() == 200
        })
    }
}

impl Drop for Sluice {
    fn drop(&mut self) {
        // One that has ended already needs no ending.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<std::process::ExitStatus> = self.child.wait();
    }
}

// === impl ConfigFile ===

impl ConfigFile {
    fn new(places: &[(&str, SocketAddr)]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut places: Vec<_> = places.iter().map(|(name, at)| ((*name).to_owned(), at.to_string())).collect();
        places.push(("dir".to_owned(), folder.path().display().to_string()));
        ConfigFile { folder, places }
    }

    /// Where the file lies.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("gateway.yaml")
    }

    /// What a place stands for.
    pub(crate) fn address(&self, place: &str) -> SocketAddr {
        let (_, value) = self.places.iter().find(|(name, _)| name == place).expect("a place");
        value.parse().expect("an address")
    }

    /// Written beside and renamed, so that a reader sees the old text or the new one.
    fn write(&self, yaml: &str) {
        let whole = if yaml.lines().any(|line| line.starts_with("version:")) {
            yaml.to_owned()
        } else {
            format!("{PREAMBLE}{yaml}")
        };
        let place = |text: String, (name, value): &(String, String)| text.replace(&format!("{{{name}}}"), value);
        let filled = self.places.iter().fold(whole, place);
        // Those that nobody filled in ask for any free port.
        let filled = filled.replace("{web}", "127.0.0.1:0").replace("{admin}", "127.0.0.1:0");
        let filled = ["{listener}", "{provider}", "{route}"].iter().fold(filled, |text, place| text.replace(place, ""));
        let new = self.folder.path().join("gateway.yaml.new");
        fs::write(&new, filled).expect("the folder takes files");
        fs::rename(new, self.path()).expect("a rename in one folder");
    }
}

/// An address on loopback that nobody uses. Not from the range that the kernel hands out, so that no connection of
/// another test comes to sit on it.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        let start = u16::try_from(std::process::id() % u32::from(PORTS)).unwrap_or(0);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT + (start + offset) % PORTS));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// GETs a page of an admin listener.
pub(crate) fn page(admin: SocketAddr, path: &str) -> String {
    let mut wire = Wire::connect(admin);
    wire.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
    let answer = wire.answer();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.text()
}

/// The sum of the series of a family that have these labels, on a page of metrics.
pub(crate) fn metric(page: &str, family: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |line: &str| {
        let (name, rest) = line.split_once(['{', ' ']).unwrap_or((line, ""));
        name == family && labels.iter().all(|(label, value)| rest.contains(&format!("{label}=\"{value}\"")))
    };
    let values = page.lines().filter(|line| has(line)).map(|line| line.rsplit(' ').next().unwrap_or_default());
    values.map(|value| value.parse::<f64>().unwrap_or_else(|_| panic!("{value:?} is no number"))).sum()
}

fn log_lines(folder: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(folder.join("log")).unwrap_or_default();
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    whole.lines().map(parse).collect()
}

fn access_lines(folder: &Path) -> Vec<serde_json::Value> {
    log_lines(folder).into_iter().filter(|line| line.get("request_id").is_some()).collect()
}

/// What a test's file begins with unless it says so itself: one worker, so that every connection meets the same pool of
/// provider connections.
pub(crate) const PREAMBLE: &str = "
version: 1
workers: 1
admin: { bind: \"{admin}\" }
reload: { watch: false }
log: { format: json, file: \"{dir}/log\" }
";

/// A listener and one route to one provider. `{alpha}` is its address; [`Extra`] is for more settings.
pub(crate) const BEFORE: &str = "
listeners: [ { name: web, bind: \"{web}\"{listener} } ]
providers: { alpha: { url: \"http://{alpha}\"{provider} } }
pools: { main: { providers: [alpha] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main{route} } ]
";

/// Ports for [`free_address`] begin here, below the range of ephemeral ones.
const FIRST_PORT: u16 = 20_000;

/// How many of them there are.
const PORTS: u16 = 12_000;
