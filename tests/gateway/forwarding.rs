//! What of a request a provider sees, and what of its answer the client sees: fields kept, removed, added, written anew.

use crate::world::{Extra, Gateway, Head, Provider, Wire};

/// Sends `request` through a gateway and gives the head that the provider sees.
fn seen(extra: Extra<'_>, request: &str) -> (Head, Provider) {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before_with(&alpha, extra);
    let mut client = gateway.connect();
    client.send(request);
    let head = alpha.accept().head();
    (head, alpha)
}

/// Has `answer` sent through a gateway for a plain GET and gives the bytes of the head that the client sees.
fn shown(answer: &str) -> Head {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut provider = alpha.accept();
    provider.head();
    provider.send(answer);
    client.head()
}

#[test]
fn a_provider_sees_the_request_with_case_and_order_kept_and_our_fields_behind() {
    let request = "GET /a/b?c=d HTTP/1.1\r\nHost: Example.com:8080\r\nUser-Agent: x\r\nX-b: 2\r\nx-A: 1\r\nX-b:3\r\n\
                   ACCEPT:  \t a, b \t\r\nCookie: c\r\nX-Empty:\r\nX-Odd: caf\u{e9} \"'\t!\r\n\r\n";
    let (head, alpha) = seen(Extra::default(), request);
    assert_eq!(head.line, "GET /a/b?c=d HTTP/1.1");
    let (id, parent) = (head.value("x-request-id").expect("an id"), head.value("traceparent").expect("a trace"));
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [
        field("host", &alpha.address().to_string()),
        field("User-Agent", "x"),
        field("X-b", "2"),
        field("x-A", "1"),
        field("X-b", "3"),
        field("ACCEPT", "a, b"),
        field("Cookie", "c"),
        field("X-Empty", ""),
        field("X-Odd", "caf\u{e9} \"'\t!"),
        field("x-forwarded-for", "127.0.0.1"),
        field("x-forwarded-host", "Example.com:8080"),
        field("x-forwarded-proto", "http"),
        field("forwarded", "for=127.0.0.1;host=\"Example.com:8080\";proto=http"),
        field("x-request-id", id),
        field("traceparent", parent),
        field("via", "1.1 sluice"),
    ];
    assert_eq!(head.fields, expected);
}

#[test]
fn what_the_file_sets_or_removes_of_our_own_fields_is_its_word_alone() {
    let provider = "headers: { set: { x-request-id: theirs, via: x }, remove: [forwarded, traceparent] }";
    let route = "rewrite: { headers: { set: { x-forwarded-proto: https } } }";
    let (head, _alpha) = seen(Extra { provider, route, ..Extra::default() }, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.values("x-request-id"), ["theirs"]);
    assert_eq!(head.values("via"), ["x"]);
    assert_eq!(head.values("x-forwarded-proto"), ["https"]);
    assert_eq!(head.values("forwarded").len() + head.values("traceparent").len(), 0);
    assert_eq!(head.values("x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn what_the_file_sets_or_removes_of_our_own_answer_fields_is_its_word_alone() {
    let alpha = Provider::by_hand();
    let route = "rewrite: { response_headers: { set: { date: never }, remove: [via] } }";
    let gateway = Gateway::before_with(&alpha, Extra { route, ..Extra::default() });
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut provider = alpha.accept();
    provider.head();
    provider.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let head = client.head();
    assert_eq!((head.values("date"), head.values("via")), (vec!["never"], vec![]));
    assert_eq!((head.values("connection"), head.values("content-length")), (vec!["close"], vec!["0"]));
    assert_eq!(head.values("x-request-id").len(), 1);
}

#[test]
fn a_client_sees_the_answer_with_case_and_order_kept_and_our_fields_behind() {
    let head = shown(
        "HTTP/1.1 299 Quite  Fine\r\nServer: x\r\nX-b: 2\r\nSet-Cookie: a=1\r\nx-A: 1\r\nSet-Cookie: b=2\r\n\
         DATE: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 0\r\nETag:\"x\"\r\n\r\n",
    );
    assert_eq!(head.line, "HTTP/1.1 299 Quite  Fine");
    let id = head.value("x-request-id").expect("an id").to_owned();
    let expected = [
        ("Server", "x"),
        ("X-b", "2"),
        ("Set-Cookie", "a=1"),
        ("x-A", "1"),
        ("Set-Cookie", "b=2"),
        ("DATE", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ("ETag", "\"x\""),
        ("content-length", "0"),
        ("via", "1.1 sluice"),
        ("x-request-id", &id),
    ];
    let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(head.fields, expected);
}

#[test]
fn fields_of_one_hop_and_those_that_connection_names_go_no_further() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Private ,close\r\nconnection: x-other\r\n\
                   Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-Private: 1\r\nx-OTHER: 2\r\nX-Kept: 3\r\n\
                   TE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nTrailer: X-Sum\r\n\r\n";
    let (head, _) = seen(Extra::default(), request);
    for name in
        ["connection", "keep-alive", "proxy-connection", "x-private", "x-other", "te", "upgrade", "http2-settings"]
    {
        assert_eq!(head.value(name), None, "{name}");
    }
    assert_eq!((head.value("x-kept"), head.value("trailer")), (Some("3"), Some("X-Sum")));
}

#[test]
fn fields_of_one_hop_of_an_answer_go_no_further() {
    let head = shown(
        "HTTP/1.1 200 OK\r\nConnection: X-Private\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nX-Private: 1\r\n\
         X-Kept: 2\r\nUpgrade: h2c\r\nX-Request-Id: theirs\r\nVia: 1.1 a, 1.0 b\r\nContent-Length: 0\r\n\r\n",
    );
    for name in ["connection", "keep-alive", "proxy-connection", "x-private", "upgrade"] {
        assert_eq!(head.value(name), None, "{name}");
    }
    assert_eq!((head.value("x-kept"), head.value("via")), (Some("2"), Some("1.1 a, 1.0 b, 1.1 sluice")));
    assert_ne!(head.value("x-request-id"), Some("theirs"));
    assert!(head.value("date").is_some());
}

#[test]
fn connection_cannot_name_a_field_that_frames_or_routes_the_request() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\
                   Connection: Host, Content-Length, X-Forwarded-For, Via, close\r\n\r\nhello";
    let (head, alpha) = seen(Extra::default(), request);
    assert_eq!(head.value("host"), Some(alpha.address().to_string().as_str()));
    assert_eq!((head.value("content-length"), head.value("x-forwarded-for")), (Some("5"), Some("127.0.0.1")));
    assert_eq!(head.value("via"), Some("1.1 sluice"));
}

#[test]
fn te_trailers_is_passed_on_for_this_hop() {
    let (head, _) =
        seen(Extra::default(), "GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: gzip;q=0.5, trailers\r\n\r\n");
    assert_eq!((head.value("te"), head.value("connection")), (Some("trailers"), Some("te")));
}

#[test]
fn via_is_appended_with_the_version_that_came() {
    let (head, _) = seen(Extra::default(), "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 x, 1.1 y\r\nvia: 2 z\r\n\r\n");
    assert_eq!(head.value("via"), Some("1.0 x, 1.1 y, 2 z, 1.1 sluice"));
    let (head, _) = seen(Extra::default(), "GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!((head.line.as_str(), head.value("via")), ("GET / HTTP/1.1", Some("1.0 sluice")));
}

/// Everything a client may say about itself and others before it.
const CLAIMS: &str = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.1.1.1, 10.2.2.2\r\nX-Forwarded-For: 10.3.3.3\r\n\
    X-Forwarded-Host: theirs\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /p\r\n\
    X-Real-IP: 10.1.1.1\r\nForwarded: for=10.1.1.1;proto=https\r\nX-Request-Id: theirs-1\r\n\
    traceparent: 00-0123456789abcdef0123456789abcdef-0123456789abcdef-01\r\ntracestate: a=b\r\n\r\n";

#[test]
fn a_stranger_is_not_believed() {
    let (head, _) = seen(Extra::default(), CLAIMS);
    assert_eq!(head.value("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.value("x-forwarded-host"), Some("a"));
    assert_eq!(head.value("x-forwarded-proto"), Some("http"));
    assert_eq!(head.value("forwarded"), Some("for=127.0.0.1;host=\"a\";proto=http"));
    for name in ["x-forwarded-port", "x-forwarded-prefix", "x-real-ip", "tracestate"] {
        assert_eq!(head.value(name), None, "{name}");
    }
    let (id, parent) = (head.value("x-request-id").expect("an id"), head.value("traceparent").expect("a trace"));
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert!(!parent.contains("0123456789abcdef0123456789abcdef") && parent.len() == 55, "{parent}");
    assert!(parent.starts_with(&format!("00-{id}-")) && parent.ends_with("-00"), "{parent}");
}

#[test]
fn a_trusted_proxy_is_believed_and_continued() {
    let trusted = Extra { listener: "trusted_proxies: [127.0.0.0/8]", ..Extra::default() };
    let (head, _) = seen(trusted, CLAIMS);
    assert_eq!(head.value("x-forwarded-for"), Some("10.1.1.1, 10.2.2.2, 10.3.3.3, 127.0.0.1"));
    assert_eq!(head.value("x-forwarded-host"), Some("theirs"));
    assert_eq!(head.value("x-forwarded-proto"), Some("https"));
    assert_eq!(head.value("forwarded"), Some("for=10.1.1.1;proto=https, for=127.0.0.1;host=\"a\";proto=http"));
    assert_eq!((head.value("x-forwarded-port"), head.value("x-real-ip")), (Some("443"), Some("10.1.1.1")));
    assert_eq!((head.value("x-request-id"), head.value("tracestate")), (Some("theirs-1"), Some("a=b")));
    let parent = head.value("traceparent").expect("a trace");
    assert!(parent.starts_with("00-0123456789abcdef0123456789abcdef-") && parent.ends_with("-01"), "{parent}");
    assert_ne!(&parent[36..52], "0123456789abcdef", "our own span is the parent of what comes behind");
}

#[test]
fn names_of_trusted_peers_that_would_harm_a_log_are_replaced() {
    let trusted = Extra { listener: "trusted_proxies: [127.0.0.0/8]", ..Extra::default() };
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a b\"c\r\ntraceparent: 00-zz\r\n\r\n";
    let (head, _) = seen(trusted, request);
    assert_eq!(head.value("x-request-id").map(str::len), Some(32));
    assert_eq!(head.value("traceparent").map(str::len), Some(55));
}

#[test]
fn names_that_cgi_would_read_as_ours_are_dropped_even_from_trusted_peers() {
    let trusted = Extra { listener: "trusted_proxies: [127.0.0.0/8]", ..Extra::default() };
    for extra in [Extra::default(), trusted] {
        let request = "POST / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 6.6.6.6\r\nx-forwarded_proto: https\r\n\
                       Content_Length: 7\r\nTransfer_Encoding: chunked\r\nX_REAL-IP: 6\r\nX_Request_Id: 6\r\n\
                       X_Other: kept\r\nContent-Length: 0\r\n\r\n";
        let (head, _) = seen(extra, request);
        let disguised: Vec<_> = head.names().into_iter().filter(|name| name.contains('_')).map(str::to_owned).collect();
        assert_eq!(disguised, ["X_Other"]);
    }
}

#[test]
fn the_answer_and_the_log_carry_the_request_id_that_the_provider_saw() {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut provider = alpha.accept();
    let seen = provider.head();
    provider.send("HTTP/1.1 204 No Content\r\n\r\n");
    let id = seen.value("x-request-id").map(str::to_owned);
    assert_eq!(client.head().value("x-request-id").map(str::to_owned), id);
    assert_eq!(gateway.wait_for_access_log(1)[0]["request_id"].as_str().map(str::to_owned), id);
}

#[test]
fn the_normalised_path_goes_upstream_and_the_query_as_it_came() {
    for (written, sent) in [
        ("/", "/"),
        ("/a//b/./c/../d?x=//./..&y=%zz|", "/a/b/d?x=//./..&y=%zz|"),
        ("/%7Eme/%41?", "/~me/A?"),
        ("/a%2fb%3f", "/a%2Fb%3F"),
        ("http://a/x", "/x"),
        ("http://A:80?q", "/?q"),
    ] {
        let (head, _) = seen(Extra::default(), &format!("GET {written} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(head.line, format!("GET {sent} HTTP/1.1"), "{written}");
    }
    let (head, _) = seen(Extra::default(), "OPTIONS /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.line, "OPTIONS /a HTTP/1.1");
    let (head, _) = seen(Extra::default(), "FETCH /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.line, "FETCH /a HTTP/1.1", "an unknown method is the provider's to judge");
}

#[test]
fn configured_fields_are_set_and_removed_each_way() {
    let extra = Extra {
        provider: "headers: { set: { authorization: Bearer s3cret }, remove: [cookie] }, host: preserve",
        route: "rewrite: { strip_prefix: /api, add_prefix: /v1, headers: { set: { x-edge: sluice }, remove: [X-Gone] } }",
        ..Extra::default()
    };
    let request = "GET /api/a HTTP/1.1\r\nHost: A.example\r\nAuthorization: Basic theirs\r\nCookie: c\r\nX-Edge: forged\r\n\
                   x-gone: 1\r\nx-stays: 2\r\n\r\n";
    let (head, _) = seen(extra, request);
    assert_eq!(head.line, "GET /v1/a HTTP/1.1");
    assert_eq!(head.value("host"), Some("A.example"));
    assert_eq!(head.value("authorization"), Some("Bearer s3cret"));
    assert_eq!((head.value("cookie"), head.value("x-gone")), (None, None));
    assert_eq!((head.value("x-edge"), head.value("x-stays")), (Some("sluice"), Some("2")));
}

#[test]
fn an_empty_line_before_a_request_is_skipped() {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    client.send("\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "ok");
    // Some old clients end a body with a line that belongs to nothing.
    client.send("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((client.answer().text(), client.answer().text()), ("ok".to_owned(), "ok".to_owned()));
    let lines: Vec<_> = alpha.requests().into_iter().map(|request| request.head.line).collect();
    assert_eq!(lines, ["GET /1 HTTP/1.1", "POST /2 HTTP/1.1", "GET /3 HTTP/1.1"]);
}

/// Sends one request in pieces of at most `size` bytes, a separate segment each, and gives every byte the provider sees.
fn seen_in_pieces(request: &[u8], cuts: &[usize]) -> Vec<u8> {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let trusted = Extra { listener: "trusted_proxies: [127.0.0.0/8]", provider: "host: preserve", ..Extra::default() };
    let gateway = Gateway::before_with(&alpha, trusted);
    let mut client: Wire = gateway.connect();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([request.len()]) {
        client.send(&request[from..cut]);
        from = cut;
    }
    assert_eq!(client.answer().text(), "ok");
    let mut seen = Vec::new();
    for request in alpha.requests() {
        let kept = request.head.fields.into_iter().filter(|(name, _)| name != "traceparent");
        seen.extend_from_slice(format!("{} {:?} ", request.head.line, kept.collect::<Vec<_>>()).as_bytes());
        seen.extend_from_slice(&request.body);
        seen.extend_from_slice(format!("{:?}", request.trailers).as_bytes());
    }
    seen
}

#[test]
fn however_a_request_is_split_the_provider_sees_the_same() {
    let request = b"POST /a/../b HTTP/1.1\r\nHost: a\r\nX-Request-Id: fixed\r\nTransfer-Encoding: chunked\r\n\
                    Trailer: X-Sum\r\n\r\n5;ext=1\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nX-Sum: 1\r\n\r\n";
    let whole = seen_in_pieces(request, &[]);
    assert!(whole.ends_with(b"hello0123456789abcdef[(\"X-Sum\", \"1\")]"), "{}", crate::world::text(&whole));
    for at in 1..request.len() {
        assert_eq!(crate::world::text(&seen_in_pieces(request, &[at])), crate::world::text(&whole), "cut at {at}");
    }
    let every: Vec<usize> = (1..request.len()).collect();
    assert_eq!(crate::world::text(&seen_in_pieces(request, &every)), crate::world::text(&whole), "byte by byte");
}

/// Has `answer` sent in segments cut at `cuts` and gives every byte the client sees, but for the request's own id and date.
fn shown_in_pieces(answer: &[u8], cuts: &[usize]) -> String {
    let alpha = Provider::by_hand();
    let trusted = Extra { listener: "trusted_proxies: [127.0.0.0/8]", ..Extra::default() };
    let gateway = Gateway::before_with(&alpha, trusted);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: fixed\r\nConnection: close\r\n\r\n");
    let mut provider = alpha.accept();
    provider.request();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([answer.len()]) {
        provider.send(&answer[from..cut]);
        from = cut;
    }
    let (early, answer) = (client.head(), client.answer());
    client.closes();
    format!("{early:?} {:?} {} {:?}", answer.head, answer.text(), answer.trailers)
}

#[test]
fn however_an_answer_is_split_the_client_sees_the_same() {
    let answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nDate: now\r\n\
                   Transfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\nC\r\n0123456789ab\r\n00\r\nX-Sum: 1\r\n\r\n";
    let whole = shown_in_pieces(answer, &[]);
    assert!(whole.ends_with("hello0123456789ab [(\"X-Sum\", \"1\")]"), "{whole}");
    for at in 1..answer.len() {
        assert_eq!(shown_in_pieces(answer, &[at]), whole, "cut at {at}");
    }
    let every: Vec<usize> = (1..answer.len()).collect();
    assert_eq!(shown_in_pieces(answer, &every), whole, "byte by byte");
}

#[test]
fn http_1_0_needs_no_host_and_an_absolute_target_names_one() {
    let (head, alpha) = seen(Extra::default(), "GET /a HTTP/1.0\r\n\r\n");
    assert_eq!(head.value("host"), Some(alpha.address().to_string().as_str()));
    assert_eq!(head.value("x-forwarded-host"), None);
    assert_eq!(head.value("forwarded"), Some("for=127.0.0.1;proto=http"));
    let (head, _) = seen(Extra::default(), "GET http://b:81/a HTTP/1.0\r\n\r\n");
    assert_eq!((head.line.as_str(), head.value("x-forwarded-host")), ("GET /a HTTP/1.1", Some("b:81")));
}
