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
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Every route of a configuration, compiled.
#[derive(Debug)]
pub struct Routes {
    /// In file order.
    rules: Vec<Rule>,
    /// Path trees of exact hosts.
    exact: Table,
    /// Path trees of wildcards, by suffix: `.example.com`.
    wildcard: Table,
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
pub trait Fields: Sync {
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

/// Nodes by host or segment.
type Table = HashMap<Box<str>, Node, BuildHasherDefault<Quick>>;

/// A hash without a key: what is in a [`Table`] comes from the configuration, so that nobody who asks can make it slow.
#[derive(Debug, Default)]
struct Quick(u64);

/// One segment of a path tree.
#[derive(Debug, Default)]
struct Segment {
    /// The segments that may follow.
    below: Table,
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
            exact: Table::default(),
            wildcard: Table::default(),
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

    /// The methods that the routes matching in all else take, sorted, as `Allow` wants them; empty where none matches.
    ///
    /// A route without `methods` stands for the seven usual ones.
    fn allow(&self, asked: &Asked<'_>) -> String {
        let mut methods: Vec<&str> = Vec::new();
        self.walk(asked, |number| {
            let rule = &self.rules[number];
            if rule.takes_rest(asked) {
                rule.allow(&mut methods);
            }
            ControlFlow::Continue(())
        });
        listed(methods)
    }

    /// Nothing matched, and the method was to blame at least once.
    #[cold]
    fn other_methods(&self, asked: &Asked<'_>) -> Found {
        match self.allow(asked) {
            nothing if nothing.is_empty() => Found::None,
            allow => Found::WrongMethod(allow),
        }
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

// === impl Quick ===

impl Quick {
    #[inline]
    fn add(&mut self, word: u64) {
        // An odd number without a pattern: the golden ratio's.
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Quick {
    #[inline]
    fn write(&mut self, mut bytes: &[u8]) {
        while let Some((word, rest)) = bytes.split_first_chunk() {
            self.add(u64::from_le_bytes(*word));
            bytes = rest;
        }
        self.add(bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }

    /// What a text ends with.
    #[inline]
    fn write_u8(&mut self, _: u8) {}

    /// A product is well mixed above, and a table looks below too.
    #[inline]
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
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
        let Some(taken) = &self.route.matches.methods else { return methods.extend(USUAL_METHODS) };
        methods.extend(taken.iter().map(String::as_str));
        if methods.contains(&"GET") {
            methods.push("HEAD");
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
        Some(format!("the method is {}, it takes {}", asked.method, listed(methods)))
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

/// Methods as `Allow` lists them.
fn listed(mut methods: Vec<&str>) -> String {
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}

/// A new node below `above`.
fn add(nodes: &mut Vec<Segment>, above: Option<Node>) -> Node {
    // A configuration is at most 32 MiB of text, so its segments can be counted in 32 bits.
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

/// What a route without `methods` is said to take; it takes any other as well.
const USUAL_METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Action, Match, Pattern};
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    // A route in a few words.

    /// A route for `hosts` (`*`, `*.a.com`, `a.com`, divided by blanks) and a path (`/a` or `/a/*`).
    fn matching(hosts: &str, path: &str) -> Match {
        let host = |text: &str| match text.strip_prefix('*') {
            Some("") => HostPattern::Any,
            Some(suffix) => HostPattern::Wildcard(suffix.to_owned()),
            None => HostPattern::Exact(text.to_owned()),
        };
        Match {
            hosts: hosts.split(' ').map(host).collect(),
            path: match path.strip_suffix("/*") {
                Some(prefix) => PathPattern::Prefix(prefix.to_owned()),
                None => PathPattern::Exact(path.to_owned()),
            },
            path_regex: None,
            methods: None,
            headers: Vec::new(),
            query: Vec::new(),
        }
    }

    impl Match {
        fn methods(mut self, methods: &[&str]) -> Match {
            self.methods = Some(methods.iter().map(|&method| method.to_owned()).collect());
            self
        }

        fn header(mut self, name: &str, wanted: ValueMatch) -> Match {
            self.headers.push((name.to_owned(), wanted));
            self
        }

        fn parameter(mut self, name: &str, wanted: ValueMatch) -> Match {
            self.query.push((name.to_owned(), wanted));
            self
        }

        fn path_regex(mut self, text: &str) -> Match {
            self.path_regex = Some(pattern(text));
            self
        }
    }

    fn pattern(text: &str) -> Pattern {
        Pattern(Regex::new(text).expect("the patterns of these tests are valid"))
    }

    fn exactly(text: &str) -> ValueMatch {
        ValueMatch::Exact(text.to_owned())
    }

    fn routes(matches: Vec<Match>) -> Vec<Arc<config::Route>> {
        let text = b"listeners: [{ name: a, bind: \"127.0.0.1:0\" }]\nroutes: [{ name: a, respond: {} }]";
        let standard = config::parse("", text, &config::UnknownEnvironment).expect("valid").config.routes[0].clone();
        let route = |(number, matches)| config::Route {
            name: format!("r{number}").into(),
            matches,
            action: Action::Pool(0),
            ..(*standard).clone()
        };
        matches.into_iter().enumerate().map(route).map(Arc::new).collect()
    }

    /// Asks with `METHOD host/path?query` and fields.
    fn ask<'a>(line: &'a str, headers: &'a dyn Fields) -> Asked<'a> {
        let (method, rest) = line.split_once(' ').expect("a method and a blank");
        let (target, query) = match rest.split_once('?') {
            Some((target, query)) => (target, Some(query)),
            None => (rest, None),
        };
        let (host, path) = target.split_at(target.find(['/', '*']).expect("a path"));
        Asked { host, path, query, method, headers }
    }

    fn find(matches: Vec<Match>, line: &str) -> Found {
        Routes::compile(&routes(matches)).find(&ask(line, &fields(&[])))
    }

    fn fields(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn wrong_method(allow: &str) -> Found {
        Found::WrongMethod(allow.to_owned())
    }

    // Hosts.

    #[test]
    fn an_exact_host_wins_over_wildcards_the_longest_first_and_they_over_any() {
        let table = || {
            vec![
                matching("*", "/*"),
                matching("*.com", "/*"),
                matching("*.example.com", "/*"),
                matching("www.example.com", "/*"),
            ]
        };
        assert_eq!(find(table(), "GET www.example.com/"), Found::Route(3));
        assert_eq!(find(table(), "GET a.b.example.com/"), Found::Route(2));
        assert_eq!(find(table(), "GET example.com/"), Found::Route(1));
        assert_eq!(find(table(), "GET com/"), Found::Route(0));
        assert_eq!(find(table(), "GET /"), Found::Route(0));
        assert_eq!(find(table(), "GET example.org/"), Found::Route(0));
        assert_eq!(find(table(), "GET [::1]/"), Found::Route(0));
    }

    #[test]
    fn a_wildcard_needs_a_label_and_whole_labels() {
        let table = || vec![matching("*.example.com", "/*")];
        assert_eq!(find(table(), "GET example.com/"), Found::None);
        assert_eq!(find(table(), "GET .example.com/"), Found::None);
        assert_eq!(find(table(), "GET badexample.com/"), Found::None);
        assert_eq!(find(table(), "GET a.example.com/"), Found::Route(0));
    }

    #[test]
    fn a_host_without_the_path_passes_on_to_a_less_exact_host() {
        let table = || vec![matching("a.b.com", "/one"), matching("*.b.com", "/two"), matching("*", "/three")];
        assert_eq!(find(table(), "GET a.b.com/two"), Found::Route(1));
        assert_eq!(find(table(), "GET a.b.com/three"), Found::Route(2));
        assert_eq!(find(table(), "GET a.b.com/four"), Found::None);
    }

    #[test]
    fn the_host_counts_before_the_path() {
        let table = vec![matching("*", "/a/b"), matching("a.com", "/*")];
        assert_eq!(find(table, "GET a.com/a/b"), Found::Route(1));
    }

    // Paths.

    #[test]
    fn an_exact_path_wins_over_prefixes_the_longest_first() {
        let table = || vec![matching("*", "/*"), matching("*", "/a/*"), matching("*", "/a/b/*"), matching("*", "/a/b")];
        assert_eq!(find(table(), "GET x/a/b"), Found::Route(3));
        assert_eq!(find(table(), "GET x/a/b/"), Found::Route(2));
        assert_eq!(find(table(), "GET x/a/b/c/d"), Found::Route(2));
        assert_eq!(find(table(), "GET x/a/bc"), Found::Route(1));
        assert_eq!(find(table(), "GET x/a"), Found::Route(1));
        assert_eq!(find(table(), "GET x/ab"), Found::Route(0));
        assert_eq!(find(table(), "GET x/"), Found::Route(0));
    }

    #[test]
    fn a_prefix_matches_itself_and_below_but_an_encoded_slash_is_no_boundary() {
        let table = || vec![matching("*", "/api/*")];
        assert_eq!(find(table(), "GET x/api"), Found::Route(0));
        assert_eq!(find(table(), "GET x/api/"), Found::Route(0));
        assert_eq!(find(table(), "GET x/api%2Fa"), Found::None);
        assert_eq!(find(table(), "GET x/apis"), Found::None);
    }

    #[test]
    fn a_closing_slash_makes_another_exact_path() {
        let table = || vec![matching("*", "/a"), matching("*", "/a/"), matching("*", "/")];
        assert_eq!(find(table(), "GET x/a"), Found::Route(0));
        assert_eq!(find(table(), "GET x/a/"), Found::Route(1));
        assert_eq!(find(table(), "GET x/"), Found::Route(2));
    }

    #[test]
    fn an_asterisk_is_asked_of_routes_for_every_path() {
        assert_eq!(find(vec![matching("*", "/"), matching("*", "/*")], "OPTIONS x*"), Found::Route(1));
    }

    #[test]
    fn a_path_regex_matches_the_whole_path_or_nothing() {
        let table = |regex| vec![matching("*", "/*").path_regex(regex)];
        assert_eq!(find(table("/[0-9]+"), "GET x/42"), Found::Route(0));
        assert_eq!(find(table("/[0-9]+"), "GET x/42/a"), Found::None);
        assert_eq!(find(table("[0-9]+"), "GET x/42"), Found::None);
        assert_eq!(find(table("/a|/ab"), "GET x/ab"), Found::Route(0));
        assert_eq!(find(table("(?x) /a  # a comment"), "GET x/a"), Found::Route(0));
        assert_eq!(find(table("(?x) /a  # a comment"), "GET x/ab"), Found::None);
    }

    // Predicates.

    #[test]
    fn more_predicates_win_then_file_order() {
        let table = || {
            vec![
                matching("*", "/a"),
                matching("*", "/a"),
                matching("*", "/a").methods(&["GET"]),
                matching("*", "/a").methods(&["GET"]).parameter("p", ValueMatch::Present),
                matching("*", "/a").methods(&["PUT"]),
            ]
        };
        assert_eq!(find(table(), "GET x/a?p"), Found::Route(3));
        assert_eq!(find(table(), "GET x/a"), Found::Route(2));
        assert_eq!(find(table(), "PUT x/a"), Found::Route(4));
        assert_eq!(find(table(), "POST x/a"), Found::Route(0));
    }

    #[test]
    fn an_exact_path_whose_predicates_fail_passes_on_to_a_prefix() {
        let wanted = matching("*", "/a/b").header("x-beta", exactly("1"));
        let index = Routes::compile(&routes(vec![matching("*", "/*"), wanted]));
        let with = |pairs: &[(&str, &str)]| index.find(&ask("GET x/a/b", &fields(pairs)));
        assert_eq!(with(&[("X-Beta", "0"), ("X-Beta", "1")]), Found::Route(1));
        assert_eq!(with(&[("x-beta", "2")]), Found::Route(0));
        assert_eq!(with(&[]), Found::Route(0));
    }

    #[test]
    fn a_header_may_be_present_exact_or_found_by_a_pattern() {
        let matches = vec![
            matching("*", "/1").header("a", ValueMatch::Present),
            matching("*", "/2").header("a", exactly("")),
            matching("*", "/3").header("a", ValueMatch::Regex(pattern("b+"))),
        ];
        let index = Routes::compile(&routes(matches));
        for (path, value, found) in [
            ("/1", "", Found::Route(0)),
            ("/2", "", Found::Route(1)),
            ("/2", "b", Found::None),
            ("/3", "abbc", Found::Route(2)),
            ("/3", "ac", Found::None),
        ] {
            let line = format!("GET x{path}");
            assert_eq!(index.find(&ask(&line, &fields(&[("a", value)]))), found, "{path} {value}");
        }
    }

    #[test]
    fn query_parameters_are_compared_decoded() {
        let table = || vec![matching("*", "/").parameter("a b", exactly("c+d é"))];
        assert_eq!(find(table(), "GET x/?a+b=c%2Bd+%C3%A9"), Found::Route(0));
        assert_eq!(find(table(), "GET x/?z&a%20b=no&%61+b=c%2bd%20%c3%a9&"), Found::Route(0));
        assert_eq!(find(table(), "GET x/?a+b=c+d+%C3%A9"), Found::None);
        assert_eq!(find(table(), "GET x/?a+b"), Found::None);
        assert_eq!(find(table(), "GET x/"), Found::None);
        let stray = || vec![matching("*", "/").parameter("a", exactly("100%"))];
        assert_eq!(find(stray(), "GET x/?a=100%"), Found::Route(0));
        assert_eq!(find(stray(), "GET x/?a=100%25"), Found::Route(0));
        assert_eq!(find(stray(), "GET x/?a=100%2"), Found::None);
    }

    #[test]
    fn an_empty_parameter_name_is_none() {
        let table = || vec![matching("*", "/").parameter("", ValueMatch::Present)];
        assert_eq!(find(table(), "GET x/?"), Found::None);
        assert_eq!(find(table(), "GET x/?a&&b"), Found::None);
        assert_eq!(find(table(), "GET x/?=b"), Found::Route(0));
    }

    // Methods.

    #[test]
    fn a_wrong_method_is_told_which_would_do() {
        let table = || {
            vec![
                matching("*", "/a").methods(&["PUT", "GET"]),
                matching("*", "/*").methods(&["PATCH", "PUT"]),
                matching("*", "/b").methods(&["DELETE"]),
                matching("*", "/a").methods(&["LINK"]).header("x", ValueMatch::Present),
            ]
        };
        assert_eq!(find(table(), "POST x/a"), wrong_method("GET, HEAD, PATCH, PUT"));
        assert_eq!(find(table(), "POST x/c"), wrong_method("PATCH, PUT"));
        assert_eq!(find(table(), "OPTIONS x/c"), wrong_method("PATCH, PUT"));
        assert_eq!(find(table(), "get x/a"), wrong_method("GET, HEAD, PATCH, PUT"));
    }

    #[test]
    fn a_wrong_method_passes_on_to_a_less_exact_route() {
        let table = || vec![matching("a.com", "/a").methods(&["GET"]), matching("*", "/*")];
        assert_eq!(find(table(), "POST a.com/a"), Found::Route(1));
    }

    #[test]
    fn a_route_for_get_takes_head() {
        let table = || vec![matching("*", "/a").methods(&["GET"]), matching("*", "/b").methods(&["HEAD"])];
        assert_eq!(find(table(), "HEAD x/a"), Found::Route(0));
        assert_eq!(find(table(), "GET x/b"), wrong_method("HEAD"));
    }

    #[test]
    fn no_route_is_not_a_wrong_method_where_more_than_the_method_differs() {
        let table = vec![matching("*", "/a").methods(&["GET"]).header("x", ValueMatch::Present)];
        assert_eq!(find(table, "POST x/a"), Found::None);
    }

    #[test]
    fn a_method_that_is_always_refused_is_told_what_the_path_takes() {
        let index = Routes::compile(&routes(vec![matching("*", "/a").methods(&["PUT", "LINK"]), matching("b", "/*")]));
        let allow = |line| index.allow(&ask(line, &fields(&[])));
        assert_eq!(allow("TRACE a/a"), "LINK, PUT");
        assert_eq!(allow("TRACE b/a"), "DELETE, GET, HEAD, LINK, OPTIONS, PATCH, POST, PUT");
        assert_eq!(allow("TRACE a/b"), "");
    }

    // Explaining.

    #[test]
    fn every_candidate_says_why_it_was_not_taken() {
        let index = Routes::compile(&routes(vec![
            matching("*", "/*"),
            matching("a.com *", "/a/*").methods(&["GET", "PUT"]),
            matching("a.com", "/a/b").header("x", exactly("1")),
            matching("a.com", "/a/b").parameter("q", ValueMatch::Present),
            matching("a.com", "/a/b").path_regex("/a"),
            matching("a.com", "/c"),
            matching("*.com", "/a/b"),
            matching("*", "/a/*").header("y", ValueMatch::Regex(pattern("^b"))),
        ]));
        let considered = index.candidates(&ask("POST a.com/a/b", &fields(&[("x", "2")])));
        let told: Vec<(usize, &str)> =
            considered.iter().map(|one| (one.route, one.why_not.as_deref().unwrap_or("taken"))).collect();
        assert_eq!(
            told,
            [
                (2, "header `x` is not `1`"),
                (3, "query parameter `q` is not there"),
                (4, "path_regex `/a` does not match the whole path `/a/b`"),
                (1, "the method is POST, it takes GET, HEAD, PUT"),
                (6, "taken"),
                (7, "header `y` does not match `^b`"),
                (0, "it matches, but route `r6` comes before it"),
            ]
        );
    }

    // Against a model.

    /// The rules of the module's head over a plain list: rank every pattern of every route and take the best.
    fn reference(routes: &[Arc<config::Route>], asked: &Asked<'_>, pairs: &[(String, String)]) -> Found {
        let mut best = None;
        let mut allow: Vec<&str> = Vec::new();
        for (number, route) in routes.iter().enumerate() {
            let matches = &route.matches;
            let Some(path_rank) = path_rank(&matches.path, asked.path) else { continue };
            let Some(host_rank) = matches.hosts.iter().filter_map(|host| host_rank(host, asked.host)).max() else {
                continue;
            };
            if !rest_matches(matches, asked, pairs) {
                continue;
            }
            let mut methods: Vec<&str> = matches.methods.iter().flatten().map(String::as_str).collect();
            if methods.contains(&"GET") {
                methods.push("HEAD");
            }
            if matches.methods.is_some() && !methods.contains(&asked.method) {
                allow.extend(methods);
                continue;
            }
            let predicates = usize::from(matches.methods.is_some())
                + usize::from(matches.path_regex.is_some())
                + matches.headers.len()
                + matches.query.len();
            let rank = (host_rank, path_rank, predicates, std::cmp::Reverse(number));
            if best.is_none_or(|best| rank > best) {
                best = Some(rank);
            }
        }
        allow.sort_unstable();
        allow.dedup();
        match best {
            Some((.., std::cmp::Reverse(number))) => Found::Route(number),
            None if allow.is_empty() => Found::None,
            None => Found::WrongMethod(allow.join(", ")),
        }
    }

    fn host_rank(pattern: &HostPattern, host: &str) -> Option<usize> {
        match pattern {
            HostPattern::Any => Some(0),
            HostPattern::Wildcard(suffix) => {
                (host.len() > suffix.len() && host.ends_with(suffix)).then_some(suffix.len())
            }
            HostPattern::Exact(name) => (name == host).then_some(usize::MAX),
        }
    }

    fn path_rank(pattern: &PathPattern, path: &str) -> Option<usize> {
        match pattern {
            PathPattern::Exact(exact) => (exact == path).then_some(usize::MAX),
            PathPattern::Prefix(prefix) => {
                let everything = path == "*" && prefix.is_empty();
                (everything || path == prefix || path.starts_with(&format!("{prefix}/"))).then_some(prefix.len())
            }
        }
    }

    fn rest_matches(matches: &Match, asked: &Asked<'_>, pairs: &[(String, String)]) -> bool {
        let value_fits = |value: &str, wanted: &ValueMatch| match wanted {
            ValueMatch::Present => true,
            ValueMatch::Exact(text) => text == value,
            ValueMatch::Regex(pattern) => pattern.0.is_match(value.as_bytes()),
        };
        let parameters: Vec<(&str, &str)> = asked
            .query
            .into_iter()
            .flat_map(|query| query.split('&'))
            .filter_map(|pair| pair.split_once('='))
            .collect();
        matches
            .path_regex
            .as_ref()
            .is_none_or(|regex| regex.0.find_iter(asked.path.as_bytes()).any(|found| found.len() == asked.path.len()))
            && matches
                .headers
                .iter()
                .all(|(name, wanted)| pairs.iter().any(|(own, value)| own == name && value_fits(value, wanted)))
            && matches
                .query
                .iter()
                .all(|(name, wanted)| parameters.iter().any(|(own, value)| own == name && value_fits(value, wanted)))
    }

    fn any_value() -> impl Strategy<Value = ValueMatch> {
        let pattern = Just(ValueMatch::Regex(pattern("^[12]$")));
        prop_oneof![Just(ValueMatch::Present), select(vec!["1", "2"]).prop_map(exactly), pattern]
    }

    fn any_match() -> impl Strategy<Value = Match> {
        let hosts = subsequence(vec!["*", "*.com", "*.b.com", "*.a.b.com", "a.b.com", "b.com", "com"], 1..4);
        let path = prop_oneof!["(/[ab]){0,3}/\\*", "(/[ab]){1,3}/?", "/"];
        let methods = proptest::option::weighted(0.3, subsequence(vec!["GET", "HEAD", "POST", "PUT"], 1..3));
        let pairs = || proptest::collection::vec((select(vec!["x", "y"]), any_value()), 0..2);
        let regex = proptest::option::weighted(0.2, select(vec!["/a.*", ".*b", "/[ab]/?", "(/a)*"]));
        (hosts, path, methods, pairs(), pairs(), regex).prop_map(|(hosts, path, methods, headers, query, regex)| {
            let mut matches = matching(&hosts.join(" "), &path);
            matches.methods = methods.map(|list| list.into_iter().map(str::to_owned).collect());
            matches.headers = headers.into_iter().map(|(name, wanted)| (name.to_owned(), wanted)).collect();
            matches.query = query.into_iter().map(|(name, wanted)| (name.to_owned(), wanted)).collect();
            matches.path_regex = regex.map(pattern);
            matches
        })
    }

    fn any_question() -> impl Strategy<Value = (String, Vec<(String, String)>)> {
        let method = select(vec!["GET", "HEAD", "POST", "DELETE"]);
        let host = select(vec!["", "com", "b.com", "a.b.com", "c.a.b.com", "d.c.a.b.com", "org", "x.com"]);
        let path = prop_oneof!["(/[ab]){1,4}/?", "/"];
        let query = proptest::option::of("[xyz]=[123](&[xyz]=[123])?");
        let fields = proptest::collection::vec(("[xyz]", "[123]"), 0..3);
        (method, host, path, query, fields).prop_map(|(method, host, path, query, fields)| {
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            (format!("{method} {host}{path}{query}"), fields)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn the_index_agrees_with_a_plain_list(
            matches in proptest::collection::vec(any_match(), 0..12),
            questions in proptest::collection::vec(any_question(), 1..20),
        ) {
            let routes = routes(matches);
            let index = Routes::compile(&routes);
            for (line, pairs) in &questions {
                let asked = ask(line, pairs);
                let found = index.find(&asked);
                prop_assert_eq!(&found, &reference(&routes, &asked, pairs), "{}", line);
                let taken = index.candidates(&asked).into_iter().find(|one| one.why_not.is_none());
                let route = if let Found::Route(route) = found { Some(route) } else { None };
                prop_assert_eq!(taken.map(|one| one.route), route);
            }
        }

        #[test]
        fn no_text_makes_it_panic(host in ".{0,8}", path in "/.{0,8}|\\*", query in ".{0,8}", method in ".{0,4}") {
            let routes = routes(vec![matching("*.com", "/a").parameter("a", exactly("b")), matching("*", "/*")]);
            let index = Routes::compile(&routes);
            let headers = fields(&[]);
            let asked = Asked { host: &host, path: &path, query: Some(&query), method: &method, headers: &headers };
            prop_assert_eq!(index.find(&asked), reference(&routes, &asked, &headers));
        }
    }
}
