//! What other nodes ask this one for themselves: how it is, what it has, files of tenants.
//!
//! Only connections that have shown a node's certificate get here. A node may read what tenants
//! have here: it is part of the same system, and would be given it with the pipeline.
//!
//! The other end: `cluster/ask.rs`.

mod partitions;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use sluicebox_core::ids::{Digest, Name, PipelineId};
use sluicebox_link::tls::NodeName;
use tokio::sync::OwnedSemaphorePermit;

use super::body::{Body, collect_control};
use super::control::to_its_end;
use super::respond;
use super::server::Edge;
use super::text::query_pairs;
use crate::components::Files;
use crate::error::Error;
use crate::moving::{Opening, Preparing};
use partitions::Asked;

/// Where these questions are.
pub(super) const PEER: &str = "/peer/v1/";

/// Bytes of what a node may be told at once.
const BODY_BYTES_MAX: usize = 128 << 20;

/// Answers a question of `from`, or does what it asks for.
///
/// # Errors
/// There is no such thing here; the store fails.
pub(super) async fn answer(
    edge: &Edge,
    from: &NodeName,
    request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let (parts, body) = request.into_parts();
    let question = parts.uri.path().strip_prefix(PEER).unwrap_or_default();
    let segments: Vec<&str> = question.split('/').collect();
    if segments[..] != ["state"] && !edge.node().has_started() {
        return Err(Error::Starting);
    }
    match parts.method {
        Method::GET => look(edge, &segments, parts.uri.query()).await,
        Method::POST => act(edge, from, (&segments, parts.uri.query()), body).await,
        _ => Err(Error::Method { allow: "GET, POST" }),
    }
}

/// What is here.
async fn look(
    edge: &Edge,
    question: &[&str],
    query: Option<&str>,
) -> Result<Response<Body>, Error> {
    let node = edge.node();
    let unknown = || Error::not_found("route", &question.join("/"));
    match *question {
        ["state"] => {
            let [seen] = parameters(query, ["seen"])?;
            Ok(respond::json(StatusCode::OK, &node.state(&seen)))
        }
        ["home"] => {
            let [pipeline] = parameters(query, ["pipeline"])?;
            let id = pipeline.parse().map(PipelineId).map_err(|_| unknown())?;
            Ok(respond::json(StatusCode::OK, &node.has_id(id)))
        }
        ["report"] => Ok(respond::json(StatusCode::OK, &node.report())),
        ["still"] => {
            let [pipeline] = parameters(query, ["pipeline"])?;
            let still = node.leaving().iter().any(|entry| entry.id.0.to_string() == pipeline);
            Ok(respond::json(StatusCode::OK, &still))
        }
        ["tenants", tenant, "pipelines"] => {
            Ok(respond::json(StatusCode::OK, &node.pipelines(&Name::new(tenant)?).await))
        }
        ["tenants", tenant, "account"] => {
            let account = node.bill().account(Name::new(tenant)?).await?;
            Ok(Response::new(Body::from(Bytes::from(account))))
        }
        ["tenants", tenant, "components"] => {
            let names = node.components_of().names(&Name::new(tenant)?).await?;
            Ok(respond::json(StatusCode::OK, &names))
        }
        ["tenants", tenant, "pipelines", name, "page"] => {
            let [from] = parameters(query, ["from"])?;
            let page = node.departing_page((&Name::new(tenant)?, &Name::new(name)?), &from).await?;
            Ok(Response::new(Body::from(page.ok_or_else(unknown)?)))
        }
        ["tenants", tenant, "pipelines", name, step] => {
            let (tenant, name) = (Name::new(tenant)?, Name::new(name)?);
            let asked = Asked { tenant, name, step, query };
            partitions::look(edge, &asked).await.ok_or_else(unknown)?
        }
        ["tenants", tenant, kind, digest] => {
            let files = Files::of_word(kind).ok_or_else(unknown)?;
            let digest = Digest::parse(&format!("sha256:{digest}")).ok_or_else(unknown)?;
            let file = node.components_of().file(&Name::new(tenant)?, files, &digest).await?;
            Ok(Response::new(Body::from(file.ok_or_else(unknown)?)))
        }
        _ => Err(unknown()),
    }
}

/// A step of a hand-over.
async fn act(
    edge: &Edge,
    from: &NodeName,
    (question, query): (&[&str], Option<&str>),
    body: Incoming,
) -> Result<Response<Body>, Error> {
    let unknown = || Error::not_found("route", &question.join("/"));
    let ["tenants", tenant, "pipelines", name, step] = *question else { return Err(unknown()) };
    let (tenant, name) = (Name::new(tenant)?, Name::new(name)?);
    let node = edge.node().clone();
    let number = || {
        let [pipeline] = parameters(query, ["pipeline"])?;
        pipeline.parse().map(PipelineId).map_err(|_| unknown())
    };
    match step {
        "prepare" => {
            let (id, (preparing, _turn)): (_, (Preparing, _)) =
                (number()?, read(edge, from, body).await?);
            let prepared = node.prepare_arrival((&tenant, &name), (id, &preparing)).await;
            // Why it does not want it is told to who asked for the move.
            let refusal = prepared.err().map(|error| error.to_string());
            Ok(respond::json(StatusCode::OK, &refusal))
        }
        "take" => {
            let id = number()?;
            let peer = node.peer(from).ok_or_else(unknown)?;
            let [kept] = parameters(query, ["kept"])?;
            node.check_room_for(&name, kept.parse().map_err(|_| unknown())?)?;
            let taking = async move { node.take_arrival((&tenant, &name), (id, &peer)).await };
            to_its_end(taking).await?;
            Ok(respond::json(StatusCode::OK, &true))
        }
        "open" => {
            let (opening, turn): (Opening, _) = read(edge, from, body).await?;
            let from = from.clone();
            let opening = async move {
                let _turn = turn;
                node.open_arrival((&tenant, &name), (&from, opening)).await
            };
            Ok(respond::json(StatusCode::OK, &to_its_end(opening).await?))
        }
        "settled" => {
            node.settle_from(number()?, from).await?;
            Ok(respond::json(StatusCode::OK, &true))
        }
        _ => {
            let asked = Asked { tenant, name, step, query };
            partitions::act(edge, from, &asked, body).await.ok_or_else(unknown)?
        }
    }
}

/// What `from` has this node do with what it says, in its turn: what is said is in memory from here
/// until what is given besides is dropped.
async fn read<T: DeserializeOwned>(
    edge: &Edge,
    from: &NodeName,
    body: Incoming,
) -> Result<(T, OwnedSemaphorePermit), Error> {
    let (body, turn) = read_bytes(edge, from, body).await?;
    let wrong = |error| Error::request("request.body", format!("not what was asked for: {error}"));
    serde_json::from_slice(&body).map(|read| (read, turn)).map_err(wrong)
}

/// The same, as it comes.
async fn read_bytes(
    edge: &Edge,
    from: &NodeName,
    body: Incoming,
) -> Result<(Bytes, OwnedSemaphorePermit), Error> {
    let unknown = || Error::not_found("node", from.as_str());
    let turn = edge.node().peer(from).ok_or_else(unknown)?.order().await;
    let body = axum::body::Body::new(body);
    let time_max = edge.node().config().http.body_time_max;
    Ok((collect_control(body, BODY_BYTES_MAX, time_max).await?, turn))
}

/// The values of these parameters, in order; empty for those that are not there.
fn parameters<const N: usize>(query: Option<&str>, names: [&str; N]) -> Result<[String; N], Error> {
    let mut values = [const { String::new() }; N];
    for pair in query_pairs(query) {
        let (name, value) = pair?;
        if let Some(at) = names.iter().position(|known| *known == name.as_ref()) {
            values[at] = value.into_owned();
        }
    }
    Ok(values)
}
