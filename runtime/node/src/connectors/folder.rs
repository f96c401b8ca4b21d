//! Each file that comes into a folder, in the order of their names.
//!
//! - A file is read once it has its name: who writes one moves it there when it is complete. Names
//!   that begin with a dot, or end in `.tmp` or `.part`, are not looked at; nor are links and
//!   folders.
//! - What was read and is on disk in the log leaves the folder: into `done`, or for good. So what
//!   has to be remembered is one file.
//! - A file of another size or time is another file, whatever its name.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use cap_std::fs::{Dir, File, Metadata, MetadataExt as _};
use sluicebox_core::key;
use sluicebox_core::pipeline::{LineForm, Lines};

use super::files::{self, Place, Step, fault};
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

/// See the module.
#[derive(Debug)]
pub(super) struct Folder {
    source: String,
    folder: Place,
    form: LineForm,
    line_bytes: usize,
    deletes: bool,
}

/// A file that is to be read.
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
        })
    }

    /// The file whose name comes first.
    async fn first(&self) -> Result<Option<Found>, Fault> {
        let (folder, source) = (self.folder.clone(), self.source.clone());
        outside(move || first(&folder.open()?, &source)).await
    }

    /// What comes next of a file that was read so far.
    async fn read(&self, mut found: Found, at: u64) -> Result<Piece, Fault> {
        let (form, line_bytes) = (self.form, self.line_bytes);
        outside(move || {
            let step = match form {
                LineForm::Whole => whole(&mut found, line_bytes),
                _ => files::lines(&mut found.file, at, (line_bytes, true)),
            };
            let step = step.map_err(|error| fault("read", &found.name, &error))?;
            let step = step.unwrap_or(Step { end: found.size.max(at), ..Step::default() });
            let what = match step.bytes.is_empty() {
                true => What::Nothing,
                false => What::Bytes(files::sort(form), step.bytes),
            };
            let is_over = step.end >= found.size;
            let number = if is_over { READ | step.end } else { step.end };
            let shown = format!("{}: {} bytes", found.name.display(), step.end);
            let lag = found.size.saturating_sub(step.end);
            Ok(Piece { place: found.place, number, what, left_out: step.left_out, shown, lag })
        })
        .await
    }

    /// Lets a file that was read leave the folder.
    async fn leave(&self, found: Found) -> Result<(), Fault> {
        let (folder, deletes) = (self.folder.clone(), self.deletes);
        outside(move || {
            let dir = folder.open()?;
            let name = &found.name;
            if deletes {
                return dir.remove_file(name).map_err(|error| fault("delete", name, &error));
            }
            dir.create_dir_all(DONE).map_err(|error| fault("make", Path::new(DONE), &error))?;
            let mut to = Path::new(DONE).join(name);
            if dir.symlink_metadata(&to).is_ok() {
                // One of this name was there before, and stays.
                let own = format!("{}.{:x}", name.display(), key::hash(found.place.as_bytes()));
                to = Path::new(DONE).join(own);
            }
            dir.rename(name, &dir, &to).map_err(|error| fault("move into `done`", name, &error))
        })
        .await
    }
}

impl Source for Folder {
    async fn next(&mut self, places: &impl Places) -> Result<Piece, Fault> {
        loop {
            let Some(found) = self.first().await? else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let at = places.of(&found.place).unwrap_or(0);
            if at & READ == 0 {
                return self.read(found, at).await;
            }
            places.on_disk(&found.place).await?;
            self.leave(found).await?;
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

fn first(dir: &Dir, source: &str) -> Result<Option<Found>, Fault> {
    let here = Path::new(".");
    let entries = dir.entries().map_err(|error| fault("list", here, &error))?;
    let names = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let is_kept = text.starts_with('.') || text.ends_with(".tmp") || text.ends_with(".part");
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        (is_file && !is_kept).then_some(name)
    });
    let Some(name) = names.min().map(PathBuf::from) else { return Ok(None) };
    let Some((file, metadata)) = files::open(dir, &name)? else { return Ok(None) };
    let place = places::of_file(source, &identity(&name, &metadata));
    Ok(Some(Found { name, place, size: metadata.len(), file }))
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
fn whole(found: &mut Found, most: usize) -> std::io::Result<Option<Step>> {
    let end = found.size;
    if end > most as u64 {
        return Ok(Some(Step { bytes: Bytes::new(), end, left_out: 1 }));
    }
    let mut bytes = Vec::new();
    found.file.by_ref().take(end).read_to_end(&mut bytes)?;
    Ok(Some(Step { bytes: Bytes::from(bytes), end, left_out: 0 }))
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

        async fn all(&self, form: LineForm, deletes: bool) -> Vec<String> {
            let path = self.folder.path().to_string_lossy().into_owned();
            let lines = Lines { path, form, line_bytes: 1000, deletes };
            let tenant = Name::new("a").expect("a name");
            let make = || {
                let grants = Grants::new(&self.config, &tenant);
                Folder::open(&grants, "s", &lines).expect("allowed")
            };
            all(&self.noted, make, |number| number % 2 == 0).await
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
}
