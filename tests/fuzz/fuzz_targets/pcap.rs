#![no_main]
//! See `khamsin_fuzz::traces`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| khamsin_fuzz::traces::run(data));
