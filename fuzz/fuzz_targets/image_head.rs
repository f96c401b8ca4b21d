//! Fuzzes `image_head`, see `src/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluicebox_fuzz::targets::image_head(data));
