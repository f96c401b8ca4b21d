//! `GET …/logs`: what the stages of a pipeline said last, in pages of lines of JSON, from a cursor
//! on. With `?wait=` a request with nothing to read waits for something to come.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use sluicebox_engine::invoker::LogLevel;

use super::auth::Caller;
use super::body::{Body, wait_within};
use super::outputs::{CURSOR, NDJSON};
use super::server::Edge;
use super::text::{push_time, query_pairs, unknown_parameter};
use crate::error::{Error, shown};
use crate::stage_log::{Line, Lines, Place, StageLog, Wanted};

/// How many lines were gone before they could be read.
const MISSED: HeaderName = HeaderName::from_static("sluicebox-missed");

/// Lines of a page. All that is kept of a pipeline is a quarter of a megabyte.
const LINES_MAX: usize = 10_000;

/// What a reader asks for.
#[derive(Debug)]
struct Asked {
    from: Place,
    wait: Duration,
    wanted: Wanted,
}

impl Asked {
    fn read(query: Option<&str>, log: &StageLog, wait_max: Duration) -> Result<Self, Error> {
        let wanted = Wanted { stage: None, level: LogLevel::Debug, lines_max: LINES_MAX };
        let mut asked = Self { from: log.oldest(), wait: Duration::ZERO, wanted };
        for pair in query_pairs(query) {
            let (name, value) = pair?;
            match name.as_ref() {
                "cursor" => asked.from = cursor(&value, log)?,
                "wait" => asked.wait = wait_within(&value, wait_max)?,
                "limit" => asked.wanted.lines_max = limit(&value)?,
                "stage" => asked.wanted.stage = Some(value.into_owned()),
                "level" => asked.wanted.level = level(&value)?,
                other => {
                    let known = "`cursor`, `wait`, `limit`, `stage` or `level`";
                    return Err(unknown_parameter(other, known));
                }
            }
        }
        Ok(asked)
    }
}

fn cursor(text: &str, log: &StageLog) -> Result<Place, Error> {
    match text {
        "oldest" => Ok(log.oldest()),
        "latest" => Ok(log.latest()),
        text => text.parse().map_err(|()| {
            let what = shown(text);
            let message = format!(
                "`cursor` is {what:?}; write `oldest`, `latest`, or what the header \
                 Sluicebox-Cursor of an earlier page said"
            );
            Error::request("output.cursor", message)
        }),
    }
}

fn limit(text: &str) -> Result<usize, Error> {
    text.parse().ok().filter(|limit| (1..=LINES_MAX).contains(limit)).ok_or_else(|| {
        let what = shown(text);
        let message = format!("`limit` is {what:?}; write a number of lines, 1 to {LINES_MAX}");
        Error::request("request.query", message)
    })
}

fn level(text: &str) -> Result<LogLevel, Error> {
    Ok(match text {
        "debug" => LogLevel::Debug,
        "info" => LogLevel::Info,
        "warn" => LogLevel::Warn,
        "error" => LogLevel::Error,
        other => {
            let message =
                format!("`level` is {:?}; write debug, info, warn or error", shown(other));
            return Err(Error::request("request.query", message));
        }
    })
}

/// One request for a page.
pub(super) async fn handle(
    edge: &Rc<Edge>,
    caller: &Caller,
    pipeline: &str,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let (node, tenant) = (edge.node(), &caller.identity.tenant);
    let running = node.running(tenant, pipeline);
    let metrics = running.ok_or_else(|| node.no_pipeline(tenant, pipeline))?.metrics().clone();
    let log = metrics.stage_log();
    let asked = Asked::read(request.uri().query(), log, node.config().http.wait_time_max)?;
    let begun = Instant::now();
    let mut page = log.read(asked.from, &asked.wanted);
    loop {
        let left = asked.wait.saturating_sub(begun.elapsed());
        if !page.lines.is_empty() || left.is_zero() {
            break;
        }
        let news = async {
            tokio::select! {
                // What is there is given out even when the node stops.
                biased;
                () = log.wait(page.next) => true,
                () = edge.draining() => false,
            }
        };
        let goes_on = edge.within(left, news).await.unwrap_or(true);
        let missed = page.missed;
        page = log.read(page.next, &asked.wanted);
        page.missed += missed;
        if !goes_on {
            break;
        }
    }
    Ok(answer(&page))
}

fn answer(page: &Lines) -> Response<Body> {
    let mut text = Vec::new();
    for line in &page.lines {
        push(&mut text, line);
    }
    let mut response = Response::new(Body::Whole(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, NDJSON);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(next) = HeaderValue::try_from(page.next.to_string()) {
        headers.insert(CURSOR, next);
    }
    if page.missed > 0 {
        headers.insert(MISSED, HeaderValue::from(page.missed));
    }
    response
}

fn push(out: &mut Vec<u8>, line: &Line) {
    let mut time = Vec::new();
    push_time(&mut time, line.time);
    let level = match line.level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    let record = serde_json::json!({
        "time": String::from_utf8_lossy(&time),
        "stage": line.stage,
        "partition": line.partition,
        "level": level,
        "text": line.text,
    });
    out.extend_from_slice(record.to_string().as_bytes());
    out.push(b'\n');
}
