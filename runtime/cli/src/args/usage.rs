//! Arguments of `usage`.

use clap::Args;

use super::Connection;

pub(super) const EXAMPLES: &str = "\
Examples:
  sluicebox usage
  sluicebox usage --by stage --from 2026-12-01 --to 2027-01-01
  sluicebox usage --by pipeline,day --csv > bill.csv";

/// Arguments of `usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// Which rows there are
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = [
        "pipeline", "stage", "hour", "day", "month",
    ])]
    pub(crate) by: Vec<String>,
    /// From this day on, or this hour, as in 2026-12-01T10:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Up to this day or hour, which is not in it any more
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// Write the rows as comma-separated values
    #[arg(long)]
    pub(crate) csv: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}
