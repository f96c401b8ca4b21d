//! Log lines: to standard error, chosen by `SLUICEBOX_LOG`, as text or JSON.
//!
//! Lines are written by a thread of their own behind a bounded queue: whoever reads standard error
//! slowly, or not at all, must not hold up a worker. What finds the queue full is lost and counted.

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::{Format, Globals};
use crate::failure::{Cause, Failure};

/// The variable that says which lines are written.
const VARIABLE: &str = "SLUICEBOX_LOG";

/// Lines that wait to be written. A guest's is 4 KiB at most, so they are 32 MiB at most.
const LINES_WAITING_MAX: usize = 8_192;

/// Logging, for as long as this lives; its end waits for what is to be written, but not for ever.
#[must_use]
pub(crate) struct Logging {
    _writer: WorkerGuard,
    lost: ErrorCounter,
}

impl Logging {
    /// Lines lost so far.
    pub(crate) fn lost(&self) -> usize {
        self.lost.dropped_lines()
    }
}

/// Starts logging; `usual` holds if the variable says nothing.
pub(crate) fn start(globals: &Globals, usual: &str) -> Result<Logging, Failure> {
    let said = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let filter = said.as_deref().unwrap_or(usual).parse::<EnvFilter>().map_err(|error| {
        Failure::new(Cause::Usage, format!("{VARIABLE}: {error}"))
            .fix("write a level, such as info, or targets with levels: sluicebox_node=debug,warn")
    })?;
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = !no_colour && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_WAITING_MAX)
        .thread_name("log-lines")
        .finish(std::io::stderr());
    let logging = Logging { lost: writer.error_counter(), _writer: guard };
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colour);
    let started = match globals.log_format {
        Some(Format::Json) => lines.json().finish().try_init(),
        Some(Format::Text) | None => lines.finish().try_init(),
    };
    started.map_err(|error| Failure::new(Cause::Internal, format!("logging: {error}")))?;
    Ok(logging)
}
