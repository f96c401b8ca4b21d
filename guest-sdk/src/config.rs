//! The stage's settings from the manifest: strings, fixed for the life of an instance.

use std::fmt::Display;
use std::str::FromStr;

use crate::failure::{Failure, Result};
use crate::host;

/// The setting with this name, if the manifest has one.
#[must_use]
pub fn get(name: &str) -> Option<String> {
    host::config(name)
}

/// The setting with this name, read as a number or whatever else [`FromStr`] reads.
///
/// ```
/// # use sluicebox_guest::{Result, config};
/// # fn f() -> Result {
/// let window: usize = config::parse("window")?.unwrap_or(60);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// A failure of class reject that names the setting, if it is there and cannot be read.
pub fn parse<T: FromStr<Err: Display>>(name: &str) -> Result<Option<T>> {
    let Some(text) = get(name) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(Failure::reject(format!("config {name} = {text:?}: {error}"))),
    }
}

/// The names of all settings, in byte order.
#[must_use]
pub fn names() -> Vec<String> {
    host::config_names()
}
