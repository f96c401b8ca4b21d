//! Kernels of one tenant: those that were accepted, and why others were not.
//!
//! - A source is checked and loaded once, whoever of the tenant asks for it, and refused once.
//! - There is a bound on how many are kept. What is in use stays: by a handle, a graph, or a
//!   submission. Of the rest the one that was used least recently goes first.
//! - When a device is lost, what was checked stays so and is loaded anew when it is asked for.
//! - What has hung the device is not run again. That is a matter of each tenant: what one feeds a
//!   kernel takes it from nobody else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Refused;
use crate::device::Loaded;
use crate::kernel::Kernel;

/// Kernels that are remembered for having hung the device; the oldest makes room.
const QUARANTINED_MAX: usize = 64;

/// A kernel that a device has.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) kernel: Arc<Kernel>,
    pub(super) loaded: Loaded,
}

/// What is known of a source.
#[derive(Debug, Clone)]
pub(super) enum Known {
    Refused(Refused),
    Checked(Arc<Kernel>),
    Ready(Arc<Ready>),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Cache {
    known: BTreeMap<[u8; 32], (Known, u64)>,
    uses: u64,
    quarantined: VecDeque<[u8; 32]>,
}

impl Cache {
    pub(super) fn get(&mut self, hash: &[u8; 32]) -> Option<Known> {
        if self.quarantined.contains(hash) {
            return Some(Known::Refused(Refused::Quarantined));
        }
        let (known, used) = self.known.get_mut(hash)?;
        self.uses += 1;
        *used = self.uses;
        Some(known.clone())
    }

    pub(super) fn put(&mut self, hash: [u8; 32], known: Known) {
        self.uses += 1;
        self.known.insert(hash, (known, self.uses));
    }

    pub(super) fn quarantine(&mut self, hash: [u8; 32]) {
        self.quarantined.retain(|other| *other != hash);
        if self.quarantined.len() >= QUARANTINED_MAX {
            self.quarantined.pop_front();
        }
        self.quarantined.push_back(hash);
    }

    /// Makes room for one more that is not known yet. What the device is to forget is put into
    /// `gone`, also if that was not enough.
    ///
    /// # Errors
    /// All that are left are in use.
    pub(super) fn make_room(&mut self, most: usize, gone: &mut Vec<Loaded>) -> Result<(), Refused> {
        while self.known.len() >= most {
            let unused = self.known.iter().filter(|(_, (known, _))| !is_used(known));
            let Some(hash) = unused.min_by_key(|(_, (_, used))| *used).map(|(hash, _)| *hash)
            else {
                let (found, limit) = (self.known.len() as u64 + 1, most as u64);
                let fix = "drop handles and graphs of some";
                return Err(Refused::Limit { what: "kernels in use", found, limit, fix });
            };
            if let Some((Known::Ready(ready), _)) = self.known.remove(&hash) {
                gone.push(ready.loaded);
            }
        }
        Ok(())
    }

    /// Others are accepted from now on.
    pub(super) fn forget_rejected(&mut self) {
        self.known.retain(|_, (known, _)| !matches!(known, Known::Refused(Refused::Kernel(_))));
    }

    /// The device is no longer there.
    pub(super) fn lose(&mut self) {
        for (known, _) in self.known.values_mut() {
            if let Known::Ready(ready) = known {
                *known = Known::Checked(Arc::clone(&ready.kernel));
            }
        }
    }

    /// All that the device has.
    pub(super) fn loaded(&self) -> impl Iterator<Item = Loaded> {
        self.known.values().filter_map(|(known, _)| match known {
            Known::Ready(ready) => Some(ready.loaded),
            Known::Refused(_) | Known::Checked(_) => None,
        })
    }
}

/// Whether anybody but the cache has it.
fn is_used(known: &Known) -> bool {
    matches!(known, Known::Ready(ready) if Arc::strong_count(ready) > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: usize) -> [u8; 32] {
        [number as u8; 32]
    }

    #[test]
    fn what_was_used_least_recently_makes_room() {
        let mut cache = Cache::default();
        for number in 0..3 {
            cache.put(hash(number), Known::Refused(Refused::Constant));
        }
        assert!(cache.get(&hash(0)).is_some());
        let mut gone = Vec::new();
        assert_eq!(cache.make_room(3, &mut gone), Ok(()));
        let is_there = |number| cache.known.contains_key(&hash(number));
        assert_eq!([0, 1, 2].map(is_there), [true, false, true]);
        assert!(matches!(cache.make_room(0, &mut gone), Err(Refused::Limit { .. })));
        assert_eq!(gone, []);
    }

    #[test]
    fn the_oldest_is_forgotten_to_have_hung() {
        let mut cache = Cache::default();
        for number in (0..=QUARANTINED_MAX).chain([1]) {
            cache.quarantine(hash(number));
        }
        let is_refused = |number| cache.quarantined.contains(&hash(number));
        assert_eq!([0, 1, 2].map(is_refused), [false, true, true]);
        assert_eq!(cache.quarantined.len(), QUARANTINED_MAX);
    }
}
