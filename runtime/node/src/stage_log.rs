//! What the stages of a pipeline said last: lines of their logs, and why calls of them ended in a
//! trap, for whoever owns the pipeline.
//!
//! - Bounded in bytes for each pipeline: the oldest go first. What a reader could not be given any
//!   more is counted, never passed over in silence.
//! - In memory alone: a restart begins anew. It outlives versions of its pipeline. The node's own
//!   log has the same lines, for the operator.
//! - Lines of partitions on other nodes are on those.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use sluicebox_engine::invoker::LogLevel;
use tokio::sync::Notify;

use crate::mailbox::lock;

/// Bytes of the lines of a pipeline, with what is kept beside them.
const BYTES_MAX: usize = 256 << 10;

/// What is kept beside the text of a line, about.
const LINE_BYTES: usize = 96;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// When it was said, microseconds since 1970.
    pub(crate) time: u64,
    /// By which stage, in which partition.
    pub(crate) stage: String,
    pub(crate) partition: u16,
    pub(crate) level: LogLevel,
    pub(crate) text: String,
}

impl Line {
    const fn bytes(&self) -> usize {
        LINE_BYTES + self.stage.len() + self.text.len()
    }
}

/// Where a reader is: behind so many lines of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    log: u64,
    behind: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.log, self.behind)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (log, behind) = text.split_once('-').ok_or(())?;
        let is_plain = |text: &str, most| text.len() <= most && !text.starts_with('+');
        if !(is_plain(log, 16) && is_plain(behind, 20)) {
            return Err(());
        }
        let log = u64::from_str_radix(log, 16).map_err(|_| ())?;
        Ok(Self { log, behind: behind.parse().map_err(|_| ())? })
    }
}

/// Which lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Only those of this stage.
    pub(crate) stage: Option<String>,
    /// None that is less grave.
    pub(crate) level: LogLevel,
    /// At most so many.
    pub(crate) lines_max: usize,
}

impl Wanted {
    fn has(&self, line: &Line) -> bool {
        line.level >= self.level && self.stage.as_ref().is_none_or(|stage| *stage == line.stage)
    }
}

/// Lines that were there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) lines: Vec<Line>,
    /// Where to go on.
    pub(crate) next: Place,
    /// Those that were gone before they were read, wanted or not.
    pub(crate) missed: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct StageLog {
    /// Another for each process.
    id: u64,
    kept: Mutex<Kept>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
    /// Lines that are gone.
    gone: u64,
}

impl Kept {
    fn end(&self) -> u64 {
        self.gone + self.lines.len() as u64
    }
}

impl StageLog {
    /// One that is empty. Cursors of an earlier one, of another `id`, begin at its beginning.
    pub(crate) fn new(id: u64) -> Self {
        Self { id, kept: Mutex::default(), news: Notify::new() }
    }

    /// Adds lines, and lets the oldest go if there is no room.
    pub(crate) fn add(&self, lines: impl IntoIterator<Item = Line>) {
        let mut kept = lock(&self.kept);
        for line in lines {
            kept.bytes += line.bytes();
            kept.lines.push_back(line);
            while kept.bytes > BYTES_MAX
                && let Some(oldest) = kept.lines.pop_front()
            {
                kept.bytes -= oldest.bytes();
                kept.gone += 1;
            }
        }
        drop(kept);
        self.news.notify_waiters();
    }

    /// Before all lines that are kept.
    pub(crate) fn oldest(&self) -> Place {
        Place { log: self.id, behind: lock(&self.kept).gone }
    }

    /// Behind all lines there are.
    pub(crate) fn latest(&self) -> Place {
        Place { log: self.id, behind: lock(&self.kept).end() }
    }

    /// The wanted lines behind a place. It goes on behind the last that was looked at.
    pub(crate) fn read(&self, from: Place, wanted: &Wanted) -> Lines {
        let kept = lock(&self.kept);
        // What another process said is not known; what nobody has said yet nobody can be behind.
        let behind = if from.log == self.id && from.behind <= kept.end() { from.behind } else { 0 };
        let is_same = from.log == self.id;
        let first = behind.max(kept.gone);
        let missed = if is_same { first - behind } else { 0 };
        let skipped = usize::try_from(first - kept.gone).unwrap_or(usize::MAX);
        let (mut lines, mut next) = (Vec::new(), first);
        for line in kept.lines.iter().skip(skipped) {
            if lines.len() == wanted.lines_max {
                break;
            }
            next += 1;
            if wanted.has(line) {
                lines.push(line.clone());
            }
        }
        Lines { lines, next: Place { log: self.id, behind: next }, missed }
    }

    /// Waits until there are lines behind a place that was read up to.
    pub(crate) async fn wait(&self, at: Place) {
        let mut news = std::pin::pin!(self.news.notified());
        // What comes between the look and the wait is not slept through.
        news.as_mut().enable();
        if self.latest() == at {
            news.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        let stage = if text.len().is_multiple_of(2) { "even" } else { "odd" };
        Line {
            time: 7,
            stage: stage.to_owned(),
            partition: 1,
            level: LogLevel::Info,
            text: text.to_owned(),
        }
    }

    fn all() -> Wanted {
        Wanted { stage: None, level: LogLevel::Debug, lines_max: 1_000 }
    }

    fn texts(lines: &Lines) -> Vec<&str> {
        lines.lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn a_reader_goes_on_where_it_was() {
        let log = StageLog::new(9);
        log.add([line("a"), line("bb")]);
        let first = log.read(log.oldest(), &Wanted { lines_max: 1, ..all() });
        assert_eq!((texts(&first), first.missed), (vec!["a"], 0));
        let place: Place = first.next.to_string().parse().unwrap();
        assert_eq!(place, first.next);
        log.add([line("ccc")]);
        let rest = log.read(place, &all());
        assert_eq!(texts(&rest), ["bb", "ccc"]);
        assert_eq!(rest.next, log.latest());
        assert_eq!(texts(&log.read(rest.next, &all())), [""; 0]);
    }

    #[test]
    fn only_what_is_wanted_is_given_and_the_rest_is_passed() {
        let log = StageLog::new(9);
        log.add([line("a"), line("bb"), Line { level: LogLevel::Error, ..line("ccc") }]);
        let odd = Wanted { stage: Some("odd".to_owned()), ..all() };
        assert_eq!(texts(&log.read(log.oldest(), &odd)), ["a", "ccc"]);
        let grave = log.read(log.oldest(), &Wanted { level: LogLevel::Warn, ..all() });
        assert_eq!(texts(&grave), ["ccc"]);
        assert_eq!(grave.next, log.latest());
    }

    #[test]
    fn the_oldest_go_and_are_counted_for_who_has_not_read_them() {
        let log = StageLog::new(9);
        let begin = log.oldest();
        let text = "x".repeat(4_000);
        log.add((0..200).map(|_| line(&text)));
        let kept = log.read(log.oldest(), &all());
        assert_eq!(kept.missed, 0, "who asks for what is kept has missed nothing");
        assert_eq!(kept.lines.len(), BYTES_MAX / line(&text).bytes());
        let late = log.read(begin, &all());
        assert_eq!(late.missed + late.lines.len() as u64, 200);
        assert_eq!(late.lines, kept.lines);
    }

    #[test]
    fn a_place_in_another_log_is_its_beginning() {
        let log = StageLog::new(9);
        log.add([line("a")]);
        for other in ["0000000000000008-1", "0000000000000009-2", "9-18446744073709551615"] {
            let read = log.read(other.parse().unwrap(), &all());
            assert_eq!((texts(&read), read.missed), (vec!["a"], 0), "{other}");
        }
        for nonsense in
            ["", "-", "9", "9-", "-9", "g-1", "9--1", "9-+1", "+9-1", "00000000000000009-1"]
        {
            assert_eq!(nonsense.parse::<Place>(), Err(()), "{nonsense:?}");
        }
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_next_line() {
        let log = StageLog::new(9);
        let at = log.latest();
        let (_, ()) = tokio::join!(log.wait(at), async { log.add([line("a")]) });
        log.wait(at).await;
    }
}
