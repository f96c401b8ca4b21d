//! Each file that comes into a folder, in the order of their names.
//!
//! - A file is read once it has its name: who writes one moves it there when it is complete. Names
//!   that begin with a dot, or end in `.tmp` or `.part`, are not looked at; nor are links and
//!   folders.
//! - What was read and is on disk in the log leaves the folder: into `done`, or for good. So what
//!   has to be remembered is one file. One that was begun is ended before another is, whatever
//!   names come meanwhile.
//! - A file of another size or time is another file, whatever its name. What leaves is the one that
//!   was read: another in its place is put back.
//! - One that cannot be read holds up no other, unless some of it was taken already.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use cap_std::fs::{Dir, File, Metadata, MetadataExt as _};
use sluicebox_core::key;
use sluicebox_core::pipeline::{LineForm, Lines};

use super::files::{self, Passed, Place, Read, Step, fault};
use super::grants::{Grants, Refused};
use super::source::{Piece, Places, Source, What};
use super::{Fault, places};
use crate::components::blocking;

/// How often is looked when nothing is there.
const LOOK: Duration = Duration::from_millis(200);

/// The folder of files that were read.
const DONE: &str = "done";

/// In a place: the file was read to its end.
const READ: u64 = 1 << 62;

/// How long a file is passed over that could not be read, and how many are.
const PASSED: Duration = Duration::from_secs(30);
const PASSED_MAX: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Folder {
    source: String,
    folder: Place,
    form: LineForm,
    line_bytes: usize,
    deletes: bool,
    /// The file that was begun.
    begun: Option<PathBuf>,
    /// It was looked for one that somebody had begun before.
    looked: bool,
    /// Files that could not be read, and since when.
    passed: BTreeMap<PathBuf, Instant>,
}

/// A file that is to be read.
#[derive(Debug)]
struct Found {
    name: PathBuf,
    place: String,
    size: u64,
    file: File,
}

impl Folder {
    pub(super) fn open(grants: &Grants<'_>, source: &str, lines: &Lines) -> Result<Self, Refused> {
        files::check(grants, lines, false)?;
        Ok(Self {
            source: source.to_owned(),
            folder: Place::new(grants.place(&lines.path)?),
            form: lines.form,
            line_bytes: usize::try_from(lines.line_bytes).unwrap_or(usize::MAX),
            deletes: lines.deletes,
            begun: None,
            looked: false,
            passed: BTreeMap::new(),
        })
    }

    /// The file to read now: the one that was begun, else the one whose name comes first.
    async fn choose(&mut self, places: &impl Places) -> Result<Option<Found>, Fault> {
        if self.begun.is_none() && !self.looked {
            self.begun = self.known(places).await?;
            self.looked = self.begun.is_none();
        }
        if let Some(name) = self.begun.clone() {
            let (folder, source) = (self.folder.clone(), self.source.clone());
            let found = outside(move || recognise(&folder.open()?, name, &source)).await?;
            // Another in its place is one like any other.
            if let Some(found) = found.filter(|found| places.of(&found.place).is_some()) {
                return Ok(Some(found));
            }
            self.begun = None;
        }
        self.passed.retain(|_, since| since.elapsed() < PASSED);
        let (folder, source) = (self.folder.clone(), self.source.clone());
        let passed = self.passed.clone();
        let first = outside(move || {
            let dir = folder.open()?;
            let names = names(&dir)?.into_iter().map(PathBuf::from);
            let Some(name) = names.filter(|name| !passed.contains_key(name)).min() else {
                return Ok(Ok(None));
            };
            Ok(recognise(&dir, name.clone(), &source).map_err(|fault| (name, fault)))
        });
        first.await?.map_err(|(name, fault)| self.pass_over(name, fault))
    }

    /// The first file of which the log knows something: whoever was here before had begun it, or it
    /// is to leave.
    async fn known(&self, places: &impl Places) -> Result<Option<PathBuf>, Fault> {
        let (folder, source) = (self.folder.clone(), self.source.clone());
        let all = outside(move || {
            let dir = folder.open()?;
            let mut names = names(&dir)?;
            names.sort();
            let place = |name: OsString| {
                let metadata = dir.symlink_metadata(&name).ok()?;
                let place = place_of(&source, Path::new(&name), &metadata);
                Some((PathBuf::from(name), place))
            };
            Ok(names.into_iter().filter_map(place).collect::<Vec<_>>())
        });
        let mut all = all.await?.into_iter();
        Ok(all.find(|(_, place)| places.of(place).is_some()).map(|(name, _)| name))
    }

    /// Others come before a file that cannot be read, for a while.
    fn pass_over(&mut self, name: PathBuf, fault: Fault) -> Fault {
        if self.passed.len() < PASSED_MAX {
            self.passed.insert(name, Instant::now());
        }
        fault
    }

    /// What comes next of a file that was read so far.
    async fn read(&self, mut found: Found, at: u64) -> Result<Piece, Fault> {
        let (form, line_bytes) = (self.form, self.line_bytes);
        let mut passed = Passed::default();
        let step = loop {
            let looked = outside(move || {
                let step = match form {
                    LineForm::Whole => whole(&mut found, line_bytes),
                    _ => files::lines(&mut found.file, (at, &mut passed), (line_bytes, true)),
                };
                let step = step.map_err(|error| fault("read", &found.name, &error))?;
                Ok((step, found, passed))
            });
            let step;
            (step, found, passed) = looked.await?;
            match step {
                Read::Step(step) => break step,
                Read::Nothing => break Step { end: found.size.max(at), ..Step::default() },
                Read::More => {}
            }
        };
        let what = match step.bytes.is_empty() {
            true => What::Nothing,
            false => What::Bytes(files::sort(form), step.bytes),
        };
        let is_over = step.end >= found.size;
        let number = if is_over { READ | step.end } else { step.end };
        let shown = format!("{}: {} bytes", found.name.display(), step.end);
        let lag = found.size.saturating_sub(step.end);
        Ok(Piece { place: found.place, number, what, left_out: step.left_out, shown, lag })
    }

    /// Lets a file that was read leave the folder.
    async fn leave(&self, found: Found) -> Result<(), Fault> {
        let (folder, source) = (self.folder.clone(), self.source.clone());
        let deletes = self.deletes;
        outside(move || leave(&folder.open()?, &source, &found, deletes)).await
    }
}

impl Source for Folder {
    async fn next(&mut self, places: &impl Places) -> Result<Piece, Fault> {
        loop {
            let Some(found) = self.choose(places).await? else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let at = places.of(&found.place).unwrap_or(0);
            if at & READ != 0 {
                places.on_disk(&found.place).await?;
                self.leave(found).await?;
                self.begun = None;
                continue;
            }
            let name = found.name.clone();
            let read = self.read(found, at).await;
            return match read {
                Ok(piece) => {
                    self.begun = Some(name);
                    Ok(piece)
                }
                // What is behind it must not be taken before the rest of it.
                Err(fault) if at > 0 => Err(fault),
                Err(fault) => Err(self.pass_over(name, fault)),
            };
        }
    }
}

/// Does something with files, beside the worker.
async fn outside<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Fault> + Send + 'static,
) -> Result<R, Fault> {
    let done = blocking(move || Ok(work())).await;
    done.map_err(|error| Fault::new("internal", error.to_string()))?
}

/// Files that are to be read, in no order.
fn names(dir: &Dir) -> Result<Vec<OsString>, Fault> {
    let entries = dir.entries().map_err(|error| fault("list", Path::new("."), &error))?;
    let names = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let is_kept = text.starts_with('.') || text.ends_with(".tmp") || text.ends_with(".part");
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        (is_file && !is_kept).then_some(name)
    });
    Ok(names.collect())
}

/// Opens and recognises a file; none if it is gone.
fn recognise(dir: &Dir, name: PathBuf, source: &str) -> Result<Option<Found>, Fault> {
    let Some((file, metadata)) = files::open(dir, &name)? else { return Ok(None) };
    let place = place_of(source, &name, &metadata);
    Ok(Some(Found { name, place, size: metadata.len(), file }))
}

fn place_of(source: &str, name: &Path, metadata: &Metadata) -> String {
    places::of_file(source, &identity(name, metadata))
}

/// See [`Folder::leave`].
fn leave(dir: &Dir, source: &str, found: &Found, deletes: bool) -> Result<(), Fault> {
    let name = &found.name;
    let is_it = |at: &Path| match dir.symlink_metadata(at) {
        Ok(metadata) => Ok(place_of(source, name, &metadata) == found.place),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(fault("look at", at, &error)),
    };
    if !is_it(name)? {
        // Another has its name by now, and is read like any other.
        return Ok(());
    }
    let hash = key::hash(found.place.as_bytes());
    let mut to = PathBuf::from(format!(".{hash:016x}"));
    if !deletes {
        dir.create_dir_all(DONE).map_err(|error| fault("make", Path::new(DONE), &error))?;
        to = Path::new(DONE).join(name);
        if dir.symlink_metadata(&to).is_ok() {
            // One of this name was there before, and stays.
            to = Path::new(DONE).join(format!("{}.{hash:x}", name.display()));
        }
    }
    let wrong = |error| fault(if deletes { "delete" } else { "move into `done`" }, name, &error);
    dir.rename(name, dir, &to).map_err(wrong)?;
    if !is_it(&to)? {
        // It got another's name in this very moment.
        return put_back(dir, &to, name);
    }
    if deletes { dir.remove_file(&to).map_err(wrong) } else { Ok(()) }
}

/// Gives a file its name back, or if that is taken again, one that begins with it.
fn put_back(dir: &Dir, from: &Path, name: &Path) -> Result<(), Fault> {
    // That takes no name from another, and some file systems cannot do it.
    if dir.hard_link(from, dir, name).is_ok() {
        return dir.remove_file(from).map_err(|error| fault("put back", name, &error));
    }
    let metadata = dir.symlink_metadata(from).map_err(|error| fault("look at", from, &error))?;
    let hash = key::hash(identity(name, &metadata).as_bytes());
    let other = PathBuf::from(format!("{}.{hash:x}", name.display()));
    dir.rename(from, dir, &other).map_err(|error| fault("put back", name, &error))
}

/// By what a file is known again.
fn identity(name: &Path, metadata: &Metadata) -> String {
    let modified = metadata
        .modified()
        .ok()
        .and_then(|at| at.into_std().duration_since(UNIX_EPOCH).ok().map(|since| since.as_nanos()));
    let (dev, ino) = (metadata.dev(), metadata.ino());
    let all = format!("{}\0{}\0{modified:?}", name.display(), metadata.len());
    format!("{dev:x}.{ino:x}.{:016x}", key::hash(all.as_bytes()))
}

/// All of a file, unless it is too large.
fn whole(found: &mut Found, most: usize) -> std::io::Result<Read> {
    let end = found.size;
    if end > most as u64 {
        return Ok(Read::Step(Step { bytes: Bytes::new(), end, left_out: 1 }));
    }
    let mut bytes = Vec::new();
    found.file.by_ref().take(end).read_to_end(&mut bytes)?;
    Ok(Read::Step(Step { bytes: Bytes::from(bytes), end, left_out: 0 }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sluicebox_core::ids::Name;

    use super::super::source::contract::{Noted, all};
    use super::*;
    use crate::config::{Config, ConnectorsConfig, Sources};

    struct Bench {
        folder: tempfile::TempDir,
        config: ConnectorsConfig,
        noted: Noted,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary directory");
            let mut sources = Sources::default();
            sources.flag("--x", "connectors.folders", folder.path().display());
            let config = Config::load(&sources).expect("a configuration").config.connectors;
            Self { folder, config, noted: Noted::default() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// As whoever writes a file does it.
        fn put(&self, name: &str, text: &str) {
            let hidden = self.path(&format!("{name}.tmp"));
            fs::write(&hidden, text).expect("written");
            fs::rename(hidden, self.path(name)).expect("renamed");
        }

        fn source(&self, form: LineForm, deletes: bool) -> Folder {
            let path = self.folder.path().to_string_lossy().into_owned();
            let lines = Lines { path, form, line_bytes: 1000, deletes };
            let tenant = Name::new("a").expect("a name");
            let grants = Grants::new(&self.config, &tenant);
            Folder::open(&grants, "s", &lines).expect("allowed")
        }

        async fn all(&self, form: LineForm, deletes: bool) -> Vec<String> {
            all(&self.noted, || self.source(form, deletes), |number| number % 2 == 0).await
        }

        /// The file whose name comes first, as whoever reads it has it.
        fn found(&self, folder: &Folder) -> (Dir, Found) {
            let dir = folder.folder.open().expect("it is there");
            let name = names(&dir).expect("it can be listed").into_iter().min().expect("a file");
            let found = recognise(&dir, name.into(), "s").expect("it can be read").expect("there");
            (dir, found)
        }
    }

    #[tokio::test]
    async fn keeps_the_contract_of_sources() {
        let bench = Bench::new();
        let many: String = (0..60_000).map(|n| format!("b{n}\n")).collect();
        bench.put("b", &many);
        bench.put("a", "a1\na2");
        bench.put("c", "");
        fs::write(bench.path(".hidden"), "no\n").expect("written");
        fs::write(bench.path("x.part"), "no\n").expect("written");
        let lines = bench.all(LineForm::Text, false).await;
        assert_eq!(lines.concat(), format!("a1a2{}", many.replace('\n', "")));
        let mut done: Vec<_> = fs::read_dir(bench.path("done"))
            .expect("it was made")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        done.sort();
        assert_eq!(done, ["a", "b", "c"]);
        bench.put("a", "again\n");
        assert_eq!(bench.all(LineForm::Text, false).await, ["again"]);
        let kept = fs::read_to_string(bench.path("done/a")).expect("it stays");
        assert_eq!(kept, "a1\na2", "one that was there is not written over");
        bench.put("d", "d\n");
        assert_eq!(bench.all(LineForm::Text, true).await, ["d"]);
        assert!(!bench.path("d").exists() && !bench.path("done/d").exists());
    }

    #[tokio::test]
    async fn a_file_can_be_one_event_unless_it_is_too_large() {
        let bench = Bench::new();
        bench.put("a", "one\ntwo");
        bench.put("b", &"x".repeat(1001));
        bench.put("c", "three");
        assert_eq!(bench.all(LineForm::Whole, true).await, ["one", "two", "three"]);
        assert!(!bench.path("b").exists());
    }

    #[tokio::test]
    async fn links_are_not_read() {
        let bench = Bench::new();
        std::os::unix::fs::symlink("/etc/hostname", bench.path("a")).expect("a link");
        fs::create_dir(bench.path("b")).expect("made");
        bench.put("c", "c\n");
        assert_eq!(bench.all(LineForm::Text, false).await, ["c"]);
    }

    #[tokio::test]
    async fn a_file_that_took_the_name_of_one_that_was_read_is_read() {
        for deletes in [false, true] {
            let bench = Bench::new();
            let folder = bench.source(LineForm::Text, deletes);
            bench.put("a", "first\n");
            let (dir, found) = bench.found(&folder);
            bench.put("a", "second one\n");
            leave(&dir, "s", &found, deletes).expect("there is nothing to do");
            assert_eq!(bench.all(LineForm::Text, deletes).await, ["second one"]);
        }
    }

    #[test]
    fn what_was_moved_by_mistake_gets_its_name_back_or_one_like_it() {
        let bench = Bench::new();
        let dir = bench.source(LineForm::Text, false).folder.open().expect("it is there");
        let text = |name: &Path| fs::read_to_string(bench.folder.path().join(name));
        bench.put(".moved", "second\n");
        put_back(&dir, Path::new(".moved"), Path::new("a")).expect("the name is free");
        assert_eq!(text(Path::new("a")).expect("there"), "second\n");
        bench.put(".moved", "third\n");
        put_back(&dir, Path::new(".moved"), Path::new("a")).expect("another name is free");
        assert_eq!(text(Path::new("a")).expect("there"), "second\n", "nothing is written over");
        let mut all = names(&dir).expect("it can be listed");
        all.sort();
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[1].to_string_lossy().starts_with("a."), "{all:?}");
        assert_eq!(text(Path::new(&all[1])).expect("there"), "third\n");
    }

    #[tokio::test]
    async fn a_file_that_was_begun_is_ended_first_whoever_reads_on() {
        let bench = Bench::new();
        let many: String = (0..60_000).map(|n| format!("b{n}\n")).collect();
        bench.put("b", &many);
        let mut folder = bench.source(LineForm::Text, false);
        let piece = folder.next(&bench.noted).await.expect("some of it");
        bench.noted.note(&piece);
        bench.put("a", "a\n");
        let again = folder.next(&bench.noted).await.expect("the rest");
        assert_eq!(again.place, piece.place);
        // One that has nothing in memory finds it as well.
        let mut other = bench.source(LineForm::Text, false);
        assert_eq!(other.next(&bench.noted).await.expect("the rest").place, piece.place);
        let lines = bench.all(LineForm::Text, false).await;
        assert_eq!(lines.last().map(String::as_str), Some("a"));
        assert_eq!(lines.len() + super::super::source::contract::lines(&piece).len(), 60_001);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_holds_up_no_other() {
        let bench = Bench::new();
        bench.put("a", "a\n");
        bench.put("b", "b\n");
        let mut folder = bench.source(LineForm::Text, false);
        let fault = Fault::new("connector.file", "bad");
        assert_eq!(folder.pass_over(PathBuf::from("a"), fault.clone()), fault);
        let piece = folder.next(&bench.noted).await.expect("the other");
        assert_eq!(super::super::source::contract::lines(&piece), ["b"]);
        bench.noted.note(&piece);
        // Later it is tried again.
        let long_ago = Instant::now().checked_sub(PASSED).expect("the machine runs for so long");
        folder.passed.insert(PathBuf::from("a"), long_ago);
        let piece = folder.next(&bench.noted).await.expect("it can be read now");
        assert_eq!(super::super::source::contract::lines(&piece), ["a"]);
    }
}
