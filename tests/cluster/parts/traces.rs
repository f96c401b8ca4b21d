//! A trace goes with its event to partitions on another node, and back with what leaves.

use std::collections::BTreeSet;

use sluicebox_tests::cluster::Cluster;
use sluicebox_tests::collector::{Collector, tree};
use sluicebox_tests::node::Setup;

use super::super::load::with_words;
use super::{NAMES, Scene};

/// Words that are counted in every one of four partitions.
const WORDS: &str = "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 w15";

async fn over(cluster: Cluster, way: &str) {
    let collector = Collector::start().await;
    let scene = Scene::of(cluster, || collector.of(Setup::dev())).await;
    with_words(&scene.through[0], 4).await;
    let scene = scene.about("words").await;
    let other = scene.other(1);
    scene.moved(&[2, 3], other).await;
    scene.until_linked(way).await;
    let trace = format!("{:032x}", 9);
    let traceparent = format!("00-{trace}-00000000000000aa-01");
    let headers = [("content-type", "text/plain"), ("traceparent", &*traceparent)];
    // By the node that is not the home, which passes it on.
    scene.through[other].send("words", "", &headers, WORDS).await.is(202);
    let records = scene.at_home().records("words", "outputs/counts", 16).await;
    let wanted = [&["process count"; 16][..], &["send counts"; 16], &["hop split count"]].concat();
    let spans = collector.until(&trace, &wanted).await;
    let went = |span: &&sluicebox_tests::collector::Seen| {
        span.name == "hop split count" && span.attributes["sluicebox.link"] == way
    };
    collector.until_seen(&trace, went).await;
    assert_eq!(tree(&spans).parent, "00000000000000aa");
    let nodes: BTreeSet<&str> =
        spans.iter().map(|span| span.resource["service.instance.id"].as_str()).collect();
    assert_eq!(nodes, BTreeSet::from(["a", "b"]));
    let calls: BTreeSet<&str> = spans
        .iter()
        .filter(|span| span.name == "process count")
        .map(|span| span.id.as_str())
        .collect();
    for record in records {
        let traceparent = record["traceparent"].as_str().expect("it has one");
        assert!(traceparent.starts_with(&format!("00-{trace}")) && traceparent.ends_with("-01"));
        assert!(calls.contains(&traceparent[36..52]), "{traceparent} is of {calls:?}");
    }
}

#[tokio::test]
async fn a_trace_goes_over_the_network_and_back() {
    over(Cluster::of(&NAMES[..2]), "network").await;
}

#[tokio::test]
async fn a_trace_goes_through_memory_and_back() {
    over(Cluster::of(&NAMES[..2]).that_meets(), "ring").await;
}
