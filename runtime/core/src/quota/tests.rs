//! The ledger against plain arithmetic, with allowances, amounts and clocks of every size.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000;

/// An allowance with the same number everywhere.
fn flat(limit: u64) -> Allowance {
    let mut allowance = Allowance::DEFAULT;
    Resource::ALL.iter().for_each(|r| allowance.set_limit(*r, limit));
    allowance
}

fn counted() -> impl Iterator<Item = Resource> {
    Resource::ALL.into_iter().filter(|r| !r.is_rate())
}

#[test]
fn every_resource_has_its_own_place() {
    for resource in counted() {
        let mut ledger = Ledger::new(flat(3), 0);
        ledger.draw(resource, 2, 0).unwrap();
        for other in counted() {
            assert_eq!(ledger.lent(other), if other == resource { 2 } else { 0 });
        }
    }
    let mut ledger = Ledger::new(flat(3), 0);
    ledger.draw(Resource::Events, 2, 0).unwrap();
    assert_eq!(ledger.left(Resource::Events, 0), 1);
    assert_eq!(ledger.left(Resource::Bytes, 0), 3);
}

#[test]
fn a_limit_that_was_set_is_the_limit_that_holds() {
    for (limit, resource) in (10..).zip(Resource::ALL) {
        let mut allowance = flat(1);
        allowance.set_limit(resource, limit);
        let mut ledger = Ledger::new(allowance, 0);
        assert_eq!(ledger.draw(resource, limit, 0), Ok(()));
        let refused = ledger.draw(resource, 1, 0).unwrap_err();
        assert_eq!((refused.resource, refused.limit), (resource, limit));
    }
}

#[test]
fn a_counted_resource_comes_back() {
    let mut ledger = Ledger::new(flat(10), 0);
    ledger.draw(Resource::Memory, 10, 0).unwrap();
    let refused = ledger.draw(Resource::Memory, 1, 0).unwrap_err();
    assert_eq!(refused.retry_after_micros, Some(COUNTED_RETRY_MICROS));
    ledger.put_back(Resource::Memory, 4);
    assert_eq!(ledger.left(Resource::Memory, 0), 4);
    ledger.draw(Resource::Memory, 4, 0).unwrap();
}

#[test]
fn what_can_never_be_granted_says_so() {
    let mut ledger = Ledger::new(flat(10), 0);
    for resource in Resource::ALL {
        assert_eq!(ledger.draw(resource, 11, 0).unwrap_err().retry_after_micros, None);
    }
    // A bucket that holds something but is not filled again.
    let mut allowance = flat(10);
    allowance.events = Rate { per_second: 0, burst: 5 };
    let mut ledger = Ledger::new(allowance, 0);
    ledger.draw(Resource::Events, 5, 0).unwrap();
    assert_eq!(ledger.draw(Resource::Events, 1, u64::MAX).unwrap_err().retry_after_micros, None);
}

#[test]
fn a_tenant_at_zero_gets_nothing_but_may_draw_nothing() {
    let mut ledger = Ledger::new(flat(0), 0);
    for resource in Resource::ALL {
        assert_eq!(ledger.draw(resource, 1, SECOND).unwrap_err().retry_after_micros, None);
        assert_eq!(ledger.draw(resource, 0, SECOND), Ok(()));
    }
}

#[test]
fn a_rate_fills_to_the_microsecond() {
    let mut ledger = Ledger::new(flat(1_000), 0);
    ledger.draw(Resource::Events, 1_000, 0).unwrap();
    assert_eq!(ledger.draw(Resource::Events, 1, 0).unwrap_err().retry_after_micros, Some(1_000));
    assert!(ledger.draw(Resource::Events, 1, 999).is_err());
    ledger.draw(Resource::Events, 1, 1_000).unwrap();
    assert_eq!(ledger.left(Resource::Events, 10 * SECOND), 1_000, "more than the burst saved up");
}

#[test]
fn several_draws_are_all_or_none() {
    let mut ledger = Ledger::new(flat(10), 0);
    let draws = [(Resource::Events, 6), (Resource::Streams, 3), (Resource::Events, 5)];
    let refused = ledger.draw_all(&draws, 0).unwrap_err();
    assert_eq!(refused.resource, Resource::Events);
    assert_eq!(ledger.left(Resource::Events, 0), 10);
    assert_eq!(ledger.lent(Resource::Streams), 0);
    ledger.draw_all(&draws[..2], 0).unwrap();
    assert_eq!(ledger.left(Resource::Events, 0), 4);
    assert_eq!(ledger.lent(Resource::Streams), 3);
}

#[test]
fn a_lower_allowance_takes_nothing_back() {
    let mut ledger = Ledger::new(flat(10), 0);
    ledger.draw(Resource::Pipelines, 8, 0).unwrap();
    ledger.change(flat(4), 0);
    assert_eq!(ledger.lent(Resource::Pipelines), 8);
    assert_eq!(ledger.left(Resource::Pipelines, 0), 0);
    assert!(ledger.draw(Resource::Pipelines, 1, 0).is_err());
    ledger.draw(Resource::Pipelines, 0, 0).unwrap();
    assert_eq!(ledger.left(Resource::Events, 0), 4);
    ledger.put_back(Resource::Pipelines, 5);
    ledger.draw(Resource::Pipelines, 1, 0).unwrap();
}

#[test]
fn a_higher_allowance_holds_from_now_on() {
    let mut ledger = Ledger::new(flat(10), 0);
    ledger.draw_all(&[(Resource::Events, 10), (Resource::Streams, 10)], 0).unwrap();
    ledger.change(flat(1_000), SECOND / 2);
    // Half a second at ten a second, not at a thousand.
    assert_eq!(ledger.left(Resource::Events, SECOND / 2), 5);
    ledger.draw(Resource::Streams, 990, SECOND / 2).unwrap();
}

#[test]
#[should_panic(expected = "more streams put back than lent")]
fn putting_back_too_much_stops_the_account() {
    let mut ledger = Ledger::new(flat(10), 0);
    ledger.draw(Resource::Streams, 1, 0).unwrap();
    ledger.put_back(Resource::Streams, 2);
}

#[test]
#[should_panic(expected = "spent, not lent")]
fn a_rate_cannot_be_put_back() {
    Ledger::new(flat(10), 0).put_back(Resource::Events, 1);
}

/// Small numbers meet their limits often; the ends of the range find overflows.
fn amount() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..50_u64, 1 => any::<u64>(), 1 => u64::MAX - 2..=u64::MAX]
}

#[derive(Debug, Clone)]
enum Step {
    Draw(Resource, u64),
    Both(u64, u64),
    PutBack(usize),
    Change(u64),
    /// To any time, backwards too.
    Clock(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let resource = proptest::sample::select(Resource::ALL.to_vec());
    prop_oneof![
        4 => (resource, amount()).prop_map(|(r, a)| Step::Draw(r, a)),
        2 => (amount(), amount()).prop_map(|(a, b)| Step::Both(a, b)),
        3 => any::<usize>().prop_map(Step::PutBack),
        1 => amount().prop_map(Step::Change),
        2 => prop_oneof![0..3 * SECOND, any::<u64>()].prop_map(Step::Clock),
    ]
}

proptest! {
    #[test]
    fn what_is_lent_is_the_sum_of_what_was_granted(
        limit in amount(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut ledger = Ledger::new(flat(limit), 0);
        let mut limit = limit;
        let mut now = 0;
        let mut held: Vec<(Resource, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Clock(to) => now = to,
                Step::Change(to) => {
                    limit = to;
                    ledger.change(flat(to), now);
                }
                Step::PutBack(at) if !held.is_empty() => {
                    let (resource, amount) = held.swap_remove(at % held.len());
                    ledger.put_back(resource, amount);
                }
                Step::PutBack(_) => {}
                Step::Draw(resource, amount) => {
                    let granted = ledger.draw(resource, amount, now).is_ok();
                    if granted && !resource.is_rate() {
                        held.push((resource, amount));
                        prop_assert!(amount == 0 || ledger.lent(resource) <= limit);
                    }
                }
                Step::Both(first, second) => {
                    let draws = [(Resource::Memory, first), (Resource::Streams, second)];
                    if ledger.draw_all(&draws, now).is_ok() {
                        held.extend(draws);
                    }
                }
            }
            for resource in counted() {
                let sum: u128 =
                    held.iter().filter(|h| h.0 == resource).map(|h| u128::from(h.1)).sum();
                prop_assert_eq!(u128::from(ledger.lent(resource)), sum);
            }
        }
    }

    #[test]
    fn a_rate_gives_its_burst_and_what_time_brings_and_not_a_unit_more(
        per_second in 1..5_000_u64,
        burst in 1..500_u64,
        moves in proptest::collection::vec((0..2_000_u64, 1..20_u64), 1..200),
    ) {
        let mut allowance = flat(0);
        allowance.events = Rate { per_second, burst };
        let mut ledger = Ledger::new(allowance, 0);
        // The oracle: millionths of a unit, never rounded.
        let (mut level, mut now) = (u128::from(burst) * MILLION, 0);
        let mut given = 0;
        for (elapsed, amount) in moves {
            now += elapsed;
            level = (level + u128::from(per_second * elapsed)).min(u128::from(burst) * MILLION);
            let wanted = u128::from(amount) * MILLION;
            let granted = ledger.draw(Resource::Events, amount, now).is_ok();
            prop_assert_eq!(granted, wanted <= level);
            if granted {
                level -= wanted;
                given += amount;
            }
            prop_assert!(
                u128::from(given) * MILLION
                    <= u128::from(burst) * MILLION + u128::from(per_second) * u128::from(now)
            );
        }
    }

    #[test]
    fn how_often_one_looks_changes_nothing(
        per_second in amount(),
        looks in proptest::collection::vec(0..100_000_u64, 1..50),
    ) {
        let mut often = Ledger::new(flat(per_second), 0);
        often.draw(Resource::Bytes, per_second, 0).unwrap();
        let mut once = often.clone();
        let mut now = 0;
        for elapsed in looks {
            now += elapsed;
            often.draw(Resource::Bytes, 0, now).unwrap();
        }
        once.draw(Resource::Bytes, 0, now).unwrap();
        prop_assert_eq!(often.rates[1].level, once.rates[1].level);
    }

    #[test]
    fn the_time_to_try_again_is_exact(
        per_second in 1..=u64::MAX,
        burst in 1..=u64::MAX,
        spent in any::<u64>(),
        amount in any::<u64>(),
        now in 0..u64::MAX / 2,
    ) {
        let mut allowance = flat(0);
        allowance.bytes = Rate { per_second, burst };
        let mut ledger = Ledger::new(allowance, now);
        ledger.draw(Resource::Bytes, spent.min(burst), now).unwrap();
        match ledger.draw(Resource::Bytes, amount, now).map_err(|r| r.retry_after_micros) {
            Ok(()) => {
                let sum = spent.min(burst).checked_add(amount);
                prop_assert!(sum.is_some_and(|sum| sum <= burst));
            }
            Err(None) => prop_assert!(amount > burst),
            Err(Some(after)) => {
                prop_assert!(after > 0 && amount <= burst);
                if let Some(then) = now.checked_add(after) {
                    prop_assert!(ledger.clone().draw(Resource::Bytes, amount, then - 1).is_err());
                    prop_assert!(ledger.draw(Resource::Bytes, amount, then).is_ok());
                }
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_and_takes_nothing(
        times in proptest::collection::vec(0..1_000_000_u64, 1..60),
    ) {
        let mut ledger = Ledger::new(flat(1_000), 0);
        ledger.draw(Resource::Events, 1_000, 0).unwrap();
        for &now in &times {
            ledger.draw(Resource::Events, 0, now).unwrap();
        }
        let latest = times.iter().copied().max().unwrap_or(0);
        prop_assert_eq!(ledger.rates[0].level, u128::from(latest) * 1_000);
        // And what is said about trying again holds by the clock that was asked with.
        let mut asked = ledger.clone();
        if let Err(refused) = asked.draw(Resource::Events, 1_000, 0) {
            let then = refused.retry_after_micros.unwrap();
            prop_assert!(ledger.clone().draw(Resource::Events, 1_000, then - 1).is_err());
            prop_assert!(ledger.draw(Resource::Events, 1_000, then).is_ok());
        }
    }
}
