//! What becomes of the calls of streams, and what is needed when an instance has to be made again.
//!
//! - What a call did for an event whose failure was reported stands: the memory of the instance
//!   cannot be taken back for one event.
//! - With best-effort a stream lives as long as its instance: a trap ends it, and what it held
//!   becomes dead letters.
//! - With a ledger each call that stands is in the stream's history, so an instance that is gone is
//!   made again: [`Partition::revival`] says from what. So a trap is one of an event, found as in
//!   any stage, and an instance is only a cache. A stream ends early if it cannot be made again,
//!   which it can for as long as there only is no room: then the call is made later, or the batch.
//!
//! Instances are the worker's, and so are images; it asks for what is wanted before a commit.

use std::sync::Arc;

use super::history::{self, NoRevival, Replay, Revival};
use super::invoke::{Call, Serves, Work};
use super::isolate::Lost;
use super::streams::push_end;
use super::{Partition, Verdict, layer_of};
use crate::frame::{Frame, FrameBuilder, Kind};
use crate::image::Image;
use crate::layer::{Failure, Layer};

impl Partition {
    /// Sets what the randomness of the calls of the batch under way grows from.
    pub fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// What the instance of a call is made again from, if it is one of a stream that is open. To be
    /// asked when there is no instance.
    ///
    /// # Errors
    /// The stream is open, and its instance cannot be made again: [`Verdict::Lost`].
    pub fn revival(&self, call: &Call) -> Result<Option<Revival>, NoRevival> {
        let Serves::Stream(key, _) = &call.serves else { return Ok(None) };
        let opens = call.layer.frame().events().next().map(|first| first.head.kind);
        if self.ledger.is_none() || opens == Some(Kind::Open) {
            return Ok(None);
        }
        Revival::read(call.layer.state_ref(), key).map(Some)
    }

    /// Takes back the call in flight, which came to nothing that counts: it is the next call again.
    pub fn call_again(&mut self, layer: Box<Layer>) {
        let stage = &mut self.stages[self.current];
        stage.layer = Some(layer);
        layer_of(stage).discard();
    }

    /// A stream whose history is long enough for an image of its instance: the stage, whom the
    /// instance serves, and its code. To be asked when the calls of a batch are done, until there
    /// is none.
    pub fn next_image(&mut self) -> Option<(usize, Serves, u32)> {
        self.ledger.as_ref()?;
        for (at, stage) in self.stages.iter_mut().enumerate() {
            let state = stage.layer.as_ref().expect("no call is in flight").state_ref();
            if let Some((key, serial, code)) = stage.streams.next_long(state) {
                return Some((at, Serves::Stream(key, serial), code));
            }
        }
        None
    }

    /// Keeps an image of a stream's instance as it is behind its last call, in the commit of this
    /// batch.
    pub fn keep_image(&mut self, stage: usize, serves: &Serves, image: &Image) {
        if let Serves::Stream(key, _) = serves {
            history::set_image(layer_of(&mut self.stages[stage]), key, image);
        }
    }

    /// Files the verdict on a call of a stream. True if what it did stands.
    pub(super) fn judge_stream(&mut self, verdict: Verdict) -> bool {
        match (verdict, self.ledger.is_some()) {
            (Verdict::Returned(failures), keeps) => {
                self.accept_of_stream(failures, keeps);
                return true;
            }
            (Verdict::Trapped(message), true) => self.trap_of_stream(message),
            (Verdict::Trapped(message) | Verdict::Lost(message), _) => self.lose_stream(&message),
        }
        false
    }

    fn accept_of_stream(&mut self, mut failures: Vec<Failure>, keeps: bool) {
        let (time, watermark, seed) = (self.now, self.watermark, self.seed);
        let replay_bytes_max = self.plan.stages[self.current].stream.replay_bytes_max;
        let stage = &mut self.stages[self.current];
        let work = stage.work.front_mut().expect("the call came from this work");
        let Serves::Stream(key, serial) = work.serves.clone() else { return };
        let layer = stage.layer.as_mut().expect("it came back");
        layer.accept();
        history::set_life(layer.state(), &key, &work.life);
        let frame = layer.frame().clone();
        let run = work.run.clone();
        work.isolation.judge(&run, Verdict::Returned(Vec::new()), &mut work.width);
        let is_over = work.last && run.end as usize == work.frame.len();
        if keeps && !is_over {
            let call = Replay { frame: frame.clone(), time, watermark, seed };
            let is_long = history::add(layer.state(), &key, &call, replay_bytes_max);
            // A refusal for what other keys have would not come again.
            let saw_others = layer.state().take_full() | layer.timers().take_full();
            if is_long || saw_others {
                stage.streams.note_long(&key, serial);
            }
        }
        failures.sort_by_key(|failure| failure.event);
        failures.dedup_by_key(|failure| failure.event);
        for Failure { event, message, .. } in failures {
            if !self.lose(&frame, &Lost { event, class: "reject", message }) {
                return;
            }
        }
    }

    /// The instance is gone, and is made again for the next call: the events of this one are run in
    /// smaller calls, until the one is found that traps.
    fn trap_of_stream(&mut self, message: String) {
        let stage = &mut self.stages[self.current];
        layer_of(stage).discard();
        let work = stage.work.front_mut().expect("the call came from this work");
        let run = work.run.clone();
        let lost = work.isolation.judge(&run, Verdict::Trapped(message), &mut work.width);
        let Some(lost) = lost else { return };
        let kind = work.frame.events().nth(lost.event as usize).map(|event| event.head.kind);
        if kind == Some(Kind::Open) {
            // There is no stream without its beginning.
            self.lose_stream(&lost.message);
        } else {
            self.give_up(&lost);
        }
    }

    /// The stream of the work at hand ends here: what is left of it becomes dead letters.
    fn lose_stream(&mut self, message: &str) {
        let stage = &mut self.stages[self.current];
        layer_of(stage).discard();
        let work = stage.work.pop_front().expect("the call came from this work");
        let same = |other: &Work| other.serves == work.serves;
        let behind = stage.work.iter().filter(|other| same(other)).map(|other| other.frame.clone());
        let behind: Vec<Frame> = behind.collect();
        stage.work.retain(|other| !same(other));
        self.close_stream(&work);
        let first = (work.run.start, work.frame.clone());
        for (from, frame) in std::iter::once(first).chain(behind.into_iter().map(|f| (0, f))) {
            for event in from..frame.len() as u32 {
                let lost = Lost { event, class: "stream.lost", message: message.to_owned() };
                if !self.lose(&frame, &lost) {
                    return;
                }
            }
        }
    }

    /// A stream is over: its state goes with it.
    pub(super) fn close_stream(&mut self, work: &Work) {
        let Serves::Stream(key, serial) = &work.serves else { return };
        let stage = &mut self.stages[self.current];
        layer_of(stage).clear_key(key);
        stage.streams.close(key, *serial);
    }

    /// Every stream is over with its instance. Between batches.
    pub(super) fn abandon_streams(&mut self) {
        for (at, stage) in self.stages.iter_mut().enumerate() {
            let keys: Vec<Arc<[u8]>> = stage.streams.abandon();
            let layer = layer_of(stage);
            keys.iter().for_each(|key| layer.clear_key(key));
            layer.commit_state();
            self.abandoned.extend(keys.into_iter().map(|key| (at, key)));
        }
    }

    /// Begins a batch of nothing but dead letters of streams that are over with a halt. False if
    /// there are none.
    pub fn start_abandoned(&mut self, now: u64) -> bool {
        if self.abandoned.is_empty() {
            return false;
        }
        self.start(FrameBuilder::new().finish(), now);
        true
    }

    /// What became of streams that are over with a halt is told with the commit at hand.
    pub(super) fn tell_abandoned(&mut self) {
        let abandoned = std::mem::take(&mut self.abandoned);
        for (at, key) in abandoned {
            let mut builder = FrameBuilder::new();
            push_end(&mut builder, &key, self.now);
            for event in builder.finish().events() {
                let stage = &self.plan.stages[at].name;
                self.draft.dead_letter(stage, &event, "stream.lost", ABANDONED);
            }
        }
    }

    /// From now on what fails becomes a dead letter, where a stage would halt the partition. For
    /// who ends streams behind a halt, and nothing else.
    pub fn halt_no_more(&mut self) {
        self.never_halts = true;
    }
}

/// What the dead letter of a stream says that is over with a halt.
const ABANDONED: &str = "the partition halted, and with delivery best-effort its open streams were \
                         over: what their instances held was taken back with the batch";
