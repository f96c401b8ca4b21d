//! What it wants of others, as nodes want it of each other when pipelines move.

use sluicebox_tests::cluster::Cluster;
use sluicebox_tests::peer::Peer;

use super::{NAMES, PIPELINES, TakenOver};

#[tokio::test]
async fn a_node_that_wants_what_it_likes_of_others_takes_nothing_from_them() {
    let mut taken = TakenOver::with(Cluster::of(&NAMES)).await;
    let second = taken.second;
    let under_way = taken.begin().await;
    let peer = Peer::of(&taken.scene.cluster, NAMES[taken.third]);
    let (id, shared) = (taken.words.0, taken.shared.0);
    let preparing = format!("{{\"versions\":[],\"chance\":{:?}}}", [0; 32]);
    let (kept, more) = (&*preparing, "&attempt=1&kept=1");
    let joining = joining(id);
    let pipelines = PIPELINES;
    for at in [second, taken.scene.home] {
        for (line, body) in [
            // Under another name, all that is kept under a number would be removed.
            (format!("POST {pipelines}/other/take?pipeline={id}&kept=1"), ""),
            (format!("POST {pipelines}/other/take?pipeline={shared}&kept=1"), ""),
            (format!("POST {pipelines}/words/take?pipeline={id}&kept=1"), ""),
            // As if it was the home now.
            (format!("POST {pipelines}/words/prepare-part?pipeline={id}"), kept),
            (format!("POST {pipelines}/words/end-part?pipeline={id}"), ""),
            (format!("POST {pipelines}/words/resume-part?pipeline={id}"), ""),
            (format!("POST {pipelines}/words/give-back?pipeline={id}&partitions=2,3"), ""),
            (format!("POST {pipelines}/words/give-back?pipeline={id}&partitions=3,2"), ""),
            (format!("POST {pipelines}/words/take-groups?pipeline={id}&partitions=2{more}"), kept),
            (
                format!("POST {pipelines}/words/take-groups?pipeline={id}&partitions=3,2{more}"),
                kept,
            ),
            (format!("POST {pipelines}/other/take-groups?pipeline={id}&partitions=2{more}"), kept),
            (format!("POST {pipelines}/words/take-changes?pipeline={id}&attempt=1"), ""),
            (format!("POST {pipelines}/words/drop-copied?pipeline={id}&attempt=1"), ""),
            (format!("POST {pipelines}/words/settled?pipeline={id}"), ""),
            (format!("POST {pipelines}/words/join"), &*joining),
            (format!("GET {pipelines}/words/groups?pipeline={id}&partitions=2&from="), ""),
            (format!("GET {pipelines}/words/page?from="), ""),
        ] {
            let told = peer.tell(taken.port(at), &line, body.to_owned()).await;
            assert!(told.is_some(), "{line} is answered");
        }
    }
    under_way.0.goes_on(50).await;
    // What partitions keep is read from the disk.
    let old = taken.scene.nodes.remove(second);
    let setup = taken.scene.again(&old, NAMES[second]);
    drop(old.kill());
    taken.scene.nodes.insert(second, setup.start().await);
    under_way.0.goes_on(50).await;
    taken.ends_well(under_way).await;
}

/// That partitions have come from the home, with nothing behind them: the head behind its length,
/// and no bytes of where the pipeline stands.
fn joining(id: u64) -> String {
    let head =
        format!("{{\"pipeline\":{id},\"partitions\":[2],\"attempt\":1,\"home\":\"{}\"}}", NAMES[0]);
    let length = char::from(u8::try_from(head.len()).expect("it is short"));
    assert!(length.is_ascii());
    format!("{length}\0\0\0{head}\0\0\0\0")
}
