//! Whose turn it is: start-time fair queueing over tenants, first come first served within one.
//!
//! After Goyal, Vin and Cheng (1996). Each tenant has a tag: the virtual time at which its next
//! turn starts. The least tag goes next, and virtual time stands where the turn in service started.
//! A turn moves the tenant's tag on by what it used over its weight. A tenant that was idle begins
//! at the present, so that it goes before everybody who has just had a turn, and saves up nothing;
//! one that used too much keeps its tag, so that leaving and coming back clears no debt.
//!
//! Tags are compared in whole quanta, and within one a tenant that was idle goes first: else a
//! light tenant that has just had a tiny turn would wait until every busy one has had a whole
//! slice.
//!
//! What a turn costs is known only after it, so that a slice can be overdrawn; the next turns pay
//! for it. Generic over what is scheduled, and pure.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Virtual time of weight 1 for a nanosecond, so that weights up to 1,000 divide it finely.
const SCALE: u128 = 1_000;

/// Virtual time within which tags count as equal: about a slice.
const QUANTUM: u128 = 500_000 * SCALE;

/// See the module.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    /// By tenant number.
    tenants: Vec<Share<T>>,
    /// Tenants with something ready, but for the one in service.
    queue: BTreeSet<Place>,
    now: u128,
    /// Numbers places in order of arrival.
    arrivals: u64,
    /// Turns given so far.
    turns: u64,
    serving: Option<usize>,
}

#[derive(Debug)]
struct Share<T> {
    ready: VecDeque<T>,
    tag: u128,
    weight: u128,
    queued: bool,
    /// It had a turn before, and which.
    served: bool,
    left_at: u64,
}

/// Where a tenant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Its tag, in quanta.
    quantum: u128,
    was_busy: bool,
    arrival: u64,
    tenant: usize,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self {
            tenants: Vec::new(),
            queue: BTreeSet::new(),
            now: 0,
            arrivals: 0,
            turns: 0,
            serving: None,
        }
    }
}

impl<T> Default for Share<T> {
    fn default() -> Self {
        Self { ready: VecDeque::new(), tag: 0, weight: 1, queued: false, served: false, left_at: 0 }
    }
}

impl<T> Schedule<T> {
    /// Adds something to run. `tenant` is a small number, `weight` at least 1.
    pub(super) fn push(&mut self, tenant: usize, weight: u64, item: T) {
        if tenant >= self.tenants.len() {
            self.tenants.resize_with(tenant + 1, Share::default);
        }
        let share = &mut self.tenants[tenant];
        share.weight = u128::from(weight.clamp(1, 1_000));
        share.ready.push_back(item);
        if !share.queued && self.serving != Some(tenant) {
            // Somebody else had a turn since its last one: it had nothing to do in between.
            let was_busy = share.served && self.turns == share.left_at;
            share.tag = share.tag.max(self.now / QUANTUM * QUANTUM);
            self.enqueue(tenant, was_busy);
        }
    }

    /// The next thing to run, and whose it is. To be followed by `charge` for that tenant.
    pub(super) fn next(&mut self) -> Option<(usize, T)> {
        let place = self.queue.pop_first()?;
        let share = &mut self.tenants[place.tenant];
        share.queued = false;
        self.now = self.now.max(share.tag);
        self.turns += 1;
        self.serving = Some(place.tenant);
        let item = share.ready.pop_front()?;
        Some((place.tenant, item))
    }

    /// Charges a tenant for its turn.
    pub(super) fn charge(&mut self, tenant: usize, took: Duration) {
        self.serving = None;
        let Some(share) = self.tenants.get_mut(tenant) else { return };
        share.tag += took.as_nanos() * SCALE / share.weight;
        share.served = true;
        share.left_at = self.turns;
        if !share.ready.is_empty() && !share.queued {
            self.enqueue(tenant, true);
        }
    }

    fn enqueue(&mut self, tenant: usize, was_busy: bool) {
        self.arrivals += 1;
        let share = &mut self.tenants[tenant];
        share.queued = true;
        self.queue.insert(Place {
            quantum: share.tag / QUANTUM,
            was_busy,
            arrival: self.arrivals,
            tenant,
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLICE: Duration = Duration::from_micros(250);

    /// Runs `rounds` slices in which every tenant always has work; gives the slices of each.
    fn contend(weights: &[u64], costs: &[Duration], rounds: usize) -> Vec<Duration> {
        let mut schedule = Schedule::default();
        let mut used = vec![Duration::ZERO; weights.len()];
        for (tenant, weight) in weights.iter().enumerate() {
            schedule.push(tenant, *weight, ());
        }
        for _ in 0..rounds {
            let (tenant, ()) = schedule.next().expect("always busy");
            schedule.charge(tenant, costs[tenant]);
            used[tenant] += costs[tenant];
            schedule.push(tenant, weights[tenant], ());
        }
        used
    }

    #[test]
    fn busy_tenants_share_by_weight() {
        let used = contend(&[1, 2, 4], &[SLICE; 3], 70_000);
        let unit = used[0].as_secs_f64();
        let ratios: Vec<f64> = used.iter().map(|u| u.as_secs_f64() / unit).collect();
        assert!((ratios[1] - 2.0).abs() < 0.05 && (ratios[2] - 4.0).abs() < 0.05, "{ratios:?}");
    }

    #[test]
    fn one_that_overdraws_its_slice_pays_it_back() {
        let used = contend(&[1, 1], &[SLICE, SLICE * 16], 50_000);
        let ratio = used[1].as_secs_f64() / used[0].as_secs_f64();
        assert!((ratio - 1.0).abs() < 0.05, "{ratio}");
    }

    #[test]
    fn a_light_tenant_waits_for_one_slice() {
        let mut schedule = Schedule::default();
        for hog in 0..100 {
            schedule.push(hog, 1, "hog");
        }
        let hog_slice = |schedule: &mut Schedule<&'static str>| {
            let (tenant, what) = schedule.next().expect("busy");
            schedule.charge(tenant, SLICE);
            schedule.push(tenant, 1, what);
        };
        // At first the hogs are new themselves; after a turn each they are not.
        (0..100).for_each(|_| hog_slice(&mut schedule));
        for _ in 0..50 {
            (0..37).for_each(|_| hog_slice(&mut schedule));
            schedule.push(100, 1, "light");
            let (tenant, what) = schedule.next().expect("busy");
            assert_eq!((tenant, what), (100, "light"), "it goes before every hog");
            schedule.charge(tenant, Duration::from_micros(10));
        }
    }

    #[test]
    fn coming_and_going_does_not_clear_a_debt() {
        let mut schedule = Schedule::default();
        let mut used = [Duration::ZERO; 2];
        schedule.push(0, 1, ());
        schedule.push(1, 1, ());
        for _ in 0..20_000 {
            let (tenant, ()) = schedule.next().expect("busy");
            schedule.charge(tenant, SLICE * 4);
            used[tenant] += SLICE * 4;
            // Tenant 1 leaves for a moment after each slice.
            if tenant == 1 {
                let (other, ()) = schedule.next().expect("tenant 0 is busy");
                schedule.charge(other, SLICE);
                used[other] += SLICE;
                schedule.push(other, 1, ());
            }
            schedule.push(tenant, 1, ());
        }
        let ratio = used[1].as_secs_f64() / used[0].as_secs_f64();
        assert!(ratio < 1.1, "{ratio}");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_order_within_a_tenant_is_kept(
            steps in prop::collection::vec(
                (0_usize..5, 1_u64..4, 0_u64..2_000, any::<bool>()),
                0..300,
            )
        ) {
            let mut schedule = Schedule::default();
            let (mut pushed, mut taken) = (vec![Vec::new(); 5], vec![Vec::new(); 5]);
            for (at, (tenant, weight, micros, take)) in steps.into_iter().enumerate() {
                schedule.push(tenant, weight, at);
                pushed[tenant].push(at);
                if let Some((tenant, item)) = take.then(|| schedule.next()).flatten() {
                    taken[tenant].push(item);
                    schedule.charge(tenant, Duration::from_micros(micros));
                }
            }
            while let Some((tenant, item)) = schedule.next() {
                taken[tenant].push(item);
                schedule.charge(tenant, Duration::ZERO);
            }
            prop_assert_eq!(pushed, taken);
        }
    }
}
