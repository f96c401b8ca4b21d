//! Compressed bodies and pages: taken, given, bounded by what they expand to.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::Method;
use sluicebox_tests::client::{FRAME, NDJSON, payload};
use sluicebox_tests::guests;
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::Setup;

use super::follow::resident_bytes;
use super::{ECHO, with};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("a vector takes all");
    encoder.finish().expect("a vector takes all")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

#[tokio::test]
async fn compressed_bodies_are_taken_as_what_they_stand_for() {
    let (_node, client) = with("packed", ECHO, "").await;
    let lines: String = (0..8_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    for (coding, body) in [("gzip", gzip(lines.as_bytes())), ("zstd", zstd(lines.as_bytes()))] {
        assert!(body.len() < lines.len() / 2);
        let headers = [("content-type", NDJSON), ("content-encoding", coding)];
        let reply = client.send("packed", "", &headers, body).await.is(202);
        assert_eq!(reply.json()["accepted"], 8_000, "{coding}");
        let one = if coding == "gzip" { gzip(b"\"one\"") } else { zstd(b"\"one\"") };
        let headers = [("sluicebox-key", "k"), ("content-encoding", coding)];
        let reply = client.send("packed", "?wait=20s", &headers, one).await.is(200);
        assert_eq!(reply.text(), "\"one\"");
    }
    let records = client.records("packed", "outputs/reply", 16_002).await;
    assert_eq!(payload(&records[7_999]), b"{\"n\":7999}");
}

#[tokio::test]
async fn a_body_that_expands_too_far_is_refused_and_costs_its_limit() {
    let node = Setup::dev().set("http.body-bytes-max", "4MiB").start().await;
    let client = node.client();
    client.push(ECHO).await;
    client.apply("bombed", single("bombed", "echo", "")).await;
    let zeros = vec![b' '; 400 << 20];
    let bombs = [("gzip", gzip(&zeros)), ("zstd", zstd(&zeros))];
    drop(zeros);
    let before = resident_bytes(&node);
    for (coding, bomb) in bombs {
        assert!(bomb.len() < 1 << 20, "{coding}: {} bytes", bomb.len());
        let headers = [("content-type", NDJSON), ("content-encoding", coding)];
        let reply = client.send("bombed", "", &headers, bomb).await;
        let problem = reply.problem(413, "request.too-large");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains("http.body-bytes-max") && detail.contains("4194304"), "{detail}");
    }
    let grown = resident_bytes(&node).saturating_sub(before);
    // Bodies, a window of zstd and what an allocator keeps; a bomb is 400 MiB.
    assert!(grown < 64 << 20, "{grown} bytes");
}

#[tokio::test]
async fn codings_that_are_unknown_or_broken_are_refused() {
    let (_node, client) = with("miscoded", ECHO, "").await;
    let send = async |coding: &str, body: &[u8]| {
        client.send("miscoded", "", &[("content-encoding", coding)], body.to_vec()).await
    };
    for coding in ["br", "deflate", "gzip, gzip"] {
        let reply = send(coding, b"x").await;
        assert_eq!(reply.header("accept-encoding"), Some("gzip, zstd"));
        reply.problem(415, "request.coding");
    }
    let whole = gzip(b"\"something\"");
    send("gzip", &whole[..whole.len() - 3]).await.problem(400, "request.body");
    send("gzip", b"\"plain\"").await.problem(400, "request.body");
    send("zstd", &whole).await.problem(400, "request.body");
    send("identity", b"\"plain\"").await.is(202);
}

#[tokio::test]
async fn large_pages_are_compressed_for_those_who_take_it() {
    let (_node, client) = with("paged", ECHO, "").await;
    let path = client.path("pipelines/paged/outputs/reply");
    let page = async |accept: &str, coding: &str| {
        let headers = [("accept", accept), ("accept-encoding", coding)];
        client.ask(Method::GET, &path, &headers, "").await.is(200)
    };
    client.lines("paged", "1\n").await.is(202);
    client.records("paged", "outputs/reply", 1).await;
    assert_eq!(page("*/*", "gzip").await.header("content-encoding"), None, "a small one");
    let lines: String = (0..5_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    client.lines("paged", lines).await.is(202);
    client.records("paged", "outputs/reply", 5_001).await;
    for accept in ["*/*", FRAME] {
        let plain = page(accept, "br").await;
        assert_eq!(plain.header("content-encoding"), None);
        let packed = page(accept, "br, gzip").await;
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        assert!(packed.body.len() < plain.body.len() / 2);
        assert_eq!(packed.cursor(), plain.cursor());
        let mut found = Vec::new();
        GzDecoder::new(&packed.body[..]).read_to_end(&mut found).expect("it is whole");
        assert!(found == plain.body, "the same page");
    }
}

#[tokio::test]
async fn components_and_manifests_may_come_compressed() {
    let (_node, client) = with("unpacked", ECHO, "").await;
    let path = client.path("components/echo-packed");
    let headers = [("content-encoding", "gzip")];
    let component = gzip(&guests::bytes(ECHO));
    let reply = client.ask(Method::PUT, &path, &headers, component).await;
    assert!(matches!(reply.status, 200 | 201), "{reply:?}");
    assert_eq!(reply.json()["digest"], client.push(ECHO).await["digest"]);
    let manifest = gzip(single("unpacked-too", "echo-packed", "").as_bytes());
    client
        .ask(Method::PUT, &client.path("pipelines/unpacked-too"), &headers, manifest)
        .await
        .is(201);
}
