//! Keys that go by themselves: when they were last written, and taking away what is over.
//!
//! - The unit is the key. Its *stamp* is a slot beside the stage's, which no stage can name, and
//!   which sorts behind all of them. So whatever keeps, moves or takes back slots does the same
//!   with stamps and knows nothing of them.
//! - A stamp says up to when the key was written at the latest: a 64th of the time to live behind
//!   the write that set it, so that most writes leave it as it is. A key is over when the time to
//!   live has passed since. That is never too early, under whatever time to live it was set.
//! - What is over reads as nothing at once. It is removed by the next write of the key, in the same
//!   call, or by [`KeyedState::expire`]; both are deletions like any other.
//! - Time is an argument, the same for a whole batch. It may go back: then keys live longer.
//!
//! When keys are looked through is decided in `partition/expire.rs`, and how those in the store
//! alone are found by the node.

use super::{Key, KeyedState, Slot, Value};

/// The name of a stamp: no UTF-8, so that no stage has it, and behind everything that is.
pub const STAMP: &[u8] = &[0xFF];

/// Keys looked at in one piece of [`KeyedState::expire`]: some tens of microseconds.
const LOOKS: usize = 1024;
/// Keys changed in one piece.
const KEYS: usize = 256;
/// Slots removed in one piece. With this and the former the record of a piece has some 200 KiB at
/// most, which is less than any record may have.
const SLOTS: usize = 1024;

/// The least and the most time between two looks at the same key, in microseconds.
const PAUSE_MIN: u64 = 1_000_000;
const PAUSE_MAX: u64 = 24 * 3600 * 1_000_000;
/// The most time before the first.
const PAUSE_FIRST: u64 = 60 * 1_000_000;

/// How long a key stays that is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    micros: u64,
}

impl Ttl {
    /// So many milliseconds, but at least one.
    #[must_use]
    pub fn of_ms(ms: u64) -> Self {
        Self { micros: ms.saturating_mul(1000).max(1000) }
    }

    /// How far ahead a stamp is set; the longest a key may stay too long.
    fn slack(self) -> u64 {
        self.micros / 64
    }

    /// The stamp of a key that is written now.
    fn stamp(self, now: u64) -> u64 {
        now.saturating_add(self.slack())
    }

    /// True if a stamp holds for a key that is written now.
    fn holds(self, stamp: u64, now: u64) -> bool {
        (now..=self.stamp(now)).contains(&stamp)
    }

    fn is_over(self, stamp: u64, now: u64) -> bool {
        stamp.saturating_add(self.micros) <= now
    }

    /// True if a key has to be looked at by whoever removes what is over: it is, or it has no
    /// stamp, or one from a clock that was far ahead.
    #[must_use]
    pub fn is_due(self, stamp: Option<&[u8]>, now: u64) -> bool {
        let Some(stamp) = stamp.and_then(read) else { return true };
        self.is_over(stamp, now) || self.is_astray(stamp, now)
    }

    /// True of a stamp under which a key would stay for more than twice its time.
    fn is_astray(self, stamp: u64, now: u64) -> bool {
        stamp > self.stamp(now).saturating_add(self.micros)
    }

    /// Microseconds between two looks at the same key.
    #[must_use]
    pub fn pause(self) -> u64 {
        (self.micros / 8).clamp(PAUSE_MIN, PAUSE_MAX)
    }

    /// Microseconds before the first, so that nodes that start often do it as well.
    #[must_use]
    pub fn pause_first(self) -> u64 {
        self.pause().min(PAUSE_FIRST)
    }
}

/// What a state knows of time.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    ttl: Option<Ttl>,
    now: u64,
    /// Keys may have stamps. So it is with a time to live, and once it was so.
    pub(super) stamped: bool,
    /// Where in the undo log the removal of each key begins that went since the last commit.
    gone: Vec<usize>,
    /// Keys that went, up to the last commit.
    counted: u64,
}

impl Expiry {
    /// Writes from here on are taken back.
    pub(super) fn roll_back(&mut self, undo: usize) {
        while self.gone.pop_if(|at| *at >= undo).is_some() {}
    }

    pub(super) fn commit(&mut self) {
        self.counted += self.gone.len() as u64;
        self.gone.clear();
    }
}

/// What a piece of looking came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// There are changes to be committed.
    pub changed: bool,
    /// All keys have been looked at.
    pub ended: bool,
}

/// What is left to do in a piece.
struct Room {
    looks: usize,
    keys: usize,
    slots: usize,
}

impl Room {
    const PIECE: Self = Self { looks: LOOKS, keys: KEYS, slots: SLOTS };

    fn is_full(&self) -> bool {
        self.looks == 0 || self.keys == 0 || self.slots == 0
    }
}

/// In place of a stamp: some of the key has been removed, because it was over.
const TORN: u64 = 0;

fn read(stamp: &[u8]) -> Option<u64> {
    stamp.try_into().ok().map(u64::from_le_bytes)
}

/// The stamp among the slots of a key.
#[inline]
fn stamp_of(slots: &[Slot]) -> Option<&Slot> {
    slots.last().filter(|last| last.name.as_slice() == STAMP)
}

impl KeyedState {
    /// Lets keys go that were not written for so long; without it none go. Keys that are there and
    /// have no stamp count from when they are written or looked at.
    pub fn set_ttl(&mut self, ttl: Option<Ttl>) {
        self.expiry.ttl = ttl;
        self.expiry.stamped |= ttl.is_some();
    }

    /// Sets the time of the batch that begins, in microseconds.
    #[inline]
    pub fn set_now(&mut self, now: u64) {
        self.expiry.now = now;
    }

    /// The time of the batch.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.expiry.now
    }

    /// True if this is the name of a stamp, or stamps are known to be here.
    #[inline]
    pub(super) fn note_slot(&mut self, name: &[u8]) {
        self.expiry.stamped |= name == STAMP;
    }

    /// Keys that went because they were over and whose end is committed, since this was last asked.
    pub fn take_expired(&mut self) -> u64 {
        std::mem::take(&mut self.expiry.counted)
    }

    /// True if a key is there and reads as nothing.
    #[inline]
    pub(super) fn is_over(&self, key: &Key) -> bool {
        if !self.expiry.stamped {
            return false;
        }
        match stamp_of(&key.slots).and_then(|slot| read(slot.value.as_slice())) {
            Some(TORN) => true,
            Some(stamp) => self.expiry.ttl.is_some_and(|ttl| ttl.is_over(stamp, self.expiry.now)),
            None => false,
        }
    }

    /// The slots of a key that its stage may see.
    #[inline]
    pub(super) fn visible<'a>(&self, key: &'a Key) -> &'a [Slot] {
        if self.hosted || !self.expiry.stamped {
            return self.own(&key.slots);
        }
        match stamp_of(&key.slots) {
            Some(_) if self.is_over(key) => &[],
            Some(_) => &key.slots[..key.slots.len() - 1],
            None => &key.slots,
        }
    }

    /// Bytes of a key's stamp, which its stage does not pay for.
    #[inline]
    pub(super) fn stamp_bytes(&self, key: &Key) -> usize {
        if !self.expiry.stamped {
            return 0;
        }
        stamp_of(&key.slots).map_or(0, |stamp| stamp.name.len() + stamp.value.len())
    }

    /// A key was written: its stamp is made to say so, or goes if it is of no use.
    #[inline]
    pub(super) fn wrote(&mut self, index: u32) {
        if self.expiry.stamped {
            self.restamp(index);
        }
    }

    fn restamp(&mut self, index: u32) {
        let (Expiry { ttl, now, .. }, slots) = (&self.expiry, &self.keys[index as usize].slots);
        let old = stamp_of(slots).map(|slot| read(slot.value.as_slice()));
        let own = slots.len() - usize::from(old.is_some());
        let ttl = ttl.filter(|_| own > 0);
        match (old, ttl) {
            (Some(Some(stamp)), Some(ttl)) if ttl.holds(stamp, *now) => {}
            (Some(_), Some(ttl)) => {
                let value = Value::counter(ttl.stamp(*now).cast_signed());
                self.replace_slot(index, own, value);
            }
            (None, Some(ttl)) => {
                let value = Value::counter(ttl.stamp(*now).cast_signed());
                self.insert_slot(index, own, Slot { name: Value::new(STAMP), value });
            }
            (Some(_), None) => self.remove_slot(index, own),
            (None, None) => {}
        }
    }

    /// Removes all of a key that is over.
    pub(super) fn clear_over(&mut self, index: u32) {
        self.expiry.gone.push(self.undo.len());
        while let Some(last) = self.keys[index as usize].slots.len().checked_sub(1) {
            self.remove_slot(index, last);
        }
    }

    /// Removes keys that are over, and stamps those that have no stamp, from the one at `hand` on:
    /// a bounded piece of work, to be committed. `hand` is 0 at first, and moves on.
    pub fn expire(&mut self, hand: &mut usize) -> Looked {
        let mut room = Room::PIECE;
        let before = self.undo.len();
        while *hand < self.keys.len() && !room.is_full() {
            if self.expire_one(*hand as u32, &mut room) {
                *hand += 1;
            }
        }
        Looked { changed: self.undo.len() > before, ended: *hand >= self.keys.len() }
    }

    /// The same for these keys, those of them that are here.
    pub fn expire_keys(&mut self, keys: &[Box<[u8]>], hand: &mut usize) -> Looked {
        let mut room = Room::PIECE;
        let before = self.undo.len();
        while let Some(key) = keys.get(*hand).filter(|_| !room.is_full()) {
            let index = self.find(key);
            if index.is_none_or(|index| self.expire_one(index, &mut room)) {
                *hand += 1;
            }
        }
        Looked { changed: self.undo.len() > before, ended: *hand >= keys.len() }
    }

    /// Looks at a key. False if there is more of it than there is room for. Its stamp goes last, so
    /// that what is left of it reads as nothing.
    fn expire_one(&mut self, index: u32, room: &mut Room) -> bool {
        room.looks -= 1;
        let Some(ttl) = self.expiry.ttl else { return true };
        let key = &self.keys[index as usize];
        if key.slots.is_empty() {
            return true;
        }
        let stamp = stamp_of(&key.slots).map(|slot| slot.value.as_slice());
        if !ttl.is_due(stamp, self.expiry.now) {
            return true;
        }
        room.keys -= 1;
        if !self.is_over(key) {
            self.restamp(index);
            return true;
        }
        let slots = key.slots.len();
        if slots <= room.slots {
            room.slots -= slots;
            self.clear_over(index);
            return true;
        }
        // From now on it reads as nothing under any time to live, and whatever the clock says.
        let torn = Value::counter(TORN.cast_signed());
        if self.keys[index as usize].slots[slots - 1].value.as_slice() != torn.as_slice() {
            self.replace_slot(index, slots - 1, torn);
            room.slots -= 1;
        }
        for at in (0..slots - 1).rev().take(room.slots) {
            self.remove_slot(index, at);
        }
        room.slots = 0;
        false
    }
}

#[cfg(test)]
mod tests;
