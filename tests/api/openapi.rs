//! The published description against the program: every row is answered, and nothing besides.

use http::Method;
use serde_json::Value;

use super::{ECHO, with};

const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "PATCH"];

#[tokio::test]
async fn what_is_described_is_what_is_answered() {
    let (_node, client) = with("described", ECHO, "").await;
    let reply = client.plain("/v1/openapi.json").await.is(200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let published = sluicebox_tests::root().join("docs/openapi.json");
    let published = std::fs::read_to_string(published).expect("it is in docs");
    assert_eq!(reply.text(), published);
    let description = reply.json();
    assert_eq!(description["openapi"], "3.1.0");
    let paths = description["paths"].as_object().expect("paths");
    for (path, operations) in paths {
        // A pipeline of this name is there; what else is asked for is not.
        let filled = path
            .replace("{tenant}", "dev")
            .replace("pipelines/{name}", "pipelines/none")
            .replace("{name}", "none")
            .replace("{output}", "reply")
            .replace("{key}", "k");
        for method in METHODS {
            let known = operations.get(method.to_ascii_lowercase());
            let verb = Method::from_bytes(method.as_bytes()).expect("a method");
            let reply = client.ask(verb, &filled, &[], "").await;
            let Some(operation) = known else {
                assert_eq!(reply.status, 405, "{method} {path}: {reply:?}");
                let allowed = reply.header("allow").unwrap_or_default();
                for name in operations.as_object().expect("operations").keys() {
                    let name = name.to_ascii_uppercase();
                    assert!(allowed.split(", ").any(|a| a == name), "{path}: {allowed}");
                }
                continue;
            };
            assert!(reply.status != 405, "{method} {path} is described, and not answered");
            let responses = &operation["responses"];
            let described = &responses[reply.status.to_string()];
            assert!(described.is_object(), "{method} {path}: {} is not described", reply.status);
            if reply.header("content-type") == Some("application/problem+json") {
                let code = reply.json()["code"].clone();
                let all = &described["content"]["application/problem+json"]["schema"]["allOf"];
                let codes = all[1]["properties"]["code"]["enum"].as_array();
                let codes: &[Value] = codes.map_or(&[], Vec::as_slice);
                assert!(codes.contains(&code), "{method} {path}: {code} is not among {codes:?}");
            }
        }
    }
}
