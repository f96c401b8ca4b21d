//! What changes something: uploads, manifests with and without mistakes, replay, deletion.

use sluicebox_tests::browser::Browser;
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::guests;
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::Setup;

use super::{at, nothing_is_wrong, picture};

const OBEYS: &str = "conformance-rust";

/// A component is uploaded, and a manifest applied behind one with mistakes.
async fn deploy(browser: &Browser, client: &Client) {
    browser.shows("None yet.").await;
    let file = guests::path(OBEYS);
    browser.write("input[accept*=wasm]", file.to_str().expect("a plain path")).await;
    // Its name is taken from the file's.
    browser.until("document.querySelector('input[maxlength]').value === 'conformance-rust'").await;
    browser.click_text("Upload").await;
    browser.shows("conformance-rust is ").await;
    browser
        .until("document.querySelector('th.name[scope=row]')?.textContent === 'conformance-rust'")
        .await;

    // Each mistake with its field, and what to do.
    browser
        .write(
            "textarea",
            "version = 1\nname = \"page\"\n[ingest]\nto = [\"nobody\"]\n\
                    [stages.some]\ncomponent = \"conformance-rust\"\n",
        )
        .await;
    browser.click_text("Check only").await;
    browser.until("document.querySelector('.failure table') !== null").await;
    browser.shows("manifest.invalid").await;
    browser.shows("What to do").await;
    browser.shows("ingest.to").await;
    browser.picture(&picture("mistakes-light")).await;
    let logged = browser.logged().await;
    assert!(logged.iter().all(|line| line.contains("400 (Bad Request)")), "{logged:#?}");

    let manifest = single("page", OBEYS, "ports = [\"out\"]");
    browser.run("document.querySelector('textarea').value = ''", &[]).await;
    browser.write("textarea", &manifest).await;
    browser.click_text("Check only").await;
    browser.shows("Would be version 1 of page").await;
    client.get("pipelines/page").await.is(404);
    browser.click_text("Apply").await;
    browser.shows("Version 1 of page runs").await;
    client.get("pipelines/page").await.is(200);
    browser.picture(&picture("applied-light")).await;
}

#[tokio::test]
async fn a_pipeline_is_deployed_replayed_and_deleted_from_the_page() {
    let node = Setup::dev().start().await;
    let client = node.client();
    let browser = Browser::start().await;
    browser.size(1280, 1000).await;
    browser.go(&at(&node, "#/deploy")).await;
    deploy(&browser, &client).await;
    browser.click_text("Look at page").await;
    browser.shows("Acknowledged in").await;
    client.call("page", "k", "eanswered").await.is(200);
    client.send("page", "", &[("sluicebox-key", "k")], "xrefused").await.is(202);
    browser.until("document.querySelector('.box.failing') !== null").await;
    browser.picture(&picture("failing-light")).await;
    browser.click_text("Dead letters").await;
    browser.shows("refused").await;
    browser.click_text("Replay").await;
    browser.shows("Replay all dead letters?").await;
    browser.picture(&picture("question-light")).await;
    browser.click_text("Cancel").await;
    browser.until("document.querySelector('dialog') === null").await;
    assert_eq!(client.page("page", "dead-letters", "").await.records().len(), 1);
    browser.click_text("Replay").await;
    browser.until("document.querySelector('dialog')?.open").await;
    browser.click("dialog button.primary").await;
    browser.shows("1 dead letter replayed").await;
    // It fails again, and that is seen.
    browser.shows("2 dead letters shown").await;

    browser.click_text("Versions").await;
    browser.click_text("Delete this pipeline").await;
    browser.until("document.querySelector('dialog .danger')?.disabled").await;
    browser.write("dialog input", "page").await;
    browser.click("dialog .danger").await;
    browser.shows("No pipelines yet").await;
    eventually("it is gone", SOON, || async {
        (client.get("pipelines/page").await.status == 404).then_some(())
    })
    .await;
    nothing_is_wrong(&browser).await;
}
