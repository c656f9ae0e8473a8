//! What RFC 9111 and its kin say of a shared cache, played through a real gateway before a real provider, case by case.
//!
//! The cases are in `suite/*.cases`, a file for each area; `docs/cache-conformance.md` tells which requirement is shown
//! where, by the groups' names. In these files
//!
//! - `## NAME` begins a group, `@ROUTE` says which of the [`ROUTES`] its next cases ask (`strict` until it does),
//!   `// …` is a comment;
//! - `- TITLE` begins a case, and its lines follow: `> METHOD SUFFIX | FIELDS` is a request to a path of the case's own,
//!   `< STATUS | FIELDS` the provider's answer to it, `? METHOD | FIELDS` what the provider must have been sent, and
//!   `= STATUS | FIELDS` what the client must get. A request is to be answered from what is kept unless answers follow
//!   it, and each of those must have been asked for. Among fields, `"…"` is a body, `*NAME` a field that must be there,
//!   `!NAME` one that must not, `NAME >= N` a number, and `+NAME: VALUE` a trailer. `< close` is a provider that goes away
//!   without answering; a body shorter than its `content-length` breaks off, and `= cut` is a client that sees it;
//! - `reused STATUS | FIELDS`, `asked STATUS | FIELDS`, `validated STATUS | FIELDS` and `kept | FIELDS` are whole cases:
//!   two plain requests, where the second is answered from what is kept, by the provider, by asking it whether what is
//!   kept is good still, or from what is kept with just these fields;
//! - `{-60}` is the date a minute ago, `{850 -60}` and `{asctime -60}` the same in the other forms, `{path}` the case's
//!   path.
//!
//! What is not said of an answer is that of the provider's latest whole one.

use crate::world::{Gateway, Message, Provider, Wire, lock, wait_until};
use jiff::Timestamp;
use jiff::tz::Offset;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

/// A file of cases, read.
struct Case<'t> {
    line: usize,
    route: &'t str,
    title: String,
    steps: Vec<Step>,
}

/// A request and what becomes of it.
#[derive(Debug, Default)]
struct Step {
    request: Part,
    answers: Vec<Part>,
    sent: Vec<Part>,
    gets: Part,
}

/// A line: what stands in it.
#[derive(Debug, Default, Clone)]
struct Part {
    /// A method and the path's suffix, or a status.
    word: String,
    fields: Vec<(String, String)>,
    present: Vec<String>,
    absent: Vec<String>,
    /// Fields that are numbers, and the least they may be.
    least: Vec<(String, u64)>,
    trailers: Vec<(String, String)>,
    text: Option<String>,
}

/// What stands for places in a case.
struct Places {
    /// The path of the case.
    path: String,
    /// Seconds since 1970 when its file was read, from which dates count.
    now: i64,
}

/// What the provider has to answer, and was asked, by the number of the case.
#[derive(Debug, Default)]
struct Turn {
    answers: VecDeque<Part>,
    asked: Vec<Message>,
}

/// A gateway and its provider, in the middle of a file.
struct Stage {
    gateway: Gateway,
    turns: Arc<Mutex<HashMap<String, Turn>>>,
    client: Wire,
    _provider: Provider,
}

// === impl Part ===

impl Part {
    /// Reads `WORD | name: value | *name | !name | name >= 1 | "text"`.
    fn read(line: &str, places: &Places) -> Self {
        let mut part = Part::default();
        for (place, segment) in line.split('|').map(str::trim).enumerate() {
            let segment = places.fill(segment);
            let field = |text: &str| {
                let (name, value) = text.split_once(':').unwrap_or_else(|| panic!("{text:?} is no field"));
                (name.trim().to_owned(), value.trim().to_owned())
            };
            match segment.chars().next() {
                _ if place == 0 => part.word = segment,
                Some('"') => part.text = Some(segment.trim_matches('"').to_owned()),
                Some('*') if !segment.contains(':') => part.present.push(segment[1..].to_owned()),
                Some('!') => part.absent.push(segment[1..].to_owned()),
                Some('+') => part.trailers.push(field(&segment[1..])),
                _ => match segment.split_once(">=") {
                    Some((name, least)) => {
                        part.least.push((name.trim().to_owned(), least.trim().parse().expect("a number")));
                    }
                    None => part.fields.push(field(&segment)),
                },
            }
        }
        part
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn lines(&self) -> String {
        self.fields.iter().fold(String::new(), |mut lines, (name, value)| {
            let _ = write!(lines, "{name}: {value}\r\n");
            lines
        })
    }

    fn status(&self) -> Option<u16> {
        self.word.parse().ok()
    }

    /// What is different in a message.
    fn differences(&self, message: &Message, told: &mut Vec<String>) {
        for (name, value) in &self.fields {
            let mut found = message.head.values(name).join(", ");
            if name == "cache-status" {
                found = found.split("; ").filter(|part| !part.starts_with("ttl=")).collect::<Vec<_>>().join("; ");
            }
            if found != *value {
                told.push(format!("{name} is {found:?}, not {value:?}"));
            }
        }
        for name in self.present.iter().filter(|name| message.head.values(name).is_empty()) {
            told.push(format!("{name} is not there"));
        }
        for name in &self.absent {
            let found = message.head.values(name);
            if !found.is_empty() {
                told.push(format!("{name} is there: {found:?}"));
            }
        }
        for (name, least) in &self.least {
            let found = message.head.values(name).join(", ");
            if found.parse::<u64>().ok().is_none_or(|found| found < *least) {
                told.push(format!("{name} is {found:?}, not {least} or more"));
            }
        }
        if let Some(text) = self.text.as_ref().filter(|text| **text != message.text()) {
            told.push(format!("the body is {:?}, not {text:?}", message.text()));
        }
    }
}

// === impl Case ===

impl<'t> Case<'t> {
    /// Reads a file.
    fn all(text: &'t str, now: i64) -> Vec<Self> {
        let (mut cases, mut route): (Vec<Case<'t>>, &str) = (Vec::new(), "strict");
        for (line, content) in (1..).zip(text.lines()).map(|(line, content)| (line, content.trim())) {
            let places = |route: &str, number: usize| Places { path: format!("/{route}/{number}"), now };
            let (sign, rest) = content.split_at(content.find(' ').unwrap_or(content.len()));
            match sign {
                "" | "//" | "#" => {}
                "##" => route = "strict",
                _ if content.starts_with('@') => route = &content[1..],
                "-" => cases.push(Case { line, route, title: rest.trim().to_owned(), steps: Vec::new() }),
                ">" | "<" | "?" | "=" => {
                    let part = Part::read(rest, &places(route, cases.len() - 1));
                    let steps = &mut cases.last_mut().expect("a case began").steps;
                    if sign == ">" {
                        steps.push(Step { request: part, ..Step::default() });
                        continue;
                    }
                    let step = steps.last_mut().unwrap_or_else(|| panic!("line {line} comes before a request"));
                    match sign {
                        "<" => step.answers.push(part),
                        "?" => step.sent.push(part),
                        _ => step.gets = part,
                    }
                }
                "reused" | "asked" | "validated" | "kept" => {
                    let steps = short(sign, Part::read(rest, &places(route, cases.len())));
                    cases.push(Case { line, route, title: content.to_owned(), steps });
                }
                _ => panic!("line {line} is nothing that a case has: {content}"),
            }
        }
        cases
    }
}

/// The steps of a case in one line.
fn short(kind: &str, mut first: Part) -> Vec<Step> {
    if first.word.is_empty() {
        first.word.push_str("200");
    }
    let get = Part { word: "GET".to_owned(), ..Part::default() };
    let mut second = Step { request: get.clone(), ..Step::default() };
    match kind {
        "asked" => second.answers.push(Part {
            word: "200".to_owned(),
            fields: vec![("cache-control".to_owned(), "no-store".to_owned())],
            ..Part::default()
        }),
        "kept" => {
            let fields = first.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("connection"));
            second.gets.fields = fields.cloned().collect();
        }
        "validated" => {
            let mut answer = Part { word: "304".to_owned(), ..Part::default() };
            let mut sent = Part { word: "GET".to_owned(), ..Part::default() };
            for (validator, condition) in [("etag", "if-none-match"), ("last-modified", "if-modified-since")] {
                if let Some(value) = first.value(validator) {
                    answer.fields.push((validator.to_owned(), value.to_owned()));
                    sent.fields.push((condition.to_owned(), value.to_owned()));
                }
            }
            assert!(!sent.fields.is_empty(), "there is nothing to validate by");
            second.answers.push(answer);
            second.sent.push(sent);
        }
        _ => {}
    }
    vec![Step { request: get, answers: vec![first], ..Step::default() }, second]
}

// === impl Places ===

impl Places {
    /// A text with its places filled in.
    fn fill(&self, text: &str) -> String {
        let (mut filled, mut rest) = (String::new(), text);
        while let Some((before, (place, after))) =
            rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
        {
            filled.push_str(before);
            let (form, seconds) = place.split_once(' ').unwrap_or(("", place));
            match (form, seconds.parse()) {
                (_, Ok(seconds)) => filled.push_str(&self.date(form, seconds)),
                _ if place == "path" => filled.push_str(&self.path),
                _ => panic!("{place:?} is no place"),
            }
            rest = after;
        }
        filled + rest
    }

    /// The date so many seconds from now.
    fn date(&self, form: &str, seconds: i64) -> String {
        let moment = Timestamp::from_second(self.now + seconds).expect("a time");
        let form = match form {
            "" => "%a, %d %b %Y %H:%M:%S GMT",
            "850" => "%A, %d-%b-%y %H:%M:%S GMT",
            "asctime" => "%a %b %e %H:%M:%S %Y",
            _ => panic!("{form:?} is no form of a date"),
        };
        Offset::UTC.to_datetime(moment).strftime(form).to_string()
    }
}

// === impl Stage ===

impl Stage {
    fn new() -> Self {
        let turns: Arc<Mutex<HashMap<String, Turn>>> = Arc::default();
        let script = Arc::clone(&turns);
        let provider = Provider::scripted(move |peer| {
            while let Some(request) = peer.request() {
                let target = request.head.line.split(' ').nth(1).unwrap_or_default();
                let number = target.split(['/', '?']).nth(2).unwrap_or_default().to_owned();
                let to_head = request.head.line.starts_with("HEAD ");
                let mut turns = lock(&script);
                let turn = turns.entry(number).or_default();
                turn.asked.push(request);
                // A request whose kept connection ended is sent once more.
                let goes = turn.answers.front().is_some_and(|answer| answer.word == "close");
                let answer = if goes { turn.answers.front().cloned() } else { turn.answers.pop_front() };
                drop(turns);
                let (bytes, ends) = written(answer, to_head);
                if peer.wire.try_send(bytes).is_err() || ends {
                    return;
                }
            }
        });
        let yaml = ROUTES.iter().fold(YAML.to_owned(), |mut yaml, (name, settings)| {
            let _ = writeln!(
                yaml,
                "  - {{ name: {name}, match: {{ path: \"/{name}/*\" }}, pool: main, retry: {{ attempts: 1 }}{settings} }}"
            );
            yaml
        });
        let gateway = Gateway::start(&yaml, &[("alpha", provider.address())]);
        let client = gateway.connect();
        Stage { gateway, turns, client, _provider: provider }
    }
}

/// An answer as it is sent, and whether the connection ends with it. Nobody was to be asked where there is none.
fn written(answer: Option<Part>, to_head: bool) -> (Vec<u8>, bool) {
    let Some(answer) = answer else {
        return (b"HTTP/1.1 500 No\r\ncache-control: no-store\r\ncontent-length: 0\r\n\r\n".to_vec(), false);
    };
    let Some(status) = answer.status() else { return (Vec::new(), true) };
    let mut head = format!("HTTP/1.1 {status} Whatever\r\n{}", answer.lines());
    let text = answer.text.as_deref().unwrap_or("a body");
    let bodiless = to_head || matches!(status, 204 | 304);
    if answer.value("transfer-encoding").is_some() {
        let trailers = Part { fields: answer.trailers.clone(), ..Part::default() }.lines();
        return (format!("{head}\r\n{:x}\r\n{text}\r\n0\r\n{trailers}\r\n", text.len()).into_bytes(), false);
    }
    let told = answer.value("content-length").and_then(|length| length.parse().ok());
    if told.is_none() && !matches!(status, 204 | 304) {
        let _ = write!(head, "content-length: {}\r\n", text.len());
    }
    let body = if bodiless { "" } else { text };
    (format!("{head}\r\n{body}").into_bytes(), !bodiless && told.is_some_and(|told: usize| told != text.len()))
}

impl Stage {
    /// Plays a case; what was not as it should be.
    fn play(&mut self, number: usize, case: &Case<'_>) -> Vec<String> {
        let mut told = Vec::new();
        // What the provider answered last that is whole: its status and body.
        let mut latest: (u16, String) = (0, String::new());
        for (place, step) in case.steps.iter().enumerate() {
            let before = told.len();
            let answers: VecDeque<Part> = step.answers.clone().into();
            let expected = answers.len();
            lock(&self.turns).insert(number.to_string(), Turn { answers, asked: Vec::new() });
            let answer = self.ask(&format!("/{}/{number}", case.route), &step.request, step.gets.word == "cut");
            if answer.as_ref().is_some_and(is_validated_behind) {
                let asked = || lock(&self.turns).get(&number.to_string()).map_or(0, |turn| turn.asked.len());
                wait_until("the provider is asked in the background", || asked() >= expected);
            }
            let turn = lock(&self.turns).remove(&number.to_string()).unwrap_or_default();
            let goes = step.answers.iter().any(|answer| answer.word == "close");
            if turn.asked.len() != expected && !(goes && turn.asked.len() > expected) {
                told.push(format!("the provider was asked {} times, not {expected}", turn.asked.len()));
            }
            for (sent, asked) in step.sent.iter().zip(&turn.asked) {
                if !asked.head.line.starts_with(&sent.word) {
                    told.push(format!("the provider was sent {:?}", asked.head.line));
                }
                let mut differences = Vec::new();
                sent.differences(asked, &mut differences);
                told.extend(differences.into_iter().map(|difference| format!("of what was sent, {difference}")));
            }
            for last in &step.answers {
                if let Some(status) = last.status().filter(|status| *status != 304) {
                    latest = (status, last.text.clone().unwrap_or_else(|| "a body".to_owned()));
                }
            }
            let Some(answer) = answer else { continue };
            let status = step.gets.status().unwrap_or(latest.0);
            if answer.status() != status {
                told.push(format!("the status is {}, not {status}", answer.status()));
            }
            let bodiless = step.request.word.starts_with("HEAD") || matches!(status, 204 | 304);
            let mut gets = step.gets.clone();
            if !bodiless && status == latest.0 && gets.text.is_none() {
                gets.text = Some(latest.1.clone());
            }
            gets.differences(&answer, &mut told);
            if told.len() > before {
                let cached = answer.head.values("cache-status").join(", ");
                told[before].insert_str(0, &format!("request {}: ", place + 1));
                told.push(format!("its cache-status is {cached:?}"));
            }
        }
        told
    }

    /// Asks on the connection there is. Of an answer that breaks off only that is seen.
    fn ask(&mut self, path: &str, request: &Part, breaks_off: bool) -> Option<Message> {
        let (method, suffix) = request.word.split_once(' ').unwrap_or((&request.word, ""));
        let mut head = format!("{method} {path}{suffix} HTTP/1.1\r\n{}", request.lines());
        if request.value("host").is_none() {
            head += "host: a\r\n";
        }
        let body = request.text.as_deref().unwrap_or_default();
        if !body.is_empty() || !matches!(method, "GET" | "HEAD") {
            let _ = write!(head, "content-length: {}\r\n", body.len());
        }
        self.client.send(format!("{head}\r\n{body}"));
        if breaks_off {
            self.client.rest();
            self.client = self.gateway.connect();
            return None;
        }
        let answer = self.client.answer_to(method);
        if answer.value("connection") == Some("close") {
            self.client = self.gateway.connect();
        }
        Some(answer)
    }
}

/// Whether the provider is asked when the client has its answer already.
fn is_validated_behind(answer: &Message) -> bool {
    answer.head.values("cache-status").last().is_some_and(|status| status.ends_with("detail=stale-while-revalidate"))
}

/// Plays a file.
fn play(name: &str, text: &str) {
    let mut stage = Stage::new();
    let cases = Case::all(text, Timestamp::now().as_second());
    let mut failed = String::new();
    for (number, case) in cases.iter().enumerate() {
        let told = stage.play(number, case);
        if !told.is_empty() {
            let _ = writeln!(failed, "suite/{name}.cases:{}: {}\n    {}", case.line, case.title, told.join("\n    "));
        }
    }
    assert!(failed.is_empty(), "of {} cases:\n{failed}", cases.len());
}

macro_rules! areas {
    ($($area:ident)*) => {$(
        #[test]
        fn $area() {
            play(stringify!($area), include_str!(concat!("suite/", stringify!($area), ".cases")));
        }
    )*};
}

areas! {
    age authorization conditional_dates conditional_tags directives expires freshness heuristics incomplete invalidation
    keys methods ranges requests stale statuses storing targeted update_304 update_head vary
}

/// The routes of the gateway before which cases are played, by the first segment of their paths.
const ROUTES: [(&str, &str); 6] = [
    ("strict", ", cache: { ttl: 0s, stale_while_revalidate: 0s, stale_if_error: 0s }"),
    ("ttl", ", cache: { ttl: 60s, stale_while_revalidate: 0s, stale_if_error: 0s }"),
    ("lenient", ", cache: { ttl: 0s, stale_while_revalidate: 0s, stale_if_error: 1h }"),
    ("revalidating", ", cache: { ttl: 0s, stale_while_revalidate: 1h, stale_if_error: 0s }"),
    ("post", ", cache: { ttl: 0s, stale_while_revalidate: 0s, stale_if_error: 0s, post: true }"),
    ("plain", ""),
];

const YAML: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers:
  alpha:
    url: \"http://{alpha}\"
    circuit_breaker: { failure_threshold: 1000000, failure_rate: 1, minimum_requests: 1000000 }
pools: { main: { providers: [alpha] } }
routes:
";
