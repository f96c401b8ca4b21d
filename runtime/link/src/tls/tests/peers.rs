//! Connections of the other protocol: who is who, and that neither is taken for a link.

use super::*;

type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;
type ServerStream = TlsStream<TcpStream>;
type Spoken = (Result<ClientStream, Error>, Result<(NodeName, ServerStream), Error>);

/// One node speaks to another that knows these.
async fn speak(from: &Identity, to: &Identity, wants: &str, known: &[&str]) -> Spoken {
    let (one, two) = sockets().await;
    let wants = named(wants);
    let known: Vec<NodeName> = known.iter().map(|name| named(name)).collect();
    tokio::join!(peer_connect(one, from, &wants, small()), peer_accept(two, to, &known, small()))
}

fn peer_error<T>(result: Result<T, Error>) -> String {
    let Some(Error::Peer { why }) = result.err() else { panic!("it was taken") };
    why
}

#[tokio::test]
async fn two_nodes_speak_and_each_knows_who_the_other_is() {
    let Connections { from, to } = Connections::new();
    let known = ["c.node", "a.node", "b.node"];
    let (client, server) = speak(&from, &to, "b.node", &known).await;
    let mut client = client.expect("they know each other");
    let (name, mut server) = server.expect("they know each other");
    assert_eq!(name, named("a.node"));
    let asks = async {
        client.write_all(b"ping").await.expect("it is written");
        client.flush().await.expect("it is written");
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await.expect("an answer");
        answer
    };
    let answers = async {
        let mut question = [0; 4];
        server.read_exact(&mut question).await.expect("a question");
        server.write_all(b"pong").await.expect("it is written");
        server.flush().await.expect("it is written");
        question
    };
    let (answer, question) = within("both", async { tokio::join!(asks, answers) }).await;
    assert_eq!((&question, &answer), (b"ping", b"pong"));
}

#[tokio::test]
async fn a_node_that_is_not_known_is_refused() {
    let Connections { from, to } = Connections::new();
    for known in [&["b.node", "c.node"][..], &[]] {
        let (client, server) = speak(&from, &to, "b.node", known).await;
        let why = "its certificate has the name of no node that is known here";
        assert_eq!(peer_error(server), why);
        // Its own handshake was over; it finds the connection closed.
        let mut rest = Vec::new();
        let read = client.expect("a handshake").read_to_end(&mut rest).await;
        assert!(read.is_err() || rest.is_empty());
    }
}

#[tokio::test]
async fn who_answers_with_another_name_is_refused() {
    let Connections { from, to } = Connections::new();
    let (client, server) = speak(&from, &to, "c.node", &["a.node"]).await;
    assert!(peer_error(client).contains("c.node"));
    assert!(is_untrusted(server.err()));
}

#[tokio::test]
async fn a_peer_of_another_authority_is_refused_at_both_ends() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (a, b) = (ours.node("a.node", &ours), ours.node("b.node", &ours));
    let stranger = theirs.node("a.node", &ours);
    let (client, server) = speak(&stranger, &b, "b.node", &["a.node"]).await;
    assert!(matches!(server.err(), Some(Error::Peer { .. })));
    // What it reads first says so.
    let read = client.expect("its part of the handshake").read(&mut [0]).await;
    assert!(read.is_err());
    let stranger = theirs.node("b.node", &ours);
    let (client, server) = speak(&a, &stranger, "b.node", &["a.node"]).await;
    assert!(matches!(client.err(), Some(Error::Peer { .. })));
    assert!(is_untrusted(server.err()));
}

#[tokio::test]
async fn a_link_is_not_taken_for_a_peer_nor_a_peer_for_a_link() {
    let Connections { from, to } = Connections::new();
    let (b, known) = (named("b.node"), [named("a.node")]);
    let (one, two) = sockets().await;
    let links = connect(one, &from, &b, small());
    let (sender, server) = tokio::join!(links, peer_accept(two, &to, &known, small()));
    assert_eq!(peer_error(server), "it does not say that it wants to speak as a peer");
    assert!(sender.is_err());
    // It says nothing behind the handshake, and is refused at once all the same.
    let (one, two) = sockets().await;
    let patient = Settings { handshake_time_max: Duration::from_secs(3600), ..small() };
    let speaks = peer_connect(one, &from, &b, small());
    let both = async { tokio::join!(speaks, accept(two, &to, patient)) };
    let (_stream, receiver) = Box::pin(within("a refusal", both)).await;
    assert_eq!(peer_error(receiver), "it does not say that it wants a link");
}

#[tokio::test]
async fn a_server_that_agrees_on_no_protocol_is_refused() {
    let Connections { from, to } = Connections::new();
    let (one, two) = sockets().await;
    let mut config = (*to.server()).clone();
    config.alpn_protocols.clear();
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
    let b = named("b.node");
    let (client, server) =
        tokio::join!(peer_connect(one, &from, &b, small()), acceptor.accept(two));
    assert_eq!(peer_error(client), "it does not say that it wants to speak as a peer");
    assert!(server.is_ok(), "the handshake itself was good");
}

#[tokio::test]
async fn a_peer_that_does_not_answer_is_given_up() {
    let Connections { from, to } = Connections::new();
    let settings = Settings { handshake_time_max: Duration::from_millis(30), ..small() };
    let (one, _two) = sockets().await;
    let silent = peer_connect(one, &from, &named("b.node"), settings).await;
    assert!(matches!(silent.err(), Some(Error::Timeout { .. })));
    let (_one, two) = sockets().await;
    let silent = peer_accept(two, &to, &[named("a.node")], settings).await;
    assert!(matches!(silent.err(), Some(Error::Timeout { .. })));
}

#[tokio::test]
async fn the_system_watches_the_connection_of_a_peer() {
    let Connections { from, to } = Connections::new();
    let (client, server) = speak(&from, &to, "b.node", &["a.node"]).await;
    let (client, server) = (client.expect("a peer"), server.expect("a peer").1);
    for socket in [client.get_ref().0, server.get_ref().0] {
        assert!(sockopt::tcp_nodelay(socket).expect("an option"));
        assert!(sockopt::socket_keepalive(socket).expect("an option"));
        let silence = small().silence_time_max.as_millis();
        let set = sockopt::tcp_user_timeout(socket).expect("an option");
        assert_eq!(u128::from(set), silence);
    }
}

/// One port for both: what the node that accepted took it for, and the name it found.
async fn one_port(accepting: &Identity, socket: TcpStream) -> (bool, NodeName) {
    let knock = Knock::hear(socket).await.expect("it speaks TLS");
    let wants_link = knock.wants_link();
    if !wants_link {
        // What looks after the connection need not be what a link takes.
        let stream = knock.wrap(Box::new).accept(accepting).await.expect("it is trusted");
        assert!(!speaks_link(stream.get_ref().1));
        let name = peer_name(stream.get_ref().1, &[named("a.node")]);
        return (false, name.expect("it is known"));
    }
    let stream = knock.accept(accepting).await.expect("it is trusted");
    assert!(speaks_link(stream.get_ref().1));
    let (name, mut receiver) =
        accept_stream(stream, accepting, small()).await.expect("a good hello");
    assert_eq!(within("a packet", recv(&mut receiver)).await, Ok("packet".into()));
    (true, name)
}

#[tokio::test]
async fn one_port_serves_links_and_peers() {
    let Connections { from, to } = Connections::new();
    let b = named("b.node");
    let (one, two) = sockets().await;
    let links = async {
        let mut sender = connect(one, &from, &b, small()).await.expect("it is taken");
        contract::send(&mut sender, b"packet").await;
        sender
    };
    let both = async { tokio::join!(links, one_port(&to, two)) };
    let (_sender, found) = Box::pin(within("a link", both)).await;
    assert_eq!(found, (true, named("a.node")));
    let (one, two) = sockets().await;
    let speaks = peer_connect(one, &from, &b, small());
    let both = async { tokio::join!(speaks, one_port(&to, two)) };
    let (stream, found) = Box::pin(within("a peer", both)).await;
    assert_eq!(found, (false, named("a.node")));
    assert!(stream.is_ok());
}

#[tokio::test]
async fn who_speaks_no_tls_is_not_heard_and_a_peer_is_no_link() {
    let Connections { from, to } = Connections::new();
    let (mut one, two) = sockets().await;
    one.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is written");
    assert!(within("an end", Knock::hear(two)).await.is_err());
    let (one, two) = sockets().await;
    let b = named("b.node");
    let accepts = async {
        let stream = peer_acceptor(&to).accept(two).await.expect("it is trusted");
        accept_stream(stream, &to, small()).await
    };
    let (_stream, receiver) =
        Box::pin(async { tokio::join!(peer_connect(one, &from, &b, small()), accepts) }).await;
    assert_eq!(peer_error(receiver), "it does not say that it wants a link");
}
