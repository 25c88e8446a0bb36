#![no_main]
//! See `khamsin_fuzz::frames`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| khamsin_fuzz::frames::run(data));
