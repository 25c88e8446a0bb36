//! The link in memory and the model client, tried on themselves before they judge a server.
#![allow(clippy::unwrap_used)]

mod clients;
mod judge;
mod options;
mod rings;
mod server;
mod wire;
mod worlds;
