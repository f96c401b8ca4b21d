//! One call of a stage: made, counted, judged, told.

use std::time::Instant;

use sluicebox_core::partition::{Call, Serves, Verdict};
use sluicebox_engine::invoker::{Invocation, Outcome, Said, Short};

use super::invokers::UNKNOWN_CODE;
use super::partition::Driver;
use super::said::{report, trapped};
use super::streams::said_of;
use crate::running::StageRuntime;

impl Driver {
    /// Makes a call. False if there was no room for it, and the batch is set aside.
    pub(super) async fn call(&mut self, call: Call, time: u64, seed: u64) -> bool {
        let call = match self.has_room(call).await {
            Ok(call) => call,
            Err(goes_on) => return goes_on,
        };
        let Call { stage, serves, code, mut layer, last } = call;
        let mut entered = self.enter(stage, &mut layer);
        let size = (layer.frame().len(), layer.frame().bytes().len());
        let events = size.0 as u64;
        let shares = self.shares(layer.frame());
        let shared = matches!(serves, Serves::Any);
        let stream = matches!(serves, Serves::Stream(..));
        let of_stream = stream.then(|| serves.clone());
        let invocation = Invocation { serves, layer, last, time, seed };
        let Some(invoker) = self.invokers[stage].of(code) else {
            self.machine.done(invocation.layer, Verdict::Lost(UNKNOWN_CODE.to_owned()));
            return true;
        };
        let began = Instant::now();
        let Outcome { layer, verdict, usage, mut said } = invoker.invoke(invocation).await;
        let took = began.elapsed();
        let verdict = match usage.short.filter(|_| stream && self.segment.durable.is_some()) {
            Some(Short::Others) => {
                self.set_aside(stage, layer, &said_of(verdict));
                return false;
            }
            // It would come to something else under another quota.
            Some(Short::Quota) => Verdict::Trapped(said_of(verdict)),
            None => verdict,
        };
        if self.has_lost(&verdict) {
            self.set_aside(stage, layer, "a device was lost, with what it was for");
            return false;
        }
        let runtime = &self.segment.stages[stage];
        let metrics = &runtime.metrics;
        if let Some(shares) = shares {
            let cost = (usage.fuel, took);
            self.segment.shared.requests.charge(&runtime.name, &shares, cost);
        }
        metrics.called((events, usage.fuel), took);
        if usage.cold {
            metrics.instances_created.inc();
        }
        if usage.cold || !shared {
            runtime.note_instances();
        }
        entered.returned(&verdict, &usage);
        let is_last = events <= 1 || stream && self.segment.durable.is_none();
        runtime.came_to(&verdict, layer.emitted_events(), (&mut said, is_last));
        let stands = self.machine.done(layer, verdict);
        self.handed.called((&*self.segment, stage), (began, took), size, stands);
        self.note_outcome(stage, (usage.fuel, events), stands);
        if let Some(serves) = of_stream.filter(|_| !stands) {
            // It may have returned, and remember what was taken back.
            self.drop_instance(stage, &serves);
        }
        // A call of several events that is taken back is made again, and says all of it again.
        if !stands && !stream && events > 1 {
            said.lines.clear();
        }
        let stage = (&self.segment.stages[stage], self.mailbox.partition, entered.trace());
        report(&self.segment, stage, said, stands);
        self.left(entered, stands);
        true
    }
}

impl Driver {
    fn note_outcome(&mut self, stage: usize, (fuel, events): (u64, u64), stands: bool) {
        self.recording.called(stage, fuel, if stands { events } else { 0 });
        if !stands {
            let metrics = &self.segment.stages[stage].metrics;
            metrics.retries.add(events);
            metrics.taken_back.inc();
        }
    }
}

impl StageRuntime {
    /// Counts what a call came to. `is_last`: it is not made again in parts.
    fn came_to(&self, verdict: &Verdict, emitted: usize, (said, is_last): (&mut Said, bool)) {
        match verdict {
            Verdict::Returned(failures) if failures.is_empty() => {
                self.metrics.events_out.add(emitted as u64);
            }
            Verdict::Returned(failures) => self.metrics.failures.add(failures.len() as u64),
            Verdict::Trapped(text) | Verdict::Lost(text) => {
                let is_last = is_last || matches!(verdict, Verdict::Lost(_));
                trapped(self, said, text, is_last);
                self.note_instances();
            }
        }
    }
}
