//! The queries of Nexmark through the real program, exactly-once, held against the model.
//!
//! - Events are generated from a seed, packed, and posted as frames; the model is given the same
//!   list. Each query is run at once, and with the node killed while requests are under way: what
//!   was not acknowledged is sent again under its number.
//! - What lets the watermark pass is an event of a day later. No event is late and none fails.
//!
//! Leaves to others: whether the generator is like the reference's (`tests/nexmark`).

use std::collections::BTreeMap;
use std::time::Duration;

use sluicebox_core::frame::Kind;
use sluicebox_nexmark::generator::frames;
use sluicebox_nexmark::{Event, Generator, model};
use sluicebox_tests::client::{Client, FRAME};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::{Home, Node, Setup};
use tokio::sync::watch;

/// Events, and how many of them are in a second of their time: windows of ten seconds have
/// something to count, and there is more than one.
const COUNT: u64 = 30_000;
const RATE: u64 = 800;
/// Events of a request.
const REQUEST: u64 = 500;
/// A window by the clock is ten seconds long.
const BY_CLOCK: Duration = Duration::from_secs(20);

fn manifest(query: &str) -> String {
    let path = sluicebox_tests::root().join(format!("examples/nexmark/{query}.toml"));
    std::fs::read_to_string(path).expect("each query has its manifest")
}

/// Everything that is sent.
fn events(generator: &Generator) -> impl Iterator<Item = Event<'_>> {
    generator.events(0..COUNT).chain([generator.closing(COUNT)])
}

/// The bodies of requests, in order.
fn requests(generator: &Generator) -> Vec<Vec<u8>> {
    let starts = (0..COUNT).step_by(REQUEST as usize);
    let parts = starts.map(|from| frames(generator.events(from..(from + REQUEST).min(COUNT))));
    parts.chain([frames([generator.closing(COUNT)])]).collect()
}

async fn begin(client: &Client, query: &str) {
    client.push("nexmark-queries").await;
    client.apply(&format!("nexmark-{query}"), manifest(query)).await;
}

/// Sends all requests, each until it is acknowledged, to wherever the node is. Says with each how
/// far it is.
async fn send(
    query: &str,
    requests: Vec<Vec<u8>>,
    nodes: watch::Receiver<Client>,
    sent: watch::Sender<u64>,
) {
    let pipeline = format!("nexmark-{query}");
    for (number, body) in (1_u64..).zip(requests) {
        let sequence = number.to_string();
        let headers = [
            ("content-type", FRAME),
            ("sluicebox-producer", "generator"),
            ("sluicebox-sequence", &sequence),
        ];
        eventually("a request is acknowledged", SOON, || async {
            let client = nodes.borrow().clone();
            let reply = client.attempt(&pipeline, &headers, body.clone()).await;
            let taken = reply.as_ref().is_some_and(|reply| matches!(reply.status, 200 | 202));
            let refused = reply.as_ref().is_some_and(|r| (400..429).contains(&r.status));
            assert!(!refused, "{reply:?}");
            taken.then_some(())
        })
        .await;
        sent.send_replace(number);
    }
}

/// A node that has been given everything, killed so many times meanwhile; the last time at once
/// when all is acknowledged.
async fn run(query: &str, generator: &Generator, kills: u64) -> Node {
    let home = Home::new();
    let mut node = Setup::dev().home(&home).start().await;
    begin(&node.client(), query).await;
    let (tell, nodes) = watch::channel(node.client());
    let requests = requests(generator);
    let (count, (tell_sent, mut sent)) = (requests.len() as u64, watch::channel(0));
    let sending = send(query, requests, nodes, tell_sent);
    let killing = async {
        for kill in 1..=kills {
            let at = count * kill / kills;
            sent.wait_for(|sent| *sent >= at).await.expect("it says how far it is");
            drop(node.kill());
            node = Setup::dev().home(&home).start().await;
            tell.send_replace(node.client());
        }
        node
    };
    let ((), node) = tokio::join!(sending, killing);
    node
}

/// What is in an output now, and that nothing failed.
async fn found(client: &Client, query: &str) -> Vec<Vec<u8>> {
    let pipeline = format!("nexmark-{query}");
    let dead = client.page(&pipeline, "dead-letters", "").await.is(200).records();
    assert!(dead.is_empty(), "{:?}", dead.first());
    let mut all = Vec::new();
    let mut query = String::new();
    loop {
        let path = client.path(&format!("pipelines/{pipeline}/outputs/results?{query}"));
        let page = client.ask(http::Method::GET, &path, &[("accept", FRAME)], "").await.is(200);
        query = format!("cursor={}", page.cursor());
        let frames = page.frames();
        let before = all.len();
        for frame in &frames {
            all.extend(frame.events().map(|event| {
                assert_eq!(event.head.kind, Kind::Data);
                event.payload.to_vec()
            }));
        }
        if all.len() == before {
            return all;
        }
    }
}

/// Waits until there are so many results, and then until the pipeline is at rest, so that any that
/// are too many are seen.
async fn results(client: &Client, query: &str, count: usize) -> Vec<Vec<u8>> {
    let what = format!("{count} results of {query}");
    eventually(&what, BY_CLOCK + SOON, || async {
        (found(client, query).await.len() >= count).then_some(())
    })
    .await;
    let pipeline = format!("nexmark-{query}");
    eventually("all events are handled", SOON, || async {
        let before = client.describe(&pipeline).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let after = client.describe(&pipeline).await;
        let partitions = after["partition"].as_array().expect("a list");
        let empty = partitions.iter().all(|partition| partition["inbox-bytes"] == 0);
        assert!(!partitions.is_empty() && after["usage"].is_array(), "{after:#}");
        (empty && before["usage"] == after["usage"]).then_some(())
    })
    .await;
    found(client, query).await
}

async fn lines(client: &Client, query: &str, count: usize) -> Vec<String> {
    let found = results(client, query, count).await;
    let mut lines: Vec<String> =
        found.into_iter().map(|line| String::from_utf8(line).expect("JSON is text")).collect();
    lines.sort();
    lines
}

#[track_caller]
fn same(found: &[String], expected: &[String]) {
    assert!(!expected.is_empty(), "there is something to be found");
    let first = found.iter().zip(expected).find(|(one, other)| one != other);
    assert_eq!(first, None);
    assert_eq!(found.len(), expected.len());
}

/// Runs a query whose results are lines, at once and through kills.
async fn check(query: &str, expected: fn(&Generator) -> Vec<String>) {
    for (seed, kills) in [(1, 0), (2, 3)] {
        let generator = Generator::new(seed, RATE);
        let expected = expected(&generator);
        let node = run(query, &generator, kills).await;
        same(&lines(&node.client(), query, expected.len()).await, &expected);
    }
}

#[tokio::test]
async fn q0_gives_every_event_as_it_came() {
    for (seed, kills) in [(1, 0), (2, 3)] {
        let generator = Generator::new(seed, RATE);
        let node = run("q0", &generator, kills).await;
        let mut found = results(&node.client(), "q0", COUNT as usize + 1).await;
        let packed = |event: Event<'_>| {
            let mut bytes = Vec::new();
            event.pack(&mut bytes);
            bytes
        };
        let mut expected: Vec<Vec<u8>> = events(&generator).map(packed).collect();
        found.sort();
        expected.sort();
        assert_eq!(found.len(), expected.len());
        assert!(found == expected, "an event is another");
    }
}

#[tokio::test]
async fn q1_converts_every_price() {
    for (seed, kills) in [(1, 0), (2, 3)] {
        let generator = Generator::new(seed, RATE);
        let expected = model::q1(events(&generator));
        let node = run("q1", &generator, kills).await;
        let found = results(&node.client(), "q1", expected.len()).await;
        let number = |bid: &[u8], at: usize| {
            u64::from_le_bytes(bid[at..at + 8].try_into().expect("8 bytes"))
        };
        let bid = |bid: &Vec<u8>| (number(bid, 1), number(bid, 9), number(bid, 17));
        let mut found: Vec<_> = found.iter().map(bid).collect();
        found.sort_unstable();
        assert_eq!(found.len(), expected.len());
        assert!(found == expected, "a bid is another");
    }
}

#[tokio::test]
async fn q2_selects_some_auctions() {
    check("q2", |generator| model::q2(events(generator))).await;
}

#[tokio::test]
async fn q3_joins_people_and_what_they_sell() {
    check("q3", |generator| model::q3(events(generator))).await;
}

#[tokio::test]
async fn q4_comes_to_the_average_of_what_was_sold() {
    for (seed, kills) in [(1, 0), (2, 3)] {
        let generator = Generator::new(seed, RATE);
        let expected = model::q4(events(&generator));
        let sold: u64 = expected.iter().map(|line| part(line, "auctions")).sum();
        let node = run("q4", &generator, kills).await;
        let all = lines(&node.client(), "q4", sold as usize).await;
        assert_eq!(all.len(), sold as usize, "each auction that is sold is told of once");
        let mut last = BTreeMap::new();
        for line in &all {
            let so_far = last.entry(part(line, "category")).or_insert(line);
            if part(line, "auctions") > part(so_far, "auctions") {
                *so_far = line;
            }
        }
        let last: Vec<String> = last.into_values().cloned().collect();
        same(&last, &expected);
    }
}

#[tokio::test]
async fn q5_finds_the_hottest_auctions_of_sliding_windows() {
    check("q5", |generator| model::q5(events(generator))).await;
}

#[tokio::test]
async fn q7_finds_the_highest_bids() {
    check("q7", |generator| model::q7(events(generator))).await;
}

#[tokio::test]
async fn q8_finds_new_users_who_sell() {
    check("q8", |generator| model::q8(events(generator))).await;
}

#[tokio::test]
async fn q11_counts_sessions() {
    check("q11", |generator| model::q11(events(generator))).await;
}

/// Which bids are handled when is the node's business: what is checked is that each is counted
/// once, in one of the windows of its bidder.
#[tokio::test]
async fn q12_counts_every_bid_in_a_window_by_the_clock() {
    for (seed, kills) in [(1, 0), (2, 3)] {
        let generator = Generator::new(seed, RATE);
        let expected = model::by_bidder(events(&generator));
        let node = run("q12", &generator, kills).await;
        let client = node.client();
        eventually("all bids are counted", BY_CLOCK + SOON, || async {
            let found = found(&client, "q12").await;
            let counts = found.iter().map(|line| part(&text(line), "bids"));
            (counts.sum::<u64>() >= expected.values().sum()).then_some(())
        })
        .await;
        let mut counts = BTreeMap::new();
        let mut windows = std::collections::BTreeSet::new();
        for line in lines(&client, "q12", 1).await {
            let [bidder, start, end] = ["bidder", "start", "end"].map(|name| part(&line, name));
            assert!(start.is_multiple_of(10_000_000) && end == start + 10_000_000, "{line}");
            assert!(windows.insert((bidder, start)), "a window has two results: {line}");
            *counts.entry(bidder).or_default() += part(&line, "bids");
        }
        assert_eq!(counts, expected);
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8(line.to_vec()).expect("JSON is text")
}

/// A number in a line of JSON.
#[track_caller]
fn part(line: &str, name: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
    value[name].as_u64().unwrap_or_else(|| panic!("no {name}: {line}"))
}
