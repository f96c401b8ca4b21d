//! A URL that results are posted to.
//!
//! - Every request has the header `idempotency-key`: it is the same whenever the same events are
//!   posted again, so that a receiver that remembers it counts them once.
//! - With a secret it is signed as Standard Webhooks say: `webhook-id`, `webhook-timestamp`,
//!   `webhook-signature`.
//! - `2xx` means taken. `408`, `425`, `429`, `5xx`, and no answer mean later; `Retry-After` in
//!   seconds is kept to. Everything else means never: redirects too, which are not followed, since
//!   where they lead nobody has allowed.

mod connection;
mod signature;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};
use sluicebox_core::manifest::show;
use sluicebox_core::pipeline::{Webhook as Declared, WebhookForm};

use super::Fault;
use super::attributes::{content_type, encoded};
use super::grants::{Grants, Refused};
use super::road::Road;
use super::sink::{Events, Handed, Sink};
use crate::egress::target::Target;
use connection::Connection;
use signature::Secret;

/// See the module.
pub(super) struct Webhook {
    connection: Connection,
    declared: Declared,
    secret: Option<Secret>,
}

/// A request.
pub(super) struct Delivery {
    name: String,
    headers: HeaderMap,
    body: Bytes,
}

/// Refuses what is no URL, or may not be reached.
pub(super) fn check(grants: &Grants<'_>, declared: &Declared) -> Result<(), Refused> {
    let (target, _) = target(&declared.url)?;
    grants.host(&target)?;
    if let Some(secret) = &declared.secret {
        grants.secret(secret)?;
    }
    Ok(())
}

/// Where a URL leads, and its path with its query.
fn target(url: &str) -> Result<(Target, Uri), Refused> {
    let refused = |why: &str| {
        let message = format!("is {}, which {why}", show(url));
        let fix = "write it as https://host/path, or http://host:port/path; a user's name is no \
                   part of it: sign with a secret instead";
        Refused::new("url", "connector.url", message, fix)
    };
    let uri: Uri = url.parse().map_err(|_| refused("is no URL"))?;
    if url.contains('#') {
        return Err(refused("is no URL of a receiver"));
    }
    let target = Target::of(&uri).map_err(refused)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = path.parse().map_err(|_| refused("has a path that is none"))?;
    Ok((target, path))
}

impl Webhook {
    /// Reads the secret and the authorities.
    pub(super) async fn open(grants: &Grants<'_>, declared: &Declared) -> Result<Self, Refused> {
        check(grants, declared)?;
        let (target, path) = target(&declared.url)?;
        let secret = match &declared.secret {
            Some(name) => Some(Secret::read(&grants.secret(name)?).await?),
            None => None,
        };
        let road = Road::new(target, grants.reach(), grants.authorities().to_owned()).await?;
        let connection = Connection::new(road, path);
        Ok(Self { connection, declared: declared.clone(), secret })
    }
}

impl Sink for Webhook {
    type Delivery = Delivery;

    fn events_max(&self) -> usize {
        match self.declared.form {
            WebhookForm::Lines => usize::try_from(self.declared.batch_events).unwrap_or(1),
            WebhookForm::Payload | WebhookForm::Event => 1,
        }
    }

    fn pause_max(&self) -> Duration {
        Duration::from_millis(self.declared.pause_max_ms)
    }

    fn ready(&self, events: &Events<'_>) -> Delivery {
        let mut headers = HeaderMap::new();
        let mut body = Vec::new();
        let place = |offset| (events.partition, offset);
        match (self.declared.form, events.all.first()) {
            (WebhookForm::Payload, Some((offset, event))) => {
                let (attributes, kind) = events.renderer.attributes(place(*offset), event);
                for (name, value) in attributes {
                    let name = match name {
                        "traceparent" => name.to_owned(),
                        name => format!("ce-{name}"),
                    };
                    let name = HeaderName::try_from(name);
                    let value = encoded(&value).map(HeaderValue::try_from);
                    if let (Ok(name), Some(Ok(value))) = (name, value) {
                        headers.insert(name, value);
                    }
                }
                let kind = content_type(kind.as_deref(), event.payload);
                let kind = HeaderValue::try_from(kind);
                let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
                headers.insert(CONTENT_TYPE, kind);
                body.extend_from_slice(event.payload);
            }
            (WebhookForm::Event, Some((offset, event))) => {
                let kind = HeaderValue::from_static("application/cloudevents+json");
                headers.insert(CONTENT_TYPE, kind);
                events.renderer.cloud_event(place(*offset), event, &mut body);
                // Without the line's end.
                body.truncate(body.trim_ascii_end().len());
            }
            _ => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
                for (offset, event) in &events.all {
                    events.renderer.event(events.partition, *offset, event, &mut body);
                }
            }
        }
        if let Ok(name) = HeaderValue::try_from(events.name()) {
            headers.insert(HeaderName::from_static("idempotency-key"), name);
        }
        Delivery { name: events.name(), headers, body: Bytes::from(body) }
    }

    async fn hand_on(&mut self, delivery: &Delivery) -> Handed {
        let mut headers = delivery.headers.clone();
        if let Some(secret) = &self.secret {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            secret.sign((&delivery.name, now.as_secs()), &delivery.body, &mut headers);
        }
        let timeout = Duration::from_millis(self.declared.timeout_ms);
        let posted = self.connection.post(headers, delivery.body.clone());
        let answer = match tokio::time::timeout(timeout, posted).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(fault)) => return Handed::Later(fault, None),
            Err(_) => {
                // What comes of it later is nobody's answer.
                self.connection.close();
                let message = format!("no answer within {timeout:?}");
                return Handed::Later(Fault::new("connector.unreachable", message), None);
            }
        };
        judge(answer.status, answer.retry_after)
    }
}

/// What an answer means.
fn judge(status: StatusCode, retry_after: Option<Duration>) -> Handed {
    let message = format!("the receiver answered {status}");
    match status.as_u16() {
        200..=299 => Handed::Taken,
        408 | 425 | 429 | 500..=599 => {
            Handed::Later(Fault::new("connector.later", message), retry_after)
        }
        300..=399 => {
            let message =
                format!("{message}: redirects are not followed; name the URL it leads to");
            Handed::Never(Fault::new("connector.refused", message))
        }
        _ => Handed::Never(Fault::new("connector.refused", message)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    use sluicebox_core::ids::Name;

    use super::super::sink::contract::{Does, Told, keeps};
    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn a_url_is_one_of_a_receiver() {
        let (good, path) = target("https://Hooks.example.com/a?b=c").expect("good");
        assert_eq!((good.port, good.by_tls, path.to_string()), (443, true, "/a?b=c".to_owned()));
        let (good, path) = target("http://[::1]:81").expect("good");
        assert_eq!((good.host.as_str(), good.port, path.to_string()), ("::1", 81, "/".to_owned()));
        for wrong in [
            "",
            "hooks.example.com",
            "/a",
            "ftp://a/",
            "https://",
            "https://u:p@a/",
            "http://a/#b",
            "http://a b/",
            "http:///x",
            "https://a:99999/",
        ] {
            assert_eq!(
                target(wrong).map(drop).map_err(|r| r.code),
                Err("connector.url"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn answers_say_taken_later_or_never() {
        let word = |status: u16| {
            let status = StatusCode::from_u16(status).expect("a status");
            match judge(status, None) {
                Handed::Taken => "taken",
                Handed::Later(..) => "later",
                Handed::Never(_) => "never",
            }
        };
        let by = |wanted: &str, all: &[u16]| all.iter().all(|status| word(*status) == wanted);
        assert!(by("taken", &[200, 201, 202, 204, 299]));
        assert!(by("later", &[408, 425, 429, 500, 502, 503, 504, 599]));
        assert!(by("never", &[301, 302, 307, 400, 401, 403, 404, 409, 410, 413, 422, 499, 600]));
        let after = Some(Duration::from_secs(7));
        let Handed::Later(_, kept) = judge(StatusCode::TOO_MANY_REQUESTS, after) else {
            panic!("later")
        };
        assert_eq!(kept, after);
    }

    /// A receiver of one request a connection, which does as it is told.
    fn receiver(told: Told) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("room on loopback");
        let port = listener.local_addr().expect("bound").port();
        // It ends with the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream);
                let (mut name, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    let read = lines.read_line(&mut line);
                    let line = line.trim();
                    if read.is_err() || line.is_empty() {
                        break;
                    }
                    let (field, value) = line.split_once(": ").unwrap_or_default();
                    match field {
                        "idempotency-key" => name = value.to_owned(),
                        "content-length" => length = value.parse().expect("a number"),
                        _ => {}
                    }
                }
                let mut body = vec![0; length];
                lines.read_exact(&mut body).expect("all of it");
                let status = match told.came(&name, std::str::from_utf8(&body).expect("text")) {
                    Does::Takes => "204 No Content",
                    Does::Waits => "503 Service Unavailable",
                    Does::Refuses => "422 Unprocessable Content",
                    Does::Vanishes => continue,
                };
                let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
                drop(lines.get_mut().write_all(answer.as_bytes()));
            }
        });
        port
    }

    #[tokio::test]
    async fn keeps_the_contract_of_sinks() {
        let told = Told::default();
        let url = format!("http://127.0.0.1:{}/", receiver(told.clone()));
        let declared = Declared {
            url,
            form: WebhookForm::Payload,
            batch_events: 1,
            secret: None,
            timeout_ms: 5000,
            pause_max_ms: 1000,
        };
        let mut sources = Sources::default();
        sources.flag("--a", "connectors.hosts", "127.0.0.1");
        sources.flag("--b", "connectors.networks", "127.0.0.0/8");
        let config = Config::load(&sources).expect("a configuration").config.connectors;
        let tenant = Name::new("a").expect("a name");
        let test = async {
            let hook = Webhook::open(&Grants::new(&config, &tenant), &declared).await;
            keeps(hook.expect("allowed"), &told).await;
        };
        tokio::task::LocalSet::new().run_until(test).await;
    }
}
