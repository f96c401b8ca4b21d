//! The commands on buckets.

use std::cell::RefCell;

use crate::bindings::wasi::keyvalue0_2_0_draft as first;
use crate::bindings::wasi::keyvalue0_2_0_draft2 as second;
use second::atomics::{Cas, CasError};
use second::store::{Bucket, Error};

/// Keys of one batch of `fill`.
const BATCH: u32 = 500;

thread_local! {
    /// Handles that were kept.
    static KEPT: RefCell<Vec<Bucket>> = const { RefCell::new(Vec::new()) };
}

/// What is answered to a command, if it is one.
pub(crate) fn answer(words: &[&str]) -> Option<String> {
    let done = one(words).or_else(|| many(words)).or_else(|| other(words))?;
    Some(done.unwrap_or_else(|error| match error {
        Error::NoSuchStore => "no-such-store".to_owned(),
        Error::AccessDenied => "access-denied".to_owned(),
        Error::Other(text) => format!("other: {text}"),
    }))
}

type Answer = Result<String, Error>;

fn of_first(error: first::store::Error) -> Error {
    match error {
        first::store::Error::NoSuchStore => Error::NoSuchStore,
        first::store::Error::AccessDenied => Error::AccessDenied,
        first::store::Error::Other(text) => Error::Other(text),
    }
}

fn shown(value: Option<Vec<u8>>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| String::from_utf8_lossy(&value).into_owned())
}

fn done() -> String {
    "done".to_owned()
}

fn number<T: std::str::FromStr + Default>(word: &str) -> T {
    word.parse().unwrap_or_default()
}

/// One key.
fn one(words: &[&str]) -> Option<Answer> {
    Some(match words {
        ["get", bucket, key] => second::store::open(bucket).and_then(|b| Ok(shown(b.get(key)?))),
        ["exists", bucket, key] => {
            second::store::open(bucket).and_then(|b| Ok(b.exists(key)?.to_string()))
        }
        ["set", bucket, key, value] => {
            let open = second::store::open(bucket);
            open.and_then(|b| b.set(key, value.as_bytes())).map(|()| done())
        }
        ["delete", bucket, key] => {
            second::store::open(bucket).and_then(|b| b.delete(key)).map(|()| done())
        }
        ["add", bucket, key, delta] => second::store::open(bucket)
            .and_then(|b| Ok(second::atomics::increment(&b, key, number(delta))?.to_string())),
        ["add-unsigned", bucket, key, delta] => {
            let sum = first::store::open(bucket)
                .and_then(|b| first::atomics::increment(&b, key, number(delta)));
            sum.map(|sum| sum.to_string()).map_err(of_first)
        }
        ["long", bucket, bytes] => {
            let key = "k".repeat(number(bytes));
            second::store::open(bucket).and_then(|b| b.set(&key, b"")).map(|()| done())
        }
        ["swap", bucket, key, value] => second::store::open(bucket).and_then(|bucket| {
            let cas = Cas::new(&bucket, key)?;
            cas.current()?;
            match second::atomics::swap(cas, value.as_bytes()) {
                Ok(()) => Ok(done()),
                Err(CasError::StoreError(error)) => Err(error),
                Err(CasError::CasFailed(_)) => Ok("failed".to_owned()),
            }
        }),
        ["swap-late", bucket, key, value] => late(bucket, key, value),
        _ => return None,
    })
}

/// Somebody else was quicker: the handle that is given back is up to date.
fn late(bucket: &str, key: &str, value: &str) -> Answer {
    let bucket = second::store::open(bucket)?;
    let cas = Cas::new(&bucket, key)?;
    bucket.set(key, b"between")?;
    let again = match second::atomics::swap(cas, value.as_bytes()) {
        Ok(()) => return Ok("swapped what it had not seen".to_owned()),
        Err(CasError::StoreError(error)) => return Err(error),
        Err(CasError::CasFailed(again)) => again,
    };
    match second::atomics::swap(again, value.as_bytes()) {
        Ok(()) => Ok("failed, then done".to_owned()),
        Err(_) => Ok("failed twice".to_owned()),
    }
}

/// Many keys.
fn many(words: &[&str]) -> Option<Answer> {
    Some(match words {
        ["list", bucket] => second::store::open(bucket).and_then(|bucket| {
            listed(|cursor: Option<String>| {
                let page = bucket.list_keys(cursor.as_deref())?;
                Ok((page.keys, page.cursor))
            })
        }),
        ["list-numbered", bucket] => {
            first::store::open(bucket).map_err(of_first).and_then(|bucket| {
                listed(|cursor: Option<u64>| {
                    let page = bucket.list_keys(cursor).map_err(of_first)?;
                    Ok((page.keys, page.cursor))
                })
            })
        }
        ["list-stale", bucket] => {
            let listed = first::store::open(bucket).and_then(|b| b.list_keys(Some(77)));
            listed.map(|page| format!("{} keys", page.keys.len())).map_err(of_first)
        }
        ["drain", bucket] => second::store::open(bucket).and_then(|bucket| {
            let (mut drained, mut cursor) = (0, None);
            loop {
                let page = bucket.list_keys(cursor.as_deref())?;
                second::batch::delete_many(&bucket, &page.keys)?;
                drained += page.keys.len();
                cursor = page.cursor;
                if cursor.is_none() {
                    return Ok(format!("drained {drained}"));
                }
            }
        }),
        ["fill", bucket, count, bytes] => first::store::open(bucket)
            .and_then(|bucket| {
                let (count, value) = (number::<u32>(count), vec![b'v'; number(bytes)]);
                let keys: Vec<u32> = (0..count).collect();
                for keys in keys.chunks(BATCH as usize) {
                    let pair = |at: &u32| (format!("k{at:06}"), value.clone());
                    first::batch::set_many(&bucket, &keys.iter().map(pair).collect::<Vec<_>>())?;
                }
                Ok(format!("filled {count}"))
            })
            .map_err(of_first),
        ["many", bucket, key, count] => second::store::open(bucket).and_then(|bucket| {
            let keys = vec![(*key).to_owned(); number(count)];
            let found = second::batch::get_many(&bucket, &keys)?;
            let bytes: usize = found.iter().flatten().map(|(_, value)| value.len()).sum();
            Ok(format!("many {bytes}"))
        }),
        _ => return None,
    })
}

/// Goes through all pages: how many, how many keys, the first and the last.
fn listed<C>(mut page: impl FnMut(Option<C>) -> Result<(Vec<String>, Option<C>), Error>) -> Answer {
    let (mut pages, mut keys, mut cursor) = (0, Vec::new(), None);
    loop {
        let (more, next) = page(cursor)?;
        pages += 1;
        keys.extend(more);
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    let end = |key: Option<&String>| key.cloned().unwrap_or_else(|| "none".to_owned());
    Ok(format!("{pages} {} {} {}", keys.len(), end(keys.first()), end(keys.last())))
}

/// Handles.
fn other(words: &[&str]) -> Option<Answer> {
    Some(match words {
        ["open", bucket, count] => {
            let opened = (0..number(count)).try_for_each(|_| {
                let bucket = second::store::open(bucket)?;
                KEPT.with_borrow_mut(|kept| kept.push(bucket));
                Ok(())
            });
            opened.map(|()| format!("opened {count}"))
        }
        ["keep", bucket] => second::store::open(bucket).map(|bucket| {
            KEPT.with_borrow_mut(|kept| kept.push(bucket));
            done()
        }),
        ["kept", key] => KEPT.with_borrow(|kept| match kept.last() {
            Some(bucket) => bucket.get(key).map(shown),
            None => Ok("nothing is kept".to_owned()),
        }),
        _ => return None,
    })
}
