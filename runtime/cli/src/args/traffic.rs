//! Arguments of the commands that move events.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use sluicebox_core::ids::Name;
use sluicebox_core::limits::{EVENT_BYTES_HARD, KEY_BYTES_MAX};
use sluicebox_node::config::quantity::{parse_duration, parse_size};

use super::{Connection, name};

pub(crate) const SEND_EXAMPLES: &str = "\
Examples:
  sluicebox send word-count --lines --file LICENSE        each line of text is an event
  journalctl -f -o json | sluicebox send logs             each JSON line is an event
  sluicebox send orders --data '{\"id\":7}' --key c42 --wait 5s
  sluicebox send clicks --file day.ndjson --rate 1000/s

Lines are JSON unless --lines is given; a line that is not JSON is refused by number and the
others go in. When the node is busy the same lines are sent again, for as long as --patience
says. The reply counts what was accepted; best-effort pipelines acknowledge what is queued.";

pub(crate) const STREAM_EXAMPLES: &str = "\
Examples:
  sluicebox stream sessions user-7 clicks.ndjson          each line is an event of the stream
  sluicebox stream motion door clip.mjpeg --every 40ms    each image is one, as a camera sends them
  ffmpeg -v error -i clip.mp4 -f mjpeg - | sluicebox stream motion door --jpeg
  arecord -f S16_LE | sluicebox stream levels mic --chunk 16KiB --raw

Results come while the input goes in: as JSON lines, with --raw their data alone, on a terminal in a
readable form. A connection that breaks is made again, and goes on where the node has come to: with
an exactly-once pipeline each unit counts once and each result comes once. The stream ends with the
input. Ctrl-C, a mistake in the input and --no-end leave it open; it says how to go on.";

pub(crate) const TAIL_EXAMPLES: &str = "\
Examples:
  sluicebox tail word-count counts
  sluicebox tail word-count counts --from oldest --no-follow > counts.ndjson
  sluicebox tail host-metrics anomalies --limit 1 --timeout 1m

Records are JSON lines {id, source, time, key, port, data | data_base64, partition, offset}, or a
readable form on a terminal. If records were dropped before they could be read, a warning says so
and reading goes on with the oldest that are kept.";

pub(crate) const REPLAY_EXAMPLES: &str = "\
Examples:
  sluicebox dead-letters replay orders
  sluicebox dead-letters replay orders --stage price --limit 10

Each event goes into the stage it failed in, as that stage was given it; what it comes to goes on \
from there. One that fails again is a new dead letter. With exactly-once a dead letter is replayed \
once, so the command may be given again whatever became of it; with best-effort it is replayed each \
time.";

pub(crate) const SAMPLE_EXAMPLES: &str = "\
Examples:
  sluicebox sample host
  sluicebox sample host --interval 250ms | sluicebox send host-metrics";

/// Arguments of `send`.
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// The pipeline's name
    #[arg(value_parser = name)]
    pub(crate) pipeline: Name,
    /// Read lines from FILE [default: standard input]
    #[arg(long, short, value_name = "FILE", conflicts_with = "data")]
    pub(crate) file: Option<PathBuf>,
    /// Send one event with this payload
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) data: Option<String>,
    /// Each line is the payload of an event as it is, text or not
    #[arg(long, conflicts_with = "data")]
    pub(crate) lines: bool,
    /// Key of the events
    #[arg(long, short, value_parser = key)]
    pub(crate) key: Option<String>,
    /// Id of the event, kept with it through the pipeline
    #[arg(long, requires = "data")]
    pub(crate) id: Option<String>,
    /// End the key's stream with this event
    #[arg(long, requires = "data")]
    pub(crate) end: bool,
    /// Wait this long for the event's result and write it
    #[arg(long, value_name = "DURATION", requires = "data", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// At most this many events a second, such as 500/s
    #[arg(long, value_name = "N/s", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Most events in one request
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batch: u32,
    /// How long to try again when the node is busy
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) patience: Duration,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Arguments of `stream`.
#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    /// The pipeline's name
    #[arg(value_parser = name)]
    pub(crate) pipeline: Name,
    /// Key of the stream
    #[arg(value_parser = some_key)]
    pub(crate) key: String,
    /// The input [default, and -: standard input]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cutting: Cutting,
    /// Media type of each unit that is no line [default: image/jpeg, application/octet-stream]
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// The output whose results come back [default: reply, or the only one]
    // `--output` is the form of results.
    #[arg(long, value_name = "OUTPUT", value_parser = name)]
    pub(crate) results: Option<Name>,
    /// Write the data of results alone, each with a line end
    #[arg(long)]
    pub(crate) raw: bool,
    /// Send a unit this often, such as 33ms
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "rate")]
    pub(crate) every: Option<Duration>,
    /// At most this many units a second, such as 30/s
    #[arg(long, value_name = "N/s", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Which unit of its key the first of the input is; what the node has of it is left out
    /// [default: the next one]
    #[arg(long, value_name = "N")]
    pub(crate) from: Option<u64>,
    /// Write results from here on, also those that came before [default: what comes from now on]
    #[arg(long, value_name = "CURSOR", value_parser = cursor)]
    pub(crate) cursor: Option<String>,
    /// Leave the stream open at the end of the input
    #[arg(long)]
    pub(crate) no_end: bool,
    /// How long to try again when nothing is gained
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) patience: Duration,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// How an input is cut into units, each of which is an event.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
#[command(next_help_heading = "Units of the input [default: by the file's name, else lines]")]
pub(crate) struct Cutting {
    /// Lines of JSON (.ndjson, .jsonl, .json)
    #[arg(long)]
    pub(crate) lines: bool,
    /// JPEG images, one behind the other; what lies between is left out (.mjpeg, .mjpg, .jpg)
    #[arg(long)]
    pub(crate) jpeg: bool,
    /// Chunks of so many bytes, such as 4KiB; the last may be shorter
    #[arg(long, value_name = "BYTES", value_parser = chunk)]
    pub(crate) chunk: Option<usize>,
    /// Chunks, each behind its length in 4 bytes, the lowest first
    #[arg(long)]
    pub(crate) prefixed: bool,
    /// Packed frames, as wit/FRAME.md describes them, with events without a key
    #[arg(long)]
    pub(crate) frames: bool,
}

/// Arguments of `tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// The pipeline's name
    #[arg(value_parser = name)]
    pub(crate) pipeline: Name,
    /// The output's name
    // Another field name would be the same to clap as the flag `--output`.
    #[arg(value_parser = name, value_name = "OUTPUT")]
    pub(crate) output_name: Name,
    #[command(flatten)]
    pub(crate) reading: Reading,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Arguments of `dead-letters`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    pub(crate) command: Option<DeadLettersCommand>,
    /// The pipeline's name
    #[arg(value_parser = name, required = true)]
    pub(crate) pipeline: Option<Name>,
    #[command(flatten)]
    pub(crate) reading: Reading,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// What can be done with dead letters besides reading them.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// Give dead letters to the stage they failed in again
    #[command(after_long_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
}

/// Arguments of `dead-letters replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The pipeline's name
    #[arg(value_parser = name)]
    pub(crate) pipeline: Name,
    /// Only those of this stage
    #[arg(long, value_parser = name)]
    pub(crate) stage: Option<Name>,
    /// Where to begin: oldest or a cursor
    #[arg(long, value_name = "CURSOR", default_value = "oldest", value_parser = cursor)]
    pub(crate) from: String,
    /// Stop after N events
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Where to begin and when to stop.
#[derive(Debug, Clone, Args)]
pub(crate) struct Reading {
    /// Where to begin: oldest, latest (what comes from now on) or a cursor
    #[arg(long, value_name = "CURSOR", default_value = "oldest", value_parser = cursor)]
    pub(crate) from: String,
    /// Stop after N records
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Stop when there is nothing more at the moment
    #[arg(long)]
    pub(crate) no_follow: bool,
    /// Stop after this time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

/// What can be sampled.
#[derive(Debug, Subcommand)]
pub(crate) enum SampleCommand {
    /// Processor, memory, disks and network from /proc, as lines {series, value, time}
    Host(SampleArgs),
}

/// Arguments of `sample host`.
#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// Time between two readings
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// Stop after N readings of every series
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) count: Option<u64>,
}

/// Reads `30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "write a duration with a unit, such as 500ms, 30s, 5m or 1h".to_owned())
}

/// Reads `500/s`, `500`, `0.5/s` or `60/m`.
fn rate(text: &str) -> Result<f64, String> {
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let factor = match unit {
        "s" => 1.0,
        "m" => 60.0,
        _ => f64::NAN,
    };
    let rate = number.trim().parse::<f64>().unwrap_or(f64::NAN) / factor;
    let message = "write events a second, such as 500/s, or a minute, such as 30/m";
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err(message.to_owned()) }
}

/// Reads a key.
fn key(text: &str) -> Result<String, String> {
    if text.len() <= KEY_BYTES_MAX {
        return Ok(text.to_owned());
    }
    Err(format!("a key has at most {KEY_BYTES_MAX} bytes, this one has {}", text.len()))
}

/// Reads a key that is not empty.
fn some_key(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a stream has a key".to_owned()) } else { key(text) }
}

/// Reads the size of chunks: `4096` or `4KiB`.
fn chunk(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().or_else(|| parse_size(text));
    bytes
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| (1..=EVENT_BYTES_HARD).contains(bytes))
        .ok_or_else(|| format!("write from 1 to {EVENT_BYTES_HARD} bytes, such as 4096 or 4KiB"))
}

/// Reads a cursor: opaque, but of characters that need no quoting in a URL.
pub(super) fn cursor(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !text.is_empty() && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err("write oldest, latest or a cursor as an earlier reply gave it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_positive_numbers() {
        assert_eq!(rate("500/s"), Ok(500.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        assert_eq!(rate("60/m"), Ok(1.0));
        for bad in ["", "0", "-5/s", "5/h", "NaN", "inf/s", "x/s"] {
            assert!(rate(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cursor_cannot_smuggle_parameters() {
        assert!(cursor("AbC-_09").is_ok());
        for bad in ["", "a&wait=1", "a b", "ä", "%41"] {
            assert!(cursor(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn chunks_have_a_size_and_a_bound() {
        assert_eq!((chunk("1"), chunk("4KiB")), (Ok(1), Ok(4096)));
        for bad in ["", "0", "0B", "-1", "17MiB", "4 apples"] {
            assert!(chunk(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_of_513_bytes_is_refused() {
        assert!(key(&"k".repeat(512)).is_ok());
        assert!(key(&"k".repeat(513)).is_err());
    }
}
