//! What a pipeline did in the last while, as `core/scaling` wants it.
//!
//! - Counters are read once a look; what is kept is differences. Another version or scale is
//!   another pipeline here: counters begin anew, what a partition can do stays known.
//! - What a partition does when it is busy all the time follows from the time it was busy.
//! - Of requests that were refused for want of room nobody knows what they would have brought:
//!   they count like those that were taken, in every segment, as all are to take it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sluicebox_core::pipeline::Pipeline;
use sluicebox_core::scaling::{Bounds, Decision, Measured, Policy, RateMilli, Sample, Scale};
use sluicebox_core::scaling::{decide, fuse};
use sluicebox_core::segment;

use crate::mailbox::Mailbox;
use crate::mailbox::load::Done;
use crate::metrics::PipelineMetrics;
use crate::running::Running;
use crate::spread::Site;

/// What partitions on other nodes have done, by root of the segment and number.
pub(super) type Elsewhere = BTreeMap<(String, u16), Done>;

/// Microseconds a segment must have been busy in a look for its pace to be taken from it.
const BUSY_MICROS_MIN: u64 = 5_000;

/// The part of the way to what was seen last that a pace goes.
const PACE_STEP: u64 = 4;

/// Looks over which what stages cost is summed up.
const COST_LOOKS: usize = 10;

/// Nanoseconds an event takes to be handed to another segment: it is packed, logged with the
/// others of its commit, queued and taken.
const HOP_NANOS: u64 = 600;

/// What a segment has done since its version began.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    arrived: u64,
    taken: u64,
    busy_micros: u64,
    /// What the partition has taken that took most.
    busiest: u64,
    waiting: u64,
    partitions: u64,
}

/// One segment.
#[derive(Debug, Default)]
struct Segment {
    seen: Seen,
    samples: VecDeque<Sample>,
    /// Events a second of a partition that is busy all the time, in thousandths; 0: not known.
    pace: RateMilli,
}

/// What stages did since their pipeline was first applied: fuel and events, by name; and how busy
/// segments were, by root.
#[derive(Debug, Clone, Default)]
struct Costs {
    at: Option<Instant>,
    stages: BTreeMap<String, (u64, u64)>,
    busy_micros: BTreeMap<String, u64>,
    busiest: BTreeMap<String, u64>,
}

/// Requests since the pipeline was first applied.
#[derive(Debug, Clone, Copy, Default)]
struct Door {
    taken: u64,
    refused: u64,
}

impl Door {
    fn of(metrics: &PipelineMetrics) -> Self {
        let partly = metrics.requests.get().into_iter().find(|(word, _)| *word == "partly");
        let taken = metrics.requests_accepted.get() + partly.map_or(0, |(_, count)| count);
        Self { taken, refused: metrics.refused.get() }
    }

    /// How much more would have come since `before`, in thousandths of what came.
    fn more_milli(self, before: Self) -> u64 {
        let refused = self.refused.saturating_sub(before.refused);
        refused.saturating_mul(1000) / self.taken.saturating_sub(before.taken).max(1)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Window {
    of: Weak<crate::running::PipelineShared>,
    looked: Option<Instant>,
    began: Option<Instant>,
    /// Where the partitions were: each node has counts of its own.
    places: Vec<Site>,
    door: Door,
    segments: BTreeMap<String, Segment>,
    costs: VecDeque<Costs>,
}

impl Window {
    /// Looks at a pipeline, and forgets what is older than `keep`.
    pub(super) fn look(
        &mut self,
        (running, elsewhere): (&Arc<Running>, &Elsewhere),
        now: Instant,
        keep: Duration,
    ) {
        let shared = running.shared_arc();
        let places: Vec<Site> = shared.sites.all().map(|(_, site)| site).collect();
        if !Weak::ptr_eq(&self.of, &Arc::downgrade(shared)) || self.places != places {
            self.of = Arc::downgrade(shared);
            self.places = places;
            self.looked = None;
            self.costs.clear();
        }
        let began = *self.began.get_or_insert(now);
        let elapsed = self.looked.replace(now).map(|before| now - before);
        let door = Door::of(running.metrics());
        let more_milli = door.more_milli(std::mem::replace(&mut self.door, door));
        let mut segments = std::mem::take(&mut self.segments);
        for mailboxes in running.mailboxes() {
            let Some(root) = mailboxes.first().map(|mailbox| mailbox.segment.root_name()) else {
                continue;
            };
            let mut segment = segments.remove(root).unwrap_or_default();
            let took = Took { elapsed, at_ms: super::millis(now - began), more_milli };
            let Some(seen) = Seen::of(mailboxes, elsewhere) else {
                // It left while others were asked: from the next look on it is known again.
                self.looked = None;
                continue;
            };
            segment.look(seen, took, keep);
            self.segments.insert(root.to_owned(), segment);
        }
        self.look_at_costs(running, now);
    }

    fn look_at_costs(&mut self, running: &Running, now: Instant) {
        let stage = |name: &String| {
            let metrics = running.metrics().stage(name);
            (name.clone(), (metrics.fuel.get(), metrics.events_in.get()))
        };
        let stages = running.pipeline().stages.iter().map(|one| stage(&one.name));
        let of_segments = |what: fn(&Seen) -> u64| {
            self.segments.iter().map(|(root, one)| (root.clone(), what(&one.seen))).collect()
        };
        let costs = Costs {
            at: Some(now),
            stages: stages.collect(),
            busy_micros: of_segments(|seen| seen.busy_micros),
            busiest: of_segments(|seen| seen.busiest),
        };
        self.costs.push_back(costs);
        if self.costs.len() > COST_LOOKS {
            self.costs.pop_front();
        }
    }

    /// What each segment needs.
    pub(super) fn decide(
        &self,
        partitions: u16,
        since_change_ms: u64,
        (bounds, policy): (Bounds, &Policy),
    ) -> impl Iterator<Item = Decision> {
        let scale = Scale { partitions: partitions.into(), instances: partitions.into() };
        self.segments.values().filter(|one| !one.samples.is_empty()).map(move |segment| {
            let mut window: Vec<Sample> = segment.samples.iter().copied().collect();
            if let Some(last) = window.last_mut() {
                last.arrived = segment.lately(|sample| sample.arrived);
                last.refused = segment.lately(|sample| sample.refused);
            }
            let measured = Measured {
                window: &window,
                instance_rate: segment.pace,
                active: scale,
                ordered: scale,
                since_change_ms,
                bounds,
            };
            decide(&measured, policy)
        })
    }

    /// Which stage is to be apart, if anything is to be said of it.
    pub(super) fn fuse(
        &self,
        running: &Running,
        since_change_ms: u64,
        policy: &fuse::Policy,
    ) -> Option<(Option<String>, fuse::Why)> {
        if self.costs.len() < COST_LOOKS {
            return None;
        }
        let (first, last) = (self.costs.front()?, self.costs.back()?);
        let apart = running.pipeline().scaling.as_ref().and_then(|own| own.apart.clone());
        let spent = Spent { first, last, pipeline: running.pipeline(), apart: apart.as_deref() };
        let mut decided = spent.segments().into_iter().filter_map(|stages| {
            let costs = spent.costs(&stages)?;
            let at = |name: &str| stages.iter().position(|stage| *stage == name);
            let measured = fuse::Measured {
                stages: &costs,
                busiest: spent.busiest(&stages)?,
                apart: apart.as_deref().and_then(at),
                since_change_ms,
            };
            let decision = fuse::decide(&measured, policy);
            Some((decision.apart.map(|at| stages[at].clone()), decision.why))
        });
        // One stage of a pipeline is apart at a time: the first that is worth it.
        let first = decided.next()?;
        match first.0 {
            Some(_) => Some(first),
            None => Some(decided.find(|(stage, _)| stage.is_some()).unwrap_or(first)),
        }
    }
}

/// A look at a pipeline.
#[derive(Debug, Clone, Copy)]
struct Took {
    /// Since the one before, if it was of the same version and scale, and all were where they are.
    elapsed: Option<Duration>,
    /// Since the first.
    at_ms: u64,
    /// What was refused meanwhile, in thousandths of what was taken.
    more_milli: u64,
}

impl Segment {
    fn look(&mut self, now: Seen, took: Took, keep: Duration) {
        let Took { elapsed, at_ms, more_milli } = took;
        let before = std::mem::replace(&mut self.seen, now);
        let Some(elapsed) = elapsed.filter(|elapsed| !elapsed.is_zero()) else { return };
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        let milli = |now: u64, before: u64| {
            now.saturating_sub(before).saturating_mul(1_000_000_000) / micros
        };
        let busy = now.busy_micros.saturating_sub(before.busy_micros);
        let taken = now.taken.saturating_sub(before.taken);
        if busy >= BUSY_MICROS_MIN && taken > 0 {
            let pace = taken.saturating_mul(1_000_000_000) / busy;
            self.pace = match self.pace {
                0 => pace,
                known => known - known / PACE_STEP + pace / PACE_STEP,
            };
        }
        let (arrived, handled) =
            (milli(now.arrived, before.arrived), milli(now.taken, before.taken));
        self.samples.push_back(Sample {
            at_ms,
            arrived,
            refused: arrived.max(handled).saturating_mul(more_milli) / 1000,
            handled,
            backlog: now.waiting,
            busy_milli: busy.saturating_mul(1000) / micros / now.partitions.max(1),
        });
        let keep = super::millis(keep);
        while self.samples.front().is_some_and(|first| at_ms - first.at_ms > keep) {
            self.samples.pop_front();
        }
    }

    /// What came a second, or was refused, over the last two looks: a request that just fell into
    /// the one or the other is no change of the rate.
    fn lately(&self, of: impl Fn(&Sample) -> RateMilli) -> RateMilli {
        let lately = self.samples.iter().rev().take(2).map(of);
        let (sum, count) = lately.fold((0, 0), |(sum, n), one| (one.saturating_add(sum), n + 1));
        sum / count.max(1)
    }
}

impl Seen {
    /// Of a segment, some partitions of which may be elsewhere; none if one of those is not known.
    fn of(mailboxes: &[Arc<Mailbox>], elsewhere: &Elsewhere) -> Option<Self> {
        let done = |mailbox: &Arc<Mailbox>| match mailbox.site() {
            Site::Here => Some(Done::of(mailbox)),
            Site::There(_) | Site::Between => {
                let place = (mailbox.segment.root_name().to_owned(), mailbox.partition);
                elsewhere.get(&place).copied()
            }
        };
        let all: Option<Vec<Done>> = mailboxes.iter().map(done).collect();
        Some(Self::sum(all?.into_iter()))
    }

    /// Of all partitions. Other nodes say what they like.
    fn sum(all: impl Iterator<Item = Done>) -> Self {
        all.fold(Self::default(), |sum, Done { arrived, taken, busy_micros, waiting }| Self {
            arrived: sum.arrived.saturating_add(arrived),
            taken: sum.taken.saturating_add(taken),
            busy_micros: sum.busy_micros.saturating_add(busy_micros),
            busiest: sum.busiest.max(taken),
            waiting: sum.waiting.saturating_add(waiting),
            partitions: sum.partitions + 1,
        })
    }
}

/// What was spent between two looks.
struct Spent<'a> {
    first: &'a Costs,
    last: &'a Costs,
    pipeline: &'a Pipeline,
    apart: Option<&'a str>,
}

impl Spent<'_> {
    /// The segments there would be if no stage were apart, of several stages, by their names: the
    /// one in which a stage is apart now, or all.
    fn segments(&self) -> Vec<Vec<String>> {
        let mut fused = self.pipeline.clone();
        if let Some(scaling) = &mut fused.scaling {
            scaling.apart = None;
        }
        let name = |stage: &usize| fused.stages[*stage].name.clone();
        let segments = segment::cut(&fused).segments.into_iter();
        let segments = segments.map(|one| one.stages.iter().map(name).collect::<Vec<_>>());
        let is_of_interest = |stages: &Vec<String>| {
            let has = self.apart.is_none_or(|apart| stages.iter().any(|stage| stage == apart));
            stages.len() > 1 && has
        };
        segments.filter(is_of_interest).collect()
    }

    /// What each of these stages costs for an event that enters the first.
    fn costs(&self, stages: &[String]) -> Option<Vec<fuse::StageCost>> {
        let since = |name: &String| {
            let (fuel, events) = self.last.stages.get(name)?;
            let (fuel_before, events_before) = self.first.stages.get(name)?;
            Some((fuel.saturating_sub(*fuel_before), events.saturating_sub(*events_before)))
        };
        let spent: Vec<(u64, u64)> = stages.iter().map(since).collect::<Option<_>>()?;
        let entered = spent.first().map_or(0, |(_, events)| *events).max(1);
        let fuel: u64 = spent.iter().map(|(fuel, _)| fuel).sum();
        let nanos = self.busy_micros(stages).saturating_mul(1000);
        let share = |part: u64| {
            u64::try_from(u128::from(nanos) * u128::from(part) / u128::from(fuel.max(1)))
                .unwrap_or(u64::MAX)
        };
        let costs = stages.iter().zip(&spent).map(|(name, (fuel, events))| fuse::StageCost {
            fed_by: self.feeder(name).and_then(|feeder| stages.iter().position(|s| *s == feeder)),
            own_nanos: share(*fuel) / entered,
            hop_nanos: events.saturating_mul(HOP_NANOS) / entered,
        });
        Some(costs.collect())
    }

    /// The stage that feeds this one, of which there is one inside a segment.
    fn feeder(&self, name: &str) -> Option<String> {
        let to = self.pipeline.stage_index(name)?;
        let edge = self.pipeline.edges.iter().find(|edge| edge.to == to)?;
        Some(self.pipeline.stages[edge.from].name.clone())
    }

    /// Time the segments of these stages took, by whichever of them is their root now.
    fn busy_micros(&self, stages: &[String]) -> u64 {
        let of = |costs: &Costs, name: &String| costs.busy_micros.get(name).copied().unwrap_or(0);
        let each =
            stages.iter().map(|name| of(self.last, name).saturating_sub(of(self.first, name)));
        each.sum()
    }

    /// Events a second that enter the busiest partition, in thousandths.
    fn busiest(&self, stages: &[String]) -> Option<RateMilli> {
        let root = stages.first()?;
        let taken = self.last.busiest.get(root)?.saturating_sub(*self.first.busiest.get(root)?);
        let micros = (self.last.at? - self.first.at?).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX).max(1);
        Some(taken.saturating_mul(1_000_000_000) / micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_elsewhere_count_whatever_their_node_says() {
        let done = |arrived, taken, waiting| Done { arrived, taken, busy_micros: 500_000, waiting };
        let mut segment = Segment::default();
        let mut look = |at_ms: u64, all: [Done; 2]| {
            let elapsed = (at_ms > 0).then_some(Duration::from_secs(1));
            let took = Took { elapsed, at_ms, more_milli: 500 };
            segment.look(Seen::sum(all.into_iter()), took, Duration::from_secs(60));
            segment.samples.back().copied()
        };
        assert_eq!(look(0, [done(100, 100, 0), done(900, 800, 100)]), None);
        let busy = Done { busy_micros: 1_500_000, ..done(1900, 1800, 100) };
        let sample = look(1000, [done(100, 100, 0), busy]).expect("a second has passed");
        let (arrived, refused, handled) = (1_000_000, 500_000, 1_000_000);
        let expected =
            Sample { at_ms: 1000, arrived, refused, handled, backlog: 100, busy_milli: 500 };
        assert_eq!(sample, expected);
        // Nonsense is no more than that.
        let most = done(u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(look(2000, [most, most]).map(|sample| sample.backlog), Some(u64::MAX));
        assert_eq!(look(3000, [done(0, 0, 0); 2]).map(|sample| sample.arrived), Some(0));
    }

    #[test]
    fn requests_that_were_refused_would_have_brought_what_others_did() {
        let before = Door { taken: 100, refused: 7 };
        let more = |taken, refused| Door { taken, refused }.more_milli(before);
        assert_eq!(more(200, 7), 0);
        assert_eq!(more(200, 57), 500, "one for two that were taken");
        assert_eq!(more(100, 9), 2000, "nobody was taken");
        assert_eq!(more(100, 7), 0);
        assert_eq!(more(50, 3), 0, "counts that begin anew");
    }
}
