//! The command as people meet it: what it says, what it sends, what it exits with.
//!
//! Every test runs the built program in an empty directory and an empty environment. Where a node
//! is needed, one stands in that gives canned answers and remembers what it was asked; `serve` runs
//! a real one. Pipelines on real nodes are in the end-to-end tests.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod certs;
mod errors;
mod help;
mod log;
mod project;
mod serve;
mod stream;
mod support;
mod traffic;
