//! The seam of sinks, and how what left by an output gets to one.
//!
//! - A sink is given deliveries: events of one partition, in their order, under a name that is the
//!   same whenever they are handed on again. It says that they were taken, that they may be later,
//!   or that they never will be.
//! - Each is handed on until it is taken, with growing pauses. What never will be is found by
//!   halves; the sink stops there, or leaves it out, as its pipeline says.
//! - What was taken lets the output go on; how far that is gets into the log a little later. So
//!   after a kill some comes again, under its name; nothing is left out.
//! - One delivery is under way at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_core::frame::Event;
use sluicebox_core::pipeline::Sink as Declared;

use super::grants::Refused;
use super::pause::Pause;
use super::{Fault, Work, places};
use crate::http::{Renderer, Shown};
use crate::ring::{Chunk, Output};
use crate::running::Running;

/// Bytes of frames that are looked at at a time, and events, though a delivery has fewer: a look is
/// one at all partitions.
const BYTES_MAX: usize = 256 * 1024;
const EVENTS: usize = 64;
/// How often places get into the log, and is told how far behind it is.
const NOTED: Duration = Duration::from_millis(500);
/// How often a sink with nothing to do looks around.
const LOOK: Duration = Duration::from_millis(500);
/// The first pause behind an attempt that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub(super) trait Sink {
    /// What is handed on, ready to be.
    type Delivery;

    /// Most events of a delivery.
    fn events_max(&self) -> usize;

    /// Longest pause between two attempts.
    fn pause_max(&self) -> Duration;

    /// Gets a delivery ready.
    fn ready(&self, events: &Events<'_>) -> Self::Delivery;

    /// Hands it on, once.
    async fn hand_on(&mut self, delivery: &Self::Delivery) -> Handed;
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handed {
    /// It is there.
    Taken,
    /// It is not, or it is not known; after this time, if the receiver says one, it can be tried
    /// again.
    Later(Fault, Option<Duration>),
    /// It never will be as it is.
    Never(Fault),
}

/// Events of one partition, one behind the other.
pub(super) struct Events<'a> {
    /// What the names of all events of the partition begin with.
    pub stem: String,
    pub partition: u16,
    pub all: Vec<(u64, Event<'a>)>,
    pub renderer: Renderer<'a>,
}

impl Events<'_> {
    /// Their name together, the same whenever these events are handed on.
    pub(super) fn name(&self) -> String {
        let first = self.all.first().map_or(0, |(offset, _)| *offset);
        let last = self.all.last().map_or(first, |(offset, _)| *offset);
        match last > first {
            true => format!("{}-{last}", self.name_of(first)),
            false => self.name_of(first),
        }
    }

    /// The name of one of them, the same for ever.
    pub(super) fn name_of(&self, offset: u64) -> String {
        format!("{}/{offset}", self.stem)
    }
}

/// Hands on for ever.
pub(super) async fn hand_on<S: Sink>(work: &Work, declared: &Declared, sink: S) -> Refused {
    let pause = Pause::new(PAUSE, sink.pause_max());
    let noted = (BTreeMap::new(), Instant::now());
    let mut hands = Hands { work, declared, sink, pause, noted, start: 0 };
    loop {
        let Some((_, ring)) = hands.output() else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        hands.note(&ring);
        let cursor = ring.held_by(&declared.name, hands.start % ring.partitions().max(1));
        let most = hands.sink.events_max().max(EVENTS);
        let Ok(page) = ring.read_limited(&cursor, most, BYTES_MAX) else {
            hands.pass_over(&ring);
            tokio::time::sleep(LOOK).await;
            continue;
        };
        hands.tell_lag(&ring);
        if page.chunks.is_empty() {
            work.metrics.runs();
            drop(tokio::time::timeout(LOOK, ring.wait(&cursor)).await);
            continue;
        }
        // One partition after the other.
        for chunks in page.chunks.chunk_by(|one, next| one.partition == next.partition) {
            hands.all(&ring, chunks).await;
            // A partition that always has something is not before all others for ever.
            let served = chunks.first().map_or(0, |chunk| chunk.partition);
            hands.start = served.wrapping_add(1);
        }
    }
}

struct Hands<'a, S> {
    work: &'a Work,
    declared: &'a Declared,
    sink: S,
    pause: Pause,
    /// Places as they are in the log, by partition, and since when.
    noted: (BTreeMap<u16, u64>, Instant),
    /// The partition that the next page begins with.
    start: u16,
}

impl<S: Sink> Hands<'_, S> {
    fn output(&self) -> Option<(Arc<Running>, Arc<Output>)> {
        let running = self.work.running()?;
        let ring = running.output(&self.declared.from)?.clone();
        Some((running, ring))
    }

    /// Hands on events of one partition, in halves if some of them are never taken.
    async fn all(&mut self, ring: &Arc<Output>, chunks: &[Chunk]) {
        let offsets = chunks.iter().flat_map(|chunk| chunk.events().map(|(offset, _)| offset));
        let offsets: Vec<u64> = offsets.collect();
        let most = self.sink.events_max().max(1);
        let mut parts: Vec<&[u64]> = offsets.chunks(most).rev().collect();
        while let Some(part) = parts.pop() {
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            let wanted = *first..=*last;
            let Some(delivery) = self.delivery(ring, chunks, wanted.clone()) else {
                // The pipeline is being replaced: what comes next looks anew.
                tokio::time::sleep(PAUSE).await;
                return;
            };
            match self.until_taken(&delivery).await {
                Ok(()) => {
                    self.done(ring, chunks, wanted);
                    self.note(ring);
                }
                Err(_) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(fault) if self.declared.drops => {
                    self.leave_out(ring, (chunks[0].partition, *first), &fault);
                }
                Err(fault) => {
                    let (name, message) = (&self.declared.name, &fault.message);
                    let (tenant, pipeline) = (&self.work.tenant, &self.work.pipeline);
                    tracing::error!(%tenant, %pipeline, name, "a sink has halted: {message}");
                    self.note(ring);
                    self.work.metrics.halts(fault.code, message).await;
                    parts.push(part);
                }
            }
        }
    }

    fn delivery(
        &self,
        ring: &Output,
        chunks: &[Chunk],
        wanted: std::ops::RangeInclusive<u64>,
    ) -> Option<S::Delivery> {
        let running = self.work.running()?;
        let incarnation = ring.incarnation();
        let renderer = Renderer::new(&running, Shown::Output(&self.declared.from), incarnation);
        let partition = chunks.first()?.partition;
        let (tenant, pipeline, from) =
            (&self.work.tenant, &self.work.pipeline, &self.declared.from);
        let stem = format!("{tenant}/{pipeline}/{from}/{incarnation:x}/{partition}");
        let all = chunks.iter().flat_map(Chunk::events);
        let all = all.filter(|(offset, _)| wanted.contains(offset)).collect();
        let events = Events { stem, partition, all, renderer };
        Some(self.sink.ready(&events))
    }

    /// Hands on until it is taken.
    async fn until_taken(&mut self, delivery: &S::Delivery) -> Result<(), Fault> {
        loop {
            let (fault, after) = match self.sink.hand_on(delivery).await {
                Handed::Taken => {
                    self.pause.begin_again();
                    self.work.metrics.runs();
                    return Ok(());
                }
                Handed::Never(fault) => {
                    self.pause.begin_again();
                    return Err(fault);
                }
                Handed::Later(fault, after) => (fault, after),
            };
            self.work.failed(&self.declared.name, &fault);
            let own = self.pause.next();
            let wait = after.map_or(own, |after| after.max(own).min(self.sink.pause_max()));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.work.metrics.resumed() => {}
            }
        }
    }

    fn done(&self, ring: &Output, chunks: &[Chunk], taken: std::ops::RangeInclusive<u64>) {
        let all = chunks.iter().flat_map(Chunk::events);
        let all = all.filter(|(offset, _)| taken.contains(offset));
        let (events, bytes) = all.fold((0, 0), |(events, bytes), (_, event)| {
            (events + 1, bytes + event.payload.len() as u64)
        });
        self.work.metrics.events.add(events);
        self.work.metrics.bytes.add(bytes);
        self.goes_on(ring, chunks[0].partition, *taken.end() + 1);
    }

    fn leave_out(&self, ring: &Output, (partition, offset): (u16, u64), fault: &Fault) {
        self.work.metrics.rejected.inc();
        let (name, message) = (&self.declared.name, &fault.message);
        let (tenant, pipeline) = (&self.work.tenant, &self.work.pipeline);
        tracing::warn!(%tenant, %pipeline, name, partition, offset, "left out: {message}");
        self.goes_on(ring, partition, offset + 1);
    }

    fn goes_on(&self, ring: &Output, partition: u16, offset: u64) {
        ring.let_go(&self.declared.name, partition, offset);
        self.work.metrics.is_at(format!("partition {partition}: {offset} events"));
    }

    /// What is not kept any more is lost to this sink.
    fn pass_over(&self, ring: &Output) {
        let cursor = ring.held_by(&self.declared.name, 0);
        let mut lost = 0;
        for partition in 0..ring.partitions() {
            let (at, oldest) = (cursor.offset(partition), ring.kept_from(partition));
            lost += oldest.saturating_sub(at);
            ring.let_go(&self.declared.name, partition, oldest);
        }
        self.work.metrics.lost.add(lost);
        let (tenant, pipeline) = (&self.work.tenant, &self.work.pipeline);
        let (name, output) = (&self.declared.name, &self.declared.from);
        tracing::error!(%tenant, %pipeline, name, output, lost, "events were dropped before");
    }

    fn tell_lag(&self, ring: &Output) {
        let behind = ring.behind(&self.declared.name);
        self.work.metrics.lag.set(i64::try_from(behind).unwrap_or(i64::MAX));
    }

    /// Tells how far it is, now and then, the log too.
    fn note(&mut self, ring: &Output) {
        if self.noted.1.elapsed() < NOTED && !self.work.node.draining() {
            return;
        }
        self.noted.1 = Instant::now();
        self.tell_lag(ring);
        let work = self.work;
        let Some(durable) = &work.durable else { return };
        let Some(output) = durable.numbering().output(&self.declared.from) else { return };
        let cursor = ring.held_by(&self.declared.name, 0);
        for partition in 0..ring.partitions() {
            let offset = cursor.offset(partition);
            if offset == 0 || self.noted.0.get(&partition) == Some(&offset) {
                continue;
            }
            let place = places::of_sink(&self.declared.name, output, partition);
            if durable.note_place(&place, offset).is_err() {
                // There is no room now, and there is time.
                return;
            }
            self.noted.0.insert(partition, offset);
        }
    }
}

#[cfg(test)]
pub(super) mod contract {
    //! What every sink must show.
    //!
    //! - An event has one name for ever, which no other has.
    //! - What was taken is there; what may be later is there once it was handed on again; what
    //!   never will be is told so, and holds up nothing that follows it.
    //! - A receiver that ends the connection, or does not answer, may have taken it or not: it is
    //!   handed on again, under its name.

    use std::sync::{Arc, Mutex};

    use sluicebox_core::frame::{Frame, FrameBuilder, Head};

    use super::{Events, Handed, Sink};
    use crate::http::Renderer;

    /// What a receiver does with what comes.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(in crate::connectors) enum Does {
        #[default]
        Takes,
        /// It says that it may be later.
        Waits,
        /// It says that it never will be.
        Refuses,
        /// It takes it, and ends the connection without a word.
        Vanishes,
    }

    /// The name of a delivery, and what was in it.
    type Delivered = (String, String);

    /// What a receiver is told to do, and what came to it: names, and payloads.
    #[derive(Debug, Clone, Default)]
    pub(in crate::connectors) struct Told(Arc<Mutex<(Does, Vec<Delivered>)>>);

    impl Told {
        fn says(&self, does: Does) {
            self.0.lock().expect("nobody panics with it").0 = does;
        }

        /// Something came; what to do with it.
        pub(in crate::connectors) fn came(&self, name: &str, payload: &str) -> Does {
            let mut inside = self.0.lock().expect("nobody panics with it");
            if matches!(inside.0, Does::Takes | Does::Vanishes) {
                inside.1.push((name.to_owned(), payload.to_owned()));
            }
            inside.0
        }

        /// What it has, each name once.
        fn has(&self) -> Vec<(String, String)> {
            let mut all = self.0.lock().expect("nobody panics with it").1.clone();
            all.dedup();
            all
        }
    }

    fn frame() -> Frame {
        let mut builder = FrameBuilder::new();
        for n in 0..6 {
            let payload = format!("{{\"n\":{n}}}");
            builder.push(&Head::data(1_700_000_000_000_000), b"k", payload.as_bytes(), &[]);
        }
        builder.finish()
    }

    /// Hands on one event, as it is handed on by whoever knows nothing of earlier attempts.
    async fn hand_on<S: Sink>(sink: &mut S, frame: &Frame, offset: u64) -> &'static str {
        let at = usize::try_from(offset).expect("a small number");
        let all = frame.events().skip(at).take(1).map(|event| (offset, event)).collect();
        let (stem, renderer) = ("t/p/o/7/3".to_owned(), Renderer::of_nobody());
        let delivery = sink.ready(&Events { stem, partition: 3, all, renderer });
        match sink.hand_on(&delivery).await {
            Handed::Taken => "taken",
            Handed::Later(..) => "later",
            Handed::Never(_) => "never",
        }
    }

    /// Holds a sink to it, whose receiver does as it is told.
    pub(in crate::connectors) async fn keeps<S: Sink>(mut sink: S, told: &Told) {
        let frame = frame();
        let mut wanted = Vec::new();
        for (offset, does, word, arrives) in [
            (0, Does::Takes, "taken", true),
            (1, Does::Waits, "later", false),
            (1, Does::Takes, "taken", true),
            (2, Does::Refuses, "never", false),
            (3, Does::Takes, "taken", true),
            (4, Does::Vanishes, "later", true),
            (4, Does::Takes, "taken", false),
            (5, Does::Takes, "taken", true),
        ] {
            told.says(does);
            assert_eq!(hand_on(&mut sink, &frame, offset).await, word, "{offset} {does:?}");
            if arrives {
                wanted.push((format!("t/p/o/7/3/{offset}"), format!("{{\"n\":{offset}}}")));
            }
            assert_eq!(told.has(), wanted, "{offset} {does:?}");
        }
        let many = Events {
            stem: "t/p/o/7/3".to_owned(),
            partition: 3,
            all: (7..).zip(frame.events()).collect(),
            renderer: Renderer::of_nobody(),
        };
        assert_eq!((many.name(), many.name_of(8)), ("t/p/o/7/3/7-12".into(), "t/p/o/7/3/8".into()));
    }
}
