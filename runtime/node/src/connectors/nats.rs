//! Subjects of NATS: messages that come in, results that go out.
//!
//! ```text
//! stream ─► consumer ─► Stream ─► feed          Publisher ─► subject ─► stream confirms
//! subject ────────────► Subject ─► feed                        or the server does
//! ```
//!
//! The client is our own (`client`, `wire`): addresses are looked at before they are connected to,
//! whatever the server says has bounds, and no other server is connected to than the one that was
//! allowed.
//!
//! A message is a CloudEvent if its header says so, in either mode; else its payload is that of an
//! event of the type `nats.message` with the message's subject.

mod client;
mod consumer;
mod credentials;
mod publish;
mod stream;
mod subject;
#[cfg(test)]
mod tests;
mod wire;

use http::Uri;
use sluicebox_core::ids::Name;
use sluicebox_core::manifest::show;
use sluicebox_core::pipeline::{NatsSink, NatsSource};

use super::grants::{Grants, Refused};
use super::road::Road;
use crate::egress::target::{Scheme, Target};
use client::Server;
use consumer::Names;
use publish::Publisher;
use stream::Stream;
use subject::Subject;

/// How a URL of a server begins, and the port of one that names none.
const SCHEMES: [Scheme; 2] = [("tls", true, 4222), ("nats", false, 4222)];

/// Whose source or sink: tenant, pipeline, and its own name.
pub(super) type Whose<'a> = (&'a Name, &'a Name, &'a str);

/// Refuses a source that cannot be, or may not be reached.
pub(super) fn check_source(grants: &Grants<'_>, declared: &NatsSource) -> Result<(), Refused> {
    check_server(grants, &declared.url, declared.secret.as_deref())?;
    if let Some(subject) = &declared.subject {
        check_subject(subject, true)?;
    }
    for (field, name) in
        [("stream", &declared.stream), ("consumer", &declared.consumer), ("queue", &declared.queue)]
    {
        let Some(name) = name else { continue };
        let is_bad = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
        if name.is_empty() || name.contains(is_bad) {
            let message = format!("is {}, which is no name", show(name));
            let fix = "write a name of NATS: without dots, spaces, slashes, `*` and `>`";
            return Err(Refused::new(field, "connector.subject", message, fix));
        }
    }
    Ok(())
}

/// Refuses a sink that cannot be, or may not be reached.
pub(super) fn check_sink(grants: &Grants<'_>, declared: &NatsSink) -> Result<(), Refused> {
    check_server(grants, &declared.url, declared.secret.as_deref())?;
    check_subject(&declared.subject, false)
}

fn check_server(grants: &Grants<'_>, url: &str, secret: Option<&str>) -> Result<(), Refused> {
    let target = target(url)?;
    grants.host(&target)?;
    secret.map_or(Ok(()), |secret| grants.secret(secret).map(drop))
}

fn target(url: &str) -> Result<Target, Refused> {
    let refused = |why: &str| {
        let message = format!("is {}, which {why}", show(url));
        let fix = "write it as nats://host:port, or tls://host:port; a secret says who one is";
        Refused::new("url", "connector.url", message, fix)
    };
    let uri: Uri = url.parse().map_err(|_| refused("is no URL"))?;
    let has_more = uri.path_and_query().is_some_and(|path| !matches!(path.as_str(), "" | "/"));
    if has_more || url.contains('#') {
        return Err(refused("is no URL of a server"));
    }
    let found = Target::by(&SCHEMES, &uri);
    found.map_err(|why| refused(why.unwrap_or("is neither nats nor tls")))
}

/// Refuses what is no subject; one that is listened to may have wildcards.
fn check_subject(subject: &str, may_be_many: bool) -> Result<(), Refused> {
    let words: Vec<&str> = subject.split('.').collect();
    let is_word = |(at, word): (usize, &&str)| match *word {
        "" => false,
        "*" => may_be_many,
        ">" => may_be_many && at + 1 == words.len(),
        word => !word.contains(|c: char| c.is_whitespace() || c.is_control()),
    };
    // What the server itself is asked by is not for results.
    let is_own = !may_be_many && subject.starts_with('$');
    if words.iter().enumerate().all(is_word) && !is_own {
        return Ok(());
    }
    let message = format!("is {}, which is no subject for this", show(subject));
    let fix = match may_be_many {
        true => "write words with dots between them; `*` is any word, `>` all that follow",
        false => "write words with dots between them, without wildcards and no `$` in front",
    };
    Err(Refused::new("subject", "connector.subject", message, fix))
}

async fn server(
    grants: &Grants<'_>,
    (url, secret): (&str, Option<&str>),
    (tenant, pipeline, name): Whose<'_>,
) -> Result<Server, Refused> {
    let target = target(url)?;
    let authorities = grants.authorities().to_owned();
    Ok(Server {
        road: Road::new(target, grants.reach(), authorities).await?,
        secret: secret.map(|secret| grants.secret(secret)).transpose()?,
        name: format!("sluicebox {tenant}/{pipeline}/{name}"),
    })
}

/// A source: of a stream, or of a subject.
pub(super) enum Opened {
    Stream(Box<Stream>),
    Subject(Box<Subject>),
}

/// Opens a source. Nothing is connected to yet.
pub(super) async fn open_source(
    grants: &Grants<'_>,
    whose: Whose<'_>,
    declared: &NatsSource,
) -> Result<Opened, Refused> {
    check_source(grants, declared)?;
    let server = server(grants, (&declared.url, declared.secret.as_deref()), whose).await?;
    let (tenant, pipeline, name) = whose;
    let Some(stream) = &declared.stream else {
        let subject = declared.subject.as_deref().unwrap_or_default();
        return Ok(Opened::Subject(Box::new(Subject::new(server, subject, declared))));
    };
    // Names have no such lines in them, so that no two make the same.
    let own = || format!("sluicebox_{tenant}_{pipeline}_{name}");
    let consumer = declared.consumer.clone().unwrap_or_else(own);
    let names = Names { stream: stream.clone(), consumer, filter: declared.subject.clone() };
    Ok(Opened::Stream(Box::new(Stream::new(server, name, names, declared))))
}

/// Opens a sink. Nothing is connected to yet.
pub(super) async fn open_sink(
    grants: &Grants<'_>,
    whose: Whose<'_>,
    declared: &NatsSink,
) -> Result<Publisher, Refused> {
    check_sink(grants, declared)?;
    let server = server(grants, (&declared.url, declared.secret.as_deref()), whose).await?;
    Ok(Publisher::new(server, declared))
}
