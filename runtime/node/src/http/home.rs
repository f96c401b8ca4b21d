//! On which node a request is handled, in a cluster.
//!
//! What a path names has one home (`cluster`). A request for what is elsewhere is passed on there
//! as it is. One that another node has passed on is handled here, or refused; only what has just
//! moved is passed on again, a few times at most. What belongs to all nodes, a list of pipelines,
//! is gathered.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use sluicebox_core::ids::Name;

use super::auth::Caller;
use super::body::Body;
use super::connection::Connection;
use super::pass::Way;
use super::respond;
use super::route::TENANTS;
use super::server::Edge;
use crate::cluster::{Cluster, Place, Subject};
use crate::error::Error;

/// Which nodes could not be asked.
const UNREACHABLE: HeaderName = HeaderName::from_static("sluicebox-unreachable");

/// How often a request was passed on.
pub(super) const HOPS: HeaderName = HeaderName::from_static("sluicebox-hops");

/// As often as a pipeline may have moved while a request was looking for it.
const HOPS_MAX: u8 = 3;

/// Where a request is handled.
#[derive(Debug)]
pub(super) enum Home {
    Here,
    There(Way),
    /// The list of the tenant's pipelines, on all nodes.
    Everywhere,
}

/// What of a path is somewhere.
#[derive(Debug, PartialEq, Eq)]
enum Named<'a> {
    /// The tenant's components and assets.
    Files,
    Pipelines,
    Pipeline(&'a str),
    Nothing,
}

/// What the path of a tenant names, and whether a change of it itself is meant.
fn named(path: &str) -> (Named<'_>, bool) {
    let rest = path.strip_prefix(TENANTS).and_then(|rest| rest.split_once('/'));
    let mut parts = rest.map_or("", |(_, rest)| rest).split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("components" | "assets"), ..) => (Named::Files, true),
        (Some("pipelines"), None, _) => (Named::Pipelines, false),
        (Some("pipelines"), Some(name), rest) => (Named::Pipeline(name), rest.is_none()),
        _ => (Named::Nothing, false),
    }
}

/// Finds out where a request of this caller is handled.
///
/// # Errors
/// [`Error::Peer`]: the node that has it, or may have it, cannot be reached.
pub(super) fn of(
    edge: &Edge,
    connection: &Connection,
    caller: &Caller,
    request: &Request<Incoming>,
) -> Result<Home, Error> {
    let node = edge.node();
    let Some(cluster) = node.cluster() else { return Ok(Home::Here) };
    let tenant = caller.identity.tenant.clone();
    let (named, is_itself) = named(request.uri().path());
    let makes = matches!(*request.method(), Method::PUT | Method::POST);
    let (subject, makes) = match named {
        _ if caller.is_isolated => (Subject::Tenant(tenant), true),
        Named::Files => (Subject::Tenant(tenant), makes),
        Named::Pipeline(name) => {
            let Ok(name) = Name::new(name) else { return Ok(Home::Here) };
            (Subject::Pipeline(tenant, name), is_itself && *request.method() == Method::PUT)
        }
        Named::Pipelines if connection.node().is_some() => return Ok(Home::Here),
        Named::Pipelines => return Ok(Home::Everywhere),
        Named::Nothing => return Ok(Home::Here),
    };
    if let Some(to) = node.leaving_to(&subject) {
        return Err(Error::on_its_way(&to));
    }
    let is_here = node.holds(&subject, caller.is_isolated);
    if connection.node().is_some() {
        passed_on(edge, (&subject, is_here, makes), request)
    } else {
        first(edge, cluster, (&subject, is_here, makes))
    }
}

/// Where a client's request is handled.
fn first(
    edge: &Edge,
    cluster: &Cluster,
    (subject, is_here, makes): (&Subject, bool, bool),
) -> Result<Home, Error> {
    if !is_here
        && cluster.there(subject).is_none()
        && let Some(peer) = edge.node().moved_to(subject)
    {
        return Ok(Home::There(Way::Peer(peer)));
    }
    Ok(match cluster.find(subject, is_here)? {
        // Who would make it knows whether it is there.
        Place::There(peer) | Place::NowhereYet(peer) => Home::There(Way::Peer(peer)),
        Place::Nowhere if makes => {
            cluster.may_make(subject)?;
            Home::Here
        }
        Place::Here | Place::Nowhere => Home::Here,
    })
}

/// The same of a request that another node has passed on: it believes that this one has what it is
/// about, or would make it. What has moved on since is passed on once more.
fn passed_on(
    edge: &Edge,
    (subject, is_here, makes): (&Subject, bool, bool),
    request: &Request<Incoming>,
) -> Result<Home, Error> {
    let Some(cluster) = edge.node().cluster() else { return Ok(Home::Here) };
    if is_here {
        return Ok(Home::Here);
    }
    if let Some(peer) = edge.node().moved_to(subject) {
        if hops(request.headers()) >= HOPS_MAX {
            return Err(peer.failed("moves what this is about from node to node", false));
        }
        return Ok(Home::There(Way::Peer(peer)));
    }
    if makes {
        cluster.may_make(subject)?
    } else {
        cluster.may_deny(subject)?
    }
    Ok(Home::Here)
}

/// How often a request was passed on, as the node says that did it last.
pub(super) fn hops(headers: &HeaderMap) -> u8 {
    let text = headers.get(HOPS).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The tenant's pipelines on all nodes that can be reached; a header names the others.
pub(super) async fn pipelines(edge: &Edge, caller: &Caller) -> Response<Body> {
    let (node, tenant) = (edge.node(), &caller.identity.tenant);
    let mut all = node.pipelines(tenant).await;
    let peers = node.cluster().map_or(&[][..], |cluster| cluster.peers());
    let asked = peers.iter().map(|peer| async move { (peer, peer.pipelines(tenant).await) });
    let mut missing = Vec::new();
    for (peer, answer) in futures_util::future::join_all(asked).await {
        match answer {
            Ok(theirs) => all.extend(theirs),
            Err(_) => missing.push(peer.name().to_string()),
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let mut response = respond::json(StatusCode::OK, &all);
    if let Ok(missing) = HeaderValue::try_from(missing.join(","))
        && !missing.is_empty()
    {
        response.headers_mut().insert(UNREACHABLE, missing);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_what_it_is_about() {
        for (path, expected) in [
            ("/v1/tenants/t/pipelines", (Named::Pipelines, false)),
            ("/v1/tenants/t/pipelines/p", (Named::Pipeline("p"), true)),
            ("/v1/tenants/t/pipelines/p/events", (Named::Pipeline("p"), false)),
            ("/v1/tenants/t/pipelines/p/streams/a%2Fb", (Named::Pipeline("p"), false)),
            ("/v1/tenants/t/components", (Named::Files, true)),
            ("/v1/tenants/t/components/c", (Named::Files, true)),
            ("/v1/tenants/t/assets", (Named::Files, true)),
            ("/v1/tenants/t/else", (Named::Nothing, false)),
            ("/v1/tenants/t", (Named::Nothing, false)),
        ] {
            assert_eq!(named(path), expected, "{path}");
        }
    }
}
