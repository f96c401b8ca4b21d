//! What the operator did not allow, or cannot be: refused by field when it is applied.

use std::path::Path;

use sluicebox_tests::client::Client;
use sluicebox_tests::node::Setup;

use super::echo;

async fn refused(client: &Client, more: &str) -> (String, String) {
    let reply = client.put("pipelines/echo", echo(more)).await;
    let problem = reply.problem(400, "manifest.invalid");
    let problems = problem["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), 1, "{problem:#}");
    let text = |name: &str| problems[0][name].as_str().expect("text").to_owned();
    assert!(!text("fix").is_empty());
    (text("field"), text("code"))
}

#[tokio::test]
async fn nothing_is_reached_that_was_not_allowed() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().display().to_string();
    // One tenant has the folder and the host, the other has nothing.
    let node = Setup::tenants(&["a", "b"])
        .set("connectors.folders", &format!("a={path}"))
        .set("connectors.hosts", "a=hooks.example.com:443")
        .start()
        .await;
    let file = |path: &str| format!("[sources.in.file]\npath = \"{path}\"");
    let hook =
        |url: &str| format!("[sinks.out]\nfrom = \"all\"\n[sinks.out.webhook]\nurl = \"{url}\"");
    for tenant in ["a", "b"] {
        let client = node.tenant(tenant);
        client.push("hostile/echo").await;
        let outside = Path::new("/etc/passwd").display().to_string();
        for (more, field, code) in [
            (file(&outside), "sources.in.file.path", "connector.folder"),
            (file(&format!("{path}/../x")), "sources.in.file.path", "connector.path"),
            (file("in.log"), "sources.in.file.path", "connector.path"),
            (hook("https://other.example.com/"), "sinks.out.webhook.url", "connector.host"),
            (hook("http://127.0.0.1:9/"), "sinks.out.webhook.url", "connector.host"),
            (hook("http://hooks.example.com/"), "sinks.out.webhook.url", "connector.host"),
            (hook("file:///etc/passwd"), "sinks.out.webhook.url", "connector.url"),
            (
                "[sources.in.cron]\nat = \"61 * * * *\"".to_owned(),
                "sources.in.cron.at",
                "connector.schedule",
            ),
            (
                "[sources.in.cron]\nat = \"* * * * *\"\nzone = \"Nowhere\"".to_owned(),
                "sources.in.cron.zone",
                "connector.zone",
            ),
        ] {
            assert_eq!(refused(&client, &more).await, (field.to_owned(), code.to_owned()));
        }
    }
    let other = node.tenant("b");
    let (_, code) = refused(&other, &file(&format!("{path}/x"))).await;
    assert_eq!(code, "connector.folder");
    let (_, code) = refused(&other, &hook("https://hooks.example.com/x")).await;
    assert_eq!(code, "connector.host");
    let own = node.tenant("a");
    own.apply("echo", echo(&file(&format!("{path}/x")))).await;
    let secret = format!("{}\nsecret = \"none\"", hook("https://hooks.example.com/x"));
    assert_eq!(refused(&own, &secret).await.1, "connector.secret");
}

#[tokio::test]
async fn no_server_of_nats_is_reached_that_was_not_allowed() {
    let hosts = "a=hooks.example.com:443";
    let node = Setup::tenants(&["a", "b"]).set("connectors.hosts", hosts).start().await;
    for tenant in ["a", "b"] {
        node.tenant(tenant).push("hostile/echo").await;
    }
    let nats = |url: &str, more: &str| format!("[sources.in.nats]\nurl = \"{url}\"\n{more}");
    let to = |url: &str, subject: &str| {
        format!(
            "[sinks.out]\nfrom = \"all\"\n[sinks.out.nats]\nurl = \"{url}\"\nsubject = \"{subject}\""
        )
    };
    let host = "nats://hooks.example.com:443";
    let client = node.tenant("a");
    for (more, field, code) in [
        (nats("nats://10.0.0.1:4222", "subject = \"a\""), "sources.in.nats.url", "connector.host"),
        (
            nats("tls://hooks.example.com", "stream = \"S\""),
            "sources.in.nats.url",
            "connector.host",
        ),
        (
            nats("http://hooks.example.com", "stream = \"S\""),
            "sources.in.nats.url",
            "connector.url",
        ),
        (nats(host, "subject = \"a..b\""), "sources.in.nats.subject", "connector.subject"),
        (nats(host, "stream = \"a.b\""), "sources.in.nats.stream", "connector.subject"),
        (nats(host, ""), "sources.in.nats.subject", "manifest.missing"),
        (to(host, "a.*"), "sinks.out.nats.subject", "connector.subject"),
        (to("nats://u:p@hooks.example.com:443", "a"), "sinks.out.nats.url", "connector.url"),
    ] {
        assert_eq!(refused(&client, &more).await, (field.to_owned(), code.to_owned()));
    }
    let (_, code) = refused(&node.tenant("b"), &to(host, "a")).await;
    assert_eq!(code, "connector.host");
}
