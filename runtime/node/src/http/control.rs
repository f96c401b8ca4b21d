//! Components and pipelines: upload, apply, list, describe, delete.
//!
//! Handlers only read the request, ask the node and write what it says. Who may call was decided
//! before the router; a name that breaks the rule for names cannot exist, so looking one up finds
//! nothing, and using one for something new is a mistake.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post, put};
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use sluicebox_core::ids::Name;
use sluicebox_core::limits::KEY_GROUPS;

use super::api::ROUTES;
use super::auth::Caller;
use super::body::{announced, collect_control, no_memory};
use super::coding::{Coding, expand};
use super::text::{query_pairs, unknown_parameter};
use super::{replay, respond};
use crate::deploy::Order;
use crate::error::Error;
use crate::node::Node;
use crate::tenants::Scope;

/// Largest manifest; a long one has a few kilobytes.
const MANIFEST_BYTES_MAX: usize = 1024 * 1024;

pub(super) type Reply = Result<Response, Error>;

/// The routes of the table that are not matched by hand, for one worker.
pub(super) fn router(node: &Arc<Node>) -> Router {
    let mut router = Router::new();
    for (path, handler) in ROUTES.iter().filter_map(|r| Some((r.path, handler(r.id)?))) {
        router = router.route(path, handler);
    }
    router.fallback(no_route).method_not_allowed_fallback(no_method).with_state(Arc::clone(node))
}

/// What answers a row of the table.
pub(super) fn handler(id: &str) -> Option<MethodRouter<Arc<Node>>> {
    Some(match id {
        "listComponents" => get(components),
        "pushComponent" => put(push),
        "describeComponent" => get(component),
        "deleteComponent" => delete(delete_component),
        "pushAsset" => post(push_asset),
        "listPipelines" => get(pipelines),
        "applyPipeline" => put(apply),
        "describePipeline" => get(describe),
        "deletePipeline" => delete(delete_pipeline),
        "replayDeadLetters" => post(replay::replay),
        "resumePipeline" => post(resume),
        "rollBackPipeline" => post(roll_back),
        "movePipeline" => post(move_pipeline),
        "planPartitions" => get(plan),
        "describeGpu" => get(gpu),
        "describeTenant" => get(usage),
        "describeBill" => get(super::bill::bill),
        _ => return None,
    })
}

async fn no_route(uri: Uri) -> Error {
    Error::not_found("route", uri.path())
}

async fn no_method(uri: Uri) -> Error {
    let allow = match uri.path().split('/').skip(4).collect::<Vec<_>>().as_slice() {
        ["components" | "pipelines" | "plan" | "gpu" | "usage" | "bill"] => "GET, HEAD",
        ["assets"] | [.., "resume" | "replay" | "rollback" | "move"] => "POST",
        _ => "GET, HEAD, PUT, DELETE",
    };
    Error::Method { allow }
}

/// What every handler gets: the node, who calls, and the name in the path.
pub(super) struct Call {
    pub(super) node: Arc<Node>,
    pub(super) tenant: Name,
    name: String,
    pub(super) caller: Arc<Caller>,
}

impl Call {
    /// The name of something that may come to be.
    fn new_name(&self) -> Result<Name, Error> {
        Ok(Name::new(&self.name)?)
    }

    /// The name of something that should exist.
    pub(super) fn known_name(&self, what: &'static str) -> Result<Name, Error> {
        Name::new(&self.name).map_err(|_| Error::not_found(what, &self.name))
    }

    /// Reads a body, within the node's budget for bodies.
    async fn body(&self, headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Error> {
        let length = announced(headers).and_then(|length| usize::try_from(length).ok());
        let too_large = || Error::TooLarge { what: "the request body", limit: limit as u64 };
        let expected = length.unwrap_or(limit);
        if expected > limit {
            return Err(too_large());
        }
        let coding = Coding::of(headers)?;
        let mut held = self.node.admission().bodies().take(expected).ok_or_else(no_memory)?;
        let body = collect_control(body, limit, self.node.config().http.body_time_max).await?;
        expand((body, coding), limit, &mut held).await
    }
}

impl axum::extract::FromRequestParts<Arc<Node>> for Call {
    type Rejection = Error;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        node: &Arc<Node>,
    ) -> Result<Self, Error> {
        let internal = |_| Error::Internal("a control request without a caller".to_owned());
        let Extension(caller) =
            Extension::<Arc<Caller>>::from_request_parts(parts, node).await.map_err(internal)?;
        // As it is written, as it is everywhere: a name holds nothing that would need a code.
        let name = parts.uri.path().split('/').nth(5).unwrap_or_default().to_owned();
        let (node, tenant) = (Arc::clone(node), caller.identity.tenant.clone());
        Ok(Self { node, tenant, name, caller })
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    Ok(respond::json(status, value))
}

fn no_content() -> Reply {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Does something to its end, whatever becomes of the client meanwhile: a pipeline is not left
/// between two versions because a connection broke.
pub(super) async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_local(change).await;
    done.map_err(|error| Error::Internal(format!("changing a pipeline: {error}")))?
}

async fn push(call: Call, headers: HeaderMap, body: Body) -> Reply {
    let name = call.new_name()?;
    let limit = call.node.config().engine.upload_bytes_max;
    let bytes = call.body(&headers, body, limit).await?;
    let (info, new) = call.node.push_component(&call.tenant, &name, bytes).await?;
    json(if new { StatusCode::CREATED } else { StatusCode::OK }, &info)
}

async fn push_asset(call: Call, headers: HeaderMap, body: Body) -> Reply {
    let limit = call.node.config().engine.upload_bytes_max;
    let bytes = call.body(&headers, body, limit).await?;
    json(StatusCode::CREATED, &call.node.push_asset(&call.tenant, bytes).await?)
}

async fn components(call: Call) -> Reply {
    json(StatusCode::OK, &call.node.components(&call.tenant).await?)
}

async fn component(call: Call) -> Reply {
    let all = call.node.components(&call.tenant).await?;
    let found = all.iter().find(|component| component.name == call.name);
    json(StatusCode::OK, found.ok_or_else(|| Error::not_found("component", &call.name))?)
}

async fn delete_component(call: Call) -> Reply {
    let name = call.known_name("component")?;
    call.node.delete_component(&call.tenant, &name).await?;
    no_content()
}

async fn apply(call: Call, uri: Uri, headers: HeaderMap, body: Body) -> Reply {
    let name = call.new_name()?;
    let order = order_of_apply(&uri)?;
    let text = call.body(&headers, body, MANIFEST_BYTES_MAX).await?;
    let dry_run = order.dry_run;
    let Call { node, tenant, .. } = call;
    let applied = to_its_end(async move { node.apply(&tenant, &name, text, &order).await }).await?;
    let made = applied.created && !dry_run;
    json(if made { StatusCode::CREATED } else { StatusCode::OK }, &applied)
}

async fn roll_back(call: Call, uri: Uri) -> Reply {
    let name = call.known_name("pipeline")?;
    let mut to = None;
    let order = order(&uri, "`to`, `dry-run` or `discard-state`", |parameter, value| {
        if parameter == "to" {
            let number = value.parse().map_err(|_| "`to` is the number of a version".to_owned());
            to = Some(number?);
        }
        Ok(parameter == "to")
    })?;
    let Call { node, tenant, .. } = call;
    let rolled = to_its_end(async move { node.roll_back(&tenant, &name, to, &order).await });
    json(StatusCode::OK, &rolled.await?)
}

async fn move_pipeline(call: Call, uri: Uri) -> Reply {
    call.caller.has(Scope::Admin)?;
    let name = call.known_name("pipeline")?;
    let (mut to, mut partitions) = (None, None);
    for pair in query_pairs(uri.query()) {
        match pair? {
            (parameter, value) if parameter == "to" => to = Some(value.into_owned()),
            (parameter, value) if parameter == "partitions" => {
                partitions = Some(partition_numbers(&value)?);
            }
            (parameter, _) => return Err(unknown_parameter(&parameter, "`to` or `partitions`")),
        }
    }
    let missing = || Error::request("request.query", "`to` says to which node");
    let to = to.ok_or_else(missing)?;
    let Call { node, tenant, .. } = call;
    let moved = to_its_end(async move {
        match partitions.or_else(|| node.coming_home((&tenant, &name), &to)) {
            Some(partitions) => node.move_partitions((&tenant, &name), &partitions, &to).await,
            None => node.move_pipeline(&tenant, &name, &to).await,
        }
    });
    json(StatusCode::OK, &moved.await?)
}

async fn plan(call: Call, uri: Uri) -> Reply {
    call.caller.has(Scope::Admin)?;
    let mut pipeline = None;
    for pair in query_pairs(uri.query()) {
        match pair? {
            (parameter, value) if parameter == "pipeline" => pipeline = Some(Name::new(&value)?),
            (parameter, _) => return Err(unknown_parameter(&parameter, "`pipeline`")),
        }
    }
    let planned = call.node.plan(&call.tenant, pipeline.as_ref()).await;
    json(StatusCode::OK, &planned?)
}

async fn gpu(call: Call) -> Reply {
    call.caller.has(Scope::Read)?;
    let terms = call.node.gpu_terms(&call.tenant);
    json(StatusCode::OK, &call.node.gpus().report(&call.tenant, terms))
}

async fn usage(call: Call) -> Reply {
    let scopes = call.caller.identity.scopes;
    json(StatusCode::OK, &call.node.describe_tenant(&call.tenant, scopes))
}

/// `0,2,5-7`: numbers and ranges of partitions.
fn partition_numbers(text: &str) -> Result<BTreeSet<u16>, Error> {
    let message = "`partitions` are numbers and ranges of them, as in 0,2,5-7";
    let wrong = || Error::request("request.query", message);
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|at| *at < KEY_GROUPS);
    let mut numbers = BTreeSet::new();
    for item in text.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = number(first).zip(number(last)).ok_or_else(wrong)?;
        numbers.extend(first..=last);
    }
    if numbers.is_empty() { Err(wrong()) } else { Ok(numbers) }
}

/// `?dry-run`, `?dry-run=true` or `?dry-run=false`, and a `discard-state=` for each stage. `other`
/// is shown what else there is, and says whether it knows it; `known` is what there may be.
fn order(
    uri: &Uri,
    known: &str,
    mut other: impl FnMut(&str, &str) -> Result<bool, String>,
) -> Result<Order, Error> {
    let mut order = Order::default();
    let bad = |message: String| Error::request("request.query", message);
    for pair in query_pairs(uri.query()) {
        let (name, value) = pair?;
        match (name.as_ref(), value.as_ref()) {
            ("dry-run", "" | "true") => order.dry_run = true,
            ("dry-run", "false") => order.dry_run = false,
            ("dry-run", _) => return Err(bad("`dry-run` is `true` or `false`".to_owned())),
            ("discard-state", stage) => {
                let stage = Name::new(stage);
                let stage =
                    stage.map_err(|_| bad("`discard-state` is the name of a stage".to_owned()))?;
                order.discard.insert(stage.to_string());
            }
            (name, value) if other(name, value).map_err(bad)? => {}
            (name, _) => return Err(unknown_parameter(name, known)),
        }
    }
    Ok(order)
}

/// What an apply is told besides the manifest.
fn order_of_apply(uri: &Uri) -> Result<Order, Error> {
    order(uri, "`dry-run` or `discard-state`", |_, _| Ok(false))
}

async fn pipelines(call: Call) -> Reply {
    json(StatusCode::OK, &call.node.pipelines(&call.tenant).await)
}

async fn describe(call: Call) -> Reply {
    let name = call.known_name("pipeline")?;
    json(StatusCode::OK, &call.node.describe(&call.tenant, &name).await?)
}

async fn delete_pipeline(call: Call) -> Reply {
    let name = call.known_name("pipeline")?;
    let Call { node, tenant, .. } = call;
    to_its_end(async move { node.delete_pipeline(&tenant, &name).await }).await?;
    no_content()
}

async fn resume(call: Call) -> Reply {
    let name = call.known_name("pipeline")?;
    call.node.resume(&call.tenant, &name).await?;
    no_content()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_is_asked_for_in_words() {
        let asked = |query: &str| order_of_apply(&format!("/p?{query}").parse().expect("a URI"));
        let dry = |query: &str| asked(query).expect("good").dry_run;
        assert!(dry("dry-run") && dry("dry-run=true"));
        assert!(!dry("dry-run=false") && !dry(""));
        assert!(asked("dry-run=maybe").is_err() && asked("dryrun=true").is_err());
    }

    #[test]
    fn partitions_are_numbers_and_ranges() {
        let numbers =
            |text: &str| partition_numbers(text).map(|all| all.into_iter().collect::<Vec<u16>>());
        assert_eq!(numbers("3").expect("good"), vec![3]);
        assert_eq!(numbers("0,2, 5-7,6").expect("good"), vec![0, 2, 5, 6, 7]);
        for bad in ["", ",", "1-", "-1", "7-5", "1024", "a", "1;2"] {
            assert!(partition_numbers(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_stage_whose_state_goes_is_named() {
        let asked = |query: &str| order_of_apply(&format!("/p?{query}").parse().expect("a URI"));
        let both = asked("discard-state=count&dry-run&discard-state=split").expect("good");
        assert!(both.dry_run);
        assert_eq!(both.discard.into_iter().collect::<Vec<_>>(), ["count", "split"]);
        for bad in ["discard-state", "discard-state=", "discard-state=A%20B"] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }
}
