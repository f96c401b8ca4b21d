//! What pipelines take in and hand out by themselves: sources and sinks.
//!
//! ```text
//! outside ─► Source ─► feed ─► Intake (with its place) ─► log
//! output, held from its place on ─► hand_on ─► Sink ─► outside; then its place ─► log
//! ```
//!
//! - Each runs as one task while its pipeline has its home here, over all versions that declare it
//!   alike. It takes one piece at a time: what is outside waits outside.
//! - A source's place is in one record of the log with what was taken, a sink's behind what was
//!   handed on. So what a source takes counts once, and what a sink hands on arrives at least once,
//!   under a name that stays the same.
//! - Nothing outside is reached that the operator did not allow (`grants`). It is looked at when a
//!   manifest is applied, and again whenever something is opened.
//!
//! The contract of both seams: `source`, `sink`. Another kind is a file beside `cron`, a line in
//! [`Declared`], and its table in the manifest (`core/pipeline/connect.rs`).

mod attributes;
mod cron;
mod files;
mod folder;
mod grants;
mod nats;
mod pause;
pub(crate) mod places;
mod road;
mod secret;
mod sink;
mod source;
mod tail;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_core::manifest::{Problem, Problems, member};
use sluicebox_core::pipeline::{Pipeline, Sink, SinkKind, Source, SourceKind};
use tokio::task::JoinHandle;

use crate::durable::Durable;
use crate::error::Error;
use crate::metrics::ConnectorMetrics;
use crate::node::Node;
use crate::running::Running;
use grants::{Grants, Refused};
use pause::Pause;

/// How often it is looked which there are.
const LOOK: Duration = Duration::from_millis(200);

/// The pause before something is opened again that was refused.
const REFUSED_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// One source or sink, as its pipeline declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Declared {
    Source(Source),
    Sink(Sink),
}

/// What goes wrong outside.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    code: &'static str,
    message: String,
}

impl Fault {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Of which pipeline: a new one of the same name is another.
type Key = (Name, Name, Option<PipelineId>, &'static str, String);

/// One that runs.
struct Task {
    declared: Declared,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        // Nothing is half done between two waits.
        self.handle.abort();
    }
}

/// What a source or sink works with.
struct Work {
    node: Arc<Node>,
    tenant: Name,
    pipeline: Name,
    /// The log of its pipeline, over all versions.
    durable: Option<Arc<Durable>>,
    metrics: Arc<ConnectorMetrics>,
}

impl Work {
    /// The version that runs now, if there is one.
    fn running(&self) -> Option<Arc<Running>> {
        let running = self.node.running(&self.tenant, self.pipeline.as_str())?;
        let id = |durable: Option<&Arc<Durable>>| durable.map(|durable| durable.id);
        (id(running.durable()) == id(self.durable.as_ref())).then_some(running)
    }

    fn grants(&self) -> Grants<'_> {
        Grants::of(&self.node, &self.tenant)
    }

    fn whose<'a>(&'a self, name: &'a str) -> nats::Whose<'a> {
        (&self.tenant, &self.pipeline, name)
    }

    /// Tells of something that went wrong, in the log too if that is news.
    fn failed(&self, name: &str, fault: &Fault) {
        if self.metrics.fails(fault.code, &fault.message) {
            let (tenant, pipeline, code) = (&self.tenant, &self.pipeline, fault.code);
            tracing::warn!(%tenant, %pipeline, name, code, "{}", fault.message);
        }
    }
}

/// Keeps all sources and sinks at work, for as long as the node runs.
pub(crate) async fn run(node: Arc<Node>) {
    let mut tasks: BTreeMap<Key, Task> = BTreeMap::new();
    loop {
        let mut wanted = wanted(&node);
        tasks.retain(|key, task| {
            let same = wanted.get(key).is_some_and(|(_, declared)| *declared == task.declared);
            same && !task.handle.is_finished()
        });
        wanted.retain(|key, _| !tasks.contains_key(key));
        for (key, (running, declared)) in wanted {
            let work = work(&node, &running, &declared);
            let handle = tokio::task::spawn_local(at_work(work, declared.clone()));
            tasks.insert(key, Task { declared, handle });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What all pipelines that live here declare.
fn wanted(node: &Node) -> BTreeMap<Key, (Arc<Running>, Declared)> {
    let mut wanted = BTreeMap::new();
    for running in node.all_running() {
        let id = running.durable().map(|durable| durable.id);
        let of = |direction, name: &String| {
            (running.tenant().clone(), running.name().clone(), id, direction, name.clone())
        };
        let pipeline = running.pipeline();
        for source in &pipeline.sources {
            let declared = (running.clone(), Declared::Source(source.clone()));
            wanted.insert(of("source", &source.name), declared);
        }
        for sink in &pipeline.sinks {
            let declared = (running.clone(), Declared::Sink(sink.clone()));
            wanted.insert(of("sink", &sink.name), declared);
        }
    }
    wanted
}

fn work(node: &Arc<Node>, running: &Running, declared: &Declared) -> Work {
    let metrics = match declared {
        Declared::Source(source) => running.metrics().source(&source.name),
        Declared::Sink(sink) => running.metrics().sink(&sink.name),
    };
    Work {
        node: node.clone(),
        tenant: running.tenant().clone(),
        pipeline: running.name().clone(),
        durable: running.durable().cloned(),
        metrics,
    }
}

/// Does what one is for, until it is no longer wanted.
async fn at_work(work: Work, declared: Declared) {
    let (first, most) = REFUSED_PAUSE;
    let mut pause = Pause::new(first, most);
    let name = match &declared {
        Declared::Source(source) => source.name.clone(),
        Declared::Sink(sink) => sink.name.clone(),
    };
    loop {
        let refused = match &declared {
            Declared::Source(source) => begin_source(&work, source).await,
            Declared::Sink(sink) => begin_sink(&work, sink).await,
        };
        work.failed(&name, &refused.into());
        tokio::select! {
            () = tokio::time::sleep(pause.next()) => {}
            () = work.metrics.resumed() => {}
        }
    }
}

/// Feeds from a source; comes back only if it may not be opened.
async fn begin_source(work: &Work, source: &Source) -> Refused {
    match &source.kind {
        SourceKind::File(lines) => match tail::Tail::open(&work.grants(), &source.name, lines) {
            Ok(tail) => source::feed(work, source, tail).await,
            Err(refused) => refused,
        },
        SourceKind::Folder(lines) => {
            match folder::Folder::open(&work.grants(), &source.name, lines) {
                Ok(folder) => source::feed(work, source, folder).await,
                Err(refused) => refused,
            }
        }
        SourceKind::Cron(cron) => match cron::Schedule::open(&source.name, cron) {
            Ok(schedule) => source::feed(work, source, schedule).await,
            Err(refused) => refused,
        },
        SourceKind::Nats(nats) => {
            match nats::open_source(&work.grants(), work.whose(&source.name), nats).await {
                Ok(nats::Opened::Stream(stream)) => source::feed(work, source, *stream).await,
                Ok(nats::Opened::Subject(subject)) => source::feed(work, source, *subject).await,
                Err(refused) => refused,
            }
        }
        _ => Refused::unknown(),
    }
}

/// Hands on to a sink; comes back only if it may not be opened.
async fn begin_sink(work: &Work, sink: &Sink) -> Refused {
    match &sink.kind {
        SinkKind::Webhook(hook) => match webhook::Webhook::open(&work.grants(), hook).await {
            Ok(hook) => sink::hand_on(work, sink, hook).await,
            Err(refused) => refused,
        },
        SinkKind::Nats(nats) => {
            match nats::open_sink(&work.grants(), work.whose(&sink.name), nats).await {
                Ok(publisher) => sink::hand_on(work, sink, publisher).await,
                Err(refused) => refused,
            }
        }
        _ => Refused::unknown(),
    }
}

/// Refuses what may not be reached, by stages too, or cannot be read as written.
///
/// # Errors
/// Everything that is wrong, by field.
pub(crate) fn check(node: &Node, tenant: &Name, pipeline: &Pipeline) -> Result<(), Error> {
    let grants = Grants::of(node, tenant);
    let mut problems = Problems::new();
    let mut note = |path: String, refused: Option<Refused>| {
        if let Some(Refused { field, code, message, fix }) = refused {
            problems.add(Problem::new(member(&path, field), code, message, fix));
        }
    };
    for source in &pipeline.sources {
        let path = member(&member("sources", &source.name), source.kind.word());
        let refused = match &source.kind {
            SourceKind::File(lines) => files::check(&grants, lines, true).err(),
            SourceKind::Folder(lines) => files::check(&grants, lines, false).err(),
            SourceKind::Cron(cron) => cron::Schedule::open(&source.name, cron).err(),
            SourceKind::Nats(nats) => nats::check_source(&grants, nats).err(),
            _ => Some(Refused::unknown()),
        };
        note(path, refused);
    }
    for sink in &pipeline.sinks {
        let path = member(&member("sinks", &sink.name), sink.kind.word());
        let refused = match &sink.kind {
            SinkKind::Webhook(hook) => webhook::check(&grants, hook).err(),
            SinkKind::Nats(nats) => nats::check_sink(&grants, nats).err(),
            _ => Some(Refused::unknown()),
        };
        note(path, refused);
    }
    for stage in &pipeline.stages {
        let Some(grant) = &stage.grants.http else { continue };
        let path = format!("stages.{}.grants.http", stage.name);
        for (at, origin) in grant.allow.iter().enumerate() {
            let refused = grants.origin(origin).err();
            if let Some(Refused { field, code, message, fix }) = refused {
                let field = format!("{}[{at}]", member(&path, field));
                problems.add(Problem::new(field, code, message, fix));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.into()) }
}
