//! What surrounds a node is not as it should be: no right to write, no room, another process, a
//! clock that goes back, too much state, very many keys.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use sluicebox_store::log::{Class, Config, DurableLog, Log as _, Position};
use sluicebox_tests::client::Client;
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Home, Node, Setup, program, refused};
use tokio::task::JoinSet;

use super::{COUNTS, all_counts, number, with_words, words};

/// The numbers of a user who owns nothing here.
const NOBODY: u32 = 65_534;

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_refused_and_nothing_changes() {
    let home = Home::without_artefacts();
    let node = Setup::dev().home(&home).start().await;
    node.terminate();
    drop(node.ended().await);
    // Root may write everywhere; so the directory is given to somebody else, and a copy of the
    // program with it.
    let data = home.data();
    let outer = data.parent().expect("it lies in a directory").to_owned();
    let copy = outer.join("sluicebox");
    fs::copy(program(), &copy).expect("there is room");
    let root = fs::metadata(&outer).expect("it is there").uid() == 0;
    every_folder(&outer, &|path| {
        if root {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
    });
    let folders = ["catalog", "log", "store"].map(|name| data.join(name));
    for folder in &folders {
        let mode = |files: u32| {
            every_folder(folder, &|path| {
                // Who may look into a folder may run it, as it were.
                let mode = if path.is_dir() { files | 0o100 } else { files };
                let permissions = fs::Permissions::from_mode(mode);
                fs::set_permissions(path, permissions).expect("it is ours");
            });
        };
        mode(0o400);
        let mut command = Setup::dev().home(&home).command_of(&copy);
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let refused = refused(command);
        assert!(refused.code == "store.read-only", "{}: {refused:?}", folder.display());
        let named = folder.file_name().expect("a name").to_str().expect("UTF-8");
        assert!(refused.message.contains(named), "{refused:?}");
        mode(0o600);
    }
    if root {
        every_folder(&outer, &|path| chown(path, Some(0), Some(0)).expect("root may"));
    }
    drop(Setup::dev().home(&home).start().await);
}

/// Does something to a folder and all in it.
fn every_folder(path: &Path, act: &dyn Fn(&Path)) {
    act(path);
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        for entry in fs::read_dir(path).expect("it can be read") {
            every_folder(&entry.expect("an entry").path(), act);
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_requests_and_is_waited_out() {
    // A limit on the size of files stands for the full disk: segments end before their length. It
    // can be set from outside, by anybody, while the node runs.
    let setup = Setup::dev().set("log.segment-bytes", "1MiB").shell("trap '' XFSZ; exec \"$@\"");
    let node = setup.clone().start().await;
    let client = node.client();
    with_words(&client).await;
    client.send("words", "?key=k", &[], "before").await.is(202);
    client.records("words", COUNTS, 1).await;
    let maximum = getrlimit(Resource::Fsize).maximum;
    let room = |current| {
        let limit = Rlimit { current, maximum };
        prlimit(node.process(), Resource::Fsize, limit).expect("of a process of ours");
    };
    room(Some(8 * 1024));
    // It is in the log before anybody knows that there is no room; its answer waits.
    let (large, mut waiting) = (client.clone(), JoinSet::new());
    waiting.spawn(async move { large.send("words", "?key=k", &[], "large ".repeat(2_000)).await });
    let health = |state: &'static str| {
        let client = &client;
        async move {
            let figures = client.plain("/metrics").await.is(200);
            let line = format!("sluicebox_log_health{{state=\"{state}\"}} 1");
            figures.text().lines().any(|found| found == line)
        }
    };
    eventually("the disk is full", SOON, || async { health("full").await.then_some(()) }).await;
    let reply = client.send("words", "?key=k", &[], "refused").await;
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    reply.problem(503, "log.full");
    assert!(waiting.try_join_next().is_none(), "it is not on disk");
    assert_eq!(all_counts(&client).await.len(), 1, "what is on disk can be read");
    room(maximum);
    eventually("it goes on by itself", SOON, || async { health("healthy").await.then_some(()) })
        .await;
    waiting.join_next().await.expect("one").expect("it is answered").is(202);
    client.send("words", "?key=k", &[], "after").await.is(202);
    let mut before = eventually("all is counted", SOON, || async {
        let counts = all_counts(&client).await;
        (counts.len() == 2_002).then_some(counts)
    })
    .await;
    assert!(before.iter().all(|count| count.word != "refused"));
    let home = node.home().clone();
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let mut after = all_counts(&node.client()).await;
    // Pages go around the partitions as they come.
    for counts in [&mut before, &mut after] {
        counts.sort_by_key(|count| (count.partition, count.offset));
    }
    assert!(after == before, "{} and {} counts, or others", before.len(), after.len());
}

#[tokio::test]
async fn a_second_node_on_the_directory_is_refused_and_the_first_goes_on() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_words(&client).await;
    let refused = refused(Setup::dev().home(node.home()).command());
    assert_eq!(refused.code, "store.locked", "{refused:?}");
    assert!(refused.message.contains("another process"), "{refused:?}");
    client.send("words", "?key=k", &[], "on").await.is(202);
    client.records("words", COUNTS, 1).await;
    let home = node.home().clone();
    drop(node.kill());
    // A process that is gone holds nothing.
    drop(Setup::dev().home(&home).start().await);
}

/// An hour, in the microseconds of records.
const HOUR: u64 = 3_600_000_000;

#[tokio::test]
async fn a_clock_that_was_set_back_an_hour_changes_nothing_of_what_is_known() {
    // The node takes its time from the system, and nobody can tell it another. So it is the past
    // that is moved: what a first run has logged is dated an hour later, and the second run, with
    // the true time, finds itself an hour before it.
    let setup = || Setup::dev().set("log.checkpoint-interval", "24h");
    let node = setup().start().await;
    let home = node.home().clone();
    let client = node.client();
    with_words(&client).await;
    let cloud = [("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-source", "/m"), ("ce-id", "7")];
    let numbered =
        |sequence: &'static str| [("sluicebox-producer", "p"), ("sluicebox-sequence", sequence)];
    client.send("words", "?key=k", &cloud, "once").await.is(202);
    client.send("words", "?key=k", &numbered("1"), "once").await.is(202);
    client.records("words", COUNTS, 2).await;
    let cursor = client.page("words", COUNTS, "cursor=oldest").await.is(200).cursor();
    node.terminate();
    drop(node.ended().await);
    let log = home.data().join("log");
    let latest = date_an_hour_later(&log);
    for run in 0..2 {
        let node = setup().home(&home).start().await;
        let client = node.client();
        let repeat = json!({ "accepted": 0, "duplicates": 1, "rejected": 0 });
        let again = client.send("words", "?key=k", &cloud, "once").await.is(202).json();
        assert_eq!(again, repeat, "run {run}");
        for old in if run == 0 { &["1"][..] } else { &["1", "2"] } {
            let again = client.send("words", "?key=k", &numbered(old), "once").await.is(202).json();
            assert_eq!(again, repeat, "run {run}");
        }
        let next = if run == 0 { "2" } else { "3" };
        client.send("words", "?key=k", &numbered(next), "once").await.is(202);
        let counts = eventually("it is counted", SOON, || async {
            let counts = all_counts(&client).await;
            (counts.len() == 3 + run).then_some(counts)
        })
        .await;
        let found: Vec<_> = counts.iter().map(|count| (count.count, count.offset)).collect();
        assert_eq!(found, (0..3 + run as u64).map(|n| (n + 1, n)).collect::<Vec<_>>());
        let page = client.page("words", COUNTS, &format!("cursor={cursor}")).await.is(200);
        assert_eq!(page.records().len(), 1 + run, "a cursor from before goes on behind it");
        node.terminate();
        drop(node.ended().await);
    }
    let newest = times(&records(&log)).into_iter().last().expect("records have times");
    assert!(newest < latest, "the clock did go back: {newest} is not before {latest}");
}

type Record = (u8, Vec<u8>);

fn records(log: &Path) -> Vec<Record> {
    let mut found = Vec::new();
    let read = DurableLog::open(log, Config::default(), Position(0), &mut |record| {
        found.push((record.kind, record.body.to_vec()));
        ControlFlow::Continue(())
    });
    read.expect("a node has closed it").close().expect("nothing was written");
    found
}

/// Where the time of a record is: behind format, oldest reader, and so many numbers.
fn time_at((kind, body): &Record) -> Option<usize> {
    let numbers = match kind {
        1 => 2,
        2 => 5,
        _ => return None,
    };
    let ends = body.iter().enumerate().skip(2).filter(|(_, byte)| **byte < 0x80);
    Some(ends.map(|(at, _)| at).nth(numbers - 1).expect("a record has them all") + 1)
}

/// A number, and its bytes.
fn decoded(body: &[u8]) -> (u64, usize) {
    let bytes = body.iter().position(|byte| *byte < 0x80).expect("a number ends") + 1;
    let parts = body[..bytes].iter().rev();
    (parts.fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f)), bytes)
}

fn times(records: &[Record]) -> Vec<u64> {
    let timed = records.iter().filter_map(|record| Some(&record.1[time_at(record)?..]));
    timed.map(|bytes| decoded(bytes).0).collect()
}

/// Writes a log anew, each of its records dated an hour later. Gives the latest time.
fn date_an_hour_later(log: &Path) -> u64 {
    let mut all = records(log);
    let before = times(&all);
    for record in &mut all {
        let Some(at) = time_at(record) else { continue };
        let (mut time, bytes) = decoded(&record.1[at..]);
        time += HOUR;
        for byte in &mut record.1[at..at + bytes] {
            *byte = (time & 0x7f) as u8 | (*byte & 0x80);
            time >>= 7;
        }
        assert_eq!(time, 0, "times of this century have as many bytes");
    }
    let after = times(&all);
    assert!(before.iter().zip(&after).all(|(before, after)| before + HOUR == *after));
    fs::remove_dir_all(log).expect("it is closed");
    let new = DurableLog::open(log, Config::default(), Position(0), &mut |_| unreachable!());
    let new = new.expect("a new one");
    for (kind, body) in &all {
        new.append(Class::Commit, *kind, &[body]).expect("there is room");
    }
    new.close().expect("all is written");
    after.into_iter().max().expect("a request was logged")
}

#[tokio::test]
async fn a_value_over_the_bound_is_refused_also_behind_a_restart() {
    let setup = || Setup::dev().set("quota.state-bytes", "64KiB");
    let node = setup().start().await;
    let home = node.home().clone();
    let client = node.client();
    client.push("conformance-rust").await;
    let bound = "limits = { state-bytes = \"4KiB\" }";
    let manifest = single("keep", "conformance-rust", bound).replace("best-effort", "exactly-once");
    client.apply("keep", manifest).await;
    // Without a log all state is in memory, and the tenant's quota is the bound of all of it.
    client.apply("loose", single("loose", "conformance-rust", "")).await;
    let put = |bytes: usize| [&b"s\x04slot"[..], &vec![7; bytes]].concat();
    let kept = [&[1][..], &[7; 1024]].concat();
    async fn ask(client: &Client, pipeline: &str, operand: Vec<u8>) -> Vec<u8> {
        client.call(pipeline, "k", operand).await.is(200).body.to_vec()
    }
    let mut all = Vec::new();
    for (pipeline, much) in [("keep", 5 * 1024), ("loose", 70 * 1024)] {
        assert_eq!(ask(&client, pipeline, put(1024)).await, [0], "{pipeline}");
        let refused = ask(&client, pipeline, put(much)).await;
        assert_eq!(refused[0], 2, "{pipeline}: {}", String::from_utf8_lossy(&refused));
        assert_eq!(ask(&client, pipeline, b"gslot".to_vec()).await, kept, "what was there stays");
        all.push(refused);
    }
    drop(node.kill());
    let node = setup().home(&home).start().await;
    let client = node.client();
    assert_eq!(ask(&client, "keep", b"gslot".to_vec()).await, kept);
    assert_eq!(ask(&client, "keep", put(5 * 1024)).await, all[0]);
    assert_eq!(ask(&client, "keep", put(2 * 1024)).await, [0]);
}

/// Keys in a run, unless `SLUICEBOX_KEYS` says otherwise: what continuous integration has time
/// for.
const KEYS: u64 = 1_000_000;
/// Events of a request.
const AT_ONCE: u64 = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_keys_are_all_there_after_a_kill() {
    many_keys(number("SLUICEBOX_KEYS").unwrap_or(KEYS)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes some 5 GiB of memory and minutes; the million above is the same in small"]
async fn ten_million_keys_are_all_there_after_a_kill() {
    many_keys(10_000_000).await;
}

/// Counts each of so many keys once, kills the node, and counts some of them again. Bounds itself
/// in proportion: the runner's own limit is far behind (`.config/nextest.toml`).
async fn many_keys(keys: u64) {
    let patience = Duration::from_secs(120 + keys / 20_000);
    let counted = tokio::time::timeout(patience, count_and_kill(keys)).await;
    assert!(counted.is_ok(), "{keys} keys took more than {patience:?}");
}

async fn count_and_kill(keys: u64) {
    let quota = |setup: Setup| setup.set("quota.state-bytes", "16GiB");
    let node = quota(Setup::dev()).start().await;
    let home = node.home().clone();
    let client = node.client();
    client.push("bench-count").await;
    let small = words("").replace("word-count-count", "bench-count").replace("256MiB", "4MiB");
    client.push("word-count-split").await;
    client.apply("words", small).await;
    for first in (0..keys).step_by(AT_ONCE as usize) {
        send_keys(&client, first..keys.min(first + AT_ONCE)).await;
    }
    handled(&node, keys).await;
    drop(node.kill());
    let node = quota(Setup::dev()).home(&home).start().await;
    let client = node.client();
    let some: Vec<u64> = (0..keys).step_by((keys / 1_000).max(1) as usize).collect();
    let cursors = client.page("words", COUNTS, "cursor=latest").await.is(200).cursor();
    for key in &some {
        send_keys(&client, *key..key + 1).await;
    }
    let mut found = 0;
    let mut cursor = cursors;
    while found < some.len() {
        let query = format!("cursor={cursor}&wait=20s");
        let page = client.page("words", COUNTS, &query).await.is(200);
        let records = page.records();
        assert!(!records.is_empty(), "{found} of {} were counted again", some.len());
        for record in &records {
            let count = sluicebox_tests::client::payload(record);
            assert_eq!(count, 2_u64.to_le_bytes(), "{record}");
        }
        found += records.len();
        cursor = page.cursor();
    }
    assert_eq!(found, some.len());
}

/// Sends words, one for each number, until they are taken.
async fn send_keys(client: &Client, numbers: std::ops::Range<u64>) {
    let lines: Vec<u64> = numbers.collect();
    let line = |numbers: &[u64]| {
        let words: Vec<String> = numbers.iter().map(|number| format!("k{number:08}")).collect();
        Given::new(&words[0], words.join(" "))
    };
    let body = frame(&lines.chunks(10).map(line).collect::<Vec<_>>());
    eventually("they are taken", SOON, || async {
        match client.frame("words", &body).await.status {
            202 => Some(()),
            429 => None,
            other => panic!("{other}"),
        }
    })
    .await;
}

/// Waits until every word was counted.
async fn handled(node: &Node, words: u64) {
    let client = node.client();
    let prefix = "sluicebox_output_events_total{";
    eventually("all are counted", SOON * 10, || async {
        let figures = client.plain("/metrics").await.is(200);
        let lines = figures.text().lines().filter(|line| line.starts_with(prefix));
        let count = |line: &str| line.rsplit(' ').next()?.parse::<u64>().ok();
        (lines.filter_map(count).sum::<u64>() == words).then_some(())
    })
    .await;
}
