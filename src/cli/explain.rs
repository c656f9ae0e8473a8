//! `sluice explain`: what would happen to a request, without sending it.
//!
//! Nothing here knows the rules. The arguments are written as the head of a request, and that head is read, checked,
//! routed and rewritten by the functions the proxy itself uses; this file only says in words what they answered. So it
//! cannot drift away from what the gateway does.
//!
//! What belongs to one listener (its limits, the peers it trusts) is left out: the client is taken to be a stranger.
//! Values of fields that the configuration sets are never shown, nor is anything that came from `${…}`.

use crate::config::{self, Action, Config, Environment, Fallback, HostPattern, PathPattern};
use crate::http1::fields::Fields;
use crate::http1::framing::Length;
use crate::http1::head::{HeadError, RequestHead, Scan};
use crate::policy::ladder::Trigger;
use crate::policy::retry::{Ended, Methods};
use crate::proxy::client::{Caller, Clients};
use crate::proxy::forward::{self, Onward};
use crate::proxy::frame::{self, Request};
use crate::proxy::identity::{Identity, Peer};
use crate::proxy::respond::{Answer, Refusal, Refused};
use crate::proxy::rewrite;
use crate::proxy::route::{Asked, Considered, Found, Routes};
use clap::Args;
use serde_json::Value;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// The request to explain.
#[derive(Debug, Args)]
pub struct Explain {
    /// GET, POST, …
    method: String,
    /// `http://host/path?query`, or only `/path?query`, which is asked of the host `localhost`
    url: String,
    /// A field of the request, as `name: value`; may be given more than once. A `Host` replaces that of the URL
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
}

/// The lines for people: a label, then what is to be said.
#[derive(Debug)]
struct Page {
    text: String,
    colour: bool,
}

/// A request and the configuration it meets.
struct Case<'a> {
    request: &'a Request<'a>,
    asked: Asked<'a>,
    config: &'a Config,
    /// The configuration as it may be shown.
    shown: Value,
}

/// Explains `request` to `out`. Returns the exit code: 0, or 1 where the configuration or the request is not valid or `out`
/// takes no more.
pub fn explain(request: &Explain, path: &Path, env: &dyn Environment, out: &mut dyn Write) -> i32 {
    write(request, path, env, out, super::colours())
}

fn write(request: &Explain, path: &Path, env: &dyn Environment, out: &mut dyn Write, colour: bool) -> i32 {
    let told = match config::load(path, env) {
        Ok(loaded) => tell(request, &loaded.config, colour),
        Err(problems) => Err(problems.to_string()),
    };
    let (text, code) = match told {
        Ok(text) => (text, 0),
        Err(text) => (text, 1),
    };
    match out.write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => 1,
        _ => code,
    }
}

/// The whole explanation; the error is one too, of a request that is not valid.
fn tell(explain: &Explain, config: &Config, colour: bool) -> Result<String, String> {
    let mut page = Page { text: String::new(), colour };
    let bytes = explain.head().map_err(|why| format!("sluice explain: {why}\n"))?;
    let mut head = RequestHead::default();
    if let Err(why) = read(&mut head, bytes.as_bytes(), explain.headers.len() + 1) {
        page.headline(&format!("{} {}", explain.method, explain.url));
        page.line("answer", &format!("{} {}: {why}", Refusal::BadRequest.status(), Refusal::BadRequest.reason()));
        return Err(page.text);
    }
    let mut scratch = String::new();
    match frame::check(&head, &mut scratch) {
        Ok(request) => {
            page.headline(&format!("{} {} for host {}", request.method, explain.target(), request.host));
            Case::new(&request, config).tell(&mut page);
            Ok(page.text)
        }
        Err(invalid) => {
            page.headline(&format!("{} {}", explain.method, explain.url));
            page.refusal(&Refused::invalid(invalid));
            if invalid == frame::Invalid::Method { Ok(page.text) } else { Err(page.text) }
        }
    }
}

/// Reads a head the way a connection does.
fn read(head: &mut RequestHead, bytes: &[u8], fields_max: usize) -> Result<(), &'static str> {
    let found =
        Scan::default().find(bytes).and_then(|end| head.parse(&bytes[..end.unwrap_or(bytes.len())], fields_max));
    found.map_err(|error| match error {
        HeadError::Malformed(why) => why,
        HeadError::TooManyFields => "it has too many fields",
    })
}

// === impl Explain ===

impl Explain {
    /// The head that a client would send for these arguments.
    fn head(&self) -> Result<String, String> {
        if [&self.method, &self.url].into_iter().chain(&self.headers).any(|text| text.contains(['\r', '\n'])) {
            return Err("an argument holds a line break; a request's head is one line for each field".into());
        }
        if let Some(field) = self.headers.iter().find(|field| !field.contains(':')) {
            // Not repeated: what was meant as a value may be a credential.
            let place = self.headers.iter().take_while(|other| !std::ptr::eq(*other, field)).count() + 1;
            return Err(format!("-H number {place} has no colon; write -H 'name: value'"));
        }
        if [&self.method, &self.url].iter().any(|text| text.contains(' ')) {
            return Err("a method and a URL hold no space; write %20 for one".into());
        }
        let is_host = |field: &String| field.split(':').next().is_some_and(|name| name.eq_ignore_ascii_case("host"));
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target());
        if !self.headers.iter().any(is_host) {
            head.extend(["Host: ", self.authority()?, "\r\n"]);
        }
        for field in &self.headers {
            head.extend([field, "\r\n"]);
        }
        head.push_str("\r\n");
        Ok(head)
    }

    /// The URL without its scheme, if it has one.
    fn after_scheme(&self) -> Option<&str> {
        self.url.strip_prefix("http://").or_else(|| self.url.strip_prefix("https://"))
    }

    /// What a client puts into the request line: the URL from its path on.
    fn target(&self) -> String {
        let Some(rest) = self.after_scheme() else { return self.url.clone() };
        match rest.find(['/', '?']).map(|at| &rest[at..]) {
            Some(target) if target.starts_with('/') => target.to_owned(),
            Some(query) => format!("/{query}"),
            None => "/".to_owned(),
        }
    }

    /// What a client puts into `Host`.
    fn authority(&self) -> Result<&str, String> {
        match self.after_scheme() {
            Some(rest) => Ok(rest.split(['/', '?']).next().unwrap_or_default()),
            None if self.url.starts_with('/') || self.url == "*" => Ok("localhost"),
            None => Err(format!("`{}` is no URL; write http://host/path, or /path alone", self.url)),
        }
    }
}

// === impl Case ===

impl<'a> Case<'a> {
    fn new(request: &'a Request<'a>, config: &'a Config) -> Self {
        Case { request, asked: request.asked(), config, shown: config::effective(config) }
    }

    fn tell(&self, page: &mut Page) {
        let written = self.request.head.target().split(|byte| *byte == b'?').next();
        if written != Some(self.request.path.as_bytes()) {
            page.line("path", &format!("{}, normalised", self.request.path));
        }
        let index = Routes::compile(&self.config.routes);
        let considered = index.candidates(&self.asked);
        match index.find(&self.asked) {
            Found::Route(number) => self.route(number, &considered, page),
            found => {
                page.refusal(&Refused::unrouted(found));
                let mut near: Vec<_> = considered.iter().filter_map(|other| self.why_not(other)).collect();
                near.extend(self.near_misses(&index, &considered));
                page.list("nearest", &near);
            }
        }
    }

    /// The route that takes the request, those asked before it and after it, and what it does.
    fn route(&self, number: usize, considered: &[Considered], page: &mut Page) {
        let route = &self.config.routes[number];
        page.line("route", &format!("{} ({})", route.name, self.matches(number)));
        let at = considered.iter().position(|other| other.route == number).unwrap_or(0);
        let (before, after) = considered.split_at(at);
        let said = |some: &[Considered]| some.iter().filter_map(|other| self.why_not(other)).collect::<Vec<_>>();
        page.list("before it", &said(before));
        page.list("after it", &said(after));
        match &route.action {
            Action::Respond { status, headers, body } => {
                let answer = Answer::configured(*status, headers, body);
                page.line("answer", &format!("{status} of the gateway's own, {} bytes", body.len()));
                page.names("  sets", field_names(&answer.fields));
            }
            Action::Redirect { to, status } => {
                let request = self.request;
                let location = rewrite::location(to, &request.host, request.path, request.query);
                page.line("answer", &format!("{status} of the gateway's own"));
                page.line(
                    "location",
                    if is_masked(&self.shown["routes"][number]["redirect"]["to"]) { MASK } else { &location },
                );
            }
            Action::Pool(pool) => self.pool(number, *pool, page),
        }
    }

    fn pool(&self, number: usize, pool: usize, page: &mut Page) {
        let (route, shown) = (&self.config.routes[number], &self.shown["routes"][number]);
        let pool = &self.config.pools[pool];
        let peer = stranger();
        let clients = Clients::new(&self.config.clients);
        let caller = clients.identify(self.request, &route.class, &peer, &[]);
        let shown_pool = &self.shown["pools"][&*pool.name];
        let by = match &pool.balance {
            config::BalanceRule::ConsistentHash { by } => format!("consistent_hash of {by}"),
            rule => rule.as_str().to_owned(),
        };
        let balance = known(&shown_pool["balance"], by);
        let chosen = if pool.members.len() > 1 { format!(", by {balance}") } else { String::new() };
        page.line("pool", &format!("{}{chosen}", pool.name));
        let members: Vec<_> = pool.members.iter().zip(0..).map(|(member, at)| self.member(pool, member, at)).collect();
        page.list("members", &members);
        if route.cache.is_some() {
            page.line("cache", &self.cache(&shown["cache"]));
        }
        page.line("queue", &self.queue(shown, shown_pool, &caller));
        let attempts = caller.attempts.map_or(route.retry.attempts, |own| own.min(route.retry.attempts));
        page.line("attempts", &known(&shown["retry"]["attempts"], format!("at most {attempts}")));
        if attempts > 1 {
            page.line("again", &format!("after {}", plain(&shown["retry"]["on"])));
            page.line("  method", &self.twice(&route.retry, &shown["retry"]));
            if route.retry.hedge.is_some() {
                page.line("hedge", &self.hedge(&shown["retry"]["hedge"]));
            }
        }
        let stream = match route.stream_timeout {
            Some(_) => format!("; then {} for the stream", text(&shown["stream_timeout"])),
            None => "; then only idle timeouts".to_owned(),
        };
        page.line("timeout", &format!("{} until the answer begins{stream}", text(&shown["timeout"])));
        let rungs: Vec<_> = (0..route.degrade.len()).map(|at| self.rung(route, at, &shown["degrade"][at])).collect();
        page.list("ladder", &rungs);
        if route.degrade.iter().any(|rung| rung.rule.kind.asks()) {
            page.line("", "the last fifth of the timeout is kept for those that ask a provider");
        }
        if self.request.upgrade {
            page.line("upgrade", "asked for; if the provider answers 101, bytes pass both ways");
        }
        let back = &route.rewrite.response_headers;
        if !back.set().is_empty() || !back.remove().is_empty() {
            page.line("way back", "");
            page.names("  sets", back.set().iter().map(|(name, _)| name.clone()));
            page.names("  removes", back.remove().iter().cloned());
        }
        for member in &pool.members {
            self.provider(number, self.config.provider(member.provider), page);
        }
    }

    /// One member of a pool, the one at `at`.
    fn member(&self, pool: &config::Pool, member: &config::Member, at: usize) -> String {
        let provider = self.config.provider(member.provider);
        let shown = &self.shown["pools"][&*pool.name]["providers"][at];
        let mut said = provider.name.to_string();
        if provider.discover_dns {
            said.push_str(", each address of its name");
        }
        if !shown["weight"].is_null() {
            said.extend([", weight ", &plain(&shown["weight"])]);
        }
        if is_masked(&shown["backup"]) {
            said.extend([", backup ", MASK]);
        } else if member.backup {
            said.push_str(", backup");
        }
        said
    }

    /// How the request would wait where no member has room.
    fn queue(&self, route: &Value, pool: &Value, caller: &Caller<'_>) -> String {
        let (class, queue, client) = (&route["class"], &pool["queue"], &*caller.client.name);
        let hints = [class, &class["default"], &class["header"], &self.shown["clients"][client]["max_class"]];
        let class = if hints.into_iter().any(is_masked) { MASK } else { caller.class.as_str() };
        let waits = match queue["timeout"].as_str() {
            Some(timeout) => format!("{} places, at most {timeout}", plain(&queue["capacity"])),
            None => "it does not wait".to_owned(),
        };
        let heartbeat =
            queue["heartbeat"].as_str().map(|every| format!("; a comment every {every} to an event stream"));
        format!("class {class}, as {client}; {waits}{}", heartbeat.unwrap_or_default())
    }

    /// Whether its answer is kept, and what kept ones are good for.
    fn cache(&self, shown: &Value) -> String {
        let bodiless = matches!(self.request.length, Length::None | Length::Exact(0));
        match self.request.method {
            "GET" | "HEAD" if bodiless => {}
            "GET" | "HEAD" => return "not asked: the request has a body".to_owned(),
            "POST" if is_masked(&shown["post"]) => return MASK.to_owned(),
            "POST" if shown["post"] == true => {}
            method => return format!("not asked: {method}; what is kept of this URL is forgotten once it is answered"),
        }
        let ttl = match shown["ttl"].as_str() {
            Some(ttl) if ttl != "0s" => format!("{ttl} where the answer does not say"),
            _ => "a tenth of its age where the answer does not say".to_owned(),
        };
        let stale = |name: &str| plain(&shown[name]);
        let (revalidated, errors) = (stale("stale_while_revalidate"), stale("stale_if_error"));
        format!(
            "asked first; fresh for {ttl}; then {revalidated} more while a provider is asked, {errors} in place of an error"
        )
    }

    /// After what kind of failure a request with this method may be sent once more.
    fn twice(&self, retry: &config::Retry, shown: &Value) -> String {
        let method = self.request.method;
        if [&shown["methods"], &shown["idempotency_key"]].into_iter().any(is_masked) {
            return MASK.to_owned();
        }
        if retry.methods.allow(method) {
            return format!("{method} may be sent twice");
        }
        if retry.idempotency_key && self.request.head.fields.named(b"idempotency-key").next().is_some() {
            return format!("{method} may be sent twice, for its Idempotency-Key");
        }
        let harmless = retry.on.words().contains(&"connect".to_owned()).then(|| "connect".to_owned());
        let refused = retry.refused.iter().zip(0..).filter(|(status, _)| retry.on.include(Ended::Status(**status)));
        let refused = refused.map(|(_, at)| plain(&shown["refused"][at]));
        let harmless: Vec<String> = harmless.into_iter().chain(refused).collect();
        match &harmless[..] {
            [] => format!("{method} may not be sent twice"),
            some => format!("{method} may not be sent twice; only after {} it goes elsewhere", some.join(", ")),
        }
    }

    /// The rung at `at` of a route's ladder: what it does, whether for this request, when.
    fn rung(&self, route: &config::Route, at: usize, shown: &Value) -> String {
        let (rung, method) = (&route.degrade[at], self.request.method);
        let mut said = match &rung.what {
            Fallback::Pool(_) => format!("pool {}", plain(&shown["pool"])),
            Fallback::Reduced(_) => reduced(&shown["reduced"]),
            Fallback::Stale => format!("stale, until {} after it expired", plain(&shown["stale"]["max_age"])),
            Fallback::Static(answer) => {
                format!("static {}, {} bytes", plain(&shown["static"]["status"]), answer.body.len())
            }
        };
        let rule = &rung.rule;
        if rule.kind.asks() && !route.retry.methods.allow(method) {
            said.extend([", for ", method, " where nobody can have acted on it"]);
        } else if !rule.kind.asks() && !rule.methods.allow(method) {
            said.extend([", not for ", method]);
        }
        let whatever = Trigger::ALL.iter().all(|trigger| rule.on.has(*trigger));
        let on = if whatever { "any failure".to_owned() } else { plain(&shown["on"]) };
        said.extend(["; after ", &on]);
        if let Some(levels) = shown["enter"].as_object() {
            let level = |(name, level): (&String, &Value)| format!("{name} {}", plain(level));
            let levels: Vec<String> = levels.iter().map(level).collect();
            said.extend(["; at once from ", &levels.join(" or ")]);
        }
        said
    }

    /// When it gets a second attempt while the first is under way.
    fn hedge(&self, shown: &Value) -> String {
        if !Methods::Idempotent.allow(self.request.method) {
            return format!("none: {} is not idempotent", self.request.method);
        }
        let (after, budget) = (plain(&shown["after"]), plain(&shown["budget"]));
        format!("a second attempt after {after}, for at most {budget} of the requests")
    }

    /// What one provider would see.
    fn provider(&self, number: usize, provider: &config::Provider, page: &mut Page) {
        let shown = &self.shown["providers"][&*provider.name];
        let route = &self.config.routes[number];
        page.text.push('\n');
        page.line("provider", &format!("{} {}", provider.name, text(&shown["url"])));
        let sent = self.sent(&route.rewrite, provider);
        page.line("  sends", &format!("{} {}", self.request.method, self.target(number, shown, &sent)));
        let host = sent.fields.named(b"host").next().map(String::from_utf8_lossy).unwrap_or_default();
        let secret = is_masked(&shown["host"]) || (shown["host"] == "upstream" && is_masked(&shown["url"]));
        page.line("  host", if secret { MASK } else { &host });
        let rules = [&route.rewrite.headers, &provider.headers];
        let added: Vec<String> =
            rules.iter().flat_map(|rules| rules.set().iter().map(|(name, _)| name.clone())).collect();
        let removed: Vec<String> = rules.iter().flat_map(|rules| rules.remove().iter().cloned()).collect();
        let ours = |name: &String| !added.contains(name) && !removed.contains(name) && name != "host";
        page.names("  sets", added.iter().cloned());
        page.names("  removes", removed.iter().cloned());
        page.names("  drops", difference(&self.request.head.fields, &sent.fields, false).into_iter().filter(ours));
        page.names("  writes", difference(&sent.fields, &self.request.head.fields, true).into_iter().filter(ours));
        let limit = |phase| format!("{phase} {}", text(&shown["timeouts"][phase]));
        page.line("  timeouts", &["connect", "first_byte", "idle"].map(limit).join(", "));
    }

    /// The head that the provider would receive, read back.
    fn sent(&self, rewrite: &config::Rewrite, provider: &config::Provider) -> RequestHead {
        let peer = stranger();
        let identity = Identity::new(&self.request.head.fields, false, (0, 0));
        let mut bytes = Vec::new();
        let request = self.request;
        forward::request_head(
            &mut bytes,
            &Onward {
                request,
                rewrite,
                provider,
                peer: &peer,
                identity: &identity,
                key_fields: [None; 2],
                left: Duration::ZERO,
                plain: false,
            },
        );
        let mut head = RequestHead::default();
        let fields = memchr::memchr_iter(b'\n', &bytes).count();
        // What the proxy writes can be read; were it not so, an empty head would be shown.
        let _: Result<(), &str> = read(&mut head, &bytes, fields);
        head
    }

    /// The target a provider sees, unless a part of it may not be shown.
    fn target(&self, number: usize, provider: &Value, sent: &RequestHead) -> String {
        let rewrite = &self.shown["routes"][number]["rewrite"];
        let parts = [&provider["url"], &rewrite["strip_prefix"], &rewrite["add_prefix"]];
        if parts.into_iter().any(is_masked) {
            MASK.to_owned()
        } else {
            String::from_utf8_lossy(sent.target()).into_owned()
        }
    }

    /// A route's `match` in a few words.
    fn matches(&self, number: usize) -> String {
        let shown = &self.shown["routes"][number]["match"];
        let mut said = vec![format!("host {}", listed(&shown["hosts"])), format!("path {}", text(&shown["path"]))];
        said.extend(shown.get("path_regex").map(|pattern| format!("path_regex {}", text(pattern))));
        said.extend(shown.get("methods").map(listed).map(|methods| format!("methods {methods}")));
        for (key, what) in [("headers", "header"), ("query", "query parameter")] {
            let names = shown.get(key).and_then(Value::as_object).into_iter().flat_map(|map| map.keys());
            said.extend(names.map(|name| format!("{what} {name}")));
        }
        said.join("; ")
    }

    /// A route that was asked, and why it does not take the request.
    fn why_not(&self, other: &Considered) -> Option<String> {
        let why = other.why_not.as_deref()?;
        let inside = format!("/routes/{}/match/", other.route);
        let secret = self.config.redacted.iter().any(|pointer| pointer.starts_with(&inside));
        let why = if secret { "its `match` holds a value from `${…}`, which is not shown" } else { why };
        Some(format!("{}: {why}", self.config.routes[other.route].name))
    }

    /// Routes that would have been asked with another host, then those with a path like this one.
    fn near_misses(&self, index: &Routes, considered: &[Considered]) -> Vec<String> {
        let takes = |asked: &Asked<'_>, number| index.candidates(asked).iter().any(|other| other.route == number);
        let (mut hosts, mut paths) = (Vec::new(), Vec::new());
        for (number, route) in self.config.routes.iter().enumerate() {
            if considered.iter().any(|other| other.route == number) {
                continue;
            }
            let shown = &self.shown["routes"][number]["match"];
            let (PathPattern::Exact(path) | PathPattern::Prefix(path)) = &route.matches.path;
            let alike = alike(path, self.asked.path);
            if takes(&Asked { host: &a_host(&route.matches.hosts), ..self.asked }, number) {
                hosts.push(format!("{}: its host is {}", route.name, listed(&shown["hosts"])));
            } else if alike > 1 && takes(&Asked { path, ..self.asked }, number) {
                paths.push((alike, format!("{}: its path is {}", route.name, text(&shown["path"]))));
            }
        }
        paths.sort_by_key(|(alike, _)| std::cmp::Reverse(*alike));
        hosts.into_iter().chain(paths.into_iter().map(|(_, said)| said)).collect()
    }
}

// === impl Page ===

impl Page {
    fn headline(&mut self, text: &str) {
        let (on, off) = if self.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.text.extend([on, text, off, "\n\n"]);
    }

    fn line(&mut self, label: &str, said: &str) {
        let (on, off) = if self.colour { ("\x1b[36m", "\x1b[0m") } else { ("", "") };
        let line = format!("{on}{label:LABEL_WIDTH$}{off}{said}");
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// One line each, under one label; nothing where there is nothing.
    fn list(&mut self, label: &str, said: &[String]) {
        for (place, said) in said.iter().take(LISTED_MAX).enumerate() {
            self.line(if place == 0 { label } else { "" }, said);
        }
        if said.len() > LISTED_MAX {
            self.line("", &format!("and {} more", said.len() - LISTED_MAX));
        }
    }

    /// Names in one line; nothing where there are none.
    fn names(&mut self, label: &str, names: impl Iterator<Item = String>) {
        let mut once: Vec<String> = Vec::new();
        for name in names {
            if !once.contains(&name) {
                once.push(name);
            }
        }
        if !once.is_empty() {
            self.line(label, &once.join(", "));
        }
    }

    fn refusal(&mut self, refused: &Refused) {
        self.line("answer", &format!("{} {}: {}", refused.refusal.status(), refused.refusal.reason(), refused.detail));
        if let Some(allow) = &refused.allow {
            self.line("allow", allow);
        }
    }
}

/// Names, in lower case, of the fields of `some` that `others` does not have; or does not have with that value.
fn difference(some: &Fields, others: &Fields, by_value: bool) -> Vec<String> {
    let missing = |(_, name, value): &(_, &[u8], &[u8])| {
        let mut namesakes = others.named(name);
        !namesakes.any(|other| !by_value || other == *value)
    };
    some.iter().filter(missing).map(|(_, name, _)| String::from_utf8_lossy(name).to_lowercase()).collect()
}

/// What a `reduced` rung changes, by names alone.
fn reduced(shown: &Value) -> String {
    let names = |what: &str, of: &Value| {
        let names: Vec<&str> = match of {
            Value::Object(map) => map.keys().map(String::as_str).collect(),
            other => other.as_array().into_iter().flatten().map(text).collect(),
        };
        (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")))
    };
    let json = &shown["json"];
    let path = shown.get("path").map(|path| format!("asks for {}", plain(path)));
    let pool = shown.get("pool").map(|pool| format!("in pool {}", plain(pool)));
    let parts = [
        path,
        names("sets", &shown["set_headers"]),
        names("removes", &shown["remove_headers"]),
        names("sets in the JSON", &json["set"]),
        names("removes from the JSON", &json["remove"]),
        pool,
    ];
    format!("reduced: {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// The names of field lines.
fn field_names(lines: &[u8]) -> impl Iterator<Item = String> {
    let name = |line: &[u8]| {
        String::from_utf8_lossy(line.split(|byte| *byte == b':').next().unwrap_or_default()).to_lowercase()
    };
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(name)
}

/// A host that the first of the patterns takes.
fn a_host(patterns: &[HostPattern]) -> String {
    match patterns.first() {
        Some(HostPattern::Exact(name)) => name.clone(),
        Some(HostPattern::Wildcard(suffix)) => format!("any{suffix}"),
        Some(HostPattern::Any) | None => String::new(),
    }
}

/// How many characters two paths begin alike with.
fn alike(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count()
}

/// Who is taken to send the request.
fn stranger() -> Peer {
    Peer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "http")
}

/// The value, unless it may not be shown.
fn known(shown: &Value, value: String) -> String {
    if is_masked(shown) { MASK.to_owned() } else { value }
}

/// A value of the shown configuration in one line.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn listed(values: &Value) -> String {
    values.as_array().map(|values| values.iter().map(text).collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

fn is_masked(value: &Value) -> bool {
    value == MASK
}

/// How the shown configuration writes what it hides.
const MASK: &str = "***";

/// Columns of a label.
const LABEL_WIDTH: usize = 12;

/// Routes listed under one label; the rest is counted.
const LISTED_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
listeners: [{ name: web, bind: "127.0.0.1:0" }]
providers:
  alpha:
    url: http://127.0.0.1:9001/v1
    headers: { set: { authorization: "Bearer hunter2" }, remove: [cookie] }
  beta: { url: "http://beta.example", host: preserve, timeouts: { first_byte: 20s } }
  hidden: { url: "http://${HOST_NAME}/token" }
pools:
  main: { providers: [alpha, beta] }
  secret: { providers: [hidden] }
routes:
  - { name: vip, match: { path: "/api/*", headers: { x-vip: "yes" } }, pool: secret }
  - name: api
    match: { path: "/api/*", methods: [GET, POST] }
    pool: main
    timeout: 10s
    rewrite: { strip_prefix: /api, headers: { set: { x-edge: hunter2 } }, response_headers: { remove: [server] } }
  - { name: shop, match: { hosts: [shop.example.com], path: /cart }, respond: { body: hi, headers: { x-a: hunter2 } } }
  - { name: old, match: { path: "/old/*" }, redirect: { to: "https://{host}/api{query}" } }
  - { name: hidden, match: { path: /hidden }, pool: secret }
  - { name: keyed, match: { path: /keyed, headers: { x-key: "${HOST_NAME}" } }, respond: {} }
"#;

    struct OneVariable;

    impl Environment for OneVariable {
        fn var(&self, name: &str) -> Option<String> {
            (name == "HOST_NAME").then(|| "unseen.example".to_owned())
        }

        fn read_file(&self, _path: &Path) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn run(file: &str, method: &str, url: &str, headers: &[&str], colour: bool) -> (i32, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gateway.yaml");
        std::fs::write(&path, file).expect("writable");
        let headers = headers.iter().map(|&header| header.to_owned()).collect();
        let request = Explain { method: method.to_owned(), url: url.to_owned(), headers };
        let mut out = Vec::new();
        let code = write(&request, &path, &OneVariable, &mut out, colour);
        let text = String::from_utf8(out).expect("text");
        assert!(!text.contains("hunter2") && !text.contains("unseen"), "a secret shows:\n{text}");
        (code, text.replace(&folder.path().display().to_string(), "DIR"))
    }

    fn said(method: &str, url: &str, headers: &[&str]) -> (i32, String) {
        run(FILE, method, url, headers, false)
    }

    #[test]
    fn a_route_to_a_pool_is_told_with_what_each_provider_would_see() {
        let fields = ["Cookie: a", "X-Forwarded-For: forged", "Connection: close, X-Hop", "X-Hop: 1"];
        let (code, text) = said("GET", "http://a.example/api/../api/x?q=1", &fields);
        assert_eq!(
            text,
            "\
GET /api/../api/x?q=1 for host a.example

path        /api/x, normalised
route       api (host *; path /api/*; methods GET, POST)
before it   vip: header `x-vip` is not `yes`
pool        main, by least_connections
members     alpha
            beta
queue       class normal, as anonymous; 1000 places, at most 5s
attempts    at most 3
again       after connect, reset, timeout, 429, 502, 503, 504
  method    GET may be sent twice
timeout     10s until the answer begins; then only idle timeouts
way back
  removes   server

provider    alpha http://127.0.0.1:9001/v1
  sends     GET /v1/x?q=1
  host      127.0.0.1:9001
  sets      x-edge, authorization
  removes   cookie
  drops     connection, x-hop
  writes    x-forwarded-for, x-forwarded-host, x-forwarded-proto, forwarded, x-request-id, traceparent, via
  timeouts  connect 2s, first_byte 10s, idle 1m

provider    beta http://beta.example
  sends     GET /x?q=1
  host      a.example
  sets      x-edge
  drops     connection, x-hop
  writes    x-forwarded-for, x-forwarded-host, x-forwarded-proto, forwarded, x-request-id, traceparent, via
  timeouts  connect 2s, first_byte 20s, idle 1m
"
        );
        assert_eq!(code, 0);
    }

    #[test]
    fn the_ladder_of_a_route_is_told_rung_by_rung() {
        let file = "
listeners: [{ name: web, bind: \"127.0.0.1:0\" }]
providers: { alpha: { url: \"http://127.0.0.1:9001\" }, spare: { url: \"http://127.0.0.1:9002\" } }
pools: { main: { providers: [alpha] }, last_resort: { providers: [spare] } }
routes:
  - name: api
    pool: main
    degrade:
      - pool: last_resort
      - reduced: { set_headers: { x-mode: hunter2 }, path: /lite, json: { set: { model: small }, remove: [tools] } }
        enter: { queue: 0.8, latency: 2s }
      - static: { status: 503, headers: { x-secret: hunter2 }, body: sorry }
        on: [queue_full, deadline]
      - static: { body: \"${HOST_NAME}\" }
        methods: all
";
        let ladder = |method| {
            let (_, text) = run(file, method, "/x", &[], false);
            let start = text.find("\nladder ").expect("a ladder") + 1;
            text[start..=text.find("\n\nprovider ").expect("a provider")].to_owned()
        };
        assert_eq!(
            ladder("GET"),
            "\
ladder      pool last_resort; after no_provider, queue_full, queue_timeout, attempts_exhausted
            reduced: asks for /lite, sets x-mode, sets in the JSON model, removes from the JSON tools; after attempts_exhausted; at once from queue 0.8 or latency 2s
            static 503, 5 bytes; after queue_full, deadline
            static 200, 14 bytes; after any failure
            the last fifth of the timeout is kept for those that ask a provider
"
        );
        let posted = ladder("POST");
        let said: Vec<&str> = posted.lines().filter_map(|line| line.split("; after").next()).collect();
        assert_eq!(said[0], "ladder      pool last_resort, for POST where nobody can have acted on it");
        assert_eq!(said[2], "            static 503, 5 bytes, not for POST");
        assert_eq!(said[3], "            static 200, 14 bytes");
    }

    #[test]
    fn what_a_pool_does_with_a_request_is_told_before_what_a_provider_sees() {
        let file = "
listeners: [{ name: web, bind: \"127.0.0.1:0\" }]
clients: { batch: { keys: [hunter2], max_class: low } }
providers:
  alpha: { url: \"http://alpha.example\", discover: dns }
  beta: { url: \"http://127.0.0.1:9001\" }
pools:
  main: { balance: weighted, providers: [{ name: alpha, weight: 3 }, { name: beta, backup: true }] }
  sticky: { balance: { consistent_hash: { by: \"cookie:user\" } }, providers: [alpha, beta], queue: { heartbeat: 2s } }
  narrow: { providers: [beta], queue: { capacity: 0 } }
routes:
  - { name: api, match: { path: \"/api/*\" }, pool: main, class: high, retry: { on: [connect, 429, 503], idempotency_key: true } }
  - { name: hedged, match: { path: /hedged }, pool: sticky, retry: { hedge: { after: 200ms } } }
  - { name: all, match: { path: \"/*\" }, pool: narrow, retry: { attempts: 1 } }
";
        let of_pool = |method: &str, url: &str, headers: &[&str]| {
            let (_, text) = run(file, method, url, headers, false);
            let start = text.find("\npool ").expect("a pool") + 1;
            text[start..=text.find("\ntimeout ").expect("a timeout")].to_owned()
        };
        assert_eq!(
            of_pool("POST", "/api/x", &["Authorization: Bearer hunter2", "Sluice-Attempts: 2"]),
            "\
pool        main, by weighted
members     alpha, each address of its name, weight 3
            beta, weight 1, backup
queue       class low, as batch; 1000 places, at most 5s
attempts    at most 2
again       after connect, 429, 503
  method    POST may not be sent twice; only after connect, 429 it goes elsewhere
"
        );
        let keyed = of_pool("POST", "/api/x", &["Idempotency-Key: 1", "Priority: u=0"]);
        assert!(keyed.contains("\nqueue       class normal, as anonymous; 1000 places"), "{keyed}");
        assert!(keyed.ends_with("  method    POST may be sent twice, for its Idempotency-Key\n"), "{keyed}");
        let hedged = of_pool("GET", "/hedged", &[]);
        assert!(hedged.starts_with("pool        sticky, by consistent_hash of cookie:user\n"), "{hedged}");
        assert!(hedged.contains(" at most 5s; a comment every 2s to an event stream\n"), "{hedged}");
        let hedge = "\nhedge       a second attempt after 200ms, for at most 0.05 of the requests\n";
        assert!(hedged.ends_with(hedge), "{hedged}");
        assert!(of_pool("POST", "/hedged", &[]).ends_with("\nhedge       none: POST is not idempotent\n"));
        assert_eq!(
            of_pool("GET", "/", &[]),
            "\
pool        narrow
members     beta
queue       class normal, as anonymous; it does not wait
attempts    at most 1
"
        );
    }

    #[test]
    fn what_a_cache_does_with_a_request_is_told() {
        let file = "
listeners: [{ name: web, bind: \"127.0.0.1:0\" }]
providers: { alpha: { url: \"http://127.0.0.1:9001\" } }
pools: { main: { providers: [alpha] } }
routes:
  - { name: posts, match: { path: /posts }, pool: main, cache: { ttl: 0s, post: true } }
  - { name: all, match: { path: \"/*\" }, pool: main, cache: { stale_if_error: \"${HOURS}\" } }
";
        let of_cache = |method: &str, url: &str, headers: &[&str]| {
            let (_, text) = run(&file.replace("${HOURS}", "2h"), method, url, headers, false);
            text.lines().find_map(|line| line.strip_prefix("cache       ")).map(ToOwned::to_owned)
        };
        let told = "asked first; fresh for 1m where the answer does not say; then 30s more while a provider is asked, 2h in \
                    place of an error";
        assert_eq!(of_cache("GET", "/", &[]).as_deref(), Some(told));
        let told = "asked first; fresh for a tenth of its age where the answer does not say; then 30s more while a provider is \
                    asked, 1h in place of an error";
        assert_eq!(of_cache("POST", "/posts", &[]).as_deref(), Some(told));
        let told = "not asked: PUT; what is kept of this URL is forgotten once it is answered";
        assert_eq!(of_cache("PUT", "/", &[]).as_deref(), Some(told));
        let told = "not asked: the request has a body";
        assert_eq!(of_cache("GET", "/", &["Content-Length: 3"]).as_deref(), Some(told));
    }

    #[test]
    fn the_gateways_own_answers_are_told_without_their_values() {
        let (_, text) = said("GET", "https://shop.example.com/cart", &[]);
        assert_eq!(
            text,
            "\
GET /cart for host shop.example.com

route       shop (host shop.example.com; path /cart)
answer      200 of the gateway's own, 2 bytes
  sets      content-type, x-a
"
        );
        let (_, text) = said("GET", "/old/x?y=z", &["Host: b.example"]);
        assert_eq!(
            text,
            "\
GET /old/x?y=z for host b.example

route       old (host *; path /old/*)
answer      308 of the gateway's own
location    https://b.example/api?y=z
"
        );
    }

    #[test]
    fn a_request_that_no_route_takes_is_told_what_comes_near() {
        let (code, text) = said("GET", "/cart", &[]);
        assert_eq!(
            text,
            "\
GET /cart for host localhost

answer      404 no_route: No route takes this host and path.
nearest     shop: its host is shop.example.com
"
        );
        assert_eq!(code, 0);
        assert!(said("GET", "/oldest", &[]).1.ends_with("\nnearest     old: its path is /old/*\n"));
        assert!(said("GET", "/zzz", &[]).1.ends_with("No route takes this host and path.\n"));
    }

    #[test]
    fn long_lists_are_cut_and_counted() {
        let route = |number| {
            format!("  - {{ name: r{number}, match: {{ path: /x/{number}, methods: [GET] }}, respond: {{}} }}\n")
        };
        let routes: String = (0..20).map(route).collect();
        let file = format!("listeners: [{{ name: web, bind: \"127.0.0.1:0\" }}]\nroutes:\n{routes}");
        let (_, text) = run(&file, "GET", "/x/none", &[], false);
        assert_eq!(text.matches("its path is /x/").count(), LISTED_MAX, "{text}");
        assert!(text.ends_with("\n            and 12 more\n"), "{text}");
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let (code, text) = said("PUT", "/api/x", &[]);
        assert_eq!(
            text,
            "\
PUT /api/x for host localhost

answer      405 wrong_method: Here the methods are GET, HEAD, POST.
allow       GET, HEAD, POST
nearest     vip: header `x-vip` is not `yes`
            api: the method is PUT, it takes GET, HEAD, POST
"
        );
        assert_eq!(code, 0);
        let (code, text) = said("TRACE", "/api/x", &[]);
        assert!(
            text.contains("answer      405 wrong_method: This gateway does not take CONNECT or TRACE.\n"),
            "{text}"
        );
        assert_eq!(code, 0);
    }

    #[test]
    fn a_request_that_is_not_valid_is_told_why_and_exits_with_1() {
        for (method, url, fields, why) in [
            ("GET", "/a", &["Host: a", "Host: b"][..], "The request is not valid: Host is given more than once."),
            ("GET", "/../a", &[], "The request is not valid: the path leaves the root."),
            ("G@T", "/a", &[], "the request line is not `METHOD target HTTP/1.1`"),
            ("GET", "/a", &["a b: c"], "a field name is not a token, or has space before its colon"),
        ] {
            let (code, text) = said(method, url, fields);
            assert_eq!(text, format!("{method} {url}\n\nanswer      400 bad_request: {why}\n"));
            assert_eq!(code, 1);
        }
    }

    #[test]
    fn arguments_that_make_no_request_say_what_to_write() {
        let wrong = |url, fields: &[&str]| said("GET", url, fields);
        let no_url = "sluice explain: `a.example/x` is no URL; write http://host/path, or /path alone\n";
        assert_eq!(wrong("a.example/x", &[]), (1, no_url.to_owned()));
        let no_colon = "sluice explain: -H number 2 has no colon; write -H 'name: value'\n";
        assert_eq!(wrong("/x", &["a: b", "hunter2"]), (1, no_colon.to_owned()));
        assert!(wrong("/x", &["a: b\r\nc: d"]).1.contains("line break"));
        assert_eq!(wrong("/a b", &[]).1, "sluice explain: a method and a URL hold no space; write %20 for one\n");
    }

    #[test]
    fn what_came_from_outside_the_file_is_not_shown() {
        let (_, text) = said("GET", "/hidden", &[]);
        assert!(text.contains("\nprovider    hidden ***\n  sends     GET ***\n  host      ***\n"), "{text}");
        let (_, text) = said("GET", "/keyed", &[]);
        let near = "\nnearest     keyed: its `match` holds a value from `${…}`, which is not shown\n";
        assert!(text.ends_with(near), "{text}");
    }

    #[test]
    fn problems_of_the_configuration_are_printed_instead() {
        let (code, text) = run("routes: []\nwrokers: 1\n", "GET", "/", &[], false);
        assert_eq!(code, 1);
        assert!(text.contains("DIR/gateway.yaml:2:1: unknown key `wrokers`\n"), "{text}");
    }

    #[test]
    fn colour_is_only_there_where_it_is_asked_for() {
        assert!(!said("GET", "/api/x", &[]).1.contains('\x1b'));
        let (_, text) = run(FILE, "GET", "/api/x", &[], true);
        assert!(text.starts_with("\x1b[1mGET /api/x for host localhost\x1b[0m\n"), "{text}");
    }
}
