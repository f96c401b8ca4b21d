//! The vocabulary and the decisions of sluicebox; nothing here waits, sleeps, reads or writes.
//!
//! Keeps true: no async, no I/O, no clock, no randomness, no unsafe code, no hash-map iteration
//! order in any result. Time, seeds and limits are arguments. Equal inputs give equal outputs on
//! every machine, so that the same code serves the live system, the recovery and the simulation.
//!
//! Leaves to others: running guests (`engine`), keeping bytes (`store`), moving them and talking
//! to the outside (`node`).

pub mod bill;
pub mod codec;
pub mod dedup;
pub mod error;
pub mod frame;
pub mod ids;
pub mod image;
pub mod json_key;
pub mod key;
pub mod layer;
pub mod limits;
pub mod manifest;
pub mod message;
pub mod numbering;
pub mod origin;
pub mod partition;
pub mod pipeline;
pub mod placement;
pub mod plan;
pub mod position;
pub mod quota;
pub mod recovery;
pub mod replayed;
pub mod scaling;
pub mod segment;
pub mod state;
pub mod timers;
