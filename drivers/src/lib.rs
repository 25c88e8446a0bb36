//! Where frames come from and where they go: AF_XDP, AF_PACKET, TAP, a simulator; and kernel sockets through epoll.
//!
//! Every driver but `epoll` is a [`khamsin_stack::Queue`]; `epoll` replaces the stack and hosts the same applications.

pub mod af_packet;
pub mod af_xdp;
pub mod capture;
pub mod clock;
pub mod doorbell;
pub mod epoll;
pub mod group;
pub mod link;
pub mod pages;
pub mod pool;
pub mod sim;
pub mod tap;
mod vnet;
