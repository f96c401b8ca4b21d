//! Open streams of one stage in one partition: when one begins, goes idle, ends.
//!
//! - A key has at most one open stream. It opens with its first event, which the stage sees behind
//!   an event of kind open, and ends behind an event of kind end: sent by a producer, or made here
//!   when a limit is reached or the stream was idle for too long.
//! - A later event of the key opens a new stream with a higher serial.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Partition;
use super::invoke::{Serves, Work};
use crate::frame::{Event, Frame, FrameBuilder, Head, Kind, NO_CAUSE};
use crate::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};
use crate::pipeline::StreamLimits;

#[derive(Debug)]
pub(super) struct Streams {
    open: BTreeMap<Arc<[u8]>, Open>,
    /// Streams that may still be opened.
    room: usize,
    /// Keys by the time something happens to them next; rebuilt lazily.
    by_deadline: BTreeMap<(u64, u64), Arc<[u8]>>,
    serial: u64,
}

#[derive(Debug)]
struct Open {
    serial: u64,
    opened_at: u64,
    deadline: u64,
    events: u64,
    bytes: u64,
}

/// The time, and what ends a stream by itself.
#[derive(Clone, Copy)]
pub(super) struct When<'l> {
    pub now: u64,
    pub limits: &'l StreamLimits,
}

impl Default for Streams {
    fn default() -> Self {
        Self { open: BTreeMap::new(), room: usize::MAX, by_deadline: BTreeMap::new(), serial: 0 }
    }
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// How many more streams may be opened before some are ended.
    pub(super) fn bound(&mut self, room: usize) {
        self.room = room;
    }

    /// True if an event of this key would need a stream that may not be opened.
    fn refuses(&self, key: &Arc<[u8]>) -> bool {
        self.room == 0 && !self.open.contains_key(key)
    }

    /// Divides a key's events into calls, opening and ending streams as they come. Gives back the
    /// events whose stream may not be opened.
    pub(super) fn take<'e>(
        &mut self,
        key: Arc<[u8]>,
        events: &[Event<'e>],
        when: &When<'_>,
        mut each: impl FnMut(Work),
    ) -> Vec<Event<'e>> {
        let When { now, limits } = *when;
        let mut refused = Vec::new();
        let mut builder = FrameBuilder::new();
        for event in events {
            if self.refuses(&key) {
                refused.push(*event);
                continue;
            }
            let full = builder.len() >= BATCH_EVENTS_MAX - 2
                || (!builder.is_empty() && builder.bytes_len() + event.size() > BATCH_BYTES_MAX);
            if full {
                let serial = self.open.get(&key).map_or(self.serial, |open| open.serial);
                each(Work::new(Serves::Stream(key.clone(), serial), builder.finish()));
            }
            let open = self.open_or_begin(&key, event, now, &mut builder);
            open.events += 1;
            open.bytes += event.payload.len() as u64;
            let serial = open.serial;
            let over = open.events >= limits.events_max || open.bytes >= limits.bytes_max;
            builder.push(&event.head, event.key, event.payload, event.fields.bytes());
            let ended = event.head.kind == Kind::End;
            if over && !ended {
                push_end(&mut builder, &key, event.head.time);
            }
            if over || ended {
                self.forget(&key);
                each(last(&key, serial, builder.finish()));
            }
        }
        if let Some(open) = self.open.get(&key) {
            let serial = open.serial;
            if !builder.is_empty() {
                each(Work::new(Serves::Stream(key.clone(), serial), builder.finish()));
            }
            self.touch(&key, now, limits);
        }
        refused
    }

    /// Ends every stream whose time comes up to `until`; the end is an event of `now`.
    pub(super) fn expire(&mut self, now: u64, until: u64) -> Vec<Work> {
        let mut ends = Vec::new();
        while let Some(entry) = self.by_deadline.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let key = entry.remove();
            if let Some(open) = self.open.remove(&key) {
                let mut builder = FrameBuilder::new();
                push_end(&mut builder, &key, now);
                ends.push(last(&key, open.serial, builder.finish()));
            }
        }
        ends
    }

    /// When [`Streams::expire`] has something to do next.
    pub(super) fn next_deadline(&self, _limits: &StreamLimits) -> Option<u64> {
        self.by_deadline.first_key_value().map(|((at, _), _)| *at)
    }

    /// Forgets a stream whose instance is gone; a newer one of the same key stays.
    pub(super) fn lose(&mut self, key: &Arc<[u8]>, serial: u64) {
        if self.open.get(key).is_some_and(|open| open.serial == serial) {
            self.forget(key);
        }
    }

    /// Forgets all streams: their instances are gone.
    pub(super) fn abandon(&mut self) {
        self.open.clear();
        self.by_deadline.clear();
    }

    fn open_or_begin(
        &mut self,
        key: &Arc<[u8]>,
        event: &Event<'_>,
        now: u64,
        builder: &mut FrameBuilder,
    ) -> &mut Open {
        let Self { serial, room, .. } = self;
        self.open.entry(key.clone()).or_insert_with(|| {
            *serial += 1;
            *room = room.saturating_sub(1);
            let head = Head { kind: Kind::Open, cause: NO_CAUSE, ..event.head };
            builder.push(&head, key, &[], &[]);
            // A deadline of 0 is in no list yet.
            Open { serial: *serial, opened_at: now, deadline: 0, events: 0, bytes: 0 }
        })
    }

    fn touch(&mut self, key: &Arc<[u8]>, now: u64, limits: &StreamLimits) {
        let Some(open) = self.open.get_mut(key) else { return };
        self.by_deadline.remove(&(open.deadline, open.serial));
        let idle = now.saturating_add(limits.idle_timeout_ms.saturating_mul(1000));
        let over = open.opened_at.saturating_add(limits.duration_max_ms.saturating_mul(1000));
        open.deadline = idle.min(over).max(1);
        self.by_deadline.insert((open.deadline, open.serial), key.clone());
    }

    fn forget(&mut self, key: &Arc<[u8]>) {
        if let Some(open) = self.open.remove(key) {
            self.by_deadline.remove(&(open.deadline, open.serial));
        }
    }
}

impl Partition {
    /// Begins a batch of nothing but streams that end now. False if there are none.
    pub fn start_ends(&mut self, now: u64) -> bool {
        self.start_ends_until(now, now)
    }

    /// The same for every open stream, whenever its time would come.
    pub fn start_all_ends(&mut self, now: u64) -> bool {
        self.start_ends_until(now, u64::MAX)
    }

    fn start_ends_until(&mut self, now: u64, until: u64) -> bool {
        self.begin(now);
        let mut any = false;
        for stage in &mut self.stages {
            let ends = stage.streams.expire(now, until);
            any |= !ends.is_empty();
            stage.work.extend(ends);
        }
        if any {
            self.batch = Some(FrameBuilder::new().finish());
            self.note_ends(until);
        }
        any
    }

    /// When `start_ends` has something to do next, in the same clock as `now`.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        let each = self.stages.iter().zip(&self.plan.stages);
        each.filter_map(|(stage, plan)| stage.streams.next_deadline(&plan.stream)).min()
    }
}

fn last(key: &Arc<[u8]>, serial: u64, frame: Frame) -> Work {
    let mut work = Work::new(Serves::Stream(key.clone(), serial), frame);
    work.last = true;
    work
}

fn push_end(builder: &mut FrameBuilder, key: &[u8], time: u64) {
    let head = Head { kind: Kind::End, input: 0, port: 0, cause: NO_CAUSE, time };
    builder.push(&head, key, &[], &[]);
}
