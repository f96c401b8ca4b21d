//! The bill: what was used, by whom and when, and what it costs.
//!
//! ```text
//! a node's books ─► a tenant's account ─► its pipelines ─► their stages ─► hours, days, months
//! ```
//!
//! - [`Used`] is an amount of each [`Item`], a whole number of its unit. What belongs to no stage
//!   of a pipeline is the pipeline's own, what belongs to no pipeline the tenant's own; nothing is
//!   measured at two levels, so that every level is the sum of what is below it.
//! - [`Books`] keep that by hour, then by day, then by month (`calendar`), which bounds them.
//! - [`Prices`] make money of it, rounded once: for each item of each line that is kept. Money of
//!   anything larger is a sum.
//!
//! Who counts, and when what was counted is on disk, is the business of the node: see
//! `recovery::Sink::used` and `docs/adr/0057-the-bill.md`.

mod books;
mod calendar;
mod item;
mod kept;
mod price;
mod report;
#[cfg(test)]
mod tests;

pub use books::{Books, Line, Whose};
pub use calendar::{HOUR_MICROS, Span, date_of};
pub(crate) use item::read as read_used;
pub use item::{Item, Used};
pub use price::{Money, Price, Prices};
pub use report::{Group, Report, Row, Split};
