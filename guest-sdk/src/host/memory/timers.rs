//! Timers of the host in memory: set and cancelled by a stage, taken by the harness when due.
//!
//! - Within a key a name is there once; setting it again replaces the timer.
//! - Nothing fires by itself: the harness moves a clock, then takes what is due.
//!
//! The bounds of the real host on how many timers there are do not hold here.

use std::collections::BTreeMap;

use crate::host::memory::Memory;
use crate::timers::Clock;

/// Most bytes of the name of a timer.
const NAME_BYTES_MAX: usize = 64;
/// The first time that is out of range.
const TIME_END: u64 = 1 << 53;

/// What waits, and how late it is.
#[derive(Clone, Debug)]
pub(crate) struct TimerStore {
    /// Key, name: what it waits for.
    pub(crate) pending: BTreeMap<(String, String), (Clock, u64)>,
    pub(crate) watermark: u64,
    pub(crate) now: u64,
}

/// One that is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    pub(crate) clock: Clock,
    pub(crate) at: u64,
    pub(crate) key: String,
    pub(crate) name: String,
}

impl TimerStore {
    pub(crate) const fn new() -> Self {
        Self { pending: BTreeMap::new(), watermark: 0, now: 0 }
    }

    /// Takes at most `most` of what is due, in the host's order: by clock, time, key, name.
    pub(crate) fn take_due(&mut self, most: usize) -> Vec<Due> {
        let is_due = |clock: Clock, at: u64| match clock {
            Clock::Event => at <= self.watermark,
            Clock::Wall => at <= self.now,
        };
        let waiting = self.pending.iter();
        let mut due: Vec<Due> = waiting
            .filter(|(_, (clock, at))| is_due(*clock, *at))
            .map(|((key, name), (clock, at))| {
                let (key, name) = (key.clone(), name.clone());
                Due { clock: *clock, at: *at, key, name }
            })
            .collect();
        due.sort_unstable();
        due.truncate(most);
        for one in &due {
            self.pending.remove(&(one.key.clone(), one.name.clone()));
        }
        due
    }
}

impl Memory {
    pub(super) fn timer_set(
        &mut self,
        event: u32,
        name: &str,
        clock: Clock,
        at: u64,
    ) -> Result<(), String> {
        let key = self.key(event);
        if name.len() > NAME_BYTES_MAX {
            return Err("the name of a timer has at most 64 bytes".to_owned());
        }
        if at >= TIME_END {
            return Err(format!("the time of a timer is below 2^53, not {at}"));
        }
        self.timers.pending.insert((key, name.to_owned()), (clock, at));
        Ok(())
    }

    pub(super) fn timer_cancel(&mut self, event: u32, name: &str) -> bool {
        let key = self.key(event);
        self.timers.pending.remove(&(key, name.to_owned())).is_some()
    }
}
