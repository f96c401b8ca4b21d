//! A guest that makes HTTP requests by `wasi:http`, with bindings that anybody would take.
//!
//! A payload is a command and its words; the answer is a text. What is refused is answered by the
//! name of the error: `HttpRequestDenied`.
//!
//! | command | does | answers |
//! |---|---|---|
//! | `get URL` | a request | `STATUS BODY`, or an error |
//! | `post URL TEXT` | sends a text, with the event's id as idempotency key | the same |
//! | `upload URL N` | sends N bytes | the same |
//! | `read URL` | reads the body and counts | `read N`, `read N then ERROR` |
//! | `flood URL N` | N requests at once, then waits for all | `answered A`, each error's number |
//! | `hold URL` | keeps the answer and reads none of it | `STATUS` |
//! | `connect URL` | a request for a tunnel | as `get` |
//! | `header URL NAME VALUE` | a request with a header | as `get` |
//! | `insist URL` | as `post`, and fails for as long as the answer ends in ` 1` | as `post` |
//! | `names N C` | asks C times for a header whose name has N bytes | `done` |
//! | `paths N C` | sets C times a path of N bytes, which is none | `done` |

use std::cell::RefCell;
use std::collections::BTreeMap;

use sluicebox_guest::{Event, Failure, Output, Result, field, stage};
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, Scheme, http_error_code,
};
use wasip2::io::streams::StreamError;

/// Bytes one write takes.
const WRITE_BYTES: usize = 4_096;

/// Bytes that are read at once.
const READ_BYTES: u64 = 64 * 1024;

thread_local! {
    static HELD: RefCell<Vec<IncomingResponse>> = const { RefCell::new(Vec::new()) };
}

/// What the host would not do is an answer as well.
type Answer<T = String> = std::result::Result<T, ErrorCode>;

#[stage]
fn ask(event: Event<'_>, out: &mut Output) -> Result {
    let text = event.text()?;
    let words: Vec<&str> = text.split(' ').collect();
    let answer = match &*words {
        ["get", url] => send(url, &[], None).and_then(|future| shown(&future)),
        ["post", url, text] => post(&event, url, text),
        ["insist", url] => match post(&event, url, "text") {
            Ok(answer) if answer.ends_with(" 1") => return Err(Failure::retry("not yet")),
            answer => answer,
        },
        ["connect", url] => {
            begin(&Method::Connect, url, &[], None).and_then(|future| shown(&future))
        }
        ["header", url, name, value] => {
            send(url, &[(*name, value.as_bytes())], None).and_then(|future| shown(&future))
        }
        ["names", bytes, count] => Ok(names(number(bytes), number(count))),
        ["paths", bytes, count] => Ok(paths(number(bytes), number(count))),
        ["upload", url, bytes] => {
            let sent = send(url, &[], Some(&vec![b'u'; number(bytes)]));
            sent.and_then(|future| shown(&future))
        }
        ["read", url] => send(url, &[], None).and_then(|future| read(&future)),
        ["flood", url, count] => Ok(flood(url, number(count))),
        ["hold", url] => send(url, &[], None).and_then(|future| {
            let response = answered(&future)?;
            let status = response.status();
            HELD.with_borrow_mut(|held| held.push(response));
            Ok(status.to_string())
        }),
        _ => return Err(Failure::reject("unknown command")),
    };
    out.emit(&event, answer.unwrap_or_else(|error| name_of(&error)));
    Ok(())
}

/// With the id of the event, so that the other end knows it if it comes again.
fn post(event: &Event<'_>, url: &str, text: &str) -> Answer {
    let id = event.field(field::EVENT_ID).unwrap_or_else(|| event.key_bytes());
    let sent = send(url, &[("idempotency-key", id)], Some(text.as_bytes()));
    sent.and_then(|future| shown(&future))
}

fn names(bytes: usize, count: usize) -> String {
    let (fields, name) = (Fields::new(), "n".repeat(bytes));
    for _ in 0..count {
        fields.has(&name);
    }
    "done".to_owned()
}

fn paths(bytes: usize, count: usize) -> String {
    let (request, path) = (OutgoingRequest::new(Fields::new()), "p".repeat(bytes));
    for _ in 0..count {
        request.set_path_with_query(Some(&path)).ok();
    }
    "done".to_owned()
}

fn number(word: &str) -> usize {
    word.parse().unwrap_or_default()
}

fn name_of(error: &ErrorCode) -> String {
    let text = format!("{error:?}");
    let text = text.strip_prefix("ErrorCode::").unwrap_or(&text);
    text.split(['(', ' ']).next().unwrap_or_default().to_owned()
}

fn send(
    url: &str,
    headers: &[(&str, &[u8])],
    body: Option<&[u8]>,
) -> Answer<FutureIncomingResponse> {
    let method = if body.is_some() { Method::Post } else { Method::Get };
    begin(&method, url, headers, body)
}

/// Begins a request; with a body it is sent whole, unless nobody takes it.
fn begin(
    method: &Method,
    url: &str,
    headers: &[(&str, &[u8])],
    body: Option<&[u8]>,
) -> Answer<FutureIncomingResponse> {
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
    let fields = Fields::from_list(&headers).map_err(|_| ErrorCode::HttpProtocolError)?;
    let request = OutgoingRequest::new(fields);
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    let (scheme, rest) = url.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    request.set_scheme(Some(&scheme)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })).map_err(invalid)?;
    request.set_method(method).map_err(invalid)?;
    let Some(bytes) = body else { return handle(request, None) };
    let body = request.body().map_err(invalid)?;
    let stream = body.write().map_err(invalid)?;
    let future = handle(request, None)?;
    // Who does not want all of it says why in the answer.
    let taken = bytes.chunks(WRITE_BYTES).all(|part| stream.blocking_write_and_flush(part).is_ok());
    drop(stream);
    if taken {
        OutgoingBody::finish(body, None)?;
    }
    Ok(future)
}

fn answered(future: &FutureIncomingResponse) -> Answer<IncomingResponse> {
    let ready = future.subscribe();
    ready.block();
    match future.get() {
        Some(Ok(answer)) => answer,
        _ => Err(ErrorCode::InternalError(None)),
    }
}

/// Status and body.
fn shown(future: &FutureIncomingResponse) -> Answer {
    let response = answered(future)?;
    let (status, mut bytes) = (response.status(), Vec::new());
    body_of(&response, |part| bytes.extend_from_slice(part))?;
    Ok(format!("{status} {}", String::from_utf8_lossy(&bytes)))
}

/// How much of a body came, and what it ended with.
fn read(future: &FutureIncomingResponse) -> Answer {
    let response = answered(future)?;
    let mut count = 0;
    let end = body_of(&response, |part| count += part.len());
    Ok(match end {
        Ok(()) => format!("read {count}"),
        Err(error) => format!("read {count} then {}", name_of(&error)),
    })
}

fn body_of(response: &IncomingResponse, mut each: impl FnMut(&[u8])) -> Answer<()> {
    let gone = |()| ErrorCode::InternalError(None);
    let body = response.consume().map_err(gone)?;
    let stream = body.stream().map_err(gone)?;
    loop {
        match stream.blocking_read(READ_BYTES) {
            Ok(part) => each(&part),
            Err(StreamError::Closed) => return Ok(()),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(http_error_code(&error).unwrap_or(ErrorCode::InternalError(None)));
            }
        }
    }
}

/// Many at once.
fn flood(url: &str, count: usize) -> String {
    let begun: Vec<_> = (0..count).map(|_| send(url, &[], None)).collect();
    let (mut good, mut bad) = (0, BTreeMap::<String, usize>::new());
    for future in begun {
        match future.and_then(|future| shown(&future)) {
            Ok(_) => good += 1,
            Err(error) => *bad.entry(name_of(&error)).or_default() += 1,
        }
    }
    let bad: Vec<String> = bad.iter().map(|(name, count)| format!(" {name} {count}")).collect();
    format!("answered {good}{}", bad.concat())
}
