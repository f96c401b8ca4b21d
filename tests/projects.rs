//! A stage from `new` to a change under load, in each language, through the real program.
//!
//! For each language: the project that `new` writes is built and passes its own `test`, which fails
//! when something else is expected; `dev` runs it, and a changed source takes the place of what
//! runs while events flow, of which none is lost and none counts twice; a source that does not
//! build leaves the old one running; an end by signal is one without an error.
//!
//! Toolchains are those of `cargo xtask guests`, which installs them below `target/guests`; without
//! them this fails and says so.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sluicebox_tests::client::{Client, TENANT};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::{guests, node};
use tempfile::TempDir;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinSet;

/// How long a build may take on a machine that has much to do.
const BUILD_TIME_MAX: Duration = Duration::from_secs(300);

/// Keys of the load.
const KEYS: usize = 4;

/// Events that are sent before a change, between changes, and behind them.
const EVENTS_EACH: u64 = 40;

/// Between two events, so that all of them are one page in the end.
const PACE: Duration = Duration::from_millis(10);

/// A language, and how it is written wrong.
struct Language {
    name: &'static str,
    source: &'static str,
    /// What no compiler of it takes.
    broken: &'static str,
}

/// A project in a folder of its own.
struct Walk {
    language: Language,
    folder: TempDir,
}

impl Walk {
    fn new(language: Language) -> Self {
        let folder = tempfile::tempdir().expect("a place for a project");
        Self { language, folder }
    }

    /// The program, where the project's folder is, with toolchains and nothing else of the
    /// environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = node::command(arguments);
        for kept in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command.env("SLUICEBOX_TOOLS", guests::folder().join("tools"));
        // What crates become is the same for all projects.
        command.env("CARGO_TARGET_DIR", guests::folder().join("projects"));
        command.current_dir(self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program can be started")
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("it writes text")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("my-stage").join(name)
    }

    fn replace(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.file(name)).expect("the project has it");
        assert!(text.contains(from), "{name} has no {from}: {text}");
        fs::write(self.file(name), text.replace(from, to)).expect("it may be written");
    }
}

/// `dev`, and what it says.
struct Dev {
    child: Child,
    said: Receiver<Value>,
    /// Everything it said so far, to be shown with a failure.
    log: Arc<Mutex<Vec<String>>>,
}

impl Dev {
    fn start(walk: &Walk) -> Self {
        let words = ["dev", "my-stage", "--output", "json", "--url", "http://127.0.0.1:0"];
        let mut command = walk.command(&words);
        let errors = fs::File::create(walk.folder.path().join("errors")).expect("a file");
        let mut child =
            command.stdout(Stdio::piped()).stderr(errors).spawn().expect("it can be started");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (sender, said) = channel(1_024);
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().expect("nobody panics with it").push(line.clone());
                let said = serde_json::from_str(&line).expect("each line is JSON");
                if sender.blocking_send(said).is_err() {
                    return;
                }
            }
        });
        Self { child, said, log }
    }

    /// Waits for the next event of a name.
    async fn next(&mut self, name: &str) -> Value {
        let end = tokio::time::Instant::now() + BUILD_TIME_MAX;
        loop {
            match tokio::time::timeout_at(end, self.said.recv()).await {
                Ok(Some(said)) if said["event"] == name => return said,
                Ok(Some(_)) => {}
                _ => panic!("no {name} came; it said {:#?}", self.log.lock()),
            }
        }
    }

    fn end(mut self) {
        let process = Pid::from_child(&self.child);
        kill_process(process, Signal::INT).expect("it runs");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It has ended already, or nobody wants it any more.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sends events one after another for as long as it is wanted.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<u64>>,
    task: JoinSet<()>,
}

impl Load {
    fn start(client: Client) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                let key = format!("k{}", number % KEYS as u64);
                let headers = [("sluicebox-key", key.as_str()), ("content-type", "text/plain")];
                let path = client.path("pipelines/my-stage/events");
                tokio::time::sleep(PACE).await;
                let reply = client.ask(http::Method::POST, &path, &headers, "x").await;
                // While versions change it may say that it has no room; then it took nothing.
                if matches!(reply.status, 429 | 503) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
                reply.is(202);
                number += 1;
                *count.lock().expect("nobody panics with it") = number;
            }
        });
        Self { stop, sent, task }
    }

    fn sent(&self) -> u64 {
        *self.sent.lock().expect("nobody panics with it")
    }

    /// Waits until so many more were taken.
    async fn more(&mut self, events: u64) {
        let wanted = self.sent() + events;
        let end = Instant::now() + BUILD_TIME_MAX;
        while self.sent() < wanted && Instant::now() < end {
            if let Some(ended) = self.task.try_join_next() {
                ended.expect("every request was answered");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(self.sent() >= wanted, "events are no longer taken");
    }

    /// Ends it and says how many were taken.
    async fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.task.join_next().await {
            ended.expect("every request was answered");
        }
        *self.sent.lock().expect("nobody panics with it")
    }
}

/// Each key has each count once and in order, and the greeting changes once.
fn every_event_counted_once(records: &[Value], greetings: &[&str]) {
    for key in 0..KEYS {
        let name = format!("k{key}");
        let of_key: Vec<&Value> =
            records.iter().filter(|record| record["key"] == name.as_str()).collect();
        let counts: Vec<u64> =
            of_key.iter().filter_map(|record| record["data"]["count"].as_u64()).collect();
        let expected: Vec<u64> = (1..=of_key.len() as u64).collect();
        assert_eq!(counts, expected, "{name}: each counts once");
        let mut said: Vec<&str> =
            of_key.iter().filter_map(|record| record["data"]["greeting"].as_str()).collect();
        said.dedup();
        assert_eq!(said, greetings, "{name}: old, then new");
    }
}

#[expect(clippy::print_stderr, reason = "a figure for who asks for it")]
async fn from_new_to_a_change_under_load(language: Language) {
    let walk = Walk::new(language);
    walk.succeeds(&["new", "my-stage", "--lang", walk.language.name]);
    let said = walk.succeeds(&["test", "my-stage"]);
    assert!(said.contains("ok my-stage: 3 events gave 3 outputs as expected"), "{said}");

    walk.replace("outputs.ndjson", "\"count\": 2", "\"count\": 3");
    let output = walk.run(&["test", "my-stage"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    assert!(said.contains("reply, key ada, number 2:"), "{said}");
    walk.succeeds(&["test", "my-stage", "--bless"]);
    walk.succeeds(&["test", "my-stage"]);

    let mut dev = Dev::start(&walk);
    let ready = dev.next("ready").await;
    let url = ready["url"].as_str().expect("it says where");
    let address: SocketAddr = url["http://".len()..].parse().expect("an address");
    let client = Client::new(address, TENANT, None);
    let mut load = Load::start(client.clone());
    load.more(EVENTS_EACH).await;

    let changed = Instant::now();
    walk.replace(walk.language.source, "hello", "good day");
    let seconds = effect(&mut dev, changed).await;
    eprintln!("{}: from the change to its effect {seconds:.2} s", walk.language.name);
    load.more(EVENTS_EACH).await;

    walk.replace(walk.language.source, "good day", walk.language.broken);
    let failed = dev.next("failed").await;
    assert!(failed["error"]["fix"].is_string(), "{failed}");
    load.more(EVENTS_EACH).await;

    let sent = load.end().await;
    let records = eventually("all outputs", SOON, || async {
        let page = client.page("my-stage", "outputs/reply", "limit=10000").await;
        let records = page.is(200).records();
        (records.len() as u64 >= sent).then_some(records)
    })
    .await;
    assert_eq!(records.len() as u64, sent, "none is lost, none is too much");
    every_event_counted_once(&records, &["hello", "good day"]);
    dev.end();
}

/// Seconds until the first output that only the new source makes.
async fn effect(dev: &mut Dev, since: Instant) -> f64 {
    loop {
        let said = dev.next("output").await;
        if said["record"]["data"]["greeting"] == "good day" {
            return since.elapsed().as_secs_f64();
        }
    }
}

#[tokio::test]
async fn a_stage_in_rust_goes_from_new_to_a_change_under_load() {
    let language = Language { name: "rust", source: "src/lib.rs", broken: "\" not rust" };
    from_new_to_a_change_under_load(language).await;
}

#[tokio::test]
async fn a_stage_in_c_goes_from_new_to_a_change_under_load() {
    let language = Language { name: "c", source: "stage.c", broken: "\" not C" };
    from_new_to_a_change_under_load(language).await;
}

#[tokio::test]
async fn a_stage_in_go_goes_from_new_to_a_change_under_load() {
    let language = Language { name: "go", source: "main.go", broken: "\" not Go" };
    from_new_to_a_change_under_load(language).await;
}

#[tokio::test]
async fn a_stage_in_python_goes_from_new_to_a_change_under_load() {
    let language = Language { name: "python", source: "stage.py", broken: "\" not Python" };
    from_new_to_a_change_under_load(language).await;
}

#[tokio::test]
async fn a_stage_in_javascript_goes_from_new_to_a_change_under_load() {
    let language = Language { name: "js", source: "stage.js", broken: "\" not JavaScript" };
    from_new_to_a_change_under_load(language).await;
}

#[tokio::test]
async fn a_stage_in_typescript_goes_from_new_to_a_change_under_load() {
    let language = Language { name: "ts", source: "stage.ts", broken: "\" not TypeScript" };
    from_new_to_a_change_under_load(language).await;
}
