//! The other end of trunks: links that other nodes make to this one.
//!
//! A node has one: a newer ends the older, which may be all that is left of one that broke. So what
//! is begun and not whole, and what is sent and not looked at, is bounded by the nodes there are,
//! whatever they do.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sluicebox_link::ring::Limits;
use sluicebox_link::tls::NodeName;
use sluicebox_link::way::{self, Meeting, RingListener};
use sluicebox_link::{End, Error, Incoming, Receiver};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::arrivals::MESSAGE_BYTES_MAX;
use crate::cluster::Seldom;
use crate::node::Node;

/// How long to wait when the system has no more file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Nodes of this machine that are greeted at a time.
const GREETED_MAX: usize = 64;

/// Takes what comes by a link, until it is over.
pub(crate) async fn receive(node: Arc<Node>, from: NodeName, receiver: Box<dyn Receiver>) {
    let Some(number) = node.trunks().number_of(from.as_str()) else {
        tracing::warn!(node = %from, "a link of somebody who is no node of ours");
        return;
    };
    let Some(trunk) = node.trunks().get(number) else { return };
    let mut newer = pin!(trunk.is_linked_anew());
    let mut incoming = Incoming::new(receiver, MESSAGE_BYTES_MAX);
    loop {
        let heard = tokio::select! {
            biased;
            () = &mut newer => {
                tracing::debug!(node = %from, "a link of a node gave way to a newer one");
                incoming.close();
                return;
            }
            heard = incoming.next() => heard,
        };
        match heard {
            Ok(message) => {
                if let Err(why) = node.heard(number, &message) {
                    trunk.peer().is_wrong(&why);
                    incoming.close();
                    return;
                }
            }
            Err(End::Broken(why @ (Error::Garbage { .. } | Error::TooLarge { .. }))) => {
                trunk.peer().is_wrong(&why.to_string());
                return;
            }
            Err(end) => {
                tracing::debug!(node = %from, ?end, "a link of a node ended");
                return;
            }
        }
    }
}

/// Takes links of the nodes of this machine, for as long as this one runs.
pub(crate) async fn meet(node: Arc<Node>, meeting: Arc<Meeting>) {
    let Some(own) = node.cluster().map(|own| own.name().clone()) else { return };
    let listener = match meeting.listen(&own) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "no node of this machine can be met (cluster.meeting-dir)");
            return;
        }
    };
    let greeted = Arc::new(Semaphore::new(GREETED_MAX));
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_ended) = links.join_next(), if !links.is_empty() => {}
            (place, socket) = accept(&listener, &greeted) => {
                let (node, own) = (node.clone(), own.clone());
                links.spawn_local(async move {
                    let met = way::greet(socket, &own, Limits::default()).await;
                    drop(place);
                    match met {
                        Ok((from, receiver)) => receive(node, from, Box::new(receiver)).await,
                        Err(error) => is_no_node(&node, &error),
                    }
                });
            }
        }
    }
}

/// Counts somebody who came by the folder and is no node, and says so.
fn is_no_node(node: &Node, error: &Error) {
    static SAID: Seldom = Seldom::new();
    node.metrics().node().closed.add("stranger", 1);
    if SAID.is_due() {
        tracing::warn!(%error, "somebody met is no node of ours");
    }
}

/// The next that connects, once there is a place for it among those that are greeted.
async fn accept(
    listener: &RingListener,
    greeted: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, tokio::net::UnixStream) {
    let place = greeted.clone().acquire_owned().await.expect("nobody closes it");
    loop {
        match listener.accept_socket().await {
            Ok(socket) => return (place, socket),
            Err(error) => {
                tracing::warn!(%error, "no link of this machine can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
