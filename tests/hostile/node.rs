//! Hostile guests in the real program: their owner is told, and a good tenant beside them gets its
//! results.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicebox_tests::client::Client;
use sluicebox_tests::events::{Dead, Given, Out, frame};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::guests;
use sluicebox_tests::manifest::{of_spec, single};
use sluicebox_tests::node::{Node, Setup};
use sluicebox_tests::rig::Spec;

use super::engine::{ENDS, End, LIMITS};

/// Longest a good tenant waits for one result, with much to spare: the share of two workers that
/// is its own is worth milliseconds.
const RESULT_TIME_MAX: Duration = Duration::from_secs(10);

/// Events each hostile guest gets; fewer than the seven after which one of them panics.
const EVENTS: usize = 5;

async fn node() -> Node {
    let node = Setup::tenants(&["hog", "victim"]).start().await;
    let victim = node.tenant("victim");
    victim.push("hostile/echo").await;
    victim.apply("good", single("good", "echo", "")).await;
    node
}

/// One result for the good tenant.
async fn served(victim: &Client) {
    let began = Instant::now();
    let reply = victim.call("good", "k", "good").await;
    assert_eq!(reply.is(200).text(), "good");
    let took = began.elapsed();
    assert!(took < RESULT_TIME_MAX, "a good tenant waited {took:?} for a result");
}

/// Runs a hog until it is done, and a good tenant meanwhile; gives how often that was served.
async fn beside(victim: &Client, hog: impl Future<Output = ()>) -> usize {
    let mut hog = std::pin::pin!(hog);
    let mut results = 0;
    loop {
        tokio::select! {
            biased;
            () = &mut hog => return results,
            () = served(victim) => results += 1,
        }
    }
}

/// What the owner of a hostile guest finds.
async fn ends_as_promised(hog: &Client, name: &str, end: End) {
    match end {
        End::Trap(words) => {
            hog.records(name, "dead-letters", EVENTS).await;
            let dead: Vec<Dead> = hog.events(name, "dead-letters", Dead::read).await;
            assert_eq!(dead.len(), EVENTS, "{name}");
            for dead in dead {
                assert_eq!((dead.stage.as_str(), dead.class.as_str()), ("stage-0", "trap"));
                assert!(dead.message.contains(words), "{name}: not {words:?}: {}", dead.message);
            }
            let out = |event: &sluicebox_core::frame::Event<'_>| Out::read(0, event);
            assert_eq!(hog.events(name, "outputs/p0", out).await, vec![], "{name}");
        }
        End::Returns(each) => {
            let what = format!("{name} has handled its events");
            eventually(&what, SOON, || async {
                let detail = hog.describe(name).await;
                let stage = &detail["stage"][0];
                let counts = [&stage["events-in"], &stage["events-out"]].map(Value::as_u64);
                (counts == [Some(EVENTS as u64), Some((EVENTS * each) as u64)]).then_some(())
            })
            .await;
            assert_eq!(hog.page(name, "dead-letters", "").await.is(200).text(), "", "{name}");
        }
    }
}

#[tokio::test]
async fn each_of_them_ends_in_an_error_for_its_owner_and_others_keep_going() {
    let node = node().await;
    let (hog, victim) = (node.tenant("hog"), node.tenant("victim"));
    // Of the variants of a guest the last.
    let mut all: BTreeMap<&str, (u8, End)> =
        ENDS.iter().map(|(name, first, end)| (*name, (*first, *end))).collect();
    all.insert("sleep", (b'x', End::Trap("waited for more than")));
    let attack = async {
        for name in all.keys() {
            hog.push(&format!("hostile/{name}")).await;
            let spec = Spec { limits: LIMITS, ..Spec::default() };
            hog.apply(name, of_spec(name, name, &spec)).await;
        }
        for (name, (first, _)) in &all {
            // A sleeper sleeps for each of its events.
            let count = if *name == "sleep" { 1 } else { EVENTS };
            let given: Vec<Given> =
                (0..count).map(|n| Given::new("k", [*first, n as u8, 0])).collect();
            hog.frame(name, &frame(&given)).await.is(202);
        }
        for (name, (_, end)) in all.iter().filter(|(name, _)| **name != "sleep") {
            ends_as_promised(&hog, name, *end).await;
        }
        let woken = hog.records("sleep", "dead-letters", 1).await;
        let message = woken[0]["message"].as_str().expect("a text");
        assert!(message.contains("waited for more than"), "{message}");
    };
    let results = beside(&victim, attack).await;
    assert!(results > 100, "{results} results in all that time");
    for name in all.keys() {
        hog.delete(&format!("pipelines/{name}")).await.is(204);
    }
    assert_eq!(hog.get("pipelines").await.is(200).json(), serde_json::json!([]));
    served(&victim).await;
}

#[tokio::test]
async fn a_hog_with_work_for_minutes_gets_no_more_than_its_share() {
    let node = node().await;
    let (hog, victim) = (node.tenant("hog"), node.tenant("victim"));
    let guests = ["spin", "trap-always", "log-flood", "emit-many", "grow-one", "recurse"];
    for guest in guests {
        hog.push(&format!("hostile/{guest}")).await;
        let text = single(guest, guest, "limits = { fuel-per-event = 500_000_000 }");
        hog.apply(guest, text.replace("partitions = 1", "partitions = 8")).await;
        let given: Vec<Given> = (0..2_000).map(|n| Given::new(&format!("key {n}"), "x")).collect();
        hog.frame(guest, &frame(&given)).await.is(202);
    }
    for _ in 0..60 {
        served(&victim).await;
    }
    let spin = hog.describe("spin").await;
    let left = spin["partition"].as_array().expect("a list").iter();
    let left: u64 = left.filter_map(|partition| partition["inbox-bytes"].as_u64()).sum();
    let lost = &spin["stage"][0]["dead-letters"];
    assert!(left > 0 || lost.as_u64() < Some(2_000), "the hog was done before: {spin:#}");
}

#[tokio::test]
async fn what_could_never_run_is_refused_and_costs_nobody_anything() {
    let node = node().await;
    let (hog, victim) = (node.tenant("hog"), node.tenant("victim"));
    let attack = async {
        for _ in 0..5 {
            let many = guests::bytes("hostile/grow-many");
            let problem = hog.put("components/many", many).await.problem(400, "component.demand");
            let detail = problem["detail"].as_str().expect("a text");
            assert!(detail.contains("65 Wasm linear memories"), "{detail}");
        }
        for name in guests::names("hostile-refused") {
            let bytes = guests::bytes(&format!("hostile-refused/{name}"));
            hog.put(&format!("components/{name}"), bytes).await.is(400);
        }
    };
    beside(&victim, attack).await;
    assert_eq!(hog.get("components").await.is(200).json(), serde_json::json!([]));
    served(&victim).await;
}
