//! Connections that end by our will: in two steps, so that no request that was on its way is lost (RFC 9113 §6.8); and those
//! that are cut, because a client owes what it began.

use super::behind::Behind;
use super::compression::block;
use super::frames::*;
use crate::world::{BEFORE, End, Extra, Gateway, PATIENCE, Provider, Wire, free_address, pause, wait_until};
use std::time::Duration;

/// What the first GOAWAY names: every stream there could be.
const ANY: u32 = (1 << 31) - 1;

/// Requests of a burst.
const AT_ONCE: usize = 100;

fn with_limits(limits: &str) -> Behind {
    Behind::with(Extra { listener: &format!("limits: {{ {limits} }}"), ..Extra::default() })
}

/// The first step is there; a request that crosses it is answered, and so is what was under way on stream 1; then the
/// connection ends.
fn leaves_in_two_steps(client: &mut Frames, behind: &Behind) {
    client.wait("the first GOAWAY", |client| !client.goaways().is_empty());
    assert_eq!(client.goaways(), [Goaway { last: ANY, code: NO_ERROR }], "{}", client.seen());
    // On its way already when the client hears of it: its PING is not answered yet.
    client.get(3, "/");
    client.wait("the second GOAWAY", |client| client.goaways().len() > 1);
    assert_eq!(client.goaways()[1], Goaway { last: 3, code: NO_ERROR }, "{}", client.seen());
    client.is_answered(3);
    assert!(client.is_open(1), "{}", client.seen());
    behind.release();
    client.is_answered(1);
    client.wire().closes();
}

/// A connection whose stream 1 waits for its provider.
fn holding(behind: &Behind) -> Frames {
    let mut client = Frames::connect(behind.address());
    client.get(1, "/held");
    // Whatever comes behind it finds it at the provider.
    wait_until("the request is at the provider", || behind.begun() > 0);
    client
}

#[test]
fn section_6_8_a_drain_ends_connections_in_two_steps() {
    let behind = Behind::start();
    let mut client = holding(&behind);
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| behind.gateway().drain(PATIENCE));
        leaves_in_two_steps(&mut client, &behind);
        assert!(drained.join().expect("it returns"), "everything ended in time");
    });
}

#[test]
fn section_6_8_a_listener_that_is_removed_ends_its_connections_in_two_steps() {
    let behind = Behind::start();
    let mut client = holding(&behind);
    let other = format!(
        "listeners: [ {{ name: other, bind: \"{}\" }} ]
routes: [ {{ name: all, match: {{ path: \"/*\" }}, respond: {{ status: 200 }} }} ]
",
        free_address()
    );
    behind.gateway().rewrite(&other);
    behind.gateway().reload().expect("it is valid");
    leaves_in_two_steps(&mut client, &behind);
}

#[test]
fn section_6_8_an_old_connection_ends_in_two_steps() {
    let behind = with_limits("connection_age: 300ms");
    let mut client = holding(&behind);
    leaves_in_two_steps(&mut client, &behind);
}

/// Whether it was old enough was asked before its frames were read, and held against its deadline afterwards: a connection
/// whose time came in between was cut, with every request on it.
#[test]
fn section_6_8_a_connection_that_gets_old_while_it_is_busy_is_told_and_not_cut() {
    let behind = with_limits("connection_age: 20ms");
    for _ in 0..15 {
        let mut client = Frames::connect(behind.address());
        for stream in (1..).step_by(2 * AT_ONCE) {
            let streams: Vec<u32> = (stream..).step_by(2).take(AT_ONCE).collect();
            let requests =
                streams.iter().map(|stream| frame(HEADERS, END_STREAM | END_HEADERS, *stream, get("/nowhere")));
            client.send(requests.collect::<Vec<_>>().concat());
            client.wait("an answer, or to be told to go", |client| {
                !client.goaways().is_empty() || streams.iter().all(|stream| client.stream(*stream).ended)
            });
            if !client.goaways().is_empty() {
                break;
            }
        }
    }
}

#[test]
fn section_6_8_an_idle_connection_is_told_and_closed() {
    let behind = with_limits("idle_timeout: 300ms");
    let mut client = Frames::connect(behind.address());
    client.get(1, "/");
    client.is_answered(1);
    client.wait("both GOAWAYs", |client| client.goaways().len() > 1);
    assert_eq!(client.goaways(), [Goaway { last: ANY, code: NO_ERROR }, Goaway { last: 1, code: NO_ERROR }]);
    client.wire().closes();
}

#[test]
fn section_6_8_a_client_that_answers_no_ping_is_waited_for_only_so_long() {
    let behind = Behind::start();
    let mut client = Wire::connect(behind.address());
    client.send([PREFACE, &frame(SETTINGS, 0, 0, [])].concat());
    client.send(frame(PING, 0, 0, [7; 8]));
    let pong = frame(PING, ACK, 0, [7; 8]);
    client.until(std::str::from_utf8(&pong).expect("ASCII"));
    assert!(behind.gateway().drain(Duration::from_secs(10)), "it goes without having said goodbye");
    // It is told what was taken all the same: a request that it sends meanwhile is not, and it has to know.
    let rest = client.rest();
    let [all, none] = [ANY, 0].map(|last: u32| frame(GOAWAY, 0, 0, [last.to_be_bytes(), [0; 4]].concat()));
    assert!(rest.windows(all.len()).any(|some| some == all), "{rest:?}");
    assert!(rest.ends_with(&none), "{rest:?}");
}

#[test]
fn a_preface_that_does_not_come_to_its_end_is_cut() {
    let behind = with_limits("header_timeout: 300ms");
    for part in [&PREFACE[..5], &PREFACE[..14], &PREFACE[..23]] {
        let mut client = Wire::connect(behind.address());
        client.send(part);
        let rest = client.rest();
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{rest:?}");
    }
    behind.gateway().wait_for_metric("sluice_connections", &[("listener", "web")], 0.0);
}

#[test]
fn headers_that_do_not_come_to_their_end_cost_the_connection() {
    let behind = with_limits("header_timeout: 300ms");
    let head = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")]);
    let mut client = Frames::connect(behind.address());
    client.frame(HEADERS, END_STREAM, 1, &head[..10]);
    client.expect_end();
    // Nor does it help to send the rest drop by drop.
    let mut client = Frames::connect(behind.address());
    client.frame(HEADERS, END_STREAM, 1, &head[..10]);
    for byte in head[10..].iter().cycle() {
        pause(Duration::from_millis(20));
        if client.wire().try_send(frame(CONTINUATION, 0, 1, [*byte])).is_err() {
            break;
        }
    }
    client.wire().rest();
    // And half of a frame is no more than a part of the rest.
    let mut client = Frames::connect(behind.address());
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)[..20]);
    client.expect_end();
    assert_eq!(behind.begun(), 0);
    behind.gateway().wait_for_metric("sluice_connections", &[("listener", "web")], 0.0);
}

#[test]
fn a_connection_that_ends_in_the_middle_of_a_head_leaves_nothing_behind() {
    let behind = Behind::start();
    let mut client = Frames::connect(behind.address());
    client.get(1, "/");
    client.is_answered(1);
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 3, get("/"))[..15]);
    drop(client);
    behind.gateway().wait_for_metric("sluice_connections", &[("listener", "web")], 0.0);
    assert_eq!(behind.begun(), 1);
}

// --- the other direction: what a provider's connection does when it ends, or when nothing happens on it ---

/// A gateway before a provider in HTTP/2 that the test plays, and that provider's end of a connection which has served one
/// request.
fn before_provider(extra: Extra<'_>) -> (Provider, Gateway, Frames) {
    let alpha = Provider::by_hand();
    let yaml = BEFORE.replace("http://", "h2c://");
    let provider = if extra.provider.is_empty() { String::new() } else { format!(", {}", extra.provider) };
    let gateway = Gateway::start(&yaml.replace("{provider}", &provider), &[("alpha", alpha.address())]);
    let mut client = gateway.connect();
    client.send("GET /first HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut provider = Frames::accept(alpha.accept(), &[]);
    let stream = provider.requested(0);
    provider.headers(stream, END_HEADERS | END_STREAM, block(&[(":status", "204")]));
    assert_eq!(client.answer().status(), 204);
    (alpha, gateway, provider)
}

#[test]
fn section_6_8_a_request_above_the_last_stream_of_a_goaway_is_sent_once_more_whatever_it_is() {
    for method in ["GET", "POST"] {
        let (alpha, gateway, mut provider) = before_provider(Extra::default());
        let mut client = gateway.connect();
        client.send(format!("{method} /second HTTP/1.1\r\nhost: a\r\n\r\n"));
        let (first, second) = (provider.requested(0), provider.requested(1));
        provider.frame(GOAWAY, 0, 0, [first.to_be_bytes(), [0; 4]].concat());
        let mut another = Frames::accept(alpha.accept(), &[]);
        let again = another.requested(0);
        let told = |provider: &Frames, stream: u32| provider.stream(stream).heads[0].clone();
        let is_target =
            |field: &&(String, String)| field.0 == ":path" || field.0 == ":method" || field.0 == "x-request-id";
        let (was, is) = (told(&provider, second), told(&another, again));
        assert_eq!(was.iter().filter(is_target).collect::<Vec<_>>(), is.iter().filter(is_target).collect::<Vec<_>>());
        another.headers(again, END_HEADERS | END_STREAM, block(&[(":status", "204")]));
        assert_eq!(client.answer().status(), 204, "{method}");
        assert!(provider.stream(second).heads.len() == 1 && provider.expect_end() != End::Reset);
    }
}

#[test]
fn section_6_8_a_post_whose_connection_is_lost_is_not_sent_again() {
    let (alpha, gateway, mut provider) = before_provider(Extra::default());
    let mut client = gateway.connect();
    client.send("POST /second HTTP/1.1\r\nhost: a\r\n\r\n");
    provider.requested(1);
    drop(provider);
    assert_eq!(client.answer().status(), 502);
    // What comes next is the next request, and not that one: the provider may have acted on it.
    client.send("GET /third HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut another = Frames::accept(alpha.accept(), &[]);
    let third = another.requested(0);
    assert!(another.stream(third).heads[0].contains(&(":path".to_owned(), "/third".to_owned())), "{}", another.seen());
}

#[test]
fn section_6_7_a_quiet_connection_is_asked_whether_it_lives() {
    let (_alpha, _gateway, mut provider) =
        before_provider(Extra { provider: "connections: { ping: 1s }", ..Extra::default() });
    provider.wait("a PING", |provider| provider.seen().contains("PING flags 0x0 "));
    provider.lives();
}
