//! What a scrape shows, and that it stays bounded.

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

#[test]
fn a_scrape_shows_every_set_with_its_labels() {
    let metrics = Metrics::new();
    metrics.node().connections.add(3);
    metrics.node().ingest_latency.observe(Duration::from_micros(70));
    metrics.node().closed.add("idle", 2);
    let worker = metrics.worker(1);
    worker.busy_micros.add(1_500_000);
    let pipeline = metrics.pipeline(&name("t"), &name("p"));
    pipeline.rejected.add("ingest.json", 4);
    pipeline.requests_accepted.inc();
    pipeline.stage("s").traps.add("guest.fuel", 1);
    let ring = Arc::new(Output::new(1, 1000, 1));
    pipeline.output("o", &ring).read_events.add(9);
    let text = metrics.text().expect("text");
    for line in [
        "sluicebox_connections{} 3",
        "sluicebox_connections_closed_total{reason=\"idle\"} 2",
        "sluicebox_ingest_seconds_count{} 1",
        "sluicebox_ingest_seconds_bucket{le=\"0.0001\"} 1",
        "sluicebox_ingest_seconds_bucket{le=\"+Inf\"} 1",
        "sluicebox_worker_busy_seconds_total{worker=\"1\"} 1.5",
        "sluicebox_ingest_rejected_total{tenant=\"t\",pipeline=\"p\",code=\"ingest.json\"} 4",
        "sluicebox_ingest_requests_total{tenant=\"t\",pipeline=\"p\",outcome=\"accepted\"} 1",
        "sluicebox_stage_traps_total{tenant=\"t\",pipeline=\"p\",stage=\"s\",cause=\"guest.fuel\"} 1",
        "sluicebox_output_read_events_total{tenant=\"t\",pipeline=\"p\",output=\"o\"} 9",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
    }
}

#[test]
fn what_nobody_holds_is_gone_and_what_is_held_is_found_again() {
    let metrics = Metrics::new();
    let pipeline = metrics.pipeline(&name("t"), &name("p"));
    pipeline.events.add(7);
    assert_eq!(metrics.pipeline(&name("t"), &name("p")).events.get(), 7);
    drop(pipeline);
    assert!(!metrics.text().expect("text").contains("pipeline="));
    assert_eq!(metrics.pipeline(&name("t"), &name("p")).events.get(), 0);
}

#[test]
fn a_stage_has_few_metrics_of_its_own_and_each_keeps_its_kind() {
    let metrics = Metrics::new();
    let pipeline = metrics.pipeline(&name("t"), &name("p"));
    let stage = pipeline.stage("s");
    for n in 0..GUEST_METRICS_MAX {
        stage.guest_count(&format!("m{n}"), 1);
    }
    stage.guest_count("m0", 4);
    for bad in ["one_more", "", "Upper", "9a", "a-b", &"x".repeat(65)] {
        stage.guest_gauge(bad, 1.0);
    }
    stage.guest_gauge("m1", 5.0);
    assert_eq!(stage.guest_dropped.get(), 7);
    let text = metrics.text().expect("text");
    let labels = "tenant=\"t\",pipeline=\"p\",stage=\"s\"";
    assert!(text.contains(&format!("sluicebox_guest_count_total{{{labels},name=\"m0\"}} 5")));
    assert!(!text.contains("one_more") && !text.contains("sluicebox_guest_gauge"));
}

#[test]
fn an_output_shows_what_its_ring_dropped() {
    let metrics = Metrics::new();
    let pipeline = metrics.pipeline(&name("t"), &name("p"));
    let old = Arc::new(Output::new(1, 1000, 1));
    let first = pipeline.output("o", &old);
    let ring = Arc::new(Output::new(1, 10, 2));
    assert!(Arc::ptr_eq(&first, &pipeline.output("o", &ring)));
    let mut builder = sluicebox_core::frame::FrameBuilder::new();
    builder.push(&sluicebox_core::frame::Head::data(1), b"k", b"v", &[]);
    ring.append(0, &builder.finish());
    let text = metrics.text().expect("text");
    let labels = "tenant=\"t\",pipeline=\"p\",output=\"o\"";
    assert!(text.contains(&format!("sluicebox_output_dropped_total{{{labels}}} 1")), "{text}");
    pipeline.retain(|_| true, |_| false);
    assert!(!metrics.text().expect("text").contains("sluicebox_output"));
}
