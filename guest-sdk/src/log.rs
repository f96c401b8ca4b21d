//! The stage's log, shown to its owner.
//!
//! Lines are cut at 4 KiB and limited in number a call; what is dropped is counted by the host. A
//! line costs a call of the host, so it is not for every event. Standard output and error, with
//! them the message of a panic, end up in the same log.
//!
//! The macros [`debug!`](crate::debug), [`info!`](crate::info), [`warn!`](crate::warn!) and
//! [`error!`](crate::error) take what `format!` takes.

use crate::host;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the author.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is not as it should be; the stage goes on.
    Warn,
    /// Something failed.
    Error,
}

/// Writes one line.
pub fn write(level: Level, message: &str) {
    host::log(level, message);
}

/// Writes a line for the author.
#[macro_export]
macro_rules! debug {
    ($($arguments:tt)+) => {
        $crate::log::write($crate::log::Level::Debug, &::std::format!($($arguments)+))
    };
}

/// Writes a line worth knowing.
#[macro_export]
macro_rules! info {
    ($($arguments:tt)+) => {
        $crate::log::write($crate::log::Level::Info, &::std::format!($($arguments)+))
    };
}

/// Writes a line about something that is not as it should be.
#[macro_export]
macro_rules! warn {
    ($($arguments:tt)+) => {
        $crate::log::write($crate::log::Level::Warn, &::std::format!($($arguments)+))
    };
}

/// Writes a line about something that failed.
#[macro_export]
macro_rules! error {
    ($($arguments:tt)+) => {
        $crate::log::write($crate::log::Level::Error, &::std::format!($($arguments)+))
    };
}
