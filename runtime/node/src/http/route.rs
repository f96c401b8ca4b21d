//! Which handler answers a request.
//!
//! The paths that carry events are matched by hand on the path's parts; everything else under
//! `/v1` is the router's. A caller is known, and is the tenant in the path, before any handler
//! runs. Names are not decoded: a name holds no character that would need it.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use sluicebox_core::limits::KEY_BYTES_MAX;
use tower_service::Service as _;

use super::api::{DESCRIPTION, NODES};
use super::auth::{self, Caller};
use super::body::Body;
use super::connection::{Connection, Upgrade};
use super::home::{self, Home};
use super::outputs::{self, Source};
use super::pass::Way;
use super::server::Edge;
use super::session::socket;
use super::text::percent_decode;
use super::{dashboard, ingest, logs, openapi, pass, peers, respond, session};
use crate::error::Error;
use crate::front::figures::join;
use crate::tenants::Scope;

/// Where the paths of tenants begin.
pub(super) const TENANTS: &str = "/v1/tenants/";

/// Media type of the metrics' text.
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// A path with events on it.
#[derive(Debug, PartialEq, Eq)]
enum Target<'a> {
    Events {
        pipeline: &'a str,
    },
    Output {
        pipeline: &'a str,
        output: &'a str,
    },
    DeadLetters {
        pipeline: &'a str,
    },
    Logs {
        pipeline: &'a str,
    },
    /// The key as it is written in the path.
    Stream {
        pipeline: &'a str,
        key: &'a str,
    },
}

/// The tenant of a path, and what the rest of it names, if that is a path with events.
fn split(path: &str) -> Option<(&str, Option<Target<'_>>)> {
    let (tenant, rest) = path.strip_prefix(TENANTS)?.split_once('/')?;
    let mut parts = rest.split('/');
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let (what, pipeline, kind, output) = (next(), next(), next(), next());
    let target = match (what, pipeline, kind, output) {
        (Some("pipelines"), Some(pipeline), Some("events"), None) => Target::Events { pipeline },
        (Some("pipelines"), Some(pipeline), Some("outputs"), Some(output)) => {
            Target::Output { pipeline, output }
        }
        (Some("pipelines"), Some(pipeline), Some("dead-letters"), None) => {
            Target::DeadLetters { pipeline }
        }
        (Some("pipelines"), Some(pipeline), Some("logs"), None) => Target::Logs { pipeline },
        (Some("pipelines"), Some(pipeline), Some("streams"), Some(key)) => {
            Target::Stream { pipeline, key }
        }
        _ => return Some((tenant, None)),
    };
    let exact = parts.next().is_none() && !path.ends_with('/');
    Some((tenant, exact.then_some(target)))
}

/// Answers a request, whatever it is.
pub(super) async fn answer(
    edge: &Rc<Edge>,
    connection: &Connection,
    request: Request<Incoming>,
) -> Response<Body> {
    match route(edge, connection, request).await {
        Ok(response) => response,
        Err(error) => respond::problem(&error),
    }
}

async fn route(
    edge: &Rc<Edge>,
    connection: &Connection,
    request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let uri = request.uri().clone();
    let path = uri.path();
    if let Some(node) = connection.node()
        && path.starts_with(peers::PEER)
    {
        return peers::answer(edge, &node, request).await;
    }
    let Some((tenant, target)) = split(path) else {
        return plain(edge, connection, &request).await;
    };
    let caller = auth::identify(edge, connection, &request)?;
    if !edge.node().has_started() {
        // What is not there yet is not said to be unknown.
        return Err(Error::Starting);
    }
    let method = request.method();
    let reads = matches!(*method, Method::GET | Method::HEAD);
    caller.may(
        tenant,
        match target {
            Some(Target::Events { .. }) => Scope::Ingest,
            None if !reads => Scope::Write,
            _ => Scope::Read,
        },
    )?;
    let is_stream = matches!(target, Some(Target::Stream { .. }));
    if is_stream && (*method == Method::POST || socket::is_wanted(request.headers())) {
        caller.has(Scope::Ingest)?;
    }
    match home::of(edge, connection, &caller, &request)? {
        Home::There(way) => return pass::pass(edge, connection, (&caller, &way), request).await,
        Home::Everywhere if reads => return Ok(home::pipelines(edge, &caller).await),
        Home::Everywhere | Home::Here => {}
    }
    if caller.is_isolated {
        let node = edge.node();
        let process = node.front().process(&caller.identity.tenant, node.metrics());
        let way = Way::Process(process);
        return pass::pass(edge, connection, (&caller, &way), request).await;
    }
    match target {
        Some(Target::Events { pipeline }) => {
            only(method, &Method::POST, "POST")?;
            ingest::handle(edge, &caller, pipeline, request).await
        }
        Some(Target::Output { pipeline, output }) => {
            only(method, &Method::GET, "GET")?;
            let source = Source::Output(output);
            outputs::handle(edge, &caller, (pipeline, source), &request).await
        }
        Some(Target::DeadLetters { pipeline }) => {
            only(method, &Method::GET, "GET")?;
            outputs::handle(edge, &caller, (pipeline, Source::DeadLetters), &request).await
        }
        Some(Target::Logs { pipeline }) => {
            only(method, &Method::GET, "GET")?;
            logs::handle(edge, &caller, pipeline, &request).await
        }
        Some(Target::Stream { pipeline, key }) => {
            stream((edge, connection), &caller, (pipeline, key), request).await
        }
        None => Ok(control(edge, caller, request).await),
    }
}

/// A stream, by its key.
async fn stream(
    (edge, connection): (&Rc<Edge>, &Connection),
    caller: &Arc<Caller>,
    (pipeline, key): (&str, &str),
    request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let key = percent_decode(key).filter(|key| key.len() <= KEY_BYTES_MAX).ok_or_else(|| {
        let message = "the key in the path is UTF-8 of at most 512 bytes, other characters as %XX";
        Error::request("stream.key", message)
    })?;
    match *request.method() {
        Method::GET if socket::is_wanted(request.headers()) => {
            let (parts, _none) = request.into_parts();
            let (response, door) = socket::upgrade(caller, (pipeline, key.into_owned()), parts)?;
            connection.upgrade(Upgrade::Session(Box::new(door)));
            Ok(response)
        }
        Method::GET | Method::HEAD => session::look(edge, caller, (pipeline, &key)).await,
        Method::POST => session::handle(edge, caller, (pipeline, key.into_owned()), request).await,
        _ => Err(Error::Method { allow: "GET, HEAD, POST" }),
    }
}

fn only(method: &Method, allowed: &Method, allow: &'static str) -> Result<(), Error> {
    if method == allowed { Ok(()) } else { Err(Error::Method { allow }) }
}

fn only_reads(method: &Method) -> Result<(), Error> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if reads { Ok(()) } else { Err(Error::Method { allow: "GET, HEAD" }) }
}

/// Hands a request to the router.
async fn control(
    edge: &Edge,
    caller: Arc<Caller>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    request.extensions_mut().insert(caller);
    let request = request.map(axum::body::Body::new);
    match edge.router().call(request).await {
        Ok(response) => response.map(Body::Routed),
        Err(never) => match never {},
    }
}

/// The paths that belong to no tenant.
async fn plain<B>(
    edge: &Rc<Edge>,
    connection: &Connection,
    request: &Request<B>,
) -> Result<Response<Body>, Error> {
    let path = request.uri().path();
    if let Some(found) = dashboard::Found::at(path, request.headers()) {
        only_reads(request.method())?;
        return Ok(found.response(request.headers()));
    }
    let known = matches!(path, "/healthz" | "/readyz" | "/metrics" | NODES | DESCRIPTION);
    if !known {
        return Err(Error::not_found("route", path));
    }
    only_reads(request.method())?;
    match path {
        "/healthz" => Ok(text(StatusCode::OK, "ok")),
        "/readyz" => Ok(match edge.node().not_ready() {
            None => text(StatusCode::OK, "ready"),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        }),
        DESCRIPTION => Ok(description()),
        NODES => {
            admin(edge, connection, request)?;
            Ok(respond::json(StatusCode::OK, &edge.node().nodes()))
        }
        _ => metrics(edge, connection, request).await,
    }
}

/// A line of text.
fn text(status: StatusCode, line: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from(format!("{line}\n"))));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// What the node answers; no secret, and the same for all.
fn description() -> Response<Body> {
    let mut response = Response::new(Body::from(openapi::text()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Lets programs on this machine pass, and tokens of its operator.
fn admin<B>(edge: &Edge, connection: &Connection, request: &Request<B>) -> Result<(), Error> {
    if auth::check_site(connection, request.uri(), request.headers()).is_err() {
        auth::identify(edge, connection, request)?.has(Scope::Admin)?;
    }
    Ok(())
}

/// The figures of all tenants.
async fn metrics<B>(
    edge: &Rc<Edge>,
    connection: &Connection,
    request: &Request<B>,
) -> Result<Response<Body>, Error> {
    admin(edge, connection, request)?;
    let node = edge.node();
    let figures = node.metrics().node();
    figures.body_bytes.set(node.admission().bodies().held() as i64);
    figures.waiting.set(node.requests().waiting() as i64);
    let own = node.metrics().text().map_err(|error| Error::Internal(error.to_string()))?;
    let processes = pass::figures(edge).await;
    let text = if processes.is_empty() { own } else { join(&own, &processes) };
    let mut response = Response::new(Body::from(Bytes::from(text)));
    response.headers_mut().insert(CONTENT_TYPE, OPENMETRICS);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::ROUTES;
    use crate::http::control;

    /// What carries events.
    const EVENTS: [&str; 6] =
        ["sendEvents", "readOutput", "readDeadLetters", "readLogs", "streamSession", "readStream"];

    #[test]
    fn paths_with_events_are_found() {
        let at = |rest: &str| format!("{TENANTS}t/{rest}");
        let events = at("pipelines/p/events");
        assert_eq!(split(&events), Some(("t", Some(Target::Events { pipeline: "p" }))));
        let output = at("pipelines/p/outputs/o");
        let expected = Target::Output { pipeline: "p", output: "o" };
        assert_eq!(split(&output), Some(("t", Some(expected))));
        let stream = at("pipelines/p/streams/a%2Fb");
        let expected = Target::Stream { pipeline: "p", key: "a%2Fb" };
        assert_eq!(split(&stream), Some(("t", Some(expected))));
        let dead = at("pipelines/p/dead-letters");
        assert_eq!(split(&dead), Some(("t", Some(Target::DeadLetters { pipeline: "p" }))));
        let logs = at("pipelines/p/logs");
        assert_eq!(split(&logs), Some(("t", Some(Target::Logs { pipeline: "p" }))));
    }

    #[test]
    fn what_is_matched_by_hand_is_in_the_table_and_what_is_not_has_a_handler() {
        for route in ROUTES.iter().filter(|route| route.path.starts_with(TENANTS)) {
            let path = route.path.replace(['{', '}'], "");
            let by_hand = split(&path).is_some_and(|(_, target)| target.is_some());
            let events = EVENTS.contains(&route.id);
            assert_eq!(by_hand, events, "{}", route.id);
            assert_eq!(control::handler(route.id).is_some(), !events, "{}", route.id);
        }
    }

    #[test]
    fn other_paths_are_the_routers_or_nobodys() {
        for rest in [
            "pipelines",
            "pipelines/p",
            "pipelines/p/resume",
            "pipelines/p/events/",
            "pipelines/p/events/more",
            "pipelines//events",
            "pipelines/p/streams",
            "pipelines/p/streams/",
            "pipelines/p/streams/a/b",
            "pipelines/p/outputs",
            "pipelines/p/outputs/",
            "pipelines/p/outputs/o/more",
            "components/c",
            "",
        ] {
            assert_eq!(split(&format!("{TENANTS}t/{rest}")), Some(("t", None)), "{rest}");
        }
        for path in ["/", "", "/v1", "/v1/tenants/t", "/v2/tenants/t/pipelines/p/events", "*"] {
            assert_eq!(split(path), None, "{path}");
        }
    }
}
