//! TLS links over the loopback: the contract, who is who, and what a hostile other end may do.

use std::time::SystemTime;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::authority::Validity;
use super::wire::Head;
use super::*;
use crate::contract::{self, Maker, Pair, Wants, every_promise, within};
use crate::ends::{End, Receiver as _, Refusal, Sender as _, recv};
use crate::error::Part;

mod peers;
mod pem;

/// Signs certificates of nodes.
struct Authority(authority::Authority);

impl Authority {
    fn new() -> Self {
        let validity = Validity::of_days(authority::AUTHORITY_DAYS);
        Self(authority::Authority::new(validity).expect("randomness"))
    }

    fn certificate(&self) -> CertificateDer<'static> {
        let text = self.0.certificate_pem();
        CertificateDer::from_pem_slice(text.as_bytes()).expect("a certificate")
    }

    /// A certificate with a name, and its key.
    fn issue(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        self.issue_for(name, Validity::of_days(authority::NODE_DAYS))
    }

    fn issue_for(
        &self,
        name: &str,
        validity: Validity,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let issued = self.0.issue(&named(name), validity).expect("randomness");
        let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes());
        (certificate.expect("a certificate"), key.expect("a key"))
    }

    /// A node that trusts this authority, or another one.
    fn node(&self, name: &str, trusts: &Self) -> Identity {
        let (certificate, key) = self.issue(name);
        let trusted = [trusts.certificate()];
        Identity::new(named(name), vec![certificate], key, &trusted).expect("it can be used")
    }
}

pub(crate) fn named(name: &str) -> NodeName {
    NodeName::new(name).expect("a name")
}

pub(crate) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (one, two) = tokio::join!(TcpStream::connect(address), listener.accept());
    (one.expect("it listens"), two.expect("it connects").0)
}

type Made = (Result<TlsSender, Error>, Result<(NodeName, TlsReceiver), Error>);

async fn link(from: &Identity, to: &Identity, wants: &str, settings: Settings) -> Made {
    let (one, two) = sockets().await;
    let wants = named(wants);
    tokio::join!(connect(one, from, &wants, settings), accept(two, to, settings))
}

pub(crate) struct Connections {
    pub(crate) from: Identity,
    pub(crate) to: Identity,
}

impl Connections {
    pub(crate) fn new() -> Self {
        let authority = Authority::new();
        Self {
            from: authority.node("a.node", &authority),
            to: authority.node("b.node", &authority),
        }
    }

    async fn pair(&self, settings: Settings) -> (TlsSender, TlsReceiver) {
        let (sender, receiver) = link(&self.from, &self.to, "b.node", settings).await;
        let (name, receiver) = receiver.expect("they know each other");
        assert_eq!(name.as_str(), "a.node");
        (sender.expect("they know each other"), receiver)
    }
}

fn small() -> Settings {
    Settings { packet_bytes_max: 1000, window_bytes: 4096, ..Settings::default() }
}

impl Maker for Connections {
    async fn make(&self, wants: Wants) -> Pair {
        let Wants { packet_bytes_max, buffer_bytes: window_bytes } = wants;
        let settings = Settings { packet_bytes_max, window_bytes, ..Settings::default() };
        let (sender, receiver) = self.pair(settings).await;
        (Box::new(sender), Box::new(receiver))
    }

    fn under_way_bytes_max(&self, wants: Wants) -> usize {
        wants.buffer_bytes
    }
}

#[tokio::test]
async fn a_connection_keeps_every_promise_of_a_link() {
    every_promise(&Connections::new()).await;
}

fn is_untrusted(error: Option<Error>) -> bool {
    // Who is not trusted may find the connection closed before it reads why.
    matches!(error, Some(Error::Peer { .. } | Error::Gone))
}

#[tokio::test]
async fn a_stranger_is_refused_at_both_ends() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (a, b) = (ours.node("a.node", &ours), ours.node("b.node", &ours));
    let stranger = theirs.node("a.node", &ours);
    let (sender, receiver) = link(&stranger, &b, "b.node", small()).await;
    assert!(matches!(receiver.err(), Some(Error::Peer { .. })));
    assert!(is_untrusted(sender.err()));
    let stranger = theirs.node("b.node", &ours);
    let (sender, receiver) = link(&a, &stranger, "b.node", small()).await;
    assert!(matches!(sender.err(), Some(Error::Peer { .. })));
    assert!(is_untrusted(receiver.err()));
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused_at_both_ends() {
    let authority = Authority::new();
    let (a, b) = (authority.node("a.node", &authority), authority.node("b.node", &authority));
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 60 * 60));
    for (from, until) in [(now - 2 * day, now - day), (now + day, now + 2 * day)] {
        let out_of_time = |name: &str| {
            let (certificate, key) = authority.issue_for(name, Validity { from, until });
            Identity::new(named(name), vec![certificate], key, &[authority.certificate()])
        };
        let (sender, receiver) =
            link(&out_of_time("a.node").expect("usable"), &b, "b.node", small()).await;
        assert!(matches!(receiver.err(), Some(Error::Peer { .. })));
        assert!(is_untrusted(sender.err()));
        let (sender, receiver) =
            link(&a, &out_of_time("b.node").expect("usable"), "b.node", small()).await;
        assert!(matches!(sender.err(), Some(Error::Peer { .. })));
        assert!(is_untrusted(receiver.err()));
    }
}

#[tokio::test]
async fn a_node_with_another_name_is_refused() {
    let authority = Authority::new();
    let (a, b) = (authority.node("a.node", &authority), authority.node("b.node", &authority));
    let c = authority.node("c.node", &authority);
    // Whoever answers is not whom the sender wants.
    let (sender, receiver) = link(&a, &c, "b.node", small()).await;
    assert!(matches!(sender.err(), Some(Error::Peer { .. })));
    assert!(is_untrusted(receiver.err()));
    // The sender says a name that its certificate does not have.
    let mut liar = c.clone();
    liar.call_itself(named("a.node"));
    let (sender, receiver) = link(&liar, &b, "b.node", small()).await;
    let Some(Error::Peer { why }) = receiver.err() else { panic!("it was taken") };
    assert!(why.starts_with("it is not a.node"), "{why}");
    let why = "our certificate does not have our name, or it is not whom we want";
    assert_eq!(sender.err(), Some(Error::Refused { why }));
    // A node is told at once that its own certificate is of another.
    let (certificate, key) = authority.issue("c.node");
    let own = Identity::new(named("a.node"), vec![certificate], key, &[authority.certificate()]);
    assert!(matches!(own, Err(Error::Identity { part: Part::Certificate, .. })), "{own:?}");
    for wrong in ["", "a b", "-", "ä", "a..b", "a.", "*.a", "../a", "10.0.0.1", &"a".repeat(254)] {
        assert!(NodeName::new(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn what_the_ends_do_not_agree_on_is_refused_at_both() {
    let connections = Connections::new();
    let tries = async |sender: Settings, receiver: Settings| {
        let (one, two) = sockets().await;
        let to = named("b.node");
        let connects = connect(one, &connections.from, &to, sender);
        let (sender, receiver) = tokio::join!(connects, accept(two, &connections.to, receiver));
        (sender.err(), receiver.err())
    };
    let (sender, receiver) = tries(Settings::default(), small()).await;
    assert_eq!(receiver, Some(Error::TooLarge { what: "larger packets" }));
    assert_eq!(sender, Some(Error::Refused { why: "our packets are larger than it takes" }));
    // The smaller window holds.
    let less = Settings { packet_bytes_max: 100, window_bytes: 1024, ..small() };
    assert_eq!(tries(less, small()).await, (None, None));
    assert_eq!(tries(Settings { window_bytes: 2048, ..small() }, small()).await, (None, None));
    let tight = Settings { packet_bytes_max: 1472, window_bytes: 2048, ..small() };
    assert_eq!(tries(Settings { window_bytes: 8192, ..tight }, tight).await, (None, None));
    let tight = Settings { packet_bytes_max: 1473, window_bytes: 2048, ..small() };
    let (sender, _) = tries(tight, small()).await;
    assert!(matches!(sender, Some(Error::Setting { .. })));
}

#[tokio::test]
async fn an_other_end_that_does_not_answer_is_given_up() {
    let connections = Connections::new();
    let settings = Settings { handshake_time_max: Duration::from_millis(30), ..small() };
    let (one, _two) = sockets().await;
    let silent = connect(one, &connections.from, &named("b.node"), settings).await;
    assert!(matches!(silent.err(), Some(Error::Timeout { .. })));
    let (_one, two) = sockets().await;
    let silent = accept(two, &connections.to, settings).await;
    assert!(matches!(silent.err(), Some(Error::Timeout { .. })));
}

/// A receiver whose other end may say what it likes, behind a good handshake.
async fn victim(
    hello: &[u8],
) -> (Result<TlsReceiver, Error>, tokio_rustls::client::TlsStream<TcpStream>) {
    let connections = Connections::new();
    let (one, two) = sockets().await;
    let attacker = async {
        let connector = TlsConnector::from(connections.from.client(Protocol::Link));
        let to = named("b.node").as_server_name();
        let mut stream = connector.connect(to, one).await.expect("a good certificate");
        stream.write_all(hello).await.expect("it is written");
        stream.flush().await.expect("it is written");
        stream
    };
    let (receiver, stream) = tokio::join!(accept(two, &connections.to, small()), attacker);
    (receiver.map(|(_, receiver)| receiver), stream)
}

/// A client of another protocol that has a certificate of ours, as for the edge.
#[tokio::test]
async fn who_does_not_say_that_it_wants_a_link_is_refused() {
    let connections = Connections::new();
    let (one, two) = sockets().await;
    let stranger = async {
        let mut config = (*connections.from.client(Protocol::Link)).clone();
        config.alpn_protocols.clear();
        let connector = TlsConnector::from(std::sync::Arc::new(config));
        let mut stream = connector.connect(named("b.node").as_server_name(), one).await?;
        stream.write_all(&hello()).await?;
        stream.flush().await?;
        std::io::Result::Ok(stream)
    };
    let (receiver, stranger) = tokio::join!(accept(two, &connections.to, small()), stranger);
    let why = "it does not say that it wants a link".to_owned();
    assert_eq!(receiver.err(), Some(Error::Peer { why }));
    assert!(stranger.is_ok(), "the handshake itself was good: {stranger:?}");
}

fn hello() -> Vec<u8> {
    let (from, to) = (named("a.node"), named("b.node"));
    Hello { from, to, packet_bytes_max: 1000 }.encode()
}

#[tokio::test]
async fn a_hello_that_cannot_be_is_refused() {
    assert!(victim(&hello()).await.0.is_ok());
    let wrong = |at: usize, byte: u8| {
        let mut bytes = hello();
        bytes[at] = byte;
        bytes
    };
    for (at, byte) in [(0, b'X'), (8, 0), (10, 0), (13, 9), (15, 9), (32, b' '), (33, 0xFF)] {
        let refused = victim(&wrong(at, byte)).await.0.err();
        assert!(matches!(refused, Some(Error::Garbage { .. })), "{at}: {refused:?}");
    }
    let mut newer = wrong(8, 2);
    newer[10] = 2;
    let refused = victim(&newer).await.0.err();
    assert!(matches!(refused, Some(Error::FormatNewer { format: 2, .. })), "{refused:?}");
    assert!(victim(&wrong(8, 2)).await.0.is_ok(), "a later one that this version understands");
    let refused = victim(&wrong(38, b'c')).await.0.err();
    assert!(matches!(refused, Some(Error::Peer { .. })), "it wants another node: {refused:?}");
}

#[test]
fn a_hello_has_the_bytes_that_are_documented_and_reads_back() {
    let bytes = hello();
    assert_eq!(bytes[..16], *b"SBXLNK\r\n\x01\0\x01\0\x06\0\x06\0");
    assert_eq!(bytes[16..], *b"\xE8\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0a.nodeb.node");
    assert_eq!(wire::reread_hello(&bytes), Ok(bytes.clone()));
    for length in 0..bytes.len() {
        assert_eq!(wire::reread_hello(&bytes[..length]), Err(Error::Gone), "{length}");
    }
    assert_eq!(Head::Packet(0x0102).encode(), *b"\x02\x01\0\0\x01\0\0\0");
    assert_eq!(Head::Last.encode(), *b"\0\0\0\0\x02\0\0\0");
    assert_eq!(Answer::to(None, 4096).encode(), *b"\x01\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0");
}

#[tokio::test]
async fn a_sender_that_breaks_its_word_is_cut_off() {
    let head = |bytes: usize| Head::Packet(bytes).encode().to_vec();
    // Packets that are too large, more of them than there is room for, and what is no head.
    let more = [head(900), vec![1; 900]].concat().repeat(5);
    let wrongs = [
        head(1001),
        head(0xFFFF_FFFF),
        vec![0; 8],
        vec![1, 0, 0, 0, 2, 0, 0, 0],
        vec![1, 0, 0, 0, 1, 0, 9, 0],
        vec![0, 0, 0, 0, 3, 0, 0, 0],
        more,
    ];
    for wrong in wrongs {
        let (receiver, mut stream) = victim(&hello()).await;
        let mut receiver = receiver.expect("a good hello");
        stream.write_all(&wrong).await.expect("it is written");
        stream.flush().await.expect("it is written");
        let mut packets = 0;
        let end = loop {
            // It is not given out before it is read: the window does not grow meanwhile.
            match within("the end", recv(&mut receiver)).await {
                Ok(packet) => assert!(packet.len() == 900 && packets < 4),
                Err(end) => break end,
            }
            packets += 1;
            within("an end", async {
                while packets == 1 && !receiver.is_over() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        };
        assert!(matches!(end, End::Broken(Error::Garbage { .. })), "{wrong:?}: {end:?}");
    }
    // Cut off inside a packet.
    let (receiver, mut stream) = victim(&hello()).await;
    stream.write_all(&head(100)[..]).await.expect("it is written");
    stream.write_all(&[1; 50]).await.expect("it is written");
    stream.flush().await.expect("it is written");
    drop(stream);
    let end = within("the end", recv(&mut receiver.expect("a good hello"))).await;
    assert_eq!(end, Err(End::Broken(Error::Gone)));
}

#[tokio::test]
async fn a_receiver_that_says_more_than_was_sent_is_cut_off() {
    let connections = Connections::new();
    for tail in [9_u64, 1 << 40, u64::MAX - 1] {
        let (one, two) = sockets().await;
        let attacker = async {
            let acceptor = TlsAcceptor::from(connections.to.server());
            let mut stream = acceptor.accept(two).await.expect("a good certificate");
            Hello::read(&mut stream).await.expect("a good hello");
            let answer = Answer::to(None, 4096).encode();
            stream.write_all(&answer).await.expect("it is written");
            stream.write_all(&tail.to_le_bytes()).await.expect("it is written");
            stream.flush().await.expect("it is written");
            stream
        };
        let to = named("b.node");
        let (sender, mut stream) =
            tokio::join!(connect(one, &connections.from, &to, small()), attacker);
        let mut sender = sender.expect("a good answer");
        let end = within("the end", std::future::poll_fn(|cx| sender.poll_end(cx))).await;
        assert!(matches!(end, End::Broken(Error::Garbage { .. })), "{tail}: {end:?}");
        assert_eq!(sender.try_send(&[]), Err(Refusal::Over(end)));
        // The connection is closed as well.
        let mut rest = Vec::new();
        let _closed = within("its end", stream.read_to_end(&mut rest)).await;
    }
}

#[tokio::test]
async fn batches_of_packets_go_over_the_connection() {
    let connections = Connections::new();
    let settings = Settings::default();
    let (mut sender, mut receiver) = connections.pair(settings).await;
    let sends = async {
        for number in 0..500_usize {
            contract::send(&mut sender, &vec![number as u8; 50_000]).await;
        }
    };
    let receives = async {
        for number in 0..500_usize {
            let packet = within("a packet", recv(&mut receiver)).await.expect("not over");
            assert!(packet == vec![number as u8; 50_000]);
        }
    };
    tokio::join!(sends, receives);
    assert_eq!(receiver.try_recv(), Ok(None));
}
