//! Sources and sinks: each is of one kind, and what it cannot do without is there.

use std::collections::BTreeMap;

use super::super::bounds;
use super::super::problem::{Problem, Problems};
use super::super::walk::member;
use super::View;
use crate::pipeline::{
    Cron, LineForm, Lines, Missed, NatsSink, NatsSource, Sink, SinkKind, Source, SourceKind,
    Webhook, WebhookForm,
};

pub(super) fn sources(view: View<'_>, problems: &mut Problems) -> BTreeMap<String, Source> {
    let named = view.members(bounds::CONNECTORS_MAX);
    named.filter_map(|(name, view)| Some((name.clone(), source(name, view, problems)?))).collect()
}

pub(super) fn sinks(view: View<'_>, problems: &mut Problems) -> BTreeMap<String, Sink> {
    let named = view.members(bounds::CONNECTORS_MAX);
    named.filter_map(|(name, view)| Some((name.clone(), sink(name, view, problems)?))).collect()
}

fn source(name: &str, view: View<'_>, problems: &mut Problems) -> Option<Source> {
    let kinds = ["file", "folder", "cron", "nats"];
    let path = member("sources", name);
    let kind = match one_of(view, &kinds, &path, problems)? {
        "file" => SourceKind::File(lines(view.at("file"))),
        "folder" => SourceKind::Folder(lines(view.at("folder"))),
        "cron" => SourceKind::Cron(cron(view.at("cron"))),
        _ => SourceKind::Nats(nats_source(view.at("nats"), &path, problems)),
    };
    let key = view.at("key").text().filter(|key| !key.is_empty()).map(str::to_owned);
    Some(Source { name: name.to_owned(), key, kind })
}

fn sink(name: &str, view: View<'_>, problems: &mut Problems) -> Option<Sink> {
    let path = member("sinks", name);
    let kind = match one_of(view, &["webhook", "nats"], &path, problems)? {
        "webhook" => SinkKind::Webhook(webhook(view.at("webhook"), &path, problems)),
        _ => SinkKind::Nats(nats_sink(view.at("nats"))),
    };
    let (from, drops) = (view.at("from").word(), view.at("on-refusal").text() == Some("drop"));
    Some(Sink { name: name.to_owned(), from, drops, kind })
}

/// The one kind of a source or sink that is there.
fn one_of(
    view: View<'_>,
    kinds: &[&'static str],
    path: &str,
    problems: &mut Problems,
) -> Option<&'static str> {
    let mut there = kinds.iter().copied().filter(|kind| view.at(kind).is_there());
    let first = there.next();
    let second = there.next();
    let (field, message) = match (first, second) {
        (Some(_), None) => return first,
        (_, Some(second)) => (member(path, second), "is one kind too many".to_owned()),
        (None, None) => (path.to_owned(), "does not say what it is".to_owned()),
    };
    let kinds: Vec<String> = kinds.iter().map(|kind| format!("[{path}.{kind}]")).collect();
    let fix = format!("write one table: {}", kinds.join(" or "));
    problems.add(Problem::new(field, "manifest.kind", message, fix));
    None
}

fn lines(view: View<'_>) -> Lines {
    Lines {
        path: view.at("path").word(),
        form: match view.at("form").text() {
            Some("text") => LineForm::Text,
            Some("whole") => LineForm::Whole,
            _ => LineForm::Json,
        },
        line_bytes: view.at("line-bytes").size(bounds::LINE_BYTES),
        deletes: view.at("after").text() == Some("delete"),
    }
}

fn cron(view: View<'_>) -> Cron {
    Cron {
        at: view.at("at").word(),
        zone: view.at("zone").text().unwrap_or("UTC").to_owned(),
        missed: match view.at("missed").text() {
            Some("skip") => Missed::Skip,
            Some("all") => Missed::All,
            _ => Missed::Once,
        },
    }
}

fn webhook(view: View<'_>, path: &str, problems: &mut Problems) -> Webhook {
    let form = match view.at("form").text() {
        Some("event") => WebhookForm::Event,
        Some("lines") => WebhookForm::Lines,
        _ => WebhookForm::Payload,
    };
    if form != WebhookForm::Lines && view.at("batch-events").is_there() {
        let field = member(&member(path, "webhook"), "batch-events");
        let message = "has a meaning only with form = \"lines\"";
        let fix = "remove it, or write form = \"lines\"";
        problems.add(Problem::new(field, "manifest.scope", message.to_owned(), fix));
    }
    Webhook {
        url: view.at("url").word(),
        form,
        batch_events: view.at("batch-events").small(bounds::BATCH_EVENTS.default),
        secret: view.at("secret").text().map(str::to_owned),
        timeout_ms: view.at("timeout").duration(bounds::SINK_TIMEOUT_MS),
        pause_max_ms: view.at("pause-max").duration(bounds::SINK_PAUSE_MAX_MS),
    }
}

fn nats_source(view: View<'_>, path: &str, problems: &mut Problems) -> NatsSource {
    let has_stream = view.at("stream").is_there();
    let path = member(path, "nats");
    let alone: &[_] = if has_stream { &["queue"] } else { &["consumer", "begin"] };
    for name in alone.iter().filter(|name| view.at(name).is_there()) {
        let without = if has_stream { "without" } else { "with" };
        let message = format!("has a meaning only {without} a stream");
        let fix =
            if has_stream { "remove it; several consumers can share a stream" } else { STREAM };
        problems.add(Problem::new(member(&path, name), "manifest.scope", message, fix));
    }
    if !has_stream && !view.at("subject").is_there() {
        let message = "is missing, and there is no stream either".to_owned();
        let fix = "say which messages: subject = \"orders.>\", or stream = \"ORDERS\"";
        problems.add(Problem::new(member(&path, "subject"), "manifest.missing", message, fix));
    }
    let text = |name: &str| view.at(name).text().map(str::to_owned);
    NatsSource {
        url: view.at("url").word(),
        subject: text("subject"),
        stream: text("stream"),
        consumer: text("consumer"),
        queue: text("queue"),
        begins_new: view.at("begin").text() == Some("new"),
        message_bytes: view.at("message-bytes").size(bounds::LINE_BYTES),
        secret: text("secret"),
    }
}

/// What to do about a field that only a stream has.
const STREAM: &str = "remove it, or name the stream: stream = \"ORDERS\"";

fn nats_sink(view: View<'_>) -> NatsSink {
    NatsSink {
        url: view.at("url").word(),
        subject: view.at("subject").word(),
        form: match view.at("form").text() {
            Some("event") => WebhookForm::Event,
            _ => WebhookForm::Payload,
        },
        by_stream: view.at("confirmed-by").text() != Some("server"),
        batch_events: view.at("batch-events").small(bounds::BATCH_MESSAGES.default),
        secret: view.at("secret").text().map(str::to_owned),
        timeout_ms: view.at("timeout").duration(bounds::SINK_TIMEOUT_MS),
        pause_max_ms: view.at("pause-max").duration(bounds::SINK_PAUSE_MAX_MS),
    }
}
