//! `docs/reference/manifest.md`, from the schema of manifests: a table for each table.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{MADE, cell, code};

/// What values with these patterns are called.
const PATTERNS: [(&str, &str); 8] = [
    ("^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$", "a name"),
    (
        r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z]([a-z0-9-]{0,61}[a-z0-9])?)?$",
        "`stage` or `stage.port`",
    ),
    ("^[0-9]{1,20}(B|KiB|MiB|GiB|kB|MB|GB)$", "a size: `\"64MiB\"`"),
    ("^[0-9]{1,20}(ms|s|m|h|d)$", "a duration: `\"5s\"`"),
    (r"^(/([^~/]|~[01])*)*$", "a JSON pointer"),
    ("^sha256:[0-9a-f]{64}$", "`sha256:` and 64 hex digits"),
    (
        r"^https?://((\*\.)?[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?$",
        "an origin: `\"https://api.example.com\"`, `\"https://*.example.com:8443\"`",
    ),
    (
        "^([a-z]([a-z0-9-]{0,61}[a-z0-9])?|sha256:[0-9a-f]{64}|[a-z]([a-z0-9-]{0,61}[a-z0-9])?\
         @sha256:[0-9a-f]{64}|oci://[^@]+@sha256:[0-9a-f]{64})$",
        "a name, `sha256:…`, both as `name@sha256:…`, or `oci://…@sha256:…`",
    ),
];

/// The page.
pub(super) fn page(schema: &Value) -> String {
    let mut out = format!(
        "# Manifest reference\n\n{MADE}\n\nEvery field of a pipeline's manifest, TOML or JSON, as \
         [the schema](../manifest.schema.json) has it. What they are for, with examples: \
         [pipelines](../guide/pipelines.md). A name is 1 to 63 of `a-z`, `0-9` and `-`, begins \
         with a letter and does not end with `-`. A field that is not here is refused.\n"
    );
    table(&mut out, "", schema);
    out
}

/// A heading and its rows, then the tables within.
fn table(out: &mut String, path: &str, schema: &Value) {
    let title = if path.is_empty() { "The pipeline".to_owned() } else { code(path) };
    write!(out, "\n## {title}\n\n").expect("to a text");
    if !path.is_empty()
        && let Some(about) = schema["description"].as_str()
    {
        write!(out, "{}\n\n", cell(about)).expect("to a text");
    }
    out.push_str("| field | value | default | meaning |\n|---|---|---|---|\n");
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let fields = schema["properties"].as_object().expect("a table has fields");
    for (name, field) in fields {
        let default = match field.get("default") {
            Some(Value::Array(list)) if list.is_empty() => "none".to_owned(),
            Some(default) => code(&default.to_string()),
            None if required.iter().any(|required| required == name) => "required".to_owned(),
            None => "—".to_owned(),
        };
        let about = cell(field["description"].as_str().unwrap_or_default());
        writeln!(out, "| {} | {} | {default} | {about} |", code(name), value(field))
            .expect("to a text");
    }
    for (name, field) in fields {
        inner(out, &join(path, name), field);
    }
}

/// The tables that a field holds.
fn inner(out: &mut String, path: &str, field: &Value) {
    if is_table(field) {
        table(out, path, field);
    } else if is_table(&field["additionalProperties"]) {
        table(out, &format!("{path}.<name>"), &field["additionalProperties"]);
    } else if is_table(&field["items"]) {
        table(out, &format!("{path}[]"), &field["items"]);
    }
}

fn is_table(schema: &Value) -> bool {
    schema["properties"].as_object().is_some_and(|fields| !fields.is_empty())
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What a field may be, in words.
fn value(field: &Value) -> String {
    if let Some(constant) = field.get("const") {
        return code(&constant.to_string());
    }
    let words = |list: &Value| {
        let all = list.as_array().into_iter().flatten();
        all.map(|word| code(&word.to_string())).collect::<Vec<_>>().join(", ")
    };
    if field["enum"].is_array() {
        return words(&field["enum"]);
    }
    if let Some(choices) = field["anyOf"].as_array() {
        return choices.iter().map(value).collect::<Vec<_>>().join(", or ");
    }
    match field["type"].as_str() {
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("integer") => format!("{} to {}", field["minimum"], field["maximum"]),
        Some("string") => text(field),
        Some("array") => format!(
            "list{}: {}",
            bounds(field, "minItems", "maxItems"),
            if is_table(&field["items"]) { "tables".to_owned() } else { value(&field["items"]) }
        ),
        Some("object") => object(field),
        _ => panic!("a form of field this page does not know: {field}"),
    }
}

/// What texts like an expression are called, where there is a word for them.
pub(super) fn in_words(pattern: &str) -> Option<&'static str> {
    let found = PATTERNS.iter().find(|(known, _)| *known == pattern);
    found.map(|(_, words)| *words)
}

fn text(field: &Value) -> String {
    let known = match field["pattern"].as_str() {
        None => "a text".to_owned(),
        Some(pattern) => match in_words(pattern) {
            Some(words) => words.to_owned(),
            None => format!("a text like {}", code(pattern)),
        },
    };
    match field["maxLength"].as_u64() {
        Some(most) => format!("{known}, at most {most} bytes"),
        None => known,
    }
}

fn object(field: &Value) -> String {
    let by_name = &field["additionalProperties"];
    if by_name.is_object() {
        let what = if is_table(by_name) { "tables".to_owned() } else { value(by_name) };
        return format!("by name{}: {what}", bounds(field, "minProperties", "maxProperties"));
    }
    match field["properties"].as_object().map(Map::len) {
        // A choice that says it all itself.
        Some(1) if field["required"].is_array() => {
            let (name, only) = field["properties"]
                .as_object()
                .expect("as above")
                .iter()
                .next()
                .expect("there is one");
            format!("`{{ {name} = … }}`, {}", value(only))
        }
        _ => "a table".to_owned(),
    }
}

/// How many there may be.
fn bounds(field: &Value, least: &str, most: &str) -> String {
    let number = |name: &str| field[name].as_u64();
    match (number(least), number(most)) {
        (None | Some(0), Some(most)) => format!(" of at most {most}"),
        (Some(least), Some(most)) => format!(" of {least} to {most}"),
        _ => String::new(),
    }
}

#[test]
fn a_new_field_has_a_row_and_a_new_table_a_heading() {
    let schema = serde_json::json!({ "properties": {
        "speed": { "type": "integer", "minimum": 1, "maximum": 9, "default": 3,
                   "description": "How | fast." },
        "wheels": { "type": "object", "additionalProperties": { "type": "object", "properties": {
            "size": { "type": "string", "pattern": "^[0-9]{1,20}(ms|s|m|h|d)$" } } } },
    }, "required": ["wheels"] });
    let page = page(&schema);
    assert!(page.contains("| `speed` | 1 to 9 | `3` | How \\| fast. |"), "{page}");
    assert!(page.contains("| `wheels` | by name: tables | required |"), "{page}");
    assert!(page.contains("## `wheels.<name>`"), "{page}");
    assert!(page.contains("| `size` | a duration: `\"5s\"` | — |"), "{page}");
}
