//! Which requests and events of a pipeline have come before: ingest counts each of them once.
//!
//! - An event with an id is known by a hash of its source and id, a producer that numbers its
//!   requests by its last number. Who has come before is told where in the log the first copy is,
//!   and may be answered once that is on disk.
//! - Both tables are bounded by count and by time. The oldest go first: events by when they came,
//!   producers by when they were last heard of. How far back a repeat is still known for sure can
//!   be read at any time.
//! - Time is an argument and never runs back: a clock that was set back stands still here.
//! - What the node itself takes in from outside, and hands out, has places: a producer of the
//!   node's own ([`PLACE`], [`FILE`]) with the number of how far it is. These are remembered
//!   however long nothing is heard of them, in tables of their own, so that no client crowds them
//!   out.
//! - Equal calls give equal answers. The hash table is never iterated, and its hash is seeded by
//!   the caller, so that a producer cannot choose ids that collide in it.
//!
//! What is noted here is in the record of the ingest, so that recovery can note it again.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashTable;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed, xxh3_128};

/// The first character of a producer that is a place of the node's own. A client cannot name one:
/// headers hold no such character.
pub const PLACE: char = '\u{1}';

/// The same of a place in one of many files, of which only the last ones are remembered.
pub const FILE: char = '\u{2}';

/// Places that are remembered: for each partition of each sink one.
const PLACES_MAX: usize = 32_768;

/// Files that are remembered of one source, and of all.
pub const FILES_MAX: usize = 256;
const ALL_FILES_MAX: usize = 64 * FILES_MAX;

/// What says in the time of a [`KnownProducer`] that it is a place, or one in a file.
const MARKS: [u64; 3] = [0, 1 << 63, 1 << 62];

/// Which table a producer is in.
fn table_of(producer: &str) -> usize {
    match producer.chars().next() {
        Some(PLACE) => 1,
        Some(FILE) => 2,
        _ => 0,
    }
}

/// The hash a producer is known by. Of a file it begins with that of its source, which is before
/// the first slash. It is part of what checkpoints keep.
fn hash_of(producer: &str) -> u128 {
    let hash = xxh3_128(producer.as_bytes());
    if table_of(producer) != 2 {
        return hash;
    }
    let source = producer.split('/').next().unwrap_or_default();
    (hash >> 16) | (xxh3_128(source.as_bytes()) << 112)
}

/// The same of one that is given back.
fn marked(time: u64) -> (usize, u64) {
    let at = MARKS.iter().rposition(|mark| time & mark == *mark).unwrap_or(0);
    (at, time & !(MARKS[1] | MARKS[2]))
}

/// Bounds of one [`Dedup`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupLimits {
    /// Most events that are remembered, and most producers.
    pub entries: usize,
    /// How long one is remembered, in microseconds.
    pub window: u64,
}

impl DedupLimits {
    /// A million, ten minutes.
    pub const DEFAULT: Self = Self { entries: 1_000_000, window: 600_000_000 };
}

/// Whether something has come before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Not that anybody remembers.
    New,
    /// It has.
    Repeat {
        /// Position in the log at or before which the first copy is.
        at: u64,
    },
}

/// An event that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownId {
    /// The hash of its source and id.
    pub hash: u128,
    /// Where in the log it is.
    pub at: u64,
    /// When it came.
    pub time: u64,
}

/// A producer that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownProducer {
    /// The hash of its id.
    pub hash: u128,
    /// The number of its last request.
    pub sequence: u64,
    /// Where in the log that is.
    pub at: u64,
    /// When it came; with a mark if it is a place.
    pub time: u64,
}

/// Producers of one kind.
#[derive(Debug, Default)]
struct Producers {
    most: usize,
    /// Most of one group, where there are several.
    most_of_group: Option<usize>,
    known: BTreeMap<u128, (u64, KnownProducer)>,
    /// By group, and when they were last heard of.
    heard: BTreeMap<(u16, u64), u128>,
}

impl Producers {
    /// Those that go together: none is forgotten for one of another group, as long as all fit.
    fn group(&self, hash: u128) -> u16 {
        self.most_of_group.map_or(0, |_| (hash >> 112) as u16)
    }

    /// Forgets the one that was quiet the longest.
    fn forget_quietest(&mut self) -> Option<KnownProducer> {
        let (_, hash) = self.heard.pop_first()?;
        self.known.remove(&hash).map(|(_, producer)| producer)
    }

    /// Makes room in the group of this one, if there are too many. Gives who had to go.
    fn crowd_out(&mut self, hash: u128) -> Option<KnownProducer> {
        let group = self.group(hash);
        let of_group = (group, 0)..=(group, u64::MAX);
        if self.most_of_group.is_some_and(|most| self.heard.range(of_group.clone()).count() > most)
        {
            let quietest = *self.heard.range(of_group).next()?.0;
            let hash = self.heard.remove(&quietest)?;
            return self.known.remove(&hash).map(|(_, producer)| producer);
        }
        if self.known.len() > self.most { self.forget_quietest() } else { None }
    }

    fn all(&self) -> impl Iterator<Item = KnownProducer> {
        self.heard.values().filter_map(|hash| Some(self.known.get(hash)?.1))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Dedup {
    seed: u64,
    limits: DedupLimits,
    /// The latest time that was told.
    now: u64,
    /// Events in the order they came; the first has the number `first`.
    ids: VecDeque<KnownId>,
    first: u64,
    /// Numbers of events by their hash.
    table: HashTable<u64>,
    /// Those of clients, places, and places in files.
    producers: [Producers; 3],
    calls: u64,
    /// When the last one came that had to go before its time.
    crowded_out: Option<u64>,
}

/// The hash an event is known by. It is part of the format of the log.
#[must_use]
pub fn id_hash(source: &[u8], id: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    // With its length, so that no other division into source and id has the same bytes.
    hash.update(&(source.len() as u64).to_le_bytes());
    hash.update(source);
    hash.update(id);
    hash.digest128()
}

impl Dedup {
    /// An empty table. `seed` should be secret.
    #[must_use]
    pub fn new(seed: u64, limits: DedupLimits) -> Self {
        Self {
            seed,
            limits,
            now: 0,
            ids: VecDeque::new(),
            first: 0,
            table: HashTable::new(),
            producers: [
                (limits.entries, None),
                (PLACES_MAX, None),
                (ALL_FILES_MAX, Some(FILES_MAX)),
            ]
            .map(|(most, most_of_group)| Producers {
                most,
                most_of_group,
                ..Producers::default()
            }),
            calls: 0,
            crowded_out: None,
        }
    }

    /// Whether the event of this hash has come before.
    pub fn event(&mut self, hash: u128, now: u64) -> Seen {
        self.expire(now);
        self.find(hash).map_or(Seen::New, |known| Seen::Repeat { at: known.at })
    }

    /// Remembers an event that is at `at` in the log. One that is known stays as it is.
    pub fn note_event(&mut self, hash: u128, at: u64, now: u64) {
        self.expire(now);
        if self.limits.entries == 0 || self.find(hash).is_some() {
            return;
        }
        if self.ids.len() >= self.limits.entries {
            self.forget_oldest(true);
        }
        let number = self.first + self.ids.len() as u64;
        self.ids.push_back(KnownId { hash, at, time: self.now });
        let (ids, first, seed) = (&self.ids, self.first, self.seed);
        let hash_of = |n: &u64| bucket(seed, ids[(*n - first) as usize].hash);
        self.table.insert_unique(bucket(seed, hash), number, hash_of);
    }

    /// Whether a producer's request has come before. Numbers grow and may skip.
    pub fn request(&mut self, producer: &str, sequence: u64, now: u64) -> Seen {
        match self.last_of(producer, now) {
            Some(known) if known.sequence >= sequence => Seen::Repeat { at: known.at },
            _ => Seen::New,
        }
    }

    /// What is known of a producer.
    pub fn last_of(&mut self, producer: &str, now: u64) -> Option<KnownProducer> {
        self.expire(now);
        let known = &self.producers[table_of(producer)].known;
        Some(known.get(&hash_of(producer))?.1)
    }

    /// Remembers a producer's request that is at `at` in the log. A number below its last changes
    /// nothing.
    pub fn note_request(&mut self, producer: &str, sequence: u64, at: u64, now: u64) {
        self.expire(now);
        let known = KnownProducer { hash: hash_of(producer), sequence, at, time: self.now };
        self.note(table_of(producer), known);
    }

    /// Remembers a producer as it was. Producers are put back in the order they were given out.
    pub fn note_producer(&mut self, producer: KnownProducer) {
        let (table, time) = marked(producer.time);
        self.expire(time);
        self.note(table, KnownProducer { time, ..producer });
    }

    fn note(&mut self, table: usize, producer: KnownProducer) {
        let hash = producer.hash;
        let producers = &mut self.producers[table];
        let old = producers.known.get(&hash);
        if old.is_some_and(|(_, old)| old.sequence >= producer.sequence) || producers.most == 0 {
            return;
        }
        self.calls += 1;
        let group = producers.group(hash);
        let known = producers.known.insert(hash, (self.calls, producer));
        if let Some((heard, _)) = known {
            producers.heard.remove(&(group, heard));
        }
        producers.heard.insert((group, self.calls), hash);
        let crowded_out = if known.is_none() { producers.crowd_out(hash) } else { None };
        if let Some(producer) = crowded_out.filter(|_| table == 0) {
            self.note_crowd(true, producer.time);
        }
    }

    /// How far back a repeat is known for sure, in microseconds: the time limit, or less if there
    /// was no room for all that came in it.
    #[must_use]
    pub fn window(&self) -> u64 {
        let reach = self.crowded_out.map_or(u64::MAX, |time| self.now - time);
        reach.min(self.limits.window)
    }

    /// The events that are remembered, the oldest first.
    pub fn events(&self) -> impl ExactSizeIterator<Item = KnownId> {
        self.ids.iter().copied()
    }

    /// The producers that are remembered, of each kind the one that was quiet the longest first.
    pub fn producers(&self) -> impl Iterator<Item = KnownProducer> {
        let tables = self.producers.iter().zip(MARKS);
        tables.flat_map(|(table, mark)| {
            table.all().map(move |known| KnownProducer { time: known.time | mark, ..known })
        })
    }

    fn find(&self, hash: u128) -> Option<&KnownId> {
        let known = |n: &u64| self.ids[(*n - self.first) as usize].hash == hash;
        let number = self.table.find(bucket(self.seed, hash), known)?;
        self.ids.get((number - self.first) as usize)
    }

    /// Moves the time on and forgets what is too old.
    fn expire(&mut self, now: u64) {
        self.now = self.now.max(now);
        let (now, window) = (self.now, self.limits.window);
        let is_old = |time: u64| now - time >= window;
        while self.ids.front().is_some_and(|known| is_old(known.time)) {
            self.forget_oldest(false);
        }
        let clients = &mut self.producers[0];
        while clients.all().next().is_some_and(|quietest| is_old(quietest.time)) {
            let _quietest = clients.forget_quietest();
        }
    }

    fn forget_oldest(&mut self, crowded: bool) {
        let Some(oldest) = self.ids.front().copied() else { return };
        let first = self.first;
        if let Ok(entry) =
            self.table.find_entry(bucket(self.seed, oldest.hash), |number| *number == first)
        {
            entry.remove();
        }
        self.ids.pop_front();
        self.first += 1;
        self.note_crowd(crowded, oldest.time);
    }

    fn note_crowd(&mut self, crowded: bool, time: u64) {
        if crowded {
            self.crowded_out = self.crowded_out.max(Some(time));
        }
    }
}

fn bucket(seed: u64, hash: u128) -> u64 {
    xxh3_64_with_seed(&hash.to_le_bytes(), seed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_of_an_id_is_fixed_for_ever() {
        assert_eq!(id_hash(b"", b""), id_hash(b"", b""));
        assert_ne!(id_hash(b"ab", b"c"), id_hash(b"a", b"bc"));
        assert_eq!(id_hash(b"/press/4", b"17"), GOLDEN);
    }

    /// Written down from the first build; a change loses the de-duplication of what is in logs.
    const GOLDEN: u128 = 84_026_759_914_529_049_932_085_203_953_769_116_998;

    #[test]
    fn a_repeat_says_where_the_first_copy_is() {
        let mut dedup = Dedup::new(1, DedupLimits { entries: 2, window: 100 });
        assert_eq!(dedup.event(7, 0), Seen::New);
        dedup.note_event(7, 1000, 0);
        dedup.note_event(7, 2000, 1);
        assert_eq!(dedup.event(7, 99), Seen::Repeat { at: 1000 });
        assert_eq!(dedup.event(7, 100), Seen::New);
        dedup.note_request("p", 5, 3000, 100);
        assert_eq!(dedup.request("p", 4, 101), Seen::Repeat { at: 3000 });
        assert_eq!(dedup.request("p", 5, 101), Seen::Repeat { at: 3000 });
        assert_eq!(dedup.request("p", 6, 101), Seen::New);
        assert_eq!(dedup.request("q", 1, 101), Seen::New);
        assert_eq!(dedup.request("p", 5, 200), Seen::New);
    }

    #[test]
    fn the_window_shrinks_where_there_is_no_room() {
        let mut dedup = Dedup::new(1, DedupLimits { entries: 3, window: 100 });
        for (at, time) in [(0, 10), (1, 20), (2, 30)] {
            dedup.note_event(at, at as u64, time);
        }
        assert_eq!(dedup.window(), 100);
        dedup.note_event(3, 3, 40);
        assert_eq!((dedup.event(0, 40), dedup.window()), (Seen::New, 30));
        assert_eq!(dedup.event(1, 90), Seen::Repeat { at: 1 });
        assert_eq!(dedup.window(), 80);
        // A clock that was set back stands still.
        assert_eq!((dedup.event(1, 0), dedup.window()), (Seen::Repeat { at: 1 }, 80));
        assert_eq!((dedup.event(1, 500), dedup.window()), (Seen::New, 100));
    }

    #[test]
    fn the_producer_that_was_quiet_the_longest_goes_first() {
        let mut dedup = Dedup::new(1, DedupLimits { entries: 2, window: 100 });
        dedup.note_request("a", 1, 1, 1);
        dedup.note_request("b", 1, 2, 2);
        dedup.note_request("a", 2, 3, 3);
        dedup.note_request("c", 1, 4, 4);
        assert_eq!(dedup.request("b", 1, 5), Seen::New);
        assert_eq!(dedup.request("a", 1, 5), Seen::Repeat { at: 3 });
        assert_eq!((dedup.window(), dedup.producers().count()), (3, 2));
    }

    #[test]
    fn a_place_is_remembered_however_long_it_is_quiet_and_whoever_comes() {
        let mut dedup = Dedup::new(1, DedupLimits { entries: 2, window: 100 });
        let (place, file) = (format!("{PLACE}sink/a/0"), format!("{FILE}in/1"));
        dedup.note_request(&place, 7, 1, 1);
        dedup.note_request(&file, 9, 2, 2);
        for client in ["a", "b", "c"] {
            dedup.note_request(client, 1, 3, 3);
        }
        for carried in [false, true] {
            if carried {
                let mut again = Dedup::new(2, DedupLimits { entries: 2, window: 100 });
                dedup.producers().for_each(|known| again.note_producer(known));
                dedup = again;
            }
            assert_eq!(dedup.request("c", 1, 1_000_000), Seen::New);
            assert_eq!(dedup.request(&place, 7, 1_000_000), Seen::Repeat { at: 1 });
            assert_eq!(dedup.request(&place, 8, 1_000_000), Seen::New);
            let known = dedup.last_of(&file, 1_000_000).expect("it is remembered");
            assert_eq!((known.sequence, known.time), (9, 2));
        }
        // The clock did not run on to the marks.
        assert_eq!(dedup.producers().map(|known| marked(known.time).1).max(), Some(2));
    }

    #[test]
    fn of_many_files_the_last_are_remembered_and_no_place_goes_for_them() {
        let mut dedup = Dedup::new(1, DedupLimits { entries: 2, window: 100 });
        let (place, file) = (format!("{PLACE}cron"), |n: usize| format!("{FILE}in/{n}"));
        dedup.note_request(&place, 1, 1, 1);
        dedup.note_request(&format!("{FILE}other/0"), 1, 1, 1);
        (0..=FILES_MAX).for_each(|n| dedup.note_request(&file(n), 1, 1, 1));
        assert_eq!(dedup.request(&format!("{FILE}other/0"), 1, 1), Seen::Repeat { at: 1 });
        assert_eq!(dedup.request(&file(0), 1, 1), Seen::New);
        assert_eq!(dedup.request(&file(1), 1, 1), Seen::Repeat { at: 1 });
        assert_eq!(dedup.request(&place, 1, 1), Seen::Repeat { at: 1 });
        assert_eq!(dedup.window(), 100, "what clients are told stays true");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Event(u8),
        Request(u8, u64),
        Wait(u64),
        Carry,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => any::<u8>().prop_map(|hash| Step::Event(hash % 24)),
            4 => (0_u8..6, 0_u64..30).prop_map(|(p, n)| Step::Request(p, n)),
            2 => (0_u64..20).prop_map(Step::Wait),
            1 => Just(Step::Carry),
        ];
        prop::collection::vec(step, 0..200)
    }

    /// A list that is searched from end to end.
    #[derive(Default)]
    struct Model {
        /// Hash, position, time.
        events: Vec<(u128, u64, u64)>,
        /// Name, last number, position, time.
        producers: Vec<(String, u64, u64, u64)>,
    }

    proptest! {
        #[test]
        fn behaves_like_a_list(
            steps in steps(),
            entries in 1_usize..12,
            window in 1_u64..80,
        ) {
            let limits = DedupLimits { entries, window };
            let mut dedup = Dedup::new(3, limits);
            let mut model = Model::default();
            let mut now = 0;
            for (at, step) in steps.into_iter().enumerate() {
                let at = at as u64;
                model.events.retain(|(_, _, time)| now - time < window);
                model.producers.retain(|(.., time)| now - time < window);
                match step {
                    Step::Event(hash) => {
                        let hash = u128::from(hash) << 64;
                        let known = model.events.iter().find(|(known, ..)| *known == hash);
                        let seen = known.map_or(Seen::New, |(_, at, _)| Seen::Repeat { at: *at });
                        prop_assert_eq!(dedup.event(hash, now), seen);
                        dedup.note_event(hash, at, now);
                        if seen == Seen::New {
                            model.events.push((hash, at, now));
                            let over = model.events.len().saturating_sub(entries);
                            model.events.drain(..over);
                        }
                    }
                    Step::Request(producer, sequence) => {
                        let name = format!("p{producer}");
                        let known = model.producers.iter().position(|p| p.0 == name);
                        let last = known.map(|at| model.producers[at].clone());
                        let last = last.filter(|last| last.1 >= sequence);
                        let seen = last.map_or(Seen::New, |(.., at, _)| Seen::Repeat { at });
                        prop_assert_eq!(dedup.request(&name, sequence, now), seen);
                        dedup.note_request(&name, sequence, at, now);
                        if seen == Seen::New {
                            known.map(|at| model.producers.remove(at));
                            model.producers.push((name, sequence, at, now));
                            let over = model.producers.len().saturating_sub(entries);
                            model.producers.drain(..over);
                        }
                    }
                    Step::Wait(time) => now += time,
                    // What is remembered goes through a restart.
                    Step::Carry => {
                        let mut again = Dedup::new(4, limits);
                        dedup.events().for_each(|id| again.note_event(id.hash, id.at, id.time));
                        dedup.producers().for_each(|producer| again.note_producer(producer));
                        dedup = again;
                    }
                }
                prop_assert!(dedup.events().len() <= entries);
                prop_assert!(dedup.window() <= window);
            }
        }

        #[test]
        fn within_the_window_a_repeat_is_always_known(
            gaps in prop::collection::vec(0_u64..10, 1..100),
            entries in 1_usize..20,
        ) {
            let mut dedup = Dedup::new(5, DedupLimits { entries, window: 60 });
            let mut now = 0;
            let mut came = Vec::new();
            for (hash, gap) in gaps.into_iter().enumerate() {
                now += gap;
                dedup.note_event(hash as u128, hash as u64, now);
                came.push(now);
                for (hash, time) in came.iter().enumerate() {
                    if now - time < dedup.window() {
                        let seen = dedup.event(hash as u128, now);
                        prop_assert_eq!(seen, Seen::Repeat { at: hash as u64 });
                    }
                }
            }
        }
    }
}
