//! Scales pipelines with their load: how many partitions they have, and which stage is apart.
//!
//! ```text
//! counts of partitions ─► window ─► core/scaling ─► another scale, if any ─► deploy/rescale
//! ```
//!
//! - Only what the manifest lets scale is touched, while this node is its home and nothing else is
//!   done with it. Of partitions on other nodes these say what they have done; to another number
//!   all come home first, and go back where they were, as for a new version.
//! - A pipeline is taken to another scale as to another version: between two commits, with nothing
//!   lost or doubled. It is one change at a time for a tenant, and a few for the whole node, so
//!   that the pauses of many do not fall together, and none of them keeps others waiting.
//! - What cannot be done is tried again later and later, and said.
//!
//! What is decided is in `core/scaling`, how it is done in `deploy/rescale`.

mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sluicebox_core::ids::Name;
use sluicebox_core::pipeline::Scaling;
use sluicebox_core::scaling::{Bounds, Decision, Limit, Policy, Why, fuse};
use tokio::task::JoinHandle;

use crate::mailbox::load::Done;
use crate::mailbox::lock;
use crate::metrics::WorkerMetrics;
use crate::node::Node;
use crate::plan::report::Report;
use crate::running::Running;
use crate::spread::Site;
use window::{Elsewhere, Window};

/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);

/// The pause after a change that failed; each further one doubles it, up to the most.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Changes of one node that are under way at a time, each of another tenant.
const CHANGES_MAX: usize = 4;

/// A stage that was set apart, or came back, stays so for this many quiet whiles.
const HOLDS: u64 = 10;

/// Share of the node's workers that must be idle for a stage to be set apart: it is to run on one
/// of them. In thousandths of a worker.
const SPARE_MILLI: u64 = 300;

/// What partitions of a node have done in each segment, by root: by tenant and pipeline, then by
/// partition.
type Works = BTreeMap<(String, String), BTreeMap<u16, BTreeMap<String, Done>>>;

/// What nodes said in a look that were asked, or that they did not.
type Reports = BTreeMap<String, Option<Works>>;

/// What a scale is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scale {
    /// Partitions of each segment.
    pub(crate) partitions: u16,
    /// The stage that has a segment of its own.
    pub(crate) apart: Option<String>,
}

impl Scale {
    fn of(running: &Running) -> Self {
        let scaling = running.pipeline().scaling.as_ref();
        let apart = scaling.and_then(|scaling| scaling.apart.clone());
        Self { partitions: running.partitions(), apart }
    }
}

/// How a pipeline scales, for people who look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ScalingDetail {
    /// Fewest partitions.
    pub min: u16,
    /// Most partitions there may be now: the manifest's, or as many as there are workers.
    pub max: u16,
    /// Partitions there are.
    pub partitions: u16,
    /// The stage that has a segment of its own, since it costs so much.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub apart: Option<String>,
    /// Why it is so.
    pub why: String,
    /// How often it was changed since the node started.
    pub changes: u64,
    /// For how long it has been so, if it was changed since.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds: Option<u64>,
}

/// One pipeline.
#[derive(Debug, Default)]
struct Scaled {
    window: Window,
    why: String,
    changes: u64,
    changed: Option<Instant>,
    apart_changed: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
}

/// What is known of all that scale.
#[derive(Debug, Default)]
pub(crate) struct Scales(Mutex<BTreeMap<(Name, Name), Scaled>>);

/// How much of the node's workers is idle.
struct Spare {
    workers: Vec<Arc<WorkerMetrics>>,
    busy_micros: u64,
    looked: Instant,
}

impl Spare {
    fn new(node: &Node) -> Self {
        let count = u16::try_from(node.workers().len()).unwrap_or(u16::MAX);
        let workers: Vec<_> = (0..count).map(|number| node.metrics().worker(number)).collect();
        let busy_micros = workers.iter().map(|worker| worker.busy_micros.get()).sum();
        Self { workers, busy_micros, looked: Instant::now() }
    }

    /// Thousandths of a worker that had nothing to do since the last look.
    fn look(&mut self) -> u64 {
        let now = Instant::now();
        let micros = (now - std::mem::replace(&mut self.looked, now)).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX).max(1);
        let busy = self.workers.iter().map(|worker| worker.busy_micros.get()).sum();
        let spent = u64::saturating_sub(busy, std::mem::replace(&mut self.busy_micros, busy));
        let all = self.workers.len() as u64 * 1000;
        all.saturating_sub(spent.saturating_mul(1000) / micros)
    }
}

/// Changes that are under way, by tenant.
#[derive(Debug, Default)]
struct Changes(BTreeMap<Name, JoinHandle<()>>);

impl Changes {
    /// Begins one, unless its tenant has one or there are enough; the next look wants it again.
    fn begin(&mut self, tenant: &Name, change: impl Future<Output = ()> + 'static) {
        self.0.retain(|_, change| !change.is_finished());
        if self.0.len() < CHANGES_MAX && !self.0.contains_key(tenant) {
            self.0.insert(tenant.clone(), tokio::task::spawn_local(change));
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        // They end as what they are part of does, between two waits.
        self.0.values().for_each(JoinHandle::abort);
    }
}

/// Looks, for as long as the node runs.
pub(crate) async fn run(node: Arc<Node>) {
    let mut spare = Spare::new(&node);
    let mut changes = Changes::default();
    loop {
        tokio::time::sleep(LOOK).await;
        let spare_milli = spare.look();
        let mut said = Reports::new();
        for running in node.scalable() {
            let Some(elsewhere) = node.done_elsewhere(&running, &mut said).await else { continue };
            let wanted = node.scales().look(&node, (&running, &elsewhere), spare_milli);
            if let Some(wanted) = wanted {
                let (node, running) = (node.clone(), running.clone());
                let tenant = running.tenant().clone();
                changes.begin(&tenant, async move { node.take_to(&running, wanted).await });
            }
        }
        node.scales().forget(&node);
    }
}

impl Node {
    /// What the manifest lets scale and nothing keeps from it.
    fn scalable(&self) -> Vec<Arc<Running>> {
        let mut all = self.all_running();
        all.retain(|running| {
            let mut mailboxes = running.mailboxes().iter().flatten();
            let sites = &running.shared().sites;
            let moves = |(at, site)| site == Site::Between || sites.is_leaving(at);
            running.pipeline().scaling.is_some()
                && !sites.all().any(moves)
                && !running.is_paused()
                && !mailboxes.any(|mailbox| mailbox.halted().is_some() || mailbox.is_stopped())
        });
        all
    }

    /// What the partitions of a pipeline have done that are at other nodes; none if one of these
    /// does not say it.
    async fn done_elsewhere(&self, running: &Running, said: &mut Reports) -> Option<Elsewhere> {
        let (mut elsewhere, away) = (Elsewhere::new(), self.away(running));
        let mut unasked: BTreeSet<&String> = away.values().collect();
        unasked.retain(|node| !said.contains_key(*node));
        for node in unasked {
            said.insert(node.clone(), self.work_of(node).await);
        }
        let named = (running.tenant().to_string(), running.name().to_string());
        for (partition, node) in &away {
            let works = said.get(node)?.as_ref()?;
            let done = works.get(&named)?.get(partition)?;
            if done.is_empty() {
                // A node of before it could be asked.
                return None;
            }
            elsewhere.extend(done.iter().map(|(root, done)| ((root.clone(), *partition), *done)));
        }
        Some(elsewhere)
    }

    /// What another node does, if it can be asked.
    async fn work_of(&self, node: &str) -> Option<Works> {
        let mut peers = self.cluster()?.peers().iter();
        let peer = peers.find(|peer| peer.name().as_str() == node).filter(|peer| peer.is_up())?;
        peer.report().await.ok().map(works)
    }

    async fn take_to(self: &Arc<Self>, running: &Arc<Running>, wanted: Wanted) {
        let (tenant, pipeline) = (running.tenant(), running.name());
        let Wanted { scale, why } = wanted;
        let before = Scale::of(running);
        let began = Instant::now();
        let outcome = self.rescale(running, &scale).await;
        let took_ms = began.elapsed().as_millis() as u64;
        match &outcome {
            Ok(true) => {
                let (from, to) = (before.partitions, scale.partitions);
                let apart = scale.apart.as_deref().unwrap_or("-");
                running.metrics().rescales.inc();
                tracing::info!(%tenant, %pipeline, from, to, apart, why, took_ms, "scaled");
            }
            // Somebody has changed it meanwhile.
            Ok(false) => {}
            Err(error) => tracing::warn!(%tenant, %pipeline, %error, "not scaled"),
        }
        self.scales().note((tenant, pipeline), outcome.map_err(drop), (&before, &scale, why));
    }

    /// Partitions of which the tenant can have an instance of every stage at a time.
    fn instances_quota(&self, running: &Running) -> u32 {
        let free = running.shared().tenant.slots().instances.available_permits();
        let each = running.pipeline().stages.len().max(1);
        let more = u32::try_from(free / each).unwrap_or(u32::MAX);
        u32::from(running.partitions()).saturating_add(more)
    }

    /// How a pipeline scales, if it does.
    pub(crate) fn scaling_detail(&self, running: &Running) -> Option<ScalingDetail> {
        let scaling = running.pipeline().scaling.as_ref()?;
        let Scale { partitions, apart } = Scale::of(running);
        let (min, max) = (scaling.min, self.most_partitions(scaling));
        let mut detail = ScalingDetail {
            min,
            max,
            partitions,
            apart,
            why: "it was not looked at yet".to_owned(),
            changes: 0,
            seconds: None,
        };
        if self.may_gather(running).is_err() {
            detail.why =
                "a node with some of its partitions is away: their number stays".to_owned();
            return Some(detail);
        }
        let scales = lock(&self.scales().0);
        if let Some(known) = scales.get(&(running.tenant().clone(), running.name().clone())) {
            if !known.why.is_empty() {
                detail.why.clone_from(&known.why);
            }
            detail.changes = known.changes;
            detail.seconds = known.changed.map(|at| at.elapsed().as_secs());
        }
        Some(detail)
    }

    /// Partitions beyond the number of workers have nobody to run them; unless they can go to
    /// other nodes, more of them do no more.
    fn most_partitions(&self, scaling: &Scaling) -> u16 {
        let workers = u16::try_from(self.workers().len()).unwrap_or(u16::MAX);
        let may_go = self.cluster().is_some();
        let most = match scaling.max {
            Some(max) if may_go => max,
            Some(max) => max.min(workers),
            None => workers,
        };
        most.max(scaling.min)
    }
}

fn works(report: Report) -> Works {
    let pipelines = report.pipelines.into_iter().map(|one| {
        let here = one.here.into_iter().map(|at| (at.partition, at.done)).collect();
        ((one.tenant, one.name), here)
    });
    pipelines.collect()
}

/// What a pipeline is to be like, and why.
#[derive(Debug)]
struct Wanted {
    scale: Scale,
    why: &'static str,
}

impl Scales {
    /// Measures a pipeline, and says if it is to be another scale.
    fn look(
        &self,
        node: &Node,
        (running, elsewhere): (&Arc<Running>, &Elsewhere),
        spare_milli: u64,
    ) -> Option<Wanted> {
        let scaling = running.pipeline().scaling.as_ref()?;
        let mut all = lock(&self.0);
        let key = (running.tenant().clone(), running.name().clone());
        let known = all.entry(key).or_default();
        let now = Instant::now();
        let keep = Duration::from_millis(scaling.quiet_ms) + LOOK * 2;
        known.window.look((running, elsewhere), now, keep);
        let scale = Scale::of(running);
        let bounds = Bounds {
            floor: scaling.min.into(),
            ceiling: node.most_partitions(scaling).into(),
            instances_each: 1,
            quota: node.instances_quota(running),
        };
        let decision = known.partitions(scaling, (&scale, bounds), now)?;
        let why = words(decision);
        why.clone_into(&mut known.why);
        if known.not_before.is_some_and(|at| now < at) {
            return None;
        }
        let partitions = u16::try_from(decision.scale.partitions).unwrap_or(u16::MAX).max(1);
        if partitions != scale.partitions {
            return Some(Wanted { scale: Scale { partitions, ..scale }, why });
        }
        if !running.shared().sites.are_all_here() {
            // What stages cost on other nodes is not known.
            return None;
        }
        let apart = known.apart(running, (spare_milli, now));
        let (apart, why) = apart.filter(|(apart, _)| *apart != scale.apart)?;
        why.clone_into(&mut known.why);
        Some(Wanted { scale: Scale { apart, ..scale }, why })
    }

    fn note(
        &self,
        (tenant, pipeline): (&Name, &Name),
        outcome: Result<bool, ()>,
        (before, after, why): (&Scale, &Scale, &str),
    ) {
        let mut all = lock(&self.0);
        let Some(known) = all.get_mut(&(tenant.clone(), pipeline.clone())) else { return };
        let now = Instant::now();
        match outcome {
            Ok(true) => {
                known.changes += 1;
                known.changed = Some(now);
                if before.apart != after.apart {
                    known.apart_changed = Some(now);
                }
                known.failures = 0;
                why.clone_into(&mut known.why);
            }
            Ok(false) => {}
            Err(()) => {
                let pause = RETRY.saturating_mul(1 << known.failures.min(10)).min(RETRY_MAX);
                known.failures += 1;
                known.not_before = Some(now + pause);
                "a change could not be made; the node's log says why".clone_into(&mut known.why);
            }
        }
    }

    /// Forgets what does not run any more.
    fn forget(&self, node: &Node) {
        lock(&self.0).retain(|(tenant, pipeline), _| {
            let running = node.running(tenant, pipeline.as_str());
            running.is_some_and(|running| running.pipeline().scaling.is_some())
        });
    }
}

impl Scaled {
    /// Decides how many partitions there are to be: as many as the segment needs that needs most.
    fn partitions(
        &self,
        scaling: &Scaling,
        (scale, bounds): (&Scale, Bounds),
        now: Instant,
    ) -> Option<Decision> {
        let policy = Policy { quiet_ms: scaling.quiet_ms, ..Policy::default() };
        let since = self.changed.map_or(u64::MAX, |at| millis(now - at));
        let all = self.window.decide(scale.partitions, since, (bounds, &policy));
        all.max_by_key(|decision| decision.scale.partitions)
    }

    /// Decides which stage is apart, where that has to be decided.
    fn apart(
        &self,
        running: &Running,
        (spare_milli, now): (u64, Instant),
    ) -> Option<(Option<String>, &'static str)> {
        let scaling = running.pipeline().scaling.as_ref()?;
        let policy = fuse::Policy {
            hold_ms: scaling.quiet_ms.saturating_mul(HOLDS),
            ..fuse::Policy::default()
        };
        let since = self.apart_changed.map_or(u64::MAX, |at| millis(now - at));
        let (apart, why) = self.window.fuse(running, since, &policy)?;
        // Buffers go from stage to stage of a segment: nobody but its author takes one apart.
        let needs_gpu = |name: &String| {
            let mut stages = running.pipeline().stages.iter();
            stages.any(|stage| stage.name == *name && stage.grants.gpu.is_some())
        };
        if apart.as_ref().is_some_and(needs_gpu) {
            return None;
        }
        match (apart, why) {
            (Some(_), _) if spare_milli < SPARE_MILLI && scaling.apart.is_none() => None,
            (apart @ Some(_), _) => Some((apart, "it costs more than the rest of its segment")),
            (None, fuse::Why::Held) => None,
            (None, _) => Some((None, "its stages are better off together")),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Why, in words.
fn words(decision: Decision) -> &'static str {
    match (decision.limit, decision.why) {
        (Some(Limit::Ceiling), _) => "more would be needed; there are as many as there may be",
        (Some(Limit::Quota), _) => "more would be needed; the tenant's instances do not allow it",
        (None, Why::Fits | Why::Idle) => "it fits the rate",
        (None, Why::Rate) => "more comes than is good for fewer",
        (None, Why::Rising) => "the rate rises",
        (None, Why::Backlog) => "events wait",
        (None, Why::Quiet) => "less came for a while than more are for",
        (None, Why::Awake) => "its bounds are others",
        (None, Why::Unknown) => "events wait, and what a partition does is not known yet",
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_change_of_one_tenant_holds_up_no_other_and_there_are_few_at_a_time() {
        let begun = Rc::new(Cell::new(0));
        let name = |number: usize| Name::new(&format!("t{number}")).expect("a name");
        let change = |begun: &Rc<Cell<usize>>| {
            let (begun, (end, ended)) = (begun.clone(), oneshot::channel::<()>());
            let change = async move {
                begun.set(begun.get() + 1);
                drop(ended.await);
            };
            (end, change)
        };
        let others = async || {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        };
        let at_work = async {
            let (mut changes, mut ends) = (Changes::default(), Vec::new());
            for number in [0, 0, 1, 2, 3, 4] {
                let (end, change) = change(&begun);
                changes.begin(&name(number), change);
                ends.push(end);
            }
            others().await;
            assert_eq!(begun.get(), CHANGES_MAX, "one of each tenant, and not of all");
            drop(ends.remove(0));
            others().await;
            let (_end, change) = change(&begun);
            changes.begin(&name(4), change);
            others().await;
            assert_eq!(begun.get(), CHANGES_MAX + 1, "the next has its turn");
        };
        tokio::task::LocalSet::new().run_until(at_work).await;
    }
}
