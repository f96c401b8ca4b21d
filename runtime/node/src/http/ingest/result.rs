//! Waiting for a result: the event that leaves by the output `reply` is the reply.
//!
//! `200` with its payload; `204` when the event and all that followed from it were handled and
//! nothing came; `504` with a cursor when the time is over, and the event goes on. A client that
//! leaves takes its place in the table with it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use sluicebox_core::frame::{field, push_field};

use super::submit::Handed;
use super::{Call, REPLY, Request, single, submit};
use crate::durable::Logged;
use crate::error::Error;
use crate::http::body::Body;
use crate::http::text::{holds_json, push_time};
use crate::requests::{Answer, Reply, Waiting, cost_text};
use crate::running::{Intake, Submitted};

/// Content type of a result whose event has none: JSON if it is, else bytes.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What the event cost in each stage, if the request asked.
const USAGE: HeaderName = HeaderName::from_static("sluicebox-usage");

impl Call<'_> {
    /// Hands in the one event of a request that waits for its result.
    pub(super) async fn hand_in(
        &mut self,
        request: Request<'_>,
        mut host_fields: Vec<u8>,
    ) -> Result<Waiting, Error> {
        let retry_after = Duration::from_secs(1);
        let full = || Error::Overloaded { what: "more waiting clients", retry_after };
        let of = self.running.durable().map(|durable| durable.id);
        let requests = self.edge.node().requests();
        let mut waiting = requests.register(of).ok_or_else(full)?;
        if request.asked.usage {
            waiting.ask(requests);
        }
        let _fits = push_field(&mut host_fields, field::REQUEST, &waiting.id.0.to_le_bytes());
        let mut armed = 0;
        loop {
            let identity = submit::identity(&request.parts.headers, true)?;
            let mut intake = Intake::new(&self.running, identity);
            if let Some(traced) = self.traced {
                traced.again();
            }
            request.take_one(&self.rules(&request, &host_fields), &mut intake)?;
            let copies = intake.copies() as i64;
            // Before the events can be read, as the first of them may be done at once. What a
            // version that was replaced did not take is taken back.
            waiting.arm(copies - std::mem::replace(&mut armed, copies));
            match self.submit(intake, request.body).await? {
                // One event is known or not, never in part.
                Handed::Replaced | Handed::Known(_) => {}
                Handed::Over(Submitted::Logged(Logged::Repeat(_))) => {
                    let message = "an event of this id was taken before; its result can be read \
                                   from the output";
                    return Err(Error::request("ingest.repeat", message));
                }
                Handed::Over(_) => return Ok(waiting),
            }
            self.room().await?;
        }
    }

    /// Waits for what comes of it.
    pub(super) async fn result(
        &self,
        mut waiting: Waiting,
        wait: Duration,
    ) -> Result<Response<Body>, Error> {
        let mut response = match self.edge.within(wait, waiting.result()).await {
            Some(Reply::Output(answer)) => result(&answer),
            Some(Reply::Done) => empty(),
            None => return Err(self.deadline()),
        };
        if let Some(costs) = waiting.costs()
            && let Ok(costs) = HeaderValue::try_from(cost_text(&costs))
        {
            response.headers_mut().insert(USAGE, costs);
        }
        Ok(response)
    }

    fn deadline(&self) -> Error {
        let ring = self.running.output(REPLY);
        Error::Deadline { cursor: ring.map(|ring| ring.since(self.started).to_string()) }
    }
}

/// The result as a reply.
fn result(answer: &Answer) -> Response<Body> {
    let event = answer.event();
    let mut response = Response::new(Body::from(answer.payload()));
    let headers = response.headers_mut();
    let content_type = event.fields.get(field::CONTENT_TYPE).map(HeaderValue::from_bytes);
    let guess = || if holds_json(event.payload) { JSON } else { BYTES };
    headers.insert(CONTENT_TYPE, content_type.and_then(Result::ok).unwrap_or_else(guess));
    let mut add = |name: &'static str, value: &[u8]| {
        // A key may hold characters that no header can; then it is left out.
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    add(single::KEY, event.key);
    if let Some(id) = event.fields.get(field::EVENT_ID) {
        add(single::ID, id);
    }
    let mut time = Vec::with_capacity(27);
    push_time(&mut time, event.head.time);
    add(single::TIME, &time);
    response
}

fn empty() -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
