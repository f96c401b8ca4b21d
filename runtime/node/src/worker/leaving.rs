//! What leaves a partition by the outputs and as dead letters.

use sluicebox_core::frame::Frame;
use sluicebox_core::partition::dead_letter_field;

use super::partition::Driver;
use crate::running::Route;

impl Driver {
    /// So much of its results waits for sinks that it adds no more. Who comes to rest ends what it
    /// has, within a bound of its own: a version with another sink is not to wait for this one.
    pub(super) fn waits_for_sinks(&self) -> bool {
        let rests = self.retire.is_some() || self.segment.shared.is_paused();
        let is_full = |route: &Route| match route {
            Route::Output { ring, .. } => ring.makes_wait(&self.mailbox, rests),
            _ => false,
        };
        self.segment.routes.iter().flatten().any(is_full)
    }

    pub(super) fn count_dead_letters(&self, dead: &Frame) {
        self.given_up(dead);
        for event in dead.events() {
            let name = event.fields.get(dead_letter_field::STAGE).unwrap_or_default();
            let stage = self.segment.stages.iter().find(|stage| stage.name.as_bytes() == name);
            if let Some(stage) = stage {
                stage.metrics.dead_letters.inc();
            }
        }
    }
}
