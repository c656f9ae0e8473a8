use super::body::{Cut, Filling, PIECE, PIECE_COST, Reader, Room, SLOW_READER, Space, Unwanted, WINDOW};
use crate::clock;
use crate::instant::Instant;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const ROOM: u64 = 1 << 20;
/// A piece four of which fill the window.
static QUARTER: [u8; WINDOW as usize / 4] = [0; WINDOW as usize / 4];

/// What a reader finds now: bytes, or the end, or that it has to wait.
fn read(reader: &mut Reader) -> Poll<Result<Vec<u8>, Cut>> {
    let mut cx = Context::from_waker(Waker::noop());
    let bytes = match reader.poll_bytes(&mut cx) {
        Poll::Ready(Ok(bytes)) => bytes.to_vec(),
        Poll::Ready(Err(cut)) => return Poll::Ready(Err(cut)),
        Poll::Pending => return Poll::Pending,
    };
    reader.advance(bytes.len());
    Poll::Ready(Ok(bytes))
}

/// Whether there is room, and if not, in how many seconds the writer is to ask again.
fn room(filling: &mut Filling, now: Instant) -> Result<(), Option<f64>> {
    let mut cx = Context::from_waker(Waker::noop());
    match filling.poll_room(&mut cx, now) {
        Room::There => Ok(()),
        Room::Awaited(until) => Err(until.map(|until| (until - now).as_secs_f64())),
    }
}

/// A body that is only passed on and has `N` readers, which were given nothing yet.
fn passed_on<const N: usize>() -> (Filling, [Reader; N]) {
    let filling = Filling::new(&Space::new(0), ROOM);
    let source = filling.source();
    (filling, [(); N].map(|()| source.reader().expect("the beginning is there")))
}

/// Adds pieces until there is room for none; says how many.
fn fill(filling: &mut Filling, now: Instant) -> u32 {
    let mut pieces = 0;
    while room(filling, now).is_ok() {
        filling.append(&QUARTER).expect("somebody reads");
        pieces += 1;
    }
    pieces
}

/// Reads all there is, and waits for more; says how many pieces there were.
fn read_all(reader: &mut Reader) -> u32 {
    let mut pieces = 0;
    while matches!(read(reader), Poll::Ready(Ok(bytes)) if !bytes.is_empty()) {
        pieces += 1;
    }
    pieces
}

fn got(text: &str) -> Poll<Result<Vec<u8>, Cut>> {
    Poll::Ready(Ok(text.as_bytes().to_vec()))
}

#[test]
fn readers_see_everything_whenever_they_come() {
    let mut filling = Filling::new(&Space::new(ROOM), 100);
    let source = filling.source();
    let mut early = source.reader().expect("the beginning is there");
    assert_eq!(read(&mut early), Poll::Pending);
    filling.append(b"one").expect("wanted");
    assert_eq!(read(&mut early), got("one"));
    assert_eq!(read(&mut early), Poll::Pending);
    filling.append(b"two").expect("wanted");
    let mut late = source.reader().expect("the beginning is there");
    assert_eq!(read(&mut late), got("one"));
    assert_eq!(filling.complete(), Some(vec![Bytes::from_static(b"onetwo")]));
    for reader in [&mut early, &mut late] {
        assert_eq!(read(reader), got("two"));
        assert_eq!(read(reader), got(""));
    }
    assert_eq!(read(&mut source.reader().expect("all is there")), got("one"), "after the end too");
}

#[test]
fn what_was_not_used_is_there_again() {
    let mut filling = Filling::new(&Space::new(ROOM), 100);
    let mut reader = filling.source().reader().expect("the beginning is there");
    filling.append(b"abc").expect("wanted");
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(reader.poll_bytes(&mut cx), Poll::Ready(Ok(&b"abc"[..])));
    reader.advance(1);
    assert_eq!(reader.poll_bytes(&mut cx), Poll::Ready(Ok(&b"bc"[..])));
}

#[test]
fn a_body_that_ends_too_early_is_seen_to() {
    let mut filling = Filling::new(&Space::new(ROOM), 100);
    let source = filling.source();
    let mut reader = source.reader().expect("the beginning is there");
    filling.append(b"abc").expect("wanted");
    drop(filling);
    assert_eq!(read(&mut reader), got("abc"), "what came is the client's to have");
    assert_eq!(read(&mut reader), Poll::Ready(Err(Cut)));
    assert!(source.reader().is_none());
}

#[test]
fn a_body_that_is_too_large_is_passed_on_and_not_kept() {
    let space = Space::new(ROOM);
    let mut filling = Filling::new(&space, 5);
    let source = filling.source();
    let mut reader = source.reader().expect("the beginning is there");
    filling.append(b"abc").expect("wanted");
    assert!(filling.is_wanted());
    filling.append(b"def").expect("somebody reads");
    assert_eq!(read(&mut reader), got("abc"));
    assert!(source.reader().is_none(), "the beginning is gone");
    assert_eq!(read(&mut reader), got("def"));
    assert_eq!(space.used(), 0, "nothing is held that all have read");
    filling.append(b"ghi").expect("somebody reads");
    assert_eq!(filling.complete(), None);
    assert_eq!(read(&mut reader), got("ghi"));
    assert_eq!(read(&mut reader), got(""));
}

#[test]
fn nobody_brings_in_what_is_neither_read_nor_kept() {
    let mut filling = Filling::new(&Space::new(ROOM), 5);
    filling.append(b"abc").expect("it may be kept");
    assert_eq!(filling.append(b"def"), Err(Unwanted));
    let mut filling = Filling::new(&Space::new(ROOM), 5);
    let reader = filling.source().reader().expect("the beginning is there");
    filling.append(b"abcdef").expect("somebody reads");
    drop(reader);
    assert!(!filling.is_wanted());
    assert_eq!(filling.append(b"g"), Err(Unwanted));
}

#[test]
fn the_writer_waits_for_the_slowest_of_those_it_is_passed_on_to() {
    let (mut filling, [mut slow, mut fast]) = passed_on();
    let now = clock::now();
    assert_eq!(fill(&mut filling, now), 4);
    assert_eq!(read_all(&mut fast), 4);
    assert!(room(&mut filling, now).is_err());
    assert!(read(&mut slow).is_ready());
    assert!(room(&mut filling, now).is_ok());
    drop(slow);
    for _ in 0..20 {
        assert!(room(&mut filling, now).is_ok(), "who has left holds up nobody");
        filling.append(&QUARTER).expect("somebody reads");
        assert!(read(&mut fast).is_ready());
    }
}

#[test]
fn who_keeps_others_waiting_is_left_behind_and_they_go_on() {
    let (mut filling, [mut slow, mut fast]) = passed_on();
    let now = clock::now();
    assert!(read(&mut slow).is_pending());
    fill(&mut filling, now);
    assert!(read(&mut slow).is_ready());
    read_all(&mut fast);
    assert_eq!(fill(&mut filling, now), 1);
    assert_eq!(room(&mut filling, now), Err(None));
    read_all(&mut fast);
    assert_eq!(room(&mut filling, now), Err(Some(5.0)));
    assert_eq!(room(&mut filling, now + Duration::from_secs(2)), Err(Some(3.0)));
    let (watched, waker) = watched();
    assert!(slow.poll_left_behind(&mut Context::from_waker(&waker)).is_pending());
    assert!(room(&mut filling, now + SLOW_READER).is_ok());
    assert_eq!(watched.0.load(Ordering::Relaxed), 1, "its client may be waiting for something else");
    assert!(slow.poll_left_behind(&mut Context::from_waker(&waker)).is_ready());
    assert_eq!(read(&mut slow), Poll::Ready(Err(Cut)));
    for _ in 0..20 {
        filling.append(&QUARTER).expect("somebody reads");
        assert_eq!(read_all(&mut fast), 1);
        assert!(room(&mut filling, now + SLOW_READER).is_ok());
    }
    assert_eq!(filling.readers(), 1);
    drop(fast);
    assert_eq!(filling.append(b"x"), Err(Unwanted));
}

#[test]
fn all_who_keep_others_waiting_go_together_wherever_they_stand() {
    let (mut filling, [mut first, mut second, mut third, mut fast]) = passed_on();
    let now = clock::now();
    fill(&mut filling, now);
    assert!(read(&mut second).is_ready());
    assert!(read(&mut third).is_ready() && read(&mut third).is_ready());
    read_all(&mut fast);
    assert!(room(&mut filling, now).is_err());
    // None but the last is in the way of one more piece, and the next as soon as it is.
    assert!(room(&mut filling, now + SLOW_READER).is_ok());
    assert_eq!((read(&mut first), filling.readers()), (Poll::Ready(Err(Cut)), 3));
    for left in [2, 1] {
        filling.append(&QUARTER).expect("somebody reads");
        read_all(&mut fast);
        assert!(room(&mut filling, now + SLOW_READER).is_ok());
        assert_eq!(filling.readers(), left);
    }
}

#[test]
fn who_reads_alone_sets_its_own_pace() {
    let (mut filling, [mut reader]) = passed_on();
    let now = clock::now();
    fill(&mut filling, now);
    for hours in 0..20 {
        assert_eq!(room(&mut filling, now + Duration::from_hours(hours)), Err(None));
    }
    assert_eq!(read_all(&mut reader), 4);
}

#[test]
fn nobody_is_left_behind_while_nobody_waits_for_more() {
    let (mut filling, [_slow, mut other]) = passed_on();
    let now = clock::now();
    fill(&mut filling, now);
    let (watched, waker) = watched();
    let ask = |filling: &mut Filling, hours| {
        filling.poll_room(&mut Context::from_waker(&waker), now + Duration::from_hours(hours))
    };
    assert_eq!(ask(&mut filling, 0), Room::Awaited(None));
    assert_eq!(ask(&mut filling, 1), Room::Awaited(None));
    read_all(&mut other);
    assert_eq!(watched.0.load(Ordering::Relaxed), 1, "the writer learns that somebody waits");
    assert_eq!(ask(&mut filling, 2), Room::Awaited(Some(now + Duration::from_hours(2) + SLOW_READER)));
    drop(other);
    assert_eq!(watched.0.load(Ordering::Relaxed), 2, "and that nobody does");
    assert_eq!(ask(&mut filling, 3), Room::Awaited(None));
    assert_eq!(filling.readers(), 1);
}

#[test]
fn who_reads_a_window_before_its_time_is_over_keeps_up() {
    let (mut filling, [mut slow, mut fast]) = passed_on();
    let mut now = clock::now();
    // A quarter of it in 1.2 seconds, for a minute; then in 1.4.
    for (millis, pieces, readers) in [(1200, 50, 2), (1400, 5, 1)] {
        for _ in 0..pieces {
            fill(&mut filling, now);
            read_all(&mut fast);
            let _ = room(&mut filling, now);
            now += Duration::from_millis(millis);
            let _ = room(&mut filling, now);
            let _ = read(&mut slow);
        }
        assert_eq!(filling.readers(), readers, "{millis}");
    }
}

#[test]
fn that_a_reader_keeps_up_is_noted_when_it_does() {
    let mut filling = Filling::new(&Space::new(ROOM), ROOM);
    let source = filling.source();
    let [mut slow, mut fast] = [(); 2].map(|()| source.reader().expect("the beginning is there"));
    // Far more than the window was kept before there was too much.
    for _ in 0..ROOM as usize / QUARTER.len() {
        filling.append(&QUARTER).expect("somebody reads");
    }
    read_all(&mut fast);
    let now = clock::now();
    let (watched, waker) = watched();
    let mut cx = Context::from_waker(&waker);
    assert_eq!(filling.poll_room(&mut cx, now), Room::Awaited(Some(now + SLOW_READER)));
    for pieces in 1..=4 {
        assert!(read(&mut slow).is_ready());
        assert_eq!(watched.0.load(Ordering::Relaxed), pieces / 4);
    }
    let later = now + Duration::from_secs(1);
    assert_eq!(filling.poll_room(&mut cx, later), Room::Awaited(Some(later + SLOW_READER)));
    assert!(filling.poll_room(&mut cx, later + SLOW_READER) == Room::There);
}

#[test]
fn the_time_before_it_came_does_not_count_against_a_reader() {
    let (mut filling, [_slow, mut fast]) = passed_on();
    let now = clock::now();
    fill(&mut filling, now);
    read_all(&mut fast);
    assert!(room(&mut filling, now).is_err());
    let late = filling.source().reader().expect("the beginning is there");
    assert_eq!(room(&mut filling, now + SLOW_READER), Err(Some(5.0)));
    assert_eq!(filling.readers(), 2);
    assert!(room(&mut filling, now + 2 * SLOW_READER).is_ok());
    assert_eq!(filling.readers(), 1);
    drop(late);
}

#[test]
fn what_is_held_is_counted_and_given_back() {
    let space = Space::new(10_000);
    let mut one = Filling::new(&space, ROOM);
    one.append(&[0; 6000]).expect("there is room");
    let mut other = Filling::new(&space, ROOM);
    assert_eq!(other.append(&[0; 6000]), Err(Unwanted), "there is none left");
    assert_eq!(space.used(), 6000 + PIECE_COST);
    let source = one.source();
    assert!(one.complete().is_some());
    assert_eq!(space.used(), 0, "it comes in no longer");
    assert!(space.alive() > 0, "somebody may read it still");
    drop((source, other));
    assert_eq!((space.used(), space.alive()), (0, 0));
}

#[test]
fn what_is_read_slowly_counts_until_it_is_read() {
    let bytes = 3 * PIECE as u64;
    let space = Space::new(bytes);
    space.set_whole(bytes);
    let mut filling = Filling::new(&space, ROOM);
    filling.append(&vec![0; 2 * PIECE]).expect("there is room");
    let kept = filling.complete().expect("kept");
    let read = kept[0].slice(2 * PIECE - 1..);
    drop(kept);
    let mut other = Filling::new(&space, ROOM);
    assert_eq!(other.append(&vec![0; 2 * PIECE]), Err(Unwanted), "a byte of it is held, and so all of it is");
    drop(read);
    assert_eq!(space.alive(), 0);
    Filling::new(&space, ROOM).append(&vec![0; 2 * PIECE]).expect("there is room");
}

#[test]
fn what_is_small_is_kept_whatever_slow_clients_hold() {
    let bytes = 4 * PIECE as u64;
    let space = Space::new(bytes);
    space.set_whole(bytes);
    let slow: Vec<_> = std::iter::repeat_with(|| {
        let mut filling = Filling::new(&space, ROOM);
        let reader = filling.source().reader().expect("the beginning is there");
        filling.append(&vec![0; PIECE]).expect("somebody reads");
        filling.append(&vec![0; PIECE]).expect("somebody reads");
        (filling, reader)
    })
    .take(10)
    .collect();
    assert!(space.alive() > bytes && space.used() > bytes, "each has its window");
    let mut large = Filling::new(&space, ROOM);
    large.append(&vec![0; PIECE]).expect("it is small so far");
    assert_eq!(large.append(&vec![0; PIECE]), Err(Unwanted));
    let mut small = Filling::new(&space, ROOM);
    small.append(&vec![0; PIECE]).expect("there is room");
    assert!(small.complete().is_some());
    drop((slow, large));
    assert_eq!((space.used(), space.alive()), (0, 0));
}

#[test]
fn what_came_in_small_pieces_is_kept_in_large_ones() {
    let mut filling = Filling::new(&Space::new(ROOM), ROOM);
    for byte in 0..1000_u16 {
        filling.append(&byte.to_be_bytes()).expect("wanted");
    }
    filling.append(&vec![7; PIECE]).expect("wanted");
    filling.append(&[8; 10]).expect("wanted");
    let pieces = filling.complete().expect("kept");
    assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [2000, PIECE, 10]);
    let expected: Vec<u8> = (0..1000_u16).flat_map(u16::to_be_bytes).collect();
    assert_eq!(pieces[0], expected);
}

/// Counts how often somebody was woken.
#[derive(Default)]
struct Watched(AtomicU32);

impl Wake for Watched {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn watched() -> (Arc<Watched>, Waker) {
    let watched = Arc::new(Watched::default());
    (Arc::clone(&watched), watched.into())
}
