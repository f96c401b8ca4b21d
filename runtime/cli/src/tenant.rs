//! `tenant`: changing the file a node takes its tenants from.
//!
//! Works on the file itself, under its lock, and needs no running node. A token is written once, to
//! standard output alone, so that it can be taken from there.

use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Value, json};
use sluicebox_core::ids::Name;
use sluicebox_core::quota::Resource;
use sluicebox_node::config::Config;
use sluicebox_node::config::quantity::{parse_size, size_text};
use sluicebox_node::tenants::{Edit, Entry, Error, Isolation, Scopes};

use crate::args::TenantArgs;
use crate::args::node::{IsolationArg, Overrides, QuotaCommand, TenantCommand, TokenCommand};
use crate::config::sources;
use crate::failure::{Cause, Failure, Mistake};
use crate::render;
use crate::screen::Screen;

/// `tenant`
pub(crate) fn run(screen: Screen, args: TenantArgs) -> Result<(), Failure> {
    let file = match args.file {
        Some(file) => file,
        None => {
            let sources = sources(&args.configuration, &Overrides::default())?;
            Config::load(&sources)?.config.node.tenants_file
        }
    };
    let mut edit = Edit::open(&file).map_err(failure)?;
    let told = match args.command {
        TenantCommand::List => return list(screen, &edit, file),
        TenantCommand::Add { tenant, no_token } => {
            edit.add(&tenant).map_err(failure)?;
            if !no_token {
                return token_add(screen, edit, &tenant, None, Scopes::TENANT);
            }
            format!("added tenant {tenant}")
        }
        TenantCommand::Remove { tenant } => {
            edit.remove(&tenant).map_err(failure)?;
            format!("removed tenant {tenant}")
        }
        TenantCommand::Token(TokenCommand::Add { tenant, id, scopes }) => {
            return token_add(screen, edit, &tenant, id, scopes);
        }
        TenantCommand::Token(TokenCommand::Revoke { tenant, id }) => {
            edit.revoke_token(&tenant, &id).map_err(failure)?;
            format!("revoked token {id} of tenant {tenant}")
        }
        TenantCommand::Quota(QuotaCommand::Set { tenant, resource, amount }) => {
            let limit = limit(resource, &amount)?;
            edit.set_quota(&tenant, resource, limit).map_err(failure)?;
            format!("set {} of tenant {tenant} to {}", resource.as_str(), amount.trim())
        }
        TenantCommand::Weight { tenant, weight } => {
            edit.set_weight(&tenant, weight).map_err(failure)?;
            format!("set the weight of tenant {tenant} to {weight}")
        }
        TenantCommand::Isolation { tenant, isolation } => {
            let isolation = match isolation {
                IsolationArg::Process => Some(Isolation::Process),
                IsolationArg::Shared => Some(Isolation::Shared),
                IsolationArg::Default => None,
            };
            edit.set_isolation(&tenant, isolation).map_err(failure)?;
            let said = isolation.map_or("what the configuration says", Isolation::as_str);
            format!("set the isolation of tenant {tenant} to {said}")
        }
    };
    edit.commit().map_err(failure)?;
    screen.result(&json!({ "done": told, "file": file }), &told)
}

fn token_add(
    screen: Screen,
    mut edit: Edit,
    tenant: &Name,
    id: Option<Name>,
    scopes: Scopes,
) -> Result<(), Failure> {
    let (id, token) = edit.add_token(tenant, id, scopes, SystemTime::now()).map_err(failure)?;
    edit.commit().map_err(failure)?;
    let value = json!({
        "tenant": tenant.as_str(),
        "id": id.as_str(),
        "scopes": scopes.to_string(),
        "token": token.reveal(),
    });
    screen.hint(&format!("token {id} of tenant {tenant} may {scopes}; it is shown only now:"));
    screen.result(&value, token.reveal())
}

/// The amount of a quota; none for the default.
fn limit(resource: Resource, amount: &str) -> Result<Option<u64>, Failure> {
    if amount.trim() == "default" {
        return Ok(None);
    }
    let limit = if resource.is_bytes() { parse_size(amount) } else { amount.trim().parse().ok() };
    let example = if resource.is_bytes() { "512MiB" } else { "1000" };
    limit.map(Some).ok_or_else(|| {
        let what = format!("{} cannot be {amount:?}", resource.as_str());
        Failure::new(Cause::Usage, what).fix(format!("write it like {example}, or default"))
    })
}

fn list(screen: Screen, edit: &Edit, file: PathBuf) -> Result<(), Failure> {
    let rows: Vec<Value> = edit.tenants().iter().map(|(name, entry)| row(name, entry)).collect();
    let value = json!({ "file": file, "tenants": rows });
    if rows.is_empty() {
        let text = format!("no tenants in {}", value["file"].as_str().unwrap_or_default());
        screen.hint("add one with `sluicebox tenant add NAME`");
        return screen.result(&value, &text);
    }
    let lines = rows.iter().map(|row| {
        let tokens = row["tokens"].as_array().into_iter().flatten();
        let tokens: Vec<String> = tokens
            .map(|token| format!("{} ({})", text_of(&token["id"]), text_of(&token["scopes"])))
            .collect();
        let quotas = row["quota"].as_object().into_iter().flatten();
        let quotas: Vec<String> =
            quotas.map(|(name, limit)| format!("{name}={}", text_of(limit))).collect();
        vec![
            text_of(&row["name"]),
            text_of(&row["weight"]),
            row["isolation"].as_str().unwrap_or("default").to_owned(),
            tokens.join("; "),
            if quotas.is_empty() { "default".to_owned() } else { quotas.join(" ") },
        ]
    });
    let head = ["NAME", "WEIGHT", "ISOLATION", "TOKENS", "QUOTA"].map(str::to_owned).to_vec();
    screen.result(&value, &render::align(std::iter::once(head).chain(lines).collect()))
}

fn row(name: &Name, entry: &Entry) -> Value {
    let tokens: Vec<Value> = entry
        .tokens
        .iter()
        .map(|token| {
            json!({
                "id": token.id.as_str(),
                "scopes": token.scopes.to_string(),
                "created": token.created.map(|created| created.to_string()),
            })
        })
        .collect();
    let quota = entry.quota.iter().map(|(resource, limit)| {
        let limit = if resource.is_bytes() { json!(size_text(*limit)) } else { json!(limit) };
        (resource.as_str().to_owned(), limit)
    });
    json!({
        "name": name.as_str(),
        "weight": entry.weight,
        "isolation": entry.isolation.map(Isolation::as_str),
        "tokens": tokens,
        "quota": quota.collect::<serde_json::Map<_, _>>(),
    })
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn failure(error: Error) -> Failure {
    let mut failure = Failure::node(&error);
    if let Error::Invalid { path, problems } = error {
        failure.what = format!("{} has mistakes", path.display());
        failure.mistakes = problems
            .list()
            .iter()
            .map(|problem| Mistake {
                place: problem.field.clone(),
                what: problem.message.clone(),
                fix: Some(problem.fix.clone()),
            })
            .collect();
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_has_a_unit_exactly_where_it_needs_one() {
        assert_eq!(limit(Resource::Memory, "512MiB"), Ok(Some(512 << 20)));
        assert_eq!(limit(Resource::Pipelines, " 7 "), Ok(Some(7)));
        assert_eq!(limit(Resource::Pipelines, "default"), Ok(None));
        for (resource, amount) in
            [(Resource::Memory, "512"), (Resource::Pipelines, "7MiB"), (Resource::Events, "-1")]
        {
            assert_eq!(limit(resource, amount).unwrap_err().cause, Cause::Usage, "{amount}");
        }
    }
}
