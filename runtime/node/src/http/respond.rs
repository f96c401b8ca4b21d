//! From an error to status, body and headers; the only place that does.
//!
//! The status follows from the code, and if the code has none of its own, from the kind. The body
//! is a problem document (RFC 9457) with a stable `code`. What went wrong inside the node is for
//! its log: a tenant learns that something did, not paths and system messages.

use std::time::Duration;

use axum::response::IntoResponse;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sluicebox_core::error::{Classify, Kind};

use crate::error::Error;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Codes whose status is not that of their kind. A full disk (`log.full`) is 503 as its kind says,
/// and not 507: a client should come back by itself, which 507 forbids. A tenant's own disk quota
/// (`quota.disk`) is 507: waiting does not help, something has to be deleted first.
const BY_CODE: &[(&str, StatusCode)] = &[
    ("auth.token", StatusCode::UNAUTHORIZED),
    ("request.method", StatusCode::METHOD_NOT_ALLOWED),
    ("request.slow", StatusCode::REQUEST_TIMEOUT),
    ("request.too-large", StatusCode::PAYLOAD_TOO_LARGE),
    ("component.too-large", StatusCode::PAYLOAD_TOO_LARGE),
    ("store.too-large", StatusCode::PAYLOAD_TOO_LARGE),
    ("request.media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ("request.coding", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ("component.import", StatusCode::BAD_REQUEST),
    ("output.trimmed", StatusCode::GONE),
    ("request.deadline", StatusCode::GATEWAY_TIMEOUT),
    ("ingest.repeat", StatusCode::CONFLICT),
    ("stream.gap", StatusCode::CONFLICT),
    ("stream.taken-over", StatusCode::CONFLICT),
    ("stream.idle", StatusCode::REQUEST_TIMEOUT),
    ("quota.disk", StatusCode::INSUFFICIENT_STORAGE),
];

/// The status of an error.
pub(super) fn status_of(error: &Error) -> StatusCode {
    let code = error.code();
    let own = BY_CODE.iter().find(|(known, _)| *known == code);
    own.map_or_else(|| status_of_kind(error.kind()), |(_, status)| *status)
}

const fn status_of_kind(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Guest => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// An error as a reply.
pub(super) fn problem<B: From<Bytes>>(error: &Error) -> Response<B> {
    let status = status_of(error);
    let code = error.code();
    if is_inside(error) {
        tracing::error!(code, %error, "a request failed");
    }
    let mut document = Map::new();
    let mut put = |name: &str, value: Value| {
        document.insert(name.to_owned(), value);
    };
    put("type", json!(format!("urn:sluicebox:error:{code}")));
    put("title", json!(status.canonical_reason().unwrap_or("Error")));
    put("status", json!(status.as_u16()));
    put("code", json!(code));
    put("detail", json!(detail(error)));
    match error {
        Error::Manifest(problems) => {
            put("problems", Value::Array(problems.list().iter().map(problem_row).collect()));
            put("omitted", json!(problems.omitted()));
        }
        Error::Rejected { errors, rejected } => {
            put("rejected", json!(rejected));
            put("errors", json!(errors));
        }
        Error::Trimmed { oldest } => put("oldest", json!(oldest)),
        Error::Deadline { cursor: Some(cursor) } => put("cursor", json!(cursor)),
        _ => {}
    }
    let body = serde_json::to_vec(&document).unwrap_or_default();
    let mut response = Response::new(B::from(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PROBLEM);
    add_headers(&mut response, error);
    response
}

fn add_headers<B>(response: &mut Response<B>, error: &Error) {
    let headers = response.headers_mut();
    if let Some(after) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    match error {
        Error::Unauthorised => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Error::Coding { .. } => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
        }
        Error::Method { allow } => {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        _ => {}
    }
}

/// The header knows whole seconds only; a client told 0 would come back at once.
fn whole_seconds(after: Duration) -> u64 {
    after.as_micros().div_ceil(1_000_000).clamp(1, u64::MAX.into()) as u64
}

fn problem_row(problem: &sluicebox_core::manifest::Problem) -> Value {
    json!({
        "field": problem.field,
        "code": problem.code,
        "message": problem.message,
        "fix": problem.fix,
    })
}

/// True if it is the operator's business and not the client's.
fn is_inside(error: &Error) -> bool {
    let of_a_part =
        matches!(error, Error::Store(_) | Error::Log(_) | Error::Engine(_) | Error::Io { .. });
    match error.kind() {
        Kind::Internal => true,
        Kind::Unavailable => of_a_part,
        _ => false,
    }
}

fn detail(error: &Error) -> String {
    match error {
        // Its mistakes are listed one by one.
        Error::Manifest(problems) => match problems.list().len() + problems.omitted() {
            1 => "the manifest has a mistake".to_owned(),
            several => format!("the manifest has {several} mistakes"),
        },
        _ if is_inside(error) => "something failed inside the node; its log says what".to_owned(),
        _ => error.to_string(),
    }
}

/// A JSON reply.
pub(super) fn json<B: From<Bytes>>(status: StatusCode, value: &impl Serialize) -> Response<B> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(B::from(Bytes::from(bytes)));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, JSON);
            response
        }
        Err(error) => problem(&Error::Internal(format!("a reply cannot be written: {error}"))),
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> axum::response::Response {
        problem(&self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sluicebox_core::manifest::{Problem, Problems};
    use sluicebox_store::log::Error as LogError;

    use super::*;
    use crate::error::LineError;

    fn document(error: &Error) -> (StatusCode, http::HeaderMap, Value) {
        let response: Response<Bytes> = problem(error);
        let value = serde_json::from_slice(response.body()).expect("JSON");
        (response.status(), response.headers().clone(), value)
    }

    #[test]
    fn each_code_has_one_row() {
        let codes: BTreeSet<_> = BY_CODE.iter().map(|row| row.0).collect();
        assert_eq!(codes.len(), BY_CODE.len());
    }

    #[test]
    fn the_status_follows_from_code_or_kind() {
        let wait = Duration::from_millis(1);
        let rows = [
            (Error::Unauthorised, 401),
            (Error::Scope { scope: "write" }, 403),
            (Error::ForeignSite { header: "Origin" }, 403),
            (Error::not_found("pipeline", "p"), 404),
            (Error::Method { allow: "GET" }, 405),
            (Error::Slow { rate_min: 1 }, 408),
            (Error::Conflict { what: "component", name: "c".into(), why: "in use".into() }, 409),
            (Error::Trimmed { oldest: "x".into() }, 410),
            (Error::TooLarge { what: "the request body", limit: 1 }, 413),
            (Error::MediaType { found: "x".into(), supported: "y" }, 415),
            (Error::Coding { found: "br".into() }, 415),
            (Error::Busy { what: "the pipeline", retry_after: wait }, 429),
            (Error::request("request.query", "bad"), 400),
            (Error::Internal("secret".into()), 500),
            (Error::Overloaded { what: "more", retry_after: wait }, 503),
            (Error::Draining, 503),
            (Error::DiskFull { retry_after: wait }, 503),
            (Error::request("ingest.repeat", "again"), 409),
            (Error::Deadline { cursor: None }, 504),
            (Error::DiskQuota { used: 7, limit: 5 }, 507),
        ];
        for (error, status) in rows {
            let (found, headers, value) = document(&error);
            assert_eq!(found.as_u16(), status, "{error}");
            assert_eq!(value["status"], status);
            assert_eq!(value["code"], error.code());
            assert_eq!(value["type"], format!("urn:sluicebox:error:{}", error.code()));
            assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
            assert_eq!(headers.contains_key(RETRY_AFTER), matches!(status, 429 | 503), "{error}");
        }
    }

    #[test]
    fn every_mistake_is_listed_with_its_field_and_fix() {
        let problem = Problem::new("edges[0].to", "manifest.unknown", "no such stage", "name one");
        let (_, _, value) = document(&Error::Manifest(Problems::from(problem)));
        let row = &value["problems"][0];
        assert_eq!((&row["field"], &row["fix"]), (&json!("edges[0].to"), &json!("name one")));
        let error = LineError { line: 3, code: "ingest.json", message: "bad".into() };
        let (_, _, value) = document(&Error::Rejected { errors: vec![error], rejected: 9 });
        assert_eq!((&value["rejected"], &value["errors"][0]["line"]), (&json!(9), &json!(3)));
    }

    #[test]
    fn what_went_wrong_inside_stays_inside() {
        let source = std::io::Error::other("/secret/path is broken");
        for error in [
            Error::Internal("secret".into()),
            LogError::Failed { reason: "/secret/path is broken".into() }.into(),
            Error::Io { doing: "write /secret/path".into(), source },
        ] {
            let (_, _, value) = document(&error);
            assert!(!value.to_string().contains("secret"), "{value}");
        }
    }

    #[test]
    fn a_moment_becomes_a_whole_second() {
        let (_, headers, _) =
            document(&Error::Busy { what: "x", retry_after: Duration::from_millis(1001) });
        assert_eq!(headers[RETRY_AFTER], "2");
    }
}
