//! What leaves a part, on its way to the pipeline's home: events of outputs, dead letters, and what
//! became of requests that wait there.
//!
//! - What was not kept by the home yet lies in the rings of this node, as it would for any reader,
//!   and is sent from there, as much at a time as may be under way. If a ring drops what nobody has
//!   taken, the home's readers find it dropped.
//! - Requests are told after everything that left before: who waits for a result gets that first.
//!   They do not outlive a link.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, Weak};

use sluicebox_core::frame::Frame;
use sluicebox_core::ids::{OutputId, PipelineId, RequestId, StageId};
use sluicebox_core::message::{At, Message};
use sluicebox_core::partition::Progress as Stands;
use tokio::sync::Notify;

use super::Site;
use super::trunk::{Sent, Trunk};
use crate::mailbox::lock;
use crate::ring::Output;
use crate::running::Running;

/// Bytes under way to the home, about.
pub(crate) const WINDOW_BYTES: usize = 4 << 20;

/// Requests that are told at once.
const DELTAS_MAX: usize = 1 << 12;

/// What the home has kept of what left a partition: the next offset of each.
#[derive(Debug)]
pub(super) struct Kept {
    pub outputs: Vec<(OutputId, u64)>,
    pub dead_letters: Vec<(StageId, u64)>,
}

/// What events leave by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Exit {
    Output(OutputId),
    DeadLetters(StageId),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reports {
    home: u16,
    news: Notify,
    deltas: Mutex<Vec<(RequestId, i64)>>,
    ways: Mutex<BTreeMap<(u16, Exit), Progress>>,
}

/// How far the events of one exit of a partition have come.
#[derive(Debug, Default)]
struct Progress {
    /// The home has these.
    kept: u64,
    /// These were sent in this session.
    sent: u64,
    /// Ends and bytes of what is under way.
    flying: VecDeque<(u64, usize)>,
}

impl Reports {
    /// Of a part whose home is this peer.
    pub(crate) fn new(home: u16) -> Arc<Self> {
        let (news, deltas, ways) = (Notify::new(), Mutex::default(), Mutex::default());
        Arc::new(Self { home, news, deltas, ways })
    }

    /// The peer that is the home.
    pub(crate) fn home(&self) -> u16 {
        self.home
    }

    /// There may be something to be told.
    pub(crate) fn nudge(&self) {
        self.news.notify_one();
    }

    /// Tells of requests that wait at the home, behind what left before.
    pub(crate) fn requests(&self, deltas: &[(RequestId, i64)]) {
        let mut all = lock(&self.deltas);
        // Who waits there for as many as this has given up long ago.
        if all.len() + deltas.len() <= 1 << 16 {
            all.extend_from_slice(deltas);
        }
        drop(all);
        self.nudge();
    }

    /// The home has kept this, of what leaves a partition by exits that there are.
    pub(super) fn note_kept(&self, running: &Running, partition: u16, kept: &Kept) {
        let exits: BTreeSet<Exit> =
            exits(running, partition).into_iter().map(|(exit, ..)| exit).collect();
        let mut ways = lock(&self.ways);
        let outputs = kept.outputs.iter().map(|(id, next)| (Exit::Output(*id), *next));
        let dead = kept.dead_letters.iter().map(|(root, next)| (Exit::DeadLetters(*root), *next));
        for (exit, next) in outputs.chain(dead).filter(|(exit, _)| exits.contains(exit)) {
            ways.entry((partition, exit)).or_default().keep(next);
        }
        drop(ways);
        self.nudge();
    }

    /// True if the home has everything that ever left a partition of a segment, which stands there,
    /// but for what was dropped before it was told.
    pub(crate) fn has_all(
        &self,
        running: &Running,
        (root, partition): (StageId, u16),
        stands: &Stands,
    ) -> bool {
        let ways = lock(&self.ways);
        exits(running, partition).iter().all(|(exit, ring, at)| {
            let next = match exit {
                Exit::Output(output) => stands.offsets.get(output).copied().unwrap_or(0),
                Exit::DeadLetters(of) if *of == root => stands.dead_letters,
                Exit::DeadLetters(_) => 0,
            };
            let kept = ways.get(&(partition, *exit)).map_or(0, |progress| progress.kept);
            let is_dropped = || ring.next(*at) >= next && ring.frames_from(*at, kept, 1).is_empty();
            kept >= next || is_dropped()
        })
    }

    /// Tells the home, for as long as there is the part.
    pub(crate) async fn run(self: Arc<Self>, part: Weak<Running>, trunk: Arc<Trunk>) {
        let mut session = 0;
        loop {
            let news = self.news.notified();
            {
                let Some(running) = part.upgrade() else { return };
                if trunk.session() != session {
                    session = trunk.session();
                    lock(&self.ways).values_mut().for_each(Progress::begin_again);
                }
                if session > 0 {
                    self.tell(&running, (&trunk, session));
                }
            }
            news.await;
        }
    }

    fn tell(&self, running: &Running, (trunk, session): (&Trunk, u64)) {
        let Some(id) = running.durable().map(|durable| durable.id) else { return };
        // Taken before the rings are looked at: what left before is in them.
        let deltas = std::mem::take(&mut *lock(&self.deltas));
        let (mut ways, mut all_said) = (lock(&self.ways), true);
        let flying = |ways: &BTreeMap<_, Progress>| {
            let all = ways.values().flat_map(|progress: &Progress| &progress.flying);
            all.map(|(_, bytes)| bytes).sum::<usize>()
        };
        for partition in here(running) {
            for (exit, ring, at) in exits(running, partition) {
                let room = WINDOW_BYTES.saturating_sub(flying(&ways));
                // What the home has is not known before it has said so.
                let Some(progress) = ways.get_mut(&(partition, exit)) else {
                    all_said &= ring.next(at) == 0;
                    continue;
                };
                for (first, frame) in ring.frames_from(at, progress.sent, room) {
                    let message = message((id, partition), exit, (first, &frame));
                    if trunk.report(session, (&message, frame.bytes())) != Sent::Taken {
                        // The link is gone, and whoever waits is not told any more.
                        return;
                    }
                    progress.send(first + frame.len() as u64, frame.bytes().len());
                }
                all_said &= ring.frames_from(at, progress.sent, 1).is_empty();
            }
        }
        drop(ways);
        if !all_said {
            // Not before what left before them.
            lock(&self.deltas).splice(0..0, deltas);
            return;
        }
        for deltas in deltas.chunks(DELTAS_MAX) {
            trunk.say(&Message::Requests { deltas: deltas.to_vec() });
        }
    }
}

impl Progress {
    fn keep(&mut self, next: u64) {
        self.kept = self.kept.max(next);
        self.sent = self.sent.max(self.kept);
        while self.flying.pop_front_if(|(end, _)| *end <= next).is_some() {}
    }

    fn send(&mut self, end: u64, bytes: usize) {
        self.sent = end;
        self.flying.push_back((end, bytes));
    }

    fn begin_again(&mut self) {
        self.sent = self.kept;
        self.flying.clear();
    }
}

/// The partitions that are here, or were a moment ago.
fn here(running: &Running) -> impl Iterator<Item = u16> {
    let here = |(at, site)| (!matches!(site, Site::There(_))).then_some(at);
    running.shared().sites.all().filter_map(here)
}

/// What events of a partition leave by, with the ring and where they are in it.
fn exits(running: &Running, partition: u16) -> Vec<(Exit, Arc<Output>, u16)> {
    let mut exits = Vec::new();
    for mailbox in running.partition(partition) {
        let Some(durable) = &mailbox.segment.durable else { continue };
        for (output, ring, _) in &durable.outputs {
            exits.push((Exit::Output(*output), ring.clone(), partition));
        }
        let (root, dead) = (durable.root(), running.dead_letters());
        exits.push((Exit::DeadLetters(root), dead.ring.clone(), dead.at(root, partition)));
    }
    exits
}

fn message(
    (pipeline, partition): (PipelineId, u16),
    exit: Exit,
    (first, frame): (u64, &Frame),
) -> Message<'_> {
    let frame = &frame.bytes()[..];
    match exit {
        Exit::Output(output) => Message::Output { pipeline, output, partition, first, frame },
        Exit::DeadLetters(root) => {
            Message::DeadLetters { of: At { pipeline, root, partition }, first, frame }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_not_under_way_and_a_new_link_begins_behind_it() {
        let mut progress = Progress::default();
        progress.keep(5);
        assert_eq!(progress.sent, 5);
        progress.send(8, 100);
        progress.send(20, 200);
        progress.keep(8);
        assert_eq!((progress.sent, progress.flying.len()), (20, 1));
        progress.begin_again();
        assert_eq!((progress.sent, progress.flying.len()), (8, 0));
        progress.keep(30);
        assert_eq!((progress.kept, progress.sent), (30, 30));
    }
}
