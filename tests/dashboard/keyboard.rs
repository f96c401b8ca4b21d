//! The dashboard by keyboard alone.

use serde_json::Value;
use sluicebox_tests::browser::Browser;
use sluicebox_tests::node::Setup;

use super::{at, nothing_is_wrong, picture, with_words};

/// Keys as WebDriver names them.
const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';
const ESCAPE: char = '\u{e00c}';
const LEFT: char = '\u{e012}';
const RIGHT: char = '\u{e014}';

/// Most steps to anything.
const STEPS_MAX: usize = 40;

/// What has the focus: a box of the graph, or its text.
async fn focus(browser: &Browser) -> String {
    let script = "const one = document.activeElement; \
                  return one.dataset.box ?? one.getAttribute('aria-label') ?? one.textContent";
    let found = browser.run(script, &[]).await;
    found.as_str().unwrap_or_default().trim().to_owned()
}

/// Whether what has the focus is seen to have it.
async fn is_marked(browser: &Browser) -> bool {
    let script = "const one = document.activeElement, face = one.querySelector('.box-face'); \
                  const outline = getComputedStyle(one); \
                  return one.matches(':focus-visible') && (face \
                  ? parseFloat(getComputedStyle(face).strokeWidth) >= 3 \
                  : outline.outlineStyle !== 'none' && parseFloat(outline.outlineWidth) >= 2)";
    browser.run(script, &[]).await == Value::Bool(true)
}

/// Goes on until something has the focus.
async fn tab_to(browser: &Browser, wanted: &str) {
    let mut passed = Vec::new();
    for _ in 0..STEPS_MAX {
        browser.press(&[TAB]).await;
        let found = focus(browser).await;
        assert!(is_marked(browser).await, "nothing shows that {found:?} has the focus");
        if found == wanted {
            return;
        }
        passed.push(found);
    }
    panic!("{wanted:?} is not reached, but {passed:?}");
}

#[tokio::test]
async fn everything_is_reached_and_shown_without_a_mouse() {
    let node = Setup::dev().start().await;
    with_words(&node.client()).await;
    let browser = Browser::start().await;
    browser.size(1280, 900).await;
    browser.go(&at(&node, "")).await;
    browser.shows("1 pipeline of dev").await;
    // First of all the way past what is the same everywhere.
    browser.press(&[TAB]).await;
    assert_eq!(focus(&browser).await, "Skip to the content");
    browser.press(&[ENTER]).await;
    browser.until("document.activeElement.id === 'main'").await;
    tab_to(&browser, "word-count").await;
    browser.press(&[ENTER]).await;
    browser.until("document.querySelector('[data-box]') !== null").await;
    // The graph is one stop, and arrows go on from there.
    tab_to(&browser, "ingest").await;
    for (key, expected) in [
        (RIGHT, "stage/split"),
        (RIGHT, "stage/count"),
        (RIGHT, "output/counts"),
        (LEFT, "stage/count"),
        (LEFT, "stage/split"),
    ] {
        browser.press(&[key]).await;
        assert_eq!(focus(&browser).await, expected);
        assert!(is_marked(&browser).await, "{expected}");
    }
    browser.press(&[ENTER]).await;
    browser.until("document.querySelector('.side h2')?.textContent === 'split'").await;
    browser.picture(&picture("keyboard-light")).await;
    // What is read anew does not take the focus away.
    let reads = "performance.getEntriesByType('resource').length";
    let before = browser.run(&format!("return {reads}"), &[]).await;
    browser.until(&format!("{reads} > {before} + 2")).await;
    assert_eq!(focus(&browser).await, "stage/split");
    browser.press(&[ESCAPE]).await;
    browser.until("document.querySelector('.side') === null").await;
    for (keys, place) in [
        (&['2'][..], "#/p/word-count/partitions"),
        (&['3'], "#/p/word-count/outputs"),
        (&['g', 't'], "#/tenant"),
        (&['g', 'n'], "#/node"),
        (&['g', 'd'], "#/deploy"),
        (&['g', 'p'], "#/"),
    ] {
        browser.press(keys).await;
        browser.until(&format!("location.hash === '{place}'")).await;
    }
    nothing_is_wrong(&browser).await;
}

#[tokio::test]
async fn keys_are_listed_and_letters_in_a_field_are_letters() {
    let node = Setup::dev().start().await;
    let browser = Browser::start().await;
    browser.go(&at(&node, "")).await;
    browser.shows("No pipelines yet").await;
    browser.press(&['?']).await;
    browser.until("document.querySelector('dialog')?.open").await;
    browser.shows("tenant: quotas and usage").await;
    // What is behind is not reached while it is open.
    browser.press(&[TAB, TAB, TAB]).await;
    browser.until("document.activeElement.closest('dialog, body') !== null").await;
    browser.press(&[ESCAPE]).await;
    browser.until("document.querySelector('dialog') === null").await;
    browser.press(&['t']).await;
    browser.until("document.documentElement.dataset.theme === 'light'").await;
    browser.press(&['t']).await;
    browser.until("document.documentElement.dataset.theme === 'dark'").await;
    browser.go(&at(&node, "#/deploy")).await;
    browser.write("textarea", "g t ? t 1").await;
    assert_eq!(browser.run("return location.hash", &[]).await, "#/deploy");
    assert_eq!(
        browser.run("return document.querySelector('textarea').value", &[]).await,
        "g t ? t 1"
    );
    nothing_is_wrong(&browser).await;
}
