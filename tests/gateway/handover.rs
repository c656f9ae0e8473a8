//! The process is replaced by USR2, and nobody who uses it notices; what a service manager is told, and gives.

use crate::world::{
    BEFORE, ConfigFile, Gate, Gateway, PATIENCE, PREAMBLE, Provider, Sluice, Wire, free_address, metric, page,
    wait_until,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

/// A gateway's processes, one after the other. All of them end with it.
pub(crate) struct Line {
    pub(crate) first: Sluice,
}

/// What a load has met.
#[derive(Default)]
struct Load {
    answers: AtomicUsize,
    over: AtomicBool,
}

// === impl Line ===

impl Line {
    pub(crate) fn start(first: Sluice) -> Self {
        wait_until("its own line in the log", || !running(&first).is_empty());
        Line { first }
    }

    /// The process that was started last.
    pub(crate) fn latest(&self) -> u32 {
        *running(&self.first).last().expect("at least the first")
    }

    pub(crate) fn signal(&self, pid: u32, signal: Signal) {
        kill_process(process(pid), signal).unwrap_or_else(|error| panic!("{error}: {pid}, {}", self.first.output()));
    }

    /// Lines of the log with this text.
    pub(crate) fn said(&self, text: &str) -> usize {
        self.first.log().iter().filter(|line| line.to_string().contains(text)).count()
    }

    /// Waits until the log says this once more than `before` times.
    fn wait_for(&self, text: &str, before: usize) {
        wait_until(&format!("{text:?} in the log"), || self.said(text) > before);
    }

    /// Replaces the process that runs, and gives the new one's id.
    pub(crate) fn replace(&self) -> u32 {
        let before = self.said("the new process has taken over");
        let old = self.latest();
        self.signal(old, Signal::USR2);
        self.wait_for("the new process has taken over", before);
        wait_until("the new process in the log", || self.latest() != old);
        self.latest()
    }

    /// Asks for a replacement that is to fail, and waits until that is said; gives why.
    pub(crate) fn replace_in_vain(&self) -> String {
        let failed = "the new process did not take over";
        let before = self.said(failed);
        self.signal(self.first.pid(), Signal::USR2);
        self.wait_for(failed, before);
        let lines = self.first.log();
        let line = lines.iter().rfind(|line| line.to_string().contains(failed)).expect("it was said");
        line.to_string()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for pid in running(&self.first) {
            // Most have ended.
            let _: rustix::io::Result<()> = kill_process(process(pid), Signal::KILL);
        }
    }
}

/// Every process that has served, in order.
pub(crate) fn running(sluice: &Sluice) -> Vec<u32> {
    let pid = |line: &serde_json::Value| {
        let fields = line.get("fields").unwrap_or(line);
        let says = fields.get("message")?.as_str()? == "sluice is running";
        says.then(|| u32::try_from(fields["pid"].as_u64().expect("a number")).expect("an id"))
    };
    sluice.log().iter().filter_map(pid).collect()
}

fn process(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).expect("an id")
}

/// Whether it is gone; one that nobody has waited for yet is.
pub(crate) fn has_ended(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    test_kill_process(process(pid)).is_err() || state.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"))
}

/// A provider that answers `/held` once the gate is open, anything else at once.
fn gated(gate: &Gate) -> Provider {
    let gate = gate.clone();
    Provider::scripted(move |peer| {
        while let Some(request) = peer.request() {
            if request.head.line.contains("/held") {
                gate.pass();
            }
            peer.answer("200 OK", "done");
        }
    })
}

/// As [`gated`], for a load: keeps nothing but the number of requests that are held.
fn gated_for_a_load(gate: &Gate) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let count = Arc::new(AtomicUsize::new(0));
    let (gate, counter) = (gate.clone(), Arc::clone(&count));
    // Lives as long as the tests do.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, gate, count) = (stream.expect("a connection"), gate.clone(), Arc::clone(&counter));
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut some = [0; 4096];
                while let Ok(len @ 1..) = stream.read(&mut some) {
                    head.extend_from_slice(&some[..len]);
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    if head.starts_with(b"GET /held") {
                        count.fetch_add(1, Ordering::SeqCst);
                        gate.pass();
                    }
                    head.clear();
                    // A gateway that has gone is no concern of a provider's.
                    let _: io::Result<()> = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone");
                }
            });
        }
    });
    (address, count)
}

/// A line of processes in front of a provider.
fn start(more: &str, gate: &Gate) -> (Line, Provider) {
    let alpha = gated(gate);
    let line = Line::start(Sluice::spawn(&format!("{BEFORE}{more}"), &[("alpha", alpha.address())]));
    (line, alpha)
}

fn ask(address: SocketAddr) {
    let mut client = Wire::connect(address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(client.answer().text(), "done");
    client.closes();
}

/// One request; whether the connection may have another. Nothing is tried twice.
fn request(stream: &mut (impl Read + Write), close: bool) -> io::Result<bool> {
    let close = if close { "connection: close\r\n" } else { "" };
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: a\r\n{close}\r\n").as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\ndone") {
        let mut some = [0; 4096];
        let len = stream.read(&mut some)?;
        if len == 0 {
            return Err(io::Error::other(format!("{:?} and then the end", String::from_utf8_lossy(&answer))));
        }
        answer.extend_from_slice(&some[..len]);
    }
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    if !answer.starts_with("http/1.1 200") {
        return Err(io::Error::other(answer));
    }
    Ok(!answer.contains("connection: close"))
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

impl Load {
    /// Connections that are kept as long as the gateway keeps them.
    fn keep_alive(&self, address: SocketAddr) -> io::Result<()> {
        while !self.over.load(Ordering::Relaxed) {
            let mut stream = connect(address)?;
            while request(&mut stream, false)? && !self.over.load(Ordering::Relaxed) {
                self.answers.fetch_add(1, Ordering::Relaxed);
            }
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A connection for each request.
    fn anew(&self, address: SocketAddr) -> io::Result<()> {
        while !self.over.load(Ordering::Relaxed) {
            request(&mut connect(address)?, true)?;
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits for so many more answers.
    fn wait_for(&self, more: usize) {
        let before = self.answers.load(Ordering::Relaxed);
        wait_until("answers", || self.answers.load(Ordering::Relaxed) >= before + more);
    }
}

#[test]
fn under_load_ten_processes_follow_each_other_and_not_one_connection_or_request_is_lost() {
    let gate = Gate::default();
    let (alpha, under_way) = gated_for_a_load(&gate);
    let yaml = PREAMBLE.replace("workers: 1", "workers: 2").replace("format: json", "format: json, access: false");
    let line = Line::start(Sluice::spawn(&format!("{yaml}{BEFORE}"), &[("alpha", alpha)]));
    let web = line.first.web();
    let load = Load::default();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .flat_map(|_| {
                let load = &load;
                [scope.spawn(move || load.keep_alive(web)), scope.spawn(move || load.anew(web))]
            })
            .collect();
        let mut held = Vec::new();
        for round in 0..10 {
            load.wait_for(200);
            // A request under way on each process; it is to end there.
            let mut client = Wire::connect(web);
            client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
            wait_until("it is under way", || under_way.load(Ordering::SeqCst) > round);
            held.push((client, line.latest()));
            let new = line.replace();
            assert_ne!(new, held[round].1);
        }
        load.wait_for(200);
        load.over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("no panic").unwrap_or_else(|error| panic!("{error}\n{}", line.first.output()));
        }
        for (client, pid) in &mut held {
            assert!(client.is_silent() && !has_ended(*pid), "a process ended with a request under way");
        }
        gate.open();
        for (client, pid) in &mut held {
            let answer = client.answer();
            assert_eq!((answer.value("connection"), answer.text().as_str()), (Some("close"), "done"));
            client.closes();
            wait_until("the old process ends", || has_ended(*pid));
        }
    });
    assert_eq!(line.said("what is still under way is cut"), 0);
}

#[test]
fn the_process_that_was_replaced_exits_with_0_and_the_new_one_is_asked_from_then_on() {
    let gate = Gate::default();
    let (mut line, alpha) = start("", &gate);
    let mut held = line.first.connect();
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    alpha.wait_for_requests(1);
    assert!(line.first.metric("sluice_requests_in_flight", &[]) > 0.0);
    line.replace();
    // Its admin listener is the new process's, whose counters begin anew, and which is ready.
    let admin = line.first.admin();
    wait_until("the new process answers operators", || {
        metric(&page(admin, "/metrics"), "sluice_requests_in_flight", &[]) < 1.0
    });
    page(admin, "/readyz");
    ask(line.first.web());
    assert!(line.first.runs() && held.is_silent());
    gate.open();
    assert_eq!(held.answer().text(), "done");
    assert_eq!(line.first.wait_for_exit(), 0, "{}", line.first.output());
    ask(line.first.web());
}

#[test]
fn a_process_that_was_replaced_goes_on_draining_when_it_is_told_to_stop_and_ends_when_it_is_told_again() {
    for again in [false, true] {
        let gate = Gate::default();
        let (mut line, alpha) = start("", &gate);
        let mut held = line.first.connect();
        held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
        alpha.wait_for_requests(1);
        line.replace();
        line.first.signal(Signal::TERM);
        line.wait_for("told to stop, and draining already", 0);
        assert!(line.first.runs() && held.is_silent());
        if again {
            line.first.signal(Signal::TERM);
            assert_eq!(line.first.wait_for_exit(), 1, "{}", line.first.output());
            assert!(held.rest().is_empty(), "it was cut");
        } else {
            gate.open();
            assert_eq!(held.answer().text(), "done");
            assert_eq!(line.first.wait_for_exit(), 0, "{}", line.first.output());
        }
        ask(line.first.web());
    }
}

#[test]
fn a_stream_under_way_goes_on_from_the_old_process_event_by_event() {
    let alpha = Provider::by_hand();
    let mut line = Line::start(Sluice::spawn(BEFORE, &[("alpha", alpha.address())]));
    let mut client = line.first.connect();
    client.send("GET /events HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut provider = alpha.accept();
    provider.request().expect("the request");
    provider.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    for round in 0..2 {
        provider.send_chunk("before");
        assert_eq!(client.chunk().as_deref(), Some(b"before".as_slice()));
        if round == 0 {
            line.replace();
        }
        provider.send_chunk("after");
        assert_eq!(client.chunk().as_deref(), Some(b"after".as_slice()));
    }
    assert!(line.first.runs());
    provider.send("0\r\n\r\n");
    assert_eq!(client.chunk(), None);
    assert_eq!(client.trailers(), []);
    assert_eq!(line.first.wait_for_exit(), 0, "{}", line.first.output());
}

#[test]
fn a_new_process_with_another_number_of_workers_takes_every_socket() {
    let (line, _alpha) = start("", &Gate::default());
    for workers in ["3", "1", "2"] {
        let yaml = PREAMBLE.replace("workers: 1", &format!("workers: {workers}"));
        line.first.rewrite(&format!("{yaml}{BEFORE}"));
        line.replace();
        // More than there are sockets, so that each of them gets some.
        for _ in 0..32 {
            ask(line.first.web());
        }
        assert!(page(line.first.admin(), "/metrics").contains(&format!("sluice_workers {workers}")));
    }
}

#[test]
fn a_new_process_whose_file_is_wrong_leaves_the_old_one_serving() {
    let (mut line, _alpha) = start("", &Gate::default());
    line.first.rewrite("nonsense: true\n");
    let why = line.replace_in_vain();
    assert!(why.contains("nonsense") && why.contains("exit status: 1") && why.contains("sluice check"), "{why}");
    ask(line.first.web());
    // It reloads as before, and the next attempt succeeds.
    line.first.rewrite(BEFORE);
    line.first.signal(Signal::HUP);
    line.wait_for("the configuration is applied", 0);
    line.replace();
    assert_eq!(line.first.wait_for_exit(), 0, "{}", line.first.output());
    ask(line.first.web());
}

/// A line whose binary is a file of its own, so that it can be replaced.
fn own_binary(yaml: &str, alpha: &Provider) -> (Line, std::path::PathBuf) {
    let mut binary = None;
    let sluice = Sluice::spawn_as(yaml, &[("alpha", alpha.address())], |file: &ConfigFile| {
        let path = file.path().with_file_name("sluice");
        fs::copy(env!("CARGO_BIN_EXE_sluice"), &path).expect("the folder takes files");
        let mut command = Command::new(&path);
        command.stdin(Stdio::null());
        binary = Some(path);
        command
    });
    (Line::start(sluice), binary.expect("it was started"))
}

/// Puts a script where the binary was.
fn put_script(binary: &Path, script: &str) {
    let beside = binary.with_extension("new");
    fs::write(&beside, script).expect("the folder takes files");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).expect("a mode");
    fs::rename(beside, binary).expect("a rename in one folder");
}

#[test]
fn the_file_that_lies_at_the_same_path_now_is_what_is_started() {
    let gate = Gate::default();
    let (alpha, mut tries) = (gated(&gate), 0);
    let (mut line, binary) = own_binary(BEFORE, &alpha);
    let told = binary.with_file_name("told");
    put_script(&binary, &format!("#!/bin/sh\necho \"$@\" > {}\nexit 7\n", told.display()));
    let why = line.replace_in_vain();
    assert!(why.contains("it ended before it was ready (exit status: 7)"), "{why}");
    let arguments = fs::read_to_string(&told).expect("the script wrote it");
    assert_eq!(arguments.trim_end(), format!("--config {}", line.first.path().display()));
    put_script(&binary, "no program\n");
    for what in ["no program", "no file"] {
        let why = line.replace_in_vain();
        assert!(why.contains("cannot be started"), "{what}: {why}");
        ask(line.first.web());
        tries += 1;
        if tries == 1 {
            fs::remove_file(&binary).expect("it is there");
        }
    }
    fs::copy(env!("CARGO_BIN_EXE_sluice"), &binary).expect("the folder takes files");
    line.replace();
    assert_eq!(line.first.wait_for_exit(), 0, "{}", line.first.output());
    ask(line.first.web());
}

/// A script that takes nothing over and stays, until it is told to end.
const HANGS: &str =
    "#!/bin/sh\ntrap 'echo ended >> DIR/told; exit 0' TERM\necho begun >> DIR/told\nwhile :; do sleep 0.05; done\n";

fn put_one_that_hangs(binary: &Path) -> impl Fn() -> String + use<> {
    let folder = binary.parent().expect("a folder").to_owned();
    put_script(binary, &HANGS.replace("DIR", &folder.display().to_string()));
    move || fs::read_to_string(folder.join("told")).unwrap_or_default()
}

#[test]
fn while_a_new_process_is_on_its_way_a_second_one_is_refused_and_a_reload_waits() {
    let alpha = gated(&Gate::default());
    let (line, binary) = own_binary(BEFORE, &alpha);
    let told = put_one_that_hangs(&binary);
    line.first.signal(Signal::USR2);
    wait_until("the new process runs", || told().contains("begun"));
    line.first.signal(Signal::USR2);
    line.wait_for("USR2 is refused: a new process is on its way already", 0);
    let mut operator = Wire::connect(line.first.admin());
    operator.send("POST /api/v1/config/reload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    let answer = operator.answer();
    assert!(answer.status() >= 400 && answer.text().contains("about to take over"), "{}", answer.text());
    line.first.rewrite(&BEFORE.replace("pool: main", "respond: { status: 418 }"));
    line.first.signal(Signal::HUP);
    ask(line.first.web());
    // The new one dies; what was asked for meanwhile is done.
    let started = line.first.log().iter().find_map(|line| {
        let fields = line.get("fields").unwrap_or(line).clone();
        fields["message"].as_str()?.contains("is started to take over").then(|| fields["pid"].as_u64())?
    });
    let started = u32::try_from(started.expect("its id")).expect("an id");
    line.signal(started, Signal::KILL);
    line.wait_for("the new process did not take over", 0);
    line.wait_for("the configuration is applied", 0);
    let mut client = line.first.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.answer().status(), 418);
}

#[test]
fn term_ends_a_new_process_on_its_way_and_the_old_one_with_it() {
    let alpha = gated(&Gate::default());
    let (mut line, binary) = own_binary(BEFORE, &alpha);
    let told = put_one_that_hangs(&binary);
    line.first.signal(Signal::USR2);
    wait_until("the new process runs", || told().contains("begun"));
    ask(line.first.web());
    line.first.signal(Signal::TERM);
    assert_eq!(line.first.wait_for_exit(), 0, "{}", line.first.output());
    assert!(told().ends_with("ended\n"), "the new process was not told");
    // What the script had started holds its descriptors for a moment more.
    wait_until("nobody listens", || TcpStream::connect(line.first.web()).is_err());
}

#[test]
fn listeners_may_come_and_go_with_the_process() {
    let two = "
listeners: [ { name: web, bind: \"{web}\" }, { name: side, bind: \"{side}\" } ]
providers: { alpha: { url: \"http://{alpha}\" } }
pools: { main: { providers: [alpha] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main } ]
";
    let alpha = gated(&Gate::default());
    let (side, other) = (free_address(), free_address());
    let places = [("alpha", alpha.address()), ("side", side), ("other", other)];
    let mut line = Line::start(Sluice::spawn(two, &places));
    ask(side);
    // One that stays on the old process, as its listener goes.
    let mut kept = Wire::connect(side);
    kept.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(kept.answer().text(), "done");
    line.first.rewrite(&two.replace("{side}", "{other}"));
    line.replace();
    ask(other);
    ask(line.first.web());
    wait_until("nobody listens on the listener that is gone", || TcpStream::connect(side).is_err());
    kept.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(kept.answer().value("connection"), Some("close"));
    assert_eq!(line.first.wait_for_exit(), 0, "{}", line.first.output());
    // From a narrow address to one that contains it, which only whoever holds the narrow one may have.
    let wide = format!("0.0.0.0:{}", other.port());
    line.first.rewrite(&two.replace("{side}", &wide));
    line.replace();
    ask(other);
}

#[test]
fn a_socket_at_a_path_goes_from_process_to_process_and_its_file_with_the_last() {
    let gate = Gate::default();
    let (alpha, _) = gated_for_a_load(&gate);
    let yaml = format!("{PREAMBLE}{BEFORE}").replace("workers: 1", "workers: 2");
    let yaml = yaml.replace("} ]\nproviders", "}, { name: path, bind: \"unix:{dir}/web.sock\" } ]\nproviders");
    let line = Line::start(Sluice::spawn(&yaml, &[("alpha", alpha)]));
    let path = line.first.path().with_file_name("web.sock");
    let over = AtomicBool::new(false);
    let answers = AtomicUsize::new(0);
    let client = || -> io::Result<()> {
        while !over.load(Ordering::Relaxed) {
            let mut stream = UnixStream::connect(&path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            request(&mut stream, true)?;
            answers.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let more = |count: usize| {
        let before = answers.load(Ordering::Relaxed);
        wait_until("answers", || answers.load(Ordering::Relaxed) >= before + count);
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2).map(|_| scope.spawn(client)).collect();
        for _ in 0..3 {
            more(50);
            let old = line.latest();
            line.replace();
            wait_until("the old process ends", || has_ended(old));
            more(50);
        }
        // One that takes the socket and does not come to serve leaves it where it is.
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let side = format!("}}, {{ name: side, bind: \"{}\" }} ]\nproviders", taken.local_addr().expect("it listens"));
        line.first.rewrite(&yaml.replace("} ]\nproviders", &side));
        let (failed, latest) = ("the new process did not take over", line.latest());
        line.signal(latest, Signal::USR2);
        line.wait_for(failed, 0);
        assert!(line.first.output().contains("listener `side` cannot listen"), "{}", line.first.output());
        more(50);
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("no panic").unwrap_or_else(|error| panic!("{error}\n{}", line.first.output()));
        }
    });
    line.signal(line.latest(), Signal::TERM);
    wait_until("the file goes", || !path.exists());
}

/// A shell that starts the binary as a service manager with an open socket would: as descriptor 3.
fn activated(socket: &TcpListener, names: &str) -> Command {
    let mut command = Command::new("sh");
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&0 </dev/null";
    let socket: OwnedFd = socket.try_clone().expect("a descriptor").into();
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_sluice")]).stdin(Stdio::from(socket));
    command.env("LISTEN_FDNAMES", names);
    command
}

#[test]
fn a_socket_that_a_service_manager_opened_is_shared_by_all_workers_and_waits_for_the_next_process() {
    let alpha = gated(&Gate::default());
    let yaml = PREAMBLE.replace("workers: 1", "workers: 2");
    let mut manager = None;
    let sluice = Sluice::spawn_as(&format!("{yaml}{BEFORE}"), &[("alpha", alpha.address())], |file| {
        let socket = TcpListener::bind(file.address("web")).expect("it is free");
        let command = activated(&socket, "sluice.socket");
        manager = Some(socket);
        command
    });
    let mut line = Line::start(sluice);
    let web = line.first.web();
    for _ in 0..8 {
        ask(web);
    }
    // A further process has it too, whichever way it came.
    let second = line.replace();
    assert_eq!(line.first.wait_for_exit(), 0, "{}", line.first.output());
    ask(web);
    line.signal(second, Signal::TERM);
    wait_until("it ends", || has_ended(second));
    // Nobody accepts, and nobody is refused: the socket is the manager's.
    let mut waiting = Wire::connect(web);
    waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(waiting.is_silent());
    drop(manager);
    waiting.end();
}

#[test]
fn a_socket_may_be_called_like_its_listener_wherever_it_listens() {
    let alpha = gated(&Gate::default());
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let places = [("alpha", alpha.address())];
    let line = Line::start(Sluice::spawn_as(BEFORE, &places, |_| activated(&socket, "web")));
    ask(socket.local_addr().expect("it listens"));
    assert!(TcpStream::connect(line.first.web()).is_err(), "nobody listens where the file says");
}

#[test]
fn a_socket_that_no_listener_names_ends_the_start_and_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gateway.yaml");
    let yaml = "version: 1\nadmin: { bind: \"127.0.0.1:0\" }\nlisteners: [ { name: web, bind: \"127.0.0.1:0\" } ]\n\
                routes: [ { name: all, respond: {} } ]\n";
    fs::write(&file, yaml).expect("the folder takes files");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let ended = activated(&socket, "sluice.socket").arg("--config").arg(&file).output().expect("it starts");
    let output = String::from_utf8_lossy(&ended.stderr).into_owned();
    let address = socket.local_addr().expect("it listens");
    assert_eq!(ended.status.code(), Some(1), "{output}");
    assert!(output.contains(&format!("{address} (`sluice.socket`), which no listener names")), "{output}");
}

/// What stands at the other end of `NOTIFY_SOCKET`, and reads all the time.
struct Manager {
    told: Receiver<String>,
    folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        let (tell, told) = channel();
        // Lives as long as the tests do.
        std::thread::spawn(move || {
            let mut text = [0; 4096];
            while let Ok(len) = socket.recv(&mut text) {
                if tell.send(String::from_utf8_lossy(&text[..len]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Manager { told, folder }
    }

    fn path(&self) -> String {
        self.folder.path().join("notify").display().to_string()
    }

    /// The next message that has `what`, past those that have not.
    fn until(&self, what: &str) -> String {
        loop {
            let text = self.told.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{error}: no {what}"));
            if text.contains(what) {
                return text;
            }
        }
    }
}

fn monotonic() -> i128 {
    sluice::clock::monotonic_microseconds()
}

#[test]
fn a_service_manager_is_told_of_the_start_reloads_and_the_end() {
    let manager = Manager::new();
    let alpha = gated(&Gate::default());
    let variables = [("NOTIFY_SOCKET", manager.path())];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut sluice = Sluice::spawn_with(BEFORE, &[("alpha", alpha.address())], &variables);
    assert!(manager.until("READY=1").contains("STATUS=Serving"));
    for (yaml, status) in [(BEFORE, "STATUS=Serving\n"), ("nonsense: 1\n", "rejected")] {
        sluice.rewrite(yaml);
        let before = monotonic();
        sluice.signal(Signal::HUP);
        let reloading = manager.until("RELOADING=1");
        let (_, at) = reloading.split_once("MONOTONIC_USEC=").expect("when that was");
        let at: i128 = at.trim().parse().expect("microseconds");
        assert!((before..=monotonic()).contains(&at), "{reloading}");
        let ready = manager.until("READY=1");
        assert!(ready.contains(status), "{ready}");
    }
    sluice.signal(Signal::TERM);
    assert!(manager.until("STOPPING=1").contains("STATUS=Draining"));
    assert_eq!(sluice.wait_for_exit(), 0, "{}", sluice.output());
}

#[test]
fn a_service_manager_is_told_which_process_counts_and_both_say_that_they_are_alive() {
    let manager = Manager::new();
    let alpha = gated(&Gate::default());
    let yaml = BEFORE.replace("{route}", "");
    let sluice = Sluice::spawn_as(&yaml, &[("alpha", alpha.address())], |_| {
        let mut command = Command::new("sh");
        let script = "WATCHDOG_PID=$$ exec \"$@\"";
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_sluice")]).stdin(Stdio::null());
        command.env("NOTIFY_SOCKET", manager.path()).env("WATCHDOG_USEC", "20000");
        command
    });
    let mut line = Line::start(sluice);
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    let new = line.replace();
    let main = manager.until("MAINPID=");
    assert!(main.contains(&format!("MAINPID={new}\n")), "{main}");
    manager.until("READY=1");
    assert_eq!(line.first.wait_for_exit(), 0, "{}", line.first.output());
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    // Nobody has said that the service stops.
    assert!(TcpStream::connect(line.first.web()).is_ok());
}

#[test]
fn a_gateway_that_leaves_is_not_ready_and_still_takes_what_comes() {
    let alpha = gated(&Gate::default());
    let gateway = Gateway::before(&alpha);
    gateway.running().leave();
    let mut wire = Wire::connect(gateway.admin());
    wire.send("GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let ready = wire.answer();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().contains("draining"), "{}", ready.text());
    ask(gateway.web());
}
