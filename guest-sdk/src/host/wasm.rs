//! The host's functions in a Wasm build: the imports of the world `stage`.

use crate::__private::bindings::sluicebox::stage::{
    assets, log as host_log, metrics, output, state, timers,
};
use crate::log::Level;
use crate::timers::Clock;

pub(crate) mod gpu;

pub(crate) fn emit(frame: &[u8]) {
    output::emit(frame);
}

pub(crate) fn state_get(event: u32, slot: &str) -> Option<Vec<u8>> {
    state::get(event, slot)
}

pub(crate) fn state_put(event: u32, slot: &str, value: &[u8]) -> Result<(), String> {
    state::put(event, slot, value)
}

pub(crate) fn state_delete(event: u32, slot: &str) -> bool {
    state::delete(event, slot)
}

pub(crate) fn state_add(event: u32, slot: &str, delta: i64) -> Result<i64, String> {
    state::add(event, slot, delta)
}

pub(crate) fn state_scan(event: u32, prefix: &str, limit: u32) -> Vec<(String, Vec<u8>)> {
    let entries = state::scan(event, prefix, limit);
    entries.into_iter().map(|entry| (entry.slot, entry.value)).collect()
}

pub(crate) fn state_batch(operations: &[u8]) -> Vec<u8> {
    state::batch(operations)
}

pub(crate) fn timer_set(event: u32, name: &str, clock: Clock, at: u64) -> Result<(), String> {
    let clock = match clock {
        Clock::Event => timers::Clock::EventTime,
        Clock::Wall => timers::Clock::Wall,
    };
    timers::set(event, name, clock, at)
}

pub(crate) fn timer_cancel(event: u32, name: &str) -> bool {
    timers::cancel(event, name)
}

pub(crate) fn watermark() -> u64 {
    timers::watermark()
}

/// The clock of WASI is the recorded time of the batch.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn config(name: &str) -> Option<String> {
    crate::__private::bindings::sluicebox::stage::config::get(name)
}

pub(crate) fn config_names() -> Vec<String> {
    crate::__private::bindings::sluicebox::stage::config::names()
}

pub(crate) fn asset_size(name: &str) -> Option<u64> {
    assets::size(name)
}

pub(crate) fn asset_read(name: &str, offset: u64, length: u32) -> Vec<u8> {
    assets::read(name, offset, length)
}

pub(crate) fn log(level: Level, message: &str) {
    let level = match level {
        Level::Debug => host_log::Level::Debug,
        Level::Info => host_log::Level::Info,
        Level::Warn => host_log::Level::Warn,
        Level::Error => host_log::Level::Error,
    };
    host_log::write(level, message);
}

pub(crate) fn metric_count(name: &str, delta: u64) {
    metrics::count(name, delta);
}

pub(crate) fn metric_gauge(name: &str, value: f64) {
    metrics::gauge(name, value);
}
