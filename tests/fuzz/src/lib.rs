//! What khamsin is fuzzed with: harnesses that take bytes, run the real code, and panic where it breaks a promise.
//!
//! The targets in `fuzz_targets/` hand them libFuzzer's inputs, `tests/corpus.rs` the committed ones, and `tcp-storm`
//! dice. README.md beside this crate says how to run each.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "a harness: its modules say what they do")]

pub mod frames;
pub mod http;
pub mod packet;
pub mod puppet;
pub mod ring;
pub mod source;
pub mod tcp;
#[cfg(feature = "traces")]
pub mod traces;
pub mod world;
