//! What is asked of another node about partitions of a pipeline that it has, or is to have.

use std::time::Duration;

use bytes::Bytes;
use sluicebox_core::ids::{Name, PipelineId};

use super::{FILE_TIME_MAX, MOVE_TIME_MAX, PEER, to_json};
use crate::cluster::Peer;
use crate::describe::PartitionDetail;
use crate::error::Error;
use crate::moving::pages::PAGE_BYTES_MAX;
use crate::moving::{Joining, Placed, Preparing, Shape};
use crate::plan::report::Report;

/// How long a look at a part may take.
const LOOK_TIME_MAX: Duration = Duration::from_secs(2);

/// What the smallest log there can be takes in a record: a node of before does not say it.
const RECORD_ROOM_LEAST: usize = 500 << 10;

/// A tenant's pipeline.
type Named<'a> = (&'a Name, &'a Name);

fn path((tenant, name): Named<'_>, step: &str, id: PipelineId) -> String {
    format!("{PEER}/tenants/{tenant}/pipelines/{name}/{step}?pipeline={}", id.0)
}

/// Partitions as they are written in questions.
pub(crate) fn list(partitions: &[u16]) -> String {
    let numbers: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    numbers.join(",")
}

impl Peer {
    /// Has it get ready for partitions.
    ///
    /// # Errors
    /// It refuses, with why; or it cannot be asked.
    pub(crate) async fn prepare_part(
        &self,
        named: Named<'_>,
        (id, preparing): (PipelineId, &Preparing),
    ) -> Result<(), Error> {
        let path = path(named, "prepare-part", id);
        let refusal = self.post(&path, to_json(preparing)?, MOVE_TIME_MAX).await?;
        let refusal: Option<String> = self.read(&path, &refusal)?;
        refusal.map_or(Ok(()), |why| Err(self.refuses(named.1, &why)))
    }

    /// Has it take the state of partitions from here. Where they stand has about so many bytes.
    /// Gives how many its log takes in a record.
    ///
    /// # Errors
    /// It cannot be asked, or does not manage to.
    pub(crate) async fn take_groups(
        &self,
        named: Named<'_>,
        (id, attempt): (PipelineId, u64),
        (partitions, kept_bytes, preparing): (&[u16], usize, &Preparing),
    ) -> Result<usize, Error> {
        let (path, list) = (path(named, "take-groups", id), list(partitions));
        let path = format!("{path}&partitions={list}&attempt={attempt}&kept={kept_bytes}");
        let taken = self.post(&path, to_json(preparing)?, MOVE_TIME_MAX).await?;
        Ok(serde_json::from_slice(&taken).unwrap_or(RECORD_ROOM_LEAST))
    }

    /// Tells it that partitions stay here whose state it has taken.
    ///
    /// # Errors
    /// As [`Self::take_groups`].
    pub(crate) async fn drop_copied(
        &self,
        named: Named<'_>,
        (id, attempt): (PipelineId, u64),
    ) -> Result<(), Error> {
        let path = format!("{}&attempt={attempt}", path(named, "drop-copied", id));
        self.post(&path, Vec::new(), self.silence_time_max).await.map(drop)
    }

    /// How many partitions a pipeline has there, and which stages.
    ///
    /// # Errors
    /// It cannot be asked, or has none.
    pub(crate) async fn shape(&self, named: Named<'_>, id: PipelineId) -> Result<Shape, Error> {
        let shape = self.json(&path(named, "shape", id)).await?;
        shape.ok_or_else(|| self.failed("does not have the pipeline that it sends", false))
    }

    /// The page of the state of partitions that begins there; and where the next begins.
    ///
    /// # Errors
    /// It cannot be asked, or says nonsense.
    pub(crate) async fn groups_page(
        &self,
        named: Named<'_>,
        (id, partitions): (PipelineId, &[u16]),
        from: &[u8],
    ) -> Result<(Bytes, Option<Vec<u8>>), Error> {
        let from: String = from.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = path(named, "groups", id);
        let path = format!("{path}&partitions={}&from={from}", list(partitions));
        let page = self.get(&path, PAGE_BYTES_MAX, FILE_TIME_MAX).await?;
        self.divided(page)
    }

    /// Has it run partitions whose state it has taken. False if it has not.
    ///
    /// # Errors
    /// As [`Self::take_groups`].
    pub(crate) async fn join(&self, named: Named<'_>, joining: &Joining) -> Result<bool, Error> {
        let path = path(named, "join", PipelineId(joining.pipeline));
        let joined = self.post(&path, joining.to_bytes()?, MOVE_TIME_MAX).await?;
        self.read(&path, &joined)
    }

    /// Has it take what partitions changed since it took their state.
    ///
    /// # Errors
    /// As [`Self::take_groups`].
    pub(crate) async fn take_changes(
        &self,
        named: Named<'_>,
        (id, attempt): (PipelineId, u64),
        page: Vec<u8>,
    ) -> Result<(), Error> {
        let path = format!("{}&attempt={attempt}", path(named, "take-changes", id));
        self.post(&path, page, MOVE_TIME_MAX).await.map(drop)
    }

    /// Has it hand partitions back to this node. Gives how long they took nothing, in milliseconds.
    ///
    /// # Errors
    /// It refuses, with why; or it cannot be asked.
    pub(crate) async fn give_back(
        &self,
        named: Named<'_>,
        (id, partitions): (PipelineId, &[u16]),
    ) -> Result<u64, Error> {
        let path = format!("{}&partitions={}", path(named, "give-back", id), list(partitions));
        let given = self.post(&path, Vec::new(), MOVE_TIME_MAX).await?;
        let given: Result<u64, String> = self.read(&path, &given)?;
        given.map_err(|why| self.refuses(named.1, &why))
    }

    /// Where the partitions are of a pipeline whose home it is.
    ///
    /// # Errors
    /// It cannot be asked, or is not the home.
    pub(crate) async fn whereabouts(
        &self,
        named: Named<'_>,
        id: PipelineId,
    ) -> Result<Placed, Error> {
        let path = path(named, "whereabouts", id);
        let asked = tokio::time::timeout(LOOK_TIME_MAX, self.json(&path)).await;
        let placed =
            asked.unwrap_or_else(|_| Err(self.failed("does not answer in time", false)))?;
        placed.ok_or_else(|| self.failed("is not the home of its partitions", false))
    }

    /// What it does, for a plan.
    ///
    /// # Errors
    /// It cannot be asked.
    pub(crate) async fn report(&self) -> Result<Report, Error> {
        let path = format!("{PEER}/report");
        let asked = tokio::time::timeout(LOOK_TIME_MAX, self.json(&path)).await;
        let report =
            asked.unwrap_or_else(|_| Err(self.failed("does not answer in time", false)))?;
        report.ok_or_else(|| self.failed("does not say what it does", false))
    }

    /// Has it end its part, with all it has.
    ///
    /// # Errors
    /// As [`Self::take_groups`].
    pub(crate) async fn end_part(&self, named: Named<'_>, id: PipelineId) -> Result<(), Error> {
        self.post(&path(named, "end-part", id), Vec::new(), MOVE_TIME_MAX).await.map(drop)
    }

    /// Has it let halted partitions go on.
    ///
    /// # Errors
    /// As [`Self::take_groups`].
    pub(crate) async fn resume_part(&self, named: Named<'_>, id: PipelineId) -> Result<(), Error> {
        let path = path(named, "resume-part", id);
        self.post(&path, Vec::new(), self.silence_time_max).await.map(drop)
    }

    /// The partitions of a pipeline that it has.
    ///
    /// # Errors
    /// It cannot be asked.
    pub(crate) async fn partitions(
        &self,
        named: Named<'_>,
        id: PipelineId,
    ) -> Result<Vec<PartitionDetail>, Error> {
        let path = path(named, "partitions", id);
        let asked = tokio::time::timeout(LOOK_TIME_MAX, self.json(&path)).await;
        let answer =
            asked.unwrap_or_else(|_| Err(self.failed("does not answer in time", false)))?;
        Ok(answer.unwrap_or_default())
    }

    fn refuses(&self, name: &Name, why: &str) -> Error {
        let why = format!("the node {} does not do it: {why}", self.name());
        Error::Conflict { what: "pipeline", name: name.to_string(), why }
    }
}
