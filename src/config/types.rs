//! The checked configuration: what the rest of the gateway reads. Nothing here can be wrong any more.
//!
//! Values are parsed, names are resolved to indices, files named by the configuration are read. Live state (connections,
//! counters, circuits) is kept elsewhere and outlives any of these.

use super::secret::{Secret, SecretBytes};
use crate::http1::fields::reads_as;
use crate::http1::names::Names;
use crate::policy::class::Class;
use crate::policy::{circuit, degrade, freshness, ladder, queue, retry};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything one `gateway.yaml` says, defaults laid under it.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Worker threads; `None` is `auto`: one per core the process may use.
    pub workers: Option<NonZeroUsize>,
    /// Sockets for clients, in file order; names and addresses are unique.
    pub listeners: Vec<Arc<Listener>>,
    /// The operators' socket.
    pub admin: Admin,
    /// How long a draining gateway waits for requests under way.
    pub shutdown_grace: Duration,
    /// How long a gateway told to stop says that it is not ready and still accepts, before it drains.
    pub shutdown_delay: Duration,
    /// Whether a change of the file reloads it.
    pub reload_watch: bool,
    /// What is logged, and where.
    pub log: Log,
    /// What must last, and where.
    pub store: Store,
    /// Bounds on what all requests hold together.
    pub memory: Memory,
    /// Who calls, in file order; names are unique. The last is always [`ANONYMOUS`], which everybody else is.
    pub clients: Vec<Arc<Client>>,
    /// Upstreams, in file order; names are unique.
    pub providers: Vec<Arc<Provider>>,
    /// Sets of providers, in file order; names are unique.
    pub pools: Vec<Arc<Pool>>,
    /// Routes, in file order; names are unique.
    pub routes: Vec<Arc<Route>>,
    /// JSON pointers into [`super::effective()`] of values that came from `${…}`; it shows them as `***`.
    pub redacted: Vec<String>,
    /// Every file the configuration read besides itself, sorted: certificates, keys, authorities, `${file:…}`.
    pub files: Vec<PathBuf>,
}

/// A socket that clients connect to.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Unique among listeners.
    pub name: Arc<str>,
    /// Where it listens.
    pub bind: Bind,
    /// What is spoken on it.
    pub protocols: Protocols,
    /// What it proves and demands, where it speaks TLS.
    pub tls: Option<Arc<ListenerTls>>,
    /// Whether trusted peers begin each connection with a PROXY header, and others must not.
    pub proxy_protocol: bool,
    /// Peers whose `Forwarded`, `X-Forwarded-*`, `X-Request-Id` and `traceparent` are believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Whether whoever connects to a unix socket is believed as well (`unix` among them).
    pub trusts_unix: bool,
    /// Bounds on what one listener accepts.
    pub limits: ListenerLimits,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    /// `127.0.0.1:8080`. Port 0 asks the kernel for one (tests).
    Tcp(SocketAddr),
    /// `unix:/run/sluice.sock`: an absolute path of at most [`SOCKET_PATH_MAX`] bytes.
    Unix(PathBuf),
}

/// Bytes of a socket's path: `sun_path` has 108 with the NUL at its end (`unix(7)`).
pub const SOCKET_PATH_MAX: usize = 107;

/// Versions of HTTP; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocols {
    /// HTTP/1.1 and 1.0.
    pub http1: bool,
    /// HTTP/2: by ALPN on TLS, by prior knowledge on cleartext.
    pub http2: bool,
}

/// What a listener proves to its clients, and what it demands of them.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerTls {
    /// In file order, the first for clients that name no server or one that no certificate is for; never empty.
    pub certificates: Vec<Certificate>,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
    /// PEM of the authorities of clients; where it is there, a client must show a certificate of theirs.
    pub client_ca: Option<Arc<[u8]>>,
    /// From the accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Handshakes under way at once on the listener; further ones wait, within their timeout.
    pub handshakes: usize,
}

/// A certificate with its chain, and the key that belongs to it. Two that differ in a byte of a file differ.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Where the certificate was read.
    pub cert_path: PathBuf,
    /// Where the key was read.
    pub key_path: PathBuf,
    /// PEM, checked: the certificate itself, then its chain.
    pub cert: Arc<[u8]>,
    /// PEM, not encrypted; its public half is the certificate's.
    pub key: SecretBytes,
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    V12,
    /// RFC 8446.
    V13,
}

/// The bounds of a listener; each has a designed answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerLimits {
    /// Connections open at once; a further one waits in the kernel's backlog.
    pub connections: usize,
    /// Connections open at once from one address; a further one is closed. Unix sockets have no addresses.
    pub connections_per_address: usize,
    /// From the first byte of a head (or from the accept) to its end; then 408.
    pub header_timeout: Duration,
    /// Bytes of a request head; more is 431.
    pub header_bytes: usize,
    /// Fields in a request head; more is 431.
    pub headers: usize,
    /// Bytes of a request body; more is 413.
    pub body_bytes: u64,
    /// Between two requests of a connection, and for a client that takes nothing of its answer.
    pub idle_timeout: Duration,
    /// Bytes per second a body must keep up on average once 10 s have passed; 0 is off. Less is 408.
    pub min_body_rate: u64,
    /// Streams open at once on an HTTP/2 connection; a further one is refused.
    pub h2_streams: u32,
    /// A connection older than this is ended when the requests under way are; `None` is off.
    pub connection_age: Option<Duration>,
}

/// The operators' socket.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Where it listens; a public address needs a token.
    pub bind: SocketAddr,
    /// Who may do what. Empty: whoever reaches the (loopback) socket may operate.
    pub tokens: Vec<Token>,
    /// Host names accepted beside IP literals and `localhost`, in lower case.
    pub hosts: Vec<String>,
}

/// One bearer token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Named in logs instead of the token.
    pub name: String,
    /// The token.
    pub secret: Secret,
    /// What it allows.
    pub role: Role,
}

/// What a token allows; each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Flag evaluation only.
    Evaluate,
    /// Everything that changes nothing.
    Read,
    /// Everything.
    Operate,
}

/// What is logged, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// The least severe level written.
    pub level: Level,
    /// How lines look.
    pub format: LogFormat,
    /// Whether each request leaves a line.
    pub access: bool,
    /// A file to append to instead of standard output; reopened on USR1.
    pub file: Option<PathBuf>,
}

/// Log levels, most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Someone must act.
    Error,
    /// We coped.
    Warn,
    /// State changed.
    Info,
    /// For developers.
    Debug,
    /// Everything.
    Trace,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// What must last, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The folder of the embedded store.
    pub path: PathBuf,
}

/// Bounds on what all requests hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of all queued and replayable bodies. Beyond it the queued are shed, the others only lose their replay.
    pub buffers: usize,
    /// Bytes of all kept replies, those that are coming in included.
    pub cache: u64,
}

/// Who calls, and what it may.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// Unique among clients.
    pub name: Arc<str>,
    /// What it shows in `Authorization: Bearer` or `X-API-Key`; no other client has any of them.
    pub keys: Vec<Secret>,
    /// Where it comes from, if it shows no key. No other client has the same range; the narrower of two counts.
    pub addresses: Vec<Cidr>,
    /// The most urgent class its requests may have.
    pub max_class: Class,
    /// Its part of a queue, in proportion to the others'.
    pub share: u32,
}

/// The client that everybody is who is no other. It has neither keys nor addresses.
pub const ANONYMOUS: &str = "anonymous";

/// One upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// Unique among providers.
    pub name: Arc<str>,
    /// Where it is reached.
    pub url: ProviderUrl,
    /// Changes to request fields, made last.
    pub headers: HeaderRules,
    /// How long each phase may take.
    pub timeouts: ProviderTimeouts,
    /// Which Host it sees.
    pub host: HostRule,
    /// What is spoken with it: what ALPN offers for `https`, the one the scheme says otherwise.
    pub protocols: Protocols,
    /// The version of the PROXY header that begins each connection.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Verification, for `https`.
    pub tls: ProviderTls,
    /// Bounds on pooled connections.
    pub connections: ProviderConnections,
    /// What it takes at once and over time. For one that is discovered: the rate of all its members together, the
    /// concurrency of each.
    pub limits: ProviderLimits,
    /// What one attempt costs, in the operator's own unit.
    pub cost: Option<f64>,
    /// When it is left alone.
    pub circuit_breaker: CircuitBreaker,
    /// Asking it whether it is well, beside the requests.
    pub health_check: Option<HealthCheck>,
    /// How long it takes until one that is new, or well again, gets all of its share.
    pub slow_start: Option<Duration>,
    /// Whether each address of its name is a member of its own.
    pub discover_dns: bool,
    /// The field (lower case) that tells it how long the request may still take, in milliseconds.
    pub deadline_header: Option<String>,
}

/// What a provider takes at once and over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderLimits {
    /// Attempts at once; at least 1.
    pub concurrency: u32,
    /// Attempts over time; `None` is any.
    pub rate: Option<Rate>,
    /// Attempts that may come at once after a pause, at least 1; means nothing without a rate.
    pub burst: u32,
    /// The longest that a provider may ask us to wait.
    pub max_cooldown: Duration,
}

/// So many in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// A second, a minute or an hour.
    pub per: Duration,
}

/// When a provider is left alone.
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitBreaker {
    /// How many failures open it, and how it closes again.
    pub terms: circuit::Terms,
    /// What is a failure.
    pub failures: retry::Conditions,
    /// An attempt whose head takes longer is one as well.
    pub slow_call: Option<Duration>,
}

/// Asking a provider whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for with GET: a path, perhaps with a query. The prefix of the URL is laid before it.
    pub path: String,
    /// From the beginning of one check to that of the next.
    pub interval: Duration,
    /// For the whole of one check; never longer than `interval`.
    pub timeout: Duration,
    /// Good answers in a row after which it is well.
    pub healthy_after: u32,
    /// Bad ones in a row after which it is not.
    pub unhealthy_after: u32,
    /// The Host it sees, where that is not the one requests have.
    pub host: Option<String>,
    /// Statuses of a good answer.
    pub status: RangeInclusive<u16>,
}

/// Scheme, address and path prefix of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProviderUrl {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Where it is reached.
    pub address: ProviderAddress,
    /// Prefix laid before every path: empty, or `/v1` (never ending in `/`).
    pub prefix: String,
    /// See [`ProviderUrl::authority`].
    authority: String,
}

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1 in the clear.
    Http,
    /// What ALPN agrees on, over TLS.
    Https,
    /// HTTP/2 in the clear, by prior knowledge (RFC 9113 §3.3).
    H2c,
}

/// Where a provider is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ProviderAddress {
    /// Over the network.
    Tcp {
        /// A DNS name in lower case, or an IP literal without brackets.
        host: String,
        /// The port, the scheme's default filled in.
        port: u16,
    },
    /// On this machine: an absolute path of at most [`SOCKET_PATH_MAX`] bytes. Never with [`Scheme::Https`].
    Unix(PathBuf),
}

/// Versions of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Which `Host` a provider sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRule {
    /// The host of its own URL.
    Upstream,
    /// What the client sent.
    Preserve,
    /// This one.
    Name(String),
}

/// How long each phase of an attempt may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderTimeouts {
    /// Resolution, TCP and TLS together.
    pub connect: Duration,
    /// From the request sent to the first byte of the answer.
    pub first_byte: Duration,
    /// Between two reads of an answer, or two writes of a request.
    pub idle: Duration,
}

/// Verification of an `https` provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProviderTls {
    /// Roots to trust instead of the system's: the PEM file's bytes, checked to hold at least one certificate.
    pub ca: Option<Arc<[u8]>>,
    /// The name the certificate must have, where it is not the URL's host.
    pub server_name: Option<String>,
    /// What we show a provider that asks who we are.
    pub client: Option<ProviderCertificate>,
}

/// The certificate we show a provider. Its fields are those of [`Certificate`].
pub type ProviderCertificate = Certificate;

/// Bounds on a provider's pooled connections. Each worker has a pool of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConnections {
    /// Idle connections kept by each worker; 0 turns reuse off.
    pub idle: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// A connection older than this is closed instead of kept.
    pub max_age: Duration,
    /// Requests at once on one HTTP/2 connection; a provider that allows fewer gets fewer.
    pub streams: usize,
    /// How often an HTTP/2 connection without requests is pinged; `None` is off.
    pub ping: Option<Duration>,
}

/// The fields that the gateway writes itself, into requests or into answers, wherever the configuration does not say otherwise.
pub const OUR_FIELDS: [&str; 19] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "forwarded",
    "x-request-id",
    "traceparent",
    "accept-encoding",
    "via",
    "age",
    "date",
    "upgrade",
    "te",
    "connection",
    "content-length",
    "transfer-encoding",
    "proxy-status",
    "cache-status",
    "sluice-degraded",
    "cache-control",
];

/// Fields to set and to remove. Names are in lower case.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderRules {
    set: Vec<(String, Secret)>,
    remove: Vec<String>,
    /// The names in both.
    names: Names,
    /// One of them is among [`OUR_FIELDS`].
    name_ours: bool,
    /// The field lines of `set`, as they are written.
    lines: Secret,
}

/// Providers that can stand in for each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Unique among pools.
    pub name: Arc<str>,
    /// In file order; never empty, no provider twice, at least one no backup.
    pub members: Vec<Member>,
    /// How one of them is chosen.
    pub balance: BalanceRule,
    /// Waiting for one of them.
    pub queue: PoolQueue,
}

/// A provider in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Index into [`Config::providers`].
    pub provider: usize,
    /// Its share in proportion to the others'; at least 1. Nobody looks at it under [`BalanceRule::RoundRobin`].
    pub weight: u32,
    /// Whether it is used only while no other can be.
    pub backup: bool,
}

/// How a provider of a pool is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BalanceRule {
    /// Each in its turn.
    RoundRobin,
    /// Each in its turn, as often as its weight says.
    Weighted,
    /// The one with the fewest requests for its weight.
    LeastConnections,
    /// Of two the one that promises the sooner answer.
    PeakEwma,
    /// The same provider for the same key.
    ConsistentHash {
        /// What the key is.
        by: HashBy,
    },
}

/// What a request is hashed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The value of this field (lower case).
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The client's address.
    Ip,
    /// The client's name.
    Client,
}

/// Waiting for a provider of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolQueue {
    /// How many wait, and in which order.
    pub terms: queue::Terms,
    /// The longest wait.
    pub timeout: Duration,
    /// How often a client that waits for an event stream gets a comment; `None` is off.
    pub heartbeat: Option<Duration>,
}

/// Which requests, and what happens to them.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Unique among routes.
    pub name: Arc<str>,
    /// Which requests.
    pub matches: Match,
    /// What happens to them.
    pub action: Action,
    /// Until the answer is committed to the client.
    pub timeout: Duration,
    /// For the whole of a committed answer; `None` is off.
    pub stream_timeout: Option<Duration>,
    /// Changes on the way.
    pub rewrite: Rewrite,
    /// How urgent its requests are.
    pub class: ClassRule,
    /// What happens after a failed attempt.
    pub retry: Retry,
    /// Keeping answers to give them to others; `None` is off.
    pub cache: Option<Cache>,
    /// What answers where its pool cannot; without effect where it has none.
    pub degrade: Vec<Rung>,
}

/// One body may take one part in so many of the memory for all kept replies.
pub const CACHE_PART: u64 = 16;

/// Keeping answers to give them to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// For how long, where the origin does not say.
    pub rules: freshness::Rules,
    /// Bytes of the largest body that is kept; at most what the memory for all has room for.
    pub max_object: u64,
    /// Answers to POST are kept too, by a hash of the body.
    pub post: bool,
}

/// How urgent the requests of a route are, before the client's cap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassRule {
    /// Where the request says nothing.
    pub default: Class,
    /// The field (lower case) in which it says so; RFC 9218 `Priority` is read as well.
    pub header: Option<String>,
}

/// What happens after a failed attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// First try, retries and hedges together; at least 1.
    pub attempts: u32,
    /// What is tried again.
    pub on: retry::Conditions,
    /// Which methods may be sent twice.
    pub methods: retry::Methods,
    /// Whether any method may that comes with an `Idempotency-Key`.
    pub idempotency_key: bool,
    /// Statuses by which a provider says that it did nothing, so that any method may go elsewhere.
    pub refused: Vec<u16>,
    /// Waiting before a provider is tried twice.
    pub backoff: retry::Backoff,
    /// From the lease to the committed answer; never longer than the route's timeout.
    pub attempt_timeout: Duration,
    /// How many retries all requests may have together.
    pub budget: BudgetTerms,
    /// Bytes of a body that are kept so that it can be sent again.
    pub replay_bytes: usize,
    /// Holding a small answer until it is whole.
    pub commit: Commit,
    /// A second attempt while the first is under way.
    pub hedge: Option<Hedge>,
}

/// How many retries all requests may have together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetTerms {
    /// Retries for each request.
    pub ratio: f64,
    /// Retries a second, however few requests there are.
    pub min_per_second: f64,
}

/// Holding a small answer until it is whole, so that one that breaks off can be had elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Answers of a known length up to this are held; 0 is off.
    pub bytes: usize,
    /// For this long; zero is off.
    pub within: Duration,
}

/// A second attempt while the first is under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hedge {
    /// When it begins.
    pub after: HedgeAfter,
    /// The share of requests that may have one, above 0 and at most 1.
    pub budget: f64,
}

/// When a hedge begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HedgeAfter {
    /// Once the attempt takes longer than this part of the recent ones: 0.95 for `p95`.
    Quantile(f64),
    /// After so long.
    Time(Duration),
}

/// One step of a route's ladder.
#[derive(Debug, Clone, PartialEq)]
pub struct Rung {
    /// When it is taken; its `kind` is that of `what`.
    pub rule: ladder::Rung,
    /// When requests begin on it, before they fail.
    pub thresholds: Option<degrade::Terms>,
    /// What it does.
    pub what: Fallback,
}

/// What a rung does.
#[derive(Debug, Clone, PartialEq)]
pub enum Fallback {
    /// Asks a provider of [`Config::pools`] at this index, which is not the route's own.
    Pool(usize),
    /// Asks a provider for less.
    Reduced(Reduced),
    /// Answers with a stored copy.
    Stale,
    /// Answers this.
    Static(StaticAnswer),
}

/// What is changed about a request to make it a cheaper one, over what the route changes about each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reduced {
    /// Index into [`Config::pools`]; `None` is the route's own.
    pub pool: Option<usize>,
    /// Changes to request fields.
    pub headers: HeaderRules,
    /// What is asked for instead; in the place of `strip_prefix` and `add_prefix` too.
    pub path: Option<String>,
    /// Fields of the JSON object that is its body.
    pub json: JsonRules,
}

/// Changes to the fields of a JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonRules {
    /// Name and value, as JSON; replaces the field of the name, or is added.
    pub set: Vec<(String, String)>,
    /// Names.
    pub remove: Vec<String>,
}

/// An answer that the operator wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticAnswer {
    /// 200 to 599.
    pub status: u16,
    /// In order, names as written.
    pub headers: Vec<(String, Secret)>,
    /// Sent with `Content-Length`; for HEAD only announced.
    pub body: Arc<[u8]>,
    /// Where that was read from, if not from here.
    pub file: Option<PathBuf>,
}

/// What a request must look like.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// Any of these; never empty.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// A pattern the whole normalised path must match as well; kept as it is written, not anchored.
    pub path_regex: Option<Pattern>,
    /// Allowed methods; `None` is any. A match of all else with another method is 405.
    pub methods: Option<Vec<String>>,
    /// Fields (lower case) that must be there.
    pub headers: Vec<(String, ValueMatch)>,
    /// Query parameters that must be there.
    pub query: Vec<(String, ValueMatch)>,
}

/// A host a route answers to, in lower case and without a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `*`.
    Any,
    /// `*.example.com`: stored as `.example.com`; any number of labels before it.
    Wildcard(String),
    /// `example.com`.
    Exact(String),
}

/// A normalised path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// `/health`.
    Exact(String),
    /// `/api/*`: stored as `/api` (`/*` as the empty string); matches it and everything below.
    Prefix(String),
}

/// What a field or parameter must hold.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueMatch {
    /// Anything, as long as it is there.
    Present,
    /// Exactly this.
    Exact(String),
    /// Something this pattern finds.
    Regex(Pattern),
}

/// A compiled regular expression that compares by its text.
#[derive(Debug, Clone)]
pub struct Pattern(pub regex::bytes::Regex);

/// What a route does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send to a provider of [`Config::pools`] at this index.
    Pool(usize),
    /// Answer this.
    Respond {
        /// 200 to 599.
        status: u16,
        /// In order, names as written.
        headers: Vec<(String, Secret)>,
        /// Sent with `Content-Length`; for HEAD only announced.
        body: Arc<[u8]>,
    },
    /// Answer with a `Location`.
    Redirect {
        /// `{host}` (without its port), `{path}` and `{query}` (with its `?`) stand for the request's.
        to: String,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
}

/// Changes to a request on its way to a provider, and to the answer on its way back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rewrite {
    /// Cut from the front of the path where it stands there as whole segments.
    pub strip_prefix: Option<String>,
    /// Laid before what is left.
    pub add_prefix: Option<String>,
    /// Changes to request fields.
    pub headers: HeaderRules,
    /// Changes to answer fields.
    pub response_headers: HeaderRules,
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// Its first address.
    pub address: IpAddr,
    /// Leading bits that count.
    pub bits: u8,
}

// === impl Config ===

impl Config {
    /// The provider a pool's index names.
    #[must_use]
    pub fn provider(&self, index: usize) -> &Arc<Provider> {
        &self.providers[index]
    }
}

// === impl Route ===

impl Route {
    /// The pools it sends to, by their indices: its own, then those of its ladder.
    pub fn pools(&self) -> impl Iterator<Item = usize> {
        let own = match self.action {
            Action::Pool(index) => Some(index),
            Action::Respond { .. } | Action::Redirect { .. } => None,
        };
        own.into_iter().chain(self.degrade.iter().filter_map(|rung| rung.what.pool()))
    }
}

// === impl Fallback ===

impl Fallback {
    /// The pool it asks, where that is not the route's own.
    #[must_use]
    pub fn pool(&self) -> Option<usize> {
        match self {
            Fallback::Pool(index) => Some(*index),
            Fallback::Reduced(reduced) => reduced.pool,
            Fallback::Stale | Fallback::Static(_) => None,
        }
    }
}

// === impl JsonRules ===

impl JsonRules {
    /// Whether they change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

// === impl Rate ===

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = match self.per.as_secs() {
            0..=1 => "s",
            2..=60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

// === impl BalanceRule ===

impl BalanceRule {
    /// The word for it in the file.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            BalanceRule::RoundRobin => "round_robin",
            BalanceRule::Weighted => "weighted",
            BalanceRule::LeastConnections => "least_connections",
            BalanceRule::PeakEwma => "peak_ewma",
            BalanceRule::ConsistentHash { .. } => "consistent_hash",
        }
    }
}

// === impl HashBy ===

impl std::fmt::Display for HashBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HashBy::Header(name) => write!(f, "header:{name}"),
            HashBy::Cookie(name) => write!(f, "cookie:{name}"),
            HashBy::Ip => f.write_str("ip"),
            HashBy::Client => f.write_str("client"),
        }
    }
}

// === impl HedgeAfter ===

impl std::fmt::Display for HedgeAfter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HedgeAfter::Quantile(part) => write!(f, "p{}", (part * 1000.0).round() / 10.0),
            HedgeAfter::Time(span) => f.write_str(&super::effective::duration(*span)),
        }
    }
}

// === impl Certificate ===

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("cert", &self.cert_path)
            .field("key", &self.key_path)
            .finish_non_exhaustive()
    }
}

// === impl Bind ===

impl Bind {
    /// The address, where it is one of TCP.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Bind::Tcp(address) => Some(*address),
            Bind::Unix(_) => None,
        }
    }
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bind::Tcp(address) => address.fmt(f),
            Bind::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === impl Protocols ===

impl Protocols {
    /// HTTP/1.1 alone.
    pub const HTTP1: Protocols = Protocols { http1: true, http2: false };
    /// HTTP/2 alone.
    pub const HTTP2: Protocols = Protocols { http1: false, http2: true };
    /// Both.
    pub const BOTH: Protocols = Protocols { http1: true, http2: true };
}

// === impl Scheme ===

impl Scheme {
    /// As it stands before `://`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::H2c => "h2c",
        }
    }

    /// The port where none is written.
    #[must_use]
    pub fn default_port(self) -> u16 {
        if self.is_tls() { 443 } else { 80 }
    }

    /// Whether it is spoken over TLS.
    #[must_use]
    pub fn is_tls(self) -> bool {
        self == Scheme::Https
    }
}

// === impl ProviderUrl ===

impl ProviderUrl {
    /// A URL of these parts.
    #[must_use]
    pub fn new(scheme: Scheme, address: ProviderAddress, prefix: String) -> Self {
        let authority = authority(scheme, &address);
        ProviderUrl { scheme, address, prefix, authority }
    }

    /// The host as `Host`, DNS and certificates know it: a name or an IP literal without brackets; `localhost` for a
    /// socket on this machine, which has no name.
    #[must_use]
    pub fn host(&self) -> &str {
        self.address.host()
    }

    /// The port; `None` for a socket on this machine.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self.address {
            ProviderAddress::Tcp { port, .. } => Some(port),
            ProviderAddress::Unix(_) => None,
        }
    }

    /// What `Host` is for it: IPv6 in brackets, and the port unless it is the scheme's own.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

fn authority(scheme: Scheme, address: &ProviderAddress) -> String {
    let host = address.host();
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    match address {
        ProviderAddress::Tcp { port, .. } if *port != scheme.default_port() => format!("{bracketed}:{port}"),
        ProviderAddress::Tcp { .. } | ProviderAddress::Unix(_) => bracketed,
    }
}

impl std::fmt::Display for ProviderUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.address)?;
        let colon = if self.prefix.is_empty() || self.port().is_some() { "" } else { ":" };
        write!(f, "{colon}{}", self.prefix)
    }
}

// === impl ProviderAddress ===

impl ProviderAddress {
    fn host(&self) -> &str {
        match self {
            ProviderAddress::Tcp { host, .. } => host,
            ProviderAddress::Unix(_) => "localhost",
        }
    }
}

impl std::fmt::Display for ProviderAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ProviderAddress::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            ProviderAddress::Tcp { host, port } => write!(f, "{host}:{port}"),
            ProviderAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === impl HeaderRules ===

impl HeaderRules {
    /// Fields of the names in `remove` are taken out, those in `set` replace every field of the name.
    #[must_use]
    pub fn new(set: Vec<(String, Secret)>, remove: Vec<String>) -> Self {
        let all: Vec<_> = set.iter().map(|(name, _)| name.as_str()).chain(remove.iter().map(String::as_str)).collect();
        let is_ours = |name: &&str| OUR_FIELDS.iter().any(|ours| reads_as(name.as_bytes(), ours.as_bytes()));
        let (names, name_ours) = (Names::of(&all), all.iter().any(is_ours));
        let lines: Vec<_> = set.iter().flat_map(|(name, value)| [name, ": ", value.expose(), "\r\n"]).collect();
        let lines = Secret::new(lines.concat());
        HeaderRules { set, remove, names, name_ours, lines }
    }

    /// What replaces every field of the name; values may hold secrets.
    #[must_use]
    pub fn set(&self) -> &[(String, Secret)] {
        &self.set
    }

    /// The same as field lines, each with its line end.
    #[must_use]
    #[inline]
    pub fn lines(&self) -> &[u8] {
        self.lines.expose().as_bytes()
    }

    /// What is removed before any is set.
    #[must_use]
    pub fn remove(&self) -> &[String] {
        &self.remove
    }

    /// Whether a field of this name is removed or replaced: one whose name may be read as a name in either.
    #[must_use]
    #[inline]
    pub fn name(&self, name: &[u8]) -> bool {
        self.names.may_hold(name)
            && self.remove.iter().chain(self.set.iter().map(|(set, _)| set)).any(|own| reads_as(name, own.as_bytes()))
    }

    /// Whether [`HeaderRules::name`] holds for one of [`OUR_FIELDS`].
    #[must_use]
    #[inline]
    pub fn name_ours(&self) -> bool {
        self.name_ours
    }

    /// Whether they change nothing.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

// === impl Pattern ===

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

// === impl Cidr ===

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Cidr {
    /// Whether `address` lies in the range. An IPv4 address mapped into IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits.min(32))).unwrap_or(0);
                u32::from(range) & mask == u32::from(ip) & mask
            }
            (IpAddr::V6(range), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits.min(128))).unwrap_or(0);
                u128::from(range) & mask == u128::from(ip) & mask
            }
            _ => false,
        }
    }
}
