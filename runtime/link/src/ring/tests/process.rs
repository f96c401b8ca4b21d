//! Two real processes: this test runs itself again as the other end.

use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use super::*;

/// Where the other process finds its socket; unset in the first.
const SOCKET: &str = "SLUICEBOX_LINK_TEST_SOCKET";

/// The other process. Nothing is to be seen of it in the first.
#[test]
fn the_other_process() {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let socket = UnixStream::connect(path).expect("the first process listens");
        let mut sender = offer(socket, small()).await.expect("it is taken");
        // Until it is killed, or the first process wants no more.
        for number in 0_u64.. {
            loop {
                match sender.try_send(&[&number.to_le_bytes(), &[7; 100]]) {
                    Ok(()) => break,
                    Err(Refusal::Full) => {
                        if room(&mut sender).await.is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
        }
    });
}

async fn other_process() -> (Child, RingReceiver) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "ring::tests::process::the_other_process"])
        .env(SOCKET, &path)
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs");
    let (socket, _) = listener.accept().expect("the other process connects");
    (child, accept(socket, Limits::default()).await.expect("it is good"))
}

async fn receive(receiver: &mut RingReceiver, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let packet = within("a packet", recv(receiver)).await.expect("not over");
        assert_eq!(packet.len(), 108);
        assert_eq!(packet[..8], number.to_le_bytes());
    }
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_whole_packets_and_a_broken_link() {
    let (mut child, mut receiver) = other_process().await;
    receive(&mut receiver, 0..1000).await;
    child.kill().expect("it is killed");
    child.wait().expect("it is over");
    let mut number = 1000;
    let end = loop {
        match within("the end", recv(&mut receiver)).await {
            Ok(packet) => assert_eq!(packet[..8], u64::to_le_bytes(number)),
            Err(end) => break end,
        }
        number += 1;
    };
    assert_eq!(end, End::Broken(Error::Gone));
}

#[tokio::test]
async fn a_process_is_told_that_nothing_more_is_wanted() {
    let (mut child, mut receiver) = other_process().await;
    receive(&mut receiver, 0..100).await;
    receiver.close();
    let ended = tokio::task::spawn_blocking(move || child.wait());
    let ended = within("its end", ended).await.expect("no panic").expect("it ends");
    assert!(ended.success());
}
