//! `wasi:config`: the stage's settings.

use super::{BUCKETS, say, with};

#[tokio::test]
async fn settings_of_the_manifest_are_those_of_wasi_config() {
    let more = format!("{BUCKETS}\nconfig = {{ name = \"words\", depth = \"3\" }}");
    let (_node, client) = with(&more).await;
    assert_eq!(say(&client, "k", "config name").await, "words");
    assert_eq!(say(&client, "k", "config PATH").await, "none");
    assert_eq!(say(&client, "k", "config-all").await, "depth=3 name=words");
}
