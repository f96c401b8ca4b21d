//! The source's side of a move of partitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluicebox_core::codec::{LeaveRecord, RecordWriter, ReleaseRecord, kind};
use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_core::recovery::Folded;
use tokio::sync::oneshot;

use super::follow::Follower;
use super::stand::{
    Stood, forward, is_forwarded, is_of, open_gates, stand, stay, until, until_settled,
    where_it_stands,
};
use super::{Joining, KEPT_MORE_BYTES, id_of};
use crate::checkpoint::Of;
use crate::cluster::Peer;
use crate::components::blocking;
use crate::deploy::secret_number;
use crate::error::Error;
use crate::mailbox::returns::Returned;
use crate::moving::Preparing;
use crate::moving::depart::refused;
use crate::moving::steps::Steps;
use crate::node::Node;
use crate::running::Running;
use crate::spread::{Site, Sites};

/// How long a move that cannot go back is waited for; then it goes on by itself.
const JOIN_MAX: Duration = Duration::from_secs(30);

/// Pauses between two tries to end a move, growing.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Bytes of changes that go over at once, about, and that may come with the record.
const PAGE_BYTES: usize = 4 << 20;

/// So little is left to be copied that partitions may stand still; or so often it was tried.
const REST_BYTES: usize = 64 << 10;
const ROUNDS_MAX: usize = 16;

/// How long it is tried.
const ROUNDS_TIME_MAX: Duration = Duration::from_secs(60);

/// How often the log is read while another node takes pages.
const FOLLOW: Duration = Duration::from_millis(100);

/// Bytes of the record that partitions came, besides where they stand and what they changed: names
/// and numbers.
const JOIN_HEAD_BYTES: usize = 8 << 10;

/// Partitions on their way to a peer.
struct Going {
    id: PipelineId,
    partitions: Vec<u16>,
    peer: Arc<Peer>,
    preparing: Preparing,
    /// Which attempt it is: what an earlier one took is not joined by this one.
    attempt: u64,
}

/// For as long as it lives another node may read the state of partitions.
struct Given<'a>(&'a Sites, &'a [u16]);

impl<'a> Given<'a> {
    fn new(sites: &'a Sites, partitions: &'a [u16]) -> Self {
        partitions.iter().for_each(|at| sites.set_copied(*at, true));
        Self(sites, partitions)
    }
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        self.1.iter().for_each(|at| self.0.set_copied(*at, false));
    }
}

impl Node {
    /// Hands partitions that are here over to a peer. Gives how long they took nothing.
    pub(super) async fn send_partitions(
        self: &Arc<Self>,
        running: &Arc<Running>,
        (partitions, peer): (&[u16], &Arc<Peer>),
        preparing: Preparing,
    ) -> Result<Duration, Error> {
        let id = id_of(running)?;
        let trunk = self.trunks().number_of(peer.name().as_str());
        let trunk = trunk.and_then(|number| self.trunks().get(number));
        let trunk = trunk.ok_or_else(|| peer.failed("is none of the peers", false))?;
        self.expect_forwarding(running, partitions)?;
        let going = Going {
            id,
            partitions: partitions.to_vec(),
            peer: peer.clone(),
            preparing,
            attempt: secret_number()?,
        };
        self.keep_spread(running);
        trunk.want();
        let given = Given::new(&running.shared().sites, partitions);
        let (copying, stood, mut steps) = match self.leave_partitions(running, &going).await {
            Ok(left) => left,
            Err(error) => {
                // If it cannot be told now, it finds out when it takes them again or is started.
                let named = (running.tenant(), running.name());
                if let Err(why) = peer.drop_copied(named, (id, going.attempt)).await {
                    tracing::debug!(node = %peer.name(), error = %why, "what it took is there still");
                }
                return Err(error);
            }
        };
        // From here on there is no way back.
        for at in partitions {
            running.shared().sites.set_leaving(*at, true);
            running.shared().sites.set(*at, Site::There(trunk.number));
        }
        drop(given);
        forward(stood);
        let (joined, runs) = oneshot::channel();
        let last = Last { copying, joined };
        let ended = tokio::task::spawn_local(self.clone().end_leaving(going, Some(last)));
        let pause = tokio::time::timeout(JOIN_MAX, runs).await;
        if matches!(pause, Ok(Ok(()))) {
            steps.done("join");
        }
        let pause = steps.elapsed();
        tracing::debug!(%steps, ?partitions, "partitions left");
        match tokio::time::timeout(JOIN_MAX, ended).await {
            Ok(Ok(())) => Ok(pause),
            _ => Err(peer.failed("has not taken the partitions yet; they are on their way", true)),
        }
    }

    /// Everything up to the record that says that partitions left: their state is copied while they
    /// run, then they stand still.
    async fn leave_partitions(
        self: &Arc<Self>,
        running: &Arc<Running>,
        going: &Going,
    ) -> Result<(Copying, Stood, Steps), Error> {
        // It is large, and lives for long.
        let copying = Box::pin(self.copy_ahead(running, going)).await?;
        let mut steps = Steps::begin();
        let mut stood = stand(running, &going.partitions).await?;
        steps.done("stand");
        let handed = self.hand_over_partitions(running, going, (&mut stood, &mut steps)).await;
        if let Err(error) = handed {
            stay(running, &going.partitions, stood);
            return Err(error);
        }
        Ok((copying, stood, steps))
    }

    /// Has a peer take the state of partitions while they run, until little is left of it.
    async fn copy_ahead(
        self: &Arc<Self>,
        running: &Arc<Running>,
        going: &Going,
    ) -> Result<Copying, Error> {
        let Going { id, partitions, peer, preparing, attempt } = going;
        let (named, mut steps) = ((running.tenant(), running.name()), Steps::begin());
        self.until_kept(self.log().status().appended).await?;
        steps.done("checkpoint");
        let (log, backing, seed) = (self.log().clone(), self.backing().clone(), secret_number()?);
        let of = (*id, Of::new(running.tenant(), *id), partitions.clone());
        let begin = move || Follower::begin((log, &backing), of, seed);
        let mut follower = blocking(begin).await?;
        let kept = follower.kept().map_or(0, |kept| kept.len());
        let taking = peer.take_groups(named, (*id, *attempt), (partitions, kept, preparing));
        let room;
        let bound = (running.name(), self.config().cluster.copy_behind_max);
        (follower, room) = following(bound, follower, taking).await?;
        steps.done("take");
        let end = tokio::time::Instant::now() + ROUNDS_TIME_MAX;
        for _ in 0..ROUNDS_MAX {
            follower = read_on(follower).await?;
            if follower.bytes() <= REST_BYTES || tokio::time::Instant::now() >= end {
                break;
            }
            for page in follower.take(PAGE_BYTES)? {
                let taking = peer.take_changes(named, (*id, *attempt), page);
                (follower, ()) = following(bound, follower, taking).await?;
            }
        }
        steps.done("changes");
        tracing::debug!(%steps, ?partitions, left = follower.bytes(), "partitions are copied");
        let copying = Copying { follower, room };
        // Behind LEAVE nothing would help.
        copying.expect_room(running.name())?;
        Ok(copying)
    }

    /// Refuses a move that would wait in vain: what partitions sent waits for a node that is away.
    fn expect_forwarding(&self, running: &Running, partitions: &[u16]) -> Result<(), Error> {
        for mailbox in running.mailboxes().iter().flatten() {
            let Site::There(there) = mailbox.site() else { continue };
            let Some(peer) = self.trunks().get(there).map(|trunk| trunk.peer()) else { continue };
            if !peer.is_up() && mailbox.holds(|source| is_of(source, partitions)) {
                return Err(peer.unreachable(false));
            }
        }
        Ok(())
    }

    /// Writes down that they left, once nothing they sent waits for anybody.
    async fn hand_over_partitions(
        self: &Arc<Self>,
        running: &Arc<Running>,
        going: &Going,
        (stood, steps): (&mut Stood, &mut Steps),
    ) -> Result<(), Error> {
        let Going { id, partitions, peer, .. } = going;
        until(|| is_forwarded(running, partitions)).await.ok_or_else(|| {
            let why = "another node does not take what they have sent it; try again";
            refused(running.name(), why)
        })?;
        steps.done("forwarded");
        if let Some(reports) = &running.shared().part {
            let stands: Vec<_> = stood.iter().filter_map(where_it_stands).collect();
            let has_all =
                || stands.iter().all(|(at, stands)| reports.has_all(running, *at, stands));
            until(has_all)
                .await
                .ok_or_else(|| peer.failed("does not keep what left here; try again", false))?;
        }
        steps.done("kept at home");
        open_gates(running, partitions, stood);
        let (to, partitions) = (peer.name().to_string(), partitions.clone());
        let mut writer = RecordWriter::new();
        writer.leave(&LeaveRecord { pipeline: *id, to, partitions });
        self.log_and_wait(kind::LEAVE, writer).await?;
        steps.done("LEAVE");
        Ok(())
    }

    /// Has a peer run partitions that left here, however long that takes, and lets go of them.
    /// After a start nothing is known of what was copied.
    async fn end_leaving(self: Arc<Self>, going: Going, mut last: Option<Last>) {
        let mut pause = PAUSE_MIN;
        while let Err(error) = self.try_to_join(&going, last.take()).await {
            if self.spread(going.id).is_none() {
                return;
            }
            let node = going.peer.name();
            tracing::warn!(%node, %error, "partitions are not taken yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn try_to_join(self: &Arc<Self>, going: &Going, last: Option<Last>) -> Result<(), Error> {
        let Going { id, partitions, peer, .. } = going;
        let gone = || Error::Internal("its pipeline is gone".to_owned());
        let running = self.spread(*id).ok_or_else(gone)?;
        let (copying, joined) = last.map(|Last { copying, joined }| (copying, joined)).unzip();
        let has_joined = match copying {
            Some(copying) => self.join_copied(&running, going, copying).await?,
            None => false,
        };
        if !has_joined {
            // It has lost what it took, or nobody knows here what it has.
            self.take_and_join(&running, going).await?;
        }
        // Nobody may wait any more.
        let _told = joined.map(|joined| joined.send(()));
        for mailbox in partitions.iter().flat_map(|at| running.partition(*at)) {
            mailbox.returned(Returned::Anew);
        }
        let mut writer = RecordWriter::new();
        writer.release(&ReleaseRecord { pipeline: *id, partitions: partitions.clone() });
        self.log_and_wait(kind::RELEASE, writer).await?;
        partitions.iter().for_each(|at| running.shared().sites.set_leaving(*at, false));
        let (node, tenant, name) = (peer.name(), running.tenant(), running.name());
        tracing::info!(%tenant, pipeline = %name, ?partitions, %node, "partitions moved");
        if running.is_part() {
            // What the home said of them meanwhile was not for us.
            self.whereabouts().ask(*id);
        }
        self.tidy_later(&running);
        Ok(())
    }

    /// Has a peer run partitions whose state it has, but for what is found now. False if it does
    /// not have it any more.
    async fn join_copied(
        &self,
        running: &Running,
        going: &Going,
        Copying { follower, room }: Copying,
    ) -> Result<bool, Error> {
        let Going { id, peer, attempt, .. } = going;
        let (named, mut steps) = ((running.tenant(), running.name()), Steps::begin());
        let mut follower = read_on(follower).await?;
        let mut pages = follower.take(PAGE_BYTES)?;
        let gone = || Error::Internal("its pipeline is gone".to_owned());
        let kept = follower.kept().ok_or_else(gone)?;
        let room = room.saturating_sub(kept.len() + JOIN_HEAD_BYTES);
        // What does not fit into the record goes before it, as the pages before it did.
        let changed = pages.pop_if(|last| last.len() <= room).unwrap_or_default();
        let (changes, ahead) = (changed.len(), pages.iter().map(Vec::len).sum::<usize>());
        for page in pages {
            peer.take_changes(named, (*id, *attempt), page).await?;
        }
        let joining = self.joining_of(running, going, (kept, changed));
        steps.done("changes");
        let joined = peer.join(named, &joining).await;
        steps.done("join");
        let kept = joining.kept.len();
        tracing::debug!(%steps, changes, ahead, kept, "partitions joined there");
        joined
    }

    /// Has a peer take all state of partitions that stand still, and run them.
    async fn take_and_join(&self, running: &Running, going: &Going) -> Result<(), Error> {
        let Going { id, partitions, peer, preparing, attempt } = going;
        let named = (running.tenant(), running.name());
        self.until_kept(self.log().status().synced).await?;
        let of = *id;
        let kept = self.kept_as(move |fold| fold.keep_part(of)).await?;
        let joining = self.joining_of(running, going, (kept, Vec::new()));
        // They may be there already; then there is nothing to be taken.
        let bytes = joining.kept.len();
        peer.take_groups(named, (*id, *attempt), (partitions, bytes, preparing)).await?;
        match peer.join(named, &joining).await? {
            true => Ok(()),
            false => Err(peer.failed("does not join partitions it has taken", false)),
        }
    }

    /// What a peer is told that is to run partitions.
    fn joining_of(
        &self,
        running: &Running,
        going: &Going,
        (kept, changed): (Vec<u8>, Vec<u8>),
    ) -> Joining {
        let own = self.cluster().map(|own| own.name().to_string());
        Joining {
            pipeline: going.id.0,
            partitions: going.partitions.clone(),
            attempt: going.attempt,
            // A part gives partitions to nobody but the home.
            home: own.filter(|_| !running.is_part()),
            kept: kept.into(),
            changed: changed.into(),
        }
    }

    /// Hands partitions of a part back to the home, which asks for them. Gives how long they took
    /// nothing, in milliseconds.
    ///
    /// # Errors
    /// There is no such part; they cannot leave now.
    pub(crate) async fn give_partitions_back(
        self: &Arc<Self>,
        from: &Arc<Peer>,
        (id, partitions): (PipelineId, &[u16]),
        name: &Name,
    ) -> Result<u64, Error> {
        let none = || refused(name, "the other node has no part of it");
        let running = self.spread(id).filter(|running| running.is_part()).ok_or_else(none)?;
        let home = running.shared().part.as_ref().map(|reports| reports.home());
        if home.is_none() || home != self.trunks().number_of(from.name().as_str()) {
            return Err(refused(name, "partitions are given to their home only"));
        }
        if partitions.iter().any(|at| *at >= running.partitions()) {
            return Err(refused(name, "it has fewer partitions on the other node"));
        }
        let turn = self.deploying(running.tenant(), running.name());
        let _turn = turn.lock().await;
        until_settled(&running, partitions).await?;
        let here: Vec<u16> = partitions
            .iter()
            .copied()
            .filter(|at| running.shared().sites.of(*at) == Site::Here)
            .collect();
        if here.is_empty() {
            return Ok(0);
        }
        let preparing = Preparing::default();
        let took = self.send_partitions(&running, (&here, from), preparing).await?;
        Ok(took.as_millis() as u64)
    }

    /// Goes on, after a start, with moves of partitions that were under way.
    pub(crate) async fn go_on_leaving_partitions(
        self: &Arc<Self>,
        id: PipelineId,
        folded: &Folded,
    ) -> Result<(), Error> {
        let mut by_node: BTreeMap<&String, Vec<u16>> = BTreeMap::new();
        for at in folded.leaving() {
            if let Some(node) = folded.away().get(at) {
                by_node.entry(node).or_default().push(*at);
            }
        }
        for (node, partitions) in by_node {
            let number = self.trunks().number_of(node);
            let Some(trunk) = number.and_then(|number| self.trunks().get(number)) else {
                tracing::error!(node, "partitions are going to what is no node");
                continue;
            };
            let preparing = self.preparing(folded.tenant(), folded.name()).await?;
            let (node, peer, attempt) = (self.clone(), trunk.peer().clone(), secret_number()?);
            drop(tokio::task::spawn_local(async move {
                // One by one: which of them left together is not known any more.
                for at in partitions {
                    let (peer, preparing) = (peer.clone(), preparing.clone());
                    let going = Going { id, partitions: vec![at], peer, preparing, attempt };
                    node.clone().end_leaving(going, None).await;
                }
            }));
        }
        if let Some(running) = self.spread(id) {
            self.tidy_later(&running);
        }
        Ok(())
    }
}

/// Partitions whose state a peer has, but for what is found from now on.
struct Copying {
    follower: Follower,
    /// Bytes that its log takes in a record.
    room: usize,
}

impl Copying {
    /// Refuses what the peer's log does not take.
    fn expect_room(&self, name: &Name) -> Result<(), Error> {
        let kept = self.follower.kept().map_or(0, |kept| kept.len());
        if kept.saturating_add(KEPT_MORE_BYTES) <= self.room {
            return Ok(());
        }
        let room = self.room;
        let why =
            format!("it stands in {kept} bytes, and the other node's log takes {room} at most");
        Err(refused(name, &why))
    }
}

/// What is known of partitions that have just left, and who waits for them to run elsewhere.
struct Last {
    copying: Copying,
    joined: oneshot::Sender<()>,
}

/// Reads on while another node does something, so that the log is not held up by it. Gives what
/// that came to; nothing if more than so many bytes are found and not taken by then.
async fn following<T>(
    (name, bytes_max): (&Name, usize),
    mut follower: Follower,
    does: impl Future<Output = Result<T, Error>>,
) -> Result<(Follower, T), Error> {
    tokio::pin!(does);
    loop {
        tokio::select! {
            // Whichever comes first; the other is still there.
            biased;
            done = &mut does => return done.map(|done| (follower, done)),
            () = tokio::time::sleep(FOLLOW) => {}
        }
        follower = read_on(follower).await?;
        if follower.bytes() > bytes_max {
            let why = "partitions change faster than another node takes what they change; try \
                       again when there is less to do, or raise `cluster.copy-behind-max`";
            return Err(refused(name, why));
        }
    }
}

/// Reads what partitions changed since.
async fn read_on(mut follower: Follower) -> Result<Follower, Error> {
    blocking(move || follower.read_on().map(|()| follower)).await
}
