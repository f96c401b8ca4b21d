//! Instances of streams in a pipeline with a log: made again when they are gone, and images taken
//! of their memory.
//!
//! - An instance is a cache of what the stream's history says (`core/partition/history.rs`). It may
//!   go at any time between two batches: with the node, for want of room, or after a trap.
//! - What is replayed is not billed and not counted, and what it says is not passed on.
//! - An image is part of the commit of the batch behind which it was taken. Those of one commit are
//!   bounded; a stream that has to wait for its image goes on with its history.

use sluicebox_core::image::Image;
use sluicebox_core::partition::{Call, Replay, Revival, Serves, Verdict};
use sluicebox_engine::invoker::{Invocation, NoImage};

use super::partition::Driver;

/// Bytes of images in one commit, about: a quarter of what a record may have by default.
const IMAGES_BYTES: u64 = 8 * 1024 * 1024;

impl Driver {
    /// Makes the instance of a call again if it is one of an open stream and gone.
    ///
    /// # Errors
    /// It cannot be made again, and why.
    pub(super) async fn bring_back(&mut self, call: &Call) -> Result<(), String> {
        let is_stream = matches!(call.serves, Serves::Stream(..));
        if !is_stream || self.segment.durable.is_none() {
            return Ok(());
        }
        if self.invokers[call.stage].holds(&call.serves) {
            return Ok(());
        }
        match self.machine.revival(call) {
            Ok(None) => Ok(()),
            Ok(Some(revival)) => {
                let revived = self.revive(call, &revival).await;
                match &revived {
                    Ok(()) => self.segment.stages[call.stage].metrics.stream_revivals.inc(),
                    Err(_) => self.invokers[call.stage].drop_instance(&call.serves),
                }
                revived
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn revive(&mut self, call: &Call, revival: &Revival) -> Result<(), String> {
        let Serves::Stream(key, _) = &call.serves else { return Ok(()) };
        let invoker = &mut self.invokers[call.stage];
        if let Some(image) = &revival.image {
            let made = invoker.revive(call.serves.clone(), image).await;
            made.map_err(|error| format!("its instance cannot be made again: {error}"))?;
        }
        let mut aside = revival.layer(&call.layer, key);
        for (at, replay) in revival.calls.iter().enumerate() {
            revival.begin(&mut aside, at);
            let (serves, last) = (call.serves.clone(), false);
            let Replay { time, seed, .. } = *replay;
            let invocation = Invocation { serves, layer: aside, last, time, seed };
            let outcome = invoker.invoke(invocation).await;
            aside = outcome.layer;
            if let Verdict::Trapped(text) | Verdict::Lost(text) = outcome.verdict {
                return Err(format!(
                    "its instance cannot be made again: a call did not repeat: {text}"
                ));
            }
            aside.forget_batch();
        }
        if !Revival::agrees(&aside, &call.layer, key) {
            return Err("its instance cannot be made again: its calls did not repeat; a stage's \
                        results must follow from its events, the time and randomness it is given"
                .to_owned());
        }
        Ok(())
    }

    /// Takes images of the streams whose histories are long, before the commit of the batch whose
    /// calls are done.
    pub(super) async fn take_images(&mut self) {
        let Some(durable) = &self.segment.durable else { return };
        let largest = durable.pipeline.log.record_bytes_max() as u64 / 2;
        let mut bytes = 0;
        while bytes < IMAGES_BYTES
            && let Some((stage, serves)) = self.machine.next_image()
        {
            let taken = self.invokers[stage].capture(&serves).await;
            match taken {
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
        for (invoker, stage) in self.invokers.iter_mut().zip(&self.segment.stages) {
            invoker.spare(stage.settings.limits.instances as usize);
        }
    }

    /// Drops all instances of streams: what they remember is not what is committed, or nobody needs
    /// them now.
    pub(super) fn drop_instances(&mut self) {
        self.invokers.iter_mut().for_each(|invoker| invoker.abandon());
    }
}
