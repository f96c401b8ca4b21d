//! What the disk does by itself: the measure of everything that has to be on it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Bytes of one write, each followed by a sync.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes a second that a plain file in a folder takes, written one MiB at a time, each synced
/// before the next.
///
/// # Errors
/// The disk refuses.
pub fn synced_bytes_per_second(folder: &Path, time: Duration) -> Result<f64> {
    let path = folder.join("synced");
    let mut file = File::create(&path)?;
    let bytes = noise(WRITE_BYTES);
    let begun = Instant::now();
    let mut written = 0_u64;
    while begun.elapsed() < time {
        file.write_all(&bytes)?;
        file.sync_data()?;
        written += WRITE_BYTES as u64;
    }
    let elapsed = begun.elapsed();
    std::fs::remove_file(&path)?;
    Ok(written as f64 / elapsed.as_secs_f64())
}

/// Bytes that nothing below can pack.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}
