//! A stream as its user sees it, over two threads too, and what a hostile other end may do to it.

use std::sync::atomic::Ordering;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::contract::within;
use crate::ring::format::{HEADER_WORDS, Spot, packet_word};

const SMALL: usize = 4096;

fn pair() -> (RingStream, RingStream) {
    let (ours, handed) = RingStream::make(SMALL).expect("a stream");
    (ours, RingStream::take(handed, SMALL).expect("its other end"))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Bytes that differ from place to place.
fn pattern(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn bytes_arrive_both_ways_and_then_the_end() {
    let (mut one, mut two) = pair();
    one.write_all(b"there").await.expect("written");
    two.write_all(b"and back").await.expect("written");
    one.shutdown().await.expect("closed");
    let mut read = Vec::new();
    within("the end", two.read_to_end(&mut read)).await.expect("read");
    assert_eq!(read, b"there");
    two.write_all(b", still").await.expect("the other way is open");
    drop(two);
    let mut read = Vec::new();
    within("the end", one.read_to_end(&mut read)).await.expect("read");
    assert_eq!(read, b"and back, still");
    let gone = one.write_all(&pattern(0, SMALL)).await.expect_err("nobody reads");
    assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn who_waits_for_room_hears_that_the_other_end_went() {
    let (mut one, two) = pair();
    let writes = async { one.write_all(&pattern(0, 4 * SMALL)).await };
    let leaves = async {
        tokio::task::yield_now().await;
        drop(two);
    };
    let (written, ()) = within("the end", async { tokio::join!(writes, leaves) }).await;
    assert_eq!(written.expect_err("nobody reads").kind(), io::ErrorKind::BrokenPipe);
}

/// Each end on a thread of its own, and each side of it in a task of its own: both rings are full
/// most of the time, and no wake-up is lost.
#[test]
fn two_tasks_at_each_of_two_threads_lose_nothing() {
    const BYTES: usize = 8 << 20;
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    let run = |stream: RingStream, piece: usize| async move {
        let (mut reads, mut writes) = tokio::io::split(stream);
        let written = tokio::task::spawn_local(async move {
            let mut at = 0;
            while at < BYTES {
                let bytes = pattern(at, piece.min(BYTES - at));
                writes.write_all(&bytes).await.expect("written");
                at += bytes.len();
            }
            writes.shutdown().await.expect("closed");
            writes
        });
        let (mut at, mut into) = (0, vec![0; piece * 3 + 1]);
        loop {
            let count = within("more", reads.read(&mut into)).await.expect("read");
            if count == 0 {
                break;
            }
            assert!(into[..count] == pattern(at, count), "other bytes after {at}");
            at += count;
        }
        assert_eq!(at, BYTES);
        drop(written.await.expect("no panic"));
    };
    let there = std::thread::spawn(move || {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime(), async {
            let (stream, handed) = RingStream::make(SMALL).expect("a stream");
            send.send(handed).expect("the other thread is there");
            run(stream, 1_003).await;
        });
    });
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime(), async {
        let handed = receive.recv().expect("the other end");
        run(RingStream::take(handed, SMALL).expect("an end"), 7).await;
    });
    there.join().expect("no panic");
}

proptest! {
    #[test]
    fn pieces_of_any_size_are_read_into_room_of_any_size(
        pieces in prop::collection::vec((0..700_usize, 1..700_usize), 1..60),
    ) {
        runtime().block_on(async {
            let (mut one, mut two) = pair();
            let (mut written, mut read) = (0, 0);
            for (piece, room) in pieces {
                // In two parts, so that words begin in one and end in the other.
                let bytes = pattern(written, piece.min(SMALL / 2 - (written - read)));
                let (first, second) = bytes.split_at(bytes.len() / 3);
                let parts = [first, &[], second].map(io::IoSlice::new);
                let count = one.write_vectored(&parts).await.expect("there is room");
                assert_eq!(count, bytes.len());
                written += count;
                if written > read {
                    let mut into = vec![0; room];
                    let count = within("bytes", two.read(&mut into)).await.expect("read");
                    assert_eq!(count, room.min(written - read), "all that there is room for");
                    assert_eq!(&into[..count], pattern(read, count));
                    read += count;
                }
            }
        });
    }
}

/// What the other end reads when this was written over what it sent.
fn lied(lie: impl FnOnce(&[std::sync::atomic::AtomicU64])) -> io::ErrorKind {
    runtime().block_on(async {
        let (mut liar, mut reads) = pair();
        liar.write_all(b"a packet").await.expect("written");
        lie(reads.incoming.reader.memory());
        let mut into = [0; 64];
        let first = reads.read(&mut into).await.expect_err("it cannot be");
        let again = reads.read(&mut into).await.expect_err("nor later");
        assert_eq!(first.kind(), again.kind());
        first.kind()
    })
}

#[test]
fn what_cannot_be_is_an_error_and_stays_one() {
    let word = |word: u64| {
        lied(|memory| memory[HEADER_WORDS].store(word, Ordering::Relaxed));
    };
    word(0);
    word(packet_word(0));
    word(packet_word(SMALL));
    word(packet_word(9));
    lied(|memory| Spot::Head.of(memory).store(SMALL as u64 + 8, Ordering::Relaxed));
    lied(|memory| Spot::Head.of(memory).store(15, Ordering::Relaxed));
}

#[tokio::test]
async fn a_reader_that_lies_about_its_place_is_an_error_for_who_writes() {
    let (mut writes, liar) = pair();
    writes.write_all(&pattern(0, SMALL / 2)).await.expect("written");
    Spot::Tail.of(liar.incoming.reader.memory()).store(1 << 40, Ordering::Relaxed);
    let error = within("the lie", writes.write_all(&pattern(0, SMALL))).await;
    assert_eq!(error.expect_err("it cannot be").kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_larger_ring_than_is_allowed_is_not_taken() {
    let (_ours, handed) = RingStream::make(2 * SMALL).expect("a stream");
    assert!(matches!(RingStream::take(handed, SMALL), Err(Error::TooLarge { .. })));
    assert!(matches!(RingStream::make(SMALL + 1), Err(Error::Setting { .. })));
}
