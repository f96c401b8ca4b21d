//! Start-time fair queueing over flows: the one with the least tag goes next.
//!
//! After Goyal, Vin and Cheng (1997); costs are corrected once they are known. Keeps true:
//!
//! - Virtual time never goes back. It stands where the turn that was given last began.
//! - A turn moves a flow's tag on by what it is expected to take over the flow's weight, and once
//!   it is over the tag stands where it had stood had the true time been known. So the tags of
//!   flows that all have something to do are apart by what one turn of each takes, at any speed.
//! - A flow that had nothing to do begins at the present, before those that are due then: it saves
//!   nothing up. One that was ahead of the present still is, so that resting clears no debt.
//!
//! Leaves to others: what a flow is, and what a turn consists of.

use std::collections::{BTreeMap, BTreeSet};

/// Virtual time of weight 1 for a nanosecond: what is lost by rounding in a turn is less than a
/// millionth of a nanosecond, and 2⁶⁴ nanoseconds still leave 32 bits to add them up.
const SCALE: u128 = 1 << 32;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fair {
    flows: BTreeMap<u64, Flow>,
    ready: BTreeSet<Place>,
    /// Virtual time.
    now: u128,
    /// Numbers places in order of arrival.
    arrivals: u64,
}

#[derive(Debug)]
struct Flow {
    weight: u32,
    tag: u128,
    place: Option<Place>,
}

/// Where a flow stands that has something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    tag: u128,
    was_busy: bool,
    arrival: u64,
    flow: u64,
}

/// What a turn was taken to cost, to be corrected by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    weight: u32,
    expected: u128,
}

/// Virtual time for real time.
const fn scaled(nanos: u64, weight: u32) -> u128 {
    nanos as u128 * SCALE / weight as u128
}

impl Fair {
    /// Adds a flow, or gives one another weight from its next turn on. At least 1.
    pub(super) fn set(&mut self, flow: u64, weight: u32) {
        let tag = self.now;
        let entry = self.flows.entry(flow);
        entry.or_insert(Flow { weight, tag, place: None }).weight = weight;
    }

    /// Forgets a flow.
    pub(super) fn remove(&mut self, flow: u64) {
        self.rest(flow);
        self.flows.remove(&flow);
    }

    /// A flow has something to do.
    pub(super) fn wake(&mut self, flow: u64) {
        let Some(entry) = self.flows.get_mut(&flow) else { return };
        if entry.place.is_some() {
            return;
        }
        // Also if a turn of it is not over: else who never has more than that would save up.
        entry.tag = entry.tag.max(self.now);
        self.arrivals += 1;
        let place = Place { tag: entry.tag, was_busy: false, arrival: self.arrivals, flow };
        entry.place = Some(place);
        self.ready.insert(place);
    }

    /// A flow has nothing to do, or may not.
    pub(super) fn rest(&mut self, flow: u64) {
        let place = self.flows.get_mut(&flow).and_then(|entry| entry.place.take());
        if let Some(place) = place {
            self.ready.remove(&place);
        }
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<u64> {
        self.ready.first().map(|place| place.flow)
    }

    /// Gives a flow its turn. It still has something to do, unless it is said to rest.
    pub(super) fn serve(&mut self, flow: u64, expected_nanos: u64) -> Turn {
        let Some(entry) = self.flows.get_mut(&flow) else {
            return Turn { weight: 1, expected: 0 };
        };
        let turn = Turn { weight: entry.weight, expected: scaled(expected_nanos, entry.weight) };
        // The tag is less than the present if turns that were on took less than expected.
        self.now = self.now.max(entry.tag);
        self.arrivals += 1;
        let tag = entry.tag + turn.expected;
        let place = Place { tag, was_busy: true, arrival: self.arrivals, flow };
        self.stand(flow, place);
        turn
    }

    /// A flow begins what it has to do in its turn; what that took is charged once it is over.
    pub(super) fn begin(&mut self, flow: u64) {
        if let Some(entry) = self.flows.get(&flow) {
            self.now = self.now.max(entry.tag);
        }
    }

    /// A flow has used so much, of which nothing was known before. It may have nothing to do: then
    /// it has what it used from the present on.
    pub(super) fn charge(&mut self, flow: u64, took_nanos: u64) {
        let Some(entry) = self.flows.get_mut(&flow) else { return };
        let took = scaled(took_nanos, entry.weight);
        if entry.place.is_none() {
            entry.tag = entry.tag.max(self.now) + took;
            return;
        }
        self.arrivals += 1;
        let (tag, arrival) = (entry.tag + took, self.arrivals);
        self.stand(flow, Place { tag, was_busy: true, arrival, flow });
    }

    /// A turn is over and has taken so long.
    pub(super) fn settle(&mut self, flow: u64, turn: Turn, took_nanos: u64) {
        let Some(entry) = self.flows.get_mut(&flow) else { return };
        entry.tag = (entry.tag + scaled(took_nanos, turn.weight)).saturating_sub(turn.expected);
        if let Some(place) = entry.place {
            let place = Place { tag: entry.tag, ..place };
            self.stand(flow, place);
        }
    }

    /// Has a flow stand at another place than before.
    fn stand(&mut self, flow: u64, place: Place) {
        let Some(entry) = self.flows.get_mut(&flow) else { return };
        entry.tag = place.tag;
        if let Some(before) = entry.place.replace(place) {
            self.ready.remove(&before);
        }
        self.ready.insert(place);
    }

    /// The sum of all weights.
    pub(super) fn weights(&self) -> u64 {
        self.flows.values().map(|flow| u64::from(flow.weight)).sum()
    }

    /// Virtual time, which never goes back.
    #[cfg(test)]
    pub(super) const fn now(&self) -> u128 {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many turns of one nanosecond and says whose they were.
    fn turns(fair: &mut Fair, count: usize) -> Vec<u64> {
        let mut given = Vec::new();
        for _ in 0..count {
            let flow = fair.first().unwrap();
            let turn = fair.serve(flow, 1);
            fair.settle(flow, turn, 1);
            given.push(flow);
        }
        given
    }

    fn two() -> Fair {
        let mut fair = Fair::default();
        for flow in [1, 2] {
            fair.set(flow, 1);
            fair.wake(flow);
        }
        fair
    }

    #[test]
    fn turns_follow_weights() {
        let mut fair = two();
        fair.set(2, 3);
        let given = turns(&mut fair, 400);
        assert_eq!(given.iter().filter(|flow| **flow == 2).count(), 300);
    }

    #[test]
    fn who_was_idle_has_saved_nothing_up_and_comes_first() {
        let mut fair = two();
        fair.rest(2);
        turns(&mut fair, 10);
        fair.wake(2);
        // At the present, where flow 1 has had its turn already: one turn, not ten.
        assert_eq!(turns(&mut fair, 4), [2, 1, 2, 1]);
    }

    #[test]
    fn who_was_idle_comes_before_those_that_are_due_at_the_same_time() {
        let mut fair = two();
        fair.rest(2);
        fair.serve(1, 0);
        fair.wake(2);
        assert_eq!(fair.first(), Some(2));
    }

    #[test]
    fn who_goes_and_comes_back_keeps_its_debt() {
        let mut fair = two();
        let turn = fair.serve(1, 1);
        fair.rest(1);
        fair.settle(1, turn, 4);
        fair.wake(1);
        assert_eq!(turns(&mut fair, 5), [2, 2, 2, 2, 1]);
    }

    #[test]
    fn who_never_waits_for_its_turn_saves_nothing_up() {
        let mut fair = two();
        // Flow 1 is woken while a turn of it is on, again and again; flow 2 has had ten since.
        let mut turn = fair.serve(1, 1);
        fair.rest(1);
        turns(&mut fair, 10);
        for _ in 0..5 {
            fair.wake(1);
            let next = fair.serve(1, 1);
            fair.rest(1);
            fair.settle(1, std::mem::replace(&mut turn, next), 1);
            turns(&mut fair, 10);
        }
        fair.wake(1);
        assert_eq!(turns(&mut fair, 4), [1, 2, 1, 2]);
    }

    #[test]
    fn what_was_used_without_a_turn_is_waited_for() {
        let mut fair = two();
        fair.rest(1);
        turns(&mut fair, 5);
        // From the present on, which is where the last turn began.
        fair.charge(1, 3);
        fair.wake(1);
        assert_eq!(turns(&mut fair, 4), [2, 2, 1, 2]);
        fair.charge(2, 2);
        assert_eq!(turns(&mut fair, 3), [1, 1, 2]);
    }

    #[test]
    fn a_turn_costs_what_it_took_even_if_the_weight_has_changed() {
        let mut fair = two();
        let turn = fair.serve(1, 1_000);
        fair.set(1, 1_000);
        fair.settle(1, turn, 2);
        assert_eq!(turns(&mut fair, 3), [2, 2, 1]);
    }
}
