//! Files of sources: opened below a folder that the operator allowed, and read in whole lines.
//!
//! - A way that leads out of that folder, by a link too, is not gone.
//! - Only ordinary files are read: what is a pipe or a device is refused, and opening one waits for
//!   nobody.
//! - A line longer than allowed is passed over and counted, however long it is; nothing of it is
//!   kept in memory, and its bytes are read once, some at a time.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, MetadataExt as _, OpenOptions, OpenOptionsExt as _};
use rustix::fs::OFlags;
use sluicebox_core::manifest::show;
use sluicebox_core::pipeline::{LineForm, Lines};

use super::Fault;
use super::grants::{Grants, Refused};
use crate::http::feed::Sort;

/// Bytes that are read at a time, if one line is not longer.
pub(super) const STEP_BYTES: usize = 256 * 1024;

/// Bytes of a line that is too long that are passed over at a time.
const PASS_BYTES: usize = 32 * STEP_BYTES;

/// Refuses what cannot be read at all.
pub(super) fn check(grants: &Grants<'_>, lines: &Lines, is_file: bool) -> Result<(), Refused> {
    let (_, rest) = grants.place(&lines.path)?;
    if is_file && rest == Path::new(".") {
        let message = format!("is {}, which is a folder", show(&lines.path));
        let fix = "write the path of a file in it, or [sources.….folder]";
        return Err(Refused::new("path", "connector.path", message, fix));
    }
    Ok(())
}

/// What becomes an event.
pub(super) const fn sort(form: LineForm) -> Sort {
    match form {
        LineForm::Json => Sort::Json,
        LineForm::Text => Sort::Text,
        LineForm::Whole => Sort::Whole,
    }
}

/// A folder below one that was allowed.
#[derive(Debug, Clone)]
pub(super) struct Place {
    allowed: PathBuf,
    below: PathBuf,
}

impl Place {
    pub(super) fn new((allowed, below): (PathBuf, PathBuf)) -> Self {
        Self { allowed, below }
    }

    /// Its parent, and its own name there; none if it is what was allowed.
    pub(super) fn parent(&self) -> Option<(Self, PathBuf)> {
        let name = PathBuf::from(self.below.file_name()?);
        let parent = self.below.parent().filter(|parent| !parent.as_os_str().is_empty());
        let below = parent.unwrap_or_else(|| Path::new(".")).to_owned();
        Some((Self { allowed: self.allowed.clone(), below }, name))
    }

    /// Opens it.
    pub(super) fn open(&self) -> Result<Dir, Fault> {
        let allowed = Dir::open_ambient_dir(&self.allowed, ambient_authority());
        let allowed = allowed.map_err(|error| fault("open the folder", &self.allowed, &error))?;
        if self.below == Path::new(".") {
            return Ok(allowed);
        }
        let below = allowed.open_dir(&self.below);
        below.map_err(|error| fault("open the folder", &self.below, &error))
    }
}

pub(super) fn fault(doing: &str, path: &Path, error: &io::Error) -> Fault {
    let path = show(&path.to_string_lossy());
    Fault::new("connector.file", format!("cannot {doing} {path}: {error}"))
}

/// Opens an ordinary file; none if there is none.
pub(super) fn open(dir: &Dir, name: &Path) -> Result<Option<(File, Metadata)>, Fault> {
    let mut options = OpenOptions::new();
    // A pipe that nobody writes to is opened at once, and refused below.
    options.read(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = match dir.open_with(name, &options) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault("open", name, &error)),
    };
    let metadata = file.metadata().map_err(|error| fault("look at", name, &error))?;
    if metadata.is_file() {
        return Ok(Some((file, metadata)));
    }
    let message = format!("{} is no ordinary file", show(&name.to_string_lossy()));
    Err(Fault::new("connector.file", message))
}

/// Which file it is, as long as it is there.
pub(super) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Whole lines of a file.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// They, with their ends; but for those that are too long.
    pub bytes: Bytes,
    /// Where they end.
    pub end: u64,
    /// Lines that were too long.
    pub left_out: u64,
}

/// What a look at a file gave.
#[derive(Debug)]
pub(super) enum Read {
    Step(Step),
    /// There is no whole line yet.
    Nothing,
    /// It is in the middle of a line that is too long, and more of that is there.
    More,
}

/// How far a line that is too long was passed over, to go on from there: in memory alone, as its
/// place is its beginning until its end is found.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// Where the line begins, and up to where no end of it was found.
    line: Option<(u64, u64)>,
}

/// Reads some whole lines from `at` on. With `to_end` nothing comes behind what is there, so that
/// the last line needs no end.
pub(super) fn lines(
    file: &mut File,
    (at, passed): (u64, &mut Passed),
    (line_bytes, to_end): (usize, bool),
) -> io::Result<Read> {
    // Of one that was truncated since nothing is known.
    let size = file.metadata()?.len();
    if let Some((_, to)) = passed.line.filter(|(begin, to)| *begin == at && *to <= size) {
        return pass_over(file, (at, to), passed, to_end);
    }
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    let mut wanted = STEP_BYTES;
    loop {
        let missing = wanted.saturating_sub(bytes.len()) as u64;
        let is_end = (file.by_ref().take(missing).read_to_end(&mut bytes)? as u64) < missing;
        if let Some(last) = memchr::memrchr(b'\n', &bytes) {
            bytes.truncate(last + 1);
            return Ok(Read::Step(without_long(bytes, at, line_bytes)));
        }
        if is_end && to_end && !bytes.is_empty() {
            return Ok(Read::Step(without_long(bytes, at, line_bytes)));
        }
        if bytes.len() > line_bytes {
            return pass_over(file, (at, at + bytes.len() as u64), passed, to_end);
        }
        if is_end {
            return Ok(Read::Nothing);
        }
        // One line that is longer than a step.
        wanted = (wanted * 2).min(line_bytes + 1);
    }
}

/// Lines of ordinary length.
fn without_long(bytes: Vec<u8>, at: u64, line_bytes: usize) -> Step {
    let end = at + bytes.len() as u64;
    let is_long = |line: &[u8]| line.strip_suffix(b"\n").unwrap_or(line).len() > line_bytes;
    let left_out = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| is_long(line));
    let left_out = left_out.count() as u64;
    if left_out == 0 {
        return Step { bytes: Bytes::from(bytes), end, left_out };
    }
    let others = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_long(line));
    Step { bytes: Bytes::from(others.collect::<Vec<_>>().concat()), end, left_out }
}

/// Reads on to the end of a line that is too long, a bounded part of it.
fn pass_over(
    file: &mut File,
    (begin, mut to): (u64, u64),
    passed: &mut Passed,
    to_end: bool,
) -> io::Result<Read> {
    file.seek(SeekFrom::Start(to))?;
    let step = |end| Ok(Read::Step(Step { bytes: Bytes::new(), end, left_out: 1 }));
    let mut piece = vec![0; STEP_BYTES];
    let most = to + PASS_BYTES as u64;
    while to < most {
        let count = match file.read(&mut piece) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if let Some(end) = memchr::memchr(b'\n', &piece[..count]) {
            passed.line = None;
            return step(to + end as u64 + 1);
        }
        if count == 0 && to_end {
            passed.line = None;
            return step(to);
        }
        to += count as u64;
        passed.line = Some((begin, to));
        if count == 0 {
            return Ok(Read::Nothing);
        }
    }
    Ok(Read::More)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, Dir) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let dir = Dir::open_ambient_dir(folder.path(), ambient_authority()).expect("it is there");
        (folder, dir)
    }

    fn read(text: &[u8], at: u64, line_bytes: usize, to_end: bool) -> Option<(String, u64, u64)> {
        let (folder, dir) = dir();
        std::fs::write(folder.path().join("f"), text).expect("written");
        let (mut file, _) = open(&dir, Path::new("f")).expect("ordinary").expect("there");
        let mut passed = Passed::default();
        match lines(&mut file, (at, &mut passed), (line_bytes, to_end)).expect("it can be read") {
            Read::Step(Step { bytes, end, left_out }) => {
                Some((String::from_utf8_lossy(&bytes).into_owned(), end, left_out))
            }
            Read::Nothing => None,
            Read::More => panic!("it is shorter"),
        }
    }

    #[test]
    fn only_whole_lines_are_read() {
        let text = |text: &str, end, left_out| Some((text.to_owned(), end, left_out));
        assert_eq!(read(b"a\nbb\nc", 0, 100, false), text("a\nbb\n", 5, 0));
        assert_eq!(read(b"a\nbb\nc", 5, 100, false), None);
        assert_eq!(read(b"a\nbb\nc", 5, 100, true), text("c", 6, 0));
        assert_eq!(read(b"a\nbb\nc", 6, 100, true), None);
        assert_eq!(read(b"", 0, 100, true), None);
        assert_eq!(read(b"a\n", 9, 100, true), None, "behind its end");
    }

    #[test]
    fn lines_that_are_too_long_are_passed_over_whatever_their_length() {
        let long = "x".repeat(3 * STEP_BYTES);
        let text = |text: &str, end, left_out| Some((text.to_owned(), end, left_out));
        assert_eq!(read(b"abcd\nab\n", 0, 3, false), text("ab\n", 8, 1));
        let length = long.len() as u64;
        let both = format!("{long}\nab\n");
        assert_eq!(read(both.as_bytes(), 0, 3, false), text("", length + 1, 1));
        assert_eq!(read(both.as_bytes(), length + 1, 3, false), text("ab\n", length + 4, 0));
        assert_eq!(read(long.as_bytes(), 0, 3, false), None, "its end is not there yet");
        assert_eq!(read(long.as_bytes(), 0, 3, true), text("", length, 1));
        let whole = read(both.as_bytes(), 0, long.len(), false).expect("a long line is a line");
        assert_eq!((whole.0.len(), whole.2), (long.len() + 1, 0));
    }

    #[test]
    fn a_line_without_end_is_read_once_and_some_at_a_time() {
        use std::io::Write as _;

        let (folder, dir) = dir();
        let path = folder.path().join("f");
        let mut text = vec![b'x'; 3 * PASS_BYTES + STEP_BYTES / 2];
        std::fs::write(&path, &text).expect("written");
        let (mut file, _) = open(&dir, Path::new("f")).expect("ordinary").expect("there");
        let mut passed = Passed::default();
        let mut look = |passed: &mut Passed| lines(&mut file, (0, passed), (3, false));
        let mut turns = 0;
        while let Read::More = look(&mut passed).expect("it can be read") {
            turns += 1;
        }
        assert_eq!(turns, 2);
        assert_eq!(passed.line, Some((0, text.len() as u64)), "nothing of it is read again");
        let mut more = std::fs::OpenOptions::new().append(true).open(&path).expect("there");
        more.write_all(b"xx\nab\n").expect("written");
        text.extend(b"xx\n");
        let Read::Step(step) = look(&mut passed).expect("it can be read") else {
            panic!("its end")
        };
        assert_eq!((step.end, step.left_out), (text.len() as u64, 1));
        assert_eq!(passed.line, None);
    }

    #[test]
    fn what_is_no_ordinary_file_or_leads_elsewhere_is_not_read() {
        let (folder, below) = dir();
        let (other, _) = dir();
        std::fs::write(other.path().join("secret"), b"s\n").expect("written");
        std::os::unix::fs::symlink(other.path().join("secret"), folder.path().join("out"))
            .expect("a link");
        std::os::unix::fs::symlink(other.path(), folder.path().join("dir")).expect("a link");
        std::fs::create_dir(folder.path().join("sub")).expect("made");
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)
            .expect("a pipe");
        for name in ["out", "dir/secret", "sub", "pipe", "../x"] {
            let refused = open(&below, Path::new(name));
            assert_eq!(refused.map(drop).map_err(|f| f.code), Err("connector.file"), "{name}");
        }
        assert!(open(&below, Path::new("none")).expect("that is no mistake").is_none());
        let place = Place::new((folder.path().to_owned(), PathBuf::from("dir")));
        assert!(place.open().is_err(), "a folder by a link that leads out");
    }

    #[test]
    fn a_place_has_a_parent_unless_it_is_what_was_allowed() {
        let place = |below: &str| Place::new((PathBuf::from("/a"), PathBuf::from(below)));
        let parent = place("b/c").parent().map(|(parent, name)| (parent.below, name));
        assert_eq!(parent, Some((PathBuf::from("b"), PathBuf::from("c"))));
        let parent = place("c").parent().map(|(parent, name)| (parent.below, name));
        assert_eq!(parent, Some((PathBuf::from("."), PathBuf::from("c"))));
        assert!(place(".").parent().is_none());
    }
}
