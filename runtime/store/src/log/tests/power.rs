//! Losses of power and of the process at any place, by seed, against what must hold after them.
//!
//! A run is a few lives of one disk. In each the log is opened, records are appended, written and
//! trimmed, syncs and writes fail, the disk is full for a while, and it ends somewhere: also within
//! an opening. Every opening has to find a prefix of what was appended, from the horizon on, with
//! everything in it that was ever said to be synced.

use super::super::sim::{Dice, Faults};
use super::*;

/// Runs for each test; more with `SLUICEBOX_SEEDS`.
fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("SLUICEBOX_SEEDS").ok().and_then(|text| text.parse().ok());
    0..count.unwrap_or(400)
}

struct Run {
    seed: u64,
    dice: Dice,
    disk: SimDisk,
    config: Config,
    /// Appended and not taken back by an opening, in order.
    appended: Vec<Owned>,
    /// The highest position ever said to be synced.
    synced: Position,
    /// Trimmed up to here.
    horizon: Position,
    next: u32,
    /// What happened, for a message and to compare runs.
    trace: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let segment_bytes = [8 << 10, 16 << 10, 64 << 10][dice.below(3) as usize];
        let config = Config {
            segment_bytes,
            record_bytes_max: 3000,
            spare_segments: dice.below(3) as usize,
            tries_max: 3,
            ..small()
        };
        Self {
            seed,
            disk: SimDisk::new(seed),
            dice,
            config,
            appended: Vec::new(),
            synced: Position(0),
            horizon: Position(0),
            next: 0,
            trace: Vec::new(),
        }
    }

    /// Some lives; what broke, if anything did.
    fn live(&mut self, lives: u32) -> Result<(), String> {
        for _ in 0..lives {
            if self.dice.once_in(4) {
                self.cut_after(30);
            }
            let opened = open_from(&self.disk, self.config, self.horizon);
            match opened {
                Ok((log, mut writer, found)) => {
                    self.check_found(found, &log)?;
                    self.act(&log, &mut writer)?;
                    if self.dice.once_in(8) {
                        log.close().ok();
                        writer.finish();
                    }
                }
                // The power went while it was opened.
                Err(_) if self.disk.faults().power_off_after == Some(0) => {}
                Err(error) => return Err(format!("it does not open: {error}")),
            }
            let power = !self.dice.once_in(3);
            self.trace.push(format!("end of life, power lost: {power}"));
            if power { self.disk.lose_power() } else { self.disk.lose_process() }
        }
        Ok(())
    }

    fn check_found(&mut self, found: Vec<Owned>, log: &DurableLog) -> Result<(), String> {
        self.trace.push(format!("found {} up to {}", found.len(), log.synced()));
        let first = self.appended.partition_point(|(position, ..)| *position < self.horizon);
        let expected = &self.appended[first..];
        if found.len() > expected.len() || found[..] != expected[..found.len()] {
            return Err("what was found is no prefix of what was appended".into());
        }
        if let Some((lost, ..)) = expected.get(found.len()).filter(|lost| lost.0 < self.synced) {
            return Err(format!("the record at {lost} is lost, {} was synced", self.synced));
        }
        self.appended = found;
        let last = self.appended.last().map_or(Position(0), |(position, ..)| *position);
        if log.synced() <= last && last > Position(0) {
            return Err("what was found is not said to be synced".into());
        }
        self.synced = self.synced.max(log.synced());
        Ok(())
    }

    fn act(&mut self, log: &DurableLog, writer: &mut Writer) -> Result<(), String> {
        for _ in 0..self.dice.below(60) {
            match self.dice.below(24) {
                0..=11 => self.append(log),
                12..=18 => drop(writer.step()),
                19 => self.trim(log),
                20 => self.fail_something(),
                21 => self.fill_disk(),
                22 => self.check_reading(log)?,
                _ if self.dice.once_in(3) => self.cut_after(12),
                _ => {}
            }
            let synced = log.synced();
            if synced < self.synced {
                return Err(format!("synced went back from {} to {synced}", self.synced));
            }
            self.synced = synced;
        }
        Ok(())
    }

    fn append(&mut self, log: &DurableLog) {
        let length = [3, 40, 700, 2900][self.dice.below(4) as usize];
        let length = self.dice.below(length) as usize;
        let mut body = self.next.to_le_bytes().to_vec();
        body.resize(4 + length, self.next as u8);
        let class = if self.dice.once_in(3) { Class::Commit } else { Class::Ingest };
        if let Ok(position) = log.append(class, self.next as u8, &[&body]) {
            self.trace.push(format!("appended {} at {position}", body.len()));
            self.appended.push((position, self.next as u8, body));
            self.next += 1;
        }
    }

    fn trim(&mut self, log: &DurableLog) {
        // As a checkpoint does: up to something that is synced.
        let synced: Vec<_> = self.appended.iter().filter(|record| record.0 < self.synced).collect();
        if synced.is_empty() {
            return;
        }
        let horizon = synced[self.dice.below(synced.len() as u64) as usize].0;
        self.horizon = self.horizon.max(horizon);
        let trimmed = log.trim(self.horizon).is_ok();
        self.trace.push(format!("trimmed to {}: {trimmed}", self.horizon));
    }

    fn fail_something(&mut self) {
        let after = Some(self.dice.below(3) as u32);
        let faults = self.disk.faults();
        self.disk.set_faults(if self.dice.once_in(2) {
            Faults { fail_sync_after: after, ..faults }
        } else {
            Faults { fail_write_after: after, ..faults }
        });
    }

    fn fill_disk(&mut self) {
        let segments = 1 + self.dice.below(4);
        let capacity = self.dice.once_in(2).then_some(segments * self.config.segment_bytes);
        self.disk.set_faults(Faults { capacity, ..self.disk.faults() });
    }

    fn cut_after(&mut self, calls: u64) {
        let after = Some(self.dice.below(calls) as u32);
        self.disk.set_faults(Faults { power_off_after: after, ..self.disk.faults() });
    }

    /// Reads what is synced, from the horizon on.
    fn check_reading(&self, log: &DurableLog) -> Result<(), String> {
        let synced = log.synced();
        let mut expected =
            self.appended.iter().filter(|record| record.0 >= self.horizon && record.0 < synced);
        let end = log.read(self.horizon, &mut |record| {
            let same = expected.next().is_some_and(|(position, kind, body)| {
                (*position, *kind, &body[..]) == (record.position, record.kind, record.body)
            });
            if same { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match end {
            Ok(end) if end == synced.max(self.horizon) && expected.next().is_none() => Ok(()),
            Ok(end) => Err(format!("reading ended at {end}, {synced} is synced")),
            Err(error) => Err(format!("reading failed: {error}")),
        }
    }
}

/// Runs with a seed; says what broke.
fn run(seed: u64, switches: Faults) -> Result<Vec<String>, String> {
    let mut run = Run::new(seed);
    run.disk.set_faults(switches);
    match run.live(6) {
        Ok(()) => Ok(run.trace),
        Err(what) => Err(format!("seed {}: {what}\n{}", run.seed, run.trace.join("\n"))),
    }
}

#[test]
fn what_was_synced_is_there_after_every_loss() {
    for seed in seeds() {
        run(seed, Faults::default()).unwrap_or_else(|what| panic!("{what}"));
    }
}

#[test]
fn one_seed_gives_one_trace() {
    let traces = [run(7, Faults::default()).unwrap(), run(7, Faults::default()).unwrap()];
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], run(8, Faults::default()).unwrap());
}

#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    // If the writer did not sync, it would be just so.
    let data = Faults { skip_data_syncs: true, ..Faults::default() };
    let names = Faults { skip_name_syncs: true, ..Faults::default() };
    for switches in [data, names] {
        let noticed = seeds().filter(|seed| run(*seed, switches).is_err()).count();
        assert!(noticed > 10, "only {noticed} runs noticed {switches:?}");
    }
}

/// One life that is cut after so many calls to the disk, with a second cut while it is opened.
fn cut_twice(first: u32, second: u32, seed: u64) -> bool {
    let disk = SimDisk::new(seed);
    let (log, mut writer, _) = open(&disk).unwrap();
    let mut appended: Vec<Owned> =
        (0..10).map(|n| write(&log, &mut writer, n, &[n; 900])).collect();
    disk.set_faults(Faults { power_off_after: Some(first), ..Faults::default() });
    for n in 10..40_u8 {
        let body = vec![n; 900];
        if let Ok(position) = log.append(Class::Commit, n, &[&body]) {
            appended.push((position, n, body));
        }
        writer.step();
        if n == 25 {
            log.trim(appended[3].0).ok();
        }
    }
    let synced = log.synced();
    let reached_end = disk.faults().power_off_after != Some(0);
    drop((log, writer));
    disk.lose_power();
    disk.set_faults(Faults { power_off_after: Some(second), ..Faults::default() });
    let oldest = appended[3].0;
    if open_from(&disk, small(), oldest).is_err() {
        assert_eq!(disk.faults().power_off_after, Some(0), "it opens unless the power is off");
    }
    disk.lose_power();
    let (.., found) = open_from(&disk, small(), oldest).unwrap();
    assert_eq!(found[..], appended[3..3 + found.len()], "cut after {first} and {second}");
    let lost = appended.get(3 + found.len());
    assert!(lost.is_none_or(|lost| lost.0 >= synced), "cut after {first} and {second}: {lost:?}");
    reached_end
}

#[test]
fn the_power_may_go_at_every_call_around_every_roll() {
    // Calls of an opening are few: each of them is tried as the second cut.
    let calls = (0..).take_while(|first| !cut_twice(*first, first % 9, u64::from(*first))).count();
    // At least a write and a sync for each of the 30 groups.
    assert!(calls > 60, "only {calls} calls");
}
