//! What a hostile stage does to a device: it is ended or refused, and nobody else notices.

use std::pin::pin;

use sluicebox_tests::node::Setup;

use super::{Bed, GRANT, apply, devices, gpu, say, with_device};

#[tokio::test]
async fn kernels_without_end_are_ended() {
    for device in devices() {
        let bed = Bed::new(with_device(device), "").await;
        let said = bed.say("loop 1024").await;
        // Fuel, the deadline or the watchdog, whichever is first: not whole.
        assert!(["ended fuel", "ended overdue", "ended deadline"].contains(&&*said), "{said}");
        let said = bed.say(&format!("loop {}", u32::MAX)).await;
        assert!(said == "refused gpu.graph" || said.starts_with("ended "), "{said}");
        assert_ne!(said, "ended whole");
        // One that is cancelled may have used up its fuel before, on a machine that is busy.
        let mut cancelled = false;
        for _ in 0..10 {
            assert_eq!(bed.say("begin").await, "begun", "{device}");
            let said = bed.say("wait").await;
            cancelled = said == "ended cancelled";
            if cancelled {
                break;
            }
            assert_eq!(said, "ended fuel", "{device}");
        }
        assert!(cancelled, "{device}");
        assert_eq!(bed.say("double 5").await, "10", "{device}");
        assert_eq!(gpu(&bed.client).await["process"]["starts"], 1, "{device}");
    }
}

#[tokio::test]
async fn nothing_outside_of_its_buffers_is_read_or_written() {
    for device in devices() {
        let bed = Bed::new(with_device(device), "").await;
        assert_eq!(bed.say("oob").await, "ended whole sum 1", "{device}");
        assert_eq!(bed.say("nan").await, "ended whole third 1", "{device}");
    }
}

#[tokio::test]
async fn memory_of_another_is_zeros_and_its_handles_are_nothing() {
    for device in devices() {
        let setup = Setup::tenants(&["one", "two"]).set("gpu.device", device);
        let node = setup.start().await;
        let (one, two) = (node.tenant("one"), node.tenant("two"));
        apply(&one, "g", GRANT).await;
        apply(&two, "g", GRANT).await;
        // Numbers of one are on the device, and its buffer's memory is given back behind them.
        assert_eq!(say(&one, "g", "double 1 2 3 4 5 6 7 8").await, "2 4 6 8 10 12 14 16");
        let said = say(&one, "g", "hold 4096").await;
        let handle = said.strip_prefix("handle ").expect("it was made").to_owned();
        assert_eq!(say(&two, "g", &format!("forge {handle}")).await, "refused gpu.handle");
        assert_eq!(say(&one, "g", "drop").await, "dropped 1");
        for _ in 0..8 {
            assert_eq!(say(&two, "g", "peek 65536").await, "zeros 65536", "{device}");
        }
        one.delete("pipelines/g").await.is(204);
        assert_eq!(say(&two, "g", "peek 1048576").await, "zeros 1048576", "{device}");
    }
}

#[tokio::test]
async fn what_a_tenant_may_have_of_anything_has_a_bound() {
    let bed =
        Bed::new(with_device("interpreter"), "limits = { fuel-per-event = 100000000000 }").await;
    assert_eq!(bed.say("create-many 10000").await, "made 4096 gpu.limit");
    assert_eq!(bed.say("drop").await, "dropped 4096");
    let said = bed.say("kernels 10000").await;
    assert_eq!(said, "made 128 gpu.limit");
    // One or the other may be done before the last is begun.
    let said = bed.say("flood 100").await;
    let begun = said.strip_prefix("begun ").and_then(|said| said.strip_suffix(" gpu.would-block"));
    let begun: usize = begun.expect("it has a bound").parse().expect("a number");
    assert!((16..32).contains(&begun), "{said}");
    assert_eq!(bed.say("double 6").await, "12");
}

#[tokio::test]
async fn a_bomb_for_compilers_is_refused_and_others_go_on() {
    for device in devices() {
        let bed = Bed::new(with_device(device), "").await;
        assert_eq!(bed.say("double 1").await, "2");
        let said = bed.say("bomb").await;
        assert!(said.starts_with("refused kernel."), "{said}");
        assert_eq!(bed.say("double 2").await, "4", "{device}");
    }
}

#[tokio::test]
async fn a_stage_that_dies_with_work_under_way_leaves_nothing() {
    for device in devices() {
        let bed = Bed::new(with_device(device), "retries = 0").await;
        assert_eq!(bed.say("double 1").await, "2");
        let sent = bed.client.send("gpu", "", &[("sluicebox-key", "d")], "die").await;
        sent.is(202);
        bed.client.records("gpu", "dead-letters", 1).await;
        // The device is free for the next, whose instance is another.
        assert_eq!(bed.say("double 7").await, "14", "{device}");
        let report = gpu(&bed.client).await;
        assert_eq!(report["process"]["starts"], 1, "{report}");
    }
}

#[tokio::test]
async fn a_hog_does_not_keep_another_tenant_from_its_share() {
    for device in devices() {
        let setup = Setup::tenants(&["hog", "light"]).set("gpu.device", device);
        let node = setup.start().await;
        let (hog, light) = (node.tenant("hog"), node.tenant("light"));
        apply(&hog, "g", GRANT).await;
        apply(&light, "g", GRANT).await;
        assert_eq!(say(&light, "g", "double 1").await, "2");
        let mut hogging = pin!(async {
            for _ in 0..4 {
                say(&hog, "g", "loop 16384").await;
            }
        });
        let mut done = 0;
        loop {
            tokio::select! {
                () = &mut hogging => break,
                said = say(&light, "g", "double 2") => assert_eq!(said, "4", "{device}"),
            }
            done += 1;
        }
        assert!(done >= 4, "{device}: only {done} beside the hog");
    }
}
