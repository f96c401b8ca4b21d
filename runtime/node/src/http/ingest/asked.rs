//! What a request for ingest asks for besides its body: by its query, and by `Prefer`.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;

use super::key;
use crate::error::Error;
use crate::http::body;
use crate::http::text::{self, parse_wait, query_pairs};

/// What the request asks for besides its body.
#[derive(Debug, Default)]
pub(super) struct Asked<'a> {
    pub(super) key: Option<Cow<'a, str>>,
    pub(super) wait: Option<Duration>,
    /// The reply says what the event cost.
    pub(super) usage: bool,
}

impl<'a> Asked<'a> {
    pub(super) fn read(
        request: &'a http::request::Parts,
        wait_max: Duration,
    ) -> Result<Self, Error> {
        let mut asked = Self::default();
        let mut wait = preferred_wait(&request.headers).map(Cow::Borrowed);
        for pair in query_pairs(request.uri.query()) {
            match pair? {
                (name, value) if name == "key" => asked.key = Some(value),
                (name, value) if name == "wait" => wait = Some(value),
                (name, value) if name == "usage" => asked.usage = usage(&value)?,
                (name, _) => {
                    return Err(text::unknown_parameter(&name, "`key`, `wait` or `usage`"));
                }
            }
        }
        if let Some(key) = &asked.key {
            key::check_length(key.as_bytes())?;
        }
        asked.key = asked.key.filter(|key| !key.is_empty());
        asked.wait = wait.map(|text| body::wait_within(&text, wait_max)).transpose()?;
        asked.wait = asked.wait.filter(|wait| !wait.is_zero());
        if asked.usage && asked.wait.is_none() {
            let message = "`usage` is told with a result: ask for one with `wait`";
            return Err(Error::request("request.query", message));
        }
        Ok(asked)
    }
}

/// `?usage`, `?usage=true` or `?usage=false`.
fn usage(value: &str) -> Result<bool, Error> {
    match value {
        "" | "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Error::request("request.query", "`usage` is `true` or `false`")),
    }
}

/// `Prefer: wait=5` (RFC 7240).
fn preferred_wait(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut items = values.flat_map(|value| value.split([',', ';']));
    items.find_map(|item| item.trim().strip_prefix("wait=")).filter(|t| parse_wait(t).is_some())
}
