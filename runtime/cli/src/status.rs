//! `list` and `describe`: what a tenant has and how it is doing.

use serde_json::{Map, Value};

use crate::args::{DescribeArgs, ListArgs, Listed};
use crate::client::Client;
use crate::failure::{Cause, Failure};
use crate::render;
use crate::screen::Screen;

const COMPONENT_COLUMNS: [&str; 5] = ["name", "digest", "bytes", "world", "created"];
const PIPELINE_COLUMNS: [&str; 5] = ["name", "version", "state", "delivery", "stages"];

/// `list`
pub(crate) async fn list(screen: Screen, args: ListArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let mut found = Map::new();
    let mut text = String::new();
    let kinds = [
        (Listed::Components, "components", &COMPONENT_COLUMNS),
        (Listed::Pipelines, "pipelines", &PIPELINE_COLUMNS),
    ];
    for (kind, name, columns) in kinds {
        if args.what.is_some_and(|what| what != kind) {
            continue;
        }
        let rows = rows(client.get(client.path(name)).await?, name)?;
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
