//! Puts the SDK of each language, the WIT and the templates into the program: one list of paths and
//! bytes.
//!
//! What is below `guest-sdk` goes by the name of its folder, and the crates at its root by `rust`.
//! Their manifests are written out without the workspace they inherit from here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Folders of the repository that become parts of others, and as what.
const FOLDERS: [(&str, &str); 3] =
    [("wit", "wit"), ("guest-sdk/src", "rust/src"), ("guest-sdk/macros/src", "rust/macros/src")];

/// Manifests, where they go, and what their own path dependencies are then.
const MANIFESTS: [(&str, &str); 2] = [
    ("guest-sdk/Cargo.toml", "rust/Cargo.toml"),
    ("guest-sdk/macros/Cargo.toml", "rust/macros/Cargo.toml"),
];

/// Folders of `guest-sdk` that are the Rust crates.
const RUST: [&str; 2] = ["src", "macros"];

/// What tools leave beside sources.
const LEFT_OUT: [&str; 4] = ["target", "node_modules", "__pycache__", "build"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (from, to) in FOLDERS {
        add(&root.join(from), to, &mut files)?;
    }
    for entry in fs::read_dir(root.join("guest-sdk"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !RUST.contains(&name.as_str()) {
            add(&entry.path(), &name, &mut files)?;
        }
    }
    let workspace: Table = fs::read_to_string(root.join("Cargo.toml"))?.parse()?;
    for (from, to) in MANIFESTS {
        let manifest = alone(fs::read_to_string(root.join(from))?.parse()?, &workspace)?;
        let place = out.join(to.replace('/', "-"));
        fs::write(&place, toml::to_string(&manifest)?)?;
        files.insert(to.to_owned(), place);
    }
    let mut list =
        String::from("/// Paths and bytes.\npub(super) static FILES: &[(&str, &[u8])] = &[\n");
    for (path, place) in &files {
        writeln!(list, "    ({path:?}, include_bytes!({:?})),", place.display().to_string())?;
    }
    list.push_str("];\n");
    fs::write(out.join("files.rs"), list)?;
    for watched in ["wit", "guest-sdk", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    Ok(())
}

/// Takes in all files of a folder.
fn add(
    folder: &Path,
    to: &str,
    files: &mut BTreeMap<String, PathBuf>,
) -> Result<(), Box<dyn std::error::Error>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Tests of the SDKs stay here; those of a template are the new project's.
        let is_test_of_sdk = name == "tests" && !to.starts_with("templates/");
        if name.starts_with('.') || LEFT_OUT.contains(&name.as_str()) || is_test_of_sdk {
            continue;
        }
        let path = format!("{to}/{name}");
        if entry.path().is_dir() {
            add(&entry.path(), &path, files)?;
        } else {
            files.insert(path, entry.path());
        }
    }
    Ok(())
}

/// A manifest that inherits nothing, with what it takes to be a package by itself.
fn alone(mut manifest: Table, workspace: &Table) -> Result<Table, Box<dyn std::error::Error>> {
    let shared = workspace.get("workspace").and_then(Value::as_table).ok_or("no workspace")?;
    let of = |section: &str| shared.get(section).and_then(Value::as_table);
    for section in ["lints", "dev-dependencies"] {
        manifest.remove(section);
    }
    if let Some(package) = manifest.get_mut("package").and_then(Value::as_table_mut) {
        let package_shared = of("package").ok_or("no workspace.package")?;
        for (name, value) in package.iter_mut().filter(|(_, value)| inherits(value)) {
            *value = package_shared.get(name).ok_or("not in workspace.package")?.clone();
        }
    }
    if let Some(needs) = manifest.get_mut("dependencies").and_then(Value::as_table_mut) {
        let needs_shared = of("dependencies").ok_or("no workspace.dependencies")?;
        for (name, value) in needs.iter_mut().filter(|(_, value)| inherits(value)) {
            *value = needs_shared.get(name).ok_or("not in workspace.dependencies")?.clone();
            if let Some(path) = value.as_table_mut().and_then(|table| table.get_mut("path")) {
                let below = path.as_str().and_then(|path| path.strip_prefix("guest-sdk/"));
                *path = below.ok_or("a path outside the SDK")?.into();
            }
        }
    }
    // A workspace of its own, wherever it is unpacked, would hide the project's; none is said.
    Ok(manifest)
}

fn inherits(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}
