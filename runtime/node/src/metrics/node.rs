//! Figures of the edge and of the node as a whole.

use super::encode::Row;
use super::{ByWord, Counter, Gauge, Latency};

/// The edge and the node as a whole.
#[derive(Debug, Default)]
pub struct NodeMetrics {
    /// Open connections.
    pub connections: Gauge,
    /// Clients that follow an output.
    pub followers: Gauge,
    /// Sessions that are open.
    pub sessions: Gauge,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections closed by us, by reason.
    pub closed: ByWord,
    /// Partitions moved by the plan.
    pub balanced: Counter,
    /// Bytes of request bodies in memory.
    pub body_bytes: Gauge,
    /// Clients that wait for a result.
    pub waiting: Gauge,
    /// Replies by class of status, index 0 for 1xx.
    pub replies: [Counter; 5],
    /// Time from headers to reply of ingest without waiting.
    pub ingest_latency: Latency,
    /// Time from headers to reply of ingest that waits for a result.
    pub wait_latency: Latency,
}

pub(super) const NODE_ROWS: &[Row<NodeMetrics>] = &[
    Row::gauge("connections", "Open connections", |m| m.connections.get()),
    Row::gauge("followers", "Clients that follow an output", |m| m.followers.get()),
    Row::gauge("sessions", "Streams that are sent over a request", |m| m.sessions.get()),
    Row::counter("connections_accepted", "Connections accepted", |m| m.accepted.get()),
    Row::words("connections_closed", "Closed by the node, by reason", "reason", |m| m.closed.get()),
    Row::counter("partitions_balanced", "Partitions moved by the plan", |m| m.balanced.get()),
    Row::gauge("body_bytes", "Bytes of request bodies in memory", |m| m.body_bytes.get()),
    Row::gauge("waiting", "Clients that wait for a result", |m| m.waiting.get()),
    Row::words("replies", "Replies by class of status", "class", |m| {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        classes.into_iter().zip(&m.replies).map(|(class, count)| (class, count.get())).collect()
    }),
    Row::latency(
        "ingest_seconds",
        "Time from the headers of an ingest request to its reply",
        |m| &m.ingest_latency,
    ),
    Row::latency(
        "result_seconds",
        "Time from the headers of a request that waits for its result to the reply",
        |m| &m.wait_latency,
    ),
];
