//! A request as a callback sees it.

use super::parse::Method;
use super::target::{self, Location};
use httparse::Header;
use std::borrow::Cow;

/// A request whose head, and body if it has one, have come.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) location: &'a Location<'a>,
    pub(crate) headers: &'a [Header<'a>],
    pub(crate) body: &'a [u8],
    pub(crate) unix_seconds: u64,
}

impl<'a> Request<'a> {
    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path, percent-decoded; what is not UTF-8 in it shows as U+FFFD.
    pub fn path(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(&self.location.path)
    }

    /// The path, percent-decoded, as bytes.
    pub fn path_bytes(&self) -> &'a [u8] {
        &self.location.path
    }

    /// What follows the first `?` of the target, as it was sent.
    pub fn query(&self) -> Option<&'a str> {
        self.location.query
    }

    /// The parameters of the query in their order: escapes decoded, `+` a space.
    pub fn parameters(&self) -> impl Iterator<Item = (String, String)> + 'a {
        target::parameters(self.location.query.unwrap_or(""))
    }

    /// The value of the first parameter called `name`.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.parameters().find(|(candidate, _)| candidate == name).map(|(_, value)| value)
    }

    /// The value of the first header field called `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// Every header field in its order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + 'a {
        self.headers.iter().map(|header| (header.name, header.value))
    }

    /// The body; empty where there is none.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// When the answer is written, in seconds since 1970.
    pub fn unix_seconds(&self) -> u64 {
        self.unix_seconds
    }
}
