//! Bodies both ways, and many streams at once: nothing waits here beyond its bound, and a stream holds up no other.

use super::ends::{Client, Http2Provider, drain, send_all, send_some, wait};
use super::{before, before_http2};
use crate::world::{Extra, Gateway, Provider, lock, text, wait_until};
use bytes::Bytes;
use sluice::clock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Enough to fill every window many times, and the buffers of two sockets.
const LARGE: usize = 16 << 20;

/// What may wait between two sides in HTTP/2 when one of them takes nothing: 128 KiB of window towards who sends, 64 KiB on
/// their way through, and the 64 KiB of window that the other side opened.
const HELD: u64 = 256 << 10;

/// The same where one side is a socket in HTTP/1: how much that holds, both ends together, is the kernel's to choose.
const HELD_BY_SOCKET: u64 = 12 << 20;

/// Bytes that tell where in the body they were.
fn pattern(len: usize) -> Bytes {
    (0..len / 4).flat_map(|number| (number as u32).wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

/// A provider that sends `LARGE` bytes to whoever asks, and counts what it could send.
fn sending(sent: &Arc<AtomicU64>) -> Http2Provider {
    let sent = Arc::clone(sent);
    Http2Provider::scripted(move |mut asked| {
        let sent = Arc::clone(&sent);
        async move {
            if asked.head.uri.path() == "/small" {
                return asked.answer(200, &[], "small").await;
            }
            let mut body = asked.begin(200, &[], false);
            let mut data = pattern(LARGE);
            while !data.is_empty() {
                let some = send_some(&mut body, &data.slice(..data.len().min(16_384))).await;
                if some == 0 {
                    return;
                }
                sent.fetch_add(some as u64, Ordering::SeqCst);
                data = data.slice(some..);
            }
            body.send_data(Bytes::new(), true).expect("the gateway listens");
        }
    })
}

/// Waits until a count no longer grows, and gives it.
fn settled(count: impl Fn() -> u64) -> u64 {
    let (mut last, mut since) = (count(), clock::now());
    wait_until("the count settles", || {
        let now = count();
        if now != last {
            (last, since) = (now, clock::now());
        }
        last > 0 && clock::now().saturating_duration_since(since) > Duration::from_millis(300)
    });
    last
}

#[test]
fn large_bodies_arrive_whole_in_all_four_pairs() {
    let whole = pattern(5 << 20);
    let size = whole.len();
    let h2 = Http2Provider::scripted(|mut asked| async move {
        let told = asked.all().await.expect("a whole request");
        let mut body = asked.begin(200, &[], false);
        assert!(send_all(&mut body, told.body.into()).await, "the gateway takes all");
        body.send_data(Bytes::new(), true).expect("the gateway listens");
    });
    let h1 = Provider::scripted(|peer| {
        while let Some(request) = peer.request() {
            peer.wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.body.len()));
            peer.wire.send(&request.body);
        }
    });
    for gateway in [before_http2(h2.address(), Extra::default()), before("http", h1.address(), Extra::default())] {
        let client = Client::connect(gateway.web());
        let answer = client.ask("POST", "/a", &[], Some(&whole));
        assert_eq!((answer.status, answer.body.len()), (200, size));
        assert!(answer.body == whole, "the bytes are those that were sent");
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n"));
        client.send(&whole);
        let answer = client.answer();
        assert!(answer.body == whole, "the bytes are those that were sent: {}", answer.body.len());
        let lines = gateway.wait_for_access_log(2);
        for line in &lines[..2] {
            assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&size.into(), &size.into()), "{line}");
        }
    }
}

#[test]
fn a_client_that_does_not_read_holds_no_more_than_its_bound() {
    let sent = Arc::new(AtomicU64::new(0));
    let alpha = sending(&sent);
    let gateway = before_http2(alpha.address(), Extra::default());
    // The window of the connection is what lets the other stream pass; that of the stream is the usual one.
    let client = Client::connect_with(gateway.web(), |settings| {
        settings.initial_window_size(65_535);
    });
    let mut call = client.begin(client.request("GET", "/large", &[]), true);
    let mut body = call.head().expect("an answer").into_body();
    let held = settled(|| sent.load(Ordering::SeqCst));
    assert!(held < HELD, "{held} bytes left the provider for a client that takes none");
    assert_eq!(client.get("/small").text(), "small", "its neighbour does not wait");
    let (whole, _) = wait("the whole body", drain(&mut body)).expect("it is complete");
    assert!(whole == pattern(LARGE), "the bytes are those that were sent");
}

#[test]
fn clients_that_do_not_read_leave_their_provider_connection_to_others() {
    let sent = Arc::new(AtomicU64::new(0));
    let alpha = sending(&sent);
    let gateway = before_http2(alpha.address(), Extra::default());
    let stuck = Client::connect_with(gateway.web(), |settings| {
        settings.initial_window_size(65_535);
    });
    let mut bodies = Vec::new();
    for _ in 0..20 {
        let mut call = stuck.begin(stuck.request("GET", "/large", &[]), true);
        bodies.push(call.head().expect("an answer").into_body());
    }
    let held = settled(|| sent.load(Ordering::SeqCst));
    let other = Client::connect(gateway.web());
    for _ in 0..10 {
        assert_eq!(other.get("/small").text(), "small", "{held} bytes are held, and nobody else is");
    }
    assert!(held < 20 * HELD, "{held} bytes are held for 20 of them");
}

#[test]
fn an_http1_client_that_does_not_read_holds_no_more_than_its_bound() {
    let sent = Arc::new(AtomicU64::new(0));
    let alpha = sending(&sent);
    let gateway = before_http2(alpha.address(), Extra::default());
    let mut client = gateway.connect();
    client.send("GET /large HTTP/1.1\r\nhost: a\r\n\r\n");
    // The kernel holds several MiB for a socket of its own accord.
    let held = settled(|| sent.load(Ordering::SeqCst));
    assert!(held < HELD_BY_SOCKET, "{held} bytes left the provider for a client that takes none");
    let answer = client.answer();
    assert!(answer.body == pattern(LARGE), "the bytes are those that were sent");
}

#[test]
fn an_upload_to_a_provider_that_does_not_read_is_held_at_its_bound() {
    let alpha = Http2Provider::scripted(|mut asked| async move {
        if asked.head.uri.path() == "/small" {
            return asked.answer(200, &[], "small").await;
        }
        // It takes nothing, and does not go.
        asked.given_up().await;
    });
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let Uploading { sent, call } = upload(&client);
    let held = settled(|| sent.load(Ordering::SeqCst));
    assert!(held < HELD, "{held} bytes left the client for a provider that takes none");
    assert_eq!(client.get("/small").text(), "small", "its neighbour does not wait");
    lock(&call).take().expect("the call").cancel();
    wait_until("the provider sees it given up", || alpha.resets() == [h2::Reason::CANCEL]);
}

#[test]
fn an_upload_to_an_http1_provider_that_does_not_read_is_held_at_its_bound() {
    let alpha = Provider::by_hand();
    let gateway = before("http", alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let Uploading { sent, call } = upload(&client);
    let mut provider = alpha.accept();
    assert_eq!(provider.head().value("transfer-encoding"), Some("chunked"));
    let held = settled(|| sent.load(Ordering::SeqCst));
    assert!(held < HELD_BY_SOCKET, "{held} bytes left the client for a provider that takes none");
    lock(&call).take().expect("the call").cancel();
    // Whatever was on its way comes, then the end: never a last chunk.
    let rest = provider.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", text(&rest[rest.len() - 20..]));
}

/// An upload that goes on as long as it is taken.
struct Uploading {
    sent: Arc<AtomicU64>,
    call: Arc<Mutex<Option<super::ends::Call>>>,
}

fn upload(client: &Client) -> Uploading {
    let sent = Arc::new(AtomicU64::new(0));
    let call = Arc::new(Mutex::new(Some(client.begin(client.request("POST", "/large", &[]), false))));
    let (count, body) = (Arc::clone(&sent), Arc::clone(&call));
    super::ends::runtime().spawn(async move {
        let piece = Bytes::from(vec![b'x'; 16_384]);
        loop {
            let some = std::future::poll_fn(|cx| {
                let mut call = lock(&body);
                let Some(call) = call.as_mut() else { return std::task::Poll::Ready(0) };
                call.body.reserve_capacity(piece.len());
                match std::task::ready!(call.body.poll_capacity(cx)) {
                    Some(Ok(room)) if room > 0 => {
                        let room = room.min(piece.len());
                        let taken = call.body.send_data(piece.slice(..room), false).is_ok();
                        std::task::Poll::Ready(if taken { room } else { 0 })
                    }
                    _ => std::task::Poll::Ready(0),
                }
            });
            match some.await {
                0 => return,
                some => count.fetch_add(some as u64, Ordering::SeqCst),
            };
        }
    });
    Uploading { sent, call }
}

#[test]
fn pieces_pass_as_they_come_in_both_directions() {
    let alpha = Http2Provider::scripted(|mut asked| async move {
        let mut send = asked.begin(200, &[], false);
        while let Some(piece) = asked.body.data().await {
            let piece = piece.expect("the client goes on");
            asked.body.flow_control().release_capacity(piece.len()).expect("it was taken");
            send.send_data(piece, false).expect("the gateway listens");
        }
        send.send_data(Bytes::new(), true).expect("the gateway listens");
    });
    let gateway = before_http2(alpha.address(), Extra::default());
    let client = Client::connect(gateway.web());
    let mut call = client.begin(client.request("POST", "/echo", &[]), false);
    // The answer begins before the request ends.
    let mut answer = call.head().expect("an answer").into_body();
    for number in 0..50 {
        let piece = format!("piece {number}");
        call.body.send_data(piece.clone().into(), false).expect("a stream");
        let back = wait("the piece comes back", answer.data()).expect("it goes on").expect("a piece");
        assert_eq!(text(&back), piece);
        answer.flow_control().release_capacity(back.len()).expect("it was taken");
    }
    call.body.send_data(Bytes::new(), true).expect("a stream");
    let (rest, _) = wait("the end", drain(&mut answer)).expect("it is complete");
    assert!(rest.is_empty());
}

#[test]
fn many_streams_at_once_are_each_answered_with_their_own() {
    let at_once = Arc::new(AtomicUsize::new(0));
    let (arrived, all) = (Arc::clone(&at_once), Arc::new(tokio::sync::Notify::new()));
    let alpha = Http2Provider::scripted(move |mut asked| {
        let (arrived, all) = (Arc::clone(&arrived), Arc::clone(&all));
        async move {
            let told = asked.all().await.expect("a whole request");
            let wait = all.notified();
            if (arrived.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(STREAMS) {
                all.notify_waiters();
            } else {
                wait.await;
            }
            asked.answer(200, &[], &format!("{} {}", told.head.uri.path(), text(&told.body))).await;
        }
    });
    let gateway = before_http2(alpha.address(), Extra { listener: "limits: { h2_streams: 200 }", ..Extra::default() });
    // The second time, many are answered by a task that has answered one already.
    for round in 1..=2 {
        let client = Client::connect(gateway.web());
        let mut calls = Vec::new();
        for number in 0..STREAMS {
            let mut call = client.begin(client.request("POST", &format!("/{round}/{number}"), &[]), false);
            call.body.send_data(format!("body {number}").into(), true).expect("a stream");
            calls.push(call);
        }
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(call.answer().expect("an answer").text(), format!("/{round}/{number} body {number}"));
        }
        assert_eq!(at_once.load(Ordering::SeqCst), round * STREAMS, "all were there before the first was answered");
    }
    assert!(alpha.connections() <= 4, "{} connections for {STREAMS} streams", alpha.connections());
}

const STREAMS: usize = 150;

#[test]
fn streams_to_providers_share_their_connection() {
    let alpha = Http2Provider::answering("hello");
    let gateway: Gateway = before_http2(alpha.address(), Extra::default());
    for _ in 0..20 {
        let client = Client::connect(gateway.web());
        assert_eq!(client.get("/a").text(), "hello");
    }
    assert_eq!(alpha.connections(), 1);
}
