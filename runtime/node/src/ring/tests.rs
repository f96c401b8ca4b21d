//! Order, bounds and refusals of the ring, alone and with readers and writers at once.

use std::sync::Arc;
use std::time::Duration;

use sluicebox_core::frame::Head;

use super::*;

const INCARNATION: u64 = 7;
/// Each test event takes 32 bytes of head, 1 of key and 8 of payload.
const EVENT_BYTES: usize = 41;

/// A frame whose events carry the numbers of `range` as payload.
fn numbers(range: std::ops::Range<u64>) -> Frame {
    let mut builder = FrameBuilder::new();
    range.for_each(|n| builder.push(&Head::data(1), b"k", &n.to_le_bytes(), &[]));
    builder.finish()
}

fn cost(events: usize) -> usize {
    16 + events * EVENT_BYTES + FRAME_OVERHEAD_BYTES
}

/// What a page holds: partition, offset and the number in the payload.
fn listed(page: &Page) -> Vec<(u16, u64, u64)> {
    let number = |payload: &[u8]| u64::from_le_bytes(payload.try_into().expect("eight bytes"));
    let rows = page.chunks.iter().flat_map(|chunk| {
        chunk.events().map(|(offset, event)| (chunk.partition, offset, number(event.payload)))
    });
    rows.collect()
}

fn offsets_of(output: &Output, cursor: &Cursor) -> Vec<u64> {
    let page = output.read(cursor, usize::MAX).expect("not trimmed");
    listed(&page).into_iter().map(|row| row.1).collect()
}

#[test]
fn events_come_out_in_order_with_their_offsets() {
    let output = Output::new(2, 10_000, INCARNATION);
    output.append(0, &numbers(10..13));
    output.append(1, &numbers(20..21));
    output.append(0, &numbers(13..14));
    output.append(9, &numbers(0..1));
    let page = output.read(&Cursor::OLDEST, usize::MAX).expect("not trimmed");
    let all = [(0, 0, 10), (0, 1, 11), (0, 2, 12), (0, 3, 13), (1, 0, 20)];
    assert_eq!(listed(&page), all);
    let page = output.read(&page.next, usize::MAX).expect("not trimmed");
    assert!(page.chunks.is_empty());
    output.append(1, &numbers(21..22));
    let page = output.read(&page.next, usize::MAX).expect("not trimmed");
    assert_eq!(listed(&page), [(1, 1, 21)]);
}

#[test]
fn a_page_may_end_inside_a_frame() {
    let output = Output::new(1, 10_000, INCARNATION);
    output.append(0, &numbers(0..5));
    output.append(0, &numbers(5..7));
    let mut cursor = Cursor::OLDEST;
    let mut seen = Vec::new();
    for expected in [2, 2, 2, 1, 0] {
        let page = output.read_limited(&cursor, 2, usize::MAX).expect("not trimmed");
        let rows = listed(&page);
        assert_eq!(rows.len(), expected);
        for chunk in &page.chunks {
            let cut = chunk.to_frame();
            assert!(cut.events().eq(chunk.events().map(|(_, event)| event)));
        }
        seen.extend(rows.into_iter().map(|row| row.2));
        cursor = Cursor::parse(&page.next.to_string()).expect("own text");
    }
    assert_eq!(seen, (0..7).collect::<Vec<_>>());
}

#[test]
fn the_oldest_frames_make_room_and_are_counted() {
    let output = Output::new(1, 3 * cost(2), INCARNATION);
    let early = output.latest();
    for n in 0..10 {
        output.append(0, &numbers(2 * n..2 * n + 2));
        assert!(output.stats().bytes <= 3 * cost(2));
    }
    assert_eq!(offsets_of(&output, &Cursor::OLDEST), (14..20).collect::<Vec<_>>());
    assert_eq!(output.dropped(), 14);
    let stats = output.stats();
    assert_eq!(stats.partitions, [PartitionStats { oldest: 14, next: 20 }]);
    assert_eq!((stats.appended, stats.bytes), (20, 3 * cost(2)));
    let trimmed = output.read(&early, usize::MAX).expect_err("its events are gone");
    assert_eq!(offsets_of(&output, &trimmed.oldest), (14..20).collect::<Vec<_>>());
    assert!(output.has_news(&early), "who waits at a trimmed place must be told");
}

#[test]
fn a_place_in_another_output_is_refused() {
    let output = Output::new(2, 10_000, INCARNATION);
    output.append(0, &numbers(0..3));
    for other in [Output::new(2, 10_000, 8), Output::new(3, 10_000, INCARNATION)] {
        other.append(other.partitions() - 1, &numbers(0..3));
        assert!(output.read(&other.latest(), usize::MAX).is_err());
    }
    let ahead = Output::new(2, 10_000, INCARNATION);
    ahead.append(0, &numbers(0..4));
    assert!(output.read(&ahead.latest(), usize::MAX).is_err(), "ahead of everything there is");
}

#[test]
fn a_frame_larger_than_a_share_is_kept_alone_within_a_bound() {
    let output = Output::new(4, 4 * cost(4), INCARNATION);
    output.append(0, &numbers(0..2));
    output.append(0, &numbers(2..10));
    assert_eq!(offsets_of(&output, &Cursor::OLDEST), (2..10).collect::<Vec<_>>());
    (1..4).for_each(|partition| output.append(partition, &numbers(0..8)));
    let held = output.stats().bytes;
    assert!(held <= 4 * cost(4), "oversize frames together hold {held}");
    assert!(output.dropped() >= 10, "nothing was refused");
    // One after another in the same partition, each takes the place of the one before.
    (0..5).for_each(|n| output.append(0, &numbers(8 * n..8 * n + 8)));
    let page = output.read(&Cursor::OLDEST, usize::MAX).expect("not trimmed");
    assert!(listed(&page).contains(&(0, 42, 32)));
    // Larger than everything: dropped at once, its offsets are spent.
    let before = output.dropped();
    output.append(3, &numbers(0..100));
    assert!(output.dropped() >= before + 100);
    assert_eq!(output.stats().partitions[3].next, output.stats().partitions[3].oldest);
    for partition in 0..4 {
        output.append(partition, &numbers(0..1));
    }
    assert_eq!(output.shared.oversize_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_busy_partition_does_not_starve_the_others() {
    let output = Output::new(3, 1 << 20, INCARNATION);
    (0..50).for_each(|_| output.append(0, &numbers(0..4)));
    output.append(1, &numbers(0..4));
    output.append(2, &numbers(0..4));
    let mut cursor = Cursor::OLDEST;
    let mut partitions = Vec::new();
    for _ in 0..3 {
        let page = output.read(&cursor, cost(4)).expect("not trimmed");
        partitions.extend(page.chunks.iter().map(|chunk| chunk.partition));
        cursor = page.next;
    }
    assert_eq!(partitions, [0, 1, 2]);
}

#[test]
fn two_readers_do_not_disturb_each_other() {
    let output = Output::new(1, 10_000, INCARNATION);
    output.append(0, &numbers(0..2));
    let one = output.read(&Cursor::OLDEST, usize::MAX).expect("not trimmed");
    output.append(0, &numbers(2..4));
    let two = output.read(&Cursor::OLDEST, usize::MAX).expect("not trimmed");
    assert_eq!((listed(&one).len(), listed(&two).len()), (2, 4));
    assert_eq!(offsets_of(&output, &one.next), [2, 3]);
    assert!(offsets_of(&output, &two.next).is_empty());
}

#[test]
fn since_points_at_what_came_after_a_moment() {
    let output = Output::new(2, 10_000, INCARNATION);
    output.append(0, &numbers(0..2));
    let moment = Instant::now();
    assert!(offsets_of(&output, &output.since(moment)).is_empty());
    output.append(0, &numbers(2..3));
    assert_eq!(offsets_of(&output, &output.since(moment)), [2]);
}

#[test]
fn waiting_ends_with_the_next_event() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    runtime.block_on(async {
        let output = Arc::new(Output::new(2, 10_000, INCARNATION));
        let cursor = output.latest();
        let short = Duration::from_millis(5);
        assert!(tokio::time::timeout(short, output.wait(&cursor)).await.is_err());
        let writer = Arc::clone(&output);
        let thread = std::thread::spawn(move || writer.append(1, &numbers(0..1)));
        output.wait(&cursor).await;
        assert_eq!(offsets_of(&output, &cursor), [0]);
        output.wait(&Cursor::OLDEST).await;
        thread.join().expect("no panic");
        assert_eq!(output.shared.waiting.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn readers_see_every_event_once_while_others_write() {
    const EVENTS: u64 = 3_000;
    let output = Arc::new(Output::new(2, usize::MAX, INCARNATION));
    let writers: Vec<_> = (0..2_u16)
        .map(|partition| {
            let output = Arc::clone(&output);
            std::thread::spawn(move || {
                (0..EVENTS).step_by(3).for_each(|n| output.append(partition, &numbers(n..n + 3)));
            })
        })
        .collect();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let output = Arc::clone(&output);
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().build().expect("runtime");
                runtime.block_on(async {
                    let (mut cursor, mut next) = (Cursor::OLDEST, [0, 0]);
                    while next != [EVENTS, EVENTS] {
                        output.wait(&cursor).await;
                        let page = output.read_limited(&cursor, 7, 500).expect("not trimmed");
                        for (partition, offset, number) in listed(&page) {
                            let expected = &mut next[usize::from(partition)];
                            assert_eq!((offset, number), (*expected, *expected));
                            *expected += 1;
                        }
                        cursor = page.next;
                    }
                });
            })
        })
        .collect();
    writers.into_iter().chain(readers).for_each(|thread| thread.join().expect("no panic"));
}

#[test]
fn an_output_arranged_anew_holds_what_the_old_one_does() {
    let old = Output::new(2, 10_000, INCARNATION);
    old.append(0, &numbers(0..2));
    old.append(1, &numbers(20..21));
    let new = old.arranged(INCARNATION + 1, 4, |at| (at % 2 == 1).then_some(at / 2));
    // What is appended to the old one by who still has it is seen, and the other way round.
    old.append(0, &numbers(2..3));
    new.append(3, &numbers(21..22));
    new.append(2, &numbers(30..31));
    let page = new.read(&Cursor::OLDEST, usize::MAX).expect("from the oldest on");
    let all = [(1, 0, 0), (1, 1, 1), (1, 2, 2), (2, 0, 30), (3, 0, 20), (3, 1, 21)];
    assert_eq!(listed(&page), all);
    assert_eq!((new.incarnation(), new.partitions()), (INCARNATION + 1, 4));
    assert_eq!((old.stats().appended, new.stats().appended), (6, 6));
    assert!(new.holds(2) && !new.holds(0));
    // A place in one is none in the other.
    assert!(old.read(&page.next, usize::MAX).is_err());
}

#[test]
fn a_share_of_those_in_use_bounds_the_others_too() {
    let output = Output::new(4, 8 * cost(1), INCARNATION);
    output.share_among(1);
    (0..8).for_each(|n| output.append(0, &numbers(n..n + 1)));
    assert_eq!(output.dropped(), 0);
    output.share_among(4);
    let kept = offsets_of(&output, &Cursor::OLDEST);
    assert!(kept.len() < 8 && kept.ends_with(&[7]), "{kept:?}");
    assert_eq!(output.dropped() as usize, 8 - kept.len());
}

#[test]
fn cursors_stay_good_when_partitions_come_and_go() {
    let output = Output::new(2, 100_000, INCARNATION);
    output.append(0, &numbers(0..3));
    output.append(1, &numbers(10..12));
    let early = output.read_limited(&Cursor::OLDEST, 2, usize::MAX).expect("not trimmed").next;
    output.resize(100_000, 4);
    output.append(3, &numbers(30..31));
    let rest = [(1, 0, 10), (1, 1, 11), (3, 0, 30), (0, 2, 2)];
    let page = output.read(&early, usize::MAX).expect("not trimmed");
    assert_eq!(listed(&page), rest);
    // Fewer again: what is there is still read.
    output.resize(100_000, 1);
    output.append(0, &numbers(3..4));
    let page = output.read(&page.next, usize::MAX).expect("not trimmed");
    assert_eq!(listed(&page), [(0, 3, 3)]);
    let fewer = Output::new(2, 100_000, INCARNATION);
    assert!(fewer.read(&page.next, usize::MAX).is_err(), "a partition it does not have was read");
    let unused = Output::new(4, 100_000, INCARNATION);
    assert!(fewer.read(&unused.latest(), usize::MAX).is_ok(), "nothing was read there");
}

#[test]
fn what_lies_in_front_of_a_fence_is_read_first() {
    let output = Output::new(2, 100_000, INCARNATION);
    output.append(1, &numbers(0..2));
    output.resize(100_000, 3);
    output.fence(|_, next| next);
    // The key goes on in a partition that is read earlier.
    output.append(0, &numbers(2..4));
    output.append(1, &numbers(20..21));
    output.fence(|_, next| next);
    output.append(2, &numbers(4..5));
    output.append(0, &numbers(5..6));
    let mut cursor = Cursor::OLDEST;
    let mut pages = Vec::new();
    while output.has_news(&cursor) {
        let page = output.read(&cursor, usize::MAX).expect("not trimmed");
        assert!(!page.chunks.is_empty(), "news is something to read");
        pages.push(listed(&page).into_iter().map(|row| row.2).collect::<Vec<_>>());
        cursor = page.next;
    }
    pages.iter_mut().for_each(|page| page.sort_unstable());
    assert_eq!(pages, [vec![0, 1], vec![2, 3, 20], vec![4, 5]]);
    // One that is on its way lies in front, and nothing behind is given out until it is there.
    output.fence(|partition, next| if partition == 2 { next + 1 } else { next });
    output.append(0, &numbers(8..9));
    assert!(!output.has_news(&cursor));
    assert!(output.read(&cursor, usize::MAX).expect("not trimmed").chunks.is_empty());
    output.append(2, &numbers(7..8));
    let page = output.read(&cursor, usize::MAX).expect("not trimmed");
    assert_eq!(listed(&page), [(2, 1, 7)]);
    let page = output.read(&page.next, usize::MAX).expect("not trimmed");
    assert_eq!(listed(&page), [(0, 3, 8)]);
}

#[test]
fn partitions_that_take_nothing_any_more_are_held_to_the_bound() {
    let output = Output::new(1, 4 * cost(1), INCARNATION);
    for partitions in [1, 2, 3, 4] {
        output.resize(4 * cost(1), partitions);
        (0..4).for_each(|n| output.append(partitions - 1, &numbers(n..n + 1)));
    }
    output.resize(4 * cost(1), 1);
    let first = output.stats().bytes;
    assert!(first <= 8 * cost(1), "{first} bytes");
    let few = Output::new(2, 4 * cost(1), INCARNATION);
    few.append(1, &numbers(0..1));
    few.append(1, &numbers(1..2));
    few.resize(4 * cost(1), 1);
    assert_eq!(few.dropped(), 0, "what fits is kept");
}
