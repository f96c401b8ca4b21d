//! Import `log`: the stage's own lines, bounded in length and number.

use wasmtime::component::{ComponentType, Lift, Linker, WasmStr};

use super::{Host, charge, interface};
use crate::invoker::LogLevel;

#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "only ever made by lifting a guest's value")]
enum Level {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.instance(&interface("log"))?.func_wrap_async(
        "write",
        |mut cx, (level, message): (Level, WasmStr)| {
            Box::new(async move {
                let level = match level {
                    Level::Debug => LogLevel::Debug,
                    Level::Info => LogLevel::Info,
                    Level::Warn => LogLevel::Warn,
                    Level::Error => LogLevel::Error,
                };
                let said = cx.data().said.clone();
                let length = if said.has_room() {
                    let text = message.to_str(&cx)?;
                    said.line(level, &text);
                    text.len()
                } else {
                    said.drop_line();
                    0
                };
                charge(&mut cx, length).await?;
                Ok(())
            })
        },
    )
}
