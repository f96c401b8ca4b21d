//! A segment that is scaled, simulated second by second: arrivals, a queue, instances that take a
//! while to start; and clients that are refused when the queue is full, and try again.

use std::collections::VecDeque;

use sluicebox_core::scaling::{Bounds, Decision, Measured, Policy, Sample, Scale, decide};

use crate::dice::Dice;

/// What an instance handles, in events a second.
pub(crate) const INSTANCE: u64 = 500;

/// Milliseconds of a step.
const STEP_MS: u64 = 100;
/// Milliseconds between two measurements.
const SAMPLE_MS: u64 = 1000;
/// Milliseconds of measurements that are kept.
const WINDOW_MS: u64 = 310_000;

/// How many events wait in a segment before clients are refused, and what these do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door {
    pub(crate) events_max: u64,
    /// How often a second who is refused tries again, until it is taken.
    pub(crate) tries: u64,
    /// Who is refused is seen by who decides.
    pub(crate) is_seen: bool,
}

impl Door {
    /// All that comes is taken.
    pub(crate) const OPEN: Self = Self { events_max: u64::MAX / 2000, tries: 1, is_seen: true };
}

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Instances ordered, each time they changed, with when.
    pub(crate) ordered: Vec<(u64, u32)>,
    /// Events waiting, at each second, those of clients that were refused among them.
    pub(crate) backlog: Vec<u64>,
    /// Instances, added up over seconds.
    pub(crate) instance_seconds: u64,
    /// Events that came.
    pub(crate) arrived: u64,
    /// The last decision.
    pub(crate) last: Option<Decision>,
}

impl Run {
    /// How often it went down after up, or up after down.
    pub(crate) fn reversals(&self) -> usize {
        let ups: Vec<bool> = self.ordered.windows(2).map(|pair| pair[1].1 > pair[0].1).collect();
        ups.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    /// Seconds from `begin` after which less than a second of `rate` waits, for good.
    pub(crate) fn drained_after(&self, begin: usize, rate: u64) -> usize {
        let waits = self.backlog.iter().rposition(|backlog| *backlog > rate / 10);
        waits.map_or(0, |last| (last + 1).saturating_sub(begin))
    }

    pub(crate) fn worst_backlog(&self) -> u64 {
        self.backlog.iter().copied().max().unwrap_or(0)
    }
}

/// Who decides.
pub(crate) enum Controller {
    /// The one under test.
    Ours(Policy),
    /// One that knows when the burst begins, and has all there may be from then on, as soon as
    /// instances can start.
    Ideal { begin: u64 },
}

/// Runs a trace: the rate at each millisecond.
pub(crate) fn run(
    controller: &Controller,
    bounds: Bounds,
    seconds: u64,
    rate: &mut dyn FnMut(u64) -> u64,
) -> Run {
    run_behind(Door::OPEN, controller, (bounds, seconds), rate)
}

/// The same behind a door.
pub(crate) fn run_behind(
    door: Door,
    controller: &Controller,
    (bounds, seconds): (Bounds, u64),
    rate: &mut dyn FnMut(u64) -> u64,
) -> Run {
    let start_ms = Policy::default().start_ms;
    let first = Scale { partitions: bounds.floor, instances: bounds.floor };
    let (mut active, mut ordered) = (first, first);
    let mut pending: VecDeque<(u64, Scale)> = VecDeque::new();
    let mut changed = 0;
    let mut window: Vec<Sample> = Vec::new();
    let mut run = Run { ordered: vec![(0, first.instances)], ..Run::default() };
    // In thousandths of events.
    let (mut queue, mut arrived, mut handled, mut could) = (0_u64, 0_u64, 0_u64, 0_u64);
    // Of clients that stand before the door, and how much of it was refused.
    let (mut outside, mut refused) = (0_u64, 0_u64);
    for now in (STEP_MS..=seconds * 1000).step_by(STEP_MS as usize) {
        while let Some((_, scale)) = pending.pop_front_if(|(at, _)| *at <= now) {
            active = scale;
        }
        let wants = outside + rate(now) * STEP_MS;
        let comes = wants.min((door.events_max * 1000).saturating_sub(queue));
        run.arrived += wants - outside;
        outside = wants - comes;
        refused += outside * door.tries * STEP_MS / 1000;
        let capacity = u64::from(active.instances) * INSTANCE * STEP_MS;
        let done = capacity.min(queue + comes);
        queue = queue + comes - done;
        (arrived, handled, could) = (arrived + comes, handled + done, could + capacity);
        if now % SAMPLE_MS != 0 {
            continue;
        }
        let busy_milli = (handled * 1000).checked_div(could).unwrap_or(0);
        let backlog = queue / 1000;
        let seen = if door.is_seen { refused } else { 0 };
        window.push(Sample { at_ms: now, arrived, refused: seen, handled, backlog, busy_milli });
        (arrived, handled, could, refused) = (0, 0, 0, 0);
        window.retain(|sample| sample.at_ms + WINDOW_MS >= now);
        run.backlog.push((queue + outside) / 1000);
        run.instance_seconds += u64::from(active.instances);
        let scale = match controller {
            Controller::Ours(policy) => {
                let measured = Measured {
                    window: &window,
                    instance_rate: INSTANCE * 1000,
                    active,
                    ordered,
                    since_change_ms: now - changed,
                    bounds,
                };
                let decision = decide(&measured, policy);
                run.last = Some(decision);
                decision.scale
            }
            Controller::Ideal { begin } if now >= *begin => {
                Scale { partitions: bounds.ceiling, instances: bounds.ceiling }
            }
            Controller::Ideal { .. } => ordered,
        };
        if scale != ordered {
            // Fewer are fewer at once.
            let delay = if scale.instances > ordered.instances { start_ms } else { 0 };
            pending.push_back((now + delay, scale));
            run.ordered.push((now, scale.instances));
            (ordered, changed) = (scale, now);
        }
    }
    run.arrived /= 1000;
    run
}

/// Between 90 and 110 % of what it is given.
pub(crate) fn noisy(seed: u64, rate: impl Fn(u64) -> u64) -> impl FnMut(u64) -> u64 {
    let mut dice = Dice::new(seed << 32);
    move |now| rate(now) * (90 + dice.below(21) as u64) / 100
}
