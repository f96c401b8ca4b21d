//! Names of places: how far a source or a sink has come is kept in the log like the number of a
//! producer's last request, in one record with what was taken.
//!
//! They are part of what the log and checkpoints hold: a name that is written differently is
//! another place.

use sluicebox_core::dedup::{FILE, PLACE};
use sluicebox_core::ids::OutputId;

/// A schedule: the time of its last event.
pub(super) fn of_schedule(source: &str) -> String {
    format!("{PLACE}i/{source}")
}

/// A file: how far it was read, in some form of its source's.
pub(super) fn of_file(source: &str, file: &str) -> String {
    format!("{FILE}{source}/{file}")
}

/// A partition of an output: the offset of the first event that a sink has not handed on.
pub(crate) fn of_sink(sink: &str, output: OutputId, partition: u16) -> String {
    format!("{PLACE}o/{sink}/{}/{partition}", output.0)
}

#[cfg(test)]
mod tests {
    use sluicebox_core::limits::{NAME_BYTES_MAX, PRODUCER_BYTES_MAX};

    use super::*;

    #[test]
    fn names_are_fixed_for_ever_and_fit() {
        assert_eq!(of_schedule("a"), "\u{1}i/a");
        assert_eq!(of_file("a", "1.2"), "\u{2}a/1.2");
        assert_eq!(of_sink("a", OutputId(3), 7), "\u{1}o/a/3/7");
        let longest = "x".repeat(NAME_BYTES_MAX);
        let name = of_sink(&longest, OutputId(u32::MAX), u16::MAX);
        assert!(name.len() <= PRODUCER_BYTES_MAX);
        let file = format!("{0:x}.{0:x}.{0:016x}", u64::MAX);
        assert!(of_file(&longest, &file).len() <= PRODUCER_BYTES_MAX);
    }
}
