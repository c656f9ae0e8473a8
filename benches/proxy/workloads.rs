//! What is asked of the contenders.

use crate::certificates::Key;
use crate::upstream;
use std::str::FromStr;

/// One kind of request, made over and over.
#[derive(Debug, PartialEq)]
pub(crate) struct Workload {
    /// What `--workloads` calls it.
    pub(crate) key: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    /// Which of a contender's faces is asked.
    pub(crate) face: Face,
    /// What is spoken there.
    pub(crate) protocol: Protocol,
    /// Whether connections last.
    pub(crate) visit: Visit,
    /// Where it is at the upstream.
    pub(crate) path: &'static str,
    /// Bytes sent with it; none makes it a GET.
    pub(crate) body_bytes: usize,
    /// A field line sent with it; may be empty.
    pub(crate) field: &'static str,
    /// Status of the answer.
    pub(crate) status: u16,
    /// Bytes of the answer's body.
    pub(crate) answer_bytes: usize,
    /// Connections that ask at once.
    pub(crate) connections: u32,
    /// Requests at once on each of them.
    pub(crate) streams: u32,
    /// Requests in the shorter and in the longer instrumented run; their difference is what is counted.
    pub(crate) counted: (u32, u32),
}

/// How a contender is configured: each face is a process of its own with one listener, so that a contender that cannot
/// do one of them still takes part in the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Face {
    /// Cleartext HTTP/1 on both sides.
    Http1,
    /// The same with many routes and many providers.
    Many,
    /// The same with a cache between them.
    Cache,
    /// Cleartext HTTP/2 from clients, HTTP/1 to the upstream.
    Http2,
    /// Cleartext HTTP/2 on both sides.
    Grpc,
    /// TLS with HTTP/1 and HTTP/2 by ALPN from clients, cleartext HTTP/1 to the upstream.
    Tls(Key),
}

/// What clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS by prior knowledge.
    Http2,
    /// HTTP/1.1, upgraded; a message and its echo are what elsewhere is a request.
    WebSocket,
}

/// How long a client's connection lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    /// For all its requests.
    Stay,
    /// For one request, after a full handshake where there is TLS.
    Fresh,
    /// For one request, after a handshake resumed from a ticket of the connection before.
    Again,
}

/// Workloads chosen by a word of `--workloads`.
#[derive(Debug, Clone)]
pub(crate) struct Choice(Vec<&'static Workload>);

/// What most workloads are like.
pub(crate) const GET_1K: Workload = Workload {
    key: "1k",
    title: "GET, 1 KiB answer",
    face: Face::Http1,
    protocol: Protocol::Http1,
    visit: Visit::Stay,
    path: "/1k",
    body_bytes: 0,
    field: "",
    status: 200,
    answer_bytes: 1024,
    connections: 16,
    streams: 1,
    counted: (500, 3500),
};

/// A handshake costs as much as many requests.
const HANDSHAKE: Workload = Workload { face: Face::Tls(Key::P256), visit: Visit::Fresh, counted: (20, 120), ..GET_1K };

// === impl Workload ===

impl Workload {
    /// In the order they are run and shown.
    pub(crate) const ALL: &'static [Workload] = &[
        GET_1K,
        Workload {
            key: "post",
            title: "POST, 4 KiB body",
            path: "/post",
            body_bytes: 4096,
            answer_bytes: 16,
            ..GET_1K
        },
        Workload {
            key: "100k",
            title: "GET, 100 KiB answer",
            path: "/100k",
            answer_bytes: 100 * 1024,
            counted: (200, 1200),
            ..GET_1K
        },
        Workload {
            key: "10m",
            title: "GET, 10 MiB answer",
            path: "/10m",
            answer_bytes: 10 * 1024 * 1024,
            connections: 4,
            counted: (5, 25),
            ..GET_1K
        },
        Workload {
            key: "stream",
            title: "GET, stream of 50 chunks",
            path: upstream::STREAM_PATH,
            answer_bytes: upstream::CHUNKS * upstream::CHUNK,
            // The upstream takes its time over a stream, so more of them are needed to keep a proxy busy.
            connections: 64,
            counted: (10, 40),
            ..GET_1K
        },
        Workload { key: "conn", title: "GET, a connection per request", visit: Visit::Fresh, ..GET_1K },
        Workload {
            key: "ws",
            title: "WebSocket, echo of 64 bytes",
            protocol: Protocol::WebSocket,
            path: upstream::ECHO_PATH,
            answer_bytes: 64,
            ..GET_1K
        },
        Workload {
            key: "many",
            title: "GET, 1,000 routes, 100 providers",
            face: Face::Many,
            path: MANY_PATH,
            ..GET_1K
        },
        Workload {
            key: "cache-1k",
            title: "cache hit, GET, 1 KiB answer",
            face: Face::Cache,
            path: upstream::KEPT_PATH,
            ..GET_1K
        },
        Workload {
            key: "cache-304",
            title: "cache hit, If-None-Match, 304",
            face: Face::Cache,
            path: upstream::KEPT_PATH,
            field: upstream::KEPT_CONDITION,
            status: 304,
            answer_bytes: 0,
            ..GET_1K
        },
        Workload {
            key: "h2-1k",
            title: "HTTP/2, GET, 1 KiB answer",
            face: Face::Http2,
            protocol: Protocol::Http2,
            connections: 1,
            streams: 32,
            ..GET_1K
        },
        Workload {
            key: "h2-grpc",
            title: "HTTP/2 to HTTP/2, a small call",
            face: Face::Grpc,
            protocol: Protocol::Http2,
            path: upstream::CALL_PATH,
            body_bytes: 64,
            answer_bytes: 64,
            connections: 1,
            streams: 32,
            ..GET_1K
        },
        Workload { key: "tls-1k", title: "TLS, GET, 1 KiB answer", face: Face::Tls(Key::P256), ..GET_1K },
        Workload {
            key: "tls-h2-1k",
            title: "TLS, HTTP/2, GET, 1 KiB answer",
            face: Face::Tls(Key::P256),
            protocol: Protocol::Http2,
            connections: 1,
            streams: 32,
            ..GET_1K
        },
        Workload { key: "tls-full", title: "TLS handshake, P-256", ..HANDSHAKE },
        Workload { key: "tls-resumed", title: "TLS handshake, resumed", visit: Visit::Again, ..HANDSHAKE },
        Workload { key: "tls-rsa-full", title: "TLS handshake, RSA 2048", face: Face::Tls(Key::Rsa), ..HANDSHAKE },
        Workload {
            key: "tls-rsa-resumed",
            title: "TLS handshake, RSA 2048, resumed",
            face: Face::Tls(Key::Rsa),
            visit: Visit::Again,
            ..HANDSHAKE
        },
    ];

    /// The workload called `key`.
    pub(crate) fn named(key: &str) -> Option<&'static Workload> {
        Workload::ALL.iter().find(|workload| workload.key == key)
    }

    /// Those of one face.
    pub(crate) fn of(face: Face) -> impl Iterator<Item = &'static Workload> {
        Workload::ALL.iter().filter(move |workload| workload.face == face)
    }

    /// Method and target of one of its requests; they differ where there are many routes.
    pub(crate) fn request_line(&self, at: usize) -> String {
        format!("{} {}", self.method(), self.target(at))
    }

    /// The target of one of its requests.
    pub(crate) fn target(&self, at: usize) -> String {
        match self.face {
            Face::Many => format!("{}{}", many_prefix(at % MANY_ROUTES), GET_1K.path),
            _ => self.path.to_owned(),
        }
    }

    /// The method alone.
    pub(crate) fn method(&self) -> &'static str {
        if self.body_bytes == 0 { "GET" } else { "POST" }
    }

    /// What is sent.
    pub(crate) fn body(&self) -> Vec<u8> {
        vec![b'x'; self.body_bytes]
    }

    /// Whether wrk makes these requests; it speaks HTTP/1 only, and keeps its connections.
    pub(crate) fn by_wrk(&self) -> bool {
        let clear = matches!(self.face, Face::Http1 | Face::Many | Face::Cache);
        clear && self.protocol == Protocol::Http1 && self.visit == Visit::Stay
    }
}

// === impl Face ===

impl Face {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Face::Http1 => "HTTP/1",
            Face::Many => "HTTP/1 with many routes",
            Face::Cache => "HTTP/1 with a cache",
            Face::Http2 => "HTTP/2",
            Face::Grpc => "HTTP/2 to HTTP/2",
            Face::Tls(Key::P256) => "TLS with P-256",
            Face::Tls(Key::Rsa) => "TLS with RSA",
        }
    }

    /// The scheme of what is asked here.
    pub(crate) fn scheme(self) -> &'static str {
        if matches!(self, Face::Tls(_)) { "https" } else { "http" }
    }
}

// === impl Choice ===

impl Choice {
    /// What all `choices` name together, each once and in the usual order; without any all but those of RSA, of which
    /// nobody makes new ones.
    pub(crate) fn all_of(choices: &[Choice]) -> Vec<&'static Workload> {
        let chosen = |workload: &&Workload| match choices {
            [] => workload.face != Face::Tls(Key::Rsa),
            some => some.iter().any(|Choice(some)| some.contains(workload)),
        };
        Workload::ALL.iter().filter(chosen).collect()
    }
}

impl FromStr for Choice {
    type Err = String;

    /// A workload's key, the beginning of several (`tls`, `tls-rsa`, `h2`), or `h1`.
    fn from_str(word: &str) -> Result<Choice, String> {
        let begins = |key: &str| key.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        let meant = |one: &&Workload| begins(one.key) || (word == "h1" && one.face == Face::Http1);
        let found: Vec<_> = Workload::ALL.iter().filter(meant).collect();
        if found.is_empty() {
            let known: Vec<_> = Workload::ALL.iter().map(|workload| workload.key).collect();
            return Err(format!("there is no workload {word:?}; there are h1, h2, tls and {}", known.join(", ")));
        }
        Ok(Choice(found))
    }
}

// === many routes ===

/// What the paths of the `at`-th of many routes begin with.
pub(crate) fn many_prefix(at: usize) -> String {
    format!("/team-{:02}/service-{:03}", at % 40, at)
}

/// Routes of [`Face::Many`], beside those that are always there.
pub(crate) const MANY_ROUTES: usize = 1000;

/// The target of its first request, as [`many_prefix`] has it.
const MANY_PATH: &str = "/team-00/service-000/1k";
