//! A tutorial, read from its page and done word for word: what it has people write is written, what
//! it has them type is run, and what it shows has to come.
//!
//! What a fenced block means follows from what stands behind its marks:
//! - `console`: each line after `$ ` is a command, the lines below it are of its output, in order;
//!   there may be others between. `…` stands for anything.
//! - `console stays`: a command that goes on, in a terminal of its own. What it shows is waited
//!   for. One more of these ends the one before with Ctrl-C.
//! - `text stays`: what the command that goes on shows next.
//! - `LANGUAGE FILE`: the file is this. `diff FILE`: lines of the file that become others.
//!
//! Other blocks are for reading. Port 7411 becomes a free one, in what is typed and what is shown.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{guests, node};

/// How long a build may take on a machine that has much to do.
const BUILD_TIME_MAX: Duration = Duration::from_secs(300);

/// The port that pages name.
const PORT: &str = "7411";

/// Stands for anything in what is expected.
const ANYTHING: char = '…';

/// What a page has people do.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Write a file.
    Write { file: String, text: String },
    /// Put other lines in the place of some.
    Change { file: String, from: String, to: String },
    /// Run a command to its end.
    Run { command: String, shows: Vec<String> },
    /// Run a command that goes on.
    Start { command: String, shows: Vec<String> },
    /// Look at what goes on.
    Look { shows: Vec<String> },
}

/// The steps of a page, in order.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(head) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
        let text = || block.iter().map(|line| format!("{line}\n")).collect::<String>();
        match head.split_once(' ').unwrap_or((head, "")) {
            ("console", how) => steps.extend(commands(&block, how == "stays")),
            ("text", "stays") => steps.push(Step::Look { shows: shown(&block) }),
            ("diff", file) if !file.is_empty() => {
                let those = |mark| {
                    let lines = block.iter().filter_map(|line| line.strip_prefix(mark));
                    lines.map(|line| format!("{line}\n")).collect::<String>()
                };
                let (from, to) = (those('-'), those('+'));
                steps.push(Step::Change { file: file.to_owned(), from, to });
            }
            (_, "") => {}
            (_, file) => steps.push(Step::Write { file: file.to_owned(), text: text() }),
        }
    }
    steps
}

fn commands(block: &[&str], stays: bool) -> Vec<Step> {
    let starts: Vec<usize> = (0..block.len()).filter(|at| block[*at].starts_with("$ ")).collect();
    let ends = starts.iter().skip(1).copied().chain([block.len()]);
    let each = starts.iter().copied().zip(ends).map(|(start, end)| {
        let (command, shows) = (block[start][2..].to_owned(), shown(&block[start + 1..end]));
        if stays { Step::Start { command, shows } } else { Step::Run { command, shows } }
    });
    each.collect()
}

fn shown(lines: &[&str]) -> Vec<String> {
    let said = lines.iter().filter(|line| line.trim() != ANYTHING.to_string());
    said.map(|line| (*line).to_owned()).collect()
}

/// Whether a line is what is expected.
fn is_like(line: &str, expected: &str) -> bool {
    let mut parts = expected.split(ANYTHING);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// A command that goes on, and its lines.
struct Terminal {
    child: Child,
    lines: Receiver<String>,
    /// Everything it showed so far, to be told with a failure.
    seen: Vec<String>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a shell can be started");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = sync_channel(1_024);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line.
    fn shows(&mut self, expected: &str) {
        let end = Instant::now() + BUILD_TIME_MAX;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = is_like(&line, expected);
                    self.seen.push(line);
                    if found {
                        return;
                    }
                }
                Err(why) => {
                    let how = if why == RecvTimeoutError::Timeout { "in time" } else { "at all" };
                    panic!("it did not show `{expected}` {how}; it showed {:#?}", self.seen);
                }
            }
        }
    }

    /// Ctrl-C.
    fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}; it showed {:#?}", self.seen);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already, or nobody wants it any more.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where a page is done.
struct Place {
    folder: TempDir,
    port: String,
}

impl Place {
    fn new() -> Self {
        // Free a moment ago; whoever takes it meanwhile fails this test and nothing else.
        let free = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a port");
        let port = free.local_addr().expect("it is bound").port().to_string();
        Self { folder: tempfile::tempdir().expect("a temporary directory"), port }
    }

    /// A command as a shell runs it, with toolchains, the program and little else.
    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.env_clear().args(["-c", line]).stdin(Stdio::null());
        for kept in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "TMPDIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        let program = node::program().parent().expect("it lies in a folder").to_path_buf();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(program).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(path).expect("folders have plain names");
        command.env("PATH", path);
        command.env("SLUICEBOX_TOOLS", guests::folder().join("tools"));
        // What crates become is the same for all projects.
        command.env("CARGO_TARGET_DIR", guests::folder().join("projects"));
        command.env("SLUICEBOX_URL", format!("http://127.0.0.1:{}", self.port));
        command.current_dir(self.folder.path());
        command
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn here(&self, text: &str) -> String {
        text.replace(PORT, &self.port)
    }

    fn change(&self, file: &str, from: &str, to: &str) {
        let path = self.file(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        let times = text.matches(from).count();
        assert!(times == 1, "{file} has these lines {times} times: {from}");
        fs::write(path, text.replace(from, to)).expect("it may be written");
    }

    fn run(&self, command: &str, shows: &[String]) {
        let output = self.shell(&self.here(command)).output().expect("a shell can be started");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "`{command}`: {output:?}");
        let mut lines = text.lines();
        for expected in shows.iter().map(|line| self.here(line)) {
            let found = lines.by_ref().any(|line| is_like(line, &expected));
            assert!(found, "`{command}` did not show `{expected}`, but\n{text}");
        }
    }
}

/// Does what a page says.
///
/// # Panics
/// If something of it fails, or shows something else.
pub fn is_done(page: &Path) {
    let text = fs::read_to_string(page).unwrap_or_else(|error| panic!("{page:?}: {error}"));
    let place = Place::new();
    let mut terminal: Option<Terminal> = None;
    let steps = steps(&text);
    let runs = steps.iter().filter(|step| matches!(step, Step::Run { .. })).count();
    assert!(runs > 5, "{page:?} has only {runs} commands: is it read right?");
    for step in steps {
        match step {
            Step::Write { file, text } => {
                fs::write(place.file(&file), text).unwrap_or_else(|e| panic!("{file}: {e}"));
            }
            Step::Change { file, from, to } => place.change(&file, &from, &to),
            Step::Run { command, shows } => place.run(&command, &shows),
            Step::Start { command, shows } => {
                if let Some(before) = terminal.take() {
                    before.end();
                }
                let line = format!("exec {}", place.here(&command));
                let started = terminal.insert(Terminal::start(place.shell(&line)));
                shows.iter().for_each(|line| started.shows(&place.here(line)));
            }
            Step::Look { shows } => {
                let terminal = terminal.as_mut().expect("something was started that goes on");
                shows.iter().for_each(|line| terminal.shows(&place.here(line)));
            }
        }
    }
    if let Some(last) = terminal {
        last.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_it_is_meant() {
        let page = "Text.\n\n```console\n$ a b\nout …\n…\n$ c\n```\n```rust x/y.rs\nfn f() {}\n\
                    ```\n```console stays\n$ d\nready\n```\n```diff x/y.rs\n-old\n+new\n+er\n```\n\
                    ```text stays\nagain\n```\n```toml\nfor reading\n```\n";
        let text = |text: &str| text.to_owned();
        let expected = [
            Step::Run { command: text("a b"), shows: vec![text("out …")] },
            Step::Run { command: text("c"), shows: vec![] },
            Step::Write { file: text("x/y.rs"), text: text("fn f() {}\n") },
            Step::Start { command: text("d"), shows: vec![text("ready")] },
            Step::Change { file: text("x/y.rs"), from: text("old\n"), to: text("new\ner\n") },
            Step::Look { shows: vec![text("again")] },
        ];
        assert_eq!(steps(page), expected);
    }

    #[test]
    fn what_differs_each_time_is_left_out_of_a_comparison() {
        assert!(is_like("built x (7 bytes, 1 s)", "built x (… bytes, … s)"));
        assert!(is_like("same", "same") && !is_like("same", "sam") && !is_like("sam", "same"));
        assert!(is_like("ready", "…") && is_like("", "") && !is_like("x", ""));
        assert!(!is_like("built y (7 bytes, 1 s)", "built x (… bytes, … s)"));
        assert!(!is_like("a 1 b", "a …c") && is_like("a 1 c", "a …c"));
    }
}
