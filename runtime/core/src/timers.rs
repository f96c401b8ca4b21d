//! Timers of one stage in one partition: wake-ups its keys asked for, by event time or the clock.
//!
//! ```text
//! key ─► name: clock u8 · time u64        the state, a slot for each timer
//! (time, key, name) in order, by clock    the index, made from it
//! ```
//!
//! - They are state beside the stage's own ([`crate::ids::Part::Timers`]), as parked events are: so
//!   they are part of the commit, taken back with it, written, folded, kept and handed over by what
//!   does that with state, and lie with their key. All of it stays in memory, since when a timer is
//!   due is said nowhere else.
//! - Index and state always say the same, also after something was taken back.
//! - Bounded for each key in number and in all in bytes; what does not fit is refused, and nothing
//!   changes.
//! - Both times are arguments. What is due comes in order of time, then of key and name.
//!
//! When they fire is decided in `partition/fire.rs`.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::frame::{Frame, FrameBuilder, Head, Kind, NO_CAUSE};
use crate::limits::{
    BATCH_BYTES_MAX, SLOT_BYTES_MAX, TIME_END, TIMERS_A_KEY_MAX, TIMERS_BYTES_MAX,
};
use crate::state::{KeyedState, Mark as StateMark, StateLimits};

/// What a timer takes besides its slot: its place in the index.
const INDEX_BYTES: usize = 64;
/// Bytes of a slot: the clock, and the time.
const SLOT_VALUE_BYTES: usize = 1 + 8;

/// Which time a timer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clock {
    /// The watermark.
    Event,
    /// The recorded time of a batch.
    Wall,
}

impl Clock {
    /// The byte it is written as.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Event => 0,
            Self::Wall => 1,
        }
    }

    /// The clock a byte stands for.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Event),
            1 => Some(Self::Wall),
            _ => None,
        }
    }
}

/// Why a timer was not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimerRefusal {
    /// The name is too long.
    #[error("the name of a timer has at most 64 bytes")]
    Name,
    /// The time is out of range.
    #[error("the time of a timer is below 2^53, not {0}")]
    Time(u64),
    /// There is no watermark, and will be none.
    #[error(
        "no watermark will come: the pipeline's manifest has no [time]; add it, or use a wall timer"
    )]
    NoEventTime,
    /// The key has too many.
    #[error("the key has {TIMERS_A_KEY_MAX} timers, and no more are allowed")]
    KeyFull,
    /// The partition has too many.
    #[error(
        "the partition's timers would take {wanted} bytes, the limit is {limit} (a quarter of the \
         tenant's quota state-bytes, and no more than 256 MiB)"
    )]
    Full {
        /// Bytes they would take.
        wanted: usize,
        /// The limit.
        limit: usize,
    },
}

/// A point to roll back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    state: StateMark,
    moved: usize,
}

/// What a timer waits for, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Due {
    at: u64,
    clock: Clock,
    key_bytes: u16,
    /// Key and name, one behind the other.
    id: Arc<[u8]>,
}

/// A timer that came, went or was moved.
#[derive(Debug)]
struct Moved {
    was: Option<Due>,
    is: Option<Due>,
}

/// See the module.
#[derive(Debug)]
pub struct Timers {
    state: KeyedState,
    event: BTreeSet<Due>,
    wall: BTreeSet<Due>,
    /// What changed since the last commit, to be taken back.
    moved: Vec<Moved>,
    bytes_max: usize,
    /// The watermark of the batch; `None` where there will never be one.
    watermark: Option<u64>,
    /// One was refused because of what there is.
    full: bool,
}

impl Timers {
    /// No timers, in a state whose hash is not secret: for whom there will be none.
    #[must_use]
    pub fn none() -> Self {
        Self::new(KeyedState::new(0, StateLimits::NONE))
    }

    /// Takes over the timers that are in `state`.
    #[must_use]
    pub fn new(mut state: KeyedState) -> Self {
        // Bounds are held here.
        state.set_limits(StateLimits::NONE);
        let keys = state.all_keys();
        let (event, wall) = (BTreeSet::new(), BTreeSet::new());
        let (moved, bytes_max, watermark) = (Vec::new(), TIMERS_BYTES_MAX, None);
        let full = false;
        let mut timers = Self { state, event, wall, moved, bytes_max, watermark, full };
        keys.iter().for_each(|key| timers.index_key(key));
        timers
    }

    /// True if nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.event.is_empty() && self.wall.is_empty()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.event.len() + self.wall.len()
    }

    /// Bytes they take, overheads included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.state.bytes() + self.len() * INDEX_BYTES
    }

    /// The state they are kept in.
    #[must_use]
    pub fn state(&self) -> &KeyedState {
        &self.state
    }

    /// Gives up all but what they are kept in.
    #[must_use]
    pub fn into_state(self) -> KeyedState {
        self.state
    }

    /// Lets them grow by at most `room` bytes from here.
    pub fn bound(&mut self, room: usize) {
        self.bytes_max = self.bytes().saturating_add(room).min(TIMERS_BYTES_MAX);
    }

    /// The watermark of the batch; 0 if it is not known.
    #[must_use]
    pub fn watermark(&self) -> u64 {
        self.watermark.unwrap_or(0)
    }

    /// Sets the watermark of the batch; `None` where there will never be one.
    pub fn set_watermark(&mut self, watermark: Option<u64>) {
        self.watermark = watermark;
    }

    /// Sets a timer, in the place of one of the same name.
    ///
    /// # Errors
    /// It is out of range or does not fit; nothing changed.
    pub fn set(
        &mut self,
        key: &[u8],
        name: &[u8],
        clock: Clock,
        at: u64,
    ) -> Result<(), TimerRefusal> {
        if name.len() > SLOT_BYTES_MAX {
            return Err(TimerRefusal::Name);
        }
        if at >= TIME_END {
            return Err(TimerRefusal::Time(at));
        }
        if clock == Clock::Event && self.watermark.is_none() {
            return Err(TimerRefusal::NoEventTime);
        }
        let was = self.state.get(key, name).and_then(read);
        if was == Some((clock, at)) {
            return Ok(());
        }
        if was.is_none() {
            let admitted = self.admit(key, name);
            self.full |= matches!(admitted, Err(TimerRefusal::Full { .. }));
            admitted?;
        }
        let mut value = [0; SLOT_VALUE_BYTES];
        value[0] = clock.byte();
        value[1..].copy_from_slice(&at.to_le_bytes());
        self.state.put(key, name, &value).expect("the name is short, and there is no bound");
        let is = Due::new(key, name, clock, at);
        let was = was.map(|(clock, at)| Due { at, clock, ..is.clone() });
        self.step(Moved { was, is: Some(is) });
        Ok(())
    }

    /// Cancels a timer; true if there was one.
    pub fn cancel(&mut self, key: &[u8], name: &[u8]) -> bool {
        let Some((clock, at)) = self.state.get(key, name).and_then(read) else { return false };
        self.state.delete(key, name);
        self.step(Moved { was: Some(Due::new(key, name, clock, at)), is: None });
        true
    }

    /// Takes a timer away that fires, if it is the one of this time.
    pub fn take(&mut self, key: &[u8], name: &[u8], at: u64) {
        let is_it = |(_, set): &(Clock, u64)| *set == at;
        if self.state.get(key, name).and_then(read).filter(is_it).is_some() {
            self.cancel(key, name);
        }
    }

    /// True if the timers of a key are all of `others`, but for some that are due by now.
    #[must_use]
    pub fn are_left_of(&self, others: &Self, key: &[u8], now: u64) -> bool {
        let mut left = self.state.scan(key, b"").peekable();
        let is_due = |value| {
            let due =
                |(clock, at)| at <= if clock == Clock::Event { self.watermark() } else { now };
            read(value).is_some_and(due)
        };
        let mut others = others.state.scan(key, b"");
        others.all(|(name, value)| left.next_if_eq(&(name, value)).is_some() || is_due(value))
            && left.next().is_none()
    }

    /// Cancels every timer of a key.
    pub fn clear_key(&mut self, key: &[u8]) {
        let names: Vec<Box<[u8]>> = self.state.scan(key, b"").map(|(n, _)| n.into()).collect();
        for name in names {
            self.cancel(key, &name);
        }
    }

    /// True if since this was last asked one was refused because of what other keys have.
    pub fn take_full(&mut self) -> bool {
        std::mem::take(&mut self.full)
    }

    /// Where the changes stand now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { state: self.state.mark(), moved: self.moved.len() }
    }

    /// Takes back every change since `mark`, which must be of this batch.
    pub fn roll_back(&mut self, mark: Mark) {
        self.state.rollback(mark.state);
        while self.moved.len() > mark.moved {
            let Some(Moved { was, is }) = self.moved.pop() else { return };
            self.exchange(is.as_ref(), was);
        }
    }

    /// Takes back every change since the last commit.
    pub fn roll_back_all(&mut self) {
        while let Some(Moved { was, is }) = self.moved.pop() {
            self.exchange(is.as_ref(), was);
        }
        self.state.rollback_all();
    }

    /// Makes every change since the last commit stand.
    pub fn commit(&mut self) {
        self.moved.clear();
        self.state.commit();
    }

    /// When the next timer of a clock is due.
    #[must_use]
    pub fn next_due(&self, clock: Clock) -> Option<u64> {
        let index = if clock == Clock::Event { &self.event } else { &self.wall };
        index.first().map(|due| due.at)
    }

    /// Takes the timers that are due away, as events in the order in which they are to be handled:
    /// at most so many, and at most as many bytes as a batch may have.
    pub fn take_due(&mut self, now: u64, events_max: usize) -> Frame {
        let mut builder = FrameBuilder::new();
        let watermark = self.watermark.unwrap_or(0);
        for (clock, until) in [(Clock::Event, watermark), (Clock::Wall, now)] {
            while builder.len() < events_max && builder.bytes_len() < BATCH_BYTES_MAX {
                let index = if clock == Clock::Event { &self.event } else { &self.wall };
                let Some(due) = index.first().filter(|due| due.at <= until).cloned() else { break };
                let (key, name) = (due.key(), due.name());
                let (kind, cause) = (Kind::Timer, NO_CAUSE);
                let head = Head { kind, input: 0, port: 0, cause, time: due.at };
                builder.push(&head, key, name, &[]);
                self.state.delete(key, name);
                self.step(Moved { was: Some(due), is: None });
            }
        }
        builder.finish()
    }

    /// Puts back a slot as some commit left it.
    pub fn restore(&mut self, key: &[u8], slot: &[u8], value: Option<&[u8]>) {
        let was = self.state.get(key, slot).and_then(read);
        let due = |(clock, at)| Due::new(key, slot, clock, at);
        self.exchange(was.map(due).as_ref(), value.and_then(read).map(due));
        match value {
            Some(value) => self.state.restore(key, slot, value),
            None => self.state.forget(key, slot),
        }
    }

    /// Whether another timer fits.
    fn admit(&self, key: &[u8], name: &[u8]) -> Result<(), TimerRefusal> {
        if self.state.scan(key, b"").nth(TIMERS_A_KEY_MAX - 1).is_some() {
            return Err(TimerRefusal::KeyFull);
        }
        // More than it takes if the key has others.
        let own = key.len() + name.len() + SLOT_VALUE_BYTES + 2 * INDEX_BYTES;
        let (wanted, limit) = (self.bytes() + own, self.bytes_max);
        if wanted > limit { Err(TimerRefusal::Full { wanted, limit }) } else { Ok(()) }
    }

    fn step(&mut self, moved: Moved) {
        self.exchange(moved.was.as_ref(), moved.is.clone());
        self.moved.push(moved);
    }

    fn exchange(&mut self, old: Option<&Due>, new: Option<Due>) {
        if let Some(old) = old {
            self.index(old.clock).remove(old);
        }
        if let Some(new) = new {
            self.index(new.clock).insert(new);
        }
    }

    fn index(&mut self, clock: Clock) -> &mut BTreeSet<Due> {
        if clock == Clock::Event { &mut self.event } else { &mut self.wall }
    }

    fn index_key(&mut self, key: &[u8]) {
        let due = |(name, value)| read(value).map(|(clock, at)| Due::new(key, name, clock, at));
        let all: Vec<Due> = self.state.scan(key, b"").filter_map(due).collect();
        all.into_iter().for_each(|due| self.exchange(None, Some(due)));
    }
}

impl Due {
    fn new(key: &[u8], name: &[u8], clock: Clock, at: u64) -> Self {
        Self { at, clock, key_bytes: key.len() as u16, id: [key, name].concat().into() }
    }

    fn key(&self) -> &[u8] {
        &self.id[..usize::from(self.key_bytes)]
    }

    fn name(&self) -> &[u8] {
        &self.id[usize::from(self.key_bytes)..]
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |due: &Self| (due.at, due.clock);
        let of =
            |one: &Self, other: &Self| (one.key(), one.name()).cmp(&(other.key(), other.name()));
        place(self).cmp(&place(other)).then_with(|| of(self, other))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What the slot of a timer says; nothing if it is none.
fn read(value: &[u8]) -> Option<(Clock, u64)> {
    let (clock, at) = value.split_first()?;
    Some((Clock::from_byte(*clock)?, u64::from_le_bytes(at.try_into().ok()?)))
}

#[cfg(test)]
mod tests;
