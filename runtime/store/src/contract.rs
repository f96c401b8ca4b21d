//! The behaviour every catalog must show; call [`every_promise`] from its tests.
//!
//! Each promise gets a catalog of its own, empty, from the factory. A promise that is not kept
//! panics with what was expected.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sluicebox_core::error::{Classify, Kind};

use crate::catalog::{Catalog, VALUE_BYTES_MAX};
use crate::error::Error;
use crate::key::Key;

/// Makes an empty catalog.
pub type Factory<'a> = &'a dyn Fn() -> Box<dyn Catalog>;

/// Checks all promises of the catalog contract.
///
/// # Panics
/// If one is not kept.
pub fn every_promise(make: Factory<'_>) {
    what_was_put_is_read_back(&*make());
    of_two_creates_one_wins(&*make());
    keys_do_not_disturb_one_another(&*make());
    lists_are_in_order_and_by_whole_segments(&*make());
    what_was_deleted_is_gone(&*make());
    values_are_bounded(&*make());
    readers_see_one_value_or_another(&*make());
    changes_from_many_threads_all_count(&*make());
}

fn key(text: &str) -> Key {
    Key::new(text).expect("the key is valid")
}

fn create(catalog: &dyn Catalog, at: &str, value: &[u8]) {
    catalog.create(&key(at), value).expect("nothing is under the key");
}

fn get(catalog: &dyn Catalog, at: &str) -> Option<Vec<u8>> {
    catalog.get(&key(at)).expect("it can be read").map(|value| value.to_vec())
}

fn list(catalog: &dyn Catalog, under: Option<&str>) -> Vec<String> {
    let under = under.map(key);
    let keys = catalog.list(under.as_ref()).expect("it can be listed");
    keys.iter().map(ToString::to_string).collect()
}

fn what_was_put_is_read_back(catalog: &dyn Catalog) {
    assert_eq!(get(catalog, "a/b"), None);
    let every_byte: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for (at, value) in [("a/b", &every_byte[..]), ("empty", b""), ("one", b"\0")] {
        create(catalog, at, value);
        assert_eq!(get(catalog, at).as_deref(), Some(value), "{at}");
    }
    catalog.replace(&key("a/b"), b"shorter").expect("it can be replaced");
    assert_eq!(get(catalog, "a/b").as_deref(), Some(&b"shorter"[..]));
    catalog.replace(&key("new"), b"by replace").expect("it need not exist");
    assert_eq!(get(catalog, "new").as_deref(), Some(&b"by replace"[..]));
}

fn of_two_creates_one_wins(catalog: &dyn Catalog) {
    create(catalog, "a/b", b"first");
    let refused = catalog.create(&key("a/b"), b"second").expect_err("it exists");
    assert!(matches!(&refused, Error::Conflict { key } if key.as_str() == "a/b"), "{refused:?}");
    assert_eq!((refused.kind(), refused.code()), (Kind::Conflict, "store.conflict"));
    assert_eq!(get(catalog, "a/b").as_deref(), Some(&b"first"[..]));

    let wins = thread::scope(|scope| {
        let contenders: Vec<_> = (0..8_u8)
            .map(|i| scope.spawn(move || catalog.create(&key("race"), &[i]).is_ok().then_some(i)))
            .collect();
        let won = contenders.into_iter().filter_map(|c| c.join().expect("it does not panic"));
        won.collect::<Vec<_>>()
    });
    assert_eq!(wins.len(), 1, "of eight creates {wins:?} won");
    assert_eq!(get(catalog, "race"), Some(wins));
}

fn keys_do_not_disturb_one_another(catalog: &dyn Catalog) {
    let keys = ["a", "a/b", "a/b/c", "a.b", "a-b", "a-b/c", "b", "a/b.c"];
    for at in keys {
        create(catalog, at, at.as_bytes());
    }
    for at in keys {
        assert_eq!(get(catalog, at).as_deref(), Some(at.as_bytes()), "{at}");
    }
    assert!(catalog.delete(&key("a/b")).expect("it can be deleted"));
    for at in keys {
        assert_eq!(get(catalog, at).is_some(), at != "a/b", "{at}");
    }
}

fn lists_are_in_order_and_by_whole_segments(catalog: &dyn Catalog) {
    assert_eq!(list(catalog, None), [""; 0]);
    for at in ["t/z", "t/a/2", "t/a/10", "t/a", "t-a/x", "t.a", "ta/x", "t/a.b/x", "u"] {
        create(catalog, at, b"");
    }
    let all = ["t-a/x", "t.a", "t/a", "t/a.b/x", "t/a/10", "t/a/2", "t/z", "ta/x", "u"];
    assert_eq!(list(catalog, None), all);
    assert_eq!(list(catalog, Some("t")), ["t/a", "t/a.b/x", "t/a/10", "t/a/2", "t/z"]);
    assert_eq!(list(catalog, Some("t/a")), ["t/a/10", "t/a/2"]);
    assert_eq!(list(catalog, Some("t/a/2")), [""; 0]);
    assert_eq!(list(catalog, Some("nothing/here")), [""; 0]);
}

fn what_was_deleted_is_gone(catalog: &dyn Catalog) {
    create(catalog, "a/b/c", b"1");
    assert!(catalog.delete(&key("a/b/c")).expect("it can be deleted"));
    assert!(!catalog.delete(&key("a/b/c")).expect("deleting nothing is no error"));
    assert!(!catalog.delete(&key("a/b")).expect("a prefix is not a document"));
    assert_eq!(get(catalog, "a/b/c"), None);
    assert_eq!(list(catalog, None), [""; 0]);
    create(catalog, "a/b/c", b"2");
    assert_eq!(get(catalog, "a/b/c").as_deref(), Some(&b"2"[..]));
}

fn values_are_bounded(catalog: &dyn Catalog) {
    let mut value = vec![7; VALUE_BYTES_MAX + 1];
    for refused in [catalog.create(&key("a"), &value), catalog.replace(&key("a"), &value)] {
        let refused = refused.expect_err("it is too large");
        assert!(matches!(refused, Error::TooLarge { .. }), "{refused:?}");
    }
    assert_eq!(list(catalog, None), [""; 0]);
    value.pop();
    create(catalog, "a", &value);
    assert!(get(catalog, "a") == Some(value), "the largest value is not read back");
}

fn readers_see_one_value_or_another(catalog: &dyn Catalog) {
    const LEN: usize = 64 * 1024;
    create(catalog, "a/b", &[0; LEN]);
    let done = AtomicBool::new(false);
    let reads = thread::scope(|scope| {
        let read_until_done = || {
            let mut reads = 0_u32;
            while !done.load(Ordering::Relaxed) || reads == 0 {
                let value = get(catalog, "a/b").expect("a replaced value is never absent");
                assert_eq!(value.len(), LEN);
                assert!(value.iter().all(|b| *b == value[0]), "a reader saw half a change");
                reads += 1;
            }
            reads
        };
        let readers = [scope.spawn(read_until_done), scope.spawn(read_until_done)];
        for i in 1..=100 {
            catalog.replace(&key("a/b"), &[i; LEN]).expect("it can be replaced");
        }
        done.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().expect("no reader saw anything wrong"))
    });
    assert!(reads.iter().all(|n| *n > 0));
    assert_eq!(get(catalog, "a/b"), Some(vec![100; LEN]));
}

fn changes_from_many_threads_all_count(catalog: &dyn Catalog) {
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for i in 0..10 {
                    // Deleting empties the folder that others are creating in.
                    let (mine, shared) = (format!("x/{thread}/{i}"), format!("y/{thread}"));
                    create(catalog, &mine, b"");
                    create(catalog, &shared, b"");
                    assert!(catalog.delete(&key(&shared)).expect("it can be deleted"));
                }
            });
        }
    });
    assert_eq!(list(catalog, Some("x")).len(), 40);
    assert_eq!(list(catalog, Some("y")), [""; 0]);
}
