//! From a tree that was looked over to a [`Config`], and to the problems that only the whole shows.
//!
//! Types were checked by [`super::conform`]; a value that failed there is read as its default here and not mentioned
//! again. Defaults come from the shape, so that no number stands in two places.

use super::certificate::{self, Chain, Wrong};
use super::check::{self, Placed};
use super::conform::{At, Context};
use super::expand::Origin;
use super::file::{Entry, Node, Scalar, Value};
use super::merge;
use super::problem::{Span, shown};
use super::reader::{Defined, Reader};
use super::scalar;
use super::secret::{Secret, SecretBytes};
use super::shape::{self, Key, Kind};
use super::types::{
    ANONYMOUS, Action, Admin, BalanceRule, Bind, BudgetTerms, CACHE_PART, Cache, Certificate, CircuitBreaker,
    ClassRule, Client, Commit, Config, Fallback, HashBy, HeaderRules, HealthCheck, Hedge, HedgeAfter, HostPattern,
    HostRule, JsonRules, Level, Listener, ListenerLimits, ListenerTls, Log, LogFormat, Match, Member, Memory,
    PathPattern, Pool, PoolQueue, Protocols, Provider, ProviderAddress, ProviderConnections, ProviderLimits,
    ProviderTimeouts, ProviderTls, ProviderUrl, ProxyVersion, Rate, Reduced, Retry, Rewrite, Role, Route, Rung, Scheme,
    StaticAnswer, Store, TlsVersion, Token, ValueMatch,
};
use crate::policy::class::Class;
use crate::policy::degrade::{Levels, Terms};
use crate::policy::freshness::Rules;
use crate::policy::ladder::{self, Trigger, Triggers};
use crate::policy::retry::{Backoff, Conditions, Jitter, Methods};
use crate::policy::{circuit, queue};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Reads the whole file. The result means something only where nothing was reported.
pub(super) fn config(root: &Node, cx: &mut Context<'_>) -> Config {
    let top = Reader::new(Some(root), shape::ROOT, At::TOP, Span::START);
    for entry in root.entries().unwrap_or_default() {
        if !matches!(&*entry.key, "providers" | "pools" | "routes" | "defaults") {
            redact(&entry.node, &format!("/{}", pointer(&entry.key)), cx);
        }
    }
    let defaults = top.child("defaults");
    let listeners = listeners(&top, cx);
    let admin = admin(&top.child("admin"), cx);
    check::addresses(&top, &listeners, &admin, cx);
    check::no_default_name(&defaults, cx);
    let memory = memory(&top.child("memory"));
    let clients = clients(&top, cx);
    let providers_root = merged(&top, "providers", defaults.entry("provider"), cx);
    let providers = providers(&providers_root, &top, cx);
    let provider_names = Defined::new(top.entries("providers").iter().map(|entry| entry.key.to_string()));
    let pools_root = merged(&top, "pools", defaults.entry("pool"), cx);
    let pools = pools(&pools_root, &top, &provider_names, cx);
    let pool_names = Defined::new(top.entries("pools").iter().map(|entry| entry.key.to_string()));
    let routes = routes(&top, defaults.entry("route"), &pool_names, &memory, cx);
    check::unused(&top, &pools, &routes, cx);
    check::unused_cache(&top, &routes, cx);
    Config {
        workers: workers(&top),
        listeners: listeners.into_iter().map(|placed| placed.what).collect(),
        admin,
        shutdown_grace: top.child("shutdown").duration("grace"),
        shutdown_delay: top.child("shutdown").duration("delay"),
        reload_watch: top.child("reload").boolean("watch"),
        log: log(&top.child("log"), cx),
        store: Store { path: cx.base.join(top.child("store").word("path")) },
        memory,
        clients: clients.into_iter().map(Arc::new).collect(),
        providers: providers.into_iter().map(Arc::new).collect(),
        pools: pools.into_iter().map(Arc::new).collect(),
        routes: routes.into_iter().map(|placed| placed.what).collect(),
        redacted: std::mem::take(&mut cx.redacted),
        files: Vec::new(),
    }
}

fn workers(top: &Reader<'_>) -> Option<NonZeroUsize> {
    top.text("workers").and_then(|text| text.parse().ok())
}

/// The entries of a section with the defaults laid under each.
fn merged(top: &Reader<'_>, section: &str, below: Option<&Entry>, cx: &mut Context<'_>) -> Vec<Entry> {
    let mut laid: Vec<Entry> = top.entries(section).to_vec();
    if let (Some(below), Some(Kind::Map(_, of))) = (below, top.key(section).map(|key| &key.kind)) {
        for entry in &mut laid {
            entry.node = lay(below, &entry.node, of, cx);
        }
    }
    for entry in &laid {
        redact(&entry.node, &format!("/{section}/{}", pointer(&entry.key)), cx);
    }
    laid
}

/// `above` with the defaults `below` under it.
fn lay(below: &Entry, above: &Node, kind: &'static Kind, cx: &mut Context<'_>) -> Node {
    let laid = cx.budget.lay(&below.node, above, kind);
    laid.unwrap_or_else(|| {
        let message = "these defaults are too long for all that they are laid under";
        cx.problem(
            below.key_span,
            &At::TOP,
            message.into(),
            Some("write less here, or fewer of what takes them".into()),
        );
        above.clone()
    })
}

/// Notes which values came from `${…}`.
fn redact(node: &Node, path: &str, cx: &mut Context<'_>) {
    if !cx.expanded {
        return;
    }
    match &node.value {
        Value::Scalar(scalar) if scalar.origin == Origin::Written => {}
        Value::Scalar(_) => cx.redacted.push(path.to_owned()),
        Value::List(items) => {
            items.iter().enumerate().for_each(|(index, item)| redact(item, &format!("{path}/{index}"), cx));
        }
        Value::Map(entries) => {
            entries.iter().for_each(|entry| redact(&entry.node, &format!("{path}/{}", pointer(&entry.key)), cx));
        }
    }
}

/// A key as a part of a JSON pointer.
fn pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

// --- listeners, admin, log ---

fn listeners(top: &Reader<'_>, cx: &mut Context<'_>) -> Vec<Placed<Arc<Listener>>> {
    if !top.has("listeners") {
        let help = "write `listeners:` with a `name` and a `bind`, such as `127.0.0.1:8080`";
        cx.problem(Span::START, &At::TOP, "there is no listener".into(), Some(help.into()));
    }
    let list = top.at.key("listeners");
    let keys = object_keys(top, "listeners");
    let mut placed = Vec::new();
    for (index, node) in top.items("listeners").iter().enumerate() {
        let reader = Reader::new(Some(node), keys, list.item(index), head_of(node));
        if let Some(listener) = listener(&reader, cx) {
            let span = reader.entry("bind").map_or(reader.head, |entry| entry.node.span);
            placed.push(place(Arc::new(listener), span, node, &reader));
        }
    }
    placed
}

/// `what` with the place it was read from; `span` is what another may clash with.
fn place<T>(what: T, span: Span, node: &Node, reader: &Reader<'_>) -> Placed<T> {
    let name = reader.entry("name").map_or(reader.head, |entry| entry.node.span);
    let known = reader.text("name").is_some();
    let (first, last) = (reader.head.line, last_line(node));
    let comparable = !reader.entry("match").is_some_and(|entry| holds_unknown(&entry.node));
    Placed { what, span, name, at: reader.at.to_string(), first, last, known, comparable }
}

/// Whether anything in `node` came from outside and is not known.
fn holds_unknown(node: &Node) -> bool {
    match &node.value {
        Value::Scalar(scalar) => scalar.is_unknown(),
        Value::List(items) => items.iter().any(holds_unknown),
        Value::Map(entries) => entries.iter().any(|entry| holds_unknown(&entry.node)),
    }
}

/// The line of the last value in `node`, by the order of the file.
fn last_line(node: &Node) -> u32 {
    let inner = match &node.value {
        Value::Scalar(_) => None,
        Value::List(items) => items.last(),
        Value::Map(entries) => entries.last().map(|entry| &entry.node),
    };
    inner.map_or(node.span.end_line, |inner| last_line(inner).max(node.span.end_line))
}

fn listener(reader: &Reader<'_>, cx: &mut Context<'_>) -> Option<Listener> {
    let named = reader.require("name", cx);
    let bound = reader.require("bind", cx);
    if !named || !bound || reader.node.is_none() {
        return None;
    }
    let limits = reader.child("limits");
    check::repeats(reader, "protocols", cx);
    check::repeats(reader, "trusted_proxies", cx);
    let listener = Listener {
        name: reader.text("name").unwrap_or("?").into(),
        bind: reader.text("bind").and_then(|text| scalar::bind(text).ok()).unwrap_or(Bind::Tcp(ANY_FREE)),
        protocols: protocols(reader),
        tls: reader.has("tls").then(|| Arc::new(listener_tls(&reader.child("tls"), cx))),
        proxy_protocol: reader.boolean("proxy_protocol"),
        trusted_proxies: texts(reader, "trusted_proxies").filter_map(|text| scalar::cidr(text).ok()).collect(),
        trusts_unix: texts(reader, "trusted_proxies").any(|text| text == scalar::UNIX),
        limits: ListenerLimits {
            connections: limits.integer("connections") as usize,
            connections_per_address: limits.integer("connections_per_address") as usize,
            header_timeout: limits.duration("header_timeout"),
            header_bytes: limits.size("header_bytes") as usize,
            headers: limits.integer("headers") as usize,
            body_bytes: limits.size("body_bytes"),
            idle_timeout: limits.duration("idle_timeout"),
            min_body_rate: limits.value("min_body_rate", scalar::byte_rate),
            h2_streams: limits.integer("h2_streams") as u32,
            connection_age: limits.duration_or_off("connection_age"),
        },
    };
    check::in_listener(reader, &listener, cx);
    Some(listener)
}

/// The list `protocols`, which is both where it is not written.
fn protocols(reader: &Reader<'_>) -> Protocols {
    let (mut http1, mut http2) = (false, false);
    for text in texts(reader, "protocols") {
        http1 |= text == "http1";
        http2 |= text == "http2";
    }
    if http1 || http2 { Protocols { http1, http2 } } else { Protocols::BOTH }
}

fn listener_tls(reader: &Reader<'_>, cx: &mut Context<'_>) -> ListenerTls {
    if reader.node.is_some() {
        reader.require("certificates", cx);
    }
    let list = reader.at.key("certificates");
    let keys = object_keys(reader, "certificates");
    let mut certificates = Vec::new();
    let mut names = check::CertificateNames::default();
    for (index, node) in reader.items("certificates").iter().enumerate() {
        let each = Reader::new(Some(node), keys, list.item(index), head_of(node));
        let Some((certificate, chain)) = certificate(&each, cx) else { continue };
        names.look(&each, &chain, cx);
        certificates.push(certificate);
    }
    ListenerTls {
        certificates,
        min_version: scalar::tls_version(reader.word("min_version")).unwrap_or(TlsVersion::V12),
        client_ca: authorities(reader, "client_ca", cx),
        handshake_timeout: reader.duration("handshake_timeout"),
        handshakes: reader.integer("handshakes") as usize,
    }
}

/// A certificate and its key, read and looked into.
fn certificate(reader: &Reader<'_>, cx: &mut Context<'_>) -> Option<(Certificate, Chain)> {
    reader.node?;
    let whole = reader.require("cert", cx) & reader.require("key", cx);
    let cert = named_file(reader, "cert", cx);
    let key = named_file(reader, "key", cx);
    let chain = cert.as_ref().and_then(|(_, pem)| fits(certificate::chain(pem), reader, "cert", cx));
    let signing = key.as_ref().and_then(|(_, pem)| fits(certificate::key(pem), reader, "key", cx));
    let ((cert_path, cert), (key_path, key), chain) = (cert?, key?, chain?);
    check::pair(reader, &chain, signing?, cx);
    check::out_of_time(reader, "cert", &chain, cx);
    whole.then(|| (Certificate { cert_path, key_path, cert, key: SecretBytes::new(key) }, chain))
}

/// What was found in the file that `name` names; reports what is wrong with it.
fn fits<T>(found: Result<T, Wrong>, reader: &Reader<'_>, name: &str, cx: &mut Context<'_>) -> Option<T> {
    found.map_err(|wrong| file_problem(reader, name, &wrong.what, wrong.help, cx)).ok()
}

/// The file that `name` names: its path from here, and its bytes. Reports one that cannot be read.
fn named_file(reader: &Reader<'_>, name: &str, cx: &mut Context<'_>) -> Option<(PathBuf, Arc<[u8]>)> {
    let path = reader.text(name)?;
    if !cx.env.is_known() {
        return None;
    }
    match cx.file(path) {
        Ok(bytes) => Some((cx.base.join(path), bytes)),
        Err(why) => {
            let help = "check the path and who may read it; a relative path starts at this file's folder".to_owned();
            file_problem(reader, name, &format!("cannot be read: {why}"), help, cx);
            None
        }
    }
}

/// Reports what is wrong with the file that `name` names; its path is shown if it is written here.
fn file_problem(reader: &Reader<'_>, name: &str, what: &str, help: String, cx: &mut Context<'_>) {
    let (Some(entry), Some(scalar)) = (reader.entry(name), reader.scalar(name)) else { return };
    let at = reader.at.key(name);
    let named = if scalar.origin == Origin::Written { shown(&scalar.text) } else { "`***`".to_owned() };
    cx.problem(entry.node.span, &at, format!("{at}: {named} {what}"), Some(help));
}

fn admin(reader: &Reader<'_>, cx: &mut Context<'_>) -> Admin {
    let tokens = tokens(reader, cx);
    check::repeats(reader, "hosts", cx);
    let bind = reader.text("bind").or_else(|| reader.standard("bind"));
    let bind = bind.and_then(|text| scalar::tcp_bind(text).ok()).unwrap_or(ANY_FREE);
    let hosts = texts(reader, "hosts").filter_map(|text| scalar::host(text).ok()).collect();
    check::public_admin(reader, bind, &tokens, cx);
    Admin { bind, tokens, hosts }
}

fn tokens(reader: &Reader<'_>, cx: &mut Context<'_>) -> Vec<Token> {
    let mut tokens = Vec::new();
    let unknown = reader.entry("token").and_then(|entry| entry.node.scalar()).is_some_and(Scalar::is_unknown);
    if unknown || reader.text("token").is_some_and(|text| !text.is_empty()) {
        let secret = Secret::new(reader.text("token").unwrap_or("?"));
        tokens.push(Token { name: "admin".into(), secret, role: Role::Operate });
    }
    let list = reader.at.key("tokens");
    let keys = object_keys(reader, "tokens");
    let mut seen = check::Seen::default();
    for (index, node) in reader.items("tokens").iter().enumerate() {
        let each = Reader::new(Some(node), keys, list.item(index), head_of(node));
        let whole = each.require("name", cx) & each.require("token", cx) & each.require("role", cx);
        seen.token(&each, cx);
        let role = if each.word("role") == "read" { Role::Read } else { Role::Operate };
        let secret = Secret::new(each.text("token").unwrap_or("?"));
        if whole {
            tokens.push(Token { name: each.text("name").unwrap_or("?").to_owned(), secret, role });
        }
    }
    check::token_or_tokens(reader, !tokens.is_empty(), cx);
    tokens
}

fn log(reader: &Reader<'_>, cx: &Context<'_>) -> Log {
    let level = match reader.word("level") {
        "error" => Level::Error,
        "warn" => Level::Warn,
        "debug" => Level::Debug,
        "trace" => Level::Trace,
        _ => Level::Info,
    };
    let format = match reader.word("format") {
        "json" => LogFormat::Json,
        "text" => LogFormat::Text,
        _ => LogFormat::Auto,
    };
    let file = reader.text("file").filter(|path| !path.is_empty()).map(|path| cx.base.join(path));
    Log { level, format, access: reader.boolean("access"), file }
}

// --- clients, providers, pools ---

/// The clients, `anonymous` last.
fn clients(top: &Reader<'_>, cx: &mut Context<'_>) -> Vec<Client> {
    let section = top.at.key("clients");
    let keys = map_keys(top, "clients");
    let mut seen = check::Callers::default();
    let mut clients = Vec::new();
    let mut anonymous = None;
    for entry in top.entries("clients") {
        let reader = Reader::new(Some(&entry.node), keys, section.key(&entry.key), entry.key_span);
        seen.look(&entry.key, &reader, cx);
        match client(&entry.key, &reader) {
            client if *client.name == *ANONYMOUS => anonymous = Some(client),
            client => clients.push(client),
        }
    }
    clients.push(anonymous.unwrap_or_else(|| client(ANONYMOUS, &Reader::new(None, keys, section, Span::START))));
    clients
}

fn client(name: &str, reader: &Reader<'_>) -> Client {
    let is_capped = name == ANONYMOUS && !reader.has("max_class");
    Client {
        name: name.into(),
        keys: texts(reader, "keys").map(Secret::new).collect(),
        addresses: texts(reader, "addresses").filter_map(|text| scalar::cidr(text).ok()).collect(),
        max_class: if is_capped { Class::Normal } else { class(reader, "max_class") },
        share: reader.integer("share") as u32,
    }
}

/// The class that `name` says.
fn class(reader: &Reader<'_>, name: &str) -> Class {
    Class::parse(reader.word(name).as_bytes()).unwrap_or(Class::Normal)
}

fn providers(entries: &[Entry], top: &Reader<'_>, cx: &mut Context<'_>) -> Vec<Provider> {
    let section = top.at.key("providers");
    let keys = map_keys(top, "providers");
    let mut providers = Vec::new();
    for (entry, written) in entries.iter().zip(top.entries("providers")) {
        let reader = Reader::new(Some(&entry.node), keys, section.key(&entry.key), entry.key_span);
        let own = Reader::new(Some(&written.node), keys, section.key(&entry.key), entry.key_span);
        providers.push(provider(&entry.key, &reader, &own, cx));
    }
    providers
}

fn provider(name: &str, reader: &Reader<'_>, own: &Reader<'_>, cx: &mut Context<'_>) -> Provider {
    if reader.node.is_some() {
        reader.require("url", cx);
    }
    let url = reader.text("url").and_then(|text| scalar::provider_url(text).ok());
    let protocols = match url.as_ref().map(|url| url.scheme) {
        Some(Scheme::Http) => Protocols::HTTP1,
        Some(Scheme::H2c) => Protocols::HTTP2,
        Some(Scheme::Https) | None => protocols(reader),
    };
    check::inert_in_provider(own, url.as_ref(), protocols.http2 && !reader.has("proxy_protocol"), cx);
    check::announced_over_http2(reader, own, url.as_ref(), protocols, cx);
    let has_name = url.as_ref().is_some_and(|url| check::has_name(own, url, cx));
    let headers = header_rules(&reader.child("headers"), "host:", cx);
    let deadline_header = reader.text("deadline_header").and_then(|text| scalar::header_name(text).ok());
    check::deadline_header(own, deadline_header.as_deref(), &headers, cx);
    let (timeouts, connections, tls) = (reader.child("timeouts"), reader.child("connections"), reader.child("tls"));
    let url = url.unwrap_or_else(|| {
        ProviderUrl::new(Scheme::Http, ProviderAddress::Tcp { host: "?".into(), port: 80 }, String::new())
    });
    check::repeats(reader, "protocols", cx);
    Provider {
        name: name.into(),
        protocols,
        url,
        headers,
        timeouts: ProviderTimeouts {
            connect: timeouts.duration("connect"),
            first_byte: timeouts.duration("first_byte"),
            idle: timeouts.duration("idle"),
        },
        host: scalar::host_rule(reader.word("host")).unwrap_or(HostRule::Upstream),
        proxy_protocol: match reader.text("proxy_protocol") {
            Some("v1") => Some(ProxyVersion::V1),
            Some("v2") => Some(ProxyVersion::V2),
            _ => None,
        },
        tls: ProviderTls {
            ca: authorities(&tls, "ca", cx),
            server_name: tls.text("server_name").and_then(|text| scalar::host(text).ok()),
            client: tls.has("client").then(|| certificate(&tls.child("client"), cx)).flatten().map(|(pair, _)| pair),
        },
        connections: ProviderConnections {
            idle: connections.integer("idle") as usize,
            idle_timeout: connections.duration("idle_timeout"),
            max_age: connections.duration("max_age"),
            streams: connections.integer("streams") as usize,
            ping: connections.duration_or_off("ping"),
        },
        limits: provider_limits(&reader.child("limits"), &own.child("limits"), cx),
        cost: reader.has("cost").then(|| reader.number("cost")),
        circuit_breaker: circuit_breaker(&reader.child("circuit_breaker"), cx),
        health_check: reader.has("health_check").then(|| health_check(&reader.child("health_check"), cx)),
        slow_start: reader.has("slow_start").then(|| reader.duration("slow_start")),
        discover_dns: has_name && reader.has("discover"),
        deadline_header,
    }
}

fn provider_limits(reader: &Reader<'_>, own: &Reader<'_>, cx: &mut Context<'_>) -> ProviderLimits {
    if !reader.has("rate") {
        check::inert(own, "burst", "without `rate`", "write `rate` beside it, or remove it", cx);
    }
    let rate = reader.text("rate").and_then(|text| scalar::rate(text).ok());
    let burst = if reader.has("burst") { reader.integer("burst") as u32 } else { rate.map_or(1, a_tenth_of_a_second) };
    ProviderLimits {
        concurrency: (reader.integer("concurrency") as u32).max(1),
        rate,
        burst: burst.max(1),
        max_cooldown: reader.duration("max_cooldown"),
    }
}

/// What comes in a tenth of a second at this rate.
fn a_tenth_of_a_second(rate: Rate) -> u32 {
    rate.count / (10 * rate.per.as_secs() as u32)
}

fn circuit_breaker(reader: &Reader<'_>, cx: &mut Context<'_>) -> CircuitBreaker {
    check::order(reader, "recovery_timeout", "max_recovery_timeout", cx);
    let terms = circuit::Terms {
        failure_threshold: reader.integer("failure_threshold") as u32,
        failure_rate: reader.number("failure_rate"),
        window: reader.duration("window"),
        minimum_requests: reader.integer("minimum_requests") as u32,
        recovery_timeout: reader.duration("recovery_timeout"),
        max_recovery_timeout: reader.duration("max_recovery_timeout"),
        half_open_requests: reader.integer("half_open_requests") as u32,
        success_threshold: reader.integer("success_threshold") as u32,
    };
    let slow_call = reader.has("slow_call").then(|| reader.duration("slow_call"));
    CircuitBreaker { terms, failures: conditions(reader, "failures", cx), slow_call }
}

/// The ways for an attempt to end that the list `name` has, or that its default has.
fn conditions(reader: &Reader<'_>, name: &'static str, cx: &mut Context<'_>) -> Conditions {
    Conditions::parse(&words(reader, name)).unwrap_or_else(|wrong| {
        check::condition(reader, name, wrong, cx);
        Conditions::parse(&standard(reader, name)).unwrap_or_default()
    })
}

fn health_check(reader: &Reader<'_>, cx: &mut Context<'_>) -> HealthCheck {
    check::order(reader, "timeout", "interval", cx);
    HealthCheck {
        path: reader.word("path").to_owned(),
        interval: reader.duration("interval"),
        timeout: reader.duration("timeout"),
        healthy_after: reader.integer("healthy_after") as u32,
        unhealthy_after: reader.integer("unhealthy_after") as u32,
        host: reader.text("host").and_then(|text| scalar::host(text).ok()),
        status: scalar::status_range(reader.word("status")).unwrap_or(200..=399),
    }
}

/// The certificates of authorities in the file that `name` names, looked into.
fn authorities(tls: &Reader<'_>, name: &str, cx: &mut Context<'_>) -> Option<Arc<[u8]>> {
    let (_, pem) = named_file(tls, name, cx)?;
    let chain = fits(certificate::authorities(&pem), tls, name, cx)?;
    check::out_of_time(tls, name, &chain, cx);
    Some(pem)
}

fn pools(entries: &[Entry], top: &Reader<'_>, providers: &Defined, cx: &mut Context<'_>) -> Vec<Pool> {
    let section = top.at.key("pools");
    let keys = map_keys(top, "pools");
    let mut pools = Vec::new();
    for (entry, written) in entries.iter().zip(top.entries("pools")) {
        let reader = Reader::new(Some(&entry.node), keys, section.key(&entry.key), entry.key_span);
        let own = Reader::new(Some(&written.node), keys, section.key(&entry.key), entry.key_span);
        if reader.node.is_some() {
            reader.require("providers", cx);
        }
        let balance = balance(&reader, cx);
        check::in_pool(&reader, &balance, cx);
        let queue = queue(&reader.child("queue"), &own.child("queue"), cx);
        pools.push(Pool { name: (&*entry.key).into(), members: members(&reader, providers, cx), balance, queue });
    }
    pools
}

fn balance(reader: &Reader<'_>, cx: &mut Context<'_>) -> BalanceRule {
    let Some(entry) = reader.entry("balance").filter(|entry| entry.node.entries().is_some()) else {
        return match reader.word("balance") {
            "round_robin" => BalanceRule::RoundRobin,
            "weighted" => BalanceRule::Weighted,
            "peak_ewma" => BalanceRule::PeakEwma,
            _ => BalanceRule::LeastConnections,
        };
    };
    let at = reader.at.key("balance");
    let rule = Reader::new(Some(&entry.node), either_keys(reader, "balance"), at, entry.key_span);
    if !rule.require("consistent_hash", cx) {
        return BalanceRule::LeastConnections;
    }
    let hash = rule.child("consistent_hash");
    if hash.node.is_some() {
        hash.require("by", cx);
    }
    let by = hash.text("by").and_then(|text| scalar::hash_by(text).ok()).unwrap_or(HashBy::Ip);
    BalanceRule::ConsistentHash { by }
}

fn queue(reader: &Reader<'_>, own: &Reader<'_>, cx: &mut Context<'_>) -> PoolQueue {
    let weights = reader.child("weights");
    let queue = PoolQueue {
        terms: queue::Terms {
            capacity: reader.integer("capacity") as usize,
            weights: Class::ALL.map(|class| weights.integer(class.as_str()) as u32),
            reserve_high: reader.number("reserve_high"),
        },
        timeout: reader.duration("timeout"),
        heartbeat: reader.has("heartbeat").then(|| reader.duration("heartbeat")),
    };
    check::in_queue(own, &queue, cx);
    queue
}

fn members(reader: &Reader<'_>, providers: &Defined, cx: &mut Context<'_>) -> Vec<Member> {
    let list = reader.at.key("providers");
    let keys = member_keys(reader);
    let mut members: Vec<Member> = Vec::new();
    let mut seen: HashMap<usize, Span> = HashMap::new();
    for (index, node) in reader.items("providers").iter().enumerate() {
        let at = list.item(index);
        if node.entries().is_some() && node.get("name").is_none() {
            let message = format!("{at}: `name` is missing");
            cx.problem(head_of(node), &at, message, Some("write the name of a provider".into()));
        }
        let named = node.get("name").unwrap_or(node);
        let Some(provider) = providers.resolve(named, "provider", "providers", &at, cx) else { continue };
        let unknown = named.scalar().is_some_and(Scalar::is_unknown);
        match seen.get(&provider) {
            Some(first) if !unknown => {
                let message = format!("{at}: this provider is in the pool twice");
                cx.problem(named.span, &at, message, Some(format!("it stands on line {} already", first.line)));
            }
            _ => {
                seen.insert(provider, named.span);
                let says = Reader::new(Some(node), keys, at, head_of(node));
                let (weight, backup) = (says.integer("weight").max(1) as u32, says.boolean("backup"));
                members.push(Member { provider, weight, backup });
            }
        }
    }
    members
}

// --- routes ---

fn routes(
    top: &Reader<'_>,
    below: Option<&Entry>,
    pools: &Defined,
    memory: &Memory,
    cx: &mut Context<'_>,
) -> Vec<Placed<Arc<Route>>> {
    if !top.has("routes") {
        let help = "write `routes:` with a `name` and what it does: `pool`, `respond` or `redirect`";
        cx.problem(Span::START, &At::TOP, "there is no route".into(), Some(help.into()));
    }
    let list = top.at.key("routes");
    let keys = object_keys(top, "routes");
    let mut placed: Vec<Placed<Arc<Route>>> = Vec::new();
    for (index, own) in top.items("routes").iter().enumerate() {
        let laid = below.map(|below| lay(below, own, &ROUTE, cx));
        let reader = Reader::new(Some(laid.as_ref().unwrap_or(own)), keys, list.item(index), head_of(own));
        let own_reader = Reader::new(Some(own), keys, list.item(index), head_of(own));
        redact(laid.as_ref().unwrap_or(own), &format!("/routes/{index}"), cx);
        if let Some(route) = route(&reader, &own_reader, pools, memory, cx) {
            let span = own_reader.entry("match").map_or(reader.head, |entry| entry.key_span);
            placed.push(place(Arc::new(route), span, own, &reader));
        }
    }
    check::unique_names("route", placed.iter().map(|route| (&*route.what.name, route)), cx);
    check::reachable(&placed, cx);
    placed
}

fn route(
    reader: &Reader<'_>,
    own: &Reader<'_>,
    pools: &Defined,
    memory: &Memory,
    cx: &mut Context<'_>,
) -> Option<Route> {
    reader.node?;
    let named = reader.require("name", cx);
    check::reserved_name(reader, cx);
    let action = action(reader, pools, cx);
    let matches = matches(&reader.child("match"), cx);
    check::inert_in_route(own, reader, cx);
    let rewrite = rewrite(&reader.child("rewrite"), cx);
    check::strip_prefix(reader, &matches, &rewrite, cx);
    let stream_timeout = reader.duration_or_off("stream_timeout");
    let name = reader.text("name").unwrap_or("?").into();
    let timeout = reader.duration("timeout");
    let class = class_rule(reader);
    let retry = retry(&reader.child("retry"), timeout, cx);
    if reader.has("pool") {
        check::in_retry(&own.child("retry"), &retry, timeout, memory, cx);
    }
    let degrade = ladder(reader, own, action.as_ref(), pools, cx);
    let is_kept = reader.has("pool") && reader.has("cache");
    let cache = is_kept.then(|| cache(&reader.child("cache"), memory));
    if let Some(cache) = &cache {
        check::in_cache(own, &reader.child("cache"), cache, &matches, memory, cx);
    }
    let route =
        Route { name, matches, action: action?, timeout, stream_timeout, rewrite, class, retry, cache, degrade };
    named.then_some(route)
}

/// The rungs of a route that sends to a pool. Those that defaults lay under it and that mean nothing there are left out.
fn ladder(
    reader: &Reader<'_>,
    own: &Reader<'_>,
    action: Option<&Action>,
    pools: &Defined,
    cx: &mut Context<'_>,
) -> Vec<Rung> {
    let Some(&Action::Pool(main)) = action else { return Vec::new() };
    let (list, keys) = (reader.at.key("degrade"), object_keys(reader, "degrade"));
    let mut rungs: Vec<Rung> = Vec::new();
    for (index, node) in reader.items("degrade").iter().enumerate() {
        let each = Reader::new(Some(node), keys, list.item(index), head_of(node));
        let Some(rung) = rung(&each, main, pools, cx) else { continue };
        let (is_own, caches) = (rung.what.pool() == Some(main), reader.has("cache"));
        if own.has("degrade") {
            check::in_rung(&each, &rung, main, caches, cx);
            check::below(&each, &rungs, &rung, cx);
        } else if is_own || (rung.what == Fallback::Stale && !caches) {
            continue;
        }
        rungs.push(rung);
    }
    rungs
}

/// One rung of a route whose own pool is `main`.
fn rung(reader: &Reader<'_>, main: usize, pools: &Defined, cx: &mut Context<'_>) -> Option<Rung> {
    reader.node?;
    let kind = check::one_fallback(reader, cx)?;
    let what = match kind {
        ladder::Kind::Pool => {
            let entry = reader.entry("pool")?;
            Fallback::Pool(pools.resolve(&entry.node, "pool", "pools", &reader.at.key("pool"), cx)?)
        }
        ladder::Kind::Reduced => Fallback::Reduced(reduced(&reader.child("reduced"), pools, cx)),
        ladder::Kind::Stale => Fallback::Stale,
        ladder::Kind::Static => Fallback::Static(static_answer(&reader.child("static"), cx)),
    };
    check::repeats(reader, "on", cx);
    check::repeats(reader, "methods", cx);
    let elsewhere = what.pool().is_some_and(|pool| pool != main);
    let on = if reader.has("on") {
        texts(reader, "on").filter_map(Trigger::parse).collect()
    } else {
        Triggers::standard(kind, elsewhere)
    };
    let methods = match reader.word("methods") {
        "all" => Methods::All,
        _ => Methods::These(words(reader, "methods").into_iter().map(ToOwned::to_owned).collect()),
    };
    let rule = ladder::Rung { kind, on, methods, max_age: reader.child("stale").duration("max_age") };
    Some(Rung { rule, thresholds: thresholds(reader, cx), what })
}

fn reduced(reader: &Reader<'_>, pools: &Defined, cx: &mut Context<'_>) -> Reduced {
    let at = reader.at.key("pool");
    let pool = reader.entry("pool").and_then(|entry| pools.resolve(&entry.node, "pool", "pools", &at, cx));
    let json = reader.child("json");
    check::repeats(&json, "remove", cx);
    let set = json.entries("set").iter();
    let set = set.filter_map(|entry| Some((entry.key.to_string(), json_value(entry.node.scalar()?))));
    Reduced {
        pool,
        headers: rules(reader, ["set_headers", "remove_headers"], "the provider's `host:`", cx),
        path: reader.text("path").map(ToOwned::to_owned),
        json: JsonRules { set: set.collect(), remove: texts(&json, "remove").map(ToOwned::to_owned).collect() },
    }
}

/// A scalar as JSON: what is not quoted and reads as a number or a boolean is one.
fn json_value(scalar: &Scalar) -> String {
    let typed = scalar.plain.then(|| serde_json::from_str::<serde_json::Value>(&scalar.text).ok()).flatten();
    match typed {
        Some(value) if value.is_number() || value.is_boolean() => scalar.text.trim().to_owned(),
        _ => serde_json::Value::from(&*scalar.text).to_string(),
    }
}

fn static_answer(reader: &Reader<'_>, cx: &mut Context<'_>) -> StaticAnswer {
    let headers = fields(reader.entries("headers"), &reader.at.key("headers"), "", cx);
    let headers = headers.into_iter().map(|(entry, _, value)| (entry.key.to_string(), value)).collect();
    check::answer(reader, cx);
    let named = named_file(reader, "file", cx);
    if named.as_ref().is_some_and(|(_, bytes)| bytes.len() > STATIC_BYTES_MAX) {
        let what = format!("is larger than {} MiB", STATIC_BYTES_MAX >> 20);
        file_problem(reader, "file", &what, "a static answer is held in memory; serve a smaller one".into(), cx);
    }
    let (file, body) = match named {
        Some((path, bytes)) => (Some(path), bytes),
        None => (None, reader.text("body").unwrap_or_default().as_bytes().into()),
    };
    StaticAnswer { status: reader.integer("status") as u16, headers, body, file }
}

/// `enter` and `leave` of a rung; half of the one where the other is not written.
fn thresholds(reader: &Reader<'_>, cx: &mut Context<'_>) -> Option<Terms> {
    check::levels(reader, cx);
    if !reader.has("enter") {
        return None;
    }
    let (enter, leave) = (reader.child("enter"), reader.child("leave"));
    let share = |of: &Reader<'_>, name| of.has(name).then(|| of.number(name));
    let time = |of: &Reader<'_>, name| of.has(name).then(|| of.duration(name));
    let entered = Levels {
        queue: share(&enter, "queue"),
        latency: time(&enter, "latency"),
        error_rate: share(&enter, "error_rate"),
    };
    let left = Levels {
        queue: entered.queue.map(|level| share(&leave, "queue").unwrap_or(level / 2.0)),
        latency: entered.latency.map(|level| time(&leave, "latency").unwrap_or(level / 2)),
        error_rate: entered.error_rate.map(|level| share(&leave, "error_rate").unwrap_or(level / 2.0)),
    };
    Some(Terms { enter: entered, leave: left })
}

fn class_rule(reader: &Reader<'_>) -> ClassRule {
    match reader.entry("class").filter(|entry| entry.node.entries().is_some()) {
        None => ClassRule { default: class(reader, "class"), header: None },
        Some(entry) => {
            let at = reader.at.key("class");
            let rule = Reader::new(Some(&entry.node), either_keys(reader, "class"), at, entry.key_span);
            let header = rule.text("header").and_then(|text| scalar::header_name(text).ok());
            ClassRule { default: class(&rule, "default"), header }
        }
    }
}

fn retry(reader: &Reader<'_>, timeout: Duration, cx: &mut Context<'_>) -> Retry {
    check::repeats(reader, "methods", cx);
    check::repeats(reader, "refused", cx);
    let (backoff, budget, commit) = (reader.child("backoff"), reader.child("budget"), reader.child("commit"));
    check::order(&backoff, "initial", "max", cx);
    let hedge = reader.child("hedge");
    Retry {
        attempts: reader.integer("attempts") as u32,
        on: conditions(reader, "on", cx),
        methods: methods(reader),
        idempotency_key: reader.boolean("idempotency_key"),
        refused: statuses(reader, "refused"),
        backoff: Backoff {
            initial: backoff.duration("initial"),
            multiplier: backoff.number("multiplier"),
            max: backoff.duration("max"),
            jitter: if backoff.word("jitter") == "none" { Jitter::None } else { Jitter::Full },
        },
        attempt_timeout: reader.duration("attempt_timeout").min(timeout),
        budget: BudgetTerms { ratio: budget.number("ratio"), min_per_second: budget.number("min_per_second") },
        replay_bytes: reader.size("replay_bytes") as usize,
        commit: Commit { bytes: commit.size("bytes") as usize, within: commit.duration("within") },
        hedge: reader.has("hedge").then(|| Hedge {
            after: scalar::hedge_after(hedge.word("after")).unwrap_or(HedgeAfter::Quantile(0.95)),
            budget: hedge.number("budget"),
        }),
    }
}

fn memory(reader: &Reader<'_>) -> Memory {
    Memory { buffers: reader.size("buffers") as usize, cache: reader.size("cache") }
}

fn cache(reader: &Reader<'_>, memory: &Memory) -> Cache {
    Cache {
        rules: Rules {
            ttl: reader.duration_or_off("ttl"),
            stale_while_revalidate: reader.duration("stale_while_revalidate"),
            stale_if_error: reader.duration("stale_if_error"),
        },
        max_object: reader.size("max_object").min(memory.cache / CACHE_PART),
        post: reader.boolean("post"),
    }
}

fn methods(reader: &Reader<'_>) -> Methods {
    if reader.entry("methods").is_some_and(|entry| entry.node.items().is_some()) {
        return Methods::These(texts(reader, "methods").map(ToOwned::to_owned).collect());
    }
    if reader.word("methods") == "all" { Methods::All } else { Methods::Idempotent }
}

/// The statuses in the list `name`, or in its default.
fn statuses(reader: &Reader<'_>, name: &str) -> Vec<u16> {
    words(reader, name).into_iter().filter_map(|word| word.parse().ok()).collect()
}

/// The texts of the list `name`, or of its default.
fn words<'a>(reader: &Reader<'a>, name: &str) -> Vec<&'a str> {
    if reader.has(name) {
        return texts(reader, name).collect();
    }
    standard(reader, name)
}

/// The texts of the default of the list `name`.
fn standard(reader: &Reader<'_>, name: &str) -> Vec<&'static str> {
    reader.standard(name).unwrap_or_default().trim_matches(['[', ']']).split(", ").collect()
}

fn action(reader: &Reader<'_>, pools: &Defined, cx: &mut Context<'_>) -> Option<Action> {
    let mut written = merge::ACTIONS.iter().filter_map(|name| reader.entry(name));
    let Some(first) = written.next() else {
        let message = format!("{}: the route does nothing", reader.at);
        let help = "write `pool`, `respond` or `redirect`".to_owned();
        cx.problem(reader.head, &reader.at, message, Some(help));
        return None;
    };
    if let Some(second) = written.next() {
        let message = format!("{}: `{}` and `{}` contradict each other", reader.at, first.key, second.key);
        cx.problem(second.key_span, &reader.at, message, Some("a route does one thing; remove the other".into()));
    }
    match &*first.key {
        "pool" => pools.resolve(&first.node, "pool", "pools", &reader.at.key("pool"), cx).map(Action::Pool),
        "respond" => Some(respond(&reader.child("respond"), cx)),
        _ => redirect(&reader.child("redirect"), cx),
    }
}

fn respond(reader: &Reader<'_>, cx: &mut Context<'_>) -> Action {
    // Our own answer shows the names as the operator spelt them.
    let headers = fields(reader.entries("headers"), &reader.at.key("headers"), "", cx);
    let headers = headers.into_iter().map(|(entry, _, value)| (entry.key.to_string(), value)).collect();
    check::answer(reader, cx);
    let status = reader.integer("status") as u16;
    Action::Respond { status, headers, body: reader.text("body").unwrap_or_default().as_bytes().into() }
}

fn redirect(reader: &Reader<'_>, cx: &mut Context<'_>) -> Option<Action> {
    let whole = reader.node.is_some() && reader.require("to", cx);
    let status = reader.value("status", str::parse::<u16>);
    whole.then(|| Action::Redirect { to: reader.text("to").unwrap_or("/").to_owned(), status })
}

fn matches(reader: &Reader<'_>, cx: &mut Context<'_>) -> Match {
    for list in ["hosts", "methods"] {
        check::repeats(reader, list, cx);
    }
    let mut hosts: Vec<HostPattern> =
        texts(reader, "hosts").filter_map(|text| scalar::host_pattern(text).ok()).collect();
    if hosts.is_empty() {
        hosts.push(HostPattern::Any);
    }
    let path = scalar::path_pattern(reader.word("path")).unwrap_or(PathPattern::Prefix(String::new()));
    let path_regex = reader.text("path_regex").and_then(|text| cx.pattern(text).ok());
    let methods = reader.has("methods").then(|| texts(reader, "methods").map(ToOwned::to_owned).collect());
    let headers = value_matches(reader, "headers", true, cx);
    let query = value_matches(reader, "query", false, cx);
    Match { hosts, path, path_regex, methods, headers, query }
}

fn value_matches(
    reader: &Reader<'_>,
    name: &'static str,
    lower: bool,
    cx: &mut Context<'_>,
) -> Vec<(String, ValueMatch)> {
    let map = reader.at.key(name);
    let mut matches = Vec::new();
    let mut seen: HashMap<String, Span> = HashMap::new();
    for entry in reader.entries(name) {
        let at = map.key(&entry.key);
        let key = if lower { entry.key.to_ascii_lowercase() } else { entry.key.to_string() };
        check::field_twice(&mut seen, &key, entry, &at, cx);
        matches.push((key, value_match(entry, &at, cx)));
    }
    matches
}

fn value_match(entry: &Entry, at: &At<'_>, cx: &mut Context<'_>) -> ValueMatch {
    if let Some(scalar) = entry.node.scalar() {
        return ValueMatch::Exact(scalar.text.to_string());
    }
    let (present, regex) = (entry.node.get("present"), entry.node.get("regex"));
    let text = |node: &Node| node.scalar().filter(|scalar| !scalar.is_unknown()).map(|scalar| scalar.text.to_string());
    match (present, regex) {
        (Some(_), Some(_)) => {
            let message = format!("{at}: `present` and `regex` contradict each other");
            cx.problem(entry.key_span, at, message, Some("keep one of them".into()));
        }
        (None, None) if entry.node.entries().is_some_and(<[Entry]>::is_empty) => {
            let help = "write a value, `{ present: true }` or `{ regex: … }`".to_owned();
            cx.problem(entry.node.span, at, format!("{at}: nothing says what to look for"), Some(help));
        }
        (Some(node), None) if text(node).is_some_and(|text| scalar::boolean(&text) == Ok(false)) => {
            let message = format!("{at}: `present: false` is not built; only `true` has a meaning");
            cx.problem(node.span, at, message, Some("remove it".into()));
        }
        (None, Some(node)) => {
            let compiled = text(node).and_then(|text| cx.pattern(&text).ok());
            return compiled.map_or(ValueMatch::Present, ValueMatch::Regex);
        }
        _ => {}
    }
    ValueMatch::Present
}

fn rewrite(reader: &Reader<'_>, cx: &mut Context<'_>) -> Rewrite {
    let prefix = |name| reader.text(name).and_then(|text| scalar::path_prefix(text).ok());
    Rewrite {
        strip_prefix: prefix("strip_prefix"),
        add_prefix: prefix("add_prefix"),
        headers: header_rules(&reader.child("headers"), "the provider's `host:`", cx),
        response_headers: header_rules(&reader.child("response_headers"), "", cx),
    }
}

/// `set` and `remove`. `host` says where the Host is chosen, if it can be.
fn header_rules(reader: &Reader<'_>, host: &str, cx: &mut Context<'_>) -> HeaderRules {
    rules(reader, ["set", "remove"], host, cx)
}

/// The same, under these keys.
fn rules(reader: &Reader<'_>, [sets, removes]: [&'static str; 2], host: &str, cx: &mut Context<'_>) -> HeaderRules {
    let set = fields(reader.entries(sets), &reader.at.key(sets), host, cx);
    let set: Vec<(String, Secret)> = set.into_iter().map(|(_, name, value)| (name, value)).collect();
    let list = reader.at.key(removes);
    check::repeats(reader, removes, cx);
    let names: HashSet<&str> = set.iter().map(|(name, _)| name.as_str()).collect();
    let mut remove = Vec::new();
    for (index, node) in reader.items(removes).iter().enumerate() {
        let Some(name) = node.scalar().and_then(|scalar| scalar::header_name(&scalar.text).ok()) else { continue };
        let at = list.item(index);
        check::framing(&name, node.span, &at, host, cx);
        if names.contains(name.as_str()) {
            let message = format!("{at}: {} is both set and removed", shown(&name));
            cx.problem(node.span, &at, message, Some(format!("`{sets}` replaces the field; remove it here")));
        }
        remove.push(name);
    }
    HeaderRules::new(set, remove)
}

/// Fields with their names in lower case and their values; each name once.
fn fields<'a>(
    entries: &'a [Entry],
    map: &At<'_>,
    host: &str,
    cx: &mut Context<'_>,
) -> Vec<(&'a Entry, String, Secret)> {
    let mut fields = Vec::new();
    let mut seen: HashMap<String, Span> = HashMap::new();
    for entry in entries {
        let at = map.key(&entry.key);
        let Ok(name) = scalar::header_name(&entry.key) else { continue };
        check::framing(&name, entry.key_span, &at, host, cx);
        check::field_twice(&mut seen, &name, entry, &at, cx);
        if let Some(scalar) = entry.node.scalar() {
            fields.push((entry, name, Secret::new(&*scalar.text)));
        }
    }
    fields
}

/// The texts of a list of scalars that are known.
fn texts<'a>(reader: &Reader<'a>, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    reader
        .items(name)
        .iter()
        .filter_map(|node| node.scalar())
        .filter(|s| !s.is_unknown() && !s.is_null())
        .map(|s| &*s.text)
}

/// What to point at when a mapping as a whole is meant: its first key.
fn head_of(node: &Node) -> Span {
    node.entries().and_then(|entries| entries.first()).map_or(node.span, |entry| entry.key_span)
}

/// The keys of the objects in the list `name`.
fn object_keys(reader: &Reader<'_>, name: &str) -> &'static [Key] {
    match reader.key(name).map(|key| &key.kind) {
        Some(Kind::List(Kind::Object(keys), ..)) => keys,
        _ => &[],
    }
}

/// The keys of the mapping that `name` may be instead of a word.
fn either_keys(reader: &Reader<'_>, name: &str) -> &'static [Key] {
    match reader.key(name).map(|key| &key.kind) {
        Some(Kind::Either([_, Kind::Object(keys)])) => keys,
        _ => &[],
    }
}

/// The keys of a pool's member.
fn member_keys(reader: &Reader<'_>) -> &'static [Key] {
    match reader.key("providers").map(|key| &key.kind) {
        Some(Kind::List(Kind::Either([_, Kind::Object(keys)]), ..)) => keys,
        _ => &[],
    }
}

/// The keys of the objects in the mapping `name`.
fn map_keys(reader: &Reader<'_>, name: &str) -> &'static [Key] {
    match reader.key(name).map(|key| &key.kind) {
        Some(Kind::Map(_, Kind::Object(keys))) => keys,
        _ => &[],
    }
}

static ROUTE: Kind = Kind::Object(shape::ROUTE);

/// Bytes of a file that a rung answers with: each is held in memory.
const STATIC_BYTES_MAX: usize = 4 << 20;

/// Stands in where an address was reported as wrong, or is not known.
const ANY_FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
