//! The entries of a pipeline in the store, in pages, as they go from one node to another.
//!
//! ```text
//! page    n × { key length u32 · value length u32 · key · value }      little-endian
//! ```
//!
//! Only entries of the pipeline are taken; a page is checked before anything of it is written.
//! Where a value says where in the source's log something was, that becomes the beginning, which
//! lies before everything in the target's. Entries whose keys hold such a place get another one.

use bytes::{BufMut as _, Bytes, BytesMut};
use sluicebox_core::ids::PipelineId;
use sluicebox_store::store::keys::{self, Id};
use sluicebox_store::store::{Page, PageLimit, Store};

use crate::checkpoint::{Of, without_places};
use crate::error::Error;

/// What a page holds.
pub(super) const PAGE: PageLimit = PageLimit { entries: 16 * 1024, bytes: 4 * 1024 * 1024 };

/// A key and its value.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// A key, and its value; none if it goes.
pub(crate) type Put = (Vec<u8>, Option<Vec<u8>>);

/// Bytes of a page at most: one entry may be larger than usual, an image of a stream's memory.
pub(crate) const PAGE_BYTES_MAX: usize = 80 * 1024 * 1024;

/// Reads the page that begins at `from`, empty for the first; gives where the next begins. Blocks.
///
/// # Errors
/// The store fails.
pub(crate) fn read(
    store: &dyn Store,
    of: Of,
    from: &[u8],
) -> Result<(Bytes, Option<Bytes>), Error> {
    let mut prefixes = keys::of_pipeline(of.tenant, of.pipeline.0).peekable();
    while let Some(prefix) = prefixes.next() {
        // In the order of kinds: what ends before the place was read before.
        if from > &prefix[..] && !from.starts_with(&prefix) {
            continue;
        }
        let Page { entries, next } = store.scan(&prefix, from.max(&prefix), PAGE)?;
        let next = next.or_else(|| prefixes.peek().map(|prefix| Bytes::copy_from_slice(prefix)));
        if entries.is_empty() && next.is_some() {
            continue;
        }
        return Ok((put(&entries), next));
    }
    Ok((Bytes::new(), None))
}

pub(super) fn put(entries: &[(Bytes, Bytes)]) -> Bytes {
    let mut page = BytesMut::new();
    for (key, value) in entries {
        page.put_u32_le(key.len() as u32);
        page.put_u32_le(value.len() as u32);
        page.put_slice(key);
        page.put_slice(value);
    }
    page.freeze()
}

/// The entries of a page, as they are to be written; in order.
///
/// # Errors
/// It is not a page of entries of this pipeline; with what is wrong.
pub(crate) fn entries(page: &[u8], of: Of, renamed: &mut u64) -> Result<Vec<Entry>, &'static str> {
    let mut rest = page;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (key, value, behind) = take(rest).ok_or("a page ends inside an entry")?;
        rest = behind;
        let id = Id::decode(key).ok_or("a key is none of a store")?;
        if !is_of(&id, of) {
            return Err("a key is of something else");
        }
        entries.push(without_places(of, &id, (key, value), renamed)?);
    }
    if entries.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return Err("keys are not in order");
    }
    Ok(entries)
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key_bytes, rest) = bytes.split_first_chunk()?;
    let (value_bytes, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_bytes) as usize)?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value_bytes) as usize)?;
    Some((key, value, rest))
}

fn is_of(id: &Id<'_>, of: Of) -> bool {
    let place = match id {
        Id::State { place, .. }
        | Id::Account { place, .. }
        | Id::Position { place, .. }
        | Id::Backlog { place, .. }
        | Id::Dedup { place, .. }
        | Id::Output { place, .. }
        | Id::SlotName { place, .. } => place,
    };
    (place.tenant, PipelineId(place.pipeline)) == (of.tenant, of.pipeline)
}

#[cfg(test)]
mod tests {
    use sluicebox_core::ids::{Name, StageId};
    use sluicebox_store::store::{Change, MemoryStore};

    use super::*;

    fn of(pipeline: u64) -> Of {
        Of::new(&Name::new("acme").expect("a name"), PipelineId(pipeline))
    }

    fn filled(of: Of, count: u32) -> MemoryStore {
        let store = MemoryStore::new();
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for n in 0..count {
            let mut key = Vec::new();
            of.slot(StageId(1), &n.to_le_bytes(), b"s", &mut key);
            entries.push((key, vec![7; 1000]));
        }
        entries.push((of.producers(), Vec::new()));
        entries.push((of.output((sluicebox_core::ids::OutputId(0), 0), 5), b"frame".to_vec()));
        entries.sort();
        let piece: Vec<_> =
            entries.iter().map(|(key, value)| Change { key, value: Some(value) }).collect();
        let mut checkpoint = store.begin(7).expect("begins");
        checkpoint.write(&piece).expect("is written");
        checkpoint.commit(&[]).expect("stands");
        store
    }

    #[test]
    fn every_entry_of_a_pipeline_is_in_one_page_and_in_order() {
        for count in [0, 1, 10_000] {
            let store = filled(of(3), count);
            let (mut from, mut all, mut renamed) = (Bytes::new(), Vec::new(), 0);
            loop {
                let (page, next) = read(&store, of(3), &from).expect("it is memory");
                assert!(page.len() <= PAGE_BYTES_MAX);
                all.extend(entries(&page, of(3), &mut renamed).expect("its own"));
                match next {
                    Some(next) => from = next,
                    None => break,
                }
            }
            assert_eq!(all.len(), count as usize + 2);
            assert!(all.is_sorted());
            let (none, next) = read(&store, of(4), b"").expect("it is memory");
            assert!(none.is_empty() && next.is_none(), "another pipeline has nothing");
        }
    }

    #[test]
    fn pages_that_are_none_or_of_something_else_are_refused() {
        let store = filled(of(3), 3);
        let (page, _) = read(&store, of(3), b"").expect("it is memory");
        for cut in 1..page.len() {
            let refused = entries(&page[..cut], of(3), &mut 0);
            let whole = [&page[..cut]].iter().all(|page| {
                let mut rest = *page;
                while let Some((_, _, behind)) = take(rest) {
                    rest = behind;
                }
                rest.is_empty()
            });
            assert_eq!(refused.is_ok(), whole, "cut at {cut}");
        }
        assert_eq!(entries(&page, of(4), &mut 0), Err("a key is of something else"));
        let mut swapped = page.to_vec();
        let first = take(&page).map(|(key, value, _)| 8 + key.len() + value.len()).expect("one");
        swapped.rotate_left(first);
        assert_eq!(entries(&swapped, of(3), &mut 0), Err("keys are not in order"));
        let huge = [u32::MAX.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
        assert!(entries(&huge, of(3), &mut 0).is_err());
    }
}
