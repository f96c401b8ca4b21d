//! How many instances and partitions of a segment work: a pure function of what was measured.
//!
//! ```text
//! arrivals, their trend ─┐
//! backlog by the time a ─┼─► needed ─► up at once, down after a quiet while, or as it is
//! change has its effect ─┘
//! ```
//!
//! Keeps true:
//! - It acts before there is a backlog: on the rate as it will be when a change has its effect.
//!   What has piled up by then is drained within a given time.
//! - Who is refused comes as well, but at most as much as is taken: those who try again at once
//!   are counted each time. So it at most doubles with each change, until nobody is refused.
//! - It does not oscillate. Up when the rate needs more than `busy_max_percent` of what there is,
//!   down when the highest rate of a quiet while needs less than `busy_min_percent`, both to
//!   `busy_percent`: rates that differ by a tenth change nothing.
//! - Never above the ceiling and the quota, never below the floor; to zero only if the floor is
//!   zero and nothing came for a while. One event wakes it.
//! - Integers only, and no overflow whatever was measured. Time is an argument.
//!
//! Whether a stage gets a segment of its own: `fuse`. Leaves to the node: measuring, carrying a
//! decision out, and where new partitions go (`placement`).

pub mod fuse;

/// Rates, events and milliseconds beyond this count as this: products of three of them fit.
const MOST: u64 = 1 << 40;

/// Samples over which a trend is seen.
const TREND_SAMPLES: usize = 10;

/// Busy all the time, but for what is lost between batches.
const BUSY_MILLI: u64 = 950;

/// Events a second, in thousandths: a stage that works on video may take seconds for one.
pub type RateMilli = u64;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it was taken, in milliseconds of any clock.
    pub at_ms: u64,
    /// Events that arrived since the sample before, as a rate.
    pub arrived: RateMilli,
    /// Events that were refused for want of room, as a rate. Some may be counted several times.
    pub refused: RateMilli,
    /// Events that were handled, as a rate.
    pub handled: RateMilli,
    /// Events that waited at its end.
    pub backlog: u64,
    /// How much of their time the instances were busy, in thousandths.
    pub busy_milli: u64,
}

impl Sample {
    /// What wanted to come.
    fn offered(&self) -> u128 {
        let taken = rate(self.arrived.max(self.handled));
        rate(self.arrived) + rate(self.refused).min(taken)
    }
}

/// How much of a segment works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scale {
    /// Partitions that own key groups.
    pub partitions: u32,
    /// Instances, over all partitions.
    pub instances: u32,
}

/// How far a segment may be scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Fewest partitions; 0 allows none when nothing comes.
    pub floor: u32,
    /// Most partitions.
    pub ceiling: u32,
    /// Instances that a partition can keep busy. At least 1, which is what calls that do not wait
    /// need.
    pub instances_each: u32,
    /// Instances that the tenant's quota has room for, those that are there included.
    pub quota: u32,
}

/// What a decision is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured<'a> {
    /// What was measured, oldest first. Longer than `quiet_ms`, or nothing is scaled down.
    pub window: &'a [Sample],
    /// What one instance handles when it is busy all the time; 0 if that is not known yet.
    pub instance_rate: RateMilli,
    /// What works now.
    pub active: Scale,
    /// What was decided last, and works `start_ms` later.
    pub ordered: Scale,
    /// Milliseconds since it was decided.
    pub since_change_ms: u64,
    /// How far it may go.
    pub bounds: Bounds,
}

/// How a controller acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How busy instances are made.
    pub busy_percent: u64,
    /// How busy they may become before there are more.
    pub busy_max_percent: u64,
    /// How idle before there are fewer.
    pub busy_min_percent: u64,
    /// Milliseconds in which a backlog is to be gone once a change has its effect.
    pub drain_ms: u64,
    /// Milliseconds a change takes to have its effect.
    pub start_ms: u64,
    /// Milliseconds over which the rate was low before there are fewer.
    pub quiet_ms: u64,
    /// Milliseconds without an event before there is nothing.
    pub zero_after_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            busy_percent: 70,
            busy_max_percent: 85,
            busy_min_percent: 50,
            drain_ms: 4_000,
            start_ms: 2_000,
            quiet_ms: 60_000,
            zero_after_ms: 300_000,
        }
    }
}

/// What is to work from now on, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What should work.
    pub scale: Scale,
    /// Why.
    pub why: Why,
    /// What stood in the way of more.
    pub limit: Option<Limit>,
}

/// Why a decision is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// What was decided last still fits.
    Fits,
    /// More comes than is good for so few.
    Rate,
    /// More will come when a change has its effect.
    Rising,
    /// Events wait that are not gone in time otherwise.
    Backlog,
    /// Less came for a quiet while than so many are for.
    Quiet,
    /// Nothing came for a long while.
    Idle,
    /// Something came, or the floor or a bound is another.
    Awake,
    /// It is not known what an instance handles, and events wait: twice as many.
    Unknown,
}

/// What bounds a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The most partitions there may be.
    Ceiling,
    /// The tenant's quota.
    Quota,
}

/// Decides how much of a segment is to work.
#[must_use]
pub fn decide(measured: &Measured<'_>, policy: &Policy) -> Decision {
    let demand = Demand::of(measured, policy);
    let ordered = measured.ordered.instances;
    let (instances, why) = match measured.window.last() {
        None => (ordered, Why::Fits),
        Some(last) => demand.answer(measured, policy, last),
    };
    let bounds = &measured.bounds;
    let each = bounds.instances_each.max(1);
    let ceiling = bounds.ceiling.saturating_mul(each);
    let limit = match instances {
        more if more > bounds.quota.min(ceiling) && bounds.quota < ceiling => Some(Limit::Quota),
        more if more > ceiling => Some(Limit::Ceiling),
        _ => None,
    };
    let floor = bounds.floor.min(bounds.quota);
    let bounded = instances.max(floor).min(ceiling).min(bounds.quota);
    let why = match why {
        Why::Fits if bounded != ordered => Why::Awake,
        _ if bounded == ordered => Why::Fits,
        why => why,
    };
    let partitions = partitions(measured, bounded, why, each);
    Decision { scale: Scale { partitions, instances: bounded }, why, limit }
}

/// Key groups are handed over when the number of partitions changes, so it is lowered only when
/// half of them would do.
fn partitions(measured: &Measured<'_>, instances: u32, why: Why, each: u32) -> u32 {
    let bounds = &measured.bounds;
    let needed = instances.div_ceil(each).max(bounds.floor).min(bounds.ceiling);
    let ordered = measured.ordered.partitions.min(bounds.ceiling);
    let is_fewer = why == Why::Idle || needed <= ordered / 2;
    if needed > ordered || is_fewer { needed } else { ordered }
}

/// What comes, and what it needs.
#[derive(Debug, Clone, Copy)]
struct Demand {
    /// What came last, at its highest in a quiet while, and what will come.
    now: u128,
    highest: u128,
    coming: u128,
    /// Events that will wait when a change has its effect.
    waiting: u128,
    /// What an instance handles.
    instance: u128,
}

impl Demand {
    fn of(measured: &Measured<'_>, policy: &Policy) -> Self {
        let window = measured.window;
        let start_ms = policy.start_ms.min(MOST);
        let now = window.last().map_or(0, Sample::offered);
        let quiet = since(window, policy.quiet_ms);
        let highest = quiet.iter().map(Sample::offered).max().unwrap_or(0);
        let coming = now + rise(quiet) * u128::from(start_ms) / 1000;
        let instance = instance_rate(measured, policy);
        let backlog = window.last().map_or(0, |last| rate(last.backlog));
        // Until what was ordered works, and from then until a change of now does.
        let first = start_ms.saturating_sub(measured.since_change_ms);
        let piled = |scale: Scale, ms: u64| {
            let handled = instance * u128::from(scale.instances);
            now.saturating_sub(handled) * u128::from(ms) / 1_000_000
        };
        let waiting =
            backlog + piled(measured.active, first) + piled(measured.ordered, start_ms - first);
        Self { now, highest, coming, waiting, instance }
    }

    /// How many instances there should be, whatever the bounds.
    fn answer(&self, measured: &Measured<'_>, policy: &Policy, last: &Sample) -> (u32, Why) {
        let ordered = measured.ordered.instances;
        if let Some(least) = self.unless_idle(measured, policy, last) {
            return least;
        }
        let was_quiet = measured.since_change_ms >= policy.quiet_ms
            && covers(measured.window, policy.quiet_ms)
            && self.waiting <= self.one_second();
        if self.instance == 0 {
            let is_settled = measured.since_change_ms >= policy.start_ms.saturating_mul(2);
            return match last.backlog > 0 && is_settled {
                true => (ordered.saturating_mul(2), Why::Unknown),
                // Nothing came since it began: for that one is enough.
                false if self.highest == 0 && was_quiet => (ordered.min(1), Why::Quiet),
                false => (ordered, Why::Fits),
            };
        }
        let by_now = self.instances(self.now, policy.busy_percent);
        let by_trend = self.instances(self.coming, policy.busy_percent);
        let drain = self.waiting * 1_000_000 / u128::from(policy.drain_ms.max(1));
        let by_backlog = self.instances(self.now + drain, 100);
        let is_busy = self.instances(self.coming, policy.busy_max_percent) > ordered;
        let waits = by_backlog > ordered && self.waiting > self.one_second();
        if is_busy || waits {
            let up = by_trend.max(by_backlog).max(ordered);
            let why = match up {
                up if up == by_now => Why::Rate,
                up if up == by_trend => Why::Rising,
                _ => Why::Backlog,
            };
            return (up, why);
        }
        let is_idle = self.instances(self.highest, policy.busy_min_percent) < ordered;
        if is_idle && was_quiet {
            let down = self.instances(self.highest, policy.busy_percent).max(1);
            return (down.min(ordered), Why::Quiet);
        }
        (ordered, Why::Fits)
    }

    /// Nothing, when nothing came for long; and something again when something comes.
    fn unless_idle(
        &self,
        measured: &Measured<'_>,
        policy: &Policy,
        last: &Sample,
    ) -> Option<(u32, Why)> {
        let comes =
            |sample: &Sample| sample.arrived > 0 || sample.refused > 0 || sample.backlog > 0;
        if measured.ordered.instances == 0 {
            let wakes = comes(last) || measured.bounds.floor > 0;
            let needed = self.instances(self.coming, policy.busy_percent).max(1);
            return Some(if wakes { (needed, Why::Awake) } else { (0, Why::Fits) });
        }
        let idle = since(measured.window, policy.zero_after_ms);
        let is_idle = measured.bounds.floor == 0
            && measured.since_change_ms >= policy.start_ms
            && covers(measured.window, policy.zero_after_ms)
            && !idle.iter().any(comes);
        is_idle.then_some((0, Why::Idle))
    }

    /// Instances for a rate, each so busy.
    fn instances(&self, rate: u128, percent: u64) -> u32 {
        if self.instance == 0 {
            return u32::from(rate > 0);
        }
        let each = (self.instance * u128::from(percent.max(1))).max(1);
        u32::try_from((rate * 100).div_ceil(each)).unwrap_or(u32::MAX)
    }

    /// What comes within a second is no backlog: a batch has to wait for the next.
    const fn one_second(&self) -> u128 {
        self.now / 1000
    }
}

/// The samples of so many milliseconds before the last.
fn since(window: &[Sample], ms: u64) -> &[Sample] {
    let Some(last) = window.last() else { return window };
    let begin = last.at_ms.saturating_sub(ms);
    &window[window.partition_point(|sample| sample.at_ms < begin)..]
}

/// True if the window is as long as that.
fn covers(window: &[Sample], ms: u64) -> bool {
    let ends = window.first().zip(window.last());
    ends.is_some_and(|(first, last)| last.at_ms.saturating_sub(first.at_ms) >= ms)
}

/// By how much the rate rises each second: what it rose since the last sample, and no more than it
/// rose on the average of the last ten. So one high sample is no trend, and noise is none.
fn rise(window: &[Sample]) -> u128 {
    let between = |earlier: &Sample, last: &Sample| {
        let ms = u128::from(last.at_ms.saturating_sub(earlier.at_ms)).max(1);
        last.offered().saturating_sub(earlier.offered()) * 1000 / ms
    };
    let recent = &window[window.len().saturating_sub(TREND_SAMPLES)..];
    match recent {
        [first, .., before, last] => between(first, last).min(between(before, last)),
        _ => 0,
    }
}

/// What an instance handles: as measured, or less if they are all busy and do less. Of a sample in
/// which their number changed nothing follows.
fn instance_rate(measured: &Measured<'_>, policy: &Policy) -> u128 {
    let told = rate(measured.instance_rate);
    let [.., before, last] = measured.window else { return told };
    let began_ms = last.at_ms.saturating_sub(before.at_ms).saturating_add(policy.start_ms);
    let instances = u128::from(measured.active.instances);
    let is_changing = measured.active != measured.ordered || measured.since_change_ms < began_ms;
    if is_changing || last.busy_milli < BUSY_MILLI || instances == 0 || last.handled == 0 {
        return told;
    }
    let seen = rate(last.handled) / instances;
    if told == 0 { seen } else { told.min(seen.max(told / 4)) }
}

fn rate(amount: u64) -> u128 {
    u128::from(amount.min(MOST))
}
