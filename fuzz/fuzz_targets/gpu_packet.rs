//! Fuzzes `gpu_packet`, see `src/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluicebox_fuzz::targets::gpu_packet(data));
