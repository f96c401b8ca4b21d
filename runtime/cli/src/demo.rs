//! `demo`: a node in this process, the example pipelines, and this machine's own data.
//!
//! - Uses what everybody can use: the HTTP API, through the same code as `push`, `apply`, `send`
//!   and `tail`. Only starting the node is a shortcut.
//! - Leaves nothing behind: the node's directory is temporary, its port was free, and an
//!   interruption drains it too.
//! - Shows nothing it did not measure; a result that should be known otherwise is checked and the
//!   check is said.

mod host;
mod words;

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};
use sluicebox_core::ids::Name;
use sluicebox_node::config::{Config, Sources};

use crate::args::node::DemoPart;
use crate::args::{Connection, DemoArgs};
use crate::client::Client;
use crate::deploy::{Manifest, apply_manifest, push_file};
use crate::failure::{Cause, Failure};
use crate::screen::Screen;
use crate::serve::{Ended, start};

/// How long the node may take to stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// Where things are and how they are shown.
struct Stage<'a> {
    screen: Screen,
    client: Client,
    args: &'a DemoArgs,
}

/// `demo`
pub(crate) async fn run(screen: Screen, args: DemoArgs) -> Result<Ended, Failure> {
    // Before a node is started, what is likely to be missing.
    let manifests = manifests(&args)?;
    let place = tempfile::Builder::new()
        .prefix("sluicebox-demo-")
        .tempdir()
        .map_err(|error| Failure::local("make a temporary directory", &error))?;
    let node = start(configuration(place.path())?).await?;
    let connection = Connection {
        url: node.url(),
        ca_cert: None,
        tenant: Name::new("dev").expect("dev keeps the rule for names"),
        token: None,
        token_file: None,
    };
    let stage = Stage { screen, client: Client::new(&connection)?, args: &args };
    stage.say(&format!("A node is running in this process, on {}.", node.url()))?;
    let outcome = tokio::select! {
        // An interruption matters more than a result that came at the same moment.
        biased;
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map(|()| None).map_err(|error| Failure::local("wait for signals", &error))
        }
        results = stage.play(manifests) => results.map(Some),
    };
    node.drain(DRAIN_TIME_MAX).await;
    place.close().map_err(|error| Failure::local("remove the temporary directory", &error))?;
    let Some(results) = outcome? else { return Ok(Ended::AtOnce) };
    if screen.json() {
        screen.document(&results)?;
    } else {
        screen.line(&next(&args))?;
    }
    Ok(Ended::Done)
}

impl Stage<'_> {
    /// Both parts, one after the other.
    async fn play(&self, manifests: Vec<(DemoPart, Manifest)>) -> Result<Value, Failure> {
        let mut results = Map::new();
        for (part, manifest) in manifests {
            self.deploy(&manifest).await?;
            let result = match part {
                DemoPart::WordCount => words::play(self, &manifest.name).await?,
                DemoPart::HostMetrics => host::play(self, &manifest.name).await?,
            };
            results.insert(manifest.name.to_string(), result);
        }
        Ok(Value::Object(results))
    }

    /// Pushes what the manifest names, then applies it.
    async fn deploy(&self, manifest: &Manifest) -> Result<(), Failure> {
        let mut pushed = Vec::new();
        for component in manifest.components() {
            let file = manifest.component_file(&self.args.components, &component);
            push_file(&self.client, &component, &file).await?;
            pushed.push(component.to_string());
        }
        apply_manifest(&self.client, manifest).await?;
        let names = pushed.join(", ");
        self.say(&format!(
            "\n{}: pushed {names}, applied {}",
            self.screen.strong(manifest.name.as_str()),
            part_file(&self.args.examples, manifest.name.as_str()).display(),
        ))
    }

    /// A line for people; programs get one document at the end.
    fn say(&self, text: &str) -> Result<(), Failure> {
        if self.screen.json() { Ok(()) } else { self.screen.line(text) }
    }
}

/// The configuration of the demo's node: nothing but defaults, whatever the environment says.
fn configuration(place: &Path) -> Result<Config, Failure> {
    let mut sources = Sources::default();
    sources.flag("demo", "node.data-dir", place.display());
    sources.flag("demo", "node.dev", true);
    sources.flag("demo", "http.listen", "127.0.0.1:0");
    Ok(Config::load(&sources)?.config)
}

/// The manifests of the parts that were asked for; fails if anything the demo needs is missing.
fn manifests(args: &DemoArgs) -> Result<Vec<(DemoPart, Manifest)>, Failure> {
    let mut manifests = Vec::new();
    for (part, name) in
        [(DemoPart::WordCount, "word-count"), (DemoPart::HostMetrics, "host-metrics")]
    {
        if args.only.is_some_and(|only| only != part) {
            continue;
        }
        let file = part_file(&args.examples, name);
        let manifest = Manifest::read(&file).map_err(|failure| match failure.cause {
            Cause::Local => failure.fix("run this in a clone of the project, or give --examples"),
            _ => failure,
        })?;
        for component in manifest.components() {
            let file = manifest.component_file(&args.components, &component);
            if !file.is_file() {
                let what = format!("the example component {} is not built", file.display());
                return Err(Failure::new(Cause::Local, what).fix(
                    "in a clone of the project `cargo xtask demo` builds it and runs the demo; \
                     otherwise give --components",
                ));
            }
        }
        manifests.push((part, manifest));
    }
    Ok(manifests)
}

fn part_file(examples: &Path, name: &str) -> std::path::PathBuf {
    examples.join(name).join("pipeline.toml")
}

/// What to try after the demo.
fn next(args: &DemoArgs) -> String {
    let (examples, components) = (args.examples.display(), args.components.display());
    format!(
        "
The node has stopped and its directory is gone. To do the same by hand, start a node that stays:

  sluicebox serve --dev

and in another terminal:

  sluicebox apply {examples}/word-count/pipeline.toml --push {components}
  sluicebox send word-count --lines --file LICENSE
  sluicebox tail word-count counts --no-follow

(Kill that node with kill -9 and start it again: the counts are there, and go on.)

  sluicebox apply {examples}/host-metrics/pipeline.toml --push {components}
  sluicebox sample host | sluicebox send host-metrics &
  sluicebox tail host-metrics anomalies

`sluicebox --help` lists all commands; each explains itself with --help."
    )
}
