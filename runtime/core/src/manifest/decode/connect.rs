//! Sources and sinks: each is of one kind, and what it cannot do without is there.

use std::collections::BTreeMap;

use super::super::bounds;
use super::super::problem::{Problem, Problems};
use super::super::walk::member;
use super::View;
use crate::pipeline::{
    Cron, LineForm, Lines, Missed, Sink, SinkKind, Source, SourceKind, Webhook, WebhookForm,
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
    let kinds = ["file", "folder", "cron"];
    let kind = match one_of(view, &kinds, &member("sources", name), problems)? {
        "file" => SourceKind::File(lines(view.at("file"))),
        "folder" => SourceKind::Folder(lines(view.at("folder"))),
        _ => SourceKind::Cron(cron(view.at("cron"))),
    };
    let key = view.at("key").text().filter(|key| !key.is_empty()).map(str::to_owned);
    Some(Source { name: name.to_owned(), key, kind })
}

fn sink(name: &str, view: View<'_>, problems: &mut Problems) -> Option<Sink> {
    let path = member("sinks", name);
    one_of(view, &["webhook"], &path, problems)?;
    let kind = SinkKind::Webhook(webhook(view.at("webhook"), &path, problems));
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
