//! What goes along when a pipeline moves: open streams, timers, dead letters, known ids, cursors.

use http::Method;
use serde_json::Value;
use sluicebox_core::frame::Frame;
use sluicebox_tests::client::{Client, payload};
use sluicebox_tests::cluster::Cluster;
use sluicebox_tests::eventually::{SOON, eventually, eventually_equal};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup};
use sluicebox_tests::stream_memory::{GUEST, last_words, texts, told};

use super::{ECHO, clients, home, kept};

const NAMES: [&str; 2] = ["a", "b"];

/// Two nodes, and their clients.
async fn two() -> (Cluster, Vec<Node>, Vec<Client>) {
    let cluster = Cluster::of(&NAMES);
    let nodes = cluster.start(Setup::dev).await;
    let through = clients(&nodes);
    (cluster, nodes, through)
}

/// Moves a pipeline to the other of the two nodes.
async fn to_the_other(client: &Client, pipeline: &str) {
    let to = if home(client, pipeline).await == "a" { "b" } else { "a" };
    let path = client.path(&format!("pipelines/{pipeline}/move?to={to}"));
    eventually("it moves", SOON, || async {
        let reply = client.ask(Method::POST, &path, &[], "").await;
        assert!(matches!(reply.status, 200 | 503), "{reply:?}");
        (reply.status == 200).then_some(())
    })
    .await;
    assert_eq!(home(client, pipeline).await, to);
}

/// Kills both nodes and starts them again.
async fn again(cluster: &Cluster, nodes: &mut Vec<Node>) {
    for (at, name) in NAMES.iter().enumerate() {
        let old = nodes.remove(at);
        let setup = cluster.setup(Setup::as_before(&old).at(old.address()), name);
        drop(old.kill());
        nodes.insert(at, setup.start().await);
    }
    for node in nodes {
        sluicebox_tests::cluster::until_up(&node.client(), 2).await;
    }
}

#[tokio::test]
async fn an_open_stream_goes_on_where_it_was() {
    let (cluster, mut nodes, through) = two().await;
    through[0].push(GUEST).await;
    let manifest = format!(
        "version = 1\nname = \"streams\"\npartitions = 2\n[ingest]\nto = [\"fold\"]\n\
         [stages.fold]\ncomponent = \"{GUEST}\"\nscope = \"stream\"\n\
         [outputs.out]\nfrom = \"fold\"\n"
    );
    through[0].apply("streams", manifest).await;
    let mut words: Vec<String> = Vec::new();
    for round in 0..6 {
        let word = format!("word {round}");
        through[round % 2].send("streams", "?key=k", &[], word.clone()).await.is(202);
        words.push(word);
        let all: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = || async {
            let page = through[1].page("streams", "outputs/out", "cursor=oldest").await.is(200);
            let text = |record: &Value| String::from_utf8(payload(record)).expect("text");
            page.records().iter().map(text).collect::<Vec<_>>()
        };
        eventually_equal(told(&texts(&all)), SOON, said).await;
        to_the_other(&through[0], "streams").await;
        if round == 3 {
            again(&cluster, &mut nodes).await;
        }
    }
    let end = [("sluicebox-key", "k"), ("sluicebox-end", "true")];
    through[0].send("streams", "", &end, "").await.is(202);
    let all: Vec<&str> = words.iter().map(String::as_str).collect();
    let expected = [told(&texts(&all)), vec![last_words(&texts(&all))]].concat();
    let records = through[0].records("streams", "outputs/out", expected.len()).await;
    let text = |record: &Value| String::from_utf8(payload(record)).expect("text");
    assert_eq!(records.iter().map(text).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn timers_fire_once_at_the_node_the_pipeline_is_on() {
    const BASE: u64 = 1_700_000_000_000_000;
    let (cluster, mut nodes, through) = two().await;
    through[0].push("conformance-rust").await;
    let text = single("timers", "conformance-rust", "").replace("best-effort", "exactly-once");
    through[0].apply("timers", format!("{text}[time]\nlateness = \"0s\"\n")).await;
    let send = |at: usize, time: u64, body: Vec<u8>| {
        let client = through[at].clone();
        async move {
            let time = (BASE + time).to_string();
            let headers = [("sluicebox-time", time.as_str())];
            client.send("timers", "?key=k", &headers, body).await.is(202);
        }
    };
    for n in 1..=4_u64 {
        let at = BASE + n * 1000;
        let timer = [&b"T\x00"[..], &at.to_le_bytes(), format!("t{n}").as_bytes()].concat();
        send(0, 0, timer).await;
    }
    let fired = || async {
        let page = through[1].page("timers", "outputs/reply", "cursor=oldest&limit=1000").await;
        let time = |record: &Value| {
            let payload = payload(record);
            let time = payload.get(3..11)?.try_into().ok().map(u64::from_le_bytes)?;
            (payload[0] == 1).then_some(time)
        };
        page.is(200).records().iter().filter_map(time).collect::<Vec<_>>()
    };
    let mut expected = Vec::new();
    for n in 1..=4_u64 {
        to_the_other(&through[0], "timers").await;
        if n == 3 {
            again(&cluster, &mut nodes).await;
        }
        send(1, n * 1000 + 1, b"e".to_vec()).await;
        expected.push(BASE + n * 1000);
        eventually_equal(expected.clone(), SOON, &fired).await;
    }
}

#[tokio::test]
async fn known_ids_dead_letters_and_cursors_are_good_at_the_other_node() {
    let (cluster, mut nodes, through) = two().await;
    through[0].push(ECHO).await;
    through[0].push("hostile/trap-always").await;
    through[0].apply("kept", kept("kept")).await;
    let failing = single("failing", "trap-always", "").replace("best-effort", "exactly-once");
    through[0].apply("failing", failing).await;
    let (mut cursor, mut dead) = ("oldest".to_owned(), 0);
    for round in 0..4_usize {
        // Each event twice: before and after a move.
        let id = format!("e{round}");
        let headers = [("sluicebox-id", id.as_str()), ("sluicebox-key", "k")];
        through[0].send("kept", "", &headers, format!("body {round}")).await.is(202);
        let page = eventually("what is new is there", SOON, || async {
            let query = format!("cursor={cursor}");
            let page = through[0].page("kept", "outputs/reply", &query).await.is(200);
            (!page.records().is_empty()).then_some(page)
        })
        .await;
        let found: Vec<_> = page.records().iter().map(payload).collect();
        assert_eq!(
            found,
            [format!("body {round}").into_bytes()],
            "each once, by a cursor of before"
        );
        cursor = page.cursor();
        to_the_other(&through[1], "kept").await;
        for earlier in 0..=round {
            let id = format!("e{earlier}");
            let headers = [("sluicebox-id", id.as_str()), ("sluicebox-key", "k")];
            let body = format!("body {earlier}");
            let reply = through[1].send("kept", "", &headers, body).await;
            assert_eq!(reply.is(202).json()["duplicates"], 1, "{id} in round {round}");
        }
        through[0].send("failing", "?key=k", &[], "f").await.is(202);
        dead += 1;
        through[1].records("failing", "dead-letters", dead).await;
        to_the_other(&through[1], "failing").await;
        assert_eq!(through[0].records("failing", "dead-letters", dead).await.len(), dead);
        let path = through[0].path("pipelines/failing/dead-letters/replay");
        let replayed = through[0].ask(Method::POST, &path, &[], "").await.is(200).json();
        // What was replayed before is known; it failed again, and is a dead letter more.
        let fresh = replayed["replayed"].as_u64().expect("a number") as usize;
        assert_eq!(fresh + replayed["duplicates"].as_u64().expect("a number") as usize, dead);
        dead += fresh;
        through[1].records("failing", "dead-letters", dead).await;
        if round == 1 {
            again(&cluster, &mut nodes).await;
        }
    }
}

/// A frame of `count` events with values of a kibibyte under keys of their own.
fn large(from: u32, count: u32) -> Frame {
    use sluicebox_core::frame::{FrameBuilder, Head};
    let mut builder = FrameBuilder::new();
    for n in from..from + count {
        let key = format!("key-{n:06}");
        builder.push(&Head::data(u64::from(n)), key.as_bytes(), &[b'x'; 1024], &[]);
    }
    builder.finish()
}

#[tokio::test]
async fn more_than_a_page_of_outputs_goes_along_whole() {
    let (_cluster, _nodes, through) = two().await;
    through[0].push(ECHO).await;
    let manifest = kept("kept").replace(
        "[outputs.reply]\nfrom = \"stage-0\"\n",
        "[outputs.reply]\nfrom = \"stage-0\"\nretain-bytes = \"64MiB\"\n",
    );
    assert!(manifest.contains("64MiB"), "{manifest}");
    through[0].apply("kept", manifest).await;
    for part in 0..12 {
        through[part % 2].frame("kept", &large(part as u32 * 1000, 1000)).await.is(202);
    }
    eventually("everything has left", SOON, || async {
        let detail = through[0].describe("kept").await;
        (detail["output"][0]["events"] == 12_000).then_some(())
    })
    .await;
    to_the_other(&through[0], "kept").await;
    let mut keys = std::collections::BTreeSet::new();
    let mut cursor = "oldest".to_owned();
    while keys.len() < 12_000 {
        let page = through[1].page("kept", "outputs/reply", &format!("cursor={cursor}")).await;
        let page = page.is(200);
        let records = page.records();
        assert!(!records.is_empty(), "only {} came along", keys.len());
        for record in &records {
            let key = record["key"].as_str().expect("a key").to_owned();
            assert!(keys.insert(key), "twice: {}", record["key"]);
        }
        cursor = page.cursor();
    }
}
