//! `sluice schema`: the shape of the configuration, for editors.

use crate::config;

/// The JSON Schema (2020-12) of `gateway.yaml`; what is not built yet is not in it.
#[must_use]
pub fn schema() -> serde_json::Value {
    config::schema()
}
