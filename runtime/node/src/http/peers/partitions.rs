//! What other nodes ask about partitions, and what they have this one do with them.
//!
//! The other end: `cluster/ask/partitions.rs`.

use http::{Response, StatusCode};
use hyper::body::Incoming;
use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_link::tls::NodeName;

use super::{parameters, read, read_bytes};
use crate::error::Error;
use crate::http::body::Body;
use crate::http::control::to_its_end;
use crate::http::respond;
use crate::http::server::Edge;
use crate::moving::{Joining, KEPT_MORE_BYTES, Preparing};

/// What is asked: of which pipeline, and how.
pub(super) struct Asked<'a> {
    pub(super) tenant: Name,
    pub(super) name: Name,
    pub(super) step: &'a str,
    pub(super) query: Option<&'a str>,
}

impl Asked<'_> {
    fn unknown(&self) -> Error {
        Error::not_found("route", self.step)
    }

    fn id(&self) -> Result<PipelineId, Error> {
        let [pipeline] = parameters(self.query, ["pipeline"])?;
        pipeline.parse().map(PipelineId).map_err(|_| self.unknown())
    }

    fn partitions(&self) -> Result<Vec<u16>, Error> {
        let [list] = parameters(self.query, ["partitions"])?;
        let numbers: Result<Vec<u16>, _> = list.split(',').map(str::parse).collect();
        let wrong = || Error::request("request.query", "`partitions` are ascending numbers");
        let numbers = numbers.map_err(|_| wrong())?;
        // They are written into records as they come.
        if numbers.is_sorted_by(|one, next| one < next) { Ok(numbers) } else { Err(wrong()) }
    }
}

/// A look at what is here; none if it is no question of these.
pub(super) async fn look(edge: &Edge, asked: &Asked<'_>) -> Option<Result<Response<Body>, Error>> {
    let answer = match asked.step {
        "shape" => asked.id().and_then(|id| {
            let shape = edge.node().shape(id).ok_or_else(|| asked.unknown());
            shape.map(|shape| respond::json(StatusCode::OK, &shape))
        }),
        "groups" => groups(edge, asked).await,
        "whereabouts" => asked.id().and_then(|id| {
            let placed = edge.node().placed(id).ok_or_else(|| asked.unknown())?;
            Ok(respond::json(StatusCode::OK, &placed))
        }),
        "partitions" => asked.id().map(|id| {
            let details = edge.node().partitions_here(id);
            respond::json(StatusCode::OK, &details)
        }),
        _ => return None,
    };
    Some(answer)
}

async fn groups(edge: &Edge, asked: &Asked<'_>) -> Result<Response<Body>, Error> {
    let (id, partitions) = (asked.id()?, asked.partitions()?);
    let [from] = parameters(asked.query, ["from"])?;
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let from: Option<Vec<u8>> = from.as_bytes().chunks(2).map(byte).collect();
    let wrong = || Error::request("request.query", "`from` is in hexadecimal digits");
    let from = from.ok_or_else(wrong)?;
    let page = edge.node().groups_page((&asked.tenant, id), &partitions, from).await?;
    Ok(Response::new(Body::from(page.ok_or_else(|| asked.unknown())?)))
}

/// A step of a move; none if it is none of these.
pub(super) async fn act(
    edge: &Edge,
    from: &NodeName,
    asked: &Asked<'_>,
    body: Incoming,
) -> Option<Result<Response<Body>, Error>> {
    let done = match asked.step {
        "prepare-part" => prepare(edge, from, asked, body).await,
        "take-groups" => take(edge, from, asked, body).await,
        "give-back" => give(edge, from, asked).await,
        "drop-copied" => drop_copied(edge, from, asked).await,
        "take-changes" => changes(edge, from, asked, body).await,
        "join" => join(edge, from, asked, body).await,
        "end-part" => end(edge, from, asked).await,
        "resume-part" => asked.id().map(|id| {
            let number = edge.node().trunks().number_of(from.as_str());
            if let Some(running) = edge.node().spread(id)
                && running.shared().part.as_ref().map(|reports| reports.home()) == number
            {
                running.resume();
            }
            respond::json(StatusCode::OK, &true)
        }),
        _ => return None,
    };
    Some(done)
}

async fn prepare(
    edge: &Edge,
    from: &NodeName,
    asked: &Asked<'_>,
    body: Incoming,
) -> Result<Response<Body>, Error> {
    let (id, (preparing, turn)): (_, (Preparing, _)) = (asked.id()?, read(edge, from, body).await?);
    let node = edge.node().clone();
    let peer = node.peer(from).ok_or_else(|| asked.unknown())?;
    let (tenant, name) = (asked.tenant.clone(), asked.name.clone());
    let preparing = async move {
        let _turn = turn;
        node.prepare_part((&tenant, &name), (id, &peer), &preparing).await
    };
    let prepared = to_its_end(preparing).await;
    // Why it does not want them is told to who asked for the move.
    Ok(respond::json(StatusCode::OK, &prepared.err().map(|error| error.to_string())))
}

async fn take(
    edge: &Edge,
    from: &NodeName,
    asked: &Asked<'_>,
    body: Incoming,
) -> Result<Response<Body>, Error> {
    let (id, partitions) = (asked.id()?, asked.partitions()?);
    let node = edge.node().clone();
    let peer = node.peer(from).ok_or_else(|| asked.unknown())?;
    let [attempt, kept] = parameters(asked.query, ["attempt", "kept"])?;
    let attempt = attempt.parse().map_err(|_| asked.unknown())?;
    let kept: usize = kept.parse().map_err(|_| asked.unknown())?;
    let (tenant, name) = (asked.tenant.clone(), asked.name.clone());
    node.check_room_for(&name, kept.saturating_add(KEPT_MORE_BYTES))?;
    // It takes as long as the state is large: so it has a place of its own, and no other's turn.
    let place = peer.copy().await;
    let (preparing, _): (Preparing, _) = read(edge, from, body).await?;
    let room = node.record_room();
    let taking = async move {
        let _place = place;
        let what = (&partitions[..], attempt, &preparing);
        node.take_groups((&tenant, &name), (id, &peer), what).await
    };
    to_its_end(taking).await?;
    Ok(respond::json(StatusCode::OK, &room))
}

async fn give(edge: &Edge, from: &NodeName, asked: &Asked<'_>) -> Result<Response<Body>, Error> {
    let (id, partitions, name) = (asked.id()?, asked.partitions()?, asked.name.clone());
    let node = edge.node().clone();
    let peer = node.peer(from).ok_or_else(|| asked.unknown())?;
    let giving = async move { node.give_partitions_back(&peer, (id, &partitions), &name).await };
    let given = to_its_end(giving).await.map_err(|error| error.to_string());
    Ok(respond::json(StatusCode::OK, &given))
}

async fn drop_copied(
    edge: &Edge,
    from: &NodeName,
    asked: &Asked<'_>,
) -> Result<Response<Body>, Error> {
    let id = asked.id()?;
    let peer = edge.node().peer(from).ok_or_else(|| asked.unknown())?;
    let [attempt] = parameters(asked.query, ["attempt"])?;
    let attempt = attempt.parse().map_err(|_| asked.unknown())?;
    let (node, tenant, name) = (edge.node().clone(), asked.tenant.clone(), asked.name.clone());
    let dropping = async move { node.drop_copied((&tenant, &name), (id, &peer, attempt)).await };
    to_its_end(dropping).await?;
    Ok(respond::json(StatusCode::OK, &true))
}

async fn changes(
    edge: &Edge,
    from: &NodeName,
    asked: &Asked<'_>,
    body: Incoming,
) -> Result<Response<Body>, Error> {
    let (id, (page, turn)) = (asked.id()?, read_bytes(edge, from, body).await?);
    let peer = edge.node().peer(from).ok_or_else(|| asked.unknown())?;
    let [attempt] = parameters(asked.query, ["attempt"])?;
    let attempt = attempt.parse().map_err(|_| asked.unknown())?;
    let (node, tenant, name) = (edge.node().clone(), asked.tenant.clone(), asked.name.clone());
    let taking = async move {
        let _turn = turn;
        node.take_changes((&tenant, &name), (id, &peer, attempt), &page).await
    };
    to_its_end(taking).await?;
    Ok(respond::json(StatusCode::OK, &true))
}

async fn join(
    edge: &Edge,
    from: &NodeName,
    asked: &Asked<'_>,
    body: Incoming,
) -> Result<Response<Body>, Error> {
    let wrong = || Error::request("request.body", "not what was asked for");
    let (body, turn) = read_bytes(edge, from, body).await?;
    let joining = Joining::from_bytes(&body).ok_or_else(wrong)?;
    let node = edge.node().clone();
    let peer = node.peer(from).ok_or_else(|| asked.unknown())?;
    let (tenant, name) = (asked.tenant.clone(), asked.name.clone());
    let joined = async move {
        let _turn = turn;
        node.join_partitions((&tenant, &name), (&peer, joining)).await
    };
    Ok(respond::json(StatusCode::OK, &to_its_end(joined).await?))
}

async fn end(edge: &Edge, from: &NodeName, asked: &Asked<'_>) -> Result<Response<Body>, Error> {
    let id = asked.id()?;
    let node = edge.node().clone();
    let number = node.trunks().number_of(from.as_str()).ok_or_else(|| asked.unknown())?;
    let (tenant, name) = (asked.tenant.clone(), asked.name.clone());
    to_its_end(async move { node.end_part_of((&tenant, &name), (number, id)).await }).await?;
    Ok(respond::json(StatusCode::OK, &true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_told_in_order() {
        let name = |text| Name::new(text).expect("a name");
        let asked = |query: &str| {
            let query = Some(query).filter(|query| !query.is_empty());
            let asked = Asked { tenant: name("t"), name: name("p"), step: "give-back", query };
            asked.partitions()
        };
        assert_eq!(asked("partitions=0,2,1023").expect("they are"), [0, 2, 1023]);
        for wrong in ["2,1", "1,1", "1,", "", "-1", "65536", "a"] {
            let error = asked(&format!("partitions={wrong}")).expect_err(wrong).to_string();
            assert!(error.contains("`partitions` are ascending numbers"), "{wrong}: {error}");
        }
    }
}
