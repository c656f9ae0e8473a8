//! The shape as JSON Schema, for editors, and as the key table of the documentation. Only what is built is listed.

use super::file::{self, Node, Value as Yaml};
use super::problem::Report;
use super::shape::{self, Key, Kind, Names, Standard, Word};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// The JSON Schema (2020-12) of `gateway.yaml`.
#[must_use]
pub fn schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gateway.yaml",
        "description": "The configuration of the Sluice HTTP gateway.",
    });
    if let (Value::Object(schema), Value::Object(top)) = (&mut schema, object(shape::ROOT, true)) {
        schema.extend(top);
        schema.insert("$defs".into(), json!({ EXPANDED: expanded() }));
    }
    schema
}

/// The key table in Markdown: one row a key, in the order of the shape.
#[must_use]
pub fn key_table() -> String {
    let mut table = String::from("| key | type | default | meaning |\n|---|---|---|---|\n");
    rows("", shape::ROOT, &mut table);
    table
}

/// A value that `${…}` fills in: what it will be is not known to an editor.
fn expanded() -> Value {
    json!({ "type": "string", "pattern": "\\$\\{", "description": "Filled in from the environment or a file." })
}

/// A mapping with fixed keys. In `defaults` and what they complete nothing is required: it may stand in the other.
fn object(keys: &'static [Key], complete: bool) -> Value {
    let built = || keys.iter().filter(|key| key.built);
    let properties: Map<String, Value> =
        built().map(|key| (key.name.to_owned(), property(key, complete && !is_shared(key)))).collect();
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    let required: Vec<&str> = built().filter(|key| key.default == Standard::Required).map(|key| key.name).collect();
    if complete && !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Whether a part of what stands under `key` may be written somewhere else.
fn is_shared(key: &Key) -> bool {
    matches!(key.name, "defaults" | "providers" | "pools")
}

fn property(key: &'static Key, complete: bool) -> Value {
    let mut schema = Map::new();
    schema.insert("description".into(), key.meaning.into());
    if let Standard::Is(text) = key.default {
        schema.insert("default".into(), yaml(text));
    }
    if let Value::Object(kind) = value(&key.kind, complete) {
        schema.extend(kind);
    }
    Value::Object(schema)
}

fn value(kind: &'static Kind, complete: bool) -> Value {
    match kind {
        Kind::Bool => or_expanded(&json!({ "type": "boolean" })),
        Kind::Int(min, u64::MAX) => or_expanded(&json!({ "type": "integer", "minimum": min })),
        Kind::Int(min, max) => or_expanded(&json!({ "type": "integer", "minimum": min, "maximum": max })),
        Kind::Fraction => or_expanded(&json!({ "type": "number" })),
        Kind::Number(min, max) => or_expanded(&json!({ "type": "number", "minimum": min, "maximum": max })),
        Kind::Condition => json!({
            "anyOf": [{ "type": "integer", "minimum": 200, "maximum": 599 },
                pattern("^(connect|reset|timeout|[2-5]([0-9][0-9]|xx))$")]
        }),
        Kind::StatusRange => {
            json!({ "anyOf": [{ "type": "integer", "minimum": 200, "maximum": 599 },
                pattern("^[2-5][0-9][0-9]( *- *[2-5][0-9][0-9])?$")] })
        }
        Kind::HashBy => pattern("^(header:.+|cookie:.+|ip|client)$"),
        Kind::HedgeAfter => pattern("^(p[0-9]+(\\.[0-9]+)?|[0-9]+ *(ms|s|m|h))$"),
        Kind::Value | Kind::SecretValue => json!({ "type": ["string", "number", "boolean"] }),
        Kind::Duration | Kind::DurationOrOff => pattern("^[0-9]+ *(ms|s|m|h)$"),
        Kind::Size(..) => {
            json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, pattern("^[0-9]+ *(B|KiB|MiB|GiB|TiB)?$")] })
        }
        Kind::ByteRate => json!({ "anyOf": [{ "const": 0 }, pattern("^(0|[0-9]+ *(B|KiB|MiB|GiB|TiB)? */s)$")] }),
        Kind::TlsVersion => or_expanded(&json!({ "enum": ["1.2", "1.3", 1.2, 1.3] })),
        Kind::Rate => pattern("^[0-9]+ */ *(s|m|h)$"),
        Kind::ProviderUrl => pattern("^([Hh][Tt][Tt][Pp][Ss]?|[Hh]2[Cc])://"),
        Kind::PathPattern | Kind::PathPrefix | Kind::Target => pattern("^/"),
        Kind::Words(words) => or_expanded(&json!({ "enum": built_words(words) })),
        Kind::List(of, min, max) => {
            json!({ "type": "array", "items": value(of, complete), "minItems": min, "maxItems": max })
        }
        Kind::Map(names, of) => map(*names, of, complete),
        Kind::Object(keys) => object(keys, complete),
        Kind::Either(kinds) => {
            let built = kinds.iter().filter(|kind| kind.is_built());
            json!({ "anyOf": built.map(|kind| value(kind, complete)).collect::<Vec<_>>() })
        }
        _ => json!({ "type": "string" }),
    }
}

fn map(names: Names, of: &'static Kind, complete: bool) -> Value {
    let mut schema = json!({ "type": "object", "additionalProperties": value(of, complete) });
    match names {
        Names::Things => schema["propertyNames"] = json!({ "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]*$" }),
        Names::Fields => schema["propertyNames"] = json!({ "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$" }),
        Names::Any => {}
    }
    schema
}

/// Text of a form, or text that is filled in.
fn pattern(form: &str) -> Value {
    json!({ "type": "string", "pattern": format!("{form}|\\$\\{{") })
}

fn or_expanded(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "$ref": format!("#/$defs/{EXPANDED}") }] })
}

/// The words that are built; those that YAML reads as numbers as numbers.
fn built_words(words: &[Word]) -> Vec<Value> {
    words.iter().filter(|word| word.built).map(|word| yaml(word.word)).collect()
}

/// A default as JSON, read as YAML reads it.
fn yaml(text: &str) -> Value {
    let node = file::read(text, &mut |_, _, _| None, &mut Report::default());
    node.map_or(Value::Null, |node| json_of(&node))
}

fn json_of(node: &Node) -> Value {
    match &node.value {
        Yaml::Scalar(scalar) if scalar.looks_typed() => serde_json::from_str(&scalar.text).unwrap_or(Value::Null),
        Yaml::Scalar(scalar) => json!(&*scalar.text),
        Yaml::List(items) => items.iter().map(json_of).collect(),
        Yaml::Map(entries) => entries.iter().map(|entry| (entry.key.to_string(), json_of(&entry.node))).collect(),
    }
}

/// The rows of `keys` and of all below them.
fn rows(path: &str, keys: &'static [Key], table: &mut String) {
    for key in keys.iter().filter(|key| key.built) {
        let name = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        let default = match key.default {
            Standard::Required => "required".to_owned(),
            Standard::Off => String::new(),
            Standard::Is(text) => format!("`{text}`"),
        };
        let kind = key.kind.describe().replace('|', "\\|");
        let meaning = key.meaning.replace('|', "\\|");
        let _ = writeln!(table, "| `{name}` | {kind} | {default} | {meaning} |");
        if path != "defaults" {
            below(&name, &key.kind, table);
        }
    }
}

fn below(path: &str, kind: &'static Kind, table: &mut String) {
    match kind {
        Kind::Object(keys) => rows(path, keys, table),
        Kind::List(of, ..) => below(&format!("{path}[]"), of, table),
        Kind::Map(Names::Things, of) => below(&format!("{path}.NAME"), of, table),
        Kind::Map(_, of) => below(&format!("{path}.FIELD"), of, table),
        Kind::Either(kinds) => kinds.iter().for_each(|kind| below(path, kind, table)),
        _ => {}
    }
}

/// The definition that every value made by `${…}` fits.
const EXPANDED: &str = "expanded";

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `visit` with every key of the shape, built or not.
    fn every_key(keys: &'static [Key], visit: &mut impl FnMut(&'static Key)) {
        for key in keys {
            visit(key);
            shape::inner(&key.kind, &mut |keys| every_key(keys, visit));
        }
    }

    #[test]
    fn every_built_key_says_what_it_means_and_every_other_has_no_default() {
        every_key(shape::ROOT, &mut |key| {
            assert_eq!(key.built, !key.meaning.is_empty(), "{}", key.name);
            assert!(key.built || key.default == Standard::Off, "{}", key.name);
        });
    }

    #[test]
    fn every_default_is_a_value_of_its_own_type() {
        use crate::config::conform::{At, Context, conform};
        every_key(shape::ROOT, &mut |key| {
            let Standard::Is(text) = key.default else { return };
            let mut report = Report::default();
            let node = file::read(text, &mut |_, _, _| None, &mut report).expect("a default is YAML");
            let env = crate::config::ProcessEnvironment;
            let mut cx = Context::new(report, &env, std::path::Path::new(""));
            conform(&node, &key.kind, &At::TOP, &mut cx);
            let problems = cx.report.finish(key.name, text);
            assert!(problems.is_ok(), "{}: {problems:?}", key.name);
        });
    }

    #[test]
    fn the_schema_lists_only_what_is_built() {
        let schema = schema();
        assert_eq!(schema["properties"]["version"]["default"], json!(1));
        assert!(schema["properties"].get("alerts").is_none());
        let route = &schema["properties"]["routes"]["items"];
        assert_eq!(route["required"], json!(["name"]));
        assert!(route["properties"].get("rate_limit").is_none());
        let laid = &schema["properties"]["defaults"]["properties"]["route"];
        assert!(laid.get("required").is_none());
        assert_eq!(route["properties"]["redirect"]["properties"]["status"]["anyOf"][0]["enum"][4], json!(308));
    }
}
