//! Going through the slots of a key.

use super::{KeyedState, Slot};

impl KeyedState {
    /// The slots of a key whose names begin with `prefix`, in byte order.
    pub fn scan<'a>(
        &'a self,
        key: &[u8],
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let slots = self.slots_of(key);
        let from = slots.partition_point(|slot| slot.name.as_slice() < prefix);
        begin_with(&slots[from..], prefix)
    }

    /// Those of them that come after `after`, which need not be there any more: what is left of a
    /// scan that was broken off, whatever was written meanwhile.
    pub fn scan_after<'a>(
        &'a self,
        key: &[u8],
        prefix: &'a [u8],
        after: &[u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let slots = self.slots_of(key);
        let is_before =
            |slot: &Slot| slot.name.as_slice() < prefix || slot.name.as_slice() <= after;
        let from = slots.partition_point(is_before);
        begin_with(&slots[from..], prefix)
    }

    fn slots_of(&self, key: &[u8]) -> &[Slot] {
        self.find(key).map_or(&[][..], |i| self.visible(&self.keys[i as usize]))
    }
}

fn begin_with<'a>(
    slots: &'a [Slot],
    prefix: &'a [u8],
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    slots
        .iter()
        .take_while(move |slot| slot.name.as_slice().starts_with(prefix))
        .map(|slot| (slot.name.as_slice(), slot.value.as_slice()))
}

#[cfg(test)]
mod tests {
    use super::super::StateLimits;
    use super::*;

    #[test]
    fn a_scan_goes_on_behind_a_slot_that_is_gone() {
        let mut state = KeyedState::new(1, StateLimits::NONE);
        for slot in ["a/1", "b/1", "b/2", "b/3", "c/1"] {
            state.put(b"k", slot.as_bytes(), b"").unwrap();
        }
        let names = |state: &KeyedState, after: &[u8]| -> Vec<String> {
            let found = state.scan_after(b"k", b"b/", after);
            found.map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
        };
        assert_eq!(names(&state, b""), ["b/1", "b/2", "b/3"]);
        assert_eq!(names(&state, b"b/1"), ["b/2", "b/3"]);
        state.delete(b"k", b"b/1");
        state.delete(b"k", b"b/2");
        assert_eq!(names(&state, b"b/2"), ["b/3"]);
        assert_eq!(names(&state, b"c"), Vec::<String>::new());
        assert_eq!(state.scan_after(b"no such key", b"b/", b"").count(), 0);
    }
}
