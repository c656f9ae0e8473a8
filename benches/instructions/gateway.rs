//! Whole requests, through a gateway that is one task beside its client and its provider: all three in one runtime, on one
//! thread, over unix sockets. There the kernel hands bytes over at once, so everything happens in the same order every time.

use crate::subjects::configuration;
use sluice::cache::reply::Cache;
use sluice::clock;
use sluice::net::io::Socket;
use sluice::observe::logs::Logs;
use sluice::observe::metrics::Metrics;
use sluice::proxy::Shared;
use sluice::proxy::snapshot::Snapshot;
use sluice::server::connection;
use sluice::server::port::Port;
use sluice::server::worker::Worker;
use sluice::upstream::registry::Registry;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Asks for `path` so often, over one connection.
pub(crate) fn ask(path: &str, turns: u64) {
    let request = format!("GET {path}?page=2 HTTP/1.1\r\n{FIELDS}\r\n");
    drive(request.as_bytes(), turns, if path == KEPT { 1 } else { turns });
}

/// Sends a body of so many bytes so often, over one connection.
pub(crate) fn send(path: &str, bytes: usize, turns: u64) {
    let body = "x".repeat(bytes);
    let request = format!("POST {path}?page=2 HTTP/1.1\r\n{FIELDS}Content-Length: {bytes}\r\n\r\n{body}");
    drive(request.as_bytes(), turns, turns);
}

/// Has `request` answered so often, of which the provider is to answer so many.
fn drive(request: &[u8], turns: u64, provided: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answered = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        let path = folder.path().join("provider");
        let listener = UnixListener::bind(&path).expect("a path for a socket");
        tokio::spawn(provide(listener, request.len(), Arc::clone(&answered)));
        let mut client = connect(&path);
        let mut answer = Vec::with_capacity(2 * BODY);
        for _ in 0..turns {
            client.write_all(request).await.expect("the gateway reads");
            answer.clear();
            while !answer.ends_with(END) {
                assert!(client.read_buf(&mut answer).await.expect("the gateway answers") > 0, "it closed");
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        }
    });
    assert_eq!(answered.load(Ordering::Relaxed), provided);
}

/// A client's connection to a new gateway, whose provider listens at `path`.
fn connect(path: &Path) -> UnixStream {
    let config = configuration(&format!(
        "\
providers: {{ app: {{ url: \"http://unix:{}\" }} }}
pools: {{ main: {{ providers: [app] }} }}
routes:
  - {{ name: kept, match: {{ path: \"{KEPT}\" }}, pool: main, cache: {{}} }}
  - {{ name: passed, match: {{ path: \"/*\" }}, pool: main }}
",
        path.display()
    ));
    let (config, metrics, now) = (Arc::new(config), Arc::new(Metrics::new()), clock::now());
    let (registry, pools) = Registry::default().build(&config, 1, &metrics).expect("it can be built");
    registry.take_effect(&Registry::default(), now);
    let listener = &config.listeners[0];
    let (port, _doors) = Port::listen(listener, 1, metrics.listener(&listener.name), false, None).expect("a free port");
    let shared = Arc::new(Shared {
        snapshot: Arc::new(Snapshot::new(Arc::clone(&config), &pools, &registry, &metrics)).into(),
        logs: Logs::start(&config.log, Arc::clone(&metrics)).expect("standard output"),
        metrics,
        draining: AtomicBool::new(false),
        cache: Cache::new(config.memory.cache).into(),
    });
    let (client, gateway) = UnixStream::pair().expect("two sockets");
    // Said to come from an address, as clients do.
    let place = port.enter(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 7), 40_000)).into());
    let worker = Arc::new(Worker { index: 0, shared });
    tokio::spawn(connection::serve(Socket::Unix(gateway), place, worker));
    client
}

/// Answers whatever comes, and counts that.
async fn provide(listener: UnixListener, at_least: usize, answered: Arc<AtomicU64>) {
    let mut answer = format!("HTTP/1.1 200 OK\r\n{ANSWER_FIELDS}Content-Length: {BODY}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + BODY - END.len(), b'x');
    answer.extend_from_slice(END);
    loop {
        let (mut socket, _) = listener.accept().await.expect("the gateway connects");
        let (answer, answered) = (answer.clone(), Arc::clone(&answered));
        tokio::spawn(async move {
            let mut request = Vec::with_capacity(4 * BODY);
            // A request only grows on its way.
            while socket.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
                if request.len() >= at_least && (request.ends_with(b"\r\n\r\n") || request.ends_with(b"xxxx")) {
                    answered.fetch_add(1, Ordering::Relaxed);
                    request.clear();
                    socket.write_all(&answer).await.expect("the gateway reads");
                }
            }
        });
    }
}

/// Where answers are kept.
const KEPT: &str = "/kept";

const FIELDS: &str = "\
    Host: www.example.com\r\n\
    User-Agent: python-requests/2.32.3\r\n\
    Accept: application/json\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    X-Tenant: 7d3f0c1e\r\n";

const ANSWER_FIELDS: &str = "\
    Content-Type: application/json\r\n\
    Cache-Control: public, max-age=86400\r\n\
    ETag: \"5f2c-61a8\"\r\n\
    Server: uvicorn\r\n";

/// Bytes of an answer's body.
const BODY: usize = 1024;

/// Its last bytes.
const END: &[u8] = b"the end";
