//! Holding a finished component against the contract in `wit/`, by shape and not by name.
//!
//! A component passes if it is valid, exports `handle` as one of the two worlds has it, and imports
//! nothing from our packages that the world does not offer or that has another type there. Further
//! exports, and imports of other packages (WASI), are the host's business and are only counted.
//! Whether a manifest grants an import is the host's business too: what can be granted is offered.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use wit_component::DecodedWasm;
use wit_parser::{Function, InterfaceId, Resolve, Type, TypeDefKind, WorldId, WorldItem, WorldKey};

/// The two worlds, and each with all that can be granted.
const WORLDS: [(&str, &str); 2] = [("stage", "stage-gpu"), ("stage-typed", "stage-typed-gpu")];

/// Checks every component, says one line about each, and fails if any does not fit.
pub(crate) fn all(wit: &Path, components: &[&str]) -> Result<()> {
    ensure!(!components.is_empty(), "no component to check");
    let contract = Contract::load(wit)?;
    let mut bad = 0;
    for path in components {
        let bytes = fs::read(path).with_context(|| format!("{path} cannot be read"))?;
        match one(&contract, &bytes) {
            Ok(line) => println!("  ok    {path}: {line}"),
            Err(error) => {
                println!("  WRONG {path}: {error:#}");
                bad += 1;
            }
        }
    }
    ensure!(bad == 0, "{bad} of {} components do not fit the contract", components.len());
    Ok(())
}

/// The WIT package that components are compared with.
struct Contract {
    resolve: Resolve,
    /// `namespace:`, with which the names of our interfaces begin.
    prefix: String,
    worlds: Vec<(&'static str, WorldId)>,
}

impl Contract {
    fn load(wit: &Path) -> Result<Self> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_path(wit).context("the WIT does not parse")?;
        let mut worlds = Vec::new();
        for (name, granted) in WORLDS {
            worlds.push((name, resolve.select_world(&[package], Some(granted))?));
        }
        let name = &resolve.packages[package].name;
        let prefix = format!("{}:", name.namespace);
        Ok(Self { resolve, prefix, worlds })
    }

    /// The world whose `handle` has this shape.
    fn world_of(&self, handle: &str) -> Result<(&'static str, WorldId)> {
        for &(name, id) in &self.worlds {
            if handle_of(&self.resolve, id).as_deref() == Some(handle) {
                return Ok((name, id));
            }
        }
        bail!("`handle` fits neither world; it is {handle}")
    }
}

fn one(contract: &Contract, bytes: &[u8]) -> Result<String> {
    let DecodedWasm::Component(resolve, root) = wit_component::decode(bytes)? else {
        bail!("is a WIT package and not a component");
    };
    let handle = handle_of(&resolve, root).context("exports no function `handle`")?;
    let (world, id) = contract.world_of(&handle)?;
    let mut foreign = 0;
    for (key, item) in &resolve.worlds[root].imports {
        let name = resolve.name_world_key(key);
        match item {
            WorldItem::Interface { id: given, .. } if name.starts_with(&contract.prefix) => {
                check_import(contract, id, key, &resolve, *given)
                    .with_context(|| format!("import {name}"))?;
            }
            WorldItem::Interface { .. } => foreign += 1,
            WorldItem::Function(_) => bail!("imports a function `{name}` outside any interface"),
            WorldItem::Type { .. } => {}
        }
    }
    let exports = resolve.worlds[root].exports.len() - 1;
    let size = bytes.len();
    Ok(format!("world {world}, {size} bytes, {foreign} other imports, {exports} other exports"))
}

/// Every function of an imported interface must be in the world, with the same shape.
fn check_import(
    contract: &Contract,
    world: WorldId,
    key: &WorldKey,
    resolve: &Resolve,
    given: InterfaceId,
) -> Result<()> {
    let name = resolve.name_world_key(key);
    let offered = contract.resolve.worlds[world]
        .imports
        .iter()
        .find_map(|(key, item)| match item {
            WorldItem::Interface { id, .. } if contract.resolve.name_world_key(key) == name => {
                Some(*id)
            }
            _ => None,
        })
        .context("is not in the world")?;
    for (name, function) in &resolve.interfaces[given].functions {
        let there = contract.resolve.interfaces[offered]
            .functions
            .get(name)
            .with_context(|| format!("has no function {name}"))?;
        let (want, have) = (shape(&contract.resolve, there), shape(resolve, function));
        ensure!(want == have, "{name} is {have}, and should be {want}");
    }
    Ok(())
}

fn handle_of(resolve: &Resolve, world: WorldId) -> Option<String> {
    resolve.worlds[world].exports.iter().find_map(|(key, item)| match (key, item) {
        (WorldKey::Name(name), WorldItem::Function(function)) if name == "handle" => {
            Some(shape(resolve, function))
        }
        _ => None,
    })
}

/// A function's type written out in full, with names of parameters and fields but not of types.
fn shape(resolve: &Resolve, function: &Function) -> String {
    let mut out = String::from("func(");
    for parameter in &function.params {
        let _infallible = write!(out, "{}: ", parameter.name);
        write_type(resolve, &parameter.ty, &mut out);
        out.push(',');
    }
    out.push(')');
    if let Some(result) = &function.result {
        out.push_str(" -> ");
        write_type(resolve, result, &mut out);
    }
    out
}

fn write_type(resolve: &Resolve, ty: &Type, out: &mut String) {
    let Type::Id(id) = ty else {
        let _infallible = write!(out, "{ty:?}");
        return;
    };
    match &resolve.types[*id].kind {
        TypeDefKind::Type(inner) => write_type(resolve, inner, out),
        TypeDefKind::List(inner) => wrap("list", &[Some(inner)], resolve, out),
        TypeDefKind::Option(inner) => wrap("option", &[Some(inner)], resolve, out),
        TypeDefKind::Result(result) => {
            wrap("result", &[result.ok.as_ref(), result.err.as_ref()], resolve, out);
        }
        TypeDefKind::Record(record) => {
            out.push('{');
            for field in &record.fields {
                let _infallible = write!(out, "{}: ", field.name);
                write_type(resolve, &field.ty, out);
                out.push(',');
            }
            out.push('}');
        }
        TypeDefKind::Enum(cases) => {
            let names: Vec<&str> = cases.cases.iter().map(|case| case.name.as_str()).collect();
            let _infallible = write!(out, "enum<{}>", names.join("|"));
        }
        // The contract uses no other kinds, so whatever this is, it differs.
        other => out.push_str(other.as_str()),
    }
}

fn wrap(name: &str, parts: &[Option<&Type>], resolve: &Resolve, out: &mut String) {
    out.push_str(name);
    for part in parts {
        out.push('<');
        match part {
            Some(ty) => write_type(resolve, ty, out),
            None => out.push('_'),
        }
        out.push('>');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the check says of one of the hostile guests.
    fn verdict(guest: &str) -> Result<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let contract = Contract::load(&root.join("wit")).unwrap();
        let text = root.join("tests/guests/hostile").join(format!("{guest}.wat"));
        one(&contract, &wat::parse_file(text).unwrap())
    }

    fn refusal(guest: &str) -> String {
        format!("{:#}", verdict(guest).unwrap_err())
    }

    #[test]
    fn a_good_guest_is_told_by_its_world() {
        assert!(verdict("echo").unwrap().starts_with("world stage, "));
    }

    #[test]
    fn other_exports_and_wasi_are_only_counted() {
        assert!(verdict("extra-exports").unwrap().ends_with("0 other imports, 2 other exports"));
        assert!(verdict("sleep").unwrap().ends_with("2 other imports, 0 other exports"));
    }

    #[test]
    fn a_handle_of_another_type_is_refused() {
        assert!(refusal("refused/wrong-handle").contains("fits neither world"));
        assert!(refusal("refused/no-handle").contains("no function `handle`"));
    }

    #[test]
    fn an_import_of_another_type_is_refused_by_name() {
        let refusal = refusal("refused/wrong-import");
        assert!(refusal.contains("sluicebox:stage/output@0.1.0"), "{refusal}");
        assert!(refusal.contains("emit is func(frame: String,)"), "{refusal}");
    }

    #[test]
    fn a_core_module_is_refused() {
        assert!(verdict("refused/core-module").is_err());
    }
}
