//! Calls whose state is not in memory: which keys have to be loaded first.
//!
//! ```text
//! next_call() == None, take_wanted() == Some ─► (the store is read) ─► load(each key)
//!                                                                       ─► next_call()
//! ```
//!
//! - A call is made only when all keys of its events are here. So a guest never waits for the
//!   store, and nothing has to be run again.
//! - Whoever loads may load less than is wanted, but the first key at least; the call is then made
//!   for the events before the first key that is missing. So memory is bounded, and there is
//!   always progress.

use std::ops::Range;

use super::{Partition, layer_of};
use crate::frame::Frame;
use crate::state::KeyedState;

/// Keys of one stage that the next call needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Index of the stage in the segment.
    pub stage: usize,
    /// In order of the events; each once.
    pub keys: Vec<Box<[u8]>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Wanting {
    wanted: Option<Wanted>,
    /// The last time less was loaded than was wanted.
    short: bool,
    /// In which order keys came, while doubles are looked for.
    order: Vec<u32>,
}

impl Wanting {
    /// True if a call waits for state.
    pub(super) fn is_some(&self) -> bool {
        self.wanted.is_some()
    }

    /// The part of `run` that can be called now; `None` if keys have to be loaded first.
    pub(super) fn next(
        &mut self,
        stage: usize,
        state: &mut KeyedState,
        frame: &Frame,
        run: Range<u32>,
    ) -> Option<Range<u32>> {
        let mut keys: Vec<&[u8]> = Vec::new();
        let mut ready = run.len() as u32;
        let events = frame.events().skip(run.start as usize).take(run.len());
        for (at, event) in events.enumerate() {
            if state.lacks(event.key) {
                ready = ready.min(at as u32);
                keys.push(event.key);
            }
        }
        if keys.is_empty() {
            self.short = false;
            return Some(run);
        }
        if self.short && ready > 0 {
            return Some(run.start..run.start + ready);
        }
        self.short = false;
        self.wanted = Some(Wanted { stage, keys: self.once(&keys) });
        None
    }

    /// The keys without doubles, in order of their first.
    fn once(&mut self, keys: &[&[u8]]) -> Vec<Box<[u8]>> {
        let order = &mut self.order;
        order.clear();
        order.extend(0..keys.len() as u32);
        order.sort_by_key(|at| keys[*at as usize]);
        order.dedup_by_key(|at| keys[*at as usize]);
        order.sort_unstable();
        order.iter().map(|at| keys[*at as usize].into()).collect()
    }
}

impl Partition {
    /// The keys that have to be loaded before the next call, if any have to.
    pub fn take_wanted(&mut self) -> Option<Wanted> {
        self.wanting.wanted.take()
    }

    /// Takes what the store has of a key that was wanted.
    pub fn load<'a>(
        &mut self,
        stage: usize,
        key: &[u8],
        slots: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) {
        layer_of(&mut self.stages[stage]).state().load(key, slots);
    }

    /// True if a key of a stage is in memory.
    #[must_use]
    pub fn holds(&self, stage: usize, key: &[u8]) -> bool {
        let layer = self.stages[stage].layer.as_ref();
        layer.is_some_and(|layer| layer.state_ref().holds(key))
    }

    /// Not all that was wanted was loaded.
    pub fn loaded_short(&mut self) {
        self.wanting.short = true;
    }

    /// Puts a store behind the state of every stage that has none behind it yet.
    pub fn back_state(&mut self) {
        self.stages.iter_mut().for_each(|stage| layer_of(stage).state().back(true));
    }

    /// Ends the period of every stage's state, and gives those that ended, in order of the stages.
    pub fn next_periods(&mut self) -> Vec<u32> {
        self.stages.iter_mut().map(|stage| layer_of(stage).state().next_period()).collect()
    }

    /// The store has what was written in these periods and before.
    pub fn kept(&mut self, periods: &[u32]) {
        for (stage, period) in self.stages.iter_mut().zip(periods) {
            layer_of(stage).state().kept(*period);
        }
    }

    /// Lets state leave memory until about `share` of 256 parts of it are held, as
    /// [`KeyedState::make_room`]. True if there is more that may leave.
    pub fn make_room(&mut self, share: u8) -> bool {
        let mut any = false;
        for stage in &mut self.stages {
            let state = layer_of(stage).state();
            let bytes = state.bytes() / 256 * usize::from(share);
            any |= state.make_room(bytes);
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameBuilder, Head};
    use crate::state::StateLimits;

    fn frame(keys: &[&[u8]]) -> Frame {
        let mut builder = FrameBuilder::new();
        keys.iter().for_each(|key| builder.push(&Head::data(1), key, b"", &[]));
        builder.finish()
    }

    fn cold() -> KeyedState {
        let limits = StateLimits { key_bytes: 1 << 20, total_bytes: 1 << 30 };
        let mut state = KeyedState::new(1, limits);
        state.back(false);
        state
    }

    #[test]
    fn keys_are_wanted_once_in_order_of_their_events() {
        let (mut wanting, mut state) = (Wanting::default(), cold());
        state.load(b"here", std::iter::empty());
        let frame = frame(&[b"z", b"here", b"a", b"z", b"m"]);
        assert_eq!(wanting.next(3, &mut state, &frame, 0..5), None);
        let wanted = wanting.wanted.take().expect("keys are missing");
        let keys: Vec<&[u8]> = wanted.keys.iter().map(|key| &key[..]).collect();
        assert_eq!((wanted.stage, keys), (3, vec![&b"z"[..], b"a", b"m"]));
    }

    #[test]
    fn what_was_loaded_is_called_and_the_rest_wanted_again() {
        let (mut wanting, mut state) = (Wanting::default(), cold());
        let frame = frame(&[b"a", b"b", b"c", b"d"]);
        assert_eq!(wanting.next(0, &mut state, &frame, 1..4), None);
        state.load(b"b", std::iter::empty());
        (wanting.wanted, wanting.short) = (None, true);
        assert_eq!(wanting.next(0, &mut state, &frame, 1..4), Some(1..2));
        assert_eq!(wanting.next(0, &mut state, &frame, 2..4), None);
        assert_eq!(wanting.wanted.take().expect("two are missing").keys.len(), 2);
        state.load(b"c", std::iter::empty());
        state.load(b"d", std::iter::empty());
        assert_eq!(wanting.next(0, &mut state, &frame, 2..4), Some(2..4));
    }
}
