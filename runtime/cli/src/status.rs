//! `list`, `describe` and `nodes`: what a tenant has and how it is doing, and where.

use hyper::Method;
use serde_json::{Map, Value};

use crate::args::{DescribeArgs, ListArgs, Listed, NodesArgs};
use crate::client::{Call, Client, Reply};
use crate::failure::{Cause, Failure};
use crate::render;
use crate::screen::Screen;

const COMPONENT_COLUMNS: [&str; 5] = ["name", "digest", "bytes", "world", "created"];
const PIPELINE_COLUMNS: [&str; 5] = ["name", "version", "state", "delivery", "stages"];
/// Where there are several nodes.
const PLACED_COLUMNS: [&str; 6] = ["name", "version", "state", "delivery", "stages", "node"];
const NODE_COLUMNS: [&str; 8] =
    ["name", "address", "host", "state", "seconds", "pipelines", "round-trip-micros", "why"];

/// The header that names nodes whose part of a list is missing.
const UNREACHABLE: &str = "sluicebox-unreachable";

/// `list`
pub(crate) async fn list(screen: Screen, args: ListArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let mut found = Map::new();
    let mut text = String::new();
    let kinds = [(Listed::Components, "components"), (Listed::Pipelines, "pipelines")];
    for (kind, name) in kinds {
        if args.what.is_some_and(|what| what != kind) {
            continue;
        }
        let reply = client.send(Call::new(Method::GET, client.path(name))).await?;
        let rows = rows(reply.json()?, name)?;
        let columns: &[&str] = match kind {
            Listed::Components => &COMPONENT_COLUMNS,
            Listed::Pipelines if rows.iter().any(|row| row.get("node").is_some()) => {
                &PLACED_COLUMNS
            }
            Listed::Pipelines => &PIPELINE_COLUMNS,
        };
        tell_missing(screen, &reply);
        if !text.is_empty() {
            text.push('\n');
        }
        if args.what.is_none() {
            text.push_str(&format!("{}\n", screen.strong(name)));
        }
        if rows.is_empty() {
            text.push_str(&format!("no {name} yet\n"));
        } else {
            text.push_str(&render::table(&rows, columns));
        }
        found.insert(name.to_owned(), Value::Array(rows));
    }
    screen.result(&Value::Object(found), &text)
}

/// Says so if a list is not whole.
fn tell_missing(screen: Screen, reply: &Reply) {
    if let Some(nodes) = reply.header(UNREACHABLE) {
        screen.hint(&format!("without what is on {nodes}, which cannot be reached"));
    }
}

/// `nodes`
pub(crate) async fn nodes(screen: Screen, args: NodesArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let nodes = rows(client.get("/v1/nodes".to_owned()).await?, "nodes")?;
    let text = render::table(&nodes, &NODE_COLUMNS);
    screen.result(&Value::Array(nodes), &text)
}

/// The list of a reply, bare or under its name.
fn rows(reply: Value, name: &str) -> Result<Vec<Value>, Failure> {
    let list = match reply {
        Value::Object(mut members) => members.remove(name).unwrap_or(Value::Null),
        other => other,
    };
    match list {
        Value::Array(rows) => Ok(rows),
        _ => {
            Err(Failure::new(Cause::Internal, format!("the node's reply holds no list of {name}"))
                .fix("is --url the address of a sluicebox node of this version?"))
        }
    }
}

/// `describe`
pub(crate) async fn describe(screen: Screen, args: DescribeArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let detail = client.get(client.pipeline(&args.pipeline, "")).await?;
    if args.manifest {
        let manifest = detail.get("manifest").cloned().unwrap_or_default();
        return screen.result(&manifest, &manifest_text(&manifest));
    }
    screen.result(&detail, &render::object(&detail, &["manifest"]))
}

/// A manifest in the form people write it.
fn manifest_text(manifest: &Value) -> String {
    match manifest {
        Value::String(text) => text.clone(),
        other => toml::to_string(other).unwrap_or_else(|_| format!("{other:#}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_found_bare_or_under_its_name() {
        assert_eq!(rows(json!([{ "name": "a" }]), "components").unwrap().len(), 1);
        assert_eq!(rows(json!({ "components": [] }), "components").unwrap().len(), 0);
        assert_eq!(rows(json!({ "other": [] }), "components").unwrap_err().cause, Cause::Internal);
        assert_eq!(
            manifest_text(&json!({ "name": "wc", "version": 1 })),
            "name = \"wc\"\nversion = 1\n"
        );
        assert_eq!(rows(json!("x"), "components").unwrap_err().cause, Cause::Internal);
    }
}
