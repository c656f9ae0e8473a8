//! What only the whole shows: names written twice, settings that can have no effect, routes that nothing reaches.

use super::certificate::{self, Chain};
use super::conform::{At, Context};
use super::file::{Entry, Node};
use super::problem::{Span, shown};
use super::reader::Reader;
use super::scalar;
use super::types::{
    ANONYMOUS, Admin, BalanceRule, Bind, CACHE_PART, Cache, Fallback, HeaderRules, Hedge, HedgeAfter, HostPattern,
    Listener, Match, Memory, PathPattern, Pool, PoolQueue, Protocols, ProviderAddress, ProviderUrl, Retry, Rewrite,
    Route, Rung, Scheme, Token, ValueMatch,
};
use crate::policy::ladder::{Kind, Trigger};
use crate::policy::retry::{Methods, Why, Wrong};
use rustls::sign::SigningKey;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Something that was read, and where it stands.
pub(super) struct Placed<T> {
    pub(super) what: T,
    /// The part that says which requests or which address.
    pub(super) span: Span,
    /// Its name's value.
    pub(super) name: Span,
    /// Keys on the way there.
    pub(super) at: String,
    /// Its first and its last line, as far as they are told.
    pub(super) first: u32,
    pub(super) last: u32,
    /// Whether its name is known here.
    pub(super) known: bool,
    /// Whether all that it is compared by is known here.
    pub(super) comparable: bool,
}

/// What clients seen so far are known by.
#[derive(Default)]
pub(super) struct Callers {
    keys: HashMap<String, Span>,
    addresses: HashMap<(IpAddr, u8), Span>,
}

/// Tokens seen so far.
#[derive(Default)]
pub(super) struct Seen {
    names: HashMap<String, Span>,
    secrets: HashMap<String, Span>,
}

// === impl Seen ===

impl Seen {
    /// Reports a token that is empty, or whose name or text another has already.
    pub(super) fn token(&mut self, reader: &Reader<'_>, cx: &mut Context<'_>) {
        if let (Some(name), Some(entry)) = (reader.text("name"), reader.entry("name")) {
            match self.names.get(name) {
                Some(first) => twice("a token of this name", entry.node.span, *first, &reader.at, cx),
                None => drop(self.names.insert(name.to_owned(), entry.node.span)),
            }
        }
        let (Some(token), Some(entry)) = (reader.text("token"), reader.entry("token")) else { return };
        if token.is_empty() {
            let message = format!("{}: the token is empty", reader.at);
            cx.problem(entry.node.span, &reader.at, message, Some("write one, or remove it from the list".into()));
            return;
        }
        match self.secrets.get(token) {
            Some(first) => twice("this token", entry.node.span, *first, &reader.at, cx),
            None => drop(self.secrets.insert(token.to_owned(), entry.node.span)),
        }
    }
}

// === impl Callers ===

impl Callers {
    /// Reports what does not tell who a client is: nothing at all, an empty key, what another client has already.
    pub(super) fn look(&mut self, name: &str, reader: &Reader<'_>, cx: &mut Context<'_>) {
        let known_by = ["keys", "addresses"];
        if name == ANONYMOUS {
            for entry in known_by.into_iter().filter_map(|name| reader.entry(name)) {
                let message = format!("{}: `{}` cannot stand here", reader.at, entry.key);
                let help = "`anonymous` is whoever is no other client; give this one a name of its own".to_owned();
                cx.problem(entry.key_span, &reader.at, message, Some(help));
            }
        } else if reader.node.is_some() && !known_by.into_iter().any(|name| reader.has(name)) {
            let message = format!("{}: nothing tells who this client is", reader.at);
            cx.problem(reader.head, &reader.at, message, Some("write `keys` or `addresses`".into()));
        }
        let (keys, addresses) = (reader.at.key("keys"), reader.at.key("addresses"));
        for (index, node, key) in known_items(reader, "keys") {
            let at = keys.item(index);
            if key.is_empty() {
                let message = format!("{at}: the key is empty");
                cx.problem(node.span, &at, message, Some("write one, or remove it from the list".into()));
                continue;
            }
            let first = *self.keys.entry(key.to_owned()).or_insert(node.span);
            if first != node.span {
                twice("this key", node.span, first, &at, cx);
            }
        }
        for (index, node, range) in known_items(reader, "addresses") {
            let Ok(range) = scalar::cidr(range) else { continue };
            let first = *self.addresses.entry((range.address, range.bits)).or_insert(node.span);
            if first != node.span {
                twice("this range", node.span, first, &addresses.item(index), cx);
            }
        }
    }
}

/// The items of the list `name` that are known, with their places in it.
fn known_items<'a>(reader: &Reader<'a>, name: &str) -> impl Iterator<Item = (usize, &'a Node, &'a str)> + use<'a> {
    let known = |node: &'a Node| node.scalar().filter(|scalar| !scalar.is_unknown() && !scalar.is_null());
    let items = reader.items(name).iter().enumerate();
    items.filter_map(move |(index, node)| Some((index, node, &*known(node)?.text)))
}

fn twice(what: &str, span: Span, first: Span, at: &At<'_>, cx: &mut Context<'_>) {
    let help = format!("it stands on line {} already; each is unique", first.line);
    cx.problem(span, at, format!("{at}: {what} is written twice"), Some(help));
}

/// Names of listeners and addresses that two sockets want.
pub(super) fn addresses(top: &Reader<'_>, listeners: &[Placed<Arc<Listener>>], admin: &Admin, cx: &mut Context<'_>) {
    unique_names("listener", listeners.iter().map(|placed| (&*placed.what.name, placed)), cx);
    let mut taken: HashMap<&Bind, (String, u32)> = HashMap::new();
    for placed in listeners {
        let bind = &placed.what.bind;
        if bind.tcp().is_some_and(|address| address.port() == 0) {
            continue;
        }
        if let Some((_, line)) = taken.get(bind) {
            let other = if bind.tcp().is_some() { "port" } else { "path" };
            let help = format!("the listener on line {line} has it; choose another {other}");
            cx.report.add(placed.span, &*placed.at, format!("{}: this address is taken", placed.at), Some(help));
        } else {
            taken.insert(bind, (placed.at.clone(), placed.span.line));
        }
    }
    let Some((at, line)) = taken.get(&Bind::Tcp(admin.bind)) else { return };
    let section = top.child("admin");
    let (span, message) = if let Some(entry) = section.entry("bind") {
        (entry.node.span, format!("admin.bind: this address is taken by {at} on line {line}"))
    } else {
        let span = listeners.iter().find(|placed| placed.at == *at).map_or(Span::START, |placed| placed.span);
        (span, format!("{at}: this is the address of the admin listener"))
    };
    cx.report.add(span, "admin.bind", message, Some("choose another port for one of them".into()));
}

/// Reports each name that was there before.
pub(super) fn unique_names<'a, T: 'a>(
    what: &str,
    named: impl Iterator<Item = (&'a str, &'a Placed<T>)>,
    cx: &mut Context<'_>,
) {
    let mut first: HashMap<&str, u32> = HashMap::new();
    for (name, placed) in named.filter(|(_, placed)| placed.known) {
        if let Some(line) = first.get(name) {
            let help = format!("the {what} on line {line} has it; names are unique");
            cx.report.add(placed.name, &*placed.at, format!("{}: this name is taken", placed.at), Some(help));
        } else {
            first.insert(name, placed.name.line);
        }
    }
}

/// Reports what a list of scalars says twice.
pub(super) fn repeats(reader: &Reader<'_>, name: &'static str, cx: &mut Context<'_>) {
    let items = reader.items(name);
    if items.len() < 2 {
        return;
    }
    let mut seen: HashSet<String> = HashSet::new();
    let folds = matches!(name, "hosts" | "remove" | "remove_headers");
    for (index, node) in items.iter().enumerate() {
        let Some(scalar) = node.scalar().filter(|scalar| !scalar.is_unknown()) else { continue };
        let text = if folds { scalar.text.to_ascii_lowercase() } else { scalar.text.to_string() };
        if !seen.insert(text) {
            let list = reader.at.key(name);
            let at = list.item(index);
            cx.problem(node.span, &at, format!("{at}: this stands in the list already"), Some("remove it".into()));
        }
    }
}

/// Reports `name`, if it is written, as without effect.
pub(super) fn inert(reader: &Reader<'_>, name: &str, beside: &str, help: &str, cx: &mut Context<'_>) {
    let Some(entry) = reader.entry(name) else { return };
    let message = format!("{}: `{name}` has no effect {beside}", reader.at);
    cx.problem(entry.key_span, &reader.at.key(name), message, Some(help.into()));
}

/// Reports the value of `name`, if it is written.
fn refuse(reader: &Reader<'_>, name: &str, what: &str, help: &str, cx: &mut Context<'_>) {
    let Some(entry) = reader.entry(name) else { return };
    let at = reader.at.key(name);
    cx.problem(entry.node.span, &at, format!("{at}: {what}"), Some(help.into()));
}

/// Two durations of which the first may not be the longer.
pub(super) fn order(reader: &Reader<'_>, lesser: &str, greater: &str, cx: &mut Context<'_>) {
    let (low, high) = (reader.duration(lesser), reader.duration(greater));
    if low <= high || high.is_zero() {
        return; // That one may not be 0 was said already.
    }
    let unwritten = [lesser, greater].into_iter().find(|name| !reader.has(name));
    let (name, what) = match unwritten {
        Some(unwritten) if unwritten == lesser => (greater, format!("this is shorter than `{lesser}`")),
        _ => (lesser, format!("this is longer than `{greater}`")),
    };
    let help = match unwritten.and_then(|name| Some((name, reader.standard(name)?))) {
        Some((name, standard)) => format!("`{name}` is {standard} where it is not written; write it too"),
        None => "lower the one, or raise the other".to_owned(),
    };
    refuse(reader, name, &what, &help, cx);
}

/// Settings of a listener that have no effect, or do not go together.
pub(super) fn in_listener(reader: &Reader<'_>, listener: &Listener, cx: &mut Context<'_>) {
    let limits = reader.child("limits");
    if !listener.protocols.http2 {
        let help = "add `http2` there, or remove it";
        inert(&limits, "h2_streams", "without `http2` in `protocols`", help, cx);
    }
    // A bind that is not known here may be either.
    if reader.text("bind").is_none() {
        return;
    }
    match (&listener.bind, listener.proxy_protocol) {
        (Bind::Tcp(_), true) if reader.items("trusted_proxies").is_empty() => {
            let Some(entry) = reader.entry("proxy_protocol") else { return };
            let at = reader.at.key("proxy_protocol");
            let message = format!("{at}: nobody is trusted to send a PROXY header");
            let help = "list the proxies in front of this listener under `trusted_proxies`".to_owned();
            cx.problem(entry.node.span, &at, message, Some(help));
        }
        (Bind::Unix(_), false) => {
            let help = "its peers have no address; remove it";
            inert(&limits, "connections_per_address", "on a unix socket without `proxy_protocol`", help, cx);
        }
        _ => {}
    }
    proxies_elsewhere(reader, listener, cx);
}

/// Trusted proxies that can be no peer of a listener: `unix` at an address, addresses on a unix socket where nobody
/// announces any.
fn proxies_elsewhere(reader: &Reader<'_>, listener: &Listener, cx: &mut Context<'_>) {
    for (index, node) in reader.items("trusted_proxies").iter().enumerate() {
        let Some(scalar) = node.scalar().filter(|scalar| !scalar.is_unknown()) else { continue };
        let is_unix = *scalar.text == *scalar::UNIX;
        let (beside, help) = match (&listener.bind, listener.proxy_protocol) {
            (Bind::Tcp(_), _) if is_unix => {
                ("on a listener that is at an address", "remove it, or name the proxy's address")
            }
            (Bind::Unix(_), false) if !is_unix => (
                "on a unix socket without `proxy_protocol`",
                "its peers have no address; write `unix` to believe whoever may open the socket, or `proxy_protocol: true`",
            ),
            _ => continue,
        };
        let list = reader.at.key("trusted_proxies");
        let at = list.item(index);
        cx.problem(node.span, &at, format!("{at}: `{}` has no effect {beside}", scalar.text), Some(help.into()));
    }
}

/// An admin socket that others can reach without a token.
pub(super) fn public_admin(reader: &Reader<'_>, bind: SocketAddr, tokens: &[Token], cx: &mut Context<'_>) {
    if bind.ip().to_canonical().is_loopback() || !tokens.is_empty() {
        return;
    }
    let span = reader.entry("bind").map_or(reader.head, |entry| entry.node.span);
    let message = "admin.bind: an address that is not loopback needs a token".to_owned();
    let help = "set `token: ${SLUICE_ADMIN_TOKEN:?}` under `admin`, or bind 127.0.0.1".to_owned();
    cx.problem(span, &reader.at.key("bind"), message, Some(help));
}

/// `token` and `tokens` beside each other.
pub(super) fn token_or_tokens(reader: &Reader<'_>, some: bool, cx: &mut Context<'_>) {
    let single = reader.text("token").is_some_and(|text| !text.is_empty());
    if !some || !single || reader.items("tokens").is_empty() {
        return;
    }
    let span = reader.entry("tokens").map_or(reader.head, |entry| entry.key_span);
    let message = "admin: `token` and `tokens` contradict each other".to_owned();
    cx.problem(span, &reader.at, message, Some("move the one into the list, with `role: operate`".into()));
}

/// Settings of a provider that can have no effect. Looks only at what the provider itself says.
pub(super) fn inert_in_provider(own: &Reader<'_>, url: Option<&ProviderUrl>, speaks_http2: bool, cx: &mut Context<'_>) {
    if let Some(scheme) = url.map(|url| url.scheme).filter(|scheme| !scheme.is_tls()) {
        let article = if scheme == Scheme::Http { "an http" } else { "an h2c" };
        let on = format!("on {article}:// provider");
        inert(own, "tls", &on, "write `https://` in its `url`, or remove it", cx);
        inert(own, "protocols", &on, "its `url` says what is spoken: `http://` or `h2c://`; remove it", cx);
    }
    let connections = own.child("connections");
    if url.is_some() && !speaks_http2 {
        for name in ["streams", "ping"] {
            inert(&connections, name, "without HTTP/2", "it is about HTTP/2 connections; remove it", cx);
        }
    }
    if connections.text("idle") == Some("0") {
        for name in ["idle_timeout", "max_age"] {
            inert(&connections, name, "with `idle: 0`", "no connection is kept; remove it", cx);
        }
    }
}

/// A PROXY header and HTTP/2 towards the same provider: the header names the one client of a connection, and one of HTTP/2
/// is shared by many. HTTP/2 that only the default would offer is not offered; only where it is asked for is that told.
pub(super) fn announced_over_http2(
    reader: &Reader<'_>,
    own: &Reader<'_>,
    url: Option<&ProviderUrl>,
    protocols: Protocols,
    cx: &mut Context<'_>,
) {
    let Some(entry) = reader.entry("proxy_protocol").filter(|_| reader.text("proxy_protocol").is_some()) else {
        return;
    };
    let (what, help) = match url.map(|url| url.scheme) {
        Some(Scheme::H2c) => {
            ("an h2c:// provider", "write `http://` in its `url` if it speaks HTTP/1 too, or remove it")
        }
        Some(Scheme::Https) if !protocols.http1 || (protocols.http2 && own.has("protocols")) => {
            ("`http2` in `protocols`", "write `protocols: [http1]`, or remove it")
        }
        _ => return,
    };
    let at = reader.at.key("proxy_protocol");
    let message =
        format!("{at}: a PROXY header names one client, and does not go with {what}, whose connections many share");
    cx.problem(entry.node.span, &at, message, Some(help.into()));
}

/// Whether the address of a provider is a name; reports `discover` where it is none.
pub(super) fn has_name(own: &Reader<'_>, url: &ProviderUrl, cx: &mut Context<'_>) -> bool {
    let on = match &url.address {
        ProviderAddress::Unix(_) => "on a unix socket",
        ProviderAddress::Tcp { host, .. } if host.parse::<IpAddr>().is_ok() => "on an address",
        ProviderAddress::Tcp { .. } => return true,
    };
    inert(own, "discover", on, "its `url` has no name to look up; remove it", cx);
    false
}

/// A field for the deadline that is not ours to choose, or that `headers` is about as well.
pub(super) fn deadline_header(own: &Reader<'_>, name: Option<&str>, headers: &HeaderRules, cx: &mut Context<'_>) {
    let (Some(name), Some(entry)) = (name, own.entry("deadline_header")) else { return };
    framing(name, entry.node.span, &own.at.key("deadline_header"), "host:", cx);
    if headers.remove().iter().chain(headers.set().iter().map(|(name, _)| name)).any(|other| other == name) {
        refuse(own, "deadline_header", "`headers` sets or removes this field as well", "remove one of them", cx);
    }
}

/// Members that cannot be what they say: weights that nobody looks at, backups of nothing.
pub(super) fn in_pool(reader: &Reader<'_>, balance: &BalanceRule, cx: &mut Context<'_>) {
    let list = reader.at.key("providers");
    let members = reader.items("providers");
    for (index, member) in members.iter().enumerate().filter(|_| *balance == BalanceRule::RoundRobin) {
        let Some(weight) = member.entry("weight") else { continue };
        let at = list.item(index);
        let message = format!("{at}: `weight` has no effect with `balance: round_robin`");
        let help = "write `balance: weighted`, or remove it".to_owned();
        cx.problem(weight.key_span, &at.key("weight"), message, Some(help));
    }
    let is_backup = |member: &Node| {
        let scalar = member.get("backup").and_then(Node::scalar).filter(|scalar| !scalar.is_unknown());
        scalar.is_some_and(|scalar| scalar::boolean(&scalar.text) == Ok(true))
    };
    if !members.is_empty() && members.iter().all(is_backup) {
        refuse(reader, "providers", "every member is a backup", "leave `backup` out of at least one", cx);
    }
}

/// Settings of a queue that have no effect, or that leave no place.
pub(super) fn in_queue(own: &Reader<'_>, queue: &PoolQueue, cx: &mut Context<'_>) {
    if queue.terms.capacity == 0 {
        for name in ["timeout", "weights", "reserve_high", "heartbeat"] {
            inert(own, name, "with `capacity: 0`", "nobody waits; remove it", cx);
        }
        return;
    }
    if queue.terms.reserve_high >= 1.0 {
        refuse(own, "reserve_high", "no place is left for `normal` and `low`", "write less, such as `0.1`", cx);
    }
    if queue.heartbeat.is_some_and(|every| every >= queue.timeout) {
        inert(own, "heartbeat", "where the `timeout` comes first", "write less, or raise `timeout`", cx);
    }
}

/// A way for an attempt to end that another in the list includes; any other fault was told already.
pub(super) fn condition(reader: &Reader<'_>, name: &'static str, wrong: Wrong, cx: &mut Context<'_>) {
    let Some((index, node, _)) = known_items(reader, name).nth(wrong.at).filter(|_| wrong.why == Why::Repeated) else {
        return;
    };
    let list = reader.at.key(name);
    let at = list.item(index);
    cx.problem(node.span, &at, format!("{at}: {}", wrong.why), Some("remove it".into()));
}

/// Settings of a route's `retry` that have no effect, or contradict another. Looks only at what the route itself says.
pub(super) fn in_retry(own: &Reader<'_>, retry: &Retry, timeout: Duration, memory: &Memory, cx: &mut Context<'_>) {
    if retry.attempts == 1 {
        for name in ["on", "backoff", "budget", "hedge"] {
            inert(own, name, "with `attempts: 1`", "nothing is tried again; remove it, or raise `attempts`", cx);
        }
        return;
    }
    for (index, node, status) in known_items(own, "refused") {
        if status.parse().is_ok_and(|status| status >= 400 && !retry.on.statuses.has(status)) {
            let list = own.at.key("refused");
            let at = list.item(index);
            let message = format!("{at}: this has no effect, it is not in `on`");
            cx.problem(node.span, &at, message, Some("add it there, or remove it here".into()));
        }
    }
    if retry.methods == Methods::All {
        inert(own, "idempotency_key", "with `methods: all`", "all may be sent again; remove it", cx);
    }
    if own.text("attempt_timeout").is_some() && own.duration("attempt_timeout") > timeout {
        let help = "the shorter of two timeouts counts; write less, or raise `timeout`";
        refuse(own, "attempt_timeout", "this is longer than the `timeout` of the route", help, cx);
    }
    if retry.budget.ratio == 0.0 && retry.budget.min_per_second == 0.0 {
        refuse(own, "budget", "this leaves no retry", "write `attempts: 1` instead, or raise `min_per_second`", cx);
    }
    let is_late = |hedge: Hedge| matches!(hedge.after, HedgeAfter::Time(after) if after >= retry.attempt_timeout);
    if retry.hedge.is_some_and(is_late) {
        let what = "the attempt is over by then";
        refuse(&own.child("hedge"), "after", what, "write less than `attempt_timeout`", cx);
    }
    if retry.replay_bytes > memory.buffers {
        let help = "write less, or raise `buffers`";
        refuse(own, "replay_bytes", "this is more than all bodies may take: `memory.buffers`", help, cx);
    }
    let commit = own.child("commit");
    if retry.commit.bytes == 0 {
        inert(&commit, "within", "with `bytes: 0`", "no answer is held; remove it", cx);
    } else if retry.commit.within.is_zero() {
        inert(&commit, "bytes", "with `within: 0s`", "no answer is held; remove it", cx);
    }
}

/// A route's `cache` that has no effect, or a setting of it. Looks only at what the route itself says, but for the methods.
pub(super) fn in_cache(
    own: &Reader<'_>,
    whole: &Reader<'_>,
    cache: &Cache,
    matches: &Match,
    memory: &Memory,
    cx: &mut Context<'_>,
) {
    if memory.cache == 0 {
        inert(
            own,
            "cache",
            "with `memory: { cache: 0 }`",
            "there is no room to keep anything; raise it, or remove this",
            cx,
        );
        return;
    }
    let takes = |method: &str| matches.methods.as_ref().is_none_or(|all| all.iter().any(|one| one == method));
    let (reads, posts) = (takes("GET") || takes("HEAD"), takes("POST"));
    let any = reads || (cache.post && posts);
    if !any {
        inert(own, "cache", "where `match.methods` has neither GET nor HEAD", "nothing else is kept; remove it", cx);
        return;
    }
    let own = own.child("cache");
    if cache.post && !posts {
        inert(&own, "post", "where `match.methods` has no POST", "remove it", cx);
    }
    if own.has("max_object") && whole.size("max_object") > memory.cache / CACHE_PART {
        let help = "write less, or raise `memory.cache`";
        refuse(
            &own,
            "max_object",
            "this is more than a sixteenth of `memory.cache`, which is all one may take",
            help,
            cx,
        );
    }
}

/// Memory for what no route keeps.
pub(super) fn unused_cache(top: &Reader<'_>, routes: &[Placed<Arc<Route>>], cx: &mut Context<'_>) {
    if routes.iter().all(|route| route.what.cache.is_none()) {
        inert(&top.child("memory"), "cache", "where no route has `cache`", "nothing is kept; remove it", cx);
    }
}

/// Settings of a route that can have no effect. Looks only at what the route itself says.
pub(super) fn inert_in_route(own: &Reader<'_>, whole: &Reader<'_>, cx: &mut Context<'_>) {
    if whole.has("pool") {
        return;
    }
    let Some(action) = ["respond", "redirect"].into_iter().find(|name| whole.has(name)) else { return };
    for name in ["timeout", "stream_timeout", "rewrite", "class", "retry", "cache", "degrade"] {
        inert(own, name, &format!("beside `{action}`"), "no provider is asked; remove it", cx);
    }
}

/// What a rung does: one thing.
pub(super) fn one_fallback(reader: &Reader<'_>, cx: &mut Context<'_>) -> Option<Kind> {
    let mut written = Kind::ALL.into_iter().filter_map(|kind| Some((kind, reader.entry(kind.as_str())?)));
    let Some((kind, first)) = written.next() else {
        let message = format!("{}: the rung does nothing", reader.at);
        cx.problem(reader.head, &reader.at, message, Some("write `pool`, `reduced`, `stale` or `static`".into()));
        return None;
    };
    if let Some((_, second)) = written.next() {
        let message = format!("{}: `{}` and `{}` contradict each other", reader.at, first.key, second.key);
        let help = "a rung does one thing; make two of it".to_owned();
        cx.problem(second.key_span, &reader.at, message, Some(help));
    }
    Some(kind)
}

/// Settings of a rung that have no effect, or contradict another, in a route whose own pool is `main`.
pub(super) fn in_rung(reader: &Reader<'_>, rung: &Rung, main: usize, caches: bool, cx: &mut Context<'_>) {
    let asks = rung.rule.kind.asks();
    if asks {
        inert(reader, "methods", "on a rung that asks a provider", "`retry.methods` says it; remove it", cx);
    }
    for (index, node, word) in known_items(reader, "on") {
        let Some(trigger) = Trigger::parse(word) else { continue };
        let same_pool = rung.rule.kind == Kind::Reduced && rung.what.pool().is_none();
        let (what, help) = match trigger {
            Trigger::Deadline if asks => {
                ("no time is left to ask a provider", "remove it, or write it on a `stale` or `static` rung")
            }
            Trigger::NoProvider | Trigger::QueueFull | Trigger::QueueTimeout if same_pool => {
                ("the same pool would say the same again", "remove it, or name another `pool` in `reduced`")
            }
            _ => continue,
        };
        let list = reader.at.key("on");
        let at = list.item(index);
        cx.problem(node.span, &at, format!("{at}: {what}"), Some(help.into()));
    }
    let is_main = rung.what.pool() == Some(main);
    match &rung.what {
        // A pool that is not known here may be any.
        Fallback::Pool(_) if is_main && reader.text("pool").is_some() => {
            refuse(
                reader,
                "pool",
                "this is the route's own pool",
                "name another; `retry` is for asking this one again",
                cx,
            );
        }
        Fallback::Reduced(reduced) => {
            let (section, path) = (reader.child("reduced"), reader.at.key("reduced"));
            if is_main && section.text("pool").is_some() {
                refuse(&section, "pool", "this is the route's own pool", "it is asked anyway; remove it", cx);
            }
            let changes = !reduced.headers.is_empty() || reduced.path.is_some() || !reduced.json.is_empty();
            if section.node.is_some() && !changes {
                let message = format!("{path}: nothing of the request is reduced");
                let help = "write `set_headers`, `remove_headers`, `path` or `json`; another pool alone is `pool:`";
                cx.problem(section.head, &path, message, Some(help.into()));
            }
            json_twice(&section.child("json"), cx);
        }
        Fallback::Stale if !caches => {
            let help = "write `cache` in the route, or remove the rung";
            inert(reader, "stale", "without `cache`", help, cx);
        }
        Fallback::Static(_) => {
            let section = reader.child("static");
            if let Some(entry) = section.entry("file").filter(|_| section.has("body")) {
                let message = format!("{}: `body` and `file` contradict each other", section.at);
                cx.problem(entry.key_span, &section.at, message, Some("keep one of them".into()));
            }
        }
        Fallback::Pool(_) | Fallback::Stale => {}
    }
}

/// A field of JSON that is both set and removed.
fn json_twice(reader: &Reader<'_>, cx: &mut Context<'_>) {
    for (index, node, name) in known_items(reader, "remove") {
        if reader.entries("set").iter().any(|entry| &*entry.key == name) {
            let list = reader.at.key("remove");
            let at = list.item(index);
            let message = format!("{at}: {} is both set and removed", shown(name));
            cx.problem(node.span, &at, message, Some("`set` replaces the field; remove it here".into()));
        }
    }
}

/// A rung to which no request comes: `above` has answers that are always there for all that it is for.
pub(super) fn below(reader: &Reader<'_>, above: &[Rung], rung: &Rung, cx: &mut Context<'_>) {
    let takes_all = |other: &Rung| {
        let methods = match (&other.rule.methods, &rung.rule.methods) {
            (Methods::All, _) => true,
            (mine, Methods::These(these)) if !rung.rule.kind.asks() => these.iter().all(|method| mine.allow(method)),
            _ => false,
        };
        other.rule.kind == Kind::Static && methods && other.rule.on.include(rung.rule.on)
    };
    let known = |name| known_items(reader, name).count() == reader.items(name).len();
    // Where thresholds put the route on a rung, it begins there.
    if rung.thresholds.is_none() && known("on") && known("methods") && above.iter().any(takes_all) {
        let message = format!("{}: no request comes to this rung", reader.at);
        let help = "the `static` rung before it answers all that this one could; write this one first".to_owned();
        cx.problem(reader.head, &reader.at, message, Some(help));
    }
}

/// Levels that mean nothing, or that have no room between them.
pub(super) fn levels(reader: &Reader<'_>, cx: &mut Context<'_>) {
    let (enter, leave) = (reader.child("enter"), reader.child("leave"));
    if !reader.has("enter") {
        return inert(reader, "leave", "without `enter`", "write `enter` beside it, or remove it", cx);
    }
    if enter.node.is_some_and(|node| node.entries().is_some_and(<[Entry]>::is_empty)) {
        let message = format!("{}: nothing says when", enter.at);
        cx.problem(enter.head, &enter.at, message, Some("write `queue`, `latency` or `error_rate`".into()));
    }
    for name in ["queue", "latency", "error_rate"] {
        if !enter.has(name) {
            let help = format!("write `{name}` in `enter` too, or remove it");
            inert(&leave, name, "without the same in `enter`", &help, cx);
            continue;
        }
        let is_time = name == "latency";
        let known = enter.text(name).is_some() && leave.text(name).is_some();
        let apart =
            if is_time { leave.duration(name) < enter.duration(name) } else { leave.number(name) < enter.number(name) };
        if known && !apart {
            let help = "what lies between keeps the route from going to and fro; write less";
            refuse(&leave, name, &format!("this is not below `enter.{name}`"), help, cx);
        }
    }
}

/// A `strip_prefix` that no path of the route begins with.
pub(super) fn strip_prefix(reader: &Reader<'_>, matches: &Match, rewrite: &Rewrite, cx: &mut Context<'_>) {
    let Some(strip) = &rewrite.strip_prefix else { return };
    let fits = match &matches.path {
        PathPattern::Exact(path) => is_below(path, strip),
        PathPattern::Prefix(prefix) => is_below(prefix, strip) || is_below(strip, prefix),
    };
    if fits {
        return;
    }
    let section = reader.child("rewrite");
    let Some(entry) = section.entry("strip_prefix") else { return };
    let message = format!("{}: no path of this route begins with the prefix", section.at.key("strip_prefix"));
    let help = "write the front of `match.path`, or remove it".to_owned();
    cx.problem(entry.node.span, &section.at.key("strip_prefix"), message, Some(help));
}

/// Whether `path` is `prefix` or lies below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A name that metrics use for something else.
pub(super) fn reserved_name(reader: &Reader<'_>, cx: &mut Context<'_>) {
    let Some(entry) = reader.entry("name").filter(|_| reader.text("name") == Some("none")) else { return };
    let at = reader.at.key("name");
    let message = format!("{at}: `none` is what metrics call a request without a route");
    cx.problem(entry.node.span, &at, message, Some("choose another name".into()));
}

/// A name that every route would have.
pub(super) fn no_default_name(defaults: &Reader<'_>, cx: &mut Context<'_>) {
    let route = defaults.child("route");
    let Some(entry) = route.entry("name") else { return };
    let message = format!("{}: a default cannot give every route the same name", route.at.key("name"));
    cx.problem(entry.key_span, &route.at.key("name"), message, Some("remove it".into()));
}

/// Fields that belong to the connection and not to the operator.
pub(super) fn framing(name: &str, span: Span, at: &At<'_>, host: &str, cx: &mut Context<'_>) {
    let help = if name == "host" && !host.is_empty() {
        format!("choose what a provider sees with {host}").replace("with host:", "with `host:`")
    } else if FRAMING.contains(&name) {
        "Sluice frames every message itself; remove it".to_owned()
    } else {
        return;
    };
    cx.problem(span, at, format!("{at}: {} cannot be set or removed", shown(name)), Some(help));
}

/// The same field under two spellings.
pub(super) fn field_twice(
    seen: &mut HashMap<String, Span>,
    name: &str,
    entry: &Entry,
    at: &At<'_>,
    cx: &mut Context<'_>,
) {
    let Some(first) = seen.insert(name.to_owned(), entry.key_span) else { return };
    // The very same spelling was reported when the file was read.
    if first != entry.key_span {
        let help = format!("it stands on line {} already; names are compared without regard to case", first.line);
        cx.problem(entry.key_span, at, format!("{at}: this field is written twice"), Some(help));
    }
}

/// A body where the status allows none.
pub(super) fn answer(reader: &Reader<'_>, cx: &mut Context<'_>) {
    let without = matches!(reader.text("status"), Some("204" | "205" | "304"));
    let body = reader.entry("body").filter(|_| reader.text("body") != Some("")).or_else(|| reader.entry("file"));
    let Some(entry) = body.filter(|_| without) else { return };
    let message = format!("{}: an answer of this status has no body", reader.at);
    cx.problem(entry.key_span, &reader.at.key("body"), message, Some("remove it, or choose another status".into()));
}

/// A certificate and a key that are not a pair.
pub(super) fn pair(reader: &Reader<'_>, chain: &Chain, key: Arc<dyn SigningKey>, cx: &mut Context<'_>) {
    let Err(wrong) = certificate::belongs(chain, key) else { return };
    let span = reader.entry("key").map_or(reader.head, |entry| entry.node.span);
    cx.problem(span, &reader.at, format!("{}: {}", reader.at, wrong.what), Some(wrong.help));
}

/// Certificates of the file that `name` names which have expired, or are from the future: legal, and soon noticed.
pub(super) fn out_of_time(reader: &Reader<'_>, name: &str, chain: &Chain, cx: &mut Context<'_>) {
    let Some(entry) = reader.entry(name) else { return };
    let at = reader.at.key(name);
    for what in certificate::out_of_time(chain, cx.env.now()) {
        cx.report.note(entry.node.span, at.to_string(), format!("{at}: {what}"), Some("renew it".into()));
    }
}

/// What the certificates of one listener are for: nothing at all, or what another is for.
#[derive(Default)]
pub(super) struct CertificateNames {
    seen: HashMap<(String, String), u32>,
}

impl CertificateNames {
    /// Notes what is odd about the names of one more certificate.
    pub(super) fn look(&mut self, reader: &Reader<'_>, chain: &Chain, cx: &mut Context<'_>) {
        let Some(entry) = reader.entry("cert") else { return };
        let at = reader.at.key("cert");
        let (names, kind) = certificate::names(chain);
        if names.is_empty() {
            let message = format!("{at}: the certificate names no host");
            let help = "clients look only at its subjectAltName, and refuse it".to_owned();
            cx.report.note(entry.node.span, at.to_string(), message, Some(help));
        }
        let line = entry.node.span.line;
        for name in names {
            let first = *self.seen.entry((name.clone(), kind.clone())).or_insert(line);
            // Once for each certificate: the next names say the same.
            if first != line {
                let message = format!("{at}: the certificate on line {first} is for {} as well", shown(&name));
                let help = "both have the same kind of key, so the first is shown".to_owned();
                cx.report.note(entry.node.span, at.to_string(), message, Some(help));
                return;
            }
        }
    }
}

/// Pools that no route sends to, and providers in no pool: legal, and worth a word.
pub(super) fn unused(top: &Reader<'_>, pools: &[Pool], routes: &[Placed<Arc<Route>>], cx: &mut Context<'_>) {
    let mut pool_used = vec![false; pools.len()];
    for index in routes.iter().flat_map(|route| route.what.pools()) {
        if let Some(used) = pool_used.get_mut(index) {
            *used = true;
        }
    }
    for (entry, _) in top.entries("pools").iter().zip(&pool_used).filter(|(_, used)| !**used) {
        let message = format!("no route sends to the pool {}", shown(&entry.key));
        cx.report.note(entry.key_span, format!("pools.{}", entry.key), message, None);
    }
    let mut provider_used = vec![false; top.entries("providers").len()];
    for member in pools.iter().flat_map(|pool| &pool.members) {
        if let Some(used) = provider_used.get_mut(member.provider) {
            *used = true;
        }
    }
    for (entry, _) in top.entries("providers").iter().zip(&provider_used).filter(|(_, used)| !**used) {
        let message = format!("no pool has the provider {}", shown(&entry.key));
        cx.report.note(entry.key_span, format!("providers.{}", entry.key), message, None);
    }
}

/// Routes, or methods and hosts of routes, that an earlier route of the same weight takes away whole.
pub(super) fn reachable(routes: &[Placed<Arc<Route>>], cx: &mut Context<'_>) {
    let mut kinds: HashMap<String, usize> = HashMap::new();
    let mut taken: HashMap<(usize, &HostPattern, &str), usize> = HashMap::new();
    let mut pairs = 0;
    let wrong = cx.report.lines();
    for (index, placed) in routes.iter().enumerate() {
        // A route that is not what its author meant, or not known, says nothing about others.
        let next = wrong.get(wrong.partition_point(|&line| line < placed.first));
        if !placed.comparable || next.is_some_and(|&line| line <= placed.last) {
            continue;
        }
        let matches = &placed.what.matches;
        let hosts = &matches.hosts;
        let methods = methods_of(matches);
        pairs += hosts.len() * methods.len();
        if pairs > PAIRS_MAX {
            return;
        }
        let next = kinds.len();
        let rest = *kinds.entry(predicates(matches)).or_insert(next);
        let mut lost: Vec<(&HostPattern, &str, usize)> = Vec::new();
        for host in hosts {
            for method in &methods {
                let earlier = *taken.entry((rest, host, method)).or_insert(index);
                if earlier != index {
                    lost.push((host, method, earlier));
                }
            }
        }
        if let Some(&(host, method, earlier)) = lost.first() {
            let all = lost.len() == hosts.len() * methods.len();
            unreachable_route(placed, &routes[earlier], (!all).then_some((host, method)), cx);
        }
    }
}

fn unreachable_route(
    placed: &Placed<Arc<Route>>,
    earlier: &Placed<Arc<Route>>,
    part: Option<(&HostPattern, &str)>,
    cx: &mut Context<'_>,
) {
    let at = &placed.at;
    let message = match part {
        None => format!("{at}: this route can never be reached"),
        Some((_, "*")) => format!("{at}: one of its hosts never reaches this route"),
        Some((_, method)) => format!("{at}: {method} never reaches this route"),
    };
    let line = earlier.name.line;
    let help = format!("the route on line {line} matches the same requests and stands before it");
    cx.report.add(placed.span, &**at, message, Some(help));
}

/// The methods of a route; `*` where it takes any.
fn methods_of(matches: &Match) -> Vec<&str> {
    match &matches.methods {
        Some(methods) => methods.iter().map(String::as_str).collect(),
        None => vec!["*"],
    }
}

/// All of a match but hosts and methods, as text that is equal where the predicates are.
fn predicates(matches: &Match) -> String {
    let mut text = match &matches.path {
        PathPattern::Exact(path) => format!("={path}"),
        PathPattern::Prefix(path) => format!("^{path}"),
    };
    if let Some(regex) = &matches.path_regex {
        let _ = write!(text, "\0~{}", regex.0.as_str());
    }
    for (kind, values) in [('h', &matches.headers), ('q', &matches.query)] {
        let mut values: Vec<String> = values.iter().map(|(name, value)| predicate(kind, name, value)).collect();
        values.sort_unstable();
        text.extend(values);
    }
    text
}

fn predicate(kind: char, name: &str, value: &ValueMatch) -> String {
    match value {
        ValueMatch::Present => format!("\0{kind}{name}?"),
        ValueMatch::Exact(text) => format!("\0{kind}{name}={text}"),
        ValueMatch::Regex(regex) => format!("\0{kind}{name}~{}", regex.0.as_str()),
    }
}

/// Fields that say how a message is framed or whose connection it is.
const FRAMING: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "proxy-connection",
];
/// Pairs of host and method that are compared; a file beyond it is not told about unreachable routes.
const PAIRS_MAX: usize = 4_000_000;
