//! What tenants' processes say of themselves, gathered for a scrape: bounded in bytes and time.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use sluicebox_core::ids::Name;

use super::way::Reached;
use crate::error::Error;
use crate::front::Inside;
use crate::http::server::Edge;

/// The figures of one process and of all, and how long they may take.
const FIGURES_BYTES_MAX: usize = 2 << 20;
const FIGURES_BYTES_TOTAL: usize = 64 << 20;
const FIGURES_TIME_MAX: Duration = Duration::from_secs(2);

/// The figures of all processes that are up, as they tell them; without those that do not in time,
/// or are too many.
pub(in crate::http) async fn figures(edge: &Rc<Edge>) -> Vec<(Name, String)> {
    let inside = edge.node().front().all().into_iter().filter_map(|process| process.look_in());
    let asked = inside.map(|inside| async move {
        let tenant = inside.tenant().clone();
        match tokio::time::timeout(FIGURES_TIME_MAX, figures_of(inside)).await {
            Ok(Ok(text)) => return Some((tenant, text)),
            Ok(Err(error)) => tracing::warn!(%tenant, %error, "has no figures"),
            Err(_) => tracing::warn!(%tenant, "tells no figures in time"),
        }
        None
    });
    let mut left = FIGURES_BYTES_TOTAL;
    let all = futures_util::future::join_all(asked).await;
    let fits = |(_, text): &(Name, String)| {
        let fits = text.len() <= left;
        left -= if fits { text.len() } else { 0 };
        fits
    };
    all.into_iter().flatten().filter(fits).collect()
}

async fn figures_of(inside: Inside) -> Result<String, Error> {
    let reached = Reached::Process(inside);
    let mut sender = reached.connect::<Empty<Bytes>>().await?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = Uri::from_static("/metrics");
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(error) => return Err(reached.gone(&error).await),
    };
    let body = Limited::new(response.into_body(), FIGURES_BYTES_MAX).collect().await;
    let body = body.map_err(|error| Error::Internal(format!("its figures: {error}")))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}
