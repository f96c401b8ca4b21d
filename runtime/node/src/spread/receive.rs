//! The other end of trunks: links that other nodes make to this one.

use std::sync::Arc;
use std::time::Duration;

use sluicebox_link::ring::Limits;
use sluicebox_link::tls::NodeName;
use sluicebox_link::way::{self, Meeting, RingListener};
use sluicebox_link::{Incoming, Receiver};
use tokio::task::JoinSet;

use super::arrivals::MESSAGE_BYTES_MAX;
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
    let mut incoming = Incoming::new(receiver, MESSAGE_BYTES_MAX);
    loop {
        match incoming.next().await {
            Ok(message) => {
                if let Err(why) = node.heard(number, &message) {
                    tracing::warn!(node = %from, why, "a node says what it may not; its link ends");
                    incoming.close();
                    return;
                }
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
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_ended) = links.join_next(), if !links.is_empty() => {}
            socket = accept(&listener), if links.len() < GREETED_MAX => {
                let (node, own) = (node.clone(), own.clone());
                links.spawn_local(async move {
                    match way::greet(socket, &own, Limits::default()).await {
                        Ok((from, receiver)) => receive(node, from, Box::new(receiver)).await,
                        Err(error) => tracing::warn!(%error, "somebody met is no node of ours"),
                    }
                });
            }
        }
    }
}

async fn accept(listener: &RingListener) -> tokio::net::UnixStream {
    loop {
        match listener.accept_socket().await {
            Ok(socket) => return socket,
            Err(error) => {
                tracing::warn!(%error, "no link of this machine can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
