//! Does the tree have the shape? Unknown keys, keys that are not built, wrong types, values out of bounds; and which
//! values are secret.
//!
//! Looks at what is written, where it is written, before defaults are laid under anything.

use super::expand::{Environment, Origin};
use super::file::{Entry, Node, Scalar, Value};
use super::inputs::{Digest, digest};
use super::merge::Budget;
use super::problem::{MASK, Report, Span, shown};
use super::scalar::{self, Fault, Says};
use super::shape::{self, Key, Kind, Names, Word};
use super::suggest::Suggest;
use super::types::Pattern;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the checks share.
pub(super) struct Context<'a> {
    pub(super) report: Report,
    pub(super) suggest: Suggest,
    pub(super) env: &'a dyn Environment,
    /// Where relative paths start.
    pub(super) base: &'a Path,
    /// Pointers to values that came from `${…}`, for [`Config::redacted`](super::Config::redacted).
    pub(super) redacted: Vec<String>,
    /// What defaults may still be laid.
    pub(super) budget: Budget,
    /// Whether anything came from there.
    pub(super) expanded: bool,
    /// Compiled expressions, so that each is compiled once.
    patterns: HashMap<String, Pattern>,
    files: HashMap<PathBuf, Result<Arc<[u8]>, String>>,
}

/// The keys on the way to a value.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    up: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Top,
    Key(&'a str),
    Item(usize),
}

// === impl Context ===

impl<'a> Context<'a> {
    pub(super) fn new(report: Report, env: &'a dyn Environment, base: &'a Path) -> Self {
        Context {
            report,
            suggest: Suggest::new(),
            env,
            base,
            redacted: Vec::new(),
            budget: Budget::new(),
            expanded: false,
            patterns: HashMap::new(),
            files: HashMap::new(),
        }
    }

    /// The compiled `text`, as it is written: whoever wants the whole of something anchors it.
    pub(super) fn pattern(&mut self, text: &str) -> Result<Pattern, Fault> {
        if let Some(pattern) = self.patterns.get(text) {
            return Ok(pattern.clone());
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(Fault::says(format!("a regular expression is at most {PATTERN_BYTES_MAX} bytes long")));
        }
        if self.patterns.len() >= PATTERNS_MAX {
            return Err(Fault::says(format!("there are more than {PATTERNS_MAX} regular expressions")));
        }
        let pattern = compile(text)?;
        self.patterns.insert(text.to_owned(), pattern.clone());
        Ok(pattern)
    }

    /// The bytes of a file that the configuration names, read once. An error says why.
    pub(super) fn file(&mut self, path: &str) -> Result<Arc<[u8]>, String> {
        let path = self.base.join(path);
        if let Some(known) = self.files.get(&path) {
            return known.clone();
        }
        let bytes = self.env.read_file(&path).map(Arc::from).map_err(|error| error.to_string());
        self.files.insert(path, bytes.clone());
        bytes
    }

    /// Every file that was read or tried so far, and what stood in it.
    pub(super) fn files_read(&self) -> impl Iterator<Item = (PathBuf, Option<Digest>)> {
        self.files.iter().map(|(path, read)| (path.clone(), read.as_ref().ok().map(|bytes| digest(bytes))))
    }

    /// Adds a problem at `at`.
    pub(super) fn problem(&mut self, span: Span, at: &At<'_>, message: String, help: Option<String>) {
        self.report.add(span, at.to_string(), message, help);
    }

    /// "did you mean …?" among `candidates`.
    pub(super) fn did_you_mean<'c>(&mut self, word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<String> {
        self.suggest.nearest(word, candidates).map(|found| format!("did you mean `{found}`?"))
    }
}

// === impl At ===

impl<'a> At<'a> {
    /// The file's top.
    pub(super) const TOP: At<'static> = At { up: None, step: Step::Top };

    pub(super) fn key(&'a self, key: &'a str) -> At<'a> {
        At { up: Some(self), step: Step::Key(key) }
    }

    pub(super) fn item(&'a self, index: usize) -> At<'a> {
        At { up: Some(self), step: Step::Item(index) }
    }

    /// ` in providers.alpha`, or nothing at the top.
    fn within(&self) -> String {
        match self.step {
            Step::Top => String::new(),
            _ => format!(" in {self}"),
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let up = self.up.filter(|up| !matches!(up.step, Step::Top));
        if let Some(up) = self.up {
            write!(f, "{up}")?;
        }
        match self.step {
            Step::Top => Ok(()),
            Step::Item(index) => write!(f, "[{index}]"),
            Step::Key(key) => {
                let dot = if up.is_some() { "." } else { "" };
                write!(f, "{dot}{}", shown(key).trim_matches('`'))
            }
        }
    }
}

/// Reports every difference between `node` and `kind`.
pub(super) fn conform(node: &Node, kind: &'static Kind, at: &At<'_>, cx: &mut Context<'_>) {
    match (kind, &node.value) {
        (Kind::Either(kinds), _) => either(node, kinds, kind, at, cx),
        (Kind::Object(keys), Value::Map(entries)) => object(entries, keys, at, cx),
        (Kind::Map(names, of), Value::Map(entries)) => map(entries, *names, of, at, cx),
        (Kind::List(of, min, max), Value::List(items)) => list(node, items, (of, *min, *max), at, cx),
        (Kind::Object(_) | Kind::Map(..) | Kind::List(..), _) => wrong_class(node, kind, at, cx),
        (_, Value::Scalar(scalar)) => one(node, scalar, kind, at, cx),
        _ => wrong_class(node, kind, at, cx),
    }
}

/// A mapping with fixed keys.
fn object(entries: &[Entry], keys: &'static [Key], at: &At<'_>, cx: &mut Context<'_>) {
    for entry in entries {
        match keys.iter().find(|key| key.name == &*entry.key) {
            None => unknown_key(entry, keys, at, cx),
            Some(key) if !key.built => {
                mark_secrets(&entry.node, &key.kind, cx);
                let message = format!("`{}` is not built yet; remove it", key.name);
                cx.problem(entry.key_span, &at.key(&entry.key), message, None);
            }
            Some(key) => conform(&entry.node, &key.kind, &at.key(&entry.key), cx),
        }
    }
}

fn unknown_key(entry: &Entry, keys: &'static [Key], at: &At<'_>, cx: &mut Context<'_>) {
    if entry.key.is_empty() || &*entry.key == "<<" {
        return hide(&entry.node, cx); // Said when the file was read.
    }
    if let Some(name) = run_together(entry, cx) {
        hide(&entry.node, cx);
        let help = keys.iter().any(|key| key.name == name).then(|| format!("write `{name}: …`, with a colon"));
        return cx.problem(entry.key_span, &at.key(name), format!("unknown key `{name} …`{}", at.within()), help);
    }
    let elsewhere = elsewhere(&entry.key, keys, cx);
    let synonym = SYNONYMS.iter().find(|(word, _)| *word == &*entry.key).map(|(_, name)| *name);
    let nearest = match elsewhere {
        Some(_) => None,
        None => synonym
            .filter(|name| keys.iter().any(|key| key.name == *name))
            .or_else(|| cx.suggest.nearest(&entry.key, keys.iter().map(|key| key.name))),
    };
    let meant = keys.iter().find(|key| Some(key.name) == nearest);
    match elsewhere.as_ref().map(|(key, _)| *key).or(meant) {
        Some(key) => mark_secrets(&entry.node, &key.kind, cx),
        None => hide(&entry.node, cx),
    }
    let help = elsewhere.map(|(_, place)| place).or(nearest.map(|name| format!("did you mean `{name}`?")));
    let message = format!("unknown key {}{}", shown(&entry.key), at.within());
    cx.problem(entry.key_span, &at.key(&entry.key), message, help);
}

/// `token hunter2`, where the colon was forgotten, is one key to YAML: what follows its first word is a value, perhaps a
/// secret.
fn run_together<'k>(entry: &'k Entry, cx: &mut Context<'_>) -> Option<&'k str> {
    entry.node.scalar().filter(|scalar| scalar.is_null())?;
    let (name, _) = entry.key.split_once([' ', '='])?;
    cx.report.secret(entry.key_span);
    Some(name)
}

/// Where a key that is unknown here would be known: one level down, at the top, or in the one place that has it.
fn elsewhere(name: &str, keys: &'static [Key], cx: &mut Context<'_>) -> Option<(&'static Key, String)> {
    let find = |keys: &'static [Key]| keys.iter().find(|key| key.name == name && key.built);
    for key in keys.iter().filter(|key| key.built) {
        let (Kind::Object(within) | Kind::List(Kind::Object(within), ..)) = &key.kind else { continue };
        if let Some(found) = find(within) {
            return Some((found, format!("it belongs in `{}`", key.name)));
        }
    }
    if let Some(found) = find(shape::ROOT) {
        return Some((found, "it belongs at the top of the file".to_owned()));
    }
    if !cx.suggest.may_compare(KEYS_ABOUT) {
        return None;
    }
    let mut places = Vec::new();
    shape::places(name, &mut places);
    match places[..] {
        [(key, parent)] if keys.iter().all(|key| key.name != parent) => {
            Some((key, format!("it belongs in `{parent}`")))
        }
        _ => None,
    }
}

/// A mapping whose keys are the user's.
fn map(entries: &[Entry], names: Names, of: &'static Kind, at: &At<'_>, cx: &mut Context<'_>) {
    if let Some(entry) = entries.get(FIELDS_MAX).filter(|_| names != Names::Things) {
        cx.problem(entry.key_span, at, format!("{at}: there are more than {FIELDS_MAX} here"), None);
    }
    for entry in entries {
        let name = if names == Names::Any { None } else { run_together(entry, cx) };
        let at = at.key(name.unwrap_or(&entry.key));
        let fault = match names {
            _ if entry.key.is_empty() || &*entry.key == "<<" => None,
            Names::Things => scalar::name(&entry.key).err(),
            Names::Fields => scalar::header_name(&entry.key).err(),
            Names::Any => None,
        };
        if let Some(fault) = fault {
            let found = name.map_or_else(|| shown(&entry.key), |name| format!("`{name} …`"));
            let (message, help) = fault_words(&fault, &found, name.is_none());
            cx.problem(entry.key_span, &at, format!("{}: {message}", at.up.unwrap_or(&at)), help);
        }
        conform(&entry.node, of, &at, cx);
    }
}

fn list(node: &Node, items: &[Node], shape: (&'static Kind, usize, usize), at: &At<'_>, cx: &mut Context<'_>) {
    let (of, min, max) = shape;
    if items.len() < min {
        cx.problem(
            node.span,
            at,
            format!("{at}: the list is empty"),
            Some("write at least one, or remove the key".into()),
        );
    } else if items.len() > max {
        cx.problem(node.span, at, format!("{at}: the list has {} items, more than {max}", items.len()), None);
    }
    for (index, item) in items.iter().enumerate() {
        conform(item, of, &at.item(index), cx);
    }
}

/// The alternative of the node's own class; for scalars, whichever fits.
fn either(node: &Node, kinds: &'static [Kind], whole: &'static Kind, at: &At<'_>, cx: &mut Context<'_>) {
    let alternative = match &node.value {
        Value::Map(_) => kinds.iter().find(|kind| matches!(kind, Kind::Object(_) | Kind::Map(..))),
        Value::List(_) => kinds.iter().find(|kind| matches!(kind, Kind::List(..))),
        Value::Scalar(scalar) => {
            let simple = || kinds.iter().filter(|kind| is_simple(kind));
            if simple().count() > 1 && !simple().any(|kind| check(scalar, kind, cx).is_ok()) {
                let mut fault = Fault::expected(whole.describe());
                if !scalar.plain && kinds.iter().any(|kind| matches!(kind, Kind::Int(..))) {
                    fault = fault.help(UNQUOTE);
                }
                return report_fault(node, scalar, whole, &fault, at, cx);
            }
            simple().find(|kind| check(scalar, kind, cx).is_ok()).or_else(|| simple().next())
        }
    };
    match alternative {
        Some(kind) => conform(node, kind, at, cx),
        None => wrong_class(node, whole, at, cx),
    }
}

/// Whether a scalar can be one.
fn is_simple(kind: &Kind) -> bool {
    !matches!(kind, Kind::Object(_) | Kind::Map(..) | Kind::List(..))
}

/// A scalar where a scalar belongs.
fn one(node: &Node, scalar: &Scalar, kind: &'static Kind, at: &At<'_>, cx: &mut Context<'_>) {
    if hides(kind, scalar) {
        cx.report.secret(node.span);
    }
    if let Err(fault) = check(scalar, kind, cx) {
        report_fault(node, scalar, kind, &fault, at, cx);
    }
}

fn report_fault(node: &Node, scalar: &Scalar, kind: &Kind, fault: &Fault, at: &At<'_>, cx: &mut Context<'_>) {
    let open = !hides(kind, scalar) && scalar.origin == Origin::Written;
    let found = match (open, scalar.is_null()) {
        (_, true) => "nothing".to_owned(),
        (false, _) => format!("`{MASK}`"),
        (true, _) if scalar.plain => shown(&scalar.text),
        (true, _) => format!("the text {}", shown(&scalar.text)),
    };
    let (message, help) = fault_words(fault, &found, open);
    cx.problem(node.span, at, format!("{at}: {message}"), help);
}

/// Whether the value is a secret, or has a password in it that does not belong there.
fn hides(kind: &Kind, scalar: &Scalar) -> bool {
    kind.is_secret() || (matches!(kind, Kind::ProviderUrl | Kind::Location) && scalar.text.contains('@'))
}

/// A fault in words. Help made of the value itself is given only where the value is `open`.
fn fault_words(fault: &Fault, found: &str, open: bool) -> (String, Option<String>) {
    let message = match &fault.says {
        Says::Expected(what) => format!("expected {what}, found {found}"),
        Says::Statement(statement) => statement.to_string(),
    };
    let help = match &fault.help {
        Some(std::borrow::Cow::Owned(help)) => open.then(|| help.clone()),
        Some(std::borrow::Cow::Borrowed(help)) => Some((*help).to_owned()),
        None => None,
    };
    (message, help)
}

/// A list where a mapping belongs, and the like. The value is shown only where no secret can stand.
fn wrong_class(node: &Node, kind: &Kind, at: &At<'_>, cx: &mut Context<'_>) {
    let open = !kind.holds_secrets();
    if !open {
        hide(node, cx);
    }
    let expected = match kind {
        Kind::Object(_) | Kind::Map(..) => "a mapping".to_owned(),
        Kind::List(..) => "a list".to_owned(),
        kind => kind.describe(),
    };
    let (found, help) = match &node.value {
        Value::Scalar(scalar) if scalar.is_null() => ("nothing".to_owned(), Some("remove the key, or write its value")),
        Value::Scalar(scalar) => {
            let found = if open && scalar.origin == Origin::Written { shown(&scalar.text) } else { "text".to_owned() };
            (found, matches!(kind, Kind::List(..)).then_some("put it in brackets: `[…]`"))
        }
        Value::List(_) => ("a list".to_owned(), None),
        Value::Map(_) => ("a mapping".to_owned(), None),
    };
    let place = if matches!(at.step, Step::Top) { "the file".to_owned() } else { at.to_string() };
    cx.problem(node.span, at, format!("{place}: expected {expected}, found {found}"), help.map(Into::into));
}

/// Whether `scalar` is a value of `kind`.
fn check(scalar: &Scalar, kind: &Kind, cx: &mut Context<'_>) -> Result<(), Fault> {
    if scalar.is_unknown() {
        return Ok(());
    }
    if scalar.is_null() {
        return Err(Fault::expected(kind.describe()).help("remove the key, or write its value"));
    }
    let text = &*scalar.text;
    match kind {
        Kind::Bool | Kind::Int(..) | Kind::Fraction | Kind::Number(..) if !scalar.plain => {
            Err(Fault::expected(kind.describe()).help(UNQUOTE))
        }
        Kind::Text | Kind::Secret | Kind::Name | Kind::Reference(_) | Kind::Regex | Kind::File
            if scalar.looks_typed() =>
        {
            Err(Fault::expected("text").help("put it in quotes"))
        }
        Kind::Regex => cx.pattern(text).map(drop),
        Kind::Words(words) => known_word(text, scalar.plain, words, cx),
        kind => check_text(text, kind),
    }
}

/// The kinds that need nothing but the text.
fn check_text(text: &str, kind: &Kind) -> Result<(), Fault> {
    match kind {
        Kind::Bool => scalar::boolean(text).map(drop),
        Kind::Int(min, max) => scalar::integer(text, *min, *max).map(drop),
        Kind::Duration => match scalar::duration(text)? {
            span if span.is_zero() => Err(Fault::expected("a duration above 0")),
            _ => Ok(()),
        },
        Kind::DurationOrOff => scalar::duration(text).map(drop),
        Kind::Size(min, max) => match scalar::size(text)? {
            size if size < *min => Err(Fault::expected(format!("a size of at least {min} bytes"))),
            size if size > *max => Err(Fault::expected(format!("a size of at most {max} bytes"))),
            _ => Ok(()),
        },
        Kind::Number(min, max) => scalar::number(text, *min, *max).map(drop),
        Kind::ByteRate => scalar::byte_rate(text).map(drop),
        Kind::Rate => scalar::rate(text).map(drop),
        Kind::TlsVersion => scalar::tls_version(text).map(drop),
        Kind::Bind => scalar::bind(text).map(drop),
        Kind::TcpBind => scalar::tcp_bind(text).map(drop),
        Kind::Proxy if text == scalar::UNIX => Ok(()),
        Kind::Cidr | Kind::Proxy => scalar::cidr(text).map(drop),
        Kind::ProviderUrl => scalar::provider_url(text).map(drop),
        Kind::Host => scalar::host(text).map(drop),
        Kind::HostPattern => scalar::host_pattern(text).map(drop),
        Kind::HostRule => scalar::host_rule(text).map(drop),
        Kind::HeaderName => scalar::header_name(text).map(drop),
        Kind::SecretValue => scalar::header_value(text),
        Kind::Secret => scalar::token(text),
        Kind::Method => scalar::method(text),
        Kind::Condition => scalar::condition(text),
        Kind::StatusRange => scalar::status_range(text).map(drop),
        Kind::HashBy => scalar::hash_by(text).map(drop),
        Kind::HedgeAfter => scalar::hedge_after(text).map(drop),
        Kind::PathPattern => scalar::path_pattern(text).map(drop),
        Kind::PathPrefix => scalar::path_prefix(text).map(drop),
        Kind::Target => scalar::target(text),
        Kind::Location => scalar::location(text),
        Kind::Name => scalar::name(text),
        Kind::File => scalar::file(text),
        _ => Ok(()),
    }
}

fn known_word(text: &str, plain: bool, words: &[Word], cx: &mut Context<'_>) -> Result<(), Fault> {
    let expected = || shape::one_of(words);
    match words.iter().find(|word| word.word == text) {
        Some(word) if !word.built => {
            Err(Fault::says(format!("`{}` is not built yet; write {}", word.word, expected())))
        }
        Some(word) if !plain && word.word.bytes().all(|b| b.is_ascii_digit()) => {
            Err(Fault::expected(expected()).help(UNQUOTE))
        }
        Some(_) => Ok(()),
        None => {
            let fault = Fault::expected(expected());
            if matches!(text, "h2" | "h2c" | "HTTP/2") && words.iter().any(|word| word.word == "http2") {
                return Err(fault.help("write `http2`"));
            }
            if text == "consistent_hash" && words.iter().any(|word| word.word == "peak_ewma") {
                return Err(fault.help("it needs a key: write `{ consistent_hash: { by: ip } }`"));
            }
            let built = words.iter().filter(|word| word.built).map(|word| word.word);
            match cx.did_you_mean(text, built) {
                Some(help) => Err(fault.help(help)),
                None => Err(fault),
            }
        }
    }
}

fn compile(text: &str) -> Result<Pattern, Fault> {
    let build = regex::bytes::RegexBuilder::new(text).size_limit(PATTERN_SIZE_MAX).nest_limit(50).build();
    match build {
        Ok(regex) => Ok(Pattern(regex)),
        Err(regex::Error::CompiledTooBig(_)) => Err(Fault::says("this regular expression grows too large")
            .help("repeat less: `{1000}` counts a thousand times")),
        Err(error) => {
            let words = error.to_string();
            let reason =
                words.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it cannot be read");
            Err(Fault::expected("a regular expression").help(reason.to_owned()))
        }
    }
}

/// Masks what the shape calls secret, without looking at anything else.
fn mark_secrets(node: &Node, kind: &'static Kind, cx: &mut Context<'_>) {
    match (kind, &node.value) {
        (kind, _) if kind.is_secret() => hide(node, cx),
        (Kind::Either(kinds), _) => {
            let simple = node.scalar().is_some();
            kinds.iter().filter(|kind| !simple || is_simple(kind)).for_each(|kind| mark_secrets(node, kind, cx));
        }
        (Kind::Object(keys), Value::Map(entries)) => {
            for entry in entries.iter() {
                match keys.iter().find(|key| key.name == &*entry.key) {
                    Some(key) => mark_secrets(&entry.node, &key.kind, cx),
                    None => hide(&entry.node, cx),
                }
            }
        }
        (Kind::Map(_, of), Value::Map(entries)) => entries.iter().for_each(|entry| mark_secrets(&entry.node, of, cx)),
        (Kind::List(of, ..), Value::List(items)) => items.iter().for_each(|item| mark_secrets(item, of, cx)),
        (Kind::Object(_) | Kind::Map(..) | Kind::List(..), _) => hide(node, cx),
        _ => {}
    }
}

/// Masks every scalar in `node`, keys too.
fn hide(node: &Node, cx: &mut Context<'_>) {
    match &node.value {
        Value::Scalar(scalar) if scalar.is_null() => {}
        Value::Scalar(_) => cx.report.secret(node.span),
        Value::List(items) => items.iter().for_each(|item| hide(item, cx)),
        Value::Map(entries) => {
            for entry in entries.iter() {
                cx.report.secret(entry.key_span);
                hide(&entry.node, cx);
            }
        }
    }
}

/// What other programs call a key of ours that no slip of the fingers leads to.
const SYNONYMS: [(&str, &str); 9] = [
    ("alpn", "protocols"),
    ("certificate", "cert"),
    ("client_auth", "client_ca"),
    ("client_certificate", "client"),
    ("mtls", "client_ca"),
    ("private_key", "key"),
    ("tls_version", "min_version"),
    ("verify_client", "client_ca"),
    ("minimum_version", "min_version"),
];
/// About as many keys as the shape has, by all ways to them.
const KEYS_ABOUT: usize = 300;
/// Fields in one mapping of them.
const FIELDS_MAX: usize = 1000;
const UNQUOTE: &str = "remove the quotes: what is quoted is text";
/// Bytes of an expression as it is written.
const PATTERN_BYTES_MAX: usize = 4096;
/// Bytes of a compiled expression.
const PATTERN_SIZE_MAX: usize = 1 << 20;
/// Expressions in a file.
const PATTERNS_MAX: usize = 1000;
