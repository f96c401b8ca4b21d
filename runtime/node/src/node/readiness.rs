//! Whether the node is ready, and if not, why, in a line for whoever runs it.
//!
//! Ready is: everything applied before runs again, and what is acknowledged can be kept. A node
//! that is not ready still answers, and what it takes is safe; who sends should ask another, or
//! wait.

use std::sync::atomic::Ordering;

use sluicebox_store::log::Health;

use super::Node;
use crate::checkpoint::Condition;

impl Node {
    /// Everything applied before is running again, and what is acknowledged can be kept.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.not_ready().is_none()
    }

    /// Why the node is not ready, if it is not, and what to do.
    #[must_use]
    pub fn not_ready(&self) -> Option<&'static str> {
        let is_behind = || self.backing.is_behind(self.log.synced());
        if self.draining() {
            Some("shutting down")
        } else if !self.has_started() {
            Some("starting")
        } else if self.log.status().health == Health::Failed {
            Some("the log has failed: look at the disk, then restart the node")
        } else {
            match self.backing.checkpoints().condition() {
                Condition::Stopped => Some("checkpoints have stopped: restart the node"),
                Condition::Failing if is_behind() => {
                    Some("no checkpoint can be made, so nothing is taken: its log says why")
                }
                Condition::Good | Condition::Failing => None,
            }
        }
    }

    /// Everything applied before is running again.
    pub(crate) fn has_started(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// The node is about to stop.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// From now on the node is ready.
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// From now on the node is about to stop.
    pub(crate) fn begin_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }
}
