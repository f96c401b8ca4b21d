//! Figures of the other nodes of the cluster.

use std::sync::Arc;

use super::encode::Row;
use super::{Counter, Gauge};

/// One other node.
#[derive(Debug, Default)]
pub struct PeerMetrics {
    /// 1 while it is reached.
    pub up: Gauge,
    /// Requests of clients that were passed on to it.
    pub passed: Counter,
    /// Time of the last question and its answer.
    pub round_trip_micros: Gauge,
    /// Links of its that were ended for what it said.
    pub wrong: Counter,
    /// Its connections that were more than its share.
    pub refused: Counter,
    /// What goes there by links, through memory and by the network.
    pub links: [Arc<LinkMetrics>; 2],
}

/// What went by links of one way.
#[derive(Debug, Default)]
pub struct LinkMetrics {
    /// Messages, of which each has one run or one answer.
    pub messages: Counter,
    /// Their bytes.
    pub bytes: Counter,
}

/// The words for the ways of links, in the order of [`PeerMetrics::links`].
pub(super) const WAYS: [&str; 2] = ["ring", "network"];

pub(super) const LINK_ROWS: &[Row<LinkMetrics>] = &[
    Row::counter("link_messages", "Messages sent to the node by links", |m| m.messages.get()),
    Row::counter("link_bytes", "Bytes of messages sent to the node by links", |m| m.bytes.get()),
];

pub(super) const PEER_ROWS: &[Row<PeerMetrics>] = &[
    Row::gauge("peer_up", "1 while the node is reached", |m| m.up.get()),
    Row::counter("peer_passed", "Requests passed on to the node", |m| m.passed.get()),
    Row::counter("peer_wrong", "Links of the node ended for what it said", |m| m.wrong.get()),
    Row::counter("peer_refused", "Connections of the node beyond its share", |m| m.refused.get()),
    Row::seconds("peer_round_trip_seconds", "Time of the last question and its answer", |m| {
        m.round_trip_micros.get() as f64 / 1e6
    }),
];
