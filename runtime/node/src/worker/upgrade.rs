//! Streams that go over to the code their stage has now, where the manifest says
//! `on-update = "snapshot"`.
//!
//! - It is the first thing a partition does with a version, before what waits for it: behind a halt
//!   the batch that halted it is run by the new code.
//! - The code a stream has says what its instance knows; the code of now makes an instance of that,
//!   whose image is in the commit. If either says no, or fails, the stream stays with its code.
//! - For want of room it is tried again after a pause, as a call is.
//! - Each commit has a bounded number of streams and, about, bytes of images; between two streams
//!   others have their turn.

use std::time::Instant;

use sluicebox_core::image::Image;
use sluicebox_core::partition::Call;
use sluicebox_engine::invoker::NoImage;

use super::invokers::UNKNOWN_CODE;
use super::partition::{Driver, SLICE, park};
use super::streams::{Gone, IMAGES_BYTES};

impl Driver {
    /// Lets some streams go over. False if there are none that are to.
    pub(super) async fn upgrade_streams(&mut self, now: u64) -> bool {
        if self.retire.is_some() || !self.machine.start_upgrades(now) {
            return false;
        }
        self.life.idle_sweeps.set(0);
        self.life.set_warm(&self.local, true);
        self.rest.fuel = self.recording.fuel;
        self.recording.images = false;
        // The rest of them, or what waits, in another turn.
        self.mailbox.schedule();
        let largest = self.largest_image();
        let (mut bytes, mut gone_over) = (0, 0_u64);
        let mut began = Instant::now();
        while bytes < largest.min(IMAGES_BYTES) {
            let Some(call) = self.machine.next_upgrade() else {
                let Some(wanted) = self.machine.take_wanted() else { break };
                if !self.load(wanted).await {
                    return true;
                }
                continue;
            };
            match self.upgrade(&call, largest).await {
                Ok(image) => {
                    bytes += image.bytes();
                    gone_over += 1;
                    self.machine.upgraded(call, &image);
                }
                Err(Gone::NoRoom(why)) => {
                    self.set_aside(call.stage, call.layer, &why);
                    return true;
                }
                Err(Gone::Lost(why)) => self.stays(call, &why),
            }
            if began.elapsed() >= SLICE {
                self.mailbox.schedule();
                park().await;
                began = Instant::now();
            }
        }
        if self.rest.over() {
            self.mailbox.set_short(false);
        }
        if gone_over == 0 {
            self.machine.set_aside();
        } else {
            self.commit_recorded();
        }
        self.spare_instances();
        self.note_state();
        true
    }

    /// Makes an instance of the code of now that knows what the stream's does.
    async fn upgrade(&mut self, call: &Call, largest: u64) -> Result<Image, Gone> {
        self.bring_back(call).await?;
        let invokers = &mut self.invokers[call.stage];
        let before = invokers.of(call.code).ok_or_else(|| Gone::Lost(UNKNOWN_CODE.to_owned()))?;
        let snapshot = before.snapshot(&call.serves).await.map_err(gone)?;
        // Both may not have room at once; it is made again if the other is not.
        before.drop_instance(&call.serves);
        let next = invokers.now();
        next.restore(call.serves.clone(), snapshot).await.map_err(gone)?;
        match next.capture(&call.serves).await.map_err(gone) {
            Ok(image) if image.bytes() <= largest => Ok(image),
            Ok(image) => {
                next.drop_instance(&call.serves);
                Err(Gone::Lost(format!("its image has {} bytes", image.bytes())))
            }
            Err(gone) => {
                next.drop_instance(&call.serves);
                Err(gone)
            }
        }
    }

    fn stays(&mut self, call: Call, why: &str) {
        let stage = &self.segment.stages[call.stage];
        stage.metrics.stream_upgrades_refused.inc();
        tracing::warn!(
            tenant = %self.segment.shared.tenant.name(),
            pipeline = %self.segment.shared.name,
            stage = stage.name.as_str(),
            partition = self.mailbox.partition,
            "a stream goes on with the code it opened with: {why}",
        );
        self.machine.stays(call);
    }
}

fn gone(error: NoImage) -> Gone {
    match error {
        NoImage::NoRoom(why) => Gone::NoRoom(why),
        error => Gone::Lost(error.to_string()),
    }
}
