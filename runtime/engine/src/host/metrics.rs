//! Import `metrics`: counters and gauges of the stage's own, bounded in names.

use wasmtime::component::{Linker, WasmStr};

use super::{Host, charge, interface};
use crate::invoker::Metric;

/// Longest metric name.
const NAME_BYTES_MAX: usize = 64;

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut metrics = linker.instance(&interface("metrics"))?;
    metrics.func_wrap_async("count", |mut cx, (name, delta): (WasmStr, u64)| {
        Box::new(async move {
            let asked = {
                let name = name.to_str(&cx)?;
                cx.data().said.metric(checked(&name), Metric::Count(delta));
                name.len()
            };
            charge(&mut cx, asked).await?;
            Ok(())
        })
    })?;
    metrics.func_wrap_async("gauge", |mut cx, (name, value): (WasmStr, f64)| {
        Box::new(async move {
            let asked = {
                let name = name.to_str(&cx)?;
                cx.data().said.metric(checked(&name), Metric::Gauge(value));
                name.len()
            };
            charge(&mut cx, asked).await?;
            Ok(())
        })
    })
}

/// The name, if it is one: `[a-z][a-z0-9_]*`.
fn checked(name: &str) -> Option<&str> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let first = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    (first && name.len() <= NAME_BYTES_MAX && name.bytes().all(allowed)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::checked;

    #[test]
    fn metric_names_are_plain() {
        assert_eq!(checked("words_seen2"), Some("words_seen2"));
        for bad in ["", "_a", "2a", "A", "a-b", "a{b}", &"a".repeat(65)] {
            assert_eq!(checked(bad), None, "{bad}");
        }
    }
}
