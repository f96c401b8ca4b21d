//! Durable things: small documents and blobs by key (`catalog`), the log of a node (`log`), and the
//! store that checkpoints move to what the log need not keep (`store`, `dirty`, `checkpoint`).
//!
//! Keeps true: what was acknowledged is read back or reported as damaged, never silently changed;
//! a write is there whole or not at all; no process shares a directory with another; nothing
//! outside the directory that was opened is ever touched.
//!
//! All calls block: the node makes them from its blocking pool, never from a worker.
//!
//! Leaves to others: what documents, records and entries mean (`core`, `node`). This crate does not
//! know stages or events.

pub mod catalog;
pub mod checkpoint;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod dir;
pub mod dirty;
pub mod error;
pub mod header;
pub mod key;
pub mod log;
pub mod memory;
pub mod priority;
pub mod store;

pub use catalog::Catalog;
pub use error::Error;
pub use store::Store;
