//! A subject that results are published to.
//!
//! - Every message has `Nats-Msg-Id`: it is the same whenever the same event is published again,
//!   so that a stream, which remembers it for some time, keeps it once.
//! - A stream confirms what it has on its disk. Where the server alone is asked, it confirms that
//!   it has a message, and not that anybody listens.
//! - What the server says it will never take is too large; everything else may change, and is
//!   tried again: permissions, streams that are not there, or that are full.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use sluicebox_core::pipeline::{NatsSink as Declared, WebhookForm};

use super::super::Fault;
use super::super::attributes::{content_type, encoded};
use super::super::sink::{Events, Handed, Sink};
use super::client::{Client, Server};
use super::consumer::Wrong;
use super::wire::{Message, Said};
use crate::error::shown;

/// Bytes of the largest answer that is looked at.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What a stream says of a message that is larger than it takes, of a header too.
const TOO_LARGE: [u64; 2] = [10_054, 10_097];

/// See the module.
pub(in crate::connectors) struct Publisher {
    server: Server,
    declared: Declared,
    client: Option<Client>,
}

/// Messages of one partition, one behind the other.
pub(in crate::connectors) struct Delivery(Vec<Outgoing>);

struct Outgoing {
    header: Vec<u8>,
    payload: Bytes,
}

/// What is wrong with a delivery.
enum Unsent {
    Later(Fault),
    Never(Fault),
}

impl From<Fault> for Unsent {
    fn from(fault: Fault) -> Self {
        Self::Later(fault)
    }
}

impl Publisher {
    pub(super) fn new(server: Server, declared: &Declared) -> Self {
        Self { server, declared: declared.clone(), client: None }
    }

    async fn begin(&mut self) -> Result<Client, Fault> {
        let mut client = self.server.connect(ANSWER_BYTES_MAX).await?;
        client.listen_to_answers();
        Ok(client)
    }

    async fn publish(&mut self, delivery: &Delivery) -> Result<(), Unsent> {
        loop {
            let was_kept = self.client.is_some();
            let mut client = match self.client.take() {
                Some(client) => client,
                None => self.begin().await?,
            };
            let Delivery(messages) = delivery;
            let sent = match self.declared.by_stream {
                true => by_stream(&mut client, &self.declared.subject, messages).await,
                false => by_server(&mut client, &self.declared.subject, messages).await,
            };
            match sent {
                // One that was kept may have been ended meanwhile, as nobody listened to it; a
                // stream knows the messages by their names, should they have come all the same.
                Err(Unsent::Later(fault)) if was_kept && fault.code == "connector.unreachable" => {}
                Err(Unsent::Later(fault)) => return Err(Unsent::Later(fault)),
                sent => {
                    self.client = Some(client);
                    return sent;
                }
            }
        }
    }
}

impl Sink for Publisher {
    type Delivery = Delivery;

    fn events_max(&self) -> usize {
        usize::try_from(self.declared.batch_events).unwrap_or(1)
    }

    fn pause_max(&self) -> Duration {
        Duration::from_millis(self.declared.pause_max_ms)
    }

    fn ready(&self, events: &Events<'_>) -> Delivery {
        let is_structured = self.declared.form == WebhookForm::Event;
        let messages = events.all.iter().map(|(offset, event)| {
            let mut header = "NATS/1.0\r\n".to_owned();
            let mut put = |name: &str, value: &str| {
                header.push_str(&format!("{name}: {value}\r\n"));
            };
            put("Nats-Msg-Id", &events.name_of(*offset));
            let place = (events.partition, *offset);
            let mut payload = Vec::new();
            if is_structured {
                put("content-type", "application/cloudevents+json");
                events.renderer.cloud_event(place, event, &mut payload);
                // Without the line's end.
                payload.truncate(payload.trim_ascii_end().len());
            } else {
                let (attributes, kind) = events.renderer.attributes(place, event);
                for (name, value) in attributes {
                    if let Some(value) = encoded(&value) {
                        put(&format!("ce-{name}"), &value);
                    }
                }
                put("content-type", content_type(kind.as_deref(), event.payload));
                payload.extend_from_slice(event.payload);
            }
            header.push_str("\r\n");
            Outgoing { header: header.into_bytes(), payload: Bytes::from(payload) }
        });
        Delivery(messages.collect())
    }

    async fn hand_on(&mut self, delivery: &Delivery) -> Handed {
        let timeout = Duration::from_millis(self.declared.timeout_ms);
        match tokio::time::timeout(timeout, self.publish(delivery)).await {
            Ok(Ok(())) => Handed::Taken,
            Ok(Err(Unsent::Later(fault))) => Handed::Later(fault, None),
            Ok(Err(Unsent::Never(fault))) => Handed::Never(fault),
            // Its connection is gone with what was under way.
            Err(_) => {
                let message = format!("no answer within {timeout:?}");
                Handed::Later(Fault::new("connector.unreachable", message), None)
            }
        }
    }
}

/// Refuses what the server says it does not take, before any of it is sent.
fn check(client: &Client, messages: &[Outgoing]) -> Result<(), Unsent> {
    let most = client.message_bytes_max();
    for Outgoing { header, payload } in messages {
        let bytes = header.len() as u64 + payload.len() as u64;
        if bytes > most {
            let message = format!("a message has {bytes} bytes, and the server takes {most}");
            return Err(Unsent::Never(Fault::new("connector.refused", message)));
        }
    }
    Ok(())
}

async fn by_server(
    client: &mut Client,
    subject: &str,
    messages: &[Outgoing],
) -> Result<(), Unsent> {
    check(client, messages)?;
    for Outgoing { header, payload } in messages {
        client.publish(subject, "", (header, payload));
    }
    Ok(client.settle().await?)
}

async fn by_stream(
    client: &mut Client,
    subject: &str,
    messages: &[Outgoing],
) -> Result<(), Unsent> {
    check(client, messages)?;
    let mut open = BTreeSet::new();
    for Outgoing { header, payload } in messages {
        let answer_to = client.answer_to();
        client.publish(subject, &answer_to, (header, payload));
        open.insert(answer_to);
    }
    client.flush().await?;
    let mut wrong = None;
    while !open.is_empty() {
        let Said::Message(message) = client.said().await? else { continue };
        if !open.remove(&message.subject) {
            continue;
        }
        match (judge(subject, &message), &wrong) {
            (Ok(()), _) | (Err(Unsent::Never(_)), Some(_)) => {}
            (Err(unsent), _) => wrong = Some(unsent),
        }
    }
    wrong.map_or(Ok(()), Err)
}

/// What a stream says of a message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    error: Option<Wrong>,
    stream: String,
    seq: u64,
}

fn judge(subject: &str, message: &Message) -> Result<(), Unsent> {
    let later = |message: String| Err(Unsent::Later(Fault::new("connector.stream", message)));
    let status = message.header.as_ref().and_then(|header| header.status);
    if status == Some(503) {
        return later(format!(
            "no stream has the subject {subject}; make one, or write confirmed-by = \"server\""
        ));
    }
    let answer: Answer = match serde_json::from_slice(&message.payload) {
        Ok(answer) => answer,
        Err(_) => return later(format!("somebody who is no stream answers on {subject}")),
    };
    match answer {
        Answer { error: Some(wrong), .. } if TOO_LARGE.contains(&wrong.err_code) => {
            let message = format!("the stream says: {}", shown(&wrong.description));
            Err(Unsent::Never(Fault::new("connector.refused", message)))
        }
        Answer { error: Some(wrong), .. } => {
            Err(Unsent::Later(Fault { code: "connector.later", ..wrong.fault("the stream") }))
        }
        Answer { stream, seq, .. } if stream.is_empty() || seq == 0 => {
            later(format!("somebody who is no stream answers on {subject}"))
        }
        Answer { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Header;
    use super::*;

    fn word(status: Option<u16>, payload: &str) -> (&'static str, &'static str) {
        let header = Some(Header { status, ..Header::default() });
        let payload = Bytes::from(payload.to_owned());
        let subject = "_INBOX.a.1".to_owned();
        let message = Message { subject, reply: None, header, payload, is_whole: true };
        match judge("results", &message) {
            Ok(()) => ("taken", ""),
            Err(Unsent::Later(fault)) => ("later", fault.code),
            Err(Unsent::Never(fault)) => ("never", fault.code),
        }
    }

    #[test]
    fn a_stream_says_taken_later_or_never() {
        assert_eq!(word(None, r#"{"stream":"S","seq":4}"#), ("taken", ""));
        assert_eq!(word(None, r#"{"stream":"S","seq":4,"duplicate":true}"#), ("taken", ""));
        assert_eq!(word(Some(503), ""), ("later", "connector.stream"));
        for other in ["", "ok", "{}", r#"{"stream":"S"}"#, r#"{"seq":7}"#] {
            assert_eq!(word(None, other), ("later", "connector.stream"), "{other}");
        }
        let error = |code: u64| {
            word(None, &format!(r#"{{"error":{{"code":400,"err_code":{code}}},"stream":"S"}}"#))
        };
        assert_eq!(error(10_054), ("never", "connector.refused"));
        assert_eq!(error(10_077), ("later", "connector.later"));
    }
}
