//! Fuzzes `store_extent`, see `src/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluicebox_fuzz::targets::store_extent(data));
