//! Fuzzes `log_segment`, see `src/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluicebox_fuzz::targets::log_segment(data));
