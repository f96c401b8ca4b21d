//! Keys in the store that somebody has to look at: those whose state is over.
//!
//! - They are found by going through what a stage has in some key groups, a page at a time. A key
//!   is never cut: the next page begins behind the last key of this one.
//! - What is found is a hint. The store may be behind what is in memory or in the log, so whoever
//!   asks loads the key and looks again.
//! - Of the whole node one page is read at a time, and then nobody reads for nine times as long. So
//!   looking for what is over takes at most a tenth of one thread, however much state there is.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicebox_core::state::{STAMP, Ttl};
use sluicebox_store::store::keys::{self, Id, Place};
use tokio::sync::oneshot;

use super::{Backing, PAGE, StateOf};
use crate::error::Error;
use crate::mailbox::Mailbox;

/// How many times longer than reading a page took nobody reads another.
const REST: u32 = 9;
/// But no longer than this.
const REST_MAX: Duration = Duration::from_secs(1);

/// Which keys are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Aged {
    pub of: StateOf,
    pub groups: Range<u16>,
    pub ttl: Ttl,
    pub now: u64,
    /// Where to go on; empty at first.
    pub from: Bytes,
}

/// What a page came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct AgedPage {
    pub keys: Vec<Box<[u8]>>,
    /// Where to go on; `None` if everything has been looked at.
    pub next: Option<Bytes>,
}

impl Backing {
    /// Has a page read when it is its turn. The partition is scheduled when the answer is there, if
    /// it is still waited for. On a worker.
    pub(crate) fn look_for(
        self: &Arc<Self>,
        aged: Aged,
        mailbox: &Arc<Mailbox>,
    ) -> oneshot::Receiver<Result<AgedPage, Error>> {
        let (answer, answered) = oneshot::channel();
        let (backing, mailbox) = (self.clone(), mailbox.clone());
        // It ends with the rest behind its page, or with the worker.
        drop(tokio::task::spawn_local(async move {
            let Ok(_turn) = backing.looking.acquire().await else { return };
            if answer.is_closed() {
                return;
            }
            let began = Instant::now();
            let reader = backing.clone();
            let read = tokio::task::spawn_blocking(move || reader.aged(&aged)).await;
            let read = read.unwrap_or_else(|error| Err(Error::Internal(error.to_string())));
            let rest = (began.elapsed() * REST).min(REST_MAX);
            // A partition that is not there any more must not be scheduled.
            if answer.send(read).is_ok() {
                mailbox.schedule();
            }
            tokio::time::sleep(rest).await;
        }));
        answered
    }

    /// Reads a page. Blocks.
    fn aged(&self, aged: &Aged) -> Result<AgedPage, Error> {
        let StateOf { tenant, pipeline, stage } = aged.of;
        let prefix = keys::state_of_stage(tenant, pipeline.0, stage.0);
        let first =
            Place { tenant, pipeline: pipeline.0, stage: stage.0, group: aged.groups.start };
        let first = Bytes::from(keys::state_of_group(first));
        let page = self.store.scan(&prefix, first.max(aged.from.clone()).as_ref(), PAGE)?;
        let mut found = AgedPage::default();
        // The key that is being gone through, and its stamp.
        let mut last: Option<(Place, Box<[u8]>, Option<Bytes>)> = None;
        let mut judge = |key: Box<[u8]>, stamp: Option<&[u8]>| {
            if aged.ttl.is_due(stamp, aged.now) {
                found.keys.push(key);
            }
        };
        for (entry, value) in &page.entries {
            let Some(Id::State { place, key, slot }) = Id::decode(entry) else {
                return Err(Error::Internal("an entry of state that is none".to_owned()));
            };
            if place.group >= aged.groups.end {
                last.take().into_iter().for_each(|(_, key, stamp)| judge(key, stamp.as_deref()));
                return Ok(found);
            }
            if last.as_ref().is_none_or(|(_, known, _)| **known != *key) {
                let next = (place, Box::from(&*key), None);
                if let Some((_, key, stamp)) = last.replace(next) {
                    judge(key, stamp.as_deref());
                }
            }
            if let (STAMP, Some((.., stamp))) = (slot, &mut last) {
                *stamp = Some(value.clone());
            }
        }
        let Some((place, key, mut stamp)) = last else { return Ok(found) };
        let mut behind = keys::slots_of(place, &key);
        if page.next.is_some() && stamp.is_none() {
            // It may have more slots than are on this page, and the stamp is the last of them.
            stamp = self.store.get(&[&behind, STAMP].concat())?;
        }
        judge(key, stamp.as_deref());
        if let (Some(_), Some(end)) = (&page.next, behind.last_mut()) {
            // The end of a key is followed by no other byte than this in any key that comes later.
            *end = 1;
            found.next = Some(behind.into());
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_core::ids::{PipelineId, StageId};
    use sluicebox_core::key::{group_of, groups_of, partition_of};

    use super::*;
    use crate::backing::tests::filled;

    const OF: StateOf = StateOf { tenant: 1, pipeline: PipelineId(2), stage: StageId(3) };
    const SECOND: u64 = 1_000_000;

    /// A store of keys with so many slots, and the second of their stamp.
    fn backing(keys: &[(&[u8], usize, Option<u64>)]) -> Backing {
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        // What others have, before and behind.
        for stage in [2, 4] {
            let place = Place { tenant: 1, pipeline: 2, stage, group: 0 };
            entries.push(([&keys::slots_of(place, b"other")[..], b"s"].concat(), Vec::new()));
        }
        for (name, slots, stamp) in keys {
            let place = Place { tenant: 1, pipeline: 2, stage: 3, group: group_of(name) };
            let prefix = keys::slots_of(place, name);
            for slot in 0..*slots {
                let slot = format!("{slot:05}");
                entries.push(([&prefix, slot.as_bytes()].concat(), b"value".to_vec()));
            }
            if let Some(stamp) = stamp {
                let stamp = (stamp * SECOND).to_le_bytes().to_vec();
                entries.push(([&prefix[..], STAMP].concat(), stamp));
            }
        }
        filled(entries)
    }

    /// All keys that are found in some groups, and on how many pages.
    fn found(backing: &Backing, groups: Range<u16>) -> (Vec<Box<[u8]>>, usize) {
        let ttl = Ttl::of_ms(10_000);
        let mut aged = Aged { of: OF, groups, ttl, now: 20 * SECOND, from: Bytes::new() };
        let (mut keys, mut pages) = (Vec::new(), 0);
        loop {
            let page = backing.aged(&aged).expect("is read");
            keys.extend(page.keys);
            pages += 1;
            match page.next {
                Some(next) => aged.from = next,
                None => return (keys, pages),
            }
        }
    }

    #[test]
    fn keys_that_are_over_or_have_no_stamp_are_found_in_the_groups_that_are_looked_at() {
        let names: Vec<Vec<u8>> = (0..300_u32).map(|n| format!("k{n}\0").into_bytes()).collect();
        let stamp = |n: usize| [Some(10), Some(11), None][n % 3];
        let keys: Vec<(&[u8], usize, Option<u64>)> =
            names.iter().enumerate().map(|(n, name)| (&name[..], 1 + n % 2, stamp(n))).collect();
        let backing = backing(&keys);
        for partitions in [1, 3, 7] {
            let mut all = Vec::new();
            for partition in 0..partitions {
                let (some, _) = found(&backing, groups_of(partition, partitions));
                let owner = |key: &[u8]| partition_of(group_of(key), partitions);
                assert!(some.iter().all(|key| owner(key) == partition));
                all.extend(some);
            }
            all.sort();
            let mut expected: Vec<Box<[u8]>> = keys
                .iter()
                .filter(|(.., stamp)| *stamp != Some(11))
                .map(|(key, ..)| Box::from(*key))
                .collect();
            expected.sort();
            assert_eq!(all, expected, "of {partitions} partitions");
        }
    }

    #[test]
    fn a_key_with_more_slots_than_a_page_is_judged_once_and_passed_over() {
        let slots = PAGE.entries * 3 + 10;
        for (stamp, count) in [(Some(10), 1), (Some(11), 0), (None, 1)] {
            let backing = backing(&[(b"large", slots, stamp)]);
            let (keys, pages) = found(&backing, 0..1024);
            assert_eq!((keys.len(), pages), (count, 2), "of {stamp:?}");
        }
        // One whose slots end with the page, and one that begins on it.
        for slots in PAGE.entries - 2..PAGE.entries + 2 {
            let backing = backing(&[(b"a", slots, Some(10)), (b"b", 5, Some(10))]);
            assert_eq!(found(&backing, 0..1024).0.len(), 2, "{slots} slots");
        }
    }
}
