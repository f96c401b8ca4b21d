//! What stages say: as it comes, by stage and level, paused, bounded, and as text.

use serde_json::{Value, json};
use sluicebox_tests::browser::Browser;
use sluicebox_tests::client::Client;
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::Setup;

use super::{at, nothing_is_wrong, picture};

/// Guests that say what they are told.
const OBEYS: &str = "conformance-rust";

/// A text that would do something if it were HTML.
const HOSTILE: &str = "<img src=x onerror=window.hacked=1>";

// Levels, as the guest takes them.
const DEBUG: u8 = 0;
const INFO: u8 = 1;
const WARN: u8 = 2;
const ERROR: u8 = 3;

/// Two stages beside each other, each behind a key of its own.
async fn with_two_stages(client: &Client) {
    client.push(OBEYS).await;
    let stage = |name| format!("[stages.{name}]\ncomponent = \"{OBEYS}\"\n");
    let manifest = format!(
        "version = 1\nname = \"talks\"\ndelivery = \"best-effort\"\npartitions = 1\n\
         [ingest]\nto = [\"first\", \"second\"]\n{}{}",
        stage("first"),
        stage("second")
    );
    client.apply("talks", manifest).await;
}

/// Has both stages say lines.
async fn say(client: &Client, lines: &[(u8, &str)]) {
    let text = |(level, text): &(u8, &str)| [&[b'l', *level], text.as_bytes()].concat();
    let given: Vec<Given> = lines.iter().map(|line| Given::new("k", text(line))).collect();
    client.frame("talks", &frame(&given)).await.is(202);
}

/// Waits until exactly these texts are shown, newest first.
async fn until_shown(browser: &Browser, texts: &[&str]) {
    let shown = "JSON.stringify([...document.querySelectorAll('.log-text')]\
                 .map((one) => one.textContent))";
    browser.until(&format!("{shown} === {}", json!(json!(texts).to_string()))).await;
}

/// Chooses one of the options of a selection, as a person does.
async fn choose(browser: &Browser, label: &str, option: &str) {
    let script = "const label = [...document.querySelectorAll('label')]\
                  .find((one) => one.textContent.startsWith(arguments[0])); \
                  const select = label.querySelector('select'); \
                  select.value = arguments[1]; \
                  select.dispatchEvent(new Event('change', { bubbles: true })); \
                  return select.value";
    assert_eq!(browser.run(script, &[json!(label), json!(option)]).await, option);
}

#[tokio::test]
async fn lines_are_followed_picked_by_stage_and_level_and_paused() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_two_stages(&client).await;
    let browser = Browser::start().await;
    browser.size(1280, 900).await;
    browser.go(&at(&node, "#/p/talks/logs")).await;
    browser.shows("No line is kept").await;
    say(&client, &[(DEBUG, "quiet"), (INFO, "plain"), (WARN, HOSTILE)]).await;
    browser.shows("6 lines shown, newest first").await;
    say(&client, &[(ERROR, "grave\nand more of it")]).await;
    browser.shows("8 lines shown, newest first").await;

    // Which stage, and how grave; in words, not by colour alone.
    let levels = "[...document.querySelectorAll('.log li')].map((one) => one.querySelector\
                  ('.log-level').textContent).sort().join(' ')";
    let all = browser.run(&format!("return {levels}"), &[]).await;
    assert_eq!(all, "debug debug error error info info warn warn");
    choose(&browser, "Stage", "second").await;
    until_shown(&browser, &["grave\nand more of it", HOSTILE, "plain", "quiet"]).await;
    let from = "[...document.querySelectorAll('.log-from')]\
                .every((one) => one.textContent.startsWith('second '))";
    browser.until(from).await;
    choose(&browser, "Level", "warn").await;
    until_shown(&browser, &["grave\nand more of it", HOSTILE]).await;
    browser.picture(&picture("logs-picked-light")).await;

    // Paused, nothing comes; what came meanwhile is not lost.
    browser.press(&['p']).await;
    browser.shows("paused").await;
    say(&client, &[(ERROR, "meanwhile"), (INFO, "not wanted")]).await;
    // It is handled by then, and not only taken.
    eventually("it is kept", SOON, || async {
        let kept = client.get("pipelines/talks/logs?level=error").await;
        (kept.is(200).records().len() == 4).then_some(())
    })
    .await;
    until_shown(&browser, &["grave\nand more of it", HOSTILE]).await;
    browser.press(&['p']).await;
    until_shown(&browser, &["meanwhile", "grave\nand more of it", HOSTILE]).await;

    let made = "return document.querySelectorAll('main img').length";
    assert_eq!(browser.run(made, &[]).await, 0);
    assert_eq!(browser.run("return window.hacked === undefined", &[]).await, true);
    nothing_is_wrong(&browser).await;
}

#[tokio::test]
async fn by_keys_from_the_stage_in_light_and_dark_and_narrow() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_two_stages(&client).await;
    say(&client, &[(DEBUG, "quiet"), (INFO, "plain"), (WARN, "odd"), (ERROR, "grave")]).await;
    let browser = Browser::start().await;
    browser.size(1280, 900).await;
    // A stage leads to what it says.
    browser.go(&at(&node, "#/p/talks")).await;
    browser.click("[data-box='stage/first']").await;
    browser.click_text("What it says").await;
    browser.until("location.hash === '#/p/talks/logs/first'").await;
    until_shown(&browser, &["grave", "odd", "plain", "quiet"]).await;
    for shown in [&["grave", "odd", "plain"][..], &["grave", "odd"], &["grave"]] {
        browser.press(&['l']).await;
        until_shown(&browser, shown).await;
    }
    // From `first` to `second`, to all.
    browser.press(&['s', 's']).await;
    until_shown(&browser, &["grave", "grave"]).await;
    browser.press(&['5']).await;
    browser.until("location.hash === '#/p/talks/logs'").await;
    browser.shows("8 lines shown").await;
    browser.press(&['?']).await;
    browser.shows("lines of the next stage").await;
    browser.press(&['\u{e00c}']).await;

    let long = "a word that does not end ".repeat(20) + &"x".repeat(400);
    say(&client, &[(INFO, &long)]).await;
    browser.shows("10 lines shown").await;
    for (look, scheme, width) in
        [("light", "light", 1280), ("dark", "dark", 1280), ("narrow", "dark", 360)]
    {
        browser.prefers(scheme).await;
        browser.size(width, 900).await;
        browser.shows("10 lines shown").await;
        browser.picture(&picture(&format!("logs-{look}"))).await;
        let fits = "return document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.run(fits, &[]).await, true, "wider than {width}");
    }
    // The choice of the page goes before the system's.
    let ground = "return getComputedStyle(document.documentElement).backgroundColor";
    let system: Value = browser.run(ground, &[]).await;
    browser.press(&['t']).await;
    browser.until("document.documentElement.dataset.theme === 'light'").await;
    assert_ne!(browser.run(ground, &[]).await, system, "light is as dark");
    browser.press(&['t']).await;
    browser.until("document.documentElement.dataset.theme === 'dark'").await;
    assert_eq!(browser.run(ground, &[]).await, system);
    nothing_is_wrong(&browser).await;
}

#[tokio::test]
async fn no_more_is_kept_than_can_be_looked_through_and_what_is_gone_is_told() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_two_stages(&client).await;
    let browser = Browser::start().await;
    browser.go(&at(&node, "#/p/talks/logs")).await;
    browser.shows("No line is kept").await;
    // A call may say so much and no more.
    for (round, shown) in [80, 160, 240, 320, 400, 480, 500].into_iter().enumerate() {
        let lines = [(); 40].map(|()| format!("line of {round}"));
        let lines: Vec<(u8, &str)> = lines.iter().map(|text| (INFO, text.as_str())).collect();
        say(&client, &lines).await;
        browser.shows(&format!("{shown} lines shown")).await;
    }
    browser.until("document.querySelectorAll('.log li').length === 500").await;
    // More than the node keeps, while nobody reads.
    browser.press(&['p']).await;
    browser.shows("paused").await;
    let long = "x".repeat(4_000);
    let is_there = async |text: &str| {
        eventually(text, SOON, || async {
            let kept = client.get("pipelines/talks/logs?stage=second").await.is(200).records();
            kept.iter().any(|line| line["text"] == text).then_some(kept.len())
        })
        .await
    };
    for last in ["one", "two", "three", "the last"] {
        say(&client, &[[(INFO, long.as_str())].repeat(40), vec![(INFO, last)]].concat()).await;
        assert!(is_there(last).await < 100, "the node keeps all");
    }
    browser.press(&['p']).await;
    browser.shows("gone before they could be read").await;
    browser.until("document.querySelector('.log-text').textContent === 'the last'").await;
    let most = "document.querySelectorAll('.log li').length <= 500";
    browser.until(most).await;
    nothing_is_wrong(&browser).await;
}
