//! What an event cost in each stage, for clients that wait for its result and ask.
//!
//! - Counted is every call that one of the request's events was in, those that were taken back
//!   included, until the client has its answer. Fuel and time are a call's: of events that shared
//!   it each is told its share, and with how many it shared.
//! - Of partitions on other nodes nothing is known here.
//! - There is an entry for each client that asks, and a row for each stage: both are bounded.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sluicebox_core::ids::RequestId;

use crate::mailbox::lock;

/// What the events of one request cost in one stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Calls they were in.
    pub(crate) calls: u64,
    /// How many events of the request these had.
    pub(crate) events: u64,
    /// How many events they had in all.
    pub(crate) among: u64,
    /// The share of their fuel.
    pub(crate) fuel: u64,
    /// The share of their time.
    pub(crate) micros: u64,
}

/// What stages cost, by their names.
pub(crate) type Costs = BTreeMap<String, Cost>;

/// Those who ask.
#[derive(Debug, Default)]
pub(super) struct Asking {
    count: AtomicUsize,
    asked: Mutex<BTreeMap<RequestId, Costs>>,
}

impl Asking {
    /// True if anybody asks.
    pub(super) fn is_any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    pub(super) fn begin(&self, id: RequestId) {
        let mut asked = lock(&self.asked);
        asked.insert(id, Costs::new());
        self.count.store(asked.len(), Ordering::Relaxed);
    }

    pub(super) fn end(&self, id: RequestId) -> Costs {
        let mut asked = lock(&self.asked);
        let costs = asked.remove(&id).unwrap_or_default();
        self.count.store(asked.len(), Ordering::Relaxed);
        costs
    }

    /// Those of some requests that ask.
    pub(super) fn of(&self, all: &mut BTreeMap<RequestId, u64>) {
        let asked = lock(&self.asked);
        all.retain(|id, _| asked.contains_key(id));
    }

    /// A call of a stage had so many events in all, of which each request had so many.
    pub(super) fn charge(&self, stage: &str, shares: &Shares, (fuel, took): (u64, Duration)) {
        let among = shares.among.max(1);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let share = |all: u64, events: u64| {
            let share = u128::from(all) * u128::from(events) / u128::from(among);
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        let mut asked = lock(&self.asked);
        for (id, events) in &shares.of {
            let Some(costs) = asked.get_mut(id) else { continue };
            let cost = costs.entry(stage.to_owned()).or_default();
            cost.calls += 1;
            cost.events += events;
            cost.among += among;
            cost.fuel = cost.fuel.saturating_add(share(fuel, *events));
            cost.micros = cost.micros.saturating_add(share(micros, *events));
        }
    }
}

/// Whose events a call has.
#[derive(Debug)]
pub(crate) struct Shares {
    /// How many of each request that asks.
    pub(super) of: BTreeMap<RequestId, u64>,
    /// How many in all.
    pub(super) among: u64,
}

/// The header that tells it: a row for each stage.
pub(crate) fn text(costs: &Costs) -> String {
    let row = |(stage, cost): (&String, &Cost)| {
        let Cost { calls, events, among, fuel, micros } = cost;
        format!("{stage};fuel={fuel};micros={micros};calls={calls};events={events};among={among}")
    };
    costs.iter().map(row).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_divided_among_its_events_and_only_those_who_ask_hear() {
        let asking = Asking::default();
        let [one, two, three] = [1, 2, 3].map(RequestId);
        assert!(!asking.is_any());
        [one, two].into_iter().for_each(|id| asking.begin(id));
        let mut of = BTreeMap::from([(one, 1), (two, 2), (three, 1)]);
        asking.of(&mut of);
        assert_eq!(of.len(), 2);
        let took = Duration::from_micros(40);
        asking.charge("a", &Shares { of: of.clone(), among: 10 }, (1000, took));
        asking.charge("a", &Shares { of, among: 5 }, (1000, took));
        let expected = Cost { calls: 2, events: 4, among: 15, fuel: 600, micros: 24 };
        assert_eq!(asking.end(two), Costs::from([("a".to_owned(), expected)]));
        let told = text(&asking.end(one));
        assert_eq!(told, "a;fuel=300;micros=12;calls=2;events=2;among=15");
        assert!(!asking.is_any() && asking.end(three).is_empty());
    }
}
