//! What the command-line tools and the tests share: namespaces, the server in one of them, and clients in the other.
//!
//! A [`bed::Bed`] is two network namespaces and a link between them; a [`server::Server`] is the khamsin binary in one of
//! them, a [`command::Running`] any other program in either. Everything has a deadline, everything is ended by its
//! process id, and everything is taken down when its value is dropped, also by a panic.

pub mod bed;
pub mod command;
pub mod deadline;
pub mod load;
pub mod middlebox;
pub mod netns;
pub mod pages;
#[cfg(feature = "traces")]
pub mod replay;
pub mod rung;
pub mod script;
pub mod server;
pub mod sim;
pub mod socket;
pub mod wrk;
