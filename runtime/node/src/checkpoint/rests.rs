//! How the thread of checkpoints stays out of the way of those who answer.
//!
//! - It runs at a lower priority than workers and the log's writer (`store/priority.rs`).
//! - Long work is cut into stretches of about a millisecond, with a rest behind each.
//! - It gives both up only as far as the settings demand it: who falls behind the log rests no
//!   more, and writes faster, in steps, up to a bound.

use std::time::Duration;

use sluicebox_store::checkpoint::Speed;
use sluicebox_store::priority::hurry;

use crate::config::LogConfig;

/// Bytes of the log between two rests.
const STRETCH_BYTES: usize = 128 * 1024;
/// What a record counts for besides its body.
const RECORD_BYTES: usize = 512;
/// How long a rest is: enough for whoever waits for the core to have it.
const REST: Duration = Duration::from_micros(100);

/// Bytes written between two pauses: what a disk takes in a few milliseconds, and what can be put
/// in place by then without a rest.
const PIECE_BYTES: usize = 1024 * 1024;
/// Most doublings of the pace, and of a piece: each costs some syncs, whatever its size.
const DOUBLINGS_MAX: u32 = 4;

/// Rests in long work.
#[derive(Debug)]
pub(super) struct Rests {
    /// Since the last one.
    bytes: usize,
    in_hurry: bool,
}

impl Rests {
    /// Rests now and then, unless more of the log waits than is promised.
    pub(super) fn new(config: &LogConfig, waiting: u64) -> Self {
        Self { bytes: 0, in_hurry: waiting > allowed(config) }
    }

    /// A record of so many bytes was handled.
    pub(super) fn after(&mut self, record_bytes: usize) {
        if self.is_due(record_bytes) {
            std::thread::sleep(REST);
        }
    }

    fn is_due(&mut self, record_bytes: usize) -> bool {
        self.bytes += record_bytes + RECORD_BYTES;
        let is_due = self.bytes >= STRETCH_BYTES;
        if is_due {
            self.bytes = 0;
        }
        is_due && !self.in_hurry
    }
}

/// How fast to write while so much log waits behind the last checkpoint.
///
/// At the beginning of a checkpoint about `checkpoint-log-bytes` wait, and what comes in while it
/// is written waits as well. When that is half as much again the pace is doubled, and once more for
/// each further eighth: so it is as fast as it has to be, and what waits stays about below twice
/// the setting.
pub(super) fn speed(config: &LogConfig, waiting: u64) -> Speed {
    let speed = speed_of(config, waiting);
    hurry(speed.piece_bytes > PIECE_BYTES);
    speed
}

/// Log that may wait without hurry.
fn allowed(config: &LogConfig) -> u64 {
    let promised = config.checkpoint_log_bytes as u64;
    promised + promised / 2
}

fn speed_of(config: &LogConfig, waiting: u64) -> Speed {
    let promised = config.checkpoint_log_bytes as u64;
    let eighths =
        waiting.checked_sub(allowed(config)).map_or(0, |over| over / (promised / 8).max(1) + 1);
    let doublings = u32::try_from(eighths).unwrap_or(u32::MAX).min(DOUBLINGS_MAX);
    Speed {
        piece_bytes: PIECE_BYTES << doublings,
        bytes_per_second: Some((config.checkpoint_bytes_per_second as u64) << doublings),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const MIB: u64 = 1 << 20;

    fn config() -> LogConfig {
        let mut config = Config::default().log;
        config.checkpoint_log_bytes = 256 << 20;
        config.checkpoint_bytes_per_second = 20 << 20;
        config
    }

    #[test]
    fn the_pace_follows_what_waits_and_is_bounded() {
        let of = |waiting| {
            let Speed { piece_bytes, bytes_per_second } = speed_of(&config(), waiting);
            (piece_bytes as u64 / MIB, bytes_per_second.unwrap() / MIB)
        };
        let pace = |mib: u64| of(mib * MIB);
        assert_eq!([0, 256, 383].map(pace), [(1, 20); 3], "as configured");
        let faster = [(2, 40), (4, 80), (8, 160), (16, 320)];
        assert_eq!([384, 416, 448, 480].map(pace), faster);
        assert_eq!([512, 100_000, u64::MAX >> 21].map(pace), [(16, 320); 3]);
        let mut smallest = config();
        smallest.checkpoint_log_bytes = 1;
        assert_eq!(speed_of(&smallest, u64::MAX).bytes_per_second, Some(320 * MIB));
    }

    #[test]
    fn long_work_is_cut_by_bytes_and_by_records() {
        let due = |count: usize, bytes: usize, waiting: u64| {
            let mut rests = Rests::new(&config(), waiting);
            (0..count).filter(|_| rests.is_due(bytes)).count()
        };
        assert_eq!(due(64, 64 * 1024, 0), 32);
        assert_eq!(due(5_120, 0, 0), 20, "records cost something however small they are");
        assert_eq!(due(64, 64 * 1024, 384 * MIB), 32);
        assert_eq!(due(64, 64 * 1024, 384 * MIB + 1), 0, "no rest when too much waits");
    }
}
