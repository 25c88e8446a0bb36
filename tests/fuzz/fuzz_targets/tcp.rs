#![no_main]
//! See `khamsin_fuzz::tcp`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| khamsin_fuzz::tcp::run(data));
