//! Meeting on one machine: who is met, who is not, and what a stranger may do at the socket.

use std::os::unix::net::UnixListener as StdListener;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::contract::{self, within};
use crate::ends::recv;
use crate::tls::tests::{Connections, named, sockets};

fn folder() -> (TempDir, Meeting) {
    let folder = tempfile::tempdir().expect("a folder");
    let meeting = Meeting::new(folder.path().join("meet")).expect("it is ours");
    (folder, meeting)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").mode() & 0o777
}

fn impatient() -> Limits {
    Limits { handshake_time_max: Duration::from_millis(50), ..Limits::default() }
}

type Met = (Result<Option<RingSender>, Error>, Result<(NodeName, RingReceiver), Error>);

/// `a` connects to who is wanted, at the socket of `b`.
async fn meet(offer: Offer, limits: Limits, called: &str) -> Met {
    let (_folder, meeting) = folder();
    let (a, b) = (named("a.node"), named("b.node"));
    let listener = meeting.listen(&b).expect("nobody else does");
    let called = named(called);
    let connects = meeting.connect(&a, &b, offer);
    let greets = async {
        let socket = listener.accept_socket().await.expect("it connects");
        greet(socket, &called, limits).await
    };
    within("both", async { tokio::join!(connects, greets) }).await
}

fn setting<T>(result: Result<T, Error>) -> &'static str {
    match result.err() {
        Some(Error::Setting { what }) => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_nodes_of_a_machine_meet_and_are_linked_by_a_ring() {
    let (sender, greeted) = meet(Offer::default(), Limits::default(), "b.node").await;
    let mut sender = sender.expect("it is taken").expect("it is met");
    let (from, mut receiver) = greeted.expect("it is good");
    assert_eq!(from, named("a.node"));
    contract::send(&mut sender, b"hello").await;
    let packet = within("a packet", recv(&mut receiver)).await;
    assert_eq!(packet, Ok("hello".into()));
}

#[tokio::test]
async fn one_listener_takes_many_links() {
    let (_folder, meeting) = folder();
    let b = named("b.node");
    let listener = meeting.listen(&b).expect("nobody else does");
    for name in ["a.node", "c.node", "a.node"] {
        let name = named(name);
        let connects = meeting.connect(&name, &b, Offer::default());
        let greets = async {
            let socket = listener.accept_socket().await.expect("it connects");
            greet(socket, &b, Limits::default()).await.expect("it is good").0
        };
        let (sender, from) = tokio::join!(connects, greets);
        assert_eq!(from, name);
        assert!(sender.expect("it is taken").is_some());
    }
}

#[tokio::test]
async fn nobody_is_met_where_nobody_listens() {
    let (_folder, meeting) = folder();
    let (a, b) = (named("a.node"), named("b.node"));
    let connects = async |to: &NodeName| {
        let met = meeting.connect(&a, to, Offer::default()).await;
        met.expect("that is no error").is_some()
    };
    assert!(!connects(&b).await, "there is no socket");
    drop(StdListener::bind(meeting.path(&b, "sock")).expect("it is bound"));
    assert!(!connects(&b).await, "nobody listens at the socket");
    let long = named(&["x"; 120].join("."));
    assert!(!connects(&long).await, "nobody can listen there");
    let _what = setting(meeting.listen(&long));
}

#[tokio::test]
async fn a_socket_goes_with_its_listener_and_one_that_a_crash_left_is_replaced() {
    let (_folder, meeting) = folder();
    let b = named("b.node");
    let path = meeting.path(&b, "sock");
    drop(StdListener::bind(&path).expect("it is bound"));
    assert!(path.exists(), "as after a crash");
    let listener = meeting.listen(&b).expect("nobody listens there");
    assert_eq!((mode(&meeting.dir), mode(&path)), (0o700, 0o600));
    let taken = setting(meeting.listen(&b));
    assert_eq!(taken, "another process listens as the node of this name on this machine");
    assert!(path.exists(), "who was refused has removed it");
    let _other = meeting.listen(&named("c.node")).expect("another name");
    drop(listener);
    assert!(!path.exists());
    let _again = meeting.listen(&b).expect("nobody listens any more");
}

#[tokio::test]
async fn what_is_no_socket_is_not_removed() {
    let (_folder, meeting) = folder();
    let b = named("b.node");
    fs::write(meeting.path(&b, "sock"), "precious").expect("it is written");
    assert_eq!(setting(meeting.listen(&b)), "something lies where the socket of the node goes");
    assert_eq!(fs::read(meeting.path(&b, "sock")).expect("it is there"), b"precious");
}

#[test]
fn a_folder_that_others_can_change_is_refused() {
    let (folder, meeting) = folder();
    assert_eq!(Meeting::new(&meeting.dir), Ok(meeting.clone()), "it is there already");
    for mode in [0o770, 0o702] {
        fs::set_permissions(&meeting.dir, Permissions::from_mode(mode)).expect("it is ours");
        let what = setting(Meeting::new(&meeting.dir));
        assert_eq!(what, "others may write to the folder where nodes meet");
    }
    fs::set_permissions(&meeting.dir, Permissions::from_mode(0o755)).expect("it is ours");
    assert!(Meeting::new(&meeting.dir).is_ok(), "others may look");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&meeting.dir, &link).expect("it is made");
    assert_eq!(setting(Meeting::new(&link)), "nodes meet in a folder, and it is none");
    let above = Meeting::new(folder.path().join("no/folder"));
    assert!(matches!(above, Err(Error::Io { .. })), "{above:?}");
    if geteuid().is_root() {
        let others = folder.path().join("others");
        fs::create_dir(&others).expect("it is made");
        std::os::unix::fs::chown(&others, Some(12_345), None).expect("it is given away");
        let what = setting(Meeting::new(&others));
        assert_eq!(what, "the folder where nodes meet is another user's");
    }
}

#[tokio::test]
async fn who_is_not_wanted_and_who_asks_for_too_much_is_told_so() {
    let (sender, greeted) = meet(Offer::default(), Limits::default(), "c.node").await;
    assert_eq!(sender.err(), Some(Error::Refused { why: REFUSALS[2] }));
    assert_eq!(greeted.err(), Some(Error::Peer { why: "it wants b.node".to_owned() }));
    let small = Limits { packet_bytes_max: 1000, ..Limits::default() };
    let (sender, greeted) = meet(Offer::default(), small, "b.node").await;
    assert_eq!(sender.err(), Some(Error::Refused { why: REFUSALS[1] }));
    assert_eq!(greeted.err(), Some(Error::TooLarge { what: "larger packets" }));
    // The ring itself, behind the greeting.
    let small = Limits { ring_bytes_max: 4096, ..Limits::default() };
    let (sender, greeted) = meet(Offer::default(), small, "b.node").await;
    assert!(matches!(sender.err(), Some(Error::Refused { .. })));
    assert!(matches!(greeted.err(), Some(Error::TooLarge { .. })));
}

/// What a stranger says, and how it is answered.
async fn stranger(says: &[u8], limits: Limits) -> (Option<Error>, Vec<u8>) {
    let (mut one, two) = UnixStream::pair().expect("a pair");
    let own = named("b.node");
    let greets = greet(two, &own, limits);
    let speaks = async {
        one.write_all(says).await.expect("it is written");
        let mut answer = Vec::new();
        // It may be cut off with some of what it says unread.
        let _read = one.read_to_end(&mut answer).await;
        answer
    };
    let (greeted, answer) = within("both", async { tokio::join!(greets, speaks) }).await;
    (greeted.err(), answer)
}

fn hello() -> Vec<u8> {
    let (from, to) = (named("a.node"), named("b.node"));
    Hello { from, to, packet_bytes_max: 1000 }.encode()
}

#[tokio::test]
async fn a_stranger_is_refused_whatever_it_says() {
    let garbage = stranger(&[b'x'; 100], impatient()).await;
    assert_eq!(garbage, (Some(Error::Garbage { what: "it does not begin as a link" }), vec![5]));
    let mut newer = hello();
    (newer[8], newer[10]) = (2, 2);
    let (why, answer) = stranger(&newer, impatient()).await;
    assert!(matches!(why, Some(Error::FormatNewer { .. })), "{why:?}");
    assert_eq!(answer, [2]);
    // Behind a good hello comes no ring, but so many bytes.
    let (why, answer) = stranger(&[hello(), vec![7; 100]].concat(), impatient()).await;
    assert_eq!(why, Some(Error::Garbage { what: "what is offered is no ring" }));
    assert_eq!(answer, [1, 4]);
    for length in [0, 8, 31, 32, 40, hello().len()] {
        let (why, _) = stranger(&hello()[..length], impatient()).await;
        assert!(matches!(why, Some(Error::Timeout { .. })), "{length}: {why:?}");
    }
}

#[tokio::test]
async fn a_stranger_that_says_nothing_holds_up_nobody() {
    let (_folder, meeting) = folder();
    let (a, b) = (named("a.node"), named("b.node"));
    let listener = meeting.listen(&b).expect("nobody else does");
    let _silent = UnixStream::connect(meeting.path(&b, "sock")).await.expect("it listens");
    let first = listener.accept_socket().await.expect("it connects");
    let waits = greet(first, &b, impatient());
    let links = async {
        let greets = async {
            let socket = listener.accept_socket().await.expect("it connects");
            greet(socket, &b, Limits::default()).await
        };
        tokio::join!(meeting.connect(&a, &b, Offer::default()), greets)
    };
    let (silent, (sender, greeted)) = tokio::join!(waits, links);
    assert_eq!(silent.err(), Some(Error::Timeout { doing: "its greeting" }));
    assert!(sender.expect("it is taken").is_some() && greeted.is_ok());
}

#[tokio::test]
async fn a_listener_that_does_not_answer_is_given_up() {
    let (_folder, meeting) = folder();
    let (a, b) = (named("a.node"), named("b.node"));
    let listener = meeting.listen(&b).expect("nobody else does");
    let offer = Offer { handshake_time_max: Duration::from_millis(30), ..Offer::default() };
    let silent = meeting.connect(&a, &b, offer).await;
    assert_eq!(silent.err(), Some(Error::Timeout { doing: "greeting it" }));
    let answers = async |answer: &[u8]| {
        // The one before is still in the queue.
        let mut socket = listener.accept_socket().await.expect("it connects");
        while Hello::read(&mut socket).await.is_err() {
            socket = listener.accept_socket().await.expect("it connects");
        }
        socket.write_all(answer).await.expect("it is written");
    };
    let connects = meeting.connect(&a, &b, Offer::default());
    let (met, ()) = tokio::join!(connects, async {
        drop(listener.accept_socket().await);
        answers(&[99]).await;
    });
    assert_eq!(met.err(), Some(Error::Garbage { what: "an answer that does not exist" }));
    let connects = meeting.connect(&a, &b, Offer::default());
    let (met, ()) = tokio::join!(connects, answers(&[]));
    assert_eq!(met.err(), Some(Error::Gone));
}

#[tokio::test]
async fn a_node_that_is_met_is_linked_by_a_ring_and_another_over_the_network() {
    let (_folder, meeting) = folder();
    let Connections { from, to } = Connections::new();
    let b = named("b.node");
    let listener = meeting.listen(&b).expect("nobody else does");
    let never = async { panic!("the network is not needed") };
    let connects = connect(Some(&meeting), never, &from, &b, Settings::default());
    let greets = async {
        let socket = listener.accept_socket().await.expect("it connects");
        greet(socket, &b, Limits::default()).await
    };
    let (linked, greeted) = Box::pin(async { tokio::join!(connects, greets) }).await;
    assert_eq!(linked.expect("it is met").0, Class::Ring);
    assert!(greeted.is_ok());
    drop(listener);
    for meeting in [Some(&meeting), None] {
        let (one, two) = sockets().await;
        let socket = async { Ok(one) };
        let connects = connect(meeting, socket, &from, &b, Settings::default());
        let accepts = tls::accept(two, &to, tls::Settings::default());
        let (linked, accepted) = Box::pin(async { tokio::join!(connects, accepts) }).await;
        let ((class, mut sender), (name, mut receiver)) =
            (linked.expect("it is reached"), accepted.expect("it is trusted"));
        assert_eq!((class, name.as_str()), (Class::Network, "a.node"));
        contract::send(&mut *sender, b"hello").await;
        assert_eq!(within("a packet", recv(&mut receiver)).await, Ok("hello".into()));
    }
    let fails = async { Err(Error::Timeout { doing: "dialling" }) };
    let failed = connect(None, fails, &from, &b, Settings::default()).await;
    assert_eq!(failed.err(), Some(Error::Timeout { doing: "dialling" }));
}

#[test]
fn ways_have_names() {
    assert_eq!([Class::Ring, Class::Network].map(|class| class.to_string()), ["ring", "network"]);
}

#[tokio::test]
async fn a_process_of_another_user_is_refused_at_both_ends() {
    if !geteuid().is_root() {
        // Only root can be somebody else for a while.
        return;
    }
    let pair = std::thread::spawn(|| {
        // Of this thread alone; both ends are then made by that user.
        let other = rustix::process::Uid::from_raw(12_345);
        rustix::thread::set_thread_res_uid(None, other, None).expect("root may");
        std::os::unix::net::UnixStream::pair().expect("a pair")
    });
    let (one, two) = pair.join().expect("it is made");
    let ours = |socket: std::os::unix::net::UnixStream| {
        socket.set_nonblocking(true).expect("it is ours now");
        UnixStream::from_std(socket).expect("a socket")
    };
    let (mut one, two) = (ours(one), ours(two));
    one.write_all(&hello()).await.expect("it is written");
    let greeted = within("an end", greet(two, &named("b.node"), impatient())).await;
    let why = "it runs as user 12345, this node as 0".to_owned();
    assert_eq!(greeted.err(), Some(Error::Peer { why: why.clone() }));
    assert_eq!(one.read_u8().await.expect("an answer"), 4);
    assert_eq!(is_same_user(&one), Err(Error::Peer { why }));
}
