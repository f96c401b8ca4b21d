//! Connections of other nodes: questions, which are served as those of clients are, and links.

use std::fmt::Display;
use std::rc::Rc;

use http::Version;
use sluicebox_link::tls::{Knock, Settings, accept_stream, peer_name};
use tokio_rustls::server::TlsStream;

use super::{Connection, Edge, Socket, Watched};
use crate::cluster::Seldom;
use crate::spread::receive::receive;

/// For what the log says of strangers.
static REFUSED: Seldom = Seldom::new();

/// A connection of another node, on which questions are asked. `None` if it is a link, which is
/// served here to its end, or nobody's.
pub(super) async fn open_of_node(
    edge: &Rc<Edge>,
    connection: &Rc<Connection>,
    stream: Socket,
) -> Option<TlsStream<Watched>> {
    let cluster = edge.node().cluster()?;
    // Strangers are not to take the place of nodes for long.
    let time_max = edge.node().config().cluster.silence_time_max;
    let refused = |error: &dyn Display| {
        edge.node().metrics().node().closed.add("stranger", 1);
        if REFUSED.is_due() {
            tracing::warn!(peer = %connection.peer, %error, "somebody is no node of ours");
        }
    };
    let knock = tokio::time::timeout(time_max, Knock::hear(stream)).await.ok()?.ok()?;
    if knock.wants_link() {
        // Its own bounds are those of links.
        let _in_flight = connection.begin(Version::HTTP_11);
        let taken = tokio::time::timeout(time_max, knock.accept(cluster.identity())).await.ok()?;
        let stream = taken.inspect_err(|error| refused(error)).ok()?;
        if !edge.node().has_started() {
            return None;
        }
        let settings = Settings::default();
        let link = accept_stream(stream, cluster.identity(), settings).await;
        let (from, receiver) = link.inspect_err(|error| refused(error)).ok()?;
        if !edge.welcome(connection, from.clone()) {
            return None;
        }
        tokio::select! {
            biased;
            () = edge.draining() => {}
            () = receive(edge.node().clone(), from, Box::new(receiver)) => {}
        }
        return None;
    }
    let knock = knock.wrap(|inner| {
        let (edge, connection) = (Rc::clone(edge), Rc::clone(connection));
        Watched { inner, edge, connection }
    });
    let taken = tokio::time::timeout(time_max, knock.accept(cluster.identity())).await.ok()?;
    let stream = taken.inspect_err(|error| refused(error)).ok()?;
    match peer_name(stream.get_ref().1, cluster.names()) {
        Ok(name) => edge.welcome(connection, name).then_some(stream),
        Err(error) => {
            refused(&error);
            None
        }
    }
}
