//! The dashboard in a real browser, against the real program: every view is clicked through.
//!
//! - Nothing is logged by the browser that is not expected: no error, no violation of the policy.
//! - Pictures of all views, light and dark, wide and narrow, are left in `target/dashboard`, for
//!   people to look at.
//! - What others have written, in payloads, keys and messages, stays text.
//!
//! Leaves to others: headers and tags of single files (`node/http/dashboard`), what the interface
//! answers (`api`).

#[path = "dashboard/costs.rs"]
mod costs;
#[path = "dashboard/deploys.rs"]
mod deploys;
#[path = "dashboard/keyboard.rs"]
mod keyboard;
#[path = "dashboard/logs.rs"]
mod logs;
#[path = "dashboard/shows.rs"]
mod shows;
#[path = "dashboard/signs_in.rs"]
mod signs_in;

use std::path::PathBuf;

use sluicebox_tests::browser::Browser;
use sluicebox_tests::client::Client;
use sluicebox_tests::node::Node;

/// A place on the dashboard of a node.
fn at(node: &Node, place: &str) -> String {
    format!("{}/dashboard/{place}", node.url())
}

/// Words are counted, and events that a stage could not handle are there.
async fn with_words(client: &Client) {
    for guest in ["word-count-split", "word-count-count"] {
        client.push(guest).await;
    }
    let manifest = sluicebox_tests::root().join("examples/word-count/pipeline.toml");
    client.apply("word-count", std::fs::read_to_string(manifest).expect("an example")).await;
    say(client, "to be or not to be").await;
    client.records("word-count", "outputs/counts", 6).await;
}

/// Sends a line of words.
async fn say(client: &Client, line: &str) {
    let headers = [("content-type", "text/plain")];
    client.send("word-count", "", &headers, line.to_owned()).await.is(202);
}

/// Where pictures go.
fn picture(name: &str) -> PathBuf {
    let folder = sluicebox_tests::root().join("target/dashboard");
    std::fs::create_dir_all(&folder).expect("target can be written");
    folder.join(format!("{name}.png"))
}

/// Fails if the browser had anything to say.
async fn nothing_is_wrong(browser: &Browser) {
    let logged = browser.logged().await;
    assert!(logged.is_empty(), "{logged:#?}");
}
