//! A tenant's bill: what is asked for, and the two forms it is told in.

use std::ops::Range;

use axum::http::{HeaderMap, Uri};
use axum::response::IntoResponse as _;
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE};
use sluicebox_core::bill::{Group, HOUR_MICROS, Split};

use super::auth::Caller;
use super::control::{Call, Reply};
use super::respond;
use super::text::{parse_time, query_pairs, unknown_parameter};
use crate::error::Error;
use crate::tenants::Scope;

const CSV: &str = "text/csv";

/// What there is a bill of.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    period: Range<u32>,
    group: Group,
    csv: bool,
}

pub(super) async fn bill(call: Call, uri: Uri, headers: HeaderMap) -> Reply {
    allowed(&call.caller)?;
    let asked = asked(&uri, &headers)?;
    let bill = call.node.bill_of(&call.tenant, &asked.period, asked.group).await?;
    if asked.csv {
        return Ok(([(CONTENT_TYPE, "text/csv; charset=utf-8")], bill.to_csv()).into_response());
    }
    Ok(respond::json(StatusCode::OK, &bill))
}

fn allowed(caller: &Caller) -> Result<(), Error> {
    caller.has(Scope::Read)
}

fn asked(uri: &Uri, headers: &HeaderMap) -> Result<Asked, Error> {
    let mut asked = Asked {
        period: 0..u32::MAX,
        group: Group { pipelines: true, ..Group::default() },
        csv: prefers_csv(headers),
    };
    for pair in query_pairs(uri.query()) {
        let (name, value) = pair?;
        match name.as_ref() {
            "from" => asked.period.start = hour("from", &value)?,
            "to" => asked.period.end = hour("to", &value)?,
            "by" => asked.group = group(&value)?,
            "format" => {
                asked.csv = match value.as_ref() {
                    "csv" => true,
                    "json" => false,
                    _ => return Err(wrong("`format` is `json` or `csv`")),
                };
            }
            other => return Err(unknown_parameter(other, "`from`, `to`, `by` or `format`")),
        }
    }
    if asked.period.is_empty() {
        return Err(wrong("`to` is later than `from`"));
    }
    Ok(asked)
}

/// The hour that begins at a time, as in 2026-12-01, 2026-12-01T10:00:00Z, or in microseconds.
fn hour(name: &str, text: &str) -> Result<u32, Error> {
    let is_date = text.len() == 10 && text.contains('-');
    let micros = if is_date { parse_time(&format!("{text}T00:00:00Z")) } else { parse_time(text) };
    let hour = micros.filter(|micros| micros.is_multiple_of(HOUR_MICROS));
    let hour = hour.and_then(|micros| u32::try_from(micros / HOUR_MICROS).ok());
    hour.ok_or_else(|| {
        let example = "2026-12-01 or 2026-12-01T10:00:00Z";
        wrong(&format!("`{name}` is a day, or the beginning of an hour, as {example}"))
    })
}

/// What there is a row for, as in `stage,day`; nothing is one row.
fn group(text: &str) -> Result<Group, Error> {
    let mut group = Group::default();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        let time = match word {
            "pipeline" => {
                group.pipelines = true;
                continue;
            }
            "stage" => {
                (group.pipelines, group.stages) = (true, true);
                continue;
            }
            "hour" => Split::Hour,
            "day" => Split::Day,
            "month" => Split::Month,
            _ => {
                return Err(wrong(
                    "`by` is `pipeline`, `stage`, `hour`, `day` or `month`, or several of them \
                     with commas between",
                ));
            }
        };
        group.time = group.time.max(time);
    }
    Ok(group)
}

fn prefers_csv(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let mut kinds = accept.unwrap_or_default().split([',', ';']).map(str::trim);
    kinds.find(|kind| kind.starts_with(CSV) || kind.contains("json")).is_some_and(|k| k == CSV)
}

fn wrong(message: &str) -> Error {
    Error::request("request.query", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(query: &str, accept: &str) -> Result<Asked, String> {
        let uri: Uri = format!("/v1/tenants/t/bill{query}").parse().expect("a path");
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a value"));
        asked(&uri, &headers).map_err(|error| error.to_string())
    }

    #[test]
    fn a_bill_is_of_whole_hours_and_by_what_is_said() {
        let plain = ask("", "*/*").expect("a bill");
        assert!(plain.group.pipelines && !plain.group.stages && !plain.csv);
        assert_eq!(plain.period, 0..u32::MAX);
        let query = "?from=1970-01-02&to=1970-01-02T05:00:00Z&by=stage,day";
        let asked = ask(query, "text/csv").expect("a bill");
        let group = Group { pipelines: true, stages: true, time: Split::Day };
        assert_eq!(asked, Asked { period: 24..29, group, csv: true });
        assert!(!ask("?format=json", "text/csv").expect("a bill").csv);
        assert_eq!(ask("?by=", "*/*").expect("a bill").group, Group::default());
    }

    #[test]
    fn what_cannot_be_asked_names_the_parameter() {
        for (query, part) in [
            ("?from=yesterday", "`from` is a day"),
            ("?to=1970-01-01T00:30:00Z", "`to` is a day, or the beginning of an hour"),
            ("?from=1970-01-03&to=1970-01-02", "later than `from`"),
            ("?by=week", "`by` is"),
            ("?format=xml", "`format` is"),
            ("?since=1", "\"since\""),
        ] {
            let error = ask(query, "*/*").expect_err(query);
            assert!(error.contains(part), "{query}: {error}");
        }
    }
}
