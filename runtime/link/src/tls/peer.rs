//! Connections between nodes that carry no packets: another protocol, `sluicebox-peer`, with the
//! certificates and the trust of links.
//!
//! - Both ends verify the other's chain against the authority. Who connects wants a name in the
//!   other's certificate; who accepts takes the name from it: of the nodes it knows, the first
//!   whose name is there. Nothing that the other end says is believed for that. Our own
//!   certificates have one name; of one with several, the order of the known decides.
//! - The handshake agrees on the protocol. Who wants a link is refused here, and the other way
//!   round.
//! - The handshake has a bound, and the system gives up a machine that does not answer any more, as
//!   with links; of the settings only these two count.
//!
//! Leaves to the caller: what is said, and every bound on it. With TLS 1.3 whoever connects is told
//! that its certificate was not taken, or that it is not known there, only by its first read.

use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use rustls::CommonState;

use super::identity::{self, Identity, NodeName, Protocol};
use super::{Settings, handshake, in_time, prepare};
use crate::error::Error;

/// Connects to the node of this name, on a connection that was just made.
///
/// # Errors
/// The settings, the system, or that the other end cannot show who it is.
pub async fn peer_connect(
    socket: TcpStream,
    identity: &Identity,
    to: &NodeName,
    settings: Settings,
) -> Result<client::TlsStream<TcpStream>, Error> {
    settings.check()?;
    prepare(&socket, &settings)?;
    in_time(&settings, "greeting it", async {
        let connector = TlsConnector::from(identity.client(Protocol::Peer));
        let stream = connector.connect(to.as_server_name(), socket).await.map_err(handshake)?;
        // A server that knows no protocols agrees on none, and is no node.
        identity::speaks(stream.get_ref().1, Protocol::Peer)?;
        Ok(stream)
    })
    .await
}

/// Takes a connection from one of the known nodes, one that was just accepted. Gives the name,
/// which its certificate has.
///
/// # Errors
/// The settings, the system, or that the other end cannot show that it is one of them.
pub async fn peer_accept(
    socket: TcpStream,
    identity: &Identity,
    known: &[NodeName],
    settings: Settings,
) -> Result<(NodeName, server::TlsStream<TcpStream>), Error> {
    settings.check()?;
    prepare(&socket, &settings)?;
    in_time(&settings, "its greeting", async {
        let stream = peer_acceptor(identity).accept(socket).await.map_err(handshake)?;
        let name = peer_name(stream.get_ref().1, known)?;
        Ok((name, stream))
    })
    .await
}

/// What takes the handshake of a node on a connection of any kind; [`peer_name`] then says whose it
/// is. For who watches a connection below TLS; all its bounds are the caller's.
#[must_use]
pub fn peer_acceptor(identity: &Identity) -> TlsAcceptor {
    TlsAcceptor::from(identity.server())
}

/// Which of the known nodes has made this handshake.
///
/// # Errors
/// It speaks something else, or its certificate has none of the names.
pub fn peer_name(connection: &CommonState, known: &[NodeName]) -> Result<NodeName, Error> {
    identity::speaks(connection, Protocol::Peer)?;
    identity::name_in_certificate(connection, known)
}
