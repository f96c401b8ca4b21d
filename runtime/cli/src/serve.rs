//! `serve`: read the configuration, build the node, run until told, drain.
//!
//! - Nothing is bound before the whole configuration is right.
//! - The first SIGTERM or SIGINT drains, within `node.drain-time-max`; the second ends at once.
//! - One line on standard output says the node is ready and where.

use std::convert::Infallible;
use std::time::Duration;

use serde_json::json;
use sluicebox_node::config::Config;
use sluicebox_node::config::quantity::duration_text;
use sluicebox_node::{Node, RunningNode};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{Globals, ServeArgs};
use crate::config::sources;
use crate::failure::{Cause, Failure};
use crate::logging::{self, Logging};
use crate::screen::Screen;

/// What is logged unless the variable says otherwise.
pub(crate) const LOG_USUAL: &str = "info,wasmtime=warn,cranelift=warn,hyper=warn";

/// How often lost log lines are looked for.
const LOG_LOOK: Duration = Duration::from_secs(10);

/// How a command that runs a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It did what it was to do; a node drained, or ran out of time for it.
    Done,
    /// Somebody would not wait.
    AtOnce,
}

/// `serve`
pub(crate) async fn run(
    screen: Screen,
    globals: &Globals,
    args: ServeArgs,
) -> Result<Ended, Failure> {
    let config = Config::load(&sources(&args.configuration, &args.overrides)?)?.config;
    if !config.node.dev && !config.node.tenants_file.exists() {
        let file = config.node.tenants_file.display();
        return Err(Failure::new(Cause::Config, format!("there is no tenants file {file}"))
            .code("tenants.missing")
            .fix("add a tenant with `sluicebox tenant add NAME`, or try things with --dev"));
    }
    let logging = logging::start(globals, LOG_USUAL)?;
    let mut signals = Signals::listen(config.tls.certificate.is_some())?;
    let drain_time_max = config.node.drain_time_max;
    let dev = config.node.dev;
    let node = start(config).await?;
    let url = node.url();
    let mode = if dev { ", development mode: no tokens, this machine only" } else { "" };
    screen.result(
        &json!({ "ready": true, "url": url, "dev": dev }),
        &format!("sluicebox {} ready on {url}{mode}", env!("CARGO_PKG_VERSION")),
    )?;
    screen.hint("try `sluicebox demo`, or `sluicebox apply pipeline.toml --push DIR`");
    let name = tokio::select! {
        // The signal first; the other never ends.
        biased;
        name = until_told(&mut signals, &node) => name,
        never = watch_log(&logging) => match never {},
    };
    let most = duration_text(drain_time_max);
    tracing::info!(signal = name, "draining for at most {most}; signal again to stop at once");
    tokio::select! {
        // Who signals twice wants an end, drained or not.
        biased;
        _ = signals.end() => Ok(Ended::AtOnce),
        _drained = node.drain(drain_time_max) => Ok(Ended::Done),
    }
}

/// Reads certificate and key again as often as it is told to; ends when the node is to end.
async fn until_told(signals: &mut Signals, node: &RunningNode) -> &'static str {
    loop {
        match signals.next().await {
            HANGUP => match node.reload_tls() {
                Ok(()) => tracing::info!("certificate and key are read again"),
                Err(error) => tracing::error!("the old certificate goes on: {error}"),
            },
            name => return name,
        }
    }
}

/// Says so when log lines were lost. Never ends.
async fn watch_log(logging: &Logging) -> Infallible {
    let mut told = 0;
    loop {
        tokio::time::sleep(LOG_LOOK).await;
        let lost = logging.lost();
        if lost > told {
            tracing::warn!("{} log lines were lost: standard error was not read", lost - told);
            told = lost;
        }
    }
}

/// Starts a node. That blocks until it listens, so it is done beside the loop of this thread.
pub(crate) async fn start(config: Config) -> Result<RunningNode, Failure> {
    match tokio::task::spawn_blocking(|| Node::start(config)).await {
        Ok(started) => started.map_err(|error| Failure::node(&error)),
        Err(error) => {
            Err(Failure::new(Cause::Internal, format!("the node did not start: {error}")))
        }
    }
}

/// The signal that has files read again.
const HANGUP: &str = "SIGHUP";

/// The signals a node listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Only where there is something to read again: else a node ends with its terminal.
    hangup: Option<Signal>,
}

impl Signals {
    fn listen(reloads: bool) -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::local("wait for signals", &error));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: reloads.then(|| listen(SignalKind::hangup())).transpose()?,
        })
    }

    async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What ends the node first.
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hangup => HANGUP,
        }
    }

    /// The next signal that ends a node.
    async fn end(&mut self) -> &'static str {
        loop {
            match self.next().await {
                HANGUP => {}
                name => return name,
            }
        }
    }
}
