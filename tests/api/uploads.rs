//! Components: taken in, listed, forgotten, and refused with a reason.

use std::fmt::Write as _;

use sluicebox_tests::client::Client;
use sluicebox_tests::guests;
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Home, Setup};

use super::{ECHO, NODE, OBEYS};

async fn names(client: &Client) -> Vec<String> {
    let list = client.get("components").await.is(200).json();
    let list = list.as_array().expect("a list");
    list.iter().map(|info| info["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn a_component_is_listed_and_can_be_forgotten() {
    let node = NODE.lend().await;
    let client = node.client();
    let pushed = client.put("components/here-today", guests::bytes(ECHO)).await.is(201).json();
    assert_eq!(pushed["name"], "here-today");
    assert_eq!(pushed["world"], "stage");
    assert!(pushed["digest"].as_str().is_some_and(|text| text.starts_with("sha256:")), "{pushed}");
    let imports = ["sluicebox:stage/output@0.1.0", "sluicebox:stage/types@0.1.0"];
    assert_eq!(pushed["imports"], serde_json::json!(imports));
    let again = client.put("components/here-today", guests::bytes(ECHO)).await.is(200).json();
    assert_eq!(again["digest"], pushed["digest"]);
    assert_eq!(client.get("components/here-today").await.is(200).json(), again);
    assert!(names(&client).await.contains(&"here-today".to_owned()));
    client.delete("components/here-today").await.is(204);
    client.get("components/here-today").await.problem(404, "component.unknown");
    client.delete("components/here-today").await.problem(404, "component.unknown");
}

#[tokio::test]
async fn what_is_no_component_is_refused_with_the_reason() {
    let node = NODE.lend().await;
    let client = node.client();
    let refused = |name: &str| guests::bytes(&format!("hostile-refused/{name}"));
    let uploads = [
        ("text", "not wasm at all".into(), "component.not-wasm", "not a WebAssembly component"),
        ("nothing", "".into(), "component.not-wasm", "not a WebAssembly component"),
        ("core", refused("core-module"), "component.core-module", "wasm32-wasip2"),
        ("http", refused("http-import"), "component.import", "`wasi:http/incoming-handler@0.2.0`"),
        ("vault", refused("unknown-import"), "component.import", "`example:secrets/vault@1.0.0`"),
        ("mute", refused("no-handle"), "component.export", "exports no function `handle`"),
        ("odd", refused("wrong-handle"), "component.export", "func(frame: u32) -> u32"),
        ("off", refused("wrong-import"), "component.link", "`emit` has the wrong type"),
    ];
    for (name, bytes, code, words) in uploads {
        let problem = client.put(&format!("components/{name}"), bytes).await.problem(400, code);
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(words), "{name}: {detail}");
    }
    let half = guests::bytes(OBEYS).slice(..40_000);
    client.put("components/half", half).await.problem(400, "component.malformed");
    client.put("components/Not-A-Name", guests::bytes(ECHO)).await.problem(400, "name.invalid");
    let kept = names(&client).await;
    for name in ["text", "nothing", "core", "http", "vault", "mute", "odd", "off", "half"] {
        assert!(!kept.contains(&name.to_owned()), "{name} was kept");
    }
}

#[tokio::test]
async fn an_import_that_nobody_uses_is_no_reason_to_refuse() {
    let node = NODE.lend().await;
    let client = node.client();
    let file = sluicebox_tests::root().join("tests/guests/hostile/echo.wat");
    let text = std::fs::read_to_string(file).expect("the guest's source is here");
    let unused = "(import \"wasi:sockets/tcp@0.2.0\" (instance))\n\
                  (import \"wasi:filesystem/types@0.2.0\" (instance))\n";
    let at = text.find("(import").expect("it imports something");
    let text = [&text[..at], unused, &text[at..]].concat();
    let wasm = wat::parse_str(&text).expect("it is the same with two lines more");
    client.put("components/curious", wasm).await.is(201);
    client.apply("curious", single("curious", "curious", "")).await;
    assert_eq!(client.call("curious", "k", "hello").await.is(200).text(), "hello");
}

#[tokio::test]
async fn an_oversized_upload_is_refused() {
    let node = Setup::dev().set("engine.upload-bytes-max", "64KiB").start().await;
    let client = node.client();
    let large = guests::bytes(OBEYS);
    assert!(large.len() > 64 << 10);
    let problem = client.put("components/large", large).await.problem(413, "request.too-large");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("65536")), "{problem}");
    client.get("components/large").await.problem(404, "component.unknown");
    client.push(ECHO).await;
}

/// Functions that are long, branchy and full of live values: the worst a compiler gets for its
/// bytes.
fn bomb(functions: usize, rounds: usize) -> Vec<u8> {
    let mut module = String::new();
    for function in 0..functions {
        module.push_str("(func (param i32 i32) (result i32) (local i32 i32 i32 i32 i32 i32)\n");
        for round in 0..rounds {
            let (a, b, c) = (round % 8, (round * 3 + 1) % 8, (round * 5 + function) % 8);
            writeln!(
                module,
                "(if (i32.gt_u (local.get {a}) (i32.const {round})) (then (local.set {b} (i32.add \
                 (local.get {c}) (i32.mul (local.get {a}) (i32.const {function}))))) (else \
                 (local.set {c} (i32.div_u (local.get {b}) (local.get {a})))))"
            )
            .expect("text takes all one writes");
        }
        module.push_str("local.get 2)\n");
    }
    let file = sluicebox_tests::root().join("tests/guests/hostile/echo.wat");
    let text = std::fs::read_to_string(file).expect("the guest's source is here");
    let at = text.find("(core module").expect("it has a module");
    let text = format!("{}(core module $bomb {module})\n{}", &text[..at], &text[at..]);
    wat::parse_str(&text).expect("the text above is well-formed")
}

#[tokio::test]
async fn a_compile_bomb_costs_its_owner_an_error_and_others_nothing() {
    let home = Home::without_artefacts();
    let setup = Setup::dev().home(&home).set("engine.compile-cpu-max", "1s");
    let node = setup.start().await;
    let client = node.client();
    client.push(ECHO).await;
    client.apply("good", single("good", "echo", "")).await;
    let mut served = 0;
    let bomb = client.put("components/bomb", bomb(400, 400));
    let mut bomb = std::pin::pin!(bomb);
    let reply = loop {
        tokio::select! {
            biased;
            reply = &mut bomb => break reply,
            good = client.call("good", "k", "still here") => {
                assert_eq!(good.is(200).text(), "still here");
                served += 1;
            }
        }
    };
    let problem = reply.problem(400, "compile.cpu");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains("more than 1 s of processor time"), "{detail}");
    assert!(served > 10, "{served} events were handled meanwhile");
    client.get("components/bomb").await.problem(404, "component.unknown");
}
