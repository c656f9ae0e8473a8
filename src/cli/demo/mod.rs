//! `sluice demo`: three sample providers that misbehave, the gateway in front of them, and a short load, in one process.
//!
//! The gateway is handed in as a function, so that this file knows nothing of how it is built; the demo uses it as any
//! client would, over its sockets.

mod behind;
mod body;
mod figures;
mod load;
pub mod providers;
mod screen;
mod websocket;

use figures::Figures;
use providers::{Sample, told};
use screen::Screen;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoOptions {
    /// A configuration instead of the built-in `gateway.yaml`; it should name the sample providers' ports.
    pub config: Option<PathBuf>,
    /// End by itself after so many seconds of load; otherwise stay up after it until a signal.
    pub seconds: Option<u64>,
    /// Whether to send the load at all.
    pub load: bool,
}

/// A gateway that runs in threads of its own.
pub struct Running {
    /// Its first listener.
    pub web: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
    /// The file it logs to, where it does not share standard output with the demo.
    pub log: Option<PathBuf>,
    /// Drains it and returns once it is gone; called where blocking is allowed and a runtime's handle is there.
    pub stop: Box<dyn FnOnce() + Send>,
}

// === impl Running ===

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("web", &self.web).field("admin", &self.admin).finish_non_exhaustive()
    }
}

/// Runs the demo and returns the exit code: 0, or 1 where something could not start or a kind of traffic never worked.
///
/// `start` brings up the gateway from the file, or from the built-in configuration for `None`, and says why it cannot.
pub fn run(options: &DemoOptions, start: impl FnOnce(Option<&Path>) -> Result<Running, String>) -> i32 {
    match try_run(options, start) {
        Ok(code) => code,
        Err(problem) => {
            let _ = writeln!(io::stderr(), "sluice demo: {problem}");
            1
        }
    }
}

fn try_run(options: &DemoOptions, start: impl FnOnce(Option<&Path>) -> Result<Running, String>) -> Result<i32, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime for the sample providers: {error}"))?;
    let (_providers, running) = watch::channel(false);
    runtime.block_on(async {
        for (sample, listener) in listen().await? {
            tokio::spawn(providers::serve(sample, listener, running.clone()));
        }
        Ok::<(), String>(())
    })?;
    // Outside of `block_on`: the gateway builds runtimes of its own.
    let gateway = start(options.config.as_deref())?;
    let mut screen = Screen::of_this_process();
    screen.title("Sluice is up, in front of three sample providers");
    screen.say(&where_to_look(&gateway));
    let code = runtime.block_on(async {
        let mut stop = stop_on_signal()?;
        let code = drive(options, [gateway.web, gateway.admin], &mut stop, &mut screen).await;
        end(gateway, &mut screen).await.map(|()| code)
    });
    // A drain that was cut short still blocks its thread; the process ends without it.
    runtime.shutdown_background();
    code
}

/// The load and what comes after it, until the time is up or a signal comes; the exit code. `gateway` is where it listens,
/// for clients and for operators.
async fn drive(
    options: &DemoOptions,
    [web, admin]: [SocketAddr; 2],
    stop: &mut watch::Receiver<bool>,
    screen: &mut Screen,
) -> i32 {
    let length = Duration::from_secs(options.seconds.unwrap_or(LOAD_SECONDS));
    let mut code = 0;
    if options.load {
        let figures = load::run(web, length, stop.clone(), screen).await;
        screen.say(&format!("\n{}", figures.summary()));
        screen.say(&behind::told(admin).await);
        code = verdict(&figures, *stop.borrow(), screen);
    } else if options.seconds.is_some() {
        let _ = timeout(length, told(stop)).await;
    }
    if options.seconds.is_none() && !screen.is_closed() && !*stop.borrow() {
        screen.say("The gateway stays up: press Ctrl-C to end.");
        told(stop).await;
    }
    code
}

/// The exit code of a load: a signal may have come before every kind had its turn.
fn verdict(figures: &Figures, stopped: bool, screen: &mut Screen) -> i32 {
    let silent: Vec<_> = figures.silent().into_iter().map(figures::Kind::name).collect();
    if silent.is_empty() || stopped {
        return 0;
    }
    screen.say(&format!("Not one request worked of: {}.", silent.join(", ")));
    1
}

/// Drains the gateway while the providers go on, so that what is under way ends well; a signal cuts it short.
async fn end(gateway: Running, screen: &mut Screen) -> Result<(), String> {
    screen.say("Draining: Ctrl-C stops now.");
    let mut now = stop_on_signal()?;
    tokio::select! {
        () = told(&mut now) => {}
        // A gateway that could not stop in order has said so itself.
        _ = tokio::task::spawn_blocking(gateway.stop) => {}
    }
    Ok(())
}

/// Turns true at the next INT or TERM.
fn stop_on_signal() -> Result<watch::Receiver<bool>, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("no signal handler: {error}"));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.send_replace(true);
    });
    Ok(stopped)
}

/// Every provider's listener, or what is in the way.
async fn listen() -> Result<Vec<(Sample, TcpListener)>, String> {
    let mut listeners = Vec::new();
    for sample in Sample::ALL {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, sample.port()));
        let listener = TcpListener::bind(address).await.map_err(|error| refused(sample, address, &error))?;
        listeners.push((sample, listener));
    }
    Ok(listeners)
}

fn refused(sample: Sample, address: SocketAddr, error: &io::Error) -> String {
    let name = sample.name();
    if error.kind() != io::ErrorKind::AddrInUse {
        return format!("the sample provider {name} cannot listen on {address}: {error}");
    }
    format!(
        "the sample provider {name} wants {address}, but something listens there already.\n  \
         It may be another demo. See what it is with:  ss -ltnp 'sport = :{}'\n  Stop it, then start the demo again.",
        address.port()
    )
}

fn where_to_look(gateway: &Running) -> String {
    let Running { web, admin, log, .. } = gateway;
    let line =
        |sample: Sample| format!("  {:<8} http://127.0.0.1:{}   {}\n", sample.name(), sample.port(), sample.describe());
    let providers = Sample::ALL.map(line).concat();
    let log = log.as_ref().map(|file| format!("  tail -f {}\n", file.display())).unwrap_or_default();
    format!(
        "  gateway  http://{web}\n  admin    http://{admin}   /metrics  /readyz?verbose  /api/v1/config\n{providers}\n\
         Try, from another terminal:\n  \
         curl -i http://{web}/api/hello\n  \
         curl -d 'some text' http://{web}/api/echo\n  \
         curl -N http://{web}/live/stream\n  \
         curl -i http://{web}/spare/hello          # a few times: while spare is down, alpha answers\n  \
         curl -s http://{admin}/api/v1/circuit-breakers/spare\n  \
         curl -s http://{admin}/metrics | grep sluice_attempts_total\n{log}"
    )
}

/// How long the load runs where nothing else is asked for.
const LOAD_SECONDS: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: DemoOptions = DemoOptions { config: None, seconds: Some(1), load: true };

    /// A sample provider in the gateway's place: it knows every path of the load.
    async fn stand_in(sample: Sample) -> (SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(providers::serve(sample, listener, stopped));
        (address, stop)
    }

    #[tokio::test]
    async fn every_kind_of_traffic_works_against_a_provider_that_stays_up() {
        let (address, _provider) = stand_in(Sample::Alpha).await;
        let (_stop, mut stopped) = watch::channel(false);
        let (mut screen, written) = Screen::in_memory();
        let code = drive(&OPTIONS, [address; 2], &mut stopped, &mut screen).await;
        let written = written.text();
        assert_eq!(code, 0, "{written}");
        for kind in figures::Kind::ALL {
            assert!(written.contains(kind.name()), "{written}");
        }
        assert!(written.contains(" 2xx ") && written.contains("answered by        alpha"), "{written}");
    }

    #[tokio::test]
    async fn a_gateway_that_is_not_there_fails_the_demo_and_says_what_did_not_work() {
        // Bound but not listening: connections are refused, and no other test gets the port.
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = socket.local_addr().expect("a bound socket");
        let (_stop, mut stopped) = watch::channel(false);
        let (mut screen, written) = Screen::in_memory();
        assert_eq!(drive(&OPTIONS, [address; 2], &mut stopped, &mut screen).await, 1);
        assert!(written.text().contains("Not one request worked of: GET, POST, echoed, 256 KiB download"));
    }

    #[tokio::test]
    async fn a_signal_ends_the_load_early_and_is_no_failure() {
        let (address, _provider) = stand_in(Sample::Alpha).await;
        let (_stop, mut stopped) = watch::channel(true);
        let (mut screen, written) = Screen::in_memory();
        let options = DemoOptions { seconds: None, ..OPTIONS };
        assert_eq!(drive(&options, [address; 2], &mut stopped, &mut screen).await, 0);
        assert!(written.text().contains("kind of traffic"));
    }

    #[test]
    fn a_taken_port_is_named_with_what_to_do() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9001));
        let text = refused(Sample::Alpha, address, &io::ErrorKind::AddrInUse.into());
        assert!(
            text.starts_with("the sample provider alpha wants 127.0.0.1:9001, but something listens there"),
            "{text}"
        );
        assert!(text.contains("ss -ltnp 'sport = :9001'"), "{text}");
    }

    #[test]
    fn the_curl_lines_name_the_addresses_the_gateway_has() {
        let web = SocketAddr::from((Ipv4Addr::LOCALHOST, 18080));
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 19900));
        let text = where_to_look(&Running { web, admin, log: None, stop: Box::new(|| ()) });
        assert!(text.contains("\n  curl -i http://127.0.0.1:18080/api/hello\n"), "{text}");
        assert!(text.contains("  admin    http://127.0.0.1:19900   /metrics"), "{text}");
    }
}
