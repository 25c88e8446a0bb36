//! The simulator: the server's own code, a network and its peers, in virtual time, from one seed.
//!
//! A [`Scenario`] is drawn from a seed and says everything that will happen; a [`World`] makes it happen, and holds the
//! server to what must be true at any time and at the end. The same seed gives the same frames at the same times.

pub mod dice;
pub mod hostile;
pub mod link;
pub mod packets;
pub mod peer;
pub mod run;
pub mod scenario;
pub mod server;
pub mod shrink;
pub mod tap;
pub mod trace;
pub mod verdict;
pub mod witness;
pub mod world;

pub use scenario::{Cuts, Scenario};
pub use server::Files;
pub use verdict::Failure;
pub use world::{Outcome, World};
