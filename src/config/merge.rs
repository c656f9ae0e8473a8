//! `defaults:` laid under each route, pool and provider: mappings merge, lists and single values replace.

use super::file::{Entry, Node};
use super::shape::Kind;
use std::collections::HashMap;

/// How much may still be laid: short defaults under many routes are cheap, long ones under many would be a bomb.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

// === impl Budget ===

impl Budget {
    pub(super) fn new() -> Self {
        Budget { left: LAID_MAX }
    }

    /// `above` with what it leaves out taken from `below`; `None` when too much was laid already.
    pub(super) fn lay(&mut self, below: &Node, above: &Node, kind: &'static Kind) -> Option<Node> {
        self.left = self.left.checked_sub(below.size())?;
        Some(lay(below, above, kind))
    }
}

fn lay(below: &Node, above: &Node, kind: &'static Kind) -> Node {
    let (Some(lower), Some(upper)) = (below.entries(), above.entries()) else { return above.clone() };
    let under: HashMap<&str, &Entry> = lower.iter().map(|entry| (&*entry.key, entry)).collect();
    let over: HashMap<&str, &Entry> = upper.iter().map(|entry| (&*entry.key, entry)).collect();
    let merged = |entry: &Entry| match (under.get(&*entry.key), kind_of(kind, &entry.key)) {
        (Some(under), Some(kind @ (Kind::Object(_) | Kind::Map(..)))) => {
            Entry { node: lay(&under.node, &entry.node, kind), ..entry.clone() }
        }
        _ => entry.clone(),
    };
    let mut entries: Vec<Entry> = upper.iter().map(merged).collect();
    let has_action = ACTIONS.iter().any(|action| over.contains_key(action));
    let replaced = |entry: &&Entry| over.contains_key(&*entry.key) || (has_action && ACTIONS.contains(&&*entry.key));
    entries.extend(lower.iter().filter(|entry| !replaced(entry)).cloned());
    Node::map(above.span, entries)
}

/// What the value of `key` is within `kind`.
fn kind_of(kind: &'static Kind, key: &str) -> Option<&'static Kind> {
    match kind {
        Kind::Object(keys) => keys.iter().find(|known| known.name == key).map(|known| &known.kind),
        Kind::Map(_, of) => Some(of),
        _ => None,
    }
}

/// What a route does. A route that says so itself takes none from the defaults.
pub(super) const ACTIONS: [&str; 3] = ["pool", "respond", "redirect"];
/// Values laid in one file.
const LAID_MAX: usize = 4_000_000;
