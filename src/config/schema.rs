//! schema
use serde_json::Value;
/// The schema.
#[must_use]
pub fn schema() -> Value {
    Value::Null
}
/// The key table.
#[must_use]
pub fn key_table() -> String {
    String::new()
}
