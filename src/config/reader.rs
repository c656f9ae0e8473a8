//! One mapping of the tree, read key by key: what is written where it is written, the shape's default where it is not.

use super::conform::{At, Context};
use super::expand::Origin;
use super::file::{Entry, Node, Scalar};
use super::problem::{MASK, Span, shown};
use super::scalar;
use super::shape::{Key, Kind, Standard};
use std::collections::HashMap;
use std::time::Duration;

/// Reads the keys of one mapping, written or not.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) node: Option<&'a Node>,
    keys: &'static [Key],
    pub(super) at: At<'a>,
    /// What to point at when a key is missing.
    pub(super) head: Span,
}

/// Names that can be referred to, in file order.
#[derive(Default)]
pub(super) struct Defined {
    names: Vec<String>,
    index: HashMap<String, usize>,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(super) fn new(node: Option<&'a Node>, keys: &'static [Key], at: At<'a>, head: Span) -> Self {
        Reader { node: node.filter(|node| node.entries().is_some()), keys, at, head }
    }

    /// The entry of `name`, if it is written.
    pub(super) fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.node?.entry(name)
    }

    /// Whether `name` is written.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// The mapping under `name`.
    pub(super) fn child<'b>(&'b self, name: &'static str) -> Reader<'b>
    where
        'a: 'b,
    {
        let keys: &'static [Key] = match self.key(name).map(|key| &key.kind) {
            Some(Kind::Object(keys)) => keys,
            _ => &[],
        };
        let entry = self.entry(name);
        let head = entry.map_or(self.head, |entry| entry.key_span);
        Reader::new(entry.map(|entry| &entry.node), keys, self.at.key(name), head)
    }

    /// The scalar of `name`, if one is written that means something.
    pub(super) fn scalar(&self, name: &str) -> Option<&'a Scalar> {
        self.entry(name)?.node.scalar().filter(|scalar| !scalar.is_null() && !scalar.is_unknown())
    }

    /// The text of `name`, if it is written and of its type.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.scalar(name).map(|scalar| &*scalar.text)
    }

    /// The items of the list `name`; none where it is not written.
    pub(super) fn items(&self, name: &str) -> &'a [Node] {
        self.entry(name).and_then(|entry| entry.node.items()).unwrap_or_default()
    }

    /// The entries of the mapping `name`; none where it is not written.
    pub(super) fn entries(&self, name: &str) -> &'a [Entry] {
        self.entry(name).and_then(|entry| entry.node.entries()).unwrap_or_default()
    }

    /// The value of `name`, or its default by the shape.
    pub(super) fn value<T: Default, F>(&self, name: &str, parse: impl Fn(&str) -> Result<T, F>) -> T {
        let written = self.text(name).and_then(|text| parse(text).ok());
        written.or_else(|| self.standard(name).and_then(|text| parse(text).ok())).unwrap_or_default()
    }

    /// The default of `name` as text.
    pub(super) fn standard(&self, name: &str) -> Option<&'static str> {
        match self.key(name)?.default {
            Standard::Is(text) => Some(text.trim_matches('"')),
            _ => None,
        }
    }

    /// What the shape says of `name`.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The duration of `name`, or its default; the same for what follows.
    pub(super) fn duration(&self, name: &str) -> Duration {
        self.value(name, scalar::duration)
    }

    /// The same; `None` where it is 0, which turns it off.
    pub(super) fn duration_or_off(&self, name: &str) -> Option<Duration> {
        Some(self.duration(name)).filter(|span| !span.is_zero())
    }

    pub(super) fn size(&self, name: &str) -> u64 {
        self.value(name, scalar::size)
    }

    pub(super) fn integer(&self, name: &str) -> u64 {
        self.value(name, |text| scalar::integer(text, 0, u64::MAX))
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        self.value(name, |text| scalar::number(text, 0.0, f64::MAX))
    }

    pub(super) fn boolean(&self, name: &str) -> bool {
        self.value(name, scalar::boolean)
    }

    /// The text of `name`, or its default.
    pub(super) fn word(&self, name: &str) -> &str {
        self.text(name).or_else(|| self.standard(name)).unwrap_or_default()
    }

    /// Reports `name` as missing unless it is written.
    pub(super) fn require(&self, name: &str, cx: &mut Context<'_>) -> bool {
        if self.has(name) {
            return true;
        }
        let message = format!("{}: `{name}` is missing", self.at);
        cx.problem(self.head, &self.at, message, Some(format!("write `{name}:` here")));
        false
    }
}

// === impl Defined ===

impl Defined {
    pub(super) fn new(names: impl Iterator<Item = String>) -> Self {
        let names: Vec<String> = names.collect();
        let index = names.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
        Defined { names, index }
    }

    /// The index of what `node` names; reports a name that nothing has.
    pub(super) fn resolve(
        &self,
        node: &Node,
        what: &str,
        section: &str,
        at: &At<'_>,
        cx: &mut Context<'_>,
    ) -> Option<usize> {
        let scalar = node.scalar().filter(|scalar| !scalar.is_null() && !scalar.looks_typed())?;
        if scalar.is_unknown() {
            return (!self.names.is_empty()).then_some(0);
        }
        if let Some(&index) = self.index.get(&*scalar.text) {
            return Some(index);
        }
        let named = if scalar.origin == Origin::Written { shown(&scalar.text) } else { format!("`{MASK}`") };
        let nearest = cx.did_you_mean(&scalar.text, self.names.iter().map(String::as_str));
        let shows = scalar.origin == Origin::Written;
        let help = nearest.filter(|_| shows).unwrap_or_else(|| format!("define it under `{section}`"));
        cx.problem(node.span, at, format!("{at}: there is no {what} {named}"), Some(help));
        None
    }
}
