//! Streams that go over to the code their stage has now, where the manifest says
//! `on-update = "snapshot"`.
//!
//! - It is the first thing a partition does with a version, before what waits for it: behind a halt
//!   the batch that halted it is run by the new code.
//! - The code a stream has says what its instance knows; the code of now makes an instance of that,
//!   whose image is in the commit. If either says no, or fails, the stream stays with its code.
//! - For want of room it is tried again after a pause, as a call is.
//! - Each commit has a bounded number of streams and, about, bytes of images, and takes a bounded
//!   time, so that who retires the partition is heard; between two streams others have their turn.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sluicebox_core::image::Image;
use sluicebox_core::partition::Call;
use sluicebox_engine::invoker::NoImage;

use super::invokers::UNKNOWN_CODE;
use super::partition::{Driver, SLICE, park};
use super::streams::{Gone, IMAGES_BYTES};

/// How long a batch goes on, about: a call of a hostile stage takes as long as a start may.
const BATCH_TIME: Duration = Duration::from_millis(100);

impl Driver {
    /// Lets some streams go over. False if there are none that are to.
    pub(super) async fn upgrade_streams(&mut self, now: u64) -> bool {
        if self.retire.is_some() || !self.machine.start_upgrades(now) {
            return false;
        }
        self.life.idle_sweeps.set(0);
        self.life.set_warm(&self.local, true);
        self.rest.used.clone_from(&self.recording.used);
        self.recording.images = false;
        // The rest of them, or what waits, in another turn.
        self.mailbox.schedule();
        let largest = self.largest_image();
        let (mut bytes, mut gone_over, mut stay) = (0, None, None);
        let mut begun = Instant::now();
        let mut began = begun;
        while bytes < largest.min(IMAGES_BYTES) && begun.elapsed() < BATCH_TIME {
            let Some(call) = self.machine.next_upgrade() else {
                let Some(wanted) = self.machine.take_wanted() else { break };
                if !self.load(wanted).await {
                    return true;
                }
                begun = Instant::now();
                continue;
            };
            match self.upgrade(&call, largest).await {
                Ok(image) => {
                    bytes += image.bytes();
                    gone_over = Some(call.stage);
                    self.machine.upgraded(call, &image);
                }
                Err(Gone::NoRoom(why)) => {
                    self.set_aside(call.stage, call.layer, &why);
                    return true;
                }
                Err(Gone::Lost(why)) => {
                    stay = Some((call.stage, why));
                    self.stays(call);
                }
            }
            if began.elapsed() >= SLICE {
                self.mailbox.schedule();
                park().await;
                began = Instant::now();
            }
        }
        if let Some((stage, why)) = stay {
            self.say_stays(stage, &why);
        }
        match gone_over {
            Some(stage) => self.commit_upgrades(stage),
            None => drop(self.machine.set_aside()),
        }
        if self.rest.over() {
            self.mailbox.set_short(false);
        }
        self.spare_instances();
        self.note_state();
        true
    }

    /// What has gone over stands, unless the commit is too large.
    fn commit_upgrades(&mut self, stage: usize) {
        let before = self.mailbox.streams_of_before.load(Ordering::Relaxed);
        self.commit_recorded();
        let after = self.machine.streams_of_before();
        let gone_over = before.saturating_sub(after) as u64;
        self.segment.stages[stage].metrics.stream_upgrades.add(gone_over);
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

    fn stays(&mut self, call: Call) {
        self.segment.stages[call.stage].metrics.stream_upgrades_refused.inc();
        self.machine.stays(call);
    }

    /// Says it once a batch: there may be many streams, all for the same reason.
    fn say_stays(&self, stage: usize, why: &str) {
        let stage = &self.segment.stages[stage];
        tracing::warn!(
            tenant = %self.segment.shared.tenant.name(),
            pipeline = %self.segment.shared.name,
            stage = stage.name.as_str(),
            partition = self.mailbox.partition,
            "streams go on with the code they opened with: {why}",
        );
    }
}

fn gone(error: NoImage) -> Gone {
    match error {
        NoImage::NoRoom(why) => Gone::NoRoom(why),
        error => Gone::Lost(error.to_string()),
    }
}
