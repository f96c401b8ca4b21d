//! Who may import whom, and which dependency lives where; read from the manifests.
//!
//! A dependency has one home, so that replacing it touches one folder. A new edge between our own
//! crates needs a decision record, a new dependency a row in [`HOMES`] with a reason to exist.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::tree::{File, Tree};

/// Our crates: package, folder, and which of ours it may import. Guests are held to [`GUEST`].
const EDGES: [(&str, &str, &[&str]); 16] = [
    ("sluicebox-core", "runtime/core", &[]),
    ("sluicebox-store", "runtime/store", &["sluicebox-core"]),
    ("sluicebox-engine", "runtime/engine", &["sluicebox-core"]),
    ("sluicebox-link", "runtime/link", &["sluicebox-core"]),
    ("sluicebox-confine", "runtime/confine", &["sluicebox-core"]),
    ("sluicebox-gpu", "gpu-host", &["sluicebox-core"]),
    (
        "sluicebox-node",
        "runtime/node",
        &[
            "sluicebox-confine",
            "sluicebox-core",
            "sluicebox-store",
            "sluicebox-engine",
            "sluicebox-gpu",
            "sluicebox-link",
        ],
    ),
    ("sluicebox-toolchain", "runtime/toolchain", &[]),
    (
        "sluicebox",
        "runtime/cli",
        &["sluicebox-core", "sluicebox-link", "sluicebox-node", "sluicebox-toolchain"],
    ),
    ("sluicebox-guest", "guest-sdk", &["sluicebox-guest-macros"]),
    ("sluicebox-guest-macros", "guest-sdk/macros", &[]),
    ("xtask", "xtask", &["sluicebox-toolchain"]),
    ("xtask-guest-tools", "xtask/guest-tools", &["sluicebox-toolchain"]),
    // May import everything, and nobody imports them.
    (
        "sluicebox-bench",
        "tests/bench",
        &["sluicebox-core", "sluicebox-gpu", "sluicebox-node", "sluicebox-nexmark"],
    ),
    (
        TESTS,
        "tests",
        &[
            "sluicebox-core",
            "sluicebox-store",
            "sluicebox-engine",
            "sluicebox-gpu",
            "sluicebox-link",
            "sluicebox-node",
            "sluicebox-nexmark",
            // Fetches the fuzzer of the HTTP interface.
            "sluicebox-toolchain",
        ],
    ),
    // Events and answers for the two above.
    ("sluicebox-nexmark", "tests/nexmark", &["sluicebox-core"]),
];

/// The package of end-to-end tests.
const TESTS: &str = "sluicebox-tests";

/// Packages that drive the whole from outside, with whatever that takes.
const DRIVERS: [&str; 2] = [TESTS, "sluicebox-bench"];

/// The package every guest is written against.
const GUEST: &str = "sluicebox-guest";

/// Names of packages that are guests begin so.
const GUEST_PREFIXES: [&str; 2] = ["guest-", "example-"];

/// Packages outside the workspace: built with another compiler.
const OUTSIDE: [&str; 1] = ["fuzz"];

/// Third-party crates and the folders that may name them.
const HOMES: &[(&str, &[&str])] = &[
    // The vocabulary everybody shares.
    ("bytes", &["core", "store", "engine", "link", "node", "cli"]),
    ("thiserror", &["core", "store", "engine", "link", "confine", "gpu-host", "node", "toolchain"]),
    ("serde", &["core", "gpu-host", "node", "cli", "toolchain", "guest-sdk", "guest"]),
    // Core takes keys out of JSON payloads and publishes the manifest's schema; the node speaks
    // JSON at its edge and in what it stores.
    ("serde_json", &["core", "node", "cli", "toolchain", "guest-sdk", "guest", "xtask"]),
    ("tokio", &["store", "engine", "link", "node", "cli"]),
    ("tracing", &["engine", "node", "cli"]),
    // Keyed state and key groups; what changed since a checkpoint; which pages of an instance did.
    ("hashbrown", &["core", "store"]),
    ("xxhash-rust", &["core", "store", "engine"]),
    // The tree under the checkpoint store.
    ("fjall", &["store"]),
    // The engine.
    ("wasmtime", &["engine"]),
    ("wasmtime-wasi", &["engine"]),
    ("wasmtime-wasi-http", &["engine"]),
    ("wasmparser", &["engine"]),
    ("wasm-encoder", &["engine"]),
    ("rand", &["engine"]),
    ("getrandom", &["engine"]),
    // Files below a directory that was opened once.
    ("cap-std", &["store", "engine", "node"]),
    // Checksums and seals; digests that users see.
    ("blake3", &["store", "engine", "gpu-host", "node"]),
    ("sha2", &["engine", "node", "cli"]),
    // Checksums of the log's records.
    ("crc32c", &["store"]),
    // What the standard library does not offer of the system.
    ("rustix", &["store", "engine", "link", "confine", "node"]),
    ("socket2", &["node"]),
    // What a process of one tenant may still do, and the numbers of system calls for it.
    ("landlock", &["confine"]),
    ("seccompiler", &["confine"]),
    ("libc", &["confine"]),
    // The system's Vulkan; kernels; words between a node and the process with its device.
    ("ash", &["gpu-host"]),
    ("naga", &["gpu-host"]),
    ("postcard", &["gpu-host"]),
    // The edge, and the client of it.
    ("hyper", &["node", "cli"]),
    ("hyper-util", &["node", "cli"]),
    ("http-body-util", &["engine", "node", "cli"]),
    // TLS of the listener, of the client and between nodes; ring alone does the cryptography.
    ("rustls", &["link", "node", "cli"]),
    ("tokio-rustls", &["link", "node"]),
    // Makes certificates of nodes.
    ("rcgen", &["link"]),
    ("tokio-tungstenite", &["node"]),
    ("hyper-rustls", &["cli"]),
    // What a registry asks for before it answers.
    ("http-auth", &["cli"]),
    ("http", &["engine", "node"]),
    ("axum", &["node"]),
    ("tower-service", &["node"]),
    ("futures-util", &["node"]),
    // Content codings, both in Rust.
    ("flate2", &["node"]),
    ("ruzstd", &["node"]),
    ("base64", &["link", "node", "cli"]),
    ("memchr", &["engine", "node"]),
    ("prometheus-client", &["node"]),
    // Messages of OTLP, which traces leave in.
    ("prost", &["node"]),
    // Live pipelines and tenants, looked up for each request.
    ("dashmap", &["node"]),
    // Schedules of sources; signatures of sinks.
    ("chrono", &["node"]),
    ("chrono-tz", &["node"]),
    ("ring", &["node"]),
    // Text of manifests, configuration and tenants; the command reads manifests to find components,
    // the toolchain what a stage's folder is.
    ("toml", &["node", "cli", "toolchain"]),
    // The command.
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("indicatif", &["cli"]),
    ("mimalloc", &["cli"]),
    ("tracing-appender", &["cli"]),
    ("tracing-subscriber", &["cli"]),
    ("tempfile", &["cli"]),
    // Guests and their tools.
    ("zune-jpeg", &["guest"]),
    ("wit-bindgen", &["guest-sdk", "guest"]),
    ("wasip2", &["guest"]),
    ("wit-component", &["toolchain", "guest-tools"]),
    ("wit-parser", &["toolchain", "guest-tools"]),
    ("wasi-preview1-component-adapter-provider", &["toolchain"]),
    ("wat", &["guest-tools"]),
    ("anyhow", &["xtask", "guest-tools"]),
];

/// What tests and benches may name besides, in every crate but core, which has only the first two.
const FOR_TESTS: [&str; 10] = [
    "proptest",
    "bytes",
    "tempfile",
    "wat",
    "serde_json",
    "tokio",
    "hyper",
    "toml",
    "mimalloc",
    // Every order of steps, of links.
    "loom",
];

/// One of our packages, as its manifest has it.
struct Package<'a> {
    name: String,
    folder: &'a str,
    manifest: Table,
}

impl<'a> Package<'a> {
    fn of(file: &'a File) -> Option<Self> {
        let manifest: Table = file.text.parse().expect("cargo reads this manifest too");
        let name = manifest.get("package")?.get("name")?.as_str()?.to_owned();
        let folder = file.path.strip_suffix("Cargo.toml")?.trim_end_matches('/');
        Some(Self { name, folder, manifest })
    }

    fn is_guest(&self) -> bool {
        GUEST_PREFIXES.iter().any(|prefix| self.name.starts_with(prefix))
    }

    /// How [`HOMES`] calls the folder.
    fn home(&self) -> &str {
        if self.is_guest() {
            return "guest";
        }
        self.folder.strip_prefix("runtime/").unwrap_or(match self.folder {
            "xtask/guest-tools" => "guest-tools",
            other => other,
        })
    }

    /// Names of one table of dependencies, for every target.
    fn dependencies(&self, table: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut take = |from: Option<&Value>| {
            let entries = from.and_then(Value::as_table).into_iter().flatten();
            names.extend(entries.map(|(name, value)| {
                let renamed = value.get("package").and_then(Value::as_str);
                renamed.unwrap_or(name).to_owned()
            }));
        };
        take(self.manifest.get(table));
        for target in self.manifest.get("target").and_then(Value::as_table).into_iter().flatten() {
            take(target.1.get(table));
        }
        names
    }

    /// What the crate itself needs to build.
    fn needs(&self) -> BTreeSet<String> {
        let mut names = self.dependencies("dependencies");
        names.append(&mut self.dependencies("build-dependencies"));
        names
    }
}

fn packages(tree: &Tree) -> Vec<Package<'_>> {
    let all: Vec<_> = tree.ending("Cargo.toml").filter_map(Package::of).collect();
    all.into_iter().filter(|package| !OUTSIDE.contains(&package.folder)).collect()
}

fn is_ours(dependency: &str) -> bool {
    dependency.starts_with("sluicebox") || dependency.starts_with("xtask")
}

/// Imports between our own crates.
pub(crate) fn edges(tree: &Tree) -> Vec<String> {
    packages(tree).iter().flat_map(edges_of).collect()
}

fn edges_of(package: &Package<'_>) -> Vec<String> {
    let name = &package.name;
    let allowed: &[&str] = match EDGES.iter().find(|(known, ..)| known == name) {
        Some((.., allowed)) => allowed,
        None if package.is_guest() => &[GUEST],
        None => return vec![format!("{name}: no row in EDGES of tests/tidy/crates.rs")],
    };
    let mut needs = package.needs();
    needs.append(&mut package.dependencies("dev-dependencies"));
    let wrong = needs.iter().filter(|need| is_ours(need) && !allowed.contains(&need.as_str()));
    // A crate may name itself to switch on its own features for its tests.
    let wrong = wrong.filter(|need| *need != name);
    wrong.map(|need| format!("{name} imports {need}: an edge that is not in the table")).collect()
}

/// Third-party crates outside their homes.
pub(crate) fn homes(tree: &Tree) -> Vec<String> {
    let packages = packages(tree);
    let mut complaints: Vec<String> = packages.iter().flat_map(homes_of).collect();
    let used: BTreeSet<String> = packages.iter().flat_map(Package::needs).collect();
    let idle = HOMES.iter().filter(|(name, _)| !used.contains(*name));
    complaints.extend(idle.map(|(name, _)| format!("{name}: a row in HOMES that nobody uses")));
    complaints
}

fn homes_of(package: &Package<'_>) -> Vec<String> {
    if DRIVERS.contains(&package.name.as_str()) {
        return Vec::new();
    }
    let (name, home) = (&package.name, package.home());
    let lives_here = |dependency: &str| {
        let row = HOMES.iter().find(|(known, _)| *known == dependency);
        row.is_some_and(|(_, homes)| homes.contains(&home))
    };
    let mut complaints = Vec::new();
    for need in package.needs().iter().filter(|need| !is_ours(need) && !lives_here(need)) {
        complaints.push(format!("{name} needs {need}: its home is elsewhere, or it has no row"));
    }
    let for_tests = if home == "core" { &FOR_TESTS[..2] } else { &FOR_TESTS[..] };
    for need in package.dependencies("dev-dependencies") {
        if !is_ours(&need) && !lives_here(&need) && !for_tests.contains(&need.as_str()) {
            complaints.push(format!("{name} tests with {need}: its home is elsewhere"));
        }
    }
    complaints
}

/// Crates that do not opt into the workspace's lints and versions.
pub(crate) fn lints(tree: &Tree) -> Vec<String> {
    packages(tree).iter().flat_map(lints_of).collect()
}

fn lints_of(package: &Package<'_>) -> Vec<String> {
    let mut complaints = Vec::new();
    let table = |section: &str| package.manifest.get(section).and_then(Value::as_table);
    let from_workspace = |value: Option<&Value>| {
        value.and_then(|value| value.get("workspace")).and_then(Value::as_bool) == Some(true)
    };
    let lints = table("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
    if lints != Some(true) {
        complaints.push(format!("{}: say `[lints] workspace = true`", package.name));
    }
    for field in ["edition", "license", "rust-version"] {
        if !from_workspace(table("package").and_then(|package| package.get(field))) {
            complaints.push(format!("{}: say `{field}.workspace = true`", package.name));
        }
    }
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for (name, value) in table(section).into_iter().flatten() {
            if !from_workspace(Some(value)) {
                complaints.push(format!("{}: {name} has a version of its own", package.name));
            }
        }
    }
    complaints
}

/// Packages that are not where the table says, or not called after their folder.
pub(crate) fn names(tree: &Tree) -> Vec<String> {
    packages(tree).iter().flat_map(names_of).collect()
}

fn names_of(package: &Package<'_>) -> Vec<String> {
    let (name, folder) = (&package.name, package.folder);
    let right = match EDGES.iter().find(|(known, ..)| known == name) {
        Some((_, home, _)) => folder == *home,
        None => {
            let last_part = folder.rsplit('/').next().unwrap_or_default();
            name.ends_with(last_part)
        }
    };
    let complaint = format!("{name} is in {folder}: name and folder belong together");
    (!right).then_some(complaint).into_iter().collect()
}

#[test]
fn a_package_that_breaks_a_rule_is_seen() {
    let checked = |path: &str, text: &str, check: fn(&Package<'_>) -> Vec<String>| {
        let file = File::sample(path, text);
        check(&Package::of(&file).expect("a package")).len()
    };
    let core = |more: &str| format!("[package]\nname = \"sluicebox-core\"\n{more}");
    let path = "runtime/core/Cargo.toml";
    assert_eq!(checked(path, &core("[dependencies]\nsluicebox-node = \"1\""), edges_of), 1);
    assert_eq!(
        checked(path, &core("[target.x.dependencies]\nsluicebox-store = \"1\""), edges_of),
        1
    );
    assert_eq!(checked(path, "[package]\nname = \"sluicebox-new\"", edges_of), 1);
    assert_eq!(checked(path, &core("[dependencies]\ntokio = \"1\"\nbytes = \"1\""), homes_of), 1);
    assert_eq!(checked(path, &core("[dependencies]\nx = { package = \"hyper\" }"), homes_of), 1);
    assert_eq!(
        checked(path, &core("[dev-dependencies]\nproptest = \"1\"\nwat = \"1\""), homes_of),
        1
    );
    assert_eq!(checked(path, &core("[dependencies]\nbytes = \"1\""), lints_of), 5);
    assert_eq!(checked("runtime/kernel/Cargo.toml", &core(""), names_of), 1);
    assert_eq!(checked(path, &core(""), names_of), 0);
    let guest = "[package]\nname = \"example-x\"\n[dependencies]\nsluicebox-core = \"1\"";
    assert_eq!(checked("examples/x/Cargo.toml", guest, edges_of), 1);
}
