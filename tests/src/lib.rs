//! What crosses khamsin's crates. The tests are in `tests/tests/`; namespaces, servers and clients come from the tools.

pub use khamsin_tools::{bed, command, deadline, netns, pages, rung, server, wrk};

pub mod cost;
