//! A real node, from its ready line to its end.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};

use super::support::command::{Run, run, sluicebox};

/// A node of this program in a directory.
struct Served {
    child: Child,
    url: String,
}

impl Served {
    /// Starts one and waits for its ready line.
    fn start(directory: &Path) -> Self {
        let arguments = ["serve", "--dev", "--data-dir", "data", "--listen", "127.0.0.1:0"];
        let mut child = sluicebox(directory, &arguments).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url.unwrap_or_else(|| panic!("no address in {line:?}"));
        Self { url: url.trim_end_matches(',').to_owned(), child }
    }

    fn ask(&self, directory: &Path, arguments: &[&str]) -> Run {
        let all: Vec<&str> = arguments.iter().copied().chain(["--url", &self.url]).collect();
        run(sluicebox(directory, &all), b"")
    }

    /// Signals it and gives its exit code.
    fn end(mut self, signal: &str) -> Option<i32> {
        let id = self.child.id().to_string();
        // The shell's own: a program of this name is not everywhere.
        let kill = ["-c", "kill \"$1\" \"$2\"", "sh", signal, &id];
        assert!(Command::new("sh").args(kill).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

#[test]
fn a_node_says_where_it_is_answers_and_ends_when_told() {
    let directory = tempfile::tempdir().unwrap();
    for signal in ["-TERM", "-INT"] {
        let node = Served::start(directory.path());
        let list = node.ask(directory.path(), &["list", "--output", "json"]);
        assert_eq!((list.code, list.err.as_str()), (0, ""));
        assert_eq!(list.out, "{\"components\":[],\"pipelines\":[]}\n");
        let doctor = node.ask(directory.path(), &["doctor"]);
        assert_eq!(doctor.code, 0, "{doctor:?}");
        assert!(doctor.out.contains("is ready"), "{}", doctor.out);
        let doctor = node.ask(directory.path(), &["doctor", "--data-dir", "data"]);
        assert!(doctor.out.contains("clean up to position 0; 0 records"), "{}", doctor.out);
        assert!(doctor.out.contains(" are free"), "{}", doctor.out);
        assert_eq!(node.end(signal), Some(0), "{signal}");
    }
}

#[test]
fn what_is_no_component_is_refused_and_nothing_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("text.wasm"), "not wasm").unwrap();
    let node = Served::start(directory.path());
    let push = node.ask(directory.path(), &["push", "text.wasm"]);
    assert_eq!((push.code, push.out.as_str()), (64, ""));
    assert!(push.err.contains("[component.not-wasm]"), "{}", push.err);
    assert_eq!(node.ask(directory.path(), &["list", "components"]).out, "no components yet\n");
    assert_eq!(node.end("-TERM"), Some(0));
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["serve", "--dev", "--data-dir", "data", "--listen", &address];
    let run = run(sluicebox(directory.path(), &arguments), b"");
    assert_eq!((run.code, run.out.as_str()), (69, ""), "{run:?}");
    assert!(run.err.contains(&address), "{}", run.err);
}
