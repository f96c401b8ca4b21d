//! One node in one thread: producers, partitions, a log, and crashes between any two steps.
//!
//! Links lose and repeat runs on purpose: they are a cache of the log. A commit is visible inside
//! as soon as it is appended, outside when it is synced. A crash takes any part of what was not
//! synced, and everything in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sluicebox_core::codec::{
    Batch, IngestRecord, IngestRun, Piece, Producer, Record, RecordWriter, Usage,
};
use sluicebox_core::dedup::{Dedup, Seen, id_hash};
use sluicebox_core::frame::{Frame, FrameBuilder, Head};
use sluicebox_core::ids::StageId;
use sluicebox_core::key::{group_of, partition_of};
use sluicebox_core::partition::Partition;
use sluicebox_core::position::{Arrival, Counter, Place, RunHeader};
use sluicebox_core::recovery::Standing;
use sluicebox_core::state::{Change, KeyedState, redistribute};
use sluicebox_core::timers::Clock;

use crate::dice::Dice;
use crate::log::Log;
use crate::recovered::{Checkpoint, State, note};
use crate::stages::{
    ENTRIES, PARTITIONS, PARTITIONS_MAX, PIPELINE, ROOTS, ids_of, plan_of, play, version,
};

const PRODUCERS: usize = 3;

/// One event makes no larger commit: no refused batch may be given up on.
const ONE_EVENT_BYTES_MAX: usize = 400;
const WORDS: [&str; 9] = ["ab", "ac", "ba", "bb", "cat", "xx", "tt", "ca", "aa"];

/// One request: its events, each with key and text.
pub(crate) type Request = Vec<(String, String)>;

/// Sends its requests in order, some of them more than once.
pub(crate) struct Source {
    pub(crate) requests: Vec<Request>,
    /// So many were acknowledged, and so many sent.
    pub(crate) acknowledged: usize,
    sent: usize,
}

struct Machine {
    partition: Partition,
    inbox: VecDeque<(RunHeader, Frame)>,
    /// What its commits changed, as the log's records should say.
    state: State,
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) log: Log,
    pub(crate) producers: Vec<Source>,
    machines: BTreeMap<(StageId, u16), Machine>,
    ingest: Counter<(StageId, u16)>,
    dedup: Dedup,
    /// Acknowledgements that wait for the sync: producer, request, position.
    waiting: Vec<(usize, usize, u64)>,
    checkpoint: Checkpoint,
    version: u32,
    partitions: u16,
    /// Where partitions stood when they were last there.
    standing: Standing,
    now: u64,
    pub(crate) trace: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut producers = Vec::new();
        for producer in 0..PRODUCERS {
            let requests = 2 + dice.below(8);
            let request = |number| request(&mut dice, producer, number);
            let requests = (0..requests).map(request).collect();
            producers.push(Source { requests, acknowledged: 0, sent: 0 });
        }
        let mut world = Self {
            dice,
            log: Log::default(),
            producers,
            machines: BTreeMap::new(),
            ingest: Counter::default(),
            dedup: crate::recovered::Found::default().dedup(1),
            waiting: Vec::new(),
            checkpoint: Checkpoint::none(),
            version: 0,
            partitions: PARTITIONS,
            standing: Standing::default(),
            now: 1_000_000,
            trace: Vec::new(),
        };
        world.apply();
        world.restart();
        world
    }

    /// Does one thing, whatever comes.
    pub(crate) fn step(&mut self) {
        self.now += self.dice.below(1000) as u64;
        match self.dice.below(100) {
            0..20 => self.produce(),
            20..24 => self.repeat(),
            24..80 => self.some_batch(),
            80..92 => self.sync(),
            92..94 => self.checkpoint(),
            94..95 => match self.dice.one_in(2) {
                true => self.reshape(),
                false => self.apply(),
            },
            95..96 => self.now = self.now.saturating_sub(3_600_000_000),
            96..98 => self.now += 2_000_000,
            _ => self.crash(),
        }
    }

    /// True when there is nothing left to be done.
    pub(crate) fn settle(&mut self) -> bool {
        self.log.synced = self.log.entries.len();
        self.acknowledge();
        (0..PRODUCERS).for_each(|_| self.produce());
        let readers: Vec<_> = self.machines.keys().copied().collect();
        let mut idle = true;
        for reader in readers {
            self.catch_up(reader);
            idle &= !self.batch(reader);
            let due = self.machines[&reader].partition.next_parked();
            if let Some(due) = due {
                self.now = self.now.max(due);
                self.parked(reader);
                idle = false;
            }
            let timer = |clock| self.machines[&reader].partition.next_timer(clock);
            if let Some(at) = timer(Clock::Wall).max(timer(Clock::Event)) {
                self.now = self.now.max(at);
                self.machine(reader).partition.raise_watermark(at);
                self.fire(reader);
                idle = false;
            }
        }
        idle && self.producers.iter().all(|p| p.acknowledged == p.requests.len())
    }

    /// A producer sends its next request.
    fn produce(&mut self) {
        let at = self.dice.below(PRODUCERS);
        let producer = &mut self.producers[at];
        // A few may be under way at once.
        let most = (producer.acknowledged + 3).min(producer.requests.len());
        if producer.sent < most {
            producer.sent += 1;
            let number = producer.sent - 1;
            self.receive(at, number);
        }
    }

    /// A request that was sent arrives once more.
    fn repeat(&mut self) {
        let at = self.dice.below(PRODUCERS);
        let sent = self.producers[at].sent;
        if sent > 0 {
            let number = self.dice.below(sent);
            self.receive(at, number);
        }
    }

    /// The first producers number their requests, the last gives each event an id.
    fn receive(&mut self, producer: usize, number: usize) {
        let request = self.producers[producer].requests[number].clone();
        let name = format!("producer-{producer}");
        let numbered = producer + 1 < PRODUCERS;
        let hash = |(_, text): &(String, String)| id_hash(name.as_bytes(), text.as_bytes());
        let ids: Vec<u128> = if numbered { Vec::new() } else { request.iter().map(hash).collect() };
        let seen = if numbered {
            self.dedup.request(&name, number as u64, self.now)
        } else {
            let all: Vec<Seen> = ids.iter().map(|id| self.dedup.event(*id, self.now)).collect();
            assert!(all.iter().all(|seen| *seen == all[0]), "a request is one record");
            all[0]
        };
        let position = match seen {
            Seen::Repeat { at } => at,
            Seen::New => {
                let sequence = Producer { id: &name, sequence: number as u64 };
                let position = self.take(&request, numbered.then_some(sequence), ids.clone());
                if numbered {
                    self.dedup.note_request(&name, number as u64, position, self.now);
                }
                ids.iter().for_each(|id| self.dedup.note_event(*id, position, self.now));
                position
            }
        };
        self.trace.push(format!("{name} {number} {seen:?} {position}"));
        self.waiting.push((producer, number, position));
    }

    /// Appends the record of a request and sends its runs.
    fn take(&mut self, request: &Request, producer: Option<Producer<'_>>, ids: Vec<u128>) -> u64 {
        let mut frames: BTreeMap<(StageId, u16), FrameBuilder> = BTreeMap::new();
        for (key, text) in request {
            let partition = partition_of(group_of(key.as_bytes()), self.partitions);
            for stage in ENTRIES {
                let builder = frames.entry((stage, partition)).or_default();
                builder.push(&Head::data(self.now), key.as_bytes(), text.as_bytes(), &[]);
            }
        }
        let seq = self.ingest.next();
        let mut runs = Vec::new();
        for ((stage, partition), mut builder) in frames {
            let previous = self.ingest.send((stage, partition), seq).expect("the next");
            runs.push(IngestRun { stage, partition, previous, frame: builder.finish() });
        }
        let time = self.now;
        let record = IngestRecord {
            pipeline: PIPELINE,
            seq,
            time,
            producer,
            ids,
            runs,
            replayed: Vec::new(),
            high: Some(time),
        };
        let mut writer = RecordWriter::new();
        writer.ingest(&record);
        self.append(&writer)
    }

    /// Appends a record and sends what is in it, on links that lose and repeat.
    fn append(&mut self, writer: &RecordWriter) -> u64 {
        let position = self.log.append(writer);
        for (to, run, frame) in self.log.at(position).runs() {
            let Some(machine) = self.machines.get_mut(&to) else { continue };
            let copies = match self.dice.below(12) {
                0 => 0,
                1 => 2,
                _ => 1,
            };
            (0..copies).for_each(|_| machine.inbox.push_back((run, frame.clone())));
        }
        position
    }

    fn some_batch(&mut self) {
        let readers: Vec<_> = self.machines.keys().copied().collect();
        let reader = readers[self.dice.below(readers.len())];
        if self.dice.one_in(6) {
            self.catch_up(reader);
        }
        if self.dice.one_in(3) && self.parked(reader) {
            return;
        }
        if self.dice.one_in(3) && self.expire(reader) {
            return;
        }
        // How far it may rise is not the machine's business.
        let to = self.now - self.now.min(500 + 500 * self.dice.below(4) as u64);
        self.machine(reader).partition.raise_watermark(to);
        if self.dice.one_in(2) && self.fire(reader) {
            return;
        }
        self.batch(reader);
    }

    fn machine(&mut self, reader: (StageId, u16)) -> &mut Machine {
        self.machines.get_mut(&reader).expect("a machine")
    }

    /// Fires timers that are due. False if there are none.
    fn fire(&mut self, reader: (StageId, u16)) -> bool {
        let now = self.now;
        let any = self.machine(reader).partition.start_timers(now);
        if any {
            self.trace.push(format!("fired {reader:?}"));
        }
        // What is refused waits on.
        let _refused = any.then(|| self.end(reader));
        any
    }

    /// Puts every run into the inbox that the log has and the reader has not.
    fn catch_up(&mut self, reader: (StageId, u16)) {
        let machine = self.machines.get_mut(&reader).expect("a machine");
        let positions = &machine.partition.progress().expect("a ledger").positions;
        let wanted = |run: &RunHeader| positions.classify(run) != Arrival::Repeat;
        machine.inbox.extend(self.log.runs_for(reader, wanted));
    }

    /// Runs a batch of what is in the inbox. False if there was nothing.
    fn batch(&mut self, reader: (StageId, u16)) -> bool {
        let most = 1 + self.dice.below(12) as u32;
        let (frame, pieces) = self.form(reader, most);
        if frame.is_empty() {
            return false;
        }
        let machine = self.machines.get_mut(&reader).expect("a machine");
        machine.partition.start_batch(frame, pieces, self.now);
        while let Some((frame, batch)) = self.end(reader) {
            let machine = self.machines.get_mut(&reader).expect("a machine");
            machine.partition.start_batch(frame, batch.pieces, self.now);
        }
        true
    }

    /// Runs parked events that are due. False if there are none.
    fn parked(&mut self, reader: (StageId, u16)) -> bool {
        let machine = self.machines.get_mut(&reader).expect("a machine");
        let any = machine.partition.start_parked(self.now);
        if any {
            self.trace.push(format!("parked {reader:?}"));
        }
        // What is refused is still parked.
        let _refused = any.then(|| self.end(reader));
        any
    }

    /// Removes keys that are over. False if there are none, or nobody looks for them now.
    fn expire(&mut self, reader: (StageId, u16)) -> bool {
        let machine = self.machines.get_mut(&reader).expect("a machine");
        let any = machine.partition.start_expiry(self.now).started;
        if any {
            self.trace.push(format!("expired {reader:?}"));
        }
        // What is refused is over later as well.
        let _refused = any.then(|| self.end(reader));
        any
    }

    /// Makes the calls of a batch, and its commit. Gives the batch back if that was refused.
    fn end(&mut self, reader: (StageId, u16)) -> Option<(Frame, Batch)> {
        let machine = self.machines.get_mut(&reader).expect("a machine");
        let ids = ids_of(reader.0, reader.1, self.version);
        while let Some(mut call) = machine.partition.next_call() {
            let verdict = play(ids.stages[call.stage].stage, &mut call.layer, self.now);
            machine.partition.done(call.layer, verdict);
        }
        let mut writer = RecordWriter::new();
        let mut changes = Vec::new();
        let changed = |stage, change: Change<'_>| {
            let value = change.value.map(<[u8]>::to_vec);
            changes.push((stage, change.key.to_vec(), change.slot.to_vec(), value));
        };
        // Some commits may be no larger by chance than what one event makes at most.
        let bytes_max = if self.dice.one_in(2) { ONE_EVENT_BYTES_MAX } else { usize::MAX };
        let used = vec![Usage { fuel: 1, events: 1, reruns: 0 }; ids.stages.len()];
        let used = (&used[..], bytes_max);
        let finished = machine.partition.finish_recorded(used, &mut writer, changed);
        let Ok(recorded) = finished else {
            self.trace.push(format!("refused {reader:?}"));
            return Some(machine.partition.take_back());
        };
        for (stage, key, slot, value) in changes {
            let change = Change { key: &key, slot: &slot, value: value.as_deref() };
            note(&mut machine.state, stage, &change);
        }
        self.trace.push(format!("{reader:?} {} {:?}", recorded.number, recorded.batch));
        self.append(&writer);
        None
    }

    /// Takes up to `most` events out of the inbox, fetching from the log what is missing.
    fn form(&mut self, reader: (StageId, u16), most: u32) -> (Frame, Vec<Piece>) {
        let machine = self.machines.get_mut(&reader).expect("a machine");
        let mut positions = machine.partition.progress().expect("a ledger").positions.clone();
        let mut builder = FrameBuilder::new();
        let mut pieces: Vec<Piece> = Vec::new();
        while let Some((run, frame)) = machine.inbox.front().cloned() {
            let left = most - builder.len() as u32;
            match positions.classify(&run) {
                Arrival::Repeat => drop(machine.inbox.pop_front()),
                Arrival::Gap { from } => {
                    let between = |other: &RunHeader| {
                        other.source == run.source && (from.seq..run.seq).contains(&other.seq)
                    };
                    let missing = self.log.runs_for(reader, between);
                    assert!(!missing.is_empty(), "what is missing is in the log");
                    missing.into_iter().rev().for_each(|one| machine.inbox.push_front(one));
                }
                Arrival::Next { .. } if left == 0 => break,
                Arrival::Next { skip } => {
                    let events = frame.len() as u32;
                    let end = events.min(skip + left);
                    for event in frame.events().take(end as usize).skip(skip as usize) {
                        let fields = event.fields.bytes();
                        builder.push(&event.head, event.key, event.payload, fields);
                    }
                    let (from, to) =
                        (positions.at(run.source), Place::within(run.seq, end, events));
                    positions.advance(run.source, to).expect("forward");
                    let taken = end - skip;
                    match pieces.last_mut().filter(|last| last.source == run.source) {
                        Some(last) => (last.to, last.events) = (to, last.events + taken),
                        None => pieces.push(Piece { source: run.source, from, to, events: taken }),
                    }
                }
            }
        }
        (builder.finish(), pieces)
    }

    fn sync(&mut self) {
        let left = self.log.entries.len() - self.log.synced;
        self.log.synced += self.dice.below(left + 1);
        self.acknowledge();
    }

    /// Answers whose record is on disk.
    fn acknowledge(&mut self) {
        let log = &self.log;
        let producers = &mut self.producers;
        self.waiting.retain(|(producer, number, position)| {
            let done = log.is_synced(*position);
            if done {
                let producer = &mut producers[*producer];
                producer.acknowledged = producer.acknowledged.max(number + 1);
            }
            !done
        });
    }

    /// Only what is on disk goes into a checkpoint.
    fn checkpoint(&mut self) {
        self.checkpoint = self.checkpoint.of(&self.log.entries[..self.log.synced]);
        self.trace.push(format!("checkpoint of {}", self.log.synced));
    }

    /// A new version, between two batches of every partition.
    fn apply(&mut self) {
        self.version += 1;
        let mut writer = RecordWriter::new();
        writer.apply(&version(self.version, self.partitions));
        self.log.append(&writer);
        for ((root, partition), machine) in &mut self.machines {
            let progress = machine.partition.progress().expect("a ledger").clone();
            let ids = Arc::new(ids_of(*root, *partition, self.version));
            machine.partition.keep_ledger(ids, progress);
        }
    }

    /// A new version with another number of partitions, when nothing waits in the old ones.
    fn reshape(&mut self) {
        let readers: Vec<_> = self.machines.keys().copied().collect();
        let mut rounds = 0;
        loop {
            readers.iter().for_each(|reader| self.catch_up(*reader));
            let busy = readers.iter().filter(|reader| self.batch(**reader)).count();
            if busy == 0 {
                break;
            }
            rounds += 1;
            assert!(rounds < 2000, "it does not drain");
        }
        self.version += 1;
        self.partitions = 1 + self.dice.below(PARTITIONS_MAX.into()) as u16;
        self.trace.push(format!("{} partitions", self.partitions));
        let mut writer = RecordWriter::new();
        writer.apply(&version(self.version, self.partitions));
        self.log.append(&writer);
        let mut states: BTreeMap<StageId, BTreeMap<String, Vec<KeyedState>>> = BTreeMap::new();
        let mut told: BTreeMap<StageId, State> = BTreeMap::new();
        for ((root, partition), machine) in std::mem::take(&mut self.machines) {
            let progress = machine.partition.progress().expect("a ledger").clone();
            self.standing.add((root, partition), progress);
            told.entry(root).or_default().extend(machine.state);
            for (name, state) in machine.partition.into_states() {
                states.entry(root).or_default().entry(name).or_default().push(state);
            }
        }
        self.standing.drained();
        let (folded, _) = Checkpoint::none().fold(&self.log.entries);
        let folded = folded.pipeline(PIPELINE).expect("applied");
        for root in ROOTS {
            let mut divided: BTreeMap<String, Vec<KeyedState>> = BTreeMap::new();
            for (name, states) in states.remove(&root).into_iter().flatten() {
                let seed = self.dice.roll();
                divided.insert(name, redistribute(states, self.partitions, seed));
            }
            let told = told.remove(&root).unwrap_or_default();
            for partition in (0..self.partitions).rev() {
                let ids = ids_of(root, partition, self.version);
                let plan = Arc::new(plan_of(root, self.partitions));
                let mut machine = Partition::new(plan, self.dice.roll());
                for (name, states) in &mut divided {
                    machine.adopt(name, states.pop().expect("one for each"));
                }
                let progress = self.standing.progress(&ids);
                assert_eq!(progress, folded.progress(&ids), "carried over as it is found");
                machine.keep_ledger(Arc::new(ids), progress);
                machine.keep_event_time();
                let mine = |(_, key, _): &(StageId, Vec<u8>, Vec<u8>)| {
                    partition_of(group_of(key), self.partitions) == partition
                };
                let state = told.iter().filter(|(slot, _)| mine(slot));
                let state = state.map(|(slot, value)| (slot.clone(), value.clone())).collect();
                let machine = Machine { partition: machine, inbox: VecDeque::new(), state };
                self.machines.insert((root, partition), machine);
            }
        }
    }

    fn crash(&mut self) {
        let left = self.log.entries.len() - self.log.synced;
        // The first record, which applies the pipeline, was there before the simulation began.
        let survives = (self.log.synced + self.dice.below(left + 1)).max(1);
        self.trace.push(format!("crash at {survives} of {}", self.log.entries.len()));
        self.log.entries.truncate(survives);
        self.restart();
    }

    /// Begins anew with what is in the log, all of which is then on disk.
    pub(crate) fn restart(&mut self) {
        self.log.synced = self.log.entries.len();
        let (fold, found) = self.checkpoint.fold(&self.log.entries);
        let (whole, all_found) = Checkpoint::none().fold(&self.log.entries);
        assert_eq!((&fold, &found), (&whole, &all_found), "a checkpoint only saves time");
        let folded = fold.pipeline(PIPELINE).expect("applied");
        self.version = folded.version();
        self.partitions = folded.partitions();
        self.standing = Standing::from(folded);
        self.ingest = folded.ingest_numbers().clone();
        self.dedup = found.dedup(self.dice.roll());
        self.waiting.clear();
        for producer in &mut self.producers {
            // Who got no answer sends again, in order.
            producer.sent = producer.acknowledged;
        }
        self.machines.clear();
        let partitions = self.partitions;
        for reader in ROOTS.into_iter().flat_map(|root| (0..partitions).map(move |p| (root, p))) {
            let ids = ids_of(reader.0, reader.1, self.version);
            let mut partition =
                Partition::new(Arc::new(plan_of(reader.0, partitions)), self.dice.roll());
            let progress = folded.progress(&ids);
            partition.keep_ledger(Arc::new(ids), progress);
            partition.keep_event_time();
            let state = found.state.get(&reader).cloned().unwrap_or_default();
            for ((stage, key, slot), value) in &state {
                partition.restore(*stage, &Change { key, slot, value: Some(value) });
            }
            let mut waiting: Vec<_> = folded.backlog(reader.0, reader.1).collect();
            waiting.sort_by_key(|waiting| waiting.position);
            let frame = |waiting: &sluicebox_core::recovery::Waiting| {
                let body = self.log.at(waiting.position).body();
                let frame = body.slice(waiting.range.clone());
                (waiting.run, sluicebox_core::frame::expand(frame).expect("a frame"))
            };
            let inbox = waiting.into_iter().map(frame).collect();
            self.machines.insert(reader, Machine { partition, inbox, state });
        }
    }

    /// The state of every partition, as its commits told.
    pub(crate) fn told(&self) -> BTreeMap<(StageId, u16), State> {
        let told = self.machines.iter().map(|(reader, machine)| (*reader, machine.state.clone()));
        told.filter(|(_, state)| !state.is_empty()).collect()
    }

    /// The texts of an output or, without one, of the dead letters, in the order of the log.
    pub(crate) fn texts(&self, output: Option<sluicebox_core::ids::OutputId>) -> Vec<Vec<String>> {
        let mut runs = Vec::new();
        for entry in &self.log.entries[..self.log.synced] {
            let Record::Commit(record) = entry.record() else { continue };
            let outputs = record.sent.outputs.iter().filter(|run| Some(run.output) == output);
            let dead = record.sent.dead_letters.iter().filter(|_| output.is_none());
            for frame in outputs.map(|run| &run.frame).chain(dead.map(|dead| &dead.frame)) {
                let frame = frame.frame(entry.body()).expect("a frame");
                let text = |event: sluicebox_core::frame::Event<'_>| {
                    format!("{} {}", event.key_str(), String::from_utf8_lossy(event.payload))
                };
                runs.push(frame.events().map(text).collect());
            }
        }
        runs
    }
}

fn request(dice: &mut Dice, producer: usize, number: usize) -> Request {
    let event = |at: usize, dice: &mut Dice| {
        let mut words = Vec::new();
        for _ in 0..=dice.below(3) {
            words.push(WORDS[dice.below(WORDS.len())]);
        }
        let key = format!("k{}", dice.below(5));
        (key, format!("{producer}.{number}.{at}:{}", words.join(" ")))
    };
    (0..=dice.below(4)).map(|at| event(at, dice)).collect()
}
