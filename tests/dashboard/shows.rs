//! What views show, that it is text, and how it looks.

use std::time::{Duration, Instant};

use serde_json::json;
use sluicebox_tests::browser::Browser;
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::Setup;

use super::{at, nothing_is_wrong, picture, say, with_words};

/// Every view of a pipeline, and the others: where it is, and a text that only it shows.
const VIEWS: [(&str, &str); 9] = [
    ("#/", "2 pipelines of dev"),
    ("#/p/word-count", "in worker"),
    ("#/p/word-count/partitions", "Watermark, UTC"),
    ("#/p/word-count/outputs/counts", "newest first"),
    ("#/p/hostile/dead-letters", "1 dead letter shown"),
    ("#/p/word-count/versions", "Manifest, with every default"),
    ("#/deploy", "Apply a manifest"),
    ("#/tenant", "Memory of instances"),
    ("#/node", "This node is alone."),
];

/// A text that would do something if it were HTML.
const HOSTILE: &str = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>";

/// Guests that can be told to fail.
const OBEYS: &str = "conformance-rust";

/// A pipeline whose key, payload and dead letter are what somebody with bad intentions sends.
async fn with_hostile(client: &Client) {
    client.push(OBEYS).await;
    client.apply("hostile", single("hostile", OBEYS, "ports = [\"out\"]")).await;
    for command in ["e", "x"] {
        let reply = client.send(
            "hostile",
            "",
            &[("sluicebox-key", HOSTILE)],
            format!("{command}{HOSTILE}"),
        );
        reply.await.is(202);
    }
    client.records("hostile", "outputs/reply", 1).await;
    client.records("hostile", "dead-letters", 1).await;
}

#[tokio::test]
async fn every_view_shows_what_there_is_in_light_and_dark_wide_and_narrow() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_words(&client).await;
    with_hostile(&client).await;
    let browser = Browser::start().await;
    for (look, scheme, width) in
        [("light", "light", 1280), ("dark", "dark", 1280), ("narrow", "light", 360)]
    {
        browser.prefers(scheme).await;
        browser.size(width, 900).await;
        for (place, text) in VIEWS {
            browser.go(&at(&node, place)).await;
            browser.shows(text).await;
            // Two readings make a rate.
            say(&client, "the rest is silence").await;
            if place == "#/p/word-count" {
                browser
                    .until("/[0-9]\\/s/.test(document.querySelector('.edge-rate').textContent)")
                    .await;
            }
            let name = place.trim_matches(['#', '/']).replace('/', "-");
            let name = if name.is_empty() { "pipelines" } else { &name };
            browser.picture(&picture(&format!("{name}-{look}"))).await;
            let fits = "return document.documentElement.scrollWidth <= innerWidth";
            assert_eq!(browser.run(fits, &[]).await, true, "{place} is wider than {width}");
        }
        // The colours are those that were asked for.
        let ground = "return getComputedStyle(document.documentElement).backgroundColor";
        let ground = browser.run(ground, &[]).await;
        let first = ground.as_str().and_then(|text| text.strip_prefix("rgb(")?.split(',').next());
        let level: u8 = first.expect("a colour").parse().expect("a number");
        assert_eq!(level < 128, scheme == "dark", "{ground}");
    }
    nothing_is_wrong(&browser).await;
}

#[tokio::test]
async fn a_click_leads_from_the_list_to_a_stage_and_its_output() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_words(&client).await;
    let browser = Browser::start().await;
    browser.size(1280, 900).await;
    // The root leads to it.
    browser.go(&node.url()).await;
    browser.click_text("word-count").await;
    browser.until("document.querySelectorAll('.box-stage').length === 2").await;
    // What is counted by the node is what is shown: six words of the first line, and those of now.
    browser.shows("6 in all").await;
    say(&client, "words words words").await;
    browser.shows("9 in all").await;
    browser.click("[data-box='stage/count']").await;
    for text in ["word-count-count", "Time of a call, last minute", "Instance serves", "count"] {
        browser.shows(text).await;
    }
    browser.until("document.querySelector('.side .times-bar') !== null").await;
    browser.picture(&picture("stage-light")).await;
    browser.click("[aria-label='Close']").await;
    browser.until("document.querySelector('.side') === null").await;
    browser.click("[data-box='output/counts']").await;
    browser.until("location.hash === '#/p/word-count/outputs/counts'").await;
    browser.shows("{\"word\":\"words\",\"count\":3}").await;
    // What comes is shown without being asked for; what was opened stays open.
    browser.click(".events summary").await;
    browser.until("document.querySelector('.events details[open]') !== null").await;
    say(&client, "afterwards").await;
    browser.shows("{\"word\":\"afterwards\",\"count\":1}").await;
    browser.until("document.querySelector('.events details[open]') !== null").await;
    browser.click_text("Pause").await;
    browser.shows("paused").await;
    for (tab, text) in [
        ("Partitions", "worker"),
        ("Versions", "\"delivery\": \"exactly-once\""),
        ("Dead letters", "No dead letters"),
        ("Graph", "Acknowledged in"),
        ("Tenant", "What a bill is made from"),
        ("Node", "Not on disk yet"),
        ("Deploy", "word-count-split"),
        ("Pipelines", "1 pipeline of dev"),
    ] {
        browser.click_text(tab).await;
        browser.shows(text).await;
    }
    nothing_is_wrong(&browser).await;
}

#[tokio::test]
async fn what_others_wrote_stays_text() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_hostile(&client).await;
    let browser = Browser::start().await;
    for place in ["#/p/hostile/outputs/reply", "#/p/hostile/dead-letters"] {
        browser.go(&at(&node, place)).await;
        browser.until("document.querySelector('.events li') !== null").await;
        browser.click(".events summary").await;
        // It is there, to the letter: in the row, and in the details.
        let shown = "document.querySelector('.events').textContent.split(arguments[0]).length - 1";
        let times = browser.run(&format!("return {shown}"), &[json!(HOSTILE)]).await;
        assert!(times.as_u64() >= Some(2), "{place}: {times}");
        let made = "return document.querySelectorAll('main img, main script').length";
        assert_eq!(browser.run(made, &[]).await, 0, "{place}");
    }
    // The names of pipelines in addresses are anybody's as well.
    let name = "#/p/%3Cimg%20src%3Dx%20onerror%3Dwindow.hacked%3D1%3E";
    browser.go(&at(&node, name)).await;
    browser.shows("pipeline.unknown").await;
    assert_eq!(browser.run("return window.hacked === undefined", &[]).await, true);
    // Asking for what is not there is all there was to say.
    let logged = browser.logged().await;
    assert!(logged.iter().all(|line| line.contains("404 (Not Found)")), "{logged:#?}");
}

#[tokio::test]
async fn the_policy_stops_what_the_pages_would_never_do() {
    let node = Setup::dev().start().await;
    let browser = Browser::start().await;
    browser.go(&at(&node, "")).await;
    browser.shows("No pipelines yet").await;
    browser.picture(&picture("empty-light")).await;
    // A mistake of ours cannot become HTML: the browser refuses it.
    let html =
        "try { document.body.innerHTML = '<b>x</b>'; return 'set' } catch (e) { return e.name }";
    assert_eq!(browser.run(html, &[]).await, "TypeError");
    let inline = "const made = document.createElement('img'); made.src = 'http://127.0.0.1:9/x'; \
                  document.body.append(made); return document.body.lastChild.tagName";
    assert_eq!(browser.run(inline, &[]).await, "IMG");
    let logged = eventually("two violations", SOON, || async {
        let logged = browser.logged().await.join("\n");
        logged.contains("img-src").then_some(logged)
    })
    .await;
    assert!(logged.contains("Content Security Policy"), "{logged}");
}

#[tokio::test]
async fn what_nobody_looks_at_is_not_read() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_words(&client).await;
    let browser = Browser::start().await;
    browser.go(&at(&node, "#/p/word-count")).await;
    browser.shows("Acknowledged in").await;
    let reads = "performance.getEntriesByType('resource').filter((one) => \
                 one.name.endsWith('/pipelines/word-count')).length";
    let began = Instant::now();
    browser.until(&format!("{reads} >= 4")).await;
    let took = began.elapsed();
    browser.hide().await;
    let script = format!("return {reads}");
    let before = browser.run(&script, &[]).await;
    // As long as it took to be read several times.
    tokio::time::sleep(took + Duration::from_secs(2)).await;
    assert_eq!(browser.run(&script, &[]).await, before);
    browser.show().await;
    browser.until(&format!("{reads} > {before}")).await;
    nothing_is_wrong(&browser).await;
}

#[tokio::test]
async fn a_gpu_is_shown_with_the_shares_of_its_time() {
    let node = Setup::dev().set("gpu.device", "interpreter").start().await;
    let client = node.client();
    let browser = Browser::start().await;
    browser.size(1280, 1000).await;
    browser.go(&at(&node, "#/node")).await;
    browser.shows("No stage has used the GPU yet").await;
    client.push("gpu").await;
    client.apply("kernels", single("kernels", "gpu", "grants = { gpu = {} }")).await;
    assert_eq!(client.call("kernels", "k", "double 1 2 3").await.is(200).text(), "2 4 6");
    for text in ["(interpreter)", "kernels / stage-0", "tenant dev", "Memory in use"] {
        browser.shows(text).await;
    }
    // Time that was used is drawn.
    let drawn = "[...document.querySelectorAll('td .spark-wide .spark-line')].length === 2";
    client.call("kernels", "k", "double 4 5").await.is(200);
    browser.until(drawn).await;
    browser.picture(&picture("gpu-light")).await;
    browser.click_text("Tenant").await;
    browser.shows("Device time").await;
    nothing_is_wrong(&browser).await;
}
