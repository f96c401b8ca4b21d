//! What the interface tells of how much and how long: counters of a pipeline, usage of a tenant.

use serde_json::Value;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::Setup;

use super::{ECHO, with};

/// How many times were counted in all rows, each of which has its bounds in order.
fn many(rows: &Value) -> u64 {
    let rows = rows.as_array().expect("rows");
    let mut before = 0;
    for row in rows {
        let least = row["micros-min"].as_u64().expect("a bound");
        assert!(least >= before, "{rows:?}");
        before = row["micros-max"].as_u64().unwrap_or(u64::MAX);
        assert!(before > least && row["count"].as_u64() > Some(0), "{rows:?}");
    }
    rows.iter().map(|row| row["count"].as_u64().expect("a number")).sum()
}

#[tokio::test]
async fn times_and_events_are_counted_once_each() {
    let (_node, client) = with("counted", ECHO, "").await;
    let before = client.describe("counted").await;
    assert_eq!(
        (many(&before["ingest"]["acknowledged"]), many(&before["stage"][0]["call"])),
        (0, 0)
    );
    client.lines("counted", "1\n2\n").await.is(202);
    client.lines("counted", "3\n").await.is(202);
    client.call("counted", "k", "4").await.is(200);
    client.lines("counted", "{\n5\n").await.is(202);
    client.records("counted", "outputs/reply", 5).await;
    let found = client.describe("counted").await;
    let ingest = &found["ingest"];
    assert_eq!((&ingest["events"], &ingest["rejected"]), (&5.into(), &1.into()), "{ingest:#}");
    assert_eq!((many(&ingest["acknowledged"]), many(&ingest["result"])), (3, 1), "{ingest:#}");
    let stage = &found["stage"][0];
    assert_eq!(many(&stage["call"]), stage["calls"], "{stage:#}");
    assert!(found["partition"].as_array().expect("one").iter().all(|p| p["inbox-events"] == 0));
}

#[tokio::test]
async fn what_goes_between_segments_is_counted_by_event() {
    let (_node, client) = with("unused", ECHO, "").await;
    for guest in ["word-count-split", "word-count-count"] {
        client.push(guest).await;
    }
    let manifest = sluicebox_tests::root().join("examples/word-count/pipeline.toml");
    client.apply("word-count", std::fs::read_to_string(manifest).expect("an example")).await;
    client.send("word-count", "", &[("content-type", "text/plain")], "a b c a").await.is(202);
    client.records("word-count", "outputs/counts", 4).await;
    let found = client.describe("word-count").await;
    let hops = found["hop"].as_array().expect("hops");
    let events: u64 = hops.iter().map(|hop| hop["events"].as_u64().expect("a number")).sum();
    assert_eq!(events, 4, "{hops:#?}");
    assert!(
        hops.iter().all(|hop| (&hop["from"], &hop["to"]) == (&"split".into(), &"count".into()))
    );
    assert!(hops.iter().all(|hop| hop["bytes"].as_u64() > hop["events"].as_u64()), "{hops:#?}");
    assert!(hops.iter().all(|hop| many(&hop["waited"]) <= hop["runs"].as_u64().unwrap_or(0)));
    assert!(hops.iter().map(|hop| many(&hop["waited"])).sum::<u64>() > 0, "{hops:#?}");
}

#[tokio::test]
async fn what_goes_from_call_to_call_in_a_segment_is_counted_by_edge() {
    let (_node, client) = with("unused", ECHO, "").await;
    let stages = ["first", "second", "third"];
    let mut text = "version = 1\nname = \"chain\"\n[ingest]\nto = [\"first\"]\n\
                    [outputs.reply]\nfrom = \"third\"\n"
        .to_owned();
    for stage in stages {
        text += &format!("[stages.{stage}]\ncomponent = \"echo\"\n");
    }
    for pair in stages.windows(2) {
        text += &format!("[[edges]]\nfrom = \"{}\"\nto = \"{}\"\n", pair[0], pair[1]);
    }
    for delivery in ["best-effort", "exactly-once"] {
        let name = delivery.replace('-', "");
        let text = text.replace("chain", &name);
        client
            .apply(&name, text.replace("[ingest]", &format!("delivery = \"{delivery}\"\n[ingest]")))
            .await;
        client.lines(&name, "1\n2\n3\n").await.is(202);
        client.records(&name, "outputs/reply", 3).await;
        let found = client.describe(&name).await;
        assert_eq!(found["segments"].as_array().map(Vec::len), Some(1), "{found:#}");
        let hops = found["hop"].as_array().expect("hops");
        let ends: Vec<_> = hops.iter().map(|hop| (&hop["from"], &hop["to"], &hop["way"])).collect();
        let (call, edge) = ("call".into(), |at: usize| Value::from(stages[at]));
        let expected = [(&edge(0), &edge(1), &call), (&edge(1), &edge(2), &call)];
        assert_eq!(ends, expected, "{hops:#?}");
        for hop in hops {
            assert_eq!(hop["events"], 3, "{hop:#}");
            assert_eq!(many(&hop["waited"]), hop["runs"], "{hop:#}");
            assert!(hop["bytes"].as_u64() > Some(3), "{hop:#}");
        }
    }
    let metrics = client.plain("/metrics").await.is(200);
    for what in ["events_total", "bytes_total", "seconds_count"] {
        let of_call = |line: &&str| {
            line.starts_with(&format!("sluicebox_hop_{what}{{")) && line.contains("way=\"call\"")
        };
        assert_eq!(metrics.text().lines().filter(of_call).count(), 4, "{}", metrics.text());
    }
}

#[tokio::test]
async fn a_tenant_is_told_its_own_quotas_and_usage() {
    let node = Setup::tenants(&["ann", "bob"]).start().await;
    node.home().tenant(&["quota", "set", "ann", "pipelines", "7"]);
    let (ann, bob) = (node.tenant("ann"), node.tenant("bob"));
    ann.push(ECHO).await;
    ann.apply("mine", single("mine", "echo", "")).await;
    ann.lines("mine", "1\n2\n3\n").await.is(202);
    ann.records("mine", "outputs/reply", 3).await;
    let usage = eventually("the quota is taken up", SOON, || async {
        let usage = ann.get("usage").await.is(200).json();
        let quota = usage["quota"].as_array().expect("quotas").clone();
        let of = |name: &str| quota.iter().find(|one| one["resource"] == name).cloned();
        let pipelines = of("pipelines").expect("it is there");
        (pipelines["limit"] == 7).then(|| {
            assert_eq!(pipelines["used"], 1);
            assert!(of("memory-bytes").expect("it is there")["used"].as_u64() > Some(0));
            assert!(of("connections").expect("it is there")["used"].as_u64() > Some(0));
            assert_eq!(of("events-per-second").expect("it is there")["used"], Value::Null);
            assert_eq!(quota.len(), 9, "{quota:#?}");
            usage
        })
    })
    .await;
    assert_eq!(usage["tenant"], "ann");
    assert_eq!(usage["scopes"], serde_json::json!(["read", "ingest", "write"]));
    let pipeline = &usage["pipelines"][0];
    for (field, expected) in [
        ("name", Value::from("mine")),
        ("state", "running".into()),
        ("since", "start".into()),
        ("events", 3.into()),
        ("ingest-events", 3.into()),
        ("output-events", 3.into()),
        ("inbox-events", 0.into()),
        ("disk-bytes", Value::Null),
    ] {
        assert_eq!(pipeline[field], expected, "{field}: {pipeline:#}");
    }
    assert!(pipeline["fuel"].as_u64() > Some(0), "{pipeline:#}");
    let others = bob.get("usage").await.is(200).json();
    assert_eq!((&others["tenant"], &others["pipelines"]), (&"bob".into(), &Value::Array(vec![])));
    let sends = node.home().token("ann", "ingest");
    let sends = eventually("the token is known", SOON, || async {
        let reply = node.client_of("ann", Some(&sends)).get("usage").await;
        (reply.status != 401).then_some(reply)
    });
    sends.await.problem(403, "auth.scope");
}

#[tokio::test]
async fn the_dashboard_takes_no_token_and_the_figures_do() {
    let node = Setup::tenants(&["ann"]).start().await;
    let nobody = node.client_of("ann", None);
    for path in ["/dashboard/", "/dashboard/main.js", "/dashboard/style.css"] {
        let reply = nobody.plain(path).await.is(200);
        assert!(reply.header("content-security-policy").is_some_and(|p| p.contains("'none'")));
        let tag = reply.header("etag").expect("a tag").to_owned();
        let again = [("if-none-match", tag.as_str())];
        let again = nobody.ask(http::Method::GET, path, &again, "").await.is(304);
        assert!(again.body.is_empty());
        nobody.ask(http::Method::POST, path, &[], "").await.problem(405, "request.method");
    }
    let page = [("accept", "text/html")];
    let reply = nobody.ask(http::Method::GET, "/", &page, "").await.is(302);
    assert_eq!(reply.header("location"), Some("/dashboard/"));
    nobody.plain("/").await.problem(404, "route.unknown");
    nobody.plain("/dashboard/none").await.problem(404, "route.unknown");
    nobody.get("usage").await.problem(401, "auth.token");
}
