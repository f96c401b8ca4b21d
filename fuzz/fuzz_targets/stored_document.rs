//! Fuzzes `stored_document`, see `src/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluicebox_fuzz::targets::stored_document(data));
