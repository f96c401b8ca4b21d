//! This machine's figures, from the kernel's tables in `/proc`.
//!
//! - Reading a table is a pure function of its text. What it does not understand it leaves out: a
//!   kernel may add columns and lines, or leave some away.
//! - Counters become rates between two samples; one that went backwards (a device was replaced,
//!   a counter wrapped) gives no figure for that interval, never a wrong one.
//! - The number of series is bounded, however many devices there are.
//!
//! Percentages are of the whole machine or device; memory is in bytes; rates are a second's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::failure::{Cause, Failure};

/// Disks, and network devices, that are looked at.
const DEVICES_MAX: usize = 64;

/// Bytes of a sector in the disk table, whatever the disk's own sectors are.
const SECTOR_BYTES: u64 = 512;

/// Columns of the processor's line that are shown. Guest time is in user time already.
const CPU_STATES: [&str; 8] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// One figure at one time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Reading {
    /// For example `cpu.user` or `disk.sda.read`.
    pub(crate) series: String,
    /// In the unit of the series.
    pub(crate) value: f64,
    /// Microseconds since 1970.
    pub(crate) time: u64,
}

/// The counters of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Counters {
    /// Time spent in each of [`CPU_STATES`], as far as the kernel has them.
    cpu: Vec<u64>,
    disks: BTreeMap<String, Disk>,
    networks: BTreeMap<String, Network>,
}

/// What a disk has done since the machine started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Disk {
    bytes_read: u64,
    bytes_written: u64,
    busy_ms: u64,
}

/// What a network device has done since it appeared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Network {
    bytes_received: u64,
    bytes_sent: u64,
}

/// Takes samples and remembers the last one.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    last: Option<(Instant, Counters)>,
}

impl Sampler {
    /// The figures since the last sample; the first one has no rates.
    pub(crate) fn sample(&mut self) -> Result<Vec<Reading>, Failure> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/stat").map_err(|error| {
            Failure::new(Cause::Local, format!("this machine has no /proc/stat: {error}"))
                .fix("its figures can be read on Linux only")
        })?;
        let now = Instant::now();
        let counters = Counters {
            cpu: parse_cpu(&stat),
            disks: parse_disks(&read("/proc/diskstats")),
            networks: parse_networks(&read("/proc/net/dev")),
        };
        let mut figures = parse_memory(&read("/proc/meminfo"));
        if let Some((then, before)) = &self.last {
            figures.extend(rates(before, &counters, now - *then));
        }
        self.last = Some((now, counters));
        let time = micros(SystemTime::now());
        Ok(figures.into_iter().map(|(series, value)| Reading { series, value, time }).collect())
    }
}

/// Microseconds since 1970; 0 before.
fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Time in each state over all processors, from `/proc/stat`; empty if there is no such line.
fn parse_cpu(text: &str) -> Vec<u64> {
    let Some(line) = text.lines().find_map(|line| line.strip_prefix("cpu ")) else {
        return Vec::new();
    };
    line.split_whitespace().map_while(|word| word.parse().ok()).take(CPU_STATES.len()).collect()
}

/// Used, available, cached and swapped memory in bytes, from `/proc/meminfo`.
fn parse_memory(text: &str) -> Vec<(String, f64)> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let mut words = line.split_whitespace();
        let number: u64 = words.next()?.parse().ok()?;
        match words.next() {
            Some("kB") => number.checked_mul(1024),
            None => Some(number),
            Some(_) => None,
        }
    };
    let difference = |whole: &str, part: &str| field(whole)?.checked_sub(field(part)?);
    [
        ("memory.used", difference("MemTotal", "MemAvailable")),
        ("memory.available", field("MemAvailable")),
        ("memory.cached", field("Cached")),
        ("memory.dirty", field("Dirty")),
        ("swap.used", difference("SwapTotal", "SwapFree")),
    ]
    .into_iter()
    .filter_map(|(name, bytes)| Some((name.to_owned(), bytes? as f64)))
    .collect()
}

/// Whole disks from `/proc/diskstats`: no partitions, no loop or memory devices.
fn parse_disks(text: &str) -> BTreeMap<String, Disk> {
    let line = |line: &str| -> Option<(String, Disk)> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = *words.get(2)?;
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        let disk = Disk {
            bytes_read: number(5)?.checked_mul(SECTOR_BYTES)?,
            bytes_written: number(9)?.checked_mul(SECTOR_BYTES)?,
            busy_ms: number(12)?,
        };
        let made_of_memory = ["loop", "ram", "zram"].iter().any(|kind| {
            name.strip_prefix(kind).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
        });
        (!made_of_memory && fit(name)).then(|| (name.to_owned(), disk))
    };
    let all: BTreeMap<String, Disk> = text.lines().filter_map(line).collect();
    let whole = |name: &str| !(1..name.len()).any(|cut| is_partition(&all, name, cut));
    all.iter()
        .filter(|(name, _)| whole(name))
        .map(|(name, disk)| (name.clone(), *disk))
        .take(DEVICES_MAX)
        .collect()
}

/// True if the first `cut` bytes name another disk and the rest the number of a partition of it:
/// `sda1` of `sda`, `nvme0n1p2` of `nvme0n1`.
fn is_partition(all: &BTreeMap<String, Disk>, name: &str, cut: usize) -> bool {
    let Some((disk, rest)) = name.split_at_checked(cut) else { return false };
    let ends_in_digit = disk.ends_with(|c: char| c.is_ascii_digit());
    let number = if ends_in_digit { rest.strip_prefix('p') } else { Some(rest) };
    let numbered = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    number.is_some_and(numbered) && all.contains_key(disk)
}

/// Network devices from `/proc/net/dev`.
fn parse_networks(text: &str) -> BTreeMap<String, Network> {
    let line = |line: &str| -> Option<(String, Network)> {
        // The counters may follow the colon at once; a name may hold a colon itself.
        let (name, rest) = line.rsplit_once(':')?;
        let words: Vec<u64> = rest.split_whitespace().map_while(|w| w.parse().ok()).collect();
        let network = Network { bytes_received: *words.first()?, bytes_sent: *words.get(8)? };
        let name = name.trim();
        fit(name).then(|| (name.to_owned(), network))
    };
    text.lines().filter_map(line).take(DEVICES_MAX).collect()
}

/// True for what may become part of a series' name, and so of a key.
fn fit(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.chars().all(|c| !c.is_control() && c != ' ')
}

/// What happened between two samples, a second.
fn rates(before: &Counters, after: &Counters, elapsed: Duration) -> Vec<(String, f64)> {
    let seconds = elapsed.as_secs_f64();
    if seconds < 1e-3 {
        return Vec::new();
    }
    let mut figures = cpu_shares(&before.cpu, &after.cpu);
    let mut add = |name: String, before: u64, after: u64, factor: f64| {
        if let Some(grown) = after.checked_sub(before) {
            figures.push((name, grown as f64 * factor / seconds));
        }
    };
    for (name, now) in &after.disks {
        let Some(then) = before.disks.get(name) else { continue };
        add(format!("disk.{name}.read"), then.bytes_read, now.bytes_read, 1.0);
        add(format!("disk.{name}.written"), then.bytes_written, now.bytes_written, 1.0);
        // Milliseconds a second, as a percentage.
        add(format!("disk.{name}.busy"), then.busy_ms, now.busy_ms, 0.1);
    }
    for (name, now) in &after.networks {
        let Some(then) = before.networks.get(name) else { continue };
        add(format!("net.{name}.received"), then.bytes_received, now.bytes_received, 1.0);
        add(format!("net.{name}.sent"), then.bytes_sent, now.bytes_sent, 1.0);
    }
    figures
}

/// The share of each state in the time that passed, in percent. Nothing if any counter fell: the
/// sum would be wrong, and so would every share. (`idle` and `iowait` fall at times.)
fn cpu_shares(before: &[u64], after: &[u64]) -> Vec<(String, f64)> {
    let grown: Option<Vec<u64>> =
        after.iter().zip(before).map(|(after, before)| after.checked_sub(*before)).collect();
    let Some(grown) = grown.filter(|_| before.len() == after.len()) else { return Vec::new() };
    let whole: u64 = grown.iter().fold(0, |sum, part| sum.saturating_add(*part));
    if whole == 0 {
        return Vec::new();
    }
    let share = |part: &u64| *part as f64 * 100.0 / whole as f64;
    CPU_STATES
        .iter()
        .zip(&grown)
        .map(|(state, part)| (format!("cpu.{state}"), share(part)))
        .collect()
}

#[cfg(test)]
mod tests;
