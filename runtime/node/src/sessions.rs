//! Who sends the stream of a key over a session, and how far it has come: one table a pipeline.
//!
//! - Units of a key are counted from 0 by *ordinals*, over all its streams. What was taken is known
//!   by them, so that a producer whose connection broke goes on where it was: with a log for as
//!   long as producers are known there (they are one, see [`Standing::sequence`]), without one in
//!   memory.
//! - One session at a time sends a key's stream. A newer one takes over, and from then on the older
//!   one can hand in nothing: that is looked at in the same lock in which events are handed in.
//! - The table holds a key while a session of it is open, and a bounded number of keys whose
//!   sessions broke off while something that follows from them was not handled yet.
//!
//! What a session is over HTTP is said in `http/session`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use sluicebox_core::dedup::{Dedup, DedupLimits, id_hash};
use sluicebox_store::log::Position;
use tokio::sync::Notify;

use crate::durable::Durable;
use crate::mailbox::lock;
use crate::requests::{Following, Requests};
use crate::running::event_time::now_micros;

/// Keys whose place is known without a log, and for how long.
const KNOWN: DedupLimits = DedupLimits { entries: 65_536, window: 3_600_000_000 };

/// Keys that are kept although no session is open.
const LINGERING_MAX: usize = 4096;

/// Producers of sessions begin with this, which no client can send in a header.
const PREFIX: char = '\u{1}';

/// The sessions of a pipeline, over all its versions.
#[derive(Debug)]
pub(crate) struct Sessions(Mutex<Table>);

#[derive(Debug)]
struct Table {
    open: HashMap<Box<[u8]>, Arc<Place>>,
    /// Keys without a session, the oldest first. Some have one again.
    lingering: VecDeque<Box<[u8]>>,
    /// How far the streams of others came, where there is no log that knows.
    known: Dedup,
}

impl Default for Sessions {
    fn default() -> Self {
        let (open, lingering) = (HashMap::new(), VecDeque::new());
        Self(Mutex::new(Table { open, lingering, known: Dedup::new(0, KNOWN) }))
    }
}

/// How far the streams of a key have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Ordinal of the next unit: so many were taken.
    pub(crate) at: u64,
    /// The last thing taken was an end.
    pub(crate) ended: bool,
}

impl Standing {
    /// As the number of a producer's request. It grows with each unit, and with an end.
    pub(crate) const fn sequence(self) -> u64 {
        self.at << 1 | self.ended as u64
    }

    const fn of(sequence: u64) -> Self {
        Self { at: sequence >> 1, ended: sequence & 1 == 1 }
    }
}

/// Where in the log that is which a key's place says, if there is a log.
pub(crate) fn logged(durable: Option<&Arc<Durable>>, key: &[u8]) -> Option<Position> {
    durable?.last_of(&producer(key)).map(|(_, at)| at)
}

/// A key's place in the table.
#[derive(Debug)]
struct Place {
    held: Mutex<Held>,
    /// Told when the session that holds it changes.
    changed: Notify,
    /// What follows from all its sessions.
    following: Following,
}

#[derive(Debug)]
struct Held {
    /// Which session has it, from 1.
    by: u64,
    /// Sessions that are not over yet.
    sessions: usize,
    standing: Standing,
}

/// A key that a session holds, until another one takes it over.
#[derive(Debug)]
pub(crate) struct Hold {
    sessions: Arc<Sessions>,
    durable: Option<Arc<Durable>>,
    key: Box<[u8]>,
    place: Arc<Place>,
    number: u64,
}

/// Another session has the key now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TakenOver;

/// The producer that a key's sessions are, in the log.
fn producer(key: &[u8]) -> String {
    format!("{PREFIX}stream:{:032x}", id_hash(b"", key))
}

impl Sessions {
    /// Takes the key, from whoever has it. None if too many clients wait for something.
    pub(crate) fn hold(
        self: &Arc<Self>,
        (durable, requests): (Option<&Arc<Durable>>, &Requests),
        key: &[u8],
    ) -> Option<Hold> {
        let of = durable.map(|durable| durable.id);
        let mut table = lock(&self.0);
        table.let_go(LINGERING_MAX);
        let place = if let Some(place) = table.open.get(key) {
            Arc::clone(place)
        } else {
            let standing = table.recall(durable, key);
            let held = Mutex::new(Held { by: 0, sessions: 0, standing });
            let (changed, following) = (Notify::new(), requests.follow(of)?);
            let place = Arc::new(Place { held, changed, following });
            table.open.insert(key.into(), Arc::clone(&place));
            place
        };
        // In the lock of the table, so that the place is not taken out of it meanwhile.
        let number = {
            let mut held = lock(&place.held);
            held.by += 1;
            held.sessions += 1;
            held.by
        };
        drop(table);
        place.changed.notify_waiters();
        let (sessions, durable, key) = (Arc::clone(self), durable.cloned(), key.into());
        Some(Hold { sessions, durable, key, place, number })
    }

    /// How far the streams of a key have come.
    pub(crate) fn standing(&self, durable: Option<&Arc<Durable>>, key: &[u8]) -> Standing {
        let mut table = lock(&self.0);
        match table.open.get(key) {
            Some(place) => lock(&place.held).standing,
            None => table.recall(durable, key),
        }
    }
}

impl Table {
    /// Lets go of keys that need not be kept any more, and of the oldest beyond so many.
    fn let_go(&mut self, most: usize) {
        let mut looks = self.lingering.len();
        while looks > 0 {
            looks -= 1;
            let Some(key) = self.lingering.pop_front() else { break };
            let Some(place) = self.open.get(&key) else { continue };
            if lock(&place.held).sessions > 0 {
                continue;
            }
            if self.lingering.len() < most && !place.following.is_done() {
                self.lingering.push_back(key);
            } else {
                self.open.remove(&key);
            }
        }
    }

    fn recall(&mut self, durable: Option<&Arc<Durable>>, key: &[u8]) -> Standing {
        let producer = producer(key);
        let last = match durable {
            Some(durable) => durable.last_of(&producer).map(|(sequence, _)| sequence),
            None => self.known.last_of(&producer, now_micros()).map(|known| known.sequence),
        };
        last.map_or_else(Standing::default, Standing::of)
    }
}

impl Hold {
    /// Where the key stands.
    pub(crate) fn standing(&self) -> Standing {
        lock(&self.place.held).standing
    }

    /// What follows from all sessions of the key.
    pub(crate) fn following(&self) -> &Following {
        &self.place.following
    }

    /// Does something that brings the key to `standing`, and that is known in the log by the
    /// producer and number it is given, unless another session has the key by now.
    ///
    /// # Errors
    /// [`TakenOver`]; nothing was done. If `act` fails, the key stays where it was.
    pub(crate) fn advance<T, E>(
        &self,
        standing: Standing,
        act: impl FnOnce(String, u64) -> Result<T, E>,
    ) -> Result<Result<T, E>, TakenOver> {
        let mut held = lock(&self.place.held);
        if held.by != self.number {
            return Err(TakenOver);
        }
        let done = act(producer(&self.key), standing.sequence());
        if done.is_ok() {
            held.standing = standing;
        }
        Ok(done)
    }

    /// Returns when another session has the key.
    pub(crate) async fn taken_over(&self) {
        loop {
            let mut changed = std::pin::pin!(self.place.changed.notified());
            changed.as_mut().enable();
            if lock(&self.place.held).by != self.number {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut table = lock(&self.sessions.0);
        let (over, standing) = {
            let mut held = lock(&self.place.held);
            held.sessions -= 1;
            (held.sessions == 0, held.standing)
        };
        if !over {
            return;
        }
        if self.place.following.is_done() {
            table.open.remove(&self.key);
        } else {
            table.lingering.push_back(self.key.clone());
        }
        if self.durable.is_none() && standing != Standing::default() {
            let now = now_micros();
            table.known.note_request(&producer(&self.key), standing.sequence(), 0, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(sessions: &Arc<Sessions>) -> Hold {
        sessions.hold((None, &Requests::new(16)), b"cam").expect("room")
    }

    fn advance(hold: &Hold, at: u64, ended: bool) -> Result<(), TakenOver> {
        let standing = Standing { at, ended };
        hold.advance(standing, |_, _| Ok::<_, ()>(())).map(|done| done.expect("it does"))
    }

    #[test]
    fn a_key_goes_on_where_it_was_left() {
        let sessions = Arc::<Sessions>::default();
        let hold = begin(&sessions);
        assert_eq!(hold.standing(), Standing::default());
        assert_eq!(advance(&hold, 7, false), Ok(()));
        assert_eq!(sessions.standing(None, b"cam"), Standing { at: 7, ended: false });
        drop(hold);
        assert_eq!(sessions.standing(None, b"cam"), Standing { at: 7, ended: false });
        assert_eq!(sessions.standing(None, b"other"), Standing::default());
        let again = begin(&sessions);
        assert_eq!(advance(&again, 7, true), Ok(()));
        drop(again);
        assert_eq!(sessions.standing(None, b"cam"), Standing { at: 7, ended: true });
        assert!(lock(&sessions.0).open.is_empty());
    }

    #[tokio::test]
    async fn a_newer_session_takes_the_key_and_the_older_one_can_do_nothing() {
        let sessions = Arc::<Sessions>::default();
        let old = begin(&sessions);
        assert_eq!(advance(&old, 1, false), Ok(()));
        let new = begin(&sessions);
        old.taken_over().await;
        let mut called = false;
        let refused = old.advance(Standing { at: 2, ended: false }, |_, _| {
            called = true;
            Ok::<_, ()>(())
        });
        assert_eq!((refused.map(drop), called), (Err(TakenOver), false));
        assert_eq!(new.standing().at, 1);
        // The older one is over; the newer one keeps its place.
        drop(old);
        assert_eq!(advance(&new, 2, false), Ok(()));
        assert_eq!(sessions.standing(None, b"cam").at, 2);
    }

    #[test]
    fn a_key_is_kept_until_what_follows_from_it_is_handled() {
        let sessions = Arc::<Sessions>::default();
        let first = begin(&sessions);
        first.following().add(1);
        drop(first);
        let again = begin(&sessions);
        assert!(!again.following().is_done(), "what follows was forgotten");
        drop(again);
        assert_eq!(lock(&sessions.0).open.len(), 1);
        let last = begin(&sessions);
        last.following().add(-1);
        assert!(last.following().is_done());
        drop(last);
        lock(&sessions.0).let_go(LINGERING_MAX);
        let table = lock(&sessions.0);
        assert!(table.open.is_empty() && table.lingering.is_empty());
    }

    #[test]
    fn keys_that_linger_are_bounded() {
        let sessions = Arc::<Sessions>::default();
        for _ in 0..3 {
            let broken = begin(&sessions);
            broken.following().add(1);
        }
        lock(&sessions.0).let_go(0);
        assert!(lock(&sessions.0).open.is_empty());
    }

    #[test]
    fn what_fails_moves_nothing() {
        let sessions = Arc::<Sessions>::default();
        let hold = begin(&sessions);
        let failed = hold.advance(Standing { at: 5, ended: false }, |_, _| Err::<(), _>("full"));
        assert_eq!(failed, Ok(Err("full")));
        assert_eq!(hold.standing(), Standing::default());
    }

    #[test]
    fn the_number_of_a_request_grows_with_units_and_ends() {
        let all = [(0, false), (0, true), (1, false), (1, true), (2, false)];
        let numbers = all.map(|(at, ended)| Standing { at, ended }.sequence());
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert!(all.iter().zip(numbers).all(|((at, ended), number)| {
            Standing::of(number) == Standing { at: *at, ended: *ended }
        }));
        assert_ne!(producer(b"a"), producer(b"b"));
        assert!(http::HeaderValue::from_str(&producer(b"a")).is_err(), "a client can send it");
    }
}
