//! The component tooling that guests in other languages than Rust need, behind four commands.
//!
//! A crate of its own, because its dependencies take about a minute to compile and `cargo xtask
//! demo` needs none of them. `xtask` runs it only when a C or WAT guest is out of date, or for
//! `cargo xtask guests --check`.
//!
//! - `build LANGUAGE NAME WORLD FOLDER ROOT HOME` builds a guest by the recipe of its language,
//!   against the WIT and SDK of the repository at ROOT, into HOME, where its tools go as well.
//! - `wrap CORE OUT WIT WORLD` makes a component of a core module that some compiler made.
//! - `wat (TEXT OUT)...` encodes components or modules in text form.
//! - `check WIT COMPONENT...` holds components against the contract; see `check.rs`.
//!
//! It reads and writes only the paths it is given. What compilers are called with is the business of
//! `sluicebox-toolchain`.

#![expect(clippy::print_stdout, reason = "this is a command; its output is its result")]
#![expect(clippy::print_stderr, reason = "errors are told on standard error")]

mod check;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use sluicebox_toolchain::sdk::Sdk;
use sluicebox_toolchain::{Progress, Project, Tools};

const USAGE: &str = "usage: xtask-guest-tools build LANGUAGE NAME WORLD FOLDER ROOT HOME \
                     | wrap CORE OUT WIT WORLD | wat (TEXT OUT)... | check WIT COMPONENT...";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask-guest-tools: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["build", language, name, world, folder, root, home] => {
            build(language, Guest { name, world, folder }, root.as_ref(), home.as_ref())
        }
        ["wrap", core, out, wit, world] => {
            let world = Some((wit.as_ref(), *world));
            Ok(sluicebox_toolchain::encode::component(core.as_ref(), out.as_ref(), world)?)
        }
        ["wat", pairs @ ..] => encode_text(pairs),
        ["check", wit, components @ ..] => check::all(wit.as_ref(), components),
        _ => bail!(USAGE),
    }
}

/// A guest as it was named.
struct Guest<'a> {
    name: &'a str,
    world: &'a str,
    folder: &'a str,
}

fn build(language: &str, guest: Guest<'_>, root: &Path, home: &Path) -> Result<()> {
    let project = Project {
        name: guest.name.to_owned(),
        folder: guest.folder.into(),
        language: sluicebox_toolchain::language(language)?,
        world: guest.world.to_owned(),
        sdk: Sdk::of_repository(root),
        work: home.join("work").join(guest.name),
        component: home.join(format!("{}.wasm", guest.name)),
    };
    let tools = Tools::in_folder(home.join("tools"));
    let mut progress = Progress::new(|line| eprintln!("xtask: guests: {}: {line}", guest.name));
    project.language.fetch(&tools, &mut progress)?;
    project.make(&tools, &mut progress)?;
    Ok(())
}

fn encode_text(pairs: &[&str]) -> Result<()> {
    let (pairs, rest) = pairs.as_chunks::<2>();
    ensure!(rest.is_empty(), USAGE);
    for [text, out] in pairs {
        fs::write(out, wat::parse_file(text)?).with_context(|| format!("{out}: not written"))?;
    }
    Ok(())
}
