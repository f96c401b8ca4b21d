//! What windows, joins, de-duplication and patterns have in common: a call's events by key, when an
//! event is late, and slots that are read in one call of the host and written in another.
//!
//! - A call of 256 events costs two calls of the host, however many keys it has: one batch reads
//!   what the keys have, one writes what changed. Firing a window may need a third, for the panes
//!   the first could not know of.
//! - Every key has at most one timer for each routine, set for the earliest thing it waits for.
//! - Slots and timers of a routine are named `@name` and `@name/…`; a stage that keeps slots of
//!   its own does not begin their names with `@`.
//! - What the host refuses fails the events that wanted it. Nothing is lost silently: an event is
//!   counted, goes to the late port, or fails.
//!
//! One slot a key is in `cell.rs`, a slot for each span of time in `shelf.rs`.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use crate::event::{Event, Events, Kind};
use crate::failure::{Class, Failure, Result};
use crate::output::Output;
use crate::state::Refused;
use crate::timers::{Clock, now, watermark};
use crate::{frame, metrics};

pub(crate) mod cell;
#[cfg(test)]
pub(crate) mod scenario;
pub(crate) mod shelf;

/// Most bytes of a routine's name: with `@`, `/` and a number it fits the name of a slot.
const NAME_BYTES_MAX: usize = 32;
/// The counter of events that were dropped because they were late and the stage says so.
const DROPPED: &str = "late_events_dropped";

/// What becomes of an event that is too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    Fail,
    Port(u16),
    Drop,
}

/// What every routine can be told. See `terms!` for what the fields mean.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) name: &'static str,
    pub(crate) lateness: u64,
    pub(crate) late: Late,
    pub(crate) clock: Clock,
    pub(crate) filter: Option<fn(&Event<'_>) -> bool>,
}

impl Terms {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, lateness: 0, late: Late::Fail, clock: Clock::Event, filter: None }
    }

    pub(crate) const fn with_name(mut self, name: &'static str) -> Self {
        let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
        assert!(fits, "the name of a routine is 1 to 32 bytes long");
        let mut at = 0;
        while at < name.len() {
            assert!(name.as_bytes()[at] != b'/', "the name of a routine has no `/`");
            at += 1;
        }
        self.name = name;
        self
    }

    /// Name of the first slot and of the timer.
    pub(crate) fn slot(&self) -> String {
        format!("@{}", self.name)
    }

    /// The time an event counts at.
    pub(crate) fn time(&self, event: &Event<'_>) -> u64 {
        match self.clock {
            Clock::Event => event.time(),
            Clock::Wall => now(),
        }
    }

    /// The time before which nothing is expected any more.
    pub(crate) fn watermark(&self) -> u64 {
        match self.clock {
            Clock::Event => watermark(),
            Clock::Wall => now(),
        }
    }

    /// Whether the routine takes this event: its own timers, and data that passes the filter.
    pub(crate) fn takes(&self, event: &Event<'_>) -> bool {
        match event.kind() {
            Kind::Data => self.filter.is_none_or(|filter| filter(event)),
            Kind::Timer => self.below(event) == Some(""),
            Kind::Open | Kind::End => false,
        }
    }

    /// Of a timer of this routine: what its name has behind that of the routine.
    pub(crate) fn below<'e>(&self, event: &Event<'e>) -> Option<&'e str> {
        event.timer()?.strip_prefix('@')?.strip_prefix(self.name)
    }

    /// Sends an event that is too late where the stage says. `behind` is the watermark.
    pub(crate) fn too_late(&self, event: &Event<'_>, behind: u64, out: &mut Output) -> Result {
        match self.late {
            Late::Port(port) => {
                let mut draft = out.draft(event).port(port);
                for (id, value) in event.fields().filter(|(id, _)| *id >= FIELD_OF_ANYONE) {
                    draft = draft.field(id, value);
                }
                draft.emit(event.payload());
                Ok(())
            }
            Late::Drop => {
                metrics::count(DROPPED, 1);
                Ok(())
            }
            Late::Fail => {
                let (name, time) = (self.name, self.time(event));
                Err(Failure::reject(format!(
                    "{name}: too late, at {time} with the watermark at {behind}; allow more \
                     lateness or give late events a port"
                )))
            }
        }
    }
}

/// Fields below this id are the host's, which writes them itself.
const FIELD_OF_ANYONE: u16 = 256;

/// The settings every routine has, as methods of its builder; `lateness` adds the one that most
/// have.
macro_rules! terms {
    (lateness) => {
        crate::keyed::terms!();

        /// For how long behind the watermark an event still counts. What is needed for it is kept
        /// for as long.
        #[must_use]
        pub const fn allowed_lateness(mut self, lateness: std::time::Duration) -> Self {
            self.terms.lateness = crate::keyed::micros(lateness);
            self
        }
    };
    () => {
        /// Names it: its slots and its timer are called `@name`. Two in one stage have two names,
        /// at most 32 bytes long and without `/`.
        #[must_use]
        pub const fn named(mut self, name: &'static str) -> Self {
            self.terms = self.terms.with_name(name);
            self
        }

        /// The port by which events leave, as they came, that are too late. Without a port such an
        /// event fails, and so is found among the dead letters.
        #[must_use]
        pub const fn late_port(mut self, port: u16) -> Self {
            self.terms.late = crate::keyed::Late::Port(port);
            self
        }

        /// Drops events that are too late, and counts them in the stage's counter
        /// `late_events_dropped`.
        #[must_use]
        pub const fn drop_late(mut self) -> Self {
            self.terms.late = crate::keyed::Late::Drop;
            self
        }

        /// Goes by the clock: an event counts at the time of its batch, whatever its own time is,
        /// and none is late.
        #[must_use]
        pub const fn by_clock(mut self) -> Self {
            self.terms.clock = crate::timers::Clock::Wall;
            self
        }

        /// Takes only these events of kind data; the others are left to the rest of the stage.
        #[must_use]
        pub const fn only(mut self, filter: fn(&crate::event::Event<'_>) -> bool) -> Self {
            self.terms.filter = Some(filter);
            self
        }
    };
}

pub(crate) use terms;

/// A length of time in the unit of event times.
pub(crate) const fn micros(duration: Duration) -> u64 {
    let micros = duration.as_micros();
    assert!(micros < frame::TIME_END as u128, "a time is below 2^53 microseconds");
    micros as u64
}

/// Checks that nothing an event at `time` leads to lies behind the end of time.
pub(crate) fn check_time(time: u64, reach: u64) -> Result {
    if time.saturating_add(reach) < frame::TIME_END {
        return Ok(());
    }
    Err(Failure::reject(format!("the time {time} is too close to 2^53, where time ends")))
}

/// The failure of a slot that this routine did not write.
pub(crate) fn unreadable(slot: &str) -> Failure {
    Failure::reject(format!(
        "the slot {slot} holds what was kept in another form: name the routine anew, or discard \
         the state of the stage"
    ))
}

/// One key of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyOf<'a> {
    /// Its first event: what the host knows the key by.
    pub(crate) event: Event<'a>,
    /// How many events it has in this call.
    pub(crate) events: u32,
    /// Whether its timer fired in this call, so that it is not set any more.
    pub(crate) fired: bool,
}

/// The events of one call that a routine takes, and their keys in the order of first events.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) events: Vec<(Event<'a>, usize)>,
    pub(crate) keys: Vec<KeyOf<'a>>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(events: Events<'a>, terms: &Terms) -> Self {
        Self::of(events, |event| terms.takes(event))
    }

    /// The events that `takes` lets through.
    pub(crate) fn of(events: Events<'a>, takes: impl Fn(&Event<'a>) -> bool) -> Self {
        let mut call = Self { events: Vec::with_capacity(events.len()), keys: Vec::new() };
        let mut places: HashMap<&[u8], usize, BuildHasherDefault<KeyHasher>> = HashMap::default();
        let mut last: (&[u8], usize) = (&[], usize::MAX);
        for event in events.into_iter().filter(|event| takes(event)) {
            let name = event.key_bytes();
            // Events of one key often come together.
            let key = if last.1 != usize::MAX && last.0 == name {
                last.1
            } else {
                *places.entry(name).or_insert_with(|| {
                    call.keys.push(KeyOf { event, events: 0, fired: false });
                    call.keys.len() - 1
                })
            };
            last = (name, key);
            call.keys[key].events += 1;
            call.keys[key].fired |= event.kind() == Kind::Timer;
            call.events.push((event, key));
        }
        call
    }

    /// Fails all events of a key: what the host says concerns them together. If there are several
    /// the host is to try each alone, and finds the one that is too much.
    #[cold]
    pub(crate) fn refuse(&self, key: usize, refused: Refused, out: &mut Output) {
        let failure = Failure::from(refused);
        let alone = self.keys[key].events == 1;
        for (event, _) in self.events.iter().filter(|(_, of)| *of == key) {
            let failure = failure.clone();
            out.fail(event, if alone { failure } else { failure.with_class(Class::Retry) });
        }
    }
}

/// A quick hash without a seed: a call has few keys, so that keys made to collide cost little.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut add = |word: u64| {
            self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x51_7c_c1_b7_27_22_0a_95);
        };
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| add(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| add(u64::from(*byte)));
    }

    fn finish(&self) -> u64 {
        // The multiplication leaves its best bits at the top, and tables look at the bottom.
        self.0 ^ (self.0 >> 32)
    }
}
