//! Schedules, while the node is killed.

use std::time::Duration;

use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::{Home, Setup};

use super::{Dice, all, echo};

#[tokio::test]
async fn each_second_comes_once_through_kills() {
    let home = Home::new();
    let mut node = Setup::dev().home(&home).start().await;
    node.client().push("hostile/echo").await;
    let cron = "[sources.tick.cron]\nat = \"* * * * * *\"\nmissed = \"all\"";
    node.client().apply("echo", echo(cron)).await;
    let mut dice = Dice(3);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(500 + dice.below(1500))).await;
        drop(node.kill());
        tokio::time::sleep(Duration::from_millis(dice.below(2000))).await;
        node = Setup::dev().home(&home).start().await;
    }
    let client = node.client();
    let records = eventually("ticks come", SOON, || async {
        let records = all(&client).await;
        (records.len() >= 10).then_some(records)
    })
    .await;
    // In their partition they are in order; each is a second after the other.
    let times: Vec<String> = records
        .iter()
        .map(|record| record["data"]["time"].as_str().expect("a time").to_owned())
        .collect();
    let seconds: Vec<u64> = times.iter().map(|time| second_of(time)).collect();
    let follows = seconds.is_sorted_by(|one, next| (one + 1) % 86_400 == *next);
    assert!(follows, "each once and none missing: {times:?}");
    let record = &records[0];
    assert_eq!((&record["type"], &record["key"]), (&"sluicebox.cron".into(), &"tick".into()));
    assert_eq!(record["time"], record["data"]["time"], "it is of the time it says");
}

/// The second of the day.
fn second_of(time: &str) -> u64 {
    let part = |range: std::ops::Range<usize>| time[range].parse::<u64>().expect("a number");
    part(11..13) * 3600 + part(14..16) * 60 + part(17..19)
}
