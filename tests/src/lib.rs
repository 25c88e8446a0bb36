//! What crosses khamsin's crates: the harness that the tests in `tests/tests/` share.
//!
//! A test makes a [`bed::Bed`] (two network namespaces and a link between them), starts the server in one of them
//! ([`server::Server`]) and clients in the other ([`command::Run`]). Everything has a deadline, everything is ended by
//! its process id, and everything is taken down when the test is over, also when it panics.

pub mod bed;
pub mod command;
pub mod deadline;
pub mod netns;
pub mod pages;
pub mod rung;
pub mod server;
