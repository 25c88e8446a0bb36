//! Applications: [`echo`], [`http`] and [`sink`], which know only the [`App`](khamsin_stack::App) trait.
//!
//! Nothing here opens a socket, reads a clock or touches a disk while it serves: bytes come and go through
//! [`Stream`](khamsin_stack::Stream), time is an argument, and files are loaded by a thread of their own
//! ([`http::Loader`]). The same code therefore runs over AF_XDP, TAP, kernel sockets and the simulator. [`output`] is for the
//! programs around them, the tools' too.

pub mod echo;
pub mod http;
pub mod output;
pub mod sink;
pub mod testing;
