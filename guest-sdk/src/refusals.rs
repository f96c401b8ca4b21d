//! What the attributes and the compiler refuse, as documentation tests; nothing else is here.
//!
//! A stage function has one of three forms:
//!
//! ```compile_fail,E0277
//! #[sluicebox_guest::stage]
//! fn wrong(text: &str, out: &mut sluicebox_guest::Output) {}
//! # fn main() {}
//! ```
//!
//! and is not async; that is what stream functions are:
//!
//! ```compile_fail
//! #[sluicebox_guest::stage]
//! async fn wrong(events: sluicebox_guest::EventStream, out: sluicebox_guest::StreamOutput) {}
//! # fn main() {}
//! ```
//!
//! ```compile_fail
//! #[sluicebox_guest::stream]
//! fn wrong(event: sluicebox_guest::Event<'_>, out: &mut sluicebox_guest::Output) {}
//! # fn main() {}
//! ```
//!
//! It has no type parameters, and neither has the attribute:
//!
//! ```compile_fail
//! #[sluicebox_guest::stage]
//! fn wrong<T: Default>(event: sluicebox_guest::Event<'_>, out: &mut sluicebox_guest::Output) {}
//! # fn main() {}
//! ```
//!
//! ```compile_fail
//! #[sluicebox_guest::stage(ports = 2)]
//! fn wrong(event: sluicebox_guest::Event<'_>, out: &mut sluicebox_guest::Output) {}
//! # fn main() {}
//! ```
//!
//! It stands on a function:
//!
//! ```compile_fail
//! #[sluicebox_guest::stage]
//! struct Wrong;
//! # fn main() {}
//! ```
//!
//! An event cannot be kept from one call, or one turn of a stream, to the next:
//!
//! ```compile_fail,E0499
//! # use sluicebox_guest::{EventStream, StreamOutput};
//! #[sluicebox_guest::stream]
//! async fn wrong(mut events: EventStream, mut out: StreamOutput) {
//!     let first = events.next().await.unwrap();
//!     let second = events.next().await.unwrap();
//!     out.emit(first.payload());
//! }
//! # fn main() {}
//! ```
//!
//! The same with one event at a time is right:
//!
//! ```
//! # use sluicebox_guest::{EventStream, StreamOutput};
//! #[sluicebox_guest::stream]
//! async fn right(mut events: EventStream, mut out: StreamOutput) {
//!     while let Some(event) = events.next().await {
//!         out.emit(event.payload());
//!     }
//! }
//! # fn main() {}
//! ```
