//! What the host keeps beside the slots of a stage, under the same key.
//!
//! - A *hosted* slot has a name that begins with a byte no text has, so no stage can name it, and
//!   it sorts behind all that a stage can. Stages neither see hosted slots nor pay for them.
//! - Otherwise they are slots: committed, taken back, written to the log, kept, moved and loaded
//!   with their key by what does that with slots.
//! - They are of states that were told to look for them; in others there are none but stamps
//!   (`expiry`), and nothing here costs anything.
//!
//! What is kept so is decided by whoever writes it: an open stream, in `partition/history.rs`.

use super::{Key, KeyedState, Slot, Value, position};

/// The first byte of every name of a hosted slot.
pub const HOSTED: u8 = 0xFF;

fn is_hosted(slot: &Slot) -> bool {
    slot.name.as_slice().first() == Some(&HOSTED)
}

/// Where the hosted slots begin among those of a key.
fn begin(slots: &[Slot]) -> usize {
    slots.partition_point(|slot| !is_hosted(slot))
}

impl KeyedState {
    /// Says whether there may be hosted slots.
    pub fn set_hosted(&mut self, hosted: bool) {
        self.hosted = hosted;
    }

    /// The slots of a stage's own among those of a key.
    #[inline]
    pub(super) fn own<'a>(&self, slots: &'a [Slot]) -> &'a [Slot] {
        if self.hosted { &slots[..begin(slots)] } else { slots }
    }

    /// Bytes of the hosted slots of a key, which its stage does not pay for.
    #[inline]
    pub(super) fn hosted_bytes(&self, key: &Key) -> usize {
        if !self.hosted {
            return 0;
        }
        let hosted = &key.slots[begin(&key.slots)..];
        hosted.iter().map(|slot| slot.name.len() + slot.value.len()).sum()
    }

    /// The value of a hosted slot.
    #[must_use]
    pub fn hosted(&self, key: &[u8], name: &[u8]) -> Option<&[u8]> {
        let slots = &self.keys[self.find(key)? as usize].slots;
        let at = slots.binary_search_by(|slot| slot.name.as_slice().cmp(name)).ok()?;
        Some(slots[at].value.as_slice())
    }

    /// The hosted slots of a key whose names begin with `prefix`, in byte order.
    pub fn hosted_from<'a>(
        &'a self,
        key: &[u8],
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let slots = self.find(key).map_or(&[][..], |at| &self.keys[at as usize].slots);
        let from = slots.partition_point(|slot| slot.name.as_slice() < prefix);
        slots[from..]
            .iter()
            .take_while(move |slot| slot.name.as_slice().starts_with(prefix))
            .map(|slot| (slot.name.as_slice(), slot.value.as_slice()))
    }

    /// Sets a hosted slot, for now. There is no bound: whoever writes it keeps one.
    ///
    /// # Panics
    /// The name is that of a stage's slot.
    pub fn put_hosted(&mut self, key: &[u8], name: &[u8], value: &[u8]) {
        assert!(name.first() == Some(&HOSTED), "a hosted slot has a name of its own");
        let index = self.find(key).unwrap_or_else(|| self.insert_key(key));
        let value = Value::new(value);
        match position(&self.keys[index as usize].slots, name) {
            Ok(at) => self.replace_slot(index, at, value),
            Err(at) => self.insert_slot(index, at, Slot { name: Value::new(name), value }),
        }
    }

    /// Removes a hosted slot, for now.
    pub fn delete_hosted(&mut self, key: &[u8], name: &[u8]) {
        let Some(index) = self.find(key) else { return };
        if let Ok(at) = position(&self.keys[index as usize].slots, name) {
            self.remove_slot(index, at);
        }
    }

    /// Removes the hosted slots of a key whose names begin with `prefix`, for now.
    pub fn clear_hosted(&mut self, key: &[u8], prefix: &[u8]) {
        let Some(index) = self.find(key) else { return };
        let slots = &self.keys[index as usize].slots;
        let from = slots.partition_point(|slot| slot.name.as_slice() < prefix);
        let those = slots[from..].iter();
        let many = those.take_while(|slot| slot.name.as_slice().starts_with(prefix)).count();
        (from..from + many).rev().for_each(|at| self.remove_slot(index, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Refusal, Scratch, StateLimits};

    fn state() -> KeyedState {
        let limits = StateLimits { key_bytes: 16, total_bytes: 1 << 20 };
        let mut state = KeyedState::new(1, limits);
        state.set_hosted(true);
        state
    }

    fn names<'a>(slots: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<Vec<u8>> {
        slots.map(|(name, _)| name.to_vec()).collect()
    }

    #[test]
    fn a_stage_neither_sees_hosted_slots_nor_pays_for_them() {
        let mut state = state();
        state.put_hosted(b"k", &[HOSTED, b'm'], &[7; 100]);
        state.put_hosted(b"k", &[HOSTED, b'p', 1], &[7; 100]);
        state.put(b"k", b"own", b"0123456789").expect("it fits");
        assert_eq!(names(state.scan(b"k", b"")), [b"own".to_vec()]);
        let refused = state.put(b"k", b"other", b"0123456789");
        assert_eq!(refused, Err(Refusal::KeyFull { wanted: 28, limit: 16 }));
        assert_eq!(state.hosted(b"k", &[HOSTED, b'm']), Some(&[7; 100][..]));
    }

    #[test]
    fn hosted_slots_are_changes_like_others_and_go_back_with_them() {
        let mut state = state();
        state.put_hosted(b"k", &[HOSTED, b'j', 1], b"a");
        state.put_hosted(b"k", &[HOSTED, b'j', 2], b"b");
        state.commit();
        let before = state.bytes();
        state.clear_hosted(b"k", &[HOSTED, b'j']);
        state.put_hosted(b"k", &[HOSTED, b'm'], b"c");
        let mut changed = Vec::new();
        state.changes(&mut Scratch::default(), |change| {
            changed.push((change.slot.to_vec(), change.value.map(<[u8]>::to_vec)));
        });
        let gone = |n| (vec![HOSTED, b'j', n], None);
        assert_eq!(changed, [gone(1), gone(2), (vec![HOSTED, b'm'], Some(b"c".to_vec()))]);
        state.rollback_all();
        assert_eq!(names(state.hosted_from(b"k", &[HOSTED])).len(), 2);
        assert_eq!(state.bytes(), before);
        state.clear_key(b"k");
        state.commit();
        assert_eq!((state.bytes(), state.keys()), (0, 0));
    }
}
