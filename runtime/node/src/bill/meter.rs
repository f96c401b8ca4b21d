//! Measures what no commit says.
//!
//! - Bytes times time: what there is at a look, for the time since the look before. It is counted
//!   in whole KiB milliseconds; what is left over counts with the next look.
//! - Counters that only grow: what they grew by since the look before. One that is less than it was
//!   has begun anew. They are remembered as long as they are there, looked at or not: a pipeline
//!   that ends is no more among those that run, and is looked at a last time.
//! - What is here of several parts belongs to the smallest part that has all of it: state of a
//!   segment with several stages is the pipeline's own, GPU memory that no stage has the tenant's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sluicebox_core::bill::{Item, Used};
use sluicebox_core::codec::UsageLine;
use sluicebox_core::ids::Name;

use crate::gpu::{GPU_ITEMS, GpuUsed};
use crate::mailbox::Unlogged;
use crate::metrics::{HopWay, PipelineMetrics};
use crate::node::Node;
use crate::running::{Running, SegmentRuntime, StageRuntime};

/// Tenant, pipeline, stage.
type Of = (Name, Option<Name>, Option<Name>);

/// A counter: whose, of what, and which of those there were.
type Counter = (Of, Item, String);

/// Counters that each version has for itself: those of one that is over are there no more.
const BY_VERSION: [Item; 3] = [Item::BytesIn, Item::BytesOut, Item::BytesBetween];

/// What was measured and is not in the log.
#[derive(Debug, Default)]
struct Open {
    used: Used,
    /// Byte milliseconds that are no whole KiB millisecond, by item.
    left: BTreeMap<Item, u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Meter {
    open: BTreeMap<Of, Open>,
    /// Counters as they were.
    seen: BTreeMap<Counter, u64>,
    /// Those that had them, by tenant and pipeline: others under the same names begin anew.
    known: BTreeMap<(Name, Name), Weak<PipelineMetrics>>,
    /// Whatever was there at the last look.
    there: BTreeSet<Of>,
    last: Option<Instant>,
}

/// One look.
struct Look<'a> {
    open: &'a mut BTreeMap<Of, Open>,
    before: BTreeMap<Counter, u64>,
    seen: BTreeMap<Counter, u64>,
    known: &'a mut BTreeMap<(Name, Name), Weak<PipelineMetrics>>,
    looked: BTreeSet<(Name, Name)>,
    there: BTreeSet<Of>,
    millis: u64,
}

impl Meter {
    /// Measures once.
    pub(super) fn look(&mut self, node: &Node, now: Instant) {
        let millis = self.since(now);
        let mut look = self.begin(millis);
        let parts = node.all_spread().into_iter().filter(|running| running.is_part());
        for running in node.all_running().into_iter().chain(parts) {
            look.pipeline(&running);
            if let Some(durable) = running.durable() {
                let of = (running.tenant().clone(), Some(running.name().clone()), None);
                look.hold(of, Item::Disk, node.disk().of_pipeline(durable.id));
            }
        }
        look.gpu(node);
        let Look { before, seen, looked, there, .. } = look;
        self.end((before, looked), (seen, there));
    }

    fn begin(&mut self, millis: u64) -> Look<'_> {
        let before = std::mem::take(&mut self.seen);
        let (seen, there) = (BTreeMap::new(), BTreeSet::new());
        let (known, looked) = (&mut self.known, BTreeSet::new());
        Look { open: &mut self.open, before, seen, known, looked, there, millis }
    }

    /// Keeps of what was before what may be looked at once more.
    fn end(
        &mut self,
        (before, looked): (BTreeMap<Counter, u64>, BTreeSet<(Name, Name)>),
        (mut seen, there): (BTreeMap<Counter, u64>, BTreeSet<Of>),
    ) {
        self.known.retain(|_, known| known.strong_count() > 0);
        let is_known = |((tenant, pipeline, _), item, _): &Counter| {
            let named = pipeline.as_ref().map(|pipeline| (tenant.clone(), pipeline.clone()));
            let is_over =
                |named: &(Name, Name)| BY_VERSION.contains(item) && looked.contains(named);
            let is_there = |named: &(Name, Name)| self.known.contains_key(named) && !is_over(named);
            !GPU_ITEMS.contains(item) && named.as_ref().is_some_and(is_there)
        };
        for (counter, value) in before {
            if !seen.contains_key(&counter) && is_known(&counter) {
                seen.insert(counter, value);
            }
        }
        (self.seen, self.there) = (seen, there);
    }

    /// Measures what a pipeline did until its end, or until another version is in its place.
    pub(super) fn last_look(&mut self, running: &Running) {
        let mut look = self.begin(0);
        look.pipeline(running);
        let Look { mut before, seen, there, .. } = look;
        before.extend(seen);
        self.seen = before;
        self.there.extend(there);
    }

    /// Whole milliseconds since the last look; what is left of one counts with the next.
    fn since(&mut self, now: Instant) -> u64 {
        let last = *self.last.get_or_insert(now);
        let passed = now.saturating_duration_since(last);
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        self.last = Some(last + Duration::from_millis(millis));
        millis
    }

    /// True if something was done, and not only time went by.
    pub(super) fn has_work(&self) -> bool {
        const BY_TIME: [Item; 4] = [Item::Memory, Item::State, Item::Disk, Item::GpuMemory];
        let work = |open: &Open| {
            Item::ALL.into_iter().any(|item| !BY_TIME.contains(&item) && open.used.get(item) > 0)
        };
        self.open.values().any(work)
    }

    /// What is not in the log.
    pub(super) fn lines(&self) -> Vec<UsageLine> {
        let open = self.open.iter().filter(|(_, open)| !open.used.is_nothing());
        let line = |((tenant, pipeline, stage), open): (&Of, &Open)| UsageLine {
            tenant: tenant.clone(),
            pipeline: pipeline.clone(),
            stage: stage.clone(),
            used: open.used,
        };
        open.map(line).collect()
    }

    /// These lines are in the log.
    pub(super) fn written(&mut self, lines: &[UsageLine]) {
        for UsageLine { tenant, pipeline, stage, .. } in lines {
            let of = (tenant.clone(), pipeline.clone(), stage.clone());
            if let Some(open) = self.open.get_mut(&of) {
                open.used = Used::default();
            }
        }
    }

    /// Forgets what is not there any more and all written.
    pub(super) fn tidy(&mut self) {
        let there = &self.there;
        self.open.retain(|of, open| there.contains(of) || !open.used.is_nothing());
    }
}

impl Look<'_> {
    fn pipeline(&mut self, running: &Running) {
        let name = |text: &str| Name::new(text).ok();
        let (tenant, pipeline) = (running.tenant(), running.name());
        let of = |stage: Option<Name>| (tenant.clone(), Some(pipeline.clone()), stage);
        self.counters_of((tenant, pipeline), running.metrics());
        for mailboxes in running.mailboxes() {
            let Some(segment) = mailboxes.first().map(|mailbox| mailbox.segment.clone()) else {
                continue;
            };
            let bytes = mailboxes.iter().map(|mailbox| mailbox.state_bytes.load(Ordering::Relaxed));
            let alone = if segment.stages.len() == 1 { name(segment.root_name()) } else { None };
            self.hold(of(alone), Item::State, bytes.map(|bytes| bytes as u64).sum());
            for stage in &segment.stages {
                self.hold(of(name(&stage.name)), Item::Memory, memory_of(stage));
            }
            if running.durable().is_none() {
                self.unlogged(running, &segment, &of);
                let sum = |way| mailboxes.iter().map(|m| m.load.unlogged_bytes(way)).sum::<u64>();
                // Each version has its own, and so has one that goes on after all.
                let which = segment.stages.first().map_or(0, |stage| stage.uid).to_string();
                self.count((of(None), Item::BytesIn, which.clone()), sum(Unlogged::In));
                let root = || of(name(segment.root_name()));
                self.count((root(), Item::BytesOut, which.clone()), sum(Unlogged::Out));
                self.count((root(), Item::BytesBetween, which), sum(Unlogged::Between));
            }
        }
        for hop in running.metrics().hops() {
            for (way, item) in
                [(HopWay::Ring, Item::LinkMemory), (HopWay::Network, Item::LinkNetwork)]
            {
                let counter = (of(name(&hop.from)), item, hop.to.clone());
                self.count(counter, hop.way(way).bytes.get());
            }
        }
    }

    /// Whose counters a pipeline of this name has now.
    fn counters_of(&mut self, (tenant, pipeline): (&Name, &Name), metrics: &Arc<PipelineMetrics>) {
        let named = (tenant.clone(), pipeline.clone());
        let is_other = |known: &Weak<PipelineMetrics>| known.as_ptr() != Arc::as_ptr(metrics);
        if self.known.get(&named).is_some_and(is_other) {
            self.before.retain(|((of, name, _), item, _), _| {
                GPU_ITEMS.contains(item) || of != tenant || name.as_ref() != Some(pipeline)
            });
        }
        self.known.insert(named.clone(), Arc::downgrade(metrics));
        self.looked.insert(named);
    }

    /// What stages of a pipeline without a log did.
    fn unlogged(
        &mut self,
        running: &Running,
        segment: &SegmentRuntime,
        of: &impl Fn(Option<Name>) -> Of,
    ) {
        for stage in &segment.stages {
            let metrics = running.metrics().stage(&stage.name);
            let rows = [
                (Item::Fuel, metrics.fuel.get()),
                (Item::Events, metrics.taken.get()),
                (Item::Reruns, metrics.taken_back.get()),
            ];
            for (item, now) in rows {
                self.count((of(Name::new(&stage.name).ok()), item, String::new()), now);
            }
        }
    }

    /// A tenant's share of a GPU: what is of no stage is its own.
    fn gpu(&mut self, node: &Node) {
        for GpuUsed { tenant, stages, all } in node.gpus().billed() {
            let mut of_stages = [0_u64; 3];
            for (number, pipeline, stage, used) in stages {
                let of = (tenant.clone(), Name::new(&pipeline).ok(), Name::new(&stage).ok());
                for ((item, now), sum) in GPU_ITEMS.into_iter().zip(used).zip(&mut of_stages) {
                    let grew = self.grew((of.clone(), item, number.to_string()), now);
                    *sum = sum.saturating_add(grew);
                    self.add(of.clone(), item, grew);
                }
            }
            let of = (tenant, None, None);
            for ((item, now), sum) in GPU_ITEMS.into_iter().zip(all).zip(of_stages) {
                let grew = self.grew((of.clone(), item, String::new()), now);
                self.add(of.clone(), item, grew.saturating_sub(sum));
            }
        }
    }

    /// So many bytes are held.
    fn hold(&mut self, of: Of, item: Item, bytes: u64) {
        self.there.insert(of.clone());
        let open = self.open.entry(of).or_default();
        let left = open.left.entry(item).or_default();
        let all = u128::from(bytes) * u128::from(self.millis) + u128::from(*left);
        *left = (all % 1024) as u64;
        open.used.more(item, u64::try_from(all / 1024).unwrap_or(u64::MAX));
    }

    /// A counter stands here now.
    fn count(&mut self, counter: Counter, now: u64) {
        let (of, item) = (counter.0.clone(), counter.1);
        let grew = self.grew(counter, now);
        self.add(of, item, grew);
    }

    fn add(&mut self, of: Of, item: Item, amount: u64) {
        self.there.insert(of.clone());
        if amount > 0 {
            self.open.entry(of).or_default().used.more(item, amount);
        }
    }

    /// By how much a counter grew.
    fn grew(&mut self, counter: Counter, now: u64) -> u64 {
        let before = self.before.get(&counter).copied().unwrap_or(0);
        self.seen.insert(counter, now);
        now.checked_sub(before).unwrap_or(now)
    }
}

/// Bytes of all instances of a stage, those of older code included.
fn memory_of(stage: &StageRuntime) -> u64 {
    let before = stage.codes.before.iter().map(|before| &before.code.1);
    before.chain([&stage.settings]).map(|all| all.memory.load(Ordering::Relaxed)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn of(stage: &str) -> Of {
        let name = |text: &str| Name::new(text).expect("a name");
        (name("acme"), Some(name("orders")), Some(name(stage)))
    }

    /// One look of so many milliseconds.
    fn look(meter: &mut Meter, millis: u64, with: impl FnOnce(&mut Look<'_>)) {
        let mut look = meter.begin(millis);
        with(&mut look);
        let Look { before, seen, looked, there, .. } = look;
        meter.end((before, looked), (seen, there));
    }

    #[test]
    fn bytes_times_time_lose_nothing_between_looks() {
        let mut meter = Meter::default();
        // 1,000 looks of 7 milliseconds at 100 bytes: 700,000 byte milliseconds.
        for at in 0..1000 {
            look(&mut meter, 7, |look| look.hold(of("count"), Item::Memory, 100));
            if at % 100 == 0 {
                let lines = meter.lines();
                meter.written(&lines);
                meter.tidy();
            }
        }
        let mut all = 0;
        look(&mut meter, 0, |look| look.hold(of("count"), Item::Memory, 0));
        all += meter.lines().iter().map(|line| line.used.get(Item::Memory)).sum::<u64>();
        let left = meter.open.values().flat_map(|open| open.left.values()).sum::<u64>();
        // What was written before the last hundred looks: as much as the sum lacks.
        let since = 99 * 700 + meter_left_at_900();
        assert_eq!(all * 1024 + left, since);
    }

    /// What was left over behind look 900, which is the 901st.
    fn meter_left_at_900() -> u64 {
        901 * 700 % 1024
    }

    #[test]
    fn a_counter_that_is_less_has_begun_anew() {
        let mut meter = Meter::default();
        let counter = || (of("count"), Item::Fuel, String::new());
        for now in [10, 25, 25, 4] {
            look(&mut meter, 1, |look| look.count(counter(), now));
        }
        let fuel =
            |meter: &Meter| meter.lines().iter().map(|l| l.used.get(Item::Fuel)).sum::<u64>();
        assert_eq!(fuel(&meter), 25 + 4);
        assert!(meter.has_work());
        let lines = meter.lines();
        meter.written(&lines);
        assert_eq!((fuel(&meter), meter.has_work()), (0, false));
        look(&mut meter, 1, |_| {});
        meter.tidy();
        assert!(meter.open.is_empty() && meter.seen.is_empty(), "what is gone is forgotten");
    }

    #[test]
    fn counters_that_are_there_are_remembered_and_others_of_the_name_begin_anew() {
        let metrics = Metrics::new();
        let (tenant, pipeline) = (of("count").0, of("count").1.expect("a pipeline"));
        let mut meter = Meter::default();
        let counted = |meter: &mut Meter, own: &Arc<PipelineMetrics>, now| {
            look(meter, 1, |look| {
                look.counters_of((&tenant, &pipeline), own);
                look.count((of("count"), Item::Fuel, String::new()), now);
            });
            meter.lines().iter().map(|line| line.used.get(Item::Fuel)).sum::<u64>()
        };
        let own = metrics.pipeline(&tenant, &pipeline);
        assert_eq!(counted(&mut meter, &own, 10), 10);
        // It ends, and is not among those that run any more.
        look(&mut meter, 1, |_| {});
        assert_eq!(counted(&mut meter, &own, 15), 15, "nothing is counted twice");
        // What a version has for itself goes with it; what a stage has stays, which may come back.
        let of_version = |which: &str| (of("count"), Item::BytesIn, which.to_owned());
        for which in ["1", "2"] {
            look(&mut meter, 1, |look| {
                look.counters_of((&tenant, &pipeline), &own);
                look.count(of_version(which), 7);
            });
        }
        assert!(!meter.seen.contains_key(&of_version("1")));
        assert_eq!(meter.seen.get(&of_version("2")), Some(&7));
        assert_eq!(meter.seen.get(&(of("count"), Item::Fuel, String::new())), Some(&15));
        drop(own);
        let other = metrics.pipeline(&tenant, &pipeline);
        assert_eq!(counted(&mut meter, &other, 100), 115, "it is more than there was, and other");
        drop(other);
        look(&mut meter, 1, |_| {});
        assert!(meter.seen.is_empty() && meter.known.is_empty());
    }

    #[test]
    fn parts_of_milliseconds_count_with_the_next_look() {
        let mut meter = Meter::default();
        let begin = Instant::now();
        assert_eq!(meter.since(begin), 0);
        let micros = |n| begin + Duration::from_micros(n);
        assert_eq!([1500, 2900, 3100].map(|n| meter.since(micros(n))), [1, 1, 1]);
    }
}
