//! At the start: everything that was applied before runs again.
//!
//! - A pipeline without a log begins anew with the newest stored version.
//! - One with a log goes on from where the log says it is: version, state, places, offsets, and the
//!   runs that wait for their reader.
//! - What cannot be started is logged and left out; the others run.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicebox_core::dedup::{Dedup, DedupLimits};
use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_core::numbering::Numbering;
use sluicebox_core::partition::name_of_part;
use sluicebox_core::pipeline::{self, Delivery as Promise, Facts, Pipeline};
use sluicebox_core::plan::Handover;
use sluicebox_core::recovery::{Folded, Standing};
use sluicebox_core::state::{KeyedState, StateLimits};
use sluicebox_store::key::Key;

use super::rings::Tails;
use super::switch::{Next, Restored};
use super::{Document, codes, secret_number};
use crate::checkpoint::{Checkpointer, key_of_waiting};
use crate::components::blocking;
use crate::durable::{Durable, Ingest};
use crate::error::Error;
use crate::mailbox::States;
use crate::manifest_text::{self, Format};
use crate::node::Node;
use crate::recover::{Backlog, Found, Recovered};
use crate::spread::Broken;

impl Node {
    /// Starts everything that was applied before the node was last stopped.
    pub(crate) async fn restore(self: &Arc<Self>) -> Result<(), Error> {
        let Some(mut recovered) = self.take_recovered() else { return Ok(()) };
        for (tenant, name, key) in self.newest_versions().await? {
            if let Err(error) = self.restore_stored(&tenant, &name, &key).await {
                tracing::error!(tenant, pipeline = name, "not started: {error}");
                if let (Ok(tenant), Ok(name)) = (Name::new(&tenant), Name::new(&name)) {
                    self.keep_name(&tenant, &name);
                }
            }
        }
        self.tidy_arrivals(&recovered.fold).await?;
        self.tidy_taken(&recovered.fold).await?;
        self.go_on_ending(&recovered.fold).await?;
        let Recovered { fold, found, store, horizon, .. } = &mut recovered;
        let log = self.log().clone();
        let mut backlog = Backlog::new(log.as_ref(), store.as_ref(), *horizon);
        for (id, folded) in fold.pipelines() {
            let (tenant, name) = (folded.tenant().to_string(), folded.name().to_string());
            // What it keeps counts against a quota, whether it can be started or not.
            let _made = self.tenancy(folded.tenant());
            if let Some(to) = folded.moved() {
                self.go_on_leaving((folded.tenant(), folded.name()), (id, to));
                continue;
            }
            if let Some(stopped) = folded.stopped() {
                tracing::error!(tenant, pipeline = name, "not started: {stopped}");
                self.set_dormant(folded.tenant(), folded.name(), Some(id));
                continue;
            }
            let restored = self.restore_logged(id, folded, (found, &[])).await;
            if let Err(error) = restored.and_then(|()| self.requeue(id, folded, &mut backlog)) {
                tracing::error!(tenant, pipeline = name, "not started: {error}");
                if let Some(part) = self.spread(id) {
                    // What of it runs is not to go on.
                    super::end_running(&part).await;
                }
                self.forget_spread(id);
                if folded.home().is_some() {
                    let (tenant, name) = (folded.tenant().clone(), folded.name().clone());
                    let home = self.home_of(folded).ok().flatten();
                    self.note_broken(id, Broken { tenant, name, home });
                } else {
                    drop(self.take_running(folded.tenant(), folded.name().as_str()));
                    self.set_dormant(folded.tenant(), folded.name(), Some(id));
                }
            } else {
                if let Some(running) = self.running_by_id(id).filter(|_| folded.has_come()) {
                    self.keep_spread(&running);
                }
                self.go_on_leaving_partitions(id, folded).await?;
            }
        }
        drop(backlog);
        let Recovered { fold, store, backing, collected, read_to, .. } = recovered;
        let store = (store, backing, self.disk().clone());
        self.keep_checkpointer(Checkpointer::new(log, store, (fold, collected), read_to));
        Ok(())
    }

    /// The newest stored version of each pipeline.
    async fn newest_versions(&self) -> Result<Vec<(String, String, Key)>, Error> {
        let catalog = self.catalog().clone();
        let under = Key::of(&["tenants"])?;
        let keys = blocking(move || Ok(catalog.list(Some(&under))?)).await?;
        let mut newest: BTreeMap<(String, String), Key> = BTreeMap::new();
        for key in keys {
            let segments: Vec<&str> = key.segments().collect();
            if let [_, tenant, "pipelines", name, _] = segments.as_slice() {
                let id = ((*tenant).to_owned(), (*name).to_owned());
                // Keys come in order, so that the last is the newest.
                newest.insert(id, key);
            }
        }
        Ok(newest.into_iter().map(|((tenant, name), key)| (tenant, name, key)).collect())
    }

    async fn restore_stored(
        self: &Arc<Self>,
        tenant: &str,
        name: &str,
        key: &Key,
    ) -> Result<(), Error> {
        let (tenant, name) = (Name::new(tenant)?, Name::new(name)?);
        let (catalog, key) = (self.catalog().clone(), key.clone());
        let text = blocking(move || Ok(catalog.get(&key)?)).await?.unwrap_or_default();
        let document: Document = serde_json::from_slice(&text)
            .map_err(|error| Error::Internal(format!("stored version: {error}")))?;
        let manifest = serde_json::to_vec(&document.manifest)
            .map_err(|error| Error::Internal(format!("stored version: {error}")))?;
        let mut pipeline = read_manifest(&manifest)?;
        if pipeline.delivery == Promise::ExactlyOnce {
            // The log says which version of it runs, and whether one does.
            return Ok(());
        }
        pipeline.fix_partitions(self.default_partitions());
        let code = self.load_stages(&tenant, &pipeline).await?;
        let (version, handover) = (document.version, Handover::default());
        let codes = codes::first(&pipeline, version);
        let next = Next { version, pipeline, code, codes, handover, restored: None };
        self.switch(&tenant, &name, next).await
    }

    pub(super) async fn restore_logged(
        self: &Arc<Self>,
        id: PipelineId,
        folded: &Folded,
        (found, coming): (&mut Found, &[u16]),
    ) -> Result<(), Error> {
        let (tenant, name) = (folded.tenant().clone(), folded.name().clone());
        let mut pipeline = read_manifest(folded.manifest())?;
        pipeline.fix_partitions(folded.partitions());
        let code = self.load_stages(&tenant, &pipeline).await?;
        let seed = secret_number()?;
        let dedup = found.dedup.remove(&id);
        let dedup = dedup.unwrap_or_else(|| Dedup::new(seed, DedupLimits::DEFAULT));
        let ingest = Ingest::new(folded.ingest_numbers().clone(), dedup);
        let ingest = ingest.knowing(folded.replayed().clone()).since(folded.high());
        let numbering = Numbering { names: folded.names().clone(), highest: folded.highest() };
        let behind = (self.log().clone(), self.backing().clone());
        let durable = Durable::new(id, behind, ingest, numbering);
        let durable = Arc::new(durable.with_usage(folded.usage().clone()));
        durable.set_standing(Standing::from(folded));
        let restored = Restored {
            durable,
            folded: folded.clone(),
            coming: coming.to_vec(),
            states: states(id, folded, found),
            tails: Tails { fences: folded.fences().to_vec(), ..tails(id, found) },
        };
        let version = folded.version();
        let handover = Handover::default();
        let codes = self.read_codes((&tenant, &name), (&pipeline, version)).await?;
        let next = Next { version, pipeline, code, codes, handover, restored: Some(restored) };
        self.switch(&tenant, &name, next).await
    }

    /// Hands the runs that wait to their partitions.
    fn requeue(
        &self,
        id: PipelineId,
        folded: &Folded,
        backlog: &mut Backlog<'_>,
    ) -> Result<(), Error> {
        let (tenant, pipeline, version) = (folded.tenant(), folded.name(), folded.version());
        let running = match folded.home() {
            None => self.running(tenant, pipeline.as_str()),
            Some(_) => self.spread(id),
        };
        let Some(running) = running else { return Ok(()) };
        let mut count = 0;
        // The last segment first: a partition runs as soon as it has something, and what it sends
        // must not come before what waits there.
        for mailbox in running.mailboxes().iter().rev().flatten() {
            let durable = mailbox.segment.durable.as_ref();
            let Some(root) = durable.and_then(|durable| durable.stages.first()) else { continue };
            let to = (root.stage, mailbox.partition);
            for waiting in folded.backlog(to.0, to.1) {
                let key = key_of_waiting((tenant, id), to, waiting);
                mailbox.push_over(backlog.read(waiting, &key)?);
                count += 1;
            }
        }
        // Until now whoever had a request for it was made to wait.
        running.pause(false);
        running.wake_by_time();
        tracing::info!(%tenant, %pipeline, version, waiting = count, "restored");
        Ok(())
    }
}

pub(crate) fn read_manifest(text: &[u8]) -> Result<Pipeline, Error> {
    let value = manifest_text::parse(text, Format::Json)?;
    Ok(pipeline::build(&value, &Facts::default())?)
}

/// The state of a pipeline's stages, by partition and by the name of the stage: none of it is in
/// memory, but for what is held of them. A stage without any on disk begins with none.
fn states(id: PipelineId, folded: &Folded, found: &mut Found) -> Vec<States> {
    let names = &folded.names().stages;
    let on_disk = names.iter().filter(|(stage, _)| found.backing.has((id, *stage)));
    let states = |_| -> States {
        let cold = |(_, name): &(_, Name)| {
            // Its bounds are those of the stage, which it is given to.
            let mut state = KeyedState::new(found.seed, StateLimits::NONE);
            state.back(false);
            (name.to_string(), state)
        };
        on_disk.clone().map(cold).collect()
    };
    let mut states: Vec<States> = (0..folded.partitions()).map(states).collect();
    for ((_, stage, partition), state) in found.held.extract_if(.., |(of, ..), _| *of == id) {
        let (stage, part) = stage.split();
        let name = names.iter().find(|(known, _)| *known == stage);
        if let (Some((_, name)), Some(there)) = (name, states.get_mut(usize::from(partition))) {
            there.push((name_of_part(name.as_str(), part), state));
        }
    }
    states
}

fn tails(id: PipelineId, found: &mut Found) -> Tails {
    let outputs = found.outputs.extract_if(.., |(of, ..), _| *of == id);
    let outputs = outputs.map(|((_, output, partition), tail)| ((output, partition), tail));
    let outputs = outputs.collect();
    let dead = found.dead_letters.extract_if(.., |(of, ..), _| *of == id);
    let dead = dead.map(|((_, root, partition), tail)| ((root, partition), tail));
    Tails { outputs, dead_letters: dead.collect(), fences: Vec::new() }
}
