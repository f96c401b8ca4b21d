//! How many places it takes: connections, links, and what is begun on them.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sluicebox_tests::cluster::Cluster;
use sluicebox_tests::eventually::SOON;
use sluicebox_tests::peer::Peer;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{NAMES, RESIDENT_BYTES_MORE, TakenOver, resident};

/// Lets this process have as many connections as it may.
fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the maximum");
}

#[tokio::test]
async fn thousands_of_connections_take_nobodys_place() {
    raise_limit();
    let taken = TakenOver::with(Cluster::of(&NAMES)).await;
    let under_way = taken.begin().await;
    let home = &taken.scene.nodes[taken.scene.home];
    let (address, before) = (taken.at_home().1, resident(home));
    // Each begins a message and never ends it.
    let part = [&[1][..], &vec![7; 1 << 20]].concat();
    let mut links = Vec::new();
    for _ in 0..60 {
        let mut link = taken.liar.wire(taken.at_home()).await.expect("it has a certificate");
        let mut begins = taken.liar.hello(taken.at_home().0);
        for _ in 0..3 {
            begins.extend((part.len() as u32).to_le_bytes());
            begins.extend([1, 0, 0, 0]);
            begins.extend(&part);
        }
        let _said = tokio::time::timeout(SOON, link.write_all(&begins)).await;
        links.push(link);
    }
    // More than all workers take, of which nobody says who it is, and some that say something.
    let mut strangers = Vec::new();
    for number in 0..11_000 {
        let Ok(mut stranger) = TcpStream::connect(address).await else { continue };
        if number % 10 == 0 {
            let _said = stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        }
        strangers.push(stranger);
    }
    let honest = Peer::of(&taken.scene.cluster, NAMES[taken.second]);
    let began = Instant::now();
    let answer = honest.ask(taken.at_home(), "GET /peer/v1/state").await;
    assert_eq!(answer.map(|answer| answer.status), Some(200));
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(5), "a node waited for {waited:?}");
    under_way.0.goes_on(50).await;
    taken.under(before + RESIDENT_BYTES_MORE, taken.scene.home);
    drop((links, strangers));
    taken.ends_well(under_way).await;
}
