//! Running guest components: fast when warm, bounded always, isolated per tenant.
//!
//! Two sides. Upload: inspect a component (`component`), compile it in a process of its own
//! (`compile`), keep the artefact (`artefact`). Run: link it (`stage`), instantiate and call it
//! (`instance`, `wasm`), answer its imports (`host`), within permits (`sandbox`).
//!
//! Keeps true: a guest ends within its fuel, memory and stack; what it did in a failed call does
//! not stand; no instance serves two tenants; a trap ends the instance, never the process.
//!
//! Leaves to others: what a GPU is, and how requests get to the outside (`gpu` and `http` are only
//! ports), which call is made when (`sluicebox-core`), whose turn it is (`node`).
//! Knows nothing of partitions, connections or files beyond its artefacts.

pub mod artefact;
mod away;
pub mod compile;
pub mod component;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod error;
mod explain;
pub mod gpu;
mod host;
pub mod http;
mod huge_pages;
pub mod image;
mod instance;
pub mod invoker;
pub mod native;
mod owned;
mod patience;
pub mod sandbox;
mod snapshot;
pub mod stage;
pub mod tuning;
mod typed;
pub mod wasm;
