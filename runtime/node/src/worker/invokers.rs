//! The invokers of one stage in one partition: of the code it has, and of those it had before that
//! streams are still open with.

use std::sync::atomic::Ordering;

use sluicebox_engine::invoker::Invoker;

use crate::running::StageRuntime;

/// What is said of a stream whose code is not there.
pub(super) const UNKNOWN_CODE: &str =
    "the code the stream opened with cannot be loaded any more; the node's log says why";

/// See the module.
#[derive(Debug)]
pub(super) struct Invokers {
    /// Which code the stage has.
    code: u32,
    now: Box<dyn Invoker>,
    before: Vec<(u32, Box<dyn Invoker>)>,
}

impl Invokers {
    pub(super) fn new(
        (code, now): (u32, Box<dyn Invoker>),
        before: impl Iterator<Item = (u32, Box<dyn Invoker>)>,
    ) -> Self {
        Self { code, now, before: before.collect() }
    }

    /// Those of a code, if it is known.
    pub(super) fn of(&mut self, code: u32) -> Option<&mut dyn Invoker> {
        if code == self.code {
            return Some(&mut *self.now);
        }
        let before = self.before.iter_mut().find(|(known, _)| *known == code);
        before.map(|(_, invoker)| &mut **invoker as &mut dyn Invoker)
    }

    /// That of the code the stage has.
    pub(super) fn now(&mut self) -> &mut dyn Invoker {
        &mut *self.now
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Box<dyn Invoker>> {
        std::iter::once(&mut self.now).chain(self.before.iter_mut().map(|(_, invoker)| invoker))
    }
}

impl StageRuntime {
    /// Brings the figure of live instances up to date.
    pub(super) fn note_instances(&self) {
        let before = self.codes.before.iter().map(|before| &before.code.1);
        let live = before.chain([&self.settings]).map(|all| all.live.load(Ordering::Relaxed));
        self.metrics.instances.set(live.sum());
        self.metrics.streams_away.set(self.settings.away.load(Ordering::Relaxed));
    }
}
