#![no_main]
//! See `khamsin_fuzz::http`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| khamsin_fuzz::http::run(data));
