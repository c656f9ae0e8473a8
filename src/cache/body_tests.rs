use super::body::{Cut, Filling, PIECE, PIECE_COST, Reader, Space, Unwanted, WINDOW};
use bytes::Bytes;
use std::task::{Context, Poll, Waker};

const ROOM: u64 = 1 << 20;

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
    let mut filling = Filling::new(&Space::new(0), ROOM);
    let source = filling.source();
    let mut slow = source.reader().expect("the beginning is there");
    let mut fast = source.reader().expect("the beginning is there");
    let mut cx = Context::from_waker(Waker::noop());
    let piece = vec![0; WINDOW as usize / 4];
    let mut pieces = 0;
    while filling.poll_room(&mut cx).is_ready() {
        filling.append(&piece).expect("somebody reads");
        pieces += 1;
        assert!(matches!(read(&mut fast), Poll::Ready(Ok(bytes)) if !bytes.is_empty()));
    }
    assert_eq!(pieces, 4);
    assert!(read(&mut slow).is_ready());
    assert!(filling.poll_room(&mut cx).is_ready());
    drop(slow);
    for _ in 0..20 {
        assert!(filling.poll_room(&mut cx).is_ready(), "who has left holds up nobody");
        filling.append(&piece).expect("somebody reads");
        assert!(read(&mut fast).is_ready());
    }
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
