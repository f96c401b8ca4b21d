//! The host, as the rest of the crate sees it: plain functions, one for each import of the world.
//!
//! In a Wasm build they are the imports of the world `stage`. In a native build, made to run a
//! stage's tests, they are done in memory by the test harness. Both sides offer the same functions;
//! no other file knows which one it has.

#[cfg(not(target_family = "wasm"))]
pub(crate) mod memory;
#[cfg(target_family = "wasm")]
mod wasm;

#[cfg(not(target_family = "wasm"))]
pub(crate) use memory::{
    asset_read, asset_size, config, config_names, emit, gpu, log, metric_count, metric_gauge, now,
    state_add, state_batch, state_delete, state_get, state_put, state_scan, timer_cancel,
    timer_set, watermark,
};
#[cfg(target_family = "wasm")]
pub(crate) use wasm::{
    asset_read, asset_size, config, config_names, emit, gpu, log, metric_count, metric_gauge, now,
    state_add, state_batch, state_delete, state_get, state_put, state_scan, timer_cancel,
    timer_set, watermark,
};
