//! Following an exactly-once output through kills: each result is seen once, whoever breaks off.

use sluicebox_tests::client::{Client, TENANT};
use sluicebox_tests::follow::follow;
use sluicebox_tests::node::Setup;

use super::{COUNTS, all_counts, count, with_words};

const ROUNDS: usize = 4;
const WORDS: usize = 200;

#[tokio::test]
async fn each_result_is_followed_once_through_kills() {
    let mut node = Setup::dev().start().await;
    with_words(&node.client()).await;
    let mut seen = Vec::new();
    let mut last: Option<String> = None;
    for round in 0..ROUNDS {
        let client: Client = node.client_of(TENANT, None);
        let text: Vec<String> = (0..WORDS).map(|n| format!("w{}", n * 7 % 50)).collect();
        client.send("words", "", &[("content-type", "text/plain")], text.join(" ")).await.is(202);
        let path = client.path(&format!("pipelines/words/{COUNTS}"));
        let headers = last.as_deref().map(|last| ("last-event-id", last));
        let stream = follow((node.address(), false), &path, headers.as_slice()).await;
        let mut stream = stream.expect("a stream: cursors outlive the node");
        let wanted = if round + 1 == ROUNDS { ROUNDS * WORDS } else { seen.len() + WORDS / 3 };
        while seen.len() < wanted {
            seen.push(stream.next().await.expect("it goes on"));
        }
        // In the middle of it, with more on its way.
        let home = node.kill();
        while let Ok(Some(event)) = stream.try_next().await {
            seen.push(event);
        }
        last.clone_from(&stream.last_id);
        node = Setup::dev().home(&home).start().await;
    }
    let mut followed: Vec<_> = seen.iter().map(|event| count(&event.data)).collect();
    let mut kept = all_counts(&node.client()).await;
    let place = |count: &super::Count| (count.partition, count.offset);
    followed.sort_by_key(place);
    kept.sort_by_key(place);
    assert_eq!(kept.len(), ROUNDS * WORDS);
    assert_eq!(followed, kept, "each once, and none besides");
}
