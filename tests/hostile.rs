//! Guests that mean harm: each ends in a clear error for its owner, within its bounds, and nobody
//! else notices.
//!
//! - In the engine: every guest of `tests/guests/hostile`, with small limits, alone and beside a
//!   good stage on the same thread.
//! - Through the real program: the same beside a good tenant, over HTTP.
//! - A guest that is added to the folder and not to the table here fails the suite.

#[path = "hostile/engine.rs"]
mod engine;
#[path = "hostile/node.rs"]
mod node;
