//! What a node says in the reply to a stream: one line, read.
//!
//! A line that says nothing this version knows is passed over, so that nodes may say more.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::failure::{Cause, Failure};

/// One line of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// A result.
    Output {
        /// Where to go on behind it.
        cursor: String,
        /// As it came.
        line: Bytes,
    },
    /// The units before this one are acknowledged.
    Taken(u64),
    /// A unit was left out.
    Rejected { at: u64, message: String },
    /// The stream is over, and so is everything that followed from it.
    Ended,
    /// The stream cannot go on over this connection.
    Suspended(Failure),
    /// Still there.
    Nothing,
}

/// Everything a line may say.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    cursor: Option<Cow<'a, str>>,
    taken: Option<u64>,
    rejected: Option<Rejected<'a>>,
    ended: Option<serde::de::IgnoredAny>,
    #[serde(borrow)]
    suspended: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Rejected<'a> {
    at: u64,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct Suspended {
    status: u16,
}

/// Reads a line.
pub(super) fn read(line: Bytes) -> Result<Answer, Failure> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(Answer::Nothing);
    }
    let said: Line<'_> = serde_json::from_slice(&line).map_err(|error| {
        let what = format!("the node's reply has a line that is not JSON: {error}");
        Failure::new(Cause::Internal, what).fix("is --url the address of a sluicebox node?")
    })?;
    Ok(match said {
        Line { taken: Some(ordinal), .. } => Answer::Taken(ordinal),
        Line { rejected: Some(Rejected { at, message }), .. } => {
            Answer::Rejected { at, message: message.into_owned() }
        }
        Line { ended: Some(_), .. } => Answer::Ended,
        Line { suspended: Some(why), .. } => Answer::Suspended(suspended(why)),
        Line { cursor: Some(cursor), .. } => {
            let cursor = cursor.into_owned();
            Answer::Output { cursor, line }
        }
        _ => Answer::Nothing,
    })
}

/// It is a problem document but for its place.
fn suspended(why: &RawValue) -> Failure {
    let status = serde_json::from_str(why.get()).map_or(500, |Suspended { status }| status);
    Failure::reply(status, why.get().as_bytes())
}

/// What a result is made of.
#[derive(Debug, Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

/// The payload of a result, and a line end.
pub(super) fn payload(line: &[u8]) -> Result<Vec<u8>, Failure> {
    let refuse = |why: String| {
        Failure::new(Cause::Internal, format!("the node sent a result that is none: {why}"))
    };
    let payload: Payload<'_> =
        serde_json::from_slice(line).map_err(|error| refuse(error.to_string()))?;
    let mut bytes = match (payload.data, payload.data_base64) {
        (Some(data), _) => data.get().as_bytes().to_vec(),
        (None, Some(coded)) => STANDARD.decode(coded).map_err(|error| refuse(error.to_string()))?,
        (None, None) => Vec::new(),
    };
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &'static str) -> Answer {
        read(Bytes::from(line)).unwrap()
    }

    #[test]
    fn a_result_is_kept_as_it_came() {
        let line = r#"{"id":"a","key":"k","data":{"taken":3},"cursor":"C\u0031"}"#;
        let expected = Answer::Output { cursor: "C1".to_owned(), line: Bytes::from(line) };
        assert_eq!(said(line), expected);
    }

    #[test]
    fn what_is_said_of_the_stream_is_told_apart() {
        assert_eq!(said("{\"taken\":7}"), Answer::Taken(7));
        let rejected = said(r#"{"rejected":{"at":3,"code":"ingest.json","message":"not JSON"}}"#);
        assert_eq!(rejected, Answer::Rejected { at: 3, message: "not JSON".to_owned() });
        assert_eq!(said(r#"{"ended":{"at":9,"cursor":"C"}}"#), Answer::Ended);
        for quiet in ["", " ", "{\"news\":1}", "{}"] {
            assert_eq!(said(quiet), Answer::Nothing);
        }
    }

    #[test]
    fn a_suspension_is_a_failure_like_that_of_a_request() {
        let line = r#"{"suspended":{"status":503,"code":"node.stopping","detail":"bye","at":4}}"#;
        let Answer::Suspended(failure) = said(line) else { panic!("{line}") };
        assert_eq!((failure.cause, failure.code.as_str()), (Cause::Unavailable, "node.stopping"));
        assert_eq!(failure.what, "bye");
    }

    #[test]
    fn a_payload_is_written_as_it_is() {
        let of = |line: &str| String::from_utf8(payload(line.as_bytes()).unwrap()).unwrap();
        assert_eq!(of(r#"{"data":{"b":1,"a":[ 2]}}"#), "{\"b\":1,\"a\":[ 2]}\n");
        assert_eq!(of(r#"{"data_base64":"bm8gSlNPTg=="}"#), "no JSON\n");
        assert_eq!(of(r#"{"key":"k"}"#), "\n");
        assert!(payload(br#"{"data_base64":"?"}"#).is_err());
    }

    #[test]
    fn what_is_no_json_is_no_answer() {
        assert_eq!(read(Bytes::from_static(b"<html>")).unwrap_err().cause, Cause::Internal);
    }
}
