//! `top`: what a tenant's pipelines, or the stages of one, do at the moment.
//!
//! Two readings make a view: rates are what was added between them for each second, times are of
//! what was done between them. On a terminal a view takes the place of the one before; elsewhere
//! each is a line of JSON. A node that does not answer ends it, as it has nothing to show.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::args::watch::TopArgs;
use crate::client::Client;
use crate::failure::{Failure, printable};
use crate::render::{self, figure};
use crate::screen::Screen;

const PIPELINE_COLUMNS: [&str; 10] = [
    "name",
    "state",
    "in/s",
    "out/s",
    "dead/s",
    "fuel/s",
    "waiting",
    "lag-ms",
    "instances",
    "state-bytes",
];
const STAGE_COLUMNS: [&str; 10] = [
    "stage",
    "in/s",
    "out/s",
    "failed/s",
    "dead/s",
    "fuel/s",
    "call-p50",
    "call-p99",
    "instances",
    "gpu-%",
];
const HOP_COLUMNS: [&str; 7] = ["from", "to", "way", "events/s", "bytes/s", "wait-p50", "wait-p99"];
const OUTPUT_COLUMNS: [&str; 3] = ["output", "events/s", "kept-bytes"];

/// Clears the terminal and goes to its first place.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

/// `top`
pub(crate) async fn run(screen: Screen, args: TopArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let mut before = Reading::take(&client, &args).await?;
    let mut shown = 0;
    loop {
        tokio::time::sleep(args.interval.saturating_sub(before.at.elapsed())).await;
        let now = Reading::take(&client, &args).await?;
        let view = View::between(&before, &now);
        if screen.json_records() {
            screen.line(&view.json().to_string())?;
        } else {
            if screen.watched() {
                screen.bytes(CLEAR)?;
            }
            screen.line(&view.text(screen))?;
        }
        shown += 1;
        if args.count.is_some_and(|count| shown >= count) {
            return Ok(());
        }
        before = now;
    }
}

/// What there was at a moment.
struct Reading {
    at: Instant,
    /// The tenant's usage, or a pipeline in detail.
    said: Value,
    /// The tenant's GPU, if a stage of the pipeline has it.
    gpu: Value,
}

impl Reading {
    async fn take(client: &Client, args: &TopArgs) -> Result<Self, Failure> {
        let path = match &args.pipeline {
            Some(pipeline) => client.pipeline(pipeline, ""),
            None => client.path("usage"),
        };
        let said = client.get(path).await?;
        let stages = said.pointer("/manifest/stages").and_then(Value::as_object);
        let wants_gpu = |stage: &Value| stage.pointer("/grants/gpu").is_some();
        let gpu = match stages.is_some_and(|stages| stages.values().any(wants_gpu)) {
            true => client.get(client.path("gpu")).await?,
            false => Value::Null,
        };
        Ok(Self { at: Instant::now(), said, gpu })
    }
}

/// Two readings, as they are shown.
struct View {
    title: String,
    tables: Vec<(&'static str, Vec<Value>, &'static [&'static str])>,
}

impl View {
    fn between(before: &Reading, now: &Reading) -> Self {
        let time = now.at.saturating_duration_since(before.at);
        let change = Change { before: &before.said, now: &now.said, time };
        if now.said.get("pipelines").is_some() {
            let title = format!("tenant {}", word(&now.said, "tenant"));
            let rows = change.rows("pipelines", &["name"], pipeline);
            return Self { title, tables: vec![("pipelines", rows, &PIPELINE_COLUMNS)] };
        }
        let gpu = Change { before: &before.gpu, now: &now.gpu, time };
        let name = word(&now.said, "name");
        let ingest =
            Both { before: member(&before.said, "ingest"), now: member(&now.said, "ingest"), time };
        let title = format!(
            "{name} v{} {}: {} events/s in, {} refused/s, acknowledged in p50 {}, p99 {}",
            number(&now.said, "version"),
            word(&now.said, "state"),
            figure(ingest.rate("events")),
            figure(ingest.rate("rejected")),
            micros(ingest.percentile("acknowledged", 0.5)),
            micros(ingest.percentile("acknowledged", 0.99)),
        );
        let mut stages = change.rows("stage", &["name"], stage);
        for row in &mut stages {
            if let Some(share) = gpu.share_of(&name, &word(row, "stage")) {
                row["gpu-%"] = json!(share);
            }
        }
        let hops = change.rows("hop", &["from", "to", "way"], hop);
        let outputs = change.rows("output", &["name"], output);
        let tables: [(&'static str, _, &'static [&'static str]); 3] = [
            ("stages", stages, &STAGE_COLUMNS),
            ("hops", hops, &HOP_COLUMNS),
            ("outputs", outputs, &OUTPUT_COLUMNS),
        ];
        Self { title, tables: tables.into_iter().filter(|(_, rows, _)| !rows.is_empty()).collect() }
    }

    fn json(&self) -> Value {
        let tables = self.tables.iter().map(|(name, rows, _)| ((*name).to_owned(), json!(rows)));
        Value::Object(tables.collect::<Map<_, _>>())
    }

    fn text(&self, screen: Screen) -> String {
        let mut text = format!("{}\n", screen.strong(&self.title));
        for (_, rows, columns) in &self.tables {
            let rows: Vec<Value> = rows.iter().map(readable).collect();
            text.push_str(&format!("\n{}", render::table(&rows, columns)));
        }
        text
    }
}

/// A row with its figures as people read them.
fn readable(row: &Value) -> Value {
    let members = row.as_object().into_iter().flatten().map(|(name, value)| {
        let shown = match value.as_f64() {
            Some(time) if name.ends_with("-p50") || name.ends_with("-p99") => {
                json!(micros(Some(time)))
            }
            Some(rate) if name.ends_with("/s") || name == "gpu-%" => json!(figure(rate)),
            _ => value.clone(),
        };
        (name.clone(), shown)
    });
    Value::Object(members.collect())
}

fn pipeline(of: &Both<'_>) -> Value {
    json!({
        "name": word(of.now, "name"),
        "state": word(of.now, "state"),
        "in/s": of.rate("ingest-events"),
        "out/s": of.rate("output-events"),
        "dead/s": of.rate("dead-letters"),
        "fuel/s": of.rate("fuel"),
        "waiting": of.now.get("inbox-events"),
        "lag-ms": of.now.get("lag-ms"),
        "instances": of.now.get("instances"),
        "state-bytes": of.now.get("state-bytes"),
    })
}

fn stage(of: &Both<'_>) -> Value {
    json!({
        "stage": word(of.now, "name"),
        "in/s": of.rate("events-in"),
        "out/s": of.rate("events-out"),
        "failed/s": of.rate("failures") + of.rate("traps"),
        "dead/s": of.rate("dead-letters"),
        "fuel/s": of.rate("fuel"),
        "call-p50": of.percentile("call", 0.5),
        "call-p99": of.percentile("call", 0.99),
        "instances": of.now.get("instances"),
    })
}

fn hop(of: &Both<'_>) -> Value {
    json!({
        "from": word(of.now, "from"),
        "to": word(of.now, "to"),
        "way": word(of.now, "way"),
        "events/s": of.rate("events"),
        "bytes/s": of.rate("bytes"),
        "wait-p50": of.percentile("waited", 0.5),
        "wait-p99": of.percentile("waited", 0.99),
    })
}

fn output(of: &Both<'_>) -> Value {
    json!({
        "output": word(of.now, "name"),
        "events/s": of.rate("events"),
        "kept-bytes": of.now.get("bytes"),
    })
}

/// Two documents of the same kind.
struct Change<'a> {
    before: &'a Value,
    now: &'a Value,
    time: Duration,
}

impl Change<'_> {
    /// A row for each member of a list, with the one of the same names from before.
    fn rows(&self, list: &str, names: &[&str], row: fn(&Both<'_>) -> Value) -> Vec<Value> {
        let all = |of: &Value| of.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        let before = all(self.before);
        let rows = all(self.now);
        let rows = rows.iter().map(|now| {
            let is_same = |it: &&Value| names.iter().all(|name| it.get(name) == now.get(name));
            let before = before.iter().find(is_same).unwrap_or(&Value::Null);
            row(&Both { before, now, time: self.time })
        });
        rows.collect()
    }

    /// How much of the device's time a stage had, in percent.
    fn share_of(&self, pipeline: &str, stage: &str) -> Option<f64> {
        let used = |of: &Value| {
            let stages = of.get("stages")?.as_array()?;
            let is_it =
                |row: &&Value| word(row, "pipeline") == pipeline && word(row, "stage") == stage;
            stages.iter().find(is_it).map(|row| number(row, "device-micros"))
        };
        let now = used(self.now)?;
        let micros = now.saturating_sub(used(self.before).unwrap_or(now)) as f64;
        Some(100.0 * micros / self.time.as_micros().max(1) as f64)
    }
}

/// One thing, before and now.
struct Both<'a> {
    before: &'a Value,
    now: &'a Value,
    time: Duration,
}

impl Both<'_> {
    /// What was added in a second. What began anew since then begins with nothing.
    fn rate(&self, name: &str) -> f64 {
        let (before, now) = (number(self.before, name), number(self.now, name));
        let added = if now >= before { now - before } else { now };
        added as f64 / self.time.as_secs_f64().max(1e-3)
    }

    /// The time, in microseconds, that this share of what was done since took no longer than; of
    /// what took longer than any bound, the highest bound.
    fn percentile(&self, name: &str, share: f64) -> Option<f64> {
        let rows = |of: &Value| of.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let before = rows(self.before);
        let mut counts = Vec::new();
        for row in rows(self.now) {
            let least = number(&row, "micros-min");
            let is_same = |it: &&Value| number(it, "micros-min") == least;
            let was = before.iter().find(is_same).map_or(0, |it| number(it, "count"));
            let most = row.get("micros-max").and_then(Value::as_u64).unwrap_or(least);
            counts.push((most, number(&row, "count").saturating_sub(was)));
        }
        let all: u64 = counts.iter().map(|(_, count)| count).sum();
        let wanted = (all as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = counts.into_iter().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        found.map(|(most, _)| most as f64)
    }
}

fn micros(time: Option<f64>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) if time >= 1e6 => format!("{} s", figure(time / 1e6)),
        Some(time) if time >= 1e3 => format!("{} ms", figure(time / 1e3)),
        Some(time) => format!("{} us", figure(time)),
    }
}

fn member<'a>(of: &'a Value, name: &str) -> &'a Value {
    of.get(name).unwrap_or(&Value::Null)
}

fn number(of: &Value, name: &str) -> u64 {
    of.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn word(of: &Value, name: &str) -> String {
    printable(of.get(name).and_then(Value::as_str).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both<'a>(before: &'a Value, now: &'a Value) -> Both<'a> {
        Both { before, now, time: Duration::from_secs(2) }
    }

    #[test]
    fn a_rate_is_what_was_added_and_begins_anew_with_the_node() {
        let (before, now) = (json!({ "events": 10 }), json!({ "events": 30 }));
        assert_eq!(both(&before, &now).rate("events"), 10.0);
        assert_eq!(both(&now, &before).rate("events"), 5.0);
        assert_eq!(both(&Value::Null, &now).rate("events"), 15.0);
    }

    #[test]
    fn times_are_of_what_was_done_between() {
        let row = |least, most: Option<u64>, count| json!({ "micros-min": least, "micros-max": most, "count": count });
        let before = json!({ "call": [row(0, Some(50), 1_000)] });
        let now = json!({ "call": [
            row(0, Some(50), 1_050), row(50, Some(100), 49), row(1_000, None, 1),
        ] });
        let both = both(&before, &now);
        assert_eq!(both.percentile("call", 0.5), Some(50.0));
        assert_eq!(both.percentile("call", 0.99), Some(100.0));
        assert_eq!(both.percentile("call", 1.0), Some(1_000.0));
        assert_eq!(both.percentile("none", 0.5), None);
    }

    #[test]
    fn a_pipeline_is_shown_by_stage_hop_and_output() {
        let said = |events: u64| {
            json!({
                "name": "p", "version": 2, "state": "running",
                "ingest": { "events": events, "rejected": 0, "acknowledged": [] },
                "stage": [{ "name": "s\u{1b}", "events-in": events, "failures": 1, "traps": 1 }],
                "hop": [], "output": [{ "name": "o", "events": events, "bytes": 7 }],
            })
        };
        let gpu = |micros: u64| {
            json!({ "stages": [
            { "pipeline": "p", "stage": "s\u{1b}", "device-micros": micros },
        ] })
        };
        let at = Instant::now();
        let before = Reading { at, said: said(0), gpu: gpu(0) };
        let now = Reading { at: at + Duration::from_secs(1), said: said(500), gpu: gpu(250_000) };
        let view = View::between(&before, &now);
        let shown = view.json();
        assert_eq!(shown["stages"][0]["in/s"], 500.0);
        assert_eq!(shown["outputs"][0]["kept-bytes"], 7);
        assert_eq!(shown.get("hops"), None);
        assert!(view.title.starts_with("p v2 running: 500 events/s in"), "{}", view.title);
        let text = view.tables[0].1.iter().map(readable).collect::<Vec<_>>();
        assert_eq!(text[0]["in/s"], "500");
    }
}
