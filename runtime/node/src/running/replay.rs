//! Giving dead letters to the stage they failed in again: one page of them at a time.
//!
//! - An event enters at its stage, as the stage was given it: same input, key, payload and fields.
//!   That stage may be inside a segment; then it goes through the segment's root without being
//!   handled there (`partition/entry.rs` in core).
//! - In a pipeline with a log a page is one record, which says which dead letters it holds. So each
//!   is replayed once, however often and by however many somebody asks, over restarts too.
//!   Otherwise each is replayed whenever somebody asks.
//! - A page is taken whole or not at all.
//!
//! Drawing on quotas and answering is the business of `http/replay.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use sluicebox_core::frame::{Event, FrameBuilder, Kind};
use sluicebox_core::ids::StageId;
use sluicebox_core::key;
use sluicebox_core::partition::{dead_letter_field, push_again};
use sluicebox_core::replayed::{Offsets, Replayed, ReplayedRun};
use sluicebox_store::log::Position;

use super::Running;
use crate::durable::Entry;
use crate::error::Error;
use crate::mailbox::Delivery;
use crate::ring::{Cursor, Page};

/// Events of a page, and the bytes they may have unless one alone has more.
const PAGE_EVENTS: usize = 1000;
const PAGE_BYTES: usize = 1024 * 1024;

/// When to try again for want of room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Which dead letters.
#[derive(Debug, Clone)]
pub struct Asked {
    /// From here on.
    pub from: Cursor,
    /// Up to here; none: up to where they end now.
    pub until: Option<Cursor>,
    /// Only those of this stage.
    pub stage: Option<String>,
    /// Look at no more than these.
    pub events_max: usize,
}

/// What became of a page.
#[derive(Debug)]
pub struct Outcome {
    /// Events that were given to their stage.
    pub replayed: u64,
    /// Dead letters that had been replayed before.
    pub duplicates: u64,
    /// Those that have no place in this version: their stage, or its input, is not there.
    pub skipped: u64,
    /// Where to go on.
    pub next: Cursor,
    /// How far to go.
    pub until: Cursor,
    /// Where in the log they are, if it has any.
    pub at: Option<Position>,
}

impl Outcome {
    /// True if nothing is left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.next.reaches(&self.until)
    }
}

/// A dead letter that was asked for, and its place.
struct Found<'p> {
    /// Partition and offset in the ring.
    at: u16,
    offset: u64,
    /// Segment, index of the stage in it, and partition.
    to: Option<(usize, usize, u16)>,
    event: Event<'p>,
}

impl Running {
    /// Replays a page of dead letters. `draw` is told how many events and bytes it is, and may
    /// refuse.
    ///
    /// # Errors
    /// The cursor is trimmed; there is no room; what `draw` and the log refuse. Nothing was taken.
    pub fn replay(
        &self,
        asked: &Asked,
        now: u64,
        draw: impl FnOnce(u64, u64) -> Result<(), Error>,
    ) -> Result<Outcome, Error> {
        // Counted as under way before the look at `paused`, as an intake is.
        self.shared.entered();
        let outcome = self.replay_page(asked, now, draw);
        self.shared.left(1);
        outcome
    }

    fn replay_page(
        &self,
        asked: &Asked,
        now: u64,
        draw: impl FnOnce(u64, u64) -> Result<(), Error>,
    ) -> Result<Outcome, Error> {
        if self.is_paused() {
            return Err(Error::Busy { what: "the pipeline", retry_after: RETRY_AFTER });
        }
        self.check_disk()?;
        let until = asked.until.clone().unwrap_or_else(|| self.shared.dead_letters.ring.latest());
        let page = self.page(asked)?;
        let found = self.find(asked, &page, &until);
        let placed = || found.iter().filter(|found| found.to.is_some());
        let bytes: usize = placed().map(|found| found.event.payload.len()).sum();
        let events = placed().count() as u64;
        let skipped = found.len() as u64 - events;
        for (segment, _, partition) in placed().filter_map(|found| found.to) {
            if !self.mailboxes[segment][usize::from(partition)].has_room() {
                return Err(Error::Busy { what: "the pipeline", retry_after: RETRY_AFTER });
            }
        }
        if events > 0 {
            draw(events, bytes as u64)?;
        }
        let (mut replayed, mut at) = (events, None);
        if let Some(durable) = self.durable() {
            at = durable.replay(now, |known| {
                let fresh: Vec<&Found<'_>> =
                    placed().filter(|found| !self.was_replayed(known, found)).collect();
                replayed = fresh.len() as u64;
                Ok((self.entries_of(&fresh)?, self.runs_of(&fresh, known)?))
            })?;
        } else {
            let all: Vec<&Found<'_>> = placed().collect();
            for ((segment, partition), mut builder) in self.builders_of(&all) {
                let to = &self.mailboxes[segment][usize::from(partition)];
                to.push_over(Delivery::from(builder.finish()));
            }
        }
        let duplicates = events - replayed;
        Ok(Outcome { replayed, duplicates, skipped, next: page.next, until, at })
    }

    /// As many dead letters as a page may have.
    fn page(&self, asked: &Asked) -> Result<Page, Error> {
        let ring = &self.shared.dead_letters.ring;
        let mut events = asked.events_max.clamp(1, PAGE_EVENTS);
        loop {
            let page = ring.read_limited(&asked.from, events, PAGE_BYTES);
            let page =
                page.map_err(|trimmed| Error::Trimmed { oldest: trimmed.oldest.to_string() })?;
            let each = page.chunks.iter().flat_map(|chunk| chunk.events());
            let bytes: usize = each.map(|(_, event)| event.size()).sum();
            if bytes <= PAGE_BYTES || events == 1 {
                return Ok(page);
            }
            events = events.div_ceil(2);
        }
    }

    /// Those of a page that were asked for.
    fn find<'p>(&self, asked: &Asked, page: &'p Page, until: &Cursor) -> Vec<Found<'p>> {
        let mut found = Vec::new();
        for chunk in &page.chunks {
            let end = until.offset(chunk.partition);
            for (offset, event) in chunk.events().take_while(|(offset, _)| *offset < end) {
                let stage = event.fields.get(dead_letter_field::STAGE).unwrap_or_default();
                let wanted = asked.stage.as_ref().is_none_or(|wanted| wanted.as_bytes() == stage);
                // Streams are opened by the host, when their first event comes.
                if wanted && event.head.kind != Kind::Open {
                    let to = self.place_of(stage, &event);
                    found.push(Found { at: chunk.partition, offset, to, event });
                }
            }
        }
        found
    }

    /// Where an event enters: segment, index of the stage in it, partition.
    fn place_of(&self, stage: &[u8], event: &Event<'_>) -> Option<(usize, usize, u16)> {
        let stages = &self.pipeline.stages;
        let index = stages.iter().position(|known| known.name.as_bytes() == stage)?;
        stages[index].inputs.get(usize::from(event.head.input))?;
        let segment = self.plan.of_stage[index];
        let at = self.plan.segments[segment].stages.iter().position(|known| *known == index)?;
        let partition = key::partition_of(key::group_of(event.key), self.partitions);
        Some((segment, at, partition))
    }

    fn was_replayed(&self, known: &Replayed, found: &Found<'_>) -> bool {
        known.contains(self.shared.dead_letters.place(found.at), found.offset)
    }

    /// The events as they enter, by segment and partition.
    fn builders_of(&self, events: &[&Found<'_>]) -> BTreeMap<(usize, u16), FrameBuilder> {
        let mut builders: BTreeMap<(usize, u16), FrameBuilder> = BTreeMap::new();
        for found in events {
            let Some((segment, at, partition)) = found.to else { continue };
            let index = self.plan.segments[segment].stages[at];
            let inner = (at > 0).then(|| self.pipeline.stages[index].name.as_str());
            push_again(&found.event, inner, builders.entry((segment, partition)).or_default());
        }
        builders
    }

    fn entries_of(&self, events: &[&Found<'_>]) -> Result<Vec<Entry>, Error> {
        let entry = |((segment, partition), mut builder): ((usize, u16), FrameBuilder)| {
            let to = self.mailboxes[segment][usize::from(partition)].clone();
            let durable = to.segment.durable.as_ref();
            let root = durable.and_then(|durable| durable.stages.first());
            let root = root.ok_or_else(|| Error::Internal("a segment without numbers".into()))?;
            Ok(Entry { stage: root.stage, to, frame: builder.finish() })
        };
        self.builders_of(events).into_iter().map(entry).collect()
    }

    /// Which dead letters the events are.
    fn runs_of(&self, events: &[&Found<'_>], known: &Replayed) -> Result<Vec<ReplayedRun>, Error> {
        let mut runs: BTreeMap<u16, ReplayedRun> = BTreeMap::new();
        for found in events {
            let (root, partition): (StageId, u16) = self.shared.dead_letters.place(found.at);
            let run = runs.entry(found.at).or_insert_with(|| {
                let kept_from = self.shared.dead_letters.ring.kept_from(found.at);
                ReplayedRun { root, partition, kept_from, offsets: Offsets::default() }
            });
            run.offsets.insert(found.offset..found.offset + 1);
        }
        if runs.values().any(|run| known.is_too_scattered(run)) {
            return Err(Error::Conflict {
                what: "pipeline",
                name: self.name().to_string(),
                why: "too many stretches of its dead letters were replayed one by one to remember \
                      more; replay all of them, without naming a stage"
                    .to_owned(),
            });
        }
        Ok(runs.into_values().collect())
    }
}
