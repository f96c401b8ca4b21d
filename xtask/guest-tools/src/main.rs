//! The component tooling that guests in other languages than Rust need, behind four commands.
//!
//! A crate of its own, because its dependencies take about a minute to compile and `cargo xtask
//! demo` needs none of them. `xtask` runs it only when a C or WAT guest is out of date, or for
//! `cargo xtask guests --check`.
//!
//! - `c-bindings WIT WORLD OUT` writes the C bindings of a world, and the object file that carries
//!   its type, to a folder.
//! - `component CORE OUT` wraps a core module that carries its world into a component.
//! - `wat (TEXT OUT)...` encodes components or modules in text form.
//! - `check WIT COMPONENT...` holds components against the contract; see `check.rs`.
//!
//! It reads and writes only the paths it is given, and leaves compilers and their flags to `xtask`.

#![expect(clippy::print_stdout, reason = "this is a command; its output is its result")]
#![expect(clippy::print_stderr, reason = "errors are told on standard error")]

mod check;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use wit_bindgen_core::Files;
use wit_component::ComponentEncoder;
use wit_parser::Resolve;

const USAGE: &str = "usage: xtask-guest-tools c-bindings WIT WORLD OUT | component CORE OUT \
                     | wat (TEXT OUT)... | check WIT COMPONENT...";

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
        ["c-bindings", wit, world, out] => c_bindings(wit.as_ref(), world, out.as_ref()),
        ["component", core, out] => component(core.as_ref(), out.as_ref()),
        ["wat", pairs @ ..] => encode_text(pairs),
        ["check", wit, components @ ..] => check::all(wit.as_ref(), components),
        _ => bail!(USAGE),
    }
}

fn c_bindings(wit: &Path, world: &str, out: &Path) -> Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit).context("the WIT does not parse")?;
    let world = resolve
        .select_world(&[package], Some(world))
        .with_context(|| format!("{} has no world {world}", wit.display()))?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
    fs::create_dir_all(out)?;
    for (name, contents) in files.iter() {
        fs::write(out.join(name), contents)?;
    }
    Ok(())
}

fn component(core: &Path, out: &Path) -> Result<()> {
    let module = fs::read(core).with_context(|| format!("{} cannot be read", core.display()))?;
    // No WASI adapter is given: a module that imports WASI preview 1 is refused here by name,
    // so a guest does not grow such imports unnoticed.
    let component = ComponentEncoder::default().validate(true).module(&module)?.encode()?;
    fs::write(out, component).with_context(|| format!("{} cannot be written", out.display()))
}

fn encode_text(pairs: &[&str]) -> Result<()> {
    let (pairs, rest) = pairs.as_chunks::<2>();
    ensure!(rest.is_empty(), USAGE);
    for [text, out] in pairs {
        fs::write(out, wat::parse_file(text)?).with_context(|| format!("{out}: not written"))?;
    }
    Ok(())
}
