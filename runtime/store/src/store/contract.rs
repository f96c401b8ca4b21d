//! What every store must show; call [`every_promise`] from its tests.
//!
//! Each promise gets a store of its own, empty, from the factory. A promise that is not kept
//! panics with what was expected. What a crash leaves is tested where there is a disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use sluicebox_core::error::{Classify, Kind};

use crate::error::Error;
use crate::store::{
    Change, ENTRY_KEY_BYTES_MAX, ENTRY_VALUE_BYTES_MAX, Extent, METADATA_BYTES_MAX, PageLimit,
    Store,
};

/// Makes an empty store.
pub type Factory<'a> = &'a dyn Fn() -> Box<dyn Store>;

/// A page that holds everything these tests put.
const ALL: PageLimit = PageLimit { entries: usize::MAX, bytes: usize::MAX };

/// Checks all promises of the store contract.
///
/// # Panics
/// If one is not kept.
pub fn every_promise(make: Factory<'_>) {
    what_was_put_is_read_back(&*make());
    the_commit_moves_the_horizon_and_the_metadata(&*make());
    what_is_not_committed_leaves_the_horizon(&*make());
    the_horizon_never_goes_back(&*make());
    scans_are_in_order_and_in_pages(&*make());
    prefixes_are_deleted_and_nothing_else(&*make());
    keys_deleted_and_put_again_are_there(&*make());
    sizes_are_told(&*make());
    bad_pieces_are_refused_whole(&*make());
    large_values_and_metadata_are_bounded(&*make());
    reads_go_on_during_a_checkpoint(&*make());
    checkpoints_come_one_after_another(&*make());
    a_closed_store_says_so(&*make());
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Change<'a> {
    Change { key, value: Some(value) }
}

fn delete(key: &[u8]) -> Change<'_> {
    Change { key, value: None }
}

/// One checkpoint of one piece.
fn apply(store: &dyn Store, horizon: u64, piece: &[Change<'_>]) {
    let mut checkpoint = store.begin(horizon).expect("nothing is wrong with the horizon");
    checkpoint.write(piece).expect("nothing is wrong with the piece");
    checkpoint.commit(&[]).expect("it can be committed");
}

fn get(store: &dyn Store, key: &[u8]) -> Option<Vec<u8>> {
    store.get(key).expect("it can be read").map(|value| value.to_vec())
}

fn keys(store: &dyn Store, prefix: &[u8]) -> Vec<Bytes> {
    let page = store.scan(prefix, b"", ALL).expect("it can be scanned");
    assert_eq!(page.next, None, "a page without bounds is the last");
    page.entries.into_iter().map(|(key, _)| key).collect()
}

fn what_was_put_is_read_back(store: &dyn Store) {
    assert_eq!(get(store, b"a"), None);
    let every_byte: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let piece = [put(b"\0", b""), put(b"a", &every_byte), put(b"a\0", b"0"), put(b"\xFF", b"\0")];
    apply(store, 1, &piece);
    for change in piece {
        assert_eq!(get(store, change.key).as_deref(), change.value, "{:?}", change.key);
    }
    apply(store, 2, &[put(b"a", b"new"), delete(b"a\0"), delete(b"never there")]);
    assert_eq!(get(store, b"a").as_deref(), Some(&b"new"[..]));
    assert_eq!(get(store, b"a\0"), None);
    assert_eq!(keys(store, b""), [&b"\0"[..], b"a", b"\xFF"]);
    let nothing = store.get(b"").expect("no key is longer or shorter than all");
    assert_eq!(nothing, None);
}

fn the_commit_moves_the_horizon_and_the_metadata(store: &dyn Store) {
    assert_eq!(store.extent(), Extent::default());
    assert_eq!(store.metadata("a"), None);
    let mut checkpoint = store.begin(7).expect("it is ahead");
    checkpoint.write(&[put(b"k", b"1")]).expect("it can be written");
    assert_eq!(store.extent(), Extent { horizon: 0, reach: 7 }, "before the commit");
    checkpoint.write(&[]).expect("an empty piece is a piece");
    checkpoint.write(&[put(b"l", b"2")]).expect("it can be written");
    checkpoint.commit(&[("a", b"one"), ("b", b"")]).expect("it can be committed");
    assert_eq!(store.extent(), Extent { horizon: 7, reach: 7 });
    assert_eq!(store.metadata("a").as_deref(), Some(&b"one"[..]));
    assert_eq!(store.metadata("b").as_deref(), Some(&b""[..]));
    let checkpoint = store.begin(8).expect("it is ahead");
    checkpoint.commit(&[("c", b"three")]).expect("a checkpoint may be empty");
    assert_eq!((store.metadata("a"), store.metadata("b")), (None, None), "replaced as a whole");
    assert_eq!(store.metadata("c").as_deref(), Some(&b"three"[..]));
    assert_eq!(keys(store, b""), [&b"k"[..], b"l"]);
}

fn what_is_not_committed_leaves_the_horizon(store: &dyn Store) {
    apply(store, 5, &[put(b"k", b"old")]);
    let mut checkpoint = store.begin(9).expect("it is ahead");
    checkpoint.write(&[put(b"k", b"new")]).expect("it can be written");
    drop(checkpoint);
    assert_eq!(store.extent(), Extent { horizon: 5, reach: 9 });
    // What the log still has is put again, and then all is as if nothing had happened.
    apply(store, 9, &[put(b"k", b"new"), put(b"l", b"too")]);
    assert_eq!(store.extent(), Extent { horizon: 9, reach: 9 });
    assert_eq!(get(store, b"k").as_deref(), Some(&b"new"[..]));
}

fn the_horizon_never_goes_back(store: &dyn Store) {
    apply(store, 5, &[]);
    let refused = store.begin(4).map(drop).expect_err("it is behind");
    assert!(matches!(refused, Error::HorizonBehind { horizon: 4, stored: 5 }), "{refused:?}");
    assert_eq!(refused.kind(), Kind::Conflict);
    drop(store.begin(9).expect("it is ahead"));
    // Behind the reach is not behind the horizon; what may be there may still be there.
    apply(store, 6, &[]);
    assert_eq!(store.extent(), Extent { horizon: 6, reach: 9 });
    apply(store, 6, &[put(b"k", b"v")]);
    assert_eq!(get(store, b"k").as_deref(), Some(&b"v"[..]));
}

fn scans_are_in_order_and_in_pages(store: &dyn Store) {
    let names = ["a", "b", "b\0", "ba", "bb", "bc", "c", "\u{ff}"];
    let piece: Vec<Change<'_>> = names.map(|n| put(n.as_bytes(), n.as_bytes())).to_vec();
    apply(store, 1, &piece[..4]);
    apply(store, 2, &piece[4..]);
    let below = ["b", "b\0", "ba", "bb", "bc"];
    assert_eq!(keys(store, b"b"), below);
    assert_eq!(keys(store, b"").len(), names.len());
    for (entries, bytes) in [(1, usize::MAX), (2, usize::MAX), (usize::MAX, 5), (0, 0)] {
        let (mut from, mut found) = (Bytes::new(), Vec::new());
        loop {
            let limit = PageLimit { entries, bytes };
            let page = store.scan(b"b", &from, limit).expect("it can be scanned");
            assert!(page.entries.len() <= entries.clamp(1, 2), "a page of {page:?}");
            found.extend(page.entries);
            let Some(next) = page.next else { break };
            from = next;
        }
        let expected = below.map(|name| (Bytes::from(name), Bytes::from(name)));
        assert_eq!(found, expected, "in pages of {entries} and {bytes}");
    }
    let from = |from: &[u8]| store.scan(b"b", from, ALL).expect("it can be scanned").entries.len();
    assert_eq!((from(b"a"), from(b"bb"), from(b"bbx"), from(b"bd"), from(b"c")), (5, 2, 1, 0, 0));
    apply(store, 3, &[delete(b"bb")]);
    assert_eq!(keys(store, b"b"), ["b", "b\0", "ba", "bc"]);
}

fn prefixes_are_deleted_and_nothing_else(store: &dyn Store) {
    let names: [&[u8]; 6] = [b"a", b"b", b"b\xFF", b"b\xFF\xFF", b"c", b"\xFF\xFF"];
    apply(store, 1, &names.map(|name| put(name, b"v")));
    let mut checkpoint = store.begin(2).expect("it is ahead");
    let mut delete = |prefixes: &[&[u8]]| {
        let prefixes: Vec<Vec<u8>> = prefixes.iter().map(|prefix| prefix.to_vec()).collect();
        checkpoint.delete_prefixes(&prefixes).expect("they can be deleted")
    };
    // In any order, also one within another; each key counts once.
    assert_eq!(delete(&[b"\xFF", b"nothing", b"b\xFF\xFF", b"b\xFF"]), 3);
    assert_eq!(delete(&[b"b\xFF", b"nothing"]), 0);
    assert_eq!(delete(&[]), 0);
    checkpoint.write(&[put(b"b\xFFnew", b"v")]).expect("it can be written");
    checkpoint.commit(&[]).expect("it can be committed");
    assert_eq!(keys(store, b""), [&b"a"[..], b"b", b"b\xFFnew", b"c"]);
}

fn keys_deleted_and_put_again_are_there(store: &dyn Store) {
    for round in 0..40_u64 {
        let (one, other) = (round.to_be_bytes(), (round + 1).to_be_bytes());
        apply(store, round, &[put(&one, b""), put(&other, b"v"), put(b"always", &one)]);
        apply(store, round, &[delete(&one), put(b"always", &other)]);
        assert_eq!(get(store, b"always").as_deref(), Some(&other[..]), "round {round}");
        assert_eq!((get(store, &one), get(store, &other).is_some()), (None, true));
    }
    assert_eq!(keys(store, b"").len(), 2);
}

fn sizes_are_told(store: &dyn Store) {
    apply(store, 1, &[put(b"a1", b"12"), put(b"a2", b"1234"), put(b"b1", &[7; 1000])]);
    let measure = |prefix: &[u8], from: &[u8], limit| {
        store.measure(prefix, from, limit).expect("it can be read")
    };
    let bytes = |prefix: &[u8]| measure(prefix, b"", ALL).bytes;
    assert_eq!((bytes(b"a"), bytes(b"b"), bytes(b"c")), (10, 1002, 0));
    apply(store, 2, &[delete(b"a2")]);
    assert_eq!(bytes(b"a"), 4);
    let numbers: Vec<u16> = (0..30_000).collect();
    let keys: Vec<Vec<u8>> =
        numbers.iter().map(|n| [b"man", &n.to_be_bytes()[..]].concat()).collect();
    let many: Vec<Change<'_>> = keys.iter().map(|key| put(key, &key[..4])).collect();
    apply(store, 3, &many);
    assert_eq!((bytes(b"man"), bytes(b"a")), (9 * 30_000, 4));
    // In parts, by either bound.
    for limit in [PageLimit { entries: 7, ..ALL }, PageLimit { bytes: 9 * 7 + 8, ..ALL }] {
        let (mut from, mut sum, mut parts) = (Bytes::new(), 0, 0);
        loop {
            let part = measure(b"man", &from, limit);
            assert_eq!(part.bytes, 9 * part.entries as u64);
            (sum, parts) = (sum + part.entries, parts + 1);
            let Some(next) = part.next else { break };
            assert_eq!(part.entries, 7);
            from = next;
        }
        assert_eq!((sum, parts), (30_000, 30_000_usize.div_ceil(7)));
    }
    let one = measure(b"b", b"", PageLimit { entries: 0, bytes: 0 });
    assert_eq!((one.entries, one.next), (1, None), "one is measured in any case");
}

fn bad_pieces_are_refused_whole(store: &dyn Store) {
    let long = vec![b'x'; ENTRY_KEY_BYTES_MAX + 1];
    let mut checkpoint = store.begin(1).expect("it is ahead");
    for bad in [
        [put(b"b", b""), put(b"a", b"")],
        [put(b"a", b""), put(b"a", b"")],
        [put(b"", b""), put(b"a", b"")],
    ] {
        let refused = checkpoint.write(&bad).expect_err("the keys do not ascend");
        assert!(matches!(refused, Error::Unordered), "{refused:?}");
    }
    let refused = checkpoint.write(&[put(b"a", b""), put(&long, b"")]).expect_err("too long");
    assert!(matches!(refused, Error::EntryTooLarge { .. }), "{refused:?}");
    assert_eq!(refused.kind(), Kind::Invalid);
    checkpoint.write(&[put(&long[1..], b"v")]).expect("this is the longest");
    checkpoint.commit(&[]).expect("it can be committed");
    assert_eq!(keys(store, b""), [&long[1..]]);
}

fn large_values_and_metadata_are_bounded(store: &dyn Store) {
    let mut value = vec![7; ENTRY_VALUE_BYTES_MAX + 1];
    let mut checkpoint = store.begin(1).expect("it is ahead");
    let refused = checkpoint.write(&[put(b"a", &value)]).expect_err("it is too large");
    assert!(matches!(refused, Error::EntryTooLarge { .. }), "{refused:?}");
    value.pop();
    checkpoint.write(&[put(b"a", &value)]).expect("this is the largest");
    let refused = checkpoint.commit(&[("a", &value[..=METADATA_BYTES_MAX])]);
    assert!(matches!(refused, Err(Error::EntryTooLarge { .. })), "{refused:?}");
    assert_eq!(store.extent().horizon, 0, "a refused commit moves nothing");
    assert!(get(store, b"a") == Some(value), "the largest value is not read back");
}

fn reads_go_on_during_a_checkpoint(store: &dyn Store) {
    const KEYS: u8 = 50;
    let keys: Vec<[u8; 2]> = (0..KEYS).map(|key| [b'k', key]).collect();
    let round = |round: u64| {
        let value = round.to_be_bytes();
        let mut checkpoint = store.begin(round).expect("it is ahead");
        for part in keys.chunks(10) {
            let piece: Vec<Change<'_>> = part.iter().map(|key| put(key, &value)).collect();
            checkpoint.write(&piece).expect("it can be written");
        }
        checkpoint.commit(&[]).expect("it can be committed");
    };
    round(1);
    let done = AtomicBool::new(false);
    let reads = thread::scope(|scope| {
        let read_until_done = || {
            let (mut reads, mut newest) = (0_u32, 0);
            while !done.load(Ordering::Relaxed) || reads == 0 {
                let page = store.scan(b"k", b"", ALL).expect("it can be scanned");
                assert_eq!(page.entries.len(), keys.len(), "a replaced entry is never absent");
                let value = get(store, &keys[0]).expect("a replaced entry is never absent");
                let value = u64::from_be_bytes(value.try_into().expect("eight bytes were put"));
                assert!(value >= newest, "{value} was read after {newest}");
                newest = value;
                reads += 1;
            }
            reads
        };
        let readers = [scope.spawn(read_until_done), scope.spawn(read_until_done)];
        (2..12).for_each(round);
        done.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().expect("no reader saw anything wrong"))
    });
    assert!(reads.iter().all(|n| *n > 0));
    assert!(keys.iter().all(|key| get(store, key) == Some(11_u64.to_be_bytes().into())));
}

fn checkpoints_come_one_after_another(store: &dyn Store) {
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            scope.spawn(move || {
                for round in 0..5 {
                    let key = [thread, round];
                    // Another thread may be further: its horizon is what we write under then.
                    let mut checkpoint = store.begin(9).expect("all have one horizon");
                    checkpoint.write(&[put(&key, b"v")]).expect("it can be written");
                    checkpoint.commit(&[]).expect("it can be committed");
                }
            });
        }
    });
    assert_eq!(keys(store, b"").len(), 20);
}

fn a_closed_store_says_so(store: &dyn Store) {
    apply(store, 1, &[put(b"k", b"v")]);
    store.close();
    store.close();
    let refusals = [
        store.get(b"k").map(drop),
        store.scan(b"", b"", ALL).map(drop),
        store.measure(b"", b"", ALL).map(drop),
        store.begin(2).map(drop),
    ];
    for refused in refusals {
        let refused = refused.expect_err("it is closed");
        assert!(matches!(refused, Error::Closed), "{refused:?}");
    }
}
