//! Links: the way of packets from one node to another, which may be another process of the same
//! machine or another machine.
//!
//! - `ends` is the seam: a bounded, ordered channel of packets from one end to another.
//! - `ring` keeps it through memory that two processes of one machine share, `tls` by TCP between
//!   two machines, `sim` inside a test, with the accidents the test chooses.
//! - `way` chooses between the first two, and lets nodes of one machine meet; `message` carries
//!   what is larger than a packet.
//!
//! Keeps true: packets arrive whole and in order, none twice, and none missing before the last that
//! arrived. Nothing waits without a bound, in bytes here and at the other end. Whatever the other
//! end says is copied into memory of our own and then checked; what cannot be ends the link with
//! the reason, and does nothing else.
//!
//! A link promises nothing of what was under way when it ends. It is a cache of the log: the log is
//! what happened, and the numbers in runs tell what came twice or is missing (ADR 0014, ADR 0034).
//!
//! Leaves to others: what is in a packet, who links to whom, and when to link again (`node`).

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod ends;
pub mod error;
pub mod message;
pub mod ring;
#[cfg(any(test, feature = "contract"))]
pub mod sim;
pub mod tls;
pub mod way;

pub use ends::{End, Figures, Receiver, Refusal, Sender, close, recv, room};
pub use error::{Error, Part};
pub use message::{Incoming, Outgoing};
