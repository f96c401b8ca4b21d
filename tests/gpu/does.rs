//! What a stage can do with a device, on each there is.

use serde_json::json;

use super::{Bed, GRANT, devices, gpu, with_device};
use sluicebox_tests::eventually::{SOON, eventually};

#[tokio::test]
async fn kernels_graphs_and_buffers_do_what_they_say() {
    for device in devices() {
        let bed = Bed::new(with_device(device), "").await;
        assert_eq!(bed.say("double 1 2 3").await, "2 4 6", "{device}");
        assert_eq!(bed.say("two").await, "ended whole words 4 7 10 13 7 10 13 0", "{device}");
        assert_eq!(bed.say("zero").await, "ended whole", "{device}");
        let said = bed.say("device").await;
        assert!(said.contains(&format!("kind={device}")), "{said}");
        assert!(said.contains("guaranteed=67108864"), "{said}");
    }
}

#[tokio::test]
async fn a_constant_is_on_the_device_once_for_all_instances() {
    for device in devices() {
        let node = with_device(device).start().await;
        let client = node.client();
        let words: Vec<u8> = (1..=1_000_u32).flat_map(u32::to_le_bytes).collect();
        let pushed = client.ask(hyper::Method::POST, &client.path("assets"), &[], words).await;
        let digest = pushed.is(201).json()["digest"].as_str().expect("it has one").to_owned();
        client.push("gpu").await;
        let more = format!("{GRANT}\nassets = {{ table = \"{digest}\" }}\nscope = \"key\"");
        client.apply("c", sluicebox_tests::manifest::single("c", "gpu", &more)).await;
        for key in ["a", "b", "c"] {
            let said = client.call("c", key, "constant table").await;
            assert_eq!(said.text(), "ended whole sum 500500", "{device}");
        }
        // Three instances have read it, and it was written once.
        let up_bytes = eventually("what was used is counted", SOON, || async {
            let report = gpu(&client).await;
            let bytes = report["used"]["up-bytes"].as_u64().filter(|bytes| *bytes >= 4_000);
            bytes.filter(|_| report["used"]["device-micros"].as_u64() > Some(0))
        })
        .await;
        assert!(up_bytes < 8_000, "{up_bytes}");
    }
}

#[tokio::test]
async fn a_guest_in_python_uses_it_too() {
    let node = with_device("interpreter").start().await;
    let client = node.client();
    client.push("gpu-python").await;
    client.apply("p", sluicebox_tests::manifest::single("p", "gpu-python", GRANT)).await;
    let said = client.call("p", "k", "4 5 6").await.is(200);
    assert_eq!(said.text(), "8 10 12");
}

#[tokio::test]
async fn guests_over_the_sdks_use_it_too() {
    let node = with_device("interpreter").start().await;
    let client = node.client();
    for guest in ["gpu-python-sdk", "gpu-js"] {
        client.push(guest).await;
        client.apply(guest, sluicebox_tests::manifest::single(guest, guest, GRANT)).await;
        // The second call finds on the device what the first has left there.
        for (given, doubled) in [("21", "42"), ("4294967295", "4294967294")] {
            let said = client.call(guest, "k", given).await.is(200);
            assert_eq!(said.text(), doubled, "{guest}");
        }
    }
}

#[tokio::test]
async fn what_was_used_is_told_by_stage() {
    let bed = Bed::new(with_device("interpreter"), "").await;
    bed.say("double 1 2 3").await;
    let report = eventually("what was used is counted", SOON, || async {
        let report = gpu(&bed.client).await;
        (report["stages"][0]["chunks"].as_u64() > Some(0)).then_some(report)
    })
    .await;
    assert_eq!(report["state"], "up");
    assert_eq!(report["device"]["kind"], "interpreter");
    let shares = json!({ "share": 50, "share-max": 1000, "memory-bytes": 64 << 20, "memory-bytes-lent": 1 << 30 });
    assert_eq!(report["share"], shares);
    let stage = &report["stages"][0];
    assert_eq!((&stage["pipeline"], &stage["stage"]), (&json!("gpu"), &json!("stage-0")));
    assert!(report["used"]["held-bytes"].as_u64() > Some(0), "{report}");
    let metrics = bed.client.plain("/metrics").await;
    for row in [
        "sluicebox_gpu_up{} 1",
        "sluicebox_gpu_starts_total{} 1",
        "sluicebox_gpu_chunks_total{tenant=\"dev\"}",
    ] {
        assert!(metrics.text().contains(row), "{row}: {}", metrics.text());
    }
}
