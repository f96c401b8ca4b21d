//! The pipeline of the simulation: native stages that notice what must not happen.
//!
//! ```text
//! ingest ─┬─► split ═words═► count ─► tally ═letters═► total ─► totals
//!         └─► audit                     └─► counts
//! ```
//!
//! `═` takes another key, so there are four segments; `count` and `tally` share one. Words that
//! begin with x are rejected, words that begin with t trap, and those that begin with b fail for
//! some time in `tally`. What fails is parked. What `split` keeps expires. `audit` sets two
//! timers for each event, and those of one key fail for some time.

use std::sync::Arc;

use sluicebox_core::codec::{ApplyRecord, EdgeEnds, NameTable};
use sluicebox_core::frame::{FrameBuilder, Head, Kind};
use sluicebox_core::ids::{EdgeId, Name, OutputId, PipelineId, StageId};
use sluicebox_core::layer::{
    Failure, FailureClass, KeyRule, Layer, LayerLimits, Ports, Spread, Target,
};
use sluicebox_core::partition::{
    Codes, Leads, SegmentIds, SegmentPlan, StageIds, StagePlan, Verdict,
};
use sluicebox_core::pipeline::{OnFailure, ParkLimits, Scope, StreamLimits};
use sluicebox_core::state::{StateLimits, Ttl};
use sluicebox_core::timers::Clock;

pub(crate) const PIPELINE: PipelineId = PipelineId(5);
/// Partitions there are at first, and at most.
pub(crate) const PARTITIONS: u16 = 3;
pub(crate) const PARTITIONS_MAX: u16 = 5;

/// How long what `split` keeps of a key stays.
const TTL_MS: u64 = 20;

const SPLIT: StageId = StageId(1);
const COUNT: StageId = StageId(2);
const TALLY: StageId = StageId(3);
const TOTAL: StageId = StageId(4);
pub(crate) const AUDIT: StageId = StageId(9);
const WORDS: EdgeId = EdgeId(1);
const INSIDE: EdgeId = EdgeId(2);
const LETTERS: EdgeId = EdgeId(3);
pub(crate) const COUNTS: OutputId = OutputId(0);
pub(crate) const TOTALS: OutputId = OutputId(1);

/// Stages every event from outside goes to.
pub(crate) const ENTRIES: [StageId; 2] = [SPLIT, AUDIT];
/// The roots of the segments.
pub(crate) const ROOTS: [StageId; 4] = [SPLIT, COUNT, TOTAL, AUDIT];

/// The segment an edge leads to.
pub(crate) fn root_behind(edge: EdgeId) -> StageId {
    if edge == WORDS { COUNT } else { TOTAL }
}

/// The stages of a segment with where they lead.
fn stages_of(root: StageId) -> Vec<StageIds> {
    let stage = |stage, leads: &[Leads]| StageIds { stage, leads: leads.to_vec() };
    match root {
        SPLIT => vec![stage(SPLIT, &[Leads::Edge(WORDS)])],
        COUNT => vec![
            stage(COUNT, &[Leads::Inside]),
            stage(TALLY, &[Leads::Edge(LETTERS), Leads::Output(COUNTS)]),
        ],
        TOTAL => vec![stage(TOTAL, &[Leads::Output(TOTALS)])],
        _ => vec![stage(AUDIT, &[])],
    }
}

pub(crate) fn ids_of(root: StageId, partition: u16, version: u32) -> SegmentIds {
    SegmentIds { pipeline: PIPELINE, version, partition, stages: stages_of(root) }
}

pub(crate) fn plan_of(root: StageId, partitions: u16) -> SegmentPlan {
    let plan = |stage: &StageIds| {
        let target = |leads: &Leads| {
            let (key, spread) = match leads {
                Leads::Edge(_) => (KeyRule::Emitted, Spread::Groups(partitions)),
                Leads::Inside | Leads::Output(_) => (KeyRule::Cause, Spread::One),
            };
            Target { port: 0, input: 0, key, spread, inside: true }
        };
        let inside = |leads: &Leads| (*leads == Leads::Inside).then_some(1);
        StagePlan {
            name: format!("s{}", stage.stage.0),
            scope: Scope::Shared,
            on_failure: OnFailure::Park,
            retries: 1,
            stream: StreamLimits::default(),
            codes: Codes::default(),
            park: ParkLimits {
                // Words that trap are given up on soon; others are tried until they pass.
                attempts: if stage.stage == COUNT { 3 } else { 100_000 },
                pause_ms: 1,
                pause_max_ms: 8,
                ..ParkLimits::default()
            },
            ports: Arc::new(Ports::new(1, stage.leads.iter().map(target).collect())),
            inside: stage.leads.iter().map(inside).collect(),
            limits: LayerLimits { emit_bytes: 1 << 20, event_bytes: 1 << 16, reply_bytes: 1 << 16 },
            state: StateLimits { key_bytes: 1 << 20, total_bytes: 1 << 24 },
            state_ttl: (stage.stage == SPLIT).then(|| Ttl::of_ms(TTL_MS)),
        }
    };
    SegmentPlan { stages: stages_of(root).iter().map(plan).collect() }
}

/// The record of a version. Stages have another name in each.
pub(crate) fn version(version: u32, partitions: u16) -> ApplyRecord<'static> {
    let name = |text: String| Name::new(&text).expect("a name");
    let stages = [SPLIT, COUNT, TALLY, TOTAL, AUDIT];
    let ends = |from, to| {
        let (port, input) = (name("out".into()), name("in".into()));
        EdgeEnds { from, port, to, input }
    };
    ApplyRecord {
        tenant: name("dev".into()),
        name: name("words".into()),
        pipeline: PIPELINE,
        version,
        partitions,
        manifest: b"text",
        names: NameTable {
            stages: stages.map(|id| (id, name(format!("s{}-v{version}", id.0)))).to_vec(),
            edges: vec![
                (WORDS, ends(SPLIT, COUNT)),
                (INSIDE, ends(COUNT, TALLY)),
                (LETTERS, ends(TALLY, TOTAL)),
            ],
            outputs: vec![(COUNTS, name("counts".into())), (TOTALS, name("totals".into()))],
        },
        discarded: Vec::new(),
    }
}

/// True for words that end among the dead letters.
pub(crate) fn is_lost(word: &str) -> bool {
    word.starts_with(['x', 't'])
}

/// Runs a call of a stage. What must not happen is a panic, which no stage of a user could make.
pub(crate) fn play(stage: StageId, layer: &mut Layer, now: u64) -> Verdict {
    let mut failures = Vec::new();
    let frame = layer.frame().clone();
    for (index, event) in frame.events().enumerate() {
        let text = std::str::from_utf8(event.payload).expect("texts only");
        let mut one = One { layer, key: event.key_str(), cause: index as u32 };
        match stage {
            SPLIT => one.split(text, now),
            COUNT if one.key.starts_with('t') => return Verdict::Trapped("no such word".into()),
            COUNT if one.key.starts_with('x') => {
                let message = "not a word".into();
                failures.push(Failure::new(one.cause, FailureClass::Reject, message));
            }
            // What it needs is away half of the time.
            TALLY if one.key.starts_with('b') && (now / 4096).is_multiple_of(2) => {
                let message = "not now".into();
                failures.push(Failure::new(one.cause, FailureClass::Retry, message));
            }
            COUNT => one.count(text),
            TALLY => one.tally(text),
            TOTAL => one.total(text),
            AUDIT if event.head.kind == Kind::Timer => {
                one.see_watermark();
                // Their stage fails half of the time, and they wait as any event does.
                if one.key == "k1" && (now / 4096).is_multiple_of(2) {
                    let message = "not now".into();
                    failures.push(Failure::new(one.cause, FailureClass::Retry, message));
                } else {
                    one.fire(text, (event.head.time, now));
                }
            }
            AUDIT => one.audit(text, now),
            _ => unreachable!("no such stage"),
        }
    }
    Verdict::Returned(failures)
}

/// A stage that was given one event.
struct One<'a> {
    layer: &'a mut Layer,
    key: &'a str,
    cause: u32,
}

impl One<'_> {
    fn emit(&mut self, key: &str, text: &str) {
        let mut builder = FrameBuilder::new();
        let head = Head { cause: self.cause, ..Head::data(1) };
        builder.push(&head, key.as_bytes(), text.as_bytes(), &[]);
        self.layer.emit(builder.finish().bytes()).expect("a good frame");
    }

    fn add(&mut self, slot: &str) -> i64 {
        let state = self.layer.state();
        state.add(self.key.as_bytes(), slot.as_bytes(), 1).expect("there is room")
    }

    fn put(&mut self, slot: &str, value: &str) {
        let state = self.layer.state();
        let put = state.put(self.key.as_bytes(), slot.as_bytes(), value.as_bytes());
        put.expect("there is room");
    }

    fn slot(&mut self, slot: &str) -> Option<String> {
        let value = self.layer.state().get(self.key.as_bytes(), slot.as_bytes());
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// `id:one two` gives two words under their own keys.
    fn split(&mut self, text: &str, now: u64) {
        // What it kept is there or not as one, and is not there too long.
        let (at, lines) = (self.slot("at"), self.slot("lines"));
        assert_eq!(at.is_some(), lines.is_some());
        let at: Option<u64> = at.map(|at| at.parse().expect("a time"));
        let late = TTL_MS * 1000 + TTL_MS * 1000 / 64;
        assert!(at.is_none_or(|at| now < at + late), "written at {at:?}, read at {now}");
        self.add("lines");
        self.put("at", &now.to_string());
        let (id, words) = text.split_once(':').expect("an id and words");
        for word in words.split_whitespace() {
            self.emit(word, id);
        }
    }

    fn count(&mut self, id: &str) {
        let number = self.add("n");
        self.emit("", &format!("{id}|{number}"));
    }

    fn tally(&mut self, text: &str) {
        let word = self.key.to_owned();
        self.put("last", text);
        self.emit(&word[..1], &format!("{word}|{text}"));
    }

    /// Each count of a word comes once and in order.
    fn total(&mut self, text: &str) {
        let mut parts = text.split('|');
        let (word, number) = (parts.next().expect("a word"), parts.nth(1).expect("a number"));
        let number: u64 = number.parse().expect("a number");
        let slot = format!("n-{word}");
        let before = self.slot(&slot).map_or(0, |text| text.parse().expect("a number"));
        assert_eq!(number, before + 1, "counts of {word}");
        self.put(&slot, &number.to_string());
        let odd = format!("odd-{word}");
        if number % 2 == 1 {
            self.put(&odd, "");
        } else {
            self.layer.state().delete(self.key.as_bytes(), odd.as_bytes());
        }
        self.emit("", text);
    }

    /// Each event comes once, and asks for two timers.
    fn audit(&mut self, text: &str, now: u64) {
        self.see_watermark();
        let (id, words) = text.split_once(':').expect("an id and words");
        assert_eq!(self.slot(id), None, "event {id} came twice");
        self.put(id, "");
        let (key, timers) = (self.key.as_bytes(), self.layer.timers());
        let watermark = timers.watermark();
        let later = words.len() as u64 * 700;
        for (name, clock, at) in [
            (format!("w-{id}"), Clock::Wall, now + later),
            (format!("e-{id}"), Clock::Event, (watermark + later).saturating_sub(900)),
            // One that is moved and one that is taken back never fire as they were first set.
            (format!("x-{id}"), Clock::Wall, now),
        ] {
            timers.set(key, name.as_bytes(), clock, at).expect("there is room");
        }
        assert!(timers.cancel(key, format!("x-{id}").as_bytes()), "it was just set");
    }

    /// A timer fires once, not before its time, and is gone.
    fn fire(&mut self, name: &str, (at, now): (u64, u64)) {
        let (clock, id) = name.split_once('-').expect("a timer of `audit`");
        assert_eq!(self.slot(id).as_deref(), Some(""), "whoever set it stands");
        assert_eq!(self.slot(name), None, "timer {name} fired twice");
        let timers = self.layer.timers();
        let due = if clock == "w" { now } else { timers.watermark() };
        // One that failed and is tried again may find the clock an hour back.
        let is_again = clock == "w" && self.key == "k1";
        assert!(at <= due || is_again, "{name} of {at} fired at {due}");
        assert!(!timers.cancel(self.key.as_bytes(), name.as_bytes()), "it is gone before its call");
        self.put(name, "fired");
    }

    /// A key sees no watermark that is lower than one it has seen.
    fn see_watermark(&mut self) {
        let watermark = self.layer.timers().watermark();
        let seen = self.slot("watermark").map_or(0, |text| text.parse().expect("a number"));
        assert!(watermark >= seen, "the watermark went from {seen} back to {watermark}");
        self.put("watermark", &watermark.to_string());
    }
}
