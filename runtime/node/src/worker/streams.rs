//! Instances of streams in a pipeline with a log: made again when they are gone, and images taken
//! of their memory.
//!
//! - An instance is a cache of what the stream's history says (`core/partition/history.rs`). It may
//!   go at any time between two batches: with the node, for want of room, or after a trap.
//! - What is replayed is not billed and not counted, and what it says is not passed on.
//! - What others use decides nothing about a stream. A call that was refused room is as if it had
//!   not been made: the batch is set aside, all instances of the partition make way, and after a
//!   pause it is run again. A quota that does not hold the instance by itself is waited for when
//!   the instance is made again; for a call it is a limit as any other. A stream is lost when its
//!   calls do not repeat, or what is kept is no good.
//! - An image is part of the commit of the batch behind which it was taken. Those of one commit are
//!   bounded; a stream that has to wait for its image goes on with its history.

use std::time::Instant;

use sluicebox_core::codec::Usage;
use sluicebox_core::image::Image;
use sluicebox_core::key;
use sluicebox_core::layer::Layer;
use sluicebox_core::partition::{Call, Replay, Revival, Serves, Verdict};
use sluicebox_engine::invoker::{Invocation, NoImage};

use super::invokers::{Invokers, UNKNOWN_CODE};
use super::partition::{Driver, SLICE, park};

/// Bytes of images in one commit, about: a quarter of what a record may have by default.
pub(super) const IMAGES_BYTES: u64 = 8 * 1024 * 1024;

/// The shortest and the longest pause before a batch without room is run again, in microseconds.
/// Whoever waits for it inside the engine has waited about a second by then.
const PAUSE_MIN: u64 = 100_000;
const PAUSE_MAX: u64 = 5_000_000;

/// A batch that was set aside for want of room.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// When it is run again.
    until: Option<u64>,
    /// The pause it has; 0 if the last batch had room.
    pause: u64,
    /// What was used before the batch.
    pub used: Vec<Usage>,
    /// Losses of devices before it.
    pub losses: u64,
}

/// Why an instance is not made again.
#[derive(Debug)]
pub(super) enum Gone {
    /// There is no room now.
    NoRoom(String),
    /// It cannot be.
    Lost(String),
}

impl Rest {
    /// When the partition goes on, if it has to wait.
    pub(super) fn until(&mut self, now: u64) -> Option<u64> {
        self.until = self.until.filter(|until| *until > now);
        self.until
    }

    /// Lets it go on at once.
    pub(super) fn hurry(&mut self) {
        self.until = None;
    }

    /// A batch came to its end. True if one before had no room.
    pub(super) fn over(&mut self) -> bool {
        std::mem::take(&mut self.pause) > 0
    }

    /// The next pause begins. Those of partitions that wait for one another differ.
    fn begin(&mut self, now: u64, partition: u16) {
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        let chance = key::hash(&[partition.to_le_bytes().as_slice(), &now.to_le_bytes()].concat());
        self.until = Some(now + self.pause / 2 + chance % self.pause);
    }
}

impl Driver {
    /// Makes a call as it is to be made, or the batch is set aside: then this is false.
    pub(super) async fn has_room(&mut self, call: Call) -> Result<Call, bool> {
        match self.bring_back(&call).await {
            Ok(()) => Ok(call),
            Err(Gone::Lost(message)) => {
                self.machine.done(call.layer, Verdict::Lost(message));
                Err(true)
            }
            Err(Gone::NoRoom(why)) => {
                let why = format!("there is no room for an instance of a stream: {why}");
                self.set_aside(call.stage, call.layer, &why);
                Err(false)
            }
        }
    }

    /// Takes back the batch of a call that there is no room for, to be run again later.
    pub(super) fn set_aside(&mut self, stage: usize, layer: Box<Layer>, why: &str) {
        if self.rest.pause == 0 {
            tracing::warn!(
                tenant = %self.segment.shared.tenant.name(),
                pipeline = %self.segment.shared.name,
                stage = self.segment.stages[stage].name.as_str(),
                partition = self.mailbox.partition,
                "a batch is run again in a while: {why}",
            );
        }
        self.segment.stages[stage].metrics.stream_waits.inc();
        self.machine.call_again(layer);
        self.machine.set_aside();
        self.drop_instances();
        let parts = std::mem::take(&mut self.recording.parts);
        if !parts.is_empty() {
            self.recording.divided.push_front(parts);
        }
        self.recording.used.clone_from(&self.rest.used);
        self.mailbox.set_short(true);
        self.rest.begin(self.local.clock.now(), self.mailbox.partition);
        self.note_state();
    }

    /// How often a device was lost that stages use.
    pub(super) fn losses(&self) -> u64 {
        let mut gpus = self.segment.stages.iter().filter_map(|stage| stage.settings.gpu.as_ref());
        gpus.next().map_or(0, |gpu| gpu.losses())
    }

    /// Whether a call of the batch failed while a device was lost: what it used is gone, and what
    /// a stage before it had attached can only be made by that. Not without end: a batch that
    /// takes the device with it each time is one that fails.
    pub(super) fn has_lost(&self, verdict: &Verdict) -> bool {
        let is_whole = matches!(verdict, Verdict::Returned(failures) if failures.is_empty());
        let may_wait = self.segment.durable.is_some() && self.rest.pause < PAUSE_MAX;
        !is_whole && may_wait && self.losses() != self.rest.losses
    }

    /// Makes the instance of a call again if it is one of an open stream and gone.
    ///
    /// # Errors
    /// It is not made again, and why.
    pub(super) async fn bring_back(&mut self, call: &Call) -> Result<(), Gone> {
        let is_stream = matches!(call.serves, Serves::Stream(..));
        if !is_stream || self.segment.durable.is_none() {
            return Ok(());
        }
        let Some(invoker) = self.invokers[call.stage].of(call.code) else {
            return Err(Gone::Lost(UNKNOWN_CODE.to_owned()));
        };
        if invoker.holds(&call.serves) {
            return Ok(());
        }
        match self.machine.revival(call) {
            Ok(None) => Ok(()),
            Ok(Some(revival)) => {
                let revived = self.revive(call, &revival).await;
                match &revived {
                    Ok(()) => self.segment.stages[call.stage].metrics.stream_revivals.inc(),
                    Err(_) => self.drop_instance(call.stage, &call.serves),
                }
                revived
            }
            Err(error) => Err(Gone::Lost(error.to_string())),
        }
    }

    async fn revive(&mut self, call: &Call, revival: &Revival) -> Result<(), Gone> {
        let Serves::Stream(key, _) = &call.serves else { return Ok(()) };
        let Some(invoker) = self.invokers[call.stage].of(call.code) else { return Ok(()) };
        if let Some(image) = &revival.image {
            let made = invoker.revive(call.serves.clone(), image).await;
            made.map_err(|error| match error {
                NoImage::NoRoom(why) => Gone::NoRoom(why),
                error => Gone::Lost(format!("its instance cannot be made again: {error}")),
            })?;
        }
        let mut aside = revival.layer(&call.layer, key);
        let mut began = Instant::now();
        for (at, replay) in revival.calls.iter().enumerate() {
            revival.begin(&mut aside, at);
            let (serves, last) = (call.serves.clone(), false);
            let Replay { time, seed, .. } = *replay;
            let invocation = Invocation { serves, layer: aside, last, time, seed };
            let outcome = invoker.invoke(invocation).await;
            aside = outcome.layer;
            if outcome.usage.short.is_some() {
                return Err(Gone::NoRoom(said_of(outcome.verdict)));
            }
            if let Verdict::Trapped(text) | Verdict::Lost(text) = outcome.verdict {
                return Err(Gone::Lost(format!(
                    "its instance cannot be made again: a call did not repeat: {text}"
                )));
            }
            aside.forget_batch();
            if began.elapsed() >= SLICE {
                self.mailbox.schedule();
                park().await;
                began = Instant::now();
            }
        }
        if !Revival::agrees(&aside, &call.layer, key) {
            let why = "its instance cannot be made again: its calls did not repeat; a stage's \
                       results must follow from its events, the time and randomness it is given";
            return Err(Gone::Lost(why.to_owned()));
        }
        Ok(())
    }

    /// Takes images of the streams whose histories are long, before the commit of the batch whose
    /// calls are done.
    pub(super) async fn take_images(&mut self) {
        if self.segment.durable.is_none() {
            return;
        }
        let largest = self.largest_image();
        let most = largest.min(IMAGES_BYTES);
        let mut bytes = 0;
        // Without images a commit that was too large may fit.
        let wanted = !std::mem::take(&mut self.recording.no_images);
        while wanted
            && bytes < most
            && let Some((stage, serves, code)) = self.machine.next_image()
        {
            let Some(invoker) = self.invokers[stage].of(code) else { continue };
            let taken = invoker.capture(&serves).await;
            match taken {
                // One may be larger than all of a commit, alone.
                Ok(image) if bytes > 0 && bytes + image.bytes() > most => break,
                Ok(image) if image.bytes() <= largest => {
                    bytes += image.bytes();
                    self.keep_image(stage, &serves, &image);
                }
                Ok(image) => self.no_image(stage, &format!("it has {} bytes", image.bytes())),
                // What cannot be at any time was said when the pipeline was applied.
                Err(NoImage::Unsupported(_) | NoImage::OpenHandles | NoImage::NoInstance) => {}
                Err(error) => self.no_image(stage, &error.to_string()),
            }
        }
        self.recording.images = bytes > 0;
    }

    /// Bytes an image may have so that a commit holds it.
    pub(super) fn largest_image(&self) -> u64 {
        let durable = self.segment.durable.as_ref();
        durable.map_or(0, |durable| durable.pipeline.log.record_bytes_max() as u64 / 2)
    }

    fn keep_image(&mut self, stage: usize, serves: &Serves, image: &Image) {
        self.machine.keep_image(stage, serves, image);
        let metrics = &self.segment.stages[stage].metrics;
        metrics.stream_images.inc();
        metrics.stream_image_bytes.add(image.bytes());
    }

    fn no_image(&self, stage: usize, why: &str) {
        tracing::debug!(
            tenant = %self.segment.shared.tenant.name(),
            pipeline = %self.segment.shared.name,
            stage = self.segment.stages[stage].name.as_str(),
            "no image of a stream: {why}",
        );
    }

    /// Drops instances of streams that are more than the stage keeps in memory; they are made again
    /// when something comes for them.
    pub(super) fn spare_instances(&mut self) {
        if self.segment.durable.is_none() {
            return;
        }
        for (invokers, stage) in self.invokers.iter_mut().zip(&self.segment.stages) {
            let most = stage.settings.limits.instances as usize;
            invokers.all().for_each(|invoker| invoker.spare(most));
        }
    }

    /// Drops the instance of a stream.
    pub(super) fn drop_instance(&mut self, stage: usize, serves: &Serves) {
        self.invokers[stage].all().for_each(|invoker| invoker.drop_instance(serves));
    }

    /// Drops all instances of streams: what they remember is not what is committed, or nobody needs
    /// them now.
    pub(super) fn drop_instances(&mut self) {
        self.invokers.iter_mut().flat_map(Invokers::all).for_each(|invoker| invoker.abandon());
    }
}

/// What a call that was refused room says of it.
pub(super) fn said_of(verdict: Verdict) -> String {
    match verdict {
        Verdict::Trapped(text) | Verdict::Lost(text) => text,
        Verdict::Returned(_) => "the stage was refused memory that others use".to_owned(),
    }
}
