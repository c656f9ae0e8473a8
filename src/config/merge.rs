//! `defaults:` laid under each route, pool and provider: mappings merge, lists and single values replace.

use super::file::{Entry, Node};
use super::shape::Kind;

/// `above` with what it leaves out taken from `below`.
pub(super) fn lay(below: &Node, above: &Node, kind: &'static Kind) -> Node {
    let (Some(lower), Some(upper)) = (below.entries(), above.entries()) else { return above.clone() };
    let of = |key: &str| -> Option<&'static Kind> {
        match kind {
            Kind::Object(keys) => keys.iter().find(|known| known.name == key).map(|known| &known.kind),
            Kind::Map(_, of) => Some(of),
            _ => None,
        }
    };
    let merged = |entry: &Entry| match (below.entry(&entry.key), of(&entry.key)) {
        (Some(under), Some(kind @ (Kind::Object(_) | Kind::Map(..)))) => {
            Entry { node: lay(&under.node, &entry.node, kind), ..entry.clone() }
        }
        _ => entry.clone(),
    };
    let mut entries: Vec<Entry> = upper.iter().map(merged).collect();
    let has_action = upper.iter().any(|entry| ACTIONS.contains(&&*entry.key));
    let missing = |entry: &&Entry| above.entry(&entry.key).is_none() && !(has_action && ACTIONS.contains(&&*entry.key));
    entries.extend(lower.iter().filter(missing).cloned());
    Node::map(above.span, entries)
}

/// What a route does. A route that says so itself takes none from the defaults.
pub(super) const ACTIONS: [&str; 3] = ["pool", "respond", "redirect"];
