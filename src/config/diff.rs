//! diff
use serde_json::Value;
/// One setting that differs.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Change {
    /// Keys on the way there.
    pub path: String,
    /// What it was.
    pub from: Value,
    /// What it is.
    pub to: Value,
}
/// What differs.
#[must_use]
pub fn diff(_old: &Value, _new: &Value) -> Vec<Change> {
    Vec::new()
}
