//! Not one connection refused, not one request lost, not one stream cut: under load over TLS, in both versions of HTTP, while
//! certificates change a hundred times, listeners come and go, and ten processes follow each other.
//!
//! Every request has a number. It is **answered** when the whole and right answer came; **never taken** when the gateway has
//! said so, by a GOAWAY that leaves its stream out, and then the client repeats it elsewhere under another number. In the end
//! each number was seen by a provider once and answered once, or never taken and never seen. Everything else is lost, and
//! so is everything that breaks on a listener that stays: a connect, a handshake, a request on a connection that was kept, an
//! end without `close_notify`. On the listener that is removed, who connects once it may be gone is refused, or reset in the
//! moment of its end; who was connected before is served to the end.

use crate::authority::{self, Authority, Pair};
use crate::handover::{Line, has_ended, running};
use crate::world::{Sluice, free_address, wait_until};
use clients::Way;
use ledger::{Ledger, Took, What};
use rustix::process::Signal;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};
use sluice::clock;
use sluice::instant::Instant;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

mod clients; // the load
mod ledger; // who has asked what, and what became of it
mod providers; // what stands behind the gateway
mod wires; // bytes and frames

/// The whole scene.
struct Scene {
    line: Line,
    authority: Authority,
    /// The certificate and key that the listeners use.
    pair: Pair,
    /// What they show.
    shown: CertificateDer<'static>,
    ledger: Arc<Ledger>,
    addresses: Addresses,
    /// Whether the listener that comes and goes is there.
    side: bool,
    clients: Vec<JoinHandle<()>>,
    load: Handle,
    /// When a process followed another: from the signal to its being said.
    handovers: Vec<(Instant, Instant)>,
    _folder: TempDir,
}

#[derive(Clone, Copy)]
struct Addresses {
    web: SocketAddr,
    plain: SocketAddr,
    side: SocketAddr,
}

/// How the two files of a pair are replaced.
#[derive(Debug, Clone, Copy)]
enum Order {
    CertFirst,
    KeyFirst,
    /// The certificate, and the key only once the pair was rejected.
    CertLongBeforeKey,
    KeyLongBeforeCert,
    /// Written over where they lie, so that either may be seen half written.
    InPlace,
}

#[test]
fn a_hundred_renewals_and_ten_processes_under_load_lose_nothing() {
    let mut scene = Scene::start();
    for round in 0..ROUNDS {
        for step in 0..RENEWALS {
            if step % 5 == 2 {
                scene.turn_side();
            }
            let order = ORDERS[(round + step) % ORDERS.len()];
            scene.renew(order);
            scene.is_shown();
            if step % 5 == 4 {
                scene.line.signal(scene.line.latest(), Signal::HUP);
            }
            scene.see_event();
        }
        scene.open_streams();
        match round % 3 {
            0 => scene.replace(|_| {}),
            // The new process finds the new pair, or is told of it a moment later.
            1 => scene.replace(|scene| scene.renew(Order::CertFirst)),
            _ => {
                scene.turn_side();
                scene.replace(|scene| {
                    scene.line.signal(scene.line.latest(), Signal::HUP);
                    scene.renew(Order::KeyFirst);
                });
            }
        }
        scene.is_shown();
        scene.see_event();
        scene.ledger_grows(100);
    }
    scene.finish();
}

// === impl Scene ===

impl Scene {
    fn start() -> Self {
        let (ledger, authority, folder) = (Ledger::new(), Authority::new(), TempDir::new().expect("a folder"));
        let pair = Pair { cert: folder.path().join("site.pem"), key: folder.path().join("site.key") };
        let first = authority.sign("new", &["a.test"]);
        fs::copy(&first.cert, &pair.cert).expect("the folder takes files");
        fs::copy(&first.key, &pair.key).expect("the folder takes files");
        let beta = providers::http2(&ledger);
        let (plain, side) = (free_address(), free_address());
        let places = [("alpha", providers::http1(&ledger)), ("beta", beta.address()), ("plain", plain), ("side", side)];
        // As long as the tests do: a load goes on for a moment after the test has failed.
        std::mem::forget(beta);
        let sluice = Sluice::spawn(&yaml(&pair, false), &places);
        let addresses = Addresses { web: sluice.web(), plain, side };
        let mut scene = Scene {
            line: Line::start(sluice),
            authority,
            shown: first.chain()[0].clone(),
            pair,
            ledger,
            addresses,
            side: false,
            clients: Vec::new(),
            load: own_runtime(),
            handovers: Vec::new(),
            _folder: folder,
        };
        scene.start_clients();
        scene.open_streams();
        scene.ledger_grows(200);
        scene
    }

    /// Everyone who asks one thing after the other.
    fn start_clients(&mut self) {
        let Addresses { web, plain, side } = self.addresses;
        let [http1, http2] = [self.tls(&[b"http/1.1"], true, &[&TLS13]), self.tls(&[b"h2"], true, &[&TLS13])];
        let (full, older) = (self.tls(&[b"http/1.1"], false, &[&TLS13]), self.tls(&[], true, &[&TLS12]));
        let secure = |name, tls: &Arc<ClientConfig>| self.way(name, web, Some(tls));
        let at_side = |name, tls| Way { comes_and_goes: true, ..self.way(name, side, Some(tls)) };
        let clients = [
            self.load.spawn(secure("kept", &http1).keep_alive()),
            self.load.spawn(secure("kept", &older).keep_alive()),
            self.load.spawn(secure("resumed each time", &http1).anew()),
            self.load.spawn(secure("resumed each time in TLS 1.2", &older).anew()),
            self.load.spawn(secure("a full handshake each time", &full).anew()),
            self.load.spawn(secure("12 streams", &http2).streams(12)),
            self.load.spawn(secure("2 streams", &http2).streams(2)),
            self.load.spawn(self.way("kept in the clear", plain, None).keep_alive()),
            self.load.spawn(self.way("anew in the clear", plain, None).anew()),
            self.load.spawn(self.way("streams in the clear", plain, None).streams(4)),
            self.load.spawn(at_side("kept at the side", &http1).keep_alive()),
            self.load.spawn(at_side("anew at the side", &full).anew()),
            self.load.spawn(at_side("streams at the side", &http2).streams(4)),
        ];
        self.clients.extend(clients);
    }

    /// Long streams that begin now: over both versions, secure and not, also through the listener that comes and goes.
    fn open_streams(&mut self) {
        let Addresses { web, plain, side } = self.addresses;
        let [http1, http2] = [self.tls(&[b"http/1.1"], true, &[&TLS13]), self.tls(&[b"h2"], true, &[&TLS13])];
        let mut ways = vec![(web, Some(&http1), false), (web, Some(&http2), true), (plain, None, false)];
        if self.side {
            ways.extend([(side, Some(&http1), false), (side, Some(&http2), true)]);
        }
        for (address, tls, is_http2) in ways {
            let way = self.way("a long stream", address, tls);
            let progress = || self.ledger.follow("a long stream");
            self.clients.push(if is_http2 {
                self.load.spawn(way.follow_two([progress(), progress()]))
            } else {
                self.load.spawn(way.follow(progress()))
            });
        }
        self.wait_until("long streams begin", || self.ledger.behind().is_empty());
    }

    fn way(&self, name: &'static str, address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Way {
        Way { name, address, tls: tls.cloned(), comes_and_goes: false, ledger: Arc::clone(&self.ledger) }
    }

    fn tls(&self, alpn: &[&[u8]], resumes: bool, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut config = (*self.authority.client_of(None, versions)).clone();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        if !resumes {
            config.resumption = Resumption::disabled();
        }
        Arc::new(config)
    }

    /// Waits, as long as nothing goes wrong.
    fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        wait_until(what, || {
            let failures = self.ledger.failures();
            assert!(failures.is_empty(), "{}{what}: {failures:#?}", self.last_lines());
            condition()
        });
    }

    /// The end of the log.
    fn last_lines(&self) -> String {
        let log = self.line.first.log();
        let last = &log[log.len().saturating_sub(30)..];
        last.iter().fold(String::new(), |text, line| format!("{text}{line}\n"))
    }

    /// Waits for so many more answers.
    fn ledger_grows(&self, more: usize) {
        let goal = self.ledger.answers() + more;
        self.wait_until("answers", || self.ledger.answers() >= goal);
    }

    /// Puts another certificate where the listeners' lies.
    fn renew(&mut self, order: Order) {
        let new = self.authority.sign("new", &["a.test"]);
        let swap = |from: &Path, to: &Path| {
            let beside = to.with_extension("beside");
            fs::copy(from, &beside).expect("the folder takes files");
            fs::rename(beside, to).expect("a rename in one folder");
        };
        let cert = || swap(&new.cert, &self.pair.cert);
        let key = || swap(&new.key, &self.pair.key);
        let rejected = "the key does not belong to the certificate";
        let before = self.line.said(rejected);
        let wait = || self.wait_until("the pair is rejected", || self.line.said(rejected) > before);
        match order {
            Order::CertFirst => (cert(), key()),
            Order::KeyFirst => (key(), cert()),
            Order::CertLongBeforeKey => {
                cert();
                wait();
                ((), key())
            }
            Order::KeyLongBeforeCert => {
                key();
                wait();
                ((), cert())
            }
            Order::InPlace => {
                fs::copy(&new.cert, &self.pair.cert).expect("it can be written");
                fs::copy(&new.key, &self.pair.key).expect("it can be written");
                ((), ())
            }
        };
        self.shown = new.chain()[0].clone();
    }

    /// Waits until whoever comes is shown the new certificate, at each listener. Until then it is one before.
    fn is_shown(&self) {
        let client = self.authority.client(None);
        let side = self.side.then_some(self.addresses.side);
        for address in [self.addresses.web].into_iter().chain(side) {
            self.wait_until("the new certificate is shown", || {
                let tls = authority::connect(address, &client, "a.test").expect("a handshake");
                tls.conn.peer_certificates().expect("a certificate")[0] == self.shown
            });
        }
    }

    /// Every long stream brings its next event.
    fn see_event(&self) {
        self.ledger.next_event();
        self.wait_until("the next event of every long stream", || self.ledger.behind().is_empty());
    }

    /// Adds the listener that comes and goes, or removes it.
    fn turn_side(&mut self) {
        let comes = !self.side;
        if !comes {
            self.ledger.side_turns();
        }
        self.line.first.rewrite(&yaml(&self.pair, comes));
        let is_there = || TcpStream::connect(self.addresses.side).is_ok();
        self.wait_until("the listener comes or goes", || is_there() == comes);
        if comes {
            self.ledger.side_turns();
        }
        self.side = comes;
    }

    /// Has a new process take over, and `meanwhile` something else happen.
    fn replace(&mut self, meanwhile: fn(&mut Scene)) {
        let (old, done) = (self.line.latest(), "the new process has taken over");
        let [before, failed] = [done, IN_VAIN].map(|text| self.line.said(text));
        let begun = clock::now();
        self.line.signal(old, Signal::USR2);
        meanwhile(self);
        // A pair that changes while it is read may be none. Then all stays as it was, and the operator asks again.
        self.wait_until("the hand-over", || self.line.said(done) > before || self.line.said(IN_VAIN) > failed);
        if self.line.said(IN_VAIN) > failed {
            return self.replace(|_| {});
        }
        self.handovers.push((begun, clock::now()));
        self.wait_until("the new process in the log", || self.line.latest() != old);
    }

    /// Ends the load, then the streams, then the last process; and counts.
    fn finish(mut self) {
        self.see_event();
        let processes = running(&self.line.first);
        assert_eq!(processes.len(), ROUNDS + 1, "a process for each hand-over");
        assert!(processes.iter().all(|pid| !has_ended(*pid)), "one has left its streams: {}", self.last_lines());
        self.ledger.end();
        self.ledger.last_event();
        self.wait_until("the clients end", || self.clients.iter().all(JoinHandle::is_finished));
        self.wait_until("every process but the last ends", || processes[..ROUNDS].iter().all(|pid| has_ended(*pid)));
        self.line.signal(self.line.latest(), Signal::TERM);
        self.wait_until("the last process ends", || processes.iter().all(|pid| has_ended(*pid)));
        assert_eq!(self.line.first.wait_for_exit(), 0, "{}", self.last_lines());
        assert_eq!(self.line.said("what is still under way is cut"), 0);
        assert_eq!(self.line.said("panic"), 0);
        let requests = self.ledger.settle();
        let applied = self.line.said("the configuration is applied");
        assert!(applied >= ROUNDS * RENEWALS, "only {applied} reloads");
        self.report(requests, applied);
        let reset = self.ledger.counted("reset while the listener went");
        assert!(reset <= RESET_MAX, "{reset} connections were reset; were it common, the closing would be wrong");
        for happened in ["full", "resumed", "connection: close", "went away in HTTP/2"] {
            assert!(self.ledger.counted(happened) >= 10, "{happened}: too few to show anything");
        }
    }

    /// What the load saw.
    #[expect(clippy::print_stdout, reason = "figures for whoever runs this by hand; nothing depends on them")]
    fn report(&self, requests: usize, applied: usize) {
        let mut handovers: Vec<_> = self.handovers.iter().map(|(begun, ended)| *ended - *begun).collect();
        handovers.sort_unstable();
        println!("{requests} requests, {applied} reloads, hand-overs: {handovers:?}");
        let is_during =
            |took: &Took| self.handovers.iter().any(|(begun, ended)| took.begun <= *ended && took.ended >= *begun);
        for what in [What::Answer, What::Connection] {
            for during in [true, false] {
                let times = self.ledger.times(|took| took.what == what && is_during(took) == during);
                let [half, most, max] =
                    [500, 990, 1000].map(|share| times.get((times.len() * share / 1000).max(1) - 1));
                let when = if during { "during a hand-over" } else { "otherwise" };
                println!("{what:?} {when}: {} times, half {half:?}, 99 % {most:?}, all {max:?}", times.len());
            }
        }
        println!("{:?}", self.ledger.counts());
    }
}

/// Drives the load, in a thread of its own, as long as the tests run.
fn own_runtime() -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

fn yaml(pair: &Pair, side: bool) -> String {
    let tls = format!("tls: {{ certificates: [{}] }}", pair.yaml());
    let side = if side { format!("  - {{ name: side, bind: \"{{side}}\", {tls} }}\n") } else { String::new() };
    format!(
        "
version: 1
workers: 2
admin: {{ bind: \"{{admin}}\" }}
shutdown: {{ grace: 5m }}
log: {{ format: json, file: \"{{dir}}/log\", access: false }}
listeners:
  - {{ name: web, bind: \"{{web}}\", {tls} }}
  - {{ name: plain, bind: \"{{plain}}\" }}
{side}
providers: {{ alpha: {{ url: \"http://{{alpha}}\" }}, beta: {{ url: \"h2c://{{beta}}\" }} }}
pools: {{ main: {{ providers: [alpha] }}, other: {{ providers: [beta] }} }}
routes:
  - {{ name: other, match: {{ path: \"/b/*\" }}, pool: other }}
  - {{ name: all, match: {{ path: \"/*\" }}, pool: main }}
"
    )
}

/// Processes that follow the first.
const ROUNDS: usize = 10;

/// Certificates before each of them.
const RENEWALS: usize = 10;

const ORDERS: [Order; 5] =
    [Order::CertFirst, Order::KeyFirst, Order::CertLongBeforeKey, Order::KeyLongBeforeCert, Order::InPlace];

/// What the log says of a hand-over that failed.
const IN_VAIN: &str = "the new process did not take over";

/// Of all connections to the listener that comes and goes, how many may meet the moment of its end. Most runs have none.
const RESET_MAX: u64 = 10;
