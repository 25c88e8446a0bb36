//! The kernel-socket host against real sockets on the loopback, in both trigger modes; one thread, time by hand.

#![allow(clippy::unwrap_used)]

mod bench;
mod edge_cases;
mod exhaustion;
#[path = "../link_netns/patience.rs"]
mod patience;
mod streams;

/// Defines each function, which takes a `Trigger`, as two tests.
macro_rules! both_triggers {
    ($($name:ident),* $(,)?) => {
        mod level { $(#[test] fn $name() { super::$name(khamsin_drivers::epoll::Trigger::Level) })* }
        mod edge { $(#[test] fn $name() { super::$name(khamsin_drivers::epoll::Trigger::Edge) })* }
    };
}
use both_triggers;
