//! Imports `config`, `wasi:config/store` and `assets`: what the manifest gives the stage, read
//! only.

use wasmtime::component::{ComponentType, Linker, Lower, WasmStr};

use super::{Host, asset, charge, interface};

/// The interface of WASI for the same as `config`; a draft is a version of its own.
const WASI_CONFIG: &str = "wasi:config/store@0.2.0-rc.1";

/// How `wasi:config/store` says that it cannot tell. Here everything is at hand.
#[derive(ComponentType, Lower)]
#[component(variant)]
#[expect(dead_code, reason = "part of the types of the interface, and never given")]
enum Unknown {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut config = linker.instance(&interface("config"))?;
    config.func_wrap_async("get", |mut cx, (name,): (WasmStr,)| {
        Box::new(async move {
            let (asked, found) = {
                let name = name.to_str(&cx)?;
                (name.len(), cx.data().settings.config.get(name.as_ref()).cloned())
            };
            charge(&mut cx, asked + found.as_ref().map_or(0, String::len)).await?;
            Ok((found,))
        })
    })?;
    config.func_wrap_async("names", |mut cx, (): ()| {
        Box::new(async move {
            let names: Vec<String> = cx.data().settings.config.keys().cloned().collect();
            charge(&mut cx, names.iter().map(String::len).sum()).await?;
            Ok((names,))
        })
    })?;
    let mut store = linker.instance(WASI_CONFIG)?;
    store.func_wrap_async("get", |mut cx, (name,): (WasmStr,)| {
        Box::new(async move {
            let (asked, found) = {
                let name = name.to_str(&cx)?;
                (name.len(), cx.data().settings.config.get(name.as_ref()).cloned())
            };
            charge(&mut cx, asked + found.as_ref().map_or(0, String::len)).await?;
            Ok((Ok::<_, Unknown>(found),))
        })
    })?;
    store.func_wrap_async("get-all", |mut cx, (): ()| {
        Box::new(async move {
            let settings = cx.data().settings.clone();
            let all: Vec<(String, String)> = settings.config.clone().into_iter().collect();
            charge(&mut cx, all.iter().map(|(name, value)| name.len() + value.len()).sum()).await?;
            Ok((Ok::<_, Unknown>(all),))
        })
    })?;
    let mut assets = linker.instance(&interface("assets"))?;
    assets.func_wrap_async("size", |mut cx, (name,): (WasmStr,)| {
        Box::new(async move {
            let (asked, size) = {
                let name = name.to_str(&cx)?;
                (name.len(), asset(cx.data(), name.as_ref()).map(|bytes| bytes.len() as u64))
            };
            charge(&mut cx, asked).await?;
            Ok((size,))
        })
    })?;
    assets.func_wrap_async("read", |mut cx, (name, offset, length): (WasmStr, u64, u32)| {
        Box::new(async move {
            let (asked, part) = {
                let name = name.to_str(&cx)?;
                let bytes = asset(cx.data(), name.as_ref()).cloned().unwrap_or_default();
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let to = from.saturating_add(length as usize).min(bytes.len());
                (name.len(), bytes.slice(from..to))
            };
            charge(&mut cx, asked + part.len()).await?;
            Ok((part,))
        })
    })
}
