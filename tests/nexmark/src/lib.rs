//! Nexmark: people who put things up for auction and bid for them, and ten questions about that.
//!
//! - `generator` makes the events: the proportions, hot spots and sizes of the reference generator,
//!   each event a function of its number and the seed.
//! - `event` is what an event is, and how it is packed.
//! - `model` answers the queries over a list of events in plain Rust. It knows nothing of windows,
//!   watermarks or stages, and shares no code with them.
//!
//! Used by the tests of `examples/nexmark` and by the bench of that name; the guests of the example
//! read what is packed here with code of their own.

pub mod event;
pub mod generator;
pub mod model;

pub use event::{Auction, Bid, Event, Person, What};
pub use generator::Generator;
