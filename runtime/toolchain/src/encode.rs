//! From core modules to components, with the component tooling as libraries: the world a module is
//! for, and the component around it.

use std::fs;
use std::path::Path;

use wasi_preview1_component_adapter_provider as adapter;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

use crate::error::at;
use crate::{Error, Result};

/// Wraps a core module into a component. The module carries its world, or is for the one that is
/// given as WIT and name. What it uses of WASI preview 1 is put over WASI 0.2; if that is nothing,
/// nothing of WASI is in the result.
///
/// # Errors
/// The module is none, or does not have what its world asks for.
pub fn component(core: &Path, out: &Path, world: Option<(&Path, &str)>) -> Result<()> {
    let mut module = fs::read(core).map_err(at("read", core))?;
    if let Some((wit, name)) = world {
        let (resolve, id) = select(wit, name)?;
        embed_component_metadata(&mut module, &resolve, id, StringEncoding::UTF8)
            .map_err(|error| refused(format!("the module cannot carry its world: {error:#}")))?;
    }
    let encode = || {
        let mut encoder = ComponentEncoder::default();
        encoder.validate(true);
        encoder.module(&module)?.adapter(
            adapter::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
            adapter::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
        )?;
        encoder.encode()
    };
    let component =
        encode().map_err(|error| refused(format!("the module is no stage: {error:#}")))?;
    fs::write(out, component).map_err(at("write", out))
}

fn select(wit: &Path, world: &str) -> Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_path(wit)
        .map_err(|error| refused(format!("the WIT does not parse: {error:#}")))?;
    let id = resolve
        .select_world(&[package], Some(world))
        .map_err(|error| refused(format!("there is no world {world}: {error:#}")))?;
    Ok((resolve, id))
}

fn refused(what: String) -> Error {
    Error::Sources {
        what,
        fix: "see that the world in stage.toml is the one it is written for".to_owned(),
    }
}
