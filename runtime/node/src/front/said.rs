//! What processes the node has started say on standard error, in the node's own log: bounded, and
//! in the name of whoever it is.

use std::time::{Duration, Instant};

use sluicebox_core::ids::Name;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::ChildStderr;

/// Bytes of a line of a process's log, and lines a second; more is left out.
const LINE_BYTES_MAX: u64 = 8 * 1024;
const LINES_MAX: u32 = 5_000;

/// Logs what a tenant's process says on standard error, in its name.
pub(super) async fn relay(said: ChildStderr, tenant: Name) {
    let line = |text: &str| tracing::info!(target: "tenant-process", %tenant, "{text}");
    relay_lines(said, line).await;
}

/// Gives what a process says on standard error, line by line. What it says may be made up, and too
/// much: the node's own lines must not suffer.
pub(crate) async fn relay_lines(said: ChildStderr, mut log: impl FnMut(&str)) {
    let mut said = BufReader::new(said);
    let (mut since, mut lines, mut dropped) = (Instant::now(), 0, 0_u64);
    loop {
        let mut line = Vec::new();
        let read = (&mut said).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(count) if count > 0) {
            return;
        }
        if since.elapsed() >= Duration::from_secs(1) {
            if dropped > 0 {
                log(&format!("{dropped} lines of its log are left out"));
            }
            (since, lines, dropped) = (Instant::now(), 0, 0);
        }
        lines += 1;
        if lines > LINES_MAX {
            dropped += 1;
            continue;
        }
        let text = String::from_utf8_lossy(&line);
        let plain: String = text.trim_end().chars().filter(|c| !c.is_control()).collect();
        log(&plain);
    }
}
