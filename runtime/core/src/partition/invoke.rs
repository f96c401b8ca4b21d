//! Forming the next call and judging what came back.

use std::ops::Range;
use std::sync::Arc;

use super::history::Life;
use super::isolate::{Isolation, Lost, Step};
use super::ledger::TOO_LARGE;
use super::{Halt, Partition, Verdict, layer_of};
use crate::frame::{Event, Frame, FrameBuilder, HEADER_BYTES};
use crate::layer::Layer;
use crate::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};
use crate::pipeline::{OnFailure, Scope};

/// Whom the instance of a call serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Serves {
    /// Anyone: take any warm instance of the stage.
    Any,
    /// This key, for the life of the instance.
    Key(Arc<[u8]>),
    /// This stream of this key; serials tell a key's successive streams apart.
    Stream(Arc<[u8]>, u64),
}

/// One call to make.
#[derive(Debug)]
pub struct Call {
    /// Index of the stage in the segment.
    pub stage: usize,
    /// Which instance to use.
    pub serves: Serves,
    /// Which code of the stage: the one its stream opened with, or the one it has.
    pub code: u32,
    /// What the call may do, with the events it is given.
    pub layer: Box<Layer>,
    /// Drop the instance after the call: its stream has ended.
    pub last: bool,
}

/// Events of one stage that go to one instance.
#[derive(Debug)]
pub(super) struct Work {
    pub serves: Serves,
    pub frame: Frame,
    pub last: bool,
    pub isolation: Isolation,
    /// The call in flight.
    pub run: Range<u32>,
    /// Of a stream: its life when all of this stands.
    pub life: Life,
    /// Of a stream whose calls can be made again: most events in the next one.
    pub width: u32,
    /// It is the end of a stream, whose commit would be too large.
    pub gives_up: bool,
}

impl Work {
    pub(super) fn new(serves: Serves, frame: Frame) -> Self {
        let (isolation, life) = (Isolation::default(), Life::default());
        let (last, run, width) = (false, 0..0, u32::MAX);
        Self { serves, frame, last, isolation, run, life, width, gives_up: false }
    }

    /// Events of a stream, which ends with them if they are the `last`.
    pub(super) fn of_stream(key: &Arc<[u8]>, life: Life, frame: Frame, last: bool) -> Self {
        let serves = Serves::Stream(key.clone(), life.serial);
        Self { last, life, ..Self::new(serves, frame) }
    }
}

impl Partition {
    /// Takes events for a stage; those of parked keys wait.
    pub(super) fn enqueue(&mut self, stage: usize, frame: Frame) {
        let frame = self.hold_followers(stage, frame);
        self.dispatch(stage, frame);
    }

    /// Divides events for a stage into work, by instance and by the bounds of a batch.
    pub(super) fn dispatch(&mut self, stage: usize, frame: Frame) {
        let plan = &self.plan.stages[stage];
        let target = &mut self.stages[stage];
        match plan.scope {
            Scope::Shared => {
                chunks(&frame, |frame| target.work.push_back(Work::new(Serves::Any, frame)));
            }
            Scope::Key => by_key(&frame, |key, events| {
                chunks(&gather(&events), |frame| {
                    target.work.push_back(Work::new(Serves::Key(key.clone()), frame));
                });
            }),
            Scope::Stream => target.streams.push(frame),
        }
    }

    /// The next call of the current stage; `None` if it has no more work or the partition halted.
    pub(super) fn call_of_current(&mut self) -> Option<Call> {
        let at = self.current;
        let retries = self.plan.stages[at].retries;
        loop {
            let can_repeat = self.ledger.is_some();
            let stage = &mut self.stages[at];
            let width = stage.width;
            let Some(work) = stage.work.front_mut() else {
                if self.divide_waiting() {
                    continue;
                }
                return None;
            };
            if std::mem::take(&mut work.gives_up) {
                work.isolation = Isolation::behind(work.frame.len() as u32);
                let (class, why) = TOO_LARGE;
                if !self.give_up(&Lost { event: 0, class, message: why.to_owned() }) {
                    return None;
                }
                continue;
            }
            let len = work.frame.len() as u32;
            let width = match (&work.serves, can_repeat) {
                (Serves::Stream(..), true) => work.width,
                // A call that cannot be made again is never divided.
                (Serves::Stream(..), false) => len,
                _ => width,
            };
            match work.isolation.next(len, width, retries) {
                Step::Finished => {
                    let done = stage.work.pop_front();
                    if let Some(done) = done.filter(|done| done.last) {
                        self.close_stream(&done);
                    }
                }
                Step::GiveUp(lost) => {
                    if !self.give_up(&lost) {
                        return None;
                    }
                }
                Step::Run(run) => {
                    let state = stage.layer.as_mut().expect("one call at a time").state();
                    let run = match state.is_whole() {
                        true => run,
                        false => self.wanting.next(at, state, &work.frame, run)?,
                    };
                    let frame = slice(&work.frame, &run);
                    work.run = run;
                    let serves = work.serves.clone();
                    let last = work.last;
                    let code = match &serves {
                        Serves::Stream(..) => work.life.code,
                        Serves::Any | Serves::Key(_) => self.plan.stages[at].codes.now,
                    };
                    let mut layer = stage.layer.take().expect("one call at a time");
                    layer.begin(frame);
                    return Some(Call { stage: at, serves, code, layer, last });
                }
            }
        }
    }

    /// Files the verdict on the call that just came back. True if what it did stands.
    pub(super) fn judge(&mut self, verdict: Verdict) -> bool {
        let stage = &mut self.stages[self.current];
        let layer = layer_of(stage);
        let verdict = with_host_failures(verdict, layer);
        let work = stage.work.front().expect("the call came from this work");
        if matches!(work.serves, Serves::Stream(..)) {
            return self.judge_stream(verdict);
        }
        let stands = verdict == Verdict::Returned(Vec::new());
        if stands {
            layer_of(stage).accept();
        } else {
            layer_of(stage).discard();
        }
        let mut width = stage.width;
        let work = stage.work.front_mut().expect("the call came from this work");
        let run = work.run.clone();
        let lost = work.isolation.judge(&run, verdict, &mut width);
        stage.width = width;
        if let Some(lost) = lost {
            self.give_up(&lost);
        }
        stands
    }

    /// Gives up on an event of the work at the head. False if that halts the partition.
    pub(super) fn give_up(&mut self, lost: &Lost) -> bool {
        let work = self.stages[self.current].work.front();
        let frame = work.map(|work| work.frame.clone()).expect("a lost event is of work at hand");
        self.lose(&frame, lost)
    }

    pub(super) fn lose(&mut self, frame: &Frame, lost: &Lost) -> bool {
        let event = frame.events().nth(lost.event as usize);
        if event.is_some_and(|event| self.park(&event, lost)) {
            return true;
        }
        let plan = &self.plan.stages[self.current];
        if plan.on_failure == OnFailure::Halt && !self.never_halts {
            let message = format!("{}: {}", lost.class, lost.message);
            self.halted = Some(Halt { stage: plan.name.clone(), message });
            return false;
        }
        if let Some(event) = event {
            self.draft.dead_letter(&plan.name, &event, lost.class, &lost.message);
        }
        true
    }
}

/// Failures the host found while taking emits count like those the guest reported, and a failure
/// of an event that does not exist is the guest breaking the contract.
fn with_host_failures(verdict: Verdict, layer: &mut Layer) -> Verdict {
    let found = layer.take_failures();
    let events = layer.frame().len();
    match verdict {
        Verdict::Returned(mut failures) => {
            if let Some(bad) = failures.iter().find(|f| f.event as usize >= events) {
                let event = bad.event;
                return Verdict::Trapped(format!(
                    "the stage reported a failure of event {event}, the call has {events}"
                ));
            }
            failures.extend(found);
            Verdict::Returned(failures)
        }
        gone @ (Verdict::Trapped(_) | Verdict::Lost(_)) => gone,
    }
}

/// Cuts a frame into frames within the bounds of a batch; one that is within them is passed as is.
fn chunks(frame: &Frame, mut each: impl FnMut(Frame)) {
    let fits = frame.len() <= BATCH_EVENTS_MAX && frame.bytes().len() <= BATCH_BYTES_MAX;
    if fits || frame.len() == 1 {
        if !frame.is_empty() {
            each(frame.clone());
        }
        return;
    }
    let mut starts = Vec::new();
    frame.index_into(&mut starts);
    let mut from = 0;
    while from + 1 < starts.len() {
        let within =
            |to: &usize| (starts[*to] - starts[from]) as usize <= BATCH_BYTES_MAX - HEADER_BYTES;
        let most = (from + BATCH_EVENTS_MAX).min(starts.len() - 1);
        let to = (from + 1..=most).take_while(within).last().unwrap_or(from + 1);
        each(pack(frame, starts[from], starts[to], (to - from) as u32));
        from = to;
    }
}

/// The events `run` of a frame; the frame itself if that is all of them.
pub(super) fn slice(frame: &Frame, run: &Range<u32>) -> Frame {
    if run.len() == frame.len() {
        return frame.clone();
    }
    let mut starts = Vec::new();
    frame.index_into(&mut starts);
    pack(frame, starts[run.start as usize], starts[run.end as usize], run.len() as u32)
}

fn pack(frame: &Frame, from: u32, to: u32, count: u32) -> Frame {
    let mut builder = FrameBuilder::new();
    builder.push_packed(&frame.bytes()[from as usize..to as usize], count);
    builder.finish()
}

/// Groups the events of a frame by key, in order of each key's first event.
pub(super) fn by_key(frame: &Frame, mut each: impl FnMut(Arc<[u8]>, Vec<Event<'_>>)) {
    let mut order: Vec<(&[u8], Vec<Event<'_>>)> = Vec::new();
    let mut index = std::collections::BTreeMap::new();
    let mut last = 0;
    for event in frame.events() {
        // Events of a key come in rows.
        if order.get(last).is_none_or(|(key, _)| *key != event.key) {
            last = *index.entry(event.key).or_insert_with(|| {
                order.push((event.key, Vec::new()));
                order.len() - 1
            });
        }
        order[last].1.push(event);
    }
    for (key, events) in order {
        each(Arc::from(key), events);
    }
}

fn gather(events: &[Event<'_>]) -> Frame {
    let mut builder = FrameBuilder::new();
    for event in events {
        builder.push(&event.head, event.key, event.payload, event.fields.bytes());
    }
    builder.finish()
}
