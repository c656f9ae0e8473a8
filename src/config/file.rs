//! YAML 1.2 as a bounded tree that remembers where everything stood.
//!
//! The parser gives events; this file turns them into nodes and is the only place that knows the parser. serde is not
//! used because it stops at the first error and cannot put an expanded value where a number is wanted. An alias shares
//! the nodes of its anchor, so that a bomb costs no memory, but counts them all, so that it is refused when the count
//! passes [`NODES_MAX`]. What is not plain data (tags, merge keys, keys that are not text, a second document) is refused:
//! two readers of the same file must not see two things.

use super::expand::Origin;
use super::problem::{Report, Span};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};
use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

/// One value of the file.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it stands; for an aliased value, where its anchor stands.
    pub(super) span: Span,
    /// Nodes in it, itself included, aliases counted out.
    size: usize,
    /// Levels in it, itself included.
    height: usize,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Rc<Vec<Node>>),
    Map(Rc<Vec<Entry>>),
}

/// One key of a mapping and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Rc<str>,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

/// Text, and how it came to be there.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    /// After expansion.
    pub(super) text: Rc<str>,
    /// Written without quotes, so that it may be a number, a boolean or nothing.
    pub(super) plain: bool,
    /// Whether `${…}` had a part in it.
    pub(super) origin: Origin,
}

/// What a scalar became: told by whoever expands.
pub(super) type Expand<'a> = dyn FnMut(&str, Span, &mut Report) -> Option<(String, Origin)> + 'a;

/// A collection that is still open.
struct Open {
    start: Span,
    anchor: usize,
    /// `None` for a list.
    entries: Option<Vec<Entry>>,
    items: Vec<Node>,
    /// The key that waits for its value.
    key: Option<(Rc<str>, Span)>,
    /// Where each key was first seen.
    seen: HashMap<Rc<str>, Span>,
    size: usize,
    height: usize,
}

/// Builds the tree from events.
struct Builder<'a> {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    /// Nodes counted so far, aliases counted out.
    nodes: usize,
    aliases: usize,
    expand: &'a mut Expand<'a>,
    report: &'a mut Report,
}

/// Reading stopped; the report says why.
struct Stopped;

// === impl Node ===

impl Node {
    /// The scalar, if it is one.
    pub(super) fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The entries, if it is a mapping.
    pub(super) fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items, if it is a list.
    pub(super) fn items(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entry of `key`, if it is a mapping that has one.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| &*entry.key == key)
    }

    /// The value of `key`, if it is a mapping that has one.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// Values in it, itself included.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A mapping made of others' entries, standing at `span`.
    pub(super) fn map(span: Span, entries: Vec<Entry>) -> Node {
        Node { span, size: 1, height: 1, value: Value::Map(Rc::new(entries)) }
    }
}

// === impl Scalar ===

impl Scalar {
    /// Nothing was written, or `null`.
    pub(super) fn is_null(&self) -> bool {
        self.plain && self.origin == Origin::Written && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }

    /// Whether YAML reads it as a boolean or a number.
    pub(super) fn looks_typed(&self) -> bool {
        self.plain && self.origin == Origin::Written && (is_boolean(&self.text) || is_number(&self.text))
    }

    /// A value that only a running gateway would know.
    pub(super) fn is_unknown(&self) -> bool {
        self.origin == Origin::Unknown
    }
}

// === impl Open ===

impl Open {
    fn new(start: Span, anchor: usize, map: bool) -> Self {
        let entries = map.then(Vec::new);
        Open { start, anchor, entries, items: Vec::new(), key: None, seen: HashMap::new(), size: 1, height: 1 }
    }

    /// Whether the next node is a key.
    fn wants_key(&self) -> bool {
        self.entries.is_some() && self.key.is_none()
    }

    fn close(self) -> (usize, Node) {
        let value = match self.entries {
            Some(entries) => Value::Map(Rc::new(entries)),
            None => Value::List(Rc::new(self.items)),
        };
        (self.anchor, Node { span: self.start, size: self.size, height: self.height, value })
    }
}

// === impl Builder ===

impl Builder<'_> {
    /// Takes one event. `Ok(false)` ends the reading.
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stopped> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                self.scalar(&text, style, anchor, span)
            }
            Event::SequenceStart(anchor, tag) => self.start(anchor, tag.as_deref(), span, false),
            Event::MappingStart(anchor, tag) => self.start(anchor, tag.as_deref(), span, true),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::DocumentStart(_) if self.root.is_some() => {
                self.stop(span, "a second document begins here", Some("keep one document, without `---` inside it"))
            }
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, span: Span) -> Result<(), Stopped> {
        self.count(1, span)?;
        let plain = style == ScalarStyle::Plain;
        if self.open.last().is_some_and(Open::wants_key) {
            return self.key(text, plain, span);
        }
        let (text, origin) = match (self.expand)(text, span, self.report) {
            Some((expanded, origin)) => (Rc::from(expanded), origin),
            None => (Rc::from(text), Origin::Written),
        };
        let scalar = Value::Scalar(Scalar { text, plain, origin });
        self.place(anchor, Node { span, size: 1, height: 1, value: scalar })
    }

    fn key(&mut self, text: &str, plain: bool, span: Span) -> Result<(), Stopped> {
        if plain && text == "<<" {
            let help = "lay settings under all of a kind with `defaults:`, or repeat a whole value with an alias";
            self.report.add(span, "", "`<<` is not a key: YAML 1.2 has no merge", Some(help.into()));
        } else if text.is_empty() {
            self.report.add(span, "", "a key is missing before `:`", None);
        }
        let Some(open) = self.open.last_mut() else { return Err(Stopped) };
        let key: Rc<str> = Rc::from(text);
        match open.seen.get(&key) {
            Some(first) => {
                let shown = super::problem::shown(text);
                let help = format!("it stands on line {} already; keep one of them", first.line);
                self.report.add(span, "", format!("{shown} is written twice in one mapping"), Some(help));
            }
            None => drop(open.seen.insert(Rc::clone(&key), span)),
        }
        open.key = Some((key, span));
        Ok(())
    }

    fn start(&mut self, anchor: usize, tag: Option<&Tag>, span: Span, map: bool) -> Result<(), Stopped> {
        self.refuse_tag(tag, span);
        self.count(1, span)?;
        self.refuse_key(span)?;
        if self.open.len() >= DEPTH_MAX {
            return self.stop(span, format!("more than {DEPTH_MAX} levels are nested here"), None);
        }
        self.open.push(Open::new(span, anchor, map));
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stopped> {
        let Some(open) = self.open.pop() else { return Err(Stopped) };
        let (anchor, node) = open.close();
        self.place(anchor, node)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stopped> {
        self.refuse_key(span)?;
        self.aliases += 1;
        if self.aliases > ALIASES_MAX {
            return self.stop(span, format!("more than {ALIASES_MAX} aliases"), None);
        }
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return self.stop(span, "an alias inside the value it repeats", None);
        };
        self.count(node.size, span)?;
        if self.open.len() + node.height > DEPTH_MAX {
            return self.stop(span, format!("more than {DEPTH_MAX} levels once this alias is filled in"), None);
        }
        self.place(0, node)
    }

    /// Puts a whole node where it belongs.
    fn place(&mut self, anchor: usize, node: Node) -> Result<(), Stopped> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.size += node.size;
        open.height = open.height.max(node.height + 1);
        match (&mut open.entries, open.key.take()) {
            (Some(entries), Some((key, key_span))) => entries.push(Entry { key, key_span, node }),
            (Some(_), None) => return Err(Stopped),
            (None, _) => open.items.push(node),
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Stopped> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            return self.stop(span, format!("more than {NODES_MAX} values, aliases filled in"), None);
        }
        Ok(())
    }

    /// A list, a mapping or an alias where a key belongs ends the reading: what follows would be misread.
    fn refuse_key(&mut self, span: Span) -> Result<(), Stopped> {
        if !self.open.last().is_some_and(Open::wants_key) {
            return Ok(());
        }
        let help = "a key is a word before `:`; a value with `${…}` inside `[…]` or `{…}` needs quotes";
        self.stop(span, "a key must be plain text", Some(help))
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, span: Span) {
        if tag.is_some() {
            let help = "remove the tag; put text that looks like a number in quotes";
            self.report.add(span, "", "tags (`!…`) are not read", Some(help.into()));
        }
    }

    fn stop(&mut self, span: Span, message: impl Into<Cow<'static, str>>, help: Option<&str>) -> Result<(), Stopped> {
        self.report.add_unparsed(span, message.into(), help.map(Into::into));
        Err(Stopped)
    }
}

/// Reads `bytes` into a tree. On `None` the report says why.
pub(super) fn read<'a>(text: &str, expand: &'a mut Expand<'a>, report: &'a mut Report) -> Option<Node> {
    let anchors = HashMap::new();
    let mut builder = Builder { open: Vec::new(), root: None, anchors, nodes: 0, aliases: 0, expand, report };
    let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        match next {
            Ok((event, span)) => builder.event(event, Span::between(place(span.start), place(span.end))).ok()?,
            Err(error) => {
                scan_error(&error, text, builder.report);
                return None;
            }
        }
    }
    let root = builder.root.take();
    if root.is_none() {
        let help = "the smallest file has `listeners`, `routes` and something for them to do; see gateway.yaml";
        builder.report.add(Span::START, "", "the file is empty", Some(help.into()));
    }
    root
}

/// The text of `bytes`, or why it is none: too long, not UTF-8, characters that YAML does not allow.
pub(super) fn decode<'a>(bytes: &'a [u8], report: &mut Report) -> Option<&'a str> {
    if bytes.len() > BYTES_MAX {
        report.add(Span::START, "", format!("the file is larger than {} MiB", BYTES_MAX >> 20), None);
        return None;
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        report.add(Span::START, "", "the file is UTF-16", Some("save it as UTF-8".into()));
        return None;
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        let help = "save the file as UTF-8 without it".to_owned();
        report.add(Span::START, "", "the file begins with a byte order mark", Some(help));
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            report.add(end_of(&before), "", "this byte is not UTF-8", Some("save the file as UTF-8".into()));
            return None;
        }
    };
    // The parser takes NUL for the end of the file, and would leave the rest unread.
    let Some(at) = text.bytes().position(|byte| byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r')) else {
        return Some(text);
    };
    let message = format!("the control character U+{:04X} is not allowed", text.as_bytes()[at]);
    report.add(end_of(&text[..at]), "", message, Some("in double quotes, write it as an escape".into()));
    None
}

/// Says what the parser could not read, in words for people.
fn scan_error(error: &ScanError, text: &str, report: &mut Report) {
    let at = place(*error.marker());
    let number = at.line as usize;
    let line = super::excerpt::line_of(text, number).unwrap_or_default();
    let (message, help) = explain(error.info(), line);
    let at = if line.trim().is_empty() { last_written(text, number) } else { at };
    report.add_unparsed(at, message, help.map(Into::into));
}

/// The end of the last line before line `number` that is not blank: the parser notices some things late.
fn last_written(text: &str, number: usize) -> Span {
    let lines = super::excerpt::split_lines(text).take(number).zip(1..);
    let last = lines.filter(|(line, _)| !line.trim().is_empty()).last();
    last.map_or(Span::START, |(line, number)| Span::at(number, line.trim_end().chars().count().max(1)))
}

/// The parser's words, and ours beside them where a person needs more.
fn explain(info: &str, line: &str) -> (Cow<'static, str>, Option<&'static str>) {
    let in_flow = line.find("${").is_some_and(|at| line[..at].contains(['{', '[']));
    if in_flow {
        let message = "a value with `${…}` inside `[…]` or `{…}` is not in quotes";
        return (message.into(), Some("write it as \"${…}\""));
    }
    let known: &[(&str, &str, &str)] = &[
        ("indentation in quoted", "a quoted text never ends", "close the quotes, or indent its further lines"),
        ("tab", "a tab is used as indentation", "indent with spaces"),
        ("unknown anchor", "the alias has no anchor before it", "write `&name` where the value first stands"),
        (
            "scanning an anchor or alias",
            "`*` begins an alias, and `&` an anchor",
            "put text that begins with one of them in quotes",
        ),
        ("recursion limit", "`[` or `{` is nested too deeply", "nest less"),
        ("end of stream", "a quoted text never ends", "close the quotes"),
        ("document indicator", "a quoted text never ends", "close the quotes"),
        (
            "mapping values are not allowed",
            "`: ` is not allowed here",
            "put text that contains `: ` in quotes, and check the indentation",
        ),
        ("unknown escape", "this escape is not known", "write `\\\\` for a backslash, or use single quotes"),
        ("expected node content", "a value is missing here", "write one, or close what is open"),
        ("expected ',' or '}'", "`{` is not closed, or a comma is missing", "close it with `}`"),
        ("expected ',' or ']'", "`[` is not closed, or a comma is missing", "close it with `]`"),
        ("simple key expect", "`:` is missing after this key", "write `key: value`"),
        ("did not find expected key", "the indentation does not fit", "line it up with the keys above"),
        ("expected '-' indicator", "the indentation does not fit", "line it up with the `-` above"),
        ("byte order mark", "a byte order mark stands inside the file", "remove it"),
        (
            "indentation",
            "the indentation does not fit",
            "line it up with what it belongs to, or close the `[` or `{` before it",
        ),
    ];
    match known.iter().find(|(part, ..)| info.contains(part)) {
        Some((_, message, help)) => ((*message).into(), Some(help)),
        None => (format!("this is not YAML: {info}").into(), None),
    }
}

/// A marker as a place in the file; columns count from 1.
fn place(marker: Marker) -> Span {
    Span::at(marker.line(), marker.col() + 1)
}

/// The place just behind `text`.
fn end_of(text: &str) -> Span {
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    Span::at(line, column)
}

/// Whether YAML 1.2 reads a plain `text` as a boolean.
fn is_boolean(text: &str) -> bool {
    matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
}

/// Whether YAML 1.2 reads a plain `text` as a number.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.chars().any(|c| c.is_ascii_digit())
        && (digits.parse::<f64>().is_ok() || is_based(text))
}

/// Whether `text` is `0x…` or `0o…`.
fn is_based(text: &str) -> bool {
    let hex = text.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    let octal = text.strip_prefix("0o").is_some_and(|rest| rest.bytes().all(|b| matches!(b, b'0'..=b'7')));
    (hex || octal) && text.len() > 2
}

/// The longest file, 32 MiB.
pub(super) const BYTES_MAX: usize = 32 << 20;
/// Values in a file, with each alias counted as all it stands for.
const NODES_MAX: usize = 1_000_000;
/// Levels of nesting; the shape needs eight.
const DEPTH_MAX: usize = 64;
/// Aliases in a file.
const ALIASES_MAX: usize = 100_000;
