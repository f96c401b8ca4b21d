//! Changes that were set aside, to be read beside the store they are to go into.
//!
//! What is under a prefix is found in an order of the keys that is made when it is asked for the
//! first time. Leaves to others: to ask here first, and to let go once the store has the changes.

use std::sync::{Arc, OnceLock};

use super::{Changes, Known, Position};

/// See the module.
#[derive(Debug)]
pub struct Ahead {
    changes: Arc<Changes>,
    order: OnceLock<Vec<Position>>,
}

impl Ahead {
    /// Over these changes.
    #[must_use]
    pub fn new(changes: Arc<Changes>) -> Self {
        Self { changes, order: OnceLock::new() }
    }

    /// What is known of a key; `None` if it did not change.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Known<'_>> {
        self.changes.known(key)
    }

    /// The changes of keys that begin with `prefix`, in order.
    pub fn under<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a [u8], Known<'a>)> {
        let order = self.order.get_or_init(|| self.changes.order());
        let from = order.partition_point(|at| self.changes.entry(*at).0 < prefix);
        let entries = order[from..].iter().map(|at| self.changes.entry(*at));
        let within = entries.take_while(move |(key, _)| key.starts_with(prefix));
        within.map(|(key, value)| (key, value.map_or(Known::Deleted, Known::Value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dirty::Dirty;

    #[test]
    fn changes_are_found_by_key_and_under_a_prefix() {
        let mut dirty = Dirty::new(3);
        for key in [&b"ab"[..], b"a", b"b", b"ac", b"abc"] {
            dirty.put(key, key);
        }
        dirty.delete(b"ab");
        let ahead = Ahead::new(dirty.freeze()[0].clone());
        assert_eq!(ahead.get(b"a"), Some(Known::Value(b"a")));
        assert_eq!(ahead.get(b"ab"), Some(Known::Deleted));
        assert_eq!(ahead.get(b"none"), None);
        let under: Vec<_> = ahead.under(b"ab").collect();
        assert_eq!(under, [(&b"ab"[..], Known::Deleted), (b"abc", Known::Value(b"abc"))]);
        assert_eq!(ahead.under(b"").count(), 5);
        assert_eq!(ahead.under(b"c").count(), 0);
    }
}
