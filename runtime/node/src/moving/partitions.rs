//! Some partitions of a pipeline move: from its home to another node, or back.
//!
//! ```text
//! source:  take, changes ─► stand still ─► log LEAVE ─► forward ─► join ─► log RELEASE
//! target:  their state in the store                          log JOIN, run
//! ```
//!
//! - Their state is copied while they run, and so is what they change meanwhile (`follow`); the
//!   rest comes with the record JOIN.
//! - Only the partitions that move stand still; what is for them waits where it is queued, and is
//!   forwarded from there. The others go on.
//! - Up to the record LEAVE the partitions are the source's. From there on it refuses them and
//!   keeps what it has; from the record JOIN on they are the target's; then the source lets go,
//!   with the record RELEASE. A source that is started again between the two asks the target to
//!   join until it has.
//! - All of it is ordered by the home, one move at a time for each pipeline; what is on its way
//!   neither comes back nor goes on. Partitions go from one other node to a third by way of the
//!   home.
//! - What partitions sent is nowhere but where they are: before they leave, what they have sent to
//!   other nodes is consumed there, and what waits here is consumed before its reader leaves. So
//!   nothing they send later comes before it, whoever moves next.
//! - Other nodes that have partitions of the pipeline are told that some moved, and ask the home
//!   where they are; until they know they send to where they were, and are told: later.
//!
//! `leave` is the source (`stand`: how they come to rest; `follow`: what they change meanwhile),
//! `take` and `join` the target (`states`: what they go on with), `groups` what goes over, `ends`
//! how parts end, `gather` brings all home for a new version. Why it is so is in ADRs 0039 and
//! 0045.

mod ends;
mod follow;
mod gather;
pub(super) mod groups;
pub(super) mod join;
mod leave;
mod stand;
mod states;
pub(super) mod take;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use serde::{Deserialize, Serialize};
use sluicebox_core::codec::{LeaveRecord, RecordWriter, kind};
use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_core::message::Message;
use sluicebox_core::pipeline::Scope;

use super::Moved;
use super::depart::refused;
use crate::error::Error;
use crate::node::Node;
use crate::running::Running;
use crate::spread::Site;
use stand::until_settled;

/// How long it is waited until nobody takes partitions of a pipeline in.
const TURN_MAX: Duration = Duration::from_millis(200);

/// What may come on top of where partitions stand, until the record is written that they came.
pub(crate) const KEPT_MORE_BYTES: usize = 64 << 10;

/// What a node is told that is to run partitions from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Joining {
    pub(crate) pipeline: u64,
    pub(crate) partitions: Vec<u16>,
    /// Which attempt of the source it is.
    pub(crate) attempt: u64,
    /// The home; none if that is who is told.
    pub(crate) home: Option<String>,
    /// Where the pipeline stands at the source.
    #[serde(skip)]
    pub(crate) kept: Bytes,
    /// What the partitions changed since their state was taken.
    #[serde(skip)]
    pub(crate) changed: Bytes,
}

impl Joining {
    /// In bytes: JSON behind its length, where the pipeline stands behind its length, and the rest.
    ///
    /// # Errors
    /// None that is not our bug.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let head = serde_json::to_vec(self);
        let head = head.map_err(|error| Error::Internal(format!("a question: {error}")))?;
        let mut bytes = Vec::new();
        for part in [&head[..], &self.kept] {
            bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(&self.changed);
        Ok(bytes)
    }

    /// From such bytes; none if they are not.
    pub(crate) fn from_bytes(bytes: &Bytes) -> Option<Self> {
        let mut rest = bytes.clone();
        let mut part = || {
            let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
            rest.advance(size_of::<u32>());
            (length <= rest.len()).then(|| rest.split_to(length))
        };
        let (head, kept) = (part()?, part()?);
        let joining: Self = serde_json::from_slice(&head).ok()?;
        Some(Self { kept, changed: rest, ..joining })
    }
}

/// Where partitions of a pipeline are, as its home says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Placed {
    /// Those that are not at the home, with their nodes.
    pub(crate) away: BTreeMap<u16, String>,
}

impl Node {
    /// Moves partitions of a pipeline, whose home is here, to a node. To be run to its end.
    ///
    /// # Errors
    /// They cannot be moved, and are where they were; or, if the message says so, they are on their
    /// way, and go on by themselves.
    pub async fn move_partitions(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        partitions: &BTreeSet<u16>,
        to: &str,
    ) -> Result<Moved, Error> {
        let turn = self.deploying(tenant, name);
        let _turn = turn.lock().await;
        let running = self.running(tenant, name.as_str());
        let running = running.ok_or_else(|| self.no_pipeline(tenant, name.as_str()))?;
        self.move_in_turn(&running, partitions, to).await
    }

    /// The same, for who has the pipeline's turn.
    async fn move_in_turn(
        self: &Arc<Self>,
        running: &Arc<Running>,
        partitions: &BTreeSet<u16>,
        to: &str,
    ) -> Result<Moved, Error> {
        let (tenant, name) = (running.tenant(), running.name());
        self.may_spread(running, partitions)?;
        until_settled(running, &partitions.iter().copied().collect::<Vec<u16>>()).await?;
        let own = self.cluster().map_or_else(String::new, |own| own.name().to_string());
        let target = if to == own { None } else { Some(self.destination(name, to)?) };
        let number = target.as_ref().and_then(|peer| self.trunks().number_of(peer.name().as_str()));
        let mut pause = Duration::ZERO;
        for (there, partitions) in elsewhere(running, partitions, number) {
            pause = pause.max(self.call_back(running, (there, &partitions)).await?);
            // Those that come next may have sent them something, and wait until it has arrived.
            self.say_all_moved(running);
        }
        if let Some(peer) = &target {
            let here: Vec<u16> = partitions
                .iter()
                .copied()
                .filter(|at| running.shared().sites.of(*at) == Site::Here)
                .collect();
            if !here.is_empty() {
                let preparing = self.preparing(tenant, name).await?;
                let id = id_of(running)?;
                peer.prepare_part((tenant, name), (id, &preparing)).await?;
                let took = self.send_partitions(running, (&here, peer), preparing).await;
                self.say_all_moved(running);
                pause = pause.max(took?);
            }
        }
        Ok(Moved {
            name: name.to_string(),
            from: own,
            to: to.to_owned(),
            partitions: partitions.iter().copied().collect(),
            pause_millis: pause.as_millis() as u64,
        })
    }

    /// The partitions that come back if a pipeline whose home is here is moved to here; none if
    /// that is not what is asked for.
    pub(crate) fn coming_home(
        &self,
        (tenant, name): (&Name, &Name),
        to: &str,
    ) -> Option<BTreeSet<u16>> {
        let own = self.cluster()?.name();
        let running = self.running(tenant, name.as_str()).filter(|_| own.as_str() == to)?;
        let away: BTreeSet<u16> = self.away(&running).into_keys().collect();
        (!away.is_empty()).then_some(away)
    }

    /// Refuses what cannot be on several nodes.
    fn may_spread(&self, running: &Running, partitions: &BTreeSet<u16>) -> Result<(), Error> {
        let name = running.name();
        if let Some(last) = partitions.last().filter(|last| **last >= running.partitions()) {
            let message = format!(
                "`partitions` are numbers below {}, and {last} is not",
                running.partitions()
            );
            return Err(Error::request("request.query", message));
        }
        match why_in_one_place(running) {
            Some(why) => Err(refused(name, &why)),
            None => Ok(()),
        }
    }

    /// Gets partitions back from a peer.
    async fn call_back(
        self: &Arc<Self>,
        running: &Arc<Running>,
        (from, partitions): (u16, &[u16]),
    ) -> Result<Duration, Error> {
        let trunk = self.trunks().get(from);
        let peer = trunk.map(|trunk| trunk.peer().clone());
        let unknown = || Error::Internal("a partition is at no peer".to_owned());
        let peer = peer.ok_or_else(unknown)?;
        if !peer.is_up() {
            return Err(peer.unreachable(false));
        }
        let named = (running.tenant(), running.name());
        let millis = peer.give_back(named, (id_of(running)?, partitions)).await?;
        Ok(Duration::from_millis(millis))
    }

    /// Has the other nodes with partitions of a pipeline ask where all are.
    pub(crate) fn say_all_moved(&self, running: &Running) {
        let peers: BTreeSet<u16> = running.shared().sites.all().filter_map(peer_of).collect();
        peers.into_iter().for_each(|peer| self.say_moved(running, peer));
    }

    /// Has a node ask where the partitions of a pipeline are, whose home is here. If there is no
    /// link it does so with the next.
    pub(crate) fn say_moved(&self, running: &Running, peer: u16) {
        if let (Ok(pipeline), Some(trunk)) = (id_of(running), self.trunks().get(peer)) {
            trunk.say(&Message::Moved { pipeline });
        }
    }

    /// Where the partitions are of a pipeline whose home is here; none if there is none.
    pub(crate) fn placed(&self, id: PipelineId) -> Option<Placed> {
        let running = self.running_by_id(id).filter(|running| !running.is_part())?;
        Some(Placed { away: self.away(&running) })
    }

    /// The partitions of a pipeline that are at other nodes.
    pub(crate) fn away(&self, running: &Running) -> BTreeMap<u16, String> {
        let name = |(at, site)| match site {
            Site::There(peer) => Some((at, self.trunks().get(peer)?.peer().name().to_string())),
            Site::Here | Site::Between => None,
        };
        running.shared().sites.all().filter_map(name).collect()
    }

    /// Notes where the home says that partitions are which are not here.
    ///
    /// # Errors
    /// The log fails.
    pub(crate) async fn note_where(
        &self,
        (from, id): (u16, PipelineId),
        placed: &Placed,
    ) -> Result<(), Error> {
        let Some(running) = self.spread(id) else { return Ok(()) };
        let joining = self.joining((running.tenant(), running.name()), Some(id));
        // Some of it may be coming, which takes its time: then it is asked again.
        let Ok(_one_at_a_time) = tokio::time::timeout(TURN_MAX, joining).await else {
            return Err(refused(running.name(), "partitions of it are coming"));
        };
        if !self.is_spread_as(id, &running) {
            return Ok(());
        }
        let mut news: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
        for (at, site) in running.shared().sites.all() {
            let there = placed.away.get(&at).map_or(Some(from), |n| self.trunks().number_of(n));
            // What is here, or on its way, is nobody's to say but ours.
            if let (Site::There(known), Some(there)) = (site, there)
                && known != there
                && !running.shared().sites.is_leaving(at)
            {
                news.entry(there).or_default().push(at);
            }
        }
        for (there, partitions) in news {
            let Some(trunk) = self.trunks().get(there) else { continue };
            let to = trunk.peer().name().to_string();
            let mut writer = RecordWriter::new();
            writer.leave(&LeaveRecord { pipeline: id, to, partitions: partitions.clone() });
            self.log_and_wait(kind::LEAVE, writer).await?;
            trunk.want();
            for at in partitions {
                running.shared().sites.set(at, Site::There(there));
                // The forwarder to where it was ends, and one to where it is begins.
                running.partition(at).for_each(|mailbox| mailbox.schedule());
            }
        }
        Ok(())
    }

    /// Refuses what needs a pipeline in one place.
    ///
    /// # Errors
    /// [`Error::Conflict`], with where its partitions are and what to do.
    pub(crate) fn is_whole(&self, running: &Running) -> Result<(), Error> {
        if running.shared().sites.are_all_here() {
            return Ok(());
        }
        let away = self.away(running);
        let nodes: BTreeSet<&String> = away.values().collect();
        let nodes: Vec<&str> = nodes.into_iter().map(String::as_str).collect();
        let (own, name) = (self.cluster().map(|own| own.name().to_string()), running.name());
        Err(refused(
            name,
            &format!(
                "{} of its partitions are on other nodes ({}): bring them back with `sluicebox \
                 move {name} --to {}` first",
                away.len(),
                nodes.join(", "),
                own.unwrap_or_default()
            ),
        ))
    }
}

/// Why a pipeline cannot be on several nodes, if it cannot.
pub(crate) fn why_in_one_place(running: &Running) -> Option<String> {
    let pipeline = running.pipeline();
    let streams = pipeline.stages.iter().find(|stage| stage.scope == Scope::Stream);
    match (running.durable(), streams) {
        (None, _) => Some(
            "its delivery is best-effort: only what is exactly-once is on several nodes".to_owned(),
        ),
        _ if !pipeline.sinks.is_empty() => Some(
            "it has sinks, which hold back what they have not handed on: move it as a whole"
                .to_owned(),
        ),
        (_, Some(stage)) => Some(format!(
            "its stage {:?} has the scope \"stream\", which is served on one node: move it as a \
             whole",
            stage.name
        )),
        _ => None,
    }
}

/// The peer a partition is at, if it is at one.
fn peer_of((_, site): (u16, Site)) -> Option<u16> {
    match site {
        Site::There(peer) => Some(peer),
        Site::Here | Site::Between => None,
    }
}

/// The number of a pipeline with a log.
fn id_of(running: &Running) -> Result<PipelineId, Error> {
    let none = || Error::Internal("a pipeline without a log".to_owned());
    running.durable().map(|durable| durable.id).ok_or_else(none)
}

/// Those of the partitions that are at peers other than `to`, by peer.
fn elsewhere(
    running: &Running,
    partitions: &BTreeSet<u16>,
    to: Option<u16>,
) -> BTreeMap<u16, Vec<u16>> {
    let mut all: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
    for at in partitions {
        match running.shared().sites.of(*at) {
            Site::There(peer) if Some(peer) != to => all.entry(peer).or_default().push(*at),
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_is_told_comes_as_it_was_and_whole() {
        let joining = Joining {
            pipeline: 7,
            partitions: vec![1, 3],
            attempt: u64::MAX,
            home: Some("a".to_owned()),
            kept: Bytes::from_static(b"kept"),
            changed: Bytes::from_static(&[1, 2, 3]),
        };
        let bytes = joining.to_bytes().expect("plain text");
        assert_eq!(Joining::from_bytes(&bytes.clone().into()), Some(joining.clone()));
        let kept = bytes.len() - joining.changed.len();
        for length in 0..kept {
            let cut = Bytes::copy_from_slice(&bytes[..length]);
            assert_eq!(Joining::from_bytes(&cut), None, "cut to {length}");
        }
    }
}
