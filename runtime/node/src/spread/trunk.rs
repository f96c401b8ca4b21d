//! The way to another node: one link, by which everything goes that is for partitions there.
//!
//! - A trunk has sessions, one for each link it had. What is handed to it goes out in its session
//!   or is dropped; whoever has no answer hands it in again in the next one.
//! - Its queue is bounded. Who sends runs is told when there is room; answers go in whatever the
//!   room, as each follows from something that came in, up to a bound at which the link is given
//!   up.
//! - The link is made when something is there to be sent, and kept; which way it goes is chosen
//!   each time (`link/way`).
//!
//! What is in the messages is the business of who sends them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sluicebox_core::message::Message;
use sluicebox_link::End;
use sluicebox_link::message::Outgoing;
use sluicebox_link::way::{self, Class, Meeting};
use tokio::sync::{Notify, watch};

use crate::cluster::{Cluster, Peer};
use crate::mailbox::{Mailbox, lock};
use crate::node::Node;

/// Bytes that wait before runs have to.
const BYTES_MAX: usize = 4 << 20;

/// Messages that wait at which the link is given up.
const MESSAGES_MAX: usize = 1 << 16;

/// Pauses before a link that broke is made again, growing.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It goes out, unless the link breaks.
    Taken,
    /// There is no room; whoever asks with its mailbox is scheduled when there is.
    Full,
    /// There is no link.
    Down,
}

/// The trunks of a node, in the order of its peers.
#[derive(Debug, Default)]
pub(crate) struct Trunks(Vec<Arc<Trunk>>);

/// See the module.
#[derive(Debug)]
pub(crate) struct Trunk {
    pub(crate) number: u16,
    peer: Arc<Peer>,
    queue: Mutex<Queue>,
    news: Notify,
    /// Links that have come from there.
    incoming: watch::Sender<u64>,
    /// Somebody has something to send, or will have.
    wanted: AtomicBool,
}

/// The head of a message, and the frame behind it.
type Item = (Vec<u8>, Option<Bytes>);

#[derive(Debug, Default)]
struct Queue {
    /// Of the link there is; 0 while there is none.
    session: u64,
    last: u64,
    class: Option<Class>,
    messages: VecDeque<Item>,
    bytes: usize,
    /// Partitions that wait for room.
    blocked: Vec<Arc<Mailbox>>,
    /// It is to be given up.
    broken: bool,
}

impl Trunks {
    pub(crate) fn new(cluster: Option<&Cluster>) -> Self {
        let peers = cluster.map_or(&[][..], Cluster::peers);
        let trunk = |(number, peer): (u16, &Arc<Peer>)| Arc::new(Trunk::new(number, peer.clone()));
        Self((0..).zip(peers).map(trunk).collect())
    }

    pub(crate) fn get(&self, peer: u16) -> Option<&Arc<Trunk>> {
        self.0.get(usize::from(peer))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Trunk>> {
        self.0.iter()
    }

    /// The number of a peer.
    pub(crate) fn number_of(&self, name: &str) -> Option<u16> {
        self.iter().find(|trunk| trunk.peer.name().as_str() == name).map(|trunk| trunk.number)
    }
}

impl Trunk {
    fn new(number: u16, peer: Arc<Peer>) -> Self {
        let (queue, news, incoming) = (Mutex::default(), Notify::new(), watch::Sender::new(0));
        Self { number, peer, queue, news, incoming, wanted: AtomicBool::new(false) }
    }

    /// A link has come from there. Returns when there is a newer one.
    pub(super) fn is_linked_anew(&self) -> impl Future<Output = ()> + use<> {
        let mut own = 0;
        self.incoming.send_modify(|count| {
            *count += 1;
            own = *count;
        });
        let mut newest = self.incoming.subscribe();
        // The sender is gone when the node is.
        async move { drop(newest.wait_for(|count| *count != own).await) }
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// The link there is; 0 while there is none. Each has another number.
    pub(crate) fn session(&self) -> u64 {
        lock(&self.queue).session
    }

    /// Which way it goes, if there is a link.
    pub(crate) fn class(&self) -> Option<Class> {
        lock(&self.queue).class
    }

    /// From now on a link is kept.
    pub(crate) fn want(&self) {
        if !self.wanted.swap(true, Ordering::AcqRel) {
            self.news.notify_one();
        }
    }

    /// Hands in a run for a partition there, in the session its sender knows.
    pub(crate) fn send(
        &self,
        session: u64,
        (message, frame): (&Message<'_>, &Bytes),
        from: &Arc<Mailbox>,
    ) -> Sent {
        let mut queue = lock(&self.queue);
        if queue.session != session || session == 0 {
            return Sent::Down;
        }
        if queue.bytes >= BYTES_MAX {
            if !queue.blocked.iter().any(|other| Arc::ptr_eq(other, from)) {
                queue.blocked.push(from.clone());
            }
            return Sent::Full;
        }
        queue.push(message, Some(frame.clone()));
        drop(queue);
        self.news.notify_one();
        Sent::Taken
    }

    /// Hands in what leaves a part, in the session its sender knows.
    pub(crate) fn report(&self, session: u64, (message, frame): (&Message<'_>, &Bytes)) -> Sent {
        let mut queue = lock(&self.queue);
        if queue.session != session || session == 0 {
            return Sent::Down;
        }
        queue.push(message, Some(frame.clone()));
        drop(queue);
        self.news.notify_one();
        Sent::Taken
    }

    /// Hands in a word without a frame; it is lost if there is no link.
    pub(crate) fn say(&self, message: &Message<'_>) {
        let mut queue = lock(&self.queue);
        if queue.session == 0 {
            return;
        }
        if queue.messages.len() >= MESSAGES_MAX {
            queue.broken = true;
        } else {
            queue.push(message, None);
        }
        drop(queue);
        self.news.notify_one();
    }

    /// Keeps a link while one is wanted, for as long as the node runs.
    pub(crate) async fn keep(self: Arc<Self>, node: Arc<Node>, meeting: Option<Arc<Meeting>>) {
        let mut pause = PAUSE_MIN;
        loop {
            while !self.wanted.load(Ordering::Acquire) {
                self.news.notified().await;
            }
            match self.connect(&node, meeting.as_deref()).await {
                Ok((class, out)) => {
                    pause = PAUSE_MIN;
                    self.begin(class);
                    tracing::info!(node = %self.peer.name(), way = %class, "linked to a node");
                    node.link_is_up(self.number);
                    let why = self.carry(out).await;
                    self.end();
                    tracing::info!(node = %self.peer.name(), ?why, "the link to a node ended");
                }
                Err(why) => {
                    tracing::debug!(node = %self.peer.name(), why, "no link to a node");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn connect(
        &self,
        node: &Node,
        meeting: Option<&Meeting>,
    ) -> Result<(Class, Outgoing), String> {
        let cluster = node.cluster().ok_or("this node is alone")?;
        if !self.peer.is_up() {
            return Err("it is not up".to_owned());
        }
        let settings = self.peer.link_settings();
        let socket = self.peer.socket();
        let (identity, to) = (cluster.identity(), self.peer.name());
        let failed = |error: sluicebox_link::Error| error.to_string();
        let linked = way::connect(meeting, socket, identity, to, settings).await;
        let (class, sender) = linked.map_err(failed)?;
        Ok((class, Outgoing::new(sender).map_err(failed)?))
    }

    fn begin(&self, class: Class) {
        let mut queue = lock(&self.queue);
        queue.last += 1;
        queue.session = queue.last;
        (queue.class, queue.broken) = (Some(class), false);
    }

    fn end(&self) {
        let mut queue = lock(&self.queue);
        let last = queue.last;
        *queue = Queue { last, ..Queue::default() };
    }

    /// Sends what is handed in until the link is over; gives why.
    async fn carry(&self, mut out: Outgoing) -> Option<End> {
        let way = usize::from(self.class() == Some(Class::Network));
        let figures = self.peer.metrics.links[way].clone();
        loop {
            let (next, broken) = self.next();
            if broken {
                return None;
            }
            let Some((head, frame)) = next else {
                tokio::select! {
                    biased;
                    end = out.end() => return Some(end),
                    () = self.news.notified() => {}
                    () = self.peer.lost() => return None,
                }
                continue;
            };
            let frame = frame.as_deref().unwrap_or_default();
            let (bytes, parts) = (head.len() + frame.len(), [&head[..], frame]);
            tokio::select! {
                biased;
                sent = out.send(&parts) => if let Err(end) = sent { return Some(end) },
                () = self.peer.lost() => return None,
            }
            figures.messages.inc();
            figures.bytes.add(bytes as u64);
        }
    }

    fn next(&self) -> (Option<Item>, bool) {
        let mut queue = lock(&self.queue);
        let next = queue.messages.pop_front();
        let bytes = next.as_ref().map_or(0, size);
        queue.bytes -= bytes;
        let blocked = match queue.bytes < BYTES_MAX / 2 {
            true => std::mem::take(&mut queue.blocked),
            false => Vec::new(),
        };
        let broken = queue.broken;
        drop(queue);
        blocked.iter().for_each(Mailbox::schedule);
        (next, broken)
    }
}

impl Queue {
    fn push(&mut self, message: &Message<'_>, frame: Option<Bytes>) {
        let mut head = Vec::new();
        message.encode_head(&mut head);
        let item = (head, frame);
        self.bytes += size(&item);
        self.messages.push_back(item);
    }
}

fn size((head, frame): &Item) -> usize {
    head.len() + frame.as_ref().map_or(0, Bytes::len)
}
