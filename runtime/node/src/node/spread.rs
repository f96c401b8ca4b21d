//! The pipelines of a node of which it has some partitions, and others are elsewhere.

use std::sync::Arc;

use dashmap::DashMap;
use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_core::recovery::Folded;

use super::{Node, lock_of};
use crate::error::Error;
use crate::mailbox::gate::Gate;
use crate::moving::Copied;
use crate::plan::Flows;
use crate::running::Running;
use crate::scale::Scales;
use crate::spread::{Broken, Reports, Site, Trunks, Whereabouts};

impl Node {
    /// How pipelines scale.
    pub(crate) fn scales(&self) -> &Scales {
        &self.scales
    }

    /// How much partitions do.
    pub(crate) fn flows(&self) -> &Flows {
        &self.flows
    }

    /// The ways to other nodes.
    pub(crate) fn trunks(&self) -> &Arc<Trunks> {
        &self.spread.trunks
    }

    /// Held by whoever takes partitions of a pipeline in, or lets a part of it go: what has its
    /// name and what has its number waits, as other nodes may say one with another's.
    pub(crate) async fn joining(
        &self,
        (tenant, name): (&Name, &Name),
        id: Option<PipelineId>,
    ) -> impl Sized + use<> {
        let of_name = lock_of(&self.spread.joining, (tenant.clone(), name.clone()));
        let of_name = of_name.lock_owned().await;
        let of_number = match id {
            Some(id) => Some(lock_of(&self.spread.joining_number, id).lock_owned().await),
            None => None,
        };
        (of_name, of_number)
    }

    /// What was taken of partitions that are not here yet.
    pub(crate) fn copies(&self) -> &DashMap<PipelineId, Copied> {
        &self.spread.copies
    }

    /// A pipeline of which some partitions are elsewhere, or may be in a moment; or a part.
    pub(crate) fn spread(&self, id: PipelineId) -> Option<Arc<Running>> {
        self.spread.running.get(&id).map(|found| found.value().clone())
    }

    /// It is this that is found under the number.
    pub(crate) fn is_spread_as(&self, id: PipelineId, running: &Arc<Running>) -> bool {
        self.spread(id).is_some_and(|there| Arc::ptr_eq(&there, running))
    }

    /// A pipeline with this number that runs here, whole or in part.
    pub(crate) fn running_by_id(&self, id: PipelineId) -> Option<Arc<Running>> {
        let has_id = |running: &Arc<Running>| running.durable().is_some_and(|own| own.id == id);
        self.spread(id).or_else(|| self.all_running().into_iter().find(has_id))
    }

    /// Notes a part that the log has and that does not run; it does when the node is restarted.
    pub(crate) fn note_broken(&self, id: PipelineId, part: Broken) {
        self.spread.broken.insert(id, part);
    }

    /// A part with this number is in the log and does not run.
    pub(crate) fn is_broken(&self, id: PipelineId) -> bool {
        self.spread.broken.contains_key(&id)
    }

    /// Parts of the log that do not run.
    pub(crate) fn all_broken(&self) -> Vec<(PipelineId, Broken)> {
        let all = self.spread.broken.iter();
        all.map(|entry| (*entry.key(), entry.value().clone())).collect()
    }

    /// There is a part of this name, whether it runs or not. The log takes nothing else under it.
    pub(crate) fn has_part_named(&self, tenant: &Name, name: &Name) -> bool {
        let named = |part: &Broken| (&part.tenant, &part.name) == (tenant, name);
        !self.parts_named(tenant, name).is_empty()
            || self.all_broken().iter().any(|(_, part)| named(part))
    }

    /// The parts here of what has this name; there may be one of a pipeline that is gone.
    pub(crate) fn parts_named(&self, tenant: &Name, name: &Name) -> Vec<Arc<Running>> {
        let named = |running: &Arc<Running>| {
            running.is_part() && (running.tenant(), running.name()) == (tenant, name)
        };
        self.all_spread().into_iter().filter(named).collect()
    }

    /// Has the home of a part be asked where the others are.
    pub(crate) fn ask_where(&self, id: PipelineId, home: u16) {
        if self.part(id).is_some_and(|part| part.home() == home) {
            self.spread.whereabouts.ask(id);
        }
    }

    /// Has the home of a part be asked where the others are, whoever says that it may be news. Not
    /// at the home, which knows.
    pub(crate) fn ask_again_where(&self, id: PipelineId) {
        if self.part(id).is_some() {
            self.spread.whereabouts.ask(id);
        }
    }

    /// Which parts want to know where the others are.
    pub(crate) fn whereabouts(&self) -> &Whereabouts {
        &self.spread.whereabouts
    }

    /// All of them.
    pub(crate) fn all_spread(&self) -> Vec<Arc<Running>> {
        self.spread.running.iter().map(|entry| entry.value().clone()).collect()
    }

    /// What a part tells its home.
    pub(crate) fn part(&self, id: PipelineId) -> Option<Arc<Reports>> {
        self.spread.running.get(&id)?.shared().part.clone()
    }

    /// From now on messages of other nodes find it.
    pub(crate) fn keep_spread(&self, running: &Arc<Running>) {
        let Some(durable) = running.durable() else { return };
        let before = self.spread.running.insert(durable.id, running.clone());
        let is_new = before.is_none_or(|before| !Arc::ptr_eq(&before, running));
        let Some(reports) = running.shared().part.clone().filter(|_| is_new) else { return };
        if let Some(trunk) = self.spread.trunks.get(reports.home()) {
            trunk.want();
            let part = Arc::downgrade(running);
            drop(tokio::task::spawn_local(reports.run(part, trunk.clone())));
        }
    }

    /// It is gone.
    pub(crate) fn forget_spread(&self, id: PipelineId) {
        self.spread.broken.remove(&id);
        if let Some((_, running)) = self.spread.running.remove(&id)
            && let Some(reports) = &running.shared().part
        {
            reports.nudge();
        }
    }

    /// The peer that is the home of what the log has; none if it is here.
    ///
    /// # Errors
    /// There is no such node.
    pub(crate) fn home_of(&self, folded: &Folded) -> Result<Option<u16>, Error> {
        let Some(home) = folded.home() else { return Ok(None) };
        let unknown = || {
            let name = folded.name().to_string();
            let why = format!("its home is {home}, which is no node of cluster.nodes");
            Error::Conflict { what: "pipeline", name, why }
        };
        self.spread.trunks.number_of(home).map(Some).ok_or_else(unknown)
    }

    /// Puts the partitions of a pipeline where the log has them, before it runs. `coming` are those
    /// that are here and do not run yet.
    pub(crate) fn place_partitions(&self, running: &Running, folded: &Folded, coming: &[u16]) {
        let sites = &running.shared().sites;
        for (at, node) in folded.away() {
            let there = self.spread.trunks.number_of(node);
            if let Some(trunk) = there.and_then(|there| self.spread.trunks.get(there)) {
                trunk.want();
            } else {
                let (tenant, pipeline) = (running.tenant(), running.name());
                tracing::error!(%tenant, %pipeline, node, "a partition is at what is no node");
            }
            sites.set(*at, there.map_or(Site::Between, Site::There));
        }
        coming.iter().for_each(|at| sites.set(*at, Site::Between));
        folded.leaving().iter().for_each(|at| sites.set_leaving(*at, true));
        if !running.is_spread() {
            return;
        }
        for mailbox in running.mailboxes().iter().flatten() {
            let Some(durable) = mailbox.segment.durable.as_ref() else { continue };
            if mailbox.site() != Site::Here {
                continue;
            }
            let progress = folded.progress(&durable.ids(mailbox.partition));
            let mut gate = Gate::new(&progress.positions);
            // Those that wait here came in before.
            for waiting in folded.backlog(durable.root(), mailbox.partition) {
                gate.enter(waiting.run.source, waiting.run.seq);
            }
            *mailbox.gate() = Some(Box::new(gate));
        }
    }
}
