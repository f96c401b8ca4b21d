//! What a stage may import and must export: `wit/`, the `cli` interfaces of WASI 0.2, and the
//! drafts of WASI that the host has.
//!
//! Keeps true: the lists here are those of `wit/*.wit` and of what the host links. Versions match
//! as the linker matches them: the same 0.x series, and of drafts the very same. Whatever a
//! component imports beyond the lists is named, everything at once, each with its reason.

use std::fmt::Write as _;

use wasmparser::PrimitiveValType as Plain;
use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType};
use wasmparser::names::{ComponentName, ComponentNameKind, InterfaceName};
use wasmparser::types::TypesRef;

use super::shape::{Shape, show_function, sort};
use super::{SNAPSHOT_TRACK, World};
use crate::error::{Error, shown};

/// Refused imports that are listed; more are counted.
const COMPLAINTS_MAX: usize = 32;

/// Exports that are listed when `handle` is missing.
const EXPORTS_SHOWN_MAX: usize = 8;

/// Bytes of a foreign name that are shown.
const NAME_BYTES_MAX: usize = 128;

/// The interfaces of `sluicebox:stage@0.1` and their functions.
const STAGE: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("state", &["get", "put", "delete", "add", "scan", "batch"]),
    ("timers", &["set", "cancel", "watermark"]),
    ("config", &["get", "names"]),
    ("assets", &["size", "read"]),
    ("log", &["write"]),
    ("metrics", &["count", "gauge"]),
    (OUTPUT, &["emit"]),
];

/// The interfaces of `sluicebox:gpu@0.1`, for stages to which the manifest grants `gpu`.
const GPU: &[(&str, &[&str])] = &[(
    "compute",
    &[
        "describe",
        "create",
        "write",
        "read",
        "size",
        "constant",
        "kernel",
        "slots",
        "graph",
        "submit",
        "try-submit",
        "wait",
        "cancel",
        "free",
    ],
)];

/// Drafts of WASI, each a version of its own: interface, functions and resources. For
/// `wasi:keyvalue` the manifest grants `keyvalue`.
const DRAFTS: &[(&str, &[&str])] = &[
    ("wasi:config/store@0.2.0-rc.1", &["get", "get-all"]),
    ("wasi:keyvalue/store@0.2.0-draft", STORE),
    ("wasi:keyvalue/store@0.2.0-draft2", STORE),
    ("wasi:keyvalue/atomics@0.2.0-draft", &["bucket", "increment"]),
    (
        "wasi:keyvalue/atomics@0.2.0-draft2",
        &["bucket", "increment", "cas", "[static]cas.new", "[method]cas.current", "swap"],
    ),
    ("wasi:keyvalue/batch@0.2.0-draft", BATCH),
    ("wasi:keyvalue/batch@0.2.0-draft2", BATCH),
];
const STORE: &[&str] = &[
    "open",
    "bucket",
    "[method]bucket.get",
    "[method]bucket.set",
    "[method]bucket.delete",
    "[method]bucket.exists",
    "[method]bucket.list-keys",
];
const BATCH: &[&str] = &["bucket", "get-many", "set-many", "delete-many"];

/// The interface only the framed world has.
const OUTPUT: &str = "output";

/// The packages of WASI 0.2 `cli`, and of them what is linked. Guests in Python or Go import most
/// of it and use none, so everyone is given all of it, with nothing behind it.
const WASI: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("clocks", &["monotonic-clock", "wall-clock"]),
    ("filesystem", &["types", "preopens"]),
    // For it the manifest grants `http`.
    ("http", &["types", "outgoing-handler"]),
    ("io", &["error", "poll", "streams"]),
    ("random", &["random", "insecure", "insecure-seed"]),
    (
        "sockets",
        &[
            "instance-network",
            "ip-name-lookup",
            "network",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
    ),
];

const FAILURE: Shape = Shape::Record(&[
    ("event", Shape::Plain(Plain::U32)),
    ("class", Shape::Enum(&["retry", "reject"])),
    ("message", Shape::Plain(Plain::String)),
]);

const BYTES: Shape = Shape::List(&Shape::Plain(Plain::U8));

/// What `take` and `restore` of a snapshot give back.
const TAKEN: Shape = Shape::Fallible(Some(&BYTES));
const RESTORED: Shape = Shape::Fallible(None);

const FAILURES: Shape = Shape::List(&FAILURE);

const EVENT: Shape = Shape::Record(&[
    ("kind", Shape::Enum(&["data", "timer", "open", "end"])),
    ("input", Shape::Plain(Plain::U16)),
    ("port", Shape::Plain(Plain::U16)),
    ("cause", Shape::Plain(Plain::U32)),
    ("time", Shape::Plain(Plain::U64)),
    ("key", Shape::Plain(Plain::String)),
    ("payload", BYTES),
    ("fields", Shape::List(&Shape::Record(&[("id", Shape::Plain(Plain::U16)), ("value", BYTES)]))),
    ("attachments", Shape::List(&Shape::Plain(Plain::U64))),
]);

const EVENTS: Shape = Shape::List(&EVENT);

const OUTCOME: Shape = Shape::Record(&[("outputs", EVENTS), ("failures", FAILURES)]);

/// What to do about a wrong `handle`.
const FIX: &str = "build the component for the world `sluicebox:stage/stage`, which has `handle: \
                   func(frame: list<u8>) -> list<failure>`, or for `sluicebox:stage/stage-typed`, \
                   which has `handle: func(events: list<event>) -> outcome`";

/// Which world a component belongs to.
pub(super) fn world(types: TypesRef<'_>, exports: &[String]) -> Result<World, Error> {
    let Some(item) = types.component_item_for_export("handle") else {
        return Err(Error::Export(format!(
            "the component exports no function `handle`{}; {FIX}",
            list_exports(exports)
        )));
    };
    let ComponentEntityType::Func(function) = &item.ty else {
        let found = sort(&item.ty);
        return Err(Error::Export(format!("the export `handle` is {found}; {FIX}")));
    };
    let function = &types[*function];
    if let ([(_, input)], Some(output)) = (&*function.params, function.result) {
        if BYTES.is(types, *input) && FAILURES.is(types, output) {
            return Ok(World::Framed);
        }
        if EVENTS.is(types, *input) && OUTCOME.is(types, output) {
            return Ok(World::Typed);
        }
    }
    let found = show_function(types, function);
    Err(Error::Export(format!("the export `handle` has the type `{found}`; {FIX}")))
}

/// Whether a component has snapshots: an interface that is called so has both functions.
pub(super) fn snapshots(types: TypesRef<'_>, exports: &[String]) -> Result<bool, Error> {
    let Some(name) = exports.iter().find(|name| name.starts_with(SNAPSHOT_TRACK)) else {
        return Ok(false);
    };
    let wrong = |found: &str| {
        let name = shown(name, NAME_BYTES_MAX);
        Err(Error::Export(format!("the export `{name}` {found}; {SNAPSHOT_FIX}")))
    };
    let item = types.component_item_for_export(name);
    let Some(ComponentEntityType::Instance(instance)) = item.map(|item| item.ty) else {
        return wrong("is no interface");
    };
    let functions = &types[instance].exports;
    for (name, parameter, answer) in [("take", None, TAKEN), ("restore", Some(BYTES), RESTORED)] {
        let Some(ComponentEntityType::Func(function)) = functions.get(name).map(|item| &item.ty)
        else {
            return wrong(&format!("has no function `{name}`"));
        };
        let function = &types[*function];
        let given = match (&*function.params, parameter) {
            ([], None) => true,
            ([(_, given)], Some(wanted)) => wanted.is(types, *given),
            _ => false,
        };
        let gives = function.result.is_some_and(|ty| answer.is(types, ty));
        if !given || !gives {
            let found = show_function(types, function);
            return wrong(&format!("has `{name}` with the type `{found}`"));
        }
    }
    Ok(true)
}

/// What to do about a wrong interface of snapshots.
const SNAPSHOT_FIX: &str = "build the component for the world `sluicebox:stage/stage-snapshots`, \
                            where it has `take: func() -> result<list<u8>, string>` and `restore: \
                            func(snapshot: list<u8>) -> result<_, string>`";

fn list_exports(exports: &[String]) -> String {
    if exports.is_empty() {
        return String::new();
    }
    let mut text = String::from(" (it exports ");
    for (at, name) in exports.iter().take(EXPORTS_SHOWN_MAX).enumerate() {
        let separator = if at == 0 { "" } else { ", " };
        // Writing to a string cannot fail.
        write!(text, "{separator}`{}`", shown(name, NAME_BYTES_MAX)).unwrap_or_default();
    }
    if exports.len() > EXPORTS_SHOWN_MAX {
        write!(text, " and {} more", exports.len() - EXPORTS_SHOWN_MAX).unwrap_or_default();
    }
    text.push(')');
    text
}

/// Refuses everything imported that is not in the lists, all at once.
pub(super) fn check_imports(types: TypesRef<'_>, imports: &[String]) -> Result<(), Error> {
    refuse(imports.iter().filter_map(|name| {
        let item = types.component_item_for_import(name)?;
        complaint(types, name, &item.ty)
    }))
}

/// Refuses what the component's own world does not have.
pub(super) fn check_world_imports(world: World, imports: &[String]) -> Result<(), Error> {
    if world == World::Framed {
        return Ok(());
    }
    refuse(imports.iter().filter(|name| is_output(name)).map(|name| {
        format!(
            "`{}`: the world `stage-typed` gives its outputs in the result of `handle` and has no \
             `emit`",
            shown(name, NAME_BYTES_MAX)
        )
    }))
}

fn is_output(name: &str) -> bool {
    name.strip_prefix("sluicebox:stage/")
        .and_then(|rest| rest.split('@').next())
        .is_some_and(|interface| interface == OUTPUT)
}

fn refuse(complaints: impl Iterator<Item = String>) -> Result<(), Error> {
    let mut lines: Vec<String> = complaints.take(COMPLAINTS_MAX + 1).collect();
    if lines.len() > COMPLAINTS_MAX {
        lines.truncate(COMPLAINTS_MAX);
        lines.push("and more".to_owned());
    }
    if lines.is_empty() { Ok(()) } else { Err(Error::Import(lines)) }
}

/// Why one import is refused; nothing if it is not.
fn complaint(types: TypesRef<'_>, name: &str, entity: &ComponentEntityType) -> Option<String> {
    let shown_name = shown(name, NAME_BYTES_MAX);
    let instance = match entity {
        ComponentEntityType::Instance(instance) => instance,
        // How a world gives a name to a type of one of its interfaces; nothing to be given.
        ComponentEntityType::Type { created, .. } if !is_resource(created) => return None,
        _ => {
            let found = sort(entity);
            return Some(format!("`{shown_name}`: {found} outside of any interface"));
        }
    };
    let Some((package, interface, version)) = parse(name) else {
        return Some(format!("`{shown_name}`: not an interface of a package"));
    };
    let functions = match draft(name).map_or_else(|| known(&package, &interface, version), Ok) {
        Ok(functions) => functions?,
        Err(reason) => return Some(format!("`{shown_name}`: {reason}")),
    };
    let unknown = types[*instance].exports.iter().find(|(item, found)| match &found.ty {
        ComponentEntityType::Func(_) => !functions.contains(&item.as_str()),
        // Records and the like need nothing of the host.
        ComponentEntityType::Type { created, .. } => {
            is_resource(created) && !functions.contains(&item.as_str())
        }
        _ => true,
    });
    unknown.map(|(item, found)| {
        format!(
            "`{shown_name}`: this node's version of it has no `{}` ({})",
            shown(item, NAME_BYTES_MAX),
            sort(&found.ty),
        )
    })
}

fn is_resource(ty: &ComponentAnyTypeId) -> bool {
    matches!(ty, ComponentAnyTypeId::Resource(_))
}

/// Major and minor: what decides compatibility below 1.0.
type Series = (u64, u64);

/// Package, interface and version: `("wasi:cli", "exit", Some((0, 2)))`. Pre-releases have no
/// version, since nothing is compatible with one.
fn parse(name: &str) -> Option<(String, String, Option<Series>)> {
    let name = ComponentName::new(name, 0).ok()?;
    let ComponentNameKind::Interface(name) = name.kind() else { return None };
    let package = format!("{}:{}", name.namespace().as_str(), name.package().as_str());
    Some((package, name.interface().as_str().to_owned(), series(&name)))
}

fn series(name: &InterfaceName<'_>) -> Option<Series> {
    let version = name.version(None).ok().flatten()?;
    version.pre.is_empty().then_some((version.major, version.minor))
}

/// What there is of a draft.
fn draft(name: &str) -> Option<Option<&'static [&'static str]>> {
    let (_, items) = DRAFTS.iter().find(|(known, _)| *known == name)?;
    Some(Some(*items))
}

/// The versions of a package of which the host has drafts.
fn drafts(package: &str) -> Option<String> {
    let versions = DRAFTS.iter().filter_map(|(name, _)| {
        let (known, rest) = name.split_once('/')?;
        let (_, version) = rest.split_once('@')?;
        (known == package).then_some(version)
    });
    let versions: std::collections::BTreeSet<&str> = versions.collect();
    let versions: Vec<&str> = versions.into_iter().collect();
    (!versions.is_empty()).then(|| format!("this node has {}", versions.join(" and ")))
}

/// Whether an interface is given to stages: the functions it may be asked for, or nothing if any
/// (the linker checks those of WASI), or why not.
fn known(
    package: &str,
    interface: &str,
    version: Option<Series>,
) -> Result<Option<&'static [&'static str]>, String> {
    let own = match package {
        "sluicebox:stage" => Some(STAGE),
        "sluicebox:gpu" => Some(GPU),
        _ => None,
    };
    if let Some(interfaces) = own {
        let Some((_, functions)) = interfaces.iter().find(|(name, _)| *name == interface) else {
            return Err("the contract has no such interface".to_owned());
        };
        if version != Some((0, 1)) {
            return Err("this node has version 0.1 of the contract".to_owned());
        }
        return Ok(Some(functions));
    }
    if let Some(versions) = drafts(package) {
        return Err(versions);
    }
    let Some(wasi) = package.strip_prefix("wasi:") else {
        return Err("not known here; a stage is given `sluicebox:stage`, `sluicebox:gpu` if its manifest \
                    says so, and the interfaces of WASI 0.2 `cli`, anything else is compiled in or composed with it"
            .to_owned());
    };
    let linked = WASI
        .iter()
        .find(|(name, _)| *name == wasi)
        .is_some_and(|(_, interfaces)| interfaces.contains(&interface));
    match (linked, version) {
        (true, Some((0, 2))) => Ok(None),
        (true, _) => Err("this node has WASI 0.2".to_owned()),
        (false, _) if wasi == "http" => Err("a stage makes requests by `outgoing-handler`, and \
                                             is not called by any; build the component without it"
            .to_owned()),
        (false, _) => Err("not part of WASI 0.2 `cli`, and no grant gives it in this version; \
                           build the component without it"
            .to_owned()),
    }
}
