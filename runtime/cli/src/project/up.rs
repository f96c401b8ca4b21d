//! `up` and `dev`: everything in a folder is built, applied and followed; with `dev` again whenever
//! a source changes.
//!
//! - A stage that does not build, and a pipeline that is refused, leave what runs as it is. With
//!   `dev` the reason is shown and the next change is waited for. What changed while the folder
//!   could not be read is remembered until it can be.
//! - Taking the new component is the node's: it drains, switches and goes on, so that events that
//!   flow meanwhile count once.
//! - Building never holds up what is shown.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use sluicebox_core::ids::Name;
use sluicebox_node::RunningNode;
use sluicebox_toolchain::Project;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::shown::{Followers, Record, Shown};
use super::watch::Watch;
use super::{
    Found, MANIFEST, build_one, built_text, components_of, local, pipelines_below, stages_below,
};
use crate::args::project::{Installing, UpArgs, UpOnceArgs};
use crate::client::Client;
use crate::deploy::{applied_text, apply_manifest, push_file};
use crate::failure::{Cause, Failure};
use crate::oci::Registries;
use crate::screen::Screen;
use crate::serve::Ended;

/// What is logged unless the variable says otherwise: all that stages say.
pub(crate) const LOG_USUAL: &str = "warn,guest=debug";

/// `up`
pub(crate) async fn up(screen: Screen, args: UpOnceArgs) -> Result<Ended, Failure> {
    run(screen, args.up, if args.once { Mode::Once } else { Mode::Up }).await
}

/// `dev`
pub(crate) async fn dev(screen: Screen, args: UpArgs) -> Result<Ended, Failure> {
    run(screen, args, Mode::Dev).await
}

/// How long it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Once,
    Up,
    Dev,
}

async fn run(screen: Screen, args: UpArgs, mode: Mode) -> Result<Ended, Failure> {
    let folder = std::fs::canonicalize(&args.dir)
        .map_err(|error| Failure::local(format!("find {}", args.dir.display()), &error))?;
    let mut client = Client::new(&args.connection)?;
    let node = node_for(&client, &folder, &args, mode).await?;
    if let Some(node) = &node {
        // Port 0 of the URL stands for a free one.
        client = Client::new(&local::connection(node.url(), &args.connection))?;
    }
    let (followers, records) = Followers::new(client.clone());
    let registries = Registries::new(screen, args.registry);
    let mut session = Session {
        screen,
        shown: Shown::new(screen),
        client,
        registries,
        folder,
        installing: args.installing,
        followers,
        pending: Changes::All,
        owed: Vec::new(),
    };
    let shown = session.shown;
    let outcome = tokio::select! {
        // Who wants an end gets one.
        biased;
        told = until_told() => told.map(|()| Ended::Done),
        ended = session.play(mode, node.is_some()) => ended,
        failed = write(shown, records) => failed.map(|()| Ended::Done),
    };
    if let Some(node) = node {
        local::end(node).await;
    }
    outcome
}

/// A node in this process, if none answers and one may be started.
async fn node_for(
    client: &Client,
    folder: &Path,
    args: &UpArgs,
    mode: Mode,
) -> Result<Option<RunningNode>, Failure> {
    if local::answers(client).await? {
        return Ok(None);
    }
    if mode == Mode::Once {
        let what = format!("no node answers at {}", client.url());
        return Err(Failure::new(Cause::Unavailable, what)
            .code("client.connect")
            .fix("start one with `sluicebox serve --dev`; one in this process would end with it"));
    }
    let listen = local::listen_at(&args.connection.url)?;
    let data_dir = args.data_dir.clone().unwrap_or_else(|| folder.join(".sluicebox/data"));
    local::node(&data_dir, listen).await.map(Some)
}

/// Ends with a signal.
async fn until_told() -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::local("wait for signals", &error));
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        // Either is an end.
        biased;
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Writes records as they come. Ends only if they cannot be written.
async fn write(shown: Shown, mut records: mpsc::Receiver<Record>) -> Result<(), Failure> {
    while let Some(record) = records.recv().await {
        shown.record(&record)?;
    }
    std::future::pending().await
}

/// What is run, where, and who is told.
struct Session {
    screen: Screen,
    shown: Shown,
    client: Client,
    registries: Registries,
    folder: PathBuf,
    installing: Installing,
    followers: Followers,
    /// What was not looked at yet, because the folder could not be read since.
    pending: Changes,
    /// Components that were built and could not be applied: the next change tries again.
    owed: Vec<String>,
}

/// What is to be looked at.
enum Changes {
    /// Everything, as at first.
    All,
    /// What these files concern; the watch bounds how many there are.
    Files(BTreeSet<PathBuf>),
}

impl Changes {
    fn add(&mut self, changed: Vec<PathBuf>) {
        if let Self::Files(files) = self {
            files.extend(changed);
        }
    }

    /// What there is; nothing is left.
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Files(BTreeSet::new()))
    }

    fn has(&self, is_meant: impl Fn(&Path) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::Files(files) => files.iter().any(|file| is_meant(file)),
        }
    }
}

/// The pipelines of a folder; none is a mistake, at first.
fn pipelines_in(folder: &Path, is_first: bool) -> Result<Vec<Found>, Failure> {
    let pipelines = pipelines_below(folder)?;
    if is_first && pipelines.is_empty() {
        let what = format!("there is no {MANIFEST} in {}", folder.display());
        return Err(Failure::new(Cause::NotFound, what)
            .fix("`sluicebox new` makes a stage with a pipeline of its own"));
    }
    Ok(pipelines)
}

impl Session {
    /// Brings everything up; then goes on as long as the mode says.
    async fn play(&mut self, mode: Mode, is_own: bool) -> Result<Ended, Failure> {
        // From before the first build, so that no change is missed.
        let mut watch = Watch::new(&self.folder)?;
        let mut failures = self.bring_up(true).await?;
        if mode != Mode::Dev && !failures.is_empty() {
            return Err(failures.swap_remove(0));
        }
        self.tell(&failures)?;
        if mode == Mode::Once {
            return Ok(Ended::Done);
        }
        let url = self.client.url().to_owned();
        let (whose, end) = match is_own {
            true => (" (in this process)", "Ctrl-C ends it"),
            false => ("; what stages log is in its log", "Ctrl-C ends this, not the node"),
        };
        let watched = if mode == Mode::Dev { ", watching for changes" } else { "" };
        self.shown.event(
            "ready",
            json!({ "url": url, "own": is_own }),
            &format!("ready on {url}{whose}{watched}; {end}"),
        )?;
        if mode == Mode::Up {
            return std::future::pending().await;
        }
        loop {
            self.pending.add(watch.change().await?);
            let failures = self.bring_up(false).await?;
            self.tell(&failures)?;
        }
    }

    fn tell(&self, failures: &[Failure]) -> Result<(), Failure> {
        failures.iter().try_for_each(|failure| self.shown.failed(failure))
    }

    /// Builds and applies what is concerned by what is pending. Gives what did not succeed; fails
    /// only if nothing more can be shown.
    async fn bring_up(&mut self, is_first: bool) -> Result<Vec<Failure>, Failure> {
        let begun = Instant::now();
        let found = stages_below(&self.folder)
            .and_then(|stages| Ok((stages, pipelines_in(&self.folder, is_first)?)));
        let (stages, pipelines) = match found {
            Ok(found) => found,
            Err(failure) => return Ok(vec![failure]),
        };
        let changes = self.pending.take();
        let mut failures = Vec::new();
        let (mut built, mut renewed) = (Vec::new(), std::mem::take(&mut self.owed));
        for stage in stages {
            let has_sources = changes.has(|file| stage.is_source(file));
            // Its own tools are asked after any change: what it is made of may lie elsewhere.
            if !has_sources && !stage.language.knows_changes() {
                built.push(stage);
                continue;
            }
            match self.build(stage).await? {
                Ok((stage, is_new)) => {
                    // Another process may have built it before; what is equal is pushed in vain.
                    renewed.extend((is_new || has_sources).then(|| stage.name.clone()));
                    built.push(stage);
                }
                Err(failure) => failures.push(failure),
            }
        }
        let is_reload = matches!(changes, Changes::Files(_));
        for found in &pipelines {
            let file = found.folder.join(MANIFEST);
            let components = found.manifest.components();
            let has_new =
                components.iter().any(|name| renewed.iter().any(|new| new == name.as_str()));
            if !has_new && !changes.has(|changed| changed == file) {
                continue;
            }
            match self.apply(found, &built).await {
                Ok(applied) => self.told_of(found, &applied, begun, is_reload)?,
                Err(failure) => {
                    self.owed.extend(components.iter().map(Name::to_string));
                    failures.push(failure);
                }
            }
        }
        Ok(failures)
    }

    /// Builds a stage; says whether its component is another one now.
    async fn build(&self, stage: Project) -> Result<Result<(Project, bool), Failure>, Failure> {
        let (stage, built) = match build_one(self.screen, stage, self.installing).await {
            Ok(built) => built,
            Err(failure) => return Ok(Err(failure)),
        };
        let value = json!({ "name": stage.name, "bytes": built.bytes, "changed": built.changed,
                            "seconds": built.time.as_secs_f64() });
        self.shown.event("built", value, &built_text(&stage, &built))?;
        Ok(Ok((stage, built.changed)))
    }

    /// Uploads what a pipeline uses of these stages, and applies it.
    async fn apply(&self, found: &Found, stages: &[Project]) -> Result<Value, Failure> {
        for (name, file) in components_of(&found.manifest, stages) {
            push_file(&self.client, &name, file).await?;
        }
        let brought = self.registries.bring(&self.client, &found.manifest, false).await?;
        apply_manifest(&self.client, &brought.manifest).await
    }

    /// Says what was applied, and follows what comes of it.
    fn told_of(
        &mut self,
        found: &Found,
        applied: &Value,
        begun: Instant,
        is_reload: bool,
    ) -> Result<(), Failure> {
        let name = &found.manifest.name;
        for output in found.manifest.outputs() {
            self.followers.follow(name, Some(&output));
        }
        self.followers.follow(name, None);
        let seconds = begun.elapsed().as_secs_f64();
        let events = format!("{}{}", self.client.url(), self.client.pipeline(name, "/events"));
        let version = applied.get("version").cloned().unwrap_or(Value::Null);
        let value = json!({ "pipeline": name.as_str(), "version": version, "seconds": seconds,
                            "changed": applied.get("changed"), "events": events });
        if is_reload {
            let text =
                format!("reloaded {name}: version {version}, {seconds:.1} s after the change");
            return self.shown.event("reloaded", value, &self.screen.strong(&format!("== {text}")));
        }
        // What is in it is in its file; here it is enough that it is there.
        let applied = applied_text(name, applied, false);
        let text = format!("{}\n  events to {events}", applied.lines().next().unwrap_or_default());
        self.shown.event("applied", value, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_kept_until_they_are_taken() {
        let (one, other) = (Path::new("one"), Path::new("other"));
        let mut pending = Changes::All;
        pending.add(vec![one.to_path_buf()]);
        let taken = pending.take();
        assert!(taken.has(|_| false), "everything stays everything");
        assert!(!pending.has(|_| true), "nothing is left");
        pending.add(vec![one.to_path_buf()]);
        pending.add(vec![other.to_path_buf()]);
        let taken = pending.take();
        assert!(taken.has(|file| file == one) && taken.has(|file| file == other));
        assert!(!pending.has(|_| true), "nothing is left");
    }
}
