//! The target's side of a move of partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sluicebox_core::codec::{Changed, JoinRecord, Record, RecordError, RecordWriter, kind};
use sluicebox_core::ids::{Name, PipelineId, StageId};
use sluicebox_core::partition::Progress;
use sluicebox_core::pipeline::Pipeline;
use sluicebox_core::recovery::{Fold, Folded, Nothing};
use tokio::sync::oneshot;

use super::groups::Groups;
use super::stand::{STAND_MAX, stood_by};
use super::states::States;
use super::{Joining, id_of};
use crate::checkpoint::Of;
use crate::cluster::Peer;
use crate::components::blocking;
use crate::deploy::{read_manifest, secret_number};
use crate::error::Error;
use crate::mailbox::gate::Gate;
use crate::mailbox::{Command, Inherited, Mailbox};
use crate::moving::depart::refused;
use crate::moving::steps::Steps;
use crate::moving::{Copied, Preparing};
use crate::node::Node;
use crate::running::Running;
use crate::spread::{Broken, Site};

/// Partitions that are here by the log, and do not run yet.
struct Came<'a> {
    /// Where they stand.
    folded: &'a Folded,
    partitions: &'a [u16],
    /// What they changed since their state was taken; it was checked.
    changed: Bytes,
}

impl Node {
    /// Sees whether partitions of a pipeline can come, and gets ready for them.
    ///
    /// # Errors
    /// Something of this name is here; what it runs cannot be had.
    pub(crate) async fn prepare_part(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        (id, from): (PipelineId, &Peer),
        preparing: &Preparing,
    ) -> Result<(), Error> {
        self.make_way((tenant, name), id, Some(from)).await?;
        match self.running_by_id(id) {
            None => {
                self.is_free(tenant, name)?;
                // What an earlier part had is removed before anything comes.
                self.until_kept(self.log().status().appended).await?;
            }
            Some(part) => {
                let home = from.name().as_str();
                self.expect_from(((tenant, name), from), Some(home), Some(&part))?;
                let version = preparing.versions.last().map(|(version, _)| *version);
                if version.is_some_and(|version| version != part.version()) {
                    return Err(refused(name, "the other node has partitions of another version"));
                }
            }
        }
        if self.front().isolates(self.tenants(), tenant) {
            return Err(refused(name, "its tenant has a process of its own on the other node"));
        }
        self.has_device_for(tenant, preparing).await?;
        self.get_ready_for(tenant, preparing).await
    }

    /// Runs partitions from now on that came from this node. False if their state was not taken.
    ///
    /// # Errors
    /// The log or the store fails; what it was told is wrong.
    pub(crate) async fn join_partitions(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        (from, joining): (&Arc<Peer>, Joining),
    ) -> Result<bool, Error> {
        let mut steps = Steps::begin();
        let (id, partitions) = (PipelineId(joining.pipeline), &joining.partitions[..]);
        let _one_at_a_time = self.joining((tenant, name), Some(id)).await;
        if self.has_had_partitions((id, from, name), partitions)? {
            return Ok(true);
        }
        let is_wanted = self.copies().get(&id).is_some_and(|copied| {
            copied.is_whole
                && copied.partitions == partitions
                && copied.is_of(from, joining.attempt)
        });
        if !is_wanted {
            return Ok(false);
        }
        let known = self.running_by_id(id);
        self.expect_from(((tenant, name), from), joining.home.as_deref(), known.as_deref())?;
        let wrong = |why: RecordError| refused(name, &why.to_string());
        let record = JoinRecord {
            pipeline: id,
            from: from.name().to_string(),
            home: joining.home.clone(),
            partitions: partitions.to_vec(),
            kept: &joining.kept,
            changed: Changed::read(&joining.changed).map_err(wrong)?,
        };
        let folded = joined((tenant, name), id, &record)?;
        let is_taken = |copied: &Copied| copied.groups.is_of_fold((id, &folded), partitions);
        if !self.copies().get(&id).is_some_and(|copied| is_taken(&copied)) {
            return Err(refused(name, "what was taken is not the state of these partitions"));
        }
        let stood = match &known {
            Some(running) => {
                expect_same(running, &folded)?;
                self.keep_spread(running);
                until_nobody_forwards(running, partitions).await?
            }
            None => {
                self.is_free(tenant, name)?;
                Vec::new()
            }
        };
        steps.done("ready");
        let mut writer = RecordWriter::new();
        writer.join(&record);
        if let Err(error) = self.log_and_wait(kind::JOIN, writer).await {
            if let Some(running) = &known {
                let there = self.trunks().number_of(from.name().as_str());
                forward_again(running, (partitions, there), stood);
            }
            return Err(error);
        }
        steps.done("JOIN");
        // From here on they are this node's, whatever comes.
        let came = Came { folded: &folded, partitions, changed: joining.changed.clone() };
        if let Err(error) = self.run_here((id, known), came, stood).await {
            tracing::error!(%tenant, pipeline = %name, %error, "partitions have come and do not \
                run: the node has to be restarted");
            let home = joining.home.as_deref().and_then(|home| self.trunks().number_of(home));
            self.note_broken(id, Broken { tenant: tenant.clone(), name: name.clone(), home });
        }
        self.forget_taken_later((tenant, name), id);
        steps.done("run");
        tracing::debug!(%steps, ?partitions, "partitions joined");
        Ok(true)
    }

    async fn run_here(
        self: &Arc<Self>,
        (id, known): (PipelineId, Option<Arc<Running>>),
        came: Came<'_>,
        stood: Vec<(Arc<Mailbox>, Inherited)>,
    ) -> Result<(), Error> {
        let running = match known {
            Some(running) => running,
            None => self.start_part(id, (came.folded, came.partitions)).await?,
        };
        self.run_joined(&running, came, stood).await?;
        if !running.is_part() {
            self.say_all_moved(&running);
        }
        Ok(())
    }

    /// Refuses partitions from who has none to give.
    pub(super) fn expect_from(
        &self,
        ((tenant, name), from): ((&Name, &Name), &Peer),
        home: Option<&str>,
        known: Option<&Running>,
    ) -> Result<(), Error> {
        if known.is_some_and(|running| (running.tenant(), running.name()) != (tenant, name)) {
            return Err(refused(name, "the other node has it under another name"));
        }
        let number = self.trunks().number_of(from.name().as_str());
        let is_right = match known.map(|running| running.shared().part.as_ref()) {
            // This is the home.
            Some(None) => home.is_none(),
            Some(Some(part)) => home == Some(from.name().as_str()) && number == Some(part.home()),
            None => home == Some(from.name().as_str()),
        };
        let why = "the nodes do not agree where its home is";
        if is_right { Ok(()) } else { Err(refused(name, why)) }
    }

    /// Lets partitions run that are here by the log.
    async fn run_joined(
        self: &Arc<Self>,
        running: &Arc<Running>,
        Came { folded, partitions, changed }: Came<'_>,
        stood: Vec<(Arc<Mailbox>, Inherited)>,
    ) -> Result<(), Error> {
        let id = id_of(running)?;
        let groups = Groups::new(
            Of::new(running.tenant(), id),
            stages_of(running).into_iter(),
            (partitions, running.partitions()),
        );
        let (backing, seed, count) =
            (self.backing().clone(), secret_number()?, running.partitions());
        // Their record is on disk, and they have not begun.
        let end = self.log().synced();
        let states = move || States::of(&backing, (&groups, count), (&changed, end), seed);
        let mut all = blocking(states).await?;
        let names = running.durable().map(|durable| durable.numbering().names.stages);
        let names = names.unwrap_or_default();
        let mut before: BTreeMap<(usize, u16), Progress> = BTreeMap::new();
        for (mailbox, inherited) in stood {
            let at = (mailbox.segment.at, mailbox.partition);
            before.extend(inherited.progress.map(|progress| (at, progress)));
        }
        for at in partitions {
            for mailbox in running.partition(*at) {
                let Some(durable) = &mailbox.segment.durable else { continue };
                let came = folded.progress(&durable.ids(*at));
                let own = before.remove(&(mailbox.segment.at, *at));
                let progress = own.map_or_else(|| came.clone(), |own| own.merged(&came));
                mailbox.trim(&progress.positions);
                let next = |output| progress.offsets.get(output).copied().unwrap_or(0);
                for (output, ring, _) in &durable.outputs {
                    ring.go_on_at(*at, next(output));
                }
                let dead = running.dead_letters();
                dead.ring.go_on_at(dead.at(durable.root(), *at), progress.dead_letters);
                let mut gate = Gate::new(&progress.positions);
                // Those that wait here come before what is sent by other nodes.
                for run in mailbox.own_runs() {
                    gate.enter(run.source, run.seq);
                }
                *mailbox.gate() = Some(Box::new(gate));
                let stages = mailbox.segment.stages.iter().map(|stage| stage.name.as_str());
                let of = (self.backing().as_ref(), id, *at);
                let states = all.take((&names, stages), of, seed);
                let inherited = Inherited { states, progress: Some(progress), watermark: 0 };
                mailbox.set_inherited(inherited);
            }
            // None of them runs before that.
            running.shared().sites.set(*at, Site::Here);
            running.partition(*at).for_each(|mailbox| mailbox.schedule());
        }
        Ok(())
    }

    /// All of these partitions came from a peer, and are here. At the home they may have gone on:
    /// they leave other nodes for nowhere else, so that what is not there any more has come.
    ///
    /// # Errors
    /// Some have come, or it cannot be known.
    pub(super) fn has_had_partitions(
        &self,
        (id, from, name): (PipelineId, &Peer, &Name),
        partitions: &[u16],
    ) -> Result<bool, Error> {
        if self.is_broken(id) || self.is_dormant(id) {
            return Err(refused(name, "the other node has it and could not start it"));
        }
        let Some(running) = self.running_by_id(id) else { return Ok(false) };
        if !running.is_part() && self.running(running.tenant(), running.name().as_str()).is_none() {
            return Err(refused(name, "it is about to end, or to go, on the other node"));
        }
        if partitions.iter().any(|at| *at >= running.partitions()) {
            return Err(refused(name, "it has fewer partitions on the other node"));
        }
        let there = self.trunks().number_of(from.name().as_str()).map(Site::There);
        let sites = &running.shared().sites;
        let has_had = |at: &&u16| match sites.of(**at) {
            Site::Here => true,
            site => !running.is_part() && Some(site) != there,
        };
        let comes = |at: &u16| matches!(sites.of(*at), Site::There(_)) && !sites.is_leaving(*at);
        match partitions.iter().filter(has_had).count() {
            0 if partitions.iter().all(comes) => Ok(false),
            count if count == partitions.len() => Ok(true),
            _ => {
                Err(refused(name, "the other node has some of these partitions, or gives them up"))
            }
        }
    }
}

/// Where the partitions stand by a record: as the log has it when there is nothing else of them.
fn joined(
    (tenant, name): (&Name, &Name),
    id: PipelineId,
    record: &JoinRecord<'_>,
) -> Result<Folded, Error> {
    // A node that has some of the pipeline, as one that has none, is told all that matters.
    let home = record.home.clone().or_else(|| Some(record.from.clone()));
    let record = Record::Join(JoinRecord { home, ..record.clone() });
    let mut fold = Fold::new();
    fold.apply(0, &record, &mut Nothing).map_err(|error| refused(name, &error.to_string()))?;
    let none = || refused(name, "the other node says where another one stands");
    // Under another name the record would not fold in the log, and stop what runs here.
    let is_it = |folded: &&Folded| (folded.tenant(), folded.name()) == (tenant, name);
    fold.pipeline(id).filter(is_it).cloned().ok_or_else(none)
}

/// The numbers of the stages of a pipeline.
pub(super) fn stages_of(running: &Running) -> Vec<StageId> {
    let numbering = running.durable().map(|durable| durable.numbering());
    let stages = numbering.map(|numbering| numbering.names.stages).unwrap_or_default();
    stages.into_iter().map(|(stage, _)| stage).collect()
}

/// Refuses what is not of the same kind here.
fn expect_same(running: &Running, folded: &Folded) -> Result<(), Error> {
    let apart = |pipeline: &Pipeline| pipeline.scaling.as_ref().and_then(|own| own.apart.clone());
    let own = (running.version(), running.partitions(), apart(running.pipeline()));
    let there = read_manifest(folded.manifest())?;
    if own == (folded.version(), folded.partitions(), apart(&there)) {
        return Ok(());
    }
    Err(refused(running.name(), "the other node has partitions of another version, or scale"))
}

/// Ends the forwarders to partitions that come; what they hold is queued again.
async fn until_nobody_forwards(
    running: &Running,
    partitions: &[u16],
) -> Result<Vec<(Arc<Mailbox>, Inherited)>, Error> {
    let mut replies = Vec::new();
    for mailbox in partitions.iter().flat_map(|at| running.partition(*at)) {
        let (reply, left) = oneshot::channel();
        mailbox.command(Command::Leave(reply));
        replies.push((mailbox.clone(), left));
    }
    let (mut stood, mut failed) = (Vec::new(), None);
    let end = tokio::time::Instant::now() + STAND_MAX;
    for (mailbox, left) in replies {
        match stood_by(end, left).await {
            Some(Ok(inherited)) => stood.push((mailbox, inherited)),
            Some(Err(error)) => failed = Some(error),
            None => failed = Some(Error::Internal("a forwarder does not end".to_owned())),
        }
    }
    let Some(error) = failed else {
        partitions.iter().for_each(|at| running.shared().sites.set(*at, Site::Between));
        return Ok(stood);
    };
    for (mailbox, inherited) in stood {
        mailbox.set_inherited(inherited);
        mailbox.schedule();
    }
    Err(error)
}

/// Forwards again to partitions that did not come after all.
fn forward_again(
    running: &Running,
    (partitions, there): (&[u16], Option<u16>),
    stood: Vec<(Arc<Mailbox>, Inherited)>,
) {
    for (mailbox, inherited) in stood {
        mailbox.set_inherited(inherited);
    }
    for at in partitions {
        running.shared().sites.set(*at, there.map_or(Site::Between, Site::There));
        running.partition(*at).for_each(|mailbox| mailbox.schedule());
    }
}
