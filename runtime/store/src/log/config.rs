//! What an opener chooses of a log: sizes, bounds on memory, how long to try.
//!
//! Every bound on memory is here: at most `pending_bytes_max` + `reserve_bytes` + one record wait
//! to be written, in two buffers that are used again.

use std::time::Duration;

use super::error::Error;
use super::format::{GROUP_HEADER_BYTES, HEADER_BYTES, SECTOR_BYTES, record_bytes};
use super::format::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

/// Settings of a log; the defaults are for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Bytes of a segment file, header included. Files of other sizes are still read.
    pub segment_bytes: u64,
    /// Bytes in the body of a record.
    pub record_bytes_max: usize,
    /// Bytes that may wait to be written before ingest is refused as busy.
    pub pending_bytes_max: usize,
    /// Bytes that may wait on top of that before commits are refused as well.
    pub reserve_bytes: usize,
    /// Segments that are no longer needed and kept to be used again; more are deleted.
    pub spare_segments: usize,
    /// How long to wait before writing is tried again, on a full disk or after an error.
    pub retry_pause: Duration,
    /// How often to try after an error before the log fails. A full disk is tried for ever.
    pub tries_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            record_bytes_max: 32 << 20,
            pending_bytes_max: 16 << 20,
            reserve_bytes: 16 << 20,
            spare_segments: 2,
            retry_pause: Duration::from_millis(200),
            tries_max: 5,
        }
    }
}

impl Config {
    /// Refuses settings that contradict each other.
    pub(super) fn check(&self) -> Result<(), Error> {
        let sizes = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
        if !sizes.contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(SECTOR_BYTES)
        {
            let what = "a segment has 8 KiB to 1 GiB and is a multiple of 512 bytes";
            return Err(Error::Setting { what });
        }
        if (GROUP_HEADER_BYTES + record_bytes(self.record_bytes_max)) as u64 > self.room() {
            let what = "the largest record does not fit into a segment";
            return Err(Error::Setting { what });
        }
        if self.tries_max == 0 {
            return Err(Error::Setting { what: "writing has to be tried at least once" });
        }
        Ok(())
    }

    /// Bytes for groups in a segment.
    pub(super) fn room(&self) -> u64 {
        self.segment_bytes - HEADER_BYTES
    }
}
