//! HTTP/1.1 (RFC 9110, RFC 9112) from memory: files, callbacks, echo, and server-sent events.
//!
//! [`Http`] is the application of one shard. It answers from an immutable [`Snapshot`] that a [`Loader`] thread
//! replaces when files change, and from a [`Router`] of callbacks, in the way of evhttp. A request whose head lies in
//! one piece is parsed where it lies; a file is answered by copying a prebuilt head, and its body by reference.
//!
//! A head is judged by its complete lines, so that the answer never depends on how the bytes were cut into segments.

mod app;
mod body;
mod builtin;
mod conditional;
mod date;
mod exchange;
mod loader;
mod pace;
mod page;
mod parse;
mod plan;
mod repeat;
mod reply;
mod request;
mod response;
mod router;
mod session;
mod site;
mod spill;
mod target;

pub use app::Http;
pub use loader::{Loader, SiteConfig, SiteError};
pub use parse::Method;
pub use request::Request;
pub use response::Response;
pub use router::{Callback, Router};
pub use session::HttpSession;
pub use site::{File, Site, Snapshot};

use core::time::Duration;

/// Longest request head, in bytes, the empty line included; more is 431.
pub const HEAD_MAX: usize = 16 * 1024;
/// Longest request line, in bytes; more is 414.
pub const LINE_MAX: usize = 8 * 1024;
/// Most header fields in a request; more is 431.
pub const HEADERS_MAX: usize = 64;
/// Bodies up to this many bytes lie beside their head and are copied; longer ones go by reference.
pub const INLINE_MAX: usize = 2048;
/// Bytes of a request body that are read and thrown away to keep a connection; more, and it is closed instead.
pub const DISCARD_MAX: u64 = 1 << 20;
/// Requests answered for one connection before the others of the burst get their turn.
const REQUESTS_PER_READY: usize = 64;
/// Bytes of input looked at in one step while a body passes through.
const STEP: usize = 16 * 1024;

/// How the HTTP application behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpConfig {
    /// Microseconds from 1970-01-01 to [`Instant::ZERO`](khamsin_stack::Instant::ZERO): what turns `now` into a date.
    pub unix_at_zero_us: u64,
    /// Time for a request head to become complete; then 408.
    pub header_timeout: Duration,
    /// Time without a request after which a connection is closed.
    pub idle_timeout: Duration,
    /// Time that a request body may be late; then 408. Each byte makes up for its share of a second at `rate_min`, but
    /// never for more than this.
    pub body_timeout: Duration,
    /// Time in which a peer is to take all of what it asked for, or as much as `rate_min` asks; then the connection is
    /// reset.
    pub stall_timeout: Duration,
    /// Least rate at which a peer is to send a request body, and to take an answer, in bytes a second; 0: a single byte
    /// is enough for another timeout.
    pub rate_min: u32,
    /// Time that a closed connection waits for the peer to close too; then it is reset.
    pub linger_timeout: Duration,
    /// Largest request body that is collected for a callback, in bytes; more is 413.
    pub body_max: usize,
    /// Bytes of answer that one connection may have waiting in memory because the peer sends before it reads.
    pub spill_max: usize,
    /// Bytes of request bodies and waiting answers that one shard holds for all its connections; then 503, or no
    /// more is read.
    pub buffered_max: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            unix_at_zero_us: 0,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            // What Windows' HTTP server and Kestrel ask for, half of what Apache's mod_reqtimeout does: slower than any modem.
            rate_min: 240,
            linger_timeout: Duration::from_secs(30),
            body_max: 1 << 20,
            spill_max: 16 << 20,
            buffered_max: 256 << 20,
        }
    }
}

/// Running totals of one shard's HTTP application.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HttpStats {
    /// Requests whose head was complete and sound.
    pub requests: u64,
    /// Requests whose head was remembered and not parsed again.
    pub repeated: u64,
    /// Requests refused because of their syntax or framing, or given up (the connection ends).
    pub refused: u64,
    /// Connections closed because they were idle.
    pub idle_closed: u64,
    /// Of these, or cut off in the middle of an answer: those whose rest did not come in time.
    pub timed_out: u64,
    /// Connections reset because the peer did not read, or did not close.
    pub stalled: u64,
}
