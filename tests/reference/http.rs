//! `docs/reference/http.md`, from the description of the HTTP interface: operations, then what
//! goes over the wire.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{MADE, cell, code, manifest};

const METHODS: [&str; 4] = ["get", "put", "post", "delete"];

/// The page.
pub(super) fn page(description: &Value) -> String {
    let mut out = format!(
        "# HTTP reference\n\n{MADE}\n\nEvery path of a node, as its own description has it \
         (`GET /v1/openapi.json`, [published here](../openapi.json)). How they are used: \
         [HTTP](../guide/http.md), [a stream in one request](../guide/streams.md). An error is a \
         problem document; [errors](../guide/errors.md) says what each code means. What is made \
         for a tenant takes `Authorization: Bearer TOKEN` with the scope that is named, but in \
         development mode.\n"
    );
    for (path, item) in description["paths"].as_object().expect("it has paths") {
        for method in METHODS.iter().filter(|method| item[**method].is_object()) {
            operation(&mut out, &format!("{} {path}", method.to_uppercase()), &item[*method]);
        }
        let known = item.as_object().map_or(0, Map::len);
        let shown = METHODS.iter().filter(|method| item[**method].is_object()).count();
        assert_eq!(known, shown, "{path} has a member this page does not show");
    }
    schemas(&mut out, &description["components"]["schemas"]);
    out
}

fn operation(out: &mut String, title: &str, operation: &Value) {
    let text = |name: &str| operation[name].as_str().unwrap_or_default();
    write!(out, "\n## `{title}`\n\n{}", text("summary")).expect("to a text");
    match text("x-scope") {
        "" => out.push_str(".\n"),
        scope => writeln!(out, ". Scope `{scope}`.").expect("to a text"),
    }
    parameters(out, &operation["parameters"]);
    if let Some(content) = operation["requestBody"]["content"].as_object() {
        let forms: Vec<_> = content.iter().map(|(media, body)| form(media, body)).collect();
        let need = operation["requestBody"]["required"] == true;
        let or = if need { "" } else { ", which may be left out" };
        write!(out, "\nThe body{or}: {}.\n", forms.join(", ")).expect("to a text");
    }
    out.push_str("\n| status | what it means | body |\n|---|---|---|\n");
    for (status, reply) in operation["responses"].as_object().expect("it has replies") {
        response(out, status, reply);
    }
}

fn parameters(out: &mut String, parameters: &Value) {
    let Some(parameters) = parameters.as_array() else { return };
    out.push_str("\n| parameter | in | value | meaning |\n|---|---|---|---|\n");
    for parameter in parameters {
        let text = |name: &str| parameter[name].as_str().unwrap_or_default();
        let need = parameter["required"] == true && text("in") != "path";
        let (about, need) = (cell(text("description")), if need { ", required" } else { "" });
        let value = value(&parameter["schema"]);
        writeln!(out, "| `{}` | {}{need} | {value} | {about} |", text("name"), text("in"))
            .expect("to a text");
    }
}

fn response(out: &mut String, status: &str, reply: &Value) {
    let content = reply["content"].as_object();
    let is_problem = content.is_some_and(|all| all.contains_key("application/problem+json"));
    let about = reply["description"].as_str().unwrap_or_default();
    let mut about = match is_problem && status != "default" {
        true => about.split(", ").map(code).collect::<Vec<_>>().join(", "),
        false => cell(about),
    };
    for (name, header) in reply["headers"].as_object().into_iter().flatten() {
        let said = header["description"].as_str().unwrap_or_default();
        write!(about, "; header `{name}`: {}", cell(said)).expect("to a text");
    }
    let forms = content.into_iter().flatten().map(|(media, body)| form(media, body));
    let forms = if is_problem { vec!["a problem".to_owned()] } else { forms.collect() };
    let forms = if forms.is_empty() { "—".to_owned() } else { forms.join(", ") };
    writeln!(out, "| {status} | {about} | {forms} |").expect("to a text");
}

/// A media type, with what is in it.
fn form(media: &str, body: &Value) -> String {
    match value(&body["schema"]).as_str() {
        "" => code(media),
        what => format!("{} ({what})", code(media)),
    }
}

fn schemas(out: &mut String, schemas: &Value) {
    out.push_str("\n# What is said\n");
    for (name, schema) in schemas.as_object().expect("it has schemas") {
        write!(out, "\n## {name}\n\n").expect("to a text");
        if let Some(about) = schema["description"].as_str() {
            write!(out, "{}\n\n", cell(about)).expect("to a text");
        }
        let members = members(schema);
        if members.is_empty() {
            let what = value(schema);
            let what = if what.is_empty() { "Any JSON".to_owned() } else { what };
            writeln!(out, "{what}.").expect("to a text");
            continue;
        }
        if let Some(base) = schema["allOf"][0]["$ref"].as_str() {
            write!(out, "All of {}, and:\n\n", link(base)).expect("to a text");
        }
        out.push_str("| member | value | |\n|---|---|---|\n");
        for (member, schema, required) in members {
            let need = if required { "" } else { "may be missing" };
            writeln!(out, "| `{member}` | {} | {need} |", value(schema)).expect("to a text");
        }
    }
}

/// The members of an object, or of what one adds to another: name, value, whether it must be.
fn members(schema: &Value) -> Vec<(&str, &Value, bool)> {
    let own = if schema["allOf"].is_array() { &schema["allOf"][1] } else { schema };
    let required = |name: &str| {
        own["required"].as_array().is_some_and(|all| all.iter().any(|other| other == name))
    };
    let all = own["properties"].as_object().into_iter().flatten();
    all.map(|(name, value)| (name.as_str(), value, required(name))).collect()
}

fn link(reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or_default();
    format!("[{name}](#{})", name.to_lowercase())
}

/// What a value is, in words.
fn value(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return link(reference);
    }
    if let Some(constant) = schema.get("const") {
        return code(&constant.to_string());
    }
    if let Some(all) = schema["enum"].as_array() {
        let words = all.iter().map(|word| match word.as_str() {
            Some(text) => code(text),
            None => code(&word.to_string()),
        });
        return words.collect::<Vec<_>>().join(", ");
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(all) = schema[choice].as_array() {
            return all.iter().map(value).collect::<Vec<_>>().join(", or ");
        }
    }
    if let Some(base) = schema["allOf"][0]["$ref"].as_str() {
        let more: Vec<_> = members(schema).iter().map(|(name, ..)| code(name)).collect();
        return format!("{} with {}", link(base), more.join(", "));
    }
    let kind = schema["type"].as_str().unwrap_or_default();
    let number = |name: &str| schema.get(name).map(Value::to_string);
    match kind {
        "array" => format!("list of {}", value(&schema["items"])),
        "integer" | "number" => match (number("minimum"), number("maximum")) {
            (Some(least), Some(most)) => format!("{kind}, {least} to {most}"),
            (Some(least), None) => format!("{kind}, from {least}"),
            (None, Some(most)) => format!("{kind}, to {most}"),
            (None, None) => kind.to_owned(),
        },
        "string" => match (schema["pattern"].as_str(), number("maxLength")) {
            (Some(pattern), _) => match manifest::in_words(pattern) {
                Some(words) => words.to_owned(),
                None => format!("string like {}", code(pattern)),
            },
            (None, Some(most)) => format!("string of at most {most}"),
            (None, None) => kind.to_owned(),
        },
        "object" => {
            let names: Vec<_> = members(schema).iter().map(|(name, ..)| code(name)).collect();
            let with = if names.is_empty() { String::new() } else { " with ".to_owned() };
            format!("object{with}{}", names.join(", "))
        }
        _ => kind.to_owned(),
    }
}

#[test]
fn what_is_described_is_said() {
    let description = serde_json::json!({
        "paths": { "/x/{y}": { "put": {
            "summary": "Put it", "x-scope": "write",
            "parameters": [{ "name": "n", "in": "query", "required": true, "description": "Many",
                             "schema": { "type": "integer", "minimum": 1 } }],
            "requestBody": { "required": true, "content": { "a/b": { "schema": {} } } },
            "responses": {
                "204": { "description": "Done" },
                "404": { "description": "x.y, z.w", "content": { "application/problem+json": {} } },
            },
        } } },
        "components": { "schemas": { "It": {
            "type": "object", "required": ["a"],
            "properties": { "a": { "type": "string" }, "b": { "$ref": "#/x/It" } } } } },
    });
    let page = page(&description);
    for expected in [
        "## `PUT /x/{y}`\n\nPut it. Scope `write`.",
        "| `n` | query, required | integer, from 1 | Many |",
        "The body: `a/b`.",
        "| 204 | Done | — |",
        "| 404 | `x.y`, `z.w` | a problem |",
        "| `a` | string |  |\n| `b` | [It](#it) | may be missing |",
    ] {
        assert!(page.contains(expected), "no {expected} in {page}");
    }
}
