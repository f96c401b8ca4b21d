//! The edge: routes, limits, shutdown.
//!
//! - Each worker serves its own connections, on its own thread, with hyper directly. Ingest,
//!   outputs and results are matched by hand; everything else goes to a router.
//! - Every request is authorised before anything about its tenant is said: a wrong token is told
//!   so, another tenant's names do not exist.
//! - Nothing a client does is unbounded: headers, bodies, connections, streams, waits, and the time
//!   each of them may take.
//! - Errors leave as problem documents with a stable code (`respond` is the only mapping).
//!
//! Leaves to others: what a pipeline does with events (`running`, `worker`), who the tenants are
//! (`tenants`), what may be applied (`deploy`).

mod api;
mod auth;
mod bill;
mod body;
mod coding;
mod connection;
mod control;
mod dashboard;
mod deadline;
mod home;
mod ingest;
mod logs;
mod openapi;
mod outputs;
mod pass;
mod peers;
mod replay;
mod respond;
mod route;
mod server;
mod session;
#[cfg(test)]
mod tests;
mod text;
mod tls;

pub(crate) use ingest::feed;
pub(crate) use outputs::{Renderer, Source as Shown};
pub use server::listen;
pub(crate) use server::serve;
pub(crate) use server::{Listener, Listeners};
pub(crate) use text::{holds_json, parse_rfc3339};
pub(crate) use tls::Tls;
