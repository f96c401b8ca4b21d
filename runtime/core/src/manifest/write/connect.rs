//! Sources and sinks as a manifest has them.

use super::super::value::{Table, Value};
use super::super::words::duration_text;
use super::{members, number, size, text};
use crate::pipeline::{
    Lines, NatsSink, NatsSource, Sink, SinkKind, Source, SourceKind, Webhook, WebhookForm,
};

pub(super) fn source(source: &Source) -> Value {
    let kind = match &source.kind {
        SourceKind::File(file) => lines(file),
        SourceKind::Folder(folder) => {
            let mut table = lines(folder);
            let after = if folder.deletes { "delete" } else { "move" };
            table.insert("after".to_owned(), Value::from(after));
            table
        }
        SourceKind::Cron(cron) => members([
            ("at", text(&cron.at)),
            ("zone", text(&cron.zone)),
            ("missed", Value::from(cron.missed.word())),
        ]),
        SourceKind::Nats(nats) => nats_source(nats),
    };
    let mut table = Table::from([(source.kind.word().to_owned(), Value::Table(kind))]);
    if let Some(key) = &source.key {
        table.insert("key".to_owned(), text(key));
    }
    Value::Table(table)
}

fn lines(lines: &Lines) -> Table {
    members([
        ("path", text(&lines.path)),
        ("form", Value::from(lines.form.word())),
        ("line-bytes", size(lines.line_bytes)),
    ])
}

pub(super) fn sink(sink: &Sink) -> Value {
    let kind = match &sink.kind {
        SinkKind::Webhook(hook) => webhook(hook),
        SinkKind::Nats(nats) => nats_sink(nats),
    };
    Value::Table(members([
        ("from", text(&sink.from)),
        ("on-refusal", Value::from(if sink.drops { "drop" } else { "halt" })),
        (sink.kind.word(), Value::Table(kind)),
    ]))
}

fn webhook(hook: &Webhook) -> Table {
    let mut table = members([
        ("url", text(&hook.url)),
        ("form", Value::from(hook.form.word())),
        ("timeout", text(&duration_text(hook.timeout_ms))),
        ("pause-max", text(&duration_text(hook.pause_max_ms))),
    ]);
    if hook.form == WebhookForm::Lines {
        table.insert("batch-events".to_owned(), number(hook.batch_events));
    }
    if let Some(secret) = &hook.secret {
        table.insert("secret".to_owned(), text(secret));
    }
    table
}

fn nats_source(nats: &NatsSource) -> Table {
    let size = size(nats.message_bytes);
    let mut table = members([("url", text(&nats.url)), ("message-bytes", size)]);
    for (name, value) in [
        ("subject", &nats.subject),
        ("stream", &nats.stream),
        ("consumer", &nats.consumer),
        ("queue", &nats.queue),
        ("secret", &nats.secret),
    ] {
        table.extend(value.as_ref().map(|value| (name.to_owned(), text(value))));
    }
    if nats.stream.is_some() {
        let begin = if nats.begins_new { "new" } else { "first" };
        table.insert("begin".to_owned(), Value::from(begin));
    }
    table
}

fn nats_sink(nats: &NatsSink) -> Table {
    let confirmed_by = if nats.by_stream { "stream" } else { "server" };
    let mut table = members([
        ("url", text(&nats.url)),
        ("subject", text(&nats.subject)),
        ("form", Value::from(nats.form.word())),
        ("confirmed-by", Value::from(confirmed_by)),
        ("batch-events", number(nats.batch_events)),
        ("timeout", text(&duration_text(nats.timeout_ms))),
        ("pause-max", text(&duration_text(nats.pause_max_ms))),
    ]);
    if let Some(secret) = &nats.secret {
        table.insert("secret".to_owned(), text(secret));
    }
    table
}
