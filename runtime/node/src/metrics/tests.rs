//! What a scrape shows, and that it stays bounded.

use std::time::Duration;

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

#[test]
fn the_log_shows_its_positions_its_syncs_and_its_health() {
    use sluicebox_store::log::{Class, Config, Log as _, MemoryLog};

    let metrics = Metrics::new();
    assert!(!metrics.text().expect("text").contains("sluicebox_log"));
    let log = Arc::new(MemoryLog::new(Config::default()));
    metrics.set_log(log.clone());
    let at = log.append(Class::Commit, 1, &[&[7; 100]]).expect("there is room");
    log.wait_synced(at).expect("it is synced");
    let status = log.status();
    let text = metrics.text().expect("text");
    let has = |line: String| assert!(text.lines().any(|l| l == line), "{line} not in:\n{text}");
    has("sluicebox_log_health{state=\"healthy\"} 1".into());
    has("sluicebox_log_health{state=\"full\"} 0".into());
    has("sluicebox_log_health{state=\"failed\"} 0".into());
    has(format!("sluicebox_log_position_bytes{{at=\"synced\"}} {}", status.synced));
    has(format!("sluicebox_log_position_bytes{{at=\"appended\"}} {}", status.appended));
    has("sluicebox_log_position_bytes{at=\"oldest\"} 0".into());
    has("sluicebox_log_records_total{} 1".into());
    has(format!("sluicebox_log_syncs_total{{}} {}", status.figures.syncs));
    has(format!("sluicebox_log_sync_seconds_count{{}} {}", status.figures.syncs));
    has(format!("sluicebox_log_written_bytes_total{{}} {}", status.figures.bytes_written));
    has("sluicebox_log_failures_total{} 0".into());
    for name in ["segments", "spares", "pending_bytes", "sync_max_seconds"] {
        assert!(text.contains(&format!("\nsluicebox_log_{name}{{}} ")), "{name} not in:\n{text}");
    }
}

#[test]
fn what_tenants_keep_on_disk_is_shown_and_how_it_stands_with_checkpoints() {
    let metrics = Metrics::new();
    let disk = Arc::new(DiskUse::default());
    let store = Arc::new(sluicebox_store::store::MemoryStore::new());
    metrics.set_kept(disk.clone(), Arc::new(Backing::new(store, u64::MAX)));
    disk.set(&[(sluicebox_core::ids::PipelineId(1), &name("t"), 70)]);
    disk.of(&name("t")).set_most(100);
    let text = metrics.text().expect("text");
    for line in [
        "sluicebox_tenant_disk_bytes{tenant=\"t\"} 70",
        "sluicebox_tenant_disk_quota_bytes{tenant=\"t\"} 100",
        "sluicebox_checkpoint_health{state=\"good\"} 1",
        "sluicebox_checkpoint_health{state=\"failing\"} 0",
        "sluicebox_checkpoint_health{state=\"stopped\"} 0",
        "sluicebox_checkpoints_total{} 0",
        "sluicebox_checkpoint_failures_total{} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
    }
}

#[test]
fn what_came_twice_is_shown_for_pipelines_with_a_log_only() {
    use sluicebox_core::ids::PipelineId;
    use sluicebox_core::numbering::Numbering;
    use sluicebox_store::log::{Config, MemoryLog};

    use crate::durable::Ingest;

    let metrics = Metrics::new();
    let plain = metrics.pipeline(&name("t"), &name("plain"));
    plain.duplicates.add(1);
    let pipeline = metrics.pipeline(&name("t"), &name("p"));
    let log = Arc::new(MemoryLog::new(Config::default()));
    let ingest = Ingest::begin(1);
    let store = Arc::new(sluicebox_store::store::MemoryStore::new());
    let behind = (log as Arc<_>, Arc::new(Backing::new(store, u64::MAX)));
    let durable = Arc::new(Durable::new(PipelineId(1), behind, ingest, Numbering::default()));
    pipeline.set_durable(Some(&durable));
    pipeline.duplicates.add(3);
    let text = metrics.text().expect("text");
    let labels = "{tenant=\"t\",pipeline=\"p\"}";
    for line in [
        format!("sluicebox_ingest_duplicates_total{labels} 3"),
        format!("sluicebox_ingest_duplicate_window_seconds{labels} 600.0"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
    }
    assert!(!text.contains("duplicates_total{tenant=\"t\",pipeline=\"plain\"}"), "{text}");
    pipeline.set_durable(None);
    assert!(!metrics.text().expect("text").contains("duplicates_total"));
}
