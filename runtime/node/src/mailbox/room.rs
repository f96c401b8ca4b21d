//! The room in an inbox, and those who wait for it.
//!
//! - There is room as long as the bound is not reached; what is put in may go beyond it.
//! - Who waits for a short time only is told with all others ([`Room::news`]).
//! - Who waits for as long as it takes stands in line. First come, first served: whoever comes
//!   while others stand there goes behind them. One is told whenever there is room, and tells the
//!   next when it is done, if there is more; so no more wake up than find room.
//! - One that was told and does nothing, since its client does not read, holds up the others once
//!   and for [`PATIENCE`] at most: who waited for so long looks by itself, and keeps its place.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::lock;

/// Longest wait in line before one looks by itself.
const PATIENCE: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: AtomicUsize,
    bytes_max: usize,
    news: Notify,
    /// Those who stand in line and were not told yet.
    line: Mutex<VecDeque<Arc<Waiter>>>,
}

#[derive(Debug, Default)]
struct Waiter {
    told: AtomicBool,
    news: Notify,
}

/// A place in a line, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    waiter: Arc<Waiter>,
}

impl Room {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (bytes, news, line) = (AtomicUsize::new(0), Notify::new(), Mutex::default());
        Self { bytes, bytes_max, news, line }
    }

    /// Bytes that are in.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// There is some.
    pub(crate) fn is_there(&self) -> bool {
        self.bytes() < self.bytes_max
    }

    /// So much is in beyond the bound.
    pub(crate) fn over(&self) -> usize {
        self.bytes().saturating_sub(self.bytes_max)
    }

    /// Tells when there is some after there was none.
    pub(crate) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// So much more is in.
    pub(super) fn fill(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So much less is in. True if there was no room before.
    pub(super) fn free(&self, bytes: usize) -> bool {
        // Of one look: others fill it meanwhile, and whoever finds it full waits for this.
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let has_come = before >= self.bytes_max && before - bytes < self.bytes_max;
        if has_come {
            self.news.notify_waiters();
        }
        self.tell();
        has_come
    }

    /// The last place in the line; none if nobody stands there.
    pub(crate) fn behind_others(self: &Arc<Self>) -> Option<Place> {
        let stands = !lock(&self.line).is_empty();
        stands.then(|| self.stand())
    }

    /// The last place in the line.
    pub(crate) fn stand(self: &Arc<Self>) -> Place {
        let place = Place { room: self.clone(), waiter: Arc::default() };
        lock(&self.line).push_back(place.waiter.clone());
        // Room that came before was told to others.
        self.tell();
        place
    }

    /// Tells the first in line if there is room.
    fn tell(&self) {
        // Behind the lock: who stands in line from then on looks by itself.
        let mut line = lock(&self.line);
        if self.is_there()
            && let Some(first) = line.pop_front()
        {
            first.told.store(true, Ordering::Relaxed);
            first.news.notify_one();
        }
    }
}

impl Place {
    /// It is in this line.
    pub(crate) fn is_at(&self, room: &Arc<Room>) -> bool {
        Arc::ptr_eq(&self.room, room)
    }

    /// Waits until it may look for room. It may be given up and called again.
    pub(crate) async fn turn(&self) {
        // News may be of a turn that is over.
        let told = async {
            while !self.is_told() {
                self.waiter.news.notified().await;
            }
        };
        let _told = tokio::time::timeout(PATIENCE, told).await;
    }

    /// It looked, and the room was gone: if it was told it is the first again.
    pub(crate) fn first_again(&self) {
        if self.waiter.told.swap(false, Ordering::Relaxed) {
            lock(&self.room.line).push_front(self.waiter.clone());
        }
        self.room.tell();
    }

    fn is_told(&self) -> bool {
        self.waiter.told.load(Ordering::Relaxed)
    }

    fn leave(&self) {
        lock(&self.room.line).retain(|other| !Arc::ptr_eq(other, &self.waiter));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_told() {
            self.leave();
        }
        // It may have been told of room that it did not use, or not all of.
        self.room.tell();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn full() -> Arc<Room> {
        let room = Arc::new(Room::new(10));
        room.fill(30);
        room
    }

    fn may_look(place: &Place) -> bool {
        place.turn().now_or_never().is_some()
    }

    #[tokio::test]
    async fn one_is_told_for_each_that_found_room() {
        let room = full();
        assert!(room.behind_others().is_none());
        let mut places = [room.stand(), room.stand(), room.stand()];
        assert!(!room.free(15));
        assert!(!places.iter().any(may_look), "there is none yet");
        assert!(room.free(10));
        let newcomer = room.behind_others().expect("others stand there");
        let told = |places: &[Place]| places.iter().map(may_look).collect::<Vec<_>>();
        assert_eq!(told(&places), [true, true, false], "one by what came, one by the newcomer");
        assert!(!may_look(&newcomer));
        // The first takes all of it; the second finds none and is the first again.
        room.fill(30);
        let [first, second, third] = &mut places;
        second.first_again();
        assert!(!may_look(second));
        let gone = std::mem::replace(first, room.stand());
        drop(gone);
        assert!(!may_look(second), "there is no room to tell of");
        room.free(30);
        assert!(may_look(second) && !may_look(third), "the first and no other");
        // It goes without having used it.
        let gone = std::mem::replace(second, room.stand());
        drop(gone);
        assert!(may_look(third));
    }

    #[tokio::test]
    async fn room_that_comes_while_one_steps_into_line_is_not_missed() {
        let room = full();
        room.free(30);
        assert!(may_look(&room.stand()), "it looked before that, and found none");
        assert!(room.behind_others().is_none());
    }

    #[tokio::test]
    async fn one_that_does_nothing_holds_up_nobody_for_long() {
        let room = full();
        let (idle, next) = (room.stand(), room.stand());
        room.free(30);
        assert!(may_look(&idle));
        assert!(!may_look(&next), "it was the other's turn");
        let last = room.stand();
        assert!(may_look(&idle) && !may_look(&last));
        room.fill(30);
        tokio::time::timeout(PATIENCE * 2, next.turn()).await.expect("it looks by itself");
        // It found none, and is still in front of those who came behind it.
        next.first_again();
        room.free(30);
        assert!(may_look(&next) && !may_look(&last));
        drop((idle, next));
        assert!(may_look(&last));
        drop(last);
        assert!(room.behind_others().is_none());
    }

    #[tokio::test]
    async fn one_that_leaves_the_line_is_not_told() {
        let room = full();
        let (first, second) = (room.stand(), room.stand());
        drop(first);
        room.free(30);
        assert!(may_look(&second));
    }

    #[tokio::test]
    async fn who_waits_briefly_is_told_with_all_others() {
        let room = full();
        let (one, other) = (room.news(), room.news());
        room.free(30);
        assert!(one.now_or_never().is_some() && other.now_or_never().is_some());
    }
}
