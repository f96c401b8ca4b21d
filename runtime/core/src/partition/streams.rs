//! Open streams of one stage in one partition: when one begins, goes idle, ends.
//!
//! - A key has at most one open stream. It opens with its first event, which the stage sees behind
//!   an event of kind open, and ends behind an event of kind end: sent by a producer, or made here
//!   when a limit is reached or the stream was idle for too long.
//! - A later event of the key opens a new stream with a higher serial.
//! - What is known of a stream lies with its key (`history`). Beside it there is an index of all
//!   that are open, whole in memory, with a time at which each is looked at: never later than
//!   its end, and put off by the look if it lives on. So an event of a stream changes nothing here.
//! - Events are divided into calls when the turn of their stage comes, since then what is known of
//!   their keys can be loaded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::history::{self, Life};
use super::invoke::{Work, by_key};
use super::open::Index;
use super::own::Own;
use super::upgrade::Upgrades;
use super::{Codes, Partition, layer_of};
use crate::frame::{Event, Frame, FrameBuilder, Head, Kind, NO_CAUSE};
use crate::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};
use crate::pipeline::{Scope, StreamLimits};
use crate::state::KeyedState;

#[derive(Debug)]
pub(super) struct Streams {
    index: Index,
    /// Streams as they will be when the calls of the batch stand; `None`: not open.
    ahead: BTreeMap<Arc<[u8]>, Option<Life>>,
    /// Events that are not divided into calls yet.
    waiting: VecDeque<Waiting>,
    /// Streams that may still be opened.
    room: usize,
    serial: u64,
    /// The code that streams open with.
    code: u32,
    /// Streams whose history is long enough for an image.
    long: BTreeSet<(Arc<[u8]>, u64)>,
    upgrades: Upgrades,
}

/// Events that wait to be divided, from the first that was not yet.
#[derive(Debug)]
struct Waiting {
    frame: Frame,
    next: u32,
    /// They are ends made here, each of a stream whose time has come by then.
    ends: Option<Ends>,
}

/// What is to be known of ends that were made here.
#[derive(Debug, Clone, Copy)]
struct Ends {
    until: u64,
    /// The commit of the one there is would be too large.
    gives_up: bool,
}

/// The time, and what ends a stream by itself.
#[derive(Clone, Copy)]
pub(super) struct When<'l> {
    pub now: u64,
    pub limits: &'l StreamLimits,
}

impl Life {
    /// It has had as much as a stream may.
    const fn is_over(&self, limits: &StreamLimits) -> bool {
        self.events >= limits.events_max || self.bytes >= limits.bytes_max
    }

    /// When the stream ends if nothing comes.
    fn end(&self, limits: &StreamLimits) -> u64 {
        let idle = self.last_at.saturating_add(limits.idle_timeout_ms.saturating_mul(1000));
        let over = self.opened_at.saturating_add(limits.duration_max_ms.saturating_mul(1000));
        idle.min(over).max(1)
    }
}

impl Streams {
    /// Takes over the index of streams that are open.
    pub(super) fn new(state: KeyedState, codes: Codes) -> Self {
        Self {
            index: Index::new(state, codes),
            ahead: BTreeMap::new(),
            waiting: VecDeque::new(),
            room: usize::MAX,
            serial: 0,
            code: codes.now,
            long: BTreeSet::new(),
            upgrades: Upgrades::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The index, as state beside the stage's own.
    pub(super) fn index(&self) -> &KeyedState {
        self.index.state()
    }

    /// Streams with a code that the stage had before.
    pub(super) fn earlier(&self) -> usize {
        self.index.earlier()
    }

    /// The codes that streams are open with.
    pub(super) fn codes(&self) -> BTreeSet<u32> {
        self.index.codes()
    }

    pub(super) fn into_index(self) -> KeyedState {
        self.index.into_state()
    }

    /// Puts back an entry of the index as some commit left it. Between batches.
    pub(super) fn restore(&mut self, key: &[u8], slot: &[u8], value: Option<&[u8]>) {
        self.index.restore(key, slot, value);
    }

    /// How many more streams may be opened before some are ended.
    pub(super) fn bound(&mut self, room: usize) {
        self.room = room;
    }

    /// Takes events of the stage, to be divided when its turn comes.
    pub(super) fn push(&mut self, frame: Frame) {
        if !frame.is_empty() {
            self.waiting.push_back(Waiting { frame, next: 0, ends: None });
        }
    }

    /// The events that are divided next, and from which on.
    pub(super) fn front(&self) -> Option<(Frame, u32)> {
        self.waiting.front().map(|waiting| (waiting.frame.clone(), waiting.next))
    }

    /// Divides the events at the front up to `end`, whose keys are all in memory. Gives back those
    /// whose stream may not be opened.
    pub(super) fn divide(
        &mut self,
        state: &KeyedState,
        end: u32,
        when: &When<'_>,
        mut each: impl FnMut(Work),
    ) -> Frame {
        let mut refused = FrameBuilder::new();
        let Some(front) = self.waiting.front_mut() else { return refused.finish() };
        let (frame, from, ends) = (front.frame.clone(), front.next, front.ends);
        front.next = end;
        if end as usize >= frame.len() {
            self.waiting.pop_front();
        }
        let part = super::invoke::slice(&frame, &(from..end));
        by_key(&part, |key, events| {
            if let Some(ends) = ends {
                each_end(self, state, (&key, &events), (ends, when), &mut each);
                return;
            }
            if let Some(work) = self.whole(state, (&key, &events), &part, when) {
                return each(work);
            }
            for event in self.take(state, (&key, &events), when, &mut each) {
                refused.push(&event.head, event.key, event.payload, event.fields.bytes());
            }
        });
        refused.finish()
    }

    /// All events of a frame as one call of an open stream, without a copy: where they are all of
    /// its key, and nothing opens or ends with them.
    fn whole(
        &mut self,
        state: &KeyedState,
        (key, events): (&Arc<[u8]>, &[Event<'_>]),
        frame: &Frame,
        when: &When<'_>,
    ) -> Option<Work> {
        let fits = events.len() <= BATCH_EVENTS_MAX - 2 && frame.bytes().len() <= BATCH_BYTES_MAX;
        let ends = || events.iter().any(|event| event.head.kind == Kind::End);
        if events.len() != frame.len() || !fits || ends() {
            return None;
        }
        let mut life = self.life(state, key)?;
        life.events += events.len() as u64;
        life.bytes += events.iter().map(|event| event.payload.len() as u64).sum::<u64>();
        life.last_at = when.now;
        if life.is_over(when.limits) {
            return None;
        }
        self.ahead.insert(key.clone(), Some(life));
        Some(Work::of_stream(key, life, frame.clone(), false))
    }

    /// Divides a key's events into calls, opening and ending streams as they come. Gives back the
    /// events whose stream may not be opened.
    fn take<'e>(
        &mut self,
        state: &KeyedState,
        (key, events): (&Arc<[u8]>, &[Event<'e>]),
        when: &When<'_>,
        each: &mut impl FnMut(Work),
    ) -> Vec<Event<'e>> {
        let limits = when.limits;
        let mut refused = Vec::new();
        let mut builder = FrameBuilder::new();
        // Large events would be copied again and again while it grows.
        let bytes: usize = events.iter().map(Event::size).sum();
        builder.reserve(bytes.min(BATCH_BYTES_MAX));
        let mut life = self.life(state, key);
        for event in events {
            if life.is_none() && event.head.kind == Kind::Timer {
                // The stream that set it ended in this batch.
                continue;
            }
            if life.is_none() && self.room == 0 {
                refused.push(*event);
                continue;
            }
            let full = builder.len() >= BATCH_EVENTS_MAX - 2
                || (!builder.is_empty() && builder.bytes_len() + event.size() > BATCH_BYTES_MAX);
            if let Some(life) = life.filter(|_| full) {
                each(Work::of_stream(key, life, builder.finish(), false));
            }
            let now = life.get_or_insert_with(|| self.open(key, event, when, &mut builder));
            now.events += 1;
            now.bytes += event.payload.len() as u64;
            now.last_at = when.now;
            let over = now.is_over(limits);
            builder.push(&event.head, event.key, event.payload, event.fields.bytes());
            let ended = event.head.kind == Kind::End;
            if over && !ended {
                push_end(&mut builder, key, event.head.time);
            }
            if over || ended {
                each(Work::of_stream(key, *now, builder.finish(), true));
                life = None;
            }
        }
        if let Some(life) = life.filter(|_| !builder.is_empty()) {
            each(Work::of_stream(key, life, builder.finish(), false));
        }
        self.ahead.insert(key.clone(), life);
        refused
    }

    /// The stream of a key as the batch leaves it so far.
    fn life(&mut self, state: &KeyedState, key: &Arc<[u8]>) -> Option<Life> {
        let known = self.ahead.get(key).copied();
        let code = || self.index.code(key).unwrap_or(self.code);
        let kept = || history::life(state, key).map(|life| Life { code: code(), ..life });
        let life = known.unwrap_or_else(kept);
        self.serial = self.serial.max(life.map_or(0, |life| life.serial));
        life
    }

    fn open(
        &mut self,
        key: &Arc<[u8]>,
        event: &Event<'_>,
        when: &When<'_>,
        builder: &mut FrameBuilder,
    ) -> Life {
        self.serial += 1;
        self.room = self.room.saturating_sub(1);
        let head = Head { kind: Kind::Open, cause: NO_CAUSE, ..event.head };
        builder.push(&head, key, &[], &[]);
        let (now, serial) = (when.now, self.serial);
        let code = self.code;
        let life = Life { serial, code, opened_at: now, last_at: now, ..Life::default() };
        self.index.set(key, life.end(when.limits), code);
        life
    }

    /// Takes up to `most` streams whose time comes up to `until` out of the index, as ends to be
    /// divided, and gives those. Streams that are known to live on are put off.
    fn take_due(
        &mut self,
        state: &mut KeyedState,
        (now, until): (u64, u64),
        limits: &StreamLimits,
        most: usize,
    ) -> Frame {
        let mut builder = FrameBuilder::new();
        while builder.len() < most && builder.bytes_len() < BATCH_BYTES_MAX {
            let Some(key) = self.index.take_due(until) else { break };
            let lives_on = match state.lacks(&key) {
                true => None,
                false => history::life(state, &key).map(|life| life.end(limits)),
            };
            match lives_on.filter(|end| *end > until) {
                Some(end) => self.index.put_off(&key, end),
                None => push_end(&mut builder, &key, now),
            }
        }
        let frame = builder.finish();
        if !frame.is_empty() {
            let ends = Some(Ends { until, gives_up: false });
            self.waiting.push_back(Waiting { frame: frame.clone(), next: 0, ends });
        }
        frame
    }

    /// The ends that were just taken are given up on.
    fn give_up_ends(&mut self) {
        let ends = self.waiting.iter_mut().filter_map(|waiting| waiting.ends.as_mut());
        ends.for_each(|ends| ends.gives_up = true);
    }

    /// When there is something to look at next.
    fn next_due(&self) -> Option<u64> {
        self.index.next_due()
    }

    /// The stream of a key is over, unless a newer one has begun.
    pub(super) fn close(&mut self, key: &Arc<[u8]>, serial: u64) {
        let newer = self.ahead.get(key).copied().flatten();
        if newer.is_some_and(|life| life.serial != serial) {
            return;
        }
        self.ahead.insert(key.clone(), None);
        self.index.remove(key);
    }

    /// The history of a stream is long enough for an image.
    pub(super) fn note_long(&mut self, key: &Arc<[u8]>, serial: u64) {
        self.long.insert((key.clone(), serial));
    }

    /// A stream that wants an image, with its code, if there is one that is still open.
    pub(super) fn next_long(&mut self, state: &KeyedState) -> Option<(Arc<[u8]>, u64, u32)> {
        while let Some((key, serial)) = self.long.pop_first() {
            if history::life(state, &key).is_some_and(|life| life.serial == serial) {
                let code = self.index.code(&key).unwrap_or(self.code);
                return Some((key, serial, code));
            }
        }
        None
    }

    /// The streams that are to go over to the code of now.
    pub(super) fn upgrades(&mut self) -> &mut Upgrades {
        &mut self.upgrades
    }

    /// Takes the next of them for a batch. False if there are none.
    pub(super) fn take_upgrades(&mut self, most: usize) -> bool {
        let Self { index, upgrades, .. } = self;
        upgrades.take(most, || index.keys_of_before())
    }

    /// The code of the open stream of a key, if it is not that of now.
    pub(super) fn code_of_before(&self, key: &[u8]) -> Option<u32> {
        self.index.code(key).filter(|code| *code != self.code)
    }

    /// The open stream of a key has the code of now.
    pub(super) fn upgrade(&mut self, key: &Arc<[u8]>) {
        self.index.upgrade(key);
    }

    /// The batch stands.
    pub(super) fn commit(&mut self) {
        self.end_batch();
        self.upgrades.commit();
        self.index.commit();
    }

    /// The batch is taken back.
    pub(super) fn roll_back(&mut self) {
        self.end_batch();
        self.upgrades.roll_back();
        self.index.roll_back();
    }

    /// Forgets all streams, and gives their keys: their instances are gone for good.
    pub(super) fn abandon(&mut self) -> Vec<Arc<[u8]>> {
        self.end_batch();
        let keys = self.index.keys();
        keys.iter().for_each(|key| self.index.remove(key));
        self.index.commit();
        keys
    }

    fn end_batch(&mut self) {
        self.ahead.clear();
        self.waiting.clear();
        self.long.clear();
    }
}

/// Divides an end that was made here: the stream may have gone on, or be over.
fn each_end(
    streams: &mut Streams,
    state: &KeyedState,
    (key, events): (&Arc<[u8]>, &[Event<'_>]),
    (Ends { until, gives_up }, when): (Ends, &When<'_>),
    each: &mut impl FnMut(Work),
) {
    let Some(life) = streams.life(state, key) else { return streams.index.remove(key) };
    let end = life.end(when.limits);
    if end > until {
        return streams.index.put_off(key, end);
    }
    let mut builder = FrameBuilder::new();
    for event in events.iter().take(1) {
        builder.push(&event.head, event.key, event.payload, event.fields.bytes());
    }
    streams.ahead.insert(key.clone(), None);
    let work = Work::of_stream(key, life, builder.finish(), true);
    each(Work { gives_up, ..work });
}

impl Partition {
    /// Begins a batch of nothing but streams that end now. False if there are none.
    pub fn start_ends(&mut self, now: u64) -> bool {
        self.start_ends_until(now, now, |_| true)
    }

    /// The same for open streams whenever their time would come, of the stages that `ends` names;
    /// 256 of them at most.
    pub fn start_all_ends(&mut self, now: u64, ends: impl Fn(&str) -> bool) -> bool {
        self.start_ends_until(now, u64::MAX, ends)
    }

    fn start_ends_until(&mut self, now: u64, until: u64, ends: impl Fn(&str) -> bool) -> bool {
        self.begin(now);
        let mut left = self.widths.of(Own::Ends);
        let mut taken = Vec::new();
        for (at, (stage, plan)) in self.stages.iter_mut().zip(&self.plan.stages).enumerate() {
            if plan.scope == Scope::Stream && ends(&plan.name) {
                let state = stage.layer.as_mut().expect("no call is in flight").state();
                let frame = stage.streams.take_due(state, (now, until), &plan.stream, left);
                left -= frame.len();
                taken.push((at, frame));
            }
        }
        let events = || taken.iter().flat_map(|(at, f)| f.events().map(|event| (*at, event)));
        if events().next().is_none() {
            return false;
        }
        self.batch = Some(FrameBuilder::new().finish());
        let gives_up = self.widths.begin(Own::Ends, events());
        if gives_up {
            self.stages.iter_mut().for_each(|stage| stage.streams.give_up_ends());
        }
        self.note_ends(until, gives_up);
        true
    }

    /// When `start_ends` has something to do next, in the same clock as `now`.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        self.stages.iter().filter_map(|stage| stage.streams.next_due()).min()
    }

    /// Divides what waits at the current stage into work. False if nothing waits, or keys have to
    /// be loaded first.
    pub(super) fn divide_waiting(&mut self) -> bool {
        let at = self.current;
        let Some((frame, from)) = self.stages[at].streams.front() else { return false };
        let plan = self.plan.clone();
        let plan = &plan.stages[at];
        let stage = &mut self.stages[at];
        let run = from..frame.len() as u32;
        let state = layer_of(stage).state();
        let ready = match state.is_whole() {
            true => Some(run),
            false => self.wanting.next(at, state, &frame, run),
        };
        let Some(ready) = ready else { return false };
        let when = When { now: self.now, limits: &plan.stream };
        let stage = &mut self.stages[at];
        let state = stage.layer.as_ref().expect("no call is in flight").state_ref();
        let work = &mut stage.work;
        let refused = stage.streams.divide(state, ready.end, &when, |one| work.push_back(one));
        for event in refused.events() {
            self.draft.dead_letter(&plan.name, &event, "stream.quota", NO_STREAM);
        }
        true
    }
}

/// What the dead letter of an event says whose stream was not opened.
const NO_STREAM: &str = "the tenant has as many open streams as its quota (streams) allows";

pub(super) fn push_end(builder: &mut FrameBuilder, key: &[u8], time: u64) {
    let head = Head { kind: Kind::End, input: 0, port: 0, cause: NO_CAUSE, time };
    builder.push(&head, key, &[], &[]);
}
