//! The shape of the whole `gateway.yaml`: every key, its type, its default, its meaning, and whether it is built.
//!
//! This table is the one place that knows. Unknown keys and wrong types are found with it ([`super::conform`]), decoding
//! takes its defaults ([`super::decode`]), the JSON Schema and the key table of the documentation are printed from it
//! ([`super::schema()`]). A key that is not built is here so that writing it can be answered with more than "unknown".

/// One key of a mapping.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Standard,
    /// One line, for the schema and the key table. Empty where the key is not built.
    pub(super) meaning: &'static str,
    pub(super) built: bool,
}

/// What holds where a key is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standard {
    /// It must be written.
    Required,
    /// What it does is off.
    Off,
    /// This, as YAML.
    Is(&'static str),
}

/// What a value must be.
#[derive(Debug)]
pub(super) enum Kind {
    Bool,
    Int(u64, u64),
    Fraction,
    /// A number from the one to the other.
    Number(f64, f64),
    Text,
    Secret,
    /// Any scalar, as it is written.
    Value,
    /// The same, never shown.
    SecretValue,
    Duration,
    /// A duration that may be zero, which turns it off.
    DurationOrOff,
    Size(u64, u64),
    ByteRate,
    Rate,
    TlsVersion,
    Bind,
    /// The same, without unix sockets.
    TcpBind,
    Cidr,
    /// The same, or `unix`.
    Proxy,
    ProviderUrl,
    Host,
    HostPattern,
    HostRule,
    HeaderName,
    Method,
    /// A way for an attempt to end.
    Condition,
    /// A status, or the first and the last of several.
    StatusRange,
    /// What a request is hashed by.
    HashBy,
    /// When a hedge begins.
    HedgeAfter,
    PathPattern,
    PathPrefix,
    /// A path, perhaps with a query.
    Target,
    Regex,
    File,
    Location,
    /// A new name.
    Name,
    /// The name of something defined in that section.
    Reference(&'static str),
    Words(&'static [Word]),
    List(&'static Kind, usize, usize),
    /// Names of the user's choice to values of one kind.
    Map(Names, &'static Kind),
    Object(&'static [Key]),
    Either(&'static [Kind]),
}

/// One word of a fixed set.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) word: &'static str,
    pub(super) built: bool,
}

/// What the keys of a map are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Names of providers, pools and the like.
    Things,
    /// Names of header fields.
    Fields,
    /// Query parameters, fields of JSON.
    Any,
}

// === impl Key ===

const fn key(name: &'static str, kind: Kind, default: Standard, meaning: &'static str) -> Key {
    Key { name, kind, default, meaning, built: true }
}

/// A key of the contract that is not built yet.
const fn later(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, default: Standard::Off, meaning: "", built: false }
}

// === impl Word ===

const fn word(word: &'static str) -> Word {
    Word { word, built: true }
}

const fn later_word(word: &'static str) -> Word {
    Word { word, built: false }
}

// === impl Kind ===

impl Kind {
    /// Whether nothing under it may be shown.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self, Kind::Secret | Kind::SecretValue)
    }

    /// Whether a secret can stand anywhere within.
    pub(super) fn holds_secrets(&self) -> bool {
        match self {
            Kind::Object(keys) => keys.iter().any(|key| key.kind.holds_secrets()),
            Kind::List(of, ..) | Kind::Map(_, of) => of.holds_secrets(),
            Kind::Either(kinds) => kinds.iter().any(Kind::holds_secrets),
            kind => kind.is_secret() || matches!(kind, Kind::ProviderUrl),
        }
    }

    /// The type, for the key table and for messages: "expected …".
    pub(super) fn describe(&self) -> String {
        match self {
            Kind::Bool => "true or false".into(),
            Kind::Int(min, u64::MAX) => format!("an integer, at least {min}"),
            Kind::Int(min, max) if min == max => format!("the number {min}"),
            Kind::Int(min, max) => format!("an integer from {min} to {max}"),
            Kind::Fraction => "a number".into(),
            Kind::Number(min, max) => format!("a number from {min} to {max}"),
            Kind::Text | Kind::Location => "text".into(),
            Kind::Secret => "text (secret)".into(),
            Kind::Value => "text, a number or a boolean".into(),
            Kind::SecretValue => "text, a number or a boolean (secret)".into(),
            Kind::Duration => "a duration".into(),
            Kind::DurationOrOff => "a duration, 0s is off".into(),
            Kind::Size(..) => "a size".into(),
            Kind::ByteRate => "a rate in bytes".into(),
            Kind::Rate => "a rate".into(),
            Kind::TlsVersion => "`1.2` or `1.3`".into(),
            Kind::Bind => "an address and port, or `unix:` and a path".into(),
            Kind::TcpBind => "an address and port".into(),
            Kind::Cidr => "an address range".into(),
            Kind::Proxy => "an address range, or `unix`".into(),
            Kind::ProviderUrl => "a URL".into(),
            Kind::Host => "a host name".into(),
            Kind::HostPattern => "a host name, `*.` and a host name, or `*`".into(),
            Kind::HostRule => "`upstream`, `preserve` or a host name".into(),
            Kind::HeaderName => "a field name".into(),
            Kind::Method => "a method".into(),
            Kind::Condition => super::scalar::CONDITION.into(),
            Kind::StatusRange => "a status, or two and a `-` between them".into(),
            Kind::HashBy => "`header:NAME`, `cookie:NAME`, `ip` or `client`".into(),
            Kind::HedgeAfter => "a quantile such as `p95`, or a duration".into(),
            Kind::Target => "a path, perhaps with a query".into(),
            Kind::PathPattern => "a path, `/*` at its end for all below".into(),
            Kind::PathPrefix => "a path prefix".into(),
            Kind::Regex => "a regular expression".into(),
            Kind::File => "a path".into(),
            Kind::Name => "a name".into(),
            Kind::Reference(section) => format!("the name of one of `{section}`"),
            Kind::Words(words) => one_of(words),
            Kind::List(of, ..) => format!("a list of: {}", of.describe()),
            Kind::Map(Names::Things, _) => "a mapping of names".into(),
            Kind::Map(Names::Fields, of) => format!("a mapping of field names to: {}", of.describe()),
            Kind::Map(Names::Any, of) => format!("a mapping of text to: {}", of.describe()),
            Kind::Object(_) => "a mapping".into(),
            Kind::Either(kinds) => {
                kinds.iter().filter(|kind| kind.is_built()).map(Kind::describe).collect::<Vec<_>>().join(", or ")
            }
        }
    }

    /// Whether any of it can be written today.
    pub(super) fn is_built(&self) -> bool {
        match self {
            Kind::Words(words) => words.iter().any(|word| word.built),
            Kind::Object(keys) => keys.iter().any(|key| key.built),
            _ => true,
        }
    }
}

/// The words that are built, for people.
pub(super) fn one_of(words: &[Word]) -> String {
    let built: Vec<String> = words.iter().filter(|w| w.built).map(|w| format!("`{}`", w.word)).collect();
    match built.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => built.concat(),
    }
}

/// Whether the values of `key`, wherever it stands, can be shown when the file around it cannot be read.
pub(super) fn is_harmless(key: &str) -> bool {
    fn find(keys: &'static [Key], name: &str, found: &mut bool, secret: &mut bool) {
        for key in keys {
            *found |= key.name == name;
            *secret |= key.name == name && holds_secret(&key.kind);
            inner(&key.kind, &mut |keys| find(keys, name, found, secret));
        }
    }
    let (mut found, mut secret) = (false, false);
    find(ROOT, key, &mut found, &mut secret);
    found && !secret && !matches!(key, "key" | "redis" | "webhook" | "otlp" | "url" | "body")
}

/// Every built key of the name with the key it stands under, each pair once.
pub(super) fn places(name: &str, found: &mut Vec<(&'static Key, &'static str)>) {
    fn find(keys: &'static [Key], name: &str, found: &mut Vec<(&'static Key, &'static str)>) {
        for parent in keys.iter().filter(|key| key.built) {
            inner(&parent.kind, &mut |keys| {
                let matching = keys.iter().filter(|key| key.built && key.name == name);
                for key in matching.map(|key| (key, parent.name)) {
                    if !found.iter().any(|known| std::ptr::eq(known.0, key.0) && known.1 == key.1) {
                        found.push(key);
                    }
                }
                find(keys, name, found);
            });
        }
    }
    find(ROOT, name, found);
}

/// Calls `visit` with the keys of every object directly within `kind`.
pub(super) fn inner(kind: &'static Kind, visit: &mut impl FnMut(&'static [Key])) {
    match kind {
        Kind::Object(keys) => visit(keys),
        Kind::List(of, ..) | Kind::Map(_, of) => inner(of, visit),
        Kind::Either(kinds) => kinds.iter().for_each(|kind| inner(kind, visit)),
        _ => {}
    }
}

/// Whether a scalar directly under `kind` is a secret.
fn holds_secret(kind: &Kind) -> bool {
    match kind {
        Kind::List(of, ..) | Kind::Map(_, of) => holds_secret(of),
        Kind::Either(kinds) => kinds.iter().any(holds_secret),
        kind => kind.is_secret(),
    }
}

use Standard::{Is, Off, Required};

/// The whole file.
pub(super) static FILE: Kind = Kind::Object(ROOT);

/// The top of the file.
pub(super) static ROOT: &[Key] = &[
    key("version", Kind::Int(1, 1), Is("1"), "The version of this file's shape."),
    key(
        "workers",
        Kind::Either(&[Kind::Words(&[word("auto")]), Kind::Int(1, 1024)]),
        Is("auto"),
        "Threads that serve requests; `auto` is one per core the process may use.",
    ),
    key("listeners", Kind::List(&Kind::Object(LISTENER), 1, 256), Required, "The sockets that clients connect to."),
    key("admin", Kind::Object(ADMIN), Off, "The operators' socket: health, metrics, the admin API."),
    key("shutdown", Kind::Object(SHUTDOWN), Off, "How the gateway stops."),
    key("reload", Kind::Object(RELOAD), Off, "How a changed file is taken over."),
    key("log", Kind::Object(LOG), Off, "What is logged, and where."),
    later("telemetry", Kind::Object(&[later("otlp", Kind::Text), later("sample", Kind::Fraction)])),
    key("store", Kind::Object(STORE), Off, "What must last, and where."),
    key("memory", Kind::Object(MEMORY), Off, "Bounds on what all requests hold together."),
    key(
        "clients",
        Kind::Map(Names::Things, &Kind::Object(CLIENT)),
        Off,
        "Who calls, by name. Whoever is none of them is `anonymous`, which may stand here too.",
    ),
    key("providers", Kind::Map(Names::Things, &Kind::Object(PROVIDER)), Off, "The upstreams, by name."),
    key(
        "pools",
        Kind::Map(Names::Things, &Kind::Object(POOL)),
        Off,
        "Sets of providers that can stand in for each other, by name.",
    ),
    key(
        "routes",
        Kind::List(&Kind::Object(ROUTE), 1, 1_000_000),
        Required,
        "Which requests, and what happens to them. The most specific wins: exact host, then wildcard, then any; exact path, then the longest prefix; more predicates; then file order.",
    ),
    key(
        "defaults",
        Kind::Object(DEFAULTS),
        Off,
        "Settings laid under each route, pool or provider: mappings merge, lists replace.",
    ),
    later("flags", Kind::Map(Names::Things, &Kind::Object(FLAG_OBJECT))),
    later("rollouts", Kind::Map(Names::Things, &Kind::Object(ROLLOUT))),
    later("jobs", Kind::Object(JOBS)),
    later("alerts", Kind::Object(ALERTS)),
];

static LISTENER: &[Key] = &[
    key("name", Kind::Name, Required, "Unique among listeners; shown in logs and metrics."),
    key(
        "bind",
        Kind::Bind,
        Required,
        "Where it listens: `127.0.0.1:8080`, `0.0.0.0:80`, `[::]:80`, `unix:/run/sluice.sock`. Port 0 takes a free one.",
    ),
    key(
        "protocols",
        Kind::List(&Kind::Words(PROTOCOLS), 1, 2),
        Is("[http1, http2]"),
        "What is spoken on it. HTTP/2 is chosen by ALPN on TLS, and by prior knowledge on cleartext.",
    ),
    key("tls", Kind::Object(LISTENER_TLS), Off, "Written, it speaks TLS only."),
    key(
        "proxy_protocol",
        Kind::Bool,
        Is("false"),
        "Peers in `trusted_proxies` begin each connection with a PROXY header, v1 or v2; others must not. On a unix socket all do.",
    ),
    key(
        "trusted_proxies",
        Kind::List(&Kind::Proxy, 0, 10_000),
        Is("[]"),
        "Peers whose `Forwarded`, `X-Forwarded-*`, `X-Request-Id` and `traceparent` are believed; `unix` is whoever connects to a unix socket.",
    ),
    key("limits", Kind::Object(LISTENER_LIMITS), Off, "Bounds on what this listener accepts."),
];

static PROTOCOLS: &[Word] = &[word("http1"), word("http2")];

static LISTENER_TLS: &[Key] = &[
    key(
        "certificates",
        Kind::List(&Kind::Object(CERTIFICATE), 1, 1000),
        Required,
        "What it proves itself with. The name a client asks for (SNI) picks; the first is for all else.",
    ),
    key("min_version", Kind::TlsVersion, Is("\"1.2\""), "The oldest version spoken: `1.2` or `1.3`."),
    key(
        "client_ca",
        Kind::File,
        Off,
        "PEM file of the authorities of clients. Written, a client must show a certificate of theirs.",
    ),
    key("handshake_timeout", Kind::Duration, Is("10s"), "From the accept to the end of the handshake."),
    key(
        "handshakes",
        Kind::Int(1, 100_000),
        Is("100"),
        "Handshakes at once on this listener; further ones wait, within their timeout.",
    ),
];

static CERTIFICATE: &[Key] = &[
    key("cert", Kind::File, Required, "PEM file: the certificate, then its chain. Taken over when it changes."),
    key("key", Kind::File, Required, "PEM file: the private key of the certificate, not encrypted."),
];

static LISTENER_LIMITS: &[Key] = &[
    key(
        "connections",
        Kind::Int(1, 10_000_000),
        Is("20000"),
        "Connections open at once; a further one waits to be accepted.",
    ),
    key(
        "connections_per_address",
        Kind::Int(1, 10_000_000),
        Is("1000"),
        "Connections open at once from one address (IPv6: from its first 64 bits); a further one is closed. Not counted: peers in `trusted_proxies`, and unix sockets.",
    ),
    key(
        "header_timeout",
        Kind::Duration,
        Is("10s"),
        "From the first byte of a head, or the accept, to its end; then 408, or nothing where no byte came.",
    ),
    key("header_bytes", Kind::Size(1024, 1 << 20), Is("64KiB"), "Bytes of a request head, 1KiB to 1MiB; more is 431."),
    key("headers", Kind::Int(1, 1000), Is("100"), "Fields in a request head; more is 431."),
    key("body_bytes", Kind::Size(0, u64::MAX), Is("100MiB"), "Bytes of a request body; more is 413."),
    key(
        "idle_timeout",
        Kind::Duration,
        Is("75s"),
        "Between two requests of a connection, and for a client that takes nothing of its answer.",
    ),
    key(
        "h2_streams",
        Kind::Int(1, 100_000),
        Is("128"),
        "Requests at once on one HTTP/2 connection; a further one is refused.",
    ),
    key(
        "min_body_rate",
        Kind::ByteRate,
        Is("1KiB/s"),
        "What a request body must keep up on average once 10 s have passed, or 408; 0 is off.",
    ),
    key(
        "connection_age",
        Kind::DurationOrOff,
        Is("0s"),
        "A connection older than this takes no further request, so that clients spread anew.",
    ),
];

static ADMIN: &[Key] = &[
    key(
        "bind",
        Kind::TcpBind,
        Is("127.0.0.1:9900"),
        "Where it listens. An address that is not loopback needs a token.",
    ),
    key("token", Kind::Secret, Is("\"\""), "A bearer token that may do everything; empty is none."),
    key(
        "tokens",
        Kind::List(&Kind::Object(TOKEN), 0, 1000),
        Is("[]"),
        "Several tokens with roles, instead of `token`.",
    ),
    key(
        "hosts",
        Kind::List(&Kind::Host, 0, 1000),
        Is("[]"),
        "Host names accepted beside IP addresses and `localhost`.",
    ),
];

static TOKEN: &[Key] = &[
    key("name", Kind::Name, Required, "Unique among tokens; named in logs instead of the token."),
    key("token", Kind::Secret, Required, "The token itself."),
    key(
        "role",
        Kind::Words(&[later_word("evaluate"), word("read"), word("operate")]),
        Required,
        "What it allows: `read` changes nothing, `operate` may do everything.",
    ),
];

static SHUTDOWN: &[Key] = &[
    key(
        "delay",
        Kind::DurationOrOff,
        Is("0s"),
        "How long a gateway told to stop says that it is not ready and still accepts, before it drains.",
    ),
    key("grace", Kind::DurationOrOff, Is("30s"), "How long a stopping gateway waits for requests under way."),
];

static RELOAD: &[Key] = &[
    key(
        "watch",
        Kind::Bool,
        Is("true"),
        "Take over the file, and the files it names, when they change, not only on SIGHUP and on request.",
    ),
    later("guard", Kind::Object(&[later("error_rate_rise", Kind::Fraction), later("within", Kind::Duration)])),
];

static LOG: &[Key] = &[
    key(
        "level",
        Kind::Words(&[word("error"), word("warn"), word("info"), word("debug"), word("trace")]),
        Is("info"),
        "The least severe level written.",
    ),
    key(
        "format",
        Kind::Words(&[word("auto"), word("json"), word("text")]),
        Is("auto"),
        "`auto` is text on a terminal and JSON otherwise.",
    ),
    key("access", Kind::Bool, Is("true"), "Write a line for each request."),
    key("file", Kind::File, Is("\"\""), "A file to append to instead of standard output; reopened on USR1."),
];

static REDIS: &[Key] = &[
    later("url", Kind::Secret),
    later("prefix", Kind::Text),
    later("sentinel", Kind::List(&Kind::Text, 1, 100)),
    later("tls", Kind::Object(&[later("ca", Kind::File), later("cert", Kind::File), later("key", Kind::File)])),
];

static STORE: &[Key] = &[
    key(
        "path",
        Kind::File,
        Is("./data"),
        "The folder of the embedded store; a relative path starts at this file's folder.",
    ),
    later("redis", Kind::Object(REDIS)),
];

static MEMORY: &[Key] = &[
    key(
        "buffers",
        Kind::Size(0, u64::MAX),
        Is("256MiB"),
        "All queued and replayable bodies; beyond it the queued are shed, and the others lose their replay.",
    ),
    key(
        "cache",
        Kind::Size(0, u64::MAX),
        Is("256MiB"),
        "All kept answers of all routes, those that are coming in included; beyond it those go that are asked for least.",
    ),
];

static CLIENT: &[Key] = &[
    key(
        "keys",
        Kind::List(&Kind::Secret, 1, 1000),
        Off,
        "What it shows in `Authorization: Bearer` or `X-API-Key`; no provider sees it.",
    ),
    key(
        "addresses",
        Kind::List(&Kind::Cidr, 1, 10_000),
        Off,
        "Where it comes from, if it shows no key; the narrowest range that fits counts.",
    ),
    key(
        "max_class",
        Kind::Words(CLASSES),
        Is("high"),
        "The most urgent class its requests may have; for `anonymous` it is `normal` unless written.",
    ),
    key("share", Kind::Int(1, 1_000_000), Is("1"), "Its part of a queue, in proportion to the others'."),
    later("rate_limit", Kind::Rate),
];

static CLASSES: &[Word] = &[word("high"), word("normal"), word("low")];

static PROVIDER: &[Key] = &[
    key(
        "url",
        Kind::ProviderUrl,
        Required,
        "Where it is reached: `http://`, `https://`, `h2c://` (HTTP/2 in the clear), or `http://unix:/run/app.sock`. A path here is laid before every request's path; after a socket it follows a colon.",
    ),
    key("headers", Kind::Object(HEADER_RULES), Off, "Changes to request fields for this provider, made last."),
    key("limits", Kind::Object(PROVIDER_LIMITS), Off, "What it takes at once and over time."),
    key(
        "cost",
        Kind::Number(0.0, 1e9),
        Off,
        "What one attempt costs, in a unit of yours; what retries and hedges cost is then counted.",
    ),
    key("timeouts", Kind::Object(PROVIDER_TIMEOUTS), Off, "How long each phase of an attempt may take."),
    key("circuit_breaker", Kind::Object(CIRCUIT_BREAKER), Off, "When it is left alone, and when it is tried again."),
    key(
        "health_check",
        Kind::Object(HEALTH_CHECK),
        Off,
        "Written, it is asked whether it is well, and gets no request while it is not.",
    ),
    key("tls", Kind::Object(PROVIDER_TLS), Off, "Verification of an `https` provider."),
    key("host", Kind::HostRule, Is("upstream"), "The Host it sees: its URL's, the client's, or a name."),
    key(
        "protocols",
        Kind::List(&Kind::Words(PROTOCOLS), 1, 2),
        Is("[http2, http1]"),
        "What is offered to an `https` provider, which chooses; `http` and `h2c` say it themselves.",
    ),
    key(
        "proxy_protocol",
        Kind::Words(&[word("v1"), word("v2")]),
        Off,
        "Begin each connection with a PROXY header of this version, which names the client; HTTP/2 is not spoken then.",
    ),
    key(
        "slow_start",
        Kind::Duration,
        Off,
        "How long it takes until one that is new, or well again, gets all of its share.",
    ),
    key(
        "discover",
        Kind::Words(&[word("dns")]),
        Off,
        "`dns`: each address of its name is a member, `NAME@ADDRESS`, with a circuit and a concurrency of its own; the rate is for all together.",
    ),
    key(
        "deadline_header",
        Kind::HeaderName,
        Off,
        "A field that tells it how long the request may still take, in milliseconds.",
    ),
    later("json", Kind::Map(Names::Any, &Kind::Map(Names::Any, &Kind::Value))),
    key(
        "connections",
        Kind::Object(PROVIDER_CONNECTIONS),
        Off,
        "Bounds on pooled connections; each worker has a pool of its own.",
    ),
    later("flag", Kind::Reference("flags")),
];

static HEADER_RULES: &[Key] = &[
    key(
        "set",
        Kind::Map(Names::Fields, &Kind::SecretValue),
        Is("{}"),
        "Fields to set; each replaces all of its name. Never shown in logs, dumps or errors.",
    ),
    key("remove", Kind::List(&Kind::HeaderName, 0, 1000), Is("[]"), "Fields to remove."),
];

static PROVIDER_LIMITS: &[Key] = &[
    key(
        "concurrency",
        Kind::Int(1, 1_000_000),
        Is("1024"),
        "Attempts at once; while there are as many, it is passed over.",
    ),
    key("rate", Kind::Rate, Off, "Attempts over time, evenly spread: `500/s`, `5000/m`."),
    key(
        "burst",
        Kind::Int(1, 1_000_000),
        Off,
        "Attempts that may come at once after a pause; without it a tenth of a second's worth of `rate`, at least 1.",
    ),
    key(
        "max_cooldown",
        Kind::Duration,
        Is("5m"),
        "The longest that it may ask for with a 429, or with a 503 and `Retry-After`.",
    ),
];

static PROVIDER_TIMEOUTS: &[Key] = &[
    key("connect", Kind::Duration, Is("2s"), "Resolving the name, TCP and TLS together."),
    key("first_byte", Kind::Duration, Is("10s"), "From the request sent to the first byte of the answer."),
    key("idle", Kind::Duration, Is("60s"), "Between two reads of an answer, or two writes of a request."),
];

static CIRCUIT_BREAKER: &[Key] = &[
    key("failure_threshold", Kind::Int(1, 1_000_000), Is("5"), "Failures in a row that open the circuit."),
    key(
        "failure_rate",
        Kind::Number(0.01, 1.0),
        Is("0.5"),
        "The share of failures within `window` that opens it, where there were `minimum_requests`.",
    ),
    key("window", Kind::Duration, Is("10s"), "How far back the rate looks."),
    key("minimum_requests", Kind::Int(1, 1_000_000), Is("20"), "Fewer attempts within `window` have no rate."),
    key(
        "recovery_timeout",
        Kind::Duration,
        Is("5s"),
        "How long it stays open; twice as long each time that the provider fails again.",
    ),
    key("max_recovery_timeout", Kind::Duration, Is("60s"), "What that grows to at most."),
    key("half_open_requests", Kind::Int(1, 1_000_000), Is("1"), "Probes at once after that."),
    key("success_threshold", Kind::Int(1, 1_000_000), Is("2"), "Probes in a row that have to succeed to close it."),
    key(
        "failures",
        Kind::List(&Kind::Condition, 1, 100),
        Is("[connect, timeout, reset, 5xx]"),
        "What is a failure. A 429, and a 503 that says when to come back, never are.",
    ),
    key("slow_call", Kind::Duration, Off, "An answer whose head takes longer is a failure as well."),
];

static HEALTH_CHECK: &[Key] = &[
    key("path", Kind::Target, Is("/healthz"), "What is asked for, with GET; the path of `url` is laid before it."),
    key("interval", Kind::Duration, Is("5s"), "From one check to the next."),
    key("timeout", Kind::Duration, Is("1s"), "For the whole of one check."),
    key("healthy_after", Kind::Int(1, 1000), Is("2"), "Good answers in a row after which it is well."),
    key("unhealthy_after", Kind::Int(1, 1000), Is("3"), "Bad ones in a row after which it is not."),
    key("host", Kind::Host, Off, "The Host that checks have, where that is not the one of requests."),
    key("status", Kind::StatusRange, Is("200-399"), "Statuses of a good answer."),
];

static PROVIDER_TLS: &[Key] = &[
    key("ca", Kind::File, Off, "A PEM file of the roots to trust instead of the system's."),
    key("server_name", Kind::Host, Off, "The name its certificate must have, where that is not the URL's host."),
    key("client", Kind::Object(CERTIFICATE), Off, "What we show where it asks who we are."),
];

static PROVIDER_CONNECTIONS: &[Key] = &[
    key("idle", Kind::Int(0, 100_000), Is("32"), "Idle connections kept by each worker; 0 turns reuse off."),
    key("idle_timeout", Kind::Duration, Is("30s"), "How long an idle connection is kept."),
    key("max_age", Kind::Duration, Is("10m"), "A connection older than this is closed instead of kept."),
    key("streams", Kind::Int(1, 100_000), Is("100"), "Requests at once on one HTTP/2 connection."),
    key("ping", Kind::DurationOrOff, Is("30s"), "How often an HTTP/2 connection without requests is pinged."),
];

static POOL: &[Key] = &[
    key(
        "balance",
        Kind::Either(&[Kind::Words(BALANCES), Kind::Object(BALANCE_BY)]),
        Is("least_connections"),
        "How a provider is chosen among those that can take the request now; `{ consistent_hash: { by: … } }` keeps to one for each key.",
    ),
    key(
        "providers",
        Kind::List(&Kind::Either(&[Kind::Reference("providers"), Kind::Object(MEMBER)]), 1, 10_000),
        Required,
        "Its members: names, or mappings with `name`.",
    ),
    key("queue", Kind::Object(QUEUE), Off, "Where requests wait while no member can take them."),
];

static BALANCES: &[Word] = &[word("round_robin"), word("weighted"), word("least_connections"), word("peak_ewma")];

static BALANCE_BY: &[Key] =
    &[key("consistent_hash", Kind::Object(CONSISTENT_HASH), Off, "The same provider for the same key.")];

static CONSISTENT_HASH: &[Key] = &[key(
    "by",
    Kind::HashBy,
    Required,
    "The key: a field, a cookie, the client's address or its name. A request without one goes to any.",
)];

static MEMBER: &[Key] = &[
    key("name", Kind::Reference("providers"), Required, "A provider."),
    key("weight", Kind::Int(1, 1_000_000), Is("1"), "Its share, in proportion to the others'; `round_robin` has none."),
    key("backup", Kind::Bool, Is("false"), "Use it only while no other member can take the request."),
    later("flag", Kind::Reference("flags")),
];

static QUEUE: &[Key] = &[
    key(
        "capacity",
        Kind::Int(0, 10_000_000),
        Is("1000"),
        "Requests that wait at once; 0: none does. When it is full, the least urgent is refused (503 `queue_full`).",
    ),
    key("timeout", Kind::Duration, Is("5s"), "The longest wait; then 503 `queue_timeout`."),
    key("weights", Kind::Object(QUEUE_WEIGHTS), Off, "How many of each class are taken while all of them wait."),
    key("reserve_high", Kind::Number(0.0, 1.0), Is("0.1"), "The share of the places that only `high` may take."),
    key(
        "heartbeat",
        Kind::Duration,
        Off,
        "How often a client that waits for an event stream gets a comment, so that it stays.",
    ),
];

static QUEUE_WEIGHTS: &[Key] = &[
    key("high", Kind::Int(1, 1_000_000), Is("16"), "Of `high`."),
    key("normal", Kind::Int(1, 1_000_000), Is("4"), "Of `normal`."),
    key("low", Kind::Int(1, 1_000_000), Is("1"), "Of `low`; it always moves on."),
];

const INT: Kind = Kind::Int(0, u64::MAX);

const ROUTE_NAME: Key = key("name", Kind::Name, Required, "Unique among routes; shown in logs and metrics.");

pub(super) static ROUTE: &[Key] = &[
    ROUTE_NAME,
    key("match", Kind::Object(MATCH), Off, "Which requests; without it, all."),
    key(
        "pool",
        Kind::Reference("pools"),
        Off,
        "Send them to a provider of this pool. A route has `pool`, `respond` or `redirect`.",
    ),
    key("respond", Kind::Object(RESPOND), Off, "Answer them at once."),
    key("redirect", Kind::Object(REDIRECT), Off, "Send the client elsewhere."),
    later("auth", Kind::Words(&[later_word("required")])),
    later("cors", Kind::Object(&[later("origins", Kind::List(&Kind::Text, 1, 1000))])),
    later("mirror", Kind::Object(&[later("pool", Kind::Reference("pools")), later("sample", Kind::Fraction)])),
    key(
        "class",
        Kind::Either(&[Kind::Words(CLASSES), Kind::Object(CLASS)]),
        Is("normal"),
        "How urgent its requests are, up to what the client may: a class, or where the request says it.",
    ),
    key("timeout", Kind::Duration, Is("30s"), "For everything until the answer is committed to the client."),
    key("stream_timeout", Kind::DurationOrOff, Is("0s"), "For the whole of a committed answer; 0s is off."),
    key("rewrite", Kind::Object(REWRITE), Off, "Changes on the way to the provider and back."),
    key("retry", Kind::Object(RETRY), Off, "What happens after a failed attempt."),
    key("cache", Kind::Object(CACHE), Off, "Written, answers are kept and given to others, as RFC 9111 has it."),
    later("rate_limit", Kind::Object(&[later("key", Kind::Text), later("rate", Kind::Rate), later("burst", INT)])),
    key(
        "degrade",
        Kind::List(&Kind::Object(RUNG), 1, 16),
        Off,
        "The ladder: what answers where the pool cannot, one rung after the other. A rung has `pool`, `reduced`, `stale` or `static`.",
    ),
    later("jobs", Kind::Object(JOBS)),
    later("flag", Kind::Reference("flags")),
];

static MATCH: &[Key] = &[
    key(
        "hosts",
        Kind::List(&Kind::HostPattern, 1, 1000),
        Is("[\"*\"]"),
        "Any of these hosts: `example.com`, `*.example.com` or `*`.",
    ),
    key("path", Kind::PathPattern, Is("/*"), "`/health` is that path; `/api/*` is `/api` and everything below."),
    key("path_regex", Kind::Regex, Off, "An expression that the whole path must match as well."),
    key("methods", Kind::List(&Kind::Method, 1, 64), Off, "Any of these methods; without it, all."),
    key(
        "headers",
        Kind::Map(Names::Fields, &MATCH_VALUE),
        Off,
        "Fields that must be there: a value, `{ present: true }` or `{ regex: … }`.",
    ),
    key(
        "query",
        Kind::Map(Names::Any, &MATCH_VALUE),
        Off,
        "Query parameters that must be there, in the same three ways.",
    ),
    later("flag", Kind::Reference("flags")),
];

static MATCH_VALUE: Kind = Kind::Either(&[Kind::Value, Kind::Object(MATCH_BY)]);

static MATCH_BY: &[Key] = &[
    key("present", Kind::Bool, Off, "`true`: anything, as long as it is there."),
    key("regex", Kind::Regex, Off, "Something this expression finds."),
];

static RESPOND: &[Key] = &[
    key("status", Kind::Int(200, 599), Is("200"), "The status."),
    key("headers", Kind::Map(Names::Fields, &Kind::SecretValue), Is("{}"), "Fields of the answer."),
    key("body", Kind::Text, Is("\"\""), "Its body."),
];

static REDIRECT: &[Key] = &[
    key(
        "to",
        Kind::Location,
        Required,
        "The new place; `{host}` (without its port), `{path}` and `{query}` (with its `?`) stand for the request's.",
    ),
    key(
        "status",
        Kind::Words(&[word("301"), word("302"), word("303"), word("307"), word("308")]),
        Is("308"),
        "The status; 307 and 308 keep the method.",
    ),
];

static CLASS: &[Key] = &[
    key("default", Kind::Words(CLASSES), Is("normal"), "Where the request says nothing."),
    key(
        "header",
        Kind::HeaderName,
        Off,
        "A field that holds `high`, `normal`, `low`, 0, 1 or 2. Where it says nothing, `Priority: u=` does (RFC 9218).",
    ),
];

static REWRITE: &[Key] = &[
    key("strip_prefix", Kind::PathPrefix, Off, "Cut this from the front of the path, as whole segments."),
    key("add_prefix", Kind::PathPrefix, Off, "Lay this before what is left."),
    key("headers", Kind::Object(HEADER_RULES), Off, "Changes to request fields."),
    key("response_headers", Kind::Object(HEADER_RULES), Off, "Changes to answer fields."),
];

static RETRY: &[Key] = &[
    key("attempts", Kind::Int(1, 100), Is("3"), "First try, retries and hedges together."),
    key(
        "on",
        Kind::List(&Kind::Condition, 0, 100),
        Is("[connect, reset, timeout, 429, 502, 503, 504]"),
        "What is tried again.",
    ),
    key(
        "methods",
        Kind::Either(&[Kind::Words(&[word("idempotent"), word("all")]), Kind::List(&Kind::Method, 0, 64)]),
        Is("idempotent"),
        "Which methods may be sent again although a provider may have done what they ask. What was never sent always may.",
    ),
    key("idempotency_key", Kind::Bool, Is("false"), "`true`: so may any that comes with an `Idempotency-Key`."),
    key(
        "refused",
        Kind::List(&Kind::Int(400, 599), 0, 100),
        Is("[429]"),
        "Statuses by which a provider says that it did nothing: any method may go elsewhere. Add 503 where yours mean it.",
    ),
    key(
        "backoff",
        Kind::Object(BACKOFF),
        Off,
        "The wait before a provider is tried a second time; another needs none.",
    ),
    key("attempt_timeout", Kind::Duration, Is("10s"), "For one attempt, until its answer is committed to the client."),
    key(
        "budget",
        Kind::Object(RETRY_BUDGET),
        Off,
        "How many retries all requests of a pool may have together, so that they cannot become a storm; routes to one pool share it.",
    ),
    key(
        "replay_bytes",
        Kind::Size(0, u64::MAX),
        Is("1MiB"),
        "A body up to this is kept so that it can be sent again; a larger one goes out once.",
    ),
    key(
        "commit",
        Kind::Object(COMMIT),
        Off,
        "A small answer of known length is whole before its head goes out, so that one that breaks off is tried again. Streams are never held.",
    ),
    later("rules", Kind::List(&Kind::Object(RETRY_RULE), 0, 100)),
    key(
        "hedge",
        Kind::Object(HEDGE),
        Off,
        "Written, a slow idempotent request gets a second attempt elsewhere; the first answer counts, the other is cancelled.",
    ),
];

static RETRY_BUDGET: &[Key] = &[
    key("ratio", Kind::Number(0.0, 100.0), Is("0.2"), "Retries for each request."),
    key("min_per_second", Kind::Number(0.0, 1e6), Is("10"), "Retries a second, however few requests there are."),
];

static COMMIT: &[Key] = &[
    key("bytes", Kind::Size(0, 16 << 20), Is("16KiB"), "The longest answer that is held; 0 holds none."),
    key("within", Kind::DurationOrOff, Is("100ms"), "How long it is held at most; 0s holds none."),
];

static HEDGE: &[Key] = &[
    key(
        "after",
        Kind::HedgeAfter,
        Is("p95"),
        "When it begins: once the attempt takes longer than this part of the recent ones, or after a fixed time.",
    ),
    key("budget", Kind::Number(0.001, 1.0), Is("0.05"), "The share of requests that may have one."),
];

static BACKOFF: &[Key] = &[
    key("initial", Kind::Duration, Is("25ms"), "The first wait."),
    key("multiplier", Kind::Number(1.0, 100.0), Is("2"), "Each further one is so many times as long."),
    key("max", Kind::Duration, Is("1s"), "The longest."),
    key(
        "jitter",
        Kind::Words(&[word("full"), word("none")]),
        Is("full"),
        "`full` waits anything up to that, so that those who failed together do not come back together.",
    ),
];

static RETRY_RULE: &[Key] = &[
    later("on", Kind::List(&Kind::Value, 0, 100)),
    later("attempts", Kind::Int(1, 100)),
    later("backoff", Kind::Object(BACKOFF)),
    later("flag", Kind::Reference("flags")),
];

static CACHE: &[Key] = &[
    key(
        "ttl",
        Kind::DurationOrOff,
        Is("60s"),
        "How long an answer is fresh that does not say so itself; 0s leaves it to its `Last-Modified`.",
    ),
    key(
        "stale_while_revalidate",
        Kind::DurationOrOff,
        Is("30s"),
        "How long it may be sent after that while a provider is asked in the background, where it does not say.",
    ),
    key(
        "stale_if_error",
        Kind::DurationOrOff,
        Is("1h"),
        "How long it may be sent after that where no provider can answer, where it does not say.",
    ),
    key(
        "max_object",
        Kind::Size(1, u64::MAX),
        Is("4MiB"),
        "The largest body that is kept; at most a sixteenth of `memory.cache`.",
    ),
    key(
        "post",
        Kind::Bool,
        Is("false"),
        "Keep answers to POST too, by a hash of the body: only where asking changes nothing, as with many model calls.",
    ),
    later("flag", Kind::Reference("flags")),
];

static RUNG: &[Key] = &[
    key("pool", Kind::Reference("pools"), Off, "Ask another pool: one attempt more."),
    key("reduced", Kind::Object(REDUCED), Off, "Ask for less: the request with changes."),
    key("stale", Kind::Object(STALE), Off, "Answer with the cache's copy, expired as it is."),
    key("static", Kind::Object(STATIC), Off, "Answer this."),
    key(
        "on",
        Kind::List(&Kind::Words(TRIGGERS), 1, 5),
        Off,
        "Why requests come here; without it, for every reason that makes sense.",
    ),
    key(
        "methods",
        Kind::Either(&[Kind::Words(&[word("all")]), Kind::List(&Kind::Method, 1, 64)]),
        Is("[GET, HEAD]"),
        "Requests that a `stale` or `static` rung answers; the others go by `retry.methods`.",
    ),
    key(
        "enter",
        Kind::Object(ENTER),
        Off,
        "Before requests fail, they begin on this rung once one of these is reached.",
    ),
    key("leave", Kind::Object(LEAVE), Off, "And no longer once all are down here; without it at half of `enter`."),
    later("flag", Kind::Reference("flags")),
];

static REDUCED: &[Key] = &[
    key("pool", Kind::Reference("pools"), Off, "Ask this pool; without it, the route's own."),
    key(
        "set_headers",
        Kind::Map(Names::Fields, &Kind::SecretValue),
        Is("{}"),
        "Fields to set; each replaces all of its name. Never shown in logs, dumps or errors.",
    ),
    key("remove_headers", Kind::List(&Kind::HeaderName, 0, 1000), Is("[]"), "Fields to remove."),
    key(
        "path",
        Kind::Target,
        Off,
        "Ask for this, behind the path of the provider's URL; without a query of its own it keeps the request's.",
    ),
    key(
        "json",
        Kind::Object(REDUCED_JSON),
        Off,
        "Changes to the JSON object in its body, of at most 4 MiB; a request with another body is passed over.",
    ),
];

static REDUCED_JSON: &[Key] = &[
    key(
        "set",
        Kind::Map(Names::Any, &Kind::Value),
        Is("{}"),
        "Its own fields to set; what is quoted here is text there.",
    ),
    key("remove", Kind::List(&Kind::Text, 0, 1000), Is("[]"), "Its own fields to remove."),
];

static STALE: &[Key] = &[key("max_age", Kind::Duration, Is("1h"), "How old it may be, counted from when it expired.")];

static STATIC: &[Key] = &[
    key("status", Kind::Int(200, 599), Is("200"), "The status."),
    key(
        "headers",
        Kind::Map(Names::Fields, &Kind::SecretValue),
        Is("{}"),
        "Fields of the answer. Without a `cache-control` nobody keeps it.",
    ),
    key("body", Kind::Text, Is("\"\""), "Its body."),
    key("file", Kind::File, Off, "Or the file that holds it, at most 4 MiB; read again when it changes."),
];

static TRIGGERS: &[Word] =
    &[word("no_provider"), word("queue_full"), word("queue_timeout"), word("attempts_exhausted"), word("deadline")];

static ENTER: &[Key] = &[
    key("queue", Kind::Number(0.001, 1.0), Off, "The share of the queue's places that are taken."),
    key("latency", Kind::Duration, Off, "What 95 of 100 recent answers do not exceed, from request to answer."),
    key("error_rate", Kind::Number(0.001, 1.0), Off, "The share of the requests that failed in the last 10 s."),
];

static LEAVE: &[Key] = &[
    key("queue", Kind::Number(0.0, 1.0), Off, "The same share, lower."),
    key("latency", Kind::Duration, Off, "The same time, shorter."),
    key("error_rate", Kind::Number(0.0, 1.0), Off, "The same share, lower."),
];

static DEFAULTS: &[Key] = &[
    key("route", Kind::Object(ROUTE), Off, "Laid under each route; any of a route's keys but `name`."),
    key("pool", Kind::Object(POOL), Off, "Laid under each pool."),
    key("provider", Kind::Object(PROVIDER), Off, "Laid under each provider."),
];

static FLAG_OBJECT: &[Key] = &[
    later("enabled", Kind::Bool),
    later("description", Kind::Text),
    later("rollout", Kind::Fraction),
    later("users", Kind::List(&Kind::Text, 0, 100_000)),
    later("by", Kind::Text),
];

static ROLLOUT: &[Key] = &[
    later("route", Kind::Reference("routes")),
    later("candidate", Kind::Object(ROUTE)),
    later("steps", Kind::List(&Kind::Fraction, 1, 100)),
    later("interval", Kind::Duration),
    later("by", Kind::Text),
    later("guard", Kind::Object(GUARD)),
    later("bake", Kind::Duration),
];

static GUARD: &[Key] = &[
    later("minimum_requests", INT),
    later("success_drop", Kind::Fraction),
    later("p95_rise", Kind::Fraction),
    later("rejected_rise", Kind::Fraction),
    later("timeout_rise", Kind::Fraction),
    later("cpu_rise", Kind::Fraction),
    later("memory_rise", Kind::Fraction),
];

static JOBS: &[Key] = &[
    later("enabled", Kind::Bool),
    later("path", Kind::PathPrefix),
    later("timeout", Kind::Duration),
    later("attempts", INT),
    later("backoff", Kind::Object(BACKOFF)),
    later("workers", Kind::Object(&[later("min", INT), later("max", INT)])),
    later("retention", Kind::Duration),
    later("checkpoint_ttl", Kind::Duration),
    later("max_queued", INT),
    later("redeliver", Kind::Bool),
    later("flag", Kind::Reference("flags")),
];

static ALERTS: &[Key] = &[
    later("webhook", Kind::Secret),
    later("error_rate", Kind::Object(ALERT)),
    later("latency_p95", Kind::Object(ALERT)),
    later("circuit_open", Kind::Object(ALERT)),
    later("provider_unhealthy", Kind::Object(ALERT)),
    later("provider_saturated", Kind::Object(ALERT)),
    later("connect_errors", Kind::Object(ALERT)),
    later("queue_high", Kind::Object(ALERT)),
    later("degraded", Kind::Object(ALERT)),
    later("cache_hit_low", Kind::Object(ALERT)),
    later("imbalance", Kind::Object(ALERT)),
    later("memory_high", Kind::Object(ALERT)),
    later("latency_regression", Kind::Object(ALERT)),
    later("reload_failed", Kind::Object(ALERT)),
    later("rollout_rolled_back", Kind::Object(ALERT)),
];

static ALERT: &[Key] =
    &[later("above", Kind::Value), later("below", Kind::Fraction), later("for", Kind::DurationOrOff)];
