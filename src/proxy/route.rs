//! Request to route, through an index compiled once for each configuration.
//!
//! The most specific route wins. Routes are asked in this order, and the first that matches is the answer:
//!
//! 1. an exact host before a wildcard (the longest first) before any host;
//! 2. under one host, the exact path before prefixes, the longest first;
//! 3. at one path, more predicates first: `methods`, `path_regex`, every header and every query parameter are one each;
//! 4. then file order.
//!
//! A route that does not match passes the request on to the next, also from an exact host down to any host, and also
//! where only the method differs: a `GET` route does not shadow a general one below it. Only when nothing matched, and
//! some route would have with another method, the answer is "wrong method".
//!
//! **The index.** Hosts are looked up by hash: the whole host, then its suffixes from each dot on. Each host owns a
//! tree of path segments, in which one walk down finds the exact path and passes every prefix on the way; the walk back
//! up visits them longest first. So a request costs what its own host and path cost, whatever the number of routes,
//! and a path of ten thousand segments costs only as many steps as some route is deep. (Hashing each prefix of the path
//! instead would be quadratic in what a client sends.) Only routes on the very same host and path, told apart by
//! predicates, are tried one by one. Nothing is allocated to find a route.

use crate::config::{self, HostPattern, PathPattern, ValueMatch};
use crate::proxy::path::encoded;
use regex::bytes::Regex;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Every route of a configuration, compiled.
#[derive(Debug)]
pub struct Routes {
    /// In file order.
    rules: Vec<Rule>,
    /// Path trees of exact hosts.
    exact: HashMap<Box<str>, Node>,
    /// Path trees of wildcards, by suffix: `.example.com`.
    wildcard: HashMap<Box<str>, Node>,
    /// The longest suffix among them: longer ones need not be looked up.
    wildcard_bytes_max: usize,
    /// The path tree of routes for any host.
    any: Node,
    /// The nodes of all trees; a [`Node`] is an index.
    nodes: Vec<Segment>,
}

/// What a request asks for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// As [`crate::http1::target::host`] spells it: lower case, no port. May be empty.
    pub host: &'a str,
    /// As [`crate::proxy::path::normalise`] spells it; `*` is asked of routes for every path only.
    pub path: &'a str,
    /// What followed the `?`, undecoded.
    pub query: Option<&'a str>,
    /// Case counts.
    pub method: &'a str,
    /// The request's fields.
    pub headers: &'a dyn Fields,
}

/// Fields that can be searched by name.
pub trait Fields {
    /// Whether `test` says yes to the value of any field called `name`, which is in lower case. Stops at the first yes.
    fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The route at this index of the configuration.
    Route(usize),
    /// No route, but another method would have found one: the value of `Allow`, sorted. HEAD is in it where GET is.
    WrongMethod(String),
    /// No route.
    None,
}

/// A route that was asked, for `sluice explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// Its index in the configuration.
    pub route: usize,
    /// Why it does not take the request; `None` is the one that does.
    pub why_not: Option<String>,
}

/// One route's predicates.
#[derive(Debug)]
struct Rule {
    route: Arc<config::Route>,
    /// Matches the whole path or nothing.
    path_regex: Option<Regex>,
    /// How many predicates there are; most routes have none and are not looked at further.
    predicates: usize,
}

/// An index into [`Routes::nodes`].
type Node = u32;

/// One segment of a path tree.
#[derive(Debug, Default)]
struct Segment {
    /// The segments that may follow.
    below: HashMap<Box<str>, Node>,
    /// The segment before it; none for a host's root.
    above: Option<Node>,
    /// Routes for exactly this path, most predicates first. Indices into [`Routes::rules`].
    exact: Vec<usize>,
    /// Routes for this path and everything below.
    prefix: Vec<usize>,
}

// === impl Routes ===

impl Routes {
    /// Builds the index. Routes are known by their place in `routes`.
    #[must_use]
    pub fn compile(routes: &[Arc<config::Route>]) -> Routes {
        let mut index = Routes {
            rules: routes.iter().map(Rule::compile).collect(),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            wildcard_bytes_max: 0,
            any: 0,
            nodes: vec![Segment::default()],
        };
        for (number, route) in routes.iter().enumerate() {
            for host in &route.matches.hosts {
                let root = index.root(host);
                index.insert(root, &route.matches.path, number);
            }
        }
        index.sort();
        index
    }

    /// The route for a request.
    #[must_use]
    pub fn find(&self, asked: &Asked<'_>) -> Found {
        let mut other_method = false;
        let found = self.walk(asked, |number| {
            let rule = &self.rules[number];
            if rule.predicates == 0 {
                return ControlFlow::Break(number);
            }
            if !rule.takes_method(asked.method) {
                other_method = true;
                return ControlFlow::Continue(());
            }
            if rule.takes_rest(asked) { ControlFlow::Break(number) } else { ControlFlow::Continue(()) }
        });
        match found {
            Some(number) => Found::Route(number),
            None if other_method => self.other_methods(asked),
            None => Found::None,
        }
    }

    /// Every route on the request's host and path in the order they are asked, and why each but one does not take it.
    #[must_use]
    pub fn candidates(&self, asked: &Asked<'_>) -> Vec<Considered> {
        let mut considered: Vec<Considered> = Vec::new();
        let mut winner: Option<usize> = None;
        self.walk(asked, |route| {
            // A route with several hosts can be met more than once.
            if considered.iter().all(|earlier| earlier.route != route) {
                let mut why_not = self.rules[route].why_not(asked);
                match winner {
                    None if why_not.is_none() => winner = Some(route),
                    Some(first) if why_not.is_none() => why_not = Some(self.why_second(first)),
                    _ => {}
                }
                considered.push(Considered { route, why_not });
            }
            ControlFlow::Continue(())
        });
        considered
    }

    fn why_second(&self, first: usize) -> String {
        format!("it matches, but route `{}` comes before it", self.rules[first].route.name)
    }

    /// Nothing matched: says which methods would have.
    #[cold]
    fn other_methods(&self, asked: &Asked<'_>) -> Found {
        let mut methods: Vec<&str> = Vec::new();
        self.walk(asked, |number| {
            let rule = &self.rules[number];
            if rule.takes_rest(asked) {
                rule.allow(&mut methods);
            }
            ControlFlow::Continue(())
        });
        if methods.is_empty() {
            return Found::None;
        }
        methods.sort_unstable();
        methods.dedup();
        Found::WrongMethod(methods.join(", "))
    }

    /// Visits the routes on the request's host and path, most specific first, until `visit` breaks with one.
    fn walk(&self, asked: &Asked<'_>, mut visit: impl FnMut(usize) -> ControlFlow<usize>) -> Option<usize> {
        self.walk_hosts(asked, &mut visit).break_value()
    }

    fn walk_hosts(&self, asked: &Asked<'_>, visit: &mut impl FnMut(usize) -> ControlFlow<usize>) -> ControlFlow<usize> {
        if let Some(&root) = self.exact.get(asked.host) {
            self.walk_paths(root, asked.path, visit)?;
        }
        for suffix in suffixes(asked.host, self.wildcard_bytes_max) {
            if let Some(&root) = self.wildcard.get(suffix) {
                self.walk_paths(root, asked.path, visit)?;
            }
        }
        self.walk_paths(self.any, asked.path, visit)
    }

    /// Visits the routes of one host: the exact path's, then those of each prefix, the longest first.
    fn walk_paths(
        &self,
        root: Node,
        path: &str,
        visit: &mut impl FnMut(usize) -> ControlFlow<usize>,
    ) -> ControlFlow<usize> {
        let (mut node, whole) = self.descend(root, path);
        if whole {
            node.exact.iter().try_for_each(|&number| visit(number))?;
        }
        loop {
            node.prefix.iter().try_for_each(|&number| visit(number))?;
            match node.above {
                Some(above) => node = &self.nodes[above as usize],
                None => return ControlFlow::Continue(()),
            }
        }
    }

    /// The deepest node on the path, and whether the path ends there.
    fn descend(&self, root: Node, path: &str) -> (&Segment, bool) {
        let mut node = &self.nodes[root as usize];
        let Some(segments) = path.strip_prefix('/') else { return (node, false) };
        for segment in segments.split('/') {
            match node.below.get(segment) {
                Some(&below) => node = &self.nodes[below as usize],
                None => return (node, false),
            }
        }
        (node, true)
    }

    /// The root of a host's tree, made if it is not there.
    fn root(&mut self, host: &HostPattern) -> Node {
        let (roots, name) = match host {
            HostPattern::Any => return self.any,
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Wildcard(suffix) => {
                self.wildcard_bytes_max = self.wildcard_bytes_max.max(suffix.len());
                (&mut self.wildcard, suffix)
            }
        };
        *roots.entry(name.as_str().into()).or_insert_with(|| add(&mut self.nodes, None))
    }

    /// Puts a route in a host's tree.
    fn insert(&mut self, root: Node, path: &PathPattern, number: usize) {
        let text = match path {
            PathPattern::Exact(path) => path.as_str(),
            PathPattern::Prefix(prefix) => prefix.trim_end_matches('/'),
        };
        let node = text.split('/').skip(1).fold(root, |above, segment| self.below(above, segment));
        let node = &mut self.nodes[node as usize];
        let list = if matches!(path, PathPattern::Exact(_)) { &mut node.exact } else { &mut node.prefix };
        // A host written twice.
        if list.last() != Some(&number) {
            list.push(number);
        }
    }

    /// The node for a segment below another, made if it is not there.
    fn below(&mut self, above: Node, segment: &str) -> Node {
        if let Some(&below) = self.nodes[above as usize].below.get(segment) {
            return below;
        }
        let below = add(&mut self.nodes, Some(above));
        self.nodes[above as usize].below.insert(segment.into(), below);
        below
    }

    /// Puts more predicates first; the sort is stable and the lists are in file order.
    fn sort(&mut self) {
        let rules = &self.rules;
        for node in &mut self.nodes {
            for list in [&mut node.exact, &mut node.prefix] {
                list.sort_by_key(|&number| std::cmp::Reverse(rules[number].predicates));
            }
        }
    }
}

// === impl Rule ===

impl Rule {
    fn compile(route: &Arc<config::Route>) -> Rule {
        let matches = &route.matches;
        let alone = usize::from(matches.methods.is_some()) + usize::from(matches.path_regex.is_some());
        Rule {
            route: Arc::clone(route),
            path_regex: matches.path_regex.as_ref().map(|pattern| anchored(&pattern.0)),
            predicates: alone + matches.headers.len() + matches.query.len(),
        }
    }

    /// HEAD goes wherever GET does: it asks for the same answer.
    fn takes_method(&self, method: &str) -> bool {
        let Some(methods) = &self.route.matches.methods else { return true };
        methods.iter().any(|allowed| allowed == method || (method == "HEAD" && allowed == "GET"))
    }

    /// Whether everything but the method matches.
    fn takes_rest(&self, asked: &Asked<'_>) -> bool {
        let matches = &self.route.matches;
        self.takes_path(asked.path)
            && matches.headers.iter().all(|(name, wanted)| has_header(asked, name, wanted))
            && matches.query.iter().all(|(name, wanted)| has_parameter(asked, name, wanted))
    }

    fn takes_path(&self, path: &str) -> bool {
        // The range only matters for a pattern that could not be anchored.
        let whole = |regex: &Regex| regex.find(path.as_bytes()).is_some_and(|found| found.len() == path.len());
        self.path_regex.as_ref().is_none_or(whole)
    }

    /// Adds the methods that the route takes.
    fn allow<'a>(&'a self, methods: &mut Vec<&'a str>) {
        for method in self.route.matches.methods.iter().flatten() {
            methods.push(method);
            if method == "GET" {
                methods.push("HEAD");
            }
        }
    }

    /// The first predicate that fails, for people.
    fn why_not(&self, asked: &Asked<'_>) -> Option<String> {
        let matches = &self.route.matches;
        if !self.takes_path(asked.path) {
            let pattern = matches.path_regex.as_ref().map_or("", |pattern| pattern.0.as_str());
            return Some(format!("path_regex `{pattern}` does not match the whole path `{}`", asked.path));
        }
        if let Some((name, wanted)) = matches.headers.iter().find(|(name, wanted)| !has_header(asked, name, wanted)) {
            return Some(format!("header `{name}` {}", wants(wanted)));
        }
        if let Some((name, wanted)) = matches.query.iter().find(|(name, wanted)| !has_parameter(asked, name, wanted)) {
            return Some(format!("query parameter `{name}` {}", wants(wanted)));
        }
        if self.takes_method(asked.method) {
            return None;
        }
        let mut methods = Vec::new();
        self.allow(&mut methods);
        Some(format!("the method is {}, it takes {}", asked.method, methods.join(", ")))
    }
}

// === impl Fields ===

/// Fields as pairs of name and value, for callers that have no parsed head. Names have no case.
impl Fields for Vec<(String, String)> {
    fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.iter().any(|(own, value)| own.eq_ignore_ascii_case(name) && test(value.as_bytes()))
    }
}

// === impl Asked ===

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the fields: they hold credentials.
        let Asked { host, path, query, method, headers: _ } = self;
        write!(f, "Asked {{ {method} host {host:?} path {path:?} query {query:?} }}")
    }
}

/// A new node below `above`.
fn add(nodes: &mut Vec<Segment>, above: Option<Node>) -> Node {
    let node = nodes.len() as Node;
    nodes.push(Segment { above, ..Segment::default() });
    node
}

/// The parts of `host` from each dot on, the longest first, none longer than `bytes_max`. At least one label is left
/// before each.
fn suffixes(host: &str, bytes_max: usize) -> impl Iterator<Item = &str> {
    let from = host.len().saturating_sub(bytes_max).max(1);
    let bytes = host.as_bytes();
    (from..host.len()).filter(move |&at| bytes[at] == b'.').map(move |at| &host[at..])
}

/// A pattern that matches the whole text or nothing. An alternation must be anchored as a group: the leftmost-first
/// search for `/a|/ab` finds `/a` in `/ab` and looks no further. A pattern that cannot be wrapped (one in verbose mode
/// that ends in a comment) stays as it is; its callers compare the length of what it finds.
fn anchored(pattern: &Regex) -> Regex {
    Regex::new(&format!(r"\A(?:{})\z", pattern.as_str())).unwrap_or_else(|_| pattern.clone())
}

fn has_header(asked: &Asked<'_>, name: &str, wanted: &ValueMatch) -> bool {
    asked.headers.any(name, &mut |value| fits(value, wanted))
}

/// Whether one of the query's parameters has this name and a value that fits, both decoded as forms encode them.
fn has_parameter(asked: &Asked<'_>, name: &str, wanted: &ValueMatch) -> bool {
    let Some(query) = asked.query else { return false };
    query.split('&').filter(|parameter| !parameter.is_empty()).any(|parameter| {
        let (own, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        *form_decoded(own) == *name.as_bytes() && fits(&form_decoded(value), wanted)
    })
}

fn fits(value: &[u8], wanted: &ValueMatch) -> bool {
    match wanted {
        ValueMatch::Present => true,
        ValueMatch::Exact(text) => value == text.as_bytes(),
        ValueMatch::Regex(pattern) => pattern.0.is_match(value),
    }
}

/// Decodes `+` and percent-encodings; a `%` that begins none stands for itself. Copies only where there is one.
fn form_decoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if memchr::memchr2(b'%', b'+', bytes).is_none() {
        return Cow::Borrowed(bytes);
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = if byte == b'%' { encoded(&bytes[at + 1..]) } else { None };
        decoded.push(escape.unwrap_or(if byte == b'+' { b' ' } else { byte }));
        at += if escape.is_some() { 3 } else { 1 };
    }
    Cow::Owned(decoded)
}

fn wants(wanted: &ValueMatch) -> String {
    match wanted {
        ValueMatch::Present => "is not there".to_owned(),
        ValueMatch::Exact(text) => format!("is not `{text}`"),
        ValueMatch::Regex(pattern) => format!("does not match `{}`", pattern.0.as_str()),
    }
}
