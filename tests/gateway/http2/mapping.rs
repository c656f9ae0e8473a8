//! What a message becomes on its way between the two versions. Every test of [`Pair`] runs in all four pairs.

use super::ends::{Answer, Asked, Client, Http2Provider, send_all, values, wait};
use super::{before, before_http2};
use crate::world::{Extra, Gateway, Message, Peer, Provider, text};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// A client and a provider with the gateway between them.
struct Pair {
    client: Version,
    gateway: Gateway,
    provider: AnyProvider,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

enum AnyProvider {
    Http1(Provider),
    Http2(Http2Provider),
}

/// A request as the provider was told it, whatever it speaks.
#[derive(Debug)]
struct Told {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
}

/// What the provider answers to a path.
struct Reply {
    interims: &'static [(u16, &'static str)],
    status: u16,
    fields: &'static [(&'static str, &'static str)],
    body: &'static str,
    /// Its length is not told before.
    open: bool,
    trailers: &'static [(&'static str, &'static str)],
}

const ALL: [(Version, Version); 4] = [
    (Version::Http1, Version::Http1),
    (Version::Http1, Version::Http2),
    (Version::Http2, Version::Http1),
    (Version::Http2, Version::Http2),
];

fn reply(path: &str) -> Reply {
    let plain = Reply {
        interims: &[],
        status: 200,
        fields: &[("content-type", "text/plain"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-own", "kept")],
        body: "hello",
        open: false,
        trailers: &[],
    };
    match path {
        "/open" => Reply { open: true, ..plain },
        "/empty" => Reply { body: "", ..plain },
        "/none" => Reply { status: 204, body: "", open: true, ..plain },
        "/same" => Reply { status: 304, body: "", open: true, fields: &[("etag", "\"one\"")], ..plain },
        "/trailers" => Reply { open: true, trailers: &[("x-sum", "5"), ("grpc-status", "0")], ..plain },
        "/bare" => Reply { open: true, body: "", trailers: &[("x-sum", "0")], ..plain },
        "/hints" => Reply { interims: &[(103, "</a.css>"), (103, "</b.css>")], ..plain },
        "/bad" => Reply { status: 503, body: "down", ..plain },
        _ => plain,
    }
}

fn answer_http1(peer: &mut Peer) -> bool {
    if !peer.wire.begins() {
        return false;
    }
    let head = peer.wire.head();
    if head.value("expect").is_some() {
        peer.wire.send("HTTP/1.1 100 Continue\r\n\r\n");
    }
    let request = peer.keep(head);
    let mut words = request.head.line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Reply { interims, status, fields, body, open, trailers } = reply(target);
    for (status, link) in interims {
        peer.wire.send(format!("HTTP/1.1 {status} Early Hints\r\nlink: {link}\r\n\r\n"));
    }
    let rest = match (method == "HEAD" || matches!(status, 204 | 304), open) {
        (true, true) => "\r\n".to_owned(),
        (true, false) => format!("content-length: {}\r\n\r\n", body.len()),
        (false, open) => framed(body, !open, trailers),
    };
    peer.wire.send(format!("HTTP/1.1 {status} Whatever\r\n{}{rest}", lines(fields)));
    true
}

/// Field lines of HTTP/1.
fn lines(fields: &[(&str, &str)]) -> String {
    fields.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect()
}

/// A body of HTTP/1 and what its head says of it: its length, or that it comes in chunks.
fn framed(body: &str, length: bool, trailers: &[(&str, &str)]) -> String {
    let bytes = body.len();
    if length {
        return format!("content-length: {bytes}\r\n\r\n{body}");
    }
    let chunk = if body.is_empty() { String::new() } else { format!("{bytes:x}\r\n{body}\r\n") };
    format!("transfer-encoding: chunked\r\n\r\n{chunk}0\r\n{}\r\n", lines(trailers))
}

async fn answer_http2(mut asked: Asked) {
    let target = asked.head.uri.path_and_query().map_or("", |target| target.as_str()).to_owned();
    let Reply { interims, status, fields, body, open, trailers } = reply(&target);
    if asked.head.headers.contains_key("expect") {
        asked.respond.send_informational(Asked::head_of(100, &[])).expect("the gateway waits");
    }
    let told = asked.all().await.expect("a whole request");
    for (status, link) in interims {
        asked.respond.send_informational(Asked::head_of(*status, &[("link", link)])).expect("the gateway waits");
    }
    let length = body.len().to_string();
    let mut fields = fields.to_vec();
    if !open {
        fields.push(("content-length", &length));
    }
    let bodiless = told.head.method == "HEAD" || matches!(status, 204 | 304);
    let ends = bodiless || (body.is_empty() && trailers.is_empty());
    let mut send = asked.begin(status, &fields, ends);
    if ends {
        return;
    }
    if !body.is_empty() {
        send_all(&mut send, Bytes::from_static(body.as_bytes())).await;
    }
    if trailers.is_empty() {
        send.send_data(Bytes::new(), true).expect("the gateway listens");
    } else {
        send.send_trailers(map(trailers)).expect("the gateway listens");
    }
}

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"))
    };
    let mut map = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        map.append(name, value);
    }
    map
}

fn unmap(map: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

// === impl Pair ===

impl Pair {
    fn new((client, provider): (Version, Version)) -> Self {
        let (provider, gateway) = match provider {
            Version::Http1 => {
                let provider = Provider::scripted(|peer| while answer_http1(peer) {});
                let gateway = before("http", provider.address(), Extra::default());
                (AnyProvider::Http1(provider), gateway)
            }
            Version::Http2 => {
                let provider = Http2Provider::scripted(answer_http2);
                let gateway = before_http2(provider.address(), Extra::default());
                (AnyProvider::Http2(provider), gateway)
            }
        };
        Pair { client, gateway, provider }
    }

    fn versions(&self) -> String {
        let provider = if matches!(self.provider, AnyProvider::Http1(_)) { Version::Http1 } else { Version::Http2 };
        format!("{:?} to {provider:?}", self.client)
    }

    /// Sends a request; `length`: its length is told before. Where it has trailers, it is not.
    fn ask(
        &self,
        (method, target): (&str, &str),
        fields: &[(&str, &str)],
        body: Option<&str>,
        length: bool,
        trailers: &[(&str, &str)],
    ) -> Answer {
        match self.client {
            Version::Http1 => self.ask_http1((method, target), fields, body, length, trailers),
            Version::Http2 => self.ask_http2((method, target), fields, body, length, trailers),
        }
    }

    fn get(&self, target: &str) -> Answer {
        self.ask(("GET", target), &[], None, false, &[])
    }

    fn ask_http1(
        &self,
        (method, target): (&str, &str),
        fields: &[(&str, &str)],
        body: Option<&str>,
        length: bool,
        trailers: &[(&str, &str)],
    ) -> Answer {
        let mut client = self.gateway.connect();
        let rest = body.map_or("\r\n".to_owned(), |body| framed(body, length, trailers));
        client.send(format!("{method} {target} HTTP/1.1\r\nhost: one.test\r\n{}{rest}", lines(fields)));
        let mut interims = Vec::new();
        let head = loop {
            let head = client.head();
            if head.status() >= 200 {
                break head;
            }
            interims.push(Asked::head_of(head.status(), &[("link", head.value("link").unwrap_or_default())]));
        };
        let bodiless = method == "HEAD" || matches!(head.status(), 204 | 304);
        let fields: Vec<(&str, &str)> = head.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        let (status, fields) = (head.status(), map(&fields));
        let (body, trailers) = if bodiless {
            (Vec::new(), HeaderMap::new())
        } else {
            let message = client.body(head, true);
            let trailers: Vec<(&str, &str)> =
                message.trailers.iter().map(|(name, value)| (&**name, &**value)).collect();
            let trailers = map(&trailers);
            (message.body, trailers)
        };
        // What comes next is the next answer: this one had no byte more than it said.
        client.send("GET /none HTTP/1.1\r\nhost: one.test\r\nconnection: close\r\n\r\n");
        assert_eq!(client.answer().status(), 204, "{}", self.versions());
        client.closes();
        Answer { interims, status, fields, body, trailers }
    }

    fn ask_http2(
        &self,
        (method, target): (&str, &str),
        fields: &[(&str, &str)],
        body: Option<&str>,
        length: bool,
        trailers: &[(&str, &str)],
    ) -> Answer {
        let client = Client::connect(self.gateway.web());
        let mut request = client.request(method, target, fields);
        *request.uri_mut() = format!("http://one.test{target}").parse().expect("a URI");
        if let Some(body) = body.filter(|_| length) {
            request.headers_mut().insert("content-length", body.len().into());
        }
        let mut call = client.begin(request, body.is_none());
        if let Some(body) = body {
            wait("the body is taken", send_all(&mut call.body, Bytes::copy_from_slice(body.as_bytes())));
            if trailers.is_empty() {
                call.body.send_data(Bytes::new(), true).expect("the gateway listens");
            } else {
                call.body.send_trailers(map(trailers)).expect("the gateway listens");
            }
        }
        call.answer().unwrap_or_else(|error| panic!("{}: {method} {target}: {error}", self.versions()))
    }

    /// The request that the provider was told first.
    fn told(&self) -> Told {
        match &self.provider {
            AnyProvider::Http1(provider) => {
                let Message { head, body, trailers, .. } = provider.requests().into_iter().next().expect("a request");
                let mut words = head.line.split(' ').map(str::to_owned);
                let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                Told { method, target, fields: head.fields, body, trailers }
            }
            AnyProvider::Http2(provider) => {
                let told = provider.requests().into_iter().next().expect("a request");
                let authority = told.head.uri.authority().map_or("", |authority| authority.as_str()).to_owned();
                let mut fields = unmap(&told.head.headers);
                assert!(!told.head.headers.contains_key("host"), "{fields:?}");
                fields.push(("host".to_owned(), authority));
                let target = told.head.uri.path_and_query().map_or("", |target| target.as_str()).to_owned();
                let method = told.head.method.as_str().to_owned();
                Told { method, target, fields, body: told.body, trailers: unmap(&told.trailers) }
            }
        }
    }

    fn address(&self) -> String {
        match &self.provider {
            AnyProvider::Http1(provider) => provider.address().to_string(),
            AnyProvider::Http2(provider) => provider.address().to_string(),
        }
    }

    fn provider_speaks(&self, version: Version) -> bool {
        matches!(
            (&self.provider, version),
            (AnyProvider::Http1(_), Version::Http1) | (AnyProvider::Http2(_), Version::Http2)
        )
    }
}

// === impl Told ===

impl Told {
    fn values(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(candidate, _)| candidate.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    fn value(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() <= 1, "{name} is there more than once: {values:?}");
        values.first().copied()
    }
}

#[test]
fn a_request_without_a_body_arrives_as_it_was_and_so_does_its_answer() {
    for versions in ALL {
        let pair = Pair::new(versions);
        let fields = [("accept", "*/*"), ("x-one", "1"), ("x-two", "a"), ("x-two", "b"), ("te", "trailers")];
        let nominated = [("connection", "te, x-hop"), ("x-hop", "mine")];
        let sent = if pair.client == Version::Http1 { [&fields[..], &nominated].concat() } else { fields.to_vec() };
        let answer = pair.ask(("GET", "/a%20b?c=d"), &sent, None, false, &[]);
        let (about, told) = (pair.versions(), pair.told());
        assert_eq!((told.method.as_str(), told.target.as_str()), ("GET", "/a%20b?c=d"), "{about}");
        assert_eq!((told.value("host"), told.value("x-one")), (Some(&*pair.address()), Some("1")), "{about}");
        assert_eq!((told.values("x-two"), told.value("accept")), (vec!["a", "b"], Some("*/*")), "{about}");
        assert_eq!((told.value("te"), told.value("x-hop")), (Some("trailers"), None), "{about}");
        let connection = pair.provider_speaks(Version::Http1).then_some("te");
        assert_eq!(told.value("connection"), connection, "{about}");
        assert_eq!((told.value("content-length"), told.value("transfer-encoding")), (None, None), "{about}");
        let via = if pair.client == Version::Http2 { "2.0 sluice" } else { "1.1 sluice" };
        assert_eq!(told.value("via"), Some(via), "{about}");
        assert_eq!(told.value("x-forwarded-for"), Some("127.0.0.1"), "{about}");
        assert_eq!(told.value("x-forwarded-host"), Some("one.test"), "{about}");
        assert_eq!(told.value("x-forwarded-proto"), Some("http"), "{about}");
        let forwarded = "for=127.0.0.1;host=\"one.test\";proto=http";
        assert_eq!(told.value("forwarded"), Some(forwarded), "{about}");
        assert_eq!(told.value("x-request-id"), answer.value("x-request-id"), "{about}");
        assert!(told.body.is_empty(), "{about}");

        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{about}");
        assert_eq!((answer.value("content-length"), answer.value("x-own")), (Some("5"), Some("kept")), "{about}");
        assert_eq!(values(&answer.fields, "set-cookie"), ["a=1", "b=2"], "{about}");
        let via = if pair.provider_speaks(Version::Http2) { "2.0 sluice" } else { "1.1 sluice" };
        assert_eq!(answer.value("via"), Some(via), "{about}");
        assert_eq!((answer.value("transfer-encoding"), answer.value("connection")), (None, None), "{about}");
        assert!(answer.value("date").is_some() && answer.trailers.is_empty(), "{about}");
        assert_eq!(answer.value("proxy-status"), None, "{about}");
    }
}

#[test]
fn bodies_with_a_length_without_one_and_empty_arrive_as_they_were() {
    for versions in ALL {
        for (body, length) in [("hello", true), ("hello", false), ("", true), ("", false)] {
            let pair = Pair::new(versions);
            let answer = pair.ask(("POST", "/a"), &[], Some(body), length, &[]);
            let (about, told) = (format!("{} {body:?} {length}", pair.versions()), pair.told());
            assert_eq!(answer.status, 200, "{about}");
            assert_eq!(text(&told.body), body, "{about}");
            let bytes = body.len().to_string();
            assert_eq!(told.value("content-length"), length.then_some(&*bytes), "{about}");
            let coded = (!length && pair.provider_speaks(Version::Http1)).then_some("chunked");
            assert_eq!(told.value("transfer-encoding"), coded, "{about}");
        }
    }
}

#[test]
fn answers_without_a_body_have_none_and_those_of_unknown_length_end() {
    for versions in ALL {
        let pair = Pair::new(versions);
        let about = pair.versions();
        let open = pair.get("/open");
        assert_eq!((open.status, open.text().as_str(), open.value("content-length")), (200, "hello", None), "{about}");
        let empty = pair.get("/empty");
        assert_eq!((empty.status, empty.body.len(), empty.value("content-length")), (200, 0, Some("0")), "{about}");
        let none = pair.get("/none");
        assert_eq!((none.status, none.body.len(), none.value("content-length")), (204, 0, None), "{about}");
        let same = pair.get("/same");
        assert_eq!((same.status, same.body.len(), same.value("etag")), (304, 0, Some("\"one\"")), "{about}");
        let head = pair.ask(("HEAD", "/a"), &[], None, false, &[]);
        assert_eq!((head.status, head.body.len(), head.value("content-length")), (200, 0, Some("5")), "{about}");
        let head = pair.ask(("HEAD", "/open"), &[], None, false, &[]);
        assert_eq!((head.status, head.body.len(), head.value("content-length")), (200, 0, None), "{about}");
    }
}

#[test]
fn trailers_pass_both_ways() {
    for versions in ALL {
        let pair = Pair::new(versions);
        let answer = pair.ask(("POST", "/trailers"), &[("te", "trailers")], Some("up"), false, &[("x-up", "2")]);
        let (about, told) = (pair.versions(), pair.told());
        assert_eq!(
            (text(&told.body), told.trailers),
            ("up".to_owned(), vec![("x-up".to_owned(), "2".to_owned())]),
            "{about}"
        );
        assert_eq!(answer.text(), "hello", "{about}");
        let down = [("x-sum".to_owned(), "5".to_owned()), ("grpc-status".to_owned(), "0".to_owned())];
        assert_eq!(unmap(&answer.trailers), down, "{about}");
        let bare = pair.get("/bare");
        assert_eq!((bare.status, bare.body.len()), (200, 0), "{about}");
        assert_eq!(unmap(&bare.trailers), [("x-sum".to_owned(), "0".to_owned())], "{about}");
    }
}

#[test]
fn trailers_behind_a_body_of_known_length_pass_where_both_sides_speak_http2() {
    let pair = Pair::new((Version::Http2, Version::Http2));
    let answer = pair.ask(("POST", "/a"), &[], Some("up"), true, &[("x-up", "2")]);
    assert_eq!(answer.status, 200);
    let told = pair.told();
    assert_eq!((told.value("content-length"), text(&told.body)), (Some("2"), "up".to_owned()));
    assert_eq!(told.trailers, [("x-up".to_owned(), "2".to_owned())]);
    // HTTP/1 has no place for them there; the body arrives all the same.
    let pair = Pair::new((Version::Http2, Version::Http1));
    let answer = pair.ask(("POST", "/a"), &[], Some("up"), true, &[("x-up", "2")]);
    assert_eq!(answer.status, 200);
    let told = pair.told();
    assert_eq!((told.value("content-length"), text(&told.body)), (Some("2"), "up".to_owned()));
    assert!(told.trailers.is_empty(), "{:?}", told.trailers);
}

#[test]
fn interim_answers_pass_in_order() {
    for versions in ALL {
        let pair = Pair::new(versions);
        let answer = pair.get("/hints");
        let hint = |head: &http::Response<()>| (head.status().as_u16(), values(head.headers(), "link").join("|"));
        let hints: Vec<_> = answer.interims.iter().map(hint).collect();
        let about = pair.versions();
        assert_eq!(hints, [(103, "</a.css>".to_owned()), (103, "</b.css>".to_owned())], "{about}");
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{about}");
        let answer = pair.ask(("POST", "/a"), &[("expect", "100-continue")], Some("up"), true, &[]);
        let statuses: Vec<u16> = answer.interims.iter().map(|head| head.status().as_u16()).collect();
        assert_eq!((statuses, answer.status), (vec![100], 200), "{about}");
    }
}

#[test]
fn a_failure_of_the_provider_passes_with_its_trail() {
    for versions in ALL {
        let pair = Pair::new(versions);
        let answer = pair.get("/bad");
        let about = pair.versions();
        assert_eq!((answer.status, answer.text().as_str()), (503, "down"), "{about}");
        let told = answer.value("proxy-status").expect("it tells what failed");
        assert!(told.starts_with("sluice; received-status=503; details=\"alpha 503 "), "{about}: {told}");
    }
}

#[test]
fn cookies_come_in_crumbs_and_go_on_as_one() {
    for versions in [(Version::Http2, Version::Http1), (Version::Http2, Version::Http2)] {
        let pair = Pair::new(versions);
        let crumbs = [("cookie", "a=1"), ("x-between", "x"), ("cookie", "b=2"), ("cookie", "c=3")];
        assert_eq!(pair.ask(("GET", "/a"), &crumbs, None, false, &[]).status, 200);
        assert_eq!(pair.told().value("cookie"), Some("a=1; b=2; c=3"), "{}", pair.versions());
    }
}

#[test]
fn host_stands_in_for_the_authority_and_must_agree_with_it() {
    let alpha = Http2Provider::answering("hello");
    let gateway = before_http2(alpha.address(), Extra { provider: "host: preserve", ..Extra::default() });
    let client = Client::connect(gateway.web());
    let ask = |uri: &str, host: Option<&str>| {
        let mut request = client.request("GET", "/", &[]);
        *request.uri_mut() = uri.parse().expect("a URI");
        if let Some(host) = host {
            request.headers_mut().insert("host", host.parse().expect("a value"));
        }
        client.begin(request, true).answer().expect("an answer")
    };
    assert_eq!(ask("http://one.test/a", Some("one.test")).status, 200);
    assert_eq!(ask("http://one.test:81/a", None).status, 200);
    let seen: Vec<String> = alpha.requests().iter().map(|told| told.head.uri.to_string()).collect();
    assert_eq!(seen, ["http://one.test/a", "http://one.test:81/a"]);
    ask("http://one.test/a", Some("two.test")).is_problem(400, "bad_request");
    assert_eq!(alpha.begun(), 2);
}

#[test]
fn what_is_not_valid_is_refused_and_costs_only_its_stream() {
    let alpha = Http2Provider::answering("hello");
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    client.ask("GET", "/a", &[("expect", "the worst")], None).is_problem(400, "bad_request");
    client.ask("GET", "/a%2", &[], None).is_problem(400, "bad_request");
    let mut twice = client.request("GET", "/a", &[("host", "one.test"), ("host", "one.test")]);
    *twice.uri_mut() = "http://one.test/a".parse().expect("a URI");
    client.begin(twice, true).answer().expect("an answer").is_problem(400, "bad_request");
    let connect = http::Request::connect("one.test:443").body(()).expect("a request");
    client.begin(connect, true).answer().expect("an answer").is_problem(405, "wrong_method");
    client.ask("TRACE", "/a", &[], None).is_problem(405, "wrong_method");
    assert_eq!(client.get("/a").status, 200, "the connection goes on");
    assert_eq!(alpha.begun(), 1);
}

#[test]
fn the_log_and_the_metrics_tell_of_streams_as_of_requests() {
    let alpha = Http2Provider::scripted(answer_http2);
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    assert_eq!(client.ask("POST", "/a?secret", &[], Some(b"four")).status, 200);
    assert_eq!(client.ask("GET", "/trailers", &[], None).status, 200);
    client.ask("GET", "/a", &[("expect", "the worst")], None).is_problem(400, "bad_request");
    let lines = gateway.wait_for_access_log(3);
    let told = |line: &serde_json::Value| {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| line[key].as_u64().unwrap_or(u64::MAX);
        let words = (text("protocol"), text("method"), text("path"), text("route"));
        (words, number("status"), number("bytes_in"), number("bytes_out"))
    };
    let words = |method: &str, path: &str, route: &str| {
        ("HTTP/2.0".to_owned(), method.to_owned(), path.to_owned(), route.to_owned())
    };
    assert_eq!(told(&lines[0]), (words("POST", "/a", "all"), 200, 4, 5));
    assert_eq!(told(&lines[1]), (words("GET", "/trailers", "all"), 200, 0, 5));
    let (refused, status, ..) = told(&lines[2]);
    assert_eq!((refused, status), (words("GET", "/a", "none"), 400));
    assert_eq!(lines[0]["host"], gateway.web().ip().to_string());
    assert_eq!(lines[0]["attempts"][0]["outcome"], "success");
    assert!((gateway.metric("sluice_requests_total", &[("route", "all"), ("status_class", "2xx")]) - 2.0).abs() < 0.1);
    assert!((gateway.metric("sluice_connections", &[("listener", "web"), ("protocol", "http2")]) - 1.0).abs() < 0.1);
    assert!((gateway.metric("sluice_connections", &[("listener", "web"), ("protocol", "http1")])).abs() < 0.1);
    drop(client);
    gateway.wait_for_metric("sluice_connections", &[("listener", "web"), ("protocol", "http2")], 0.0);
}
