//! Arguments of the commands that watch.

use std::time::Duration;

use clap::{Args, ValueEnum};
use sluicebox_core::ids::Name;

use super::traffic::{cursor, duration};
use super::{Connection, name};

pub(crate) const TOP_EXAMPLES: &str = "\
Examples:
  sluicebox top
  sluicebox top word-count --interval 5s
  sluicebox top word-count --count 1 --output json

Rates and times are of what happened between two readings; times are upper bounds of the buckets
they are counted in. gpu-% is a stage's part of the device's time.";

pub(crate) const LOGS_EXAMPLES: &str = "\
Examples:
  sluicebox logs word-count
  sluicebox logs orders -f --stage price --level warn

Lines of the stages' own logs and of their standard output and error, and why calls of them ended
in a trap: JSON lines {time, stage, partition, level, text}, or a readable form on a terminal. A
node keeps the last of them in memory, for each pipeline a quarter of a megabyte.";

/// Arguments of `top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Only this pipeline, by its stages
    #[arg(value_parser = name)]
    pub(crate) pipeline: Option<Name>,
    /// Time between two readings
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// Stop after N views
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The pipeline's name
    #[arg(value_parser = name)]
    pub(crate) pipeline: Name,
    /// Only what this stage said
    #[arg(long, value_parser = name)]
    pub(crate) stage: Option<Name>,
    /// Nothing less grave
    #[arg(long, value_enum, default_value = "debug", value_name = "debug|info|warn|error")]
    #[arg(hide_possible_values = true)]
    pub(crate) level: Level,
    /// Go on with what comes
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Where to begin: oldest, latest (what comes from now on) or a cursor
    #[arg(long, value_name = "CURSOR", default_value = "oldest", value_parser = cursor)]
    pub(crate) from: String,
    /// Stop after N lines
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// How grave a line of a stage's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// As the node has it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}
