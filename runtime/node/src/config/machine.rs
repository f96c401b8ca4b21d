//! Defaults that the machine decides: where data is kept, how many workers, how much memory.

use std::path::PathBuf;

use super::{GIB, KIB, MIB, TIB};

/// Where programs of this system keep a user's data; beside the current directory if it has no
/// such place.
pub(super) fn standard_data_dir() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if cfg!(target_os = "macos") {
        if let Some(home) = set("HOME") {
            return home.join("Library/Application Support/sluicebox");
        }
    } else if let Some(data) = set("XDG_DATA_HOME") {
        return data.join("sluicebox");
    } else if let Some(home) = set("HOME") {
        return home.join(".local/share/sluicebox");
    }
    PathBuf::from("sluicebox-data")
}

/// Processors this process may use.
pub(super) fn cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores).unwrap_or(u16::MAX).min(1024)
}

/// Half of the machine's memory, as far as the kernel tells; it is a cap, not a reservation.
pub(crate) fn memory_share() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse::<usize>().ok())
        .unwrap_or(8 << 20);
    (kib.saturating_mul(KIB) / 2 / MIB * MIB).clamp(GIB, 64 * TIB)
}
