//! Event time where partitions are on several nodes: a watermark is of all of them, and timers
//! fire once, under it.

use std::time::Duration;

use rustix::process::{Signal, kill_process};
use sluicebox_tests::client::{Client, payload};
use sluicebox_tests::cluster::Cluster;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::Setup;

use crate::ECHO;

use super::{NAMES, Scene, key_in};

/// Event times of these tests begin here.
const BASE: u64 = 1_700_000_000_000_000;

/// Two segments; the second sets timers as it is told.
const TIMERS: &str = "version = 1\nname = \"timers\"\npartitions = 4\n[time]\nlateness = \"0s\"\n\
     [ingest]\nto = [\"first\"]\n[stages.first]\ncomponent = \"echo\"\n\
     [stages.second]\ncomponent = \"conformance-rust\"\n\
     [[edges]]\nfrom = \"first\"\nto = \"second\"\nkey = \"emitted\"\n\
     [outputs.reply]\nfrom = \"second\"\n";

async fn scene(nodes: usize) -> Scene {
    let scene = Scene::of(Cluster::of(&NAMES[..nodes]), Setup::dev).await;
    scene.through[0].push(ECHO).await;
    scene.through[0].push("conformance-rust").await;
    scene.through[0].apply("timers", TIMERS).await;
    scene.about("timers").await
}

/// Sends an event of a time after [`BASE`], until it is taken.
async fn send(client: &Client, key: &str, time: u64, payload: Vec<u8>) {
    let (query, time) = (format!("?key={key}"), (BASE + time).to_string());
    eventually("the event is taken", SOON, || async {
        let headers = [("sluicebox-time", &*time), ("sluicebox-id", &*format!("{key}-{time}"))];
        let reply = client.send("timers", &query, &headers, payload.clone()).await;
        matches!(reply.status, 200 | 202).then_some(())
    })
    .await;
}

/// Sets a timer in every partition.
async fn set_timers(client: &Client, now: u64, at: u64) {
    for partition in 0..4 {
        let command = [&[b'T', 0][..], &(BASE + at).to_le_bytes(), b"t"].concat();
        send(client, &key_in(partition), now, command).await;
    }
}

/// The timers that fired: key and time after [`BASE`].
async fn fired(client: &Client) -> Vec<(String, u64)> {
    let page = client.page("timers", "outputs/reply", "cursor=oldest&limit=1000").await.is(200);
    let records = page.records();
    let timer = |record: &serde_json::Value| {
        let payload = payload(record);
        let time = payload.get(3..11)?.try_into().ok().map(u64::from_le_bytes)?;
        let key = String::from_utf8_lossy(&payload[11..]).into_owned();
        (payload[0] == 1).then_some((key, time - BASE))
    };
    let mut fired: Vec<(String, u64)> = records.iter().filter_map(timer).collect();
    fired.sort();
    fired
}

async fn until_all_fired(client: &Client, times: &[u64]) {
    let all = times.iter().flat_map(|time| (0..4).map(|at| (key_in(at), *time)));
    let mut expected: Vec<(String, u64)> = all.collect();
    expected.sort();
    eventually("the timers fire", SOON, || async {
        (fired(client).await.len() >= expected.len()).then_some(())
    })
    .await;
    assert_eq!(fired(client).await, expected);
}

#[tokio::test]
async fn timers_fire_wherever_their_partitions_are_and_through_kills() {
    let mut scene = scene(3).await;
    let (home, second, third) = (scene.home, scene.other(1), scene.other(2));
    let mut times = Vec::new();
    for (round, victim) in [None, Some(second), Some(third), Some(home)].into_iter().enumerate() {
        let begin = 100 * round as u64;
        set_timers(scene.at_home(), begin + 1, begin + 50).await;
        if round == 0 {
            // They go with the timers they have.
            scene.moved(&[1], second).await;
            scene.moved(&[2, 3], third).await;
        }
        if let Some(victim) = victim {
            scene.killed_and_started(victim).await;
            scene.all_up().await;
        }
        assert_eq!(fired(scene.at_home()).await.len(), 4 * round, "before their time");
        // In one partition; all others know of it.
        send(scene.at_home(), &key_in(0), begin + 55, b"e".to_vec()).await;
        times.push(begin + 50);
        until_all_fired(scene.at_home(), &times).await;
    }
    // What is elsewhere, and what is shown of it.
    let shown = eventually("the watermark is shown", SOON, || async {
        let detail = scene.at_home().describe("timers").await;
        (detail["time"]["watermark"] == BASE + 355).then_some(detail)
    });
    let detail = shown.await;
    let marks: Vec<_> = detail["partition"].as_array().expect("a list").iter().collect();
    assert!(marks.iter().all(|one| one["watermark"] == BASE + 355), "{detail:#}");
    set_timers(scene.at_home(), 401, 450).await;
    scene.all_back().await;
    send(scene.at_home(), &key_in(3), 455, b"e".to_vec()).await;
    times.push(450);
    until_all_fired(scene.at_home(), &times).await;
}

#[tokio::test]
async fn a_node_that_stands_still_holds_up_the_watermark_of_what_waits_for_it() {
    let scene = scene(2).await;
    let other = scene.other(1);
    set_timers(scene.at_home(), 1, 50).await;
    scene.moved(&[1], other).await;
    let process = scene.nodes[other].process().expect("it runs");
    kill_process(process, Signal::STOP).expect("it can be stopped");
    send(scene.at_home(), &key_in(0), 55, b"e".to_vec()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let early = fired(scene.at_home()).await;
    kill_process(process, Signal::CONT).expect("it goes on");
    assert_eq!(early, [], "what is there may still send something earlier");
    until_all_fired(scene.at_home(), &[50]).await;
}

#[tokio::test]
async fn after_a_silence_time_goes_on_elsewhere_too() {
    let scene = scene(2).await;
    let idle = TIMERS.replace("lateness = \"0s\"", "lateness = \"0s\"\nidle-after = \"200ms\"");
    scene.at_home().apply("timers", idle).await;
    // In two seconds of silence; what comes behind it is none of this test's.
    set_timers(scene.at_home(), 1, 2_000_000).await;
    scene.moved(&[1, 2], scene.other(1)).await;
    until_all_fired(scene.at_home(), &[2_000_000]).await;
}
