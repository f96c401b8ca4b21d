//! Who gets a GPU, and what is said to who does not.

use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::Setup;

use super::{Bed, GRANT, apply, gpu, say, with_device};

#[tokio::test]
async fn a_component_that_wants_one_needs_the_grant() {
    let node = with_device("interpreter").start().await;
    let client = node.client();
    client.push("gpu").await;
    let reply = client.put("pipelines/g", single("g", "gpu", "")).await;
    let problem = reply.problem(400, "manifest.invalid");
    assert_eq!(problem["problems"][0]["field"], "stages.stage-0.grants.gpu");
    assert_eq!(problem["problems"][0]["code"], "pipeline.no-grant");
    // Nothing was started for it.
    assert_eq!(gpu(&client).await["state"], "at-rest");
}

#[tokio::test]
async fn without_a_device_a_pipeline_is_refused_and_all_else_runs() {
    for (device, why) in [("off", "gpu.device"), ("name:no such device", "no GPU")] {
        let node = with_device(device).start().await;
        let client = node.client();
        client.push("gpu").await;
        let reply = client.put("pipelines/g", single("g", "gpu", GRANT)).await;
        let problem = reply.problem(503, "gpu.none");
        assert!(problem["detail"].as_str().expect("a text").contains(why), "{problem}");
        client.push("conformance-rust").await;
        client.apply("e", single("e", "conformance-rust", "")).await;
        assert_eq!(client.call("e", "k", "ex").await.text(), "x");
    }
}

#[tokio::test]
async fn a_pipeline_from_before_fails_its_events_and_says_why() {
    let bed = Bed::new(with_device("interpreter"), "retries = 0").await;
    let exactly_once =
        single("g", "gpu", &format!("{GRANT}\nretries = 0")).replace("best-effort", "exactly-once");
    bed.client.apply("g", exactly_once).await;
    assert_eq!(say(&bed.client, "g", "double 2").await, "4");
    let setup = Setup::as_before(&bed.node).set("gpu.device", "off");
    drop(bed);
    let node = setup.start().await;
    let client = node.client();
    assert_eq!(say(&client, "g", "device").await, "refused gpu.none");
    client.send("g", "", &[("sluicebox-key", "k")], "double 2").await.is(202);
    let records = client.records("g", "dead-letters", 1).await;
    assert!(records[0].to_string().contains("gpu.none"), "{records:?}");
}

#[tokio::test]
async fn what_is_promised_is_never_more_than_there_is() {
    let setup =
        Setup::tenants(&["one", "two"]).set("gpu.device", "interpreter").set("gpu.share", "600");
    let node = setup.start().await;
    let (one, two) = (node.tenant("one"), node.tenant("two"));
    apply(&one, "g", GRANT).await;
    two.push("gpu").await;
    two.put("pipelines/g", single("g", "gpu", GRANT)).await.problem(429, "gpu.oversold");
    assert_eq!(say(&one, "g", "double 3").await, "6");
    // Neither learns of the other.
    assert_eq!(gpu(&two).await["stages"].as_array().map(Vec::len), Some(0));
    // What one gives up, two can have.
    one.delete("pipelines/g").await.is(204);
    apply(&two, "g", GRANT).await;
    assert_eq!(say(&two, "g", "double 4").await, "8");
}

#[tokio::test]
async fn memory_beyond_a_tenants_share_is_refused() {
    let setup = with_device("interpreter")
        .set("gpu.memory-bytes", "32MiB")
        .set("gpu.memory-bytes-lent", "0B");
    let bed = Bed::new(setup, "").await;
    assert!(bed.say(&format!("hold {}", 16 << 20)).await.starts_with("handle "));
    assert_eq!(bed.say(&format!("hold {}", 32 << 20)).await, "refused gpu.limit");
    assert_eq!(bed.say("drop").await, "dropped 1");
    assert!(bed.say(&format!("hold {}", 30 << 20)).await.starts_with("handle "));
}

#[tokio::test]
async fn a_trial_of_a_manifest_keeps_nothing_from_others() {
    let setup =
        Setup::tenants(&["one", "two"]).set("gpu.device", "interpreter").set("gpu.share", "600");
    let node = setup.start().await;
    let (one, two) = (node.tenant("one"), node.tenant("two"));
    one.push("gpu").await;
    one.put("pipelines/g?dry-run=true", single("g", "gpu", GRANT)).await.is(200);
    // The same of one that is refused for something else.
    let bad = single("g", "gpu", GRANT).replace("partitions = 1", "partitions = 0");
    one.put("pipelines/g", bad).await.is(400);
    apply(&two, "g", GRANT).await;
    assert_eq!(say(&two, "g", "double 4").await, "8");
}

#[tokio::test]
async fn shares_that_are_swapped_are_in_force_soon() {
    let setup = Setup::tenants(&["one", "two"]).set("gpu.device", "interpreter");
    let node = setup.start().await;
    let file = node.home().tenants();
    let text = std::fs::read_to_string(&file).expect("there is one");
    let shares = |one: u32, two: u32| {
        let more =
            format!("\n[tenants.one.gpu]\nshare = {one}\n[tenants.two.gpu]\nshare = {two}\n");
        std::fs::write(&file, text.clone() + &more).expect("ours");
    };
    let share_of = |client: Client| async move {
        let metrics = client.plain("/metrics").await;
        let row = "sluicebox_gpu_share{tenant=\"one\"} ";
        let row = metrics.text().lines().find_map(|line| line.strip_prefix(row))?.to_owned();
        row.parse::<f64>().ok()
    };
    shares(300, 700);
    let (one, two) = (node.tenant("one"), node.tenant("two"));
    eventually("the first shares are known", SOON, || async {
        (gpu(&one).await["share"]["share"] == 300).then_some(())
    })
    .await;
    apply(&one, "g", GRANT).await;
    apply(&two, "g", GRANT).await;
    // In the order of names the first gets more than there is, until the second has less.
    shares(800, 200);
    eventually("the others are", SOON, || async {
        (share_of(one.clone()).await? > 0.79).then_some(())
    })
    .await;
    // A third of what is left would be too much for the process, had it not heard of both.
    shares(800, 100);
    eventually("it has heard of both", SOON, || async {
        let log = node.log();
        let refusals = log.matches("refuses: gpu.oversold").count();
        (refusals <= 3 && gpu(&two).await["share"]["share"] == 100).then_some(())
    })
    .await;
    assert_eq!(say(&one, "g", "double 4").await, "8");
    assert_eq!(say(&two, "g", "double 5").await, "10");
}
