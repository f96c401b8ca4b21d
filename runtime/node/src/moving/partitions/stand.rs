//! How partitions come to a stand before they leave, and what must be so by then.
//!
//! - What they have sent to each other is consumed first, and so is what others have sent them that
//!   went before: nothing they send later, from elsewhere, comes before it.
//! - A stand takes a bounded time; if it takes longer they go on where they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_core::ids::StageId;
use sluicebox_core::partition::Progress;
use sluicebox_core::position::Source;
use tokio::sync::oneshot;

use crate::error::Error;
use crate::mailbox::gate::Gate;
use crate::mailbox::{Command, Inherited, Mailbox};
use crate::moving::depart::refused;
use crate::running::Running;
use crate::spread::{Site, Sites};

/// How long partitions may take to come to a stand, and what they left behind to be taken.
pub(super) const STAND_MAX: Duration = Duration::from_secs(10);

/// How often it is looked whether that is so.
const LOOK: Duration = Duration::from_millis(1);

/// What partitions held when they came to a stand.
pub(super) type Stood = Vec<(Arc<Mailbox>, Inherited)>;

/// Forwards to partitions that left. What they had in memory goes in its own time.
pub(super) fn forward(stood: Stood) {
    let mut states = Vec::new();
    for (mailbox, inherited) in stood {
        mailbox.close_gate();
        states.push(inherited.states);
        mailbox.set_inherited(Inherited { progress: inherited.progress, ..Inherited::default() });
        mailbox.schedule();
    }
    drop(tokio::task::spawn_blocking(move || drop(states)));
}

/// Lets partitions come to a stand, in all segments; what is queued stays queued, but for what they
/// sent each other, and what partitions sent that went before: those send from elsewhere now, and
/// that would come before what they sent from here.
pub(super) async fn stand(running: &Running, partitions: &[u16]) -> Result<Stood, Error> {
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
pub(super) fn is_of(source: Source, partitions: &[u16]) -> bool {
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
pub(super) fn stay(running: &Running, partitions: &[u16], stood: Stood) {
    for (mailbox, inherited) in stood {
        mailbox.set_inherited(inherited);
    }
    for at in partitions {
        running.shared().sites.set(*at, Site::Here);
        running.partition(*at).for_each(|mailbox| mailbox.schedule());
    }
}

/// The root and the number of a partition of a segment, and how far it has come.
pub(super) fn where_it_stands(
    (mailbox, inherited): &(Arc<Mailbox>, Inherited),
) -> Option<((StageId, u16), Progress)> {
    let durable = mailbox.segment.durable.as_ref()?;
    Some(((durable.root(), mailbox.partition), inherited.progress.clone()?))
}

/// Before partitions send from another node: what they sent from here has come in, and is followed
/// by what they send from there.
pub(super) fn open_gates(running: &Running, partitions: &[u16], stood: &Stood) {
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
pub(super) fn is_forwarded(running: &Running, partitions: &[u16]) -> bool {
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
