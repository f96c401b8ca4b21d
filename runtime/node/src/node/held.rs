//! What this node has, for the other nodes of its cluster.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_link::tls::NodeName;

use super::Node;
use crate::cluster::held::{Held, State};
use crate::cluster::{Cluster, Peer, Subject};
use crate::error::Error;
use crate::moving::{Gone, Leaving};

/// How long requests for a pipeline that has gone are passed on, and it is told as being here:
/// others ask more often, so that each knows the other node before it forgets this one.
const MOVED_KEPT: Duration = Duration::from_secs(10);

impl Node {
    /// The nodes this one works with, if it is not alone.
    pub(crate) fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// How long ago it was started.
    pub(crate) fn age(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_nanos(self.began))
    }

    /// Something is on this node. `is_isolated` says whether its tenant has a process of its own.
    pub(crate) fn holds(&self, subject: &Subject, is_isolated: bool) -> bool {
        match subject {
            Subject::Tenant(tenant) if is_isolated => self.front.has(tenant),
            Subject::Tenant(tenant) => self.components.has_any(tenant),
            Subject::Pipeline(tenant, pipeline) => {
                let named = (tenant.clone(), pipeline.clone());
                self.running.contains_key(&named)
                    || self.dormant.contains_key(&named)
                    || self.leaving.contains_key(&named)
                    || self.names_held.contains_key(&named)
            }
        }
    }

    /// The number of a pipeline that is in the log and could not be started.
    pub(crate) fn dormant(&self, tenant: &Name, name: &Name) -> Option<PipelineId> {
        self.dormant.get(&(tenant.clone(), name.clone())).map(|id| *id)
    }

    /// A pipeline of this number is in the log and could not be started.
    pub(crate) fn is_dormant(&self, id: PipelineId) -> bool {
        self.dormant.iter().any(|entry| *entry.value() == id)
    }

    /// Notes that a pipeline of the log could not be started, or is not there any more.
    pub(crate) fn set_dormant(&self, tenant: &Name, name: &Name, id: Option<PipelineId>) {
        let named = (tenant.clone(), name.clone());
        match id {
            Some(id) => drop(self.dormant.insert(named, id)),
            None => drop(self.dormant.remove(&named)),
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Keeps a name taken for as long as what is given lives.
    pub(crate) fn hold_name(self: &Arc<Self>, tenant: &Name, name: &Name) -> NameHeld {
        self.take_name(tenant, name, true);
        NameHeld { node: self.clone(), named: (tenant.clone(), name.clone()) }
    }

    /// Keeps a name taken until something runs under it.
    pub(crate) fn keep_name(&self, tenant: &Name, name: &Name) {
        self.take_name(tenant, name, false);
    }

    fn take_name(&self, tenant: &Name, name: &Name, passes: bool) {
        self.names_held.insert((tenant.clone(), name.clone()), passes);
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Pipelines that are going to other nodes.
    pub(crate) fn leaving(&self) -> &DashMap<(Name, Name), Leaving> {
        &self.leaving
    }

    /// Notes that a pipeline has gone to a node; others learn of it in a moment.
    pub(crate) fn set_moved(&self, tenant: &Name, name: &Name, to: &Peer) {
        self.moved.retain(|named, gone| self.counts(named, gone));
        let gone = Gone { to: to.name().clone(), since: Instant::now() };
        self.moved.insert((tenant.clone(), name.clone()), gone);
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Others may not know yet where it has gone; and neither does this node, before the other one
    /// has said itself that it has it.
    fn counts(&self, (tenant, name): &(Name, Name), gone: &Gone) -> bool {
        let said = || {
            let subject = Subject::Pipeline(tenant.clone(), name.clone());
            self.peer(&gone.to).is_some_and(|peer| peer.has(&subject))
        };
        gone.since.elapsed() < MOVED_KEPT || !said()
    }

    /// Where a pipeline has gone a moment ago.
    pub(crate) fn moved_to(&self, subject: &Subject) -> Option<Arc<Peer>> {
        let named = (subject.tenant().clone(), subject.pipeline()?.clone());
        let gone = self.moved.get(&named).map(|gone| gone.clone())?;
        if self.counts(&named, &gone) {
            return self.peer(&gone.to);
        }
        self.moved.remove(&named);
        None
    }

    /// Another node, by its name.
    pub(crate) fn peer(&self, name: &NodeName) -> Option<Arc<Peer>> {
        let peers = self.cluster.as_ref()?.peers();
        peers.iter().find(|peer| peer.name() == name).cloned()
    }

    /// The node a pipeline is on its way to, or has just gone to; this one, if it comes here or is
    /// just being deleted.
    pub(crate) fn passes_to(&self, subject: &Subject) -> Option<NodeName> {
        let named = (subject.tenant().clone(), subject.pipeline()?.clone());
        let passes = self.names_held.get(&named).is_some_and(|passes| *passes);
        let own = self.cluster().filter(|_| passes).map(|own| own.name().clone());
        let moved = || self.moved_to(subject).map(|peer| peer.name().clone());
        self.leaving_to(subject).or(own).or_else(moved)
    }

    /// What is said of a pipeline that does not run here: there is none, or it has just gone
    /// elsewhere, as who waited for it to go on finds out.
    pub(crate) fn no_pipeline(&self, tenant: &Name, name: &str) -> Error {
        let gone = Name::new(name).ok().and_then(|pipeline| {
            let subject = Subject::Pipeline(tenant.clone(), pipeline);
            self.passes_to(&subject)
        });
        gone.map_or_else(|| Error::not_found("pipeline", name), |to| Error::on_its_way(&to))
    }

    /// The node a pipeline is on its way to, from here.
    pub(crate) fn leaving_to(&self, subject: &Subject) -> Option<NodeName> {
        let named = (subject.tenant().clone(), subject.pipeline()?.clone());
        self.leaving.get(&named).filter(|leaving| leaving.is_gone).map(|it| it.to.clone())
    }

    /// Goes on with a move that was under way when the node was last stopped.
    pub(crate) fn go_on_leaving(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        (id, to): (PipelineId, &str),
    ) {
        let named = (tenant.clone(), name.clone());
        let Ok(to) = NodeName::new(to) else {
            tracing::error!(%tenant, pipeline = %name, to, "is going to what is no node");
            self.set_dormant(tenant, name, Some(id));
            return;
        };
        self.leaving.insert(named.clone(), Leaving { id, to, is_gone: true });
        drop(tokio::task::spawn_local(Arc::clone(self).end_move(named, None)));
    }

    /// How this node is. What it has is left out if it is what `seen` stands for.
    pub(crate) fn state(&self, seen: &str) -> State {
        let mut tag = String::new();
        let changes = [self.changes.load(Ordering::Acquire), self.components.changes()];
        let moved = self.moved.iter().filter(|entry| self.counts(entry.key(), entry));
        let moved = moved.count() as u64;
        let changes = changes.into_iter().chain([self.front.changes(), moved]);
        for count in [self.began].into_iter().chain(changes) {
            // Writing to memory does not fail.
            let _written = write!(tag, "{count:x}x");
        }
        let nodes = self.cluster.as_ref().map_or_else(String::new, |c| c.list().to_owned());
        let held = (seen != tag).then(|| self.held());
        let host = self.config().cluster.host.as_ref().map(ToString::to_string);
        State { nodes, ready: self.has_started(), host, tag, held }
    }

    fn held(&self) -> Held {
        let running = self.running.iter().map(|entry| entry.key().clone());
        let dormant = self.dormant.iter().map(|entry| entry.key().clone());
        let leaving = self.leaving.iter().map(|entry| entry.key().clone());
        let others = self.names_held.iter().map(|entry| entry.key().clone());
        let moved = self.moved.iter().filter(|entry| self.counts(entry.key(), entry));
        let others = others.chain(moved.map(|entry| entry.key().clone()));
        let text = |(tenant, name): (_, _)| (format!("{tenant}"), format!("{name}"));
        let set = self.tenants.current();
        let isolated = set
            .iter()
            .map(|tenant| &tenant.name)
            .filter(|tenant| self.front.isolates(&self.tenants, tenant) && self.front.has(tenant));
        let mut tenants = self.components.tenants();
        tenants.retain(|tenant| !self.front.isolates(&self.tenants, tenant));
        Held {
            tenants: tenants.iter().chain(isolated).map(ToString::to_string).collect(),
            pipelines: running.chain(dormant).chain(leaving).chain(others).map(text).collect(),
        }
    }
}

/// A name nothing else may be made under.
#[derive(Debug)]
pub(crate) struct NameHeld {
    node: Arc<Node>,
    named: (Name, Name),
}

impl Drop for NameHeld {
    fn drop(&mut self) {
        self.node.names_held.remove(&self.named);
        self.node.changes.fetch_add(1, Ordering::AcqRel);
    }
}
