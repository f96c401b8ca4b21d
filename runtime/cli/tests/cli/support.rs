//! What the tests of the command share.

pub(crate) mod command;
pub(crate) mod door;
pub(crate) mod golden;
pub(crate) mod node;
