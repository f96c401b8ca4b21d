//! What is said again on a new link: answers may have been lost with the one before.

use sluicebox_core::message::{At, Message};

use super::Site;
use crate::mailbox::Mailbox;
use crate::node::Node;
use crate::running::Running;

impl Node {
    /// There is a new link to a peer.
    pub(crate) fn link_is_up(&self, peer: u16) {
        for running in self.all_spread() {
            self.refresh(&running, peer);
            let Some(durable) = running.durable() else { continue };
            self.ask_where(durable.id, peer);
            if !running.is_part() {
                self.say_moved(&running, peer);
            }
        }
    }

    /// Says to a peer where its partitions of a pipeline stand, and sends to those that are there.
    pub(crate) fn refresh(&self, running: &Running, peer: u16) {
        for mailbox in running.mailboxes().iter().flatten() {
            match mailbox.site() {
                // Its forwarder finds that the link is another, and begins again.
                Site::There(there) if there == peer => mailbox.schedule(),
                Site::There(_) | Site::Between => {}
                Site::Here => self.say_settled(mailbox, peer),
            }
        }
        if let Some(reports) = &running.shared().part {
            reports.nudge();
        }
    }

    fn say_settled(&self, mailbox: &Mailbox, peer: u16) {
        let Some(durable) = &mailbox.segment.durable else { return };
        let places = mailbox.gate().as_ref().map(|gate| gate.settled_of(peer));
        let places = places.unwrap_or_default();
        if places.is_empty() {
            return;
        }
        let (pipeline, root, partition) = (durable.pipeline.id, durable.root(), mailbox.partition);
        if let Some(trunk) = self.trunks().get(peer) {
            trunk.say(&Message::Settled { of: At { pipeline, root, partition }, places });
        }
    }
}
