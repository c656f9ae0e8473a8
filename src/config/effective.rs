//! effective
use super::types::Config;
use serde_json::Value;
/// The effective configuration.
#[must_use]
pub fn effective(_config: &Config) -> Value {
    Value::Null
}
