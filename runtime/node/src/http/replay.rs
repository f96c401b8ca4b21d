//! `POST …/dead-letters/replay`: gives a page of dead letters to the stage they failed in.
//!
//! - One request is one page, so that none takes long; the reply says where to go on, and how far.
//! - In a pipeline with a log a reply means that the events are on disk, and a request may be made
//!   again whatever became of it.
//! - Events that are replayed count against the tenant's quotas like those that are sent.
//!
//! Which they are and where they enter is decided in `running/replay.rs`.

use std::sync::Arc;

use axum::extract::Extension;
use axum::http::Uri;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use sluicebox_core::ids::Name;
use sluicebox_core::quota::Resource;

use super::auth::Caller;
use super::control::Call;
use super::respond;
use super::text::{now_micros, query_pairs, unknown_parameter};
use crate::error::{Error, shown};
use crate::node::Node;
use crate::ring::Cursor;
use crate::running::{Asked, Outcome};

/// What the client is told.
#[derive(Debug, Serialize)]
struct Reply {
    replayed: u64,
    duplicates: u64,
    skipped: u64,
    cursor: String,
    until: String,
    done: bool,
}

/// Replays a page.
pub(super) async fn replay(
    call: Call,
    Extension(caller): Extension<Arc<Caller>>,
    uri: Uri,
) -> Result<Response, Error> {
    let name = call.known_name("pipeline")?;
    let asked = asked(uri.query())?;
    let outcome = call.node.replay(&call.tenant, &name, asked, |events, bytes| {
        let draws = [(Resource::Events, events), (Resource::Bytes, bytes)];
        Ok(caller.account.spend(&draws)?)
    });
    let outcome = outcome.await?;
    let reply = Reply {
        replayed: outcome.replayed,
        duplicates: outcome.duplicates,
        skipped: outcome.skipped,
        done: outcome.is_done(),
        cursor: outcome.next.to_string(),
        until: outcome.until.to_string(),
    };
    Ok(respond::json(StatusCode::OK, &reply))
}

fn asked(query: Option<&str>) -> Result<Asked, Error> {
    let mut asked =
        Asked { from: Cursor::OLDEST, until: None, stage: None, events_max: usize::MAX };
    let cursor = |text: &str| {
        Cursor::parse(text).map_err(|error| Error::request("output.cursor", error.to_string()))
    };
    for pair in query_pairs(query) {
        let (name, value) = pair?;
        match name.as_ref() {
            "cursor" => asked.from = cursor(&value)?,
            "until" => asked.until = Some(cursor(&value)?),
            "stage" => asked.stage = Some(value.into_owned()),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| *limit > 0);
                asked.events_max = limit.ok_or_else(|| {
                    let found = shown(&value);
                    let message = format!("`limit` is {found:?}; write a number of events, from 1");
                    Error::request("request.query", message)
                })?;
            }
            other => {
                let known = "`cursor`, `until`, `stage` or `limit`";
                return Err(unknown_parameter(other, known));
            }
        }
    }
    Ok(asked)
}

impl Node {
    /// Replays a page of dead letters, and waits until that is on disk.
    async fn replay(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        asked: Asked,
        draw: impl FnOnce(u64, u64) -> Result<(), Error>,
    ) -> Result<Outcome, Error> {
        let running = self.running(tenant, name.as_str());
        let running = running.ok_or_else(|| self.no_pipeline(tenant, name.as_str()))?;
        if asked.stage.as_ref().is_some_and(|stage| running.pipeline().stage_index(stage).is_none())
        {
            return Err(Error::not_found("stage", asked.stage.as_deref().unwrap_or_default()));
        }
        let outcome = running.replay(&asked, now_micros(), draw)?;
        running.metrics().replayed.add(outcome.replayed);
        if let Some(at) = outcome.at {
            let log = self.log().clone();
            let synced = tokio::task::spawn_blocking(move || log.wait_synced(at));
            let failed = |error: tokio::task::JoinError| Error::Internal(error.to_string());
            synced.await.map_err(failed)?.map_err(|_| Error::LogFailed)?;
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_core::error::Classify;

    use super::*;

    #[test]
    fn the_query_says_which() {
        let all = asked(Some("cursor=oldest&stage=count&limit=5")).expect("good");
        assert_eq!((all.from, all.until, all.events_max), (Cursor::OLDEST, None, 5));
        assert_eq!(all.stage.as_deref(), Some("count"));
        assert_eq!(asked(None).expect("good").events_max, usize::MAX);
        for (bad, code) in [
            ("cursor=%21", "output.cursor"),
            ("until=latest", "output.cursor"),
            ("limit=0", "request.query"),
            ("from=oldest", "request.query"),
        ] {
            assert_eq!(asked(Some(bad)).map_err(|error| error.code()).err(), Some(code), "{bad}");
        }
    }
}
