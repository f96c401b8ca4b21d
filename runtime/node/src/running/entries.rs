//! Where events of ingest go.

use sluicebox_core::pipeline::Pipeline;
use sluicebox_core::segment::Plan;

use super::Running;

impl Running {
    /// Waits until an entry may have room again.
    pub async fn room(&self) {
        let full = self
            .entered
            .iter()
            .flat_map(|segment| &self.mailboxes[*segment])
            .find(|mailbox| !mailbox.has_room());
        if let Some(mailbox) = full {
            let notified = mailbox.room.news();
            if !mailbox.has_room() {
                notified.await;
            }
        }
    }
}

/// Where ingest leads: an input of the root of a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryPoint {
    /// Which of the segments that are entered.
    pub(super) place: usize,
    pub(super) input: u16,
}

/// The entries of a pipeline, and the segments they lead to, each once.
pub(super) fn entries(pipeline: &Pipeline, plan: &Plan) -> (Vec<EntryPoint>, Vec<usize>) {
    let mut entered: Vec<usize> = Vec::new();
    let entry = |(stage, input): &(usize, u16)| {
        let segment = plan.of_stage[*stage];
        let place = entered.iter().position(|known| *known == segment).unwrap_or_else(|| {
            entered.push(segment);
            entered.len() - 1
        });
        EntryPoint { place, input: *input }
    };
    let entries = pipeline.ingest.targets.iter().map(entry).collect();
    (entries, entered)
}
