//! A stage's folder: what it is, and building it.
//!
//! `stage.toml` says name, language and world, and each has a default: the folder's name, what its
//! sources look like, the language's world. A field nobody knows is refused.
//!
//! What was built of equal files is not built again. All files count, not only sources: a source
//! can take in any other. A folder with more than is looked through is built each time. One build
//! of a folder runs at a time, whichever process asks for it.

use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::error::at;
use crate::process::Progress;
use crate::sdk::{self, Sdk};
use crate::sources::{entries, holds_sources};
use crate::{Error, LANGUAGES, Language, Result, Tools, language};

/// The file that makes a folder a project.
pub const FILE: &str = "stage.toml";

/// Folders below one that is searched for projects, one within the other.
const DEPTH_MAX: usize = 8;

/// Files and folders of a project that are looked through for changes, and the bytes in them.
const STAMPED: Room = Room { entries: 10_000, bytes: 256 << 20 };

/// A stage's folder, and where its parts are.
pub struct Project {
    /// Also what its component is called.
    pub name: String,
    /// Absolute.
    pub folder: PathBuf,
    /// How it is built.
    pub language: &'static dyn Language,
    /// The world of the WIT it is for.
    pub world: String,
    /// What it is written against.
    pub sdk: Sdk,
    /// The folder for what is made on the way.
    pub work: PathBuf,
    /// The finished component.
    pub component: PathBuf,
}

/// A component that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Built {
    /// Whether it differs from what was there before.
    pub changed: bool,
    /// Its size.
    pub bytes: u64,
    /// How long it took.
    pub time: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    stage: Fields,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    name: Option<String>,
    language: Option<String>,
    world: Option<String>,
}

impl Project {
    /// Reads a folder's `stage.toml`.
    ///
    /// # Errors
    /// There is none, or it is wrong.
    pub fn read(folder: &Path) -> Result<Self> {
        let folder = std::path::absolute(folder).map_err(at("find", folder))?;
        let file = folder.join(FILE);
        let text = fs::read_to_string(&file).map_err(at("read", &file))?;
        let wrong = |what: String, fix: &str| Error::Project {
            file: file.clone(),
            what,
            fix: fix.to_owned(),
        };
        let text: Text = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            wrong(
                format!("line {line}: {}", error.message()),
                "write [stage] with name, language and world, each a text",
            )
        })?;
        let Fields { name, language: named, world } = text.stage;
        let of_folder = || folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.unwrap_or_else(of_folder);
        if !is_name(&name) {
            let rule = "set stage.name to 1 to 63 of a-z, 0-9 and '-', beginning with a letter and \
                        not ending with '-'";
            return Err(wrong(format!("{name:?} is no name"), rule));
        }
        let language = match named {
            Some(named) => language(&named).map_err(|error| {
                wrong(format!("stage.language: {error}"), "choose one of these")
            })?,
            None => detect(&folder).ok_or_else(|| {
                let what = "stage.language is not given, and the sources do not say".to_owned();
                wrong(what, &format!("set it to one of {}", crate::language_names()))
            })?,
        };
        let world = world.unwrap_or_else(|| language.world(&folder).to_owned());
        let hidden = folder.join(".sluicebox");
        let component = folder.join("build").join(format!("{name}.wasm"));
        let sdk = Sdk::below(&hidden.join("sdk"));
        Ok(Self { name, language, world, sdk, work: hidden.join("work"), component, folder })
    }

    /// All projects in a folder and below it, by name.
    ///
    /// # Errors
    /// One cannot be read, or two have one name.
    pub fn all_below(folder: &Path) -> Result<Vec<Self>> {
        let mut files = Vec::new();
        files_called(FILE, folder, DEPTH_MAX, &mut files)?;
        let mut projects: Vec<Self> = Vec::new();
        for file in files {
            let project = Self::read(file.parent().unwrap_or(folder))?;
            if let Some(other) = projects.iter().find(|other| other.name == project.name) {
                return Err(Error::Project {
                    file,
                    what: format!("{} has the name {} too", other.folder.display(), project.name),
                    fix: "give each stage a name of its own".to_owned(),
                });
            }
            projects.push(project);
        }
        Ok(projects)
    }

    /// The folder for what is made on the way, which is there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn work(&self) -> Result<&Path> {
        fs::create_dir_all(&self.work).map_err(at("make", &self.work))?;
        Ok(&self.work)
    }

    /// Where a recipe puts the component.
    #[must_use]
    pub fn finished(&self) -> PathBuf {
        self.work.join("component.wasm")
    }

    /// Brings the SDK in its folder to the version of this program.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn unpack(&self) -> Result<()> {
        sdk::unpack(&self.folder.join(".sluicebox/sdk"), self.language.sdk())
    }

    /// Builds the component, if its sources are others than those it was made of. Waits for a
    /// build of the same folder by another process or thread.
    ///
    /// # Errors
    /// Tools are missing or fail; what was there before stays.
    pub fn build(&self, tools: &Tools, progress: &mut Progress<'_>) -> Result<Built> {
        let begun = Instant::now();
        // Two builds would write the same files below `work`. Held until the end of this function.
        let _turn = self.turn(progress)?;
        self.unpack()?;
        let stamp = if self.language.knows_changes() {
            None
        } else {
            let stamp = self.stamp(STAMPED)?;
            if stamp.is_none() {
                progress.say(&self.too_much());
            }
            stamp
        };
        let stamped = self.work.join("stamp");
        let is_current = self.component.is_file()
            && stamp.as_ref().is_some_and(|stamp| {
                fs::read_to_string(&stamped).is_ok_and(|saved| saved == *stamp)
            });
        let changed = !is_current && self.make(tools, progress)?;
        if let Some(stamp) = stamp.filter(|_| !is_current) {
            fs::write(&stamped, stamp).map_err(at("write", &stamped))?;
        }
        let found = fs::metadata(&self.component).map_err(at("read", &self.component))?;
        Ok(Built { changed, bytes: found.len(), time: begun.elapsed() })
    }

    /// Builds, whatever was there; true if the result is another one.
    ///
    /// # Errors
    /// Tools are missing or fail.
    pub fn make(&self, tools: &Tools, progress: &mut Progress<'_>) -> Result<bool> {
        let is_first = !self.component.is_file();
        if is_first {
            self.needs_nothing(tools)?;
        }
        self.work()?;
        if let Err(error) = self.language.build(self, tools, progress) {
            // Looking takes time, and what was there the last time mostly is there.
            self.needs_nothing(tools)?;
            return Err(error);
        }
        let finished = self.finished();
        let same = fs::read(&finished).map_err(at("read", &finished))?;
        if fs::read(&self.component).is_ok_and(|old| old == same) {
            return Ok(false);
        }
        if let Some(folder) = self.component.parent() {
            fs::create_dir_all(folder).map_err(at("make", folder))?;
        }
        // In one step, so that nobody ever reads half of one.
        fs::rename(&finished, &self.component).map_err(at("write", &self.component))?;
        Ok(true)
    }

    /// A locked file; the lock goes with it, or with the process.
    fn turn(&self, progress: &mut Progress<'_>) -> Result<File> {
        let hidden = self.folder.join(".sluicebox");
        fs::create_dir_all(&hidden).map_err(at("make", &hidden))?;
        let path = hidden.join("lock");
        let file = File::create(&path).map_err(at("write", &path))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => progress.say("waiting for another build of it"),
            Err(TryLockError::Error(error)) => return Err(at("lock", &path)(error)),
        }
        file.lock().map_err(at("lock", &path))?;
        Ok(file)
    }

    fn needs_nothing(&self, tools: &Tools) -> Result<()> {
        match self.language.missing(tools) {
            missing if missing.is_empty() => Ok(()),
            missing => Err(Error::Missing { title: self.language.title(), missing }),
        }
    }

    /// Whether a change of this file asks for a new build. What editors and systems leave beside
    /// a source has its extension often, and a name that begins with a dot.
    #[must_use]
    pub fn is_source(&self, file: &Path) -> bool {
        let Ok(below) = file.strip_prefix(&self.folder) else { return false };
        let mut folders: Vec<_> = below.iter().collect();
        let Some(name) = folders.pop() else { return false };
        !is_hidden(&name.to_string_lossy())
            && folders.iter().all(|name| holds_sources(&name.to_string_lossy()))
            && (below == Path::new(FILE) || self.language.is_source(below))
    }

    /// A hash of everything in the folder that can decide the result; none if it is too much.
    fn stamp(&self, mut room: Room) -> Result<Option<String>> {
        let mut hasher = DefaultHasher::new();
        (sdk::version(), &self.world, &self.name).hash(&mut hasher);
        let is_whole = hash_below(&self.folder, &mut room, &mut hasher)?;
        Ok(is_whole.then(|| format!("{:016x}\n", hasher.finish())))
    }

    fn too_much(&self) -> String {
        format!(
            "{} holds more than {} files or {} MiB, so it is built each time; move elsewhere what \
             the stage is not made of",
            self.folder.display(),
            STAMPED.entries,
            STAMPED.bytes >> 20
        )
    }
}

/// How much of a project is looked at yet.
#[derive(Clone, Copy)]
struct Room {
    entries: usize,
    bytes: u64,
}

/// Hashes the files in a folder and below it; false if there is no room for all of them.
fn hash_below(folder: &Path, room: &mut Room, hasher: &mut DefaultHasher) -> Result<bool> {
    for path in entries(folder)? {
        let Some(left) = room.entries.checked_sub(1) else { return Ok(false) };
        room.entries = left;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_whole = if path.is_dir() {
            path.is_symlink() || !holds_sources(&name) || hash_below(&path, room, hasher)?
        } else {
            // A link to nothing is no file, a pipe would keep its reader waiting.
            is_hidden(&name) || !path.is_file() || hash_file(&path, room, hasher)?
        };
        if !is_whole {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Hashes a file; false if there is no room for it.
fn hash_file(path: &Path, room: &mut Room, hasher: &mut DefaultHasher) -> Result<bool> {
    path.hash(hasher);
    // One that may not be read, or went away meanwhile, is the compiler's to complain of.
    let Ok(file) = File::open(path) else { return Ok(true) };
    let mut file = file.take(room.bytes + 1);
    let mut buffer = vec![0; 64 << 10];
    let mut len: u64 = 0;
    loop {
        let read = file.read(&mut buffer).map_err(at("read", path))?;
        if read == 0 {
            break;
        }
        hasher.write(&buffer[..read]);
        len += read as u64;
    }
    len.hash(hasher);
    let Some(left) = room.bytes.checked_sub(len) else { return Ok(false) };
    room.bytes = left;
    Ok(true)
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// Files of one name in a folder and below it; not in folders that hold no sources.
///
/// # Errors
/// A folder cannot be read.
pub fn files_called(
    name: &str,
    folder: &Path,
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> Result<()> {
    let file = folder.join(name);
    if file.is_file() {
        found.push(file);
    }
    for path in entries(folder)? {
        let called = path.file_name().unwrap_or_default().to_string_lossy();
        if depth > 0 && path.is_dir() && !path.is_symlink() && holds_sources(&called) {
            files_called(name, &path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// The language a folder's sources are in.
#[must_use]
pub fn detect(folder: &Path) -> Option<&'static dyn Language> {
    LANGUAGES.iter().copied().find(|language| language.detects(folder))
}

/// The rule of names; a project's becomes that of a file.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last() != Some(&b'-')
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, files: &[&str]) -> Result<Project> {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("shout");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(FILE), text).unwrap();
        for file in files {
            fs::write(folder.join(file), "").unwrap();
        }
        Project::read(&folder)
    }

    #[test]
    fn what_is_left_out_follows_from_the_folder() {
        let project = read("[stage]\n", &["app.py"]).unwrap();
        assert_eq!((project.name.as_str(), project.language.name()), ("shout", "python"));
        assert_eq!(project.world, "stage-typed");
        for (file, language) in [("stage.py", "python"), ("stage.js", "js"), ("stage.ts", "ts")] {
            let project = read("[stage]\n", &[file]).unwrap();
            assert_eq!((project.language.name(), project.world.as_str()), (language, "stage"));
        }
        assert!(project.component.ends_with("shout/build/shout.wasm"));
        let project = read("[stage]\nname = \"x\"\nlanguage = \"rust\"\n", &[]).unwrap();
        assert_eq!((project.name.as_str(), project.world.as_str()), ("x", "stage"));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_fix() {
        let said = |text: &str| {
            let error = read(text, &[]).err().unwrap();
            (error.to_string(), error.fix())
        };
        let (what, fix) = said("[stage]\nlang = \"c\"\n");
        assert!(what.contains("line 2: unknown field `lang`"), "{what}");
        assert!(fix.contains("name, language and world"), "{fix}");
        let (what, _) = said("[stage]\nlanguage = \"cobol\"\n");
        let known = "there is no language \"cobol\"; known are rust, python, js, ts, c, go";
        assert!(what.contains(known), "{what}");
        assert!(said("[stage]\n").0.contains("the sources do not say"));
        assert!(said("[stage]\nname = \"../x\"\nlanguage = \"c\"\n").0.contains("is no name"));
        assert!(said("").0.contains("missing field `stage`"));
    }

    /// Takes no tools.
    struct Toolless;

    impl Language for Toolless {
        fn name(&self) -> &'static str {
            "rust"
        }

        fn title(&self) -> &'static str {
            "Toolless"
        }

        fn detects(&self, _folder: &Path) -> bool {
            false
        }

        fn is_source(&self, _file: &Path) -> bool {
            false
        }

        fn knows_changes(&self) -> bool {
            true
        }

        fn missing(&self, _tools: &Tools) -> Vec<crate::Missing> {
            Vec::new()
        }

        fn fetch(&self, _tools: &Tools, _progress: &mut Progress<'_>) -> Result<()> {
            Ok(())
        }

        fn build(&self, project: &Project, _: &Tools, _: &mut Progress<'_>) -> Result<()> {
            fs::write(project.finished(), "component").map_err(at("write", &project.work))
        }
    }

    #[test]
    fn a_build_waits_for_another_one_of_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "[stage]\nname = \"x\"\nlanguage = \"c\"\n").unwrap();
        let mut project = Project::read(folder.path()).unwrap();
        project.language = &Toolless;
        let turn = project.turn(&mut Progress::new(|_| ())).unwrap();
        let (say, said) = std::sync::mpsc::sync_channel(1);
        let built = std::thread::scope(|scope| {
            let project = &project;
            let other = scope.spawn(move || {
                let mut progress = Progress::new(|line| say.send(line.to_owned()).unwrap());
                project.build(&Tools::of_user().unwrap(), &mut progress)
            });
            assert_eq!(said.recv().as_deref(), Ok("waiting for another build of it"));
            assert!(!project.component.exists() && !project.work.exists(), "it has not begun");
            drop(turn);
            other.join().unwrap()
        });
        assert!(built.unwrap().changed);
    }

    #[test]
    fn sources_are_told_from_what_is_made_of_them() {
        let project = read("[stage]\nlanguage = \"rust\"\n", &[]).unwrap();
        let is_source = |file: &str| project.is_source(&project.folder.join(file));
        assert!(is_source("src/lib.rs") && is_source("stage.toml") && is_source("Cargo.toml"));
        assert!(!is_source("target/debug/x.rs") && !is_source(".sluicebox/sdk/rust/src/lib.rs"));
        assert!(!is_source("events.ndjson") && !project.is_source(Path::new("/x/lib.rs")));
        assert!(!is_source("src/.#lib.rs") && !is_source("src/._lib.rs") && !is_source(""));
    }

    /// A project in C whose folder stays, and its stamp after each of some changes.
    fn stamps(changes: &[&dyn Fn(&Path)]) -> Vec<String> {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("shout");
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::write(folder.join(FILE), "[stage]\n").unwrap();
        fs::write(folder.join("stage.c"), "").unwrap();
        let project = Project::read(&folder).unwrap();
        let stamp = |change: &&dyn Fn(&Path)| {
            change(&folder);
            project.stamp(STAMPED).unwrap().unwrap()
        };
        changes.iter().map(stamp).collect()
    }

    fn write(folder: &Path, file: &str, text: &str) {
        sdk::write(&folder.join(file), text.as_bytes()).unwrap();
    }

    #[test]
    fn whatever_a_source_can_take_in_decides() {
        let stamps = stamps(&[
            &|_| {},
            &|folder| write(folder, "stage.c", "int x;"),
            &|folder| write(folder, "data/table.csv", "1,2"),
            &|folder| write(folder, "data/table.csv", "1,3"),
            &|folder| write(folder, "include/own.hpp", ""),
            &|folder| fs::rename(folder.join("data"), folder.join("other")).unwrap(),
            &|folder| fs::remove_file(folder.join("include/own.hpp")).unwrap(),
        ]);
        let different: std::collections::BTreeSet<_> = stamps.iter().collect();
        assert_eq!(different.len(), stamps.len(), "{stamps:?}");
    }

    #[test]
    fn what_is_made_of_sources_and_what_is_hidden_does_not_decide() {
        let stamps = stamps(&[
            &|_| {},
            &|folder| write(folder, "build/shout.wasm", "x"),
            &|folder| write(folder, ".sluicebox/work/core.wasm", "x"),
            &|folder| write(folder, "target/x", "x"),
            &|folder| write(folder, "node_modules/x/index.js", "x"),
            &|folder| write(folder, "src/.stage.c.swp", "x"),
        ]);
        assert!(stamps.iter().all(|stamp| *stamp == stamps[0]), "{stamps:?}");
    }

    #[cfg(unix)]
    #[test]
    fn links_to_nothing_break_no_build() {
        use std::os::unix::fs::symlink;
        let stamps = stamps(&[
            &|_| {},
            &|folder| symlink("ada@host.1234", folder.join(".#other.c")).unwrap(),
            &|folder| symlink("gone.c", folder.join("src/other.c")).unwrap(),
            &|folder| symlink("..", folder.join("src/up")).unwrap(),
        ]);
        assert!(stamps.iter().all(|stamp| *stamp == stamps[0]), "{stamps:?}");
    }

    #[test]
    fn a_folder_with_too_much_has_no_stamp() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), FILE, "[stage]\nname = \"x\"\n");
        write(place.path(), "src/stage.c", "");
        write(place.path(), "data", "12345");
        let project = Project::read(place.path()).unwrap();
        let bytes = 5 + fs::metadata(place.path().join(FILE)).unwrap().len();
        let stamp = |entries, bytes| project.stamp(Room { entries, bytes }).unwrap();
        let is_stamped = |entries, bytes| stamp(entries, bytes).is_some();
        assert!(is_stamped(4, bytes));
        assert!(!is_stamped(3, bytes) && !is_stamped(4, bytes - 1) && !is_stamped(0, 0));
        assert!(project.too_much().contains("more than 10000 files or 256 MiB"));
    }
}
