//! What differs between two dumps of [`super::effective()`].

use super::problem::MASK;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// One setting that differs.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Change {
    /// Keys on the way there; an item of a named list by its name: `routes[api].timeout`.
    pub path: String,
    /// What it was; null where it was not there.
    pub from: Value,
    /// What it is; null where it is gone. Two equal `***`: a secret that changed.
    pub to: Value,
}

/// What differs, in the order of the file. A secret that changed is told, and not shown.
#[must_use]
pub fn diff(old: &Value, new: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", old, new, &mut changes);
    let empty = Map::new();
    let secrets =
        |dump: &'_ Value| dump.get(SECRETS).and_then(Value::as_object).cloned().unwrap_or_else(|| empty.clone());
    let (before, after) = (secrets(old), secrets(new));
    let told: HashSet<String> = changes.iter().map(|change| change.path.clone()).collect();
    for (path, fingerprint) in &after {
        let differs = before.get(path).is_some_and(|other| other != fingerprint);
        if differs && !told.contains(path) {
            changes.push(Change { path: path.clone(), from: MASK.into(), to: MASK.into() });
        }
    }
    changes
}

fn compare(path: &str, old: &Value, new: &Value, changes: &mut Vec<Change>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => objects(path, old, new, changes),
        (Value::Array(old), Value::Array(new)) => lists(path, old, new, changes),
        _ if old == new => {}
        _ => changes.push(Change { path: path.to_owned(), from: old.clone(), to: new.clone() }),
    }
}

fn objects(path: &str, old: &Map<String, Value>, new: &Map<String, Value>, changes: &mut Vec<Change>) {
    let inner = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for (key, value) in old.iter().filter(|(key, _)| !is_secrets(path, key)) {
        compare(&inner(key), value, new.get(key).unwrap_or(&Value::Null), changes);
    }
    for (key, value) in new.iter().filter(|(key, _)| !is_secrets(path, key) && !old.contains_key(*key)) {
        compare(&inner(key), &Value::Null, value, changes);
    }
}

/// Lists of named things item by item, other lists as a whole.
fn lists(path: &str, old: &[Value], new: &[Value], changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    let (Some(before), Some(after)) = (by_name(old), by_name(new)) else {
        changes.push(Change { path: path.to_owned(), from: old.to_vec().into(), to: new.to_vec().into() });
        return;
    };
    for item in old {
        let name = name_of(item).unwrap_or_default();
        compare(&format!("{path}[{name}]"), item, after.get(name).copied().unwrap_or(&Value::Null), changes);
    }
    for item in new {
        let name = name_of(item).unwrap_or_default();
        if !before.contains_key(name) {
            compare(&format!("{path}[{name}]"), &Value::Null, item, changes);
        }
    }
    let order = |list: &[Value], other: &HashMap<&str, &Value>| -> Vec<Value> {
        list.iter().filter_map(name_of).filter(|name| other.contains_key(name)).map(Value::from).collect()
    };
    let (was, is) = (order(old, &after), order(new, &before));
    if was != is {
        changes.push(Change { path: path.to_owned(), from: was.into(), to: is.into() });
    }
}

/// Whether this is the mapping of fingerprints, which is compared apart.
fn is_secrets(path: &str, key: &str) -> bool {
    path.is_empty() && key == SECRETS
}

/// The items by name, where each has one of its own.
fn by_name(items: &[Value]) -> Option<HashMap<&str, &Value>> {
    let named: HashMap<&str, &Value> = items.iter().filter_map(|item| Some((name_of(item)?, item))).collect();
    (named.len() == items.len()).then_some(named)
}

fn name_of(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

/// Where [`super::effective()`] keeps the fingerprints.
const SECRETS: &str = "secrets";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_are_compared_by_name_and_their_order_is_told() {
        let old = json!({ "routes": [{ "name": "a", "timeout": "1s" }, { "name": "b" }, { "name": "gone" }] });
        let new = json!({ "routes": [{ "name": "b" }, { "name": "a", "timeout": "2s" }, { "name": "new" }] });
        let found: Vec<(String, Value, Value)> =
            diff(&old, &new).into_iter().map(|change| (change.path, change.from, change.to)).collect();
        let expected = [
            ("routes[a].timeout", json!("1s"), json!("2s")),
            ("routes[gone]", json!({ "name": "gone" }), Value::Null),
            ("routes[new]", Value::Null, json!({ "name": "new" })),
            ("routes", json!(["a", "b"]), json!(["b", "a"])),
        ];
        assert_eq!(found, expected.map(|(path, from, to)| (path.to_owned(), from, to)));
    }
}
