//! A request made into a cheaper one: other fields, another path, other fields in the JSON of its body. ◇
//!
//! A request that cannot be made cheaper as the operator wants it is not sent as it is: the rung is passed over. One without
//! a body has nothing there to change, and is sent with what else is changed.

use super::frame::Request;
use crate::config::{self, HeaderRules, JsonRules, Rewrite};
use crate::http1::framing::Length;
use serde::de::IgnoredAny;
use std::borrow::Cow;

/// What is changed about a request.
#[derive(Debug)]
pub struct Reduced {
    /// The route's changes and these, together: this is what goes with the request.
    pub rewrite: Rewrite,
    path: Option<(String, Option<String>)>,
    json: JsonRules,
}

/// The body of a reduced request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// As it came.
    Same,
    /// This.
    Changed(Vec<u8>),
    /// It cannot be made what the operator wants.
    Unfit,
}

// === impl Reduced ===

impl Reduced {
    /// Lays `reduced` over the `route`'s changes.
    pub fn compile(route: &Rewrite, reduced: &config::Reduced) -> Self {
        let split = |target: &String| match target.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (target.clone(), None),
        };
        let (rewrite, path) = (rewrite(route, reduced), reduced.path.as_ref().map(split));
        Reduced { rewrite, path, json: reduced.json.clone() }
    }

    /// The request as it goes on, with its body `changed` where that is.
    #[must_use]
    pub fn request<'a>(&'a self, request: &'a Request<'a>, changed: Option<&[u8]>) -> Request<'a> {
        let own = self.path.as_ref();
        let query = own.and_then(|(_, query)| query.as_deref());
        Request {
            head: request.head,
            method: request.method,
            host: Cow::Borrowed(&request.host),
            authority: request.authority,
            path: own.map_or(request.path, |(path, _)| path),
            query: query.or(request.query),
            length: changed.map_or(request.length, |body| Length::Exact(body.len() as u64)),
            keep_alive: request.keep_alive,
            upgrade: request.upgrade,
            expects_continue: request.expects_continue && changed.is_none(),
        }
    }

    /// Whether the body has to be there as a whole before the request can go on.
    #[must_use]
    pub fn wants_body(&self, request: &Request<'_>) -> bool {
        !self.json.is_empty() && !matches!(request.length, Length::None | Length::Exact(0))
    }

    /// The body that goes on, where `body` is the whole that came.
    #[must_use]
    pub fn body(&self, request: &Request<'_>, body: &[u8]) -> Body {
        if !self.wants_body(request) || body.is_empty() {
            return Body::Same;
        }
        let coded =
            request.head.fields.named(b"content-encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity"));
        if coded || body.len() > JSON_BYTES_MAX {
            return Body::Unfit;
        }
        json(&self.json, body).map_or(Body::Unfit, Body::Changed)
    }
}

/// The route's changes with those of a reduced request over them.
fn rewrite(route: &Rewrite, reduced: &config::Reduced) -> Rewrite {
    let mut rewrite = route.clone();
    if reduced.path.is_some() {
        (rewrite.strip_prefix, rewrite.add_prefix) = (None, None);
    }
    let over = &reduced.headers;
    let (mut set, mut remove) = (route.headers.set().to_vec(), route.headers.remove().to_vec());
    set.retain(|(name, _)| !over.remove().contains(name) && over.set().iter().all(|(other, _)| other != name));
    set.extend_from_slice(over.set());
    remove.extend_from_slice(over.remove());
    remove.extend(OF_THE_WHOLE.map(ToOwned::to_owned));
    if !reduced.json.is_empty() {
        remove.extend(DIGESTS.map(ToOwned::to_owned));
    }
    rewrite.headers = HeaderRules::new(set, remove);
    rewrite
}

/// `body` with its own fields changed; the bytes of all others stay what they are. `None` where it is no JSON object.
#[must_use]
pub fn json(rules: &JsonRules, body: &[u8]) -> Option<Vec<u8>> {
    // From here on it is known to be valid, and finding its fields is no more than counting brackets.
    serde_json::from_slice::<IgnoredAny>(body).ok()?;
    let members = members(body)?;
    let name = |key: &[u8]| serde_json::from_slice::<String>(key).unwrap_or_default();
    let is_changed =
        |name: &str| rules.remove.iter().any(|other| other == name) || rules.set.iter().any(|(other, _)| other == name);
    let mut out = Vec::with_capacity(body.len());
    out.push(b'{');
    for (key, value) in members.into_iter().filter(|(key, _)| !is_changed(&name(key))) {
        out.extend_from_slice(key);
        out.push(b':');
        out.extend_from_slice(value);
        out.push(b',');
    }
    for (name, value) in &rules.set {
        out.extend_from_slice(serde_json::Value::from(&**name).to_string().as_bytes());
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
        out.push(b',');
    }
    if out.len() > 1 {
        out.pop();
    }
    out.push(b'}');
    Some(out)
}

/// Names, in their quotes, and values of a JSON object's own fields; `None` where valid JSON is no object.
fn members(text: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut rest = text.trim_ascii().strip_prefix(b"{")?.trim_ascii_start();
    let mut members = Vec::new();
    while !rest.is_empty() && rest[0] != b'}' {
        let (key, after) = rest.split_at(end_of_value(rest));
        let after = after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let (value, after) = after.split_at(end_of_value(after));
        members.push((key.trim_ascii_end(), value.trim_ascii_end()));
        rest = after.strip_prefix(b",").unwrap_or(after).trim_ascii_start();
    }
    Some(members)
}

/// Where the value ends that valid JSON begins with: at what separates it from the next, or closes what it is in.
fn end_of_value(text: &[u8]) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b',' | b':' | b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// The largest body whose JSON is changed: it is copied, beside what is kept of it.
pub const JSON_BYTES_MAX: usize = 4 << 20;

/// Fields that ask for a part of what the client means, or whether its copy of that is good still. What answers a reduced
/// request is something else: its part would be put to the client's other parts, its `304` would be about itself.
const OF_THE_WHOLE: [&str; 4] = ["range", "if-range", "if-none-match", "if-modified-since"];

/// Fields that would no longer agree with a body that was changed (RFC 9530, and what came before it).
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::http1::head::RequestHead;
    use crate::proxy::frame;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    fn rules(set: &[(&str, &str)], remove: &[&str]) -> JsonRules {
        JsonRules {
            set: set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn changed(rules: &JsonRules, body: &str) -> Option<String> {
        json(rules, body.as_bytes()).map(|body| String::from_utf8(body).expect("text"))
    }

    #[test]
    fn fields_are_set_and_removed_and_all_others_stay_to_the_byte() {
        let rules = rules(&[("model", "\"small\""), ("max_tokens", "64")], &["tools"]);
        let body = r#" { "model": "large", "tools" : [{"a": "}"}, 1], "seed": 12345678901234567890.50e+1,
            "messages": [ {"content": "a \" \\", "n": {}} ] } "#;
        let expected = concat!(
            r#"{"seed":12345678901234567890.50e+1,"messages":[ {"content": "a \" \\", "n": {}} ],"#,
            r#""model":"small","max_tokens":64}"#
        );
        assert_eq!(changed(&rules, body).as_deref(), Some(expected));
    }

    #[test]
    fn a_field_is_found_however_it_is_spelt_and_however_often() {
        let rules = rules(&[("model", "1")], &["x"]);
        let body = r#"{"mod\u0065l":"large","x":1,"model":2,"\u0078":{"model":3}}"#;
        assert_eq!(changed(&rules, body).as_deref(), Some(r#"{"model":1}"#));
        let nested = r#"{"a":{"model":2,"x":1}}"#;
        assert_eq!(changed(&rules, nested).as_deref(), Some(r#"{"a":{"model":2,"x":1},"model":1}"#));
    }

    #[test]
    fn an_object_may_end_up_empty() {
        assert_eq!(changed(&rules(&[], &["a"]), r#"{"a":1}"#).as_deref(), Some("{}"));
        assert_eq!(changed(&rules(&[("a", "true")], &[]), "{}").as_deref(), Some(r#"{"a":true}"#));
    }

    #[test]
    fn what_is_no_json_object_cannot_be_changed() {
        for body in
            ["", "[]", "1", "\"{}\"", "{", "{}{}", "{\"a\":}", "{a:1}", "model=large", "\u{feff}{}", "{\"a\":1,}"]
        {
            assert_eq!(changed(&rules(&[("a", "1")], &[]), body), None, "{body}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let body = format!(r#"{{"deep":{deep}}}"#);
        assert!(changed(&rules(&[("a", "1")], &[]), &body).is_none_or(|changed| changed.contains(&deep)));
    }

    #[test]
    fn the_routes_changes_stay_where_these_say_nothing_else() {
        let header = |name: &str, value: &str| (name.to_owned(), Secret::new(value));
        let route = Rewrite {
            strip_prefix: Some("/api".into()),
            headers: HeaderRules::new(vec![header("x-a", "1"), header("x-b", "1")], vec!["cookie".into()]),
            ..Rewrite::default()
        };
        let mut reduced = config::Reduced {
            headers: HeaderRules::new(vec![header("x-b", "2")], vec!["x-a".into()]),
            ..config::Reduced::default()
        };
        let laid = rewrite(&route, &reduced);
        assert_eq!(laid.headers.set(), [header("x-b", "2")]);
        assert_eq!(laid.headers.remove()[..2], ["cookie", "x-a"]);
        assert!(laid.headers.remove().contains(&"range".to_owned()), "it would be a part of something else");
        assert_eq!(laid.strip_prefix.as_deref(), Some("/api"));
        reduced.path = Some("/lite".into());
        reduced.json = rules(&[("a", "1")], &[]);
        let laid = rewrite(&route, &reduced);
        assert_eq!(laid.strip_prefix, None);
        assert!(laid.headers.remove().contains(&"content-digest".to_owned()), "it would not agree any more");
    }

    /// What a provider would be asked for a request with this head and body: path, query, length and body.
    fn asked(reduced: &Reduced, head: &str, body: &[u8]) -> (String, Option<String>, Length, Body) {
        let (mut parsed, mut scratch) = (RequestHead::default(), String::new());
        parsed.parse(head.as_bytes(), 20).expect("a head");
        let request = frame::check(&parsed, &mut scratch).expect("a request");
        let changed = reduced.body(&request, body);
        let sent = reduced.request(&request, if let Body::Changed(body) = &changed { Some(body) } else { None });
        (sent.path.to_owned(), sent.query.map(ToOwned::to_owned), sent.length, changed)
    }

    fn reduced(path: Option<&str>, json: JsonRules) -> Reduced {
        let reduced = config::Reduced { path: path.map(ToOwned::to_owned), json, ..config::Reduced::default() };
        Reduced::compile(&Rewrite::default(), &reduced)
    }

    #[test]
    fn a_path_takes_the_place_of_the_requests_and_a_query_only_where_it_has_one() {
        let head = "GET /items?q=1 HTTP/1.1\r\nhost: a\r\n\r\n";
        let target = |path| {
            let (path, query, ..) = asked(&reduced(path, JsonRules::default()), head, b"");
            (path, query.unwrap_or_default())
        };
        assert_eq!(target(None), ("/items".to_owned(), "q=1".to_owned()));
        assert_eq!(target(Some("/lite")), ("/lite".to_owned(), "q=1".to_owned()));
        assert_eq!(target(Some("/lite?few=1")), ("/lite".to_owned(), "few=1".to_owned()));
    }

    #[test]
    fn a_body_is_changed_with_its_length_or_the_request_is_unfit() {
        let reduced = reduced(None, rules(&[("n", "1")], &[]));
        let post = |fields: &str, body: &str| {
            let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
            let (_, _, length, body) = asked(&reduced, &head, body.as_bytes());
            (length, body)
        };
        let changed = Body::Changed(br#"{"n":1}"#.to_vec());
        assert_eq!(post("content-length: 2\r\n", "{}"), (Length::Exact(7), changed.clone()));
        assert_eq!(post("transfer-encoding: chunked\r\n", "{}"), (Length::Exact(7), changed));
        assert_eq!(post("", ""), (Length::None, Body::Same), "nothing is there to change");
        assert_eq!(post("content-length: 2\r\n", "[]"), (Length::Exact(2), Body::Unfit));
        let coded = "content-encoding: gzip\r\ncontent-length: 2\r\n";
        assert_eq!(post(coded, "{}").1, Body::Unfit);
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(JSON_BYTES_MAX));
        assert_eq!(post(&format!("content-length: {}\r\n", long.len()), &long).1, Body::Unfit);
    }

    #[test]
    fn a_request_of_which_no_json_is_asked_goes_on_with_any_body() {
        let (.., length, body) = asked(
            &reduced(Some("/lite"), JsonRules::default()),
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n",
            b"a=b",
        );
        assert_eq!((length, body), (Length::Exact(3), Body::Same));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c\"\\\\{}\\[\\],: é]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-c\"\\\\:,é]{0,2}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against the same change made to a parsed value.
        #[test]
        fn the_result_is_what_a_parser_would_make_of_it(
            body in any_json(), set in prop::collection::btree_map("[a-c\"\\\\é]{0,2}", 0..9_u8, 0..3),
            remove in prop::collection::vec("[a-c\"\\\\é]{0,2}", 0..3), pretty: bool
        ) {
            let remove: Vec<String> = remove.into_iter().filter(|name| !set.contains_key(name)).collect();
            let rules = JsonRules {
                set: set.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
                remove: remove.clone(),
            };
            let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) };
            let changed = json(&rules, text.expect("JSON").as_bytes());
            let expected = body.as_object().map(|members| {
                let mut members: Map<String, Value> = members.clone();
                members.retain(|name, _| !remove.contains(name));
                members.extend(set.into_iter().map(|(name, value)| (name, json!(value))));
                Value::Object(members)
            });
            let changed = changed.map(|text| serde_json::from_slice::<Value>(&text).expect("JSON"));
            prop_assert_eq!(changed, expected);
        }
    }
}
