//! The source's side of a move of partitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_core::codec::{LeaveRecord, RecordWriter, ReleaseRecord, kind};
use sluicebox_core::ids::{Name, PipelineId, StageId};
use sluicebox_core::partition::Progress;
use sluicebox_core::position::Source;
use sluicebox_core::recovery::Folded;
use tokio::sync::oneshot;

use super::{Joining, id_of};
use crate::cluster::Peer;
use crate::deploy::secret_number;
use crate::error::Error;
use crate::mailbox::gate::Gate;
use crate::mailbox::returns::Returned;
use crate::mailbox::{Command, Inherited, Mailbox};
use crate::moving::Preparing;
use crate::moving::depart::refused;
use crate::node::Node;
use crate::running::Running;
use crate::spread::{Site, Sites};

/// How long partitions may take to come to a stand, and what they left behind to be taken.
pub(super) const STAND_MAX: Duration = Duration::from_secs(10);

/// How often it is looked whether that is so.
const LOOK: Duration = Duration::from_millis(1);

/// How long a move that cannot go back is waited for; then it goes on by itself.
const JOIN_MAX: Duration = Duration::from_secs(30);

/// Pauses between two tries to end a move, growing.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Partitions on their way to a peer.
struct Going {
    id: PipelineId,
    partitions: Vec<u16>,
    peer: Arc<Peer>,
    preparing: Preparing,
    /// Which attempt it is: what an earlier one took is not joined by this one.
    attempt: u64,
}

/// What partitions held when they came to a stand.
type Stood = Vec<(Arc<Mailbox>, Inherited)>;

impl Node {
    /// Hands partitions that are here over to a peer. Gives how long they took nothing.
    pub(super) async fn send_partitions(
        self: &Arc<Self>,
        running: &Arc<Running>,
        (partitions, peer): (&[u16], &Arc<Peer>),
        preparing: Preparing,
    ) -> Result<Duration, Error> {
        let id = id_of(running)?;
        let number = self.trunks().number_of(peer.name().as_str());
        let number = number.ok_or_else(|| peer.failed("is none of the peers", false))?;
        self.expect_forwarding(running, partitions)?;
        let going = Going {
            id,
            partitions: partitions.to_vec(),
            peer: peer.clone(),
            preparing,
            attempt: secret_number()?,
        };
        self.keep_spread(running);
        let begun = Instant::now();
        let mut stood = stand(running, partitions).await?;
        if let Err(error) = self.hand_over_partitions(running, &going, &mut stood).await {
            stay(running, partitions, stood);
            return Err(error);
        }
        // From here on there is no way back.
        for at in partitions {
            running.shared().sites.set_leaving(*at, true);
            running.shared().sites.set(*at, Site::There(number));
        }
        for (mailbox, inherited) in stood {
            mailbox.close_gate();
            let progress = inherited.progress;
            mailbox.set_inherited(Inherited { progress, ..Inherited::default() });
            mailbox.schedule();
        }
        let ended = tokio::task::spawn_local(self.clone().end_leaving(going));
        match tokio::time::timeout(JOIN_MAX, ended).await {
            Ok(Ok(())) => Ok(begun.elapsed()),
            _ => Err(peer.failed("has not taken the partitions yet; they are on their way", true)),
        }
    }

    /// Refuses a move that would wait in vain: what partitions sent waits for a node that is away.
    fn expect_forwarding(&self, running: &Running, partitions: &[u16]) -> Result<(), Error> {
        for mailbox in running.mailboxes().iter().flatten() {
            let Site::There(there) = mailbox.site() else { continue };
            let Some(peer) = self.trunks().get(there).map(|trunk| trunk.peer()) else { continue };
            if !peer.is_up() && mailbox.holds(|source| is_of(source, partitions)) {
                return Err(peer.unreachable(false));
            }
        }
        Ok(())
    }

    /// Everything up to the record that says that they left.
    async fn hand_over_partitions(
        self: &Arc<Self>,
        running: &Arc<Running>,
        going: &Going,
        stood: &mut Stood,
    ) -> Result<(), Error> {
        let Going { id, partitions, peer, attempt, .. } = going;
        until(|| is_forwarded(running, partitions)).await.ok_or_else(|| {
            let why = "another node does not take what they have sent it; try again";
            refused(running.name(), why)
        })?;
        if let Some(reports) = &running.shared().part {
            let stands: Vec<_> = stood.iter().filter_map(where_it_stands).collect();
            let has_all =
                || stands.iter().all(|(at, stands)| reports.has_all(running, *at, stands));
            until(has_all)
                .await
                .ok_or_else(|| peer.failed("does not keep what left here; try again", false))?;
        }
        self.until_kept(self.log().status().appended).await?;
        let (named, of) = ((running.tenant(), running.name()), *id);
        let kept = self.kept_as(move |fold| fold.keep_part(of)).await?.len();
        peer.take_groups(named, (*id, *attempt), (partitions, kept)).await?;
        open_gates(running, partitions, stood);
        let (to, partitions) = (peer.name().to_string(), partitions.clone());
        let mut writer = RecordWriter::new();
        writer.leave(&LeaveRecord { pipeline: *id, to, partitions });
        self.log_and_wait(kind::LEAVE, writer).await
    }

    /// Has a peer run partitions that left here, however long that takes, and lets go of them.
    async fn end_leaving(self: Arc<Self>, going: Going) {
        let mut pause = PAUSE_MIN;
        while let Err(error) = self.try_to_join(&going).await {
            if self.spread(going.id).is_none() {
                return;
            }
            let node = going.peer.name();
            tracing::warn!(%node, %error, "partitions are not taken yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn try_to_join(self: &Arc<Self>, going: &Going) -> Result<(), Error> {
        let Going { id, partitions, peer, attempt, .. } = going;
        let (id, attempt) = (*id, *attempt);
        let gone = || Error::Internal("its pipeline is gone".to_owned());
        let running = self.spread(id).ok_or_else(gone)?;
        let named = (running.tenant().clone(), running.name().clone());
        let (tenant, name) = (&named.0, &named.1);
        self.until_kept(self.log().status().synced).await?;
        let kept = self.kept_as(move |fold| fold.keep_part(id)).await?;
        let own = self.cluster().map(|own| own.name().to_string());
        let part = running.shared().part.clone();
        // A part gives partitions to nobody but the home.
        let home = if part.is_some() { None } else { own };
        let joining = Joining {
            pipeline: id.0,
            partitions: partitions.clone(),
            attempt,
            home,
            kept,
            preparing: going.preparing.clone(),
        };
        if !peer.join((tenant, name), &joining).await? {
            let bytes = joining.kept.len();
            peer.take_groups((tenant, name), (id, attempt), (partitions, bytes)).await?;
            if !peer.join((tenant, name), &joining).await? {
                return Err(peer.failed("does not join partitions it has taken", false));
            }
        }
        for mailbox in partitions.iter().flat_map(|at| running.partition(*at)) {
            mailbox.returned(Returned::Anew);
        }
        let mut writer = RecordWriter::new();
        writer.release(&ReleaseRecord { pipeline: id, partitions: partitions.clone() });
        self.log_and_wait(kind::RELEASE, writer).await?;
        partitions.iter().for_each(|at| running.shared().sites.set_leaving(*at, false));
        let node = peer.name();
        tracing::info!(%tenant, pipeline = %name, ?partitions, %node, "partitions moved");
        if running.is_part() {
            // What the home said of them meanwhile was not for us.
            self.whereabouts().ask(id);
        }
        self.tidy_later(&running);
        Ok(())
    }

    /// Hands partitions of a part back to the home, which asks for them. Gives how long they took
    /// nothing, in milliseconds.
    ///
    /// # Errors
    /// There is no such part; they cannot leave now.
    pub(crate) async fn give_partitions_back(
        self: &Arc<Self>,
        from: &Arc<Peer>,
        (id, partitions): (PipelineId, &[u16]),
        name: &Name,
    ) -> Result<u64, Error> {
        let none = || refused(name, "the other node has no part of it");
        let running = self.spread(id).filter(|running| running.is_part()).ok_or_else(none)?;
        let home = running.shared().part.as_ref().map(|reports| reports.home());
        if home.is_none() || home != self.trunks().number_of(from.name().as_str()) {
            return Err(refused(name, "partitions are given to their home only"));
        }
        let turn = self.deploying(running.tenant(), running.name());
        let _turn = turn.lock().await;
        until_settled(&running, partitions).await?;
        let here: Vec<u16> = partitions
            .iter()
            .copied()
            .filter(|at| running.shared().sites.of(*at) == Site::Here)
            .collect();
        if here.is_empty() {
            return Ok(0);
        }
        let preparing = Preparing::default();
        let took = self.send_partitions(&running, (&here, from), preparing).await?;
        Ok(took.as_millis() as u64)
    }

    /// Goes on, after a start, with moves of partitions that were under way.
    pub(crate) async fn go_on_leaving_partitions(
        self: &Arc<Self>,
        id: PipelineId,
        folded: &Folded,
    ) -> Result<(), Error> {
        let mut by_node: BTreeMap<&String, Vec<u16>> = BTreeMap::new();
        for at in folded.leaving() {
            if let Some(node) = folded.away().get(at) {
                by_node.entry(node).or_default().push(*at);
            }
        }
        for (node, partitions) in by_node {
            let number = self.trunks().number_of(node);
            let Some(trunk) = number.and_then(|number| self.trunks().get(number)) else {
                tracing::error!(node, "partitions are going to what is no node");
                continue;
            };
            let preparing = self.preparing(folded.tenant(), folded.name()).await?;
            let (node, peer, attempt) = (self.clone(), trunk.peer().clone(), secret_number()?);
            drop(tokio::task::spawn_local(async move {
                // One by one: which of them left together is not known any more.
                for at in partitions {
                    let (peer, preparing) = (peer.clone(), preparing.clone());
                    let going = Going { id, partitions: vec![at], peer, preparing, attempt };
                    node.clone().end_leaving(going).await;
                }
            }));
        }
        if let Some(running) = self.spread(id) {
            self.tidy_later(&running);
        }
        Ok(())
    }
}

/// Lets partitions come to a stand, in all segments; what is queued stays queued, but for what they
/// sent each other, and what partitions sent that went before: those send from elsewhere now, and
/// that would come before what they sent from here.
async fn stand(running: &Running, partitions: &[u16]) -> Result<Stood, Error> {
    let mut stood = Vec::new();
    // In this order nothing more comes from those before.
    for segment in running.mailboxes() {
        let those = partitions.iter().filter_map(|at| segment.get(usize::from(*at)));
        if let Err(error) = stand_in_segment(those, &mut stood, partitions).await {
            stay(running, partitions, stood);
            return Err(error.unwrap_or_else(|| {
                let why = "a partition does not come to a stand: what it has under way takes too \
                           long; try again";
                refused(running.name(), why)
            }));
        }
    }
    partitions.iter().for_each(|at| running.shared().sites.set(*at, Site::Between));
    Ok(stood)
}

/// The same in one segment. On an error nothing of it need have stood.
async fn stand_in_segment(
    mailboxes: impl Iterator<Item = &Arc<Mailbox>>,
    stood: &mut Stood,
    partitions: &[u16],
) -> Result<(), Option<Error>> {
    let mut replies = Vec::new();
    for mailbox in mailboxes {
        let sites = &mailbox.segment.shared.sites;
        let went = |source| is_of(source, partitions) || is_elsewhere(source, sites);
        until(|| !mailbox.holds(went)).await.ok_or(None)?;
        let (reply, left) = oneshot::channel();
        mailbox.command(Command::Leave(reply));
        replies.push((mailbox.clone(), left));
    }
    let end = tokio::time::Instant::now() + STAND_MAX;
    let mut outcome = Ok(());
    for (mailbox, left) in replies {
        match stood_by(end, left).await {
            Some(Ok(inherited)) => stood.push((mailbox, inherited)),
            Some(Err(error)) => outcome = Err(Some(error)),
            None => outcome = outcome.and(Err(None)),
        }
    }
    outcome
}

/// What a partition gives up, if it does so in time.
pub(super) async fn stood_by(
    end: tokio::time::Instant,
    mut left: oneshot::Receiver<Result<Inherited, Error>>,
) -> Option<Result<Inherited, Error>> {
    match tokio::time::timeout_at(end, &mut left).await {
        Ok(given) => given.ok(),
        Err(_) => {
            // It may have been given in this moment, and would be nobody's.
            left.close();
            left.try_recv().ok()
        }
    }
}

/// It is one of these partitions that sends.
fn is_of(source: Source, partitions: &[u16]) -> bool {
    match source {
        Source::Ingest => false,
        Source::Edge { partition, .. } => partitions.contains(&partition),
    }
}

/// It is a partition of another node that sends.
fn is_elsewhere(source: Source, sites: &Sites) -> bool {
    match source {
        Source::Ingest => false,
        Source::Edge { partition, .. } => sites.of(partition) != Site::Here,
    }
}

/// Lets partitions run again that do not go after all.
fn stay(running: &Running, partitions: &[u16], stood: Stood) {
    for (mailbox, inherited) in stood {
        mailbox.set_inherited(inherited);
    }
    for at in partitions {
        running.shared().sites.set(*at, Site::Here);
        running.partition(*at).for_each(|mailbox| mailbox.schedule());
    }
}

/// The root and the number of a partition of a segment, and how far it has come.
fn where_it_stands(
    (mailbox, inherited): &(Arc<Mailbox>, Inherited),
) -> Option<((StageId, u16), Progress)> {
    let durable = mailbox.segment.durable.as_ref()?;
    Some(((durable.root(), mailbox.partition), inherited.progress.clone()?))
}

/// Before partitions send from another node: what they sent from here has come in, and is followed
/// by what they send from there.
fn open_gates(running: &Running, partitions: &[u16], stood: &Stood) {
    for mailbox in running.mailboxes().iter().flatten() {
        if partitions.contains(&mailbox.partition) || mailbox.site() != Site::Here {
            continue;
        }
        mailbox.gate().get_or_insert_with(|| Box::new(Gate::default()));
    }
    for (from, inherited) in stood {
        let Some(progress) = &inherited.progress else { continue };
        let Some(durable) = &from.segment.durable else { continue };
        for (edge, counter) in progress.numbers.iter() {
            let Some((_, to)) = durable.edges.iter().find(|(known, _)| *known == edge) else {
                continue;
            };
            let source = Source::Edge { edge, partition: from.partition };
            for (partition, seq) in counter.iter() {
                let Some(reader) = to.get(usize::from(partition)) else { continue };
                if let Some(gate) = reader.gate().as_mut() {
                    gate.enter(source, seq);
                }
            }
        }
    }
}

/// True if nothing that partitions sent to others waits to be forwarded: those may come to where
/// these go, and find there what is sent later.
fn is_forwarded(running: &Running, partitions: &[u16]) -> bool {
    let stays = |mailbox: &&Arc<Mailbox>| !partitions.contains(&mailbox.partition);
    let others = running.mailboxes().iter().flatten().filter(stays);
    let mut there = others.filter(|mailbox| mailbox.site() != Site::Here);
    there.all(|mailbox| !mailbox.holds(|source| is_of(source, partitions)))
}

/// Waits until none of these partitions is on its way to another node.
///
/// # Errors
/// That takes too long.
pub(super) async fn until_settled(running: &Running, partitions: &[u16]) -> Result<(), Error> {
    let sites = &running.shared().sites;
    let settled = || partitions.iter().all(|at| !sites.is_leaving(*at));
    let why = "some of these partitions are still on their way to another node, which does not \
               take them; they go on by themselves as soon as it does";
    until(settled).await.ok_or_else(|| refused(running.name(), why))
}

/// Waits until something is so; none if that takes too long.
pub(super) async fn until(is_so: impl Fn() -> bool) -> Option<()> {
    let end = Instant::now() + STAND_MAX;
    while !is_so() {
        if Instant::now() >= end {
            return None;
        }
        tokio::time::sleep(LOOK).await;
    }
    Some(())
}
