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
use super::grants::{Grants, Refused};
use super::sink::{Events, Handed, Sink};
use connection::{Connection, Target};
use signature::Secret;

/// Longest name of a header's value that is made of an attribute.
const ATTRIBUTE_BYTES_MAX: usize = 1024;

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
    let target = target(&declared.url)?;
    grants.host(&target.host, target.port)?;
    if let Some(secret) = &declared.secret {
        grants.secret(secret)?;
    }
    Ok(())
}

fn target(url: &str) -> Result<Target, Refused> {
    let refused = |why: &str| {
        let message = format!("is {}, {why}", show(url));
        let fix = "write it as https://host/path, or http://host:port/path";
        Refused::new("url", "connector.url", message, fix)
    };
    let uri: Uri = url.parse().map_err(|_| refused("which is no URL"))?;
    let port = match uri.scheme_str() {
        Some("https") => 443,
        Some("http") => 80,
        _ => return Err(refused("which is neither http nor https")),
    };
    let authority = uri.authority().ok_or_else(|| refused("which names no host"))?;
    if authority.as_str().contains('@') {
        return Err(refused("which holds a user's name; sign with a secret instead"));
    }
    let host = authority.host().to_owned();
    if host.is_empty() || url.contains('#') {
        return Err(refused("which is no URL of a receiver"));
    }
    let by_tls = port == 443;
    let port = match authority.as_str().strip_prefix(&host).unwrap_or_default() {
        "" | ":" => port,
        _ => authority.port_u16().ok_or_else(|| refused("which has no port that can be"))?,
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Ok(Target { host, port, by_tls, path, authority: authority.to_string() })
}

impl Webhook {
    /// Reads the secret and the authorities.
    pub(super) async fn open(grants: &Grants<'_>, declared: &Declared) -> Result<Self, Refused> {
        check(grants, declared)?;
        let target = target(&declared.url)?;
        let secret = match &declared.secret {
            Some(name) => Some(Secret::read(&grants.secret(name)?).await?),
            None => None,
        };
        let authorities = target.by_tls.then(|| grants.authorities().to_owned());
        let connection = Connection::new(target, grants.networks(), authorities).await?;
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
                let (attributes, content_type) = events.renderer.attributes(place(*offset), event);
                for (name, value) in attributes {
                    let name = match name {
                        "traceparent" => name.to_owned(),
                        name => format!("ce-{name}"),
                    };
                    let name = HeaderName::try_from(name);
                    if let (Ok(name), Some(value)) = (name, header_value(&value)) {
                        headers.insert(name, value);
                    }
                }
                let kind = content_type.and_then(|kind| HeaderValue::try_from(kind).ok());
                let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
                let is_json = crate::http::holds_json(event.payload);
                let kind = match kind == "application/octet-stream" && is_json {
                    true => HeaderValue::from_static("application/json"),
                    false => kind,
                };
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
        if let Ok(name) = HeaderValue::try_from(&events.name) {
            headers.insert(HeaderName::from_static("idempotency-key"), name);
        }
        Delivery { name: events.name.clone(), headers, body: Bytes::from(body) }
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

/// Text as a header's value, as the HTTP binding of CloudEvents writes it.
fn header_value(text: &str) -> Option<HeaderValue> {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            0x21..=0x7E if byte != b'"' && byte != b'%' => value.push(char::from(byte)),
            other => value.push_str(&format!("%{other:02X}")),
        }
    }
    let fits = value.len() <= ATTRIBUTE_BYTES_MAX && !value.is_empty();
    fits.then(|| HeaderValue::try_from(value).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_one_of_a_receiver() {
        let good = target("https://Hooks.example.com/a?b=c").expect("good");
        assert_eq!((good.port, good.by_tls, good.path.as_str()), (443, true, "/a?b=c"));
        let good = target("http://[::1]:81").expect("good");
        assert_eq!((good.host.as_str(), good.port, good.path.as_str()), ("[::1]", 81, "/"));
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

    #[test]
    fn attributes_become_headers_whatever_is_in_them() {
        let value = |text: &str| header_value(text).map(|v| v.to_str().expect("ASCII").to_owned());
        assert_eq!(value("a/b:c").as_deref(), Some("a/b:c"));
        assert_eq!(value("a b\"%ü\r\nx: y").as_deref(), Some("a%20b%22%25%C3%BC%0D%0Ax:%20y"));
        assert_eq!(value(&"x".repeat(ATTRIBUTE_BYTES_MAX + 1)), None);
        assert_eq!(value(""), None);
    }
}
