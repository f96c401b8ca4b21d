//! Who may do what: tokens, scopes, and tenants that cannot see one another.

use http::Method;
use serde_json::json;
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Setup, Shared};

use super::{ECHO, NODE};

static TENANTS: Shared = Shared::new(|| Setup::tenants(&["ann", "bob"]));

/// Some requests a tenant makes: what they are and how they end, by status and code.
async fn outcomes(client: &Client) -> Vec<(&'static str, u16, String)> {
    let replies = [
        ("list", client.get("pipelines").await),
        ("describe", client.get("pipelines/mine").await),
        ("push", client.put("components/thing", "no wasm").await),
        ("apply", client.put("pipelines/mine", "").await),
        ("delete", client.delete("pipelines/mine").await),
        ("send", client.send("mine", "", &[], "x").await),
        ("read", client.page("mine", "outputs/reply", "").await),
        ("dead letters", client.page("mine", "dead-letters", "").await),
    ];
    let code = |reply: sluicebox_tests::client::Reply| {
        reply.json()["code"].as_str().unwrap_or_default().to_owned()
    };
    replies.map(|(what, reply)| (what, reply.status, code(reply))).into()
}

#[tokio::test]
async fn without_a_token_nothing_is_said() {
    let node = TENANTS.lend().await;
    let good = node.token("ann");
    let forged = format!("{}x", &good[..good.len() - 1]);
    let stolen = good.replacen("ann", "bob", 1);
    for token in [None, Some("nonsense"), Some(forged.as_str()), Some(stolen.as_str())] {
        // That the tenant exists is not said either.
        for tenant in ["ann", "nobody"] {
            let client = node.client_of(tenant, token);
            for (what, status, code) in outcomes(&client).await {
                assert_eq!((status, code.as_str()), (401, "auth.token"), "{token:?}: {what}");
            }
        }
    }
    let reply = node.client_of("ann", None).get("pipelines").await;
    assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
}

#[tokio::test]
async fn another_tenant_is_not_there() {
    let node = TENANTS.lend().await;
    let (ann, bob) = (node.tenant("ann"), node.tenant("bob"));
    let digest = ann.push(ECHO).await["digest"].clone();
    ann.apply("mine", single("mine", "echo", "")).await;
    assert_eq!(ann.call("mine", "k", "secret").await.is(200).text(), "secret");
    // Under the other's name nothing exists, in the same words as under a name nobody has.
    let other = node.client_of("ann", Some(node.token("bob")));
    let nobody = node.client_of("amy", Some(node.token("bob")));
    for (what, status, code) in outcomes(&other).await {
        assert_eq!((status, code.as_str()), (404, "tenant.unknown"), "{what}");
    }
    let (found, expected) = (other.get("pipelines/mine").await, nobody.get("pipelines/mine").await);
    assert_eq!(found.text().replace("ann", "amy"), expected.text());
    // Under one's own name the other's things do not exist, whatever they are called by.
    bob.get("pipelines/mine").await.problem(404, "pipeline.unknown");
    bob.page("mine", "outputs/reply", "").await.problem(404, "pipeline.unknown");
    bob.get("components/echo").await.problem(404, "component.unknown");
    assert_eq!(bob.get("pipelines").await.is(200).json(), json!([]));
    for component in ["echo", digest.as_str().expect("a text")] {
        let text = single("mine", component, "");
        let problem = bob.put("pipelines/mine", text).await.problem(400, "manifest.invalid");
        assert_eq!(problem["problems"][0]["code"], "pipeline.unknown-component", "{problem:#}");
    }
    // The same name is free for something else.
    bob.push("hostile/trap-always").await;
    bob.put("components/echo", sluicebox_tests::guests::bytes(ECHO)).await.is(201);
    bob.apply("mine", single("mine", "echo", "")).await;
    assert_eq!(bob.page("mine", "outputs/reply", "").await.is(200).text(), "");
    bob.delete("pipelines/mine").await.is(204);
    assert_eq!(ann.call("mine", "k", "still here").await.is(200).text(), "still here");
}

#[tokio::test]
async fn a_token_does_what_its_scopes_say() {
    let node = TENANTS.lend().await;
    let all = node.tenant("ann");
    all.push(ECHO).await;
    all.apply("scoped", single("scoped", "echo", "")).await;
    let allowed: [(&str, [u16; 4]); 3] = [
        ("read", [200, 403, 403, 403]),
        ("ingest", [403, 202, 403, 403]),
        ("write", [403, 403, 200, 404]),
    ];
    for (scope, expected) in allowed {
        let token = node.home().token("ann", scope);
        let client = node.client_of("ann", Some(&token));
        // A running node learns of the token by itself.
        eventually("the token is known", SOON, || async {
            (client.get("pipelines").await.status != 401).then_some(())
        })
        .await;
        let replies = [
            client.page("scoped", "outputs/reply", "").await,
            client.send("scoped", "", &[], "x").await,
            client.put("pipelines/scoped", single("scoped", "echo", "")).await,
            client.delete("pipelines/nothing").await,
        ];
        for (reply, expected) in replies.into_iter().zip(expected) {
            if expected == 403 {
                let problem = reply.problem(403, "auth.scope");
                assert!(problem["detail"].as_str().is_some_and(|d| d.contains("scope")));
            } else {
                reply.is(expected);
            }
        }
    }
}

#[tokio::test]
async fn a_token_that_is_revoked_soon_works_no_more() {
    let node = TENANTS.lend().await;
    let made = node.home().tenant(&["token", "add", "bob", "--id", "lost", "--scopes", "read"]);
    let client = node.client_of("bob", made["token"].as_str());
    let becomes = |status: u16| {
        let client = client.clone();
        async move {
            let what = format!("a token comes to {status}");
            eventually(&what, SOON, || async {
                (client.get("pipelines").await.status == status).then_some(())
            })
            .await;
        }
    };
    becomes(200).await;
    node.home().tenant(&["token", "revoke", "bob", "lost"]);
    becomes(401).await;
    assert!(!node.home().tenant(&["list"]).to_string().contains("lost"));
}

#[tokio::test]
async fn in_development_foreign_pages_and_names_are_refused() {
    let node = NODE.lend().await;
    let client = node.client();
    let own = node.url();
    for (name, value) in [
        ("host", "evil.example"),
        ("host", "localhost.evil.example:7411"),
        ("origin", "http://evil.example"),
        ("origin", "http://localhost:1"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ] {
        for (method, path) in [
            (Method::GET, client.path("pipelines")),
            (Method::POST, client.path("pipelines/any/events")),
            (Method::PUT, client.path("pipelines/any")),
            (Method::GET, "/metrics".to_owned()),
        ] {
            let reply = client.ask(method, &path, &[(name, value)], "x").await;
            let problem = reply.problem(403, "auth.foreign-site");
            let detail = problem["detail"].as_str().expect("a text").to_lowercase();
            assert!(detail.contains(name), "{name}: {detail}");
        }
    }
    let from_here = [("origin", own.as_str()), ("sec-fetch-site", "same-origin")];
    client.ask(Method::GET, &client.path("pipelines"), &from_here, "").await.is(200);
    let other = node.client_of("somebody", None);
    other.get("pipelines").await.problem(404, "tenant.unknown");
}
