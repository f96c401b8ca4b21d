//! Events of one stage in one partition that wait because their key does.
//!
//! ```text
//! key ─► head: tried at `due`, again after each pause │ followers, in the order they came
//! ```
//!
//! - While a key is parked its events are run in order and by [`Park::take_due`] alone; whatever
//!   else comes of it goes to the end.
//! - All of it is state beside the stage's own ([`crate::ids::StageId::parked`]): a slot for each
//!   event and one for the entry. So it is part of the commit, taken back with it, written, folded,
//!   kept and handed over by what does that with state, and it lies with its key.
//! - It is bounded for each key in events and bytes, and in all in keys and bytes. What does not
//!   fit is refused, and nothing changes.
//! - Time is an argument. Of several keys that are due the one that has been for longest comes
//!   first, then by bytes of the key.
//!
//! Which events are parked and when one is given up on is decided in `partition/hold.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::frame::{Event, Frame, FrameBuilder, FrameLimits, Head, NO_CAUSE, field, push_field};
use crate::limits::{PARKED_BYTES_MAX, PARKED_KEYS_MAX};
use crate::pipeline::ParkLimits;
use crate::state::{KeyedState, StateLimits};

/// The slot of the entry itself; those of events are their numbers.
const ENTRY: &[u8] = b"";
/// Bytes of the entry: four numbers of eight bytes, and one of four.
const ENTRY_BYTES: usize = 5 * 8 + 4;
/// What an event takes besides its frame.
const EVENT_OVERHEAD: usize = 64;

/// Bounds are held here, so that changing an entry can never be refused.
const UNBOUNDED: StateLimits = StateLimits { key_bytes: usize::MAX, total_bytes: usize::MAX };

/// See the module.
#[derive(Debug)]
pub(super) struct Park {
    state: KeyedState,
    /// What `state` says, by key.
    entries: BTreeMap<Arc<[u8]>, Entry>,
    /// Keys by when they are to be tried; those under way are not in it.
    due: BTreeSet<(u64, Arc<[u8]>)>,
    /// Keys under way, with how many of their events.
    under_way: BTreeMap<Arc<[u8]>, u64>,
    /// Keys whose entry changed in this batch.
    touched: BTreeSet<Arc<[u8]>>,
    events: u64,
    bytes_max: usize,
}

/// A key that is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Number of its first event.
    first: u64,
    /// Number of the event behind its last.
    end: u64,
    /// How often the first was run again.
    pub attempts: u32,
    /// When the first failed for the first time.
    pub since: u64,
    /// When it is to be run again.
    due: u64,
    /// Bytes of its events.
    bytes: u64,
}

/// There is no room for another event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Park {
    /// Takes over what was parked.
    pub(super) fn new(state: KeyedState) -> Self {
        let mut park = Self {
            state,
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            under_way: BTreeMap::new(),
            touched: BTreeSet::new(),
            events: 0,
            bytes_max: PARKED_BYTES_MAX,
        };
        park.state.set_limits(UNBOUNDED);
        let keys = park.state.all_keys();
        keys.into_iter().for_each(|key| park.reload(&key));
        park
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn keys(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn state(&self) -> &KeyedState {
        &self.state
    }

    pub(super) fn into_state(self) -> KeyedState {
        self.state
    }

    /// Lets it grow by at most `room` bytes from here.
    pub(super) fn bound(&mut self, room: usize) {
        self.bytes_max = self.state.bytes().saturating_add(room).min(PARKED_BYTES_MAX);
    }

    pub(super) fn is_parked(&self, key: &[u8]) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn entry(&self, key: &[u8]) -> Option<Entry> {
        self.entries.get(key).copied()
    }

    /// How many events of a key are under way.
    pub(super) fn under_way(&self, key: &[u8]) -> Option<u64> {
        self.under_way.get(key).copied()
    }

    /// Parks a key whose event failed at `now`.
    pub(super) fn begin(
        &mut self,
        event: &Event<'_>,
        now: u64,
        limits: &ParkLimits,
    ) -> Result<(), Full> {
        if self.entries.len() >= PARKED_KEYS_MAX {
            return Err(Full);
        }
        let due = now.saturating_add(pause(limits, 0));
        let entry = Entry { first: 0, end: 0, attempts: 0, since: now, due, bytes: 0 };
        self.push(event, entry, limits)
    }

    /// Adds an event of a parked key behind the others.
    pub(super) fn follow(&mut self, event: &Event<'_>, limits: &ParkLimits) -> Result<(), Full> {
        let entry = self.entries.get(event.key).copied().expect("its key is parked");
        self.push(event, entry, limits)
    }

    fn push(&mut self, event: &Event<'_>, entry: Entry, limits: &ParkLimits) -> Result<(), Full> {
        let frame = alone(event);
        let bytes = frame.bytes().len() as u64;
        let total = self.state.bytes() + frame.bytes().len() + event.key.len() + EVENT_OVERHEAD;
        let fits = entry.end - entry.first < limits.events_max
            && entry.bytes + bytes <= limits.bytes_max
            && total <= self.bytes_max;
        if !fits {
            return Err(Full);
        }
        self.write(event.key, &entry.end.to_be_bytes(), frame.bytes());
        let entry = Entry { end: entry.end + 1, bytes: entry.bytes + bytes, ..entry };
        self.set(event.key, Some(entry));
        Ok(())
    }

    /// When the next key is to be tried.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Lets every key be tried at once.
    pub(super) fn hurry(&mut self) {
        for (key, entry) in &mut self.entries {
            if self.due.remove(&(entry.due, key.clone())) {
                entry.due = 0;
                self.due.insert((0, key.clone()));
            }
        }
    }

    /// The events of keys that are due, in order for each key: at most so many, and bytes, but at
    /// least one. They stay here until it is known what became of them.
    pub(super) fn take_due(&mut self, now: u64, events_max: u64, bytes_max: usize) -> Frame {
        let mut builder = FrameBuilder::new();
        while let Some((due, key)) = self.due.first().cloned() {
            let left = events_max.saturating_sub(builder.len() as u64);
            if due > now || left == 0 || builder.bytes_len() >= bytes_max {
                break;
            }
            let Entry { first, end, .. } = self.entries[&key];
            let mut number = first;
            while number < end && number - first < left {
                let bytes = self.state.get(&key, &number.to_be_bytes()).unwrap_or_default();
                let full = builder.bytes_len() + bytes.len() > bytes_max && !builder.is_empty();
                if full {
                    break;
                }
                push_all(&mut builder, bytes);
                number += 1;
            }
            if number == first && !builder.is_empty() {
                break;
            }
            self.due.remove(&(due, key.clone()));
            self.under_way.insert(key, number - first);
        }
        builder.finish()
    }

    /// Of a key under way the first `done` events are resolved, and the one behind them is to be
    /// tried again later; `again` if it was the first of them. The others wait on.
    pub(super) fn put_off(&mut self, key: &[u8], done: u64, now: u64, limits: &ParkLimits) {
        let Some((key, _)) = self.under_way.remove_entry(key) else { return };
        let entry = self.resolve(&key, done);
        let attempts = if done == 0 { entry.attempts.saturating_add(1) } else { 0 };
        let since = if done == 0 { entry.since } else { now };
        let due = now.saturating_add(pause(limits, attempts));
        self.set(&key, Some(Entry { attempts, since, due, ..entry }));
    }

    /// The batch ran to its end: what is still under way is resolved. What is left of its key goes
    /// on at once.
    pub(super) fn settle(&mut self, now: u64) {
        for (key, count) in std::mem::take(&mut self.under_way) {
            let entry = self.resolve(&key, count);
            let entry = Entry { attempts: 0, since: now, due: now, ..entry };
            self.set(&key, (entry.first < entry.end).then_some(entry));
        }
    }

    /// Makes the changes of the batch stand.
    pub(super) fn commit(&mut self) {
        self.state.commit();
        self.touched.clear();
    }

    /// Takes the changes of the batch back.
    pub(super) fn roll_back(&mut self) {
        self.state.rollback_all();
        let mut changed = std::mem::take(&mut self.touched);
        changed.extend(std::mem::take(&mut self.under_way).into_keys());
        changed.iter().for_each(|key| self.reload(key));
    }

    /// Puts back a slot as some commit left it.
    pub(super) fn restore(&mut self, key: &[u8], slot: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.state.restore(key, slot, value),
            None => self.state.forget(key, slot),
        }
        self.reload(key);
    }

    /// Drops the first events of a key.
    fn resolve(&mut self, key: &[u8], count: u64) -> Entry {
        let mut entry = self.entries.get(key).copied().expect("a key under way is parked");
        for _ in 0..count.min(entry.end - entry.first) {
            let slot = entry.first.to_be_bytes();
            let bytes = self.state.get(key, &slot).map_or(0, <[u8]>::len) as u64;
            self.state.delete(key, &slot);
            entry.bytes = entry.bytes.saturating_sub(bytes);
            entry.first += 1;
        }
        entry
    }

    /// Changes the entry of a key, or removes it.
    fn set(&mut self, key: &[u8], entry: Option<Entry>) {
        let key: Arc<[u8]> = match self.entries.get_key_value(key) {
            Some((key, _)) => key.clone(),
            None => key.into(),
        };
        match entry {
            Some(entry) => self.write(&key, ENTRY, &entry.to_bytes()),
            None => drop(self.state.delete(&key, ENTRY)),
        }
        self.touched.insert(key.clone());
        self.index(key, entry);
    }

    /// Reads the entry of a key from the state.
    fn reload(&mut self, key: &[u8]) {
        let entry = self.state.get(key, ENTRY).and_then(Entry::from_bytes);
        self.index(key.into(), entry);
    }

    fn index(&mut self, key: Arc<[u8]>, entry: Option<Entry>) {
        if let Some(old) = self.entries.remove(&key) {
            self.due.remove(&(old.due, key.clone()));
            self.events -= old.end - old.first;
        }
        let Some(entry) = entry else { return };
        self.events += entry.end - entry.first;
        if !self.under_way.contains_key(&key) {
            self.due.insert((entry.due, key.clone()));
        }
        self.entries.insert(key, entry);
    }

    fn write(&mut self, key: &[u8], slot: &[u8], value: &[u8]) {
        self.state.put(key, slot, value).expect("names are short, and there is no bound");
    }
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        let numbers = [self.first, self.end, self.since, self.due, self.bytes];
        let (eights, rest) = bytes.as_chunks_mut::<8>();
        eights.iter_mut().zip(numbers).for_each(|(at, number)| *at = number.to_le_bytes());
        rest.copy_from_slice(&self.attempts.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ENTRY_BYTES] = bytes.try_into().ok()?;
        let (eights, rest) = bytes.as_chunks::<8>();
        let number = |at: usize| u64::from_le_bytes(eights[at]);
        let [first, end, since, due, bytes] = [0, 1, 2, 3, 4].map(number);
        let attempts = u32::from_le_bytes(rest.try_into().ok()?);
        (first < end).then_some(Self { first, end, attempts, since, due, bytes })
    }
}

/// How long an event waits that was run again so often, in microseconds.
fn pause(limits: &ParkLimits, attempts: u32) -> u64 {
    let factor = 1_u64.checked_shl(attempts.min(63)).unwrap_or(u64::MAX);
    limits.pause_ms.saturating_mul(factor).min(limits.pause_max_ms).saturating_mul(1000)
}

/// An event as it is kept. Whoever waits for its result is not told of it later: by then nobody
/// may wait, or somebody else. What is attached is over with the batch.
fn alone(event: &Event<'_>) -> Frame {
    let mut builder = FrameBuilder::new();
    let head = Head { cause: NO_CAUSE, ..event.head };
    let fields = event.fields.bytes();
    let stays = |id: u16| id != field::REQUEST && id != field::ATTACHMENTS;
    if event.fields.iter().all(|(id, _)| stays(id)) {
        builder.push(&head, event.key, event.payload, fields);
        return builder.finish();
    }
    let mut kept = Vec::with_capacity(fields.len());
    for (id, value) in event.fields.iter().filter(|(id, _)| stays(*id)) {
        let _fits = push_field(&mut kept, id, value);
    }
    builder.push(&head, event.key, event.payload, &kept);
    builder.finish()
}

/// Appends the event of a frame of one.
fn push_all(builder: &mut FrameBuilder, bytes: &[u8]) {
    let frame = Frame::parse(bytes.to_vec().into(), &FrameLimits::FORMAT);
    // What is kept was a frame, and its checksums are the log's and the store's business.
    for event in frame.iter().flat_map(Frame::events) {
        builder.push(&event.head, event.key, event.payload, event.fields.bytes());
    }
}
