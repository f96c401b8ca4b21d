//! Reading manifests, good and bad, and writing them back.

use proptest::prelude::*;

use super::fields::{Field, Kind, MANIFEST};
use super::*;
use crate::pipeline::sample::{declarations, json};
use crate::pipeline::{Delivery, Facts, OnFailure, Scope, build};

const WORD_COUNT: &str = r#"{
    "version": 1, "name": "word-count", "delivery": "best-effort", "partitions": 4,
    "ingest": { "to": ["split"], "key": "/user" },
    "stages": {
        "split": { "component": "split", "ports": ["words"] },
        "count": {
            "component": "count", "scope": "key", "on-failure": "halt", "retries": 0,
            "config": { "greeting": "hi" },
            "limits": { "memory": "64MiB", "fuel-per-event": 1000000, "instances": 9 }
        }
    },
    "edges": [ { "from": "split.words", "to": "count", "key": "emitted" } ],
    "outputs": { "counts": { "from": "count", "retain-bytes": "1MiB" } }
}"#;

fn codes(problems: &Problems) -> Vec<(&str, &str)> {
    problems.list().iter().map(|p| (p.field.as_str(), p.code)).collect()
}

fn problem<'a>(problems: &'a Problems, field: &str) -> &'a Problem {
    let found = problems.list().iter().find(|p| p.field == field);
    found.unwrap_or_else(|| panic!("nothing about {field} in:\n{problems}"))
}

/// The problems of the example with one value put in its place; a path's steps are names.
fn with(path: &[&str], value: Value) -> Problems {
    fn put(at: &mut Value, path: &[&str], value: Value) {
        let Value::Table(table) = at else { panic!("{path:?} is not in a table") };
        match path {
            [name] => drop(table.insert((*name).to_owned(), value)),
            [name, rest @ ..] => {
                let inner = table.entry((*name).to_owned()).or_insert(Value::Table(Table::new()));
                put(inner, rest, value);
            }
            [] => panic!("a path has a step"),
        }
    }
    let mut manifest = json(WORD_COUNT);
    put(&mut manifest, path, value);
    read(&manifest).1
}

#[test]
fn the_example_is_read_with_its_defaults() {
    let (declaration, problems) = read(&json(WORD_COUNT));
    assert!(problems.is_empty(), "{problems}");
    assert_eq!(declaration.name, "word-count");
    assert_eq!(declaration.partitions, Some(4));
    assert_eq!(declaration.ingest.key.as_ref().map(ToString::to_string).as_deref(), Some("/user"));
    let (split, count) = (&declaration.stages["split"], &declaration.stages["count"]);
    assert_eq!(split.scope, Scope::Shared);
    assert_eq!(split.ports, ["words"]);
    assert_eq!(split.inputs, ["in"]);
    assert_eq!(split.on_failure, OnFailure::DeadLetter);
    assert_eq!(split.retries, 3);
    assert_eq!(split.limits.memory, 64 << 20);
    assert_eq!(split.limits.fuel_per_event, 100_000_000);
    assert_eq!(split.limits.event_bytes, 1 << 20);
    assert_eq!(count.scope, Scope::Key);
    assert_eq!(count.on_failure, OnFailure::Halt);
    assert_eq!(count.retries, 0);
    assert_eq!(count.limits.fuel_per_event, 1_000_000);
    assert_eq!(count.limits.instances, 9);
    assert_eq!(count.ports, ["out"]);
    assert_eq!(count.config["greeting"], "hi");
    assert_eq!(declaration.edges[0].key, EdgeKey::Emitted);
    assert_eq!(declaration.outputs["counts"].retain_bytes, 1 << 20);
}

#[test]
fn a_manifest_with_twenty_mistakes_reports_all_twenty_at_once() {
    let manifest = json(
        r#"{
        "version": 1,
        "name": "Word Count",
        "partitions": 5000,
        "delivery": "at-least-once",
        "colour": "green",
        "ingest": { "to": ["spilt"], "key": "user" },
        "stages": {
            "split": {
                "component": "Split!", "ports": ["words", "words"], "retires": 3,
                "limits": { "memory": 64, "fuel-per-event": 1, "event-bytes": "17MiB" },
                "stream": { "idle-timeout": "30s" }
            },
            "count": {
                "component": "count", "scope": "session", "on-failure": "wait",
                "config": { "window": 5 }, "grants": { "wasi-http": ["example.com"] }
            },
            "orphan": { "component": "count", "assets": { "table": "md5:abc" } }
        },
        "edges": [
            { "from": "split.word", "to": "count" },
            { "from": "count", "to": "split" },
            { "from": "count" }
        ],
        "outputs": { "dead-letters": { "from": "count" } }
    }"#,
    );
    let problems = build(&manifest, &Facts::default()).expect_err("there are mistakes");
    let mut found = codes(&problems);
    found.sort_unstable();
    let mut expected = vec![
        ("name", "manifest.name"),
        ("delivery", "manifest.choice"),
        ("partitions", "manifest.range"),
        ("colour", "manifest.unknown-field"),
        ("ingest.to[0]", "pipeline.unknown-stage"),
        ("ingest.key", "manifest.pointer"),
        ("stages.split.component", "manifest.component"),
        ("stages.split.ports[1]", "manifest.duplicate"),
        ("stages.split.retires", "manifest.unknown-field"),
        ("stages.split.limits.memory", "manifest.unit"),
        ("stages.split.limits.fuel-per-event", "manifest.range"),
        ("stages.split.limits.event-bytes", "manifest.range"),
        ("stages.split.stream", "manifest.scope"),
        ("stages.count.scope", "manifest.choice"),
        ("stages.count.on-failure", "manifest.choice"),
        ("stages.count.config.window", "manifest.type"),
        ("stages.count.grants.wasi-http", "manifest.unknown-field"),
        ("stages.orphan.assets.table", "manifest.digest"),
        ("edges[2].to", "manifest.missing"),
        ("outputs.dead-letters", "pipeline.reserved-name"),
    ];
    expected.sort_unstable();
    assert_eq!(expected.len(), 20);
    assert_eq!(found, expected, "\n{problems}");
    assert!(problems.list().iter().all(|p| !p.message.is_empty() && !p.fix.is_empty()));
}

#[test]
fn a_misspelt_field_is_recognised() {
    let problems = with(&["stages", "split", "retires"], Value::Integer(1));
    assert_eq!(problem(&problems, "stages.split.retires").fix, "did you mean \"retries\"?");
    let problems = with(&["stages", "split", "on_failure"], Value::from("halt"));
    assert_eq!(problem(&problems, "stages.split.on_failure").fix, "did you mean \"on-failure\"?");
}

#[test]
fn delivery_is_one_of_two_words_and_exactly_once_without() {
    let without = read(&json(&WORD_COUNT.replace(r#""delivery": "best-effort","#, "")));
    assert!(without.1.is_empty(), "{}", without.1);
    assert_eq!(without.0.delivery, Delivery::ExactlyOnce);
    let problems = with(&["delivery"], Value::from("at-least-once"));
    assert_eq!(problem(&problems, "delivery").code, "manifest.choice");
}

#[test]
fn a_newer_version_is_refused_and_nothing_else_is_said() {
    let problems = read(&json(r#"{ "version": 2, "pipelines": [] }"#)).1;
    assert_eq!(codes(&problems), [("version", "manifest.version")]);
    let problems = build(&json(r#"{ "version": 2 }"#), &Facts::default()).expect_err("version 2");
    assert_eq!(codes(&problems), [("version", "manifest.version")]);
    let problems = read(&json(r#"{ "version": "1" }"#)).1;
    assert_eq!(problem(&problems, "version").code, "manifest.type");
}

#[test]
fn what_is_no_table_is_refused_whole() {
    for manifest in [Value::Null, Value::Array(vec![]), Value::from("version = 1")] {
        let problems = read(&manifest).1;
        assert_eq!(codes(&problems), [("", "manifest.type")]);
    }
}

#[test]
fn a_component_in_a_registry_is_the_commands_business() {
    let digest = "0a".repeat(32);
    for (text, fix) in [
        (format!("oci://ghcr.io/acme/split@sha256:{digest}"), "apply the manifest with"),
        ("oci://ghcr.io/acme/split:1".to_owned(), "apply the manifest with"),
        ("ghcr.io/acme/split".to_owned(), "write \"name\""),
    ] {
        let problems = with(&["stages", "split", "component"], Value::String(text));
        let problem = problem(&problems, "stages.split.component");
        assert_eq!(problem.code, "manifest.component");
        assert!(problem.fix.starts_with(fix), "{}", problem.fix);
    }
}

#[test]
fn settings_without_effect_in_a_scope_are_refused() {
    let problems = with(&["stages", "split", "limits", "instances"], Value::Integer(5));
    assert_eq!(problem(&problems, "stages.split.limits.instances").code, "manifest.scope");
    let problems = with(&["stages", "count", "stream"], Value::Table(Table::new()));
    assert_eq!(problem(&problems, "stages.count.stream").code, "manifest.scope");
    let problems = with(&["stages", "count", "park"], Value::Table(Table::new()));
    assert_eq!(problem(&problems, "stages.count.park").code, "manifest.scope");
    let mut stage = Table::new();
    stage.insert("component".to_owned(), Value::from("split"));
    stage.insert("scope".to_owned(), Value::from("stream"));
    stage.insert("on-failure".to_owned(), Value::from("park"));
    let problems = with(&["stages", "split"], Value::Table(stage));
    assert_eq!(problem(&problems, "stages.split.on-failure").code, "manifest.scope");
    // With a scope that cannot be read nobody knows what has an effect.
    let mut stage = Table::new();
    stage.insert("component".to_owned(), Value::from("split"));
    stage.insert("scope".to_owned(), Value::from("steam"));
    stage.insert("stream".to_owned(), Value::Table(Table::new()));
    let problems = with(&["stages", "split"], Value::Table(stage));
    assert_eq!(codes(&problems), [("stages.split.scope", "manifest.choice")]);
    assert_eq!(problem(&problems, "stages.split.scope").fix, "did you mean \"stream\"?");
}

#[test]
fn edge_keys_are_words_or_a_pointer() {
    let edge = |key: &str| {
        let text = format!(r#"[{{ "from": "split", "to": "count", "key": {key} }}]"#);
        with(&["edges"], json(&text))
    };
    for good in [r#""cause""#, r#""emitted""#, r#"{ "json": "/a~1b" }"#, r#"{ "json": "" }"#] {
        assert!(edge(good).is_empty(), "{good}: {}", edge(good));
    }
    assert_eq!(problem(&edge(r#""/user""#), "edges[0].key").fix, "write { json = \"/user\" }");
    assert_eq!(problem(&edge("5"), "edges[0].key").code, "manifest.type");
    assert_eq!(problem(&edge(r#""emited""#), "edges[0].key").fix, "did you mean \"emitted\"?");
    assert_eq!(problem(&edge("{}"), "edges[0].key.json").code, "manifest.missing");
    let problems = edge(r#"{ "json": "/~2" }"#);
    assert_eq!(problem(&problems, "edges[0].key.json").code, "manifest.pointer");
    let problems = edge(&format!(r#"{{ "json": "/{}" }}"#, "a".repeat(256)));
    assert_eq!(problem(&problems, "edges[0].key.json").fix, "use at most 256 bytes");
}

#[test]
fn every_count_has_a_bound() {
    let many = |n: usize, text: &str| {
        let items: Vec<String> = (0..n).map(|i| format!("\"n{i}\": {text}")).collect();
        json(&format!("{{ {} }}", items.join(", ")))
    };
    let path = ["stages", "split", "config"];
    assert!(with(&path, many(64, r#""v""#)).is_empty());
    assert_eq!(codes(&with(&path, many(65, r#""v""#))), [("stages.split.config", "manifest.size")]);
    let long = "v".repeat(4097);
    let problems = with(&["stages", "split", "config", "k"], Value::from(long.as_str()));
    assert_eq!(codes(&problems), [("stages.split.config.k", "manifest.size")]);
    let problems = with(&["stages"], many(65, r#"{ "component": "c" }"#));
    assert_eq!(codes(&problems), [("stages", "manifest.size")]);
    let problems = with(&["outputs"], many(65, r#"{ "from": "count" }"#));
    assert_eq!(codes(&problems), [("outputs", "manifest.size")]);
    let edges: Vec<&str> = vec![r#"{ "from": "split", "to": "count" }"#; 257];
    let problems = with(&["edges"], json(&format!("[{}]", edges.join(","))));
    assert_eq!(codes(&problems), [("edges", "manifest.size")]);
}

#[test]
fn a_flood_of_mistakes_is_cut_and_counted() {
    let mut manifest = Table::new();
    manifest.extend((0..5000).map(|i| (format!("field{i}"), Value::Null)));
    let problems = read(&Value::Table(manifest)).1;
    assert_eq!(problems.list().len(), bounds::PROBLEMS_MAX);
    // Four required fields are missing besides.
    assert_eq!(problems.omitted(), 5004 - bounds::PROBLEMS_MAX);
}

#[test]
fn text_of_the_manifest_is_escaped_and_cut_in_messages() {
    let name = format!("a\u{1b}[2J\n{}", "x".repeat(100_000));
    let problems = with(&[name.as_str()], Value::Null);
    let [only] = problems.list() else { panic!("{problems}") };
    let text = only.to_string();
    assert!(text.len() < 500 && !text.chars().any(char::is_control), "{text}");
}

/// Paths of all fields of the table; `*` stands for a name of the author's choice.
fn paths(fields: &[Field], path: &str, out: &mut Vec<String>) {
    for field in fields {
        let path = format!("{path}/{}", field.name);
        inner_paths(&field.kind, &path, out);
        out.push(path);
    }
}

fn inner_paths(kind: &Kind, path: &str, out: &mut Vec<String>) {
    match kind {
        Kind::Table(fields) => paths(fields, path, out),
        Kind::List { of, .. } | Kind::Map { of, .. } => inner_paths(of, &format!("{path}/*"), out),
        _ => {}
    }
}

/// The same paths as they occur in a written manifest.
fn written(value: &Value, path: &str, known: &[String], out: &mut Vec<String>) {
    let chosen = !known.iter().any(|k| {
        k.strip_prefix(path).and_then(|r| r.strip_prefix('/')).is_some_and(|r| !r.starts_with('*'))
    });
    let mut go = |name: &str, value: &Value| {
        let path = format!("{path}/{}", if chosen { "*" } else { name });
        written(value, &path, known, out);
        out.push(path);
    };
    match value {
        Value::Table(table) => table.iter().for_each(|(name, value)| go(name, value)),
        Value::Array(items) => items.iter().for_each(|value| go("*", value)),
        _ => {}
    }
}

/// Every field of sources and sinks.
const CONNECTORS: &str = r#""sources": {
        "a": { "key": "k", "file": { "path": "/a", "form": "text", "line-bytes": "2KiB" } },
        "b": { "folder": {
            "path": "/b", "form": "whole", "after": "delete", "line-bytes": "2KiB"
        } },
        "c": { "cron": { "at": "0 3 * * *", "zone": "Europe/Berlin", "missed": "all" } },
        "d": { "nats": {
            "url": "tls://nats.test", "stream": "S", "consumer": "c", "begin": "new",
            "subject": "a.>", "message-bytes": "2KiB", "secret": "s"
        } },
        "e": { "nats": { "url": "nats://nats.test:4222", "subject": "b", "queue": "q" } }
    },
    "sinks": { "s": { "from": "counts", "on-refusal": "drop", "webhook": {
        "url": "https://example.test/x", "form": "lines", "batch-events": 7, "secret": "s",
        "timeout": "3s", "pause-max": "9s"
    } }, "t": { "from": "counts", "nats": {
        "url": "nats://nats.test", "subject": "counts", "form": "event", "confirmed-by": "server",
        "batch-events": 7, "secret": "s", "timeout": "3s", "pause-max": "9s"
    } } }"#;

#[test]
fn every_field_of_the_table_is_written_and_so_read() {
    let text =
        WORD_COUNT.replace("\"split\", \"ports\"", "\"split\", \"scope\": \"stream\", \"ports\"");
    let text = text.replace("\"on-failure\": \"halt\"", "\"on-failure\": \"park\"");
    let text = text.replace(
        "\"retries\": 0",
        "\"retries\": 0, \"state-ttl\": \"30d\", \"grants\": { \"http\": { \"allow\": \
                  [\"https://a.example\"] } }",
    );
    let text = text.replace("\"split\", \"scope\"", "\"split\", \"from\": \"cut\", \"scope\"");
    let time = "\"time\": { \"idle-after\": \"1s\" }, \"ingest\": { \"time\": \"/at\",";
    let text = text.replace("\"ingest\": {", time);
    let scaling = "\"scaling\": { \"max\": 9, \"apart\": \"count\" }, \"stages\": {";
    let text = text.replacen("\"stages\": {", scaling, 1);
    let grants = "\"split\", \"grants\": { \"gpu\": {}, \"keyvalue\": { \"buckets\": [\"b\"] } }, \
                  \"from\"";
    let text = text.replace("\"split\", \"from\"", grants);
    let text = text.replacen("\"stages\": {", &format!("{CONNECTORS}, \"stages\": {{"), 1);
    let (declaration, problems) = read(&json(&text));
    assert!(problems.is_empty(), "{problems}");
    let mut known = Vec::new();
    paths(&MANIFEST, "", &mut known);
    let mut found = Vec::new();
    written(&declaration.write(), "", &known, &mut found);
    for path in &known {
        assert!(found.contains(path), "{path} is in the table and never written");
    }
}

#[test]
fn state_expires_where_it_may_and_within_its_bounds() {
    let ttl = |text: &str| with(&["stages", "count", "state-ttl"], Value::from(text));
    for good in ["1s", "36h", "30d", "3650d"] {
        assert!(ttl(good).is_empty(), "{}", ttl(good));
    }
    for bad in ["999ms", "3651d"] {
        assert_eq!(problem(&ttl(bad), "stages.count.state-ttl").code, "manifest.range");
    }
    assert_eq!(problem(&ttl("30"), "stages.count.state-ttl").code, "manifest.unit");
    let mut stage = Table::new();
    stage.insert("component".to_owned(), Value::from("split"));
    stage.insert("ports".to_owned(), Value::Array(vec![Value::from("words")]));
    stage.insert("state-ttl".to_owned(), Value::from("1h"));
    assert!(with(&["stages", "split"], Value::Table(stage.clone())).is_empty());
    stage.insert("scope".to_owned(), Value::from("stream"));
    let problems = with(&["stages", "split"], Value::Table(stage));
    let problem = problem(&problems, "stages.split.state-ttl");
    assert_eq!(problem.code, "manifest.scope");
    assert!(problem.fix.contains("stream.idle-timeout"), "{}", problem.fix);
    let (declaration, _) = read(&json(WORD_COUNT));
    assert_eq!(declaration.stages["count"].state_ttl_ms, None, "never without a word");
}

#[test]
fn http_goes_to_origins_and_from_no_stream() {
    let allow = |text: &str| {
        let list = Value::Array(vec![Value::from(text)]);
        with(&["stages", "count", "grants", "http", "allow"], list)
    };
    assert!(allow("https://*.example.com:8443").is_empty());
    for bad in ["example.com", "https://example.com/path", "https://*", "http://0x7f.1"] {
        let problems = allow(bad);
        let problem = problem(&problems, "stages.count.grants.http.allow[0]");
        assert_eq!(problem.code, "manifest.origin");
        assert!(problem.fix.contains("https://api.example.com"), "{}", problem.fix);
    }
    let text = "\"split\", \"scope\": \"stream\", \"grants\": { \"http\": { \"allow\": \
                [\"https://a.example\"] } }, \"ports\"";
    let (_, problems) = read(&json(&WORD_COUNT.replace("\"split\", \"ports\"", text)));
    assert_eq!(problem(&problems, "stages.split.grants.http").code, "manifest.scope");
}

#[test]
fn the_published_schema_is_that_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/manifest.schema.json");
    let now = schema().to_json_pretty();
    if std::env::var_os("SLUICEBOX_BLESS").is_some() {
        std::fs::write(path, &now).expect("docs can be written when blessing");
    }
    let published = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        published == now,
        "docs/manifest.schema.json is out of date: run with SLUICEBOX_BLESS=1"
    );
}

#[test]
fn the_guide_names_every_field() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/pipelines.md");
    let guide = std::fs::read_to_string(path).expect("the guide is there");
    let mut known = Vec::new();
    paths(&MANIFEST, "", &mut known);
    for path in known {
        let name = path.rsplit('/').next().unwrap_or_default();
        assert!(guide.contains(&format!("`{name}`")), "docs/guide/pipelines.md lacks `{name}`");
    }
    assert!(guide.contains(&words::digest_prefix()), "the guide shows another kind of digest");
}

#[test]
fn the_guide_explains_every_code() {
    let sources = [
        include_str!("decode.rs"),
        include_str!("walk.rs"),
        include_str!("../pipeline/check.rs"),
        include_str!("../plan.rs"),
    ];
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/pipelines.md");
    let guide = std::fs::read_to_string(path).expect("the guide is there");
    let quoted = sources.iter().flat_map(|source| source.split('"'));
    let is_code = |text: &&str| {
        let parts = text.split_once('.');
        parts.is_some_and(|(area, what)| {
            ["manifest", "pipeline", "plan"].contains(&area)
                && !what.is_empty()
                && what.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        })
    };
    let codes: std::collections::BTreeSet<&str> = quoted.filter(is_code).collect();
    assert!(codes.len() > 20, "codes are no longer found in the sources: {codes:?}");
    for code in codes {
        assert!(guide.contains(&format!("`{code}`")), "docs/guide/pipelines.md lacks `{code}`");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again_unchanged(declaration in declarations()) {
        let (again, problems) = read(&declaration.write());
        prop_assert!(problems.is_empty(), "{problems}");
        prop_assert_eq!(again, declaration);
    }

    #[test]
    fn no_tree_of_values_makes_the_reader_fail(
        path in "(name|version|stages|edges|ingest|outputs|partitions|delivery)",
        scalar in "[a-z\"~/.@: 0-9]{0,12}",
        number in any::<i64>(),
        shape in 0_u8..7,
    ) {
        let text = Value::String(scalar.clone());
        let member = |v: Value| Value::Table(Table::from([(scalar.clone(), v)]));
        let value = match shape {
            0 => text,
            1 => Value::Integer(number),
            2 => Value::Array(vec![text, Value::Integer(number)]),
            3 => member(text),
            4 => Value::Array(vec![member(text)]),
            5 => member(member(text)),
            _ => Value::Float("nan".to_owned()),
        };
        let problems = with(&[path.as_str()], value.clone());
        let Value::Table(mut manifest) = json(WORD_COUNT) else { unreachable!() };
        manifest.insert(path, value);
        let built = build(&Value::Table(manifest), &Facts::default());
        // What is wrong for the reader is wrong for the check as well.
        prop_assert!(problems.is_empty() || built.is_err());
    }
}
