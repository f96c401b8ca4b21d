//! Streams with a ledger, whose instances are taken away at any time.
//!
//! The stage here has memory of its own, as a guest has: what it emits follows from all events of
//! its stream. However often instances go, partitions start again from what their records said,
//! and calls trap, everything that comes out must be what an undisturbed run gives.

mod upgrade;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::codec::{Piece, RecordWriter};
use crate::ids::{OutputId, PipelineId, StageId};
use crate::image::Image;
use crate::position::{Place, Source};
use crate::state::Change;
use crate::timers::Clock;

/// What an instance remembers: the sum of what it was given, as text.
type Memory = Vec<u8>;

/// A call of the stage: appends each payload to its memory and emits a digest of that, keeps how
/// many events there were in a slot, and traps on `t`, and when a stream of `bad` opens. On `w5:n`
/// it sets the timer `n` to 5.
fn run(memory: &mut Memory, layer: &mut Layer) -> Verdict {
    let frame = layer.frame().clone();
    for (index, event) in (0..).zip(frame.events()) {
        let opens_bad = event.head.kind == Kind::Open && event.key == b"bad";
        if event.payload == b"t" || opens_bad {
            return Verdict::Trapped("boom".into());
        }
        memory.extend([event.head.kind as u8, layer.timers().watermark() as u8]);
        memory.extend_from_slice(event.payload);
        let key = event.key.to_vec();
        let seen = layer.state().add(&key, b"seen", 1).expect("fits");
        if let Some((at, name)) = timer_of(event.payload) {
            let set = layer.timers().set(&key, name.as_bytes(), Clock::Wall, at);
            memory.push(set.is_ok().into());
        }
        let digest = xxhash_rust::xxh3::xxh3_64(memory);
        let text = format!("{seen} {digest:x}");
        let mut builder = FrameBuilder::new();
        let head = Head { cause: index, ..Head::data(event.head.time) };
        builder.push(&head, b"", text.as_bytes(), &[]);
        layer.emit(builder.finish().bytes()).expect("good frame");
    }
    Verdict::Returned(Vec::new())
}

/// The timer that a payload asks for.
fn timer_of(payload: &[u8]) -> Option<(u64, &str)> {
    let (at, name) = str::from_utf8(payload).ok()?.strip_prefix('w')?.split_once(':')?;
    Some((at.parse().ok()?, name))
}

fn plan(on_failure: OnFailure) -> Arc<SegmentPlan> {
    let mut only = stage("only", Scope::Stream, on_failure, None);
    only.stream.events_max = 1000;
    Arc::new(SegmentPlan { stages: vec![only] })
}

fn ids() -> Arc<SegmentIds> {
    let stages = vec![StageIds { stage: StageId(3), leads: vec![Leads::Output(OutputId(0))] }];
    Arc::new(SegmentIds { pipeline: PipelineId(1), version: 2, partition: 5, stages })
}

/// A node with one partition.
struct Node {
    plan: Arc<SegmentPlan>,
    machine: Partition,
    instances: BTreeMap<Serves, Memory>,
    /// What the records said, as the store would have it.
    kept: BTreeMap<(StageId, Vec<u8>, Vec<u8>), Vec<u8>>,
    consumed: u64,
    /// What came out, and what was given up on.
    out: Vec<(String, String)>,
    dead: Vec<(String, String)>,
    images: usize,
    revivals: usize,
    /// No image can be taken.
    no_images: bool,
    /// Of a record.
    bytes_max: usize,
}

impl Node {
    fn new(on_failure: OnFailure) -> Self {
        let plan = plan(on_failure);
        let mut machine = Partition::new(plan.clone(), 1);
        machine.keep_ledger(ids(), Progress::default());
        machine.keep_event_time();
        let (instances, kept) = (BTreeMap::new(), BTreeMap::new());
        let (consumed, out, dead) = (0, Vec::new(), Vec::new());
        let (images, revivals, no_images, bytes_max) = (0, 0, false, usize::MAX);
        Self {
            plan,
            machine,
            instances,
            kept,
            consumed,
            out,
            dead,
            images,
            revivals,
            no_images,
            bytes_max,
        }
    }

    /// The process ends, and another goes on from the records.
    fn kill(&mut self) {
        let progress = self.machine.progress().expect("a ledger").clone();
        self.machine = Partition::new(self.plan.clone(), 2);
        self.machine.keep_ledger(ids(), progress);
        self.machine.keep_event_time();
        for ((stage, key, slot), value) in &self.kept {
            let value = Some(&value[..]);
            self.machine.restore(*stage, &Change { key, slot, value });
        }
        self.instances.clear();
    }

    fn post(&mut self, events: &[(&str, &str)], now: u64) {
        self.post_frame(frame(events), now);
    }

    fn post_frame(&mut self, frame: Frame, now: u64) {
        let seq = self.consumed + 1;
        let (from, to) = (Place { seq, index: 0 }, Place::after(seq));
        let from = if self.consumed == 0 { Place::START } else { from };
        let pieces = vec![Piece { source: Source::Ingest, from, to, events: frame.len() as u32 }];
        self.consumed = seq;
        self.machine.raise_watermark(now);
        self.machine.start_batch(frame, pieces, now);
        self.finish(now);
    }

    fn ends(&mut self, now: u64) -> bool {
        let started = self.machine.start_ends(now);
        if started {
            self.finish(now);
        }
        started
    }

    fn fires(&mut self, now: u64) -> bool {
        let started = self.machine.start_timers(now);
        if started {
            self.finish(now);
        }
        started
    }

    fn finish(&mut self, now: u64) {
        self.machine.set_seed(now ^ 7);
        while let Some(call) = self.machine.next_call() {
            let Call { serves, layer, last, .. } = self.with_instance(call);
            let mut layer = layer;
            let mut memory = self.instances.remove(&serves).unwrap_or_default();
            let verdict = run(&mut memory, &mut layer);
            if matches!(verdict, Verdict::Returned(_)) && !last {
                self.instances.insert(serves, memory);
            }
            self.machine.done(layer, verdict);
        }
        while let Some((stage, serves, _)) = self.machine.next_image() {
            if self.no_images {
                continue;
            }
            let memory = self.instances.get(&serves).expect("it was just called");
            let pages = memory.chunks(4096).map(Bytes::copy_from_slice);
            let image = Image { head: Bytes::new(), pages: (0..).zip(pages).collect() };
            self.machine.keep_image(stage, &serves, &image);
            self.images += 1;
        }
        let (mut writer, mut kept) = (RecordWriter::new(), self.kept.clone());
        let changed = |stage: StageId, change: Change<'_>| {
            let slot = (stage, change.key.to_vec(), change.slot.to_vec());
            match change.value {
                Some(value) => drop(kept.insert(slot, value.to_vec())),
                None => drop(kept.remove(&slot)),
            }
        };
        let recorded = self.machine.finish_recorded((&[], self.bytes_max), &mut writer, changed);
        let Ok(recorded) = recorded else {
            let (frame, _) = self.machine.take_back();
            assert!(frame.is_empty(), "what is too large here was made here");
            return self.instances.clear();
        };
        let sent = recorded.sent;
        self.kept = kept;
        self.out.extend(sent.outputs.iter().flat_map(|run| texts(&run.frame)));
        self.dead.extend(sent.dead_letters.iter().flat_map(|dead| texts(&dead.frame)));
    }

    /// Makes the instance of a call again, if it is gone.
    fn with_instance(&mut self, call: Call) -> Call {
        if self.instances.contains_key(&call.serves) {
            return call;
        }
        let revival = self.machine.revival(&call).expect("all is kept");
        let Some(revival) = revival else { return call };
        let Serves::Stream(key, _) = &call.serves else { panic!("a stream") };
        let pages = revival.image.iter().flat_map(|image| image.pages.values());
        let mut memory: Memory = pages.flatten().copied().collect();
        let mut aside = revival.layer(&call.layer, key);
        for (at, replay) in revival.calls.iter().enumerate() {
            assert_eq!(replay.seed, replay.time ^ 7);
            revival.begin(&mut aside, at);
            assert_eq!(run(&mut memory, &mut aside), Verdict::Returned(Vec::new()));
            aside.accept();
        }
        assert!(Revival::agrees(&aside, &call.layer, key));
        self.instances.insert(call.serves.clone(), memory);
        self.revivals += 1;
        call
    }
}

#[test]
fn a_stream_goes_on_where_its_instance_was() {
    let mut undisturbed = Node::new(OnFailure::DeadLetter);
    let mut disturbed = Node::new(OnFailure::DeadLetter);
    for at in 0..40 {
        let events = [("a", "e1"), ("b", "e2"), ("a", "e3")];
        undisturbed.post(&events, at);
        disturbed.post(&events, at);
        match at % 3 {
            0 => disturbed.kill(),
            1 => disturbed.instances.clear(),
            _ => {}
        }
    }
    assert_eq!(disturbed.out, undisturbed.out);
    assert!(disturbed.revivals > 40 && undisturbed.revivals == 0);
    let last = disturbed.out.last().expect("there are results").1.clone();
    assert!(last.starts_with("41 "), "an open event and forty others: {last}");
}

#[test]
fn an_image_bounds_what_is_replayed() {
    let mut node = Node::new(OnFailure::DeadLetter);
    let long = "x".repeat(10_000);
    for at in 0..60 {
        node.post(&[("a", &long)], at);
    }
    assert!(node.images >= 3, "{} images", node.images);
    node.kill();
    node.post(&[("a", "e")], 61);
    let mut undisturbed = Node::new(OnFailure::DeadLetter);
    for at in 0..60 {
        undisturbed.post(&[("a", &long)], at);
    }
    undisturbed.post(&[("a", "e")], 61);
    assert_eq!((node.out.last(), node.revivals), (undisturbed.out.last(), 1));
}

#[test]
fn a_trap_is_one_of_an_event_and_the_stream_goes_on() {
    let mut node = Node::new(OnFailure::DeadLetter);
    node.post(&[("a", "e1"), ("a", "e2"), ("a", "t"), ("a", "e3")], 1);
    node.post(&[("a", "t")], 2);
    node.post(&[("a", "e4")], 3);
    assert_eq!(node.dead, pairs(&[("a", "t"), ("a", "t")]));
    let mut without = Node::new(OnFailure::DeadLetter);
    without.post(&[("a", "e1"), ("a", "e2"), ("a", "e3")], 1);
    without.post(&[("a", "e4")], 3);
    assert_eq!(node.out, without.out);
}

#[test]
fn a_timer_that_traps_is_lost_alone_and_its_stream_goes_on() {
    let mut node = Node::new(OnFailure::DeadLetter);
    node.post(&[("a", "w50:t"), ("a", "w60:n")], 1);
    assert!(node.fires(55));
    assert_eq!(node.dead, pairs(&[("a", "t")]));
    for at in [56, 57] {
        node.kill();
        node.post(&[("a", "e")], at);
    }
    assert!(node.fires(60));
    assert_eq!((node.machine.timers(0), node.machine.open_streams()), (0, 1));
    node.kill();
    node.post(&[("a", "e")], 61);
    assert_eq!(node.out.last().map(|(_, text)| text.starts_with("7 ")), Some(true));
}

#[test]
fn a_timer_that_is_set_again_by_another_of_its_batch_stays() {
    let mut node = Node::new(OnFailure::DeadLetter);
    // Those that trap make the others calls of their own.
    node.post(&[("a", "w50:w900:n"), ("a", "w51:t"), ("a", "w52:n")], 1);
    assert!(node.fires(55));
    assert_eq!((node.machine.timers(0), node.dead.len()), (1, 1));
    node.kill();
    node.post(&[("a", "e")], 56);
    assert!(!node.fires(899) && node.fires(900));
    // Set to the same time again, it is still another.
    node.post(&[("b", "w950:w952:n"), ("b", "w951:t"), ("b", "w952:n")], 940);
    assert!(node.fires(955));
    assert_eq!(node.machine.timers(0), 1);
    node.kill();
    node.post(&[("b", "e")], 956);
    assert!(node.fires(957));
}

#[test]
fn a_stream_that_traps_as_it_opens_is_lost_and_another_may_open() {
    let mut node = Node::new(OnFailure::DeadLetter);
    node.post(&[("bad", "e1"), ("good", "e2")], 1);
    assert_eq!(node.dead, pairs(&[("bad", ""), ("bad", "e1")]));
    assert_eq!(node.machine.open_streams(), 1);
    node.post(&[("bad", "e3")], 2);
    assert_eq!(node.dead[2..], pairs(&[("bad", ""), ("bad", "e3")]));
}

#[test]
fn of_a_stream_that_is_lost_only_what_was_not_handled_is_given_up() {
    let mut node = Node::new(OnFailure::DeadLetter);
    node.post(&[("a", "e1")], 1);
    let (from, to) = (Place { seq: 2, index: 0 }, Place::after(2));
    let pieces = vec![Piece { source: Source::Ingest, from, to, events: 3 }];
    node.machine.start_batch(frame(&[("a", "e2"), ("a", "t"), ("a", "e3")]), pieces, 2);
    let mut verdicts = vec![
        Verdict::Lost("it does not repeat".into()),
        Verdict::Returned(Vec::new()),
        Verdict::Trapped("boom".into()),
        Verdict::Trapped("boom".into()),
    ];
    while let Some(call) = node.machine.next_call() {
        node.machine.done(call.layer, verdicts.pop().expect("it is lost by then"));
    }
    node.consumed = 2;
    let commit =
        node.machine.finish_recorded((&[], usize::MAX), &mut RecordWriter::new(), |_, _| {});
    let dead = commit.expect("it fits").sent.dead_letters.expect("there are some");
    assert_eq!(texts(&dead.frame), pairs(&[("a", "t"), ("a", "e3")]));
    assert_eq!((node.machine.open_streams(), node.machine.state_bytes()), (0, 0));
}

#[test]
fn an_image_is_of_a_stream_that_is_open() {
    let mut node = Node::new(OnFailure::DeadLetter);
    let long = "x".repeat(200_000);
    node.post(&[("a", &long), ("a", &long), ("a", "END"), ("a", "e")], 1);
    assert_eq!((node.images, node.machine.open_streams()), (0, 1));
}

#[test]
fn a_stream_that_was_not_in_memory_is_put_off_when_it_is_looked_at() {
    let mut node = Node::new(OnFailure::DeadLetter);
    node.machine.back_state();
    node.post(&[("a", "e1")], 1_000);
    node.post(&[("a", "e2")], 9_000);
    let periods = node.machine.next_periods();
    node.machine.kept(&periods);
    node.machine.make_room(0);
    assert!(!node.machine.holds(0, b"a"));
    assert!(node.machine.start_ends(11_000));
    assert!(node.machine.next_call().is_none());
    let wanted = node.machine.take_wanted().expect("its key");
    let slots: Vec<_> = node.kept.iter().filter(|((stage, ..), _)| *stage == StageId(3)).collect();
    let slots = slots.iter().map(|((_, _, slot), value)| (&slot[..], &value[..]));
    node.machine.load(wanted.stage, b"a", slots);
    node.finish(11_000);
    assert_eq!((node.machine.open_streams(), node.machine.next_end()), (1, Some(19_000)));
}

#[test]
fn calls_of_a_stream_are_bounded_with_its_open_and_its_end() {
    let mut node = Node::new(OnFailure::DeadLetter);
    let mut events = vec![("a", "e"); 600];
    events.push(("a", "END"));
    let (from, to) = (Place::START, Place::after(1));
    let pieces = vec![Piece { source: Source::Ingest, from, to, events: 601 }];
    node.machine.start_batch(frame(&events), pieces, 1);
    let mut sizes = Vec::new();
    while let Some(call) = node.machine.next_call() {
        sizes.push(call.layer.frame().len());
        node.machine.done(call.layer, Verdict::Returned(Vec::new()));
    }
    assert_eq!(sizes.iter().sum::<usize>(), 602);
    assert!(sizes.iter().all(|size| *size <= crate::limits::BATCH_EVENTS_MAX), "{sizes:?}");
}

#[test]
fn a_timer_that_is_replayed_leaves_the_one_that_was_set_since() {
    let mut node = Node::new(OnFailure::DeadLetter);
    node.post(&[("a", "w50:n")], 1);
    assert!(node.fires(50));
    node.post(&[("a", "w900:n")], 51);
    let again = {
        let mut builder = FrameBuilder::new();
        let head = Head { kind: Kind::Timer, ..Head::data(50) };
        builder.push(&head, b"a", b"n", &[]);
        builder.finish()
    };
    node.post_frame(again, 52);
    node.kill();
    node.post(&[("a", "e")], 53);
    assert!(!node.fires(899) && node.fires(900));
}

#[test]
fn what_was_refused_for_want_of_room_is_in_an_image() {
    let mut node = Node::new(OnFailure::DeadLetter);
    node.machine.bound_timers(0);
    node.post(&[("a", "w900:n")], 1);
    assert_eq!((node.machine.timers(0), node.images), (0, 1));
    node.kill();
    node.post(&[("a", "e"), ("a", "w900:n")], 2);
    assert_eq!((node.machine.timers(0), node.images), (1, 1));
}

#[test]
fn a_batch_that_is_set_aside_is_run_again_as_if_for_the_first_time() {
    let mut node = Node::new(OnFailure::DeadLetter);
    node.post(&[("a", "w50:n"), ("b", "e1")], 1);
    let (kept, progress) = (node.kept.clone(), node.machine.progress().cloned());
    let (from, to) = (Place { seq: 2, index: 0 }, Place::after(2));
    let pieces = vec![Piece { source: Source::Ingest, from, to, events: 3 }];
    let events = frame(&[("a", "e2"), ("b", "e3"), ("c", "e4")]);
    node.machine.start_batch(events.clone(), pieces.clone(), 2);
    // One call that comes to something, and one that there was no room for, twice.
    let mut call = node.machine.next_call().expect("a call");
    run(&mut Memory::new(), &mut call.layer);
    assert!(node.machine.done(call.layer, Verdict::Returned(Vec::new())));
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut call = node.machine.next_call().expect("a call");
        run(&mut Memory::new(), &mut call.layer);
        seen.push((call.serves.clone(), call.layer.frame().clone()));
        node.machine.call_again(call.layer);
    }
    assert_eq!(seen[0], seen[1], "the same call again");
    let (again, batch) = node.machine.set_aside();
    assert_eq!((again, batch.pieces), (events, pieces));
    node.instances.clear();
    assert_eq!(node.machine.progress().cloned(), progress);
    node.post(&[("a", "e2"), ("b", "e3"), ("c", "e4")], 3);
    let mut plain = Node::new(OnFailure::DeadLetter);
    plain.post(&[("a", "w50:n"), ("b", "e1")], 1);
    assert_eq!(plain.kept, kept);
    plain.post(&[("a", "e2"), ("b", "e3"), ("c", "e4")], 3);
    assert_eq!(node.out, plain.out);
    // Timers are due again, all of them, however often there is no room.
    for _ in 0..12 {
        assert!(node.machine.start_timers(50));
        let call = node.machine.next_call().expect("a call");
        node.machine.call_again(call.layer);
        node.machine.set_aside();
        node.instances.clear();
    }
    assert!(node.fires(50) && plain.fires(50));
    assert_eq!((&node.out, &node.dead), (&plain.out, &plain.dead));
}

#[test]
fn ends_whose_commit_is_too_large_are_divided_and_harm_nothing_else() {
    let mut node = Node::new(OnFailure::DeadLetter);
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        node.post(&[(key, "e")], 1);
    }
    node.post(&[("timed", "w9000000:n")], 9_000);
    let mut batches = 0;
    node.bytes_max = 400;
    while node.ends(10_001) {
        batches += 1;
        assert!(batches < 20, "it gets nowhere");
    }
    assert_eq!(node.machine.open_streams(), 1);
    assert!(batches > 2, "{batches}");
    assert_eq!(node.dead, []);
    // One that is too large even alone is given up on, and its stream is over.
    node.bytes_max = 60;
    batches = 0;
    while node.ends(19_000) {
        batches += 1;
        assert!(batches < 20, "it gets nowhere");
    }
    assert_eq!((node.machine.open_streams(), node.machine.state_bytes()), (0, 0));
    assert_eq!(node.dead, pairs(&[("timed", "")]));
}

#[test]
fn a_history_that_was_given_up_wants_an_image() {
    let mut node = Node::new(OnFailure::DeadLetter);
    let long = "x".repeat(900_000);
    node.post(&[("a", &long)], 1);
    node.no_images = true;
    node.post(&[("a", &long)], 2);
    node.no_images = false;
    node.post(&[("a", &long)], 3);
    node.kill();
    node.post(&[("a", "e")], 4);
    let mut undisturbed = Node::new(OnFailure::DeadLetter);
    for at in 1..4 {
        undisturbed.post(&[("a", &long)], at);
    }
    undisturbed.post(&[("a", "e")], 4);
    assert_eq!(node.out, undisturbed.out);
}

#[test]
fn a_stream_ends_when_its_time_comes_over_restarts() {
    let mut node = Node::new(OnFailure::DeadLetter);
    node.post(&[("a", "e1"), ("b", "e2")], 1_000);
    node.post(&[("b", "e3")], 9_000);
    node.kill();
    assert_eq!(node.machine.open_streams(), 2);
    assert_eq!(node.machine.next_end(), Some(11_000));
    assert!(node.ends(11_000));
    assert_eq!(node.machine.open_streams(), 1, "b was heard of later");
    node.kill();
    // What the index says is from when it opened: it is looked at, and put off.
    assert!(!node.machine.start_ends(18_999));
    assert_eq!(node.machine.next_end(), Some(19_000));
    assert!(node.ends(19_000));
    assert_eq!((node.machine.open_streams(), node.machine.state_bytes()), (0, 0));
    assert_eq!(node.kept, BTreeMap::new(), "everything of them is gone");
    node.post(&[("a", "e1")], 30_000);
    assert_eq!(node.out.last().map(|(_, text)| text.starts_with("2 ")), Some(true), "a new one");
}

#[test]
fn a_batch_that_is_taken_back_leaves_no_trace_of_its_streams() {
    let mut node = Node::new(OnFailure::Halt);
    node.post(&[("a", "e1")], 1);
    let before = node.kept.clone();
    let pieces = vec![Piece {
        source: Source::Ingest,
        from: Place::after(1),
        to: Place::after(2),
        events: 3,
    }];
    node.machine.start_batch(frame(&[("a", "END"), ("b", "e2"), ("b", "t")]), pieces, 2);
    node.machine.set_seed(2 ^ 7);
    while let Some(call) = node.machine.next_call() {
        let mut call = node.with_instance(call);
        let mut memory = node.instances.remove(&call.serves).unwrap_or_default();
        let verdict = run(&mut memory, &mut call.layer);
        if matches!(verdict, Verdict::Returned(_)) {
            node.instances.insert(call.serves, memory);
        }
        node.machine.done(call.layer, verdict);
    }
    assert!(node.machine.halted().is_some());
    let (again, _) = node.machine.resume_batch().expect("the batch");
    assert_eq!(again.len(), 3);
    node.instances.clear();
    assert_eq!((node.machine.open_streams(), node.machine.next_end()), (1, Some(10_001)));
    assert_eq!(node.kept, before);
    node.consumed = 1;
    node.post(&[("a", "e2")], 3);
    assert!(node.out.last().is_some_and(|(_, text)| text.starts_with("3 ")));
}

proptest! {
    #[test]
    fn what_comes_out_does_not_depend_on_what_happens_to_instances(
        batches in prop::collection::vec(
            (prop::collection::vec((0_usize..3, 0_usize..6), 1..6), 0_u8..4, 0_u64..4_000),
            1..25,
        ),
    ) {
        let node = || Node::new(OnFailure::DeadLetter);
        let (mut plain, mut shaken) = (node(), node());
        let mut now = 0;
        for (events, shake, pass) in batches {
            now += pass;
            let named = |(key, kind): &(usize, usize)| {
                (["a", "b", "c"][*key], ["e1", "e2", "t", "END", "e3", "e4"][*kind])
            };
            let events: Vec<_> = events.iter().map(named).collect();
            for node in [&mut plain, &mut shaken] {
                while node.ends(now) {}
                node.post(&events, now);
            }
            match shake {
                0 => shaken.kill(),
                1 => shaken.instances.clear(),
                2 => drop(shaken.instances.pop_first()),
                _ => {}
            }
        }
        // Between keys the order of ends made here is not promised.
        for told in [&mut plain.out, &mut plain.dead, &mut shaken.out, &mut shaken.dead] {
            told.sort_by(|a, b| a.0.cmp(&b.0));
        }
        prop_assert_eq!(&plain.out, &shaken.out);
        prop_assert_eq!(&plain.dead, &shaken.dead);
        // Serials begin anew with a process.
        for node in [&mut plain, &mut shaken] {
            node.kept.retain(|(_, _, slot), _| slot != &[crate::state::HOSTED, b'm']);
        }
        prop_assert_eq!(plain.kept, shaken.kept);
    }
}
