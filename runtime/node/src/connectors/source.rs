//! The seam of sources, and how what one gives gets into its pipeline.
//!
//! - A source gives pieces, one behind the other. Each has a place with a number that grows, and
//!   is taken in one record of the log with it: a piece is there with its place, or neither is.
//! - A source asks how far it is (`Places`), rather than remember it: what was not taken comes
//!   again from there, after a kill too.
//! - It is asked for the next piece when the one before was taken, and may be dropped while it is
//!   asked. So what is outside waits outside while the pipeline has no room.
//! - What cannot become an event is left out, counted and told; it never holds up what comes
//!   behind.

use std::time::Duration;

use bytes::Bytes;
use sluicebox_core::pipeline::Source as Declared;
use sluicebox_core::quota::Resource;
use sluicebox_store::log::{Health, Progress};

use super::grants::Refused;
use super::pause::Pause;
use super::{Fault, Work};
use crate::durable::{Identity, Logged, NotLogged, refused};
use crate::error::Error;
use crate::http::feed::{self, Sort, Taken};
use crate::running::event_time::now_micros;
use crate::running::{Intake, Submitted, Unsubmitted};

/// The pause after something outside failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// How long to wait when it is the log that has no room.
const LOG_PAUSE: Duration = Duration::from_millis(2);
/// The same where nobody says when there will be some.
const ROOM_PAUSE: Duration = Duration::from_millis(200);
/// Longest wait for a quota before it is looked at again.
const QUOTA_PAUSE_MAX: Duration = Duration::from_secs(5);

/// See the module.
pub(super) trait Source {
    /// The next piece, once there is one.
    ///
    /// # Errors
    /// What is outside cannot be had. It is asked again, after a pause.
    async fn next(&mut self, places: &impl Places) -> Result<Piece, Fault>;
}

/// How far a source is.
pub(super) trait Places {
    /// The number a place of this name had last, if it is remembered.
    fn of(&self, place: &str) -> Option<u64>;

    /// Waits until what the log has of a place is on disk.
    ///
    /// # Errors
    /// The log has failed.
    async fn on_disk(&self, place: &str) -> Result<(), Fault>;
}

/// What a source gives at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// The name of its place (`places`); empty if none is kept, as it does not come again.
    pub place: String,
    /// The place behind it, higher than that of the piece before.
    pub number: u64,
    pub what: What,
    /// What was left out of it already.
    pub left_out: u64,
    /// How far the source is, for people.
    pub shown: String,
    /// What is there and was not given yet, as far as that is known.
    pub lag: u64,
}

/// What is in a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Bytes that become events.
    Bytes(Sort, Bytes),
    /// Messages, each of which becomes an event.
    Messages(Vec<feed::Message>),
    /// A time of a schedule, in microseconds.
    Tick(u64),
    /// Nothing: only the place is another.
    Nothing,
}

impl Places for Work {
    fn of(&self, place: &str) -> Option<u64> {
        self.durable.as_ref()?.place(place)
    }

    async fn on_disk(&self, place: &str) -> Result<(), Fault> {
        let last = self.durable.as_ref().and_then(|durable| durable.last_of(place));
        let Some((_, at)) = last else { return Ok(()) };
        let mut progress = self.node.log().subscribe();
        let reached = |now: &Progress| at < now.synced || now.health == Health::Failed;
        match progress.wait_for(reached).await {
            Ok(now) if at < now.synced => Ok(()),
            _ => Err(Fault::new("log.failed", "the log has failed")),
        }
    }
}

/// Takes from a source for ever.
pub(super) async fn feed(work: &Work, declared: &Declared, mut source: impl Source) -> Refused {
    let mut pause = Pause::new(PAUSE.0, PAUSE.1);
    let feed = Feed { work, declared };
    loop {
        // What is at hand is taken at once, and others have their turn all the same.
        tokio::task::yield_now().await;
        while work.node.draining() || work.running().is_none() {
            tokio::time::sleep(ROOM_PAUSE).await;
        }
        let fault = match source.next(work).await {
            Ok(piece) => match feed.take(piece).await {
                Ok(()) => {
                    pause.begin_again();
                    continue;
                }
                Err(fault) => fault,
            },
            Err(fault) => fault,
        };
        work.failed(&declared.name, &fault);
        tokio::select! {
            () = tokio::time::sleep(pause.next()) => {}
            () = work.metrics.resumed() => {}
        }
    }
}

/// Into so many parts, at most, what is drawn is cut.
const SHARES_MAX: u64 = 1 << 20;

struct Feed<'a> {
    work: &'a Work,
    declared: &'a Declared,
}

/// What came of handing in.
enum Handed {
    Taken,
    /// After this wait it is worth trying again.
    Again(Duration),
    /// It is larger than a record of the log.
    Never,
}

impl Feed<'_> {
    /// Takes a piece, however long it has to wait.
    async fn take(&self, piece: Piece) -> Result<(), Fault> {
        let Some((intake, bytes)) = self.events(&piece).await else {
            self.note(&piece).await?;
            return Ok(());
        };
        let events = intake.len() as u64;
        self.draw(events, bytes).await;
        let mut intake = Some(intake);
        loop {
            match self.hand_in(&mut intake)? {
                Handed::Taken => break,
                Handed::Again(wait) => {
                    self.work.metrics.waits("pipeline.busy", "the pipeline has no room");
                    self.room(wait).await;
                }
                Handed::Never => {
                    self.too_large(&piece);
                    return self.note(&piece).await;
                }
            }
        }
        let metrics = &self.work.metrics;
        metrics.events.add(events);
        metrics.bytes.add(bytes);
        self.done(&piece);
        Ok(())
    }

    fn done(&self, piece: &Piece) {
        let metrics = &self.work.metrics;
        metrics.rejected.add(piece.left_out);
        metrics.lag.set(i64::try_from(piece.lag).unwrap_or(i64::MAX));
        metrics.is_at(piece.shown.clone());
        metrics.runs();
        if piece.left_out > 0 {
            let (tenant, pipeline) = (&self.work.tenant, &self.work.pipeline);
            let (source, count, at) = (&self.declared.name, piece.left_out, &piece.shown);
            tracing::warn!(%tenant, %pipeline, source, count, at, "left out: too large, or torn");
        }
    }

    /// The events of a piece, if there are any, and the bytes of their payloads.
    async fn events(&self, piece: &Piece) -> Option<(Intake, u64)> {
        let running = loop {
            match self.work.running() {
                Some(running) => break running,
                None => tokio::time::sleep(ROOM_PAUSE).await,
            }
        };
        let identity = self.identity(piece);
        let mut intake = Intake::new(&running, identity);
        let key = self.declared.key.as_deref();
        let taken = match &piece.what {
            What::Bytes(sort, bytes) => feed::take(&running, (*sort, key), bytes, &mut intake),
            What::Messages(all) => feed::take_messages(&running, key, all, &mut intake),
            What::Tick(time) => {
                feed::take_tick((&self.declared.name, key), *time, &mut intake);
                Taken::default()
            }
            What::Nothing => Taken::default(),
        };
        self.work.metrics.rejected.add(taken.rejected);
        if let Some(first) = taken.first {
            let (tenant, pipeline) = (&self.work.tenant, &self.work.pipeline);
            let (source, code, count) = (&self.declared.name, first.code, taken.rejected);
            let (at, message) = (&piece.shown, first.message);
            tracing::warn!(%tenant, %pipeline, source, code, count, at, "left out: {message}");
        }
        let bytes = intake.bytes() as u64;
        (!intake.is_empty()).then_some((intake, bytes))
    }

    /// Without a log there is no place to keep.
    fn identity(&self, piece: &Piece) -> Identity {
        let durable = self.work.durable.as_ref().filter(|_| !piece.place.is_empty());
        let producer = durable.map(|_| (piece.place.clone(), piece.number));
        Identity { producer, ..Identity::default() }
    }

    /// Notes a place alone.
    async fn note(&self, piece: &Piece) -> Result<(), Fault> {
        let durable = self.work.durable.as_ref().filter(|_| !piece.place.is_empty());
        if let Some(durable) = durable {
            while let Err(why) = durable.note_place(&piece.place, piece.number) {
                let Some(wait) = wait_of(why)? else { break };
                tokio::time::sleep(wait).await;
            }
        }
        self.done(piece);
        Ok(())
    }

    /// Draws what the tenant may have, and waits for it if need be.
    async fn draw(&self, events: u64, bytes: u64) {
        let node = &self.work.node;
        let account = node.admission().account(&self.work.tenant, &node.tenants().current());
        let (mut left, mut shares) = ((events, bytes), 1);
        while left != (0, 0) {
            let part = (left.0.min(events.div_ceil(shares)), left.1.min(bytes.div_ceil(shares)));
            let disk = self.work.running().map_or(Ok(()), |running| running.check_disk());
            let drawn = disk.and_then(|()| {
                let draws = [(Resource::Events, part.0), (Resource::Bytes, part.1)];
                account.spend(&draws).map_err(Error::from)
            });
            let Err(error) = drawn else {
                left = (left.0 - part.0, left.1 - part.1);
                continue;
            };
            if error.retry_after().is_none() && shares < SHARES_MAX {
                // More than there ever is at a time: piece by piece it comes together.
                shares *= 2;
                continue;
            }
            let wait = error.retry_after().unwrap_or(QUOTA_PAUSE_MAX);
            self.work.metrics.waits("quota.exhausted", &error.to_string());
            tokio::time::sleep(wait.clamp(ROOM_PAUSE, QUOTA_PAUSE_MAX)).await;
        }
    }

    /// Tries to hand events in, which stay in `intake` if they are not taken.
    fn hand_in(&self, intake: &mut Option<Intake>) -> Result<Handed, Fault> {
        let Some(running) = self.work.running() else { return Ok(Handed::Again(ROOM_PAUSE)) };
        let Some(own) = intake.take() else { return Ok(Handed::Taken) };
        let own = if own.is_for(&running) { own } else { own.for_version(&running) };
        let (events, bytes) = (own.len() as u64, own.bytes() as u64);
        match own.submit(now_micros()) {
            Ok(Submitted::Queued | Submitted::Logged(Logged::At(_))) => {
                running.metrics().events.add(events);
                running.metrics().bytes.add(bytes);
                Ok(Handed::Taken)
            }
            // It is there already, and its place with it.
            Ok(Submitted::Logged(Logged::Repeat(_))) => Ok(Handed::Taken),
            Err(Unsubmitted::Busy { intake: again, .. }) => {
                let wait = if again.has_room() { LOG_PAUSE } else { ROOM_PAUSE };
                *intake = Some(*again);
                Ok(Handed::Again(wait))
            }
            Err(Unsubmitted::Refused(why)) => match wait_of(why)? {
                // What was in it is gone; it is made again of the same piece.
                Some(_) => Err(Fault::new("log.full", "the log takes nothing now")),
                None => Ok(Handed::Never),
            },
        }
    }

    /// A piece that the log would never take is left out.
    fn too_large(&self, piece: &Piece) {
        self.work.metrics.rejected.inc();
        let (tenant, pipeline, at) = (&self.work.tenant, &self.work.pipeline, &piece.shown);
        let source = &self.declared.name;
        tracing::error!(%tenant, %pipeline, source, at, "left out: larger than a record of the log");
    }

    async fn room(&self, wait: Duration) {
        match self.work.running() {
            Some(running) if !running.is_paused() => {
                // What counts is the next attempt.
                let _either = tokio::time::timeout(wait, running.room()).await;
                tokio::time::sleep(LOG_PAUSE).await;
            }
            _ => tokio::time::sleep(LOG_PAUSE * 5).await,
        }
    }
}

/// How long to wait for the log; none if it will never take this.
///
/// # Errors
/// The log takes nothing for a while, or ever.
fn wait_of(why: NotLogged) -> Result<Option<Duration>, Fault> {
    match refused(why) {
        Error::TooLarge { .. } => Ok(None),
        Error::Busy { .. } => Ok(Some(LOG_PAUSE)),
        error => {
            use sluicebox_core::error::Classify as _;
            Err(Fault::new(error.code(), error.to_string()))
        }
    }
}

#[cfg(test)]
pub(super) mod contract {
    //! What every source must show.
    //!
    //! - What it gave and was not noted comes again, whoever asks: nothing is lost by a kill.
    //! - What was noted does not come again.
    //! - Numbers of a place only grow; a piece with nothing in it may say one again.

    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    /// Places as the log would keep them.
    #[derive(Debug, Default)]
    pub(in crate::connectors) struct Noted(RefCell<BTreeMap<String, u64>>);

    impl Places for Noted {
        fn of(&self, place: &str) -> Option<u64> {
            self.0.borrow().get(place).copied()
        }

        async fn on_disk(&self, _: &str) -> Result<(), Fault> {
            Ok(())
        }
    }

    impl Noted {
        pub(in crate::connectors) fn note(&self, piece: &Piece) {
            let before = self.0.borrow_mut().insert(piece.place.clone(), piece.number);
            // One that holds nothing may say where it is once more, as an end of a failure.
            let least = piece.number + u64::from(matches!(piece.what, What::Nothing));
            assert!(before.is_none_or(|before| before < least), "{before:?}: {piece:?}");
        }
    }

    /// What a piece holds, in lines.
    pub(in crate::connectors) fn lines(piece: &Piece) -> Vec<String> {
        match &piece.what {
            What::Bytes(_, bytes) => {
                String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
            }
            What::Messages(messages) => {
                let text =
                    |message: &feed::Message| String::from_utf8_lossy(&message.payload).into();
                messages.iter().map(text).collect()
            }
            What::Tick(time) => vec![time.to_string()],
            What::Nothing => Vec::new(),
        }
    }

    /// Takes all there is now with sources that are made anew before each piece if `kill` says so
    /// of its number, and asked twice. `make` gives one that has nothing in memory.
    pub(in crate::connectors) async fn all<S: Source>(
        noted: &Noted,
        mut make: impl FnMut() -> S,
        kill: impl Fn(usize) -> bool,
    ) -> Vec<String> {
        let (mut source, mut all) = (make(), Vec::new());
        for number in 0.. {
            let soon = Duration::from_millis(700);
            let asked = tokio::time::timeout(soon, source.next(noted)).await;
            let Ok(piece) = asked else { return all };
            let mut piece = piece.expect("it can be had");
            if kill(number) {
                // It was not taken: whoever comes next gives the same, however it is cut.
                source = make();
                let again = source.next(noted).await.expect("it can be had");
                let (one, other) = (lines(&piece), lines(&again));
                let both = one.len().min(other.len());
                assert_eq!(one[..both], other[..both]);
                assert!(both > 0 || one == other);
                assert_eq!(one.len().cmp(&other.len()), piece.number.cmp(&again.number));
                piece = again;
            }
            noted.note(&piece);
            all.extend(lines(&piece));
        }
        all
    }
}
