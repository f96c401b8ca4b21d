//! Components that come from registries: a real one, one that wants to know who asks, and one that
//! was taken over.

use serde_json::{Value, json};
use sluicebox_tests::eventually::SOON;
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{self, Node, Setup};
use sluicebox_tests::registry::{MEDIA_MANIFEST, MEDIA_WASM, Registry, USER, digest_of};
use sluicebox_tests::{guests, root, tls};

use super::front::{Front, Heard, Length, Says};
use super::{Run, ask, file, text};

/// A component that gives back what it gets.
const ECHO: &str = "hostile/echo";

/// Runs a command with something in its environment.
fn ask_with(node: &Node, variables: &[(&str, &str)], arguments: &[&str]) -> Run {
    let mut command = node::command(arguments);
    command.args(["--output", "json"]).current_dir(root()).env("SLUICEBOX_URL", node.url());
    command.envs(variables.iter().copied());
    Run::of(command.output().expect("the program can be started"))
}

/// The names of the node's components.
fn components(node: &Node) -> Vec<String> {
    let list = ask(node, &["list", "components"]).json();
    let rows = list["components"].as_array().expect("a list").iter();
    rows.map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

/// The code of a refused push, which must have said what to do.
#[track_caller]
fn refused(node: &Node, reference: &str, exit: i32) -> (String, String) {
    let error = ask(node, &["push", reference]).error(exit);
    // What the node refuses is its own business.
    let is_ours = error["code"].as_str().is_some_and(|code| code.starts_with("oci."));
    assert!(error["fix"].is_string() || !is_ours, "{error}");
    let member = |name: &str| error[name].as_str().expect("text").to_owned();
    (member("code"), member("message"))
}

#[tokio::test]
async fn a_component_comes_by_its_digest_or_a_tag_that_is_pinned() {
    let (node, registry) = (Setup::dev().start().await, Registry::open().await);
    let wasm = guests::bytes(ECHO);
    let digest = registry.component("acme/word_echo", "v1", wasm.clone()).await;
    let place = format!("oci://{}/acme/word_echo", registry.host());
    let pinned = format!("{place}@{digest}");
    let pushed = ask(&node, &["push", &pinned]).json();
    assert_eq!((&pushed["name"], &pushed["from"]), (&json!("word-echo"), &json!(pinned)));
    assert_eq!(pushed["digest"], digest_of(&wasm), "{pushed}");

    // By its tag it is the same, and what stands for it is said.
    let run = ask(&node, &["push", &format!("{place}:v1"), "--name", "other"]);
    assert_eq!((&run.json()["name"], &run.json()["from"]), (&json!("other"), &json!(pinned)));
    assert!(run.err.contains("tomorrow") && run.err.contains(&pinned), "{run:?}");
    let quiet = ask(&node, &["push", &pinned, "--quiet"]);
    assert_eq!((quiet.code, quiet.err.as_str()), (0, ""), "{quiet:?}");
    // The layout that was there before, and a tag that is somewhere else now.
    let older = guests::bytes("conformance-rust");
    let layer = registry.blob("acme/older", older.clone()).await;
    let media = "application/vnd.wasm.content.layer.v1+wasm";
    let layers = json!([{ "mediaType": media, "digest": layer, "size": older.len() }]);
    registry.manifest("acme/older", "v1", layers).await;
    let pushed = ask(&node, &["push", &format!("oci://{}/acme/older:v1", registry.host())]).json();
    assert_eq!(pushed["digest"], digest_of(&older), "{pushed}");
    assert_eq!(components(&node), ["older", "other", "word-echo"]);
}

#[tokio::test]
async fn a_pipeline_names_what_is_fetched_and_the_node_what_it_has() {
    let (node, registry) = (Setup::dev().start().await, Registry::open().await);
    let wasm = guests::bytes(ECHO);
    let digest = registry.component("acme/echo", "v1", wasm.clone()).await;
    let reference = format!("oci://{}/acme/echo@{digest}", registry.host());
    let manifest = file(&node, "piped.toml", &single("piped", &reference, ""));

    // A node asks nobody, and says who does.
    let client = node.client();
    let direct = client.put("pipelines/piped", single("piped", &reference, "")).await;
    let problem = direct.problem(400, "manifest.invalid");
    let first = &problem["problems"][0];
    assert_eq!(first["code"], "manifest.component", "{problem}");
    assert!(first["fix"].as_str().expect("a fix").contains("sluicebox apply"), "{problem}");

    // Nothing is changed to see what would be: what is missing is named with how to push it.
    let dry = ask(&node, &["apply", text(&manifest), "--dry-run"]);
    assert!(dry.err.contains("would push component oci-acme-echo"), "{dry:?}");
    assert_eq!((dry.code, components(&node)), (64, Vec::new()), "{dry:?}");
    let push = format!("sluicebox push {reference} --name oci-acme-echo");
    assert!(dry.err.contains(&push), "{dry:?}");

    let applied = ask(&node, &["apply", text(&manifest)]).json();
    assert_eq!((&applied["created"], &applied["version"]), (&json!(true), &json!(1)));
    let known = format!("oci-acme-echo@{}", digest_of(&wasm));
    let detail = ask(&node, &["describe", "piped"]).json();
    assert_eq!(detail["stage"][0]["component"], known, "{detail}");
    let send = ["send", "piped", "--key", "k", "--wait", "20s", "--data", "{\"n\":7}"];
    assert_eq!(ask(&node, &send).json()["data"], json!({ "n": 7 }));
    let again = ask(&node, &["apply", text(&manifest)]).json();
    assert_eq!((&again["changed"], &again["version"]), (&json!(false), &json!(1)));
    assert_eq!(ask(&node, &["apply", text(&manifest), "--dry-run"]).json()["changed"], false);
    // What the node has is not fetched again: the layer is not there any more.
    std::fs::remove_file(registry.file(&digest_of(&wasm))).expect("the registry's file");
    ask(&node, &["apply", text(&manifest)]).json();

    // A folder is the same.
    let folder = node.home().data().join("project");
    std::fs::create_dir(&folder).expect("a directory of ours can be written");
    let in_folder = folder.join("pipeline.toml");
    std::fs::write(&in_folder, single("in-folder", &reference, "")).expect("it can be written");
    let up = ask(&node, &["up", text(&folder), "--once"]);
    assert_eq!(up.code, 0, "{up:?}");
    let detail = ask(&node, &["describe", "in-folder"]).json();
    assert_eq!(detail["stage"][0]["component"], known);

    // A tag is no pipeline's business, and a registry that is away is said to be.
    let tagged = single("tagged", &format!("oci://{}/acme/echo:v1", registry.host()), "");
    let tagged = file(&node, "tagged.toml", &tagged);
    let error = ask(&node, &["apply", text(&tagged)]).error(64);
    assert_eq!(error["code"], "oci.reference");
    assert_eq!(error["problems"][0]["place"], "stages.stage-0.component", "{error}");
    drop(registry);
    assert_eq!(ask(&node, &["apply", text(&manifest)]).error(69)["code"], "oci.connect");
}

#[tokio::test]
async fn what_is_not_what_was_named_is_not_pushed() {
    let (node, registry) = (Setup::dev().start().await, Registry::open().await);
    let wasm = guests::bytes(ECHO);
    let of = |version: &str| format!("oci://{}/acme/echo{version}", registry.host());
    let digest = registry.component("acme/echo", "good", wasm.clone()).await;
    let layer = digest_of(&wasm);

    let zeros = format!("@sha256:{}", "0".repeat(64));
    assert_eq!(refused(&node, &of(&zeros), 66).0, "oci.unknown");
    assert_eq!(refused(&node, &of(":none"), 66).0, "oci.unknown");
    assert_eq!(refused(&node, &of(""), 2).0, "oci.reference");
    assert_eq!(refused(&node, "oci://127.0.0.1:1/acme/echo:v1", 69).0, "oci.connect");

    // Damaged where the registry keeps it: as long, longer, shorter.
    let kept = registry.file(&layer);
    let mut other = wasm.to_vec();
    *other.last_mut().expect("it is not empty") ^= 1;
    for (bytes, code) in [
        (other, "oci.digest"),
        ([&wasm[..], b"\0"].concat(), "oci.size"),
        (wasm[..wasm.len() - 1].to_vec(), "oci.digest"),
    ] {
        std::fs::write(&kept, bytes).expect("the registry's file");
        assert_eq!(refused(&node, &of(&format!("@{digest}")), 64).0, code);
    }
    std::fs::write(&kept, &wasm).expect("the registry's file");
    let manifest = registry.file(&digest);
    let text = std::fs::read_to_string(&manifest).expect("the registry's file");
    std::fs::write(&manifest, text.replace("\"test\"", "\"tost\"")).expect("the registry's file");
    let (code, message) = refused(&node, &of(&format!("@{digest}")), 64);
    assert_eq!(code, "oci.digest", "{message}");

    // What is no component, or not one.
    let one = json!({ "mediaType": MEDIA_WASM, "digest": layer, "size": wasm.len() });
    let with = |name: &str, value: Value| {
        let mut layer = one.clone();
        layer[name] = value;
        json!([layer])
    };
    for (tag, layers, code) in [
        ("two", json!([one, one]), "oci.layout"),
        ("none", json!([]), "oci.layout"),
        (
            "zip",
            with("mediaType", json!("application/vnd.oci.image.layer.v1.tar+gzip")),
            "oci.layout",
        ),
        ("huge", with("size", json!(1_u64 << 40)), "oci.size"),
        ("less", with("size", json!(wasm.len() - 1)), "oci.size"),
    ] {
        registry.manifest("acme/echo", tag, layers).await;
        assert_eq!(refused(&node, &of(&format!(":{tag}")), 64).0, code, "{tag}");
    }
    registry.component("acme/echo", "text", "no component").await;
    assert_eq!(refused(&node, &of(":text"), 64).0, "component.not-wasm");
    let asset = ask(&node, &["push", "--asset", &of(":good")]);
    assert_eq!(asset.code, 2, "{asset:?}");
    assert_eq!(components(&node), [""; 0]);
}

#[tokio::test]
async fn a_registry_is_told_who_asks_only_if_it_is_the_one_that_is_meant() {
    let (node, registry) = (Setup::dev().start().await, Registry::closed().await);
    let digest = registry.component("acme/echo", "v1", guests::bytes(ECHO)).await;
    let (host, reference) =
        (registry.host(), format!("oci://{}/acme/echo@{digest}", registry.host()));
    let push = |variables: &[(&str, &str)]| ask_with(&node, variables, &["push", &reference]);

    let error = push(&[]).error(77);
    assert_eq!(error["code"], "oci.denied");
    let fix = error["fix"].as_str().expect("a fix");
    assert!(fix.contains("SLUICEBOX_REGISTRY_AUTH") && fix.contains(&host), "{fix}");
    let auth = |text: &str| push(&[("SLUICEBOX_REGISTRY_AUTH", text)]);
    assert_eq!(auth(&format!("ada:wrong@{host}")).error(77)["code"], "oci.denied");
    let elsewhere = auth(&format!("{USER}@registry.example"));
    assert_eq!(elsewhere.error(77)["code"], "oci.denied");
    assert_eq!(auth("nonsense").error(2)["exit-code"], 2);
    auth(&format!("{USER}@{host}")).json();

    // As `docker login` leaves them.
    let folder = node.home().data().join("docker");
    std::fs::create_dir(&folder).expect("a directory of ours can be written");
    let docker = |config: Value| {
        std::fs::write(folder.join("config.json"), config.to_string()).expect("it can be written");
        push(&[("DOCKER_CONFIG", text(&folder))])
    };
    docker(json!({ "auths": { host.as_str(): { "auth": "YWRhOmxhY2U=" } } })).json();
    let other = docker(json!({ "auths": { "127.0.0.1": { "auth": "YWRhOmxhY2U=" } } }));
    assert_eq!(other.error(77)["code"], "oci.denied");
    let helped = docker(json!({ "credsStore": "desktop" })).error(77);
    let fix = helped["fix"].as_str().expect("a fix");
    assert!(fix.contains("helper") && fix.contains("not supported"), "{fix}");
    let broken = push(&[("DOCKER_CONFIG", "/dev/null/x")]);
    assert_eq!(broken.error(74)["exit-code"], 74);
}

/// The manifest of a component, as a front says it, and what to ask for.
fn manifest(wasm: &[u8]) -> (String, String) {
    let layer = json!({ "mediaType": MEDIA_WASM, "digest": digest_of(wasm), "size": wasm.len() });
    let text = json!({ "schemaVersion": 2, "layers": [layer] }).to_string();
    let digest = digest_of(text.as_bytes());
    (text, digest)
}

#[tokio::test]
async fn a_token_goes_to_its_registry_and_to_nobody_it_sends_on_to() {
    let node = Setup::dev().start().await;
    let wasm = guests::bytes(ECHO);
    let (text, digest) = manifest(&wasm);
    let storage = Front::saying(move |_| Says::status(200).body(wasm.to_vec()));
    let tokens = Front::saying(|heard: &Heard| match heard.authorisation {
        Some(_) => Says::status(403),
        None => Says::status(200).body("{\"token\":\"for-anybody\"}"),
    });
    let (storage_host, realm) = (storage.host(), format!("http://{}/token?x=1", tokens.host()));
    let front = Front::saying(move |heard: &Heard| {
        if heard.authorisation.as_deref() != Some("Bearer for-anybody") {
            let asks =
                format!("Bearer realm=\"{realm}\",service=\"a b\",scope=\"repository:*:push\"");
            return Says::status(401).header("www-authenticate", asks);
        }
        match heard.target.contains("/blobs/") {
            true => Says::status(307).header("location", format!("http://{storage_host}/at?s=1")),
            false => Says::status(200).header("content-type", MEDIA_MANIFEST).body(text.clone()),
        }
    });
    let reference = format!("oci://{}/acme/echo@{digest}", front.host());
    ask(&node, &["push", &reference]).json();
    let [asked] = tokens.heard().try_into().expect("one token is enough");
    // To read, and nothing else, whatever the registry says.
    assert_eq!(asked.target, "/token?x=1&scope=repository%3Aacme%2Fecho%3Apull&service=a%20b");
    let [stored] = storage.heard().try_into().expect("the component is there");
    assert_eq!((stored.target.as_str(), stored.authorisation), ("/at?s=1", None));
    let said: Vec<bool> = front.heard().iter().map(|heard| heard.authorisation.is_some()).collect();
    assert_eq!(said, [false, true, true]);
}

#[tokio::test]
async fn a_registry_that_was_taken_over_gets_nowhere() {
    let (node, registry) = (Setup::dev().start().await, Registry::open().await);
    let wasm = guests::bytes(ECHO);
    let digest = registry.component("acme/echo", "v1", wasm.clone()).await;
    let push = |front: &Front, variables: &[(&str, &str)]| {
        let reference = format!("oci://{}/acme/echo@{digest}", front.host());
        ask_with(&node, variables, &["push", &reference])
    };
    let sends_on = |base: String| {
        Front::saying(move |heard: &Heard| {
            Says::status(302).header("location", format!("{base}{}", heard.target))
        })
    };
    // To a registry with TLS, which is whom the system trusts, or is not.
    let by_tls = registry.by_tls().await;
    let front = sends_on(format!("https://{}", by_tls.host()));
    let authority = tls::file("authority.pem");
    push(&front, &[("SSL_CERT_FILE", text(&authority))]).json();
    let error = push(&front, &[]).error(69);
    assert_eq!(error["code"], "oci.connect");
    assert!(error["message"].as_str().expect("text").contains("certificate"), "{error}");

    // To somebody without TLS who is not of this machine; round and round; to no address.
    for place in ["http://10.255.255.1:9", "", "ftp://127.0.0.1", "http://u:p@127.0.0.1:9"] {
        let begun = std::time::Instant::now();
        let error = push(&sends_on(place.to_owned()), &[]).error(69);
        assert_eq!(error["code"], "oci.reply", "{place}: {error}");
        assert!(begun.elapsed() < SOON, "{place} was asked");
    }
    // To somebody who would like to have the credentials.
    let asks = Front::saying(|_| Says::status(401).header("www-authenticate", "Basic realm=\"x\""));
    let front = sends_on(format!("http://{}", asks.host()));
    let auth = format!("{USER}@{}", front.host());
    let error = push(&front, &[("SLUICEBOX_REGISTRY_AUTH", &auth)]).error(77);
    assert_eq!(error["code"], "oci.denied");
    let heard = asks.heard();
    assert!(heard.len() == 1 && heard[0].authorisation.is_none(), "{heard:?}");
    // More than a manifest may have, with or without saying so; something else; a mistake.
    let endless = Front::saying(|_| Says::status(200).length(Length::Endless));
    assert_eq!(push(&endless, &[]).error(64)["code"], "oci.size");
    let large = Front::saying(|_| Says::status(200).body(vec![b' '; (4 << 20) + 1]));
    assert_eq!(push(&large, &[]).error(64)["code"], "oci.size");
    let (text, named) = manifest(&wasm);
    let more = [&wasm[..], b"\0"].concat();
    let longer = Front::saying(move |heard: &Heard| match heard.target.contains("/blobs/") {
        true => Says::status(200).body(more.clone()).length(Length::Unsaid),
        false => Says::status(200).body(text.clone()),
    });
    let reference = format!("oci://{}/acme/longer@{named}", longer.host());
    assert_eq!(refused(&node, &reference, 64).0, "oci.size");
    let other = Front::saying(move |_| Says::status(200).body("{\"schemaVersion\":2}"));
    assert_eq!(push(&other, &[]).error(64)["code"], "oci.digest");
    let broken = Front::saying(|_| Says::status(500));
    assert_eq!(push(&broken, &[]).error(69)["code"], "oci.reply");
    // A place for tokens that credentials must not go to, and none.
    for realm in ["http://10.255.255.1:9/t", "not an address"] {
        let asks = format!("Bearer realm=\"{realm}\"");
        let front =
            Front::saying(move |_| Says::status(401).header("www-authenticate", asks.clone()));
        let auth = format!("{USER}@{}", front.host());
        let error = push(&front, &[("SLUICEBOX_REGISTRY_AUTH", &auth)]).error(69);
        assert_eq!(error["code"], "oci.reply", "{realm}: {error}");
        assert_eq!(front.heard().len(), 1);
    }
    assert_eq!(components(&node), ["echo"]);
}
