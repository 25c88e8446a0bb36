//! Paths to callbacks, in the way of evhttp: one per path, per prefix, and one for everything else.

use super::builtin;
use super::request::Request;
use super::response::Response;
use super::site::PathHasher;
use core::fmt;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

/// A callback. It runs on the packet loop: it must not block.
pub type Callback = Arc<dyn Fn(&Request<'_>) -> Response + Send + Sync>;

/// What answers a path.
#[derive(Clone)]
pub(crate) enum Handler {
    /// A callback, given the whole request.
    Callback(Callback),
    /// The body comes back while it arrives.
    Echo,
    /// Server-sent events, one a second.
    Events,
}

/// Which handler answers which path. Each shard has a clone.
#[derive(Clone, Default)]
pub struct Router {
    exact: HashMap<Box<[u8]>, Handler, BuildHasherDefault<PathHasher>>,
    /// Longest first.
    prefixes: Vec<(Box<[u8]>, Handler)>,
    generic: Option<Handler>,
}

impl Router {
    /// A router that knows no path.
    pub fn new() -> Self {
        Router::default()
    }

    /// The routes that khamsin brings: `/echo`, `/query` and `/events`.
    pub fn builtin() -> Self {
        let mut router = Router::new().route("/query", builtin::query);
        router.exact.insert((*b"/echo").into(), Handler::Echo);
        router.exact.insert((*b"/events").into(), Handler::Events);
        router
    }

    /// Answers exactly `path` (decoded, without a query) by `callback`, whatever the method. A route goes before a file.
    #[must_use]
    pub fn route(mut self, path: &str, callback: impl Fn(&Request<'_>) -> Response + Send + Sync + 'static) -> Self {
        self.exact.insert(path.as_bytes().into(), Handler::Callback(Arc::new(callback)));
        self
    }

    /// Answers every path that starts with `prefix` and has no route of its own; the longest prefix wins.
    #[must_use]
    pub fn prefix(mut self, prefix: &str, callback: impl Fn(&Request<'_>) -> Response + Send + Sync + 'static) -> Self {
        self.prefixes.retain(|(known, _)| **known != *prefix.as_bytes());
        self.prefixes.push((prefix.as_bytes().into(), Handler::Callback(Arc::new(callback))));
        self.prefixes.sort_by_key(|(prefix, _)| core::cmp::Reverse(prefix.len()));
        self
    }

    /// Answers what no route and no file does, in place of 404.
    #[must_use]
    pub fn generic(mut self, callback: impl Fn(&Request<'_>) -> Response + Send + Sync + 'static) -> Self {
        self.generic = Some(Handler::Callback(Arc::new(callback)));
        self
    }

    pub(crate) fn find(&self, path: &[u8]) -> Option<&Handler> {
        self.exact
            .get(path)
            .or_else(|| self.prefixes.iter().find(|(prefix, _)| path.starts_with(prefix)).map(|(_, handler)| handler))
    }

    pub(crate) fn fallback(&self) -> Option<&Handler> {
        self.generic.as_ref()
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut paths: Vec<_> = self.exact.keys().map(|path| String::from_utf8_lossy(path)).collect();
        paths.sort();
        write!(f, "Router({paths:?}, {} prefixes, generic: {})", self.prefixes.len(), self.generic.is_some())
    }
}
