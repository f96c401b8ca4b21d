//! Results of a commit of a pipeline without a log: they go to where they lead at once.

use sluicebox_core::partition::{Commit, OutRun};

use super::partition::Driver;
use super::said::answer;
use crate::mailbox::{Delivery, Unlogged};
use crate::running::Route;

impl Driver {
    /// Hands the results of a commit to where they go.
    pub(super) fn pass_on(&mut self, commit: Commit) {
        for OutRun { stage, target, partition, frame } in commit.runs {
            let bytes = frame.bytes().len();
            match &self.segment.routes[stage][target] {
                Route::Inside => {}
                Route::Same(there) => {
                    self.mailbox.load.unlogged(Unlogged::Between, bytes);
                    let to = there[usize::from(self.mailbox.partition)].clone();
                    self.outgoing.push((to, Delivery::from(frame).of_stage(stage)));
                }
                Route::Keyed(there) => {
                    self.mailbox.load.unlogged(Unlogged::Between, bytes);
                    let to = there[usize::from(partition)].clone();
                    self.outgoing.push((to, Delivery::from(frame).of_stage(stage)));
                }
                Route::Output { ring, reply } => {
                    self.mailbox.load.unlogged(Unlogged::Out, bytes);
                    let leaving = self.leaves_by(ring, &frame);
                    ring.append(self.mailbox.partition, &frame);
                    leaving.end();
                    if *reply {
                        answer(&self.segment, &frame);
                    }
                }
            }
        }
        if let Some(dead) = commit.dead_letters {
            self.count_dead_letters(&dead);
            self.segment.shared.dead_letters.ring.append(self.mailbox.partition, &dead);
        }
        for (request, delta) in commit.requests {
            self.segment.shared.requests.adjust(request, delta);
        }
        self.deliver();
    }
}
