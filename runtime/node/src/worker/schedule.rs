//! Whose turn it is: deficit round robin over tenants, first come first served within one.
//!
//! Deficit round robin after Shreedhar and Varghese (1995), charged in time used; the list of
//! fresh tenants after FQ-CoDel (RFC 8290): one that was idle and owes nothing goes before those
//! that are always busy, for one quantum, so that a light tenant waits for one slice and not for a
//! round. Leaving and coming back does not help a busy one: it comes back with its debt.
//!
//! Generic over what is scheduled, and pure.

use std::collections::VecDeque;
use std::time::Duration;

/// Time a tenant of weight 1 gets in a round.
const QUANTUM_NANOS: i64 = 500_000;

/// A tenant may owe at most this many quanta: one slice can overdraw, but a debt is paid off
/// within bounded time.
const DEBT_QUANTA_MAX: i64 = 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    /// By tenant number.
    tenants: Vec<Share<T>>,
    fresh: VecDeque<usize>,
    busy: VecDeque<usize>,
}

#[derive(Debug)]
struct Share<T> {
    ready: VecDeque<T>,
    deficit: i64,
    weight: i64,
    /// In one of the two lists.
    listed: bool,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self { tenants: Vec::new(), fresh: VecDeque::new(), busy: VecDeque::new() }
    }
}

impl<T> Default for Share<T> {
    fn default() -> Self {
        Self { ready: VecDeque::new(), deficit: 0, weight: 1, listed: false }
    }
}

impl<T> Schedule<T> {
    /// Adds something to run. `tenant` is a small number, `weight` at least 1.
    pub(super) fn push(&mut self, tenant: usize, weight: u64, item: T) {
        if tenant >= self.tenants.len() {
            self.tenants.resize_with(tenant + 1, Share::default);
        }
        let share = &mut self.tenants[tenant];
        share.weight = weight.clamp(1, 1000) as i64;
        share.ready.push_back(item);
        if !share.listed {
            share.listed = true;
            if share.deficit >= 0 {
                share.deficit = QUANTUM_NANOS * share.weight;
                self.fresh.push_back(tenant);
            } else {
                self.busy.push_back(tenant);
            }
        }
    }

    /// The next thing to run, and whose it is.
    pub(super) fn next(&mut self) -> Option<(usize, T)> {
        loop {
            let from_fresh = !self.fresh.is_empty();
            let list = if from_fresh { &mut self.fresh } else { &mut self.busy };
            let tenant = *list.front()?;
            let share = &mut self.tenants[tenant];
            if share.ready.is_empty() {
                list.pop_front();
                if from_fresh && share.deficit > 0 {
                    // It may come again at once; it then waits behind the others.
                    self.busy.push_back(tenant);
                } else {
                    share.listed = false;
                    share.deficit = share.deficit.min(0);
                }
                continue;
            }
            if share.deficit <= 0 {
                share.deficit += QUANTUM_NANOS * share.weight;
                list.pop_front();
                self.busy.push_back(tenant);
                continue;
            }
            let item = share.ready.pop_front()?;
            return Some((tenant, item));
        }
    }

    /// Charges a tenant for what it used.
    pub(super) fn charge(&mut self, tenant: usize, took: Duration) {
        let nanos = i64::try_from(took.as_nanos()).unwrap_or(i64::MAX);
        if let Some(share) = self.tenants.get_mut(tenant) {
            let floor = -DEBT_QUANTA_MAX * QUANTUM_NANOS * share.weight;
            share.deficit = share.deficit.saturating_sub(nanos).max(floor);
        }
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
        // The hogs begin as fresh ones themselves; this many slices later all are known as busy.
        let hog_slice = |schedule: &mut Schedule<&'static str>| {
            let (tenant, what) = schedule.next().expect("busy");
            schedule.charge(tenant, SLICE);
            schedule.push(tenant, 1, what);
        };
        (0..300).for_each(|_| hog_slice(&mut schedule));
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
            }
            prop_assert_eq!(pushed, taken);
        }
    }
}
