//! The published description of the interface, OpenAPI 3.1, made of the table of routes.
//!
//! `docs/openapi.json` is its text; a test compares the two. Every status an operation answers with
//! is in it, and for each the codes of problem documents; `docs/guide/errors.md` says what they
//! mean, and a test holds their statuses against it.

mod statuses;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sluicebox_core::limits::KEY_BYTES_MAX;

use self::statuses::status_of;
use super::api::{Parameter, ROUTES, Reply, Route, Sort, TENANT, TENANTS_CODES};

const PROBLEM: &str = "application/problem+json";

/// The description as it is served.
pub(super) fn text() -> Bytes {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
        text.push('\n');
        Bytes::from(text)
    })
    .clone()
}

fn document() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_default();
        path.insert(route.method.to_ascii_lowercase(), operation(route));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "sluicebox",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Stream pipelines of sandboxed functions",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "A tenant's token. In development mode there are none.",
            } },
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = Map::new();
    operation.insert("operationId".to_owned(), json!(route.id));
    operation.insert("summary".to_owned(), json!(route.summary));
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = names.map(in_path).collect();
    parameters.extend(route.parameters.iter().map(parameter));
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), json!(parameters));
    }
    if !route.body.is_empty() {
        let content: Map<String, Value> =
            route.body.iter().map(|media| ((*media).to_owned(), body(route, media))).collect();
        // Raw bytes may be none; anything else says something, or is refused.
        let needed = !route.body.contains(&"application/octet-stream");
        let body = json!({ "required": needed, "content": content });
        operation.insert("requestBody".to_owned(), body);
    }
    if let Some(scope) = route.scope {
        operation.insert("security".to_owned(), json!([{ "token": [] }]));
        operation.insert("x-scope".to_owned(), json!(scope.as_str()));
    }
    operation.insert("responses".to_owned(), responses(route));
    Value::Object(operation)
}

fn in_path(name: &str) -> Value {
    // The key of a stream is any text, percent-encoded.
    let schema = match name {
        "key" => json!({ "type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX }),
        _ => reference("Name"),
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

fn parameter(parameter: &Parameter) -> Value {
    let place = if parameter.header { "header" } else { "query" };
    let one = match parameter.sort {
        Sort::Text => json!({ "type": "string" }),
        Sort::Flag => json!({ "type": "boolean" }),
        Sort::From(least) => json!({ "type": "integer", "minimum": least }),
        Sort::Word(words) => json!({ "enum": words }),
        Sort::Like(pattern) => json!({ "type": "string", "pattern": pattern }),
    };
    let schema = match parameter.name {
        "discard-state" => json!({ "type": "array", "items": one }),
        _ => one,
    };
    let (name, about) = (parameter.name, parameter.about);
    let mut written = json!({ "name": name, "in": place, "description": about, "schema": schema });
    if parameter.needed {
        written["required"] = json!(true);
    }
    written
}

fn body(route: &Route, media: &str) -> Value {
    let name = match media {
        "application/json" if route.id == "applyPipeline" => "Manifest",
        "application/cloudevents+json" => "CloudEvent",
        "application/cloudevents-batch+json" => "CloudEvents",
        "application/x-ndjson" | "application/cloudevents+ndjson" | "application/toml" => "Line",
        "application/json" => "Any",
        _ => "Bytes",
    };
    json!({ "schema": reference(name) })
}

fn responses(route: &Route) -> Value {
    let mut responses: BTreeMap<String, Value> = BTreeMap::new();
    for reply in route.replies {
        responses.insert(reply.status.to_string(), success(reply));
    }
    let of_tenants = if route.scope.is_some() && route.path.starts_with(TENANT) {
        TENANTS_CODES
    } else {
        &["request.method"]
    };
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in of_tenants.iter().chain(route.codes.iter().copied().flatten()) {
        by_status.entry(status_of(code)).or_default().push(code);
    }
    for (status, mut codes) in by_status {
        codes.sort_unstable();
        codes.dedup();
        responses.insert(status.to_string(), problem(&codes));
    }
    responses.insert(
        "default".to_owned(),
        json!({
            "description": "Something failed inside the node; its log says what",
            "content": { PROBLEM: { "schema": reference("Problem") } },
        }),
    );
    json!(responses)
}

fn success(reply: &Reply) -> Value {
    let mut response = json!({ "description": reply.about });
    if !reply.content.is_empty() {
        let content: Map<String, Value> = reply
            .content
            .iter()
            .map(|(media, schema)| ((*media).to_owned(), json!({ "schema": reference(schema) })))
            .collect();
        response["content"] = json!(content);
    }
    let has = |name: &str| reply.content.iter().any(|(_, schema)| *schema == name);
    if has("Record") || has("LogLine") {
        response["headers"] = json!({ "Sluicebox-Cursor": {
            "description": "Of a page: where to go on",
            "schema": { "type": "string" },
        } });
    }
    if has("LogLine") {
        response["headers"]["Sluicebox-Missed"] = json!({
            "description": "So many lines were gone before they could be read",
            "schema": { "type": "integer", "minimum": 1 },
        });
    }
    response
}

fn problem(codes: &[&str]) -> Value {
    json!({
        "description": codes.join(", "),
        "content": { PROBLEM: { "schema": {
            "allOf": [reference("Problem"), { "properties": { "code": { "enum": codes } } }],
        } } },
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object with these members; those whose name ends in `?` may be missing.
fn object(members: &[(&str, Value)]) -> Value {
    let required: Vec<&str> =
        members.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('?')).collect();
    let properties: Map<String, Value> = members
        .iter()
        .map(|(name, schema)| (name.trim_end_matches('?').to_owned(), schema.clone()))
        .collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

fn schemas() -> Value {
    let mut all = schemas_of_events();
    all["Manifest"] = manifest();
    for more in [schemas_of_control(), schemas_of_pipelines(), schemas_of_tenants()] {
        if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
            all.extend(more);
        }
    }
    all
}

/// The published schema of manifests, without its own address.
fn manifest() -> Value {
    let text = sluicebox_core::manifest::schema().to_json_pretty();
    let mut schema: Value = serde_json::from_str(&text).unwrap_or_default();
    if let Some(members) = schema.as_object_mut() {
        members.remove("$id");
        members.remove("$schema");
    }
    schema
}

/// Of pipelines.
fn schemas_of_pipelines() -> Value {
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    json!({
        "Pipeline": object(&[
            ("name", text()), ("version", number()), ("delivery", text()), ("stages", number()),
            ("state", text()), ("node?", text()),
        ]),
        "Pipelines": list(reference("Pipeline")),
        "PipelineDetail": { "allOf": [reference("Pipeline"), object(&[
            ("manifest", reference("Object")), ("versions", list(number())),
            ("ingest", object(&[
                ("events", number()), ("bytes", number()), ("rejected", number()),
                ("duplicates", number()), ("acknowledged", list(reference("TimeTaken"))),
                ("result", list(reference("TimeTaken"))),
            ])),
            ("hop", list(object(&[
                ("from", text()), ("to", text()), ("way", text()), ("runs", number()),
                ("events", number()), ("bytes", number()), ("mean-micros", number()),
                ("waited", list(reference("TimeTaken"))),
            ]))),
            ("stage", list(reference("Object"))), ("segments", list(list(text()))),
            ("partition", list(reference("Partition"))), ("output", list(reference("Object"))),
            ("source?", list(reference("Connector"))), ("sink?", list(reference("Connector"))),
            ("disk?", reference("Object")), ("usage?", list(reference("Object"))),
        ])] },
        "Connector": object(&[
            ("name", text()), ("kind", text()), ("state", text()), ("seconds", number()),
            ("place", text()), ("lag", number()), ("events", number()), ("rejected", number()),
            ("failures", number()), ("code?", text()), ("why?", text()),
        ]),
        "Partition": object(&[
            ("segment", text()), ("partition", number()), ("worker", number()),
            ("inbox-bytes", number()), ("inbox-events", number()), ("state-bytes", number()),
            ("open-streams", number()),
            ("earlier-code-streams", number()), ("halted?", text()), ("node?", text()),
            ("way?", text()), ("unavailable?", text()),
        ]),
    })
}

/// Of what a tenant has and has used.
fn schemas_of_tenants() -> Value {
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    let of = |member| (member, reference("Object"));
    json!({
        "Gpu": object(&[
            ("state", text()), ("why?", text()), of("device?"), of("process"), of("share"),
            of("used"), ("stages", list(reference("Object"))),
        ]),
        "Bill": object(&[
            ("tenant", text()), ("from?", text()), ("to?", text()), ("currency", text()),
            of("prices"), ("rows", list(reference("BillRow"))), ("total", reference("BillRow")),
            ("unreachable", list(text())),
        ]),
        "BillRow": object(&[
            ("pipeline?", text()), ("stage?", text()), ("from?", text()), ("to?", text()),
            of("used"), ("cost", text()),
        ]),
        "Tenant": object(&[
            ("tenant", text()), ("weight", number()), ("scopes", list(text())),
            ("quota", list(object(&[
                ("resource", text()), ("limit", number()), ("used?", number()),
            ]))),
            ("pipelines", list(json!({ "allOf": [reference("Pipeline"), object(&[
                ("since", text()), ("fuel", number()), ("events", number()), ("reruns", number()),
                ("ingest-events", number()), ("ingest-bytes", number()),
                ("output-events", number()), ("dead-letters", number()),
                ("inbox-events", number()), ("state-bytes", number()), ("instances", number()),
                ("lag-ms?", number()), ("disk-bytes?", number()),
            ])] }))),
        ]),
        "TimeTaken": object(&[
            ("micros-min", number()), ("micros-max?", number()), ("count", number()),
        ]),
    })
}

/// Of what is sent and read.
fn schemas_of_events() -> Value {
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    let flag = || json!({ "type": "boolean" });
    let line_error = [("line", number()), ("code", text()), ("message", text())];
    json!({
        "Any": true,
        "Object": { "type": "object" },
        "Bytes": { "type": "string", "contentEncoding": "binary" },
        "Line": { "type": "string" },
        "Name": { "type": "string", "pattern": "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$" },
        "Accepted": object(&[
            ("accepted", number()), ("duplicates?", number()), ("rejected", number()),
            ("errors?", list(reference("LineError"))),
        ]),
        "LineError": object(&line_error),
        "CloudEvent": object(&[
            ("specversion", json!({ "const": "1.0" })), ("id", text()), ("source", text()),
            ("type", text()), ("subject?", text()), ("time?", text()),
            ("datacontenttype?", text()), ("data?", json!(true)), ("data_base64?", text()),
            ("partitionkey?", text()), ("traceparent?", text()),
        ]),
        "CloudEvents": list(reference("CloudEvent")),
        "Record": object(&[
            ("id", text()), ("source", text()), ("time", text()), ("key", text()),
            ("port?", text()), ("type?", text()), ("subject?", text()), ("traceparent?", text()),
            ("stage?", text()), ("class?", text()), ("message?", text()),
            ("datacontenttype?", text()), ("data?", json!(true)), ("data_base64?", text()),
            ("partition", number()), ("offset", number()),
        ]),
        "LogLine": object(&[
            ("time", text()), ("stage", text()), ("partition", number()), ("level", text()),
            ("text", text()),
        ]),
        "Frames": { "type": "string", "contentEncoding": "binary",
                    "description": "Packed frames, as in wit/FRAME.md" },
        "ServerSent": { "type": "string",
                        "description": "`id` is the cursor behind the event, `event` is `message` \
                                        or `trimmed`, `data` a Record, or a Problem" },
        "Session": { "type": "object",
                     "description": "An output: a Record with `cursor`, where to go on behind it; \
                                     or one of `taken`, `rejected`, `ended`, `suspended`" },
        "Standing": object(&[("key", text()), ("at", number()), ("ended", flag())]),
    })
}

/// Of everything else.
fn schemas_of_control() -> Value {
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    let flag = || json!({ "type": "boolean" });
    json!({
        "Replayed": object(&[
            ("replayed", number()), ("duplicates", number()), ("skipped", number()),
            ("cursor", text()), ("until", text()), ("done", flag()),
        ]),
        "Applied": object(&[
            ("name", text()), ("version", number()), ("created", flag()), ("changed", flag()),
            ("changes", list(text())), ("partitions", number()), ("manifest-of?", number()),
        ]),
        "Node": object(&[
            ("name", text()), ("address", text()), ("state", text()), ("seconds", number()),
            ("why?", text()), ("pipelines?", number()), ("round-trip-micros?", number()),
        ]),
        "Nodes": list(reference("Node")),
        "Plan": object(&[
            ("nodes", list(object(&[
                ("name", text()), ("host", text()), ("state", text()), ("cpu-milli", number()),
                ("cpu-milli-most", number()), ("memory-bytes", number()),
                ("memory-bytes-most", number()), ("partitions", number()),
            ]))),
            ("partitions", list(object(&[
                ("pipeline", text()), ("partition", number()), ("node", text()),
                ("cpu-milli", number()), ("memory-bytes", number()), ("why", text()),
            ]))),
            ("moves", list(object(&[
                ("step", number()), ("pipeline", text()), ("partition", number()),
                ("from", text()), ("to", text()), ("state-bytes", number()),
            ]))),
            ("before", reference("Traffic")), ("after", reference("Traffic")),
        ]),
        "Traffic": object(&[("in-node", number()), ("in-host", number()), ("network", number())]),
        "Moved": object(&[
            ("name", text()), ("from", text()), ("to", text()), ("partitions?", list(number())),
            ("pause-millis", number()),
        ]),
        "Component": object(&[
            ("name", text()), ("digest", text()), ("bytes", number()), ("world", text()),
            ("snapshots", flag()), ("imports", list(text())), ("created", number()),
        ]),
        "Components": list(reference("Component")),
        "Asset": object(&[("digest", text()), ("bytes", number())]),
        "Problem": object(&[
            ("type", text()), ("title", text()), ("status", number()), ("code", text()),
            ("detail", text()), ("problems?", list(reference("ManifestProblem"))),
            ("omitted?", number()), ("errors?", list(reference("LineError"))),
            ("rejected?", number()), ("oldest?", text()), ("cursor?", text()),
        ]),
        "ManifestProblem":
            object(&[("field", text()), ("code", text()), ("message", text()), ("fix", text())]),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::statuses::{DISK_QUOTA, STATUSES};
    use super::*;

    #[test]
    fn the_published_description_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let now = text();
        if std::env::var_os("SLUICEBOX_BLESS").is_some() {
            std::fs::write(path, &now).expect("docs can be written when blessing");
        }
        let published = std::fs::read(path).unwrap_or_default();
        assert!(published == now, "docs/openapi.json is out of date: run with SLUICEBOX_BLESS=1");
    }

    /// Calls with every value of a member, wherever it is.
    fn each<'a>(value: &'a Value, member: &str, found: &mut Vec<&'a Value>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get(member));
                members.values().for_each(|value| each(value, member, found));
            }
            Value::Array(items) => items.iter().for_each(|value| each(value, member, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_used() {
        let document = document();
        let mut found = Vec::new();
        each(&document, "$ref", &mut found);
        let mut used = BTreeSet::new();
        for reference in found {
            let target = reference.as_str().expect("a reference is text");
            let pointer = target.strip_prefix('#').expect("inside the document");
            assert!(document.pointer(pointer).is_some(), "{target}");
            used.insert(target.rsplit('/').next().expect("a name").to_owned());
        }
        let schemas = document["components"]["schemas"].as_object().expect("an object");
        let known: BTreeSet<String> = schemas.keys().cloned().collect();
        assert_eq!(used, known);
    }

    #[test]
    fn every_route_is_in_it_whole_and_once() {
        let document = document();
        let mut ids = BTreeSet::new();
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method.to_ascii_lowercase()];
            assert_eq!(operation["operationId"], route.id);
            assert!(ids.insert(route.id), "{} stands for two", route.id);
            let parameters = operation["parameters"].as_array().map_or(0, Vec::len);
            let in_path = route.path.matches('{').count();
            assert_eq!(parameters, in_path + route.parameters.len(), "{}", route.id);
            let replies = operation["responses"].as_object().expect("an object");
            assert!(route.replies.iter().all(|r| replies.contains_key(&r.status.to_string())));
            let all = replies.iter().all(|(_, reply)| reply["description"].is_string());
            assert!(all && !replies.contains_key("0"), "{}: a code without a status", route.id);
        }
        let written = document["paths"].as_object().expect("paths");
        let written: usize = written.values().map(|p| p.as_object().map_or(0, Map::len)).sum();
        assert_eq!(written, ROUTES.len());
    }

    #[test]
    fn the_statuses_of_codes_are_those_of_the_guide() {
        let guide = include_str!("../../../../docs/guide/errors.md");
        let mut usual = 0;
        let mut seen = BTreeSet::new();
        for line in guide.lines() {
            usual = match line {
                "## Invalid" => 400,
                "## Denied" => 403,
                "## Not found" => 404,
                "## Conflict" => 409,
                "## Exhausted" => 429,
                "## Unavailable" => 503,
                "## Internal" => 500,
                _ if line.starts_with("## ") && !line.starts_with("## Mistakes in events") => 0,
                "## Mistakes in events" => 400,
                _ => usual,
            };
            let Some(row) = line.strip_prefix("| `") else { continue };
            let Some((code, text)) = row.split_once("` |") else { continue };
            let known = status_of(code);
            if known == 0 || usual == 0 {
                continue;
            }
            let own = text.split('(').filter_map(|part| part.get(..4)?.strip_suffix(')'));
            let own = own.filter_map(|digits| digits.parse().ok()).next();
            assert_eq!(known, own.unwrap_or(usual), "{code}");
            seen.insert(code);
        }
        let rows = STATUSES.iter().chain([&DISK_QUOTA]);
        let missing: Vec<_> =
            rows.flat_map(|(_, codes)| *codes).filter(|code| !seen.contains(**code)).collect();
        assert!(missing.is_empty(), "not in the guide, or in none of its kinds: {missing:?}");
    }
}
