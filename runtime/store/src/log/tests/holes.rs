//! What of a segment was never written is not read, and what lies behind it is found all the same.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, fallocate};

use super::super::disk::{DirDisk, Disk, DiskFile};
use super::super::format::{HEADER_BYTES, SECTOR_BYTES};
use super::super::inspect::{Inspection, Verdict, inspect};
use super::super::sim::Dice;
use super::*;

/// What is read of a log that is all but empty: its header, a window of a scan, and the last group
/// once more.
const LITTLE: u64 = HEADER_BYTES + (1 << 20) + SECTOR_BYTES;
/// The system reads so much more than it was asked for.
const READ_AHEAD: u64 = 8 << 20;

/// How a disk answers when it is asked what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// As the disk below.
    Plain,
    /// All of it.
    Everything,
    /// Also what was read, or read ahead: systems that have it in memory do not tell it apart.
    WhatWasRead,
    /// To the byte, with every zero byte a hole.
    EveryByte,
}

const ANSWERS: [Answer; 4] =
    [Answer::Plain, Answer::Everything, Answer::WhatWasRead, Answer::EveryByte];

/// A disk that counts what is read.
#[derive(Debug, Clone)]
struct Watched {
    disk: Arc<dyn Disk>,
    answer: Answer,
    bytes_read: Arc<AtomicU64>,
    /// How far each file was read, ahead included.
    read_to: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Watched {
    fn new(disk: Arc<dyn Disk>, answer: Answer) -> Self {
        Self { disk, answer, bytes_read: Arc::default(), read_to: Arc::default() }
    }

    fn watch(&self, name: &str, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(WatchedFile { disk: self.clone(), name: name.to_owned(), file })
    }

    /// What was read since it was asked last.
    fn take_bytes_read(&self) -> u64 {
        self.bytes_read.swap(0, Ordering::Relaxed)
    }
}

impl Disk for Watched {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.watch(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.watch(name, self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }

    fn unique(&self) -> u64 {
        self.disk.unique()
    }

    fn place(&self) -> PathBuf {
        self.disk.place()
    }
}

#[derive(Debug)]
struct WatchedFile {
    disk: Watched,
    name: String,
    file: Box<dyn DiskFile>,
}

impl DiskFile for WatchedFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(bytes, offset)?;
        self.disk.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        let mut read_to = self.disk.read_to.lock().unwrap();
        let end = read_to.entry(self.name.clone()).or_default();
        *end = (*end).max(offset + read as u64 + READ_AHEAD);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.file.reserve(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn written(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        match self.disk.answer {
            Answer::Plain => self.file.written(offset),
            Answer::Everything => Ok(Some(offset..u64::MAX)),
            Answer::WhatWasRead => {
                let read_to = self.disk.read_to.lock().unwrap().get(&self.name).copied();
                match read_to.filter(|end| offset < *end) {
                    Some(end) => Ok(Some(offset..end)),
                    None => self.file.written(offset),
                }
            }
            Answer::EveryByte => {
                let Some(start) = self.find(offset, |byte| byte != 0)? else { return Ok(None) };
                let end = self.find(start, |byte| byte == 0)?;
                Ok(Some(start..end.unwrap_or(u64::MAX)))
            }
        }
    }
}

impl WatchedFile {
    /// The first such byte from `offset` on.
    fn find(&self, mut offset: u64, is_such: impl Fn(u8) -> bool) -> io::Result<Option<u64>> {
        let mut bytes = vec![0; 1 << 20];
        let mut some = 64;
        loop {
            let read = self.file.read_at(&mut bytes[..some], offset)?;
            if read == 0 {
                return Ok(None);
            }
            if let Some(at) = bytes[..read].iter().position(|byte| is_such(*byte)) {
                return Ok(Some(offset + at as u64));
            }
            offset += read as u64;
            some = bytes.len();
        }
    }
}

/// Segments of several reads.
fn large() -> Config {
    Config { segment_bytes: 32 << 20, record_bytes_max: 4 << 20, ..Config::default() }
}

fn open_on(disk: &Watched) -> Result<(DurableLog, Writer), Error> {
    let visit: Visit<'_> = &mut |_| ControlFlow::Continue(());
    DurableLog::open_stepped(Arc::new(disk.clone()), large(), Position(0), visit)
}

fn look_at(disk: &dyn Disk) -> Inspection {
    inspect(disk, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// A log of three groups; the last says that the second was on disk.
fn three_groups(disk: Arc<dyn Disk>) -> [Owned; 3] {
    let (log, mut writer) = open_on(&Watched::new(disk, Answer::Plain)).unwrap();
    let bodies = [vec![1; 1000], vec![2; 3 << 20], vec![3; 1000]];
    [1, 2, 3].map(|n| write(&log, &mut writer, n, &bodies[usize::from(n) - 1]))
}

/// Where in the file the second group is, and the last begins.
fn second_group(groups: &[Owned; 3]) -> Range<u64> {
    let [_, second, third] = groups.each_ref().map(|group| group.0.0 - 32 + HEADER_BYTES);
    second..third
}

#[track_caller]
fn expect_evidence(disk: &Watched, what: &str) {
    assert_eq!(look_at(disk).verdict, Verdict::Damaged, "{what}, {:?}", disk.answer);
    let error = open_on(disk).map(|_| ()).expect_err("it should not open");
    assert!(error.to_string().contains("says it was on disk"), "{what}: {error}");
}

/// Opens a log that is all but empty, and looks at it; both read little.
#[track_caller]
fn expect_little_read(disk: &Watched, most: u64) {
    let (log, mut writer) = open_on(disk).unwrap();
    write(&log, &mut writer, 1, b"the only record");
    log.close().unwrap();
    writer.finish();
    drop((log, writer));
    disk.take_bytes_read();
    assert!(matches!(look_at(disk).verdict, Verdict::Clean(_)));
    let inspected = disk.take_bytes_read();
    assert!(inspected <= most, "{inspected} bytes were read to look at it");
    disk.read_to.lock().unwrap().clear();
    open_on(disk).unwrap();
    let opened = disk.take_bytes_read();
    assert!(opened <= most, "{opened} bytes were read to open it");
}

#[test]
fn what_was_never_written_is_not_read() {
    let disk = Watched::new(SimDisk::new(1).shared(), Answer::Plain);
    expect_little_read(&disk, LITTLE);
}

#[test]
fn what_a_system_has_read_ahead_does_not_lead_to_the_end() {
    let disk = Watched::new(SimDisk::new(1).shared(), Answer::WhatWasRead);
    expect_little_read(&disk, LITTLE + READ_AHEAD);
}

#[test]
fn what_was_never_written_in_a_directory_is_not_read() {
    let dir = TempDir::new().unwrap();
    let file = fs::File::create(dir.path().join("file")).unwrap();
    file.reserve(1 << 20).unwrap();
    if file.written(0).unwrap().is_some() {
        println!("the file system here knows no holes: there is nothing to see");
        return;
    }
    let disk = DirDisk::open(&dir.path().join("log")).unwrap();
    // What a cold start reads ahead of the first read is in memory, and read from there.
    let disk = Watched::new(Arc::new(disk), Answer::Plain);
    expect_little_read(&disk, LITTLE + READ_AHEAD);
}

#[test]
fn a_reader_reads_nothing_behind_what_is_synced() {
    let disk = Watched::new(SimDisk::new(1).shared(), Answer::Plain);
    let (log, mut writer) = open_on(&disk).unwrap();
    write(&log, &mut writer, 1, b"the only record");
    disk.take_bytes_read();
    assert_eq!(contract::read_from(&log, Position(0)).len(), 1);
    assert_eq!(disk.take_bytes_read(), SECTOR_BYTES);
}

#[test]
fn evidence_behind_a_hole_is_found() {
    for answer in ANSWERS {
        let disk = SimDisk::new(1);
        let groups = three_groups(disk.shared());
        let name = segment_files(&disk).pop().unwrap();
        let mut bytes = disk.contents(&name).unwrap();
        let lost = second_group(&groups);
        bytes[lost.start as usize..lost.end as usize].fill(0);
        disk.put(&name, &bytes);
        let watched = Watched::new(disk.shared(), answer);
        expect_evidence(&watched, "a hole");
        // Something is left before it that begins where no sector does.
        bytes[lost.end as usize - 700..lost.end as usize].fill(7);
        disk.put(&name, &bytes);
        expect_evidence(&watched, "a hole up to within a sector");
    }
}

#[test]
fn evidence_behind_any_number_of_holes_is_found() {
    for answer in ANSWERS {
        let disk = SimDisk::new(1);
        let groups = three_groups(disk.shared());
        let name = segment_files(&disk).pop().unwrap();
        let mut bytes = disk.contents(&name).unwrap();
        for start in second_group(&groups).step_by(2 * SECTOR_BYTES as usize) {
            bytes[start as usize..][..SECTOR_BYTES as usize].fill(0);
        }
        disk.put(&name, &bytes);
        expect_evidence(&Watched::new(disk.shared(), answer), "every other sector");
    }
}

#[test]
fn evidence_behind_a_hole_in_a_directory_is_found() {
    let dir = TempDir::new().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir.path()).unwrap());
    let groups = three_groups(Arc::clone(&disk));
    let lost = second_group(&groups);
    let file = fs::File::options().write(true).open(dir.path().join("00000000000000000001.log"));
    let file = file.unwrap();
    // The sector before the last group is of the same block, and stays.
    assert!(!lost.end.is_multiple_of(4096));
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if fallocate(&file, flags, lost.start, lost.end - lost.start).is_err() {
        file.write_at(&vec![0; (lost.end - lost.start) as usize], lost.start).unwrap();
    }
    file.sync_data().unwrap();
    expect_evidence(&Watched::new(disk, Answer::Plain), "a hole");
}

#[test]
fn holes_change_nothing_of_what_is_found() {
    let (mut damaged, mut sound) = (0, 0);
    for seed in 0..300 {
        let (disk, mut dice) = (SimDisk::new(seed), Dice::new(seed));
        let (log, mut writer, _) = open(&disk).unwrap();
        for n in 0..4 {
            let bytes = dice.below(2500) as usize;
            write(&log, &mut writer, n, &vec![n + 1; bytes]);
        }
        drop((log, writer));
        let name = segment_files(&disk).pop().unwrap();
        let mut bytes = disk.contents(&name).unwrap();
        let sectors = bytes.chunks_mut(SECTOR_BYTES as usize);
        for sector in sectors.skip((HEADER_BYTES / SECTOR_BYTES) as usize) {
            if dice.once_in(6) {
                sector.fill(0);
            }
        }
        disk.put(&name, &bytes);
        let found = ANSWERS.map(|answer| look_at(&Watched::new(disk.shared(), answer)));
        assert!(found.iter().all(|other| *other == found[0]), "seed {seed}: {found:#?}");
        match found[0].verdict {
            Verdict::Damaged => damaged += 1,
            _ => sound += 1,
        }
    }
    assert!(damaged > 50 && sound > 50, "{damaged} and {sound}");
}

#[test]
fn a_simulated_hole_is_what_was_never_written_or_did_not_survive() {
    let mut lost = 0;
    for seed in 0..100 {
        let (disk, mut dice) = (SimDisk::new(seed), Dice::new(seed));
        let file = disk.create("file").unwrap();
        file.reserve(64 << 10).unwrap();
        disk.sync_names().unwrap();
        let mut places = Vec::new();
        for _ in 0..6 {
            let sectors = 1 + dice.below(8);
            let at = dice.below(100) * SECTOR_BYTES;
            file.write_at(&vec![1; (sectors * SECTOR_BYTES) as usize], at).unwrap();
            places.push(at);
            if dice.once_in(3) {
                file.sync_data().unwrap();
            }
        }
        for survived in [false, true] {
            if survived {
                disk.lose_power();
            }
            let (file, bytes) = (disk.open("file").unwrap(), disk.contents("file").unwrap());
            let mut offset = 0;
            while let Some(part) = file.written(offset).unwrap() {
                let (hole, written) = (offset as usize..part.start as usize, part.start..part.end);
                assert!(bytes[hole].iter().all(|byte| *byte == 0), "seed {seed}");
                assert!(
                    bytes[written.start as usize..written.end as usize].iter().all(|b| *b == 1)
                );
                offset = part.end;
            }
            assert!(bytes[offset as usize..].iter().all(|byte| *byte == 0), "seed {seed}");
            lost +=
                u64::from(survived && places.iter().any(|at| bytes.get(*at as usize) != Some(&1)));
        }
    }
    assert!(lost > 10, "only {lost} disks lost anything");
}

#[test]
fn a_file_tells_what_was_written_and_may_still_be_read_and_written() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    let file = fs::File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.reserve(8 << 20).unwrap();
    let place = (5 << 20) + 512;
    file.write_at(b"not synced", place).unwrap();
    let part = file.written(4096).unwrap().unwrap();
    assert!(part.start <= place && part.end >= place + 10, "{part:?}");
    // Where the look left the file's cursor is nothing to them.
    file.write_at(b"SY", place + 4).unwrap();
    let mut bytes = [0; 10];
    assert_eq!(file.read_at(&mut bytes, place).unwrap(), 10);
    assert_eq!(&bytes, b"not SYnced");
    file.sync_data().unwrap();
    let part = file.written(place).unwrap().unwrap();
    assert!(part.start == place && part.end >= place + 10, "{part:?}");
    assert_eq!(file.written(9 << 20).unwrap(), None);
}

#[test]
fn a_file_system_that_knows_no_holes_says_that_all_was_written() {
    // One that refuses the question, wherever the tests run.
    let file = fs::File::open("/proc/self/status").unwrap();
    assert_eq!(file.written(512).unwrap(), Some(512..u64::MAX));
}
