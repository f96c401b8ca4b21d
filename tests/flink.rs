//! A Flink job whose operator is a pipeline of ours: the example `flink`, in a real Flink.
//!
//! - Job and node are killed, each with events under way, and started again: each alarm is in a
//!   finished file of the job once.
//! - The operator is replaced while the job runs, and the job sees the new one's results.
//! - A line that the pipeline refuses leaves by the side, and the job goes on.
//!
//! Leaves to others: what the stage finds (`examples`).

#![expect(clippy::unwrap_used, reason = "what a test asks of its own folders is there")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use sluicebox_tests::eventually::eventually;
use sluicebox_tests::node::{Home, Node, Setup};
use sluicebox_tests::root;
use tempfile::TempDir;

const FRAUD: &str = include_str!("../examples/fraud/pipeline.toml");
const PAYMENTS: &str = include_str!("../examples/fraud/payments.ndjson");

/// Lets the watermark pass all payments.
const DAY_LATER: &str = r#"{"card":"clock","cents":1000,"country":"DE","at":1700090000000}"#;

/// A job has a virtual machine to start, beside other tests.
const PATIENCE: Duration = Duration::from_secs(180);

/// The folders of a job: they outlive its process.
struct Folders(TempDir);

impl Folders {
    fn new() -> Self {
        let folders = Self(tempfile::tempdir().expect("a place for a job"));
        for name in ["in", "out", "refused", "checkpoints"] {
            fs::create_dir(folders.path(name)).unwrap();
        }
        folders
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file for the job: it comes into the folder whole.
    fn pay(&self, name: &str, lines: &[&str]) {
        let written = self.path(name);
        fs::write(&written, lines.join("\n") + "\n").unwrap();
        fs::rename(written, self.path("in").join(name)).unwrap();
    }

    /// Lines of finished files; those under way begin with a dot.
    fn finished(&self, name: &str) -> Vec<Value> {
        let mut lines: Vec<Value> = Vec::new();
        let mut folders = vec![self.path(name)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let hidden = path.file_name().unwrap().to_string_lossy().starts_with('.');
                if path.is_dir() {
                    folders.push(path);
                } else if !hidden {
                    let text = fs::read_to_string(&path).unwrap();
                    lines.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
                }
            }
        }
        lines.sort_by_key(Value::to_string);
        lines
    }

    fn checkpoints(&self) -> usize {
        let done = |path: &Path| path.join("_metadata").exists();
        let jobs = fs::read_dir(self.path("checkpoints")).unwrap();
        let parts = jobs.flat_map(|job| fs::read_dir(job.unwrap().path()).into_iter().flatten());
        // Old ones are removed, so their number says little; their names count.
        let numbers = parts.filter_map(|part| {
            let path = part.unwrap().path();
            let number = path.file_name()?.to_str()?.strip_prefix("chk-")?.parse().ok()?;
            done(&path).then_some(number)
        });
        numbers.max().unwrap_or(0)
    }

    /// Alarms as card and rule, when there are so many.
    async fn alarms(&self, count: usize, job: &Job) -> Vec<(String, String)> {
        let look = || async {
            let found = self.finished("out");
            (found.len() >= count).then_some(found)
        };
        let found = tokio::select! {
            found = eventually("alarms in finished files", PATIENCE, look) => found,
            () = job.ended() => panic!("the job ended:\n{}", job.log()),
        };
        let word = |value: &Value| value.as_str().expect("a word").to_owned();
        found.iter().map(|alarm| (word(&alarm["card"]), word(&alarm["rule"]))).collect()
    }
}

/// A Flink of its own with the job in it; killed with the test.
struct Job {
    process: std::sync::Mutex<Child>,
    log: PathBuf,
}

impl Job {
    fn start(folders: &Folders, node: &Node) -> Self {
        let made = root().join("target/flink");
        let lib = made.join("lib");
        let is_made = lib.is_dir() && made.join("classes.stamp").is_file();
        assert!(is_made, "there is no {}; make it with `cargo xtask flink`", made.display());
        let mut paths = vec![made.join("classes"), root().join("examples/flink/conf")];
        paths.extend(fs::read_dir(&lib).unwrap().map(|entry| entry.unwrap().path()));
        let log = folders.path("log");
        let output = fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut java = Command::new("java");
        java.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp"]);
        java.arg(std::env::join_paths(paths).unwrap()).arg("sluicebox.FraudJob");
        for name in ["in", "out", "refused", "checkpoints"] {
            java.arg(format!("--{name}")).arg(folders.path(name));
        }
        let pipeline = format!("{}/v1/tenants/dev/pipelines/fraud", node.url());
        java.args(["--checkpoint-millis", "500", "--pipeline", &pipeline]);
        java.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let process = java.spawn().expect("java is installed; `cargo xtask flink` does that");
        Self { process: std::sync::Mutex::new(process), log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends with the process; that is, as a rule, never.
    async fn ended(&self) {
        while self.process.lock().unwrap().try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap();
        drop(process.kill());
        drop(process.wait());
    }
}

/// A fixed address: the job looks for the node where it was.
async fn start(home: &std::sync::Arc<Home>, before: Option<std::net::SocketAddr>) -> Node {
    let setup = Setup::dev().home(home);
    match before {
        Some(address) => setup.at(address).start().await,
        None => setup.start().await,
    }
}

#[tokio::test]
async fn alarms_are_there_once_though_job_and_node_are_killed() {
    let (home, folders) = (Home::new(), Folders::new());
    let node = start(&home, None).await;
    node.client().push("fraud-detect").await;
    node.client().apply("fraud", FRAUD).await;
    let lines: Vec<&str> = PAYMENTS.lines().chain([DAY_LATER]).collect();
    let (first, second) = lines.split_at(lines.len() / 2);

    let job = Job::start(&folders, &node);
    folders.pay("first", first);
    assert_eq!(folders.alarms(1, &job).await, [("4000-0003".to_owned(), "probed".to_owned())]);

    // The job goes first, so that it has a checkpoint to go on from; then the node, under it.
    drop(job);
    let address = node.address();
    drop(node.kill());
    let node = start(&home, Some(address)).await;
    let job = Job::start(&folders, &node);
    folders.pay("second", second);
    drop(node.kill());
    let node = start(&home, Some(address)).await;

    let expected = [("4000-0003", "probed"), ("4000-0006", "travelled")];
    let expected = expected.map(|(card, rule)| (card.to_owned(), rule.to_owned()));
    assert_eq!(folders.alarms(2, &job).await, expected);
    // What would be doubled would be so by the next checkpoints.
    let before = folders.checkpoints();
    eventually("two more checkpoints", PATIENCE, || async {
        (folders.checkpoints() >= before + 2).then_some(())
    })
    .await;
    assert_eq!(folders.alarms(2, &job).await, expected);
    let page = node.client().page("fraud", "outputs/alerts", "cursor=oldest").await.is(200);
    assert_eq!(page.records().len(), 2, "the node took no payment twice");
}

#[tokio::test]
async fn the_operator_is_replaced_and_a_bad_line_is_set_aside_while_the_job_runs() {
    let (home, folders) = (Home::new(), Folders::new());
    let node = start(&home, None).await;
    node.client().push("fraud-detect").await;
    node.client().apply("fraud", FRAUD).await;
    let job = Job::start(&folders, &node);

    let payment = |card: &str, cents: u32, at: u64| {
        json!({"card": card, "cents": cents, "country": "DE", "at": at}).to_string()
    };
    let probes = |card: &str| {
        let at = 1_700_000_000_000;
        [payment(card, 100, at), payment(card, 110, at + 1000), payment(card, 30_000, at + 2000)]
    };
    let mut lines = probes("before").to_vec();
    lines.extend(probes("sure").map(|line| line.replace("30000", "60000")));
    // Its card is no text, so it has no key.
    lines.push(r#"{"card":{"no":"text"},"at":1700000000000}"#.to_owned());
    lines.push("no JSON at all".to_owned());
    folders.pay("before", &lines.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(folders.alarms(1, &job).await, [("sure".to_owned(), "probed".to_owned())]);
    let refused = eventually("the bad line", PATIENCE, || async {
        let found = folders.finished("refused");
        (found.len() >= 2).then_some(found)
    });
    let refused = refused.await;
    assert_eq!(refused.len(), 2, "{refused:?}");
    let is_told =
        |line: &Value| line["code"].as_str().is_some_and(|code| code.starts_with("ingest."));
    assert!(refused.iter().all(is_told), "{refused:?}");

    let stricter = FRAUD.replace(r#"large = "50000""#, r#"large = "20000""#);
    node.client().apply("fraud", stricter).await;
    folders.pay("after", &probes("after").each_ref().map(String::as_str));
    let expected = [("after", "probed"), ("sure", "probed")];
    let expected = expected.map(|(card, rule)| (card.to_owned(), rule.to_owned()));
    assert_eq!(folders.alarms(2, &job).await, expected);
}
