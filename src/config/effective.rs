//! The effective configuration as JSON, in the YAML's own names, defaults filled in, secrets as `***`.
//!
//! So that a change of a secret can still be told, `secrets` beside the settings holds a fingerprint of each: 32 bits of
//! a hash under a key that every process draws anew and never shows. It tells equal from different between two dumps of
//! one process, and nothing else.

use super::problem::MASK;
use super::secret::Secret;
use super::types::{
    Action, Admin, BalanceRule, Cache, Certificate, CircuitBreaker, ClassRule, Client, Config, Fallback, HeaderRules,
    HealthCheck, HostPattern, HostRule, Level, Listener, ListenerTls, Log, LogFormat, Match, Member, PathPattern, Pool,
    PoolQueue, Protocols, Provider, ProviderLimits, ProviderTls, ProviderUrl, ProxyVersion, Reduced, Retry, Rewrite,
    Role, Route, Rung, StaticAnswer, TlsVersion, ValueMatch,
};
use crate::policy::class::Class;
use crate::policy::degrade::Levels;
use crate::policy::ladder::Trigger;
use crate::policy::retry::{Jitter, Methods};
use serde_json::{Map, Value, json};
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::time::Duration;

/// What `config` amounts to. Values that came from `${…}` are `***` like secrets.
#[must_use]
pub fn effective(config: &Config) -> Value {
    let mut secrets = Map::new();
    let mut dump = json!({
        "version": 1,
        "workers": config.workers.map_or(json!("auto"), |workers| json!(workers)),
        "listeners": config.listeners.iter().map(|listener| self::listener(listener, &mut secrets)).collect::<Vec<_>>(),
        "admin": admin(&config.admin, &mut secrets),
        "shutdown": { "delay": duration(config.shutdown_delay), "grace": duration(config.shutdown_grace) },
        "reload": { "watch": config.reload_watch },
        "log": log(&config.log),
        "store": { "path": config.store.path.display().to_string() },
        "memory": memory(config),
        "clients": named(config.clients.iter().map(|each| (&*each.name, client(each, &mut secrets)))),
        "providers": named(config.providers.iter().map(|each| (&*each.name, provider(each, &mut secrets)))),
        "pools": named(config.pools.iter().map(|each| (&*each.name, pool(each, config)))),
        "routes": config.routes.iter().map(|each| route(each, config, &mut secrets)).collect::<Vec<_>>(),
    });
    for pointer in &config.redacted {
        redact(&mut dump, pointer, &mut secrets);
    }
    dump["secrets"] = Value::Object(secrets);
    dump
}

fn named<'a>(entries: impl Iterator<Item = (&'a str, Value)>) -> Value {
    Value::Object(entries.map(|(name, value)| (name.to_owned(), value)).collect())
}

fn trusted_proxies(listener: &Listener) -> Vec<String> {
    let ranges = listener.trusted_proxies.iter().map(ToString::to_string);
    ranges.chain(listener.trusts_unix.then(|| "unix".to_owned())).collect()
}

fn listener(listener: &Listener, secrets: &mut Map<String, Value>) -> Value {
    let limits = &listener.limits;
    let mut dump = json!({
        "name": &*listener.name,
        "bind": listener.bind.to_string(),
        "protocols": protocols(listener.protocols, ["http1", "http2"]),
        "proxy_protocol": listener.proxy_protocol,
        "trusted_proxies": trusted_proxies(listener),
        "limits": {
            "connections": limits.connections,
            "connections_per_address": limits.connections_per_address,
            "header_timeout": duration(limits.header_timeout),
            "header_bytes": size(limits.header_bytes as u64),
            "headers": limits.headers,
            "body_bytes": size(limits.body_bytes),
            "idle_timeout": duration(limits.idle_timeout),
            "min_body_rate": format!("{}/s", size(limits.min_body_rate)),
            "h2_streams": limits.h2_streams,
            "connection_age": duration(limits.connection_age.unwrap_or_default()),
        },
    });
    if let Some(tls) = &listener.tls {
        dump["tls"] = listener_tls(tls, &format!("listeners[{}].tls", listener.name), secrets);
    }
    dump
}

/// Those that are spoken, in the order of `names`.
fn protocols(protocols: Protocols, names: [&str; 2]) -> Vec<&str> {
    let spoken = |name: &&str| if *name == "http1" { protocols.http1 } else { protocols.http2 };
    names.into_iter().filter(spoken).collect()
}

fn admin(admin: &Admin, secrets: &mut Map<String, Value>) -> Value {
    let mut tokens = Vec::new();
    for token in &admin.tokens {
        let shown = secret(&token.secret, &format!("admin.tokens[{}].token", token.name), secrets);
        tokens.push(json!({ "name": token.name, "token": shown, "role": role(token.role) }));
    }
    json!({ "bind": admin.bind.to_string(), "tokens": tokens, "hosts": admin.hosts })
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Evaluate => "evaluate",
        Role::Read => "read",
        Role::Operate => "operate",
    }
}

fn log(log: &Log) -> Value {
    let level = match log.level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let format = match log.format {
        LogFormat::Auto => "auto",
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    };
    let file = log.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    json!({ "level": level, "format": format, "access": log.access, "file": file })
}

fn client(client: &Client, secrets: &mut Map<String, Value>) -> Value {
    let mut dump = json!({ "max_class": client.max_class.as_str(), "share": client.share });
    let keys = client.keys.iter().enumerate();
    let keys = keys.map(|(index, key)| secret(key, &format!("clients.{}.keys[{index}]", client.name), secrets));
    let keys: Vec<Value> = keys.collect();
    if !keys.is_empty() {
        dump["keys"] = keys.into();
    }
    if !client.addresses.is_empty() {
        dump["addresses"] = client.addresses.iter().map(ToString::to_string).collect();
    }
    dump
}

fn provider(provider: &Provider, secrets: &mut Map<String, Value>) -> Value {
    let path = format!("providers.{}", provider.name);
    let host = match &provider.host {
        HostRule::Upstream => "upstream",
        HostRule::Preserve => "preserve",
        HostRule::Name(name) => name,
    };
    let mut dump = json!({
        "url": url(&provider.url),
        "headers": header_rules(&provider.headers, &format!("{path}.headers"), secrets),
        "timeouts": {
            "connect": duration(provider.timeouts.connect),
            "first_byte": duration(provider.timeouts.first_byte),
            "idle": duration(provider.timeouts.idle),
        },
        "host": host,
        "connections": {
            "streams": provider.connections.streams,
            "ping": duration(provider.connections.ping.unwrap_or_default()),
            "idle": provider.connections.idle,
            "idle_timeout": duration(provider.connections.idle_timeout),
            "max_age": duration(provider.connections.max_age),
        },
        "limits": provider_limits(&provider.limits),
        "circuit_breaker": circuit_breaker(&provider.circuit_breaker),
    });
    if let Some(cost) = provider.cost {
        dump["cost"] = number(cost);
    }
    if let Some(check) = &provider.health_check {
        dump["health_check"] = health_check(check);
    }
    if let Some(over) = provider.slow_start {
        dump["slow_start"] = duration(over).into();
    }
    if provider.discover_dns {
        dump["discover"] = "dns".into();
    }
    if let Some(name) = &provider.deadline_header {
        dump["deadline_header"] = name.as_str().into();
    }
    if provider.url.scheme.is_tls() {
        dump["protocols"] = json!(protocols(provider.protocols, ["http2", "http1"]));
    }
    if let Some(version) = provider.proxy_protocol {
        dump["proxy_protocol"] = match version {
            ProxyVersion::V1 => "v1".into(),
            ProxyVersion::V2 => "v2".into(),
        };
    }
    if provider.tls != ProviderTls::default() {
        dump["tls"] = tls(&provider.tls, &format!("{path}.tls"), secrets);
    }
    dump
}

fn provider_limits(limits: &ProviderLimits) -> Value {
    let mut dump = json!({ "concurrency": limits.concurrency, "max_cooldown": duration(limits.max_cooldown) });
    if let Some(rate) = limits.rate {
        dump["rate"] = rate.to_string().into();
        dump["burst"] = limits.burst.into();
    }
    dump
}

fn circuit_breaker(breaker: &CircuitBreaker) -> Value {
    let terms = &breaker.terms;
    let mut dump = json!({
        "failure_threshold": terms.failure_threshold,
        "failure_rate": number(terms.failure_rate),
        "window": duration(terms.window),
        "minimum_requests": terms.minimum_requests,
        "recovery_timeout": duration(terms.recovery_timeout),
        "max_recovery_timeout": duration(terms.max_recovery_timeout),
        "half_open_requests": terms.half_open_requests,
        "success_threshold": terms.success_threshold,
        "failures": breaker.failures.words(),
    });
    if let Some(longest) = breaker.slow_call {
        dump["slow_call"] = duration(longest).into();
    }
    dump
}

fn health_check(check: &HealthCheck) -> Value {
    let mut dump = json!({
        "path": check.path,
        "interval": duration(check.interval),
        "timeout": duration(check.timeout),
        "healthy_after": check.healthy_after,
        "unhealthy_after": check.unhealthy_after,
        "status": format!("{}-{}", check.status.start(), check.status.end()),
    });
    if let Some(host) = &check.host {
        dump["host"] = host.as_str().into();
    }
    dump
}

fn listener_tls(tls: &ListenerTls, path: &str, secrets: &mut Map<String, Value>) -> Value {
    let each = tls.certificates.iter().enumerate();
    let certificates = each.map(|(index, each)| certificate(each, &format!("{path}.certificates[{index}]"), secrets));
    let mut dump = json!({
        "certificates": certificates.collect::<Vec<_>>(),
        "min_version": match tls.min_version {
            TlsVersion::V12 => "1.2",
            TlsVersion::V13 => "1.3",
        },
        "handshake_timeout": duration(tls.handshake_timeout),
        "handshakes": tls.handshakes,
    });
    if let Some(ca) = &tls.client_ca {
        dump["client_ca"] = format!("sha256:{}", super::hash(ca)).into();
    }
    dump
}

/// Its path and the digest of what was read there; of the key only the path, and a fingerprint beside the settings.
fn certificate(certificate: &Certificate, path: &str, secrets: &mut Map<String, Value>) -> Value {
    let path = format!("{path}.key");
    secrets.insert(path.clone(), fingerprint(&path, certificate.key.expose()).into());
    json!({
        "cert": format!("{} sha256:{}", certificate.cert_path.display(), super::hash(&certificate.cert)),
        "key": certificate.key_path.display().to_string(),
    })
}

/// The certificates by their digest: that is what changes when the file does.
fn tls(tls: &ProviderTls, path: &str, secrets: &mut Map<String, Value>) -> Value {
    let mut dump = Map::new();
    if let Some(ca) = &tls.ca {
        dump.insert("ca".into(), format!("sha256:{}", super::hash(ca)).into());
    }
    if let Some(name) = &tls.server_name {
        dump.insert("server_name".into(), name.as_str().into());
    }
    if let Some(client) = &tls.client {
        dump.insert("client".into(), certificate(client, &format!("{path}.client"), secrets));
    }
    Value::Object(dump)
}

/// With the port left out where it is the scheme's own.
fn url(url: &ProviderUrl) -> String {
    let address = url.address.to_string();
    let standard = format!(":{}", url.scheme.default_port());
    match address.strip_suffix(&standard) {
        Some(host) if url.port().is_some() => format!("{}://{host}{}", url.scheme.as_str(), url.prefix),
        _ => url.to_string(),
    }
}

fn pool(pool: &Pool, config: &Config) -> Value {
    let balance = match &pool.balance {
        BalanceRule::ConsistentHash { by } => json!({ "consistent_hash": { "by": by.to_string() } }),
        rule => rule.as_str().into(),
    };
    json!({ "balance": balance, "providers": members(pool, config), "queue": queue(&pool.queue) })
}

/// By name alone where none of them says more, so that what a change changed can be told by name otherwise.
fn members(pool: &Pool, config: &Config) -> Value {
    let weighs = pool.balance != BalanceRule::RoundRobin;
    let is_plain = |member: &Member| !member.backup && (member.weight == 1 || !weighs);
    let named = pool.members.iter().filter_map(|member| Some((member, &*config.providers.get(member.provider)?.name)));
    if pool.members.iter().all(is_plain) {
        return named.map(|(_, name)| Value::from(name)).collect();
    }
    let dumps = named.map(|(member, name)| {
        let mut dump = json!({ "name": name, "backup": member.backup });
        if weighs {
            dump["weight"] = member.weight.into();
        }
        dump
    });
    dumps.collect()
}

fn queue(queue: &PoolQueue) -> Value {
    if queue.terms.capacity == 0 {
        return json!({ "capacity": 0 });
    }
    let weights = Class::ALL.map(|class| (class.as_str(), queue.terms.weights[class.index()].into()));
    let mut dump = json!({
        "capacity": queue.terms.capacity,
        "timeout": duration(queue.timeout),
        "weights": named(weights.into_iter()),
        "reserve_high": number(queue.terms.reserve_high),
    });
    if let Some(every) = queue.heartbeat {
        dump["heartbeat"] = duration(every).into();
    }
    dump
}

fn route(route: &Route, config: &Config, secrets: &mut Map<String, Value>) -> Value {
    let path = format!("routes[{}]", route.name);
    let mut dump = json!({ "name": &*route.name, "match": matches(&route.matches) });
    match &route.action {
        Action::Pool(index) => {
            dump["pool"] = pool_name(*index, config);
            dump["timeout"] = duration(route.timeout).into();
            dump["stream_timeout"] = duration(route.stream_timeout.unwrap_or_default()).into();
            dump["rewrite"] = rewrite(&route.rewrite, &format!("{path}.rewrite"), secrets);
            dump["class"] = class(&route.class);
            dump["retry"] = retry(&route.retry);
            if let Some(cache) = &route.cache {
                dump["cache"] = self::cache(cache);
            }
            if !route.degrade.is_empty() {
                let rungs = route.degrade.iter().enumerate();
                let rungs = rungs.map(|(at, each)| rung(each, config, &format!("{path}.degrade[{at}]"), secrets));
                dump["degrade"] = rungs.collect();
            }
        }
        Action::Respond { status, headers, body } => {
            let headers = fields(headers, &format!("{path}.respond.headers"), secrets);
            dump["respond"] = json!({ "status": status, "headers": headers, "body": String::from_utf8_lossy(body) });
        }
        Action::Redirect { to, status } => dump["redirect"] = json!({ "to": to, "status": status }),
    }
    dump
}

/// Without the bound on what no route keeps.
fn memory(config: &Config) -> Value {
    let mut dump = json!({ "buffers": size(config.memory.buffers as u64) });
    if config.routes.iter().any(|route| route.cache.is_some()) {
        dump["cache"] = size(config.memory.cache).into();
    }
    dump
}

fn cache(cache: &Cache) -> Value {
    json!({
        "ttl": duration(cache.rules.ttl.unwrap_or_default()),
        "stale_while_revalidate": duration(cache.rules.stale_while_revalidate),
        "stale_if_error": duration(cache.rules.stale_if_error),
        "max_object": size(cache.max_object),
        "post": cache.post,
    })
}

fn class(rule: &ClassRule) -> Value {
    match &rule.header {
        Some(header) => json!({ "default": rule.default.as_str(), "header": header }),
        None => rule.default.as_str().into(),
    }
}

/// Without what means nothing where a route has one attempt.
fn pool_name(index: usize, config: &Config) -> Value {
    config.pools.get(index).map_or(Value::Null, |pool| json!(&*pool.name))
}

fn rung(rung: &Rung, config: &Config, path: &str, secrets: &mut Map<String, Value>) -> Value {
    let rule = &rung.rule;
    let what = match &rung.what {
        Fallback::Pool(index) => pool_name(*index, config),
        Fallback::Reduced(what) => reduced(what, config, &format!("{path}.reduced"), secrets),
        Fallback::Stale => json!({ "max_age": duration(rule.max_age) }),
        Fallback::Static(answer) => static_answer(answer, &format!("{path}.static"), secrets),
    };
    let mut dump = json!({ rule.kind.as_str(): what });
    dump["on"] = rule.on.iter().map(Trigger::as_str).collect();
    if !rule.kind.asks() {
        dump["methods"] = match &rule.methods {
            Methods::These(methods) => json!(methods),
            Methods::All | Methods::Idempotent => json!("all"),
        };
    }
    if let Some(terms) = &rung.thresholds {
        dump["enter"] = levels(&terms.enter);
        dump["leave"] = levels(&terms.leave);
    }
    dump
}

fn reduced(reduced: &Reduced, config: &Config, path: &str, secrets: &mut Map<String, Value>) -> Value {
    let (headers, json) = (&reduced.headers, &reduced.json);
    let mut dump = json!({
        "set_headers": fields(headers.set(), &format!("{path}.set_headers"), secrets),
        "remove_headers": headers.remove(),
    });
    if let Some(index) = reduced.pool {
        dump["pool"] = pool_name(index, config);
    }
    if let Some(target) = &reduced.path {
        dump["path"] = json!(target);
    }
    if !json.is_empty() {
        let value = |text: &String| serde_json::from_str(text).unwrap_or(Value::Null);
        dump["json"] =
            json!({ "set": named(json.set.iter().map(|(name, text)| (&**name, value(text)))), "remove": json.remove });
    }
    dump
}

/// A file by its digest too: that is what changes when the file does.
fn static_answer(answer: &StaticAnswer, path: &str, secrets: &mut Map<String, Value>) -> Value {
    let headers = fields(&answer.headers, &format!("{path}.headers"), secrets);
    let mut dump = json!({ "status": answer.status, "headers": headers });
    match &answer.file {
        Some(file) => dump["file"] = format!("{} sha256:{}", file.display(), super::hash(&answer.body)).into(),
        None => dump["body"] = String::from_utf8_lossy(&answer.body).into(),
    }
    dump
}

fn levels(levels: &Levels) -> Value {
    let mut dump = Map::new();
    dump.extend(levels.queue.map(|level| ("queue".to_owned(), number(level))));
    dump.extend(levels.latency.map(|level| ("latency".to_owned(), duration(level).into())));
    dump.extend(levels.error_rate.map(|level| ("error_rate".to_owned(), number(level))));
    dump.into()
}

fn retry(retry: &Retry) -> Value {
    let mut dump = json!({
        "attempts": retry.attempts,
        "methods": match &retry.methods {
            Methods::Idempotent => json!("idempotent"),
            Methods::All => json!("all"),
            Methods::These(methods) => json!(methods),
        },
        "refused": retry.refused,
        "attempt_timeout": duration(retry.attempt_timeout),
        "replay_bytes": size(retry.replay_bytes as u64),
        "commit": match (retry.commit.bytes, retry.commit.within.is_zero()) {
            (0, _) => json!({ "bytes": "0B" }),
            (_, true) => json!({ "within": "0s" }),
            (bytes, false) => json!({ "bytes": size(bytes as u64), "within": duration(retry.commit.within) }),
        },
    });
    if retry.methods != Methods::All {
        dump["idempotency_key"] = retry.idempotency_key.into();
    }
    if retry.attempts == 1 {
        return dump;
    }
    let (backoff, budget) = (&retry.backoff, &retry.budget);
    dump["on"] = retry.on.words().into();
    dump["backoff"] = json!({
        "initial": duration(backoff.initial),
        "multiplier": number(backoff.multiplier),
        "max": duration(backoff.max),
        "jitter": match backoff.jitter {
            Jitter::Full => "full",
            Jitter::None => "none",
        },
    });
    dump["budget"] = json!({ "ratio": number(budget.ratio), "min_per_second": number(budget.min_per_second) });
    if let Some(hedge) = retry.hedge {
        dump["hedge"] = json!({ "after": hedge.after.to_string(), "budget": number(hedge.budget) });
    }
    dump
}

fn matches(matches: &Match) -> Value {
    let mut dump = json!({
        "hosts": matches.hosts.iter().map(host_pattern).collect::<Vec<_>>(),
        "path": match &matches.path {
            PathPattern::Exact(path) => path.clone(),
            PathPattern::Prefix(path) => format!("{path}/*"),
        },
    });
    if let Some(pattern) = &matches.path_regex {
        dump["path_regex"] = pattern.0.as_str().into();
    }
    if let Some(methods) = &matches.methods {
        dump["methods"] = json!(methods);
    }
    for (name, values) in [("headers", &matches.headers), ("query", &matches.query)] {
        if !values.is_empty() {
            dump[name] = named(values.iter().map(|(name, value)| (name.as_str(), value_match(value))));
        }
    }
    dump
}

fn host_pattern(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Any => "*".into(),
        HostPattern::Wildcard(rest) => format!("*{rest}"),
        HostPattern::Exact(name) => name.clone(),
    }
}

fn value_match(value: &ValueMatch) -> Value {
    match value {
        ValueMatch::Present => json!({ "present": true }),
        ValueMatch::Exact(text) => json!(text),
        ValueMatch::Regex(pattern) => json!({ "regex": pattern.0.as_str() }),
    }
}

fn rewrite(rewrite: &Rewrite, path: &str, secrets: &mut Map<String, Value>) -> Value {
    let mut dump = Map::new();
    for (name, prefix) in [("strip_prefix", &rewrite.strip_prefix), ("add_prefix", &rewrite.add_prefix)] {
        if let Some(prefix) = prefix {
            dump.insert(name.into(), prefix.as_str().into());
        }
    }
    for (name, rules) in [("headers", &rewrite.headers), ("response_headers", &rewrite.response_headers)] {
        dump.insert(name.into(), header_rules(rules, &format!("{path}.{name}"), secrets));
    }
    Value::Object(dump)
}

fn header_rules(rules: &HeaderRules, path: &str, secrets: &mut Map<String, Value>) -> Value {
    json!({ "set": fields(rules.set(), &format!("{path}.set"), secrets), "remove": rules.remove() })
}

fn fields(fields: &[(String, Secret)], path: &str, secrets: &mut Map<String, Value>) -> Value {
    named(fields.iter().map(|(name, value)| (name.as_str(), secret(value, &format!("{path}.{name}"), secrets))))
}

/// `***`, and a fingerprint beside the settings.
fn secret(secret: &Secret, path: &str, secrets: &mut Map<String, Value>) -> Value {
    secrets.insert(path.to_owned(), fingerprint(path, secret.expose().as_bytes()).into());
    MASK.into()
}

/// Masks the value that `pointer` leads to, or the one it ends in early. A way that is not there is left alone.
fn redact(dump: &mut Value, pointer: &str, secrets: &mut Map<String, Value>) {
    let mut value = dump;
    let mut path = String::new();
    for token in pointer.split('/').skip(1) {
        let key = token.replace("~1", "/").replace("~0", "~");
        value = match value {
            Value::Object(map) => match map.get_mut(&key) {
                Some(inner) => {
                    path = if path.is_empty() { key } else { format!("{path}.{key}") };
                    inner
                }
                None => return,
            },
            Value::Array(items) => match key.parse().ok().and_then(|index: usize| items.get_mut(index)) {
                Some(inner) => {
                    let label = inner.get("name").and_then(Value::as_str).map_or(key, ToOwned::to_owned);
                    path = format!("{path}[{label}]");
                    inner
                }
                None => return,
            },
            _ => break,
        };
    }
    let is_masked = value.as_str() == Some(MASK);
    if !is_masked && !value.is_object() && !value.is_array() {
        secrets.insert(path.clone(), fingerprint(&path, value.to_string().as_bytes()).into());
        *value = MASK.into();
    }
}

/// 32 bits that differ where the bytes do, under a key nobody knows.
fn fingerprint(path: &str, bytes: &[u8]) -> String {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    let hash = KEY.get_or_init(RandomState::new).hash_one((path, bytes));
    format!("{:08x}", hash as u32)
}

/// `2` and not `2.0`, as it is written.
fn number(value: f64) -> Value {
    value.to_string().parse().map_or(Value::Null, Value::Number)
}

/// `250ms`, `5s`, `1m`, `2h`: the largest unit that is exact.
pub(super) fn duration(span: Duration) -> String {
    let milliseconds = span.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    match units.iter().find(|(unit, _)| milliseconds.is_multiple_of(*unit) && (milliseconds > 0 || *unit == 1000)) {
        Some((unit, name)) => format!("{}{name}", milliseconds / unit),
        None => format!("{milliseconds}ms"),
    }
}

/// `64KiB`, `10MiB`: the largest unit that is exact; `0B` and odd bytes as they are.
pub(super) fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift)) {
        Some((shift, name)) => format!("{}{name}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}
