//! Log lines: to standard error, chosen by `SLUICEBOX_LOG`, as text or JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::{Format, Globals};
use crate::failure::{Cause, Failure};

/// The variable that says which lines are written.
const VARIABLE: &str = "SLUICEBOX_LOG";

/// Starts logging; `usual` holds if the variable says nothing.
pub(crate) fn start(globals: &Globals, usual: &str) -> Result<(), Failure> {
    let said = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let filter = said.as_deref().unwrap_or(usual).parse::<EnvFilter>().map_err(|error| {
        Failure::new(Cause::Usage, format!("{VARIABLE}: {error}"))
            .fix("write a level, such as info, or targets with levels: sluicebox_node=debug,warn")
    })?;
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = !no_colour && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour);
    let started = match globals.log_format {
        Some(Format::Json) => lines.json().finish().try_init(),
        Some(Format::Text) | None => lines.finish().try_init(),
    };
    started.map_err(|error| Failure::new(Cause::Internal, format!("logging: {error}")))
}
