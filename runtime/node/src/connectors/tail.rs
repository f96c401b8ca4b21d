//! The lines of one file, as they come.
//!
//! - A file is known by its number in the file system, by when it was made and by its first line,
//!   not by its name: so one that was rotated away is read to its end, and one that took its number
//!   is another.
//! - The place of a file is how often it was truncated, and how far it was read. Nothing of it is
//!   in memory that the place does not say, but for how much of a line was passed over.
//! - What is rotated keeps the name's beginning: `app.log` becomes `app.log.1`. When it begins, and
//!   whenever the name leads to another file, those are looked for that were not read to their end.
//! - One that came and was rotated away while the pipeline took nothing is known by being newer
//!   than one that was read, and by an ending of digits: others, and what begins as another does,
//!   may be copies of what was read.
//! - A file that lost its name is read on for a while, as its writer may still have it open; then
//!   its last line needs no end.
//! - A file whose first line is not whole yet is not read.
//!
//! Found by looking: that works on every file system, and costs little.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use cap_std::fs::{Dir, File, Metadata};
use sluicebox_core::key;
use sluicebox_core::pipeline::Lines;

use super::files::{self, Passed, Place, Read, Step, fault};
use super::grants::{Grants, Refused};
use super::source::{Piece, Places, Source, What};
use super::{Fault, places};
use crate::components::blocking;

/// How often is looked when nothing is there.
const LOOK: Duration = Duration::from_millis(100);

/// How long a file that lost its name may still grow.
const GRACE: Duration = Duration::from_secs(2);

/// Bytes of the first line by which a file is known.
const HEAD_BYTES: usize = 1024;

/// Files of a name's beginning that are looked at.
const ROTATED_MAX: usize = 64;

/// Bits of a place for how far a file was read: a tebibyte.
const OFFSET_BITS: u32 = 40;
const OFFSET_MAX: u64 = (1 << OFFSET_BITS) - 1;

/// See the module.
#[derive(Debug)]
pub(super) struct Tail {
    source: String,
    folder: Place,
    name: PathBuf,
    sort: crate::http::feed::Sort,
    line_bytes: usize,
    /// The file that is read.
    current: Option<Current>,
    /// When nothing came of it last, though its name leads elsewhere.
    nameless: Option<Instant>,
}

/// A file that was recognised.
#[derive(Debug)]
struct Current {
    file: File,
    identity: (u64, u64),
    head: u64,
    place: String,
    passed: Passed,
}

/// A file that may be read.
#[derive(Debug)]
struct Candidate {
    current: Current,
    size: u64,
    is: Is,
}

/// How a candidate comes to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Named,
    /// It has the name with an ending; `counted` if that is one of those rotated files are given.
    Rotated {
        counted: bool,
    },
}

/// What one look at the file system gave.
enum Looked {
    Step(Step, u64),
    /// There is more to look at.
    More,
    /// Nothing new in the file that has the name.
    Nothing,
    /// Nothing new in one that has not.
    Nameless,
    /// It is another file by now, or was truncated.
    Changed,
}

impl Tail {
    pub(super) fn open(grants: &Grants<'_>, source: &str, lines: &Lines) -> Result<Self, Refused> {
        files::check(grants, lines, true)?;
        let place = Place::new(grants.place(&lines.path)?);
        let (folder, name) = place.parent().ok_or_else(Refused::unknown)?;
        Ok(Self {
            source: source.to_owned(),
            folder,
            name,
            sort: files::sort(lines.form),
            line_bytes: usize::try_from(lines.line_bytes).unwrap_or(usize::MAX),
            current: None,
            nameless: None,
        })
    }

    /// The file to read now: one that was rotated away before it was read to its end, or the one
    /// that has the name; none if neither is there.
    async fn choose(&mut self, places: &impl Places) -> Result<bool, Fault> {
        let (folder, name, source) = (self.folder.clone(), self.name.clone(), self.source.clone());
        let found = blocking(move || Ok(candidates(&folder, &name, &source)));
        let found = found.await.map_err(|error| Fault::new("internal", error.to_string()))??;
        let known: Vec<_> = found.iter().map(|one| places.of(&one.current.place)).collect();
        let chosen = first_unread(&found, &known);
        let chosen = chosen.and_then(|at| found.into_iter().nth(at));
        let is_one = chosen.is_some();
        if let Some(Candidate { current, .. }) = chosen {
            (self.current, self.nameless) = (Some(current), None);
        }
        Ok(is_one)
    }

    /// One look: at the file, and at what has its name.
    async fn look(&mut self, number: u64) -> Result<(Looked, u64), Fault> {
        let Some(mut current) = self.current.take() else { return Ok((Looked::Changed, number)) };
        let over = self.nameless.is_some_and(|since| since.elapsed() >= GRACE);
        let (folder, name) = (self.folder.clone(), self.name.clone());
        let read = (self.line_bytes, over);
        let looked = blocking(move || {
            let looked = look(&mut current, (&folder, &name), number, read);
            Ok((current, looked))
        });
        let (current, looked) =
            looked.await.map_err(|error| Fault::new("internal", error.to_string()))?;
        self.current = Some(current);
        let (looked, number) = looked?;
        match looked {
            Looked::Step(..) | Looked::More | Looked::Nothing => self.nameless = None,
            Looked::Nameless if over => {
                // Nobody wrote to it for so long: it is done with.
                (self.current, self.nameless) = (None, None);
            }
            Looked::Nameless => {
                self.nameless.get_or_insert_with(Instant::now);
            }
            Looked::Changed => self.current = None,
        }
        Ok((looked, number))
    }
}

impl Source for Tail {
    async fn next(&mut self, places: &impl Places) -> Result<Piece, Fault> {
        loop {
            if self.current.is_none() && !self.choose(places).await? {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let Some(current) = &self.current else { continue };
            let place = current.place.clone();
            let number = places.of(&place).unwrap_or(0);
            let (looked, number) = self.look(number).await?;
            match looked {
                Looked::Step(step, size) => {
                    let what = match step.bytes.is_empty() {
                        true => What::Nothing,
                        false => What::Bytes(self.sort, step.bytes),
                    };
                    let shown = format!("{}: {} bytes", self.name.display(), step.end);
                    let lag = size.saturating_sub(step.end);
                    let number = with_offset(number, step.end)
                        .ok_or_else(|| Fault::new("connector.file", TOO_LARGE))?;
                    return Ok(Piece { place, number, what, left_out: step.left_out, shown, lag });
                }
                Looked::Changed | Looked::More => {}
                Looked::Nothing | Looked::Nameless => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

/// Why a file is not read on.
const TOO_LARGE: &str = "it has more than a tebibyte, or was truncated too often: rotate it";

const fn offset_of(number: u64) -> u64 {
    number & OFFSET_MAX
}

/// The place of another offset; none if that is in no place.
fn with_offset(number: u64, offset: u64) -> Option<u64> {
    (offset <= OFFSET_MAX).then_some((number & !OFFSET_MAX) | offset)
}

/// The place at the beginning of a file that was truncated once more, if there is one.
fn truncated(number: u64) -> Option<u64> {
    (number & !OFFSET_MAX).checked_add(OFFSET_MAX + 1)
}

/// Which is to be read first: one that is known and not read to its end; one that came behind such
/// and went before anybody looked; then the one that has the name.
fn first_unread(found: &[Candidate], known: &[Option<u64>]) -> Option<usize> {
    let mut behind_known = false;
    found.iter().zip(known).position(|(one, known)| {
        let counted = match one.is {
            Is::Named => return true,
            Is::Rotated { counted } => counted,
        };
        behind_known |= known.is_some();
        // One that begins as another does may be a copy of it.
        let is_like = |other: &&Candidate| other.current.head == one.current.head;
        let alone = || found.iter().filter(is_like).count() == 1;
        match known {
            Some(number) => offset_of(*number) < one.size,
            None => behind_known && counted && one.size > 0 && alone(),
        }
    })
}

/// An ending that is a number or a time, as rotated files are given.
fn is_counted(ending: &str) -> bool {
    let is_sign = |byte| matches!(byte, b'.' | b'-' | b'_' | b':' | b'T' | b'Z');
    let all = ending.bytes().all(|byte| byte.is_ascii_digit() || is_sign(byte));
    all && ending.bytes().any(|byte| byte.is_ascii_digit())
}

/// The number of the hash by which a file is known: its first line, or as much of it as counts;
/// none if that is not there yet.
fn head_of(file: &mut File) -> std::io::Result<Option<u64>> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    file.seek(SeekFrom::Start(0))?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    let end = memchr::memchr(b'\n', &head).map(|end| end + 1);
    let whole = end.or_else(|| (head.len() == HEAD_BYTES).then_some(HEAD_BYTES));
    Ok(whole.map(|end| key::hash(&head[..end])))
}

/// Opens and recognises a file.
fn recognise(dir: &Dir, name: &Path, source: &str) -> Result<Option<(Current, u64)>, Fault> {
    let Some((mut file, metadata)) = files::open(dir, name)? else { return Ok(None) };
    let identity = files::identity(&metadata);
    let head = head_of(&mut file).map_err(|error| fault("read", name, &error))?;
    let Some(head) = head else { return Ok(None) };
    let place = place_of(source, identity, head, born(&metadata));
    let current = Current { file, identity, head, place, passed: Passed::default() };
    Ok(Some((current, metadata.len())))
}

/// When a file was made, where the file system says so: its number may be another's later, which
/// may begin alike.
fn born(metadata: &Metadata) -> Option<u128> {
    let since = metadata.created().ok()?.into_std().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_nanos())
}

fn place_of(source: &str, (dev, ino): (u64, u64), head: u64, born: Option<u128>) -> String {
    let born = born.map_or_else(Vec::new, |nanos| nanos.to_le_bytes().to_vec());
    let known = key::hash(&[&head.to_le_bytes()[..], &born].concat());
    places::of_file(source, &format!("{dev:x}.{ino:x}.{known:016x}"))
}

/// What may be read: first what was rotated away, the oldest first, then what has the name.
fn candidates(folder: &Place, name: &Path, source: &str) -> Result<Vec<Candidate>, Fault> {
    let dir = folder.open()?;
    let begins = name.to_string_lossy().into_owned();
    let entries = dir.entries().map_err(|error| fault("list the folder of", name, &error))?;
    let mut rotated: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let other = PathBuf::from(entry.file_name());
        let is_rotated = other != name && other.to_string_lossy().starts_with(&begins);
        let Some(metadata) = entry.metadata().ok().filter(|m| is_rotated && m.is_file()) else {
            continue;
        };
        let modified = metadata.modified().map_or(SystemTime::UNIX_EPOCH, |at| at.into_std());
        rotated.push((modified, other));
    }
    rotated.sort();
    let oldest = rotated.len().saturating_sub(ROTATED_MAX);
    let mut found = Vec::new();
    for (_, other) in &rotated[oldest..] {
        // One of them that cannot be read is not what was asked for.
        if let Ok(Some((current, size))) = recognise(&dir, other, source) {
            let other = other.to_string_lossy();
            let counted = other.strip_prefix(&begins).is_some_and(is_counted);
            found.push(Candidate { current, size, is: Is::Rotated { counted } });
        }
    }
    let named = recognise(&dir, name, source)?;
    found.extend(named.map(|(current, size)| Candidate { current, size, is: Is::Named }));
    Ok(found)
}

/// See [`Tail::look`]. Gives the place to go on from as well, which is another behind a truncation.
fn look(
    current: &mut Current,
    (folder, name): (&Place, &Path),
    number: u64,
    read: (usize, bool),
) -> Result<(Looked, u64), Fault> {
    let wrong = |error: std::io::Error| fault("read", name, &error);
    let size = current.file.metadata().map_err(wrong)?.len();
    if head_of(&mut current.file).map_err(wrong)? != Some(current.head) {
        // Truncated, and begun with another line, or not begun yet.
        return Ok((Looked::Changed, number));
    }
    let number = match offset_of(number) > size {
        true => truncated(number).ok_or_else(|| Fault::new("connector.file", TOO_LARGE))?,
        false => number,
    };
    let at = (offset_of(number), &mut current.passed);
    match files::lines(&mut current.file, at, read).map_err(wrong)? {
        Read::Step(step) => return Ok((Looked::Step(step, size), number)),
        Read::More => return Ok((Looked::More, number)),
        Read::Nothing => {}
    }
    let named = files::open(&folder.open()?, name)?;
    let named = named.map(|(_, metadata)| files::identity(&metadata));
    let looked = if named == Some(current.identity) { Looked::Nothing } else { Looked::Nameless };
    Ok((looked, number))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use sluicebox_core::ids::Name;
    use sluicebox_core::pipeline::LineForm;

    use super::super::source::contract::{Noted, all};
    use super::*;
    use crate::config::{Config, ConnectorsConfig, Sources};

    struct Bench {
        folder: tempfile::TempDir,
        config: ConnectorsConfig,
        tenant: Name,
        noted: Noted,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary directory");
            let mut sources = Sources::default();
            sources.flag("--x", "connectors.folders", folder.path().display());
            let config = Config::load(&sources).expect("a configuration").config.connectors;
            let tenant = Name::new("a").expect("a name");
            Self { folder, config, tenant, noted: Noted::default() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn tail(&self) -> Tail {
            let path = self.path("app.log").to_string_lossy().into_owned();
            let lines = Lines { path, form: LineForm::Text, line_bytes: 100, deletes: false };
            Tail::open(&Grants::new(&self.config, &self.tenant), "s", &lines).expect("allowed")
        }

        fn append(&self, name: &str, text: &str) {
            let file = fs::OpenOptions::new().append(true).create(true).open(self.path(name));
            file.expect("opened").write_all(text.as_bytes()).expect("written");
        }

        async fn all(&self) -> Vec<String> {
            all(&self.noted, || self.tail(), |number| number % 2 == 0).await
        }
    }

    #[tokio::test]
    async fn keeps_the_contract_of_sources() {
        let bench = Bench::new();
        assert!(bench.all().await.is_empty(), "there is no file yet");
        bench.append("app.log", "one\ntwo\nthr");
        assert_eq!(bench.all().await, ["one", "two"]);
        bench.append("app.log", "ee\n");
        assert_eq!(bench.all().await, ["three"]);
        let many: String = (0..60_000).map(|n| format!("line {n}\n")).collect();
        bench.append("app.log", &many);
        let lines = bench.all().await;
        assert_eq!(lines.concat(), many.replace('\n', ""));
        assert!(bench.all().await.is_empty());
    }

    #[tokio::test]
    async fn a_file_that_was_rotated_is_read_to_its_end_whoever_was_away() {
        let bench = Bench::new();
        bench.append("app.log", "first\na\n");
        assert_eq!(bench.all().await, ["first", "a"]);
        bench.append("app.log", "b\nlast without end");
        fs::rename(bench.path("app.log"), bench.path("app.log.1")).expect("renamed");
        bench.append("app.log", "second\n");
        // Whoever comes anew finds what was not read, by the first line of it.
        let mut tail = bench.tail();
        let piece = tail.next(&bench.noted).await.expect("b");
        assert_eq!(super::super::source::contract::lines(&piece), ["b"]);
        bench.noted.note(&piece);
        let piece = tail.next(&bench.noted).await.expect("the last");
        assert_eq!(super::super::source::contract::lines(&piece), ["last without end"]);
        bench.noted.note(&piece);
        let piece = tail.next(&bench.noted).await.expect("the new file");
        assert_eq!(super::super::source::contract::lines(&piece), ["second"]);
        bench.noted.note(&piece);
        assert!(bench.all().await.is_empty());
    }

    #[tokio::test]
    async fn what_came_and_was_rotated_while_nobody_looked_is_read_and_copies_are_not() {
        let bench = Bench::new();
        let write = |name: &str, text: &str, age: u64| {
            fs::write(bench.path(name), text).expect("written");
            let file = fs::OpenOptions::new().append(true).open(bench.path(name)).expect("there");
            let time = SystemTime::now() - Duration::from_secs(age);
            file.set_modified(time).expect("its time is set");
        };
        write("app.log.7", "long ago\n", 900);
        write("app.log", "first\n", 800);
        assert_eq!(bench.all().await, ["first"], "what was there before is not read");
        fs::rename(bench.path("app.log"), bench.path("app.log.2")).expect("renamed");
        write("app.log.1", "second\nof it\n", 700);
        write("app.log-20261201", "third\n", 600);
        write("app.log.gz", "packed\n", 500);
        write("app.log.9", "fourth\na copy?\n", 400);
        write("app.log", "fourth\n", 300);
        let (mut tail, mut read) = (bench.tail(), Vec::new());
        while read.len() < 4 {
            let piece = tail.next(&bench.noted).await.expect("a piece");
            read.extend(super::super::source::contract::lines(&piece));
            bench.noted.note(&piece);
        }
        assert_eq!(read, ["second", "of it", "third", "fourth"]);
        assert!(bench.all().await.is_empty());
    }

    #[tokio::test]
    async fn a_new_file_that_begins_like_one_that_is_gone_is_another() {
        let bench = Bench::new();
        bench.append("app.log", "head\na\n");
        assert_eq!(bench.all().await, ["head", "a"]);
        fs::remove_file(bench.path("app.log")).expect("removed");
        // It may well have the number of the one before.
        bench.append("app.log", "head\nb\nc\nd\n");
        assert_eq!(bench.all().await, ["head", "b", "c", "d"]);
        let one = place_of("s", (1, 2), 3, Some(4));
        for other in [
            place_of("s", (1, 2), 3, Some(5)),
            place_of("s", (1, 2), 4, Some(4)),
            place_of("s", (1, 3), 3, Some(4)),
            place_of("t", (1, 2), 3, Some(4)),
            place_of("s", (1, 2), 3, None),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_place_never_says_another_offset_than_was_read() {
        let count = 3 << OFFSET_BITS;
        assert_eq!(with_offset(count | 7, OFFSET_MAX), Some(count | OFFSET_MAX));
        assert_eq!(with_offset(count | 7, OFFSET_MAX + 1), None, "it would be a small one");
        assert_eq!(truncated(count | 7), Some(4 << OFFSET_BITS));
        assert_eq!(truncated(u64::MAX), None, "it would be the first time");
    }

    #[tokio::test]
    async fn one_that_was_truncated_begins_again_with_the_same_first_line_too() {
        let bench = Bench::new();
        bench.append("app.log", "head\na\nb\n");
        assert_eq!(bench.all().await, ["head", "a", "b"]);
        fs::write(bench.path("app.log"), "head\nc\n").expect("written");
        assert_eq!(bench.all().await, ["head", "c"]);
        fs::write(bench.path("app.log"), "other\n").expect("written");
        assert_eq!(bench.all().await, ["other"]);
        fs::write(bench.path("app.log"), "").expect("written");
        assert!(bench.all().await.is_empty());
    }

    #[tokio::test]
    async fn long_lines_are_left_out_and_links_that_lead_out_are_not_followed() {
        let bench = Bench::new();
        bench.append("app.log", &format!("a\n{}\nb\n", "x".repeat(101)));
        assert_eq!(bench.all().await, ["a", "b"]);
        let other = Bench::new();
        other.append("secret", "secret\n");
        fs::remove_file(bench.path("app.log")).expect("removed");
        std::os::unix::fs::symlink(other.path("secret"), bench.path("app.log")).expect("a link");
        let refused = bench.tail().next(&bench.noted).await;
        assert_eq!(refused.map_err(|fault| fault.code), Err("connector.file"));
    }
}
